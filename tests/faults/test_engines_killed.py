"""Kills under real engines, of the run and of the engine's own process; and a clock that is set back."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3_exp.command_line import ROOT
from m3_exp.store import Store
from tests.faults import world as worlds
from tests.faults.world import Session, World
from tests.golden.commands import CONFIG

ASKED = ("-m", "pair=lm_math", "method=average,ties", "evaluator=[gsm8k]", "evaluator.gsm8k.max_tokens=24", "limit=12")


def _line(engine: str, store: str) -> list[str]:
    if engine == "vllm":  # the golden world's models are too small for it
        lab = [
            "-m",
            "pair=lm_math",
            "method=average,ties",
            "evaluator=[gsm8k]",
            "evaluator.gsm8k.max_tokens=48",
            "limit=12",
        ]
        return [*(sys.executable, "-m", "m3_exp.cli", "run", *lab), f"store={store}", "tracker=none", "dtype=float32"]
    return [
        *(sys.executable, "-m", "m3_exp.cli", "run", *ASKED, *CONFIG, f"engine={engine}", f"store={store}"),
        *("tracker=none", "dtype=float32", *(["engine.max_num_seqs=4"] if engine == "transformers" else [])),
    ]


def _start(world: World, engine: str, store: str, log: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("ab") as file:
        return subprocess.Popen(
            _line(engine, store), cwd=world.folder, env=environment, stdout=file, stderr=file, start_new_session=True
        )


def _answers(store: Path) -> dict[tuple[str, str, int], str]:
    """Return every answer's text by weights, item and sample."""
    found = {}
    for key, about in Store(store).answer_sets.items():
        for answer in Store(store).answers(key).read():
            found[about.weights, answer.id, answer.sample] = answer.text
    return found


def _storm(world: World, engine: str, tmp_path: Path, kills: int) -> None:
    """Kill the run, or its engine, at random moments; continue; compare with a run that nobody disturbed."""
    chance, log = worlds.seeded(f"storm {engine}"), tmp_path / "log"
    whole, store = f"{engine}-whole", f"{engine}-killed"
    began = time.monotonic()
    assert _start(world, engine, whole, tmp_path / "whole").wait(600) == 0, (tmp_path / "whole").read_text()
    seconds = time.monotonic() - began
    run = None
    for number in range(kills):
        if run is None or run.poll() is not None:
            run = _start(world, engine, store, log)
        time.sleep(chance.uniform(0.3, 1.0) * seconds)
        victims = [run.pid] if number % 2 == 0 else list(_engines(run.pid)) or [run.pid]
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(victims), signal.SIGKILL)
        if victims == [run.pid]:
            run.wait(60)
            assert worlds.left_behind() == [], "the engine ends with the run"
            run = None
    if run is not None:
        run.wait(600)
    last = _start(world, engine, store, log)
    assert last.wait(600) == 0, log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()
    assert worlds.left_behind() == []
    killed, undisturbed = _answers(world.folder / store), _answers(world.folder / whole)
    assert len(undisturbed) == 24
    assert killed == undisturbed, "in float32 a text does not depend on what else is asked"
    assert worlds.answered_twice(world.folder / store) == {}
    assert worlds.temporary(world.folder / store) == []
    code, said = worlds.call(["verify", f"store={store}"])
    assert code == 0, said


def _engines(pid: int) -> Iterator[int]:
    """Give the processes below a run."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = [int(text) for text in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from _engines(child)


def test_kills_under_transformers(world: World, tmp_path: Path) -> None:
    _storm(world, "transformers", tmp_path, 4)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_kills_under_vllm(world: World, tmp_path: Path) -> None:
    _storm(world, "vllm", tmp_path, 10)


@pytest.mark.parametrize("hours", [-5.0, 5.0])
def test_a_clock_that_is_changed_changes_nothing(
    world: World, whole: bytes, store: str, tmp_path: Path, hours: float
) -> None:
    """In the middle of a run the time of day jumps, and the run is killed; the next one begins at the right time."""

    def jumps() -> None:
        right, asked = time.time, [0]

        def wrong() -> float:
            asked[0] += 1
            return right() + (3600 * hours if asked[0] > 40 else 0.0)

        time.time = wrong

    def jumps_and_dies() -> None:
        jumps()
        worlds.die_at(150, after=True)()

    killed = Session(world.line(store), tmp_path / "killed", jumps_and_dies)
    assert killed.wait() == -signal.SIGKILL, killed.said()
    run = Session(world.line(store), tmp_path / "log", jumps)
    assert run.wait() == 0, run.said()
    assert world.table(store) == whole
    assert worlds.answered_twice(world.folder / store) == {}
    assert worlds.temporary(world.folder / store) == []
    code, said = worlds.call(["runs", f"store={store}"])
    assert code == 0, said
