"""Answers of many shapes with their right verdicts: which part of a text is the program, for HumanEval and MBPP.

Each right answer is wrong under another way to read it, and each wrong one right: RIGHT adds up, WRONG counts.
"""

import time

import pytest

from evaluators.humaneval import HumanEval
from evaluators.mbpp import MBPP
from m3_exp.scoring.evaluate import evaluate
from m3_exp.scoring.fences import Fence, fences
from m3_exp.scoring.programs import GUARD, clean, readings, script_readings
from m3_exp.scoring.sandbox.reading import COMPLETE, LACKING, PARTIAL, graded
from m3_exp.types import Answer, Problem, Score

PROMPT = (
    "from typing import List\n\n\ndef total(values: List[int]) -> int:\n"
    '    """ Return the sum of the values, 0 for none.\n    >>> total([1, 2])\n    3\n    """\n'
)
HUMANEVAL = Problem(
    "Own/0",
    {
        "task_id": "Own/0",
        "prompt": PROMPT,
        "entry_point": "total",
        "canonical_solution": "    return sum(values)\n",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
    },
)
MBPP_ITEM = Problem(
    "1",
    {
        "task_id": 1,
        "text": "Write a function total to add up a list.",
        "code": "def total(v):\n    return sum(v)",
        "test_list": ["assert total([1, 2]) == 3", "assert total([]) == 0"],
        "test_setup_code": "",
    },
)

RIGHT = "def total(values):\n    return sum(values)\n"
WRONG = "def total(values):\n    return len(values)\n"
BODY = "    result = 0\n    for value in values:\n        result += value\n    return result\n"
USE = "assert total([1, 2]) == 3\nprint(total([4]))\n"
HELPER = "def add(a, b):\n    return a + b\n"
HELPED = "from functools import reduce\n\ndef total(values):\n    return reduce(add, values, 0)\n"
IMPORT = "import functools\nimport operator\n"
IMPORTED = "def total(values):\n    return functools.reduce(operator.add, values, 0)\n"
DOCUMENTED = 'def total(values):\n    """Add.\n\n    ```\n    >>> 1\n    ```\n    """\n    return sum(values)\n'
EARLY = "def total(values):\n    if not values:\n        return 0\n"


def fence(code: str, info: str = "python", marks: str = "```") -> str:
    return f"{marks}{info}\n{code.rstrip()}\n{marks}\n"


