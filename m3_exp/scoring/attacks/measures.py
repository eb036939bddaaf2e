"""Matthews correlation, and the drop in performance under attack with its interval."""

import math
from collections import Counter
from collections.abc import Sequence
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
    """PDR = 1 - attacked / clean, from minus infinity to 1. None where undefined, with the reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


def performance_drop(clean: Sequence[float], attacked: Sequence[float], level: float = 0.95) -> Drop:
    """Return the PDR of paired item values (0 to 1) with Fieller's interval (1954) for a ratio of paired means.

    The interval holds for the attacked prompts as they are: that another seed finds other prompts is not in it.
    """
    from scipy.special import stdtrit

    n = len(clean)
    if n == 0 or not any(clean):
        return Drop(None, reason="undefined: no item is right without the attack" if n else "no item is scored")
    c, a = math.fsum(clean) / n, math.fsum(attacked) / n
    value = 1.0 - a / c
    if n == 1:
        return Drop(value, reason="one item has no interval")
    t2 = float(stdtrit(n - 1, 0.5 + level / 2)) ** 2
    cc, aa, ca = (_covariance(x, y) / n for x, y in ((clean, clean), (attacked, attacked), (clean, attacked)))
    # The ratios r for which a - r c is not significant: (c2 - t2 cc) r2 - 2 (a c - t2 ca) r + (a2 - t2 aa) <= 0.
    second, first, zeroth = c * c - t2 * cc, a * c - t2 * ca, a * a - t2 * aa
    if second <= 0.0:
        return Drop(value, reason="no interval: the accuracy without the attack is not clearly above 0")
    half = math.sqrt(max(first * first - second * zeroth, 0.0))
    return Drop(value, 1.0 - (first + half) / second, 1.0 - max((first - half) / second, 0.0))


def _covariance(x: Sequence[float], y: Sequence[float]) -> float:
    n = len(x)
    mean_x, mean_y = math.fsum(x) / n, math.fsum(y) / n
    return math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / (n - 1)
