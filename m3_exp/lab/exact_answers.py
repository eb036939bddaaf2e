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
    """A kind of problem under MATH's own subject and level. `make` gives None where the drawn numbers do not fit."""

    subject: str
    level: int
    make: Callable[[random.Random], Solved | None]


def _shifted(rng: random.Random) -> Solved | None:
    a, x = rng.randint(2, 25), rng.randint(2, 30)
    return Solved((a, a + x), f"Solve $x + {a} = {a + x}$ for $x$.", (minus(a + x, a),), str(x))


def _linear(rng: random.Random) -> Solved | None:
    a, x, b = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 15)
    c = a * x + b
    problem = f"If ${a}x + {b} = {c}$, what is the value of $x$?"
    return Solved((a, b, c), problem, (minus(c, b), divided(c - b, a)), str(x))


def _function(rng: random.Random) -> Solved | None:
    a, b, x = rng.randint(2, 9), rng.randint(1, 15), rng.randint(2, 9)
    return Solved((a, b, x), f"Let $f(x) = {a}x + {b}$. Find $f({x})$.", (times(a, x), plus(a * x, b)), str(a * x + b))


def _collect(rng: random.Random) -> Solved | None:
    a, b = rng.randint(2, 25), rng.randint(2, 25)
    return Solved((a, b), f"Simplify ${a}x + {b}x$.", (plus(a, b),), f"{a + b}x")


def _expand(rng: random.Random) -> Solved | None:
    a, b = rng.randint(2, 9), rng.randint(2, 12)
    return Solved((a, b), f"Expand ${a}(x + {b})$.", (times(a, b),), f"{a}x + {a * b}")


def _sequence(rng: random.Random) -> Solved | None:
    a, d = rng.randint(1, 30), rng.randint(2, 9)
    terms = ", ".join(str(a + i * d) for i in range(3))
    steps = (minus(a + d, a), plus(a + 2 * d, d))
    return Solved((a, d), f"What is the next term of the arithmetic sequence ${terms}, ...$?", steps, str(a + 3 * d))


def _order(rng: random.Random) -> Solved | None:
    a, b, c = rng.randint(2, 30), rng.randint(2, 6), rng.randint(2, 9)
    problem = f"Compute ${a} + {b} \\times {c}$."
    return Solved((a, b, c), problem, (times(b, c), plus(a, b * c)), str(a + b * c))


def _lowest_terms(rng: random.Random) -> Solved | None:
    top, bottom, factor = rng.randint(1, 5), rng.randint(2, 9), rng.randint(2, 5)
    if top >= bottom or math.gcd(top, bottom) != 1:
        return None
    a, b = top * factor, bottom * factor
    problem = f"Write the fraction $\\frac{{{a}}}{{{b}}}$ in lowest terms."
    return Solved((a, b), problem, (divided(a, factor), divided(b, factor)), _fraction(top, bottom))


def _fraction(top: int, bottom: int) -> str:
    return f"\\frac{{{top}}}{{{bottom}}}"


def _fraction_sum(rng: random.Random) -> Solved | None:
    a, b, c = rng.randint(1, 12), rng.randint(1, 12), rng.randint(3, 25)
    if math.gcd(a + b, c) != 1:
        return None
    problem = f"Compute ${_fraction(a, c)} + {_fraction(b, c)}$."
    return Solved((a, b, c), problem, (plus(a, b),), _fraction(a + b, c))


def _remainder(rng: random.Random) -> Solved | None:
    a, b = rng.randint(11, 60), rng.randint(3, 6)
    low = a - a % b
    problem = f"What is the remainder when ${a}$ is divided by ${b}$?"
    return Solved((a, b), problem, (times(b, a // b), minus(a, low)), str(a % b))


def _divisor(rng: random.Random) -> Solved | None:
    common, a, b = rng.randint(2, 9), rng.randint(1, 6), rng.randint(1, 6)
    if a == b or math.gcd(a, b) != 1:
        return None
    problem = f"What is the greatest common divisor of ${common * a}$ and ${common * b}$?"
    return Solved((common * a, common * b), problem, (times(common, a), times(common, b)), str(common))


def _rectangle(rng: random.Random) -> Solved | None:
    a, b = rng.randint(3, 15), rng.randint(2, 9)
    return Solved((a, b), f"What is the area of a rectangle with sides ${a}$ and ${b}$?", (times(a, b),), str(a * b))


def _perimeter(rng: random.Random) -> Solved | None:
    a, b = rng.randint(3, 25), rng.randint(2, 20)
    problem = f"What is the perimeter of a rectangle with sides ${a}$ and ${b}$?"
    return Solved((a, b), problem, (plus(a, b), times(2, a + b)), str(2 * (a + b)))


def _choices(rng: random.Random) -> Solved | None:
    a, b, c = rng.randint(2, 9), rng.randint(2, 6), rng.randint(2, 4)
    problem = f"A menu has ${a}$ soups, ${b}$ main dishes and ${c}$ desserts. How many different meals are there?"
    return Solved((a, b, c), problem, (times(a, b), times(a * b, c)), str(a * b * c))


def _vectors(rng: random.Random) -> Solved | None:
    a, b, c, d = (rng.randint(1, 20) for _ in range(4))
    problem = f"Add the vectors $({a}, {b})$ and $({c}, {d})$."
    return Solved((a, b, c, d), problem, (plus(a, c), plus(b, d)), f"({a + c}, {b + d})")


_TOPICS = (
    Topic("Algebra", 1, _shifted),
    Topic("Algebra", 2, _linear),
    Topic("Algebra", 2, _function),
    Topic("Algebra", 1, _collect),
    Topic("Intermediate Algebra", 1, _expand),
    Topic("Intermediate Algebra", 2, _sequence),
    Topic("Prealgebra", 1, _order),
    Topic("Prealgebra", 3, _lowest_terms),
    Topic("Prealgebra", 2, _fraction_sum),
    Topic("Number Theory", 2, _remainder),
    Topic("Number Theory", 3, _divisor),
    Topic("Geometry", 1, _rectangle),
    Topic("Geometry", 2, _perimeter),
    Topic("Counting & Probability", 3, _choices),
    Topic("Precalculus", 1, _vectors),
)


def draw(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one problem, or None where its operands belong to the other side or do not fit."""
    topic = rng.choice(_TOPICS)
    solved = topic.make(rng)
    if solved is None:
        return None
    part = operand_part(list(solved.operands))
    if side(part) != wanted:
        return None
    work = ". ".join(solved.steps)
    solution = f"${work}$. The answer is $\\boxed{{{solved.answer}}}$."
    row = {"problem": solved.problem, "level": f"Level {topic.level}", "type": topic.subject, "solution": solution}
    return Example(row, f" {work}. The answer is: {solved.answer}", (part,), solved.problem)
