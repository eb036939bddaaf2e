"""Many comparisons at once: adjusted p-values, what could have been found, and what choosing the best gains."""

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy

from m3_exp.stats.estimate import LEVEL, Array, Estimate, normal

LIMIT = 1 - LEVEL
POWER = 0.8
_DRAWN = 40_000  # normal vectors: an adjusted p-value of 0.05 to 0.001
_SURE = 0.01  # adjusted p-values below are Bonferroni's, which needs no drawing


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979), in the order given."""
    order = np.argsort(p)
    raised = np.maximum.accumulate(np.asarray(p, float)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(raised, 1.0)
    return [float(q) for q in adjusted]


def max_t(p: Sequence[float], influences: Array) -> list[float]:
    """Return p-values adjusted by the single-step maximum (Westfall and Young 1993), for comparisons that share items.

    `influences` (U, C): the influence of each of U independent units (items, clusters) on each of C comparisons, 0 if
    the unit is no item of the comparison. Comparisons that share no items are independent. The adjusted value is the
    probability that the smallest of C p-values with these correlations (normal, all true differences 0) is as small as
    this one. It is never above Bonferroni's.
    """
    if not len(p):
        return []
    count = len(p)
    size = np.sqrt((influences**2).sum(axis=0))
    unit = influences / np.where(size > 0, size, 1.0)
    correlation = unit.T @ unit
    correlation[np.diag_indices(count)] = 1.0
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    drawn = _normal(count) @ root.T
    least = np.sort(2 * scipy.special.ndtr(-np.abs(drawn).max(axis=1)))
    return [_adjusted(float(q), count, least) for q in p]


@lru_cache(maxsize=4)
def _normal(count: int) -> Array:
    return np.random.default_rng(0).standard_normal((_DRAWN, count))


def diagonal(blocks: Sequence[Array]) -> Array:
    """Return blocks (U_b, C_b) along the diagonal: the influences of benchmarks, which share no items."""
    whole = np.zeros((sum(len(b) for b in blocks), sum(b.shape[1] for b in blocks)))
    row = column = 0
    for block in blocks:
        whole[row : row + len(block), column : column + block.shape[1]] = block
        row, column = row + len(block), column + block.shape[1]
    return whole


def _adjusted(p: float, count: int, least: Array) -> float:
    bonferroni = min(1.0, count * p)
    if bonferroni < _SURE:
        return bonferroni
    share = float(np.searchsorted(least, p, side="right")) / len(least)
    return min(bonferroni, max(p, share, _SURE))


def critical(count: int, level: float = LEVEL) -> float:
    """Return the normal quantile that the first of `count` comparisons must exceed in Holm's procedure."""
    return -statistics.NormalDist().inv_cdf((1 - level) / 2 / max(1, count))


def detectable(estimate: Estimate, count: int = 1, power: float = POWER) -> float:
    """Return the smallest true difference that such a comparison, as one of `count`, finds with probability `power`.

    `count` comparisons are made. The part of the interval that is not chance over items (bias, unscored items, few
    masks) is added to the difference as it is.
    """
    besides = max(0.0, (estimate.high - estimate.low) / 2 - normal(LEVEL) * estimate.se)
    return (critical(count) + statistics.NormalDist().inv_cdf(power)) * estimate.se + besides


@lru_cache(maxsize=64)
def best_of(n: int) -> float:
    """Return the expected maximum of n independent standard normal scores: 1.35 for the paper's seven alphas."""
    grid = np.linspace(-10, 10, 200_001)
    density = n * np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi) * scipy.special.ndtr(grid) ** (n - 1)
    return float(np.trapezoid(grid * density, grid))
