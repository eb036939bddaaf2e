"""Files broken by accident or on purpose: read, or refused in one line that names the file; never anything else.

Seeded mutations (`mutations.py`) of tiny models of every kind, in this process, each with a time limit; then what was
found by hand.
"""

import json
import os
import random
import re
import shutil
import signal
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from m3_exp.merging import checkpoint
from m3_exp.merging.model_config import architecture, read_config
from m3_exp.merging.source import locate, parse_source
from m3_exp.merging.stream import stream
from m3_exp.merging.tokenizer import open_tokenizer, refusing, tokenizer_directory
from m3_exp.reading.shown import abridged
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source
from tests.files import edit_json
from tests.models import AVERAGE, Shape, fine_tuned, random_weights, write_adapter, write_gguf, write_model
from tests.mutations import mutate

SHAPE = Shape(vocab=260, hidden=8, inner=8, heads=2, kv_heads=1, layers=1)
SECONDS = 60.0  # of one broken file, on a machine that does other things as well
KINDS = ("safetensors", "sharded", "bin", "sharded_bin", "gguf", "adapter", "tokenizer")


class Late(BaseException):
    """A reader that does not end."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Bench:
    """A base, and a whole model of every kind; `broken(kind, seed)` breaks a copy of one and uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(folder / "store")
        base = random_weights(SHAPE, 0)
        self.base = Source(str(write_model(folder / "base", base, SHAPE)))
        expert, whole = fine_tuned(base, 1), folder / "whole"
        write_model(whole / "safetensors", expert, SHAPE, tokenizer=False)
        write_model(whole / "sharded", expert, SHAPE, shards=3, tokenizer=False)
        write_model(whole / "bin", expert, SHAPE, layout="bin", tokenizer=False)
        write_model(whole / "sharded_bin", expert, SHAPE, layout="bin", shards=2, tokenizer=False)
        write_adapter(whole / "adapter", SHAPE, 3)
        (write_model(whole / "tokenizer", base, SHAPE) / "model.safetensors").unlink()
        (whole / "gguf").mkdir()
        write_gguf(whole / "gguf" / "x.gguf", expert, SHAPE, "F16")
        self.merged = {kind: self.used(kind, whole / kind) for kind in KINDS}

    def copy(self, kind: str) -> Path:
        """Return a fresh copy of a whole model, under one path for all."""
        folder = self.folder / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self.folder / "whole" / kind, folder))

    def used(self, kind: str, folder: Path) -> Any:
        """Return what comes of a model: the bytes of its merge with the base, or the ids of a text."""
        checkpoint._OPEN.clear()
        if kind == "tokenizer":
            tokenizer = open_tokenizer(tokenizer_directory(Source(str(folder)), self.store))
            with refusing(folder):
                return tokenizer("Two words.")["input_ids"]
        source = Source(str(folder / "x.gguf" if kind == "gguf" else folder))
        if kind == "adapter":
            source = Source(self.base.location, adapter=str(folder))
        recipe = Recipe(self.base, (source, self.base), AVERAGE, dtype="float32")
        return {name: value.numpy().tobytes() for name, value in stream(recipe, self.store, threads=1)}

    def broken(self, kind: str, seed: int) -> tuple[str, str]:
        """Return what was done to the files, and how it ended: "read", "refused: ...", or what must not be."""
        chance, folder = random.Random(f"{kind} {seed}"), self.copy(kind)
        files = sorted(path for path in folder.iterdir() if path.is_file())
        chosen = [chance.choice(files) for _ in range(chance.choice([1, 1, 1, 2]))]
        done = "; ".join(mutate(path, chance) for path in chosen if path.is_file())
        try:
            with time_limit(SECONDS):
                found = self.used(kind, folder)
        except M3Error as error:
            said = abridged(str(error))
            fine = str(folder) in said and len(said) < 1000
            return done, f"refused: {said}" if fine else f"NOT CLEAR: {said[:2000]}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            return done, f"{type(error).__name__}: {str(error)[:200]}"
        if all(path.suffix == ".json" for path in chosen) and kind not in ("tokenizer", "adapter"):
            return done, "read" if found == self.merged[kind] else "OTHER WEIGHTS"
        return done, "read"

    def failures(self, kind: str, seeds: range) -> list[str]:
        said = []
        for seed in seeds:
            done, ended = self.broken(kind, seed)
            if ended != "read" and not ended.startswith("refused: "):
                said.append(f"{kind} {seed}: {done} -> {ended}")
        return said


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("broken"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutations_are_read_or_refused(bench: Bench, kind: str) -> None:
    assert bench.failures(kind, range(150)) == []


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_mutations_are_read_or_refused(bench: Bench, kind: str) -> None:
    assert bench.failures(kind, range(1000, 2500)) == []


# ------------------------------------------------------------------------------------------------- found by hand


def refused(bench: Bench, kind: str, change: Callable[[Path], object], *words: str) -> None:
    folder = bench.copy(kind)
    change(folder)
    with time_limit(SECONDS), pytest.raises(M3Error) as caught:
        bench.used(kind, folder)
    told = str(caught.value)
    assert "\n" not in told
    assert str(folder) in told
    assert all(word in told for word in words), told


CONFIGS: list[tuple[str, list[str]]] = [
    ("3", ["holds the number 3", "an object is needed"]),
    ("[" * 100_000, ["nested too deep"]),
    ('{"a": ' * 70 + "1" + "}" * 70, ["nested deeper than 64"]),
    ('{"rope_scaling": true}', ["rope_scaling", "True"]),
    ('{"rope_theta": "x"}', ["rope_theta must be a number", "'x'"]),
    ('{"rope_theta": []}', ["rope_theta must be a number", "[]"]),
    ('{"rope_parameters": {"full_attention": {"rope_theta": []}}}', ["rope_parameters", "rope_theta"]),
    ('{"hidden_size": "32"}', ["hidden_size must be a whole number"]),
    ('{"num_attention_heads": 0}', ["num_attention_heads"]),
    ('{"architectures": "LlamaForCausalLM"}', ["architectures must be an array"]),
    ('{"tie_word_embeddings": "false"}', ["tie_word_embeddings must be true or false"]),
    ('{"num_hidden_layers": 1000000000}', ["num_hidden_layers"]),
    ('{"text_config": {"hidden_size": -1}}', ["text_config.hidden_size"]),
    ("", ["not valid JSON"]),
    ("\xff", ["not valid JSON"]),
]


@pytest.mark.parametrize(("text", "words"), CONFIGS)
def test_config(bench: Bench, text: str, words: list[str]) -> None:
    refused(bench, "safetensors", lambda f: (f / "config.json").write_text(text), "config.json", *words)


@pytest.mark.parametrize(
    "kind", ["llama", "qwen3_next", "gemma3", "gemma3n", "llama4", "deepseek_v3", "glm4_moe", "lxmert"]
)
def test_configs_that_transformers_writes_are_read(tmp_path: Path, kind: str) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    text = CONFIG_MAPPING[kind]().to_json_string(use_diff=False)
    (tmp_path / "config.json").write_text(text)
    assert read_config(tmp_path) == json.loads(text)
    assert architecture(read_config(tmp_path))["rope"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", ["an object is needed"]),
        ("{}", ["weight_map is missing"]),
        ('{"weight_map": {}}', ["weight_map is empty"]),
        ('{"weight_map": {"a": 3}}', ["must be a text"]),
        ('{"weight_map": ' + "[" * 100_000, ["nested too deep"]),
        ('{"weight_map": {"a": "' + "x" * 300 + '"}}', ["lacks the shard"]),
    ],
)
def test_index(bench: Bench, text: str, words: list[str]) -> None:
    name = "model.safetensors.index.json"
    refused(bench, "sharded", lambda f: (f / name).write_text(text), *words)


BAD_CHARSMAP = {"type": "Precompiled", "precompiled_charsmap": ""}
BOMB = {
    "type": "Sequence",
    "normalizers": [{"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 1000}] * 3,
}
ENDLESS = {
    "type": "Split",
    "pattern": {"Regex": "(a|aa|a*)*(((a|b|[a-zA-Z, ])+)+)+!"},
    "behavior": "Isolated",
    "invert": False,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("tokenizer.json", lambda v: v["model"]["vocab"].update(a=-1), ["vocab"]),
        ("tokenizer.json", lambda v: v["model"]["vocab"].update(a=1 << 40), ["vocab"]),
        ("tokenizer.json", lambda v: v["added_tokens"].append({"id": -3, "content": "x"}), ["added_tokens", "id"]),
        ("tokenizer.json", lambda v: v.pop("model"), ["model is missing"]),
        ("tokenizer.json", lambda v: v.update(normalizer=BAD_CHARSMAP), ["PanicException", "precompiled_charsmap"]),
        ("tokenizer.json", lambda v: v.update(normalizer=BOMB), ["needs more than"]),
        ("tokenizer.json", lambda v: v.update(pre_tokenizer=ENDLESS), ["PanicException", "retry-limit"]),
        ("tokenizer_config.json", lambda v: v.update(model_max_length="0"), ["model_max_length"]),
        (
            "tokenizer_config.json",
            lambda v: v.update(added_tokens_decoder={"q": {"content": "x"}}),
            ["added_tokens_decoder.q"],
        ),
    ],
)
def test_tokenizer(bench: Bench, name: str, change: Callable[[dict[str, Any]], object], words: list[str]) -> None:
    refused(bench, "tokenizer", lambda folder: edit_json(folder, change, name), name, *words)


@pytest.mark.parametrize("kind", ["pickle", "empty", "bomb", "length", "strided", "sparse", "nested", "old"])
def test_bin(bench: Bench, kind: str) -> None:
    def rewrite(folder: Path) -> None:
        path = folder / "pytorch_model.bin"
        weights = dict(torch.load(path, weights_only=True))
        if kind == "pickle":
            path.write_bytes(b"\x80\x02}q\x00.\n")
        elif kind == "empty":
            path.write_bytes(b"")
        elif kind == "bomb":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("archive/data.pkl", b"\0" * (64 << 20))
        elif kind == "length":
            _longer_storage(path)
        elif kind == "old":
            torch.save(weights, path, _use_new_zipfile_serialization=False)
        elif kind == "nested":
            torch.save({"state_dict": weights}, path)
        else:
            odd = torch.ones(4, 4).t()[:, 1:] if kind == "strided" else torch.ones(4, 4).to_sparse()
            torch.save({**weights, "odd.weight": odd}, path)

    refused(bench, "bin", rewrite, "pytorch_model.bin")


def _longer_storage(path: Path) -> None:
    """Make the pickle say that a storage of 64 elements (the smallest that is not a byte) is longer than its record."""
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    size = SHAPE.vocab * SHAPE.hidden
    data = parts[name].replace(b"M" + struct.pack("<H", size), b"M" + struct.pack("<H", size + 64), 1)
    assert data != parts[name]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file, content in parts.items():
            archive.writestr(file, data if file == name else content)


def _gguf_without(key: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(key, key[:-1] + b"_")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: b"", ["is empty"]),
        (lambda _: b"GGUF", ["cut short"]),
        (lambda data: data[:200], ["cut short"]),
        (lambda data: data[:-5000], ["beyond the file"]),
        (_gguf_without(b"llama.attention.layer_norm_rms_epsilon"), ["layer_norm_rms_epsilon is missing"]),
        (lambda data: data[:8] + struct.pack("<Q", 1 << 60) + data[16:], ["tensors"]),
        (lambda data: data[:16] + struct.pack("<Q", 1 << 60) + data[24:], ["metadata fields"]),
        (
            lambda data: b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 8, 1 << 60),
            ["items in"],
        ),
        (lambda data: b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<I", 77), ["unknown type 77"]),
        (
            lambda data: b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 17) + b"general.alignment" + struct.pack("<II", 4, 0),
            ["general.alignment is 0"],
        ),
    ],
)
def test_gguf(bench: Bench, change: Callable[[bytes], bytes], words: list[str]) -> None:
    def rewrite(folder: Path) -> None:
        path = folder / "x.gguf"
        path.write_bytes(change(path.read_bytes()))

    refused(bench, "gguf", rewrite, *words)


