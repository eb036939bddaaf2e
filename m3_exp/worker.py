"""A worker: evaluates groups of cells with an engine of its own, and reports what it does as a stream of events.

It knows a store and an engine, not the run that gives it groups. The engine never waits for a score, but where one must
come first (a repeat's first pass) or scoring falls far behind.
"""

import contextlib
import math
import queue
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from m3_exp.answers import TaskAnswers
from m3_exp.engines.protocol import EngineDied
from m3_exp.events import Doing, Done, EngineTime, Event, Failed, Scored, Started, Taken, There
from m3_exp.flight import Flight
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
SCORERS = 4  # evaluations that are scored at once
BEHIND = 8  # groups whose scores may be to come, before the engine waits
_TICK = 0.2  # seconds
_Said = Event | BaseException | threading.Thread  # a thread: it has done with the engine


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


class _Job:
    """One evaluation on its way. `first`: another one of its group that asks for the same answers, before it.

    What becomes of it is said in the order of the group: `said` is held back until then.
    """

    def __init__(self, evaluation: Evaluation, group: Group) -> None:
        self.evaluation, self.group = evaluation, group
        self.first: _Job | None = None
        self.said: list[Event] = []
        self.begun = False  # a thread sees to its end
        self.asked = threading.Event()  # it asks for no more answers
        self.ended = threading.Event()

    def end(self) -> None:
        self.asked.set()
        self.ended.set()


