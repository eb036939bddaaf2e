"""Merge methods: one function in one file each, named in yaml as `module:function`; there is no registry.

A method gets the same tensor of each expert as float32 and returns the merged one, changing none of its arguments:

    def average(models, weights) -> Tensor
    def task_arithmetic(deltas, weights, base, *, scaling) -> Tensor
    def ties(deltas, weights, base, cutoffs, *, scaling, retain) -> Tensor

`models` are the experts themselves, `deltas` their differences from the base, after DARE where there is one. `weights`
is one number an expert, or None for the method's own default. Naming `base` or `cutoffs` asks for the base's tensor or
the whole-model thresholds (`merging.scan`; `retain` must be among its hyper-parameters then). Keyword-only arguments
are its hyper-parameters. What its module may say:

    granularity = "element"   each element of the result depends on the same element of the inputs alone: the function
                              gets flat blocks of them, in little memory. "tensor", and where nothing is said: it gets
                              whole tensors in their own shape, for norms, cosines or singular values.

And about its algebra, for `merging.canonical`:

    coefficients(n, weights, **hyperparameters)   of a linear method: each delta's share
    proportions(n, weights)   where weights count by their proportions, and an expert that is the base changes nothing
    LIMITS = {name: (low, high)}   of a hyper-parameter: low < value <= high
"""

import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from m3_exp.merging.named import Named, granularity, imported
from m3_exp.types import M3Error, Parameters


@dataclass(frozen=True)
class Method:
    """A merge method and what its signature asks for."""

    named: Named
    whole_tensors: bool
    takes_deltas: bool
    needs_base: bool
    needs_cutoffs: bool
    coefficients: Callable[..., tuple[float, ...]] | None
    proportions: Callable[..., tuple[float, ...]] | None
    limits: Mapping[str, tuple[float, float]]


def load(target: str) -> Method:
    """Import a method by `module:function` and check what it asks for; it is not called.

    Raises:
        M3Error: there is no such module or function (the known ones are named), or it is no merge method.
    """
    named = imported("method", target, ", ".join(known()))
    first, rest = named.positional[:2], named.positional[2:]
    experts_first = first in (("models", "weights"), ("deltas", "weights"))
    if named.others or not experts_first or not set(rest) <= {"base", "cutoffs"}:
        raise M3Error(
            f"method {target!r} is {named}: a merge method is NAME(models | deltas, weights[, base][, cutoffs], *, ...)"
        )
    if "cutoffs" in rest and "retain" not in named.keywords:
        raise M3Error(f"method {target!r} names cutoffs, but has no `retain`: add it after the *, as in ties.py")
    module: Any = named.module
    return Method(
        named=named,
        whole_tensors=granularity(named) == "tensor",
        takes_deltas=first[0] == "deltas",
        needs_base="base" in rest,
        needs_cutoffs="cutoffs" in rest,
        coefficients=getattr(module, "coefficients", None),
        proportions=getattr(module, "proportions", None),
        limits=getattr(module, "LIMITS", {}),
    )


def known() -> list[str]:
    """Return the names of the methods in this folder, as `module:function`."""
    return sorted(f"{__name__}.{item.name}:{item.name}" for item in pkgutil.iter_modules(__path__))


def check_params(target: str, params: Parameters) -> None:
    """Check hyper-parameters against a method's signature and limits, before anything is read.

    Raises:
        M3Error: unknown (the allowed are listed, and whose it is), missing, not a number, or out of its limits.
    """
    method = load(target)
    method.named.check("method", params, (load(other).named for other in known()))
    for key, value in sorted(params.items()):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise M3Error(f"method.{key}={value} is not a number: give a finite one")
        low, high = method.limits.get(key, (-math.inf, math.inf))
        if not low < value <= high:
            raise M3Error(f"method.{key}={value} is out of range: above {low:g} and at most {high:g}")
