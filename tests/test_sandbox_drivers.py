"""How boxes are started: containers (command line, the relay inside), no walls at all, and which one is chosen."""

import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from m3_exp.scoring.programs import Program
from m3_exp.scoring.sandbox import drivers
from m3_exp.scoring.sandbox import judge as judging
from m3_exp.scoring.sandbox.drivers import Driver
from m3_exp.scoring.sandbox.judge import Limits, Task, judge
from m3_exp.types import M3Error, Score
from tests.answers import task

QUICK = Limits(cpu_seconds=1, wall_seconds=20)
GOOD, BAD = "def f(x): return x * x", "def f(x): return x + 2"
LINUX = sys.platform.startswith("linux")


# -------------------------------------------------------------------------------------------------- what crosses alive

OBJECTS = """
class Node:
    def __init__(self, value):
        self.value, self.left = value, None
    def __eq__(self, other):
        return True
def depth(node):
    return 0 if node is None else 1 + depth(node.left)
def numbers(n):
    return (k * k for k in range(n))
def keys(n):
    return dict.fromkeys(range(n)).keys()
def shout():
    raise KeyError('no')
"""
OBJECT_TESTS = [
    ("root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)\nassert depth(root) == 3", True),
    ("root = Node(7)\nroot.left = Node(8)\nassert root.left.value == 8 and root.value == 7", True),
    ("assert list(numbers(4)) == [0, 1, 4, 9]\nassert set(keys(3)) == {0, 1, 2} and len(keys(3)) == 3", True),
    ("assert 2 in keys(3) and 5 not in keys(3)\nassert sum(numbers(3)) == 5", True),
    ("it = numbers(3)\nassert next(it) == 0 and next(it) == 1", True),
    ("assert Node(1) == 1", False),
    ("assert Node(1) == Node(1)", False),
    ("assert numbers(2) == [0, 1]", False),
    ("assert list(numbers(4)) == [0, 1, 4]", False),
    ("try:\n    shout()\nexcept KeyError as error:\n    assert error.args == ('no',)\nelse:\n    assert False", True),
    ("assert depth(undefined()) == 0", False),
]


def test_objects_of_the_program_can_be_used_but_do_not_judge_themselves() -> None:
    names = ("numbers", "keys", "shout", "Node", "undefined")
    tasks = [Task((Program("paper", OBJECTS),), "depth", "", test, names) for test, _ in OBJECT_TESTS]
    assert [v.value for v in judge(tasks, QUICK)] == [float(passes) for _, passes in OBJECT_TESTS]


# ---------------------------------------------------------------------------------------------------------- containers

FAKE = """#!{python}
import os, sys
words = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(repr(words) + "\\n")
if words[0] in ("image", "rm"):
    sys.exit(0)
inner = next(i for i, word in enumerate(words) if word.startswith("/opt/python/bin/"))
code = words[-1].replace("/opt/box", {folder!r})
os.execve({python!r}, [{python!r}, *words[inner + 1:-1], code], {{"PYTHONHASHSEED": "0"}})
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Driver]:
    """A runtime that starts the inner command on this machine, with the same standard input and output."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(drivers.IMAGE, raising=False)

    def make(runtime: str) -> Driver:
        program = tmp_path / runtime
        folder = str(Path(drivers.__file__).resolve().parent.parent)
        program.write_text(FAKE.format(python=sys.executable, log=str(tmp_path / "log"), folder=folder))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return drivers.in_container(runtime, str(program))

    return make


def words(driver: Driver) -> str:
    return " ".join(driver.command(0, "m3-sandbox-x"))


