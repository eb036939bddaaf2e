"""From recipes to merged blocks: which models a recipe reads, in which order, and what one block of its output is.

The sources of a `Job` are content digests, so neither paths nor the order of experts reach the arithmetic. A `Blender`
serves several jobs that share inputs: each block is read and sparsified once for all of them.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3_exp.merging import sparsify
from m3_exp.merging.bits import Bytes, Floats, is_finite, passed, rounded, widened
from m3_exp.merging.canonical import AVERAGE, TASK_ARITHMETIC, KeyedRecipe, keyed
from m3_exp.merging.checkpoint import Model, open_model
from m3_exp.merging.device import DEVICE_BLOCK, Device
from m3_exp.merging.layout import CODES, Entry, is_vocabulary, tensor_bytes, torch_dtype
from m3_exp.merging.methods import Measured, Method, load
from m3_exp.merging.scan import Cutoffs, Scan, blocks, by_size, cutoffs
from m3_exp.merging.sparsify import Sparsifier
from m3_exp.merging.statistics.kept import Statistic
from m3_exp.merging.statistics.process import ensure
from m3_exp.merging.statistics.wanted import Wanted, wanted
from m3_exp.merging.tokens import opener
from m3_exp.merging.tying import alike
from m3_exp.store import Store
from m3_exp.types import Json, M3Error, Recipe, Source, plain

if TYPE_CHECKING:
    import torch

Values: TypeAlias = Any  # float32: an array, or a tensor of a device; both have slices, shapes and -
BLOCK = 1 << 16  # elements: a few float32 blocks stay in a core's cache
_FUSED = 4  # blocks at once for the loop of linear recipes, which cuts its own
# Buffers that some checkpoints carry: copied, never merged.
_BUFFER = re.compile(r"(^|\.)(rotary_emb\.inv_freq|masked_bias|position_ids)$")
_MEAN_ROWS = 1024  # rows summed at once, in float64


@dataclass(frozen=True)
class Job:
    """A recipe by content, with its opened models: the experts in the recipe's order, and its base."""

    recipe: KeyedRecipe
    experts: tuple[Model, ...]
    base: Model
    wanted: Mapping[str, Wanted] = field(default_factory=dict)  # of each expert, by its digest

    @property
    def models(self) -> tuple[Model, ...]:
        return (*self.experts, self.base)

    @property
    def dtype(self) -> str:
        """The dtype of the output, as safetensors writes it."""
        return CODES[self.recipe.dtype]

    @property
    def tied(self) -> bool:
        return self.experts[0].tied

    def layout(self) -> dict[str, Entry]:
        """Return every tensor of the output by name: vocabularies at their largest, copied tensors as they are."""
        entries: dict[str, Entry] = {}
        for model in self.models:
            for name, entry in model.tensors.items():
                seen = entries.get(name)
                if is_copied(name, entry):
                    entries.setdefault(name, entry)
                elif seen is None or entry.shape[:1] > seen.shape[:1]:
                    entries[name] = Entry(entry.shape, self.dtype)
        return dict(sorted(entries.items()))

    def touched(self) -> dict[str, dict[str, list[int]]]:
        """Return the vocabulary rows [first, end) that each model lacks and gets the mean of its rows for."""
        full = self.layout()
        return {
            name: short
            for name in full
            if is_vocabulary(name)
            and (
                short := {
                    str(model.source): [model.tensors[name].shape[0], full[name].shape[0]]
                    for model in self.models
                    if model.tensors[name].shape[0] < full[name].shape[0]
                }
            )
        }


def prepare(recipe: Recipe, store: Store) -> Job:
    """Open a recipe's models and return it by content. Digests are taken here, and NaN and Inf are refused."""
    models: dict[str, Model] = {}
    opened = opener(recipe, store)

    def content(source: Source) -> Source:
        model = opened(source)
        return Source(models.setdefault(model.digest, model).digest)

    form = keyed(recipe, content, store)
    *experts, base = alike([models[source.location] for source in (*form.experts, form.base)])
    statistics = {open_model(one.expert, store).digest: one for one in wanted(recipe)}
    return Job(form, tuple(experts), base, statistics)


