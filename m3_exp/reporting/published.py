"""The paper's numbers (results/published/*.csv) beside ours: differences, z, and where the paper contradicts itself.

A plain row is one model: our score and the paper's differ by sampling of items on both sides, so z is their difference
over both standard errors. An M3 row is a model at an unknown lambda: it has no z; what can be said is where the
published value lies among what the paper's protocol gives when it is replayed on our curve (its percentile).
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from m3_exp.reporting.protocols import ALPHAS, resampled
from m3_exp.reporting.response import Array, Curve

_REPLAYS = 2_000  # of the paper's protocol: a percentile to about one point

# Items that the paper scored on; its AlpacaEval column cannot be compared (see NOTES).
ITEMS = {
    "alpaca_eval": 805, "gsm8k": 1319, "hendrycks_math": 5000, "humaneval": 164, "mbpp": 500,
    "prompt_bench_sst2": 872, "prompt_bench_cola": 1043, "livebench_typos": 50,
}  # fmt: skip
# What the paper's search found for TIES (its Table 4), by pair, as a frame writes it.
TIES = {
    "lm_math": "retain 0.5, scaling 0.5",
    "lm_code": "retain 0.7, scaling 1",
    "math_code": "retain 0.5, scaling 1",
}
ATTACKS = {"table2": "stresstest", "table5": "deepwordbug", "table6": "bertattack"}

NOTES = {
    "alpaca": "paper's AlpacaEval: chatgpt_fn names a model that was retired before the paper appeared, and most values"
    " are not multiples of 1/805: not comparable in absolute terms, so no z",
    "8.53": "the paper's HumanEval 8.53 is 14 of 164 = 8.54",
    "same weights": "lm_math: average and task arithmetic share GSM8K and MATH in the paper (so s = 0.5, the same"
    " weights), yet differ by 0.5 points on AlpacaEval",
    "illegible": "illegible in the text of the paper that we have",
    "2.4": "average lm_code on MBPP is illegible; the paper's text gives the gain of M3 without DARE as +2.4",
    "cola": "CoLA: the paper says MCC; its script computes accuracy, and its numbers are whole counts of 1043",
    "baseline": "the paper's un-attacked baselines of one model and benchmark differ between its tables 2, 5 and 6",
    "derived": "derived: 483 of 872 from the printed PDR; the number itself is illegible",
    "scaling": "task arithmetic: the paper does not publish its scaling, so there is no z",
    "params": "TIES: other retain and scaling than the paper's search found (its Table 4): its number, not compared",
    "lambda": "M3 rows of the paper are one unseeded draw of lambda each; which alpha stands behind a cell is not"
    " published: where there is a curve they have, in place of a z, their percentile among replays of the paper's"
    " protocol (seven draws, one for each alpha, the best kept on the same items; both sides' items as random)",
}


@dataclass(frozen=True)
class Number:
    """A published figure in percent: None where it is not legible. `notes` are keys of NOTES."""

    value: float | None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "illegible" if self.value is None else f"{self.value:g}"


@dataclass(frozen=True)
class Row:
    """What names a row of the paper's tables."""

    method: str
    models: str
    mixup: bool
    dare: bool


def table1(folder: Path, row: Row, benchmark: str) -> Number | None:
    """Return Table 1's figure, or None where the paper has none."""
    for line in _lines(folder / "table1.csv"):
        named = Row(line["method"], line["models"], line["mixup"] == "1", line["dare"] == "1")
        if named == row and line.get(benchmark):
            return _number(line[benchmark], _table1_notes(row, benchmark, line[benchmark]))
    return None


def _table1_notes(row: Row, benchmark: str, text: str) -> list[str]:
    notes = ["alpaca"] if benchmark == "alpaca_eval" else []
    if text == "8.53":
        notes.append("8.53")
    if (row.method, row.models, row.dare, benchmark, text) == ("average", "lm_code", False, "mbpp", "?"):
        notes.append("2.4")
    if row.models == "lm_math" and row.method in ("average", "task_arithmetic") and not row.mixup and not row.dare:
        notes.append("same weights")
    return notes


