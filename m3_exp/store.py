"""The one owner of results/store: paths, atomic writes, journals, done markers.

Invariants (docs/design.md, "The store"):
  keys       nothing is keyed by a path or a name; a changed input is a new key, and nothing is ever edited
  publish    a file or directory appears under its final name only when it is complete and synced
  journal    one line an answer, `crc32 json`, one write on an O_APPEND descriptor, then fdatasync; one file for each
             writer, held under flock; on reading, a torn last line is dropped and its item redone
  damage     every record and every line carries a checksum: one that does not match is named on stderr, set aside in
             quarantine/ and made again, never used
  loss       SIGKILL at any instant loses at most what was not yet acknowledged; a temporary file that it leaves is
             removed by whoever writes there next, or begins a run (temporary.py)
  result     written once, atomically, last: absent means not done
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m3_exp import temporary as temporaries
from m3_exp.reading.files import cannot_read
from m3_exp.reading.records import read_record, say, sealed, set_aside
from m3_exp.types import Json, M3Error, plain

_FORMAT = 2  # 1: records without checksums, which are still read
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_MADE_AGAIN = ("inputs", "scans")  # kinds that change weights and are cheap: never believed without a checksum


def dumps(value: Any) -> str:
    """Canonical JSON on one line: what is hashed, journalled and compared."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` under `path` in one step: a temporary file beside it, synced, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporaries.beside(path)
    try:
        with open(temporary, "xb") as file:
            temporaries.hold(file.fileno())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextlib.contextmanager
def publish_directory(final: Path) -> Iterator[Path]:
    """Give a temporary directory; on success sync all of it and rename it to `final`, else remove it.

    Raises:
        M3Error: `final` exists already and is not empty; nothing is touched then.
    """
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise M3Error(f"out={final} exists already and is not empty: give a new directory, or remove it first")
    final.parent.mkdir(parents=True, exist_ok=True)
    temporaries.sweep(final.parent)
    temporary = temporaries.beside(final)
    temporary.mkdir()
    lock = os.open(temporary, os.O_RDONLY)
    temporaries.hold(lock)
    try:
        yield temporary
        for path in sorted(p for p in temporary.rglob("*") if p.is_file()):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        for path in [temporary, *sorted(p for p in temporary.rglob("*") if p.is_dir())]:
            sync_directory(path)
        if final.is_dir():
            final.rmdir()
        os.rename(temporary, final)
        sync_directory(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _names(folder: Path) -> list[str]:
    """Return the sorted names in a folder; none where there is no such folder.

    Raises:
        M3Error: this user may not look into it.
    """
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise cannot_read(folder, error) from error


class Journal:
    """All records of one folder, appended by this process to a file of its own. Use as a context manager.

    `read` merges every writer's file; the caller decides what a record's key is, and the first one wins. Files with
    damaged lines are copied to `quarantine` (default: a folder of that name here), and lose those lines.
    """

    def __init__(self, folder: Path, quarantine: Path | None = None) -> None:
        self.folder = folder
        self.quarantine = quarantine or folder / "quarantine"
        self._descriptor: int | None = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def append(self, record: Json) -> None:
        """Add one record; when this returns it is on disk. On a full disk the file is cut back to its last record."""
        if self._descriptor is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"{os.getpid()}-{secrets.token_hex(4)}.jsonl"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self.folder / name, flags, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            sync_directory(self.folder)
        body = dumps(record).encode()
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        end = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError("short write: is the disk full?")
            os.fdatasync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, end)
            raise

    def read(self) -> list[Json]:
        """Return every writer's records, by file name and then in the order they were written.

        Raises:
            M3Error: this user may not read the folder or one of the files.
        """
        files = [self.folder / name for name in _names(self.folder) if name.endswith(".jsonl")]
        return [record for path in files for record in self._read(path)]

    def _read(self, path: Path) -> list[Json]:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise cannot_read(path, error) from error
        lines = data.split(b"\n")[:-1]  # what follows the last \n is empty, or torn by a kill
        records = [_record(line) for line in lines]
        damaged = [number for number, record in enumerate(records, 1) if record is None]
        if damaged:
            whole = [line for line, record in zip(lines, records, strict=True) if record is not None]
            self._repair(path, data, b"".join(line + b"\n" for line in whole), damaged)
        return [record for record in records if record is not None]

    def _repair(self, path: Path, data: bytes, whole: bytes, damaged: list[int]) -> None:
        """Put the whole lines in the place of a file with damaged ones, a copy of which is kept; unless its writer
        lives, or this user may not: then the damaged lines are passed over by every reader.
        """
        copy = self.quarantine / f"{self.folder.name}-{path.stem}-{secrets.token_hex(4)}.jsonl"
        done = "they are passed over"
        with contextlib.suppress(OSError), _locked(path):
            if path.read_bytes() == data:
                write_atomic(copy, data)
                write_atomic(path, whole)
                done = f"a copy is kept as {copy}"
        said = f"{len(damaged)} damaged lines" if len(damaged) > 1 else "a damaged line"
        say(f"{path}:{damaged[0]} holds {said} (checksum): {done}, and what is lost is generated again")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a journal's lock. Raises BlockingIOError where its writer lives."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _record(line: bytes) -> Json | None:
    """Return what a journal's line holds, None where it is damaged."""
    crc, _, body = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(body):
        return None
    record = json.loads(body)
    return record if isinstance(record, dict) else None


