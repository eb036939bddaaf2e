"""Scores -> the figure of a cell with its 95 % interval: a mean over items, in percent."""

from collections.abc import Mapping, Sequence
from typing import Any

from m3_exp.scoring.intervals import mean_interval
from m3_exp.types import Result, Score


def item_values(scores: Sequence[Score]) -> dict[str, float | None]:
    """Return each item's value, the mean over its samples; None where one of them is unscored."""
    samples: dict[str, list[float | None]] = {}
    for score in scores:
        samples.setdefault(score.id, []).append(score.value)
    means: dict[str, float | None] = {}
    for key, values in samples.items():
        known = [value for value in values if value is not None]
        means[key] = sum(known) / len(known) if len(known) == len(values) else None
    return means


def mean_result(
    benchmark: str,
    metric: str,
    scores: Sequence[Score],
    settings: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
) -> Result:
    """Return the mean over the scored items, in percent, with its 95 % interval; n counts items, not samples."""
    values = item_values(scores)
    known = [value for value in values.values() if value is not None]
    interval = mean_interval(known) if known else None
    return Result(
        benchmark=benchmark,
        metric=metric,
        score=100.0 * interval.mean if interval else None,
        low=100.0 * interval.low if interval else None,
        high=100.0 * interval.high if interval else None,
        n=len(values),
        n_scored=len(known),
        n_unscored=len(values) - len(known),
        settings=dict(settings),
        details=dict(details or {}),
    )
