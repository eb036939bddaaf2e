"""GSM8K: grade-school word problems, as the M3 paper scores them (its `test_gsm8k`, `extract_answer_number`)."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

from m3_exp.scoring.boxes import last_boxed
from m3_exp.scoring.items import HubFile, ItemSet
from m3_exp.scoring.math_process import Question, judge
from m3_exp.scoring.math_rules import WHOLE_TEXT
from m3_exp.scoring.maths import Maths
from m3_exp.scoring.numbers import last_number, one_number
from m3_exp.types import About, Answer, M3Error, Problem, Score

_COLUMNS = {"question": str, "answer": str}
_HUB, _REVISION = "openai/gsm8k", "cc7b047b6e5bb11b4f1af84efc572db110a51b3c"

DEV = ItemSet(
    benchmark="gsm8k",
    columns=_COLUMNS,
    file="gsm8k/train.jsonl",
    rows=7473,
    content="273c4d99ea56294e59d2d9417fb0e867dedbfaf9fe43281cebae98f3762cd123",
    origin="grade_school_math/data/train.jsonl of the GitHub repository openai/grade-school-math",
    hub=HubFile(_HUB, _REVISION, "main/train-00000-of-00001.parquet"),
)
ITEMS = ItemSet(
    benchmark="gsm8k",
    columns=_COLUMNS,
    file="gsm8k/test.jsonl",
    rows=1319,
    content="9321c38e6630e6767e00070fe02bdf6d5fe078ad882a5bf5507a42fb09762e6a",
    origin="grade_school_math/data/test.jsonl of the GitHub repository openai/grade-school-math",
    hub=HubFile(_HUB, _REVISION, "main/test-00000-of-00001.parquet"),
    dev=DEV,
)

Extractor = Literal["paper", "strict", "flexible", "last_number", "boxed", "math_verify"]

_PAPER_NUMBER = re.compile(r"[-+]?\d*[.,/]?\d+")
_STRICT_NUMBER = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


@dataclass(frozen=True)
class GSM8K(Maths):
    """Grade-school arithmetic word problems with an integer answer.

    Measured: whether the extracted number equals the gold one (accuracy).
    Items: the 1319 test problems, fields `question` and `answer`; the gold number follows `####`. `items=dev`: the 7473
        training problems, for choosing (take a part of them by `limit`).
    Prompt: the paper's Alpaca template ending in "Let's think step by step."; greedy, at most 1024 tokens, ended by
        the stops "Instruction:", "Instruction", "Response:", "Response". `chat_template=true`: the question and a
        request to end with "The answer is: N", as a user's message, no stops.
    Extractors, all on the text before the first stop:
        paper        the first number after the last "The answer is: ", rounded to an integer (the paper's script, which
                     is WizardMath's and MetaMath's)
        strict       the number after the first "#### ", compared as text (lm-eval's strict-match)
        flexible     the last number, compared as text (lm-eval's flexible-extract)
        last_number  the last number, compared as a number: 26.00, 9 500 and \\$5,600.00 are whole
        boxed        the one number in the last complete \\boxed{...}, compared as a number
        math_verify  whatever the package math-verify finds, compared by it
    `last_number` and `boxed` read LaTeX and plain text alike (units, currencies, thousands, signs, fractions, mixed
        numbers); two numbers in a box, 3:4, a range or 1,23 are no number (`m3_exp.scoring.numbers`).
    Pitfalls: `paper` gives credit for a format (0 % on "The answer is N" without a colon, on "#### N" and on \\boxed)
        and takes 18.4 for 18; of 1,234,567 it reads 1,234. An answer that says "Response" is cut there.
        `math_verify` leaves an answer on which it hangs (towers of powers) unscored, see `m3_exp.scoring.math_process`.
    """

    name: ClassVar[str] = "gsm8k"
    version: ClassVar[str] = "3"
    about = About("GSM8K", colour="vermillion", marker="s", rank=1, table="table1", paper_items=ITEMS.rows)
    item_set: ClassVar[ItemSet] = ITEMS
    column: ClassVar[str] = "question"
    written: ClassVar[Mapping[str, str]] = {
        "paper": "So that is it. The answer is: {}",
        "strict": "So that is it.\n#### {}",
        "flexible": "So in the end there are {}.",
        "last_number": "So in the end there are {}.",
        "boxed": "So that is $\\boxed{{{}}}$.",
        "math_verify": "So that is $\\boxed{{{}}}$.",
    }

    extractor: Extractor = "paper"
    max_tokens: int = 1024

    def right(self, problem: Problem) -> str:
        return str(gold(problem))

    def wrong(self, problem: Problem) -> str:
        return self.written[self.extractor].format(gold(problem) + 1)

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        if self.extractor != "math_verify":
            return super().score(problems, answers)
        golds, texts = map(self.right, problems), map(self.judged_part, answers)
        verdicts = judge([Question(right, text, *WHOLE_TEXT) for right, text in zip(golds, texts, strict=True)])
        return [v.score(a, self.right(p)) for p, a, v in zip(problems, answers, verdicts, strict=True)]

    def score_one(self, problem: Problem, answer: Answer) -> Score:
        """Compare as text: the extractors that compare as numbers have written whole numbers as integers."""
        extracted, right = _EXTRACTORS[self.extractor](self.judged_part(answer)), self.right(problem)
        if extracted is None:
            reason = f"no number found by extractor={self.extractor}"
            return Score(answer.id, 0.0, answer.sample, None, reason)
        same = extracted == right
        return Score(answer.id, float(same), answer.sample, extracted, None if same else f"gold is {right}")


def gold(problem: Problem) -> int:
    """Return the gold answer of an item.

    Raises:
        M3Error: its `answer` has no integer after "#### ".
    """
    _, _, number = str(problem.row["answer"]).partition("#### ")
    try:
        return int(number.replace(",", ""))
    except ValueError:
        raise M3Error(
            f"gsm8k item {problem.id}: `answer` must end in '#### N', an integer; it is {number[:40]!r}"
        ) from None


def extract_paper(text: str) -> str | None:
    """Return the integer that the paper's script reads, or None where it reads none."""
    _, phrase, rest = text.rpartition("The answer is: ")
    match = _PAPER_NUMBER.search(rest) if phrase else None
    if match is None:
        return None
    number = match[0].replace(",", "")
    try:
        return str(round(float(Fraction(number)) if "/" in number else float(number)))
    except ZeroDivisionError:
        return str(round(float(number.split("/")[0])))  # the paper's script reads 7/0 as 7
    except (ValueError, OverflowError):
        return None


def extract_strict(text: str) -> str | None:
    """Return the number after the first "#### " without commas and a final full stop."""
    match = _STRICT_NUMBER.search(text)
    return _bare(match[1]) if match else None


def extract_flexible(text: str) -> str | None:
    """Return the last number of a text without commas, dollar signs and a final full stop."""
    matches = _FLEXIBLE_NUMBER.findall(text)
    return _bare(matches[-1]) if matches else None


def extract_last_number(text: str) -> str | None:
    """Return the last number of a text, whole numbers as integers; None where there is none or it has no one value."""
    number = last_number(text)
    return None if number is None else str(number)


def extract_boxed(text: str) -> str | None:
    """Return the number in the last \\boxed{...}, whole numbers as integers; what is no number, as it is."""
    box = last_boxed(text)
    if box is None:
        return None
    number = one_number(box)
    return box.strip() if number is None else str(number)


def _bare(number: str) -> str:
    return number.replace(",", "").replace("$", "").removesuffix(".")


_EXTRACTORS: Mapping[Extractor, Callable[[str], str | None]] = {
    "paper": extract_paper,
    "strict": extract_strict,
    "flexible": extract_flexible,
    "last_number": extract_last_number,
    "boxed": extract_boxed,
}
