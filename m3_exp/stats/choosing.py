"""Choosing one of several candidates (alphas, lambdas, draws, hyper-parameters), and what the chosen one is worth.

    crossfit   choose on one random half of each benchmark's items, score on the other, both ways round, many halvings:
               needs no other items, and says how often each candidate is chosen
    dev        choose on development items (`items=dev`), score on all test items
    test       choose and score on the test items, as the paper did: flattered, and stamped with the price

A merged model is one model, so it is chosen for the mean over its benchmarks, each relative to the better of the
parents that are evaluated on it, where every benchmark has one. Each item is scored only by choices made without it: it
counts as y_i = sum_c w_ic y_ic, where w_ic is the share of halvings with item i in the scoring half in which candidate
c was chosen (with dev and test it is 1 for the one that was chosen). Scores are means of these numbers. If one
candidate is always chosen, the interval is that of this model. If the choice changes with the halving, all choices are
made anew on resampled items, and the variance of the results makes the interval.

Both halves of the items, and development items, share the DARE masks and, for alpha, the sampled lambdas. A candidate
that is lucky with these scores well on both halves. So the lower end is lowered by the most that such luck gives
(`_luck`).

Shapes: m masks (1 without DARE), n items, C candidates, B resamples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np

from m3_exp.stats.estimate import (
    EVEN,
    Array,
    Estimate,
    Mean,
    Shape,
    VarianceSource,
    influences,
    of_items,
    weighted_mean,
)
from m3_exp.stats.expectation import ALPHAS, Evaluated, unsure
from m3_exp.stats.family import best_of
from m3_exp.stats.joint import Joint, Unit, mean_of, together
from m3_exp.stats.paired import paired, spread
from m3_exp.stats.resampling import weighted

How = Literal["crossfit", "dev", "test"]
HOW: tuple[How, ...] = ("crossfit", "dev", "test")

HALVINGS = 1_000
_RESAMPLES = 2_000
_AGAIN = 100  # times that all choices are made anew, on resampled items
_HALVINGS = 200  # of each of these


Weights = Sequence[Array]  # of the items of each benchmark, (B, n) with rows that sum to 1


@dataclass(frozen=True)
class Scores:
    """All candidates on one benchmark: an item's value `under` each DARE mask (m, n, C), the `default`'s (m, n).

    `parent` (n,) are the better parent's items; None: plain scores. `curve`: that of which the values are expectations,
    a column for each of `ALPHAS`. `unscored` items are left out, since some model has no score on them. `beside`: the
    default's sources of variance besides items and masks, if it is no single model.
    """

    under: Array
    default: Array | None = None
    parent: Array | None = None
    shape: Shape = EVEN
    curve: Evaluated | None = None
    unscored: int = 0
    beside: tuple[VarianceSource, ...] = ()

    @cached_property
    def values(self) -> Array:
        """The candidates' values, (n, C)."""
        return np.asarray(self.under.mean(axis=0))

    @cached_property
    def base(self) -> Array:
        """The default's values, (n,)."""
        assert self.default is not None
        return np.asarray(self.default.mean(axis=0))

    @property
    def size(self) -> int:
        return int(self.under.shape[1])

    @property
    def unit(self) -> Unit:
        return Unit(self.size, self.parent, self.shape)

    def items(self, mix: Array) -> Array:
        """Return each item's score y_i under a mix of candidates, given its weights w (n, C)."""
        return np.asarray(np.einsum("nc,nc->n", self.values, mix))

    def sources(self, mix: Array, *, signed: bool = False) -> list[VarianceSource]:
        """Return the sources of variance, besides items, of a mix's score or (`signed`) of its gain on the default."""
        masks = np.einsum("mnc,nc->nm", self.under, mix)
        if signed and self.default is not None:
            masks = masks - self.default.T
        found = [*spread(list(masks.T), self.shape), *(self.beside if signed else ())]
        if self.curve is not None:
            shares = dict(zip(ALPHAS, map(float, weighted_mean(mix, self.shape)), strict=True))
            found += unsure(self.curve, {alpha: share for alpha, share in shares.items() if share}).sources
        return found

    def alone(self, candidate: Array) -> Array:
        """Return the mix in which every item has the same weights (C,)."""
        return np.tile(candidate, (self.size, 1))


