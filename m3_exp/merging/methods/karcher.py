"""The Karcher mean: the point of the unit sphere with the least weighted sum of squared angles to the experts.

    unit_i = theta_i / |theta_i|;  repeat: mean <- exp_mean(sum of w_i log_mean(unit_i));  w_1 + ... + w_n = 1
    merged = (sum of w_i |theta_i|) mean

Every point on the way is a sum of the experts, so all steps are taken on their inner products alone (docs/methods/
karcher.md). A tensor shorter than the tolerance has no direction: it counts for the length only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.gram import Matrix, combined, cosine, gram
from m3_exp.merging.methods.average import coefficients
from m3_exp.merging.plugins import Declares

if TYPE_CHECKING:
    from torch import Tensor


def mean(cosines: Matrix, shares: Sequence[float], steps: int, tolerance: float) -> list[float]:
    """Return the coefficients of the Karcher mean of unit vectors, by the cosines between them."""
    n = len(shares)

    def product(one: Sequence[float], other: Sequence[float]) -> float:
        return math.fsum(one[i] * cosines[i][j] * other[j] for i in range(n) for j in range(n))

    def normalised(point: list[float]) -> list[float] | None:
        length = math.sqrt(max(0.0, product(point, point)))
        return None if length < tolerance else [value / length for value in point]

    at = normalised(list(shares)) or [1.0, *[0.0] * (n - 1)]
    for _ in range(steps):
        tangent = [0.0] * n
        for i in range(n):
            cos = max(-1.0, min(1.0, math.fsum(at[j] * cosines[j][i] for j in range(n))))
            if (angle := math.acos(cos)) < tolerance or math.sin(angle) == 0:
                continue
            pull = shares[i] * angle / math.sin(angle)
            tangent = [value - pull * cos * at[j] + (pull if j == i else 0.0) for j, value in enumerate(tangent)]
        length = math.sqrt(max(0.0, product(tangent, tangent)))
        if length < tolerance:
            break
        moved = [math.cos(length) * at[j] + math.sin(length) * tangent[j] / length for j in range(n)]
        at = normalised(moved) or moved
    return at


def point(products: Matrix, weights: Sequence[float] | None, *, steps: int, tolerance: float) -> list[float]:
    """Return the experts' coefficients, by their inner products."""
    shares = coefficients(len(products), weights)
    lengths = [math.sqrt(row[i]) for i, row in enumerate(products)]
    long = [i for i, length in enumerate(lengths) if length > tolerance]
    if not long:
        return [0.0] * len(products)
    scale = math.fsum(share * length for share, length in zip(shares, lengths, strict=True))
    among = coefficients(len(long), [shares[i] for i in long])
    found = mean([[cosine(products, i, j) for j in long] for i in long], among, steps, tolerance)
    by_expert = dict(zip(long, found, strict=True))
    return [scale * by_expert[i] / length if i in by_expert else 0.0 for i, length in enumerate(lengths)]


@Declares(
    granularity="tensor", by_gram=point, shares=coefficients, affine=False,
    limits={"steps": (0.0, 1000.0), "tolerance": (0.0, 0.1)},
)  # fmt: skip
def karcher(models: Sequence[Tensor], weights: Sequence[float] | None, *, steps: int, tolerance: float) -> Tensor:
    """Return the Karcher mean of float32 tensors of one shape, at the mean of their lengths."""
    return combined(models, point(gram(models), weights, steps=steps, tolerance=tolerance))
