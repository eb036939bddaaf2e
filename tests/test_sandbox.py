"""The sandbox: right and wrong programs, what crosses, what it refuses, and that its own failures are never a zero."""

import array
import contextlib
import datetime
import math
import os
import resource
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from m3_exp.scoring.programs import Program, clean, readings
from m3_exp.scoring.sandbox import codec, drivers
from m3_exp.scoring.sandbox import judge as judging
from m3_exp.scoring.sandbox.drivers import Driver
from m3_exp.scoring.sandbox.judge import Limits, Task, Verdict, judge
from m3_exp.scoring.sandbox.kinds import About, CodecError
from m3_exp.types import M3Error
from tests import crossing
from tests.answers import SQUARE_TEST, task

QUICK = Limits(cpu_seconds=1, wall_seconds=20)


def test_a_driver_works_here() -> None:
    """CI and developers' machines must have one, else every test below would skip."""
    assert judging.working_driver().name in ("bubblewrap", "landlock")


# ------------------------------------------------------------------------------------------------------------ verdicts


_THREAD = """
import threading
def f(x):
    out = []
    thread = threading.Thread(target=lambda: out.append(x * x))
    thread.start()
    thread.join()
    return out[0]
"""
_STANDARD_LIBRARY = "hashlib, bz2, lzma, zlib, gzip, decimal, fractions, datetime, random, re, cmath, statistics, heapq"
PROGRAMS: list[tuple[str, float, str | None]] = [
    ("def f(x): return x * x", 1.0, None),
    ("def f(x): return float(x * x)", 1.0, None),
    (f"import {_STANDARD_LIBRARY}\ndef f(x): return x * x", 1.0, None),
    (_THREAD, 1.0, None),
    ("def f(x): return x + 2", 0.0, "AssertionError"),
    ("def f(x): return g(x)", 0.0, "NameError: name 'g' is not defined"),
    ("def f(x) return x", 0.0, "SyntaxError: expected ':' (<answer>, line 1)"),
    ("def g(x): return x * x", 0.0, "NameError: the program defines no f"),
    ("x = 1 / 0\ndef f(x): return x * x", 0.0, "ZeroDivisionError: division by zero"),
    ("import numpy\ndef f(x): return x * x", 0.0, "ModuleNotFoundError: No module named 'numpy'"),
    ("class E(Exception): pass\ndef f(x): raise E('own')", 0.0, "E: own"),
    ("def f(x): print('x' * 1000); return input()", 0.0, "EOFError: EOF when reading a line"),
]


def test_verdicts(driver: Driver) -> None:
    verdicts = judge([task(source) for source, _, _ in PROGRAMS], Limits(cpu_seconds=3), driver)
    assert [(v.value, v.reason) for v in verdicts] == [(value, reason) for _, value, reason in PROGRAMS]


def test_the_order_of_a_batch_is_kept(driver: Driver) -> None:
    sources = [f"def f(x): return x * x + {k % 3}" for k in range(12)]
    assert [v.value for v in judge([task(s) for s in sources], QUICK, driver)] == [float(k % 3 == 0) for k in range(12)]


def test_trusted_names_are_the_graders_and_the_functions_own_exceptions_cross(driver: Driver) -> None:
    prelude = "import math\ndef twice(x):\n    return 2 * x\n"
    test = (
        "assert math.isclose(f(2), twice(2))\ntry:\n    f(-1)\nexcept ValueError as error:\n"
        "    assert str(error) == 'negative'\nelse:\n    assert False, 'no error'\n"
    )
    good = "def f(x):\n    if x < 0:\n        raise ValueError('negative')\n    return 4.0"
    assert judge([task(good, test, prelude=prelude)], QUICK, driver)[0].value == 1.0
    assert (
        judge([task("def twice(x): return 0\ndef f(x): return 0", test, prelude=prelude)], QUICK, driver)[0].value
        == 0.0
    )


def test_the_first_reading_that_is_python_runs_and_is_named(driver: Driver) -> None:
    programs = (Program("a", "def f(x):\nreturn"), Program("b", "def f(x): return x * x"), Program("c", "f = None"))
    [verdict] = judge([Task(programs, "f", "", SQUARE_TEST)], QUICK, driver)
    assert verdict == Verdict(1.0, "b", None, driver.name)


def test_hash_order_is_fixed(driver: Driver) -> None:
    """Sets of strings have the same order in every run, so a verdict cannot depend on chance."""
    source = "def f(x): return list({'alpha', 'beta', 'gamma', 'delta', 'epsilon'})"
    test = "assert False, f(0)"
    assert len({v.reason for v in judge([task(source, test)] * 6, QUICK, driver)}) == 1


