"""Names of temporary files and directories, and the end of those whose writers were killed.

A name says who writes: `.NAME.HOST-PID-TOKEN.tmp`, HOST being a digest of the machine's name. The writer holds a lock
(flock) on it until it has its final name. What nobody holds any more is removed by the next process that writes into
that folder, or begins a run on that store:

    this machine       where the process has ended; else after a minute, as no lock may be had on this file system
    another machine    after a day without a change: its locks may not reach here
"""

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from pathlib import Path

_NAME = re.compile(r"\..+\.(?:([0-9a-f]{8})-(\d+)-)?[0-9a-f]{12}\.tmp", re.DOTALL)  # without a host: an older m3's
_LONGEST = 50  # characters of a name that are repeated: 255 bytes are what a file's name may have
_MINUTE, _DAY = 60.0, 86_400.0
_swept: set[Path] = set()


def beside(final: Path) -> Path:
    """Return a new temporary name in the folder of a final one, which is first rid of what dead writers left there."""
    if final.parent not in _swept:
        _swept.add(final.parent)
        sweep(final.parent)
    token = secrets.token_hex(6)
    return final.with_name(f".{final.name[:_LONGEST]}.{_host()}-{os.getpid()}-{token}.tmp")


def hold(descriptor: int) -> None:
    """Lock an open temporary file or directory until it is closed, where its file system knows locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sweep(folder: Path) -> None:
    """Remove what dead writers left in a folder; what cannot be looked at or removed stays."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        temporary = [Path(entry.path) for entry in entries if entry.name.endswith(".tmp")]
        for path in temporary:
            if match := _NAME.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    _remove_if_dead(path, match[1], int(match[2] or 0))


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _remove_if_dead(path: Path, host: str | None, pid: int) -> None:
    """Raises OSError: it is somebody else's, or gone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # no locks here: the name and the time have to do
            pass
        patience = _DAY if host != _host() else _MINUTE if _runs(pid) else 0.0
        if patience and time.time() - _last_change(path) < patience:
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def _last_change(path: Path) -> float:
    """Return the time (seconds of the epoch) when a file, or anything in a directory, was changed last."""
    times: list[float] = [entry.lstat().st_mtime for entry in (path, *(path.rglob("*") if path.is_dir() else ()))]
    return max(times)
