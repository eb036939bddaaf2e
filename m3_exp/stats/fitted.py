"""Item scores of merges of four experts and more at designed points -> a fitted surface, which draws correct.

A lattice of so many experts would take too many merges. The score is fitted by the canonical polynomial of Scheffe
(1958), sum b_i x_i + sum b_ij x_i x_j, by least squares over all nodes. The fit is linear in the scores, so each item
still gives one number. The expectations of its terms under Dirichlet(alpha, ..., alpha) are in closed form.

A fit has an error that its own nodes do not tell. So nothing is claimed from it: sampled points correct it (the
control variate of `m3_exp.stats.lambdas`), and their residuals give the variance. Without them, or for an alpha outside
their range, an expectation may be anything from 0 to 1, and its interval says so. At single points the surface is off
by about the root mean square of the residuals at the sampled points, none of which the fit has seen.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations

import numpy as np

from m3_exp.stats.estimate import Array, weighted_mean
from m3_exp.stats.simplex import OnSimplex

_SAME = 1e-9  # shares nearer than this are one point
_Term = tuple[int, ...]  # the experts whose shares are multiplied


@lru_cache(maxsize=8)
def _terms(n_experts: int) -> tuple[_Term, ...]:
    return (*((i,) for i in range(n_experts)), *combinations(range(n_experts), 2))


def _basis(at: Array) -> Array:
    """Return the polynomial's terms at shares (C, N), shape (C, N (N + 1) / 2)."""
    return np.column_stack([at[:, list(term)].prod(axis=1) for term in _terms(at.shape[1])])


def moment(shares: _Term, n_experts: int, alpha: float) -> float:
    """Return the expectation of a product of shares under Dirichlet(alpha, ..., alpha): (0, 0, 2) is x_0^2 x_2."""
    above = math.prod(alpha + k for times in Counter(shares).values() for k in range(times))
    return above / math.prod(n_experts * alpha + k for k in range(len(shares)))


@lru_cache(maxsize=128)
def _products(n_experts: int, alpha: float) -> Array:
    """Return the expectations of the products of two terms."""
    terms = _terms(n_experts)
    return np.array([[moment(a + b, n_experts, alpha) for b in terms] for a in terms])


@dataclass(frozen=True)
class Fitted(OnSimplex):
    """Item scores at designed points (K, N) of N experts, and the quadratic surface fitted to them.

    Raises:
        ValueError: the nodes do not determine the surface, or the shapes do not fit.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if np.linalg.matrix_rank(_basis(self.points)) < len(_terms(self.n_experts)):
            raise ValueError(f"{len(self.points)} nodes do not determine the surface of {self.n_experts} experts")

    @cached_property
    def _smoother(self) -> Array:
        """What makes coefficients of the scores at the nodes, (terms, K)."""
        return np.asarray(np.linalg.pinv(_basis(self.points)), dtype=np.float64)

    def hats(self, at: Array) -> Array:
        """Return each node's share in the score at some points; at a node it is what was observed there."""
        shares = np.asarray(_basis(at) @ self._smoother)
        point, node = np.nonzero((np.abs(at[:, None] - self.points) < _SAME).all(axis=2))
        shares[point] = np.eye(len(self.points))[node]
        return shares

    def weights(self, alpha: float) -> Array:
        expected = np.array([moment(term, self.n_experts, alpha) for term in _terms(self.n_experts)])
        return np.asarray(expected @ self._smoother)

    def second_moments(self, alpha: float) -> Array:
        return np.asarray(self._smoother.T @ _products(self.n_experts, alpha) @ self._smoother)

    def refined(self) -> "Fitted":
        """Return the surface fitted to all evaluated points."""
        if self.sampled is None:
            return self
        points = np.concatenate([self.points, self.sampled.points])
        values = np.concatenate([self.values, self.sampled.values], axis=1)
        return Fitted(self.ids, points, values, shape=self.shape)

    def bend_at(self, at: Array) -> Array:
        """Return the root mean square of the residuals at the sampled points; 1 without any."""
        missed = weighted_mean(self.residuals, self.shape)
        return np.full(len(at), float(np.sqrt((missed**2).mean())) if len(missed) else 1.0)

    @property
    def bends(self) -> Array:
        return np.ones(1)

    def bumps(self, alpha: float) -> Array:
        return np.ones(1)

    def unseen(self, alphas: Mapping[float, float]) -> Array:
        return np.zeros(1)
