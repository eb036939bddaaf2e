"""An observed draw of lambda beside the curve through the nodes.

An item's score changes somewhere between two nodes, say from 0 to 1; linear interpolation cannot say where. So the
mean over items of (observed - interpolated) differs from 0 even where the line is right on average.

The interval of this difference is a score interval: it takes the variance that the difference has if the line is right.
With d_i an item's observed minus interpolated score, s the place of lambda between its two nodes (0 to 1) and a_i, b_i
the item's scores at them, the variance of the sum is the larger of

    sum d_i^2                                                    what is seen
    sum s (1 - s) (b_i - a_i)^2 + sum over a_i = b_i of d_i^2    one change at a place uniform between the nodes

Student's t and the bootstrap take it from d_i alone. They cover 20 to 90 % in place of 95 where few items change
(docs/response.md). This one covers 95 to 100 %, and 95 to 97 where more than five change. If no item differs between
the two nodes, the line leaves nothing to chance; the interval is then that of no difference among n items (`estimate`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from m3_exp.stats.estimate import LEVEL, Array, Mean, VarianceSource, normal, weighted_mean
from m3_exp.stats.expectation import Evaluated, unsure
from m3_exp.stats.lambdas import Curve, right_node

_Z = normal(LEVEL)


@dataclass(frozen=True)
class Line:
    """An observed score (0 to 1) over `n` items beside the interpolated one (`predicted`).

    `half`: half the width of the 95 % interval of their difference. `turning` items differ between the two nodes.
    """

    n: int
    turning: int
    real: float
    predicted: float
    half: float


def beside_line(curve: Evaluated, at: float | Array, real: Array) -> Line:
    """Compare the items' scores at one point, (n,), with what is interpolated between the nodes beside it."""
    shares = curve.hats(np.array([at]))[0]
    beside, predicted = np.flatnonzero(shares), curve.items_at(at)
    moved, turn = np.zeros(len(real), dtype=bool), np.zeros(len(real))
    for a, b in combinations(beside, 2):
        difference = curve.values[:, b] - curve.values[:, a]
        moved |= difference != 0
        turn += shares[b] * shares[a] * difference**2
    score, line = (float(weighted_mean(values, curve.shape)) for values in (real, predicted))
    # if the curve is right: the larger of what is seen and of one turn an item
    squares, one = (real - predicted) ** 2, curve.shape.weights(len(curve.ids)) ** 2
    variance = float(max(one @ squares, one @ np.where(moved, turn, squares)))
    # where no item differs between the nodes: of that difference among so many items, never 0
    still = Mean(score - line, variance, len(real), (-1.0, 1.0))
    error = math.sqrt(variance) if moved.any() else still.standard_error()
    return Line(len(real), int(np.count_nonzero(moved)), score, line, _Z * error)


class Expected(NamedTuple):
    """The mean of observed draws, the curve's at the same lambdas, and E[score | alpha].

    `half`: half the width of the 95 % interval of observed minus expected.
    """

    real: float
    predicted: float
    expected: float
    half: float


def beside_expectation(curve: Evaluated, alpha: float, drawn: Sequence[float | Array], real: Array) -> Expected:
    """Compare the items' means over observed draws, (n,), with the expectation.

    Independent sources of chance: which lambdas were drawn, which were sampled for the curve, and where between two
    nodes an item's score changes. Draws count as independent; for stratified draws the interval is wider than need be.
    """
    along, rest = curve.refined(), unsure(curve, {alpha: 1.0})
    predicted = np.mean([along.items_at(at) for at in drawn], axis=0)
    w, middle = along.weights(alpha), along.means
    between = float(middle @ (along.second_moments(alpha) - np.outer(w, w)) @ middle)
    score, line, expected = (
        float(weighted_mean(values, curve.shape)) for values in (real, predicted, curve.expected(alpha))
    )
    turning = float(curve.shape.weights(len(curve.ids)) ** 2 @ (real - predicted) ** 2)
    others = (VarianceSource(max(between, 0.0) / len(drawn)), *rest.sources)
    difference = Mean(score - expected, turning, len(real), (-1.0, 1.0), others)
    return Expected(score, line, expected, _Z * difference.standard_error() + rest.bias)


def turned(curve: Evaluated, at: Array, generator: np.random.Generator) -> Array:
    """Return mean scores at points (B, C, ...) where each item turns once between nodes, at a uniform place; (B, C).

    Its expectation is the curve. The places are the same for all points of a repetition, as they are in a model.
    """
    if isinstance(curve, Curve):
        return _turned_along(curve, at, generator)
    shares = curve.hats(at.reshape(-1, at.shape[-1])).reshape(*at.shape[:2], -1)
    places = generator.random((len(at), 1, len(curve.ids)))
    below, chosen = np.zeros((*at.shape[:2], 1)), np.zeros((*at.shape[:2], len(curve.ids)))
    beside = np.argsort(shares, axis=2)[:, :, -3:]  # the corners of a triangle: all other shares are 0
    for corner in np.moveaxis(beside, 2, 0):
        above = below + np.take_along_axis(shares, corner[:, :, None], axis=2)
        chosen += np.where((places >= below) & (places < above), curve.values.T[corner], 0.0)
        below = above
    return np.asarray(chosen @ curve.shape.weights(len(curve.ids)))


def _turned_along(curve: Curve, lams: Array, generator: np.random.Generator) -> Array:
    k = right_node(curve.lams, lams)
    share = (lams - curve.lams[k - 1]) / (curve.lams[k] - curve.lams[k - 1])
    places = generator.random((len(lams), len(curve.lams) - 1, len(curve.ids)))
    places = np.take_along_axis(places, (k - 1)[:, :, None], axis=1)
    chosen = np.where(places < share[:, :, None], curve.values.T[k], curve.values.T[k - 1])
    return np.asarray(chosen @ curve.shape.weights(len(curve.ids)))


@dataclass(frozen=True)
class Agreement:
    """How many observed values lie in the central 95 % of replayed ones, and Kolmogorov and Smirnov's p."""

    inside: int
    p: float


def agreement(real: Array, replayed: Array) -> Agreement:
    from scipy import stats  # slow to import

    real, replayed = np.round(real, 12), np.round(replayed, 12)  # equal counts are ties
    low, high = np.quantile(replayed, [0.025, 0.975])
    inside = int(np.sum((real >= low) & (real <= high)))
    return Agreement(inside, float(stats.ks_2samp(real, replayed).pvalue))
