"""What `m3 response` says of a pair and method: ways of choosing lambda on every benchmark, their mean and minimum.

Benchmarks are in percent; mean and minimum in percent of the better parent, over the benchmarks that a
parent was evaluated on.
E[alpha] - plain is paired by item, its p-values adjusted (Holm) over the seven alphas x all benchmarks; those of the
mean and of the minimum over their own seven.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from m3_exp.reporting import stats
from m3_exp.reporting.curves import Response, aligned_to
from m3_exp.reporting.protocols import (
    ALPHAS,
    ENOUGH,
    Choice,
    Comparison,
    Developed,
    Figure,
    Objective,
    compare,
    resampled,
)
from m3_exp.reporting.response import Array, Curve, draw_sd, interpolation_error

LEFT_OUT = "is not in mean and minimum"  # what a note says of a benchmark that is none of theirs


@dataclass(frozen=True)
class Spread:
    """What one alpha's expectation is unsure of besides items, in percent points: draws, masks, interpolation."""

    draws: float
    masks: float | None
    interpolation: float | None


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

    `choosers` are there for objectives that development items could choose for, `adjusted` holds Holm's p-value of
    E[alpha] - plain by objective and alpha.
    """

    responses: tuple[Response, ...]
    comparisons: tuple[Comparison, ...]
    spreads: Mapping[str, Mapping[float, Spread]]
    notes: tuple[str, ...]
    choosers: Mapping[str, Chooser] = field(default_factory=dict)
    adjusted: Mapping[str, Mapping[float, float]] = field(default_factory=dict)


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
        raise ValueError("no benchmark has a curve: at least lambda 0 and 1 must be evaluated")
    found: list[Comparison] = []
    options: dict[str, Any] = {"repeats": repeats, "resamples": resamples, "seed": seed}
    choosers: dict[str, Chooser] = {}
    dev = dev or {}
    for response in responses:
        plain = None if response.plain is None else aligned_to(response.plain, response.curve.ids)
        name = response.benchmark
        if name in dev and (chosen := _developed(dev, [name], response.curve.lams, seed=seed)):
            choosers[name] = chosen
        lam = choosers[name].lam if name in choosers else None
        plains = None if plain is None else [plain]
        compared = compare(Objective(name, (response.curve,)), plains, chosen=lam, **options)
        found.append(_with_item_intervals(compared, response.curve, plain))
    joint, notes = _joint(responses)
    combines: tuple[Literal["mean", "minimum"], ...] = ("mean", "minimum") if joint else ()
    for combine in combines:
        assert joint is not None
        known = [name for name in joint.benchmarks if name in dev]
        if known and (chosen := _developed(dev, known, joint.curves[0].lams, combine, seed=seed)):
            choosers[combine] = chosen
        lam = choosers[combine].lam if combine in choosers else None
        objective = Objective(combine, joint.curves, joint.parents, combine)
        found.append(compare(objective, joint.plains, chosen=lam, **options))
    spreads = {r.benchmark: _spreads(r) for r in responses}
    return Study(tuple(responses), tuple(found), spreads, tuple(notes), choosers, _adjusted(found, spreads))


def _developed(
    dev: Mapping[str, Response],
    benchmarks: Sequence[str],
    lams: Array,
    combine: Literal["mean", "minimum"] = "mean",
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
    curves = tuple(_at_nodes(dev[name].curve, shared) for name in benchmarks)
    objective = Objective(combine, curves, _dev_parents([dev[name] for name in benchmarks]), combine)
    whole = [np.full((1, len(curve.ids)), 1 / len(curve.ids)) for curve in curves]
    generator = np.random.default_rng(seed)
    sample = [resampled(len(curve.ids), resamples, generator) for curve in curves]
    nodes = np.array([shared])
    best = int(np.argmax(objective.score(objective.nodes(whole), nodes)[0]))
    again = np.argmax(objective.score(objective.nodes(sample), np.tile(nodes, (resamples, 1))), axis=1)
    return Chooser(shared[best], tuple(benchmarks), float(np.mean(again == best)))


def _dev_parents(found: Sequence[Response]) -> tuple[Array, ...]:
    """Return the better parents' values, or ones (plain scores) where a benchmark has no parent or one of 0."""
    better = [response.better_parent() for response in found]
    known = [one[1] for one in better if one is not None and float(one[1].sum()) > 0]
    return tuple(known) if len(known) == len(found) else tuple(np.ones(len(r.curve.ids)) for r in found)


