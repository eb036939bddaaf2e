"""A recipe by content, with the models that it reads opened, and what makes its tensors.

The sources of a `Job` are content digests, so neither paths nor the order of experts reach the arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from m3_exp.merging import sparsify
from m3_exp.merging.bits import Floats
from m3_exp.merging.canonical import AVERAGE, TASK_ARITHMETIC, TIES, KeyedRecipe, keyed
from m3_exp.merging.checkpoint import Model, open_model
from m3_exp.merging.layout import CODES, Entry, is_vocabulary
from m3_exp.merging.methods import Method, load
from m3_exp.merging.scan import Cutoffs
from m3_exp.merging.sparsify import Sparsifier
from m3_exp.merging.statistics.kept import Statistic
from m3_exp.merging.statistics.wanted import Wanted, wanted
from m3_exp.merging.tokens import opener
from m3_exp.merging.tying import alike
from m3_exp.store import Store
from m3_exp.types import M3Error, Recipe, Source

# Buffers that some checkpoints carry: copied, never merged.
_BUFFER = re.compile(r"(^|\.)(rotary_emb\.inv_freq|masked_bias|position_ids)$")


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
class Form:
    """What makes the tensors of a job, or of one part of it: a recipe without parts and its models."""

    recipe: KeyedRecipe
    experts: tuple[Model, ...]
    method: Method
    sparsifier: Sparsifier | None
    cutoffs: Cutoffs | None = None
    statistics: tuple[Statistic, ...] = ()

    @classmethod
    def of(cls, recipe: KeyedRecipe, job: Job) -> Form:
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
        """The share of each expert in a linear recipe that thins nothing, or by DARE; None of any other."""
        linear = self.method.named.declares.coefficients
        if linear is None or self.recipe.method not in (AVERAGE, TASK_ARITHMETIC):
            return None
        if self.sparsifier and (self.sparsifier.chance is None or not self.method.needs_base):
            return None
        return np.array(linear(len(self.experts), self.recipe.weights, **self.keywords), np.float32)

    @cached_property
    def votes(self) -> Floats | None:
        """The share of each expert in TIES of whole models that thins nothing; None of any other recipe."""
        proportions = self.method.named.declares.proportions
        if proportions is None or self.recipe.method != TIES or self.sparsifier or not self.takes_arrays:
            return None
        return np.array(proportions(len(self.experts), self.recipe.weights, **self.keywords), np.float32)

    @property
    def is_fused(self) -> bool:
        """Whether compiled loops make it of 16-bit numbers."""
        return self.shares is not None or self.votes is not None or self.by_gram is not None

    @property
    def by_gram(self) -> Callable[..., Sequence[float] | None] | None:
        """What gives the coefficients of a tensor by inner products; None of other methods, and of thinned deltas."""
        return None if self.sparsifier else self.method.named.declares.by_gram

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
