"""Which tokenizer, template and configuration go with a model: a directory that `transformers` loads by itself.

A GGUF file's tokenizer is converted once by `transformers` and kept in the store. An adapter's own tokenizer, if it has
one, is put beside the base's configuration.
"""

import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from blake3 import blake3
from pydantic import Field

from m3_exp.merging import tokenizer_probe
from m3_exp.merging.gguf_file import GgufFile
from m3_exp.merging.model_config import ModelConfig
from m3_exp.merging.source import is_hub, locate, parse_source, resolve
from m3_exp.reading.files import decoded, exists, parse_json, read_bytes, read_json
from m3_exp.reading.typed import Finite, Strict, checked
from m3_exp.store import Store, publish_directory
from m3_exp.types import Json, M3Error, Source, identity

CONFIGS = ("config.json", "generation_config.json")
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json", "tekken.json"),
    *("spiece.model", "sentencepiece.bpe.model"),
)
_VOCABULARIES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json", "spiece.model"),
    *("sentencepiece.bpe.model", "*.tiktoken"),
)
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx")
_LARGEST = 512 << 20  # bytes of a tokenizer's file
_Id = Annotated[int, Field(ge=0, lt=1 << 24)]  # the library keeps a table up to the largest


class _Added(Strict):
    id: _Id
    content: str


class _Core(Strict):
    vocab: dict[str, _Id] | list[Any] = Field(default_factory=list)


class _Fast(Strict):
    """The fields of tokenizer.json that could break the library which reads it."""

    model: _Core
    added_tokens: list[_Added] = Field(default_factory=list)


_Token = str | Json | None


class _Settings(Strict):
    """tokenizer_config.json, where its values would break the library only later."""

    model_max_length: int | Finite | None = None
    added_tokens_decoder: dict[Annotated[str, Field(pattern=r"^\d{1,8}$")], Json] | None = None
    chat_template: str | list[Any] | Json | None = None
    auto_map: Json | None = None
    bos_token: _Token = None
    eos_token: _Token = None
    unk_token: _Token = None
    pad_token: _Token = None


_KINDS: dict[str, type[Strict]] = {
    "tokenizer.json": _Fast,
    "tokenizer_config.json": _Settings,
    "vocab.json": _Core,
    "config.json": ModelConfig,
    "generation_config.json": Strict,
}


def tokenizer_directory(source: Source, store: Store) -> Path:
    """Return a directory with the config.json, generation_config.json and tokenizer of a model, local files only.

    Raises:
        M3Error: the model has no tokenizer, or it cannot be converted.
    """
    path = locate(source)
    folder = _converted(path, store) if path.is_file() else _checked(path)
    if source.adapter is None:
        return folder
    adapter = locate(parse_source(source.adapter))
    if not _vocabularies(adapter):
        return folder
    _checked(adapter)
    files = [*(folder / name for name in CONFIGS if exists(folder / name)), *tokenizer_files(adapter)]
    digest = blake3(b"tokenizer 1")
    for path in files:
        digest.update(path.name.encode() + b"\0" + blake3(path.read_bytes()).digest())

    def copy(out: Path) -> None:
        for path in files:
            (out / path.name).write_bytes(read_bytes(path, _LARGEST))

    return _kept(store, digest.hexdigest(), copy)


