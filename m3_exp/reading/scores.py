"""The scores of a result as columns: how the store writes them, and how they are read without making every Score.

    columns(scores)                {"id": ["1", "2"], "value": [1.0, 0.0], "sample": [0], ...}
    ScoreColumns(b'{"id":["1","2"],...}', path)         a sequence of Score again
    column(scores, "value")        [1.0, 0.0]: one column of any scores

In a column of which all values are equal one of them stands for all. A table needs the ids and values of a result, a
page its texts too, a plan none of them: so a column is parsed only where somebody asks for it.
"""

import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, overload

from m3_exp.reading.records import Damaged, column_list, unsealed
from m3_exp.types import Json, M3Error, Score, plain

_NONE = type(None)
_KINDS: Mapping[str, set[type]] = {
    "id": {str}, "value": {float, int, _NONE}, "sample": {int}, "extracted": {str, _NONE}, "reason": {str, _NONE},
    "notes": {dict},
}  # fmt: skip


def columns(scores: Sequence[Score]) -> Json:
    """Return scores as columns of what JSON knows."""
    known = {name: plain(column(scores, name)) for name in _KINDS}
    return {name: values[:1] if name != "id" and _equal(values) else values for name, values in known.items()}


def _equal(values: Sequence[object]) -> bool:
    return all(value == values[0] for value in values)


def column(scores: Sequence[Score], name: str) -> Sequence[Any]:
    """Return one field of each score."""
    return scores.column(name) if isinstance(scores, ScoreColumns) else [getattr(score, name) for score in scores]


def distinct(scores: Sequence[Score], name: str) -> Sequence[Any]:
    """Return one field of each score, but a single value where the store knows that all have the same."""
    return scores.parsed(name) if isinstance(scores, ScoreColumns) else column(scores, name)


def noted(scores: Sequence[Score], key: str, value: str) -> bool:
    """Tell whether any score carries a note; where no such text stands in the column, it is not parsed."""
    text = f"{json.dumps(key)}:{json.dumps(value)}".encode()
    if isinstance(scores, ScoreColumns) and not scores.holds("notes", text):
        return False
    return any(notes.get(key) == value for notes in distinct(scores, "notes"))


def mentioned(scores: Sequence[Score], keys: Sequence[str]) -> bool:
    """Tell whether any score may carry a note of these keys; a column that is not parsed may name one elsewhere."""
    if isinstance(scores, ScoreColumns):
        return any(scores.holds("notes", json.dumps(key).encode()) for key in keys)
    return any(key in score.notes for score in scores for key in keys)


def noted_as(scores: Sequence[Score], key: str) -> tuple[object, ...]:
    """Return what a note says of each score, None where it says nothing."""
    if isinstance(scores, ScoreColumns):
        return scores.noted_as(key)
    return tuple(score.notes.get(key) for score in scores)


class ScoreColumns(Sequence[Score]):
    """The scores of a stored result: their columns as `records.columns_text` writes them, and their file.

    To another process only the name of the file is sent, where `where` is a path: most of the columns are texts, which
    only pages show. There they are read again when they are asked for.
    """

    def __init__(self, written: bytes, where: object) -> None:
        vars(self)["_written"], self._where = written, where

    def __getstate__(self) -> Json:
        if not isinstance(self._where, Path):
            return vars(self)
        return {"_where": self._where, "_crc": self._crc}

    @cached_property
    def _crc(self) -> int:
        return zlib.crc32(self._written)

    @cached_property
    def _written(self) -> bytes:
        """The columns, read again.

        Raises:
            M3Error: they are others now.
        """
        path = Path(str(self._where))
        with contextlib.suppress(OSError, Damaged, KeyError):
            name = "/".join((*path.parts[-3:-1], path.stem))
            found = unsealed(path.read_bytes(), name, bare=True, columns="scores")["scores"]
            if isinstance(found, bytes) and zlib.crc32(found) == self._crc:
                return found
        raise M3Error(f"{path} changed while it was read: try again when nothing writes to it")

    def column(self, name: str) -> Sequence[Any]:
        """Return one field of each score.

        Raises:
            M3Error: this is nothing that m3 writes, though its checksum is right.
        """
        values, ids = self.parsed(name), self.parsed("id")
        if len(values) == 1:
            return [*values] * len(ids)
        if len(values) != len(ids):
            raise self._unknown(name)
        return values

    def parsed(self, name: str) -> Sequence[Any]:
        """Return one field of the scores as it is written: a single value where all have the same."""
        line = column_list(self._written, name)
        try:
            values = _shared(line, name) if name in ("id", "sample") else _parsed(line, name)
        except (ValueError, RecursionError):
            raise self._unknown(name) from None
        return values

    def noted_as(self, key: str) -> tuple[object, ...]:
        """Return what a note says of each score, None where it says nothing; raises as `column`."""
        try:
            told, n = _noted_as(column_list(self._written, "notes"), key), len(self)
        except (ValueError, RecursionError):
            raise self._unknown("notes") from None
        if len(told) not in (1, n):
            raise self._unknown("notes")
        return told if len(told) == n else told * n

    def holds(self, name: str, text: bytes) -> bool:
        """Tell whether a text stands in a column as it is written."""
        return text in self._written and text in column_list(self._written, name)

    def _unknown(self, name: str) -> M3Error:
        return M3Error(f"{self._where} holds scores that m3 does not write ({name}): remove it, and it is made again")

    def __len__(self) -> int:
        return len(self.parsed("id"))

    def __iter__(self) -> Iterator[Score]:
        fields = zip(*(self.column(name) for name in _KINDS), strict=True)
        return (Score(**dict(zip(_KINDS, values, strict=True))) for values in fields)

    @overload
    def __getitem__(self, at: int) -> Score: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Score]: ...
    def __getitem__(self, at: int | slice) -> Score | Sequence[Score]:
        return tuple(self)[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)


def _parsed(line: bytes, name: str) -> list[Any]:
    from pydantic_core import from_json  # slow to import, and of the records whose scores these are

    try:
        values = from_json(line)  # in a fifth of the time that Python's own takes
    except ValueError:  # half a surrogate pair, which Python's own reads
        values = json.loads(line)
    if not isinstance(values, list) or not set(map(type, values)) <= _KINDS[name]:
        raise ValueError(name)
    return values


@lru_cache(maxsize=64)
def _shared(line: bytes, name: str) -> tuple[Any, ...]:
    """Return the ids of a result, the same objects for all results of one item set: ten thousand share them."""
    return tuple(_parsed(line, name))


@lru_cache(maxsize=64)
def _noted_as(line: bytes, key: str) -> tuple[object, ...]:
    """Return what a note of this key says in a column: the notes of one item set are mostly alike in all results."""
    return tuple(notes.get(key) for notes in _parsed(line, "notes"))
