"""Carries a plan out: groups, what is cached, failures, restarts. Here merging, engines and scoring meet.

A group is what can share one set of weights in one engine: a recipe with its cells. Workers (one engine each) take
groups from one queue. A failure is recorded and never stops the others; the same command continues after any kill.
"""

import contextlib
import importlib
import os
import queue
import secrets
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from m3_exp.cells import Desk, Task, widest
from m3_exp.engines.protocol import Engine, EngineDied, prompt_hash
from m3_exp.heartbeat import Heartbeat
from m3_exp.merging import stream
from m3_exp.planning import spelled
from m3_exp.progress import Progress
from m3_exp.reporting.wandb.tracker import Tracker, Untracked
from m3_exp.scoring.cache import kept_in
from m3_exp.scoring.evaluate import evaluate
from m3_exp.scoring.trust import check_grader
from m3_exp.store import Answers, AnswerSet, FailureNote, Merge, Prepared, Rate, RunRecord, Store, StoredAnswer
from m3_exp.types import (
    Answer,
    Cell,
    CellResult,
    EngineSettings,
    M3Error,
    Plan,
    Prompt,
    Recipe,
    RepeatRecord,
    ResultRecord,
    Score,
    Source,
    VersionedSpec,
    identity,
    plain,
)

RESTARTS = 2  # engine deaths in one cell before its remaining items are tried one at a time


@dataclass(frozen=True)
class Failure:
    """A cell (or a repeat of it) that has no complete result, and why."""

    cell: Cell
    reason: str
    repeat: int = 0

    def __str__(self) -> str:
        again = f" (repeat {self.repeat})" if self.repeat else ""
        return f"{spelled(self.cell.labels[0])} on {self.cell.evaluator.name}{again}: {self.reason}"


@dataclass(frozen=True)
class Outcome:
    """What became of a plan's cells; `repeat=K` makes K + 1 of each."""

    cells: int
    cached: int
    failures: tuple[Failure, ...]
    generated: int
    tokens: int
    engine_starts: int


@dataclass(frozen=True)
class Group:
    """One recipe's tasks that share an engine. `tokenizer` is the widest one of the engine's class, `shapes` a recipe
    of all models that will come to this engine: it is started with rows for the longest of their vocabularies.
    """

    recipe: Recipe
    key: str
    tokenizer: Source
    shapes: Recipe
    tasks: tuple[Task, ...]


