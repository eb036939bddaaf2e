"""Model Breadcrumbs (arXiv 2312.06795): drop the largest and the smallest deltas of each tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_exp.merging.plugins import Declares
from m3_exp.merging.ranks import largest
from m3_exp.merging.sparsify.magnitude import RESCALE, check_density, thinned
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from torch import Tensor


def changes_nothing(*, density: float, gamma: float, rescale: str) -> bool:
    check_density(density)
    if not 0 <= gamma < 1:
        raise M3Error(f"sparsify.gamma={gamma} is no share of outliers: give a number from 0 to below 1")
    return density == 1


@Declares(granularity="tensor", changes_nothing=changes_nothing, choices={"rescale": RESCALE})
def breadcrumbs(delta: Tensor, *, density: float, gamma: float, rescale: str = "none") -> tuple[Tensor, int]:
    """Return a float32 delta without its `gamma` largest elements and all but the next `density`; how many it lost.

    Fewer of the largest are dropped where otherwise less than `density` would be left.
    """
    n = delta.numel()
    kept = int(density * n)
    from_the_top = min(n, kept + int(gamma * n))
    mask = largest(delta, from_the_top) & ~largest(delta, from_the_top - kept)
    return thinned(delta, mask, rescale)