def merged_names(sources: Sequence[Source], store: Store) -> list[str]:
    """Return the names of the tensors that a merge of some models computes, by their headers."""
    models = alike([open_model(source, store) for source in sources])
    return sorted({n for model in models for n, entry in model.tensors.items() if not is_copied(n, entry)})


def is_copied(name: str, entry: Entry) -> bool:
    """Tell whether a tensor is copied from the first model that has it: buffers, and whatever is not a float."""
    return not entry.is_float or _BUFFER.search(name) is not None


def overflow(name: str, dtype: str) -> M3Error:
    """Return the refusal of an output that is not finite."""
    return M3Error(
        f"the merged {name} holds NaN or Inf in {dtype}: its values do not fit; write bfloat16 or float32 (dtype=...)"
    )


@dataclass
class _Form:
    """What makes the tensors of a job, or of one part of it: a recipe without parts and its models."""

    recipe: KeyedRecipe
    experts: tuple[Model, ...]
    method: Method
    sparsifier: Sparsifier | None
    cutoffs: Cutoffs | None = None
    statistics: tuple[Statistic, ...] = ()

    @classmethod
    def of(cls, recipe: KeyedRecipe, job: Job) -> _Form:
        by_content = dict(zip(job.recipe.experts, job.experts, strict=True))
        experts = tuple(by_content[expert] for expert in recipe.experts)
        sparsifier = sparsify.of(recipe.sparsify) if recipe.sparsify else None
        return cls(recipe, experts, load(recipe.method), sparsifier)

    @cached_property
    def keywords(self) -> dict[str, float | str]:
        return self.method.keywords(self.recipe.params)

    def is_measured(self, name: str) -> bool:
        """Tell whether what the method needs of a tensor was measured, in every expert."""
        return bool(self.statistics) and all(name in one.entries for one in self.statistics)

    @cached_property
    def whole_tensors(self) -> bool:
        """Whether the method is given whole tensors."""
        return self.method.named.declares.whole_tensors(self.keywords)

    @cached_property
    def shares(self) -> Floats | None:
        """The share of each expert in a linear recipe that thins nothing; None of any other."""
        linear = self.method.named.declares.coefficients
        if linear is None or self.sparsifier or self.recipe.method not in (AVERAGE, TASK_ARITHMETIC):
            return None
        return np.array(linear(len(self.experts), self.recipe.weights, **self.keywords), np.float32)

    @cached_property
    def takes_arrays(self) -> bool:
        """Whether the method is given numpy arrays."""
        return self.method.named.declares.takes_arrays(self.keywords)

    @cached_property
    def left_to_cpu(self) -> list[str]:
        """What of it no device serves: its method, its sparsifier."""
        method, sparsifier = self.method.named, self.sparsifier
        left = [] if method.declares.on_device(self.keywords) else [f"method {method.name}"]
        return left + ([f"sparsify {sparsifier.named.name}"] if sparsifier and not sparsifier.on_device else [])


