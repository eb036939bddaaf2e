"""The layouts that a Hugging Face model directory may have: safetensors or `.bin`, one file or shards with an index.

Files are mapped, never loaded: `read` returns a view. Headers are validated before anything else is read.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from m3_exp.merging.bits import Bytes
from m3_exp.reading.files import cannot_read, exists, read_json
from m3_exp.reading.typed import Strict, checked
from m3_exp.types import M3Error

if TYPE_CHECKING:
    import torch

# What safetensors calls a dtype, and what torch does: the two standard lists of names.
DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U8": "uint8", "BOOL": "bool"},
}
CODES = {name: code for code, name in DTYPES.items()}
_VOCABULARY = re.compile(r"(^|\.)(embed_tokens|lm_head|wte|embed_in|embed_out|word_embeddings)\.(weight|bias)$")
_CHUNK = 1 << 20  # elements compared at once


@dataclass(frozen=True)
class Entry:
    """Shape and dtype of one tensor; the dtype as safetensors writes it, as in `BF16`."""

    shape: tuple[int, ...]
    dtype: str

    @cached_property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.itemsize

    @cached_property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return 1 if self.dtype == "BOOL" else int(self.dtype.strip("BFIU")) // 8

    @property
    def is_float(self) -> bool:
        return "F" in self.dtype


def torch_dtype(code: str) -> torch.dtype:
    """Return torch's dtype of one that safetensors writes, as in `BF16`."""
    import torch

    dtype: torch.dtype = getattr(torch, DTYPES[code])
    return dtype


def _code(dtype: torch.dtype) -> str:
    """Return what safetensors writes for a dtype; torch's own name for one that no model has."""
    name = str(dtype).removeprefix("torch.")
    return CODES.get(name, name)


class Tensors(Protocol):
    """A set of named tensors in files: `parts` says which names each file holds."""

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    @property
    def parts(self) -> Mapping[Path, list[str]]: ...

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return the flat elements [start, stop) of a tensor in its own dtype; do not write to them."""
        ...

    def stored(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of what `read` gives; torch is imported only where it takes part."""
        ...


def tensor_bytes(tensor: torch.Tensor) -> Bytes:
    """Return the bytes of a contiguous tensor, not copied."""
    import torch

    data: Bytes = tensor.reshape(-1).view(torch.uint8).numpy()
    return data


class ShardedTensors:
    """The tensors of one or several files of one directory, as one set."""

    def __init__(self, files: list[SafetensorsFile | TorchFile]) -> None:
        self.entries: dict[str, Entry] = {}
        self.parts = {path: names for file in files for path, names in file.parts.items()}
        self._home: dict[str, SafetensorsFile | TorchFile] = {}
        for file in files:
            for name, entry in file.entries.items():
                if name in self._home:
                    raise M3Error(f"{file.path} and {self._home[name].path.name} both hold the tensor {name}")
                if not entry.numel:
                    raise M3Error(f"{file.path}: tensor {name} is empty (its shape is {entry.shape}): fetch it again")
                self._home[name] = file
                self.entries[name] = entry

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        return self._home[name].read(name, start, stop)

    def stored(self, name: str, start: int, stop: int) -> Bytes:
        return self._home[name].stored(name, start, stop)


class Renamed:
    """Tensors under other names: `names` maps each new name to the stored one; other stored tensors are hidden."""

    def __init__(self, tensors: Tensors, names: Mapping[str, str]) -> None:
        self._tensors, self._names = tensors, names
        self.entries = {name: tensors.entries[stored] for name, stored in names.items()}
        known = {stored: name for name, stored in reversed([*names.items()])}  # the first of several names
        self.parts = {
            path: sorted(known[stored] for stored in held if stored in known) for path, held in tensors.parts.items()
        }

    def names_of(self, names: list[str]) -> dict[str, str]:
        """Return the stored names of tensors given by their new ones."""
        return {name: self._names[name] for name in names}

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        return self._tensors.read(self._names[name], start, stop)

    def stored(self, name: str, start: int, stop: int) -> Bytes:
        return self._tensors.stored(self._names[name], start, stop)


def is_vocabulary(name: str) -> bool:
    """Tell whether a tensor has one row for each token."""
    return _VOCABULARY.search(name) is not None


def same_values(tensors: Tensors, one: str, other: str) -> bool:
    """Tell whether two tensors are of one shape and hold the same values, whatever their dtypes."""
    entry = tensors.entries[one]
    if entry.shape != tensors.entries[other].shape:
        return False
    import torch

    cuts = [(start, min(start + _CHUNK, entry.numel)) for start in range(0, entry.numel, _CHUNK)]
    return all(torch.equal(*(tensors.read(name, *cut).double() for name in (one, other))) for cut in cuts)


