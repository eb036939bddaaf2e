"""DARE (arXiv 2311.03099): drop each delta with probability p, divide the rest by 1 - p."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3_exp.merging.plugins import Declares
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from torch import Tensor


def changes_nothing(*, drop_rate: float) -> bool:
    if not 0 <= drop_rate < 1:
        what = "drops everything" if drop_rate >= 1 else "is no share"
        raise M3Error(f"sparsify.drop_rate={drop_rate} {what}: give a number from 0 to below 1 (the paper: 0.2)")
    return drop_rate == 0


@Declares(granularity="element", changes_nothing=changes_nothing)
def dare(delta: Tensor, key: int, start: int, *, drop_rate: float) -> tuple[Tensor, int]:
    """Return the masked, rescaled delta (float32) of a block, and how many of its elements were dropped.

    32 bits, which follow from the key and the element's index, decide about an element.
    """
    import torch

    from m3_exp.merging import kernels

    out = torch.empty_like(delta)
    threshold = np.uint64(round(drop_rate * 2**32))
    dropped = kernels.drop(delta.numpy(), np.uint64(key), start, threshold, np.float32(1 - drop_rate), out.numpy())
    return out, int(dropped)
