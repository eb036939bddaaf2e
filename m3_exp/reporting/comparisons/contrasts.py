"""Which cells of a table differ significantly: each M3 row against the same row without M3, and the best of a column.

Three questions, three families, fixed before anything is looked at:

    an expectation over lambda - plain   one family a pair and method, the same wherever it stands (`expectations`)
    this model - the same without M3     all of a table's comparisons of single models, or of ten draws and more (Holm)
    the best of its column               all of a table's columns (Holm)

Two rows with the same weights are one model, and no comparison. A mean over fewer than ten draws of lambda, or fewer
than three DARE masks, carries no sign: its interval is that of these very draws.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from m3_exp.amounts import counted
from m3_exp.reporting.curves.evaluated import Values, shared, stacked
from m3_exp.reporting.curves.expectations import LEAST_MASKS
from m3_exp.reporting.table import Sign
from m3_exp.stats import family
from m3_exp.stats.estimate import EVEN, Array, Estimate, Shape, VarianceSource
from m3_exp.stats.family import LIMIT
from m3_exp.stats.paired import paired, spread
from m3_exp.stats.scored import Scored
from m3_exp.types import Json

Place = tuple[int, int]  # row and column of a table
Models = Mapping[tuple[float | None, float | None], Values]  # item values by lambda and DARE mask
LEAST_DRAWS = 10  # of lambda: from fewer nothing is said of others
FEW_DRAWS = f"fewer than {LEAST_DRAWS} draws: the difference is of these draws"
FEW_MASKS = f"fewer than {LEAST_MASKS} DARE masks: the difference is of these masks"


@dataclass(frozen=True)
class Entry:
    """A cell of a table that can be compared with another.

    Attributes:
        score: in percent.
        items: a value from 0 to 1 for each scored item, by its id.
        weights: digests of the models' weights; empty for an expectation over lambda, which belongs to no model.
        models: the models that the cell is a mean over, each with its item values.
        drawn: how many random draws it is a mean over; 0 where nothing was drawn.
        asked: digest and number of the items that were asked.
        unscored: how many of them have no value.
        like: how the items make the score (weights of tasks, clusters).
        others: of an expectation, its sources of variance besides items and masks.
        bias: of an expectation, how far it may be off, from 0 to 1.
        why: the reason why it carries no sign; empty where it may carry one.
    """

    score: float
    items: Values
    weights: frozenset[str] = frozenset()
    models: Models = field(default_factory=dict)
    drawn: int = 0
    asked: tuple[str, int] | None = None
    unscored: int = 0
    like: Scored | None = None
    others: tuple[VarianceSource, ...] = ()
    bias: float = 0.0
    why: str = ""

    def same_model(self, other: "Entry") -> bool:
        if self.weights or other.weights:
            return self.weights == other.weights
        return self.items == other.items

    def other_items(self, other: "Entry") -> bool:
        """Tell whether two cells have as many items, but not the same: their ids then do not pair them."""
        if self.asked is None or other.asked is None:
            return False
        return self.asked[1] == other.asked[1] and self.asked[0] != other.asked[0]


Question = Literal["expectation", "model"]


@dataclass(frozen=True)
class Compared:
    """A cell against its row without M3: the estimate of M3 - plain and its adjusted p-value; None: the same model.

    `question` names its family. `why`: the reason if it can carry no sign. `less_is_better`: for a drop rate.
    `other_items`: there is no estimate because the items are not the same. `than`: the row that it is compared with, if
    not that without M3.
    """

    contrast: Estimate | None
    p_adjusted: float | None = None
    family: int = 0
    question: Question = "model"
    why: str = ""
    less_is_better: bool = False
    other_items: bool = False
    than: str = ""

    @property
    def sign(self) -> Sign:
        if self.other_items:
            return ""
        if self.contrast is None or self.p_adjusted is None:
            return "same"
        if self.why:
            return ""
        if self.p_adjusted >= LIMIT:
            return "untold"
        return "better" if (self.contrast.value > 0) != self.less_is_better else "worse"

    @property
    def detectable(self) -> float | None:
        """The smallest true difference that this comparison finds with a power of 80 %, at the level of its family."""
        return None if self.contrast is None else family.detectable(self.contrast, self.family)

    def __str__(self) -> str:
        if self.other_items:
            return f"other items than {self.than or 'without M3'}: nothing to compare"
        if self.contrast is None:
            return f"the same weights as {self.than or 'without M3'}: nothing to compare"
        c = self.contrast
        sides = f"this - {self.than}" if self.than else "M3 - without"
        text = (
            f"{sides}: {100 * c.value:+.1f} [{100 * c.low:+.1f}, {100 * c.high:+.1f}] points,"
            f" p {c.p:.2g}, adjusted {self.p_adjusted:.2g} over {self.family}, {c.n} items, {c.moved} differ, {c.how}"
        )
        if self.why:
            return f"{text}; no sign: {self.why}"
        return text + (
            f"; a difference below {100 * (self.detectable or 0):.1f} points could not have been seen (power 80 %)"
            if self.sign == "untold"
            else ""
        )


def against(
    pairs: Mapping[Place, tuple[Entry, Entry]],
    known: Mapping[Place, Compared],
    contrast: Callable[[Place], Estimate | None] | None = None,
    than: str = "",
) -> dict[Place, Compared]:
    """Contrast the first of each pair with the second, over the items that both have; none in common: left out.

    `known`: comparisons of expectations, which are a family of their own. `contrast`: computes the difference, if it is
    not that of the two scores. `than`: what the second ones are called, if they are not the same row without M3.
    """
    contrasts: dict[Place, tuple[Estimate, str]] = {}
    same: dict[Place, Compared] = {}
    for place, (mixed, plain) in pairs.items():
        if mixed.same_model(plain):
            same[place] = Compared(None)
        elif mixed.other_items(plain):
            same[place] = Compared(None, other_items=True)
        elif place in known:
            same[place] = known[place]
        elif (c := contrast(place) if contrast else compare(mixed, plain)) is not None:
            contrasts[place] = c, unclaimed(mixed, plain)
    return {place: replace(one, than=than) for place, one in (same | adjusted(contrasts)).items()}


def adjusted(contrasts: Mapping[Place, tuple[Estimate, str]]) -> dict[Place, Compared]:
    """Adjust a table's comparisons of single models for one another: those that can carry a sign are the family."""
    claims = {place: c for place, (c, why) in contrasts.items() if not why}
    p = dict(zip(claims, family.holm([_p(c) for c in claims.values()]), strict=True))
    return {
        place: Compared(c, p.get(place, _p(c)), len(claims) if place in p else 1, why=why)
        for place, (c, why) in contrasts.items()
    }


