"""Distances to retrained models, where the answer is known."""

import numpy as np
import pytest

from l2l_jax.audits import retrain_distance
from l2l_jax.lib.errors import CannotRun
from tests.audits import fakes

AT = (("images", "forget_eval"),)


def params_of(*seeds):
    return {n: fakes.random_params(seed=s) for n, s in zip(fakes.VARIANTS, seeds, strict=False)}


def test_a_reference_is_as_far_from_the_other_as_the_floor():
    params = params_of(0, 1, 2, 3)
    for name in ("retrained", "retrained_2"):
        assert fakes.findings("retrain_distance", name, params, draws=1)["ratio", AT].value == (
            pytest.approx(1)
        )


def test_a_model_that_is_a_reference_is_half_as_far_and_has_its_losses():
    params = params_of(0, 2, 2, 3)  # the unlearned model equals the first of two references
    found = fakes.findings("retrain_distance", "unlearned", params, draws=1)
    assert found["ratio", AT].value == pytest.approx(0.5)  # 0 to one, 1 to the other
    other = fakes.findings("retrain_distance", "original", params, draws=1)
    assert found["ks", AT].value <= 0.5 < other["ks", AT].value
    assert found["mmd", AT].value < other["mmd", AT].value


def test_with_one_reference_there_is_the_plain_distance_only():
    params = params_of(0, 1, 2)
    found = {n: fakes.findings("retrain_distance", n, params, draws=1) for n in params}
    assert {figure for figure, _ in found["unlearned"]} == {"distance"}
    assert found["retrained"]["distance", AT].value == 0
    assert found["unlearned"]["distance", AT].value > 0
    assert "is not known" in retrain_distance.conclude(fakes.compared(found))


def test_without_a_reference_it_cannot_run():
    with pytest.raises(CannotRun, match="no retrained model"):
        fakes.findings("retrain_distance", "unlearned", params_of(0, 1), draws=1)


def test_the_distance_is_that_of_completions():
    params = params_of(0, 1, 2)
    audit = fakes.find("audit", "retrain_distance")
    subject = fakes.subject(audit, "unlearned", params)
    images = subject.sets["forget_eval"]
    made = [
        subject.measure(retrain_distance.per_image.completed, images, params=params[name])
        for name in ("unlearned", "retrained")
    ]
    hidden = subject.measure(retrain_distance.per_image.hidden, images)[..., 0]
    by_hand = [np.sqrt(np.mean((a - b)[h] ** 2)) for a, b, h in zip(*made, hidden, strict=True)]
    found = fakes.findings("retrain_distance", "unlearned", params, draws=1)
    assert found["distance", AT].value == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_statistics_of_losses():
    rng = np.random.default_rng(0)
    one, same, other = rng.normal(size=200), rng.normal(size=200), 3 + rng.normal(size=200)
    width = retrain_distance.kernel_width(np.concatenate([one, other]))
    assert retrain_distance.ks(one, one) == 0
    assert retrain_distance.mmd(one, one, width) == pytest.approx(0, abs=1e-12)
    assert retrain_distance.ks(one, same) < 0.15 < 0.8 < retrain_distance.ks(one, other)
    assert (
        retrain_distance.mmd(one, same, width)
        < 0.02
        < 0.2
        < retrain_distance.mmd(one, other, width)
    )


def test_the_distance_counts_hidden_pixels_only():
    one, other = np.zeros((2, 4, 4, 3)), np.ones((2, 4, 4, 3))
    hidden = np.zeros((2, 4, 4, 1), bool)
    hidden[0, 0, 0] = hidden[1, :2] = True
    assert retrain_distance.rms(one, other, hidden) == pytest.approx([1, 1])
    assert retrain_distance.rms(one, 0.5 * other, hidden) == pytest.approx([0.5, 0.5])
