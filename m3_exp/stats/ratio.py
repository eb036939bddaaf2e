"""PDR, the performance drop rate 1 - attacked / clean of paired item scores, and the difference of two, with intervals.

An item has a clean score c and an attacked score a, both from 0 to 1. theta = sum(a) / sum(c) and PDR = 1 - theta. The
interval of theta holds every value that a score test of "the mean of x = a - theta c is 0" does not reject: the test
takes the variance of x from the most likely distribution that has mean 0 (Nam and Blackwelder 2002, Statistics in
Medicine 21:689; Tang, Tang and Chan 2003), so that it is never 0, and nothing seen is not nothing there.

- 0/1 scores: the closed form of that distribution, `restricted`.
- Graded scores (means over draws, seeds, masks) and clusters of items: the same, with the values seen and the ends of
  the possible range, -theta and 1, as its support (Owen's empirical likelihood 1988, completed by the ends). On 0/1
  scores the two are equal. Of clusters the sums count, and the range is theirs: sum(m^2) / sum(m), m items in each.
- Alone this covers 88.7 % at accuracies .6 and .005, n = 24 (an item right under the attack is then too sure evidence).
  So the skewness of the restricted distribution is corrected for (Gart and Nam 1988; Laud 2017), only where that
  widens: |T| / sd <= z + max(0, skewness towards T) (z^2 - 1) / 6.

The difference of two PDRs on the same items has MOVER's interval (Zou and Donner 2008; for correlated estimates Zou
2008, Psychological Methods 13:413): of both intervals and the estimates' correlation by the delta method, from the
influences a - theta c of the items. To each variance z^2 / 2 unseen items are added, to the covariance none, so that
two models that erred alike so far are not taken to do so always. p inverts that interval.

Coverage of 95 % intervals in %, of sets in which PDR is defined; clean and attacked accuracy, correlation of the latent
item factor. 0/1 scores exactly (n = 872: 20,000 sets); graded: means over 3 draws, 4,000 sets (n = 872: 1,500). Above
97 where few items are right under the attack, or changed by it: counts are coarse there and the correction widens.

    clean  attacked  corr.   0/1: n 20     24     96    872   graded: n 20     24     96    872
    .9     .89       .97        100.0  100.0   97.3   95.1          100.0  100.0   99.4   95.2
    .9     .85       .8          99.0   98.8   95.3   95.2           99.9   99.7   95.0   95.0
    .9     .5        .4          95.3   94.9   95.0   95.0           96.1   95.8   95.4   95.5
    .9     .05       .2          98.3   97.0   97.0   95.4           98.0   97.5   97.3   95.1
    .6     .02       .2          97.8   98.4   97.6   95.6           98.1   97.8   97.5   95.8
    .6     .005      .2          99.4   99.3   98.7   95.9           97.1   97.7   98.0   97.4
    .1     .05       .5          98.8   98.5   95.6   95.3           99.1   99.1   97.1   95.6
    .1     .005      .3          99.1   99.0   97.9   96.4           98.5   98.0   97.5   96.5
    .9     .9        .99        100.0  100.0    98.8   95.1          100.0  100.0  100.0   95.1

Over a grid of 624 populations (clean .02 to .99, theta .001 to 4; n = 8 to 60), 0/1 scores exactly: 93.1 at least.
Differences of PDR of 0/1 scores, true value 0: p < .05 in 0 to 4.6 % (n = 24), 0.4 to 5.0 % (96), 4.3 to 5.2 % (872,
+- .12); p < .001 in at most .002 %, .079 %, .13 % (+- .02). Coverage 94.6 to 100 %; of graded scores and clusters 95.0
to 100 % (700 sets). A true .11 (.5 against .6 of .9) has p < .05 in 11, 34, 100 % of sets, .33 in 67, 100, 100 %.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import NDArray

from m3_exp.stats.estimate import LEVEL, Array, VarianceSource, normal
from m3_exp.stats.roots import root

Vector = Sequence[float] | Array

_EDGE = 1e-9  # of theta / (1 + theta): nothing nearer to 0 or infinity is looked at
_CERTAIN = 37.0  # standard errors: 2 Phi(-37) is 1e-299
_MOST = 8.0  # normal quantile above which no interval is widened: p is 1e-15 there
_PSEUDO = 0.5 * normal(0.95) ** 2  # items that differ, the fewest a standard error is made of
_NONE_RIGHT = "undefined: no item is right without the attack"


@dataclass(frozen=True)
class Ratio:
    """A PDR or a difference of two, as a share (0.2: a fifth is lost), with its interval.

    value: None where a model is right on no item without the attack; `reason` says so, the interval is all there is.
    low, high: a PDR's lie between -inf and 1, a difference's between -inf and inf. Never equal.
    p: two-sided, of no difference; None for a single PDR and without a value.
    n: items scored on all sides. how: the method.
    se: the delta method's standard error, at least what 1.92 (z^2 / 2) items that differ give, so never 0.
    """

    value: float | None
    low: float
    high: float
    p: float | None
    n: int
    how: str
    se: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Scores:
    """One model's scores without and under the attack, item by item."""

    clean: Vector
    attacked: Vector