class Run:
    """One plan on its way. `journal` files and results carry `id`, so that a resumed cell can say so."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        workers: int = 1,
        keep: bool = False,
        verify: bool = True,
        tracker: Tracker | Untracked | None = None,
        repeat: int = 0,
        command: str = "",
    ) -> None:
        """Args: `repeat`, how often each cell is evaluated once more (noise floor); `command`, what began the run."""
        self.plan = plan
        self.store = store
        self.desk = Desk(store, plan.engine)
        self.keep, self.verify = keep, verify
        self.tracker = tracker or Untracked()
        self.id = secrets.token_hex(8)
        self._plan = identity(plan)
        self.failures: list[Failure] = []
        self.cached = 0
        self.completed = 0
        self.repeat = repeat
        self.command = command
        self.engine_starts = 0
        self._workers = workers
        self._queue: queue.SimpleQueue[Group] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._slots: list[Slot] = []
        self._examining = threading.Lock()
        self._unfit: dict[str, str | None] = {}  # by evaluator: why its grader is not to be believed
        self.stopping = threading.Event()
        self.progress = Progress(0)

    def carry_out(self, parameters: int | None = None) -> Outcome:
        """Do what is left of the plan. `parameters` (of the model) files the measured speed for later forecasts.

        Raises:
            M3Error: every single cell is refused (a wrong request, nothing was done).
        """
        self.store.sweep()
        with Heartbeat(self.store, self.id, self._facts):
            tasks = self._ready()
            groups = self._groups(tasks)
            self.progress = Progress(sum(len(t.prompts) * t.sampling.n for t in tasks))
            for group in groups:
                self._queue.put(group)
            try:
                self._work_all(max(1, min(self._workers, len(groups))))
            finally:
                if groups:
                    self.progress.finish()
                    self._remember_speed(parameters)
        return Outcome(
            cells=len(self.plan.cells) * (1 + self.repeat),
            cached=self.cached,
            failures=tuple(self.failures),
            generated=self.progress.answers,
            tokens=self.progress.tokens,
            engine_starts=self.engine_starts,
        )

    def _facts(self) -> RunRecord:
        """Return what others may see of this run."""
        progress = self.progress
        return RunRecord(
            command=self.command,
            plan=self._plan,
            cells=len(self.plan.cells) * (1 + self.repeat),
            cells_done=self.completed,
            cells_failed=len(self.failures),
            items=progress.total,
            items_done=progress.done,
            tokens_per_second=progress.speed(),
            seconds_left=progress.left(),
            doing=progress.doing(),
        )

    def _remember_speed(self, parameters: int | None) -> None:
        if self.progress.answers >= 64:
            key = identity([self.plan.engine.name, self.plan.engine.dtype, parameters])
            self.store.rates.put(key, Rate(self.progress.rate()))

    # ------------------------------------------------------------------------------------------------ before work

    def _ready(self) -> list[Task]:
        """Prepare every cell, and its repeats, that has no complete result; what is refused fails its cell alone."""
        tasks: list[Task] = []
        refused: dict[str, str] = {}  # by recipe key; empty where the recipe is fine
        for cell in self.plan.cells:
            numbers = list(range(1 + self.repeat))
            try:
                task = self.desk.task(cell)
                numbers = [number for number in numbers if not self._is_cached(replace(task, repeat=number))]
                if numbers:
                    self._check(cell, refused)
            except M3Error as error:
                self._refuse(cell, numbers, str(error))
            except Exception as error:  # items that their plugin cannot read, say: recorded, the others go on
                self._refuse(cell, numbers, f"{type(error).__name__}: {error}", traceback.format_exc(limit=-4))
            else:
                tasks += [replace(task, repeat=number) for number in numbers]
        if self.failures and not tasks and not self.cached:
            raise M3Error(self.failures[0].reason)
        return tasks

    def _is_cached(self, task: Task) -> bool:
        """Tell whether nothing is left to do for a task, and count it then."""
        done = self._is_done(task)
        if done:
            self.cached += 1
            self._complete(task)
        return done

    def _is_done(self, task: Task) -> bool:
        found = self.desk.result(task)
        return found is not None and found.result.n_unscored == 0 and _contained(found, task)

    def _refuse(self, cell: Cell, repeats: Sequence[int], reason: str, trace: str = "") -> None:
        """Fail what is left of a cell and its repeats before any work."""
        for number in repeats:
            self._fail(cell, reason, trace, repeat=number)

    def _check(self, cell: Cell, refused: dict[str, str]) -> None:
        key = self.desk.recipe_key(cell)
        if key not in refused:
            try:
                stream.check(cell.recipe, self.store)
                refused[key] = ""
            except M3Error as error:
                refused[key] = str(error)
        if refused[key]:
            raise M3Error(refused[key])

    def _groups(self, tasks: Sequence[Task]) -> list[Group]:
        """Order tasks by engine class, then by recipe as planned, so that no engine is started twice in a row."""
        classes = widest(list(dict.fromkeys(t.cell.tokenizer for t in tasks)), self.desk) if tasks else {}
        grouped: dict[tuple[str, str], list[Task]] = {}
        for task in tasks:
            head = classes[task.cell.tokenizer]
            grouped.setdefault((str(head), self.desk.recipe_key(task.cell)), []).append(task)
        order = {head: index for index, head in enumerate(dict.fromkeys(head for head, _ in grouped))}
        shapes = {
            head: _shapes([t for (h, _), members in grouped.items() if h == head for t in members]) for head in order
        }
        found = [
            Group(members[0].cell.recipe, key, classes[members[0].cell.tokenizer], shapes[head], _firsts_first(members))
            for (head, key), members in grouped.items()
        ]
        return sorted(found, key=lambda group: order[str(group.tokenizer)])

    # ---------------------------------------------------------------------------------------------------- workers

    def _work_all(self, count: int) -> None:
        self._slots = [Slot(self, settings) for settings in divide(self.plan.engine, count)]
        if count == 1:
            self._work(self._slots[0])
            return
        threads = [threading.Thread(target=self._work, args=(slot,), daemon=True) for slot in self._slots]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.5)
        finally:
            self.stopping.set()
            for slot in self._slots:
                slot.close()

    def _work(self, slot: "Slot") -> None:
        with contextlib.closing(slot):
            while not self.stopping.is_set():
                try:
                    group = self._queue.get_nowait()
                except queue.Empty:
                    return
                self._carry(group, slot)

    def _carry(self, group: Group, slot: "Slot") -> None:
        """One group: find or make its weights' digest, then answer and score each task."""
        known = self.store.merges.get(group.key)
        for task in group.tasks:
            again = f" repeat {task.repeat}" if task.repeat else ""
            self.progress.running(f"{spelled(task.cell.labels[0])} {task.cell.evaluator.name}{again}")
            try:
                self._check_first_pass(task)
                if known is None:
                    known = slot.load(group)
                self._keep_checkpoint(task, known.digest)
                self._evaluate(task, group, known.digest, slot)
            except (EngineDied, M3Error, OSError) as error:
                reason = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)
                self._fail(task.cell, reason, repeat=task.repeat)
            except Exception as error:  # the wall of a sweep's job: recorded, the others go on
                trace = traceback.format_exc(limit=-4)
                self._fail(task.cell, f"{type(error).__name__}: {error}", trace, repeat=task.repeat)

    def _check_first_pass(self, task: Task) -> None:
        """Raise M3Error for a repeat that has nothing to be compared with."""
        if task.repeat and not self._is_done(replace(task, repeat=0)):
            raise M3Error("it has no complete first pass to be compared with: see that one's failure")

    def _evaluate(self, task: Task, group: Group, digest: str, slot: "Slot") -> None:
        key = self.desk.answers_key(digest, task)
        with kept_in(self.store.root), self.store.answers(key) as journal:
            self._trust(task)
            made = self._prepared(task, group, digest, journal, slot)
            answers, refused, runs = self._answers(made, group, digest, journal, slot)
            answers = _complete_items(answers, made.sampling.n)
            scores, result = evaluate(task.evaluator, made.problems, answers)
        scores = [_with_reason(score, refused) for score in scores]
        record = ResultRecord(
            result,
            tuple(scores),
            evaluator=VersionedSpec(**vars(task.cell.evaluator), version=task.evaluator.version),
            sampling=task.sampling,
            engine=self.desk.fingerprint,
            items=task.cell.evaluator.items,
            items_digest=task.items_digest,
            tokenizer=str(task.cell.tokenizer),
            answers=key,
            weights=digest,
            recipe_key=group.key,
            recipe=group.recipe,
            runs=tuple(runs),
            batched=self.desk.batched,
            repeat=self._changed(made, digest, answers),
        )
        self.desk.put_result(task, record)
        if not task.repeat:
            self.tracker.cell(CellResult(task.cell, record))
        if result.n_unscored:
            reasons = sorted({score.reason or "no reason given" for score in scores if score.value is None})
            reason = f"{result.n_unscored} of {result.n} items are unscored: {'; '.join(reasons[:3])}"
            self._fail(task.cell, reason, repeat=task.repeat)
        else:
            self._complete(task)

    def _changed(self, made: Task, digest: str, answers: Sequence[Answer]) -> RepeatRecord | None:
        """Return what a repeat's record says more than others: which of its texts are not those of the first pass."""
        if not made.repeat:
            return None
        first = replace(made, repeat=0)
        journal = self.store.answers(self.desk.answers_key(digest, first))
        texts = {key: answer.text for key, answer in _Held(first, journal).answers.items()}
        ids = {problem.id: prompt.id for problem, prompt in zip(made.problems, made.prompts, strict=True)}
        changed = ((a.id, a.sample) for a in answers if a.text != texts.get((ids[a.id], a.sample)))
        return RepeatRecord(made.repeat, tuple(changed))

    def _trust(self, task: Task) -> None:
        """Examine a grader before it scores its first cell.

        Raises:
            M3Error: it fails gold answers or passes wrong ones here and now, so that its scores would mean nothing.
        """
        with self._examining:
            key = identity(task.cell.evaluator)
            if key not in self._unfit:
                self._unfit[key] = check_grader(task.evaluator, task.problems)
            if reason := self._unfit[key]:
                raise M3Error(reason)

    # -------------------------------------------------------------------------------------------------- answering

    def _prepared(self, task: Task, group: Group, digest: str, journal: Answers, slot: "Slot") -> Task:
        """Let an evaluator make its items with the model; they are kept, and made once.

        Raises:
            M3Error: the engine refuses a prompt that the evaluator asks.
        """
        key = self.desk.prepared_key(digest, task)
        held = self.store.prepared.get(key)
        if held is None:

            def ask(texts: Sequence[str]) -> list[str]:
                heard = self._ask(*self.desk.asked(task, texts), group, digest, journal, slot)
                return [task.evaluator.judged(text) or "" for text in heard]

            problems = tuple(task.evaluator.prepare(task.problems, ask))
            if plain(problems) == plain(task.problems):
                return task
            self.store.prepared.put(key, Prepared(task.cell.evaluator.name, digest, problems))
            held = self.store.prepared.get(key)
            assert held is not None  # as it was written: what is JSON now is so in every later run
            self.progress.say(f"items made by {task.evaluator.name}: {self.store.prepared.path(key)}")
        made = self.desk.prepared(task, held.problems)
        self.progress.expect((len(made.prompts) - len(task.prompts)) * task.sampling.n)
        return made

    def _ask(
        self, task: Task, ids: Sequence[str], group: Group, digest: str, journal: Answers, slot: "Slot"
    ) -> list[str]:
        """Answer prompts that are no items: journalled like all others, so that a killed run does not ask again."""
        self.progress.expect(len(task.prompts) * task.sampling.n)
        answers, refused, _ = self._answers(task, group, digest, journal, slot)
        if refused:
            raise M3Error(f"{task.evaluator.name} asked what the engine refused: {next(iter(refused.values()))}")
        texts = {answer.id: answer.text for answer in answers if answer.sample == 0}
        return [texts[key] for key in ids]

    def _answers(
        self, task: Task, group: Group, digest: str, journal: Answers, slot: "Slot"
    ) -> tuple[list[Answer], dict[str, str], list[str]]:
        """Return a task's answers (journalled ones first), why items were refused, and the runs that wrote."""
        key = self.desk.answers_key(digest, task)
        benchmark = task.cell.evaluator.name
        sets = self.store.repeat_sets if task.repeat else self.store.answer_sets
        if sets.get(key) is None:
            sets.put(key, AnswerSet(digest, benchmark, task.sampling, dict(self.desk.fingerprint), task.repeat or None))
        held = _Held(task, journal)
        self.progress.cached(len(held.answers))
        deaths = 0
        while held.missing():
            alone = deaths > RESTARTS
            batch = task.in_order(held.missing()[:1] if alone else held.missing())
            try:
                engine = slot.ready(group)
                for answer in engine.generate(batch, task.sampling, task.cell.tokenizer, repeat=task.repeat):
                    held.take(answer, self.id)
                    self.progress.generated(answer.n_tokens)
            except EngineDied as death:
                if self.stopping.is_set():
                    raise
                deaths += 1
                self.progress.say(f"engine restarted: {death}")
                if alone:
                    held.refused[batch[0].id] = f"the engine died on this item: {death}"
                if deaths > 2 * RESTARTS + 1:
                    raise
            else:
                held.refuse_silent(batch)
        if slot.engine is not None:
            again = {"repeat": task.repeat} if task.repeat else {}
            self.store.conditions.put(f"{key[:32]}-{self.id}", {**slot.engine.conditions, **again})
        return held.in_order(), held.refused, sorted(held.runs)

    def _keep_checkpoint(self, task: Task, digest: str) -> None:
        if not self.keep or self.store.checkpoint(digest).exists():
            return
        self.progress.running(f"writing checkpoint {digest[:12]}")
        out = self.store.checkpoint(digest)
        stream.write([task.cell.recipe], [out], self.store, tokenizer=task.cell.home, verify=self.verify)

    # --------------------------------------------------------------------------------------------------- failures

    def _fail(self, cell: Cell, reason: str, trace: str = "", repeat: int = 0) -> None:
        failure = Failure(cell, " ".join(reason.split()), repeat)
        with self._lock:
            self.failures.append(failure)
        with contextlib.suppress(M3Error, OSError):
            key = self.desk.failure_key(cell, repeat)
            self.store.failures.put(key, FailureNote(failure.reason, trace))
        self.progress.say(f"failed: {failure}")

    def _complete(self, task: Task) -> None:
        self.store.failures.drop(self.desk.failure_key(task.cell, task.repeat))
        with self._lock:
            self.completed += 1


