"""Tasks -> verdicts: each program in a candidate's box, its tests in a grader's, several pairs side by side.

A verdict is about the program only where the boxes worked: each batch begins and ends with a program that is known to
be right and one that is known to be wrong, and when either is judged otherwise the whole batch is unscored.
"""

import contextlib
import functools
import json
import math
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from m3_exp.scoring.programs import Program
from m3_exp.scoring.sandbox import drivers
from m3_exp.scoring.sandbox.drivers import Driver
from m3_exp.types import M3Error


@dataclass(frozen=True)
class Limits:
    """What one program may use: CPU seconds (rounded up to whole ones), wall seconds, bytes of address space.

    CPU seconds decide; the wall clock is a backstop for programs that sleep.
    """

    cpu_seconds: float = 3.0
    wall_seconds: float = 30.0
    memory: int = 1 << 30


@dataclass(frozen=True)
class Task:
    """A program, by its possible readings, and the tests that call its function.

    `prelude` and `test` are the benchmark's own: they run in the grader, where `entry_point` is a stand-in.
    """

    programs: tuple[Program, ...]
    entry_point: str
    prelude: str
    test: str


@dataclass(frozen=True)
class Verdict:
    """`value` is 1.0 (all tests pass), 0.0, or None for *unscored*; `reading` names the program's reading that ran."""

    value: float | None
    reading: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Outcome:
    kind: Literal["passed", "failed", "timeout", "infra"]
    reading: str | None = None
    reason: str | None = None


_PROBE = """
def probe():
    import ctypes, glob, os, socket, subprocess
    done = []
    def attempt(name, act):
        try:
            act()
            done.append(name)
        except BaseException:
            pass
    attempt("read", lambda: open("/etc/passwd").read())
    attempt("environ", lambda: open("/proc/%d/environ" % os.getppid(), "rb").read())
    attempt("write", lambda: open("/tmp/m3-sandbox-probe", "w").close())
    attempt("socket", lambda: socket.socket())
    attempt("fork", lambda: os.fork() or os._exit(0))
    attempt("kill", lambda: os.kill(os.getppid(), 0))
    attempt("run", lambda: subprocess.run(["/bin/true"], check=True))
    return done
"""
_DRIVERS = {"bubblewrap": drivers.bubblewrap, "landlock": drivers.landlock}
_GOOD = Task((Program("paper", "def double(x):\n    return 2 * x\n"),), "double", "", "assert double(21) == 42\n")
_BAD = Task((Program("paper", "def double(x):\n    return 3 * x\n"),), "double", "", "assert double(21) == 42\n")
_CONTAINED = Task((Program("paper", _PROBE),), "probe", "", "done = probe()\nassert done == [], done\n")
_CANARIES = (("right", _GOOD, "passed"), ("wrong", _BAD, "failed"), ("escape", _CONTAINED, "passed"))


def judge(tasks: Sequence[Task], limits: Limits | None = None, driver: Driver | None = None) -> list[Verdict]:
    """Judge programs, one verdict each; where nothing contains them they are unscored, with the reason.

    A program that ran out of time is tried once more, alone, before that counts.
    """
    if not tasks:
        return []
    limits = limits or Limits()
    try:
        driver = driver or working_driver()
    except M3Error as error:
        return [Verdict(None, None, str(error))] * len(tasks)
    sick = _sickness(driver)
    outcomes = [] if sick else _run_all(tasks, limits, driver)
    sick = sick or _sickness(driver)
    if sick:
        return [Verdict(None, None, f"the sandbox ({driver.name}) does not judge rightly here: {sick}")] * len(tasks)
    return [_verdict(outcome) for outcome in outcomes]


@functools.cache
def probe() -> dict[str, str | None]:
    """Run each driver's canaries, once a process; return what is wrong with it, or None, the preferred driver first."""
    made = {name: make() for name, make in _DRIVERS.items()}
    return {name: "not installed" if driver is None else _sickness(driver) for name, driver in made.items()}


def working_driver() -> Driver:
    """Return the first driver that, when run, contains a program and judges a right and a wrong one rightly.

    Raises:
        M3Error: none does; each one's reason is named.
    """
    for name, reason in probe().items():
        if reason is None and (driver := _DRIVERS[name]()) is not None:
            return driver
    raise M3Error(
        "model-written programs cannot be contained here"
        f" ({'; '.join(f'{name}: {reason}' for name, reason in probe().items())}): install bubblewrap where user"
        " namespaces are allowed, or use Linux 5.13 or later with Landlock"
    )


def _sickness(driver: Driver) -> str | None:
    """Run the canaries; return what is wrong with a driver, or None."""
    limits = Limits(cpu_seconds=5, wall_seconds=60)
    for name, task, expected in _CANARIES:
        outcome = _run(task, limits, driver)
        if outcome.kind != expected:
            return f"the {name} canary came out as {outcome.kind} ({outcome.reason})"
    return None


