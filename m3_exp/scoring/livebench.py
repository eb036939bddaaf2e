"""What LiveBench's categories share: questions in one file a task, releases, and the average over tasks.

A category's score is the mean of its tasks' means (LiveBench's `show_livebench_result.py`), so a question weighs
1 / (tasks x questions of its task). A question that cannot be judged by anybody (no gold text, no tests) is *left out*:
its score carries the note `left_out`, it is not in n, and the result's details name it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar, cast

from m3_exp.scoring import thoughts
from m3_exp.scoring.evaluator import ChatSettings, Evaluator
from m3_exp.scoring.items import ItemSet, load
from m3_exp.scoring.summary import mean_result
from m3_exp.stats.scored import LEFT_OUT, of_scores
from m3_exp.types import M3Error, Problem, Result, Score

_OPTIONAL = {
    **{"ground_truth": str, "reference_answer": str, "livebench_release_date": str, "livebench_removal_date": str},
    **{"partial_solution": str, "public_test_cases": str, "private_test_cases": str, "original_json": dict},
    "tests_dropped": int,
}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class TaskFile:
    """The official questions of one task: their path under M3_DATA, how many, and the digest of their content."""

    file: str
    rows: int
    content: str


@dataclass(frozen=True, kw_only=True)
class LiveBench(ChatSettings):
    """A category of LiveBench. `release` is all, or the day of one of LiveBench's releases, such as 2024-11-25."""

    metric: ClassVar[str] = "LiveBench score"
    files: ClassVar[Sequence[TaskFile]]
    columns: ClassVar[Mapping[str, Any]] = {"question_id": str, "task": str, "turns": list[str]}
    origin: ClassVar[str]

    max_tokens: int = 2048
    release: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.release != "all" and not _DATE.fullmatch(self.release):
            raise M3Error(
                f"{self.name}: release={self.release} is not a release; give all or a date such as 2024-11-25"
            )

    # ----------------------------------------------------------------------------------------------------- thoughts

    @property
    def present_rules(self) -> bool:
        """Whether the settings are LiveBench's present rules, whose own judge drops thoughts."""
        return False

    @property
    def drops_thoughts(self) -> bool:
        return self.chat_template or self.present_rules

    def judged(self, text: str) -> str | None:
        """Return the part of an answer that is judged.

        LiveBench's present rules drop thoughts as its own judge does; with chat_template every thought is dropped.
        """
        if self.thought == "keep" or not self.present_rules:
            return super().judged(text)
        kept = thoughts.drop(text) if self.chat_template else text
        return None if kept is None else thoughts.drop_as_livebench(kept)

    def alternatives(self, setting: str, values: Sequence[str]) -> dict[str, Evaluator]:
        """Return this benchmark under each value of a setting; each drops or keeps thoughts as that value asks."""
        own = getattr(self, setting)
        return {v: self if v == own else replace(cast(Any, self), **{setting: v, "thought": None}) for v in values}

    # -------------------------------------------------------------------------------------------------------- items

    def problems(self, items: str) -> list[Problem]:
        return self.of_release(self.questions(items))

    def questions(self, items: str) -> list[Problem]:
        """Return all questions: the official files in their order, the lab's file, or the user's.

        Raises:
            M3Error: a file is missing or not what it should be, or a question is not one turn of text.
        """
        sets = [
            ItemSet(
                *(self.name, self.columns, f.file, f.rows, f.content, self.origin, "question_id"), optional=_OPTIONAL
            )
            for f in self.files
        ]
        problems = [problem for one in (sets if items == "official" else sets[:1]) for problem in load(one, items)]
        for problem in problems:
            turn(problem)
        return problems

    def of_release(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return the questions of the release: added on that day or before, and removed after it or never.

        Raises:
            M3Error: a question does not say when it was added, or none is left.
        """
        if self.release == "all":
            return list(problems)
        unknown = [problem.id for problem in problems if not problem.row.get("livebench_release_date")]
        if unknown:
            raise M3Error(
                f"{self.name}: {len(unknown)} questions, such as {unknown[0]}, carry no livebench_release_date, so"
                f" release={self.release} cannot be told from the others; use release=all"
            )
        kept = [problem for problem in problems if _in_release(problem.row, self.release)]
        if not kept:
            raise M3Error(
                f"{self.name}: no question belongs to release={self.release}; use release=all or another date"
            )
        return kept

    def official_rows(self) -> int | None:
        """Return how many official questions there are; None for one release, which only the questions tell."""
        return sum(file.rows for file in self.files) if self.release == "all" else None

    def prompt(self, problem: Problem) -> str:
        return turn(problem)

    # ------------------------------------------------------------------------------------------------------- result

    def summarize(self, scores: Sequence[Score]) -> Result:
        """Return the mean of the tasks' means in percent with its 95 % interval.

        A score's task is its note `task`; the tasks are strata of equal weight, the items of one `problem` one
        cluster. The details get `by_task` and `left_out`.
        """
        tasks = of_scores(scores, by_task=True).by_task()
        by_task = {name: {"score": 100.0 * fmean(values), "n": len(values)} for name, values in tasks.items()}
        missing = {score.id: score.notes[LEFT_OUT] for score in scores if LEFT_OUT in score.notes}
        details = {"by_task": by_task, **self.details(scores), "left_out": missing}
        return mean_result(self.name, self.metric, scores, self.settings, details)


def turn(problem: Problem) -> str:
    """Return the text of a question's only turn. Raises M3Error where there is none or more than one."""
    turns = problem.row["turns"]
    if len(turns) != 1:
        raise M3Error(f"question {problem.id} has {len(turns)} turns; LiveBench's have one text each")
    return str(turns[0])


def task(problem: Problem) -> str:
    """Return the task that a question belongs to."""
    return str(problem.row["task"])


def _in_release(row: Mapping[str, Any], release: str) -> bool:
    added, removed = (str(row.get(f"livebench_{what}_date") or "")[:10] for what in ("release", "removal"))
    return added <= release and (not removed or removed > release)
