"""Tidy frame -> response curves: what a pair and method scored along lambda, benchmark by benchmark.

A curve's items are those scored at every node and under every mask. With DARE there is one curve for each mask seed;
the curve shown is their mean, and what the masks alone do is kept apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from m3_exp.reporting.response import Array, Curve

Values = Mapping[str, float]

_LINE = ["family", "pair", "method", "params", "sparsify"]


@dataclass(frozen=True)
class Draw:
    """One real draw of lambda and what it scored, by item; `mask_seeds` of the DARE masks that it is the mean over."""

    alpha: float
    number: int
    lam: float
    values: Values
    mask_seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Response:
    """A pair and method on one benchmark. `parents` are the pair's experts alone (all of them, or none), `plain` the
    method's own default.

    `curve` is the mean of `masks`, one curve for each of `mask_seeds`; without DARE there is one, and no seed.
    """

    family: str
    pair: str
    method: str
    params: str
    sparsify: str
    benchmark: str
    metric: str
    curve: Curve
    masks: tuple[Curve, ...]
    plain: Values | None = None
    parents: Mapping[str, Values] = field(default_factory=dict)
    draws: tuple[Draw, ...] = ()
    mask_seeds: tuple[int, ...] = ()
    experts: tuple[str, ...] = ()  # the pair's, in its order, evaluated on this benchmark or not

    @property
    def line(self) -> tuple[str, ...]:
        """What the benchmarks of one pair and method share."""
        return (self.family, self.pair, self.method, self.params, self.sparsify)

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.pair, self.method, "dare" if self.sparsify == "dare" else "") if part)

    @property
    def lacking(self) -> tuple[str, ...]:
        """The experts that are not evaluated on this benchmark: in Table 1 those of other skills."""
        return tuple(name for name in self.experts if name not in self.parents)

    def better_parent(self) -> tuple[str, Array] | None:
        """Return the parent that scores higher on the curve's items, with its item values.

        None unless those that are evaluated have all of the items.

        Were one parent unscored on an item and left out, the better parent could silently be the worse one. An expert
        that is not evaluated on the benchmark at all is in `lacking`, to be named.
        """
        aligned = {name: aligned_to(values, self.curve.ids) for name, values in self.parents.items()}
        known = {name: values for name, values in aligned.items() if values is not None}
        if not known or len(known) < len(aligned):
            return None
        best = max(sorted(known), key=lambda name: float(known[name].mean()))
        return best, known[best]


def aligned_to(values: Values, ids: Sequence[str]) -> Array | None:
    """Return values in the order of `ids`, or None where one is missing."""
    if any(key not in values for key in ids):
        return None
    return np.array([values[key] for key in ids], dtype=float)


def item_means(values: Mapping[tuple[str, int], float | None]) -> dict[str, float]:
    """Return each item's mean over its samples, without items of which one is unscored.

    Of a benchmark that scores an item in several versions (`ITEM@...`, an attack) the versions are averaged, and the
    item without one is left out.
    """
    versions = any("@" in key for key, _ in values)
    samples: dict[str, list[float | None]] = {}
    for (key, _), value in values.items():
        item, at, _ = key.partition("@")
        if bool(at) == versions:
            samples.setdefault(item, []).append(value)
    return {
        key: float(np.mean([v for v in found if v is not None]))
        for key, found in samples.items()
        if all(v is not None for v in found)
    }


def responses(frame: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> list[Response]:
    """Return every curve that a frame holds: a pair and method with at least the lambdas 0 and 1 on a benchmark.

    `parents` names each pair's experts, as the frame's singles are called.
    """
    done = frame[frame["score"].notna()]
    found: list[Response] = []
    for key, rows in done[done["method"] != "single"].groupby([*_LINE, "benchmark"], sort=False):
        *line, benchmark = key
        masks = dict(_masks(rows[rows["ratio"].isin(["grid", "fixed"])]))
        if masks:
            found.append(_response(tuple(map(str, line)), str(benchmark), rows, masks, done, parents))
    return found


def grouped(found: Sequence[Response]) -> list[list[Response]]:
    """Return the benchmarks of each pair and method together, in the order they were found."""
    groups: dict[tuple[str, ...], list[Response]] = {}
    for response in found:
        groups.setdefault(response.line, []).append(response)
    return list(groups.values())


def development(found: Sequence[Response], of: Sequence[Response]) -> dict[str, Response]:
    """Return, by benchmark, the curves on development items (`found`) of the pair and method that `of` shows."""
    wanted = {(*response.line, response.benchmark) for response in of}
    return {response.benchmark: response for response in found if (*response.line, response.benchmark) in wanted}


def _response(
    line: tuple[str, ...],
    benchmark: str,
    rows: pd.DataFrame,
    masks: Mapping[int | None, Mapping[float, Values]],
    done: pd.DataFrame,
    parents: Mapping[str, Sequence[str]],
) -> Response:
    family, pair, method, params, sparsify = line
    curves = _shared(list(masks.values()))
    mean = Curve(curves[0].ids, curves[0].lams, np.mean([curve.values for curve in curves], axis=0))
    singles = done[(done["family"] == family) & (done["method"] == "single") & (done["benchmark"] == benchmark)]
    alone = {
        str(row.pair): item_means(row.values_)
        for row in singles.rename(columns={"values": "values_"}).itertuples()
        if row.pair in parents.get(pair, ())
    }
    without = rows[rows["ratio"] == "plain"]
    if seeds := [seed for seed in masks if seed is not None]:
        without = without[without["mask_seed"].isin(seeds)]  # masks that the curve has
    plain = [item_means(values) for values in without["values"]]
    return Response(
        family, pair, method, params, sparsify, benchmark,
        metric=str(rows["metric"].iloc[0]), curve=mean, masks=tuple(curves),
        plain=_mean(plain), parents=alone, experts=tuple(parents.get(pair, ())), draws=tuple(_draws(rows)),
        mask_seeds=tuple(seed for seed in masks if seed is not None),
    )  # fmt: skip


def _masks(rows: pd.DataFrame) -> Iterator[tuple[int | None, Mapping[float, Values]]]:
    """Give each mask seed (None without DARE) that has both ends, with its item values by lambda."""
    for seed, members in rows.groupby("mask_seed", dropna=False, sort=True):
        nodes = {float(lam): item_means(values) for lam, values in zip(members["lam"], members["values"], strict=True)}
        if {0.0, 1.0} <= nodes.keys():
            yield _seed(seed), nodes


def _seed(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _shared(masks: Sequence[Mapping[float, Values]]) -> list[Curve]:
    """Return a curve a mask, all on the nodes and items that every mask has."""
    lams = sorted(set.intersection(*(set(nodes) for nodes in masks)))
    ids = sorted(set.intersection(*(set(nodes[lam]) for nodes in masks for lam in lams)))
    return [
        Curve(
            tuple(ids), np.array(lams), np.array([[nodes[lam][i] for lam in lams] for i in ids]).reshape(len(ids), -1)
        )
        for nodes in masks
    ]


def _mean(found: Sequence[Values]) -> Values | None:
    """Return the item-wise mean of several masks' values over the items that all have."""
    if not found:
        return None
    shared = set.intersection(*(set(values) for values in found))
    return {key: float(np.mean([values[key] for values in found])) for key in sorted(shared)}


def _draws(rows: pd.DataFrame) -> Iterator[Draw]:
    mixed = rows[rows["ratio"] == "mixup"]
    for (alpha, number, lam), members in mixed.groupby(["alpha", "draw", "lam"], sort=True):
        values = _mean([item_means(found) for found in members["values"]])
        assert values is not None
        seeds = sorted({int(seed) for seed in members["mask_seed"].dropna()})
        yield Draw(float(alpha), int(number), float(lam), values, tuple(seeds))
