"""Matthews correlation, and the drop in performance under attack with its interval."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


def matthews(labels: Sequence[int], predictions: Sequence[int]) -> float | None:
    """Return Matthews correlation (-1 to 1), for more than two classes Gorodkin's R_K (2004); None where undefined.

    An answer without a label is a class of its own, so that it counts as wrong.
    """
    n = len(labels)
    right = sum(a == b for a, b in zip(labels, predictions, strict=True))
    true, told = Counter(labels), Counter(predictions)
    covariance = n * right - sum(true[k] * told[k] for k in true)
    spread = (n * n - sum(c * c for c in true.values())) * (n * n - sum(c * c for c in told.values()))
    return covariance / math.sqrt(spread) if spread else None


@dataclass(frozen=True)
class Drop:
    """PDR = 1 - attacked / clean, from minus infinity to 1. None where there is none, or no end: the reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


def performance_drop(
    clean: Sequence[float],
    attacked: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    missing: int = 0,
) -> Drop:
    """Return the PDR of paired item values (0 to 1) with its 95 % interval (`stats.ratio.drop`), as JSON can hold it.

    The interval holds for the attacked prompts as they are: that another seed finds other prompts is not in it.
    """
    from m3_exp.stats.ratio import drop  # slow to import

    pdr = drop(clean, attacked, clusters=clusters, missing=missing)
    if pdr.value is None:
        return Drop(None, reason=pdr.reason)
    if math.isinf(pdr.low):
        return Drop(pdr.value, None, pdr.high, "not bounded below")
    return Drop(pdr.value, pdr.low, pdr.high)
