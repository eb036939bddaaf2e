"""Results outlive what made them: models and items that were moved, deleted or edited after a run."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from m3_exp import cli
from tests.files import recorded_run, write_lines
from tests.models import SMALL, fine_tuned, random_weights, write_model

ITEMS = 4
LAM = ("ratio=fixed", "ratio.lam=0.25")
ROWS = [{"question": f"{k} + 1?", "answer": f"#### {k + 1}"} for k in range(ITEMS)]


class World:
    """A base, two experts, four items and their recorded answers, evaluated once at lambda 0.25."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = random_weights(SMALL, seed=0, dtype=torch.float32)
        self.base = write_model(folder / "base", base, SMALL)
        self.experts = [write_model(folder / f"expert{k}", fine_tuned(base, seed=k), SMALL) for k in (1, 2)]
        self.items = write_lines(folder / "items.jsonl", ROWS)
        texts = [f"The answer is: {k + 1 if k else 7}" for k in range(ITEMS)]
        lines = ({"benchmark": "gsm8k", "id": str(k), "text": text} for k, text in enumerate(texts))
        self.answers = write_lines(folder / "answers.jsonl", lines)
        self.store = folder / "store"

    def line(self, *more: str, items: Path | None = None) -> list[str]:
        models = recorded_run(self.answers, self.base, *self.experts)
        return [*models, "evaluator=[gsm8k]", f"items={items or self.items}", "dtype=float32",
                f"store={self.store}", "tracker=none", *(more or LAM)]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    assert cli.main(["run", *made.line()]) == 0
    return made


@contextlib.contextmanager
def gone(path: Path) -> Iterator[None]:
    """Move a file or a folder away for a while."""
    shutil.move(path, aside := path.with_name(f"{path.name}-moved"))
    try:
        yield
    finally:
        shutil.move(aside, path)


@pytest.mark.parametrize("what", ["expert1", "base", "items.jsonl", "answers.jsonl"])
def test_views_show_what_the_store_holds_of_models_and_items_that_are_gone(
    world: World, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    lost = world.folder / what
    with gone(lost):
        assert cli.main(["status", *world.line()]) == 0
        status = capsys.readouterr().out
        assert "1 cell: 1 done" in status
        assert f"not at hand: {lost}; what the store holds" in " ".join(status.split())
        assert cli.main(["table", "lambda_response", "--json", *world.line("method=average")]) == 0
        scores = [row["score"] for row in json.loads(capsys.readouterr().out)["rows"] if row["score"] is not None]
        assert scores == [75.0]


def test_a_page_shows_the_answers_of_a_model_that_is_gone(world: World) -> None:
    from m3_exp.command_line import CommandLine
    from m3_exp.views import page
    from m3_exp.views.lookup import Lookup

    with gone(world.experts[0]):
        looked = Lookup.of(CommandLine(tuple(world.line())))
        data = page._collect([looked], [], "m3 run", "m3 report")
    answers = {item.id: item.answer for item in data.cells[0].items}
    assert answers == {str(k): f"The answer is: {k + 1 if k else 7}" for k in range(ITEMS)}
    assert f"not at hand: {world.experts[0]}" in data.first[-1]


def test_a_run_refuses_a_model_that_is_gone_and_a_plan_says_which_cells_lack_it(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with gone(world.answers):
        assert cli.main(["run", *world.line()]) == 2
        assert capsys.readouterr().err.startswith(f"m3: engine.answers={world.answers} does not exist: give a store's")
    with gone(world.experts[1]):
        assert cli.main(["run", *world.line()]) == 2
        assert capsys.readouterr().err.startswith(f"m3: {world.experts[1]} does not exist: give a directory")
        assert cli.main(["plan", "--json", *world.line()]) == 0
        (cell,) = json.loads(capsys.readouterr().out)["cells"]
    assert (cell["state"], str(world.experts[1]) in cell["reason"]) == ("model missing", True)


def test_the_same_items_under_another_path_are_the_same_items(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere.json"
    other.write_text(json.dumps(ROWS))
    asked = world.line(items=other)
    capsys.readouterr()
    assert cli.main(["run", "--json", *asked]) == 0
    assert json.loads(capsys.readouterr().out)["cached"] == 1
    assert cli.main(["table", "lambda_response", "--json", *world.line("method=average", items=other)]) == 0
    assert [row["score"] for row in json.loads(capsys.readouterr().out)["rows"] if row["score"] is not None] == [75.0]


def test_a_plan_says_which_answers_an_edited_item_takes_anew(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    edited = write_lines(tmp_path / "items.jsonl", [{"question": "How much is 0 + 1?", "answer": "#### 1"}, *ROWS[1:]])
    capsys.readouterr()
    assert cli.main(["plan", "--json", *world.line(items=edited)]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert [(cell["state"], cell["left"]) for cell in planned["cells"]] == [("begun", 1)]
    assert cli.main(["run", "--json", *world.line(items=edited)]) == 0
    assert json.loads(capsys.readouterr().out)["generated"] == 1
