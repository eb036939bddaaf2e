"""Adapters on a base: what is read as peft merges it, and the one line for each that is not."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from m3_exp.merging.adapters.config import _HARMLESS, _REFUSED, LoraConfig
from m3_exp.merging.checkpoint import HEAD, Model, open_model
from m3_exp.merging.notes import notes
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source
from tests.adapter_matrix import BASES, check, difference, write_base
from tests.adapter_matrix import write_adapter as write_peft_adapter
from tests.models import Shape, fine_tuned, lora_weights, random_weights, resized, write_adapter, write_model

SMALL = Shape(vocab=20, hidden=8, inner=12, layers=1, heads=2, kv_heads=1)
EMBEDDING, Q = "model.embed_tokens.weight", "base_model.model.model.layers.0.self_attn.q_proj"
SHORT = [  # one base for each kind of layer or tensor
    ("all-linear", "llama"), ("patterns", "qwen2"), ("dora-all-linear", "gpt2"), ("dora-embedding", "llama"),
    ("embedding", "tied"), ("head", "tied"), ("head", "llama"), ("bias-all", "gpt2"), ("bias-lora_only", "qwen2"),
    ("lora_bias", "gpt2"), ("tokens", "gemma"), ("tokens-by-name", "llama"), ("save-embedding", "tied"),
    ("save-head", "tied"), ("save-both", "tied"), ("resized", "tied"), ("resized", "llama"), ("one-parameter", "gpt2"),
    ("experts", "mixtral"), ("all-linear", "mixtral"), ("experts-by-old-names", "mixtral"), ("pissa", "llama"),
    ("pissa-converted", "llama"), ("velora", "llama"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "base"), SHORT)
def test_reads_as_peft_merges(matrix: Path, kind: str, base: str) -> None:
    check(kind, base, matrix)


@pytest.mark.filterwarnings("ignore")
def test_experts_trained_one_by_one_are_read_as_peft_converts_them(matrix: Path, tmp_path: Path) -> None:
    """transformers 4 had a linear layer for each expert: its adapters are read beside today's checkpoints."""
    from safetensors.torch import load_file, save_file

    write_base(tmp_path / "base", "mixtral")
    generator, factors = torch.Generator().manual_seed(2), {}
    for name, value in load_file(tmp_path / "base" / "model.safetensors").items():
        if ".experts." in name:
            stem = "base_model.model." + name.removesuffix(".weight")
            factors[f"{stem}.lora_A.weight"] = torch.randn(2, value.shape[1], generator=generator)
            factors[f"{stem}.lora_B.weight"] = torch.randn(value.shape[0], 2, generator=generator)
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["w1", "w2", "w3"]}
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    save_file(factors, tmp_path / "lora" / "adapter_model.safetensors", metadata={"format": "pt"})
    assert difference(tmp_path / "base", tmp_path / "lora", "plain", tmp_path) == ""


@pytest.mark.filterwarnings("ignore")
def test_a_base_may_lack_the_prefix_that_an_adapter_has(tmp_path: Path) -> None:
    """GPT-2's published files say `h.0...`, the model in memory `transformer.h.0...`."""
    from safetensors.torch import load_file, save_file

    write_base(tmp_path / "base", "gpt2")
    adapter = write_peft_adapter(tmp_path / "lora", tmp_path / "base", "all-linear", BASES["gpt2"])
    store = Store(tmp_path / "store")
    want = whole(open_model(Source(str(tmp_path / "base"), adapter=str(adapter)), store))
    path = tmp_path / "base" / "model.safetensors"
    bare = {name.removeprefix("transformer."): value for name, value in load_file(path).items()}
    (tmp_path / "base").rename(tmp_path / "bare")
    save_file(bare, tmp_path / "bare" / "model.safetensors", metadata={"format": "pt"})
    got = whole(open_model(Source(str(tmp_path / "bare"), adapter=str(adapter)), store))
    got = {name if name.startswith("transformer.") else f"transformer.{name}": value for name, value in got.items()}
    assert {name: value.tolist() for name, value in got.items()} == {n: value.tolist() for n, value in want.items()}


def test_every_field_of_peft_is_known() -> None:
    from peft import LoraConfig as Theirs

    theirs = {field.name for field in dataclasses.fields(Theirs)}
    assert theirs - LoraConfig.model_fields.keys() - _HARMLESS - _REFUSED.keys() == set()


