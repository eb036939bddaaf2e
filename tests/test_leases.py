"""Leases are advice: two workers on one group cost work, never bytes. A dead holder is told by the reader's clock."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from m3_exp.groups import Group, Queue
from m3_exp.store import leases
from m3_exp.store.leases import Held, Lease, Leases
from m3_exp.types import Recipe, Source

LATER, EARLIER = 3 * 3600.0, -3 * 3600.0  # seconds by which a node's time is wrong


class Clock:
    """A reader's own clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def there(folder: Path, **more: object) -> Leases:
    """Return the leases of a store as another machine sees them, whose locks do not reach here."""
    return Leases(folder, reach="another machine", **more)  # type: ignore[arg-type]


def left_by_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the lease of a holder on another machine that was killed."""
    with monkeypatch.context() as patched:
        patched.setattr(Lease, "__exit__", lambda self, *_: self._ended.set() or os.close(self._lock))
        with there(folder, beat=3600.0).take("g", run="r", worker="worker 7"):
            pass


def test_a_group_is_held_once(tmp_path: Path) -> None:
    one, other = Leases(tmp_path), Leases(tmp_path)
    with one.take("g", run="r", worker="worker 1"), other.take("h"):
        with pytest.raises(Held, match=f"worker 1 .pid {os.getpid()} on ") as refused:
            other.take("g")
        assert refused.value.by.run == "r"
    assert list(tmp_path.iterdir()) == []
    with other.take("g"):
        pass


def test_where_nothing_can_be_written_everyone_has_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = Leases(tmp_path / "file" / "leases")
    with below.take("g"), below.take("g"):
        pass


def _hold(folder: Path, held: "multiprocessing.synchronize.Event") -> None:  # type: ignore[name-defined]
    with Leases(folder).take("g"):
        held.set()
        time.sleep(600)


def test_a_full_disk_leaves_no_lease_that_others_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(leases, "_sealed", full)
        with Leases(tmp_path).take("g", run="r"):
            pass
    with Leases(tmp_path).take("g", run="later") as lease:
        assert isinstance(lease, Lease)


def test_a_killed_holder_of_this_machine_is_dead_at_once(tmp_path: Path) -> None:
    forked = multiprocessing.get_context("fork")
    held = forked.Event()
    process = forked.Process(target=_hold, args=(tmp_path, held), daemon=True)
    process.start()
    assert held.wait(30)
    here = Leases(tmp_path, clock=lambda: 0.0)
    with pytest.raises(Held):
        here.take("g")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with here.take("g"):
        pass


def test_what_a_killed_holder_left_is_swept_up_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by_another(tmp_path, monkeypatch)
    here = Leases(tmp_path)
    with here.take("mine"):
        here.sweep()
        assert sorted(path.name for path in tmp_path.glob("*.json")) == ["g.json", "mine.json"]
    there(tmp_path).sweep()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [LATER, EARLIER])
def test_a_holder_elsewhere_is_dead_when_its_count_stood_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    """Whatever time it is: the dates of the files and the time of day are wrong by hours, and nothing changes."""
    left_by_another(tmp_path, monkeypatch)
    os.utime(tmp_path / "g.json", (time.time() + wrong,) * 2)
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: clock.now + wrong)
    here = Leases(tmp_path, silent=60.0, clock=clock)
    for _ in range(3):
        with pytest.raises(Held, match="worker 7"):
            here.take("g")
        clock.now += 19.0
    clock.now += 10.0
    with here.take("g"), pytest.raises(Held):
        there(tmp_path, clock=clock).take("g")
    assert list(tmp_path.iterdir()) == []


def test_what_another_worker_of_a_run_left_is_taken_over_where_the_run_knows_that_it_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by_another(tmp_path, monkeypatch)
    here = Leases(tmp_path, clock=lambda: 0.0)
    for run, known in (("r", False), ("another", True)):
        with pytest.raises(Held, match="worker 7"):
            here.take("g", run=run, takes_over=known)
    with here.take("g", run="r", takes_over=True), pytest.raises(Held):
        there(tmp_path).take("g", run="another", takes_over=True)
    assert list(tmp_path.iterdir()) == []


def test_one_that_raises_its_count_keeps_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system where locks keep nobody out, the count alone tells."""
    monkeypatch.setattr(leases, "excludes", lambda _: False)
    monkeypatch.setattr(leases, "_locked", lambda path: os.open(os.devnull, os.O_RDONLY))
    clock = Clock()
    one, other = Leases(tmp_path, beat=0.02), Leases(tmp_path, silent=60.0, clock=clock)
    with one.take("g"):
        for _ in range(3):
            before = leases._read(tmp_path / "g.json").count
            _until(lambda before=before: leases._read(tmp_path / "g.json").count > before)  # type: ignore[misc]
            clock.now += 1000.0
            with pytest.raises(Held):
                other.take("g")
    with other.take("g"):
        pass


def test_one_that_lost_its_group_does_not_take_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "excludes", lambda _: False)
    monkeypatch.setattr(leases, "_locked", lambda path: os.open(os.devnull, os.O_RDONLY))
    clock = Clock()
    slow, other = Leases(tmp_path, beat=0.05), Leases(tmp_path, silent=0.0, beat=3600.0, clock=clock)
    with slow.take("g", worker="slow"):
        (tmp_path / "g.json").write_bytes(b"torn")
        with pytest.raises(Held):
            other.take("g")
        clock.now += 1.0
        with other.take("g", worker="other"):
            time.sleep(0.2)
            assert leases._read(tmp_path / "g.json").worker == "other"
            assert leases._read(tmp_path / "g.json").count == 0
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_come_at_once_one_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks, too: the file is made by one alone."""
    monkeypatch.setattr(leases, "excludes", lambda _: False)
    monkeypatch.setattr(leases, "_locked", lambda path: os.open(os.devnull, os.O_RDONLY))
    barrier, got = threading.Barrier(8), []

    def come() -> None:
        barrier.wait()
        with contextlib.suppress(Held):
            got.append(Leases(tmp_path).take("g"))

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    got[0].__exit__(None, None, None)


# --------------------------------------------------------------------------------------------------------- queue


def group(key: str, tokenizer: str = "t", experts: tuple[str, ...] = ("a", "b")) -> Group:
    sources = tuple(map(Source, experts))
    recipe = Recipe(Source("base"), sources, "average", (0.5, 0.5))
    return Group(recipe, key, Source(tokenizer), sources, ())


def test_a_worker_goes_on_with_what_shares_its_inputs() -> None:
    asked = [group("1"), group("2", experts=("a", "c")), group("3", "u"), group("4", experts=("b", "a")), group("5")]
    queue, order, last = Queue(asked), [], None
    while (last := queue.take(last)) is not None:
        order.append(last.key)
        queue.done()
    assert order == ["1", "4", "5", "2", "3"]
    assert len(queue) == 0


def test_a_group_of_a_dead_worker_is_the_next_one() -> None:
    queue = Queue([group("1"), group("2")])
    first = queue.take()
    assert first is not None
    queue.back(first, first=True)
    assert len(queue) == 2
    again = queue.take()
    assert again == first
    queue.back(first)
    assert [one.key for one in (queue.take(), queue.take()) if one is not None] == ["2", "1"]


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)
