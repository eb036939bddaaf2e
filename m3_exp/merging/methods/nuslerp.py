"""NuSLERP: the arc between what two experts changed, by tensor, row or column (docs/methods/nuslerp.md).

merged = theta_0 + (sin(w_1 angle) delta_1 + sin(w_2 angle) delta_2) / sin(angle),  w_1 + w_2 = 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.gram import Matrix, combined, cosine, gram
from m3_exp.merging.methods.slerp import STRAIGHT, arc, shares
from m3_exp.merging.plugins import Declares

if TYPE_CHECKING:
    from torch import Tensor


def point(products: Matrix, weights: Sequence[float] | None, *, by: str) -> tuple[float, ...] | None:
    """Return the two deltas' coefficients, by their inner products; None where vectors have angles of their own."""
    return arc(cosine(products, 0, 1), shares(len(products), weights), threshold=1.0) if by == "tensor" else None


@Declares(granularity="tensor", by_gram=point, shares=shares, affine=False, choices={"by": ("tensor", "row", "column")})
def nuslerp(deltas: Sequence[Tensor], weights: Sequence[float] | None, base: Tensor, *, by: str = "tensor") -> Tensor:
    """Return the base plus the point on the arc between two float32 deltas.

    `by`: what has an angle of its own, the whole tensor, or each of its vectors along the last or the first dimension.
    """
    share = shares(len(deltas), weights)
    if by == "tensor" or base.ndim < 2:
        return combined(deltas, arc(cosine(gram(deltas), 0, 1), share, threshold=1.0)) + base
    return base + _by_vector(deltas, share, -1 if by == "row" else 0)


def _by_vector(deltas: Sequence[Tensor], share: Sequence[float], dim: int) -> Tensor:
    import torch

    def inner(i: int, j: int) -> Tensor:
        return (deltas[i] * deltas[j]).sum(dim, keepdim=True, dtype=torch.float64)

    length = (inner(0, 0) * inner(1, 1)).sqrt()
    cos = torch.where(length > 0, inner(0, 1) / length, 0).clamp(-1, 1)  # a right angle to a vector of 0
    straight = 1 - cos.square() <= STRAIGHT
    angle = torch.where(straight, 1.0, cos).acos()
    factors = [torch.where(straight, part, (part * angle).sin() / angle.sin()).float() for part in share]
    return deltas[0] * factors[0] + deltas[1] * factors[1]
