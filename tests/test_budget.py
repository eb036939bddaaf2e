"""A run stops at its budget: its answers are kept, nothing has failed, and the same command goes on."""

import itertools
import json
from pathlib import Path

import pytest

from m3_exp import cli, config
from m3_exp.groups import Budget, Evaluation, Group
from m3_exp.heartbeat import history
from m3_exp.running import Outcome, Run
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source
from tests.test_outlive import ITEMS, World

GRID = ("ratio=grid", "ratio.nodes=5")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def carried_out(world: World, store: Path, budget: Budget, step: float = 0.0) -> tuple[Outcome, Store]:
    """Carry the grid out with a clock that goes `step` seconds further each time it is looked at."""
    asked = [word for word in world.line(*GRID) if not word.startswith("store=")]
    ticks = itertools.count()
    run = Run(config.request(asked).plan, Store(store), budget=budget, clock=lambda: next(ticks) * step)
    return run.carry_out(), Store(store)


def answers(store: Store) -> int:
    return sum(len(store.answers(key).read()) for key in store.answer_sets)


def test_a_run_stops_at_the_last_answer_that_fits_and_goes_on_where_it_stopped(world: World, tmp_path: Path) -> None:
    stopped, store = carried_out(world, tmp_path, Budget(hours=13 / 3600), step=1.0)  # at the 13th look at the clock
    assert (stopped.cells, stopped.failures) == (5, ())
    assert ITEMS < stopped.generated < 5 * ITEMS
    assert stopped.generated % ITEMS, "it stopped within a cell"
    assert answers(store) == stopped.generated
    assert stopped.left == 5 - stopped.done > 0
    assert [(one.state, one.left) for one in history(store)] == [("stopped", stopped.left)]
    rest, store = carried_out(world, tmp_path, Budget())
    assert (rest.done, rest.left, rest.generated) == (5, 0, 5 * ITEMS - stopped.generated)


def test_no_engine_is_started_when_the_time_is_over(world: World, tmp_path: Path) -> None:
    stopped, _ = carried_out(world, tmp_path, Budget(hours=0.0001), step=1.0)
    assert (stopped.engine_starts, stopped.done, stopped.left, stopped.failures) == (0, 0, 5, ())


def test_a_run_of_so_many_cells_says_what_is_left_and_the_same_command_goes_on(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [f"store={tmp_path}" if word.startswith("store=") else word for word in world.line(*GRID)]
    for left, code in ((3, 3), (1, 3), (0, 0)):
        assert cli.main(["run", "--cells", "2", "--json", *line]) == code
        told = json.loads(capsys.readouterr().out)
        assert (told["left"], told["done"]) == (left, 5 - left)
        assert sum(score["state"] == "left" for score in told["scores"]) == left


def test_a_stopped_run_ends_with_the_line_that_goes_on(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [f"store={tmp_path}" if word.startswith("store=") else word for word in world.line(*GRID)]
    assert cli.main(["run", "--cells", "4", *line]) == 3
    end = capsys.readouterr().out.splitlines()
    (said,) = [text for text in end if text.startswith("stopped at")]
    assert said.startswith("stopped at --cells=4 with 1 cell left; to go on: m3 run family=local")
    assert said.endswith("--cells=4")


def test_a_budget_of_cells_cuts_the_groups_in_their_order() -> None:
    source = Source("base")
    recipe = Recipe(source, (source,), "module:function")
    groups = [Group(recipe, key, source, (), (Evaluation(cell=key), Evaluation(cell=key, repeat=1))) for key in "abc"]  # type: ignore[arg-type]
    kept = Budget(cells=3).of(groups)
    assert [(group.key, len(group.evaluations)) for group in kept] == [("a", 2), ("b", 1)]
    assert Budget().of(groups) == groups


@pytest.mark.parametrize(("args", "words"), [
    (["--hours", "0"], "--hours 0 is no time to work in: give a number above 0"),
    (["--hours", "inf"], "--hours inf is no time"),
    (["--hours", "nan"], "--hours nan is no time"),
    (["--cells", "0"], "--cells 0 is too few: give at least 1"),
])  # fmt: skip
def test_a_budget_without_room_is_one_line(
    world: World, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    assert cli.main(["run", *args, *world.line()]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"m3: {words}")


def test_a_budget_is_refused_as_a_value() -> None:
    with pytest.raises(M3Error, match="at least 1"):
        Budget(cells=-1)
