"""Questions to math-verify, answered in a child process that can be killed: see `math_worker`."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

from m3_exp.types import Answer, Score

CPU_SECONDS = 5  # of one question, as math-verify itself gives a parse or a comparison
WALL_SECONDS = 150.0  # the backstop, for a machine so loaded that CPU seconds do not come

_MISSING = "the package math-verify is not installed: pip install 'math-verify[antlr4_9_3]==0.9.*'"


@dataclass(frozen=True)
class Question:
    """Is `pred` equal to `gold` under a rule of `math_worker`?"""

    gold: str
    pred: str
    rule: str
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """`equal` is None where the question could not be answered, with the reason.

    `found` is the text of the answer that was compared, None where there was none in `pred`; `gold_found` likewise.
    """

    equal: bool | None
    found: str | None = None
    reason: str | None = None
    gold_found: bool = True

    def score(self, answer: Answer, gold: str) -> Score:
        """Return the verdict on an answer as its score; a gold text that the checker cannot read is no wrong answer."""
        if self.equal is None or not self.gold_found:
            return Score(answer.id, None, answer.sample, self.found, self.reason or f"no answer found in gold {gold!r}")
        missing = None if self.found is not None else "no answer found"
        return Score(
            answer.id,
            float(self.equal),
            answer.sample,
            self.found,
            None if self.equal else missing or f"gold is {gold}",
        )


_CANARY = Question("1", "1", "math_verify", {"targets": ("expr",), "boxed_first": False})


class _Died(Exception):
    """The child gave no reply; the message says why."""


class _Child:
    """One child process. Where it does not answer, `ask` raises `_Died`, and it is of no further use."""

    def __init__(self, seconds: int, wall: float) -> None:
        root = str(Path(__file__).resolve().parents[2])
        self._seconds, self._wall = seconds, wall
        self._process = subprocess.Popen(
            [sys.executable, "-m", "m3_exp.scoring.math_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": root, "PYTHONHASHSEED": "0"},
        )  # fmt: skip

    def close(self) -> None:
        self._process.kill()
        with contextlib.suppress(BrokenPipeError), self._process:  # a question may still be on its way
            pass  # its pipes are closed, and it is waited for

    def ask(self, question: Question) -> Verdict:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({**asdict(question), "seconds": self._seconds}) + "\n")
            stdin.flush()
        except OSError:
            raise _Died(self._cause()) from None
        if not select.select([stdout], [], [], self._wall)[0]:
            raise _Died(f"math-verify did not answer within {self._wall:g} s")
        line = stdout.readline()
        if not line.endswith("\n"):
            raise _Died(self._cause())
        return Verdict(**json.loads(line))

    def _cause(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGXCPU:
            return f"math-verify took more than {self._seconds} CPU seconds"
        return f"math-verify died ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


def judge(questions: Sequence[Question], seconds: int = CPU_SECONDS, wall: float = WALL_SECONDS) -> list[Verdict]:
    """Answer questions one after another in one child process, in order.

    One that ends the child, or takes more than `seconds` of CPU time, is asked once more, alone in a fresh child; where
    that fails as well, its verdict is None with the reason. Where a canary then fails too, the rest is not asked.
    """
    if find_spec("math_verify") is None:
        return [Verdict(None, reason=_MISSING)] * len(questions)
    verdicts: list[Verdict] = []
    while len(verdicts) < len(questions):
        with contextlib.closing(_Child(seconds, wall)) as child:
            try:
                while len(verdicts) < len(questions):
                    verdicts.append(child.ask(questions[len(verdicts)]))
            except _Died:
                verdicts.append(_alone(questions[len(verdicts)], seconds, wall))
        if verdicts[-1].equal is None and (broken := _alone(_CANARY, CPU_SECONDS, wall)).equal is not True:
            reason = f"math-verify does not work here: {broken.reason or 'it says that 1 is not 1'}"
            verdicts += [Verdict(None, reason=reason)] * (len(questions) - len(verdicts))
    return verdicts


def _alone(question: Question, seconds: int, wall: float) -> Verdict:
    with contextlib.closing(_Child(seconds, wall)) as child:
        try:
            return child.ask(question)
        except _Died as death:
            return Verdict(None, reason=f"{death}, twice")