# --------------------------------------------------------------------------------------------------------- refusals


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    """Write an adapter of given tensors, q_proj's pair of rank 2 where none of a LoRA pair is given."""
    from safetensors.torch import save_file

    write_adapter(folder, SMALL, 3, rank=2, **{"target_modules": ["q_proj", "embed_tokens"], **config})
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def pair(rank: int = 2, into: int = 8, out: int = 8, inner: int | None = None) -> dict[str, torch.Tensor]:
    """Return a pair for q_proj."""
    return {f"{Q}.lora_A.weight": torch.ones(rank, into), f"{Q}.lora_B.weight": torch.ones(out, inner or rank)}


def opened(tmp_path: Path, *, tied: bool = False) -> Model:
    """Open `base` + `lora` of a folder, writing the base if it is not there."""
    if not (tmp_path / "base").exists():
        shape = dataclasses.replace(SMALL, tied=tied)
        write_model(tmp_path / "base", random_weights(shape, 0, torch.float32), shape)
    return open_model(Source(str(tmp_path / "base"), adapter=str(tmp_path / "lora")), Store(tmp_path / "store"))


def whole(model: Model) -> dict[str, torch.Tensor]:
    return {name: model.read(name, 0, entry.numel).view(entry.shape) for name, entry in model.tensors.items()}


MISSING = object()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"), ("peft_type", ["LORA"]), ("r", MISSING), ("r", 0), ("r", 2.0), ("r", True), ("r", "2"),
        ("lora_alpha", MISSING), ("lora_alpha", "4"), ("lora_alpha", float("nan")), ("lora_alpha", float("inf")),
        ("use_rslora", "false"), ("use_dora", 1), ("lora_bias", "no"), ("fan_in_fan_out", []), ("bias", "some"),
        ("rank_pattern", {"q_proj": 0}), ("rank_pattern", ["q_proj"]), ("alpha_pattern", {"q_proj": "x"}),
        ("rank_pattern", {"(": 4}), ("alpha_pattern", {"[": 4}), ("modules_to_save", "lm_head"),
        ("modules_to_save", [1]), ("trainable_token_indices", [-1]), ("trainable_token_indices", {"wte": "x"}),
        ("target_modules", 3), ("target_parameters", "w"), ("layers_to_transform", "all"), ("lora_dropout", "x"),
        ("base_model_name_or_path", 3), ("init_lora_weights", "pissa_niter_16"), ("init_lora_weights", "OLoRA"),
        ("init_lora_weights", "loftq"), ("init_lora_weights", "corda"), ("init_lora_weights", "lora_ga"),
        ("init_lora_weights", "magic"), ("init_lora_weights", 3), ("kasa_config", {}), ("use_bdlora", {"nblocks": 2}),
        ("alora_invocation_tokens", [1]), ("use_qalora", True), ("arrow_config", {"top_k": 3}),
        ("layer_replication", [[0, 1]]), ("megatron_config", {"a": 1}), ("use_next_year", True),
        ("enable_lora", [True, False]),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_or_not_honoured_is_named(tmp_path: Path, field: str, value: object) -> None:
    write_tensors(tmp_path / "lora", pair())
    path = tmp_path / "lora" / "adapter_config.json"
    config = {**json.loads(path.read_text()), field: value}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not MISSING}))
    with pytest.raises(M3Error, match=field) as refusal:
        opened(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "config",
    [
        {"use_next_year": None, "other": False, "third": [], "fourth": {}}, {"use_rslora": None, "rank_pattern": None},
        {"init_lora_weights": "gaussian"}, {"eva_config": {"rho": 2.0}, "peft_version": "9"}, {"lorap_emb_lr": 1e-6},
        {"alora_invocation_tokens": [], "megatron_core": "megatron.core"}, {"lora_alpha": 4.0},
    ],
    ids=str,
)  # fmt: skip
def test_fields_that_say_nothing_about_the_weights_are_read(tmp_path: Path, config: dict[str, Any]) -> None:
    write_tensors(tmp_path / "lora", pair(), **config)
    base = whole(open_model(Source(str(opened(tmp_path).source.location)), Store(tmp_path / "store")))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.allclose(whole(opened(tmp_path))[name], base[name] + 2 * 2.0)


@pytest.mark.parametrize(
    "pattern", ["(((a|b|[a-z_.0-9])+)+)+!", "(x+x+)+y", "(.*)*(.*)*(.*)*(.*)*!", "(?:a|a|[a-z0-9_.])*$!"]
)
@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern", "target_modules", "exclude_modules"])
def test_a_regular_expression_without_end_takes_seconds(tmp_path: Path, field: str, pattern: str) -> None:
    value = {pattern: 4} if field.endswith("pattern") else pattern
    write_adapter(tmp_path / "lora", SMALL, 3, rank=2, **{field: value})
    start = time.monotonic()
    try:
        opened(tmp_path)
    except M3Error as refusal:
        assert field in str(refusal)  # noqa: PT017
    assert time.monotonic() - start < 5


HEAD_PART, EMBED_PART = f"base_model.model.{HEAD}", f"base_model.model.{EMBEDDING}"


@pytest.mark.parametrize(
    ("tensors", "config", "word"),
    [
        (pair(4), {}, "rank 4, its config says 2"),
        (pair(2, inner=4), {}, "lora_A"),
        ({f"{Q}.lora_A.weight": torch.ones(2, 8, 1), f"{Q}.lora_B.weight": torch.ones(8, 2)}, {}, "lora_A"),
        ({f"{Q}.lora_A.weight": torch.ones(16), f"{Q}.lora_B.weight": torch.ones(8, 2)}, {}, "lora_A"),
        ({name: value.to(torch.int32) for name, value in pair().items()}, {}, "int32"),
        (pair(2, into=4), {}, "another base"),
        (pair(2, out=4), {}, "another base"),
        ({f"{Q}.lora_A.weight": torch.ones(2, 8)}, {}, "one half"),
        ({f"{Q}.lora_A.weight": torch.ones(0, 8), f"{Q}.lora_B.weight": torch.ones(8, 0)}, {}, "lora_A"),
        ({**pair(), "base_model.model.model.norm.weight": torch.ones(0)}, {}, "model.norm.weight"),
        ({**pair(), f"{Q}.weight": torch.ones(8, 8)}, {}, "q_proj"),
        (pair(), {"target_modules": ["v_proj"]}, "target_modules"),
        (pair(), {"target_modules": r".*\.v_proj"}, "target_modules"),
        ({f"{Q}.lora_embedding_A": torch.ones(2, 8), f"{Q}.lora_embedding_B": torch.ones(8, 2)}, {}, "no embedding"),
        ({f"{EMBED_PART[:-7]}.lora_A.weight": torch.ones(2, 8), f"{EMBED_PART[:-7]}.lora_B.weight": torch.ones(20, 2)},
         {}, "an embedding"),
        ({f"{Q}.lora_embedding_A": torch.ones(2, 8), f"{Q}.lora_B.weight": torch.ones(8, 2)}, {}, "one half"),
        ({**pair(), f"{Q}.lora_A.other.weight": torch.ones(2, 8)}, {}, "twice"),
        ({**pair(), f"{Q}.lora_C.weight": torch.ones(2, 8)}, {}, "lora_C"),
        ({**pair(), f"{Q}.lora_diag": torch.ones(2)}, {}, "lora_diag"),
        ({**pair(), f"{Q}.lora_magnitude_vector": torch.ones(8)}, {}, "use_dora"),
        (pair(), {"use_dora": True}, "use_dora"),
        ({**pair(), f"{Q}.lora_magnitude_vector": torch.ones(4)}, {"use_dora": True}, "magnitude"),
        ({**pair(), f"{Q}.lora_B.bias": torch.ones(8)}, {}, "lora_bias"),
        ({**pair(), f"{Q}.lora_B.bias": torch.ones(8)}, {"lora_bias": True}, "no.* bias|none"),
        (pair(), {"lora_bias": True}, "lora_bias"),
        ({**pair(), "base_model.model.model.new.weight": torch.ones(8)}, {}, "model.new.weight"),
        ({**pair(), "base_model.model.model.norm.weight": torch.ones(9)}, {}, "must agree"),
        ({**pair(), EMBED_PART: torch.ones(22, 8)}, {}, "22 rows"),
        ({**pair(), HEAD_PART: torch.ones(22, 8)}, {}, "22 rows"),
        ({**pair(), EMBED_PART: torch.ones(22, 8), HEAD_PART: torch.ones(23, 8)}, {}, "rows"),
        ({**pair(), EMBED_PART: torch.ones(20, 9), HEAD_PART: torch.ones(20, 9)}, {}, "must agree"),
        (pair(), {"modules_to_save": ["lm_head"]}, "modules_to_save"),
        (pair(), {"trainable_token_indices": [1]}, "token"),
        ({**pair(), f"{EMBED_PART[:-7]}.token_adapter.trainable_tokens_delta": torch.ones(1, 8)}, {}, "tokens_delta"),
        ({**pair(), f"{EMBED_PART[:-7]}.token_adapter.trainable_tokens_delta": torch.ones(1, 8)},
         {"trainable_token_indices": [20]}, "rows"),
        ({**pair(), f"{EMBED_PART[:-7]}.token_adapter.trainable_tokens_delta": torch.ones(2, 8)},
         {"trainable_token_indices": [3, 3]}, "twice"),
        ({**pair(), f"{EMBED_PART[:-7]}.original_module.weight": torch.ones(20, 8)}, {}, "original_module"),
        ({"base_model.model.model.layers.0.mlp.experts.lora_A.weight": torch.ones(2, 8),
          "base_model.model.model.layers.0.mlp.experts.lora_B.weight": torch.ones(8, 2)},
         {"target_parameters": ["experts.down_proj"]}, "not known"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any], word: str
) -> None:
    write_tensors(tmp_path / "lora", tensors, **config)
    with pytest.raises(M3Error, match=word) as refusal:
        opened(tmp_path)
    assert "\n" not in str(refusal.value)


# ------------------------------------------------------------------------------------------------------- tied models


def test_names_in_memory_are_read_and_an_embedding_alone_unties_its_head(tmp_path: Path) -> None:
    new = torch.randn(20, 8)
    raw = {name.replace(".weight", ".default.weight"): value for name, value in pair().items()}
    stem = "base_model.model.model.embed_tokens"
    tensors = {**raw, f"{stem}.modules_to_save.default.weight": new, f"{stem}.original_module.weight": new - 1}
    write_tensors(tmp_path / "lora", tensors, modules_to_save=["embed_tokens"])
    model = opened(tmp_path, tied=True)
    base = open_model(Source(str(tmp_path / "base")), Store(tmp_path / "store"))
    assert base.tied
    assert not model.tied
    assert model.config["tie_word_embeddings"] is False
    assert torch.equal(whole(model)[EMBEDDING], new)
    assert torch.equal(whole(model)[HEAD], whole(base)[EMBEDDING])


def test_an_equal_head_leaves_a_model_tied_and_another_one_does_not(tmp_path: Path) -> None:
    new = torch.randn(20, 8)
    saved: dict[str, Any] = {"modules_to_save": ["embed_tokens", "lm_head"]}
    write_tensors(tmp_path / "lora", {**pair(), EMBED_PART: new, HEAD_PART: new.clone()}, **saved)
    model = opened(tmp_path, tied=True)
    assert model.tied
    assert HEAD not in model.tensors
    assert torch.equal(whole(model)[EMBEDDING], new)
    (tmp_path / "lora").rename(tmp_path / "equal")
    write_tensors(tmp_path / "lora", {**pair(), EMBED_PART: new, HEAD_PART: new + 1}, **saved)
    other = opened(tmp_path)
    assert not other.tied
    assert torch.equal(whole(other)[HEAD], new + 1)
    (tmp_path / "lora").rename(tmp_path / "differs")
    write_tensors(tmp_path / "lora", {**pair(), EMBED_PART: new, HEAD_PART: new + 1})
    with pytest.raises(M3Error, match="ties"):
        opened(tmp_path)


def test_only_the_head_may_be_absent_from_a_tied_base(tmp_path: Path) -> None:
    write_tensors(tmp_path / "lora", {**pair(), "base_model.model.score.weight": torch.ones(2, 8)})
    with pytest.raises(M3Error, match=r"score\.weight, which the base .* does not have"):
        opened(tmp_path, tied=True)


def test_a_vocabulary_may_grow_where_head_and_embedding_do(tmp_path: Path) -> None:
    new = {EMBED_PART: torch.randn(22, 8), HEAD_PART: torch.randn(22, 8)}
    write_tensors(tmp_path / "lora", {**pair(), **new})
    made = whole(opened(tmp_path))
    assert torch.equal(made[EMBEDDING], new[EMBED_PART])
    assert torch.equal(made[HEAD], new[HEAD_PART])


# ---------------------------------------------------------------------------------------------------- bits and blocks


def dora(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(value.shape, generator=generator) for name, value in pair().items()}
    stem = "base_model.model.model.embed_tokens"
    return {
        **tensors,
        f"{Q}.lora_magnitude_vector": 1 + torch.rand(8, generator=generator),
        f"{stem}.lora_embedding_A": torch.randn(2, 20, generator=generator),
        f"{stem}.lora_embedding_B": torch.randn(8, 2, generator=generator),
        f"{stem}.lora_magnitude_vector": 1 + torch.rand(8, generator=generator),
    }


def test_dora_gives_each_output_its_magnitude(tmp_path: Path) -> None:
    """Algebra: the rows of a linear layer, the columns of an embedding, have exactly the trained lengths."""
    tensors = dora()
    write_tensors(tmp_path / "lora", tensors, use_dora=True)
    made = whole(opened(tmp_path))
    rows = made["model.layers.0.self_attn.q_proj.weight"].norm(dim=1)
    columns = made[EMBEDDING].norm(dim=0)
    assert torch.allclose(rows, tensors[f"{Q}.lora_magnitude_vector"], rtol=1e-6)
    assert torch.allclose(columns, tensors[f"{EMBED_PART[:-7]}.lora_magnitude_vector"], rtol=1e-6)


def test_no_bit_depends_on_blocks(tmp_path: Path) -> None:
    delta = {f"{EMBED_PART[:-7]}.token_adapter.trainable_tokens_delta": torch.randn(3, 8)}
    write_tensors(tmp_path / "lora", {**pair(), **delta}, trainable_token_indices=[7, 2, 19])
    (tmp_path / "lora").rename(tmp_path / "tokens")
    write_tensors(tmp_path / "lora", dora(), use_dora=True)
    for name in ("lora", "tokens"):
        source = Source(str(opened(tmp_path).source.location), adapter=str(tmp_path / name))
        model = open_model(source, Store(tmp_path / "store"))
        for tensor, entry in model.tensors.items():
            once = model.read(tensor, 0, entry.numel)
            for step in (1, 7, 8, 13):
                parts = [model.read(tensor, i, min(i + step, entry.numel)) for i in range(0, entry.numel, step)]
                assert torch.equal(torch.cat(parts), once), (name, tensor, step)


def test_a_digest_changes_with_all_that_changes_weights(tmp_path: Path) -> None:
    tokens = {f"{EMBED_PART[:-7]}.token_adapter.trainable_tokens_delta": torch.ones(2, 8)}
    made: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any]]] = {
        "plain": (pair(), {}),
        "alpha": (pair(), {"lora_alpha": 5}),
        "rslora": (pair(), {"use_rslora": True}),
        "pattern": (pair(), {"alpha_pattern": {"q_proj": 7}}),
        "tokens": ({**pair(), **tokens}, {"trainable_token_indices": [1, 2]}),
        "other": ({**pair(), **tokens}, {"trainable_token_indices": [2, 1]}),
        "saved": ({**pair(), EMBED_PART: torch.ones(20, 8)}, {"modules_to_save": ["embed_tokens"]}),
        "loaded": ({**pair(), EMBED_PART: torch.ones(20, 8)}, {}),
    }
    digests = {}
    for name, (tensors, config) in made.items():
        write_tensors(tmp_path / "lora", tensors, **config)
        digests[name] = opened(tmp_path, tied=True).digest
        (tmp_path / "lora").rename(tmp_path / name)
    assert len(set(digests.values())) == len(made), digests


