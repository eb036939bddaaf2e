"""Records that carry their own checksum. One that does not match is named on stderr, set aside, and counts as absent.

    sealed('{"a":1}', "results/k")              -> b'{"checksum":"0f3e...","a":1}\n'
    unsealed(data, "results/k")                 -> {"a": 1}, or Damaged
    sealed(with_columns('{"a":1}', "scores", '{"id":["1"]}'), "results/k")      -> a record with a line for each column
    unsealed(data, "results/k", columns="scores")     -> {"a": 1, "scores": b'{"id":["1"]}'}: columns stay unparsed
    column_list(b'{"id":["1"]}', "id")          -> b'["1"]'
    read_record(path, "results/k", quarantine)  -> {"a": 1}, or None

The checksum (64 bits of a sha256) covers the record's name as well, so a record under another's name is damaged.
"""

import contextlib
import functools
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

from m3_exp.reading.files import cannot_read
from m3_exp.reading.shown import escaped
from m3_exp.types import Json

_HEAD = b'{"checksum":"'
_END = len(_HEAD) + 16  # of the checksum


class Damaged(Exception):
    """Bytes that are not the record that was written; the message says how that was noticed."""


def sealed(body: str, name: str) -> bytes:
    """Return a JSON object, written without spaces, as a line with its checksum in front."""
    rest = body[1:].encode()
    rest = rest if rest == b"}" else b"," + rest
    return _HEAD + _checksum(rest, name) + b'"' + rest + b"\n"


def columns_text(lists: Mapping[str, str]) -> str:
    """Return JSON lists by name as one JSON object, a line each."""
    return "{" + ",\n".join(f"{json.dumps(name)}:{values}" for name, values in lists.items()) + "}"


def with_columns(body: str, key: str, columns: str) -> str:
    """Return a JSON object with `columns_text` under `key`, its last one: still one JSON object."""
    return f"{body[:-1]},\n{json.dumps(key)}:{columns}}}"


def column_list(columns: bytes, name: str) -> bytes:
    """Return the JSON list of a column, as `with_columns` wrote it: a line break stands nowhere else; b"" of none."""
    head = f"{json.dumps(name)}:".encode()
    if columns.startswith(head, 1):
        begin = 1
    elif (before := columns.find(b",\n" + head)) >= 0:
        begin = before + 2
    else:
        return b""
    end = columns.find(b",\n", begin)
    return columns[begin + len(head) : end if end >= 0 else len(columns) - 1]


def _split(data: bytes, begin: int, end: int, key: str) -> tuple[bytes, bytes]:
    """Return a record (the bytes from `begin` to `end`) without its columns, and these; none where it has none."""
    before = f",\n{json.dumps(key)}:".encode()
    at = data.find(before + b"{", begin, end) if key else -1
    if at < 0:
        return data[begin:end], b""
    return data[begin:at] + b"}", data[at + len(before) : end].rstrip()[:-1]


def unsealed(data: bytes, name: str, *, bare: bool = False, columns: str = "") -> Json:
    """Return a record without its checksum. `bare` also accepts what was written before records had checksums.

    What `with_columns` put under the key `columns` is there as the bytes that it was written as.

    Raises:
        Damaged: the checksum is missing or does not match, or this is no JSON object.
    """
    whole = data.startswith(_HEAD)
    begin, end = (_END + 1, len(data) - data.endswith(b"\n")) if whole else (0, len(data))
    if whole and data[len(_HEAD) : begin] != _checksum(memoryview(data)[begin:end], name) + b'"':
        raise Damaged("its checksum does not match")
    body, lists = _split(data, begin, end, columns)
    try:
        value = json.loads(b"{" + body.removeprefix(b",") if whole else body)
    except (ValueError, RecursionError):
        raise Damaged("it is not JSON") from None
    if not isinstance(value, dict):
        raise Damaged("it is no JSON object")
    if not whole and (not bare or "checksum" in value):
        raise Damaged("its checksum does not match" if "checksum" in value else "it has no checksum")
    return {**value, columns: lists} if lists else value


def read_record(path: Path, name: str, quarantine: Path, *, bare: bool = False, columns: str = "") -> Json | None:
    """Return the record of a file, as `unsealed` does. A damaged one is named, set aside, and counts as absent: None.

    Raises:
        M3Error: this user may not read it.
    """
    try:
        return unsealed(path.read_bytes(), name, bare=bare, columns=columns)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_read(path, error) from error
    except Damaged as damage:
        set_aside(path, name, str(damage), quarantine)
        return None


_looking: ContextVar[bool] = ContextVar("m3_looking", default=False)


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Leave damaged files where they are within the context, in this thread: they are only named."""
    token = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(token)


def is_untouched() -> bool:
    """Tell whether damaged files are to stay where they are."""
    return _looking.get()


def set_aside(path: Path, name: str, damage: str, quarantine: Path) -> None:
    """Move a damaged file into `quarantine` and say so. Where that is not allowed it stays, named and unused."""
    if is_untouched():
        say(f"{path} is damaged ({damage}): it is not used")
        return
    place = quarantine / f"{name.replace('/', '-')}-{secrets.token_hex(4)}{path.suffix}"
    try:
        quarantine.mkdir(parents=True, exist_ok=True)
        os.rename(path, place)
    except FileNotFoundError:
        return  # another process has set it aside
    except OSError:
        say(f"{path} is damaged ({damage}): it is not used, but cannot be moved away; remove it")
    else:
        say(f"{path} is damaged ({damage}): set aside as {place}, and made again where it is needed")


@functools.cache
def say(line: str) -> None:
    """Print a line on stderr, once in a process, escaped."""
    with contextlib.suppress(OSError, ValueError):  # stderr is closed
        print(f"m3: {escaped(line)}", file=sys.stderr, flush=True)


def _checksum(rest: bytes | memoryview, name: str) -> bytes:
    digest = hashlib.sha256(name.encode() + b"\n")
    digest.update(rest)
    return digest.hexdigest()[:16].encode()
