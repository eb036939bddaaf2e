"""Single answers, as evaluators score them."""

from typing import Any

from m3_exp.types import Answer, Problem, Score


def one(evaluator: Any, problem: Problem, text: str) -> Score:
    """Return the score of one answer to one problem."""
    [score] = evaluator.score([problem], [Answer(problem.id, text)])
    return score  # type: ignore[no-any-return]
