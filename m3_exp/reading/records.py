"""Records that carry their own checksum. One that does not match is named on stderr, set aside, and counts as absent.

    sealed('{"a":1}', "results/k")              -> b'{"checksum":"0f3e...","a":1}\n'
    unsealed(data, "results/k")                 -> {"a": 1}, or Damaged
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


def unsealed(data: bytes, name: str, *, bare: bool = False) -> Json:
    """Return a record without its checksum. `bare` also accepts what was written before records had checksums.

    Raises:
        Damaged: the checksum is missing or does not match, or this is no JSON object.
    """
    whole = data.startswith(_HEAD)
    if whole:
        rest = data[_END + 1 :].removesuffix(b"\n")
        if data[len(_HEAD) : _END + 1] != _checksum(rest, name) + b'"':
            raise Damaged("its checksum does not match")
        data = b"{" + rest.removeprefix(b",")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Damaged("it is not JSON") from None
    if not isinstance(value, dict):
        raise Damaged("it is no JSON object")
    if not whole and (not bare or "checksum" in value):
        raise Damaged("its checksum does not match" if "checksum" in value else "it has no checksum")
    return value


def read_record(path: Path, name: str, quarantine: Path, *, bare: bool = False) -> Json | None:
    """Return the record of a file, or None. A damaged record is named, set aside, and counts as absent (None).

    Raises:
        M3Error: this user may not read it.
    """
    try:
        return unsealed(path.read_bytes(), name, bare=bare)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_read(path, error) from error
    except Damaged as damage:
        set_aside(path, name, str(damage), quarantine)
        return None


def set_aside(path: Path, name: str, damage: str, quarantine: Path) -> None:
    """Move a damaged file into `quarantine` and say so. Where that is not allowed it stays, named and unused."""
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


def _checksum(rest: bytes, name: str) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + rest).hexdigest()[:16].encode()
