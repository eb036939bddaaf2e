"""What the store has of a plan's cells, by their keys (`keys.py`).

items digest   the items with their rendered prompts
rows digest    the items alone
"""

import contextlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from m3_exp import keys
from m3_exp.engines.protocol import module
from m3_exp.machine import in_parts
from m3_exp.merging import methods, sparsify
from m3_exp.merging.canonical import recipe_key
from m3_exp.merging.source import check_at_hand, parse_source, without_fetching
from m3_exp.reading.files import exists
from m3_exp.reading.scores import noted
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.scoring.items import is_gone, no_file
from m3_exp.store import FailureNote, Records, Spelled, Store
from m3_exp.tasks import Task, Tasks
from m3_exp.types import (
    Cell,
    CellResult,
    EngineSettings,
    M3Error,
    Plan,
    Recipe,
    ResultRecord,
    Source,
    identity,
)


def look_up(
    plan: Plan, store: Store, *, repeats: bool = False, beside: Callable[[CellResult], object] | None = None
) -> list[CellResult]:
    """Look every cell of a plan up: its result on the largest item set, or the reason of its last failure.

    `repeats` adds the repeats that the store has, each after its result. `beside` keeps something in the attributes of
    each result, as a cached property does: of thousands of cells, every core looks up a part.
    """
    results = Results(store, plan.engine)
    _check_plugins(plan, results)
    failed, repeats = any(store.failures), repeats and store.has_repeats()

    def looked(cell: Cell) -> list[dict[str, Any]]:
        record = results.largest(cell)
        found = [CellResult(cell, record, results.failure(cell) if failed else None)]
        if repeats and record is not None:
            found += results.repeats(cell, record)
        if beside is not None:
            for item in found:
                beside(item)
        return [{name: held for name, held in vars(item).items() if name != "cell"} for item in found]

    with without_fetching():
        held = in_parts(lambda cells: list(map(looked, cells)), plan.cells)
    return [_restored(cell, one) for cell, own in zip(plan.cells, held, strict=True) for one in own]


def _restored(cell: Cell, held: dict[str, Any]) -> CellResult:
    """Return a result with all of its attributes; another process may have made it, but its cell is the plan's."""
    found = CellResult(cell, None)
    vars(found).update(held)
    return found


def _check_plugins(plan: Plan, results: "Results") -> None:
    """Refuse to look up what no key can be made of: a module that is not found would read as "not run".

    Raises:
        M3Error: a method, sparsifier or benchmark cannot be imported.
    """
    recipes = {id(cell.recipe): cell.recipe for cell in plan.cells}.values()
    for method in sorted({recipe.method for recipe in recipes}):
        methods.load(method)
    for target in sorted({str(recipe.sparsify.get("target", sparsify.DARE)) for recipe in recipes if recipe.sparsify}):
        sparsify.load(target)
    for spec in {results.tasks.key(cell.evaluator): cell.evaluator for cell in plan.cells}.values():
        module, _, _ = spec.target.partition(":")
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            load_evaluator(spec)


def failures(plan: Plan, results: "Results") -> list[tuple[Cell, str]]:
    """Return the cells of a plan whose last try failed, each with the reason."""
    if not any(results.store.failures):
        return []
    with without_fetching():
        found = [(cell, results.failure(cell)) for cell in plan.cells]
    return [(cell, reason) for cell, reason in found if reason]


def gone(plan: Plan) -> dict[str, str]:
    """Return the models on this disk, and the files of items and answers, that a plan names and that are not there.

    Each comes with the refusal of what needs it.
    """
    recipes = {id(cell.recipe): cell.recipe for cell in plan.cells}.values()
    models = {source for recipe in recipes for source in (recipe.base, *recipe.experts)}
    lost: dict[str, str] = {}
    for source in sorted({*models, *(cell.tokenizer for cell in plan.cells)}, key=str):
        try:
            check_at_hand(source)
        except M3Error as error:
            lost[str(source)] = str(error)
    if (answers := plan.engine.record) and not exists(Path(answers)):
        lost[answers] = f"engine.answers={answers} does not exist: give a store's directory or a file of answers"
    items = sorted({cell.evaluator.items for cell in plan.cells})
    return lost | {name: no_file(name) for name in items if is_gone(name)}


def _outlived(engine: EngineSettings, store: Store) -> Mapping[str, str] | None:
    """Return the engine of recorded answers whose file is gone, if a store has answers of one alone; None otherwise."""
    if not engine.record or exists(Path(engine.record)):
        return None
    known = {identity(one.engine): one.engine for one in store.answer_sets.values()}
    known = {key: one for key, one in known.items() if one.get("dtype") == engine.dtype}
    return next(iter(known.values())) if len(known) == 1 else None


