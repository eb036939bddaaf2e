"""Text as it is shown: what a terminal, a log or TeX would act on is escaped, and lines fit the width they have."""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from rich.cells import cell_len

_MOST = 1800  # characters of a message
_LONG = re.compile(r"\S{401,}")  # no word of a message, and few paths


def abridged(text: str) -> str:
    """Return a message; one that is too long, or has a word too long to be read, is cut to its beginning and end."""
    text = _LONG.sub(lambda match: f"{match[0][:200]}...{match[0][-100:]}", text)
    return text if len(text) <= _MOST else f"{text[: _MOST - 400]} ... {text[-390:]}"


def short(value: object, most: int) -> str:
    """Return a value as Python writes it, cut to a number of characters."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def escaped(text: str, keep: str = "") -> str:
    r"""Return text as one printable line; characters in `keep` stay as they are.

    Control characters, line ends, direction marks and half surrogates are spelled: `\x1b`, `\n`, `\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in keep else ascii(sign)[1:-1] for sign in text)


class Escaping:
    """A text stream on which only lines of printable characters can be written.

    A carriage return at the beginning of what is written is kept, because progress bars of libraries renew their line
    with it. DEL, the one such character that JSON may hold, is spelled as JSON spells it. `above`: what takes the text
    while something else is shown in the last lines of the terminal.
    """

    above: Callable[[str], None] | None = None

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        start = "\r" if text.startswith("\r") else ""
        shown = start + escaped(text.removeprefix("\r").replace("\x7f", r"\u007f"), keep="\n\t")
        self.put(shown)
        return len(text)

    def put(self, shown: str) -> None:
        """Write text that is escaped already, perhaps with codes for bold; spell letters that the stream lacks."""
        encoding = self._stream.encoding or "utf-8"
        write = self.above or self._stream.write
        write(shown.encode(encoding, "backslashreplace").decode(encoding))

    @property
    def beneath(self) -> TextIO:
        return self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def beneath(stream: TextIO) -> TextIO:
    """Return the raw stream, for code that moves the cursor itself and escapes what is not its own."""
    return stream.beneath if isinstance(stream, Escaping) else stream


# ----------------------------------------------------------------------------------------------------------- width

USUAL = 80  # columns of a terminal that does not say
_LEAST = 20  # columns: no narrower layout can be read
_STYLE = re.compile(r"\x1b\[\d*m")


def columns(stream: TextIO) -> int | None:
    """Return the width for which text on a stream is laid out; None if it is to stay whole.

    It is COLUMNS where that is set, else the width of the terminal. A file or a pipe has none.
    """
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return max(_LEAST, int(asked))
    if not beneath(stream).isatty():
        return None
    try:
        return max(_LEAST, os.get_terminal_size(stream.fileno()).columns or USUAL)
    except (OSError, ValueError):  # it says that it is a terminal, and has no size
        return USUAL


def length(text: str) -> int:
    """Return how many columns of a terminal a text takes, without codes for bold and underlined."""
    if text.isascii() and text.isprintable():
        return len(text)
    return cell_len(_STYLE.sub("", text))


def padded(text: str, width: int) -> str:
    return text + " " * (width - length(text))


def wrapped(text: str, width: int, hang: int = 0, *, cut: bool = True) -> list[str]:
    """Return a text in lines of at most `width`, broken between words; later lines are indented by `hang`.

    A longer word is broken after `_`, `/`, `,`, `.` or `-` where it has one, else anywhere. With `cut=False` it stays
    whole on a line of its own, which is then too long: a path can still be copied.
    """
    start = text[: len(text) - len(text.lstrip(" "))]
    lines, line = [], start
    for word in text.split():
        pieces = list(_pieces(word, width - max(hang, len(start)))) if cut else [word]
        for number, piece in enumerate(pieces):
            gap = " " if line.strip() and not number else ""
            if line.strip() and length(line + gap + piece) > width:
                lines.append(line)
                line, gap = " " * hang, ""
            line += gap + piece
    return [*lines, line]


_COMMAND = re.compile(r"(.*:)? *(m3 [a-z]+ [^;]*)")


def laid(line: str, width: int | None, hang: int = 2) -> list[str]:
    """Return a line of text as it is printed where there is room for `width`: whole, or continued below.

    Words stay whole. A command at its end stands below, continued after backslashes: so it can still be copied.
    """
    if width is None or length(line) <= width:
        return [line]
    found = _COMMAND.fullmatch(line)
    start, command = (found[1] or "", found[2]) if found else (line, "")
    indent = len(line) - len(line.lstrip(" "))
    parts = wrapped(start, width, indent + hang, cut=False) if start else []
    if command:
        indent += hang if start else 0
        *others, last = wrapped(" " * indent + command, width - 2, indent + 2, cut=False)
        parts += [*(f"{part} \\" for part in others), last]
    return parts


def _pieces(word: str, width: int) -> Iterator[str]:
    """Give the parts of a word, each at most `width` long."""
    if length(word) <= width:
        yield word
        return
    for part in re.findall(r".*?[_/,.-]+|.+$", word):
        while length(part) > width:
            fits = next((n for n in range(len(part), 1, -1) if length(part[:n]) <= width), 1)
            yield part[:fits]
            part = part[fits:]
        if part:
            yield part
