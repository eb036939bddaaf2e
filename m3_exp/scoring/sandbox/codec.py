"""Plain values <-> bytes: all that crosses between a candidate and a grader.

Decoding yields values of exactly these types: None, bool, int, float, complex, str, bytes, list, tuple, dict, set,
frozenset, Fraction, Decimal and `Opaque`; nothing else can be written. A subclass is sent as the built-in value it
holds, so that its own `__eq__` stays behind; anything else becomes an `Opaque`, which is equal to nothing.
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
    """A value of some other type in the candidate, of which only the type's name crosses."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"<{self.type_name}>"


def dumps(value: object, *, opaque: bool = True) -> bytes:
    """Encode a value. Raises CodecError where it is nested too deeply, too large, or would become an Opaque unasked."""
    try:
        packed = _pack(value, 0)
        data = json.dumps(packed, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    except RecursionError:
        raise CodecError("nested too deeply") from None
    if len(data) > MAX_FRAME:
        raise CodecError("larger than 16 MiB")
    if not opaque and b'["opaque",' in data:
        raise CodecError("not a plain value")
    return data


def loads(data: bytes) -> Any:
    """Decode a value. Raises CodecError for anything that `dumps` does not write."""
    try:
        return _unpack(json.loads(data, parse_constant=_refuse), 0)
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


def _pack(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise CodecError("nested too deeply")
    if value is None or value is True or value is False:
        return value
    for kind, pack in _PACKERS:
        if isinstance(value, kind):
            return pack(value, depth + 1)
    for module, name in (("fractions", "Fraction"), ("decimal", "Decimal")):
        if isinstance(value, getattr(sys.modules.get(module), name, ())):
            return [name.lower(), str(value)]
    return ["opaque", str.__str__(type(value).__name__)[:80]]


def _pack_int(value: int, _: int) -> Any:
    value = int.__pos__(value)
    if value.bit_length() > _MAX_BITS:
        raise CodecError("an integer of more than 2,000,000 bits")
    return value if value.bit_length() < 64 else ["int", hex(value)]


def _pack_float(value: float, _: int) -> Any:
    value = float.__pos__(value)
    return value if value - value == 0.0 else ["float", float.__repr__(value)]


def _pack_all(values: Iterable[Any], depth: int) -> list[Any]:
    return [_pack(value, depth) for value in values]


def _pack_dict(value: dict[Any, Any], depth: int) -> Any:
    return ["dict", [[_pack(key, depth), _pack(item, depth)] for key, item in dict.items(value)]]


_PACKERS: tuple[tuple[type, Callable[[Any, int], Any]], ...] = (
    (int, _pack_int),
    (float, _pack_float),
    (str, lambda value, _: str.__str__(value)),
    (bytes, lambda value, _: ["bytes", bytes.hex(value)]),
    (complex, lambda value, _: ["complex", repr(complex.__pos__(value))]),
    (list, lambda value, depth: ["list", _pack_all(list.__iter__(value), depth)]),
    (tuple, lambda value, depth: ["tuple", _pack_all(tuple.__iter__(value), depth)]),
    (dict, _pack_dict),
    (set, lambda value, depth: ["set", _pack_all(set.__iter__(value), depth)]),
    (frozenset, lambda value, depth: ["frozenset", _pack_all(frozenset.__iter__(value), depth)]),
)


def _unpack(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise CodecError("nested too deeply")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is not list or len(value) != 2 or type(value[0]) is not str or value[0] not in _UNPACKERS:
        raise CodecError("not a value")
    kind, inner = _UNPACKERS[value[0]]
    if type(value[1]) is not kind:
        raise CodecError("not a value")
    return inner(value[1], depth + 1)


def _unpack_all(values: list[Any], depth: int) -> list[Any]:
    return [_unpack(value, depth) for value in values]


def _unpack_dict(pairs: list[Any], depth: int) -> dict[Any, Any]:
    return {_unpack(key, depth): _unpack(item, depth) for key, item in pairs}


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


_UNPACKERS: dict[str, tuple[type, Callable[[Any, int], Any]]] = {
    "int": (str, _unpack_int),
    "float": (str, lambda text, _: float(text)),
    "bytes": (str, lambda text, _: bytes.fromhex(text)),
    "complex": (str, lambda text, _: complex(text)),
    "list": (list, _unpack_all),
    "tuple": (list, lambda values, depth: tuple(_unpack_all(values, depth))),
    "dict": (list, _unpack_dict),
    "set": (list, lambda values, depth: set(_unpack_all(values, depth))),
    "frozenset": (list, lambda values, depth: frozenset(_unpack_all(values, depth))),
    "fraction": (str, _unpack_fraction),
    "decimal": (str, _unpack_decimal),
    "opaque": (str, lambda text, _: Opaque(text)),
}
