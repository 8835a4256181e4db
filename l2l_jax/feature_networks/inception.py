"""Inception-v3, the standard network for FID features and for logits of the Inception Score.

Szegedy et al. (CVPR 2016), in the two variants with published weights:

    fid           TensorFlow's network of 2015 (Heusel et al. 2017), ported to PyTorch: 1,008
                  outputs, average pooling without the padding, max pooling in the last block
    torchvision   1,000 outputs, average pooling that includes the padding

`features` are the 2,048 spatial means of the last block. FID and the Inception Score depend on how
images are prepared: `resize` is a mode of lib/resample.py, `scale` maps values x in 0..255 to

    clean       (x - 128) / 128          clean-fid, with resize="clean": the default
    unit        2 x / 255 - 1            pytorch-fid, with resize="legacy"
    cifar       (x / 255 - mean) / std of CIFAR-10: what the released code of paper A gives
                torchvision's network, which expects another range

Batch normalisation (epsilon 0.001) is folded into the kernels when the weights are read.
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
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.nnx_pure import PureModule
from l2l_jax.types import PIXEL_BOUNDS, Bounds, FeatureNetwork, Images, NetworkContext, Params

FILES = {
    "fid": "pt_inception-2015-12-05-6726825d.pth",
    "torchvision": "inception_v3_google-0cc3c7bd.pth",
}
OUTPUTS = {"fid": 1008, "torchvision": 1000}
SCALES = ("clean", "unit", "cifar")
CIFAR = np.array([[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]], np.float32)  # mean, std
EPSILON = 1e-3  # of batch normalisation
SIZE, MIN_SIZE = 299, 75  # pixels
BOUNDS = {
    "kind": Bounds(choices=tuple(FILES)),
    "scale": Bounds(choices=SCALES),
    "resize": Bounds(choices=resample.MODES),
    "size": Bounds(MIN_SIZE, PIXEL_BOUNDS.high),
    "dtype": Bounds(choices=precision.DTYPES),
}
PADDED, VALID = "SAME", "VALID"

Maps = Float[Array, "B H W C"]

# A convolution: (name, output channels, kernel, stride, padding). A branch is a chain of them.
Link = tuple[str, int, tuple[int, int], int, str]


def _link(name: str, channels: int, kernel: int | tuple[int, int] = 1, stride: int = 1) -> Link:
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    return name, channels, kernel, stride, VALID if stride > 1 else PADDED


def _mixed_a(pool: int) -> list[list[Link]]:
    return [
        [_link("branch1x1", 64)],
        [_link("branch5x5_1", 48), _link("branch5x5_2", 64, 5)],
        [_link("branch3x3dbl_1", 64), _link("branch3x3dbl_2", 96, 3),
         _link("branch3x3dbl_3", 96, 3)],
        [_link("branch_pool", pool)],
    ]  # fmt: skip


def _mixed_c(width: int) -> list[list[Link]]:
    across, down = (1, 7), (7, 1)
    return [
        [_link("branch1x1", 192)],
        [_link("branch7x7_1", width), _link("branch7x7_2", width, across),
         _link("branch7x7_3", 192, down)],
        [_link("branch7x7dbl_1", width), _link("branch7x7dbl_2", width, down),
         _link("branch7x7dbl_3", width, across), _link("branch7x7dbl_4", width, down),
         _link("branch7x7dbl_5", 192, across)],
        [_link("branch_pool", 192)],
    ]  # fmt: skip


def _mixed_e() -> list[list[Link]]:
    """Two links whose names end in "a" and "b" have the same input: the link before "a"."""
    across, down = (1, 3), (3, 1)
    return [
        [_link("branch1x1", 320)],
        [_link("branch3x3_1", 384), _link("branch3x3_2a", 384, across),
         _link("branch3x3_2b", 384, down)],
        [_link("branch3x3dbl_1", 448), _link("branch3x3dbl_2", 384, 3),
         _link("branch3x3dbl_3a", 384, across), _link("branch3x3dbl_3b", 384, down)],
        [_link("branch_pool", 192)],
    ]  # fmt: skip


# The last branch of a block is average pooling and a 1x1 convolution. Blocks without it halve the
# grid and also concatenate the max pooling of their input.
BLOCKS: dict[str, list[list[Link]]] = {
    "Mixed_5b": _mixed_a(32),
    "Mixed_5c": _mixed_a(64),
    "Mixed_5d": _mixed_a(64),
    "Mixed_6a": [
        [_link("branch3x3", 384, 3, 2)],
        [_link("branch3x3dbl_1", 64), _link("branch3x3dbl_2", 96, 3),
         _link("branch3x3dbl_3", 96, 3, 2)],
    ],
    "Mixed_6b": _mixed_c(128),
    "Mixed_6c": _mixed_c(160),
    "Mixed_6d": _mixed_c(160),
    "Mixed_6e": _mixed_c(192),
    "Mixed_7a": [
        [_link("branch3x3_1", 192), _link("branch3x3_2", 320, 3, 2)],
        [_link("branch7x7x3_1", 192), _link("branch7x7x3_2", 192, (1, 7)),
         _link("branch7x7x3_3", 192, (7, 1)), _link("branch7x7x3_4", 192, 3, 2)],
    ],
    "Mixed_7b": _mixed_e(),
    "Mixed_7c": _mixed_e(),
}  # fmt: skip
STEM: list[Link | None] = [  # None: max pooling over 3x3, stride 2
    ("Conv2d_1a_3x3", 32, (3, 3), 2, VALID),
    ("Conv2d_2a_3x3", 32, (3, 3), 1, VALID),
    ("Conv2d_2b_3x3", 64, (3, 3), 1, PADDED),
    None,
    ("Conv2d_3b_1x1", 80, (1, 1), 1, VALID),
    ("Conv2d_4a_3x3", 192, (3, 3), 1, VALID),
    None,
]


class Network(nnx.Module):
    """Images as `scaled` makes them, H and W at least MIN_SIZE -> (features, logits)."""

    def __init__(self, kind: str, dtype: type, rngs: nnx.Rngs):
        self.kind, channels, convolutions = kind, 3, {}

        def add(prefix: str, link: Link, inner: int) -> int:
            name, outer, kernel, stride, padding = link
            convolutions[prefix + name] = nnx.Conv(
                inner, outer, kernel, strides=stride, padding=padding, dtype=dtype, rngs=rngs,
                kernel_init=nnx.initializers.he_normal(),
            )  # fmt: skip
            return outer

        for link in filter(None, STEM):
            channels = add("", link, channels)
        for block, branches in BLOCKS.items():
            total = 0 if _pooled(branches) else channels
            for branch in branches:
                inner = channels
                for link in branch:
                    outer = add(f"{block}.", link, inner)
                    if _forked(link):
                        total += outer
                    else:
                        inner = outer
                total += 0 if _forked(branch[-1]) else inner
            channels = total
        self.convolutions = nnx.Dict(convolutions)
        self.fc = nnx.Linear(channels, OUTPUTS[kind], rngs=rngs)

    def __call__(
        self, x: Float[Array, "B H W 3"]
    ) -> tuple[Float[Array, "B 2048"], Float[Array, "B outputs"]]:
        for link in STEM:
            x = _maxima(x, 2) if link is None else self._apply(link[0], x)
        for block, branches in BLOCKS.items():
            parts = [self._branch(block, branch, x) for branch in branches]
            x = jnp.concatenate([*parts, *([] if _pooled(branches) else [_maxima(x, 2)])], axis=-1)
        features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return features, self.fc(features)

    def _apply(self, name: str, x: Array) -> Array:
        return jax.nn.relu(self.convolutions[name](x))

    def _branch(self, block: str, branch: list[Link], x: Array) -> Array:
        if branch[0][0] == "branch_pool":
            maxima = self.kind == "fid" and block == "Mixed_7c"
            x = _maxima(x, 1) if maxima else _means(x, margin=self.kind == "torchvision")
        forks = []
        for link in branch:
            y = self._apply(f"{block}.{link[0]}", x)
            if _forked(link):
                forks.append(y)
            else:
                x = y
        return jnp.concatenate(forks, axis=-1) if forks else x


def _forked(link: Link) -> bool:
    """Whether the link is one of two parallel ends of its branch."""
    return link[0].endswith(("a", "b"))


def _pooled(branches: list[list[Link]]) -> bool:
    """Whether a block has the average pooling branch."""
    return branches[-1][0][0] == "branch_pool"


def _maxima(x: Array, stride: int) -> Array:
    return nnx.max_pool(x, (3, 3), (stride, stride), VALID if stride > 1 else PADDED)


def _means(x: Array, margin: bool) -> Array:
    """Means over 3x3; margin: whether the zeros of the padding count as pixels."""
    return nnx.avg_pool(x, (3, 3), (1, 1), PADDED, count_include_pad=margin)


def scaled(images: Images, scale: str) -> Images:
    """Images in 0..255 -> the input of the network, in about [-1, 1]; scale: one of SCALES."""
    if scale == "clean":
        return (images - 128.0) / 128.0
    unit = images / 255.0
    return (unit - CIFAR[0]) / CIFAR[1] if scale == "cifar" else 2.0 * unit - 1.0


def file(*, kind: str, weights: str, **_: Any) -> str:
    """The weights file that `build` needs with these arguments."""
    if kind not in FILES:
        raise unknown_name("kind of inception", kind, FILES)
    return weights or FILES[kind]


def build(
    context: NetworkContext,
    *,
    kind: str = "fid",
    weights: str = "",
    resize: str = "clean",
    scale: str = "clean",
    size: int = SIZE,
    dtype: str = "float32",
) -> FeatureNetwork:
    """The network of a key of FILES; it resizes every image to size x size.

    weights: a file, "" for the official one (weights/feature_networks.py searches for it), or
    "random", which the report marks as such. DataMissing if the file does not exist. ConfigError
    for an unknown name, and for a size below MIN_SIZE.
    """
    spec = file(kind=kind, weights=weights)
    for name, value, known in (("scale", scale, SCALES), ("resize", resize, resample.MODES)):
        if value not in known:
            raise unknown_name(f"{name} of inception", value, known)
    if size < MIN_SIZE:
        raise ConfigError(
            f"inception: size={size} leaves no pixel after pooling; use at least {MIN_SIZE}."
        )
    compute_dtype = precision.compute_dtype(dtype)
    network = PureModule(functools.partial(Network, kind, compute_dtype))

    def apply(params: Params, images: Images) -> tuple[Float[Array, "B D"], Float[Array, "B C"]]:
        prepared = scaled(resample.resize(images * 255.0, (size, size), resize), scale)
        with precision.full_precision(compute_dtype):
            return network.bind(params)(prepared)

    params, source = context.load(spec, network.template, from_torch)
    about: dict[str, Any] = dict(kind=kind, resize=f"{resize}, {size}x{size}", scale=scale)
    return FeatureNetwork(
        "inception", about | source | {"dtype": jnp.dtype(compute_dtype).name}, params, apply
    )


def from_torch(state: Mapping[str, np.ndarray], path: Path) -> Params:
    """Parameters from the official state dict, each normalisation folded into its convolution.

    Layers that this network does not have, such as torchvision's auxiliary head, are ignored.
    path: named in errors.
    """
    names = [link[0] for link in STEM if link]
    names += [f"{block}.{link[0]}" for block, all_ in BLOCKS.items() for b in all_ for link in b]
    take = state_dicts.array_reader(state, path)
    convolutions = {
        name: state_dicts.fold_batch_norm(take, f"{name}.conv.weight", f"{name}.bn", EPSILON)
        for name in names
    }
    fc = {"kernel": take("fc.weight").T, "bias": take("fc.bias")}
    return {"convolutions": convolutions, "fc": fc}
