"""Unscored is never zero: what breaks under a run is named in its cells, and the same command finishes them.

Answers come from a file (engine=recorded), so that only scoring is at stake.
"""

import json
from pathlib import Path

import pytest
import torch

from m3_exp import cli
from m3_exp.scoring.sandbox import judge
from m3_exp.store import Store
from tests.files import recorded_run
from tests.models import SMALL, random_weights, write_model
from tests.test_tables import shown

BENCHMARKS = {"humaneval": "return None", "gsm8k": "The answer is: 1", "mbpp": "def f(): pass"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = random_weights(SMALL, seed=0, dtype=torch.float32)
    return write_model(tmp_path_factory.mktemp("model") / "base", weights, SMALL)


@pytest.fixture
def line(model: Path, tmp_path: Path) -> list[str]:
    """The command: one model, three benchmarks, all answers from a file."""
    answers = tmp_path / "answers.jsonl"
    items = Path(cli.__file__).parent / "lab" / "items"
    with answers.open("w") as file:
        for benchmark, text in BENCHMARKS.items():
            rows = [json.loads(row) for row in (items / f"{benchmark}.jsonl").read_text().splitlines()]
            for number, row in enumerate(rows):
                key = str(row.get("task_id", number))
                file.write(json.dumps({"benchmark": benchmark, "id": key, "text": text}) + "\n")
    settings = ["items=lab", "limit=4", "dtype=float32", f"store={tmp_path / 'store'}"]
    return ["run", *recorded_run(answers, model), *settings, f"evaluator=[{','.join(BENCHMARKS)}]"]


def test_a_broken_sandbox_leaves_its_cells_unscored_and_the_same_command_finishes_them(
    line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(judge, "_DRIVERS", {})
        judge._fitness.cache_clear()
        assert cli.main(line) == 1
    judge._fitness.cache_clear()
    out = capsys.readouterr().out
    assert "1 of 3 cells done" in out
    failed = [text for text in out.splitlines() if text.startswith("failed: ")]
    assert any("humaneval" in text and "cannot be contained" in text for text in failed)
    assert any("mbpp" in text for text in failed)
    assert " 0.0 [" not in next(row for row in out.splitlines() if row.startswith("| single")).split("|")[-2]
    assert cli.main(line) == 0
    out = capsys.readouterr().out
    assert "3 of 3 cells done (1 was there already)" in out
    assert "sandbox: humaneval " in out
    row = next(row for row in out.splitlines() if row.startswith("| single"))
    assert row.split("|")[-4:-1] == [f" {shown([0, 0, 0, 0])} ".ljust(len(cell)) for cell in row.split("|")[-4:-1]]


def test_missing_answers_are_named_and_never_zero(
    line: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    whole = answers.read_text()
    answers.write_text("".join(text + "\n" for text in whole.splitlines() if '"gsm8k"' not in text))
    assert cli.main(line) == 1
    out = capsys.readouterr().out
    assert "gsm8k: 4 of 4 items are unscored: the engine gave no answer" in out
    answers.write_text(whole)
    assert cli.main(line) == 0


def test_a_torn_result_file_is_set_aside_and_made_again(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line) == 0
    (torn, *_) = sorted((tmp_path / "store" / "results").glob("*/*.json"))
    torn.write_bytes(torn.read_bytes()[:200])
    capsys.readouterr()
    assert cli.main(line) == 0
    assert "3 of 3 cells done (2 were there already)" in capsys.readouterr().out
    assert len(list((tmp_path / "store" / "quarantine").iterdir())) == 1


@pytest.mark.slow
def test_a_killed_journal_loses_one_line(line: list[str], tmp_path: Path) -> None:
    assert cli.main(line) == 0
    store = Store(tmp_path / "store")
    journals = sorted((store.root / "answers").glob("*/*.jsonl"))
    held = sum(len(journal.read_text().splitlines()) for journal in journals)
    journals[0].write_bytes(journals[0].read_bytes()[:-20])
    for result in (store.root / "results").glob("*/*.json"):
        result.unlink()
    assert cli.main(line) == 0
    again = sum(len(journal.read_text().splitlines()) for journal in sorted((store.root / "answers").glob("*/*.jsonl")))
    assert again == held + 1, "the torn line stays where it is, and its item is answered once more"
