"""LiveBench coding: programs for contest problems, from nothing or from their first lines (paper: `test_coding`).

questions.py  a question's tests and an answer's program -> a task for the sandbox; programs that know the answers
harness.py    runs in the candidate's box: the model's program, once for each test, under a time limit
grading.py    runs in the grader's box: what a test passes to the program, and whether its answer is right

The texts of the last two are what is sent into the boxes, so they import the standard library only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

from evaluators.livebench_coding import questions
from evaluators.livebench_coding.questions import NO_PROGRAM, Question, Rules, Runner, Unreadable
from m3_exp.scoring import livebench
from m3_exp.scoring.audit import extractors
from m3_exp.scoring.livebench import LiveBench, TaskFile
from m3_exp.scoring.sandbox.judge import Limits, Task, Verdict, judge, levels
from m3_exp.types import About, Answer, Json, Problem, Result, Score

_CONTENT = {
    ("LCB_generation", 78): "562dd92b4a44bf8c267224c6731fcc08ab088a3dc9f39b2272ff61b3943c3a71",
    ("coding_completion", 50): "79fe27acf9315ed675602296e3592112acb2e0636cd910678d3eb55c4b8deb27",
}
_ORIGIN = (
    "questions of the GitHub repository maxim-saplin/LiveBench and tests of federicobrancasi/livebench-msbench, which"
    " these were put together from (or use LiveBench's own, livebench/coding on the Hugging Face hub, as items=PATH)"
)
TIME_IS_OVER = "for one test"  # in the reason of a program that the harness stopped
_MEMORY = 2 << 30


@dataclass(frozen=True)
class LiveBenchCoding(LiveBench):
    """Contest problems of LeetCode and AtCoder from LiveCodeBench: whole programs, or the rest of a program.

    Measured: whether a program passes all tests of its question; the result is the mean of the two tasks' means.
    Items: LCB_generation (78) and coding_completion (50). Here the tests over 20,000 characters are missing, and 11 of
        the 78 have none: these are left out of the score and counted (`details.left_out`). 50 of the 117 lack some and
        are judged too leniently: `details.lacking_tests` names them, and counts those that were passed. `release` picks
        a LiveBench release where the items carry their dates, as LiveBench's own do and these do not.
    Prompt: the question's only turn, no template; greedy, at most 2048 tokens, no stops.
    Rules: LiveBench changed both the extraction and the runner on 7 April 2025 (its commit a41783c).
        rules=2024  the program stands between the first two lines with ```, else between single backticks, else there
                    is none; the partial solution is always put before it; outputs are compared with a tolerance, and
                    a method may give the first element of the expected list; no `exit`
        rules=2025  between the last two such lines, else before the only one where it is the last line, else it is the
                    whole text; the partial solution is put before what does not begin with it; numbers of a line are
                    compared as exact decimals; `exit()` works; thoughts are dropped, as LiveBench's judge does
    Verdict: in the sandbox, all tests of a question in one process, at most `timeout` seconds of CPU time a test (five
        times as many by the clock) and ten times that for a question; 2 GiB; the standard library only.
        runner=livebench  programs are treated as in LiveBench, quirks included (`harness.py`)
        runner=script     programs that read stdin run as scripts instead; outputs are compared in the same way
    Pitfalls: under rules=2024 an answer without fences has no program (`details.no_program`); a program that imports
        numpy fails here (`details.missing_module`) and may not at LiveBench's.
    """

    name: ClassVar[str] = "livebench_coding"
    version: ClassVar[str] = "2"
    about = About("LiveBench coding", colour="purple", marker="X", dashes=(5, 1.5), rank=6, table="figure4")
    skill: ClassVar[str] = "code"
    files: ClassVar[Sequence[TaskFile]] = tuple(
        TaskFile(f"livebench/coding/{name}/question_lite.jsonl.gz", rows, content)
        for (name, rows), content in _CONTENT.items()
    )
    columns: ClassVar[Mapping[str, Any]] = {
        **{**LiveBench.columns, "partial_solution": object, "original_json": object},
        **{"public_test_cases": object, "private_test_cases": object},
    }
    origin: ClassVar[str] = _ORIGIN
    operational: ClassVar[tuple[str, ...]] = ("sandbox", "allow_weak")
    above_zero: ClassVar[tuple[str, ...]] = ("max_tokens", "timeout")
    replaced: ClassVar[Mapping[str, str]] = {
        "fences": "rules=2024 (in place of fences=first) or rules=2025 (LiveBench's present rules, in place of last)"
    }

    rules: Rules = 2024
    runner: Runner = "livebench"
    timeout: float = 6.0
    sandbox: Literal["auto", "bubblewrap", "landlock", "container", "weak"] = "auto"
    allow_weak: bool = False

    @property
    def present_rules(self) -> bool:
        return self.rules == 2025

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        read = [questions.read(problem.row) for problem in problems]
        tasks = [
            self._task(question, answer)
            for question, answer in zip(read, answers, strict=True)
            if isinstance(question, Question)
        ]
        verdicts = iter(self._judge(tasks))
        return [
            _score(problem, question, answer, next(verdicts))
            if isinstance(question, Question)
            else _unjudged(problem, answer, question)
            for problem, answer, question in zip(problems, answers, read, strict=True)
        ]

    def _task(self, question: Question, answer: Answer) -> Task:
        program = questions.whole_program(question, answer.text, self.rules)
        return questions.task(question, program, self.rules, self.runner, self.timeout)

    def _judge(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Judge programs; one that ran out of a test's time is tried once more, alone, before that counts."""
        limits = Limits(10 * self.timeout, 30 * self.timeout, _MEMORY)
        verdicts = judge(tasks, limits, self.sandbox, allow_weak=self.allow_weak)
        for number, verdict in enumerate(verdicts):
            if verdict.value == 0.0 and TIME_IS_OVER in str(verdict.reason):
                [verdicts[number]] = judge([tasks[number]], limits, self.sandbox, allow_weak=self.allow_weak)
        return verdicts

    def summarize(self, scores: Sequence[Score]) -> Result:
        result = super().summarize(scores)
        return replace(result, settings={**result.settings, "sandbox": levels(scores)})

    def details(self, scores: Sequence[Score]) -> dict[str, Any]:
        return {
            "no_program": sum(score.extracted == NO_PROGRAM for score in scores),
            "missing_module": sum("ModuleNotFoundError" in str(score.reason) for score in scores),
            "lacking_tests": _lacking(scores),
            "sandbox": levels(scores),
        }

    def gold(self, problem: Problem) -> str | None:
        """Return the item's own right answer, else a program that looks every output up."""
        question, reference = questions.read(problem.row), problem.row.get("reference_answer")
        if not isinstance(question, Question):
            return None
        return str(reference) if reference is not None else questions.gold(question, self.rules)

    def wrong(self, problem: Problem) -> str | None:
        question = questions.read(problem.row)
        return questions.wrong(question, self.rules) if isinstance(question, Question) else None

    def audit(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> Mapping[str, Any]:
        ways = [(rules, runner) for rules in get_args(Rules) for runner in get_args(Runner)]
        thoughts = {rules: self.thought if rules == self.rules else None for rules in get_args(Rules)}
        others = {
            f"rules={rules} runner={runner}": replace(self, rules=rules, runner=runner, thought=thoughts[rules])
            for rules, runner in ways
        }
        return extractors(others, problems, answers)


def _notes(problem: Problem) -> Json:
    """Return a question's task and its contest problem, which questions of both tasks may share."""
    title = problem.row.get("question_title")
    return {"task": livebench.task(problem), **({"problem": title} if title and isinstance(title, str) else {})}


def _unjudged(problem: Problem, answer: Answer, why: str) -> Score:
    """Leave a question without tests out; one whose tests are damaged is unscored, and counts as missing."""
    if isinstance(why, Unreadable):
        return Score(answer.id, None, answer.sample, reason=str(why), notes=_notes(problem))
    return Score(answer.id, None, answer.sample, reason=f"left out: {why}", notes=_notes(problem) | {"left_out": why})


def _score(problem: Problem, question: Question, answer: Answer, verdict: Verdict) -> Score:
    notes = {**_notes(problem), "sandbox": verdict.sandbox}
    if question.dropped:
        notes["tests"] = {"present": len(question.tests), "of": len(question.tests) + question.dropped}
    return Score(answer.id, verdict.value, answer.sample, verdict.reading, verdict.reason, notes)


def _lacking(scores: Sequence[Score]) -> Json:
    """Return how many questions lack tests of LiveBench's, how many tests, how many such questions were passed, and
    each question's tests.
    """
    lacking = {score.id: score.notes["tests"] for score in scores if "tests" in score.notes}
    return {
        "questions": len(lacking),
        "tests": sum(tests["of"] - tests["present"] for tests in lacking.values()),
        "passed": len({score.id for score in scores if "tests" in score.notes and score.value == 1.0}),
        "items": {key: f"{tests['present']} of {tests['of']}" for key, tests in lacking.items()},
    }
