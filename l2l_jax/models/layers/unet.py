"""The U-Net of guided diffusion (Dhariwal & Nichol 2021), conditioned on the noise level itself.

As in Palette (Saharia et al., SIGGRAPH 2022): blocks of two convolutions, the level's embedding as
scale and shift of the second normalisation, resampling inside the blocks that change the
resolution, attention at the listed downsampling factors and always in the middle. The input blocks
and the middle block form an encoder; the output blocks form a decoder that takes every feature map
of the encoder once, the last one first.

Released quirks kept, since published weights depend on them: heads are split before q, k and v;
the scale is the first half of the embedding's projection; GroupNorm epsilon is 1e-5. Layers
are numbered as released: block i is a list of layers (convolution, residual blocks, attention).
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.precision import full_precision
from l2l_jax.lib.sharding import split_rows
from l2l_jax.models.layers.attention import attention
from l2l_jax.models.layers.base import check_groups
from l2l_jax.models.layers.group_norm import GroupNorm
from l2l_jax.models.layers.vit import Dtype
from l2l_jax.types import Array, Images, PerImage

EPSILON = 1e-5
Map = Float[Array, "B h w C"]
Maps = tuple[Float[Array, "B _ _ _"], ...]
Level = Float[Array, "B E"]  # the embedded noise level
Hole = Bool[Array, "B H W 1"]  # True = hidden pixel


@dataclasses.dataclass(frozen=True)
class Size:
    """Dimensions. A level has width * multiplier channels; the side halves between two levels."""

    width: int
    multipliers: tuple[int, ...]
    blocks: int  # residual blocks of an encoder level; a decoder level has one more
    attention: tuple[int, ...] = ()  # downsampling factors with attention besides the middle
    head: int = 32  # width of an attention head
    groups: int = 32  # of every GroupNorm

    @property
    def downsampling(self) -> int:
        """The downsampling factor of the deepest feature map."""
        return 1 << (len(self.multipliers) - 1)


def check(size: Size) -> None:
    """ConfigError for values of the wrong type, out of range, or that do not divide."""
    numbers = (size.width, *size.multipliers, size.blocks, size.head, size.groups, *size.attention)
    if not all(isinstance(n, int) and n > 0 for n in numbers) or size.width % 2:
        raise ConfigError(
            f"The dimensions of a U-Net are whole and positive, and its width is even; not {size}."
        )
    factors = [1 << level for level in range(len(size.multipliers))]
    if bad := [factor for factor in size.attention if factor not in factors]:
        raise ConfigError(
            f"attention={size.attention}: no map of this U-Net is {bad[0]} times smaller than the "
            f"image; the factors are {factors}. The 16 of the released config has no effect: "
            "leave it out."
        )
    widths = [size.width * m for m in size.multipliers]
    check_groups(widths, size.groups, "model.args.width, multipliers or groups")
    attended = {widths[-1]} | {w for at, w in enumerate(widths) if 1 << at in size.attention}
    if bad := sorted(width for width in attended if width % size.head):
        raise ConfigError(
            f"Widths {bad} cannot be split into attention heads of {size.head}; change "
            "model.args.width, multipliers or head."
        )


@dataclasses.dataclass(frozen=True)
class Maker:
    """Builds layers for one size."""

    size: Size
    dtype: Dtype
    rngs: nnx.Rngs

    def conv(self, inner: int, outer: int, side: int = 3, scale: float = 1.0) -> nnx.Conv:
        """scale: factor of the initial kernel; 0 makes a residual block start as the identity."""
        lecun = nnx.initializers.lecun_normal()
        return nnx.Conv(
            inner, outer, (side, side), dtype=self.dtype, rngs=self.rngs,
            kernel_init=lambda *args: scale * lecun(*args),
        )  # fmt: skip

    def linear(self, inner: int, outer: int, dtype: Dtype | None = None) -> nnx.Linear:
        return nnx.Linear(inner, outer, dtype=dtype or self.dtype, rngs=self.rngs)

    def norm(self, width: int) -> GroupNorm:
        groups = self.size.groups
        return GroupNorm(width, groups, epsilon=EPSILON, dtype=self.dtype, rngs=self.rngs)

    @property
    def embedding_width(self) -> int:
        return 4 * self.size.width


def gamma_embedding(gamma: PerImage, width: int) -> Float[Array, "B {width}"]:
    """Levels in [0, 1] -> [B, width]: cosines, then sines, of frequencies 10000^(-i/half)."""
    half = width // 2
    frequencies = jnp.exp(-jnp.log(10_000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = gamma.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class Embedding(nnx.Module):
    """The embedding of the level for all blocks: [B] -> [B, 4 * width] float32."""

    def __init__(self, make: Maker):
        self.width = make.size.width
        self.first = make.linear(self.width, make.embedding_width, jnp.float32)
        self.second = make.linear(make.embedding_width, make.embedding_width, jnp.float32)

    def __call__(self, gamma: PerImage) -> Level:
        with full_precision(jnp.float32):
            x = split_rows(self.first(split_rows(gamma_embedding(gamma, self.width))))
            return split_rows(self.second(jax.nn.silu(x)))


def _down(x: Map) -> Float[Array, "B _ _ C"]:
    return nnx.avg_pool(x, (2, 2), (2, 2))


def _up(x: Map) -> Float[Array, "B _ _ C"]:
    return x.repeat(2, axis=1).repeat(2, axis=2)


RESAMPLING: dict[str, Callable[[Array], Array]] = {"": lambda x: x, "down": _down, "up": _up}


class ResBlock(nnx.Module):
    """shortcut(x) + F(x), both resampled; inside F the level scales and shifts."""

    def __init__(self, inner: int, outer: int, make: Maker, resample: str = ""):
        self.resample = resample
        self.norm1 = make.norm(inner)
        self.conv1 = make.conv(inner, outer)
        self.level = make.linear(make.embedding_width, 2 * outer)
        self.norm2 = make.norm(outer)
        self.conv2 = make.conv(outer, outer, scale=0.0)
        self.shortcut = nnx.data(None if inner == outer else make.conv(inner, outer, 1))

    def __call__(self, x: Map, level: Level) -> Float[Array, "B _ _ D"]:
        resample = RESAMPLING[self.resample]
        h = self.conv1(resample(jax.nn.silu(self.norm1(x))))
        level = split_rows(self.level(jax.nn.silu(level)))
        scale, shift = jnp.split(level[:, None, None], 2, axis=-1)
        h = self.conv2(jax.nn.silu(self.norm2(h) * (1 + scale) + shift))
        x = resample(x)
        return h + (x if self.shortcut is None else self.shortcut(x))


class Attention(nnx.Module):
    """x + self-attention over all positions; the projection is laid out (heads, 3, head width)."""

    def __init__(self, width: int, make: Maker):
        self.heads = width // make.size.head
        self.norm = make.norm(width)
        self.qkv = make.linear(width, 3 * width)
        self.proj = make.linear(width, width)

    def __call__(self, x: Map, level: Level) -> Map:
        del level
        b, h, w, c = x.shape
        qkv = split_rows(self.qkv(self.norm(x))).reshape(b, h * w, self.heads, 3, c // self.heads)
        mixed = attention(qkv[:, :, :, 0], qkv[:, :, :, 1], qkv[:, :, :, 2])
        return x + self.proj(mixed.reshape(b, h, w, c))


class Conv(nnx.Module):
    """The first layer: a convolution that ignores the level."""

    def __init__(self, inner: int, outer: int, make: Maker):
        self.conv = make.conv(inner, outer)

    def __call__(self, x: Map, level: Level) -> Float[Array, "B h w D"]:
        del level
        return self.conv(x)


def run(layers: nnx.List, x: Map, level: Level, remat: bool) -> Float[Array, "B _ _ D"]:
    """The layers of one block in turn; remat recomputes them in the backward pass."""

    def through(layers: nnx.List, x: Map, level: Level) -> Float[Array, "B _ _ D"]:
        return split_rows(functools.reduce(lambda x, layer: layer(x, level), layers, split_rows(x)))

    if not remat:
        return through(layers, x, level)
    graph, state = nnx.split(layers)
    recomputed = jax.checkpoint(lambda state, x, level: through(nnx.merge(graph, state), x, level))
    return recomputed(state, x, level)


class Encoder(nnx.Module):
    """(condition, noisy image, level) -> feature maps of all input blocks and the middle block."""

    def __init__(self, size: Size, dtype: Dtype, remat: bool, rngs: nnx.Rngs):
        make, self.remat = Maker(size, dtype, rngs), remat
        self.embed = Embedding(make)
        widths = [size.width * m for m in size.multipliers]
        blocks: list[list[nnx.Module]] = [[Conv(6, widths[0], make)]]
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

    def __call__(self, condition: Images, noisy: Images, gamma: PerImage) -> Maps:
        level, x = self.embed(gamma), jnp.concatenate([condition, noisy], axis=-1)
        maps = []
        for block in (*self.blocks, self.middle):
            x = run(block, x, level, self.remat)
            maps.append(x)
        return tuple(maps)


class Decoder(nnx.Module):
    """Feature maps of the encoder and the embedded level -> [B, H, W, 3] float32."""

    def __init__(self, size: Size, owns_embedding: bool, dtype: Dtype, remat: bool, rngs: nnx.Rngs):
        make, self.remat = Maker(size, dtype, rngs), remat
        self.embed = nnx.data(Embedding(make) if owns_embedding else None)
        skips, x, blocks = _skips(size), size.width * size.multipliers[-1], []
        for at, multiplier in reversed(list(enumerate(size.multipliers))):
            outer = size.width * multiplier
            for i in range(size.blocks + 1):
                block: list[nnx.Module] = [ResBlock(x + skips.pop(), outer, make)]
                if 1 << at in size.attention:
                    block.append(Attention(outer, make))
                if at and i == size.blocks:
                    block.append(ResBlock(outer, outer, make, "up"))
                blocks.append(nnx.List(block))
                x = outer
        self.blocks = nnx.List(blocks)
        self.norm_out = make.norm(x)
        self.conv_out = make.conv(x, 3, scale=0.1)

    def __call__(self, maps: Maps, level: Level) -> Images:
        x = self.maps(maps, level)[-1]
        return self.conv_out(jax.nn.silu(self.norm_out(x))).astype(jnp.float32)

    def maps(self, maps: Maps, level: Level) -> Maps:
        """What every output block returns."""
        outputs, (*skips, x) = [], maps
        for block in self.blocks:
            x = run(block, jnp.concatenate([x, skips.pop()], axis=-1), level, self.remat)
            outputs.append(x)
        return tuple(outputs)


def _skips(size: Size) -> list[int]:
    """Channels of the feature map of every input block, in order."""
    widths = [size.width * m for m in size.multipliers]
    channels = [widths[0]]
    for at, width in enumerate(widths):
        channels += [width] * size.blocks + ([width] if at + 1 < len(widths) else [])
    return channels
