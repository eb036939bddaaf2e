"""Calibration text: `lab` (the text that the lab ships), or a file: .txt, or .jsonl with a "text" on each line.

A .txt is one document, a line of .jsonl another. Documents are turned into token ids as the tokenizer does it, with its
EOS after each, joined, and cut into pieces of equal length. Of those, as many as are wanted are taken, evenly spread.
"""

import functools
from pathlib import Path
from typing import Any

from blake3 import blake3

import m3_exp
from m3_exp.reading.files import MIB, lines, parse_json, read_text
from m3_exp.types import M3Error

LAB = "lab"
_LAB_FILE = Path(m3_exp.__path__[0], "lab", "calibration.jsonl")
_LARGEST = 256 * MIB
_SUFFIXES = (".txt", ".jsonl")
_FORMS = f'"{LAB}", or the path of a .txt or .jsonl file (a line: {{"text": "..."}})'


def documents(text: str) -> tuple[str, ...]:
    """Return the documents of a calibration text, given as `lab` or a path.

    Raises:
        M3Error: there is no such file, or it holds no text.
    """
    path = _path(text)
    stat = path.stat() if path.is_file() else None
    return _documents(path, stat and (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


def digest(text: str) -> str:
    """Return the identity of a calibration text by its content (64 hex digits); raises as `documents`."""
    hashed = blake3()
    for document in documents(text):
        data = document.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()


def sequences(text: str, tokenizer: Any, count: int, length: int) -> list[list[int]]:
    """Return `count` sequences of `length` token ids.

    Raises:
        M3Error: the text has fewer; as `documents`.
    """
    ids: list[int] = []
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    for document in documents(text):
        found = [int(token) for token in tokenizer(document, verbose=False)["input_ids"]]
        ids += found if found[-1:] == end else [*found, *end]
    pieces = len(ids) // length
    if pieces < count:
        raise M3Error(
            f"method.text={text} gives {pieces} sequences of {length} tokens, method.sequences={count} asks for more: "
            "give a longer text, or a smaller method.sequences or method.length"
        )
    starts = [length * (number * pieces // count) for number in range(count)]
    return [ids[start : start + length] for start in starts]


def _path(text: str) -> Path:
    if text == LAB:
        return _LAB_FILE
    path = Path(text)
    if path.suffix not in _SUFFIXES:
        raise M3Error(f"method.text={text} is no calibration text: give {_FORMS}")
    return path


@functools.lru_cache(maxsize=16)
def _documents(path: Path, _stamp: tuple[int, int, int] | None) -> tuple[str, ...]:
    whole = read_text(path, _LARGEST)
    if path.suffix == ".txt":
        found = (whole,) if whole.strip() else ()
    else:
        rows = [(f"{path}:{number}", parse_json(line, f"{path}:{number}")) for number, line in lines(whole)]
        if wrong := next((where for where, row in rows if not isinstance(row.get("text"), str)), None):
            raise M3Error(f'{wrong} has no "text" that is a text: a line of calibration text is {{"text": "..."}}')
        found = tuple(row["text"] for _, row in rows if row["text"].strip())
    if not found:
        raise M3Error(f"{path} holds no text to measure on: give a file with some")
    return found
