"""Where the shares of any number of experts come from. They are a point on a simplex; of two, lambda says it.

`mixup` draws from Dirichlet(alpha, ..., alpha) by stick-breaking: share j is Beta(alpha, (N - j) alpha) of the rest.
Its quantile belongs to the radical inverse in the j-th prime (the Halton sequence), shifted by a number of its own; so
two experts get the lambdas of `merging.ratio`, bit by bit. `grid` nodes are nested: a larger set contains the smaller.
`sampled` points come from the equal mixture of Dirichlet(alpha, ..., alpha) over the paper's seven alphas, stratified
by a scrambled Halton sequence (Owen, "A randomized Halton algorithm", arXiv 1706.02808).
"""

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache

from m3_exp.merging import ratio
from m3_exp.types import M3Error

MOST = 8  # experts of a mixture: so many are tested
SAMPLED = (*ratio.SAMPLED, 32)  # of three experts and more
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)
_DIGITS = 53  # binary digits of a number in (0, 1)
_ORDERS = (1, 2, 4, 8, 16)  # of the triangular lattices: so many steps from corner to corner
_DEFAULT_NODES = {2: 9, 3: 15}

Shares = tuple[float, ...]


@lru_cache(maxsize=4096)  # the same in every method, pair and sparsifier of a sweep
def mixup(n_experts: int, alpha: float, seed: int, draw: int, *place: object) -> Shares:
    """Draw the shares of some experts from Dirichlet(alpha, ..., alpha); a longer list begins with the shorter one.

    `place` is empty for the whole model; a decoder layer or a tensor has shifts of its own.
    """
    if n_experts == 2:
        lam = ratio.mixup(alpha, seed, draw, *place)
        return (lam, 1.0 - lam)
    ratio.check_alpha(alpha)
    _check(n_experts)
    shifts = [ratio.uniform(seed, "mixup", float(alpha), *([j] if j else []), *place) for j in range(n_experts - 1)]
    return broken(alpha, [_shifted(shift, draw, _PRIMES[j]) for j, shift in enumerate(shifts)])


def broken(alpha: float, uniforms: list[float]) -> Shares:
    """Break a stick by quantiles: N - 1 uniform numbers give N shares ~ Dirichlet(alpha, ..., alpha)."""
    left, shares = 1.0, []
    for done, u in enumerate(uniforms):
        part = ratio.quantile(alpha, u, (len(uniforms) - done) * alpha)
        shares.append(left * part)
        left *= 1.0 - part
    return (*shares, left)


def grid(n_experts: int, nodes: int | None, seed: int) -> list[Shares]:
    """Return the nodes of a curve or surface.

    Two experts: `ratio.grid`. Three: a triangular lattice of 1, 2, 4, 8 or 16 steps a side. More: the corners, the
    middles of all edges and the centre, and 4, 8, 16, ... points of a scrambled Sobol sequence beside them.
    """
    wanted = nodes or _DEFAULT_NODES.get(n_experts) or 1 + n_experts * (n_experts + 1) // 2
    if n_experts == 2:
        return [(lam, 1.0 - lam) for lam in ratio.grid(wanted)]
    _check(n_experts)
    return _lattice(wanted) if n_experts == 3 else [*_designed(n_experts, wanted, seed)]


def sampled(n_experts: int, seed: int, count: int) -> list[Shares]:
    """Return random points that correct a surface between its nodes; a longer list begins with the shorter one."""
    if n_experts == 2:
        return [(lam, 1.0 - lam) for lam in ratio.sampled(seed, count)]
    from m3_exp.stats.expectation import ALPHAS

    _check(n_experts)
    ratio.check_sampled(count, SAMPLED)
    found = []
    for k in range(count):
        which, *uniforms = (_scrambled(seed, k, prime) for prime in _PRIMES[:n_experts])
        found.append(broken(ALPHAS[int(which * len(ALPHAS))], uniforms))
    return found


