"""Scores -> the figure of a cell with its 95 % interval: a mean over items, in percent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m3_exp.stats.scored import Scored, of_scores
from m3_exp.types import Result, Score


@dataclass(frozen=True)
class Figure:
    """A score with its 95 % interval in percent over `n` scored items; all None where there are none."""

    score: float | None
    low: float | None
    high: float | None
    n: int


def figure(scored: Scored) -> Figure:
    """Return the score of some items; unscored ones widen its interval by the worst and the best they could be."""
    if not scored.values:
        return Figure(None, None, None, 0)
    estimate = scored.estimate().scaled(100.0)
    return Figure(estimate.value, estimate.low, estimate.high, estimate.n)


def mean_result(
    benchmark: str,
    metric: str,
    scores: Sequence[Score],
    settings: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
) -> Result:
    """Return the mean over the scored items, in percent, with its 95 % interval; n counts items, not samples.

    What an item counts is said by `metric` (pass@k), and by `details`: where these hold `by_task`, the result is the
    mean of the tasks' means. Items whose scores have the same note `problem` are one cluster.
    """
    scored = of_scores(scores, metric, by_task="by_task" in (details or {}))
    shown = figure(scored)
    return Result(
        benchmark=benchmark,
        metric=metric,
        score=shown.score,
        low=shown.low,
        high=shown.high,
        n=shown.n + scored.unscored,
        n_scored=shown.n,
        n_unscored=scored.unscored,
        settings=dict(settings),
        details=dict(details or {}),
    )
