"""Values <-> bytes: all that crosses between a candidate and a grader.

Decoding yields values of exactly these types, whatever the bytes: None, bool, int, float, complex, str, bytes, list,
tuple, dict, set, frozenset, bytearray, range, slice, views of a dict, deque, Counter, OrderedDict, defaultdict, array,
tuples with field names, Fraction, Decimal, date, time, datetime, timedelta, timezone, built-in exceptions and types. A
subclass is sent as the built-in value it holds, so that its own methods stay behind. Anything else stays where it is:
`keep` gives it a number, and what stands for it on the other side is `make`'s. Sent back, it is the object again.

What crosses behaves as if it had not. Values that are one object arrive as one object, a set iterates in its order, and
a value that can change is *shared*: it has a number on both sides, and each message tells what has changed since the
last. A side that alone holds a shared value forgets its number.

A message is JSON: [value, changed, forgotten]. A frame is four bytes of length (big endian) and a message.
"""

import array
import collections
import datetime
import decimal
import fractions
import itertools
import json
import operator
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import layout
from .questions import QUESTIONS

MAX_FRAME = 16 << 20
_MAX_DEPTH = 150
_MAX_BITS = 2_000_000
_MAX_FIELDS = 1000


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


class Opaque:
    """What stands for an object of the other side where nobody asks it anything."""

    def __init__(self, key: int | str, about: About) -> None:
        self.key, self.about = key, about

    def __repr__(self) -> str:
        return f"<{self.about.name}>"


Key = int | str
Keep = Callable[[Any], tuple[Key, About]]  # hold on to an object: its number (or name), and what is told of it
Find = Callable[[Key], object]  # the object of a number or a name
Make = Callable[[Key, About], object]  # what stands for an object of the other side


def dumps(value: object, keep: Keep | None = None) -> bytes:
    """Encode one value for nobody in particular.

    Raises:
        CodecError: it is nested too deeply, too large, or not plain and there is no `keep`.
    """
    return Wire(0, keep=keep).dumps(value)


def loads(data: bytes, find: Find | None = None, make: Make = Opaque) -> Any:
    """Decode one value.

    Raises:
        CodecError: for anything that `dumps` does not write.
    """
    return Wire(1, find=find, make=make).loads(data)


def send(descriptor: int, data: bytes) -> None:
    """Write one frame."""
    view = memoryview(len(data).to_bytes(4, "big") + data)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int) -> bytes:
    """Read one frame. Raises EOFError at the other side's end, CodecError for a frame that is too long."""
    length = int.from_bytes(_read_exactly(descriptor, 4), "big")
    if length > MAX_FRAME:
        raise CodecError("a frame of more than 16 MiB")
    return _read_exactly(descriptor, length)


