"""Hide a random number of random cells, as MAGE is trained.

The fraction of hidden cells is drawn once for the whole batch, from a truncated normal distribution
(Li et al., CVPR 2023: mean 0.55, standard deviation 0.25, from 0.5 to 1). The cells differ from
image to image. Each side of an unlearning batch is a batch of its own here and has its own
fraction; in the released code retain and forget images are mixed in one batch and share one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.masks import leaves_some
from l2l_jax.types import Bounds, Mask, Rng, Scalar, Visible

BOUNDS = {
    "mean": Bounds(0, 1),
    "std": Bounds(0, 10, open_low=True),
    "least": Bounds(0, 1, open_low=True),
    "most": Bounds(0, 1, open_low=True),
}


def visible(
    grid: tuple[int, int],
    *,
    mean: int | float = 0.55,
    std: int | float = 0.25,
    least: int | float = 0.5,
    most: int | float = 1.0,
) -> Visible:
    """(fewest, most) visible cells of any draw."""
    if not 0 < least < most <= 1 or std <= 0:
        raise ConfigError(
            f"The random_ratio task needs 0 < least < most <= 1 and std > 0, not least={least}, "
            f"most={most}, std={std}."
        )
    del mean
    cells = grid[0] * grid[1]
    bounds = cells - int(np.ceil(cells * most)), cells - int(np.ceil(cells * least))
    return leaves_some(bounds, grid)


def mask(
    rng: Rng,
    batch: int,
    grid: tuple[int, int],
    *,
    mean: int | float = 0.55,
    std: int | float = 0.25,
    least: int | float = 0.5,
    most: int | float = 1.0,
) -> Mask:
    """[batch, h, w]: the fraction of hidden cells is drawn once, the cells for each example.

    mean, std: of the normal distribution of the fraction. least, most: its limits.
    """
    visible(grid, mean=mean, std=std, least=least, most=most)
    fraction_key, cells_key = jax.random.split(rng)
    low, high = (least - mean) / std, (most - mean) / std
    fraction = mean + std * jax.random.truncated_normal(fraction_key, low, high)
    noise = jax.random.uniform(cells_key, (batch, grid[0] * grid[1]))
    return hide(noise, jnp.clip(fraction, least, most)).reshape(batch, *grid)


def hide(noise: Float[Array, "B L"], fraction: Scalar | float) -> Bool[Array, "B L"]:
    """True for the ceil(L * fraction) cells of each row with the smallest noise."""
    rank = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
    return rank < jnp.ceil(noise.shape[1] * fraction)