def _run_all(tasks: Sequence[Task], limits: Limits, driver: Driver) -> list[_Outcome]:
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        outcomes = list(pool.map(lambda task: _run(task, limits, driver), tasks))
    again = {i for i, outcome in enumerate(outcomes) if outcome.kind in ("timeout", "infra")}
    return [_run(tasks[i], limits, driver) if i in again else outcome for i, outcome in enumerate(outcomes)]


def _verdict(outcome: _Outcome) -> Verdict:
    if outcome.kind == "infra":
        return Verdict(None, outcome.reading, f"sandbox failure: {outcome.reason}")
    return Verdict(float(outcome.kind == "passed"), outcome.reading, outcome.reason)


# ---------------------------------------------------------------------------------------------------- one task, once


@dataclass
class _Box:
    """A started box: its process, and the reading end of its report."""

    process: "subprocess.Popen[bytes]"
    report: int
    received: bytes = b""

    def read(self) -> bool:
        """Take in what the report holds now; return False at its end."""
        part = os.read(self.report, 65536)
        self.received += part
        return bool(part)

    def records(self) -> dict[str, Any]:
        """Return all that was reported, merged."""
        merged: dict[str, Any] = {}
        for line in self.received.splitlines():
            merged.update(json.loads(line))
        return merged


def _run(task: Task, limits: Limits, driver: Driver) -> _Outcome:
    job = {"cpu_seconds": math.ceil(limits.cpu_seconds), "memory": limits.memory, "entry_point": task.entry_point}
    programs = [[program.reading, program.source] for program in task.programs]
    try:
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                candidate = stack.enter_context(
                    _box(driver, "candidate", theirs.fileno(), {**job, "programs": programs})
                )
                grader = stack.enter_context(
                    _box(driver, "grader", ours.fileno(), {**job, "prelude": task.prelude, "test": task.test})
                )
            in_time = _wait(grader, limits.wall_seconds)
            if "gone" in grader.records():  # let it end as it does, so that its status says why
                with contextlib.suppress(subprocess.TimeoutExpired):
                    candidate.process.wait(timeout=2)
            _kill(candidate.process)
            _kill(grader.process)
            while candidate.read():
                pass
            return _outcome(candidate, grader, in_time, limits)
    except OSError as error:
        return _Outcome("infra", None, f"a box could not be started: {error}")


@contextlib.contextmanager
def _box(driver: Driver, role: str, channel: int, job: Mapping[str, Any]) -> Iterator[_Box]:
    """Start a box with its job as standard input; whatever happens, it is dead and closed in the end."""
    source = os.memfd_create("job")
    reading, writing = os.pipe()
    process: subprocess.Popen[bytes] | None = None
    try:
        os.write(source, json.dumps(job).encode())
        os.lseek(source, 0, os.SEEK_SET)
        process = subprocess.Popen(
            driver.command(role, channel, writing),
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=driver.environment,
            cwd="/",
            pass_fds=(channel, writing),
            start_new_session=True,
        )
        os.close(writing)
        writing = -1
        yield _Box(process, reading)
    finally:
        if process is not None:
            _kill(process)
        for descriptor in (source, reading, writing):
            if descriptor >= 0:
                os.close(descriptor)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a box with all its processes, unless it has ended, and collect its status."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(grader: _Box, seconds: float) -> bool:
    """Read a grader's report to its end; return False where that does not come in time."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([grader.report], [], [], left)[0] and not grader.read():
            return True
    return False


def _outcome(candidate: _Box, grader: _Box, in_time: bool, limits: Limits) -> _Outcome:
    program, tests = candidate.records(), grader.records()
    for name, records in (("candidate", program), ("grader", tests)):
        if "locked" not in records:
            return _Outcome("infra", None, f"the {name}'s box did not start: {records.get('error', 'no reason given')}")
    reading = program.get("reading")
    if "unfit" in tests:
        return _Outcome("infra", reading, tests["unfit"])
    if not in_time:
        return _Outcome("timeout", reading, f"no verdict after {limits.wall_seconds:g} s")
    if _out_of_cpu(candidate) or ("passed" not in tests and _out_of_cpu(grader)):
        return _Outcome("timeout", reading, f"more than {math.ceil(limits.cpu_seconds)} s of CPU time")
    if "passed" not in tests:
        return _Outcome("failed", reading, "the tests ended without a verdict")
    if "invalid" in program:
        return _Outcome("failed", None, program["invalid"])
    return _Outcome("passed", reading) if tests["passed"] else _Outcome("failed", reading, tests["reason"])


def _out_of_cpu(box: _Box) -> bool:
    """Say whether the kernel ended a box for its CPU time (bubblewrap passes a signal on as 128 + its number)."""
    return box.process.returncode in (-signal.SIGXCPU, 128 + signal.SIGXCPU)
