"""What a program is given across the wall is what a plain run of the same tests gives it.

Every item's reference is wrapped so that it notes each call's arguments: types, values, order of iteration, the size of
a set's table, and which of them are one object. In the box the note is compared with that of a plain process, which
runs the same text without any wall. Both have PYTHONHASHSEED=0.
"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators import humaneval, mbpp
from m3_exp.scoring.coding import Programs
from m3_exp.scoring.programs import Program
from m3_exp.scoring.sandbox.judge import Limits, Task, judge
from m3_exp.types import Problem

DATA = Path(os.environ.get("M3_DATA", ""))
official = pytest.mark.skipif(not os.environ.get("M3_DATA"), reason="M3_DATA is not set: it names the folder of data")

NOTES = """
def _m3_noting():
    import hashlib
    seen = hashlib.sha256()
    counts = [0]
    def told(value, met):
        kind = type(value)
        if value is None or kind is bool or (kind is int and -6 < value < 257) or (kind is str and len(value) < 2):
            return repr(value)
        if id(value) in met:
            return "same %d" % met.index(id(value))
        met.append(id(value))
        name = kind.__name__
        if issubclass(kind, dict):
            inner = [told(part, met) for pair in value.items() for part in pair]
        elif kind in (list, tuple, set, frozenset) or hasattr(kind, "_fields") or name in ("deque", "array"):
            inner = [told(part, met) for part in value]
        elif kind in (int, float, str, bytes, complex, range, bytearray) or name in ("Fraction", "Decimal", "datetime"):
            inner = [repr(value)]
        else:
            inner = []  # a function, an iterator, an object
        if kind in (set, frozenset):
            inner.append(str(value.__sizeof__()))
        return "%s(%s)" % (name, ", ".join(inner))
    def noted(function):
        def call(*positional, **keywords):
            counts[0] += 1
            met = []
            seen.update(("%s %s\\n" % ([told(v, met) for v in positional], [(k, told(v, met)) for k, v in keywords.items()])).encode("utf-8", "surrogatepass"))
            return function(*positional, **keywords)
        return call
    return noted, lambda: (seen.hexdigest(), counts[0])
_m3_noted, _m3_told = _m3_noting()
for _m3_name in NAMES:
    if type(globals().get(_m3_name)) is type(_m3_noting):
        globals()[_m3_name] = _m3_noted(globals()[_m3_name])
