"""What is refused: in one line that says what and where, before any output, with nothing left behind."""

import errno
import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from m3_exp.merging import quantised
from m3_exp.merging import write as writing
from m3_exp.merging.stream import check, forecast, stream, write
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source
from tests.files import edit_json
from tests.models import TASK, Shape, Weights, fine_tuned, random_weights, resized, write_model, write_shards

Three = tuple[Weights, Weights, Weights]
EMBEDDING, Q = "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def weights() -> Three:
    base = random_weights(Shape(), 0)
    return base, fine_tuned(base, 1), fine_tuned(base, 2)


@pytest.fixture
def recipe(tmp_path: Path, weights: Three) -> Recipe:
    for name, one, shards in zip(("base", "a", "b"), weights, (1, 1, 3), strict=True):
        write_model(tmp_path / name, one, shards=shards)
    base, a, b = (Source(str(tmp_path / name)) for name in ("base", "a", "b"))
    return Recipe(base, (a, b), TASK, {"scaling": 0.7})


def refused(recipe: Recipe, tmp_path: Path, *words: str, outs: list[Path] | None = None) -> None:
    """Assert that writing is refused in one line with these words, and that nothing but the store has changed."""
    places = outs or [tmp_path / "out"]
    before = sorted(path for path in tmp_path.rglob("*") if "store" not in path.parts)
    with pytest.raises(M3Error) as caught:
        write([recipe] * len(places), places, Store(tmp_path / "store"), tokenizer=recipe.experts[0])
    told = str(caught.value)
    assert "\n" not in told
    assert all(word in told for word in words), told
    assert sorted(path for path in tmp_path.rglob("*") if "store" not in path.parts) == before


INDEX = "model.safetensors.index.json"


def test_missing_shard(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "b" / "model-00002-of-00003.safetensors").unlink()
    refused(recipe, tmp_path, "lacks the shard model-00002-of-00003.safetensors", str(tmp_path / "b"))


def test_index_names_what_no_shard_holds(recipe: Recipe, tmp_path: Path) -> None:
    edit_json(tmp_path / "b", lambda v: v["weight_map"].update(ghost="model-00001-of-00003.safetensors"), INDEX)
    refused(recipe, tmp_path, "ghost", "no shard holds")


def test_index_names_another_shard(recipe: Recipe, tmp_path: Path) -> None:
    index = json.loads((tmp_path / "b" / INDEX).read_text())["weight_map"]
    other = next(shard for shard in sorted(set(index.values())) if shard != index[Q])
    edit_json(tmp_path / "b", lambda v: v["weight_map"].update({Q: other}), INDEX)
    refused(recipe, tmp_path, Q, "another shard")


def test_index_leaves_a_tensor_out(recipe: Recipe, tmp_path: Path) -> None:
    edit_json(tmp_path / "b", lambda v: v["weight_map"].pop(Q), INDEX)
    refused(recipe, tmp_path, Q, "does not list")


@pytest.mark.parametrize("shard", ["../a/model.safetensors", "/etc/passwd", "sub/x.safetensors", ".."])
def test_index_points_outside(recipe: Recipe, tmp_path: Path, shard: str) -> None:
    edit_json(tmp_path / "b", lambda v: v["weight_map"].update({Q: shard}), INDEX)
    refused(recipe, tmp_path, repr(shard), "bare file names")


def test_two_layouts(recipe: Recipe, tmp_path: Path, weights: Three) -> None:
    write_shards(tmp_path / "b", weights[1], "safetensors", 1)
    refused(recipe, tmp_path, "holds both model.safetensors and model.safetensors.index.json")


def test_no_weights_and_no_config(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "a" / "model.safetensors").unlink()
    refused(recipe, tmp_path, "holds no weights")
    shutil.rmtree(tmp_path / "a")
    refused(recipe, tmp_path, f"{tmp_path / 'a'} does not exist")
    (tmp_path / "b" / "config.json").unlink()
    refused(replace(recipe, experts=(recipe.experts[1],)), tmp_path, "config.json")


@pytest.mark.parametrize("cut", [1, 4000, 50])
def test_cut_short(recipe: Recipe, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-cut] if cut != 50 else path.read_bytes()[:50])
    refused(recipe, tmp_path, str(path), "damaged or cut short")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_not_finite(recipe: Recipe, tmp_path: Path, weights: Three, value: float, layout: str) -> None:
    bad = {name: tensor.clone() for name, tensor in weights[1].items()}
    bad[Q].view(-1)[-1] = value
    write_model(tmp_path / "bad", bad, layout=layout, shards=2)  # type: ignore[arg-type]
    of = replace(recipe, experts=(Source(str(tmp_path / "bad")), recipe.experts[1]))
    refused(of, tmp_path, Q, "NaN or Inf")
    refused(of, tmp_path, Q, "NaN or Inf")  # remembered, and still refused