def gone_words(plan: Plan) -> list[str]:
    """Return the one note of a view whose models or items are not there; none where they are."""
    lost = gone(plan)
    return [f"not at hand: {', '.join(lost)}; what the store holds of them is shown"] if lost else []


class Results:
    """The results that one engine's answers have in a store, and the keys of all that they are made of."""

    def __init__(self, store: Store, engine: EngineSettings) -> None:
        self.store = store
        self.tasks = Tasks(store)
        engine_module = module(engine.name)
        outlived = _outlived(engine, store)
        self.fingerprint = engine_module.fingerprint(engine) if outlived is None else outlived
        self.batched = engine_module.batched(engine)  # whether a text may depend on what else is in flight
        self._recipe_keys: dict[int, tuple[Recipe, str]] = {}
        self._models: dict[Source, Source] = {}  # by name -> by content
        self._judged: dict[str, str] = {}

    # ------------------------------------------------------------------------------------------------------- keys

    def recipe_key(self, cell: Cell) -> str:
        """Return the key of a cell's recipe; the cells of one recipe share the object, so it is computed once."""
        known = self._recipe_keys.get(id(cell.recipe))
        if known is None or known[0] is not cell.recipe:
            known = self._recipe_keys[id(cell.recipe)] = cell.recipe, recipe_key(cell.recipe, self.store, self._models)
        return known[1]

    def answers_key(self, digest: str, task: Task) -> str:
        """Key of a set of answers: weights, benchmark, sampling (max_tokens and stops included) and engine.

        An answer in it is keyed by item, sample and prompt ids. A repeat has a key of its own.
        """
        return keys.answers_key(digest, task.evaluator.name, task.sampling, self.fingerprint, task.repeat)

    def cell_key(self, cell: Cell) -> str:
        """Key of a cell for all of its item sets: recipe by content, evaluator with settings and version, engine."""
        return keys.cell_key(self.recipe_key(cell), self._judged_by(cell))

    def prepared_key(self, digest: str, task: Task) -> str:
        """Key of the items that an evaluator makes with a model: weights, settings, and the items it makes them of."""
        return keys.prepared_key(digest, self._judged_by(task.cell), task.items_digest)

    def spelled_key(self, cell: Cell) -> str:
        """Key of a cell by its recipe as written (paths and names), for when its models are not at hand any more."""
        return keys.spelled_key(cell.recipe, self._judged_by(cell))

    def _judged_by(self, cell: Cell) -> str:
        """Return what else a cell's key is made of, as members of a JSON list: ten thousand cells share a few of them.

        It is made anew where a setting points to a file, which may change.
        """
        key, evaluator = self.tasks.key(cell.evaluator), self.tasks.evaluator(cell.evaluator)
        if key in self._judged:
            return self._judged[key]
        judged = keys.judged_by(cell.evaluator, evaluator, self.fingerprint)
        return judged if evaluator.pointed_to() else self._judged.setdefault(key, judged)

    # ----------------------------------------------------------------------------------------------------- results

    def get(self, task: Task) -> ResultRecord | None:
        """Return the stored result of exactly this cell, item set and repeat, or None."""
        return self._records(task).get(result_name(task))

    def put(self, task: Task, record: ResultRecord) -> None:
        record = replace(record, rows_digest=self.tasks.rows_digest(task.cell, task.cell.limit))
        self._records(task).put(result_name(task), record)
        self.remember(task.cell)

    def remember(self, cell: Cell) -> None:
        """Keep a cell's key by its recipe as written, so that its results are found when its models are gone."""
        spelled, known = self.spelled_key(cell), Spelled(self.cell_key(cell))
        if self.store.spelled.get(spelled) != known:
            self.store.spelled.put(spelled, known)

    def welcome(self, cell: Cell, repeat: int = 0) -> None:
        """Take up a result that was made before: its failure is past, and its models may have another path now."""
        self.forget_failure(cell, repeat)
        with contextlib.suppress(OSError):
            self.remember(cell)

    def is_done(self, task: Task) -> bool:
        """Tell whether a task has a complete result that may stand."""
        record = self.get(task)
        return record is not None and record.result.n_unscored == 0 and is_contained(record, task.evaluator)

    def knows(self, cell: Cell) -> bool:
        """Tell whether the store may hold results or answers of a cell: told without its prompts."""
        made = self.store.merges.get(self.recipe_key(cell)) is not None
        return made or any(self.store.results(self.cell_key(cell)))

    def _records(self, task: Task) -> Records[ResultRecord]:
        return self.store.results(self.cell_key(task.cell), repeats=task.repeat > 0)

    def largest(self, cell: Cell) -> ResultRecord | None:
        """Return a cell's result on the largest item set that the store has (exactly `limit` items if one is given).

        The result's items must be the first n of the cell's items, wherever these lie. If the cell's items are not at
        hand, the name of the item set must do. If the models are not at hand, the cell's key is the one that the store
        remembers for it (`spelled_key`).
        """
        key = self._known_key(cell)
        if key is None:
            return None
        records = self.store.results(key)
        sizes = {name: _size(name) for name in records}
        wanted = set(sizes.values()) if cell.limit is None else {self._limited(cell)}
        for size in sorted(wanted - {0}, reverse=True):
            known = [records.get(name) for name in sizes if sizes[name] == size]
            fitting = [record for record in known if record is not None and self._fits(cell, size, record)]
            if fitting:
                return self._same_prompts(cell, size, fitting)
        return None

    def outlive(self, cell: Cell) -> bool:
        """Tell whether the store has a complete result of a cell whose models or items are not at hand."""
        record = self.largest(cell)
        return record is not None and record.result.n_unscored == 0

    def _fits(self, cell: Cell, size: int, record: ResultRecord) -> bool:
        """Tell whether a result is one of the first `size` items of a cell, as far as they are at hand."""
        try:
            if record.rows_digest is not None:
                return record.rows_digest == self.tasks.rows_digest(cell, size)
            limited = replace(cell, limit=size)
            if record.tokenizer is not None:
                limited = replace(limited, tokenizer=parse_source(record.tokenizer))
            return record.items_digest == self.tasks.task(limited).items_digest
        except M3Error:
            return record.items == cell.evaluator.items

    def _same_prompts(self, cell: Cell, size: int, records: Sequence[ResultRecord]) -> ResultRecord | None:
        """Return the one of several results whose prompts are the cell's: tokenizers may differ on the same items."""
        if len(records) == 1:
            return records[0]
        try:
            current = self.tasks.task(replace(cell, limit=size)).items_digest
        except M3Error:  # which of them it is, only the tokenizer's name can tell
            named = [record for record in records if record.tokenizer == str(cell.tokenizer)]
            return named[0] if len(named) == 1 else None
        return next((record for record in records if record.items_digest == current), None)

    def repeats(self, cell: Cell, record: ResultRecord) -> list[CellResult]:
        """Return the repeats of a stored result (of the same items), by their number."""
        known = self.store.results(self._known_key(cell) or "", repeats=True)
        fitting = [r for r in known.values() if r.items_digest == record.items_digest]
        repeats = [CellResult(cell, r, repeat=r.repeat.number) for r in fitting if r.repeat]
        return sorted(repeats, key=lambda result: result.repeat)

    def _known_key(self, cell: Cell) -> str | None:
        """Return a cell's key. If its models are not at hand: the key that the store remembers (`spelled_key`)."""
        try:
            return self.cell_key(cell)
        except M3Error:
            with contextlib.suppress(M3Error):  # a file that a setting points to is gone as well
                remembered = self.store.spelled.get(self.spelled_key(cell))
                return None if remembered is None else remembered.cell_key
            return None

    def _limited(self, cell: Cell) -> int:
        try:
            return len(self.tasks.problems(cell))
        except M3Error:
            return cell.limit or 0

    # ---------------------------------------------------------------------------------------------------- failures

    def failure(self, cell: Cell) -> str | None:
        """Return why a cell has no complete result, if it was tried."""
        try:
            noted = self.store.failures.get(self._failure_key(cell))
        except M3Error:
            return None
        return noted.reason if noted else None

    def note_failure(self, cell: Cell, reason: str, trace: str = "", repeat: int = 0) -> None:
        """Note why a cell has no complete result, as far as its key is to be had and the store may be written."""
        with contextlib.suppress(M3Error, OSError):
            self.store.failures.put(
                self._failure_key(cell, repeat), FailureNote(reason, trace, cell.recipe, cell.evaluator)
            )

    def forget_failure(self, cell: Cell, repeat: int = 0) -> None:
        self.store.failures.drop(self._failure_key(cell, repeat))

    def _failure_key(self, cell: Cell, repeat: int = 0) -> str:
        return self.cell_key(cell) + (f"-{repeat}" if repeat else "")


def result_name(task: Task) -> str:
    """Return the name of a task's result among those of its cell, as in `000096-0f3e...` for 96 items."""
    return f"{len(task.problems):06d}-{task.items_digest[:16]}" + (f"-{task.repeat}" if task.repeat else "")


def _size(name: str) -> int:
    """Return how many items a result is of, by its file's name; 0 for a name that is none."""
    number = name.split("-")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0


def is_contained(record: ResultRecord, evaluator: Evaluator) -> bool:
    """Tell whether a result may stand. One of programs that ran in no sandbox needs `allow_weak`."""
    return evaluator.allow_weak or not noted(record.scores, "sandbox", "weak")
