"""The parts of the engines that need no process: the guard on streamed weights, stop strings, what crosses the pipe."""

import json
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from m3_exp.engines import vllm, wire
from m3_exp.engines.text import Text, Vocabulary, seed
from m3_exp.engines.weights import Expected, Fitted
from m3_exp.store import decoded
from m3_exp.types import EngineSettings, M3Error, Prompt, Recipe, Sampling, Source, plain

EXPECTED = Expected({"embed": (6, 2), "norm": (2,)}, ("embed",))
EMBED, NORM = ("embed", torch.ones(6, 2)), ("norm", torch.ones(2))


def test_exact_weights_pass() -> None:
    fitted = Fitted([EMBED, ("layers.0.self_attn.rotary_emb.inv_freq", torch.ones(1)), NORM], EXPECTED)
    assert [name for name, _ in fitted] == ["embed", "norm"]
    assert (fitted.complete, fitted.rows) == (True, 6)


def test_a_narrow_embedding_is_filled_with_zeros() -> None:
    fitted = Fitted([("embed", torch.ones(4, 2)), NORM], EXPECTED)
    weights = dict(fitted)
    assert fitted.rows == 4
    assert torch.equal(weights["embed"], torch.tensor([[1.0, 1.0]] * 4 + [[0.0, 0.0]] * 2))


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        ([EMBED], "1 tensors are missing, norm"),
        ([EMBED, NORM, NORM], "norm came twice"),
        ([EMBED, NORM, ("more", torch.ones(1))], "more is unknown"),
        ([EMBED, ("norm", torch.ones(3))], r"norm has shape \[3\], the engine was started for \[2\]"),
        ([("embed", torch.ones(7, 2)), NORM], r"embed has shape \[7, 2\]"),
    ],
)
def test_other_weights_are_refused(stream: list[tuple[str, torch.Tensor]], words: str) -> None:
    fitted = Fitted(stream, EXPECTED)
    with pytest.raises(M3Error, match=words):
        list(fitted)
    assert not fitted.complete


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        (["old"], r"item 7 was written by the weights \['old'\], loaded are new"),
        (["old", "new"], "written by the weights"),  # exchanged in the middle
        ([], "written by the weights"),  # vLLM says of none
    ],
)
def test_an_answer_of_other_weights_is_refused(versions: list[str], words: str) -> None:
    spans = [SimpleNamespace(version=version) for version in versions] or None
    output = SimpleNamespace(text="x", token_ids=[1, 2], finish_reason="stop", weight_versions=spans)
    with pytest.raises(RuntimeError, match=words):
        vllm._answer(Prompt("7", (1,)), 0, output, "new")
    output.weight_versions = [SimpleNamespace(version="new")]
    assert vllm._answer(Prompt("7", (1,)), 0, output, "new").text == "x"


def test_the_cache_is_sized_by_attention_alone() -> None:
    sizes = {"num_hidden_layers": 3, "hidden_size": 64}
    grouped = SimpleNamespace(**sizes, num_attention_heads=4, num_key_value_heads=2, head_dim=32)
    assert vllm._cache_bytes(grouped, "float32") == 2 * 3 * (2 * 32) * 4
    assert vllm._cache_bytes(SimpleNamespace(**sizes, num_attention_heads=4), "bfloat16") == 2 * 3 * 64 * 2
    assert vllm._cache_bytes(SimpleNamespace(**sizes), "float32") == 0  # Mamba


def _bytes() -> Vocabulary:
    """A tokenizer whose tokens are single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer), frozenset(), len(alphabet))


def _written(answer: str, stops: Sequence[str]) -> tuple[str, int]:
    """Feed an answer byte by byte; return the text and the number of tokens taken."""
    words = _bytes()
    text = Text(words, words.tokenizer.encode("Prompt: "), stops)
    for count, token in enumerate(words.tokenizer.encode(answer), 1):
        if text.add(token):
            return text.text, count
    return text.text, count


@pytest.mark.parametrize(
    ("answer", "stops", "expected", "tokens"),
    [
        ("Zoë: 7 €", (), "Zoë: 7 €", 11),
        ("Zoë: 7 €, and", ("€",), "Zoë: 7 ", 11),
        ("one Instruction: two", ("Instruction:", "Instruction"), "one ", 15),
        ("aab", ("ab", "aab"), "a", 3),
        ("aab", ("aab", "ab"), "", 3),
        ("abc", ("bcd", "x"), "abc", 3),
        ("xx", ("x",), "", 1),
    ],
)
def test_stop_strings(answer: str, stops: tuple[str, ...], expected: str, tokens: int) -> None:
    assert _written(answer, stops) == (expected, tokens)


@pytest.mark.slow
def test_stop_strings_are_found_as_vllm_finds_them() -> None:
    check = pytest.importorskip("vllm.v1.engine.detokenizer").check_stop_strings
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        answer = "".join("abc"[i] for i in torch.randint(3, (12,), generator=generator))
        stops = ["".join("abc"[i] for i in torch.randint(3, (n,), generator=generator)) for n in (2, 3, 4)]
        text, count = _written(answer, stops)
        grown = next((n for n in range(1, 13) if check(answer[:n], 1, stops, False)), 12)
        found = check(answer[:grown], 1, stops, False)
        assert (text, count) == (answer[: found[1]] if found else answer, grown)


def test_seeds_differ_by_seed_item_and_sample() -> None:
    seeds = {
        seed(Sampling(max_tokens=1, seed=s), Prompt(item, ()), n) for s in range(3) for item in "ab" for n in range(3)
    }
    assert len(seeds) == 18
    assert seed(Sampling(max_tokens=9, seed=1), Prompt("a", (5,)), 0) in seeds


def test_nouns_survive_the_pipe() -> None:
    base = Source("package:x/y.gguf")
    recipe = Recipe(base, (Source("hub/id", "abc"), Source("b", adapter="c")), "m:f", {"scaling": 0.1}, (0.1, 0.9))
    masked = Recipe(base, (base,), "m:f", sparsify={"drop_rate": 0.2, "seed": 7}, vocab="refuse", check_lineage=False)
    for value in (recipe, masked):
        assert decoded(Recipe, json.loads(wire.line(value))) == value
    sampling = Sampling(max_tokens=3, stops=("x", "é\n"), temperature=0.7)
    assert decoded(Sampling, json.loads(wire.line(plain(sampling)))) == sampling
    settings = EngineSettings(cores=(0, 1), threads=2)
    assert decoded(EngineSettings, json.loads(wire.line(plain(settings)))) == settings
    assert wire.line({"text": "a\nb"}).count(b"\n") == 1
    assert json.loads(wire.line({"text": "\ud800"}))["text"] == "\ud800"
