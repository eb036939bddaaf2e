"""What `m3 response` says of a pair and method: ways of choosing lambda on every benchmark, their mean and minimum.

Benchmarks are in percent; mean and minimum in percent of the better parent, over the benchmarks that both parents have.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m3_exp.reporting import stats
from m3_exp.reporting.curves import Response, aligned_to
from m3_exp.reporting.protocols import ALPHAS, Choice, Comparison, Figure, Objective, compare
from m3_exp.reporting.response import Array, Curve, draw_sd, interpolation_error

_ENOUGH = 10  # right items of a parent, for ratios to it to mean anything


@dataclass(frozen=True)
class Spread:
    """What one alpha's expectation is unsure of besides items, in percent points: draws, masks, interpolation."""

    draws: float
    masks: float | None
    interpolation: float | None


@dataclass(frozen=True)
class Study:
    """All of one pair and method: comparisons by objective, spreads by benchmark and alpha, and what was left out."""

    responses: tuple[Response, ...]
    comparisons: tuple[Comparison, ...]
    spreads: Mapping[str, Mapping[float, Spread]]
    notes: tuple[str, ...]


def study(responses: Sequence[Response], *, repeats: int = 10_000, resamples: int = 1_000, seed: int = 0) -> Study:
    """Compare all ways of choosing lambda on the benchmarks of one pair and method.

    Raises:
        ValueError: there is no curve.
    """
    if not responses:
        raise ValueError("no benchmark has a curve: at least lambda 0 and 1 must be evaluated")
    found: list[Comparison] = []
    options: dict[str, Any] = {"repeats": repeats, "resamples": resamples, "seed": seed}
    for response in responses:
        plain = None if response.plain is None else aligned_to(response.plain, response.curve.ids)
        compared = compare(
            Objective(response.benchmark, (response.curve,)), None if plain is None else [plain], **options
        )
        found.append(_with_item_intervals(compared, response.curve, plain))
    joint, notes = _joint(responses)
    if joint:
        curves, parents, plains = joint
        found += [compare(Objective("mean", curves, parents, "mean"), plains, **options)]
        found += [compare(Objective("minimum", curves, parents, "minimum"), plains, **options)]
    return Study(tuple(responses), tuple(found), {r.benchmark: _spreads(r) for r in responses}, tuple(notes))


def _with_item_intervals(compared: Comparison, curve: Curve, plain: Array | None) -> Comparison:
    """Give a single benchmark's figures the intervals that tables use: each item gives one number."""

    def figure(values: Array) -> Figure:
        return Figure(float(values.mean()), *stats.mean_interval(values))

    expected = {alpha: figure(curve.expected(alpha)) for alpha in compared.expected}
    return Comparison(**{**vars(compared), "expected": expected, "plain": None if plain is None else figure(plain)})


def _joint(
    responses: Sequence[Response],
) -> tuple[tuple[tuple[Curve, ...], tuple[Array, ...], list[Array] | None] | None, list[str]]:
    """Return curves, better parents and plain values of the benchmarks that can be put together; what was left out."""
    lams = sorted(set.intersection(*(set(map(float, r.curve.lams)) for r in responses)))
    curves: list[Curve] = []
    parents: list[Array] = []
    plains: list[Array | None] = []
    notes: list[str] = []
    for response in responses:
        better = response.better_parent()
        if better is None or float(better[1].sum()) < _ENOUGH:
            few = f"its better parent is right on fewer than {_ENOUGH} items"
            why = "its parents are not evaluated" if better is None else few
            notes.append(f"{response.benchmark} is not in mean and minimum: {why}")
            continue
        columns = [int(np.flatnonzero(response.curve.lams == lam)[0]) for lam in lams]
        curves.append(Curve(response.curve.ids, np.array(lams), response.curve.values[:, columns]))
        parents.append(better[1])
        plains.append(None if response.plain is None else aligned_to(response.plain, response.curve.ids))
    if len(curves) < 2:
        return None, notes
    known = [plain for plain in plains if plain is not None]
    return (tuple(curves), tuple(parents), known if len(known) == len(plains) else None), notes


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
             "best": compared.best_alpha[alpha]}
            for alpha, figure in compared.expected.items()
        ],
        **{
            name: {**(_percent(choice.honest) or {}), "claimed": 100 * choice.claimed, "sd": 100 * choice.sd,
                   "quantiles": [100 * q for q in choice.quantiles], "lambda": float(np.median(choice.kept))}
            for name, choice in _choices(compared).items()
        },
        "replay_minus_tuned": _percent(compared.contrast),
    }  # fmt: skip


def _choices(compared: Comparison) -> dict[str, Choice]:
    return {"replay": compared.replay, "tuned": compared.tuned, "selected": compared.selected}


def _percent(figure: Figure | None) -> dict[str, float] | None:
    if figure is None:
        return None
    return {"score": 100 * figure.value, "low": 100 * figure.low, "high": 100 * figure.high}


def _points(spread: Spread) -> dict[str, float | None]:
    return {"sd_draws": spread.draws, "sd_masks": spread.masks, "interpolation": spread.interpolation}


def table(found: Study) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of text: a row a way of choosing, a column an objective."""
    data = records(found)
    header = ["", *(r["objective"] if r["unit"] == "percent" else f"{r['objective']} (of parent)" for r in data)]
    rows = [["plain", *(_text(r["plain"]) for r in data)]]
    for index, alpha in enumerate(ALPHAS):
        rows.append([f"E[alpha={alpha:g}]", *(_text(r["alpha"][index], "sd_draws") for r in data)])
    rows += [
        ["best of 7 draws (paper)", *(_text(r["replay"], "sd") for r in data)],
        ["  as claimed on the same items", *(f"{r['replay']['claimed']:.1f}" for r in data)],
        ["best of 7 fixed lambdas", *(_text(r["tuned"], "sd") for r in data)],
        ["best node, really evaluated", *(f"{_text(r['selected'])} at {r['selected']['lambda']:.3g}" for r in data)],
        ["random - tuned", *(_text(r["replay_minus_tuned"], signed=True) for r in data)],
    ]
    return header, rows


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
        *found.notes,
    ]


def as_json(found: Study) -> str:
    return json.dumps({"objectives": records(found), "advice": words(found)})
