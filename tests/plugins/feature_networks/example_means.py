"""Example feature network: the mean colour of each quarter of an image; no weights."""

import jax.numpy as jnp

from l2l_jax.types import Array, FeatureNetwork, NetworkContext, Params


def build(context: NetworkContext, *, gain: float = 1.0) -> FeatureNetwork:
    """Features [B, 12]: means of the four quarters, times gain; logits [B, 12], the same values."""
    del context  # no data and no file are needed

    def apply(params: Params, images: Array) -> tuple[Array, Array]:
        b, h, w, _ = images.shape
        quarters = images[:, : h // 2 * 2, : w // 2 * 2].reshape(b, 2, h // 2, 2, w // 2, 3)
        features = params["gain"] * jnp.mean(quarters, axis=(2, 4)).reshape(b, 12)
        return features, features

    params = {"gain": jnp.float32(gain)}
    return FeatureNetwork("example_means", {"digest": "none", "gain": gain}, params, apply)
