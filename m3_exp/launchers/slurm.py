"""launcher=slurm: workers are the jobs of a Slurm array, which take groups by their leases in the store.

The jobs need nobody: this process submits them, follows what they write down (orders.py), and says who is lost. A job
is dead when `squeue` says so; its group is free when its lease is.
"""

import shlex
import time
from collections.abc import Generator, Iterator
from dataclasses import replace

from m3_exp.amounts import counted
from m3_exp.events import Answered, Done, Event, Known, MoreAnswers, Note, Started, There
from m3_exp.groups import Evaluation, Queue
from m3_exp.heartbeat import forget_worker
from m3_exp.launchers import sbatch
from m3_exp.launchers.job import Job
from m3_exp.launchers.orders import ENDED, At, Ledger, NotYet, Order, Said, order_of, orders, spoken
from m3_exp.launchers.protocol import Here, Report, Work
from m3_exp.launchers.sbatch import State, Unreachable
from m3_exp.reading.records import say
from m3_exp.store import Store
from m3_exp.types import EngineSettings, LauncherSettings, M3Error, identity

POLL = 5.0  # seconds between two looks at Slurm's queue
TICK = 0.5  # seconds between two looks at the jobs' journals
_LATE = 120.0  # seconds until a result that a job tells of is to be seen here: file servers show new files late
_LEAVING = 20.0  # seconds that jobs take to end by themselves when all is done
_KILLED = 60.0  # seconds that Slurm takes to end jobs
_OF_ANSWERS = ("Answered", "Known", "MoreAnswers")


def workers(engine: EngineSettings, settings: LauncherSettings) -> int:
    """Return 1: how many jobs a cluster has room for, nobody knows.

    Raises:
        M3Error: submitit or Slurm is not here.
    """
    if reason := sbatch.lacks():
        raise M3Error(reason)
    return 1


def launch(work: Work, queue: Queue, count: int, here: Here) -> Iterator[Report]:
    """Have the groups carried out by jobs; see `protocol`.

    Where jobs of an earlier command are at work on the same plan, they are followed first, and none is submitted beside
    them.
    """
    workers(work.engine, work.launcher)
    sbatch.check(work.launcher)
    store = here.results.store
    groups = []
    while (group := queue.take()) is not None:
        groups.append(group)
    left = {_key(one): one for group in groups for one in group.evaluations}
    for run in _earlier(store, work.plan):
        said = f"jobs of an earlier command are at work on this plan ({sbatch.job_name(run)} in squeue)"
        if not work.launcher.wait:
            yield _note(f"{said}: none is submitted beside them. {_look_on(store)}")
            return
        yield _note(f"{said}: they are waited for. Ctrl-C leaves them at work; to end them: {_scancel(run)}")
        yield from _done_meanwhile(left, here)
        yield from _Array(store, run, left, here, work.until).follow(joined=True)
        yield from _done_meanwhile(left, here)
    asked = [replace(g, evaluations=tuple(e for e in g.evaluations if _key(e) in left)) for g in groups]
    asked = [group for group in asked if group.evaluations]
    if not asked or here.clock() >= work.until:
        return
    ahead = store.clock() - time.time()
    until = None if work.until == float("inf") else work.until + ahead
    silent, count = work.launcher.silent, min(count, len(asked))
    order = Order(work.plan, work.engine, count, work.keep, work.verify, silent, tuple(asked), until)
    array, interrupted, alone = _Array(store, work.run, left, here, work.until), True, False
    try:
        job = _submitted(work, order, store)
        alone = not work.launcher.wait
        yield _note(f"{counted(count, 'job')} submitted to Slurm: {job}, log in {store.launched(work.run)}")
        if alone:
            yield _note(_look_on(store))
            return
        yield from array.follow()
        interrupted = False
    finally:
        if not alone:
            array.end(interrupted)


def _submitted(work: Work, order: Order, store: Store) -> str:
    """Write the order of a run down, submit its jobs, and return the id of their array."""
    folder = store.launched(work.run).absolute()
    folder.mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)  # whatever the umask: it holds pickles, which run what they say
    orders(store, work.run).put("order", order)
    root = str(store.root.absolute())
    jobs = [Job(root, work.run, number) for number in range(1, order.count + 1)]
    return sbatch.submit(work.engine, work.launcher, jobs, folder)


def _earlier(store: Store, plan: str) -> list[str]:
    """Return the runs of the same plan in this store that have living jobs."""
    try:
        living = sorted(sbatch.living())
    except Unreachable as error:
        raise M3Error(f"Slurm does not answer ({error}): try again later, or take launcher=local") from error
    known = ((run, orders(store, run).get("order")) for run in living)
    return [run for run, order in known if order is not None and order.plan == plan]


