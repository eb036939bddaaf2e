"""A forecast in words: what of it is assumed, what it takes here, and what a large model would take elsewhere."""

from collections.abc import Sequence

from m3_exp.engines.gpus import OVERHEAD, Load
from m3_exp.progress import clock
from m3_exp.types import Json, Plan, identity

USUAL = 300  # tokens of an answer that may be longer: assumed
_USUAL = f"about: answers of {USUAL} tokens or their limit, at most: all at their limit"
_TOLD = ("A100 80 GB", "H100 80 GB")  # the cards whose times are told
_LARGE = 1e9  # bytes of weights from which GPUs are spoken of


def words(totals: Json, basis: str) -> list[str]:
    lines = [
        f"{totals['recipes']} distinct recipes, {totals['cells']} cells, {totals['done']} of them done; "
        f"{totals['answers_to_generate']} answers to generate, at most {totals['tokens_at_most']} tokens"
    ]
    if totals["searching_answers_at_most"]:
        lines.append(
            f"at most {totals['searching_answers_at_most']} of these answers are asked by searches for attacks"
        )
    if totals["items_assumed"]:
        lines.append(
            f"{totals['items_assumed']} cells have no items here: counted are the known sizes of official sets"
        )
    if totals["items_unknown"]:
        lines.append(f"{totals['items_unknown']} cells have no items at hand, their cost is not in these figures")
    if totals["weights_bytes"] is not None:
        lines.append(
            f"weights {size(totals['weights_bytes'])} a model; memory: engine {size(totals['engine_ram_bytes'])}, "
            f"merging under {size(totals['merging_ram_bytes'])}; disk {size(totals['disk_bytes'])}"
        )
        if count := totals["models_to_fetch"]:
            fetched = size(count * totals["weights_bytes"])
            lines.append(f"to fetch: up to {count} models, {fetched} of disk at that dtype")
    if totals["seconds_at_most"] is not None:
        lines.append(f"time here {_times(totals)} ({basis}; {_USUAL})")
    if totals["merging_seconds"]:
        lines.append(f"merging about {clock(totals['merging_seconds'])} more (2.5 GB/s read and written, assumed)")
    return lines


def more_words(totals: Json) -> list[str]:
    """Say what more than one draw of lambda costs, and what lambdas beside a grid's nodes do."""
    told = {
        "draws": "draws of lambda: {} more than the paper's one draw (ratio.draws=1)",
        "sampled": "sampled lambdas: {} more than the nodes alone (ratio.sampled=0)",
    }
    return [f"{totals[key]['count']} {words.format(_cost(totals[key]))}" for key, words in told.items() if totals[key]]


def _cost(more: Json) -> str:
    if more["answers"] is None:
        return f"{more['merges']:,} merges"
    return f"{more['merges']:,} merges and {'at most ' * more['searching']}{more['answers']:,} answers"


def _times(totals: Json) -> str:
    return f"about {clock(totals['seconds_typical'])}, at most {clock(totals['seconds_at_most'])}"


def gpu_words(plan: Plan, totals: Json, load: Load | None) -> list[str]:
    """Say what GPUs a large model needs, and how long two of them would take."""
    if load is None or load.weights < _LARGE:
        return []
    one = load.token * load.length // load.split
    fits = [f"{g['name']} ({g['sequences']})" for g in totals["gpus"] if g["sequences"]]
    small = [f"{g['name']} {_needs(g)}" for g in totals["gpus"] if not g["sequences"]]
    holds = (
        f"holds so many such sequences at once: {', '.join(fits)}" if fits else "too large for each of the known cards"
    )
    lines = [
        f"a GPU at {plan.engine.dtype}, tensor_parallel_size={load.split}: weights {size(load.weights // load.split)}, "
        f"itself {size(int(OVERHEAD))} (assumed), KV cache {size(one)} for one sequence of {load.length} tokens",
        "; ".join([holds, *small]),
    ]
    told = [g for g in totals["gpus"] if g["name"] in _TOLD and g["tokens_per_second"]]
    times = [f"{g['cards']} {g['name']}: {_times(g)} ({g['tokens_per_second']:.3g} tokens/s)" for g in told]
    return [*lines, *([f"time elsewhere, assumed from data sheets: {'; '.join(times)}"] if times else [])]


def _needs(gpu: Json) -> str:
    least = gpu["least_tensor_parallel_size"]
    return f"needs tensor_parallel_size={least}" if least else "is too small"


def judging(todo: Sequence[Json]) -> list[str]:
    """Say what judges outside the engine take, a line for each kind of cell."""
    alike: dict[str, list[Json]] = {}
    for cell in todo:
        if cell["cost"]:
            alike.setdefault(identity([cell["benchmark"], cell["cost"]]), []).append(cell)
    lines = []
    for cells in alike.values():
        cost = cells[0]["cost"]
        price = "price not known" if cost["dollars"] is None else f"{cost['dollars']:.2f} dollars"
        lines.append(
            f"judging {cells[0]['benchmark']}: {cost['calls']} calls, {cost['prompt_tokens']} tokens to read and"
            f" at most {cost['completion_tokens']} to write, {price} a cell, {len(cells)} cells ({cost['basis']})"
        )
    return lines


def size(count: int) -> str:
    """Write bytes as people say them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"
