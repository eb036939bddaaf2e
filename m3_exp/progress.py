"""What a long run tells its user: what is running, items done, tokens a second, time left.

On a terminal one line that rewrites itself; elsewhere (a log, CI, Slurm) a plain line every `EVERY` seconds. Other
processes (`m3 status`) read the same from the store: a run holds a lock there as long as it lives, whatever ends it.
"""

import contextlib
import fcntl
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from m3_exp.reading.shown import beneath, escaped
from m3_exp.store import Store
from m3_exp.types import Json, M3Error

EVERY = 15.0
BEAT = 5.0  # seconds between two signs of life in the store
_SILENT = 12 * BEAT  # of a run on another machine, whose lock may not be seen: after so long it counts as dead


class Progress:
    """Counts items over all workers and prints. Safe to call from several threads."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self.total = total
        self.done = 0
        self.tokens = 0
        self.answers = 0
        self._running: dict[int, str] = {}
        self._flows: dict[int, float] = {}
        self._stream = beneath(stream or sys.stderr)
        self._live = self._stream.isatty()
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._last = self._start

    def running(self, what: str) -> None:
        """Say what this thread works on now."""
        with self._lock:
            self._running[threading.get_ident()] = what
            self._print(force=not self._live)

    def flow(self, done: int, total: int, tokens_per_second: float) -> None:
        """Take an engine's own word on the batch in flight; shown until the next one."""
        with self._lock:
            self._flows[threading.get_ident()] = tokens_per_second
            self._print()

    def expect(self, items: int) -> None:
        """Count items that nobody knew of before the work began."""
        with self._lock:
            self.total += items

    def cached(self, items: int) -> None:
        """Count items that were there already."""
        with self._lock:
            self.done += items

    def generated(self, tokens: int) -> None:
        """Count one finished answer."""
        with self._lock:
            self.done += 1
            self.answers += 1
            self.tokens += tokens
            self._print()

    def say(self, line: str) -> None:
        """Print a line of its own (a failure, a restart)."""
        with self._lock:
            self._clear()
            print(escaped(line, "\n"), file=self._stream, flush=True)

    def finish(self) -> None:
        with self._lock:
            self._print(force=True)
            if self._live:
                print(file=self._stream, flush=True)

    def rate(self) -> float:
        """Tokens a second since the first one was asked for, merging and starting engines included."""
        return self.tokens / max(time.monotonic() - self._start, 1e-9)

    def left(self) -> float | None:
        """Return the seconds that are left at the pace so far; None before the first answer."""
        elapsed = time.monotonic() - self._start
        return max(0, self.total - self.done) * elapsed / self.answers if self.answers else None

    def facts(self) -> Json:
        """Return what a sign of life says of the items."""
        with self._lock:
            speed = sum(self._flows.values()) or self.rate()
            doing = list(self._running.values())
        left = self.left()
        return {
            "items": self.total, "items_done": self.done, "tokens_per_second": speed, "seconds_left": left,
            "doing": doing,
        }  # fmt: skip

    def line(self) -> str:
        text = f"{self.done}/{self.total} items"
        left = self.left()
        if left is not None:
            text += f", {sum(self._flows.values()) or self.rate():.0f} tokens/s, {clock(left)} left"
        return escaped(f"{text} | {'; '.join(self._running.values())}")

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[2K", end="", file=self._stream)

    def _print(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._last < (0.2 if self._live else EVERY):
            return
        self._last = now
        if self._live:
            print(f"\r\x1b[2K{self.line()[:200]}", end="", file=self._stream, flush=True)
        else:
            print(self.line(), file=self._stream, flush=True)


# ------------------------------------------------------------------------------------------- seen from outside


@dataclass(frozen=True)
class Sighting:
    """A run that works in a store, or (`alive` is false) one that ended there without a word, by its last sign of life.

    Times are seconds since the epoch; `cells_done` have a complete result, `cells_failed` a failure noted.
    """

    id: str
    command: str
    plan: str  # identity of its plan
    pid: int
    host: str
    started: float
    updated: float
    cells: int
    cells_done: int
    cells_failed: int
    items: int
    items_done: int
    tokens_per_second: float
    seconds_left: float | None
    doing: tuple[str, ...]
    alive: bool

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.started))
        who = f"pid {self.pid} on {self.host}, since {since}"
        cells = f"{self.cells_done} of {self.cells} cells, {self.items_done} of {self.items} items"
        if not self.alive:
            return f"ended without a word: {who}, {cells}; to continue: {self.command or 'm3 run as before'}"
        text = f"running: {self.command or 'm3 run'}: {who} ({clock(time.time() - self.started)}), {cells}"
        if self.cells_failed:
            text += f", {self.cells_failed} failed"
        if self.seconds_left is not None:
            text += f", {self.tokens_per_second:.0f} tokens/s, {clock(self.seconds_left)} left"
        return f"{text} | {'; '.join(self.doing) or 'preparing'}"


