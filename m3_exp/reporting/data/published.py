"""The paper's numbers (results/published/*.csv) beside ours: differences, z, and where the paper contradicts itself.

A plain row is one model, and both sides answered the same items: how far their scores differ by chance depends on how
alike the answers are, item by item, and the paper's are not published. So z is a range: from independent answers to
answers as alike as two such scores can have. An M3 row is a model at an unknown lambda: it has no z; what can be said
is where the published value lies among what the paper's protocol gives when it is replayed on our curve: a range too.
"""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from m3_exp.reading.files import MIB, read_text
from m3_exp.stats.estimate import LEVEL, Array, normal, proportion
from m3_exp.stats.lambdas import ALPHAS, Curve
from m3_exp.stats.resampling import resampled
from m3_exp.types import M3Error

_REPLAYS = 2_000  # of the paper's protocol: a percentile to about one point
_PRINTED = 0.01  # points: two scores nearer than this are one; the paper rounds to two decimals, or cuts (8.53)

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
_COLUMNS = {
    "table1": ("method", "models", "mixup", "dare"),
    "adversarial": ("attack", "models", "dataset", "mixup", "metric_no_attack", "metric_attack", "pdr"),
    "ood_gains": ("models", "benchmark", "method", "gain_points"),
}
_FLAGS = ("mixup", "dare")
_FIGURES = (*ITEMS, "metric_no_attack", "metric_attack", "pdr", "gain_points")
_FIGURE = re.compile(r"[-+]?[0-9]{1,4}(\.[0-9]{1,9})?")
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
    " protocol (seven draws, one for each alpha, the best kept on the same items). It is a range, the smaller first, of"
    " two readings: both sides' items as random (independent answers), and the very same items and answers for both, so"
    " that only the draws of lambda (and which of the items are ours) vary. A percentile in the middle is no evidence"
    " that the models agree",
    "correlation": "z is ours - the paper's in standard errors, as a range: first as if the two models' answers were"
    " independent (so is the 95 % interval of the difference), then as if they were as alike as two such scores can be."
    " Both answered the same items, so the truth lies between. A small z is no evidence that the models agree; and a"
    " large second number is none that they differ, since one model evaluated twice can have it. Flips that `repeat`"
    " measured are only a lower bound of the second one's standard error. Some of the paper's items count as drawn from"
    " them at random",
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
    for line in rows(folder / "table1.csv"):
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
    for line in rows(folder / "adversarial.csv"):
        if (line["attack"], line["models"], line["dataset"]) == (ATTACKS.get(table), models, benchmark) and (
            line["mixup"] == "1"
        ) == mixup:
            notes = ["baseline", *(["cola"] if benchmark.endswith("cola") else [])]
            numbers = {key: _number(line[f"metric_{key}"], notes) for key in ("no_attack", "attack")}
            if numbers["attack"].value is None:
                numbers["attack"] = Number(round(100 * 483 / 872, 2), ("derived", *notes))
            return {**numbers, "pdr": _number(line["pdr"], notes)}
    return {}


def gain(folder: Path, models: str, benchmark: str, method: str) -> float | None:
    """Return Figure 4's gain of M3 in points, as the text states it; the bars themselves are not published."""
    for line in rows(folder / "ood_gains.csv"):
        if (line["models"], line["benchmark"], line["method"]) == (models, benchmark, method):
            return _number(line["gain_points"], ()).value
    return None


def _number(text: str, notes: Sequence[str]) -> Number:
    return Number(None, ("illegible", *notes)) if text == "?" else Number(float(text), tuple(notes))


