"""Experts that give their tokens other rows: refused, or laid out by tokens as mergekit lays them out."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from m3_exp.actions import merge
from m3_exp.command_line import CommandLine
from m3_exp.merging.canonical import recipe_key
from m3_exp.merging.tokenizer import vocabulary
from m3_exp.merging.tokens import places
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source
from tests import mergekit_peer as peer
from tests.models import AVERAGE, Shape, random_weights, write_model
from tests.test_recipes_mergekit import PEER, needs_mergekit

FIRST = ["<unk>", "<s>", "</s>"]
TOKENS = {
    "base": [*FIRST, *"abcdef", "only-base"],
    "one": [*FIRST, *"fedcba", "x", "<tool>"],
    "two": [*FIRST, *"abcdef", "y", "x"],
}
WEIGHTS = {"one": 0.25, "two": 0.75}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def write_tokens(folder: Path, tokens: Sequence[str]) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(vocab={token: row for row, token in enumerate(tokens)}, merges=[], unk_token="<unk>"))
    ends = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=core, **ends)
    if "<tool>" in tokens:
        fast.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, (name, tokens) in enumerate(TOKENS.items()):
        shape = Shape(vocab=len(tokens), hidden=16, inner=32, heads=2, kv_heads=1)
        write_model(root / name, random_weights(shape, seed, torch.float32), shape=shape)
        write_tokens(root / name, tokens)
    return root


def made(models: Path, out: Path, *words: str) -> dict[str, Tensor]:
    """Merge by `m3 merge` and return the tensors."""
    family = f"family.experts={{one: {models / 'one'}, two: {models / 'two'}}}"
    fixed = ("ratio=fixed", "ratio.lam=0.25", "dtype=float32", "check_lineage=false", f"store={out.parent / 'store'}")
    merge(CommandLine(("family=local", f"family.base={models / 'base'}", family, *fixed, f"out={out}", *words)))
    return dict(load_file(out / "model.safetensors"))


def rows_of(models: Path, name: str) -> dict[str, dict[str, Tensor]]:
    """Return of embedding and head the row of each token of a model, in float64."""
    held = load_file(models / name / "model.safetensors")
    return {
        key: {token: held[key][row].double() for row, token in enumerate(TOKENS[name])} for key in (EMBEDDING, HEAD)
    }


def expected(models: Path, token: str, key: str, scaling: float) -> Tensor:
    """Return the row that task arithmetic has for a token; with scaling 1 it is the average."""
    own = {name: rows_of(models, name)[key] for name in TOKENS}
    having = ["base"] if token in own["base"] else [name for name in WEIGHTS if token in own[name]]
    missing = torch.stack([own[name][token] for name in having]).mean(0)
    base = own["base"].get(token, missing)
    moved = [weight * (own[name].get(token, missing) - base) for name, weight in WEIGHTS.items()]
    return base + scaling * torch.stack(moved).sum(0)


METHODS = {"average": ["method=average"], "task_arithmetic": ["method=task_arithmetic", "method.scaling=0.8"]}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tokenizer", ["union", "base", "one"])
def test_rows_follow_their_tokens(models: Path, tmp_path: Path, method: str, tokenizer: str) -> None:
    merged = made(models, tmp_path / "out", *METHODS[method], f"tokenizer={tokenizer}")
    rows = vocabulary(tmp_path / "out")
    assert rows is not None
    assert {*rows} == (
        {token for held in TOKENS.values() for token in held} if tokenizer == "union" else {*TOKENS[tokenizer]}
    )
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == len(rows)
    for key in (EMBEDDING, HEAD):
        assert len(merged[key]) == len(rows)
        for token, row in rows.items():
            wanted = expected(models, token, key, 1.0 if method == "average" else 0.8)
            torch.testing.assert_close(merged[key][row].double(), wanted, rtol=0, atol=1e-6, msg=f"{key} {token}")


def test_by_default_moved_tokens_are_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(M3Error) as caught:
        made(models, tmp_path / "out", "method=average")
    told = str(caught.value)
    assert "'f' is row 3 and 8" in told
    assert "and 4 more" in told  # of a to f and x
    assert "tokenizer=union" in told
    assert "\n" not in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"model": 3}', '{"model": {"vocab": {"a": -1}}}', '{"model": {"vocab": {"a": "x"}}}',
     '{"model": {"vocab": {}}, "added_tokens": [{"id": 1}]}', '{"model": {"vocab": 3}}'],
)  # fmt: skip
def test_a_broken_tokenizer_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(M3Error) as caught:
        vocabulary(tmp_path)
    assert "tokenizer.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_vocabularies_of_other_files(tmp_path: Path) -> None:
    assert vocabulary(tmp_path) is None
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "added_tokens.json").write_text('{"<x>": 2}')
    assert vocabulary(tmp_path) == {"a": 0, "b": 1, "<x>": 2}
    unigram = {"model": {"vocab": [["<unk>", 0.0], ["b", -1.5]]}, "added_tokens": [{"id": 0, "content": "<unk>"}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(unigram))
    assert vocabulary(tmp_path) == {"<unk>": 0, "b": 1, "<x>": 2}


def test_without_a_tokenizer_nothing_is_known_of_tokens(models: Path, tmp_path: Path) -> None:
    merged = made(models, tmp_path / "out", "method=average", "tokenizer=none")
    assert len(merged[EMBEDDING]) == len(TOKENS["one"])


def test_where_tokens_agree_the_recipe_is_the_same(tmp_path: Path) -> None:
    """Rows past a tokenizer stay, and so does the key that a store may have."""
    shape = Shape(vocab=16)
    for seed, name in enumerate(("base", "one", "two")):
        write_model(tmp_path / name, random_weights(shape, seed, torch.float32), shape=shape)
        write_tokens(tmp_path / name, TOKENS["base"])
    base, one, two = (Source(str(tmp_path / name)) for name in ("base", "one", "two"))
    keys = set()
    for tokens in ("", "union", str(base), str(two)):
        recipe = Recipe(base, (one, two), AVERAGE, {}, (0.25, 0.75), tokens=tokens, check_lineage=False)
        keys.add(recipe_key(recipe, Store(tmp_path / "store")))
    assert len(keys) == 1


def test_the_key_does_not_depend_on_the_order_of_experts(models: Path, tmp_path: Path) -> None:
    base, one, two = (Source(str(models / name)) for name in TOKENS)
    keys = {
        recipe_key(Recipe(base, experts, AVERAGE, {}, weights, tokens=tokens), Store(tmp_path / "store"))
        for tokens in (str(base), str(one))
        for experts, weights in (((one, two), (0.25, 0.75)), ((two, one), (0.75, 0.25)))
    }
    assert len(keys) == 2


def test_places_by_hand() -> None:
    target: Mapping[str, int] = {"a": 0, "b": 1, "c": 2, "d": 3}
    tokens = [{"a": 5, "b": 1}, {"b": 0, "c": 2}, {"b": 7, "c": 8, "a": 9}]
    found = places(target, tokens, base=2)
    assert found[0] == [((0, 5),), ((0, 1),), ((2, 8),), ()]
    assert found[1] == [((2, 9),), ((1, 0),), ((1, 2),), ()]
    assert places(target, [{"a": 0}, {}, {"a": 3}], base=1)[1] == [((0, 0), (2, 3)), (), (), ()]  # the mean of two


THEIRS = """
merge_method: {method}
base_model: "{base}"
models:
- {{model: "{base}", parameters: {{weight: 0.0}}}}
- {{model: "{one}", parameters: {{weight: 0.25}}}}
- {{model: "{two}", parameters: {{weight: 0.75}}}}
parameters: {parameters}
tokenizer_source: {source}
dtype: float32
"""


@pytest.mark.slow
@needs_mergekit
@pytest.mark.parametrize("source", ["union", "base", "one"])
def test_mergekit_lays_them_out_alike(models: Path, tmp_path: Path, source: str) -> None:
    recipes = {}
    where = source if source in ("union", "base") else f'"{models / source}"'
    paths = {name: models / name for name in TOKENS}
    for method, ours, more in (("linear", "average", "{}"), ("task_arithmetic", "task_arithmetic", "{lambda: 0.8}")):
        recipes[ours] = THEIRS.format(method=method, **paths, source=where, parameters=more)
    (tmp_path / "recipes.json").write_text(json.dumps(recipes))
    line = [str(PEER), peer.__file__, str(tmp_path), str(tmp_path / "recipes.json")]
    subprocess.run(line, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    for method in recipes:
        theirs = load_file(tmp_path / method / "model.safetensors")
        merged = made(models, tmp_path / f"ours-{method}", *METHODS[method], f"tokenizer={source}")
        rows, their_rows = vocabulary(tmp_path / f"ours-{method}"), vocabulary(tmp_path / method)
        assert rows is not None
        assert their_rows is not None
        assert {*their_rows} == {*rows}
        theirs_at, ours_at = ([at[token] for token in sorted(at)] for at in (their_rows, rows))
        for key, value in merged.items():
            in_order = key in (EMBEDDING, HEAD)
            found, wanted = (value[ours_at], theirs[key][theirs_at]) if in_order else (value, theirs[key])
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6, msg=f"{method} {key}")