@dataclass(frozen=True)
class Cells:
    """Counts or shares of items right on both sides, clean only (lost), attacked only (gained), on neither."""

    both: float
    lost: float
    gained: float
    neither: float


def drop(
    clean: Vector,
    attacked: Vector,
    *,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    missing: int = 0,
) -> Ratio:
    """Return PDR = 1 - sum(attacked) / sum(clean) of paired item scores (0 to 1), with its interval.

    `clusters`: a label per item; items of one label are one draw. `missing`: items without a score on some side; the
    ends are then the outermost of the intervals without them, with all of them 1 before and 0 under the attack (the
    most that can be lost) and with all of them 0 before and 1 under it (the least).

    Raises:
        ValueError: unequal lengths, a score outside 0 to 1, `missing` below 0.
    """
    z = normal(level)
    (sample,) = _samples([Scores(clean, attacked)], clusters, missing)
    n, how = len(clean), _how([sample], clusters)
    if reason := _undefined([sample]):
        return Ratio(None, -math.inf, 1.0, None, n, how, reason=reason)
    extremes = sample.extremes(missing) if missing else ()
    ends = [_interval(case, z) for case in [sample, *extremes]]
    se = _standard_error(sample.influence / sample.total, [sample])
    low, high = _outermost(ends)
    return Ratio(1.0 - sample.theta, 1.0 - high, 1.0 - low, None, n, how, se=se)


def drop_difference(
    first: Scores, second: Scores, *, level: float = 0.95, clusters: Sequence[Hashable] | None = None, missing: int = 0
) -> Ratio:
    """Return PDR of `first` minus PDR of `second` on the same items, with MOVER's interval and the p that inverts it.

    p is 1 - the highest level at which the interval leaves out 0. `clusters` as for `drop`. `missing`: items without a
    score on some side of either; the ends are the outermost of the intervals without them and with all of them the
    most of a loss in one and of a gain in the other, both ways round; where these differ in sign p is 1.

    Raises:
        ValueError: unequal lengths, a score outside 0 to 1, `missing` below 0.
    """
    z = normal(level)
    one, two = _samples([first, second], clusters, missing)
    n, how = len(first.clean), f"MOVER of two: {_how([one, two], clusters)}"
    if reason := _undefined([one, two]):
        return Ratio(None, -math.inf, math.inf, None, n, how, reason=reason)
    cases = [(one, two)]
    if missing:
        cases += zip(one.extremes(missing), reversed(two.extremes(missing)), strict=True)

    def outermost(z: float) -> _Ends:
        return _outermost([_mover(a, b, z) for a, b in cases])

    low, high = outermost(z)
    se = _standard_error(one.influence / one.total - two.influence / two.total, [one, two])
    return Ratio(two.theta - one.theta, low, high, _p_value(outermost), n, how, se=se)


