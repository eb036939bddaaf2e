"""What a curve predicts beside what evaluated draws of lambda scored, paired by item (`m3 response --check`).

Predictions go along the refined curve, through nodes and sampled lambdas; all of them are called nodes here. A
prediction differs from an observed score for two reasons. If the expected score bends between two nodes, a straight
line is off for every set of items: an error of the curve. And if an item's verdict differs between two nodes, it
changes somewhere in between, and a line cannot say where: chance, like the choice of items. In float32, greedy,
generation adds nothing (docs/lab.md); elsewhere it is a third reason. The intervals are those of `stats.turning`. A
draw is *still* if no item differs between its two nodes; it is counted apart, since it tests hardly anything.

E[score | alpha] is compared with the mean of the observed draws of that alpha. With sampled lambdas it is the corrected
one, and their variance is in the interval. Draws count as independent, also where they are stratified; their mean is
then nearer to the expectation than the interval says.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from m3_exp.reporting.curves.evaluated import Draw, Response, Values, averaged
from m3_exp.reporting.curves.places import said
from m3_exp.stats.estimate import Array, central, deviation, weighted_mean
from m3_exp.stats.expectation import ALPHAS, Evaluated
from m3_exp.stats.fitted import Fitted
from m3_exp.stats.lambdas import Curve
from m3_exp.stats.turning import agreement, beside_expectation, beside_line, turned
from m3_exp.types import Json

_SAME = 1e-6  # lambdas nearer than this give the same answers: a draw so near a node tests nothing
_CHUNK = 250  # repetitions of the replay at a time


@dataclass(frozen=True)
class Prediction:
    """One observed draw (`real`) beside its curve (`predicted`), over `n` items; scores from 0 to 1.

    `shares` are those of three experts and more; lambda is then NaN.
    `half`: half the width of the difference's 95 % interval. `turning` items differ between the two nodes; if none does
    (`still`), an agreement says little.
    """

    alpha: float
    number: int
    lam: float
    n: int
    turning: int
    real: float
    predicted: float
    half: float
    shares: tuple[float, ...] = ()

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
    """The mean of `draws` observed draws of one alpha (`real`) beside E[score | alpha] (`expected`).

    `half`: half the width of the 95 % interval of real - expected. `predicted`: the curve at the same lambdas; it
    differs from `expected` by the luck of the draws. `corrected`: the expectation has no interpolation error; else a
    bound of it is in `half`.
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
    """The paper's protocol, the best of one draw for each alpha: as observed, and as replayed; scores from 0 to 1.

    `lines` replays on the curve as it is (rounded to whole items if observed scores are). `turns` lets every item whose
    verdict differs between two nodes change once in between, at a random place.
    """

    real: Array
    lines: Array
    turns: Array


@dataclass(frozen=True)
class Check:
    """How observed draws agree with one curve. `merges` says what the curve goes through: `9 nodes + 16 sampled`.

    Left out and counted: `trivial` draws, which are at a node or repeat a lambda; `unpaired` ones, which have other
    masks or items than the curve.
    """

    benchmark: str
    merges: str
    predictions: tuple[Prediction, ...]
    expectations: tuple[Expectation, ...]
    replay: Replay | None
    trivial: int
    unpaired: int


def check(response: Response, *, repeats: int = 10_000, seed: int = 0) -> Check:
    """Compare a curve with its observed draws."""
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


def _curve_for(response: Response, draw: Draw) -> Evaluated | None:
    """Return the curve under the draw's own masks, on the items that both have; None where there is none."""
    if not set(draw.mask_seeds) <= set(response.mask_seeds) or bool(draw.mask_seeds) != bool(response.mask_seeds):
        return None
    curve = response.curve
    if draw.mask_seeds:
        curve = averaged([response.masks[response.mask_seeds.index(seed)] for seed in draw.mask_seeds])
    curve = curve.having(draw.values)
    return curve if len(curve.ids) > 1 else None


def _counted(beside: Sequence[tuple[Draw, Evaluated]]) -> list[tuple[Draw, Evaluated]]:
    """Return the draws that say something: distinct lambdas, none at a node."""
    counted: list[tuple[Draw, Evaluated]] = []
    for draw, curve in sorted(beside, key=lambda pair: (pair[0].alpha, *_order(pair[0]))):
        new = all(_apart(draw.at, other.at) for other, _ in counted)
        if new and all(_apart(draw.at, point) for point in curve.refined().points):
            counted.append((draw, curve))
    return counted


def _apart(first: float | Array, second: float | Array) -> bool:
    return bool(np.max(np.abs(np.asarray(first) - second)) >= _SAME)


def _order(draw: Draw) -> tuple[int, str]:
    """Draws of one number come from several seeds: their order must not depend on lambda's size."""
    return draw.number, hashlib.sha256(repr(draw.shares or draw.lam).encode()).hexdigest()


def predict(curve: Evaluated, draw: Draw) -> Prediction:
    """Compare one draw with the refined curve. Every item of the curve must have a value.

    Over a simplex the evaluated mixtures lie further apart than lambdas on a curve: how far the score may bend between
    them is added, and twice that of a fitted surface, which is off by its residuals at the sampled points.
    """
    along = curve.refined()
    line = beside_line(along, draw.at, _scored(draw.values, along))
    if not isinstance(curve, Curve):
        bend = float(curve.bend_at(np.array([draw.at]))[0])
        line = replace(line, half=line.half + (2 if isinstance(curve, Fitted) else 1) * bend)
    return Prediction(draw.alpha, draw.number, draw.lam, **vars(line), shares=draw.shares)


