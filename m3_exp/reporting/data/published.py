"""The paper's numbers (results/published/*.csv) beside ours: differences, z, and where the paper contradicts itself.

A plain row is one model, and both sides answered the same items. How far two such scores differ by chance depends on
how alike the answers are, item by item; the paper's answers are not published. So z is a range: from independent
answers to answers as alike as two such scores allow. An M3 row is a model at an unknown lambda, so it has no z. It has
a percentile instead: where the published value lies among the scores of the paper's protocol, replayed on our curve.
That is a range too.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from m3_exp.benchmarks import about
from m3_exp.reading.files import MIB, read_text
from m3_exp.reporting.data.params import searched
from m3_exp.stats.lambdas import Curve
from m3_exp.stats.published import Distance, distance, percentile, replayed
from m3_exp.types import M3Error

_COLUMNS = {
    "table1": ("method", "models", "mixup", "dare"),
    "adversarial": ("attack", "models", "dataset", "mixup", "metric_no_attack", "metric_attack", "pdr"),
    "ood_gains": ("models", "benchmark", "method", "gain_points"),
}
_FLAGS = ("mixup", "dare")
_FIGURES = ("metric_no_attack", "metric_attack", "pdr", "gain_points")
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
    """Tell whether a column allows a field's text."""
    if column in _FLAGS:
        return text in ("0", "1")
    of_benchmark = about(column).paper_items is not None
    if text == "" and of_benchmark:  # was not evaluated
        return True
    return not (of_benchmark or column in _FIGURES) or text == "?" or _FIGURE.fullmatch(text) is not None


@dataclass(frozen=True)
class Beside:
    """A published figure beside ours: how far ours is from it, or its percentile among replays as a range."""

    number: Number
    distance: Distance | None = None
    percentile_low: float | None = None
    percentile_high: float | None = None

    def __str__(self) -> str:
        texts = [f"paper {self.number}"] if self.number.value is not None else ["paper: illegible"]
        texts += [_far(self.distance)] if self.distance is not None else []
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


def _far(distance: Distance) -> str:
    text = f"{_signed(distance.difference)} [{_signed(distance.low)}, {_signed(distance.high)}]"
    if not distance.z_low or not distance.z_high:
        return text
    return f"{text}, z {' to '.join(dict.fromkeys((_signed(distance.z_low), _signed(distance.z_high))))}"


def _signed(number: float) -> str:
    return f"{number:+.1f}" if round(number, 1) else "0.0"


def of_our_model(number: Number, method: str, models: str, params: str) -> tuple[Number, bool]:
    """Tell whether a published figure is of the same model as our row, as far as is known; if not, a note says why."""
    if method == "ties" and params != searched().get((method, models)):
        return replace(number, notes=(*number.notes, "params")), False
    if method == "task_arithmetic":
        return replace(number, notes=(*number.notes, "scaling")), True
    return number, True


def beside_plain(number: Number, benchmark: str, score: float, n: int) -> Beside:
    """Compare the score (percent) of one model on n of the paper's items. No z of AlpacaEval and task arithmetic."""
    items = _comparable_items(number, benchmark)
    if not items or number.value is None or n < 1:
        return Beside(number)
    far = distance(score, n, number.value, items)
    if "scaling" in number.notes:
        return Beside(number, replace(far, z_low=None, z_high=None))
    return Beside(replace(number, notes=(*number.notes, "correlation")) if far.z_low else number, far)


def beside_mixed(number: Number, benchmark: str, curve: Curve | None) -> Beside:
    """Say where the paper's M3 figure lies among replays on our curve; nothing without one or where not comparable."""
    items = _comparable_items(number, benchmark)
    if not items or number.value is None or curve is None or not 0 < len(curve.ids) <= items:
        return Beside(number)
    ends = sorted(percentile(number.value, replayed(curve, items, alike=alike)) for alike in (False, True))
    return Beside(number, percentile_low=ends[0], percentile_high=ends[1])


def _comparable_items(number: Number, benchmark: str) -> int | None:
    """Return on how many items a figure is that can be laid beside ours (AlpacaEval's cannot, see NOTES), else None."""
    return None if "alpaca" in number.notes else about(benchmark).paper_items
