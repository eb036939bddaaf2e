"""The one rule that keeps the lab's training and test items apart.

Every example names the *parts* that it is made of (the operands of a sum, the words of an instruction, two neighbouring
operations of a program). A hash of the part alone puts it on one side for ever. Training examples are drawn from
training parts only, test items from test parts only. So what a test item is made of was never seen in training, in any
wording, whatever the seeds and the numbers of examples.
"""

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from m3_exp.types import M3Error

Side = Literal["train", "test"]

_TEST_SHARE = 4  # one part in four is a test part
_PATIENCE = 2000  # draws without a new example before a generator counts as exhausted


@dataclass(frozen=True)
class Example:
    """An item in its benchmark's own schema, what an expert is trained to answer, and the parts that fix its side."""

    row: Mapping[str, Any]
    target: str
    parts: tuple[str, ...]
    text: str  # what makes it another item than the rest


Draw = Callable[[random.Random, Side], Example | None]  # None: this draw fell on the other side, draw again


def side(part: str) -> Side:
    """Say to which side a part belongs, by its sha256."""
    return "test" if hashlib.sha256(part.encode()).digest()[0] % _TEST_SHARE == 0 else "train"


def on_side(words: tuple[str, ...], wanted: Side) -> tuple[str, ...]:
    """Return the words of a pool that belong to one side, in their order."""
    return tuple(word for word in words if side(word) == wanted)


def examples(draw: Draw, benchmark: str, wanted: Side, count: int, seed: int) -> list[Example]:
    """Draw `count` different examples of one side; the same arguments always give the same list.

    Raises:
        M3Error: the generator has fewer different examples than that.
    """
    rng = random.Random(f"{seed}/{benchmark}/{wanted}")
    drawn: dict[str, Example] = {}
    misses = 0
    while len(drawn) < count:
        example = draw(rng, wanted)
        if example is None or example.text in drawn:
            misses += 1
            if misses > _PATIENCE:
                raise M3Error(f"lab: {benchmark} has only {len(drawn)} {wanted} items, not {count}: ask for fewer")
            continue
        misses = 0
        drawn[example.text] = example
    return list(drawn.values())
