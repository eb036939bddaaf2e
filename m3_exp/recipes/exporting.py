"""The words of `m3 merge` -> a recipe of mergekit 0.1.5 that makes the same weights.

mergekit computes in float32 (`dtype`) and stores what the request asks for (`out_dtype`), as m3 does. A merge by part
becomes slices of layers, with filters for the tensors that differ from the rest of their slice.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import yaml

from m3_exp.command_line import CommandLine
from m3_exp.config import compose
from m3_exp.merging import canonical, parts
from m3_exp.merging.source import locate, without_fetching
from m3_exp.planning import merge_tokenizer, variants
from m3_exp.recipes.depth import vocabulary
from m3_exp.recipes.methods import DRAWN, ENERGIES, STRAIGHT
from m3_exp.store import Store
from m3_exp.types import Json, M3Error, Recipe, Source

Weights = tuple[float, ...]


@dataclass(frozen=True)
class Exported:
    """The text of a YAML file, and what is to be known of it."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Form:
    """What a recipe is in mergekit: a method, its parameters, and those of each expert beside its weight."""

    method: str
    shared: Mapping[str, float | bool] = field(default_factory=dict)
    own: Mapping[str, float] = field(default_factory=dict)
    has_weights: bool = True
    has_base: bool = True
    notes: tuple[str, ...] = ()


def exported(asked: CommandLine) -> Exported:
    """Return the recipe of mergekit that makes the weights of an `m3 merge`.

    Raises:
        M3Error: the words are wrong, ask for several checkpoints, or for what mergekit cannot express; the setting is
            named.
    """
    request = compose(asked)
    found = [(config, recipe) for config in request.configs for _, recipe in variants(config)]
    if len(found) > 1:
        raise M3Error(
            f"these words ask for {len(found)} checkpoints, a file of mergekit is one: give one method and ratio"
        )
    config, recipe = found[0]
    form = _form(recipe)
    if config.tokenizer != "union":
        _check_vocabularies(recipe, form)
    tree, notes = _tree(recipe, form, Store(request.store)), list(form.notes)
    home = merge_tokenizer(config)
    if config.tokenizer == "union":
        if not form.has_base:
            raise M3Error(
                f"tokenizer=union: mergekit's {form.method} has no base whose rows it would take: give "
                "method=task_arithmetic, or the number of an expert"
            )
        return _text({**tree, "tokenizer_source": "union"}, notes)
    if not form.has_base and home in recipe.experts and form.method == "linear":
        tree = {"merge_method": tree.pop("merge_method"), "base_model": _model(home), **tree}
    elif home != (recipe.base if form.has_base else recipe.experts[0]) or form.method in ("nuslerp", "karcher"):
        notes.append(
            f"tokenizer={config.tokenizer}: mergekit copies the tokenizer of its base_model; copy that of {home}"
        )
    return _text(tree, notes)


def _text(tree: Json, notes: Sequence[str]) -> Exported:
    return Exported(yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000), tuple(notes))


