"""RegMean (arXiv 2212.09849): of each linear layer the weights whose outputs are nearest to those of the experts.

    W = (sum of w_i W_i G_i) (sum of w_i G_i)^-1,  G_i = off_diagonal * gram_i + (1 - off_diagonal) * diag(gram_i)

gram_i is the mean of x x^T over the inputs x of the layer in expert i, and W_i is (outputs, inputs). Plain is w = 1.
All other tensors (embeddings, norms, biases, head) are the weighted average, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.methods import Measured
from m3_exp.merging.methods.average import average
from m3_exp.merging.methods.fisher import shares
from m3_exp.merging.plugins import Declares

if TYPE_CHECKING:
    from torch import Tensor

_RIDGE = 1e-6  # of the mean diagonal: what no input reaches becomes the average


@Declares(
    granularity="tensor", shares=shares, affine=False, statistic="grams",
    limits={"sequences": (0.0, 1e6), "length": (1.0, 1e6), "off_diagonal": (-1e-12, 1.0)},
)  # fmt: skip
def regmean(
    models: Sequence[Tensor],
    weights: Sequence[float] | None,
    measured: Measured | None,
    *,
    text: str = "lab",
    sequences: int,
    length: int,
    off_diagonal: float,
) -> Tensor:
    """Return the regression mean of float32 matrices (outputs, inputs), solved in float64.

    `text`, `sequences` and `length` are already in what was measured.
    """
    if measured is None:
        return average(models, weights)
    import torch

    total = torch.zeros(measured.values[0].shape, dtype=torch.float64)
    mixed = torch.zeros(models[0].shape, dtype=torch.float64)
    by = shares(len(models), weights)
    ridge = _RIDGE * sum(float(g.diagonal().mean()) * share for g, share in zip(measured.values, by, strict=True))
    for model, value, share in zip(models, measured.values, by, strict=True):
        gram = value.double() * (share * off_diagonal)
        gram.diagonal().copy_(value.diagonal().double() * share + ridge * share)
        total += gram
        mixed += model.double() @ gram
    if not ridge > 0:  # no input at all
        return average(models, weights)
    solved: Tensor = torch.linalg.solve(total, mixed.T).T
    return solved.float()
