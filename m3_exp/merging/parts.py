"""The parts of a model: which tensors a text names, and which weights a merge by part gives to each tensor.

    attention, mlp, norms, embeddings, head   by what a tensor belongs to (`_KINDS`)
    blocks, all                               what lies in decoder layers; every tensor
    layers 4-11, layers 4                     decoder layers, counted from 0, both ends included
    depth 1/3                                 the first of three equal ranges of the decoder layers
    /REGEX/                                   tensors in whose name the regular expression is found
    attention in depth 1/3                    what both of two name

Where two parts name a tensor, the first one has it. Nothing but names is looked at.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from m3_exp.merging import simplex
from m3_exp.types import Drawn, M3Error, Part

Weights = tuple[float, ...] | None
KINDS = ("attention", "mlp", "norms", "embeddings", "head")
ALLOWED = (
    f"{', '.join(KINDS)}, blocks, all, layers A-B, depth I/K, /REGEX/, or two of them as in 'attention in layers 0-5'"
)
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_ELSEWHERE = re.compile(r"(?:^|\.)(?:vision\w*|visual|audio\w*|\w*encoder|multi_modal_projector)\.")  # no decoder
# What a tensor belongs to: the first line of which one step of its dotted name is an example. The steps are those of
# Llama, Mistral, Qwen, Gemma, Phi, GPT-2, GPT-NeoX, GPT-J, OPT, BLOOM, Falcon, MPT, StarCoder, Mixtral and Qwen's MoE.
_KINDS = {
    "norms": re.compile(r"\w*norm(_\d+)?|ln(_\w+)?"),
    "head": re.compile(r"lm_head|embed_out"),
    "embeddings": re.compile(r"wte|wpe|embed_in|embed_tokens\w*|embed_positions|\w*embeddings?"),
    "attention": re.compile(r"\w*attn|\w*attention"),
    "mlp": re.compile(r"\w*mlp|ffn|feed_forward|\w*moe|fc[12]"),
}


def kind(name: str) -> str:
    """Return what a tensor of a language model belongs to, by its name; "" for none of `KINDS`."""
    if _ELSEWHERE.search(name):
        return ""
    steps = name.split(".")
    return next((kind for kind, known in _KINDS.items() if any(map(known.fullmatch, steps))), "")


def layer(name: str) -> int | None:
    """Return the number of the decoder layer in which a tensor lies; None outside of them."""
    found = None if _ELSEWHERE.search(name) else _LAYER.search(name)
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Table:
    """What a merge by part gives to each tensor: its weights, and the part that it has them from (None: the rest)."""

    weights: Mapping[str, Weights]
    part: Mapping[str, Part | None]


def table(weights: Weights, parts: Sequence[Part], names: Sequence[str], n_experts: int) -> Table:
    """Return the weights of each of a model's merged tensors.

    Raises:
        M3Error: a part names no tensor of this model, or none that an earlier part leaves.
    """
    layers = 1 + max((number for name in names if (number := layer(name)) is not None), default=-1)
    given: dict[str, Weights] = {}
    origin: dict[str, Part | None] = {}
    for part in parts:
        names_it = _selector(part.where, layers)
        in_layers = part.last or (part.drawn and part.drawn.per == "block")
        found = [name for name in names if names_it(name) and not (in_layers and layer(name) is None)]
        new = [name for name in found if name not in origin]
        if not new:
            reason = "no tensor that an earlier part leaves to it" if found else "no tensor of this model"
            raise M3Error(f"part {part.where!r} names {reason}: the model has {_inventory(names, layers)}")
        origin.update(dict.fromkeys(new, part))
        given.update((name, _weights(part, name, layers, n_experts)) for name in new)
    return Table(
        {name: given.get(name, weights) if name in origin else weights for name in names},
        {name: origin.get(name) for name in names},
    )


def check(part: Part) -> None:
    """Refuse a part that names tensors in no way that is known, or draws impossible shares; no model is needed."""
    _selector(part.where, 1)
    if part.drawn is not None:
        drawn(2, part.drawn)


def drawn(n_experts: int, asked: Drawn, *place: object) -> tuple[float, ...]:
    """Draw the shares of one place: that of the whole model (no `place`), of a decoder layer or of a tensor."""
    return simplex.mixup(n_experts, asked.alpha, asked.seed, asked.draw, *place)


def _weights(part: Part, name: str, layers: int, n_experts: int) -> Weights:
    number = layer(name)
    if part.drawn is not None:
        place = ("block", number) if part.drawn.per == "block" else ("tensor", name)
        return drawn(n_experts, part.drawn, *place)
    if not part.last or part.weights is None:
        return part.weights
    depth = (number or 0) / max(1, layers - 1)
    return tuple((1 - depth) * one + depth * other for one, other in zip(part.weights, part.last, strict=True))


def _selector(where: str, layers: int) -> Callable[[str], bool]:
    """Return what tells whether a part names a tensor of a model with so many decoder layers."""
    if where.startswith("/"):
        return _expression(where)
    first, joined, second = where.partition(" in ")
    if joined:
        one, other = _selector(first.strip(), layers), _selector(second.strip(), layers)
        return lambda name: one(name) and other(name)
    if where in KINDS:
        return lambda name: kind(name) == where
    if where in ("blocks", "all"):
        return lambda name: where == "all" or layer(name) is not None
    if found := re.fullmatch(r"layers? (\d+)(?:-(\d+))?", where):
        low, high = int(found[1]), int(found[2] or found[1])
        return lambda name: low <= _or_none(layer(name)) <= high
    if (found := re.fullmatch(r"depth (\d+)/(\d+)", where)) and 1 <= int(found[1]) <= int(found[2]):
        index, ranges = int(found[1]), int(found[2])
        return lambda name: _or_none(layer(name)) * ranges // max(1, layers) + 1 == index and layer(name) is not None
    raise M3Error(f"{where!r} names no part of a model: allowed are {ALLOWED}")


def _or_none(number: int | None) -> int:
    return -1 if number is None else number


def _expression(where: str) -> Callable[[str], bool]:
    if len(where) < 3 or not where.endswith("/"):
        raise M3Error(f"{where!r} is no regular expression: it stands between two slashes, as in /self_attn.q_proj/")
    try:
        compiled = re.compile(where[1:-1])
    except re.error as error:
        raise M3Error(f"{where!r} is no regular expression: {error}") from error
    return lambda name: compiled.search(name) is not None


def _inventory(names: Sequence[str], layers: int) -> str:
    """Say which parts a model has: `attention, mlp, norms, embeddings, head, layers 0-31`."""
    held = {kind(name) for name in names}
    there = [name for name in KINDS if name in held] + ([f"layers 0-{layers - 1}"] if layers else [])
    return ", ".join(there) or f"tensors as {names[0]}"
