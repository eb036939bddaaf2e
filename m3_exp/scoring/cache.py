"""Where scoring keeps what outlives a run, such as paid judgments: a folder of the store that the run writes to."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from m3_exp.store import Store, write_atomic

_root: ContextVar[Path | None] = ContextVar("m3_scoring_root", default=None)


@contextlib.contextmanager
def kept_in(root: Path) -> Iterator[None]:
    """Make `folder` return folders below `root`, in this thread and within the context."""
    token = _root.set(root)
    try:
        yield
    finally:
        _root.reset(token)


def keep(path: Path, data: bytes) -> None:
    """Put `data` under `path` in one step, for good."""
    write_atomic(path, data)


def folder(name: str) -> Path:
    """Return the folder for one kind of thing, made if need be. Outside a run: below the user's cache folder."""
    root = _root.get()
    if root is None:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "m3_exp"
    path = Store(root).scoring_cache(name)
    path.mkdir(parents=True, exist_ok=True)
    return path
