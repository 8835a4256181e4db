"""Shadow models: the likelihood ratio where its strength is known, and what they are trained on."""

import numpy as np
import pytest
from scipy.stats import norm

from l2l_jax.audits import shadow_models
from l2l_jax.lib.errors import CannotRun
from l2l_jax.types import ImageSet
from tests.audits import fakes


def test_halves_are_complementary_and_random():
    learned = shadow_models.halves(10, 6, seed=1)
    np.testing.assert_array_equal(learned[:, ::2], ~learned[:, 1::2])
    assert (learned.sum(axis=0) == 5).all()
    assert (learned.sum(axis=1) == 3).all(), "each target is learned by half of the models"
    assert len({tuple(column) for column in learned.T}) == 6


def planted(gap, targets=600, models=8, seed=0):
    """Log losses that learning lowers by `gap` deviations, around a level of each target."""
    rng = np.random.default_rng(seed)
    learned = shadow_models.halves(targets, models, seed)
    levels = 5 * rng.standard_normal((targets, 1))
    return levels + rng.standard_normal(learned.shape) - gap * learned, learned


def test_the_attack_finds_what_is_planted_and_no_more():
    """Levels of single targets are far apart, which hides the gap from a global threshold."""
    for gap in (0.0, 1.0, 3.0):
        scores, learned = planted(gap)
        found = shadow_models.attacked(scores, learned)
        best = norm.cdf(gap / np.sqrt(2))  # with levels known; they are means of 3 scores
        assert best - 0.08 < found < best + 0.02, gap
    scores, learned = planted(3.0)
    mixed = learned[np.random.default_rng(5).permutation(len(learned))]
    assert shadow_models.attacked(scores, mixed) == pytest.approx(0.5, abs=0.03)


def test_a_model_is_judged_by_the_others_only():
    scores, learned = planted(1.0, targets=50)
    before = shadow_models.ratio(scores, learned, 2)
    flipped = learned.copy()
    flipped[:, 2] = ~flipped[:, 2]
    np.testing.assert_array_equal(before, shadow_models.ratio(scores, flipped, 2))


def framed(name, count, seed):
    """Images whose centre has a colour that nobody can know from the frame but by heart."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, 16, 16, 3), np.uint8)
    images[:] = rng.integers(0, 256, (count, 1, 1, 3))
    images[:, 4:12, 4:12] = 255 * rng.integers(0, 2, (count, 1, 1, 3))
    return ImageSet(name, images, ("class",) * count)


@pytest.mark.slow
def test_before_unlearning_the_learned_images_are_found():
    args = dict(models=6, steps=150, lr=1e-2, draws=4)
    audit = fakes.find("audit", "shadow_models")
    images = {name: framed(name, 4, seed) for seed, name in enumerate(audit.SETS)}
    found = fakes.findings("shadow_models", "original", images=images, **args)
    assert found["auc", ()].value > 0.75


@pytest.mark.slow
def test_what_it_refuses():
    audit = fakes.find("audit", "shadow_models")
    assert audit.refuses(fakes.laboratory().experiment.model) == ""
    large = fakes.find("model", "mae").build(size="base", image_size=224)
    assert "at most 1,000,000 parameters; this one has 111,9" in audit.refuses(large)
    with pytest.raises(CannotRun, match="even"):
        fakes.findings("shadow_models", models=5)
    alone = {"unlearned": fakes.random_params()}
    with pytest.raises(CannotRun, match=r"config\.reference"):
        fakes.findings("shadow_models", params=alone)
