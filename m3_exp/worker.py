"""A worker: evaluates groups of cells with an engine of its own, and reports what it does as a stream of events.

It knows a store and an engine, not the run that gives it groups. Generating and scoring are two stages with a queue
between them; today a thread serves them in turn.
"""

import contextlib
import math
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace

from m3_exp.answers import TaskAnswers
from m3_exp.engines.protocol import EngineDied
from m3_exp.events import Doing, Done, EngineTime, Event, Failed, Scored, Started, Taken, There
from m3_exp.generating import Clock, Generated, Generator, OutOfTime
from m3_exp.groups import Evaluation, Group
from m3_exp.keys import texts_digest
from m3_exp.merging import stream
from m3_exp.results import Results
from m3_exp.scoring.cache import kept_in
from m3_exp.scoring.evaluate import evaluate
from m3_exp.scoring.trust import check_grader
from m3_exp.store import Held, Store
from m3_exp.tasks import Task
from m3_exp.types import EngineSettings, M3Error, RepeatRecord, ResultRecord, VersionedSpec, identity

PATIENCE = 10.0  # seconds


class Graders:
    """Examines each benchmark's grader once, before it scores its first cell. The workers of a process share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unfit: dict[str, str | None] = {}  # by evaluator: why its grader is not to be believed

    def check(self, task: Task) -> None:
        """Raise M3Error where a grader fails gold answers or passes wrong ones, so that its scores mean nothing."""
        with self._lock:
            key = identity(task.cell.evaluator)
            if key not in self._unfit:
                self._unfit[key] = check_grader(task.evaluator, task.problems)
            if reason := self._unfit[key]:
                raise M3Error(reason)


class Worker:
    """One engine, and what merging into it, asking it and scoring its answers takes.

    `run` is the id of the run, written with each answer; `name` its own among the workers of the run. `keep`: write a
    checkpoint of each recipe. When the clock says `until`, it asks for nothing more: what is scored is scored, and what
    lacks answers is neither done nor failed. The workers of a process may share `results` and `graders`. `takes_over`:
    the run gives a group to one worker at a time, so that what another one of it still holds is a dead one's.
    """

    def __init__(
        self,
        store: Store,
        settings: EngineSettings,
        *,
        run: str,
        name: str = "worker",
        keep: bool = False,
        verify: bool = True,
        results: Results | None = None,
        graders: Graders | None = None,
        until: float = math.inf,
        clock: Clock = time.time,
        takes_over: bool = False,
    ) -> None:
        self._store, self._run, self._name = store, run, name
        self._takes_over = takes_over
        self._results = results or Results(store, settings)
        self._graders = graders or Graders()
        self._keep, self._verify = keep, verify
        self._generated: queue.SimpleQueue[tuple[Evaluation, Group, Generated]] = queue.SimpleQueue()
        self._generator = Generator(settings, self._results, run, lambda event: self._say(event), until, clock)
        self._say: Callable[[Event], None] = lambda event: None  # the queue of the group under way
        self._thread: threading.Thread | None = None  # that carries a group out

    def carry(self, group: Group) -> Iterator[Event]:
        """Do what a group asks for, in a thread, and give what happens; `Done` comes last. Failures are events too.

        What is done already is not done again. A group that another worker has is left to it: `Taken` says so.

        Raises:
            RuntimeError: the group before is still under way, whose events nobody took to their end.
        """
        if self._thread is not None and self._thread.is_alive():
            raise RuntimeError("this worker is at work on another group: take its events to their end, or close it")
        events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._say = events.put
        self._thread = threading.Thread(target=self._work, args=(group, events), daemon=True)
        self._thread.start()
        return _until_done(self._thread, events)

    @property
    def is_over(self) -> bool:
        """Whether the time of the run is over."""
        return self._generator.is_over

    def close(self) -> None:
        """End the engine. Safe from any thread; what is under way is given up."""
        self._generator.close()

    def wait(self) -> None:
        """Wait until a closed worker has removed what it was writing, but not longer than `PATIENCE`."""
        if self._thread is not None:
            self._thread.join(PATIENCE)

    def _work(self, group: Group, events: "queue.SimpleQueue[Event | BaseException]") -> None:
        try:
            self._generator.meter.turn("other")
            with kept_in(self._store.root), self._hold(group):
                for evaluation in group.evaluations:
                    if self._generator.closed.is_set() or self._generator.is_over:
                        break
                    with self._wall(evaluation):
                        if not self._is_there(evaluation):
                            self._say(Started(evaluation))
                            self._generate(evaluation, group)
                    while not self._generated.empty():
                        self._score(*self._generated.get())
                        self._generator.meter.turn("other")
        except Held as held:
            self._say(Taken(group.key, str(held)))
            events.put(Done(group.key))
        except BaseException as error:
            events.put(error)
        else:
            self._say(EngineTime(self._generator.meter.take()))
            events.put(Done(group.key))

    def _hold(self, group: Group) -> contextlib.AbstractContextManager[object]:
        """Take the group's lease. Raises Held."""
        return self._store.leases.take(group.key, run=self._run, worker=self._name, takes_over=self._takes_over)

    def _is_there(self, evaluation: Evaluation) -> bool:
        """Tell whether an evaluation has its result already, and say so then."""
        task = self._results.tasks.task(evaluation.cell, evaluation.repeat)
        if there := self._results.is_done(task):
            self._results.welcome(evaluation.cell, evaluation.repeat)
            self._say(There(evaluation, task.answers))
        return there

    @contextlib.contextmanager
    def _wall(self, evaluation: Evaluation) -> Iterator[None]:
        """Turn an error of one evaluation into an event `Failed`, so that the others go on.

        What `close` or the end of the time cut short has not failed.
        """
        try:
            yield
        except OutOfTime:
            return
        except Exception as error:
            if self._generator.closed.is_set():
                return
            foreseen = isinstance(error, EngineDied | M3Error)
            trace = "" if foreseen or isinstance(error, OSError) else traceback.format_exc(limit=-4)
            self._fail(evaluation, str(error) if foreseen else f"{type(error).__name__}: {error}", trace)

    def _fail(self, evaluation: Evaluation, reason: str, trace: str = "") -> None:
        reason = " ".join(reason.split())
        self._results.note_failure(evaluation.cell, reason, trace, evaluation.repeat)
        self._say(Failed(evaluation, reason))

    # -------------------------------------------------------------------------------------------------- generating

    def _generate(self, evaluation: Evaluation, group: Group) -> None:
        """Generate the answers of an evaluation, and hand them to the scoring stage."""
        task = self._results.tasks.task(evaluation.cell, evaluation.repeat)
        if task.repeat and not self._results.is_done(replace(task, repeat=0)):
            raise M3Error("it has no complete first pass to be compared with: see that one's failure")
        self._check_scorable(task, group)
        self._say(Doing("examining the grader"))
        self._graders.check(task)
        digest = (self._store.merges.get(group.key) or self._generator.load(group)).digest
        if self._keep:
            self._keep_checkpoint(task, digest)
        self._generated.put((evaluation, group, self._generator.generate(task, group, digest)))

    def _check_scorable(self, task: Task, group: Group) -> None:
        """Raise M3Error where answers are missing that could only stay unscored."""
        if (reason := task.evaluator.lacks()) is None:
            return
        made = self._store.merges.get(group.key)
        journal = self._store.answers(self._results.answers_key(made.digest, task)) if made else None
        if journal is None or TaskAnswers(task, journal).missing():
            raise M3Error(f"nothing is asked, since no answer could be scored: {reason}")

    def _keep_checkpoint(self, task: Task, digest: str) -> None:
        out = self._store.checkpoint(digest)
        if not out.exists():
            self._say(Doing(f"writing checkpoint {digest[:12]}"))
            stream.write(
                [task.cell.recipe], [out], self._store, tokenizer=task.cell.home, verify=self._verify,
                stopped=self._generator.closed,
            )  # fmt: skip

    # ----------------------------------------------------------------------------------------------------- scoring

    def _score(self, evaluation: Evaluation, group: Group, generated: Generated) -> None:
        with self._wall(evaluation):
            task, made = generated.task, generated.made
            self._say(Doing("scoring"))
            self._generator.meter.turn("scoring")
            scores, result = evaluate(task.evaluator, made.problems, generated.answers)
            if self._generator.closed.is_set():  # an interrupt may have reached what judged the answers, too
                return
            refused = generated.refused  # why an item has no answer
            scores = [replace(s, reason=refused.get(s.id, s.reason)) if s.value is None else s for s in scores]
            record = ResultRecord(
                replace(result, benchmark=task.cell.evaluator.name),
                tuple(scores),
                evaluator=_versioned(task),
                sampling=task.sampling,
                engine=self._results.fingerprint,
                items=task.cell.evaluator.items,
                items_digest=task.items_digest,
                tokenizer=str(task.cell.tokenizer),
                answers=generated.key,
                weights=generated.digest,
                recipe_key=group.key,
                recipe=group.recipe,
                runs=generated.runs,
                batched=self._results.batched,
                repeat=self._repeat(generated),
                texts_digest=texts_digest(generated.answers),
            )
            self._results.put(task, record)
            if not result.n_unscored:
                self._results.forget_failure(task.cell, task.repeat)
            self._say(Scored(evaluation, record))
            if result.n_unscored:
                self._fail(evaluation, _unscored(record))

    def _repeat(self, generated: Generated) -> RepeatRecord | None:
        """Return a repeat's number and which of its texts differ from the first pass; None for a first pass."""
        if not generated.task.repeat:
            return None
        first = replace(generated.made, repeat=0)
        journal = self._store.answers(self._results.answers_key(generated.digest, first))
        texts = {(answer.id, answer.sample): answer.text for answer in TaskAnswers(first, journal).in_order()}
        changed = [(a.id, a.sample) for a in generated.answers if a.text != texts.get((a.id, a.sample))]
        return RepeatRecord(generated.task.repeat, tuple(changed))


def _versioned(task: Task) -> VersionedSpec:
    spec = task.cell.evaluator
    return VersionedSpec(spec.name, spec.target, spec.settings, spec.items, spec.skill, task.evaluator.version)


def _until_done(thread: threading.Thread, events: "queue.SimpleQueue[Event | BaseException]") -> Iterator[Event]:
    while not isinstance(event := events.get(), Done | BaseException):
        yield event
    thread.join()
    if isinstance(event, BaseException):
        raise event
    yield event


def _unscored(record: ResultRecord) -> str:
    reasons = sorted({score.reason or "no reason given" for score in record.scores if score.value is None})
    return f"{record.result.n_unscored} of {record.result.n} items are unscored: {'; '.join(reasons[:3])}"
