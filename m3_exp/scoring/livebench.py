"""What LiveBench's categories share: questions in one file a task, releases, and the average over tasks.

A category's score is the mean of its tasks' means (LiveBench's `show_livebench_result.py`), so a question weighs
1 / (tasks x questions of its task). A question that cannot be judged by anybody (no gold text, no tests) is *left out*:
its score carries the note `left_out`, it is not in n, and the result's details name it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

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


# ------------------------------------------------------------------------------------------------------------- items


@dataclass(frozen=True)
class TaskFile:
    """The official questions of one task: their path under M3_DATA, how many, and the digest of their content."""

    file: str
    rows: int
    content: str


def questions(
    benchmark: str, columns: Mapping[str, Any], files: Sequence[TaskFile], origin: str, items: str
) -> list[Problem]:
    """Return the questions of a category: the official files in their order, the lab's file, or the user's.

    Raises:
        M3Error: a file is missing or not what it should be, or a question is not one turn of text.
    """
    sets = [
        ItemSet(benchmark, columns, f.file, f.rows, f.content, origin, "question_id", optional=_OPTIONAL) for f in files
    ]
    problems = [problem for wanted in (sets if items == "official" else sets[:1]) for problem in load(wanted, items)]
    for problem in problems:
        turn(problem)
    return problems


def official_rows(files: Sequence[TaskFile], release: str) -> int | None:
    """Return how many official questions there are; None for one release, which only the questions tell."""
    return sum(file.rows for file in files) if release == "all" else None


def turn(problem: Problem) -> str:
    """Return the text of a question's only turn. Raises M3Error where there is none or more than one."""
    turns = problem.row["turns"]
    if len(turns) != 1:
        raise M3Error(f"question {problem.id} has {len(turns)} turns; LiveBench's have one text each")
    return str(turns[0])


def task(problem: Problem) -> str:
    """Return the task that a question belongs to."""
    return str(problem.row["task"])


def check_release(benchmark: str, release: str) -> None:
    """Raise M3Error where a release is neither a date nor `all`."""
    if release != "all" and not _DATE.fullmatch(release):
        raise M3Error(f"{benchmark}: release={release} is not a release; give all or a date such as 2024-11-25")


def of_release(benchmark: str, problems: Sequence[Problem], release: str) -> list[Problem]:
    """Return the questions of one release: added on that day or before, and removed after it or never.

    Raises:
        M3Error: a question does not say when it was added, or none is left.
    """
    if release == "all":
        return list(problems)
    unknown = [problem.id for problem in problems if not problem.row.get("livebench_release_date")]
    if unknown:
        raise M3Error(
            f"{benchmark}: {len(unknown)} questions, such as {unknown[0]}, carry no livebench_release_date, so"
            f" release={release} cannot be told from the others; use release=all"
        )
    kept = [problem for problem in problems if _in_release(problem.row, release)]
    if not kept:
        raise M3Error(f"{benchmark}: no question belongs to release={release}; use release=all or another date")
    return kept


def _in_release(row: Mapping[str, Any], release: str) -> bool:
    added, removed = (str(row.get(f"livebench_{what}_date") or "")[:10] for what in ("release", "removal"))
    return added <= release and (not removed or removed > release)


# ------------------------------------------------------------------------------------------------------------ results


def category_result(
    benchmark: str, metric: str, scores: Sequence[Score], settings: Mapping[str, Any], details: Mapping[str, Any]
) -> Result:
    """Return the mean of the tasks' means in percent with its 95 % interval; `details` gets `by_task` and `left_out`.

    A score's task is its note `task`; the tasks are strata of equal weight, the items of one `problem` one cluster.
    """
    tasks = of_scores(scores, by_task=True).by_task()
    by_task = {name: {"score": 100.0 * fmean(values), "n": len(values)} for name, values in tasks.items()}
    missing = {score.id: score.notes[LEFT_OUT] for score in scores if LEFT_OUT in score.notes}
    return mean_result(benchmark, metric, scores, settings, {"by_task": by_task, **details, "left_out": missing})
