"""SLERP: the arc between two experts, tensor by tensor (Shoemake 1985; docs/methods/slerp.md).

    merged = (sin(w_1 angle) theta_1 + sin(w_2 angle) theta_2) / sin(angle),  w_1 + w_2 = 1

The angle is that between the two tensors as vectors. Where |cos(angle)| is above the threshold the arc is a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.gram import Matrix, combined, cosine, gram
from m3_exp.merging.methods.average import coefficients
from m3_exp.merging.plugins import Declares
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from torch import Tensor


STRAIGHT = 1e-12  # sin(angle)^2: below it an arc is a line, or has no direction


def shares(n: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    """Return the two experts' shares, which sum to 1."""
    if n > 2:
        raise M3Error(f"slerp and nuslerp take two experts, there are {n}: method=karcher takes any number")
    return coefficients(n, weights)


def arc(cos: float, share: Sequence[float], threshold: float) -> tuple[float, float]:
    """Return the two coefficients of a point on the arc between two vectors; those of the line near 0 and 180 degrees.

    `threshold`: above this |cos|.
    """
    one, other = share
    if abs(cos) > threshold or 1 - cos * cos <= STRAIGHT:
        return one, other
    angle = math.acos(cos)
    return math.sin(one * angle) / math.sin(angle), math.sin(other * angle) / math.sin(angle)


def point(products: Matrix, weights: Sequence[float] | None, *, threshold: float) -> tuple[float, ...]:
    """Return the two experts' coefficients, by their inner products."""
    return arc(cosine(products, 0, 1), shares(len(products), weights), threshold)


@Declares(granularity="tensor", by_gram=point, shares=shares, affine=False, limits={"threshold": (0.0, 1.0)})
def slerp(models: Sequence[Tensor], weights: Sequence[float] | None, *, threshold: float) -> Tensor:
    """Return the point on the arc between two float32 tensors."""
    return combined(models, point(gram(models), weights, threshold=threshold))
