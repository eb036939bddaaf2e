"""An objective to maximise (one benchmark, or several together), and what choosing a lambda for it is worth.

An objective is one benchmark's score along its curve, or several benchmarks': each relative to its better parent, and
then their mean or their minimum at each lambda, since a merged model is one model.

What is chosen on one random half of the items is scored on the other, both ways round (`cross_fitted`), so nothing is
chosen and scored on the same items. Choices are made anew on resampled items, no item in both halves (`again`): the
variance of these makes an interval, as of any other mean.

Candidates are lambdas (B, C), or shares of N experts (B, C, N).

Shapes: B repetitions, C candidates, M benchmarks, K nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import combinations

import numpy as np

from m3_exp.stats import family, joint
from m3_exp.stats.estimate import Array, Estimate, Mean, VarianceSource, central, deviation
from m3_exp.stats.expectation import ALPHAS, Evaluated, unsure
from m3_exp.stats.joint import Combine, Joint, Unit, errors_of, mean_of
from m3_exp.stats.paired import spread
from m3_exp.stats.resampling import weighted

_CHUNK = 500  # repetitions at a time
_CACHED = 64  # so many that a processor's cache holds their scores at all quantiles


@dataclass(frozen=True)
class Objective(Joint):
    """An objective to maximise. `parents[m]`: the item values of benchmark m's better parent; () for plain scores.

    All curves have the same nodes. Values are shares of the parent's score where there are parents, else 0 to 1.

    Raises:
        ValueError: different nodes, no parents for several benchmarks, or a parent that scores nothing.
    """

    name: str
    curves: tuple[Evaluated, ...]
    parents: tuple[Array, ...] = ()
    combine: Combine = "mean"

    def __post_init__(self) -> None:
        if any(not np.array_equal(curve.points, self.points) for curve in self.curves):
            raise ValueError("the benchmarks of one objective must have the same nodes")
        if len(self.parents) not in (0, len(self.curves)) or (len(self.curves) > 1 and not self.parents):
            raise ValueError("several benchmarks are comparable relative to their parents only: give one for each")
        if any(float(parent.mean()) == 0 for parent in self.parents):
            raise ValueError("a parent that scores 0 is no unit to measure by")

    @property
    def points(self) -> Array:
        """The nodes: lambdas (K,), or shares (K, N)."""
        return self.curves[0].points

    @property
    def measures(self) -> list[Unit]:
        parents = self.parents or (None,) * len(self.curves)
        return [Unit(len(c.ids), parent, c.shape) for c, parent in zip(self.curves, parents, strict=True)]

    def refined(self) -> "Objective":
        """Return the objective along the curves through all evaluated points (`Evaluated.refined`)."""
        curves = tuple(curve.refined() for curve in self.curves)
        return Objective(self.name, curves, self.parents, self.combine)

    def nodes(self, shares: Sequence[Array]) -> Array:
        """Return each benchmark's (relative) score at the nodes, shape (B, M, K).

        `shares[m]`: (B, n_m), the weight of each item in each repetition, rows summing to 1.
        """
        return self.scores_of([curve.values for curve in self.curves], shares)

    def score(self, nodes: Array, at: Array) -> Array:
        """Return the objective at candidates (B, C) given (B, M, K): interpolated, then combined; (B, C)."""
        return self.mixed(nodes, self.hats(at))

    def hats(self, at: Array) -> Array:
        """Return each node's share in the score at candidates (B, C) or (B, C, N), shape (B, C, K)."""
        return self.curves[0].hats(at.reshape(-1, *self.points.shape[1:])).reshape(*at.shape[:2], -1)

    def mixed(self, nodes: Array, shares: Array) -> Array:
        """Return the objective (B, C) given (B, M, K) and the nodes' shares in each candidate."""
        return self.combined(np.einsum("bck,bmk->bmc", shares, nodes))

    def expected_least(self, nodes: Array, alpha: float) -> Array:
        """Return E[minimum over benchmarks | alpha] in each repetition, (B,), by quantiles."""
        shares = self.curves[0].hats(self.curves[0].quantiles(alpha)).T
        rows = (nodes[start : start + _CACHED] for start in range(0, len(nodes), _CACHED))
        least = (reduce(np.minimum, (part[:, m] @ shares for m in range(part.shape[1]))) for part in rows)
        return np.concatenate([own.mean(axis=1) for own in least])

    def of(
        self,
        value: float,
        moved: Array,
        *,
        signed: bool = False,
        bias: float = 0.0,
        short: float = 0.0,
        others: Sequence[VarianceSource] = (),
        missing: float = 0.0,
    ) -> Estimate:
        """Return a number of this objective with an interval from its resampled values.

        Args:
            moved: the number on resampled items, (resamples,).
            signed: it is a difference.
            bias: how far it may be off, to either side.
            short: by how much a minimum may be too low by chance.
            others: its sources of variance besides items.
            missing: the largest share of items without a score.
        """
        below, above = (bias + short, bias + short) if signed else (bias, bias + short)
        variance = float(moved.var(ddof=1)) if len(moved) > 1 else 0.0
        number = joint.within(value, variance, self.measures, signed=signed)
        number = replace(number, others=tuple(others), bias=(below, above), missing=missing, how="resampled choices")
        return number.estimate(n=sum(unit.n for unit in self.measures))

    def in_units(self, sources: Sequence[Sequence[VarianceSource]]) -> list[list[VarianceSource]]:
        """Return each benchmark's sources of variance in the objective's unit."""
        return [unit.scaled(own) for own, unit in zip(sources, self.measures, strict=True)]

    def least_gain(
        self, mean: Mean, values: Sequence[Array], plains: Sequence[Array], others: Sequence[VarianceSource]
    ) -> Mean:
        """Return the difference of two models' minima, given that of their `mean` and item values (n_m,).

        Its variance is that of the benchmark with the largest one, and each minimum may be too low by chance.
        """
        value = float(self.score_of(values, self.whole)[0] - self.score_of(plains, self.whole)[0])
        differences = (a - b for a, b in zip(values, plains, strict=True))
        worst = max(float(np.sum(unit.errors(d) ** 2)) for d, unit in zip(differences, self.measures, strict=True))
        short = self.short()
        return Mean(value, worst, mean.n, mean.limits, tuple(others), (short, short), mean.missing, "least of several")

    def bends(self, at: Array) -> float:
        """Return by how much, on average over some points, the score may bend away from the refined curve."""
        parts = zip(self.curves, self.measures, strict=True)
        return float(np.mean([float(curve.bend_at(at).mean()) / unit.size for curve, unit in parts]))

    def short(self, parts: int = 1) -> float:
        """Return by how much a minimum may be too low by chance on 1 / `parts` of the items; 0 for a mean."""
        if self.combine == "mean":
            return 0.0
        middle = [curve.values[:, len(curve.points) // 2] for curve in self.curves]
        return joint.shortfall(self.measures, middle, parts)


@dataclass(frozen=True, eq=False)
class Resampled:
    """Weights of resampled items, `shares[m]` (B, n_m), and the scores under them at nodes `along` a refined curve."""

    along: Objective
    shares: Sequence[Array]

    @classmethod
    def of(cls, objective: Objective, count: int, generator: np.random.Generator) -> "Resampled":
        return cls(objective.refined(), objective.resampled(count, generator))

    @cached_property
    def nodes(self) -> Array:
        """The benchmarks' scores at the nodes, (B, M, K)."""
        return self.along.nodes(self.shares)


@dataclass(frozen=True)
class Played:
    """Repetitions of one protocol.

    `honest` (B,): the score on the items that did not choose. `claimed` (B,): the score on the items that chose.
    `kept` (2B,) or (2B, N): the point that each half chose.
    """

    honest: Array
    claimed: Array
    kept: Array

    @property
    def sd(self) -> float:
        """The spread between repetitions."""
        return deviation(self.honest) or 0.0

    @property
    def quantiles(self) -> tuple[float, float, float]:
        """The 2.5, 50 and 97.5 % points of the repetitions."""
        return central(self.honest)


@dataclass(frozen=True)
class Again:
    """A protocol's honest and claimed scores when all of its choices are made anew on resampled items, (resamples,)."""

    honest: Array
    claimed: Array


def cross_fitted(objective: Objective, candidates: Sequence[Array], generator: np.random.Generator) -> list[Played]:
    """Play several protocols on the same halvings."""
    parts: list[list[tuple[Array, Array, Array]]] = [[] for _ in candidates]
    on_all = objective.nodes(objective.whole)
    for start in range(0, len(candidates[0]), _CHUNK):
        rows = slice(start, start + _CHUNK)
        count = len(candidates[0][rows])
        first, second = objective.halves(count, generator)
        split = objective.nodes(first), objective.nodes(second)
        for played, at in zip(parts, candidates, strict=True):
            shares = objective.hats(at[rows])
            honest, kept = _honest(objective, split, at[rows], shares)
            claimed = objective.mixed(np.repeat(on_all, count, axis=0), shares).max(axis=1)
            played.append((honest, claimed, kept))
    return [Played(*map(np.concatenate, zip(*played, strict=True))) for played in parts]


def _honest(objective: Objective, split: tuple[Array, Array], at: Array, shares: Array) -> tuple[Array, Array]:
    """Return the score of each half's best on the other half, (B,), and the points that both halves chose, (2B, ...).

    `shares` are the nodes' in each candidate (`Objective.hats`).
    """
    scores = [objective.mixed(nodes, shares) for nodes in split]
    rows = np.arange(len(at))
    best = [np.argmax(by_half, axis=1) for by_half in scores]
    honest = (scores[1][rows, best[0]] + scores[0][rows, best[1]]) / 2
    kept = np.stack([at[rows, best[0]], at[rows, best[1]]], axis=1)
    return honest, kept.reshape(-1, *at.shape[2:])


def again(
    objective: Objective, sample: Sequence[Array], candidates: Sequence[Array], generator: np.random.Generator
) -> list[Again]:
    """Return each protocol's scores when all of its choices are made anew on resampled items.

    Distinct items are halved, so that an item drawn twice is never in both halves. Halvings and candidates are the same
    for every resample, so that the scores differ by the items alone.
    """
    count = len(candidates[0])
    masks = objective.halves(count, generator)
    shares = [objective.hats(at) for at in candidates]
    shapes = [curve.shape for curve in objective.curves]
    honest: list[list[float]] = [[] for _ in candidates]
    claimed: list[list[float]] = [[] for _ in candidates]
    for index in range(len(sample[0])):
        split = [
            objective.nodes(
                [weighted((mask > 0) * s[index], shape) for mask, s, shape in zip(half, sample, shapes, strict=True)]
            )
            for half in masks
        ]
        on_all = np.repeat(objective.nodes([s[index : index + 1] for s in sample]), count, axis=0)
        for number, (at, own) in enumerate(zip(candidates, shares, strict=True)):
            honest[number].append(float(_honest(objective, (split[0], split[1]), at, own)[0].mean()))
            claimed[number].append(float(objective.mixed(on_all, own).max(axis=1).mean()))
    return [Again(np.array(h), np.array(c)) for h, c in zip(honest, claimed, strict=True)]


def unbeaten(
    curves: Sequence[Evaluated], masks: Sequence[Sequence[Evaluated]], measures: Sequence[Unit], lost: float
) -> tuple[float, ...]:
    """Return the alphas among the seven of which one is the best with 95 %: those that no other significantly exceeds.

    Of the mean over benchmarks in their `measures`; `masks` are the curves of each one's DARE masks, `lost` the largest
    share of items without a score. Paired over items, adjusted (max-T) over the 21 pairs.
    """
    estimates: list[Estimate] = []
    errors: list[Array] = []
    pairs = list(combinations(ALPHAS, 2))
    at = [{alpha: curve.expected(alpha) for alpha in ALPHAS} for curve in curves]
    at_masks = [[{alpha: mask.expected(alpha) for alpha in ALPHAS} for mask in own] for own in masks]
    for first, second in pairs:
        differences = [one[first] - one[second] for one in at]
        between = [
            spread([one[first] - one[second] for one in own], curve.shape)
            for own, curve in zip(at_masks, curves, strict=True)
        ]
        others = [
            VarianceSource(source.variance / unit.size**2 / len(curves), source.freedom)  # they share their lambdas
            for curve, unit, own in zip(curves, measures, between, strict=True)
            for source in (*unsure(curve, {first: 1.0, second: -1.0}).sources, *own)
        ]
        estimates.append(mean_of(differences, measures, signed=True, others=others, unscored=lost).estimate())
        errors.append(errors_of(differences, measures))
    adjusted = family.max_t([1.0 if one.p is None else one.p for one in estimates], np.column_stack(errors))
    worse = {
        second if one.value > 0 else first
        for (first, second), one, p in zip(pairs, estimates, adjusted, strict=True)
        if p < family.LIMIT
    }
    return tuple(alpha for alpha in ALPHAS if alpha not in worse)
