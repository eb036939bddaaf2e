"""Which cells of a table really differ: each M3 row against the same row without M3, and the best of a column.

Two families of comparisons, each adjusted over the whole table by Holm's procedure. Two rows with the same weights are
one model, and no comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from m3_exp.reporting import stats
from m3_exp.reporting.curves import Values
from m3_exp.reporting.formats import Sign
from m3_exp.reporting.response import Array
from m3_exp.reporting.stats import Contrast

Place = tuple[int, int]  # row and column of a table
_RESOLVED = 1 / 4000  # sign flips resolve little below
_MANY = 500  # differing items
_STUDENT = "Student's t"
LIMIT = 1 - stats.LEVEL


@dataclass(frozen=True)
class Entry:
    """A cell that can be compared: score in percent, item values from 0 to 1, and the digests of its weights.

    `weights` is empty where the cell belongs to no model: an expectation over lambda.
    """

    score: float
    items: Values
    weights: frozenset[str] = frozenset()

    def same_model(self, other: "Entry") -> bool:
        return bool(self.weights) and self.weights == other.weights


@dataclass(frozen=True)
class Compared:
    """A cell against its row without M3: the contrast (M3 - plain) and its p-value after Holm; None: the same model.

    `less_is_better`: of a drop rate.
    """

    contrast: Contrast | None
    p_holm: float | None = None
    less_is_better: bool = False

    @property
    def sign(self) -> Sign:
        if self.contrast is None or self.p_holm is None:
            return "same"
        if self.p_holm >= LIMIT:
            return "untold"
        return "better" if (self.contrast.difference > 0) != self.less_is_better else "worse"

    def __str__(self) -> str:
        if self.contrast is None:
            return "the same weights as without M3: nothing to compare"
        c = self.contrast
        return (
            f"M3 - without: {100 * c.difference:+.1f} [{100 * c.low:+.1f}, {100 * c.high:+.1f}] points,"
            f" p {c.p:.2g}, Holm {self.p_holm:.2g}, {c.n} items, {c.discordant} differ, {c.method}"
        )


def against(pairs: Mapping[Place, tuple[Entry, Entry]]) -> dict[Place, Compared]:
    """Contrast the first of each pair with the second, over the items that both have; none in common: left out."""
    found: dict[Place, Contrast] = {}
    same: dict[Place, Compared] = {}
    for place, (mixed, plain) in pairs.items():
        if mixed.same_model(plain):
            same[place] = Compared(None)
        elif mixed.items.keys() & plain.items.keys():
            found[place] = contrast(mixed.items, plain.items)
    return same | adjusted(found)


def adjusted(found: Mapping[Place, Contrast]) -> dict[Place, Compared]:
    """Adjust a table's contrasts for one another."""
    p_holm = stats.holm([c.p for c in found.values()])
    return {place: Compared(c, p) for (place, c), p in zip(found.items(), p_holm, strict=True)}


def contrast(first: Values, second: Values) -> Contrast:
    """Contrast two cells as `stats.contrast` does, where it resamples with two differences.

    Where many items differ, Student's t agrees with the resampling and takes thousands of times less. And below the
    resolution of sign flips, of which no Holm over a large table would leave anything, the p-value is Student's.
    """
    d = np.array([first[key] - second[key] for key in sorted(first.keys() & second.keys())])
    if not bool(np.isin(d, (-1.0, 0.0, 1.0)).all()) and np.count_nonzero(d) >= _MANY and np.ptp(d) > 0:
        return _student(d)
    found = stats.contrast(first, second)
    if found.p > _RESOLVED or "McNemar" in found.method or float(np.ptp(d)) == 0.0:
        return found
    return replace(found, p=min(found.p, _student(d).p))


def _student(d: Array) -> Contrast:
    """Compare by Student's t; `d` are paired differences of which some vary."""
    tested = scipy_stats.ttest_1samp(d, 0.0)
    low, high = tested.confidence_interval(stats.LEVEL)
    seen = stats.detectable(float(np.mean(d**2)), len(d))
    moved = int(np.count_nonzero(d))
    return Contrast(float(d.mean()), float(low), float(high), float(tested.pvalue), len(d), moved, _STUDENT, seen)


_RECORDED = ("difference", "diff_low", "diff_high", "p", "p_holm", "mark", "discordant", "detectable")


