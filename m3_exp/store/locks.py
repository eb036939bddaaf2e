"""Locks (flock) on files: they end with the process that holds them, however it ends."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # says a file system that knows none


def hold(path: Path, flags: int = os.O_RDONLY, *, wait: bool = False) -> int:
    """Open a file and lock it until the descriptor is closed; with O_CREAT its folder is made as well.

    Raises:
        BlockingIOError: somebody else holds it, and `wait` is not wanted.
    """
    if flags & os.O_CREAT:
        path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def excludes(path: Path) -> bool:
    """Tell whether a lock that this process has on a file keeps others out: some file systems only say so."""
    try:
        os.close(hold(path, os.O_RDWR))
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def opened(path: Path, flags: int) -> int:
    """Open a file, with its folder, that this process alone writes; others see that by its lock, where one is had."""
    try:
        return hold(path, flags, wait=True)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return os.open(path, flags & ~os.O_EXCL | os.O_CLOEXEC, 0o644)


@contextlib.contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Let one thread of all processes in at a time.

    Where nothing can be written, or the file system knows no locks, nobody waits: what is done twice then is done
    twice, no more.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(locked(path, os.O_RDWR | os.O_CREAT, wait=True))
        yield


@contextlib.contextmanager
def locked(path: Path, flags: int = os.O_RDONLY, *, wait: bool = False) -> Iterator[None]:
    """Hold a file's lock inside the block; see `hold`."""
    descriptor = hold(path, flags, wait=wait)
    try:
        yield
    finally:
        os.close(descriptor)
