"""Carries a plan out: what is left of it goes in groups to workers, one engine each; their events come back.

A failure is noted and never stops the others; the same command continues after any kill.
"""

import contextlib
import math
import secrets
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from m3_exp import busy, launchers
from m3_exp.amounts import count, counted
from m3_exp.events import (
    Answered,
    Doing,
    Done,
    EngineStarted,
    EngineTime,
    Event,
    Failed,
    Known,
    MoreAnswers,
    Note,
    Scored,
    Speed,
    Started,
    Taken,
    There,
)
from m3_exp.generating import Clock
from m3_exp.groups import Budget, Evaluation, Group, Queue, grouped
from m3_exp.heartbeat import Heartbeat, runs
from m3_exp.launchers.protocol import Here, Work
from m3_exp.merging import stream
from m3_exp.progress import Progress
from m3_exp.reporting.table import score_of
from m3_exp.reporting.wandb.tracker import Tracker, Untracked
from m3_exp.results import Results
from m3_exp.stats.unread import unread_of
from m3_exp.store import Rate, RunRecord, Store
from m3_exp.types import Cell, CellResult, LauncherSettings, M3Error, Plan, ResultRecord, identity


@dataclass(frozen=True)
class Outcome:
    """What became of a plan's cells; `repeat=K` makes K + 1 of each. `done` are complete, `cached` were before.

    `run` is the name of the run in its store; empty where that cannot be written. `wrong` names cells that it called
    done and that the store does not hold (`actions.unproven`), each with why. `engine`: the seconds of its engines,
    by what they went to (`busy`).
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
    engine: Mapping[str, float] = field(default_factory=dict)

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
        launcher: LauncherSettings | None = None,
        workers: int | None = 1,
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
            launcher: who starts workers; None: threads of this process.
            workers: how many; None: as many as there is room for.
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
        self._launcher, self._count = launcher or LauncherSettings(), workers
        store.leases.silent = self._launcher.silent
        self._keep, self._verify = keep, verify
        self._tracker = tracker or Untracked()
        self._repeat, self._command = repeat, command
        self._called, self._experts = called, experts
        self._budget, self._clock, self._until = budget or Budget(), clock, math.inf
        self._cells = len(plan.cells) * (1 + repeat)
        self.progress = Progress(self._cells)
        self._cached = self._completed = self._engine_starts = 0
        self._engine_time: dict[str, float] = {}
        self._waited = False  # for another run, which is said once
        self._made: set[str] = set()  # the keys of the cells that were scored

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
                try:
                    with self.progress:
                        self._work_all(groups)
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
            engine=self._engine_time,
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
            engine=self._engine_time or None,
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
            self._results.welcome(cell, repeat)
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

    def _work_all(self, groups: Sequence[Group]) -> None:
        """Have the groups carried out. What goes wrong outside any cell is no cell's failure, and ends the run."""
        launcher, engine = launchers.module(self._launcher.name), self._plan.engine
        room = self._count or launcher.workers(engine, self._launcher)
        work = Work(
            self._store.root, engine, self._launcher, self.id, self._plan_key, self._keep, self._verify, self._until
        )
        here = Here(self._results, self._clock)
        reports = launcher.launch(work, Queue(groups), max(1, min(room, len(groups))), here)
        with contextlib.closing(reports):  # type: ignore[type-var]
            for report in reports:
                self.progress.turn(report.worker)
                self._fold(report.event)

    def _wait_for_another(self) -> None:
        """Say once that another run has some of the groups: what it does is taken over."""
        others = [run for run in runs(self._store) if run.alive and run.id != self.id]
        if not self._waited:
            who = "; ".join(f"{run.command or 'm3 run'} (pid {run.pid} on {run.host})" for run in others)
            self.progress.say(f"another run is at work on some of these cells, whose answers are taken over: {who}")
        self._waited = True
        self.progress.doing("waiting for another run")

    def _fold(self, event: Event) -> None:
        """Count a worker's event in the run's totals and failures, and show it."""
        match event:
            case There(evaluation, answers):
                self._there(evaluation, answers)
            case EngineStarted():
                self._engine_starts += 1
            case EngineTime(seconds):
                self._engine_time = busy.added(self._engine_time, seconds)
            case Scored(evaluation, record):
                self._scored(evaluation, record)
            case Failed(evaluation, reason):
                self.failures.append(event)
                self.progress.failed(str(evaluation), reason)
            case Taken():
                self._wait_for_another()
            case _:
                self._show(event)

    def _there(self, evaluation: Evaluation, answers: int) -> None:
        """Count a cell that another run has done meanwhile, or this one itself: as two recipes of the same weights."""
        self.progress.cached(answers)
        record = self._results.get(self._results.tasks.task(evaluation.cell, evaluation.repeat))
        if record is not None and self._results.cell_key(evaluation.cell) in self._made:
            self.progress.begin(str(evaluation))
            self._scored(evaluation, record)
            return
        self._cached += 1
        self._completed += 1
        self.progress.cells_done += 1

    def _show(self, event: Event) -> None:
        """Show what a worker does between two results."""
        progress = self.progress
        match event:
            case Started(evaluation):
                progress.begin(str(evaluation))
            case Doing(what):
                progress.doing(what)
            case MoreAnswers(_, answers):
                progress.expect(answers)
            case Known(_, answers):
                progress.cached(answers)
            case Answered(_, tokens):
                progress.generated(tokens)
            case Speed(tokens_per_second):
                progress.flow(tokens_per_second)
            case Note(text):
                progress.say(text)
            case Done(group):
                progress.rest(wholly=not group)

    def _scored(self, evaluation: Evaluation, record: ResultRecord) -> None:
        if not evaluation.repeat:
            self._tracker.cell(CellResult(evaluation.cell, record))
        self._made.add(self._results.cell_key(evaluation.cell))
        if not record.result.n_unscored:
            self._completed += 1
            silent = unread_of(record)
            said = f"; {silent}" if silent else ""
            self.progress.scored(str(evaluation), _figure(record), record.result.n, said)


def _figure(record: ResultRecord) -> str:
    """Return a score with its interval as tables print it."""
    if record.result.score is None:
        return "no score"
    shown = score_of(record)
    return f"{shown!s:>5} {shown.interval}"