def record(compared: Compared | None) -> dict[str, Any]:
    """Return what a cell's comparison with its row without M3 says, in points; None where there is none."""
    if compared is None:
        return dict.fromkeys(_RECORDED)
    if (c := compared.contrast) is None:
        return {**dict.fromkeys(_RECORDED), "mark": compared.sign}
    points = (100 * c.difference, 100 * c.low, 100 * c.high)
    figures = (*points, c.p, compared.p_holm, compared.sign, c.discordant, 100 * c.detectable)
    return dict(zip(_RECORDED, figures, strict=True))


@dataclass(frozen=True)
class Best:
    """The cells that are really better than every other row of their pair, and how many comparisons that took."""

    places: frozenset[Place]
    comparisons: int


def best(columns: Sequence[Mapping[Place, Entry]]) -> Best:
    """Return the cells that beat each other cell of their column (of one pair), after Holm over all columns.

    Where the highest does not beat the second even without adjustment, the column's other comparisons are not made;
    they count with p = 1, which makes no other cell easier to call better.
    """
    tops: list[list[Place]] = []
    p: list[list[float]] = []
    for column in columns:
        top = max(column, key=lambda place: column[place].score, default=None)
        if top is None:
            continue
        own = [place for place in column if place == top or column[place].same_model(column[top])]
        others = sorted((column[x] for x in column if x not in own), key=lambda entry: -entry.score)
        if others:
            tops.append(own)
            p.append(_beaten(column[top], others))
    p_holm = iter(stats.holm([value for values in p for value in values]))
    real = [max(next(p_holm) for _ in values) < LIMIT for values in p]
    return Best(
        frozenset(place for own, is_real in zip(tops, real, strict=True) if is_real for place in own),
        sum(map(len, p)),
    )


def _beaten(top: Entry, others: Sequence[Entry]) -> list[float]:
    first = _p_better(top, others[0])
    if first >= LIMIT:
        return [1.0] * len(others)
    return [first, *(_p_better(top, other) for other in others[1:])]


def _p_better(top: Entry, other: Entry) -> float:
    """Return the p-value of top - other where top is the higher one on the items of both, else 1."""
    if not top.items.keys() & other.items.keys():
        return 1.0
    found = contrast(top.items, other.items)
    return found.p if found.difference > 0 else 1.0


def ranked(columns: Sequence[Mapping[Place, Entry]]) -> tuple[frozenset[Place], frozenset[Place]]:
    """Return the places of the highest and of the second highest scores of each column, by score alone."""
    first: set[Place] = set()
    second: set[Place] = set()
    for column in columns:
        scores = sorted({round(entry.score, 6) for entry in column.values()}, reverse=True)
        first |= {place for place, entry in column.items() if round(entry.score, 6) == scores[0]}
        second |= {place for place, entry in column.items() if scores[1:] and round(entry.score, 6) == scores[1]}
    return frozenset(first), frozenset(second)


def words(found: Mapping[Place, Compared], bold: Best | None = None) -> list[str]:
    """Say what the marks of a table mean, how many comparisons stand behind them, and what they could have found."""
    made = [c.contrast for c in found.values() if c.contrast is not None]
    same = sum(c.contrast is None for c in found.values())
    student = f", {_STUDENT} from {_MANY} differing items" if any(c.method == _STUDENT for c in made) else ""
    lines: list[str] = []
    if made or same:
        lines.append(
            "▲ better, ▼ worse, ≈ not told apart from the same row without M3: paired over items (0/1 scores: Tango's"
            f" interval, McNemar's mid-p; others: BCa bootstrap, sign flips{student}), at 5 % after Holm over the"
            f" {len(made)} comparisons of this table"
            + (f"; = the same weights ({same}): no comparison." if same else ".")
        )
    finds = [100 * c.detectable for c in made if c.detectable > 0]
    if finds:
        lines.append(
            f"Minimal detectable difference (power 80 %, 5 % unadjusted, at the discordance seen): median"
            f" {np.median(finds):.1f} points, from {min(finds):.1f} to {max(finds):.1f}."
        )
    if bold is not None and bold.comparisons:
        which = "none here" if not bold.places else f"{len(bold.places)} here"
        lines.append(
            f"Bold: really better than every other row of its pair in that column, after Holm over"
            f" {bold.comparisons} comparisons; {which}."
        )
    return lines


BY_SCORE = (
    "Bold: the highest score of its pair in that column, underlined: the second, as the paper prints them. These marks"
    " say nothing about what is real (without --marks paper the table does)."
)
