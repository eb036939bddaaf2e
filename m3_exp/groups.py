"""What a worker is given: groups, plain data that can cross a process."""

from collections.abc import Sequence
from dataclasses import dataclass

from m3_exp.planning import label_text
from m3_exp.results import Results
from m3_exp.types import Cell, Recipe, Source


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a cell: the first pass, or (`repeat` above 0) its repeat of that number."""

    cell: Cell
    repeat: int = 0

    def __str__(self) -> str:
        again = f" (repeat {self.repeat})" if self.repeat else ""
        return f"{label_text(self.cell.labels[0])} on {self.cell.evaluator.name}{again}"


@dataclass(frozen=True)
class Group:
    """The evaluations of one recipe that share an engine.

    `key` is the recipe's key. `tokenizer`: the largest vocabulary among the prompts' tokenizers that can share an
    engine. `experts`: every expert of every group for that engine; it reserves embedding rows for the longest
    vocabulary among them.
    """

    recipe: Recipe
    key: str
    tokenizer: Source
    experts: tuple[Source, ...]
    evaluations: tuple[Evaluation, ...]


def grouped(evaluations: Sequence[Evaluation], results: Results) -> list[Group]:
    """Return groups in an order that starts as few engines, and loads weights as seldom, as can be.

    Groups whose prompts can share an engine follow one another, in the order in which the plan names their recipes.
    Within a group repeats come after all first passes, so the weights are merged once for both.
    """
    widest = results.tasks.prompts.widest(list(dict.fromkeys(e.cell.tokenizer for e in evaluations)))
    classes: dict[Source, dict[str, list[Evaluation]]] = {}
    for evaluation in evaluations:
        members = classes.setdefault(widest[evaluation.cell.tokenizer], {})
        members.setdefault(results.recipe_key(evaluation.cell), []).append(evaluation)
    groups = []
    for tokenizer, members in classes.items():
        experts = dict.fromkeys(x for them in members.values() for e in them for x in e.cell.recipe.experts)
        for key, them in members.items():
            ordered = tuple(sorted(them, key=lambda e: e.repeat))
            groups.append(Group(ordered[0].cell.recipe, key, tokenizer, tuple(experts), ordered))
    return groups
