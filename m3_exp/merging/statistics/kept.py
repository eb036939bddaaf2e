"""A statistic as the store has it: a safetensors file for each decoder layer, each with a digest of what it holds.

A file appears under its name when it is complete and synced. A file that is there is right, or damaged and made again.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from m3_exp import temporary
from m3_exp.merging.layout import Entry, SafetensorsFile, tensor_bytes
from m3_exp.store import Measured, Store, dumps, sync
from m3_exp.types import M3Error

if TYPE_CHECKING:
    import torch


class Statistic:
    """A measured statistic, its files mapped. `entries`: of each tensor that was measured, what is kept of it.

    Raises:
        M3Error: a file is damaged.
    """

    def __init__(self, folder: Path, record: Measured) -> None:
        self.record = record
        self._homes: dict[str, tuple[SafetensorsFile, str]] = {}
        for name in record.parts:
            if not is_whole(folder / name):
                raise M3Error(f"{folder / name} is damaged: remove it, and the same command measures it again")
            file = SafetensorsFile(folder / name)
            self._homes |= {one: (file, one) for one in file.entries}
            self._homes |= {one: (file, same) for one, same in _shared(folder / name).items()}

    @functools.cached_property
    def entries(self) -> Mapping[str, Entry]:
        return {name: file.entries[stored] for name, (file, stored) in self._homes.items()}

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return the flat float32 elements [start, stop) of what is kept of a tensor."""
        file, stored = self._homes[name]
        return file.read(stored, start, stop)


def write_part(path: Path, tensors: Mapping[str, torch.Tensor], same: Mapping[str, str]) -> None:
    """Put float32 tensors into a file at once. `same` maps further names to the names whose tensor is theirs too.

    Raises:
        M3Error: they are not finite.
    """
    import torch
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    cpu = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    squares = math.fsum(float(torch.linalg.vector_norm(one, dtype=torch.float64)) ** 2 for one in cpu.values())
    if not math.isfinite(squares):
        raise M3Error(
            f"what is measured for {path.name} holds NaN or Inf: is this model sound? give another text or method"
        )
    about = dumps({"digest": _digest(cpu, same), "same": same, "squares": squares})
    partial = temporary.beside(path)
    try:
        save_file(cpu, partial, metadata={"m3": about})  # one entry: the library keeps no order of several
        sync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def is_whole(path: Path) -> bool:
    """Tell whether a file of a statistic is there and holds what was written."""
    try:
        stat = path.stat()
    except OSError:
        return False
    return _is_whole(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def squares(path: Path) -> float:
    """Return the sum of the squares of a file's elements."""
    return float(_about(path)["squares"])


def find(store: Store, key: str) -> Statistic | None:
    """Return a statistic that is in the store as a whole, else None."""
    record = store.statistics.get(key)
    folder = store.statistic(key)
    whole = record is not None and all(is_whole(folder / name) for name in record.parts)
    return Statistic(folder, record) if record is not None and whole else None


@functools.lru_cache(maxsize=4096)
def _is_whole(path: Path, _size: int, _modified: int, _changed: int) -> bool:
    try:
        file = SafetensorsFile(path)
        held = {name: file.read(name, 0, entry.numel) for name, entry in file.entries.items()}
        about = _about(path)
        return about.get("digest") == _digest(held, about.get("same"))
    except (M3Error, ValueError):
        return False


def _digest(tensors: Mapping[str, torch.Tensor], same: object) -> str:
    hashed = blake3(dumps(same).encode(), max_threads=blake3.AUTO)
    for name in sorted(tensors):
        hashed.update(name.encode() + b"\0")
        hashed.update(tensor_bytes(tensors[name]).data)
    return hashed.hexdigest()


def _about(path: Path) -> Mapping[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        found: dict[str, Any] = json.loads((file.metadata() or {}).get("m3", "{}"))
    return found


def _shared(path: Path) -> Mapping[str, str]:
    return dict(_about(path)["same"])
