"""Forgeries by what tests ask of an answer and by names that programs tell; and honest programs of their kind."""

from m3_exp.scoring.sandbox.drivers import Driver
from m3_exp.scoring.sandbox.judge import judge
from tests.answers import task

# The program finds the box's own objects by way of frames.
_FRAMES = """
import sys
def found(name):
    frame = sys._getframe()
    while frame is not None:
        for names in (frame.f_locals, frame.f_globals):
            if name in names:
                return names
        frame = frame.f_back
program = found("program")["program"]
"""
_RENAMING = """
def f(x):
    program._given[{name!r}] = None
    program.names[{name!r}] = lambda *_: {value}
    return {answer}
"""
_PLEASING = "def please(*_): return {value}\n"
_HOLDERS = {
    "function": "def g(): pass\ng.{name} = please\ndef f(x): return g\n",
    "class": "class A:\n    {name} = staticmethod(please)\ndef f(x): return A\n",
    "object": "class A:\n    {name} = please\ndef f(x): return A()\n",
    "named tuple": "import collections\ndef f(x): return collections.namedtuple('T', ['{name}'])(please)\n",
    "claimed": f"{_FRAMES}class A:\n    {{name}} = please\nfound('_PLAIN')['_PLAIN'] = (A,)\ndef f(x): return A()\n",
}
_METHODS = {
    "startswith": ("True", "f(3).startswith('7')"),
    "count": ("2", "f(3).count(7) == 2"),
    "issubset": ("True", "f(3).issubset({7})"),
    "symmetric_difference": ("set()", "f(3).symmetric_difference({7}) == set()"),
    "replace": ("''", "f(3).replace('7', '') == ''"),
}
_SHADOWED = {
    "abs": ("0", "3", "abs(f(3) - 7) < 1e-6"),
    "round": ("0", "3", "round(f(3), 2) == round(7, 2)"),
    "set": ("0", "[3]", "set(f(3)) == set([7])"),
    "all": ("True", "[3]", "all(a == b for a, b in zip(f(3), [7]))"),
}
FORGERIES = {
    **{
        f"{holder}'s {name}": (_PLEASING.format(value=value) + source.format(name=name), f"assert {test}")
        for holder, source in _HOLDERS.items()
        for name, (value, test) in _METHODS.items()
    },
    **{
        f"{name} of the tests": (
            _FRAMES + _RENAMING.format(name=name, value=value, answer=answer),
            f"f(0)\nassert {test}",
        )
        for name, (value, answer, test) in _SHADOWED.items()
    },
    "a type for a method": ("class A:\n    startswith = bool\ndef f(x): return A()\n", "assert f(3).startswith('7')"),
}
HONEST = {
    "counts": ("def f(x):\n    f.count += 1\nf.count = 0\n", "f(1); f(2)\nassert f.count == 2"),
    "fields": (
        "import dataclasses as d\n@d.dataclass\nclass P:\n    count: int\n    index: int\ndef f(x): return P(x, 2)\n",
        "p = f(1)\nassert (p.count, p.index) == (1, 2)",
    ),
    "functions in a named tuple": (
        "from collections import namedtuple\nS = []\ndef f(x): return namedtuple('P', 'push pop')(S.append, S.pop)\n",
        "p = f(0)\np.push(3)\nassert p.pop() == 3",
    ),
    "a class called by its name": (
        "class Bag:\n    def count(self, x): return 2 * x\n    def find(self, x): return x\n",
        "b = Bag()\nassert b.count(1) == 2 and b.find(5) == 5",
    ),
    "a context manager": (
        "import contextlib\n@contextlib.contextmanager\ndef f(x): yield x\n",
        "with f(3) as x:\n    assert x == 3",
    ),
    "a global that changes": ("N = 0\ndef f():\n    global N\n    N += 1\n", "f(); f()\nassert N == 2"),
}


def test_no_forgery_passes(host_driver: Driver) -> None:
    tasks = [task(source, test) for source, test in FORGERIES.values()]
    verdicts = judge(tasks, driver=host_driver)
    assert {name: v.reason for name, v in zip(FORGERIES, verdicts, strict=True) if v.value != 0.0} == {}


def test_honest_programs_of_their_kind_pass(host_driver: Driver) -> None:
    tasks = [task(source, test, "Bag", "N") for source, test in HONEST.values()]
    verdicts = judge(tasks, driver=host_driver)
    assert {name: v.reason for name, v in zip(HONEST, verdicts, strict=True) if v.value != 1.0} == {}
