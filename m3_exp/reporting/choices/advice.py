"""What `m3 response` says of a pair and method: ways of choosing lambda on every benchmark, their mean and minimum.

Benchmarks are in percent; mean and minimum in percent of the better parent, over the benchmarks that a parent was
evaluated on. E[alpha] - plain is paired by item and adjusted (max-T) over the seven alphas x all benchmarks of the pair
and method, as everywhere (`expectations`); mean and minimum have families of their own. Random - tuned is one family
over benchmarks, mean and minimum (Holm). Every number has its interval, every "cannot tell" what would be needed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from m3_exp.reporting.choices.protocols import Choice, Comparison, Developed, compare
from m3_exp.reporting.choices.relative import Relative, relative
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Response
from m3_exp.reporting.table import NOTHING, Cell, Column, Table, percent
from m3_exp.reporting.table import words as words_of
from m3_exp.stats import family
from m3_exp.stats.estimate import Array, Estimate
from m3_exp.stats.lambdas import ALPHAS, draw_sd, unsure
from m3_exp.stats.objective import Combine, Objective


@dataclass(frozen=True)
class Spread:
    """What one alpha's expectation is unsure of besides items, in percent points: draws, masks, and sampled lambdas
    (standard error), or else how far the curve may bend between its nodes.
    """

    sd_draws: float
    sd_masks: float | None
    se_sampled: float | None
    bend: float | None


@dataclass(frozen=True)
class Chooser:
    """The node that development items chose for an objective, on which benchmarks, and how sure they are of it.

    `share` is how often it is the best over resampled development items (0 to 1).
    """

    lam: float
    benchmarks: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Study:
    """All of one pair and method: comparisons by objective, spreads by benchmark and alpha, and what was left out.

    `choosers` are there for objectives that development items could choose for; `contrasts` holds Holm's p-value of
    random - tuned by objective.
    """

    responses: tuple[Response, ...]
    relative: Relative
    comparisons: tuple[Comparison, ...]
    spreads: Mapping[str, Mapping[float, Spread]]
    notes: tuple[str, ...]
    choosers: Mapping[str, Chooser] = field(default_factory=dict)
    contrasts: Mapping[str, float] = field(default_factory=dict)


def study(
    responses: Sequence[Response],
    *,
    dev: Mapping[str, Response] | None = None,
    repeats: int = 10_000,
    resamples: int = 1_000,
    seed: int = 0,
) -> Study:
    """Compare all ways of choosing lambda on the benchmarks of one pair and method.

    `dev`: what the same pair and method scored on development items, by benchmark; none of the test's items are its.

    Raises:
        ValueError: there is no curve.
    """
    if not responses:
        raise ValueError("no benchmark has a curve: all planned nodes must be evaluated, 0 and 1 among them")
    found: list[Comparison] = []
    options: dict[str, Any] = {"repeats": repeats, "resamples": resamples, "seed": seed}
    choosers: dict[str, Chooser] = {}
    dev = dev or {}
    against = expectations.against_plain(responses)
    for response in responses:
        name = response.benchmark
        if name in dev and (chosen := _developed(dev, [name], response.curve.lams, seed=seed)):
            choosers[name] = chosen
        lam = choosers[name].lam if name in choosers else None
        one = compare([response], Objective(name, (response.curve,)), chosen=lam, **options)
        found.append(replace(one, gains={a: against[name, a] for a in one.expected if (name, a) in against}))
    joint = relative(responses)
    for objective in joint.objectives:
        known = [r.benchmark for r in joint.responses if r.benchmark in dev]
        if known and (chosen := _developed(dev, known, objective.lams, objective.combine, seed=seed)):
            choosers[objective.name] = chosen
        lam = choosers[objective.name].lam if objective.name in choosers else None
        found.append(compare(joint.responses, objective, chosen=lam, **options))
    p = family.holm([1.0 if c.contrast.p is None else c.contrast.p for c in found])
    contrasts = {c.objective: q for c, q in zip(found, p, strict=True)}
    spreads = {r.benchmark: _spreads(r) for r in responses}
    lost = [f"{r.benchmark}: {note}" for r in responses for note in _missing(r)]
    if joint.objectives:
        lost.append(
            "minimum: the least of several estimates falls short of the least truth by chance; its intervals hold that,"
            " its values do not"
        )
    return Study(tuple(responses), joint, tuple(found), spreads, (*joint.notes, *lost), choosers, contrasts)


def _missing(response: Response) -> list[str]:
    """Say what is missing from a curve, where its numbers stand."""
    found = list(response.notes)
    if response.unscored:
        total = response.unscored + len(response.curve.ids)
        found.append(f"{response.unscored} of {total} items unscored: in the intervals of E at their worst and best")
    return found


def _developed(
    dev: Mapping[str, Response],
    benchmarks: Sequence[str],
    lams: Array,
    combine: Combine = "mean",
    *,
    seed: int,
    resamples: int = 1_000,
) -> Chooser | None:
    """Choose the best of the nodes that test and development items share; None where they share none but the ends.

    Several benchmarks count relative to their better parent on development items, where each has one there.
    """
    shared = sorted(set(map(float, lams)).intersection(*(map(float, dev[name].curve.lams) for name in benchmarks)))
    if len(shared) < 3:
        return None
    nodes = np.array([shared])
    curves = tuple(dev[name].curve.on_nodes(nodes[0]) for name in benchmarks)
    objective = Objective(combine, curves, _dev_parents([dev[name] for name in benchmarks]), combine)
    sample = objective.resampled(resamples, np.random.default_rng(seed))
    best = int(np.argmax(objective.score(objective.nodes(objective.whole), nodes)[0]))
    again = np.argmax(objective.score(objective.nodes(sample), np.tile(nodes, (resamples, 1))), axis=1)
    return Chooser(shared[best], tuple(benchmarks), float(np.mean(again == best)))


def _dev_parents(found: Sequence[Response]) -> tuple[Array, ...]:
    """Return the better parents' values, or ones (plain scores) where a benchmark has no parent or one of 0."""
    better = [response.better_parent() for response in found]
    known = [one[1] for one in better if one is not None and float(one[1].sum()) > 0]
    return tuple(known) if len(known) == len(found) else tuple(np.ones(len(r.curve.ids)) for r in found)


