"""What a benchmark plugin must provide: one class in one file of `evaluators/` and one yaml in `conf/evaluator/`.

The class is a frozen dataclass whose fields are its settings (they are checked against the configuration by name
before anything is read, and belong to the identity of every score); its docstring is the benchmark's card.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from m3_exp.types import Answer, Problem, Result, Sampling, Score

Ask = Callable[[Sequence[str]], Sequence[str]]


class Evaluator(Protocol):
    """One benchmark. `prepare(ask)` is optional: for benchmarks that need the model to make their items."""

    name: ClassVar[str]
    version: ClassVar[str]  # goes up whenever a prompt, an extraction or a verdict changes
    skill: ClassVar[str]  # whose tokenizer the paper uses: lm, math, code or base

    @property
    def sampling(self) -> Sampling: ...

    def problems(self, items: str) -> list[Problem]:
        """Return all items: `items` is `official`, `lab` or a path. Raises M3Error that says what to download."""
        ...

    def prompt(self, problem: Problem) -> str: ...

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        """Score answers (`answers[i]` belongs to `problems[i]`), one Score each; a failure is unscored, never 0."""
        ...

    def summarize(self, scores: Sequence[Score]) -> Result:
        """Reduce the scores of one cell, over the scored ones, to a figure with its 95 % interval (percent)."""
        ...
