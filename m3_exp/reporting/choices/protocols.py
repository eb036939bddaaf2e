"""Is random better than tuned? Ways to choose lambda, compared on response curves at equal cost and without flattery.

    plain      the method's own default: nothing is chosen
    E[alpha]   one draw from Beta(alpha, alpha), kept whatever it scores: the expectation
    replay     the paper's protocol: one draw for each of its seven alphas, keep the best
    tuned      a grid of as many fixed lambdas, keep the best
    selected   all nodes of the curve, keep the best: each was merged and evaluated, nothing is interpolated
    developed  the node that is best on development items, scored on the test's: it was evaluated on both

What is kept is chosen on one random half of the items and scored on the other, both ways round (cross-fitted), over
many halvings, so nothing is chosen and scored on the same items. (`developed` needs no halves.) `claimed` is the score
that choosing and scoring on all items would have reported.

Intervals: choices are made anew on resampled items, no item in both halves. The variance of the results makes an
interval as for any other mean (`stats.estimate`), so it never leaves the score's own range. Replay and tuned go along
the refined curve (through nodes and sampled lambdas); how far it may still bend in between is added to both ends. For a
minimum over benchmarks, what it may be too low by chance is added as well, and both sides of a difference are scored on
as many items.

An objective is one benchmark, or several: each relative to its better parent, and then their mean or minimum at each
lambda, since a merged model is one model.

Shapes: B repetitions, C candidate lambdas, M benchmarks, K nodes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Response, aligned_to
from m3_exp.stats import joint
from m3_exp.stats.estimate import Array, Estimate, VarianceSource
from m3_exp.stats.expectation import ALPHAS, Evaluated, unsure
from m3_exp.stats.family import max_t
from m3_exp.stats.objective import Again, Objective, Played, Resampled, again, cross_fitted
from m3_exp.stats.paired import paired, spread

_AGAIN = 100  # times that the choices are made anew, on resampled items
_HALVINGS = 200  # of each of these


@dataclass(frozen=True)
class Choice:
    """What a way of choosing gives.

    `honest`: the score on items that did not choose. `claimed`: the score on the items that chose. `sd`: the standard
    deviation between repetitions of the protocol; `quantiles`: their 2.5, 50 and 97.5 % points. `kept`: the lambdas
    (shares, of three experts and more) that were kept, two a repetition (one for each half).
    """

    honest: Estimate
    claimed: Estimate
    sd: float
    quantiles: tuple[float, float, float]
    kept: Array


@dataclass(frozen=True)
class Developed:
    """The node that development items chose: its score on the test items, and its differences from other ways."""

    lam: float | Array
    score: Estimate
    minus_replay: Estimate
    minus_plain: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """All ways of choosing on one objective. `contrast` is replay - tuned, paired by item and halving.

    `gains`: E[alpha] - plain with adjusted p-values; for one benchmark those of `expectations`. `holds_best`: a set of
    alphas that holds the best one with 95 % confidence; None if the curves cannot carry such a claim.
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
    chosen: float | Array | None = None,
    alphas: Sequence[float] = ALPHAS,
    repeats: int = 10_000,
    resamples: int = 1_000,
    seed: int = 0,
) -> Comparison:
    """Compare the ways of choosing lambda on the benchmarks of an objective; `chosen`: the node by development items.

    The tuned grid has as many lambdas as there are alphas, so both cost the same number of merges.
    """
    generator = np.random.default_rng(seed)
    on = objective.curves[0]
    draws = np.stack([on.drawn(alpha, repeats, generator) for alpha in alphas], axis=1)
    fixed = [on.fixed(len(alphas)), on.points, *([] if chosen is None else [np.array([chosen])])]
    candidates = [draws, *(np.repeat(points[None], repeats, axis=0) for points in fixed)]
    sample = Resampled.of(objective, resamples, generator)
    along = sample.along
    played = cross_fitted(along, candidates, generator)
    moved = again(along, [s[:_AGAIN] for s in sample.shares], [points[:_HALVINGS] for points in candidates], generator)
    bends = [objective.bends(draws[:_HALVINGS].reshape(-1, *on.points.shape[1:])), objective.bends(fixed[0]), 0.0]
    lost = _lost(responses)
    choices = [_choice(along, *one, lost) for one in zip(played[:3], moved[:3], bends, strict=True)]
    difference = float(played[0].honest.mean() - played[1].honest.mean())
    plains = plains_of(responses, objective)
    return Comparison(
        objective=objective.name,
        plain=_plain(responses, objective, plains),
        expected={alpha: expected(responses, objective, sample, alpha) for alpha in alphas},
        replay=choices[0], tuned=choices[1], selected=choices[2],
        contrast=along.of(
            difference, moved[0].honest - moved[1].honest, signed=True, bias=bends[0] + bends[1], short=along.short(2),
            missing=lost,
        ),
        gains=_gains(responses, objective, sample, alphas),
        holds_best=None if objective.combine == "minimum" else expectations.best_alphas(responses, objective.measures),
        developed=None if chosen is None else _developed(responses, objective, chosen, played, moved, bends[0]),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ models and expectations


def plains_of(responses: Sequence[Response], objective: Objective) -> list[Array] | None:
    """Return plain's item values for each benchmark; None if plain has no value of some item."""
    plains = [
        None if r.plain is None else aligned_to(r.plain, c.ids)
        for r, c in zip(responses, objective.curves, strict=True)
    ]
    known = [values for values in plains if values is not None]
    return known if len(known) == len(plains) else None


def _masks(responses: Sequence[Response], of: Callable[[Evaluated], Array]) -> list[list[VarianceSource]]:
    """Return, for each benchmark, the source of variance that DARE masks add to a number; none with one mask."""
    return [spread([of(mask) for mask in r.masks], r.curve.shape) for r in responses]


def model(responses: Sequence[Response], objective: Objective, lam: float | Array) -> Estimate:
    """Return the score at one lambda in the objective's unit; at a node it is that of an evaluated model."""
    if (one := _alone(responses, objective)) is not None:
        return expectations.at(one, lam)
    values = [curve.items_at(lam) for curve in objective.curves]
    return _of_models(responses, objective, values, _masks(responses, lambda mask: mask.items_at(lam)))


def _plain(responses: Sequence[Response], objective: Objective, plains: Sequence[Array] | None) -> Estimate | None:
    """Return plain's score; on one benchmark it is the same as in tables."""
    if (one := _alone(responses, objective)) is not None:
        return expectations.plain(one)
    if plains is None:
        return None
    masks: list[list[VarianceSource]] = []
    for response in responses:
        known = [v for one in response.plains.values() if (v := aligned_to(one, response.curve.ids)) is not None]
        masks.append(spread(known, response.curve.shape))
    return _of_models(responses, objective, plains, masks)


def _of_models(
    responses: Sequence[Response],
    objective: Objective,
    values: Sequence[Array],
    masks: Sequence[Sequence[VarianceSource]],
) -> Estimate:
    """Return the score of one model, given its item values and the sources from masks, for each benchmark."""
    others = objective.in_units(masks)
    if objective.combine == "minimum":
        return joint.least_of(values, objective.measures, others, [_share_lost(r) for r in responses])
    together = joint.together(others)
    mean = joint.mean_of(values, objective.measures, others=together, unscored=_lost(responses))
    return mean.estimate(n=sum(map(len, values)))


def _alone(responses: Sequence[Response], objective: Objective) -> Response | None:
    """Return the response of an objective that is one benchmark's plain score."""
    return responses[0] if len(responses) == 1 and not objective.parents else None


def expected(responses: Sequence[Response], objective: Objective, sample: Resampled, alpha: float) -> Estimate:
    if (one := _alone(responses, objective)) is not None:
        return expectations.expected(one, alpha)
    if objective.combine == "minimum":
        masks = _masks(responses, lambda mask: mask.expected(alpha))
        return _expected_least(responses, objective, sample, alpha, masks)
    values = [curve.expected(alpha) for curve in objective.curves]
    return _expected_mean(responses, objective, values, alpha)


def _share_lost(response: Response) -> float:
    return response.unscored / (response.unscored + len(response.curve.ids))


def _lost(responses: Sequence[Response]) -> float:
    return max(map(_share_lost, responses))


def _expected_least(
    responses: Sequence[Response],
    objective: Objective,
    sample: Resampled,
    alpha: float,
    masks: Sequence[Sequence[VarianceSource]],
    plains: Sequence[Array] | None = None,
) -> Estimate:
    """Return the expectation of a minimum; with plain's item values, its difference from plain's minimum."""
    along, whole = sample.along, objective.whole
    here, there = (
        along.expected_least(nodes, alpha) - (0.0 if plains is None else along.score_of(plains, shares))
        for nodes, shares in ((along.nodes(whole), whole), (sample.nodes, sample.shares))
    )
    return along.of(
        float(here[0]), there, signed=plains is not None, bias=objective.bends(objective.curves[0].quantiles(alpha)),
        short=objective.short(), others=_widest(objective, masks), missing=_lost(responses),
    )  # fmt: skip


def _expected_mean(
    responses: Sequence[Response], objective: Objective, values: Sequence[Array], alpha: float, *, signed: bool = False
) -> Estimate:
    """Return the mean over benchmarks of expectations (`signed`: less plain's score), given their item values.

    Benchmarks share the lambdas and masks, so their errors from these are added as if all had the same sign.
    """
    sources: list[list[VarianceSource]] = []
    bias = 0.0
    masks = _masks(responses, lambda mask: mask.expected(alpha))
    for response, unit, own in zip(responses, objective.measures, masks, strict=True):
        rest = unsure(response.curve, {alpha: 1.0})
        if signed and response.mask_seeds:
            own = expectations.masks_of_difference(response, alpha)
        sources.append([*rest.sources, *own])
        bias += rest.bias / unit.size / len(responses)
    others, lost = joint.together(objective.in_units(sources)), _lost(responses)
    mean = joint.mean_of(values, objective.measures, signed=signed, others=others, bias=bias, unscored=lost)
    return mean.estimate(n=sum(map(len, values)))


def _gains(
    responses: Sequence[Response], objective: Objective, sample: Resampled, alphas: Sequence[float]
) -> dict[float, expectations.Compared]:
    """Return E[alpha] - plain: of one benchmark that of `expectations`; mean and minimum are families of their own."""
    if _alone(responses, objective) is not None:
        return {}  # `ways.study` fills them in: their family is that of all benchmarks
    plains = plains_of(responses, objective)
    if plains is None:
        return {}
    why = next((text for r in responses if (text := expectations.unclaimed(r, alphas[0]))), "")
    gains: list[Estimate] = []
    errors: list[Array] = []
    for alpha in alphas:
        differences = [c.expected(alpha) - plain for c, plain in zip(objective.curves, plains, strict=True)]
        errors.append(joint.errors_of(differences, objective.measures))
        if objective.combine == "minimum":
            masks = [expectations.masks_of_difference(r, alpha) for r in responses]
            gains.append(_expected_least(responses, objective, sample, alpha, masks, plains))
        else:
            gains.append(_expected_mean(responses, objective, differences, alpha, signed=True))
    adjusted = max_t([one.p or 0.0 for one in gains], np.column_stack(errors))
    return {
        alpha: expectations.Compared(one, p, len(alphas), why)
        for alpha, one, p in zip(alphas, gains, adjusted, strict=True)
    }


def _widest(objective: Objective, masks: Sequence[Sequence[VarianceSource]]) -> list[VarianceSource]:
    """Return the sources from masks of a minimum: those of the benchmark where they are largest."""
    sources = [source for own in objective.in_units(masks) for source in own]
    return [max(sources, key=lambda one: one.variance)] if sources else []


def _developed(
    responses: Sequence[Response],
    objective: Objective,
    lam: float | Array,
    played: Sequence[Played],
    anew: Sequence[Again],
    bend: float,
) -> Developed:
    """Compare the chosen node with the other ways; with replay on as many items, half of them at a time."""
    plains = plains_of(responses, objective)
    difference = float(played[3].honest.mean() - played[0].honest.mean())
    moved = anew[3].honest - anew[0].honest
    return Developed(
        lam=lam,
        score=model(responses, objective, lam),
        minus_replay=objective.of(
            difference, moved, signed=True, bias=bend, short=objective.short(2), missing=_lost(responses)
        ),
        minus_plain=None if plains is None else _model_gain(responses, objective, lam, plains),
    )


def _model_gain(
    responses: Sequence[Response], objective: Objective, lam: float | Array, plains: Sequence[Array]
) -> Estimate:
    """Return one model's score minus plain's."""
    values = [curve.items_at(lam) for curve in objective.curves]
    masks = [_masks_of_gain(response, lam) for response in responses]
    if _alone(responses, objective) is not None:
        lost = responses[0].unscored
        return paired(values[0], plains[0], objective.curves[0].shape, others=masks[0], unscored=lost)
    differences = [a - b for a, b in zip(values, plains, strict=True)]
    together, share = joint.together(objective.in_units(masks)), _lost(responses)
    mean = joint.mean_of(differences, objective.measures, signed=True, others=together, unscored=share)
    if objective.combine == "minimum":
        mean = objective.least_gain(mean, values, plains, _widest(objective, masks))
    return mean.estimate(n=sum(map(len, values)))


def _masks_of_gain(response: Response, lam: float | Array) -> list[VarianceSource]:
    """Return the source that DARE masks add to the score at one lambda minus plain's, by the masks that both have."""
    known = [
        mask.items_at(lam) - plain
        for seed, mask in zip(response.mask_seeds, response.masks, strict=False)
        if seed in response.plains and (plain := aligned_to(response.plains[seed], response.curve.ids)) is not None
    ]
    return spread(known, response.curve.shape)


def _choice(objective: Objective, played: Played, anew: Again, bend: float, lost: float) -> Choice:
    return Choice(
        honest=objective.of(
            float(played.honest.mean()), anew.honest, bias=bend, short=objective.short(2), missing=lost
        ),
        claimed=objective.of(
            float(played.claimed.mean()), anew.claimed, bias=bend, short=objective.short(), missing=lost
        ),
        sd=played.sd,
        quantiles=played.quantiles,
        kept=played.kept,
    )
