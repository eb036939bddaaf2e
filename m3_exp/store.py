"""The one owner of results/store: paths, atomic writes, journals, done markers.

Invariants (docs/design.md, "The store"):
  keys       nothing is keyed by a path or a name; a changed input is a new key, and nothing is ever edited
  publish    a file or directory appears under its final name only when it is complete and synced
  journal    one line an answer, `crc32 json`, one write on an O_APPEND descriptor, then fdatasync; one file for each
             writer, held under flock; on reading, a torn last line is dropped and its item redone, bad bytes
             elsewhere refuse the file
  loss       SIGKILL at any instant loses at most what was not yet acknowledged
  result     written once, atomically, last: absent means not done
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m3_exp.types import Json, M3Error, plain

_FORMAT = 1


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
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
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
    for stale in final.parent.glob(f".{final.name}.*.tmp"):
        _remove_if_abandoned(stale)
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(6)}.tmp")
    temporary.mkdir()
    lock = os.open(temporary, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
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


def _remove_if_abandoned(path: Path) -> None:
    """Remove the temporary directory of a killed writer; one whose writer lives is locked and stays."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)


class Journal:
    """All records of one folder, appended by this process to a file of its own. Use as a context manager.

    `read` merges every writer's file; the caller decides what a record's key is, and the first one wins.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
            M3Error: a line other than a file's last is damaged.
        """
        records: list[Json] = []
        if self.folder.is_dir():
            for path in sorted(self.folder.glob("*.jsonl")):
                records.extend(_read_journal(path))
        return records


def _read_journal(path: Path) -> Iterator[Json]:
    data = path.read_bytes()
    lines = data.split(b"\n")
    tail = lines.pop()  # empty after a complete last line, else torn
    for number, line in enumerate(lines, 1):
        crc, _, body = line.partition(b" ")
        if crc != b"%08x" % zlib.crc32(body):
            if number == len(lines) and not tail:
                return
            raise M3Error(
                f"{path}:{number} is damaged (checksum): move this file away, its answers will be generated again"
            )
        yield json.loads(body)


class Store:
    """Where everything lies.

    <kind>/<key>.json            small values remembered by key (`get`, `put`): input digests, scans, merges, results
    answers/<key>/*.jsonl        journals
    checkpoints/<digest>/        checkpoints kept by runs
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        marker = root / "format.json"
        if marker.exists():
            found = json.loads(marker.read_text()).get("format")
            if found != _FORMAT:
                raise M3Error(
                    f"store={root} has format {found}, this m3 writes format {_FORMAT}: give another store=DIR"
                )
        elif root.exists() and not root.is_dir():
            raise M3Error(f"store={root} is not a directory")

    def _mark(self) -> None:
        marker = self.root / "format.json"
        if not marker.exists():
            write_atomic(marker, dumps({"format": _FORMAT}).encode())

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / f"{key}.json"

    def get(self, kind: str, key: str) -> Json | None:
        """Return what `put` remembered, or None. A file that is not JSON is set aside and counts as absent."""
        path = self.path(kind, key)
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            quarantine = self.root / "quarantine"
            quarantine.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another process has set it aside
                path.rename(quarantine / f"{kind.replace('/', '-')}-{key}-{secrets.token_hex(4)}.json")
            return None
        return value if isinstance(value, dict) else None

    def put(self, kind: str, key: str, value: Any) -> None:
        """Remember a value under a key, atomically. The same key always means the same value."""
        self._mark()
        write_atomic(self.path(kind, key), dumps(value).encode() + b"\n")

    def drop(self, kind: str, key: str) -> None:
        self.path(kind, key).unlink(missing_ok=True)

    def keys(self, kind: str) -> list[str]:
        folder = self.root / kind
        return sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []

    @contextlib.contextmanager
    def locked(self, kind: str, key: str) -> Iterator[None]:
        """Let one thread of all processes on this store in at a time; the lock goes with its holder, however it ends.

        Where the file system knows no locks nobody waits: what is done twice then is done twice, no more.
        """
        path = (self.root / "locks" / f"{kind}-{key}").with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def journal(self, key: str) -> Journal:
        self._mark()
        return Journal(self.root / "answers" / key)

    def checkpoint(self, digest: str) -> Path:
        return self.root / "checkpoints" / digest
