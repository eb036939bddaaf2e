"""Where a model lies: reading what people write (`parse_source`) and finding it on disk (`locate`).

    DIR | FILE.gguf | package:NAME/PATH | hub/id[@revision] | any of these + "+" + ADAPTER

Nothing but weights, configuration and tokenizer is ever fetched; code (*.py) is not.
"""

import contextlib
import errno
import functools
import importlib.util
import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

from m3_exp.reading.files import cannot_read, exists
from m3_exp.reading.paths import expanded
from m3_exp.types import M3Error, Source

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FORMS = "a directory, a .gguf file, package:NAME/PATH, hub/id@revision, or one of these+ADAPTER"
# Within `without_fetching`, of this thread: the hub models whose commit is not known, and why; outside None.
_unknown: ContextVar[dict[Source, str] | None] = ContextVar("m3_unknown_commits", default=None)
# What a model needs beside its weights; code (*.py) is never fetched.
_BESIDE_WEIGHTS = ("*.json", "*.model", "*.jinja", "*.txt", "*.tiktoken")


def parse_source(text: str) -> Source:
    """Read `DIR`, `x.gguf`, `package:NAME/PATH`, `hub/id@revision` or `BASE+ADAPTER`; nothing is opened.

    A path need not be there: the results of a model outlive it (`check_at_hand`, and whoever opens it, refuse it).

    Raises:
        M3Error: the text has none of these forms.
    """
    text = text.strip()
    if _on_disk(text):
        return Source(text)
    parts = [(text[: plus.start()], text[plus.end() :]) for plus in re.finditer(r"\+", text)]
    for base, adapter in parts:
        remote = base.startswith("package:") or _HUB_ID.fullmatch(base.partition("@")[0])
        if base and adapter and (_on_disk(base) or remote):
            return replace(_single(base), adapter=adapter)
    for base, adapter in parts:  # the base is gone: what follows it is an adapter if it looks like one
        if _is_path(base) and (_is_path(adapter) or _on_disk(adapter)):
            return replace(_single(base), adapter=adapter)
    return _single(text)


def resolve(source: Source) -> Source:
    """Pin a hub id to the commit that its revision names now; any other source is returned as it is.

    Raises:
        M3Error: the hub does not know the id or revision, refuses it (gated, 401), or cannot be reached.
    """
    adapter = str(resolve(parse_source(source.adapter))) if source.adapter else None
    if not is_hub(source) or _COMMIT.fullmatch(source.revision or ""):
        return replace(source, adapter=adapter)
    return replace(source, revision=_pinned(replace(source, adapter=None)), adapter=adapter)


def _pinned(source: Source) -> str:
    """Return a source's commit; within `without_fetching` a hub that did not answer is not asked again for it."""
    unknown = _unknown.get()
    if unknown and source in unknown:
        raise M3Error(unknown[source])
    try:
        return _commit(source)
    except M3Error as error:
        if unknown is not None:
            unknown[source] = str(error)
        raise


@functools.cache
def _commit(source: Source) -> str:
    """Ask the hub once in a process, so that a run keeps to one commit; where the hub cannot be asked, the cache is."""
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(source.location, revision=source.revision, timeout=30).sha
    except Exception as error:
        commit = _cached_commit(source)
        if commit is None:
            raise _hub_error(source, error) from error
    return str(commit)


def locate(source: Source) -> Path:
    """Return the directory or `.gguf` file of a source (its base, where it has an adapter), fetched if need be.

    Raises:
        M3Error: it does not exist, or the hub refuses it.
    """
    location = source.location
    if location.startswith("package:"):
        return _in_package(location)
    path = _path(location)
    if exists(path):
        return path.resolve()
    if is_hub(source):
        return _snapshot(resolve(replace(source, adapter=None)))
    raise _absent(location)


def at_hand(source: Source) -> Path | None:
    """Return where a source (its base) lies on this disk, of the hub in its cache; None if it does not.

    Nobody is asked.
    """
    if is_hub(source) and not _COMMIT.fullmatch(source.revision or ""):
        source = replace(source, adapter=None, revision=_cached_commit(source))
        if source.revision is None:
            return None
    try:
        with without_fetching():
            return locate(source)
    except M3Error:
        return None


def is_hub(source: Source) -> bool:
    """Tell whether a source is a hub id: it has that form and nothing of that name lies on disk."""
    return not _on_disk(source.location) and _HUB_ID.fullmatch(source.location) is not None


def check_at_hand(source: Source) -> None:
    """Refuse a source of which this disk lacks a path, or a file of a package; of the hub nothing is asked.

    Raises:
        M3Error: the path, and what may be given.
    """
    adapter = [parse_source(source.adapter)] if source.adapter else []
    for one in (replace(source, adapter=None), *adapter):
        if not is_hub(one):
            locate(one)