# name, answer, verdict in the paper's text mode, verdict in chat mode; both benchmarks.
BOTH: list[tuple[str, str, int, int]] = [
    ("a byte order mark", f"\ufeff{RIGHT}", 1, 1),
    ("a quoted fence", "".join(f"> {line}\n" for line in fence(RIGHT).split("\n")), 1, 1),
    ("a quoted fence after prose", "So:\n\n" + "".join(f"> {line}\n" for line in fence(RIGHT).split("\n")), 1, 1),
    ("bare", RIGHT, 1, 1),
    ("one fence", fence(RIGHT), 1, 1),
    ("prose around a fence", "Here it is:\n\n" + fence(RIGHT) + "\nIt adds them up.", 1, 1),
    ("no language", "Sure.\n" + fence(RIGHT, ""), 1, 1),
    ("py", fence(RIGHT, "py"), 1, 1),
    ("Python", fence(RIGHT, "Python"), 1, 1),
    ("python3", fence(RIGHT, "python3"), 1, 1),
    ("a space before the language", fence(RIGHT, " python"), 1, 1),
    ("a title after the language", fence(RIGHT, 'python title="total.py"'), 1, 1),
    ("tildes", fence(RIGHT, "python", "~~~"), 1, 1),
    ("four backticks", fence(RIGHT, "python", "````"), 1, 1),
    ("four backticks around three", "````markdown\n" + fence(RIGHT) + "````\n", 1, 1),
    ("CRLF", ("Here:\n" + fence(RIGHT)).replace("\n", "\r\n"), 1, 1),
    ("indented in a list", "1. Add them:\n\n   " + fence(RIGHT).replace("\n", "\n   "), 1, 1),
    ("after a list's number", "1. ```python\n   " + RIGHT.replace("\n", "\n   ").rstrip() + "\n   ```\n", 1, 1),
    ("closing fence only", RIGHT + "```\n", 1, 1),
    ("closing fence and prose", RIGHT + "```\nIt adds them up.", 1, 1),
    ("closing fence, then a use in a fence", RIGHT + "```\nUse:\n" + fence(USE), 1, 1),
    ("closing fence, then a use without a language", RIGHT + "```\nUse:\n" + fence(USE, ""), 1, 1),
    ("import, then a closing fence", "import math\n\n" + RIGHT + "```", 1, 1),
    ("imports, closing fence, the function", IMPORT + "```\nThen:\n" + fence(IMPORTED), 1, 1),
    ("opening fence only", "Here:\n```python\n" + RIGHT, 1, 1),
    ("opening fence only, no language", "Here:\n```\n" + RIGHT, 1, 1),
    ("a use first", "As in\n" + fence(USE) + "write\n" + fence(RIGHT), 1, 1),
    ("a use last", fence(RIGHT) + "Then:\n" + fence(USE), 1, 1),
    ("a use that imports it last", fence(RIGHT) + fence("from solution import total\nprint(total([1]))"), 1, 1),
    ("a test class last", fence(RIGHT) + fence("import unittest\nclass T(unittest.TestCase):\n    pass"), 1, 1),
    ("a shell fence first", fence("pip install numpy", "bash") + fence(RIGHT), 1, 1),
    ("output in a fence last", fence(RIGHT) + "prints\n" + fence("3", ""), 1, 1),
    ("a stub first", fence("def total(values):\n    pass") + "filled in:\n" + fence(RIGHT), 1, 1),
    ("a stub last", fence(RIGHT) + fence('def total(values):\n    """Doc."""\n    ...\n\ntotal([1])'), 1, 1),
    ("a stub that raises", fence("def total(v):\n    raise NotImplementedError('todo')") + fence(RIGHT), 1, 1),
    ("a wrong draft first", fence(WRONG) + "No, that counts them.\n" + fence(RIGHT), 0, 1),
    ("a wrong variant last", fence(RIGHT) + "This would be wrong:\n" + fence(WRONG), 1, 0),
    ("a wrong draft, then a cut answer", fence(WRONG) + "Better:\n```python\n" + RIGHT, 0, 1),
    ("an answer, then a cut variant", fence(RIGHT) + "Or:\n```python\ndef total(values):\n    if (", 1, 1),
    ("wrong draft unmarked, answer marked", fence(WRONG, "") + fence(RIGHT), 1, 1),
    ("helper in one fence, function in the next", fence(HELPER) + "then\n" + fence(HELPED), 1, 1),
    ("function first, helper after it", fence(HELPED) + "with\n" + fence(HELPER), 1, 1),
    ("imports in a fence of their own", fence(IMPORT) + "and\n" + fence(IMPORTED), 1, 1),
    ("imports, draft, answer", fence(IMPORT) + fence(WRONG) + fence(IMPORTED), 0, 1),
    ("a draft, imports, answer", fence(WRONG) + fence(IMPORT) + fence(IMPORTED), 0, 1),
    ("a draft, answer, its helper", fence(WRONG) + fence(HELPED) + fence(HELPER), 0, 1),
    ("a fence in the docstring", fence(DOCUMENTED), 1, 1),
    ("a fence in the docstring, cut", "```python\n" + DOCUMENTED, 1, 1),
    ("a fence at the margin of a string", fence(RIGHT + 'DOC = """\n```\nx\n```\n"""\n' + "LAST = total([1])"), 1, 1),
    ("an inline fence in a string", fence('MARK = "```"\n' + RIGHT), 1, 1),
    ("a guard and a run", fence(RIGHT + '\nif __name__ == "__main__":\n    print(total([1]))'), 1, 1),
    ("prints The answer is", RIGHT.replace("return", 'print("The answer is:", 1)\n    return'), 1, 1),
    ("prints it in a fence", fence(RIGHT.replace("return", 'print("The solution is: x")\n    return')), 1, 1),
    ("a comment in the function", RIGHT.replace("return", "# Example usage: total([1])\n    return"), 1, 1),
    ("a comment after an early return", fence(EARLY + "    # Example usage\n    return sum(values)\n"), 1, 1),
    ("a comment at the margin after it", fence(EARLY + "# Test examples\n    return sum(values)\n"), 1, 1),
    ("a comment at the end of a line", RIGHT.replace("return", "s = 0  # Example usage of s\n    return s +"), 1, 1),
    ("a string with the guard", fence("def total(values):\n    g = '" + GUARD + "'\n    return sum(values)\n"), 1, 1),
    ("a string with the response mark", "MARK = '### Response:'\n\n" + RIGHT, 1, 1),
    ("a comment with the response mark", "# as in ### Response:\n" + HELPER + "\n" + HELPED, 1, 1),
    ("cleaning takes the helper away", HELPER + "# The answer is: below\n" + HELPED, 1, 1),
    ("a tab in a string", RIGHT.replace("sum(values)", "sum(values) + len('\t') - 1"), 1, 1),
    ("a tab in a string of a fence", fence(RIGHT.replace("sum(values)", "sum(values) + len('\t') - 1")), 1, 1),
    ("tabs as indentation", RIGHT.replace("    ", "\t"), 1, 1),
    ("an assignment", fence(IMPORT) + fence("total = lambda v: functools.reduce(operator.add, v, 0)"), 1, 1),
    ("a name from the standard library", fence("from builtins import sum as total"), 1, 1),
    ("a class", fence("class total:\n    def __new__(cls, values):\n        return sum(values)"), 1, 1),
    ("in an if", fence("if len('a'):\n    def total(v): return sum(v)\nelse:\n    total = None"), 1, 1),
    ("in a try", fence("try:\n    import numpy\nexcept ImportError:\n    numpy = None\n" + RIGHT), 1, 1),
    ("global", fence("def define():\n    global total\n    def total(v): return sum(v)\ndefine()"), 1, 1),
    ("exec", fence("exec('def total(v): return sum(v)')"), 1, 1),
    ("async is no sum", fence("async def total(v):\n    return sum(v)"), 0, 0),
    ("decorated", fence("import functools\n@functools.cache\ndef cached():\n    return 0\n" + RIGHT), 1, 1),
    ("a loop over names", fence("for total in [sum]:\n    pass"), 1, 1),
    ("a walrus", fence("if (total := sum):\n    pass"), 1, 1),
    ("a use that fails, announced", fence(RIGHT + "\n# Example usage\nn = input()\nprint(total([n]))"), 1, 1),
    ("a draft, then that", fence(WRONG) + fence(RIGHT + "\n# Example usage\nn = input()\nprint(total([n]))"), 0, 1),
    ("the rest of an opened fence's line", "python\n" + RIGHT + "```\n", 1, 1),
    ("that without an end", "python\n" + RIGHT, 1, 1),
    ("an end token after the fence", fence(WRONG) + "Better:\n" + fence(RIGHT).rstrip() + "<|im_end|>", 0, 1),
    ("prose after the closing fence", fence(RIGHT, "py").rstrip() + "This adds them up.", 1, 1),
    ("prose before the opening fence", "Answer: " + fence(RIGHT, ""), 1, 1),
    ("Markdown with two fences inside", "```markdown\nHi\n" + fence(WRONG) + "or\n" + fence(RIGHT) + "```\n", 0, 1),
    ("the same with four backticks", "````md\nHi\n" + fence(WRONG) + "or\n" + fence(RIGHT) + "````\n", 0, 1),
    ("a function in two fences", fence("def total(v):\n    s = sum(v)") + "and\n" + fence("    return s"), 1, 1),
    ("a comment on examples first", "# Example usage: total([1])\n" + RIGHT, 1, 1),
    ("a docstring on examples", RIGHT.replace("return", '"""# Example usage"""\n    return'), 1, 1),
    ("the guard in a comment, then a helper", HELPED + "# no " + GUARD + " is needed\n" + HELPER, 1, 1),
    ("the guard before the function", HELPER + GUARD + "\n    print(1)\n" + HELPED, 1, 1),
    ("another name", fence(RIGHT.replace("total", "add_up")), 0, 0),
    ("a method", fence("class Solution:\n    def total(self, v):\n        return sum(v)"), 0, 0),
    ("prose only", "I am sorry, I cannot.", 0, 0),
    ("nothing", "", 0, 0),
    ("a use only", fence(USE), 0, 0),
    ("a wrong program", fence(WRONG), 0, 0),
    ("two wrong programs", fence(WRONG) + fence(WRONG), 0, 0),
    ("a null byte", fence(RIGHT + "\0"), 0, 0),
    ("a stub alone", fence("def total(values):\n    pass"), 0, 0),
]
# What only HumanEval's prompt makes a program of.
BODIES: list[tuple[str, str, int, int]] = [
    ("a body", BODY, 1, 1),
    ("a body, closing fence", BODY + "```\n", 1, 1),
    ("a body, closing fence, a use", BODY + "```\nUse:\n" + fence(USE), 1, 1),
    ("a body in a fence", fence(BODY), 1, 1),
    ("a body in an unmarked fence", "Complete it with\n" + fence(BODY, ""), 1, 1),
    ("a body in a fence, a use", fence(BODY) + "For example\n" + fence("x = total([1])\nprint(x)"), 1, 1),
    ("a body without its first indentation", BODY.lstrip(), 1, 1),
    ("a body at the margin, in a fence", fence("return sum(values)"), 1, 1),
    ("a body that prints The answer is", BODY.replace("return", 'print("The answer is: 3")\n    return'), 1, 1),
    ("a wrong body, a right function", fence("    return 1") + fence(RIGHT), 1, 1),
    ("the prompt, then a body", PROMPT + BODY, 1, 1),
    ("the prompt in a fence, filled in", fence(PROMPT + BODY), 1, 1),
    ("the prompt as it was, then the function", fence(PROMPT) + fence(RIGHT), 1, 1),
    ("a function that needs the prompt's import", fence("def total(v: List[int]) -> int:\n    return sum(v)"), 1, 1),
    ("a future import", fence("from __future__ import annotations\n" + RIGHT), 1, 1),
    ("a nested function in a body", "    def go(v):\n        return sum(v)\n    return go(values)\n```\n", 1, 1),
]


