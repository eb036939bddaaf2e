"""config.json: what its fields must be where a merge reads them, and what must agree between models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from m3_exp.reading.files import read_json
from m3_exp.reading.typed import Count, Finite, Strict, checked
from m3_exp.types import Json, M3Error

_Counts = Count | list[Count]  # some architectures have one for each layer
_Layers = Annotated[int, Field(ge=1, le=10_000)]
_FIELDS = (
    *("model_type", "architectures", "hidden_size", "n_embd", "intermediate_size", "num_hidden_layers", "n_layer"),
    *("num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "hidden_act", "sliding_window"),
)
_ROPE = (
    "their rotary attention was trained for other positions, so that no configuration fits a merge of the two; give an "
    "expert that keeps its base's rope settings"
)


class Rope(Strict):
    """Rotary settings, of a model or of one kind of its layers."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: Finite | None = None
    factor: Finite | None = None


class ModelConfig(Strict):
    """The fields that a merge reads; all may be absent."""

    model_type: str | None = None
    architectures: list[str] | None = None
    hidden_size: Count | None = None
    intermediate_size: _Counts | None = None
    num_hidden_layers: _Layers | dict[str, _Layers] | None = None  # lxmert has one for each of its parts
    n_layer: _Layers | None = None
    num_attention_heads: _Counts | None = None
    num_key_value_heads: _Counts | None = None
    head_dim: Annotated[int, Field(ge=0, le=1 << 40)] | None = None  # 0: as the sizes have it
    vocab_size: Count | None = None
    hidden_act: str | None = None
    sliding_window: int | None = None
    use_sliding_window: bool | None = None
    tie_word_embeddings: bool | None = None
    rope_theta: Finite | None = None
    rope_scaling: Rope | None = None
    rope_parameters: Json | None = None
    quantization_config: Json | None = None
    text_config: "ModelConfig | None" = None


def read_config(folder: Path) -> Json:
    """Return a model directory's config.json.

    Raises:
        M3Error: it is absent, may not be read, is no JSON object, or a field is of the wrong type.
    """
    path = folder / "config.json"
    config: dict[str, Any] = read_json(path)
    checked(ModelConfig, config, path)
    for one in (config, config.get("text_config") or {}):
        _check_rope_parameters(one.get("rope_parameters") or {}, path)
    return config


def _check_rope_parameters(rope: Json, path: Path) -> None:
    """Check rope settings, which are given once or for each kind of layer."""
    for kind, value in rope.items():
        if isinstance(value, dict):
            checked(Rope, value, f"{path}: rope_parameters.{kind}")
    checked(Rope, rope, f"{path}: rope_parameters")


def tie_said(config: Mapping[str, Any]) -> bool | None:
    """Return what config.json says of tying head and embedding; None where it is silent."""
    for one in (config, config.get("text_config") or {}):
        if one.get("tie_word_embeddings") is not None:
            return bool(one["tie_word_embeddings"])
    return None


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must agree between models that are merged: kind, sizes, heads, and normalised rope settings.

    A `sliding_window` that `use_sliding_window` switches off is left out (Qwen has another value in each of its
    models).
    """
    config = {**(config.get("text_config") or {}), **{key: value for key, value in config.items() if value is not None}}
    settings = {key: config.get(key) for key in _FIELDS}
    if config.get("use_sliding_window") is False:
        settings["sliding_window"] = None
    heads = config.get("num_attention_heads")
    settings["num_key_value_heads"] = config.get("num_key_value_heads") or heads
    if isinstance(heads, int) and config.get("hidden_size"):
        settings["head_dim"] = config.get("head_dim") or config["hidden_size"] // heads
    rope = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    theta = (config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta"))
    rope.pop("rope_theta", None)
    kind = rope.pop("rope_type", rope.pop("type", "default"))
    by_layer = any(isinstance(value, dict) for value in rope.values())
    settings["rope"] = {
        "theta": float(theta or 10000.0),
        "type": kind,
        **({} if kind == "default" and not by_layer else rope),
    }
    return settings


def cache_values(config: Mapping[str, Any]) -> int | None:
    """Return how many values the KV cache holds of a token; None where the configuration does not say."""
    shape = architecture(config)
    layers, heads, size = config.get("num_hidden_layers"), shape["num_key_value_heads"], shape.get("head_dim")
    return 2 * int(layers) * heads * size if layers and heads and size else None


def check_same_architecture(first: Json, second: Json, names: Sequence[str]) -> None:
    """Refuse two configurations that differ in what must agree.

    Raises:
        M3Error: the first setting that differs, with both values.
    """
    ours, theirs = architecture(first), architecture(second)
    for key in sorted(ours):
        if ours[key] != theirs[key] and None not in (ours[key], theirs[key]):
            both = f"{names[0]} has {key}={ours[key]}, {names[1]} has {theirs[key]}"
            raise M3Error(f"{both}: {_ROPE if key == 'rope' else 'only fine-tunes of one base can be merged'}")
