"""What killed writers leave is removed by whoever comes next, what living ones write stays; and a run that was killed
and resumed with recorded answers says nothing else than one that was not.
"""

import ast
import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from m3_exp import cli, temporary
from m3_exp.engines import recorded, transformers, vllm
from m3_exp.merging import compiled
from m3_exp.reporting.tables.footers import footer
from m3_exp.scoring import cache
from m3_exp.store import Majority, Store, publish_directory, write_atomic
from m3_exp.types import EngineSettings
from tests.curved import framed
from tests.files import recorded_run, write_lines
from tests.models import SMALL, random_weights, write_model

ROOT = Path(__file__).resolve().parent.parent
DAYS_AGO = time.time() - 3 * 86_400

# A process that is stopped, or kills itself, in the middle of writing: at its n-th fsync.
WRITER = """
import os, signal, sys, time
from pathlib import Path
how, act, place = sys.argv[1:]
def stop(descriptor):
    print("writing", flush=True)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
os.fsync = stop
from m3_exp.store import Majority, Store, publish_directory, write_atomic
if act == "put":
    Store(Path(place)).majorities.put("key", Majority(1.0))
elif act == "file":
    write_atomic(Path(place), b"half")
else:
    with publish_directory(Path(place)) as folder:
        (folder / "a").write_text("half")
"""


def killed(act: str, place: Path) -> None:
    """Let a process be killed (SIGKILL) in the middle of writing."""
    done = subprocess.run([sys.executable, "-c", WRITER, "kill", act, str(place)], cwd=ROOT, check=False)
    assert done.returncode == -9