# ---------------------------------------------------------------------------------------------------- another base


def test_an_adapter_of_another_base_is_said(tmp_path: Path) -> None:
    weights = random_weights(SMALL, 0, torch.float32)
    write_model(tmp_path / "base", weights, SMALL)
    write_model(tmp_path / "copy", weights, SMALL)
    write_model(tmp_path / "other", fine_tuned(weights, 1), SMALL)
    write_model(tmp_path / "larger", resized(weights, 24, 1), SMALL)
    store, base = Store(tmp_path / "store"), str(tmp_path / "base")
    names = {"base": 0, "copy": 0, "other": 1, "larger": 1, "hub/base": 0, "hub/else": 1, "": 0}
    for i, (name, count) in enumerate(names.items()):
        named = str(tmp_path / name) if (tmp_path / name).exists() and name else name
        write_tensors(tmp_path / f"lora{i}", pair(), base_model_name_or_path=named)
        source = Source(base, adapter=str(tmp_path / f"lora{i}"))
        recipe = Recipe(Source(base), (source,), "m3_exp.merging.methods.average:average", {}, (1.0,))
        said = notes(recipe, store)
        assert len(said) == count, (name, said)
        assert all(named in line and base in line for line in said)


def test_lora_weights_of_the_other_tests_fit(tmp_path: Path) -> None:
    """The hand-made adapters of `tests.models` are what peft would write: every tensor has its place."""
    write_adapter(tmp_path / "lora", SMALL, 3, rank=2)
    assert {name for name, entry in opened(tmp_path).tensors.items() if entry.dtype == "F32"} >= {
        name.removeprefix("base_model.model.").replace(".lora_A", "") for name in lora_weights(SMALL, 3, 2)
        if ".lora_A" in name
    }  # fmt: skip