@dataclass(frozen=True)
class Candidates(Joint):
    """What there is to choose from, on each benchmark.

    Either all benchmarks have a parent to be measured by, or none; without one plain scores count. Likewise all have a
    default, or none.
    """

    names: tuple[str, ...]
    scores: Mapping[str, Scores]

    @property
    def each(self) -> tuple[Scores, ...]:
        return tuple(self.scores.values())

    @property
    def measures(self) -> list[Unit]:
        return [one.unit for one in self.each]

    @property
    def relative(self) -> bool:
        return self.each[0].parent is not None

    def objective(self, weights: Weights) -> Array:
        """Return the mean over benchmarks of each candidate, (B, C)."""
        return self.score_of([one.values for one in self.each], weights)


def alike(names: Sequence[str], scores: Mapping[str, Scores]) -> Candidates:
    """Return candidates of which all benchmarks have a parent to be measured by, or none, and a default, or none."""
    if any(one.parent is None for one in scores.values()):
        scores = {b: replace(one, parent=None) for b, one in scores.items()}
    if any(one.default is None for one in scores.values()):
        scores = {b: replace(one, default=None) for b, one in scores.items()}
    return Candidates(tuple(names), scores)


@dataclass(frozen=True)
class Price:
    """What choosing the best of C on the test items gains by chance: best_of(C) x se x sqrt(1 - rho)."""

    points: float
    best: float
    se: float
    rho: float

    def __str__(self) -> str:
        return f"{100 * self.points:.1f} = {self.best:.2f} x {100 * self.se:.1f} x sqrt(1 - {self.rho:.2f})"


@dataclass(frozen=True)
class Chosen:
    """The outcome of a choice.

    Attributes:
        shares: how often each candidate is chosen, over halvings or resampled items; the most frequent first.
        score: the mean over benchmarks of what was chosen.
        benchmarks: its score on each.
        gain: the mean over benchmarks of its difference from the default.
        gains: that difference on each.
        claimed: the score that choosing and scoring on all test items would have reported.
        price: how much of `claimed` is luck.
    """

    shares: Mapping[str, float]
    score: Estimate
    benchmarks: Mapping[str, Estimate]
    gain: Estimate | None
    gains: Mapping[str, Estimate]
    claimed: float
    price: Price

    @property
    def name(self) -> str:
        return next(iter(self.shares))


# ---------------------------------------------------------------------------------------------- candidates -> choice


