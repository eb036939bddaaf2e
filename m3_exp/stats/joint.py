"""Several benchmarks as one number: each relative to its better parent, then their mean or their minimum.

A merged model is one model, so it is chosen and judged by all of its benchmarks together. With v a model's items on a
benchmark and q the parent's, r = mean v / mean q is the model's share of the parent. The error of r is that of the mean
of (v - r q) / mean q over the same items (the delta method).

One rule says what a parent may be a unit of (`usable`): the better of those that are evaluated, where it is right on
`ENOUGH` items. Mean and minimum are of the benchmarks that have such a parent, and the others are named. A choice is
for all benchmarks that were asked for: where one of them has no such parent, plain scores count for all.

The minimum of several estimates lies below the minimum of what they estimate, since the unluckiest one is taken. So the
truth may lie above it, by as much as the least of that many equal scores would fall short (`shortfall`). The ends of
its interval are those of all benchmarks at once (Bonferroni): the least lower end and the least upper end hold the
least true value (the intersection bounds of Chernozhukov, Lee and Rosen 2013 without their selection).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

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
    units,
    weighted_mean,
)
from m3_exp.stats.family import best_of
from m3_exp.stats.resampling import halves, resampled, whole

ENOUGH = 10  # right items of a parent, for ratios to it to mean anything
Combine = Literal["mean", "minimum"]


class Better(NamedTuple):
    """The better of a benchmark's parents, with its item values (n,)."""

    name: str
    values: Array


def better_of(known: Mapping[str, Array], ids: Sequence[str], shape: Shape = EVEN) -> Better:
    """Return the higher of several models, each half's (by the items' hashes) picked on the other half.

    So the better one's score is not flattered by having been picked on the items it is read from. Where the halves
    disagree, so does the name (`lm/math`).
    """
    keys = ids if shape.clusters is None else shape.clusters
    first = np.array([hashlib.sha256(key.encode()).digest()[0] < 128 for key in keys])
    names = list(known)
    shares = shape.weights(len(ids))
    higher = np.empty(len(ids))
    picked: list[str] = []
    filled = [half for half in (first, ~first) if half.any()]
    for here in filled:
        there = ~here if len(filled) > 1 else here
        picked.append(max(names, key=lambda name: float(shares[there] @ known[name][there])))
        higher[here] = known[picked[-1]][here]
    return Better("/".join(dict.fromkeys(picked)), higher)


def usable(better: Better | None) -> Array | None:
    """Return a parent's item values, to measure a benchmark by; None if it is right on fewer than `ENOUGH` items."""
    return None if better is None or float(better.values.sum()) < ENOUGH else better.values


@dataclass(frozen=True)
class Unit:
    """The unit of one benchmark's scores: the item values of its better parent, None for plain scores."""

    n: int
    parent: Array | None = None
    shape: Shape = EVEN

    @property
    def size(self) -> float:
        """The parent's score; half an item where it has none."""
        if self.parent is None:
            return 1.0
        return max(float(weighted_mean(self.parent, self.shape)), 0.5 / self.n)

    def scaled(self, sources: Sequence[VarianceSource]) -> list[VarianceSource]:
        """Return the items' sources of variance in this unit."""
        return [VarianceSource(source.variance / self.size**2, source.freedom) for source in sources]

    def ratio(self, values: Array) -> float:
        """Return the model's share of the parent, corrected for the bias of a ratio of two means."""
        plain = self._plain(values)
        if self.parent is None:
            return plain
        errors, below = influences(plain * self.parent - values, self.shape), influences(self.parent, self.shape)
        return plain - float(errors @ below) / self.size**2

    def _plain(self, values: Array) -> float:
        return float(weighted_mean(values, self.shape)) / self.size

    def errors(self, values: Array) -> Array:
        """Return each independent item's influence on the ratio."""
        residual = values if self.parent is None else values - self._plain(values) * self.parent
        return influences(residual, self.shape) / self.size

    def sizes(self, shares: Array) -> Array:
        """Return the parent's score under several weights of the items (B, n), (B,); half an item where it has none."""
        return np.ones(len(shares)) if self.parent is None else np.maximum(shares @ self.parent, 0.5 / self.n)


