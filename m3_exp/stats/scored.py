"""Scores of single answers -> what each item counts in a result's score, and from it that score with its interval.

New results and comparisons of stored ones both use this. So an interval that was stored with a result is never needed.

An item counts as the mean over its samples; under pass@k (k > 1) as the unbiased estimate of k samples (Chen et al.
2021). Where it was attacked (versions `ITEM@seedK`) it counts as the mean over the attacked versions; the clean version
then only says whether the item counts at all.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from m3_exp.reading.scores import column, distinct, mentioned, noted_as
from m3_exp.stats.estimate import EVEN, Array, Estimate, Shape, even_shares, mean
from m3_exp.types import ResultRecord, Score

LEFT_OUT, TASK, PROBLEM = "left_out", "task", "problem"  # the notes of a score that are read here
_ATTACKED = re.compile(r"(.+)@seed\d+")
_PASS_AT = re.compile(r"pass@(\d+)")


class Names(dict[str, str]):
    """What items are named in, by id; made once for the results of one item set, and hashed as the object it is."""

    __hash__ = object.__hash__  # type: ignore[assignment]


_NONE = Names()


class ItemArray(Mapping[str, float]):
    """What items count by id: an array (n,) beside the ids, which the results of one item set share."""

    def __init__(self, ids: tuple[str, ...], array: Array) -> None:
        self.ids, self.array = ids, array

    @cached_property
    def _places(self) -> dict[str, int]:
        return _places(self.ids)

    def __getitem__(self, key: str) -> float:
        return float(self.array[self._places[key]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, key: object) -> bool:
        return key in self._places


def aligned(values: Mapping[str, float], ids: Sequence[str]) -> Array:
    """Return values in the order of `ids`, (n,).

    Raises:
        KeyError: one has no value.
    """
    if isinstance(values, ItemArray):
        return values.array[_order(values.ids, tuple(ids))]
    return np.array(list(map(values.__getitem__, ids)), dtype=float)


def in_common(models: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the ids that all of several models have, sorted."""
    different = {id(one.ids): one for one in models if isinstance(one, ItemArray)}
    others = [one for one in models if not isinstance(one, ItemArray)]
    return sorted(set.intersection(*map(set, [*different.values(), *others])))


@lru_cache(maxsize=256)
def _places(ids: tuple[str, ...]) -> dict[str, int]:
    return {key: place for place, key in enumerate(ids)}


@lru_cache(maxsize=256)
def _order(ids: tuple[str, ...], wanted: tuple[str, ...]) -> NDArray[np.int64]:
    return np.array(list(map(_places(ids).__getitem__, wanted)), dtype=np.int64)


@lru_cache(maxsize=256)
def _sorted(ids: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(ids))


@dataclass(frozen=True)
class Scored:
    """The items of a result: `values` maps an id to what it counts in the score, from 0 to 1.

    `unscored` items were asked for and have no value. `strata` (id -> task) are there where the score is the mean of
    the tasks' means, else empty. `clusters` (id -> problem) name items that may share a problem; any other item is its
    own cluster.
    """

    values: Mapping[str, float]
    unscored: int = 0
    strata: Mapping[str, str] = _NONE
    clusters: Mapping[str, str] = _NONE

    def shape(self, ids: Sequence[str]) -> Shape:
        """Return how these items make a score; tasks and clusters that make no difference are left out."""
        if not self.strata and not self.clusters:
            return EVEN
        if isinstance(self.strata, Names) and isinstance(self.clusters, Names):
            return _shared_shape(tuple(ids), self.strata, self.clusters)
        return _shape(ids, self.strata, self.clusters)

    def estimate(self) -> Estimate:
        """Return the score with its interval, from 0 to 1.

        Raises:
            ValueError: no item has a value.
        """
        ids = self.values.ids if isinstance(self.values, ItemArray) else tuple(self.values)
        ids = _sorted(ids)  # whatever order they were stored in, the sums round alike
        return mean(aligned(self.values, ids), self.shape(ids), unscored=self.unscored)

    def percent(self) -> Estimate | None:
        """Return the score with its interval in percent; None where no item has a value."""
        return self._percent

    @cached_property
    def _percent(self) -> Estimate | None:
        return self.estimate().scaled(100) if self.values else None

    def by_task(self) -> dict[str, list[float]]:
        """Return the values of each task, in the order of their names."""
        tasks: dict[str, list[float]] = {}
        for key, value in self.values.items():
            tasks.setdefault(self.strata[key], []).append(value)
        return dict(sorted(tasks.items()))


def _shape(ids: Sequence[str], strata: Mapping[str, str], clusters: Mapping[str, str]) -> Shape:
    """Return how items make a score, given the tasks and the problems of those that have one."""
    tasks = tuple(strata[key] for key in ids) if strata else ()
    problems = tuple(f"problem {clusters[key]}" if key in clusters else f"item {key}" for key in ids)
    several, together = len(set(tasks)) > 1, len(set(problems)) < len(problems)
    if not several and not together:
        return EVEN
    return Shape(even_shares(tasks) if several else None, tasks if several else None, problems if together else None)