# --------------------------------------------------------------------------------------- time, memory and leftovers


@pytest.mark.slow
def test_cpu_time_is_limited_and_a_time_out_is_tried_again_alone(driver: Driver) -> None:
    before = time.monotonic()
    [loop, good] = judge([task("def f(x):\n    while True: pass"), task("def f(x): return x * x")], QUICK, driver)
    assert loop == Verdict(0.0, "paper", "more than 1 s of CPU time", driver.name)
    assert good.value == 1.0
    assert time.monotonic() - before > 2 * 1.0  # the first run and the second


@pytest.mark.slow
def test_a_sleeper_meets_the_wall_clock(driver: Driver) -> None:
    [verdict] = judge([task("import time\ndef f(x): time.sleep(1000)")], Limits(1, wall_seconds=2), driver)
    assert verdict == Verdict(0.0, "paper", "no verdict after 2 s", driver.name)


def test_memory_is_limited(driver: Driver) -> None:
    limits = Limits(cpu_seconds=3, memory=256 << 20)
    [verdict] = judge([task("def f(x): return len(bytearray(300 << 20)) and x * x")], limits, driver)
    assert (verdict.value, verdict.reason) == (0.0, "MemoryError")


@pytest.mark.slow
def test_nothing_is_left_behind(host_driver: Driver) -> None:
    """No process, no descriptor, no zombie, after programs that sleep, loop and die."""
    sources = ["import time\ndef f(x): time.sleep(1000)", "def f(x):\n    while True: pass", "import os\nos.abort()"]
    descriptors = len(os.listdir("/proc/self/fd"))
    before = descendants(os.getpid())
    tasks = [task(source) for source in sources]
    judged = threading.Thread(target=judge, args=(tasks, Limits(1, wall_seconds=2), host_driver))
    judged.start()
    seen: set[Process] = set()
    while judged.is_alive():
        seen |= descendants(os.getpid()) - before
        judged.join(0.02)
    assert len(seen) > 5
    wait_for_end(seen)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert descendants(os.getpid()) == before


