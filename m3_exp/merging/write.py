"""Writing merged models: several recipes in one pass over their inputs, each straight into its final shards.

A directory appears under its name only when it is complete and synced (`store.publish_directory`), and is never changed
afterwards: its files are read-only. `recipe.json` in it says what it was made from.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from m3_exp.merging import loading
from m3_exp.merging.blend import Blender
from m3_exp.merging.canonical import recipe_key
from m3_exp.merging.check import check, check_headers
from m3_exp.merging.checkpoint import content_digest, open_model, thread_pool
from m3_exp.merging.device import Device
from m3_exp.merging.jobs import Job
from m3_exp.merging.layout import Entry, is_vocabulary, open_directory
from m3_exp.merging.model_config import check_same_architecture
from m3_exp.merging.notes import averaged, notes
from m3_exp.merging.source import locate, resolve
from m3_exp.merging.tokenizer import tokenizer_config, tokenizer_directory, tokenizer_files, write_json
from m3_exp.merging.tokens import UNION, check_tokens, tokenizer_of
from m3_exp.reading.files import exists
from m3_exp.store import Store, check_new, publish_directory
from m3_exp.types import Json, M3Error, Recipe, Source, plain

SHARD_BYTES = 5_000_000_000
_SPARE = 64 << 20  # bytes that must stay free on a disk
_LEFT_BEHIND = ("_name_or_path", "auto_map", "quantization_config")
_PACKAGES = ("m3_exp", "torch", "numpy", "numba", "safetensors")


@dataclass(frozen=True)
class Written:
    """One published checkpoint: where it lies, its weights digest, its recipe's key, and the report of the merge."""

    path: Path
    digest: str
    key: str
    report: Json


def write(
    recipes: Sequence[Recipe],
    outs: Sequence[Path],
    store: Store,
    tokenizer: Source,
    *,
    with_tokenizer: bool = True,
    verify: bool = True,
    shard_bytes: int = SHARD_BYTES,
    threads: int | None = None,
    block: int | None = None,
    device: str | None = None,
    stopped: threading.Event | None = None,
) -> list[Written]:
    """Merge recipes into directories, all in one pass. `tokenizer` says whose config, tokenizer and template go along.

    With `with_tokenizer=False` no tokenizer goes along. With `verify`, transformers loads names and shapes into the
    model that config.json describes, beside the write, before a directory gets its name. Setting `stopped` ends it.
    With a `device`, as `cuda`, blocks are made there: the same bytes.

    Raises:
        M3Error: an `out` is not empty, a recipe is refused, the disk is too small, or the output would hold NaN or Inf,
            or transformers could not load it, or it was stopped; nothing is left behind.
    """
    stopped = stopped or threading.Event()
    _check_outs(outs)
    place = Device(device) if device else None
    for recipe in recipes:
        check_headers(recipe, store)
        if with_tokenizer:
            check_tokens(recipe, store)
    if verify:
        loading.start()  # it imports transformers while digests are taken
    jobs = [check(recipe, store) for recipe in recipes]
    theirs = open_model(tokenizer, store).config
    besides = [_beside(tokenizer, recipe, store, with_tokenizer) for recipe in recipes]
    for job in jobs:
        check_same_architecture(theirs, job.experts[0].config, (str(tokenizer), str(job.experts[0].source)))
    configs = [_config(theirs, job) for job in jobs]
    plans = [_shards(job.layout(), shard_bytes) for job in jobs]
    _check_disk(outs, plans)
    keys = [recipe_key(recipe, store) for recipe in recipes]
    with contextlib.ExitStack() as stack:
        asked = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(_end_loading, stopped)
        loads = [
            asked.submit(loading.ask, config, job.layout()) for config, job in zip(configs, jobs, strict=True) if verify
        ]
        temporary = [stack.enter_context(publish_directory(out)) for out in outs]
        with thread_pool(threads) as pool:
            blender = Blender(jobs, store, pool, block, place)
            digests = _pour(blender, pool, temporary, plans, stopped)
        written = []
        for i, (recipe, out) in enumerate(zip(recipes, outs, strict=True)):
            digest, report = content_digest(digests[i]), blender.report(i)
            if lines := [*notes(recipe, store), *averaged(blender.averaged(i))]:
                report["notes"] = lines
            if verify:
                while not loads[i].done():
                    _check_not_stopped(stopped)
                    wait([loads[i]], 0.5)
                verdict = loads[i].result()
                loading.refuse(verdict, str(tokenizer))
                report["loaded_by"] = verdict.model or f"not tried: {verdict.note}"
                report["left_out"] = verdict.unexpected
            _describe(temporary[i], configs[i], besides[i], jobs[i], plans[i])
            _write_recipe(
                temporary[i], recipe, tokenizer, jobs[i], {"key": keys[i], "digest": digest, "report": report}
            )
            _verify(temporary[i], jobs[i])
            written.append(Written(out, digest, keys[i], report))
    return written


