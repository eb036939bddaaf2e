"""The pace of a batch engine: when each of its answers is there, and how long answers are.

All answers in flight advance together, a token a step; a step lasts the longer, the more are in flight. A rehearsal
waits for these times, and `m3 plan node=...` adds them up.
"""

import heapq
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import NormalDist

from m3_exp.types import Pace

USUAL = 300  # tokens of an answer that may be longer: assumed
SPREAD = 0.6  # of the logarithm of answers' lengths: assumed
Step = Callable[[int], float]  # answers in flight -> seconds in which each of them gets a token
_SIMULATED = 8192  # answers; of more, the others are taken at the steady rate
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


def finishes(lengths: Sequence[int], sequences: int, step: Step) -> Iterator[tuple[float, int]]:
    """Give the number of each answer with the seconds at which it is whole, in that order.

    Args:
        lengths: of the answers in tokens, in the order in which they are asked.
        sequences: how many are in flight at most; the next one begins when another is whole.
    """
    waiting = enumerate(lengths)
    running = [(length, number) for number, length in islice(waiting, sequences)]
    heapq.heapify(running)
    seconds = grown = 0.0  # `grown`: the tokens that an answer has which is in flight since the beginning
    while running:
        end, number = running[0]
        seconds += (end - grown) * step(len(running))
        grown = end
        heapq.heappop(running)
        yield seconds, number
        for begun, length in islice(waiting, 1):
            heapq.heappush(running, (grown + length, begun))


def batch_seconds(answers: int, limit: int, lengths: Lengths, sequences: int, step: Step) -> float:
    """Return how long an engine takes on average for so many answers of one benchmark, asked together."""
    simulated = min(answers, _SIMULATED)
    if not simulated:
        return 0.0
    seconds = tokens = 0.0
    draws = max(1, min(_DRAWS, _SIMULATED // simulated))
    for seed in range(draws):
        drawn = lengths.drawn(simulated, limit, seed)
        tokens += sum(drawn) / (draws * simulated)
        seconds += max(end for end, _ in finishes(drawn, sequences, step)) / draws
    return seconds + (answers - simulated) * tokens * step(sequences) / sequences
