"""Values -> what JSON knows: a tag and its contents for every type that JSON does not have."""

import collections
import datetime
import decimal
import fractions
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from . import layout
from .kinds import (
    CHANGEABLE,
    CONSTANTS,
    DATES,
    ERRORS,
    MAX_BITS,
    MAX_DEPTH,
    NAMES,
    TAG_OF,
    CodecError,
    Shared,
    Value,
    is_singular,
    pairs,
)

if TYPE_CHECKING:
    from .codec import Wire

_VIEWS: Mapping[type, str] = {
    type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items",
    type(collections.OrderedDict().keys()): "keys", type(collections.OrderedDict().values()): "values",
    type(collections.OrderedDict().items()): "items",
}  # fmt: skip
_SIMPLE = frozenset({int, float, str, bytes, complex, tuple, frozenset})


class Packer:
    """Values -> what JSON knows: a tag and its contents for every type that JSON does not have."""

    def __init__(self, wire: "Wire") -> None:
        self._wire = wire
        self._met: dict[int, tuple[int, Value]] = {}  # values that cannot change: where they came first
        self._new: dict[int, Shared] = {}
        self._numbers: dict[int, int] = {}
        self._agreed: dict[int, list[Value]] = {}

    def changes(self) -> list[Value]:
        """Return the numbers and contents of the shared values that have changed."""
        changed: list[Value] = []
        for number, shared in list(self._wire.shared.items()):
            contents = CHANGEABLE[shared.tag].contents(shared.value)
            if not shared.unchanged(contents):
                self._agreed[number] = contents
                changed.append([number, self._contents(shared.tag, shared.value, contents, 1)])
        return changed

    def remember(self) -> None:
        """Record what was packed as known to both sides, once it is certain to be sent."""
        for number, shared in self._new.items():
            self._wire.share(number, shared)
        for number, contents in self._agreed.items():
            self._wire.shared[number].agreed = contents
        self._wire.next += 2 * len(self._new)

    def pack(self, value: Any, depth: int) -> Value:
        """Return a value as JSON has it. Raises CodecError for one that may not cross."""
        if value is None or value is True or value is False:
            return value
        if depth > MAX_DEPTH:
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
            tag = TAG_OF.get(kind) or self._tag(kind)
            if tag is not None:
                return self._changeable(tag, value, depth)
        met = self._met.get(id(value))
        if met is not None:
            return ["=", met[0]]
        if kind is str or kind is int:
            if not is_singular(value):
                self._met[id(value)] = len(self._met), value
            return _packed_text(value) if kind is str else _packed_int(value)
        packed, counts = self._unchangeable(value, depth)
        if counts:
            self._met[id(value)] = len(self._met), value
        return packed

    @staticmethod
    def _tag(kind: type) -> str | None:
        if issubclass(kind, int | float | str | tuple):
            return None
        return next((tag for tag, changeable in CHANGEABLE.items() if issubclass(kind, changeable.type)), None)

    def _changeable(self, tag: str, value: Value, depth: int) -> Value:
        number = self._wire.next + 2 * len(self._new)
        contents = CHANGEABLE[tag].contents(value)
        self._new[number] = Shared(value, tag, contents)
        self._numbers[id(value)] = number
        head = self.pack(CHANGEABLE[tag].head(value), depth + 1)
        return [tag, number, head, self._contents(tag, value, contents, depth + 1)]

    def _contents(self, tag: str, value: Any, contents: list[Value], depth: int) -> list[Value]:
        if tag == "set":
            form, order = layout.plan(value)
            return [form, *self._all(order, depth)]
        return self._all(contents, depth)

    def _all(self, values: Iterable[Value], depth: int) -> list[Value]:
        pack = self.pack
        return [pack(value, depth) for value in values]

    def _unchangeable(self, value: Any, depth: int) -> tuple[Value, bool]:
        """Return an unchangeable value, packed, and whether a second occurrence is written as a reference."""
        kind = type(value)
        if issubclass(kind, int):
            plain = int.__pos__(value)
            return _packed_int(plain), not is_singular(plain)
        if issubclass(kind, float):
            number = float.__pos__(value)
            return (number, True) if number - number == 0.0 else (self._not_finite(value, number), True)
        if issubclass(kind, str):
            text = str.__str__(value)
            return _packed_text(text), not is_singular(text)
        if issubclass(kind, tuple):
            return self._tuple(value, depth + 1), True
        if issubclass(kind, bytes):
            data = bytes.__getitem__(value, slice(None))
            return ["bytes", bytes.hex(data)], not is_singular(data)
        if issubclass(kind, frozenset):
            form, order = layout.plan(value)
            return ["frozenset", form, self._all(order, depth + 1)], True
        packed = self._rarer(kind, value, depth + 1)
        return (self._kept(value), False) if packed is None else (packed, True)

    def _not_finite(self, value: float, number: float) -> Value:
        if number == number:
            return ["float", float.__repr__(number)]
        return ["nan", self._wire.number_of_nan(value)]

    def _tuple(self, value: tuple[Value, ...], depth: int) -> Value:
        items = self._all(tuple.__iter__(value), depth)
        kind = type(value)
        fields = getattr(kind, "_fields", None) if kind is not tuple else None
        if type(fields) is tuple and len(fields) == len(items) and all(type(name) is str for name in fields):
            name = str.__str__(kind.__name__)
            self._wire.own_tuples.setdefault((name, fields), kind)
            return ["named", name, list(fields), items]
        return ["tuple", items]

    def _rarer(self, kind: type, value: Any, depth: int) -> Value:
        if kind is range or kind is slice:
            return [kind.__name__, self._all((value.start, value.stop, value.step), depth)]
        if kind in _VIEWS:
            items = list(value)
            return [_VIEWS[kind], self._all(pairs(items) if _VIEWS[kind] == "items" else items, depth)]
        if issubclass(kind, complex):
            return ["complex", repr(complex.__pos__(value))]
        if issubclass(kind, fractions.Fraction):
            return ["fraction", f"{_packed_hex(value.numerator)}/{_packed_hex(value.denominator)}"]
        if issubclass(kind, decimal.Decimal):
            return ["decimal", decimal.Decimal.__str__(value)]
        if issubclass(kind, DATES):
            return _packed_date(value)
        if kind in ERRORS.values():
            return ["error", kind.__name__, self._all(value.args, depth)]
        if issubclass(kind, type) and value in NAMES:
            return ["type", NAMES[value]]
        return next((["constant", name] for name, constant in CONSTANTS.items() if value is constant), None)

    def _kept(self, value: Value) -> Value:
        if self._wire.keep is None:
            raise CodecError(f"a {type(value).__name__} is not a plain value")
        key, about = self._wire.keep(value)
        return ["mine", key, about.kind, about.name, list(about.traits)]


def _packed_int(value: int) -> Value:
    if value.bit_length() > MAX_BITS:
        raise CodecError("an integer of more than 2,000,000 bits")
    return value if value.bit_length() < 64 else ["int", hex(value)]


def _packed_hex(value: int) -> str:
    _packed_int(value)
    return hex(value)


def _packed_text(text: str) -> Value:
    """Return a text for JSON; one with lone surrogates by its code points, because JSON would join two of them."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return ["text", text.encode("utf-32-le", "surrogatepass").hex()]
    return text


def _packed_date(value: datetime.timedelta | datetime.timezone | datetime.date | datetime.time) -> list[Value]:
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
