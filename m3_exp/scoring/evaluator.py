"""What a benchmark plugin must provide: one class in one file of `evaluators/` and one yaml in `conf/evaluator/`.

The class is a frozen dataclass whose fields are its settings (they are checked against the configuration by name
before anything is read, and belong to the identity of every score); its docstring is the benchmark's card.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast, runtime_checkable

from m3_exp.reading.paths import expanded
from m3_exp.scoring import thoughts
from m3_exp.types import Answer, M3Error, Problem, Result, Sampling, Score

Ask = Callable[[Sequence[str]], list[str]]

# What a chat template is given by whoever renders it, or what would make it render something else than a user's turn.
_NOT_ARGUMENTS = (
    *("conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"),
    *("continue_final_message", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
    *("return_assistant_tokens_mask", "tokenizer_kwargs", "self"),
)


class Evaluator(Protocol):
    """One benchmark. What else it may provide is in the protocols below, each of them optional.

    One that inherits `ChatSettings` is asked and judged as these say; the evaluators here all do.
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


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How a benchmark's prompts are rendered, and what becomes of a thought before the answer.

    `chat_template`: `prompt` returns the bare message of a user, which the tokenizer's own chat template renders;
    false is the paper's plain text. `chat_args`: keyword arguments of the template, such as {"enable_thinking": False}.
    `thought`: `drop` takes <think>...</think> and its kin away before anything reads an answer, and an unclosed one is
    no answer; `keep` leaves every text as it is. None: drop with chat_template or where the benchmark is judged by
    LiveBench's present rules, else keep; the field then holds which.
    """

    name: ClassVar[str]

    chat_template: bool = False
    chat_args: dict[str, Any] | None = None
    thought: Literal["drop", "keep"] | None = None

    def __post_init__(self) -> None:
        if self.thought not in (None, "drop", "keep"):
            raise M3Error(f"{self.name}: thought={self.thought} is not known; allowed: drop, keep, or null")
        object.__setattr__(self, "chat_args", _chat_args(self.name, self.chat_args, self.chat_template))
        if self.thought is None:
            drop = self.chat_template or self.livebench_rules
            object.__setattr__(self, "thought", "drop" if drop else "keep")

    @property
    def livebench_rules(self) -> bool:
        """Whether the settings are LiveBench's present rules, whose own judge drops thoughts."""
        return False

    def judged(self, text: str) -> str | None:
        """Return what of an answer's text is judged, None where it is an unclosed thought.

        LiveBench's present rules drop what its judge drops, with chat_template what every other benchmark drops too.
        """
        if self.thought == "keep":
            return text
        if self.livebench_rules and not self.chat_template:
            return thoughts.drop_as_livebench(text)
        found = thoughts.drop(text)
        return thoughts.drop_as_livebench(found) if found is not None and self.livebench_rules else found


def _chat_args(name: str, found: object, chat_template: bool) -> dict[str, Any] | None:
    """Return checked arguments of a chat template, None where there are none.

    Raises:
        M3Error: they are no plain values by name, or would reach no template.
    """
    if found is None or found == {}:
        return None
    if not isinstance(found, dict) or not all(isinstance(key, str) and key.isidentifier() for key in found):
        raise M3Error(
            f"{name}: chat_args={found} is not a mapping of names: give 'chat_args={{enable_thinking: false}}'"
        )
    if not chat_template:
        raise M3Error(f"{name}: chat_args={found} has no effect without chat_template=true: set that, or leave it out")
    if reserved := [key for key in found if key in _NOT_ARGUMENTS]:
        raise M3Error(
            f"{name}: chat_args.{reserved[0]} is not the template's own argument, m3 sets it: leave it out, and give"
            " those that the template reads, such as enable_thinking"
        )
    try:
        plain: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise M3Error(
            f"{name}: chat_args={found} holds more than plain values: give texts, numbers, true, false"
        ) from None
    return plain


def settings_of(evaluator: Evaluator) -> dict[str, Any]:
    """Return all settings as an evaluator takes them: what depends on others (`thought`) as what it came to."""
    return {field.name: getattr(evaluator, field.name) for field in dataclasses.fields(cast(Any, evaluator))}


def judged(evaluator: Evaluator, answers: Sequence[Answer]) -> list[Answer]:
    """Return answers as an evaluator judges them; an unclosed thought is an empty one, whose `finish` says so."""
    texts = [_judged(evaluator, answer.text) for answer in answers]
    return [
        replace(answer, text="", finish=thoughts.UNCLOSED) if text is None else replace(answer, text=text)
        for answer, text in zip(answers, texts, strict=True)
    ]


def judged_texts(evaluator: Evaluator, texts: Sequence[str]) -> list[str]:
    """Return texts as an evaluator judges answers; of an unclosed thought nothing is left."""
    return [_judged(evaluator, text) or "" for text in texts]


def _judged(evaluator: Evaluator, text: str) -> str | None:
    return evaluator.judged(text) if isinstance(evaluator, ChatSettings) else text


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
