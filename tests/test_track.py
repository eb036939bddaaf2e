"""W&B: what runs say, read back with W&B's own reader; and that W&B can neither break nor slow a sweep."""

import ast
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from statsmodels.stats.proportion import proportion_confint

from m3_exp.merging.ratio import grid
from m3_exp.planning import label_text
from m3_exp.reporting.choices import advice, ways
from m3_exp.reporting.choices.protocols import ALPHAS
from m3_exp.reporting.choices.ways import Study
from m3_exp.reporting.data.dataframe import tidy
from m3_exp.reporting.wandb import logged, tracker, workspace
from m3_exp.reporting.wandb.track import Logged, Recorder, Settings
from m3_exp.reporting.wandb.track import chosen as track_chosen
from m3_exp.stats.expectation import Sampled
from m3_exp.store import Store, StoredAnswer
from m3_exp.types import Cell, CellResult, EvaluatorSpec, Json, Label, M3Error, Recipe, Source, plain
from tests.records import looked_up

ROOT = Path(__file__).resolve().parent.parent
KEY = "0123456789abcdef0123456789abcdef01234567"
PARENTS = {"lm_math": ["lm", "math"]}
BASE, LM, MATH = Source("base"), Source("lm"), Source("math")
SHARES: dict[str, Callable[[float], float]] = {
    "gsm8k": lambda lam: 0.8 * (1 - lam) + 0.05,
    "alpaca_eval": lambda lam: 0.2 + 0.6 * lam,
}


def cell(benchmark: str, label: Label, share: float, **details: Any) -> CellResult:
    """A cell on 40 items with its result: item i is right where (i + 0.5) / 40 lies below `share`.

    The interval stored with it is wrong: nothing may read it.
    """
    weights = None if label.lam is None else (label.lam, 1 - label.lam)
    recipe = Recipe(BASE, (LM, MATH), "m:average" if label.method != "single" else f"m:{label.pair}", weights=weights)
    spec = EvaluatorSpec(benchmark, f"evaluators.{benchmark}:It", {"extractor": "paper"}, "lab", "math")
    scores: list[Json] = [
        {"id": str(i), "sample": 0, "value": float((i + 0.5) / 40 < share), "extracted": str(i), "reason": None}
        for i in range(40)
    ]
    right = 2.5 * sum(score["value"] for score in scores)
    result = {
        "benchmark": benchmark, "metric": "accuracy", "score": right, "low": -7.0, "high": 700.0,
        "n": 40, "n_scored": 40, "n_unscored": 0, "settings": {}, "details": details,
    }  # fmt: skip
    key = f"{label.pair}-{label.method}-{label.lam}"
    record: Json = {
        "result": result, "scores": scores, "items": "lab", "items_digest": "d" * 64, "answers": f"{key}-{benchmark}",
        "evaluator": {**plain(spec), "version": "1"}, "sampling": {"max_tokens": 40}, "tokenizer": "lm",
        "engine": {"engine": "vllm", "version": "0.32.0", "dtype": "float32"}, "weights": f"w-{key}",
        "recipe_key": (key.encode().hex() + "0" * 64)[:64], "recipe": plain(recipe), "runs": ["a"],
    }  # fmt: skip
    return looked_up(Cell(recipe, spec, LM, (label,), LM), record)


def world(nodes: int = 9) -> list[CellResult]:
    """A pair's curves on two benchmarks, its experts alone, its plain average and a draw."""
    found = []
    mixed = Label("lab", "lm_math", "average", "grid", "none")
    for name, at in SHARES.items():
        found += [cell(name, replace(mixed, pair="lm", method="single", ratio="plain"), at(1.0))]
        found += [cell(name, replace(mixed, pair="math", method="single", ratio="plain"), at(0.0))]
        found += [cell(name, replace(mixed, ratio="plain"), at(0.5))]
        found += [cell(name, replace(mixed, lam=lam), at(lam)) for lam in grid(nodes)]
        draw = replace(mixed, ratio="mixup", alpha=0.5, draw=0, lam=0.3)
        found += [cell(name, draw, at(0.3), pdr_paper=12.5, by={"Level 1.5": 3}, note="no number", known=True)]
    return found


