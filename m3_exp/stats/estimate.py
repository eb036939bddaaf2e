"""A mean of item scores, or of their differences, with an interval and a p-value that hold at every size of sample.

The interval of a mean m of n values that lie between two limits is Wald's after z^2/2 pseudo-items at each limit (0 and
1: for 0/1 values this is Agresti and Coull's, 1998), or z^2/4 for a difference (-1 and 1: for 0/1 values Bonett and
Price's, 2012). So it never has width 0, a few items cannot make it narrow, and where nothing is right it agrees with
the rule of three. A p-value is the level at which its interval just touches 0.

Besides the items, other sources make a mean uncertain:

    masks, draws   a variance each, estimated with few degrees of freedom. Each standard error is multiplied by its own
                   Student quantile; the half width is the root of the sum of these squares (Banerjee 1961: it is never
                   too short, however the variance is divided among the sources)
    clusters       items of one problem are one unit; there is one degree of freedom less than there are units
    bias           how far an interpolation or a minimum may be off, to either side: added to the ends
    missing        items without a score: the lower end is the one with all of them at the lower limit, the upper end
                   the one with all at the upper limit (Manski 1989)

Measured coverage: docs/coverage.md, made by benchmarks/coverage.py.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from m3_exp.stats.roots import root

Array = NDArray[np.float64]
LEVEL = 0.95
_HIGHEST = 8.0  # normal quantile: p-values below 1.2e-15 are that (scipy's Student quantiles fail further out)


@dataclass(frozen=True)
class Estimate:
    """One number with its 95 % interval over `n` items.

    `p` is the two-sided p-value of a true value of 0, None where that is not asked. `se` is the standard error at the
    95 % level, pseudo-items included. `how` names the interval. Of a difference, `moved` items differ from 0.
    `unscored` items are in the interval by their worst and best values.
    """

    value: float
    low: float
    high: float
    n: int
    how: str
    p: float | None = None
    se: float = math.nan
    moved: int = 0
    unscored: int = 0

    def scaled(self, by: float) -> "Estimate":
        """Return the same number in another unit (100: percent)."""
        return replace(self, value=by * self.value, low=by * self.low, high=by * self.high, se=by * self.se)


@dataclass(frozen=True)
class VarianceSource:
    """A part of a mean's variance besides its items: `variance`, known on `freedom` degrees of freedom.

    `variance` is estimated with `freedom` degrees of freedom. `shared` is the part of it that is the items' own noise,
    which the variance over items counts already.
    """

    variance: float
    freedom: float = math.inf
    shared: float = 0.0


@dataclass(frozen=True)
class Mean:
    """A mean with every source of its uncertainty. `n` counts independent items (clusters, where there are any)."""

    value: float
    items: float  # variance of the mean, over items
    n: float
    limits: tuple[float, float] = (0.0, 1.0)
    others: tuple[VarianceSource, ...] = ()
    bias: tuple[float, float] = (0.0, 0.0)  # how far the truth may lie below and above, besides chance
    missing: float = 0.0  # share of the items without a score
    how: str = ""
    freedom: float = math.inf  # of `items`

    @property
    def signed(self) -> bool:
        return self.limits[0] < 0

    def standard_error(self, level: float = LEVEL) -> float:
        """Return the standard error with the pseudo-items of a level."""
        return self._wald(normal(level))[1]

    def critical(self, z: float) -> float:
        """Return how many standard errors the interval reaches; above `z` where degrees of freedom are few."""
        sources = (VarianceSource(self.items, self.freedom), *self.others)
        total = sum(source.variance for source in sources)
        if total <= 0:
            return _student(z, self.freedom)
        reach = (_student(z, source.freedom) * math.sqrt(source.variance) for source in sources)
        return math.hypot(*reach) / math.sqrt(total)

    def _wald(self, z: float) -> tuple[float, float]:
        """Return centre and standard error with the pseudo-items of a normal quantile."""
        low, high = self.limits
        k = z * z / (4 if self.signed else 2)
        n = self.n + 2 * k
        middle = (self.n * self.value + k * (low + high)) / n
        others = sum(source.variance for source in self.others)
        square = max(0.0, self.n - 1) * self.items + self.n * others + self.value**2
        squares = self.n * square + k * (low * low + high * high)
        return middle, math.sqrt(max(0.0, squares / n - middle * middle) / n)

    def _ends(self, z: float) -> tuple[float, float]:
        low, high = self.limits
        below, above = self, self
        if self.missing:
            below, above = self._completed(low), self._completed(high)
        return max(low, below._end(z, -1)), min(high, above._end(z, 1))

    def _end(self, z: float, side: int) -> float:
        middle, error = self._wald(z)
        return middle + side * (self.critical(z) * error + self.bias[side > 0])

    def _completed(self, at: float) -> "Mean":
        """Return the mean of all items if those without a score were `at` one limit."""
        known = 1 - self.missing
        n = self.n / known
        within, apart = max(0.0, self.n - 1) * self.items, self.missing * (self.value - at) ** 2
        others = tuple(replace(source, variance=known**2 * source.variance) for source in self.others)
        return replace(
            self, value=known * self.value + self.missing * at, items=known * (within + apart) / max(1.0, n - 1), n=n,
            others=others, bias=(known * self.bias[0], known * self.bias[1]), missing=0.0,
        )  # fmt: skip

    def ends(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval at a level, within the limits."""
        below, above = self._ends(normal(level))
        return min(below, self.value), max(above, self.value)

    def p_value(self) -> float:
        """Return the two-sided p-value of a true value of 0: the level at which the interval just touches it."""

        def excludes(z: float) -> float:
            low, high = self._ends(z)
            return low if self.value > 0 else -high

        if self.value == 0 or excludes(1e-6) <= 0:
            return 1.0
        reach = _HIGHEST if excludes(_HIGHEST) > 0 else root(excludes, 1e-6, _HIGHEST, xtol=1e-10)
        return math.erfc(reach / math.sqrt(2))

    def estimate(self, *, n: int | None = None, moved: int = 0, unscored: int = 0) -> Estimate:
        """Return the mean as an Estimate over `n` items; by default `self.n`, which clusters make smaller."""
        low, high = self.ends()
        return Estimate(
            self.value, low, high, round(self.n) if n is None else n, self.how, self.p_value() if self.signed else None,
            self.standard_error(), moved, unscored,
        )  # fmt: skip


