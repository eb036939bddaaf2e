"""What `m3 score --audit` adds: how the answers look, and what every other extractor would make of the same ones."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from m3_exp.scoring.evaluator import Evaluator
from m3_exp.scoring.text import MATH_STOPS
from m3_exp.types import Answer, Json, Problem, Score

UNKNOWN = ""  # `finish` of an answer whose file does not say how it ended
_EXAMPLES = 5  # ids that are named for each pair of extractors

_FIRST_ANSWER = re.compile(r"[Tt]he (?:final )?answer is|#### |\\boxed\{")
# What begins another question after an answer: the paper's stops, and the turns of common prompts.
_NEXT_QUESTION = re.compile(
    "|".join(map(re.escape, MATH_STOPS))
    + r"|\n\s*(?:Q|Question|Problem|USER|User|Human|Input)\s*\d*:|<\|im_start\|>|\[INST\]|Below is an instruction"
)


def counts(answers: Sequence[Answer], scores: Sequence[Score]) -> Json:
    """Count the answers, the empty and the cut ones (`cut` is None where no line says how it ended), the unscored."""
    known = [answer.finish for answer in answers if answer.finish != UNKNOWN]
    reasons = Counter(score.reason or "no reason given" for score in scores if score.value is None)
    return {
        "answers": len(answers),
        "empty": sum(not answer.text.strip() for answer in answers),
        "cut": known.count("length") if known else None,
        "unscored": sum(reasons.values()),
        "reasons": dict(reasons.most_common()),
    }


def ran_on(answers: Sequence[Answer]) -> int:
    """Count the answers that begin another question, or a stop string, after their first answer."""
    return sum(_runs_on(answer.text) for answer in answers)


def _runs_on(text: str) -> bool:
    first = _FIRST_ANSWER.search(text)
    return first is not None and _NEXT_QUESTION.search(text, first.end()) is not None


def extractors(others: Mapping[str, Evaluator], problems: Sequence[Problem], answers: Sequence[Answer]) -> Json:
    """Score the same answers with each evaluator: their scores, the answers they find nothing in, where they differ.

    `disagreements` counts, for each pair, the answers that one takes for right and the other for wrong, and names a
    few of them by id.
    """
    scores = {name: evaluator.score(problems, answers) for name, evaluator in others.items()}
    return {
        "extractors": {name: _outcome(others[name], scores[name]) for name in others},
        "disagreements": [_difference(a, b, scores) for a, b in itertools.combinations(others, 2)],
    }


def _outcome(evaluator: Evaluator, scores: Sequence[Score]) -> Json:
    result = evaluator.summarize(scores)
    nothing = sum(score.value is not None and score.extracted is None for score in scores)
    return {"score": result.score, "no_answer": nothing, "unscored": sum(score.value is None for score in scores)}


def _difference(a: str, b: str, scores: Mapping[str, Sequence[Score]]) -> Json:
    pairs = zip(scores[a], scores[b], strict=True)
    ids = [x.id for x, y in pairs if x.value is not None and y.value is not None and x.value != y.value]
    return {"a": a, "b": b, "n": len(ids), "ids": list(dict.fromkeys(ids))[:_EXAMPLES]}