def choose(
    candidates: Candidates,
    how: How,
    *,
    dev: Candidates | None = None,
    halvings: int = HALVINGS,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Chosen:
    """Choose one of the candidates and score what was chosen on the test items; `dev`: the same on development items.

    Raises:
        ValueError: `how="dev"` without results on development items.
    """
    generator = np.random.default_rng(seed)
    if how == "crossfit":
        played = _played(candidates, _members(candidates, halvings, generator), candidates.whole)
        best = int(np.argmax(played.counts))
    else:
        chooser = candidates if how == "test" else dev
        if chooser is None:
            raise ValueError("there are no results on development items")
        played, best = _best(chooser, candidates, resamples, generator)
    alternates = how == "crossfit" and played.counts[best] < 1
    moved = _again(candidates, min(halvings, _HALVINGS), min(resamples, _AGAIN), generator) if alternates else None
    others = (c for c in np.argsort(-played.counts, kind="stable") if c != best and played.counts[c] > 0)
    shares = {candidates.names[c]: float(played.counts[c]) for c in (best, *others)}
    return _outcome(candidates, played.mixes, moved, shares)


@dataclass(frozen=True)
class _Played:
    """How often each candidate is chosen: without a given item's help, (n, C) a benchmark, and altogether, (C,)."""

    mixes: tuple[Array, ...]
    counts: Array


def _members(candidates: Candidates, count: int, generator: np.random.Generator) -> tuple[list[Array], list[Array]]:
    """Return which items are in random halves of each benchmark (1, else 0), and in the others, (count, n) each."""
    first, second = ([(half > 0).astype(float) for half in side] for side in candidates.halves(count, generator))
    return first, second


def _played(candidates: Candidates, halved: tuple[Weights, Weights], sample: Weights) -> _Played:
    """Choose on each half of a sample (one weight an item); an item drawn twice is in one half only."""
    count = len(candidates.names)
    picked = []
    for half in halved:
        parts = zip(half, sample, candidates.each, strict=True)
        mine = [weighted(h * s, one.shape) for h, s, one in parts]
        picked.append(np.eye(count)[np.argmax(candidates.objective(mine), axis=1)])
    mixes = [a.T @ picked[1] + b.T @ picked[0] for a, b in zip(*halved, strict=True)]
    return _Played(
        tuple(mix / mix.sum(axis=1, keepdims=True) for mix in mixes),
        np.asarray((picked[0] + picked[1]).mean(axis=0) / 2),
    )


def _best(
    chooser: Candidates, candidates: Candidates, resamples: int, generator: np.random.Generator
) -> tuple[_Played, int]:
    """Return the choice of the candidate that is best on the chooser's items, and that candidate's number.

    The counts say how often each is best over resampled items.
    """
    at = [candidates.names.index(name) for name in chooser.names]
    best = at[int(np.argmax(chooser.objective(chooser.whole)[0]))]
    again = np.argmax(chooser.objective(chooser.resampled(resamples, generator)), axis=1)
    counts = np.bincount(np.array(at)[again], minlength=len(candidates.names)) / resamples
    alone = np.eye(len(candidates.names))[best]
    return _Played(tuple(one.alone(alone) for one in candidates.each), counts), best


@dataclass(frozen=True)
class _Moved:
    """Scores of what is chosen anew on resampled items, of the default, and of the parents: (B, benchmarks) each."""

    chosen: Array
    default: Array | None
    units: Array

    def variance(self, at: int | None, *, signed: bool) -> float:
        """Return the variance of a benchmark's score or gain, or (None) of the mean over benchmarks in their units."""
        moved = self.chosen - self.default if signed and self.default is not None else self.chosen
        return float((np.mean(moved / self.units, axis=1) if at is None else moved[:, at]).var(ddof=1))


def _again(candidates: Candidates, halvings: int, resamples: int, generator: np.random.Generator) -> _Moved:
    """Make all choices anew on resampled items; the halvings are the same for every resample."""
    sample, halved = candidates.resampled(resamples, generator), _members(candidates, halvings, generator)
    each = candidates.each
    chosen = []
    for index in range(resamples):
        mine = [s[index : index + 1] for s in sample]
        mixes = _played(candidates, halved, mine).mixes
        chosen.append([float(s[0] @ one.items(mix)) for s, one, mix in zip(mine, each, mixes, strict=True)])
    compared = each[0].default is not None
    default = [s @ one.base for s, one in zip(sample, each, strict=True)] if compared else None
    units = [one.unit.sizes(s) for s, one in zip(sample, each, strict=True)]
    return _Moved(np.array(chosen), None if default is None else np.column_stack(default), np.column_stack(units))


def _outcome(
    candidates: Candidates, mixes: Sequence[Array], moved: _Moved | None, shares: Mapping[str, float]
) -> Chosen:
    """Score what was chosen. `moved`: the choices made anew on resampled items, if the choice changes with halvings."""
    each, names = candidates.each, list(candidates.scores)
    luck = [_luck([one]) * one.unit.size for one in each]
    both = luck[0] / each[0].unit.size if len(each) == 1 else _luck(each)
    gains: dict[str, Estimate] = {}
    if each[0].default is not None:
        gains = {b: _number(each[k], mixes[k], moved, k, luck[k], signed=True) for k, b in enumerate(names)}
    benchmarks = {b: _number(each[k], mixes[k], moved, k, luck[k]) for k, b in enumerate(names)}
    alone = names[0] if len(names) == 1 and not candidates.relative else None
    score = benchmarks[alone] if alone else _joint(candidates, mixes, moved, both, signed=False)
    gain = None
    if gains:
        gain = gains[alone] if alone else _joint(candidates, mixes, moved, both, signed=True)
    claimed = float(candidates.objective(candidates.whole)[0].max())
    return Chosen(shares, score, benchmarks, gain, gains, claimed, price(candidates))


def _number(one: Scores, mix: Array, moved: _Moved | None, at: int, luck: float, *, signed: bool = False) -> Estimate:
    """Return what was chosen scores on one benchmark, or (`signed`) gains on the default, paired by item and mask."""
    others, bias, values = one.sources(mix, signed=signed), (luck, 0.0), one.items(mix)
    if signed and moved is None:
        return paired(values, one.base, one.shape, others=others, bias=bias, unscored=one.unscored)
    values = values - one.base if signed else values
    found = of_items(values, one.shape, signed=signed, others=others, bias=bias, unscored=one.unscored)
    known = found if moved is None else _alternating(found, moved.variance(at, signed=signed))
    return known.estimate(n=one.size, unscored=one.unscored)


def _joint(
    candidates: Candidates, mixes: Sequence[Array], moved: _Moved | None, luck: float, *, signed: bool
) -> Estimate:
    """Return the mean over benchmarks of what was chosen, or (`signed`) its difference from the default."""
    each = candidates.each
    values = [one.items(mix) - one.base if signed else one.items(mix) for one, mix in zip(each, mixes, strict=True)]
    lost = max(one.unscored / (one.unscored + one.size) for one in each)
    others = _together(each, mixes, signed=signed)
    mean_score = mean_of(values, [one.unit for one in each], signed=signed, others=others, unscored=lost)
    mean_score = replace(mean_score, bias=(luck, 0.0))
    known = mean_score if moved is None else _alternating(mean_score, moved.variance(None, signed=signed))
    return known.estimate(n=sum(one.size for one in each), unscored=sum(one.unscored for one in each))


def _alternating(mean: Mean, variance: float) -> Mean:
    return replace(mean, items=variance, how=f"{mean.how}, choices made anew on resampled items")


def _together(each: Sequence[Scores], mixes: Sequence[Array], *, signed: bool = False) -> list[VarianceSource]:
    """Return the sources of variance of a mean over benchmarks besides items, in its unit.

    Benchmarks share the lambdas and masks, so their errors from these are added as if all had the same sign.
    """
    parts = zip(each, mixes, strict=True)
    return together([one.unit.scaled(one.sources(mix, signed=signed)) for one, mix in parts])


def _luck(each: Sequence[Scores]) -> float:
    """Return by how much the best of equally good candidates looks better by luck with the shared lambdas and masks.

    An upper bound: the expected maximum of independent errors with the largest variance that a difference of two
    candidates has (Sudakov and Fernique). It is in units of the parents.
    """
    if all(one.curve is None and len(one.under) < 2 for one in each):
        return 0.0
    count = each[0].under.shape[2]
    largest = 0.0
    for first, second in combinations(np.eye(count), 2):
        sources = _together(each, [one.alone(first - second) for one in each])
        largest = max(largest, sum(source.variance for source in sources))
    return best_of(count) * math.sqrt(largest / 2)


def price(candidates: Candidates) -> Price:
    """Return what picking the best candidate on the test items gains by chance alone, in the objective's unit.

    For one benchmark this is best_of(candidates) x SE x sqrt(1 - rho); for several, the candidates' covariance is that
    of the mean over benchmarks, the parents' scores taken as they are.
    """
    count, each = len(candidates.names), candidates.each
    parts = [influences(one.values, one.shape) / one.unit.size / len(each) for one in each]
    covariance = np.sum([part.T @ part for part in parts], axis=0)
    own = float(np.mean(np.diag(covariance)))
    shared = float((covariance.sum() - np.trace(covariance)) / max(1, count * (count - 1)))
    best = best_of(count)
    rho = shared / own if own > 0 else 1.0
    return Price(best * math.sqrt(max(0.0, own - shared)), best, math.sqrt(own), rho)