class Blender:
    """Computes the blocks of several jobs. What they need of the whole model is scanned when it is made.

    On a `device` where it serves a recipe, else on the CPU: the same bytes. What is scanned is counted on the CPU.
    `block`: how many elements are made at once, by default what suits the CPU or the device.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        store: Store,
        pool: ThreadPoolExecutor,
        block: int | None = None,
        device: Device | None = None,
    ) -> None:
        self.jobs, self.device = jobs, device
        self.layouts = [job.layout() for job in jobs]
        self._block, self._device_block = block or BLOCK, block or DEVICE_BLOCK
        self._lock = threading.Lock()
        self._means: dict[tuple[str, str], Floats] = {}
        self._dropped: dict[tuple[str, str], list[int]] = {}
        self._forms = [{id(form): _Form.of(form, job) for form in job.recipe.forms or (job.recipe,)} for job in jobs]
        used = [one for forms in self._forms for form in forms.values() for one in (form, form.sparsifier) if one]
        if not all(one.takes_arrays for one in used):
            import torch  # noqa: F401  # before the pool's threads begin, which then use one core each
        for job, layout, forms in zip(jobs, self.layouts, self._forms, strict=True):
            scanned: dict[tuple[object, ...], Cutoffs] = {}  # the parts of a model share what its whole says
            for form in (form for form in forms.values() if form.method.scans(form.recipe.params)):
                scan = self._scan(job, form, layout)
                key = scan.experts, scan.retain
                form.cutoffs = scanned[key] = scanned.get(key) or cutoffs(scan, store, pool)
            for form in (form for form in forms.values() if form.method.statistic):
                form.statistics = tuple(ensure(job.wanted[model.digest], store) for model in form.experts)

    @property
    def names(self) -> list[str]:
        """Every tensor of any job, the largest first."""
        return by_size({name: entry.numel for layout in self.layouts for name, entry in layout.items()})

    def blocks(self, name: str) -> list[tuple[int, int]]:
        """Return the ranges [start, stop) of flat elements in which a tensor is made; one range for whole tensors."""
        numel = max(layout[name].numel for layout in self.layouts if name in layout)
        forms = [form for job_forms in self._forms for form in job_forms.values()]
        whole = any(used.whole_tensors for form in forms for used in (form, form.sparsifier) if used)
        block = self._block * (_FUSED if all(form.shares is not None for form in forms) else 1)
        if self.device and not all(form.left_to_cpu for form in forms):
            block = self._device_block
        return list(blocks(numel, max(numel, 1) if whole else block))

    def blend(self, name: str, start: int, stop: int) -> Iterator[Bytes | None]:
        """Give one block of each job's output: the bytes of the flat elements [start, stop), in its final dtype.

        None for a job whose tensor ends before `start`. Only one output is in memory at a time.

        Raises:
            M3Error: the block holds NaN or Inf.
        """
        here, there = _Block(self, name, start, stop), _Block(self, name, start, stop, device=self.device)
        return (self._one(index, here, there) for index in range(len(self.jobs)))

    def report(self, index: int) -> Json:
        """Return what happened to a job: vocabulary rows filled, tensors copied, DARE and TIES shares as measured."""
        job, forms = self.jobs[index], [*self._forms[index].values()]
        thinned = {
            str(model.source): self._dropped[(model.digest, form.sparsifier.key)]
            for form in forms
            for model in form.experts
            if form.sparsifier and (model.digest, form.sparsifier.key) in self._dropped
        }
        cut = next((form for form in forms if form.cutoffs), None)
        report: Json = {
            "touched_rows": job.touched(),
            "copied": [name for name, entry in self.layouts[index].items() if is_copied(name, entry)],
        }
        if thinned:
            report["dropped"] = {name: gone / total for name, (gone, total) in thinned.items()}
        if cut and cut.cutoffs:
            names = [str(model.source) for model in cut.experts]
            report["kept"] = dict(zip(names, cut.cutoffs.kept, strict=True))
            report["cutoffs"] = dict(zip(names, cut.cutoffs.magnitudes, strict=True))
        if self.device:
            left = sorted({what for form in forms for what in form.left_to_cpu})
            report |= {"device": str(self.device), "left_to_cpu": left}
        if any(form.statistics for form in forms):
            report |= {**self._measured(index), "averaged": self.averaged(index)}
        return report

    def averaged(self, index: int) -> list[str]:
        """Return the tensors of a job that were averaged, because what the method needs was not measured of them."""
        forms = self._by_tensor(index)
        return [name for name, form in forms.items() if form.statistics and not form.is_measured(name)]

    def _measured(self, index: int) -> Json:
        """Return what was measured of the experts of a job, by their names."""
        forms = self._by_tensor(index).values()
        pairs = [pair for form in forms if form.statistics for pair in zip(form.experts, form.statistics, strict=True)]
        return {"measured": plain({str(model.source): one.record for model, one in pairs})}

    def _by_tensor(self, index: int) -> dict[str, _Form]:
        """Return what makes each tensor of a job that is not copied."""
        merged = [name for name, entry in self.layouts[index].items() if not is_copied(name, entry)]
        return {name: self._forms[index][id(self.jobs[index].recipe.form(name))] for name in merged}

    def _one(self, index: int, here: _Block, there: _Block) -> Bytes | None:
        """Return one job's block, made here by the CPU or there by the device."""
        job, entry = self.jobs[index], self.layouts[index].get(here.name)
        if entry is None or here.start >= entry.numel:
            return None
        stop = min(here.stop, entry.numel)
        if is_copied(here.name, entry):
            owner = next(model for model in job.models if here.name in model.tensors)
            made = owner.stored(here.name, here.start, stop)
        else:
            form = self._forms[index][id(job.recipe.form(here.name))]
            if self.device and not form.left_to_cpu:
                return self._made_there(self.device, job, form, there, entry.shape, stop - here.start)
            made = self._made_here(job, form, here, entry.shape, stop - here.start)
        if not is_finite(made, entry.dtype):
            raise overflow(here.name, job.recipe.dtype)
        return made

    def _made_there(
        self, device: Device, job: Job, form: _Form, block: _Block, whole: tuple[int, ...], count: int
    ) -> Bytes:
        with device.in_line():
            made = device.rounded(self._merged(job, form, block, whole, count), job.dtype)
            if made is None:
                raise overflow(block.name, job.recipe.dtype)
            return device.fetched(made)

    def _made_here(self, job: Job, form: _Form, block: _Block, whole: tuple[int, ...], count: int) -> Bytes:
        if (fused := _fused(form, job, block.name, block.start, block.start + count)) is not None:
            return fused
        made = self._merged(job, form, block, whole, count)
        if type(made).__name__ == "Tensor":
            return tensor_bytes(made.to(torch_dtype(job.dtype)))
        return rounded(np.ascontiguousarray(made, np.float32).reshape(-1), job.dtype)

    def _merged(self, job: Job, form: _Form, block: _Block, whole: tuple[int, ...], count: int) -> Values:
        """Return the first `count` elements of a block as one job merges them; `whole` is its tensor's shape."""
        method = form.method
        function = method.named.by_torch if block.device else method.named.function
        shape = whole if form.whole_tensors else (count,)

        def given(values: Values) -> Values:
            values = values[:count].reshape(shape)
            return values if block.device else passed(values, form.takes_arrays)

        if method.takes_deltas:
            experts = [block.delta(model, job.base, form.sparsifier, whole) for model in form.experts]
        else:
            experts = [block.plain(model) for model in form.experts]
        extra: dict[str, object] = {}
        if method.needs_base:
            extra["base"] = given(block.plain(job.base))
        if method.needs_cutoffs:
            extra["cutoffs"] = form.cutoffs
        if method.statistic:
            extra["measured"] = block.measured(form, shape) if form.is_measured(block.name) else None
        with np.errstate(all="ignore"):  # what does not fit is refused below
            made = function([given(one) for one in experts], form.recipe.weights, **extra, **form.keywords)
        kind = type(made).__name__
        if kind not in ("ndarray", "Tensor") or made.shape != shape:
            what = kind if kind not in ("ndarray", "Tensor") else tuple(made.shape)
            raise M3Error(
                f"method {method.named.target} returned {what} for {block.name}, a tensor of {shape} is needed"
            )
        return made

    def _scan(self, job: Job, form: _Form, layout: Mapping[str, Entry]) -> Scan:
        base, recipe, sparsifier, block = job.base, form.recipe, form.sparsifier, self._block
        by_digest = {model.digest: model for model in form.experts}
        whole = sparsifier is not None and sparsifier.whole_tensors

        def deltas(name: str, start: int, stop: int, experts: Sequence[str]) -> list[Floats]:
            read = _Block(self, name, start, layout[name].numel if whole else stop, counted=False)
            deltas_of = [read.delta(by_digest[expert], base, sparsifier, layout[name].shape) for expert in experts]
            return [delta[: stop - start] for delta in deltas_of]

        sizes = {name: base.tensors[name].numel for name, entry in layout.items() if not is_copied(name, entry)}
        experts = tuple(model.digest for model in form.experts)
        block = max(sizes.values(), default=block) if whole else block
        return Scan(base.digest, experts, sizes, float(recipe.params["retain"]), recipe.sparsify, deltas, block)

    def count_dropped(self, digest: str, sparsifier: Sparsifier, dropped: int, total: int) -> None:
        with self._lock:
            counts = self._dropped.setdefault((digest, sparsifier.key), [0, 0])
            counts[0] += dropped
            counts[1] += total

    def mean_row(self, model: Model, name: str) -> Floats:
        """Return the mean of a model's own rows, for those that its vocabulary lacks."""
        import torch

        key = (model.digest, name)
        if key not in self._means:
            rows, *rest = model.tensors[name].shape
            width = rest[0] if rest else 1
            total = torch.zeros(width, dtype=torch.float64)
            for first in range(0, rows, _MEAN_ROWS):
                last = min(first + _MEAN_ROWS, rows)
                total += model.read(name, first * width, last * width).view(-1, width).sum(0, dtype=torch.float64)
            self._means[key] = (total / rows).float().numpy()
        return self._means[key]