def studied(found: Sequence[CellResult], seed: int = 0) -> list[Study]:
    return [ways.study(members, seed=seed) for members in logged.grouped(found, PARENTS)]


def folders(store: Path) -> dict[str, Path]:
    """The recorded runs by id."""
    return {path.name.split("-", 3)[3]: path for path in (store / "wandb").glob("offline-run-*")}


def read(folder: Path) -> list[Json]:
    """A run's records by W&B's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return [json.loads(line) for line in out.splitlines()]


@dataclass(frozen=True)
class Back:
    """What the reader says of a run."""

    run: Json
    summary: Json
    history: list[Json]
    tables: dict[str, Json]
    artifacts: dict[str, Json]


def back(folder: Path) -> Back:
    records = read(folder)
    of = {kind: [r[kind] for r in records if r["type"] == kind] for kind in ("run", "summary", "history", "artifact")}
    summary = {key: value for update in of["summary"] for key, value in update["update"].items()}
    tables = {
        key.removesuffix(".path"): json.loads((folder / "files" / value).read_text())
        for key, value in summary.items()
        if key.endswith(".path") and str(value).startswith("media/table")
    }
    history = [h["item"] for h in of["history"]]
    assert of["run"][0]["project"] == "m3_exp"
    return Back(of["run"][0], summary, history, tables, {a["name"]: a for a in of["artifact"]})


@pytest.fixture(scope="module")
def found() -> list[CellResult]:
    return world()


@pytest.fixture(scope="module")
def studies(found: list[CellResult]) -> list[Study]:
    return studied(found)


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


# -------------------------------------------------------------------------------------------------------- what runs say


def test_a_cells_run_has_its_plan_and_its_numbers(found: list[CellResult]) -> None:
    frame = tidy(found)
    for item, line in zip(found, frame.itertuples(), strict=True):
        run = logged.cell(item, "alpha_grid", 7)
        assert (run.group, run.job_type, run.config["seed"]) == ("alpha_grid", line.benchmark, 7)
        assert [run.summary[key] for key in ("score", "low", "high", "n")] == [line.score, line.low, line.high, line.n]
        assert run.summary[f"score/{line.benchmark}"] == line.score
        assert run.config["lambda"] == (None if pd.isna(line.lam) else line.lam)
        assert "lambda" in run.summary or pd.isna(line.lam)
        assert run.config["merge"] == line.merge
        assert json.loads(run.artifacts[0].texts["recipe.json"]) == plain(item.record.recipe)  # type: ignore[union-attr]
    drawn = logged.cell(found[-1], "alpha_grid", 7)
    assert drawn.summary["alpha"] == 0.5
    assert {key: value for key, value in drawn.summary.items() if key.startswith("details/")} == {
        "details/pdr_paper": 12.5, "details/by/Level 1_5": 3,
    }  # fmt: skip
    assert drawn.tags == ("family:lab", "pair:lm_math", "method:average", "ratio:mixup", "sparsify:none")


def test_an_id_is_the_cells_and_content_its_results(found: list[CellResult]) -> None:
    runs = [logged.cell(item, "table1", 0) for item in found]
    assert len({run.id for run in runs}) == len(found)
    again = logged.cell(found[0], "another sweep", 0)
    assert (again.id, again.content) == (runs[0].id, runs[0].content)
    record = found[0].record
    assert record is not None
    record = replace(record, scores=(replace(record.scores[0], value=0.5), *record.scores[1:]))
    changed = logged.cell(replace(found[0], record=record), "table1", 0)
    assert changed.id == runs[0].id
    assert changed.content != runs[0].content


@pytest.mark.slow
def test_a_response_has_every_node_and_every_alpha(found: list[CellResult], studies: list[Study]) -> None:
    frame = tidy(found)
    [run] = [logged.response(study, "lambda_response") for study in studies]
    nodes = [row for row in run.history if "lambda" in row]
    assert [row["lambda"] for row in nodes] == list(grid(9))
    for row in nodes:
        for benchmark in SHARES:
            lines = frame[(frame["lam"] == row["lambda"]) & (frame["benchmark"] == benchmark)]
            assert row[f"score/{benchmark}"] == pytest.approx(float(lines["score"].iloc[0]))
            low, high = row[f"score_low/{benchmark}"], row[f"score_high/{benchmark}"]
            assert low < row[f"score/{benchmark}"] < high
    compared = {c.objective: c for c in studies[0].comparisons}
    alphas = [row for row in run.history if "alpha" in row]
    assert [row["alpha"] for row in alphas] == list(ALPHAS)
    for row in alphas:
        for name in ("gsm8k", "alpaca_eval", "mean", "minimum"):
            figure = compared[name].expected[row["alpha"]]
            shown = [row[f"{key}/{name}"] for key in ("expected", "expected_low", "expected_high")]
            assert shown == [100 * figure.value, 100 * figure.low, 100 * figure.high]
            assert run.summary[logged.expected(name, row["alpha"])] == 100 * figure.value
    table = run.tables["alpha/gsm8k"]
    assert table.columns[:4] == ("alpha", "E", "low", "high")
    assert [r[1] for r in table.rows] == [row["expected/gsm8k"] for row in alphas]
    assert run.notes == "\n".join(advice.words(studies[0]))


@pytest.mark.slow
def test_a_study_is_another_one_with_whatever_it_is_made_of(studies: list[Study]) -> None:
    (one, *others) = studies[0].responses
    curve, more = one.curve, np.full((len(one.curve.ids), 4), 0.5)
    sampled = replace(curve, sampled=Sampled(np.array([0.2, 0.4, 0.6, 0.8]), more))
    known = [one, replace(one, curve=sampled), replace(one, unscored=1), replace(one, plains={7: one.parents["lm"]})]
    contents = [logged.response_content([changed, *others]) for changed in (*known, one)]
    assert len(set(contents)) == len(known)
    assert contents[-1] == contents[0]


def test_items_are_answered_from_the_journal(tmp_path: Path, found: list[CellResult]) -> None:
    item = found[0]
    assert item.record is not None
    with Store(tmp_path).answers(item.record.answers) as journal:
        for key, text in (("gsm8k/0", "one"), ("gsm8k/1", "two"), ("gsm8k/1", "asked otherwise")):
            journal.append(StoredAnswer(key, text))
    table = logged.items(item, tmp_path)
    assert table.columns == ("id", "sample", "answer", "extracted", "value", "reason")
    assert table.rows[0] == ("0", 0, "one", "0", 1.0, None)
    assert table.rows[1][2] is None, "two answers: which one was scored is not known"
    assert len(table.rows) == 40


# ---------------------------------------------------------------------------------------------------- written and read


@pytest.mark.slow
def test_runs_read_back_say_what_the_store_says(tmp_path: Path) -> None:
    """Every number of every kind of run, by W&B's own reader; and a second sweep adds nothing."""
    said: list[str] = []
    cells = world(3)

    def sweep(content: Sequence[CellResult]) -> tracker.Tracker:
        track = tracker.Tracker(Settings(items=True), tmp_path, sweep="alpha_grid", seed=3, say=said.append)
        track.cell(content[0])
        track.sweep(lambda: tracker.Gathered(content, PARENTS, {"alpha_grid.md": "| a |\n"}))
        track.close()
        return track

    first = sweep(cells)
    assert (first.problems, first.done["written"]) == ([], len(cells) + 2)
    runs = folders(tmp_path)
    assert len(runs) == len(cells) + 2
    assert said == [f"W&B: 16 runs written to {tmp_path}/wandb; to send them: wandb sync {tmp_path}/wandb"]
    _compare_cell(cells[-1], back(runs[logged.cell_id(cells[-1].record)]))
    expected = logged.response(studied(cells, seed=3)[0], "alpha_grid")
    _compare_response(expected, back(runs[expected.id]))

    assert cells[-1].record is not None
    record = replace(cells[-1].record, weights="other")
    second = sweep([*cells[:-1], replace(cells[-1], record=record)])
    assert (second.done["written"], second.done["known"], second.problems) == (1, 15, [])
    later = folders(tmp_path)
    assert later.keys() == runs.keys(), "the changed run took the place of the old one"
    assert {key for key in runs if later[key] != runs[key]} <= {logged.cell_id(record)}


