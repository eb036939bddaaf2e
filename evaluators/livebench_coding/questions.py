"""A question's tests and an answer -> a task for the sandbox; and programs that know the answers, to test the grader.

The right outputs go to the grader only: what the candidate's box gets is the program and the harness.
"""

import base64
import json
import pickletools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evaluators.livebench_coding import grading
from m3_exp.scoring.programs import Program
from m3_exp.scoring.sandbox.judge import Task
from m3_exp.scoring.scripts import is_python

Rules = Literal[2024, 2025]
Runner = Literal["livebench", "script"]
NO_PROGRAM = "no program"  # the reading of an answer in which nothing was found
_HARNESS = Path(__file__).with_name("harness.py")
_TEXT_OPCODES = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_OTHER_OPCODES = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}
_LARGEST = 1 << 30  # bytes of a question's tests, unpacked
_FAILS = "raise ValueError('the answer holds no program')"


@dataclass(frozen=True)
class Question:
    """What an answer is judged by: the tests as (input, output), and the method's name, None for programs on stdin.

    `dropped` is how many tests of LiveBench's the row says (`tests_dropped`) that it lacks.
    """

    tests: tuple[tuple[str, str], ...]
    method: str | None
    partial_solution: str
    dropped: int = 0


class Unreadable(str):
    """Why a question's tests, which are there, are of no use: its answers are unscored, not left out."""


def read(row: Mapping[str, Any]) -> Question | str:
    """Return a question from its row, public tests first, or why nobody can judge answers to it."""
    try:
        tests = [test for kind in ("public", "private") for test in _tests(row.get(f"{kind}_test_cases"))]
        metadata = row.get("original_json") or {}
        method = json.loads(metadata.get("metadata") or "{}").get("func_name")
        if method is not None:
            for given, right in tests:
                grading.arguments(given, 2024), grading.wanted(right, 2024)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, zlib.error) as error:
        return Unreadable(f"its tests cannot be read ({error}): the item file is damaged")
    if not tests:
        return "no tests"
    dropped = row.get("tests_dropped") or 0
    return Question(tuple(tests), method, str(row.get("partial_solution") or ""), max(0, dropped))


def _tests(packed: Any) -> list[tuple[str, str]]:
    """Return tests from their column: JSON text, or LiveBench's base64 of zlib of a pickled JSON text."""
    if not packed:
        return []
    rows = json.loads(packed if packed.lstrip().startswith("[") else _pickled_text(packed))
    return [(str(test["input"]), str(test["output"])) for test in rows]


def _pickled_text(packed: str) -> str:
    """Return the text in a pickle of one text, without unpickling it: a pickle is a program.

    Raises:
        ValueError: the pickle holds anything else.
    """
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(base64.b64decode(packed, validate=True), _LARGEST)
    operations = [(opcode.name, value) for opcode, value, _ in pickletools.genops(data)]
    texts = [value for name, value in operations if name in _TEXT_OPCODES]
    if len(texts) != 1 or not {name for name, _ in operations} <= _TEXT_OPCODES | _OTHER_OPCODES:
        raise ValueError("a pickle of something else than one text")
    return str(texts[0])


# ----------------------------------------------------------------------------------------------------------- answers


def extract(text: str, rules: Rules) -> Program:
    """Return the program in an answer by LiveBench's rule of a year, and how it was found.

    fence          between two lines with ```: the first two (2024), the last two (2025)
    backticks      fewer such lines, and the text begins and ends with `: what is between
    closing fence  2025: the only such line is the last one: what stands before it
    text           2025: fewer such lines: the whole text
    no program     what is found is empty; the last two are that in 2024
    """
    lines = (text if rules == 2024 else text.rstrip()).split("\n")
    marked = [number for number, line in enumerate(lines) if "```" in line]
    if len(marked) >= 2:
        start, end = marked[:2] if rules == 2024 else marked[-2:]
        program = Program("fence", "\n".join(lines[start + 1 : end]))
    elif len(text) > 1 and text[0] == text[-1] == "`":
        program = Program("backticks", text[1:-1])
    elif rules == 2024:
        program = Program(NO_PROGRAM, "")
    elif marked == [len(lines) - 1]:
        program = Program("closing fence", "\n".join(lines[:-1]))
    else:
        program = Program("text", text.rstrip())
    return program if program.source else Program(NO_PROGRAM, "")


def whole_program(question: Question, text: str, rules: Rules) -> Program:
    """Return an answer as a program, after the partial solution where the question has one.

    In 2024 an answer that holds no program fails, and the partial solution is always put before one; in 2025 only
    where the program does not begin with it.
    """
    program, partial = extract(text, rules), question.partial_solution
    if rules == 2024 and program.reading == NO_PROGRAM:
        return replace(program, source=_FAILS)
    if partial and (rules == 2024 or not program.source.startswith(partial)):
        return replace(program, source=f"{partial}\n{program.source}")
    return program


def task(question: Question, program: Program, rules: Rules, runner: Runner, seconds: float) -> Task:
    """Return what the sandbox needs: the program in its harness, with `answer` to be called, and the tests."""
    load = f"program(_SOURCE, {seconds!r}, {runner!r}, {rules})"
    if question.method is not None:
        load = f"method(_SOURCE, {seconds!r}, {question.method!r}, {rules})"
    harness = f"{_HARNESS.read_text()}\n_SOURCE = {program.source!r}\nanswer = {load}\n"
    tests = json.dumps(question.tests)
    return Task(
        programs=(Program(program.reading, harness),),
        entry_point="answer",
        prelude=Path(grading.__file__).read_text(),
        test=f"check({tests!r}, answer, {question.method is not None}, {rules})\n",
    )


# ------------------------------------------------------------------------------------------ programs that know it all


def gold(question: Question, rules: Rules) -> str | None:
    """Return an answer whose program looks every output up; None where the partial solution cannot be gone on with."""
    return _answer(question, rules, [right for _, right in question.tests])


def wrong(question: Question, rules: Rules) -> str | None:
    """Return an answer whose program gives the same useless output to every test."""
    return _answer(question, rules, [json.dumps("no such output")] * len(question.tests))


def _answer(question: Question, rules: Rules, outputs: Sequence[str]) -> str | None:
    inputs = [given for given, _ in question.tests]
    if question.method is not None:
        inputs = [json.dumps(grading.arguments(given, rules)) for given in inputs]
    table = dict(zip(inputs, outputs, strict=True))
    lines = ["import json, sys", f"TABLE = json.loads({json.dumps(table)!r})"]
    if question.method is None:
        lines += ["print(TABLE[sys.stdin.read()])"]
    else:
        lines += ["class Solution:", f"    def {question.method}(self, *values):"]
        lines += ["        return json.loads(TABLE[json.dumps(values)])"]
    start = _continuation(question.partial_solution)
    return None if start is None else "```python\n" + "\n".join([*start, *lines]) + "\n```"


def _continuation(partial: str) -> list[str] | None:
    """Return the lines that end a partial solution's docstring, call or last block, so that something can follow."""
    if not partial:
        return []
    for closing in ([], ['"""'], ["0)"]):
        for depth in range(48):
            lines = [*closing, " " * depth + "pass"]
            if is_python("\n".join([partial, *lines])):
                return lines
    return None
