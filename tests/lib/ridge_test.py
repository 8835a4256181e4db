"""Ridge regression from sums: exact, and what is taken out leaves no trace."""

import numpy as np
from sklearn.linear_model import Ridge

from l2l_jax.lib.ridge import Sums, load, save


def problem(count, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(count, 7)) + 3, rng.normal(size=(count, 2))
    return x.astype(np.float32), (x[:, :2] + y).astype(np.float32), rng.uniform(0, 1, count)


def test_the_solution_is_that_of_scikit_learn():
    x, y, weights = problem(50)
    kernel, bias = Sums.of(x, y, weights).solved(0.3)
    theirs = Ridge(alpha=0.3, solver="cholesky").fit(
        x.astype(np.float64), y.astype(np.float64), sample_weight=weights
    )
    np.testing.assert_allclose(kernel, theirs.coef_.T, rtol=1e-9)
    np.testing.assert_allclose(bias, theirs.intercept_, rtol=1e-9)


def test_examples_that_are_taken_out_leave_no_trace():
    x, y, weights = problem(400)
    x[:40] *= 5  # they would matter
    parts = [Sums.of(x[at : at + 40], y[at : at + 40], weights[at : at + 40])
             for at in range(0, 400, 40)]  # fmt: skip
    everything = parts[0]
    for part in parts[1:]:
        everything = everything + part
    alone = parts[1]
    for part in parts[2:]:
        alone = alone + part
    taken, retrained = (each.solved(0.3) for each in (everything - parts[0], alone))
    for a, b in zip(taken, retrained, strict=True):
        assert np.max(np.abs(a - b)) <= 1e-9 * np.max(np.abs(b))
    assert np.max(np.abs(everything.solved(0.3)[0] - retrained[0])) > 0.05


def test_sums_are_kept(tmp_path):
    sums = Sums.of(*problem(9))
    save(tmp_path / "s.npz", sums)
    again = load(tmp_path / "s.npz")
    np.testing.assert_array_equal(again.gram, sums.gram)
    np.testing.assert_array_equal(again.cross, sums.cross)
    (tmp_path / "s.npz").write_bytes(b"damaged")
    assert load(tmp_path / "s.npz") is None
    assert load(tmp_path / "missing.npz") is None
