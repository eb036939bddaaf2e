"""Store -> one tidy DataFrame: a line for each label of each cell, whether it has a result or not.

Repeats of a cell (`repeat=K`) measure the noise floor. They are no further data, so a frame holds them only on request.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import pandas as pd

from m3_exp.merging import methods
from m3_exp.planning import label_text, merge_line, mixture_text, table_name
from m3_exp.reading.scores import column
from m3_exp.reporting.data import params
from m3_exp.stats.scored import scored
from m3_exp.stats.unread import unread_of
from m3_exp.types import REHEARSAL, Cell, CellResult, Json, Label, ResultRecord, Score


def thinned(sparsify: str) -> str:
    """Return what tables say under DARE; of another sparsifier its name."""
    return {"none": "no", "dare": "yes"}.get(sparsify, sparsify)


def tidy(results: Sequence[CellResult], *, repeats: bool = False) -> pd.DataFrame:
    """Return one line a (label, benchmark). Scores are in percent; `values` maps (id, sample) to 0..1 or None.

    `scored` holds the items as they count in the score (`m3_exp.stats.scored.Scored`; None without a result); `low` and
    `high` come from it. `unread` (`m3_exp.stats.unread`): what is to be said where most answers hold nothing to read,
    else None. `cell` names the cell, the same for all of its labels. `point` holds the experts' shares (() without
    any), `mixture` their text where there are more than two, else "". `repeats=True` keeps the lines of repeats:
    `repeat` is their number (0 for other lines), `changed` the (id, sample) whose text differs from the first pass
    (empty for other lines). `parts` are those of a merge by part (`types.Part`), () for others.
    """
    shown = [item for item in results if repeats or not item.repeat]
    lines = [line for item in shown for line in lines_of(item)]
    return pd.DataFrame({name: [line.get(name, _NAN) for line in lines] for name in _COLUMNS}, columns=_COLUMNS)


def sandboxes(details: Mapping[str, Any]) -> list[str]:
    """Return what contained the model-written programs of a result, as `scoring.sandbox` joins it, if any ran."""
    return list(filter(None, str(details.get("sandbox") or "").split(", ")))


def where(frame: pd.DataFrame, **values: str) -> pd.DataFrame:
    """Return the lines in which each of some columns has the given value."""
    return frame[(frame[list(values)] == list(values.values())).all(axis=1)]


def by_part(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Tell which lines are of merges by part: they have no lambda, and draws of theirs are other draws."""
    return frame["parts"].map(has_parts).astype(bool)


def has_parts(parts: object) -> bool:
    """Tell whether a line's `parts` are those of a merge by part."""
    return isinstance(parts, tuple) and bool(parts)


class ItemValues(Mapping[tuple[str, int], float | None]):
    """The values of a result by (id, sample), made when they are first read: most tables need `scored` alone."""

    def __init__(self, scores: Sequence[Score]) -> None:
        self._scores = scores

    @cached_property
    def _known(self) -> dict[tuple[str, int], float | None]:
        ids, samples, values = (column(self._scores, name) for name in ("id", "sample", "value"))
        return dict(zip(zip(ids, samples, strict=True), values, strict=True))

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each value."""
        return tuple(column(self._scores, "id"))

    def __getitem__(self, key: tuple[str, int]) -> float | None:
        return self._known[key]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


_NAN = float("nan")
_COLUMNS = [
    "family", "pair", "method", "params", "ratio", "kind", "alpha", "draw", "lam", "point", "mixture", "sparsify",
    "mask_seed", "benchmark",
    "metric", "score", "low", "high", "n", "n_unscored", "state", "failure", "values", "weights", "engine", "dtype",
    "evaluator", "tokenizer", "runs", "batched", "merge", "details", "cell", "repeat", "changed", "items_digest",
    "scored", "expected", "unread", "label", "parts", "affine",
]  # fmt: skip


def lines_of(item: CellResult) -> list[Json]:
    """Return the lines of a cell, one a label. They are kept beside the result: a page makes two frames of it."""
    if "_lines" not in vars(item):
        cell = item.cell
        facts: Json = {
            "benchmark": cell.evaluator.name, "state": "missing", "failure": item.failure, "evaluator": "",
            "metric": "", "tokenizer": str(cell.tokenizer), "details": {},
            "cell": cell.short_key,
            "repeat": item.repeat, "changed": frozenset(), "scored": None, "unread": None,
        }  # fmt: skip
        facts |= _outcome(item.record) if item.record is not None else {}
        vars(item)["_lines"] = [{**facts, **_labelled(label, cell)} for label in cell.labels]
    return cast(list[Json], vars(item)["_lines"])


def _labelled(label: Label, cell: Cell) -> Json:
    """Return what a line says of its merge. It is kept beside the label, which the cells of a recipe share."""
    if "_labelled" not in vars(label):
        vars(label)["_labelled"] = {
            "family": label.family, "pair": label.pair, "method": label.method,
            "params": params.text(label.params),
            "ratio": table_name(label, "ratio"), "kind": label.kind, "alpha": label.alpha, "draw": label.draw,
            "lam": label.lam, "point": label.point, "mixture": mixture_text(label) if label.point else "",
            "sparsify": table_name(label, "sparsify"), "mask_seed": label.mask_seed,
            "merge": merge_line(label, cell.recipe), "label": label_text(label).removesuffix(" single"),
            "parts": label.parts, "affine": methods.is_affine(cell.recipe.method, cell.recipe.params),
        }  # fmt: skip
    return cast(Json, vars(label)["_labelled"])


def _outcome(record: ResultRecord) -> Json:
    """Return what a result says. Its score is the stored one; the interval is that of its items, whatever is stored."""
    result, items = record.result, scored(record)
    interval = items.percent()
    return {
        "metric": result.metric,
        "score": result.score,
        "n": result.n,
        "n_unscored": result.n_unscored,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "scored": items,
        "unread": unread_of(record),
        "state": "done" if result.n_unscored == 0 else "incomplete",
        "values": ItemValues(record.scores),
        "weights": record.weights,
        "items_digest": record.items_digest,
        "engine": " ".join(record.engine[key] for key in ("engine", "version", "dtype")),
        "dtype": record.engine["dtype"],
        "evaluator": f"{record.evaluator.name} {record.evaluator.version}",
        "runs": len(record.runs),
        "batched": record.batched,
        "details": result.details,
        "changed": frozenset(record.repeat.changed if record.repeat else ()),
    }


def rehearsed(frame: pd.DataFrame) -> list[str]:
    """Say conspicuously that no model wrote the answers behind a frame; nothing where models did."""
    made_up = any(str(engine).startswith(f"{REHEARSAL} ") for engine in frame["engine"].unique())
    return ["WARNING: a REHEARSAL: answers are made up (engine.answers=generated), no figure means anything"] * made_up
