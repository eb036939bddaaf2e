"""Where the weight of an adapter's module lies among a base's tensors.

Names in memory and on disk differ: the base model's prefix, Conv1D's transposed weights, and experts, which
transformers 5 holds fused (`experts.gate_up_proj`) and writes one by one (transformers/conversion_mapping.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from m3_exp.merging.layout import Entry

_PREFIXES = ("model.", "transformer.", "gpt_neox.")
# Models whose projections are Conv1D, stored (in, out), and those modules.
_CONV1D = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
_CONV1D_MODULES = {"c_attn", "q_attn", "c_proj", "c_fc"}
# Models whose fused experts say `is_transposed` (experts, in, out): peft adds to all others B @ A as they are stored.
EXPERTS_IN_OUT = {"gpt_oss", "aria", "aria_text", "openai_privacy_filter"}
# The order in which transformers registers the parameters of fused experts, and so the order of peft's wrappers.
FUSED = ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")
# On disk, by expert: the names whose rows, one after another, are a fused parameter's.
_BY_EXPERT = {"gate_up_proj": (("w1", "w3"), ("gate_proj", "up_proj")), "down_proj": (("w2",), ("down_proj",))}


@dataclass(frozen=True)
class Piece:
    """A stored tensor that is part of a fused parameter: one expert's, `rows` of its output."""

    name: str
    expert: int
    rows: tuple[int, int]


def located(name: str, entries: Mapping[str, Entry]) -> str | None:
    """Return the base's name of a tensor, given the name that it has in memory; None where there is none."""
    if name in entries:
        return name
    others = [name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)]
    others += [prefix + name for prefix in _PREFIXES]
    others += [name.replace(".mlp.", ".block_sparse_moe.")] if ".mlp." in name else []
    known = sorted({other for other in others if other in entries})
    return known[0] if len(known) == 1 else None


def is_transposed(module: str, model_type: str) -> bool:
    """Tell whether a module's weight is stored (in, out): peft goes by the layer's class, not by fan_in_fan_out."""
    return model_type in _CONV1D and module.rpartition(".")[2] in _CONV1D_MODULES


def by_expert(module: str, parameter: str, entries: Mapping[str, Entry]) -> list[Piece]:
    """Return the stored tensors that make a fused parameter up; empty where the base does not hold experts one by one.

    Experts that are missing leave the list short, which the shapes of the factors then show.
    """
    for stem in (module, module.replace(".mlp.", ".block_sparse_moe.")):
        for leaves in _BY_EXPERT.get(parameter, ()):
            pieces: list[Piece] = []
            expert = 0
            while all(f"{stem}.{expert}.{leaf}.weight" in entries for leaf in leaves):
                start = 0
                for leaf in leaves:
                    name = f"{stem}.{expert}.{leaf}.weight"
                    stop = start + entries[name].shape[0] if entries[name].shape else start
                    pieces.append(Piece(name, expert, (start, stop)))
                    start = stop
                expert += 1
            if pieces:
                return pieces
    return []
