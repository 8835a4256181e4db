"""What noise on parameters guarantees: epsilon and delta of clipped noisy descent.

Two runs of the same noisy descent that start at most `start` apart are mu-GDP apart (Dong, Roth, Su
2022: as hard to tell apart as N(0, 1) from N(mu, 1)). For T steps

    theta <- theta - rate (clip(g(theta)) + decay (theta - c)) + N(0, sigma^2 I)

with |clip(g)| <= clip and q = 1 - rate decay, shifted interpolation (Bok, Su, Altschuler, ICML
2024, arXiv 2403.00278) gives

    mu = (start q^T + 2 rate clip sum_t q^(T-1-t)) / (sigma sqrt(sum_t q^(2(T-1-t))))

whatever the loss is: neither convex nor smooth. Starts inside a ball of radius C0 are 2 C0 apart at
most. The other bound here is that of Koloskova et al. (ICML 2025, arXiv 2506.06985, their theorem
on gradient clipping, without decay):

    sigma^2 = 9 log(1 / delta) (C0 + rate clip T)^2 / (epsilon^2 T)

mu-GDP is (epsilon, delta(epsilon)) for every epsilon, with

    delta(epsilon) = Phi(-epsilon / mu + mu / 2) - e^epsilon Phi(-epsilon / mu - mu / 2)

All numbers are float64.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import beta

LARGEST = 1e8  # of mu and epsilon that are searched


def gdp(
    *, start: float, steps: int, rate: float, clip: float, sigma: float, decay: float = 0.0
) -> float:
    """mu of noisy descent; inf without noise."""
    if sigma == 0:
        return math.inf
    powers = (1 - rate * decay) ** np.arange(steps, dtype=np.float64)
    moved = start * (1 - rate * decay) ** steps + 2 * rate * clip * powers.sum()
    return float(moved / (sigma * math.sqrt(np.sum(powers**2))))


def delta_of(mu: float, epsilon: float) -> float:
    """The smallest delta for which mu-GDP is (epsilon, delta)."""
    if mu == 0:
        return 0.0
    if math.isinf(mu):
        return 1.0
    first = log_ndtr(-epsilon / mu + mu / 2)
    second = epsilon + log_ndtr(-epsilon / mu - mu / 2)
    return float(max(math.exp(first) - math.exp(min(second, first)), 0.0))


def epsilon_of(mu: float, delta: float) -> float:
    """The smallest epsilon for which mu-GDP is (epsilon, delta); inf if none up to LARGEST is."""
    return _crossing(lambda epsilon: delta_of(mu, epsilon) - delta)


def mu_of(epsilon: float, delta: float) -> float:
    """The largest mu for which mu-GDP is (epsilon, delta)."""
    return _crossing(lambda mu: delta - delta_of(mu, epsilon))


def sigma_for(
    epsilon: float,
    delta: float,
    *,
    start: float,
    steps: int,
    rate: float,
    clip: float,
    decay: float = 0.0,
) -> float:
    """The smallest noise with which noisy descent is (epsilon, delta)."""
    of_one = gdp(start=start, steps=steps, rate=rate, clip=clip, sigma=1.0, decay=decay)
    return of_one / mu_of(epsilon, delta)


def theorem_sigma(
    epsilon: float, delta: float, *, radius: float, steps: int, rate: float, clip: float
) -> float:
    """The noise of the theorem of Koloskova et al. for a ball of this radius, without decay."""
    moved = radius + rate * clip * steps
    return 3 * math.sqrt(math.log(1 / delta) / steps) * moved / epsilon


def theorem_epsilon(
    sigma: float, delta: float, *, radius: float, steps: int, rate: float, clip: float
) -> float:
    """The epsilon that the theorem of Koloskova et al. states for this noise; inf without noise."""
    one = theorem_sigma(1.0, delta, radius=radius, steps=steps, rate=rate, clip=clip)
    return one / sigma if sigma else math.inf


def lower_bound(
    found: int, of: int, wrong: int, of_others: int, delta: float, confidence: float = 0.95
) -> float:
    """An epsilon that an attack shows to be exceeded, 0 or more, at this confidence.

    The attack calls `found` of `of` runs of one kind by their kind, and `wrong` of `of_others` of
    the other kind by that kind, too. (epsilon, delta) permits no rate of the first above e^epsilon
    times that of the second plus delta. Each rate has its own Clopper-Pearson bound, at half of the
    error.
    """
    half = (1 - confidence) / 2
    least = beta.ppf(half, found, of - found + 1) if found else 0.0
    most = beta.ppf(1 - half, wrong + 1, of_others - wrong) if wrong < of_others else 1.0
    return math.log((least - delta) / most) if least > delta + most else 0.0


def _crossing(function: Callable[[float], float]) -> float:
    """The smallest x at which a function that falls from above 0 reaches 0; 0 if it starts there.

    Inf if it is above 0 up to LARGEST.
    """
    if function(1e-12) <= 0:
        return 0.0
    high = 1e-6
    while function(high) > 0:
        high *= 4
        if high > LARGEST:
            return math.inf
    found: Any = brentq(function, 0.25 * high if high > 1e-6 else 1e-12, high, xtol=1e-12)
    return float(found)
