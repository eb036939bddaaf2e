"""Merge methods: one function in one file each, named in yaml as `module:function`; there is no registry.

A method gets the same tensor of each expert as float32 and returns the merged one, changing none of its arguments:

    def average(models, weights) -> Tensor
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

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from m3_exp.types import M3Error

ELEMENT, TENSOR = "element", "tensor"


@dataclass(frozen=True)
class Method:
    """A merge method and what its signature asks for."""

    target: str
    function: Callable[..., torch.Tensor]
    hyperparameters: tuple[str, ...]
    required: tuple[str, ...]
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
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise M3Error(f"method {target!r} cannot be imported ({error}): known are {', '.join(known())}") from error
    if not inspect.isfunction(function):
        raise M3Error(
            f"method {target!r} is a {type(function).__name__}, not a function: known are {', '.join(known())}"
        )
    parameters = inspect.signature(function).parameters
    own = {key: p for key, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    positional = [key for key, p in parameters.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    if len(positional) + len(own) < len(parameters) or not _asks_rightly(positional):
        takes = f"{name}{inspect.signature(function)}"[:100]
        raise M3Error(
            f"method {target!r} is {takes}: a merge method is NAME(models | deltas, weights[, base][, cutoffs], *, ...)"
        )
    if "cutoffs" in positional and "retain" not in own:
        raise M3Error(f"method {target!r} names cutoffs, but has no `retain`: add it after the *, as in ties.py")
    granularity = getattr(module, "granularity", TENSOR)
    if granularity not in (ELEMENT, TENSOR):
        raise M3Error(f"{module_name} says granularity = {granularity!r}: {ELEMENT!r} or {TENSOR!r} is allowed")
    return Method(
        target=target,
        function=function,
        hyperparameters=tuple(own),
        required=tuple(key for key, p in own.items() if p.default is inspect.Parameter.empty),
        whole_tensors=granularity == TENSOR,
        takes_deltas="deltas" in positional,
        needs_base="base" in positional,
        needs_cutoffs="cutoffs" in positional,
        coefficients=getattr(module, "coefficients", None),
        proportions=getattr(module, "proportions", None),
        limits=getattr(module, "LIMITS", {}),
    )


def _asks_rightly(positional: Sequence[str]) -> bool:
    """Tell whether positional parameters are those of a method: experts and weights, then what it needs."""
    first, rest = positional[:2], set(positional[2:])
    return first in (["models", "weights"], ["deltas", "weights"]) and rest <= {"base", "cutoffs"}


def known() -> list[str]:
    """Return the names of the methods in this folder, as `module:function`."""
    return sorted(f"{__name__}.{item.name}:{item.name}" for item in pkgutil.iter_modules(__path__))


def check_params(target: str, params: Mapping[str, Any]) -> None:
    """Check hyper-parameters against a method's signature and limits, before anything is read.

    Raises:
        M3Error: unknown (the allowed are listed, and whose it is), missing, not a number, or out of its limits.
    """
    method = load(target)
    name, allowed = target.partition(":")[2], ", ".join(method.hyperparameters) or "none"
    for key in sorted(set(params) - set(method.hyperparameters)):
        owners = [other.partition(":")[2] for other in known() if key in load(other).hyperparameters]
        meant = f"; {key} belongs to {' and '.join(owners)}" if owners else ""
        raise M3Error(f"method {name} has no parameter {key} (={params[key]}): allowed are {allowed}{meant}")
    for key in sorted(set(method.required) - set(params)):
        raise M3Error(f"method {name} needs method.{key}: its parameters are {allowed}")
    for key, value in sorted(params.items()):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise M3Error(f"method.{key}={value} is not a number: give a finite one")
        low, high = method.limits.get(key, (-math.inf, math.inf))
        if not low < value <= high:
            raise M3Error(f"method.{key}={value} is out of range: above {low:g} and at most {high:g}")
