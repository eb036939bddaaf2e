"""What a plan would cost and what of it is there already: `m3 plan`. Reads headers and item files, never weights.

A figure that rests on an assumption says so; a speed measured by an earlier run in the same store replaces it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from m3_exp.cells import Desk
from m3_exp.merging import stream
from m3_exp.merging.source import without_fetching
from m3_exp.plan import spelled
from m3_exp.progress import clock
from m3_exp.run import visible_gpus
from m3_exp.scoring.evaluator import Paid
from m3_exp.store import Store
from m3_exp.types import Cell, Json, M3Error, Plan, identity, plain

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# tokens a second x parameters, a first guess: SmolLM2-135M in float32 on two CPU cores; 13B on one A100 (assumed)
_CPU_SPEED, _GPU_SPEED = 300 * 135e6, 1500 * 13e9


@dataclass(frozen=True)
class Forecast:
    """A plan as data, and the same in words."""

    cells: tuple[Json, ...]
    totals: Json
    notes: tuple[str, ...]


def forecast(plan: Plan, store: Store, parameters: int | None, *, keep: bool) -> Forecast:
    """Look at every cell: cached, begun, to do, or what is not at hand; then add up items, bytes and time."""
    desk = Desk(store, plan.engine)
    recipes = {identity(cell.recipe): cell for cell in plan.cells}
    with without_fetching():
        cells = tuple(_cell(cell, desk) for cell in plan.cells)
        sizes = [_size(cell, store, parameters, plan.engine.dtype) for cell in recipes.values()]
    todo = [c for c in cells if c["state"] != "done"]
    answers = sum(c["left"] or 0 for c in todo)
    tokens = sum((c["left"] or 0) * c["max_tokens"] for c in todo)
    weights = max((size for size in sizes if size), default=None)
    speed, basis = _speed(plan, store, parameters)
    totals: Json = {
        "recipes": len(recipes),
        "cells": len(cells),
        "done": len(cells) - len(todo),
        "answers_to_generate": answers,
        "tokens_at_most": tokens,
        "items_unknown": sum(c["n"] is None for c in cells),
        "weights_bytes": weights,
        "merging_ram_bytes": 1 << 30,
        "engine_ram_bytes": None if weights is None else weights + _cache_bytes(plan),
        "disk_bytes": answers * 1500 + (len(recipes) * (weights or 0) if keep else 0),
        "seconds_at_most": None if speed is None else tokens / speed,
        "judging_dollars": _dollars(todo),
    }
    return Forecast(cells, totals, (*plan.notes, *_words(totals, basis), *_judging(todo)))


def _cell(cell: Cell, desk: Desk) -> Json:
    evaluator = desk.evaluator(cell.evaluator)
    line: Json = {
        "labels": [spelled(label) for label in cell.labels],
        "lambda": sorted({label.lam for label in cell.labels if label.lam is not None}),
        "alpha": sorted({label.alpha for label in cell.labels if label.alpha is not None}),
        "recipe": plain(cell.recipe),
        "benchmark": cell.evaluator.name,
        "evaluator": plain(cell.evaluator),
        "tokenizer": str(cell.tokenizer),
        "sampling": plain(evaluator.sampling),
        "max_tokens": evaluator.sampling.max_tokens,
        "limit": cell.limit,
    }
    line |= _state(cell, desk)
    cost = None
    if isinstance(evaluator, Paid) and line["n"] is not None and line["state"] != "done":
        cost = evaluator.cost(desk.problems(cell))
    return line | {"cost": plain(cost)}


def _state(cell: Cell, desk: Desk) -> Json:
    try:
        n = len(desk.problems(cell))
    except M3Error as error:
        return {"n": None, "left": None, "state": "items missing", "reason": str(error)}
    try:
        task = desk.task(cell)
        found = desk.result(task)
    except M3Error as error:
        return {"n": n, "left": n, "state": "model missing", "reason": str(error)}
    if found is not None and found["result"]["n_unscored"] == 0:
        return {"n": n, "left": 0, "state": "done", "reason": None}
    known = desk.store.get("merges", desk.recipe_key(cell))
    held = 0
    if known is not None:
        wanted = {prompt.id for prompt in task.prompts}
        records = desk.store.journal(desk.answers_key(known["digest"], task)).read()
        held = len({(r["id"], r["sample"]) for r in records if r["id"] in wanted})
    left = max(0, n * task.sampling.n - held)
    return {"n": n, "left": left, "state": "begun" if held else "to do", "reason": None}


def _size(cell: Cell, store: Store, parameters: int | None, dtype: str) -> int | None:
    try:
        return int(stream.forecast(cell.recipe, store).output_bytes)
    except M3Error:
        return None if parameters is None else parameters * _BYTES[dtype]


def _cache_bytes(plan: Plan) -> int:
    return int((plan.engine.kv_cache_gib or 4.0) * 2**30)


def _speed(plan: Plan, store: Store, parameters: int | None) -> tuple[float | None, str]:
    measured = store.get("rates", identity([plan.engine.name, plan.engine.dtype, parameters]))
    if measured is not None:
        return float(measured["tokens_per_second"]), "measured by an earlier run in this store"
    if parameters is None:
        return None, "the model's size is not known here"
    gpus = len(visible_gpus())
    speed = (_GPU_SPEED * gpus if gpus else _CPU_SPEED) / parameters
    where = f"{gpus} GPUs" if gpus else "no GPU"
    return speed, f"assumed: {speed:.3g} tokens/s for {parameters / 1e9:.3g}B parameters with {where}"


def _words(totals: Json, basis: str) -> list[str]:
    lines = [
        f"{totals['recipes']} distinct recipes, {totals['cells']} cells, {totals['done']} of them done; "
        f"{totals['answers_to_generate']} answers to generate, at most {totals['tokens_at_most']} tokens"
    ]
    if totals["weights_bytes"] is not None:
        lines.append(
            f"weights {size(totals['weights_bytes'])} a model; memory: engine {size(totals['engine_ram_bytes'])}, "
            f"merging under {size(totals['merging_ram_bytes'])}; disk {size(totals['disk_bytes'])}"
        )
    if totals["seconds_at_most"] is not None:
        lines.append(f"time at most {clock(totals['seconds_at_most'])} ({basis})")
    if totals["items_unknown"]:
        lines.append(f"{totals['items_unknown']} cells have no items at hand, their cost is not in these figures")
    return lines


def _dollars(todo: Sequence[Json]) -> float | None:
    """Return what the judges of all cells cost; None where one's price is not known."""
    dollars = [cell["cost"]["dollars"] for cell in todo if cell["cost"]]
    return None if None in dollars else sum(dollars)


def _judging(todo: Sequence[Json]) -> list[str]:
    """Say what judges outside the engine take, a line for each kind of cell."""
    alike: dict[str, list[Json]] = {}
    for cell in todo:
        if cell["cost"]:
            alike.setdefault(identity([cell["benchmark"], cell["cost"]]), []).append(cell)
    lines = []
    for cells in alike.values():
        cost = cells[0]["cost"]
        price = "price not known" if cost["dollars"] is None else f"{cost['dollars']:.2f} dollars"
        lines.append(
            f"judging {cells[0]['benchmark']}: {cost['calls']} calls, {cost['prompt_tokens']} tokens to read and"
            f" at most {cost['completion_tokens']} to write, {price} a cell, {len(cells)} cells ({cost['basis']})"
        )
    return lines


def size(count: int) -> str:
    """Write bytes as people say them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"


def rows(found: Forecast) -> list[Sequence[Any]]:
    """The plan as rows: recipe, lambda, benchmark, items, state."""
    return [
        (" = ".join(c["labels"]), c["benchmark"], "?" if c["n"] is None else str(c["n"]), c["state"])
        for c in found.cells
    ]
