"""Plain values <-> bytes: all that crosses between a candidate and a grader.

Decoding yields values of exactly these types: None, bool, int, float, complex, str, bytes, list, tuple, dict, set,
frozenset, Fraction, Decimal and `Opaque`; nothing else can be written. A subclass is sent as the built-in value it
holds, so that its own `__eq__` stays behind; anything else stays where it is and crosses as an `Opaque`, a number and
its type's name, which is equal to nothing but itself. Sent back, an `Opaque` is the object again.
A frame is four bytes of length (big endian) and that many bytes of JSON.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

MAX_FRAME = 16 << 20
_MAX_DEPTH = 150
_MAX_BITS = 2_000_000


class CodecError(Exception):
    """A value that may not cross, or bytes that are not one."""


class Opaque:
    """A value of some other type on the other side. `key` says which: a number, or the name of a global there."""

    __slots__ = ("_key", "_type_name")

    def __init__(self, type_name: str, key: int | str) -> None:
        object.__setattr__(self, "_type_name", type_name)
        object.__setattr__(self, "_key", key)

    def __repr__(self) -> str:
        return f"<{_own(self, '_type_name')}>"


Keep = Callable[[object], int]  # hold on to an object and return its number
Find = Callable[[int | str], object]  # the object of a number or a name
Make = Callable[[str, int | str], object]  # what stands for an object of the other side


def dumps(value: object, keep: Keep | None = None) -> bytes:
    """Encode a value. What is not plain is given to `keep`.

    Raises:
        CodecError: it is nested too deeply, too large, or not plain and there is no `keep`.
    """
    try:
        packed = _Packer(keep).pack(value, 0)
        data = json.dumps(packed, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    except RecursionError:
        raise CodecError("nested too deeply") from None
    if len(data) > MAX_FRAME:
        raise CodecError("larger than 16 MiB")
    return data


def loads(data: bytes, find: Find | None = None, make: Make = Opaque) -> Any:
    """Decode a value: what is ours again by `find`, what is the other side's by `make`.

    Raises:
        CodecError: for anything that `dumps` does not write.
    """
    try:
        return _Unpacker(find, make).unpack(json.loads(data, parse_constant=_refuse), 0)
    except CodecError:
        raise
    except Exception as error:  # whatever malformed bytes do to the parser: they are not a value
        raise CodecError(f"not a value: {type(error).__name__}") from None


def send(descriptor: int, data: bytes) -> None:
    """Write one frame."""
    view = memoryview(len(data).to_bytes(4, "big") + data)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int) -> bytes:
    """Read one frame. Raises EOFError at the other side's end, CodecError for a frame that is too long."""
    length = int.from_bytes(_read_exactly(descriptor, 4), "big")
    if length > MAX_FRAME:
        raise CodecError("larger than 16 MiB")
    return _read_exactly(descriptor, length)


