"""The algebra of recipes: those that mean the same weights become equal, by name (`canonical`) or by
content (`keyed`).

A linear method is theta_0 + sum of c_i delta_i, so that without DARE all of them meet in two forms: an average where
the base's share 1 - sum of c_i is 0, and task arithmetic with scaling 1 elsewhere. A recipe by part is, by content, a
table: each tensor with the canonical recipe of its own weights.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from m3_exp.merging import parts, sparsify
from m3_exp.merging.methods import check_params, load
from m3_exp.merging.plugins import are_shares
from m3_exp.merging.source import is_hub, resolve
from m3_exp.merging.statistics.text import digest
from m3_exp.store import Store
from m3_exp.types import Json, M3Error, Recipe, Source, identity

AVERAGE = "m3_exp.merging.methods.average:average"
TASK_ARITHMETIC = "m3_exp.merging.methods.task_arithmetic:task_arithmetic"
TIES = "m3_exp.merging.methods.ties:ties"
_NOTHING = 1e-12  # float32 weights cannot see a share this small
_ALGORITHM = 1  # goes up whenever the same recipe gives other bytes


@dataclass(frozen=True)
class KeyedRecipe(Recipe):
    """A canonical recipe by content: a source is a digest (or a hub's id@commit), and experts are in that order.

    No path and no name is in it. `base` is the first expert where the method does not read the base. A recipe by part
    has several `forms`, recipes without parts, and `table` says which of them each tensor is made by; `experts` are
    then those of any form, and `method`, `weights` those of no tensor in particular.
    """

    forms: tuple["KeyedRecipe", ...] = field(default=(), metadata={"omit_if_empty": True})
    table: Mapping[str, int] = field(default_factory=dict, metadata={"omit_if_empty": True})

    def form(self, tensor: str) -> "KeyedRecipe":
        """Return the recipe that makes a tensor."""
        return self.forms[self.table[tensor]] if self.forms else self

    @property
    def key(self) -> str:
        """The recipe's identity: 64 hex digits."""
        return identity({"algorithm": _ALGORITHM, "recipe": self})


def canonical(recipe: Recipe) -> Recipe:
    """Return the one form that all recipes for the same weights share; experts sorted by their names.

    Raises:
        M3Error: hyper-parameters, weights or the drop rate are not allowed, or there are no deltas to thin.
    """
    if "_canonical" in vars(recipe):  # a plan's recipes are asked for again when their keys are made
        return recipe
    form = _by_part(recipe) if recipe.parts else _formed(recipe)
    vars(form)["_canonical"] = True
    return form


def _formed(recipe: Recipe) -> Recipe:
    _check(recipe)
    method = load(recipe.method)
    params = method.canonical(recipe.params)
    recipe = _with(recipe, params=params, sparsify=sparsify.canonical(recipe.sparsify), check_lineage=True)
    n, algebra = len(recipe.experts), method.named.declares
    if algebra.coefficients is not None:
        return _linear(recipe, algebra.coefficients(n, recipe.weights, **method.keywords(params)))
    if recipe.sparsify is not None and not method.takes_deltas:
        why = "takes the experts themselves (`models`), a sparsifier thins deltas"
        raise M3Error(f"method {recipe.method} {why}: give sparsify=none, or name `deltas` in the method")
    if algebra.proportions is not None:
        keywords = method.keywords(params)
        pairs = _pairs(recipe, recipe.experts, algebra.proportions(n, recipe.weights, **keywords))
        changing = [(expert, weight) for expert, weight in pairs if expert != recipe.base]
        if not changing:
            return _single(recipe, recipe.base)
        shares = algebra.proportions(len(changing), [weight for _, weight in changing], **keywords)
        return _sorted(recipe, [expert for expert, _ in changing], shares)
    if algebra.shares is not None:
        return _shared(recipe, algebra.shares(n, recipe.weights))
    if recipe.weights is None:
        return _with(recipe, experts=tuple(sorted(recipe.experts, key=str)))
    return _sorted(recipe, list(recipe.experts), recipe.weights)


def _by_part(recipe: Recipe) -> Recipe:
    """Return the plain form where all parts have the same; else the recipe with its experts in the order of their
    names, unless shares are drawn, which belong to the experts as they were given.
    """
    whole = canonical(replace(recipe, parts=()))
    for part in recipe.parts:
        parts.check(part)
    is_drawn = any(part.drawn for part in recipe.parts)
    if not is_drawn and all(form == whole for form in _ends(recipe)):
        return whole
    params = load(recipe.method).canonical(recipe.params)
    recipe = _with(recipe, params=params, sparsify=sparsify.canonical(recipe.sparsify), check_lineage=True)
    if is_drawn:
        return recipe
    order = sorted(range(len(recipe.experts)), key=lambda index: str(recipe.experts[index]))

    def ordered(weights: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(weights[index] for index in order) if weights else ()

    return replace(
        recipe,
        experts=tuple(recipe.experts[index] for index in order),
        weights=None if recipe.weights is None else ordered(recipe.weights),
        parts=tuple(
            replace(part, weights=None if part.weights is None else ordered(part.weights), last=ordered(part.last))
            for part in recipe.parts
        ),
    )


def recipe_key(recipe: Recipe, store: Store, known: dict[Source, Source] | None = None) -> str:
    """Return the identity of a recipe by content. A hub id counts as `id@commit`, everything else by its digest, which
    is taken once. `known` remembers the models of many recipes by their content.
    """
    from m3_exp.merging.tokens import opener  # with numpy and pydantic, which a plan does not need

    contents = {} if known is None or recipe.tokens else known
    opened = opener(recipe, store)

    def content(source: Source) -> Source:
        if source not in contents:
            hub = is_hub(source) and source.adapter is None and not recipe.tokens
            contents[source] = resolve(source) if hub else Source(opened(source).digest)
        return contents[source]

    return keyed(recipe, content, store).key


def keyed(recipe: Recipe, content: Callable[[Source], Source], store: Store) -> KeyedRecipe:
    """Return a recipe's canonical form with each source that it needs replaced by what stands for its content.

    The headers of the models of a recipe by part are read.

    Raises:
        M3Error: a part names no tensor of the models.
    """
    named = canonical(recipe)
    if named.parts:
        return _table(named, tensors(named, store).weights, cache(content), store)
    needed = {named.base} if load(named.method).reads_base else set()
    known: Mapping[Source, Source] = {s: content(s) for s in sorted({*named.experts, *needed}, key=str)}
    experts = tuple(known[expert] for expert in named.experts)
    measured = _measured_on(named, known) if load(named.method).statistic else {}
    params = {**named.params, **measured}
    form = canonical(replace(named, base=known.get(named.base, named.base), experts=experts, params=params))
    base = form.base if load(form.method).reads_base else form.experts[0]
    return KeyedRecipe(base, form.experts, form.method, form.params, form.weights, form.sparsify, form.dtype)


def _measured_on(named: Recipe, known: Mapping[Source, Source]) -> Mapping[str, str]:
    """Return what stands for the text of a method's statistics: its content, and the tokenizer of each expert."""
    from m3_exp.merging.tokenizer import tokenizer_digest

    experts = sorted(named.experts, key=lambda expert: str(known[expert]))
    text = digest(str(load(named.method).keywords(named.params)["text"]))
    return {"text": identity([text, *map(tokenizer_digest, experts)])}


def needs_base(recipe: Recipe) -> bool:
    """Tell whether a recipe's canonical form, or that of one of its parts, reads the base."""
    return any(load(form.method).reads_base for form in (canonical(replace(recipe, parts=())), *_ends(recipe)))


def _ends(recipe: Recipe) -> list[Recipe]:
    """Return the canonical recipes that have the weights of each part for the whole model."""
    ends = [weights for part in recipe.parts for weights in (part.weights, part.last or part.weights)]
    return [canonical(replace(recipe, parts=(), weights=weights)) for weights in ends]


def tensors(recipe: Recipe, store: Store) -> parts.Table:
    """Return what a recipe by part gives to each tensor of its models, by their headers.

    Raises:
        M3Error: a part names no tensor of the models.
    """
    from m3_exp.merging.jobs import merged_names

    names = merged_names([*recipe.experts, *([recipe.base] if needs_base(recipe) else [])], store)
    return parts.table(recipe.weights, recipe.parts, names, len(recipe.experts))


def _table(
    named: Recipe, weights: Mapping[str, parts.Weights], content: Callable[[Source], Source], store: Store
) -> KeyedRecipe:
    """Return the recipe by content of which each tensor has its own weights; the plain one where they are all alike."""
    by_weights = {one: keyed(replace(named, parts=(), weights=one), content, store) for one in {*weights.values()}}
    forms = tuple(form for _, form in sorted({form.text: form for form in by_weights.values()}.items()))
    if len(forms) == 1:
        return forms[0]
    places = {form.text: place for place, form in enumerate(forms)}
    bases = [form.base for form in forms if load(form.method).reads_base]
    experts = tuple(sorted({expert for form in forms for expert in form.experts}, key=str))
    first = next((form for form in forms if form.method != AVERAGE), forms[0])
    return replace(
        first, base=(bases or experts)[0], experts=experts, weights=None, forms=forms,
        table={name: places[by_weights[one].text] for name, one in sorted(weights.items())},
    )  # fmt: skip


def _with(recipe: Recipe, **fields: Any) -> Recipe:
    """Return a recipe with these fields; the same object where it has them, as a recipe in its canonical form does."""
    held = {name: getattr(recipe, name) for name in fields}
    same = held == fields and [*held.get("params", ())] == [*fields.get("params", ())]  # their order is printed
    return recipe if same else replace(recipe, **fields)


def _check(recipe: Recipe) -> None:
    check_params(recipe.method, recipe.params)
    weights = recipe.weights
    if not load(recipe.method).named.declares.weighted and (weights is not None or recipe.parts):
        name = load(recipe.method).named.name
        raise M3Error(f"method {name} takes no weights of experts: give ratio=plain, or a method that takes them")
    if not recipe.experts:
        raise M3Error("a merge needs at least one expert: give family.experts")
    if weights is not None and len(weights) != len(recipe.experts):
        raise M3Error(f"{len(weights)} weights for {len(recipe.experts)} experts: give one weight an expert")
    if weights is not None and not all(math.isfinite(weight) for weight in weights):
        raise M3Error(f"weights {weights} hold something that is not a finite number")
    if recipe.dtype not in ("bfloat16", "float16", "float32"):
        raise M3Error(f"dtype={recipe.dtype} is not known: bfloat16, float16 or float32")


def _pairs(recipe: Recipe, experts: Sequence[Source], shares: Sequence[float]) -> list[tuple[Source, float]]:
    if (n := len(experts)) != len(shares):
        raise M3Error(f"method {recipe.method} declares {len(shares)} shares for {n} experts: one each is needed")
    return list(zip(experts, shares, strict=True))


def _linear(recipe: Recipe, shares: tuple[float, ...]) -> Recipe:
    total: dict[Source, float] = {}
    for expert, share in _pairs(recipe, recipe.experts, shares):
        if expert != recipe.base:  # its delta is 0
            total[expert] = total.get(expert, 0.0) + share
    total = {expert: share for expert, share in total.items() if abs(share) >= _NOTHING}
    if not total:
        return _single(recipe, recipe.base)
    if recipe.sparsify is None and are_shares(total.values()):
        if len(total) == 1:
            return _single(recipe, next(iter(total)))
        form: Json = {"method": AVERAGE, "params": {}}
    else:
        form = {"method": TASK_ARITHMETIC, "params": {"scaling": 1.0}}
    return _sorted(recipe, list(total), tuple(total.values()), form)


def _shared(recipe: Recipe, shares: tuple[float, ...]) -> Recipe:
    """Return the recipe without the experts that have no share; one that has all of it is the merge."""
    total: dict[Source, float] = {}
    for expert, share in _pairs(recipe, recipe.experts, shares):
        total[expert] = total.get(expert, 0.0) + share
    total = {expert: share for expert, share in total.items() if abs(share) >= _NOTHING}
    if len(total) == 1:
        return _linear(replace(recipe, experts=tuple(total)), (1.0,))
    return _sorted(recipe, list(total), tuple(total.values()))


def _single(recipe: Recipe, source: Source) -> Recipe:
    return replace(recipe, method=AVERAGE, params={}, experts=(source,), weights=(1.0,), sparsify=None)


def _sorted(recipe: Recipe, experts: Sequence[Source], weights: tuple[float, ...], form: Json | None = None) -> Recipe:
    """Order the experts by name; 12 decimals of a weight are kept, so that 1 - 0.7 and 0.3 are one number.

    `form` are other fields that the recipe gets.
    """
    pairs = sorted(_pairs(recipe, experts, weights), key=lambda pair: (str(pair[0]), pair[1]))
    rounded = tuple(round(weight, 12) + 0.0 for _, weight in pairs)
    return _with(recipe, experts=tuple(expert for expert, _ in pairs), weights=rounded, **(form or {}))