@pytest.mark.parametrize("runtime", ["podman", "docker"])
def test_what_a_container_is_given(
    fake: Callable[[str], Driver], runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", "secret")
    command = fake(runtime).command(0, "m3-sandbox-x")
    line = " ".join(command)
    for option in (
        *("--rm", "-i", "--name m3-sandbox-x", "--pull never", "--network none", "--read-only", "--cap-drop ALL"),
        *("--security-opt no-new-privileges", "--user 65534:65534", "--pids-limit 1024", "--memory ", "nofile=1024"),
    ):
        assert f" {option}" in line
    volumes = [command[i + 1] for i, word in enumerate(command) if word == "--volume"]
    assert all(volume.endswith(":ro") for volume in volumes)
    sources = {volume.split(":")[0] for volume in volumes}
    assert not any(Path.home().is_relative_to(source) or source in ("/", "/etc", "/tmp") for source in sources)
    assert not any("site-packages" in source or "dist-packages" in source for source in sources)
    assert "secret" not in line
    assert [command[i + 1].split("=")[0] for i, w in enumerate(command) if w == "--env"] == [
        "PYTHONHASHSEED", "PYTHONUTF8", "LD_LIBRARY_PATH",
    ]  # fmt: skip


def test_what_apptainer_is_given(fake: Callable[[str], Driver]) -> None:
    line = words(fake("apptainer"))
    for option in ("--containall", "--cleanenv", "--no-home", "--network none", "--no-privs"):
        assert f" {option}" in line
    assert all(word.endswith(":ro") for word in line.split() if word.startswith("/") and ":/" in word)


def test_an_image_of_ones_own_is_not_given_the_machines_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(drivers.IMAGE, "python:3.11-slim")
    command = drivers.in_container("docker", "/usr/bin/docker").command(0, "x")
    assert [w for w in command if w.endswith(":ro")] == [f"{Path(drivers.__file__).parent}:/opt/box/sandbox:ro"]
    assert command[command.index("python:3.11-slim") + 1] == "python3"


@pytest.mark.parametrize("runtime", drivers.RUNTIMES)
def test_programs_are_judged_through_standard_input_and_output(fake: Callable[[str], Driver], runtime: str) -> None:
    """Right, wrong, hanging, dying and forging programs, side by side; the order is kept."""
    hang = "def f(x):\n    while True: pass"
    forge = "import os\nfor d in range(64):\n    try: os.write(d, b'{\"id\": 1}\\n')\n    except OSError: pass\n"
    forge += "def f(x): return 7"
    sources = [GOOD, BAD, hang, "import os\nos.abort()", forge, "x = 'y' * 10**6\n" + GOOD, *[GOOD, BAD] * 4]
    verdicts = judge([task(source) for source in sources], QUICK, fake(runtime))
    assert [v.value for v in verdicts] == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, *[1.0, 0.0] * 4]
    assert {v.sandbox for v in verdicts} == {f"container:{runtime}"}
    assert verdicts[2].reason == "more than 1 s of CPU time"


@pytest.mark.slow
def test_a_container_that_dies_leaves_its_items_unscored(fake: Callable[[str], Driver]) -> None:
    driver = fake("podman")
    started: list[int] = []
    ended = threading.Event()
    original = subprocess.Popen

    class Watched(original):  # type: ignore[type-arg, misc, valid-type]
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            started.append(self.pid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Watched)
        sleepers = [task("import time\ndef f(x):\n    time.sleep(6)\n    return x * x")] * 2

        def kill_soon() -> None:
            done = 0
            while not ended.wait(0.02):
                if len(started) > done:
                    ended.wait(2.0)
                    os.kill(started[done], 9)
                    done += 1

        thread = threading.Thread(target=kill_soon)
        thread.start()
        patch.setattr(judging, "_PAUSES", (0.0,))
        verdicts = judge(sleepers, Limits(5, 20), driver)
        ended.set()
        thread.join()
    assert len(started) == 2
    assert [v.value for v in verdicts] == [None, None]
    assert "the container ended" in str(verdicts[0].reason)


@pytest.mark.slow
def test_what_a_container_took_along_is_tried_again_in_another(fake: Callable[[str], Driver]) -> None:
    lines = ["import os, time\ndef f(x):\n    time.sleep(5)\n    return x * x"] * 2

    class Dying(Driver):
        """Its first container ends after four seconds: after it has begun, on a loaded machine too."""

        def command(self, control: int, name: str) -> list[str]:
            made.append(name)
            start = super().command(control, name)
            code = "import threading, os, time; "
            code += "threading.Thread(target=lambda: (time.sleep(4), os._exit(1)), daemon=True).start(); "
            return [*start[:-1], code + start[-1]] if len(made) == 1 else start

    made: list[str] = []
    podman = fake("podman")
    driver = Dying(**{name: getattr(podman, name) for name in Driver.__dataclass_fields__})
    assert [v.value for v in judge([task(line) for line in lines], Limits(15, 60), driver)] == [1.0, 1.0]
    assert len(made) == 2


