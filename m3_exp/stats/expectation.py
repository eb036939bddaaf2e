"""Item scores at evaluated mixtures -> the expected score at an alpha: what all numbers of experts share.

The theory stands in `m3_exp.stats.lambdas`: an expectation is a weighted sum of the scores at the nodes, corrected by
sampled points (a control variate), with a bound of the interpolation error where there are none. How nodes are weighted
and how a score may bend between them is said by a `Curve` along the lambda of two experts, a `Surface` over the
lattice of three, and a `Fitted` surface of more (`m3_exp.stats.simplex`, `m3_exp.stats.fitted`).

Shapes: n items, K nodes, D sampled points, N experts; scores are from 0 to 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from m3_exp.stats.estimate import EVEN, Array, Estimate, Shape, VarianceSource, mean, weighted_mean
from m3_exp.stats.paired import spread

ALPHAS = (0.2, 0.4, 0.5, 1.0, 2.0, 3.0, 5.0)  # the paper's; sampled points come from the mixture of their distributions
BEND = 0.9  # height of an unseen residual, in parabolas of the nodes' second differences: by simulation


@dataclass(frozen=True)
class Sampled:
    """Item scores observed at sampled points: `values[i, k]` is item i at `points[k]`.

    Shapes: of lambdas (D,), in the order of their strata; of mixtures of N experts (D, N).

    Raises:
        ValueError: fewer than four, or shapes that do not fit.
    """

    points: Array
    values: Array

    def __post_init__(self) -> None:
        if len(self.points) < 4 or self.values.shape[1:] != self.points.shape[:1]:
            raise ValueError(f"{len(self.points)} sampled points with values of shape {self.values.shape}")
        if self.points.ndim == 1 and not bool(np.all(np.diff(self.points) > 0)):
            raise ValueError("sampled lambdas must ascend")

    @property
    def lams(self) -> Array:
        """The points of two experts: lambdas."""
        return self.points


@dataclass(frozen=True)
class Evaluated(ABC):
    """Item scores at the nodes: `values[i, k]` is item `ids[i]` at `points[k]`. Between nodes they are interpolated.

    Shapes: `points` are lambdas (K,) on the segment of two experts (`Curve`), shares (K, N) on the simplex of N experts
    (`m3_exp.stats.simplex`). What differs between these is below `hats`; all else is said once.
    """

    ids: tuple[str, ...]
    points: Array
    values: Array
    sampled: Sampled | None = None
    shape: Shape = EVEN

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.ids), len(self.points)):
            raise ValueError(f"values have the shape {self.values.shape}, not ({len(self.ids)}, {len(self.points)})")
        if self.sampled is not None and len(self.sampled.values) != len(self.ids):
            raise ValueError("nodes and sampled points must have the same items")

    @property
    def means(self) -> Array:
        """The score at each node, shape (K,)."""
        return weighted_mean(self.values, self.shape)

    def items_at(self, at: float | Array) -> Array:
        """Return each item's interpolated score at one point, shape (n,)."""
        return np.asarray(self.values @ self.hats(np.array([at]))[0])

    def scores_at(self, at: Array) -> Array:
        """Return the score at points (B, C) or (B, C, N), shape (B, C)."""
        return np.asarray(self.hats(at.reshape(-1, *self.points.shape[1:])) @ self.means).reshape(at.shape[:2])

    def corrected(self, alpha: float) -> bool:
        """Tell whether the expectation at an alpha has no interpolation error: sampled points serve it."""
        return self.sampled is not None and ALPHAS[0] <= alpha <= ALPHAS[-1]

    @cached_property
    def residuals(self) -> Array:
        """Observed minus interpolated scores at the sampled points, shape (n, D); without any: (n, 0)."""
        if self.sampled is None:
            return np.empty((len(self.ids), 0))
        return np.asarray(self.sampled.values - self.values @ self.hats(self.sampled.points).T)

    def expected(self, alpha: float) -> Array:
        """Return each item's part in the expected score at an alpha, shape (n,).

        Their mean is the expectation. With sampled points the part of a single item may lie outside 0 to 1.
        """
        parts = self.values @ self.weights(alpha)
        if self.corrected(alpha) and self.sampled is not None:
            parts = parts + (self.residuals * self.density_ratio(self.sampled.points, alpha)).mean(axis=1)
        return np.asarray(parts)

    def subset(self, rows: Array) -> Self:
        """Return the same of some of the items, by their numbers."""
        sampled = None if self.sampled is None else Sampled(self.sampled.points, self.sampled.values[rows])
        ids = tuple(self.ids[i] for i in rows)
        return replace(self, ids=ids, values=self.values[rows], sampled=sampled, shape=self.shape.of(rows))

    def having(self, known: Container[str]) -> Self:
        """Return the same of those of its items that are `known`."""
        rows = [row for row, key in enumerate(self.ids) if key in known]
        return self if len(rows) == len(self.ids) else self.subset(np.array(rows, dtype=int))

    def has(self, point: float | tuple[float, ...]) -> bool:
        """Tell whether a point is one of the nodes."""
        return any(place(node) == point for node in self.points)

    def on_nodes(self, points: Array) -> Self:
        """Return the same on some of its nodes, without sampled points."""
        number = {key: k for k, key in enumerate(map(place, self.points))}
        kept = [number[place(point)] for point in points]
        return replace(self, points=points, values=self.values[:, kept], sampled=None)

    @abstractmethod
    def hats(self, at: Array) -> Array:
        """Return each node's share in the score at some points, shape (len(at), K); each row sums to 1."""

    @abstractmethod
    def weights(self, alpha: float) -> Array:
        """Return each node's share in the expectation at an alpha, shape (K,), summing to 1."""

    @abstractmethod
    def second_moments(self, alpha: float) -> Array:
        """Return the expectations at an alpha of the products of two nodes' shares, shape (K, K)."""

    @abstractmethod
    def density_ratio(self, at: Array, alpha: float) -> Array:
        """Return the density at an alpha over that of the equal mixture of the seven: 7 at most."""

    @abstractmethod
    def quantiles(self, alpha: float) -> Array:
        """Return points that stand for equal shares of the distribution at an alpha."""

    @abstractmethod
    def drawn(self, alpha: float, count: int, generator: np.random.Generator) -> Array:
        """Return random points at an alpha, (count,) or (count, N)."""

    @abstractmethod
    def fixed(self, count: int) -> Array:
        """Return so many fixed points that are spread over all mixtures: what a search without chance would try."""

    @abstractmethod
    def refined(self) -> "Evaluated":
        """Return the same through all evaluated points: the sampled ones become nodes as well."""

    @abstractmethod
    def bend_at(self, at: Array) -> Array:
        """Return by how much the score may bend away from `refined` at some points."""

    @property
    @abstractmethod
    def bends(self) -> Array:
        """The squared height that the score's bend may have in each cell between nodes, shape (cells,)."""

    @abstractmethod
    def bumps(self, alpha: float) -> Array:
        """Return the expectation at an alpha of a bend of height 1 in each cell, shape (cells,)."""

    @abstractmethod
    def seen(self, parts: Array) -> float:
        """Return the variance of a mean over sampled points that they show themselves, given items' parts (n, D)."""

    @abstractmethod
    def unseen(self, alphas: Mapping[float, float]) -> Array:
        """Return the sampling variance of a residual that is a bend of height 1 in one cell, shape (cells,)."""


