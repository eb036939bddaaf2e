"""What a parameter of a mergekit recipe is for one tensor, as mergekit 0.1.5 resolves it.

The settings of a model in its slice come before those of the slice, and these before those of the recipe. Of a setting
the first condition whose filter is found in the tensor's name counts. A gradient is a line through its values, over the
layers of its slice; what lies outside of the layers has the first of them.

A *class* stands for the tensors in whose name its filter is found, and none of the filters before it; the last class,
without a filter, for all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from m3_exp.recipes.document import Condition, Document, Input, Scalar, Slice
from m3_exp.types import M3Error

Value = bool | float | str


@dataclass(frozen=True)
class Place:
    """Tensors that have one value of each parameter: a class of them, at depth `t` of a slice (0 outside of layers).

    `tensors` are the names of this class that are known there.
    """

    part: Slice
    t: float
    filter: str | None
    before: tuple[str, ...]
    tensors: tuple[str, ...]

    def finds(self, condition: Condition) -> bool | None:
        """Tell whether a condition holds for these tensors; None where their names would say."""
        text = condition.filter
        if text is None:
            return True
        if self.filter is not None and text in self.filter:
            return True
        if self.filter is None or any(one in text for one in self.before):
            return False
        found = {text in name for name in self.tensors}
        return found.pop() if len(found) == 1 else None


def of_class(names: Sequence[str], text: str | None, before: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a class: those in which its filter is found, and none of the filters before it."""
    mine = (name for name in names if text is None or text in name)
    return tuple(name for name in mine if not any(one in name for one in before))


def filters(document: Document) -> tuple[str, ...]:
    """Return the filters of a recipe in the order in which they count; one that an earlier one contains is left out."""
    every = [document.settings]
    for part in document.slices:
        every += [*(one.settings for one in part.inputs), part.settings]
    found = dict.fromkeys(one.filter for held in every for setting in held.values() for one in setting if one.filter)
    names = list(found)
    return tuple(name for number, name in enumerate(names) if not any(one in name for one in names[:number]))


def value(document: Document, name: str, place: Place, model: Input | None = None) -> Value | None:
    """Return a parameter at a place: of a model, or of the method; None where nothing sets it.

    Raises:
        M3Error: it depends on tensors' names in a way that the filters alone do not tell.
    """
    levels = [] if model is None else [model.settings]
    levels += [place.part.settings, document.settings]
    conditions = [one for held in levels for one in held.get(name, ())]
    found = _possible(conditions, place)
    if len(found) > 1:
        raise M3Error(
            f"{document.path}: the filters of {name} overlap those of other parameters or models, and {place.filter!r}"
            " does not tell which tensors they share: write the same filters in the same order everywhere"
        )
    return found[0]


def _possible(conditions: Sequence[Condition], place: Place) -> list[Value | None]:
    """Return the values that a parameter may have at a place, each once."""
    for number, one in enumerate(conditions):
        finds = place.finds(one)
        if finds:
            return [at(one.values, place.t)]
        if finds is None:
            rest = _possible(conditions[number + 1 :], place)
            here = at(one.values, place.t)
            return rest if here in rest else [here, *rest]
    return [None]


def at(values: Sequence[Scalar], t: float) -> Value:
    """Return the value of a gradient at a depth from 0 to 1: between numbers on the line, else the one before it."""
    if any(isinstance(one, bool | str) for one in values):
        return values[int(t * (len(values) - 1))]
    numbers = [float(one) for one in values]
    place = t * (len(numbers) - 1)
    low = int(place)
    high = min(len(numbers) - 1, low + 1)
    share = place - low
    return (1 - share) * numbers[low] + share * numbers[high]