def test_a_runtime_that_does_not_start_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon. Is it running?' >&2\nexit 125\n")
    program.chmod(0o755)
    monkeypatch.setenv(drivers.IMAGE, "python:3.11-slim")
    [verdict] = judge([task(GOOD)], QUICK, drivers.in_container("docker", str(program)))
    assert verdict.value is None
    assert "Cannot connect to the Docker daemon" in str(verdict.reason)
    monkeypatch.delenv(drivers.IMAGE)
    with pytest.raises(M3Error, match="import failed: Cannot connect to the Docker daemon"):
        drivers.in_container("docker", str(program))


def test_the_container_asked_for_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    judging._fitness.cache_clear()
    try:
        assert [drivers.container(runtime) for runtime in drivers.RUNTIMES] == [None] * 3
        [verdict] = judge([task(GOOD)], QUICK, "container")
    finally:
        judging._fitness.cache_clear()
    assert verdict.value is None
    assert "(container:podman: not installed; container:apptainer: not installed; container:docker: " in str(
        verdict.reason
    )


@pytest.fixture(scope="module")
def real() -> Driver:
    try:
        return judging.working_driver("container")
    except M3Error as error:
        pytest.skip(f"no container can be started here: {error}")


def test_a_real_container_contains_without_landlock_too(real: Driver, tmp_path: Path) -> None:
    """Its own walls alone: nothing of this machine is seen, though the second wall is left out."""

    class Without(Driver):
        def command(self, control: int, name: str) -> list[str]:
            line = super().command(control, name)
            start = line[-1].replace("from sandbox.relay import main;", "from sandbox import relay;")
            return [*line[:-1], start.replace("main()", "relay.lockdown.landlock_version = lambda: 0; relay.main()")]

    driver = Without(**{name: getattr(real, name) for name in Driver.__dataclass_fields__})
    secret = tmp_path / "secret"
    secret.write_text("precious")
    look = f"import os\ndef f(x):\n    return [os.path.exists({str(secret)!r}), os.getuid(), sorted(os.listdir('/'))]"
    test = (
        "seen = f(0)\nassert seen[:2] == [False, 65534], seen\nassert not {'work', 'root', 'home'} & set(seen[2]), seen"
    )
    verdicts = judge([task(look, test), task(GOOD), task(BAD)], QUICK, driver)
    assert [(v.value, v.reason) for v in verdicts] == [(1.0, None), (1.0, None), (0.0, "AssertionError")]
    assert driver.command(0, "x")[-1].endswith("landlock_version = lambda: 0; relay.main()")