def _spreads(response: Response) -> dict[float, Spread]:
    found = {}
    for alpha in ALPHAS:
        masks = [100 * float(curve.expected(alpha).mean()) for curve in response.masks]
        rest = unsure(response.curve, {alpha: 1.0})
        found[alpha] = Spread(
            sd_draws=100 * draw_sd(response.curve, alpha),
            sd_masks=float(np.std(masks, ddof=1)) if len(masks) > 1 else None,
            se_sampled=100 * math.sqrt(rest.sources[0].variance) if rest.sources else None,
            bend=None if rest.sources else 100 * rest.bend,
        )
    return found


# --------------------------------------------------------------------------------------------------------- what is read


def records(found: Study) -> list[dict[str, Any]]:
    """Return the study as data, percent throughout: one record an objective."""
    return [_record(compared, found) for compared in found.comparisons]


def _record(compared: Comparison, found: Study) -> dict[str, Any]:
    spreads = found.spreads.get(compared.objective, {})
    unit = "percent" if spreads else "percent of the better parent"
    holds = compared.holds_best
    return {
        "objective": compared.objective,
        "unit": unit,
        "plain": compared.plain and _percent(compared.plain),
        "alpha": [
            {"alpha": alpha, **_percent(figure), **(vars(spreads[alpha]) if alpha in spreads else {}),
             "unbeaten": None if holds is None else alpha in holds, "minus_plain": _minus_plain(compared, alpha)}
            for alpha, figure in compared.expected.items()
        ],
        **{name: _choice_record(name, getattr(compared, name)) for name in ("replay", "tuned", "selected")},
        "developed": _developed_record(compared.developed, found.choosers.get(compared.objective)),
        "replay_minus_tuned": {
            **_percent(compared.contrast), "p": compared.contrast.p,
            "p_adjusted": found.contrasts[compared.objective],
            "mark": _verdict(compared.contrast, found.contrasts[compared.objective]),
        },
    }  # fmt: skip


