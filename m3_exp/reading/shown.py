"""Text that others wrote, as it is shown: what a terminal, a log or TeX would act on is escaped."""

import re
from collections.abc import Callable
from typing import Any, TextIO

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
        encoding = self._stream.encoding or "utf-8"
        write = self.above or self._stream.write
        write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    @property
    def beneath(self) -> TextIO:
        return self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def beneath(stream: TextIO) -> TextIO:
    """Return the raw stream, for code that moves the cursor itself and escapes what is not its own."""
    return stream.beneath if isinstance(stream, Escaping) else stream