def _read_exactly(descriptor: int, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = os.read(descriptor, min(length - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _refuse(constant: str) -> Any:
    raise CodecError(f"{constant} is not written as such")


def _own(opaque: Opaque, name: str) -> Any:
    """Read an attribute of an Opaque itself, not of what it stands for."""
    return object.__getattribute__(opaque, name)


class _Packer:
    """Values -> what JSON knows: a tag and its content for every type that JSON does not have."""

    def __init__(self, keep: Keep | None) -> None:
        self._keep = keep
        self._packers: tuple[tuple[type, Callable[[Any, int], Any]], ...] = (
            (int, _pack_int),
            (float, _pack_float),
            (str, lambda value, _: str.__str__(value)),
            (bytes, lambda value, _: ["bytes", bytes.hex(value)]),
            (complex, lambda value, _: ["complex", repr(complex.__pos__(value))]),
            (list, lambda value, depth: ["list", self._all(list.__iter__(value), depth)]),
            (tuple, lambda value, depth: ["tuple", self._all(tuple.__iter__(value), depth)]),
            (dict, lambda value, depth: ["dict", [self._all(pair, depth) for pair in dict.items(value)]]),
            (set, lambda value, depth: ["set", self._all(set.__iter__(value), depth)]),
            (frozenset, lambda value, depth: ["frozenset", self._all(frozenset.__iter__(value), depth)]),
        )

    def pack(self, value: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise CodecError("nested too deeply")
        if value is None or value is True or value is False:
            return value
        if isinstance(value, Opaque):
            return ["ours", [_own(value, "_key")]]
        for kind, pack in self._packers:
            if isinstance(value, kind):
                return pack(value, depth + 1)
        for module, name in (("fractions", "Fraction"), ("decimal", "Decimal")):
            if isinstance(value, getattr(sys.modules.get(module), name, ())):
                return [name.lower(), str(value)]
        if self._keep is None:
            raise CodecError(f"a {type(value).__name__} is not a plain value")
        return ["opaque", [str.__str__(type(value).__name__)[:80], self._keep(value)]]

    def _all(self, values: Iterable[Any], depth: int) -> list[Any]:
        return [self.pack(value, depth) for value in values]


def _pack_int(value: int, _: int) -> Any:
    value = int.__pos__(value)
    if value.bit_length() > _MAX_BITS:
        raise CodecError("an integer of more than 2,000,000 bits")
    return value if value.bit_length() < 64 else ["int", hex(value)]


def _pack_float(value: float, _: int) -> Any:
    value = float.__pos__(value)
    return value if value - value == 0.0 else ["float", float.__repr__(value)]


class _Unpacker:
    """What `_Packer` wrote -> values of exactly the built-in types."""

    def __init__(self, find: Find | None, make: Make) -> None:
        self._find, self._make = find, make
        self._kinds: dict[str, tuple[type, Callable[[Any, int], Any]]] = {
            "int": (str, _unpack_int),
            "float": (str, lambda text, _: float(text)),
            "bytes": (str, lambda text, _: bytes.fromhex(text)),
            "complex": (str, lambda text, _: complex(text)),
            "list": (list, self._all),
            "tuple": (list, lambda values, depth: tuple(self._all(values, depth))),
            "dict": (list, self._dict),
            "set": (list, lambda values, depth: set(self._all(values, depth))),
            "frozenset": (list, lambda values, depth: frozenset(self._all(values, depth))),
            "fraction": (str, _unpack_fraction),
            "decimal": (str, _unpack_decimal),
            "opaque": (list, self._theirs),
            "ours": (list, self._ours),
        }

    def unpack(self, value: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise CodecError("nested too deeply")
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) is not list or len(value) != 2 or type(value[0]) is not str or value[0] not in self._kinds:
            raise CodecError("not a value")
        kind, inner = self._kinds[value[0]]
        if type(value[1]) is not kind:
            raise CodecError("not a value")
        return inner(value[1], depth + 1)

    def _all(self, values: list[Any], depth: int) -> list[Any]:
        return [self.unpack(value, depth) for value in values]

    def _dict(self, pairs: list[Any], depth: int) -> dict[Any, Any]:
        return {self.unpack(key, depth): self.unpack(item, depth) for key, item in pairs}

    def _theirs(self, content: list[Any], _: int) -> Any:
        if [type(item) for item in content] != [str, int]:
            raise CodecError("not a value")
        return self._make(*content)

    def _ours(self, content: list[Any], _: int) -> Any:
        if self._find is None or len(content) != 1 or type(content[0]) not in (int, str):
            raise CodecError("not a value")
        return self._find(content[0])


def _unpack_int(text: str, _: int) -> int:
    if len(text) > _MAX_BITS // 4 + 4:
        raise CodecError("an integer of more than 2,000,000 bits")
    return int(text, 16)


def _unpack_fraction(text: str, _: int) -> Any:
    from fractions import Fraction

    numerator, _slash, denominator = text.partition("/")
    return Fraction(int(numerator), int(denominator or "1"))


def _unpack_decimal(text: str, _: int) -> Any:
    from decimal import Decimal

    return Decimal(text)
