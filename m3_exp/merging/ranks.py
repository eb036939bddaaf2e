"""Magnitudes within a tensor: its largest elements, exactly so many (of equal ones the first), and their sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def smallest(values: Tensor, rank: int) -> float:
    """Return the magnitude of a given rank, 1 for the smallest, of a contiguous float32 tensor."""
    from m3_exp.merging import kernels

    words = values.reshape(-1).numpy().view(np.uint32)
    counts = np.zeros(1 << 15, np.int64)
    kernels.count_high(words, counts)
    high, below = _bin(counts, rank)
    ends = np.zeros(1 << 16, np.int64)
    kernels.count_low(words, high, ends)
    low, _ = _bin(ends, rank - below)
    return float(np.array([high << 16 | low], np.uint32).view(np.float32)[0])


def largest(values: Tensor, count: int, smallest: Callable[[Tensor, int], float] = smallest) -> Tensor:
    """Return which `count` elements of a float32 tensor are the largest by magnitude, as a mask of its shape.

    `smallest` finds a rank: `smallest_by_torch` does on every device.
    """
    import torch

    if count >= values.numel():
        return torch.ones_like(values, dtype=torch.bool)
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    sizes = values.reshape(-1).abs()
    cutoff = smallest(sizes, values.numel() - count + 1)
    mask = sizes > cutoff
    missing = count - int(mask.sum())
    mask[(sizes == cutoff).nonzero().flatten()[:missing]] = True
    return mask.view(values.shape)


def smallest_by_torch(values: Tensor, rank: int) -> float:
    """Return what `smallest` does, of a tensor on any torch device."""
    import torch

    words = values.reshape(-1).abs().view(torch.int32)
    high, below = _bin(_counted(words >> 16, 1 << 15), rank)
    low, _ = _bin(_counted(words[words >> 16 == high] & 0xFFFF, 1 << 16), rank - below)
    return float(np.array([high << 16 | low], np.uint32).view(np.float32)[0])


def _counted(words: Tensor, width: int) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = words.bincount(minlength=width).cpu().numpy()
    return counts


def l1_factor(delta: Tensor, kept: Tensor) -> float:
    """Return by how much the sum of magnitudes shrank; 1 where nothing is left."""
    import torch

    before, after = (float(tensor.abs().sum(dtype=torch.float64)) for tensor in (delta, kept))
    return before / after if after else 1.0


def _bin(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Return the bin that holds a rank, and how many lie below it."""
    sums = counts.cumsum()
    place = int(np.searchsorted(sums, rank))
    return place, int(sums[place] - counts[place])
