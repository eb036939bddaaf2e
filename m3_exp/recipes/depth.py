"""What the files of the models say, where they are on this disk: how deep the merge is, which slice each layer comes
from, what the tensors are called, how they are stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from m3_exp.merging import parts
from m3_exp.merging.layout import open_directory
from m3_exp.merging.model_config import read_config
from m3_exp.merging.source import at_hand, parse_source
from m3_exp.recipes.document import Document, Input, Slice
from m3_exp.types import Json, M3Error

# Tensors of Llama and its like, where those of the models are not at hand.
_USUAL = {"before": ("model.embed_tokens.weight",), "after": ("model.norm.weight", "lm_head.weight")}
_USUAL_OF_LAYERS = (
    *(f"self_attn.{one}_proj.{kind}" for one in "qkvo" for kind in ("weight", "bias")),
    *(f"self_attn.{one}_norm.weight" for one in "qk"),
    *(f"mlp.{one}_proj.weight" for one in ("gate", "up", "down")),
    *("input_layernorm.weight", "post_attention_layernorm.weight"),
)
Where = Literal["before", "after"] | int  # outside of the layers, or a layer


@dataclass(frozen=True)
class Depth:
    """The slice of each decoder layer and the layer's place in it, from 0 to 1.

    Where the number of layers is not known, `is_known` is false and `layers` are samples of a model's depth. `tensors`
    are the names of a model that is at hand; without one the usual names are taken for likely.
    """

    layers: tuple[tuple[Slice, float], ...]
    is_known: bool
    notes: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()

    def names(self, where: Where) -> tuple[str, ...]:
        """Return the names of the tensors before, after or in a layer."""
        if not self.tensors:
            return (
                _USUAL[where]
                if isinstance(where, str)
                else tuple(f"model.layers.{where}.{n}" for n in _USUAL_OF_LAYERS)
            )
        if isinstance(where, int):
            return tuple(name for name in self.tensors if parts.layer(name) == where)
        outside = [name for name in self.tensors if parts.layer(name) is None]
        return tuple(name for name in outside if (parts.kind(name) == "embeddings") == (where == "before"))


def depth_of(document: Document) -> Depth:
    """Return the layers of the merged model, and the names of its tensors where a model is at hand.

    Raises: as `_depth_of`.
    """
    return replace(_depth_of(document), tensors=_tensors(document))


def _tensors(document: Document) -> tuple[str, ...]:
    for model in document.models:
        folder = _folder(model)
        if folder is not None and folder.is_dir():
            try:
                return tuple(open_directory(folder).entries)
            except M3Error:  # m3 merge says what is wrong with it
                continue
    return ()


def _depth_of(document: Document) -> Depth:
    """Return the layers of the merged model.

    Raises:
        M3Error: slices repeat, skip or move layers: m3 keeps each layer in its place.
    """
    configs = [config for model in document.models if (config := _config(model)) is not None]
    counts = {count for config in configs if (count := _layers(config)) is not None}
    if document.slices[0].inputs[0].layers is None:
        return _whole(document, counts)
    end = _in_order(document)
    for count in counts:
        if count != end:
            raise M3Error(
                f"slices end before layer {end}, a model has {count} layers: leaving layers out or adding some makes a "
                "model of another shape; m3 keeps every layer"
            )
    note = f"not checked, since config.json of no model is here: that the models have {end} layers"
    layers = [(part, t) for part in document.slices for t in _places(_length(part.inputs[0]))]
    return Depth(tuple(layers), True, () if counts else (note,))


def _whole(document: Document, counts: set[int]) -> Depth:
    (part,) = document.slices
    if len(counts) > 1:
        raise M3Error(f"the models have {' and '.join(map(str, sorted(counts)))} layers: m3 merges models of one shape")
    if counts:
        return Depth(tuple((part, t) for t in _places(counts.pop())), True)
    held = [setting for one in part.inputs for setting in one.settings.values()] + [*document.settings.values()]
    longest = max((len(one.values) for setting in held for one in setting), default=1)
    if longest > 2:
        raise M3Error(
            f"a gradient of {longest} values needs the number of layers, and config.json of no model is here: give "
            "models that are on this disk or in the hub's cache, or write slices with layer_range"
        )
    return Depth(tuple((part, t) for t in (0.0, 0.5, 1.0)), False)


def _in_order(document: Document) -> int:
    """Return the number of layers of slices that keep each layer in its place."""
    if len({len(part.inputs) for part in document.slices}) > 1:
        raise M3Error(
            "slices differ in their number of sources: give each slice as many (mergekit 0.1.5 drops some else)"
        )
    end = 0
    for number, part in enumerate(document.slices):
        if len({_length(one) for one in part.inputs}) > 1:
            raise M3Error(f"slices[{number}] has sources of different length: give all of them as many layers")
        for source, one in enumerate(part.inputs):
            start, stop = one.layers or (0, 0)
            if start != end:
                raise M3Error(
                    f"slices[{number}].sources[{source}].layer_range=[{start}, {stop}] stands where layer {end} comes "
                    "next: stacking layers in another order (a frankenmerge) makes a model of another shape; m3 keeps "
                    "each layer in its place"
                )
        end += _length(part.inputs[0])
    return end


def _length(one: Input) -> int:
    start, stop = one.layers or (0, 0)
    return stop - start


def _places(count: int) -> Sequence[float]:
    """Return the depth of each layer of a slice; mergekit gives the only layer of a slice the last value."""
    return [1.0] if count == 1 else [number / (count - 1) for number in range(count)]


def stored_dtype(document: Document) -> str | None:
    """Return the type that the models are stored in, where a config.json that is here says so."""
    found = {
        str(config.get("dtype") or config.get("torch_dtype")) for config in map(_config, document.models) if config
    }
    known = found & {"bfloat16", "float16", "float32"}
    return known.pop() if len(found) == len(known) == 1 else None


def vocabulary(model: str) -> int | None:
    """Return the rows of a model's vocabulary, None where its config.json is not on this disk or does not say."""
    config = _config(model) or {}
    text_config = config.get("text_config")
    count = config.get("vocab_size") or (text_config.get("vocab_size") if isinstance(text_config, dict) else None)
    return count if isinstance(count, int) else None


def _layers(config: Json) -> int | None:
    text_config = config.get("text_config")
    held = {**(text_config if isinstance(text_config, dict) else {}), **config}
    counts = [held.get(key) for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers")]
    return next((count for count in counts if isinstance(count, int)), None)


def _config(model: str) -> Json | None:
    """Return the config.json of a model, None where it is not on this disk."""
    folder = _folder(model)
    try:
        return read_config(folder) if folder is not None and folder.is_dir() else None
    except M3Error:  # m3 merge says what is wrong with it
        return None


def _folder(model: str) -> Path | None:
    """Return where a model lies; None where it is not on this disk."""
    try:
        return at_hand(parse_source(model))
    except M3Error:  # m3 merge says what is wrong with it
        return None
