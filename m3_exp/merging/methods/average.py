"""Weighted average: sum of w_i theta_i, the weights counted as shares of their sum (plain: 1/n each)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.plugins import Declares, are_shares
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from torch import Tensor


def coefficients(n: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    """Return each expert's share; they sum to 1."""
    weights = weights or (1.0,) * n
    total = sum(weights)
    if abs(total) < 1e-12:
        raise M3Error(f"weights {tuple(weights)} of an average sum to 0: give some with a sum")
    return tuple(weights) if are_shares(weights) else tuple(weight / total for weight in weights)


@Declares(granularity="element", arrays=True, device=True, coefficients=coefficients)
def average(models: Sequence[Tensor], weights: Sequence[float] | None) -> Tensor:
    """Return the weighted average of float32 blocks of one shape: tensors or arrays."""
    shares = coefficients(len(models), weights)
    result = models[0] * shares[0]
    for model, share in zip(models[1:], shares[1:], strict=True):
        result += model * share  # never add(alpha=): its fused multiply-add differs between vector and tail elements
    return result
