"""Functions that yaml names as `module:function`: methods, ratios and sparsifiers. There is no registry.

A signature is a schema: keyword-only parameters are what yaml and the command line may set, their annotations say as
what. What a signature cannot say of a function of tensors stands in a decorator above it:

    @Declares(granularity="element", coefficients=coefficients)
    def average(models, weights) -> Tensor

Importing is all that happens here; nothing is called.
"""

import contextlib
import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from m3_exp.types import M3Error

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Declares:
    """What a method or a sparsifier declares of itself; a decorator.

    `granularity` is `element` where each element of the result depends on the same element of the inputs alone: the
    function then gets flat blocks, in little memory. `tensor`, and where nothing is declared: it gets whole tensors in
    their own shape, for norms, cosines or singular values. Where a keyword decides, a function of the keywords.

    `arrays`: the function works as well on numpy's float32 arrays and is given those, so that no torch need be
    imported; again a function of the keywords where they decide.

    `device`: the function works on tensors of any torch device and gives the same bits there, by what `merging.device`
    allows; a function of the keywords where they decide. `by_torch` is a function of the same parameters that does so
    in its place, where the function itself has a loop for the CPU.

    Of a method's algebra, for `merging.canonical`: `coefficients(n, weights, **keywords)` gives the share of each delta
    in a linear method; `proportions(n, weights, **keywords)` the shares where weights count by their proportions and an
    expert that is the base changes nothing; `shares(n, weights)` those where an expert without a share changes nothing
    and one that has all of it is the result, as at the end of an arc. They refuse a number of experts that the method
    cannot merge. `weighted=False`: the method takes no weights. `affine=False`: its result is no straight line in the
    weights; a function of the keywords where these decide.

    `by_gram(products, weights, **keywords)`: each tensor of the result is a sum of the models, or the base plus one of
    the deltas, and this gives their coefficients by the inner products (n, n) of every two of them; None where keywords
    ask for another form. It spares 16-bit models arrays of their own.

    `limits` bound a number, as {"retain": (0.0, 1.0)}: above the first, at most the second. `choices` are the words
    that a keyword of type `str` may have, as {"trim": ("model", "tensor")}. `scans(**keywords)` tells whether a method
    needs the cut-offs that it names, where a keyword decides.

    `statistic` names what a method needs measured of each expert on calibration text (`merging.statistics`): `fisher`
    or `grams`. The function then has a positional `measured` and the keywords `text`, `sequences` and `length`.

    Of a sparsifier: `changes_nothing(**keywords)` tells whether it leaves every delta as it is.
    """

    granularity: str | Callable[..., str] = "tensor"
    arrays: bool | Callable[..., bool] = False
    device: bool | Callable[..., bool] = False
    by_torch: Callable[..., Any] | None = None
    coefficients: Callable[..., tuple[float, ...]] | None = None
    proportions: Callable[..., tuple[float, ...]] | None = None
    shares: Callable[..., tuple[float, ...]] | None = None
    by_gram: Callable[..., Sequence[float] | None] | None = None
    weighted: bool = True
    affine: bool | Callable[..., bool] = True
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scans: Callable[..., bool] | None = None
    statistic: str = ""
    changes_nothing: Callable[..., bool] | None = None

    def __post_init__(self) -> None:
        if self.statistic not in ("", "fisher", "grams"):
            raise M3Error(f"statistic={self.statistic!r} is not known: 'fisher' or 'grams' is allowed")
        if isinstance(self.granularity, str) and self.granularity not in ("element", "tensor"):
            raise M3Error(f"granularity={self.granularity!r} is not known: 'element' or 'tensor' is allowed")

    def whole_tensors(self, keywords: Mapping[str, Any]) -> bool:
        """Tell whether the function is given whole tensors when it has these keywords, its defaults among them."""
        chosen = self.granularity
        return (chosen if isinstance(chosen, str) else chosen(**keywords)) == "tensor"

    def takes_arrays(self, keywords: Mapping[str, Any]) -> bool:
        """Tell whether the function is given numpy arrays when it has these keywords, its defaults among them."""
        chosen = self.arrays
        return chosen if isinstance(chosen, bool) else chosen(**keywords)

    def on_device(self, keywords: Mapping[str, Any]) -> bool:
        """Tell whether blocks can be made on a device when the function has these keywords, its defaults among them."""
        chosen = self.device
        return chosen if isinstance(chosen, bool) else chosen(**keywords)

    def __call__(self, function: Function) -> Function:
        vars(function)["declares"] = self
        return function


def are_shares(weights: Iterable[float]) -> bool:
    """Tell whether weights sum to 1. A canonical recipe keeps 12 decimals of each, which add up to an error."""
    given = list(weights)
    return abs(1 - math.fsum(given)) < 1e-12 * max(1, len(given) - 1)


