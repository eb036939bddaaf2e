"""Is random better than tuned? Ways to choose lambda, compared on response curves at equal cost and without flattery.

    plain      the method's own default: nothing is chosen
    E[alpha]   one draw from Beta(alpha, alpha), kept whatever it scores: the expectation
    replay     the paper's protocol: one draw for each of its seven alphas, keep the best
    tuned      a grid of as many fixed lambdas, keep the best
    selected   all nodes of the curve, keep the best: each was really merged and evaluated, nothing is interpolated
    developed  the node that is best on development items, scored on the test's: it was really evaluated on both

What is kept (except by `developed`, which needs none of it) is chosen on one random half of the items and scored on
the other, both ways round (cross-fitted), over many halvings, so nothing is chosen and scored on the same items. What
doing both on all items would have claimed stands beside it (`claimed`). Intervals hold the choice's own uncertainty:
choices are made anew on resampled items, no item in both halves. An objective is one benchmark, or several: each
relative to its better parent, and then their mean or minimum at each lambda, since a merged model is one model.

Shapes: B repetitions, C candidate lambdas, M benchmarks, K nodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from m3_exp.reporting import stats
from m3_exp.reporting.response import Array, Curve, hats, weights

ALPHAS = (0.2, 0.4, 0.5, 1.0, 2.0, 3.0, 5.0)  # the paper's
ENOUGH = 10  # right items of a parent, for ratios to it to mean anything
_QUANTILES = 512  # of Beta(alpha, alpha), where an expectation has no closed form (the minimum)
_CHUNK = 500  # repetitions at a time
_AGAIN = 100  # times that the choices are made anew, on resampled items
_HALVINGS = 200  # of each of these


@dataclass(frozen=True)
class Objective:
    """What is to be made large. `parents[m]`: the item values of benchmark m's better parent, or () for plain scores.

    All curves have the same nodes. Values are shares of the parent's score where there are parents, else 0 to 1.

    Raises:
        ValueError: different nodes, no parents for several benchmarks, or a parent that scores nothing.
    """

    name: str
    curves: tuple[Curve, ...]
    parents: tuple[Array, ...] = ()
    combine: Literal["mean", "minimum"] = "mean"

    def __post_init__(self) -> None:
        if any(not np.array_equal(curve.lams, self.lams) for curve in self.curves):
            raise ValueError("the benchmarks of one objective must have the same nodes")
        if len(self.parents) not in (0, len(self.curves)) or (len(self.curves) > 1 and not self.parents):
            raise ValueError("several benchmarks are comparable relative to their parents only: give one for each")
        if any(float(parent.mean()) == 0 for parent in self.parents):
            raise ValueError("a parent that scores 0 is no unit to measure by")

    @property
    def lams(self) -> Array:
        return self.curves[0].lams

    def nodes(self, shares: Sequence[Array]) -> Array:
        """Return each benchmark's (relative) score at the nodes, shape (B, M, K).

        `shares[m]`: (B, n_m), the weight of each item in each repetition, rows summing to 1.
        """
        tops = [share @ curve.values for share, curve in zip(shares, self.curves, strict=True)]
        units = self._units(shares)
        if self.parents:
            tops = [top / unit[:, None] for top, unit in zip(tops, units, strict=True)]
        return np.stack(tops, axis=1)

    def _units(self, shares: Sequence[Array]) -> list[Array]:
        """Return the parents' scores in each repetition; where resampling leaves none, half an item."""
        return [np.maximum(share @ p, 0.5 / p.size) for share, p in zip(shares, self.parents, strict=False)]

    def relative(self, values: Sequence[Array], shares: Sequence[Array]) -> Array:
        """Return the objective of models that are no point of the curve, by item values per benchmark; shape (B,)."""
        found = [share @ value for share, value in zip(shares, values, strict=True)]
        if self.parents:
            units = self._units(shares)
            found = [top / unit for top, unit in zip(found, units, strict=True)]
        return self._combined(np.stack(found, axis=1))

    def score(self, nodes: Array, lams: Array) -> Array:
        """Return the objective at candidate lambdas (B, C) given (B, M, K): interpolated, then combined; (B, C)."""
        mixed = hats(self.lams, lams.ravel()).reshape(*lams.shape, -1)
        return self._combined(np.einsum("bck,bmk->bcm", mixed, nodes))

    def expected(self, nodes: Array, alpha: float) -> Array:
        """Return E[objective | alpha] in each repetition, (B,): in closed form for a mean, by quantiles else."""
        if self.combine == "mean":
            return np.asarray(nodes.mean(axis=1) @ weights(self.lams, alpha))
        middles = special.betaincinv(alpha, alpha, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
        at = hats(self.lams, middles)
        return np.asarray(np.min(np.einsum("ck,bmk->bcm", at, nodes), axis=2).mean(axis=1))

    def _combined(self, found: Array) -> Array:
        return np.asarray(found.mean(axis=-1) if self.combine == "mean" else found.min(axis=-1))


@dataclass(frozen=True)
class Figure:
    """One number with its 95 % interval over items, in the objective's unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Gain(Figure):
    """A paired difference: its resampled interval, and the two-sided p-value of no difference (normal, unadjusted).

    Of one model on one benchmark, and where few items differ: interval and p-value of `stats.paired`.
    """

    p: float

    @property
    def sign(self) -> str:
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not told apart"


@dataclass(frozen=True)
class Choice:
    """What a way of choosing gives: honestly (on items that did not choose), and as claimed on the choosing items.

    `sd` is the spread between repetitions of the protocol, `quantiles` its 2.5, 50 and 97.5 % points; `kept` the
    lambdas that were kept, one a repetition and direction; `claims` what each repetition would claim.
    """

    honest: Figure
    claimed: float
    sd: float
    quantiles: tuple[float, float, float]
    kept: Array
    claims: Array = field(default_factory=lambda: np.empty(0), repr=False)


@dataclass(frozen=True)
class Developed:
    """The node that development items chose, on the test's items, and its contrasts to other ways of choosing."""

    lam: float
    score: Figure
    minus_replay: Gain
    minus_plain: Gain | None


@dataclass(frozen=True)
class Comparison:
    """All ways of choosing on one objective. `contrast` is replay - tuned, paired by item and halving.

    `gains` are E[alpha] - plain; `unbeaten` the alphas whose expectation no other's exceeds for sure (Holm over all
    pairs of them): not chosen by score, so nothing is contrasted with a best that the same items picked.
    """

    objective: str
    plain: Figure | None
    expected: Mapping[float, Figure]
    replay: Choice
    tuned: Choice
    selected: Choice
    contrast: Figure
    best_alpha: Mapping[float, float]  # how often each alpha is the best of the seven over resampled items
    gains: Mapping[float, Gain] = field(default_factory=dict)
    unbeaten: tuple[float, ...] = ()
    developed: Developed | None = None


def compare(
    objective: Objective,
    plain: Sequence[Array] | None = None,
    *,
    chosen: float | None = None,
    alphas: Sequence[float] = ALPHAS,
    repeats: int = 10_000,
    resamples: int = 1_000,
    seed: int = 0,
) -> Comparison:
    """Compare the ways of choosing lambda. `plain`: item values of the method's default, per benchmark; `chosen`: the
    node that development items chose.

    The tuned grid has as many lambdas as there are alphas, so both cost the same number of merges.
    """
    generator = np.random.default_rng(seed)
    draws = np.column_stack([generator.beta(alpha, alpha, repeats) for alpha in alphas])
    grid = np.tile(np.linspace(0, 1, len(alphas)), (repeats, 1))
    sample = [resampled(len(curve.ids), resamples, generator) for curve in objective.curves]
    whole = [np.full((1, len(curve.ids)), 1 / len(curve.ids)) for curve in objective.curves]
    nodes, moved_nodes = objective.nodes(whole), objective.nodes(sample)
    values = np.array([objective.expected(nodes, alpha)[0] for alpha in alphas])
    moved = np.column_stack([objective.expected(moved_nodes, alpha) for alpha in alphas])
    nodes_too = np.tile(objective.lams, (repeats, 1))
    replayed, tuned, selected = _cross_fitted(objective, [draws, grid, nodes_too], generator)
    few = [shares[:_AGAIN] for shares in sample]
    again = _again(objective, few, [lams[:_HALVINGS] for lams in (draws, grid, nodes_too)], generator)
    difference = float(replayed.honest.mean() - tuned.honest.mean())
    base = None if plain is None else _Sampled(objective.relative(plain, whole)[0], objective.relative(plain, sample))
    held = _Sampled(float(replayed.honest.mean()), again[0])
    return Comparison(
        objective=objective.name,
        plain=None if base is None else figure(*base),
        expected={alpha: figure(values[i], moved[:, i]) for i, alpha in enumerate(alphas)},
        replay=_choice(replayed, again[0]),
        tuned=_choice(tuned, again[1]),
        selected=_choice(selected, again[2]),
        contrast=normal(difference, again[0] - again[1]),
        best_alpha=_shares(moved, alphas),
        gains={}
        if base is None
        else {
            alpha: _alone(
                gain(values[i] - base.value, moved[:, i] - base.moved),
                _differences(objective, [curve.expected(alpha) for curve in objective.curves], plain),
            )
            for i, alpha in enumerate(alphas)
        },
        unbeaten=tuple(alphas[i] for i in unbeaten(values, moved)),
        developed=None if chosen is None else _developed(objective, chosen, nodes, moved_nodes, base, held, plain),
    )


class _Sampled(NamedTuple):
    """A number of one model or protocol, and the same over resampled items (the same for all of them)."""

    value: float
    moved: Array


def _developed(
    objective: Objective,
    lam: float,
    nodes: Array,
    moved_nodes: Array,
    plain: _Sampled | None,
    replay: _Sampled,
    plains: Sequence[Array] | None,
) -> Developed:
    value = float(objective.score(nodes, np.array([[lam]]))[0, 0])
    moved = objective.score(moved_nodes, np.full((len(moved_nodes), 1), lam))[:, 0]
    return Developed(
        lam=lam,
        score=figure(value, moved),
        minus_replay=normal(value - replay.value, moved[: len(replay.moved)] - replay.moved),
        minus_plain=None
        if plain is None
        else _alone(
            gain(value - plain.value, moved - plain.moved),
            _differences(objective, [curve.items_at(lam) for curve in objective.curves], plains),
        ),
    )


def _differences(objective: Objective, values: Sequence[Array], plain: Sequence[Array] | None) -> Array | None:
    """Return the items' differences to plain where their mean is the objective's: one benchmark, plain scores."""
    return values[0] - plain[0] if plain is not None and len(values) == 1 and not objective.parents else None


def _alone(found: Gain, d: Array | None) -> Gain:
    """Return a gain by the items' differences `d` where these are -1, 0 or 1, or too few to be resampled."""
    return found if d is None else by_items(d, found)


def by_items(d: Array, otherwise: Gain) -> Gain:
    """Return the mean of one benchmark's differences as `stats.paired` has it, unless it would resample it as well."""
    d = np.where(np.abs(d) > 1e-9, d, 0.0)
    if not (stats.few(d) or bool(np.isin(d, (-1.0, 0.0, 1.0)).all())):
        return otherwise
    exact = stats.paired(np.maximum(d, 0.0), np.maximum(-d, 0.0))
    return Gain(otherwise.value, exact.low, exact.high, exact.p)


def unbeaten(values: Array, moved: Array) -> list[int]:
    """Return the columns that no other one exceeds at 5 % after Holm's adjustment over all pairs.

    `values` (C,): one score a column; `moved` (B, C): the same over resampled items.
    """
    pairs = list(combinations(range(len(values)), 2))
    adjusted = stats.holm([gain(values[i] - values[j], moved[:, i] - moved[:, j]).p for i, j in pairs])
    found = [(i, j) if values[i] < values[j] else (j, i) for (i, j), p in zip(pairs, adjusted, strict=True) if p < 0.05]
    beaten = {loser for loser, _ in found}
    return [column for column in range(len(values)) if column not in beaten]


@dataclass(frozen=True)
class _Played:
    """Repetitions of one protocol: honest and claimed scores (B,), and what was kept in both directions (2B,)."""

    honest: Array
    claimed: Array
    kept: Array


def _cross_fitted(objective: Objective, candidates: Sequence[Array], generator: np.random.Generator) -> list[_Played]:
    """Play several protocols on the same halvings."""
    parts: list[list[tuple[Array, Array, Array]]] = [[] for _ in candidates]
    for start in range(0, len(candidates[0]), _CHUNK):
        rows = slice(start, start + _CHUNK)
        count = len(candidates[0][rows])
        first, second = halves([len(curve.ids) for curve in objective.curves], count, generator)
        split = objective.nodes(first), objective.nodes(second)
        whole = objective.nodes([(a + b) / 2 for a, b in zip(first, second, strict=True)])
        for played, lams in zip(parts, candidates, strict=True):
            played.append(_play(objective, split, whole, lams[rows]))
    return [
        _Played(*(np.concatenate([part[i] for part in played]) for i in range(3)))  # type: ignore[misc]
        for played in parts
    ]


def _play(objective: Objective, split: tuple[Array, Array], whole: Array, lams: Array) -> tuple[Array, Array, Array]:
    honest, kept = _honest(objective, split, lams)
    return honest, objective.score(whole, lams).max(axis=1), kept


def _honest(objective: Objective, split: tuple[Array, Array], lams: Array) -> tuple[Array, Array]:
    """Return what each half's best scores on the other half, (B,), and what was kept in both directions, (2B,)."""
    scores = [objective.score(nodes, lams) for nodes in split]
    rows = np.arange(len(lams))
    best = [np.argmax(found, axis=1) for found in scores]
    honest = (scores[1][rows, best[0]] + scores[0][rows, best[1]]) / 2
    return honest, np.column_stack([lams[rows, best[0]], lams[rows, best[1]]]).ravel()


def halves(sizes: Sequence[int], count: int, generator: np.random.Generator) -> tuple[list[Array], list[Array]]:
    """Return the item weights of random halves, (count, n_m) each, and those of the other halves."""
    first, second = [], []
    for n in sizes:
        chosen = np.argsort(generator.random((count, n)), axis=1) < n // 2
        first.append(chosen / max(1, n // 2))
        second.append(~chosen / max(1, n - n // 2))
    return first, second


def resampled(n: int, count: int, generator: np.random.Generator) -> Array:
    """Return the item weights of resampled items (with replacement), (count, n), rows summing to 1."""
    return np.asarray(generator.multinomial(n, np.full(n, 1 / n), size=count) / n)


def _again(
    objective: Objective, sample: Sequence[Array], candidates: Sequence[Array], generator: np.random.Generator
) -> list[Array]:
    """Return each protocol's honest score when all of its choices are made anew on resampled items: (resamples,) each.

    Distinct items are halved, so that an item drawn twice is never in both halves. Halvings and candidates are the same
    for every resample: what differs between these scores is then the items' doing.
    """
    masks = halves([shares.shape[1] for shares in sample], len(candidates[0]), generator)
    found: list[list[float]] = [[] for _ in candidates]
    for index in range(len(sample[0])):
        split = [
            objective.nodes([_weighted(mask, shares[index]) for mask, shares in zip(half, sample, strict=True)])
            for half in masks
        ]
        for scores, lams in zip(found, candidates, strict=True):
            scores.append(float(_honest(objective, (split[0], split[1]), lams)[0].mean()))
    return [np.array(scores) for scores in found]


def _weighted(mask: Array, share: Array) -> Array:
    """Return the weights of one half of resampled items, (B, n), rows summing to 1; of all where it is empty."""
    weighed = mask * share
    total = weighed.sum(axis=1, keepdims=True)
    return np.where(total > 0, weighed / np.where(total > 0, total, 1), share)


def _choice(played: _Played, again: Array) -> Choice:
    honest = float(played.honest.mean())
    low, middle, high = np.quantile(played.honest, [0.025, 0.5, 0.975])
    return Choice(
        honest=normal(honest, again),
        claimed=float(played.claimed.mean()),
        sd=float(played.honest.std(ddof=1)),
        quantiles=(float(low), float(middle), float(high)),
        kept=played.kept,
        claims=played.claimed,
    )


def figure(value: float, moved: Array) -> Figure:
    """Return a value with the percentile interval of its resampled values."""
    low, high = np.quantile(moved, [0.025, 0.975])
    return Figure(float(value), float(min(low, value)), float(max(high, value)))


def around(value: float, moved: Array) -> Figure:
    """Return a value with an interval of the width that resampling has, wherever its centre lies."""
    low, high = np.quantile(moved - moved.mean(), [0.025, 0.975])
    return Figure(float(value), float(value + low), float(value + high))


def normal(value: float, moved: Array) -> Gain:
    """Return a value with a normal interval and p-value by the spread of a few resampled values."""
    spread = float(moved.std(ddof=1))
    p = float(abs(value) < 1e-12) if spread < 1e-12 else 2 * float(special.ndtr(-abs(value) / spread))
    half = float(special.ndtri(0.5 + stats.LEVEL / 2)) * spread
    return Gain(float(value), float(value) - half, float(value) + half, min(1.0, p))


def gain(value: float, moved: Array) -> Gain:
    """Return a paired difference with its interval around it and the p-value of none, by its resampled values."""
    spread = float(moved.std(ddof=1))
    if spread < 1e-12:  # the same on every item, but for rounding
        return Gain(*(3 * (round(float(value), 12) + 0.0,)), p=float(abs(value) < 1e-12))
    p = 2 * float(special.ndtr(-abs(value) / spread))
    return Gain(**vars(around(float(value), moved)), p=min(1.0, p))


def _shares(moved: Array, alphas: Sequence[float]) -> dict[float, float]:
    best = moved >= moved.max(axis=1, keepdims=True) - 1e-12  # equals share, but for rounding
    shares = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return {alpha: float(share) for alpha, share in zip(alphas, shares, strict=True)}
