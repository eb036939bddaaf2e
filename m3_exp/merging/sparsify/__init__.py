"""Sparsifiers: functions, named in yaml, that thin the experts' deltas before a method gets them.

    def dare(delta, key, start, *, drop_rate) -> tuple[Tensor, int]

`delta` is one expert's float32 tensor minus the base; what comes back has its shape, beside how many elements were
dropped (for reports). A function that names `key` draws at random. `key` is a number of 64 bits made of (seed, expert's
content, tensor's name), so that the draw does not depend on order, blocks, threads or other tensors. `start` is the
index of the block's first element. `plugins.Declares` above the function says whether it may be given blocks, and when
it changes nothing. docs/methods/ has a page for each: `dare`, `magnitude`, `breadcrumbs`, `della`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from m3_exp.merging.bits import Floats, passed
from m3_exp.merging.plugins import PluginFunction, imported
from m3_exp.types import M3Error, Parameter, Parameters, identity

if TYPE_CHECKING:
    from torch import Tensor

DARE = "m3_exp.merging.sparsify.dare:dare"


@dataclass(frozen=True)
class Sparsifier:
    """A function of one delta with its keywords, and the seed of what it draws. `key` is its identity."""

    named: PluginFunction
    params: Parameters
    seed: int
    key: str

    @cached_property
    def whole_tensors(self) -> bool:
        return self.named.declares.whole_tensors({**self.named.defaults, **self.params})

    @cached_property
    def takes_arrays(self) -> bool:
        return self.named.declares.takes_arrays({**self.named.defaults, **self.params})

    @cached_property
    def chance(self) -> tuple[np.uint64, np.float32] | None:
        """What `dare.chance` says, where this is DARE by element; None of any other."""
        rate = self.params.get("drop_rate")
        if self.named.target != DARE or self.whole_tensors or not isinstance(rate, int | float):
            return None
        from m3_exp.merging.sparsify.dare import chance

        return chance(rate)

    @cached_property
    def on_device(self) -> bool:
        return self.named.declares.on_device({**self.named.defaults, **self.params})

    def __call__(self, delta: Floats, expert: str, tensor: str, start: int) -> tuple[Floats, int]:
        """Thin the delta of an expert (a digest) from flat element `start` of a tensor on; say how many it lost."""
        asked = self._asked(expert, tensor, start)
        made = self.named.function(passed(delta, self.takes_arrays), **asked, **self.params)
        with contextlib.suppress(TypeError, ValueError, RuntimeError, OverflowError):  # no pair, or no count
            thinned, dropped = made
            if type(thinned).__name__ in ("ndarray", "Tensor") and thinned.shape == delta.shape:
                return np.asarray(thinned, np.float32), int(dropped)
        wanted = f"a tensor of {tuple(delta.shape)} and how many elements it dropped"
        raise M3Error(f"sparsifier {self.named.target} returned {type(made).__name__} for {tensor}: give {wanted}")

    def by_torch(self, delta: Tensor, expert: str, tensor: str, start: int) -> tuple[Tensor, int]:
        """Thin a delta that lies on a device."""
        made: tuple[Tensor, int] = self.named.by_torch(delta, **self._asked(expert, tensor, start), **self.params)
        return made

    def _asked(self, expert: str, tensor: str, start: int) -> dict[str, int]:
        """Return what the function asks for beside the delta."""
        given = {"key": self.drawn_by(expert, tensor), "start": start}
        return {name: given[name] for name in self.named.positional[1:]}

    def drawn_by(self, expert: str, tensor: str) -> int:
        """Return the key of what is drawn for a tensor of an expert (a digest)."""
        text = f"dare 1\n{self.seed}\n{expert}\n{tensor}"  # these words are in every mask that was ever drawn
        return int.from_bytes(blake3(text.encode()).digest()[:8], "little")


def load(target: str) -> PluginFunction:
    """Import a sparsifier by `module:function`; it is not called.

    Raises:
        M3Error: there is no such function, or it is no sparsifier.
    """
    named = imported("sparsify", target, DARE)
    if named.has_varargs or named.positional[:1] != ("delta",) or not set(named.positional[1:]) <= {"key", "start"}:
        raise M3Error(f"sparsify {target!r} is {named}: a sparsifier is NAME(delta[, key][, start], *, ...)")
    if set(named.keywords) & {"draws", "seed", "target"}:
        raise M3Error(f"sparsify {target!r} has a keyword draws, seed or target, which every sparsifier has: rename it")
    return named


def asked(target: str, params: Parameters, seed: int) -> Parameters:
    """Return a sparsifier as a recipe holds it: its keywords, `seed` if it draws, `target` if it is not DARE."""
    named = load(target)
    held = named.without_default_words(params) | ({"seed": seed} if "key" in named.positional else {})
    return held if target == DARE else {**held, "target": target}


def shown(target: str, params: Parameters) -> Parameters:
    """Return the keywords that a row of a table names: of DARE, whose tables are older, the words alone."""
    words = load(target).declares.choices
    return {key: value for key, value in params.items() if target != DARE or key in words}


def of(recipe: Parameters) -> Sparsifier:
    """Make the sparsifier that a recipe holds.

    Raises:
        M3Error: it is none, or lacks a keyword, or has another.
    """
    named, params, seed = _read(recipe)
    return Sparsifier(named, params, seed, identity(recipe))


def _read(recipe: Parameters) -> tuple[PluginFunction, dict[str, Parameter], int]:
    """Return the function, the keywords and the seed that a recipe holds; raises as `of`."""
    named = load(str(recipe.get("target", DARE)))
    params = {key: value for key, value in recipe.items() if key not in ("seed", "target")}
    named.check("sparsify", params, ())
    named.check_words("sparsify", params)
    seed = recipe.get("seed", 0)
    if not isinstance(seed, int):
        raise M3Error(f"sparsify.seed={seed} is not a whole number")
    return named, params, seed


def canonical(recipe: Parameters | None) -> Parameters | None:
    """Return a recipe's sparsifier, or None where it changes nothing."""
    if recipe is None:
        return None
    named, params, _ = _read(recipe)
    changes_nothing = named.declares.changes_nothing
    if changes_nothing is not None and changes_nothing(**(named.defaults | params)):
        return None
    return named.without_default_words(recipe)
