"""What one cell of a table is worth: the mean over its draws, or the expectation on a response curve."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m3_exp.reporting import stats
from m3_exp.reporting.contrasts import Models
from m3_exp.reporting.curves import Response, Values, item_means
from m3_exp.reporting.response import draw_sd


@dataclass(frozen=True)
class Value:
    """One figure of a table: score and 95 % interval in percent over `n` items, of which some may be unscored.

    From `draws` draws of lambda; from the `nodes` of a curve there are none. `spread` is the standard deviation between
    draws, `masks` that between DARE masks, both in points and None where they are not known.
    """

    score: float
    low: float
    high: float
    n: int
    n_unscored: int
    draws: int
    spread: float | None
    masks: float | None = None
    nodes: int = 0

    def __str__(self) -> str:
        text = f"{self.score:.1f} [{self.low:.1f}, {self.high:.1f}]"
        if self.nodes:
            text += " E" + (f" sd {self.spread:.1f}" if self.spread is not None else "")
        elif self.spread is not None:
            text += f" sd {self.spread:.1f} of {self.draws}"
        return text + (f" masks {self.masks:.1f}" if self.masks is not None else "")


def value(rows: pd.DataFrame) -> Value | None:
    """Reduce the draws of one row and benchmark to a figure; None where nothing is scored.

    One draw keeps its result's own interval (Wilson for proportions). Several are averaged item by item, over the
    items that all of them have (an attacked item's versions are averaged); the interval is Wilson's on that mean. An
    item's mean over draws varies no more than a 0/1 verdict with the same mean would, so it errs on the wide side, and
    it never shrinks to a point at 0 or 100 %.
    """
    scored = _distinct(rows)
    if not len(scored):
        return None
    if len(scored) == 1:
        line = scored.iloc[0]
        return Value(
            float(line["score"]), float(line["low"]), float(line["high"]), int(line["n"]), int(line["n_unscored"]), 1,
            None,
        )  # fmt: skip
    found = item_values(rows)
    if not found:
        return None
    n = len(set.intersection(*map(_asked, scored["values"])))
    mean = statistics.fmean(100 * found[key] for key in sorted(found))
    low, high = (100 * end for end in stats.wilson(mean / 100, len(found)))
    if any(map(weighted, scored.itertuples())):  # LiveBench, pass@k
        mean, low, high = (statistics.fmean(scored[key].astype(float)) for key in ("score", "low", "high"))
    draws = max(1, scored["lam"].nunique())
    return Value(
        mean, low, high, n, n - len(found), draws, spread=_between(scored, "lam"), masks=_between(scored, "mask_seed")
    )


def weighted(line: Any) -> bool:
    """Tell whether a result's score is no plain mean of its items; not known where some are unscored."""
    items = item_means(line.values) if line.n_unscored == 0 else {}
    return bool(items) and abs(100 * sum(items.values()) / len(items) - line.score) > 1e-6


def _between(scored: pd.DataFrame, key: str) -> float | None:
    """Return the standard deviation between the levels' mean scores; None for a single level."""
    means = scored.groupby(key)["score"].mean()
    return statistics.stdev(map(float, means)) if len(means) > 1 else None


def _asked(values: Mapping[tuple[str, int], float | None]) -> set[str]:
    """Return the items of a result, scored or not, as `item_means` names them."""
    versions = any("@" in key for key, _ in values)
    return {key.partition("@")[0] for key, _ in values if ("@" in key) == versions}


def expected(response: Response, alpha: float) -> Value:
    """Return the expectation under Beta(alpha, alpha) on a curve: over its items, each of which gives one number."""
    curve = response.curve
    items = curve.expected(alpha)
    low, high = stats.mean_interval(items)
    masks = [100 * float(mask.expected(alpha).mean()) for mask in response.masks]
    return Value(
        100 * float(items.mean()), 100 * low, 100 * high,
        n=len(curve.ids), n_unscored=0, draws=0, nodes=len(curve.lams),
        spread=100 * draw_sd(curve, alpha) if len(curve.ids) > 1 else None,
        masks=statistics.stdev(masks) if len(masks) > 1 else None,
    )  # fmt: skip


def expected_items(response: Response, alpha: float) -> Values:
    return dict(zip(response.curve.ids, map(float, response.curve.expected(alpha)), strict=True))


def item_values(rows: pd.DataFrame) -> Values:
    """Return each item's mean over the draws and masks of some rows, over the items that all of them scored."""
    return shared([item_means(values) for values in _distinct(rows)["values"]])


def models(rows: pd.DataFrame) -> Models:
    """Return the item values of each model behind some rows."""
    return {
        (_level(line.lam), _level(line.mask_seed)): item_means(line.values_)
        for line in _distinct(rows).rename(columns={"values": "values_"}).itertuples()
    }


def _level(found: Any) -> float | None:
    return None if pd.isna(found) else float(found)


def expected_models(response: Response, alpha: float) -> Models:
    """Return the expectation under each DARE mask of a curve."""
    return {
        (None, float(seed)): dict(zip(mask.ids, map(float, mask.expected(alpha)), strict=True))
        for seed, mask in zip(response.mask_seeds, response.masks, strict=False)  # without DARE no seed
    }


def shared(found: Sequence[Values]) -> Values:
    """Return the item-wise mean of several models' values over the items that all of them have."""
    ids = set.intersection(*(set(values) for values in found)) if found else set()
    return {key: float(np.mean([values[key] for values in found])) for key in sorted(ids)}


def _distinct(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a score, each model once."""
    return rows[rows["score"].notna()].drop_duplicates(subset=["weights", "lam", "mask_seed"])
