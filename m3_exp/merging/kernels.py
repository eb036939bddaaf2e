"""The loops that torch has no fast operation for, compiled by numba, run without the GIL. The import takes 1 s."""

import numpy as np
from numpy.typing import NDArray

from m3_exp.merging.compiled import compiled

Floats = NDArray[np.float32]
Stack = np.ndarray[tuple[int, int, int], np.dtype[np.float32]]
Words = NDArray[np.uint32]
Halves = NDArray[np.uint16]
Counts = NDArray[np.int64]
Doubles = NDArray[np.float64]
_PIECE = 2048  # elements: a few float32 arrays stay in a core's first cache


def rows(count: int) -> tuple[Floats, ...]:
    """Return room for a piece of the differences of so many models."""
    return tuple(np.empty(_PIECE, np.float32) for _ in range(count))


@compiled
def widen_brain(words: Halves, out: Floats) -> None:
    """Write bfloat16 numbers, given as their bits, to `out`."""
    for i in range(words.size):
        out[i] = np.uint32(np.uint32(words[i]) << np.uint32(16)).view(np.float32)


@compiled
def widen_half(words: Halves, out: Floats) -> None:
    """Write float16 numbers, given as their bits, to `out`; NaN and Inf become others.

    The product moves the exponent, and makes normal numbers of those that are denormal in float16.
    """
    for i in range(words.size):
        sign = np.uint32(np.uint32(words[i] & np.uint16(0x8000)) << np.uint32(16))
        size = np.uint32(np.uint32(words[i] & np.uint16(0x7FFF)) << np.uint32(13)).view(np.float32)
        out[i] = np.uint32(np.float32(size * np.float32(2.0**112)).view(np.uint32) | sign).view(np.float32)


@compiled
def round_brain(words: Words, out: Halves) -> None:
    """Round float32 numbers, given as their bits, to the bits of bfloat16 (to nearest even; NaN stays one)."""
    for i in range(words.size):
        odd = np.uint32(np.uint32(words[i] >> np.uint32(16)) & np.uint32(1))
        rounded = np.uint16(np.uint32(np.uint32(words[i] + np.uint32(0x7FFF)) + odd) >> np.uint32(16))
        is_number = np.uint32(words[i] & np.uint32(0x7FFFFFFF)) <= np.uint32(0x7F800000)
        out[i] = rounded if is_number else np.uint16(0x7FC0)


@compiled
def round_half(words: Words, out: Halves) -> None:
    """Round float32 numbers, given as their bits, to the bits of float16 (to nearest even; NaN becomes Inf).

    Below 2^-14, where float16 is denormal, the sum with 1/2 rounds at the place of its last bit.
    """
    for i in range(words.size):
        size = np.uint32(words[i] & np.uint32(0x7FFFFFFF))
        odd = np.uint32(np.uint32(size >> np.uint32(13)) & np.uint32(1))
        normal = np.uint32(np.uint32(np.uint32(size + np.uint32(0xC8000FFF)) + odd) >> np.uint32(13))
        sum_ = np.float32(size.view(np.float32) + np.float32(0.5))
        denormal = np.uint32(sum_.view(np.uint32) - np.uint32(0x3F000000))
        small = denormal if size < np.uint32(0x38800000) else normal
        bits = small if size < np.uint32(0x47800000) else np.uint32(0x7C00)
        out[i] = np.uint16(bits | np.uint32(np.uint32(words[i] >> np.uint32(16)) & np.uint32(0x8000)))


@compiled
def has_none(words: Halves | Words | NDArray[np.uint64], mask: np.uint16 | np.uint32 | np.uint64) -> bool:
    """Tell whether no word has all the bits of a mask; both of one type."""
    found = False
    for i in range(words.size):
        found |= (words[i] & mask) == mask
    return not found


@compiled
def linear(models: tuple[Halves, ...], base: Halves, shares: Floats, is_half: bool, out: Halves) -> None:
    """Write the weighted sum of some models to `out`, or, where a base is not empty, of their differences from it.

    All are bits of float16 or of bfloat16. The sums are float32, each model after the other, as methods/ makes them.
    """
    under, values, sums = np.empty(_PIECE, np.float32), np.empty(_PIECE, np.float32), np.empty(_PIECE, np.float32)
    for start in range(0, out.size, _PIECE):
        stop = min(start + _PIECE, out.size)
        count = stop - start
        if base.size:
            _widen(base[start:stop], is_half, under)
        for j in range(len(models)):
            _widen(models[j][start:stop], is_half, values)
            for i in range(count):
                part = (values[i] - under[i] if base.size else values[i]) * shares[j]
                sums[i] = part if j == 0 else sums[i] + part
        if base.size:
            for i in range(count):
                sums[i] += under[i]
        if is_half:
            round_half(sums[:count].view(np.uint32), out[start:stop])
        else:
            round_brain(sums[:count].view(np.uint32), out[start:stop])


