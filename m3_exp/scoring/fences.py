"""Fenced code blocks of a text, by Markdown's rule (CommonMark 4.5), for text that a model wrote.

A fence is three or more ` or ~ at the start of a line, after blanks or a list marker; it ends at a line with as many of
them and no word. Beyond the rule: a line inside a triple-quoted string of the block does not end it where a later
line does, so that a docstring may hold fences of its own.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_LINE = re.compile(r"(?P<indent>[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)(?P<marks>`{3,}|~{3,})\s*(?P<info>[^`]*)")
_PYTHON = re.compile(r"\{?\.?(?:i?py(?:thon)?[\d.]*)?\}?", re.IGNORECASE)
_INFO = re.compile(r"[\w{.]")  # how the text after an opening fence begins; a closing one may be followed by <|im_end|>
_TOKEN = re.compile(r'\\.|"""|\'\'\'|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|#.*')
_INSIDE = {quote: re.compile(rf"\\.|{quote}") for quote in ('"""', "'''")}
_LONGEST = 10_000  # characters of a line in which strings are looked for


@dataclass(frozen=True)
class Fence:
    """One block: its language as written, its lines without the fence's indentation.

    `start` and `end` count lines from 0: that of the opening fence, and the one after the block's last.
    """

    language: str
    body: str
    start: int
    end: int

    @property
    def is_python(self) -> bool:
        """Whether it is marked as Python, or not marked at all."""
        return _PYTHON.fullmatch(self.language) is not None


def fences(text: str) -> tuple[Fence, ...]:
    """Return the fenced blocks of a text in their order; the last may be open to the end."""
    return tuple(_fences(text.split("\n")))


def _fences(lines: Sequence[str]) -> Iterator[Fence]:
    number = 0
    while number < len(lines):
        opening = _LINE.fullmatch(lines[number].rstrip())
        if opening is None:
            number += 1
            continue
        stop = _end(lines, number + 1, opening)
        indent = len(opening["indent"])
        body = "\n".join(line[min(indent, len(line) - len(line.lstrip(" \t"))) :] for line in lines[number + 1 : stop])
        yield Fence(re.split(r"[\s,:;(]", opening["info"])[0], body, number, stop)
        number = stop + 1


def _end(lines: Sequence[str], start: int, opening: re.Match[str]) -> int:
    """Return the number of the line that closes a fence: the first outside a string, else the first, else the end."""
    first, quote = None, ""
    for number in range(start, len(lines)):
        line = lines[number]
        mark = _LINE.fullmatch(line.rstrip()) if line.lstrip().startswith(opening["marks"]) else None
        if mark and not _INFO.match(mark["info"]) and len(mark["indent"]) <= len(opening["indent"]) + 3:
            if not quote:
                return number
            first = number if first is None else first
        quote = _open_quote(line, quote)
    return len(lines) if first is None else first


def _open_quote(line: str, quote: str) -> str:
    """Return the triple quote that is open after a line of Python, given that before it; "" for none."""
    at = 0
    while len(line) <= _LONGEST and (token := (_INSIDE[quote] if quote else _TOKEN).search(line, at)):
        at = token.end()
        if token[0] in _INSIDE:
            quote = "" if quote else token[0]
    return quote