@cache
def rows(path: Path) -> tuple[dict[str, str], ...]:
    """Return the rows of a table of the paper's: its columns are there, and its figures are figures or `?`.

    Raises:
        M3Error: it cannot be read, is not UTF-8, lacks a column, or a row has a field too many, too few or of no sense.
    """
    reader = csv.DictReader(io.StringIO(read_text(path, MIB), newline=""), strict=True)
    try:
        table = tuple(reader)
    except csv.Error as error:
        raise M3Error(f"{path}:{reader.line_num} is not CSV ({error}): correct it") from None
    lacking = [column for column in _COLUMNS.get(path.stem, ()) if column not in (reader.fieldnames or ())]
    if lacking or not table:
        raise M3Error(f"{path} has no {f'column {lacking[0]}' if lacking else 'rows'}: take the project's own again")
    for number, row in enumerate(table, 1):
        if None in row or None in row.values():
            raise M3Error(f"{path}, row {number} has not as many fields as the first line names: correct it")
        for column, text in row.items():
            if not _sound(column, text):
                allowed = "0 or 1" if column in _FLAGS else "a number, or ? where it is illegible"
                raise M3Error(f"{path}, row {number}: {column} is {text[:40]!r}; give {allowed}")
    return table


def _sound(column: str, text: str) -> bool:
    """Tell whether a field can stand in its column."""
    if column in _FLAGS:
        return text in ("0", "1")
    empty = text == "" and column in ITEMS  # was not evaluated
    return column not in _FIGURES or empty or text == "?" or _FIGURE.fullmatch(text) is not None


@dataclass(frozen=True)
class Distance:
    """Ours - theirs in points, with the 95 % interval of independent answers, and in standard errors.

    `z_low` takes the two models' answers as independent, `z_high` as alike as two such scores can be; neither where the
    items or the models are not the same. |z_low| <= |z_high|, and both have the sign of the difference.
    """

    difference: float
    low: float
    high: float
    z_low: float | None = None
    z_high: float | None = None

    def __str__(self) -> str:
        text = f"{_signed(self.difference)} [{_signed(self.low)}, {_signed(self.high)}]"
        if not self.z_low or not self.z_high:
            return text
        ends = dict.fromkeys((_signed(self.z_low), _signed(self.z_high)))
        return f"{text}, z {' to '.join(ends)}"


@dataclass(frozen=True)
class Beside:
    """A published figure beside ours: how far ours is from it, or its percentile among replays as a range."""

    number: Number
    distance: Distance | None = None
    percentile_low: float | None = None
    percentile_high: float | None = None

    def __str__(self) -> str:
        texts = [f"paper {self.number}"] if self.number.value is not None else ["paper: illegible"]
        texts += [str(self.distance)] if self.distance is not None else []
        if self.percentile_low is not None and self.percentile_high is not None:
            ends = dict.fromkeys((f"{self.percentile_low:.0f}", f"{self.percentile_high:.0f}"))
            texts.append(f"at {' to '.join(ends)} % of the replay")
        return f"({', '.join(texts)})"

    def record(self) -> dict[str, float | None]:
        """Return it as data: percent, points and standard errors."""
        far = {} if self.distance is None else vars(self.distance)
        return {
            "paper": self.number.value,
            "paper_difference": far.get("difference"),
            "paper_difference_low": far.get("low"),
            "paper_difference_high": far.get("high"),
            "z_low": far.get("z_low"),
            "z_high": far.get("z_high"),
            "percentile_low": self.percentile_low,
            "percentile_high": self.percentile_high,
        }


def _signed(number: float) -> str:
    return f"{number:+.1f}" if round(number, 1) else "0.0"


def of_our_model(number: Number, method: str, models: str, params: str) -> tuple[Number, bool]:
    """Tell whether a published figure is of the model that we name so, as far as is known; the number notes why not."""
    if method == "ties" and params != TIES.get(models):
        return replace(number, notes=(*number.notes, "params")), False
    if method == "task_arithmetic":
        return replace(number, notes=(*number.notes, "scaling")), True
    return number, True


def beside_plain(number: Number, benchmark: str, score: float, n: int) -> Beside:
    """Compare the score (percent) of one model on n of the paper's items. No z of AlpacaEval and task arithmetic."""
    if not _comparable(number, benchmark) or number.value is None or n < 1:
        return Beside(number)
    far = distance(score, n, number.value, ITEMS[benchmark])
    if "scaling" in number.notes:
        return Beside(number, replace(far, z_low=None, z_high=None))
    return Beside(replace(number, notes=(*number.notes, "correlation")) if far.z_low else number, far)


