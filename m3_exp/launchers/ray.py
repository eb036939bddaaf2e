"""launcher=ray: workers are actors on a Ray cluster, an engine each, that take groups from one queue of this process.

Ray places the actors, watches them and their nodes, makes them again, and carries what they say. Here a thread for each
hands it a group and takes its events as a stream. Ray tries no stream again: of the second one it would leave out as
many events as the first one gave, and they are others, since the answers of the first are in the store. In its place
the group of an actor that died goes back to the front of the queue.
"""

import contextlib
import os
import queue as queues
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from m3_exp.engines.sharing import default_workers
from m3_exp.events import Answered, Doing, Done, Event, Failed, Known, MoreAnswers, Note, Scored, Started, Taken, There
from m3_exp.groups import Evaluation, Group, Queue
from m3_exp.heartbeat import forget_worker
from m3_exp.launchers import ray_cluster as cluster
from m3_exp.launchers.local import PAUSE, until_all_end
from m3_exp.launchers.protocol import DEATHS, Here, Report, Work
from m3_exp.launchers.ray_actor import Begun, Start, survey
from m3_exp.launchers.signs import worker_key
from m3_exp.store import Store
from m3_exp.types import EngineSettings, LauncherSettings, M3Error
from m3_exp.worker import PATIENCE

NOWHERE = 60.0  # seconds without any node that could hold a worker, until the run ends
_TICK = 0.5  # seconds
_TRIES = 10  # times that Ray has an actor begin where it dies of that, or cannot be reached


class Unusable(M3Error):
    """A worker that cannot be used, and why; the others go on."""


def workers(engine: EngineSettings, settings: LauncherSettings) -> int:
    """Return as many as the cluster's GPUs hold; one a node without GPUs."""
    if settings.address is None:
        return default_workers(engine)
    with cluster.joined(settings):
        known = cluster.nodes()
        return cluster.room(cluster.share(engine, settings, known), known)


def launch(work: Work, queue: Queue, count: int, here: Here) -> Iterator[Report]:
    """Carry the groups out in actors, and give what happens; see `protocol`."""
    yield Report("worker 1", Doing("joining the Ray cluster" if work.launcher.address else "starting Ray"))
    work = replace(work, store=work.store.absolute())
    with cluster.joined(work.launcher, count), _probe(Store(work.store), work.run) as probe:
        known = cluster.nodes()
        asked = cluster.share(work.engine, work.launcher, known, count)
        cluster.refuse_what_fits_nowhere(asked, known)
        facts = survey(probe, work.engine)
        cluster.refuse_unfit_nodes(asked, known, probe, work.engine, facts)
        threads = None if asked.gpus else asked.cpus
        work = replace(work, engine=replace(work.engine, threads=work.engine.threads or threads))
        crew = _Crew(queue, here, work, asked)
        starts = [Start(work, f"worker {number + 1}", os.getcwd(), probe, facts) for number in range(count)]
        members = [_Member(crew, start, cluster.actor(asked)) for start in starts]
        serving = [threading.Thread(target=member.serve, daemon=True) for member in members]
        for thread in serving:
            thread.start()
        try:
            yield from until_all_end(crew.reports, len(serving))
            crew.refuse_what_is_left()
        finally:  # an interrupt, too, ends up here
            crew.stopping.set()
            for member in members:
                member.interrupt()
            deadline = time.monotonic() + PATIENCE
            for thread in serving:
                thread.join(max(0.0, deadline - time.monotonic()))
            for start in starts:  # of a lost worker
                with contextlib.suppress(OSError):
                    forget_worker(Store(work.store), worker_key(work.run, start.name))


@contextlib.contextmanager
def _probe(store: Store, run: str) -> Iterator[str]:
    """Lay a file into the store, which every node must see."""
    folder = store.launched(run)
    path = folder / "probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise M3Error(f"store={store.root} cannot be written: {error.strerror}: give another store=DIR") from error
    try:
        yield str(path)
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            folder.rmdir()


