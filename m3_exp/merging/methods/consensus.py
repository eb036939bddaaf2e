"""Consensus merging with TALL masks (arXiv 2405.07813): keep the elements that several experts need.

    total   = sum of delta_i
    mask_i  = |delta_i| > threshold * |total - delta_i|
    merged  = theta_0 + s * sum of w_i delta_i, where at least `agree` of the masks hold; plain is w = 1

The masks do not depend on the weights, so the merge is affine in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.gram import combined
from m3_exp.merging.plugins import Declares

if TYPE_CHECKING:
    from torch import Tensor


@Declares(granularity="element", device=True, limits={"threshold": (0.0, float("inf")), "agree": (-1.0, float("inf"))})
def consensus(
    deltas: Sequence[Tensor],
    weights: Sequence[float] | None,
    base: Tensor,
    *,
    scaling: float,
    threshold: float,
    agree: int,
) -> Tensor:
    """Return the base plus the scaled, weighted sum of the float32 deltas at the elements that enough experts need."""
    import torch

    n = len(deltas)
    total = combined(deltas, [1.0] * n)
    votes = torch.zeros_like(base, dtype=torch.int32)
    for delta in deltas:
        votes += delta.abs() > threshold * (total - delta).abs()
    mixed = total if weights is None else combined(deltas, weights)
    return base + scaling * (mixed * (votes >= agree))
