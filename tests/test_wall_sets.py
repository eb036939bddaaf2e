"""A set crosses with its table: iteration, `pop` and what is added later go as in a plain run, whatever came before.

Sets are made by random histories of what sets can do. What crossed is compared with the set itself, by Python alone.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest

from m3_exp.scoring.sandbox import codec
from m3_exp.scoring.sandbox.judge import judge
from m3_exp.scoring.sandbox.kinds import CodecError
from tests import crossing
from tests.answers import task

KINDS: list[Callable[[random.Random], Any]] = [
    lambda r: r.randrange(30),
    lambda r: -r.randrange(60),
    lambda r: r.randrange(50) * r.choice([8, 64, 1024, 1 << 20]),
    lambda r: r.getrandbits(80),
    lambda r: r.choice("abcdefghijklm") * r.randrange(4),
    lambda r: r.random(),
    lambda r: (r.randrange(9), str(r.randrange(9))),
    lambda r: frozenset({r.randrange(50)}),
]


def made(r: random.Random) -> set[Any]:
    """Make a set by a random history."""
    kind, most = r.choice(KINDS), r.choice([3, 5, 8, 20, 60, 200])
    value: set[Any] = set()
    for _ in range(r.randrange(1, 6)):
        others = [kind(r) for _ in range(r.randrange(most))]
        match r.randrange(8):
            case 0:
                value |= set(others)
            case 1:
                value.update(others)
            case 2:
                for _ in range(r.randrange(len(value) + 1)):
                    value.pop()
            case 3:
                value -= set(list(value)[: r.randrange(len(value) + 1)])
            case 4:
                value.difference_update(others)
            case 5:
                value ^= set(others)
            case 6:
                value = set(value)
            case 7:
                for item in list(value)[:: r.randrange(1, 4)]:
                    value.discard(item)
    return value


def future(value: set[Any], seed: int) -> list[list[Any]]:
    """Return the orders that a set goes through while things are popped and added."""
    r = random.Random(seed)
    seen = [list(value)]
    for _ in range(12):
        if value and r.random() < 0.4:
            seen.append([value.pop()])
        else:
            value.update(r.randrange(99) for _ in range(r.randrange(6)))
        seen.append(list(value))
    return seen


def test_sets_of_any_history_cross_with_their_table() -> None:
    for seed in range(2000):
        value = made(random.Random(seed))
        found = crossing.loads(crossing.dumps(value))
        assert (list(found), found.__sizeof__()) == (list(value), value.__sizeof__()), seed
        assert future(found, seed) == future(value, seed), seed


def test_frozensets_cross_in_their_order() -> None:
    for seed in range(2000):
        r = random.Random(seed)
        one, other = made(r), made(r)
        frozen = frozenset(one)
        for value in (frozen, frozenset(list(one)), frozen | other, frozen & other, frozen - other):
            found = crossing.loads(crossing.dumps(value))
            assert (list(found), found.__sizeof__()) == (list(value), value.__sizeof__()), seed


def test_a_set_that_both_sides_have_changes_with_its_table() -> None:
    for seed in range(300):
        r = random.Random(seed)
        ours, theirs = codec.Wire(0), codec.Wire(1)
        value = made(r)
        held = theirs.loads(ours.dumps(value))
        for _ in range(6):
            change, back = r.random(), r.random() < 0.5
            for one in (held if back else value,):
                if change < 0.3 and one:
                    one.pop()
                elif change < 0.5:
                    one.add(777)
                    one.discard(777)
                else:
                    one.update(r.randrange(99) for _ in range(r.randrange(5)))
            (ours.loads(theirs.dumps(1)) if back else theirs.loads(ours.dumps(1)))
            assert (list(held), held.__sizeof__()) == (list(value), value.__sizeof__()), seed
        assert future(held, seed) == future(value, seed), seed


def test_a_large_set() -> None:
    value = set(range(0, 7_000_000, 100))
    found = crossing.loads(crossing.dumps(value))
    assert list(found) == list(value)
    assert found.__sizeof__() == value.__sizeof__()


@pytest.mark.parametrize(
    "form",
    [
        *("[9,0,[],[]]", "[1073741824,0,[],[]]", "[8,8000,[],[]]", "[8,0,[-1],[]]", "[8,0,[],[1,2,3]]", "[8,0]"),
        *("0", '"x"', "[8,0,[true],[]]", "[8,null,[],[]]", "[-8,0,[],[]]", "[0,0,[],[]]", "[8,0,[8],[]]"),
    ],
)
def test_no_other_form_is_a_set(form: str) -> None:
    for data in (f'[["set",0,null,[{form},1,2]],[],[]]', f'[["frozenset",{form},[1,2]],[],[]]'):
        with pytest.raises(CodecError):
            crossing.loads(data.encode())


def test_what_came_twice_is_one_element() -> None:
    assert crossing.loads(b'[["set",0,null,[[32,0,[5],[3]],1,2,1,2,2]],[],[]]') == {1, 2}


HISTORIES = """
assert f({12, 13, 14, 15, 16}) == [16, 12, 13, 14, 15]
s = {k * 37 % 101 for k in range(40)}
for k in range(0, 90, 2): s.discard(k)
first = list(s)[0]
assert f(s) == list(s) and g(s) == first and first not in s and f(s) == list(s)
t = set(range(20)); t.pop(); t.pop()
assert g(t) == 2 and t == set(range(3, 20)) and t.pop() == 3
"""


def test_a_program_sees_the_order_of_a_plain_run() -> None:
    source = "def f(s): return list(s)\ndef g(s): return s.pop()\n"
    exec(f"{source}\n{HISTORIES}", {})
    [verdict] = judge([task(source, HISTORIES, "g")])
    assert verdict.reason is None
    assert verdict.value == 1.0
