"""What each merge method of mergekit 0.1.5 is in m3: which method, which weights, which settings.

A rule gets what one tensor's parameters are, and returns a Meaning. Names and defaults that differ:

    lambda      our method.scaling
    normalize   divides by the sum of the weights. linear: by default (our average always does); task_arithmetic,
                dare_linear, dare_ties, breadcrumbs: not by default; ties, della: by default, by the sum of the weights
                whose sign is elected. Not normalised, ties is our method.combine=sum
    weight      of ties: signs are elected by weighted deltas, our method.sign=weighted
    rescale     of dare and della: by default each tensor keeps the sum of its magnitudes
    t           of slerp: 0 is base_model
    density     1 - our sparsify.drop_rate
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from m3_exp.recipes.settings import Value
from m3_exp.types import M3Error

DRAWN = (
    "masks are drawn at random, in mergekit and in m3 by generators of their own: which elements are dropped differs, "
    "the distribution is the same"
)
ENERGIES = (
    "sce: in a tensor where the mean squares of the deltas sum to below 1e-6, mergekit weighs all models alike; m3 "
    "weighs them by their energies always, so that the weights of such tensors differ"
)
STRAIGHT = 1 - 1e-12  # |cos| above which mergekit's nuslerp takes a line, as far as float32 tells
_NOTHING = 1e-8  # mergekit divides by no smaller sum of weights
_ABSENT = {name: f"m3 has no {name}" for name in ("arcee_fusion", "multislerp", "ram", "ramplus_tl")}


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
    plain: "Meaning | None" = None  # the same without weights, where they are equal


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
    return _deltas(asked, _mixed(asked), _Thinned())


def _deltas(asked: Asked, weights: Mapping[str, float], thinned: "_Thinned") -> Meaning:
    """Return task arithmetic of thinned deltas. One expert alone gets the base beside it: m3 would take it as it is."""
    base, scaling = asked.with_base(), asked.number("lambda", 1.0) * thinned.factor
    if len(weights) == 1 and not thinned.words:
        ((model, weight),) = weights.items()
        return Meaning("average", asked.models, {base: 1 - scaling * weight, model: scaling * weight})
    if len(weights) == 1:
        weights = {**weights, base: 0.0}
    settings = {"method.scaling": scaling, **thinned.words}
    return Meaning("task_arithmetic", tuple(weights), weights, settings, {"method.scaling": "lambda"}, thinned.notes)


def _mixed(asked: Asked, normalize: bool = False) -> dict[str, float]:
    """Return the factor of each delta, lambda aside: its weight, under `normalize` over the sum of the weights."""
    weights = asked.numbers("weight")
    total = sum(weights.values()) if asked.truth("normalize", normalize) else 1.0
    return {model: weight / (total if abs(total) >= _NOTHING else 1.0) for model, weight in weights.items()}


@dataclass(frozen=True)
class _Thinned:
    """The words of a sparsifier, and the factor by which a merge of its deltas is scaled to be mergekit's."""

    words: Mapping[str, float | str] = field(default_factory=dict)
    factor: float = 1.0

    @property
    def notes(self) -> tuple[str, ...]:
        return (DRAWN,) if self.words.get("sparsify") in ("dare", "della") else ()


def _thinned(asked: Asked, name: str, rescale: bool) -> _Thinned:
    """Return what is left of the deltas by `density` and its companions; `rescale` is the default of mergekit."""
    kept = asked.one("density", 1.0, "m3 thins every delta alike (sparsify=...)")
    if kept >= 1:
        return _Thinned()
    by_norm = asked.truth("rescale", rescale)
    if name == "dare":  # ours divides by 1 - p
        words: dict[str, float | str] = {"sparsify": "dare", "sparsify.drop_rate": round(1 - kept, 12)}
        return _Thinned({**words, "sparsify.rescale": "l1"}) if by_norm else _Thinned(words, kept)
    words = {"sparsify": name, "sparsify.density": kept, "sparsify.rescale": "l1" if by_norm else "none"}
    if name == "breadcrumbs":
        words["sparsify.gamma"] = asked.one("gamma", 0.01, "m3 thins every delta alike")
    if name == "della":
        words["sparsify.epsilon"] = asked.one("epsilon", 0.15, "m3 thins every delta alike")
    return _Thinned(words)


def _added(sparsifier: str, rescale: bool) -> Rule:
    """Return the rule of a method that adds thinned deltas."""
    return lambda asked: _deltas(asked, _mixed(asked), _thinned(asked, sparsifier, rescale))


