"""Checkpoints of many architectures as people have them: heads, prefixes, buffers, copies, scalars, lost indices.

What a merge must be comes from transformers: it loads each input, and the merge of what it loaded is compared with what
it loads from ours.
"""

import json
import operator
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.stream import stream, write
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source
from tests.files import edit_json
from tests.models import Shape, Weights, fine_tuned, random_weights, write_model, write_tokenizer

pytestmark = pytest.mark.slow  # each loads a model by transformers; test_layouts.py is quick

METHODS = "m3_exp.merging.methods."
AVERAGE, TASK, TIES = (f"{METHODS}{name}:{name}" for name in ("average", "task_arithmetic", "ties"))
NAMES = ("base", "a", "b")
ROWS = 264
HEAD = "lm_head.weight"
SMALL = {"vocab_size": ROWS, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GPT2 = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64}
KINDS: dict[str, dict[str, Any]] = {
    "gemma": {**SIZES, "num_key_value_heads": 2, "head_dim": 8},
    "gemma2": {**SIZES, "num_key_value_heads": 2, "head_dim": 8},
    "cohere": {**SIZES, "num_key_value_heads": 2},
    "gpt2": GPT2,
    "bloom": {"hidden_size": 32, "n_head": 4, "n_layer": 2},
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 32,
        "max_position_embeddings": 64,
    },
    "gpt_neox": SIZES,
    "gptj": {**GPT2, "rotary_dim": 4},
    "falcon": SIZES,
    "llama": SIZES,
    "qwen2": SIZES,
    "mamba": {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 1},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4},
    "bert": SIZES,
    "clip": {
        "text_config": {**SMALL, **SIZES, "num_hidden_layers": 1, "max_position_embeddings": 16},
        "vision_config": {**SIZES, "num_hidden_layers": 1, "image_size": 32, "patch_size": 16},
        "projection_dim": 16,
    },
}
CLASSES = {"t5": "T5ForConditionalGeneration", "bert": "BertForMaskedLM", "clip": "CLIPModel"}


def config_of(kind: str, **changes: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **{**SMALL, **KINDS[kind], **changes})


def class_of(kind: str) -> Any:
    import transformers

    return getattr(transformers, CLASSES.get(kind, "AutoModelForCausalLM"))


def three(root: Path, config: Any) -> Any:
    """Write a base and two fine-tunes of a kind as transformers saves them, in float32, with a tokenizer each.

    Returns the last one.
    """
    torch.manual_seed(0)
    made = class_of(config.model_type)
    model = made(config) if config.model_type in CLASSES else made.from_config(config)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn(value.shape))
        for name in NAMES:
            if name != "base":
                for value in model.parameters():
                    value.add_(0.02 * torch.randn(value.shape))
            model.save_pretrained(root / name)
            write_tokenizer(root / name, ROWS)
    return model


def stored(folder: Path) -> Weights:
    return dict(load_file(folder / "model.safetensors"))


def store_as(folder: Path, weights: Weights) -> None:
    save_file({k: v.clone() for k, v in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def silent(folder: Path) -> None:
    edit_json(folder, lambda config: config.pop("tie_word_embeddings", None))


def loaded(folder: Path) -> Weights:
    """Return the state of the model that transformers makes of a folder; it must not have to make or leave out any."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    model, info = class_of(kind).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    return {name: value.detach() for name, value in model.state_dict().items()}


def merge(root: Path, out: str = "out", method: str = AVERAGE, **params: Any) -> Path:
    base, a, b = (Source(str(root / name)) for name in NAMES)
    weights = None if method == TIES else (0.25, 0.75)
    recipe = Recipe(base, (a, b), method, params, weights, dtype="float32")
    write([recipe], [root / out], Store(root / "store"), tokenizer=a)
    return root / out


def assert_average(root: Path) -> Weights:
    """Assert that the written average is that of the models which transformers loads."""
    found, a, b = loaded(merge(root)), loaded(root / "a"), loaded(root / "b")
    assert sorted(found) == sorted(a)
    for name, value in found.items():
        if value.is_floating_point():
            assert torch.allclose(value, 0.25 * a[name] + 0.75 * b[name], rtol=0, atol=1e-6), name
    return found


def refused(root: Path, *words: str, **more: Any) -> str:
    before = sorted(path for path in root.iterdir() if path.name != "store")
    with pytest.raises(M3Error) as caught:
        merge(root, **more)
    told = str(caught.value)
    assert "\n" not in told
    assert all(word in told for word in words), told
    assert sorted(path for path in root.iterdir() if path.name != "store") == before
    return told


# ------------------------------------------------------------------------------------------------------------ heads


def embedding_of(weights: Weights) -> str:
    ends = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
    return next(name for name in weights if name.endswith(ends))


def with_head(folder: Path) -> None:
    weights = stored(folder)
    store_as(folder, {**weights, HEAD: weights[embedding_of(weights)]})


@pytest.mark.parametrize("heads", [(), ("a",), ("b",), ("base",), ("a", "b"), NAMES], ids="-".join)
def test_a_silent_config_ties_by_its_architecture(tmp_path: Path, heads: tuple[str, ...]) -> None:
    three(tmp_path, config_of("gemma"))
    for name in NAMES:
        silent(tmp_path / name)
    for name in heads:
        with_head(tmp_path / name)
    assert_average(tmp_path)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is True


@pytest.mark.parametrize("kind", ["gemma2", "cohere", "gpt2", "bloom", "opt", "falcon"])
def test_other_architectures_that_tie_by_default(tmp_path: Path, kind: str) -> None:
    three(tmp_path, config_of(kind))
    for name in NAMES:
        silent(tmp_path / name)
    with_head(tmp_path / "b")
    assert_average(tmp_path)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gptj", "qwen2"])
def test_architectures_that_do_not(tmp_path: Path, kind: str) -> None:
    three(tmp_path, config_of(kind))
    for name in NAMES:
        silent(tmp_path / name)
    assert_average(tmp_path)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize("said", [{"a": True, "b": True}, {"a": True, "b": False}, {"a": False, "b": True}], ids=str)
@pytest.mark.parametrize("heads", [("b",), ("a", "b")], ids="-".join)
def test_stored_heads_that_are_the_embedding(tmp_path: Path, said: dict[str, bool], heads: tuple[str, ...]) -> None:
    three(tmp_path, config_of("llama", tie_word_embeddings=True))
    for name in heads:
        with_head(tmp_path / name)
    for name, tied in said.items():
        if tied or name in heads:  # untied without a head is no model
            edit_json(tmp_path / name, operator.methodcaller("update", tie_word_embeddings=tied))
    assert_average(tmp_path)


def test_a_head_that_differs_where_config_ties(tmp_path: Path) -> None:
    """transformers 5 keeps such a head, vLLM and older ones drop it: there is no right one."""
    three(tmp_path, config_of("gemma"))
    weights = stored(tmp_path / "b")
    store_as(tmp_path / "b", {**weights, HEAD: 2 * weights[embedding_of(weights)]})
    silent(tmp_path / "b")
    refused(tmp_path, "ties the head", HEAD, "tie_word_embeddings")


@pytest.mark.parametrize("kind", ["t5", "bert", "mamba", "gpt2"])
def test_copies_of_tied_parameters(tmp_path: Path, kind: str) -> None:
    """Old checkpoints store each of the parameters that the model ties, newer ones store one of them."""
    model = three(tmp_path, config_of(kind))
    weights = stored(tmp_path / "b")
    for copy, source in model.all_tied_weights_keys.items():
        weights[copy] = weights[source] if source in weights else weights[copy]
        weights[source] = weights[copy]
    assert set(weights) > set(stored(tmp_path / "b"))
    store_as(tmp_path / "b", weights)
    assert_average(tmp_path)


@pytest.mark.parametrize("kind", ["t5", "mamba", "gpt2", "qwen2"])
def test_heads_that_differ_from_any_embedding(tmp_path: Path, kind: str) -> None:
    three(tmp_path, config_of(kind, tie_word_embeddings=True))
    weights = stored(tmp_path / "b")
    store_as(tmp_path / "b", {**weights, HEAD: torch.ones(ROWS, 32)})
    refused(tmp_path, "b: its config ties the head", HEAD)


def test_a_model_of_texts_and_images(tmp_path: Path) -> None:
    """CLIP's logit_scale has no dimensions, and its position ids were saved once."""
    three(tmp_path, config_of("clip"))
    ids = {f"{part}_model.embeddings.position_ids": torch.arange(5)[None] for part in ("text", "vision")}
    store_as(tmp_path / "b", {**stored(tmp_path / "b"), **ids})
    assert_average(tmp_path)
    assert stored(tmp_path / "out")["logit_scale"].shape == ()


def test_a_head_that_one_model_lost(tmp_path: Path) -> None:
    three(tmp_path, config_of("llama"))
    store_as(tmp_path / "b", {name: value for name, value in stored(tmp_path / "b").items() if name != HEAD})
    refused(tmp_path, "b lacks lm_head.weight")


# ------------------------------------------------------------------------------------- names that a loader treats alike


def gpt2_as_on_the_hub(weights: Weights) -> Weights:
    bare = {name.removeprefix("transformer."): value for name, value in weights.items()}
    return {**bare, **{f"h.{i}.attn.bias": torch.tril(torch.ones(64, 64)).view(1, 1, 64, 64) for i in range(2)}}


def gpt2_of_the_middle_years(weights: Weights) -> Weights:
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.bool) for i in range(2)}
    return {**weights, **masks, **{f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}}


def as_it_is(weights: Weights) -> Weights:
    return weights


@pytest.mark.parametrize("base", [gpt2_as_on_the_hub, gpt2_of_the_middle_years, as_it_is])
@pytest.mark.parametrize("a", [gpt2_as_on_the_hub, gpt2_of_the_middle_years, as_it_is])
def test_gpt2_with_and_without_prefix_and_masks(
    tmp_path: Path, base: Callable[[Weights], Weights], a: Callable[[Weights], Weights]
) -> None:
    three(tmp_path, config_of("gpt2"))
    store_as(tmp_path / "base", base(stored(tmp_path / "base")))
    store_as(tmp_path / "a", a(stored(tmp_path / "a")))
    assert_average(tmp_path)
    base_, a_, b_ = (loaded(tmp_path / name) for name in NAMES)
    for name, value in loaded(merge(tmp_path, "sum", TASK, scaling=0.5)).items():
        expected = base_[name] + 0.5 * (0.25 * (a_[name] - base_[name]) + 0.75 * (b_[name] - base_[name]))
        assert torch.allclose(value, expected, rtol=0, atol=1e-6), name


@pytest.mark.parametrize(
    ("kind", "prefix", "buffers"),
    [
        ("llama", "model.", {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
        ("gpt_neox", "gpt_neox.", {"layers.1.attention.masked_bias": torch.tensor(-1e9),
                                   "layers.1.attention.bias": torch.ones(1, 1, 64, 64, dtype=torch.bool),
                                   "layers.0.attention.rotary_emb.inv_freq": torch.ones(1)}),
        ("gptj", "transformer.", {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.ones(())}),
        ("bloom", "transformer.", {}),
        ("opt", "model.", {}),
        ("falcon", "transformer.", {}),
        ("qwen2", "model.", {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bare", [True, False])
def test_prefix_and_buffers_by_architecture(
    tmp_path: Path, kind: str, prefix: str, buffers: Weights, bare: bool
) -> None:
    three(tmp_path, config_of(kind))
    weights = {**stored(tmp_path / "b"), **{prefix + name: value for name, value in buffers.items()}}
    if bare:
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    store_as(tmp_path / "b", weights)
    merged = assert_average(tmp_path)
    assert {name for name in stored(tmp_path / "out") if "bias" in name} <= set(merged)


def test_both_names_of_one_tensor(tmp_path: Path) -> None:
    three(tmp_path, config_of("gpt2"))
    weights = stored(tmp_path / "b")
    store_as(tmp_path / "b", {**weights, "wte.weight": weights["transformer.wte.weight"] + 1})
    refused(tmp_path, "b", "wte.weight")


# ----------------------------------------------------------------------------------------------- scalars and empty ones


SCALE = "model.layers.0.self_attn.k_scale"


def llamas(root: Path, change: Callable[[int, Weights], Weights], **more: Any) -> None:
    base = random_weights(Shape(), 0, torch.float32)
    for i, (name, weights) in enumerate(zip(NAMES, (base, fine_tuned(base, 1), fine_tuned(base, 2)), strict=True)):
        write_model(root / name, change(i, weights), **more)


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_tensors_without_dimensions_merge(tmp_path: Path, layout: str) -> None:
    llamas(tmp_path, lambda i, w: {**w, SCALE: torch.tensor((1.0, 1.5, 3.0)[i])}, layout=layout)
    for method, params, value in (
        (AVERAGE, {}, 0.25 * 1.5 + 0.75 * 3.0),
        (TASK, {"scaling": 1.0}, 1 + 0.25 * 0.5 + 0.75 * 2.0),
        (TIES, {"scaling": 1.0, "retain": 1.0}, 1 + (0.5 + 2.0) / 2),
    ):
        out = merge(tmp_path, (params and method.rpartition(":")[2]) or "average", method, **params)
        found = stored(out)[SCALE]
        assert found.shape == ()
        assert found.item() == pytest.approx(value, abs=1e-6)
    base, a, b = (Source(str(tmp_path / name)) for name in NAMES)
    masked = {"drop_rate": 0.5, "seed": 3}
    recipe = Recipe(base, (a, b), TASK, {"scaling": 1.0}, (1.0, 0.0), masked, dtype="float32")
    dropped = dict(stream(recipe, Store(tmp_path / "store")))[SCALE]
    assert dropped.shape == ()
    assert dropped.item() in (1.0, 2.0)  # dropped, or 0.5 / (1 - 0.5) more


def test_a_scalar_beside_a_vector(tmp_path: Path) -> None:
    llamas(tmp_path, lambda i, w: {**w, SCALE: torch.ones((1,) * (i == 1))})
    refused(tmp_path, SCALE, "()", "(1,)")


@pytest.mark.parametrize("which", [(0, 1, 2), (1,)])
def test_an_embedding_without_dimensions(tmp_path: Path, which: tuple[int, ...]) -> None:
    llamas(tmp_path, lambda i, w: {**w, HEAD: torch.tensor(1.0)} if i in which else w)
    refused(tmp_path, HEAD, "()")


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("shape", [(0,), (0, 32), (32, 0)])
def test_empty_tensors(tmp_path: Path, layout: str, shape: tuple[int, ...]) -> None:
    name = "model.layers.1.self_attn.q_proj.weight"
    llamas(tmp_path, lambda _, w: {**w, name: torch.zeros(shape)}, layout=layout)
    refused(tmp_path, name, "empty")
    base, a, b = (Source(str(tmp_path / one)) for one in NAMES)
    with pytest.raises(M3Error, match="empty"):
        stream(Recipe(base, (a, b), AVERAGE, check_lineage=False), Store(tmp_path / "store"))


@pytest.mark.parametrize("change", [("F32", "F64"), ("F32", "F16"), ("[32,32]", "[32,64]")])
def test_a_header_that_disagrees_with_its_bytes(tmp_path: Path, change: tuple[str, str]) -> None:
    llamas(tmp_path, lambda _, w: w)
    path = tmp_path / "a" / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = data[8 : 8 + size].replace(change[0].encode(), change[1].encode(), 1)
    path.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + size :])
    refused(tmp_path, str(path), "damaged")


# ------------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_shards_without_their_index(tmp_path: Path, layout: str) -> None:
    llamas(tmp_path, lambda _, w: w, layout=layout, shards=3)
    store = Store(tmp_path / "store")
    digest = open_model(Source(str(tmp_path / "b")), store).digest
    stem, suffix = ("model", "safetensors") if layout == "safetensors" else ("pytorch_model", "bin")
    (tmp_path / "b" / f"{stem}.{suffix}.index.json").unlink()
    assert open_model(Source(str(tmp_path / "b")), store).digest == digest
    merge(tmp_path)
    second = f"{stem}-00002-of-00003.{suffix}"
    (tmp_path / "b" / second).rename(tmp_path / "kept")
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    refused(tmp_path, str(tmp_path / "b"), f"{stem}-00001-of-00003.{suffix}", second, f"{stem}.{suffix}.index.json")
    (tmp_path / "kept").rename(tmp_path / "b" / f"{stem}-00002-of-00004.{suffix}")
    refused(tmp_path, str(tmp_path / "b"), "two models", "-of-00003", "-of-00004")


# ---------------------------------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize("name", ["tekken.json", "spiece.model", "sentencepiece.bpe.model", "qwen.tiktoken"])
def test_tokenizers_that_only_another_library_reads(tmp_path: Path, name: str) -> None:
    llamas(tmp_path, lambda _, w: w, tokenizer=False)
    data = b'{"vocab": [{"rank": 0, "token_bytes": "AA=="}]}' if name.endswith(".json") else bytes(range(256))
    (tmp_path / "a" / name).write_bytes(data)
    assert (merge(tmp_path) / name).read_bytes() == data


def test_what_was_loaded_is_told(tmp_path: Path) -> None:
    llamas(tmp_path, lambda _, w: {**w, SCALE: torch.tensor(1.0)})
    told = json.loads((merge(tmp_path) / "recipe.json").read_text())["report"]
    assert told["loaded_by"] == "LlamaForCausalLM"
    assert told["left_out"] == [SCALE]
