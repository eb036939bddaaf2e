"""A LoRA adapter on a base model, read as if it were merged: W + scale * B @ A in float32 (peft's layout on disk).

Products are summed over the rank in a fixed order, so that no bit depends on how the reader cuts its blocks.
"""

import json
import math
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from m3_exp.merging.layout import Entry, SafetensorsFile, Tensors, TorchFile
from m3_exp.types import Json, M3Error

_PREFIX = "base_model.model."


class Adapter:
    """The files of one adapter: which tensors it adds a product to, and which it replaces.

    Raises:
        M3Error: it is not a plain LoRA (DoRA, biases, other peft types), or its tensors do not pair up.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _adapter_config(folder)
        safe, pickled = folder / "adapter_model.safetensors", folder / "adapter_model.bin"
        if not safe.is_file() and not pickled.is_file():
            raise M3Error(f"{folder} holds no adapter_model.safetensors: give a directory that peft has written")
        self.tensors: Tensors = _OneFile(SafetensorsFile(safe) if safe.is_file() else TorchFile(pickled))
        self.products: dict[str, tuple[str, str]] = {}
        self.replaced: dict[str, str] = {}
        for name in sorted(self.tensors.entries):
            self._sort_in(name)
        for target, (a, b) in self.products.items():
            if not a or not b:
                raise M3Error(f"{folder}: {target} has only one half of its LoRA pair: fetch the adapter again")

    def _sort_in(self, name: str) -> None:
        target = name.removeprefix(_PREFIX)
        match = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", target)
        if match:
            pair = self.products.get(f"{match[1]}.weight", ("", ""))
            self.products[f"{match[1]}.weight"] = (name, pair[1]) if match[2] == "A" else (pair[0], name)
        elif "lora" in target or not target.endswith((".weight", ".bias")):
            raise M3Error(f"{self.folder}: tensor {name} is not plain LoRA: only lora_A, lora_B and whole tensors are")
        else:
            self.replaced[target] = name

    def scale(self, target: str) -> float:
        """Return alpha / r (alpha / sqrt(r) for rsLoRA), peft's per-module patterns included."""
        module = target.removesuffix(".weight")
        rank = _patterned(self.config, "rank_pattern", module, self.config["r"])
        alpha = _patterned(self.config, "alpha_pattern", module, self.config["lora_alpha"])
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


class LoraTensors:
    """The tensors of a base with an adapter merged in; touched ones read as float32."""

    def __init__(self, base: Tensors, adapter: Adapter, base_name: str) -> None:
        self._base, self._adapter = base, adapter
        for target, (a, b) in adapter.products.items():
            made = (adapter.tensors.entries[b].shape[0], adapter.tensors.entries[a].shape[-1])
            if target not in base.entries or base.entries[target].shape != made:
                there = base.entries[target].shape if target in base.entries else "none"
                both = f"{adapter.folder} changes {target} of shape {made}, {base_name} has {there}"
                raise M3Error(f"{both}: it is for another base")

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        adapter = self._adapter
        touched = {name: Entry(self._base.entries[name].shape, torch.float32) for name in adapter.products}
        replaced = {name: adapter.tensors.entries[theirs] for name, theirs in adapter.replaced.items()}
        return {**self._base.entries, **touched, **replaced}

    @property
    def parts(self) -> Mapping[Path, list[str]]:
        return self._adapter.tensors.parts

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        if name in self._adapter.replaced:
            return self._adapter.tensors.read(self._adapter.replaced[name], start, stop)
        block = self._base.read(name, start, stop)
        if name not in self._adapter.products:
            return block
        from m3_exp.merging import kernels

        result = block.to(torch.float32, copy=True)
        a, b = (self._factor(factor) for factor in self._adapter.products[name])
        scale = np.float32(self._adapter.scale(name))
        kernels.add_product(result.numpy(), start, b.numpy(), a.numpy(), scale)
        return result

    def _factor(self, name: str) -> torch.Tensor:
        entry = self._adapter.tensors.entries[name]
        return self._adapter.tensors.read(name, 0, entry.numel).to(torch.float32).view(entry.shape)


class _OneFile:
    """A single file as a set of tensors."""

    def __init__(self, file: SafetensorsFile | TorchFile) -> None:
        self.entries = file.entries
        self.parts = {file.path: sorted(file.entries)}
        self.read = file.read


def _adapter_config(folder: Path) -> Json:
    try:
        config: Json = json.loads((folder / "adapter_config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise M3Error(f"{folder} holds no readable adapter_config.json: give a LoRA adapter written by peft") from error
    wrong = [
        f"{key}={config[key]}"
        for key, plain in (("use_dora", False), ("fan_in_fan_out", False), ("bias", "none"), ("lora_bias", False))
        if config.get(key, plain) != plain
    ]
    if config.get("peft_type") != "LORA" or wrong:
        what = ", ".join(wrong) or f"peft_type={config.get('peft_type')}"
        raise M3Error(f"{folder} is not a plain LoRA ({what}): merge it into its base with peft first, and give that")
    return config


def _patterned(config: Json, key: str, module: str, default: float) -> float:
    """Return the value of the first pattern that names a module, as peft matches them."""
    for pattern, value in (config.get(key) or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return float(value)
    return float(default)
