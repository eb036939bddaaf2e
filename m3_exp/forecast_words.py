"""What a forecast holds, and the same in words: what is assumed, what it takes here, and on other cards.

The names of the fields are the keys of `m3 plan --json` (`lams` is `lambda` there).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from m3_exp.amounts import about, count, counted, rounded, size
from m3_exp.engines.gpus import OVERHEAD, Load
from m3_exp.planning import label_text
from m3_exp.scoring.evaluator import Cost
from m3_exp.types import OMIT_IF_EMPTY, Cell, EvaluatorSpec, Json, Plan, Recipe, Sampling, plain

_NAMED = ("A100 80 GB", "H100 80 GB")  # the cards whose times are named
_LARGE = 1e9  # bytes of weights from which GPUs are spoken of


@dataclass(frozen=True)
class CellForecast:
    """What a cell takes: `n` items (None: not known) and `answers` in all, of which `left` are not there yet.

    `searching`: as many of those at most as an attack's search asks for. `reason`: why items or a model are missing.
    """

    cell: Cell = field(compare=False, repr=False)
    lams: tuple[float, ...]
    alpha: tuple[float, ...]
    recipe: Recipe
    benchmark: str
    evaluator: EvaluatorSpec
    tokenizer: str
    sampling: Sampling
    max_tokens: int
    limit: int | None
    n: int | None
    answers: int | None
    searches: bool
    left: int | None
    searching: int
    state: str
    reason: str | None
    cost: Cost | None
    mixtures: tuple[str, ...] = field(default=(), metadata=OMIT_IF_EMPTY)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label_text(label) for label in self.cell.labels)

    @property
    def json(self) -> Json:
        known = {"lambda" if key == "lams" else key: value for key, value in plain(self).items()}
        return {"labels": [*self.labels], **known}


@dataclass(frozen=True)
class More:
    """What `count` draws or sampled lambdas cost beyond what runs without them; `searching`: answers at most."""

    count: int
    merges: int
    answers: int | None
    searching: bool


@dataclass(frozen=True)
class GpuForecast:
    """One engine on `cards` of a kind: how many of the longest sequences fit, its speed, and the time it takes."""

    name: str
    sequences: int
    least_tensor_parallel_size: int | None
    cards: int
    tokens_per_second: float | None
    seconds_typical: float | None
    seconds_at_most: float | None


@dataclass(frozen=True)
class Totals:
    """What a plan takes in all; None where it is not known."""

    recipes: int
    cells: int
    done: int
    answers_to_generate: int
    searching_answers_at_most: int
    tokens_at_most: int
    tokens_typical: int
    items_assumed: int
    items_unknown: int
    weights_bytes: int | None
    merging_ram_bytes: int
    merging_seconds: float
    engine_ram_bytes: int | None
    models_to_fetch: int
    disk_bytes: int
    judging_dollars: float | None
    draws: More | None
    sampled: More | None
    seconds_typical: float | None = None
    seconds_at_most: float | None = None
    gpus: tuple[GpuForecast, ...] = ()


def words(
    plan: Plan, todo: Sequence[CellForecast], totals: Totals, basis: str, load: Load | None, length: float
) -> list[str]:
    """Return what `m3 plan` says of a forecast; `basis` is what the speed of this machine is taken from.

    `length`: the tokens of an answer that "about" stands for.
    """
    return [*_more_words(totals), *_here(totals, basis, length), *_gpu_words(plan, totals, load), *_judging(todo)]


def _here(totals: Totals, basis: str, length: float) -> list[str]:
    cells = counted(totals.cells, "cell")
    recipes = counted(totals.recipes, "distinct recipe")
    if totals.done == totals.cells:
        return [f"{recipes}, {cells}; nothing to do: {'all are' if totals.cells > 1 else 'it is'} in the store"]
    lines = [f"{recipes}, {cells}, {count(totals.done)} done; {_answers(totals)}"]
    if totals.searching_answers_at_most:
        most = count(totals.searching_answers_at_most)
        lines.append(f"searches for attacks ask for at most {most} of these answers")
    if totals.items_assumed:
        lines.append(f"no items here for {counted(totals.items_assumed, 'cell')}: counted as in the official sets")
    if totals.items_unknown:
        lines.append(f"no items at hand for {counted(totals.items_unknown, 'cell')}: not in these figures")
    if totals.weights_bytes is not None:
        lines.append(
            f"weights {size(totals.weights_bytes)} a model; memory: engine {size(totals.engine_ram_bytes or 0)}, "
            f"merging under {size(totals.merging_ram_bytes)}"
            + (f"; disk {size(totals.disk_bytes)}" if totals.disk_bytes else "")
        )
        if models := totals.models_to_fetch:
            fetched = size(models * totals.weights_bytes)
            lines.append(f"to fetch: up to {counted(models, 'model')}, {fetched} of disk at that dtype")
    if totals.seconds_at_most:
        usual = f"about: answers of {count(length)} tokens or their limit, at most: all at their limit"
        lines.append(f"time here {_times(totals)} ({basis}; {usual})")
    if totals.merging_seconds:
        lines.append(f"merging {about(totals.merging_seconds)} more (2.5 GB/s read and written, assumed)")
    return lines


def _answers(totals: Totals) -> str:
    if not totals.answers_to_generate:
        return "no answers to generate"
    most = counted(totals.tokens_at_most, "token")
    return f"{counted(totals.answers_to_generate, 'answer')} to generate, at most {most}"


def _more_words(totals: Totals) -> list[str]:
    """Say what more than one draw of lambda costs, and what lambdas beside a grid's nodes do."""
    sentences = (
        (totals.draws, "draws: {} more than the paper's one draw (ratio.draws=1)"),
        (totals.sampled, "sampled mixtures: {} more than the nodes alone (ratio.sampled=0)"),
    )
    return [f"{more.count} {words.format(_cost(more))}" for more, words in sentences if more]