class _Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must never run",))


@pytest.mark.parametrize("what", ["code", "number", "list", "pickle"])
def test_bin_with_anything_but_tensors(
    recipe: Recipe,
    tmp_path: Path,
    weights: Three,
    capsys: pytest.CaptureFixture[str],
    what: str,
) -> None:
    write_model(tmp_path / "c", weights[1], layout="bin")
    path = tmp_path / "c" / "pytorch_model.bin"
    if what == "pickle":
        path.write_bytes(pickle.dumps(_Payload()))
    elif what == "list":
        torch.save(list(weights[1].values()), path)
    else:
        torch.save({**weights[1], "extra": _Payload() if what == "code" else 3}, path)
    refused(replace(recipe, experts=(Source(str(tmp_path / "c")),)), tmp_path, str(path))
    assert "never" not in capsys.readouterr().out


def test_tensor_sets_and_shapes(recipe: Recipe, tmp_path: Path, weights: Three) -> None:
    fewer = {name: value for name, value in weights[1].items() if name != Q}
    write_model(tmp_path / "fewer", fewer)
    refused(replace(recipe, experts=(Source(str(tmp_path / "fewer")),)), tmp_path, f"fewer lacks {Q}")
    write_model(tmp_path / "more", {**weights[1], "model.extra.weight": torch.ones(3)})
    refused(replace(recipe, experts=(Source(str(tmp_path / "more")),)), tmp_path, "lacks model.extra.weight")
    write_model(tmp_path / "shape", {**weights[1], Q: weights[1][Q][:16]})
    refused(replace(recipe, experts=(Source(str(tmp_path / "shape")),)), tmp_path, Q, "(16, 32)", "(32, 32)")
    tied = {name: value for name, value in weights[1].items() if name != "lm_head.weight"}
    write_model(tmp_path / "tied", tied)
    refused(replace(recipe, experts=(Source(str(tmp_path / "tied")),)), tmp_path, "lacks lm_head.weight")


def test_tied_head_that_differs(recipe: Recipe, tmp_path: Path) -> None:
    for name in ("base", "a", "b"):
        edit_json(tmp_path / name, lambda v: v.update(tie_word_embeddings=True))
    refused(recipe, tmp_path, "ties the head", "lm_head.weight")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rope_theta": 500000.0}, ["rope", "500000.0", "10000.0"]),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ["rope", "linear"]),
        ({"num_attention_heads": 8, "head_dim": 4}, ["head_dim=8", "has 4"]),
        ({"architectures": ["MistralForCausalLM"], "model_type": "mistral"}, ["MistralForCausalLM"]),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            ["is quantised by GPTQ", "give the model it was made from"],
        ),
        ({"quantization_config": {"quant_method": "awq"}}, ["is quantised by AWQ"]),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, ["is quantised by bitsandbytes"]),
        ({"quantization_config": {"quant_method": "fp8"}}, ["by FP8", "FineGrainedFP8Config(dequantize=True)"]),
        ({"quantization_config": {"quant_method": "mxfp4"}}, ["by MXFP4", "Mxfp4Config(dequantize=True)"]),
        ({"text_config": {"quantization_config": {"quant_method": "hqq"}}}, ["is quantised by HQQ"]),
        ({"quantization_config": {"bits": 4}}, ["is quantised by an unnamed method"]),
    ],
)
def test_architectures(recipe: Recipe, tmp_path: Path, change: dict[str, Any], words: list[str]) -> None:
    edit_json(tmp_path / "b", lambda v: v.update(change))
    refused(recipe, tmp_path, str(tmp_path / "b"), *words)


@pytest.mark.parametrize(
    ("names", "method"),
    [
        (["layers.0.q_proj.qweight", "layers.0.q_proj.qzeros"], "gptq or awq"),
        (["layers.0.q_proj.weight", "layers.0.q_proj.weight_scale_inv"], "FP8"),
        (["layers.0.mlp.experts.down_proj_blocks", "layers.0.mlp.experts.down_proj_scales"], "MXFP4"),
        (["layers.0.q_proj.weight.absmax", "layers.0.q_proj.weight.quant_map"], "bitsandbytes"),
    ],
)
def test_packed_tensors_without_a_word_in_the_configuration(names: list[str], method: str) -> None:
    with pytest.raises(M3Error, match=f"MODEL is quantised by {method} "):
        quantised.refuse("MODEL", {}, names)
    quantised.refuse("MODEL", {}, ["layers.0.q_proj.weight", "layers.0.mlp.experts.down_proj"])