def restricted(theta: float, counts: Cells) -> Cells:
    """Return the most likely shares of the four kinds of items under P(attacked right) = theta P(clean right).

    With m items right somewhere and s = m / n their share, P(neither) = 1 - s stays. P(gained) = q fixes the others,
    P(lost) = theta q - (theta - 1) s and P(both) = theta s - (1 + theta) q, and the likelihood is highest at the larger
    root of A q^2 - B q + C = 0, A = theta (1 + theta) m, B = s (both (theta^2 - 1) + lost theta^2 + gained (2 theta^2 -
    1)), C = gained theta (theta - 1) s^2 (Nam and Blackwelder 2002, in other letters).
    """
    if theta > 1.0:  # the same with the sides exchanged, where nothing cancels
        p = restricted(1.0 / theta, Cells(counts.both, counts.gained, counts.lost, counts.neither))
        return Cells(p.both, p.gained, p.lost, p.neither)
    m = counts.both + counts.lost + counts.gained
    s, square = m / (m + counts.neither), theta * theta
    a = theta * (1.0 + theta) * m
    b = s * (counts.both * (square - 1.0) + counts.lost * square + counts.gained * (2.0 * square - 1.0))
    c = counts.gained * theta * (theta - 1.0) * s * s
    root = math.sqrt(b * b - 4.0 * a * c)  # c <= 0
    q = (b + root) / (2.0 * a) if b >= 0.0 else 2.0 * c / (b - root)
    q = min(q, theta * s / (1.0 + theta))
    return Cells(theta * s - (1.0 + theta) * q, theta * q + (1.0 - theta) * s, q, 1.0 - s)


# --------------------------------------------------------------------------------------------------------- one sample


_Ends = tuple[float, float]  # the low end of an interval, and the high one
_Moments = tuple[float, float]  # variance and third moment of the sum of x = a - theta c, were its mean 0


@dataclass(frozen=True)
class _Sample:
    """Sums of clean and attacked scores over each cluster; `size`: at how many items a cluster counts."""

    clean: Array
    attacked: Array
    size: float

    def extremes(self, items: int) -> tuple["_Sample", "_Sample"]:
        """Return the sample with further items: all wrong without and right under the attack, and the other way."""
        right, wrong = np.ones(items), np.zeros(items)
        gaining = _Sample(np.append(self.clean, wrong), np.append(self.attacked, right), self.size)
        return gaining, _Sample(np.append(self.clean, right), np.append(self.attacked, wrong), self.size)

    @cached_property
    def total(self) -> float:
        return math.fsum(self.clean)

    @cached_property
    def total_attacked(self) -> float:
        return math.fsum(self.attacked)

    @cached_property
    def theta(self) -> float:
        return self.total_attacked / self.total

    @cached_property
    def influence(self) -> Array:
        """What each cluster moves theta by, times the clean total."""
        return self.attacked - self.theta * self.clean

    @cached_property
    def kinds(self) -> tuple[Array, NDArray[np.int64]]:
        """The pairs (clean, attacked) that occur, and how often."""
        pairs, times = np.unique(np.column_stack([self.clean, self.attacked]), axis=0, return_counts=True)
        return pairs, times

    @cached_property
    def cells(self) -> Cells | None:
        """The counts of 0/1 scores; None for others."""
        if self.size != 1.0 or not np.isin(self.kinds[0], (0.0, 1.0)).all():
            return None
        times = {(int(c), int(a)): float(t) for (c, a), t in zip(*self.kinds, strict=True)}
        return Cells(*(times.get(kind, 0.0) for kind in ((1, 1), (1, 0), (0, 1), (0, 0))))

    def moments(self, theta: float) -> _Moments:
        """Return what the test of theta takes for the spread of the sum of a - theta c."""
        return _binary_moments(theta, self.cells) if self.cells else self._graded_moments(theta)

    def _graded_moments(self, theta: float) -> _Moments:
        """Maximise the likelihood of shares of the values seen and the range's ends with mean 0 (Owen 1988).

        Each value x has the share times / (n (1 + lam x)), and an end what is left where lam is at its limit there.
        """
        pairs, times = self.kinds
        n, x = float(times.sum()), pairs[:, 1] - theta * pairs[:, 0]
        low, high = min(-theta * self.size, float(x.min())), max(self.size, float(x.max()))
        lam = _multiplier(x, times, low, high)
        share = times / (n * (1.0 + lam * x))
        left, end = max(0.0, 1.0 - float(share.sum())), (high if lam < 0.0 else low)
        return n * float(share @ x**2 + left * end**2), n * float(share @ x**3 + left * end**3)


