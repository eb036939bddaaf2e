"""What `m3 response` says of a study: as data, as a table, and in sentences.

Benchmarks are in percent; mean and minimum in percent of the better parent, over the benchmarks that a parent was
evaluated on. Every number has its interval, every "cannot tell" what would be needed.
"""

import json
import math
from collections.abc import Sequence

import numpy as np

from m3_exp.reporting.choices.helping import Help
from m3_exp.reporting.choices.protocols import Choice, Comparison
from m3_exp.reporting.choices.ways import Study
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import LINE
from m3_exp.reporting.table import NOTHING, SPOKEN, Cell, Column, Table, percent
from m3_exp.reporting.table import words as words_of
from m3_exp.stats import family, unread
from m3_exp.stats.estimate import Array, Estimate
from m3_exp.stats.expectation import ALPHAS
from m3_exp.types import Json


def records(study: Study) -> list[Json]:
    """Return the study as data, percent throughout: one record an objective."""
    return [_record(compared, study) for compared in study.comparisons]


def _record(compared: Comparison, study: Study) -> Json:
    spreads = study.spreads.get(compared.objective, {})
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
        **{name: _choice_record(name, getattr(compared, name), study) for name in ("replay", "tuned", "selected")},
        "developed": _developed_record(compared, study),
        "replay_minus_tuned": {
            **_percent(compared.contrast), "p": compared.contrast.p,
            "p_adjusted": study.contrasts[compared.objective],
            "mark": _verdict(compared.contrast, study.contrasts[compared.objective]),
        },
        **({"helps": [_help_record(one, study) for one in study.helping(compared.objective)]} if study.helps else {}),
    }  # fmt: skip


def _help_record(one: Help, study: Study) -> Json:
    gain = None if one.gain is None else {**_percent(one.gain), "p": one.gain.p, "p_adjusted": one.p_adjusted}
    facts = {"experts": one.experts, "merges": one.merges, "share": one.share, "gain": gain}
    return {**facts, **_percent(one.score), **_placed(one.kept, study)}


def _verdict(estimate: Estimate, p: float) -> str:
    return "not told apart" if p >= family.LIMIT else "better" if estimate.value > 0 else "worse"


def _kept(choice: Choice) -> tuple[float | Array, float]:
    """Return the point that a way of choosing keeps most often, and how often (0 to 1)."""
    points, counts = np.unique(choice.kept, return_counts=True, axis=0)
    return points[np.argmax(counts)], float(counts.max() / counts.sum())


def _placed(at: float | Array | None, study: Study) -> Json:
    """Return a point as data: the lambda of two experts, the shares of more by their names."""
    if at is None or (isinstance(at, np.ndarray) and at.ndim):
        experts = study.responses[0].experts
        return {"shares": None if at is None else dict(zip(experts, map(float, np.asarray(at)), strict=False))}
    return {"lambda": float(at)}


def _choice_record(name: str, choice: Choice, study: Study) -> Json:
    """Return a way of choosing as data. Drawn lambdas are all different, so their median is given as the kept one."""
    drawn = float(np.median(choice.kept)) if choice.kept.ndim == 1 else None
    at, share = (drawn, None) if name == "replay" else _kept(choice)
    return {
        **_percent(choice.honest), "claimed": 100 * choice.claimed.value, "claimed_low": 100 * choice.claimed.low,
        "claimed_high": 100 * choice.claimed.high, "sd": 100 * choice.sd,
        "quantiles": [100 * q for q in choice.quantiles], **_placed(at, study), "share": share,
    }  # fmt: skip


def _minus_plain(compared: Comparison, alpha: float) -> Json | None:
    gain = compared.gains.get(alpha)
    if gain is None:
        return None
    detectable = family.detectable(gain.estimate, gain.family)
    return {
        **_percent(gain.estimate), "p": gain.estimate.p, "p_adjusted": gain.p_adjusted, "family": gain.family,
        "mark": SPOKEN[gain.mark], "why": gain.why or None, "detectable": 100 * detectable,
    }  # fmt: skip


def _developed_record(compared: Comparison, study: Study) -> Json | None:
    developed, chooser = compared.developed, study.choosers.get(compared.objective)
    if developed is None or chooser is None:
        return None
    return {
        **_percent(developed.score), **_placed(developed.lam, study), "share": chooser.share,
        "benchmarks": list(chooser.benchmarks),
        "minus_plain": developed.minus_plain and _percent(developed.minus_plain),
        "minus_replay": _percent(developed.minus_replay),
    }  # fmt: skip


def _percent(figure: Estimate) -> dict[str, float]:
    return {"score": 100 * figure.value, "low": 100 * figure.low, "high": 100 * figure.high}


_SIGNS = {"better": "+", "worse": "-"}