class _Dumper(yaml.SafeDumper):
    """Writes mappings and lists of plain values on one line, and no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _inline(dumper: _Dumper, data: Json) -> yaml.Node:
    plain = all(isinstance(held, bool | int | float | str) for held in data.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=plain and "model" not in data)


_Dumper.add_representer(dict, _inline)


# ------------------------------------------------------------------------------------------------------- methods


def _form(recipe: Recipe) -> _Form:
    name = recipe.method.rpartition(":")[2]
    if not recipe.method.startswith("m3_exp.merging.methods.") or name not in _FORMS:
        raise M3Error(f"method={name}: mergekit 0.1.5 has no method of this meaning; exported are {', '.join(_FORMS)}")
    return _FORMS[name](recipe)


def _average(recipe: Recipe) -> _Form:
    return _Form("linear", has_base=False)


def _task_arithmetic(recipe: Recipe) -> _Form:
    thinned = _thinned(recipe)
    names = {None: "task_arithmetic", "dare": "dare_linear", "breadcrumbs": "breadcrumbs", "della": "della_linear"}
    if thinned.name not in names:
        raise M3Error(f"sparsify={thinned.name}: mergekit has it in ties alone: give method=ties method.retain=1")
    shared = {"lambda": _number(recipe, "scaling") * thinned.factor, **thinned.shared}
    return _Form(names[thinned.name], shared, thinned.own, notes=thinned.notes)


def _ties(recipe: Recipe) -> _Form:
    if recipe.params.get("trim", "model") != "tensor":
        raise M3Error(
            "method.trim=model trims over the whole model, mergekit's density each tensor: give "
            "method.trim=tensor, which both have"
        )
    if (sign := recipe.params.get("sign", "mass")) == "count":
        raise M3Error("method.sign=count: mergekit elects the sign of the weighted sum: give method.sign=weighted")
    weights = [recipe.weights, *(one for part in recipe.parts for one in (part.weights, part.last or None))]
    if sign == "mass" and any(len({*one}) > 1 or min(one) < 0 for one in weights if one):
        raise M3Error(
            "ratio: mergekit's ties elects signs by weighted deltas, method.sign=mass by the deltas alone: give "
            "method.sign=weighted, or equal weights (ratio=plain)"
        )
    thinned, retain = _thinned(recipe), _number(recipe, "retain")
    if thinned.name is not None and retain != 1:
        raise M3Error(
            f"method.retain={retain:g} with sparsify={thinned.name}: mergekit does one of the two: give retain=1"
        )
    names = {
        None: "ties",
        "magnitude": "ties",
        "dare": "dare_ties",
        "breadcrumbs": "breadcrumbs_ties",
        "della": "della",
    }
    is_mean = recipe.params.get("combine", "mean") == "mean"
    shared = {"lambda": _number(recipe, "scaling") * thinned.factor, "normalize": is_mean, **thinned.shared}
    own = thinned.own if thinned.name is not None else {"density": retain}
    return _Form(names[thinned.name], shared, own, notes=thinned.notes)


def _slerp(recipe: Recipe) -> _Form:
    threshold = _number(recipe, "threshold")
    if abs(threshold - STRAIGHT) < 1e-9:
        return _Form("nuslerp", has_base=False)
    if threshold != 0.9995:
        raise M3Error(f"method.threshold={threshold:g}: mergekit's slerp takes a line above 0.9995, and has no setting")
    return _Form("slerp", has_base=False)


def _nuslerp(recipe: Recipe) -> _Form:
    flags = {"tensor": {}, "row": {"nuslerp_flatten": False}}
    flags["column"] = {"nuslerp_flatten": False, "nuslerp_row_wise": True}
    return _Form("nuslerp", flags[str(recipe.params.get("by", "tensor"))])


def _karcher(recipe: Recipe) -> _Form:
    if recipe.parts or len({*(recipe.weights or ())}) > 1:
        raise M3Error("ratio: mergekit's karcher gives all models the same weight: give ratio=plain")
    shared = {"max_iter": int(_number(recipe, "steps")), "tol": _number(recipe, "tolerance")}
    return _Form("karcher", shared, has_weights=False, has_base=False)


def _model_stock(recipe: Recipe) -> _Form:
    return _Form("model_stock", has_weights=False)


def _sce(recipe: Recipe) -> _Form:
    return _Form("sce", {"select_topk": _number(recipe, "density")}, has_weights=False, notes=(ENERGIES,))


def _number(recipe: Recipe, name: str) -> float:
    return float(recipe.params[name])


@dataclass(frozen=True)
class _Thinned:
    """A sparsifier of mergekit: its name, the parameters of the method and of each model, the factor on lambda."""

    name: str | None = None
    shared: Mapping[str, float | bool] = field(default_factory=dict)
    own: Mapping[str, float] = field(default_factory=dict)
    factor: float = 1.0
    notes: tuple[str, ...] = ()


def _thinned(recipe: Recipe) -> _Thinned:
    """Return what a recipe's sparsifier is in mergekit.

    Raises:
        M3Error: it is none of mergekit's, or rescales as none of these does.
    """
    if recipe.sparsify is None:
        return _Thinned()
    held = dict(recipe.sparsify)
    name = str(held.pop("target", "dare")).rpartition(":")[2]
    notes = () if held.pop("seed", None) is None else (DRAWN,)
    if name == "dare":
        kept = round(1 - float(str(held["drop_rate"])), 12)
        by_norm = held.get("rescale", "p") == "l1"
        return _Thinned(name, {"rescale": by_norm}, {"density": kept}, 1.0 if by_norm else 1 / kept, notes)
    if name not in ("magnitude", "breadcrumbs", "della"):
        raise M3Error(f"sparsify={name}: mergekit has dare, magnitude, breadcrumbs and della")
    rescale = held.pop("rescale", "p" if name == "della" else "none")
    if rescale == "p":
        raise M3Error(
            "sparsify.rescale=p: mergekit's della keeps the sum of magnitudes: give sparsify.rescale=l1 or none"
        )
    own = {key: float(str(value)) for key, value in held.items()}
    return _Thinned(name, {"rescale": rescale == "l1"}, own, 1.0, notes)


_FORMS: dict[str, Callable[[Recipe], _Form]] = {
    "average": _average,
    "task_arithmetic": _task_arithmetic,
    "ties": _ties,
    "slerp": _slerp,
    "nuslerp": _nuslerp,
    "karcher": _karcher,
    "model_stock": _model_stock,
    "sce": _sce,
}


def _check_vocabularies(recipe: Recipe, form: _Form) -> None:
    """Refuse models of different vocabularies, as far as they are on this disk: mergekit stops at them."""
    models = [*recipe.experts, *([recipe.base] if form.has_base else [])]
    rows = {str(model): count for model in models if (count := vocabulary(str(model))) is not None}
    if len({*rows.values()}) > 1:
        listed = ", ".join(f"{model} {count}" for model, count in rows.items())
        raise M3Error(
            f"family.vocab={recipe.vocab}: the vocabularies differ in length ({listed}): m3 adds rows, mergekit stops"
        )


# -------------------------------------------------------------------------------------------------------- the file


def _tree(recipe: Recipe, form: _Form, store: Store) -> Json:
    tree: Json = {"merge_method": form.method}
    if form.has_base:
        tree["base_model"] = _model(recipe.base)
    models = [_model(expert) for expert in recipe.experts]
    if form.method == "slerp":  # t is the share of the other model
        tree["base_model"] = models[0]
    if recipe.parts:
        tree["slices"] = _slices(recipe, form, models, store)
    else:
        held = [dict(form.own) for _ in models]
        if form.method == "slerp":
            tree["parameters"] = {"t": _share(recipe.weights)}
        elif form.has_weights:
            for one, weight in zip(held, recipe.weights or (1.0,) * len(models), strict=True):
                one["weight"] = weight
        listed = zip(models, held, strict=True)
        tree["models"] = [{"model": model, **({"parameters": own} if own else {})} for model, own in listed]
    if form.shared:
        tree["parameters"] = dict(form.shared)
    return {**tree, "dtype": "float32", "out_dtype": recipe.dtype}


def _share(weights: Weights | None) -> float:
    """Return the second of two models' share."""
    first, second = weights or (1.0, 1.0)
    return second / (first + second)


