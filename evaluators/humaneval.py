"""HumanEval: Python functions from docstrings, as the M3 paper scores them (its `test_human_eval`)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from m3_exp.scoring.items import ItemSet, load
from m3_exp.scoring.programs import clean, preamble, readings
from m3_exp.scoring.sandbox.judge import Limits, Task, judge
from m3_exp.scoring.summary import mean_result
from m3_exp.types import Answer, Problem, Result, Sampling, Score

ITEMS = ItemSet(
    benchmark="humaneval",
    columns={"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "test": str},
    file="humaneval/HumanEval.jsonl.gz",
    rows=164,
    content="c50a2a7c563479abbecc2e7f5a9c4f52bf78c92451d44788b0952828907091a2",
    origin="data/HumanEval.jsonl.gz of the GitHub repository openai/human-eval",
    id_column="task_id",
    package_file=("human_eval", "data/HumanEval.jsonl.gz"),
)

_PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\n"
    "### Instruction:\nCreate a Python script for this problem:\n{}\n\n### Response:"
)


@dataclass(frozen=True)
class HumanEval:
    """Python functions to be written from a signature and a docstring, judged by running hidden tests.

    Measured: the share of items whose program passes all tests (pass@1).
    Items: OpenAI's 164, fields `task_id`, `prompt`, `entry_point`, `canonical_solution`, `test`.
    Prompt: the paper's Alpaca template with three newlines before "### Instruction:", four spaces turned into a tab;
        greedy, at most 2048 tokens, no stops.
    Extraction: the paper's post-processing (`m3_exp.scoring.programs.clean`), then the first reading that is valid
        Python (`readings`): the paper's own, prompt + text, comes first. Which one it was is a score's `extracted`; how
        many there were of each is in the result's details, and so is `pass@1` with the paper's own reading alone.
    Verdict: computed in a process where the model's program never ran (`m3_exp.scoring.sandbox`), `timeout` seconds
        of CPU time as in the human-eval package (3.0), memory limited; no network, no files, no processes.
    Pitfalls: only the standard library can be imported. Scores move by tens of points with the reading: the paper's
        own gives every answer that is a bare function body 0.
    """

    name: ClassVar[str] = "humaneval"
    version: ClassVar[str] = "1"
    skill: ClassVar[str] = "code"

    max_tokens: int = 2048
    timeout: float = 3.0

    @property
    def sampling(self) -> Sampling:
        return Sampling(max_tokens=self.max_tokens)

    def problems(self, items: str) -> list[Problem]:
        return load(ITEMS, items)

    def prompt(self, problem: Problem) -> str:
        return _PROMPT.format(str(problem.row["prompt"]).replace("    ", "\t"))

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        tasks = [task(problem, answer.text) for problem, answer in zip(problems, answers, strict=True)]
        verdicts = judge(tasks, Limits(cpu_seconds=self.timeout))
        return [
            Score(answer.id, verdict.value, answer.sample, verdict.reading, verdict.reason)
            for answer, verdict in zip(answers, verdicts, strict=True)
        ]

    def summarize(self, scores: Sequence[Score]) -> Result:
        counts = Counter(score.extracted for score in scores if score.extracted is not None)
        own = [Score(s.id, s.value if s.extracted == "paper" or s.value is None else 0.0, s.sample) for s in scores]
        paper = mean_result(self.name, "pass@1", own, {}).score
        details = {"readings": dict(sorted(counts.items())), "score_paper_reading": paper}
        return mean_result(self.name, "pass@1", scores, asdict(self), details)


def task(problem: Problem, text: str) -> Task:
    """Return what the sandbox needs to judge one answer: its readings as a program, and the trusted tests."""
    row = problem.row
    return Task(
        programs=readings(str(row["prompt"]), str(row["entry_point"]), clean(text)),
        entry_point=str(row["entry_point"]),
        prelude=preamble(str(row["prompt"]), str(row["entry_point"])),
        test=f"{row['test']}\ncheck({row['entry_point']})\n",
    )