def table(study: Study) -> Table:
    """Return a row a way of choosing, a column an objective.

    After an alpha's expectation `+` or `-` says that it differs significantly from plain, after adjustment. `*` says
    that it comes from the nodes alone, and so carries no sign.
    """
    every = study.comparisons
    rows = [
        _row("plain", [_figure(c.plain) for c in every]),
        *(_row(f"E[alpha={alpha:g}]", [_expected(c, study, alpha) for c in every]) for alpha in ALPHAS),
        *(_row(f"  - plain, alpha={alpha:g}", [_gain(c, alpha) for c in every]) for alpha in ALPHAS),
        _row("best of 7 draws (paper)", [_chosen(c.replay) for c in every]),
        _row("  as claimed on the same items", [_figure(c.replay.claimed) for c in every]),
        _row(f"best of 7 fixed {study.points}", [_chosen(c.tuned) for c in every]),
        *(
            _developed_rows(study)
            if study.choosers
            else [_row("best node, cross-fitted", [_cross_fitted(c, study) for c in every])]
        ),
        _row("random - tuned", [_figure(c.contrast, signed=True) for c in every]),
        *_help_rows(study),
    ]
    columns = (
        Column(c.objective, benchmark=c.objective)
        if c.objective in study.spreads
        else Column(f"{c.objective} (of parent)", benchmark=c.objective, what="(of parent)")
        for c in every
    )
    return Table(study.responses[0].name, (Column("", names=True), *columns), tuple(rows))