def _model(source: Source) -> str:
    """Return a model as mergekit reads it.

    Raises:
        M3Error: mergekit reads no such file, or takes a character of the path for something else.
    """
    location = str(locate(source)) if source.location.startswith("package:") else source.location
    if location.endswith(".gguf"):
        raise M3Error(f"{source}: mergekit reads no GGUF file: give the model as safetensors")
    if any(sign in f"{location}{source.adapter or ''}" for sign in "@+"):
        raise M3Error(f"{source}: mergekit takes @ and + in a path for a revision and an adapter: give another path")
    return str(Source(location, source.revision, source.adapter))


# ---------------------------------------------------------------------------------------------------- merge by part


def _slices(recipe: Recipe, form: _Form, models: Sequence[str], store: Store) -> list[Json]:
    """Return slices of layers of which each tensor has its weights."""
    with without_fetching():
        table = canonical.tensors(recipe, store).weights
    weights = {name: one or (1.0,) * len(models) for name, one in table.items()}
    depth = 1 + max((number for name in weights if (number := parts.layer(name)) is not None), default=-1)
    if not depth:
        raise M3Error("ratio: a merge by part is exported as slices of layers, and this model has none")
    by_layer = [_of_layer(weights, number) for number in range(depth)]
    outside = {name: one for name, one in weights.items() if parts.layer(name) is None}
    before = {name: one for name, one in outside.items() if parts.kind(name) == "embeddings"}
    after = {name: one for name, one in outside.items() if name not in before}
    found = []
    for _, run in groupby(range(depth), key=lambda number: by_layer[number]):
        numbers = list(run)
        held = {
            **by_layer[numbers[0]],
            **(before if numbers[0] == 0 else {}),
            **(after if numbers[-1] == depth - 1 else {}),
        }
        conditions = _conditions(held)
        names = [name for name in weights if parts.layer(name) in numbers or name in held]
        _verify(conditions, {name: weights[name] for name in names})
        found.append(_slice(conditions, (numbers[0], numbers[-1] + 1), form, recipe, models))
    return found


