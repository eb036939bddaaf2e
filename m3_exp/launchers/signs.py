"""Signs of life of workers, on whatever machine: what `m3 status` shows of them, and how it knows that one is lost.

workers/RUN-NAME.json   renewed every `BEAT` seconds     workers/RUN-NAME.lock   held as long as the worker lives
"""

import contextlib
import os
import re
import threading
import time
from dataclasses import replace

from m3_exp.events import Answered, Doing, Event, Failed, Known, Scored, Speed, Started, There
from m3_exp.groups import Evaluation, together
from m3_exp.heartbeat import forget_worker
from m3_exp.store import BEAT, Store, WorkerRecord, hold, lock_reach
from m3_exp.types import M3Error


class Sign:
    """Shows in a store what a worker of a run does. Use as a context manager; `note` takes the worker's events.

    `place` says where it works beside its host: a job, a node, devices. Nothing here breaks a worker.
    """

    def __init__(self, store: Store, run: str, name: str, place: str = "") -> None:
        self.name = name
        self._store, self._key = store, worker_key(run, name)
        now = time.time()
        who = {"pid": os.getpid(), "host": os.uname().nodename, "started": now, "updated": now}
        self._record = WorkerRecord(run, name, place=place, **who)  # type: ignore[arg-type]
        self._lock: int | None = None
        self._count = 0
        self._at_work: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="sign", daemon=True)

    def __enter__(self) -> "Sign":
        with contextlib.suppress(OSError):
            self._lock = hold(self._store.worker_lock(self._key), os.O_RDWR | os.O_CREAT)
        self.show()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError, M3Error):
            forget_worker(self._store, self._key)
        if self._lock is not None:
            os.close(self._lock)

    def note(self, event: Event) -> None:
        """Take up what the worker says."""
        at = self._record
        match event:
            case Started(evaluation):
                self._at_work.append(str(evaluation))
                self._record = replace(at, cell=together(self._at_work), doing="")
            case Doing(what):
                self._record = replace(at, doing=what)
            case Answered(_, tokens):
                self._record = replace(at, answers=at.answers + 1, tokens=at.tokens + tokens, doing="")
            case Known():
                self._record = replace(at, doing="")
            case Speed(tokens_per_second):
                self._record = replace(at, tokens_per_second=tokens_per_second)
            case Scored(evaluation, record) if not record.result.n_unscored:
                self._record = replace(at, cells_done=at.cells_done + 1, cell=self._without(evaluation), doing="")
            case There():
                self._record = replace(at, cells_done=at.cells_done + 1)
            case Failed(evaluation):
                self._record = replace(at, cells_failed=at.cells_failed + 1, cell=self._without(evaluation), doing="")

    def _without(self, evaluation: Evaluation) -> str:
        """Return what is still at work when an evaluation has come to its end."""
        with contextlib.suppress(ValueError):
            self._at_work.remove(str(evaluation))
        return together(self._at_work)

    def show(self) -> None:
        """Write a sign of life now."""
        with contextlib.suppress(OSError, M3Error):
            self._count += 1
            reach = lock_reach(self._store.root)
            now = {"updated": time.time(), "locked": self._lock is not None, "reach": reach, "count": self._count}
            self._store.workers.put(self._key, replace(self._record, **now))  # type: ignore[arg-type]

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self.show()


def worker_key(run: str, name: str) -> str:
    """Return the name of a worker's record."""
    return f"{run}-{re.sub(r'[^0-9A-Za-z]+', '-', name)}"
