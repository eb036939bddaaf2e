"""What this process may use of its machine."""

import os


def cores() -> list[int]:
    """Return the numbers of the cores this process may use. macOS binds no process to cores, so there: all of them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
