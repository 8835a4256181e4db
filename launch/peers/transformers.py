"""MAE, MAGE and CLIP's image encoder in PyTorch, written from the papers' description.

The names of their arrays are those of the published files, so that weights/formats/ translates
them. Images are [B, 3, H, W].
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from l2l_jax.feature_networks import clip
from l2l_jax.models import mae, mage

EPSILON = 1e-6  # of LayerNorm
SMOOTHING = 0.1  # of MAGE's labels
Cut = tuple[Tensor, Tensor]  # (places [B, K] of the kept tokens, restore [B, L])


class Attention(nn.Module):
    """Multi-head self-attention by PyTorch's fused kernel."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x))."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=EPSILON) for _ in range(2))
        self.attn, self.mlp = Attention(width, heads), Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def stack(depth: int, width: int, heads: int) -> nn.Sequential:
    """`depth` blocks."""
    return nn.Sequential(*(Block(width, heads) for _ in range(depth)))


def gather(x: Tensor, places: Tensor) -> Tensor:
    """[B, K, D]: the tokens of x [B, L, D] at places [B, K]."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[2]))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the images of the mean of `values` [B, L] where the mask is True."""
    return ((values * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


class MAE(nn.Module):
    """The masked autoencoder (He et al., CVPR 2022). Its positions are not trained."""

    def __init__(self, size: mae.Size, image_size: int):
        super().__init__()
        self.patch, inner, outer = size.patch, size.width, size.decoder_width
        length = (image_size // size.patch) ** 2
        self.patch_embed: Any = nn.ModuleDict({"proj": nn.Conv2d(3, inner, size.patch, size.patch)})
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, inner))
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, outer))
        tables = (torch.randn(1, 1 + length, width) for width in (inner, outer))
        fixed = (nn.Parameter(table, requires_grad=False) for table in tables)
        self.pos_embed, self.decoder_pos_embed = fixed
        self.blocks = stack(size.depth, inner, size.heads)
        self.norm = nn.LayerNorm(inner, eps=EPSILON)
        self.decoder_embed = nn.Linear(inner, outer)
        self.decoder_blocks = stack(size.decoder_depth, outer, size.decoder_heads)
        self.decoder_norm = nn.LayerNorm(outer, eps=EPSILON)
        self.decoder_pred = nn.Linear(outer, size.patch**2 * 3)

    def forward(self, images: Tensor, places: Tensor, restore: Tensor) -> Tensor:
        """[B, L, p * p * 3] the predicted patches of images that are normalised."""
        x = self.patch_embed["proj"](images).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = self.norm(self.blocks(torch.cat([first.to(x.dtype), gather(x, places)], 1)))
        x = self.decoder_embed(x)
        missing = restore.shape[1] + 1 - x.shape[1]
        hidden = self.mask_token.to(x.dtype).expand(len(x), missing, -1)
        patches = gather(torch.cat([x[:, 1:], hidden], 1), restore)
        x = torch.cat([x[:, :1], patches], 1) + self.decoder_pos_embed.to(x.dtype)
        return self.decoder_pred(self.decoder_norm(self.decoder_blocks(x)))[:, 1:]

    def patchify(self, images: Tensor) -> Tensor:
        """[B, L, p * p * 3]: (row, column, channel) inside a patch."""
        b, c, height, width = images.shape
        p = self.patch
        x = images.view(b, c, height // p, p, width // p, p).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(b, -1, p * p * c)

    def unpatchify(self, patches: Tensor, side: int) -> Tensor:
        """The inverse of patchify; side: of the image, in pixels."""
        b, p, cells = len(patches), self.patch, side // self.patch
        x = patches.view(b, cells, cells, p, p, 3).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(b, 3, side, side)

    def loss(self, images: Tensor, places: Tensor, restore: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error over the hidden patches [B, L]."""
        predicted = self(images, places, restore).float()
        return masked_mean(((predicted - self.patchify(images)) ** 2).mean(-1), hidden)


class MAGE(nn.Module):
    """The masked-token model (Li et al., CVPR 2023), with one table of words for both ends."""

    def __init__(self, size: mage.Size, codes: int, length: int):
        super().__init__()
        inner, outer, words = size.width, size.decoder_width, codes + mage.SPARE
        self.codes = codes
        self.token_emb: Any = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(words, inner),
                "position_embeddings": nn.Embedding(1 + length, inner),
                "LayerNorm": nn.LayerNorm(inner, eps=EPSILON),
            }
        )
        self.blocks = stack(size.depth, inner, size.heads)
        self.norm = nn.LayerNorm(inner, eps=EPSILON)
        self.decoder_embed = nn.Linear(inner, outer)
        self.decoder_pos_embed_learned = nn.Parameter(0.02 * torch.randn(1, 1 + length, outer))
        self.decoder_blocks = stack(size.decoder_depth, outer, size.decoder_heads)
        self.decoder_norm = nn.LayerNorm(outer, eps=EPSILON)
        self.mlm_layer: Any = nn.ModuleDict(
            {"fc": nn.Linear(outer, inner), "ln": nn.LayerNorm(inner, eps=1e-5)}
        )
        self.mlm_layer.register_parameter("bias", nn.Parameter(torch.zeros(1, 1, words)))

    def forward(self, tokens: Tensor, places: Tensor, restore: Tensor, hidden: Tensor) -> Tensor:
        """[B, L, codes] float32 logits. tokens: ids of the kept tokens [B, K]."""
        words, table = (self.token_emb[f"{x}_embeddings"].weight for x in ("word", "position"))
        first = (words[self.codes + mage.CLASS] + table[0]).expand(len(tokens), 1, -1)
        x = torch.cat([first, words[tokens] + table[1:][places]], 1)
        x = self.norm(self.blocks(self.token_emb["LayerNorm"](x)))
        x = self.decoder_embed(x)
        dropped = x.new_zeros(len(x), restore.shape[1] + 1 - x.shape[1], x.shape[2])
        placed = gather(torch.cat([x[:, 1:], dropped], 1), restore)
        placed = torch.where(hidden[..., None], x[:, :1], placed)
        x = torch.cat([x[:, :1], placed], 1) + self.decoder_pos_embed_learned.to(x.dtype)
        x = self.decoder_norm(self.decoder_blocks(x))
        x = self.mlm_layer["ln"](F.gelu(self.mlm_layer["fc"](x)))[:, 1:]
        used = words.detach()[: self.codes]
        return F.linear(x, used.to(x.dtype)).float() + self.mlm_layer.bias[..., : self.codes]

    def loss(
        self, tokens: Tensor, places: Tensor, restore: Tensor, hidden: Tensor, target: Tensor
    ) -> Tensor:
        """Label-smoothed cross-entropy over the hidden tokens."""
        logits = self(tokens, places, restore, hidden).transpose(1, 2)
        values = F.cross_entropy(logits, target, reduction="none", label_smoothing=SMOOTHING)
        return masked_mean(values, hidden)


class ClipBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, size: clip.Size):
        super().__init__()
        width, heads = size.width, size.width // size.head
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        normal = self.ln_1(x)
        x = x + self.attn(normal, normal, normal, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Visual(nn.Module):
    """The image encoder of CLIP (Radford et al. 2021): standardised images -> [B, embedding]."""

    def __init__(self, size: clip.Size):
        super().__init__()
        cells = (size.image // size.patch) ** 2
        self.conv1 = nn.Conv2d(3, size.width, size.patch, size.patch, bias=False)
        self.class_embedding = nn.Parameter(0.02 * torch.randn(size.width))
        self.positional_embedding = nn.Parameter(0.02 * torch.randn(cells + 1, size.width))
        self.ln_pre, self.ln_post = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        blocks = nn.Sequential(*(ClipBlock(size) for _ in range(size.depth)))
        self.transformer: Any = nn.ModuleDict({"resblocks": blocks})
        self.proj = nn.Parameter(0.02 * torch.randn(size.width, size.embedding))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([first, x], 1) + self.positional_embedding.to(x.dtype)
        x = self.transformer["resblocks"](self.ln_pre(x))
        return self.ln_post(x[:, 0]).float() @ self.proj
