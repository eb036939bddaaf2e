"""Matthews correlation."""

import math
from collections import Counter
from collections.abc import Sequence


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
