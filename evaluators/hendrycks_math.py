"""MATH: competition problems, as the M3 paper scores them (its `test_hendrycks_math`, `process_results`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, cast

from m3_exp.scoring.boxes import last_boxed
from m3_exp.scoring.items import ItemSet
from m3_exp.scoring.math_process import Question, Verdict, judge
from m3_exp.scoring.math_rules import WHOLE_TEXT, compare
from m3_exp.scoring.maths import Maths
from m3_exp.scoring.summary import figure
from m3_exp.stats.scored import of_scores
from m3_exp.types import About, Answer, Json, M3Error, Problem, Score

ITEMS = ItemSet(
    benchmark="hendrycks_math",
    columns={"problem": str, "solution": str},
    file="math/test.jsonl",
    rows=5000,
    content="9301fc585c7512577c44b5d69344b5e4d897b6ab56b9f297db24d49c54c3f334",
    origin="src/data/math/test.jsonl of the GitHub repository microsoft/ToRA",
)

Extractor = Literal["paper", "boxed", "flexible", "math_verify"]
Equivalence = Literal["paper", "hendrycks", "math_verify", "nemo_skills"]

_WRONG = "-8642.13579"  # no gold answer, under any rule


@dataclass(frozen=True)
class HendrycksMath(Maths):
    """Competition mathematics with short exact answers in LaTeX.

    Measured: whether the extracted text is equivalent to the boxed gold answer (accuracy), also by level and by type
        where the items carry them.
    Items: the 5000 test problems, fields `problem`, `solution` (the last \\boxed{...} is the gold answer), and `level`
        and `type` for the sub-scores.
    Prompt: as GSM8K's (the paper's Alpaca template, "Let's think step by step."); greedy, at most 2048 tokens, the
        same stops. `chat_template=true`: the problem and a request to end with "The answer is: ...", as a user's
        message, no stops.
    Extractors, on the text before the first stop:
        paper        what follows the last "The answer is: " up to ".\\n", without a final full stop (the script of
                     the paper, which is WizardMath's)
        boxed        the content of the last complete, non-empty \\boxed{...} (or \\fbox{...}) of the answer
        flexible     that, else what the first \\[...\\] holds, else what lies between the first and the last dollar
                     sign, else the whole text (lm-eval's hendrycks_math, which also takes a box that is only mentioned)
        math_verify  whatever the package math-verify finds in the whole text, compared by it
    Equivalence of what was extracted and the gold answer (`m3_exp.scoring.math_rules`):
        paper        equal strings after Hendrycks' normalisation, in the copy of lm-eval and the paper; no algebra
        hendrycks    the same in the authors' own file
        math_verify  equal for math-verify, both in dollar signs (sympy; hangs are unscored)
        nemo_skills  equal for `math_equal` of NeMo-Skills
    Pitfalls: `paper` scores 0 on an answer that only boxes its result. Equal values in another form (0.25 and 1/4,
        2x+1 and 1+2x) count as different; "x/2" switches the normalisation off for that item (as in the paper's copy).
        One gold answer (2269) ends in a full stop, which the paper's extraction removes: it can never be right there.
    """

    name: ClassVar[str] = "hendrycks_math"
    version: ClassVar[str] = "3"
    about = About("MATH", colour="green", marker="^", rank=2, table="table1", paper_items=ITEMS.rows)
    item_set: ClassVar[ItemSet] = ITEMS
    column: ClassVar[str] = "problem"
    written: ClassVar[Mapping[str, str]] = {
        "paper": "So that is it. The answer is: {}.\nDone",
        "boxed": "So that is $\\boxed{{{}}}$.",
        "flexible": "So that is $\\boxed{{{}}}$.",
        "math_verify": "So that is $\\boxed{{{}}}$.",
    }
    flawed: ClassVar[Mapping[str, str]] = {"2269": "its gold answer ends in a full stop, which extractor=paper removes"}

    extractor: Extractor = "paper"
    equivalence: Equivalence = "paper"
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extractor == "math_verify" and self.equivalence not in ("paper", "math_verify"):
            raise M3Error(
                f"hendrycks_math: equivalence={self.equivalence} has no effect under extractor=math_verify, which"
                " compares by math-verify; leave it out, or use extractor=boxed"
            )

    @property
    def ineffective(self) -> tuple[str, ...]:
        return ("equivalence",) if self.extractor == "math_verify" else ()

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | ({"equivalence": "math_verify"} if self.extractor == "math_verify" else {})

    def right(self, problem: Problem) -> str:
        return gold(problem)

    def wrong(self, problem: Problem) -> str:
        return self.written[self.extractor].format(_WRONG)

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        golds = [gold(problem) for problem in problems]
        verdicts = self._verdicts(golds, [self.judged_part(answer) for answer in answers])
        return [
            replace(
                verdict.score(answer, right),
                notes={key: problem.row[key] for key in ("level", "type") if isinstance(problem.row.get(key), str)},
            )
            for problem, answer, right, verdict in zip(problems, answers, golds, verdicts, strict=True)
        ]

    def _verdicts(self, golds: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
        if self.extractor == "math_verify":
            return judge([Question(f"${right}$", text, *WHOLE_TEXT) for right, text in zip(golds, texts, strict=True)])
        taken = [_EXTRACTORS[self.extractor](text) for text in texts]
        if self.equivalence != "math_verify":
            return compare(list(zip(golds, taken, strict=True)), self.equivalence)
        pairs = [(_formula(right), _formula(text) if text else None) for right, text in zip(golds, taken, strict=True)]
        return compare(pairs, "math_verify")

    def details(self, scores: Sequence[Score]) -> dict[str, Any]:
        parts = {f"by_{key}": _parts(scores, key) for key in ("level", "type")}
        return super().details(scores) | {name: part for name, part in parts.items() if part}

    def with_extractor(self, name: str) -> Maths:
        kept = "paper" if "math_verify" in (name, self.extractor) else self.equivalence
        return replace(self, extractor=cast(Extractor, name), equivalence=kept)


def _formula(text: str) -> str:
    """Return a text in dollar signs, on one line: math-verify knows no formula with a line break in it."""
    return f"${' '.join(text.split())}$"


def gold(problem: Problem) -> str:
    """Return the gold answer of an item: the content of the last box of its solution.

    Raises:
        M3Error: the solution has no complete \\boxed{...} that holds something.
    """
    boxed = last_boxed(str(problem.row["solution"]))
    if boxed is None:
        raise M3Error(f"hendrycks_math item {problem.id}: its solution must hold the gold answer in \\boxed{{...}}")
    return boxed


def _parts(scores: Sequence[Score], key: str) -> Json:
    """Return the sub-score of each level or type (percent), in the order of their names."""
    names = sorted({str(score.notes[key]) for score in scores if key in score.notes})
    return {name: asdict(figure(of_scores([s for s in scores if s.notes.get(key) == name]))) for name in names}


def extract_paper(text: str) -> str | None:
    """Return what follows the last "The answer is: ", up to a full stop that ends a line; None without the phrase."""
    _, phrase, rest = text.rpartition("The answer is: ")
    return rest.split(".\n")[0].strip().removesuffix(".").strip() if phrase else None


def extract_flexible(text: str) -> str | None:
    """Return the last box, else the first displayed formula, else what lies between dollar signs, else the text."""
    box = last_boxed(text)
    if box is not None:
        return box
    start = text.find("\\[")
    end = text.find("\\]", start + 3)  # something must stand between
    if -1 < start < end:
        return text[start + 2 : end].strip()
    first, last = text.find("$"), text.rfind("$")
    return text[first + 1 : last] if first < last else text or None


_EXTRACTORS: Mapping[Extractor, Callable[[str], str | None]] = {
    "paper": extract_paper,
    "boxed": last_boxed,
    "flexible": extract_flexible,
}