def normal(level: float) -> float:
    """Return the two-sided normal quantile of a level."""
    return statistics.NormalDist().inv_cdf(0.5 + level / 2)


def _student(z: float, freedom: float) -> float:
    """Return Student's quantile at the level of a normal one."""
    if math.isinf(freedom):
        return z
    return float(-scipy.special.stdtrit(freedom, scipy.special.ndtr(-z)))


# ------------------------------------------------------------------------------------------------- items -> a mean


@dataclass(frozen=True)
class Shape:
    """How the items of a benchmark make its score. Arrays of shape (n,); None where every item counts the same.

    `shares` are the items' weights, summing to 1 (LiveBench: a question weighs 1 / (tasks x questions of its task)).
    `strata` are the groups within which a weight is shared (tasks). Items of one problem or template are one of
    `clusters`.
    """

    shares: Array | None = None
    strata: Sequence[str] | None = None
    clusters: Sequence[str] | None = None

    @property
    def even(self) -> bool:
        """Whether every item counts the same and is a unit of its own."""
        return self.shares is None and self.strata is None and self.clusters is None

    def weights(self, n: int) -> Array:
        """Return the weight of each of n items in the score, (n,)."""
        return np.full(n, 1 / n) if self.shares is None else self.shares

    def of(self, rows: Array) -> "Shape":
        """Return the shape of some of the items; within each stratum they share its whole weight."""
        strata = None if self.strata is None else [self.strata[i] for i in rows]
        clusters = None if self.clusters is None else [self.clusters[i] for i in rows]
        return Shape(None if strata is None else even_shares(strata), strata, clusters)


EVEN = Shape()


def even_shares(strata: Sequence[str]) -> Array:
    """Return the items' shares where every stratum counts the same, whatever its size."""
    _, which, sizes = np.unique(np.asarray(strata, dtype=str), return_inverse=True, return_counts=True)
    return np.asarray(1 / (len(sizes) * sizes[which]), dtype=float)


def weighted_mean(values: Array, shape: Shape = EVEN) -> Array:
    """Return the score of item values along the first axis: of strata, the mean of their means (of ones, exactly 1)."""
    if shape.strata is not None:
        names = numbered(shape.strata)
        return np.asarray(np.mean([values[names == name].mean(axis=0) for name in range(names.max() + 1)], axis=0))
    return np.asarray(values.mean(axis=0) if shape.shares is None else shape.shares @ values)


def influences(values: Array, shape: Shape = EVEN) -> Array:
    """Return each independent unit's influence on the score; the sum of their squares is its variance over items.

    Shapes: values (n,) or (n, C) for C scores of the same items; the result (G,) or (G, C) for G clusters (or items).
    Deviations are from the mean of the stratum, with a correction for each mean that was estimated.
    """
    n = len(values)
    flat = np.ascontiguousarray(values.reshape(n, -1))
    if shape.even and n > 1:  # the same numbers as below, for the thousands of cells of a table
        return np.asarray((((flat - flat.mean(axis=0)) * math.sqrt(n / (n - 1))) * (1 / n)).reshape(values.shape))
    names = np.zeros(n, dtype=int) if shape.strata is None else numbered(shape.strata)
    deviations = np.empty_like(flat, dtype=float)
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        units = len(rows) if shape.clusters is None else len({shape.clusters[i] for i in rows})
        if units == 1:  # what one item is off by cannot be told: as far as from the middle of its range
            deviations[rows] = np.maximum(np.abs(flat[rows] - 0.5), 0.5) if len(np.unique(names)) > 1 else 0.0
            continue
        deviations[rows] = (flat[rows] - flat[rows].mean(axis=0)) * math.sqrt(units / (units - 1))
    parts = deviations * shape.weights(n)[:, None]
    if shape.clusters is not None:
        which = numbered(shape.clusters)
        summed = np.zeros((which.max() + 1, parts.shape[1]))
        np.add.at(summed, which, parts)
        parts = summed
    return np.asarray(parts.reshape(len(parts), *values.shape[1:]))


def numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each name among the different ones, sorted."""
    return _numbered(tuple(names))


@lru_cache(maxsize=64)  # the results of one item set share their names
def _numbered(names: tuple[str, ...]) -> NDArray[np.int64]:
    numbers = np.asarray(np.unique(np.asarray(names, dtype=str), return_inverse=True)[1], dtype=np.int64)
    numbers.flags.writeable = False
    return numbers


def units(n: int, shape: Shape = EVEN, values: Array | None = None) -> float:
    """Return how many independent items of equal weight a score is worth; its pseudo-items are counted in these.

    With clusters: the items divided by the design effect, which says how much the `values` within a cluster vary
    together (from 1 to the number of items a cluster). Without values, or where nothing varies, the number of clusters.
    """
    known = float(n) if shape.shares is None else float(1 / np.sum(shape.shares**2))
    if shape.clusters is None:
        return known
    most = n / len(set(shape.clusters))
    if values is None:
        return known / most
    shapes = (shape, replace(shape, clusters=None))
    together, alone = (float((influences(values, one) ** 2).sum()) for one in shapes)
    return known / (min(most, max(1.0, together / alone)) if alone > 0 else most)


AGRESTI = "Agresti-Coull"
BONETT = "Bonett-Price"


def mean(
    values: Array, shape: Shape = EVEN, *, others: Sequence[VarianceSource] = (), bias: float = 0.0, unscored: int = 0
) -> Estimate:
    """Return the score of item values (n,) with its interval. Values are 0 to 1: 0/1 scores, graded, expectations.

    Raises:
        ValueError: there are no values.
    """
    items = of_items(values, shape, others=others, bias=(bias, bias), unscored=unscored)
    return items.estimate(n=len(values), unscored=unscored)


def proportion(share: float, n: float) -> Estimate:
    """Return a share (0 to 1) of `n` items, which need not be whole, with its interval."""
    variance = share * (1 - share) / (n - 1) if n > 1 else 0.0
    return Mean(share, variance, n, how=AGRESTI).estimate()


def of_items(
    values: Array,
    shape: Shape = EVEN,
    *,
    signed: bool = False,
    others: Sequence[VarianceSource] = (),
    bias: tuple[float, float] = (0.0, 0.0),
    unscored: int = 0,
) -> Mean:
    """Return the `Mean` of item values (n,), or of differences of them (`signed`).

    Raises:
        ValueError: there are no values.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise ValueError("no item is scored")
    limits = (-1.0, 1.0) if signed else (0.0, 1.0)
    parts = influences(values, shape)
    value = float(weighted_mean(values, shape))
    how = _named(BONETT if signed else AGRESTI, shape, others, bias, unscored)
    inside = min(limits[1], max(limits[0], value))
    lost = unscored / (len(values) + unscored)
    own = max(0.0, float(parts @ parts) - sum(source.shared for source in others))
    freedom = math.inf if shape.clusters is None else max(1.0, len(parts) - 1.0)
    worth = units(len(values), shape, values)
    return Mean(inside, own, worth, limits, tuple(others), bias, lost, how, freedom)


def _named(how: str, shape: Shape, others: Sequence[VarianceSource], bias: tuple[float, float], unscored: int) -> str:
    parts = [how]
    if shape.clusters is not None:
        parts.append("problems as clusters")
    if any(math.isfinite(source.freedom) for source in others):
        parts.append(f"{1 + min(int(s.freedom) for s in others if math.isfinite(s.freedom))} masks or draws")
    if any(math.isinf(source.freedom) for source in others):
        parts.append("sampled mixtures")
    if max(bias) > 0:
        parts.append("bias bound")
    if unscored:
        parts.append("worst case of unscored items")
    return ", ".join(parts)


def deviation(values: Sequence[float] | Array) -> float | None:
    """Return the standard deviation between numbers as they are; None of fewer than two."""
    if len(values) < 2:
        return None
    return float(values.std(ddof=1)) if isinstance(values, np.ndarray) else statistics.stdev(values)


def central(values: Array) -> tuple[float, float, float]:
    """Return the 2.5, 50 and 97.5 % points of numbers."""
    low, middle, high = map(float, np.quantile(values, [0.025, 0.5, 0.975]))
    return low, middle, high
