"""Inner products of whole tensors, and sums of them: what methods of lengths and angles are made of.

Products of float32 elements are added up in float64, block by block in their order, so that no thread and no place in
memory changes a bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Matrix = list[list[float]]
_BLOCK = 1 << 16  # elements: they stay in a core's cache


def inner(one: Tensor, other: Tensor) -> float:
    """Return the inner product of two float32 tensors of one shape."""
    import torch

    a, b = one.reshape(-1), other.reshape(-1)
    cuts = (slice(start, start + _BLOCK) for start in range(0, a.numel(), _BLOCK))
    return math.fsum(float((a[cut] * b[cut]).sum(dtype=torch.float64)) for cut in cuts)


def gram(tensors: Sequence[Tensor]) -> Matrix:
    """Return the inner products of every two of some tensors, (n, n)."""
    n = len(tensors)
    below = [[inner(tensors[i], tensors[j]) for j in range(i + 1)] for i in range(n)]
    return [[below[max(i, j)][min(i, j)] for j in range(n)] for i in range(n)]


def cosine(products: Matrix, i: int, j: int) -> float:
    """Return the cosine of the angle between two tensors; 0, a right angle, where one of them is 0."""
    length = math.sqrt(products[i][i]) * math.sqrt(products[j][j])
    return max(-1.0, min(1.0, products[i][j] / length)) if length else 0.0


def combined(tensors: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """Return the sum of coefficient times tensor."""
    result = tensors[0] * coefficients[0]
    for tensor, coefficient in zip(tensors[1:], coefficients[1:], strict=True):
        result += tensor * coefficient  # never add(alpha=): see methods/average.py
    return result
