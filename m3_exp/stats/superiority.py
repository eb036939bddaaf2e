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
from dataclasses import dataclass

from m3_exp.stats.estimate import LEVEL, Array, Mean
from m3_exp.stats.joint import Unit, mean_of


@dataclass(frozen=True)
class Trial:
    """A merge and its parents on the items (n,) of one benchmark that all of them have; `lost`: the share without."""

    merge: Array
    parents: Mapping[str, Array]
    unit: Unit
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


@dataclass(frozen=True)
class _Contrast:
    value: float
    low: float
    high: float


def on_average(trials: Sequence[Trial], merges: int) -> Gain:
    """Return a merge's mean over benchmarks less that of the better parent; it is one of `merges`."""
    parents = list(trials[0].parents)
    level = _level(merges * len(parents) * _questions(trials))
    lost, units = max(one.lost for one in trials), [one.unit for one in trials]
    found = {}
    for name in parents:
        differences = [one.merge - one.parents[name] for one in trials]
        found[name] = _at(mean_of(differences, units, signed=True, unscored=lost), level)
    return _least(found)


def in_the_worst(trials: Sequence[Trial], merges: int) -> Gain:
    """Return a merge's minimum over benchmarks less that of the parent with the better minimum."""
    if len(trials) == 1:
        return on_average(trials, merges)
    parents = list(trials[0].parents)
    level = _level(merges * len(parents) * len(trials) * _questions(trials))
    found = {}
    for name in parents:
        least = [_highest([_between(here, there, name, level) for there in trials]) for here in trials]
        found[name] = _Contrast(*(min(ends) for ends in zip(*least, strict=True)))
    return _least(found)


def _between(here: Trial, there: Trial, name: str, level: float) -> _Contrast:
    """Return the merge on one benchmark less a parent on another (or the same), each in its unit."""
    if here is there:
        return _at(mean_of([here.merge - here.parents[name]], [here.unit], signed=True, unscored=here.lost), level)
    half = mean_of([here.merge, -there.parents[name]], [here.unit, there.unit], signed=True,
                   unscored=max(here.lost, there.lost))  # fmt: skip
    found = _at(half, level)
    return _Contrast(2 * found.value, 2 * found.low, 2 * found.high)


def _highest(contrasts: Sequence[_Contrast]) -> tuple[float, float, float]:
    return max(c.value for c in contrasts), max(c.low for c in contrasts), max(c.high for c in contrasts)


def _least(by_parent: Mapping[str, _Contrast]) -> Gain:
    better = min(by_parent, key=lambda name: by_parent[name].value)
    every = by_parent.values()
    return Gain(better, by_parent[better].value, min(c.low for c in every), min(c.high for c in every))


def _at(mean: Mean, level: float) -> _Contrast:
    return _Contrast(mean.value, *mean.ends(level))


def _level(contrasts: int) -> float:
    return 1 - (1 - LEVEL) / contrasts


def _questions(trials: Sequence[Trial]) -> int:
    """Return how many questions share the 5 %: mean and minimum; one benchmark asks once."""
    return min(2, len(trials))
