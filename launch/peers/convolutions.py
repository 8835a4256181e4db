"""Palette's U-Net, the VQ-GAN of MAGE and Inception-v3 in PyTorch, written from the papers.

The names of their arrays are those of the published files. Images are [B, 3, H, W].
"""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from l2l_jax.feature_networks import inception
from l2l_jax.models import vqgan
from l2l_jax.models.layers import unet


def _conv(inner: int, outer: int, side: int = 3, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, side, padding=side // 2, bias=bias)


class LevelBlock(nn.Module):
    """A residual block of the U-Net, scaled and shifted by the level, and resampled."""

    def __init__(self, inner: int, outer: int, size: unet.Size, resample: str = ""):
        super().__init__()
        self.resample, act = resample, nn.SiLU()
        norms = [nn.GroupNorm(size.groups, n, eps=unet.EPSILON) for n in (inner, outer)]
        self.in_layers = nn.Sequential(norms[0], act, _conv(inner, outer))
        self.emb_layers = nn.Sequential(act, nn.Linear(4 * size.width, 2 * outer))
        self.out_layers = nn.Sequential(norms[1], act, nn.Identity(), _conv(outer, outer))
        self.skip_connection = nn.Identity() if inner == outer else _conv(inner, outer, 1)

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2) if self.resample else x

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        norm, act, conv = self.in_layers
        h = conv(self._resampled(act(norm(x))))
        scale, shift = self.emb_layers(level)[:, :, None, None].chunk(2, 1)
        norm, *rest = self.out_layers
        h = norm(h) * (1 + scale) + shift
        for layer in rest:
            h = layer(h)
        return h + self.skip_connection(self._resampled(x))


class MapAttention(nn.Module):
    """x + self-attention over all positions."""

    def __init__(self, width: int, size: unet.Size):
        super().__init__()
        self.heads = width // size.head
        self.norm = nn.GroupNorm(size.groups, width, eps=unet.EPSILON)
        self.qkv, self.proj_out = nn.Conv1d(width, 3 * width, 1), nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        del level
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x).flatten(2)).view(b, self.heads, 3, c // self.heads, h * w)
        q, k, v = qkv.permute(2, 0, 1, 4, 3)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(b, c, h * w)
        return x + self.proj_out(mixed).view(b, c, h, w)


class Chain(nn.Sequential):
    """Layers in turn; those that take the level get it."""

    def forward(self, x: Tensor, level: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, level)
        return x


class UNet(nn.Module):
    """The U-Net of Palette (Saharia et al., SIGGRAPH 2022), with one embedding of the level."""

    def __init__(self, size: unet.Size):
        super().__init__()
        wide, self.width = 4 * size.width, size.width
        act = nn.SiLU()
        self.cond_embed = nn.Sequential(nn.Linear(size.width, wide), act, nn.Linear(wide, wide))
        widths = [size.width * m for m in size.multipliers]
        blocks, channels = [Chain(_conv(6, widths[0]))], [widths[0]]
        for at, (inner, outer) in enumerate(itertools.pairwise([widths[0], *widths])):
            attends = 1 << at in size.attention
            for width in [inner] + [outer] * (size.blocks - 1):
                more = [MapAttention(outer, size)] if attends else []
                blocks.append(Chain(LevelBlock(width, outer, size), *more))
                channels.append(outer)
            if at + 1 < len(widths):
                blocks.append(Chain(LevelBlock(outer, outer, size, "down")))
                channels.append(outer)
        self.input_blocks, x = nn.ModuleList(blocks), widths[-1]
        ends = (LevelBlock(x, x, size) for _ in range(2))
        self.middle_block = Chain(next(ends), MapAttention(x, size), next(ends))
        blocks = []
        for at, outer in reversed(list(enumerate(widths))):
            for i in range(size.blocks + 1):
                layers: list[nn.Module] = [LevelBlock(x + channels.pop(), outer, size)]
                if 1 << at in size.attention:
                    layers.append(MapAttention(outer, size))
                if at and i == size.blocks:
                    layers.append(LevelBlock(outer, outer, size, "up"))
                blocks.append(Chain(*layers))
                x = outer
        self.output_blocks = nn.ModuleList(blocks)
        norm = nn.GroupNorm(size.groups, x, eps=unet.EPSILON)
        self.out = nn.Sequential(norm, act, _conv(x, 3))

    def forward(self, condition: Tensor, noisy: Tensor, gamma: Tensor) -> Tensor:
        """[B, 3, H, W] float32, the noise. gamma: [B]."""
        half = self.width // 2
        steps = torch.arange(half, dtype=torch.float32, device=gamma.device)
        angles = gamma.float()[:, None] * torch.exp(-math.log(10_000.0) * steps / half)
        level = self.cond_embed(torch.cat([angles.cos(), angles.sin()], -1))
        x, maps = torch.cat([condition, noisy], 1), []
        for block in self.input_blocks:
            x = block(x, level)
            maps.append(x)
        x = self.middle_block(x, level)
        for block in self.output_blocks:
            x = block(torch.cat([x, maps.pop()], 1), level)
        return self.out(x).float()


class CodeBlock(nn.Module):
    """x + F(x); F + shortcut(F) where the number of channels changes, as released."""

    def __init__(self, inner: int, outer: int, groups: int):
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(groups, n, eps=1e-6) for n in (inner, outer))
        self.conv1, self.conv2 = (_conv(n, outer, bias=False) for n in (inner, outer))
        if inner != outer:
            self.nin_shortcut = _conv(outer, outer, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(h) if hasattr(self, "nin_shortcut") else x)


