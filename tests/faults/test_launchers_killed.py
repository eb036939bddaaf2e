"""Kills under Ray and Slurm: of workers and of the run itself, at any time; then the same command, the same bytes."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3_exp.command_line import ROOT
from m3_exp.heartbeat import workers
from m3_exp.store import Store
from tests import slurm_cluster
from tests.faults import world as worlds
from tests.faults.world import World

SHORT, LONG = 8, 30  # kills
# In every process of the run an answer comes a third of a second after the other.
SLOW = """
import time
from m3_exp.engines import recorded
generate = recorded.RecordedEngine.generate
def slow(*args, **more):
    for answer in generate(*args, **more):
        time.sleep(0.33)
        yield answer
recorded.RecordedEngine.generate = slow
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'slow'}:{ROOT}")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # with 15, its default, actors starve beside other tests


@pytest.fixture(scope="module")
def _slurm() -> Iterator[None]:
    pytest.importorskip("submitit")
    worlds.adopt_orphans(False)  # Slurm waits until the processes of its jobs are gone, zombies too
    try:
        with slurm_cluster.running():
            yield
    except slurm_cluster.NotHere as reason:
        pytest.skip(f"no Slurm here: {reason}")
    finally:
        worlds.adopt_orphans()


def _storm(world: World, whole: bytes, tmp_path: Path, name: str, more: list[str], kills: int) -> None:
    store, log, chance = f"{name}-{kills}", tmp_path / "log", worlds.seeded(f"{name} {kills}")
    landed = {"worker": 0, "run": 0}
    while sum(landed.values()) < kills:
        run = _start(world, store, more, log)
        while _has_moved(world.folder / store, run) and sum(landed.values()) < kills:
            time.sleep(chance.uniform(0, 0.5))
            _kill_one(run, Store(world.folder / store), chance, landed)
        if run.poll() is None:
            run.kill()
        assert run.wait(120) in (0, 3, 130, -signal.SIGKILL), log.read_text()
    for _ in range(3):  # the jobs of a killed run may be joined first, and end
        if _start(world, store, more, log).wait(300) == 0:
            break
    assert world.table(store) == whole, log.read_text()
    said = log.read_text()
    assert "Traceback" not in said, said
    assert "8 of 8 cells done" in said or "nothing to do" in said, said
    folder = world.folder / store
    assert sum(worlds.answered_twice(folder).values()) <= 2 * kills, "no more than was in flight"
    assert [one for one in worlds.left_behind(60) if not any(name in one for name in worlds.DAEMONS)] == []
    if list((folder / "workers").glob("*.json")):  # an actor of a killed run outlived the last run: the next forgets it
        assert _start(world, store, more, log).wait(300) == 0
    for kind in ("runs", "workers", "leases", "failures"):
        assert list((folder / kind).glob("*.json")) == [], kind
    code, words = worlds.call(["verify", f"store={store}"])
    assert code == 0, words
    print(f"{name}: {landed}, {len(worlds.answered_twice(folder))} answers twice")


def _start(world: World, store: str, more: list[str], log: Path) -> "subprocess.Popen[bytes]":
    line = [sys.executable, "-m", "m3_exp.cli", *world.line(store, "workers=2", "launcher.silent=3", *more)]
    with log.open("ab") as file:
        return subprocess.Popen(line, cwd=world.folder, stdout=file, stderr=file, start_new_session=True)


def _has_moved(store: Path, run: "subprocess.Popen[bytes]") -> bool:
    """Wait until one more answer is there. False where the run ends before."""
    before = _answers(store)
    while _answers(store) == before:
        if run.poll() is not None:
            return False
        time.sleep(0.05)
    return True


def _answers(store: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in store.glob("answers/*/*.jsonl"))


def _kill_one(run: "subprocess.Popen[bytes]", store: Store, chance: random.Random, landed: dict[str, int]) -> None:
    """Kill a worker that lives, or (of five times one) the run."""
    living = [worker.pid for worker in workers(store) if worker.alive]
    victim = run.pid if chance.random() < 0.2 or not living else chance.choice(living)
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
        landed["run" if victim == run.pid else "worker"] += 1


@pytest.mark.usefixtures("slow")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [SHORT, pytest.param(LONG, marks=pytest.mark.long)])
def test_kills_under_ray(world: World, whole: bytes, tmp_path: Path, kills: int) -> None:
    pytest.importorskip("ray")
    _storm(world, whole, tmp_path, "ray", ["launcher=ray"], kills)


@pytest.mark.usefixtures("slow", "_slurm")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [pytest.param(LONG, marks=pytest.mark.long)])
def test_kills_under_slurm(world: World, whole: bytes, tmp_path: Path, kills: int) -> None:
    _storm(world, whole, tmp_path, "slurm", ["launcher=slurm", "launcher.minutes=10"], kills)
