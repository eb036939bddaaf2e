"""The curve against reality: what it predicts beside what real draws of lambda scored, paired by item.

Predictions go along the curve through all real merges, nodes and sampled lambdas, as the replay does: all of them are
called nodes here. A prediction differs from reality for two reasons. Where the expected score bends between two nodes,
a straight line is off, for every set of items: that is an error of the curve. And an item whose verdict differs between
two nodes turns somewhere in between, which the line, being an expectation, cannot say where: that is chance, the same
kind as which items were asked. Generation adds nothing here in float32, greedy (docs/lab.md); elsewhere it is a third
reason. The intervals are those of `stats.turning`; a *still* draw, of which no item differs between its two nodes, is
counted apart, since it tests hardly anything.

E[score | alpha] is held against the mean of the real draws of that alpha: with sampled lambdas the corrected one, and
what these leave open is in the interval. Draws count as independent. Those of today's rule are stratified, so their
mean is nearer to the expectation than the interval says; draws of older stores are never taken for stratified.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m3_exp.reporting.curves.evaluated import Draw, Response, Values, averaged
from m3_exp.stats.estimate import Array, weighted_mean
from m3_exp.stats.lambdas import ALPHAS, Curve
from m3_exp.stats.turning import agreement, beside_expectation, beside_line, turned
from m3_exp.types import Json

_SAME = 1e-6  # lambdas nearer than this give the same answers: a draw so near a node tests nothing
_CHUNK = 250  # repetitions of the replay at a time


@dataclass(frozen=True)
class Prediction:
    """One real draw beside its curve, over `n` items; scores from 0 to 1. `half`: of the difference's 95 % interval.

    `turning` items differ between the two nodes: where none does (`still`), an agreement says little.
    """

    alpha: float
    number: int
    lam: float
    n: int
    turning: int
    real: float
    predicted: float
    half: float

    @property
    def difference(self) -> float:
        return self.real - self.predicted

    @property
    def inside(self) -> bool:
        return abs(self.difference) <= self.half + 1e-12

    @property
    def still(self) -> bool:
        return self.turning == 0


@dataclass(frozen=True)
class Expectation:
    """The mean of `draws` real draws of one alpha beside E[score | alpha]; `half` the 95 % interval of real - expected.

    `predicted` is the curve at the same lambdas: what is left between it and `expected` is the luck of the draws.
    `corrected`: the expectation is free of interpolation error; else its bound is in `half`.
    """

    alpha: float
    draws: int
    real: float
    predicted: float
    expected: float
    half: float
    corrected: bool


@dataclass(frozen=True)
class Replay:
    """The best of one draw for each alpha: real experiments beside the protocol replayed; scores from 0 to 1.

    `lines` replays on the curve as it is (to whole items where real scores are), `turns` lets every item turn once
    between nodes where its verdict differs.
    """

    real: Array
    lines: Array
    turns: Array


@dataclass(frozen=True)
class Check:
    """What real draws say of one curve, which goes through `merges`. `trivial` draws are at one of these or repeat a
    lambda; `unpaired` ones have other masks or items than the curve.
    """

    benchmark: str
    merges: str
    predictions: tuple[Prediction, ...]
    expectations: tuple[Expectation, ...]
    replay: Replay | None
    trivial: int
    unpaired: int


def check(response: Response, *, repeats: int = 10_000, seed: int = 0) -> Check:
    """Hold a curve against its real draws."""
    beside = [(draw, curve) for draw in response.draws if (curve := _curve_for(response, draw)) is not None]
    counted = _counted(beside)
    return Check(
        benchmark=response.benchmark,
        merges=response.merges,
        predictions=tuple(predict(curve, draw) for draw, curve in counted),
        expectations=tuple(
            _expectation(alpha, [pair for pair in beside if pair[0].alpha == alpha])
            for alpha in sorted({draw.alpha for draw, _ in beside})
        ),
        replay=replay(response, [draw for draw, _ in beside], repeats=repeats, seed=seed),
        trivial=len(beside) - len(counted),
        unpaired=len(response.draws) - len(beside),
    )


def _curve_for(response: Response, draw: Draw) -> Curve | None:
    """Return the curve under the draw's own masks, on the items that both have; None where there is none."""
    if not set(draw.mask_seeds) <= set(response.mask_seeds) or bool(draw.mask_seeds) != bool(response.mask_seeds):
        return None
    curve = response.curve
    if draw.mask_seeds:
        curve = averaged([response.masks[response.mask_seeds.index(seed)] for seed in draw.mask_seeds])
    curve = curve.having(draw.values)
    return curve if len(curve.ids) > 1 else None


