"""Merge methods: one function in one file each, named in yaml as `module:function`; there is no registry.

A method gets the same tensor of each expert as float32 and returns the merged one, changing none of its arguments:

    def average(models, weights) -> Tensor
    def task_arithmetic(deltas, weights, base, *, scaling) -> Tensor
    def ties(deltas, weights, base, cutoffs, *, scaling, retain) -> Tensor

`models` are the experts themselves, `deltas` their differences from the base, after DARE where there is one. `weights`
is one number an expert, or None for the method's own default. Naming `base` or `cutoffs` asks for the base's tensor or
the whole-model thresholds (`merging.scan`; `retain` must be among its hyper-parameters then); naming `measured`, for
what was measured of each expert (`Declares.statistic`, and `Measured` below). Keyword-only arguments are its
hyper-parameters: numbers, or words of which `Declares.choices` lists the allowed ones. What a signature cannot
say stands in `plugins.Declares` above the function. docs/methods/ has a page for each:

    average, task_arithmetic, ties, nearswap    element by element; consensus: with TALL masks
    slerp, nuslerp, karcher, model_stock        by lengths and angles of whole tensors
    sce                                         by energies of whole tensors
    tsv_m, iso_c                                by singular vectors
    fisher, regmean                             by what was measured of the experts on text
"""

import contextlib
import math
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from m3_exp.merging.plugins import PluginFunction, imported
from m3_exp.types import HyperParameters, M3Error, Parameters

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Measured:
    """What was measured of the tensor at hand: a float32 tensor for each expert, in their order.

    Of fisher they have the shape of the block, of grams (n, n) for a linear layer with n inputs. `norms`: of each
    expert the square root of the sum of all squared elements, over its whole model.
    """

    values: Sequence["Tensor"]
    norms: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Method:
    """A merge method and what its signature asks for."""

    named: PluginFunction
    takes_deltas: bool
    needs_base: bool
    needs_cutoffs: bool

    @property
    def statistic(self) -> str:
        """What it needs measured of each expert on text, "" for nothing."""
        return self.named.declares.statistic

    @property
    def reads_base(self) -> bool:
        """Whether the base has an influence on what the method makes."""
        return self.takes_deltas or self.needs_base or self.needs_cutoffs

    def keywords(self, params: HyperParameters) -> dict[str, float | str]:
        """Return hyper-parameters as the function is to get them: its defaults too, whole numbers where it says `int`.

        In recipes, and so in keys, they are floats.
        """
        given = {key: int(value) if self.named.types(key) == (int,) else value for key, value in params.items()}
        return self.named.defaults | given

    def scans(self, params: HyperParameters) -> bool:
        """Tell whether it needs whole-model thresholds when it has these hyper-parameters."""
        asked = self.named.declares.scans
        return self.needs_cutoffs and (asked is None or asked(**self.keywords(params)))

    def canonical(self, params: HyperParameters) -> HyperParameters:
        """Return hyper-parameters as keys have them: numbers are floats, a word that is the default is left out."""
        held = self.named.without_default_words(params)
        return {key: value if isinstance(value, str) else float(value) for key, value in sorted(held.items())}


def load(target: str) -> Method:
    """Import a method by `module:function` and check what it asks for; it is not called.

    Raises:
        M3Error: there is no such module or function (the known ones are named), or it is no merge method.
    """
    named = imported("method", target, ", ".join(known()))
    return _method(named)


@lru_cache(maxsize=256)
def _method(named: PluginFunction) -> Method:
    target = named.target
    first, rest = named.positional[:2], named.positional[2:]
    experts_first = first in (("models", "weights"), ("deltas", "weights"))
    if named.has_varargs or not experts_first or not set(rest) <= {"base", "cutoffs", "measured"}:
        form = "NAME(models | deltas, weights[, base][, cutoffs][, measured], *, ...)"
        raise M3Error(f"method {target!r} is {named}: a merge method is {form}")
    if "cutoffs" in rest and "retain" not in named.keywords:
        raise M3Error(f"method {target!r} names cutoffs, but has no `retain`: add it after the *, as in ties.py")
    if ("measured" in rest) != bool(named.declares.statistic) or (
        named.declares.statistic and not {"text", "sequences", "length"} <= {*named.keywords}
    ):
        raise M3Error(
            f"method {target!r}: `measured`, `statistic` in Declares, and the keywords text, sequences and length go "
            "together, as in fisher.py"
        )
    for key in (key for key in named.keywords if not {int, float}.issuperset(named.types(key))):
        if key not in named.words:
            raise M3Error(
                f"method {target!r}: {key} is no number: a method's keywords are annotated int, float or not at all, "
                "or have `choices` in Declares"
            )
    return Method(
        named=named,
        takes_deltas=first[0] == "deltas",
        needs_base="base" in rest,
        needs_cutoffs="cutoffs" in rest,
    )


def is_affine(target: str, params: HyperParameters) -> bool:
    """Tell whether a method's result is a straight line in the weights; one that is not here says nothing else."""
    with contextlib.suppress(M3Error):
        method = load(target)
        said = method.named.declares.affine
        return said if isinstance(said, bool) else said(**method.keywords(params))
    return True


@cache
def known() -> tuple[str, ...]:
    """Return the names of the methods in this folder, as `module:function`."""
    return tuple(sorted(f"{__name__}.{item.name}:{item.name}" for item in pkgutil.iter_modules(__path__)))


def check_params(target: str, params: Parameters) -> None:
    """Check hyper-parameters against a method's signature and limits, before anything is read.

    Raises:
        M3Error: unknown (the allowed are listed, and whose it is), missing, not a number, or out of its limits.
    """
    _check(load(target), tuple((key, type(value), value) for key, value in sorted(params.items())))


@lru_cache(maxsize=1024)  # with the types: 1, 1.0 and True are one key
def _check(method: Method, params: tuple[tuple[str, type, object], ...]) -> None:
    method.named.check("method", [key for key, _, _ in params], (load(other).named for other in known()))
    method.named.check_words("method", {key: value for key, _, value in params})
    if any(key == "text" and (not isinstance(value, str) or not value) for key, _, value in params):
        raise M3Error('method.text is no text: give "lab", or the path of a .txt or .jsonl file')
    for key, value in ((key, value) for key, _, value in params if key not in method.named.words):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise M3Error(f"method.{key}={value} is not a number: give a finite one")
        if method.named.types(key) == (int,) and value != int(value):
            raise M3Error(f"method.{key}={value} is not a whole number: {method.named} takes one")
        low, high = method.named.declares.limits.get(key, (-math.inf, math.inf))
        if not low < value <= high:
            raise M3Error(f"method.{key}={value} is out of range: above {low:g} and at most {high:g}")
