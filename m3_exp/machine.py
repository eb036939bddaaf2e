"""What this process may use of its machine."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")
_MANY = 8  # values from which on copies of this process are worth it
_PART = 250  # of thousands of values: so many at least are computed together


def cores() -> list[int]:
    """Return the numbers of the cores this process may use. macOS binds no process to cores, so there: all of them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def in_processes(function: Callable[[T], R], values: Iterable[T]) -> list[R]:
    """Return a function of each value; of many, computed by copies of this process, one a core.

    A copy has all that this process has, so nothing but what comes back is sent. Where there are no such copies (macOS,
    Windows), or another thread runs that a copy would lack, one value is computed after the other.
    """
    known = list(values)
    alone = len(cores()) < 2 or sys.platform != "linux" or threading.active_count() > 1
    if len(known) < _MANY or alone:
        return [function(value) for value in known]
    sys.stdout.flush()
    _COPIED[:] = [function, known]
    with multiprocessing.get_context("fork").Pool(min(8, len(cores())), _quiet) as pool:
        return cast(list[R], pool.map(_computed, range(len(known)), chunksize=1))


def in_parts(function: Callable[[Sequence[T]], list[R]], values: Sequence[T]) -> list[R]:
    """Return what a function makes of values, one each; of thousands, every core computes parts.

    The first part is computed here: what it opens and keeps, the others find open.
    """
    first, others = values[:_PART], values[_PART:]
    size = max(_PART, -(-len(others) // _MANY))
    parts = in_processes(function, [others[at : at + size] for at in range(0, len(others), size)])
    return [found for part in (function(first), *parts) for found in part]


_COPIED: list[Any] = []  # the function and its values, for the copies


def _computed(at: int) -> Any:
    function, values = _COPIED
    return function(values[at])


def _quiet() -> None:
    """Leave Ctrl-C to the process that waits, end when it says so, and leave cores to its other copies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