def test_no_real_container_is_left_when_the_judge_is_killed(real: Driver) -> None:
    runtime = real.prefix[0]
    code = (
        "from m3_exp.scoring.sandbox import drivers, judge as j\nfrom m3_exp.scoring.programs import Program\n"
        "t = j.Task((Program('paper', 'import time\\ndef f(x): time.sleep(1000)'),), 'f', '', 'f(1)')\n"
        "j.judge([t] * 2, j.Limits(100, 1000), 'container')\n"
    )
    if Path(runtime).name == "apptainer":
        pytest.skip("apptainer keeps no list of containers to look at")

    def running() -> list[str]:
        command = [runtime, "ps", "-a", "--filter", "name=m3-sandbox-", "--format", "{{.Names}}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
    try:
        deadline = time.monotonic() + 60
        time.sleep(3)  # past the probe's own container
        while not running() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert running()
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 20
    while running() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert running() == []


# ------------------------------------------------------------------------------------------------------- without walls


@pytest.mark.parametrize("choice", ["weak", "auto"])
def test_no_walls_are_refused_unless_allowed(choice: judging.Choice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_fitness", lambda _: "not installed")
    [verdict] = judge([task(GOOD)], QUICK, choice)
    assert verdict.value is None
    assert "sandbox.allow_weak=true" in str(verdict.reason)
    assert "\n" not in str(verdict.reason)


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["weak", "auto"])
def test_no_walls_where_allowed_are_said_loudly(
    choice: judging.Choice, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(judging, "_fitness", lambda _: "not installed")
    judging._warn.cache_clear()
    hang = "def f(x):\n    while True: pass"
    verdicts = judge([task(GOOD), task(BAD), task(hang), task(GOOD)], QUICK, choice, allow_weak=True)
    assert [(v.value, v.sandbox) for v in verdicts] == [(1.0, "weak"), (0.0, "weak"), (0.0, "weak"), (1.0, "weak")]
    assert capsys.readouterr().err.count("NO containment") == 1


def test_what_contains_is_preferred_even_where_weak_is_allowed() -> None:
    [verdict] = judge([task(GOOD)], QUICK, allow_weak=True)
    assert verdict.sandbox in ("bubblewrap", "landlock", "container:podman", "container:docker", "container:apptainer")


def test_without_walls_the_verdict_is_still_not_the_programs() -> None:
    sources = [
        "import os\ndef f(x): os._exit(0)",
        "class E:\n    def __eq__(s, o): return True\ndef f(x): return E()",
        "import builtins\nbuiltins.AssertionError = Exception\ndef f(x): return 7",
        "def f(x): return len(bytearray(3 << 30)) and x * x",
    ]
    verdicts = judge([task(s) for s in sources], QUICK, drivers.weak())
    assert [v.value for v in verdicts] == [0.0] * len(sources)


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="orphans are found through Linux's subreaper")
def test_without_walls_daemons_are_ended_all_the_same(tmp_path: Path) -> None:
    marker = tmp_path / "alive"
    source = (
        "import os, time\ndef f(x):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
        f"            time.sleep(4)\n            os.mkdir({str(marker)!r})\n        os._exit(0)\n    return x * x"
    )
    [verdict] = judge([task(source)], QUICK, drivers.weak())
    assert verdict.value == 1.0  # the daemon is no part of the answer
    time.sleep(5)
    assert not marker.exists()


@pytest.mark.slow
def test_without_walls_it_runs_where_linuxs_means_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: no prctl, no memfd, no affinity, no limit on memory. (Simulated: never run on a Mac.)"""
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.delattr(os, "sched_getaffinity")

    class Elsewhere(Driver):
        def command(self, control: int, name: str) -> list[str]:
            lacking = (
                "import ctypes, os, resource, sys; sys.platform = 'darwin'; ctypes.CDLL = lambda *_, **__: object();"
                " del os.memfd_create, os.sched_getaffinity, os.pidfd_open; limit = resource.setrlimit;\n"
                "def setrlimit(which, limits):\n"
                "    if which == resource.RLIMIT_AS: raise ValueError('current limit exceeds maximum limit')\n"
                "    limit(which, limits)\n"
                "resource.setrlimit = setrlimit\n"
            )
            line = super().command(control, name)
            return [*line[:-1], lacking + line[-1]]

    weak = drivers.weak()
    driver = Elsewhere(**{name: getattr(weak, name) for name in Driver.__dataclass_fields__})
    hang = "def f(x):\n    while True: pass"
    verdicts = judge([task(GOOD), task(BAD), task(hang)], QUICK, driver)
    assert [(v.value, v.reason) for v in verdicts] == [
        (1.0, None), (0.0, "AssertionError"), (0.0, "more than 1 s of CPU time"),
    ]  # fmt: skip


def test_contained_boxes_refuse_to_run_without_their_means() -> None:
    """The same machine under a containing driver: unscored, not weaker."""

    class Without(Driver):
        def command(self, control: int, name: str) -> list[str]:
            line = super().command(control, name)
            lacking = "from sandbox import lockdown; lockdown.landlock_version = lambda: 0; "
            return [*line[:-1], line[-1].replace("from sandbox.warden", lacking + "from sandbox.warden")]

    made = drivers.landlock()
    assert made is not None
    driver = Without(**{name: getattr(made, name) for name in Driver.__dataclass_fields__})
    [verdict] = judge([task(GOOD)], QUICK, driver)
    assert verdict.value is None
    assert "this kernel has no Landlock" in str(verdict.reason)


def test_the_levels_of_scores() -> None:
    ran = [Score("1", 1.0, notes={"sandbox": "weak"}), Score("2", 0.0, notes={"sandbox": "bubblewrap"})]
    scores = [*ran, Score("3", None)]
    assert judging.levels(scores) == "bubblewrap, weak"
    assert judging.levels(scores[2:]) is None
