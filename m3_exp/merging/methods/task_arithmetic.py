"""Task arithmetic (arXiv 2212.04089): theta_0 + s sum of w_i (theta_i - theta_0); plain is w = 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.plugins import Declares

if TYPE_CHECKING:
    from torch import Tensor


def coefficients(n: int, weights: Sequence[float] | None, *, scaling: float) -> tuple[float, ...]:
    """Return each delta's share."""
    return tuple(scaling * weight for weight in weights or (1.0,) * n)


@Declares(granularity="element", arrays=True, device=True, coefficients=coefficients)
def task_arithmetic(
    deltas: Sequence[Tensor], weights: Sequence[float] | None, base: Tensor, *, scaling: float
) -> Tensor:
    """Return the base plus the scaled, weighted sum of the deltas (float32 blocks of one shape: tensors or arrays)."""
    shares = coefficients(len(deltas), weights, scaling=scaling)
    result = deltas[0] * shares[0]
    for delta, share in zip(deltas[1:], shares[1:], strict=True):
        result += delta * share
    result += base
    return result
