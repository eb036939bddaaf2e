"""Records of results as tests write them down: as JSON, and no more of it than they are about."""

from typing import Any

from m3_exp.store import Records, Store, decoded
from m3_exp.types import Cell, CellResult, Json, ResultRecord

_RESULT = {"benchmark": "", "metric": "accuracy", "score": None, "low": None, "high": None, "n": 0, "n_scored": 0}


def typed(record: dict[str, Any]) -> ResultRecord:
    """Return a record as the store gives it; what it leaves out is empty."""
    filled = {
        "result": _RESULT | record["result"],
        "evaluator": {"name": "", "target": ""} | record.get("evaluator", {}),
        "sampling": {"max_tokens": 1} | record.get("sampling", {}),
        "recipe": record.get("recipe") or None,
    }
    return decoded(ResultRecord, {**record, **filled})


def looked_up(cell: Cell, record: dict[str, Any] | None, failure: str | None = None, repeat: int = 0) -> CellResult:
    return CellResult(cell, None if record is None else typed(record), failure, repeat)


def kind(store: Store, name: str) -> Records[Json]:
    """Return the records of one kind as plain JSON."""
    return Records(store, name, dict, derived=name in ("inputs", "scans"))
