"""Which cells of a table really differ: each M3 row against the same row without M3, and the best of a column.

Two families of comparisons, each adjusted over the whole table by Holm's procedure. Two rows with the same weights are
one model, and no comparison.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from m3_exp.reporting import stats
from m3_exp.reporting.curves import Values
from m3_exp.reporting.formats import Sign
from m3_exp.reporting.response import Array
from m3_exp.reporting.stats import Contrast

Place = tuple[int, int]  # row and column of a table
Models = Mapping[tuple[float | None, float | None], Values]  # item values by lambda and DARE mask
_RESOLVED = 1 / 4000  # sign flips resolve little below
_MANY = 500  # differing items
_STUDENT = "Student's t"
LIMIT = 1 - stats.LEVEL


@dataclass(frozen=True)
class Entry:
    """A cell that can be compared: score in percent, item values from 0 to 1, and the digests of its weights.

    `weights` is empty where the cell belongs to no model: an expectation over lambda. `models`: those that the cell is
    a mean over. `one_draw`: of lambda, from which another would differ. `asked`: digest and number of the items.
    """

    score: float
    items: Values
    weights: frozenset[str] = frozenset()
    models: Models = field(default_factory=dict)
    one_draw: bool = False
    asked: tuple[str, int] | None = None

    def same_model(self, other: "Entry") -> bool:
        if self.weights or other.weights:
            return self.weights == other.weights
        return self.items == other.items

    def other_items(self, other: "Entry") -> bool:
        """Tell whether two cells have as many items, but not the same: their ids then do not pair them."""
        if self.asked is None or other.asked is None:
            return False
        return self.asked[1] == other.asked[1] and self.asked[0] != other.asked[0]


@dataclass(frozen=True)
class Compared:
    """A cell against its row without M3: the contrast (M3 - plain) and its p-value after Holm; None: the same model.

    `less_is_better`: of a drop rate. `one_draw`: the M3 side is a single draw of lambda. `other_items`: there is no
    contrast because the items are not the same.
    """

    contrast: Contrast | None
    p_holm: float | None = None
    less_is_better: bool = False
    one_draw: bool = False
    other_items: bool = False

    @property
    def sign(self) -> Sign:
        if self.other_items:
            return ""
        if self.contrast is None or self.p_holm is None:
            return "same"
        if self.p_holm >= LIMIT:
            return "untold"
        return "better" if (self.contrast.difference > 0) != self.less_is_better else "worse"

    def __str__(self) -> str:
        if self.other_items:
            return "other items than without M3: nothing to compare"
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
        elif mixed.other_items(plain):
            same[place] = Compared(None, other_items=True)
        elif (c := compare(mixed, plain)) is not None:
            found[place] = c
    return same | {place: replace(c, one_draw=pairs[place][0].one_draw) for place, c in adjusted(found).items()}


def adjusted(found: Mapping[Place, Contrast]) -> dict[Place, Compared]:
    """Adjust a table's contrasts for one another."""
    p_holm = stats.holm([c.p for c in found.values()])
    return {place: Compared(c, p) for (place, c), p in zip(found.items(), p_holm, strict=True)}


def compare(first: Entry, second: Entry) -> Contrast | None:
    """Contrast two cells over the items that both have, and the DARE masks where both have masks; None: nothing shared.

    Where one is a mean over draws of lambda or masks, what varies between these counts as well as what does between
    items: Student's t with as many degrees of freedom as the fewest draws or masks leave.
    """
    own = [{mask for _, mask in entry.models} - {None} for entry in (first, second)]
    masks = own[0] & own[1]
    if all(own) and not masks:
        return None
    known = [_under(entry, masks) for entry in (first, second)]
    sides = [_averaged(found) if found else entry.items for found, entry in zip(known, (first, second), strict=True)]
    ids = sorted(sides[0].keys() & sides[1].keys())
    if not ids:
        return None
    d = np.array([sides[0][key] - sides[1][key] for key in ids])
    between = [x for axis in (0, 1) for x in _between(known, axis, ids)]
    had = len(own[0] | own[1])
    some = f", {len(masks)} of {had} masks" if masks and had > len(masks) else ""
    variance = sum(v for v, _ in between) + (float(d.var(ddof=1)) / len(d) if len(d) > 1 else 0.0)
    if not between or variance == 0:
        found = contrast(*sides)
        return replace(found, method=found.method + some)
    return _of_draws(d, variance, min(levels for _, levels in between), some)