def _p(estimate: Estimate) -> float:
    return 1.0 if estimate.p is None else estimate.p


def unclaimed(first: Entry, second: Entry) -> str:
    """Return why the difference of two cells carries no sign; empty where it does."""
    for entry in (first, second):
        if entry.why:
            return entry.why
        if 0 < entry.drawn < LEAST_DRAWS:
            return FEW_DRAWS
    masks = [len({mask for _, mask in entry.models} - {None}) for entry in (first, second)]
    return FEW_MASKS if any(0 < count < LEAST_MASKS for count in masks) else ""


def compare(first: Entry, second: Entry) -> Estimate | None:
    """Contrast two cells over the items that both have, and the DARE masks where both have masks; None: nothing shared.

    If one of them is a mean over masks, or over ten draws of lambda and more, the variance between these counts beside
    that between items. The difference of fewer draws is that of these very draws.
    """
    own = [{mask for _, mask in entry.models} - {None} for entry in (first, second)]
    masks = own[0] & own[1]
    if all(own) and not masks:
        return None
    known = [
        {key: values for key, values in entry.models.items() if not masks or key[1] in masks}
        for entry in (first, second)
    ]
    sides = [
        (shared(list(models.values())) or {}) if models else entry.items
        for models, entry in zip(known, (first, second), strict=True)
    ]
    ids = sorted(sides[0].keys() & sides[1].keys())
    if not ids:
        return None
    a, b = (np.array([side[key] for key in ids], dtype=float) for side in sides)
    like = first.like or second.like
    shape = EVEN if like is None else like.shape(ids)
    asked = [len(entry.items) + entry.unscored for entry in (first, second)]
    drawn = [entry.drawn for entry in (first, second)]
    others = [*first.others, *second.others]
    others += [s for axis in (0, 1) if axis or max(drawn) >= LEAST_DRAWS for s in _between(known, axis, ids, shape)]
    bias = first.bias + second.bias
    estimate = paired(a, b, shape, others=others, bias=(bias, bias), unscored=max(0, max(asked) - len(ids)))
    had = len(own[0] | own[1])
    some = f", {len(masks)} of {had} masks" if masks and had > len(masks) else ""
    return replace(estimate, how=estimate.how + some)