# ------------------------------------------------------------------------------------------- tied and untied models


@pytest.mark.parametrize("method", ["average:average", "task_arithmetic:task_arithmetic"])
def test_an_untied_model_merges_with_tied_ones(tmp_path: Path, method: str) -> None:
    """The heads of tied models count as what they are, their embeddings."""
    from m3_exp.merging.stream import stream

    new = random_weights(SMALL, 0, torch.float32)[EMBEDDING] + 0.1
    small = {name: 0.01 * value for name, value in pair().items()}
    write_tensors(tmp_path / "lora", {**small, EMBED_PART: new}, modules_to_save=["embed_tokens"])
    expert, store = opened(tmp_path, tied=True), Store(tmp_path / "store")
    base = open_model(Source(str(tmp_path / "base")), store)
    shape = dataclasses.replace(SMALL, tied=True)
    write_model(tmp_path / "other", fine_tuned(random_weights(shape, 0, torch.float32), 1), shape)
    other = open_model(Source(str(tmp_path / "other")), store)
    first, params = (0.4, {}) if method.startswith("average") else (0.3, {"scaling": 1.0})
    target = f"m3_exp.merging.methods.{method}"
    recipe = Recipe(base.source, (expert.source, other.source), target, params, (first, 0.6), dtype="float32")
    made = dict(stream(recipe, store))
    own, mean = whole(base)[EMBEDDING], whole(other)[EMBEDDING]
    assert torch.allclose(made[EMBEDDING], own + first * (new - own) + 0.6 * (mean - own), atol=1e-6)
    assert torch.allclose(made[HEAD], own + 0.6 * (mean - own), atol=1e-6)


def test_an_untied_adapter_is_written_with_its_head_and_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from m3_exp.merging.stream import write

    new = torch.randn(20, 8)
    write_tensors(tmp_path / "lora", {**pair(), EMBED_PART: new}, modules_to_save=["embed_tokens"])
    expert, store = opened(tmp_path, tied=True), Store(tmp_path / "store")
    average = "m3_exp.merging.methods.average:average"
    recipe = Recipe(
        Source(expert.source.location), (expert.source,), average, {}, (1.0,), dtype="float32", check_lineage=False
    )
    (written,) = write([recipe], [tmp_path / "out"], store, Source(expert.source.location))
    model: Any = AutoModelForCausalLM.from_pretrained(written.path, dtype=torch.float32)
    assert torch.equal(model.get_input_embeddings().weight, new)
    assert not torch.equal(model.lm_head.weight, new)
    assert "made for" in written.report["notes"][0]
    assert json.loads((written.path / "recipe.json").read_text())["report"]["notes"] == written.report["notes"]
