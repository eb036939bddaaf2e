"""Leases: who is at work on a group of cells, so that others begin with another one.

    leases/GROUP.json   who holds it, and a count that the holder raises every `BEAT` seconds
    leases/GROUP.lock   locked (flock) while the holder lives, where the file system keeps locks

A lease is advice: two workers on one group cost work, never bytes. So nothing here waits, and nothing fails where a
lease cannot be written. It is dead

    at once             where the holder is of this machine (and mount) and its lock is free
    after `silent` s    where its count stood still for so long by the *reader's* own clock, which only has to run:
                        a node whose time is wrong by hours neither loses a lease nor keeps one
"""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from m3_exp.reading.records import Damaged, sealed, unsealed
from m3_exp.store.files import dumps, write_atomic
from m3_exp.store.locks import excludes, hold, locked

BEAT = 5.0  # seconds between two signs of life
SILENT = 60.0  # seconds without one until a holder on another machine counts as dead
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True)
class Holder:
    """Who holds a lease. `token` tells two holders of one name apart; `reach` is how far its lock is seen."""

    token: str = ""
    run: str = ""
    worker: str = ""
    host: str = ""
    reach: str = ""
    pid: int = 0
    locked: bool = False
    count: int = 0


class Held(BlockingIOError):
    """Another worker is at work on the group: `by`."""

    def __init__(self, by: Holder) -> None:
        super().__init__(f"{by.worker or 'another worker'} (pid {by.pid} on {by.host}) is at work on it")
        self.by = by


class Lease(contextlib.AbstractContextManager["Lease"]):
    """A group that is held until this is closed, or until another worker takes it away as its holder seemed dead."""

    def __init__(self, path: Path, holder: Holder, lock: int | None, *, beat: float) -> None:
        self._path, self._holder, self._lock = path, holder, lock
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, args=(beat,), name="lease", daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if _read(self._path).token == self._holder.token:
                self._path.unlink(missing_ok=True)
                if self._lock is not None:
                    self._path.with_suffix(".lock").unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)

    def _renew(self, beat: float) -> None:
        while not self._ended.wait(beat):
            with contextlib.suppress(OSError):
                if _read(self._path).token != self._holder.token:
                    return  # taken away: both go on, and the store keeps one answer of two
                self._holder = replace(self._holder, count=self._holder.count + 1)
                write_atomic(self._path, _sealed(self._path, self._holder))


class Leases:
    """The leases of a store. What a reader saw of others' counts, and when, is remembered here."""

    def __init__(
        self,
        folder: Path,
        *,
        silent: float = SILENT,
        beat: float = BEAT,
        reach: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._clock = folder, clock
        self.silent, self._beat = silent, beat
        self._reach = reach
        self._seen: dict[str, tuple[tuple[str, int], float]] = {}  # by group: the holder and its count; since when

    def take(
        self, group: str, *, run: str = "", worker: str = "", takes_over: bool = False
    ) -> Lease | contextlib.nullcontext[None]:
        """Hold a group by its key; close what is returned to let it go.

        Where nothing can be written everyone may have it. `takes_over`: a lease of the same run is a dead worker's.

        Raises:
            Held: another worker that lives has it.
        """
        path = self._folder / f"{group}.json"
        try:
            lock = _locked(path.with_suffix(".lock"))
        except BlockingIOError:
            raise Held(_read(path)) from None
        except OSError:  # nothing can be written here, or no locks are known
            lock = None
        keeps = lock is not None and excludes(path.with_suffix(".lock"))
        reach = lock_reach(self._folder) if self._reach is None else self._reach
        holder = Holder(secrets.token_hex(8), run, worker, os.uname().nodename, reach, os.getpid(), keeps)
        try:
            self._write(path, holder, takes_over)
        except OSError as error:
            if lock is not None:
                os.close(lock)
            if isinstance(error, Held):
                raise
            return contextlib.nullcontext()
        self._seen.pop(group, None)
        return Lease(path, holder, lock, beat=self._beat)

    def sweep(self) -> None:
        """Remove the leases that killed holders of this machine left: nobody may come for their groups again."""
        here = self._reach or lock_reach(self._folder)
        for path in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(OSError), locked(lock := path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT):
                left = _read(path)
                if left.locked and left.reach == here and excludes(lock):
                    path.unlink()
                    lock.unlink()

    def _write(self, path: Path, holder: Holder, takes_over: bool) -> None:
        """Write a lease where there is none, or in place of a dead one. Raises Held, and OSError as files do."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, _NEW, 0o644)
        except FileExistsError:
            other = _read(path)
            left = takes_over and other.run == holder.run
            if not left and not self._is_dead(path.stem, other, holder):
                raise Held(other) from None
            write_atomic(path, _sealed(path, holder))
            return
        try:
            with open(descriptor, "wb") as file:
                file.write(_sealed(path, holder))
        except OSError:  # a full disk: an empty lease, which nobody holds, would have others wait
            path.unlink(missing_ok=True)
            raise

    def _is_dead(self, group: str, other: Holder, us: Holder) -> bool:
        """Tell whether a holder is dead: at once where we have the lock that it would have if it lived."""
        if us.locked and other.locked and other.reach == us.reach:
            return True
        now, sign = self._clock(), (other.token, other.count)
        before, since = self._seen.get(group, (None, now))
        if before != sign:
            self._seen[group] = (sign, now)
            return False
        return now - since >= self.silent


def lock_reach(folder: Path) -> str:
    """Return what names all processes that see one another's locks in a folder: those of one kernel and one mount.

    Two mounts of one shared file system do not, on one machine either.
    """
    kernel = os.uname().nodename
    with contextlib.suppress(OSError):
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        return f"{kernel} {folder.stat().st_dev}"
    return kernel


def _locked(path: Path) -> int:
    return hold(path, os.O_RDWR | os.O_CREAT)


def _sealed(path: Path, holder: Holder) -> bytes:
    return sealed(dumps(asdict(holder)), f"leases/{path.stem}")


def _read(path: Path) -> Holder:
    """Return who holds a lease; nobody known where it is being written, damaged or gone."""
    try:
        fields: Any = unsealed(path.read_bytes(), f"leases/{path.stem}")
        return Holder(**fields)
    except (OSError, Damaged, TypeError):
        return Holder()
