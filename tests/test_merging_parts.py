"""Merges by part: each tensor has the bytes of the plain merge with its part's weights, and names are told apart."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from m3_exp.merging import parts, ratio
from m3_exp.merging.canonical import canonical, recipe_key
from m3_exp.merging.stream import stream, write
from m3_exp.store import Store, decoded
from m3_exp.types import Drawn, M3Error, Part, Recipe, Source, plain
from tests.models import AVERAGE, TASK, TIES, Shape, fine_tuned, random_weights, write_model, write_three

SHAPE = Shape(layers=4)
MASKED = {"drop_rate": 0.3, "seed": 5}
PARAMS = {AVERAGE: {}, TASK: {"scaling": 0.8}, TIES: {"scaling": 0.8, "retain": 0.6}}
Bytes = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    write_three(root, SHAPE)
    write_model(root / "c", fine_tuned(random_weights(SHAPE, 0), 3), SHAPE)
    return root


def recipe(world: Path, method: str = AVERAGE, experts: str = "ab", **fields: object) -> Recipe:
    of = Recipe(Source(str(world / "base")), tuple(Source(str(world / e)) for e in experts), method, PARAMS[method])
    return replace(of, **fields)  # type: ignore[arg-type]


def merged(of: Recipe, world: Path) -> Bytes:
    return {name: tensor.clone() for name, tensor in stream(of, Store(world / "store"))}


def key(of: Recipe, world: Path) -> str:
    return recipe_key(of, Store(world / "store"))


BY_PART = (Part("attention", (0.3, 0.7)), Part("layers 0-1", (1.0, 0.0)), Part("norms", (0.0, 1.0)), Part("head"))


def expected(name: str) -> tuple[float, ...] | None:
    """Return the weights that `BY_PART` gives to a tensor of a llama; of what it does not name (0.6, 0.4)."""
    if "self_attn" in name:
        return (0.3, 0.7)
    if name.startswith(("model.layers.0.", "model.layers.1.")):
        return (1.0, 0.0)
    if "norm" in name:
        return (0.0, 1.0)
    return None if name == "lm_head.weight" else (0.6, 0.4)


@pytest.mark.parametrize("masked", [None, MASKED])
@pytest.mark.parametrize("method", [AVERAGE, TASK, TIES])
def test_each_tensor_is_that_of_the_plain_merge(world: Path, method: str, masked: dict[str, float] | None) -> None:
    of = recipe(world, method, weights=(0.6, 0.4), sparsify=masked)
    found = merged(replace(of, parts=BY_PART), world)
    whole = {w: merged(replace(of, weights=w), world) for w in {expected(name) for name in found}}
    assert len(whole) == 5
    for name, tensor in found.items():
        assert torch.equal(tensor, whole[expected(name)][name]), name
    assert any(not torch.equal(found[name], whole[(0.6, 0.4)][name]) for name in found)


@pytest.mark.parametrize("method", [AVERAGE, TASK, TIES])
def test_three_experts_in_any_order_have_one_key_and_the_same_bytes(world: Path, method: str) -> None:
    three = {"a": (0.5, 0.0, 1.0), "b": (0.3, 0.4, 0.0), "c": (0.2, 0.6, 0.0)}

    def asked(order: str) -> Recipe:
        rest, first, last = zip(*(three[expert] for expert in order), strict=True)
        by_part = (Part("mlp", first, last=last),)
        return recipe(world, method, order, weights=rest, parts=by_part, sparsify=MASKED)

    one, other = asked("abc"), asked("cab")
    assert canonical(one) == canonical(other)
    assert key(one, world) == key(other, world)
    first, second = merged(one, world), merged(other, world)
    assert all(torch.equal(first[name], second[name]) for name in first)
    plain_first = merged(recipe(world, method, "abc", weights=(0.0, 0.4, 0.6), sparsify=MASKED), world)
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first[name], plain_first[name])


def test_the_plain_mixture_in_all_parts_is_the_plain_recipe(world: Path) -> None:
    of = recipe(world, weights=(0.3, 0.7))
    assert canonical(replace(of, parts=(Part("mlp", (0.3, 0.7)), Part("norms", (3.0, 7.0))))) == canonical(of)
    halves = replace(of, weights=None, parts=(Part("mlp", (0.5, 0.5)),))
    assert canonical(halves) == canonical(replace(of, weights=None))
    covering = replace(of, weights=(0.9, 0.1), parts=(Part("all", (0.3, 0.7)),))  # only headers show that all is named
    assert canonical(covering) != canonical(of)
    assert key(covering, world) == key(of, world)
    once = replace(of, parts=(Part("blocks", (0.3, 0.7), last=(0.3, 0.7)),))
    assert key(once, world) == key(of, world)


def test_two_spellings_of_one_table_are_one_key(world: Path) -> None:
    of = recipe(world, TASK, weights=(0.5, 0.5))
    spellings: Sequence[tuple[Part, ...]] = [
        (Part("layers 0-1", (0.2, 0.8)),),
        (Part("depth 1/2", (0.2, 0.8)),),
        (Part("/layers.[01]/", (0.2, 0.8)),),
        (Part("layers 0", (0.2, 0.8)), Part("layer 1", (0.2, 0.8)), Part("layers 2-3", (0.5, 0.5))),
        (Part("layers 2-3", (0.5, 0.5)), Part("blocks", (0.2, 0.8))),
    ]
    assert len({key(replace(of, parts=one), world) for one in spellings}) == 1
    assert key(replace(of, parts=(Part("layers 0", (0.2, 0.8)),)), world) != key(replace(of, parts=spellings[0]), world)


def test_linear_recipes_are_canonical_part_by_part(world: Path) -> None:
    """Average and task arithmetic with shares that sum to 1 are one table; expert a alone makes its own part."""
    by_part = (Part("attention", (0.3, 0.7)), Part("mlp", (1.0, 0.0)))
    average = recipe(world, AVERAGE, weights=(0.6, 0.4), parts=by_part)
    task = recipe(world, TASK, params={"scaling": 1.0}, weights=(0.6, 0.4), parts=by_part)
    assert key(average, world) == key(task, world)
    weights = merged(average, world)
    alone = merged(recipe(world, AVERAGE, "a"), world)
    name = "model.layers.3.mlp.down_proj.weight"
    assert torch.equal(weights[name], alone[name])


def test_draws_belong_to_their_place(world: Path) -> None:
    """One draw a block: each decoder layer has a lambda of its own; what is outside has that of the whole model."""
    drawn = Drawn(0.5, 0, 3, "block")
    whole = ratio.mixup(0.5, 0, 3)
    of = recipe(world, weights=(whole, 1 - whole), parts=(Part("blocks", drawn=drawn),))
    found = parts.table(of.weights, of.parts, [*merged(of, world)], 2).weights
    lams = [found[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in range(4)]
    assert len({*lams}) == 4
    assert lams[2] == found["model.layers.2.input_layernorm.weight"]
    assert found["model.embed_tokens.weight"] == (whole, 1 - whole)
    each = parts.table(of.weights, (Part("all", drawn=replace(drawn, per="tensor")),), list(found), 2).weights
    assert len({*each.values()}) == len(each)
    assert ratio.mixup(0.5, 0, 3, "block", 2) == lams[2][0]  # type: ignore[index]
    assert key(of, world) != key(replace(of, parts=(Part("blocks", drawn=replace(drawn, draw=4)),)), world)


def test_a_vocabulary_is_as_long_as_that_of_any_part(tmp_path: Path) -> None:
    """The head is expert a's alone, whose vocabulary is shorter than b's: its own rows, and their mean below."""
    write_three(tmp_path, SHAPE, torch.float32, rows=270)
    by_part = (Part("head", (1.0, 0.0)), Part("embeddings", (0.0, 1.0)))
    found = merged(recipe(tmp_path, weights=(0.5, 0.5), parts=by_part, dtype="float32"), tmp_path)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert found["lm_head.weight"].shape == found["model.embed_tokens.weight"].shape == (270, 32)
    assert torch.equal(found["lm_head.weight"][:264], a["lm_head.weight"])
    mean = a["lm_head.weight"].double().mean(0).float()
    torch.testing.assert_close(found["lm_head.weight"][264:], mean.expand(6, 32))
    assert torch.equal(found["model.embed_tokens.weight"], b["model.embed_tokens.weight"])


def test_no_byte_depends_on_blocks_or_threads(world: Path) -> None:
    of = recipe(world, TIES, weights=(0.6, 0.4), parts=BY_PART, sparsify=MASKED)
    digests = set()
    for block, threads in ((100, 1), (4096, 2), (1 << 20, 2)):
        flow = stream(of, Store(world / f"store-{block}"), block=block, threads=threads)
        for _ in flow:
            pass
        digests.add(flow.digest)
    assert len(digests) == 1


def test_draws_of_three_experts_are_shares_of_their_own_in_each_layer(world: Path) -> None:
    of = recipe(
        world, AVERAGE, "abc", weights=(0.2, 0.3, 0.5), parts=(Part("blocks", drawn=Drawn(0.5, 0, 1, "block")),)
    )
    found = parts.table(of.weights, of.parts, [*merged(of, world)], 3).weights
    layers = [found[f"model.layers.{layer}.mlp.up_proj.weight"] or () for layer in range(4)]
    assert len({*layers}) == 4
    for shares in layers:
        assert len(shares) == 3
        assert min(shares) >= 0
        assert sum(shares) == pytest.approx(1, abs=1e-12)
    assert found["model.norm.weight"] == (0.2, 0.3, 0.5)


def test_the_recipe_of_a_checkpoint_says_its_parts(world: Path, tmp_path: Path) -> None:
    import json

    of = recipe(world, TIES, weights=(0.6, 0.4), parts=(*BY_PART[:2], Part("mlp", (0.1, 0.9), last=(0.9, 0.1))))
    store = Store(world / "store")
    (written,) = write([of], [tmp_path / "out"], store, Source(str(world / "a")), verify=False)
    again = decoded(Recipe, json.loads((tmp_path / "out" / "recipe.json").read_text())["recipe"])
    assert again.parts == of.parts
    flow = stream(again, store)
    for _ in flow:
        pass
    assert flow.digest == written.digest
    assert "parts" not in plain(replace(of, parts=()))


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("layers 4-9", "part 'layers 4-9' names no tensor of this model: the model has attention, mlp, norms, "
         "embeddings, head, layers 0-3"),
        ("/self_attn.qkv/", "part '/self_attn.qkv/' names no tensor of this model"),
        ("depth 2/9", "part 'depth 2/9' names no tensor of this model"),
        ("head in blocks", "part 'head in blocks' names no tensor"),
        ("attn", "'attn' names no part of a model: allowed are attention, mlp, norms"),
        ("depth 0/3", "'depth 0/3' names no part"), ("depth 4/3", "'depth 4/3' names no part"),
        ("/a(/", "'/a(/' is no regular expression"), ("//", "'//' is no regular expression"), ("", "'' names no part"),
    ],
)  # fmt: skip
def test_a_part_that_names_nothing_is_refused(world: Path, where: str, words: str) -> None:
    of = recipe(world, weights=(0.6, 0.4), parts=(Part("mlp", (0.1, 0.9)), Part(where, (0.2, 0.8))))
    for look in (lambda: key(of, world), lambda: stream(of, Store(world / "store"))):
        with pytest.raises(M3Error) as caught:
            look()  # type: ignore[no-untyped-call]
        assert str(caught.value).startswith(words)
        assert "\n" not in str(caught.value)


def test_a_part_that_comes_too_late_is_refused(world: Path) -> None:
    of = recipe(world, weights=(0.6, 0.4), parts=(Part("blocks", (0.1, 0.9)), Part("mlp", (0.2, 0.8))))
    with pytest.raises(M3Error, match="part 'mlp' names no tensor that an earlier part leaves to it"):
        key(of, world)


def test_a_tied_model_has_no_head(world: Path, tmp_path: Path) -> None:
    write_three(tmp_path, replace(SHAPE, tied=True))
    of = recipe(tmp_path, weights=(0.6, 0.4), parts=(Part("head", (0.2, 0.8)),))
    with pytest.raises(
        M3Error, match=r"part 'head' names no tensor of this model: the model has .*embeddings, layers 0-3"
    ):
        key(of, tmp_path)


# -------------------------------------------------------------------------------------------------------------- names

NAMES = {  # tensors as checkpoints have them: what they belong to, and their decoder layer
    "attention": [
        "model.layers.3.self_attn.q_proj.weight", "model.layers.3.self_attn.k_proj.bias",  # Llama, Qwen2, Mistral
        "model.layers.3.self_attn.qkv_proj.weight", "model.layers.3.self_attn.dense.weight",  # Phi-3, Phi-2
        "transformer.h.3.attn.c_attn.weight", "gpt_neox.layers.3.attention.query_key_value.weight",
        "transformer.h.3.self_attention.dense.weight", "model.decoder.layers.3.self_attn.out_proj.bias",
        "model.layers.3.linear_attn.in_proj_qkvz.weight", "transformer.blocks.3.attn.Wqkv.weight",
        "model.language_model.layers.3.self_attn.o_proj.weight", "model.layers.3.self_attn.sinks",
    ],
    "mlp": [
        "model.layers.3.mlp.gate_proj.weight", "model.layers.3.mlp.gate_up_proj.weight", "model.layers.3.mlp.fc1.bias",
        "transformer.h.3.mlp.c_fc.weight", "gpt_neox.layers.3.mlp.dense_h_to_4h.bias",
        "model.layers.3.block_sparse_moe.gate.weight", "model.layers.3.block_sparse_moe.experts.7.w2.weight",
        "model.layers.3.mlp.experts.63.up_proj.weight", "model.layers.3.mlp.shared_expert.down_proj.weight",
        "model.layers.3.mlp.gate.weight", "model.layers.3.mlp.experts.gate_up_proj",
        "model.decoder.layers.3.fc2.weight",
        "model.layers.3.feed_forward.router.weight", "transformer.blocks.3.ffn.up_proj.weight",
    ],
    "norms": [
        "model.layers.3.input_layernorm.weight", "model.layers.3.post_attention_layernorm.weight",
        "model.layers.3.pre_feedforward_layernorm.weight", "model.layers.3.self_attn.q_norm.weight",
        "model.norm.weight", "transformer.h.3.ln_1.weight", "transformer.ln_f.bias", "transformer.h.3.ln_attn.weight",
        "gpt_neox.final_layer_norm.weight", "model.final_layernorm.weight", "transformer.blocks.3.norm_1.weight",
        "transformer.word_embeddings_layernorm.weight", "model.layers.3.self_attn.kv_a_layernorm.weight",
        "model.decoder.layers.3.self_attn_layer_norm.weight",
    ],
    "embeddings": [
        "model.embed_tokens.weight", "transformer.wte.weight", "transformer.wpe.weight", "gpt_neox.embed_in.weight",
        "transformer.word_embeddings.weight", "model.decoder.embed_positions.weight",
        "model.language_model.embed_tokens.weight",
    ],
    "head": ["lm_head.weight", "lm_head.bias", "embed_out.weight"],
    "": [
        "model.vision_tower.encoder.layers.3.self_attn.q_proj.weight", "visual.blocks.3.mlp.fc1.weight",
        "model.layers.3.layer_scalar", "model.decoder.project_in.weight", "multi_modal_projector.linear_1.weight",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names])
def test_what_a_tensor_belongs_to(kind: str, name: str) -> None:
    assert parts.kind(name) == kind
    in_decoder = ".3." in name and not name.startswith(("model.vision", "visual"))
    assert parts.layer(name) == (3 if in_decoder else None)


@pytest.mark.parametrize(
    "model",
    ["llama", "qwen2", "qwen3", "mistral", "gemma2", "phi", "phi3", "gpt2", "gpt_neox", "mixtral", "qwen2_moe", "opt"],
)
def test_the_names_of_transformers_are_told_apart(model: str) -> None:
    """No weight of a decoder layer is without a kind, and each kind is where such a model has it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "tie_word_embeddings": False}
    with torch.device("meta"):
        names = list(AutoModelForCausalLM.from_config(AutoConfig.for_model(model, **small)).state_dict())
    kinds = {name: parts.kind(name) for name in names}
    assert {*kinds.values()} == {"attention", "mlp", "norms", "embeddings", "head"}
    assert {parts.layer(name) for name in names if kinds[name] in ("attention", "mlp")} == {0, 1}