class Joint:
    """Benchmarks put together as one number: the one place where that is done for what is chosen, shown and drawn.

    `measures` are their units; `combine` says whether their mean or their minimum counts.
    """

    combine: Combine = "mean"

    @property
    def measures(self) -> list[Unit]:
        raise NotImplementedError

    @property
    def whole(self) -> list[Array]:
        """The items' own weights, (1, n_m) a benchmark."""
        return [whole(unit.n, unit.shape) for unit in self.measures]

    def resampled(self, count: int, generator: np.random.Generator) -> list[Array]:
        return [resampled(unit.n, count, generator, unit.shape) for unit in self.measures]

    def halves(self, count: int, generator: np.random.Generator) -> tuple[list[Array], list[Array]]:
        pairs = [halves(unit.n, count, generator, unit.shape) for unit in self.measures]
        return [first for first, _ in pairs], [second for _, second in pairs]

    def scores_of(self, values: Sequence[Array], shares: Sequence[Array]) -> Array:
        """Return each benchmark's score in its unit, (B, M, ...), of item values (n_m, ...) under weights (B, n_m)."""
        parts = zip(self.measures, values, shares, strict=True)
        sized = [(share @ own, unit.sizes(share)) for unit, own, share in parts]
        return np.stack([own / size.reshape(-1, *[1] * (own.ndim - 1)) for own, size in sized], axis=1)

    def score_of(self, values: Sequence[Array], shares: Sequence[Array]) -> Array:
        """Return the objective, (B, ...), of item values (n_m, ...) under weights (B, n_m)."""
        return self.combined(self.scores_of(values, shares))

    def combined(self, scores: Array) -> Array:
        """Return the objective of the benchmarks' scores (B, M, ...)."""
        return np.asarray(scores.mean(axis=1) if self.combine == "mean" else scores.min(axis=1))


def mean_of(
    values: Sequence[Array],
    measures: Sequence[Unit],
    *,
    signed: bool = False,
    others: Sequence[VarianceSource] = (),
    bias: float = 0.0,
    unscored: float = 0.0,
) -> Mean:
    """Return the mean over benchmarks of scores (or differences of them, `signed`) relative to the parents.

    `values`: an array (n_b,) of item values for each benchmark. `others` and `bias` are in the unit of the result.
    `unscored`: the largest share of items without a score.
    """
    value = float(np.mean([unit.ratio(v) for v, unit in zip(values, measures, strict=True)]))
    errors = errors_of(values, measures)
    how = "relative to the better parent, delta method" if measures[0].parent is not None else "delta method"
    joined = within(value, float(errors @ errors), measures, signed=signed)
    return replace(joined, others=tuple(others), bias=(bias, bias), missing=unscored, how=how)


def within(value: float, variance: float, measures: Sequence[Unit], *, signed: bool) -> Mean:
    """Return a mean over benchmarks as a `Mean`, with its limits and the number of items that it is worth."""
    top = float(np.mean([1 / unit.size for unit in measures]))
    low = -top if signed else 0.0
    worth = 1 / sum(1 / (len(measures) ** 2 * units(unit.n, unit.shape)) for unit in measures)
    return Mean(min(top, max(low, value)), variance, worth, (low, top))


def errors_of(values: Sequence[Array], measures: Sequence[Unit]) -> Array:
    """Return each independent item's influence on the mean over benchmarks, one benchmark after the other."""
    return np.concatenate([unit.errors(v) / len(values) for v, unit in zip(values, measures, strict=True)])


def least_of(
    values: Sequence[Array],
    measures: Sequence[Unit],
    others: Sequence[Sequence[VarianceSource]] | None = None,
    unscored: Sequence[float] | None = None,
) -> Estimate:
    """Return the minimum over benchmarks of a model's scores relative to the parents, with an interval that holds it.

    `others` and `unscored` are as for `mean_of`, one entry a benchmark.
    """
    given = zip(values, measures, others or [()] * len(values), unscored or [0.0] * len(values), strict=True)
    each = [mean_of([v], [unit], others=more, unscored=lost) for v, unit, more, lost in given]
    ends = [one.ends(1 - (1 - LEVEL) / len(each)) for one in each]
    low, high = min(low for low, _ in ends), min(high for _, high in ends)
    value = min(one.value for one in each)
    error = max(one.standard_error() for one in each)
    return Estimate(value, low, high, min(unit.n for unit in measures), "least of several, Bonferroni", se=error)


def together(sources: Sequence[Sequence[VarianceSource]]) -> list[VarianceSource]:
    """Return the sources of a mean over benchmarks from those of each one, as if all their errors had one sign."""
    deviations: dict[float, float] = {}
    for source in (source for own in sources for source in own):
        share = math.sqrt(source.variance) / len(sources)
        deviations[source.freedom] = deviations.get(source.freedom, 0.0) + share
    return [VarianceSource(total**2, freedom) for freedom, total in deviations.items()]


def shortfall(measures: Sequence[Unit], values: Sequence[Array], parts: int = 1) -> float:
    """Return by how much the minimum over benchmarks may be too low by chance, measured on 1 / `parts` of the items."""
    largest = max(float(np.sum(unit.errors(v) ** 2)) for v, unit in zip(values, measures, strict=True))
    return best_of(len(values)) * math.sqrt(parts * largest)
