"""The store's invariants: nothing half-written, nothing acknowledged lost, nothing damaged believed."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from m3_exp.store import Journal, Store, decoded, publish_directory, write_atomic
from m3_exp.types import M3Error, Result, ResultRecord, Score, Source, identity, plain
from tests.records import kind


def test_identity_is_canonical() -> None:
    assert identity({"b": 1, "a": (1, 2)}) == identity({"a": [1, 2], "b": 1})
    assert identity(Source("x")) != identity(Source("x", revision="1"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        identity(float("nan"))


def test_put_and_get(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert kind(store, "results").get("k") is None
    kind(store, "results").put("k", {"x": 1})
    assert kind(store, "results").get("k") == {"x": 1}
    assert list(kind(store, "results")) == ["k"]
    kind(store, "results").drop("k")
    assert list(kind(store, "results")) == []


def test_unreadable_value_is_set_aside_not_believed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kind(store, "results").put("k", {"x": 1})
    kind(store, "results").path("k").write_bytes(b'{"x": ')
    assert kind(store, "results").get("k") is None
    assert len(list((tmp_path / "quarantine").iterdir())) == 1


def test_other_format_is_refused(tmp_path: Path) -> None:
    write_atomic(tmp_path / "format.json", b'{"format": 999}')
    with pytest.raises(M3Error, match="format 999"):
        Store(tmp_path)


def test_failed_atomic_write_leaves_the_old_file_and_no_debris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_journal_merges_writers_and_first_record_comes_first(tmp_path: Path) -> None:
    with Journal(tmp_path) as one:
        one.append({"id": "a", "text": "é\ud800"})  # a lone surrogate survives
    with Journal(tmp_path) as two:
        two.append({"id": "b"})
        assert sorted(r["id"] for r in two.read()) == ["a", "b"]
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    assert next(r for r in Journal(tmp_path).read() if r["id"] == "a")["text"] == "é\ud800"


def test_every_truncation_of_a_journal_loses_only_its_tail(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for i in range(5):
            journal.append({"id": i})
    (path,) = tmp_path.glob("*.jsonl")
    data = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        expected = sum(end <= cut for end in ends)
        assert [r["id"] for r in Journal(tmp_path).read()] == list(range(expected)), cut


def test_a_damaged_line_is_not_read_and_the_others_are(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for i in range(3):
            journal.append({"id": i})
    (path,) = tmp_path.glob("*.jsonl")
    data = bytearray(path.read_bytes())
    data[12] ^= 1
    path.write_bytes(bytes(data))
    assert [r["id"] for r in Journal(tmp_path).read()] == [1, 2]


WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from m3_exp.store import Journal
    folder = Path(sys.argv[1])
    with Journal(folder) as journal:
        have = {r["id"] for r in journal.read()}
        for i in range(400):
            if i not in have:
                journal.append({"id": i, "text": "x" * 200})
                print(i, flush=True)
""")


@pytest.mark.slow
def test_sigkill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: set[int] = set()
    for round_ in range(12):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(0.003 * round_)
        child.send_signal(signal.SIGKILL)
        lines = [first, *child.stdout.read().split("\n")]
        child.wait()
        acknowledged |= {int(line) for line in lines if line.strip()}
        on_disk = [r["id"] for r in Journal(tmp_path).read()]
        assert acknowledged <= set(on_disk)
        assert len(on_disk) == len(set(on_disk))
    assert len(acknowledged) > 12


def test_published_directory_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "out"

    def fail() -> None:
        with publish_directory(final) as folder:
            (folder / "a").write_text("half")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with publish_directory(final) as folder:
        (folder / "a").write_text("whole")
        assert not final.exists()
    assert (final / "a").read_text() == "whole"
    with pytest.raises(M3Error, match="not empty"), publish_directory(final):
        pass


def test_debris_of_a_killed_publisher_is_removed_and_a_living_one_kept(tmp_path: Path) -> None:
    final = tmp_path / "out"
    code = (
        "import os, signal, sys; from pathlib import Path; from m3_exp.store import publish_directory\n"
        "with publish_directory(Path(sys.argv[1])) as f:\n"
        "    (f / 'a').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(final)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with publish_directory(final) as folder:
        assert [p for p in tmp_path.iterdir() if p != folder] == []
        (folder / "b").write_text("y")
    assert json.dumps([p.name for p in sorted(final.iterdir())]) == '["b"]'


def test_a_lock_lets_one_in_at_a_time_and_goes_with_a_killed_holder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    pid = os.fork()
    if pid == 0:
        with store.scan_lock("k"):
            kind(store, "scans").put("held", {})
            time.sleep(60)
        os._exit(0)
    while kind(store, "scans").get("held") is None:
        time.sleep(0.01)
    lock = os.open(tmp_path / "locks" / "scans-k.lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)
    with store.scan_lock("other"):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with store.scan_lock("k"):
        assert list(kind(store, "scans")) == ["held"], "the holder is gone, and so is its lock"


def test_a_score_whose_texts_are_none_is_read_again(tmp_path: Path) -> None:
    """A benchmark of one's own may give a number as what it extracted, and did so in older stores."""
    scores = (Score("a", 1.0, extracted=3), Score("b", None, reason=ValueError("odd")))  # type: ignore[arg-type]
    assert [(score.extracted, score.reason) for score in scores] == [("3", None), (None, "odd")]
    record = ResultRecord(Result("letters", "accuracy", 50.0, 1.0, 99.0, 2, 1, 1), scores)
    assert decoded(ResultRecord, plain(record)) == record
    old = plain(record)
    old["scores"][0]["extracted"] = 3
    assert decoded(ResultRecord, old) == record
