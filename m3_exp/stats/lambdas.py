"""Item scores at a few lambdas -> the expected score for every alpha, with every source of its uncertainty.

alpha acts on a merged model through lambda ~ Beta(alpha, alpha) alone. Between two nodes an item's score is taken to be
linear in lambda. So E[score | alpha] is a linear function of the scores y_k at the nodes. Its weights w_k(alpha) are
the expectations of the nodes' hat functions, in closed form by incomplete beta functions.

If a score bends between the nodes, this is wrong by an amount that no number of items mends. So further models are
merged at D *sampled* lambdas, drawn (stratified) from the equal mixture of the paper's seven Betas, and evaluated. With
r_k the observed minus the interpolated score at the k-th of them, and rho the ratio of densities,

    E[score | alpha] = sum_k w_k y_k + 1/D sum_k rho(lambda_k) r_k

has no interpolation error (a control variate). Each item still gives one number. Which lambdas were sampled adds a
variance of its own. It is estimated from the second differences of rho r along the strata. A bump that no sampled
lambda met would be overlooked there; so the variance is at least that of a bump as high as the nodes' curve bends.

This holds for every alpha between the least and the largest of the seven (the ratio of densities is 7 at most). Without
sampled lambdas, or for an alpha outside, the interpolation error is bounded instead: by a parabola in each interval, as
high as the nodes' second differences say (`Unsure.bend`). That is an assumption, and printed as such, because a peak
between two nodes is seen by none of them. No claim is made from it.

Shapes: n items, K nodes ascending from 0 to 1, D sampled lambdas; scores are from 0 to 1.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from m3_exp.stats.estimate import Array, influences, weighted_mean
from m3_exp.stats.expectation import ALPHAS, BEND, Evaluated

_FINE = 128  # quadrature points a stratum
_QUANTILES = 512  # of Beta(alpha, alpha), where an expectation has no closed form (the minimum)
_EDGE = 1e-300


@dataclass(frozen=True)
class Curve(Evaluated):
    """Item scores along lambda. `values[i, k]` is item `ids[i]` at `lams[k]`; the nodes contain 0 and 1.

    Raises:
        ValueError: the nodes do not ascend from 0 to 1, or the shapes do not fit.
    """

    def __post_init__(self) -> None:
        if self.lams.ndim != 1 or len(self.lams) < 2 or self.lams[0] != 0 or self.lams[-1] != 1:
            raise ValueError("the nodes must begin with lambda 0 and end with 1")
        if not bool(np.all(np.diff(self.lams) > 0)):
            raise ValueError("the nodes must ascend")
        super().__post_init__()

    @property
    def lams(self) -> Array:
        """The nodes."""
        return self.points

    def refined(self) -> "Curve":
        if self.sampled is None:
            return self
        lams, at = np.unique(np.concatenate([self.lams, self.sampled.lams]), return_index=True)
        values = np.concatenate([self.values, self.sampled.values], axis=1)[:, at]
        return Curve(self.ids, lams, values, shape=self.shape)

    def scores_at(self, at: Array) -> Array:
        return np.interp(at, self.lams, self.means)

    def hats(self, at: Array) -> Array:
        return hats(self.lams, at)

    def weights(self, alpha: float) -> Array:
        return weights(self.lams, alpha)

    def second_moments(self, alpha: float) -> Array:
        return second_moments(self.lams, alpha)

    def density_ratio(self, at: Array, alpha: float) -> Array:
        return density_ratio(at, alpha)

    def quantiles(self, alpha: float) -> Array:
        return quantiles(alpha)

    def drawn(self, alpha: float, count: int, generator: np.random.Generator) -> Array:
        return generator.beta(alpha, alpha, count)

    def fixed(self, count: int) -> Array:
        return np.linspace(0, 1, count)

    def bend_at(self, at: Array) -> Array:
        """Return by how much the score may bend away from the refined curve (`refined`) at some lambdas.

        Between two nodes this is the parabola that `unsure` allows. A sampled lambda in between splits it into two of
        the same curvature. (Second differences of lambdas that lie close together would be noise, so they are not
        used.)
        """
        k = right_node(self.lams, at)
        curvature = np.sqrt(self.bends)[k - 1] * 4 / (self.lams[k] - self.lams[k - 1]) ** 2
        merges = self.refined().lams
        beside = right_node(merges, at)
        return np.asarray(curvature * (at - merges[beside - 1]) * (merges[beside] - at))

    @property
    def bends(self) -> Array:
        """The squared height that the score's bend may have in each interval, shape (K - 1,).

        It is that of a parabola by the nodes' second differences: in an interval, the mean square of those at its two
        ends (the first and the last node have none).
        """
        width = np.diff(self.lams)
        if len(width) < 2:
            return np.ones(len(width))  # two nodes say nothing of what lies between them
        slopes = np.diff(self.means) / width
        second = (2 * np.diff(slopes) / (self.lams[2:] - self.lams[:-2])) ** 2
        padded = np.concatenate([second[:1], second, second[-1:]])
        return np.asarray((padded[:-1] + padded[1:]) / 2 * (BEND * width**2 / 8) ** 2)

    def bumps(self, alpha: float) -> Array:
        return np.array(_bumps(tuple(map(float, self.lams)), alpha))

    def seen(self, parts: Array) -> float:
        """By second differences along the strata of lambda: their first order is no chance."""
        count = parts.shape[1]
        means = weighted_mean(parts, self.shape)
        turns = means[:-2] - 2 * means[1:-1] + means[2:]
        own = influences(parts[:, :-2] - 2 * parts[:, 1:-1] + parts[:, 2:], self.shape)
        return float(max(0.0, float((turns**2 - (own**2).sum(axis=0)).sum())) / 6 / count / (count - 2))

    def unseen(self, alphas: Mapping[float, float]) -> Array:
        assert self.sampled is not None
        return np.asarray(_unseen(tuple(map(float, self.lams)), len(self.sampled.lams), tuple(sorted(alphas.items()))))


@lru_cache(maxsize=1024)
def _bumps(lams: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Return E[4 (lambda - a)(b - lambda) / (b - a)^2 in interval (a, b)], one for each interval."""
    at = np.array(lams)
    zeroth, first, second = _moments(at, alpha)
    left, right = at[:-1], at[1:]
    inside = np.maximum(0.0, (left + right) * first - second - left * right * zeroth)
    return tuple(map(float, 4 * inside / (right - left) ** 2))


