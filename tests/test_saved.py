"""Answers out of the store and in again: `m3 export answers`, lm-eval's sample lines, journals, numbers as ids."""

import json
import sys
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from m3_exp.command_line import CommandLine
from m3_exp.scoring.evaluate import score_file
from m3_exp.scoring.saved import bare, guarded, read_answers
from m3_exp.types import Answer, EvaluatorSpec, M3Error, Problem
from m3_exp.views import answers
from m3_exp.views.answers import FORMATS
from m3_exp.views.lookup import Lookup
from tests.golden.commands import CONFIG, HERE, RECORDED, WORLD, call

DIRS = (HERE / "conf",)

ITEMS = [{"question": f"How many is {n}?", "answer": f"#### {n}"} for n in range(4)]
OWN = {"benchmark": "gsm8k", "sample": 0, "finish": "stop", "label": "lm single"}


@pytest.fixture
def spec(tmp_path: Path) -> EvaluatorSpec:
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    return EvaluatorSpec("gsm8k", "evaluators.gsm8k:GSM8K", items=str(items))


def file(tmp_path: Path, *rows: object, name: str = "answers.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def refused(path: Path, *more: Any) -> str:
    with pytest.raises(M3Error) as error:
        read_answers(path, *more)
    return str(error.value)


def problems(rows: list[dict[str, Any]] = ITEMS) -> dict[str, Problem]:
    return {str(number): Problem(str(number), row) for number, row in enumerate(rows)}


def test_numbers_as_ids(tmp_path: Path, spec: EvaluatorSpec) -> None:
    path = file(tmp_path, {"id": 2, "text": "The answer is: 2"}, {"id": "3", "text": "The answer is: 7"})
    assert score_file(spec, path)[0]["score"] == 50.0
    assert "an id may be a whole number" in refused(file(tmp_path, {"id": True, "text": "x"}))
    assert "an id may be a whole number" in refused(file(tmp_path, {"id": 2.5, "text": "x"}))


# ------------------------------------------------------------------------------------------------------------ lm-eval


def sampled(number: int, *texts: str, filter_: str = "strict-match", **more: object) -> dict[str, object]:
    return {
        "doc_id": number, "doc": ITEMS[number], "target": "...", "arguments": {}, "resps": [[*texts]],
        "filtered_resps": ["[invalid]"], "filter": filter_, "exact_match": 0.0, **more,
    }  # fmt: skip


def test_samples_of_lm_eval_are_the_raw_answers_of_one_filter(tmp_path: Path, spec: EvaluatorSpec) -> None:
    rows = [sampled(n, f"The answer is: {n // 3 * 3}") for n in (0, 3, 1)]
    path = file(tmp_path, *rows, *(row | {"filter": "flexible-extract"} for row in rows))
    found = score_file(spec, path)[0]
    assert (found["n"], round(float(str(found["score"])), 1)) == (3, 66.7)


def test_documents_in_another_order_are_found_by_their_text(tmp_path: Path) -> None:
    path = file(tmp_path, sampled(1, "a", "b", doc=ITEMS[3]))
    assert [(a.id, a.sample, a.text) for _, a in read_answers(path, problems())] == [("3", 0, "a"), ("3", 1, "b")]
    alien = file(tmp_path, sampled(1, "a", doc={"question": "Who?", "answer": "me"}))
    assert "doc_id 1 is not an item here" in refused(alien, problems())
    level = [{"problem": f"Find the value of x where x + {n} = 9.", "level": f"Level {n}"} for n in range(3)]
    path = file(tmp_path, sampled(0, "a", doc={**level[2], "level": "Level 0"}))
    assert read_answers(path, problems(level))[0][1].id == "2", "a level is no item's own"
    twice = [ITEMS[0], ITEMS[0]]
    assert read_answers(file(tmp_path, sampled(1, "a", doc=ITEMS[0])), problems(twice))[0][1].id == "1"
    assert read_answers(file(tmp_path, sampled(1, "a", doc={"x": 1})), problems())[0][1].id == "1"
    code = {"HumanEval/7": Problem("HumanEval/7", {"prompt": "def f():"})}
    path = file(tmp_path, sampled(0, "pass", doc={"task_id": "HumanEval/7", "prompt": "def f():"}))
    assert read_answers(path, code)[0][1].id == "HumanEval/7"


def test_log_likelihoods_are_no_texts(tmp_path: Path) -> None:
    path = file(tmp_path, sampled(0) | {"resps": [[[-1.5, False]], [[-0.5, True]]]})
    assert "holds no generated text" in refused(path, problems())


# ----------------------------------------------------------------------------------------------------------- journals


def journalled(key: str, text: str, prompt: str = "p", sample: int = 0) -> str:
    row = {"id": key, "text": text, "sample": sample, "n_tokens": 3, "finish": "stop", "prompt": prompt, "run": "r"}
    body = json.dumps(row)
    return f"{zlib.crc32(body.encode()):08x} {body}"


def test_a_journal_of_a_store(tmp_path: Path) -> None:
    lines = [journalled("gsm8k/1", "b", sample=1), journalled("gsm8k/1", "a"), journalled("gsm8k/1", "again")]
    path = file(tmp_path, *lines, journalled("gsm8k/ask-0f", "searched"))
    path.write_text(path.read_text() + "0f0f0f0f {torn")
    assert [answer for _, answer in read_answers(path, names=["gsm8k"])] == [Answer("1", "b", 1), Answer("1", "a", 0)]
    assert "no item of mbpp: m3 score gsm8k reads it" in refused(path, None, ["mbpp"])
    two = file(tmp_path, *lines, journalled("gsm8k/1", "c", prompt="q", sample=2))
    assert "item '1' is answered to two prompts" in refused(two, None, ["gsm8k"])
    damaged = file(tmp_path, lines[0].replace('"b"', '"c"'), lines[1])
    assert "is damaged (its checksum does not match)" in refused(damaged, None, ["gsm8k"])


# -------------------------------------------------------------------------------------------------------- our own files


def test_a_file_of_several_cells_asks_which(tmp_path: Path) -> None:
    rows = [{"id": "1", "text": key, "cell": f"{key}0f", **OWN} for key in "ab"]
    path = file(tmp_path, *rows, {"id": "9", "text": "x", "cell": "c0f", **OWN, "benchmark": "mbpp"})
    assert refused(path, None, ["gsm8k"]).endswith(
        "holds the answers of 2 cells on gsm8k, name one of them: cell=a0f (lm single); cell=b0f (lm single)"
    )
    assert [answer.text for _, answer in read_answers(path, None, ["gsm8k"], "b")] == ["b"]
    assert "cell=d is not one cell" in refused(path, None, ["gsm8k"], "d")
    assert read_answers(path, None, ["mbpp"])[0][1].id == "9"
    assert "holds no answers on humaneval: it holds gsm8k, mbpp" in refused(path, None, ["humaneval"])
    plain = file(tmp_path, {"id": "1", "text": "x"})
    assert "cell=a has no effect" in refused(plain, None, ["gsm8k"], "a")


@pytest.mark.parametrize("text", ["=1+1", "'=1", "''=1", "-5", "'quoted'", "", "\tx", "it's"])
def test_what_a_spreadsheet_would_take_for_a_formula_comes_back_as_it_was(text: str) -> None:
    assert bare(guarded(text)) == text
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t", "\r"))


# ----------------------------------------------------------------------------------------------- out of a store, and in


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    with tarfile.open(WORLD) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_exported_scores_as_the_store_says(form: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    asked = ["pair=lm_math", "method=average", "limit=6", *CONFIG, "store=store", *RECORDED]
    benchmarks = ["gsm8k", "hendrycks_math"]
    request = [*asked, f"evaluator=[{','.join(benchmarks)}]"]
    code, text = call(["export", "answers", *request, "--out", f"answers.{form}"])
    assert (code, text) == (0, "12 answers of 2 cells\n")
    words = [word for word in request if word not in CONFIG[:2]]
    found = {item.cell.evaluator.name: item.record for item in Lookup.of(CommandLine(tuple(words), False, DIRS)).found}
    for benchmark in benchmarks:
        record, scores = found[benchmark], Path(f"{form}-scores.jsonl")
        assert record is not None
        code, text = call(["score", benchmark, f"answers.{form}", "items=lab", "--out", str(scores)])
        again, result = json.loads(text), record.result
        assert (code, again["n"], again["score"], again["low"]) == (0, 6, result.score, pytest.approx(result.low))
        each = {row["id"]: (row["value"], row["extracted"]) for row in map(json.loads, scores.read_text().splitlines())}
        assert each == {score.id: (score.value, score.extracted) for score in record.scores}


def test_a_line_says_whose_answer_it_is(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    asked = ["pair=lm_math", "evaluator=[gsm8k]", "limit=8", *CONFIG, "store=store", *RECORDED]
    curve = ["sweeps=lambda_response", "method=average", *asked]
    assert call(["export", "answers", *curve, "--out", "curve.jsonl"])[0] == 0
    rows = [json.loads(line) for line in Path("curve.jsonl").read_text().splitlines()]
    quarter = [row for row in rows if row["lambda"] == 0.25]
    assert len(quarter) == 8
    assert {json.dumps(row["shares"]) for row in quarter} == {'{"lm": 0.25, "math": 0.75}'}
    (weights,), (cell,) = ({row[key] for row in quarter} for key in ("weights", "cell"))
    assert len(weights) == 64
    assert all(row["prompt"] and row["finish"] and row["benchmark"] == "gsm8k" for row in quarter)
    code, text = call(["score", "gsm8k", "curve.jsonl", "items=lab"])
    assert code == 2
    assert "name one of them: cell=" in text
    assert json.loads(call(["score", "gsm8k", "curve.jsonl", "items=lab", f"cell={cell}"])[1])["n"] == 8


def test_answers_are_exported_where_the_items_are_gone(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    asked = ["pair=lm_math", "method=average", "limit=6", "evaluator=[gsm8k]", *CONFIG, "store=store", *RECORDED]
    assert call(["export", "answers", *asked, "--out", "with.jsonl"])[0] == 0
    monkeypatch.setattr(answers, "_task", lambda *_: None)
    code, text = call(["export", "answers", *asked, "--out", "without.jsonl"])
    assert (code, "6 answers without a prompt: items or tokenizer are not at hand" in text) == (0, True)
    rows = [
        [json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()] for name in ("with", "without")
    ]
    assert rows[1] == [{**row, "prompt": None} for row in rows[0]]


def test_a_whole_store_and_what_is_refused(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    assert "m3 export takes answers or store first" in call(["export", "results"])[1]
    assert "--out  must name a file" in call(["export", "answers"])[1]
    assert "does not say which format" in call(["export", "answers", "--out", "answers.txt"])[1]
    nothing = ["evaluator=[gsm8k]", "limit=3", *CONFIG, "store=store", *RECORDED]
    assert (
        "holds no answers of this request; first: m3 run" in call(["export", "answers", *nothing, "--out", "a.csv"])[1]
    )
    with patch.dict(sys.modules, {"pyarrow": None}):
        asked = ["pair=lm_math", "evaluator=[gsm8k]", "limit=6", *CONFIG, "store=store", *RECORDED]
        code, text = call(["export", "answers", *asked, "--out", "a.parquet"])
        assert (code, "--format parquet needs pyarrow: pip install pyarrow" in text) == (2, True)


def test_score_warns_of_a_zero_that_is_none(tmp_path: Path, spec: EvaluatorSpec) -> None:
    path = file(tmp_path, *({"id": n, "text": f"#### {n}"} for n in range(4)))
    found = score_file(spec, path)[0]
    assert found["score"] == 0.0
    assert found["warning"] == (
        "4 of 4 answers hold nothing to read (no number found by extractor=paper): --audit says what other rules read"
        " there"
    )
    right = score_file(replace(spec, settings={"extractor": "strict"}), path)[0]
    assert (right["score"], "warning" in right) == (100.0, False)
