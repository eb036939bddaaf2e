"""Files and directories that appear under their final names only when they are complete and synced."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from m3_exp import temporary as temporaries
from m3_exp.reading.files import cannot_read
from m3_exp.types import M3Error, plain


def dumps(value: object) -> str:
    """Canonical JSON on one line: what is hashed, journalled and compared."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sync(path: Path) -> None:
    """Wait until a file or a directory, with the names in it, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
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
    sync(path.parent)


def check_new(folder: Path) -> None:
    """Refuse a directory to be that exists already and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise M3Error(f"out={folder} exists already and is not empty: give a new directory, or remove it first")


@contextlib.contextmanager
def publish_directory(final: Path) -> Iterator[Path]:
    """Give a temporary directory; on success sync all of it and rename it to `final`, else remove it.

    Raises:
        M3Error: `final` exists already and is not empty; nothing is touched then.
    """
    check_new(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporaries.sweep(final.parent)
    temporary = temporaries.beside(final)
    temporary.mkdir()
    lock = os.open(temporary, os.O_RDONLY)
    temporaries.hold(lock)
    try:
        yield temporary
        for path in [*sorted(temporary.rglob("*")), temporary]:
            sync(path)
        if final.is_dir():
            final.rmdir()
        os.rename(temporary, final)
        sync(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def names(folder: Path) -> list[str]:
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
