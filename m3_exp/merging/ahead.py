"""The models of the next merge, read into the page cache while the engine is at work."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from m3_exp.merging.source import locate, parse_source
from m3_exp.types import M3Error, Recipe

_WEIGHTS = (".safetensors", ".bin", ".gguf")
_SHARE = 0.5  # of the memory that is available


def read_ahead(recipe: Recipe) -> list[Path]:
    """Ask the system to read the files of a recipe's models, and return those that it was asked for.

    As many as fit into half of the available memory: the system may drop them, and nothing is held here. Where the
    system takes no such wish (macOS), or a model is not at hand, nothing is asked. Nothing is raised.
    """
    room = _SHARE * _available()
    asked = []
    for path in _files(recipe):
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            if size > room:
                break
            _wish(path)
            room -= size
            asked.append(path)
    return asked


def _files(recipe: Recipe) -> Iterator[Path]:
    with contextlib.suppress(M3Error, OSError):
        for source in dict.fromkeys((recipe.base, *recipe.experts)):
            named = [source] if source.adapter is None else [source, parse_source(source.adapter)]
            for place in map(locate, named):
                files = sorted(place.iterdir()) if place.is_dir() else [place]
                yield from (file for file in files if file.suffix in _WEIGHTS)


def _wish(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)


def _available() -> int:
    """Return the bytes of memory that can be had without swapping; 0 where the system does not say."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    return 0