class Worker:
    """One engine, and what merging into it, asking it and scoring its answers takes.

    The evaluations of a group are in flight together (`flight`); each is scored, in a thread of its own, while the
    engine goes on. Repeats, and what the group holds twice, follow by themselves when the others are scored.

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
        self._events: queue.SimpleQueue[_Said] = queue.SimpleQueue()
        self._say = self._events.put
        self._generator = Generator(settings, self._results, run, self._say, until, clock)
        self._meter = self._generator.meter
        self._scorers = threading.Semaphore(SCORERS)
        self._keeping = threading.Lock()
        self._thread: threading.Thread | None = None  # that has the engine
        self._concluding: dict[str, threading.Thread] = {}  # by group that is not done

    def carry(self, group: Group, following: Group | None = None) -> Iterator[Event]:
        """Do what a group asks for, and give what happens until the engine is free for another one.

        What is still to be scored goes on: its events, and `Done` last, come with those of the next groups or with
        `finish`. Failures are events too. What is done already is not done again. A group that another worker has is
        left to it: `Taken` says so, and `Done` follows. The models of a `following` group are read ahead.

        Raises:
            RuntimeError: the engine is not free yet, since nobody took the events to their end.
        """
        if self._thread is not None and self._thread.is_alive():
            raise RuntimeError("this worker is at work on another group: take its events to their end, or close it")
        self._thread = threading.Thread(target=self._work, args=(group, following), daemon=True)
        self._thread.start()
        return self._until_free(self._thread)

    def finish(self) -> Iterator[Event]:
        """Give what happens until all groups are done. The engine, and its GPU, are given up first."""
        self._generator.rest()
        for thread in list(self._concluding.values()):
            while thread.is_alive():
                with contextlib.suppress(queue.Empty):
                    yield from _events(self._events.get(timeout=_TICK))
        while not self._events.empty():
            yield from _events(self._events.get())

    def _until_free(self, thread: threading.Thread) -> Iterator[Event]:
        while (said := self._events.get()) is not thread:
            yield from _events(said)
        thread.join()

    @property
    def is_over(self) -> bool:
        """Whether the time of the run is over."""
        return self._generator.is_over

    def close(self) -> None:
        """End the engine. Safe from any thread; what is under way is given up."""
        self._generator.close()

    def wait(self) -> None:
        """Wait until a closed worker has removed what it was writing, but not longer than `PATIENCE`."""
        deadline = time.monotonic() + PATIENCE
        for thread in (self._thread, *list(self._concluding.values())):
            if thread is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    # ------------------------------------------------------------------------------------------------------ a group

    def _work(self, group: Group, following: Group | None) -> None:
        """Have the engine do what a group asks of it; runs in a thread."""
        jobs = [_Job(evaluation, group) for evaluation in group.evaluations]
        try:
            self._wait_for_scores(group)
            self._meter.turn("other")
            lease = self._hold(group)
            lease.__enter__()
            earlier = next(reversed(self._concluding.values()), None)
            concluding = threading.Thread(target=self._conclude, args=(group, jobs, lease, earlier), daemon=True)
            concluding.start()
            self._concluding[group.key] = concluding
            together, later = self._staged(jobs)
            self._fly(together, group, following)
            for job in later:
                self._meter.turn("scoring")
                for before in together:
                    before.ended.wait()
                self._fly([job], group)
        except Held as held:
            self._say(Taken(group.key, str(held)))
            self._say(Done(group.key))
        except BaseException as error:
            self._events.put(error)
        finally:
            for job in jobs:
                if not job.begun:
                    job.end()
            self._meter.turn("other")
            self._events.put(threading.current_thread())

    def _wait_for_scores(self, group: Group) -> None:
        """Wait where scoring is `BEHIND` groups behind, or the same recipe's other group is not done."""
        self._meter.turn("scoring")
        self._concluding = {key: thread for key, thread in self._concluding.items() if thread.is_alive()}
        behind = list(self._concluding.values())[: max(0, len(self._concluding) - BEHIND)]
        for thread in (*behind, self._concluding.get(group.key)):
            if thread is not None:
                thread.join()

    def _conclude(
        self,
        group: Group,
        jobs: Sequence[_Job],
        lease: contextlib.AbstractContextManager[object],
        earlier: threading.Thread | None,
    ) -> None:
        """Say what becomes of a group's evaluations, when an `earlier` group is done.

        The evaluations are told of in their order, then the group is let go. Runs in a thread.
        """
        with lease:
            if earlier is not None:
                earlier.join()
            for job in jobs:
                job.ended.wait()
                for event in job.said:
                    self._say(event)
        self._say(EngineTime(self._meter.take()))
        self._say(Done(group.key))

    def _hold(self, group: Group) -> contextlib.AbstractContextManager[object]:
        """Take the group's lease. Raises Held."""
        return self._store.leases.take(group.key, run=self._run, worker=self._name, takes_over=self._takes_over)

    def _staged(self, jobs: Sequence[_Job]) -> tuple[list[_Job], list[_Job]]:
        """Return the evaluations that are in flight together, and those that follow when these are scored.

        Two that share answers are not asked at once: the second one finds those of the first.
        """
        together: dict[str, _Job] = {}  # by cell
        later: list[_Job] = []
        sharing: dict[str, _Job] = {}  # by what answers are keyed by; the last one of each
        for job in jobs:
            cell = job.evaluation.cell
            with self._wall(job):
                key, evaluator = self._results.cell_key(cell), self._results.tasks.evaluator(cell.evaluator)
                if job.evaluation.repeat or key in together:
                    later.append(job)
                    continue
                answers = identity([evaluator.name, evaluator.sampling])
                if not evaluator.prepares:
                    job.first = sharing.get(answers)
                    sharing[answers] = job
                together[key] = job
        return list(together.values()), later

    def _fly(self, jobs: Sequence[_Job], group: Group, following: Group | None = None) -> None:
        """Have the engine answer evaluations that have no result yet; they are scored when they have their answers."""
        begun = []
        for job in jobs:
            if self._generator.closed.is_set() or self._generator.is_over:
                break
            with self._wall(job):
                job.begun = not self._is_there(job)
            if not job.begun:
                job.end()
                continue
            self._say(Started(job.evaluation))
            begun.append(job)
        followers = [number for number, job in enumerate(begun) if job.first in begun]
        flight = Flight(len(begun), self._meter, followers)
        for number, job in enumerate(begun):
            threading.Thread(target=self._evaluate, args=(job, flight, number), daemon=True).start()
        self._generator.serve(flight, group, following)

    def _is_there(self, job: _Job) -> bool:
        """Tell whether an evaluation has its result already, and say so then."""
        cell, repeat = job.evaluation.cell, job.evaluation.repeat
        task = self._results.tasks.task(cell, repeat)
        if there := self._results.is_done(task):
            self._results.welcome(cell, repeat)
            job.said.append(There(job.evaluation, task.answers))
        return there

    @contextlib.contextmanager
    def _wall(self, job: _Job) -> Iterator[None]:
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
            self._fail(job, str(error) if foreseen else f"{type(error).__name__}: {error}", trace)

    def _fail(self, job: _Job, reason: str, trace: str = "") -> None:
        reason = " ".join(reason.split())
        self._results.note_failure(job.evaluation.cell, reason, trace, job.evaluation.repeat)
        job.said.append(Failed(job.evaluation, reason))

    # ------------------------------------------------------------------------------------------------ an evaluation

    def _evaluate(self, job: _Job, flight: Flight, member: int) -> None:
        """Have an evaluation answered and scored; runs in a thread."""
        try:
            with kept_in(self._store.root), self._wall(job):
                try:
                    generated = self._generate(job, flight, member)
                finally:
                    flight.leave(member)
                    job.asked.set()
                with self._scorers:
                    self._score(job, generated)
        except BaseException as error:  # as a plugin's SystemExit: it ends the run
            self._events.put(error)
        finally:
            job.end()

    def _generate(self, job: _Job, flight: Flight, member: int) -> Generated:
        """Return an evaluation with its answers."""
        if job.first is not None:
            job.first.asked.wait()
        task = self._results.tasks.task(job.evaluation.cell, job.evaluation.repeat)
        if task.repeat and not self._results.is_done(replace(task, repeat=0)):
            raise M3Error("it has no complete first pass to be compared with: see that one's failure")
        self._check_scorable(task, job.group)
        self._say(Doing("examining the grader"))
        self._graders.check(task)
        ask = partial(flight.ask, member)
        if (made := self._store.merges.get(job.group.key)) is None:
            list(ask(None))
            made = self._store.merges.get(job.group.key)
            assert made is not None
        if self._keep:
            self._keep_checkpoint(task, made.digest)
        return self._generator.generate(job.evaluation, task, made.digest, ask)

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
        with self._keeping:
            if not out.exists():
                self._say(Doing(f"writing checkpoint {digest[:12]}"))
                stream.write(
                    [task.cell.recipe], [out], self._store, tokenizer=task.cell.home, verify=self._verify,
                    stopped=self._generator.closed,
                )  # fmt: skip

    def _score(self, job: _Job, generated: Generated) -> None:
        task, made, group = generated.task, generated.made, job.group
        self._say(Doing("scoring"))
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
        job.said.append(Scored(job.evaluation, record))
        if result.n_unscored:
            self._fail(job, _unscored(record))

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


def _events(said: _Said) -> Iterator[Event]:
    """Give what is an event. Raises what went wrong outside any evaluation."""
    if isinstance(said, BaseException):
        raise said
    if not isinstance(said, threading.Thread):
        yield said


def _unscored(record: ResultRecord) -> str:
    reasons = sorted({score.reason or "no reason given" for score in record.scores if score.value is None})
    return f"{record.result.n_unscored} of {record.result.n} items are unscored: {'; '.join(reasons[:3])}"
