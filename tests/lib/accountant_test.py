"""The accountant against known values, the package dp-accounting, and a direct composition."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from l2l_jax.lib import accountant

SETTING = dict(start=0.02, steps=20, rate=3e-4, clip=1.0)


def test_noise_alone_is_the_gaussian_mechanism():
    assert accountant.gdp(start=3.0, steps=1, rate=0.5, clip=0.0, sigma=1.5) == pytest.approx(2.0)
    assert accountant.gdp(start=1.0, steps=4, rate=1.0, clip=0.5, sigma=1.0) == pytest.approx(2.5)
    assert accountant.gdp(**SETTING, sigma=0.0) == math.inf


def test_delta_is_the_largest_advantage_over_e_to_the_epsilon():
    """For N(0, 1) and N(mu, 1) it is attained by a threshold; all thresholds are tried."""
    for mu, epsilon in ((0.3, 0.1), (1.0, 2.0), (3.0, 1.0)):
        cut = np.linspace(-8, 12, 200_001)
        tried = norm.sf(cut - mu) - math.exp(epsilon) * norm.sf(cut)
        assert accountant.delta_of(mu, epsilon) == pytest.approx(tried.max(), abs=1e-8)
    assert accountant.delta_of(0.0, 1.0) == 0
    assert accountant.delta_of(math.inf, 1.0) == 1


def test_inverses():
    for epsilon, delta in ((0.5, 1e-3), (8.0, 1e-5), (1000.0, 1e-9)):
        mu = accountant.mu_of(epsilon, delta)
        assert accountant.epsilon_of(mu, delta) == pytest.approx(epsilon, rel=1e-6)
        sigma = accountant.sigma_for(epsilon, delta, **SETTING)
        assert accountant.gdp(**SETTING, sigma=sigma) == pytest.approx(mu)
    assert accountant.epsilon_of(1e-9, 1e-3) == 0, "so close that delta alone covers it"
    assert accountant.epsilon_of(math.inf, 1e-3) == math.inf


def test_epsilon_equals_that_of_dp_accounting():
    pytest.importorskip("dp_accounting", reason="the extra [dev] is not installed")
    from dp_accounting.pld import privacy_loss_distribution as pld

    for mu in (0.5, 1.6, 4.0):
        theirs = pld.from_gaussian_mechanism(1 / mu, value_discretization_interval=1e-3)
        for delta in (1e-6, 1e-3):
            ours = accountant.epsilon_of(mu, delta)
            assert theirs.get_epsilon_for_delta(delta) == pytest.approx(ours, abs=3e-3)


@pytest.mark.parametrize("decay", [0.0, 50.0])
def test_mu_is_the_best_division_of_the_shift_among_the_steps(decay):
    """Every step may cancel a part of the shift: parts a_t with sum a_t q^(T-1-t) = the whole.

    The noise of step t hides a_t as a Gaussian mechanism does, and T of these compose to
    sqrt(sum a_t^2) / sigma. The best parts are proportional to q^(T-1-t); others need more.
    """
    q, steps, sigma = 1 - SETTING["rate"] * decay, SETTING["steps"], 0.01
    powers = q ** np.arange(steps)[::-1]
    whole = SETTING["start"] * q**steps + 2 * SETTING["rate"] * SETTING["clip"] * powers.sum()
    best = whole * powers / np.sum(powers**2)
    assert np.sum(best * powers) == pytest.approx(whole)
    mu = accountant.gdp(**SETTING, sigma=sigma, decay=decay)
    assert mu == pytest.approx(np.sqrt(np.sum(best**2)) / sigma)
    for other in np.random.default_rng(0).uniform(0, 1, (20, steps)):
        parts = other * whole / np.sum(other * powers)
        assert np.sqrt(np.sum(parts**2)) / sigma >= mu
    pytest.importorskip("dp_accounting", reason="the extra [dev] is not installed")
    from dp_accounting.pld import privacy_loss_distribution as pld

    each = [
        pld.from_gaussian_mechanism(sigma / a, value_discretization_interval=1e-3) for a in best
    ]
    composed = each[0]
    for one in each[1:]:
        composed = composed.compose(one)
    epsilon = accountant.epsilon_of(mu, 1e-5)
    assert composed.get_epsilon_for_delta(1e-5) == pytest.approx(epsilon, abs=0.03)


def test_the_theorem_asks_for_more_noise_as_long_as_epsilon_is_small():
    """Above epsilon = log(1 / delta) it asks for less than the exact curve permits."""
    where = dict(steps=10, rate=0.1, clip=0.5)
    for delta in (1e-3, 1e-5):
        for share in (0.1, 0.5, 0.9):
            epsilon = share * math.log(1 / delta)
            theorem = accountant.theorem_sigma(epsilon, delta, radius=1.0, **where)
            assert theorem > accountant.sigma_for(epsilon, delta, start=2.0, **where)
            back = accountant.theorem_epsilon(theorem, delta, radius=1.0, **where)
            assert back == pytest.approx(epsilon)
    assert accountant.theorem_sigma(1.0, math.exp(-4), radius=1.0, **where) == pytest.approx(
        math.sqrt(9 * 4 * 1.5**2 / 10)
    )


def test_the_lower_bound_holds_and_needs_evidence():
    assert accountant.lower_bound(500, 1000, 500, 1000, 1e-5) == 0
    assert accountant.lower_bound(0, 1000, 0, 1000, 1e-5) == 0
    sure = accountant.lower_bound(1000, 1000, 0, 1000, 1e-5)
    assert sure == pytest.approx(
        math.log(0.025 ** (1 / 1000) / (1 - 0.025 ** (1 / 1000))), rel=1e-3
    )
    rng, mu, delta = np.random.default_rng(0), 1.0, 1e-5
    for _ in range(20):
        one, other = rng.normal(mu, 1, 2000), rng.normal(0, 1, 2000)
        found = accountant.lower_bound((one > 1.5).sum(), 2000, (other > 1.5).sum(), 2000, delta)
        assert 0.5 < found < accountant.epsilon_of(mu, delta)
