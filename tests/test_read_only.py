"""A container as clusters run it: the installation read-only, the user a bare number without a home or caches."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numba.core.caching
import numpy as np
import pytest
import torch

from m3_exp import cli
from m3_exp.merging import compiled
from m3_exp.merging.compiled import cache_folder
from tests.models import Shape, fine_tuned, random_weights, write_model

ROOT = Path(__file__).parents[1]
NOBODY = 54321  # no such user on any machine
AS_ROOT = os.geteuid() == 0 and shutil.which("setpriv") is not None
as_root = pytest.mark.skipif(not AS_ROOT, reason="becoming another user takes root and setpriv")


def double(x: float) -> float:
    return 2 * x


def test_without_a_writable_folder_functions_are_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    function = compiled.compiled(double)
    assert function(np.float32(21)) == 42
    assert cache_folder(function) is None


def test_machine_code_is_kept_beside_the_source() -> None:
    from m3_exp.merging import kernels

    if os.access(ROOT / "m3_exp" / "merging", os.W_OK):
        assert cache_folder(kernels.drop) is not None


def test_a_folder_that_others_can_fill_holds_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.caching.config, "CACHE_DIR", str(tmp_path / "cache"))
    kept = cache_folder(compiled.compiled(double))
    assert kept is not None
    assert kept.parent == tmp_path / "cache"
    for place in (kept, kept.parent):
        before = place.stat().st_mode
        place.chmod(0o777)
        assert cache_folder(compiled.compiled(double)) is None
        place.chmod(before)
    kept.parent.chmod(0o1777)
    assert cache_folder(compiled.compiled(double)) == kept, "as /tmp is: nobody can take away what is mine"
    if AS_ROOT:
        os.chown(kept, NOBODY, NOBODY)
        assert cache_folder(compiled.compiled(double)) is None


@pytest.fixture(scope="module")
def world() -> Iterator[Path]:
    """Two models and an item that everybody may read, and a folder `own` of that user's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = random_weights(Shape(vocab=320), 0, torch.float32)
        write_model(folder / "base", base, Shape(vocab=320))
        write_model(folder / "other", fine_tuned(base, 1), Shape(vocab=320))
        (folder / "items.jsonl").write_text('{"question": "4 boxes of 7 pens?", "answer": "So.\\n#### 28"}\n')
        (folder / "answers.jsonl").write_text('{"benchmark": "gsm8k", "id": "0", "text": "The answer is: 28"}\n')
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        (folder / "own").mkdir()
        if AS_ROOT:
            os.chown(folder / "own", NOBODY, NOBODY)
        yield folder


def as_nobody(world: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run m3 in that user's folder, with nothing in the environment but a path and what is given."""
    identity = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = ["setpriv", *identity, sys.executable, "-m", "m3_exp.cli", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=world / "own", env=environment, timeout=300)


def models(world: Path) -> list[str]:
    named = [f"family.base={world / 'base'}", f"family.experts=[{world / 'base'},{world / 'other'}]"]
    return ["family=local", *named, "dtype=float32"]


@pytest.mark.slow
@as_root
@pytest.mark.parametrize("home", ["/nonexistent", None])
def test_a_merge_needs_no_home_and_no_store(world: Path, home: str | None, tmp_path: Path) -> None:
    environment = {} if home is None else {"HOME": home}
    ties = [*models(world), "method=ties", "sparsify=dare"]
    before, out = {path.name for path in (world / "own").iterdir()}, f"merged{tmp_path.name}"
    done = as_nobody(world, "merge", *ties, f"out={out}", **environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in (world / "own").iterdir()} - before == {out}, "and leaves no folder ~"
    assert cli.main(["merge", *ties, f"store={tmp_path / 'store'}", f"out={tmp_path / 'out'}"]) == 0
    same = [folder / "model.safetensors" for folder in (tmp_path / "out", world / "own" / out)]
    assert same[0].read_bytes() == same[1].read_bytes()


@pytest.mark.slow
@as_root
def test_a_plan_needs_nothing_and_a_run_a_store(world: Path) -> None:
    recorded = ["engine=recorded", f"engine.answers={world / 'answers.jsonl'}", f"items={world / 'items.jsonl'}"]
    asked = [*models(world), "evaluator=[gsm8k]", *recorded, "tracker=none"]
    planned = as_nobody(world, "plan", *asked, HOME="/nonexistent")
    assert planned.returncode == 0, planned.stderr
    done = as_nobody(world, "run", *asked, "store=store", HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 cell done" in done.stdout


@pytest.mark.slow
@as_root
def test_doctor_says_what_to_set(world: Path) -> None:
    asked = [*models(world), "evaluator=[gsm8k]", f"items={world / 'items.jsonl'}", "store=store"]
    shown = as_nobody(world, "doctor", *asked, HOME="/nonexistent")
    assert "Traceback" not in shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if "compiled loops" in line]
    assert "set NUMBA_CACHE_DIR" in line
    kept = as_nobody(world, "doctor", *asked, HOME="/nonexistent", NUMBA_CACHE_DIR=str(world / "own" / "numba"))
    (line,) = [line for line in kept.stdout.splitlines() if "compiled loops" in line]
    assert line.startswith("ok ")
    assert f"kept in {world / 'own' / 'numba'}" in line


@as_root
def test_a_store_that_may_not_be_read_is_called_that(world: Path) -> None:
    asked = [*models(world), "evaluator=[gsm8k]", f"items={world / 'items.jsonl'}", f"store={world / 'locked'}"]
    (world / "locked").mkdir(mode=0o700)
    done = as_nobody(world, "plan", *asked)
    assert done.returncode == 2
    assert "permission denied" in done.stderr
    assert len(done.stderr.splitlines()) == 1