def _check_not_stopped(stopped: threading.Event) -> None:
    if stopped.is_set():
        raise M3Error("interrupted: the checkpoint that was being written is removed")


def _end_loading(stopped: threading.Event) -> None:
    """End the question to transformers; nobody waits for its answer any more."""
    if stopped.is_set():
        loading.stop()


# -------------------------------------------------------------------------------------------------- before the work


def _check_outs(outs: Sequence[Path]) -> None:
    if len(set(outs)) != len(outs):
        raise M3Error(f"out names {len(outs)} directories, some of them twice: give each recipe its own")
    for out in outs:
        check_new(out)


def _check_disk(outs: Sequence[Path], plans: "Sequence[list[Shard]]") -> None:
    needed: dict[int, int] = {}
    places: dict[int, Path] = {}
    for out, shards in zip(outs, plans, strict=True):
        place = next(parent for parent in out.absolute().parents if parent.exists())
        device = place.stat().st_dev
        places[device] = place
        needed[device] = needed.get(device, 0) + sum(shard.size for shard in shards)
    for device, size in needed.items():
        free = shutil.disk_usage(places[device]).free
        if size + _SPARE > free:
            raise M3Error(
                f"the output takes {size / 1e9:.2f} GB, {places[device]} has {free / 1e9:.2f} GB free: "
                "make room, or give out=DIR on another disk"
            )


# -------------------------------------------------------------------------------------------------------- the shards


@dataclass(frozen=True)
class Shard:
    """One safetensors file to be: its header, the offset of each tensor in it, and its size in bytes."""

    name: str
    header: bytes
    offsets: Mapping[str, int]
    size: int


