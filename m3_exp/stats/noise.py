"""What an evaluation changes when it is repeated: from how far each verdict rose, to the noise floor of a difference.

If f of n verdicts flip, each up or down by chance, the difference of the two scores (plain means) has the standard
deviation sqrt(f) / n, and so has that of any two models of that kind, each evaluated once. f is counted on n verdicts,
so the deviation is an estimate with an interval, that of the flips; none of n is no proof of none.

`steps`: how far each verdict rose, one mapping a repeat, by item and sample; what is of one item is one cluster.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from m3_exp.stats.estimate import Estimate, Shape, mean

Steps = Mapping[tuple[str, int], float]


def rate(repeats: Sequence[Steps]) -> Estimate:
    """Return the share of flipped verdicts over some repeats."""
    return _over_items(repeats, lambda step: float(step != 0))


def noise_floor(repeats: Sequence[Steps]) -> Estimate:
    """Return the standard deviation of a difference of two scores that batches alone make, over one cell's verdicts.

    The root of the mean squared change (of 0/1 verdicts: the share of flips) over the verdicts, and so are its ends.
    """
    found = _over_items(repeats, lambda step: step * step)
    each = sum(map(len, repeats)) / len(repeats)
    value, low, high = (math.sqrt(max(0.0, x) / each) for x in (found.value, found.low, found.high))
    return Estimate(value, low, high, found.n, "root of the mean squared change")


def _over_items(repeats: Sequence[Steps], of: Callable[[float], float]) -> Estimate:
    values = [of(step) for steps in repeats for step in steps.values()]
    return mean(np.array(values), Shape(clusters=[str(item) for steps in repeats for item, _ in steps]))
