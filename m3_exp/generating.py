"""The generating stage of a worker: one engine, the weights in it, and the answers that it gives to a task."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from m3_exp.answers import TaskAnswers, complete_items
from m3_exp.busy import Meter
from m3_exp.engines.protocol import Batch, Engine, EngineDied, module
from m3_exp.events import Answered, Doing, EngineStarted, Event, Known, MoreAnswers, Note, Speed
from m3_exp.flight import Flight
from m3_exp.groups import Evaluation, Group
from m3_exp.merging.ahead import read_ahead
from m3_exp.merging.statistics.process import ensure
from m3_exp.merging.statistics.wanted import wanted
from m3_exp.results import Results
from m3_exp.store import Answers, AnswerSet, Merge, Prepared
from m3_exp.tasks import Task
from m3_exp.types import Answer, EngineSettings, M3Error, Source, plain

Ask = Callable[..., Iterator[Answer]]  # `Flight.ask` of one member
Clock = Callable[[], float]  # seconds since the epoch, which machines share
RESTARTS = 2  # engine deaths while a task is in flight before its remaining items are tried one at a time


class OutOfTime(Exception):
    """The time of a run is over before a task has all of its answers; those that it got are kept."""


@dataclass(frozen=True)
class Generated:
    """What a task got. `made` is the task with the items that were asked: an attack makes its own items of the task's.

    `answers` are the answers to those. `refused` maps the id of an item without an answer to the reason, and `runs`
    names the runs that wrote the answers.
    """

    task: Task
    made: Task
    digest: str  # of the weights
    key: str  # of the answers
    answers: tuple[Answer, ...]
    refused: dict[str, str]
    runs: tuple[str, ...]


class Generator:
    """A worker's engine: started when it is first needed, restarted for tokenizers that cannot share it.

    Every answer is in the store before an event tells of it. `run` is the id of the run, which is written with each
    answer. `emit` takes the events. When the clock says `until`, nothing more is asked.
    """

    def __init__(
        self,
        settings: EngineSettings,
        results: Results,
        run: str,
        emit: Callable[[Event], None],
        until: float = math.inf,
        clock: Clock = time.time,
    ) -> None:
        self.meter = Meter()
        self._settings, self._results, self._store = settings, results, results.store
        self._run, self._emit = run, emit
        self._engine: Engine | None = None
        self._tokenizer: Source | None = None
        self._loaded: str | None = None  # the key of the recipe whose weights are in the engine
        self._unfit: dict[tuple[Source, Source], str] = {}  # by base and tokenizer: why no engine starts for them
        self.closed = threading.Event()
        self._until, self._clock = until, clock

    @property
    def is_over(self) -> bool:
        """Whether the time of the run is over."""
        return self._clock() >= self._until

    def close(self) -> None:
        """End the engine, from any thread. The thread at work gets EngineDied, and no engine is started again."""
        self.closed.set()
        self._stop()

    def rest(self) -> None:
        """End the engine, which nothing is left for; it would be started again."""
        self._stop()
        self.meter.stop()

    # -------------------------------------------------------------------------------------------------- weights

    def load(self, group: Group) -> Merge:
        """Merge a group's weights into the engine, and remember their digest. Tried again once if the engine dies."""
        try:
            return self._load(group)
        except EngineDied as death:
            self._loaded = None
            if self.closed.is_set():
                raise
            self._emit(Note(f"engine restarted: {death}"))
            return self._load(group)

    def _load(self, group: Group) -> Merge:
        if self.closed.is_set():
            raise EngineDied("interrupted")
        # Here, as an engine that says nothing for minutes counts as hung; recorded answers may need no weights.
        for one in wanted(group.recipe) if self._settings.name != "recorded" else ():
            ensure(one, self._store, lambda line: self._emit(Doing(line)), self.closed)
        if self._engine is None or self._tokenizer != group.tokenizer:
            self._stop()
            self._engine = self._start(group)
            if self.closed.is_set():  # while it started, with nobody left to close it
                self._stop()
                raise EngineDied("interrupted")
            self._tokenizer = group.tokenizer
            self._emit(EngineStarted())
        self._emit(Doing("merging"))
        self.meter.turn("swap")
        loaded = self._engine.load(group.recipe)
        known = self._store.merges.get(group.key)
        if known is not None and known.digest != loaded.digest:
            raise M3Error(
                f"the same recipe gave other weights ({loaded.digest[:12]}) than before ({known.digest[:12]}): "
                f"an input changed under the run, or the machine is faulty: {self._store.merges.path(group.key)}"
            )
        merge = Merge(loaded.digest, dict(loaded.report), group.recipe)
        if known is None:
            self._store.merges.put(group.key, merge)
        self._loaded = group.key
        return merge

    def _start(self, group: Group) -> Engine:
        self._emit(Doing(f"starting {self._settings.name}"))
        self.meter.turn("start")
        widest, which = replace(group.recipe, experts=group.experts, weights=None), (group.recipe.base, group.tokenizer)
        if which in self._unfit:  # it would be refused again for each cell, seconds later
            raise M3Error(self._unfit[which])
        try:
            engine = module(self._settings.name).start(self._settings, widest, group.tokenizer, self._store)
        except M3Error as error:
            self._unfit[which] = str(error)
            raise
        engine.on_progress = lambda done, total, tokens_per_second: self._emit(Speed(tokens_per_second))
        return engine

    def serve(self, flight: Flight, group: Group, following: Group | None = None) -> None:
        """Have the engine serve a flight with a group's weights, until its members have left.

        Meanwhile the models of the `following` group are read ahead.
        """

        ahead = [] if following is None else [following.recipe]

        def ready() -> Engine:
            engine = self._ready(group)
            while ahead:
                threading.Thread(target=read_ahead, args=(ahead.pop(),), daemon=True).start()
            return engine

        flight.fly(ready, self._died)

    def _died(self, death: EngineDied) -> None:
        self._loaded = None
        if not self.closed.is_set():
            self._emit(Note(f"engine restarted: {death}"))

    def _ready(self, group: Group) -> Engine:
        """Return the engine with this group's weights in it.

        Raises:
            OutOfTime: there is no time left to use it.
        """
        if self.is_over:
            raise OutOfTime
        if self._engine is None or self._loaded != group.key:
            self.load(group)
        assert self._engine is not None
        return self._engine

    def _stop(self) -> None:
        engine, self._engine, self._loaded = self._engine, None, None
        if engine is not None:
            engine.close()

    # -------------------------------------------------------------------------------------------------- answers

    def generate(self, evaluation: Evaluation, task: Task, digest: str, ask: Ask) -> Generated:
        """Return a task with its answers: those in the store, and those that are asked for.

        Raises:
            EngineDied: the engine ended more than `RESTARTS` times, and again when asked for one item at a time.
            M3Error: the engine refuses the recipe, or a prompt that the evaluator asks while it makes its items.
            OutOfTime: the time of the run is over.
        """
        key = self._results.answers_key(digest, task)
        with self._store.answers(key) as journal:
            made = self._prepared(evaluation, task, digest, journal, ask)
            known = self._answers(evaluation, made, digest, journal, ask)
        answers = complete_items(known.in_order(), made.sampling.n)
        refused = {prompt.partition("/")[2]: reason for prompt, reason in known.refused.items()}
        return Generated(task, made, digest, key, tuple(answers), refused, tuple(sorted(known.runs)))

    def _prepared(self, evaluation: Evaluation, task: Task, digest: str, journal: Answers, ask: Ask) -> Task:
        """Let an evaluator make its items with the model. They are stored, so they are made once for each model."""
        key, store = self._results.prepared_key(digest, task), self._store.prepared
        if (kept := store.get(key)) is None:

            def heard(texts: Sequence[str]) -> list[str]:
                asked, ids = self._results.tasks.asked(task, texts)
                self._emit(MoreAnswers(evaluation, asked.answers))
                known = self._answers(evaluation, asked, digest, journal, ask)
                return [task.evaluator.judged(text) or "" for text in _texts(known, ids)]

            problems = tuple(task.evaluator.prepare(task.problems, heard))
            if plain(problems) == plain(task.problems):
                return task
            store.put(key, Prepared(task.evaluator.name, digest, problems))
            kept = store.get(key)
            assert kept is not None
            self._emit(Note(f"items made by {task.evaluator.name}: {store.path(key)}"))
        made = self._results.tasks.prepared(task, kept.problems)
        self._emit(MoreAnswers(evaluation, made.answers - task.answers))
        return made

    def _answers(self, evaluation: Evaluation, task: Task, digest: str, journal: Answers, ask: Ask) -> TaskAnswers:
        """Return the answers to a task's prompts. An item on which the engine ends again and again is refused.

        Once the engine has died the task goes on by itself, so that what it dies of is found.
        """
        key, benchmark = self._results.answers_key(digest, task), task.evaluator.name
        sets = self._store.repeat_sets if task.repeat else self._store.answer_sets
        if sets.get(key) is None:
            engine = dict(self._results.fingerprint)
            sets.put(key, AnswerSet(digest, benchmark, task.sampling, engine, task.repeat or None))
        known = TaskAnswers(task, journal)
        self._emit(Known(evaluation, len(known)))
        deaths = 0
        while missing := known.missing():
            one_by_one = deaths > RESTARTS
            asked = task.in_order(missing[:1] if one_by_one else missing)
            batch = Batch(asked, task.sampling, task.cell.tokenizer, task.examples)
            try:
                for answer in ask(batch, alone=deaths > 0 or task.repeat > 0, repeat=task.repeat):
                    if self.closed.is_set():
                        raise EngineDied("interrupted")
                    known.take(answer, self._run)
                    self._emit(Answered(evaluation, answer.n_tokens))
                    if self.is_over and known.missing():
                        raise OutOfTime
            except EngineDied as death:
                if self.closed.is_set():
                    raise
                deaths += 1
                if one_by_one:
                    known.refused[asked[0].id] = f"the engine died on this item: {death}"
                if deaths > 2 * RESTARTS + 1:
                    raise
            else:
                known.refuse_silent(asked)
        if (engine_now := self._engine) is not None:
            again = {"repeat": task.repeat} if task.repeat else {}
            self._store.conditions.put(f"{key[:32]}-{self._run}", {**engine_now.conditions, **again})
        return known


def _texts(known: TaskAnswers, ids: Sequence[str]) -> list[str]:
    """Return the model's texts for prompts that are no items, by their ids.

    Raises:
        M3Error: the engine refuses one.
    """
    if known.refused:
        reason = next(iter(known.refused.values()))
        raise M3Error(f"{known.task.evaluator.name} asked what the engine refused: {reason}")
    texts = {answer.id: answer.text for answer in known.in_order() if answer.sample == 0}
    return [texts[key] for key in ids]
