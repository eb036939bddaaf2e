"""What an engine must provide: it takes weights and prompts, and gives answers or log-likelihoods.

A new engine NAME is two files:

m3_exp/engines/NAME.py   the functions of `EngineModule`; `start` returns an `Engine`
conf/engine/NAME.yaml    `defaults: [_base]` and `name: NAME`; then engine=NAME chooses it

An engine whose model should live in a child process that can be killed has `resident.start` as its `start`, and a
function `build` that makes a `child.Model` there. Finished requests are handed over one by one, so that each can be
journalled when it is done. What crosses to the child is plain data: recipes and token ids, never weights or objects.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from m3_exp.store import Store
from m3_exp.types import Answer, EngineSettings, Likelihood, Prompt, Recipe, Sampling, Source


class EngineDied(Exception):
    """The engine's process crashed or hung and was killed; `load` starts a new one."""


@dataclass(frozen=True)
class Batch:
    """Prompts that are asked alike.

    `tokenizer` decodes and ends their answers, and bounds what can be written. `examples` gives what a benchmark scores
    1 and 0 by the id of a prompt, for engines that make up texts; it crosses to no other process.
    """

    prompts: Sequence[Prompt]
    sampling: Sampling
    tokenizer: Source
    examples: Callable[[str], tuple[str | None, str | None]] = lambda prompt: (None, None)

    @property
    def requests(self) -> int:
        """How many answers it asks for."""
        return len(self.prompts) * self.sampling.n


@dataclass(frozen=True)
class Ended:
    """Nothing more of a batch is in flight. `refused`: why it never was."""

    refused: str = ""


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

    def submit(self, batches: Mapping[int, Batch]) -> None:
        """Put batches in flight, by numbers of the caller's, beside what is in flight already. Safe from any thread.

        Raises EngineDied, as `collect` then does.
        """
        ...

    def collect(self) -> Iterator[tuple[int, Answer | Ended]]:
        """Give each answer as it finishes, with the number of its batch, until nothing is in flight.

        Raises EngineDied. An iterator that is not read to its end costs the engine.
        """
        ...

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source, *, repeat: int = 0
    ) -> Iterator[Answer]:
        """Give the answers of prompts that are in flight by themselves, each as it finishes. Raises EngineDied.

        A `repeat` above 0 asks for the same once more under other conditions: half as many in flight, from no cache.
        """
        ...

    def loglikelihood(self, pairs: Sequence[tuple[Prompt, tuple[int, ...]]]) -> Iterator[Likelihood]:
        """Score given continuations (token ids) of prompts. Raises EngineDied."""
        ...

    def close(self) -> None:
        """End the engine, from whatever thread; what is under way raises EngineDied."""
        ...


@runtime_checkable
class Rehearsing(Protocol):
    """An engine that makes up texts. `examples` gives what a benchmark scores 1 and 0 by the id of a prompt."""

    examples: Callable[[str], tuple[str | None, str | None]]


class EngineModule(Protocol):
    """What `m3_exp/engines/NAME.py` must have."""

    def fingerprint(self, settings: EngineSettings) -> Mapping[str, str]:
        """Return what of the engine belongs to an answer's key: `engine`, `version` and `dtype`. Nothing is started.

        Raises:
            M3Error: the engine cannot be used here.
        """
        ...

    def batched(self, settings: EngineSettings) -> bool:
        """Tell whether a text may depend on what else is in flight; results say so."""
        ...

    def start(self, settings: EngineSettings, recipe: Recipe, tokenizer: Source, store: Store) -> Engine:
        """Start an engine for recipes like this one; it holds no weights yet.

        Args:
            recipe: any recipe of those to come; the models that it names give the configuration and shapes.
            tokenizer: the widest tokenizer that prompts will come with.

        Raises:
            EngineDied: it did not start; the message ends with the last lines of its log.
            M3Error: the engine is not installed, or the settings or models cannot be.
        """
        ...


def module(name: str) -> EngineModule:
    """Return the module of engine=NAME."""
    return cast(EngineModule, importlib.import_module(f"m3_exp.engines.{name}"))


def halved(conditions: Mapping[str, object], requests: int) -> int:
    """Return how many requests a repeat has in flight: half of the engine's batch, or of all requests if fewer."""
    batch = conditions.get("max_num_seqs")
    return max(1, min(requests, batch if isinstance(batch, int) else requests) // 2)