def is_converted(source: Source, store: Store) -> bool:
    """Tell whether a model's tokenizer is at hand as files: not in a GGUF file from which it was never converted here.

    Raises:
        M3Error: the model is not at hand.
    """
    path = locate(source)
    return not path.is_file() or store.tokenizer(_opened(path)[1]).is_dir()


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a tokenizer that a directory holds, whichever library reads them."""
    named = [folder / name for name in TOKENIZER if exists(folder / name)]
    return [*named, *sorted(folder.glob("*.tiktoken"))]


def tokenizer_digest(source: Source) -> str:
    """Return the identity of a model's tokenizer, by its files; of one on the hub `id@commit`. Nothing is converted.

    Raises:
        M3Error: the model is not at hand, or has no tokenizer.
    """
    if source.adapter is None and is_hub(source):
        return str(resolve(source))
    path = locate(source)
    adapter = locate(parse_source(source.adapter)) if source.adapter else None
    if adapter and _vocabularies(adapter):
        path = _checked(adapter)
    elif path.is_file():
        return _opened(path)[1]
    if not _vocabularies(path):
        raise M3Error(
            f"{source} holds no tokenizer, but its method measures it on text: put the tokenizer's files there"
        )
    files = tokenizer_files(_checked(path))
    return identity([(file.name, blake3(read_bytes(file, _LARGEST)).hexdigest()) for file in files])


def content(folder: Path) -> list[tuple[str, str]]:
    """Return name and digest of each file that a tokenizer may be made of: all of a directory but its weights."""
    files = sorted(path for part in (".", "additional_chat_templates") for path in (folder / part).glob("*"))
    read = [path for path in files if path.is_file() and path.suffix not in _WEIGHTS]
    return [(path.name, blake3(read_bytes(path, _LARGEST)).hexdigest()) for path in read]


def vocabulary(folder: Path) -> dict[str, int] | None:
    """Return the row of each token by a directory's files; None where no file that says so in JSON is there.

    Raises:
        M3Error: a file numbers its tokens as none can be.
    """
    named = [folder / name for name in ("tokenizer.json", "vocab.json", "added_tokens.json")]
    stamps = {path: (path.stat().st_size, path.stat().st_ctime_ns) for path in named if exists(path)}
    for path, stamp in stamps.items():
        _check_file(path, *stamp)
    return _vocabulary(folder, tuple(stamps.values()))


@functools.lru_cache(maxsize=16)
def _vocabulary(folder: Path, _stamps: tuple[tuple[int, int], ...]) -> dict[str, int] | None:
    rows: dict[str, int]
    if exists(path := folder / "tokenizer.json"):
        fast = checked(_Fast, read_json(path, dict, _LARGEST), path)
        core = fast.model.vocab
        pieces = [entry[0] if isinstance(entry, list) and entry else None for entry in core]
        rows = dict(core) if isinstance(core, dict) else {str(piece): row for row, piece in enumerate(pieces)}
        rows |= {token.content: token.id for token in fast.added_tokens}
    elif exists(path := folder / "vocab.json"):
        rows = dict(read_json(path, dict, _LARGEST))
    else:
        return None
    if exists(path := folder / "added_tokens.json"):
        rows |= {token: row for token, row in read_json(path, dict, _LARGEST).items() if isinstance(row, int)}
    return rows


def united(folders: Sequence[Path], rows: Sequence[int], store: Store) -> Path:
    """Return a directory with the first tokenizer and, added to it, the tokens that only others have.

    As mergekit adds them: first the tokens of vocabularies, by their row, then added tokens with their settings; of
    each tokenizer those below its model's number of `rows`.
    """
    digest = blake3(repr(["union 1", [*rows], *map(content, folders)]).encode()).hexdigest()

    def unite(out: Path) -> None:
        union, *others = [open_tokenizer(folder) for folder in folders]
        known = union.get_vocab()
        for other, count in zip(others, rows[1:], strict=True):
            added = {token.content for token in other.added_tokens_decoder.values()}
            new = sorted((row, token) for token, row in other.get_vocab().items() if row < count)
            union.add_tokens([token for _, token in new if token not in known and token not in added])
        for other, count in zip(others, rows[1:], strict=True):
            union.add_tokens([token for row, token in sorted(other.added_tokens_decoder.items()) if row < count])
        union.save_pretrained(out)
        for name in (name for name in CONFIGS if exists(folders[0] / name)):
            (out / name).write_bytes(read_bytes(folders[0] / name, _LARGEST))

    return _kept(store, digest, unite)


def tokenizer_config(path: Path) -> bytes:
    """Return a tokenizer's file for a merge: without `auto_map`, because the code it names is never copied."""
    data = read_bytes(path, _LARGEST)
    if path.name != "tokenizer_config.json" or b"auto_map" not in data:
        return data
    settings = parse_json(data, path)
    settings.pop("auto_map", None)
    return json.dumps(settings, indent=2, ensure_ascii=False).encode() + b"\n"


def _vocabularies(folder: Path) -> list[Path]:
    return [path for name in _VOCABULARIES for path in sorted(folder.glob(name))]