def attacked(folder: Path, table: str, models: str, benchmark: str, mixup: bool) -> dict[str, Number]:
    """Return Table 2's, 5's or 6's figures of one row: accuracy without and with the attack, and PDR."""
    for line in _lines(folder / "adversarial.csv"):
        if (line["attack"], line["models"], line["dataset"]) == (ATTACKS.get(table), models, benchmark) and (
            line["mixup"] == "1"
        ) == mixup:
            notes = ["baseline", *(["cola"] if benchmark.endswith("cola") else [])]
            found = {key: _number(line[f"metric_{key}"], notes) for key in ("no_attack", "attack")}
            if found["attack"].value is None:
                found["attack"] = Number(round(100 * 483 / 872, 2), ("derived", *notes))
            return {**found, "pdr": _number(line["pdr"], notes)}
    return {}


def gain(folder: Path, models: str, benchmark: str, method: str) -> float | None:
    """Return Figure 4's gain of M3 in points, as the text states it; the bars themselves are not published."""
    for line in _lines(folder / "ood_gains.csv"):
        if (line["models"], line["benchmark"], line["method"]) == (models, benchmark, method):
            return float(line["gain_points"])
    return None


def _number(text: str, notes: Sequence[str]) -> Number:
    return Number(None, ("illegible", *notes)) if text == "?" else Number(float(text), tuple(notes))


@cache
def _lines(path: Path) -> tuple[dict[str, str], ...]:
    with path.open(newline="") as file:
        return tuple(csv.DictReader(file))


@dataclass(frozen=True)
class Beside:
    """A published figure beside ours: ours - theirs in points and its z, or the percentile of theirs in the replay."""

    number: Number
    difference: float | None = None
    z: float | None = None
    percentile: float | None = None

    def __str__(self) -> str:
        texts = [f"paper {self.number}"] if self.number.value is not None else ["paper: illegible"]
        texts += [f"{self.difference:+.1f}"] if self.difference is not None else []
        texts += [f"z {self.z:+.1f}"] if self.z is not None else []
        texts += [f"at {self.percentile:.0f} % of the replay"] if self.percentile is not None else []
        return f"({', '.join(texts)})"


def of_our_model(number: Number, method: str, models: str, params: str) -> tuple[Number, bool]:
    """Tell whether a published figure is of the model that we name so, as far as is known; the number notes why not."""
    if method == "ties" and params != TIES.get(models):
        return replace(number, notes=(*number.notes, "params")), False
    if method == "task_arithmetic":
        return replace(number, notes=(*number.notes, "scaling")), True
    return number, True


def beside_plain(number: Number, benchmark: str, score: float, n: int) -> Beside:
    """Compare the score (percent) of one model on n items. No z of AlpacaEval and task arithmetic."""
    if number.value is None or "alpaca" in number.notes or n < 1 or benchmark not in ITEMS:
        return Beside(number)
    found = None if "scaling" in number.notes else z(score, n, number.value, ITEMS[benchmark])
    return Beside(number, score - number.value, found)


def beside_mixed(number: Number, benchmark: str, curve: Curve | None) -> Beside:
    """Say where the paper's M3 figure lies among replays on our curve; nothing without one or where not comparable."""
    known = number.value is not None and "alpaca" not in number.notes and benchmark in ITEMS
    if not known or number.value is None or curve is None or not len(curve.ids):
        return Beside(number)
    return Beside(number, percentile=percentile(number.value, replayed(curve, ITEMS[benchmark])))


def replayed(curve: Curve, n_published: int, repeats: int = _REPLAYS, seed: int = 0) -> Array:
    """Replay the paper's protocol: one draw for each of its alphas, the best on the curve's own items; (repeats,).

    What our items leave open is resampled in each repetition, and the score kept is one on `n_published` items.
    """
    generator = np.random.default_rng(seed)
    draws = np.column_stack([generator.beta(alpha, alpha, repeats) for alpha in ALPHAS])
    heights = resampled(len(curve.ids), repeats, generator) @ curve.values
    tops = [float(np.interp(lams, curve.lams, height).max()) for lams, height in zip(draws, heights, strict=True)]
    return np.asarray(generator.binomial(n_published, np.clip(tops, 0, 1)) / n_published)


def z(score: float, n: int, published: float, n_published: int) -> float | None:
    """Return the z of two independent proportions in percent (ours - the paper's); None where neither varies."""
    ours, theirs = score / 100, published / 100
    variance = ours * (1 - ours) / n + theirs * (1 - theirs) / n_published
    return (ours - theirs) / math.sqrt(variance) if variance > 0 else None


def percentile(published: float, replayed: Array) -> float:
    """Return where a published value (percent) lies among replayed scores (0 to 1): 0 to 100, ties counted half."""
    below = float(np.mean(replayed < published / 100)) + float(np.mean(replayed == published / 100)) / 2
    return 100 * below
