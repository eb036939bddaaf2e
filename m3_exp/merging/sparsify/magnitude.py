"""Magnitude pruning of each tensor: the largest deltas stay (docs/methods/magnitude.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_exp.merging.plugins import Declares
from m3_exp.merging.ranks import l1_factor, largest, smallest_by_torch
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from torch import Tensor

RESCALE = ("none", "l1")


def check_density(density: float) -> None:
    if not 0 < density <= 1:
        raise M3Error(f"sparsify.density={density} is no share that stays: give a number above 0, and at most 1")


def changes_nothing(*, density: float, rescale: str) -> bool:
    check_density(density)
    return density == 1


def device(*, rescale: str, **_: float) -> bool:
    """Tell whether a device serves these keywords: no sum of magnitudes."""
    return rescale != "l1"


def by_torch(delta: Tensor, *, density: float, rescale: str = "none") -> tuple[Tensor, int]:
    """Return what `magnitude` does, of a tensor on any torch device."""
    return thinned(delta, largest(delta, max(1, int(density * delta.numel())), smallest_by_torch), rescale)


@Declares(
    granularity="tensor", device=device, by_torch=by_torch, changes_nothing=changes_nothing,
    choices={"rescale": RESCALE},
)  # fmt: skip
def magnitude(delta: Tensor, *, density: float, rescale: str = "none") -> tuple[Tensor, int]:
    """Return a float32 delta with its `density` largest elements (one at least), and how many were dropped.

    `rescale=l1` multiplies what stays so that the sum of all magnitudes is as before.
    """
    mask = largest(delta, max(1, int(density * delta.numel())))
    return thinned(delta, mask, rescale)


def thinned(delta: Tensor, mask: Tensor, rescale: str) -> tuple[Tensor, int]:
    """Return what a mask leaves of a delta, rescaled as asked, and how many elements were dropped."""
    kept = delta * mask
    if rescale == "l1":
        kept *= l1_factor(delta, kept)
    return kept, delta.numel() - int(mask.sum())