def _with_item_intervals(compared: Comparison, curve: Curve, plain: Array | None) -> Comparison:
    """Give a single benchmark's figures the intervals that tables use: each item gives one number."""

    def exact(values: Array) -> Figure:
        return Figure(float(values.mean()), *stats.mean_interval(values))

    expected = {alpha: exact(curve.expected(alpha)) for alpha in compared.expected}
    developed = compared.developed
    return replace(
        compared,
        expected=expected,
        plain=None if plain is None else exact(plain),
        developed=None if developed is None else replace(developed, score=exact(curve.items_at(developed.lam))),
    )


def _adjusted(found: Sequence[Comparison], single: Collection[str]) -> dict[str, dict[float, float]]:
    """Return Holm's p-values of E[alpha] - plain: all benchmarks are one family, mean and minimum one each."""
    families = [[c for c in found if c.objective in single], *([c] for c in found if c.objective not in single)]
    adjusted: dict[str, dict[float, float]] = {}
    for family in families:
        keys = [(c.objective, alpha) for c in family for alpha in c.gains]
        holm = stats.holm([c.gains[alpha].p for c in family for alpha in c.gains])
        for (objective, alpha), p in zip(keys, holm, strict=True):
            adjusted.setdefault(objective, {})[alpha] = p
    return adjusted


@dataclass(frozen=True)
class _Joint:
    """The benchmarks that can be put together on their common nodes; `plains` where all of them have one."""

    benchmarks: tuple[str, ...]
    curves: tuple[Curve, ...]
    parents: tuple[Array, ...]
    plains: list[Array] | None


def _joint(responses: Sequence[Response]) -> tuple[_Joint | None, list[str]]:
    """Return what mean and minimum are over, and what was left out."""
    lams = sorted(set.intersection(*(set(map(float, r.curve.lams)) for r in responses)))
    kept: list[Response] = []
    parents: list[Array] = []
    notes: list[str] = []
    for response in responses:
        better = response.better_parent()
        if better is None or float(better[1].sum()) < ENOUGH:
            few = f"its better parent is right on fewer than {ENOUGH} items"
            why = "its parents are not evaluated on all its items" if better is None else few
            notes.append(f"{response.benchmark} {LEFT_OUT}: {why}")
            continue
        if response.lacking:
            notes.append(
                f"{response.benchmark} is relative to {better[0]}: {', '.join(response.lacking)} not evaluated"
            )
        kept.append(response)
        parents.append(better[1])
    if len(kept) < 2:
        return None, notes
    plains = [None if r.plain is None else aligned_to(r.plain, r.curve.ids) for r in kept]
    known = [plain for plain in plains if plain is not None]
    return _Joint(
        tuple(r.benchmark for r in kept),
        tuple(_at_nodes(r.curve, lams) for r in kept),
        tuple(parents),
        known if len(known) == len(plains) else None,
    ), notes


def _at_nodes(curve: Curve, lams: Sequence[float]) -> Curve:
    columns = [int(np.flatnonzero(curve.lams == lam)[0]) for lam in lams]
    return Curve(curve.ids, np.array(lams), curve.values[:, columns])


def _spreads(response: Response) -> dict[float, Spread]:
    found = {}
    for alpha in ALPHAS:
        masks = [100 * float(curve.expected(alpha).mean()) for curve in response.masks]
        error = interpolation_error(response.curve, alpha)
        found[alpha] = Spread(
            draws=100 * draw_sd(response.curve, alpha),
            masks=float(np.std(masks, ddof=1)) if len(masks) > 1 else None,
            interpolation=None if error is None else 100 * error,
        )
    return found


# --------------------------------------------------------------------------------------------------------- what is read


def records(found: Study) -> list[dict[str, Any]]:
    """Return the study as data, percent throughout: one record an objective."""
    return [_record(compared, found) for compared in found.comparisons]


