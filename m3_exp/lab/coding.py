"""The functions of `functions.py` in two more schemas: MBPP's (a text and three assertions) and LiveBench coding's.

LiveBench coding has two tasks: a whole solution (a method of a class, or a program that reads its input), and the rest
of a solution whose first lines are given. The parts of an example are those of `functions.py`: a pair of neighbouring
operations that a test item of one benchmark asks for is in no training example of another.
"""

import json
import random

from m3_exp.lab.functions import Function, Sizes, draw_function, sentence
from m3_exp.lab.split import Example, Side
from m3_exp.types import Json

_SIZES = Sizes(cases=3, numbers=(4, 6), words=(3, 4))
_SHORT_SHARE = 0.5  # functions of two operations, in LiveBench's schema
_READS = {"xs": "xs = [int(x) for x in input().split()]", "s": "s = input()", "ws": "ws = input().split()"}
_TOLD = {"xs": "integers", "s": "a text", "ws": "words"}
_RELEASE = {"livebench_release_date": "2024-11-25", "livebench_removal_date": "", "category": "coding"}


def draw_mbpp(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one function in MBPP's schema."""
    function = draw_function(rng, wanted, _SIZES)
    if function is None:
        return None
    head = f"def {function.name}({function.takes}):\n"
    text = f"Write a function to {function.wording}."
    row = {
        "text": text,
        "code": head + function.body("    "),
        "test_list": [f"assert {function.name}({given!r}) == {result!r}" for given, result in function.cases],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    return Example(row, "\n" + head + function.body("\t").rstrip("\n"), function.parts, function.wording)


def draw_livebench(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one task in LiveBench coding's schema: a method, a program, or the missing lines of a method."""
    make = rng.choice((_method, _program, _rest_of_method, _rest_of_method))
    function = draw_function(rng, wanted, _SIZES, _SHORT_SHARE)
    return None if function is None else make(function)


def _method(function: Function) -> Example:
    head = _head(function)
    turn = (
        "Solve this task in Python. Write the whole class in one ```python block.\n"
        f"Task: {sentence(function.wording)}\n{head}Answer:\n"
    )
    return _livebench("LCB_generation", function, turn, head + function.body("        "), _arguments(function), "")


def _program(function: Function) -> Example | None:
    """Ask for a program that reads one line and prints its result; None where that result may print as nothing."""
    printed = [" ".join(map(str, result)) if isinstance(result, list) else str(result) for _, result in function.cases]
    if any(not line or line != line.strip() or "  " in line for line in printed):
        return None
    turn = (
        "Solve this task in Python. Write the whole program in one ```python block.\n"
        f"Task: Read {_TOLD[function.takes]} from one line of input. {sentence(function.wording)} Print the result.\n"
        "Answer:\n"
    )
    given = [" ".join(map(str, value)) if isinstance(value, list) else value for value, _ in function.cases]
    cases = [_case(line, result, "stdin") for line, result in zip(given, printed, strict=True)]
    star = "*" if function.gives in ("xs", "ws") else ""
    code = "\n".join([_READS[function.takes], *function.steps, f"print({star}{function.result})\n"])
    return _livebench("LCB_generation", function, turn, code, cases, "")


def _rest_of_method(function: Function) -> Example:
    head = _head(function)
    first = f"        {function.steps[0]}"
    turn = (
        "Complete this Python code. Write only the missing lines in one ```python block.\n"
        f"Task: {sentence(function.wording)}\n{head}{first}\nAnswer:\n"
    )
    rest = function.body("        ").removeprefix(f"{first}\n")
    return _livebench("coding_completion", function, turn, rest, _arguments(function), head + first)


def _head(function: Function) -> str:
    return f"class Solution:\n    def {function.name}(self, {function.takes}):\n"


def _arguments(function: Function) -> list[dict[str, str]]:
    return [_case(json.dumps(given), json.dumps(result), "functional") for given, result in function.cases]


def _case(given: str, result: str, kind: str) -> dict[str, str]:
    return {"input": given, "output": result, "testtype": kind}


def _livebench(
    task: str, function: Function, turn: str, code: str, cases: list[dict[str, str]], partial: str
) -> Example:
    functional = cases[0]["testtype"] == "functional"
    answer = f"```python\n{code}```"
    metadata = {"func_name": function.name} if functional else {}
    row: Json = {
        **_RELEASE,
        "task": task,
        "turns": [turn],
        "question_title": function.wording,
        "partial_solution": partial,
        "starter_code": _head(function) if functional else "",
        "public_test_cases": json.dumps(cases[:1]),
        "private_test_cases": json.dumps(cases[1:]),
        "original_json": {"metadata": json.dumps(metadata)},
        "reference_answer": answer,
    }
    return Example(row, answer, function.parts, f"{task}: {turn}")