@lru_cache(maxsize=256)
def _unseen(lams: tuple[float, ...], count: int, alphas: tuple[tuple[float, float], ...]) -> tuple[float, ...]:
    """Return, for each interval, the sampling variance of a residual that is a parabola of height 1 in it, else 0."""
    at = mixture_quantile((np.arange(count * _FINE) + 0.5) / (count * _FINE))
    rho = sum((factor * density_ratio(at, alpha) for alpha, factor in alphas), np.zeros(len(at)))
    variances = []
    for left, right in itertools.pairwise(lams):
        bump = np.where((at > left) & (at < right), 4 * (at - left) * (right - at) / (right - left) ** 2, 0.0)
        variances.append(float((rho * bump).reshape(count, _FINE).var(axis=1).sum()) / count**2)
    return tuple(variances)


# ------------------------------------------------------------------------------------------------------- the mixture


def _log_density(lams: Array, alpha: float) -> Array:
    inside = np.clip(lams, _EDGE, 1 - 1e-16)
    return np.asarray((alpha - 1) * (np.log(inside) + np.log1p(-inside)) - log_beta(alpha))


def density(lams: Array, alpha: float) -> Array:
    """Return the density of Beta(alpha, alpha)."""
    return np.exp(_log_density(lams, alpha))


def log_beta(alpha: float) -> float:
    """Return the logarithm of B(alpha, alpha), the constant of that density."""
    return float(scipy.special.betaln(alpha, alpha))


def density_ratio(lams: Array, alpha: float) -> Array:
    """Return the density of Beta(alpha, alpha) over that of the equal mixture of the seven: 7 at most."""
    return np.array(_density_ratio(np.asarray(lams, float).tobytes(), alpha))


