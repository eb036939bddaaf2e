"""Tasks -> verdicts: each program in a candidate's box, its tests in a grader's, several pairs side by side.

A verdict says something about the program only where the boxes worked. So each batch begins and ends with a program
that is known to be right and one that is known to be wrong (*canaries*). Where either is judged otherwise, the whole
batch is unscored.
"""

import contextlib
import functools
import json
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import IO, Literal

from m3_exp.machine import cores
from m3_exp.scoring.programs import Program
from m3_exp.scoring.sandbox import drivers, pair
from m3_exp.scoring.sandbox.drivers import Driver
from m3_exp.scoring.sandbox.pair import Report
from m3_exp.types import M3Error, Score

Choice = Literal["auto", "bubblewrap", "landlock", "container", "weak"]


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
    """A program, given as its possible readings, and the tests that call its function.

    `prelude` and `test` are the benchmark's own code and run in the grader. There `entry_point` and `names` (what else
    of the program the tests use) are stand-ins, put in place after the prelude.
    """

    programs: tuple[Program, ...]
    entry_point: str
    prelude: str
    test: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """`value` is 1.0 (all tests pass), 0.0, or None for *unscored*. `reading` names the program's reading that ran.

    `sandbox` is the level that contained the program: a driver's name, `weak` where nothing did. `not_python` names the
    readings that are no Python.
    """

    value: float | None
    reading: str | None = None
    reason: str | None = None
    sandbox: str | None = None
    not_python: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class _Outcome:
    kind: Literal["passed", "failed", "timeout", "infra"]
    reading: str | None = None
    reason: str | None = None
    not_python: tuple[str, ...] = ()
    starved: bool = False  # it failed for want of what another box may have taken


_PROBE = """
def probe(secret):
    import ctypes, glob, os, socket, subprocess
    done = []
    def attempt(name, act):
        try:
            act()
            done.append(name)
        except BaseException:
            pass
    attempt("read", lambda: open(secret).read())
    attempt("environ", lambda: open("/proc/%d/environ" % os.getppid(), "rb").read())
    attempt("write", lambda: open("/tmp/m3-sandbox-probe", "w").close())
    attempt("socket", lambda: socket.socket())
    attempt("fork", lambda: os.fork() or os._exit(0))
    attempt("kill", lambda: os.kill(os.getppid(), 0))
    attempt("run", lambda: subprocess.run(["/bin/true"], check=True))
    return done
"""
_DRIVERS: Mapping[str, Callable[[], Driver | None]] = {
    "bubblewrap": drivers.bubblewrap,
    "landlock": drivers.landlock,
    **{f"container:{runtime}": functools.partial(drivers.container, runtime) for runtime in drivers.RUNTIMES},
}
_GOOD = Task((Program("paper", "def double(x):\n    return 2 * x\n"),), "double", "", "assert double(21) == 42\n")
_BAD = Task((Program("paper", "def double(x):\n    return 3 * x\n"),), "double", "", "assert double(21) == 42\n")
_PAUSES = (0.0, 1.0, 3.0)  # seconds before each try of what could not start
_SCARCE = ("can't start new thread", "Resource temporarily unavailable")  # in the reason of a starved failure
_WEAK = "WARNING: model-written programs run here with NO containment (sandbox.allow_weak=true): they can read, write"

Run = Callable[[pair.Job, pair.Job, float], Report]  # a program, its tests, wall seconds


def judge(
    tasks: Sequence[Task], limits: Limits | None = None, driver: Driver | Choice = "auto", *, allow_weak: bool = False
) -> list[Verdict]:
    """Judge programs, one verdict each; where nothing contains them they are unscored, with the reason.

    A program that ran out of time is tried once more, alone, before that counts. `auto` is the first driver that
    contains; `allow_weak` lets programs run where none does.
    """
    if not tasks:
        return []
    limits = limits or Limits()
    try:
        used = driver if isinstance(driver, Driver) else working_driver(driver, allow_weak=allow_weak)
    except M3Error as error:
        return [Verdict(None, None, str(error))] * len(tasks)
    _warn(used.name)
    with _started(used) as run:
        sick = _sickness(run, used)
        outcomes = [] if sick else _run_all(tasks, limits, run)
        ill = sick or _sickness(run, used)
    if not sick:
        sick = _again(tasks, limits, used, outcomes, doubtful=ill is not None)
    if sick:
        reason = f"the sandbox ({used.name}) does not judge rightly here: {sick}"
        return [Verdict(None, None, reason, used.name)] * len(tasks)
    return [_verdict(outcome, used.name) for outcome in outcomes]