def test_boxes_die_with_the_judge(host_driver: Driver) -> None:
    """SIGKILL the judging process in the middle: no box survives it."""
    code = (
        "from m3_exp.scoring.sandbox import drivers, judge as j\nfrom m3_exp.scoring.programs import Program\n"
        "t = j.Task((Program('paper', 'import time\\ndef f(x): time.sleep(1000)'),), 'f', '', 'f(1)')\n"
        f"print('ready', flush=True); j.judge([t] * 2, j.Limits(100, 1000), drivers.{host_driver.name}())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 60
        while len(descendants(process.pid)) < 9 and time.monotonic() < deadline:  # warden, four keepers, four boxes
            time.sleep(0.05)
        boxes = descendants(process.pid)
    finally:
        process.kill()
        process.communicate()
    assert len(boxes) >= 9
    wait_for_end(boxes)


Process = tuple[int, str]  # its id, and when it started


def _processes() -> dict[Process, int]:
    """Return all living processes with their parents."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                found[int(entry.name), fields[19]] = int(fields[1])
    return found


def descendants(pid: int) -> set[Process]:
    processes = _processes()
    family, grown = {pid}, True
    while grown:
        children = {key[0] for key, parent in processes.items() if parent in family}
        grown = not children <= family
        family |= children
    return {key for key in processes if key[0] in family - {pid}}


def wait_for_end(processes: set[Process]) -> None:
    """The kernel kills with a little delay: give it ten seconds, then they must be gone."""
    deadline = time.monotonic() + 10
    while processes & _processes().keys() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes & _processes().keys() == set()


# ------------------------------------------------------------------------------------------- failures are not zeros


def test_a_broken_driver_leaves_everything_unscored() -> None:
    broken = Driver("broken", ("/bin/false",), sys.executable, "/", "landlock")
    verdicts = judge([task("def f(x): return x * x")] * 3, QUICK, broken)
    assert [v.value for v in verdicts] == [None] * 3
    assert "right canary came out as infra" in str(verdicts[0].reason)


def test_a_driver_that_does_not_contain_is_found_out_by_running_it() -> None:
    class Open(Driver):
        """Boxes that only say that they are locked: what a kernel without the means would amount to."""

        def command(self, control: int, name: str) -> list[str]:
            start = f"import sys; sys.path.append({self.folder!r}); from sandbox import warden, lockdown;"
            start += f" lockdown.lock = lambda **_: None; warden.main({control}, walls='namespaces')"
            return [self.python, "-S", "-c", start]

    folder = str(Path(drivers.__file__).parent.parent)
    verdicts = judge([task("def f(x): return x * x")], QUICK, Open("open", (), sys.executable, folder, "namespaces"))
    Path("/tmp/m3-sandbox-probe").unlink()  # what the canary left: there was nothing to stop it
    assert verdicts[0].value is None
    assert "escape canary came out as failed" in str(verdicts[0].reason)


def test_without_any_driver_programs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_fitness", lambda _: "not installed")
    with pytest.raises(M3Error, match=r"cannot be contained here .*bubblewrap: not installed.*install bubblewrap"):
        judging.working_driver()
    [verdict] = judge([task("def f(x): return x * x")])
    assert verdict.value is None
    assert "cannot be contained here" in str(verdict.reason)


@pytest.mark.slow
@pytest.mark.parametrize("test", ["assert f('x' * (17 << 20))", "def broken(:", "import no_such_module_here"])
def test_tests_that_cannot_run_are_nobodys_fault(driver: Driver, test: str) -> None:
    """The first two can be told from a wrong program: unscored. An exception in the tests as such cannot."""
    [verdict] = judge([task("def f(x): return True", test)], QUICK, driver)
    assert verdict.value == (0.0 if "import" in test else None)


@pytest.mark.slow
def test_an_error_in_the_prelude_is_nobodys_fault(driver: Driver) -> None:
    [verdict] = judge([task("def f(x): return x * x", prelude="import no_such_module")], QUICK, driver)
    assert verdict.value is None
    assert "the item's own code fails: ModuleNotFoundError" in str(verdict.reason)


# ------------------------------------------------------------------------------------------------------------- codec


class Colour(IntEnum):
    RED = 3


class Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __index__(self) -> int:
        return 42


class Own(Counter[str]):
    def __missing__(self, key: str) -> int:
        return 7


class Names(list[str]):
    def __iter__(self) -> Iterator[str]:
        return iter("abc")


VALUES: list[Any] = [
    None, True, False, 0, -1, 2**70, -(2**70), 0.1, -0.0, 1e308, math.inf, "", "héß\n\ud800", b"\x00\xff", 1 + 2j,
    [], [1, [2, (3,)]], (), {"a": [1]}, {1: {2: None}}, {(1, 2): {3}}, {1, 2}, frozenset({1}), Fraction(1, 3),
    Decimal("0.10"), [True, 1, 1.0], Counter("aab"), OrderedDict(b=1, a=2), defaultdict(list, {1: [2]}), slice(1, 2),
    deque([1, 2], maxlen=3), bytearray(b"ab"), array.array("d", [0.5]), {"b": 1}.keys(), {"b": [1]}.items(), range(3),
    datetime.datetime(2024, 2, 29, 1, 2, 3, 4, datetime.UTC), datetime.timedelta(days=-1), int, KeyError("no"),
    "\ud83d" + "\ude00", Ellipsis,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_cross_as_they_are(value: Any) -> None:
    back = crossing.loads(crossing.dumps(value))
    assert repr(back) == repr(value)
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [(Colour.RED, 3), (Own("aab"), Counter("aab")), (Liar(7), 7), (Names(["b"]), ["b"])],
)
def test_subclasses_cross_as_what_they_hold(value: Any, plain: Any) -> None:
    back = crossing.loads(crossing.dumps(value))
    assert type(back) is type(plain)
    assert back == plain


def test_nan_crosses_and_equals_nothing() -> None:
    assert math.isnan(crossing.loads(crossing.dumps(math.nan)))


def test_anything_else_stays_where_it_is_and_equals_nothing() -> None:
    kept: list[object] = []

    def keep(value: object) -> tuple[int, About]:
        kept.append(value)
        return len(kept) - 1, About("object", type(value).__name__)

    objects = (object(), len, iter(()), Path("x"))
    wire = codec.Wire(1, find=lambda key: kept[int(key)], make=crossing.Opaque)
    back = wire.loads(crossing.dumps(objects, keep))
    assert tuple(kept) == objects
    assert [repr(item) for item in back] == [
        "<object>", "<builtin_function_or_method>", "<tuple_iterator>", f"<{type(Path()).__name__}>",
    ]  # fmt: skip
    assert back[0] != object()
    again = crossing.loads(wire.dumps(back), find=lambda key: kept[int(key)])
    assert all(found is value for found, value in zip(again, objects, strict=True))
    with pytest.raises(CodecError, match="object is not a plain value"):
        crossing.dumps([object()])


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("make", [lambda: _nested(200), lambda: 1 << 3_000_000, lambda: "x" * (17 << 20)])
def test_values_too_deep_or_too_large_do_not_cross(make: Callable[[], Any]) -> None:
    with pytest.raises(CodecError):
        crossing.dumps(make())


@pytest.mark.parametrize(
    "data",
    [
        b"", b"nonsense", b"\xff\xfe", b"NaN", b"[1,2]", b"[" * 100_000,
        *(
            b"[%s,[],[]]" % value
            for value in (
                b"[1,2]", b'["list"]', b'["list",1]', b'["list",1,null,[]]', b'["set",0,null,[0,["list",2,null,[]]]]',
                b'["set",0,null,[]]', b'["set",0,null,[9,1]]', b'["eval","1"]', b'["int","zz"]', b'{"a":1}', b'["=",0]',
                b'["fraction","1/0"]', b'["dict",0,null,[1]]', b'["mine","f","x",1,[]]', b'["mine",[],"x","y",[]]',
                b'["yours",0]', b'["yours","f"]', b'["@",4]', b'["@","x"]', b'["named","a b",["x"],[1]]',
                b'["named","A",["x"],[1,2]]', b'["type","exit"]', b'["datetime",[1]]', b'["array",0,"Q",["x"]]',
                b'["error","eval",[]]', b'["bytes","zz"]', b'["slice",[1,2,3,4]]', b'["tuple",[' * 200 + b"]]" * 200,
            )
        ),
        b'[1,[[0,[]]],[]]', b'[1,[],0]', b'[["list",0,null,[]],[[0,[]],0],[]]',
    ],
    ids=lambda data: repr(data[:48]),
)  # fmt: skip
def test_malformed_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        crossing.loads(data)


# ------------------------------------------------------------------------------------------------- answer to program

PROMPT = 'from typing import List\n\ndef half(x):\n    return x / 2\n\ndef f(x: int) -> List[int]:\n    """Doc."""\n'
BODY = "    y = [x]\n    for i in y:\n        y = [i * 2]\n    return y\n"
TESTS = "assert f(4) == [8]\n"


ANSWERS: list[tuple[str, str]] = [
    (BODY, "body"),
    (BODY.strip(), "first_line"),
    ("\n\n" + BODY, "body"),
    (BODY.replace("    ", "\t"), "body"),
    ("y = [x * 2]\nreturn y", "dedented"),
    (PROMPT + BODY, "paper"),
    ("def f(x):\n" + BODY, "paper"),
    ("def f(x: int) -> List[int]:\n" + BODY, "paper"),
    ("Here you are:\r\n```python\r\n" + PROMPT + BODY + "```\r\nIt doubles.", "paper"),
    ("```python\n" + PROMPT + BODY, "paper"),
    ("```\n" + PROMPT + BODY + "```", "fence_paper"),
    ("Sure.\n```py\n" + BODY + "```", "fence_body"),
    ("def f(x):\n" + BODY + '\nif __name__ == "__main__":\n    import sys; sys.exit(f(', "paper"),
    ("def f(x):\n" + BODY + "# Example usage: f(", "paper"),
    ("The solution is:\ndef f(x):\n" + BODY + "\n\nThe answer is: f(2) = [4]", "paper"),
    ("The answer is:\ndef f(x):\n" + BODY, "paper"),
    ("### Instruction: none\n### Response:\ndef f(x):\n" + BODY, "paper"),
]
NO_ANSWERS = ["", "I am sorry.", "def f(x): return [x * 2]\n\nThis function doubles.", BODY + "oops ("]


def test_readings_of_right_answers() -> None:
    verdicts = judge([Task(readings(PROMPT, "f", clean(text)), "f", PROMPT, TESTS) for text, _ in ANSWERS])
    assert [(v.value, v.reading) for v in verdicts] == [(1.0, reading) for _, reading in ANSWERS]


def test_readings_of_answers_that_are_no_program_or_a_wrong_one() -> None:
    verdicts = judge([Task(readings(PROMPT, "f", clean(text)), "f", PROMPT, TESTS) for text in NO_ANSWERS])
    assert [v.value for v in verdicts] == [0.0] * len(NO_ANSWERS)


def test_a_prompt_without_a_docstring_still_takes_a_whole_function() -> None:
    programs = readings("import math\ndef f(x):\n", "f", "def f(x):\n    return math.floor(x)")
    [verdict] = judge([Task(programs, "f", "", "assert f(1.5) == 1")], QUICK)
    assert (verdict.value, verdict.reading) == (1.0, "whole")


def test_the_judge_needs_no_much_memory_of_its_own() -> None:
    """A program that answers with 15 MB strings does not fill the judging process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    judge([task("def f(x): return 'x' * (15 << 20)")] * 4, QUICK)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB
