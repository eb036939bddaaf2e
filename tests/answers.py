"""Single answers, as evaluators score them, and programs, as the sandbox judges them."""

from typing import Any

from m3_exp.scoring.programs import Program
from m3_exp.scoring.sandbox.judge import Task
from m3_exp.types import Answer, Problem, Score

SQUARE_TEST = "assert f(2) == 4\nassert f(-3) == 9\n"
GSM = [
    Problem("0", {"question": "Two and two?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}),
    Problem("1", {"question": "How {many}?", "answer": "#### 1,250"}),
    Problem("2", {"question": "Below?", "answer": "It is -3.\n#### -3"}),
]


def one(evaluator: Any, problem: Problem, text: str) -> Score:
    """Return the score of one answer to one problem."""
    [score] = evaluator.score([problem], [Answer(problem.id, text)])
    return score  # type: ignore[no-any-return]


def task(source: str, test: str = SQUARE_TEST, *names: str, prelude: str = "") -> Task:
    """Return a program that should define `f` (and `names`), with the tests that judge it."""
    return Task((Program("paper", source),), "f", prelude, test, names)
