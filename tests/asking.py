"""An evaluator that makes its items with the model: what the tests of `prepare` score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from m3_exp.scoring.cache import folder
from m3_exp.scoring.evaluator import Ask, Evaluator
from m3_exp.types import Answer, Problem, Score


@dataclass(frozen=True)
class Asking(Evaluator):
    """Asks every item twice over (a round stands on the answers of the one before) and appends what it heard.

    `break_after` rounds it fails once (a file in the store's folder remembers), as a killed run does.
    """

    name: ClassVar[str] = "asking"
    version: ClassVar[str] = "1"
    skill: ClassVar[str] = "base"
    max_tokens = 4
    operational: ClassVar[tuple[str, ...]] = ("break_after",)

    break_after: int = 9
    chat_template: bool = False

    def problems(self, items: str) -> list[Problem]:
        return [Problem(str(i), {"text": f"item {i}"}) for i in range(4)]

    def prompt(self, problem: Problem) -> str:
        return str(problem.row["text"])

    def prepare(self, problems: Sequence[Problem], ask: Ask) -> Sequence[Problem]:
        texts = [self.prompt(problem) for problem in problems]
        for number in range(2):
            heard = ask([*texts, texts[0]])
            assert heard[0] == heard[-1], "the same prompt twice has the same answer"
            texts = [text + answer for text, answer in zip(texts, heard[:-1], strict=True)]
            mark = folder("asking") / "broken"
            if number + 1 == self.break_after and not mark.exists():
                mark.touch()
                raise RuntimeError("killed")
        return [Problem(f"{p.id}@made", {"text": text}) for p, text in zip(problems, texts, strict=True)]

    def score_one(self, problem: Problem, answer: Answer) -> Score:
        return Score(answer.id, 1.0, extracted=problem.row["text"])
