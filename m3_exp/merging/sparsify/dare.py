"""DARE (arXiv 2311.03099): drop each delta with probability p, divide the rest by 1 - p.

`rescale=l1` multiplies the rest to the former sum of magnitudes of its tensor instead, as mergekit does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3_exp.merging.bits import like
from m3_exp.merging.device import draws, scalar
from m3_exp.merging.plugins import Declares
from m3_exp.merging.ranks import l1_factor
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from torch import Tensor


def granularity(*, drop_rate: float, rescale: str) -> str:
    return "tensor" if rescale == "l1" else "element"


def changes_nothing(*, drop_rate: float, rescale: str) -> bool:
    if not 0 <= drop_rate < 1:
        what = "drops everything" if drop_rate >= 1 else "is no share"
        raise M3Error(f"sparsify.drop_rate={drop_rate} {what}: give a number from 0 to below 1 (the paper: 0.2)")
    return drop_rate == 0


def arrays(*, drop_rate: float, rescale: str) -> bool:
    return rescale == "p"


def chance(drop_rate: float) -> tuple[np.uint64, np.float32]:
    """Return the number of 32 bits below which an element is dropped, and what all others are divided by."""
    return np.uint64(round(drop_rate * 2**32)), np.float32(1 - drop_rate)


def by_torch(delta: Tensor, key: int, start: int, *, drop_rate: float, rescale: str = "p") -> tuple[Tensor, int]:
    """Return what `dare` does with `rescale=p`, of a block on any torch device."""
    import torch

    gone = draws(key, start, delta.numel(), delta.device).view_as(delta) < round(drop_rate * 2**32)
    return torch.where(gone, 0.0, delta / scalar(1 - drop_rate, delta)), int(gone.sum())


@Declares(
    granularity=granularity, arrays=arrays, device=arrays, by_torch=by_torch, changes_nothing=changes_nothing,
    choices={"rescale": ("p", "l1")},
)  # fmt: skip
def dare(delta: Tensor, key: int, start: int, *, drop_rate: float, rescale: str = "p") -> tuple[Tensor, int]:
    """Return the masked, rescaled delta (float32) of a block, and how many of its elements were dropped.

    32 bits, which follow from the key and the element's index, decide about an element. An array may stand for the
    tensor (`arrays`).
    """
    from m3_exp.merging import kernels

    flat = np.asarray(delta).reshape(-1)
    out = np.empty_like(flat)
    threshold, kept = chance(drop_rate)
    if rescale == "l1":
        kept = np.float32(1)
    dropped = kernels.drop(flat, np.uint64(key), start, threshold, kept, out)
    thinned = like(out, delta)
    if rescale == "l1":
        thinned *= l1_factor(delta, thinned)
    return thinned, int(dropped)
