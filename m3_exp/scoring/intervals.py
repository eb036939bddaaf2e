"""95 % intervals of means: Wilson's (1927) for proportions, Student's t for everything else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean with the ends of its interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def wilson(share: float, n: float, level: float = 0.95) -> Interval:
    """Return the Wilson score interval of a proportion (0 to 1) of `n`, a sample size that need not be whole.

    Raises:
        ValueError: not 0 <= share <= 1, or n is not above 0.
    """
    from scipy.special import ndtri  # not scipy.stats or statsmodels, which take seconds to import

    if not (0 <= share <= 1 and n > 0):
        raise ValueError(f"{share} of {n} is not a proportion")
    z = float(ndtri(0.5 + level / 2))
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if share == 0 else (middle - half) / scale
    high = 1.0 if share == 1 else (middle + half) / scale
    return Interval(share, low, high)


def student(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return the t interval of a mean; one value alone has no interval but the whole range of 0 to 1.

    Ends are cut to 0 and 1, between which item values lie.
    """
    from scipy.special import stdtrit

    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, 0.0, 1.0)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * math.sqrt(variance / n)
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return the mean of item values (0 to 1) with its interval: Wilson where all are 0 or 1, else Student's t.

    Raises:
        ValueError: there are no values, or one lies outside 0 to 1.
    """
    if not values or not all(0.0 <= value <= 1.0 for value in values):
        raise ValueError("item values must lie between 0 and 1, and there must be at least one")
    if all(value in (0.0, 1.0) for value in values):
        return wilson(math.fsum(values) / len(values), len(values), level)
    return student(values, level)
