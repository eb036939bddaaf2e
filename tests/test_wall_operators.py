"""No program judges itself: every operator that a test may use, on objects of every kind that answers to please.

The right answer of `f(3)` is not 7 for any program here. Each test passes for the right answer in a plain run, and for
the hostile object too where the program is asked; across the wall none passes.
"""
# ruff: noqa: E501 (one program a line reads better than a wrapped one)

import collections
import decimal
import fractions
import functools
import json
import math
from typing import Any

import pytest

from m3_exp.scoring.sandbox.drivers import Driver
from m3_exp.scoring.sandbox.judge import Limits, judge
from tests.answers import task

# What a test may do with the answer x, which ought to be 7, "7", [7] or {7: 7}.
OPERATORS = {
    "equal": "x == 7",
    "equal_right": "7 == x",
    "unequal": "x != 8",
    "unequal_right": "8 != x",
    "not_equal": "not x == 8",
    "less": "x < 8",
    "greater_right": "8 > x",
    "at_least": "x >= 7",
    "chained": "6 < x < 8",
    "in": "7 in x",
    "in_many": "all(k in x for k in (7, 7.0))",
    "not_in": "8 not in x and 7 in x",
    "in_list": "x in [7]",
    "in_tuple": "x in (5, 7)",
    "in_set": "x in {7}",
    "in_dict": "{7: 'a'}[x] == 'a'",
    "list_equal": "[x] == [7]",
    "dict_equal": "{'a': x} == {'a': 7}",
    "count": "[x, x].count(7) == 2",
    "index": "[5, x].index(7) == 1",
    "len": "len(x) == 1",
    "abs": "abs(x) == 7",
    "difference": "abs(x - 7) < 1e-9",
    "difference_right": "abs(7 - x) < 1e-9",
    "truth": "bool(x) is True and x == 7",
    "hash": "hash(x) == hash(7)",
    "set_of": "{x} == {7}",
    "iterated": "[k == 7 for k in x] == [True]",
    "unpacked": "(lambda k: k == 7)(*x)",
    "listed": "list(x) == [7]",
    "sorted": "sorted(x) == [7]",
    "sum": "sum(x) == 7",
    "max": "max(x, default=None) == 7",
    "any": "any(k == 7 for k in x)",
    "item": "x[0] == 7",
    "slice": "x[:1] == [7]",
    "key": "x[7] == 7",
    "text": "str(x) == '7'",
    "shown": "repr(x) == '7'",
    "formatted": "f'{x}' == '7'",
    "percent": "'%s' % (x,) == '7'",
    "joined": "''.join([x]) == '7'",
    "int": "int(x) == 7",
    "float": "float(x) == 7.0",
    "round": "round(x) == 7",
    "plus": "x + 1 == 8",
    "plus_right": "1 + x == 8",
    "times": "2 * x == 14",
    "divided": "x % 7 == 0",
    "power": "x ** 2 == 49",
    "negated": "-x == -7",
    "shifted": "1 << x == 128",
    "isinstance": "isinstance(x, int)",
    "type": "type(x) is int",
    "type_name": "type(x).__name__ == 'int'",
    "class": "x.__class__ is int",
    "isclose": "math.isclose(x, 7)",
    "method": "x.startswith('7')",
    "predicate": "x.isdigit()",
    "query": "x.issubset({7, 8})",
    "attribute": "x.real == 7",
    "context": "x.__enter__() == 7",
    "sequence_equal": "collections.Counter(x) == {7: 1}",
    "zip": "all(a == b for a, b in zip(x, [7])) and [*x] == [7]",
    "ternary": "(1 if x == 7 else 0) == 1",
    "and": "x == 7 and True",
    "identity_of_equal": "(x == 7) is True",
    "json": "json.dumps(x) == '7'",
    "sorted_with": "sorted([x, 9, 5])[1] == 7",
}