def _between(known: Sequence[Models], axis: int, ids: Sequence[str], shape: Shape) -> list[VarianceSource]:
    """Return the source of variance that draws of lambda (axis 0) or masks (1) add to a difference.

    If both sides have the same draws or masks it is that of their differences, else that of each side by itself.
    """
    sides = [levels(models, axis, ids) for models in known]
    if sides[0].keys() == sides[1].keys():
        sides = [{level: own - sides[1][level] for level, own in sides[0].items()}]
    return [source for side in sides for source in spread(list(side.values()), shape)]


def levels(models: Models, axis: int, ids: Sequence[str]) -> dict[float | None, Array]:
    """Return the items' means at each level of one axis, (n,) each."""
    known: dict[float | None, list[Values]] = {}
    for key, values in models.items():
        known.setdefault(key[axis], []).append(values)
    return {level: np.asarray(np.mean(stacked(own, ids), axis=0)) for level, own in known.items()}


_RECORDED = (
    "difference", "diff_low", "diff_high", "p", "p_adjusted", "mark", "question", "family", "discordant", "detectable",
    "no_mark",
)  # fmt: skip


def record(compared: Compared | None) -> Json:
    """Return a cell's comparison with its row without M3 as data, in percent points; None where there is none."""
    if compared is None:
        return dict.fromkeys(_RECORDED)
    if (c := compared.contrast) is None:
        return {**dict.fromkeys(_RECORDED), "mark": compared.sign}
    points = (100 * c.value, 100 * c.low, 100 * c.high)
    detectable = None if compared.detectable is None else 100 * compared.detectable
    figures = (
        *points, c.p, compared.p_adjusted, compared.sign, compared.question, compared.family, c.moved, detectable,
        compared.why or None,
    )  # fmt: skip
    return dict(zip(_RECORDED, figures, strict=True))


@dataclass(frozen=True)
class Best:
    """The cells significantly better than every other row of their pair, and how many comparisons that took."""

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
    p_holm = iter(family.holm([value for values in p for value in values]))
    significant = [max(next(p_holm) for _ in values) < LIMIT for values in p]
    return Best(
        frozenset(place for own, sure in zip(tops, significant, strict=True) if sure for place in own), sum(map(len, p))
    )


def _beaten(top: Entry, others: Sequence[Entry]) -> list[float]:
    first = _p_better(top, others[0])
    if first >= LIMIT:
        return [1.0] * len(others)
    return [first, *(_p_better(top, other) for other in others[1:])]


def _p_better(top: Entry, other: Entry) -> float:
    """Return the p-value of top - other where top is the higher one on the items of both, else 1."""
    estimate = None if top.other_items(other) else compare(top, other)
    return _p(estimate) if estimate is not None and estimate.value > 0 and not unclaimed(top, other) else 1.0


