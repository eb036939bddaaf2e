"""What a run tells its user: the score of each cell as it is done, and on a terminal what is at work below that.

    12/51  20.0 [7.5, 42.2]      lm_math ties(scaling=1, retain=0.7) lambda=0.25 on gsm8k (20 items, 3.1 s)
    13/51  failed                lm_math average on gsm8k: 1 of 20 items are unscored: the engine gave no answer
    cell 14 of 51, about 3 min left, 260 of 1,020 answers, 322 tokens/s
      lm_math average lambda=0.5 on gsm8k: merging

The last two lines are written again and again, and fit the terminal. Elsewhere (a log, CI, Slurm) only the lines of
cells are printed, each one a plain line.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from rich.cells import set_cell_size

from m3_exp.amounts import about, count, counted, duration
from m3_exp.reading.shown import Escaping, beneath, escaped, length, wrapped

_PAUSE = 0.2  # seconds between two updates of a terminal
_SPARE = 3  # columns at the right: the echo of Ctrl-C must not begin a new row
_VERDICT = 20  # columns: `100.0 [100.0, 100.0]`


@dataclass
class _Work:
    """What a worker is at: cells, each since when, and the step that it takes beside generating answers."""

    cells: list[tuple[str, float]] = field(default_factory=list)
    step: str = ""
    tokens_per_second: float = 0.0

    def __str__(self) -> str:
        others = f" and {len(self.cells) - 1} more" if len(self.cells) > 1 else ""
        return ": ".join(filter(None, [f"{self.cells[0][0]}{others}" if self.cells else "", self.step]))

    def end(self, cell: str) -> float:
        """Take a cell away, and return since when it was at work."""
        since = next((begun for name, begun in self.cells if name == cell), time.monotonic())
        self.cells = [one for one in self.cells if one != (cell, since)]
        return since


class Progress:
    """Counts cells and answers over all workers, and prints. `turn` says which worker it is that does what follows.

    `total` and `done` count answers, `answers` those of them that were generated here. Use as a context manager: within
    it, what others print to the same terminal stands above the live lines.
    """

    def __init__(self, cells: int = 0, stream: TextIO | None = None) -> None:
        self.cells = cells
        self.cells_done = 0
        self.total = 0
        self.done = 0
        self.tokens = 0
        self.answers = 0
        self._work: dict[str, _Work] = {}
        self._turn = ""
        self._screen = Screen(stream or sys.stderr)
        self._lock = threading.RLock()
        self._open = False
        self._start = self._last = time.monotonic()

    def __enter__(self) -> "Progress":
        self._open = True
        self._start = time.monotonic()
        for stream in self._neighbours():
            stream.above = _Above(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it is after the last line of a cell."""
        for stream in self._neighbours():
            stream.above = None
        with self._lock:
            self._open = False
            self._screen.write()

    def turn(self, worker: str) -> None:
        """Say which worker does what follows."""
        self._turn = worker

    def begin(self, cell: str) -> None:
        """Say which cell the worker is at now, beside those that it has begun before."""
        with self._lock:
            mine = self._mine()
            mine.cells.append((cell, time.monotonic()))
            mine.step = ""
            self._update(force=True)

    def doing(self, step: str) -> None:
        """Say what the worker does before the next answer of its cell."""
        with self._lock:
            self._mine().step = step
            self._update()

    def rest(self, *, wholly: bool = True) -> None:
        """Say that the worker works no more; not `wholly`: unless it is at a cell yet."""
        with self._lock:
            if wholly or not self._mine().cells:
                self._work.pop(self._turn, None)

    def flow(self, tokens_per_second: float) -> None:
        """Show the speed that an engine reports of the batch that it works on, until it reports another."""
        with self._lock:
            self._mine().tokens_per_second = tokens_per_second
            self._update()

    def expect(self, answers: int) -> None:
        """Count answers to come."""
        with self._lock:
            self.total += answers

    def cached(self, answers: int) -> None:
        """Count answers that were there already."""
        with self._lock:
            self.done += answers
            self._mine().step = ""

    def generated(self, tokens: int) -> None:
        """Count one finished answer."""
        with self._lock:
            self.done += 1
            self.answers += 1
            self.tokens += tokens
            self._mine().step = ""
            self._update()

    def scored(self, cell: str, figure: str, items: int, said: str = "") -> None:
        """Print the line of a cell that is done; `figure`: its score with the interval. `said`: what follows it."""
        with self._lock:
            took = duration(time.monotonic() - self._mine().end(cell))
            self._finished(f"{figure:{_VERDICT}}", f"{cell} ({counted(items, 'item')}, {took}){said}")

    def failed(self, cell: str, reason: str) -> None:
        """Print the line of a cell that has no complete result."""
        with self._lock:
            self._mine().end(cell)
            self._finished(f"{'failed':{_VERDICT}}", f"{cell}: {reason}")

    def say(self, text: str) -> None:
        """Print lines of their own (what was there already, a restart)."""
        with self._lock:
            self._screen.write(self._lines(), text.split("\n"))

    def rate(self) -> float:
        """Tokens a second since the first one was asked for, merging and starting engines included."""
        return self.tokens / max(time.monotonic() - self._start, 1e-9)

    def left(self) -> float | None:
        """Return the seconds that are left at the pace so far; None before the first answer."""
        elapsed = time.monotonic() - self._start
        return max(0, self.total - self.done) * elapsed / self.answers if self.answers else None

    def speed(self) -> float:
        """Return the tokens a second that the engines report; without a report, the mean so far."""
        with self._lock:
            return sum(one.tokens_per_second for one in self._work.values()) or self.rate()

    def at_work(self) -> tuple[str, ...]:
        """Return what each worker is at."""
        with self._lock:
            return tuple(filter(None, map(str, self._work.values())))

    def _mine(self) -> _Work:
        return self._work.setdefault(self._turn, _Work())

    def _finished(self, verdict: str, what: str) -> None:
        self.cells_done += 1
        self._mine().step = ""
        number, cells = count(self.cells_done), count(self.cells)
        self._screen.write(self._lines(), [what], f"{number:>{len(cells)}}/{cells}  {verdict}  ")

    def _lines(self) -> list[str]:
        """Return the live lines; none where nothing is at work. What comes first is left out last."""
        if not self._open:
            return []
        left = self.left()
        facts = [
            f"cell {count(min(self.cells_done + 1, self.cells))} of {count(self.cells)}",
            *([] if left is None else [f"{about(left)} left"]),
            f"{count(self.done)} of {counted(self.total, 'answer')}",
            *([f"{count(self.speed())} tokens/s"] if self.answers else []),
        ]
        while len(facts) > 1 and len(", ".join(facts)) > self._screen.width:
            facts.pop()
        return [", ".join(facts), *(f"  {one}" for one in self.at_work())]

    def _neighbours(self) -> list[Escaping]:
        """Return the streams that others print on, and that are the terminal of the live lines."""
        streams = (sys.stdout, sys.stderr) if self._screen.live else ()
        return [stream for stream in streams if isinstance(stream, Escaping) and stream.isatty()]

    def _update(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._screen.live and (force or now - self._last >= _PAUSE):
            self._last = now
            self._screen.write(self._lines())


class Screen:
    """A stream whose last lines are written anew while it is a terminal that can do so (`live`).

    A terminal that becomes narrower folds a line that is too long for it, as tmux and most windows do: all its rows
    are cleared. Only three codes are used: carriage return, cursor up, and clear to the end.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = beneath(stream)
        self._shown: list[str] = []
        self.live = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def write(self, lines: Sequence[str] = (), above: Sequence[str] = (), head: str = "") -> None:
        """Show the live lines in place of those that were there, and above them lines that stay, after a `head`."""
        above = [head + self._spelled(line) for line in above]
        if not self.live:
            print(*above, sep="\n", end="\n" if above else "", file=self._stream, flush=True)
            return
        columns, rows = self._size()
        cleared = self._cleared(columns)
        self._shown = [_cut(self._spelled(line), self.width) for line in lines[: max(1, rows - 2)]]
        folded = [row for line in above for row in _folded(line, columns - 1, len(head))]
        text = "".join(f"{row}\n" for row in folded) + "\n".join(self._shown)
        print(cleared + text, end="", file=self._stream, flush=True)

    @property
    def width(self) -> int:
        """How long a live line may be."""
        return self._size()[0] - _SPARE

    def _cleared(self, columns: int) -> str:
        """Return what clears the live lines: the cursor is at the end of the last one."""
        if not self._shown:
            return ""
        rows = sum(max(1, math.ceil(length(line) / columns)) for line in self._shown)
        return "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "") + "\x1b[J"

    def _size(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            columns = rows = 0
        return max(columns or 80, 2 * _SPARE), rows or 24

    def _spelled(self, line: str) -> str:
        encoding = self._stream.encoding or "utf-8"
        return escaped(line).encode(encoding, "backslashreplace").decode(encoding)


class _Above:
    """Takes what others print while the live lines stand, and prints its whole lines above them.

    Of a line that is begun again and again, as progress bars do, only the last is printed.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begun = ""

    def __call__(self, text: str) -> None:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._progress.say(line.rpartition("\r")[2])


def _folded(line: str, width: int, head: int) -> list[str]:
    """Return a line in rows: what is behind its head stays there, if there is room."""
    if length(line) <= width:
        return [line]
    if head > width // 2:
        return wrapped(line, width, 4)
    first, *rest = wrapped(line[head:], width - head, 0 if head else 4)
    return [line[:head] + first, *(" " * head + row for row in rest)]


def _cut(text: str, width: int) -> str:
    """Return a text that fits a width: of a longer one the beginning and the end."""
    if length(text) <= width:
        return text
    end = (width - 3) // 2
    return f"{set_cell_size(text, width - 3 - end)}...{set_cell_size(text[::-1], end)[::-1]}"
