"""Functions that yaml names as `module:function`: methods, ratios and sparsifiers. There is no registry.

A signature is a schema: keyword-only parameters are what yaml and the command line may set, their annotations say as
what. Importing is all that happens here; nothing is called.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, get_args

from m3_exp.types import M3Error


@dataclass(frozen=True)
class Named:
    """An imported function: the names of its positional parameters, and its keyword-only ones."""

    target: str
    function: Callable[..., Any]
    module: ModuleType
    positional: tuple[str, ...]
    keywords: Mapping[str, inspect.Parameter]
    others: bool  # parameters of another kind, as *args

    @property
    def name(self) -> str:
        return self.target.partition(":")[2]

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(key for key, parameter in self.keywords.items() if parameter.default is inspect.Parameter.empty)

    def types(self, keyword: str) -> tuple[type, ...]:
        """Return the plain types that a keyword's annotation names; none where it says nothing that is known."""
        said = self.keywords[keyword].annotation
        return tuple(one for one in get_args(said) or (said,) if one in (bool, int, float, str, type(None)))

    def check(self, kind: str, params: Iterable[str], known: Iterable["Named"]) -> None:
        """Refuse keywords that the function lacks (naming whose of the `known` they are), or needs and does not get."""
        given, allowed = set(params), ", ".join(self.keywords) or "none"
        for key in sorted(given - set(self.keywords)):
            owners = [other.name for other in known if key in other.keywords]
            meant = f"; {key} belongs to {' and '.join(owners)}" if owners else ""
            raise M3Error(f"{kind} {self.name} has no parameter {key}: allowed are {allowed}{meant}")
        for key in (key for key in self.required if key not in given):
            raise M3Error(f"{kind} {self.name} needs {kind}.{key}: its parameters are {allowed}")

    def __str__(self) -> str:
        return f"{self.name}{inspect.signature(self.function)}"[:100]


def imported(kind: str, target: str, known: str) -> Named:
    """Import a `kind` of function by `module:function`.

    Raises:
        M3Error: there is no such module or function; `known` is named.
    """
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", target):
        raise M3Error(f"{kind}.target={target} is not module:function, as {known.split(', ')[0]} is")
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise M3Error(f"{kind} {target!r} cannot be imported ({error}): known are {known}") from error
    if not inspect.isfunction(function):
        raise M3Error(f"{kind} {target!r} is a {type(function).__name__}, not a function: known are {known}")
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except (NameError, AttributeError, TypeError, SyntaxError):  # annotations that only a type checker can read
        parameters = inspect.signature(function).parameters
    own = {key: p for key, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    positional = tuple(key for key, p in parameters.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return Named(target, function, module, positional, own, len(positional) + len(own) < len(parameters))


def granularity(named: Named) -> str:
    """Return what a function of tensors may be given: `element` (flat blocks) or, where nothing is said, `tensor`."""
    said = getattr(named.module, "granularity", "tensor")
    if said not in ("element", "tensor"):
        raise M3Error(f"{named.module.__name__} says granularity = {said!r}: 'element' or 'tensor' is allowed")
    return str(said)
