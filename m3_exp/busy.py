"""How busy an engine was: the time-mean of min(1, requests in flight / sequences at once), and where the rest went.

start     a new engine          swap      other weights          tail    fewer requests in flight than sequences at once
scoring   scores are waited for          other    all else: prompts made ready, the wait for the next weights
"""

import threading
import time
from collections.abc import Callable, Mapping

BUSY = "busy"
Seconds = Mapping[str, float]  # of an engine's time, by `BUSY` and by where the rest went


class Meter:
    """Adds up the seconds of one engine, from the first thing that it is told. Safe from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._shares: Seconds = {}  # of each second from `_since` on
        self._since = clock()
        self._seconds: dict[str, float] = {}

    def turn(self, what: str) -> None:
        """Say what the engine's time goes to from now on, as in `swap`."""
        self._turn({what: 1.0})

    def flying(self, requests: int, at_once: int) -> None:
        """Say how many requests are in flight from now on, of which the engine takes `at_once` at a time."""
        share = min(1.0, requests / at_once)
        self._turn({BUSY: share, "tail": 1.0 - share} if requests else {"other": 1.0})

    def stop(self) -> None:
        """Say that there is no engine from now on."""
        self._turn({})

    def take(self) -> dict[str, float]:
        """Return the seconds since the last call."""
        with self._lock:
            self._settle()
            taken, self._seconds = self._seconds, {}
        return taken

    def _turn(self, shares: Seconds) -> None:
        with self._lock:
            self._settle()
            self._shares = shares

    def _settle(self) -> None:
        now = self._clock()
        self._seconds = added(self._seconds, {what: s * (now - self._since) for what, s in self._shares.items()})
        self._since = now


def added(one: Seconds, other: Seconds) -> dict[str, float]:
    """Return the sum of two records, as of two engines."""
    return {what: one.get(what, 0.0) + other.get(what, 0.0) for what in {**one, **other}}


def share(seconds: Seconds) -> float:
    """Return the share of an engine's time in which it was busy."""
    total = sum(seconds.values())
    return seconds.get(BUSY, 0.0) / total if total else 0.0


def words(seconds: Seconds | None) -> str:
    """Return a record in a few words, as in `engine 93 % busy (tail 4 %, swap 2 %, other 1 %)`.

    What is below half a percent is left out; nothing is said of an engine that was never busy.
    """
    if not seconds or not seconds.get(BUSY):
        return ""
    total = sum(seconds.values())
    rest = sorted(((s / total, what) for what, s in seconds.items() if what != BUSY), reverse=True)
    shown = ", ".join(f"{what} {100 * part:.0f} %" for part, what in rest if part >= 0.005)
    return f"engine {100 * share(seconds):.0f} % busy" + (f" ({shown})" if shown else "")