@compiled
def _widen(words: Halves, is_half: bool, out: Floats) -> None:
    if is_half:
        widen_half(words, out)
    else:
        widen_brain(words, out)


@compiled
def difference(words: Halves, base: Halves, is_half: bool, out: Floats) -> None:
    """Write the float32 differences of numbers that are given as bits, of float16 or of bfloat16."""
    values, under = np.empty(_PIECE, np.float32), np.empty(_PIECE, np.float32)
    for start in range(0, out.size, _PIECE):
        stop = min(start + _PIECE, out.size)
        _widen(words[start:stop], is_half, values)
        _widen(base[start:stop], is_half, under)
        part = out[start:stop]
        for i in range(part.size):
            part[i] = values[i] - under[i]


@compiled
def _differences(
    models: tuple[Halves, ...], base: Halves, start: int, is_half: bool, under: Floats, deltas: tuple[Floats, ...]
) -> None:
    """Write a piece of the base to `under`, and what each model differs by from it there to `deltas`."""
    stop = start + under.size
    _widen(base[start:stop], is_half, under)
    for j in range(len(models)):
        delta = deltas[j]
        _widen(models[j][start:stop], is_half, delta)
        for i in range(under.size):
            delta[i] -= under[i]


@compiled
def _dot(one: Floats, other: Floats) -> np.float64:
    """Return the sum of the float32 products, in float64: eight sums side by side, which a compiler runs as one."""
    a, b, c, d = np.float64(0), np.float64(0), np.float64(0), np.float64(0)
    e, f, g, h = np.float64(0), np.float64(0), np.float64(0), np.float64(0)
    whole = one.size - one.size % 8
    for i in range(0, whole, 8):
        a += np.float64(one[i] * other[i])
        b += np.float64(one[i + 1] * other[i + 1])
        c += np.float64(one[i + 2] * other[i + 2])
        d += np.float64(one[i + 3] * other[i + 3])
        e += np.float64(one[i + 4] * other[i + 4])
        f += np.float64(one[i + 5] * other[i + 5])
        g += np.float64(one[i + 6] * other[i + 6])
        h += np.float64(one[i + 7] * other[i + 7])
    for i in range(whole, one.size):
        a += np.float64(one[i] * other[i])
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@compiled
def dots(one: Floats, other: Floats, sums: Doubles) -> None:
    """Write the inner product of each piece of 2,048 elements."""
    for k in range(sums.size):
        start, stop = k * _PIECE, (k + 1) * _PIECE
        sums[k] = _dot(one[start:stop], other[start:stop])


@compiled
def dots_of(models: tuple[Halves, ...], base: Halves, is_half: bool, values: tuple[Floats, ...], sums: Doubles) -> None:
    """Write `dots` of every two models that are given as bits, or of what they differ by from a base that is not empty.

    `sums` (pairs, pieces): of the models 0 and 0, 1 and 0, 1 and 1, 2 and 0, and so on.
    """
    size = models[0].size
    for k in range(sums.shape[1]):
        start, count = k * _PIECE, min(_PIECE, size - k * _PIECE)
        if base.size:
            _differences(models, base, start, is_half, np.empty(count, np.float32), values)
        else:
            for j in range(len(models)):
                _widen(models[j][start : start + count], is_half, values[j])
        pair = 0
        for i in range(len(models)):
            for j in range(i + 1):
                sums[pair, k] = _dot(values[i][:count], values[j][:count])
                pair += 1


@compiled
def drop(delta: Floats, key: np.uint64, start: int, threshold: np.uint64, kept: np.float32, out: Floats) -> np.int64:
    """Write masked delta / kept to `out`; return how many were dropped.

    An element is dropped where the upper 32 bits of splitmix64(key, its index in the tensor) are below the threshold.
    """
    dropped = np.int64(0)
    state = key + np.uint64(start) * np.uint64(0x9E3779B97F4A7C15)
    for i in range(delta.size):
        state += np.uint64(0x9E3779B97F4A7C15)
        z = state
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
        gone = z < threshold
        dropped += np.int64(gone)
        scaled = delta[i] / kept
        out[i] = np.float32(0) if gone else scaled
    return dropped