class Store:
    """Where everything lies.

    <kind>/<key>.json            small values remembered by key (`get`, `put`): input digests, scans, merges, results
    answers/<key>/*.jsonl        journals
    checkpoints/<digest>/        checkpoints kept by runs
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._format = self._read_format()

    @property
    def quarantine(self) -> Path:
        """Where damaged files are set aside."""
        return self.root / "quarantine"

    def _read_format(self) -> int:
        """Return the format of what lies here: an empty store is of this one.

        Raises:
            M3Error: it was written by a later m3, or is no store.
        """
        marker = self.root / "format.json"
        try:
            if self.root.exists() and not self.root.is_dir():
                raise M3Error(f"store={self.root} is not a directory")
            data = marker.read_bytes()
        except FileNotFoundError:
            return _FORMAT
        except OSError as error:
            raise cannot_read(marker, error) from error
        except ValueError as error:
            raise M3Error(f"store={str(self.root)!r} is not the name of a directory ({error})") from error
        try:
            found = json.loads(data)["format"]
        except (ValueError, TypeError, KeyError, RecursionError):
            found = None
        if type(found) is not int or found < 1:
            set_aside(marker, "format", "it does not name a format", self.quarantine)
            with contextlib.suppress(OSError):
                self._mark()
            return _FORMAT
        if found > _FORMAT:
            raise M3Error(
                f"store={self.root} has format {found}, this m3 writes format {_FORMAT}: give another store=DIR"
            )
        return int(found)

    def _mark(self) -> None:
        marker = self.root / "format.json"
        if not marker.exists():
            write_atomic(marker, dumps({"format": _FORMAT}).encode())

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / f"{key}.json"

    def get(self, kind: str, key: str) -> Json | None:
        """Return what `put` remembered, or None. A damaged record is named, set aside, and counts as absent.

        Raises:
            M3Error: this user may not read it.
        """
        bare = self._format == 1 and kind not in _MADE_AGAIN
        return read_record(self.path(kind, key), f"{kind}/{key}", self.quarantine, bare=bare)

    def put(self, kind: str, key: str, value: Any) -> None:
        """Remember an object under a key, atomically. The same key always means the same value.

        Raises:
            OSError: it cannot be written. What can be made again (`inputs`, `scans`) is then not kept where this user
                may only read.
        """
        try:
            self._mark()
            write_atomic(self.path(kind, key), sealed(dumps(value), f"{kind}/{key}"))
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            if kind not in _MADE_AGAIN:
                said = f"{error.strerror}: give a folder that you may write by store=DIR"
                raise OSError(error.errno, said, str(self.root)) from error

    def drop(self, kind: str, key: str) -> None:
        self.path(kind, key).unlink(missing_ok=True)

    def keys(self, kind: str) -> list[str]:
        return sorted(Path(name).stem for name in _names(self.root / kind) if name.endswith(".json"))

    @contextlib.contextmanager
    def locked(self, kind: str, key: str) -> Iterator[None]:
        """Let one thread of all processes on this store in at a time; the lock goes with its holder, however it ends.

        Where nothing can be written, or the file system knows no locks, nobody waits: what is done twice then is done
        twice, no more.
        """
        path = (self.root / "locks" / f"{kind}-{key}").with_suffix(".lock")
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    def sweep(self) -> None:
        """Remove the temporary files and directories that killed writers left here, in whatever kind."""
        for folder, inner, _ in os.walk(self.root):
            inner[:] = [name for name in inner if not name.endswith(".tmp") and Path(folder).name != "checkpoints"]
            temporaries.sweep(Path(folder))

    def journal(self, key: str) -> Journal:
        self._mark()
        return Journal(self.root / "answers" / key, self.quarantine)

    def checkpoint(self, digest: str) -> Path:
        return self.root / "checkpoints" / digest