def verdicts(evaluator: HumanEval | MBPP, problem: Problem, texts: list[str]) -> list[Score]:
    return evaluator.score([problem] * len(texts), [Answer(problem.id, text) for text in texts])


@pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])
@pytest.mark.parametrize("name", ["humaneval", pytest.param("mbpp", marks=pytest.mark.slow)])
def test_answers_of_many_shapes(name: str, chat: bool) -> None:
    human = name == "humaneval"
    table = BOTH + BODIES if human else BOTH
    evaluator = HumanEval(chat_template=chat) if human else MBPP(chat_template=chat)
    scores = verdicts(evaluator, HUMANEVAL if human else MBPP_ITEM, [row[1] for row in table])
    wrong = [
        (row[0], score.value, score.extracted, score.reason)
        for row, score in zip(table, scores, strict=True)
        if score.value != (row[3] if chat else row[2])
    ]
    assert wrong == []


def test_what_the_papers_script_makes_of_the_same_answers() -> None:
    """`score_paper_reading`: the paper's reading is judged beside the one that was chosen, where it is Python."""
    texts = [fence(RIGHT) + fence(WRONG), fence(WRONG) + fence(RIGHT), fence(RIGHT), RIGHT + "```\n", fence(USE) + "x"]
    answers = [Answer("1", text, sample) for sample, text in enumerate(texts)]
    scores, result = evaluate(MBPP(chat_template=True), [MBPP_ITEM], answers)
    assert [score.value for score in scores] == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert [score.notes.get("paper") for score in scores] == [1.0, None, None, None, None]
    assert result.details["score_paper_reading"] == pytest.approx(100 * 2 / 5)
    assert "score_paper_reading" not in MBPP(extractor="none").summarize(scores).details