@compiled
def linear_dropped(
    models: tuple[Halves, ...],
    base: Halves,
    shares: Floats,
    is_half: bool,
    keys: NDArray[np.uint64],
    start: int,
    threshold: np.uint64,
    kept: np.float32,
    out: Halves,
    dropped: Counts,
) -> None:
    """Write `linear` of differences that `drop` thins, each model's by its key; add to `dropped` how many each lost."""
    under, values, sums = np.empty(_PIECE, np.float32), np.empty(_PIECE, np.float32), np.empty(_PIECE, np.float32)
    thinned = np.empty(_PIECE, np.float32)
    for first in range(0, out.size, _PIECE):
        stop = min(first + _PIECE, out.size)
        count = stop - first
        _widen(base[first:stop], is_half, under)
        for j in range(len(models)):
            _widen(models[j][first:stop], is_half, values)
            for i in range(count):
                values[i] -= under[i]
            dropped[j] += drop(values[:count], keys[j], start + first, threshold, kept, thinned)
            for i in range(count):
                part = thinned[i] * shares[j]
                sums[i] = part if j == 0 else sums[i] + part
        for i in range(count):
            sums[i] += under[i]
        if is_half:
            round_half(sums[:count].view(np.uint32), out[first:stop])
        else:
            round_brain(sums[:count].view(np.uint32), out[first:stop])