def _ends(item: CellResult) -> tuple[float, float]:
    """A cell's interval from its item scores, in percent."""
    assert item.record is not None
    scores = [score.value for score in item.record.scores]
    low, high = proportion_confint(sum(scores), len(scores), method="agresti_coull")
    return 100 * low, 100 * high


def _compare_cell(item: CellResult, seen: Back) -> None:
    assert item.record is not None
    result = plain(item.record.result)
    assert seen.run["display_name"] == f"{label_text(item.cell.labels[0])} {result['benchmark']}"
    assert (seen.run["run_group"], seen.run["job_type"]) == ("alpha_grid", result["benchmark"])
    config = seen.run["config"]["update"]
    assert config["recipe"] == plain(item.record.recipe)
    assert config["evaluator"] == plain(item.record.evaluator)
    assert (config["alpha"], config["lambda"], config["seed"]) == (0.5, 0.3, 3)
    for key in ("score", "n", "n_unscored", "metric"):
        assert seen.summary[key] == result[key]
    assert (seen.summary["low"], seen.summary["high"]) == pytest.approx(_ends(item))
    assert (seen.summary["alpha"], seen.summary["lambda"], seen.summary["details/pdr_paper"]) == (0.5, 0.3, 12.5)
    assert [row[4] for row in seen.tables["items"]["data"]] == [s.value for s in item.record.scores]
    assert [a["type"] for a in seen.artifacts.values() if a["name"].startswith("recipe-")] == ["recipe"]


