"""Tidy frame -> points of a chart: a score, a gain by M3, or a drop under attack, each with its 95 % interval.

Values are in percent or percent points, the same as in tables. Several draws or masks are averaged item by item, over
the items that all of them scored.
"""

import math
from dataclasses import dataclass

import pandas as pd

from m3_exp.reporting.comparisons import drops
from m3_exp.reporting.comparisons.contrasts import compare
from m3_exp.reporting.comparisons.values import Value, entry_of, value

_NAN = float("nan")
SAME = "the same weights"  # the note of a gain that is none


@dataclass(frozen=True)
class Point:
    """A value with its 95 % interval (NaN where it has none).

    `note` says why there is no value, or what the value lacks. If there is neither value nor note, the plan has no such
    cell.
    """

    value: float | None
    low: float = _NAN
    high: float = _NAN
    note: str = ""


def score(rows: pd.DataFrame) -> Point:
    """Return what one row of a table shows: the score, averaged over its draws and masks."""
    shown = value(rows)
    return Point(None, note=absence(rows)) if shown is None else _point(shown, rows)


def gain(plain: pd.DataFrame, mixed: pd.DataFrame) -> Point:
    """Return mixed - plain over the items that both scored, in points, with the paired interval (`contrasts`)."""
    sides = (("without M3", plain), ("with M3", mixed))
    lacking = [(what, rows) for what, rows in sides if not bool(rows["score"].notna().any())]
    if lacking:
        return Point(None, note="; ".join(f"{what} {why}" for what, rows in lacking if (why := absence(rows))))
    first, second = entry_of(mixed), entry_of(plain)
    if first.same_model(second):
        return Point(0.0, note=SAME)
    if first.other_items(second):
        return Point(None, note="other items than without M3")
    delta = compare(first, second)
    if delta is None:
        return Point(None, note="nothing is scored in both")
    notes = [*_unscored(delta.unscored, delta.n + delta.unscored), *dict.fromkeys((*_missing(mixed), *_missing(plain)))]
    delta = delta.scaled(100)
    return Point(delta.value, delta.low, delta.high, "; ".join(notes))


def drop(rows: pd.DataFrame) -> Point:
    """Return the performance drop rate of attacked cells, in percent of the accuracy without the attack (`drops`)."""
    if not bool(rows["score"].notna().any()):
        return Point(None, note=absence(rows))
    pdr = drops.drop(rows)
    return Point(None, note=pdr.why) if pdr.value is None else _point(pdr.value, rows)


def _point(value: Value, rows: pd.DataFrame) -> Point:
    bounded = math.isfinite(value.low)
    notes = [*_unscored(value.n_unscored, value.n), *_missing(rows), *([] if bounded else [drops.UNBOUNDED])]
    return Point(value.score, value.low if bounded else _NAN, value.high, "; ".join(notes))


def absence(rows: pd.DataFrame) -> str:
    """Say why rows have no score; nothing where there are none."""
    if not len(rows):
        return ""
    if bool(rows["failure"].notna().any()):
        return "failed"
    return "not run" if bool((rows["state"] == "missing").all()) else "unscored"


def _unscored(unscored: int, asked: int) -> list[str]:
    return [f"{unscored} of {asked} items unscored"] if unscored else []


def _missing(rows: pd.DataFrame) -> list[str]:
    missing = int(rows["score"].isna().sum())
    return [f"{missing} of {len(rows)} draws missing"] if missing else []
