"""Item scores of merges of three experts at the nodes of a triangular lattice -> the expected score for every alpha.

M3 of three experts draws their shares from Dirichlet(alpha, alpha, alpha). A lattice of order m cuts the triangle of
all shares into m * m small ones; its nodes are the shares (i/m, j/m, 1 - (i + j)/m). Within a small triangle an item's
score is taken to be linear, so w_k(alpha) = E[hat_k], the hat function of a node being 1 there and 0 at all others.
Along an edge of the triangle this is the `Curve` of two experts.

All follows from the *masses* E[l_a l_b, in T] of each small triangle T, l its three hat functions there: their sums are
the weights, together they are the second moments, and 4 l_a l_b is the bend of height 1 over the edge from a to b. With
x ~ Beta(alpha, 2 alpha) the first share and (1 - x) u the second, u ~ Beta(alpha, alpha), the integral over u is in
closed form by incomplete beta functions, as on the segment; the one over x is by the tanh-sinh rule in each strip of
the lattice (Takahasi and Mori 1974), which the singular ends do not harm. The error of a weight is below 1e-9 for alpha
from 0.05 to 50 (`tests/test_simplex.py`).

A quadratic score differs from its interpolation by -4 sum h_ab l_a l_b, h_ab an eighth of the second difference along
the edge. So second differences of the nodes' scores along the three directions of the lattice say how high an unseen
bend may be, as on the segment.

Sampled points have no order in two dimensions. So the variance that comes from which were sampled is the sample
variance of rho r over them, the items' part deducted. They are stratified, and count as independent: an interval is
rather too wide. An unseen bend gives the floor of it, as on the segment.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from m3_exp.stats.estimate import Array, influences, weighted_mean
from m3_exp.stats.expectation import ALPHAS, BEND, Evaluated
from m3_exp.stats.lambdas import Curve

Numbers = NDArray[np.int64]

_QUANTILES = 1024  # points that stand for a Dirichlet distribution, where an expectation has no closed form
_MIXTURE = 2048  # of each of the seven, for the variance of an unseen bend
_STEP = 1 / 32  # of the tanh-sinh rule
_REACH = 6.05  # its last abscissa: a share of 1e-290
_PRIMES = (2, 3, 5, 7, 11, 13, 17)
_EDGES = ((0, 1), (0, 2), (1, 2))  # of a triangle, by its corners
_EDGE = 1e-300
_FLAT = 1e-12  # share of the whole area below which a triangle holds no point


# -------------------------------------------------------------------------------------------------------- Dirichlet


def log_density(points: Array, alpha: float) -> Array:
    """Return the logarithm of the density of Dirichlet(alpha, ..., alpha) at shares (C, N), shape (C,)."""
    n = points.shape[-1]
    constant = scipy.special.gammaln(n * alpha) - n * scipy.special.gammaln(alpha)
    return np.asarray((alpha - 1) * np.log(np.maximum(points, _EDGE)).sum(axis=-1) + constant)


def density_ratio(points: Array, alpha: float) -> Array:
    """Return the density of Dirichlet(alpha, ..., alpha) over that of the equal mixture of the seven: 7 at most."""
    every = np.array([log_density(points, one) for one in ALPHAS])
    mixture = scipy.special.logsumexp(every, axis=0) - math.log(len(ALPHAS))
    return np.asarray(np.exp(log_density(points, alpha) - mixture))


@lru_cache(maxsize=128)
def quantiles(n_experts: int, alpha: float, count: int = _QUANTILES) -> Array:
    """Return points of equal weight that stand for Dirichlet(alpha, ..., alpha), (count, N).

    They are the quantiles of Hammersley's points by stick-breaking: share j is Beta(alpha, (N - j) alpha) of what is
    left.
    """
    numbers = np.arange(count)
    left, shares = np.ones(count), []
    for j in range(n_experts - 1):
        at = (numbers + 0.5) / count if j == 0 else _radical_inverse(numbers, _PRIMES[j - 1])
        shares.append(left * scipy.special.betaincinv(alpha, (n_experts - 1 - j) * alpha, at))
        left = left - shares[-1]
    found = np.column_stack([*shares, np.maximum(left, 0.0)])
    found.flags.writeable = False
    return found


def _radical_inverse(numbers: Numbers, base: int) -> Array:
    """Return numbers with their digits mirrored at the point, moved off 0 by half of their spacing."""
    found, unit, left = np.zeros(len(numbers)), 1.0, numbers.copy()
    while left.any():
        unit /= base
        found += unit * (left % base)
        left //= base
    return found + 0.5 * unit


@lru_cache(maxsize=16)
def mixture_points(n_experts: int) -> Array:
    """Return points of equal weight that stand for the equal mixture of the seven distributions."""
    return np.concatenate([quantiles(n_experts, alpha, _MIXTURE) for alpha in ALPHAS])


def fixed_points(n_experts: int, count: int) -> Array:
    """Return the first of: all experts in equal parts, each alone, each two by halves; (at most `count`, N)."""
    one = np.eye(n_experts)
    pairs = [(one[a] + one[b]) / 2 for a in range(n_experts) for b in range(a + 1, n_experts)]
    return np.array([np.full(n_experts, 1 / n_experts), *one, *pairs])[:count]


def sampling_variance(curve: Evaluated, parts: Array) -> float:
    """Return the variance of a mean over independent sampled points, given items' parts (n, D), the items' deducted."""
    count = parts.shape[1]
    means = weighted_mean(parts, curve.shape)
    own = influences(parts - parts.mean(axis=1, keepdims=True), curve.shape)
    between = float(((means - means.mean()) ** 2).sum() - (own**2).sum())
    return float(max(0.0, between) / (count - 1) / count)


# ----------------------------------------------------------------------------------------------------------- lattice


@dataclass(frozen=True, eq=False)
class Lattice:
    """The nodes of a triangular lattice and its small triangles.

    `steps` (K, 2): i and j of the node (i/m, j/m, 1 - (i + j)/m), in ascending order. `corners` (T, 3): the numbers of
    the nodes at a triangle's corners; the triangles of a strip between two i are upright and hanging ones.
    """

    order: int
    steps: Numbers
    corners: Numbers

    @property
    def points(self) -> Array:
        """The shares of the three experts at the nodes, (K, 3)."""
        i, j = self.steps.T
        return np.column_stack([i, j, self.order - i - j]) / self.order

    def number(self, i: int | Numbers, j: Numbers) -> Numbers:
        """Return the number of a node."""
        return np.asarray(i * (self.order + 1) - i * (i - 1) // 2 + j, dtype=np.int64)

    @cached_property
    def edges(self) -> Numbers:
        """The nodes at both ends of each triangle's three edges, (3 T, 2)."""
        return np.concatenate([self.corners[:, edge] for edge in _EDGES], axis=1).reshape(-1, 2)

    @cached_property
    def lines(self) -> tuple["Lines", ...]:
        """What stands in each of the three directions of the lattice."""
        return tuple(Lines.of(self, step) for step in ((1, 0), (0, 1), (1, -1)))

    def located(self, at: Array) -> tuple[Numbers, Array]:
        """Return the corners (C, 3) of the triangle that holds each point (C, 3), and the hat functions there."""
        m = self.order
        x, y = m * at[:, 0], m * at[:, 1]
        i = np.clip(np.floor(x).astype(np.int64), 0, m - 1)
        j = np.clip(np.floor(y).astype(np.int64), 0, m - 1 - i)
        s, r = np.clip(x - i, 0.0, 1.0), np.clip(y - j, 0.0, 1.0)
        upright = (s + r <= 1) | (i + j == m - 1)
        last = np.where(upright, 0, 1)
        corners = np.column_stack([self.number(i + last, j + last), self.number(i + 1, j), self.number(i, j + 1)])
        hats = np.where(upright[:, None], _upright(s, r), _hanging(s, r))
        return corners, hats


