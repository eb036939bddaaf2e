"""MATH: competition problems, as the M3 paper scores them (its `test_hendrycks_math`, `process_results`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

from m3_exp.scoring.items import ItemSet, load
from m3_exp.scoring.math_equivalence import is_equiv, last_boxed
from m3_exp.scoring.summary import mean_result
from m3_exp.scoring.text import MATH_PROMPT, MATH_STOPS, cut
from m3_exp.types import Answer, M3Error, Problem, Result, Sampling, Score

ITEMS = ItemSet(
    benchmark="hendrycks_math",
    columns={"problem": str, "solution": str},
    file="math/test.jsonl",
    rows=5000,
    content="9301fc585c7512577c44b5d69344b5e4d897b6ab56b9f297db24d49c54c3f334",
    origin="src/data/math/test.jsonl of the GitHub repository microsoft/ToRA",
)


@dataclass(frozen=True)
class HendrycksMath:
    """Competition mathematics with short exact answers in LaTeX.

    Measured: whether the extracted text is equivalent to the boxed gold answer under Hendrycks' string normalisation
        (accuracy); no algebra is done.
    Items: the 5000 test problems, fields `problem` and `solution` (the last \\boxed{...} is the gold answer).
    Prompt: as GSM8K's (the paper's Alpaca template, "Let's think step by step."); greedy, at most 2048 tokens, the
        same stops.
    Extractors, on the text before the first stop:
        paper  what follows the last "The answer is: " up to ".\\n", without a final full stop (the paper's script)
        boxed  the content of the last \\boxed{...} (or \\fbox{...}) of the answer
    Pitfalls: `paper` scores 0 on an answer that only boxes its result. Equal values in another form (0.25 and 1/4,
        2x+1 and 1+2x) count as different; "x/2" switches the normalisation off for that item (as in the paper's copy).
    """

    name: ClassVar[str] = "hendrycks_math"
    version: ClassVar[str] = "1"
    skill: ClassVar[str] = "math"

    extractor: Literal["paper", "boxed"] = "paper"
    max_tokens: int = 2048

    @property
    def sampling(self) -> Sampling:
        return Sampling(max_tokens=self.max_tokens, stops=MATH_STOPS)

    def problems(self, items: str) -> list[Problem]:
        problems = load(ITEMS, items)
        for problem in problems:
            gold(problem)
        return problems

    def prompt(self, problem: Problem) -> str:
        return MATH_PROMPT.format(problem.row["problem"])

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        return [self._score(problem, answer) for problem, answer in zip(problems, answers, strict=True)]

    def _score(self, problem: Problem, answer: Answer) -> Score:
        found = _EXTRACTORS[self.extractor](cut(answer.text, MATH_STOPS))
        if found is None:
            return Score(answer.id, 0.0, answer.sample, None, f"no answer found by extractor={self.extractor}")
        right = is_equiv(found, gold(problem))
        return Score(answer.id, float(right), answer.sample, found, None if right else f"gold is {gold(problem)}")

    def summarize(self, scores: Sequence[Score]) -> Result:
        missing = sum(score.value is not None and score.extracted is None for score in scores)
        return mean_result(self.name, "accuracy", scores, asdict(self), {"no_answer_found": missing})


def gold(problem: Problem) -> str:
    """Return the gold answer of an item: the content of the last box of its solution.

    Raises:
        M3Error: the solution has no complete \\boxed{...}.
    """
    boxed = last_boxed(str(problem.row["solution"]))
    if boxed is None:
        raise M3Error(f"hendrycks_math item {problem.id}: its solution must hold the gold answer in \\boxed{{...}}")
    return boxed


def extract_paper(text: str) -> str | None:
    """Return what follows the last "The answer is: ", up to a full stop that ends a line; None without the phrase."""
    _, phrase, rest = text.rpartition("The answer is: ")
    return rest.split(".\n")[0].strip().removesuffix(".").strip() if phrase else None


_EXTRACTORS: Mapping[str, Callable[[str], str | None]] = {"paper": extract_paper, "boxed": last_boxed}
