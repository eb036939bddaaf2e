"""A recipe of mergekit -> the words of `m3 merge` that make the same weights.

    imported(read(path)).words -> ("family=local", "family.base=...", "method=average", "ratio=fixed", ...)

Parameters are resolved at every place that may differ (`settings`), and what they mean there is written as one mixture
for the whole model, or as parts (docs/parts.md): by filter, by layer, or on a line over the layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from m3_exp.command_line import CommandLine, override, quoted, word
from m3_exp.config import compose
from m3_exp.merging import part_words
from m3_exp.planning import variants
from m3_exp.recipes.depth import Depth, Where, depth_of, stored_dtype
from m3_exp.recipes.document import Document, Slice, read
from m3_exp.recipes.methods import Asked, Meaning, meaning
from m3_exp.recipes.settings import Place, Value, filters, of_class, value
from m3_exp.types import M3Error, Part

Weights = tuple[float, ...]
_DEEPEST = 999  # a last layer, where the number of layers is not known
# What comes after the layers: the last norm and the head; embeddings come before them. Their usual names tell whether a
# filter finds any of them.
_AFTER = "^(?!.*[.](layers|h|blocks)[.][0-9]+[.])(?!.*(embed|wte|wpe))"
_NAMES_AFTER = (
    "model.norm.weight",
    "ln_f.weight",
    "final_layernorm.weight",
    "final_layer_norm.weight",
    "lm_head.weight",
)
_NAMES_OUTSIDE = (*_NAMES_AFTER, "model.embed_tokens.weight", "transformer.wte.weight", "wpe.weight", "embed_in.weight")
_CLOSE = 1e-12  # of weights that lie on a line


@dataclass(frozen=True)
class Imported:
    """The words of `m3 merge`, without `out=`, and what is to be known of them."""

    words: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    """What a class of tensors gets: before the layers, in each of them (or at samples of the depth), after them.

    None stands where the class has no tensor.
    """

    filter: str | None
    before: Meaning | None
    layers: tuple[Meaning | None, ...]
    after: Meaning | None

    @property
    def all(self) -> list[Meaning]:
        return [one for one in (self.before, *self.layers, self.after) if one is not None]

    def changed(self, change: Callable[[Meaning], Meaning]) -> "_Row":
        before, *layers, after = (one and change(one) for one in (self.before, *self.layers, self.after))
        return _Row(self.filter, before, tuple(layers), after)


def imported(document: Document) -> Imported:
    """Return the words of `m3 merge` that make the weights of a recipe.

    Raises:
        M3Error: m3 cannot make them; the key is named, what it means, and what is supported.
    """
    try:
        return _imported(document)
    except M3Error as error:
        if str(error).startswith(str(document.path)):
            raise
        raise M3Error(f"{document.path}: {error}") from None


@dataclass(frozen=True)
class Command:
    """A command line of `m3 merge`, and what is to be known of it."""

    asked: CommandLine
    notes: tuple[str, ...]


def command(path: Path, more: CommandLine) -> Command:
    """Return the `m3 merge` that makes the weights of a file of mergekit; `more` are words that it gets beside them.

    The command is composed as `m3 merge` composes it, so that what it refuses is refused here.

    Raises:
        M3Error: as `read`, `imported` and `config.compose`.
    """
    found = imported(read(path))
    given = {text.partition("=")[0] for text in more.overrides}
    own = [text for text in found.words if text.partition("=")[0] not in given]
    asked = more.with_overrides(*own, *more.overrides, *([] if "out" in given else ["out=merged"]))
    for config in compose(asked).configs:
        list(variants(config))
    return Command(asked, found.notes)


def _imported(document: Document) -> Imported:
    depth = depth_of(document)
    used: set[str] = set()
    rows = _agreed([_row(document, depth, name, used) for name in (*filters(document), None)])
    every = [one for row in rows for one in row.all]
    first = every[0]
    experts = tuple(one for one in document.models if any(one in meant.models for meant in every))
    base = document.base or document.models[0]
    words = ["family=local", override("family.base", base), f"family.experts=[{','.join(map(_entry, experts))}]"]
    words += ["family.vocab=refuse", f"method={first.method}"]
    words += [override(key, held) for key, held in first.settings.items()]
    if first.weights is not None and len(experts) > 1:
        words += _ratio(rows, experts, depth)
    tokenizer, notes = _tokenizer(document, base, experts)
    dtype = document.dtype or stored_dtype(document)
    words += [tokenizer, *([f"dtype={dtype}"] if dtype else [])]
    if dtype is None:
        notes.append("dtype is not given, and config.json of no model is here: bfloat16 is taken")
    notes += [f"filter {row.filter} finds no tensor of these models" for row in rows if not row.all]
    notes += [f"{name} has no effect on {document.method}: it is left out" for name in _unused(document, used)]
    return Imported(tuple(words), tuple(dict.fromkeys((*document.notes, *depth.notes, *first.notes, *notes))))


def _entry(model: str) -> str:
    """Return a model as an entry of a list, in quotes where it needs them."""
    return quoted(model) if "," in model else word(model)


def _unused(document: Document, used: set[str]) -> list[str]:
    held = [document.settings, *(part.settings for part in document.slices)]
    held += [one.settings for part in document.slices for one in part.inputs]
    return sorted({name for settings in held for name in settings} - used - {"int8_mask"})


# ------------------------------------------------------------------------------------------------- what is asked


def _row(document: Document, depth: Depth, name: str | None, used: set[str]) -> _Row:
    every = filters(document)
    before = every if name is None else every[: every.index(name)]

    def at(part: Slice, t: float, where: Where) -> Meaning | None:
        tensors = of_class(depth.names(where), name, before)
        if depth.tensors and not tensors:
            return None
        return _meaning(document, Place(part, t, name, before, tensors), used)

    return _Row(
        name,
        at(document.slices[0], 0.0, "before"),
        tuple(at(part, t, number) for number, (part, t) in enumerate(depth.layers)),
        at(document.slices[-1], 0.0, "after"),
    )


def _meaning(document: Document, place: Place, used: set[str]) -> Meaning:
    inputs = {one.model: one for one in place.part.inputs}

    def get(name: str, model: str | None) -> Value | None:
        used.add(name)
        return value(document, name, place, inputs[model] if model is not None else None)

    return meaning(Asked(document.method, document.base, tuple(inputs), get))


def _agreed(rows: Sequence[_Row]) -> list[_Row]:
    """Return rows whose meanings have the same method and settings everywhere.

    Raises:
        M3Error: a setting that m3 has once for the whole model differs from layer to layer or tensor to tensor.
    """
    every = [one for row in rows for one in row.all]
    if all(one.plain for one in every):
        rows = [row.changed(lambda meant: meant.plain or meant) for row in rows]
    elif len({str(one.settings) for one in every}) > 1 and every[0].method == "task_arithmetic":
        rows = [row.changed(_scaled) for row in rows]
    every = [one for row in rows for one in row.all]
    for one in every[1:]:
        if one.method != every[0].method or {*one.settings} != {*every[0].settings}:
            raise M3Error("what the parameters mean differs between layers or tensors: give density below 1 everywhere")
        for key, held in one.settings.items():
            if held != every[0].settings[key]:
                raise M3Error(
                    f"{one.of.get(key, key)} differs between layers, models or tensors ({key} would be "
                    f"{every[0].settings[key]} and {held}): m3 has one for the whole model"
                )
        if one.weights is None and {*one.models} != {*every[0].models}:
            raise M3Error(f"slices merge different models: {one.method} of m3 merges the same ones in all layers")
    return list(rows)


def _scaled(meant: Meaning) -> Meaning:
    """Return task arithmetic with its scaling in the weights, which may differ from part to part."""
    scaling = float(meant.settings["method.scaling"])
    weights = {model: weight * scaling for model, weight in (meant.weights or {}).items()}
    return replace(meant, weights=weights, settings={**meant.settings, "method.scaling": 1.0})


# ----------------------------------------------------------------------------------------------------- the ratio


def _ratio(rows: Sequence[_Row], experts: Sequence[str], depth: Depth) -> list[str]:
    """Return the words of the ratio that gives every tensor its weights."""

    def shares(meant: Meaning | None) -> Weights | None:
        given = (meant.weights if meant else None) or {}
        return tuple(given.get(model, 0.0) + 0.0 for model in experts) if meant else None

    shown = [_Shares(row.filter, shares(row.before), tuple(map(shares, row.layers)), shares(row.after)) for row in rows]
    while len(shown) > 1 and shown[-2].is_covered_by(shown[-1]):
        del shown[-2]
    found = [part for one in shown for part in one.parts(depth)]
    rest = shown[-1].rest or (1.0,) * len(experts)
    if not found:
        return ["ratio=fixed", override("ratio.weights", rest)]
    return ["ratio=parts", part_words.override(found), override("ratio.rest", rest)]


@dataclass(frozen=True)
class _Shares:
    """A row as weights, one an expert; None where the class has no tensor."""

    filter: str | None
    before: Weights | None
    layers: tuple[Weights | None, ...]
    after: Weights | None

    @property
    def places(self) -> tuple[Weights | None, ...]:
        return (self.before, *self.layers, self.after)

    @property
    def rest(self) -> Weights | None:
        """The weights of the tensors that no other part of the class names."""
        return next((one for one in self.places if one is not None), None)

    def is_covered_by(self, other: "_Shares") -> bool:
        """Tell whether these tensors have the weights of another class at each place."""
        return all(one in (None, held) for one, held in zip(self.places, other.places, strict=True))

    def parts(self, depth: Depth) -> list[Part]:
        """Return the parts of this class. What else the default class holds is the rest of the ratio.

        Raises:
            M3Error: the weights bend over depth, and the number of layers is not known.
        """
        found, rest = [], self.rest
        if self.after not in (None, rest) and (depth.tensors or self._finds(_NAMES_AFTER)):
            found.append(Part(f"/{_AFTER}{f'(?=.*{_pattern(self.filter)})' if self.filter else ''}/", self.after))
        line = self._line()
        if line and line[0] == rest:
            last = len(self.layers) - 1 if depth.is_known else _DEEPEST
            where = "blocks" if self.filter is None else self._where(f"layers 1-{last}")
            found.append(Part(where, line[0], last=line[1]))
        elif not depth.is_known and {*self.layers} - {None, rest}:
            raise M3Error(
                "weights that bend over depth need the number of layers, and config.json of no model is here: give "
                "models that are on this disk or in the hub's cache, or write slices with layer_range"
            )
        else:
            found += self._runs()
        is_left = rest in self.places if depth.tensors else rest in self.layers or self._finds(_NAMES_OUTSIDE)
        if self.filter is not None and rest is not None and is_left:
            found.append(Part(f"/{_pattern(self.filter)}/", rest))
        return found

    def _finds(self, names: Sequence[str]) -> bool:
        return self.filter is None or any(self.filter in name for name in names)

    def _where(self, layers: str) -> str:
        return layers if self.filter is None else f"{layers} in /{_pattern(self.filter)}/"

    def _line(self) -> tuple[Weights, Weights] | None:
        """Return the weights of the first and the last layer, where they change and those between lie on the line."""
        first, last, steps = self.layers[0], self.layers[-1], len(self.layers) - 1
        if first is None or last is None or first == last:
            return None
        for number, weights in enumerate(self.layers):
            if weights is None:
                return None
            for one, other, held in zip(first, last, weights, strict=True):
                if abs((1 - number / steps) * one + number / steps * other - held) > _CLOSE:
                    return None
        return first, last

    def _runs(self) -> list[Part]:
        """Return a part for each run of layers that have the same weights, other than those of the rest."""
        found = []
        for weights, run in groupby(range(len(self.layers)), key=lambda number: self.layers[number]):
            numbers = list(run)
            if weights not in (None, self.rest):
                span = f"layers {numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else f"layers {numbers[0]}"
                found.append(Part(self._where(span), weights))
        return found


def _pattern(text: str) -> str:
    """Return a regular expression that finds a text."""
    return "".join(
        one if one.isalnum() or one in "_-" else f"[{one}]" if one not in "^\\]" else f"\\{one}" for one in text
    )


# ----------------------------------------------------------------------------------------------------- tokenizer


def _tokenizer(document: Document, base: str, experts: Sequence[str]) -> tuple[str, list[str]]:
    """Return the word for whose tokenizer goes along, and what is to be known of it."""
    source = document.tokenizer
    if source is None:
        return ("tokenizer=base" if document.base is not None else "tokenizer=0"), []
    if source == "union":
        if document.base is None and len(experts) > 2:
            raise M3Error(
                "tokenizer_source=union: m3 takes a row that a model lacks from the base, mergekit without a "
                "base_model the mean of the others: give a base_model"
            )
        return "tokenizer=union", []
    note = (
        "tokenizer_source: mergekit lays the rows of all models out as this tokenizer has them, and cuts rows past it; "
        "m3 does so where models give a token other rows, and else keeps the rows"
    )
    if source in ("base", base):
        if source == "base" and document.base is None:
            raise M3Error("tokenizer_source=base, but base_model is missing: name the base, or a model as tokenizer")
        return "tokenizer=base", [note]
    if source not in experts:
        raise M3Error(f"tokenizer_source={source} is none of the models that are merged: give {', '.join(experts)}")
    return f"tokenizer={experts.index(source)}", [note]