_YES = "lambda *_, **__: True"
CLASSES = {
    "yes": f"class A:\n    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = {_YES}\n    __hash__ = lambda s: hash(7)\n    __bool__ = {_YES}\n",
    "number": "class A:\n    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __pow__ = __abs__ = __neg__ = __pos__ = __round__ = __rlshift__ = lambda s, *_: s\n    __int__ = __index__ = lambda s: 7\n    __float__ = lambda s: 7.0\n    __eq__ = __lt__ = __gt__ = __le__ = __ge__ = lambda s, o: True\n    __hash__ = lambda s: 7\n",
    "named_int": f"class int:\n    __eq__ = __lt__ = __contains__ = {_YES}\n    __hash__ = lambda s: 7\n    real = 7.5\nA = int\n",
    "pretends_class": f"class A:\n    __class__ = property(lambda s: int)\n    __eq__ = __contains__ = {_YES}\n    __hash__ = lambda s: 7\n",
    "int_like": f"class A(int):\n    def __new__(c): return int.__new__(c, 5)\n    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = {_YES}\n    __hash__ = lambda s: 7\n    __str__ = __repr__ = __format__ = lambda s, *_: '7'\n    __int__ = __index__ = __abs__ = __round__ = lambda s, *_: 7\n    __sub__ = __rsub__ = lambda s, o: 0\n    __add__ = __radd__ = lambda s, o: 8\n    real = property(lambda s: 7)\n",
    "float_like": f"class A(float):\n    def __new__(c): return float.__new__(c, 5.5)\n    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = {_YES}\n    __hash__ = lambda s: 7\n    __float__ = lambda s: 7.0\n    __sub__ = __rsub__ = lambda s, o: 0.0\n",
    "str_like": f"class A(str):\n    def __new__(c): return str.__new__(c, 'no')\n    __eq__ = __ne__ = __contains__ = startswith = isdigit = {_YES}\n    __hash__ = lambda s: hash('7')\n    __str__ = __repr__ = __format__ = lambda s, *_: '7'\n    __iter__ = lambda s: iter([7])\n    __len__ = lambda s: 1\n    __getitem__ = lambda s, k: 7\n",
    "list_like": f"class A(list):\n    __eq__ = __ne__ = __contains__ = __lt__ = {_YES}\n    __iter__ = lambda s: iter([7])\n    __len__ = lambda s: 1\n    __getitem__ = lambda s, k: [7] if type(k) is slice else 7\n    __hash__ = lambda s: 7\n    count = index = lambda s, o: 1\n",
    "tuple_like": f"class A(tuple):\n    __eq__ = __ne__ = __contains__ = __lt__ = {_YES}\n    __iter__ = lambda s: iter([7])\n    __len__ = lambda s: 1\n    __getitem__ = lambda s, k: 7\n    __hash__ = lambda s: 7\n",
    "dict_like": f"class A(dict):\n    __eq__ = __ne__ = __contains__ = {_YES}\n    __getitem__ = __missing__ = get = lambda s, *_: 7\n    __iter__ = lambda s: iter([7])\n    __len__ = lambda s: 1\n    __hash__ = lambda s: 7\n",
    "set_like": f"class A(set):\n    __eq__ = __ne__ = __contains__ = __le__ = issubset = {_YES}\n    __iter__ = lambda s: iter([7])\n    __len__ = lambda s: 1\n    __hash__ = lambda s: 7\n",
    "counter_like": f"import collections\nclass A(collections.Counter):\n    __eq__ = __ne__ = __contains__ = {_YES}\n    __missing__ = lambda s, k: 7\n    __len__ = lambda s: 1\n",
    "deque_like": f"import collections\nclass A(collections.deque):\n    __eq__ = __contains__ = {_YES}\n    __len__ = lambda s: 1\n    __getitem__ = lambda s, k: 7\n    __iter__ = lambda s: iter([7])\n",
    "yields_yes": f"class B:\n    __eq__ = __lt__ = {_YES}\n    __hash__ = lambda s: 7\nclass A:\n    __iter__ = lambda s: iter([B()])\n    __getitem__ = __enter__ = lambda s, *_: B()\n    __contains__ = {_YES}\n",
    "list_of_yes": f"class B:\n    __eq__ = __ne__ = __lt__ = __gt__ = {_YES}\n    __hash__ = lambda s: 7\n    __str__ = lambda s: '7'\ndef A(): return [B()]\n",
    "dict_of_yes": f"class B:\n    __eq__ = __ne__ = {_YES}\n    __hash__ = lambda s: 7\ndef A(): return {{B(): B()}}\n",
    "generator_of_yes": f"class B:\n    __eq__ = __lt__ = __gt__ = {_YES}\n    __hash__ = lambda s: 7\n    __radd__ = __add__ = lambda s, o: s\ndef A():\n    yield B()\n",
    "any_attribute": f"class B:\n    __eq__ = __call__ = {_YES}\n    __hash__ = lambda s: 7\nclass A:\n    __getattr__ = lambda s, n: B()\n    __hash__ = lambda s: 7\n",
    "metaclass": f"class M(type):\n    __eq__ = __instancecheck__ = __contains__ = __lt__ = __bool__ = {_YES}\n    __hash__ = lambda s: 7\n    __iter__ = lambda s: iter([s])\n    __len__ = lambda s: 1\nclass B(metaclass=M): pass\ndef A(): return B\n",
    "enum": f"import enum\nclass E(enum.Enum):\n    A = 1\n    __eq__ = __lt__ = {_YES}\n    __hash__ = lambda s: 7\ndef A(): return E.A\n",
    "fraction": f"from fractions import Fraction\nclass A(Fraction):\n    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = {_YES}\n    __hash__ = lambda s: 7\n    __sub__ = __rsub__ = lambda s, o: 0\n    __float__ = lambda s: 7.0\n    __str__ = lambda s: '7'\n",
    "decimal": f"from decimal import Decimal\nclass A(Decimal):\n    __eq__ = __lt__ = __gt__ = {_YES}\n    __hash__ = lambda s: 7\n    __sub__ = lambda s, o: Decimal(0)\n    __str__ = lambda s: '7'\n",
    "dataclass": "import dataclasses\n@dataclasses.dataclass(eq=False)\nclass A:\n    real: int = 0\n    def __eq__(s, o):\n        s.real = o\n        return True\n    __hash__ = lambda s: 7\n",
    "learner": "class A:\n    def __init__(s): s.seen = []\n    def __eq__(s, o):\n        s.seen.append(o)\n        return True\n    __contains__ = __lt__ = __ne__ = __eq__\n    __iter__ = lambda s: iter(s.seen)\n    __len__ = lambda s: len(s.seen)\n    __hash__ = lambda s: 7\n",
    "partial": "import functools\ndef A(): return functools.partial(lambda *a: True)\n",
}
_IMPORTS = "import collections, json, math\nx = f(3)\n"


