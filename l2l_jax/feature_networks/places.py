"""ResNet-50 trained on Places365 (Zhou et al. 2018): 2,048 features, logits of 365 scenes.

What judges scenes; He et al. 2016 with the stride in the 3x3 convolution, as the published file
has it. Batch normalisation (epsilon 1e-5) is folded into the kernels when weights are read. Images
are resized as Pillow does on bytes (bicubic) to 224x224, then standardised with ImageNet's values.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l_jax.lib import precision, resample, state_dicts
from l2l_jax.lib.nnx_pure import Pure
from l2l_jax.types import Array, FeatureNetwork, NetworkContext, Params

FILE = "resnet50_places365.pth.tar"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
DEPTHS, WIDTHS = (3, 4, 6, 3), (64, 128, 256, 512)
EPSILON = 1e-5
EXPAND = 4


class Bottleneck(nnx.Module):
    """relu(1x1), relu(3x3), 1x1; plus the input, projected where shapes differ; relu."""

    def __init__(self, inner: int, width: int, stride: int, dtype: type, rngs: nnx.Rngs):
        conv = functools.partial(_convolution, dtype=dtype, rngs=rngs)
        self.conv1, self.conv2 = conv(inner, width, 1), conv(width, width, 3, stride)
        self.conv3 = conv(width, EXPAND * width, 1)
        changes = stride > 1 or inner != EXPAND * width
        self.downsample = conv(inner, EXPAND * width, 1, stride) if changes else None

    def __call__(self, x: Array) -> Array:
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
        for at, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
            blocks = []
            for block in range(depth):
                stride = 2 if at and not block else 1
                blocks.append(Bottleneck(inner, width, stride, dtype, rngs))
                inner = EXPAND * width
            layers.append(nnx.List(blocks))
        self.layers = nnx.List(layers)
        self.fc = nnx.Linear(inner, classes, rngs=rngs)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        x = nnx.max_pool(jax.nn.relu(self.conv1(x)), (3, 3), (2, 2), ((1, 1), (1, 1)))
        for blocks in self.layers:
            for block in blocks:
                x = block(x)
        features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return features, self.fc(features)


def file(*, weights: str, **_: Any) -> str:
    """The file that `build` needs with these arguments."""
    return weights or FILE


def build(
    context: NetworkContext,
    *,
    weights: str = "",
    size: int = 224,
    dtype: str = "float32",
) -> FeatureNetwork:
    """The network, images resized to size x size.

    weights: a file, "" for the official one (weights/feature_networks.py says where it is looked
    for), or "random", whose figures are marked as such. DataMissing if there is no such file.
    """
    number = precision.compute_dtype(dtype)
    network = Pure(functools.partial(Network, 365, number))

    def apply(params: Params, images: Array) -> tuple[Array, Array]:
        shown = resample.resize(images * 255.0, (size, size), "pillow") / 255.0
        with precision.exact(number):
            return network.bind(params)((shown - MEAN) / STD)

    params, source = context.load(file(weights=weights), network.template, from_torch)
    about = {"resize": f"pillow, {size}x{size}", **source, "dtype": jnp.dtype(number).name}
    return FeatureNetwork("places", about, params, apply)


def from_torch(state: Mapping[str, np.ndarray], path: Path) -> Params:
    """The official state dict, saved with or without DataParallel's "module." before each name."""
    state = {name.removeprefix("module."): array for name, array in state.items()}
    take = state_dicts.taker(state, path)

    def folded(conv: str, norm: str) -> Params:
        return state_dicts.folded(take, f"{conv}.weight", norm, EPSILON)

    def block(name: str) -> Params:
        three = {f"conv{i}": folded(f"{name}.conv{i}", f"{name}.bn{i}") for i in (1, 2, 3)}
        if f"{name}.downsample.0.weight" in state:
            three["downsample"] = folded(f"{name}.downsample.0", f"{name}.downsample.1")
        return three

    layers = {
        at: {i: block(f"layer{at + 1}.{i}") for i in range(depth)}
        for at, depth in enumerate(DEPTHS)
    }
    fc = {"kernel": take("fc.weight").T, "bias": take("fc.bias")}
    return {"conv1": folded("conv1", "bn1"), "layers": layers, "fc": fc}
