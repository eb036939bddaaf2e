"""Fisher-weighted averaging (arXiv 2111.09832): each expert counts where its likelihood depends on a parameter.

merged = sum of w_i F_i theta_i / sum of w_i F_i,  F_i the diagonal of expert i's Fisher matrix

Plain is w = 1. Where all F_i are 0, and in what was not measured: the weighted average.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.methods import Measured
from m3_exp.merging.methods.average import average, coefficients
from m3_exp.merging.plugins import Declares
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from torch import Tensor


def shares(n: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    """Return each expert's share; they sum to 1, and none is negative."""
    if weights and min(weights) < 0:
        raise M3Error(f"weights {tuple(weights)}: fisher and regmean take none below 0: give lambda from 0 to 1")
    return coefficients(n, weights)


@Declares(
    granularity="element", device=True, shares=shares, affine=False, statistic="fisher",
    choices={"labels": ("model", "text"), "scale": ("none", "norm")},
    limits={"sequences": (0.0, 1e6), "length": (1.0, 1e6)},
)  # fmt: skip
def fisher(
    models: Sequence[Tensor],
    weights: Sequence[float] | None,
    measured: Measured | None,
    *,
    text: str = "lab",
    sequences: int,
    length: int,
    labels: str = "model",
    scale: str = "none",
) -> Tensor:
    """Return the Fisher-weighted average of float32 blocks of one shape. `scale=norm`: of F_i / |F_i|.

    `text`, `sequences`, `length` and `labels` are already in what was measured.
    """
    if measured is None:
        return average(models, weights)
    import torch

    by = [share / norm if scale == "norm" and norm else share
          for share, norm in zip(shares(len(models), weights), measured.norms, strict=True)]  # fmt: skip
    total = torch.zeros_like(models[0], dtype=torch.float64)
    mixed = torch.zeros_like(total)
    for model, value, share in zip(models, measured.values, by, strict=True):
        counts = value.double() * share
        total += counts
        mixed += counts * model
    return torch.where(total > 0, mixed / total, average(models, weights).double()).float()
