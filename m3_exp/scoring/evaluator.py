"""What a benchmark plugin must provide: one class in one file of `evaluators/` and one yaml in `conf/evaluator/`.

The class is a frozen dataclass whose fields are its settings (they are checked against the configuration by name
before anything is read, and belong to the identity of every score); its docstring is the benchmark's card.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from m3_exp.reading.paths import expanded
from m3_exp.types import Answer, M3Error, Problem, Result, Sampling, Score

Ask = Callable[[Sequence[str]], list[str]]


class Evaluator(Protocol):
    """One benchmark. What else it may provide is in the protocols below, each of them optional.

    A setting `chat_template: bool = False` says that `prompt` returns the bare message of a user, which is then
    rendered by the tokenizer's own chat template; false is the paper's plain text.
    `operational: ClassVar[tuple[str, ...]]` names settings that say how and not what (retries, caps, drivers), and a
    property `ineffective` those without effect under the others: both are left out of a result's identity.
    For forecasts where the items are not at hand, `official_rows` says how many official ones there are (None: not
    known), and `searched(n)` of a benchmark that `Prepares` how many answers that asks for at most, and how many items
    are scored then.
    """

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


@runtime_checkable
class Prepares(Protocol):
    """A benchmark that needs the model to make its items."""

    def check_saved(self, problems: Sequence[Problem]) -> None:
        """Raise M3Error where saved answers are to be scored on items that still had to be prepared (`m3 score`)."""
        ...

    def prepare(self, problems: Sequence[Problem], ask: Ask) -> Sequence[Problem]:
        """Return the items to be scored instead of `problems`; they are frozen and stored.

        `ask(prompts)` gives the model's answers in order, greedy, with the evaluator's sampling, in one engine call.
        It must ask the same things when it gets the same answers: a killed run replays them from the journal.
        """
        ...


@runtime_checkable
class Examined(Protocol):
    """A benchmark whose grader can be examined before it scores anything.

    `flawed: ClassVar[Mapping[str, str]]` names items whose own gold cannot pass, and why; they do not count against it.
    """

    def gold(self, problem: Problem) -> str | None:
        """Return an answer that must score 1, or None where the item has none."""
        ...

    def wrong(self, problem: Problem) -> str | None:
        """Return an answer that must score 0, or None."""
        ...


@runtime_checkable
class Audited(Protocol):
    """A benchmark that can say what other rules would make of the same answers."""

    def audit(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> Mapping[str, Any]: ...


@runtime_checkable
class Reads(Protocol):
    """A benchmark whose authors have a file format of their own for saved answers."""

    def answers(self, path: Path, problems: Sequence[Problem]) -> list[Answer] | None:
        """Return the answers of such a file, or None where it is none."""
        ...


@runtime_checkable
class Paid(Protocol):
    """A benchmark whose judge costs money or time outside the engine."""

    def cost(self, problems: Sequence[Problem]) -> Mapping[str, Any] | None:
        """Return what judging these items would take: calls, prompt_tokens, completion_tokens, dollars, basis."""
        ...


@runtime_checkable
class Pointing(Protocol):
    """A benchmark with settings that point to things whose content decides a score: files, servers."""

    def pointed_to(self) -> Mapping[str, str]:
        """Return a digest or name of each such thing; never raises, since what is missing is told when it is used."""
        ...


def digest_of(path: str) -> str:
    """Return the sha256 of a file, or of the names and contents of a folder's files; `missing` where there is none."""
    found = hashlib.sha256()
    try:
        place = Path(expanded(path, "the path"))
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in (file for file in files if not file.is_dir()):
            found.update(f"{file.name} {file.stat().st_size}\n".encode())
            with file.open("rb") as stream:
                while part := stream.read(1 << 20):
                    found.update(part)
    except (OSError, M3Error):
        return "missing"
    return found.hexdigest() if files else "missing"


def without_effect(evaluator: Evaluator) -> tuple[str, ...]:
    """Return the names of the settings that no result depends on: those that say how, not what (`operational`), and
    those that the others leave without effect (`ineffective`, a property). One thing never has two names.
    """
    return (*getattr(evaluator, "operational", ()), *getattr(evaluator, "ineffective", ()))