def _read_exactly(descriptor: int, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = os.read(descriptor, min(length - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


# --------------------------------------------------------------------------------------------- values that can change


@dataclass(frozen=True)
class _Changeable:
    """One built-in type whose values can change: what it holds as a list of values, how that is written and set."""

    type: type
    contents: Callable[[Any], list[Any]]
    set: Callable[[Any, list[Any]], None]
    head: Callable[[Any], Any] = lambda _: None  # what never changes, and making one needs
    new: Callable[[Any], Any] | None = None

    def make(self, head: Any) -> Any:
        return self.new(head) if self.new else self.type()


def _set_list(value: list[Any], contents: list[Any]) -> None:
    value[:] = contents


def _set_dict(value: dict[Any, Any], contents: list[Any]) -> None:
    value.clear()
    dict.update(value, zip(contents[::2], contents[1::2], strict=True))


def _set_ordered(value: collections.OrderedDict[Any, Any], contents: list[Any]) -> None:
    value.clear()
    value.update(zip(contents[::2], contents[1::2], strict=True))


def _set_set(value: set[Any], contents: list[Any]) -> None:
    if type(contents[0]) is not int or not 0 <= contents[0] < len(contents):
        raise CodecError("not a set")
    layout.fill(value, contents[0], contents[1:])


def _set_deque(value: collections.deque[Any], contents: list[Any]) -> None:
    value.clear()
    value.extend(contents)


def _set_array(value: Any, contents: list[Any]) -> None:
    del value[:]
    value.extend(contents)


def _set_bytes(value: bytearray, contents: list[Any]) -> None:
    [value[:]] = contents


def _pairs(items: Any) -> list[Any]:
    return list(itertools.chain.from_iterable(items))


def _ordered_pairs(value: Any) -> list[Any]:
    return _pairs((key, dict.__getitem__(value, key)) for key in collections.OrderedDict.__iter__(value))


def _head_of(kind: type, name: str) -> Callable[[Any], Any]:
    """Return what reads an attribute of a built-in type from a value of a subclass too."""
    return lambda value: vars(kind)[name].__get__(value)


def _new_default(head: Any) -> Any:
    return collections.defaultdict(head if callable(head) else None)


def _new_deque(head: Any) -> Any:
    return collections.deque(maxlen=head)


# Before the type that it is derived from.
_CHANGEABLE: Mapping[str, _Changeable] = {
    "list": _Changeable(list, lambda value: list(list.__iter__(value)), _set_list),
    "counter": _Changeable(collections.Counter, lambda value: _pairs(dict.items(value)), _set_dict),
    "ordered": _Changeable(collections.OrderedDict, _ordered_pairs, _set_ordered),
    "default": _Changeable(
        collections.defaultdict,
        lambda value: _pairs(dict.items(value)),
        _set_dict,
        _head_of(collections.defaultdict, "default_factory"),
        _new_default,
    ),
    "dict": _Changeable(dict, lambda value: _pairs(dict.items(value)), _set_dict),
    "set": _Changeable(set, lambda value: list(set.__iter__(value)), _set_set),
    "deque": _Changeable(
        collections.deque,
        lambda value: list(collections.deque.__iter__(value)),
        _set_deque,
        _head_of(collections.deque, "maxlen"),
        _new_deque,
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
_TAG_OF = {changeable.type: tag for tag, changeable in _CHANGEABLE.items()}
_SIMPLE = frozenset({int, float, str, bytes, complex, tuple, frozenset})
_BY_EQUALITY = frozenset({"bytearray", "array"})  # their contents are made anew each time they are looked at


@dataclass
class _Shared:
    """A value that both sides hold, and what it held when they last agreed."""

    value: Any
    tag: str
    agreed: list[Any]

    def unchanged(self, contents: list[Any]) -> bool:
        if self.tag in _BY_EQUALITY:
            return bool(contents == self.agreed)
        return len(contents) == len(self.agreed) and all(map(operator.is_, contents, self.agreed))


def _only_ours() -> int:
    """Return the count of references to a value that nothing but a `_Shared` holds, as `sys.getrefcount` counts."""
    shared = _Shared([], "list", [])
    return sys.getrefcount(shared.value)


class Wire:
    """One side's end: its values <-> messages, and what both sides share.

    `first` is 0 on one side and 1 on the other: the numbers of what a side shares first are even or odd.
    """

    def __init__(self, first: int, keep: Keep | None = None, find: Find | None = None, make: Make = Opaque) -> None:
        self.keep, self.find, self._make = keep, find, make
        self.first, self.next = first, first
        self.shared: dict[int, _Shared] = {}
        self.numbers: dict[int, int] = {}  # of a shared value, by its id
        self.own_tuples: dict[tuple[str, tuple[str, ...]], type] = {}  # types of tuples with field names
        self._nans: dict[int, float] = {}
        self._nan_numbers: dict[int, int] = {}
        self._forgotten: list[int] = []
        self._stand_ins: dict[Key, object] = {}
        self.keys: dict[int, Key] = {}  # of a stand-in, by its id
        self._only_ours = _only_ours()

    def dumps(self, value: object) -> bytes:
        """Encode a value and what has changed. Nothing is remembered of a value that may not cross.

        Raises:
            CodecError: it is nested too deeply, too large, or not plain and there is no `keep`.
        """
        self._forget_what_nobody_else_holds()
        packer = _Packer(self)
        try:
            changed = packer.changes()
            packed = packer.pack(value, 0)
            data = json.dumps([packed, changed, self._forgotten], allow_nan=False, separators=(",", ":")).encode()
        except RecursionError:
            raise CodecError("nested too deeply") from None
        if len(data) > MAX_FRAME:
            raise CodecError("larger than 16 MiB")
        packer.remember()
        self._forgotten = []
        return data

    def loads(self, data: bytes) -> Any:
        """Decode a value, after what has changed on the other side has changed here.

        Raises:
            CodecError: for anything that `dumps` does not write.
        """
        try:
            packed, changed, forgotten = json.loads(data, parse_constant=_refuse)
            for number in forgotten:
                self._forget(number)
            unpacker = _Unpacker(self)
            unpacker.change(changed)
            return unpacker.unpack(packed, 0)
        except CodecError:
            raise
        except Exception as error:  # whatever malformed bytes do to the parser: they are not a value
            raise CodecError(f"not a value: {type(error).__name__}") from None

    def stand_in(self, key: Key, about: About) -> object:
        """Return what stands for an object of the other side: one object, however often it crosses."""
        if key not in self._stand_ins:
            made = self._stand_ins[key] = self._make(key, about)
            self.keys[id(made)] = key
        return self._stand_ins[key]

    def number_of_nan(self, value: float) -> int:
        """Return the number of a NaN, which is equal to nothing and yet found in a list that holds this one."""
        if id(value) not in self._nan_numbers:
            self._know_nan(self.first + 2 * len(self._nans), value)
        return self._nan_numbers[id(value)]

    def nan(self, number: int) -> float:
        """Return the NaN of a number."""
        if number not in self._nans:
            self._know_nan(number, float("nan"))
        return self._nans[number]

    def _know_nan(self, number: int, value: float) -> None:
        self._nans[number], self._nan_numbers[id(value)] = value, number

    def share(self, number: int, shared: _Shared) -> None:
        """Know a value under a number."""
        self.shared[number] = shared
        self.numbers[id(shared.value)] = number

    def _forget(self, number: int) -> None:
        shared = self.shared.pop(number, None)
        if shared is not None:
            self.numbers.pop(id(shared.value), None)

    def _forget_what_nobody_else_holds(self) -> None:
        for number in list(self.shared):
            if sys.getrefcount(self.shared[number].value) <= self._only_ours:
                self._forget(number)
                self._forgotten.append(number)


def _refuse(constant: str) -> Any:
    raise CodecError(f"{constant} is not written as such")


def _is_singular(value: Any) -> bool:
    """Say whether Python has one object for this number or text anyway."""
    kind = type(value)
    return (kind is int and -5 <= value <= 256) or (kind in (str, bytes) and len(value) < 2) or value is None


# ------------------------------------------------------------------------------------------------------------ writing

_DATES = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone)
_VIEWS: Mapping[type, str] = {
    type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items",
    type(collections.OrderedDict().keys()): "keys", type(collections.OrderedDict().values()): "values",
    type(collections.OrderedDict().items()): "items",
}  # fmt: skip
_CONSTANTS: Mapping[str, object] = {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}
_SINGLE = (TypeError, ValueError)


def _builtin_types() -> dict[str, type]:
    import builtins

    names = {name: value for name, value in vars(builtins).items() if isinstance(value, type)}
    others = (*_DATES, decimal.Decimal, fractions.Fraction, type(None), *_TAG_OF)
    return {**{kind.__name__: kind for kind in others}, **names}


_TYPES = _builtin_types()
_NAMES = {kind: name for name, kind in _TYPES.items()}
_ERRORS = {name: kind for name, kind in _TYPES.items() if issubclass(kind, BaseException)}


class _Packer:
    """Values -> what JSON knows: a tag and its contents for every type that JSON does not have."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._met: dict[int, tuple[int, Any]] = {}  # values that cannot change: where they came first
        self._new: dict[int, _Shared] = {}
        self._numbers: dict[int, int] = {}
        self._agreed: dict[int, list[Any]] = {}

    def changes(self) -> list[Any]:
        """Return the numbers and contents of the shared values that have changed."""
        found = []
        for number, shared in list(self._wire.shared.items()):
            contents = _CHANGEABLE[shared.tag].contents(shared.value)
            if not shared.unchanged(contents):
                self._agreed[number] = contents
                found.append([number, self._contents(shared.tag, shared.value, contents, 1)])
        return found

    def remember(self) -> None:
        """Count as agreed what was packed, once it is sure to be sent."""
        for number, shared in self._new.items():
            self._wire.share(number, shared)
        for number, contents in self._agreed.items():
            self._wire.shared[number].agreed = contents
        self._wire.next += 2 * len(self._new)

    def pack(self, value: Any, depth: int) -> Any:
        if value is None or value is True or value is False:
            return value
        if depth > _MAX_DEPTH:
            raise CodecError("nested too deeply")
        kind = type(value)
        if kind is int and -5 <= value <= 256:
            return value
        if kind not in _SIMPLE:
            known = self._wire.numbers.get(id(value), self._numbers.get(id(value)))
            if known is not None:
                return ["@", known]
            if id(value) in self._wire.keys:
                return ["yours", self._wire.keys[id(value)]]
            tag = _TAG_OF.get(kind) or self._tag(kind)
            if tag is not None:
                return self._changeable(tag, value, depth)
        met = self._met.get(id(value))
        if met is not None:
            return ["=", met[0]]
        packed, counts = self._unchangeable(value, depth)
        if counts:
            self._met[id(value)] = len(self._met), value
        return packed

    @staticmethod
    def _tag(kind: type) -> str | None:
        if issubclass(kind, int | float | str | tuple):
            return None
        return next((tag for tag, changeable in _CHANGEABLE.items() if issubclass(kind, changeable.type)), None)

    def _changeable(self, tag: str, value: Any, depth: int) -> Any:
        number = self._wire.next + 2 * len(self._new)
        contents = _CHANGEABLE[tag].contents(value)
        self._new[number] = _Shared(value, tag, contents)
        self._numbers[id(value)] = number
        head = self.pack(_CHANGEABLE[tag].head(value), depth + 1)
        return [tag, number, head, self._contents(tag, value, contents, depth + 1)]

    def _contents(self, tag: str, value: Any, contents: list[Any], depth: int) -> list[Any]:
        if tag == "set":
            merged, order = layout.plan(value)
            return [merged, *self._all(order, depth)]
        return self._all(contents, depth)

    def _all(self, values: Any, depth: int) -> list[Any]:
        pack = self.pack
        return [pack(value, depth) for value in values]

    def _unchangeable(self, value: Any, depth: int) -> tuple[Any, bool]:
        """Return a value that cannot change, packed, and whether a second one of it is written as the first."""
        kind = type(value)
        if issubclass(kind, int):
            plain = int.__pos__(value)
            return _packed_int(plain), not _is_singular(plain)
        if issubclass(kind, float):
            number = float.__pos__(value)
            return (number, True) if number - number == 0.0 else (self._not_finite(value, number), True)
        if issubclass(kind, str):
            text = str.__str__(value)
            return _packed_text(text), not _is_singular(text)
        if issubclass(kind, tuple):
            return self._tuple(value, depth + 1), True
        if issubclass(kind, bytes):
            data = bytes.__getitem__(value, slice(None))
            return ["bytes", bytes.hex(data)], not _is_singular(data)
        if issubclass(kind, frozenset):
            merged, order = layout.frozen_plan(value)
            return ["frozenset", merged, self._all(order, depth + 1)], True
        packed = self._rarer(kind, value, depth + 1)
        return (self._kept(value), False) if packed is None else (packed, True)

    def _not_finite(self, value: float, number: float) -> Any:
        if number == number:
            return ["float", float.__repr__(number)]
        return ["nan", self._wire.number_of_nan(value)]

    def _tuple(self, value: tuple[Any, ...], depth: int) -> Any:
        items = self._all(tuple.__iter__(value), depth)
        kind = type(value)
        fields = getattr(kind, "_fields", None) if kind is not tuple else None
        if type(fields) is tuple and len(fields) == len(items) and all(type(name) is str for name in fields):
            name = str.__str__(kind.__name__)
            self._wire.own_tuples.setdefault((name, fields), kind)
            return ["named", name, list(fields), items]
        return ["tuple", items]

    def _rarer(self, kind: type, value: Any, depth: int) -> Any:
        if kind is range or kind is slice:
            return [kind.__name__, self._all((value.start, value.stop, value.step), depth)]
        if kind in _VIEWS:
            items = list(value)
            return [_VIEWS[kind], self._all(_pairs(items) if _VIEWS[kind] == "items" else items, depth)]
        if issubclass(kind, complex):
            return ["complex", repr(complex.__pos__(value))]
        if issubclass(kind, fractions.Fraction):
            return ["fraction", f"{_packed_hex(value.numerator)}/{_packed_hex(value.denominator)}"]
        if issubclass(kind, decimal.Decimal):
            return ["decimal", decimal.Decimal.__str__(value)]
        if issubclass(kind, _DATES):
            return _packed_date(value)
        if kind in _ERRORS.values():
            return ["error", kind.__name__, self._all(value.args, depth)]
        if issubclass(kind, type) and value in _NAMES:
            return ["type", _NAMES[value]]
        return next((["constant", name] for name, constant in _CONSTANTS.items() if value is constant), None)

    def _kept(self, value: Any) -> Any:
        if self._wire.keep is None:
            raise CodecError(f"a {type(value).__name__} is not a plain value")
        key, about = self._wire.keep(value)
        return ["mine", key, about.kind, about.name, list(about.traits)]


def _packed_int(value: int) -> Any:
    if value.bit_length() > _MAX_BITS:
        raise CodecError("an integer of more than 2,000,000 bits")
    return value if value.bit_length() < 64 else ["int", hex(value)]


def _packed_hex(value: int) -> str:
    _packed_int(value)
    return hex(value)


def _packed_text(text: str) -> Any:
    """Return a text as JSON has it; one with lone surrogates by its code points: JSON would join two of them."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return ["text", text.encode("utf-32-le", "surrogatepass").hex()]
    return text


def _packed_date(value: Any) -> Any:
    """Return a date or time by its numbers; with a time zone that is an offset."""
    if isinstance(value, datetime.timedelta):
        return ["timedelta", [value.days, value.seconds, value.microseconds]]
    if isinstance(value, datetime.timezone):
        offset = value.utcoffset(None)
        return ["timezone", [offset.days, offset.seconds, offset.microseconds]]
    if not isinstance(value, datetime.datetime | datetime.time):
        return ["date", [value.year, value.month, value.day]]
    zone = value.tzinfo
    if zone is not None and type(zone) is not datetime.timezone:
        raise CodecError(f"a time in the zone {type(zone).__name__} is not a plain value")
    day = [value.year, value.month, value.day] if isinstance(value, datetime.datetime) else []
    parts = [*day, value.hour, value.minute, value.second, value.microsecond, value.fold]
    return ["datetime" if day else "time", [*parts, _packed_date(zone)[1] if zone is not None else None]]


# ------------------------------------------------------------------------------------------------------------ reading


class _Unpacker:
    """What `_Packer` wrote -> values of exactly the built-in types."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._met: list[Any] = []
        self._kinds: Mapping[str, Callable[..., Any]] = {
            "tuple": lambda depth, items: tuple(self._all(items, depth)),
            "named": self._named,
            "frozenset": self._frozenset,
            "range": lambda depth, items: range(*self._all(items, depth)),
            "slice": lambda depth, items: slice(*self._all(items, depth)),
            "keys": lambda depth, items: dict.fromkeys(self._all(items, depth)).keys(),
            "values": lambda depth, items: dict(enumerate(self._all(items, depth))).values(),
            "items": lambda depth, items: self._dict(items, depth).items(),
            "error": self._error,
            "nan": lambda _, number: self._nan(number),
            **{name: _texts(read) for name, read in _TEXTS.items()},
            **{name: _whole_numbers(read) for name, read in _NUMBERS.items()},
        }

    def change(self, changed: list[Any]) -> None:
        """Give shared values their new contents."""
        for number, packed in changed:
            shared = self._wire.shared.get(number) if type(number) is int else None
            if shared is None:
                raise CodecError("not a value")
            self._fill(shared, packed, 1)

    def unpack(self, packed: Any, depth: int) -> Any:
        if packed is None or type(packed) is bool:
            return packed
        if type(packed) in (int, float, str):
            if not _is_singular(packed):
                self._met.append(packed)
            return packed
        if depth > _MAX_DEPTH:
            raise CodecError("nested too deeply")
        if type(packed) is not list or not packed or type(packed[0]) is not str:
            raise CodecError("not a value")
        tag, *rest = packed
        if tag in _CHANGEABLE:
            return self._changeable(tag, *rest, depth=depth)
        if tag in ("@", "=", "yours", "mine"):
            return self._known(tag, rest)
        if tag not in self._kinds:
            raise CodecError("not a value")
        value = self._kinds[tag](depth + 1, *rest)
        if not _is_singular(value):
            self._met.append(value)
        return value

    def _known(self, tag: str, rest: list[Any]) -> Any:
        """Return a value that is there already, or what stands for an object that stays there."""
        if tag == "mine":
            key, kind, name, traits = rest
            if type(key) not in (int, str) or {type(word) for word in (kind, name, *traits)} != {str}:
                raise CodecError("not a value")
            return self._wire.stand_in(key, About(kind, name, tuple(traits)))
        [key] = rest
        if tag == "yours":
            if self._wire.find is None or type(key) not in (int, str):
                raise CodecError("not a value")
            return self._wire.find(key)
        if type(key) is not int or key < 0:
            raise CodecError("not a value")
        return self._wire.shared[key].value if tag == "@" else self._met[key]

    def _all(self, packed: list[Any], depth: int) -> list[Any]:
        if type(packed) is not list:
            raise CodecError("not a value")
        unpack = self.unpack
        return [unpack(item, depth) for item in packed]

    def _changeable(self, tag: str, number: int, head: Any, packed: list[Any], *, depth: int) -> Any:
        """Make a value that the other side shares from now on."""
        if type(number) is not int or number % 2 == self._wire.first or number in self._wire.shared:
            raise CodecError("not a value")
        value = _CHANGEABLE[tag].make(self.unpack(head, depth + 1))
        shared = _Shared(value, tag, [])
        self._wire.share(number, shared)
        self._fill(shared, packed, depth + 1)
        return value

    def _fill(self, shared: _Shared, packed: list[Any], depth: int) -> None:
        extra = packed[:1] if shared.tag == "set" else []  # how it was made: no value
        _CHANGEABLE[shared.tag].set(shared.value, [*extra, *self._all(packed[len(extra) :], depth)])
        shared.agreed = _CHANGEABLE[shared.tag].contents(shared.value)

    def _nan(self, number: int) -> float:
        if type(number) is not int:
            raise CodecError("not a value")
        return self._wire.nan(number)

    def _dict(self, items: list[Any], depth: int) -> dict[Any, Any]:
        flat = self._all(items, depth)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def _frozenset(self, depth: int, merged: int, items: list[Any]) -> frozenset[Any]:
        return layout.frozen(merged, self._all(items, depth))

    def _named(self, depth: int, name: str, fields: list[str], items: list[Any]) -> Any:
        values = self._all(items, depth)
        if type(fields) is not list or not all(type(word) is str for word in (name, *fields)):
            raise CodecError("not a value")
        if len(fields) != len(values) or len(fields) > _MAX_FIELDS:
            raise CodecError("not a value")
        if any(name in QUESTIONS and callable(value) for name, value in zip(fields, values, strict=True)):
            raise CodecError("a field would answer for a method")
        key = (name, tuple(fields))
        kind = self._wire.own_tuples.get(key)
        if kind is None:
            kind = self._wire.own_tuples[key] = collections.namedtuple(name, fields)  # type: ignore[misc]
        return tuple.__new__(kind, values)

    def _error(self, depth: int, name: str, args: list[Any]) -> BaseException:
        values = self._all(args, depth)
        try:
            return _ERRORS[name](*values)
        except _SINGLE:
            error = _ERRORS[name].__new__(_ERRORS[name])
            error.args = tuple(values)
            return error


def _texts(read: Callable[[str], Any]) -> Callable[[int, Any], Any]:
    def checked(_: int, text: Any) -> Any:
        if type(text) is not str:
            raise CodecError("not a value")
        return read(text)

    return checked


def _whole_numbers(read: Callable[..., Any]) -> Callable[[int, Any], Any]:
    def checked(_: int, parts: Any) -> Any:
        if type(parts) is not list or not {type(part) for part in parts} <= {int, type(None), list}:
            raise CodecError("not a value")
        return read(*parts)

    return checked


def _read_int(text: str) -> int:
    if len(text) > _MAX_BITS // 4 + 4:
        raise CodecError("an integer of more than 2,000,000 bits")
    return int(text, 16)


def _read_fraction(text: str) -> fractions.Fraction:
    numerator, _, denominator = text.partition("/")
    return fractions.Fraction(_read_int(numerator), _read_int(denominator))


def _read_zone(days: int, seconds: int, microseconds: int) -> datetime.timezone:
    return datetime.timezone(datetime.timedelta(days, seconds, microseconds))


def _read_time(*parts: Any) -> datetime.time:
    hour, minute, second, microsecond, fold, zone = parts
    return datetime.time(hour, minute, second, microsecond, _read_zone(*zone) if zone else None, fold=fold)


def _read_datetime(*parts: Any) -> datetime.datetime:
    year, month, day, *clock = parts
    return datetime.datetime.combine(datetime.date(year, month, day), _read_time(*clock))


_TEXTS: Mapping[str, Callable[[str], Any]] = {
    "int": _read_int,
    "float": float,
    "bytes": bytes.fromhex,
    "text": lambda text: bytes.fromhex(text).decode("utf-32-le", "surrogatepass"),
    "complex": complex,
    "fraction": _read_fraction,
    "decimal": decimal.Decimal,
    "type": lambda name: _TYPES[name],
    "constant": lambda name: _CONSTANTS[name],
}
_NUMBERS: Mapping[str, Callable[..., Any]] = {
    "date": datetime.date,
    "time": _read_time,
    "datetime": _read_datetime,
    "timedelta": datetime.timedelta,
    "timezone": _read_zone,
}
