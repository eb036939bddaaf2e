"""TIES (arXiv 2306.01708) as in the M3 paper: trim over the WHOLE model, elect a sign, mix what agrees with it.

    tau_i   = delta_i where |delta_i| >= cutoff_i, else 0
    sign    = sign(sum of tau_i); where that is 0, the sign of the sum of all elected signs of the model
    merged  = theta_0 + s * (the weighted mean of the tau_i that have this sign; one that is alone is kept as it is)

The weights of the tau_i that are kept are divided by their sum (equal weights if all are 0). Cut-offs and signs do not
depend on the weights, so with two experts the merge is affine in lambda. Plain is the disjoint mean: equal weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from m3_exp.merging.plugins import Declares, are_shares
from m3_exp.merging.scan import Cutoffs

if TYPE_CHECKING:
    from torch import Tensor


def proportions(n: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    """Return weights that sum to 1; equal ones where none are given or their sum is 0."""
    total = sum(weights) if weights else 0.0
    if not weights or abs(total) < 1e-12:
        return (1.0 / n,) * n
    return tuple(weights) if are_shares(weights) else tuple(weight / total for weight in weights)


@Declares(granularity="element", proportions=proportions, limits={"retain": (0.0, 1.0)})
def ties(
    deltas: Sequence[Tensor],
    weights: Sequence[float] | None,
    base: Tensor,
    cutoffs: Cutoffs,
    *,
    scaling: float,
    retain: float,
) -> Tensor:
    """Return the merged block (float32, one shape). `retain` is already in the cut-offs."""
    import torch

    from m3_exp.merging import kernels

    shares = np.array(proportions(len(deltas), weights), np.float32)
    lows = np.array(cutoffs.magnitudes, np.float32)
    signs_and_scale = np.float32(cutoffs.majority), np.float32(scaling)
    merged = torch.empty_like(base)
    arrays = tuple(delta.numpy() for delta in deltas)
    if len(arrays) == 2:
        kernels.ties_two(*arrays, base.numpy(), lows, shares, *signs_and_scale, merged.numpy())
    else:
        kernels.ties_many(arrays, base.numpy(), lows, shares, *signs_and_scale, merged.numpy())
    return merged