@lru_cache(maxsize=256)
def _density_ratio(lams: bytes, alpha: float) -> Array:
    at = np.frombuffer(lams)
    every = np.array([_log_density(at, one) for one in ALPHAS])
    mixture = scipy.special.logsumexp(every, axis=0) - np.log(len(ALPHAS))
    return np.asarray(np.exp(_log_density(at, alpha) - mixture))


@lru_cache(maxsize=1)
def _mixture_table() -> tuple[Array, Array]:
    half = np.geomspace(1e-16, 0.5, 40_001)
    lams = np.concatenate([half, 1 - half[-2::-1]])
    return np.mean([scipy.special.betainc(alpha, alpha, lams) for alpha in ALPHAS], axis=0), lams


@lru_cache(maxsize=128)
def quantiles(alpha: float) -> Array:
    """Return the lambdas in the middles of equal shares of Beta(alpha, alpha)."""
    return np.asarray(scipy.special.betaincinv(alpha, alpha, (np.arange(_QUANTILES) + 0.5) / _QUANTILES))


def mixture_quantile(shares: Array) -> Array:
    """Return the quantiles of the equal mixture of the seven Betas, by interpolation in a table (to about 1e-8)."""
    cumulative, lams = _mixture_table()
    return np.asarray(np.interp(shares, cumulative, lams))


# -------------------------------------------------------------------------------------------------------- the weights


def right_node(lams: Array, at: float | Array) -> NDArray[np.int64]:
    """Return the number of the node at the right end of the interval that holds a lambda."""
    return np.clip(np.searchsorted(lams, at, side="right"), 1, len(lams) - 1)


def hats(lams: Array, at: Array) -> Array:
    """Return the hat function of each node at some lambdas, shape (len(at), K); each row sums to 1."""
    right = right_node(lams, at)
    share = (at - lams[right - 1]) / (lams[right] - lams[right - 1])
    shares = np.zeros((len(at), len(lams)))
    rows = np.arange(len(at))
    shares[rows, right - 1] = 1 - share
    shares[rows, right] = share
    return shares


def _moments(lams: Array, alpha: float) -> tuple[Array, Array, Array]:
    """Return the integrals of 1, lambda and lambda^2 against Beta(alpha, alpha) over each interval, shapes (K - 1,)."""
    second = (alpha + 1) / (2 * (2 * alpha + 1))
    zeroth = np.diff(scipy.special.betainc(alpha, alpha, lams))
    first = 0.5 * np.diff(scipy.special.betainc(alpha + 1, alpha, lams))
    return zeroth, first, second * np.diff(scipy.special.betainc(alpha + 2, alpha, lams))


def weights(lams: Array, alpha: float) -> Array:
    """Return w_k(alpha) = E[hat_k(lambda)], lambda ~ Beta(alpha, alpha): shape (K,), >= 0, summing to 1.

    Raises:
        ValueError: alpha is not above 0.
    """
    if not alpha > 0:
        raise ValueError(f"alpha={alpha} must be above 0")
    zeroth, first, _ = _moments(lams, alpha)
    left, right, width = lams[:-1], lams[1:], np.diff(lams)
    shares = np.zeros(len(lams))
    shares[:-1] += (right * zeroth - first) / width
    shares[1:] += (first - left * zeroth) / width
    return np.maximum(shares, 0.0)  # a rounding below zero where an interval holds no mass


def second_moments(lams: Array, alpha: float) -> Array:
    """Return E[hat_j(lambda) hat_k(lambda)], shape (K, K): only neighbours overlap."""
    zeroth, first, second = _moments(lams, alpha)
    left, right, square = lams[:-1], lams[1:], np.diff(lams) ** 2
    moments = np.zeros((len(lams), len(lams)))
    k = np.arange(len(lams) - 1)
    moments[k, k] += (right**2 * zeroth - 2 * right * first + second) / square
    moments[k + 1, k + 1] += (second - 2 * left * first + left**2 * zeroth) / square
    cross = ((left + right) * first - second - left * right * zeroth) / square
    moments[k, k + 1] += cross
    moments[k + 1, k] += cross
    return moments
