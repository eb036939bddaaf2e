"""What a plan would cost and what of it is there already: `m3 plan`. Reads headers and item files, never weights.

A figure that rests on an assumption says so. The assumed speed is replaced by one that an earlier run measured, if the
store has one. Models and items need not be at hand: then the family's yaml gives the size of the models, and each
evaluator the official number of its items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from m3_exp.amounts import count, counted
from m3_exp.engines.gpus import GPUS, Gpu, Load, least_split, sequences, speed
from m3_exp.engines.pace import USUAL
from m3_exp.engines.sharing import visible_gpus
from m3_exp.engines.weights import MAX_MODEL_LEN
from m3_exp.forecast_words import CellForecast, GpuForecast, More, Totals, words
from m3_exp.machine import in_parts
from m3_exp.merging import methods, stream
from m3_exp.merging.check import seconds
from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.model_config import cache_values
from m3_exp.merging.notes import notes as adapter_notes
from m3_exp.merging.source import without_fetching
from m3_exp.merging.statistics import cost as statistics
from m3_exp.planning import mixture_text
from m3_exp.results import Results
from m3_exp.scoring.evaluator import Cost
from m3_exp.store import Answers, Rate, Store
from m3_exp.tasks import Task
from m3_exp.types import Cell, Json, M3Error, Plan, Recipe, identity, plain

N = TypeVar("N", int, float)
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_CPU_SPEED = 300 * 135e6  # tokens a second x parameters, a first guess: SmolLM2-135M in float32 on two CPU cores


@dataclass(frozen=True)
class Forecast:
    """What a plan would cost, as data and in words: `notes` begin with the plan's own.

    `load`: its model in an engine; None where its size is not known. `merging`: the seconds that the weights of a
    recipe (by its identity) take. `length`: the tokens of a usual answer. `more`: what else is forecast, as data.
    """

    cells: tuple[CellForecast, ...]
    totals: Totals
    plan_notes: tuple[str, ...]
    own_notes: tuple[str, ...]
    load: Load | None = None
    merging: Mapping[str, float] = field(default_factory=dict)
    length: float = USUAL
    more: Json = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.plan_notes, *self.own_notes)

    @property
    def json(self) -> Json:
        """What `m3 plan --json` prints."""
        return {
            "cells": [cell.json for cell in self.cells],
            "totals": plain(self.totals),
            "notes": self.notes,
        } | self.more


@dataclass(frozen=True)
class MergeForecast:
    """What one recipe's weights take: their bytes, the seconds to make them, or why they cannot be made.

    `models` are those it is made of where one of them is not at hand.
    """

    weights: int | None = None
    seconds: float = 0.0
    refused: str | None = None
    models: tuple[str, ...] = ()


def forecast(
    plan: Plan,
    results: Results,
    parameters: int | None,
    *,
    keep: bool,
    cache_values: int | None = None,
    outlived: bool = False,
) -> Forecast:
    """Look at every cell: cached, begun, to do, or what is not at hand; then add up items, bytes and time.

    `parameters` and `cache_values` (of the KV cache, a token) are the family's, for models that are not at hand.
    `outlived`: a cell whose model or items are gone is done where the store has its result; a run would refuse it.
    """
    store = results.store
    with without_fetching():
        recipes = _recipes(plan.cells)
        merges = _merges(recipes, store, parameters)
        cells = _cells(plan, results, outlived)
        cache = _cache_values(plan, store) or cache_values
        mixed = {recipe.experts: recipe for recipe in recipes.values()}
        adapters = sorted({line for recipe in mixed.values() for line in adapter_notes(recipe, store)})
        measuring = statistics.forecast(recipes.values(), store)
    measured = store.rates.get(identity([plan.engine.name, plan.engine.dtype, parameters]))
    length = (measured.tokens_per_answer if measured is not None else None) or USUAL
    totals = _totals(plan, cells, merges, keep, length)
    load = _load(plan, totals.weights_bytes, cache)
    rate, basis = _speed(plan, measured, parameters, load)
    typical, most = _seconds(totals, rate)
    gpus = () if load is None else tuple(_on(gpu, load, totals) for gpu in GPUS)
    totals = replace(totals, seconds_typical=typical, seconds_at_most=most, gpus=gpus)
    refused = sorted({merge.refused for merge in merges.values() if merge.refused})
    notes = (*adapters, *statistics.words(measuring), *words(plan, _open(cells), totals, basis, load, length))
    own = (*notes, *(f"cannot be merged: {reason}" for reason in refused))
    merging = {key: merge.seconds for key, merge in merges.items()}
    more: Json = {"measuring": plain(measuring)} if measuring else {}
    return Forecast(cells, totals, plan.notes, own, load, merging, length, more)


def _recipes(cells: Sequence[Cell] | Sequence[CellForecast]) -> dict[str, Recipe]:
    """Return the different recipes of cells by their identity; those of one variant are one object."""
    objects = {id(cell.recipe): cell.recipe for cell in cells}
    return {recipe.identity: recipe for recipe in objects.values()}


def _open(cells: Sequence[CellForecast]) -> list[CellForecast]:
    return [cell for cell in cells if cell.state != "done"]


def _totals(
    plan: Plan, cells: Sequence[CellForecast], merges: Mapping[str, MergeForecast], keep: bool, length: float
) -> Totals:
    """Add up what a plan takes, with answers of so many tokens, or their limit."""
    todo = _open(cells)
    unmade = _recipes(todo)
    weights = max((merge.weights or 0 for merge in merges.values()), default=0) or None
    answers = sum(c.left or 0 for c in todo)
    return Totals(
        recipes=len(merges),
        cells=len(cells),
        done=len(cells) - len(todo),
        answers_to_generate=answers,
        searching_answers_at_most=sum(c.searching for c in todo),
        tokens_at_most=sum((c.left or 0) * c.max_tokens for c in todo),
        tokens_typical=round(sum((c.left or 0) * min(c.max_tokens, length) for c in todo)),
        items_assumed=sum(c.state == "items missing" and c.n is not None for c in cells),
        items_unknown=sum(c.n is None for c in cells),
        weights_bytes=weights,
        merging_ram_bytes=1 << 30,
        merging_seconds=sum(merges[key].seconds for key in unmade),
        engine_ram_bytes=None if weights is None else weights + int((plan.engine.kv_cache_gib or 4.0) * 2**30),
        models_to_fetch=len({model for key in unmade for model in merges[key].models}),
        disk_bytes=answers * 1500 + (len(merges) * (weights or 0) if keep else 0),
        judging_dollars=_sum([c.cost.dollars for c in todo if c.cost]),
        draws=_more(plan, cells, "mixup", first=1),
        sampled=_more(plan, cells, "sampled", first=0),
    )


def _more(plan: Plan, cells: Sequence[CellForecast], ratio: str, *, first: int) -> More | None:
    """Return how many draws of lambda a plan has, and what those after the `first` cost, done or not; None without."""
    number = {label.draw for cell in plan.cells for label in cell.labels if label.ratio == ratio}
    if len(number) <= first:
        return None
    added = [all(x.ratio == ratio and (x.draw or 0) >= first for x in cell.labels) for cell in plan.cells]
    more = [cell for cell, new in zip(cells, added, strict=True) if new]
    others = [cell for cell, new in zip(cells, added, strict=True) if not new]
    return More(
        count=len(number),
        merges=len(_recipes(more).keys() - _recipes(others).keys()),
        answers=_sum([cell.answers for cell in more]),
        searching=any(cell.searches for cell in more),
    )


# ----------------------------------------------------------------------------------------------------------- cells


class _Items(NamedTuple):
    """How many items a cell has, how many answers they take, those of a search among them, why they are not at hand.

    Of official items the number is known without them, too (an evaluator's `official_rows`); None where it is not.
    """

    n: int | None
    answers: int | None
    searching: int
    missing: str | None


class _Left(NamedTuple):
    """The state of a cell, how many answers it still takes, those of a search among them, and what is missing."""

    state: str
    left: int | None
    searching: int
    reason: str | None = None


def _cells(plan: Plan, results: Results, outlived: bool) -> tuple[CellForecast, ...]:
    counted: dict[tuple[str, int | None], _Items] = {}
    costs: dict[tuple[str, int | None], Cost | None] = {}
    keys = [(results.tasks.key(cell.evaluator), cell.limit) for cell in plan.cells]
    for cell, key in zip(plan.cells, keys, strict=True):
        if key not in counted:
            counted[key] = _counted(cell, results)
    lines = []
    rows = [(cell, counted[key]) for cell, key in zip(plan.cells, keys, strict=True)]
    states = in_parts(lambda part: [_state(cell, items, results) for cell, items in part], rows)
    for cell, key, found in zip(plan.cells, keys, states, strict=True):
        if outlived and found.reason and results.outlive(cell):
            found = _Left("done", 0, 0)
        if found.state not in ("items missing", "done") and key not in costs:
            costs[key] = results.tasks.evaluator(cell.evaluator).cost(results.tasks.problems(cell))
        cost = None if found.state in ("items missing", "done") else costs[key]
        lines.append(_cell(cell, results, counted[key], found, cost))
    return tuple(lines)


def _counted(cell: Cell, results: Results) -> _Items:
    evaluator, missing = results.tasks.evaluator(cell.evaluator), None
    try:
        n: int | None = len(results.tasks.problems(cell))
    except M3Error as error:
        rows, missing = evaluator.official_rows(), str(error)
        n = None if rows is None or cell.evaluator.items != "official" else min(rows, cell.limit or rows)
    searching, scored = evaluator.searched(n or 0)
    return _Items(n, None if n is None else searching + scored * evaluator.sampling.n, searching, missing)


def _cell(cell: Cell, results: Results, items: _Items, found: _Left, cost: Cost | None) -> CellForecast:
    sampling = results.tasks.evaluator(cell.evaluator).sampling
    return CellForecast(
        cell=cell,
        lams=tuple(sorted({label.lam for label in cell.labels if label.lam is not None})),
        alpha=tuple(sorted({label.alpha for label in cell.labels if label.alpha is not None})),
        recipe=cell.recipe,
        benchmark=cell.evaluator.name,
        evaluator=cell.evaluator,
        tokenizer=str(cell.tokenizer),
        sampling=sampling,
        max_tokens=sampling.max_tokens,
        limit=cell.limit,
        n=items.n,
        answers=items.answers,
        searches=items.searching > 0,
        left=found.left,
        searching=found.searching,
        state=found.state,
        reason=found.reason,
        cost=cost,
        mixtures=tuple(dict.fromkeys(mixture_text(label) for label in cell.labels if label.point and label.experts)),
    )


def _state(cell: Cell, items: _Items, results: Results) -> _Left:
    """Return the state of a cell, and how much of it is left to do."""
    if items.missing is not None:
        return _Left("items missing", items.answers, 0 if items.n is None else items.searching, items.missing)
    try:
        if not results.tasks.prompts.is_quick(cell) and not results.knows(cell):
            return _Left("to do", items.answers, items.searching)
        task = results.tasks.task(cell)
        return _Left("done", 0, 0) if results.is_done(task) else _begun(results, task)
    except M3Error as error:
        return _Left("model missing", items.answers, items.searching, str(error))


def _begun(results: Results, task: Task) -> _Left:
    """Return what of a cell without a result is left; a search that is not over counts in full."""
    searching, scored = task.evaluator.searched(len(task.problems))
    known = results.store.merges.get(results.recipe_key(task.cell))
    held = 0
    if known is not None:
        made = results.store.prepared.get(results.prepared_key(known.digest, task))
        if made is not None:
            task = results.tasks.prepared(task, made.problems)
            searching, scored = 0, len(task.problems)
        held = _held(task, results.store.answers(results.answers_key(known.digest, task)))
    left = max(0, searching + scored * task.sampling.n - held)
    return _Left("begun" if held else "to do", left, searching)


def _held(task: Task, journal: Answers) -> int:
    """Count the answers that a run would not ask for again: those to the prompts as they are now."""
    answers = journal.asked()
    if not answers:
        return 0
    asked = set(zip(task.ids, task.hashed, strict=True))
    return len({(key, sample) for key, prompt, sample in answers if (key, prompt) in asked})


# ---------------------------------------------------------------------------------------------- weights and memory


def _merges(recipes: Mapping[str, Recipe], store: Store, parameters: int | None) -> dict[str, MergeForecast]:
    """Return the forecast of each recipe. Weights, hyper-parameters and seeds make no difference to it."""
    known: dict[tuple[object, ...], MergeForecast] = {}
    merges = {}
    for key, recipe in recipes.items():
        parts = (recipe.weights, recipe.parts) if recipe.parts else ()
        alike = (recipe.base, recipe.experts, recipe.method, recipe.dtype, recipe.vocab, recipe.check_lineage, parts)
        if alike not in known:
            known[alike] = _merge(recipe, store, parameters)
        merges[key] = known[alike]
    return merges


def _merge(recipe: Recipe, store: Store, parameters: int | None) -> MergeForecast:
    """Look at one recipe's headers; where models are not at hand, guess from the number of parameters."""
    try:
        headers = stream.forecast(recipe, store)
    except M3Error as error:
        return MergeForecast(refused=str(error)) if _at_hand(recipe, store) else _guess(recipe, parameters)
    return MergeForecast(int(headers.output_bytes), headers.seconds)


def _at_hand(recipe: Recipe, store: Store) -> bool:
    try:
        for source in (recipe.base, *recipe.experts):
            open_model(source, store)
    except M3Error:
        return False
    return True


def _guess(recipe: Recipe, parameters: int | None) -> MergeForecast:
    models = tuple(str(source) for source in (recipe.base, *recipe.experts))
    if parameters is None:
        return MergeForecast(models=models)
    weights = parameters * _BYTES[recipe.dtype]
    read = weights * (len(recipe.experts) + methods.load(recipe.method).reads_base)
    return MergeForecast(weights, seconds(recipe.method, read, weights), models=models)


def _cache_values(plan: Plan, store: Store) -> int | None:
    """Return how many values the KV cache holds of a token, by the first model's configuration; None without it."""
    try:
        config = open_model(plan.cells[0].recipe.experts[0], store).config
    except M3Error:
        return None
    return cache_values(config)


def _load(plan: Plan, weights: int | None, cache: int | None) -> Load | None:
    if weights is None or cache is None:
        return None
    engine = plan.engine
    length = engine.max_model_len or MAX_MODEL_LEN
    width, split, share = _BYTES[engine.dtype], engine.tensor_parallel_size, engine.gpu_memory_utilization
    return Load(weights, width, cache, length, split, share)


# ------------------------------------------------------------------------------------------------------------ time


def _speed(plan: Plan, measured: Rate | None, parameters: int | None, load: Load | None) -> tuple[float | None, str]:
    """Return the tokens a second of this machine, and where that figure is from."""
    if measured is not None:
        return measured.tokens_per_second, "measured by an earlier run in this store"
    gpus = len(visible_gpus())
    if gpus and load is not None:
        engines = max(1, gpus // load.split)
        rate = engines * speed(next(gpu for gpu in GPUS if gpu.name == "A100 80 GB"), load)
        cards = f"{counted(engines, 'engine')} on {counted(gpus, 'GPU')} (A100 80 GB)"
        return rate or None, f"assumed: {count(rate)} tokens/s with {cards}"
    if parameters is None:
        return None, "the model's size is not known here"
    rate = _CPU_SPEED / parameters
    return rate, f"assumed: {count(rate)} tokens/s for {counted(parameters, 'parameter')} with no GPU"


def _seconds(totals: Totals, rate: float | None) -> tuple[float | None, float | None]:
    """Return how long all answers take at a rate: of usual length, and all at their limit."""
    return (totals.tokens_typical / rate, totals.tokens_at_most / rate) if rate else (None, None)


def _on(gpu: Gpu, load: Load, totals: Totals) -> GpuForecast:
    """Say what one engine on such cards would do; where the model does not fit, on the fewest cards that hold it."""
    least = least_split(gpu, load)
    fits = sequences(gpu, load, load.length)
    used = load if fits or least is None else replace(load, split=least)
    rate = speed(gpu, used) or None
    return GpuForecast(gpu.name, fits, least, used.split, rate, *_seconds(totals, rate))


def _sum(numbers: Sequence[N | None]) -> N | None:
    """Return a sum; None where one of the numbers is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def repeats_words(plan: Plan, store: Store, repeat: int) -> list[str]:
    """Say for `m3 plan` and `m3 status` what `repeat=K` adds to a plan's cells; nothing where it is 0."""
    if not repeat:
        return []
    results = Results(store, plan.engine)
    done, answers = 0, 0
    with without_fetching():
        for cell in plan.cells:
            left, asked = _repeats_left(cell, results, repeat)
            done, answers = done + repeat - left, answers + asked
    more = f"{counted(answers, 'more answer')} to generate" if answers else "no more answers to generate"
    return [f"repeats (noise floor): {count(done)} of {count(len(plan.cells) * repeat)} done; {more}"]


def _repeats_left(cell: Cell, results: Results, repeat: int) -> tuple[int, int]:
    """Return how many repeats of a cell are not done, and the answers that they take."""
    try:
        tasks = [results.tasks.task(cell, number) for number in range(1, repeat + 1)]
        left = sum(not results.is_done(task) for task in tasks)
    except M3Error:
        return repeat, 0
    return left, left * tasks[0].answers
