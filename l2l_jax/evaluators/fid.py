"""Frechet distance between completions and the complete images (Heusel et al. 2017).

    FID = |mu_1 - mu_2|^2 + tr(C_1) + tr(C_2) - 2 tr((C_1 C_2)^(1/2))

mu and C are the mean and the covariance of the features of a network, which the report names.
Values compare only if the network, the resizing and the number of images are the same. Everything
is computed in float64; covariances are divided by N - 1.

The interval comes from resamples of the images, in pairs of a completion and its image. Each is one
eigenvalue problem of D x D, which takes milliseconds for the networks of a run's own. With more
than MAX_RESAMPLED_FEATURES features, as of Inception, it comes from the derivative of the FID by
the weight of each image, which costs about as much as the FID itself.
"""

import logging
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from l2l_jax.lib import bootstrap
from l2l_jax.lib.evaluation import each_cell, interval_seed, required
from l2l_jax.types import Estimate, Evaluation, Figure, FigureValues

log = logging.getLogger(__name__)

RESAMPLES = 200  # of the interval
MAX_RESAMPLED_FEATURES = 256  # with more, a resample would take seconds
FIGURES = (Figure("fid", "FID", good="down", digits=2),)


def evaluate(evaluation: Evaluation, *, network: str = "main") -> FigureValues:
    """Yields fid for every variant, side and task; a side with fewer than two images has none."""
    for cell, completions in each_cell(evaluation, network):
        features, real = required(completions.features), required(completions.real_features)
        if len(features) < 2:
            log.warning("fid needs two images; the %s side has fewer", cell[1])
        else:
            yield cell, "fid", _estimate(features, real, interval_seed(evaluation, cell))


def _estimate(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "N D"], seed: int) -> Estimate:
    """The FID of completions and the same images, with its interval."""
    value = frechet(a, b)
    if a.shape[1] > MAX_RESAMPLED_FEATURES:
        return bootstrap.influenced(value, influences(a, b))
    return bootstrap.resampled(value, resampler(a, b), len(a), seed, RESAMPLES)


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


def resampler(
    a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "N D"]
) -> Callable[[bootstrap.Rows], float]:
    """The function that returns the FID of some rows, by their numbers; rows may be repeated."""
    centre = np.mean(b, axis=0, dtype=np.float64)
    a, b = np.asarray(a, np.float64) - centre, np.asarray(b, np.float64) - centre

    def moments(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = weights.sum()
        mean = weights @ x / count
        squares = (x * weights[:, None]).T @ x
        return mean, (squares - count * np.outer(mean, mean)) / (count - 1)

    def figure_of(rows: bootstrap.Rows) -> float:
        weights = np.bincount(rows, minlength=len(a)).astype(np.float64)
        (mean_a, cov_a), (mean_b, cov_b) = moments(a, weights), moments(b, weights)
        root = _power(*np.linalg.eigh(cov_b), 0.5)
        cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_a @ root), 0)).sum()
        spread = np.trace(cov_a) + np.trace(cov_b) - 2 * cross
        return float(max(np.sum((mean_a - mean_b) ** 2) + spread, 0.0))

    return figure_of


def influences(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """N times the derivative of the FID by the weight of each pair (a[i], b[i]).

    With T the optimal map between the two Gaussians, the derivative by C_1 is I - T, and that by
    C_2 is I - T^-1. Where a covariance is singular, the pseudo-inverse takes its place. Fewer
    images than half of the features span only a part of the space; everything is computed there,
    since matrices of 2,048 x 2,048 take many seconds.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if 2 * len(a) < a.shape[1]:
        basis, _ = np.linalg.qr(np.concatenate([a, b]).T)
        a, b = a @ basis, b @ basis
    shift = a.mean(axis=0) - b.mean(axis=0)
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    cov_a, cov_b = a.T @ a / len(a), b.T @ b / len(b)
    values_b = np.linalg.eigh(cov_b)
    root, inverse = _power(*values_b, 0.5), _power(*values_b, -0.5)
    values = np.linalg.eigh(root @ cov_a @ root)
    there = root @ _power(*values, -0.5) @ root
    back = inverse @ _power(*values, 0.5) @ inverse
    total = 2 * (a - b) @ shift
    for x, cov, moved in ((a, cov_a, there), (b, cov_b, back)):
        slope = np.eye(len(cov)) - moved
        total += np.sum((x @ slope) * x, axis=1) - np.sum(slope * cov)
    return total


def _power(values: np.ndarray, vectors: np.ndarray, exponent: float) -> np.ndarray:
    """The power of a symmetric matrix from its eigenvalues; those that are zero stay zero."""
    kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    powers = np.where(kept, np.where(kept, values, 1.0) ** exponent, 0.0)
    return (vectors * powers) @ vectors.T