def _record(compared: Comparison, found: Study) -> dict[str, Any]:
    spreads = found.spreads.get(compared.objective, {})
    unit = "percent" if spreads else "percent of the better parent"
    return {
        "objective": compared.objective,
        "unit": unit,
        "plain": _percent(compared.plain),
        "alpha": [
            {"alpha": alpha, **(_percent(figure) or {}), **({} if alpha not in spreads else _points(spreads[alpha])),
             "best": compared.best_alpha[alpha], "unbeaten": alpha in compared.unbeaten,
             "minus_plain": _minus_plain(compared, found, alpha)}
            for alpha, figure in compared.expected.items()
        ],
        **{
            name: {**(_percent(choice.honest) or {}), "claimed": 100 * choice.claimed, "sd": 100 * choice.sd,
                   "quantiles": [100 * q for q in choice.quantiles], **_kept(name, choice)}
            for name, choice in _choices(compared).items()
        },
        "developed": _developed_record(compared.developed, found.choosers.get(compared.objective)),
        "replay_minus_tuned": _percent(compared.contrast),
    }  # fmt: skip


def _kept(name: str, choice: Choice) -> dict[str, float | None]:
    """Return the lambda that is kept most often, with its share; of drawn lambdas, no two alike, the median alone."""
    if name == "replay":
        return {"lambda": float(np.median(choice.kept)), "share": None}
    lams, counts = np.unique(choice.kept, return_counts=True)
    return {"lambda": float(lams[np.argmax(counts)]), "share": float(counts.max() / counts.sum())}


def _minus_plain(compared: Comparison, found: Study, alpha: float) -> dict[str, Any] | None:
    gain = compared.gains.get(alpha)
    if gain is None:
        return None
    p = found.adjusted[compared.objective][alpha]
    real = ("better" if gain.value > 0 else "worse") if p < 0.05 else "not told apart"
    return {**(_percent(gain) or {}), "p": gain.p, "p_holm": p, "mark": real}


def _developed_record(developed: Developed | None, chooser: Chooser | None) -> dict[str, Any] | None:
    if developed is None or chooser is None:
        return None
    return {
        **(_percent(developed.score) or {}), "lambda": developed.lam, "share": chooser.share,
        "benchmarks": list(chooser.benchmarks), "minus_plain": _percent(developed.minus_plain),
        "minus_replay": _percent(developed.minus_replay),
    }  # fmt: skip


def _choices(compared: Comparison) -> dict[str, Choice]:
    return {"replay": compared.replay, "tuned": compared.tuned, "selected": compared.selected}


def _percent(figure: Figure | None) -> dict[str, float] | None:
    if figure is None:
        return None
    return {"score": 100 * figure.value, "low": 100 * figure.low, "high": 100 * figure.high}


def _points(spread: Spread) -> dict[str, float | None]:
    return {"sd_draws": spread.draws, "sd_masks": spread.masks, "interpolation": spread.interpolation}


_MARKS = {"better": " +", "worse": " -"}


def table(found: Study) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of text: a row a way of choosing, a column an objective.

    Behind an alpha's expectation ` +` or ` -` says that it differs from plain after Holm's adjustment.
    """
    data = records(found)
    header = ["", *(r["objective"] if r["unit"] == "percent" else f"{r['objective']} (of parent)" for r in data)]
    rows = [["plain", *(_text(r["plain"]) for r in data)]]
    for index, alpha in enumerate(ALPHAS):
        rows.append([f"E[alpha={alpha:g}]", *(_expected_text(r["alpha"][index]) for r in data)])
    rows += [
        ["best of 7 draws (paper)", *(_text(r["replay"], "sd") for r in data)],
        ["  as claimed on the same items", *(f"{r['replay']['claimed']:.1f}" for r in data)],
        ["best of 7 fixed lambdas", *(_text(r["tuned"], "sd") for r in data)],
    ]
    rows += _developed_rows(data) if found.choosers else [["best node, cross-fitted", *map(_cross_fitted, data)]]
    rows.append(["random - tuned", *(_text(r["replay_minus_tuned"], signed=True) for r in data)])
    return header, rows


def _developed_rows(data: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the rows of the node that development items chose; cross-fitted where there are none."""
    chosen = [r["developed"] for r in data]
    rows = [["chosen node, really evaluated"], ["  - plain"], ["  - best of 7 draws"]]
    for record, found in zip(data, chosen, strict=True):
        if found is None:
            rows[0].append(f"{_cross_fitted(record)}, cross-fitted")
        else:
            rows[0].append(f"{_text(found)} at {found['lambda']:.3g}, dev {100 * found['share']:.0f} %")
        rows[1].append(_text(found and found["minus_plain"], signed=True))
        rows[2].append(_text(found and found["minus_replay"], signed=True))
    return rows


