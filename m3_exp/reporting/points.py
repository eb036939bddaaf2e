"""Tidy frame -> points of a chart: a score, a gain by M3, or a drop under attack, each with its 95 % interval.

Percent and percent points. Several draws or masks are averaged item by item, over the items that all of them scored.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from m3_exp.reporting.contrasts import Entry, compare
from m3_exp.reporting.curves import Values, item_means
from m3_exp.reporting.values import item_values, models, shared, value

_RESAMPLES = 2_000


@dataclass(frozen=True)
class Point:
    """A value with its 95 % interval (NaN where it has none). Without a value, `note` says why; else what it lacks.

    An empty note without a value: nobody asked for it.
    """

    value: float | None
    low: float = float("nan")
    high: float = float("nan")
    note: str = ""


def score(rows: pd.DataFrame) -> Point:
    """Return what one row of a table shows: the score, averaged over its draws and masks."""
    found = value(rows)
    if found is None:
        return Point(None, note=_absence(rows))
    return Point(float(found.score), _number(found.low), _number(found.high), _caveat(rows, found.n_unscored))


def gain(plain: pd.DataFrame, mixed: pd.DataFrame) -> Point:
    """Return mixed - plain over the items that both scored, in points, with the paired interval (`contrasts`)."""
    lacking = [(what, rows) for what, rows in (("without M3", plain), ("with M3", mixed)) if not _scored(rows)]
    if lacking:
        return Point(None, note="; ".join(f"{what} {why}" for what, rows in lacking if (why := _absence(rows))))
    first, second = (Entry(0.0, item_values(rows), models=models(rows)) for rows in (mixed, plain))
    found = compare(first, second)
    if found is None:
        return Point(None, note="no item is scored in both")
    left_out = len(first.items.keys() | second.items.keys()) - found.n
    note = f"{left_out} items scored in one only are left out" if left_out else _caveat(mixed, 0) or _caveat(plain, 0)
    return Point(100 * found.difference, 100 * found.low, 100 * found.high, note)


def drop(rows: pd.DataFrame) -> Point:
    """Return the performance drop rate of attacked cells, in percent of the accuracy without the attack.

    One cell's is its result's (Fieller's interval). Several draws are averaged item by item, before and after, and the
    interval is the items' percentile bootstrap.
    """
    if not _scored(rows):
        return Point(None, note=_absence(rows))
    scored = rows[rows["score"].notna()].drop_duplicates(subset=["weights", "lam", "mask_seed"])
    if len(scored) > 1:
        return _drop_of_draws(scored, _caveat(rows, int(scored["n_unscored"].max())))
    details = scored.iloc[0]["details"]
    key = next((f"pdr_{p}" for p in ("adaptive", "paper", "transferred") if f"pdr_{p}" in details), None)
    if key is None:
        return Point(None, note="not attacked")
    if details[key] is None:
        return Point(None, note=str(details.get(f"{key}_reason") or "undefined"))
    low, high = (details.get(f"{key}_{end}") for end in ("low", "high"))  # either may be unknown
    note = _caveat(rows, int(scored.iloc[0]["n_unscored"]))
    return Point(float(details[key]), _number(low), _number(high), note)


def _drop_of_draws(scored: pd.DataFrame, note: str) -> Point:
    before, after = (shared([_version(v, attacked=a) for v in scored["values"]]) for a in (False, True))
    ids = sorted(before.keys() & after.keys())
    clean, attacked = (np.array([values[i] for i in ids]) for values in (before, after))
    if not ids:
        return Point(None, note="not attacked")
    if not clean.any():
        return Point(None, note="undefined: no item is right without the attack")
    counts = np.random.default_rng(0).multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=_RESAMPLES)
    base = counts @ clean
    moved = 1 - (counts @ attacked)[base > 0] / base[base > 0]
    low, high = np.quantile(moved, [0.025, 0.975])
    return Point(100 * float(1 - attacked.mean() / clean.mean()), 100 * float(low), 100 * float(high), note)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _version(values: Mapping[tuple[str, int], float | None], *, attacked: bool) -> Values:
    """Return the item means of the attacked (`ITEM@seedK`) or the clean scores of a cell."""
    return item_means({key: value for key, value in values.items() if ("@" in key[0]) == attacked})


def _scored(rows: pd.DataFrame) -> bool:
    return bool(len(rows)) and bool(rows["score"].notna().any())


def _absence(rows: pd.DataFrame) -> str:
    """Say why rows have no score; nothing where there are none."""
    if not len(rows):
        return ""
    if bool(rows["failure"].notna().any()):
        return "failed"
    return "not run" if bool((rows["state"] == "missing").all()) else "unscored"


def _caveat(rows: pd.DataFrame, unscored: int) -> str:
    missing = int(rows["score"].isna().sum())
    parts = [f"{unscored} of {int(rows['n'].max())} items unscored"] if unscored else []
    return "; ".join([*parts, *([f"{missing} of {len(rows)} draws missing"] if missing else [])])
