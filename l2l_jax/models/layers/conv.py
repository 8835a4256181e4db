"""The convolutional encoder and decoder of a VQ-GAN, in the layout of MaskGIT and MAGE.

No attention, average pooling on the way down, nearest neighbours and a convolution on the way up,
GroupNorm with epsilon 1e-6. Released quirk kept, since published weights depend on it: where a
residual block changes the number of channels, its 1x1 shortcut is applied to the output of the
block's convolutions instead of its input, so the input is not added at all.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from l2l_jax.lib.sharding import split_rows, whole
from l2l_jax.models.layers import critic
from l2l_jax.models.layers.vit import Dtype
from l2l_jax.types import Array, Images

Maps = Float[Array, "B h w C"]

EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class Size:
    """Channels are width * multiplier, level by level; the side halves between two levels."""

    width: int
    multipliers: tuple[int, ...]
    blocks: int  # residual blocks of a level
    codes: int
    code_width: int
    groups: int = 32  # of every GroupNorm


def _conv(inner: int, outer: int, side: int, bias: bool, dtype: Dtype, rngs: nnx.Rngs) -> nnx.Conv:
    exact = "highest" if dtype == jnp.float32 else None  # TF32 would change tokens
    return nnx.Conv(
        inner, outer, (side, side), use_bias=bias, dtype=dtype, precision=exact, rngs=rngs
    )


class ResBlock(nnx.Module):
    """x + F(x), F = (norm, swish, 3x3 convolution) twice; F + shortcut(F) if channels change."""

    def __init__(self, inner: int, outer: int, groups: int, dtype: Dtype, rngs: nnx.Rngs):
        norm = functools.partial(nnx.GroupNorm, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.norm1 = norm(inner, groups)
        self.conv1 = _conv(inner, outer, 3, False, dtype, rngs)
        self.norm2 = norm(outer, groups)
        self.conv2 = _conv(outer, outer, 3, False, dtype, rngs)
        self.shortcut = nnx.data(
            None if inner == outer else _conv(outer, outer, 1, False, dtype, rngs)
        )

    def __call__(self, x: Maps) -> Float[Array, "B h w D"]:
        h = self.conv1(jax.nn.swish(self.norm1(x)))
        h = self.conv2(jax.nn.swish(self.norm2(h)))
        return split_rows(h + (x if self.shortcut is None else self.shortcut(h)))


class Level(nnx.Module):
    """Residual blocks at one resolution, and a convolution for after upsampling if it `grows`."""

    def __init__(
        self, inner: int, outer: int, size: Size, grows: bool, dtype: Dtype, rngs: nnx.Rngs
    ):
        widths = [inner] + [outer] * size.blocks
        pairs = itertools.pairwise(widths)
        self.block = nnx.List([ResBlock(a, b, size.groups, dtype, rngs) for a, b in pairs])
        self.upsample = nnx.data(_conv(outer, outer, 3, True, dtype, rngs) if grows else None)

    def __call__(self, x: Maps) -> Float[Array, "B h w D"]:
        return functools.reduce(lambda x, block: block(x), self.block, x)


class Encoder(nnx.Module):
    """Images -> latents [B, h, w, C] float32, before quantisation."""

    def __init__(self, size: Size, dtype: Dtype, rngs: nnx.Rngs):
        widths = [size.width, *(size.width * m for m in size.multipliers)]
        deepest, pairs = widths[-1], itertools.pairwise(widths)
        self.conv_in = _conv(3, size.width, 3, False, dtype, rngs)
        self.down = nnx.List([Level(a, b, size, False, dtype, rngs) for a, b in pairs])
        middle = (ResBlock(deepest, deepest, size.groups, dtype, rngs) for _ in range(2))
        self.block_1, self.block_2 = middle
        self.norm_out = nnx.GroupNorm(deepest, size.groups, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.conv_out = _conv(deepest, size.code_width, 1, True, dtype, rngs)

    def __call__(self, images: Images) -> Maps:
        x = self.maps(images)[-1]
        return self.conv_out(jax.nn.swish(self.norm_out(x))).astype(jnp.float32)

    def maps(self, images: Images) -> list[Float[Array, "B _ _ _"]]:
        """What every level returns, and the blocks after them."""
        x, maps = split_rows(self.conv_in(images)), []
        for at, level in enumerate(self.down):
            x = level(x if at == 0 else nnx.avg_pool(x, (2, 2), (2, 2)))
            maps.append(x)
        return [*maps, self.block_2(self.block_1(x))]


class Decoder(nnx.Module):
    """The codebook, the layers from codes to pixels, and the critic if one is trained."""

    def __init__(self, size: Size, adversarial: bool, dtype: Dtype, rngs: nnx.Rngs):
        widths = [*(size.width * m for m in size.multipliers), size.width * size.multipliers[-1]]
        deepest, shallow = widths[-1], widths[0]
        scale = 1.0 / size.codes
        codes = jax.random.uniform(rngs.params(), (size.codes, size.code_width), minval=-1.0)
        self.codebook = nnx.Param(scale * codes)
        self.conv_in = _conv(size.code_width, deepest, 3, True, dtype, rngs)
        middle = (ResBlock(deepest, deepest, size.groups, dtype, rngs) for _ in range(2))
        self.block_1, self.block_2 = middle
        pairs = enumerate(zip(widths[1:], widths[:-1], strict=True))
        self.up = nnx.List([Level(a, b, size, at > 0, dtype, rngs) for at, (a, b) in pairs])
        self.norm_out = nnx.GroupNorm(shallow, size.groups, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.conv_out = _conv(shallow, 3, 3, True, dtype, rngs)
        layers = min(3, len(size.multipliers))
        self.critic = nnx.data(
            critic.Critic(size.width // 2, layers, dtype, rngs) if adversarial else None
        )

    @property
    def table(self) -> Float[Array, "N C"]:
        """The codebook, whole on every device."""
        return whole(self.codebook[...])

    def features(self, codes: Maps) -> Float[Array, "B H W D"]:
        """[B, H, W, width]: all layers except the last convolution."""
        return jax.nn.swish(self.norm_out(self.maps(codes)[-1]))

    def maps(self, codes: Maps) -> list[Float[Array, "B _ _ _"]]:
        """What the first blocks return, and every level after them."""
        x = self.block_2(self.block_1(split_rows(self.conv_in(codes))))
        maps = [x]
        for level in reversed(list(self.up)):
            x = level(x)
            if level.upsample is not None:
                x = level.upsample(x.repeat(2, axis=1).repeat(2, axis=2))
            maps.append(x)
        return maps

    def __call__(self, codes: Maps) -> Images:
        return self.conv_out(self.features(codes)).astype(jnp.float32)
