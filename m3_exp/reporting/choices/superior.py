"""Tidy frame -> what each merge gains on the better single model, on average over benchmarks and in the worst of them.

How it is measured: `stats/superiority.py`. A merge is one set of weights with results on every benchmark that a single
model of its pair can be a unit of (`joint.usable`). lambda 0 and 1 are no merges, nor is what has a single model's
weights. Where a single model is not evaluated on one of these benchmarks (in Table 1 those of other skills), merges are
compared with the better single model of each benchmark, which is harder to beat.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from m3_exp.stats.estimate import Array
from m3_exp.stats.joint import ENOUGH, Unit, better_of, usable
from m3_exp.stats.scored import Scored
from m3_exp.stats.superiority import Gain, Trial, in_the_worst, on_average

EACH = ""  # the name of the better single model of each benchmark
_MERGE = ["method", "params", "sparsify", "mask_seed", "ratio", "alpha", "draw", "lam"]


@dataclass(frozen=True, eq=False)
class Merge:
    """A merge of a pair on the benchmarks that it is compared on, of those that it was evaluated on."""

    name: str
    pair: str
    benchmarks: tuple[str, ...]
    of: int
    trials: tuple[Trial, ...]


@dataclass(frozen=True, eq=False)
class Superior:
    """A merge and what it gains on the better single model; `copy`: it answers as one of them does, item by item."""

    merge: Merge
    mean: Gain
    least: Gain

    @property
    def copy(self) -> bool:
        trials = self.merge.trials
        return any(all(np.array_equal(t.merge, t.parents[name]) for t in trials) for name in trials[0].parents)


@dataclass(frozen=True)
class Why:
    """Why nothing can be compared, and whether the single models or the merges must be evaluated for it."""

    text: str
    lacking: Literal["single models", "merges", "items"]


@dataclass(frozen=True)
class Found:
    """The merges of a frame that can be compared, but for copies of single models; why there is none, if so.

    `count`: as many intervals hold at once, those of copies among them. `lost`: as many merges lack a result.
    """

    merges: tuple[Superior, ...]
    count: int
    lost: int
    why: Why | None


def superior(merged: pd.DataFrame, single: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> Found:
    """Compare every merge with the single models of its pair, all intervals at once.

    Args:
        merged: the lines of merges. `single`: those of single models.
        parents: each pair's experts, as single models are called.
    """
    merges: list[Merge] = []
    lost, whys = 0, list[Why]()
    for (name, pair), rows in merged.groupby(["family", "pair"], sort=False):
        experts = parents[str(pair)]
        alone = single[(single["family"] == name) & single["pair"].isin(list(experts))]
        alone = alone[alone["benchmark"].isin(set(rows["benchmark"])) & alone["score"].notna()]
        found = list(_merges(rows, alone, experts))
        merges += [one for one in found if one.trials]
        lost += sum(not one.trials for one in found)
        whys.append(_why(alone, experts))
    count = len(merges)
    known = [Superior(one, on_average(one.trials, count), in_the_worst(one.trials, count)) for one in merges]
    shown = [one for one in known if not one.copy]
    return Found(tuple(shown), count, lost, None if shown else _COPIES if known else whys[0])


_COPIES = Why("each merge answers as one of them does", "merges")


def _why(alone: pd.DataFrame, experts: Sequence[str]) -> Why:
    """Say why a pair's merges cannot be compared with its single models, if they cannot."""
    if not len(alone):
        return Why(f"{' and '.join(experts)} are not evaluated alone", "single models")
    if not _alone(alone):
        return Why(f"no single model is right on {ENOUGH} items of a benchmark", "items")
    return Why("no merge has a result on every benchmark", "merges")


@dataclass(frozen=True, eq=False)
class _Alone:
    """The single models of a pair on one benchmark, aligned by item, and the better of them."""

    ids: tuple[str, ...]
    models: Mapping[str, Array]
    better: Array

    def trial(self, merge: Scored, *, only: bool, each: bool) -> Trial:
        """Return the items that a merge has too. `only`: there is no other benchmark, so plain scores count.

        `each`: it is compared with the better single model of each benchmark.
        """
        rows = np.array([row for row, key in enumerate(self.ids) if key in merge.values], dtype=int)
        ids = [self.ids[row] for row in rows]
        models = {EACH: self.better[rows]} if each else {name: own[rows] for name, own in self.models.items()}
        asked = max(len(merge.values) + merge.unscored, len(self.ids))
        unit = Unit(len(ids), None if only else self.better[rows], merge.shape(ids))
        return Trial(np.array([merge.values[key] for key in ids]), models, unit, 1 - len(ids) / asked)


def _alone(alone: pd.DataFrame) -> dict[str, _Alone]:
    """Return the single models of each benchmark of which the better one can be its unit."""
    found = {}
    for benchmark, rows in alone.groupby("benchmark", sort=False):
        scored: dict[str, Scored] = dict(zip(rows["pair"], rows["scored"], strict=True))
        ids = sorted(set.intersection(*(set(one.values) for one in scored.values())))
        models = {name: np.array([scored[name].values[key] for key in ids]) for name in sorted(scored)}
        better = usable(better_of(models, ids, next(iter(scored.values())).shape(ids)) if ids else None)
        if better is not None:
            found[str(benchmark)] = _Alone(tuple(ids), models, better)
    return found


def _merges(rows: pd.DataFrame, alone: pd.DataFrame, experts: Sequence[str]) -> Iterator[Merge]:
    """Give each merge of a pair once; one that lacks a result has no trials."""
    known = _alone(alone)
    done = rows[rows["score"].notna()]
    on = tuple(b for b in known if b in set(done["benchmark"]))
    each = any(set(known[b].models) != set(experts) for b in on)
    seen = set(alone["weights"].dropna())
    several = rows.groupby("method")["params"].nunique()
    for _, own in rows[~rows["lam"].isin([0.0, 1.0])].groupby(_MERGE, sort=False, dropna=False):
        mine = own[own["score"].notna()]
        scored, weights = dict(zip(mine["benchmark"], mine["scored"], strict=True)), set(mine["weights"].dropna())
        if weights & seen or not on:
            continue
        seen |= weights
        first = own.iloc[0]
        whole = all(b in scored and scored[b].values.keys() & set(known[b].ids) for b in on)
        trials = (known[b].trial(scored[b], only=len(on) == 1, each=each) for b in on if whole)
        name = named(first, params=several[first["method"]] > 1)
        yield Merge(name, str(first["pair"]), on, rows["benchmark"].nunique(), tuple(trials))


def named(row: pd.Series, *, params: bool = False) -> str:
    """Name a merge, as in `ties with DARE at lambda 0.75`; `params`: with its hyper-parameters."""
    sparse = {"none": "", "dare": "with DARE"}.get(str(row["sparsify"]), f"with {row['sparsify']}")
    method = [str(row["method"]), f"({row['params']})" if params else "", sparse]
    lam = "" if pd.isna(row["lam"]) else f"at lambda {row['lam']:.3g}"
    return " ".join(filter(None, ["plain" if row["ratio"] == "plain" else "", *method, lam]))