_shared_shape = lru_cache(maxsize=64)(_shape)  # of the results of one item set


def scored(record: ResultRecord) -> Scored:
    """Return the items of a stored record: its `scores`, read by the `metric` and the `details` of its `result`.

    They are kept beside the record: a page asks for them five times.
    """
    if "_scored" not in vars(record):
        items = of_scores(record.scores, record.result.metric, by_task="by_task" in record.result.details)
        vars(record)["_scored"] = items
    return cast(Scored, vars(record)["_scored"])


def of_scores(scores: Sequence[Score], metric: str = "", *, by_task: bool = False) -> Scored:
    """Return the items of scores, without those that carry the note `left_out`. `by_task`: a mean of tasks' means.

    Raises:
        ValueError: an item has fewer than the k samples of pass@k.
    """
    k = int(asked[1]) if (asked := _PASS_AT.fullmatch(metric)) else 1
    if k == 1 and (once := _answered_once(scores, by_task=by_task)) is not None:
        return once
    counted = _attacked([score for score in scores if LEFT_OUT not in score.notes])
    samples: dict[str, list[float | None]] = {}
    for key, score in counted:
        samples.setdefault(key, []).append(score.value)
    known = {key: [v for v in own if v is not None] for key, own in samples.items() if None not in own}
    values = {key: math.fsum(v) / len(v) if k == 1 else pass_at_k(v, k) for key, v in known.items()}
    strata = _noted(counted, TASK) if by_task else {}
    return Scored(values, len(samples) - len(values), strata, _noted(counted, PROBLEM))


def _answered_once(scores: Sequence[Score], *, by_task: bool) -> Scored | None:
    """Return the items of scores that are one each, by columns: a large store has millions. None of any others."""
    ids, values = tuple(column(scores, "id")), column(scores, "value")
    if any(distinct(scores, "sample")) or _several(ids):
        return None
    if not mentioned(scores, (LEFT_OUT,)):
        known = _known(ids, values)
        tasks = _named_in(scores, ids, TASK) if by_task else _NONE
        return Scored(known, len(ids) - len(known), tasks, _named_in(scores, ids, PROBLEM))
    rows = zip(ids, values, column(scores, "notes"), strict=True)
    counted = [row for row in rows if LEFT_OUT not in row[2]]
    known = _known(tuple(key for key, _, _ in counted), [value for _, value, _ in counted])
    ids, notes = tuple(key for key, _, _ in counted), [own for _, _, own in counted]
    tasks = _names(ids, tuple(own.get(TASK) for own in notes)) if by_task else _NONE
    return Scored(known, len(counted) - len(known), tasks, _names(ids, tuple(own.get(PROBLEM) for own in notes)))


def _named_in(scores: Sequence[Score], ids: tuple[str, ...], note: str) -> Names:
    return _names(ids, noted_as(scores, note)) if mentioned(scores, (note,)) else _NONE


@lru_cache(maxsize=64)
def _names(ids: tuple[str, ...], names: tuple[object, ...]) -> Names:
    """Return what items are named in, one object for all results of one item set."""
    return Names((key, str(name)) for key, name in zip(ids, names, strict=True) if name is not None)


def _known(ids: tuple[str, ...], values: Sequence[float | None]) -> ItemArray:
    """Return the items that have a value."""
    if None in values:
        ids = tuple(key for key, value in zip(ids, values, strict=True) if value is not None)
        values = [value for value in values if value is not None]
    return ItemArray(ids, np.array(values, dtype=float))


@lru_cache(maxsize=64)
def _several(ids: tuple[str, ...]) -> bool:
    """Tell whether an item is there more than once: sampled again, or under attack."""
    return len(set(ids)) < len(ids) or any(map(is_attacked, ids))


def pass_at_k(samples: Sequence[float], k: int) -> float:
    """Return the unbiased estimate of the chance that one of k samples is right, 1 - C(n - c, k) / C(n, k).

    Raises:
        ValueError: there are fewer than k.
    """
    n, right = len(samples), round(sum(samples))
    if n < k:
        raise ValueError(f"pass@{k} needs at least {k} samples of an item, one has {n}")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


@lru_cache(maxsize=64)
def any_attacked(ids: tuple[str, ...]) -> bool:
    return any("@" in key and is_attacked(key) for key in ids)


def is_attacked(key: str) -> bool:
    """Tell whether an item is one under attack (`ITEM@seedK`)."""
    return _ATTACKED.fullmatch(key) is not None


def _attacked(scores: Sequence[Score]) -> list[tuple[str, Score]]:
    """Return scores with their items' names: all, or the attacked ones only, unscored where the clean item is."""
    versions = [(match[1], score) for score in scores if (match := _ATTACKED.fullmatch(score.id))]
    if not versions:
        return [(score.id, score) for score in scores]
    clean = {score.id for score in scores if score.value is not None}
    return [(key, score if key in clean else Score(key, None, notes=score.notes)) for key, score in versions]


def _noted(counted: Sequence[tuple[str, Score]], name: str) -> dict[str, str]:
    return {key: str(score.notes[name]) for key, score in counted if name in score.notes}
