"""What a long run tells its user: what is running, items done, tokens a second, time left.

On a terminal one line that rewrites itself; elsewhere (a log, CI, Slurm) a plain line every `EVERY` seconds.
"""

import sys
import threading
import time
from typing import TextIO

from m3_exp.reading.shown import beneath, escaped

EVERY = 15.0


class Progress:
    """Counts items over all workers and prints. Safe to call from several threads."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self.total = total
        self.done = 0
        self.tokens = 0
        self.answers = 0
        self._running: dict[int, str] = {}
        self._flows: dict[int, float] = {}
        self._stream = beneath(stream or sys.stderr)
        self._live = self._stream.isatty()
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._last = self._start

    def running(self, what: str) -> None:
        """Say what this thread works on now."""
        with self._lock:
            self._running[threading.get_ident()] = what
            self._print(force=not self._live)

    def flow(self, tokens_per_second: float) -> None:
        """Show the speed that an engine reports of the batch that it works on, until it reports another."""
        with self._lock:
            self._flows[threading.get_ident()] = tokens_per_second
            self._print()

    def expect(self, items: int) -> None:
        """Count items that nobody knew of before the work began."""
        with self._lock:
            self.total += items

    def cached(self, items: int) -> None:
        """Count items that were there already."""
        with self._lock:
            self.done += items

    def generated(self, tokens: int) -> None:
        """Count one finished answer."""
        with self._lock:
            self.done += 1
            self.answers += 1
            self.tokens += tokens
            self._print()

    def say(self, line: str) -> None:
        """Print a line of its own (a failure, a restart)."""
        with self._lock:
            if self._live:
                print("\r\x1b[2K", end="", file=self._stream)
            print(escaped(line, "\n"), file=self._stream, flush=True)

    def finish(self) -> None:
        with self._lock:
            self._print(force=True)
            if self._live:
                print(file=self._stream, flush=True)

    def rate(self) -> float:
        """Tokens a second since the first one was asked for, merging and starting engines included."""
        return self.tokens / max(time.monotonic() - self._start, 1e-9)

    def left(self) -> float | None:
        """Return the seconds that are left at the pace so far; None before the first answer."""
        elapsed = time.monotonic() - self._start
        return max(0, self.total - self.done) * elapsed / self.answers if self.answers else None

    def speed(self) -> float:
        """Return the tokens a second that the engines report; without a report, the mean so far."""
        return sum(list(self._flows.values())) or self.rate()

    def doing(self) -> tuple[str, ...]:
        """Return what each thread works on."""
        with self._lock:
            return tuple(self._running.values())

    def line(self) -> str:
        text = f"{self.done}/{self.total} items"
        left = self.left()
        if left is not None:
            text += f", {self.speed():.0f} tokens/s, {clock(left)} left"
        return escaped(f"{text} | {'; '.join(self._running.values())}")

    def _print(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._last < (0.2 if self._live else EVERY):
            return
        self._last = now
        if self._live:
            print(f"\r\x1b[2K{self.line()[:200]}", end="", file=self._stream, flush=True)
        else:
            print(self.line(), file=self._stream, flush=True)


def clock(seconds: float) -> str:
    """Write a duration as people say it: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