def test_the_text_as_it_is() -> None:
    texts = [RIGHT, fence(RIGHT), "```python\n" + RIGHT]
    assert [score.value for score in verdicts(MBPP(extractor="none"), MBPP_ITEM, texts)] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("source", "grade"),
    [
        ("def f(x): return g(x)\ndef g(x): return x", COMPLETE),
        ("def f(x): return g(x)\nfrom math import gcd as g", COMPLETE),
        ("class f: pass\ng = 1", COMPLETE),
        ("f, (g, *h) = 1, (2, 3)", COMPLETE),
        ("try:\n    import json as f\nexcept ImportError:\n    pass\nwith open('x') as g: pass", COMPLETE),
        ("match 1:\n    case [f, *g]: pass", COMPLETE),
        ("[g := 1 for x in [1]]\nfor f in [1]: pass", COMPLETE),
        ("def f(x): return missing(x)\ng = 1", PARTIAL),
        ("def f(x): print(x)\ng = 1", PARTIAL),
        ("from math import *", PARTIAL),
        ("def h():\n    global f, g\n    f = g = 1", PARTIAL),
        ("exec('f = g = 1')", PARTIAL),
        ("f = 1", LACKING),
        ("def f(x): ...\ng = 1", LACKING),
        ("from solution import f\ng = 1", LACKING),
        ("from . import f\ng = 1", LACKING),
        ("def h():\n    f = g = 1", LACKING + 1),
        ("class H:\n    def f(self): pass\n    g = 1", LACKING + 1),
        ("[f for f in [1]]\nlambda g: g", LACKING + 1),
        ("f: int\nprint(g)", LACKING + 1),
        ("", LACKING + 1),
    ],
)
def test_what_a_program_defines(source: str, grade: int) -> None:
    assert graded(source, ["f", "g"]) == grade


