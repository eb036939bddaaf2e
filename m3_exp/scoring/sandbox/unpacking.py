"""JSON -> values of exactly the built-in types, whatever the bytes were."""

import collections
import datetime
import decimal
import fractions
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from . import layout
from .kinds import (
    CHANGEABLE,
    CONSTANTS,
    ERRORS,
    MAX_BITS,
    MAX_DEPTH,
    TYPES,
    About,
    CodecError,
    Shared,
    Value,
    checked_form,
    is_singular,
)
from .questions import QUESTIONS

if TYPE_CHECKING:
    from .codec import Wire

_MAX_FIELDS = 1000


class Unpacker:
    """What `Packer` wrote -> values of exactly the built-in types."""

    def __init__(self, wire: "Wire") -> None:
        self._wire = wire
        self._met: list[Value] = []

    def change(self, changed: Iterable[tuple[Value, list[Value]]]) -> None:
        """Give shared values their new contents."""
        for number, packed in changed:
            shared = self._wire.shared.get(number) if type(number) is int else None
            if shared is None:
                raise CodecError("not a value")
            self._fill(shared, packed, 1)

    def unpack(self, packed: Value, depth: int) -> Value:
        """Return the value that was packed. Raises CodecError, or what malformed lists raise, for anything else."""
        if packed is None or type(packed) is bool:
            return packed
        if type(packed) in (int, float, str):
            if not is_singular(packed):
                self._met.append(packed)
            return packed
        if depth > MAX_DEPTH:
            raise CodecError("nested too deeply")
        if type(packed) is not list or not packed or type(packed[0]) is not str:
            raise CodecError("not a value")
        tag, *rest = packed
        if tag in CHANGEABLE:
            return self._changeable(tag, *rest, depth=depth)
        if tag in ("@", "=", "yours", "mine"):
            return self._known(tag, rest)
        if tag not in _KINDS:
            raise CodecError("not a value")
        value = _KINDS[tag](self, depth + 1, *rest)
        if not is_singular(value):
            self._met.append(value)
        return value

    def _known(self, tag: str, rest: list[Any]) -> Value:
        """Return a value that is here already, or the stand-in of an object that stays on the other side."""
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

    def _all(self, packed: list[Value], depth: int) -> list[Value]:
        if type(packed) is not list:
            raise CodecError("not a value")
        unpack = self.unpack
        return [unpack(item, depth) for item in packed]

    def _changeable(self, tag: str, number: int, head: Value, packed: list[Value], *, depth: int) -> Value:
        """Make a value that the other side shares from now on."""
        if type(number) is not int or number % 2 == self._wire.first or number in self._wire.shared:
            raise CodecError("not a value")
        value = CHANGEABLE[tag].make(self.unpack(head, depth + 1))
        shared = Shared(value, tag, [])
        self._wire.share(number, shared)
        self._fill(shared, packed, depth + 1)
        return value

    def _fill(self, shared: Shared, packed: list[Value], depth: int) -> None:
        extra = packed[:1] if shared.tag == "set" else []  # how it was made: no value
        CHANGEABLE[shared.tag].set(shared.value, [*extra, *self._all(packed[len(extra) :], depth)])
        shared.agreed = CHANGEABLE[shared.tag].contents(shared.value)

    def _nan(self, _: int, number: int) -> float:
        if type(number) is not int:
            raise CodecError("not a value")
        return self._wire.nan(number)

    def _frozenset(self, depth: int, form: Value, items: list[Value]) -> frozenset[Value]:
        elements = self._all(items, depth)
        return layout.frozen(checked_form(form, len(elements)), elements)

    def _named(self, depth: int, name: str, fields: list[str], items: list[Value]) -> Value:
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

    def _error(self, depth: int, name: str, args: list[Value]) -> BaseException:
        values = self._all(args, depth)
        try:
            return ERRORS[name](*values)
        except (TypeError, ValueError):
            error = ERRORS[name].__new__(ERRORS[name])
            error.args = tuple(values)
            return error


def _items(make: Callable[[list[Any]], Value]) -> Callable[..., Value]:
    return lambda unpacker, depth, items: make(unpacker._all(items, depth))


def _texts(read: Callable[[str], Value]) -> Callable[..., Value]:
    def checked(_: Unpacker, __: int, text: Value) -> Value:
        if type(text) is not str:
            raise CodecError("not a value")
        return read(text)

    return checked


def _whole_numbers(read: Callable[..., Value]) -> Callable[..., Value]:
    def checked(_: Unpacker, __: int, parts: Value) -> Value:
        if type(parts) is not list or not {type(part) for part in parts} <= {int, type(None), list}:
            raise CodecError("not a value")
        return read(*parts)

    return checked


def _read_int(text: str) -> int:
    if len(text) > MAX_BITS // 4 + 4:
        raise CodecError("an integer of more than 2,000,000 bits")
    return int(text, 16)


def _read_fraction(text: str) -> fractions.Fraction:
    numerator, _, denominator = text.partition("/")
    return fractions.Fraction(_read_int(numerator), _read_int(denominator))


def _read_zone(days: int, seconds: int, microseconds: int) -> datetime.timezone:
    return datetime.timezone(datetime.timedelta(days, seconds, microseconds))


def _read_time(
    hour: int, minute: int, second: int, microsecond: int, fold: int, zone: tuple[int, int, int] | None
) -> datetime.time:
    return datetime.time(hour, minute, second, microsecond, _read_zone(*zone) if zone else None, fold=fold)


def _read_datetime(year: int, month: int, day: int, *clock: Any) -> datetime.datetime:
    return datetime.datetime.combine(datetime.date(year, month, day), _read_time(*clock))


_TEXTS: Mapping[str, Callable[[str], Value]] = {
    "int": _read_int,
    "float": float,
    "bytes": bytes.fromhex,
    "text": lambda text: bytes.fromhex(text).decode("utf-32-le", "surrogatepass"),
    "complex": complex,
    "fraction": _read_fraction,
    "decimal": decimal.Decimal,
    "type": lambda name: TYPES[name],
    "constant": lambda name: CONSTANTS[name],
}
_NUMBERS: Mapping[str, Callable[..., Value]] = {
    "date": datetime.date,
    "time": _read_time,
    "datetime": _read_datetime,
    "timedelta": datetime.timedelta,
    "timezone": _read_zone,
}
_KINDS: Mapping[str, Callable[..., Value]] = {
    "tuple": _items(tuple),
    "named": Unpacker._named,
    "frozenset": Unpacker._frozenset,
    "range": _items(lambda items: range(*items)),
    "slice": _items(lambda items: slice(*items)),
    "keys": _items(lambda items: dict.fromkeys(items).keys()),
    "values": _items(lambda items: dict(enumerate(items)).values()),
    "items": _items(lambda items: dict(zip(items[::2], items[1::2], strict=True)).items()),
    "error": Unpacker._error,
    "nan": Unpacker._nan,
    **{name: _texts(read) for name, read in _TEXTS.items()},
    **{name: _whole_numbers(read) for name, read in _NUMBERS.items()},
}