@contextlib.contextmanager
def writing(act: str, place: Path) -> Iterator[None]:
    """Have a process in the middle of writing; it is killed in the end."""
    command = [sys.executable, "-c", WRITER, "wait", act, str(place)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield
        process.kill()


def debris(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.tmp"))


# ------------------------------------------------------------------------------------------------------- killed, alive


def test_a_killed_writers_file_goes_with_the_next_write_into_its_folder(tmp_path: Path) -> None:
    killed("file", tmp_path / "page.html")
    assert len(debris(tmp_path)) == 1
    write_atomic(tmp_path / "another.html", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["another.html"]


def test_a_killed_publishers_directory_goes_with_the_next_one(tmp_path: Path) -> None:
    write_atomic(tmp_path / "before", b"")  # this process has written here already
    killed("directory", tmp_path / "out")
    assert len(debris(tmp_path)) == 1
    with publish_directory(tmp_path / "other") as folder:
        assert debris(tmp_path) == [folder]


def test_a_store_is_rid_of_all_that_killed_writers_left(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.majorities.put("whole", Majority(1.0))
    killed("put", tmp_path)
    for place in ("results/cell/result.json", "judgments/ab/key.json", "quarantine/x.json", "tracker/w.json"):
        killed("file", tmp_path / place)
    killed("directory", tmp_path / "tokenizers" / "key")
    assert len(debris(tmp_path)) == 6
    store.sweep()
    assert debris(tmp_path) == []
    assert store.majorities.get("whole") == Majority(1.0)


@pytest.mark.parametrize("act", ["file", "directory"])
def test_what_is_being_written_stays(act: str, tmp_path: Path) -> None:
    with writing(act, tmp_path / "out"):
        [path] = debris(tmp_path)
        temporary.sweep(tmp_path)
        assert path.exists()
        os.utime(path, (DAYS_AGO, DAYS_AGO))
        temporary.sweep(tmp_path)
        assert path.exists(), "its writer holds it, however long it takes"
    temporary.sweep(tmp_path)
    assert debris(tmp_path) == []


# ------------------------------------------------------------------------------------------ other machines and names


def planted(folder: Path, name: str, *, old: bool = False) -> Path:
    path = folder / name
    path.write_text("half")
    if old:
        os.utime(path, (DAYS_AGO, DAYS_AGO))
    return path


def test_another_machines_file_stays_for_a_day(tmp_path: Path) -> None:
    young = planted(tmp_path, ".a.json.0123abcd-1-0123456789ab.tmp")
    old = planted(tmp_path, ".b.json.0123abcd-1-0123456789ab.tmp", old=True)
    held = planted(tmp_path, ".c.json.0123abcd-1-0123456789ab.tmp", old=True)
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        temporary.sweep(tmp_path)
    assert (young.exists(), old.exists(), held.exists()) == (True, False, True)


def test_a_directory_is_as_old_as_the_last_change_in_it(tmp_path: Path) -> None:
    for name, old in (("new", False), ("old", True)):
        folder = tmp_path / f".{name}.0123abcd-1-0123456789ab.tmp"
        (folder / "deep").mkdir(parents=True)
        planted(folder / "deep", "shard", old=old)
        for path in (folder / "deep", folder):
            os.utime(path, (DAYS_AGO, DAYS_AGO))
    temporary.sweep(tmp_path)
    assert [path.name[:4] for path in debris(tmp_path)] == [".new"]


def test_where_no_lock_is_to_be_had_a_living_process_has_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    mine = temporary.beside(tmp_path / "a")
    mine.write_text("half")
    write_atomic(tmp_path / "b", b"whole")
    temporary.sweep(tmp_path)
    assert mine.exists()
    os.utime(mine, (DAYS_AGO, DAYS_AGO))
    temporary.sweep(tmp_path)
    assert not mine.exists()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    names = ["notes.tmp", ".notes.tmp", ".a.0123456789.tmp", ".a.0123456789ab.tmp.bak", "a.0123abcd-1-0123456789ab.tmp"]
    for name in names:
        planted(tmp_path, name, old=True)
    os.mkfifo(tmp_path / ".fifo.0123abcd-1-0123456789ab.tmp")
    os.symlink(tmp_path, tmp_path / ".link.0123abcd-1-0123456789ab.tmp")
    temporary.sweep(tmp_path)
    temporary.sweep(tmp_path / "no" / "such" / "folder")
    assert {path.name for path in tmp_path.iterdir()} >= {*names, ".link.0123abcd-1-0123456789ab.tmp"}


def test_an_older_m3s_file_goes_after_a_day(tmp_path: Path) -> None:
    young = planted(tmp_path, ".a.json.0123456789ab.tmp")
    old = planted(tmp_path, ".b.json.0123456789ab.tmp", old=True)
    temporary.sweep(tmp_path)
    assert (young.exists(), old.exists()) == (True, False)


@pytest.mark.parametrize("name", ["a", "a" * 250, "é" * 120, "new\nline", ".hidden", "x" * 40 + "\U0001f600" * 50])
def test_every_final_name_has_a_temporary_one_that_is_known_again(name: str, tmp_path: Path) -> None:
    write_atomic(tmp_path / name, b"whole")
    path = temporary.beside(tmp_path / name)
    path.write_bytes(b"half")
    os.utime(path, (DAYS_AGO, DAYS_AGO))
    temporary.sweep(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_numbas_own_leftovers_go_after_an_hour(tmp_path: Path) -> None:
    old = planted(tmp_path, "f-1.py311.1.nbc.tmp.0123456789abcdef", old=True)
    young = planted(tmp_path, "f-1.py311.nbi.tmp.0123456789abcdef")
    kept = planted(tmp_path, "f-1.py311.nbi", old=True)
    compiled._sweep(tmp_path)
    assert (old.exists(), young.exists(), kept.exists()) == (False, True, True)


def test_replies_that_were_paid_for_are_kept_in_one_step(tmp_path: Path) -> None:
    cache.keep(tmp_path / "ab" / "key.json", b"whole")
    assert [path.name for path in (tmp_path / "ab").iterdir()] == ["key.json"]


@pytest.mark.slow
def test_nobody_else_makes_temporary_files_that_outlive_them() -> None:
    wrong = []
    for path in [*(ROOT / "m3_exp").rglob("*.py"), *(ROOT / "evaluators").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                kept = any(k.arg == "delete" for k in node.keywords)
                if name in ("mkstemp", "mkdtemp") or (name == "NamedTemporaryFile" and kept):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


# ----------------------------------------------------------------------------------------------- killed runs, resumed


# A run that is killed at its n-th answer, or in the middle of writing its first result.
RUN = """
import os, signal, sys
n, line = int(sys.argv[1]), sys.argv[2:]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
from m3_exp import cli, store
if n:
    seen, sync = [], os.fdatasync
    def count(descriptor):
        seen.append(sync(descriptor))
        if len(seen) == n:
            die()
    os.fdatasync = count
else:
    replace = os.replace
    os.replace = lambda a, b: die() if "/results/" in str(b) else replace(a, b)
sys.exit(cli.main(line))
"""


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    """A command whose answers come from a file, without its store."""
    model = tmp_path / "base"
    write_model(model, random_weights(SMALL, seed=0, dtype=torch.bfloat16), SMALL)
    rows = [{"benchmark": "gsm8k", "id": str(n), "text": f"The answer is: {n}"} for n in range(200)]
    answers = write_lines(tmp_path / "answers.jsonl", rows)
    return ["run", *recorded_run(answers, model), "items=lab", "limit=6", "dtype=bfloat16", "evaluator=[gsm8k]"]


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_behind_the_next_and_its_table_says_the_same(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resumed = [*line, f"store={tmp_path / 'resumed'}"]
    for n in (3, 0):
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(n), *resumed], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == -9, done.stderr
    assert len(debris(tmp_path / "resumed")) == 1
    assert cli.main(resumed) == 0
    said = capsys.readouterr().out
    assert debris(tmp_path / "resumed") == []
    [result] = (tmp_path / "resumed" / "results").glob("*/*.json")
    assert len(json.loads(result.read_text())["runs"]) == 2
    assert cli.main([*line, f"store={tmp_path / 'whole'}"]) == 0
    whole = capsys.readouterr().out
    assert "depend on the batch" not in said
    assert _rows(said) == _rows(whole)


def _rows(text: str) -> list[str]:
    """Return a table and what stands under it."""
    lines = text.splitlines()
    start = next(number for number, row in enumerate(lines) if row.startswith("|"))
    return lines[start : next(number for number, row in enumerate(lines) if re.match(r"\d+ of \d+ cells? done", row))]


def test_an_engine_knows_whether_its_texts_depend_on_the_batch() -> None:
    for dtype, depends in (("float32", False), ("bfloat16", True), ("float16", True)):
        settings = EngineSettings(name="vllm", dtype=dtype)
        assert (vllm.batched(settings), transformers.batched(settings)) == (depends, depends)
        assert recorded.batched(settings) is False


@pytest.mark.parametrize(("runs", "batched", "said"), [(1, True, 0), (2, False, 0), (2, True, 1), (3, True, 1)])
def test_cells_are_named_whose_texts_come_from_several_batches(runs: int, batched: bool, said: int) -> None:
    row: dict[str, object] = {"state": "done", "method": "average", "pair": "lm_math", "benchmark": "gsm8k"}
    row |= {"engine": "vllm 1 bfloat16", "evaluator": "gsm8k 3", "failure": None, "weights": None, "merge": "m3 merge"}
    lines = footer(framed([{**row, "runs": runs, "batched": batched, "details": {}}]))
    assert sum("depend on the batch" in line for line in lines) == said
