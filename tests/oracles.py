"""What the package computes in a wider form, computed plainly."""

import math

import numpy as np

from m3_exp.stats.estimate import Array
from m3_exp.stats.family import best_of


def selection_price(scores: Array) -> float:
    """Return what picking the best of several columns on the test items gains by chance alone.

    best_of(columns) x SE x sqrt(1 - rho): SE the mean standard error of the columns' means, rho their mean correlation
    over items. `scores`: shape (n, columns), from 0 to 1.
    """
    n, columns = scores.shape
    covariance = np.cov(scores, rowvar=False)
    own = float(np.mean(np.diag(covariance)))
    shared = float((covariance.sum() - np.trace(covariance)) / (columns * (columns - 1)))
    return best_of(columns) * math.sqrt(max(0.0, own - shared) / n)