"""  # noqa: E501
PLAIN = """
import json, sys
job = json.load(sys.stdin)
program = {"__name__": "answer"}
exec(compile(job["program"], "<answer>", "exec"), program)
names = {"__name__": "tests", "TestsUnfit": type("TestsUnfit", (BaseException,), {})}
exec(compile(job["prelude"], "<prelude>", "exec"), names)
names.update({name: program[name] for name in job["names"] if name in program})
exec(compile(job["test"], "<tests>", "exec"), names)
print("\\n" + json.dumps(program["_m3_told"]()))
"""


def noting(task: Task) -> Task:
    """Return the task of a program that notes what it is called with."""
    names = [task.entry_point, *task.names]
    source = f"{task.programs[0].source}\n{NOTES.replace('NAMES', repr(names))}"
    test = f"import random\nrandom.seed(0)\n{task.test}"
    return replace(task, programs=(Program("noting", source),), names=(*task.names, "_m3_told"), test=test)


def plain(task: Task) -> tuple[str, int]:
    """Return what a program notes in one process with its tests: a digest, and the number of calls."""
    names = [task.entry_point, *task.names]
    job = {"program": task.programs[0].source, "prelude": task.prelude, "test": task.test, "names": names}
    run = subprocess.run(
        [sys.executable, "-s", "-S", "-B", "-P", "-c", PLAIN],
        input=json.dumps(job), capture_output=True, text=True, check=True, cwd="/",
        env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}, timeout=300,
    )  # fmt: skip
    digest, calls = json.loads(run.stdout.splitlines()[-1])
    return str(digest), int(calls)


def compared(tasks: Iterable[tuple[str, Task]]) -> tuple[list[tuple[str, str]], int]:
    """Return the ids whose notes differ, with the reason, and the number of calls that were compared."""
    named = [(name, noting(task)) for name, task in tasks]
    with ThreadPoolExecutor(2) as pool:
        notes = list(pool.map(plain, [task for _, task in named]))
    asked = [
        replace(task, test=f"{task.test}\nassert _m3_told() == {note!r}, _m3_told()\n")
        for (_, task), note in zip(named, notes, strict=True)
    ]
    verdicts = judge(asked, Limits(cpu_seconds=60, wall_seconds=200, memory=4 << 30))
    wrong = [(name, str(v.reason)) for (name, _), v in zip(named, verdicts, strict=True) if v.value != 1.0]
    return wrong, sum(calls for _, calls in notes)


# Arguments of every kind; the function returns nothing of interest.
ARGUMENTS = """
import array, collections, datetime, decimal, fractions, itertools, math
P = collections.namedtuple("P", "x y")
f({12, 13, 14, 15, 16}); f({"alpha", "beta", "gamma", "delta"}); f(set(range(100, 0, -7))); f({3.5, "a", (1, 2)})
f(frozenset({12, 13, 14, 15, 16})); f({frozenset({9, 1}), frozenset({8, 16, 24})}); f({(1, 2), (3, 4), (0, 9)})
s = set(range(40)); s -= set(range(3, 38)); f(s); s.add(99); f(s); f({k * 37 % 101 for k in range(60)}); f({8, 0, 16})
f({1 << 70, -1, -2, 2**61 - 1, 0}); f(set("the quick brown fox")); f({x for x in [24, 16, 8, 0]}); f({24, 16, 8, 0, 32})
f({"b": 1, "a": {2: [3]}}); f(dict(zip("zyx", range(3)))); d = {1: 2, 3: 4}; del d[1]; d[1] = 5; f(d); f(d)
x = [1]; f(x, x); f([[0] * 3] * 3); f([[0] * 3 for _ in range(3)]); f([x, (x, x)], {"x": x}); t = (1, 2); f(t, [t, t])
f((1, 2), (1, 2)); f("some text", "some text"); f(1000, 1000); y = 5000; f(y, y, int("5000")); f(0.5, 0.5, 1.0)
f(-0.0, 0.0); n = float("nan"); f(n, [n], float("nan")); f(math.inf, -math.inf); f(True, 1, False, 0); f(1 << 500)
f("h\\xe9\\U0001f600\\ud800"); f("\\ud83d" + "\\ude00"); f(b"\\x00", bytearray(b"ab"))
f(1 + 2j, -0j)
f(range(3, 30, 4))
f(collections.Counter("abca"), collections.deque([1, 2], maxlen=4), collections.OrderedDict(b=1, a=2))
f(collections.defaultdict(int, {1: 2}), P(1, [2]), array.array("d", [0.5])); f(fractions.Fraction(1, 3))
f(decimal.Decimal("0.10"), datetime.datetime(2024, 2, 29, 12)); f(x for x in range(3)); f(lambda v: v, map(str, [1]))
f(*range(4), **{"key": [1], "other": None}); f(); f(None, ..., NotImplemented); f([]); f(()); f({}); f(set()); f("")
f([1, [2, [3, [4, ({"a": {5}},)]]]]); o = [1, 2]; f(o); o.append(3); f(o); o[0] = o[1]; f(o, o[:]); f(x=o)
"""


def test_arguments_of_every_kind() -> None:
    task = Task((Program("paper", "def f(*_, **__): return None\n"),), "f", "", ARGUMENTS)
    wrong, calls = compared([("all", task)])
    assert wrong == []
    assert calls > 50


def _references(evaluator: Programs) -> Iterable[tuple[str, Task]]:
    for problem in evaluator.problems("official"):
        yield problem.id, evaluator.task(problem, str(evaluator.gold(problem)))


def _humaneval() -> Iterable[tuple[str, Task]]:
    return _references(humaneval.HumanEval(extractor="none"))


def _mbpp(subset: str) -> Iterable[tuple[str, Task]]:
    return _references(mbpp.MBPP(subset=subset, extractor="none"))  # type: ignore[arg-type]


def _plus() -> Iterable[tuple[str, Task]]:
    """MBPP+ with the first 25 inputs of each item: all of them take minutes."""
    evaluator = mbpp.MBPP(subset="plus", extractor="none")
    problems = evaluator.problems("official")
    for problem in problems:
        short = json.dumps(json.loads(str(problem.row["plus_input"]))[:25])
        yield (
            problem.id,
            evaluator.task(replace(problem, row={**problem.row, "plus_input": short}), str(evaluator.gold(problem))),
        )


def _multipl_e() -> Iterable[tuple[str, Task]]:
    with gzip.open(DATA / "published_outputs/mbpp/gpt4.simple_mbpp_py.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    evaluator = humaneval.HumanEval(extractor="none")
    for row in rows:
        item = {name: row[name] for name in ("prompt", "test", "entry_point")}
        if row["is_solved"]:
            problem = Problem(row["name"], {**item, "task_id": row["name"]})
            yield row["name"], evaluator.task(problem, row["solution"])


SETS: dict[str, tuple[Callable[[], Iterable[tuple[str, Task]]], int]] = {
    "humaneval": (_humaneval, 164),
    "mbpp": (lambda: _mbpp("test"), 500),
    "sanitized": (lambda: _mbpp("sanitized"), 427),
    "plus": (_plus, 378),
    "multipl_e": (_multipl_e, 318),
}


@official
@pytest.mark.long
@pytest.mark.parametrize("name", SETS)
def test_the_benchmarks_arguments(name: str) -> None:
    make, count = SETS[name]
    tasks = list(make())
    wrong, calls = compared(tasks)
    print(f"{name}: {len(tasks)} items, {calls} calls, {len(wrong)} differ")
    assert wrong == []
    assert len(tasks) == count


@official
def test_the_first_arguments_of_humaneval() -> None:
    wrong, calls = compared(list(_humaneval())[:24])
    assert wrong == []
    assert calls > 90
