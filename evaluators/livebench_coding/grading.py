"""What a test gives to a program and which answers are right: LiveBench's rules (its `lcb_runner/.../testing_util.py`)
of 2024 (until commit a41783c of 7 April 2025) and of 2025.

This file's text is the prelude of the grader: standard library only.
"""

import json
import math
import sys
from decimal import Decimal
from typing import Any

_SHOWN = 80


def arguments(text: str, rules: int) -> list[object]:
    """Return a method's arguments: one JSON value a line. In 2024 a first argument that is an object stands alone, with
    integer keys where they are such.
    """
    values = [json.loads(line) for line in text.split("\n")]
    return [_integer_keys(values[0])] if rules == 2024 and _has_integer_keys(values[0]) else values


def wanted(text: str, rules: int) -> object:
    """Return the value that a method should give; in 2024 an object with integer keys, or a list that begins with one,
    as a list of that.
    """
    value = json.loads(text)
    if rules == 2025:
        return value
    if _has_integer_keys(value):
        value = [_integer_keys(value)]
    if isinstance(value, list) and value and _has_integer_keys(value[0]):
        value = [_integer_keys(value[0])]
    return value


def _has_integer_keys(value: object) -> bool:
    try:
        return isinstance(value, dict) and all(isinstance(int(key), int) for key in value)
    except ValueError:
        return False


def _integer_keys(value: dict[Any, object]) -> dict[int, object]:
    return {int(key): item for key, item in value.items()}


def same_value(found: object, right: object, rules: int) -> bool:
    """Say whether a method's value is right: equal, a tuple counting as a list.

    In 2024 also one that is equal to the first of a list; a value that JSON cannot write is wrong.
    """
    value = list(found) if isinstance(found, tuple) else found
    if rules == 2025:
        return bool(value == right)
    try:
        json.dumps(found)
    except (TypeError, ValueError, RecursionError):
        return False
    firsts = [right[0]] if isinstance(right, list) and right else []
    return value == right or value in firsts or _with_lists(value) in firsts


def _with_lists(value: Any) -> object:
    """Return a list that begins with a tuple with all its items as lists, anything else as it is."""
    try:
        return [list(item) for item in value] if isinstance(value[0], tuple) else value
    except (TypeError, LookupError):
        return value


def same_output(found: object, right: str, rules: int) -> bool:
    """Say whether what a program wrote is right, by the rules of a year."""
    if type(found) is not str:
        return False
    return _similar(found, right) if rules == 2024 else _same_lines(found, right)


def _same_lines(found: str, right: str) -> bool:
    """Compare as in 2025: as many lines, each the same but for blank space at its ends, or the same numbers exactly."""
    lines, rights = ([line.strip() for line in text.strip().split("\n")] for text in (found, right))
    return len(lines) == len(rights) and all(a == b or _same_numbers(a, b) for a, b in zip(lines, rights, strict=True))


def _same_numbers(found: str, right: str) -> bool:
    try:
        return [Decimal(word) for word in found.split()] == [Decimal(word) for word in right.split()]
    except ArithmeticError:  # not a number, or a signalling NaN
        return False


def _similar(found: str, right: str) -> bool:
    """Compare as in 2024: line by line, blank space at the ends aside; or close numbers.

    Numbers are compared only where each line holds one, and not all of them are non-negative whole numbers.
    """
    lines = found.splitlines()
    if right.strip() in ("\n".join(lines).strip(), "\n".join(line.strip() for line in lines).strip()):
        return True
    rights = [line.strip() for line in right.split("\n") if line]
    filled = [line for line in lines if line]
    return rights in (lines, filled) or _close(filled, rights)


def _close(found: list[str], right: list[str]) -> bool:
    if all(a.isdigit() and b.isdigit() for a, b in zip(found, right, strict=False)):
        return False
    try:
        pairs = [(float(a), float(b)) for a, b in zip(found, right, strict=True)]
    except ValueError:
        return False
    return all(
        a == b or (math.isfinite(a) and math.isfinite(b) and abs(a - b) <= 1e-8 + 1e-5 * abs(b)) for a, b in pairs
    )


def check(tests: str, answer: Any, functional: bool, rules: int) -> None:
    """Give each test to the program by calling `answer`, until one fails.

    Raises:
        AssertionError: the program's answer to a test is wrong, or an error; the test's number is named.
    """
    if rules == 2025:
        sys.set_int_max_str_digits(50000)
    for number, (given, right) in enumerate(json.loads(tests), 1):
        try:
            found = answer(*arguments(given, rules)) if functional else answer(given)
        except Exception as error:  # the program's own, whatever it is
            raise AssertionError(f"test {number}: {type(error).__name__}: {error}") from None
        same = same_value(found, wanted(right, rules), rules) if functional else same_output(found, right, rules)
        if not same:
            raise AssertionError(f"test {number}: {_short(found)} instead of {_short(right)}")


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text.strip() if len(text) <= _SHOWN else text[: _SHOWN // 2] + " ... " + text[-_SHOWN // 2 :]