def _verdict(found: Estimate, p: float) -> str:
    return "not told apart" if p >= family.LIMIT else "better" if found.value > 0 else "worse"


def _kept(choice: Choice) -> tuple[float, float]:
    """Return the lambda that is kept most often, with its share."""
    lams, counts = np.unique(choice.kept, return_counts=True)
    return float(lams[np.argmax(counts)]), float(counts.max() / counts.sum())


def _choice_record(name: str, choice: Choice) -> dict[str, Any]:
    """Return a way of choosing as data; of drawn lambdas, no two alike, the median stands for those kept."""
    lam, share = (float(np.median(choice.kept)), None) if name == "replay" else _kept(choice)
    return {
        **_percent(choice.honest), "claimed": 100 * choice.claimed.value, "claimed_low": 100 * choice.claimed.low,
        "claimed_high": 100 * choice.claimed.high, "sd": 100 * choice.sd,
        "quantiles": [100 * q for q in choice.quantiles], "lambda": lam, "share": share,
    }  # fmt: skip


_MARKED = {"better": "better", "worse": "worse", "untold": "not told apart", "": "no claim"}


def _minus_plain(compared: Comparison, alpha: float) -> dict[str, Any] | None:
    gain = compared.gains.get(alpha)
    if gain is None:
        return None
    detectable = family.detectable(gain.estimate, gain.family)
    return {
        **_percent(gain.estimate), "p": gain.estimate.p, "p_adjusted": gain.p_adjusted, "family": gain.family,
        "mark": _MARKED[gain.mark], "why": gain.why or None, "detectable": 100 * detectable,
    }  # fmt: skip


def _developed_record(developed: Developed | None, chooser: Chooser | None) -> dict[str, Any] | None:
    if developed is None or chooser is None:
        return None
    return {
        **_percent(developed.score), "lambda": developed.lam, "share": chooser.share,
        "benchmarks": list(chooser.benchmarks),
        "minus_plain": developed.minus_plain and _percent(developed.minus_plain),
        "minus_replay": _percent(developed.minus_replay),
    }  # fmt: skip


def _percent(figure: Estimate) -> dict[str, float]:
    return {"score": 100 * figure.value, "low": 100 * figure.low, "high": 100 * figure.high}


_SIGNS = {"better": "+", "worse": "-"}


def table(found: Study) -> Table:
    """Return a row a way of choosing, a column an objective.

    Behind an alpha's expectation `+` or `-` says that it differs from plain after adjustment; `*` that it is from the
    nodes alone, so that nothing is claimed.
    """
    every = found.comparisons
    rows = [
        _row("plain", [_figure(c.plain) for c in every]),
        *(_row(f"E[alpha={alpha:g}]", [_expected(c, found, alpha) for c in every]) for alpha in ALPHAS),
        *(_row(f"  - plain, alpha={alpha:g}", [_gain(c, alpha) for c in every]) for alpha in ALPHAS),
        _row("best of 7 draws (paper)", [_chosen(c.replay) for c in every]),
        _row("  as claimed on the same items", [_figure(c.replay.claimed) for c in every]),
        _row("best of 7 fixed lambdas", [_chosen(c.tuned) for c in every]),
        *(
            _developed_rows(found)
            if found.choosers
            else [_row("best node, cross-fitted", [_cross_fitted(c) for c in every])]
        ),
        _row("random - tuned", [_figure(c.contrast, signed=True) for c in every]),
    ]
    columns = (
        Column(c.objective, benchmark=c.objective)
        if c.objective in found.spreads
        else Column(f"{c.objective} (of parent)", benchmark=c.objective, what="(of parent)")
        for c in every
    )
    return Table(found.responses[0].name, (Column(""), *columns), tuple(rows))


