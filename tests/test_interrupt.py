"""Ctrl-C in a run: it ends soon, notes no failure and leaves nothing behind; the next one goes on where it was."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from m3_exp.cli import main
from m3_exp.config import ROOT
from m3_exp.store import Store
from tests.test_repeat import FIRST, models, write_answers

__all__ = ["models"]

# Answers come a second apart; or the checkpoint is written a second a piece.
SLOW = {
    "answers": """
from m3_exp.engines import recorded
generate = recorded.RecordedEngine.generate
def slow(*args, **more):
    for answer in generate(*args, **more):
        yield answer
        time.sleep(1)
recorded.RecordedEngine.generate = slow
""",
    "checkpoint": """
from m3_exp.merging import write
put = write._put
write._put = lambda *args: (time.sleep(1), put(*args))
""",
}


def answers(store: Path) -> int:
    return sum(len(Store(store).answers(path.name).read()) for path in (store / "answers").glob("*"))


def temporary(folder: Path) -> list[Path]:
    return list(folder.rglob("*.tmp"))


def wait_until(holds: Callable[[], bool], child: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 240
    while not holds():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("during", ["answers", "checkpoint"])
def test_an_interrupted_run_ends_soon_and_the_next_one_goes_on(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], during: str
) -> None:
    base, *experts = models
    write_answers(tmp_path / "answers.jsonl", {0: FIRST})
    store = tmp_path / "store"
    line = [
        "run", "family=local", f"family.base={base}", f"family.experts=[{','.join(map(str, experts))}]", "items=lab",
        "limit=8", "engine=recorded", f"engine.answers={tmp_path / 'answers.jsonl'}", "dtype=float32",
        "evaluator=[gsm8k]", f"store={store}", "checkpoint=keep", "tracker=none", "--json",
        *(["verify=false"] if during == "answers" else []),
    ]  # fmt: skip
    heard = "import signal, sys, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
    code = heard + "\n{}\nfrom m3_exp.cli import main\nsys.exit(main(sys.argv[1:]))"
    child = subprocess.Popen(
        [sys.executable, "-c", code.format(SLOW[during]), *line],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: answers(store) >= 2 if during == "answers" else bool(temporary(store / "checkpoints")), child)
    os.kill(child.pid, signal.SIGINT)
    start = time.monotonic()
    out, said = child.communicate(timeout=60)
    assert time.monotonic() - start < 30
    assert child.returncode == 130, said
    assert "interrupted; the same command continues where this one stopped" in said
    assert "Traceback" not in said
    assert out == ""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, 0)
        pytest.fail("a process of the run lives on")
    assert temporary(store) == []
    assert list(Store(store).failures) == []
    assert list((store / "runs").iterdir()) == []
    held = answers(store)
    assert held < 8
    assert held >= 2 or during == "checkpoint"
    capsys.readouterr()
    assert main(line) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["cells"], outcome["done"], outcome["generated"]) == (1, 1, 8 - held)
    assert len(list((store / "checkpoints").iterdir())) == 1
