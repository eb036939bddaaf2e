"""Files that a user gives, read once and with limits: bytes, text, lines and JSON, or one line of what is wrong.

    read_json(path, kind=dict)      a JSON object (or array, or anything) of a file
    read_text(path), lines(text)    UTF-8 with or without a byte order mark; lines end at \n alone
    parse_json(text, where)         the same rules for a line or a field
    cannot_read(path, error)        an OSError in words: a missing permission is not called damage

What is larger than its limit is refused by name. What a value means is not looked at here (`typed.py` does).
"""

import errno
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m3_exp.types import M3Error

MIB = 1 << 20
TEXT = 4096 * MIB  # bytes of items or answers, unpacked
CONFIG = 64 * MIB  # bytes of a configuration or an index
DEPTH = 64  # of nested JSON
_RATIO = 100  # unpacked bytes for a packed one, beyond which ...
_FREE = 64 * MIB  # ... and this many a gzip file is taken for a bomb (JSON packs to a twentieth)


def cannot_read(path: Path, error: OSError) -> M3Error:
    """Return why the operating system does not give a file, in the system's own words."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return M3Error(f"{path}: permission denied: this user may not read it; ask its owner for read access (chmod)")
    if error.errno == errno.EISDIR:
        return M3Error(f"{path} is a directory, a file is needed")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return M3Error(f"{path} does not exist: check its spelling")
    if error.errno == errno.ENAMETOOLONG:
        return M3Error(f"{str(path)[:60]}... is too long for the name of a file: give a shorter one")
    return M3Error(f"{path} cannot be read: {error.strerror or error}")


def exists(path: Path) -> bool:
    """Tell whether there is a file or folder of a name. A name that no file can have counts as absent.

    Raises:
        M3Error: a folder on the way may not be looked into.
    """
    try:
        path.stat()
    except PermissionError as error:
        raise cannot_read(path, error) from error
    except (OSError, ValueError):  # absent, too long, a NUL or a lone surrogate in it
        return False
    return True


def read_bytes(path: Path, limit: int = TEXT) -> bytes:
    """Return a file's bytes, at most `limit`.

    Raises:
        M3Error: it cannot be read, or is larger.
    """
    try:
        if path.exists() and not path.is_file():
            raise M3Error(f"{path} is not a regular file: give one")  # a pipe would wait for ever
        with open(path, "rb") as file:
            data = file.read() if os.fstat(file.fileno()).st_size <= limit else None
    except OSError as error:
        raise cannot_read(path, error) from error
    except ValueError as error:  # a NUL in the name
        raise M3Error(f"{str(path)!r} is not the name of a file ({error})") from error
    if data is None or len(data) > limit:
        raise M3Error(f"{path} is larger than {limit // MIB} MiB: that is not such a file")
    return data


def unzipped(path: Path, data: bytes, limit: int = TEXT) -> bytes:
    """Return what gzip bytes hold, all members joined.

    Raises:
        M3Error: they are damaged, or unpack to more than `limit`, or to so much more than their size that it is a bomb.
    """
    most = min(limit, max(_FREE, _RATIO * len(data)))
    try:
        unpacked = gzip.GzipFile(fileobj=io.BytesIO(data)).read(most + 1)
    except EOFError as error:
        raise M3Error(f"{path} is cut short: fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise M3Error(f"{path} is not a readable gzip file ({error}): fetch it again") from error
    if len(unpacked) > most:
        raise M3Error(f"{path} unpacks to more than {most // MIB} MiB: that is no file of items")
    return unpacked


def read_text(path: Path, limit: int = TEXT) -> str:
    """Return a UTF-8 file's text (unpacked, where its name ends in .gz), without a byte order mark.

    Raises:
        M3Error: it cannot be read, or is not UTF-8.
    """
    data = read_bytes(path, limit)
    return decoded(unzipped(path, data, limit) if path.suffix == ".gz" else data, path)


def decoded(data: bytes, where: object) -> str:
    """Return UTF-8 bytes as text, without a byte order mark.

    Raises:
        M3Error: they are not UTF-8; the line is named.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        kind = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding"
        raise M3Error(f"{where}:{line} is not UTF-8 but {kind}: save it as UTF-8") from error


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Give the lines of a text that are not blank, numbered from 1.

    Only \\n ends a line: JSON may hold U+2028, U+0085 and their like within a text.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def read_json(path: Path, kind: type[Any] = dict, limit: int = CONFIG) -> Any:
    """Return the JSON value of a file, which must be of type `kind` (`object`: any type).

    Raises:
        M3Error: it cannot be read, is not JSON, or is of another type.
    """
    return parse_json(read_text(path, limit), path, kind)


def parse_json(text: str | bytes, where: object, kind: type[Any] = dict) -> Any:
    """Return a JSON value, which must be of type `kind` (`object`: any type); `where` names it in errors.

    Raises:
        M3Error: it is not JSON, nested deeper than 64, holds half a surrogate pair, or is of another type.
    """
    if isinstance(text, bytes):
        text = decoded(text, where)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise M3Error(f"{where} is not valid JSON ({error.msg}, {place}): correct it, or fetch it again") from error
    except (ValueError, RecursionError) as error:  # a number of over 4,300 digits; brackets without end
        reason = "nested too deep" if isinstance(error, RecursionError) else "a number of too many digits"
        raise M3Error(f"{where} is not usable JSON ({reason}): correct it, or fetch it again") from None
    if not isinstance(value, kind):
        raise M3Error(f"{where} holds {kind_of(value)}, {_KINDS.get(kind, kind.__name__)} is needed")
    if _nested(value):
        raise M3Error(f"{where} is nested deeper than {DEPTH}: that is not such a file")
    if "\\ud" in text.lower():
        check_unicode(text if isinstance(value, str) else json.dumps(value, ensure_ascii=False), where)
    return value


def check_unicode(text: str, where: object) -> None:
    """Refuse a text that no file could hold.

    Raises:
        M3Error: it holds half a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        sign = f"\\u{ord(text[error.start]):04x}"
        raise M3Error(f"{where} holds {sign}, half of a surrogate pair, which is no character: correct it") from None


def check_finite(value: object, where: object) -> None:
    """Refuse a value that canonical JSON cannot hold.

    Raises:
        M3Error: it holds NaN or infinity, or something that is no JSON at all.
    """
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError) as error:
        said = "NaN or infinity" if isinstance(error, ValueError) else f"what JSON cannot ({error})"
        raise M3Error(f"{where} holds {said}: give null, or a text") from None


_KINDS = {dict: "an object", list: "an array", str: "a text", int: "a whole number"}


def kind_of(value: object) -> str:
    """Return what a JSON value is, in words: "an object", "the number 3"."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"the number {str(value)[:40]}"
    return f"the text {value[:40]!r}" if isinstance(value, str) else _KINDS.get(type(value), type(value).__name__)


def _nested(value: object, most: int = DEPTH) -> bool:
    """Tell whether more than `most` arrays and objects lie within one another in a JSON value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(isinstance(item, dict | list) and (not most or _nested(item, most - 1)) for item in inner)