def _counted(beside: Sequence[tuple[Draw, Curve]]) -> list[tuple[Draw, Curve]]:
    """Return the draws that say something: distinct lambdas, none at a node."""
    counted: list[tuple[Draw, Curve]] = []
    for draw, curve in sorted(beside, key=lambda pair: (pair[0].alpha, *_order(pair[0]))):
        new = all(abs(draw.lam - other.lam) >= _SAME for other, _ in counted)
        if new and np.min(np.abs(curve.refined().lams - draw.lam)) >= _SAME:
            counted.append((draw, curve))
    return counted


def _order(draw: Draw) -> tuple[int, str]:
    """Draws of one number come from several seeds: their order must not depend on lambda's size."""
    return draw.number, hashlib.sha256(repr(draw.lam).encode()).hexdigest()


def predict(curve: Curve, draw: Draw) -> Prediction:
    """Hold one draw against the curve through all real merges. Every item of the curve must have a value."""
    along = curve.refined()
    return Prediction(
        draw.alpha, draw.number, draw.lam, **vars(beside_line(along, draw.lam, _scored(draw.values, along)))
    )


def _scored(values: Values, curve: Curve) -> Array:
    return np.array([values[key] for key in curve.ids], dtype=float)


# ------------------------------------------------------------------------------------------- the mean over draws


def _expectation(alpha: float, beside: Sequence[tuple[Draw, Curve]]) -> Expectation:
    """Compare the mean over real draws with the expectation, over the items that all draws have."""
    draws = [draw for draw, _ in beside]
    curve = _shared([curve for _, curve in beside])
    real = np.mean([_scored(draw.values, curve) for draw in draws], axis=0)
    found = beside_expectation(curve, alpha, [draw.lam for draw in draws], real)
    return Expectation(alpha, len(draws), *found, curve.corrected(alpha))


def _shared(curves: Sequence[Curve]) -> Curve:
    """Return the mean of curves on the items that all have."""
    ids = set.intersection(*(set(curve.ids) for curve in curves))
    return averaged([curve.having(ids) for curve in curves])


# --------------------------------------------------------------------------------------------------- the protocol


def experiments(draws: Sequence[Draw], alphas: Sequence[float] = ALPHAS) -> list[list[Draw]]:
    """Put real draws together as the paper did: one for each alpha, none used twice, as many as they suffice for."""
    by_alpha = [sorted((draw for draw in draws if draw.alpha == alpha), key=_order) for alpha in alphas]
    return [list(members) for members in zip(*by_alpha, strict=False)]


def replay(response: Response, draws: Sequence[Draw], *, repeats: int = 10_000, seed: int = 0) -> Replay | None:
    """Return the best-of-seven scores of real experiments and of the replayed protocol on the same items.

    None where an alpha has no draw. It goes along the curve through all real merges; with DARE that is the mean over
    masks.
    """
    sets = experiments(draws)
    if not sets:
        return None
    shared = set.intersection(*(set(draw.values) for members in sets for draw in members))
    curve = response.curve.having(shared).refined()
    if not curve.ids:
        return None
    real = [max(float(weighted_mean(_scored(draw.values, curve), curve.shape)) for draw in members) for members in sets]
    generator = np.random.default_rng(seed)
    lams = np.column_stack([generator.beta(alpha, alpha, repeats) for alpha in ALPHAS])
    parts = [turned(curve, lams[start : start + _CHUNK], generator) for start in range(0, repeats, _CHUNK)]
    lines = np.interp(lams, curve.lams, curve.means).max(axis=1)
    if curve.shape.even:
        lines = np.round(lines * len(curve.ids)) / len(curve.ids)
    return Replay(np.array(real), lines, np.concatenate(parts).max(axis=1))


# ------------------------------------------------------------------------------------------------------ what is read


def record(check: Check) -> Json:
    """Return a check as data, in percent and points."""
    differences = 100 * np.array([p.difference for p in check.predictions])
    return {
        "benchmark": check.benchmark,
        "merges": check.merges,
        "draws": len(check.predictions),
        "inside": sum(p.inside for p in check.predictions),
        "rms": float(np.sqrt(np.mean(differences**2))) if len(differences) else None,
        "mean": float(differences.mean()) if len(differences) else None,
        "half": float(np.mean([100 * p.half for p in check.predictions])) if check.predictions else None,
        "still": sum(p.still for p in check.predictions),
        "still_inside": sum(p.still and p.inside for p in check.predictions),
        "trivial": check.trivial,
        "unpaired": check.unpaired,
        "predictions": [_percent(vars(p)) | {"inside": p.inside, "still": p.still} for p in check.predictions],
        "expectations": [_percent(vars(e)) for e in check.expectations],
        "replay": None if check.replay is None else _replayed(check.replay),
    }


