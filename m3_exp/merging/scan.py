"""Whole-model statistics by streaming: the exact k-th smallest |delta| of each expert, and the majority sign.

The threshold is found without sorting. One pass counts the upper bits of the float32 patterns, a second the lower ones
within the bin that holds rank k. All experts share both passes, and results are stored by content.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor as Pool
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3_exp.merging.bits import Floats
from m3_exp.store import Cutoff, Majority, Store
from m3_exp.types import Parameters, identity

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Halves:
    """A block of experts and of their base as the bits of float16 or bfloat16: the deltas are their differences."""

    experts: tuple[NDArray[np.uint16], ...]
    base: NDArray[np.uint16]
    is_half: bool


# (tensor name, start, stop) -> the float32 delta of each asked-for expert in that block, in the order asked
Deltas = Callable[[str, int, int, Sequence[str]], Sequence[Floats] | Halves]


@dataclass(frozen=True)
class Cutoffs:
    """What TIES needs of the whole model: each expert's cut-off (a |delta|) and the share of elements that it keeps.

    Also the majority sign: that of the sum of all elected signs.
    """

    magnitudes: tuple[float, ...]
    kept: tuple[float, ...]
    majority: float


@dataclass(frozen=True)
class Scan:
    """What to scan: which elements of each tensor count, and whose deltas (digests; all deltas over one base)."""

    base: str
    experts: tuple[str, ...]
    sizes: Mapping[str, int]
    retain: float
    sparsify: Parameters | None
    deltas: Deltas
    block: int

    @property
    def rank(self) -> int:
        """k: the k-th smallest |delta| is the cut-off; 0 keeps everything."""
        return int(sum(self.sizes.values()) * (1 - self.retain))

    def key(self, what: str, experts: Sequence[str]) -> str:
        return identity([what, 2, self.base, experts, self.retain, self.sparsify])


def cutoffs(scan: Scan, store: Store, pool: Pool) -> Cutoffs:
    """Return the cut-offs of the experts in their order, from the store where they are known.

    Workers that need the same scan wait for the first of them: a whole model is read once.
    """
    with store.scan_lock(scan.key("lock", [])):
        known = {expert: store.cutoffs.get(scan.key("cutoff", [expert])) for expert in scan.experts}
        missing = sorted({expert for expert, value in known.items() if value is None})
        for expert, value in zip(missing, _magnitudes(scan, missing, pool), strict=True):
            known[expert] = value
            store.cutoffs.put(scan.key("cutoff", [expert]), value)
        cutoffs = [cutoff for expert in scan.experts if (cutoff := known[expert])]
        magnitudes = tuple(cutoff.magnitude for cutoff in cutoffs)
        signs_key = scan.key("majority", sorted(scan.experts))
        majority = store.majorities.get(signs_key)
        if majority is None:
            majority = Majority(_majority(scan, magnitudes, pool))
            store.majorities.put(signs_key, majority)
    return Cutoffs(magnitudes, tuple(cutoff.kept for cutoff in cutoffs), majority.sign)


def _magnitudes(scan: Scan, experts: list[str], pool: Pool) -> list[Cutoff]:
    total, rank = sum(scan.sizes.values()), scan.rank
    if not experts or rank == 0:
        return [Cutoff(0.0, 1.0) for _ in experts]
    from m3_exp.merging import kernels

    def high(block: Sequence[Floats] | Halves, counts: Counts) -> None:
        if isinstance(block, Halves):
            return kernels.count_high_of(block.experts, block.base, block.is_half, kernels.rows(len(experts)), counts)
        for delta, row in zip(block, counts, strict=True):
            kernels.count_high(delta.view(np.uint32), row)

    def low(block: Sequence[Floats] | Halves, counts: Counts) -> None:
        if isinstance(block, Halves):
            return kernels.count_low_of(
                block.experts, block.base, block.is_half, kernels.rows(len(experts)), bins, counts
            )
        for delta, wanted, row in zip(block, bins, counts, strict=True):
            kernels.count_low(delta.view(np.uint32), wanted, row)

    below, bins = _rank_in(_counts(scan, experts, 1 << 15, high, pool), np.full(len(experts), rank))
    within, ends = _rank_in(_counts(scan, experts, 1 << 16, low, pool), rank - below)
    magnitudes = ((bins << 16) | ends).astype(np.uint32).view(np.float32)
    kept = 1 - (below + within) / total
    return [Cutoff(float(magnitude), float(share)) for magnitude, share in zip(magnitudes, kept, strict=True)]


def _counts(
    scan: Scan,
    experts: list[str],
    width: int,
    count: Callable[[Sequence[Floats] | Halves, Counts], None],
    pool: Pool,
) -> Counts:
    """Run one counting pass over the model: a row of `width` counts an expert."""
    total, lock = np.zeros((len(experts), width), np.int64), threading.Lock()

    def one(name: str) -> None:
        counts = np.zeros_like(total)
        for start, stop in blocks(scan.sizes[name], scan.block):
            count(scan.deltas(name, start, stop, experts), counts)
        with lock:
            np.add(total, counts, out=total)

    for _ in pool.map(one, by_size(scan.sizes)):
        pass
    return total


def _rank_in(counts: Counts, ranks: Counts) -> tuple[Counts, Counts]:
    """Return, for each row of counts, how many lie below the bin that holds its rank (1 = smallest), and that bin."""
    is_below = counts.cumsum(axis=1) < ranks[:, None]
    return np.where(is_below, counts, 0).sum(axis=1), is_below.sum(axis=1)


def _majority(scan: Scan, magnitudes: Sequence[float], pool: Pool) -> float:
    """Return the sign of the sum, over the whole model, of the signs of the summed trimmed deltas."""

    from m3_exp.merging import kernels

    lows = np.array(magnitudes, np.float32)

    def signs(block: Sequence[Floats] | Halves) -> int:
        if isinstance(block, Halves):
            rows = kernels.rows(len(lows))
            return int(kernels.count_signs_of(block.experts, block.base, block.is_half, rows, lows))
        return int(kernels.count_signs(tuple(block), lows, block[0].size))

    def one(name: str) -> int:
        cuts = blocks(scan.sizes[name], scan.block)
        return sum(signs(scan.deltas(name, *cut, scan.experts)) for cut in cuts)

    return float(np.sign(sum(pool.map(one, by_size(scan.sizes)))))


def blocks(numel: int, block: int) -> Iterable[tuple[int, int]]:
    """Cut a tensor's flat elements into ranges."""
    return ((start, min(start + block, numel)) for start in range(0, numel, block))


def by_size(sizes: Mapping[str, int]) -> list[str]:
    """Return the names, the largest tensor first, so that threads end together."""
    return sorted(sizes, key=lambda name: (-sizes[name], name))
