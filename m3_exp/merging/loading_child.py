"""The process behind `loading.py`: one JSON question a line on its input, one answer a line on its output.

Models are built on the meta device and loaded by transformers' own from_pretrained: no weight is there, no code of a
checkpoint is run.
"""

import json
import os
import resource
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from m3_exp.merging.layout import torch_dtype
from m3_exp.types import Json

_MEMORY = 16 << 30  # bytes of address space: a config.json may ask for any number of layers
_IDLE = ("sklearn",)  # transformers imports it where it is installed, for a helper of generation: two seconds


def main() -> None:
    sys.modules.update(dict.fromkeys(_IDLE))  # type: ignore[arg-type]
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


def _answer(question: dict[str, Any]) -> Json:
    config, tensors = question["config"], question["tensors"]
    kind = config.get("model_type")
    if not kind:
        return {"error": "it names no model_type"}
    refuses = f"model_type {kind}"
    try:
        made = _config(config)
        model_class = _model_class(made, config.get("architectures") or [])
        if model_class is None:
            return {"note": f"transformers has no class for {config.get('architectures') or kind}"}
        refuses = model_class.__name__
        return _loaded(model_class, made, tensors)
    except ImportError as error:
        return {"note": _said(error)}
    except Exception as error:
        return {"error": f"{refuses}: {_said(error)}"}


def _config(config: Json) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = str(config.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise ImportError(f"transformers does not know model_type {kind}")
    kind_class = CONFIG_MAPPING[kind]
    return kind_class.from_dict(kind_class._decode_special_floats(dict(config)))  # an infinity is no JSON


def _model_class(made: Any, architectures: list[str]) -> Any:
    """Return the class that config.json names, else that of causal language models; None if there is neither."""
    import transformers

    for name in architectures:
        named = getattr(transformers, name, None)
        if isinstance(named, type) and issubclass(named, transformers.PreTrainedModel):
            return named
    return transformers.AutoModelForCausalLM._model_mapping.get(type(made), None)


def _loaded(model_class: Any, made: Any, tensors: Mapping[str, tuple[str, list[int]]]) -> Json:
    import torch

    state = {
        name: torch.empty(shape, dtype=torch_dtype(code), device="meta")
        for name, (code, shape) in sorted(tensors.items())
    }
    model, info = model_class.from_pretrained(
        None,
        config=made,
        state_dict=dict(state),
        device_map={"": "meta"},
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    return {
        "model": model_class.__name__,
        "tied": bool(model.all_tied_weights_keys),
        "ties": dict(model.all_tied_weights_keys),
        "names": _names(model, {name: list(value.shape) for name, value in state.items()}),
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "mismatched": [
            {"name": name, "stored": list(stored), "wanted": list(wanted)}
            for name, stored, wanted in sorted(info["mismatched_keys"])
        ],
    }


def _names(model: Any, stored: dict[str, list[int]]) -> Json:
    """Return the model's own name for each stored one: its prefix put on or taken off, None for what it leaves out."""
    own, prefix = set(model.state_dict()), f"{model.base_model_prefix}."
    bare = {name.partition(".")[0] for name in stored if name not in own and prefix + name in own}
    names: Json = {}
    for name in stored:
        candidates = (name, prefix + name, name.removeprefix(prefix))
        unknown = prefix + name if name.partition(".")[0] in bare else name  # as its neighbours are called
        names[name] = next((candidate for candidate in candidates if candidate in own), unknown)
    strangers = SimpleNamespace(missing_keys=set(), unexpected_keys=set(names.values()) - own)
    kept = set(strangers.unexpected_keys)
    model._adjust_missing_and_unexpected_keys(strangers)
    left_out = kept - strangers.unexpected_keys
    left_out |= {mine for name, mine in names.items() if mine not in own and _is_mask(name, stored[name])}
    return {name: None if mine in left_out else mine for name, mine in names.items()}


def _is_mask(name: str, shape: list[int]) -> bool:
    """Tell whether a tensor is a causal mask or its value, which old classes (GPT-J's, CodeGen's) saved as buffers."""
    return (name.endswith(".bias") and len(shape) == 4 and shape[:2] == [1, 1]) or name.endswith(".masked_bias")


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


if __name__ == "__main__":
    main()