class _Held:
    """The answers of one task that are on disk, by item and sample; `take` puts one more there first."""

    def __init__(self, task: Task, journal: Answers) -> None:
        self.task = task
        self.journal = journal
        self.answers: dict[tuple[str, int], Answer] = {}
        self.refused: dict[str, str] = {}
        self.runs: set[str] = set()
        self._hashes = {prompt.id: prompt_hash(prompt) for prompt in task.prompts}
        for answer in journal.read():
            if self._hashes.get(answer.id) == answer.prompt:
                self._add(answer)

    def _add(self, answer: StoredAnswer) -> None:
        key = (answer.id, answer.sample)
        if key not in self.answers and answer.sample < self.task.sampling.n:
            self.answers[key] = answer
            self.runs.add(answer.run)

    def take(self, answer: Answer, run: str) -> None:
        if answer.finish == "refused":
            self.refused[answer.id] = answer.text or "the prompt is longer than the engine's max_model_len"
            return
        text, finish = answer.text, answer.finish
        kept = StoredAnswer(answer.id, text, answer.sample, answer.n_tokens, finish, self._hashes[answer.id], run)
        self.journal.append(kept)
        self._add(kept)

    def missing(self) -> list[Prompt]:
        samples = range(self.task.sampling.n)
        return [
            p
            for p in self.task.prompts
            if p.id not in self.refused and any((p.id, sample) not in self.answers for sample in samples)
        ]

    def refuse_silent(self, batch: Sequence[Prompt]) -> None:
        """An engine that ends without an answer to an item has failed on it: never ask for ever."""
        missing = {prompt.id for prompt in self.missing()}
        for prompt in batch:
            if prompt.id in missing:
                self.refused[prompt.id] = "the engine gave no answer"

    def in_order(self) -> list[Answer]:
        """The answers in the order of the items, under the items' own ids."""
        found: list[Answer] = []
        for problem, prompt in zip(self.task.problems, self.task.prompts, strict=True):
            for sample in range(self.task.sampling.n):
                if answer := self.answers.get((prompt.id, sample)):
                    found += [replace(answer, id=problem.id)]
        return found