def _under(entry: Entry, masks: Set[float | None]) -> Models:
    """Return an entry's models under the masks that both sides have; all of an entry without masks."""
    own = {mask for _, mask in entry.models} - {None}
    if not own:
        return entry.models
    return {key: values for key, values in entry.models.items() if key[1] in masks or not masks}


def _averaged(found: Models) -> Values:
    ids = set.intersection(*(set(values) for values in found.values()))
    return {key: float(np.mean([values[key] for values in found.values()])) for key in ids}


def _between(known: Sequence[Models], axis: int, ids: Sequence[str]) -> list[tuple[float, int]]:
    """Return the variance of a difference between the levels of lambda (axis 0) or masks (1), and how many they are.

    Of the differences where both sides have the same levels, else of each side for itself.
    """
    sides: list[dict[float | None, float]] = []
    for found in known:
        means: dict[float | None, list[float]] = {}
        for key, values in found.items():
            means.setdefault(key[axis], []).append(float(np.mean([values[i] for i in ids])))
        sides.append({level: float(np.mean(x)) for level, x in means.items()})
    if sides[0].keys() == sides[1].keys():
        sides = [{level: sides[0][level] - sides[1][level] for level in sides[0]}]
    return [(float(np.var(list(x.values()), ddof=1)) / len(x), len(x)) for x in sides if len(x) > 1]


def _of_draws(d: Array, variance: float, levels: int, some: str) -> Contrast:
    mean, se, df = float(d.mean()), float(np.sqrt(variance)), levels - 1
    strict, wanted = (float(scipy_stats.t.ppf(q, df)) for q in (0.5 + stats.LEVEL / 2, 0.8))
    p = float(2 * scipy_stats.t.sf(abs(mean) / se, df))
    low, high = max(-1.0, mean - strict * se), min(1.0, mean + strict * se)
    method = f"{_STUDENT} over items and {levels} draws or masks{some}"
    return Contrast(mean, low, high, p, len(d), int(np.count_nonzero(d)), method, min(1.0, (strict + wanted) * se))


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
    found = None if top.other_items(other) else compare(top, other)
    return found.p if found is not None and found.difference > 0 else 1.0


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
    others = sum(c.other_items for c in found.values())
    same = sum(c.contrast is None for c in found.values()) - others
    drawn = any("draws or masks" in c.method for c in made)
    student = f", {_STUDENT} from {_MANY} differing items" if any(c.method == _STUDENT for c in made) else ""
    lines: list[str] = []
    if made or same:
        lines.append(
            "▲ better, ▼ worse, ≈ not told apart from the same row without M3: paired over items (0/1 scores: Tango's"
            f" interval, McNemar's mid-p; others: BCa bootstrap, sign flips{student}), at 5 % after Holm over the"
            f" {len(made)} comparisons of this table"
            + (f"; = the same weights ({same}): no comparison." if same else ".")
        )
    if drawn:
        lines.append(
            "Means over draws of lambda or over masks: Student's t on the variance between items and that between draws"
            " (masks), at one degree of freedom less than draws."
        )
    if any(c.one_draw for c in found.values()):
        lines.append(
            "A sign of a row with one lambda drawn is of this very draw of lambda; another draw differs, by a sd that"
            " one draw does not show."
        )
    if others:
        lines.append(f"Other items under the same ids than without M3 ({others}): no comparison.")
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
