"""Which tensors the parts of a plan's recipes name, and what each of them takes: for `m3 plan`, from headers alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from m3_exp.amounts import counted
from m3_exp.merging import part_words
from m3_exp.merging.canonical import tensors
from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.parts import Table, layer
from m3_exp.merging.source import without_fetching
from m3_exp.planning import label_text
from m3_exp.store import Store
from m3_exp.types import Cell, Json, M3Error, Part, Plan, Recipe

_LINES = 12
_TEXTS = 3  # mixtures of one part that a line names


@dataclass
class _Group:
    """The tensors of one part (None: of the rest), and what some recipes give to them."""

    part: Part | None
    names: Sequence[str]
    texts: dict[str, None] = field(default_factory=dict)

    def line(self) -> str:
        texts = [*self.texts]
        more = f" and {len(texts) - _TEXTS} more" if len(texts) > _TEXTS else ""
        ordered = sorted(self.names, key=lambda name: (layer(name) is None, layer(name) or 0, name))
        some = ordered[0] if len(ordered) == 1 else f"{ordered[0]} ... {ordered[-1]}"
        where = "rest " if self.part is None else part_words.where_text(self.part)
        return f"by part, {where}{', '.join(texts[:_TEXTS])}{more}: {counted(len(ordered), 'tensor')}, {some}"


def tables(plan: Plan, store: Store) -> list[tuple[Cell, Table]]:
    """Return what each recipe by part gives to each tensor, with a cell of it, as far as the models are at hand.

    Raises:
        M3Error: a part names no tensor of the models.
    """
    cells = {cell.recipe.identity: cell for cell in plan.cells if cell.recipe.parts}
    with without_fetching():
        return [(cell, tensors(cell.recipe, store)) for cell in cells.values() if _at_hand(cell.recipe, store)]


def _at_hand(recipe: Recipe, store: Store) -> bool:
    try:
        for source in (recipe.base, *recipe.experts):
            open_model(source, store)
    except M3Error:
        return False
    return True


def lines(found: Sequence[tuple[Cell, Table]]) -> list[str]:
    """Say which tensors get what, at most `_LINES` lines: parts of one name and the same tensors stand together."""
    groups: dict[tuple[str | None, tuple[str, ...]], _Group] = {}
    for cell, table in found:
        for part, shown in zip((*cell.labels[0].parts, None), (*cell.recipe.parts, None), strict=True):
            names = tuple(name for name, origin in table.part.items() if origin == shown)
            where = None if part is None else part_words.where_text(part)
            group = groups.setdefault((where, names), _Group(part, names))
            rest = part_words.weights_text(cell.labels[0].weights or None, cell.labels[0].experts)
            group.texts[rest if part is None else part_words.amount_text(part, cell.labels[0].experts)] = None
    held = sorted((group for group in groups.values() if group.names), key=lambda group: group.part is None)
    said = [group.line() for group in held]
    if len(said) <= _LINES:
        return said
    return [*said[: _LINES - 1], f"by part, {len(said) - _LINES + 1} more: m3 plan --json has every tensor"]


def data(found: Sequence[tuple[Cell, Table]]) -> list[Json]:
    """Return for JSON the weights that each recipe gives to each tensor, by the recipe's order of experts."""
    return [
        {
            "labels": [label_text(label) for label in cell.labels],
            "experts": [str(expert) for expert in cell.recipe.experts],
            "tensors": {name: weights and list(weights) for name, weights in table.weights.items()},
        }
        for cell, table in found
    ]
