"""Development items: which there are, that they are none of the test's, and what is said where there are none."""

import os
from pathlib import Path

import pytest

from evaluators.gsm8k import GSM8K
from evaluators.humaneval import HumanEval
from evaluators.mbpp import MBPP
from m3_exp.scoring.items import development, lab_has_dev
from m3_exp.types import M3Error, Problem

DATA = Path(os.environ.get("M3_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(not (DATA / "mbpp/mbpp.jsonl").is_file(), reason=f"no benchmark files in {DATA}")


def test_what_dev_means_follows_the_test_items() -> None:
    assert (development("lab"), development("official")) == ("lab-dev", "official-dev")
    with pytest.raises(M3Error, match=r"the family's are my\.jsonl: give your own development items as items=PATH"):
        development("my.jsonl")


def test_which_benchmarks_have_development_items() -> None:
    assert lab_has_dev("humaneval")
    assert not HumanEval().has_dev()
    assert not lab_has_dev("unheard_of")
    assert GSM8K().has_dev()
    assert [MBPP(subset=s).has_dev() for s in ("test", "sanitized", "plus")] == [
        True,
        False,
        False,
    ]


def test_a_benchmark_without_them_says_what_to_do() -> None:
    with pytest.raises(M3Error, match="humaneval has no official items but its test's: choose by cross-fitting"):
        HumanEval().problems("official-dev")


def test_missing_files_say_what_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3_DATA", str(tmp_path))
    monkeypatch.setattr("m3_exp.scoring.items._from_hub", lambda _: None)
    with pytest.raises(M3Error, match=r"gsm8k items for development are not here: download .*train\.jsonl .*7473 rows"):
        GSM8K().problems("official-dev")
    with pytest.raises(M3Error, match=r"put it at DIR/mbpp/mbpp\.jsonl"):
        MBPP().problems("official-dev")


@pytest.mark.slow
@needs_data
def test_the_official_ones_share_nothing_with_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3_DATA", str(DATA))
    for evaluator, column, count in ((GSM8K(), "question", 7473), (MBPP(), "text", 471)):
        tested, dev = evaluator.problems("official"), evaluator.problems("official-dev")
        assert len(dev) == count
        assert not _texts(tested, column) & _texts(dev, column)
    assert all(not 11 <= int(problem.id) <= 510 for problem in MBPP().problems("official-dev"))


def _texts(problems: list[Problem], column: str) -> set[str]:
    return {str(problem.row[column]).strip() for problem in problems}