def _binary_moments(theta: float, cells: Cells) -> _Moments:
    n, p = cells.both + cells.lost + cells.gained + cells.neither, restricted(theta, cells)
    second = p.both * (1.0 - theta) ** 2 + p.lost * theta**2 + p.gained
    return n * second, n * (p.both * (1.0 - theta) ** 3 - p.lost * theta**3 + p.gained)


def _multiplier(x: Array, times: NDArray[np.int64], low: float, high: float) -> float:
    """Return lam with sum(times x / (1 + lam x)) = 0, or its limit -1 / low or -1 / high (rounded inwards)."""

    def mean(lam: float) -> float:
        return float(np.sum(times * x / (1.0 + lam * x)))

    rising = mean(0.0) > 0.0
    limit = -(1.0 - 1e-12) / (low if rising else high)
    if (mean(limit) > 0.0) == rising:
        return limit
    return root(mean, 0.0, limit, xtol=1e-14 * abs(limit))


def _excess(theta: float, sample: _Sample, z: float) -> float:
    """Return by how much the test of theta exceeds its critical value: |T| / sd - z - skewness (z^2 - 1) / 6."""
    moved = sample.total_attacked - theta * sample.total
    if abs(moved) <= 1e-12 * sample.total:
        return -z
    variance, third = sample.moments(theta)
    sd = math.sqrt(variance)
    skewness = math.copysign(1.0, moved) * third / sd**3
    return abs(moved) / sd - z - max(0.0, skewness) * max(0.0, z * z - 1.0) / 6.0


def _interval(sample: _Sample, z: float) -> _Ends:
    """Return the thetas around the estimate that are not rejected, 0 and infinity included."""

    def excess(u: float) -> float:  # u = theta / (1 + theta): exchanging clean and attacked gives 1 - u
        return _excess(u / (1.0 - u), sample, z)

    middle, ends = sample.theta / (1.0 + sample.theta), []
    for edge, beyond in ((_EDGE, 0.0), (1.0 - _EDGE, math.inf)):
        if (middle - edge) * (0.5 - edge) <= 0.0 or excess(edge) <= 0.0:
            ends.append(beyond)
        else:
            u = root(excess, edge, middle, xtol=1e-13)
            ends.append(u / (1.0 - u))
    return ends[0], ends[1]


def _outermost(ends: Sequence[_Ends]) -> _Ends:
    return min(low for low, _ in ends), max(high for _, high in ends)


# -------------------------------------------------------------------------------------------------------- two samples


def _mover(one: _Sample, two: _Sample, z: float) -> _Ends:
    """Return the interval of two.theta - one.theta = PDR of one - PDR of two (Zou 2008, equation 15 with a sign)."""
    (low1, high1), (low2, high2) = _interval(one, z), _interval(two, z)
    value, r = two.theta - one.theta, _correlation(one, two, 0.5 * z * z)
    low, high = _across(two.theta - low2, high1 - one.theta, r), _across(high2 - two.theta, one.theta - low1, r)
    return value - low, value + high


def _across(a: float, b: float, r: float) -> float:
    """Return sqrt(a^2 + b^2 - 2 r a b)."""
    return math.inf if math.isinf(a) or math.isinf(b) else math.sqrt(max(a * a + b * b - 2.0 * r * a * b, 0.0))


def _correlation(one: _Sample, two: _Sample, unseen: float) -> float:
    """Return the correlation of the two estimates, each with `unseen` items that differ beside those seen."""
    own = [float(x.influence @ x.influence) + unseen * x.size**2 for x in (one, two)]
    return float(one.influence @ two.influence) / math.sqrt(own[0] * own[1]) if min(own) > 0.0 else 0.0


def _standard_error(moves: Array, samples: Sequence[_Sample]) -> float:
    """Return the root of the summed squares of what each cluster moves an estimate by, at least that of `_PSEUDO`."""
    least = _PSEUDO * math.fsum((sample.size / sample.total) ** 2 for sample in samples)
    return math.sqrt(max(float(moves @ moves), least))