def _row(name: str, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    return words_of(name), *cells


def _figure(found: Estimate | None, *lines: str, signed: bool = False) -> Cell:
    return NOTHING if found is None else Cell(lines, percent(found, signed=signed))


def _expected(compared: Comparison, found: Study, alpha: float) -> Cell:
    spread, gain = found.spreads.get(compared.objective, {}).get(alpha), compared.gains.get(alpha)
    lines = []
    if spread is not None:
        masks = "" if spread.sd_masks is None else f" masks {spread.sd_masks:.1f}"
        lines.append(f"sd {spread.sd_draws:.1f}{masks}" + ("" if spread.bend is None else "*"))
    if gain is not None and gain.mark in _SIGNS:
        lines.append(_SIGNS[gain.mark])
    return _figure(compared.expected[alpha], *lines)


def _gain(compared: Comparison, alpha: float) -> Cell:
    gain = compared.gains.get(alpha)
    return NOTHING if gain is None else _figure(gain.estimate, signed=True)


def _chosen(choice: Choice) -> Cell:
    return _figure(choice.honest, f"sd {100 * choice.sd:.1f}")


def _developed_rows(found: Study) -> list[tuple[Cell, ...]]:
    """Return the rows of the node that development items chose; cross-fitted where there are none."""
    columns: list[tuple[Cell, ...]] = []
    for compared in found.comparisons:
        developed, chooser = compared.developed, found.choosers.get(compared.objective)
        if developed is None or chooser is None:
            columns.append((_cross_fitted(compared, ", cross-fitted"), NOTHING, NOTHING))
            continue
        at = f"at {developed.lam:.3g}, dev {100 * chooser.share:.0f} %"
        gains = (_figure(gain, signed=True) for gain in (developed.minus_plain, developed.minus_replay))
        columns.append((_figure(developed.score, at), *gains))
    names = ("chosen node, really evaluated", "  - plain", "  - best of 7 draws")
    return [_row(name, cells) for name, cells in zip(names, zip(*columns, strict=True), strict=True)]


def _cross_fitted(compared: Comparison, end: str = "") -> Cell:
    lam, share = _kept(compared.selected)
    return _figure(compared.selected.honest, f"at {lam:.3g} ({100 * share:.0f} %){end}")


def _text(found: Estimate, *, signed: bool = False) -> str:
    return str(_figure(found, signed=signed))


def words(found: Study) -> list[str]:
    """Return the advice in sentences, each with its interval, its level and what would be needed to say more."""
    joint = next((c for c in found.comparisons if c.objective == "mean"), found.comparisons[0])
    what = "the mean over benchmarks" if joint.objective == "mean" else joint.objective
    return [
        _best_words(joint, what, found),
        _contrast_words(joint, what, found),
        _flattery_words(joint),
        *_alpha_words(joint, what),
        *_dev_words(joint, found),
        *found.notes,
    ]


def _best_words(joint: Comparison, what: str, found: Study) -> str:
    holds = joint.holds_best
    if holds is None:
        return f"advice for {what}: none of an alpha: {_needed(found)}"
    every = len(holds) == len(joint.expected)
    named = "any of the seven alphas" if every else ", ".join(f"{alpha:g}" for alpha in holds)
    told = "" if not every else "; more items would be needed to leave one out"
    return (
        f"advice for {what}: the best alpha is {'' if every else 'among '}{named} (with 95 %: paired by item, max-T"
        f" over their 21 pairs){told}"
    )


def _needed(found: Study) -> str:
    return next(
        (why for r in found.responses if (why := expectations.unclaimed(r, ALPHAS[0]))), "more items are needed"
    )


def _contrast_words(joint: Comparison, what: str, found: Study) -> str:
    contrast, p = joint.contrast, found.contrasts[joint.objective]
    verdict = {"better": "is better than", "worse": "is worse than", "not told apart": "cannot be told from"}
    said = _verdict(contrast, p)
    text = (
        f"random (best of seven draws) {verdict[said]} tuned at equal cost on {what}:"
        f" {_text(contrast, signed=True)} points, adjusted p {p:.2g} (Holm over"
        f" {len(found.contrasts)} objectives)"
    )
    return text + (_seen(contrast, len(found.contrasts)) if said == "not told apart" else "")


def _seen(estimate: Estimate, count: int) -> str:
    """Say what could not have been seen, and how many items would show the difference that was."""
    least = family.detectable(estimate, count)
    text = f"; a difference below {100 * least:.1f} points could not have been seen"
    if abs(estimate.value) > 1e-9:
        items = math.ceil(estimate.n * (least / abs(estimate.value)) ** 2)
        text += f" (one of {100 * abs(estimate.value):.1f} takes about {items:,} items)" if items < 10_000_000 else ""
    return text


def _flattery_words(joint: Comparison) -> str:
    """Say what choosing on the same items claims beside what choosing on half of them gives."""
    replay = joint.replay
    return (
        "the best of seven draws, chosen on the items it is scored on, claims"
        f" {_text(replay.claimed)};"
        f" chosen on one half and scored on the other it is {_text(replay.honest)}"
        " (the gap holds the flattery and what half of the items choose worse)"
    )


def _alpha_words(joint: Comparison, what: str) -> list[str]:
    """Say what each alpha is worth beside plain."""
    if not joint.gains:
        return []
    texts = [
        " ".join(filter(None, [f"{alpha:g}: {_text(gain.estimate, signed=True)}", _SIGNS.get(gain.mark)]))
        for alpha, gain in joint.gains.items()
    ]
    first = next(iter(joint.gains.values()))
    lines = [f"E[alpha] - plain on {what}, in points: {'; '.join(texts)}"]
    if first.why:
        return [*lines, f"no claim about E[alpha] - plain: {first.why}"]
    lines.append(f"+ or - behind: real at 5 % (max-T over {first.family}); the others are not told apart from plain")
    untold = [gain for gain in joint.gains.values() if gain.mark == "untold"]
    if untold:
        least = min(family.detectable(gain.estimate, gain.family) for gain in untold)
        lines.append(
            f"of these a difference below {100 * least:.1f} points could not have been seen: more items, or masks"
        )
    return lines


def _dev_words(joint: Comparison, found: Study) -> list[str]:
    """Say what development items chose, or that there are none."""
    if not found.choosers:
        return ["no development items are evaluated: the best node is cross-fitted (m3 run sweeps=... items=dev)"]
    without = [r.benchmark for r in found.responses if r.benchmark not in found.choosers]
    lines = [f"no development items of {', '.join(without)}: cross-fitted there"] if without else []
    chooser = found.choosers.get(joint.objective)
    if chooser is not None and joint.developed is not None:
        gain = joint.developed.minus_replay
        p = 1.0 if gain.p is None else gain.p
        on = ", ".join(chooser.benchmarks)
        verdict = _verdict(gain, p)
        lines.append(
            f"development items of {on} choose lambda = {chooser.lam:.3g} ({100 * chooser.share:.0f} % of their"
            " resamplings); minus best of seven draws, on half of the items at a time:"
            f" {_text(gain, signed=True)},"
            f" {verdict} (p {p:.2g}, the only comparison of its kind)"
            + (_seen(gain, 1) if verdict == "not told apart" else "")
        )
    return lines


def as_json(found: Study) -> str:
    """Return a study as one JSON object, named by its family, pair, method, hyper-parameters and sparsifier."""
    named = dict(zip(("family", "pair", "method", "params", "sparsify"), found.responses[0].line, strict=True))
    return json.dumps({**named, "objectives": records(found), "advice": words(found)})
