"""Zeros that are no zeros: a result of which most answers hold nothing to read.

No number, no label, no code, no text at all, or every answer cut at max_tokens: such a score says how the model was
asked more than what it knows. The score stays what it is, but whoever shows it names the cell (`unread`), and nothing
is advised from it. Example: 20 of 20 answers without "The answer is: N" make gsm8k 0.0, and may all be right.

It is told from what a stored result holds: `value`, `extracted` and `reason` of its scores, and the counts `EMPTY` and
`CUT` in its details, which `scoring/evaluate.py` leaves there where they are most of the answers.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from m3_exp.reading.scores import ScoreColumns, column
from m3_exp.types import Answer, Json, Result, ResultRecord, Score

MOST = 0.5  # of the scored answers: a larger share with nothing to read, and the score says little
EMPTY, CUT = "empty_answers", "cut_answers"  # details of a result
SAID = "Most answers hold nothing to read"  # how the note of a table begins
NO_TEXT, ALL_CUT = "no text at all", "every answer is cut at max_tokens"

# Reasons that say that nothing was found, as `no number found by extractor=paper` or `SyntaxError: ... (<answer>)`.
_NOTHING = re.compile(
    r"(?:the (?:answer|last word) (?:holds|is) )?(?:no|nothing|empty)\b|SyntaxError\b|.*: the answer holds no program$",
    re.DOTALL,
)
_NO_PROGRAM = "no program"  # what a benchmark of code extracts there


@dataclass(frozen=True)
class Unread:
    """Of `of` scored answers `n` hold nothing to read; `why`: most often for this reason.

    `tries`: what may help, settings of the benchmark behind what is said of each, as `("", "chat_template=true")`.
    """

    benchmark: str
    n: int
    of: int
    why: str
    tries: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.n} of {self.of} answers hold nothing to read ({self.why})"


def unread_of(record: ResultRecord) -> Unread | None:
    """Return what is to be said of a stored result (`unread`), kept beside its record: a page asks three times."""
    if "_unread" not in vars(record):
        vars(record)["_unread"] = unread(record.result, record.scores)
    return cast(Unread | None, vars(record)["_unread"])


def unread(result: Result, scores: Sequence[Score]) -> Unread | None:
    """Return what is to be said of a result of which most answers hold nothing to read; None of any other."""
    if result.score is None or result.score > 100 * (1 - MOST) or not _may_lack(result, scores):
        return None
    values = column(scores, "value")
    known = sum(value is not None for value in values)
    reasons = Counter(_reasons(values, column(scores, "extracted"), column(scores, "reason")))
    cut = _count(result, CUT)
    kinds = {NO_TEXT: _count(result, EMPTY), "": sum(reasons.values()), ALL_CUT: cut if cut == known else 0}
    kind = max(kinds, key=lambda one: kinds[one])  # the first of several
    if kinds[kind] <= MOST * known:
        return None
    why = kind or reasons.most_common(1)[0][0]
    return Unread(result.benchmark, kinds[kind], known, why, _tries(result, kind, cut=cut > 0 or "unclosed" in why))


def _may_lack(result: Result, scores: Sequence[Score]) -> bool:
    """Tell whether any answer may hold nothing to read: a large store has many scores, whose columns are not parsed."""
    if not isinstance(scores, ScoreColumns) or EMPTY in result.details or CUT in result.details:
        return True
    return scores.holds("extracted", b"null") or scores.holds("extracted", _NO_PROGRAM.encode())


def _reasons(
    values: Sequence[float | None], extracted: Sequence[str | None], reasons: Sequence[str | None]
) -> list[str]:
    """Return why each wrong answer holds nothing to read, for those that hold nothing.

    Where something was extracted from other wrong answers of the result, the reason need not say it.
    """
    rows = zip(values, extracted, reasons, strict=True)
    wrong = [(None if text == _NO_PROGRAM else text, why or "") for value, text, why in rows if value == 0]
    reads = any(text is not None for text, _ in wrong)
    return [_short(why) for text, why in wrong if text is None and (reads or _NOTHING.match(why))]


def _short(why: str) -> str:
    """Return a reason that many answers share: what Python says of a program differs from one to the next."""
    if why.startswith("SyntaxError"):
        return "no code"
    return _NO_PROGRAM if why.endswith(_NO_PROGRAM) else why or "no answer found"


def _count(result: Result, key: str) -> int:
    known = result.details.get(key)
    return known if isinstance(known, int) else 0


def _tries(result: Result, kind: str, *, cut: bool) -> tuple[tuple[str, str], ...]:
    """Return the settings that may make answers readable."""
    longer = [("a larger ", "max_tokens")] if cut and "max_tokens" in result.settings else []
    chat = [("", "chat_template=true")] if kind != ALL_CUT and result.settings.get("chat_template") is False else []
    return (*longer, *chat)


def counts(answers: Sequence[Answer], scores: Sequence[Score]) -> Json:
    """Return what `unread` needs of answers that no score says: how many are empty, or cut, where those are most.

    `answers` are those that were judged, `scores` one each. Only wrong ones count.
    """
    known = [score for score in scores if score.value is not None]
    wrong = [answer for answer, score in zip(answers, scores, strict=True) if score.value == 0]
    empty = sum(not answer.text.strip() for answer in wrong)
    cut = sum(answer.finish == "length" for answer in wrong)
    return {key: count for key, count in ((EMPTY, empty), (CUT, cut)) if count > MOST * len(known)}


def listed(cells: Sequence[tuple[str, Unread]], named: int = 2) -> str:
    """Name such cells, those of one benchmark together, by what each is called; no more than `named` of each.

    As in `gsm8k: lm, code (20 of 20: no number found by extractor=paper)`.
    """
    by_benchmark: dict[str, dict[str, Unread]] = {}
    for name, one in cells:
        by_benchmark.setdefault(one.benchmark, {})[name] = one
    return "; ".join(_listed(benchmark, own, named) for benchmark, own in by_benchmark.items())


def _listed(benchmark: str, own: Mapping[str, Unread], named: int) -> str:
    worst = max(own.values(), key=lambda one: one.n / one.of)
    more = f" and {len(own) - named} more" if len(own) > named else ""
    up_to = "up to " if len({(one.n, one.of) for one in own.values()}) > 1 else ""
    return f"{benchmark}: {', '.join([*own][:named])}{more} ({up_to}{worst.n} of {worst.of}: {worst.why})"


def attempts(cells: Sequence[Unread]) -> str:
    """Say what to try for such cells, of which there is one at least."""
    names = {one.benchmark for one in cells}
    name = names.pop() if len(names) == 1 else "NAME"
    tries = dict.fromkeys(f"{said}evaluator.{name}.{setting}" for one in cells for said, setting in one.tries)
    first = f"try {' or '.join(tries)}; " if tries else ""
    return f"{first}m3 export answers writes them, m3 score {name} FILE --audit says what other rules read there"


def sentence(cells: Sequence[tuple[str, Unread]], start: str = f"{SAID}, so these scores say little") -> str:
    """Say of which cells most answers hold nothing to read, and what to try."""
    return f"{start}: {listed(cells)}. To do: {attempts([one for _, one in cells])}."
