"""What the tensors of an adapter are, by the names that peft gives them in files and in memory.

Source: peft/utils/save_and_load.py and peft/utils/other.py (ModulesToSaveWrapper, TrainableTokensWrapper). A name in
memory holds the adapter's own (`lora_A.default.weight`), one in a file does not.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

PREFIX = "base_model.model."
_LONGEST = 1000  # characters of a name

Role = Literal["A", "B", "B.bias", "magnitude", "tokens", "whole", "idle"]


@dataclass(frozen=True)
class Part:
    """One tensor of an adapter: its role, and the base's module (of a whole tensor: its name) that it belongs to.

    `depth` counts the `base_layer`s around a factor: modules of several trained parameters are wrapped once for each.
    `under` says that a whole tensor lies below the factors of its module (`base_layer`), not in its place.
    """

    role: Role
    target: str
    depth: int = 0
    under: bool = False


def part_of(name: str) -> Part | None:
    """Return what a tensor is; None for one of no kind that peft 0.21's LoRA writes."""
    target = name.removeprefix(PREFIX)
    if len(target) > _LONGEST:
        return None
    for pattern, made in _KINDS:
        match = pattern.fullmatch(target)
        if match:
            return made(match)
    return None if re.search(r"(^|\.)lora_", target) else Part("whole", target)


def _factor(match: "re.Match[str]") -> Part | None:
    half, leaf = match[3], match[4]
    if leaf == "bias":
        return Part("B.bias", match[1]) if half == "B" and not match[2] else None
    return Part("A" if half == "A" else "B", match[1], match[2].count(".base_layer"))


_KINDS: list[tuple["re.Pattern[str]", Callable[["re.Match[str]"], Part | None]]] = [
    (re.compile(r"(.+?)((?:\.base_layer)*)\.lora_(A|B)(?:\.[^.]+)?\.(weight|bias)"), _factor),
    (
        re.compile(r"(.+)\.lora_embedding_(A|B)(?:\.[^.]+)?"),
        lambda match: Part("A" if match[2] == "A" else "B", match[1]),
    ),
    (re.compile(r"(.+)\.lora_magnitude_vector(?:\.[^.]+){0,2}"), lambda match: Part("magnitude", match[1])),
    (re.compile(r"(.+)\.token_adapter\.trainable_tokens_delta(?:\.[^.]+)?"), lambda match: Part("tokens", match[1])),
    (re.compile(r"(.+)\.modules_to_save\.[^.]+\.(.+)"), lambda match: Part("whole", f"{match[1]}.{match[2]}")),
    (re.compile(r"(.+)\.original_module\.(.+)"), lambda match: Part("idle", f"{match[1]}.{match[2]}")),
    (re.compile(r"(.+)\.lora_(?:monteclora_sampler|velora_embed)(?:\..+)?"), lambda match: Part("idle", match[1])),
    (
        re.compile(r"(.+?)(?:\.token_adapter)?(?:\.base_layer)+\.([^.]+)"),
        lambda match: Part("whole", f"{match[1]}.{match[2]}", under=True),
    ),
]