def place(point: float | Array) -> float | tuple[float, ...]:
    """Return a point as something to be looked up by: lambda, or the shares of its experts."""
    return tuple(map(float, point)) if isinstance(point, np.ndarray) and point.ndim else float(point)


@dataclass(frozen=True)
class Unsure:
    """The uncertainty of an expectation over lambda besides that from items: `sources` of variance, and a bias bound.

    `bend`: by how much, at most, the score is assumed to bend away from a straight line between two nodes. With sampled
    lambdas nothing is assumed, and it is 0.
    """

    sources: tuple[VarianceSource, ...] = ()
    bias: float = 0.0
    bend: float = 0.0


def unsure(curve: Evaluated, alphas: Mapping[float, float]) -> Unsure:
    """Return the uncertainty of a weighted sum of expectations besides items; `alphas` maps each alpha to its weight.

    {0.5: 1.0} is the expectation at 0.5 (or its difference from any single model), {2.0: 1.0, 0.5: -1.0} the difference
    of two alphas.
    """
    if all(curve.corrected(alpha) for alpha in alphas):
        return Unsure((VarianceSource(_sampling_variance(curve, alphas)),))
    heights = np.sqrt(curve.bends)
    bumps = np.array([curve.bumps(alpha) for alpha in alphas])
    reach = np.array([[abs(factor) for factor in alphas.values()] @ bumps])
    return Unsure(bias=float((reach @ heights).sum()), bend=float(heights.max(initial=0.0)))


def expectation(curve: Evaluated, alpha: float, masks: Sequence[Evaluated] = (), unscored: int = 0) -> Estimate:
    """Return E[score | alpha] with its interval: over items, sampled points, and DARE masks where there are several.

    `curve` is the mean of the curves of `masks`. `unscored` more items have no score at some node.
    """
    rest = unsure(curve, {alpha: 1.0})
    others = (*rest.sources, *spread([mask.expected(alpha) for mask in masks], curve.shape))
    return mean(curve.expected(alpha), curve.shape, others=others, bias=rest.bias, unscored=unscored)


def _sampling_variance(curve: Evaluated, alphas: Mapping[float, float]) -> float:
    """Return the variance from which points were sampled: the observed one, or what the bends allow if larger."""
    assert curve.sampled is not None
    points = curve.sampled.points
    rho = sum((f * curve.density_ratio(points, alpha) for alpha, f in alphas.items()), np.zeros(len(points)))
    return max(curve.seen(curve.residuals * rho), float(curve.unseen(alphas) @ curve.bends))


def draw_sd(curve: Evaluated, alpha: float) -> float:
    """Return the standard deviation of the population's score between draws of lambda, without the items' noise.

    The variance over lambda of a mean over n items would count their noise as well. A product of the means of two
    different halves of the items does not. The result is its average over all pairs of different items, and 0 where the
    estimate comes out negative.
    """
    n = len(curve.ids)
    if n < 2:
        return float("nan")
    w = curve.weights(alpha)
    spread = curve.second_moments(alpha) - np.outer(w, w)
    total = curve.values.sum(axis=0)  # of the plain mean of items
    own = np.einsum("ij,jk,ik->", curve.values, spread, curve.values)
    return float(np.sqrt(max(0.0, (total @ spread @ total - own) / (n * (n - 1)))))
