"""`Draft` collects, rule by rule, what an adapter changes in each tensor of its base."""

from dataclasses import dataclass, replace
from pathlib import Path

from m3_exp.merging.adapters.config import LoraConfig
from m3_exp.merging.adapters.parts import refusal
from m3_exp.merging.adapters.places import located
from m3_exp.merging.layout import Entry, Tensors
from m3_exp.types import M3Error


@dataclass(frozen=True)
class Base:
    """What an adapter is put on: tensors, and which of them is the embedding (None: not known).

    `head` is the name that a tied head would have; `called` is the base's name in messages.
    """

    tensors: Tensors
    model_type: str
    tied: bool
    embedding: str | None
    head: str
    called: str

    def entry(self, name: str) -> Entry:
        """Return the shape and dtype of a tensor; a tied head's are its embedding's."""
        same = self.embedding if self.tied and name == self.head else None
        return self.tensors.entries[same or name]

    def located(self, name: str) -> str | None:
        """Return the base's name of a tensor that an adapter names, `head` for a tied head; None if it has none."""
        if self.tied and name == self.head:
            return name
        return located(name, self.tensors.entries)


@dataclass(frozen=True)
class Product:
    """scale * B @ A, as it is added to one stored tensor.

    `transposed`: the tensor is stored (in, out). `experts`: how many the factors hold (0: no such layer), of which the
    tensor is the one with number `expert`, or all (None). `rows` of B belong to the tensor (None: all).
    """

    a: str
    b: str
    scale: float
    transposed: bool = False
    experts: int = 0
    expert: int | None = None
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Change:
    """How a tensor of the merged model is made: from `whole` (of the adapter) or `source` (of the base), then the rest.

    `bias` is added times `bias_scale`; `tokens` replaces the rows `indices`.
    """

    shape: tuple[int, ...]
    whole: str = ""
    source: str = ""
    products: tuple[Product, ...] = ()
    magnitude: str = ""
    bias: str = ""
    bias_scale: float = 0.0
    tokens: str = ""
    indices: tuple[int, ...] = ()

    @property
    def is_copy(self) -> bool:
        """Tell whether the tensor is read as it is stored, in the dtype it has."""
        return not (self.products or self.bias or self.tokens)


class Draft:
    """The changes found so far, by the base's names; whether the head is still the embedding; lines to show."""

    def __init__(self, folder: Path, config: LoraConfig, tensors: Tensors, base: Base) -> None:
        self.folder, self.config, self.tensors, self.base = folder, config, tensors, base
        self.changes: dict[str, Change] = {}
        self.tied = base.tied
        self.notes: list[str] = []

    def refusal(self, said: str) -> M3Error:
        """Return why the adapter cannot be merged."""
        return refusal(self.folder, said)

    def change(self, name: str, **more: object) -> None:
        """Add fields of `Change` to a tensor's change."""
        change = self.changes.get(name) or Change(self.base.entry(name).shape)
        self.changes[name] = replace(change, **more)  # type: ignore[arg-type]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape with the changes so far."""
        return self.changes[name].shape if name in self.changes else self.base.entry(name).shape

    def check_shape(self, name: str, made: tuple[int, ...]) -> None:
        """Refuse a product of the shape `made` for a tensor of another shape."""
        there = self.shape(name)
        if there != made:
            said = f"{self.folder} changes {name} of shape {made}, {self.base.called} has {there}"
            raise M3Error(f"{said}: it is for another base")

    def matrix(self, name: str) -> str | None:
        """Return the tensor that holds a weight: a tied head's is the embedding."""
        stored = self.base.located(name)
        return self.base.embedding if self.tied and self.base.tied and stored == self.base.head else stored