def _of_layer(weights: Mapping[str, Weights], number: int) -> dict[str, Weights]:
    """Return the weights of a layer's tensors by what follows the layer's number in their names."""
    return {name.partition(f".{number}.")[2]: one for name, one in weights.items() if parts.layer(name) == number}


def _conditions(held: Mapping[str, Weights]) -> list[tuple[str | None, Weights]]:
    """Return filters with their weights, and last the most common weights without a filter."""
    common = Counter(held.values()).most_common(1)[0][0]
    groups: dict[str, dict[str, Weights]] = {}
    for name, one in held.items():
        groups.setdefault(name.partition(".")[0], {})[name] = one
    found: list[tuple[str | None, Weights]] = []
    for first, members in groups.items():
        if len({*members.values()}) == 1 and len(members) > 1:
            members = {f"{first}.": next(iter(members.values()))}
        found += [(name, one) for name, one in members.items() if one != common]
    return [*found, (None, common)]


def _verify(conditions: Sequence[tuple[str | None, Weights]], wanted: Mapping[str, Weights]) -> None:
    """Refuse filters that find a tensor of another weight, as mergekit looks for them."""
    for name, one in wanted.items():
        got = next(weights for text, weights in conditions if text is None or text in name)
        if got != one:
            raise M3Error(f"ratio: no filter of mergekit tells {name} from other tensors")


def _slice(
    conditions: Sequence[tuple[str | None, Weights]], layers: tuple[int, int], form: _Form, recipe: Recipe,
    models: Sequence[str],
) -> Json:  # fmt: skip
    sources: list[Json] = []
    if form.has_base and _model(recipe.base) not in models:
        sources.append({"model": _model(recipe.base), "layer_range": list(layers)})
    for number, model in enumerate(models):
        weight = (
            {} if form.method == "slerp" else {"weight": _setting([(text, one[number]) for text, one in conditions])}
        )
        own = {**form.own, **weight}
        sources.append({"model": model, "layer_range": list(layers), **({"parameters": own} if own else {})})
    if form.method == "slerp":
        return {"sources": sources, "parameters": {"t": _setting([(text, _share(one)) for text, one in conditions])}}
    return {"sources": sources}


def _setting(conditions: Sequence[tuple[str | None, float]]) -> float | list[Json]:
    """Return a number, where all tensors have it, else values with filters."""
    if len({held for _, held in conditions}) == 1:
        return conditions[-1][1]
    return [{**({"filter": text} if text else {}), "value": held} for text, held in conditions]
