"""docs/plugins.md: its files written down, and its commands carried out with recorded answers."""

import json
import re
import shlex
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3_exp import cli
from m3_exp.merging import mixtures
from tests.golden.commands import CONFIG, WORLD
from tests.plugins import FILES, PAGE

LINES = re.findall(r"(?m)^m3 ([a-z]+) (.*?)(?: +#.*)?$", PAGE)
ANSWERS = ("Mercury.\n\nIt is", "six")
RECORDED = [*CONFIG, "engine=recorded", "engine.answers=answers.jsonl", "store=store", "tracker=none"]


@pytest.fixture(scope="module", autouse=True)
def _there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Work in a folder with `mine/` as the page shows it, tiny models, and an answer to each question."""
    root = tmp_path_factory.mktemp("plugins")
    for name, text in FILES.items():
        (root / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "mine" / name).write_text(text)
    lines = ({"benchmark": "exact_match", "id": str(n), "text": text} for n, text in enumerate(ANSWERS, 1))
    (root / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with tarfile.open(WORLD) as tar, pytest.MonkeyPatch.context() as patch:
        tar.extractall(root, [m for m in tar if m.name.startswith("models/")], filter="data")
        patch.chdir(root)
        patch.syspath_prepend(str(root / "mine"))
        yield
    for module in ("level", "listed", "largest", "exact_match"):
        sys.modules.pop(module, None)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    code = cli.main([*words])
    told = capsys.readouterr()
    assert code == 0, told.err
    return told.out


@pytest.mark.slow
def test_the_commands_of_the_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    listed, alone, *ours = [[command, *shlex.split(words)] for command, words in LINES]
    names = said(capsys, *listed)
    assert all(f" {name}" in names for name in ("level", "listed", "largest", "exact_match", "ours"))
    assert "lm_math level(strength=1)" in said(capsys, "plan", *alone[1:], *RECORDED)
    assert [command for command, *_ in ours] == ["plan", "run", "table"]
    plan, run, table = (said(capsys, *words, *RECORDED) for words in ours)
    rows = [f"lm_math level(strength=1) lambda={lam} largest(density=0.5)" for lam in (0.4, 0.6)]
    assert [row for row in rows if row not in plan] == []
    assert "4 of 4 cells done" in run
    (head,) = [line for line in table.splitlines() if line.startswith("| method")]
    assert "exact_match, accuracy, n=2" in head
    assert len(re.findall(r"(?m)^\|.*\| 50\.0", table)) == 4


def test_its_benchmark_scores_saved_answers(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", "exact_match", "answers.jsonl", "items=mine/questions.jsonl", "--config-dir", "mine"]
    assert f"m3 {' '.join(words)}".replace("answers", "ANSWERS") in PAGE
    assert json.loads(said(capsys, *words))["score"] == 50
    Path("capitals.jsonl").write_text('{"id": "1", "text": "MERCURY"}\n{"id": "2", "text": "8"}\n')
    words[2] = "capitals.jsonl"
    assert [json.loads(said(capsys, *words, f"case={case}"))["score"] for case in ("false", "true")] == [100, 50]


@pytest.mark.parametrize("word", ["method=level", "ratio=listed", "sparsify=largest", "evaluator=[exact_match]"])
def test_without_pythonpath_an_error_says_what_to_do(
    word: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = re.findall(r"\w+", word)[1]
    monkeypatch.setattr(sys, "path", [path for path in sys.path if Path(path).name != "mine"])
    monkeypatch.delitem(sys.modules, module, raising=False)
    assert cli.main(["plan", word, "--config-dir", "mine", *RECORDED]) == 2
    assert f"put the folder of {module}.py on PYTHONPATH" in capsys.readouterr().err.replace("\n ", "")


def test_its_ratio_gives_one_weight_an_expert() -> None:
    listed = mixtures.load("listed:listed").function
    assert [one.weights for one in listed(2, seed=0, lams=(0.25,))] == [(0.25, 0.75)]
    assert [one.weights for one in listed(3, seed=0, lams=(0.5, 1.0))] == [(0.5, 0.25, 0.25), (1.0, 0.0, 0.0)]


def test_each_example_is_short() -> None:
    """At most 25 lines of code, blank lines and the docstrings of modules and classes left out."""
    for name in (name for name in FILES if name.endswith(".py")):
        code = re.sub(r'(?s)""".*?"""', "", FILES[name])
        assert len([line for line in code.splitlines() if line.strip()]) <= 25, name
