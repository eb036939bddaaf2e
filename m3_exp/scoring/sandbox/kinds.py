"""What may cross between a candidate and a grader: the types of plain values, and what both sides know of one.

A value that can change is *shared*: `CHANGEABLE` says for each such type what it holds and how that is set.
"""

import array
import collections
import datetime
import decimal
import fractions
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import layout

Value = object  # whatever a program or its tests may hold

MAX_DEPTH = 150  # of values in one another
MAX_BITS = 2_000_000  # of an integer


class CodecError(Exception):
    """A value that may not cross, or bytes that are not one."""


@dataclass(frozen=True)
class About:
    """What is told of an object that stays where it is.

    `kind`: function, class, error (a class of exceptions), generator, map, filter, iterator, object. `name` is its own
    or its type's. `traits`: call, iterate, next, true (it is always true), plain (a type of Python's own); of an error
    the built-in exceptions it is derived from, the nearest first.
    """

    kind: str
    name: str
    traits: tuple[str, ...] = ()


Key = int | str
Keep = Callable[[Value], tuple[Key, About]]  # hold on to an object: its number (or name), and what is told of it
Find = Callable[[Key], object]  # the object of a number or a name
Make = Callable[[Key, About], object]  # what stands for an object of the other side


@dataclass(frozen=True)
class _Changeable:
    """One built-in type whose values can change: what it holds as a list of values, how that is written and set."""

    type: type
    contents: Callable[[Any], list[Value]]
    set: Callable[[Any, list[Any]], None]
    head: Callable[[Any], Value] = lambda _: None  # what never changes, and making one needs
    new: Callable[[Any], Value] | None = None

    def make(self, head: Value) -> Value:
        return self.new(head) if self.new else self.type()


def _set_list(value: list[Value], contents: list[Value]) -> None:
    value[:] = contents


def _set_dict(value: dict[Value, Value], contents: list[Value]) -> None:
    value.clear()
    dict.update(value, zip(contents[::2], contents[1::2], strict=True))


def _set_ordered(value: collections.OrderedDict[Value, Value], contents: list[Value]) -> None:
    value.clear()
    value.update(zip(contents[::2], contents[1::2], strict=True))


def _set_set(value: set[Value], contents: list[Value]) -> None:
    layout.fill(value, checked_form(contents[0], len(contents) - 1), contents[1:])


def checked_form(packed: Any, count: int) -> layout.Form | None:
    """Return a set's form as it came, checked against its number of elements."""
    if packed is None:
        return None
    size, finger, holes, late = packed
    if {type(number) for number in (size, finger, *holes, *late)} != {int} or len(late) > count:
        raise CodecError("not a set")
    if not 8 <= size <= 8 * max(1, count + len(holes)) or size & size - 1:
        raise CodecError("not a set")
    if not 0 <= finger <= max(size, layout.FARTHEST) or not all(0 <= place < size for place in (*holes, *late)):
        raise CodecError("not a set")
    return size, finger, holes, late


def _set_deque(value: collections.deque[Value], contents: list[Value]) -> None:
    value.clear()
    value.extend(contents)


def _set_array(value: "array.array[float]", contents: list[float]) -> None:
    del value[:]
    value.extend(contents)


def _set_bytes(value: bytearray, contents: list[bytes]) -> None:
    [value[:]] = contents


def pairs(items: Iterable[tuple[Value, Value]]) -> list[Value]:
    """Return keys and values in one list."""
    return list(itertools.chain.from_iterable(items))


def _ordered_pairs(value: collections.OrderedDict[Value, Value]) -> list[Value]:
    return pairs((key, dict.__getitem__(value, key)) for key in collections.OrderedDict.__iter__(value))


def _head_of(kind: type, name: str) -> Callable[[Value], Value]:
    """Return what reads an attribute of a built-in type from a value of a subclass too."""
    return lambda value: vars(kind)[name].__get__(value)


# Before the type that it is derived from.
CHANGEABLE: Mapping[str, _Changeable] = {
    "list": _Changeable(list, lambda value: list(list.__iter__(value)), _set_list),
    "counter": _Changeable(collections.Counter, lambda value: pairs(dict.items(value)), _set_dict),
    "ordered": _Changeable(collections.OrderedDict, _ordered_pairs, _set_ordered),
    "default": _Changeable(
        collections.defaultdict,
        lambda value: pairs(dict.items(value)),
        _set_dict,
        _head_of(collections.defaultdict, "default_factory"),
        lambda head: collections.defaultdict(head if callable(head) else None),
    ),
    "dict": _Changeable(dict, lambda value: pairs(dict.items(value)), _set_dict),
    "set": _Changeable(set, lambda value: [layout.state(value), *set.__iter__(value)], _set_set),
    "deque": _Changeable(
        collections.deque,
        lambda value: list(collections.deque.__iter__(value)),
        _set_deque,
        _head_of(collections.deque, "maxlen"),
        lambda head: collections.deque(maxlen=head),
    ),
    "bytearray": _Changeable(bytearray, lambda value: [bytes(memoryview(value))], _set_bytes),
    "array": _Changeable(
        array.array,
        lambda value: array.array.tolist(value),
        _set_array,
        _head_of(array.array, "typecode"),
        lambda head: array.array(head),
    ),
}
TAG_OF = {changeable.type: tag for tag, changeable in CHANGEABLE.items()}
_BY_EQUALITY = frozenset({"bytearray", "array"})  # their contents are made anew each time they are looked at


@dataclass(slots=True)
class Shared:
    """A value that both sides hold, and what it held when they last agreed."""

    value: Value
    tag: str
    agreed: list[Value]

    def unchanged(self, contents: list[Value]) -> bool:
        if self.tag in _BY_EQUALITY:
            return bool(contents == self.agreed)
        if self.tag == "set" and contents[:1] != self.agreed[:1]:
            return False
        first = 1 if self.tag == "set" else 0
        return len(contents) == len(self.agreed) and all(map(operator.is_, contents[first:], self.agreed[first:]))


def is_singular(value: Any) -> bool:
    """Say whether Python has one object for this number or text anyway."""
    kind = type(value)
    return (kind is int and -5 <= value <= 256) or (kind in (str, bytes) and len(value) < 2) or value is None


DATES = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone)
CONSTANTS: Mapping[str, object] = {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}


def _builtin_types() -> dict[str, type]:
    import builtins

    names = {name: value for name, value in vars(builtins).items() if isinstance(value, type)}
    others = (*DATES, decimal.Decimal, fractions.Fraction, type(None), *TAG_OF)
    return {**{kind.__name__: kind for kind in others}, **names}


TYPES = _builtin_types()
NAMES = {kind: name for name, kind in TYPES.items()}
ERRORS = {name: kind for name, kind in TYPES.items() if issubclass(kind, BaseException)}