@functools.cache
def _warn(name: str) -> None:
    """Warn on stderr, once in a process."""
    if name == "weak":
        print(f"{_WEAK} and send whatever you can; every result is marked", file=sys.stderr, flush=True)


def probe() -> dict[str, str | None]:
    """Return what is wrong with each containing driver (None where it works), the preferred first: each is run."""
    return {name: _fitness(name) for name in _DRIVERS}


def level() -> str | None:
    """Return the name of the first driver that contains, or None."""
    return next((name for name in _DRIVERS if _fitness(name) is None), None)


def levels(scores: Sequence[Score]) -> str | None:
    """Return the sandbox level of some scores' programs (their note `sandbox`); None where nothing ran."""
    used = {str(score.notes["sandbox"]) for score in scores if score.notes.get("sandbox")}
    return ", ".join(sorted(used)) or None


@functools.cache
def _fitness(name: str) -> str | None:
    """Return what is wrong with a driver when its canaries run, once a process."""
    try:
        driver = _DRIVERS[name]()
        if driver is None:
            return "not installed"
        with _started(driver) as run:
            return _sickness(run, driver)
    except (M3Error, OSError) as error:
        return str(error)


def working_driver(choice: Choice = "auto", *, allow_weak: bool = False) -> Driver:
    """Return the driver asked for; for `auto` the first that, when run, contains a program and judges rightly.

    Raises:
        M3Error: none does; each one's reason is named.
    """
    if choice == "weak":
        if not allow_weak:
            raise M3Error("sandbox.driver=weak contains nothing: allow it with sandbox.allow_weak=true, or use auto")
        return drivers.weak()
    wanted = [name for name in _DRIVERS if choice in ("auto", name.partition(":")[0])]
    for name in wanted:
        if _fitness(name) is None and (driver := _DRIVERS[name]()) is not None:
            return driver
    if choice == "auto" and allow_weak:
        return drivers.weak()
    reasons = "; ".join(f"{name}: {_fitness(name)}" for name in wanted)
    raise M3Error(
        f"model-written programs cannot be contained here ({reasons}): install bubblewrap where user namespaces are"
        " allowed, use Linux 5.13 or later with Landlock, or a container runtime; sandbox.allow_weak=true runs them"
        " uncontained, at your own risk"
    )


def _sickness(run: Run, driver: Driver) -> str | None:
    """Run the canaries; return what is wrong with the boxes, or None. Without walls, no escape is tried."""
    limits = Limits(cpu_seconds=5, wall_seconds=60)
    with tempfile.NamedTemporaryFile("w", prefix="m3-secret-") as secret:
        secret.write("what no program may read")
        secret.flush()
        contained = f"done = probe({secret.name!r})\nassert done == [], done\n"
        escape = Task((Program("paper", _PROBE),), "probe", "", contained)
        canaries = [("right", _GOOD, "passed"), ("wrong", _BAD, "failed"), ("escape", escape, "passed")]
        for name, task, expected in canaries[: 2 if driver.walls == "none" else None]:
            outcome = _run(task, limits, run)
            if outcome.kind != expected:
                return f"the {name} canary came out as {outcome.kind} ({outcome.reason})"
    return None


def _run_all(tasks: Sequence[Task], limits: Limits, run: Run) -> list[_Outcome]:
    pool = ThreadPoolExecutor(max_workers=len(cores()))
    try:
        outcomes = list(pool.map(lambda task: _run(task, limits, run), tasks))
    finally:  # on Ctrl-C too: what has not begun does not begin
        pool.shutdown(cancel_futures=True)
    return outcomes


