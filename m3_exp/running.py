"""Carries a plan out: what is left of it goes in groups to workers, one engine each; their events come back.

A failure is noted and never stops the others; the same command continues after any kill.
"""

import contextlib
import math
import queue
import secrets
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from m3_exp.amounts import count, counted
from m3_exp.engines.sharing import divide
from m3_exp.events import (
    Answered,
    Doing,
    EngineStarted,
    Event,
    Failed,
    Known,
    MoreAnswers,
    Note,
    Scored,
    Speed,
    Started,
)
from m3_exp.generating import Clock
from m3_exp.groups import Budget, Evaluation, Group, grouped
from m3_exp.heartbeat import Heartbeat, runs
from m3_exp.merging import stream
from m3_exp.progress import Progress
from m3_exp.reporting.table import score_of
from m3_exp.reporting.wandb.tracker import Tracker, Untracked
from m3_exp.results import Results
from m3_exp.stats.unread import unread
from m3_exp.store import Rate, RunRecord, Store
from m3_exp.types import Cell, CellResult, M3Error, Plan, ResultRecord, identity
from m3_exp.worker import Graders, Worker

_PAUSE = 0.2  # seconds before the next group is looked at, where another run has one


@dataclass(frozen=True)
class Outcome:
    """What became of a plan's cells; `repeat=K` makes K + 1 of each. `done` are complete, `cached` were before.

    `run` is the name of the run in its store; empty where that cannot be written. `wrong` names cells that it called
    done and that the store does not hold (`actions.unproven`), each with why.
    """

    cells: int
    done: int
    cached: int
    failures: tuple[Failed, ...]
    generated: int
    tokens: int
    engine_starts: int
    run: str = ""
    wrong: tuple[str, ...] = ()

    @property
    def left(self) -> int:
        """The cells that it did not come to."""
        return max(0, self.cells - self.done - len(self.failures))