# The plain values that objects of derived types hold, and what crosses for values of Python's own types.
HELD: dict[str, Any] = {
    **{"int_like": 5, "float_like": 5.5, "str_like": "no", "list_like": [], "tuple_like": (), "dict_like": {}},
    **{"set_like": set(), "counter_like": collections.Counter(), "deque_like": collections.deque()},
    **{"fraction": fractions.Fraction(), "decimal": decimal.Decimal(), "list_of_yes": [object()]},
    **{"generator_of_yes": (object() for _ in range(1)), "partial": functools.partial(print)},
}


def holds(name: str, operator: str) -> bool:
    """Say whether a test holds, in a plain run, for the plain value that an object holds; for no other."""
    if name not in HELD:
        return False
    try:
        return bool(
            eval(OPERATORS[operator], {"x": HELD[name], "math": math, "json": json, "collections": collections})
        )
    except Exception:
        return False


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.long)])
def test_no_operator_lets_a_program_judge_itself(host_driver: Driver, every: int) -> None:
    """25 classes x 69 operators: what an object pretends is never believed, what it holds is compared."""
    cells = [
        (name, operator)
        for k, name in enumerate(CLASSES)
        for i, operator in enumerate(OPERATORS)
        if (i + k) % every == 0
    ]
    tasks = [
        task(f"{CLASSES[name]}def f(x): return A()\n", f"{_IMPORTS}assert {OPERATORS[operator]}\n")
        for name, operator in cells
    ]
    found = judge(tasks, Limits(cpu_seconds=3), host_driver)
    assert {cell: verdict.value for cell, verdict in zip(cells, found, strict=True)} == {
        (name, operator): float(holds(name, operator)) for name, operator in cells
    }


def test_the_reason_names_the_object() -> None:
    program = f"{CLASSES['yes']}def f(x): return A()\n"
    found = judge([task(program, f"assert {test}") for test in ("f(3) == 7", "7 in f(3)", "isinstance(f(3), int)")])
    reason = "the program returned an A, which is no plain value"
    assert [verdict.reason for verdict in found] == [reason, reason, f"AssertionError ({reason})"]


