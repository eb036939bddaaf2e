"""What a worker says of its work: small frozen values, plain data that can cross a process."""

from dataclasses import dataclass

from m3_exp.groups import Evaluation
from m3_exp.types import ResultRecord


@dataclass(frozen=True)
class Taken:
    """Another worker is at work on the group, which is not carried out here; `by` says who."""

    group: str
    by: str


@dataclass(frozen=True)
class There:
    """An evaluation that was to be made is in the store already, with so many answers."""

    evaluation: Evaluation
    answers: int


@dataclass(frozen=True)
class Started:
    """An evaluation begins."""

    evaluation: Evaluation


@dataclass(frozen=True)
class Doing:
    """What the worker does beside generating and scoring: starting an engine, writing a checkpoint."""

    what: str


@dataclass(frozen=True)
class EngineStarted:
    """A new engine is at work."""


@dataclass(frozen=True)
class MoreAnswers:
    """More answers are needed than the plan knew of, as an evaluator makes its items with the model."""

    evaluation: Evaluation
    answers: int


@dataclass(frozen=True)
class Known:
    """How many of the answers that an evaluation asks for were in the store already."""

    evaluation: Evaluation
    answers: int


@dataclass(frozen=True)
class Answered:
    """An answer is in the store."""

    evaluation: Evaluation
    tokens: int


@dataclass(frozen=True)
class Speed:
    """The speed that an engine reports of the batch that it works on."""

    tokens_per_second: float


@dataclass(frozen=True)
class EngineTime:
    """The seconds of the worker's engine since the last such event, by what they went to (`busy`)."""

    seconds: dict[str, float]


@dataclass(frozen=True)
class Note:
    """A line for whoever watches, such as a restart."""

    text: str


@dataclass(frozen=True)
class Scored:
    """An evaluation has its result in the store. If items are unscored, an event `Failed` follows."""

    evaluation: Evaluation
    record: ResultRecord


@dataclass(frozen=True)
class Failed:
    """An evaluation has no complete result, and why; the store has noted it."""

    evaluation: Evaluation
    reason: str

    def __str__(self) -> str:
        return f"{self.evaluation}: {self.reason}"


@dataclass(frozen=True)
class Done:
    """The last event of a group. `group` is its recipe's key."""

    group: str


Event = (
    Taken | There | Started | Doing | EngineStarted | MoreAnswers | Known | Answered | Speed | EngineTime | Note
    | Scored | Failed | Done
)  # fmt: skip