def _row(name: str, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    return words_of(name), *cells


def _figure(estimate: Estimate | None, *lines: str, signed: bool = False) -> Cell:
    return NOTHING if estimate is None else Cell(lines, percent(estimate, signed=signed))


def _expected(compared: Comparison, study: Study, alpha: float) -> Cell:
    spread, gain = study.spreads.get(compared.objective, {}).get(alpha), compared.gains.get(alpha)
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


def _developed_rows(study: Study) -> list[tuple[Cell, ...]]:
    """Return the rows of the node that development items chose; cross-fitted where there are none."""
    columns: list[tuple[Cell, ...]] = []
    for compared in study.comparisons:
        developed, chooser = compared.developed, study.choosers.get(compared.objective)
        if developed is None or chooser is None:
            columns.append((_cross_fitted(compared, study, ", cross-fitted"), NOTHING, NOTHING))
            continue
        at = f"at {study.named(developed.lam)}, dev {100 * chooser.share:.0f} %"
        gains = (_figure(gain, signed=True) for gain in (developed.minus_plain, developed.minus_replay))
        columns.append((_figure(developed.score, at), *gains))
    names = ("chosen node, really evaluated", "  - plain", "  - best of 7 draws")
    return [_row(name, cells) for name, cells in zip(names, zip(*columns, strict=True), strict=True)]


def _help_rows(study: Study) -> list[tuple[Cell, ...]]:
    """Return the rows of the best of ever more experts, and of what each step gains; none of two experts."""
    columns = [study.helping(compared.objective) for compared in study.comparisons]
    rows: list[tuple[Cell, ...]] = []
    for step in zip(*columns, strict=True):
        at = ((one, f"at {study.named(one.kept)} ({100 * one.share:.0f} %)") for one in step)
        rows.append(_row(_of_experts(step[0].experts), [_figure(one.score, text) for one, text in at]))
        if step[0].gain is not None:
            gains = [_figure(one.gain, *([one.mark] if one.mark else []), signed=True) for one in step]
            rows.append(_row(f"  - best of fewer than {step[0].experts}", gains))
    return rows


def _of_experts(count: int) -> str:
    return "best single expert" if count == 1 else f"best of {count} experts or fewer"


def _cross_fitted(compared: Comparison, study: Study, end: str = "") -> Cell:
    at, share = _kept(compared.selected)
    return _figure(compared.selected.honest, f"at {study.named(at)} ({100 * share:.0f} %){end}")


def _text(estimate: Estimate, *, signed: bool = False) -> str:
    return str(_figure(estimate, signed=signed))


def _main(study: Study) -> tuple[Comparison, str]:
    """Return the comparison that the advice is about, and the name of its objective."""
    joint = next((c for c in study.comparisons if c.objective == "mean"), study.comparisons[0])
    return joint, "the mean over benchmarks" if joint.objective == "mean" else joint.objective


def answer(study: Study) -> list[str]:
    """Return the two sentences that matter most: which alpha, and whether random is better than tuned.

    Where both ends of a curve hold nothing to read, the one that says so.
    """
    if cells := [cell for response in study.responses if response.silent for cell in response.unread]:
        return [unread.sentence(cells, "no advice, as most answers hold nothing to read")]
    joint, what = _main(study)
    return [_best_words(joint, what, study), _contrast_words(joint, what, study)]


def words(study: Study) -> list[str]:
    """Return the advice in sentences, each with its interval, its level and what would be needed to say more."""
    if any(response.silent for response in study.responses):
        return [*answer(study), *study.notes]
    joint, what = _main(study)
    return [
        *answer(study),
        *_unread_words(study),
        _flattery_words(joint),
        *_alpha_words(joint, what),
        *_help_words(joint, what, study),
        *_dev_words(joint, study),
        *study.notes,
    ]


def _unread_words(study: Study) -> list[str]:
    """Name what the curves go through though most of its answers hold nothing to read: one end of each can be read."""
    cells = [cell for response in study.responses for cell in response.unread]
    text = "zeros by their benchmark's rule, though most answers hold nothing to read"
    return [f"{text}: {unread.listed(cells)}"] if cells else []


def _best_words(joint: Comparison, what: str, study: Study) -> str:
    holds = joint.holds_best
    if holds is None:
        return f"advice for {what}: none of an alpha: {_needed(study)}"
    every = len(holds) == len(joint.expected)
    named = "any of the seven alphas" if every else ", ".join(f"{alpha:g}" for alpha in holds)
    more = "" if not every else "; more items would be needed to leave one out"
    return (
        f"advice for {what}: the best alpha is {'' if every else 'among '}{named} (with 95 %: paired by item, max-T"
        f" over their 21 pairs){more}"
    )


def _needed(study: Study) -> str:
    return next(
        (why for r in study.responses if (why := expectations.unclaimed(r, ALPHAS[0]))), "more items are needed"
    )


def _contrast_words(joint: Comparison, what: str, study: Study) -> str:
    contrast, p = joint.contrast, study.contrasts[joint.objective]
    verdict = {"better": "is better than", "worse": "is worse than", "not told apart": "cannot be told from"}
    mark = _verdict(contrast, p)
    text = (
        f"random (best of seven draws) {verdict[mark]} tuned at equal cost on {what}:"
        f" {_text(contrast, signed=True)} points, adjusted p {p:.2g} (Holm over"
        f" {len(study.contrasts)} objectives)"
    )
    return text + (_seen(contrast, len(study.contrasts)) if mark == "not told apart" else "")


def _seen(estimate: Estimate, count: int) -> str:
    """Say which differences were too small to be detected, and how many items would show the one that was seen."""
    least = family.detectable(estimate, count)
    text = f"; a difference below {100 * least:.1f} points could not have been seen"
    if abs(estimate.value) > 1e-9:
        items = math.ceil(estimate.n * (least / abs(estimate.value)) ** 2)
        text += f" (one of {100 * abs(estimate.value):.1f} takes about {items:,} items)" if items < 10_000_000 else ""
    return text


def _flattery_words(joint: Comparison) -> str:
    """Say by how much choosing and scoring on the same items overstates the score."""
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
    lines.append(
        f"+ or - behind: significant at 5 % (max-T over {first.family}); the others are not told apart from plain"
    )
    untold = [gain for gain in joint.gains.values() if gain.mark == "untold"]
    if untold:
        least = min(family.detectable(gain.estimate, gain.family) for gain in untold)
        lines.append(
            f"of these a difference below {100 * least:.1f} points could not have been seen: more items, or masks"
        )
    return lines


def _help_words(joint: Comparison, what: str, study: Study) -> list[str]:
    """Say whether each expert more helps; nothing of two experts."""
    lines = []
    for one in study.helping(joint.objective):
        if one.gain is None:
            continue
        verb = {"+": "helps", "-": "is a loss", "": "is not shown to help"}[one.mark]
        lines.append(
            f"a mixture of {one.experts} experts {verb} on {what}: the best of {one.experts} or fewer less the best of"
            f" fewer, cross-fitted over {one.merges} merges, {_text(one.gain, signed=True)} points, adjusted p"
            f" {one.p_adjusted:.2g} (Holm over {sum(h.gain is not None for h in study.helps)} such gains)"
        )
    return lines


def _dev_words(joint: Comparison, study: Study) -> list[str]:
    """Say what development items chose, or that there are none."""
    if not study.choosers:
        return ["no development items are evaluated: the best node is cross-fitted (the same m3 run with items=dev)"]
    without = [r.benchmark for r in study.responses if r.benchmark not in study.choosers]
    lines = [f"no development items of {', '.join(without)}: cross-fitted there"] if without else []
    chooser = study.choosers.get(joint.objective)
    if chooser is not None and joint.developed is not None:
        gain = joint.developed.minus_replay
        p = 1.0 if gain.p is None else gain.p
        on = ", ".join(chooser.benchmarks)
        verdict = _verdict(gain, p)
        where = "lambda = " if study.points == "lambdas" else ""
        lines.append(
            f"development items of {on} choose {where}{study.named(chooser.lam)} ({100 * chooser.share:.0f} % of their"
            " resamplings); minus best of seven draws, on half of the items at a time:"
            f" {_text(gain, signed=True)},"
            f" {verdict} (p {p:.2g}, the only comparison of its kind)"
            + (_seen(gain, 1) if verdict == "not told apart" else "")
        )
    return lines


def as_json(study: Study, summary: Sequence[str] = ()) -> str:
    """Return a study as one JSON object, named by its family, pair, method, hyper-parameters and sparsifier.

    `summary`: the first words of the command that shows it.
    """
    named = dict(zip(LINE, study.responses[0].line, strict=True))
    return json.dumps({**named, "summary": list(summary), "objectives": records(study), "advice": words(study)})
