"""Is a difference real? Paired contrasts of item scores, adjusted for how many were looked at.

Binary scores: Tango's score interval (1998) of the difference of two paired proportions and McNemar's mid-p test (as
recommended by Fagerland, Lydersen and Laake 2013). Others: the paired bootstrap (BCa, scipy) and a sign-flip test;
where fewer than 10 items differ, too few to resample, Tango's interval of their signs in units of their root mean
square. All scores lie between 0 and 1; differences are a - b in the same unit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

Array = NDArray[np.float64]
LEVEL = 0.95
_RESAMPLES = 4999
FEW = 10  # items that differ, below which resampling them is too sure
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Contrast:
    """One paired difference over `n` items with its 95 % interval and two-sided p-value, and by which method.

    `detectable` is the difference that such a comparison finds with a power of 80 % at the discordance seen.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int
    discordant: int
    method: str
    detectable: float

    @property
    def real(self) -> bool:
        """Whether the test alone, not adjusted for others, excludes no difference at 5 %."""
        return self.p < 1 - LEVEL


def mean_interval(values: Array, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of a mean of item values between 0 and 1: Wilson's, at the effective number of items.

    The effective number is n p (1 - p) / s^2, with s^2 the items' variance (Korn and Graubard's way for surveys): n for
    0/1 values, more where values are means over draws and so vary less. Where nothing varies it is n.
    """
    n, p = len(values), float(np.mean(values))
    variance = float(np.mean((values - p) ** 2))
    effective = n * p * (1 - p) / variance if variance > 0 else float(n)
    return wilson(p, effective, level)


def wilson(p: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion of `n`, which need not be whole; never a point at 0 or 1."""
    low, high = proportion_confint(p * n, n, alpha=1 - level, method="wilson")
    return (0.0 if p == 0 else max(0.0, float(low))), (1.0 if p == 1 else min(1.0, float(high)))


def contrast(first: Mapping[str, float], second: Mapping[str, float], *, seed: int = 0) -> Contrast:
    """Compare two sets of item scores over the items that both have.

    Raises:
        ValueError: no item is in both.
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise ValueError("no item is scored in both: nothing can be paired")
    return paired(np.array([first[i] for i in shared]), np.array([second[i] for i in shared]), seed=seed)


def paired(a: Array, b: Array, *, seed: int = 0) -> Contrast:
    """Compare two aligned arrays of item scores."""
    d = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    n, discordant = len(d), int(np.count_nonzero(d))
    if bool(np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all()):
        gained, lost = int((d > 0).sum()), int((d < 0).sum())
        low, high = tango(gained, lost, n)
        p, method = mid_p(gained, lost), "Tango, mid-p McNemar"
    elif few(d):
        low, high = scaled_tango(d)
        p, method = sign_flip(d, seed=seed), "Tango on the signs x root mean square, sign flips"
    else:
        low, high = bootstrap(d, seed=seed)
        p, method = sign_flip(d, seed=seed), "paired bootstrap (BCa), sign flips"
    spread = float(np.mean(d**2))
    return Contrast(float(d.mean()), low, high, p, n, discordant, method, detectable(spread, n))


def tango(gained: int, lost: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return Tango's score interval of a difference of paired proportions, (gained - lost) / n.

    `gained` items are right in the first only, `lost` in the second only, of `n`.

    Raises:
        ValueError: the counts are impossible.
    """
    if min(gained, lost) < 0 or gained + lost > n or n < 1:
        raise ValueError(f"gained {gained}, lost {lost} of {n} is impossible")
    z = float(special.ndtri(0.5 + level / 2))
    estimate = (gained - lost) / n

    def score(delta: float) -> float:
        """The score statistic for a true difference delta; falls from above z to below -z."""
        b = -gained - lost + (2 * n - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        q = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        return (gained - lost - n * delta) / math.sqrt(max(variance, 1e-300))

    edge = 1 - 1e-12
    low = -1.0 if gained - lost == -n else optimize.brentq(lambda x: score(x) - z, -edge, estimate)
    high = 1.0 if gained - lost == n else optimize.brentq(lambda x: score(x) + z, estimate, edge)
    return float(low), float(high)


def few(d: Array) -> bool:
    """Whether too few items differ for resampling to know how sure their mean is."""
    return int(np.count_nonzero(np.abs(d) > _ROUNDING)) < FEW


def scaled_tango(d: Array) -> tuple[float, float]:
    """Return the interval of a mean of differences of which few are not 0: Tango's of their signs, in units of their
    root mean square and around their mean (signs alone have another where gains and losses differ in size).

    Simulated, 96 and 164 items: it holds the truth in 94 to 98 %; in 75 % where losses are rare and six times as large
    as gains, which no few items can show.
    """
    moved = d[np.abs(d) > _ROUNDING]
    gained, lost = int((moved > 0).sum()), int((moved < 0).sum())
    size = float(np.sqrt(np.mean(moved**2))) if len(moved) else 1.0
    shift = float(moved.sum() - size * (gained - lost)) / len(d)
    low, high = tango(gained, lost, len(d))
    return max(-1.0, size * low + shift), min(1.0, size * high + shift)


def mid_p(gained: int, lost: int) -> float:
    """Return McNemar's mid-p value: the exact one less half the probability of what was seen. 1 with no discordance."""
    n, least = gained + lost, min(gained, lost)
    if n == 0:
        return 1.0
    return float(min(1.0, 2 * stats.binom.cdf(least, n, 0.5) - stats.binom.pmf(least, n, 0.5)))


def bootstrap(d: Array, *, level: float = LEVEL, seed: int = 0) -> tuple[float, float]:
    """Return the BCa interval of a mean of paired differences; Student's t where resampling cannot vary."""
    if len(d) < 2 or float(np.ptp(d)) == 0.0:
        return (float(d[0]), float(d[0])) if len(d) > 1 else (-1.0, 1.0)
    found = stats.bootstrap(
        (d,), np.mean, confidence_level=level, n_resamples=_RESAMPLES, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    if math.isnan(found.low) or math.isnan(found.high):
        half = float(stats.t.ppf(0.5 + level / 2, len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d)))
        return float(d.mean()) - half, float(d.mean()) + half
    return float(found.low), float(found.high)


def sign_flip(d: Array, *, seed: int = 0) -> float:
    """Return the two-sided p-value of mean 0 under random signs of the differences (with the observed one counted)."""
    moved = d[d != 0]
    if not len(moved):
        return 1.0
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(_RESAMPLES, len(moved)))
    seen = abs(float(moved.sum())) - 1e-12
    return float((1 + np.count_nonzero(np.abs(signs @ moved) >= seen)) / (_RESAMPLES + 1))