def _upright(s: Array, r: Array) -> Array:
    return np.column_stack([np.maximum(1 - s - r, 0.0), s, r])


def _hanging(s: Array, r: Array) -> Array:
    return np.column_stack([s + r - 1, 1 - r, 1 - s])


@dataclass(frozen=True, eq=False)
class Lines:
    """Second differences in one direction of a lattice: `triples` (L, 3) of nodes in a row, and its edges.

    `edges`: the numbers of the edges in this direction. `at` (edges, 2): the triples whose middle is one end of the
    edge and the other; -1 where there is none.
    """

    triples: Numbers
    edges: Numbers
    at: Numbers

    @classmethod
    def of(cls, lattice: Lattice, step: tuple[int, int]) -> "Lines":
        m, steps = lattice.order, lattice.steps
        before, after = steps - step, steps + step
        inside = np.all([(s >= 0).all(axis=1) & (s.sum(axis=1) <= m) for s in (before, after)], axis=0)
        triples = np.column_stack([lattice.number(*s[inside].T) for s in (before, steps, after)])
        middle = np.full(len(steps), -1)
        middle[triples[:, 1]] = np.arange(len(triples))
        along = steps[lattice.edges[:, 1]] - steps[lattice.edges[:, 0]]
        edges = np.flatnonzero((np.abs(along) == np.abs(step)).all(axis=1))
        return cls(triples, edges, middle[lattice.edges[edges]])


