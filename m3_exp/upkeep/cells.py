"""Every planned cell against the store: scored on all its items, failed with a reason, missing, or wrong.

A cell's result is found by what the store wrote down for its recipe (`spelled`), else by what results say of
themselves: models are not needed, nor is anything that a run remembers. What is found is then checked in itself
(`ResultCheck`) and against the cell: recipe, benchmark, engine and items.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Literal

from m3_exp import keys
from m3_exp.engines.protocol import module
from m3_exp.planning import label_text
from m3_exp.reading.scores import column
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.scoring.items import digest
from m3_exp.store import AnswerSet, FailureNote, Spelled
from m3_exp.types import Cell, EngineSettings, EvaluatorSpec, Json, M3Error, Plan, ResultRecord, identity
from m3_exp.upkeep.reader import Fault, Shelf, Wrong
from m3_exp.upkeep.results import Benchmarks, ResultCheck, items_of

State = Literal["scored", "failed", "missing", "wrong"]
STATES: tuple[State, ...] = ("scored", "failed", "missing", "wrong")
AGAIN = "remove it: the same m3 run makes it again, of the answers that are there"


@dataclass(frozen=True)
class CellState:
    """What a store holds of a planned cell, or of its repeat of that number. `why`: the reason where it is not scored.

    `keys` are those that the cell may have, `records` its results as CELL/NAME below results/ (of a repeat repeats/).
    """

    cell: Cell
    state: State
    why: str = ""
    repeat: int = 0
    keys: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        again = f" (repeat {self.repeat})" if self.repeat else ""
        reason = f": {self.why}" if self.why else ""
        return f"{label_text(self.cell.labels[0])} on {self.cell.evaluator.name}{again}{reason}"


class CellCheck:
    """Looks the cells of plans up in one store. `deep` holds answers against results too."""

    def __init__(self, shelf: Shelf, *, deep: bool = True) -> None:
        self.shelf, self.benchmarks = shelf, Benchmarks()
        self.results = ResultCheck(shelf, self.benchmarks, deep=deep)
        self.unseen: set[str] = set()  # benchmarks whose items are not at hand
        self._judged: dict[tuple[str, str], str] = {}
        self._rows: dict[tuple[str, int | None], str] = {}
        self._record = lru_cache(maxsize=64)(self._checked)

    def states(self, plan: Plan, repeat: int = 0, *, stored: bool = False) -> Iterator[CellState]:
        """Give the state of each cell of a plan, each followed by its repeats.

        `stored`: it is a plan of before, whose answers other versions of its engine may have given.
        """
        engines = self._engines(plan.engine, stored)
        for cell in plan.cells:
            for number in range(1 + repeat):
                yield self._state(cell, engines, number)

    def _state(self, cell: Cell, engines: Sequence[Mapping[str, str]], repeat: int) -> CellState:
        evaluator = self.benchmarks.of(cell.evaluator)
        if evaluator is None:
            why = f"its benchmark {cell.evaluator.target} cannot be loaded here: put its folder on PYTHONPATH"
            return CellState(cell, "missing", why, repeat)
        found = tuple(self._cell_keys(cell, evaluator, engines))
        kind = "repeats" if repeat else "results"
        here = [name for key in found for name in self.shelf.within(kind, key)]
        if repeat:
            here = [name for name in here if name.endswith(f"-{repeat}")]
        records = [(name, *self._record(kind, name)) for name in here]
        fitting = [(name, record) for name, record, _ in records if record and self._fits(cell, record, engines)]
        damaged = [name for name, record, _ in records if record is None]
        if (chosen := self._chosen(cell, evaluator, fitting)) is None:
            faults = tuple(fault for name, record, faults in records if record is None for fault in faults)
            if damaged:
                return CellState(cell, "wrong", str(faults[0]), repeat, found, tuple(damaged), faults)
            older = {r.evaluator.version for _, r, _ in records if r} - {evaluator.version}
            return self._without_result(cell, found, sorted(older), fitting, repeat)
        name, record = chosen
        faults = self._record(kind, name)[1] + self._against(cell, f"{kind}/{name}.json", record)
        about = (repeat, found, (name,))
        if faults:
            return CellState(cell, "wrong", str(faults[0]), *about, faults)
        if record.result.n_unscored:
            return CellState(cell, "failed", self._noted(found, repeat) or _unscored(record), *about)
        return CellState(cell, "scored", "", *about)

    def _checked(self, kind: str, name: str) -> tuple[ResultRecord | None, tuple[Fault, ...]]:
        """Return a result with what is wrong with it in itself."""
        file = f"{kind}/{name}.json"
        try:
            record = self.shelf.read(kind, name, ResultRecord)
        except Wrong as wrong:
            return None, (Fault(file, str(wrong), AGAIN),)
        return record, tuple(Fault(file, what, AGAIN) for what in self.results.faults(kind, name, record))

    # ---------------------------------------------------------------------------------------------- finding a result

    def _cell_keys(self, cell: Cell, evaluator: Evaluator, engines: Sequence[Mapping[str, str]]) -> list[str]:
        """Return the keys that a cell may have: those spelled for it, else of results and failures that name it."""
        spelled = [
            self.shelf.find("spelled", keys.spelled_key(cell.recipe, self._judged_by(cell.evaluator, engine)), Spelled)
            for engine in engines
        ]
        if known := list(dict.fromkeys(one.cell_key for one in spelled if one is not None)):
            return known
        stated = self._stated.get(cell.recipe.text, {})
        spec = _asked(cell.evaluator, evaluator)
        return [key for key, specs in stated.items() if spec in specs]

    @cached_property
    def _stated(self) -> Mapping[str, Mapping[str, set[str]]]:
        """The benchmarks of each recipe as written, by cell key: what results and failures say that they are of."""
        found: dict[str, dict[str, set[str]]] = {}
        results = ((name, self.shelf.find("results", name, ResultRecord)) for name in self.shelf.keys("results"))
        failures = ((name, self.shelf.find("failures", name, FailureNote)) for name in self.shelf.keys("failures"))
        for name, one in chain(results, failures):
            if one is None or one.recipe is None or one.evaluator is None:
                continue
            if (evaluator := self.benchmarks.of(one.evaluator)) is not None:
                key = name.partition("/")[0].partition("-")[0]
                specs = found.setdefault(one.recipe.text, {}).setdefault(key, set())
                specs.add(_asked(one.evaluator, evaluator))
        return found

    def _judged_by(self, spec: EvaluatorSpec, engine: Mapping[str, str]) -> str:
        evaluator = self.benchmarks.of(spec)
        assert evaluator is not None
        key = (_asked(spec, evaluator), identity(engine))
        if key not in self._judged:
            self._judged[key] = keys.judged_by(spec, evaluator, engine)
        return self._judged[key]

    def _engines(self, settings: EngineSettings, stored: bool) -> list[Mapping[str, str]]:
        """Return what a plan's answers may have come from: the engine as it is here, and those that the store names.

        An engine whose package is not here, or a file of answers that is gone, cannot say what it is.
        """
        here: list[Mapping[str, str]] = []
        with contextlib.suppress(M3Error, ImportError):
            here = [module(settings.name).fingerprint(settings)]
        if here and not stored:
            return here
        own = [engine for engine in self._named if engine.get("dtype") == settings.dtype and engine not in here]
        alike = [engine for engine in own if engine.get("engine") == settings.name]
        return [*here, *(alike or own)]

    @cached_property
    def _named(self) -> list[Mapping[str, str]]:
        """The engines that the store has answers of."""
        found = (self.shelf.find("answer_sets", key, AnswerSet) for key in self.shelf.keys("answer_sets"))
        return list({identity(one.engine): one.engine for one in found if one is not None}.values())

    # --------------------------------------------------------------------------------------- a result against a cell

    def _fits(self, cell: Cell, record: ResultRecord, engines: Sequence[Mapping[str, str]]) -> bool:
        """Tell whether a result is of a cell's benchmark, with its settings, and of an engine that it may be of."""
        evaluator, other = self.benchmarks.of(cell.evaluator), self.benchmarks.of(record.evaluator)
        if evaluator is None or other is None or dict(record.engine) not in [dict(engine) for engine in engines]:
            return False
        return (
            _asked(cell.evaluator, evaluator) == _asked(record.evaluator, other)
            and record.evaluator.version == evaluator.version
            and record.sampling == evaluator.sampling
        )

    def _chosen(
        self, cell: Cell, evaluator: Evaluator, records: Sequence[tuple[str, ResultRecord]]
    ) -> tuple[str, ResultRecord] | None:
        """Return the one of a cell's results that is of its items, with its tokenizer where there are several."""
        items = self.benchmarks.items(cell.evaluator, cell.limit)
        if items is None:
            self.unseen.add(cell.evaluator.name)
            sizes = {name: len(items_of(record)) for name, record in records}
            most = [size for size in sizes.values() if cell.limit is None or size <= cell.limit]
            own = [(name, record) for name, record in records if sizes[name] == max(most, default=0)]
        else:
            rows = self._rows_digest(cell)
            own = [(name, r) for name, r in records if r.rows_digest in (None, rows)]
            ids = {item.id for item in items}
            own = [(name, r) for name, r in own if r.rows_digest is not None or items_of(r) == ids]
        named = [(name, record) for name, record in own if record.tokenizer == str(cell.tokenizer)]
        return next(iter(named or own), None)

    def _rows_digest(self, cell: Cell) -> str:
        key = (identity(cell.evaluator), cell.limit)
        if key not in self._rows:
            self._rows[key] = digest(self.benchmarks.items(cell.evaluator, cell.limit) or ())
        return self._rows[key]

    def _against(self, cell: Cell, file: str, record: ResultRecord) -> tuple[Fault, ...]:
        """Return where a result is not what its cell asked for, though it is of the same items."""
        items = self.benchmarks.items(cell.evaluator, cell.limit)
        wrong = []
        if items is not None:
            planned, scored = {item.id for item in items}, items_of(record)
            if lost := sorted(planned - scored):
                wrong.append(f"{len(lost)} of its {len(planned)} items have no score, such as {lost[0]!r}")
            if more := sorted(scored - planned):
                wrong.append(f"it scores {more[0]!r}, which is not among the {len(planned)} items")
        if record.recipe is not None and record.recipe.dtype != cell.recipe.dtype:
            wrong.append(f"its weights are {record.recipe.dtype}, the cell's {cell.recipe.dtype}")
        return tuple(Fault(file, what, AGAIN) for what in wrong)

    def _without_result(
        self,
        cell: Cell,
        found: Sequence[str],
        older: Sequence[str],
        others: Sequence[tuple[str, ResultRecord]],
        repeat: int,
    ) -> CellState:
        about = (repeat, tuple(found))
        if reason := self._noted(found, repeat):
            return CellState(cell, "failed", reason, *about)
        sizes = [len(items_of(record)) for _, record in others]
        there = f"no result of its items; there is one of {max(sizes)} other items" if sizes else "no result"
        if older and not sizes:
            there = f"no result of this version of its benchmark; there is one of version {older[-1]}"
        return CellState(cell, "missing", there, *about)

    def _noted(self, found: Sequence[str], repeat: int) -> str:
        notes = (self.shelf.find("failures", key + (f"-{repeat}" if repeat else ""), FailureNote) for key in found)
        return next((note.reason for note in notes if note is not None), "")


def _asked(spec: EvaluatorSpec, evaluator: Evaluator) -> str:
    """Return what a result depends on of a benchmark's settings, as a text."""
    dead = (*evaluator.operational, *evaluator.ineffective)
    settings = {key: value for key, value in evaluator.settings.items() if key not in dead}
    return identity([spec.name, spec.target, spec.skill, settings])


def _unscored(record: ResultRecord) -> str:
    values, reasons = column(record.scores, "value"), column(record.scores, "reason")
    said = sorted({reason or "no reason given" for value, reason in zip(values, reasons, strict=True) if value is None})
    return f"{record.result.n_unscored} of {record.result.n} items are unscored: {'; '.join(said[:3])}"


def as_json(state: CellState) -> Json:
    """Return a cell's state as `m3 verify --json` prints it."""
    label = label_text(state.cell.labels[0])
    return {
        "cell": state.cell.short_key, "recipe": label, "benchmark": state.cell.evaluator.name, "repeat": state.repeat,
        "state": state.state, "why": state.why,
    }  # fmt: skip