def test_fences() -> None:
    text = "a\n``` Python3\nx = 1\n```\n- ~~~\n  y\n    z\n  ~~~\n````md\n```\n````\n`` `no` ``\n```py\nlast"
    assert fences(text) == (
        Fence("Python3", "x = 1", 1, 3),
        Fence("", "y\n  z", 4, 7),
        Fence("md", "```", 8, 10),
        Fence("py", "last", 12, 14),
    )
    assert [fence.is_python for fence in fences(text)] == [True, True, False, True]


HOSTILE = [
    "(" * 20_000, "-" * 20_000 + "1", "x" + "+x" * 20_000, "a" + ".a" * 20_000, "9" * 20_000, "\0" * 1000,
    "```\n" * 20_000, "```python\n" + "'''\n```\n" * 5_000, "x" * 1_000_000, "\n" * 200_000, " " * 1_000_000,
    "\t" * 1_000_000, "`" * 1_000_000, '"' * 1_000_000, "# Example usage\n" * 10_000, "{" * 3000, "f'{" * 3000,
    "\ud800", "a;" * 100_000, "if 1:\n" + "\n".join(" " * i + "if 1:" for i in range(1, 700)), "\u2028" * 100_000,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("last", [False, True])
def test_hostile_answers_are_read_in_bounded_time_and_size(last: bool) -> None:
    """Before the sandbox, each in less than seconds and with no more than a few megabytes of programs."""
    for text in HOSTILE:
        start = time.monotonic()
        for programs in (
            readings(PROMPT, "total", clean(text), text, last=last),
            script_readings("total", clean(text), text, last=last),
        ):
            assert sum(len(program.source) for program in programs) <= 5_500_000
            assert len({program.source for program in programs}) == len(programs) <= 500
            assert "paper" in [program.reading for program in programs]
        assert time.monotonic() - start < 10, text[:20]


def test_hostile_answers_are_wrong_answers() -> None:
    texts = [*HOSTILE, "```python\n" + RIGHT + "```\n" + "(" * 20_000]
    scores = verdicts(MBPP(timeout=2.0), MBPP_ITEM, texts)
    assert [(score.value, score.reason) for score in scores if score.value is None] == []
    assert [score.value for score in scores] == [0.0] * len(HOSTILE) + [1.0]
