"""Journals: one line a record, `crc32 json`, each on disk when `append` returns; a file of its own for each writer."""

import contextlib
import json
import os
import secrets
import zlib
from pathlib import Path
from typing import Any

from m3_exp.reading.files import cannot_read
from m3_exp.reading.records import is_untouched, say
from m3_exp.store.files import dumps, names, sync, write_atomic
from m3_exp.store.locks import locked, opened
from m3_exp.types import Json


class Journal(contextlib.AbstractContextManager["Journal"]):
    """All records of one folder, appended by this process to a file of its own. Use as a context manager.

    `read` merges every writer's file; the caller decides what a record's key is, and the first one wins. Files with
    damaged lines are copied to `quarantine` (default: a folder of that name here), and lose those lines.
    """

    def __init__(self, folder: Path, quarantine: Path | None = None) -> None:
        self.folder = folder
        self.quarantine = quarantine or folder / "quarantine"
        self._descriptor: int | None = None
        self._path = folder

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def append(self, record: Json) -> None:
        """Add one record; when this returns it is on disk. On a full disk the file is cut back to its last record."""
        if self._descriptor is None or not self._is_mine(self._descriptor):
            self.__exit__()
            self._path = self.folder / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl"
            self._descriptor = opened(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
            sync(self.folder)
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

    def _is_mine(self, descriptor: int) -> bool:
        """Tell whether the file is still there under its name: a reader whom no lock keeps out may have repaired it."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        return False

    def read(self) -> list[dict[str, Any]]:
        """Return every writer's records, by file name and then in the order they were written.

        Raises:
            M3Error: this user may not read the folder or one of the files.
        """
        files = [self.folder / name for name in names(self.folder) if name.endswith(".jsonl")]
        return [record for path in files for record in self._read(path)]

    def _read(self, path: Path) -> list[dict[str, Any]]:
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
        """Keep a copy of a file with damaged lines, then rewrite it without them.

        If its writer lives, or this user may not write, the file stays, and readers skip the damaged lines.
        """
        copy = self.quarantine / f"{self.folder.name}-{path.stem}-{secrets.token_hex(4)}.jsonl"
        done = "they are passed over"
        with contextlib.suppress(OSError), locked(path):  # BlockingIOError where its writer lives
            if not is_untouched() and path.read_bytes() == data:
                write_atomic(copy, data)
                write_atomic(path, whole)
                done = f"a copy is kept as {copy}"
        said = f"{len(damaged)} damaged lines" if len(damaged) > 1 else "a damaged line"
        say(f"{path}:{damaged[0]} holds {said} (checksum): {done}, and what is lost is generated again")


class Tail:
    """What is added to the journals of a folder while others write them. A last line that is not whole yet waits.

    A damaged line is passed over: what it told is in the store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}  # by file: how many of its bytes were read

    def news(self) -> list[dict[str, Any]]:
        """Return the records since the last call: by file, and then in the order they were written."""
        found: list[dict[str, Any]] = []
        for name in names(self._folder):
            if name.endswith(".jsonl"):
                found += self._of(name)
        return found

    def _of(self, name: str) -> list[dict[str, Any]]:
        begin = self._read.get(name, 0)
        try:
            with open(self._folder / name, "rb") as file:
                file.seek(begin)
                whole, newline, _ = file.read().rpartition(b"\n")
        except OSError:  # it is read the next time
            return []
        self._read[name] = begin + len(whole) + len(newline)
        records = (_record(line) for line in whole.split(b"\n")) if newline else ()
        return [record for record in records if record is not None]


def _record(line: bytes) -> Json | None:
    """Return what a journal's line holds, None where it is damaged."""
    crc, _, body = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(body):
        return None
    record = json.loads(body)
    return record if isinstance(record, dict) else None