def _again(
    tasks: Sequence[Task], limits: Limits, used: Driver, outcomes: list[_Outcome], *, doubtful: bool
) -> str | None:
    """Try again, alone, what another program may be to blame for; return what is wrong with the boxes, or None.

    What could not start is tried first, a few times with a pause, because a bomb of processes or memory takes a while
    to end. What ran out of time is tried once more. Where the boxes turned out to be `doubtful`, every failure is tried
    again.
    """
    again = [i for i, outcome in enumerate(outcomes) if outcome.kind in ("timeout", "infra") or outcome.starved]
    if doubtful:
        again = [i for i, outcome in enumerate(outcomes) if outcome.kind != "passed"]
    if not again and not doubtful:
        return None
    for pause in _PAUSES:
        time.sleep(pause)
        with _started(used) as run:
            if (sick := _sickness(run, used)) is not None:
                continue
            waiting = [i for i in again if outcomes[i].kind != "timeout"]
            for i in [*waiting, *(i for i in again if i not in waiting)]:
                outcomes[i] = _run(tasks[i], limits, run)
            sick = _sickness(run, used)
        again = [i for i in waiting if outcomes[i].kind == "infra"]
        if sick is None and not again:
            return None
    return sick


def _verdict(outcome: _Outcome, sandbox: str) -> Verdict:
    if outcome.kind == "infra":
        return Verdict(None, outcome.reading, f"sandbox failure: {outcome.reason}", sandbox)
    return Verdict(float(outcome.kind == "passed"), outcome.reading, outcome.reason, sandbox, outcome.not_python)


# ------------------------------------------------------------------------------------------------- a driver's process


def _started(driver: Driver) -> contextlib.AbstractContextManager[Run]:
    """Start a driver's process and give the function that runs pairs of boxes in it; it is always dead in the end."""
    return _relay(driver) if driver.relayed else _warden(driver)


@contextlib.contextmanager
def _warden(driver: Driver) -> Iterator[Run]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            control = theirs.fileno()
            process = _process(driver, driver.command(control, ""), subprocess.DEVNULL, (control,))
        try:
            yield functools.partial(pair.run, ours)
        finally:
            ours.close()
            _end(process)