def _fused(form: _Form, job: Job, name: str, start: int, stop: int) -> Bytes | None:
    """Return a block of a linear recipe in one compiled loop, where all that it reads and writes is of one 16-bit dtype
    and no row is missing; the same bytes as by the method's function.
    """
    if form.shares is None or form.experts[0].tensors[name].dtype != job.dtype:
        return None
    words = _halves([*form.experts, *([job.base] if form.method.needs_base else [])], name, start, stop)
    if words is None:
        return None
    from m3_exp.merging.kernels import linear

    experts, out = tuple(words[: len(form.experts)]), np.empty(stop - start, np.uint16)
    base = words[-1] if form.method.needs_base else out[:0]
    linear(experts, base, form.shares, job.dtype == "F16", out)
    return out.view(np.uint8)


def _halves(models: Sequence[Model], name: str, start: int, stop: int) -> list[NDArray[np.uint16]] | None:
    """Return the bits of a block of each model, where they are of one 16-bit dtype of floats and all have it whole."""
    entries = [model.tensors[name] for model in models]
    dtype = entries[0].dtype
    if dtype not in ("BF16", "F16") or any(one.dtype != dtype or stop > one.numel for one in entries):
        return None
    return [model.stored(name, start, stop).view(np.uint16) for model in models]


class _Block:
    """One block's inputs, shared by all jobs: each model's float32 elements and deltas, made at most once.

    They are arrays, or tensors on its device.
    """

    def __init__(
        self,
        blender: Blender,
        name: str,
        start: int,
        stop: int,
        counted: bool = True,
        device: Device | None = None,
    ) -> None:
        self.name, self.start, self.stop, self.device = name, start, stop, device
        self._blender, self._counted = blender, counted
        self._plain: dict[str, Values] = {}
        self._deltas: dict[tuple[object, ...], Values] = {}

    def plain(self, model: Model) -> Values:
        """Return a model's elements; rows past its own vocabulary are the mean of its rows."""
        if model.digest not in self._plain:
            entry = model.tensors[self.name]
            parts = []
            if self.start < entry.numel:
                stored = model.stored(self.name, self.start, min(self.stop, entry.numel))
                parts.append(self._floats(stored, entry.dtype))
            if self.stop > entry.numel:
                mean = self._blender.mean_row(model, self.name)
                new = mean[np.arange(max(self.start, entry.numel), self.stop) % mean.size]
                parts.append(self._floats(new.view(np.uint8), "F32"))
            self._plain[model.digest] = self._joined(parts)
        return self._plain[model.digest]

    def _floats(self, stored: Bytes, dtype: str) -> Values:
        return self.device.floats(stored, dtype) if self.device else widened(stored, dtype)

    def _joined(self, parts: Sequence[Values]) -> Values:
        if len(parts) == 1:
            return parts[0]
        if self.device is None:
            return np.concatenate(parts)
        import torch

        return torch.cat([*parts])

    def measured(self, form: _Form, shape: tuple[int, ...]) -> Measured:
        """Return what was measured of the experts: of fisher for elements of this shape, of grams whole matrices."""
        by_element = form.method.statistic == "fisher"
        values = [self._value(one, by_element) for one in form.statistics]
        values = [value[: math.prod(shape)].view(shape) if by_element else value for value in values]
        values = [value.to(self.device.device) for value in values] if self.device else values
        return Measured(values, tuple(one.record.norm for one in form.statistics))

    def _value(self, statistic: Statistic, by_element: bool) -> torch.Tensor:
        """Return one expert's, with 0 for the rows of a vocabulary that it lacks."""
        import torch

        entry = statistic.entries[self.name]
        if not by_element:
            return statistic.read(self.name, 0, entry.numel).view(entry.shape)
        value = statistic.read(self.name, min(self.start, entry.numel), min(self.stop, entry.numel))
        return torch.nn.functional.pad(value, (0, self.stop - self.start - value.numel()))

    def delta(self, model: Model, base: Model, sparsifier: Sparsifier | None, shape: tuple[int, ...]) -> Values:
        """Return an expert's difference from the base, thinned where there is a sparsifier: flat, of a tensor that has
        this shape in the output.
        """
        whole = sparsifier is not None and sparsifier.whole_tensors
        key = (model.digest, base.digest, sparsifier and sparsifier.key, whole and shape)
        if key not in self._deltas:
            delta = self._difference(model, base)
            if sparsifier is None:
                self._deltas[key] = delta
            elif whole:
                made = self._thinned(delta[: math.prod(shape)].reshape(shape), model, sparsifier, self.start)
                self._deltas[key] = made.reshape(-1)
            else:
                self._deltas[key] = self._by_element(delta, model, sparsifier)
        return self._deltas[key]

    def _difference(self, model: Model, base: Model) -> Values:
        words = None if self.device else _halves([model, base], self.name, self.start, self.stop)
        if words is None:
            return self.plain(model) - self.plain(base)
        from m3_exp.merging.kernels import difference

        delta = np.empty(self.stop - self.start, np.float32)
        difference(words[0], words[1], model.tensors[self.name].dtype == "F16", delta)
        return delta

    def _by_element(self, delta: Values, model: Model, sparsifier: Sparsifier) -> Values:
        own = max(0, min(len(delta), model.tensors[self.name].numel - self.start))
        thinned = self._thinned(delta[:own], model, sparsifier, self.start)
        if own == len(delta):
            return thinned
        return self._joined([thinned, self._thinned(delta[own:], model, sparsifier, self.start + own, counted=False)])

    def _thinned(self, delta: Values, model: Model, sparsifier: Sparsifier, start: int, counted: bool = True) -> Values:
        """Only the model's own rows are `counted`, so that a report does not depend on the other jobs."""
        thin = sparsifier.by_torch if self.device else sparsifier
        thinned, dropped = thin(delta, model.digest, self.name, start)
        if counted and self._counted:
            self._blender.count_dropped(model.digest, sparsifier, dropped, math.prod(delta.shape))
        return thinned