def _compare_response(expected: Logged, seen: Back) -> None:
    rows = [{k: v for k, v in row.items() if not k.startswith("_")} for row in seen.history]
    numbers = [row for row in rows if "lambda" in row or "alpha" in row]
    assert len(numbers) == len(expected.history) == 3 + 7
    for row, wanted in zip(numbers, expected.history, strict=True):
        assert row == pytest.approx(wanted, rel=1e-12)
    assert {key: seen.summary[key] for key in expected.summary} == pytest.approx(dict(expected.summary), rel=1e-12)
    assert not [key for key in seen.summary if key in ("lambda", "alpha", "score/gsm8k")], "the last node is no summary"
    for name, table in expected.tables.items():
        assert seen.tables[name]["columns"] == list(table.columns)
        for shown, told in zip(seen.tables[name]["data"], table.rows, strict=True):
            assert [x for x in shown if x is not None] == pytest.approx([x for x in told if x is not None])
    assert seen.run["notes"] == expected.notes


# ----------------------------------------------------------------------------------------------------- when W&B fails


@dataclass
class Server:
    """A W&B server: it accepts runs, refuses connections, refuses the key, or never answers."""

    kind: str
    url: str
    asked: list[tuple[str, Json]]


def accepted(name: str, given: Json) -> Json | None:
    """Answer what sending a run and saving a view ask; artifacts are not known."""
    project = {"id": "p", "name": "m3_exp", "entityName": "me", "internalId": "1", "entity": {"name": "me"}}
    if name == "UpsertBucket":
        bucket = {"id": "x", "name": given["name"], "displayName": given.get("displayName"), "config": "{}"}
        return {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}
    if name.lower().startswith("upsertview"):
        view = {"id": given.get("id") or f"view-{given['type']}", "name": given["name"], "description": ""}
        view |= {"displayName": given["displayName"], "project": project, "spec": given["spec"]}
        return {"upsertView": {"view": view, "inserted": True}}
    if name in ("Viewer", "GetDefaultEntity"):
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "teams": {"edges": []}}}
    if name == "ProjectInternalId":
        return {"project": project}
    if name == "GetProjects":
        node = {**project, "createdAt": "2026-01-01T00:00:00", "isBenchmark": False, "user": None}
        return {"models": {"edges": [{"node": node}], "pageInfo": {"endCursor": None, "hasNextPage": False}}}
    return None