@pytest.mark.parametrize("swallow", ["except:\n    pass", "except BaseException:\n    pass", "finally:\n    import os"])
def test_a_test_that_catches_everything_passes_nobody_who_left_or_lied(swallow: str) -> None:
    lie, leave = f"{CLASSES['yes']}def f(x): return A()\n", "import os\ndef f(x): os._exit(0)\n"
    tests = [f"try:\n    assert f(3) == 7\n{swallow}\n"] * 2
    found = judge([task(source, test) for source, test in zip((lie, leave), tests, strict=True)])
    assert [verdict.value for verdict in found] == [0.0, 0.0]


# The same operators where they are used as they should be: on plain values and on objects that the tests construct.
HONEST = {
    "generator": (
        "def f(n): yield from range(n)",
        "import types\ng = f(4)\nassert isinstance(g, types.GeneratorType)\nassert next(g) == 0 and 2 in g and list(g) == [3]",
    ),
    "generator_has_no_length": (
        "def f(n): yield n",
        "try:\n    len(f(1))\nexcept TypeError:\n    pass\nelse:\n    assert False",
    ),
    "generator_is_no_list": ("def f(n): yield n", "assert f(1) != [1] and f(1) is not None and bool(f(0))"),
    "send": (
        "def f(n):\n    while True: n += yield n",
        "g = f(1)\nassert next(g) == 1 and g.send(4) == 5 and g.send(1) == 6",
    ),
    "endless": (
        "import itertools\ndef f(n): return itertools.count(n)",
        "import itertools\nassert list(itertools.islice(f(3), 2)) == [3, 4] and 9 in f(3)",
    ),
    "map": (
        "def f(n): return map(str, range(n))",
        "m = f(3)\nassert isinstance(m, map) and next(m) == '0' and list(m) == ['1', '2']",
    ),
    "zip": ("def f(n): return zip(range(n), 'abc')", "assert dict(f(2)) == {0: 'a', 1: 'b'}"),
    "iterator_class": (
        "class I:\n    def __init__(s, n): s.n = n\n    def __iter__(s): return s\n    def __next__(s):\n        s.n -= 1\n        if s.n < 0: raise StopIteration\n        return s.n\ndef f(n): return I(n)",
        "assert list(f(3)) == [2, 1, 0] and next(f(9)) == 8 and 1 in f(3) and 7 not in f(3)",
    ),
    "range": (
        "def f(n): return range(n)",
        "assert f(3) == range(3) and len(f(3)) == 3 and f(3)[-1] == 2 and 1 in f(3)",
    ),
    "views": (
        "def f(n): return dict.fromkeys(range(n), 1).items()",
        "assert f(2) == {(0, 1), (1, 1)} and len(f(2)) == 2",
    ),
    "counter": (
        "import collections\ndef f(s): return collections.Counter(s)",
        "c = f('aab')\nassert c == {'a': 2, 'b': 1} and c['z'] == 0 and c.most_common(1) == [('a', 2)]",
    ),
    "default": (
        "import collections\ndef f(s): return collections.defaultdict(list, a=[1])",
        "d = f('')\nassert d == {'a': [1]} and d['b'] == []",
    ),
    "ordered": (
        "import collections\ndef f(n):\n    d = collections.OrderedDict(a=1, b=2)\n    d.move_to_end('a')\n    return d",
        "import collections\nassert list(f(0)) == ['b', 'a'] and f(0) != collections.OrderedDict(a=1, b=2) and f(0) == {'a': 1, 'b': 2}",
    ),
    "deque": (
        "import collections\ndef f(n): return collections.deque(range(n), maxlen=2)",
        "import collections\nassert f(3) != [1, 2] and f(3) == collections.deque([1, 2]) and f(3).maxlen == 2 and f(3).popleft() == 1",
    ),
    "named": (
        "import collections\nP = collections.namedtuple('P', 'x y')\ndef f(n): return P(n, 0)",
        "assert f(3) == (3, 0) and f(3).x == 3 and f(3)._replace(x=1) == (1, 0) and repr(f(3)) == 'P(x=3, y=0)'",
    ),
    "array": (
        "import array\ndef f(n): return array.array('i', range(n))",
        "assert f(3).tolist() == [0, 1, 2] and f(3) != [0, 1, 2]",
    ),
    "dates": (
        "import datetime as d\ndef f(n): return d.datetime(2024, 1, n, tzinfo=d.timezone.utc) + d.timedelta(hours=5)",
        "import datetime as d\nassert f(3) == d.datetime(2024, 1, 3, 5, tzinfo=d.timezone.utc) and f(3).hour == 5 and f(4) - f(3) == d.timedelta(1)",
    ),
    "match": (
        "import re\ndef f(s): return re.search(r'(b+)', s)",
        "assert f('abb').group(1) == 'bb' and f('abb') and f('abb')[0] == 'bb' and f('x') is None and f('b') != None",
    ),
    "function": (
        "def f(n): return lambda x: x + n",
        "assert f(3)(4) == 7 and callable(f(3)) and not callable(f(3)(1))",
    ),
    "exception": ("def f(n): return ValueError('no')", "assert isinstance(f(1), ValueError) and str(f(1)) == 'no'"),
    "type": ("def f(n): return int", "assert f(1) is int and f(1)('3') == 3"),
    "list_of_own": (
        "class N:\n    def __init__(s, v): s.v = v\ndef f(n): return [N(k) for k in range(n)]",
        "assert [o.v for o in f(3)] == [0, 1, 2] and len(f(3)) == 3",
    ),
    "same_object": (
        "o = object()\ndef f(n): return o",
        "assert f(1) is f(2) and f(1) == f(2) and f(1) != None and [f(1)] == [f(2)]",
    ),
    "bytes": ("def f(n): return bytearray(b'ab'), b'ab'", "a, b = f(0)\nassert a == b == b'ab' and a[0] == 97"),
}
OWN = """
import enum
class Stack:
    def __init__(s, *items): s.items = list(items)
    def push(s, v): s.items.append(v); return s
    def __len__(s): return len(s.items)
    def __bool__(s): return bool(s.items)
    def __getitem__(s, k): return s.items[k]
    def __setitem__(s, k, v): s.items[k] = v
    def __iter__(s): return iter(s.items)
    def __str__(s): return f'<{s.items}>'
    __repr__ = __str__
    def index(s, v): return s.items.index(v)
    def __enter__(s): return s
    def __exit__(s, *a): s.items.clear(); return True
class Colour(enum.Enum):
    RED = 1
class Full(ValueError): pass
def f(s): return s
def full(): raise Full('no room', 3)
"""
OWN_TESTS = [
    "s = Stack(1, 2)\nassert len(s) == 2 and bool(s) and not Stack() and s[1] == 2 and s[-1:] == [2] and str(s) == '<[1, 2]>'",
    "s = Stack(1).push(2)\nassert s.items == [1, 2] and list(s) == [1, 2] and 2 in s and f(s) is s and f(s) == s and s.index(2) == 1",
    "s = Stack(1)\ns[0] = 5\nassert s.items == [5] and f'{s}' == '<[5]>' and isinstance(s, Stack) and not isinstance(3, Stack)",
    "with Stack(1) as s:\n    s.push(2)\nassert len(s) == 0",
    "assert Colour.RED is Colour.RED and f(Colour.RED) == Colour.RED and Colour.RED.value == 1 and Colour.RED.name == 'RED'",
    "try:\n    full()\nexcept Full as e:\n    assert e.args == ('no room', 3) and isinstance(e, ValueError)\nelse:\n    assert False",
    "try:\n    full()\nexcept ValueError as e:\n    assert str(e) == \"('no room', 3)\" and type(e).__name__ == 'Full'\nelse:\n    assert False",
    "import copy\ns = Stack(1)\nt = copy.deepcopy(s)\nt.push(2)\nassert len(s) == 1 and len(t) == 2",
    "s = Stack()\ns.items = [4]\nassert s[0] == 4 and not hasattr(s, 'nothing')",
]


def test_the_program_is_used_as_in_a_plain_run() -> None:
    """Each pair passes in a plain run too."""
    for source, test in [*HONEST.values(), *((OWN, test) for test in OWN_TESTS)]:
        exec(f"{source}\n{test}", {})
    own = ("Stack", "Colour", "Full", "full")
    tasks = [*(task(*pair) for pair in HONEST.values()), *(task(OWN, test, *own) for test in OWN_TESTS)]
    found = judge(tasks, Limits(cpu_seconds=3))
    names = [*HONEST, *OWN_TESTS]
    assert {name: v.reason for name, v in zip(names, found, strict=True) if v.value != 1.0} == {}


def test_a_context_of_the_program_swallows_no_failure() -> None:
    test = "with Stack(1) as s:\n    assert len(s) == 2"
    assert judge([task(OWN, test, "Stack")])[0].value == 0.0