class Run:
    """One plan on its way. Its journals and results carry `id`, so that a resumed cell can say so."""

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
        called: str = "run",
        experts: Mapping[str, tuple[str, ...]] | None = None,
        budget: Budget | None = None,
        clock: Clock = time.time,
    ) -> None:
        """Make a run ready.

        Args:
            repeat: how often each cell is evaluated once more (noise floor).
            command: what began the run.
            called: what its name begins with.
            experts: the names of each pair's experts, in their order.
            budget: when it stops, at the last answer that fits; the same run goes on later.
        """
        self.id = secrets.token_hex(8)
        self.failures: list[Failed] = []
        self._plan, self._plan_key, self._store = plan, plan.identity, store
        self._results = Results(store, plan.engine)
        self._count, self._keep, self._verify = workers, keep, verify
        self._tracker = tracker or Untracked()
        self._repeat, self._command = repeat, command
        self._called, self._experts = called, experts
        self._budget, self._clock, self._until = budget or Budget(), clock, math.inf
        self._cells = len(plan.cells) * (1 + repeat)
        self.progress = Progress(self._cells)
        self._cached = self._completed = self._engine_starts = 0
        self._queue: queue.SimpleQueue[Group] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._errors: list[BaseException] = []
        self._waited = False  # for another run, which is said once

    def carry_out(self, parameters: int | None = None) -> Outcome:
        """Do what is left of the plan. `parameters` (of the model) files the measured speed for later forecasts.

        Raises:
            M3Error: every single cell is refused (a wrong request, nothing was done).
        """
        self._until = self._budget.until(self._clock())
        self._store.sweep()
        with Heartbeat(self._store, self.id, self.state, called=self._called, experts=self._experts) as shown:
            left = self._left()
            if self.failures and not left and not self._cached:
                raise M3Error(self.failures[0].reason)
            if left:
                groups = self._budget.of(grouped(left, self._results))
                self._announce([evaluation for group in groups for evaluation in group.evaluations])
                for group in groups:
                    self._queue.put(group)
                try:
                    with self.progress:
                        self._work_all(max(1, min(self._count, len(groups))))
                finally:
                    self._remember_speed(parameters)
        return Outcome(
            cells=self._cells,
            done=self._completed,
            cached=self._cached,
            failures=tuple(self.failures),
            generated=self.progress.answers,
            tokens=self.progress.tokens,
            engine_starts=self._engine_starts,
            run=shown.name,
        )

    def state(self) -> RunRecord:
        """Return what others may see of this run."""
        progress = self.progress
        return RunRecord(
            command=self._command,
            plan=self._plan_key,
            cells=self._cells,
            cells_done=self._completed,
            cells_failed=len(self.failures),
            items=progress.total,
            items_done=progress.done,
            tokens_per_second=progress.speed(),
            seconds_left=progress.left(),
            doing=progress.at_work(),
        )

    def _announce(self, left: Sequence[Evaluation]) -> None:
        """Say how many cells were there already, and what is to do."""
        answers = sum(self._results.tasks.task(e.cell, e.repeat).answers for e in left)
        self.progress.expect(answers)
        self.progress.cells_done += self._cached
        there = f"{count(self._cached)} of {counted(self._cells, 'cell')} there already; " if self._cached else ""
        self.progress.say(f"{there}{counted(len(left), 'cell')} to do, {counted(answers, 'answer')}")

    def _remember_speed(self, parameters: int | None) -> None:
        if self.progress.answers >= 64:
            key = identity([self._plan.engine.name, self._plan.engine.dtype, parameters])
            length = self.progress.tokens / self.progress.answers
            self._store.rates.put(key, Rate(self.progress.rate(), length))

    # ------------------------------------------------------------------------------------------------ before work

    def _left(self) -> list[Evaluation]:
        """Return the evaluations without a complete result. A refused one fails its cell, and the others go on."""
        left: list[Evaluation] = []
        refused: dict[str, str] = {}  # by recipe key; empty where the recipe is fine
        for cell in self._plan.cells:
            evaluations = [Evaluation(cell, number) for number in range(1 + self._repeat)]
            try:
                evaluations = [evaluation for evaluation in evaluations if not self._is_cached(evaluation)]
                if evaluations:
                    self._check(cell, refused)
            except M3Error as error:
                self._refuse(evaluations, str(error))
            except Exception as error:  # items that their plugin cannot read, say: noted, the others go on
                self._refuse(evaluations, f"{type(error).__name__}: {error}", traceback.format_exc(limit=-4))
            else:
                left += evaluations
        return left

    def _is_cached(self, evaluation: Evaluation) -> bool:
        """Tell whether an evaluation has a complete result, and count it then."""
        cell, repeat = evaluation.cell, evaluation.repeat
        if done := self._results.is_done(self._results.tasks.task(cell, repeat)):
            self._cached += 1
            self._completed += 1
            self._results.forget_failure(cell, repeat)
            with contextlib.suppress(OSError):  # its models may have another path now
                self._results.remember(cell)
        return done

    def _check(self, cell: Cell, refused: dict[str, str]) -> None:
        key = self._results.recipe_key(cell)
        if key not in refused:
            try:
                stream.check(cell.recipe, self._store)
                refused[key] = ""
            except M3Error as error:
                refused[key] = str(error)
        if refused[key]:
            raise M3Error(refused[key])

    def _refuse(self, evaluations: Sequence[Evaluation], reason: str, trace: str = "") -> None:
        """Fail what is left of a cell and its repeats before any work."""
        reason = " ".join(reason.split())
        for evaluation in evaluations:
            self._results.note_failure(evaluation.cell, reason, trace, evaluation.repeat)
            self._fold(Failed(evaluation, reason))

    # ---------------------------------------------------------------------------------------------------- workers

    def _work_all(self, count: int) -> None:
        graders = Graders()
        workers = [
            Worker(
                self._store, settings, run=self.id, keep=self._keep, verify=self._verify, results=self._results,
                graders=graders, until=self._until, clock=self._clock,
            )
            for settings in divide(self._plan.engine, count)
        ]  # fmt: skip
        threads = [threading.Thread(target=self._work, args=(worker,), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive() and not self._errors:
                    thread.join(0.5)
        finally:  # an interrupt, too, ends up here
            self._stopping.set()
            for worker in workers:
                worker.close()
            for worker in workers:
                worker.wait()
        if self._errors:
            raise self._errors[0]

    def _work(self, worker: Worker) -> None:
        """Carry groups out until none is left. What goes wrong here is no cell's failure, and ends the run."""
        try:
            with contextlib.closing(worker):
                while not self._stopping.is_set() and self._clock() < self._until:
                    group = self._queue.get_nowait()
                    if (claim := self._claim(group)) is None:
                        continue
                    with claim:
                        for event in worker.carry(self._without_done(group)):
                            self._fold(event)
        except queue.Empty:
            return
        except BaseException as error:
            self._errors.append(error)
        finally:
            self.progress.rest()

    def _claim(self, group: Group) -> contextlib.ExitStack | None:
        """Take a group, or put it back to the end where another run has it: what that one does is then taken over."""
        try:
            return self._store.claim(group.key)
        except BlockingIOError:
            others = [run for run in runs(self._store) if run.alive and run.id != self.id]
            with self._lock:
                said, self._waited = self._waited, True
            if not said:
                who = "; ".join(f"{run.command or 'm3 run'} (pid {run.pid} on {run.host})" for run in others)
                self.progress.say(f"another run is at work on some of these cells, whose answers are taken over: {who}")
            self.progress.doing("waiting for another run")
            self._queue.put(group)
            self._stopping.wait(_PAUSE)
            return None

    def _without_done(self, group: Group) -> Group:
        """Return a group without what another run has done since this one began, which is counted here."""
        with self._lock:
            rest = tuple(evaluation for evaluation in group.evaluations if not self._is_cached(evaluation))
            done = [evaluation for evaluation in group.evaluations if evaluation not in rest]
            self.progress.cells_done += len(done)
        for evaluation in done:
            self.progress.cached(self._results.tasks.task(evaluation.cell, evaluation.repeat).answers)
        return replace(group, evaluations=rest)

    def _fold(self, event: Event) -> None:
        """Count a worker's event in the run's progress, failures and totals."""
        progress = self.progress
        match event:
            case Started(evaluation):
                progress.begin(str(evaluation))
            case Doing(what):
                progress.doing(what)
            case EngineStarted():
                with self._lock:
                    self._engine_starts += 1
            case MoreAnswers(answers):
                progress.expect(answers)
            case Known(answers):
                progress.cached(answers)
            case Answered(tokens):
                progress.generated(tokens)
            case Speed(tokens_per_second):
                progress.flow(tokens_per_second)
            case Note(text):
                progress.say(text)
            case Scored(evaluation, record):
                self._scored(evaluation, record)
            case Failed(evaluation, reason):
                with self._lock:
                    self.failures.append(event)
                progress.failed(str(evaluation), reason)

    def _scored(self, evaluation: Evaluation, record: ResultRecord) -> None:
        if not evaluation.repeat:
            self._tracker.cell(CellResult(evaluation.cell, record))
        if not record.result.n_unscored:
            with self._lock:
                self._completed += 1
            silent = unread(record.result, record.scores)
            said = f"; {silent}" if silent else ""
            self.progress.scored(str(evaluation), _figure(record), record.result.n, said)


def _figure(record: ResultRecord) -> str:
    """Return a score with its interval as tables print it."""
    if record.result.score is None:
        return "no score"
    shown = score_of(record)
    return f"{shown!s:>5} {shown.interval}"
