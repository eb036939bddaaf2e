"""Values <-> bytes: all that crosses between a candidate and a grader.

Decoding yields values of exactly these types, whatever the bytes: None, bool, int, float, complex, str, bytes, list,
tuple, dict, set, frozenset, bytearray, range, slice, views of a dict, deque, Counter, OrderedDict, defaultdict, array,
tuples with field names, Fraction, Decimal, date, time, datetime, timedelta, timezone, built-in exceptions and types. Of
a subclass the built-in value that it holds is sent, so that its own methods stay behind. Any other object stays where
it is. `keep` gives it a number, and `make` returns what stands for it on the other side. Sent back, it is the object
again.

Values behave as they would within one process. Values that are one object arrive as one object, and a set iterates in
its order. A value that can change is *shared*: it has a number on both sides, and each message says what has changed
since the last. When only one side still holds a shared value, its number is forgotten.

A message is JSON: [value, changed, forgotten]. A frame is four bytes of length (big endian) and a message.
"""

import json
import os
import sys

from .kinds import About, CodecError, Find, Keep, Key, Make, Shared, Value
from .packing import Packer
from .unpacking import Unpacker

MAX_FRAME = 16 << 20


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


class Wire:
    """One side's end of the connection: its values <-> messages, and the values that both sides share.

    `first` is 0 on one side and 1 on the other, so that the numbers of what the two sides share first are even or odd.
    """

    def __init__(
        self, first: int, keep: Keep | None = None, find: Find | None = None, make: Make | None = None
    ) -> None:
        self.keep, self.find, self._make = keep, find, make
        self.first, self.next = first, first
        self.shared: dict[int, Shared] = {}
        self.numbers: dict[int, int] = {}  # of a shared value, by its id
        self.own_tuples: dict[tuple[str, tuple[str, ...]], type] = {}  # types of tuples with field names
        self._nans: dict[int, float] = {}
        self._nan_numbers: dict[int, int] = {}
        self._forgotten: list[int] = []
        self._stand_ins: dict[Key, object] = {}
        self.keys: dict[int, Key] = {}  # of a stand-in, by its id
        example = Shared([], "list", [])
        self._only_ours = sys.getrefcount(example.value)  # of a value that nothing but a `Shared` holds

    def dumps(self, value: object) -> bytes:
        """Encode a value and what has changed since the last message. A value that may not cross leaves no trace.

        Raises:
            CodecError: it is nested too deeply, too large, or not plain and there is no `keep`.
        """
        self._forget_what_nobody_else_holds()
        packer = Packer(self)
        try:
            changed = packer.changes()
            packed = packer.pack(value, 0)
            data = _ENCODER.encode([packed, changed, self._forgotten]).encode()
        except RecursionError:
            raise CodecError("nested too deeply") from None
        if len(data) > MAX_FRAME:
            raise CodecError("larger than 16 MiB")
        packer.remember()
        self._forgotten = []
        return data

    def loads(self, data: bytes) -> Value:
        """Decode a value, after applying the changes that the other side tells.

        Raises:
            CodecError: for anything that `dumps` does not write.
        """
        try:
            packed, changed, forgotten = _DECODER.decode(data.decode())
            for number in forgotten:
                self._forget(number)
            unpacker = Unpacker(self)
            unpacker.change(changed)
            return unpacker.unpack(packed, 0)
        except CodecError:
            raise
        except Exception as error:  # whatever malformed bytes do to the parser: they are not a value
            raise CodecError(f"not a value: {type(error).__name__}") from None

    def stand_in(self, key: Key, about: About) -> object:
        """Return what stands for an object of the other side: one object, however often it crosses."""
        if self._make is None:
            raise CodecError("not a value")
        if key not in self._stand_ins:
            made = self._stand_ins[key] = self._make(key, about)
            self.keys[id(made)] = key
        return self._stand_ins[key]

    def number_of_nan(self, value: float) -> int:
        """Return the number of a NaN: equal to nothing, it is yet found in a list that holds this very object."""
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

    def share(self, number: int, shared: Shared) -> None:
        """Register a value under a number."""
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


def _refuse(constant: str) -> Value:
    raise CodecError(f"{constant} is not written as such")


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refuse)