class Half(nn.Module):
    """The encoder (grows=False) or the decoder of the VQ-GAN."""

    def __init__(self, size: vqgan.Size, grows: bool):
        super().__init__()
        widths = [size.width * m for m in size.multipliers]
        outer = [*widths, widths[-1]][1:] if grows else [size.width, *widths[:-1]]
        ends = (3, widths[-1]) if grows else (size.width, size.code_width)
        levels = []
        for at, (first, width) in enumerate(zip(outer, widths, strict=True)):
            pairs = itertools.pairwise([first] + [width] * size.blocks)
            level = nn.ModuleDict()
            level["block"] = nn.Sequential(*(CodeBlock(a, b, size.groups) for a, b in pairs))
            if grows and at:
                level["upsample"] = nn.ModuleDict({"conv": _conv(width, width)})
            levels.append(level)
        self.grows: bool = grows
        self.levels: Any = nn.ModuleList(levels)
        self.add_module("up" if grows else "down", self.levels)
        mid = {f"block_{i}": CodeBlock(widths[-1], widths[-1], size.groups) for i in (1, 2)}
        self.mid: Any = nn.ModuleDict(mid)
        shallow = widths[0] if grows else widths[-1]
        self.norm_out = nn.GroupNorm(size.groups, shallow, eps=1e-6)
        self.conv_in = _conv(size.code_width if grows else 3, ends[1] if grows else ends[0],
                             bias=grows)  # fmt: skip
        self.conv_out = _conv(shallow, ends[0] if grows else ends[1], 3 if grows else 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        if self.grows:
            x = self.mid["block_2"](self.mid["block_1"](x))
            for level in reversed(self.levels):
                x = level["block"](x)
                if "upsample" in level:
                    x = level["upsample"]["conv"](F.interpolate(x, scale_factor=2))
        else:
            for at, level in enumerate(self.levels):
                x = level["block"](F.avg_pool2d(x, 2) if at else x)
            x = self.mid["block_2"](self.mid["block_1"](x))
        return self.conv_out(F.silu(self.norm_out(x))).float()


class VQGAN(nn.Module):
    """The tokenizer of MaskGIT and MAGE."""

    def __init__(self, size: vqgan.Size):
        super().__init__()
        self.encoder, self.decoder = Half(size, False), Half(size, True)
        codebook = nn.Embedding(size.codes, size.code_width)
        self.quantize: Any = nn.ModuleDict({"embedding": codebook})

    def forward(self, images: Tensor) -> Tensor:
        """[B, h, w] the nearest codes of images in [0, 1]."""
        z, codes = self.encoder(images).permute(0, 2, 3, 1), self.quantize["embedding"].weight
        squares = z.pow(2).sum(-1, keepdim=True) + codes.pow(2).sum(-1)
        return (squares - 2 * z @ codes.T).argmin(-1)

    def detokenize(self, tokens: Tensor) -> Tensor:
        """[B, 3, H, W], not clipped."""
        return self.decoder(self.quantize["embedding"](tokens).permute(0, 3, 1, 2))

    def names(self) -> dict[str, Tensor]:
        """The state dict without the second names of the levels."""
        return {k: x for k, x in self.state_dict().items() if ".levels." not in k}


class Unit(nn.Module):
    """Convolution, batch normalisation with fixed statistics, ReLU."""

    def __init__(self, inner: int, link: inception.Link):
        super().__init__()
        _, outer, kernel, stride, padding = link
        padded = padding == inception.PADDED
        around = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inner, outer, kernel, stride, around, bias=False)
        nn.init.kaiming_normal_(self.conv.weight)
        self.bn = nn.BatchNorm2d(outer, eps=inception.EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Inception-v3 of FID: images in about [-1, 1] -> features [B, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        units, channels = {}, 3
        for link in filter(None, inception.STEM):
            units[link[0]], channels = Unit(channels, link), link[1]
        for block, branches in inception.BLOCKS.items():
            total = 0 if branches[-1][0][0] == "branch_pool" else channels
            for branch in branches:
                inner = channels
                for link in branch:
                    units[f"{block}.{link[0]}"] = Unit(inner, link)
                    forked = link[0].endswith(("a", "b"))
                    total += link[1] if forked else 0
                    inner = inner if forked else link[1]
                total += 0 if branch[-1][0].endswith(("a", "b")) else inner
            channels = total
        self.units = nn.ModuleDict({name.replace(".", "/"): unit for name, unit in units.items()})
        self.fc = nn.Linear(channels, inception.OUTPUTS["fid"])

    def forward(self, x: Tensor) -> Tensor:
        for link in inception.STEM:
            x = F.max_pool2d(x, 3, 2) if link is None else self.units[link[0]](x)
        for block, branches in inception.BLOCKS.items():
            pooled = branches[-1][0][0] == "branch_pool"
            parts = [self._branch(block, branch, x) for branch in branches]
            x = torch.cat([*parts, *([] if pooled else [F.max_pool2d(x, 3, 2)])], 1)
        return x.float().mean((2, 3))

    def _branch(self, block: str, branch: list[inception.Link], x: Tensor) -> Tensor:
        if branch[0][0] == "branch_pool":
            if block == "Mixed_7c":
                x = F.max_pool2d(x, 3, 1, 1)
            else:
                x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        forks = []
        for link in branch:
            y = self.units[f"{block}/{link[0]}"](x)
            if link[0].endswith(("a", "b")):
                forks.append(y)
            else:
                x = y
        return torch.cat(forks, 1) if forks else x

    def names(self) -> dict[str, Tensor]:
        """The state dict under the official names."""
        return {
            name.removeprefix("units.").replace("/", "."): value
            for name, value in self.state_dict().items()
        }