def weights_over(where: str, layers: int) -> list[int]:
    """Return the layers that a part names of a model with so many."""
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(layers)]
    found = parts.table((0.0, 1.0), (Part(where, (1.0, 0.0)),), names, 2).weights
    return [layer for layer, name in enumerate(names) if found[name] == (1.0, 0.0)]


def test_ranges_of_depth_are_equal_and_cover_all_layers() -> None:
    assert [weights_over(f"depth {index}/3", 6) for index in (1, 2, 3)] == [[0, 1], [2, 3], [4, 5]]
    assert [weights_over(f"depth {index}/3", 32) for index in (1, 2, 3)] == [
        list(range(11)), list(range(11, 22)), list(range(22, 32)),
    ]  # fmt: skip
    assert weights_over("layers 2-3", 6) == [2, 3]
    assert weights_over("mlp in depth 2/2", 5) == [3, 4]


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_a_gradient_is_exact_at_both_ends_and_linear_between(layers: int) -> None:
    names = [*(f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(layers)), "model.norm.weight"]
    found = parts.table(None, (Part("all", (0.2, 0.8), last=(0.8, 0.2)),), names, 2).weights
    lams = [found[name][0] for name in names[:-1]]  # type: ignore[index]
    assert lams == pytest.approx([0.2 + 0.6 * layer / max(1, layers - 1) for layer in range(layers)], abs=1e-15)
    assert lams[0] == 0.2
    assert layers == 1 or lams[-1] == 0.8
    assert found["model.norm.weight"] is None  # it lies in no decoder layer
