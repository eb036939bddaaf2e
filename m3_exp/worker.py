"""A worker: carries groups out with an engine of its own, and tells what it does as a stream of events.

It knows a store and an engine, not the run that gives it groups. Generating and scoring are two stages with a queue
between them; today a thread serves them in turn.
"""

import contextlib
import queue
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace

from m3_exp.answers import TaskAnswers
from m3_exp.engines.protocol import EngineDied
from m3_exp.events import Doing, Done, Event, Failed, Scored, Started
from m3_exp.generating import Generated, Generator
from m3_exp.groups import Evaluation, Group
from m3_exp.merging import stream
from m3_exp.results import Results
from m3_exp.scoring.cache import kept_in
from m3_exp.scoring.evaluate import evaluate
from m3_exp.scoring.trust import check_grader
from m3_exp.store import Store
from m3_exp.tasks import Task
from m3_exp.types import EngineSettings, M3Error, RepeatRecord, ResultRecord, VersionedSpec, identity


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
    """One engine with all that is needed to merge into it, ask it and score what it says.

    `run` marks the answers that it writes, `keep` keeps a checkpoint of each recipe. `results` and `graders` may be
    shared by the workers of a process.
    """

    def __init__(
        self,
        store: Store,
        settings: EngineSettings,
        *,
        run: str,
        keep: bool = False,
        verify: bool = True,
        results: Results | None = None,
        graders: Graders | None = None,
    ) -> None:
        self._store = store
        self._results = results or Results(store, settings)
        self._graders = graders or Graders()
        self._keep, self._verify = keep, verify
        self._events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._generated: queue.SimpleQueue[tuple[Evaluation, Group, Generated]] = queue.SimpleQueue()
        self._generator = Generator(settings, self._results, run, self._events.put)

    def carry(self, group: Group) -> Iterator[Event]:
        """Do what a group asks for, in a thread, and give what happens; `Done` comes last. Failures are events too."""
        threading.Thread(target=self._work, args=(group,), daemon=True).start()
        while not isinstance(event := self._events.get(), Done):
            if isinstance(event, BaseException):
                raise event
            yield event
        yield event

    def close(self) -> None:
        """End the engine. Safe from any thread; what is under way is given up."""
        self._generator.close()

    def _work(self, group: Group) -> None:
        try:
            with kept_in(self._store.root):
                for evaluation in group.evaluations:
                    if self._generator.closed.is_set():
                        break
                    with self._wall(evaluation):
                        self._events.put(Started(evaluation))
                        self._generate(evaluation, group)
                    while not self._generated.empty():
                        self._score(*self._generated.get())
        except BaseException as error:
            self._events.put(error)
        else:
            self._events.put(Done(group.key))

    @contextlib.contextmanager
    def _wall(self, evaluation: Evaluation) -> Iterator[None]:
        """Make a failure of whatever one evaluation raises: the others go on. What `close` cut short is none."""
        try:
            yield
        except Exception as error:
            if self._generator.closed.is_set():
                return
            told = isinstance(error, EngineDied | M3Error)
            trace = "" if told or isinstance(error, OSError) else traceback.format_exc(limit=-4)
            self._fail(evaluation, str(error) if told else f"{type(error).__name__}: {error}", trace)

    def _fail(self, evaluation: Evaluation, reason: str, trace: str = "") -> None:
        reason = " ".join(reason.split())
        self._results.note_failure(evaluation.cell, reason, trace, evaluation.repeat)
        self._events.put(Failed(evaluation, reason))

    # -------------------------------------------------------------------------------------------------- generating

    def _generate(self, evaluation: Evaluation, group: Group) -> None:
        """Have an evaluation answered, and hand it on to be scored."""
        task = self._results.tasks.task(evaluation.cell, evaluation.repeat)
        if task.repeat and not self._results.is_done(replace(task, repeat=0)):
            raise M3Error("it has no complete first pass to be compared with: see that one's failure")
        digest = (self._store.merges.get(group.key) or self._generator.load(group)).digest
        if self._keep:
            self._keep_checkpoint(task, digest)
        self._graders.check(task)
        self._generated.put((evaluation, group, self._generator.generate(task, group, digest)))

    def _keep_checkpoint(self, task: Task, digest: str) -> None:
        out = self._store.checkpoint(digest)
        if not out.exists():
            self._events.put(Doing(f"writing checkpoint {digest[:12]}"))
            stream.write([task.cell.recipe], [out], self._store, tokenizer=task.cell.home, verify=self._verify)

    # ----------------------------------------------------------------------------------------------------- scoring

    def _score(self, evaluation: Evaluation, group: Group, generated: Generated) -> None:
        with self._wall(evaluation):
            task, made = generated.task, generated.made
            scores, result = evaluate(task.evaluator, made.problems, generated.answers)
            told = generated.refused  # why an item has no answer
            scores = [replace(s, reason=told.get(s.id, s.reason)) if s.value is None else s for s in scores]
            record = ResultRecord(
                replace(result, benchmark=task.cell.evaluator.name),
                tuple(scores),
                evaluator=VersionedSpec(**vars(task.cell.evaluator), version=task.evaluator.version),
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
            )
            self._results.put(task, record)
            if not result.n_unscored:
                self._results.forget_failure(task.cell, task.repeat)
            self._events.put(Scored(evaluation, record))
            if result.n_unscored:
                self._fail(evaluation, _unscored(record))

    def _repeat(self, generated: Generated) -> RepeatRecord | None:
        """Return what a repeat's record says more than others: which of its texts are not those of the first pass."""
        if not generated.task.repeat:
            return None
        first = replace(generated.made, repeat=0)
        journal = self._store.answers(self._results.answers_key(generated.digest, first))
        texts = {(answer.id, answer.sample): answer.text for answer in TaskAnswers(first, journal).in_order()}
        changed = [(a.id, a.sample) for a in generated.answers if a.text != texts.get((a.id, a.sample))]
        return RepeatRecord(generated.task.repeat, tuple(changed))


def _unscored(record: ResultRecord) -> str:
    reasons = sorted({score.reason or "no reason given" for score in record.scores if score.value is None})
    return f"{record.result.n_unscored} of {record.result.n} items are unscored: {'; '.join(reasons[:3])}"