def _shards(layout: Mapping[str, Entry], limit: int) -> list[Shard]:
    """Deal tensors, by name, into files of at most `limit` bytes (a larger tensor gets its own)."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, entry in layout.items():
        if groups[-1] and filled + entry.nbytes > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += entry.nbytes
    count = len(groups)
    names = ["model.safetensors"]
    if count > 1:
        names = [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    return [_shard(file, group, layout) for file, group in zip(names, groups, strict=True)]


def _shard(file: str, names: list[str], layout: Mapping[str, Entry]) -> Shard:
    ordered = sorted(names, key=lambda name: (-layout[name].itemsize, name))  # keeps every offset aligned
    header: Json = {"__metadata__": {"format": "pt"}}
    offsets, end = {}, 0
    for name in ordered:
        entry = layout[name]
        offsets[name] = end
        end += entry.nbytes
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offsets[name], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return Shard(file, head, {name: len(head) + at for name, at in offsets.items()}, len(head) + end)


@contextlib.contextmanager
def _created(folder: Path, shards: Sequence[Shard]) -> Iterator[dict[str, tuple[int, int]]]:
    """Create the files of one output; give each tensor's (descriptor, offset)."""
    places: dict[str, tuple[int, int]] = {}
    with contextlib.ExitStack() as stack:
        for shard in shards:
            descriptor = os.open(folder / shard.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            stack.callback(os.close, descriptor)
            _put(descriptor, memoryview(shard.header), 0)
            places.update({name: (descriptor, offset) for name, offset in shard.offsets.items()})
        yield places


def _put(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        done = os.pwrite(descriptor, data, offset)
        data, offset = data[done:], offset + done


def _pour(
    blender: Blender,
    pool: ThreadPoolExecutor,
    folders: Sequence[Path],
    plans: Sequence[list[Shard]],
    stopped: threading.Event,
) -> list[dict[str, tuple[str, list[int], str]]]:
    """Compute every tensor of every job, each by one thread, into its place; return the digests."""
    digests: list[dict[str, tuple[str, list[int], str]]] = [{} for _ in blender.jobs]

    def one(name: str, places: Sequence[dict[str, tuple[int, int]]]) -> None:
        entries = [layout.get(name) for layout in blender.layouts]
        hashers = [blake3() for _ in entries]
        for start, stop in blender.blocks(name):
            _check_not_stopped(stopped)
            for i, made in enumerate(blender.blend(name, start, stop)):
                entry = entries[i]
                if made is None or entry is None:
                    continue
                hashers[i].update(made.data)
                descriptor, offset = places[i][name]
                _put(descriptor, made.data, offset + start * entry.itemsize)
        for i, entry in enumerate(entries):
            if entry is not None:
                digests[i][name] = (entry.dtype, list(entry.shape), hashers[i].hexdigest())

    try:
        with contextlib.ExitStack() as stack:
            pairs = zip(folders, plans, strict=True)
            places = [stack.enter_context(_created(folder, shards)) for folder, shards in pairs]
            futures = [pool.submit(one, name, places) for name in blender.names]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()
                pool.shutdown()
    except OSError as error:
        raise M3Error(
            f"out={folders[0].parent}: cannot write the merged model ({error.strerror}): make room"
        ) from error
    return digests


# ------------------------------------------------------------------------------------------------- beside the shards


def _beside(tokenizer: Source, recipe: Recipe, store: Store, with_tokenizer: bool) -> dict[str, bytes]:
    """Return the files that go along with the weights: the generation configuration, and the tokenizer if wanted."""
    home = tokenizer_directory(tokenizer, store) if with_tokenizer else locate(tokenizer)
    folder = tokenizer_of(recipe, store) if recipe.tokens == UNION else home
    paths = [home / "generation_config.json", *(tokenizer_files(folder) if with_tokenizer else [])]
    return {path.name: tokenizer_config(path) for path in paths if exists(path)}


def _config(theirs: Mapping[str, Any], job: Job) -> Json:
    """Return the config.json of a merge."""
    config = {key: value for key, value in theirs.items() if key not in _LEFT_BEHIND}
    rows = [entry.shape[0] for name, entry in job.layout().items() if is_vocabulary(name)]
    sizes = {"vocab_size": max(rows)} if rows else {}
    config.update(torch_dtype=job.recipe.dtype, dtype=job.recipe.dtype, tie_word_embeddings=job.tied)
    if "text_config" not in config:
        return {**config, **sizes}
    inner = {**config["text_config"], "tie_word_embeddings": job.tied}
    return {**config, "text_config": {**inner, **(sizes if "vocab_size" in inner else {})}}


def _describe(out: Path, config: Json, beside: Mapping[str, bytes], job: Job, shards: Sequence[Shard]) -> None:
    """Put the index, configuration, tokenizer and template beside the shards."""
    if len(shards) > 1:
        weight_map = {name: shard.name for shard in shards for name in shard.offsets}
        total = sum(entry.nbytes for entry in job.layout().values())
        write_json(out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_json(out / "config.json", config)
    for name, data in beside.items():
        (out / name).write_bytes(data)


def _write_recipe(out: Path, recipe: Recipe, tokenizer: Source, job: Job, made: Json) -> None:
    resolved = replace(recipe, base=resolve(recipe.base), experts=tuple(resolve(expert) for expert in recipe.experts))
    inputs = {str(model.source): model.digest for model in job.models}
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    record = {"recipe": plain(resolved), "tokenizer": str(tokenizer), "inputs": inputs, "versions": versions, **made}
    write_json(out / "recipe.json", record)


def _verify(out: Path, job: Job) -> None:
    """Read the headers back with our own reader, and make every file read-only."""
    read, wanted = open_directory(out).entries, job.layout()
    if read != wanted:
        raise RuntimeError(f"{out}: what was written does not read back: {set(read) ^ set(wanted)}")
    for path in sorted(out.iterdir()):
        path.chmod(0o444)
