"""LiveBench typos: a text given back with nothing changed but its misspellings (the paper's `test_typos`)."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from m3_exp.scoring.audit import extractors
from m3_exp.scoring.livebench import LiveBench, TaskFile, task, turn
from m3_exp.scoring.text import cut
from m3_exp.types import About, Answer, M3Error, Problem, Score

_CONTENT = "06377b7efb0dad711686edf6b0db47886fbe2975189cc89f471fc6851b33c3f6"
_ORIGIN = (
    "questions and judged answers of the GitHub repositories maxim-saplin/LiveBench and LiveBench/LiveBench, of which"
    " these were put together (or use LiveBench's own, livebench/language on the Hugging Face hub, as items=PATH)"
)
Rule = Literal["paper", "livebench"]
STOPS = ("The answer is:",)
_PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Text with errors:\n{}\n\n### Response: the corrected paragraph is:"
)
_SOLUTION = re.compile(r"<solution>(.*?)</solution>")
_DASHES = " --- "


@dataclass(frozen=True)
class LiveBenchTypos(LiveBench):
    """Abstracts with planted misspellings, to be given back with these corrected and nothing else changed.

    Measured: whether the corrected text is contained, letter by letter, in what is taken of the answer.
    Items: 50 questions; here only 17 have their gold text: the others are left out of the score and counted
        (`details.left_out`). `first=50` takes the first 50 questions of the file, as the paper does; `first=whole` all.
        `release` picks a LiveBench release where the items carry their dates, as LiveBench's own do and these do not.
    Prompt: template=paper      the paper's Alpaca-like template with "### Text with errors:"; stop "The answer is:"
            template=livebench  the question's only turn, no template, no stops
        Greedy, at most 2048 tokens. chat_template=true takes the turn as the user's message, whatever the template.
    Verdict: rule=paper      the last line that is not empty, of the stripped answer (LiveBench's own rule in 2024)
             rule=livebench  LiveBench's rule since 2025: the last <solution>...</solution>, else what stands between
                             " --- " and " --- ", else the whole answer; its lines joined by a space
    Pitfalls: one other change (a comma, a spelling) makes the item wrong. `paper` sees the last line only, so a remark
        after the text makes it wrong, and a text before the gold one makes no difference.
    """

    name: ClassVar[str] = "livebench_typos"
    version: ClassVar[str] = "2"
    about = About(
        "LiveBench typos", colour="green", marker="<", dashes=(5, 1.5), rank=7, table="figure4", paper_items=50
    )
    skill: ClassVar[str] = "lm"
    files: ClassVar[Sequence[TaskFile]] = (TaskFile("livebench/language/typos/question.jsonl", 50, _CONTENT),)
    columns: ClassVar[Mapping[str, Any]] = {**LiveBench.columns, "ground_truth": object}
    origin: ClassVar[str] = _ORIGIN

    template: Literal["paper", "livebench"] = "paper"
    rule: Rule = "paper"
    first: int | str = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first != "whole" and (type(self.first) is not int or self.first < 1):
            raise M3Error(f"livebench_typos: first={self.first} must be a whole number of at least 1, or whole")

    @property
    def present_rules(self) -> bool:
        return self.rule == "livebench"

    def official_rows(self) -> int | None:
        rows = super().official_rows()
        return rows if rows is None or isinstance(self.first, str) else min(rows, self.first)

    @property
    def stops(self) -> tuple[str, ...]:
        return STOPS if self.template == "paper" and not self.chat_template else ()

    @property
    def ineffective(self) -> tuple[str, ...]:
        return ("template",) if self.chat_template else ()

    def problems(self, items: str) -> list[Problem]:
        """Return the typos questions of a file, which may hold LiveBench's other language tasks too."""
        problems = [problem for problem in self.questions(items) if task(problem) == "typos"]
        if not problems:
            raise M3Error(f"livebench_typos: items={items} holds no question of the task typos; give a file that does")
        chosen = self.of_release(problems)
        return chosen[: None if isinstance(self.first, str) else self.first]

    def prompt(self, problem: Problem) -> str:
        if self.template == "livebench" or self.chat_template:
            return turn(problem)
        instruction, _, text = turn(problem).partition("\n\n")
        return _PROMPT.format(instruction, text)

    def score_one(self, problem: Problem, answer: Answer) -> Score:
        gold, notes = _gold(problem), {"task": task(problem)}
        if gold is None:
            notes["left_out"] = "no gold text"
            return Score(answer.id, None, answer.sample, reason="left out: its gold text is not known", notes=notes)
        taken = _RULES[self.rule](cut(answer.text, self.stops))
        right = str(gold) in taken
        reason = None if right else "the gold text is not in it"
        return Score(answer.id, float(right), answer.sample, taken or None, reason, notes)

    def gold(self, problem: Problem) -> str | None:
        gold = _gold(problem)
        return None if gold is None else f"<solution>{gold}</solution>" if self.rule == "livebench" else str(gold)

    def wrong(self, problem: Problem) -> str | None:
        """Return the text with its errors."""
        gold, text = _gold(problem), turn(problem).partition("\n\n")[2]
        return None if gold is None or str(gold) in text else text

    def audit(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> Mapping[str, Any]:
        return extractors(self.alternatives("rule", get_args(Rule)), problems, answers)


def _gold(problem: Problem) -> str | None:
    """Return an item's gold text; a blank one is none, since every answer would contain it."""
    gold = problem.row.get("ground_truth")
    return str(gold) if gold is not None and str(gold).strip() else None


def last_line(text: str) -> str:
    """Return the last line of a stripped answer that is not empty, or nothing."""
    lines = [line for line in text.strip().split("\n") if line]
    return lines[-1] if lines else ""


def solution(text: str) -> str:
    """Return what LiveBench takes of an answer since 2025, its lines joined by a space."""
    tagged = _SOLUTION.findall(text)
    bare = text.replace("<solution>", "").replace("</solution>", "")
    dashed = [] if tagged else [part for line in bare.split("\n") if (part := _between_dashes(line)) is not None]
    text_given = tagged[-1] if tagged else dashed[0] if dashed else bare
    return " ".join(line for line in text_given.strip().split("\n") if line)


def _between_dashes(line: str) -> str | None:
    """Return what stands between the last two " --- " of a line, in linear time; None where there are not two."""
    start = line.rfind(_DASHES, 0, max(0, line.rfind(_DASHES)))
    return None if start < 0 else line[start + len(_DASHES) : line.find(_DASHES, start + len(_DASHES))]


_RULES: Mapping[Rule, Callable[[str], str]] = {"paper": last_line, "livebench": solution}