def open_directory(folder: Path) -> ShardedTensors:
    """Open a model directory's weights: safetensors where there are any, else `.bin`.

    Shards without their index are read where their numbering is complete.

    Raises:
        M3Error: no weights, two layouts at once, a missing shard, an index that names absent tensors or paths outside,
            an empty tensor, or a file that holds anything but tensors or may not be read.
    """
    present = [name for name in _LAYOUTS if exists(folder / name)]
    safe = [name for name in present if "safetensors" in name]
    names = safe or present
    if len(names) > 1:
        raise M3Error(f"{folder} holds both {names[0]} and {names[1]}: remove the one that is out of date")
    if not names:
        return ShardedTensors(_without_index(folder))
    path = folder / names[0]
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


_LAYOUTS = tuple(f"{name}{end}" for name in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json"))
_SHARD = re.compile(r"(model|pytorch_model)-(\d{5})-of-(\d{5})\.(safetensors|bin)")


def _without_index(folder: Path) -> list[SafetensorsFile | TorchFile]:
    """Open all shards of a folder that lacks their index, if the numbers in their names show that none is missing."""
    try:
        listed = sorted(os.listdir(folder))
    except OSError as error:
        raise cannot_read(folder, error) from error
    shards = [match for match in map(_SHARD.fullmatch, listed) if match]
    safe = [match for match in shards if match[4] == "safetensors"]
    shards = safe or shards
    if not shards:
        others = [name for name in listed if name.endswith((".safetensors", ".bin", ".gguf", ".pt", ".pth"))]
        held = f" (it holds {', '.join(others[:3])})" if others else ""
        raise M3Error(f"{folder} holds no weights{held}: one of {', '.join(_LAYOUTS)} is needed")
    first = shards[0]
    index, total = f"{first[1]}.{first[4]}.index.json", int(first[3])
    wanted = [f"{first[1]}-{i:05d}-of-{first[3]}.{first[4]}" for i in range(1, total + 1)]
    names = [match[0] for match in shards]
    if len({match[3] for match in shards}) > 1:
        both = f"{names[0]} and {next(match[0] for match in shards if match[3] != first[3])}"
        raise M3Error(f"{folder} holds shards of two models, {both}, and no index: remove those that are out of date")
    if names != wanted:
        absent = next((name for name in wanted if name not in names), index)
        there = f"{names[0]} and {len(names) - 1} more shards" if len(names) > 1 else names[0]
        raise M3Error(f"{folder} holds {there}, but neither {index} nor {absent}: fetch them")
    opener = SafetensorsFile if safe else TorchFile
    return [opener(folder / name) for name in names]


class _Index(Strict):
    weight_map: dict[str, str]


def _read_index(path: Path) -> dict[str, str]:
    index = checked(_Index, read_json(path), path).weight_map
    for shard in sorted(set(index.values())):
        if Path(shard).name != shard or shard in ("", ".", "..") or "\0" in shard:
            raise M3Error(f"{path} names the shard {shard!r}: only bare file names beside the index are allowed")
        if not exists(path.parent / shard):
            raise M3Error(f"{path.parent} lacks the shard {shard} that {path.name} names: fetch the model again")
    if not index:
        raise M3Error(f"{path}: weight_map is empty: fetch it again")
    return dict(index)


def mapped(path: Path) -> mmap.mmap:
    """Map a file for reading.

    Raises:
        M3Error: it may not be read, is no regular file, or is empty.
    """
    try:
        if not path.is_file():
            os.stat(path)
            raise M3Error(f"{path} is not a regular file: fetch the model again")
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise cannot_read(path, error) from error
    except ValueError as error:
        raise M3Error(f"{path} is empty: fetch it again") from error


class SafetensorsFile:
    """One mapped safetensors file."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        self._map = mapped(path)
        try:
            with safe_open(path, framework="numpy"):  # refuses bad lengths, overlaps and holes
                pass
        except (SafetensorError, OSError, ValueError, OverflowError) as error:
            raise M3Error(f"{path} is damaged or cut short ({error}): fetch it again") from error
        length = int.from_bytes(self._map[:8], "little")
        header: dict[str, dict[str, Any]] = json.loads(self._map[8 : 8 + length])
        header.pop("__metadata__", None)
        self.entries: dict[str, Entry] = {}
        self._offsets: dict[str, int] = {}
        for name, item in header.items():
            if item["dtype"] not in DTYPES:
                is_quantised = item["dtype"].startswith(("F8", "F6", "F4"))
                use = " (quantised: give the model it was made from)" if is_quantised else ""
                raise M3Error(f"{path}: tensor {name} is {item['dtype']}{use}; known are {', '.join(DTYPES)}")
            self.entries[name] = Entry(tuple(item["shape"]), item["dtype"])
            self._offsets[name] = 8 + length + int(item["data_offsets"][0])
        self.parts = {path: sorted(self.entries)}

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        import torch

        entry = self.entries[name]
        dtype = torch_dtype(entry.dtype)
        if stop <= start:
            return torch.empty(0, dtype=dtype)
        offset = self._offsets[name] + start * entry.itemsize
        return torch.frombuffer(self._map, dtype=dtype, count=stop - start, offset=offset)

    def stored(self, name: str, start: int, stop: int) -> Bytes:
        size = self.entries[name].itemsize
        return np.frombuffer(self._map, np.uint8, (stop - start) * size, self._offsets[name] + start * size)


class TorchFile:
    """One mapped `.bin` file, read by torch's weights-only loader."""

    def __init__(self, path: Path) -> None:
        import torch

        self.path = path
        with mapped(path) as data:
            records = _records(path, data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the opcodes that it then refuses
                state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # whatever the opcodes of a stranger's pickle lead torch to
            raise M3Error(
                f"{path} holds something other than tensors, or is damaged ({_reason(error)}): it is not opened"
            ) from error
        if not isinstance(state, dict):
            raise M3Error(f"{path} holds a {type(state).__name__}: a .bin file of named tensors is needed")
        for name, value in state.items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor):
                raise M3Error(f"{path} holds something other than tensors: {name!r} is a {type(value).__name__}")
            if value.layout != torch.strided or value.device.type != "cpu" or _code(value.dtype) not in DTYPES:
                raise M3Error(f"{path}: tensor {name} is {value.dtype}, {value.layout}: a plain dense one is needed")
            if not value.is_contiguous() or value.is_neg():
                raise M3Error(f"{path}: tensor {name} is a view that is not contiguous: save it with .contiguous()")
        self._check_storages(state, records)
        self._flat = {name: value.detach().view(-1) for name, value in state.items()}
        self.entries = {name: Entry(tuple(value.shape), _code(value.dtype)) for name, value in state.items()}
        self.parts = {path: sorted(self.entries)}

    def _check_storages(self, state: Mapping[str, torch.Tensor], records: list[tuple[int, int]]) -> None:
        """Refuse a pickle whose storages are not the records of its archive: torch maps whatever length it names."""
        storages = {value.untyped_storage() for value in state.values()}
        stored = sorted({(storage.data_ptr(), storage.nbytes()) for storage in storages if storage.nbytes()})
        begin = stored[0][0] - records[0][0] if stored and records else 0
        if [(pointer - begin, size) for pointer, size in stored] != records:
            raise M3Error(f"{self.path} is damaged: its tensors are not of the sizes that it stores; fetch it again")

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        block: torch.Tensor = self._flat[name][start:stop]
        return block

    def stored(self, name: str, start: int, stop: int) -> Bytes:
        return tensor_bytes(self.read(name, start, stop))


def _reason(error: Exception) -> str:
    """Return the part of torch's message that says what it met; its advice is to trust the file."""
    said = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    return " ".join(said.partition("\n")[0].split())[:120] or type(error).__name__


_LOCAL = 30  # bytes of a zip entry's own header before its name


def _records(path: Path, data: mmap.mmap) -> list[tuple[int, int]]:
    """Return where the storages of a torch archive lie and their sizes; nothing may be packed."""
    if data[:2] != b"PK":
        raise M3Error(
            f"{path} is not an archive of torch >= 1.6 (it cannot be mapped): save it again with a newer torch"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise M3Error(f"{path} is damaged or cut short ({error}): fetch it again") from error
    records = []
    for entry in entries:
        at = entry.header_offset
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(data):
            raise M3Error(
                f"{path} holds packed or impossible entries ({entry.filename[:40]}): save it again with torch"
            )
        names = int.from_bytes(data[at + 26 : at + 28], "little") + int.from_bytes(data[at + 28 : at + 30], "little")
        begin = at + _LOCAL + names
        if begin + entry.file_size > len(data):
            raise M3Error(f"{path} is damaged or cut short ({entry.filename[:40]}): fetch it again")
        if "/data/" in entry.filename and entry.file_size:
            records.append((begin, entry.file_size))
    return sorted(records)
