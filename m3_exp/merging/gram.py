"""Inner products of whole tensors, and sums of them: what methods of lengths and angles are made of.

Products of float32 elements are added up in float64, piece by piece in their order, so that no thread and no place in
memory changes a bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from m3_exp.merging.scan import Halves

Matrix = list[list[float]]
_PIECE = 2048  # elements, as kernels.dots takes them


def inner(one: Tensor, other: Tensor) -> float:
    """Return the inner product of two float32 tensors of one shape."""
    from m3_exp.merging import kernels

    a, b = (np.ascontiguousarray(tensor.detach().cpu()).reshape(-1) for tensor in (one, other))
    sums = np.empty(-(-a.size // _PIECE))
    kernels.dots(a, b, sums)
    return math.fsum(sums)


def gram_of(given: Halves) -> Matrix:
    """Return `gram` of models that are given as bits, or of their differences from a base that is not empty."""
    from m3_exp.merging import kernels

    n = len(given.experts)
    sums = np.empty((n * (n + 1) // 2, -(-given.experts[0].size // _PIECE)))
    kernels.dots_of(given.experts, given.base, given.is_half, kernels.rows(n), sums)
    products = iter([math.fsum(pieces) for pieces in sums])
    return _whole([[next(products) for _ in range(i + 1)] for i in range(n)])


def gram(tensors: Sequence[Tensor]) -> Matrix:
    """Return the inner products of every two of some tensors, (n, n)."""
    n = len(tensors)
    below = [[inner(tensors[i], tensors[j]) for j in range(i + 1)] for i in range(n)]
    return _whole(below)


def _whole(below: Matrix) -> Matrix:
    """Return the symmetric matrix of its lower triangle."""
    n = len(below)
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
