"""The way back to one's own run: names, `m3 runs`, `--run NAME`, and what a run says at its end."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from m3_exp import cli
from m3_exp.command_line import CommandLine
from m3_exp.heartbeat import Heartbeat, history
from m3_exp.results import look_up
from m3_exp.store import PastRun, RunRecord, Store
from m3_exp.types import EngineSettings, M3Error, Plan
from m3_exp.views import runs, studies
from tests.test_outlive import World

FIXED, GRID = "expert1_expert2-average-fixed", "expert1_expert2-average-grid"
RUN = "a" * 16


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world with two runs in its store: one lambda, then a grid of five."""
    made = World(tmp_path_factory.mktemp("world"))
    assert cli.main(["run", *made.line()]) == 0
    assert cli.main(["run", *made.line("ratio=grid", "ratio.nodes=5")]) == 0
    return made


def said(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    capsys.readouterr()
    assert cli.main([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_are_listed_by_name_with_what_asked_for_them(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    known = said(capsys, "runs", f"store={world.store}")
    assert [one["name"] for one in known] == [FIXED, GRID]
    assert [(one["state"], one["cells"], one["done"], one["failed"], one["left"]) for one in known] == [
        ("done", 1, 1, 0, 0), ("done", 5, 5, 0, 0),
    ]  # fmt: skip
    assert "ratio.lam=0.25" in known[0]["command"]
    assert cli.main(["runs", f"store={world.store}"]) == 0
    first, last = capsys.readouterr().out.splitlines()[1:]
    assert first.startswith(FIXED)
    assert "family=local" in last


def test_runs_fit_a_terminal_of_80_columns(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    for command in ("runs", "status"):
        assert cli.main([command, f"store={world.store}"]) == 0
        lines = capsys.readouterr().out.splitlines()
        short = [line for line in lines if str(world.folder) not in line]  # a path stays whole
        assert max(map(len, short)) <= 80
        assert lines[1].startswith(f"{FIXED}  20")


def test_a_run_named_again_is_numbered_and_says_the_line_that_shows_it(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(world.store, tmp_path / "store")
    asked = [f"store={tmp_path / 'store'}" if word.startswith("store=") else word for word in world.line()]
    assert cli.main(["run", *asked]) == 0
    line = f"m3 table --run expert1_expert2-average-fixed-2 store={tmp_path / 'store'}"
    assert f"its table: {line}" in capsys.readouterr().out
    assert cli.main(["table", "--run", "expert1_expert2-average-fixed-2", f"store={tmp_path / 'store'}"]) == 0
    assert "75.0 [28.9, 96.6]" in capsys.readouterr().out


def test_the_end_of_a_run_as_data_holds_its_scores(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    end = said(capsys, "run", *world.line())
    assert end["run"] == "expert1_expert2-average-fixed-2"
    (score,) = end["scores"]
    assert {key: score[key] for key in ("benchmark", "score", "n", "state")} == {
        "benchmark": "gsm8k", "score": 75.0, "n": 4, "state": "done",
    }  # fmt: skip
    assert (score["labels"], round(score["low"], 1), round(score["high"], 1)) == (
        ["expert1_expert2 average lambda=0.25"], 28.9, 96.6,
    )  # fmt: skip


def test_the_table_of_a_grid_has_a_row_for_each_node_and_then_the_expectations(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = said(capsys, "table", "--run", GRID, f"store={world.store}")["rows"]
    places = [number for number, row in enumerate(rows) if row["ratio"] == "grid"]
    nodes = [rows[number] for number in places]
    assert [(row["lambda"], row["score"]) for row in nodes] == [([lam], 75.0) for lam in (0.0, 0.25, 0.5, 0.75, 1.0)]
    after = rows[places[-1] + 1 :]
    assert after
    assert {(row["ratio"], row["nodes"]) for row in after} == {("mixup", 5)}


def test_the_last_run_is_the_newest(world: World) -> None:
    newest = history(Store(world.store))[-1]
    last = runs.request("last", CommandLine((f"store={world.store}",)))
    named = runs.request(newest.name, CommandLine((f"store={world.store}",)))
    assert last == named


def test_status_and_report_and_response_go_back_to_a_run(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    about = ["--run", GRID, f"store={world.store}"]
    status = said(capsys, "status", *about)
    assert (status["cells"], status["done"]) == (5, 5)
    assert cli.main(["report", *about, "--out", str(tmp_path)]) == 0
    assert "ratio.nodes=5" in (tmp_path / "index.html").read_text()
    (curve,) = studies.curves(runs.request(GRID, CommandLine((f"store={world.store}",)))).responses
    assert (curve.pair, curve.method, len(curve.curve.lams)) == ("expert1_expert2", "average", 5)


def test_status_of_a_store_is_that_of_its_runs(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "status", f"store={world.store}")
    assert found["running"] == []
    assert [run["name"] for run in found["runs"]][:2] == [FIXED, GRID]
    assert cli.main(["status", f"store={world.store}"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("expert1_expert2-average-fixed  ")


def test_a_run_of_an_older_version_is_called_by_its_plan(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(world.store, tmp_path / "store", ignore=shutil.ignore_patterns("history"))
    known = said(capsys, "runs", f"store={tmp_path / 'store'}")
    names = {one["name"]: (one["state"], one["cells"], one["done"]) for one in known}
    assert sorted(names.values()) == [("done", 1, 1), ("done", 5, 5)]
    grid = next(name for name in names if names[name][1] == 5)
    assert grid == f"plan-{next(one['plan'] for one in known if one['name'] == grid)[:8]}"
    rows = said(capsys, "table", "--run", grid, f"store={tmp_path / 'store'}")["rows"]
    assert [row["score"] for row in rows if row["ratio"] == "grid"] == [75.0] * 5


def test_a_run_whose_command_line_composes_no_more_is_shown_by_its_plan(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(world.store, tmp_path / "store")
    store = Store(tmp_path / "store")
    past = store.history.get(GRID)
    assert past is not None
    gone = CommandLine(("ratio=own",), config_dirs=(tmp_path / "gone",)).line("run")
    store.history.put(GRID, PastRun(**{**vars(past), "command": gone}))
    rows = said(capsys, "table", "--run", past.name, f"store={store.root}")["rows"]
    assert [row["score"] for row in rows if row["ratio"] == "grid"] == [75.0] * 5
    assert said(capsys, "status", "--run", past.name, f"store={store.root}")["done"] == 5
    assert cli.main(["report", "--run", past.name, f"store={store.root}", "--out", str(tmp_path)]) == 0


def test_a_killed_run_is_stopped_where_its_last_sign_of_life_left_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.history.put("demo", PastRun("demo", "m3 run", "p", 9, 0, 0, RUN, 10.0))
    store.runs.put(RUN, RunRecord("m3 run", "p", 9, 4, 1, 0, 0, 0.0, (), started=10.0))
    os.utime(store.runs.path(RUN), (10.0, 10.0))
    store.history.put("demo-2", PastRun("demo-2", "m3 run", "p", 9, 8, 1, "b" * 16, 20.0, 30.0))
    found = [(one.name, one.state, one.left) for one in history(store)]
    assert found == [("demo", "stopped", 4), ("demo-2", "failed", 0)]
    with Heartbeat(store, "c" * 16, lambda: RunRecord("m3 run", "p", 9, 9, 0, 0, 0, 0.0, ()), called="demo"):
        pass
    assert list(store.runs) == []
    found = [(one.name, one.state, one.left) for one in history(store)]
    assert found == [("demo", "stopped", 4), ("demo-2", "failed", 0), ("demo-3", "done", 0)]


def test_a_run_that_another_one_took_up_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    for name, done in (("demo", 2), ("demo-2", 5), ("other", 1)):
        plan = "q" if name == "other" else "p"
        store.history.put(name, PastRun(name, "", plan, 5, done, started=float(len(name) + done), ended=9.0))
    assert [(one["name"], one["state"]) for one in said(capsys, "runs", f"store={tmp_path}")] == [
        ("demo", "went on as demo-2"), ("other", "stopped"), ("demo-2", "done"),
    ]  # fmt: skip


def test_the_answers_of_a_run_are_exported(world: World, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    assert cli.main(["export", "answers", "--run", FIXED, f"store={world.store}", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted((row["id"], row["lambda"]) for row in rows) == [(str(k), 0.25) for k in range(4)]


def test_a_runs_own_rows_are_rebuilt_with_its_folders(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are not stored with the plan: what stands in the way of a rebuild line is said by the command line."""
    (tmp_path / "method").mkdir()
    again = runs.request(FIXED, CommandLine((f"store={world.store}",), config_dirs=(tmp_path,)))
    folders = {folder for cell in again.plan.cells for label in cell.labels for folder in label.config_dirs}
    assert folders == {str(tmp_path)}


def test_a_method_that_is_not_found_is_no_result_that_is_not_there(world: World) -> None:
    store = Store(world.store)
    (cell,) = runs.request(FIXED, CommandLine((f"store={world.store}",))).plan.cells
    for part, words in (
        ({"recipe": replace(cell.recipe, method="damp:damp")}, "put the folder of damp.py on PYTHONPATH"),
        ({"evaluator": replace(cell.evaluator, target="exact:Exact")}, "put the folder of exact.py on PYTHONPATH"),
    ):
        plan = Plan((replace(cell, **part),), EngineSettings(name="vllm"), 0)
        with pytest.raises(M3Error, match=words):
            look_up(plan, store)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["table", "--run", "nothing"], "--run nothing: .* has no run of that name; the newest are expert1_expert2"),
        (["table", "table1", "--run", "last"], "table1 has no effect on what a run asked for"),
        (["table", "--run", "last", "--select", "crossfit"], "--select crossfit chooses among the rows"),
        (["runs", "pair=lm"], "pair=lm has no effect on what a run asked for"),
    ],
)
def test_what_no_run_can_be_asked_for_is_one_line(
    world: World, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    assert cli.main([*args, f"store={world.store}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line)
