"""The functions of `functions.py` in two more schemas: MBPP's (a text and three assertions) and LiveBench coding's.

LiveBench coding has two tasks: a whole solution (a method of a class, or a program that reads its input), and the rest
of a solution whose first lines are given. The parts of an example are those of `functions.py`: a pair of neighbouring
operations that a test item of one benchmark asks for is in no training example of another.
"""

import json
import random
from typing import Any

from m3_exp.lab.functions import Function, Sizes, draw_function, sentence
from m3_exp.lab.split import Example, Side

_SIZES = Sizes(cases=3, numbers=(4, 6), words=(3, 4))
_SHORT_SHARE = 0.5  # functions of two operations, in LiveBench's schema
_READS = {"xs": "xs = [int(x) for x in input().split()]", "s": "s = input()", "ws": "ws = input().split()"}
_TOLD = {"xs": "integers", "s": "a text", "ws": "words"}
_RELEASE = {"livebench_release_date": "2024-11-25", "livebench_removal_date": "", "category": "coding"}


def draw_mbpp(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one function in MBPP's schema."""
    found = draw_function(rng, wanted, _SIZES)
    if found is None:
        return None
    head = f"def {found.name}({found.takes}):\n"
    text = f"Write a function to {found.wording}."
    row = {
        "text": text,
        "code": head + found.body("    "),
        "test_list": [f"assert {found.name}({given!r}) == {result!r}" for given, result in found.cases],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    return Example(row, "\n" + head + found.body("\t").rstrip("\n"), found.parts, found.wording)


def draw_livebench(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one task in LiveBench coding's schema: a method, a program, or the missing lines of a method."""
    make = rng.choice((_method, _program, _rest_of_method, _rest_of_method))
    found = draw_function(rng, wanted, _SIZES, _SHORT_SHARE)
    return None if found is None else make(found)


def _method(found: Function) -> Example:
    head = _head(found)
    turn = (
        "Solve this task in Python. Write the whole class in one ```python block.\n"
        f"Task: {sentence(found.wording)}\n{head}Answer:\n"
    )
    return _livebench("LCB_generation", found, turn, head + found.body("        "), _arguments(found), "")


def _program(found: Function) -> Example | None:
    """Ask for a program that reads one line and prints its result; None where that result may print as nothing."""
    printed = [" ".join(map(str, result)) if isinstance(result, list) else str(result) for _, result in found.cases]
    if any(not line or line != line.strip() or "  " in line for line in printed):
        return None
    turn = (
        "Solve this task in Python. Write the whole program in one ```python block.\n"
        f"Task: Read {_TOLD[found.takes]} from one line of input. {sentence(found.wording)} Print the result.\n"
        "Answer:\n"
    )
    given = [" ".join(map(str, value)) if isinstance(value, list) else value for value, _ in found.cases]
    cases = [_case(line, result, "stdin") for line, result in zip(given, printed, strict=True)]
    star = "*" if found.gives in ("xs", "ws") else ""
    code = "\n".join([_READS[found.takes], *found.steps, f"print({star}{found.result})\n"])
    return _livebench("LCB_generation", found, turn, code, cases, "")


def _rest_of_method(found: Function) -> Example:
    head = _head(found)
    first = f"        {found.steps[0]}"
    turn = (
        "Complete this Python code. Write only the missing lines in one ```python block.\n"
        f"Task: {sentence(found.wording)}\n{head}{first}\nAnswer:\n"
    )
    rest = found.body("        ").removeprefix(f"{first}\n")
    return _livebench("coding_completion", found, turn, rest, _arguments(found), head + first)


def _head(found: Function) -> str:
    return f"class Solution:\n    def {found.name}(self, {found.takes}):\n"


def _arguments(found: Function) -> list[dict[str, str]]:
    return [_case(json.dumps(given), json.dumps(result), "functional") for given, result in found.cases]


def _case(given: str, result: str, kind: str) -> dict[str, str]:
    return {"input": given, "output": result, "testtype": kind}


def _livebench(task: str, found: Function, turn: str, code: str, cases: list[dict[str, str]], partial: str) -> Example:
    functional = cases[0]["testtype"] == "functional"
    answer = f"```python\n{code}```"
    metadata = {"func_name": found.name} if functional else {}
    row: dict[str, Any] = {
        **_RELEASE,
        "task": task,
        "turns": [turn],
        "question_title": found.wording,
        "partial_solution": partial,
        "starter_code": _head(found) if functional else "",
        "public_test_cases": json.dumps(cases[:1]),
        "private_test_cases": json.dumps(cases[1:]),
        "original_json": {"metadata": json.dumps(metadata)},
        "reference_answer": answer,
    }
    return Example(row, answer, found.parts, f"{task}: {turn}")
