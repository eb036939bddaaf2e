"""What the benchmarks of maths problems share: the paper's prompt and stops, and what reads an answer's result."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from m3_exp.scoring.audit import extractors, ran_on
from m3_exp.scoring.evaluator import ChatSettings
from m3_exp.scoring.text import PAPER_STOPS, cut
from m3_exp.types import Answer, Problem, Score

# The Alpaca template and a first half sentence of the answer.
_PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Response: Let's think step by step."
)
# For a chat model (`chat_template=true`): with the form that extractor=paper looks for.
_REQUEST = (
    "{}\n\nThink step by step. Then give the final answer on a last line of exactly this form, with nothing after it:\n"
    "The answer is: ANSWER"
)


@dataclass(frozen=True)
class Maths(ChatSettings):
    """A benchmark of problems with one result each, which an `extractor` looks for in the answer."""

    skill: ClassVar[str] = "math"
    paper_stops: ClassVar[tuple[str, ...]] = PAPER_STOPS
    column: ClassVar[str]  # of an item's problem
    # For every extractor a right answer, with {} in the place of its result.
    written: ClassVar[Mapping[str, str]]

    extractor: str = "paper"

    @abstractmethod
    def right(self, problem: Problem) -> str:
        """Return the result of an item. Raises M3Error where it has none."""

    def check(self, problem: Problem) -> None:
        self.right(problem)

    def prompt(self, problem: Problem) -> str:
        return (_REQUEST if self.chat_template else _PROMPT).format(problem.row[self.column])

    def judged_part(self, answer: Answer) -> str:
        """Return an answer's text up to the first stop."""
        return cut(answer.text, self.stops)

    def details(self, scores: Sequence[Score]) -> dict[str, Any]:
        return {"no_answer_found": sum(score.value is not None and score.extracted is None for score in scores)}

    def gold(self, problem: Problem) -> str:
        return self.written[self.extractor].format(self.right(problem))

    def audit(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> Mapping[str, Any]:
        others = {name: self.with_extractor(name) for name in self.written}
        return {"ran_on": ran_on(answers), **extractors(others, problems, answers, self.extractor)}

    def with_extractor(self, name: str) -> "Maths":
        return replace(self, extractor=name)