@contextmanager
def server(kind: str) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if kind == "hangs":
                stop.wait(60)
            answer: Json = {"data": None, "errors": [{"message": f"no, {kind}"}]}
            if kind == "accepts":
                answer = self.accept(body)
            self.send_response(401 if kind == "revoked" else 200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST

        def accept(self, body: bytes) -> Json:
            if not self.path.startswith("/graphql"):
                found.asked.append((self.path, json.loads(body) if body[:1] == b"{" else {}))
                return {}
            query = json.loads(body)
            name, given = query["query"].split("(")[0].split()[1], query.get("variables") or {}
            found.asked.append((name, given))
            data = accepted(name, given)
            return {"data": data} if data else {"data": None, "errors": [{"message": "not known here"}]}

        def log_message(self, *_: object) -> None: ...

    stop = threading.Event()
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    found = Server(kind, f"http://127.0.0.1:{running.server_address[1]}", [])
    if kind == "refuses":
        running.server_close()
    else:
        threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        stop.set()
        if kind != "refuses":
            running.shutdown()
            running.server_close()


def started(
    place: Path,
    found: Sequence[CellResult],
    url: str,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    patience: float,
) -> tracker.Tracker:
    """A tracker with a key for the server at `url`, and two cells handed over; that takes no time."""
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    track = tracker.start(Settings(), place, sweep="table1", say=said.append, patience=patience)
    assert isinstance(track, tracker.Tracker)
    start = time.monotonic()
    for item in found[:2]:
        track.cell(item)
    assert time.monotonic() - start < 0.1, "the sweep does not wait for W&B"
    while track._child is None:
        time.sleep(0.01)
    return track


@pytest.mark.slow
def test_a_server_that_fails_costs_a_warning_and_a_bounded_wait(
    tmp_path: Path, found: list[CellResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three servers at once, since waiting for them is the point."""
    kinds, patience = ("refuses", "revoked", "hangs"), 15.0
    said: dict[str, list[str]] = {kind: [] for kind in kinds}
    with server("refuses") as one, server("revoked") as two, server("hangs") as three:
        urls = {one.kind: one.url, two.kind: two.url, three.kind: three.url}
        tracks = {k: started(tmp_path / k, found, urls[k], said[k], monkeypatch, patience) for k in kinds}
        closing = [threading.Thread(target=track.close) for track in tracks.values()]
        start = time.monotonic()
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
        assert time.monotonic() - start < patience + 3
    for kind, track in tracks.items():
        assert len(folders(tmp_path / kind)) == 2, "what could not be sent is written"
        assert track.done["unsent"] == len(track.problems) + 1 == 2
        [line] = said[kind]
        assert line.startswith("warning: W&B: 2 runs not sent: ")
        assert f"wandb sync {tmp_path / kind}/wandb" in line
        assert kind != "revoked" or "no, revoked" in line
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 12
    assert not [path for path in written if KEY.encode() in path.read_bytes()], "the key is in no file"


@pytest.mark.slow
def test_runs_are_sent_under_their_own_ids_once(
    tmp_path: Path, found: list[CellResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with server("accepts") as web:
        first = started(tmp_path, found, web.url, said, monkeypatch, 40.0)
        first.close()
        asked = len(web.asked)
        second = started(tmp_path, found, web.url, said, monkeypatch, 40.0)
        second.close()
        assert len(web.asked) == asked, "what is there already is not sent again"
    assert (first.problems, first.done["sent"], second.done["known"]) == ([], 2, 2)
    assert said == [f"W&B: 2 runs written to {tmp_path}/wandb and sent to project m3_exp"]
    ids = {logged.cell_id(item.record): item for item in found[:2]}
    buckets = {given["name"]: given for name, given in web.asked if name == "UpsertBucket" and given.get("groupName")}
    assert buckets.keys() == ids.keys()
    for given in buckets.values():
        record = ids[given["name"]].record
        assert record is not None
        assert (given["groupName"], given["jobType"]) == ("table1", record.result.benchmark)
        streams = [body["files"] for path, body in web.asked if given["name"] in path and "files" in body]
        summary = json.loads(
            [files["wandb-summary.json"] for files in streams if "wandb-summary.json" in files][-1]["content"][0]
        )
        assert [summary[key] for key in ("score", "n")] == [record.result.score, record.result.n]
        assert summary["low"] == pytest.approx(_ends(ids[given["name"]])[0])


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, found: list[CellResult]) -> None:
    said: list[str] = []
    (tmp_path / "file").write_text("not a folder")
    track = tracker.Tracker(Settings(dir=str(tmp_path / "file")), tmp_path, say=said.append)
    track.cell(found[0])
    track.cell(found[1])
    track.close()
    [line] = said
    assert line.startswith("warning: W&B: run lm single gsm8k is not written: ")
    assert "(and 1 more)" in line


def test_a_child_that_dies_or_a_result_it_cannot_read_is_a_warning(tmp_path: Path, found: list[CellResult]) -> None:
    said: list[str] = []
    track = tracker.Tracker(Settings(), tmp_path, say=said.append)
    track.cell(replace(found[0], record="none"))
    track.cell(found[0])
    deadline = time.monotonic() + 30
    while track._child is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert track._child is not None
    track._child.kill()
    track._child.wait()
    track.cell(found[1])
    track.close()
    [line] = said
    assert line.startswith("warning: W&B: AttributeError: ")
    assert "results are not touched" in line
    assert "its process ended with -9" in track.problems


@pytest.mark.slow
def test_a_run_that_was_cut_short_is_written_again_alone(tmp_path: Path, found: list[CellResult]) -> None:
    """A killed child leaves a folder without a marker: the next sweep replaces it."""
    recorder = Recorder(Settings(), tmp_path / "wandb")
    run = logged.cell(found[0], "run", 0)
    torn = tmp_path / "wandb" / f"offline-run-20260101_000000-{run.id}"
    torn.mkdir(parents=True)
    track = tracker.Tracker(Settings(), tmp_path, say=lambda _: None)
    track.cell(found[0])
    track.close()
    assert not torn.exists()
    assert [path.name.split("-", 3)[3] for path in recorder.unsent()] == [run.id]


# ------------------------------------------------------------------------------------------------------------ settings


def test_offline_without_a_key_online_with_one(tmp_path: Path) -> None:
    auto = Settings()
    assert auto.resolved({"NETRC": str(tmp_path / "none")}) == "offline"
    assert auto.resolved({"WANDB_API_KEY": KEY}) == "online"
    assert auto.resolved({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}) == "offline"
    assert auto.resolved({"WANDB_MODE": "disabled"}) == "disabled"
    assert Settings(mode="offline").resolved({"WANDB_API_KEY": KEY, "WANDB_MODE": "online"}) == "offline"
    file = tmp_path / "netrc"
    file.write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    assert auto.resolved({"NETRC": str(file)}) == "online"
    assert auto.resolved({"NETRC": str(file), "WANDB_BASE_URL": "https://wandb.example.org"}) == "offline"
    file.write_text("machine ?")
    assert auto.resolved({"NETRC": str(file)}) == "offline"


def test_an_unknown_mode_is_refused_and_none_tracks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(M3Error, match=r"tracker\.mode=live is not known; allowed: auto, offline, online"):
        Settings(mode="live")
    for settings in (None, Settings()):
        if settings is not None:
            monkeypatch.setenv("WANDB_MODE", "disabled")
        track = tracker.start(settings, tmp_path)
        track.cell(world()[0])
        track.sweep(lambda: tracker.Gathered(world()))
        track.close()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_gathered_is_a_warning(tmp_path: Path) -> None:
    said: list[str] = []

    def gather() -> tracker.Gathered:
        raise OSError("the store is gone")

    track = tracker.Tracker(Settings(), tmp_path, say=said.append)
    track.sweep(gather)
    track.close()
    assert said[0].startswith("warning: W&B: OSError: the store is gone; results are not touched.")


def test_conf_tracker_is_what_the_settings_know() -> None:
    choice = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "tracker" / "wandb.yaml"))
    assert isinstance(choice, dict)
    assert track_chosen({str(key): value for key, value in choice.items()}) == Settings()
    assert track_chosen({"name": "none"}) is None


@pytest.mark.slow
@pytest.mark.parametrize(("library", "home"), [("wandb", "track.py"), ("wandb_workspaces", "workspace.py")])
def test_wandb_has_one_home_and_loads_late(library: str, home: str) -> None:
    users = set()
    for path in (ROOT / "m3_exp").rglob("*.py"):
        tree = ast.parse(path.read_text())
        named = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        named += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        users |= {path.name for name in named if name.split(".")[0] == library}
    assert users == {home}
    code = "import sys, m3_exp.reporting.wandb.tracker, m3_exp.reporting.wandb.workspace; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert f"'{library}'" not in loaded


def test_nothing_is_started_for_nothing(tmp_path: Path, found: list[CellResult]) -> None:
    track = tracker.Tracker(Settings(), tmp_path)
    track.cell(replace(found[0], record=None))
    track.close()
    assert track._child is None
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------- workspace


def _panels_of(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        if "viewType" in value:
            yield value
        for inner in value.values():
            yield from _panels_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _panels_of(inner)


@pytest.mark.slow
def test_the_workspace_draws_what_runs_hold(tmp_path: Path, found: list[CellResult], studies: list[Study]) -> None:
    """Offline, to a file: every metric that a panel names is one that a run has."""
    what = workspace.contents(list(SHARES), studies)
    views = json.loads(workspace.write(what, tmp_path / "views.json").read_text())
    response = logged.response(studies[0], "sweep")
    cells = [logged.cell(item, "sweep", 0) for item in found]
    history = {key for row in response.history for key in row}
    known = {f"summary:{key}" for run in (response, *cells) for key in run.summary}
    known |= {f"config:{key}.value" for run in (response, *cells) for key in run.config}
    for view in ("workspace", "report"):
        panels = list(_panels_of(views[view]))
        assert {panel["viewType"] for panel in panels} == {
            "Run History Line Plot", "Scatter Plot", "Parallel Coordinates Plot",
        }  # fmt: skip
        for config in (panel["config"] for panel in panels):
            assert {*config.get("metrics", []), config.get("xAxis", "alpha")} <= history | known
            assert {column["accessor"] for column in config.get("columns", [])} <= known
        drawn = {config["metrics"][0] for config in (panel["config"] for panel in panels) if "metrics" in config}
        assert drawn == {f"expected/{name}" for name in (*SHARES, "mean", "minimum")} | {f"score/{n}" for n in SHARES}
    sections = views["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [
        "Score against alpha", "Score against lambda", "Single draws", "Parallel coordinates",
    ]  # fmt: skip
    assert "random (best of seven draws) cannot be told from tuned at equal cost" in json.dumps(views["report"])


@pytest.mark.slow
def test_saving_twice_changes_the_same_views(tmp_path: Path) -> None:
    """A loopback server in the place of W&B's; in a process of its own, as the client keeps its account for good."""
    code = (
        "import json, sys; from pathlib import Path; from m3_exp.reporting.wandb import workspace as w; "
        "what = w.Contents(('gsm8k',), ('gsm8k',)); "
        "print(json.dumps([w.save(what, Path(sys.argv[1]), 'm3_exp') for _ in range(2)]))"
    )
    with server("accepts") as web:
        environment = {**os.environ, "WANDB_BASE_URL": web.url, "WANDB_API_KEY": KEY}
        command = [sys.executable, "-c", code, str(tmp_path / "views.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stderr
        saved = [given for name, given in web.asked if name.lower().startswith("upsertview")]
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert first == second
    assert all(address.startswith(f"{web.url}/me/m3_exp") for address in first)
    assert [given["type"] for given in saved] == ["project-view", "runs"] * 2
    assert [given.get("id") for given in saved] == [None, None, "view-project-view", "view-runs"]


@pytest.mark.slow
def test_a_workspace_that_cannot_be_saved_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from m3_exp.types import M3Error\n"
        "from m3_exp.reporting.wandb import workspace as w\n"
        "try:\n    w.save(w.Contents(('gsm8k',)), Path(sys.argv[1]), 'm3_exp')\n"
        "except M3Error as error:\n    print(error)"
    )
    with server("revoked") as web:
        environment = {**os.environ, "WANDB_BASE_URL": web.url, "WANDB_API_KEY": KEY}
        command = [sys.executable, "-c", code, str(tmp_path / "views.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment)
    line = done.stdout.splitlines()[-1]
    assert line.startswith("W&B did not take the workspace: ")
    assert "--out FILE" in line
    assert KEY not in done.stdout + done.stderr
