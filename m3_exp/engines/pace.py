"""The pace of a batch engine: when each of its answers is there, and how long answers are.

All answers in flight advance together, a token a step; a step lasts the longer, the more are in flight. A rehearsal
waits for these times, and `m3 plan node=...` adds them up.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Generic, TypeVar

from m3_exp.types import Pace

T = TypeVar("T")
USUAL = 300  # tokens of an answer that may be longer: assumed
SPREAD = 0.6  # of the logarithm of answers' lengths: assumed
Step = Callable[[int], float]  # answers in flight -> seconds in which each of them gets a token
_SIMULATED = 8192  # answers
_DRAWS = 64  # of few answers' lengths, whose longest one decides


@dataclass(frozen=True)
class Lengths:
    """The law of answers' lengths in tokens: lognormal with this mean, before it is cut at a benchmark's max_tokens.

    `spread` is the standard deviation of the logarithm.
    """

    mean: float = USUAL
    spread: float = SPREAD

    def at(self, quantile: float, limit: int) -> int:
        """Return the length at a quantile (0 < quantile < 1), at least 1 and at most `limit`."""
        drawn = self.mean * math.exp(self.spread * NormalDist().inv_cdf(quantile) - self.spread**2 / 2)
        return max(1, min(limit, round(drawn)))

    def drawn(self, answers: int, limit: int, seed: int) -> list[int]:
        """Draw the lengths of so many answers."""
        chance = random.Random(seed)
        return [self.at(chance.random() or 0.5, limit) for _ in range(answers)]


def law(pace: Pace) -> Lengths:
    """Return the law of a rehearsal's made-up answers."""
    return Lengths(pace.length or USUAL, pace.spread)


def step(pace: Pace) -> Step:
    """Return the step of a paced engine: from `latency` for one answer to what its full rate says for all of them."""
    assert pace.tokens_per_second is not None
    full, alone = pace.sequences / pace.tokens_per_second, pace.latency or 1 / pace.tokens_per_second
    slope = (full - alone) / (pace.sequences - 1) if pace.sequences > 1 else 0.0
    return lambda running: alone + slope * (running - 1)


class Flight(Generic[T]):
    """Answers that a batch engine writes, of which more may come at any time. `now` is in seconds of that engine."""

    def __init__(self, sequences: int, step: Step) -> None:
        self._sequences, self._step = sequences, step
        self._waiting: deque[tuple[int, T]] = deque()
        self._running: list[tuple[float, int, T]] = []  # by the tokens that `_grown` has when it is whole
        self._now = self._grown = 0.0  # `_grown`: the tokens that an answer has which is in flight since the beginning
        self._added = 0

    def add(self, length: int, what: T, now: float) -> None:
        """Ask for an answer of so many tokens."""
        if self._running:
            self._grown += max(0.0, now - self._now) / self._step(len(self._running))
        self._now = max(now, self._now)
        self._waiting.append((length, what))
        self._fill()

    @property
    def due(self) -> float | None:
        """When the next answer is whole; None where none is in flight."""
        if not self._running:
            return None
        return self._now + (self._running[0][0] - self._grown) * self._step(len(self._running))

    def pop(self) -> T:
        """Return the answer that is whole when the time is `due`."""
        due = self.due
        assert due is not None
        self._now = due
        self._grown, _, what = heapq.heappop(self._running)
        self._fill()
        return what

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._sequences:
            length, what = self._waiting.popleft()
            self._added += 1
            heapq.heappush(self._running, (self._grown + length, self._added, what))


def finishes(lengths: Sequence[int], sequences: int, step: Step) -> Iterator[tuple[float, int]]:
    """Give the number of each answer with the seconds at which it is whole, in that order.

    Args:
        lengths: of the answers in tokens, in the order in which they are asked.
        sequences: how many are in flight at most; the next one begins when another is whole.
    """
    flight = Flight[int](sequences, step)
    for number, length in enumerate(lengths):
        flight.add(length, number, 0.0)
    while (seconds := flight.due) is not None:
        yield seconds, flight.pop()


def flight_seconds(asked: Sequence[tuple[int, int]], lengths: Lengths, sequences: int, step: Step) -> float:
    """Return how long an engine takes on average for answers that are in flight together.

    Args:
        asked: of each benchmark, in their order, how many answers, and the limit of each in tokens.
    """
    answers = sum(number for number, _ in asked)
    if not answers:
        return 0.0
    share = min(1.0, _SIMULATED / answers)  # of more answers, the others are taken at the steady rate
    simulated = [(math.ceil(number * share), limit) for number, limit in asked]
    count = sum(number for number, _ in simulated)
    seconds = tokens = 0.0
    draws = max(1, min(_DRAWS, _SIMULATED // count))
    for seed in range(draws):
        drawn = [
            length
            for which, (number, limit) in enumerate(simulated)
            for length in lengths.drawn(number, limit, draws * which + seed)
        ]
        tokens += sum(drawn) / (draws * count)
        seconds += max(end for end, _ in finishes(drawn, sequences, step)) / draws
    return seconds + (answers - count) * tokens * step(sequences) / sequences
