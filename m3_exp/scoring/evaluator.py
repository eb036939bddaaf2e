"""The base class of benchmarks, each of which is one class in `evaluators/` and one yaml in `conf/evaluator/`.

The class is a frozen dataclass whose fields are its settings (they are checked against the configuration by name
before anything is read, and belong to the identity of every score); its docstring is the benchmark's card.
"""

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from m3_exp.reading.paths import expanded
from m3_exp.scoring import thoughts
from m3_exp.scoring.items import ItemSet, load
from m3_exp.types import About, Answer, M3Error, Problem, Result, Sampling, Score

Ask = Callable[[Sequence[str]], list[str]]

# What a chat template is given by whoever renders it, or what would make it render something else than a user's turn.
_NOT_ARGUMENTS = (
    *("conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"),
    *("continue_final_message", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
    *("return_assistant_tokens_mask", "tokenizer_kwargs", "self"),
)


@dataclass(frozen=True)
class Cost:
    """What a judge outside the engine takes. `dollars`: None where its price is not known. `basis`: who is asked."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float | None
    basis: str


class Evaluator(ABC):
    """One benchmark. What a class does not define, it inherits from here.

    A class must have `name`, `version`, `skill`, a `prompt`, one of `item_set`, `wanted` and `problems`, and one of
    `score_one` and `score`. A benchmark whose prompts may be rendered by a chat template inherits `ChatSettings`.
    """

    name: ClassVar[str]
    version: ClassVar[str]  # goes up whenever a prompt, an extraction or a verdict changes
    skill: ClassVar[str]  # whose tokenizer the paper uses: lm, math, code or base
    about: ClassVar[About] = About()
    metric: ClassVar[str] = "accuracy"
    item_set: ClassVar[ItemSet | None] = None  # where the items come from
    # Settings that say how and not what (retries, caps, drivers): they are no part of a result's identity.
    operational: ClassVar[tuple[str, ...]] = ()
    above_zero: ClassVar[tuple[str, ...]] = ("max_tokens",)  # settings that must be: a whole number is at least 1
    flawed: ClassVar[Mapping[str, str]] = {}  # items whose own gold answer cannot score 1, and why
    replaced: ClassVar[Mapping[str, str]] = {}  # settings that there were once, and what to give in their place

    # A field of the same name makes these a setting:
    max_tokens: int = 1024  # of an answer
    allow_weak: bool = False  # programs of the model may run uncontained

    @property
    def settings(self) -> dict[str, Any]:
        """All settings; one whose default depends on others (`thought`) is what it came to."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(cast(Any, self))}

    @property
    def ineffective(self) -> tuple[str, ...]:
        """Settings without effect, given the others (a judge's, where rules judge): no part of a result's identity."""
        return ()

    def pointed_to(self) -> Mapping[str, str]:
        """Return a digest or name of each file or server that a setting points to and whose content decides a score.

        It never raises: what is missing is told when it is used.
        """
        return {}

    # --------------------------------------------------------------------------------------------------------- items

    def problems(self, items: str) -> list[Problem]:
        """Return all items: `items` is `official`, `lab` or a path. Raises M3Error that says what to download."""
        problems = load(self.wanted(items), items)
        for problem in problems:
            self.check(problem)
        return problems

    def wanted(self, items: str) -> ItemSet:
        """Return what the items must look like. It may depend on `items`: a user's own file may have another form."""
        assert self.item_set is not None
        return self.item_set

    def check(self, problem: Problem) -> None:  # noqa: B027
        """Raise M3Error where an item cannot be asked or judged: its columns are there and have the right types."""

    def has_dev(self) -> bool:
        """Return whether the official items have development items (`items=dev`)."""
        return self.item_set is not None and self.item_set.dev is not None

    def official_rows(self) -> int | None:
        """Return how many official items there are, for forecasts where they are not at hand; None: not known."""
        return None if self.item_set is None else self.item_set.rows

    def prepare(self, problems: Sequence[Problem], ask: Ask) -> Sequence[Problem]:
        """Return the items to be scored instead of `problems`, where the model is needed to make them.

        They are frozen and stored. `ask(prompts)` gives the model's answers in order, greedy, with the evaluator's
        sampling, in one engine call. It must ask the same things when it gets the same answers: a killed run replays
        them from the journal.
        """
        return problems

    @property
    def prepares(self) -> bool:
        """Whether it may make its items with the model."""
        return type(self).prepare is not Evaluator.prepare

    def searched(self, n: int) -> tuple[int, int]:
        """Return how many answers `prepare` asks for at most where there are n items, and how many are then scored."""
        return 0, n

    def check_saved(self, problems: Sequence[Problem]) -> None:  # noqa: B027
        """Raise M3Error where saved answers are to be scored on items that still had to be prepared (`m3 score`)."""

    def answers(self, path: Path, problems: Sequence[Problem]) -> list[Answer] | None:
        """Return the answers of a file in the format of the benchmark's authors, None where it is none."""
        return None

    # -------------------------------------------------------------------------------------------- prompts and scores

    @abstractmethod
    def prompt(self, problem: Problem) -> str: ...

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return ()

    @property
    def sampling(self) -> Sampling:
        return Sampling(max_tokens=self.max_tokens, stops=self.stops)

    def judged(self, text: str) -> str | None:
        """Return the part of an answer's text that is judged, None where it holds no answer."""
        return text

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        """Score answers (`answers[i]` belongs to `problems[i]`), one Score each; a failure is unscored, never 0."""
        return [self.score_one(problem, answer) for problem, answer in zip(problems, answers, strict=True)]

    def score_one(self, problem: Problem, answer: Answer) -> Score:
        """Score one answer, where no other is needed for it."""
        raise NotImplementedError

    def summarize(self, scores: Sequence[Score]) -> Result:
        """Return the result of one cell: the mean over its scored items with a 95 % interval, in percent."""
        from m3_exp.scoring.summary import mean_result  # with numpy, which a plan does not need

        return mean_result(self.name, self.metric, scores, self.settings, self.details(scores))

    def details(self, scores: Sequence[Score]) -> dict[str, Any]:
        """Return what a result says beside its figure."""
        return {}

    def gold(self, problem: Problem) -> str | None:
        """Return an answer that must score 1, or None where the item has none: with it the grader is examined."""
        return None

    def wrong(self, problem: Problem) -> str | None:
        """Return an answer that must score 0, or None."""
        return None

    def audit(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Return what other rules would make of the same answers (`m3 score --audit`)."""
        return {}

    def lacks(self) -> str | None:
        """Return why no answer could be scored on this machine now, as a judge's missing key, and what to do.

        Then nothing is asked for the benchmark, and the plan says so.
        """
        return None

    def cost(self, problems: Sequence[Problem]) -> Cost | None:
        """Return what a judge outside the engine would take for these items, None where there is no such judge."""
        return None


@dataclass(frozen=True, kw_only=True)
class ChatSettings(Evaluator):
    """A benchmark whose prompts may be rendered by a chat template, and whose answers may begin with a thought.

    `chat_template`: `prompt` returns the bare message of a user, which the tokenizer's own chat template renders;
    false is the paper's plain text. `chat_args`: keyword arguments of the template, such as {"enable_thinking": False}.
    `thought`: `drop` takes <think>...</think> and its kin away before anything reads an answer, and an unclosed one is
    no answer; `keep` leaves every text as it is. None: drop with chat_template or where the benchmark is judged by
    LiveBench's present rules, else keep; the field then holds which.
    """

    paper_stops: ClassVar[tuple[str, ...]] = ()  # what ends an answer to the paper's plain text

    chat_template: bool = False
    chat_args: dict[str, Any] | None = None
    thought: Literal["drop", "keep"] | None = None

    def __post_init__(self) -> None:
        if self.thought not in (None, "drop", "keep"):
            raise M3Error(f"{self.name}: thought={self.thought} is not known; allowed: drop, keep, or null")
        object.__setattr__(self, "chat_args", _chat_args(self.name, self.chat_args, self.chat_template))
        if self.thought is None:
            object.__setattr__(self, "thought", "drop" if self.drops_thoughts else "keep")

    @property
    def drops_thoughts(self) -> bool:
        """Whether thoughts are dropped where `thought` does not say it."""
        return self.chat_template

    @property
    def stops(self) -> tuple[str, ...]:
        return () if self.chat_template else self.paper_stops

    def judged(self, text: str) -> str | None:
        """Return an answer's text without its thought, None where that is unclosed."""
        return text if self.thought == "keep" else thoughts.drop(text)


def _chat_args(name: str, given: object, chat_template: bool) -> dict[str, Any] | None:
    """Return checked arguments of a chat template, None where there are none.

    Raises:
        M3Error: they are no plain values by name, or would reach no template.
    """
    if given is None or given == {}:
        return None
    if not isinstance(given, dict) or not all(isinstance(key, str) and key.isidentifier() for key in given):
        raise M3Error(
            f"{name}: chat_args={given} is not a mapping of names: give 'chat_args={{enable_thinking: false}}'"
        )
    if not chat_template:
        raise M3Error(f"{name}: chat_args={given} has no effect without chat_template=true: set that, or leave it out")
    if reserved := [key for key in given if key in _NOT_ARGUMENTS]:
        raise M3Error(
            f"{name}: chat_args.{reserved[0]} is not the template's own argument, m3 sets it: leave it out, and give"
            " those that the template reads, such as enable_thinking"
        )
    try:
        plain: dict[str, Any] = json.loads(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise M3Error(
            f"{name}: chat_args={given} holds more than plain values: give texts, numbers, true, false"
        ) from None
    return plain


def judged(evaluator: Evaluator, answers: Sequence[Answer]) -> list[Answer]:
    """Return answers as an evaluator judges them; an unclosed thought is an empty one, whose `finish` says so."""
    texts = [evaluator.judged(answer.text) for answer in answers]
    return [
        replace(answer, text="", finish=thoughts.UNCLOSED) if text is None else replace(answer, text=text)
        for answer, text in zip(answers, texts, strict=True)
    ]


def digest_of(path: str) -> str:
    """Return the sha256 of a file, or of the names and contents of a folder's files; `missing` where there is none."""
    sha = hashlib.sha256()
    try:
        place = Path(expanded(path, "the path"))
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in (file for file in files if not file.is_dir()):
            sha.update(f"{file.name} {file.stat().st_size}\n".encode())
            with file.open("rb") as stream:
                while part := stream.read(1 << 20):
                    sha.update(part)
    except (OSError, M3Error):
        return "missing"
    return sha.hexdigest() if files else "missing"
