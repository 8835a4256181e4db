"""The U-Net of guided diffusion (Dhariwal & Nichol 2021), conditioned on the noise level itself.

As Palette (Saharia et al., SIGGRAPH 2022) uses it: blocks of two convolutions, the level's
embedding as scale and shift of the second normalisation, resampling inside the blocks that change
the resolution, attention where the downsampling factor is listed and always in the middle. The
input blocks and the middle are an encoder, the output blocks a decoder that takes every feature
map of the encoder once, last one first.

Released quirks kept, since published weights depend on them: heads are split before q, k and v;
the scale is the first half of the embedding's projection; GroupNorm epsilon is 1e-5. Layers are
numbered as there: block i is a list of layers, a convolution, residual blocks or attention.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.precision import exact
from l2l_jax.models.layers.attention import attention
from l2l_jax.models.layers.vit import Dtype
from l2l_jax.types import Array

EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Size:
    """Channels are width * multiplier, level by level; the side halves between two levels."""

    width: int
    multipliers: tuple[int, ...]
    blocks: int  # residual blocks of a level of the encoder; the decoder has one more
    attention: tuple[int, ...] = ()  # downsampling factors with attention besides the middle
    head: int = 32  # width of an attention head
    groups: int = 32  # of every GroupNorm

    @property
    def shrinks(self) -> int:
        """How many times smaller the deepest map is."""
        return 1 << (len(self.multipliers) - 1)


def check(size: Size) -> None:
    """ConfigError for numbers that are none, do not divide each other, or mean nothing."""
    numbers = (size.width, *size.multipliers, size.blocks, size.head, size.groups, *size.attention)
    if not all(isinstance(n, int) and n > 0 for n in numbers) or size.width % 2:
        raise ConfigError(
            f"The numbers of a U-Net are whole and positive, and its width is even; not {size}."
        )
    factors = [1 << level for level in range(len(size.multipliers))]
    if bad := [factor for factor in size.attention if factor not in factors]:
        raise ConfigError(
            f"attention={size.attention}: no map of this U-Net is {bad[0]} times smaller than the "
            f"image; those are {factors}. The 16 of the released config attends nowhere: leave it "
            "out."
        )
    widths = [size.width * m for m in size.multipliers]
    if bad := [width for width in widths if width % size.groups]:
        raise ConfigError(
            f"Widths {bad} cannot be split into {size.groups} groups; change model.args.width, "
            "multipliers or groups."
        )
    attended = {widths[-1]} | {w for at, w in enumerate(widths) if 1 << at in size.attention}
    if bad := sorted(width for width in attended if width % size.head):
        raise ConfigError(
            f"Widths {bad} cannot be split into attention heads of {size.head}; change "
            "model.args.width, multipliers or head."
        )


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes layers of one size."""

    size: Size
    dtype: Dtype
    rngs: nnx.Rngs

    def conv(self, inner: int, outer: int, side: int = 3, scale: float = 1.0) -> nnx.Conv:
        """scale: of the initial kernel; with 0 a block of residuals begins as the identity."""
        lecun = nnx.initializers.lecun_normal()
        return nnx.Conv(
            inner, outer, (side, side), dtype=self.dtype, rngs=self.rngs,
            kernel_init=lambda *args: scale * lecun(*args),
        )  # fmt: skip

    def linear(self, inner: int, outer: int, dtype: Dtype | None = None) -> nnx.Linear:
        return nnx.Linear(inner, outer, dtype=dtype or self.dtype, rngs=self.rngs)

    def norm(self, width: int) -> nnx.GroupNorm:
        return nnx.GroupNorm(
            width, self.size.groups, epsilon=EPSILON, dtype=self.dtype, rngs=self.rngs,
            use_fast_variance=False,
        )  # fmt: skip

    @property
    def embedded(self) -> int:
        return 4 * self.size.width