def _gguf(tensors: "list[tuple[str, tuple[int, ...], int, int]]", *, size: int = 4096) -> bytes:
    """Return a GGUF file of the llama architecture: (name, dimensions, kind, offset) of its tensors, and zeros."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    numbers = {"block_count": 1, "context_length": 64, "feed_forward_length": 8, "attention.head_count": 2}
    fields = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    fields += [text(f"llama.{key}") + struct.pack("<II", 4, value) for key, value in numbers.items()]
    fields += [text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)]
    data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(fields)
    for name, dimensions, kind, offset in tensors:
        shape = struct.pack("<I", len(dimensions)) + b"".join(struct.pack("<Q", one) for one in dimensions)
        data += text(name) + shape + struct.pack("<IQ", kind, offset)
    return data + bytes(-len(data) % 32) + bytes(size)


EMBEDDING = ("token_embd.weight", (8, 16), 0, 0)  # 512 bytes


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([("token_embd.weight", (8, 0), 0, 0)], ["shape", "none of them 0"]),
        ([("token_embd.weight", (2, 2, 2, 2, 2), 0, 0)], ["shape", "one or two dimensions"]),
        ([("token_embd.weight", (), 0, 0)], ["shape", "one or two dimensions"]),
        ([("token_embd.weight", (1,) * 9, 0, 0)], ["9 dimensions"]),
        ([("token_embd.weight", (1 << 62, 1 << 62), 0, 0)], ["beyond the file"]),
        ([("token_embd.weight", (8, 16), 99, 0)], ["type 99"]),
        ([("token_embd.weight", (8, 16), 2, 0)], ["rows of 8", "32 at a time"]),
        ([("token_embd.weight", (8, 16), 0, 1 << 60)], ["beyond the file"]),
        ([EMBEDDING, ("output_norm.weight", (8,), 0, 0)], ["output_norm.weight begins at"]),
        ([EMBEDDING, ("output_norm.weight", (8,), 0, 1024)], ["output_norm.weight begins at"]),
        ([EMBEDDING, ("blk.0.attn_q.weight", (8, 6), 0, 512)], ["attn_q", "heads"]),
        ([EMBEDDING, EMBEDDING], ["two of its tensors have one name"]),
        ([("output_norm.weight", (8,), 0, 0)], ["holds no token_embd.weight"]),
        ([EMBEDDING, ("blk.0.ffn_gate_exps.weight", (8,), 0, 512)], ["ffn_gate_exps"]),
    ],
)
def test_gguf_tensors(bench: Bench, tensors: "list[tuple[str, tuple[int, ...], int, int]]", words: list[str]) -> None:
    refused(bench, "gguf", lambda folder: (folder / "x.gguf").write_bytes(_gguf(tensors)), "x.gguf", *words)


# --------------------------------------------------------------------------------------------------- rights and names


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another user's place")
@pytest.mark.parametrize("kind", KINDS)
def test_no_permission_is_called_that(bench: Bench, kind: str) -> None:
    """Every file that another user wrote for himself alone is named, and nothing is called damaged or absent."""
    names = {path.name for path in bench.copy(kind).iterdir()} - {"generation_config.json", "chat_template.jinja"}
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        folder = Path(shutil.copytree(bench.folder / "whole" / kind, Path(place) / "other"))
        base = shutil.copytree(bench.base.location, Path(place) / "base")
        os.chmod(place, 0o755)
        theirs = Bench.__new__(Bench)
        theirs.base, theirs.store = Source(str(base)), Store(Path(place) / "store")
        (Path(place) / "store").mkdir(exist_ok=True)
        for path in Path(place).rglob("*"):
            path.chmod(0o777 if path.is_dir() else 0o644)
        for name in sorted(names):
            (folder / name).chmod(0o600)
            os.seteuid(65534)
            try:
                with pytest.raises(M3Error, match=f"{re.escape(str(folder / name))}: permission denied"):
                    theirs.used(kind, folder)
            finally:
                os.seteuid(0)
                (folder / name).chmod(0o644)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/tmp/\udcff", "not UTF-8"),
        ("/tmp/a\0b", "NUL"),
        ("/tmp/" + "x" * 300, "too long"),
        ("/" + "x/" * 3000, "too long"),
        ("~nosuchuser/model", "home of ~nosuchuser"),
        ("./absent", "does not exist"),
        ("package:a b/x", "not the name of a Python package"),
        ("package:__main__/x", "not installed"),
        ("package:m3_exp/" + "x" * 300, "holds no"),
        ("package:m3_exp/a\0b", "NUL"),
    ],
)
def test_names_that_no_file_has(text: str, words: str) -> None:
    with pytest.raises(M3Error, match=words):
        locate(parse_source(text))
    with pytest.raises(M3Error, match=words):
        parse_source(f"{Path(__file__).parent}+{text}") and locate(parse_source(text))
