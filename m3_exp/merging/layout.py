"""The layouts that a Hugging Face model directory may have: safetensors or `.bin`, one file or shards with an index.

Files are mapped, never loaded: `read` returns a view. Headers are validated before anything is believed.
"""

import json
import mmap
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from m3_exp.types import M3Error

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """Shape and dtype of one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        total = 1
        for size in self.shape:
            total *= size
        return total

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class Tensors(Protocol):
    """A set of named tensors in files: `parts` says which names each file holds."""

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    @property
    def parts(self) -> Mapping[Path, list[str]]: ...

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return the flat elements [start, stop) of a tensor in its own dtype; do not write to them."""
        ...


class ShardedTensors:
    """The tensors of one or several files of one directory, under one roof."""

    def __init__(self, files: "list[SafetensorsFile | TorchFile]") -> None:
        self.entries: dict[str, Entry] = {}
        self.parts: dict[Path, list[str]] = {}
        self._home: dict[str, SafetensorsFile | TorchFile] = {}
        for file in files:
            self.parts[file.path] = sorted(file.entries)
            for name, entry in file.entries.items():
                if name in self._home:
                    raise M3Error(f"{file.path} and {self._home[name].path.name} both hold the tensor {name}")
                self._home[name] = file
                self.entries[name] = entry

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        return self._home[name].read(name, start, stop)


def open_directory(folder: Path) -> ShardedTensors:
    """Open a model directory's weights.

    Raises:
        M3Error: no weights, two layouts at once, a missing shard, an index that names absent tensors or paths outside,
            or a file that holds anything but tensors.
    """
    found = {name: folder / name for name in _LAYOUTS if (folder / name).is_file()}
    safe = [name for name in found if "safetensors" in name]
    names = safe or sorted(found)
    if len(names) > 1:
        raise M3Error(f"{folder} holds both {names[0]} and {names[1]}: remove the one that is out of date")
    if not names:
        raise M3Error(f"{folder} holds no weights: one of {', '.join(_LAYOUTS)} is needed")
    path = found[names[0]]
    opener = SafetensorsFile if safe else TorchFile
    if path.suffix != ".json":
        return ShardedTensors([opener(path)])
    index = _read_index(path)
    tensors = ShardedTensors([opener(folder / shard) for shard in sorted(set(index.values()))])
    absent = sorted(set(index) - set(tensors.entries))
    astray = sorted(name for name in index if name not in absent and name not in tensors.parts[folder / index[name]])
    unlisted = sorted(set(tensors.entries) - set(index))
    for names, what in ((absent, "that no shard holds"), (astray, "in another shard than the index says")):
        if names:
            raise M3Error(f"{path} names {len(names)} tensors {what}, {names[0]} the first: fetch the model again")
    if unlisted:
        raise M3Error(f"{path} does not list {len(unlisted)} tensors of its shards, {unlisted[0]} the first")
    return tensors


_LAYOUTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def _read_index(path: Path) -> dict[str, str]:
    try:
        index = json.loads(path.read_bytes())["weight_map"]
        shards = sorted(set(index.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise M3Error(f"{path} is not an index of shards ({error!r}): fetch it again") from error
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".", ".."):
            raise M3Error(f"{path} names the shard {shard!r}: only bare file names beside the index are allowed")
        if not (path.parent / shard).is_file():
            raise M3Error(f"{path.parent} lacks the shard {shard} that {path.name} names: fetch the model again")
    return dict(index)


class SafetensorsFile:
    """One mapped safetensors file."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        try:
            with safe_open(path, framework="pt"):  # refuses bad lengths, overlaps and holes
                pass
        except (SafetensorError, OSError) as error:
            raise M3Error(f"{path} is damaged or cut short ({error}): fetch it again") from error
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        length = int.from_bytes(self._map[:8], "little")
        header: dict[str, Any] = json.loads(self._map[8 : 8 + length])
        header.pop("__metadata__", None)
        self.entries: dict[str, Entry] = {}
        self._offsets: dict[str, int] = {}
        for name, item in header.items():
            if item["dtype"] not in DTYPES:
                raise M3Error(f"{path}: tensor {name} is {item['dtype']}; known are {', '.join(DTYPES)}")
            self.entries[name] = Entry(tuple(item["shape"]), DTYPES[item["dtype"]])
            self._offsets[name] = 8 + length + int(item["data_offsets"][0])

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        entry = self.entries[name]
        if stop <= start:
            return torch.empty(0, dtype=entry.dtype)
        offset = self._offsets[name] + start * entry.dtype.itemsize
        return torch.frombuffer(self._map, dtype=entry.dtype, count=stop - start, offset=offset)


class TorchFile:
    """One mapped `.bin` file, read by torch's weights-only loader."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except (pickle.UnpicklingError, EOFError) as error:
            raise M3Error(f"{path} holds something other than tensors, or is damaged: it is not opened") from error
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).partition("\n")[0][:120]
            raise M3Error(f"{path} cannot be mapped ({reason}): save it again with torch >= 1.6") from error
        if not isinstance(state, dict):
            raise M3Error(f"{path} holds a {type(state).__name__}: a .bin file of named tensors is needed")
        for name, value in state.items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor):
                raise M3Error(f"{path} holds something other than tensors: {name!r} is a {type(value).__name__}")
            if value.dtype not in CODES or value.layout != torch.strided or not value.is_contiguous():
                raise M3Error(f"{path}: tensor {name} is {value.dtype}, {value.layout}: a plain dense one is needed")
        self._flat = {name: value.detach().view(-1) for name, value in state.items()}
        self.entries = {name: Entry(tuple(value.shape), value.dtype) for name, value in state.items()}

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        block: torch.Tensor = self._flat[name][start:stop]
        return block
