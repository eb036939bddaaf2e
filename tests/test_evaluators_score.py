"""`m3 score`: saved answers, with no model, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from m3_exp.scoring.evaluate import score_file
from m3_exp.scoring.saved import read_answers
from m3_exp.types import EvaluatorSpec, M3Error
from tests.files import write_lines

ROOT = Path(__file__).resolve().parent.parent
ROWS = [{"question": f"What is {k} + 1?", "answer": f"#### {k + 1}"} for k in range(10)]


@pytest.fixture
def items(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "items.jsonl", ROWS)


def answers_file(folder: Path, lines: list[Any]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def spec(items: Path, **settings: Any) -> EvaluatorSpec:
    return EvaluatorSpec("gsm8k", "evaluators.gsm8k:GSM8K", settings, str(items))


def right(k: int) -> dict[str, str]:
    return {"id": str(k), "text": f"The answer is: {k + 1}"}


def wrong(k: int) -> dict[str, str]:
    return {"id": str(k), "text": f"It is {k}."}


def test_what_is_printed_and_written(tmp_path: Path, items: Path) -> None:
    path = answers_file(tmp_path, [right(3), wrong(1), right(7), ""])
    out = tmp_path / "new" / "out.jsonl"
    found, code = score_file(spec(items), path, out)
    assert list(found) == ["benchmark", "metric", "score", "low", "high", "n", "n_scored", "n_unscored", "settings"]
    assert (found["benchmark"], found["metric"], found["n"], found["n_scored"], found["n_unscored"]) == (
        "gsm8k",
        "accuracy",
        3,
        3,
        0,
    )
    assert found["score"] == pytest.approx(200 / 3)
    assert 16 < found["low"] < found["score"] < found["high"] < 98
    assert found["settings"] == {
        "extractor": "paper",
        "max_tokens": 1024,
        "chat_template": False,
        "chat_args": None,
        "thought": "keep",
        "items": str(items),
    }
    assert code == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"id": "3", "value": 1.0, "extracted": "4", "reason": None},
        {"id": "1", "value": 0.0, "extracted": None, "reason": "no number found by extractor=paper"},
        {"id": "7", "value": 1.0, "extracted": "8", "reason": None},
    ]


def test_settings_change_the_verdict(tmp_path: Path, items: Path) -> None:
    path = answers_file(tmp_path, [{"id": "0", "text": "#### 1"}, {"id": "1", "text": "It is 2"}])
    scores = [score_file(spec(items, extractor=e), path)[0]["score"] for e in ("paper", "strict", "flexible")]
    assert scores == [0.0, 50.0, 100.0]


def test_a_repeated_id_is_another_sample(tmp_path: Path, items: Path) -> None:
    path = answers_file(tmp_path, [right(0), wrong(0), right(1), right(0)])
    out = tmp_path / "out.jsonl"
    found, _ = score_file(spec(items), path, out)
    assert (found["n"], found["score"]) == (2, pytest.approx(100 * (2 / 3 + 1) / 2))
    assert [json.loads(line)["value"] for line in out.read_text().splitlines()] == [1.0, 0.0, 1.0, 1.0]


def test_scoring_twice_gives_the_same_bytes(tmp_path: Path, items: Path) -> None:
    path = answers_file(tmp_path, [right(k) if k % 3 else wrong(k) for k in range(10)])
    outs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    assert score_file(spec(items), path, outs[0]) == score_file(spec(items), path, outs[1])
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_anything_unscored_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from m3_exp.scoring.sandbox import judge

    monkeypatch.setattr(judge, "_fitness", lambda _: "not installed")
    path = answers_file(tmp_path, [{"id": "HumanEval/0", "text": "    return True"}])
    out = tmp_path / "out.jsonl"
    found, code = score_file(EvaluatorSpec("humaneval", "evaluators.humaneval:HumanEval"), path, out)
    assert (code, found["score"], found["n"], found["n_scored"], found["n_unscored"]) == (1, None, 1, 0, 1)
    line = json.loads(out.read_text())
    assert line["value"] is None
    assert "cannot be contained" in line["reason"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            [right(0), {"id": "99", "text": ""}],
            r":2: '99' is not an item of gsm8k with items=.* \(10 items, such as '0'\)",
        ),
        ([right(0), "{broken"], ":2 is not valid JSON"),
        ([right(0), "", '{"id": "1"}'], ":3 must be an object with two strings"),
        (['{"id": true, "text": "x"}'], ":1 must be an object with two strings"),
        (['{"id": "1", "text": null}'], ":1 must be an object with two strings"),
        (["[]"], ":1 must be an object with two strings"),
        (["[" * 50_000], ":1 is not usable JSON .nested too deep"),
        ([], "holds no answers"),
    ],
)
def test_wrong_files_are_refused_with_the_line(tmp_path: Path, items: Path, lines: list[Any], message: str) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(M3Error, match=message):
        score_file(spec(items), answers_file(tmp_path, lines), out)
    assert not out.exists()


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(M3Error, match="does not exist"):
        read_answers(tmp_path / "absent.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"id": "0", "text": "é"}'.encode("latin-1"))
    with pytest.raises(M3Error, match="is not UTF-8"):
        read_answers(tmp_path / "latin.jsonl")


def test_line_separators_inside_a_text_do_not_split_it(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"id": "0", "text": "a\u2028b\u0085c"}, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert [(number, answer.text) for number, answer in read_answers(path)] == [(1, "a\u2028b\u0085c")]


@pytest.mark.slow
def test_the_command_line(tmp_path: Path, items: Path) -> None:
    path = answers_file(tmp_path, [right(0), {"id": "1", "text": "#### 2"}])
    command = [sys.executable, "-m", "m3_exp.cli", "score", "gsm8k", str(path), f"items={items}", "extractor=flexible"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["score"] == 100.0
    refused = subprocess.run([*command, "extractor=regex"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "allowed are paper, strict, flexible, last_number, boxed, math_verify" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
