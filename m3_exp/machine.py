"""What this process may use of its machine."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> list[int]:
    """Return the numbers of the cores this process may use. macOS binds no process to cores, so there: all of them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def in_threads(function: Callable[[T], R], values: Iterable[T]) -> list[R]:
    """Return a function of each value, as many at a time as there are cores: for numpy, which lets others run."""
    with ThreadPoolExecutor(min(8, len(cores()))) as pool:
        return list(pool.map(function, values))
