"""What a store survives: a full disk at every stage, eight processes at once, damage, a folder of read-only files."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3_exp.store import Store
from tests.faults import world as worlds
from tests.faults.world import Session, World

SIZES = 8  # of a disk, from nearly nothing to about enough
DAMAGES = 60


# -------------------------------------------------------------------------------------------------------- full disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory, whose size can be changed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def _resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def _used(folder: Path) -> int:
    """Return the bytes of a folder as tmpfs counts them: whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in folder.rglob("*"))


def test_a_full_disk_is_said_and_a_larger_one_goes_on(
    world: World, whole: bytes, disk: Path, store: str, tmp_path: Path
) -> None:
    """However far a run comes: it says so in a line, keeps what it has, and notes nothing wrong."""
    assert Session(world.line(str(disk / "whole")), tmp_path / "log").wait() == 0
    needed = _used(disk / "whole")  # about three times what the disk gives out
    shutil.rmtree(disk / "whole")
    full = 0
    for step in range(1, SIZES):
        place = disk / f"store-{step}"
        _resize(disk, max(16 << 10, needed * step // (3 * SIZES)))
        log = tmp_path / f"log-{step}"
        code = Session(world.line(str(place)), log).wait()
        said = log.read_text()
        assert "Traceback" not in said, said
        if code:
            assert code in (1, 2, 3), said
            assert "No space left on device" in said, said
            full += 1
        _resize(disk, 4 * needed)
        assert Session(world.line(str(place)), log).wait() == 0, log.read_text()
        assert world.table(str(place)) == whole
        assert worlds.answered_twice(place) == {}
        assert worlds.temporary(place) == []
        assert not (place / "quarantine").exists(), "nothing was half-written"
        shutil.rmtree(place)
    assert full >= 5


# -------------------------------------------------------------------------------------------------------------- races


def test_eight_processes_race_on_one_store(world: World, whole: bytes, store: str, tmp_path: Path) -> None:
    runs = [Session(world.line(store), tmp_path / f"log-{number}") for number in range(8)]
    assert [run.wait() for run in runs] == [0] * 8, "".join(run.said() for run in runs)
    assert not any("Traceback" in run.said() for run in runs)
    assert world.table(store) == whole
    assert worlds.answered_twice(world.folder / store) == {}, "leases keep them apart"
    assert worlds.temporary(world.folder / store) == []
    assert list((world.folder / store / "leases").iterdir()) == []


def test_without_locks_races_cost_work_and_no_bytes(
    world: World, whole: bytes, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that knows no locks."""
    import fcntl

    def refused(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refused)
    runs = [Session(world.line(store), tmp_path / f"log-{number}") for number in range(4)]
    assert [run.wait() for run in runs] == [0] * 4, "".join(run.said() for run in runs)
    monkeypatch.undo()
    monkeypatch.chdir(world.folder)
    assert world.table(store) == whole


# ------------------------------------------------------------------------------------------------------------- damage


def _files(store: Path) -> dict[str, list[Path]]:
    """Return the files of a store by kind: the first folder that they lie in."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(store.rglob("*")):
        if path.is_file() and path.suffix in (".json", ".jsonl", ".safetensors"):
            kinds.setdefault(path.relative_to(store).parts[0], []).append(path)
    return kinds


def _damage(path: Path, how: str, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    os.chmod(path, 0o644)
    if how == "emptied":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(data[: chance.randrange(len(data))])
    elif how == "flipped":
        at = chance.randrange(len(data))
        data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    elif how == "garbled":
        path.write_bytes(bytes(chance.randrange(256) for _ in range(len(data))))


@pytest.mark.parametrize("how", ["emptied", "truncated", "flipped", "garbled"])
def test_damage_of_every_kind_never_becomes_a_number(
    world: World, whole: bytes, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of a damaged store has the same rows, or lacks some; the next run mends them all."""
    chance = worlds.seeded(how)
    kinds = _files(world.folder / "whole")
    assert {"results", "answers", "merges", "answer_sets", "plans", "history"} <= set(kinds)
    for number, kind in enumerate(sorted(kinds) * (DAMAGES // 4 // len(kinds) + 1)):
        store = f"damaged-{how}-{number}"
        shutil.copytree(world.folder / "whole", world.folder / store)
        victim = world.folder / store / chance.choice(kinds[kind]).relative_to(world.folder / "whole")
        _damage(victim, how, chance)
        log = tmp_path / f"log-{number}"
        assert Session(world.line(store), log).wait() == 0, f"{victim}: {log.read_text()}"
        assert "Traceback" not in log.read_text(), f"{victim}: {log.read_text()}"
        code, said = worlds.call(["table", "--run", "last", "--json", f"store={store}"])
        assert (code, said.encode()) == (0, whole), f"{victim} {how}"
        shutil.rmtree(world.folder / store)


def test_a_store_that_may_not_be_written_is_refused_in_a_line_and_read(
    world: World, whole: bytes, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    shutil.copytree(world.folder / "whole", world.folder / store)
    (world.folder / store / "results").rename(tmp_path / "results")
    bind = ["mount", "--bind", world.folder / store, world.folder / store]
    done = subprocess.run(bind, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", world.folder / store], check=True)
        log = tmp_path / "log"
        assert Session(world.line(store), log).wait() == 2
        assert "store=DIR" in log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", world.folder / store], check=True)
    (tmp_path / "results").rename(world.folder / store / "results")
    assert world.table(store) == whole
    assert list(Store(world.folder / store).failures) == []