_SAID = Sighting.__dataclass_fields__.keys() - {"id", "alive"}


class Beacon:
    """Shows in a store that a run is at work there: `runs/<id>.json`, renewed every `BEAT` seconds, beside a lock.

    The lock goes with the process, so that nobody takes a killed run for a living one. Nothing here breaks a run: where
    the folder cannot be written or locked, others see less. Use as a context manager.
    """

    def __init__(self, store: Store, run: str, facts: Callable[[], Json]) -> None:
        self._store = store
        self._run = run
        self._facts = facts
        self._about: Json = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}
        self._lock: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="beacon", daemon=True)

    def __enter__(self) -> "Beacon":
        with contextlib.suppress(OSError, M3Error):
            _forget_dead(self._store)
            self._lock = _locked(self._store, self._run, os.O_CREAT | os.O_EXCL)
        self.show()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError, M3Error):
            _forget(self._store, self._run)
        if self._lock is not None:
            os.close(self._lock)

    def show(self) -> None:
        """Write a sign of life now."""
        with contextlib.suppress(OSError, M3Error):
            about = {**self._about, "locked": self._lock is not None, "updated": time.time()}
            self._store.put("runs", self._run, {**about, **self._facts()})

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self.show()


def sightings(store: Store) -> list[Sighting]:
    """Return the runs that are at work in a store and those that ended without a word, the oldest first."""
    found = []
    for run in store.keys("runs"):
        record = store.get("runs", run)
        if record is not None and record.keys() >= _SAID:
            known = {key: record[key] for key in Sighting.__dataclass_fields__ if key in record}
            found.append(Sighting(**{**known, "id": run, "doing": tuple(record["doing"]), "alive": _lives(store, run)}))
    return sorted(found, key=lambda sighting: sighting.started)


def _lives(store: Store, run: str) -> bool:
    """Tell whether a run holds its lock; on another machine, where locks may not reach, whether it was heard of."""
    record = store.get("runs", run)
    if record is None:
        return False
    if record.get("locked") and record.get("host") == socket.gethostname():
        with contextlib.suppress(PermissionError):  # another user's: believe the last sign of life
            return _is_held(store, run)
    return bool(time.time() - record.get("updated", 0) < _SILENT)


def _is_held(store: Store, run: str) -> bool:
    try:
        os.close(_locked(store, run))
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _locked(store: Store, run: str, flags: int = 0) -> int:
    """Return a descriptor that holds a run's lock. Raises BlockingIOError where another process has it."""
    path = store.path("runs", run).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _forget_dead(store: Store) -> None:
    """Remove what killed runs left: their work goes on with the run that begins now, or when somebody wants it."""
    for run in store.keys("runs"):
        if not _lives(store, run):
            _forget(store, run)


def _forget(store: Store, run: str) -> None:
    store.drop("runs", run)
    store.path("runs", run).with_suffix(".lock").unlink(missing_ok=True)


def clock(seconds: float) -> str:
    """Write a duration as people say it: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