@dataclass
class _Crew:
    """What the workers of a run share here."""

    queue: Queue
    here: Here
    work: Work
    asked: cluster.Share
    reports: "queues.SimpleQueue[Report | BaseException | None]" = field(default_factory=queues.SimpleQueue)
    stopping: threading.Event = field(default_factory=threading.Event)
    deaths: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by group, since its last answer
    unusable: list[str] = field(default_factory=list)  # why workers are not used

    @property
    def is_over(self) -> bool:
        """Whether nothing more is begun."""
        return self.stopping.is_set() or self.here.clock() >= self.work.until

    def refuse_what_is_left(self) -> None:
        """Raise M3Error where groups are left that no worker could take."""
        if len(self.queue) and self.unusable and not self.is_over:
            raise M3Error(f"launcher=ray: {self.unusable[-1]}; what is done is in the store")


@dataclass
class _UnderWay:
    """An evaluation that is not settled: how many answers were told of it, and told to come."""

    evaluation: Evaluation
    counted: int = 0
    more: int = 0


class _Member:
    """One worker as it is seen from here: its actor, where that is, and what it has said of its groups."""

    def __init__(self, crew: _Crew, start: Start, actor: Any) -> None:
        self._crew, self._start, self._actor = crew, start, actor
        self._place = ""
        self._open: list[Group] = []  # the groups that it has, and that are not done, the newest last
        self._settled: list[Evaluation] = []  # of these: what needs no other try
        self._under_way: list[_UnderWay] = []
        self._moved = False  # whether the group that it began last gave anything
        self._one_by_one = False  # it takes no group before the last one is done, since a worker died with several

    def serve(self) -> None:
        """Take groups until none waits, the time is over or the run ends. What goes wrong goes to the reports."""
        try:
            self._serve()
        except Unusable as error:
            self._crew.unusable.append(str(error))
            self._say(Note(f"{error}; it is not used"))
        except BaseException as error:
            self._crew.reports.put(error)
            return
        finally:
            self._say(Done(""))
            self._end()
        self._crew.reports.put(None)

    def interrupt(self) -> None:
        """Have the worker give up what it is at. Safe from any thread."""
        from ray.exceptions import RayError

        with contextlib.suppress(RayError):
            self._actor.close.remote()

    def _serve(self) -> None:
        queue, last = self._crew.queue, None
        while self._place or self._begin():
            if not self._crew.is_over and (group := queue.take(last)) is not None:
                last = group if self._carry(group) else None
            elif self._finish():
                return

    def _begin(self) -> bool:
        """Wait until Ray has a place for the actor, and its worker is ready. False where nothing is left to do."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        self._say(Doing("waiting for a place on the cluster"))
        name = self._start.name
        beginning = self._actor.begin.options(max_task_retries=_TRIES).remote(self._start)
        if not self._has_begun(beginning):
            return False
        try:
            begun: Begun = ray.get(beginning)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise Unusable(f"{name} ended again and again as it began: {cluster.why(error)}") from error
        if begun.unfit:
            raise Unusable(f"{name} on {begun.place}: {begun.unfit}")
        self._place = begun.place
        self._say(Doing(""))
        return True

    def _has_begun(self, beginning: Any) -> bool:
        import ray

        nowhere = time.monotonic()
        while not ray.wait([beginning], timeout=_TICK)[0]:
            if self._crew.is_over or not len(self._crew.queue):
                return False
            try:
                cluster.refuse_what_fits_nowhere(self._crew.asked, cluster.nodes())
                nowhere = time.monotonic()
            except M3Error as error:
                if time.monotonic() - nowhere > NOWHERE:
                    raise Unusable(f"{self._start.name}: for {NOWHERE:.0f} s there was no place: {error}") from error
        return True

    def _carry(self, group: Group) -> bool:
        """Have the actor carry a group out, until its engine is free. False where it does not come so far."""
        self._open.append(group)
        self._moved = False
        now, following = self._crew.here.clock(), self._crew.queue.following(group)
        stream = self._actor.carry.options(num_returns="streaming").remote(group, now, following)
        if not self._heard(stream):
            return False
        if group in self._open or self._moved:
            return not self._one_by_one or self._finish()
        return False

    def _finish(self) -> bool:
        """Have the actor score what is left. False where it dies of that."""
        if not self._open:
            return True
        return self._heard(self._actor.finish.options(num_returns="streaming").remote(self._crew.here.clock()))

    def _heard(self, stream: Any) -> bool:
        """Pass on what the actor says. False where it is lost."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            for reference in stream:
                event: Event = ray.get(reference)
                self._note(event)
                self._say(event)
                if isinstance(event, Taken):
                    self._crew.queue.back(self._open.pop())
                    self._crew.stopping.wait(PAUSE)
        except RayTaskError as error:
            if not isinstance(error.cause, RayError):
                raise error.cause from error
            self._lose(error)
            return False
        except RayError as error:
            self._lose(error)
            return False
        return True

    def _note(self, event: Event) -> None:
        """Remember what is told of the groups that it has, for when the actor dies."""
        match event:
            case Started(evaluation):
                self._under_way.append(_UnderWay(evaluation))
            case Known(evaluation, answers):
                self._of(evaluation).counted += answers
            case MoreAnswers(evaluation, answers):
                self._of(evaluation).more += answers
            case Answered(evaluation):
                self._of(evaluation).counted += 1
                self._moved = True
            case There(evaluation) | Failed(evaluation):
                self._settle(evaluation)
            case Scored(evaluation, record) if not record.result.n_unscored:
                self._settle(evaluation)
            case Done(key) if done := [group for group in self._open if group.key == key]:
                self._open.remove(done[0])
                self._moved = True
                self._crew.queue.done()
                if not self._open:
                    self._settled = []

    def _of(self, evaluation: Evaluation) -> "_UnderWay":
        return next(one for one in self._under_way if one.evaluation == evaluation)

    def _settle(self, evaluation: Evaluation) -> None:
        self._settled.append(evaluation)
        self._under_way = [one for one in self._under_way if one.evaluation != evaluation]
        self._moved = True

    def _lose(self, error: Exception) -> None:
        """Give the groups of a dead actor back. What was counted of a cell under way is counted by who takes it over.

        A death counts against a group that the actor had alone.
        """
        if self._crew.stopping.is_set():
            return
        place, self._place = self._place, ""
        died = f"{self._start.name} on {place} lost: {cluster.why(error)}"
        self._say(Note(f"{died}; its cells are taken over"))
        for one in self._under_way:
            self._say(Known(one.evaluation, -one.counted))
            self._say(MoreAnswers(one.evaluation, -one.more))
        self._say(Done(""))
        alone, self._one_by_one = len(self._open) == 1, True
        for group in reversed(self._open):
            self._give_back(group, died, int(alone))
        self._open, self._settled, self._under_way = [], [], []

    def _give_back(self, group: Group, died: str, deaths: int) -> None:
        """Give a group back to the queue, or up where too many workers died at it."""
        left = tuple(one for one in group.evaluations if one not in self._settled)
        known = self._crew.deaths[group.key] = 0 if self._moved else self._crew.deaths[group.key] + deaths
        if left and known < DEATHS:
            self._crew.queue.back(replace(group, evaluations=left), first=True)
            return
        for evaluation in left:
            reason = f"{known} workers died at it without one answer between, the last: {died}"
            self._crew.here.results.note_failure(evaluation.cell, reason, "", evaluation.repeat)
            self._say(Failed(evaluation, reason))
        self._crew.queue.done()

    def _say(self, event: Event) -> None:
        self._crew.reports.put(Report(self._start.name, event))

    def _end(self) -> None:
        """End the actor for good; its place is free for others."""
        import ray
        from ray.exceptions import RayError

        with contextlib.suppress(RayError):
            if self._place:
                ray.wait([self._actor.close.remote()], timeout=PATIENCE)
            ray.kill(self._actor)
