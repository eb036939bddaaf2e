"""The loops that torch has no fast word for, compiled by numba, run without the GIL. Import this lazily: 1 s."""

from typing import Any

import numpy as np
from numba import njit

Floats = np.ndarray[Any, np.dtype[np.float32]]
Words = np.ndarray[Any, np.dtype[np.uint32]]
Counts = np.ndarray[Any, np.dtype[np.int64]]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def drop(
    model: Floats, base: Floats, key: np.uint64, start: int, threshold: np.uint64, kept: np.float32, out: Floats
) -> int:
    """Write base + masked delta / kept to `out`; return how many were dropped.

    An element is dropped where the upper 32 bits of splitmix64(key, its index in the tensor) are below the threshold.
    """
    dropped = 0
    for i in range(model.size):
        z = key + np.uint64(start + i + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
        gone = z < threshold
        dropped += 1 if gone else 0
        moved = base[i] + (model[i] - base[i]) / kept
        out[i] = base[i] if gone else moved
    return dropped


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def count_high(deltas: Words, counts: Counts) -> None:
    """Count the upper 15 bits of |delta|, deltas given as float32 bit patterns."""
    for i in range(deltas.size):
        counts[(deltas[i] >> np.uint32(16)) & np.uint32(0x7FFF)] += 1


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def count_low(deltas: Words, high: int, counts: Counts) -> None:
    """Count the lower 16 bits of |delta| where the upper 15 are `high`."""
    wanted = np.uint32(high)
    for i in range(deltas.size):
        if (deltas[i] >> np.uint32(16)) & np.uint32(0x7FFF) == wanted:
            counts[deltas[i] & np.uint32(0xFFFF)] += 1


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def count_signs(deltas: tuple[Floats, ...], cutoffs: Floats) -> int:
    """Return the sum of the signs of the summed trimmed deltas."""
    signs = 0
    for i in range(deltas[0].size):
        total = np.float32(0)
        for j in range(len(deltas)):
            delta = deltas[j][i]
            total += delta if abs(delta) >= cutoffs[j] else np.float32(0)
        signs += (1 if total > 0 else 0) - (1 if total < 0 else 0)
    return signs


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def ties(
    models: tuple[Floats, ...],
    base: Floats,
    cutoffs: Floats,
    shares: Floats,
    majority: np.float32,
    scaling: np.float32,
    out: Floats,
) -> None:
    """Write one TIES block to `out` (see methods/ties.py for what it computes)."""
    zero, n = np.float32(0), len(models)
    for i in range(base.size):
        total = zero
        for j in range(n):
            delta = models[j][i] - base[i]
            total += delta if abs(delta) >= cutoffs[j] else zero
        elected = np.float32(1) if total > zero else (np.float32(-1) if total < zero else majority)
        plain, mixed, share, count = zero, zero, zero, zero
        for j in range(n):
            delta = models[j][i] - base[i]
            kept = abs(delta) >= cutoffs[j] and delta * elected > zero
            plain += delta if kept else zero
            mixed += delta * shares[j] if kept else zero
            share += shares[j] if kept else zero
            count += np.float32(1) if kept else zero
        if count > 1:
            if share == zero:
                plain /= count
            elif count == n:  # the shares sum to 1
                plain = mixed
            else:
                plain = mixed / share
        out[i] = base[i] + scaling * plain
