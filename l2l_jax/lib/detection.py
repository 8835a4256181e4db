"""How well a score separates two groups: area under the ROC curve, and rates at low error."""

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

Scores = Float[np.ndarray, " N"]


def auc(positives: Scores, negatives: Scores) -> float:
    """The probability that a positive has a higher score than a negative; ties count half."""
    count = len(positives)
    ranks = rankdata(np.concatenate([positives, negatives]))
    return float((ranks[:count].sum() - count * (count + 1) / 2) / (count * len(negatives)))


def true_positive_rate(positives: Scores, negatives: Scores, false_rate: float) -> float:
    """The share of positives above the threshold that at most `false_rate` of negatives exceed."""
    allowed = int(np.floor(false_rate * len(negatives)))
    threshold = np.sort(negatives)[::-1][min(allowed, len(negatives) - 1)]
    return float(np.mean(positives > threshold))
