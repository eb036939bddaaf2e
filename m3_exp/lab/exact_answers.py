"""Short questions with one exact answer in the schema of Hendrycks' MATH: small problems of MATH's seven subjects.

As in `word_problems`, the part of an example is its set of operands; the two benchmarks share parts, because one expert
is trained on both.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from m3_exp.lab.split import Example, Side, side
from m3_exp.lab.word_problems import divided, minus, operand_part, plus, times


@dataclass(frozen=True)
class Solved:
    """A problem's operands, its text, the steps to its answer, and the answer as LaTeX."""

    operands: tuple[int, ...]
    problem: str
    steps: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Topic:
    """A kind of problem under MATH's own subject and level.

    `make` takes a number of each of the `ranges`, and gives None where they do not fit.
    """

    subject: str
    level: int
    make: Callable[..., Solved | None]
    ranges: tuple[tuple[int, int], ...]


def _shifted(a: int, x: int) -> Solved:
    return Solved((a, a + x), f"Solve $x + {a} = {a + x}$ for $x$.", (minus(a + x, a),), str(x))


def _linear(a: int, x: int, b: int) -> Solved:
    c = a * x + b
    problem = f"If ${a}x + {b} = {c}$, what is the value of $x$?"
    return Solved((a, b, c), problem, (minus(c, b), divided(c - b, a)), str(x))


def _function(a: int, b: int, x: int) -> Solved:
    return Solved((a, b, x), f"Let $f(x) = {a}x + {b}$. Find $f({x})$.", (times(a, x), plus(a * x, b)), str(a * x + b))


def _collect(a: int, b: int) -> Solved:
    return Solved((a, b), f"Simplify ${a}x + {b}x$.", (plus(a, b),), f"{a + b}x")


def _expand(a: int, b: int) -> Solved:
    return Solved((a, b), f"Expand ${a}(x + {b})$.", (times(a, b),), f"{a}x + {a * b}")


def _sequence(a: int, d: int) -> Solved:
    terms = ", ".join(str(a + i * d) for i in range(3))
    steps = (minus(a + d, a), plus(a + 2 * d, d))
    return Solved((a, d), f"What is the next term of the arithmetic sequence ${terms}, ...$?", steps, str(a + 3 * d))


def _order(a: int, b: int, c: int) -> Solved:
    problem = f"Compute ${a} + {b} \\times {c}$."
    return Solved((a, b, c), problem, (times(b, c), plus(a, b * c)), str(a + b * c))


def _lowest_terms(top: int, bottom: int, factor: int) -> Solved | None:
    if top >= bottom or math.gcd(top, bottom) != 1:
        return None
    a, b = top * factor, bottom * factor
    problem = f"Write the fraction $\\frac{{{a}}}{{{b}}}$ in lowest terms."
    return Solved((a, b), problem, (divided(a, factor), divided(b, factor)), _fraction(top, bottom))


def _fraction(top: int, bottom: int) -> str:
    return f"\\frac{{{top}}}{{{bottom}}}"


def _fraction_sum(a: int, b: int, c: int) -> Solved | None:
    if math.gcd(a + b, c) != 1:
        return None
    problem = f"Compute ${_fraction(a, c)} + {_fraction(b, c)}$."
    return Solved((a, b, c), problem, (plus(a, b),), _fraction(a + b, c))


def _remainder(a: int, b: int) -> Solved:
    low = a - a % b
    problem = f"What is the remainder when ${a}$ is divided by ${b}$?"
    return Solved((a, b), problem, (times(b, a // b), minus(a, low)), str(a % b))


def _divisor(common: int, a: int, b: int) -> Solved | None:
    if a == b or math.gcd(a, b) != 1:
        return None
    problem = f"What is the greatest common divisor of ${common * a}$ and ${common * b}$?"
    return Solved((common * a, common * b), problem, (times(common, a), times(common, b)), str(common))


def _rectangle(a: int, b: int) -> Solved:
    return Solved((a, b), f"What is the area of a rectangle with sides ${a}$ and ${b}$?", (times(a, b),), str(a * b))


def _perimeter(a: int, b: int) -> Solved:
    problem = f"What is the perimeter of a rectangle with sides ${a}$ and ${b}$?"
    return Solved((a, b), problem, (plus(a, b), times(2, a + b)), str(2 * (a + b)))


def _choices(a: int, b: int, c: int) -> Solved:
    problem = f"A menu has ${a}$ soups, ${b}$ main dishes and ${c}$ desserts. How many different meals are there?"
    return Solved((a, b, c), problem, (times(a, b), times(a * b, c)), str(a * b * c))


def _vectors(a: int, b: int, c: int, d: int) -> Solved:
    problem = f"Add the vectors $({a}, {b})$ and $({c}, {d})$."
    return Solved((a, b, c, d), problem, (plus(a, c), plus(b, d)), f"({a + c}, {b + d})")


_TOPICS = (
    Topic("Algebra", 1, _shifted, ((2, 25), (2, 30))),
    Topic("Algebra", 2, _linear, ((2, 9), (2, 9), (1, 15))),
    Topic("Algebra", 2, _function, ((2, 9), (1, 15), (2, 9))),
    Topic("Algebra", 1, _collect, ((2, 25), (2, 25))),
    Topic("Intermediate Algebra", 1, _expand, ((2, 9), (2, 12))),
    Topic("Intermediate Algebra", 2, _sequence, ((1, 30), (2, 9))),
    Topic("Prealgebra", 1, _order, ((2, 30), (2, 6), (2, 9))),
    Topic("Prealgebra", 3, _lowest_terms, ((1, 5), (2, 9), (2, 5))),
    Topic("Prealgebra", 2, _fraction_sum, ((1, 12), (1, 12), (3, 25))),
    Topic("Number Theory", 2, _remainder, ((11, 60), (3, 6))),
    Topic("Number Theory", 3, _divisor, ((2, 9), (1, 6), (1, 6))),
    Topic("Geometry", 1, _rectangle, ((3, 15), (2, 9))),
    Topic("Geometry", 2, _perimeter, ((3, 25), (2, 20))),
    Topic("Counting & Probability", 3, _choices, ((2, 9), (2, 6), (2, 4))),
    Topic("Precalculus", 1, _vectors, ((1, 20), (1, 20), (1, 20), (1, 20))),
)


def draw(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one problem, or None where its operands belong to the other side or do not fit."""
    topic = rng.choice(_TOPICS)
    solved = topic.make(*(rng.randint(low, high) for low, high in topic.ranges))
    if solved is None:
        return None
    part = operand_part(list(solved.operands))
    if side(part) != wanted:
        return None
    work = ". ".join(solved.steps)
    solution = f"${work}$. The answer is $\\boxed{{{solved.answer}}}$."
    row = {"problem": solved.problem, "level": f"Level {topic.level}", "type": topic.subject, "solution": solution}
    return Example(row, f" {work}. The answer is: {solved.answer}", (part,), solved.problem)