def _check(n_experts: int) -> None:
    if not 2 <= n_experts <= MOST:
        raise M3Error(f"a mixture of {n_experts} experts: from 2 to {MOST} can share a merge by mixup or grid")


def _shifted(shift: float, draw: int, base: int) -> float:
    """Return frac(shift + radical inverse of the draw in a base), strictly inside (0, 1)."""
    if base == 2:
        return ratio.shifted(shift, draw)
    inverse, place = 0.0, 1.0 / base
    while draw:
        draw, digit = divmod(draw, base)
        inverse, place = inverse + digit * place, place / base
    return min(max((shift + inverse) % 1.0, 2**-54), 1 - 2**-53)


def _lattice(nodes: int) -> list[Shares]:
    """Return the points of a triangular lattice, the first expert's corner first."""
    sizes = {(order + 1) * (order + 2) // 2: order for order in _ORDERS}
    if (order := sizes.get(nodes)) is None:
        *most, last = map(str, sizes)
        raise M3Error(
            f"ratio.nodes={nodes} is not a size of the nested lattices of three experts: give {', '.join(most)}"
            f" or {last}"
        )
    first = ((i, j) for i in range(order, -1, -1) for j in range(order - i, -1, -1))
    return [(i / order, j / order, (order - i - j) / order) for i, j in first]


def _designed(n_experts: int, nodes: int, seed: int) -> Iterator[Shares]:
    """Give the points of a design for four experts and more, nested by their order."""
    least = 1 + n_experts * (n_experts + 1) // 2
    beside = nodes - least
    if beside < 0 or beside > 1024 or (beside and (beside < 4 or beside & (beside - 1))):
        raise M3Error(
            f"ratio.nodes={nodes} is not a size of the nested sets of {n_experts} experts: give {least} (corners,"
            f" middles of the edges, centre), {least + 4}, {least + 8}, {least + 16}, ..."
        )
    for corner in range(n_experts):
        yield tuple(float(expert == corner) for expert in range(n_experts))
    for edge in itertools.combinations(range(n_experts), 2):
        yield tuple(0.5 * (expert in edge) for expert in range(n_experts))
    yield (1 / n_experts,) * n_experts
    yield from _sobol(n_experts, beside, seed) if beside else ()


def _sobol(n_experts: int, count: int, seed: int) -> Iterator[Shares]:
    """Give points that are uniform on the simplex: a Sobol sequence whose digits are scrambled by `ratio.uniform`."""
    from scipy.stats import qmc

    for row in qmc.Sobol(n_experts - 1, scramble=False).random_base2(count.bit_length() - 1):
        plain = (int(math.ldexp(float(u), _DIGITS)) for u in row)
        yield broken(1.0, [_flipped(bits, seed, axis) for axis, bits in enumerate(plain)])


def _flipped(bits: int, seed: int, axis: int) -> float:
    """Scramble a binary fraction of `_DIGITS` digits by nested uniforms (Owen, 1995)."""
    made = 0
    for place in range(_DIGITS):
        rest = bits >> (_DIGITS - place)  # the digits before this one
        flip = ratio.uniform(seed, "sobol", axis, place, rest) >= 0.5
        made = made << 1 | ((bits >> (_DIGITS - 1 - place) & 1) ^ flip)
    return math.ldexp(made + 0.5, -_DIGITS)


def _scrambled(seed: int, k: int, base: int) -> float:
    """Return the k-th number of the scrambled Halton sequence in a prime base: each is uniform in (0, 1).

    A digit is permuted by a hash of the seed, its place and the digits before it, so that the first base^m numbers have
    one in each interval of length base^-m.
    """
    places = math.ceil(_DIGITS / math.log2(base))
    value, before = 0, 0
    for place in range(places):
        k, digit = divmod(k, base)
        order = sorted(range(base), key=lambda one: ratio.uniform(seed, "halton", base, place, before, one))
        value = value * base + order[digit]
        before += digit * base**place
    return min(float((value + 0.5) / base**places), 1 - 2**-53)
