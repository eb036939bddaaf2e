"""Where lambda, the first expert's share, comes from. M3 (arXiv 2502.15434) draws it from Beta(alpha, alpha).

`mixup` draws are the same in every method, pair and family, so that comparisons are paired. Each by itself is Beta;
together the draws of one alpha are stratified (a randomly shifted van der Corput sequence: Cranley and Patterson,
SIAM J. Numer. Anal. 1976), so that the mean of a few is nearer to the expectation than that of independent ones.
`grid` nodes crowd the ends, where small alphas put their mass. `sampled` lambdas, from the mixture of the paper's seven
Betas, correct the curve between the nodes (scrambled as in Owen, 1995, so that they are stratified as well).
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

from m3_exp.types import M3Error

SAMPLED = (0, 4, 8, 16)  # powers of two, so that every stratum has its lambda
_BITS = 52  # of a scrambled number: with the half below them it is exact in float64, and never 0 or 1
_MOST = 10_000  # nodes: more is a slip of the pen
_BOTH = 0.02  # the least share with which an expert counts as merged


def uniform(*parts: object) -> float:
    """Return the number in (0, 1) that belongs to these parts: the first 64 bits of their sha256, never 0 or 1."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return (int.from_bytes(digest[:8], "big") / 2**64) * (1 - 2**-52) + 2**-54


def mixup(alpha: float, seed: int, draw: int, *place: object) -> float:
    """Draw lambda ~ Beta(alpha, alpha): the quantile of the seed's and alpha's shift plus the draw's radical inverse.

    So the first 2^m draws of an alpha have one in each of 2^m equally likely strata (counted from the shift), and a
    longer list begins with the shorter one. `place` is empty for the whole model; a decoder layer or a tensor has a
    shift of its own.
    """
    check_alpha(alpha)
    return quantile(alpha, shifted(uniform(seed, "mixup", float(alpha), *place), draw))


def check_alpha(alpha: float) -> None:
    if not 1e-300 < alpha < float("inf"):  # below it floats have fewer digits, and quantiles are all 1/2
        raise M3Error(f"ratio.alpha={alpha} is not a Beta parameter: give a number above 0 (the paper: 0.2 to 5)")


def shifted(shift: float, draw: int) -> float:
    """Return frac(shift + radical inverse of the draw), strictly inside (0, 1)."""
    return min(max((shift + radical_inverse(draw)) % 1.0, 2**-54), 1 - 2**-53)


def radical_inverse(k: int) -> float:
    """Mirror k's binary digits at the point: 0, 1/2, 1/4, 3/4, 1/8, ... (van der Corput)."""
    return math.ldexp(int(f"{k:b}"[::-1], 2), -k.bit_length())


def quantile(alpha: float, u: float, beta: float | None = None) -> float:
    """Return the Beta(alpha, beta) quantile, to some 1e-14 of the distance to the nearer end; `beta` None: `alpha`."""
    from scipy import special

    other = alpha if beta is None else beta
    if u > 0.5:
        return 1.0 - float(special.betaincinv(other, alpha, 1.0 - u))
    return float(special.betaincinv(alpha, other, u))


def one_sided(shares: Sequence[float], names: Sequence[str]) -> str | None:
    """Name the expert that a merge almost is, as in `99.99 % math`; None where no share is above 0.98."""
    largest = max(range(len(shares)), key=lambda expert: shares[expert])
    others = math.fsum(share for expert, share in enumerate(shares) if expert != largest)
    if others >= _BOTH:
        return None
    name, rest = names[largest], 100 * others
    if rest == 0:
        return f"100 % {name}"
    if rest < 1e-6:
        return f"over 99.999999 % {name}"
    return f"{100 - rest:.{max(1, -math.floor(math.log10(rest)))}f} % {name}"


def grid(nodes: int) -> tuple[float, ...]:
    """Return `nodes` lambdas from 0 to 1, symmetric about 1/2; each larger set contains the smaller.

    3 is 0, 1/2, 1; 5 adds 1/4 and 3/4; 9 adds 1/32, 1/8, 7/8, 31/32; from 17 on every gap is halved.
    """
    if nodes == 3:
        return (0.0, 0.5, 1.0)
    if nodes == 5:
        return (0.0, 0.25, 0.5, 0.75, 1.0)
    points = [0.0, 1 / 32, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8, 31 / 32, 1.0]
    while len(points) < min(nodes, _MOST):
        halved = [(low + high) / 2 for low, high in itertools.pairwise(points)]
        points = sorted([*points, *halved])
    if len(points) != nodes:
        raise M3Error(f"ratio.nodes={nodes} is not a size of the nested grids: give 3, 5, 9, 17, 33 or 65")
    return tuple(points)


@lru_cache(maxsize=64)  # asked for by every method, pair and sparsifier of a sweep
def sampled(seed: int, count: int) -> tuple[float, ...]:
    """Draw lambdas from the equal mixture of Beta(alpha, alpha) over the paper's alphas: quantiles of `scrambled`.

    They are the same in every method, pair and family; a longer list begins with the shorter one.
    """
    check_sampled(count, SAMPLED)
    return tuple(mixture_quantile(scrambled(seed, k)) for k in range(count))


def check_sampled(count: int, sizes: Sequence[int]) -> None:
    if count not in sizes:
        allowed = ", ".join(str(size) for size in sizes[:-1])
        raise M3Error(f"ratio.sampled={count} does not fill its strata: give {allowed} or {sizes[-1]}")


def scrambled(seed: int, k: int) -> float:
    """Return the k-th number in (0, 1) of the van der Corput sequence, scrambled by nested uniforms (Owen, 1995).

    Each digit is flipped or not by a hash of the seed, its place and the original digits before it: every number is
    uniform, and the first 2^m have one in each interval [i / 2^m, (i + 1) / 2^m).
    """
    digits = 0
    for place in range(_BITS):
        flip = uniform(seed, "sampled", place, k & ((1 << place) - 1)) >= 0.5
        digits = digits << 1 | ((k >> place & 1) ^ flip)
    return math.ldexp(digits + 0.5, -_BITS)


def mixture_quantile(v: float) -> float:
    """Invert the distribution function of the paper's mixture, to some 1e-14 of the distance to the nearer end."""
    if v > 0.5:
        return min(1.0 - mixture_quantile(1.0 - v), 1 - 2**-53)
    import numpy as np
    from scipy import special

    from m3_exp.stats.expectation import ALPHAS

    mixed = np.array(ALPHAS)
    ends = special.betaincinv(mixed, mixed, v)
    low, high = float(ends.min()), float(ends.max())
    while low < (middle := math.sqrt(low) * math.sqrt(high)) < high:
        if special.betainc(mixed, mixed, middle).mean() < v:
            low = middle
        else:
            high = middle
    return high


def mask_seed(seed: int, draw: int) -> int:
    """Return the seed of the draw-th DARE mask: 63 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}/mask/{draw}".encode()).digest()[:8], "big") >> 1
