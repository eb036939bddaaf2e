"""Does a merge beat the better single model, on average over benchmarks and in the worst of them?

Both are of scores in percent of each benchmark's better parent (`stats.joint`): a model's mean and minimum over these.
The better single model is the parent whose own mean (or minimum) is the highest. An example: lm is right on 80 % and
20 % of two benchmarks, math on 0 % and 80 %, a merge on 60 % and 60 %. The better parents are right on 80 and 80 %, so
lm has 100 and 25 %, math 0 and 100 %, the merge 75 and 75 %. The better mean is that of lm, 62.5: the merge gains 12.5
on average. The better minimum is that of lm, 25: the merge gains 50 in the worst benchmark. With one benchmark the
score stays as it is, and mean and minimum are the same.

Both differences are extremes of contrasts: with d[j] = mean of merge - parent j the first is min_j d[j]; with d[j,b,c]
= merge on b - parent j on c the second is min_j min_b max_c d[j,b,c]. The same extremes of the contrasts' lower ends,
and of their upper ends, hold the difference where all contrasts hold theirs (the intersection bounds of `stats.joint`).
So with Bonferroni over contrasts and merges, all intervals of all merges hold at once with 95 %, and any merge may be
picked out after looking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from m3_exp.stats.estimate import LEVEL, Array
from m3_exp.stats.joint import Unit, within


@dataclass(frozen=True, eq=False)
class Model:
    """A model's item values (n,) on one benchmark, and the unit of its score there."""

    values: Array
    unit: Unit

    @cached_property
    def score(self) -> float:
        """Its score in its unit."""
        return self.unit.ratio(self.values)

    @cached_property
    def errors(self) -> Array:
        """Each independent item's influence on the score; that on a difference of scores is the difference of these."""
        return self.unit.errors(self.values)


@dataclass(frozen=True)
class Trial:
    """A merge and its parents on the items of one benchmark that all of them have; `lost`: the share without."""

    merge: Model
    parents: Mapping[str, Model]
    lost: float = 0.0


@dataclass(frozen=True)
class Gain:
    """What a merge scores above the better parent, with an interval that holds for all merges of its family at once."""

    parent: str
    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the merge is better for sure."""
        return self.low > 0


Contrast = tuple[float, float, float]  # a difference and the ends of its interval


def on_average(trials: Sequence[Trial], merges: int) -> Gain:
    """Return a merge's mean over benchmarks less that of the better parent; it is one of `merges`."""
    parents, count = trials[0].parents, len(trials)
    level = _level(merges * len(parents) * min(2, count))
    found = {}
    for name in parents:
        value = float(np.mean([one.merge.score - one.parents[name].score for one in trials]))
        errors = np.concatenate([one.merge.errors - one.parents[name].errors for one in trials])
        found[name] = _contrast(value, float(errors @ errors) / count**2, trials, level)
    return _least(found)


def in_the_worst(trials: Sequence[Trial], merges: int) -> Gain:
    """Return a merge's minimum over benchmarks less that of the parent with the better minimum."""
    if len(trials) == 1:
        return on_average(trials, merges)
    parents = trials[0].parents
    level = _level(2 * merges * len(parents) * len(trials))
    found = {}
    for name in parents:
        highest = [np.max([_between(here, there, name, level) for there in trials], axis=0) for here in trials]
        value, low, high = map(float, np.min(highest, axis=0))
        found[name] = value, low, high
    return _least(found)


def _between(here: Trial, there: Trial, name: str, level: float) -> Contrast:
    """Return the merge on one benchmark less a parent on another one (or the same), each in its unit."""
    merge, parent = here.merge, there.parents[name]
    if here is there:
        errors = merge.errors - parent.errors
        return _contrast(merge.score - parent.score, float(errors @ errors), [here], level)
    variance = float(merge.errors @ merge.errors + parent.errors @ parent.errors)
    value, low, high = _contrast((merge.score - parent.score) / 2, variance / 4, [here, there], level)
    return 2 * value, 2 * low, 2 * high


def _contrast(value: float, variance: float, trials: Sequence[Trial], level: float) -> Contrast:
    mean = within(value, variance, [one.merge.unit for one in trials], signed=True)
    low, high = replace(mean, missing=max(one.lost for one in trials)).ends(level)
    return mean.value, low, high


def _least(by_parent: Mapping[str, Contrast]) -> Gain:
    better = min(by_parent, key=lambda name: by_parent[name][0])
    return Gain(better, *(min(ends) for ends in zip(*by_parent.values(), strict=True)))


def _level(contrasts: int) -> float:
    """Return the level of each of so many intervals that hold all at once; mean and minimum are two questions."""
    return 1 - (1 - LEVEL) / contrasts
