"""Arithmetic word problems in GSM8K's schema: one or two steps, numbers up to about a hundred.

The part of an example is its set of operands, whatever the story: 12 and 7 are added, subtracted and multiplied on one
side only.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from m3_exp.lab.split import Example, Side, side

_NAMES = ("Anna", "Ben", "Clara", "David", "Eva", "Felix", "Hanna", "Ivan", "Julia", "Leon", "Maria", "Noah", "Olga")
_THINGS = ("apples", "pens", "books", "stamps", "coins", "shells", "cards", "marbles", "eggs", "stones")

_Steps = tuple[str, ...]


@dataclass(frozen=True)
class Story:
    """A template: its text, the range of each operand, and the steps of the solution ("3 + 4 = 7")."""

    text: str
    ranges: tuple[tuple[int, int], ...]
    solve: Callable[..., _Steps | None]  # None where the operands make no sense


def plus(a: int, b: int) -> str:
    return f"{a} + {b} = {a + b}"


def minus(a: int, b: int) -> str:
    return f"{a} - {b} = {a - b}"


def times(a: int, b: int) -> str:
    return f"{a} * {b} = {a * b}"


def divided(a: int, b: int) -> str:
    return f"{a} / {b} = {a // b}"


def _spend(a: int, b: int, c: int) -> _Steps | None:
    return (times(a, b), minus(c, a * b)) if c > a * b else None


def _groups(a: int, b: int, c: int) -> _Steps | None:
    return (minus(a, b), divided(a - b, c)) if a - b >= 2 * c and (a - b) % c == 0 else None


def _share(a: int, b: int) -> _Steps | None:
    return (divided(a, b),) if a % b == 0 else None


_STORIES = (
    Story("{A} has {a} {things} and buys {b} more. How many {things} does {A} have now?", ((5, 45), (3, 40)),
          lambda a, b: (plus(a, b),)),
    Story("{A} had {a} {things} and gave {b} of them to {B}. How many {things} are left?", ((20, 60), (3, 19)),
          lambda a, b: (minus(a, b),)),
    Story("A box holds {a} {things}. How many {things} are in {b} boxes?", ((4, 15), (2, 9)),
          lambda a, b: (times(a, b),)),
    Story("{A} shares {a} {things} equally among {b} friends. How many {things} does each friend get?",
          ((6, 60), (2, 9)), _share),
    Story("{A} has {a} {things}, finds {b} more and then loses {c}. How many {things} does {A} have now?",
          ((5, 40), (3, 30), (2, 9)), lambda a, b, c: (plus(a, b), minus(a + b, c))),
    Story("{A} buys {b} bags with {a} {things} each and gives {c} {things} to {B}. How many {things} does {A} keep?",
          ((4, 12), (2, 6), (2, 9)), lambda a, b, c: (times(a, b), minus(a * b, c))),
    Story("{A} has {b} boxes with {a} {things} each and {c} single {things}. How many {things} are there in all?",
          ((4, 12), (2, 6), (3, 20)), lambda a, b, c: (times(a, b), plus(a * b, c))),
    Story("{A} has {a} {things}. {B} has {b} more than {A}. How many {things} do they have together?",
          ((5, 40), (2, 15)), lambda a, b: (plus(a, b), plus(a, a + b))),
    Story("A ticket costs {a} coins. {A} buys {b} tickets and pays with {c} coins. How many coins does {A} get back?",
          ((3, 9), (2, 5), (20, 50)), _spend),
    Story("{A} is {a} years old and {B} is {b} times as old. How old will {B} be in {c} years?",
          ((5, 15), (2, 3), (2, 15)), lambda a, b, c: (times(a, b), plus(a * b, c))),
    Story("Of {a} children in a camp {b} are ill. The others form groups of {c}. How many groups are there?",
          ((12, 50), (2, 12), (2, 6)), _groups),
)  # fmt: skip


def draw(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one word problem, or None where its operands belong to the other side or make no sense."""
    story = rng.choice(_STORIES)
    operands = [rng.randint(low, high) for low, high in story.ranges]
    first, second = rng.sample(_NAMES, 2)
    things = rng.choice(_THINGS)
    part = operand_part(operands)
    steps = story.solve(*operands)
    if steps is None or side(part) != wanted:
        return None
    letters = dict(zip("abc", operands, strict=False))
    question = story.text.format(A=first, B=second, things=things, **letters)
    answer = steps[-1].rpartition("= ")[2]
    row = {"question": question, "answer": "\n".join([*steps, f"#### {answer}"])}
    return Example(row, f" {'. '.join(steps)}. The answer is: {answer}", (part,), question)


def operand_part(operands: list[int]) -> str:
    """Return the part that a set of operands is, the same in every order, story and benchmark."""
    return "operands " + " ".join(str(value) for value in sorted(operands))
