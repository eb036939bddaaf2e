"""Item weights for halving and resampling items, in the shape in which a benchmark's score counts them.

Each row of weights sums to 1, strata keep their weight, and the items of a cluster stay together.
"""

import numpy as np
from numpy.typing import NDArray

from m3_exp.stats.estimate import EVEN, Array, Shape


def whole(n: int, shape: Shape = EVEN) -> Array:
    """Return the items' own weights, (1, n)."""
    return np.full((1, n), 1 / n) if shape.shares is None else shape.shares[None]


def resampled(n: int, count: int, generator: np.random.Generator, shape: Shape = EVEN) -> Array:
    """Return the weights of items (clusters) drawn with replacement, (count, n)."""
    if shape.clusters is None:
        counts = generator.multinomial(n, np.full(n, 1 / n), size=count)
    else:
        _, which = np.unique(np.asarray(shape.clusters, dtype=str), return_inverse=True)
        groups = int(which.max()) + 1
        counts = generator.multinomial(groups, np.full(groups, 1 / groups), size=count)[:, which]
    return weighted(counts.astype(float), shape)


def halves(n: int, count: int, generator: np.random.Generator, shape: Shape = EVEN) -> tuple[Array, Array]:
    """Return the weights of random halves and of the other halves, (count, n) each."""
    which = np.arange(n)
    if shape.clusters is not None:
        which = np.unique(np.asarray(shape.clusters, dtype=str), return_inverse=True)[1].astype(np.intp)
    groups = int(which.max()) + 1
    chosen = (np.argsort(generator.random((count, groups)), axis=1) < groups // 2)[:, which]
    return weighted(chosen.astype(float), shape), weighted((~chosen).astype(float), shape)


def weighted(counts: Array, shape: Shape = EVEN) -> Array:
    """Return weights in proportion to counts (B, n), rows summing to 1; a stratum without counts has all its items."""
    names = _strata(counts.shape[1], shape)
    found = np.empty_like(counts)
    strata = int(names.max()) + 1
    for stratum in range(strata):
        rows = names == stratum
        totals = counts[:, rows].sum(axis=1, keepdims=True)
        own = np.where(totals > 0, counts[:, rows], 1.0)
        found[:, rows] = own / own.sum(axis=1, keepdims=True) / strata
    return found


def _strata(n: int, shape: Shape) -> NDArray[np.intp]:
    if shape.strata is None:
        return np.zeros(n, dtype=np.intp)
    return np.unique(np.asarray(shape.strata, dtype=str), return_inverse=True)[1].astype(np.intp)