def beside_mixed(number: Number, benchmark: str, curve: Curve | None) -> Beside:
    """Say where the paper's M3 figure lies among replays on our curve; nothing without one or where not comparable."""
    if not _comparable(number, benchmark) or number.value is None or curve is None:
        return Beside(number)
    items = ITEMS[benchmark]
    if not 0 < len(curve.ids) <= items:
        return Beside(number)
    ends = sorted(percentile(number.value, replayed(curve, items, alike=alike)) for alike in (False, True))
    return Beside(number, percentile_low=ends[0], percentile_high=ends[1])


def _comparable(number: Number, benchmark: str) -> bool:
    return number.value is not None and "alpaca" not in number.notes and benchmark in ITEMS


def distance(score: float, n: int, published: float, n_published: int) -> Distance:
    """Return how far a score on n items is from a published one (both in percent) on `n_published`.

    The interval squares and adds the half widths of the two scores' own intervals (as Newcombe 1998, method 10), so it
    holds at every n. Its half towards 0 over 1.96 is the standard error of `z_low`: 1.96 where that end is 0. For
    `z_high` our n items are a random part of the paper's (none where they are more), and only as many of those are
    answered otherwise as the scores differ by: |d| of them, all in one direction, so the variance is (|d| - d^2) / N.
    """
    ours, theirs = score / 100, published / 100
    own, other = proportion(ours, n), proportion(theirs, n_published)
    difference = score - published if abs(score - published) >= _PRINTED else 0.0
    below, above = math.hypot(ours - own.low, other.high - theirs), math.hypot(own.high - ours, theirs - other.low)
    far = Distance(difference, difference - 100 * below, difference + 100 * above)
    if n > n_published:
        return far
    if not difference:
        return replace(far, z_low=0.0, z_high=0.0)
    d, to_normal = difference / 100, normal(LEVEL)
    half, independent = (ours - own.low, below) if d > 0 else (own.high - ours, above)
    open_part = half * math.sqrt(finite_population(n, n_published))
    alike = math.hypot(open_part, to_normal * math.sqrt((abs(d) - d * d) / n_published)) or independent
    return replace(far, z_low=to_normal * d / independent, z_high=to_normal * d / min(independent, alike))


def finite_population(n: int, whole: int) -> float:
    """Return the factor of the variance of a mean over n items that are drawn from `whole` without replacement."""
    return (whole - n) / max(1, whole - 1)


def replayed(curve: Curve, n_published: int, repeats: int = _REPLAYS, seed: int = 0, *, alike: bool = False) -> Array:
    """Replay the paper's protocol: one draw for each of its alphas, the best on the curve's own items; (repeats,).

    What our items leave open is resampled in each repetition, and the score kept is one on `n_published` items.
    `alike`: these are the same items, answered the same, and ours a part of them, or all: then only lambda varies.
    """
    generator = np.random.default_rng(seed)
    draws = np.column_stack([generator.beta(alpha, alpha, repeats) for alpha in ALPHAS])
    heights = resampled(len(curve.ids), repeats, generator) @ curve.values
    if alike:
        means = curve.values.mean(axis=0)
        heights = means + (heights - means) * math.sqrt(finite_population(len(curve.ids), n_published))
    tops = [float(np.interp(lams, curve.lams, height).max()) for lams, height in zip(draws, heights, strict=True)]
    shares = np.clip(tops, 0, 1)
    return np.asarray(shares if alike else generator.binomial(n_published, shares) / n_published)


def percentile(published: float, replayed: Array) -> float:
    """Return where a published value (percent) lies among replayed scores (0 to 1): 0 to 100, ties counted half."""
    above = 100 * replayed - published
    return 100 * (float(np.mean(above <= -_PRINTED)) + float(np.mean(np.abs(above) < _PRINTED)) / 2)
