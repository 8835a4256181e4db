"""Frechet distance between completions and the complete images (Heusel et al. 2017).

    FID = |mu_1 - mu_2|^2 + tr(C_1) + tr(C_2) - 2 tr((C_1 C_2)^(1/2))

mu and C are the mean and the covariance of the features of a network, which the report names.
Values compare only if the network, the resizing and the number of images are the same. Everything
is computed in float64; covariances are divided by N - 1.
"""

import logging

import numpy as np
from jaxtyping import Float

from l2l_jax.lib.evaluation import each_cell, required
from l2l_jax.types import Evaluation, Figure, FigureValues

log = logging.getLogger(__name__)


FIGURES = (Figure("fid", "FID", good="down", digits=2),)


def evaluate(evaluation: Evaluation, *, network: str = "main") -> FigureValues:
    """Yields fid for every variant, side and task; a side with fewer than two images has none."""
    for cell, completions in each_cell(evaluation, network):
        features, real = required(completions.features), required(completions.real_features)
        if len(features) < 2:
            log.warning("fid needs two images; the %s side has fewer", cell[1])
        else:
            yield cell, "fid", frechet(features, real)


def frechet(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> float:
    """The distance between the Gaussians fitted to two sets of features.

    With centred features A / sqrt(N - 1) = Q R, the trace of (C_1 C_2)^(1/2) is the sum of the
    singular values of R_1 R_2^T. No covariance is squared or rooted, so the result is also exact
    for sets smaller than D, whose covariances are singular.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    (mean_a, root_a), (mean_b, root_b) = _mean_and_root(a), _mean_and_root(b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = np.sum(root_a**2) + np.sum(root_b**2) - 2 * cross
    return float(max(np.sum((mean_a - mean_b) ** 2) + spread, 0.0))


def _mean_and_root(
    x: Float[np.ndarray, "N D"],
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, "K D"]]:
    """(mean, R with R^T R = covariance); R has K = min(N, D) rows."""
    mean = x.mean(axis=0)
    return mean, np.asarray(np.linalg.qr((x - mean) / np.sqrt(len(x) - 1), mode="r"))
