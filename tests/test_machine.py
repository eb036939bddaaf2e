"""A machine that is not Linux: what Python's `os` lacks on macOS is taken away, in m3's own children as well."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from m3_exp import machine
from tests.models import Shape, fine_tuned, random_weights, write_model

ROOT = Path(__file__).parents[1]
_ABSENT = """import os
for name in ("sched_getaffinity", "sched_setaffinity", "pidfd_open", "memfd_create"):
    delattr(os, name)
"""
# Carries out command lines, one after the other, until one fails.
_EACH = """import json, sys
from m3_exp.cli import main
for number, line in enumerate(json.loads(sys.argv[1])):
    if number:
        print(end="\\0")
    sys.argv[1:] = line
    if code := main():
        sys.exit(code)
"""


def test_cores_are_those_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(before)})
        assert machine.cores() == [max(before)]
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("count", [0, 1, 250, 251, 2250, 2251, 5000])
def test_parts_come_back_in_their_order_and_the_first_is_made_here(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: [0, 1])
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # whatever earlier tests have left

    def tripled(values: Sequence[int]) -> list[tuple[int, int]]:
        return [(3 * value, os.getpid()) for value in values]

    found = machine.in_parts(tripled, range(count))
    assert [value for value, _ in found] == [3 * value for value in range(count)]
    where = [process for _, process in found]
    assert set(where[:250]) <= {os.getpid()}
    assert (os.getpid() in where[250:]) == (250 < count <= 2000), "copies are worth it for thousands alone"


@pytest.mark.slow
def test_a_merge_and_a_run_where_os_has_no_affinity_and_no_pidfd(tmp_path: Path) -> None:
    base = random_weights(Shape(vocab=320), 0, torch.float32)
    write_model(tmp_path / "base", base, Shape(vocab=320))
    write_model(tmp_path / "other", fine_tuned(base, 1), Shape(vocab=320))
    (tmp_path / "sitecustomize.py").write_text(_ABSENT)
    (tmp_path / "items.jsonl").write_text('{"question": "4 boxes of 7 pens?", "answer": "So.\\n#### 28"}\n')

    models = ["family=local", "family.base=base", "family.experts=[base,other]", "dtype=float32"]
    asked = [*models, "engine=transformers", "evaluator=[gsm8k]", "evaluator.gsm8k.max_tokens=4", "items=items.jsonl"]
    lines = [
        ["merge", *models, "method=ties", "method.scaling=1.0", "method.retain=0.5", "out=merged"],
        ["run", *asked, "store=store", "tracker=none"],
        ["doctor", *asked, "store=store"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", _EACH, json.dumps(lines)], capture_output=True, text=True, timeout=300,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    _, ran, examined = done.stdout.split("\0")
    assert "1 of 1 cell done" in ran
    assert " cores" in examined