def _percent(values: Mapping[str, Any]) -> Json:
    scores = ("real", "predicted", "expected", "half")
    return {key: 100 * value if key in scores else value for key, value in values.items()}


def _replayed(replay: Replay) -> Json:
    parts = {"lines": replay.lines, "turns": replay.turns}
    agreed = {name: {**_summary(values), **vars(agreement(replay.real, values))} for name, values in parts.items()}
    return {"real": _summary(replay.real), **agreed}


def _summary(values: Array) -> Json:
    sd = 100 * float(values.std(ddof=1)) if len(values) > 1 else None
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    return {
        "n": len(values), "mean": 100 * float(values.mean()), "sd": sd,
        "quantiles": [100 * float(low), 100 * float(middle), 100 * float(high)],
    }  # fmt: skip


def words(check: Check) -> list[str]:
    """Return what real draws say of the curve, in sentences; percent and points."""
    data: Mapping[str, Any] = record(check)
    if not check.predictions:
        return [f"{check.benchmark}: no real draw lies between the nodes"]
    lines = [_inside_words(check, data)]
    lines += [
        f"  E{'' if e.corrected else '*'}[alpha={e.alpha:g}] = {100 * e.expected:.1f}; mean of {e.draws} real draws"
        f" {100 * e.real:.1f}, difference {100 * (e.real - e.expected):+.1f} +- {100 * e.half:.1f}; the curve at the"
        f" same lambdas {100 * e.predicted:.1f}"
        for e in check.expectations
    ]
    if any(not e.corrected for e in check.expectations):
        lines.append(
            "  E*: from the nodes alone; its +- holds the bend between them that the nodes themselves show"
            f" (ratio.sampled=16 corrects it for alpha from {ALPHAS[0]:g} to {ALPHAS[-1]:g})"
        )
    if data["inside"] - data["still_inside"] < 0.9 * (data["draws"] - data["still"]):
        lines.append(
            "  the score bends between the nodes: more of them come closer (ratio.nodes=17 computes the new ones only)"
        )
    return lines + ([] if data["replay"] is None else _replay_words(data["replay"]))


def _inside_words(check: Check, data: Mapping[str, Any]) -> str:
    """Say how many draws that test something lie in their intervals; those that test nothing are named apart."""
    moving, still = data["draws"] - data["still"], data["still"]
    parts = []
    if moving:
        parts.append(f"{data['inside'] - data['still_inside']} of {moving} real draws inside their 95 % intervals")
    if still:
        parts.append(f"{data['still_inside']} of {still} where no item differs between the nodes, which says little")
    parts.append(f"on the curve through {check.merges} (half-width {data['half']:.1f} on average)")
    return (
        f"{check.benchmark}: {', '.join(parts)}; RMS error {data['rms']:.2f} points, mean error {data['mean']:+.2f}"
        + (f"; {check.trivial} at a node or repeated, not counted" if check.trivial else "")
        + (f"; {check.unpaired} with other masks or items left out" if check.unpaired else "")
    )


def _replay_words(data: Mapping[str, Any]) -> list[str]:
    real = data["real"]
    spread = "" if real["sd"] is None else f", sd {real['sd']:.1f}"
    lines = [f"  best of 7, {real['n']} real experiments: mean {real['mean']:.1f}{spread}"]
    for name, how in (("lines", "replayed on the curve"), ("turns", "with items turning between nodes")):
        one = data[name]
        low, middle, high = one["quantiles"]
        lines.append(
            f"    {how}: mean {one['mean']:.1f}, sd {one['sd']:.1f}, 95 % from {low:.1f} to {high:.1f} (median"
            f" {middle:.1f}); {one['inside']} of {real['n']} real ones in it, Kolmogorov-Smirnov p = {one['p']:.2f}"
        )
    return lines


def table(check: Check) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of text, a row a draw that counts."""
    header = ["alpha", "draw", "lambda", "items", "turning", "real", "predicted", "difference", "inside"]
    rows = [
        [f"{p.alpha:g}", str(p.number), f"{p.lam:.4f}", str(p.n), str(p.turning),
         f"{100 * p.real:.1f}", f"{100 * p.predicted:.1f}", f"{100 * p.difference:+.1f} +- {100 * p.half:.1f}",
         ("still" if p.still else "yes") if p.inside else "NO"]
        for p in check.predictions
    ]  # fmt: skip
    return header, rows


def as_json(checks: Sequence[Check]) -> str:
    return json.dumps({"checks": [record(one) for one in checks]})