@dataclass(frozen=True, eq=False)
class PluginFunction:
    """An imported function, one object for each: the names of its positional parameters, and its keyword-only ones."""

    target: str
    function: Callable[..., Any]
    declares: Declares
    positional: tuple[str, ...]
    keywords: Mapping[str, inspect.Parameter]
    has_varargs: bool  # *args, or parameters of another kind that no yaml can set

    @property
    def name(self) -> str:
        return self.target.partition(":")[2]

    @property
    def by_torch(self) -> Callable[..., Any]:
        """What is called with tensors of a device."""
        return self.declares.by_torch or self.function

    @cached_property
    def required(self) -> tuple[str, ...]:
        return tuple(key for key, parameter in self.keywords.items() if parameter.default is inspect.Parameter.empty)

    @cached_property
    def defaults(self) -> dict[str, Any]:
        return {key: parameter.default for key, parameter in self.keywords.items() if key not in self.required}

    @property
    def words(self) -> tuple[str, ...]:
        """The keywords that are words, not numbers: of a measured method also the text that it is measured on."""
        return (*self.declares.choices, *(("text",) if self.declares.statistic else ()))

    def types(self, keyword: str) -> tuple[type, ...]:
        """Return the plain types that a keyword's annotation names; none where it says nothing that is known."""
        annotation = self.keywords[keyword].annotation
        several = isinstance(annotation, UnionType) or get_origin(annotation) is Union
        kinds = [get_origin(one) or one for one in (get_args(annotation) if several else (annotation,))]
        return tuple(kind for kind in kinds if kind in (bool, int, float, str, tuple, type(None)))

    def check(self, kind: str, params: Iterable[str], known: Iterable["PluginFunction"]) -> None:
        """Refuse keywords that the function lacks (naming whose of the `known` they are), or needs and does not get."""
        given, allowed = set(params), ", ".join(self.keywords) or "none"
        for key in sorted(given - set(self.keywords)):
            owners = [other.name for other in known if key in other.keywords]
            meant = f"; {key} belongs to {' and '.join(owners)}" if owners else ""
            raise M3Error(f"{kind} {self.name} has no parameter {key}: allowed are {allowed}{meant}")
        for key in (key for key in self.required if key not in given):
            raise M3Error(f"{kind} {self.name} needs {kind}.{key}: its parameters are {allowed}")

    def check_words(self, kind: str, params: Mapping[str, object]) -> None:
        """Refuse a word that is none of a keyword's declared choices."""
        for key, words in self.declares.choices.items():
            if (word := params.get(key, self.defaults.get(key))) not in words:
                raise M3Error(f"{kind}.{key}={word} is not known: {' or '.join(words)} is allowed")

    def without_default_words(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return keywords without the words that are the default: a recipe that states one is the same recipe."""
        usual = {key: self.defaults.get(key) for key in self.words}
        return {key: value for key, value in params.items() if key not in usual or value != usual[key]}

    def __str__(self) -> str:
        return f"{self.name}{inspect.signature(self.function)}"[:100]


def imported(kind: str, target: str, known: str) -> PluginFunction:
    """Import a `kind` of function by `module:function`.

    Raises:
        M3Error: there is no such module or function; `known` is named.
    """
    module_name, _, name = target.partition(":")
    there = getattr(sys.modules.get(module_name), name, None)
    if (kind, target, there) in _KNOWN:  # a plan of thousands of cells asks for each again
        return _KNOWN[kind, target, there]
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", target):
        raise M3Error(f"{kind}.target={target} is not module:function, as {known.split(', ')[0]} is")
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, name)
    except M3Error as error:
        raise M3Error(f"{kind} {target!r}: {error}") from error
    except (Exception, SystemExit) as error:  # a module of one's own may raise anything
        what = f"{kind} {target!r} cannot be imported ({type(error).__name__}: {error})"
        if isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]:
            raise M3Error(f"{what}: put the folder of {error.name}.py on PYTHONPATH, or name one of {known}") from error
        raise M3Error(f"{what}: known are {known}") from error
    if not inspect.isfunction(function):
        raise M3Error(f"{kind} {target!r} is a {type(function).__name__}, not a function: known are {known}")
    declared = vars(function).get("declares", Declares())
    if kind != "ratio" and declared == Declares() and (old := {"granularity", "LIMITS"} & vars(module).keys()):
        raise M3Error(
            f"{kind} {target!r}: {min(old)} of a module says nothing: write @Declares(...) above the function"
        )
    return _KNOWN.setdefault((kind, target, function), _inspected(target, function))


_KNOWN: dict[tuple[str, str, Callable[..., Any] | None], PluginFunction] = {}


def _inspected(target: str, function: Callable[..., Any]) -> PluginFunction:
    """Look at a function's signature."""
    parameters = inspect.signature(function).parameters
    own = {key: _typed(p, function) for key, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    positional = tuple(key for key, p in parameters.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)
    declared = vars(function).get("declares", Declares())
    return PluginFunction(
        target, function, declared, positional, own, has_varargs=len(positional) + len(own) < len(parameters)
    )


def _typed(keyword: inspect.Parameter, function: Callable[..., Any]) -> inspect.Parameter:
    """Return a keyword with its annotation as a type, also where `from __future__ import annotations` made it a text.

    Other parameters may be annotated with what only a type checker imports, as torch.
    """
    if not isinstance(keyword.annotation, str):
        return keyword
    named = SimpleNamespace(__annotations__={"keyword": keyword.annotation})
    with contextlib.suppress(NameError, AttributeError, TypeError, SyntaxError):
        return keyword.replace(annotation=get_type_hints(named, inspect.unwrap(function).__globals__)["keyword"])
    return keyword
