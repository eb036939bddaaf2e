"""Tidy frame -> what each merge gains on the better single model, on average over benchmarks and in the worst of them.

How it is measured: `stats/superiority.py`. A merge is one set of weights with results on every benchmark that a single
model of its pair can be a unit of (`joint.usable`). lambda 0 and 1 are no merges, nor is what has a single model's
weights. Where a single model is not evaluated on one of these benchmarks (in Table 1 those of other skills), merges are
compared with the better single model of each benchmark, which is harder to beat.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from m3_exp.stats.estimate import Array, Shape
from m3_exp.stats.joint import ENOUGH, Unit, better_of, usable
from m3_exp.stats.scored import Scored, aligned, in_common
from m3_exp.stats.superiority import Gain, Model, Trial, in_the_worst, on_average

EACH = ""  # the name of the better single model of each benchmark
_MERGE = ["method", "params", "sparsify", "mask_seed", "ratio", "alpha", "draw", "lam", "mixture"]
_READ = [*_MERGE, "point", "pair", "benchmark", "score", "scored", "weights", "cell"]


@dataclass(frozen=True, eq=False)
class Merge:
    """A merge of a pair on the benchmarks that it is compared on; its pair was evaluated on `of` ones.

    `lacking`: the single models of the pair that are not evaluated on all of these.
    """

    name: str
    pair: str
    benchmarks: tuple[str, ...]
    of: int
    lacking: tuple[str, ...]
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
        return any(
            all(np.array_equal(one.merge.values, one.parents[name].values) for one in trials)
            for name in trials[0].parents
        )


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
        return Why(f"{' and '.join([', '.join(experts[:-1]), experts[-1]])} are not evaluated alone", "single models")
    if not _alone(alone):
        return Why(f"no single model is right on {ENOUGH} items of a benchmark", "items")
    return Why("no merge has a result on every benchmark", "merges")


@dataclass(frozen=True, eq=False)
class _Alone:
    """The single models of a pair on one benchmark, aligned by item, and the better of them."""

    ids: tuple[str, ...]
    models: Mapping[str, Array]
    better: Array
    shape: Shape

    def bar(self, *, only: bool, each: bool, rows: Array | None = None) -> dict[str, Model]:
        """Return the models to beat, on some of the items. `only`: no other benchmark, so plain scores count.

        `each`: it is the better single model of each benchmark.
        """
        at = np.arange(len(self.ids)) if rows is None else rows
        shape = self.shape if rows is None else self.shape.of(rows)
        unit = Unit(len(at), None if only else self.better[at], shape)
        models = {EACH: self.better} if each else self.models
        return {name: Model(values[at], unit) for name, values in models.items()}

    def trial(self, merge: Scored, bar: Mapping[str, Model], *, only: bool, each: bool) -> Trial | None:
        """Return a merge beside the models to beat, on the items that it has too; None without any."""
        rows = [row for row, key in enumerate(self.ids) if key in merge.values]
        if not rows:
            return None
        models = bar if len(rows) == len(self.ids) else self.bar(only=only, each=each, rows=np.array(rows))
        values = aligned(merge.values, [self.ids[row] for row in rows])
        asked = max(len(merge.values) + merge.unscored, len(self.ids))
        return Trial(Model(values, next(iter(models.values())).unit), models, 1 - len(rows) / asked)


def _alone(alone: pd.DataFrame) -> dict[str, _Alone]:
    """Return the single models of each benchmark of which the better one can be its unit."""
    found = {}
    for benchmark, rows in alone.groupby("benchmark", sort=False):
        scored: dict[str, Scored] = dict(zip(rows["pair"], rows["scored"], strict=True))
        ids = in_common([one.values for one in scored.values()])
        models = {name: aligned(scored[name].values, ids) for name in sorted(scored)}
        shape = next(iter(scored.values())).shape(ids)
        better = usable(better_of(models, ids, shape) if ids else None)
        if better is not None:
            found[str(benchmark)] = _Alone(tuple(ids), models, better, shape)
    return found


def _merges(rows: pd.DataFrame, alone: pd.DataFrame, experts: Sequence[str]) -> Iterator[Merge]:
    """Give each merge of a pair once; one that lacks a result has no trials."""
    known = _alone(alone)
    lines = [dict(zip(_READ, values, strict=True)) for values in zip(*(rows[key] for key in _READ), strict=True)]
    have = {line["benchmark"] for line in lines if not pd.isna(line["score"])}
    on = tuple(b for b in known if b in have)
    lacking = tuple(name for name in experts if any(name not in known[b].models for b in on))
    only = len(on) == 1
    each = bool(lacking) and not only  # on one benchmark, merges are compared with those that are evaluated there
    bars = {b: known[b].bar(only=only, each=each) for b in on}
    seen = set(alone["weights"].dropna())  # digests of weights; cells too, which a merge without a result has
    several = rows.groupby("method")["params"].nunique()
    of = rows["benchmark"].nunique()
    for own in _by_merge(lines):
        mine = [line for line in own if not pd.isna(line["score"])]
        scored = {line["benchmark"]: line["scored"] for line in mine}
        names = [*(line["weights"] for line in mine), *(line["cell"] for line in own)]
        same = {name for name in names if not pd.isna(name)}
        if same & seen or not on:
            continue
        seen |= same
        first = own[0]
        beside = [known[b].trial(scored[b], bars[b], only=only, each=each) if b in scored else None for b in on]
        trials = tuple(one for one in beside if one is not None)
        whole = trials if len(trials) == len(on) else ()
        name = named(first, params=several[first["method"]] > 1)
        yield Merge(name, str(first["pair"]), on, of, lacking, whole)


def _by_merge(lines: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Give the lines of each merge, in the order found; one expert alone is none."""
    merges: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for line in lines:
        if 1.0 not in line["point"]:
            key = tuple(None if pd.isna(line[column]) else line[column] for column in _MERGE)
            merges.setdefault(key, []).append(line)
    yield from merges.values()


def named(row: Mapping[str, Any], *, params: bool = False) -> str:
    """Name a merge, as in `ties with DARE at lambda 0.75`; `params`: with its hyper-parameters."""
    sparse = {"none": "", "dare": "with DARE"}.get(str(row["sparsify"]), f"with {row['sparsify']}")
    method = [str(row["method"]), f"({row['params']})" if params else "", sparse]
    shares = f"at {row['mixture']}" if row["mixture"] else "" if pd.isna(row["lam"]) else f"at lambda {row['lam']:.3g}"
    return " ".join(filter(None, ["plain" if row["ratio"] == "plain" else "", *method, shares]))
