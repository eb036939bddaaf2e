"""The nouns of the project: frozen values that every stage passes on, with no behaviour but identity.

    Source -> Recipe -> Cell -> Answer -> Score -> Result

A *recipe* is what determines one set of weights; a *cell* is one recipe on one benchmark. Everything random or
defaulted is already resolved in them (see `planning.py`), so that equal values mean equal results.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal

OMIT_IF_EMPTY: Mapping[str, bool] = {"omit_if_empty": True}  # of a field that is younger than keys in people's stores

GENERATED = "generated"  # engine.answers of a rehearsal: its texts are made up
REHEARSAL = "rehearsal"  # the engine's name in the fingerprint of such answers

Json = dict[str, object]
Parameter = bool | int | float | str | tuple[float, ...] | None  # of a method, a ratio or a sparsifier
Parameters = Mapping[str, Parameter]
HyperParameters = Mapping[str, float | str]  # of a method: numbers, and words that choose among its variants


class M3Error(Exception):
    """A request that cannot be carried out: what is wrong with its value, what is allowed, what to do. One line."""


def plain(value: Any) -> Any:
    """Turn nested dataclasses, mappings and tuples into the dicts and lists that JSON knows.

    A field with `compare=False` is left out, and so is an empty one that is marked `OMIT_IF_EMPTY`: a field which is
    younger than the keys in people's stores must not change them.
    """
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict:  # the rest of this function would do: keys of ten thousand cells are made of these
        return {name if type(name) is str else str(name): plain(item) for name, item in value.items()}
    if kind is list or kind is tuple:
        return [item if type(item) in _SCALARS else plain(item) for item in value]
    if dataclasses.is_dataclass(kind):
        held = ((name, optional, getattr(value, name)) for name, optional in _fields(kind))
        return {name: plain(item) for name, optional, item in held if not optional or item}
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    return value


_SCALARS = frozenset((str, int, float, bool, type(None)))


@cache
def _fields(kind: Any) -> tuple[tuple[str, bool], ...]:
    """Return the fields of a dataclass that JSON gets, and whether each is left out where it is empty."""
    return tuple((f.name, "omit_if_empty" in f.metadata) for f in dataclasses.fields(kind) if f.compare)


def canonical_json(value: Any) -> str:
    """Return a value as JSON with sorted keys, shortest exact floats and no NaN."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def identity(value: Any) -> str:
    """Return the sha256 (64 hex digits) of a value's canonical JSON."""
    return digest_of_text(canonical_json(value))


def digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# ------------------------------------------------------------------------------------------------------- merging


@dataclass(frozen=True)
class Source:
    """Where one model lies: a directory, a `.gguf` file or a hub id, and optionally a LoRA adapter on top of it.

    `location` may begin with `package:NAME/` for a file inside an installed Python package.
    """

    location: str
    revision: str | None = None
    adapter: str | None = None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.location}{at}" + (f"+{self.adapter}" if self.adapter else "")


@dataclass(frozen=True)
class Drawn:
    """Shares of the experts drawn from Dirichlet(alpha, ..., alpha), anew for each decoder layer or each tensor."""

    alpha: float
    seed: int
    draw: int
    per: Literal["block", "tensor"]


@dataclass(frozen=True)
class Part:
    """How much of each expert one part of a model takes. `where` says which tensors (`merging.parts`).

    `weights` as in a recipe. With `last` they are those of the first decoder layer, `last` those of the last one, and
    the layers between them lie on the line; with `drawn` they are drawn. Such a part names tensors of decoder layers
    alone, unless one is drawn for each tensor.
    """

    where: str
    weights: tuple[float, ...] | None = None
    last: tuple[float, ...] = field(default=(), metadata=OMIT_IF_EMPTY)
    drawn: Drawn | None = field(default=None, metadata=OMIT_IF_EMPTY)


@dataclass(frozen=True)
class Recipe:
    """One set of weights. `weights` is None for the method's own default (plain); else one weight an expert.

    With `parts` a tensor has the weights of the first part that names it, and `weights` where none does.

    `sparsify` holds a sparsifier's keywords, the `seed` of what it draws, and its `target` where it is not DARE, as in
    {"drop_rate": 0.2, "seed": 7}.
    With `tokens` vocabularies are laid out by tokens (`merging.tokens`): by those of all tokenizers ("union"), or of
    the model that it names.
    `vocab` says what happens where vocabularies differ in length: `mean` (new rows are the mean of the model's own
    rows, as in the paper) or `refuse`. `check_lineage` is a check, not a part of the recipe's identity.
    """

    base: Source
    experts: tuple[Source, ...]
    method: str  # "module:function"
    params: HyperParameters = field(default_factory=dict)
    weights: tuple[float, ...] | None = None
    sparsify: Parameters | None = None
    dtype: str = "bfloat16"
    vocab: Literal["mean", "refuse"] = "mean"
    check_lineage: bool = True
    parts: tuple[Part, ...] = field(default=(), metadata=OMIT_IF_EMPTY)
    tokens: str = field(default="", metadata=OMIT_IF_EMPTY)

    @cached_property
    def text(self) -> str:
        """The recipe as canonical JSON."""
        return canonical_json(self)

    @cached_property
    def identity(self) -> str:
        """The recipe's identity by the names of its models, 64 hex digits; `merging.canonical` has that by content."""
        return digest_of_text(self.text)


