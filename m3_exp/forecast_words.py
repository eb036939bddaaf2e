"""What a forecast holds, and the same in words: what is assumed, what it takes here, and on other cards.

The names of the fields are the keys of `m3 plan --json` (`lams` is `lambda` there).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from m3_exp.engines.gpus import OVERHEAD, Load
from m3_exp.progress import clock
from m3_exp.scoring.evaluator import Cost
from m3_exp.types import EvaluatorSpec, Json, Plan, Recipe, Sampling, plain

USUAL = 300  # tokens of an answer that may be longer: assumed
_USUAL = f"about: answers of {USUAL} tokens or their limit, at most: all at their limit"
_NAMED = ("A100 80 GB", "H100 80 GB")  # the cards whose times are named
_LARGE = 1e9  # bytes of weights from which GPUs are spoken of


@dataclass(frozen=True)
class CellForecast:
    """What a cell takes: `n` items (None: not known) and `answers` in all, of which `left` are not there yet.

    `searching`: as many of those at most as an attack's search asks for. `reason`: why items or a model are missing.
    """

    labels: tuple[str, ...]
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

    @property
    def json(self) -> Json:
        return {"lambda" if key == "lams" else key: value for key, value in plain(self).items()}


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


def words(plan: Plan, todo: Sequence[CellForecast], totals: Totals, basis: str, load: Load | None) -> list[str]:
    """Return what `m3 plan` says of a forecast; `basis` is what the speed of this machine is taken from."""
    return [*_more_words(totals), *_here(totals, basis), *_gpu_words(plan, totals, load), *_judging(todo)]


def _here(totals: Totals, basis: str) -> list[str]:
    lines = [
        f"{totals.recipes} distinct recipes, {totals.cells} cells, {totals.done} of them done; "
        f"{totals.answers_to_generate} answers to generate, at most {totals.tokens_at_most} tokens"
    ]
    if totals.searching_answers_at_most:
        lines.append(f"at most {totals.searching_answers_at_most} of these answers are asked by searches for attacks")
    if totals.items_assumed:
        lines.append(f"{totals.items_assumed} cells have no items here: counted are the known sizes of official sets")
    if totals.items_unknown:
        lines.append(f"{totals.items_unknown} cells have no items at hand, their cost is not in these figures")
    if totals.weights_bytes is not None:
        lines.append(
            f"weights {size(totals.weights_bytes)} a model; memory: engine {size(totals.engine_ram_bytes or 0)}, "
            f"merging under {size(totals.merging_ram_bytes)}; disk {size(totals.disk_bytes)}"
        )
        if count := totals.models_to_fetch:
            fetched = size(count * totals.weights_bytes)
            lines.append(f"to fetch: up to {count} models, {fetched} of disk at that dtype")
    if totals.seconds_at_most is not None:
        lines.append(f"time here {_times(totals)} ({basis}; {_USUAL})")
    if totals.merging_seconds:
        lines.append(f"merging about {clock(totals.merging_seconds)} more (2.5 GB/s read and written, assumed)")
    return lines


def _more_words(totals: Totals) -> list[str]:
    """Say what more than one draw of lambda costs, and what lambdas beside a grid's nodes do."""
    sentences = (
        (totals.draws, "draws of lambda: {} more than the paper's one draw (ratio.draws=1)"),
        (totals.sampled, "sampled lambdas: {} more than the nodes alone (ratio.sampled=0)"),
    )
    return [f"{more.count} {words.format(_cost(more))}" for more, words in sentences if more]


def _cost(more: More) -> str:
    if more.answers is None:
        return f"{more.merges:,} merges"
    return f"{more.merges:,} merges and {'at most ' * more.searching}{more.answers:,} answers"


def _times(takes: Totals | GpuForecast) -> str:
    return f"about {clock(takes.seconds_typical or 0)}, at most {clock(takes.seconds_at_most or 0)}"


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
        f"itself {size(int(OVERHEAD))} (assumed), KV cache {size(one)} for one sequence of {load.length} tokens",
        "; ".join([holds, *small]),
    ]
    named = [g for g in totals.gpus if g.name in _NAMED and g.tokens_per_second]
    times = [f"{g.cards} {g.name}: {_times(g)} ({g.tokens_per_second:.3g} tokens/s)" for g in named]
    return [*lines, *([f"time elsewhere, assumed from data sheets: {'; '.join(times)}"] if times else [])]


def _needs(gpu: GpuForecast) -> str:
    least = gpu.least_tensor_parallel_size
    return f"needs tensor_parallel_size={least}" if least else "is too small"


def _judging(todo: Sequence[CellForecast]) -> list[str]:
    """Say what judges outside the engine take, a line for each kind of cell."""
    lines = []
    for (benchmark, cost), cells in Counter((cell.benchmark, cell.cost) for cell in todo if cell.cost).items():
        price = "price not known" if cost.dollars is None else f"{cost.dollars:.2f} dollars"
        lines.append(
            f"judging {benchmark}: {cost.calls} calls, {cost.prompt_tokens} tokens to read and"
            f" at most {cost.completion_tokens} to write, {price} a cell, {cells} cells ({cost.basis})"
        )
    return lines


def size(count: int) -> str:
    """Write bytes as people say them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"
