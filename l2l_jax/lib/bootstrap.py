"""95 % intervals of figures: how far a figure may be from its mean over other sets of such images.

`mean` and `resampled` draw N of the N images with repetition, again and again, and look how far the
figure moves (Efron, Tibshirani 1993). Repeated images shift some figures as a whole: the FID of a
resample is larger. So the deviations are those from the mean of all resamples, and the interval is
the basic one:

    [value - q(97.5 %), value - q(2.5 %)]     q: quantiles of (resample - mean of the resamples)

It is an interval for the mean figure of sets of N images, so that it can be compared with other
figures of N images only. `influenced` takes from each image the derivative of the figure with
respect to its weight, where a resample would take long; `left_out` leaves out a part of the images,
where repeated images would distort the figure. Everything is drawn with a seed.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from l2l_jax.types import Estimate

SHARE = 0.95  # of the sets whose figure lies inside
RESAMPLES = 1000
BLOCKS = 20  # of images that are left out in turn
Rows = Int[np.ndarray, " M"]


def mean(values: Float[np.ndarray, " N"], seed: int) -> Estimate:
    """The mean over images, with its interval."""
    values = np.asarray(values)

    def mean_of(rows: Rows) -> float:
        return float(np.mean(values[rows]))

    return resampled(float(np.mean(values)), mean_of, len(values), seed)


def resampled(
    value: float,
    figure_of: Callable[[Rows], float],
    images: int,
    seed: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """The figure with its interval. figure_of(row numbers, some repeated) is that of a resample."""
    rng = np.random.default_rng(seed)
    again = np.array([figure_of(rng.integers(0, images, images)) for _ in range(resamples)])
    low, high = np.quantile(again - again.mean(), ((1 - SHARE) / 2, (1 + SHARE) / 2))
    return value, (float(value - high), float(value - low))


def influenced(value: float, influences: Float[np.ndarray, " N"]) -> Estimate:
    """The figure with its interval; influences: N times the derivative by each image's weight."""
    count = len(influences)
    error = float(np.std(influences, ddof=1)) / np.sqrt(count)
    return value, _symmetric(value, error, count - 1)


def left_out(value: float, figure_of: Callable[[Rows], float], images: int, seed: int) -> Estimate:
    """The figure with its interval: the jackknife over blocks of images, drawn with the seed.

    figure_of(row numbers) is the figure of most of the images, none of them twice.
    """
    count = min(BLOCKS, images)
    blocks = np.array_split(np.random.default_rng(seed).permutation(images), count)
    everything = np.arange(images)
    again = np.array([figure_of(np.setdiff1d(everything, block)) for block in blocks])
    error = np.sqrt((count - 1) * np.mean((again - again.mean()) ** 2))
    return value, _symmetric(value, float(error), count - 1)


def _symmetric(value: float, error: float, freedom: int) -> tuple[float, float]:
    """The interval of a standard error with so many degrees of freedom."""
    width = float(stdtrit(freedom, (1 + SHARE) / 2)) * error
    return float(value - width), float(value + width)