# ---------------------------------------------------------------------------------------------------- generating


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. Greedy unless `temperature` > 0; `stops` end an answer and are not part of it."""

    max_tokens: int
    stops: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    n: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """One request: the token ids are rendered by us, so that no engine adds a second BOS."""

    id: str
    token_ids: tuple[int, ...]

    @cached_property
    def hashed(self) -> str:
        """The identity of its token ids, kept with every answer: 32 hex digits."""
        return digest_of_text(str(tuple(self.token_ids)))[:32]


@dataclass(frozen=True)
class Answer:
    """What a model wrote for one item. `finish` is `stop` (EOS or a stop string), `length` (cut at max_tokens) or
    empty where a file does not say.
    """

    id: str
    text: str
    sample: int = 0
    n_tokens: int = 0
    finish: str = "stop"


@dataclass(frozen=True)
class Likelihood:
    """log p(continuation | prompt) in nats, summed over the continuation's tokens; `greedy`: each was the argmax."""

    id: str
    logprob: float
    n_tokens: int
    greedy: bool


@dataclass(frozen=True)
class Pace:
    """How fast a rehearsed engine is: `conf/engine/recorded.yaml` says what each field means. Times are in seconds of
    that engine, of which `speedup` pass in one of ours.
    """

    tokens_per_second: float | None = None
    sequences: int = 256
    latency: float | None = None
    start: float = 0.0
    swap: float = 0.0
    length: float | None = None
    spread: float = 0.6
    speedup: float = 1.0


@dataclass(frozen=True)
class EngineSettings:
    """Everything an engine is started with. Operational fields are recorded, not part of an answer's identity."""

    name: str = "vllm"
    dtype: str = "float32"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    kv_cache_gib: float | None = None
    threads: int | None = None
    start_timeout: float = 900.0
    stall_timeout: float = 300.0
    answers: str | None = None  # engine=recorded: a file, another store, or `GENERATED`
    cores: tuple[int, ...] | None = None  # the CPU cores of this worker; None: all
    devices: tuple[int, ...] | None = None  # the GPUs of this worker; None: all
    pace: Pace | None = field(default=None, metadata=OMIT_IF_EMPTY)  # engine=recorded: of a rehearsal

    @property
    def record(self) -> str | None:
        """The path of recorded answers; None where there are none, or where they are made up."""
        return None if self.answers == GENERATED else self.answers


@dataclass(frozen=True)
class LauncherSettings:
    """How workers are started: `conf/launcher/NAME.yaml` says what each field means, and which launcher has it.

    `silent`: seconds without a sign of life until a worker elsewhere counts as lost.
    """

    name: str = "local"
    silent: float = 60.0
    address: str | None = None  # ray: of an existing cluster
    cpus: int | None = None  # ray, slurm: CPU cores of a worker
    memory: int | None = None  # ray, slurm: gigabytes of a worker
    partition: str | None = None  # slurm, as the others below
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    constraint: str | None = None
    minutes: int = 24 * 60
    setup: tuple[str, ...] = ()
    sbatch: Mapping[str, str] = field(default_factory=dict)
    wait: bool = True


# ----------------------------------------------------------------------------------------------------- evaluating


@dataclass(frozen=True)
class About:
    """What people read of a benchmark.

    Attributes:
        title: its name in figures and on the page; "" for the benchmark's name with blanks.
        short: its name in the headings of Tables 2, 5 and 6.
        colour: a name of `reporting.figures.palette`.
        marker: matplotlib's; without one, one is chosen.
        dashes: lengths on and off of its line; () for a solid one.
        rank: its place in tables and figures; a smaller rank stands earlier.
        area: what it asks for, as a heading over the columns of like benchmarks; "" for that of its skill.
        table: where the paper has it: table1, figure4 or attacks (Tables 2, 5 and 6).
        paper_items: on how many items the paper scored, if its numbers can be compared with ours.
    """

    title: str = ""
    short: str = ""
    colour: str = ""
    marker: str = ""
    dashes: tuple[float, ...] = ()
    rank: int = 100
    area: str = ""
    table: str = ""
    paper_items: int | None = None


