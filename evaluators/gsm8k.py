"""GSM8K: grade-school word problems, as the M3 paper scores them (its `test_gsm8k`, `extract_answer_number`)."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import ClassVar, Literal

from m3_exp.scoring.items import HubFile, ItemSet, load
from m3_exp.scoring.summary import mean_result
from m3_exp.scoring.text import MATH_PROMPT, MATH_STOPS, cut
from m3_exp.types import Answer, M3Error, Problem, Result, Sampling, Score

ITEMS = ItemSet(
    benchmark="gsm8k",
    columns={"question": str, "answer": str},
    file="gsm8k/test.jsonl",
    rows=1319,
    content="9321c38e6630e6767e00070fe02bdf6d5fe078ad882a5bf5507a42fb09762e6a",
    origin="grade_school_math/data/test.jsonl of the GitHub repository openai/grade-school-math",
    hub=HubFile("openai/gsm8k", "cc7b047b6e5bb11b4f1af84efc572db110a51b3c", "main/test-00000-of-00001.parquet"),
)

_PAPER_NUMBER = re.compile(r"[-+]?\d*[.,/]?\d+")
_STRICT_NUMBER = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


@dataclass(frozen=True)
class GSM8K:
    """Grade-school arithmetic word problems with an integer answer.

    Measured: whether the extracted number equals the gold one (accuracy).
    Items: the 1319 test problems, fields `question` and `answer`; the gold number follows `####`.
    Prompt: the paper's Alpaca template ending in "Let's think step by step."; greedy, at most 1024 tokens, ended by
        the stops "Instruction:", "Instruction", "Response:", "Response".
    Extractors, all on the text before the first stop:
        paper     the first number after the last "The answer is: ", rounded to an integer (the paper's script)
        strict    the number after the first "#### ", compared as text (lm-eval's strict-match)
        flexible  the last number, compared as text (lm-eval's flexible-extract)
        boxed     the number in the last \\boxed{...}, compared as a number
    Pitfalls: `paper` gives credit for a format (0 % on "The answer is N" without a colon, on "#### N" and on \\boxed)
        and takes 18.4 for 18; of 1,234,567 it reads 1,234. An answer that says "Response" is cut there.
    """

    name: ClassVar[str] = "gsm8k"
    version: ClassVar[str] = "1"
    skill: ClassVar[str] = "math"

    extractor: Literal["paper", "strict", "flexible", "boxed"] = "paper"
    max_tokens: int = 1024

    @property
    def sampling(self) -> Sampling:
        return Sampling(max_tokens=self.max_tokens, stops=MATH_STOPS)

    def problems(self, items: str) -> list[Problem]:
        problems = load(ITEMS, items)
        for problem in problems:
            gold(problem)
        return problems

    def prompt(self, problem: Problem) -> str:
        return MATH_PROMPT.format(problem.row["question"])

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        return [self._score(problem, answer) for problem, answer in zip(problems, answers, strict=True)]

    def _score(self, problem: Problem, answer: Answer) -> Score:
        found = _EXTRACTORS[self.extractor](cut(answer.text, MATH_STOPS))
        if found is None:
            return Score(answer.id, 0.0, answer.sample, None, f"no number found by extractor={self.extractor}")
        right = _equal(found, gold(problem))
        return Score(answer.id, float(right), answer.sample, found, None if right else f"gold is {gold(problem)}")

    def summarize(self, scores: Sequence[Score]) -> Result:
        missing = sum(score.value is not None and score.extracted is None for score in scores)
        return mean_result(self.name, "accuracy", scores, asdict(self), {"no_answer_found": missing})


def gold(problem: Problem) -> int:
    """Return the gold answer of an item.

    Raises:
        M3Error: its `answer` has no integer after "#### ".
    """
    _, _, number = str(problem.row["answer"]).partition("#### ")
    try:
        return int(number.replace(",", ""))
    except ValueError:
        raise M3Error(f"gsm8k item {problem.id}: `answer` must end in '#### N', an integer; it is {number!r}") from None


def _equal(found: str, right: int) -> bool:
    """Compare as text: the extractors that compare as numbers have written whole numbers as integers."""
    return found == str(right)


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


def extract_boxed(text: str) -> str | None:
    """Return the number in the last \\boxed{...}, whole numbers as integers."""
    _, box, rest = text.rpartition("\\boxed{")
    inside = rest.split("}")[0].replace(",", "").replace("\\$", "").replace("$", "").strip()
    try:
        value = float(inside) if box else None
        return None if value is None else str(int(value)) if value.is_integer() else str(value)
    except (ValueError, OverflowError):
        return inside or None


def _bare(number: str) -> str:
    return number.replace(",", "").replace("$", "").removesuffix(".")


_EXTRACTORS: Mapping[str, Callable[[str], str | None]] = {
    "paper": extract_paper,
    "strict": extract_strict,
    "flexible": extract_flexible,
    "boxed": extract_boxed,
}
