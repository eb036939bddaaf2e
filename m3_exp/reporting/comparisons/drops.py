"""PDR, the share of its accuracy that a model loses under attack, for one row of a table, and the difference of two.

Tables and figures both ask here. Everything is computed from item scores. An item counts if it has a score without the
attack and under it, in every draw; the others are unscored, and widen the interval (`stats.ratio`). Several draws or
masks are averaged item by item, without and under the attack. Draws and masks enter the interval as for accuracies
(`values`).
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from m3_exp.reporting.comparisons.contrasts import LEAST_DRAWS, Entry, levels
from m3_exp.reporting.comparisons.values import Value, entry_of
from m3_exp.reporting.curves.evaluated import shared
from m3_exp.stats.estimate import Array, Estimate, VarianceSource, deviation
from m3_exp.stats.paired import spread
from m3_exp.stats.ratio import Scores, moves, widened
from m3_exp.stats.ratio import drop as drop_of
from m3_exp.stats.ratio import drop_difference as difference_of
from m3_exp.stats.scored import Scored, is_attacked, of_scores
from m3_exp.types import Score

NOT_ATTACKED = "not attacked"
UNBOUNDED = "not bounded below"
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Attacked:
    """The models of a row on one benchmark, without the attack and under it."""

    clean: Entry
    under: Entry

    @property
    def ids(self) -> set[str]:
        return self.clean.items.keys() & self.under.items.keys()

    @property
    def asked(self) -> int:
        return max(len(side.items) + side.unscored for side in (self.clean, self.under))

    @property
    def masks(self) -> set[float | None]:
        return {mask for _, mask in self.under.models} - {None}

    def of(self, masks: Set[float | None]) -> "Attacked":
        """Return the part that belongs to some DARE masks."""
        if not masks or not self.masks - masks:
            return self
        return Attacked(*(_under(side, masks) for side in (self.clean, self.under)))

    def scores(self, ids: Sequence[str]) -> Scores:
        return Scores(*(np.array([side.items[key] for key in ids], float) for side in (self.clean, self.under)))

    def clusters(self, ids: Sequence[str]) -> Sequence[str] | None:
        return None if self.under.like is None else self.under.like.shape(ids).clusters


def _under(entry: Entry, masks: Set[float | None]) -> Entry:
    models = {key: values for key, values in entry.models.items() if key[1] in masks}
    return replace(entry, items=shared(list(models.values())) or {}, models=models)


def attacked(rows: pd.DataFrame) -> Attacked | None:
    """Return the scores of a row and benchmark without and under attack; None without an attack or a result."""
    lines = rows[rows["score"].notna()]
    if not any(is_attacked(key) for values in lines["values"] for key, _ in values):
        return None
    return Attacked(entry_of(without_attack(lines)), entry_of(lines))


def without_attack(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the lines with a result as they would be without the attack: an item is worth its clean answer."""
    lines = rows[rows["score"].notna()]
    found = [_clean(values, one) for values, one in zip(lines["values"], lines["scored"], strict=True)]
    return lines.assign(scored=found)


def _clean(values: Mapping[Any, Any], under: Scored) -> Scored:
    clean = of_scores([Score(key, value) for (key, _), value in values.items() if not is_attacked(key)])
    return replace(clean, clusters=under.clusters)


# ------------------------------------------------------------------------------------------------------ one row


@dataclass(frozen=True)
class Drop:
    """PDR in percent, or the reason why there is none. The lower end is -inf where PDR is not bounded below."""

    value: Value | None
    why: str = ""


def drop(rows: pd.DataFrame) -> Drop:
    """Return the PDR of the lines of one row and benchmark."""
    known = attacked(rows)
    if known is None:
        return Drop(None, NOT_ATTACKED)
    ids = sorted(known.ids)
    missing = known.asked - len(ids)
    sides, clusters = known.scores(ids), known.clusters(ids)
    found = widened(
        lambda level: drop_of(sides.clean, sides.attacked, level=level, clusters=clusters, missing=missing),
        _sources([known], ids),
    )
    if found.value is None:
        return Drop(None, found.reason or "")
    draws = max(1, len({lam for lam, _ in known.under.models}))
    return Drop(
        Value(
            100 * found.value, 100 * found.low, min(100.0, 100 * found.high), known.asked, missing, draws,
            spread=_between(known, 0, ids), masks=_between(known, 1, ids),
        )
    )  # fmt: skip


def _between(known: Attacked, axis: int, ids: Sequence[str]) -> float | None:
    """Return the standard deviation between the draws' (axis 0) or masks' (1) PDRs; None where one has none."""
    clean, under = (levels(side.models, axis, ids) for side in (known.clean, known.under))
    if not all(values.any() for values in clean.values()):
        return None
    return deviation([100 * float(1 - under[level].sum() / clean[level].sum()) for level in clean])


# ----------------------------------------------------------------------------------------------------- two rows


def difference(first: Attacked, second: Attacked) -> Estimate | None:
    """Return PDR of the first minus that of the second, over the items that both have, and the masks where both have.

    None where they share none, or one of them is right on no item without the attack.
    """
    masks = first.masks & second.masks
    if first.masks and second.masks and not masks:
        return None
    sides = [side.of(masks) for side in (first, second)]
    ids = sorted(sides[0].ids & sides[1].ids)
    missing = max(side.asked for side in sides) - len(ids)
    scores, clusters = [side.scores(ids) for side in sides], sides[0].clusters(ids)
    found = widened(
        lambda level: difference_of(*scores, level=level, clusters=clusters, missing=missing), _sources(sides, ids)
    )
    if found.value is None or found.se is None:
        return None
    one, two = (np.column_stack([own.clean, own.attacked]) for own in scores)
    moved = int(np.any(np.abs(one - two) > _ROUNDING, axis=1).sum())
    return Estimate(found.value, found.low, found.high, found.n, found.how, found.p, found.se, moved, missing)


# ---------------------------------------------------------------------------------------------- draws and masks


def _sources(sides: Sequence[Attacked], ids: Sequence[str]) -> list[VarianceSource]:
    """Return the sources of variance that draws of lambda (ten or more) and masks add to a PDR, or to a difference."""
    if not all(np.any(side.scores(ids).clean) for side in sides):
        return []
    drawn = max(side.under.drawn for side in sides) >= LEAST_DRAWS
    found: list[VarianceSource] = []
    for axis in (0, 1) if drawn else (1,):
        moved = [_moves(side, axis, ids) for side in sides]
        if len(moved) == 2 and moved[0].keys() == moved[1].keys():
            moved = [{level: own - moved[1][level] for level, own in moved[0].items()}]
        found += [source for own in moved for source in spread(list(own.values())) if source.variance > 0]
    return found


def _moves(known: Attacked, axis: int, ids: Sequence[str]) -> dict[float | None, Array]:
    """Return what each item moves PDR by (times n, to first order) at each draw (axis 0) or mask (1)."""
    clean, under = (levels(side.models, axis, ids) for side in (known.clean, known.under))
    mean = known.scores(ids)
    return {level: moves(mean, Scores(values, under[level])) for level, values in clean.items()}