def gamma_embedding(gamma: Array, width: int) -> Array:
    """[B] levels in [0, 1] -> [B, width]: cosines, then sines, of frequencies 10000^(-i/half)."""
    half = width // 2
    frequencies = jnp.exp(-jnp.log(10_000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = gamma.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class Embedding(nnx.Module):
    """The level for all blocks: [B] -> [B, 4 * width] float32."""

    def __init__(self, make: Maker):
        self.width = make.size.width
        self.first = make.linear(self.width, make.embedded, jnp.float32)
        self.second = make.linear(make.embedded, make.embedded, jnp.float32)

    def __call__(self, gamma: Array) -> Array:
        with exact(jnp.float32):
            return self.second(jax.nn.silu(self.first(gamma_embedding(gamma, self.width))))


def _down(x: Array) -> Array:
    return nnx.avg_pool(x, (2, 2), (2, 2))


def _up(x: Array) -> Array:
    return x.repeat(2, axis=1).repeat(2, axis=2)


RESAMPLING: dict[str, Callable[[Array], Array]] = {"": lambda x: x, "down": _down, "up": _up}


class ResBlock(nnx.Module):
    """shortcut(x) + F(x), both resampled; the level scales and shifts inside F."""

    def __init__(self, inner: int, outer: int, make: Maker, resample: str = ""):
        self.resample = resample
        self.norm1 = make.norm(inner)
        self.conv1 = make.conv(inner, outer)
        self.level = make.linear(make.embedded, 2 * outer)
        self.norm2 = make.norm(outer)
        self.conv2 = make.conv(outer, outer, scale=0.0)
        self.shortcut = nnx.data(None if inner == outer else make.conv(inner, outer, 1))

    def __call__(self, x: Array, level: Array) -> Array:
        resample = RESAMPLING[self.resample]
        h = self.conv1(resample(jax.nn.silu(self.norm1(x))))
        scale, shift = jnp.split(self.level(jax.nn.silu(level))[:, None, None], 2, axis=-1)
        h = self.conv2(jax.nn.silu(self.norm2(h) * (1 + scale) + shift))
        x = resample(x)
        return h + (x if self.shortcut is None else self.shortcut(x))


class Attention(nnx.Module):
    """x + self-attention over all places; the projection is laid out (heads, 3, head width)."""

    def __init__(self, width: int, make: Maker):
        self.heads = width // make.size.head
        self.norm = make.norm(width)
        self.qkv = make.linear(width, 3 * width)
        self.proj = make.linear(width, width)

    def __call__(self, x: Array, level: Array) -> Array:
        del level
        b, h, w, c = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, h * w, self.heads, 3, c // self.heads)
        mixed = attention(qkv[:, :, :, 0], qkv[:, :, :, 1], qkv[:, :, :, 2])
        return x + self.proj(mixed.reshape(b, h, w, c))


class Conv(nnx.Module):
    """The first layer: a convolution that does not look at the level."""

    def __init__(self, inner: int, outer: int, make: Maker):
        self.conv = make.conv(inner, outer)

    def __call__(self, x: Array, level: Array) -> Array:
        del level
        return self.conv(x)


def run(layers: nnx.List, x: Array, level: Array, remat: bool) -> Array:
    """One block: its layers in turn. remat: recomputed in the backward pass."""

    def through(layers: nnx.List, x: Array, level: Array) -> Array:
        return functools.reduce(lambda x, layer: layer(x, level), layers, x)

    if not remat:
        return through(layers, x, level)
    graph, state = nnx.split(layers)
    again = jax.checkpoint(lambda state, x, level: through(nnx.merge(graph, state), x, level))
    return again(state, x, level)


class Encoder(nnx.Module):
    """(image given, image with noise, level) -> every input block's map and the middle's."""

    def __init__(self, size: Size, dtype: Dtype, remat: bool, rngs: nnx.Rngs):
        make, self.remat = Maker(size, dtype, rngs), remat
        self.embed = Embedding(make)
        widths = [size.width * m for m in size.multipliers]
        blocks = [[Conv(6, widths[0], make)]]
        for at, (inner, outer) in enumerate(itertools.pairwise([widths[0], *widths])):
            attends = 1 << at in size.attention
            for width in [inner] + [outer] * (size.blocks - 1):
                more = [Attention(outer, make)] if attends else []
                blocks.append([ResBlock(width, outer, make), *more])
            if at + 1 < len(widths):
                blocks.append([ResBlock(outer, outer, make, "down")])
        deepest = widths[-1]
        self.blocks = nnx.List([nnx.List(block) for block in blocks])
        self.middle = nnx.List(
            [
                ResBlock(deepest, deepest, make),
                Attention(deepest, make),
                ResBlock(deepest, deepest, make),
            ]
        )

    def __call__(self, given: Array, noisy: Array, gamma: Array) -> tuple[Array, ...]:
        level, x = self.embed(gamma), jnp.concatenate([given, noisy], axis=-1)
        maps = []
        for block in (*self.blocks, self.middle):
            x = run(block, x, level, self.remat)
            maps.append(x)
        return tuple(maps)


class Decoder(nnx.Module):
    """The maps of the encoder and the embedded level -> [B, H, W, 3] float32."""

    def __init__(self, size: Size, owns_embedding: bool, dtype: Dtype, remat: bool, rngs: nnx.Rngs):
        make, self.remat = Maker(size, dtype, rngs), remat
        self.embed = nnx.data(Embedding(make) if owns_embedding else None)
        skips, x, blocks = _skips(size), size.width * size.multipliers[-1], []
        for at, multiplier in reversed(list(enumerate(size.multipliers))):
            outer = size.width * multiplier
            for i in range(size.blocks + 1):
                block = [ResBlock(x + skips.pop(), outer, make)]
                if 1 << at in size.attention:
                    block.append(Attention(outer, make))
                if at and i == size.blocks:
                    block.append(ResBlock(outer, outer, make, "up"))
                blocks.append(nnx.List(block))
                x = outer
        self.blocks = nnx.List(blocks)
        self.norm_out = make.norm(x)
        self.conv_out = make.conv(x, 3, scale=0.1)

    def __call__(self, maps: tuple[Array, ...], level: Array) -> Array:
        *skips, x = maps
        for block in self.blocks:
            x = run(block, jnp.concatenate([x, skips.pop()], axis=-1), level, self.remat)
        return self.conv_out(jax.nn.silu(self.norm_out(x))).astype(jnp.float32)


def _skips(size: Size) -> list[int]:
    """Channels of every input block's map, in order."""
    widths = [size.width * m for m in size.multipliers]
    found = [widths[0]]
    for at, width in enumerate(widths):
        found += [width] * size.blocks + ([width] if at + 1 < len(widths) else [])
    return found