def _p_value(interval: Callable[[float], _Ends]) -> float:
    """Return 2 Phi(-z) of the z at which the interval's nearer end touches 0; 1 where it holds 0 at any z."""

    def apart(z: float) -> float:
        low, high = interval(z)
        return max(low, -high, -1.0)

    near, far = 1e-3, 2.0
    if apart(near) <= 0.0:
        return 1.0
    while apart(far) > 0.0:
        near, far = far, 2.0 * far
        if near > _CERTAIN:
            return math.erfc(_CERTAIN / math.sqrt(2))
    z = root(apart, near, far, xtol=1e-10)
    return math.erfc(z / math.sqrt(2))


# ------------------------------------------------------------------------------------------- other sources of chance


def moves(mean: Scores, one: Scores) -> Array:
    """Return what each item moves PDR by in one draw (or mask) beside the mean over them (times n, to first order)."""
    base = float(np.mean(mean.clean))
    theta = float(np.mean(mean.attacked)) / base
    return np.asarray((theta * np.asarray(one.clean) - np.asarray(one.attacked)) / base)


def widened(at: Callable[[float], Ratio], sources: Sequence[VarianceSource]) -> Ratio:
    """Return a ratio whose interval holds further sources of variance: half widths are added as squares (Zou 2008).

    `at` gives the ratio with its interval over items at a level. A p that it has becomes that of the new interval.
    """
    ratio = at(LEVEL)
    value = ratio.value
    if value is None or not sources:
        return ratio

    def ends(level: float) -> _Ends:
        own, tail = at(level), 0.5 - level / 2
        reach = math.hypot(*(float(scipy.special.stdtrit(s.freedom, tail)) * math.sqrt(s.variance) for s in sources))
        return value - math.hypot(value - own.low, reach), value + math.hypot(own.high - value, reach)

    (low, high), p = ends(LEVEL), ratio.p
    if p is not None:
        p = max(p, _p_value(lambda z: ends(math.erf(min(z, _MOST) / math.sqrt(2)))))
    se = math.sqrt((ratio.se or 0.0) ** 2 + sum(source.variance for source in sources))
    how = f"{ratio.how}, {1 + min(int(source.freedom) for source in sources)} masks or draws"
    return replace(ratio, low=low, high=high, p=p, se=se, how=how)


# ------------------------------------------------------------------------------------------------------------- input


def _samples(models: Sequence[Scores], clusters: Sequence[Hashable] | None, missing: int) -> list[_Sample]:
    arrays = [np.asarray(x, dtype=float) for model in models for x in (model.clean, model.attacked)]
    lengths = [len(x) for x in arrays] + ([len(clusters)] if clusters is not None else [])
    if len(set(lengths)) > 1:
        raise ValueError(f"the items differ in number: {lengths}; give each item's scores, and cluster, in one order")
    if any(not bool(((x >= 0.0) & (x <= 1.0)).all()) for x in arrays):
        raise ValueError("a score is outside 0 to 1 (or not a number); leave such items out and count them as missing")
    if missing < 0:
        raise ValueError(f"missing is {missing}; it must be 0 or more")
    size = 1.0
    if clusters is not None and len(clusters):
        known = {label: k for k, label in enumerate(dict.fromkeys(clusters))}
        index = np.array([known[label] for label in clusters])
        counts = np.bincount(index)
        size = float((counts**2).sum() / counts.sum())
        arrays = [np.bincount(index, weights=x) for x in arrays]
    return [_Sample(c, a, size) for c, a in zip(arrays[::2], arrays[1::2], strict=True)]


def _undefined(samples: Sequence[_Sample]) -> str | None:
    if not len(samples[0].clean):
        return "no item is scored"
    return None if all(sample.clean.any() for sample in samples) else _NONE_RIGHT


def _how(samples: Sequence[_Sample], clusters: Sequence[Hashable] | None) -> str:
    name = "Nam-Blackwelder score" if all(sample.cells for sample in samples) else "restricted-likelihood score"
    over = "" if clusters is None else f" over {len(samples[0].clean)} clusters"
    return f"{name} interval, skewness-corrected{over}"
