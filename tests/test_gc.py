"""`m3 gc`: what can be made again goes, first what nobody misses; what a table needs stays."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from m3_exp import cli
from m3_exp.store import Store
from m3_exp.types import M3Error
from m3_exp.upkeep import rebuild
from tests.test_outlive import World
from tests.test_verify import GRID, snapshot


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    assert cli.main(["run", *made.line(*GRID), "checkpoint=keep"]) == 0
    return made


@pytest.fixture
def store(world: World, tmp_path: Path) -> Path:
    """The store an hour later, with something of every kind that can go."""
    made = Path(shutil.copytree(world.store, tmp_path / "store"))
    for name, size in {
        "results/.x.json.0123abcd-99999999-0123456789ab.tmp": 10, "quarantine/merges-x.json": 20, "log/vllm-1.log": 30,
        "wandb/offline-run-1/run-1.wandb": 40, "wandb/offline-run-1/run-1.wandb.synced": 0,
        "wandb/offline-run-2/run-2.wandb": 50, "tokenizers/k/tokenizer.json": 60, "answers/unused/1-a.jsonl": 70,
    }.items():  # fmt: skip
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    age(made, 3 * 86_400)
    return made


def age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


def kinds(store: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, list[int]]:
    capsys.readouterr()
    assert cli.main(["gc", f"store={store}", "--json", *words]) == 0
    found: dict[str, list[int]] = json.loads(capsys.readouterr().out)["kinds"]
    return found


def test_without_yes_nothing_is_removed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(store)
    assert cli.main(["gc", f"store={store}"]) == 0
    said = capsys.readouterr().out
    assert "nothing is removed without --yes" in said
    for name in ("temporary", "quarantine", "logs", "wandb", "caches", "tokenizers", "checkpoints"):
        assert f"\n{name}: " in f"\n{said}"
    assert "answers: " not in said
    assert snapshot(store) == before


def test_what_a_table_needs_stays_and_the_rest_goes(
    world: World, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["table", "--run", "last", f"store={store}"]
    assert cli.main(ask) == 0
    before = capsys.readouterr().out
    age(store, 3 * 86_400)  # what a look at it made anew
    assert cli.main(["gc", f"store={store}", "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("removed ")
    left = {path.name for path in store.iterdir() if path.is_dir() and any(path.iterdir())}
    assert left.isdisjoint({"quarantine", "log", "inputs", "rendered", "scans", "loading", "tokenizers", "checkpoints"})
    assert {"plans", "history", "merges", "results", "answers", "answer_sets", "spelled", "wandb"} <= left
    assert [path.name for path in (store / "wandb").iterdir()] == ["offline-run-2"], "W&B does not have that one yet"
    assert not list(store.rglob("*.tmp"))
    assert cli.main(ask) == 0
    assert capsys.readouterr().out == before
    line = [word for word in world.line(*GRID) if not word.startswith("store=")]
    capsys.readouterr()
    assert cli.main(["run", "--json", *line, f"store={store}", "checkpoint=keep"]) == 0
    assert json.loads(capsys.readouterr().out)["cached"] == 3
    assert cli.main(["verify", *line, f"store={store}"]) == 0


def test_a_quota_removes_no_more_than_it_takes_first_what_nobody_misses(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total = rebuild.total(Store(store))
    assert kinds(store, "--quota", str(total), capsys=capsys) == {}
    assert list(kinds(store, "--quota", str(total - 1), capsys=capsys)) == ["temporary"]
    found = kinds(store, "--quota", str(total - 55), "--yes", capsys=capsys)
    assert {name: count for name, (count, _) in found.items()} == {"temporary": 1, "quarantine": 1, "logs": 1}
    assert rebuild.total(Store(store)) == total - 60
    assert (store / "tokenizers" / "k").exists()


def test_a_quota_that_cannot_be_kept_says_so(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gc", f"store={store}", "--quota", "1", "--yes"]) == 0
    assert "that is more than --quota: the rest cannot be made again" in capsys.readouterr().out
    assert (store / "results").exists()


def test_kinds_go_by_their_names(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(kinds(store, "--only", "logs", "--only", "caches", capsys=capsys)) == ["logs", "caches"]
    assert (
        kinds(store, "--only", "answers", "--yes", capsys=capsys) == {"answers": [1, 70 + 4096]}
        or not (store / "answers" / "unused").exists()
    )
    assert not (store / "answers" / "unused").exists()
    assert cli.main(["verify", f"store={store}"]) == 0, "the answers of results are all there"


def test_what_was_changed_lately_stays(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.utime(store / "log" / "vllm-1.log")
    assert "logs" not in kinds(store, capsys=capsys)


def test_a_checkpoint_whose_models_are_gone_stays(
    world: World, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kinds(store, capsys=capsys)["checkpoints"][0] == 3
    world.experts[0].rename(world.folder / "moved")
    try:
        assert kinds(store, capsys=capsys)["checkpoints"][0] == 1, "that of the second expert alone"
    finally:
        (world.folder / "moved").rename(world.experts[0])


def test_nothing_goes_while_a_run_is_at_work(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from m3_exp.heartbeat import Heartbeat
    from m3_exp.store import RunRecord

    made = Store(store)
    state = RunRecord("m3 run pair=lm", "0" * 64, 1, 0, 0, 1, 0, 0.0, ())
    before = snapshot(store / "log")
    with Heartbeat(made, "r" * 16, lambda: state):
        assert cli.main(["gc", f"store={store}", "--yes"]) == 2
        assert "a run is at work in store=" in capsys.readouterr().err
        assert cli.main(["gc", f"store={store}"]) == 0, "what could go may be looked at"
    assert snapshot(store / "log") == before


def test_a_damaged_result_leaves_the_answers_alone(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next((store / "results").rglob("*.json")).write_bytes(b"")
    assert cli.main(["gc", f"store={store}", "--only", "answers", "--yes"]) == 2
    assert "so its answers are not known" in capsys.readouterr().err
    assert (store / "answers" / "unused").exists()


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("50GB", 50 * 10**9), ("1.5 TB", 1500 * 10**9), ("800MiB", 800 << 20), ("3k", 3000), ("7", 7), ("2 gib", 2 << 30)],
)
def test_a_size_is_read(text: str, bytes_: int) -> None:
    assert rebuild.quota(text) == bytes_


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e9", "5 apples", "nan", "1GBB"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(M3Error, match="is no size: give a number with its unit"):
        rebuild.quota(text)


def test_an_unknown_kind_is_refused(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gc", f"store={store}", "--only", "results"]) == 2
    assert "--only results is not known: give temporary, quarantine" in capsys.readouterr().err
