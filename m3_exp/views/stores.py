"""`m3 verify`: whether a store holds what was planned, and its files what they should. `m3 export store`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from m3_exp import config
from m3_exp.amounts import count, counted
from m3_exp.command_line import CommandLine
from m3_exp.reading.records import untouched
from m3_exp.reading.shown import abridged
from m3_exp.store import PastRun
from m3_exp.types import Json, Plan
from m3_exp.upkeep import archive, files
from m3_exp.upkeep.archive import Exported
from m3_exp.upkeep.cells import STATES, CellCheck, CellState, as_json
from m3_exp.upkeep.reader import Fault, Shelf, Wrong
from m3_exp.upkeep.rescoring import rescore
from m3_exp.views.lookup import Lookup
from m3_exp.views.runs import place, request

_SHOWN = 20  # lines of one state; --json has all


@dataclass(frozen=True)
class Verified:
    """What a check found. `files`: how many were read, where the whole store was asked for.

    `rescored`: how many results were scored again; `skipped` why others were not.
    """

    states: tuple[CellState, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    files: int | None = None
    rescored: int | None = None
    skipped: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """The exit code: 3 where something is wrong, 1 where cells failed or are missing, else 0."""
        found = {state.state for state in self.states}
        return 3 if self.faults or "wrong" in found else 1 if found & {"failed", "missing"} else 0

    @property
    def json(self) -> Json:
        """What `m3 verify --json` prints."""
        more = {
            "files": self.files,
            "rescored": self.rescored,
            "skipped": list(self.skipped),
            "notes": list(self.notes),
        }
        return {
            "cells": len(self.states),
            **self._counts,
            "states": [as_json(state) for state in self.states],
            "faults": [vars(fault) for fault in self.faults],
            **more,
        }

    @property
    def _counts(self) -> dict[str, int]:
        known = Counter(state.state for state in self.states)
        return {state: known[state] for state in STATES}

    def lines(self) -> list[str]:
        """Return what `m3 verify` prints."""
        states = ", ".join(f"{count(n)} {state}" for state, n in self._counts.items() if n)
        read = "" if self.files is None else f"; {counted(self.files, 'file')} read"
        again = "" if self.rescored is None else f"; {counted(self.rescored, 'result')} scored again"
        wrong = f"; {counted(len(self.faults), 'fault')}" if self.faults else ""
        named = [
            f"{one}: {line}" for one in STATES[1:3] for line in _first([str(s) for s in self.states if s.state == one])
        ]
        return [
            f"{counted(len(self.states), 'cell')}: {states or 'none planned'}{read}{again}{wrong}",
            *named,
            *(f"wrong: {line}" for line in _first([str(fault) for fault in self.faults])),
            *(f"not scored again: {line}" for line in _first(list(self.skipped))),
            *(f"note: {line}" for line in _first(list(self.notes))),
        ]


def _first(lines: list[str]) -> list[str]:
    more = [f"and {count(len(lines) - _SHOWN)} more: see --json"] if len(lines) > _SHOWN else []
    return [*map(abridged, lines[:_SHOWN]), *more]


def verify(asked: CommandLine, run: str | None = None, *, again: bool = False) -> Verified:
    """Check what a request, or a run of that name, has in its store. Nothing of the store is changed.

    Where nothing but `store=` is asked for: every plan of the store, and every file. `again`: score answers once more.

    Raises:
        M3Error: there is no such store, or no such run in it.
    """
    with untouched():
        if run is None and not asked.without("store").overrides:
            check = CellCheck(Shelf(place(asked)))
            looked = files.check(check.shelf, check.results)
            states = list(_every(check))
            found = Verified(tuple(states), tuple(looked.faults), tuple(looked.notes), looked.files)
        else:
            asked_for = config.compose(asked) if run is None else request(run, asked)
            check = CellCheck(Shelf(asked_for.store))
            states = list(check.states(asked_for.plan, asked_for.repeat, stored=run is not None))
            found = Verified(tuple(states), (), ())
        found = _with_faults(found, check)
        return _rescored(found, check) if again else found


def _with_faults(found: Verified, check: CellCheck) -> Verified:
    faults = [*found.faults, *(fault for state in found.states for fault in state.faults)]
    unseen = [f"the items of {name} are not at hand: ids are not compared" for name in sorted(check.unseen)]
    return replace(found, faults=tuple(dict.fromkeys(faults)), notes=(*found.notes, *unseen))


def _every(check: CellCheck) -> Iterator[CellState]:
    """Give the state of every cell that some plan of a store asked for, once, with as many repeats as a run took."""
    shelf, seen = check.shelf, set()
    repeats: Counter[str] = Counter()
    for key in shelf.keys("history"):
        if (past := shelf.find("history", key, PastRun)) is not None:
            repeats[past.plan] = max(repeats[past.plan], past.cells)
    for key in shelf.keys("plans"):
        try:
            plan = shelf.read("plans", key, Plan)
        except Wrong:
            continue  # it is named among the files
        for state in check.states(plan, max(0, repeats[key] // len(plan.cells) - 1), stored=True):
            name = (state.cell.short_key, state.repeat, plan.engine.name, plan.engine.dtype)
            if name not in seen:
                seen.add(name)
                yield state


def _rescored(found: Verified, check: CellCheck) -> Verified:
    """Score the results of all cells again."""
    names = {
        ("repeats" if s.repeat else "results", name): s for s in found.states for name in s.records if not s.faults
    }
    again = [rescore(check.shelf, check.results, *name) for name in names]
    faults = [fault for one in again for fault in one.faults]
    skipped = [f"{one.file}: {one.skipped}" for one in again if one.skipped]
    return replace(found, faults=(*found.faults, *faults), rescored=len(again) - len(skipped), skipped=tuple(skipped))


def export(asked: CommandLine, run: str | None, out: Path | None) -> Exported:
    """Write a store, or what the tables of a request or a run need of it, into an archive.

    Raises:
        M3Error: there is no such store or run, or nothing of it in the store.
    """
    if run is None and not asked.without("store").overrides:
        return archive.export(Shelf(place(asked)), out)
    looked = Lookup.of(asked if run is None else request(run, asked))
    return archive.export(Shelf(looked.request.store), out, looked.plans)
