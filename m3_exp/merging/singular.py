"""Singular values and vectors of a matrix, without those that rounding alone made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SEED = 0  # of the random start of `leading`
_MORE, _ROUNDS = 10, 4  # its surplus vectors, and power iterations


@dataclass(frozen=True)
class Decomposed:
    """A matrix as u diag(s) v^T: `u` (rows, r), `s` (r,) from the largest on, `v` (columns, r)."""

    u: Tensor
    s: Tensor
    v: Tensor

    def first(self, count: int) -> Decomposed:
        return Decomposed(self.u[:, :count], self.s[:count], self.v[:, :count])


def decomposed(matrix: Tensor) -> Decomposed:
    """Return the singular value decomposition of a float32 matrix, r its numerical rank.

    Below that rank's tolerance (the largest value times the longer side times float32's spacing) vectors are arbitrary.
    """
    import torch

    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((s > s.max() * max(matrix.shape) * torch.finfo(s.dtype).eps).sum())
    return Decomposed(u, s, vh.T).first(rank)


def leading(matrix: Tensor, count: int) -> Decomposed:
    """Return about the `count` largest singular values with their vectors: a random subspace, refined by the matrix.

    The random start (Halko, Martinsson and Tropp, arXiv 0909.4061) is the same in every call.
    """
    import torch

    if count + _MORE >= min(matrix.shape):
        return decomposed(matrix).first(count)
    generator = torch.Generator().manual_seed(_SEED)
    found = matrix @ torch.randn(matrix.shape[1], count + _MORE, generator=generator)
    for _ in range(_ROUNDS):
        found = matrix @ torch.linalg.qr(matrix.T @ torch.linalg.qr(found).Q).Q
    span = torch.linalg.qr(found).Q
    small = decomposed(span.T @ matrix).first(count)
    return Decomposed(span @ small.u, small.s, small.v)


def orthonormal(matrix: Tensor) -> Tensor:
    """Return the nearest matrix with orthonormal columns (the polar factor) of one with no more columns than rows."""
    import torch

    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    nearest: Tensor = u @ vh
    return nearest