@compiled
def draw(key: np.uint64, start: int, out: Words) -> None:
    """Write the upper 32 bits of splitmix64(key, index) for the elements from `start` on: the numbers of `drop`."""
    for i in range(out.size):
        z = key + np.uint64(start + i + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
        out[i] = np.uint32(z)


@compiled
def count_high(deltas: Words, counts: Counts) -> None:
    """Count the upper 15 bits of |delta|, deltas given as float32 bit patterns."""
    for i in range(deltas.size):
        counts[(deltas[i] >> np.uint32(16)) & np.uint32(0x7FFF)] += 1


@compiled
def count_low(deltas: Words, high: int, counts: Counts) -> None:
    """Count the lower 16 bits of |delta| where the upper 15 are `high`."""
    wanted = np.uint32(high)
    for i in range(deltas.size):
        if (deltas[i] >> np.uint32(16)) & np.uint32(0x7FFF) == wanted:
            counts[deltas[i] & np.uint32(0xFFFF)] += 1


@compiled
def count_high_of(
    models: tuple[Halves, ...], base: Halves, is_half: bool, deltas: tuple[Floats, ...], counts: NDArray[np.int64]
) -> None:
    """Run `count_high` over what models that are given as bits differ by from a base; a row of `counts` each."""
    for start in range(0, base.size, _PIECE):
        under = np.empty(min(_PIECE, base.size - start), np.float32)
        _differences(models, base, start, is_half, under, deltas)
        for j in range(len(models)):
            count_high(deltas[j][: under.size].view(np.uint32), counts[j])


@compiled
def count_low_of(
    models: tuple[Halves, ...],
    base: Halves,
    is_half: bool,
    deltas: tuple[Floats, ...],
    highs: Counts,
    counts: NDArray[np.int64],
) -> None:
    """Run `count_low` over what models that are given as bits differ by from a base; a row of `counts` each."""
    for start in range(0, base.size, _PIECE):
        under = np.empty(min(_PIECE, base.size - start), np.float32)
        _differences(models, base, start, is_half, under, deltas)
        for j in range(len(models)):
            count_low(deltas[j][: under.size].view(np.uint32), highs[j], counts[j])


@compiled
def count_signs_of(
    models: tuple[Halves, ...], base: Halves, is_half: bool, deltas: tuple[Floats, ...], cutoffs: Floats
) -> int:
    """Run `count_signs` over what models that are given as bits differ by from a base."""
    signs = 0
    for start in range(0, base.size, _PIECE):
        under = np.empty(min(_PIECE, base.size - start), np.float32)
        _differences(models, base, start, is_half, under, deltas)
        signs += count_signs(deltas, cutoffs, under.size)
    return signs


@compiled
def count_signs(deltas: tuple[Floats, ...], cutoffs: Floats, count: int) -> int:
    """Return the sum of the signs of the first `count` summed trimmed deltas."""
    signs = 0
    for i in range(count):
        total = np.float32(0)
        for j in range(len(deltas)):
            delta = deltas[j][i]
            total += delta if abs(delta) >= cutoffs[j] else np.float32(0)
        signs += (1 if total > 0 else 0) - (1 if total < 0 else 0)
    return signs


@compiled
def ties_two(
    first: Floats,
    second: Floats,
    base: Floats,
    cutoffs: Floats,
    shares: Floats,
    majority: np.float32,
    scaling: np.float32,
    out: Floats,
) -> None:
    """Write one TIES block of two experts to `out` (the formula: methods/ties.py); branchless, 0.3 ns an element."""
    zero = np.float32(0)
    low_1, low_2, share_1, share_2 = cutoffs[0], cutoffs[1], shares[0], shares[1]
    for i in range(base.size):
        one = first[i] if abs(first[i]) >= low_1 else zero
        two = second[i] if abs(second[i]) >= low_2 else zero
        total = one + two
        elected = np.float32(1) if total > zero else (np.float32(-1) if total < zero else majority)
        has_one = one * elected > zero
        has_two = two * elected > zero
        both = share_1 * one + share_2 * two
        alone = one if has_one else (two if has_two else zero)
        out[i] = base[i] + scaling * (both if (has_one and has_two) else alone)


@compiled
def ties(
    models: tuple[Halves, ...],
    base: Halves,
    is_half: bool,
    deltas: tuple[Floats, ...],
    cutoffs: Floats,
    shares: Floats,
    majority: np.float32,
    scaling: np.float32,
    out: Halves,
) -> None:
    """Write one TIES block to `out` as `ties_two` or `ties_many` does; models, base and `out` are bits."""
    whole = np.empty(_PIECE, np.float32)
    for start in range(0, base.size, _PIECE):
        under = np.empty(min(_PIECE, base.size - start), np.float32)
        merged = whole[: under.size]
        _differences(models, base, start, is_half, under, deltas)
        if len(models) == 2:
            ties_two(deltas[0], deltas[1], under, cutoffs, shares, majority, scaling, merged)
        else:
            ties_many(deltas, under, cutoffs, shares, majority, scaling, merged)
        if is_half:
            round_half(merged.view(np.uint32), out[start : start + under.size])
        else:
            round_brain(merged.view(np.uint32), out[start : start + under.size])


@compiled
def ties_many(
    deltas: tuple[Floats, ...],
    base: Floats,
    cutoffs: Floats,
    shares: Floats,
    majority: np.float32,
    scaling: np.float32,
    out: Floats,
) -> None:
    """Write one TIES block of any number of experts to `out`: 0.5 ns an element and expert.

    Expert by expert over pieces, without branches: a compiler makes vectors of such loops.
    """
    zero, unit, n = np.float32(0), np.float32(1), len(deltas)
    elected, plain, mixed = np.empty(_PIECE, np.float32), np.empty(_PIECE, np.float32), np.empty(_PIECE, np.float32)
    share, count = np.empty(_PIECE, np.float32), np.empty(_PIECE, np.float32)
    for start in range(0, base.size, _PIECE):
        size = min(_PIECE, base.size - start)
        elected[:] = zero
        for j in range(n):
            _add_trimmed(deltas[j][start : start + size], cutoffs[j], elected)
        for i in range(size):
            total = elected[i]
            elected[i] = unit if total > zero else (-unit if total < zero else majority)
        plain[:], mixed[:], share[:], count[:] = zero, zero, zero, zero
        for j in range(n):
            delta, low, part = deltas[j][start : start + size], cutoffs[j], shares[j]
            _add_agreeing(delta, low, part, elected, plain, mixed, share, count)
        under, merged = base[start : start + size], out[start : start + size]
        for i in range(size):
            mean = plain[i] / (count[i] if count[i] > unit else unit)
            whole = (count[i] == np.float32(n)) | (share[i] == zero)  # all shares together are 1
            weighted = mixed[i] / (unit if whole else share[i])
            merged[i] = under[i] + scaling * (mean if (count[i] <= unit) | (share[i] == zero) else weighted)


@compiled
def _add_trimmed(delta: Floats, low: np.float32, sums: Floats) -> None:
    for i in range(delta.size):
        sums[i] += delta[i] if abs(delta[i]) >= low else np.float32(0)


@compiled
def _add_agreeing(
    delta: Floats,
    low: np.float32,
    part: np.float32,
    elected: Floats,
    plain: Floats,
    mixed: Floats,
    share: Floats,
    count: Floats,
) -> None:
    """Add what is kept of a delta and has the elected sign: itself, itself times its share, its share, and 1."""
    zero = np.float32(0)
    for i in range(delta.size):
        kept = (abs(delta[i]) >= low) & (delta[i] * elected[i] > zero)
        value = delta[i] if kept else zero
        plain[i] += value
        mixed[i] += value * part
        share[i] += part if kept else zero
        count[i] += np.float32(1) if kept else zero


@compiled
def add_product(block: Floats, start: int, b: Stack, a: Stack, scale: np.float32) -> None:
    """Add scale * (b @ a) to the flat elements that `block` holds from `start` on, of a stack of matrices.

    Each element is summed over the rank in order, so that no bit depends on where a block begins or ends.
    """
    height, width = b.shape[1], a.shape[2]
    sums = np.empty(width, np.float32)
    at = 0
    while at < block.size:
        line, first = divmod(start + at, width)
        one, row = divmod(line, height)
        count = min(width - first, block.size - at)
        for j in range(count):
            sums[j] = np.float32(0)
        for k in range(a.shape[1]):
            factor, other = b[one, row, k], a[one, k, first : first + count]
            for j in range(count):
                sums[j] += factor * other[j]
        part = block[at : at + count]
        for j in range(count):
            part[j] += scale * sums[j]
        at += count