def detectable(discordance: float, n: int, power: float = 0.8, level: float = LEVEL) -> float:
    """Return the smallest difference that n pairs detect with `power`, at a mean squared difference `discordance`.

    For binary scores `discordance` is the share of items that differ (Connor 1987): n d^2 = (z_level sqrt(psi) +
    z_power sqrt(psi - d^2))^2. 0 where nothing differs: then nothing is known about it either.
    """
    if discordance <= 0:
        return 0.0
    strict, wanted = float(special.ndtri(0.5 + level / 2)), float(special.ndtri(power))

    def short(d: float) -> float:
        need = strict * math.sqrt(discordance) + wanted * math.sqrt(max(0.0, discordance - d * d))
        return d * math.sqrt(n) - need

    top = math.sqrt(discordance)
    return top if short(top) < 0 else float(optimize.brentq(short, 0.0, top))


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979), in the order given."""
    return [float(q) for q in multipletests(p, method="holm")[1]] if len(p) else []


def best_of(n: int) -> float:
    """Return the expected maximum of n independent standard normal scores: 1.35 for the paper's seven alphas."""
    grid = np.linspace(-10, 10, 200_001)
    density = n * stats.norm.pdf(grid) * stats.norm.cdf(grid) ** (n - 1)
    return float(np.trapezoid(grid * density, grid))


def selection_price(scores: Array) -> float:
    """Return what picking the best of several columns on the test items gains by chance alone.

    best_of(columns) x SE x sqrt(1 - rho): SE the mean standard error of the columns' means, rho their mean correlation
    over items. `scores`: shape (n, columns), from 0 to 1; 0 where nothing varies.
    """
    n, columns = scores.shape
    if n < 2 or columns < 2:
        return 0.0
    covariance = np.cov(scores, rowvar=False)
    own = float(np.mean(np.diag(covariance)))
    shared = float((covariance.sum() - np.trace(covariance)) / (columns * (columns - 1)))
    return best_of(columns) * math.sqrt(max(0.0, own - shared) / n)
