"""What an engine must provide: it takes weights and prompts, and gives answers or log-likelihoods.

An engine lives in a child process that can be killed; finished requests are handed over one by one, so that each can
be journalled when it is done. What crosses to it is plain data: recipes and token ids, never weights or objects.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from m3_exp.types import Answer, Likelihood, Prompt, Recipe, Sampling, Source


class EngineDied(Exception):
    """The engine's process crashed or hung and was killed; `load` starts a new one."""


@dataclass(frozen=True)
class Loaded:
    """The weights an engine holds: their digest, and what merging them reported."""

    digest: str
    seconds: float
    report: Mapping[str, object]


class Engine(Protocol):
    """A living model. `fingerprint` (name, version, dtype) is in every answer's key; `conditions` is recorded only."""

    fingerprint: Mapping[str, str]
    conditions: Mapping[str, object]
    on_progress: Callable[[int, int, float], None] | None  # (done, total, tokens a second), about once a second

    def load(self, recipe: Recipe) -> Loaded:
        """Merge a recipe's weights into the engine. Raises EngineDied, or M3Error for a recipe that is refused."""
        ...

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source, *, repeat: int = 0
    ) -> Iterator[Answer]:
        """Give each answer as it finishes, in any order; all prompts are in flight together. Raises EngineDied.

        A `repeat` above 0 asks for the same once more under other conditions: half as many in flight, from no cache.
        """
        ...

    def loglikelihood(self, pairs: Sequence[tuple[Prompt, tuple[int, ...]]]) -> Iterator[Likelihood]:
        """Score given continuations (token ids) of prompts. Raises EngineDied."""
        ...

    def close(self) -> None: ...


def halved(conditions: Mapping[str, object], requests: int) -> int:
    """Return how many requests a repeat has in flight: half of the engine's batch, or of all requests if fewer."""
    batch = conditions.get("max_num_seqs")
    return max(1, min(requests, batch if isinstance(batch, int) else requests) // 2)


def prompt_hash(prompt: Prompt) -> str:
    """Identity of a prompt's token ids, kept with every answer: 32 hex digits."""
    return hashlib.sha256(str(tuple(prompt.token_ids)).encode()).hexdigest()[:32]
