"""Which tokenizer, template and configuration go with a model: a directory that `transformers` loads by itself.

For a GGUF file it is converted once by `transformers` and kept in the store; an adapter's own tokenizer, if it has one,
is put beside the base's configuration.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from m3_exp.merging.gguf_file import GgufFile
from m3_exp.merging.source import locate, parse_source
from m3_exp.store import Store, publish_directory
from m3_exp.types import Json, M3Error, Source

CONFIGS = ("config.json", "generation_config.json")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


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
    if not any((adapter / name).is_file() for name in _VOCABULARIES):
        return folder
    files = [folder / name for name in CONFIGS] + [adapter / name for name in TOKENIZER]
    return _kept(store, _digest(files), lambda out: _copy(files, out))


def read_config(folder: Path) -> Json:
    try:
        config: Json = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise M3Error(f"{folder} holds no readable config.json: give a Hugging Face model directory") from error
    return config


def _checked(folder: Path) -> Path:
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        raise M3Error(f"{folder} holds no tokenizer: one of {', '.join(_VOCABULARIES)} is needed")
    return folder


def _converted(path: Path, store: Store) -> Path:
    """Convert a GGUF file's tokenizer, once for each content of its header."""
    file = GgufFile(path)
    with open(path, "rb") as stream:
        key = blake3(b"tokenizer 1" + stream.read(file.header_bytes)).hexdigest()

    def convert(out: Path) -> None:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        except Exception as error:  # tokenizers raises bare ones
            raise M3Error(f"{path}: transformers cannot convert its tokenizer ({error}): give tokenizer=...") from error
        tokenizer.save_pretrained(out)
        ends = {f"{name}_token_id": file.config[f"{name}_token_id"] for name in ("bos", "eos", "pad")}
        write_json(out / "config.json", file.config)
        write_json(out / "generation_config.json", ends)

    return _kept(store, key, convert)


def _kept(store: Store, key: str, make: Callable[[Path], None]) -> Path:
    """Return a directory of the store, made by `make` if it is not there yet."""
    final = store.root / "tokenizers" / key
    if not final.is_dir():
        try:
            with publish_directory(final) as out:
                make(out)
        except (M3Error, OSError):
            if not final.is_dir():  # else another process was faster
                raise
    return final


def _copy(files: list[Path], out: Path) -> None:
    for path in files:
        if path.is_file():
            shutil.copyfile(path, out / path.name)


def _digest(files: list[Path]) -> str:
    digest = blake3(b"tokenizer 1")
    for path in files:
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + blake3(path.read_bytes()).digest())
    return digest.hexdigest()


def write_json(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
