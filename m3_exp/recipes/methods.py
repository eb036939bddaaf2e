"""What each merge method of mergekit 0.1.5 is in m3: which method, which weights, which settings.

A rule gets what one tensor's parameters are, and returns a Meaning. Names and defaults that differ:

    lambda      our method.scaling
    normalize   divides by the sum of the weights. linear: by default (our average always does); task_arithmetic,
                dare_linear, dare_ties, breadcrumbs: not by default; ties, della: by default, by the sum of the weights
                whose sign is elected (our ties always does)
    rescale     of dare and della: by default each tensor keeps the sum of its magnitudes
    t           of slerp: 0 is base_model
    density     1 - our sparsify.drop_rate
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from m3_exp.recipes.settings import Value
from m3_exp.types import M3Error

_NOTHING = 1e-8  # mergekit divides by no smaller sum of weights
_ABSENT = {name: f"m3 has no {name}" for name in ("arcee_fusion", "multislerp", "nearswap", "ram", "ramplus_tl")}


@dataclass(frozen=True)
class Asked:
    """What mergekit would do to one tensor: the models in their order, and the parameters of the method and of each."""

    method: str
    base: str | None
    models: tuple[str, ...]
    get: Callable[[str, str | None], Value | None]  # (parameter, model or None for the method's own)

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(one for one in self.models if one != self.base)

    def number(self, name: str, default: float | None = None, model: str | None = None) -> float:
        """Return a parameter as a number; raises M3Error where it is none, or missing without a default."""
        held = self.get(name, model)
        if held is None:
            if default is None:
                of = f" of {model}" if model is not None else ""
                raise M3Error(f"{name}{of} is missing: mergekit's {self.method} needs it in parameters")
            return default
        if isinstance(held, str) or not math.isfinite(held):
            raise M3Error(f"{name}={held} is no finite number: give one")
        return float(held)

    def truth(self, name: str, default: bool) -> bool:
        held = self.get(name, None)
        if held is None:
            return default
        if held not in (0, 1):
            raise M3Error(f"{name}={held} is neither true nor false")
        return bool(held)

    def numbers(self, name: str, default: float | None = None) -> dict[str, float]:
        """Return a parameter of each model but the base."""
        return {model: self.number(name, default, model) for model in self.others}

    def one(self, name: str, default: float | None, why: str) -> float:
        """Return a parameter that must be the same for all models."""
        held = {self.number(name, default, model) for model in self.others}
        if len(held) > 1:
            raise M3Error(f"{name} is {' and '.join(f'{one:g}' for one in sorted(held))}: {why}")
        return held.pop() if held else default or 0.0

    def with_base(self) -> str:
        if self.base is None:
            raise M3Error(f"base_model is missing: mergekit's {self.method} needs it")
        if self.base not in self.models:
            raise M3Error(
                f"base_model={self.base} is missing among the sources of a slice: mergekit's {self.method} needs it"
            )
        return self.base


@dataclass(frozen=True)
class Meaning:
    """The same in m3: the method, each model's weight (None: the method has none), and the words of its settings."""

    method: str
    models: tuple[str, ...]  # the experts
    weights: Mapping[str, float] | None
    settings: Mapping[str, float | str] = field(default_factory=dict)
    of: Mapping[str, str] = field(default_factory=dict)  # which parameter of mergekit each setting stands for
    notes: tuple[str, ...] = ()


Rule = Callable[[Asked], Meaning]


def meaning(asked: Asked) -> Meaning:
    """Return what a method of mergekit is in m3.

    Raises:
        M3Error: m3 has no such method, or a parameter has a value that no setting of m3 stands for.
    """
    if asked.method in RULES:
        return RULES[asked.method](asked)
    if asked.method in _ABSENT:
        raise M3Error(f"merge_method={asked.method}: {_ABSENT[asked.method]}; imported are {', '.join(sorted(RULES))}")
    raise M3Error(
        f"merge_method={asked.method} is no method of mergekit 0.1.5; imported are {', '.join(sorted(RULES))}"
    )


def _linear(asked: Asked) -> Meaning:
    weights = {model: asked.number("weight", None, model) for model in asked.models}
    total = sum(weights.values())
    if not asked.truth("normalize", True) and abs(total - 1) > 1e-9:
        raise M3Error(
            f"normalize=false with weights that sum to {total:g} scales the whole model; m3's average divides by their "
            "sum: give weights that sum to 1, or merge_method: task_arithmetic with a base_model"
        )
    return Meaning("average", asked.models, weights)


def _passthrough(asked: Asked) -> Meaning:
    if len(asked.models) != 1:
        raise M3Error(f"passthrough takes one model of each slice; here are {', '.join(asked.models)}")
    model = asked.models[0]
    if (scale := asked.number("scale", 1.0, model)) != 1:
        raise M3Error(f"scale={scale:g} multiplies the tensors of {model} by a number; m3 has no such setting")
    return Meaning("average", (model,), {model: 1.0})


def _task_arithmetic(asked: Asked) -> Meaning:
    base, weights, scaling = asked.with_base(), _mixed(asked), asked.number("lambda", 1.0)
    if len(weights) == 1:  # one expert by itself is that expert in m3: with the base it is an average
        ((model, weight),) = weights.items()
        return Meaning("average", asked.models, {base: 1 - scaling * weight, model: scaling * weight})
    return Meaning("task_arithmetic", asked.others, weights, {"method.scaling": scaling})


def _mixed(asked: Asked) -> dict[str, float]:
    """Return the factor of each delta, lambda aside: its weight, under `normalize` over the sum of the weights."""
    weights = asked.numbers("weight")
    total = sum(weights.values()) if asked.truth("normalize", False) else 1.0
    return {model: weight / (total if abs(total) >= _NOTHING else 1.0) for model, weight in weights.items()}


def _slerp(asked: Asked) -> Meaning:
    base, t = asked.with_base(), asked.number("t")
    if len(asked.models) != 2 or len(asked.others) != 1:
        raise M3Error(f"slerp takes base_model and one other model; here are {', '.join(asked.models)}")
    return Meaning("slerp", asked.models, {base: 1 - t, asked.others[0]: t})


RULES: dict[str, Rule] = {
    "linear": _linear,
    "passthrough": _passthrough,
    "task_arithmetic": _task_arithmetic,
}
