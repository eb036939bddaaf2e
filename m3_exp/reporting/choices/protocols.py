"""Is random better than tuned? Ways to choose lambda, compared on response curves at equal cost and without flattery.

    plain      the method's own default: nothing is chosen
    E[alpha]   one draw from Beta(alpha, alpha), kept whatever it scores: the expectation
    replay     the paper's protocol: one draw for each of its seven alphas, keep the best
    tuned      a grid of as many fixed lambdas, keep the best
    selected   all nodes of the curve, keep the best: each was really merged and evaluated, nothing is interpolated
    developed  the node that is best on development items, scored on the test's: it was really evaluated on both

What is kept (except by `developed`, which needs none of it) is chosen on one random half of the items and scored on the
other, both ways round (cross-fitted), over many halvings, so nothing is chosen and scored on the same items. What doing
both on all items would have claimed stands beside it (`claimed`). Choices are made anew on resampled items, no item in
both halves: the variance of these is what an interval is made of, as of any other mean (`stats.estimate`), so it never
leaves the score's own range. Replay and tuned go along the curve through all real merges (nodes and sampled lambdas),
and what that may still bend in between is added to both ends. Minimum over benchmarks: what it falls short by chance is
added too, and both sides of a difference are scored on as many items. An objective is one benchmark, or several: each
relative to its better parent, and then their mean or minimum at each lambda, since a merged model is one model.

Shapes: B repetitions, C candidate lambdas, M benchmarks, K nodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import special

from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Response, aligned_to
from m3_exp.stats import joint
from m3_exp.stats.estimate import Array, Estimate, Mean, Source, units
from m3_exp.stats.family import max_t
from m3_exp.stats.joint import Unit
from m3_exp.stats.lambdas import ALPHAS, Curve, bend_at, hats, unsure
from m3_exp.stats.paired import paired, spread
from m3_exp.stats.resampling import halves, resampled, weighted, whole

ENOUGH = 10  # right items of a parent, for ratios to it to mean anything
_QUANTILES = 512  # of Beta(alpha, alpha), where an expectation has no closed form (the minimum)
_CHUNK = 500  # repetitions at a time
_AGAIN = 100  # times that the choices are made anew, on resampled items
_HALVINGS = 200  # of each of these

Combine = Literal["mean", "minimum"]


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
    combine: Combine = "mean"

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

    @property
    def measures(self) -> list[Unit]:
        parents = self.parents or (None,) * len(self.curves)
        return [Unit(len(c.ids), parent, c.shape) for c, parent in zip(self.curves, parents, strict=True)]

    @property
    def whole(self) -> list[Array]:
        """The items' own weights, (1, n_m) a benchmark."""
        return [whole(len(curve.ids), curve.shape) for curve in self.curves]

    def resampled(self, count: int, generator: np.random.Generator) -> list[Array]:
        return [resampled(len(curve.ids), count, generator, curve.shape) for curve in self.curves]

    def halves(self, count: int, generator: np.random.Generator) -> tuple[list[Array], list[Array]]:
        found = [halves(len(curve.ids), count, generator, curve.shape) for curve in self.curves]
        return [first for first, _ in found], [second for _, second in found]

    def refined(self) -> "Objective":
        """Return the objective along the curves through all real merges."""
        curves = tuple(curve.refined() for curve in self.curves)
        return Objective(self.name, curves, self.parents, self.combine)

    def nodes(self, shares: Sequence[Array]) -> Array:
        """Return each benchmark's (relative) score at the nodes, shape (B, M, K).

        `shares[m]`: (B, n_m), the weight of each item in each repetition, rows summing to 1.
        """
        tops = [share @ curve.values for share, curve in zip(shares, self.curves, strict=True)]
        units_ = self._units(shares)
        if self.parents:
            tops = [top / unit[:, None] for top, unit in zip(tops, units_, strict=True)]
        return np.stack(tops, axis=1)

    def _units(self, shares: Sequence[Array]) -> list[Array]:
        """Return the parents' scores in each repetition; where resampling leaves none, half an item."""
        return [np.maximum(share @ p, 0.5 / p.size) for share, p in zip(shares, self.parents, strict=False)]

    def relative(self, values: Sequence[Array], shares: Sequence[Array]) -> Array:
        """Return the objective of models that are no point of the curve, by item values per benchmark; shape (B,)."""
        found = [share @ value for share, value in zip(shares, values, strict=True)]
        if self.parents:
            found = [top / unit for top, unit in zip(found, self._units(shares), strict=True)]
        return self._combined(np.stack(found, axis=1))

    def score(self, nodes: Array, lams: Array) -> Array:
        """Return the objective at candidate lambdas (B, C) given (B, M, K): interpolated, then combined; (B, C)."""
        mixed = hats(self.lams, lams.ravel()).reshape(*lams.shape, -1)
        return self._combined(np.einsum("bck,bmk->bcm", mixed, nodes))

    def expected_least(self, nodes: Array, alpha: float) -> Array:
        """Return E[minimum over benchmarks | alpha] in each repetition, (B,), by quantiles."""
        middles = special.betaincinv(alpha, alpha, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
        at = hats(self.lams, middles)
        return np.asarray(np.min(np.einsum("ck,bmk->bcm", at, nodes), axis=2).mean(axis=1))

    def _combined(self, found: Array) -> Array:
        return np.asarray(found.mean(axis=-1) if self.combine == "mean" else found.min(axis=-1))

    def limits(self, *, signed: bool) -> tuple[float, float]:
        top = float(np.mean([1 / unit.size for unit in self.measures]))
        return (-top if signed else 0.0, top)

    def of(
        self,
        value: float,
        moved: Array,
        *,
        signed: bool = False,
        bias: float = 0.0,
        short: float = 0.0,
        others: Sequence[Source] = (),
        missing: float = 0.0,
    ) -> Estimate:
        """Return a number of this objective with an interval from its resampled values.

        `bias`: what it may be off by to either side; `short`: by how much a minimum may fall short; `others`: what it
        is unsure of besides items; `missing`: the largest share of items without a score.
        """
        worth = 1 / sum(1 / (len(self.curves) ** 2 * units(unit.n, unit.shape)) for unit in self.measures)
        below, above = (bias + short, bias + short) if signed else (bias, bias + short)
        limits = self.limits(signed=signed)
        inside = min(limits[1], max(limits[0], float(value)))
        variance = float(moved.var(ddof=1)) if len(moved) > 1 else 0.0
        found = Mean(inside, variance, worth, limits, tuple(others), (below, above), missing, "resampled choices")
        return found.estimate(n=sum(unit.n for unit in self.measures))

    def bends(self, lams: Array) -> float:
        """Return by how much, on average over some lambdas, the score may bend away from the refined curve."""
        found = [
            float(bend_at(curve, lams).mean()) / unit.size
            for curve, unit in zip(self.curves, self.measures, strict=True)
        ]
        return float(np.mean(found))

    def short(self, parts: int = 1) -> float:
        """Return by how much a minimum may fall short by chance on 1 / `parts` of the items; 0 of a mean."""
        if self.combine == "mean":
            return 0.0
        middle = [curve.values[:, len(curve.lams) // 2] for curve in self.curves]
        return joint.shortfall(self.measures, middle, parts)


@dataclass(frozen=True)
class Choice:
    """What a way of choosing gives: honestly (on items that did not choose), and as claimed on the choosing items.

    `sd` is the spread between repetitions of the protocol, `quantiles` its 2.5, 50 and 97.5 % points; `kept` the
    lambdas that were kept, one a repetition and direction; `claims` what each repetition would claim.
    """

    honest: Estimate
    claimed: Estimate
    sd: float
    quantiles: tuple[float, float, float]
    kept: Array
    claims: Array = field(default_factory=lambda: np.empty(0), repr=False)


@dataclass(frozen=True)
class Developed:
    """The node that development items chose, on the test's items, and its contrasts to other ways of choosing."""

    lam: float
    score: Estimate
    minus_replay: Estimate
    minus_plain: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """All ways of choosing on one objective. `contrast` is replay - tuned, paired by item and halving.

    `gains` are E[alpha] - plain with their adjusted p-values (one benchmark: those of `expectations`); `holds_best` the
    alphas of which one is the best with 95 %, None where the curves can carry no such claim.
    """

    objective: str
    plain: Estimate | None
    expected: Mapping[float, Estimate]
    replay: Choice
    tuned: Choice
    selected: Choice
    contrast: Estimate
    gains: Mapping[float, expectations.Compared] = field(default_factory=dict)
    holds_best: tuple[float, ...] | None = None
    developed: Developed | None = None


def compare(
    responses: Sequence[Response],
    objective: Objective,
    *,
    chosen: float | None = None,
    alphas: Sequence[float] = ALPHAS,
    repeats: int = 10_000,
    resamples: int = 1_000,
    seed: int = 0,
) -> Comparison:
    """Compare the ways of choosing lambda on the benchmarks of an objective; `chosen`: the node by development items.

    The tuned grid has as many lambdas as there are alphas, so both cost the same number of merges.
    """
    generator = np.random.default_rng(seed)
    draws = np.column_stack([generator.beta(alpha, alpha, repeats) for alpha in alphas])
    grid = np.tile(np.linspace(0, 1, len(alphas)), (repeats, 1))
    nodes_too = np.tile(objective.lams, (repeats, 1))
    candidates = [draws, grid, nodes_too, *([] if chosen is None else [np.full((repeats, 1), chosen)])]
    along = objective.refined()
    sample = objective.resampled(resamples, generator)
    played = _cross_fitted(along, candidates, generator)
    again = _again(along, [s[:_AGAIN] for s in sample], [lams[:_HALVINGS] for lams in candidates], generator)
    bends = [objective.bends(draws[:_HALVINGS].ravel()), objective.bends(grid[0]), 0.0]
    lost = _lost(responses)
    choices = [_choice(along, *one, lost) for one in zip(played[:3], again[:3], bends, strict=True)]
    difference = float(played[0].honest.mean() - played[1].honest.mean())
    plains = plains_of(responses, objective)
    return Comparison(
        objective=objective.name,
        plain=_plain(responses, objective, plains),
        expected={alpha: expected(responses, objective, sample, alpha) for alpha in alphas},
        replay=choices[0], tuned=choices[1], selected=choices[2],
        contrast=along.of(
            difference, again[0].honest - again[1].honest, signed=True, bias=bends[0] + bends[1], short=along.short(2),
            missing=lost,
        ),
        gains=_gains(responses, objective, sample, alphas),
        holds_best=_holds_best(responses, objective),
        developed=None if chosen is None else _developed(responses, objective, chosen, played, again, bends[0]),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ models and expectations


@dataclass(frozen=True)
class Band:
    """An objective along lambda with its interval, in its unit: (L,) each."""

    lams: Array
    value: Array
    low: Array
    high: Array


def band(responses: Sequence[Response], objective: Objective, lams: Array) -> Band:
    """Return what a model at each lambda scores, with its interval: at the nodes that of a real model."""
    one = _alone(responses, objective)
    if one is not None:
        found = [expectations.at(one, float(lam)) for lam in lams]
    else:
        found = [_of_models(responses, objective, _models_at(responses, objective, float(lam))) for lam in lams]
    value, low, high = (np.array([getattr(one, name) for one in found]) for name in ("value", "low", "high"))
    return Band(lams, value, low, high)


def plains_of(responses: Sequence[Response], objective: Objective) -> list[Array] | None:
    """Return plain's item values a benchmark; None where one has none of some item."""
    found = [
        None if r.plain is None else aligned_to(r.plain, c.ids)
        for r, c in zip(responses, objective.curves, strict=True)
    ]
    known = [values for values in found if values is not None]
    return known if len(known) == len(found) else None


@dataclass(frozen=True)
class _Models:
    """One model on each benchmark: item values (n_m,), and what a benchmark's DARE masks leave open (None: none)."""

    values: Sequence[Array]
    masks: Sequence[Source | None]


def _models_at(responses: Sequence[Response], objective: Objective, lam: float) -> _Models:
    masks = [spread(np.column_stack([m.items_at(lam) for m in r.masks]), r.curve.shape) for r in responses]
    return _Models([curve.items_at(lam) for curve in objective.curves], masks)


def _plain_models(responses: Sequence[Response], plains: Sequence[Array]) -> _Models:
    masks = []
    for response in responses:
        found = [v for one in response.plains.values() if (v := aligned_to(one, response.curve.ids)) is not None]
        masks.append(spread(np.column_stack(found), response.curve.shape) if found else None)
    return _Models(plains, masks)


def _of_models(responses: Sequence[Response], objective: Objective, models: _Models) -> Estimate:
    """Return what one model scores."""
    others = _in_units(objective, [[] if one is None else [one] for one in models.masks])
    lost = [r.unscored / (r.unscored + len(r.curve.ids)) for r in responses]
    if objective.combine == "minimum":
        return joint.least_of(models.values, objective.measures, others, lost)
    together = joint.together(others)
    found = joint.mean_of(models.values, objective.measures, others=together, unscored=max(lost))
    return found.estimate(n=sum(map(len, models.values)))


def _in_units(objective: Objective, sources: Sequence[Sequence[Source]]) -> list[list[Source]]:
    """Return each benchmark's sources of variance relative to its parent."""
    return [
        [Source(source.variance / unit.size**2, source.freedom) for source in own]
        for own, unit in zip(sources, objective.measures, strict=True)
    ]


def _plain(responses: Sequence[Response], objective: Objective, plains: Sequence[Array] | None) -> Estimate | None:
    """Return what plain scores: on one benchmark as everywhere."""
    if (one := _alone(responses, objective)) is not None:
        return expectations.plain(one)
    return None if plains is None else _of_models(responses, objective, _plain_models(responses, plains))


def _alone(responses: Sequence[Response], objective: Objective) -> Response | None:
    """Return the response of an objective that is one benchmark's plain score."""
    return responses[0] if len(responses) == 1 and not objective.parents else None


def expected(responses: Sequence[Response], objective: Objective, sample: Sequence[Array], alpha: float) -> Estimate:
    if (one := _alone(responses, objective)) is not None:
        return expectations.expected(one, alpha)
    if objective.combine == "minimum":
        return _expected_least(responses, objective, sample, alpha)
    values = [curve.expected(alpha) for curve in objective.curves]
    others, bias = _unsure(responses, objective, {alpha: 1.0})
    lost = _lost(responses)
    found = joint.mean_of(values, objective.measures, others=others, bias=bias, unscored=lost)
    return found.estimate(n=sum(map(len, values)))


def _lost(responses: Sequence[Response]) -> float:
    return max(r.unscored / (r.unscored + len(r.curve.ids)) for r in responses)


def _expected_least(
    responses: Sequence[Response], objective: Objective, sample: Sequence[Array], alpha: float
) -> Estimate:
    along = objective.refined()
    value = float(along.expected_least(along.nodes(objective.whole), alpha)[0])
    moved = along.expected_least(along.nodes(sample), alpha)
    at = special.betaincinv(alpha, alpha, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    masks = [spread(np.column_stack([m.expected(alpha) for m in r.masks]), r.curve.shape) for r in responses]
    return along.of(
        value, moved, bias=objective.bends(at), short=objective.short(),
        others=_masks_of_least(objective, masks), missing=_lost(responses),
    )  # fmt: skip


def _unsure(
    responses: Sequence[Response], objective: Objective, alphas: Mapping[float, float], *, minus_plain: bool = False
) -> tuple[list[Source], float]:
    """Return what a mean over benchmarks of expectations (less plain's score) is unsure of besides items, in its unit.

    Benchmarks share the lambdas (and masks): their errors from these count as if they were all of one sign.
    """
    sources: list[list[Source]] = []
    bias = 0.0
    for response, unit in zip(responses, objective.measures, strict=True):
        found = unsure(response.curve, alphas)
        masks = np.column_stack([sum(f * m.expected(a) for a, f in alphas.items()) for m in response.masks])
        between = spread(masks, response.curve.shape)
        if minus_plain and response.mask_seeds:
            between = expectations.masks_of_difference(response, *alphas)
        sources.append([*found.sources, *([] if between is None else [between])])
        bias += found.bias / unit.size / len(responses)
    return joint.together(_in_units(objective, sources)), bias


def _gains(
    responses: Sequence[Response], objective: Objective, sample: Sequence[Array], alphas: Sequence[float]
) -> dict[float, expectations.Compared]:
    """Return E[alpha] - plain: of one benchmark as everywhere, of their mean or minimum in a family of its own."""
    if _alone(responses, objective) is not None:
        return {}  # `advice.study` fills them in: their family is that of all benchmarks
    plains = plains_of(responses, objective)
    if plains is None:
        return {}
    why = next((text for r in responses if (text := expectations.unclaimed(r, alphas[0]))), "")
    found: list[Estimate] = []
    errors: list[Array] = []
    for alpha in alphas:
        differences = [c.expected(alpha) - plain for c, plain in zip(objective.curves, plains, strict=True)]
        errors.append(joint.errors_of(differences, objective.measures))
        if objective.combine == "minimum":
            found.append(_least_gain(responses, objective, plains, sample, alpha))
        else:
            others, bias = _unsure(responses, objective, {alpha: 1.0}, minus_plain=True)
            lost = _lost(responses)
            one_ = joint.mean_of(differences, objective.measures, signed=True, others=others, bias=bias, unscored=lost)
            found.append(one_.estimate(n=sum(map(len, plains))))
    adjusted = max_t([one.p or 0.0 for one in found], np.column_stack(errors))
    return {
        alpha: expectations.Compared(one, p, len(alphas), why)
        for alpha, one, p in zip(alphas, found, adjusted, strict=True)
    }


def _least_gain(
    responses: Sequence[Response], objective: Objective, plains: Sequence[Array], sample: Sequence[Array], alpha: float
) -> Estimate:
    along = objective.refined()
    here, there = (
        along.expected_least(along.nodes(s), alpha) - objective.relative(plains, s) for s in (objective.whole, sample)
    )
    at = special.betaincinv(alpha, alpha, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    return along.of(
        float(here[0]), there, signed=True, bias=objective.bends(at), short=objective.short(),
        others=_masks_of_least(objective, [expectations.masks_of_difference(r, alpha) for r in responses]),
        missing=_lost(responses),
    )  # fmt: skip


def _masks_of_least(objective: Objective, masks: Sequence[Source | None]) -> list[Source]:
    """Return what masks leave open of a minimum: no more than of the benchmark where they leave most."""
    sources = _in_units(objective, [[] if one is None else [one] for one in masks])
    return [max((source for own in sources for source in own), key=lambda one: one.variance)] if any(sources) else []


def _holds_best(responses: Sequence[Response], objective: Objective) -> tuple[float, ...] | None:
    if objective.combine == "minimum":
        return None
    return expectations.best_alphas(responses, objective.measures)


def _developed(
    responses: Sequence[Response],
    objective: Objective,
    lam: float,
    played: Sequence["_Played"],
    again: Sequence["_Again"],
    bend: float,
) -> Developed:
    """Contrast the chosen node with the others: with the replay on as many items, half of them at a time."""
    models, one = _models_at(responses, objective, lam), _alone(responses, objective)
    plains = plains_of(responses, objective)
    difference = float(played[3].honest.mean() - played[0].honest.mean())
    moved = again[3].honest - again[0].honest
    return Developed(
        lam=lam,
        score=_of_models(responses, objective, models) if one is None else expectations.at(one, lam),
        minus_replay=objective.of(
            difference, moved, signed=True, bias=bend, short=objective.short(2), missing=_lost(responses)
        ),
        minus_plain=None if plains is None else _model_gain(responses, objective, lam, models.values, plains),
    )


def _model_gain(
    responses: Sequence[Response], objective: Objective, lam: float, values: Sequence[Array], plains: Sequence[Array]
) -> Estimate:
    """Return what one model scores above plain."""
    masks = [_masks_of_gain(response, lam) for response in responses]
    if _alone(responses, objective) is not None:
        others, lost = [one for one in masks if one is not None], responses[0].unscored
        return paired(values[0], plains[0], objective.curves[0].shape, others=others, unscored=lost)
    differences = [a - b for a, b in zip(values, plains, strict=True)]
    together = joint.together(_in_units(objective, [[] if one is None else [one] for one in masks]))
    lost_share = _lost(responses)
    found = joint.mean_of(differences, objective.measures, signed=True, others=together, unscored=lost_share)
    if objective.combine == "mean":
        return found.estimate(n=sum(map(len, values)))
    value = float(objective.relative(values, objective.whole)[0] - objective.relative(plains, objective.whole)[0])
    worst = max(float(np.sum(unit.errors(d) ** 2)) for d, unit in zip(differences, objective.measures, strict=True))
    short = objective.short()
    wide = Mean(
        value, worst, found.n, found.limits, tuple(_masks_of_least(objective, masks)), (short, short), lost_share,
        "least of several",
    )  # fmt: skip
    return wide.estimate(n=sum(map(len, values)))


def _masks_of_gain(response: Response, lam: float) -> Source | None:
    """Return what DARE masks leave open of a model at one lambda, less plain, by the masks that both have."""
    found = [
        mask.items_at(lam) - plain
        for seed, mask in zip(response.mask_seeds, response.masks, strict=False)
        if seed in response.plains and (plain := aligned_to(response.plains[seed], response.curve.ids)) is not None
    ]
    return spread(np.column_stack(found), response.curve.shape) if found else None


# ------------------------------------------------------------------------------------------------- ways of choosing


@dataclass(frozen=True)
class _Played:
    """Repetitions of one protocol: honest and claimed scores (B,), and what was kept in both directions (2B,)."""

    honest: Array
    claimed: Array
    kept: Array


@dataclass(frozen=True)
class _Again:
    """A protocol's honest and claimed scores when all of its choices are made anew on resampled items, (resamples,)."""

    honest: Array
    claimed: Array


def _cross_fitted(objective: Objective, candidates: Sequence[Array], generator: np.random.Generator) -> list[_Played]:
    """Play several protocols on the same halvings."""
    parts: list[list[tuple[Array, Array, Array]]] = [[] for _ in candidates]
    on_all = objective.nodes(objective.whole)
    for start in range(0, len(candidates[0]), _CHUNK):
        rows = slice(start, start + _CHUNK)
        count = len(candidates[0][rows])
        first, second = objective.halves(count, generator)
        split = objective.nodes(first), objective.nodes(second)
        for played, lams in zip(parts, candidates, strict=True):
            honest, kept = _honest(objective, split, lams[rows])
            claimed = objective.score(np.repeat(on_all, count, axis=0), lams[rows]).max(axis=1)
            played.append((honest, claimed, kept))
    return [
        _Played(*(np.concatenate([part[i] for part in played]) for i in range(3)))  # type: ignore[misc]
        for played in parts
    ]


def _honest(objective: Objective, split: tuple[Array, Array], lams: Array) -> tuple[Array, Array]:
    """Return what each half's best scores on the other half, (B,), and what was kept in both directions, (2B,)."""
    scores = [objective.score(nodes, lams) for nodes in split]
    rows = np.arange(len(lams))
    best = [np.argmax(found, axis=1) for found in scores]
    honest = (scores[1][rows, best[0]] + scores[0][rows, best[1]]) / 2
    return honest, np.column_stack([lams[rows, best[0]], lams[rows, best[1]]]).ravel()


def _again(
    objective: Objective, sample: Sequence[Array], candidates: Sequence[Array], generator: np.random.Generator
) -> list[_Again]:
    """Return each protocol's scores when all of its choices are made anew on resampled items.

    Distinct items are halved, so that an item drawn twice is never in both halves. Halvings and candidates are the same
    for every resample: what differs between these scores is then the items' doing.
    """
    count = len(candidates[0])
    masks = objective.halves(count, generator)
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
        for number, lams in enumerate(candidates):
            honest[number].append(float(_honest(objective, (split[0], split[1]), lams)[0].mean()))
            claimed[number].append(float(objective.score(on_all, lams).max(axis=1).mean()))
    return [_Again(np.array(h), np.array(c)) for h, c in zip(honest, claimed, strict=True)]


def _choice(objective: Objective, played: _Played, again: _Again, bend: float, lost: float) -> Choice:
    low, middle, high = np.quantile(played.honest, [0.025, 0.5, 0.975])
    return Choice(
        honest=objective.of(
            float(played.honest.mean()), again.honest, bias=bend, short=objective.short(2), missing=lost
        ),
        claimed=objective.of(
            float(played.claimed.mean()), again.claimed, bias=bend, short=objective.short(), missing=lost
        ),
        sd=float(played.honest.std(ddof=1)),
        quantiles=(float(low), float(middle), float(high)),
        kept=played.kept,
        claims=played.claimed,
    )
