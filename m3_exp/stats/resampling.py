"""Item weights for halving and resampling items, in the shape in which a benchmark's score counts them.

Each row of weights sums to 1, strata keep their weight, and the items of a cluster stay together.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_exp.stats.estimate import EVEN, Array, Shape, numbered


def whole(n: int, shape: Shape = EVEN) -> Array:
    """Return the items' own weights, (1, n)."""
    return shape.weights(n)[None]


def resampled(n: int, count: int, generator: np.random.Generator, shape: Shape = EVEN) -> Array:
    """Return the weights of items (clusters) drawn with replacement, (count, n)."""
    which, groups = _units(n, shape)
    counts = generator.multinomial(groups, np.full(groups, 1 / groups), size=count)[:, which]
    return weighted(counts.astype(float), shape)


def halves(n: int, count: int, generator: np.random.Generator, shape: Shape = EVEN) -> tuple[Array, Array]:
    """Return the weights of random halves and of the other halves, (count, n) each."""
    which, groups = _units(n, shape)
    chosen = _halved(groups, count, generator)[:, which]
    return weighted(chosen.astype(float), shape), weighted((~chosen).astype(float), shape)


def _halved(groups: int, count: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return which of so many things are in random halves, (count, groups).

    All studies of a page begin with the same seed, and most have as many items: the halves drawn last are kept, beside
    the generator's state after them.
    """
    before = groups, count, str(generator.bit_generator.state)
    known = _DRAWN.get(before)
    if known is None:
        chosen = np.argsort(generator.random((count, groups)), axis=1) < groups // 2
        while len(_DRAWN) >= _KEPT:
            _DRAWN.pop(next(iter(tuple(_DRAWN))), None)
        _DRAWN[before] = np.packbits(chosen, axis=1), generator.bit_generator.state
        return chosen
    packed, generator.bit_generator.state = known
    return np.unpackbits(packed, axis=1, count=groups).view(np.bool_)


_KEPT = 600  # 32 KB each of 500 halves of 500 items
_DRAWN: dict[tuple[int, int, str], tuple[NDArray[np.uint8], Any]] = {}


def _units(n: int, shape: Shape) -> tuple[NDArray[np.int64], int]:
    """Return the number of each item's cluster (its own where there are none), and of how many."""
    which = np.arange(n) if shape.clusters is None else numbered(shape.clusters)
    return which, int(which.max()) + 1


def weighted(counts: Array, shape: Shape = EVEN) -> Array:
    """Return weights in proportion to counts (B, n), rows summing to 1; a stratum without counts has all its items."""
    if shape.strata is None:  # millions of items are weighted so for one page
        totals = np.asfortranarray(counts).sum(axis=1, keepdims=True)  # rounded as a stratum's are below
        return counts / totals if (totals > 0).all() else weighted(np.where(totals > 0, counts, 1.0))
    names = numbered(shape.strata)
    weights = np.empty_like(counts)
    strata = int(names.max()) + 1
    for stratum in range(strata):
        rows = names == stratum
        totals = counts[:, rows].sum(axis=1, keepdims=True)
        own = np.where(totals > 0, counts[:, rows], 1.0)
        weights[:, rows] = own / own.sum(axis=1, keepdims=True) / strata
    return weights
