"""What a run shows of itself to others, and that a dead one is not taken for a living one."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from m3_exp import heartbeat
from m3_exp.heartbeat import Heartbeat, runs, workers
from m3_exp.launchers.signs import Sign
from m3_exp.progress import Progress
from m3_exp.store import Records, RunRecord, Store, locked

RUN = "0123456789abcdef"


def expecting(answers: int) -> Progress:
    progress = Progress(5)
    progress.expect(answers)
    return progress


def state(moving: Progress | None = None) -> RunRecord:
    now = moving or expecting(9)
    return RunRecord("m3 run limit=4", "p", 5, 2, 1, now.total, now.done, now.speed(), now.at_work(), now.left())


def test_a_run_is_seen_while_it_lives_and_forgotten_when_it_ends(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with Heartbeat(store, RUN, state):
        (seen,) = runs(store)
        assert (seen.id, seen.pid, seen.alive, seen.cells_done, seen.items) == (RUN, os.getpid(), True, 2, 9)
        assert str(seen).startswith(f"running: m3 run limit=4: pid {os.getpid()} on {seen.host}, since 20")
        assert "2 of 5 cells, 0 of 9 answers, 1 failed | preparing" in str(seen)
    assert runs(store) == []
    assert list((tmp_path / "runs").iterdir()) == []


def test_signs_of_life_are_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", 0.02)
    moving = expecting(9)
    with Heartbeat(Store(tmp_path), RUN, lambda: state(moving)):
        moving.generated(3)
        deadline = time.monotonic() + 10
        while runs(Store(tmp_path))[0].items_done == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        (seen,) = runs(Store(tmp_path))
    assert seen.items_done == 1
    assert seen.seconds_left is not None
    assert seen.seconds_left > 0


def killed(folder: Path) -> int:
    """Start a run in a process of its own, kill it when it is seen, and return its number."""
    pid = os.fork()
    if pid == 0:
        with Heartbeat(Store(folder), RUN, state):
            time.sleep(60)
        os._exit(0)
    deadline = time.monotonic() + 10
    while not runs(Store(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [seen.alive for seen in runs(Store(folder))] == [True]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


def test_a_killed_run_is_not_running(tmp_path: Path) -> None:
    pid = killed(tmp_path)
    (seen,) = runs(Store(tmp_path))
    assert (seen.pid, seen.alive) == (pid, False)
    assert "ended without a word" in str(seen)
    assert str(seen).endswith("to continue: m3 run limit=4")


def test_the_next_run_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    killed(tmp_path)
    with Heartbeat(Store(tmp_path), "f" * 16, state):
        assert [seen.id for seen in runs(Store(tmp_path))] == ["f" * 16]


def test_a_run_that_ends_clears_away_a_worker_that_a_killed_one_left_and_that_died_since(tmp_path: Path) -> None:
    """Ray's workers live on for a moment after their run was killed."""
    store = Store(tmp_path)
    pid = os.fork()
    if pid == 0:
        with Sign(store, RUN, "worker 1"):
            time.sleep(60)
        os._exit(0)
    deadline = time.monotonic() + 10
    while not workers(store) and time.monotonic() < deadline:
        time.sleep(0.01)
    with Heartbeat(store, "f" * 16, state):
        assert [worker.alive for worker in workers(store)] == [True]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert list((tmp_path / "workers").iterdir()) == []


def test_a_run_elsewhere_is_believed_while_it_is_heard_of(tmp_path: Path) -> None:
    store = Store(tmp_path)
    about = replace(state(), pid=1, host="elsewhere", started=time.time() - 500, locked=True)
    store.runs.put("a" * 16, replace(about, updated=time.time() - 9000))
    store.runs.put("b" * 16, replace(about, updated=time.time() + 9000))
    os.utime(store.runs.path("b" * 16), (time.time() - 400,) * 2)  # not what its node took for the time
    assert {seen.id[0]: seen.alive for seen in runs(store)} == {"a": True, "b": False}


def test_a_record_that_is_none_is_passed_over(tmp_path: Path) -> None:
    Records(Store(tmp_path), "runs", dict).put(RUN, {"pid": 1})
    assert runs(Store(tmp_path)) == []


def test_a_living_run_of_another_version_of_m3_keeps_its_record_and_its_lock(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Records(Store(tmp_path), "runs", dict)
    other.put(RUN, {"of": "a later version"})
    other.put("b" * 16, {"of": "a later version"})
    os.utime(other.path("b" * 16), (time.time() - 400,) * 2)
    with locked(store.run_lock(RUN), os.O_RDWR | os.O_CREAT):
        os.utime(other.path(RUN), (time.time() - 400,) * 2)
        with Heartbeat(store, "f" * 16, state):
            assert list(store.runs) == [RUN, "f" * 16], "the one that nobody holds is cleared away"
            assert store.run_lock(RUN).exists()


def test_a_store_that_cannot_be_written_takes_nothing_from_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Records, "put", full)
    with Heartbeat(Store(tmp_path), RUN, state):
        pass