def _done_meanwhile(left: dict[str, Evaluation], here: Here) -> Iterator[Report]:
    """Report what others finished after this command had looked for what is left."""
    for key, one in list(left.items()):
        task = here.results.tasks.task(one.cell, one.repeat)
        if here.results.is_done(task):
            del left[key]
            yield Report("", There(one, task.answers))


class _Array:
    """The jobs of a run, followed. `left` are the evaluations that are not settled: those that get settled leave it."""

    def __init__(self, store: Store, run: str, left: dict[str, Evaluation], here: Here, until: float) -> None:
        self._store, self._run, self._left, self._here, self._until = store, run, left, here, until
        self._folder = store.launched(run)
        self._ledger = Ledger(store, run)
        self._keys: dict[At, str] = {}  # of the evaluations that are followed
        self._states: dict[str, State] = {}  # by worker, as Slurm said last
        self._begun: set[str] = set()  # workers that said something, and are not known to have ended
        self._tallies: dict[At, _Tally] = {}
        self._at: dict[str, At] = {}  # by worker: what it is at
        self._late: list[tuple[Said, float]] = []  # of results that are not to be seen yet; until when they may be
        self._unreachable = ""
        self._reasons: set[str] = set()  # for which jobs wait, as was said
        self._next = 0.0  # when Slurm is asked again

    def follow(self, *, joined: bool = False) -> Iterator[Report]:
        """Give what the jobs do, until all is settled or no job lives. `joined`: what they did before is not new."""
        evaluations = order_of(self._store, self._run).evaluations()
        self._keys = {at: key for at, one in evaluations.items() if (key := _key(one)) in self._left}
        if joined:
            yield from self._caught_up()
        mine, over = set(self._keys.values()), False
        while mine & self._left.keys():
            alive = yield from self._looked()
            for said in self._ledger.news():
                yield from self._reported(said)
            yield from self._seen_late()
            if not over and (over := self._here.clock() >= self._until):
                if joined:
                    return
                sbatch.cancel(self._run, "--state=PENDING")
            if alive is False and not self._late:
                if not over and (left := mine & self._left.keys()):
                    yield self._given_up(len(left))
                return
            time.sleep(TICK)

    def end(self, interrupted: bool) -> None:
        """End the jobs. Where all is done those that run may end by themselves."""
        try:
            if not interrupted:
                sbatch.cancel(self._run, "--state=PENDING")
                sbatch.wait_until_gone(self._run, _LEAVING)
        finally:
            if sbatch.lives(self._run):
                sbatch.cancel(self._run)
                say(f"the jobs {sbatch.job_name(self._run)} of this run are cancelled")
                sbatch.wait_until_gone(self._run, _KILLED)
            for key, record in self._store.workers.items():
                if record.run == self._run:
                    forget_worker(self._store, key)

    # ------------------------------------------------------------------------------------------------------ Slurm

    def _looked(self) -> Generator[Report, None, bool | None]:
        """Ask Slurm for the jobs, at times, and say what changed. Return whether one lives; None: nobody knows."""
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + POLL
        try:
            states = sbatch.states(self._run)
        except Unreachable as error:
            if not self._unreachable:
                yield _note(f"Slurm does not answer, its jobs go on: {error}")
            self._unreachable = str(error)
            return None
        if self._unreachable:
            self._unreachable = ""
            yield _note("Slurm answers again")
        now = {f"worker {state.number}": state for state in states}
        gone = {worker: replace(state, name="gone") for worker, state in self._states.items() if worker not in now}
        before, self._states = self._states, now | gone
        alive = any(state.alive and state.name != "gone" for state in self._states.values())
        for worker, state in self._states.items():
            yield from self._changed(worker, before.get(worker), state, alive)
        yield from self._waiting()
        return alive

    def _changed(self, worker: str, before: State | None, now: State, others: bool) -> Iterator[Report]:
        """Say that a job that was at work is back in the queue, or lost while others go on."""
        if worker not in self._begun or before is None or before.name == now.name:
            return
        if now.name in ("PENDING", "REQUEUED", "REQUEUE_HOLD"):
            yield _note(f"{worker} (job {now.job}) is back in Slurm's queue, and goes on later")
            yield from self._rests(worker)
        elif others and (not now.alive or now.name == "gone"):
            for said in self._ledger.news():  # what it wrote last
                yield from self._reported(said)
            if worker in self._begun:
                yield _note(f"{worker} lost: {self._why(now)}; its cells are taken over")
                yield from self._rests(worker)

    def _rests(self, worker: str) -> Iterator[Report]:
        self._begun.discard(worker)
        yield Report(worker, Done(""))

    def _waiting(self) -> Iterator[Report]:
        """Say why all jobs wait, where they do."""
        alive = [state for state in self._states.values() if state.alive]
        waits = bool(alive) and all(state.name == "PENDING" for state in alive)
        reasons = ", ".join(sorted({state.reason for state in alive})) if waits else ""
        if reasons not in ("", "None", *self._reasons):
            yield _note(f"all jobs wait in Slurm's queue: {reasons}")
            self._reasons.add(reasons)

    def _given_up(self, left: int) -> Report:
        """Say that no job is left although there is work, and why."""
        reasons = sorted({self._why(state) for state in self._states.values()}) or ["Slurm does not know them any more"]
        more = f" (and {counted(len(reasons) - 1, 'other')})" if len(reasons) > 1 else ""
        return _note(f"no job is left, {counted(left, 'cell')} are: {reasons[0]}{more}; logs in {self._folder}")

    def _why(self, state: State) -> str:
        words = sbatch.last_words(self._folder, state.job)
        return f"job {state.job} ended ({state.name})" + (f": {words}" if words else "")

    # ----------------------------------------------------------------------------------------------------- journals

    def _caught_up(self) -> Iterator[Report]:
        """Take up what jobs did before they were followed: what they are at, and how many answers that has."""
        past = self._ledger.news()
        self._keys = {at: key for at, key in self._keys.items() if at not in self._ledger.settled}
        for said in past:
            for report in self._reported(said):
                if isinstance(report.event, Answered):
                    yield replace(report, event=Known(report.event.evaluation, 1))
                elif isinstance(report.event, Started | Known | MoreAnswers):
                    yield report

    def _reported(self, said: Said, late: float | None = None) -> Iterator[Report]:
        """Give what a line tells, but nothing of an evaluation that is settled, or that nobody here asked for.

        `late`: until when its result may be waited for.
        """
        if said.fields["event"] == ENDED:
            yield from self._rests(said.worker)
            return
        self._begun.add(said.worker)
        if said.at is not None:
            self._at[said.worker] = said.at
        at = self._at.get(said.worker)
        key = "" if at is None else self._keys.get(at, "")
        evaluation = self._left.get(key)
        if evaluation is None and (said.at is not None or said.fields["event"] in _OF_ANSWERS):
            return
        try:
            for event in spoken(said, evaluation if said.at is not None else None, self._here.results):
                yield Report(said.worker, self._counted(event, at))
        except NotYet:
            self._late.append((said, late or time.monotonic() + _LATE))
            return
        if said.settles:
            del self._left[key]

    def _seen_late(self) -> Iterator[Report]:
        """Report results that could not be seen at first. One that never shows is left to the next command."""
        late, self._late = self._late, []
        for said, end in late:
            if time.monotonic() < end:
                yield from self._reported(said, end)

    def _counted(self, event: Event, at: At | None) -> Event:
        """Count an evaluation's answers once, though the worker that takes it over finds those of the lost one."""
        if at is None:
            return event
        tally = self._tallies.setdefault(at, _Tally())
        match event:
            case Started():
                tally.begin()
            case Known(evaluation, answers):
                return Known(evaluation, tally.answers(answers))
            case There(evaluation, answers):
                tally.begin()
                return There(evaluation, tally.answers(answers))
            case Answered():
                tally.answers(1)
            case MoreAnswers(evaluation, answers):
                return MoreAnswers(evaluation, tally.more(answers))
        return event


class _Tally:
    """How many answers of an evaluation were reported, and how many its present worker has told of."""

    def __init__(self) -> None:
        self._now, self._told = [0, 0], [0, 0]

    def begin(self) -> None:
        """Say that a worker begins, or begins again."""
        self._now = [0, 0]

    def answers(self, number: int) -> int:
        """Return how many of so many answers are new."""
        return self._new(0, number)

    def more(self, number: int) -> int:
        """Return how many of so many answers that are to come are new."""
        return self._new(1, number)

    def _new(self, which: int, number: int) -> int:
        self._now[which] += number
        new = max(0, self._now[which] - self._told[which])
        self._told[which] += new
        return new


def _key(evaluation: Evaluation) -> str:
    """Return what tells an evaluation from others, also where it comes from another command's order."""
    return f"{identity(evaluation.cell)}-{evaluation.repeat}"


def _note(text: str) -> Report:
    return Report("", Note(text))


def _look_on(store: Store) -> str:
    return f"To look on: m3 status store={shlex.quote(str(store.root))}; the same command again waits for them"


def _scancel(run: str) -> str:
    return f"scancel --name={sbatch.job_name(run)}"