def _scored(values: Values, curve: Evaluated) -> Array:
    return np.array([values[key] for key in curve.ids], dtype=float)


# ------------------------------------------------------------------------------------------- the mean over draws


def _expectation(alpha: float, beside: Sequence[tuple[Draw, Evaluated]]) -> Expectation:
    """Compare the mean over observed draws with the expectation, over the items that all draws have."""
    draws = [draw for draw, _ in beside]
    curve = _shared([curve for _, curve in beside])
    real = np.mean([_scored(draw.values, curve) for draw in draws], axis=0)
    compared = beside_expectation(curve, alpha, [draw.at for draw in draws], real)
    return Expectation(alpha, len(draws), *compared, curve.corrected(alpha))


def _shared(curves: Sequence[Evaluated]) -> Evaluated:
    """Return the mean of curves on the items that all have."""
    ids = set.intersection(*(set(curve.ids) for curve in curves))
    return averaged([curve.having(ids) for curve in curves])


# --------------------------------------------------------------------------------------------------- the protocol


def experiments(draws: Sequence[Draw], alphas: Sequence[float] = ALPHAS) -> list[list[Draw]]:
    """Group draws into experiments as in the paper: one draw for each alpha, none used twice."""
    by_alpha = [sorted((draw for draw in draws if draw.alpha == alpha), key=_order) for alpha in alphas]
    return [list(members) for members in zip(*by_alpha, strict=False)]


def replay(response: Response, draws: Sequence[Draw], *, repeats: int = 10_000, seed: int = 0) -> Replay | None:
    """Return the best-of-seven scores of observed experiments, and of the replayed protocol on the same items.

    None if an alpha has no draw. The replay goes along the refined curve; with DARE that is the mean over masks.
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
    drawn = np.stack([curve.drawn(alpha, repeats, generator) for alpha in ALPHAS], axis=1)
    parts = [turned(curve, drawn[start : start + _CHUNK], generator) for start in range(0, repeats, _CHUNK)]
    lines = curve.scores_at(drawn).max(axis=1)
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
        "predictions": [_placed(p) | {"inside": p.inside, "still": p.still} for p in check.predictions],
        "expectations": [_percent(vars(e)) for e in check.expectations],
        "replay": None if check.replay is None else _replayed(check.replay),
    }


def _placed(one: Prediction) -> Json:
    """Return a prediction as data: lambda of two experts, the shares of more."""
    values = _percent(vars(one))
    del values["lam" if one.shares else "shares"]
    return values


def _percent(values: Mapping[str, Any]) -> Json:
    scores = ("real", "predicted", "expected", "half")
    return {key: 100 * value if key in scores else value for key, value in values.items()}


def _replayed(replay: Replay) -> Json:
    parts = {"lines": replay.lines, "turns": replay.turns}
    agreed = {name: {**_summary(values), **vars(agreement(replay.real, values))} for name, values in parts.items()}
    return {"real": _summary(replay.real), **agreed}


def _summary(values: Array) -> Json:
    sd = deviation(values)
    return {
        "n": len(values), "mean": 100 * float(values.mean()), "sd": None if sd is None else 100 * sd,
        "quantiles": [100 * point for point in central(values)],
    }  # fmt: skip


def words(check: Check) -> list[str]:
    """Return how observed draws agree with the curve, in sentences; percent and points."""
    data: Mapping[str, Any] = record(check)
    if not check.predictions:
        return [f"{check.benchmark}: no real draw lies between the nodes"]
    lines = [_inside_words(check, data)]
    lines += [
        f"  E{'' if e.corrected else '*'}[alpha={e.alpha:g}] = {100 * e.expected:.1f}; mean of {e.draws} real draws"
        f" {100 * e.real:.1f}, difference {100 * (e.real - e.expected):+.1f} +- {100 * e.half:.1f}; the curve at the"
        f" same {'mixtures' if _of_more(check) else 'lambdas'} {100 * e.predicted:.1f}"
        for e in check.expectations
    ]
    if any(not e.corrected for e in check.expectations):
        lines.append(
            "  E*: from the nodes alone; its +- holds the bend between them that the nodes themselves show"
            f" (ratio.sampled=16 corrects it for alpha from {ALPHAS[0]:g} to {ALPHAS[-1]:g})"
        )
    if data["inside"] - data["still_inside"] < 0.9 * (data["draws"] - data["still"]):
        lines.append(
            "  the score bends between the nodes: more of them come closer"
            f" (ratio.nodes={45 if _of_more(check) else 17} computes the new ones only)"
        )
    return lines + ([] if data["replay"] is None else _replay_words(data["replay"]))


def _of_more(check: Check) -> bool:
    return any(p.shares for p in check.predictions)


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
    of_more = _of_more(check)
    where = "shares" if of_more else "lambda"
    header = ["alpha", "draw", where, "items", "turning", "real", "predicted", "difference", "inside"]
    rows = [
        [f"{p.alpha:g}", str(p.number), said(p.shares) if of_more else f"{p.lam:.4f}", str(p.n), str(p.turning),
         f"{100 * p.real:.1f}", f"{100 * p.predicted:.1f}", f"{100 * p.difference:+.1f} +- {100 * p.half:.1f}",
         ("still" if p.still else "yes") if p.inside else "NO"]
        for p in check.predictions
    ]  # fmt: skip
    return header, rows


def as_json(checks: Sequence[Check]) -> str:
    return json.dumps({"checks": [record(one) for one in checks]})
