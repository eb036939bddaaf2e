"""A plan on machines that are described: `m3 plan node=8xH100-80` says which engines, in what order, for how long.

The groups of cells go through the very queue that workers take them from; only the times are computed: an engine's
start, the swap of weights, and the answers of one benchmark after the other. Judges and sandboxes are not counted.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from m3_exp.amounts import about, count, counted, rounded
from m3_exp.engines import gpus, pace
from m3_exp.engines.gpus import Load, Node
from m3_exp.engines.pace import Lengths, Step, flight_seconds
from m3_exp.forecast import Forecast
from m3_exp.forecast_words import CellForecast
from m3_exp.groups import Evaluation, Group, Queue, arranged, grouped
from m3_exp.merging.source import without_fetching
from m3_exp.planning import label_text
from m3_exp.results import Results
from m3_exp.types import Cell, EngineSettings, Json, M3Error, Recipe, plain

START = 120.0  # seconds until an engine on GPUs is there: assumed
AT_LIMIT = Lengths(mean=1e9, spread=0.0)  # every answer is cut
_SHOWN = 2  # engines whose order is written out
_FIRST = 3  # groups of such an engine


@dataclass(frozen=True)
class Times:
    """How long one engine takes, in seconds; `basis` says what that rests on."""

    start: float
    swap: Callable[[Recipe], float]
    sequences: int
    step: Step
    lengths: Lengths
    basis: str

    @property
    def tokens_per_second(self) -> float:
        """The rate of the engine with all its sequences at work."""
        return self.sequences / self.step(self.sequences)


@dataclass(frozen=True)
class EngineSchedule:
    """The groups of one engine in their order, each by the label of its weights, and the second at which it is done."""

    groups: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Schedule:
    """What a plan takes on described machines; `seconds_at_most`: with all answers at their limit. `dollars` is None
    where no price is given. `busy`: the share of the GPUs' time in which engines are at work.
    """

    node: str
    launcher: str
    engines: int
    tensor_parallel_size: int
    sequences: int
    tokens_per_second: float
    basis: str
    seconds: float
    seconds_at_most: float
    gpu_hours: float
    busy: float
    dollars: float | None
    order: tuple[EngineSchedule, ...]

    @property
    def json(self) -> Json:
        """What `m3 plan --json` prints of it, as "node"."""
        shown: Json = plain(self)
        return shown


def simulated(
    groups: Sequence[Group], engines: int, times: Times, answers: Callable[[Cell], tuple[int, int]]
) -> tuple[EngineSchedule, ...]:
    """Let so many engines take the groups from the queue of a run, and return what each does.

    `answers` gives how many answers a cell still takes, and the limit of each in tokens.
    """

    @cache
    def generating(asked: tuple[tuple[int, int], ...]) -> float:
        return flight_seconds(asked, times.lengths, times.sequences, times.step)

    queue = Queue(groups)
    free = [(0.0, engine) for engine in range(engines)]
    last: dict[int, Group] = {}
    done: list[list[Group]] = [[] for _ in range(engines)]
    ends = [0.0] * engines
    while free:
        now, engine = heapq.heappop(free)
        before = last.get(engine)
        if (group := queue.take(before)) is None:
            continue
        begins = before is None or before.tokenizer != group.tokenizer
        took = (times.start if begins else 0.0) + times.swap(group.recipe)
        took += generating(tuple(answers(evaluation.cell) for evaluation in group.evaluations))
        queue.done()
        last[engine], ends[engine] = group, now + took
        done[engine].append(group)
        heapq.heappush(free, (now + took, engine))
    return tuple(
        EngineSchedule(tuple(label_text(group.evaluations[0].cell.labels[0]) for group in mine), end)
        for mine, end in zip(done, ends, strict=True)
    )


def schedule(
    found: Forecast,
    results: Results,
    engine: EngineSettings,
    node: Node,
    *,
    launcher: str,
    workers: int | None = None,
    price: float | None = None,
) -> Schedule:
    """Return what is left of a plan on described machines.

    Args:
        workers: engines at most; None: as many as the machines hold.
        price: dollars for an hour of one GPU.

    Raises:
        M3Error: the model does not fit, or its size is not known.
    """
    split, times = _times(found, engine, node)
    engines = node.machines * (node.gpus // split)
    engines = min(engines, workers or engines)
    cells = {id(cell.cell): cell for cell in found.cells}
    groups = _groups([cell for cell in found.cells if cell.state != "done"], results)

    def answers(cell: Cell) -> tuple[int, int]:
        known = cells[id(cell)]
        return known.left or 0, known.max_tokens

    order = simulated(groups, engines, times, answers)
    longest = simulated(groups, engines, replace(times, lengths=AT_LIMIT), answers)
    seconds = max((one.seconds for one in order), default=0.0)
    hours = node.machines * node.gpus * seconds / 3600
    at_work = split * sum(one.seconds for one in order) / 3600
    return Schedule(
        node=str(node),
        launcher=launcher,
        engines=engines,
        tensor_parallel_size=split,
        sequences=times.sequences,
        tokens_per_second=times.tokens_per_second,
        basis=times.basis,
        seconds=seconds,
        seconds_at_most=max((one.seconds for one in longest), default=0.0),
        gpu_hours=hours,
        busy=at_work / hours if hours else 1.0,
        dollars=None if price is None else price * hours,
        order=order,
    )


def _groups(todo: Sequence[CellForecast], results: Results) -> list[Group]:
    """Return the groups of a run; where models are not at hand, as if all prompts could share an engine."""
    evaluations = [Evaluation(cell.cell) for cell in todo]
    try:
        with without_fetching():
            return grouped(evaluations, results)
    except M3Error:
        one = {evaluation.cell.tokenizer: todo[0].cell.tokenizer for evaluation in evaluations}
        return arranged(evaluations, one, lambda cell: cell.recipe.identity)


def _times(found: Forecast, engine: EngineSettings, node: Node) -> tuple[int, Times]:
    """Return the tensor parallel size of an engine on described machines, and how long it takes."""
    given = engine.pace
    if given is not None and given.tokens_per_second is not None:
        if engine.tensor_parallel_size > node.gpus:
            raise M3Error(
                f"node={node} has {counted(node.gpus, 'GPU')} a machine, engine.tensor_parallel_size="
                f"{engine.tensor_parallel_size} needs more: give a smaller one"
            )
        rehearsed = Times(
            given.start, lambda recipe: given.swap, given.sequences, pace.step(given), pace.law(given),
            "the pace that is given",
        )  # fmt: skip
        return engine.tensor_parallel_size, rehearsed
    if found.load is None:
        raise M3Error("node=...: the model's size is not known here: give family.parameters and family.cache_values")
    split = _split(found.load, node)
    load = replace(found.load, split=split)
    return split, Times(
        START, lambda recipe: found.merging.get(recipe.identity, 0.0), gpus.at_once(node.gpu, load),
        lambda running: gpus.step(node.gpu, load, running), Lengths(mean=found.length), "assumed from data sheets",
    )  # fmt: skip


def _split(load: Load, node: Node) -> int:
    """Return the tensor parallel size that is asked for if the model fits so, else the smallest at which it does."""
    least = gpus.least_split(node.gpu, load)
    split = load.split if gpus.sequences(node.gpu, load, load.length) else least
    if split is None or split > node.gpus:
        needs = "more than 8" if least is None else f"{least}"
        raise M3Error(
            f"node={node} is too small: one engine needs {needs} of such GPUs for the weights and one sequence of"
            f" {counted(load.length, 'token')}; give a larger node, or a smaller engine.max_model_len"
        )
    return split


# ---------------------------------------------------------------------------------------------------------- words


def words(plan: Schedule) -> list[str]:
    """Return what `m3 plan` says of a schedule; nothing where nothing is left to do."""
    if not any(engine.groups for engine in plan.order):
        return []
    engines = f"{counted(plan.engines, 'engine')} at engine.tensor_parallel_size={plan.tensor_parallel_size}"
    jobs = f" workers={plan.engines}" if plan.launcher == "slurm" else ""  # which takes one job by itself
    rate = f"{count(plan.tokens_per_second)} tokens/s each with {counted(plan.sequences, 'answer')} in flight"
    times = f"{about(plan.seconds)}, at most {rounded(plan.seconds_at_most)}"
    price = "give price=DOLLARS of a GPU hour for the cost"
    if plan.dollars is not None:
        price = f"{count(plan.dollars)} dollars"
    idle = sum(not engine.groups for engine in plan.order)
    return [
        f"on {plan.node}, launcher={plan.launcher}{jobs}: {engines}, {rate} ({plan.basis})",
        f"time there {times}: {counted(plan.gpu_hours, 'GPU hour')}, {plan.busy:.0%} of them at work; {price};"
        " judges and sandboxes not counted",
        *([f"{counted(idle, 'engine')} of these would have nothing to do: fewer machines will do"] if idle else []),
        *_order([engine for engine in plan.order if engine.groups]),
    ]


def _order(order: Sequence[EngineSchedule]) -> list[str]:
    """Return the first groups of the first engines, and how many groups engines have."""
    lines = []
    for number, engine in enumerate(order[:_SHOWN], 1):
        named = "; ".join(engine.groups[:_FIRST])
        rest = len(engine.groups) - _FIRST
        lines.append(f"engine {number}: {named}" + (f"; and {count(rest)} more" if rest > 0 else ""))
    if len(order) > _SHOWN:
        sizes = [len(engine.groups) for engine in order[_SHOWN:]]
        few = "" if min(sizes) == max(sizes) else f"{count(min(sizes))} to "
        each = f"{few}{counted(max(sizes), 'set of weights', 'sets of weights')}"
        lines.append(f"{counted(len(order) - _SHOWN, 'other engine')}: {each} each (--json lists them)")
    return lines
