"""Tidy frame -> response curves: what a pair and method scored along lambda, benchmark by benchmark.

A curve's items are those scored at every node and under every mask. With DARE there is one curve for each mask seed;
the curve shown is their mean, and what the masks alone do is kept apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from m3_exp.reporting.response import Array, Curve

Values = Mapping[str, float]

_LINE = ["family", "pair", "method", "params", "sparsify"]


@dataclass(frozen=True)
class Draw:
    """One real draw of lambda and what it scored, by item."""

    alpha: float
    number: int
    lam: float
    values: Values


@dataclass(frozen=True)
class Response:
    """A pair and method on one benchmark. `parents` are the pair's experts alone, `plain` the method's own default."""

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

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.pair, self.method, "dare" if self.sparsify == "dare" else "") if part)

    def better_parent(self) -> tuple[str, Array] | None:
        """Return the parent that scores higher on the curve's items, with its item values; None without parents."""
        aligned = {name: aligned_to(values, self.curve.ids) for name, values in self.parents.items()}
        known = {name: values for name, values in aligned.items() if values is not None}
        if not known:
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
        masks = list(_masks(rows[rows["ratio"].isin(["grid", "fixed"])]))
        if masks:
            found.append(_response(tuple(map(str, line)), str(benchmark), rows, masks, done, parents))
    return found


def _response(
    line: tuple[str, ...],
    benchmark: str,
    rows: pd.DataFrame,
    masks: list[Mapping[float, Values]],
    done: pd.DataFrame,
    parents: Mapping[str, Sequence[str]],
) -> Response:
    family, pair, method, params, sparsify = line
    curves = _shared(masks)
    mean = Curve(curves[0].ids, curves[0].lams, np.mean([curve.values for curve in curves], axis=0))
    singles = done[(done["family"] == family) & (done["method"] == "single") & (done["benchmark"] == benchmark)]
    alone = {
        str(row.pair): item_means(row.values_)
        for row in singles.rename(columns={"values": "values_"}).itertuples()
        if row.pair in parents.get(pair, ())
    }
    plain = [item_means(values) for values in rows.loc[rows["ratio"] == "plain", "values"]]
    return Response(
        family, pair, method, params, sparsify, benchmark,
        metric=str(rows["metric"].iloc[0]), curve=mean, masks=tuple(curves),
        plain=_mean(plain), parents=alone, draws=tuple(_draws(rows)),
    )  # fmt: skip


def _masks(rows: pd.DataFrame) -> Iterator[Mapping[float, Values]]:
    """Give the item values by lambda for each mask seed (one where there is none) that has both ends."""
    for _, members in rows.groupby("mask_seed", dropna=False, sort=True):
        nodes = {float(lam): item_means(values) for lam, values in zip(members["lam"], members["values"], strict=True)}
        if {0.0, 1.0} <= nodes.keys():
            yield nodes


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
        yield Draw(float(alpha), int(number), float(lam), values)
