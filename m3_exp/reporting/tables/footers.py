"""The notes below every table: what made its numbers, what is missing, and the line that rebuilds each row."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from m3_exp.amounts import counted
from m3_exp.reporting.curves.evaluated import unread_cells
from m3_exp.reporting.data.dataframe import rehearsed, sandboxes
from m3_exp.reporting.table import Rebuild
from m3_exp.reporting.tables.rows import shares_heading
from m3_exp.stats import unread

INTERVALS = (
    "Percent, with 95 % intervals over items like these (docs/statistics.md); an unscored item counts as wrong at the"
    " lower end, as right at the upper."
)
BRIEFLY = "Percent, 95 % intervals."  # the same on a terminal
_SUM = "task arithmetic without M3 weighs both deltas with 1; with M3 at lambda = 1/2 it is half that sum."


def briefly(frame: pd.DataFrame) -> str:
    """Return the line that says on a terminal what numbers are, and lambda where there is one."""
    return BRIEFLY if shares_heading(frame) == "weights" else f"{BRIEFLY} lambda: the first expert's share."


def footer(frame: pd.DataFrame, notes: Sequence[str] = (), behind: pd.DataFrame | None = None) -> list[str]:
    """Return the lines under a table: what it shows, what made it, and what is missing.

    `notes` are the table's own; they follow the first line. `behind`: the lines of another sweep that some of its
    numbers are computed from.
    """
    done = frame[frame["state"] != "missing"]
    if behind is not None:
        both = (cells.to_dict("records") for cells in (done, behind[behind["state"] != "missing"]))
        done = pd.DataFrame([line for lines in both for line in lines], columns=frame.columns)
    summed = bool((done["method"] == "task_arithmetic").any())
    return [
        INTERVALS if shares_heading(frame) == "weights" else f"{INTERVALS} lambda is the first expert's share.",
        *notes,
        *([_SUM] if summed else []),
        *_made_by(done),
        *rehearsed(done),
        *_unread(done),
        *_sandboxes(done),
        *_lacking_tests(done),
        *_thoughts(done),
        *_resumed(done),
        *_failed(frame),
    ]


def _unread(done: pd.DataFrame) -> list[str]:
    cells = unread_cells(done)
    return [unread.sentence(cells)] if cells else []


def _made_by(done: pd.DataFrame) -> list[str]:
    """Return engine and evaluators with their versions, and the digests of the item sets; nothing without results."""
    if not len(done):
        return []
    engines, evaluators = sorted(set(done["engine"])), sorted(set(done["evaluator"]))
    lines = [f"engine: {', '.join(engines)}; evaluators: {', '.join(evaluators)}"]
    sets = _item_sets(done)
    return [*lines, f"items: {'; '.join(sets)}"] if sets else lines


def _item_sets(done: pd.DataFrame) -> list[str]:
    """Return `BENCHMARK DIGEST (n=N)` for each item set."""
    known = done[done["items_digest"].notna()].sort_values(["benchmark", "n"])
    return list(dict.fromkeys(f"{r.benchmark} {str(r.items_digest)[:12]} (n={r.n:.0f})" for r in known.itertuples()))


def _resumed(done: pd.DataFrame) -> list[str]:
    loose = done[(done["runs"] > 1) & done["batched"].eq(True)]
    if not len(loose):
        return []
    names = sorted({f"{r.method} {r.pair} {r.benchmark}" for r in loose.itertuples()})
    return [f"{counted(len(loose), 'cell')} resumed in a dtype whose texts depend on the batch: {'; '.join(names)}"]


def _failed(frame: pd.DataFrame) -> list[str]:
    failures = frame[frame["failure"].notna() & (frame["state"] != "done")]
    return [f"failed: {r.method} {r.pair} {r.benchmark}: {r.failure}" for r in failures.itertuples()]


def _details(done: pd.DataFrame, key: str) -> dict[str, list[Any]]:
    """Return one of the results' details by benchmark, in the order of names; empty if no result has it."""
    by_benchmark: dict[str, list[Any]] = {}
    for line in done.itertuples():
        if value := dict(line.details or {}).get(key):
            by_benchmark.setdefault(str(line.benchmark), []).append(value)
    return dict(sorted(by_benchmark.items()))


def _sandboxes(done: pd.DataFrame) -> list[str]:
    """Say which sandbox contained each benchmark's model-written programs; conspicuously so if none did."""
    found: dict[str, set[str]] = {}
    for line in done.itertuples():
        found.setdefault(str(line.benchmark), set()).update(sandboxes(dict(line.details or {})))
    levels = {b: sorted(own) for b, own in sorted(found.items()) if own}
    named = "; ".join(f"{b} {', '.join(own)}" for b, own in levels.items())
    lines = [f"sandbox: {named}"] if named else []
    if weak := [b for b, own in levels.items() if "weak" in own]:
        names = ", ".join(weak)
        lines.append(f"WARNING: {names}: programs ran UNCONTAINED (sandbox.allow_weak), results may be forged")
    return lines


def _thoughts(done: pd.DataFrame) -> list[str]:
    """Say of each benchmark how many answers hold thoughts that were judged with them, or are unclosed ones."""
    kinds = (
        ("thoughts_kept", "hold a thought that was judged with the answer (thought=drop drops it)"),
        ("unclosed_thoughts", "are unclosed thoughts, which count as no answer"),
    )
    lines = []
    for key, what in kinds:
        named = "; ".join(f"{b} up to {max(counts)} a cell" for b, counts in _details(done, key).items())
        lines += [f"answers that {what}: {named}"] if named else []
    return lines


def _lacking_tests(done: pd.DataFrame) -> list[str]:
    """Say of each benchmark how many of its questions are judged by fewer tests than LiveBench has."""
    return [
        f"{benchmark}: {max(cell['questions'] for cell in cells)} questions lack {max(cell['tests'] for cell in cells)}"
        " of LiveBench's tests here, so what passes them may be wrong: at most"
        f" {max(cell['passed'] for cell in cells)} of a cell's items"
        for benchmark, every in _details(done, "lacking_tests").items()
        if (cells := [cell for cell in every if cell.get("questions")])
    ]


def rebuild(frame: pd.DataFrame) -> Rebuild:
    """Return the line that rebuilds each of a frame's weights, with its digest where it was made."""
    digests: dict[str, str] = {}
    for line in frame.itertuples():
        known = "not made yet" if pd.isna(line.weights) else str(line.weights)[:12]
        if digests.get(str(line.merge), "not made yet") == "not made yet":
            digests[str(line.merge)] = known
    return Rebuild(tuple((digest, merge) for merge, digest in digests.items()))