def _cost(more: More) -> str:
    if more.answers is None:
        return counted(more.merges, "merge")
    return f"{counted(more.merges, 'merge')} and {'at most ' * more.searching}{counted(more.answers, 'answer')}"


def _times(takes: Totals | GpuForecast) -> str:
    return f"{about(takes.seconds_typical or 0)}, at most {rounded(takes.seconds_at_most or 0)}"


def _gpu_words(plan: Plan, totals: Totals, load: Load | None) -> list[str]:
    """Say what GPUs a large model needs, and how long two of them would take."""
    if load is None or load.weights < _LARGE:
        return []
    one = load.token * load.length // load.split
    fits = [f"{g.name} ({g.sequences})" for g in totals.gpus if g.sequences]
    small = [f"{g.name} {_needs(g)}" for g in totals.gpus if not g.sequences]
    holds = (
        f"holds so many such sequences at once: {', '.join(fits)}" if fits else "too large for each of the known cards"
    )
    lines = [
        f"a GPU at {plan.engine.dtype}, tensor_parallel_size={load.split}: weights {size(load.weights // load.split)}, "
        f"itself {size(OVERHEAD)} (assumed), KV cache {size(one)} for a sequence of {counted(load.length, 'token')}",
        "; ".join([holds, *small]),
    ]
    named = [g for g in totals.gpus if g.name in _NAMED and g.tokens_per_second]
    times = [f"{g.cards} {g.name}: {_times(g)} ({count(g.tokens_per_second or 0)} tokens/s)" for g in named]
    return [*lines, *([f"time elsewhere, assumed from data sheets: {'; '.join(times)}"] if times else [])]


def _needs(gpu: GpuForecast) -> str:
    least = gpu.least_tensor_parallel_size
    return f"needs tensor_parallel_size={least}" if least else "is too small"


def _judging(todo: Sequence[CellForecast]) -> list[str]:
    """Say what judges outside the engine take, a line for each kind of cell."""
    lines = []
    for (benchmark, cost), cells in Counter((cell.benchmark, cell.cost) for cell in todo if cell.cost).items():
        lines.append(
            f"judging {benchmark}: {counted(cost.calls, 'call')}, {counted(cost.prompt_tokens, 'token')} to read and"
            f" at most {count(cost.completion_tokens)} to write, {_price(cost)} a cell, {counted(cells, 'cell')}"
            f" ({cost.basis})"
        )
    return lines


def _price(cost: Cost) -> str:
    if cost.dollars is None:
        return "price not known"
    return f"{cost.dollars:.2f} dollars" if cost.dollars >= 0.01 or not cost.dollars else "under 0.01 dollars"