@lru_cache(maxsize=16)
def lattice(order: int) -> Lattice:
    """Return the lattice of an order: (order + 1)(order + 2) / 2 nodes, order^2 triangles."""
    steps = np.array([(i, j) for i in range(order + 1) for j in range(order + 1 - i)], dtype=np.int64)
    bare = Lattice(order, steps, np.empty((0, 3), dtype=np.int64))
    corners = []
    for i in range(order):
        j = np.arange(order - i)
        corners.append(np.column_stack([bare.number(i, j), bare.number(i + 1, j), bare.number(i, j + 1)]))
        j = j[:-1]
        corners.append(np.column_stack([bare.number(i + 1, j + 1), bare.number(i + 1, j), bare.number(i, j + 1)]))
    return Lattice(order, steps, np.concatenate(corners))


@lru_cache(maxsize=512)
def masses(order: int, alpha: float) -> Array:
    """Return E[l_a l_b, in T] under Dirichlet(alpha, alpha, alpha), (T, 3, 3), in the order of `Lattice.corners`.

    Raises:
        ValueError: alpha is not above 0.
    """
    if not alpha > 0:
        raise ValueError(f"alpha={alpha} must be above 0")
    s, rest, logs = _tanh_sinh()
    found = []
    for i in range(order):
        length = (order - 1 - i) + rest  # of the strip at x, in steps of the lattice: x = (i + s) / order
        density = (alpha - 1) * np.log((i + s) / order) + (2 * alpha - 1) * np.log(length / order)
        mass = np.exp(logs - math.log(order) + density - scipy.special.betaln(alpha, 2 * alpha))
        feet = np.arange(order - i, dtype=np.float64)[:, None]
        one, zero = np.ones_like(s), np.zeros_like(s)
        upright = np.stack([[rest, s, zero], [-one, zero, one]])  # the hat functions: a constant, and a slope in r
        hanging = np.stack([[-rest, one, rest], [one, -one, zero]])
        found.append(_of_strip(mass, length, feet, (zero, rest), upright, alpha))
        found.append(_of_strip(mass, length, feet[:-1], (rest, one), hanging, alpha))
    every = np.concatenate(found)
    every.flags.writeable = False
    return every


def _of_strip(mass: Array, length: Array, feet: Array, ends: tuple[Array, Array], hats: Array, alpha: float) -> Array:
    """Return the masses of the triangles of one strip that stand on `feet` (T, 1), in steps of the lattice.

    At each x they reach from one to the other of the `ends` (Q,) above their foot.
    """
    low, high = (np.minimum((feet + end) / length, 1.0) for end in ends)
    zeroth, first, second = (
        scipy.special.betainc(alpha + power, alpha, high) - scipy.special.betainc(alpha + power, alpha, low)
        for power in range(3)
    )
    first = 0.5 * length * first
    second = (alpha + 1) / (2 * (2 * alpha + 1)) * length**2 * second
    moments = (zeroth, first - feet * zeroth, second - 2 * feet * first + feet**2 * zeroth)
    constant, slope = hats
    squares = (
        np.einsum("aq,bq->abq", constant, constant),
        np.einsum("aq,bq->abq", constant, slope) + np.einsum("aq,bq->abq", slope, constant),
        np.einsum("aq,bq->abq", slope, slope),
    )
    parts = (np.einsum("abq,tq,q->tab", square, m, mass) for square, m in zip(squares, moments, strict=True))
    return np.asarray(sum(parts, np.zeros((len(feet), 3, 3))))


@lru_cache(maxsize=1)
def _tanh_sinh() -> tuple[Array, Array, Array]:
    """Return the abscissas s of the tanh-sinh rule in (0, 1), 1 - s, and the logarithms of its weights."""
    t = np.arange(-round(_REACH / _STEP), round(_REACH / _STEP) + 1) * _STEP
    phi = math.pi * np.sinh(t)
    low, high = -np.logaddexp(0.0, -phi), -np.logaddexp(0.0, phi)  # log s, log(1 - s)
    return np.exp(low), np.exp(high), np.log(math.pi * np.cosh(t) * _STEP) + low + high


# ----------------------------------------------------------------------------------------------------------- surface


