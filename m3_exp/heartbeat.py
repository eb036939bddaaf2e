"""Signs of life: a run shows itself in the store, and `m3 status` and `m3 runs` read who is, and was, at work there.

runs/<id>.json      renewed every `BEAT` seconds     runs/<id>.lock   held as long as the run lives, however it ends
history/NAME.json   what asked for it, and how far it came: stays
"""

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from m3_exp import busy
from m3_exp.amounts import about, count, counted, duration
from m3_exp.store import BEAT, PastRun, RunRecord, Store, WorkerRecord, hold, lock_reach
from m3_exp.types import M3Error

LAST = "last"  # stands for the newest run, so none is called so
_LONGEST = 30  # characters of a run's name, before its number: `m3 runs` fits 80 columns
SILENT = 12 * BEAT  # of a run on another machine, whose lock may not be seen: after so long it counts as dead


@dataclass(frozen=True)
class RunState(RunRecord):
    """A run that works in a store, or (`alive` is false) one that was killed there."""

    id: str = ""
    alive: bool = False

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.started))
        who = f"pid {self.pid} on {self.host}, since {since}"
        cells = f"{count(self.cells_done)} of {counted(self.cells, 'cell')}"
        if self.items:
            cells += f", {count(self.items_done)} of {counted(self.items, 'answer')}"
        if not self.alive:
            return f"ended without a word: {who}, {cells}; to continue: {self.command or 'm3 run as before'}"
        text = f"running: {self.command or 'm3 run'}: {who} ({duration(max(0, time.time() - self.started))}), {cells}"
        if self.cells_failed:
            text += f", {count(self.cells_failed)} failed"
        if self.seconds_left is not None:
            text += f", {count(self.tokens_per_second)} tokens/s, {about(self.seconds_left)} left"
        if told := busy.words(self.engine):
            text += f", {told}"
        return f"{text} | {'; '.join(self.doing) or 'preparing'}"


@dataclass(frozen=True)
class WorkerState(WorkerRecord):
    """A worker that is at work in a store, or (`alive` is false) one that was lost. `silent`: seconds since its last
    sign of life, by the clock of the store's files.
    """

    alive: bool = False
    silent: float = 0.0

    def __str__(self) -> str:
        place = f"{self.host}, {self.place}" if self.place else self.host
        at = ": ".join(filter(None, [self.cell, self.doing])) or "between two cells"
        done = counted(self.cells_done, "cell") + (f", {count(self.cells_failed)} failed" if self.cells_failed else "")
        if not self.alive:
            return f"{self.name} lost: {place}, {done}, last sign of life {duration(self.silent)} ago, at {at}"
        speed = f", {count(self.tokens_per_second)} tokens/s" if self.tokens_per_second else ""
        return f"{self.name}: {place}, {done}{speed}, sign of life {duration(self.silent)} ago | {at}"


