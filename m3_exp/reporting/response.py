"""The response engine: item scores at a few lambdas -> the expected score for every alpha, with what it is unsure of.

alpha acts on a merged model through lambda ~ Beta(alpha, alpha) alone. Between two nodes an item's score is taken to
be linear in lambda, so E[score | alpha] is one linear functional of the scores at the nodes: its weights w_k(alpha)
are the expectations of the hat functions of the nodes, in closed form by incomplete beta functions. Each item gives
one number, sum_k w_k y_ik, and every interval and contrast is an ordinary (paired) mean over items.

Shapes: `lams` (K,) ascending from 0 to 1; `values` (n, K), an item's score from 0 to 1 at each node.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Item scores at the nodes. `values[i, k]` is item `ids[i]` at `lams[k]`; the nodes contain 0 and 1.

    Raises:
        ValueError: the nodes do not ascend from 0 to 1, or the shapes do not fit.
    """

    ids: tuple[str, ...]
    lams: Array
    values: Array

    def __post_init__(self) -> None:
        if self.lams.ndim != 1 or len(self.lams) < 2 or self.lams[0] != 0 or self.lams[-1] != 1:
            raise ValueError("the nodes must begin with lambda 0 and end with 1")
        if not bool(np.all(np.diff(self.lams) > 0)):
            raise ValueError("the nodes must ascend")
        if self.values.shape != (len(self.ids), len(self.lams)):
            raise ValueError(f"values have the shape {self.values.shape}, not ({len(self.ids)}, {len(self.lams)})")

    def at(self, lam: float | Array) -> Array:
        """Return the mean over items at any lambda, by the piecewise-linear interpolant."""
        return np.asarray(np.interp(lam, self.lams, self.values.mean(axis=0)))

    def items_at(self, lam: float) -> Array:
        """Return each item's interpolated score at one lambda, shape (n,)."""
        return np.asarray(self.values @ hats(self.lams, np.array([lam]))[0])

    def expected(self, alpha: float) -> Array:
        """Return each item's expected score under Beta(alpha, alpha), shape (n,)."""
        return np.asarray(self.values @ weights(self.lams, alpha))

    def subset(self, rows: Array) -> "Curve":
        """Return the curve of some of the items, by their numbers."""
        return Curve(tuple(self.ids[i] for i in rows), self.lams, self.values[rows])


def hats(lams: Array, at: Array) -> Array:
    """Return the hat function of each node at some lambdas, shape (len(at), K); each row sums to 1."""
    right = np.clip(np.searchsorted(lams, at, side="right"), 1, len(lams) - 1)
    share = (at - lams[right - 1]) / (lams[right] - lams[right - 1])
    found = np.zeros((len(at), len(lams)))
    rows = np.arange(len(at))
    found[rows, right - 1] = 1 - share
    found[rows, right] = share
    return found


def _moments(lams: Array, alpha: float) -> tuple[Array, Array, Array]:
    """Return the integrals of 1, lambda and lambda^2 against Beta(alpha, alpha) over each interval, shapes (K - 1,)."""
    second = (alpha + 1) / (2 * (2 * alpha + 1))
    zeroth = np.diff(special.betainc(alpha, alpha, lams))
    first = 0.5 * np.diff(special.betainc(alpha + 1, alpha, lams))
    return zeroth, first, second * np.diff(special.betainc(alpha + 2, alpha, lams))


def weights(lams: Array, alpha: float) -> Array:
    """Return w_k(alpha) = E[hat_k(lambda)], lambda ~ Beta(alpha, alpha): shape (K,), >= 0, summing to 1.

    Raises:
        ValueError: alpha is not above 0.
    """
    if not alpha > 0:
        raise ValueError(f"alpha={alpha} must be above 0")
    zeroth, first, _ = _moments(lams, alpha)
    left, right, width = lams[:-1], lams[1:], np.diff(lams)
    found = np.zeros(len(lams))
    found[:-1] += (right * zeroth - first) / width
    found[1:] += (first - left * zeroth) / width
    return np.maximum(found, 0.0)  # a rounding below zero where an interval holds no mass


def second_moments(lams: Array, alpha: float) -> Array:
    """Return E[hat_j(lambda) hat_k(lambda)], shape (K, K): only neighbours overlap."""
    zeroth, first, second = _moments(lams, alpha)
    left, right, square = lams[:-1], lams[1:], np.diff(lams) ** 2
    found = np.zeros((len(lams), len(lams)))
    k = np.arange(len(lams) - 1)
    found[k, k] += (right**2 * zeroth - 2 * right * first + second) / square
    found[k + 1, k + 1] += (second - 2 * left * first + left**2 * zeroth) / square
    cross = ((left + right) * first - second - left * right * zeroth) / square
    found[k, k + 1] += cross
    found[k + 1, k] += cross
    return found


def draw_sd(curve: Curve, alpha: float) -> float:
    """Return the standard deviation of the population's score between draws of lambda, without the items' noise.

    The variance over lambda of a mean over n items would count their sampling noise as well. A product of the means of
    two different halves does not, and this is its average over all pairs of different items. 0 where the estimate
    comes out negative.
    """
    n = len(curve.ids)
    if n < 2:
        return float("nan")
    w = weights(curve.lams, alpha)
    spread = second_moments(curve.lams, alpha) - np.outer(w, w)
    total = curve.values.sum(axis=0)
    own = np.einsum("ij,jk,ik->", curve.values, spread, curve.values)
    return float(np.sqrt(max(0.0, (total @ spread @ total - own) / (n * (n - 1)))))


def coarser(curve: Curve) -> Curve | None:
    """Return the curve on every other node, the ends kept; None where too few remain."""
    if len(curve.lams) < 5 or len(curve.lams) % 2 == 0:
        return None
    return Curve(curve.ids, curve.lams[::2], curve.values[:, ::2])


def interpolation_error(curve: Curve, alpha: float) -> float | None:
    """Return how far the expectation can be off when every other node is left out, beyond paired standard errors.

    Nested node sets, the same items: at each node left out, coarse - fine is a paired mean with a standard error, and
    what exceeds it is the coarse line's error there. They are added without their signs: a score that falls like an S
    bends both ways, and errors that happen to cancel on the coarse set do not on the fine one. An estimate (of the
    coarse set's error; the fine one's is mostly smaller), no bound. None with too few nodes or items.
    """
    coarse = coarser(curve)
    if coarse is None or len(curve.ids) < 2:
        return None
    left_out = slice(1, None, 2)
    moved = coarse.values @ hats(coarse.lams, curve.lams[left_out]).T - curve.values[:, left_out]
    error = moved.std(axis=0, ddof=1) / np.sqrt(len(moved))
    beyond = np.maximum(0.0, np.abs(moved.mean(axis=0)) - error)
    return float(weights(curve.lams, alpha)[left_out] @ beyond)
