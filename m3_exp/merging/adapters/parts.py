"""The tensors of an adapter by what they are: pairs of factors, whole tensors, rows of tokens, and what is idle."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from m3_exp.merging.adapters.config import LoraConfig
from m3_exp.merging.adapters.names import Role, part_of
from m3_exp.merging.layout import DTYPES, Tensors
from m3_exp.types import M3Error

_OF_A_PAIR: tuple[Role, ...] = ("A", "B", "B.bias", "magnitude")


@dataclass(frozen=True)
class Pair:
    """The tensors of one adapted layer, by their names; bias and magnitude are empty where it has none."""

    a: str
    b: str
    bias: str
    magnitude: str

    @property
    def embedding(self) -> bool:
        return ".lora_embedding_" in self.a


@dataclass(frozen=True)
class Whole:
    """A tensor in place of the base's; `under` says that factors are added to it, since it lies below them."""

    name: str
    under: bool


@dataclass(frozen=True)
class Parts:
    """Pairs by module and depth (`names.Part`), whole tensors by the base's names, rows of tokens by module."""

    pairs: Mapping[tuple[str, int], Pair]
    wholes: Mapping[str, Whole]
    tokens: Mapping[str, str]


def refusal(folder: Path, said: str) -> M3Error:
    """Return why an adapter cannot be read."""
    return M3Error(f"{folder}: the adapter {said}")


def parts_of(folder: Path, config: LoraConfig, tensors: Tensors) -> Parts:
    """Sort an adapter's tensors; none is left over, none comes twice.

    Raises:
        M3Error: a tensor is of no known kind or dtype, comes twice, or lacks its other half.
    """
    held: dict[tuple[Role, str, int], str] = {}
    under: set[str] = set()
    for name, entry in sorted(tensors.entries.items()):
        if not entry.numel or not entry.is_float:
            dtype = DTYPES.get(entry.dtype, entry.dtype)
            said = f"holds {name} of {dtype}, {entry.shape}: numbers with a point are needed"
            raise refusal(folder, said)
        part = part_of(name)
        if part is None:
            raise refusal(folder, f"holds {name}, which is of no kind that peft 0.21's LoRA has: merge it with peft")
        key = (part.role, part.target, part.depth)
        if key in held and part.role != "idle":
            raise refusal(folder, f"holds {name} twice, under the names of two adapters: keep one of them")
        held[key] = name
        if part.under:
            under.add(name)
    layers = sorted({(target, depth) for role, target, depth in held if role in _OF_A_PAIR})
    pairs = {layer: Pair(*(held.get((role, *layer), "") for role in _OF_A_PAIR)) for layer in layers}
    wholes = {target: Whole(name, name in under) for (role, target, _), name in held.items() if role == "whole"}
    for (module, _), pair in pairs.items():
        if not pair.a or not pair.b or pair.embedding != (".lora_embedding_" in pair.b):
            raise refusal(folder, f"has only one half of the LoRA pair of {module}: fetch the adapter again")
    for (role, target, _), name in held.items():
        if role == "idle" and ".original_module." in name and target not in wholes:
            raise refusal(folder, f"holds {name} without the module that was trained in its place")
        if role == "idle" and ".lora_" in name and not (config.velora_config or config.monteclora_config):
            raise refusal(folder, f"holds {name}, which its config does not name")
    tokens = {target: name for (role, target, _), name in held.items() if role == "tokens"}
    return Parts(pairs, wholes, tokens)
