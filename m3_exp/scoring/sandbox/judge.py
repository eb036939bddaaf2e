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
    with _warden(driver) as link:
        sick = _sickness(link)
        outcomes = [] if sick else _run_all(tasks, limits, link)
        sick = sick or _sickness(link)
    if sick:
        return [Verdict(None, None, f"the sandbox ({driver.name}) does not judge rightly here: {sick}")] * len(tasks)
    return [_verdict(outcome) for outcome in outcomes]


@functools.cache
def probe() -> dict[str, str | None]:
    """Run each driver's canaries, once a process; return what is wrong with it, or None, the preferred driver first."""
    return {name: _fitness(make()) for name, make in _DRIVERS.items()}


def _fitness(driver: Driver | None) -> str | None:
    if driver is None:
        return "not installed"
    with _warden(driver) as link:
        return _sickness(link)


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


def _sickness(link: socket.socket) -> str | None:
    """Run the canaries; return what is wrong with the boxes, or None."""
    limits = Limits(cpu_seconds=5, wall_seconds=60)
    for name, task, expected in _CANARIES:
        outcome = _run(task, limits, link)
        if outcome.kind != expected:
            return f"the {name} canary came out as {outcome.kind} ({outcome.reason})"
    return None


def _run_all(tasks: Sequence[Task], limits: Limits, link: socket.socket) -> list[_Outcome]:
    pool = ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0)))
    try:
        outcomes = list(pool.map(lambda task: _run(task, limits, link), tasks))
    finally:  # on Ctrl-C too: what has not begun does not begin
        pool.shutdown(cancel_futures=True)
    again = {i for i, outcome in enumerate(outcomes) if outcome.kind in ("timeout", "infra")}
    return [_run(tasks[i], limits, link) if i in again else outcome for i, outcome in enumerate(outcomes)]


def _verdict(outcome: _Outcome) -> Verdict:
    if outcome.kind == "infra":
        return Verdict(None, outcome.reading, f"sandbox failure: {outcome.reason}")
    return Verdict(float(outcome.kind == "passed"), outcome.reading, outcome.reason)


# ---------------------------------------------------------------------------------------------------- one task, once


@contextlib.contextmanager
def _warden(driver: Driver) -> Iterator[socket.socket]:
    """Start a warden and give the socket that asks it for boxes; whatever happens, it is dead in the end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = subprocess.Popen(
                driver.command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=driver.environment,
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        try:
            yield ours
        finally:
            ours.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@dataclass
class _Box:
    """A started box, by the reading end of its report; closing that ends it."""

    report: int
    received: bytes = b""

    def wait(self, deadline: float, *wanted: str) -> bool:
        """Read the report to its end, or until one of the wanted is there; return False where the clock was faster."""
        while self.records().keys().isdisjoint(wanted):
            if not select.select([self.report], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return False
            part = os.read(self.report, 65536)
            if not part:
                return True
            self.received += part
        return True

    def records(self) -> dict[str, Any]:
        """Return all that was reported, merged."""
        merged: dict[str, Any] = {}
        for line in self.received.splitlines():
            merged.update(json.loads(line))
        return merged


@contextlib.contextmanager
def _box(link: socket.socket, role: str, channel: socket.socket, job: Mapping[str, Any]) -> Iterator[_Box]:
    """Ask the warden for a box; whatever happens, its end is on the way when this is left."""
    source = os.memfd_create("job")
    reading, writing = os.pipe()
    try:
        try:
            os.write(source, json.dumps(job).encode())
            os.lseek(source, 0, os.SEEK_SET)
            socket.send_fds(link, [role.encode()], [source, channel.fileno(), writing])
        finally:
            os.close(source)
            os.close(writing)
        yield _Box(reading)
    finally:
        os.close(reading)


def _run(task: Task, limits: Limits, link: socket.socket) -> _Outcome:
    job = {"cpu_seconds": math.ceil(limits.cpu_seconds), "memory": limits.memory, "entry_point": task.entry_point}
    program = {**job, "programs": [[program.reading, program.source] for program in task.programs]}
    tests = {**job, "prelude": task.prelude, "test": task.test}
    deadline = time.monotonic() + limits.wall_seconds
    ours, theirs = socket.socketpair()
    try:
        with contextlib.ExitStack() as stack:
            with ours, theirs:
                candidate = stack.enter_context(_box(link, "candidate", theirs, program))
                grader = stack.enter_context(_box(link, "grader", ours, tests))
            in_time = grader.wait(deadline)
            candidate.wait(deadline, "reading", "invalid")
            if "gone" in grader.records():
                candidate.wait(time.monotonic() + 2.0)
            return _outcome(candidate.records(), grader.records(), in_time, limits)
    except OSError as error:
        return _Outcome("infra", None, f"a box could not be started: {error}")


def _outcome(candidate: Mapping[str, Any], grader: Mapping[str, Any], in_time: bool, limits: Limits) -> _Outcome:
    """Turn what the two boxes reported into an outcome."""
    reading = candidate.get("reading")
    if "unfit" in grader:
        return _Outcome("infra", reading, grader["unfit"])
    for name, records in (("candidate", candidate), ("grader", grader)):
        if "locked" not in records:
            return _Outcome("infra", None, f"the {name}'s box did not start: {records.get('error', 'no reason given')}")
    if not in_time:
        return _Outcome("timeout", reading, f"no verdict after {limits.wall_seconds:g} s")
    if _out_of_cpu(candidate) or ("passed" not in grader and _out_of_cpu(grader)):
        return _Outcome("timeout", reading, f"more than {math.ceil(limits.cpu_seconds)} s of CPU time")
    if "passed" not in grader:
        return _Outcome("failed", reading, "the tests ended without a verdict")
    if "invalid" in candidate:
        return _Outcome("failed", None, candidate["invalid"])
    return _Outcome("passed", reading) if grader["passed"] else _Outcome("failed", reading, grader["reason"])


def _out_of_cpu(records: Mapping[str, Any]) -> bool:
    """Say whether the kernel ended a box for its CPU time."""
    return records.get("ended") == -signal.SIGXCPU
