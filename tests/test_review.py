"""What a hostile reader found: each of these was wrong once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from m3_exp import cli, config
from m3_exp.answers import complete_items
from m3_exp.planning import build
from m3_exp.results import Results, is_contained
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.store import Store
from m3_exp.types import Answer, EvaluatorSpec, M3Error, Problem
from tests.records import typed


def keys(store: Path, *args: str) -> list[str]:
    planned = build(config.request(["family=lab", "pair=base", *args]).configs)
    desk = Results(Store(store), planned.engine)
    return [desk.cell_key(cell) for cell in planned.cells]


@pytest.mark.slow
def test_a_changed_file_of_judgments_is_another_cell(tmp_path: Path) -> None:
    file = tmp_path / "annotations.json"
    line = ["evaluator=[alpaca_eval]", "evaluator.alpaca_eval.judge=precomputed"]
    line += [f"evaluator.alpaca_eval.annotations={file}"]
    file.write_text("[]")
    first = keys(tmp_path, *line)
    assert keys(tmp_path, *line) == first
    file.write_text("[ ]")
    assert keys(tmp_path, *line) != first


@pytest.mark.slow
def test_a_changed_masked_model_is_another_cell(tmp_path: Path) -> None:
    model = tmp_path / "bert"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"one")
    (model / "config.json").write_text("{}")
    line = ["evaluator=[prompt_bench_cola]", "evaluator.prompt_bench_cola.attack=bertattack"]
    line += [f"evaluator.prompt_bench_cola.masked_lm={model}"]
    first = keys(tmp_path, *line)
    (model / "model.safetensors").write_bytes(b"two")
    assert keys(tmp_path, *line) != first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "one", "other"),
    [
        ("prompt_bench_sst2", "protocol=paper", "protocol=adaptive"),
        ("prompt_bench_sst2", "masked_lm=null", "masked_lm=elsewhere"),
        ("hendrycks_math", "extractor=math_verify equivalence=paper", "extractor=math_verify equivalence=math_verify"),
        ("livebench_typos", "chat_template=true template=paper", "chat_template=true template=livebench"),
        ("alpaca_eval", "judge=rules order_seed=1", "judge=rules order_seed=2"),
    ],
)
def test_one_thing_never_has_two_names(benchmark: str, one: str, other: str, tmp_path: Path) -> None:
    def key(settings: str) -> list[str]:
        return keys(
            tmp_path, f"evaluator=[{benchmark}]", *(f"evaluator.{benchmark}.{text}" for text in settings.split())
        )

    assert key(one) == key(other)
    assert key(one) != key(f"{one} max_tokens=7"), "a setting that counts is another cell"


def test_attacked_answers_need_attacked_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"id": "0", "text": "positive"}) + "\n")
    assert cli.main(["score", "prompt_bench_sst2", str(answers), "items=lab", "attack=deepwordbug"]) == 2
    assert "needs the attacked items" in capsys.readouterr().err


def test_the_labs_short_answers_and_judge_belong_to_its_items() -> None:
    official = config.request(["pair=base", "items=official"]).configs[0].evaluators
    settings = {spec.name: spec.settings for spec in official}
    assert settings["gsm8k"]["max_tokens"] == 1024
    assert settings["alpaca_eval"]["judge"] == "chatgpt_fn"
    lab = {spec.name: spec.settings for spec in config.request(["pair=base"]).configs[0].evaluators}
    assert lab["gsm8k"]["max_tokens"] < 100
    assert lab["alpaca_eval"]["judge"] == "rules"


def test_an_item_with_a_missing_sample_is_not_scored_on_fewer() -> None:
    answers = [Answer("a", "x", 0), Answer("a", "y", 1), Answer("b", "x", 0)]
    assert [answer.id for answer in complete_items(answers, 2)] == ["a", "a"]


def test_a_weak_result_stands_only_while_weak_is_allowed() -> None:
    spec = EvaluatorSpec("humaneval", "evaluators.humaneval:HumanEval")
    usual, allowing = (load_evaluator(replace(spec, settings=more)) for more in ({}, {"allow_weak": True}))
    weak, strong = (
        typed({"result": {"n_unscored": 0}, "scores": [{"id": "a", "value": 1.0, "notes": {"sandbox": x}}]})
        for x in ("weak", "bubblewrap")
    )
    assert not is_contained(weak, usual)
    assert is_contained(weak, allowing)
    assert is_contained(strong, usual)


def test_damaged_tests_are_unscored_and_a_blank_gold_text_is_none() -> None:
    coding = load_evaluator(EvaluatorSpec("livebench_coding", "evaluators.livebench_coding:LiveBenchCoding"))
    row = {"question_id": "q", "task": "LCB_generation", "turns": ["?"], "private_test_cases": "xx"}
    (score,) = coding.score([Problem("q", row)], [Answer("q", "```\nprint(1)\n```")])
    assert (score.value, "left_out" in score.notes) == (None, False)
    assert coding.summarize([score]).n_unscored == 1
    typos = load_evaluator(EvaluatorSpec("livebench_typos", "evaluators.livebench_typos:LiveBenchTypos"))
    blank = Problem("t", {"question_id": "t", "task": "typos", "turns": ["Fix.\n\nteh"], "ground_truth": " "})
    (score,) = typos.score([blank], [Answer("t", "anything")])
    assert score.value is None


def test_an_address_with_a_password_is_refused_and_not_shown() -> None:
    settings = {"judge": "local", "judge_model": "m", "endpoint": "http://:sk-SECRET@127.0.0.1:9/v1"}
    with pytest.raises(M3Error, match="not an address") as caught:
        load_evaluator(EvaluatorSpec("alpaca_eval", "evaluators.alpaca:AlpacaEval", settings))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bad.parquet", "PAR1 half"),
        ("deep.jsonl", "[" * 100_000),
        ("prepared.json", '{"benchmark": "prompt_bench_sst2", "problems": [{"id": "0"}]}'),
    ],
)
def test_a_damaged_item_file_is_one_line(
    name: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"id": "0", "text": "positive"}) + "\n")
    assert cli.main(["score", "prompt_bench_sst2", str(answers), f"items={tmp_path / name}"]) == 2
    assert name in capsys.readouterr().err


def test_out_must_not_be_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"id": "0", "text": "positive"}) + "\n")
    assert cli.main(["score", "prompt_bench_sst2", str(answers), "items=lab", "--out", str(tmp_path)]) == 2
    assert "is a directory" in capsys.readouterr().err


@pytest.mark.slow
def test_unscored_answers_say_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"id": "0", "text": "hello"}) + "\n")
    line = ["score", "alpaca_eval", str(answers), "items=lab", "judge=chatgpt_fn", f"store={tmp_path / 'store'}"]
    assert cli.main(line) == 1
    printed = json.loads(capsys.readouterr().out)
    assert any("OPENAI_API_KEY" in reason for reason in printed["reasons"])
