"""Is one model better than another on the same items? This is the one paired comparison.

0/1 scores have Tango's score interval (1998) of the difference of two paired proportions and McNemar's mid-p test (as
recommended by Fagerland, Lydersen and Laake 2013). All others (graded scores, expectations over lambda, means over
masks or draws, weighted scores, clusters) have the interval of `estimate.Mean` and its p-value.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from m3_exp.stats.estimate import (
    EVEN,
    LEVEL,
    Array,
    Estimate,
    Mean,
    Shape,
    VarianceSource,
    influences,
    normal,
    of_items,
    weighted_mean,
)
from m3_exp.stats.roots import root

_ROUNDING = 1e-9
BINARY = "Tango, mid-p McNemar"


def paired(
    a: Array,
    b: Array,
    shape: Shape = EVEN,
    *,
    others: Sequence[VarianceSource] = (),
    bias: tuple[float, float] = (0.0, 0.0),
    unscored: int = 0,
) -> Estimate:
    """Compare two aligned arrays of item scores (n,): the mean of a - b, from -1 to 1.

    `others` are its sources of variance besides items, `bias` how far it may be off below and above. `unscored` more
    items have no score on one side.

    Raises:
        ValueError: there are no items.
    """
    d = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    d = np.where(np.abs(d) > _ROUNDING, d, 0.0)
    items = of_items(d, shape, signed=True, others=others, bias=bias, unscored=unscored)
    moved = int(np.count_nonzero(d))
    verdicts = bool(np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all())
    if verdicts and shape.even and not others and max(bias) == 0:
        return _binary(int((d > 0).sum()), int((d < 0).sum()), len(d), items, unscored)
    return items.estimate(n=len(d), moved=moved, unscored=unscored)


def _binary(gained: int, lost: int, n: int, items: Mean, unscored: int) -> Estimate:
    """Return the difference of two paired proportions. Ends: with all unscored items lost, and with all gained."""
    total = n + unscored
    low, high = tango(gained, lost + unscored, total)[0], tango(gained + unscored, lost, total)[1]
    if gained == lost:
        p = 1.0
    elif gained > lost:
        p = mid_p(gained, lost + unscored) if gained > lost + unscored else 1.0
    else:
        p = mid_p(gained + unscored, lost) if lost > gained + unscored else 1.0
    how = BINARY + (", worst case of unscored items" if unscored else "")
    value = (gained - lost) / n
    return replace(
        items.estimate(n=n, moved=gained + lost, unscored=unscored),
        low=min(low, value), high=max(high, value), p=p, how=how,
    )  # fmt: skip


def tango(gained: int, lost: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return Tango's score interval of a difference of paired proportions, (gained - lost) / n.

    `gained` items are right in the first only, `lost` in the second only, of `n`.

    Raises:
        ValueError: the counts are impossible.
    """
    if min(gained, lost) < 0 or gained + lost > n or n < 1:
        raise ValueError(f"gained {gained}, lost {lost} of {n} is impossible")
    z = normal(level)
    estimate = (gained - lost) / n

    def score(delta: float) -> float:
        """The score statistic for a true difference delta; falls from above z to below -z."""
        b = -gained - lost + (2 * n - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        q = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        return (gained - lost - n * delta) / math.sqrt(max(variance, 1e-300))

    edge = 1 - 1e-12
    low = -1.0 if gained - lost == -n else root(lambda x: score(x) - z, -edge, estimate)
    high = 1.0 if gained - lost == n else root(lambda x: score(x) + z, estimate, edge)
    return low, high


@lru_cache(maxsize=4096)
def mid_p(gained: int, lost: int) -> float:
    """Return McNemar's mid-p value: the exact one less half the probability of what was seen; 1 if nothing differs."""
    n, least = gained + lost, min(gained, lost)
    if n == 0:
        return 1.0
    seen, below = 1, 0  # of 2 ** n: as many gains as there were, or fewer losses; Python's integers round nothing
    for k in range(least):
        seen, below = seen * (n - k) // (k + 1), below + seen
    return min(1.0, (2 * below + seen) / (1 << n))


def spread(masks: Sequence[Array], shape: Shape = EVEN) -> list[VarianceSource]:
    """Return the source of variance that DARE masks (or draws of lambda) add to a mean over them; none with one mask.

    `masks`: the items' scores under each of m masks, (n,). The variance between the masks' means is taken as it is. A
    part of it is the items' own noise (`shared`); that part is deducted from the variance over items, not here. Else a
    variance that is small by chance would be trusted: in simulations 6 % of equal pairs under 2 masks then differ at a
    level of 0.08 %.
    """
    if len(masks) < 2:
        return []
    seen, noise = _variances(np.column_stack(masks), shape)
    return [VarianceSource(seen / len(masks), len(masks) - 1, min(seen, noise) / len(masks))]


def between(values: Array, shape: Shape = EVEN) -> float | None:
    """Return the standard deviation between masks (or draws) themselves, without the items' noise; `values` (n, m).

    None with one mask, and 0 where the estimate comes out negative.
    """
    if values.shape[1] < 2:
        return None
    seen, noise = _variances(values, shape)
    return math.sqrt(max(0.0, seen - noise))


def _variances(values: Array, shape: Shape) -> tuple[float, float]:
    """Return the variance between the columns' means, and the part of it that is the items' noise."""
    deviations = values - values.mean(axis=1, keepdims=True)
    freedom = values.shape[1] - 1
    means, parts = weighted_mean(deviations, shape), influences(deviations, shape)
    return float((means**2).sum()) / freedom, float((parts**2).sum()) / freedom
