"""The small world of the fault tests: three tiny models, recorded answers, and runs of the real program over them.

A run is `cli.main` in a copy of this process (fork), which spares the seconds of importing; it is killed by the kernel
like any other. Copies are led by `Sessions`, which sees every process that they leave behind.
"""

import contextlib
import ctypes
import io
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from m3_exp import cli
from m3_exp.store import Store
from tests.golden.commands import CONFIG

PATIENCE = 240.0  # seconds that anything here may take
_SUBREAPER = 36  # prctl: orphans below this process become its own children
DAEMONS = ("slurmctld", "slurmd", "munged")  # of a cluster that a test started
# What a benchmark asks of a run: merges of every method, programs in sandboxes, rules, a repeat.
SWEEP = (
    *("-m", "pair=lm_math,lm_code", "method=average,ties", "ratio=plain,fixed", "evaluator=[gsm8k,humaneval]"),
    *("limit=5", "tracker=none"),
)


@dataclass(frozen=True)
class World:
    """A folder with models and recorded answers; every command runs in it."""

    folder: Path

    def line(self, store: str, *more: str) -> list[str]:
        """Return the words of a run into a store."""
        return ["run", *SWEEP, *self.where(store), *more]

    def where(self, store: str) -> list[str]:
        return [*CONFIG, "engine=recorded", "engine.answers=answers.jsonl", f"store={store}"]

    def table(self, store: str) -> bytes:
        """Return what a store says: the table of its last run, and its response, as data."""
        code, said = call(["table", "--run", "last", "--json", f"store={store}"])
        assert code == 0, said
        return said.encode()


def call(words: Sequence[str]) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = cli.main(list(words))
    return code, out.getvalue()


# ------------------------------------------------------------------------------------------------------ processes


class Session:
    """A command in a copy of this process, the leader of a session of its own. `log` gets what it prints."""

    def __init__(self, words: Sequence[str], log: Path, prepare: Callable[[], None] = lambda: None) -> None:
        self.log = log
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be(words, log, prepare)

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Return its exit code, or minus the signal that ended it."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(self.pid, signal.SIGABRT)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"it hangs: {self.said()}")

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def _be(words: Sequence[str], log: Path, prepare: Callable[[], None]) -> None:
    """Be the program: what comes after a fork never returns."""
    code = 70
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["m3", *words]
        prepare()
        code = cli.main()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def adopt_orphans(does: bool = True) -> None:
    """Make processes whose parents die children of this one, so that `left_behind` sees them; or no more."""
    ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, int(does), 0, 0, 0)


def left_behind(patience: float = 10.0) -> list[str]:
    """Return the children of this process that are still there after a while, those that it adopted among them."""
    end = time.monotonic() + patience
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        alive = sorted(_children())
        if not alive or time.monotonic() > end:
            return [_named(pid) for pid in alive]
        time.sleep(0.02)


def _children() -> Iterator[int]:
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            yield from map(int, (task / "children").read_text().split())


def _named(pid: int) -> str:
    with contextlib.suppress(OSError):
        return f"{pid} {Path(f'/proc/{pid}/cmdline').read_bytes().decode().replace(chr(0), ' ')[:200]}"
    return str(pid)


# ------------------------------------------------------------------------------------------------------ kill points

# Each is a step that changes what is on disk, or makes it last.
STEPS = ("replace", "rename", "link", "unlink", "mkdir", "fsync", "fdatasync", "write", "ftruncate", "rmdir")


def die_at(step: int, *, after: bool) -> Callable[[], None]:
    """Return what makes a process kill itself at the n-th step that it takes on disk, before or after taking it."""

    def prepare() -> None:
        taken = [0]

        def counted(does: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **more: object) -> object:
                taken[0] += 1
                if taken[0] == step and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                found = does(*args, **more)
                if taken[0] == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return found

            return call

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))

    return prepare


def steps_of(prepare_and_run: Callable[[Callable[[], None]], None], counter: Path) -> int:
    """Return how many steps on disk a run takes that is not killed."""

    def prepare() -> None:
        descriptor, write = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.write

        def counted(does: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **more: object) -> object:
                write(descriptor, b".")
                return does(*args, **more)

            return call

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))

    prepare_and_run(prepare)
    return counter.stat().st_size


# ------------------------------------------------------------------------------------------------------ looking


def answered_twice(store: Path) -> dict[tuple[str, str, int], int]:
    """Return the answers that a store's journals hold more than once, by journal, item and sample."""
    seen: Counter[tuple[str, str, int]] = Counter()
    for folder in (store / "answers").glob("*"):
        for answer in Store(store).answers(folder.name).read():
            seen[folder.name, answer.id, answer.sample] += 1
    return {key: number for key, number in seen.items() if number > 1}


def temporary(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.tmp"))


def answers_file(folder: Path) -> Path:
    """Write the golden record's answers as one file that serves whatever weights a run names."""
    out = folder / "answers.jsonl"
    with out.open("w") as file:
        for path in sorted(folder.glob("answers-*.jsonl")):
            benchmark = path.stem.removeprefix("answers-")
            for text in path.read_text().splitlines():
                file.write(json.dumps({**json.loads(text), "benchmark": benchmark}) + "\n")
    return out


def seeded(name: str) -> random.Random:
    """Return the chance of a test: another one each day it is asked for by M3_FAULTS_SEED."""
    return random.Random(f"{os.environ.get('M3_FAULTS_SEED', '0')} {name}")