def absolute(source: Source) -> Source:
    """Return a source whose relative paths are absolute ones; a hub id and a file of a package stay."""

    def place(text: str) -> str:
        return str(_path(text).absolute()) if _on_disk(text) else text

    return replace(source, location=place(source.location), adapter=source.adapter and place(source.adapter))


def _path(text: str) -> Path:
    return Path(expanded(text, "the model"))


def _is_path(text: str) -> bool:
    return text.endswith(".gguf") or text.startswith((".", "/", "~"))


def _on_disk(text: str) -> bool:
    return bool(text) and exists(_path(text))


def _absent(text: str) -> M3Error:
    try:
        os.stat(_path(text))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return cannot_read(Path(text), error)
    return M3Error(f"{text} does not exist: give {_FORMS}")


def _single(text: str) -> Source:
    if _on_disk(text) or text.startswith("package:"):
        return Source(text)
    name, _, revision = text.partition("@")
    if _is_path(text):
        return Source(text)
    if not _HUB_ID.fullmatch(name) or text.endswith("@"):
        raise M3Error(f"{text!r} is not a model: give {_FORMS}")
    return Source(name, revision=revision or None)


def _in_package(location: str) -> Path:
    name, _, inside = location.removeprefix("package:").partition("/")
    if not name.isidentifier():
        raise M3Error(f"{location}: {name!r} is not the name of a Python package: give package:NAME/PATH")
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that no finder made
        spec = None
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise M3Error(f"{location}: the Python package {name} is not installed here: pip install {name}")
    path = Path(folders[0], inside)
    if not exists(path):
        raise M3Error(f"{location}: the package {name} at {folders[0]} holds no {inside}")
    return path.resolve()


# --------------------------------------------------------------------------------------------------------- the hub


def _cached_commit(source: Source) -> str | None:
    """Return the commit that the local hub cache holds for a revision, or None; without a revision, the only commit
    there.

    A model that was fetched by its commit, as runs do, has no branch in the cache.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.file_download import repo_folder_name

    try:
        return Path(snapshot_download(source.location, revision=source.revision, local_files_only=True)).name
    except Exception:
        folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=source.location, repo_type="model"))
        held = [path.name for path in folder.glob("snapshots/*")]
        return held[0] if source.revision is None and len(held) == 1 else None


def _snapshot(source: Source) -> Path:
    """Return the local copy of a hub model: fetched or completed where that is allowed, else as the cache has it."""
    from huggingface_hub import snapshot_download

    failure: Exception | None = None
    if _unknown.get() is None and os.environ.get("HF_HUB_OFFLINE") not in ("1", "true", "True", "YES"):
        try:
            return _fetched(source)
        except Exception as error:
            failure = error
    try:
        return Path(snapshot_download(source.location, revision=source.revision, local_files_only=True))
    except Exception as missing:
        if _unknown.get() is not None:
            raise M3Error(f"{source} is not in this machine's hub cache: m3 run and m3 merge fetch it") from missing
        raise _hub_error(source, failure or missing) from (failure or missing)


@functools.cache
def _fetched(source: Source) -> Path:
    """Fetch what is missing of a model, once in a process: safetensors where there are any, else `.bin`."""
    from huggingface_hub import HfApi, snapshot_download

    files = HfApi().list_repo_files(source.location, revision=source.revision)
    weights = "*.safetensors" if any(name.endswith(".safetensors") for name in files) else "*.bin"
    wanted = [weights, *_BESIDE_WEIGHTS]
    return Path(snapshot_download(source.location, revision=source.revision, allow_patterns=wanted))


@contextlib.contextmanager
def without_fetching() -> Iterator[None]:
    """Use this disk alone within the context, in this thread: a hub model not in the cache is refused, not fetched."""
    token = _unknown.set({})
    try:
        yield
    finally:
        _unknown.reset(token)


def _hub_error(source: Source, error: Exception) -> M3Error:
    """Say in one line why the hub did not give a model."""
    name = f"{source.location}@{source.revision}" if source.revision else source.location
    kind = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if kind == "GatedRepoError" or status in (401, 403):
        return M3Error(
            f"{name} is gated, private or absent on the hub (HTTP {status or 401}): accept its licence there and set "
            "HF_TOKEN, or give a directory that holds it"
        )
    if kind == "RevisionNotFoundError":
        return M3Error(f"{name}: the hub has no such revision: give a branch, a tag or a commit of {source.location}")
    if kind == "RepositoryNotFoundError" or status == 404:
        return M3Error(f"{name} is neither a path here nor a model on the hub: check its spelling, or give a directory")
    return M3Error(
        f"{name} is not on this disk and the hub cannot be reached ({kind}): give a directory that holds it, "
        "or run where the hub is reachable"
    )