def _checked(folder: Path) -> Path:
    if not _vocabularies(folder):
        raise M3Error(
            f"{folder} holds no tokenizer (one of {', '.join(_VOCABULARIES)}): tokenizer=base or the number of another "
            "expert takes that model's, and m3 merge tokenizer=none does without"
        )
    for path in (*tokenizer_files(folder), *(folder / name for name in CONFIGS if exists(folder / name))):
        _check_file(path, path.stat().st_size, path.stat().st_ctime_ns)
    return folder


@functools.lru_cache(maxsize=256)
def _check_file(path: Path, _size: int, _time: int) -> None:
    """Refuse a file that may not be read, is no JSON by its name, or numbers its tokens as none can be."""
    if path.suffix != ".json":
        data = read_bytes(path, _LARGEST)
        if path.suffix in (".jinja", ".txt"):
            decoded(data, path)
        return
    value = read_json(path, object, _LARGEST)
    if path.name in _KINDS:
        checked(_KINDS[path.name], {"vocab": value} if path.name == "vocab.json" else value, path)


def _converted(path: Path, store: Store) -> Path:
    """Convert a GGUF file's tokenizer, once for each content of its header."""
    file, key = _opened(path)

    def convert(out: Path) -> None:
        from transformers import AutoTokenizer

        with refusing(path):
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            tokenizer.save_pretrained(out)
        ends = {f"{name}_token_id": file.config[f"{name}_token_id"] for name in ("bos", "eos", "pad")}
        write_json(out / "config.json", file.config)
        write_json(out / "generation_config.json", ends)

    return _kept(store, key, convert)


def _opened(path: Path) -> tuple[GgufFile, str]:
    stat = path.stat()
    return _gguf(path, stat.st_size, stat.st_ctime_ns)


@functools.lru_cache(maxsize=16)
def _gguf(path: Path, _size: int, _time: int) -> tuple[GgufFile, str]:
    """Open a GGUF file and return it with the key of its tokenizer: the digest of its header."""
    file = GgufFile(path)
    with open(path, "rb") as stream:
        return file, blake3(b"tokenizer 1" + stream.read(file.header_bytes)).hexdigest()


def _kept(store: Store, key: str, make: Callable[[Path], None]) -> Path:
    """Return a directory of the store, made by `make` if it is not there yet."""
    final = store.tokenizer(key)
    if not final.is_dir():
        try:
            with publish_directory(final) as out:
                make(out)
        except (M3Error, OSError):
            if not final.is_dir():  # else another process was faster
                raise
    return final


def write_json(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def open_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a directory (see `tokenizer_directory`), as transformers loads it; its code is never run.

    Raises:
        M3Error: the library that reads it refuses it, or panics, or needs more time or memory than any tokenizer.
    """
    from transformers import AutoTokenizer

    fast = folder / "tokenizer.json"
    if exists(fast):
        _probe(fast, fast.stat().st_size, fast.stat().st_ctime_ns)
    with refusing(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer("")  # what loads may still break on its first text
    return tokenizer


@functools.lru_cache(maxsize=256)
def _probe(path: Path, _size: int, _time: int) -> None:
    """Load a tokenizer.json in a process of its own first."""
    done = subprocess.run(
        [sys.executable, "-m", "m3_exp.merging.tokenizer_probe", str(path)],
        capture_output=True,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "0", "RAYON_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode == 1 and done.stdout:
        raise _broken(path, done.stdout.decode(errors="replace").strip())
    if done.returncode:
        most = f"{tokenizer_probe.SECONDS} s or {tokenizer_probe.MEMORY >> 30} GiB"
        raise _broken(path, f"it needs more than {most}, or ends its library, exit code {done.returncode}")


@contextlib.contextmanager
def refusing(path: Path | Source) -> Iterator[None]:
    """Turn whatever libraries raise over a broken tokenizer into one line; a panic of Rust's is no Exception."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, MemoryError) or not (isinstance(error, Exception) or "Panic" in type(error).__name__):
            raise
        raise _broken(path, " ".join(f"{type(error).__name__}: {error}".split())) from error


def _broken(path: Path | Source, reason: str) -> M3Error:
    return M3Error(
        f"{path}: its tokenizer cannot be loaded ({reason[:300]}): fetch its files again, or take another model's "
        "(tokenizer=base or the number of an expert)"
    )