@dataclass(frozen=True)
class Problem:
    """One item of a benchmark: its own id (else its zero-based row, as a string) and its row as the file has it."""

    id: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Score:
    """The verdict on one answer: `value` from 0 to 1, or None for *unscored* with the reason.

    `extracted` and `reason` become texts, whatever a benchmark gives. `notes` are JSON facts about it that summaries
    and pages use, such as {"level": "Level 5"}.
    """

    id: str
    value: float | None
    sample: int = 0
    extracted: str | None = None
    reason: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, given in (("extracted", self.extracted), ("reason", self.reason)):
            if given is not None and not isinstance(given, str):
                object.__setattr__(self, name, str(given))


@dataclass(frozen=True)
class Result:
    """The verdict on one cell. `score`, `low` and `high` (95 %) are in percent; None where nothing was scored."""

    benchmark: str
    metric: str
    score: float | None
    low: float | None
    high: float | None
    n: int
    n_scored: int
    n_unscored: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class Choice:
    """What is chosen on an axis: its name, its function (`module:function`) and that function's keywords."""

    name: str
    target: str
    params: Parameters = field(default_factory=dict)
    parts: tuple[Part, ...] = ()  # ratio=parts


@dataclass(frozen=True)
class Config:
    """One composed request, checked: what `config` makes of conf/ and the overrides. One Config, many cells."""

    family: str
    pair: str
    base: Source
    experts: Mapping[str, Source]  # the experts of this pair, in order, by the names that tables show
    method: str
    target: str
    params: HyperParameters
    ratio: Choice
    sparsify: Choice | None
    draws: int  # how many times a sparsifier draws
    mask_seed: int | None  # the seed of its one draw; None: from `seed` and the draw's number
    evaluators: tuple["EvaluatorSpec", ...]
    engine: EngineSettings
    dtype: str
    vocab: Literal["mean", "refuse"]
    check_lineage: bool
    tokenizer: str
    seed: int
    limit: int | None
    parameters: int | None
    published: bool
    overrides: tuple[str, ...] = ()
    cache_values: int | None = None  # of the KV cache, a token: for forecasts, where no model is at hand
    config_dirs: tuple[str, ...] = ()
    model_paths: tuple[str, ...] = ()  # overrides that give relative paths of models as absolute ones
    skills: Mapping[str, Source] = field(default_factory=dict)  # the same experts by what a benchmark's skill may be


@dataclass(frozen=True)
class EvaluatorSpec:
    """A plugin and its settings: `target` is `module:class`, `settings` its keyword-only arguments."""

    name: str
    target: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    items: str = "official"
    skill: str = "base"

    @cached_property
    def text(self) -> str:
        """The plugin with its settings as canonical JSON."""
        return canonical_json(self)


Kind = Literal["drawn", "node", "sampled", ""]


def is_point(weights: Sequence[float]) -> bool:
    """Tell whether the weights of three or more experts are shares of a whole. (Of two, lambda says it.)"""
    return len(weights) > 2 and abs(math.fsum(weights) - 1) <= 1e-12 and min(weights) >= 0


@dataclass(frozen=True)
class Label:
    """How a cell is shown and grouped in tables. Two labels may stand for the same weights.

    `ratio` is the config's choice, or `sampled` for a lambda drawn beside a grid's nodes (a draw that has no alpha).
    `axis_keywords` holds the keywords of a ratio or a sparsifier that have no field of their own, as
    {"ratio.tilt": 0.3}; `weights` those of the experts in their order, unless they are (lam, 1 - lam) or the method's
    own; `experts` names them where there are more than two. `parts` are those of a merge by part, which has no lambda:
    `weights` is for the rest of the model then. The line that rebuilds the weights in any directory needs
    `config_dirs`, and `model_paths`: overrides that give relative paths as absolute ones, as family.base=/models/base.
    """

    family: str
    pair: str
    method: str
    ratio: str
    sparsify: str
    alpha: float | None = None
    draw: int | None = None
    lam: float | None = None
    mask_seed: int | None = None
    params: HyperParameters = field(default_factory=dict)
    overrides: tuple[str, ...] = ()  # what else the command line said about the models
    axis_keywords: Parameters = field(default_factory=dict, metadata=OMIT_IF_EMPTY)
    weights: tuple[float, ...] = field(default=(), metadata=OMIT_IF_EMPTY)
    parts: tuple[Part, ...] = field(default=(), metadata=OMIT_IF_EMPTY)
    experts: tuple[str, ...] = field(default=(), metadata=OMIT_IF_EMPTY)
    config_dirs: tuple[str, ...] = field(default=(), compare=False)
    model_paths: tuple[str, ...] = field(default=(), compare=False)

    @property
    def pair_words(self) -> tuple[str, ...]:
        """The words that choose its pair in a command; none where other overrides name its experts."""
        is_own = self.family == "local" or any(text.startswith("pair.experts=") for text in self.overrides)
        return () if is_own else (f"pair={self.pair}",)

    @property
    def point(self) -> tuple[float, ...]:
        """The experts' shares, where they share the whole model: (lam, 1 - lam) of two; else ()."""
        if self.parts:
            return ()
        if self.lam is not None:
            return (self.lam, 1.0 - self.lam)
        return self.weights if is_point(self.weights) else ()

    @property
    def kind(self) -> Kind:
        """How its mixture came, whatever the ratio is called; empty: the method's own default, or no shares of a whole.

        drawn: at random, and a row shows the mean over its draws (a draw of Beta or Dirichlet has an `alpha` as well);
        node: shares that were chosen, a curve goes through its score; sampled: beside a grid's nodes, it corrects the
        curve.
        """
        if self.ratio == "sampled":
            return "sampled"
        if self.draw is not None:
            return "drawn"
        return "node" if self.point else ""


