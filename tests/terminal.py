"""A terminal as a test sees it: what stands on its screen and above it, after all that was written to it.

It knows what progress lines need (return, line feed, cursor up, clear to the end) and refuses every other code. When it
becomes narrower it folds lines that are too long, and joins them again when it becomes wider, as tmux does.
"""

import contextlib
import fcntl
import os
import re
import struct
import termios
from dataclasses import dataclass, field

_CODE = re.compile(r"\x1b\[(\d*)([AJ])")


@dataclass
class Screen:
    """`rows` holds all rows that were ever written; the cursor reaches the last `height` of them. `folds` counts how
    often a text ran into the next row.
    """

    columns: int
    height: int = 24
    rows: list[str] = field(default_factory=lambda: [""])
    joined: set[int] = field(default_factory=set)  # rows that go on in the next one
    row: int = 0
    column: int = 0
    folds: int = 0

    def feed(self, text: str) -> None:
        position = 0
        while position < len(text):
            if code := _CODE.match(text, position):
                self._obey(code[2], int(code[1] or 1))
                position = code.end()
            else:
                self._put(text[position])
                position += 1

    def resize(self, columns: int) -> None:
        """Fold or join the rows to a new width; the cursor stays at its letter."""
        whole: list[str] = [""]
        for number, row in enumerate(self.rows):
            if number == self.row:
                line, offset = len(whole) - 1, len(whole[-1]) + self.column
            whole[-1] += row
            if number not in self.joined and number < len(self.rows) - 1:
                whole.append("")
        self.columns, self.rows, self.joined = columns, [], set()
        for number, text in enumerate(whole):
            parts = [text[start : start + columns] for start in range(0, len(text), columns)] or [""]
            if number == line:
                self.row = len(self.rows) + min(offset // columns, len(parts) - 1)
                self.column = offset - (self.row - len(self.rows)) * columns
            self.joined |= set(range(len(self.rows), len(self.rows) + len(parts) - 1))
            self.rows += parts

    def _obey(self, what: str, number: int) -> None:
        if what == "A":
            self.row = max(0, len(self.rows) - self.height, self.row - number)
        else:
            assert number == 1, "clears to the end"
            self.rows[self.row] = self.rows[self.row][: self.column]
            del self.rows[self.row + 1 :]
            self.joined = {row for row in self.joined if row < self.row}

    def _put(self, sign: str) -> None:
        if sign == "\r":
            self.column = 0
        elif sign == "\n":
            self._down()
        else:
            assert sign.isprintable(), repr(sign)
            if self.column == self.columns:
                self.joined.add(self.row)
                self.folds += 1
                self._down()
                self.column = 0
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + sign + row[self.column + 1 :]
            self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")


def set_size(terminal: int, columns: int, rows: int = 24) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_now(terminal: int) -> str:
    """Return what was written and not read yet."""
    os.set_blocking(terminal, False)
    said = b""
    with contextlib.suppress(OSError):  # no more for now, or for ever
        while part := os.read(terminal, 65536):
            said += part
    return said.decode()