def ranked(columns: Sequence[Mapping[Place, Entry]]) -> tuple[frozenset[Place], frozenset[Place]]:
    """Return the places of the highest and of the second highest scores of each column, by score alone."""
    first: set[Place] = set()
    second: set[Place] = set()
    for column in columns:
        scores = sorted({round(entry.score, 6) for entry in column.values()}, reverse=True)
        first |= {place for place, entry in column.items() if round(entry.score, 6) == scores[0]}
        second |= {place for place, entry in column.items() if scores[1:] and round(entry.score, 6) == scores[1]}
    return frozenset(first), frozenset(second)


def words(compared: Mapping[Place, Compared], bold: Best | None = None) -> list[str]:
    """Say what the marks of a table mean, for how many comparisons they are adjusted, and what they could detect."""
    made = [c for c in compared.values() if c.contrast is not None]
    than = next((c.than for c in compared.values() if c.than), "the same row without M3")
    others = sum(c.other_items for c in compared.values())
    same = sum(c.contrast is None for c in compared.values()) - others
    lines: list[str] = []
    if made or same:
        lines.append(
            f"▲ better, ▼ worse, ≈ not told apart from {than}, paired over items, at 5 % after"
            " adjustment" + (f"; = the same weights ({same}): no comparison." if same else ".")
        )
    lines += _families(made)
    for why in dict.fromkeys(c.why for c in made if c.why):
        lines.append(f"No sign ({counted(sum(c.why == why for c in made), 'cell')}): {why}.")
    if others:
        lines.append(f"Other items under the same ids than {than} ({others}): no comparison.")
    finds = [100 * c.detectable for c in made if not c.why and c.detectable]
    if finds:
        lines.append(
            f"What could not have been seen: at the level that is used, a true difference below {min(finds):.1f} points"
            f" in the most sensitive cell (median {np.median(finds):.1f}, least sensitive {max(finds):.1f}) is missed"
            " more often than once in five times."
        )
    if bold is not None and bold.comparisons:
        which = "none here" if not bold.places else f"{len(bold.places)} here"
        lines.append(
            f"Bold: significantly better than every other row of its pair in that column, after Holm over"
            f" {bold.comparisons} comparisons; {which}."
        )
    return lines


def brief(compared: Mapping[Place, Compared], bold: Best | None = None) -> list[str]:
    """Say in two sentences what `words` says of the marks of a table and of what they could detect."""
    signs = {one.sign for one in compared.values()}
    than = next((one.than for one in compared.values() if one.than), "the same row without M3")
    told = f"▲ better, ▼ worse, ≈ not told apart from {than} (5 %, adjusted)"
    marks = [
        *([told] if signs & {"better", "worse", "untold"} else []),
        *(["= the same weights"] if "same" in signs else []),
        *(["bold: better than every other row of its pair"] if bold is not None and bold.places else []),
    ]
    finds = [100 * c.detectable for c in compared.values() if not c.why and c.detectable]
    missed = "Likely to be missed: true differences below {:.0f} points (in the best cell {:.0f})."
    return [
        *(["; ".join(marks) + "."] if marks else []),
        *([missed.format(np.median(finds), min(finds))] if finds else []),
    ]


def _families(made: Sequence[Compared]) -> list[str]:
    """Name the families of the signs."""
    lines = []
    if expected := [c for c in made if c.question == "expectation" and not c.why]:
        sizes = sorted({c.family for c in expected})
        lines.append(
            "Expectations (E): adjusted (max-T over items) within their pair and method over seven alphas x benchmarks,"
            f" {' or '.join(map(str, sizes))} comparisons; a table holds several such families, each at 5 %."
        )
    if single := [c for c in made if c.question == "model" and not c.why]:
        lines.append(f"Single merges: adjusted (Holm) over the {single[0].family} comparisons of this table.")
    return lines


BY_SCORE = (
    "Bold: the highest score of its pair in that column, underlined: the second, as the paper prints them. These marks"
    " say nothing about what is significant (without --marks paper the table does)."
)
BRIEFLY_BY_SCORE = "Bold (**): the highest score of its pair, underlined (_): the second; not what is significant."