@dataclass(frozen=True)
class Cell:
    """One recipe on one benchmark. `tokenizer` is the source whose tokenizer renders the prompts, `home` the one whose
    tokenizer, template and config go along with a kept checkpoint; labels and home are not part of the identity.
    """

    recipe: Recipe
    evaluator: EvaluatorSpec
    tokenizer: Source
    labels: tuple[Label, ...]
    home: Source
    limit: int | None = None

    @cached_property
    def short_key(self) -> str:
        """12 digits that name the cell in frames and pages, whatever its labels."""
        rest = canonical_json([self.tokenizer, self.limit])[1:]
        return digest_of_text(f"[{self.recipe.text},{self.evaluator.text},{rest}")[:12]


@dataclass(frozen=True)
class Plan:
    """The cells of one request and what they are carried out with."""

    cells: tuple[Cell, ...]
    engine: EngineSettings
    seed: int
    notes: tuple[str, ...] = ()

    @cached_property
    def identity(self) -> str:
        """The sha256 (64 hex digits) of the plan's canonical JSON, put together from texts that many cells share."""
        known: dict[int, str] = {}  # by object: the cells of a recipe share labels and sources

        def text(value: object) -> str:
            return known.get(id(value)) or known.setdefault(id(value), canonical_json(value))

        cells = ",".join(
            f'{{"evaluator":{cell.evaluator.text},"home":{text(cell.home)},'
            f'"labels":[{",".join(map(text, cell.labels))}],"limit":{json.dumps(cell.limit)},'
            f'"recipe":{cell.recipe.text},"tokenizer":{text(cell.tokenizer)}}}'
            for cell in self.cells
        )
        engine, notes = canonical_json(self.engine), canonical_json(self.notes)
        return digest_of_text(f'{{"cells":[{cells}],"engine":{engine},"notes":{notes},"seed":{self.seed}}}')


# ------------------------------------------------------------------------------------------------------ remembering


@dataclass(frozen=True)
class VersionedSpec(EvaluatorSpec):
    """A plugin with its settings, and the version of it that scored."""

    version: str = ""


@dataclass(frozen=True)
class RepeatRecord:
    """Which repeat of a cell this is, and the (id, sample) whose text differs from the first pass."""

    number: int
    changed: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class ResultRecord:
    """What the store keeps of one evaluation of a cell: the verdict, the scores of its items, and how they came about.

    `items_digest` is the identity of the items with their rendered prompts, `rows_digest` of the items alone.
    `answers`, `weights` (a digest) and `recipe_key` are keys; `runs` names the runs that wrote its answers; `batched`
    says that a text may depend on what else was in flight. `texts_digest` is the identity of the texts that were scored
    (`keys.texts_digest`). Results of older versions may lack all that has a default.
    """

    result: Result
    scores: Sequence[Score]
    evaluator: VersionedSpec = VersionedSpec("", "")
    sampling: Sampling = Sampling(0)
    engine: Mapping[str, str] = field(default_factory=dict)
    items: str = "official"
    items_digest: str = ""
    rows_digest: str | None = None
    tokenizer: str | None = None
    answers: str = ""
    weights: str = ""
    recipe_key: str = ""
    recipe: Recipe | None = None
    runs: tuple[str, ...] = ()
    batched: bool = False
    repeat: RepeatRecord | None = None
    texts_digest: str | None = None


@dataclass(frozen=True)
class CellResult:
    """A planned cell and what the store has of it: its result, or the reason of its failure.

    `repeat` is 0 for the result itself, else the number of a repeat.
    """

    cell: Cell
    record: ResultRecord | None
    failure: str | None = None
    repeat: int = 0