@dataclass(frozen=True)
class OnSimplex(Evaluated):
    """What all surfaces over the shares of N experts have in common. `points` are shares (K, N), each summing to 1."""

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or not np.allclose(self.points.sum(axis=1), 1.0, atol=1e-9):
            raise ValueError("each node must have one share an expert, and they must sum to 1")
        super().__post_init__()

    @property
    def n_experts(self) -> int:
        return int(self.points.shape[1])

    def density_ratio(self, at: Array, alpha: float) -> Array:
        return density_ratio(at, alpha)

    def quantiles(self, alpha: float) -> Array:
        return quantiles(self.n_experts, alpha)

    def drawn(self, alpha: float, count: int, generator: np.random.Generator) -> Array:
        return generator.dirichlet([alpha] * self.n_experts, count)

    def fixed(self, count: int) -> Array:
        return fixed_points(self.n_experts, count)

    def seen(self, parts: Array) -> float:
        return sampling_variance(self, parts)

    def edge(self, first: int, second: int) -> Curve:
        """Return the curve of two of the experts, by their numbers: lambda is the share of the first."""
        others = [k for k in range(self.n_experts) if k not in (first, second)]
        rows = np.flatnonzero((self.points[:, others] == 0).all(axis=1))
        rows = rows[np.argsort(self.points[rows, first])]
        return Curve(self.ids, self.points[rows, first], self.values[:, rows], shape=self.shape)


