"""Checkpoints as people have them: heads, prefixes, buffers, scalars, lost indices, tokenizers; and what is loaded
before it gets its name. The truth is transformers' own loading, or arithmetic in the test.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.stream import stream, write
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source
from tests.models import AVERAGE, Shape, Weights, fine_tuned, random_weights, write_model, write_shards, write_tokenizer

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
ROOT = Path(__file__).parents[1]


def merged(tmp_path: Path, *names: str, **settings: Any) -> Path:
    """Average models over the base in float32; return where the checkpoint lies."""
    experts = tuple(Source(str(tmp_path / name)) for name in names)
    recipe = Recipe(Source(str(tmp_path / "base")), experts, AVERAGE, dtype="float32")
    out = tmp_path / "out"
    write([recipe], [out], Store(tmp_path / "store"), settings.pop("tokenizer", experts[0]), **settings)
    return out


def said(tmp_path: Path, *names: str, **settings: Any) -> str:
    with pytest.raises(M3Error) as caught:
        merged(tmp_path, *names, **settings)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def gemma(folder: Path, seed: int, head: bool | None = None, **config: Any) -> Path:
    """Write a tiny Gemma whose config.json says nothing of its tied head; `head`: stores one, equal or not."""
    from transformers import GemmaConfig, GemmaForCausalLM

    settings = GemmaConfig(
        vocab_size=264, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64, eos_token_id=2, bos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    gemma_model: Any = GemmaForCausalLM(settings)  # type: ignore[no-untyped-call]
    weights: Weights = {n: v.detach().clone() for n, v in gemma_model.named_parameters()}
    weights = fine_tuned(weights, seed, 0.02) if seed else weights
    if head is not None:
        weights[HEAD] = weights[EMBEDDING].clone() if head else weights[EMBEDDING] + 1
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    text = {**json.loads(settings.to_json_string()), "architectures": ["GemmaForCausalLM"], **config}
    if "tie_word_embeddings" not in config:
        text.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(text))
    write_tokenizer(folder, 264)
    return folder


def loaded(folder: Path) -> Weights:
    """Return the weights as transformers loads them, all of them found."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    model, info = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    state: Weights = model.state_dict()
    return state


@pytest.mark.parametrize("heads", [(True, None, None), (None, True, None), (None, True, True), (True, True, True)])
def test_heads_equal_to_the_embedding(tmp_path: Path, heads: tuple[bool | None, ...]) -> None:
    for seed, (name, head) in enumerate(zip(("base", "a", "b"), heads, strict=True)):
        gemma(tmp_path / name, seed, head)
    a, b = loaded(tmp_path / "a"), loaded(tmp_path / "b")
    out = loaded(merged(tmp_path, "a", "b"))
    assert sorted(out) == sorted(a)
    for name, value in out.items():
        assert torch.allclose(value, (a[name] + b[name]) / 2, rtol=0, atol=1e-6), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is True


def test_an_untied_config_with_an_equal_head_beside_tied_models(tmp_path: Path) -> None:
    gemma(tmp_path / "base", 0)
    gemma(tmp_path / "a", 1, True, tie_word_embeddings=False)
    gemma(tmp_path / "b", 2, tie_word_embeddings=True)
    a, b = loaded(tmp_path / "a"), loaded(tmp_path / "b")
    out = loaded(merged(tmp_path, "a", "b"))
    for name, value in out.items():
        assert torch.allclose(value, (a[name] + b[name]) / 2, rtol=0, atol=1e-6), name


def test_a_head_that_differs_from_what_the_config_ties(tmp_path: Path) -> None:
    gemma(tmp_path / "base", 0)
    gemma(tmp_path / "a", 1, False)
    assert "lm_head.weight holds other weights" in said(tmp_path, "a")


