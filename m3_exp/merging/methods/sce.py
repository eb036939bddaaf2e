"""SCE (arXiv 2408.07990): select what differs most between experts, weigh each expert by its energy, elect a sign.

tau_i  = delta_i at the `density` elements of a tensor with the largest variance over the experts, else 0
w_i    = sum of tau_i^2 / sum over all experts of it
merged = theta_0 + sum of w_i tau_i / sum of w_i, over the experts whose tau_i has the sign of the sum of all tau_i
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.gram import inner
from m3_exp.merging.plugins import Declares
from m3_exp.merging.ranks import largest

if TYPE_CHECKING:
    from torch import Tensor


@Declares(granularity="tensor", weighted=False, affine=False, limits={"density": (0.0, 1.0)})
def sce(deltas: Sequence[Tensor], weights: None, base: Tensor, *, density: float) -> Tensor:
    """Return the base plus the selected, weighted, elected float32 deltas of one tensor."""
    import torch

    chosen = list(deltas) if density == 1 else _selected(deltas, density)
    energies = [inner(delta, delta) for delta in chosen]
    if not any(energies):
        return base.clone()
    total = chosen[0].clone()
    for delta in chosen[1:]:
        total += delta
    upward = total >= 0
    merged, shares = torch.zeros_like(base), torch.zeros_like(base)
    for delta, energy in zip(chosen, energies, strict=True):
        share = energy / sum(energies)
        agrees = torch.where(upward, delta > 0, delta < 0)
        merged += delta * agrees * share
        shares += agrees * share
    return base + merged / torch.where(shares > 0, shares, 1.0)


def _selected(deltas: Sequence[Tensor], density: float) -> list[Tensor]:
    """Return the deltas at the elements that vary most; the share is of those that vary at all."""
    mean = deltas[0] / len(deltas)
    for delta in deltas[1:]:
        mean += delta / len(deltas)
    spread = (deltas[0] - mean).square()
    for delta in deltas[1:]:
        spread += (delta - mean).square()
    mask = largest(spread, int(density * int(spread.count_nonzero())))
    return [delta * mask for delta in deltas]