class Slot:
    """A worker's place for one engine: started when first needed, restarted for another class of tokenizers."""

    def __init__(self, run: Run, settings: EngineSettings) -> None:
        self.run = run
        self.settings = settings
        self.engine: Engine | None = None
        self._tokenizer: Source | None = None
        self._loaded: str | None = None

    def load(self, group: Group) -> Merge:
        """Merge a group's weights into the engine, and remember their digest. Tried again once if the engine dies."""
        for attempt in (1, 2):
            try:
                return self._load(group)
            except EngineDied as death:
                self._loaded = None
                if attempt == 2 or self.run.stopping.is_set():
                    raise
                self.run.progress.say(f"engine restarted: {death}")
        raise AssertionError("unreachable")

    def _load(self, group: Group) -> Merge:
        if self.run.stopping.is_set():
            raise EngineDied("interrupted")
        if self.engine is None or self._tokenizer != group.tokenizer:
            self.close()
            self.run.progress.running(f"starting {self.settings.name}")
            module = importlib.import_module(f"m3_exp.engines.{self.settings.name}")
            self.engine = module.start(self.settings, group.shapes, group.tokenizer, self.run.store)
            assert self.engine is not None
            self.engine.on_progress = self.run.progress.flow
            self._tokenizer = group.tokenizer
            self.run.engine_starts += 1
        assert self.engine is not None
        loaded = self.engine.load(group.recipe)
        known = self.run.store.merges.get(group.key)
        if known is not None and known.digest != loaded.digest:
            raise M3Error(
                f"the same recipe gave other weights ({loaded.digest[:12]}) than before ({known.digest[:12]}): "
                f"an input changed under the run, or the machine is faulty: {self.run.store.merges.path(group.key)}"
            )
        record = Merge(loaded.digest, dict(loaded.report), group.recipe)
        if known is None:
            self.run.store.merges.put(group.key, record)
        self._loaded = group.key
        return record

    def ready(self, group: Group) -> Engine:
        """Return the engine with this group's weights in it."""
        if self.engine is None or self._loaded != group.key:
            self.load(group)
        assert self.engine is not None
        return self.engine

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()
        self.engine = None
        self._loaded = None


