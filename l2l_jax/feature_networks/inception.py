"""Inception-v3 as the field measures with it: FID features, and logits for the Inception Score.

Szegedy et al. (CVPR 2016), in the two forms whose weights are published:

    fid           TensorFlow's network of 2015 (Heusel et al. 2017), ported to PyTorch: 1,008
                  outputs, averages that leave the margin out, the last block's pool takes maxima
    torchvision   1,000 outputs, averages that count the margin

`features` are the 2,048 means of the last block. What the network is shown is part of a figure:
`resize` is a mode of lib/resample.py, `scale` what bytes become,

    clean       (x - 128) / 128          clean-fid, with resize="clean": the default
    unit        2 x / 255 - 1            pytorch-fid, with resize="legacy"
    cifar       CIFAR-10's mean and standard deviation: what the released code of paper A gives
                torchvision's network, which expects another range

Batch normalisation (epsilon 0.001) is folded into the kernels when weights are read.
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
from l2l_jax.lib.errors import ConfigError, unknown
from l2l_jax.lib.nnx_pure import Pure
from l2l_jax.types import Array, FeatureNetwork, NetworkContext, Params

FILES = {
    "fid": "pt_inception-2015-12-05-6726825d.pth",
    "torchvision": "inception_v3_google-0cc3c7bd.pth",
}
OUTPUTS = {"fid": 1008, "torchvision": 1000}
SCALES = ("clean", "unit", "cifar")
CIFAR = np.array([[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]], np.float32)  # mean, std
EPSILON = 1e-3  # of batch normalisation
SIZE, SMALLEST = 299, 75
PADDED, VALID = "SAME", "VALID"

# A convolution: (name, channels, kernel, stride, padding). A branch is a chain of them.
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
    """Links whose names end in a and b both follow the one before them."""
    across, down = (1, 3), (3, 1)
    return [
        [_link("branch1x1", 320)],
        [_link("branch3x3_1", 384), _link("branch3x3_2a", 384, across),
         _link("branch3x3_2b", 384, down)],
        [_link("branch3x3dbl_1", 448), _link("branch3x3dbl_2", 384, 3),
         _link("branch3x3dbl_3a", 384, across), _link("branch3x3dbl_3b", 384, down)],
        [_link("branch_pool", 192)],
    ]  # fmt: skip


# Blocks with a pool branch end in one of 1x1; those that shrink the grid add the maxima themselves.
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
STEM: list[Link | None] = [  # None: maxima over 3x3, stride 2
    ("Conv2d_1a_3x3", 32, (3, 3), 2, VALID),
    ("Conv2d_2a_3x3", 32, (3, 3), 1, VALID),
    ("Conv2d_2b_3x3", 64, (3, 3), 1, PADDED),
    None,
    ("Conv2d_3b_1x1", 80, (1, 1), 1, VALID),
    ("Conv2d_4a_3x3", 192, (3, 3), 1, VALID),
    None,
]


class Network(nnx.Module):
    """[B, H, W, 3] as scaled -> ([B, 2048], [B, outputs]). Sides from SMALLEST pixels on."""

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
                    forked = link[0].endswith(("a", "b"))
                    total += outer if forked else 0
                    inner = inner if forked else outer
                total += 0 if forked else outer
            channels = total
        self.convolutions = nnx.Dict(convolutions)
        self.fc = nnx.Linear(channels, OUTPUTS[kind], rngs=rngs)

    def __call__(self, x: Array) -> tuple[Array, Array]:
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
        for name, *_ in branch:
            made = self._apply(f"{block}.{name}", x)
            if name.endswith(("a", "b")):
                forks.append(made)
            else:
                x = made
        return jnp.concatenate(forks, axis=-1) if forks else x


def _pooled(branches: list[list[Link]]) -> bool:
    return branches[-1][0][0] == "branch_pool"


def _maxima(x: Array, stride: int) -> Array:
    return nnx.max_pool(x, (3, 3), (stride, stride), VALID if stride > 1 else PADDED)


def _means(x: Array, margin: bool) -> Array:
    """Means over 3x3; margin: zeros beyond the edge count as pixels."""
    return nnx.avg_pool(x, (3, 3), (1, 1), PADDED, count_include_pad=margin)


def scaled(images: Array, scale: str) -> Array:
    """0..255 -> what the network sees."""
    if scale == "clean":
        return (images - 128.0) / 128.0
    unit = images / 255.0
    return (unit - CIFAR[0]) / CIFAR[1] if scale == "cifar" else 2.0 * unit - 1.0


def file(*, kind: str, weights: str, **_: Any) -> str:
    """The file that `build` needs with these arguments."""
    if kind not in FILES:
        raise unknown("kind of inception", kind, FILES)
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
    """The network of `kind`, images resized to size x size.

    weights: a file, "" for the official one (weights/feature_networks.py says where it is looked
    for), or "random", whose figures are marked as such. DataMissing if there is no such file.
    """
    spec = file(kind=kind, weights=weights)
    for name, value, known in (("scale", scale, SCALES), ("resize", resize, resample.MODES)):
        if value not in known:
            raise unknown(f"{name} of inception", value, known)
    if size < SMALLEST:
        raise ConfigError(f"Of {size} pixels nothing is left; inception's size is {SMALLEST} on.")
    number = precision.compute_dtype(dtype)
    network = Pure(functools.partial(Network, kind, number))

    def apply(params: Params, images: Array) -> tuple[Array, Array]:
        shown = scaled(resample.resize(images * 255.0, (size, size), resize), scale)
        with precision.exact(number):
            return network.bind(params)(shown)

    params, source = context.load(spec, network.template, from_torch)
    about: dict[str, Any] = dict(kind=kind, resize=f"{resize}, {size}x{size}", scale=scale)
    return FeatureNetwork(
        "inception", about | source | {"dtype": jnp.dtype(number).name}, params, apply
    )


def from_torch(state: Mapping[str, np.ndarray], path: Path) -> Params:
    """The official state dict, with each normalisation folded into the kernel before it.

    Layers that this network does not have, such as torchvision's auxiliary head, are left out.
    """
    names = [link[0] for link in STEM if link]
    names += [f"{block}.{link[0]}" for block, all_ in BLOCKS.items() for b in all_ for link in b]
    take = state_dicts.taker(state, path)
    convolutions = {
        name: state_dicts.folded(take, f"{name}.conv.weight", f"{name}.bn", EPSILON)
        for name in names
    }
    fc = {"kernel": take("fc.weight").T, "bias": take("fc.bias")}
    return {"convolutions": convolutions, "fc": fc}
