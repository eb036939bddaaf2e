"""What `m3 score --audit` adds: how the answers look, and what every other extractor would make of the same ones."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from m3_exp.scoring.evaluator import Evaluator, judged
from m3_exp.scoring.text import PAPER_STOPS
from m3_exp.stats.estimate import LEVEL, Estimate
from m3_exp.stats.family import LIMIT, holm
from m3_exp.stats.paired import paired
from m3_exp.stats.scored import Scored, of_scores
from m3_exp.types import Answer, Json, Problem, Result, Score

_EXAMPLES = 5  # ids that are named for each pair of extractors

_FIRST_ANSWER = re.compile(r"[Tt]he (?:final )?answer is|#### |\\boxed\{")
# What begins another question after an answer: the paper's stops, and the turns of common prompts.
_NEXT_QUESTION = re.compile(
    "|".join(map(re.escape, PAPER_STOPS))
    + r"|\n[^\S\n]*(?:Q|Question|Problem|USER|User|Human|Input)\s*\d*:|<\|im_start\|>|\[INST\]|Below is an instruction"
)


def counts(answers: Sequence[Answer], scores: Sequence[Score]) -> Json:
    """Count the answers, the empty and the cut ones (`cut` is None where no line says how it ended), the unscored."""
    known = [answer.finish for answer in answers if answer.finish]  # empty: its file does not say how it ended
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
    firsts = ((answer.text, _FIRST_ANSWER.search(answer.text)) for answer in answers)
    return sum(first is not None and _NEXT_QUESTION.search(text, first.end()) is not None for text, first in firsts)


def extractors(
    others: Mapping[str, Evaluator], problems: Sequence[Problem], answers: Sequence[Answer], asked: str | None = None
) -> Json:
    """Score the same answers with each evaluator: their scores, the answers they find nothing in, where they differ.

    `disagreements` counts, for each pair, the answers that one takes for right and the other for wrong, and names a
    few of them by id. `warnings` says in words which pairs differ by more than chance over the items, after Holm over
    them: by how many points, and what to do. Of an extractor that finds nothing in any answer only its difference
    from the one that was `asked` for (None: any) is worth a sentence.
    """
    scores = {name: evaluator.score(problems, judged(evaluator, answers)) for name, evaluator in others.items()}
    results = {name: evaluator.summarize(scores[name]) for name, evaluator in others.items()}
    pairs = list(itertools.combinations(others, 2))
    silent = {name for name in others if _nothing_in(scores[name]) == len(answers)}
    told = [pair for pair in pairs if asked is None or asked in pair or not silent.intersection(pair)]
    return {
        "extractors": {name: _outcome(results[name], scores[name]) for name in others},
        "disagreements": [_difference(a, b, scores) for a, b in pairs],
        "warnings": _warnings(told, results, scores),
    }


def _outcome(result: Result, scores: Sequence[Score]) -> Json:
    unscored = sum(score.value is None for score in scores)
    return {"score": result.score, "no_answer": _nothing_in(scores), "unscored": unscored}


def _nothing_in(scores: Sequence[Score]) -> int:
    return sum(score.value is not None and score.extracted is None for score in scores)


def _difference(a: str, b: str, scores: Mapping[str, Sequence[Score]]) -> Json:
    pairs = zip(scores[a], scores[b], strict=True)
    ids = [x.id for x, y in pairs if x.value is not None and y.value is not None and x.value != y.value]
    return {"a": a, "b": b, "n": len(ids), "ids": list(dict.fromkeys(ids))[:_EXAMPLES]}


def _warnings(
    pairs: Sequence[tuple[str, str]], results: Mapping[str, Result], scores: Mapping[str, Sequence[Score]]
) -> list[str]:
    """Return a sentence for each pair that differs by more than chance, the largest difference first."""
    items = {
        name: of_scores(scores[name], result.metric, by_task="by_task" in result.details)
        for name, result in results.items()
    }
    found = [(pair, estimate) for pair in pairs if (estimate := _contrast(items[pair[0]], items[pair[1]])) is not None]
    adjusted = holm([1.0 if estimate.p is None else estimate.p for _, estimate in found])
    significant = [
        (pair, estimate)
        for (pair, estimate), p in zip(found, adjusted, strict=True)
        if p < LIMIT and not estimate.low <= 0 <= estimate.high
    ]
    significant.sort(key=lambda told: -abs(told[1].value))
    return [_sentence(*pair, estimate, scores) for pair, estimate in significant]


def _contrast(first: Scored, second: Scored) -> Estimate | None:
    """Compare two scores over the items that both have; None where none is, or nothing differs."""
    ids = sorted(first.values.keys() & second.values.keys())
    if all(first.values[key] == second.values[key] for key in ids):
        return None
    alone = len(first.values.keys() ^ second.values.keys())
    a, b = (np.array([side.values[key] for key in ids]) for side in (first, second))
    return paired(a, b, first.shape(ids), unscored=alone)


def _sentence(a: str, b: str, estimate: Estimate, scores: Mapping[str, Sequence[Score]]) -> str:
    if estimate.value < 0:
        a, b, estimate = b, a, estimate.scaled(-1.0)
    points = estimate.scaled(100.0)
    low, high = sorted((points.low, points.high))
    nothing = _nothing_in(scores[b])
    why = f" {b} finds no answer in {nothing} of {len(scores[b])}." if nothing else ""
    return (
        f"{a} scores {points.value:.1f} points above {b} ({100 * LEVEL:.0f} % interval {low:.1f} to {high:.1f},"
        f" paired over {points.n} items): more than chance explains.{why} Read some of the ids under `disagreements`,"
        " score with the one that reads them rightly, and name it beside the score."
    )
