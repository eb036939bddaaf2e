"""adapter_config.json of a LoRA adapter: each field of peft 0.21's LoraConfig is honoured, harmless or refused by name.

Source: peft/tuners/lora/config.py (fields), peft/utils/other.py (get_pattern_key), peft/tuners/lora/variants.py.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from m3_exp.reading.files import exists, read_json
from m3_exp.reading.patterns import fullmatch
from m3_exp.reading.shown import short
from m3_exp.reading.typed import Count, Finite, Strict, checked
from m3_exp.types import M3Error

Switch = bool | None
Token = Annotated[int, Field(strict=True, ge=0, le=1 << 40)]

_MERGE_FIRST = "merge it into its base with peft first, and give that"
# Fields that change what the weights are in a way that B @ A cannot say: refused where they are set.
_REFUSED = {
    "alora_invocation_tokens": "aLoRA acts only on tokens after its invocation, which no merged weight can",
    "arrow_config": "Arrow chooses among adapters for each token, which no merged weight can",
    "use_qalora": "QA-LoRA pools its inputs, which no merged weight can",
    "kasa_config": f"KaSA truncates the base's own weights: {_MERGE_FIRST}",
    "layer_replication": f"it repeats layers of its base: {_MERGE_FIRST}",
    "megatron_config": f"Megatron lays its layers out in another way: {_MERGE_FIRST}",
    "use_bdlora": f"BD-LoRA's factors are block-diagonal: {_MERGE_FIRST}",
}
# Fields of training, initialisation and running, and of other versions and trainers, that no weight depends on.
_HARMLESS = frozenset({
    "task_type", "inference_mode", "auto_mapping", "revision", "peft_version", "megatron_core", "qalora_group_size",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config",
    "merge_weights", "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr",
})  # fmt: skip
_STARTS = ("gaussian", "eva", "orthogonal", "mica")
_CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga")


class LoraConfig(Strict):
    """The fields of an adapter_config.json that say what the weights are, or of which type they must be."""

    peft_type: str
    r: Count
    lora_alpha: Finite
    rank_pattern: dict[str, Count] | None = None
    alpha_pattern: dict[str, Finite] | None = None
    use_rslora: Switch = False
    use_dora: Switch = False
    lora_bias: Switch = False
    bias: Literal["none", "all", "lora_only"] | None = "none"
    fan_in_fan_out: Switch = False
    init_lora_weights: bool | str | None = True
    modules_to_save: list[str] | None = None
    trainable_token_indices: list[Token] | dict[str, list[Token]] | None = None
    target_parameters: list[str] | None = None
    base_model_name_or_path: str | None = None
    # which modules were trained is said by the tensors themselves
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    lora_dropout: Finite | None = 0.0
    ensure_weight_tying: Switch = False
    velora_config: object = None  # a backward pass of its own
    monteclora_config: object = None  # samples around the factors in training alone
    _file: str = "adapter_config.json"

    def rank(self, key: str) -> int:
        """Return the rank of a module (`model.layers.0.self_attn.q_proj`) or parameter, as peft matches patterns."""
        return int(_patterned(f"{self._file}: rank_pattern", self.rank_pattern, key, self.r))

    def scale(self, key: str) -> float:
        """Return what B @ A is multiplied by: alpha / r, for rsLoRA alpha / sqrt(r), patterns included."""
        alpha = _patterned(f"{self._file}: alpha_pattern", self.alpha_pattern, key, self.lora_alpha)
        rank = self.rank(key)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def saves(self, module: str) -> bool:
        """Tell whether a module is trained as a copy of its own (`modules_to_save`, matched as peft does)."""
        return any(module.endswith(name) for name in self.modules_to_save or ())

    def targets(self, parameter: str) -> bool:
        """Tell whether a parameter is trained itself (`target_parameters`), not by way of its module."""
        return any(_ends(parameter, name) for name in self.target_parameters or ())

    def trains(self, module: str) -> bool:
        """Tell whether a module is among `target_modules`, as far as names say: peft leaves all others out."""
        targets = self.target_modules
        if isinstance(targets, str):
            return targets.lower() == "all-linear" or fullmatch(targets, module, f"{self._file}: target_modules")
        return targets is None or any(_ends(module, name) or _ends(name, module) for name in targets)

    def tokens(self, module: str) -> tuple[int, ...] | None:
        """Return which rows of an embedding or a head are trained; None where none are."""
        given = self.trainable_token_indices
        if isinstance(given, dict):
            return next((tuple(rows) for name, rows in given.items() if module.endswith(name)), None)
        return tuple(given) if given is not None else None


def read_config(folder: Path) -> LoraConfig:
    """Read and check an adapter's configuration.

    Raises:
        M3Error: there is none, it is not LoRA, a field is of the wrong type or range, or one that would change the
            weights is not honoured; the field is named.
    """
    path = folder / "adapter_config.json"
    if not exists(path):
        raise M3Error(f"{folder} holds no adapter_config.json: give a LoRA adapter written by peft")
    raw = read_json(path)
    if raw.get("peft_type") != "LORA":
        raise M3Error(f"{folder} is not a LoRA adapter (peft_type={raw.get('peft_type')!r:.60}): {_MERGE_FIRST}")
    config = checked(LoraConfig, raw, path)
    config._file = str(path)
    for name, why in _REFUSED.items():
        if raw.get(name) not in (None, False, "", []):  # {} switches a variant on
            raise M3Error(f"{path}: {name}={short(raw[name], 40)} cannot be read: {why}")
    for key in sorted(raw.keys() - LoraConfig.model_fields.keys() - _HARMLESS - _REFUSED.keys()):
        if raw[key] not in (None, False, "", [], {}):
            said = f"{key}={short(raw[key], 40)} is no field of peft 0.21 and may change the weights"
            raise M3Error(f"{path}: {said}: {_MERGE_FIRST}")
    _check_start(path, config.init_lora_weights)
    if config.use_dora and config.lora_bias:
        raise M3Error(f"{path}: use_dora and lora_bias exclude one another, as in peft")
    return config


def _check_start(path: Path, start: bool | str | None) -> None:
    """Refuse an initialisation that took something out of the base: the adapter alone is not what was trained."""
    if not isinstance(start, str):
        return
    kind, shown = start.lower(), f"{path}: init_lora_weights={short(start, 40)}"
    if kind.startswith(_CHANGES_BASE):
        raise M3Error(
            f"{shown} changed the base's weights before training: convert it with peft's "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...), or merge it with peft first"
        )
    if kind.startswith("loftq"):
        raise M3Error(f"{shown} was trained on a quantised base, not on this one: {_MERGE_FIRST}")
    if kind not in _STARTS:
        raise M3Error(f"{shown} is not known: true, false or one of {', '.join(_STARTS)} are read")


def _patterned(field: str, patterns: Mapping[str, float] | None, key: str, default: float) -> float:
    for pattern, value in (patterns or {}).items():
        if _ends(key, pattern) or fullmatch(rf"(.*\.)?({pattern})", key, field):
            return value
    return default


def _ends(name: str, end: str) -> bool:
    """Tell whether a dotted name ends in another, whole parts of it."""
    return f".{name}".endswith(f".{end}")