def _cross_fitted(record: Mapping[str, Any]) -> str:
    found = record["selected"]
    return f"{_text(found)} at {found['lambda']:.3g} ({100 * found['share']:.0f} %)"


def _expected_text(figure: Mapping[str, Any]) -> str:
    masks = figure.get("sd_masks")
    text = _text(figure, "sd_draws") + (f" masks {masks:.1f}" if masks is not None else "")
    return text + (_MARKS.get(figure["minus_plain"]["mark"], "") if figure["minus_plain"] else "")


def _text(figure: Mapping[str, Any] | None, spread: str | None = None, *, signed: bool = False) -> str:
    if figure is None:
        return "/"
    sign = "+" if signed else ""
    text = f"{figure['score']:{sign}.1f} [{figure['low']:{sign}.1f}, {figure['high']:{sign}.1f}]"
    return f"{text} sd {figure[spread]:.1f}" if spread and figure.get(spread) is not None else text


def words(found: Study) -> list[str]:
    """Return the advice in sentences, with its uncertainty."""
    joint = next((c for c in found.comparisons if c.objective == "mean"), found.comparisons[0])
    best = max(joint.best_alpha, key=joint.best_alpha.__getitem__)
    contrast = joint.contrast
    verdict = "is better than" if contrast.low > 0 else "is worse than" if contrast.high < 0 else "cannot be told from"
    what = "the mean over benchmarks" if joint.objective == "mean" else joint.objective
    flattery = 100 * (joint.replay.claimed - joint.replay.honest.value)
    share = 100 * joint.best_alpha[best]
    return [
        f"advice for {what}: alpha = {best:g} is the best of the seven in {share:.0f} % of resamplings",
        f"random {verdict} tuned at equal cost: {100 * contrast.value:+.1f} points"
        f" [{100 * contrast.low:+.1f}, {100 * contrast.high:+.1f}]",
        f"choosing the best of seven draws on the items it is scored on flatters by {flattery:.1f} points",
        *_alpha_words(joint, found),
        *_dev_words(joint, found),
        *found.notes,
    ]


def _alpha_words(joint: Comparison, found: Study) -> list[str]:
    """Say which alphas may be the best, and what each is worth beside plain."""
    every = len(joint.unbeaten) == len(joint.expected)
    may = "any of the seven" if every else ", ".join(f"{alpha:g}" for alpha in joint.unbeaten)
    lines = [f"no other alpha is really better than {may} (paired by item, Holm over their 21 pairs)"]
    if joint.gains:
        texts = [
            f"{alpha:g}: {_text(_minus_plain(joint, found, alpha), signed=True)}{_alpha_mark(joint, found, alpha)}"
            for alpha in joint.gains
        ]
        lines.append(f"E[alpha] - plain in points: {'; '.join(texts)}  (+ or - behind: real after Holm over them)")
    return lines


def _alpha_mark(compared: Comparison, found: Study, alpha: float) -> str:
    gain = _minus_plain(compared, found, alpha)
    return _MARKS.get(gain["mark"], "") if gain else ""


def _dev_words(joint: Comparison, found: Study) -> list[str]:
    """Say what development items chose, or that there are none."""
    if not found.choosers:
        return ["no development items are evaluated: the best node is cross-fitted (m3 run sweeps=... items=dev)"]
    without = [r.benchmark for r in found.responses if r.benchmark not in found.choosers]
    lines = [f"no development items of {', '.join(without)}: cross-fitted there"] if without else []
    chooser = found.choosers.get(joint.objective)
    if chooser is not None and joint.developed is not None:
        gain = joint.developed.minus_replay
        on = ", ".join(chooser.benchmarks)
        lines.append(
            f"development items of {on} choose lambda = {chooser.lam:.3g} ({100 * chooser.share:.0f} % of resamplings);"
            f" minus best of seven draws: {_text(_percent(gain), signed=True)}, {gain.sign}"
        )
    return lines


def as_json(found: Study) -> str:
    """Return a study as one JSON object, named by its family, pair, method, hyper-parameters and sparsifier."""
    named = dict(zip(("family", "pair", "method", "params", "sparsify"), found.responses[0].line, strict=True))
    return json.dumps({**named, "objectives": records(found), "advice": words(found)})
