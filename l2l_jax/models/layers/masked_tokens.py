"""The two transformers of a masked-token model: over the kept tokens, and over all tokens.

The network of MAGE (Li et al., CVPR 2023): the encoder reads masked tokens too, except for those
that are dropped as in a masked autoencoder.
"""

from typing import no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int

from l2l_jax.lib.sharding import whole
from l2l_jax.models.layers import vit
from l2l_jax.models.layers.base import masked_mean
from l2l_jax.models.layers.permute import permuted
from l2l_jax.types import Array, PerImage

SMOOTHING = 0.1  # of the labels
LOGITS_EPSILON = 1e-5  # of the LayerNorm before the logits; 1e-6 everywhere else


@no_type_check  # JAX also builds it from objects that are no arrays
@flax.struct.dataclass
class Inputs:
    """What T returns: K of the L tokens enter the encoder."""

    tokens: Array  # [B, K] int32 ids, the mask token where hidden
    places: Array  # [B, K] int32, their positions in the grid
    restore: Array  # [B, L] int32, rank of every token: kept tokens first, then dropped ones
    attend: Array | None  # [B, K] bool, None if none of the K is dropped
    hidden: Array  # [B, L] bool, masked or dropped
    target: Array  # [B, L] int32, codes to be predicted


Ids = Int[Array, "B L"]
Flags = Bool[Array, "B L"]
Latents = Float[Array, "B M D"]  # M = 1 + K, class token first
Words = Float[Array | np.ndarray, "V D"]


def arrange(
    masked: Ids, hidden: Flags, dropped: Flags, keep: int, same: bool, target: Ids
) -> Inputs:
    """Inputs from ids that are already masked, and from masks of tokens.

    At least L - keep tokens of every image must be dropped, and exactly so many if `same`.
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
    """Token ids -> latents, class token first."""

    def __init__(
        self, vocabulary: int, length: int, class_id: int, stack: vit.Stack, rngs: nnx.Rngs
    ):
        normal = nnx.initializers.normal(0.02)
        self.class_id, self.remat = class_id, stack.remat
        self.words = nnx.Param(normal(rngs.params(), (vocabulary, stack.width)))
        self.positions = nnx.Param(normal(rngs.params(), (1 + length, stack.width)))
        self.norm_in = stack.norm(rngs)
        self.blocks = stack.blocks(rngs)
        self.norm = stack.norm(rngs)

    def embed(self, tokens: Int[Array, "B K"], places: Int[Array, "B K"]) -> Latents:
        """[B, 1 + K, D]: words plus positions, normalised, class token first."""
        words, table = whole(self.words[...]), whole(self.positions[...])
        first = words[self.class_id] + table[0]
        first = jnp.broadcast_to(first, (tokens.shape[0], 1, words.shape[1]))
        return self.norm_in(jnp.concatenate([first, words[tokens] + table[1:][places]], axis=1))

    def __call__(self, inputs: Inputs) -> Latents:
        x, attend = self.embed(inputs.tokens, inputs.places), self.attended(inputs)
        x = self.norm(vit.apply_blocks(self.blocks, x, attend, self.remat))
        return x if attend is None else jnp.where(attend[..., None], x, 0)

    def attended(self, inputs: Inputs) -> vit.Attend | None:
        """[B, 1 + K] bool: the class token, first, always is. None if all tokens are."""
        if inputs.attend is None:
            return None
        return jnp.pad(inputs.attend, ((0, 0), (1, 0)), constant_values=True)

    def activations(self, inputs: Inputs) -> list[Float[Array, "B D"]]:
        """The mean token after each block."""
        x, attend = self.embed(inputs.tokens, inputs.places), self.attended(inputs)
        return [vit.mean_tokens(x, attend) for x in vit.block_outputs(self.blocks, x, attend)]


class Decoder(nnx.Module):
    """Latents -> logits: products with word embeddings, which this module may own."""

    def __init__(
        self,
        vocabulary: int,
        length: int,
        latent: int,
        owns: bool,
        stack: vit.Stack,
        rngs: nnx.Rngs,
    ):
        normal = nnx.initializers.normal(0.02)
        self.remat = stack.remat
        self.embed = vit.linear(latent, stack.width, stack.dtype, rngs)
        self.positions = nnx.Param(normal(rngs.params(), (1 + length, stack.width)))
        self.blocks = stack.blocks(rngs)
        self.norm = stack.norm(rngs)
        self.fc = vit.linear(stack.width, latent, stack.dtype, rngs)
        self.ln = nnx.LayerNorm(latent, epsilon=LOGITS_EPSILON, dtype=stack.dtype, rngs=rngs)
        if owns:
            self.words = nnx.Param(normal(rngs.params(), (vocabulary, latent)))
        self.bias = nnx.Param(jnp.zeros(vocabulary))

    def fill(self, latents: Latents, inputs: Inputs) -> Float[Array, "B N E"]:
        """[B, 1 + L, E]: every token at its position, the class token where it is hidden."""
        x = self.embed(latents)
        b, _, d = x.shape
        missing = inputs.restore.shape[1] - inputs.places.shape[1]
        tokens = jnp.concatenate([x[:, 1:], jnp.zeros((b, missing, d), x.dtype)], axis=1)
        placed = permuted(tokens, inputs.restore)
        placed = jnp.where(inputs.hidden[..., None], x[:, :1], placed)
        return jnp.concatenate([x[:, :1], placed], axis=1) + self.positions[...].astype(x.dtype)

    def activations(self, latents: Latents, inputs: Inputs) -> list[Float[Array, "B E"]]:
        """The mean token after each block."""
        outputs = vit.block_outputs(self.blocks, self.fill(latents, inputs))
        return [vit.mean_tokens(x) for x in outputs]

    def predict(self, x: Float[Array, "*dims E"]) -> Float[Array, "*dims D"]:
        """[..., D]: what is multiplied with the word embeddings."""
        return self.ln(jax.nn.gelu(self.fc(self.norm(x)), approximate=False))

    def __call__(self, latents: Latents, inputs: Inputs, words: Words) -> Float[Array, "B N V"]:
        """[B, 1 + L, V] float32 logits of the first V ids."""
        x = vit.apply_blocks(self.blocks, self.fill(latents, inputs), remat=self.remat)
        logits = jnp.matmul(
            self.predict(x), words.T.astype(x.dtype), preferred_element_type=jnp.float32
        )
        return logits + self.bias[...][: words.shape[0]]


def cross_entropy(logits: Float[Array, "B L V"], inputs: Inputs) -> PerImage:
    """[B] label-smoothed cross-entropy, mean over the masked tokens of each image."""
    logp = jax.nn.log_softmax(logits)
    of_target = jnp.take_along_axis(logp, inputs.target[..., None], axis=-1)[..., 0]
    values = -(1 - SMOOTHING) * of_target - SMOOTHING * jnp.mean(logp, axis=-1)
    return masked_mean(values, inputs.hidden)
