"""A score beside one that was published without its answers: how far apart they are, and where it lies in a replay."""

import math
from dataclasses import dataclass, replace

import numpy as np

from m3_exp.stats.estimate import LEVEL, Array, normal, proportion
from m3_exp.stats.expectation import ALPHAS
from m3_exp.stats.lambdas import Curve
from m3_exp.stats.resampling import resampled

_REPLAYS = 2_000  # of the paper's protocol: a percentile to about one point
_PRINTED = 0.01  # points: two scores nearer than this are one; a paper rounds to two decimals, or cuts (8.53)


@dataclass(frozen=True)
class Distance:
    """Ours - theirs in points, with the 95 % interval of independent answers, and in standard errors.

    `z_low` takes the two models' answers as independent, `z_high` as alike as two such scores can be; neither where the
    items or the models are not the same. |z_low| <= |z_high|, and both have the sign of the difference.
    """

    difference: float
    low: float
    high: float
    z_low: float | None = None
    z_high: float | None = None


def distance(score: float, n: int, published: float, n_published: int) -> Distance:
    """Return how far a score on n items is from a published one (both in percent) on `n_published`.

    The interval squares and adds the half widths of the two scores' own intervals (as Newcombe 1998, method 10), so it
    holds at every n. Its half towards 0 over 1.96 is the standard error of `z_low`: 1.96 where that end is 0. For
    `z_high` our n items are a random part of the paper's (none where they are more), and only as many of those are
    answered otherwise as the scores differ by: |d| of them, all in one direction, so the variance is (|d| - d^2) / N.
    """
    ours, theirs = score / 100, published / 100
    own, other = proportion(ours, n), proportion(theirs, n_published)
    difference = score - published if abs(score - published) >= _PRINTED else 0.0
    below, above = math.hypot(ours - own.low, other.high - theirs), math.hypot(own.high - ours, theirs - other.low)
    far = Distance(difference, difference - 100 * below, difference + 100 * above)
    if n > n_published:
        return far
    if not difference:
        return replace(far, z_low=0.0, z_high=0.0)
    d, to_normal = difference / 100, normal(LEVEL)
    half, independent = (ours - own.low, below) if d > 0 else (own.high - ours, above)
    open_part = half * math.sqrt(finite_population(n, n_published))
    alike = math.hypot(open_part, to_normal * math.sqrt((abs(d) - d * d) / n_published)) or independent
    return replace(far, z_low=to_normal * d / independent, z_high=to_normal * d / min(independent, alike))


def finite_population(n: int, whole: int) -> float:
    """Return the factor of the variance of a mean over n items that are drawn from `whole` without replacement."""
    return (whole - n) / max(1, whole - 1)


def replayed(curve: Curve, n_published: int, repeats: int = _REPLAYS, seed: int = 0, *, alike: bool = False) -> Array:
    """Replay the paper's protocol: one draw for each of its alphas, the best on the curve's own items; (repeats,).

    Our items are resampled in each repetition, and the score that is kept is one on `n_published` items. `alike`: the
    paper's items are taken to be ours (or to contain them) and answered the same; then only lambda varies.
    """
    generator = np.random.default_rng(seed)
    draws = np.column_stack([generator.beta(alpha, alpha, repeats) for alpha in ALPHAS])
    heights = resampled(len(curve.ids), repeats, generator) @ curve.values
    if alike:
        means = curve.values.mean(axis=0)
        heights = means + (heights - means) * math.sqrt(finite_population(len(curve.ids), n_published))
    tops = [float(np.interp(lams, curve.lams, height).max()) for lams, height in zip(draws, heights, strict=True)]
    shares = np.clip(tops, 0, 1)
    return np.asarray(shares if alike else generator.binomial(n_published, shares) / n_published)


def percentile(published: float, replayed: Array) -> float:
    """Return where a published value (percent) lies among replayed scores (0 to 1): 0 to 100, ties counted half."""
    above = 100 * replayed - published
    return 100 * (float(np.mean(above <= -_PRINTED)) + float(np.mean(np.abs(above) < _PRINTED)) / 2)
