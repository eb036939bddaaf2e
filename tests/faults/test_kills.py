"""SIGKILL at any point of merge, swap, generate, score and report; then the same command again: the same bytes."""

import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import world as worlds
from tests.faults.world import Session, World

KILLS = 100
REPORTS = 12


@pytest.mark.timeout(1800)
def test_a_hundred_kills_end_in_the_same_bytes(world: World, whole: bytes, tmp_path: Path) -> None:
    """Half of them at a step that a run takes on disk, before or after it; half at any time."""
    chance, landed, lives = worlds.seeded("kills"), Counter[str](), 0
    steps, seconds = _measured(world, tmp_path)
    while landed.total() < KILLS:
        store, log = f"life-{lives}", tmp_path / f"life-{lives}.log"
        more = ["checkpoint=keep", "verify=false"] if lives % 3 == 2 else []
        while True:
            by_step = landed.total() % 2 == 0
            soon = chance.randrange(1, max(2, steps // chance.choice((1, 4, 8))))
            prepare = worlds.die_at(soon, after=chance.random() < 0.5) if by_step else _nothing
            run = Session(world.line(store, *more), log, prepare)
            if not by_step:
                time.sleep(chance.uniform(0, seconds / chance.choice((1, 2, 4))))
                run.kill()
            code = run.wait()
            if code == 0:
                break
            assert code == -signal.SIGKILL, run.said()
            assert "Traceback" not in run.said(), run.said()
            landed["step" if by_step else "time"] += 1
        _check(world, store, whole)
        lives += 1
    assert min(landed["step"], landed["time"]) >= KILLS // 4, landed
    print(f"{landed} kills in {lives} lives; a whole run takes {steps} steps on disk and {seconds:.1f} s")


def test_a_killed_report_is_no_page_or_a_whole_one(world: World, whole: bytes, tmp_path: Path) -> None:
    chance = worlds.seeded("reports")
    out, log = tmp_path / "page", tmp_path / "log"
    line = ["report", "--run", "last", "store=whole", "--out", str(out)]
    steps = worlds.steps_of(lambda prepare: _ended(Session(line, log, prepare)), tmp_path / "steps")
    page = _page(out)
    shutil.rmtree(out)
    ended = Counter[int]()
    for _ in range(REPORTS):
        prepare = worlds.die_at(chance.randrange(1, steps + 1), after=chance.random() < 0.5)
        ended[Session(line, log, prepare).wait()] += 1
        assert not (out / "index.html").exists() or _page(out) == page
    assert ended[-signal.SIGKILL] >= REPORTS // 2, "the later ones take fewer steps: what was composed is kept"
    assert set(ended) <= {0, -signal.SIGKILL}, log.read_text()
    _ended(Session(line, log))
    assert _page(out) == page


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_in_order(world: World, whole: bytes, store: str, tmp_path: Path, number: int) -> None:
    """Ctrl-C, and what a scheduler sends before it kills: nothing is noted as a failure, nothing is left behind."""
    ended = Counter[int]()
    _, seconds = _measured(world, tmp_path)
    for part in (0.15, 0.3, 0.45, 0.6):
        run = Session(world.line(store), tmp_path / "log")
        time.sleep(part * seconds)
        run.kill(number)
        code = run.wait()
        ended[code] += 1
        assert "Traceback" not in run.said(), run.said()
        assert list((world.folder / store / "runs").glob("*")) == []
        assert list((world.folder / store / "failures").glob("*")) == []
        assert worlds.temporary(world.folder / store) == []
        if code == 0:
            break
        assert code == 128 + number, run.said()
    assert ended[128 + number] >= 1
    assert Session(world.line(store), tmp_path / "log").wait() == 0
    _check(world, store, whole)


def test_two_interrupts_end_a_run_at_once(world: World, whole: bytes, store: str, tmp_path: Path) -> None:
    _, seconds = _measured(world, tmp_path)
    for wait in (0.3, 0.6, 0.9):
        run = Session(world.line(store), tmp_path / "log")
        time.sleep(wait * seconds)
        run.kill(signal.SIGINT)
        time.sleep(0.01)
        run.kill(signal.SIGINT)
        assert run.wait(20) in (0, 130, -signal.SIGINT), run.said()
        assert "Traceback" not in run.said(), run.said()
    assert Session(world.line(store), tmp_path / "log").wait() == 0
    _check(world, store, whole)


def _nothing() -> None:
    pass


def _page(out: Path) -> bytes:
    """Return a page without the minute in which it was made."""
    return re.sub(rb"Made [-0-9]{10} [0-9]{2}:[0-9]{2} UTC", b"Made", (out / "index.html").read_bytes())


def _ended(run: Session) -> None:
    assert run.wait() == 0, run.said()


_MEASURED: dict[Path, tuple[int, float]] = {}


def _measured(world: World, tmp_path: Path) -> tuple[int, float]:
    """Return the steps on disk and the seconds of a run that nobody disturbs."""
    if world.folder not in _MEASURED:
        line, log = world.line("counted"), tmp_path / "counted.log"
        counted = worlds.steps_of(lambda prepare: _ended(Session(line, log, prepare)), tmp_path / "steps")
        began = time.monotonic()
        _ended(Session(world.line("timed"), tmp_path / "timed.log"))
        _MEASURED[world.folder] = counted, time.monotonic() - began
    return _MEASURED[world.folder]


def _check(world: World, store: str, whole: bytes) -> None:
    """Hold a store against what an undisturbed run says."""
    assert worlds.left_behind() == []
    assert world.table(store) == whole
    folder = world.folder / store
    assert worlds.answered_twice(folder) == {}
    assert worlds.temporary(folder) == []
    assert not (folder / "quarantine").exists()
    for kind in ("runs", "workers", "leases", "failures"):
        assert list((folder / kind).glob("*")) == [], kind
    code, said = worlds.call(["verify", f"store={store}"])
    assert code == 0, said
