"""Model Breadcrumbs (arXiv 2312.06795): drop the largest and the smallest deltas of each tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from m3_exp.merging.plugins import Declares
from m3_exp.merging.ranks import largest, smallest, smallest_by_torch
from m3_exp.merging.sparsify.magnitude import RESCALE, check_density, device, thinned
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from torch import Tensor


def changes_nothing(*, density: float, gamma: float, rescale: str) -> bool:
    check_density(density)
    if not 0 <= gamma < 1:
        raise M3Error(f"sparsify.gamma={gamma} is no share of outliers: give a number from 0 to below 1")
    return density == 1


def by_torch(delta: Tensor, *, density: float, gamma: float, rescale: str = "none") -> tuple[Tensor, int]:
    """Return what `breadcrumbs` does, of a tensor on any torch device."""
    return thinned(delta, _between(delta, density, gamma, smallest_by_torch), rescale)


@Declares(
    granularity="tensor", device=device, by_torch=by_torch, changes_nothing=changes_nothing,
    choices={"rescale": RESCALE},
)  # fmt: skip
def breadcrumbs(delta: Tensor, *, density: float, gamma: float, rescale: str = "none") -> tuple[Tensor, int]:
    """Return a float32 delta without its `gamma` largest elements and all but the next `density`; how many it lost.

    Fewer of the largest are dropped where otherwise less than `density` would be left.
    """
    return thinned(delta, _between(delta, density, gamma, smallest), rescale)


def _between(delta: Tensor, density: float, gamma: float, smallest: Callable[[Tensor, int], float]) -> Tensor:
    """Return the mask of the elements that stay; `smallest` finds a rank."""
    n = delta.numel()
    kept = int(density * n)
    from_the_top = min(n, kept + int(gamma * n))
    return largest(delta, from_the_top, smallest) & ~largest(delta, from_the_top - kept, smallest)
