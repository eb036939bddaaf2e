"""A cell made ready, its keys, and its result in the store: what running and reporting both need of a plan's cell."""

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from m3_exp import chat
from m3_exp.merging.canonical import canonical, recipe_key
from m3_exp.merging.source import parse_source, without_fetching
from m3_exp.merging.tokenizer import open_tokenizer, refusing, tokenizer_directory
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.scoring.evaluator import ChatSettings, Evaluator
from m3_exp.scoring.items import digest, first
from m3_exp.store import Records, Spelled, Store
from m3_exp.types import (
    Cell,
    CellResult,
    EngineSettings,
    EvaluatorSpec,
    M3Error,
    Plan,
    Problem,
    Prompt,
    ResultRecord,
    Sampling,
    Source,
    identity,
)


@dataclass(frozen=True)
class Task:
    """A cell's evaluator, items and rendered prompts. `prompts[i]` belongs to `problems[i]`."""

    cell: Cell
    evaluator: Evaluator
    problems: tuple[Problem, ...]
    prompts: tuple[Prompt, ...]
    items_digest: str  # identity of the item set with its rows and rendered prompts
    repeat: int = 0  # above 0: the same once more, in another order and with half the batch

    @property
    def sampling(self) -> Sampling:
        return self.evaluator.sampling

    def in_order(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return prompts of this task in the order they are asked: as they are, each repeat in an order of its own."""
        if not self.repeat:
            return list(prompts)
        return sorted(prompts, key=lambda prompt: identity([self.repeat, prompt.id]))


class Desk:
    """Prepares cells and finds their results; remembers evaluators, items and tokenizers while it lives."""

    def __init__(self, store: Store, engine: EngineSettings) -> None:
        self.store = store
        self.engine = engine
        module = importlib.import_module(f"m3_exp.engines.{engine.name}")
        self.fingerprint: Mapping[str, str] = module.fingerprint(engine)
        self.batched: bool = module.batched(engine)  # whether a text may depend on what else is in flight
        self._evaluators: dict[str, Evaluator] = {}
        self._items: dict[str, Sequence[Problem]] = {}
        self._problems: dict[tuple[str, int | None], tuple[Problem, ...]] = {}
        self._rows: dict[tuple[str, int | None], str] = {}
        self._prompts: dict[tuple[str, int | None, Source], tuple[tuple[Prompt, ...], str]] = {}
        self._tokenizers: dict[Source, Any] = {}
        self._recipe_keys: dict[str, str] = {}

    def evaluator(self, spec: EvaluatorSpec) -> Evaluator:
        key = identity(spec)
        if key not in self._evaluators:
            self._evaluators[key] = load_evaluator(spec)
        return self._evaluators[key]

    def problems(self, cell: Cell) -> tuple[Problem, ...]:
        """Return a cell's items: all, or the first `limit` in the order of their hashes."""
        spec, key = cell.evaluator, (identity(cell.evaluator), cell.limit)
        if key not in self._problems:
            if key[0] not in self._items:
                self._items[key[0]] = self.evaluator(spec).problems(spec.items)
            self._problems[key] = tuple(first(self._items[key[0]], spec.name, cell.limit))
        return self._problems[key]

    def rows_digest(self, cell: Cell) -> str:
        """Return the identity of a cell's items: their ids and rows, without prompts."""
        key = (identity(cell.evaluator), cell.limit)
        if key not in self._rows:
            self._rows[key] = digest(self.problems(cell))
        return self._rows[key]

    def tokenizer(self, source: Source) -> Any:
        if source not in self._tokenizers:
            self._tokenizers[source] = open_tokenizer(tokenizer_directory(source, self.store))
        return self._tokenizers[source]

    def task(self, cell: Cell) -> Task:
        """Load a cell's items and render its prompts to token ids.

        Raises:
            M3Error: items or tokenizer not at hand, or a prompt that would begin with two BOS tokens.
        """
        evaluator, problems = self.evaluator(cell.evaluator), self.problems(cell)
        key = (identity(cell.evaluator), cell.limit, cell.tokenizer)
        if key not in self._prompts:
            prompts = self._rendered(cell, problems)
            digest = identity([[p.id, p.row, q.token_ids] for p, q in zip(problems, prompts, strict=True)])
            self._prompts[key] = prompts, digest
        return Task(cell, evaluator, problems, *self._prompts[key])

    def prepared(self, task: Task, problems: Sequence[Problem]) -> Task:
        """Return the task with the items that its evaluator made; what they were made of stays its identity."""
        return replace(task, problems=tuple(problems), prompts=self._rendered(task.cell, problems))

    def asked(self, task: Task, texts: Sequence[str]) -> tuple[Task, list[str]]:
        """Return a task of the different prompts that an evaluator asks while it makes its items, and the id of each
        text in it.
        """
        rendered = self.render(task.cell, texts)
        ids = [f"ask-{identity(tokens)[:32]}" for tokens in rendered]
        distinct = dict(zip(ids, zip(texts, rendered, strict=True), strict=True))
        problems = tuple(Problem(key, {"prompt": text}) for key, (text, _) in distinct.items())
        prompts = tuple(Prompt(f"{task.evaluator.name}/{key}", tokens) for key, (_, tokens) in distinct.items())
        return replace(task, problems=problems, prompts=prompts), ids

    def _rendered(self, cell: Cell, problems: Sequence[Problem]) -> tuple[Prompt, ...]:
        evaluator = self.evaluator(cell.evaluator)
        ids = self.render(cell, [evaluator.prompt(problem) for problem in problems])
        return tuple(Prompt(f"{evaluator.name}/{p.id}", tokens) for p, tokens in zip(problems, ids, strict=True))

    def render(self, cell: Cell, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Turn prompts into token ids, as plain text or (`chat_template=true`, `chat_args`) as a user's message.

        Raises:
            M3Error: a prompt would begin with two BOS tokens, or the tokenizer or its chat template cannot be used.
        """
        tokenizer = self.tokenizer(cell.tokenizer)
        if cell.evaluator.settings.get("chat_template"):
            folder = tokenizer_directory(cell.tokenizer, self.store)
            found = chat.render(folder, texts, cell.evaluator.settings.get("chat_args"))
        else:
            with refusing(cell.tokenizer):
                found = [tuple(int(i) for i in tokenizer(text)["input_ids"]) for text in texts]
        for text, ids in zip(texts, found, strict=True):
            _check_bos(tokenizer, text, ids)
        return found

    # ------------------------------------------------------------------------------------------------------- keys

    def recipe_key(self, cell: Cell) -> str:
        spelled = identity(cell.recipe)
        if spelled not in self._recipe_keys:
            self._recipe_keys[spelled] = recipe_key(cell.recipe, self.store)
        return self._recipe_keys[spelled]

    def answers_key(self, digest: str, task: Task) -> str:
        """Key of a set of answers: weights, benchmark, sampling (max_tokens and stops included) and engine.

        An answer in it is keyed by item, sample and prompt ids. A repeat has a key of its own.
        """
        parts: list[Any] = [digest, task.cell.evaluator.name, task.sampling, self.fingerprint]
        return identity([*parts, {"repeat": task.repeat}] if task.repeat else parts)

    def cell_key(self, cell: Cell) -> str:
        """Key of a cell whatever its item set: recipe by content, evaluator with settings and version, engine."""
        evaluator = self.evaluator(cell.evaluator)
        spec = _meaning(cell.evaluator, evaluator)
        return identity([self.recipe_key(cell), spec, evaluator.version, evaluator.sampling, self.fingerprint])

    def prepared_key(self, digest: str, task: Task) -> str:
        """Key of the items that an evaluator makes with a model: weights, settings, and the items it makes them of."""
        spec = _meaning(task.cell.evaluator, task.evaluator)
        return identity([digest, spec, task.evaluator.version, task.sampling, self.fingerprint, task.items_digest])

    def _spelled_key(self, cell: Cell) -> str:
        """The cell as it is written down, for finding its result where the models are not at hand any more."""
        evaluator = self.evaluator(cell.evaluator)
        spec = _meaning(cell.evaluator, evaluator)
        return identity([canonical(cell.recipe), spec, evaluator.version, evaluator.sampling, self.fingerprint])

    # ----------------------------------------------------------------------------------------------------- results

    def result(self, task: Task) -> ResultRecord | None:
        """Return the stored result of exactly this cell, item set and repeat, or None."""
        return self._results(task).get(_result_name(task))

    def put_result(self, task: Task, record: ResultRecord) -> None:
        record = replace(record, rows_digest=self.rows_digest(task.cell))
        self._results(task).put(_result_name(task), record)
        self.store.spelled.put(self._spelled_key(task.cell), Spelled(self.cell_key(task.cell)))

    def _results(self, task: Task) -> Records[ResultRecord]:
        return self.store.results(self.cell_key(task.cell), repeats=task.repeat > 0)

    def largest_result(self, cell: Cell) -> ResultRecord | None:
        """Return a cell's result on the largest item set that the store has (exactly `limit` where one is given).

        Its items are the first of those that the cell names now; where these are not at hand, any that bear their name.
        Models need not be at hand: then the key is the one remembered for the cell as it is written.
        """
        key = self._known_key(cell)
        if key is None:
            return None
        results = self.store.results(key)
        sizes = {name: _size(name) for name in results}
        wanted = set(sizes.values()) if cell.limit is None else {self._limited(cell)}
        for size in sorted(wanted - {0}, reverse=True):
            records = [results.get(name) for name in sizes if sizes[name] == size]
            fitting = [record for record in records if record is not None and self._fits(cell, size, record)]
            if fitting:
                return self._same_prompts(cell, size, fitting)
        return None

    def _fits(self, cell: Cell, size: int, record: ResultRecord) -> bool:
        """Tell whether a result is one of the first `size` items of a cell, as far as they are at hand."""
        if record.items != cell.evaluator.items:
            return False
        named = replace(cell, limit=size)
        try:
            if record.rows_digest is not None:
                return record.rows_digest == self.rows_digest(named)
            if record.tokenizer is not None:
                named = replace(named, tokenizer=parse_source(record.tokenizer))
            return record.items_digest == self.task(named).items_digest
        except M3Error:
            return True

    def _same_prompts(self, cell: Cell, size: int, records: Sequence[ResultRecord]) -> ResultRecord | None:
        """Return the one of several results whose prompts are the cell's: tokenizers may differ on the same items."""
        if len(records) == 1:
            return records[0]
        try:
            current = self.task(replace(cell, limit=size)).items_digest
        except M3Error:
            return None  # which of them it is cannot be told
        return next((record for record in records if record.items_digest == current), None)

    def repeats(self, cell: Cell, record: ResultRecord) -> list[CellResult]:
        """Return the repeats of a stored result (of the same items), by their number."""
        known = self.store.results(self._known_key(cell) or "", repeats=True)
        fitting = [r for r in known.values() if r.items_digest == record.items_digest]
        results = [CellResult(cell, r, repeat=r.repeat.number) for r in fitting if r.repeat]
        return sorted(results, key=lambda result: result.repeat)

    def _known_key(self, cell: Cell) -> str | None:
        """Return a cell's key; where its models are not at hand, the one remembered for the cell as it is written."""
        try:
            return self.cell_key(cell)
        except M3Error:
            remembered = self.store.spelled.get(self._spelled_key(cell))
            return None if remembered is None else remembered.cell_key

    def failure_key(self, cell: Cell, repeat: int = 0) -> str:
        return self.cell_key(cell) + (f"-{repeat}" if repeat else "")

    def failure(self, cell: Cell) -> str | None:
        try:
            noted = self.store.failures.get(self.cell_key(cell))
        except M3Error:
            return None
        return noted.reason if noted else None

    def _limited(self, cell: Cell) -> int:
        try:
            return len(self.problems(cell))
        except M3Error:
            return cell.limit or 0


def _result_name(task: Task) -> str:
    return f"{len(task.problems):06d}-{task.items_digest[:16]}" + (f"-{task.repeat}" if task.repeat else "")


def _size(name: str) -> int:
    """Return how many items a result is of, by its file's name; 0 for a name that is none."""
    number = name.split("-")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0


def _meaning(spec: EvaluatorSpec, evaluator: Evaluator) -> EvaluatorSpec:
    """Return a benchmark's settings without those that no result depends on, and whatever its items.

    Settings that depend on others (`thought`) are what they came to, so that a default and its value are one thing.
    """
    dead = (*evaluator.operational, *evaluator.ineffective)
    chosen = evaluator.settings if isinstance(evaluator, ChatSettings) else spec.settings
    settings = {key: value for key, value in chosen.items() if key not in dead}
    settings |= {f"content of {key}": value for key, value in evaluator.pointed_to().items()}
    return replace(spec, settings=settings, items="")


def _check_bos(tokenizer: Any, text: str, ids: Sequence[int]) -> None:
    bos = tokenizer.bos_token_id
    if bos is not None and len(ids) > 1 and ids[0] == bos and ids[1] == bos:
        raise M3Error(
            f"the tokenizer of {tokenizer.name_or_path} puts two BOS tokens in front of {json.dumps(text[:40])}"
        )


def vocabulary(tokenizer: Any) -> dict[str, int]:
    return dict(tokenizer.get_vocab())


def extends(wide: Mapping[str, int], narrow: Mapping[str, int]) -> bool:
    """Tell whether every token of `narrow` has the same id in `wide`."""
    return all(wide.get(token) == index for token, index in narrow.items())


def widest(sources: list[Source], desk: Desk) -> dict[Source, Source]:
    """Map each tokenizer to the widest one that extends it: prompts of one class can share an engine."""
    vocabularies = {source: vocabulary(desk.tokenizer(source)) for source in sources}
    by_size = sorted(sources, key=lambda source: (-len(vocabularies[source]), str(source)))
    heads: list[Source] = []
    chosen: dict[Source, Source] = {}
    for source in by_size:
        head = next((h for h in heads if extends(vocabularies[h], vocabularies[source])), None)
        if head is None:
            heads.append(source)
        chosen[source] = head or source
    return chosen


def found(plan: Plan, store: Store, *, repeats: bool = False) -> list[CellResult]:
    """Look every cell of a plan up: its result on the largest item set, or the reason of its last failure.

    `repeats` adds what the store has of them behind each result.
    """
    desk = Desk(store, plan.engine)
    looked: list[CellResult] = []
    with without_fetching():
        for cell in plan.cells:
            record = desk.largest_result(cell)
            looked.append(CellResult(cell, record, desk.failure(cell)))
            if repeats and record is not None:
                looked += desk.repeats(cell, record)
    return looked


def repeats_words(plan: Plan, store: Store, repeat: int) -> list[str]:
    """Say for `m3 plan` and `m3 status` what `repeat=K` adds to a plan's cells; nothing where it is 0."""
    if not repeat:
        return []
    desk = Desk(store, plan.engine)
    done, answers = 0, 0
    with without_fetching():
        for cell in plan.cells:
            left, asked = _left(cell, desk, repeat)
            done, answers = done + repeat - left, answers + asked
    return [f"repeats (noise floor): {done} of {len(plan.cells) * repeat} done; {answers} answers more to generate"]


def _left(cell: Cell, desk: Desk, repeat: int) -> tuple[int, int]:
    """Return how many repeats of a cell are not done, and the answers that they take."""
    try:
        task = desk.task(cell)
        held = [desk.result(replace(task, repeat=number)) for number in range(1, repeat + 1)]
    except M3Error:
        return repeat, 0
    left = sum(record is None or record.result.n_unscored > 0 for record in held)
    return left, left * len(task.prompts) * task.sampling.n