@contextlib.contextmanager
def _relay(driver: Driver) -> Iterator[Run]:
    name = f"m3-sandbox-{uuid.uuid4().hex[:12]}"
    process = _process(driver, driver.command(0, name), subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    line = _Line(process.stdin, process.stdout, process.stderr)
    try:
        yield line.run
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()  # the relay ends with it, and the container with the relay
        if not _end(process) and driver.stop:
            command = [word.replace("{name}", name) for word in driver.stop]
            subprocess.run(command, capture_output=True, check=False, timeout=60)
        line.close()


def _process(
    driver: Driver, command: Sequence[str], streams: int, kept: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start a driver's command in a session of its own, with the descriptors that it is to keep."""
    return subprocess.Popen(
        command, stdin=streams, stdout=streams, stderr=streams, pass_fds=kept,
        env=driver.environment, cwd="/", start_new_session=True,
    )  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> bool:
    """Wait for a process to end; say whether it did so by itself."""
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


class _Line:
    """The two pipes to a relay: requests go out, reports come in, many at a time."""

    def __init__(self, requests: IO[bytes], reports: IO[bytes], errors: IO[bytes]) -> None:
        self._requests, self._lock, self._number = requests, threading.Lock(), 0
        self._waiting: dict[int, queue.SimpleQueue[Report]] = {}
        self._said, self._ended = b"", False
        self._streams = (reports, errors)
        self._listener = threading.Thread(target=self._listen, args=self._streams, daemon=True)
        self._listener.start()

    def run(self, program: pair.Job, tests: pair.Job, wall_seconds: float) -> Report:
        """Have a pair of boxes run on the other side."""
        answer: queue.SimpleQueue[Report] = queue.SimpleQueue()
        with self._lock:
            if self._ended:
                return self._gone()
            self._number += 1
            number = self._number
            self._waiting[number] = answer
            request = {"id": number, "program": program, "tests": tests, "wall_seconds": wall_seconds}
            with contextlib.suppress(OSError, ValueError):  # its end is told to all who wait
                self._requests.write(json.dumps(request).encode() + b"\n")
                self._requests.flush()
        try:
            return answer.get(timeout=wall_seconds + 30.0)
        except queue.Empty:
            return Report({}, {}, False, "the container does not answer")

    def close(self) -> None:
        """Close the reading ends, once nobody reads there any more."""
        self._listener.join(timeout=10)
        if not self._listener.is_alive():
            for stream in self._streams:
                stream.close()

    def _listen(self, reports: IO[bytes], errors: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in reports:
                reply = json.loads(line)
                self._waiting.pop(reply["id"]).put(Report(**reply["report"]))
            self._said = errors.read()
        with self._lock:
            self._ended = True
            for answer in self._waiting.values():
                answer.put(self._gone())

    def _gone(self) -> Report:
        text = self._said.decode(errors="replace").strip().splitlines()
        return Report({}, {}, False, f"the container ended: {text[-1][:200] if text else 'no reason given'}")


# ---------------------------------------------------------------------------------------------------- one task, once


def _run(task: Task, limits: Limits, run: Run) -> _Outcome:
    seconds, names = math.ceil(limits.cpu_seconds), [task.entry_point, *task.names]
    job = {"memory": limits.memory, "entry_point": task.entry_point}
    programs = [[program.reading, program.source] for program in task.programs]
    program = {**job, "programs": programs, "names": names, "cpu_seconds": seconds}
    tests = {**job, "prelude": task.prelude, "test": task.test, "names": list(task.names)}
    tests["cpu_seconds"] = 2 * seconds  # it is the program's time that counts, not that of its tests
    report = run(program, tests, limits.wall_seconds)
    if report.error is not None:
        return _Outcome("infra", None, report.error)
    outcome = _outcome(report.candidate, report.grader, report.in_time, limits)
    return replace(outcome, not_python=tuple(report.candidate.get("not_python", ())))


def _outcome(candidate: pair.Job, grader: pair.Job, in_time: bool, limits: Limits) -> _Outcome:
    """Turn what the two boxes reported into an outcome."""
    reading = candidate.get("reading")
    if "unfit" in grader:
        return _Outcome("infra", reading, grader["unfit"])
    for name, records in (("candidate", candidate), ("grader", grader)):
        if "locked" not in records:
            return _Outcome("infra", None, f"the {name}'s box did not start: {records.get('error', 'no reason given')}")
    if not in_time:
        return _Outcome("timeout", reading, f"no verdict after {limits.wall_seconds:g} s")
    most = math.ceil(limits.cpu_seconds)
    if _out_of_cpu(candidate, most) or ("passed" not in grader and _out_of_cpu(grader, 2 * most)):
        return _Outcome("timeout", reading, f"more than {most} s of CPU time")
    if "passed" not in grader:
        if grader.get("ended") == -signal.SIGKILL:
            return _Outcome("infra", reading, "the grader's box was killed: is memory short?")
        return _Outcome("failed", reading, "the tests ended without a verdict")
    if "invalid" in candidate:
        return _Outcome("failed", None, candidate["invalid"])
    if grader["passed"]:
        return _Outcome("passed", reading)
    reason = grader["reason"]
    killed = candidate.get("ended") == -signal.SIGKILL and "told" not in candidate  # perhaps for want of memory
    return _Outcome("failed", reading, reason, starved=killed or any(word in reason for word in _SCARCE))


def _out_of_cpu(records: pair.Job, most: int) -> bool:
    """Say whether a box has used more CPU time than it may, whether or not the kernel has ended it for that."""
    return records.get("ended") == -signal.SIGXCPU or records.get("cpu", 0.0) > most
