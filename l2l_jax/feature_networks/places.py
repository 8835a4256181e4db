"""ResNet-50 trained on Places365 (Zhou et al. 2018): 2,048 features, logits of 365 scenes.

The feature network for images of scenes: the network of He et al. 2016 with the stride in the 3x3
convolution, as in the published file. Batch normalisation (epsilon 1e-5) is folded into the kernels
when the weights are read. Images are resized to 224x224 as Pillow does on bytes (bicubic), then
standardised with ImageNet's values.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from l2l_jax.lib import precision, resample, state_dicts
from l2l_jax.lib.nnx_pure import PureModule
from l2l_jax.types import PIXEL_BOUNDS, Bounds, FeatureNetwork, Images, NetworkContext, Params

FILE = "resnet50_places365.pth.tar"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
DEPTHS, WIDTHS = (3, 4, 6, 3), (64, 128, 256, 512)
EPSILON = 1e-5
EXPANSION = 4  # output channels of a bottleneck per inner channel
CLASSES = 365
BOUNDS = {"size": Bounds(32, PIXEL_BOUNDS.high), "dtype": Bounds(choices=precision.DTYPES)}


class Bottleneck(nnx.Module):
    """relu(conv3(relu(conv2(relu(conv1(x))))) + x), x projected where shapes differ."""

    def __init__(self, inner: int, width: int, stride: int, dtype: type, rngs: nnx.Rngs):
        conv = functools.partial(_convolution, dtype=dtype, rngs=rngs)
        self.conv1, self.conv2 = conv(inner, width, 1), conv(width, width, 3, stride)
        self.conv3 = conv(width, EXPANSION * width, 1)
        changes = stride > 1 or inner != EXPANSION * width
        self.downsample = conv(inner, EXPANSION * width, 1, stride) if changes else None

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        y = jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x))))
        return jax.nn.relu(self.conv3(y) + (self.downsample(x) if self.downsample else x))


def _convolution(
    inner: int, outer: int, side: int, stride: int = 1, *, dtype: type, rngs: nnx.Rngs
) -> nnx.Conv:
    return nnx.Conv(
        inner, outer, (side, side), strides=stride, padding=side // 2, dtype=dtype, rngs=rngs,
        kernel_init=nnx.initializers.he_normal(),
    )  # fmt: skip


class Network(nnx.Module):
    """[B, H, W, 3] standardised -> ([B, 2048], [B, classes])."""

    def __init__(self, classes: int, dtype: type, rngs: nnx.Rngs):
        self.conv1, inner, layers = _convolution(3, 64, 7, 2, dtype=dtype, rngs=rngs), 64, []
        for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
            blocks = []
            for block in range(depth):
                stride = 2 if stage and not block else 1
                blocks.append(Bottleneck(inner, width, stride, dtype, rngs))
                inner = EXPANSION * width
            layers.append(nnx.List(blocks))
        self.layers = nnx.List(layers)
        self.fc = nnx.Linear(inner, classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B H W 3"]
    ) -> tuple[Float[Array, "B D"], Float[Array, "B C"]]:
        padding: Any = ((1, 1), (1, 1))  # declared as str in Flax, which passes it to JAX
        x = nnx.max_pool(jax.nn.relu(self.conv1(x)), (3, 3), (2, 2), padding)
        for blocks in self.layers:
            for block in blocks:
                x = block(x)
        features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return features, self.fc(features)


def file(*, weights: str, **_: Any) -> str:
    """The weights file that `build` needs with these arguments."""
    return weights or FILE


def build(
    context: NetworkContext,
    *,
    weights: str = "",
    size: int = 224,
    dtype: str = "float32",
) -> FeatureNetwork:
    """The network; it resizes every image to size x size.

    weights: a file, "" for the official one (weights/feature_networks.py searches for it), or
    "random", which the report marks as such. DataMissing if the file does not exist.
    """
    compute_dtype = precision.compute_dtype(dtype)
    network = PureModule(functools.partial(Network, CLASSES, compute_dtype))

    def apply(params: Params, images: Images) -> tuple[Float[Array, "B D"], Float[Array, "B C"]]:
        resized = resample.resize(images * 255.0, (size, size), "pillow") / 255.0
        with precision.full_precision(compute_dtype):
            return network.bind(params)((resized - MEAN) / STD)

    params, source = context.load(file(weights=weights), network.template, from_torch)
    about = {"resize": f"pillow, {size}x{size}", **source, "dtype": jnp.dtype(compute_dtype).name}
    return FeatureNetwork("places", about, params, apply)


def from_torch(state: Mapping[str, np.ndarray], path: Path) -> Params:
    """Parameters from the official state dict. path: named in errors.

    The file may have been saved with DataParallel, which adds "module." before each name.
    """
    state = {name.removeprefix("module."): array for name, array in state.items()}
    take = state_dicts.array_reader(state, path)

    def folded(conv: str, norm: str) -> Params:
        return state_dicts.fold_batch_norm(take, f"{conv}.weight", norm, EPSILON)

    def block(name: str) -> Params:
        convs = {f"conv{i}": folded(f"{name}.conv{i}", f"{name}.bn{i}") for i in (1, 2, 3)}
        if f"{name}.downsample.0.weight" in state:
            convs["downsample"] = folded(f"{name}.downsample.0", f"{name}.downsample.1")
        return convs

    layers = {
        stage: {i: block(f"layer{stage + 1}.{i}") for i in range(depth)}
        for stage, depth in enumerate(DEPTHS)
    }
    fc = {"kernel": take("fc.weight").T, "bias": take("fc.bias")}
    return {"conv1": folded("conv1", "bn1"), "layers": layers, "fc": fc}
