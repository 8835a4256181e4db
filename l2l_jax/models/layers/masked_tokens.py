"""The two transformers of a masked-token model: over the tokens that are left, and over all.

The network of MAGE (Li et al., CVPR 2023), which keeps masked tokens in the encoder's sight and
drops some of them, as a masked autoencoder does.
"""

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from l2l_jax.models.layers import vit
from l2l_jax.types import Array

LOGITS_EPSILON = 1e-5  # of the LayerNorm before the logits; 1e-6 everywhere else


@flax.struct.dataclass
class Inputs:
    """What T makes. K places are given to the encoder, L tokens exist."""

    tokens: Array  # [B, K] int32 ids, the mask token where hidden
    places: Array  # [B, K] int32, where they come from
    restore: Array  # [B, L] int32, rank of every place: kept ones first, then dropped
    attend: Array | None  # [B, K] bool, None if none of the K is dropped
    hidden: Array  # [B, L] bool, masked ones and dropped ones
    target: Array  # [B, L] int32, codes to be predicted


def arrange(
    masked: Array, hidden: Array, dropped: Array, keep: int, same: bool, target: Array
) -> Inputs:
    """Inputs from ids with the mask token in place, and masks of tokens, all [B, L].

    At least L - keep tokens of every image are dropped; `same`: exactly so many.
    """
    order = jnp.argsort(dropped, axis=1, stable=True)  # kept tokens first, in raster order
    places = order[:, :keep]
    return Inputs(
        tokens=jnp.take_along_axis(masked, places, axis=1),
        places=places,
        restore=jnp.argsort(order, axis=1),
        attend=None if same else ~jnp.take_along_axis(dropped, places, axis=1),
        hidden=hidden,
        target=target,
    )


class Encoder(nnx.Module):
    """Token ids -> latents, class token first. `shape` makes the blocks (see vit.Stack)."""

    def __init__(
        self, vocabulary: int, length: int, class_id: int, shape: vit.Stack, rngs: nnx.Rngs
    ):
        normal = nnx.initializers.normal(0.02)
        self.class_id, self.remat = class_id, shape.remat
        self.words = nnx.Param(normal(rngs.params(), (vocabulary, shape.width)))
        self.positions = nnx.Param(normal(rngs.params(), (1 + length, shape.width)))
        self.norm_in = shape.norm(rngs)
        self.blocks = shape.blocks(rngs)
        self.norm = shape.norm(rngs)

    def embed(self, tokens: Array, places: Array) -> Array:
        """[B, 1 + K, D]."""
        words, table = self.words[...], self.positions[...]
        first = words[self.class_id] + table[0]
        first = jnp.broadcast_to(first, (tokens.shape[0], 1, words.shape[1]))
        return self.norm_in(jnp.concatenate([first, words[tokens] + table[1:][places]], axis=1))

    def __call__(self, inputs: Inputs) -> Array:
        attend = inputs.attend
        if attend is not None:  # the class token is always looked at
            attend = jnp.pad(attend, ((0, 0), (1, 0)), constant_values=True)
        x = self.embed(inputs.tokens, inputs.places)
        x = self.norm(vit.apply_blocks(self.blocks, x, attend, self.remat))
        return x if attend is None else jnp.where(attend[..., None], x, 0)


class Decoder(nnx.Module):
    """Latents -> logits. It may own the words that the logits are taken against."""

    def __init__(
        self,
        vocabulary: int,
        length: int,
        latent: int,
        owns: bool,
        shape: vit.Stack,
        rngs: nnx.Rngs,
    ):
        normal = nnx.initializers.normal(0.02)
        self.remat = shape.remat
        self.embed = vit.linear(latent, shape.width, shape.dtype, rngs)
        self.positions = nnx.Param(normal(rngs.params(), (1 + length, shape.width)))
        self.blocks = shape.blocks(rngs)
        self.norm = shape.norm(rngs)
        self.fc = vit.linear(shape.width, latent, shape.dtype, rngs)
        self.ln = nnx.LayerNorm(latent, epsilon=LOGITS_EPSILON, dtype=shape.dtype, rngs=rngs)
        if owns:
            self.words = nnx.Param(normal(rngs.params(), (vocabulary, latent)))
        self.bias = nnx.Param(jnp.zeros(vocabulary))

    def fill(self, latents: Array, inputs: Inputs) -> Array:
        """[B, 1 + L, D']: every token in its place, the class token's output where it is hidden."""
        x = self.embed(latents)
        b, _, d = x.shape
        missing = inputs.restore.shape[1] - inputs.places.shape[1]
        tokens = jnp.concatenate([x[:, 1:], jnp.zeros((b, missing, d), x.dtype)], axis=1)
        placed = jnp.take_along_axis(tokens, inputs.restore[..., None], axis=1)
        placed = jnp.where(inputs.hidden[..., None], x[:, :1], placed)
        return jnp.concatenate([x[:, :1], placed], axis=1) + self.positions[...].astype(x.dtype)

    def predict(self, x: Array) -> Array:
        """[..., D'] -> [..., D], what is compared with the words."""
        return self.ln(jax.nn.gelu(self.fc(self.norm(x)), approximate=False))

    def __call__(self, latents: Array, inputs: Inputs, words: Array) -> Array:
        """[B, 1 + L, V] float32 logits of the first V ids; words: [V, D]."""
        x = vit.apply_blocks(self.blocks, self.fill(latents, inputs), remat=self.remat)
        logits = jnp.matmul(
            self.predict(x), words.T.astype(x.dtype), preferred_element_type=jnp.float32
        )
        return logits + self.bias[...][: words.shape[0]]
