"""Hide a random share of the cells, the share itself drawn at random, as MAGE is trained.

One share for the whole batch, from a normal distribution cut off at both ends (Li et al., CVPR
2023: mean 0.55, deviation 0.25, from 0.5 to 1); the cells differ from image to image.
"""

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Array


def visible(
    grid: tuple[int, int],
    *,
    mean: float = 0.55,
    std: float = 0.25,
    least: float = 0.5,
    most: float = 1.0,
) -> tuple[int, int]:
    """(fewest, most) visible cells that a draw can leave."""
    if not 0 < least < most <= 1 or std <= 0:
        raise ConfigError(
            f"The share task needs 0 < least < most <= 1 and std > 0, not least={least}, "
            f"most={most}, std={std}."
        )
    del mean
    cells = grid[0] * grid[1]
    return cells - int(np.ceil(cells * most)), cells - int(np.ceil(cells * least))


def mask(
    rng: Array,
    batch: int,
    grid: tuple[int, int],
    *,
    mean: float = 0.55,
    std: float = 0.25,
    least: float = 0.5,
    most: float = 1.0,
) -> Array:
    """[batch, h, w] bool, True = hidden."""
    visible(grid, mean=mean, std=std, least=least, most=most)
    first, second = jax.random.split(rng)
    low, high = (least - mean) / std, (most - mean) / std
    share = mean + std * jax.random.truncated_normal(first, low, high)
    noise = jax.random.uniform(second, (batch, grid[0] * grid[1]))
    return hide(noise, jnp.clip(share, least, most)).reshape(batch, *grid)


def hide(noise: Array, share: Array | float) -> Array:
    """[B, L] -> [B, L] bool: the ceil(L * share) cells with the least noise."""
    rank = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
    return rank < jnp.ceil(noise.shape[1] * share)