def test_gpt2_with_and_without_prefix_and_masks(tmp_path: Path) -> None:
    """openai-community/gpt2 stores causal masks and no prefix, its fine-tunes the prefix and no masks."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=264, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2, pad_token_id=2
    )
    for seed, name in enumerate(("base", "a", "b")):
        torch.manual_seed(0)
        model: Any = GPT2LMHeadModel(config)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for value in model.parameters():
                value += 0.001 * seed * torch.randn_like(value)
        model.save_pretrained(tmp_path / name)
        write_tokenizer(tmp_path / name, 264)
    for name in ("base", "b"):
        path = tmp_path / name / "model.safetensors"
        bare = {key.removeprefix("transformer."): value for key, value in load_file(path).items()}
        for layer in range(2 if name == "base" else 0):
            bare[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
            bare[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        save_file(bare, path, metadata={"format": "pt"})
    a, b = loaded(tmp_path / "a"), loaded(tmp_path / "b")
    out = loaded(merged(tmp_path, "a", "b"))
    for name, mean in out.items():
        assert torch.allclose(mean, (a[name] + b[name]) / 2, rtol=0, atol=1e-6), name
    of_base = open_model(Source(str(tmp_path / "base")), Store(tmp_path / "store"))
    assert not any(name.endswith(".attn.bias") for name in of_base.tensors)


@pytest.fixture
def three(tmp_path: Path) -> list[Weights]:
    base = random_weights(Shape(), 0, torch.float32)
    weights = [base, fine_tuned(base, 1), fine_tuned(base, 2)]
    for name, one in zip(("base", "a", "b"), weights, strict=True):
        write_model(tmp_path / name, one)
    return weights


def rewritten(folder: Path, weights: Weights, layout: str = "safetensors", shards: int = 1) -> None:
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        path.unlink()
    write_shards(folder, weights, layout, shards)


def test_scalars_are_merged(tmp_path: Path, three: list[Weights]) -> None:
    scale = "model.layers.0.self_attn.k_scale"
    for name, weights, value in zip(("base", "a", "b"), three, (1.0, 2.0, 5.0), strict=True):
        rewritten(tmp_path / name, {**weights, scale: torch.tensor(value)})
    found = load_file(merged(tmp_path, "a", "b") / "model.safetensors")[scale]
    assert found.shape == ()
    assert found.item() == 3.5
    told = json.loads((tmp_path / "out" / "recipe.json").read_text())["report"]
    assert told["loaded_by"] == "LlamaForCausalLM"
    assert told["left_out"] == [scale]


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_empty_tensors_are_refused(tmp_path: Path, three: list[Weights], layout: str) -> None:
    rewritten(tmp_path / "a", {**three[1], "model.x.weight": torch.empty(0, 4)}, layout)
    source = Source(str(tmp_path / "a"))
    with pytest.raises(M3Error, match=r"model\.x\.weight is empty \(its shape is \(0, 4\)\)"):
        stream(Recipe(source, (source,), AVERAGE, check_lineage=False), Store(tmp_path / "store"))


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_shards_without_their_index(tmp_path: Path, three: list[Weights], layout: str) -> None:
    rewritten(tmp_path / "a", three[1], layout, shards=3)
    next((tmp_path / "a").glob("*.index.json")).unlink()
    model = open_model(Source(str(tmp_path / "a")), Store(tmp_path / "store"))
    for name, value in three[1].items():
        assert torch.equal(model.read(name, 0, value.numel()), value.reshape(-1))
    last = next((tmp_path / "a").glob("*-00003-of-00003.*"))
    last.unlink()
    with pytest.raises(M3Error, match=rf"holds .*00001-of-00003.* nor {last.name}: fetch them"):
        open_model(Source(str(tmp_path / "a")), Store(tmp_path / "store"))


def test_safetensors_are_taken_where_bin_lies_beside(tmp_path: Path, three: list[Weights]) -> None:
    write_shards(tmp_path / "a", three[2], "bin", 1)
    model = open_model(Source(str(tmp_path / "a")), Store(tmp_path / "store"))
    assert torch.equal(model.read(HEAD, 0, three[1][HEAD].numel()), three[1][HEAD].reshape(-1))


# ------------------------------------------------------------------------------------------------------ tokenizers


def without_tokenizer(folder: Path) -> None:
    for path in folder.iterdir():
        if "token" in path.name or path.name == "chat_template.jinja":
            path.unlink()


@pytest.mark.parametrize("name", ["tekken.json", "spiece.model", "qwen.tiktoken"])
def test_a_tokenizer_of_another_library_goes_along(tmp_path: Path, three: list[Weights], name: str) -> None:
    without_tokenizer(tmp_path / "a")
    (tmp_path / "a" / name).write_bytes(b'{"config": {"x": 1}}')
    assert (merged(tmp_path, "a", "b") / name).read_bytes() == b'{"config": {"x": 1}}'


def test_no_tokenizer(tmp_path: Path, three: list[Weights]) -> None:
    without_tokenizer(tmp_path / "a")
    assert "tokenizer=base" in said(tmp_path, "a", "b")
    out = merged(tmp_path, "a", "b", with_tokenizer=False)
    assert not [path for path in out.iterdir() if "token" in path.name]
    assert sorted(loaded(out)) == sorted(three[0])
    shutil.rmtree(out)
    assert (merged(tmp_path, "a", "b", tokenizer=Source(str(tmp_path / "base"))) / "tokenizer.json").exists()


def test_auto_map_stays_behind_with_its_code(tmp_path: Path, three: list[Weights]) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        path = tmp_path / "a" / name
        path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoTokenizer": "code.Mine"}}))
    out = merged(tmp_path, "a", "b")
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in json.loads((out / name).read_text())


# ------------------------------------------------------------------------------------------------- loaded before


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"intermediate_size": 65}, ["mlp.", "(32, 64)", "(32, 65)", "verify=false"]),
        ({"num_hidden_layers": 3}, ["LlamaForCausalLM needs model.layers.2.", "random weights"]),
        ({"num_hidden_layers": 1}, ["fewer layers", "model.layers.1."]),
        ({"attention_bias": True}, ["needs model.layers.0.self_attn.", ".bias"]),
    ],
)
def test_what_transformers_would_not_load_is_refused(
    tmp_path: Path, three: list[Weights], config: dict[str, Any], words: list[str]
) -> None:
    for name in ("base", "a", "b"):
        path = tmp_path / name / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    told = said(tmp_path, "a", "b")
    assert all(word in told for word in words), told
    assert (merged(tmp_path, "a", "b", verify=False) / "config.json").exists()


def test_a_head_that_was_lost(tmp_path: Path, three: list[Weights]) -> None:
    for name, weights in zip(("base", "a", "b"), three, strict=True):
        rewritten(tmp_path / name, {key: value for key, value in weights.items() if key != HEAD})
    assert "needs lm_head.weight" in said(tmp_path, "a", "b")


def test_an_unknown_architecture_is_noted(tmp_path: Path, three: list[Weights]) -> None:
    for name in ("base", "a", "b"):
        path = tmp_path / name / "config.json"
        changed = {**json.loads(path.read_text()), "model_type": "home_made", "architectures": ["Mine"]}
        path.write_text(json.dumps(changed))
    out = merged(tmp_path, "a", "b")
    assert "home_made" in json.loads((out / "recipe.json").read_text())["report"]["loaded_by"]


# ----------------------------------------------------------------------------------------------------- permissions


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_permission_denied_is_called_that(three: list[Weights]) -> None:
    names = ["model.safetensors", "config.json", "tokenizer.json", "pytorch_model.bin", "model.safetensors.index.json"]
    code = (
        "import sys, pathlib\n"
        "from m3_exp.merging.checkpoint import open_model\n"
        "from m3_exp.merging.tokenizer import tokenizer_directory\n"
        "from m3_exp.store import Store\n"
        "from m3_exp.types import M3Error, Source\n"
        "for folder in sys.argv[2:]:\n"
        "    source, store = Source(folder), Store(pathlib.Path(sys.argv[1]))\n"
        "    try: open_model(source, store); tokenizer_directory(source, store)\n"
        "    except M3Error as error: print(error)"
    )
    with tempfile.TemporaryDirectory() as root:  # pytest keeps its own from other users
        folders = []
        for i, name in enumerate(names):
            layout, shards = "bin" if name.endswith(".bin") else "safetensors", 2 if "index" in name else 1
            folders.append(write_model(Path(root, str(i)), three[1], layout=layout, shards=shards))  # type: ignore[arg-type]
            for path in folders[-1].iterdir():
                path.chmod(0o600 if path.name == name else 0o644)
        for path in (Path(root), *folders):
            path.chmod(0o755)
        Path(root, "home").mkdir()
        os.chown(Path(root, "home"), 65534, 65534)
        home = str(Path(root, "home"))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": home, "NUMBA_CACHE_DIR": home}
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code]
        command = [*user, f"{home}/store", *map(str, folders)]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home)
    told = ran.stdout.splitlines()
    wanted = [f"{folder / name}: permission denied" for folder, name in zip(folders, names, strict=True)]
    assert len(told) == len(wanted), ran.stdout + ran.stderr
    assert all(line.startswith(want) for line, want in zip(told, wanted, strict=True)), told