class Heartbeat:
    """Shows in a store that a run is at work there. Use as a context manager.

    `state` is called for the record to write. The run is called `called`, or that with a number: `name`, which is empty
    where the store cannot be written. Nothing here breaks a run: if the folder cannot be written or locked, other
    processes just see less of it.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        state: Callable[[], RunRecord],
        *,
        called: str = "run",
        experts: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.name = ""
        self._store = store
        self._run = run
        self._state = state
        self._called = re.sub(r"[^\w.-]+", "-", called, flags=re.ASCII).strip(".-")[:_LONGEST] or "run"
        self._experts = dict(experts or {})
        self._started = time.time()
        self._lock: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        with contextlib.suppress(OSError, M3Error):
            for run in self._store.runs:  # what killed runs left: their work goes on with whoever wants it
                if not _lives(self._store, run, record := self._store.runs.get(run)):
                    names = [name for name, past in self._store.history.items() if past.run == run]
                    _keep(self._store, "".join(names), record)
                    _forget(self._store, run)
            self._forget_lost_workers()
            self._lock = hold(self._store.run_lock(self._run), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        with contextlib.suppress(OSError, M3Error):
            self.name = self._named()
        self.show()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError, M3Error):
            _keep(self._store, self.name, self._state(), ended=time.time())
            _forget(self._store, self._run)
            self._forget_lost_workers()  # one of a killed run may have lived until now
        if self._lock is not None:
            os.close(self._lock)

    def _forget_lost_workers(self) -> None:
        """Remove what workers left whose runs are not at work, and that live no more."""
        at_work = {self._run, *self._store.runs}
        for key, worker in self._store.workers.items():  # those of a batch system may outlive their run
            path, lock = self._store.workers.path(key), self._store.worker_lock(key)
            if worker.run not in at_work and not _alive(self._store, path, lock, worker):
                forget_worker(self._store, key)

    def show(self) -> None:
        """Write a sign of life now."""
        with contextlib.suppress(OSError, M3Error):
            state = replace(self._state(), pid=os.getpid(), host=socket.gethostname(), locked=self._lock is not None)
            state = replace(state, reach=lock_reach(self._store.root))
            self._store.runs.put(self._run, replace(state, started=self._started, updated=time.time()))

    def _named(self) -> str:
        """Write the run down under a name that no other run of the store has, and return it."""
        with self._store.scan_lock("history"):
            taken = {LAST, *self._store.history}
            names = (self._called, *(f"{self._called}-{number}" for number in range(2, len(taken) + 3)))
            name = next(name for name in names if name not in taken)
            about = self._state()
            past = PastRun(
                name,
                about.command,
                about.plan,
                about.cells,
                run=self._run,
                started=self._started,
                experts=self._experts,
            )
            self._store.history.put(name, past)
        return name

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self.show()


@dataclass(frozen=True)
class KnownRun(PastRun):
    """A run that a store knows of, whether it still lives, and the later run that went on with the same plan."""

    alive: bool = False
    went_on: str = ""

    @property
    def state(self) -> str:
        """`runs`; `done`, where every cell was; `failed`, where some failed; `stopped`, where it did not get so far.

        `went on as NAME`, where a later run of the same plan took it up.
        """
        if self.alive:
            return "runs"
        if self.left and self.went_on:
            return f"went on as {self.went_on}"
        return "stopped" if self.left else "failed" if self.failed else "done"


def history(store: Store) -> list[KnownRun]:
    """Return the runs that a store knows by name, those at work among them, the newest last."""
    signs = {sign.id: sign for sign in runs(store)}
    jobs = {worker.run for worker in workers(store) if worker.alive}  # of a batch system, that nobody waits for
    known = []
    for past in store.history.values():
        sign = signs.get(past.run)
        counts = {} if sign is None or past.ended else {"done": sign.cells_done, "failed": sign.cells_failed}
        alive = past.run in jobs or (sign is not None and sign.alive)
        known.append(KnownRun(**{**vars(past), **counts, "alive": alive}))
    return sorted(known, key=lambda one: (one.started, one.name))


def runs(store: Store) -> list[RunState]:
    """Return the runs that are at work in a store and those that were killed there, the oldest first."""
    states = [RunState(**vars(x), id=run, alive=_lives(store, run, x)) for run, x in store.runs.items()]
    return sorted(states, key=lambda state: state.started)


def workers(store: Store, run: str | None = None) -> list[WorkerState]:
    """Return the workers of a run, or of all, that are at work in a store, and those that were lost, by name."""
    known = [(key, record) for key, record in store.workers.items() if run in (None, record.run)]
    now = store.clock() if known else 0.0
    states = []
    for key, record in known:
        path = store.workers.path(key)
        alive = _alive(store, path, store.worker_lock(key), record)
        states.append(WorkerState(**vars(record), alive=alive, silent=max(0.0, now - _written(path))))
    return sorted(states, key=lambda state: (state.run, [int(x) if x.isdigit() else 0 for x in state.name.split()]))


def _lives(store: Store, run: str, record: RunRecord | None) -> bool:
    """Tell whether a run lives. `record` is None where another version of m3 wrote it."""
    return _alive(store, store.runs.path(run), store.run_lock(run), record)


def _alive(store: Store, path: Path, lock: Path, record: RunRecord | WorkerRecord | None) -> bool:
    """Tell whether who wrote a record lives: it holds its lock or, on another machine, gave a sign of life lately.

    Of a record that another version of m3 wrote (None) the lock, and the time when the file was written, tell.
    """
    if record is None or (record.locked and _seen_here(store, record)):
        with contextlib.suppress(OSError):  # another user's, or no locks here: believe the last sign of life
            try:
                os.close(hold(lock, os.O_RDWR))
            except BlockingIOError:
                return True
            except FileNotFoundError:
                pass
            if record is not None:
                return False
    return store.clock() - _written(path) < SILENT


def _seen_here(store: Store, record: RunRecord | WorkerRecord) -> bool:
    """Tell whether the lock of who wrote a record is seen from here."""
    return record.reach == lock_reach(store.root) if record.reach else record.host == socket.gethostname()


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _keep(store: Store, name: str, last: RunRecord | None, *, ended: float = 0.0) -> None:
    """Keep how far a run came by its last sign of life; one without a name is not known later."""
    past = store.history.get(name) if name else None
    if past is not None and last is not None:
        far = replace(past, done=last.cells_done, failed=last.cells_failed, engine=last.engine)
        store.history.put(name, replace(far, ended=ended))


def forget_worker(store: Store, key: str) -> None:
    """Remove what a worker showed of itself."""
    store.workers.drop(key)
    store.worker_lock(key).unlink(missing_ok=True)


def _forget(store: Store, run: str) -> None:
    store.runs.drop(run)
    store.run_lock(run).unlink(missing_ok=True)