def test_a_tensor_of_eight_bits(recipe: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "b" / "model-00002-of-00003.safetensors"
    state = load_file(file)
    name = next(iter(state))
    save_file({**state, name: state[name].to(torch.float8_e4m3fn)}, file, metadata={"format": "pt"})
    refused(recipe, tmp_path, f"tensor {name} is F8_E4M3 (quantised: give the model it was made from)")


def test_the_same_rope_in_old_and_new_words(recipe: Recipe, tmp_path: Path) -> None:
    def renew(config: dict[str, Any]) -> None:
        del config["rope_theta"], config["rope_scaling"], config["head_dim"]
        config["rope_parameters"] = {"rope_theta": 10000.0, "rope_type": "default"}

    edit_json(tmp_path / "b", renew)
    check(recipe, Store(tmp_path / "store"))


def test_lineage(recipe: Recipe, tmp_path: Path) -> None:
    write_model(tmp_path / "stranger", random_weights(Shape(), 99))
    of = replace(recipe, experts=(recipe.experts[0], Source(str(tmp_path / "stranger"))))
    refused(of, tmp_path, "stranger is not a fine-tune of", "1.4 times", "check_lineage=false")
    for method in ("average", "ties"):
        params = {"scaling": 1.0, "retain": 0.5} if method == "ties" else {}
        refused(replace(of, method=f"m3_exp.merging.methods.{method}:{method}", params=params), tmp_path, "stranger")
    check(replace(of, check_lineage=False), Store(tmp_path / "store"))


def test_vocabulary_policy(recipe: Recipe, tmp_path: Path, weights: Three) -> None:
    write_model(tmp_path / "longer", resized(weights[2], 266, 3))
    of = replace(recipe, experts=(recipe.experts[0], Source(str(tmp_path / "longer"))))
    refused(replace(of, vocab="refuse"), tmp_path, "264", "266", "vocab=mean")
    flow = stream(of, Store(tmp_path / "store"))
    merged = dict(flow)
    assert merged[EMBEDDING].shape == (266, 32)
    base, a = (w[EMBEDDING].double().mean(0) for w in weights[:2])
    longer = resized(weights[2], 266, 3)[EMBEDDING][264:].double()
    expected = base + 0.7 * ((a - base) + (longer - base))
    assert torch.allclose(merged[EMBEDDING][264:].double(), expected, rtol=2**-8, atol=1e-6)
    assert set(flow.report["touched_rows"]) == {EMBEDDING, "lm_head.weight"}


def test_float16_overflow_names_the_tensor(recipe: Recipe, tmp_path: Path) -> None:
    of = replace(recipe, params={"scaling": 1e7}, dtype="float16")
    refused(of, tmp_path, "NaN or Inf in float16", "bfloat16 or float32")
    with pytest.raises(M3Error, match="float16"):
        list(stream(of, Store(tmp_path / "store")))


def test_outs(recipe: Recipe, tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "old.txt").write_text("kept")
    refused(recipe, tmp_path, f"out={used}", "not empty", outs=[used])
    refused(recipe, tmp_path, "not empty", outs=[tmp_path / "new", used])
    refused(recipe, tmp_path, "twice", outs=[tmp_path / "x", tmp_path / "x"])
    assert (used / "old.txt").read_text() == "kept"


def test_a_disk_that_fills_up(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some blocks; what was written is removed."""
    put, times = os.pwrite, iter(range(10**6))

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if next(times) >= 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    refused(recipe, tmp_path, "cannot write the merged model (No space left on device): make room")


def test_disk_forecast(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_SPARE", 1 << 60)  # no disk has that much to spare
    refused(recipe, tmp_path, "the output takes", "GB free", str(tmp_path))


def test_parameters_come_before_files(tmp_path: Path) -> None:
    nowhere = Source("/nowhere")
    with pytest.raises(M3Error, match="no parameter retain"):
        check(Recipe(nowhere, (nowhere,), TASK, {"scaling": 1.0, "retain": 0.5}), Store(tmp_path / "store"))


def test_forecast(recipe: Recipe, tmp_path: Path, weights: Three) -> None:
    count = sum(value.numel() for value in weights[0].values())
    found = forecast(recipe, Store(tmp_path / "store"))
    assert (found.parameters, found.output_bytes) == (count, 2 * count)
    assert 3 * 2 * count < found.input_bytes < 3 * 2 * count + 20000
    assert found.seconds > 0
    assert not (tmp_path / "store").exists()  # headers alone


def test_tokenizer_of_another_architecture(recipe: Recipe, tmp_path: Path) -> None:
    wide = Shape(hidden=64)
    write_model(tmp_path / "wide", random_weights(wide, 0), wide)
    with pytest.raises(M3Error, match="wide has head_dim=16"):
        write([recipe], [tmp_path / "out"], Store(tmp_path / "store"), tokenizer=Source(str(tmp_path / "wide")))
    write_model(tmp_path / "mute", random_weights(Shape(), 0), tokenizer=False)
    with pytest.raises(M3Error, match="holds no tokenizer"):
        write([recipe], [tmp_path / "out"], Store(tmp_path / "store"), tokenizer=Source(str(tmp_path / "mute")))
    assert not (tmp_path / "out").exists()
