"""What a worker is given: groups, plain data that can cross a process."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from m3_exp.planning import label_text
from m3_exp.results import Results
from m3_exp.types import Cell, M3Error, Recipe, Source


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a cell: the first pass, or (`repeat` above 0) its repeat of that number."""

    cell: Cell
    repeat: int = 0

    def __str__(self) -> str:
        again = f" (repeat {self.repeat})" if self.repeat else ""
        return f"{label_text(self.cell.labels[0])} on {self.cell.evaluator.name}{again}"


def together(names: Sequence[str]) -> str:
    """Return what evaluations that are at work are called: the first one, and how many there are beside it."""
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{others}" if names else ""


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


@dataclass(frozen=True)
class Budget:
    """What a run may take before it stops: hours since it began, and cells that it evaluates. None: all it needs.

    Raises:
        M3Error: it leaves room for nothing.
    """

    hours: float | None = None
    cells: int | None = None

    def __post_init__(self) -> None:
        if self.hours is not None and not 0 < self.hours < math.inf:
            raise M3Error(f"--hours {self.hours:g} is no time to work in: give a number above 0, as --hours 3.5")
        if self.cells is not None and self.cells < 1:
            raise M3Error(f"--cells {self.cells} is too few: give at least 1")

    def until(self, now: float) -> float:
        """Return when the time is over of a run that begins now."""
        return math.inf if self.hours is None else now + 3600 * self.hours

    def of(self, groups: Sequence[Group]) -> list[Group]:
        """Return the groups of the first evaluations that fit."""
        left = sum(len(group.evaluations) for group in groups) if self.cells is None else self.cells
        kept = []
        for group in groups:
            if left > 0:
                kept.append(replace(group, evaluations=group.evaluations[:left]))
            left -= len(group.evaluations)
        return kept


class Queue:
    """The groups that wait for a worker, and the rule by which one gets the next. Safe from any thread.

    A worker goes on with a group of the same inputs as its last one, else of the same engine, else with the first one.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._waiting = [_Waiting(group) for group in groups]
        self._out = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many groups are not done: those that wait, and those that workers have."""
        with self._lock:
            return len(self._waiting) + self._out

    def take(self, last: Group | None = None) -> Group | None:
        """Return the next group for a worker whose last one was `last`; None where none waits."""
        with self._lock:
            if not self._waiting:
                return None
            self._out += 1
            return self._waiting.pop(0 if last is None else self._best(_Waiting(last))).group

    def following(self, last: Group) -> Group | None:
        """Return the group that a worker would be given next if it asked now; None where none waits."""
        with self._lock:
            return self._waiting[self._best(_Waiting(last))].group if self._waiting else None

    def _best(self, last: "_Waiting") -> int:
        same_engine = 0
        for at, one in enumerate(self._waiting):
            if one.inputs == last.inputs:
                return at
            if not same_engine and one.engine == last.engine:
                same_engine = at
        return same_engine

    def done(self) -> None:
        """Say that a group that was taken is carried out."""
        with self._lock:
            self._out -= 1

    def back(self, group: Group, *, first: bool = False) -> None:
        """Give a group back that was not carried out: to the end, or (of a worker that died) to the front."""
        with self._lock:
            self._out -= 1
            self._waiting.insert(0 if first else len(self._waiting), _Waiting(group))


class _Waiting:
    """A group with what a worker keeps from one group to the next: its engine, and the models that it has read."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.engine = (group.tokenizer, group.recipe.base)
        self.inputs = (*self.engine, frozenset(group.recipe.experts))


def grouped(evaluations: Sequence[Evaluation], results: Results) -> list[Group]:
    """Return groups in an order that starts as few engines, and loads weights as seldom, as can be.

    Groups whose prompts can share an engine follow one another, in the order in which the plan names their recipes.
    Within a group repeats come after all first passes, so the weights are merged once for both.
    """
    widest = results.tasks.prompts.widest(list(dict.fromkeys(e.cell.tokenizer for e in evaluations)))
    return arranged(evaluations, widest, results.recipe_key)


def arranged(
    evaluations: Sequence[Evaluation], widest: Mapping[Source, Source], key_of: Callable[[Cell], str]
) -> list[Group]:
    """Return the groups, given which tokenizer stands for each one's engine, and the key of a cell's recipe."""
    classes: dict[Source, dict[str, list[Evaluation]]] = {}
    for evaluation in evaluations:
        members = classes.setdefault(widest[evaluation.cell.tokenizer], {})
        members.setdefault(key_of(evaluation.cell), []).append(evaluation)
    groups = []
    for tokenizer, members in classes.items():
        experts = dict.fromkeys(x for them in members.values() for e in them for x in e.cell.recipe.experts)
        for key, them in members.items():
            ordered = tuple(sorted(them, key=lambda e: e.repeat))
            groups.append(Group(ordered[0].cell.recipe, key, tokenizer, tuple(experts), ordered))
    return groups
