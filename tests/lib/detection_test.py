"""Areas under the curve and rates, where they are known."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from l2l_jax.lib import detection


def test_auc_equals_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(0.4, 1, 50).round(1), rng.normal(0, 1, 70).round(1)
    labels = np.repeat([1, 0], [50, 70])
    expected = roc_auc_score(labels, np.concatenate([positives, negatives]))
    assert detection.auc(positives, negatives) == pytest.approx(expected)
    assert detection.auc(negatives, positives) == pytest.approx(1 - expected)


def test_rates_at_a_false_rate():
    negatives, positives = np.arange(100.0), np.array([98.5, 99.5, 50.0, 120.0])
    assert detection.true_positive_rate(positives, negatives, 0.01) == 0.75
    assert detection.true_positive_rate(positives, negatives, 0.0) == 0.5
    assert detection.true_positive_rate(positives, negatives, 1.0) == 1.0
