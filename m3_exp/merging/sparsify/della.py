"""DELLA's MAGPRUNE (arXiv 2406.11617): drop at random, in each row the smaller a delta the more likely."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from m3_exp.merging.device import draws, scalar
from m3_exp.merging.plugins import Declares
from m3_exp.merging.ranks import l1_factor
from m3_exp.merging.sparsify.magnitude import check_density, device
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from torch import Tensor

_ELEMENTS = 1 << 20  # ranked at once: a rank takes 8 bytes


def changes_nothing(*, density: float, epsilon: float, rescale: str) -> bool:
    check_density(density)
    if density < 1 and not (0 <= epsilon < density and density + epsilon < 1):
        raise M3Error(
            f"sparsify.epsilon={epsilon} is out of range: density - epsilon must be above 0 and density + epsilon "
            f"below 1, with density {density:g} it is below {min(density, 1 - density):g}"
        )
    return density == 1


def by_torch(
    delta: Tensor, key: int, start: int, *, density: float, epsilon: float, rescale: str = "p"
) -> tuple[Tensor, int]:
    """Return what `della` does, of a tensor on any torch device."""

    def drawn(first: int, count: int) -> Tensor:
        return draws(key, first, count, delta.device).double() * 2.0**-32

    return _pruned(delta, drawn, start, density, epsilon, rescale)


@Declares(
    granularity="tensor", device=device, by_torch=by_torch, changes_nothing=changes_nothing,
    choices={"rescale": ("p", "l1", "none")},
)  # fmt: skip
def della(
    delta: Tensor, key: int, start: int, *, density: float, epsilon: float, rescale: str = "p"
) -> tuple[Tensor, int]:
    """Return the masked, rescaled delta (a float32 tensor), and how many of its elements were dropped.

    In a row, along the last dimension, the smallest stays with probability density - epsilon and the largest with
    density + epsilon, those between by their rank. `rescale`: divide by the probability, or keep the sum of magnitudes.
    """
    import torch

    def drawn(first: int, count: int) -> Tensor:
        from m3_exp.merging import kernels

        words = np.empty(count, np.uint32)
        kernels.draw(np.uint64(key), first, words)
        return torch.from_numpy(words * 2.0**-32)

    return _pruned(delta, drawn, start, density, epsilon, rescale)


def _pruned(
    delta: Tensor,
    drawn: Callable[[int, int], Tensor],
    start: int,
    density: float,
    epsilon: float,
    rescale: str,
) -> tuple[Tensor, int]:
    """Prune a delta. `drawn(first, count)` gives numbers in [0, 1), float64, which follow from elements' indices."""
    import torch

    width = delta.shape[-1] if delta.ndim else 1
    rows = delta.reshape(-1, width)
    out, dropped = torch.empty_like(rows), 0
    for first in range(0, len(rows), step := max(1, _ELEMENTS // width)):
        some = rows[first : first + step]
        stays = probabilities(some, density, epsilon)
        mask = drawn(start + first * width, some.numel()).view_as(some) >= 1 - stays
        out[first : first + step] = some * mask / stays.float() if rescale == "p" else some * mask
        dropped += some.numel() - int(mask.sum())
    if rescale == "l1":
        out *= l1_factor(rows, out)
    return out.view(delta.shape), dropped


def probabilities(rows: Tensor, density: float, epsilon: float) -> Tensor:
    """Return with which probability each element stays, float64; of equal ones the first has the lowest rank."""
    import torch

    width = rows.shape[1]
    order = rows.abs().argsort(dim=1, stable=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(width, device=rows.device).expand_as(order))
    place = ranks.double()
    place = place / scalar(width - 1, place) if width > 1 else torch.full_like(place, 0.5)
    return density - epsilon + 2 * epsilon * place
