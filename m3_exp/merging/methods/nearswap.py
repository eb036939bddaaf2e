"""NearSwap (alchemonaut, in mergekit): take what an expert changed, but move no element further than `reach`.

merged = theta_0 + sum of w_i clip(delta_i, -reach, reach); plain: the mean
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.gram import combined
from m3_exp.merging.plugins import Declares

if TYPE_CHECKING:
    from torch import Tensor


@Declares(granularity="element", device=True, limits={"reach": (0.0, float("inf"))})
def nearswap(deltas: Sequence[Tensor], weights: Sequence[float] | None, base: Tensor, *, reach: float) -> Tensor:
    """Return the base plus the weighted sum of the float32 deltas, each element of which is at most `reach`."""
    shares = weights or (1 / len(deltas),) * len(deltas)
    return base + combined([delta.clamp(-reach, reach) for delta in deltas], shares)
