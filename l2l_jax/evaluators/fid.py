"""Frechet distance between completions and the real images behind them (Heusel et al. 2017).

    FID = |mu_1 - mu_2|^2 + tr(C_1) + tr(C_2) - 2 tr((C_1 C_2)^(1/2))

on the features of a network that the report names: a FID of another network, another way of
resizing, or another number of images is another quantity. Everything in float64, covariances
divided by N - 1.
"""

import logging
from collections.abc import Iterator

import numpy as np

from l2l_jax.types import Evaluation, Figure

log = logging.getLogger(__name__)


FIGURES = (Figure("fid", "FID", good="down", digits=2),)


def evaluate(
    evaluation: Evaluation, *, network: str = "main"
) -> Iterator[tuple[tuple[str, str, str], str, float]]:
    """fid for every variant, side and task; sides with fewer than two images have none."""
    for task in evaluation.tasks:
        for side in evaluation.sides:
            for variant in evaluation.variants:
                made = evaluation.completions(variant, side, task, network)
                if len(made.features) < 2:
                    log.warning("fid needs two images; the %s side has fewer", side)
                else:
                    yield (variant, side, task), "fid", frechet(made.features, made.real_features)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The distance between the Gaussians fitted to two sets of features [N, D], [M, D].

    With centred features A / sqrt(N - 1) = Q R, the trace of (C_1 C_2)^(1/2) is the sum of the
    singular values of R_1 R_2^T: no covariance is squared or rooted, so sets smaller than D, whose
    covariances are singular, are no special case.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    (mean_a, root_a), (mean_b, root_b) = _root(a), _root(b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = np.sum(root_a**2) + np.sum(root_b**2) - 2 * cross
    return float(max(np.sum((mean_a - mean_b) ** 2) + spread, 0.0))


def _root(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and R with R^T R = covariance."""
    mean = x.mean(axis=0)
    return mean, np.linalg.qr((x - mean) / np.sqrt(len(x) - 1), mode="r")
