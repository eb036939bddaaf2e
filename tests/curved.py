"""Response curves of populations whose truth is known (`benchmarks/populations.py`), and frames of them by hand."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import populations
from m3_exp.merging import ratio
from m3_exp.reporting.curves.evaluated import Response
from m3_exp.reporting.data import dataframe
from m3_exp.reporting.table import Mark, Table
from m3_exp.stats.estimate import Array, Estimate
from m3_exp.stats.lambdas import Curve, Sampled
from m3_exp.stats.paired import paired
from m3_exp.stats.scored import Scored, of_scores
from m3_exp.types import Kind, Score

NODES = np.array(populations.NODES)
Height = Callable[[Array], Array]


def drawn(
    height: Height, n: int, rng: np.random.Generator, *, sampled: int = 16, more: Sequence[float] = (), seed: int = 0
) -> tuple[Curve, Array]:
    """Return n items' curve (9 nodes and `sampled` lambdas of a seed), and what they score at `more` lambdas."""
    others = np.array(sorted(ratio.sampled(seed, sampled)))
    lams = np.concatenate([NODES, others, np.array(more, dtype=float)])
    values = populations.answers(rng, populations.paths(rng, n, lams), height(lams))
    at, here, rest = np.split(values, [len(NODES), len(NODES) + len(others)], axis=1)
    return Curve(names(n), NODES, at, Sampled(others, here) if sampled else None), rest


def names(n: int) -> tuple[str, ...]:
    return tuple(f"{i:04d}" for i in range(n))


def response(
    curve: Curve, plain: Array | None = None, *, masks: Sequence[Curve] = (), plains: Sequence[Array] = (), **more: Any
) -> Response:
    """Return a curve as a response; `masks` and their `plains` are DARE's, 0, 1, 2 and so on their seeds."""
    default = plain if plain is not None or not plains else np.mean(plains, axis=0)
    return Response(
        **{
            "family": "lab", "pair": "lm_math", "method": "ties", "params": "", "benchmark": "gsm8k",
            "sparsify": "dare" if masks else "none", "metric": "accuracy", "curve": curve,
            "masks": tuple(masks) or (curve,), "mask_seeds": tuple(range(len(masks))),
            "plain": None if default is None else by_item(curve.ids, default),
            "plains": {seed: by_item(curve.ids, values) for seed, values in enumerate(plains)}, **more,
        }
    )  # fmt: skip


def framed(lines: Iterable[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Return lines as a frame with all columns of `dataframe.tidy`; what each item scored follows from `values`."""
    if isinstance(lines, pd.DataFrame):
        return framed(lines.to_dict("records"))
    known = dict.fromkeys(dataframe._COLUMNS)
    made = [{**known, "kind": kind(line), **_shares(line), **line, "scored": _counted(line)} for line in lines]
    return pd.DataFrame(made, columns=None if made else dataframe._COLUMNS)


def _shares(line: Mapping[str, Any]) -> dict[str, Any]:
    lam = line.get("lam")
    return {"mixture": "", "point": () if lam is None or np.isnan(lam) else (lam, 1.0 - lam)}


def kind(line: Mapping[str, Any]) -> Kind:
    """Return how a line's mixture came: its ratio is one of the shipped ones."""
    kinds: dict[str, Kind] = {"mixup": "drawn", "grid": "node", "fixed": "node", "sampled": "sampled"}
    return kinds.get(line.get("ratio", ""), "")


def _counted(line: Mapping[str, Any]) -> Scored | None:
    given, values = line.get("scored"), line.get("values")
    if isinstance(given, Scored) and (given.strata or given.clusters):
        return given
    return of_scores([Score(key, value) for (key, _), value in values.items()]) if isinstance(values, dict) else None


def contrast(first: Mapping[str, float], second: Mapping[str, float]) -> Estimate:
    """Compare two sets of item scores over the items that both have; an item that only one has counts as unscored.

    Raises:
        ValueError: no item is in both.
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise ValueError("no item is scored in both: nothing can be paired")
    alone = len(first.keys() ^ second.keys())
    return paired(np.array([first[i] for i in shared]), np.array([second[i] for i in shared]), unscored=alone)


def tidy_row(values: Sequence[float], **columns: Any) -> dict[str, Any]:
    """Return a line of a frame: the method without M3 on GSM8K, but for the given columns; items are 0, 1, 2 and so on.

    Its stored interval is wrong: nothing may read it.
    """
    return {
        "family": "lab", "pair": "lm_math", "method": "average", "params": "", "ratio": "plain", "alpha": None,
        "draw": None, "lam": None, "sparsify": "none", "mask_seed": None, "benchmark": "gsm8k", "metric": "accuracy",
        "score": 100 * float(np.mean(values)), "low": -7.0, "high": 700.0, "n": len(values), "n_unscored": 0,
        "values": {(str(i), 0): float(v) for i, v in enumerate(values)}, "state": "done", "failure": None,
        "runs": 1, "engine": "vllm 1 float32", "details": {}, **columns,
    }  # fmt: skip


def below(share: float, n: int, shift: int = 0) -> list[float]:
    """Return n item values: item i is right where ((i + shift) % n + 0.5) / n lies below `share`."""
    return [float(((i + shift) % n + 0.5) / n < share) for i in range(n)]


def by_item(ids: Sequence[str], values: Array) -> Mapping[str, float]:
    return dict(zip(ids, map(float, values), strict=True))


def marks(table: Table) -> dict[tuple[int, int], Mark]:
    """Return the marks of a table's cells, by row and column."""
    every = ((i, j, cell.mark) for i, row in enumerate(table.rows) for j, cell in enumerate(row))
    return {(i, j): mark for i, j, mark in every if mark != Mark()}
