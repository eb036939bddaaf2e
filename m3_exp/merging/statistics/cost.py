"""What measuring a statistic takes, by the headers of its model."""

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from m3_exp.amounts import about, counted, size
from m3_exp.merging import parts
from m3_exp.merging.checkpoint import Model, open_model
from m3_exp.merging.statistics.wanted import Wanted, wanted
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe

_FLOAT = 4  # bytes
_SPEED = 300 * 135e6  # tokens a second x parameters, of a forward pass on two CPU cores
_PASSES = {"grams": 1, "fisher": 2}  # forward: for fisher each layer again on the way back


@dataclass(frozen=True)
class Cost:
    """What one measurement takes. `kept` and `scratch`: bytes on disk, of grams `kept` at most.

    `forward` and `backward`: passes of all its tokens through the model; `work`: tokens times parameters, of forward
    passes, a backward one counting as two, and Gram matrices as one.
    """

    tokens: int
    forward: int
    backward: int
    kept: int
    scratch: int
    work: float


@dataclass(frozen=True)
class Forecast:
    """One statistic that a plan needs: whether it is in the store (`done`, `begun`, `to do`), what all of it takes."""

    wanted: Wanted
    state: str
    cost: Cost


def check_disk(wanted: Wanted, model: Model, folder: Path) -> None:
    """Refuse a measurement for which a disk has no room.

    Raises:
        M3Error: how much it takes, and how much is free.
    """
    needed, free = cost(wanted, model), shutil.disk_usage(folder).free
    if needed.kept + needed.scratch > free:
        raise M3Error(
            f"{wanted} takes up to {size(needed.kept + needed.scratch)} of disk, {folder} has {size(free)} free: make "
            "room, give store=DIR on another disk, or less method.sequences"
        )


def cost(wanted: Wanted, model: Model) -> Cost:
    """Return what measuring takes; only headers are looked at."""
    shapes = {name: entry.shape for name, entry in model.tensors.items() if entry.is_float}
    elements = sum(entry.numel for entry in model.tensors.values() if entry.is_float)
    layers = 1 + max((number for name in shapes if (number := parts.layer(name)) is not None), default=0)
    width = next((shape[1] for name, shape in shapes.items() if name == model.embedding), 0)
    state = _FLOAT * wanted.tokens * width
    forward, backward = _PASSES[wanted.statistic], int(wanted.statistic == "fisher")
    if wanted.statistic == "fisher":
        kept, scratch = _FLOAT * elements, (layers + 3) * state
    else:
        inputs = [shape[1] for name, shape in shapes.items() if len(shape) == 2 and parts.layer(name) is not None]
        kept, scratch = _FLOAT * sum(n * n for n in inputs), 2 * state
    passes = forward + (2 * backward or 1)
    work = float(wanted.tokens) * elements * passes
    return Cost(wanted.tokens, forward, backward, kept, scratch, work)


def forecast(recipes: Iterable[Recipe], store: Store) -> list[Forecast]:
    """Return what the statistics of some recipes take, each once; those of models that are not at hand are left out."""
    found = []
    for one in dict.fromkeys(one for recipe in recipes for one in wanted(recipe)):
        with contextlib.suppress(M3Error):
            key, model = one.key(store), open_model(one.expert, store)
            state = "begun" if any(store.statistic(key).glob("*")) else "to do"
            found.append(Forecast(one, "done" if store.statistics.get(key) else state, cost(one, model)))
    return found


def words(found: Sequence[Forecast]) -> list[str]:
    """Say what the statistics of a plan take, a line for each kind of them."""
    lines = []
    for kind in sorted({one.wanted.statistic for one in found}):
        here = [one for one in found if one.wanted.statistic == kind]
        left = [one.cost for one in here if one.state != "done"]
        line = f"{kind} of {counted(len(here), 'expert')}: {len(here) - len(left)} measured already"
        if left:
            passes = "2 forward passes and a backward one" if left[0].backward else "a forward pass"
            seconds = sum(one.work for one in left) / _SPEED
            line += (
                f"; {passes} over {counted(sum(one.tokens for one in left), 'token')}, {about(seconds)} on two "
                f"CPU cores (assumed); disk at most {size(sum(one.kept for one in left))}, and meanwhile "
                f"{size(max(one.scratch for one in left))}"
            )
        lines.append(line)
    return lines
