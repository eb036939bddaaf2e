"""Is a grader to be trusted? On this machine, now, gold answers must score 1 and planted wrong ones 0.

An item whose own gold fails may be the item's fault (two MBPP references fail their own tests), so it is named with the
reason. A grader that fails more than a quarter of its gold answers, or lets a planted wrong one pass, is unfit.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from m3_exp.scoring.evaluate import score_all
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.scoring.items import first
from m3_exp.types import Answer, Problem, Score

_FIRST_BATCH = 8
_TOLERATED = 0.25  # of the gold answers
_NAMED = 5  # items that a text names


@dataclass(frozen=True)
class Examination:
    """How a grader scored gold and planted wrong answers.

    Attributes:
        total: how many items the benchmark has.
        gold, wrong: how many gold and how many wrong answers were graded.
        right: how many gold answers scored 1.
        zero: how many wrong answers scored 0.
        failed: items whose gold did not score 1, or whose wrong answer could not be scored, and why.
        flawed: those of `failed` that the benchmark knows to be flawed, and why.
        passed: items whose wrong answer scored above 0, and why.
    """

    benchmark: str
    total: int
    gold: int = 0
    right: int = 0
    wrong: int = 0
    zero: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    flawed: Mapping[str, str] = field(default_factory=dict)
    passed: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def perfect(self) -> bool:
        """All gold answers score 1, but for items known to be flawed, and all wrong ones 0."""
        return self.gold > 0 and not self.passed and self.failed.keys() <= self.flawed.keys()

    @property
    def fit(self) -> bool:
        """Good enough to score with: no wrong answer passes, and at most a quarter of the gold answers fails."""
        return not self.passed and len(self.failed.keys() - self.flawed.keys()) <= _TOLERATED * self.gold

    def __str__(self) -> str:
        sampled = f" (of {self.total} items)" if self.gold < self.total else ""
        counts = f"gold {self.right} of {self.gold}, planted wrong 0 on {self.zero} of {self.wrong}{sampled}"
        parts = [f"{counts}, {self.seconds:.1f} s"]
        unknown = {key: reason for key, reason in self.failed.items() if key not in self.flawed}
        for what, found in (
            ("gold fails", unknown), ("known to be flawed", self.flawed), ("WRONG ANSWER PASSES", self.passed),
        ):  # fmt: skip
            if found:
                named = "; ".join(f"{key} ({reason})" for key, reason in list(found.items())[:_NAMED])
                parts.append(f"{what}: {named}" + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""))
        return "; ".join(parts)


def examine(
    evaluator: Evaluator, problems: Sequence[Problem], *, at_most: int | None = None, seconds: float = 20.0
) -> Examination | None:
    """Grade gold and planted wrong answers; None where the benchmark has none, or its judge is paid for.

    The items come in the order of their hashes (those known to be flawed first), at most `at_most` of them, in growing
    batches until the next one would last beyond `seconds`.
    """
    if evaluator.cost(problems) is not None:
        return None
    known = evaluator.flawed
    start = time.monotonic()
    gold, wrong = _Side(evaluator, evaluator.gold, 1.0), _Side(evaluator, evaluator.wrong, 0.0)
    ordered = first(problems, evaluator.name, at_most)
    if at_most is None:
        ordered.sort(key=lambda problem: problem.id not in known)
    for batch in _batches(ordered, start + seconds):
        gold.grade(batch)
        wrong.grade(batch)
    if not gold.asked + wrong.asked:
        return None
    unscored = {key: f"wrong answer {_why(score)}" for key, score in wrong.off.items() if score.value is None}
    return Examination(
        benchmark=evaluator.name,
        total=len(problems),
        gold=gold.asked,
        right=gold.asked - len(gold.off),
        wrong=wrong.asked,
        zero=wrong.asked - len(wrong.off),
        failed={**unscored, **{key: _why(score) for key, score in gold.off.items()}},
        flawed={key: known[key] for key in gold.off if key in known},
        passed={key: _why(score) for key, score in wrong.off.items() if score.value is not None},
        seconds=time.monotonic() - start,
    )


def _why(score: Score) -> str:
    got = "unscored" if score.value is None else f"scored {score.value:g}"
    return f"{got}: {score.reason}" if score.reason else got


def _batches(problems: Sequence[Problem], deadline: float) -> Iterator[Sequence[Problem]]:
    """Give batches of doubling size while the next one is likely to end before the deadline; at least one."""
    at, size, last = 0, _FIRST_BATCH, 0.0
    while at < len(problems) and (at == 0 or time.monotonic() + 2 * last < deadline):
        began = time.monotonic()
        yield problems[at : at + size]
        at, size, last = at + size, size * 2, time.monotonic() - began


class _Side:
    """The gold or the wrong answers: how many were graded, and which did not get the value they must get."""

    def __init__(self, evaluator: Evaluator, written: Callable[[Problem], str | None], value: float) -> None:
        self._evaluator, self._written, self._value = evaluator, written, value
        self.asked = 0
        self.off: dict[str, Score] = {}

    def grade(self, problems: Sequence[Problem]) -> None:
        texts = {problem.id: self._text(problem) for problem in problems}
        asked = [problem for problem in problems if texts[problem.id] is not None]
        answers = [Answer(problem.id, str(texts[problem.id])) for problem in asked]
        scores = score_all(self._evaluator, asked, answers) if asked else []
        self.asked += len(asked)
        self.off |= {score.id: score for score in scores if score.value != self._value}

    def _text(self, problem: Problem) -> str | None:
        try:
            return self._written(problem)
        except Exception as error:  # the plugin's fault, like one in its score: the item is named
            self.asked += 1
            self.off[problem.id] = Score(problem.id, None, reason=f"no answer made: {type(error).__name__}: {error}")
            return None


def check_grader(evaluator: Evaluator, problems: Sequence[Problem], at_most: int = 8) -> str | None:
    """Return why a grader is not fit to score with, or None; cheap enough to be done before every run.

    A benchmark without gold answers, and one whose judge is paid for, is taken as fit.
    """
    examination = examine(evaluator, problems, at_most=at_most)
    if examination is None or examination.fit:
        return None
    return f"the grader of {evaluator.name} is not fit, nothing was scored: {examination}"
