"""What the store remembers beside results: one dataclass a kind. A field that is None is left out of its file."""

from dataclasses import dataclass, field

from m3_exp.types import Answer, EvaluatorSpec, Json, Problem, Recipe, Sampling


@dataclass(frozen=True)
class Inputs:
    """Tensors of one file: name -> (dtype's code, shape, digest), and the names of those that hold NaN or Inf."""

    tensors: dict[str, tuple[str, list[int], str]]
    not_finite: list[str]


@dataclass(frozen=True)
class Cutoff:
    """The magnitude below which TIES drops the deltas of one expert, and the share of them that it keeps."""

    magnitude: float
    kept: float


@dataclass(frozen=True)
class Majority:
    """The sign that TIES gives an element whose trimmed deltas sum to 0: that of the majority of all elements."""

    sign: float


@dataclass(frozen=True)
class Measured:
    """A statistic of a model on calibration text, which is there as a whole: its files are `parts`, in their folder.

    `model` and `text` are digests. `norm`: the square root of the sum of all squared elements.
    """

    statistic: str
    model: str
    text: str
    sequences: int
    length: int
    parts: tuple[str, ...]
    norm: float
    device: str


@dataclass(frozen=True)
class Merge:
    """The digest of a recipe's weights, and what merging them reported."""

    digest: str
    report: Json
    recipe: Recipe | None = None


@dataclass(frozen=True)
class AnswerSet:
    """What the answers of one journal answer, and what gave them. `repeat`: of a repeat its number, else None."""

    weights: str
    benchmark: str
    sampling: Sampling
    engine: dict[str, str]
    repeat: int | None = None


@dataclass(frozen=True)
class StoredAnswer(Answer):
    """One line of a journal: an answer to the prompt of this hash, and the run that wrote it."""

    prompt: str = ""
    run: str = ""


@dataclass(frozen=True)
class Rendered:
    """The items digest of a benchmark's items with their prompts as token ids, and each prompt's own (`Prompt.hashed`).

    Older records have no `hashed`.
    """

    items_digest: str
    hashed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """The items that an evaluator made with the model of these weights."""

    benchmark: str
    weights: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Spelled:
    """The key of a cell, remembered for its recipe as written, for when its models are not at hand any more."""

    cell_key: str


@dataclass(frozen=True)
class FailureNote:
    """Why a cell has no complete result, and the end of the traceback where it was not a refusal.

    `recipe` and `evaluator` say which cell; older notes do not.
    """

    reason: str
    trace: str = ""
    recipe: Recipe | None = None
    evaluator: EvaluatorSpec | None = None


@dataclass(frozen=True)
class Rate:
    """The speed that a run measured, merging and engine starts included, and the length of its answers.

    Older records have no length.
    """

    tokens_per_second: float
    tokens_per_answer: float | None = None


@dataclass(frozen=True)
class RunRecord:
    """The last sign of life of a run. Times are seconds since the epoch; `locked`: it holds a lock while it lives,
    which whoever is in its `reach` sees (`store.leases.lock_reach`; older records have none).

    `plan` is the identity of its plan; `cells_done` have a complete result, `cells_failed` a failure noted.
    `engine`: the seconds of its engines, by what they went to (`busy`).
    """

    command: str
    plan: str
    cells: int
    cells_done: int
    cells_failed: int
    items: int
    items_done: int
    tokens_per_second: float
    doing: tuple[str, ...]
    seconds_left: float | None = None
    pid: int = 0
    host: str = ""
    started: float = 0.0
    updated: float = 0.0
    locked: bool = False
    reach: str = ""
    engine: dict[str, float] | None = None


@dataclass(frozen=True)
class WorkerRecord:
    """The last sign of life of a worker of a run, as `RunRecord`. `count` goes up with each sign.

    `cell` is what it is at, `doing` the step that it takes there beside generating; `place`: its job and devices.
    """

    run: str
    name: str
    cell: str = ""
    doing: str = ""
    cells_done: int = 0
    cells_failed: int = 0
    answers: int = 0
    tokens: int = 0
    tokens_per_second: float = 0.0
    place: str = ""
    pid: int = 0
    host: str = ""
    started: float = 0.0
    updated: float = 0.0
    locked: bool = False
    reach: str = ""
    count: int = 0


@dataclass(frozen=True)
class PastRun:
    """A run for as long as its store lasts: what asked for it, and how far it came.

    `name` is short, and the run's own in its store; `run` is its id. `plan` is the identity of its plan. `done` of its
    cells have a complete result, `failed` none for a reason that is noted. `ended` is 0 while it goes on, and of one
    that was killed. `experts` names those of each pair that it merges, in their order. `engine`: as `RunRecord`.
    """

    name: str
    command: str
    plan: str
    cells: int
    done: int = 0
    failed: int = 0
    run: str = ""
    started: float = 0.0
    ended: float = 0.0
    experts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    engine: dict[str, float] | None = None

    @property
    def left(self) -> int:
        """The cells that it did not come to."""
        return max(0, self.cells - self.done - self.failed)