def divide(settings: EngineSettings, workers: int) -> Iterator[EngineSettings]:
    """Share the machine among workers: GPUs by tensor_parallel_size, else cores."""
    gpus = visible_gpus()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    for index in range(workers):
        if workers == 1:
            yield settings
        elif gpus:
            size = settings.tensor_parallel_size
            yield replace(settings, devices=tuple(gpus[index * size : (index + 1) * size]))
        else:
            share = max(1, len(cores) // workers)
            mine = [cores[(index * share + i) % len(cores)] for i in range(share)]
            yield replace(settings, cores=tuple(mine), threads=settings.threads or share)


def visible_gpus() -> list[int]:
    """Return the numbers of the GPUs this process may use, without starting CUDA."""
    import torch

    return list(range(torch.cuda.device_count()))


def default_workers(settings: EngineSettings) -> int:
    """As many engines as the GPUs hold; one on a CPU."""
    return max(1, len(visible_gpus()) // settings.tensor_parallel_size)


def _complete_items(answers: Sequence[Answer], samples: int) -> list[Answer]:
    """Leave out items of which a sample is missing: they are unscored, not scored on fewer samples."""
    counts = Counter(answer.id for answer in answers)
    return [answer for answer in answers if counts[answer.id] == samples]


def _contained(found: ResultRecord, task: Task) -> bool:
    """Tell whether a result may stand: one of uncontained programs only where that is (still) allowed."""
    weak = "weak" in str(found.result.details.get("sandbox"))
    return not weak or bool(getattr(task.evaluator, "allow_weak", False))


def _firsts_first(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Put repeats behind all first passes of their group: the weights are in the engine already."""
    return tuple(sorted(tasks, key=lambda task: task.repeat))


def _shapes(tasks: Sequence[Task]) -> Recipe:
    """Return a recipe that names every model of these tasks once."""
    recipes = [task.cell.recipe for task in tasks]
    experts = dict.fromkeys(source for recipe in recipes for source in recipe.experts)
    return replace(recipes[0], experts=tuple(experts), weights=None)


def _with_reason(score: Score, refused: dict[str, Any]) -> Score:
    """Say why an item has no answer, where the engine told."""
    if score.value is not None:
        return score
    reason = next((text for key, text in refused.items() if key.split("/", 1)[1] == score.id), None)
    return replace(score, reason=reason) if reason else score
