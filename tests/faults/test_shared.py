"""A store on a shared file system: two mounts of one folder, as two nodes have them.

Locks do not reach from one to the other, and what one knows of files is seconds old (FUSE, `bindfs`). A file system
without any locks is one whose `flock` fails, or says yes to everyone: a library that is loaded before all others.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3_exp.command_line import ROOT
from tests.faults import world as worlds
from tests.faults.world import Session, World

SILENT = 3
NO_LOCKS = {
    "refused": "#include <errno.h>\nint flock(int fd, int how) { errno = ENOLCK; return -1; }\n",
    "granted to all": "int flock(int fd, int how) { return 0; }\n",
}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Path]]:
    """Two mounts of one folder."""
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is not installed: apt-get install bindfs")
    real, mounts = tmp_path / "real", [tmp_path / "one", tmp_path / "two"]
    for folder in (real, *mounts):
        folder.mkdir()
    cached = f"attr_timeout={SILENT / 2},entry_timeout={SILENT / 2},negative_timeout=0"
    for mount in mounts:
        done = subprocess.run(["bindfs", "-o", cached, real, mount], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"FUSE does not work here: {done.stderr.strip()}")
    yield mounts
    for mount in mounts:
        subprocess.run(["fusermount", "-u", "-z", mount], check=True)


def test_two_nodes_share_the_work(world: World, whole: bytes, nodes: list[Path], tmp_path: Path) -> None:
    more = [f"launcher.silent={SILENT}"]
    runs = [
        Session(world.line(str(node / "store"), *more), tmp_path / f"log-{at}") for at, node in enumerate(nodes * 2)
    ]
    assert [run.wait() for run in runs] == [0] * 4, "".join(run.said() for run in runs)
    store = tmp_path / "real" / "store"
    assert world.table(str(store)) == whole
    assert worlds.answered_twice(store) == {}
    assert list((store / "leases").iterdir()) == []


def test_a_node_that_vanished_is_taken_over(world: World, whole: bytes, nodes: list[Path], tmp_path: Path) -> None:
    """Its lease is dead when its count has stood still, and nobody was told."""
    more, store = [f"launcher.silent={SILENT}"], tmp_path / "real" / "store"
    lost = Session(world.line(str(nodes[0] / "store"), *more), tmp_path / "lost", _slowly)
    end = time.monotonic() + worlds.PATIENCE
    while not list((store / "leases").glob("*.json")) or not list((store / "answers").glob("*/*")):
        assert time.monotonic() < end, lost.said()
        time.sleep(0.01)
    lost.kill()
    assert lost.wait() == -signal.SIGKILL
    assert len(list((store / "leases").glob("*.json"))) == 1
    began = time.monotonic()
    other = Session(world.line(str(nodes[1] / "store"), *more), tmp_path / "other")
    assert other.wait() == 0, other.said()
    assert time.monotonic() - began >= SILENT
    assert "another run is at work on some of these cells" in other.said()
    assert world.table(str(store)) == whole
    assert worlds.answered_twice(store) == {}


@pytest.mark.parametrize("locks", NO_LOCKS)
def test_without_locks_it_costs_work_and_no_bytes(
    world: World, whole: bytes, store: str, tmp_path: Path, locks: str
) -> None:
    """Two whole programs at once, one of them killed and continued."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "locks.c").write_text(NO_LOCKS[locks])
    library = tmp_path / "locks.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "locks.c"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "m3_exp.cli", *world.line(store, f"launcher.silent={SILENT}")]

    def start() -> "subprocess.Popen[str]":
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(line, env=environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    killed, other = start(), start()
    end = time.monotonic() + worlds.PATIENCE
    while not list((world.folder / store / "answers").glob("*/*")):
        assert time.monotonic() < end
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    said = other.communicate(timeout=worlds.PATIENCE)[0]
    assert other.returncode == 0, said
    again = start()
    said = again.communicate(timeout=worlds.PATIENCE)[0]
    assert again.returncode == 0, said
    assert "Traceback" not in said
    assert world.table(store) == whole


def _slowly() -> None:
    """Make answers come a tenth of a second apart."""
    from m3_exp.engines.recorded import RecordedEngine

    generate = RecordedEngine.generate

    def slow(*args: object, **more: object) -> Iterator[object]:
        for answer in generate(*args, **more):  # type: ignore[arg-type]
            yield answer
            time.sleep(0.1)

    RecordedEngine.generate = slow  # type: ignore[method-assign,assignment]
