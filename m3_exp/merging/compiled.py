"""Numba's compiler as the kernels use it: without the GIL, and with the machine code kept on disk.

Numba keeps it in $NUMBA_CACHE_DIR, beside the source or in the user's cache folder: the first that this user can write.
A read-only installation without a home has no such folder. A folder that others could write is not used, because
whoever fills it has their code run here. In both cases each process compiles what it uses (seconds).
"""

import contextlib
import os
import stat
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from numba import config, njit

F = TypeVar("F", bound=Callable[..., object])
_HOUR = 3600.0


def compiled(function: F) -> F:
    """Return a function that is compiled at its first call with each set of types."""
    anew: F = njit(nogil=True)(function)
    if not _has_a_place():
        return anew
    try:
        kept: F = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba finds no folder to keep it in
        return anew
    if not _trusted(folder := cache_folder(kept)):
        return anew
    _sweep(folder)
    return kept


@cache
def _sweep(folder: Path | None) -> None:
    """Remove what killed processes left of numba's own temporary files, which live for an instant."""
    for path in folder.glob("*.nb?.tmp.*") if folder else ():
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _HOUR:
                path.unlink()


def cache_folder(function: Callable[..., object]) -> Path | None:
    """Return where a compiled function's machine code is kept; None where every process compiles it again."""
    folder = function.stats.cache_path  # type: ignore[attr-defined]
    return Path(folder) if folder else None


def _has_a_place() -> bool:
    """Tell whether numba has a folder to use; for a user without a home it would make one named `~` right here."""
    user = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~")
    return bool(config.CACHE_DIR) or os.access(Path(__file__).parent, os.W_OK) or os.path.isabs(user)


def _trusted(folder: Path | None) -> bool:
    """Tell whether only this user, root, and whoever can change the source can put code into a folder."""
    if folder is None or folder.parent == Path(__file__).parent:
        return True
    places = [folder, *folder.absolute().parents]
    return all(place.stat().st_uid in (0, os.getuid()) and not _is_open(place, folder) for place in places)


def _is_open(place: Path, folder: Path) -> bool:
    """Tell whether everybody may write here; above the folder the sticky bit keeps its entries from others."""
    mode = place.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not (mode & stat.S_ISVTX and place != folder)