def _elected(sparsifier: str, rescale: bool, normalize: bool) -> Rule:
    """Return the rule of a method that elects a sign for each element: our TIES, which trims each tensor by magnitude
    or gets thinned deltas.
    """

    def rule(asked: Asked) -> Meaning:
        asked.with_base()
        thinned, retain = _thinned(asked, sparsifier, rescale), 1.0
        if len(asked.others) == 1:
            return _deltas(asked, _mixed(asked, normalize), thinned)
        if thinned.words.get("sparsify") == "magnitude" and thinned.words["sparsify.rescale"] == "none":
            thinned, retain = _Thinned(), float(thinned.words["sparsify.density"])
        scaling = asked.number("lambda", 1.0) * thinned.factor
        settings = {"method.scaling": scaling, "method.retain": retain, "method.trim": "tensor", **thinned.words}
        names = {"method.scaling": "lambda", "method.retain": "density", "sparsify.density": "density"}
        weights, is_mean = asked.numbers("weight"), asked.truth("normalize", normalize)
        plain = Meaning("ties", asked.others, None, settings, names, thinned.notes)
        is_plain = is_mean and len({*weights.values()}) == 1 and min(weights.values()) > 0
        settings = {**settings, "method.sign": "weighted", **({} if is_mean else {"method.combine": "sum"})}
        return replace(plain, weights=weights, settings=settings, plain=plain if is_plain else None)

    return rule


def _slerp(asked: Asked) -> Meaning:
    base, t = asked.with_base(), asked.number("t")
    if len(asked.models) != 2 or len(asked.others) != 1:
        raise M3Error(f"slerp takes base_model and one other model; here are {', '.join(asked.models)}")
    return Meaning("slerp", asked.models, {base: 1 - t, asked.others[0]: t})


def _nuslerp(asked: Asked) -> Meaning:
    models = asked.others
    if len(models) != 2:
        raise M3Error(f"nuslerp takes two models beside base_model; here are {', '.join(models)}: karcher takes more")
    first, second = (asked.number("weight", None, model) for model in models)
    total = first + second
    share = 0.5 if abs(total) < 1e-6 else second / total
    weights = {models[0]: 1 - share, models[1]: share}
    is_flat, by_first = asked.truth("nuslerp_flatten", True), asked.truth("nuslerp_row_wise", False)
    if asked.base is not None:
        by = "tensor" if is_flat else "column" if by_first else "row"
        return Meaning("nuslerp", models, weights, {"method.by": by}, {"method.by": "nuslerp_row_wise"})
    if not is_flat:
        raise M3Error(
            "nuslerp_flatten=false without a base_model takes an angle for each row of the models themselves; m3's "
            "slerp takes that of whole tensors: give a base_model, or nuslerp_flatten: true"
        )
    return Meaning("slerp", models, weights, {"method.threshold": STRAIGHT})


def _karcher(asked: Asked) -> Meaning:
    settings = {"method.steps": int(asked.number("max_iter", 10)), "method.tolerance": asked.number("tol", 1e-5)}
    return Meaning("karcher", asked.models, None, settings, {"method.steps": "max_iter", "method.tolerance": "tol"})


def _model_stock(asked: Asked) -> Meaning:
    asked.with_base()
    if asked.truth("filter_wise", False):
        raise M3Error("filter_wise=true takes an angle for each row; m3's model_stock takes that of whole tensors")
    if len(asked.others) < 2:
        raise M3Error("model_stock needs two models beside base_model: it lives on the angle between them")
    return Meaning("model_stock", asked.others, None)


def _sce(asked: Asked) -> Meaning:
    asked.with_base()
    share = asked.number("select_topk", 1.0)
    settings, names = {"method.density": share}, {"method.density": "select_topk"}
    return Meaning("sce", asked.others, None, settings, names, (ENERGIES,))


def _nearswap(asked: Asked) -> Meaning:
    base, reach = asked.with_base(), asked.number("t")
    if len(asked.others) != 1:
        raise M3Error(f"nearswap takes base_model and one other model; here are {', '.join(asked.models)}")
    (model,) = asked.others
    return Meaning("nearswap", (model, base), {model: 1.0, base: 0.0}, {"method.reach": reach}, {"method.reach": "t"})


RULES: dict[str, Rule] = {
    "linear": _linear,
    "passthrough": _passthrough,
    "task_arithmetic": _task_arithmetic,
    "ties": _elected("magnitude", rescale=False, normalize=True),
    "dare_linear": _added("dare", rescale=True),
    "dare_ties": _elected("dare", rescale=True, normalize=False),
    "breadcrumbs": _added("breadcrumbs", rescale=False),
    "breadcrumbs_ties": _elected("breadcrumbs", rescale=False, normalize=False),
    "della": _elected("della", rescale=True, normalize=True),
    "della_linear": _added("della", rescale=True),
    "nearswap": _nearswap,
    "slerp": _slerp,
    "nuslerp": _nuslerp,
    "karcher": _karcher,
    "model_stock": _model_stock,
    "sce": _sce,
}
