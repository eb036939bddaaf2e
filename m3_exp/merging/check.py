"""Refuses a recipe before anything is written, in one line, and forecasts what a merge will take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3_exp.merging.canonical import canonical, keyed, needs_base
from m3_exp.merging.checkpoint import Model
from m3_exp.merging.jobs import Job, is_copied, prepare
from m3_exp.merging.layout import Entry, is_vocabulary
from m3_exp.merging.methods import load
from m3_exp.merging.model_config import check_same_architecture
from m3_exp.merging.tokens import opener
from m3_exp.merging.tying import alike
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe

_SAMPLE, _SAMPLES = 4096, 4  # elements of a sampled block, and blocks of a tensor
# Guesses for a forecast, measured on two cores: bytes read or written a second, and passes over the inputs by TIES.
_BYTES_PER_SECOND = 5.0e9
_TIES_PASSES = 4
_START = 1.0  # seconds


@dataclass(frozen=True)
class Forecast:
    """What one merge will take, from headers alone: counts, bytes, and a guess of seconds on two cores."""

    parameters: int
    input_bytes: int
    output_bytes: int
    seconds: float


def check(recipe: Recipe, store: Store) -> Job:
    """Refuse a recipe that cannot be merged, before any output; return the job that carries it out.

    Checked first are headers and configurations, then the inputs' digests (NaN and Inf), then the experts' lineage.

    Raises:
        M3Error: in one line, what is wrong with which file or tensor, what is allowed, what to do.
    """
    check_headers(recipe, store)
    job = prepare(recipe, store)
    if recipe.check_lineage:
        opened = opener(recipe, store)
        for expert in recipe.experts:
            _check_lineage(opened(expert), opened(recipe.base))
    return job


def forecast(recipe: Recipe, store: Store) -> Forecast:
    """Say what merging a recipe takes; only headers are read.

    Raises:
        M3Error: as `check`, for what headers can tell.
    """
    check_headers(recipe, store)
    form = keyed(recipe, lambda source: source, store)
    opened = [*map(opener(recipe, store), (*form.experts, form.base))]
    *experts, base = alike(opened)
    entries = Job(form, tuple(experts), base).layout()
    parameters = sum(entry.numel for name, entry in entries.items() if not is_copied(name, entry))
    input_bytes = sum(model.nbytes for model in (opened if load(form.method).reads_base else opened[:-1]))
    output_bytes = sum(entry.nbytes for entry in entries.values())
    return Forecast(parameters, input_bytes, output_bytes, seconds(form.method, input_bytes, output_bytes))


def seconds(method: str, input_bytes: float, output_bytes: float) -> float:
    """Guess how many seconds a merge of so many bytes takes on two cores."""
    passes = _TIES_PASSES if load(method).needs_cutoffs else 1
    return _START + (passes * input_bytes + output_bytes) / _BYTES_PER_SECOND


def check_headers(recipe: Recipe, store: Store) -> None:
    """Refuse a recipe whose models do not fit together, by their headers and configurations; raises as `check`."""
    _check_models(_opened(recipe, store), recipe.vocab)


def _opened(recipe: Recipe, store: Store) -> list[Model]:
    form = canonical(recipe)
    needed = {*form.experts, *((recipe.base,) if recipe.check_lineage or needs_base(form) else ())}
    used = {*recipe.experts} if recipe.check_lineage else set()
    return alike([*map(opener(recipe, store), sorted({*needed, *used}, key=str))])


def _check_models(models: list[Model], vocab: str) -> None:
    first = models[0]
    for model in models:
        for name, entry in model.tensors.items():
            if is_vocabulary(name) and not entry.shape:
                raise M3Error(
                    f"{model.source}: {name} is a scalar, of shape (), a row a token is needed: fetch it again"
                )
    for other in models[1:]:
        names = (str(first.source), str(other.source))
        check_same_architecture(first.config, other.config, names)
        _check_names(_merged(first), _merged(other), names)
        for name, entry in _merged(first).items():
            _check_shape(name, entry.shape, other.tensors[name].shape, names, vocab)


def _merged(model: Model) -> dict[str, Entry]:
    return {name: entry for name, entry in model.tensors.items() if not is_copied(name, entry)}


def _check_names(ours: Mapping[str, Entry], theirs: Mapping[str, Entry], names: Sequence[str]) -> None:
    for has, lacks, who in ((ours, theirs, names), (theirs, ours, names[::-1])):
        missing = sorted(set(has) - set(lacks))
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise M3Error(f"{who[1]} lacks {missing[0]}{more}, which {who[0]} has: their tensors must be the same")


def _check_shape(name: str, ours: tuple[int, ...], theirs: tuple[int, ...], who: Sequence[str], vocab: str) -> None:
    if ours == theirs:
        return
    if not is_vocabulary(name) or ours[1:] != theirs[1:]:
        raise M3Error(f"{name} is {ours} in {who[0]} and {theirs} in {who[1]}: their shapes must be the same")
    if vocab == "refuse":
        raise M3Error(
            f"{name} has {ours[0]} rows in {who[0]} and {theirs[0]} in {who[1]}: vocab=refuse forbids that; "
            "vocab=mean pads the shorter with the mean of its rows"
        )
    if vocab != "mean":
        raise M3Error(f"vocab={vocab} is not known: mean or refuse")


def _check_lineage(expert: Model, base: Model) -> None:
    """Refuse an expert further from the base than the base is from 0, on a fixed sample of every matrix."""
    if expert is base:
        return
    expert, base = alike([expert, base])
    delta = size = 0.0
    for name, entry in base.tensors.items():
        if len(entry.shape) < 2 or is_copied(name, entry) or name not in expert.tensors:
            continue
        rows = min(entry.numel, expert.tensors[name].numel)
        for start in _starts(rows):
            stop = min(start + _SAMPLE, rows)
            ours = base.floats(name, start, stop).astype(np.float64)
            theirs = expert.floats(name, start, stop).astype(np.float64)
            delta += float(np.square(theirs - ours).sum())
            size += float(np.square(ours).sum())
    if delta > size:
        times = (delta / size) ** 0.5
        raise M3Error(
            f"{expert.source} is not a fine-tune of {base.source}: it differs from it by {times:.1f} times the base "
            "itself; give experts of this base, or check_lineage=false"
        )


def _starts(numel: int) -> list[int]:
    last = max(0, numel - _SAMPLE)
    return sorted({last * i // (_SAMPLES - 1) for i in range(_SAMPLES)})
