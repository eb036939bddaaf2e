"""MBPP+'s rule: outputs equal the reference's on every input, as evalplus 0.3.1 compares them (`unsafe_execute`).

This file is the grader's: it is also sent into the box as text, in front of the tests, so it imports nothing but the
standard library. What it takes from evalplus are facts, each named here: which items' arguments are not what JSON can
hold (`mbpp_deserialize_inputs`), and which need another comparison (`_special_oracle.py`).
"""

import copy
import json
import math
from collections.abc import Callable
from typing import Any

RTOL = 1e-7
_MOST = 2_000_000  # elements of an output that can cross; five inputs of Mbpp/255 have more, and are left out

# Where a list of the file stands for a tuple: items whose arguments, or elements one or two levels down, are tuples.
_TUPLES = frozenset({2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740,
                     744, 809})  # fmt: skip
_LISTS_OF_TUPLES = frozenset({63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780})
_TUPLES_OF_TUPLES = frozenset({259, 401, 445})
_FIRST_LIST_OF_TUPLES = frozenset({75, 413, 444, 753})
_FIRST_TUPLE = frozenset({250, 307, 405, 446, 617, 720, 763, 808})
_SECOND_TUPLE = frozenset({106, 750})
_ALL_TUPLES = frozenset({580, 615, 791})

_SAME_SET = frozenset({2, 7, 111, 140, 232, 249, 579, 769})  # the order and the number of equal elements are free
_NOT_NONE = frozenset({"check_str", "text_match_three", "text_starta_endb"})  # only whether there is a match counts


def arguments(number: int, values: list[Any]) -> list[Any]:
    """Return the arguments of one call, as evalplus makes them of the file's."""
    if number in _TUPLES:
        return [tuple(value) for value in values]
    if number in _LISTS_OF_TUPLES:
        return [[tuple(item) for item in value] for value in values]
    if number in _TUPLES_OF_TUPLES:
        return [tuple(tuple(item) for item in value) for value in values]
    if number in _FIRST_LIST_OF_TUPLES:
        return [[tuple(item) for item in values[0]], values[1]]
    if number in _FIRST_TUPLE:
        return [tuple(values[0]), *values[1:]]
    if number in _SECOND_TUPLE:
        return [values[0], tuple(values[1])]
    if number in _ALL_TUPLES:
        return [_frozen(value) for value in values]
    return _single(number, values)


def _single(number: int, values: list[Any]) -> list[Any]:
    """Do what only one item needs."""
    if number == 115:
        return [[set(item) if isinstance(item, list) and item else {} for item in values[0]]]
    if number == 124:
        return [float(values[0]), complex(values[1])]
    if number == 252:
        return [complex(values[0])]
    if number == 278:
        return [tuple(tuple(item) if isinstance(item, list) else item for item in values[0])]
    if number == 722:
        return [{key: tuple(value) for key, value in values[0].items()}, *values[1:]]
    return values


def _frozen(value: object) -> object:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def reference(source: str, name: str, unfit: type[BaseException]) -> Callable[..., object]:
    """Return an item's own solution; where it fails nobody's program is at fault, so `unfit` is raised."""
    names: dict[str, Any] = {}
    exec(compile(source, "<reference>", "exec"), names)

    def call(*given: object) -> object:
        try:
            out = names[name](*copy.deepcopy(given))
        except Exception as error:
            raise unfit(f"the reference fails on an input: {type(error).__name__}: {error}") from error
        return out is not None if name in _NOT_NONE else out

    return call


def check(
    candidate: Callable[..., object], right: Callable[..., object], item: tuple[int, str, float], inputs: str
) -> None:
    """Assert that a function agrees with the right one on every input; `inputs` is JSON, an array of arrays.

    `item` is its number, its function's name, and the tolerance; once a float was expected, 1e-6 stays tolerated.
    """
    number, name, atol = item
    for values in json.loads(inputs):
        given = arguments(number, values)
        expected = right(*given)
        if _size(expected, _MOST) > _MOST:
            continue
        out = candidate(*given)
        if atol == 0 and _floats(expected):
            atol = 1e-6
        if _special(number, name, given, out, expected, atol):
            continue
        assert atol != 0, f"{_short(out)} is not {_short(expected)}"
        assert type(out) is type(expected), f"{_short(out)} is not a {type(expected).__name__}"
        assert _close(out, expected, atol), f"{_short(out)} is not close to {_short(expected)}"


def _size(value: object, most: int) -> int:
    """Count the elements of nested collections, up to a little more than `most`."""
    if not isinstance(value, list | tuple | set | dict):
        return 1
    count = 1
    for item in value:
        count += _size(item, most - count)
        if count > most:
            break
    return count


def _short(value: object) -> str:
    return repr(value)[:60]


def _special(number: int, name: str, given: list[Any], out: Any, expected: Any, atol: float) -> bool:
    """Say whether an output is exactly right, by the rule of its item."""
    if number == 164:  # are_equivalent: its reference is wrong, and everything passes
        return True
    if number == 295:
        return bool(out == expected or out == 0)
    if number == 581:
        return bool(out == expected or abs(out - _pyramid(*given)) <= atol)
    if number == 558:
        return bool(out == expected or out == _digit_distance(*given))
    if number in _SAME_SET:
        return set(out) == set(expected)
    if name in _NOT_NONE:
        return bool(out == expected) if isinstance(out, bool) else expected == (out is not None)
    return bool(out == expected)


def _pyramid(edge: float, height: float) -> int:
    """Return the surface of a square pyramid whose height is the perpendicular one (the reference: the slant)."""
    return round(edge**2 + 2 * edge * math.sqrt((edge / 2) ** 2 + height**2))


def _digit_distance(first: int, second: int) -> int:
    """Return the sum of the differences between the digits of two numbers, the shorter one filled with zeros."""
    left, right = str(first), str(second)
    width = max(len(left), len(right))
    return sum(abs(int(a) - int(b)) for a, b in zip(left.zfill(width), right.zfill(width), strict=True))


def _floats(value: object) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _shape(value: object) -> tuple[int, ...] | None:
    """Return the lengths of nested lists, level by level; None where they are not all the same (numpy takes none)."""
    if not isinstance(value, list | tuple):
        return ()
    inner = {_shape(item) for item in value}
    if None in inner or len(inner) > 1:
        return None
    return (len(value), *next(iter(inner), ()))  # type: ignore[misc]


def _close(out: Any, expected: object, atol: float) -> bool:
    """Compare as numpy's allclose does, element by element; what is not a number is never close."""
    if isinstance(expected, list | tuple):
        if _shape(expected) is None or _shape(out) != _shape(expected):
            return False
        return all(_close(a, b, atol) for a, b in zip(out, expected, strict=True))
    if not isinstance(out, int | float | complex) or not isinstance(expected, int | float | complex):
        return False
    return bool(out == expected or abs(out - expected) <= atol + RTOL * abs(expected) < math.inf)