@dataclass(frozen=True)
class Surface(OnSimplex):
    """Item scores at the nodes of a triangular lattice of three experts; `points` (K, 3) as `Lattice.points` has them.

    Raises:
        ValueError: the nodes are no whole lattice in its order, or the shapes do not fit.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points.shape[1] != 3 or not np.allclose(self.points, self.lattice.points, atol=1e-12):
            raise ValueError("the nodes must be a whole triangular lattice, in ascending order")

    @property
    def lattice(self) -> Lattice:
        """The lattice that has as many nodes."""
        order = (math.isqrt(8 * len(self.points) + 1) - 3) // 2
        if order < 1 or (order + 1) * (order + 2) // 2 != len(self.points):
            raise ValueError(f"{len(self.points)} nodes are no whole lattice: 3, 6, 10, 15, 21 and so on are")
        return lattice(order)

    def hats(self, at: Array) -> Array:
        corners, hats = self.lattice.located(at)
        shares = np.zeros((len(at), len(self.points)))
        np.put_along_axis(shares, corners, hats, axis=1)
        return shares

    def weights(self, alpha: float) -> Array:
        shares = np.zeros(len(self.points))
        np.add.at(shares, self.lattice.corners, masses(self.lattice.order, alpha).sum(axis=2))
        return shares

    def second_moments(self, alpha: float) -> Array:
        corners = self.lattice.corners
        moments = np.zeros((len(self.points), len(self.points)))
        np.add.at(moments, (corners[:, :, None], corners[:, None, :]), masses(self.lattice.order, alpha))
        return moments

    def refined(self) -> Evaluated:
        return self if self.sampled is None else Scattered.through(self)

    @property
    def bends(self) -> Array:
        """The squared height that the score's bend may have over each edge of each small triangle, shape (3 T,).

        It is that of a parabola by the nodes' second differences in the edge's direction: the mean square of those at
        its two ends; where neither end has one, of all in that direction. A lattice of order 1 says nothing.
        """
        squares = np.ones(len(self.lattice.edges))
        if self.lattice.order == 1:
            return squares
        for line in self.lattice.lines:
            before, middle, after = self.means[line.triples].T
            second = np.append((before - 2 * middle + after) ** 2, np.nan)  # -1 finds the last: there is none
            at = second[line.at]
            known = ~np.isnan(at)
            own = np.where(known, at, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
            squares[line.edges] = np.where(known.any(axis=1), own, second[:-1].mean()) * (BEND / 8) ** 2
        return squares

    def bumps(self, alpha: float) -> Array:
        every = masses(self.lattice.order, alpha)
        return np.asarray(4 * np.stack([every[:, a, b] for a, b in _EDGES], axis=1).ravel())

    def unseen(self, alphas: Mapping[float, float]) -> Array:
        assert self.sampled is not None
        return np.array(_unseen(self.lattice.order, tuple(sorted(alphas.items())))) / len(self.sampled.points)

    def bend_at(self, at: Array) -> Array:
        """Return by how much the score may bend away from `refined` at some points.

        In the small triangle that holds a point the score's curvature is at most that of its highest bend. A sampled
        point in it cuts it into triangles of the same curvature.
        """
        corners, _ = self.lattice.located(at)
        highest = np.sqrt(self.bends.reshape(-1, 3).max(axis=1))
        number = {tuple(own): t for t, own in enumerate(np.sort(self.lattice.corners, axis=1).tolist())}
        curvature = highest[[number[tuple(own)] for own in np.sort(corners, axis=1).tolist()]]
        along = self.refined()
        hats = along.hats(at)
        found = np.zeros(len(at))
        at_corners = np.argsort(hats, axis=1)[:, -3:]  # all others are 0
        for a, b in _EDGES:
            first, second = at_corners[:, a], at_corners[:, b]
            rows = np.arange(len(at))
            length = _length(along.points[first] - along.points[second]) * self.lattice.order
            found += 4 * hats[rows, first] * hats[rows, second] * length**2
        return np.asarray(curvature * found)


def _length(step: Array) -> Array:
    """Return the lengths of steps between shares (C, 3) in a triangle with sides of 1."""
    return np.asarray(np.sqrt((step**2).sum(axis=-1) / 2))


@lru_cache(maxsize=256)
def _unseen(order: int, alphas: tuple[tuple[float, float], ...]) -> tuple[float, ...]:
    """Return the variance of rho times a bend of height 1 over each edge, at one point of the mixture."""
    at = mixture_points(3)
    rho = sum((factor * density_ratio(at, alpha) for alpha, factor in alphas), np.zeros(len(at)))
    corners, hats = lattice(order).located(at)
    size = (order + 1) * (order + 2) // 2
    names = corners @ np.array([size**2, size, 1])
    known = lattice(order).corners @ np.array([size**2, size, 1])
    row = np.argsort(known)
    triangle = row[np.searchsorted(known[row], names)]
    variances = np.empty((len(known), 3))
    for k, (a, b) in enumerate(_EDGES):
        bump = 4 * rho * hats[:, a] * hats[:, b]
        first, second = (np.bincount(triangle, bump**power, len(known)) / len(at) for power in (1, 2))
        variances[:, k] = second - first**2
    return tuple(map(float, variances.ravel()))


@dataclass(frozen=True)
class Scattered(OnSimplex):
    """Item scores at nodes anywhere in the triangle of three experts, interpolated in Delaunay's triangles.

    It is for the score at points. Expectations are those of the `surface` that it refines.
    """

    surface: Surface | None = None

    @classmethod
    def through(cls, surface: Surface) -> "Scattered":
        """Return the surface through all evaluated points."""
        assert surface.sampled is not None
        points = np.concatenate([surface.points, surface.sampled.points])
        values = np.concatenate([surface.values, surface.sampled.values], axis=1)
        return cls(surface.ids, points, values, shape=surface.shape, surface=surface)

    @cached_property
    def _triangles(self) -> tuple[Numbers, Array]:
        """The corners of each triangle, (T, 3), and the matrices that give the hat functions at a point, (T, 3, 3)."""
        from scipy.spatial import Delaunay  # slow to import

        found = Delaunay(_flat(self.points)).simplices.astype(np.int64)
        found = found[np.abs(np.linalg.det(self.points[found])) > _FLAT]
        return found, np.linalg.inv(self.points[found].transpose(0, 2, 1))

    def hats(self, at: Array) -> Array:
        corners, inverse = self._triangles
        within = np.einsum("tab,cb->cta", inverse, at)
        best = np.argmax(within.min(axis=2), axis=1)  # the triangle that holds it
        rows = np.arange(len(at))
        hats = np.maximum(within[rows, best], 0.0)
        shares = np.zeros((len(at), len(self.points)))
        np.put_along_axis(shares, corners[best], hats / hats.sum(axis=1, keepdims=True), axis=1)
        return shares

    def weights(self, alpha: float) -> Array:
        return np.asarray(self.hats(self.quantiles(alpha)).mean(axis=0))

    def second_moments(self, alpha: float) -> Array:
        hats = self.hats(self.quantiles(alpha))
        return np.asarray(hats.T @ hats / len(hats))

    def refined(self) -> "Scattered":
        return self

    def bend_at(self, at: Array) -> Array:
        assert self.surface is not None
        return self.surface.bend_at(at)

    @property
    def bends(self) -> Array:
        assert self.surface is not None
        return self.surface.bends

    def bumps(self, alpha: float) -> Array:
        assert self.surface is not None
        return self.surface.bumps(alpha)

    def unseen(self, alphas: Mapping[float, float]) -> Array:
        assert self.surface is not None
        return self.surface.unseen(alphas)


def _flat(points: Array) -> Array:
    """Return shares (K, 3) as places in a plane triangle with sides of 1, (K, 2)."""
    return np.column_stack([points[:, 0] + points[:, 1] / 2, points[:, 1] * math.sqrt(0.75)])
