"""LiveBench coding's rules of 2024 and of 2025: what LiveBench's own code of each said of the same small answers.

The two columns of verdicts were read from LiveBench itself (commits a41783c, "April update (#179)", and its parent).
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluators.livebench_coding import LiveBenchCoding, grading, questions
from evaluators.livebench_coding.questions import Question
from m3_exp.config import evaluator as composed
from m3_exp.reporting.tables.footers import footer
from m3_exp.scoring.evaluate import evaluate, load_evaluator
from m3_exp.scoring.programs import Program
from m3_exp.scoring.sandbox.judge import Limits, judge
from m3_exp.types import Answer, EvaluatorSpec, M3Error
from tests.curved import framed
from tests.test_livebench_coding import ADD, DATA, SUM, fenced, needs_data, one, packed, question

READ = "n = int(input())\n"
PRINT = "print(sum(map(int, input().split())))"
OWN = READ + PRINT
LINE = "print(sum(map(int, stdin.readline().split())))"
MAIN = f"def main():\n    {READ}    {PRINT}\n"

# ------------------------------------------------------------------------------------------------------------ compared

# What a program writes, what is expected, right in 2024, in 2025.
OUTPUTS = [
    ("6", "6", True, True), ("6\n\n\n", "6", True, True), ("  6", "6", True, True), ("1 \n 2", "1\n2", True, True),
    ("1\n\n2", "1\n2", True, False), ("1\n2", "1\n\n2", True, False), ("1 2", "1  2", False, True),
    ("1\t2", "1 2", False, True), ("a b", "a  b", False, False), ("6.0", "6", True, True), ("6.", "6", True, True),
    ("06", "6", False, True), ("+6", "6", True, True), ("1e3", "1000", True, True), ("1_000", "1000", True, True),
    ("0.3333333", "0.33333333", True, False), ("0.50", "0.5", True, True), ("1.0 2.0", "1 2", False, True),
    ("50000000000000000", "50000000000000001", False, False), ("-12345678901", "-12345678902", True, False),
    ("nan", "nan", True, True), ("nan", "NaN", False, False), ("nan 1", "nan 1.0", False, False),
    ("inf", "Infinity", True, True), ("inf", "1e999", True, False), ("snan", "sNaN", False, False),
    ("1.0 x", "1 x", False, False), ("\uff16", "6", False, True), ("6\u00a0", "6", True, True),
    ("yes", "Yes", False, False),
    ("1\f2", "1\n2", True, False), ("1\r\n2", "1\n2", True, True), ("1\n2\n3", "1\n2", False, False),
    ("", "", True, True), ("", "x", False, False), ("0x6", "6", False, False), ("1,5", "1.5", False, False),
]  # fmt: skip

# What a method returns, what is expected as JSON, right in 2024, in 2025.
VALUES = [
    (3, "3", True, True), (3.0, "3", True, True), (True, "1", True, True), ("3", "3", False, False),
    ((1, 2), "[1, 2]", True, True), ([(1, 2)], "[[1, 2]]", False, False), ([(1, 2)], "[[[1, 2]]]", True, False),
    (3, "[3]", True, False), (3, "[4, 3]", False, False), ([1], "[[1], 2]", True, False), (None, "null", True, True),
    (0.1 + 0.2, "0.3", False, False), (complex(3), "3", False, True), ({1: 2}, '{"1": 2}', True, False),
    ({"1": 2}, '{"1": 2}', False, True), ({"a": 1}, '{"a": 1}', True, True), ({1, 2}, "[1, 2]", False, False),
    (range(2), "[0, 1]", False, False), (b"a", '"a"', False, False), ((), "[]", True, True),
]  # fmt: skip


@pytest.mark.parametrize(("found", "right", "in_2024", "in_2025"), OUTPUTS)
def test_outputs(found: str, right: str, in_2024: bool, in_2025: bool) -> None:
    assert grading.same_output(found, right, 2024) is in_2024
    assert grading.same_output(found, right, 2025) is in_2025


@pytest.mark.parametrize(("found", "right", "in_2024", "in_2025"), VALUES)
def test_values(found: object, right: str, in_2024: bool, in_2025: bool) -> None:
    assert grading.same_value(found, grading.wanted(right, 2024), 2024) is in_2024
    assert grading.same_value(found, grading.wanted(right, 2025), 2025) is in_2025


def test_objects_keep_their_keys_and_their_company_in_2025() -> None:
    assert grading.arguments('{"1": 2}\n3', 2024) == [{1: 2}]
    assert grading.arguments('{"1": 2}\n3', 2025) == [{"1": 2}, 3]


# ------------------------------------------------------------------------------------------------------------ programs

# A program that reads stdin (the sum of a line of numbers), right in 2024, in 2025.
PROGRAMS = [
    ("plain", OWN, True, True),
    ("exit()", OWN + "\nexit()\nprint(1)", False, True),
    ("exit(1)", OWN + "\nexit(1)", False, True),
    ("exit in a try", f"try:\n    {READ}    {PRINT}\n    exit()\nexcept Exception:\n    print(0)", False, True),
    ("exit imported", "from sys import exit\n" + OWN + "\nexit()", True, True),
    ("quit()", OWN + "\nquit()", False, False),
    ("sys.exit()", OWN + "\nsys.exit()", True, True),
    ("SystemExit", OWN + "\nraise SystemExit", True, True),
    ("return", OWN + "\nreturn", True, True),
    ("global", "c = 0\ndef f():\n    global c\n    c += 1\nf()\n" + OWN, False, False),
    ("nonlocal", "c = 0\ndef f():\n    nonlocal c\n    c += 1\nf()\n" + OWN, True, True),
    ("late import", f"{READ}from math import *\n{PRINT}", False, True),
    ("comment, then imports", "# sum\nfrom math import *\n" + OWN, False, True),
    ("imports in brackets", "from math import (\n    gcd,\n    sqrt,\n)\n" + OWN, False, True),
    ("text of two lines", f"s = '''a\nb'''\n{READ}print(sum(map(int, input().split())) + len(s) - 3)", False, True),
    ("class Solution", f"class Solution:\n    pass\n{OWN}", True, False),
    ("class Solution, a comment", f"# class Solution\n{OWN}", True, True),
    ("future", "from __future__ import annotations\n" + OWN, False, False),
    ("buffer", "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split()[1:])))", False, False),
    ("read", "import sys\nprint(sum(map(int, sys.stdin.read().split()[1:])))", True, True),
    ("stdin, imported", f"from sys import stdin\nstdin.readline()\n{LINE}", True, True),
    ("stdin, iterated", "from sys import stdin\nprint(sum(map(int, list(stdin)[1].split())))", False, False),
    ("open(0)", "print(sum(map(int, open(0).read().split()[1:])))", False, False),
    ("input at the end", OWN + "\ninput()", False, False),
    ("a line too many", "from sys import stdin\nfor _ in range(9):\n    stdin.readline()\n" + OWN, False, False),
    ("a prompt", READ + "print(sum(map(int, input('? ').split())))", False, False),
    ("early stdout", f"from sys import stdout\n{READ}x, y, z = input().split()\nstdout.write('6')", False, False),
    ("stdout closed", OWN + "\nsys.stdout.close()", False, False),
    ("main guard", f"{MAIN}if __name__ == '__main__':\n    main()", True, True),
    ("guard in the middle", f"{MAIN}if __name__ == '__main__':\n    main()\nx = 1", False, False),
    ("guard, turned round", f"{MAIN}if '__main__' == __name__:\n    main()", False, False),
    ("resource", "import resource\n" + OWN, False, False),
    ("getcwd", "import os\nos.getcwd()\n" + OWN, False, False),
    ("depth 30000", "def f(i):\n    return i and 1 + f(i - 1)\nassert f(30000)\n" + OWN, True, True),
    ("depth 60000", "def f(i):\n    return i and 1 + f(i - 1)\nassert f(60000)\n" + OWN, True, False),
    ("5000 digits", OWN + "\nstr(10 ** 5000)", False, True),
    ("60000 digits", OWN + "\nstr(10 ** 60000)", False, False),
    ("names without import", READ + "print(int(fsum(map(int, input().split()))))", True, True),
    ("its name", f"assert __name__ == 'tmp_sol'\n{OWN}", False, True),
    ("only imports", "import sys", False, False),
    ("blank", " \n", False, False),
    ("backslash in an f-string", OWN + "\nx = f\"{'\\\\n'.join([])}\"", False, False),
    ("Python 2", "print 6", False, False),
    ("tabs and blanks", f"if 1:\n        if 1:\n\t\tpass\n{OWN}", False, False),
]

BODY = "class Solution:\n    def add(self, a, b):\n        return "
# A method that adds two numbers, right in 2024, in 2025.
METHODS = [
    ("method", BODY + "a + b", True, True),
    ("function", "def add(a, b):\n    return a + b", True, True),
    ("function under a comment", "# class Solution\ndef add(a, b):\n    return a + b", False, False),
    ("class of another name", BODY.replace("Solution", "SolutionX") + "a + b", False, False),
    ("nothing but a name that is imported", "pass", True, True),
    ("exit at the top", BODY + "a + b\nexit()", False, False),
    ("exit in the method", "class Solution:\n    def add(self, a, b):\n        exit()", False, False),
    ("a list of it", BODY + "[a + b]", False, False),
    ("a float", BODY + "float(a + b)", True, True),
    ("a Decimal", "from decimal import Decimal\n" + BODY + "Decimal(a + b)", False, True),
    ("a Fraction", "from fractions import Fraction\n" + BODY + "Fraction(a + b)", False, True),
    ("a subclass", "class N(int):\n    pass\n" + BODY + "N(a + b)", True, True),
    ("a text", BODY + "str(a + b)", False, False),
    ("a generator", "class Solution:\n    def add(self, a, b):\n        yield a + b", False, False),
    ("a prompt at the top", BODY + "a + b\ninput()", False, False),
    ("state", f"n = []\n{BODY}n.append(0) or a + b if len(n) < 1 else 0", False, False),
]


@pytest.mark.parametrize("rules", [2024, 2025])
def test_programs(rules: Any) -> None:
    asked = Question(tuple(SUM), None, "")
    tasks = [questions.task(asked, Program("fence", p[1]), rules, "livebench", 6.0) for p in PROGRAMS]
    found = {case[0]: verdict for case, verdict in zip(PROGRAMS, judge(tasks, Limits(60, 180)), strict=True)}
    expected = {name: float(new if rules == 2025 else old) for name, _, old, new in PROGRAMS}
    assert {name: verdict.value for name, verdict in found.items()} == expected, found


@pytest.mark.parametrize("rules", [2024, 2025])
def test_methods(rules: Any) -> None:
    asked = Question(tuple(ADD), "add", "")
    tasks = [questions.task(asked, Program("fence", m[1]), rules, "livebench", 6.0) for m in METHODS]
    found = {case[0]: verdict for case, verdict in zip(METHODS, judge(tasks, Limits(60, 180)), strict=True)}
    expected = {name: float(new if rules == 2025 else old) for name, _, old, new in METHODS}
    assert {name: verdict.value for name, verdict in found.items()} == expected, found


PARTIAL = "class Solution:\n    def add(self, a, b):"
REST = "        return a + b"
# An answer to a completion question, right in 2024, in 2025.
ANSWERS = [
    ("the rest", fenced(REST), True, True),
    ("the rest, bare", REST, False, True),
    ("the rest, a closing fence", REST + "\n```", False, True),
    ("the rest, an opening fence", "```python\n" + REST, False, False),
    ("all", fenced(PARTIAL + "\n" + REST), False, True),
    ("all, bare", PARTIAL + "\n" + REST, False, True),
    ("all, a closing fence", PARTIAL + "\n" + REST + "\n```", False, True),
    ("all, after an import", fenced("import math\n" + PARTIAL + "\n" + REST), False, False),
    ("right, then wrong", fenced(REST) + fenced("        return 0"), True, False),
    ("wrong, then right", fenced("        return 0") + fenced(REST), False, True),
    ("right, then what it prints", fenced(REST) + "\n```\n3\n```", True, False),
    ("the partial solution alone", fenced(PARTIAL), False, False),
    ("nothing", "", False, False),
    ("backticks", "`" + REST + "`", True, True),
]


@pytest.mark.parametrize("rules", [2024, 2025])
def test_answers_to_a_completion_question(rules: Any) -> None:
    problems = [question(name, packed(ADD), "add", PARTIAL) for name, *_ in ANSWERS]
    scores = LiveBenchCoding(rules=rules).score(problems, [Answer(name, text) for name, text, *_ in ANSWERS])
    expected = {name: float(new if rules == 2025 else old) for name, _, old, new in ANSWERS}
    assert {score.id: score.value for score in scores} == expected, scores


@pytest.mark.parametrize("rules", [2024, 2025])
def test_a_script_is_a_script_by_the_rules_of_either_year(rules: Any) -> None:
    evaluator = LiveBenchCoding(rules=rules, runner="script")
    problem = question("q", packed([("1\n2", "0.5  1")]))
    text = "import sys\nd = sys.stdin.buffer.read()\nprint('0.50 1.0')\nexit()"
    assert one(evaluator, problem, fenced(text)).value == float(rules == 2025)  # the comparison is the year's


# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize("setting", ["fences=last", "fences=first"])
def test_what_took_the_place_of_fences_is_said_in_one_line(setting: str) -> None:
    with pytest.raises(M3Error, match=r"fences is not known any more; give rules=2024 .* or rules=2025") as refused:
        composed("livebench_coding", [setting])
    assert "\n" not in str(refused.value)
    spec = EvaluatorSpec("livebench_coding", "evaluators.livebench_coding:LiveBenchCoding", {"fences": "last"})
    with pytest.raises(M3Error, match="'fences' any more; give rules=2024"):
        load_evaluator(spec)


@pytest.mark.parametrize("value", ["2023", "2024.0", "'2024'", "last", "true", "null"])
def test_rules_are_a_year(value: str) -> None:
    with pytest.raises(M3Error, match="allowed are 2024, 2025") as refused:
        composed("livebench_coding", [f"rules={value}"])
    assert "\n" not in str(refused.value)


def test_the_default_is_the_papers_era_and_only_the_present_rules_drop_thoughts() -> None:
    assert (LiveBenchCoding().rules, LiveBenchCoding().thought) == (2024, "keep")
    assert LiveBenchCoding(rules=2025).thought == "drop"
    problem = question("q", packed(ADD), "add")
    thought = (
        "<think>\n"
        + fenced("def add(a, b):\n    return 0")
        + "\n</think>\n"
        + fenced("def add(a, b):\n    return a + b")
    )
    for rules, value in ((2024, 0.0), (2025, 1.0)):
        [score], _ = evaluate(LiveBenchCoding(rules=rules), [problem], [Answer("q", thought)])  # type: ignore[arg-type]
        assert score.value == value


def test_the_audit_shows_rules_and_runners_side_by_side() -> None:
    problems = [question("a", packed(SUM)), question("b", packed(SUM))]
    answers = [
        Answer("a", OWN),
        Answer("b", fenced("import sys\nd = sys.stdin.buffer.read().split()\nprint(sum(map(int, d[1:])))")),
    ]
    found = LiveBenchCoding().audit(problems, answers)["extractors"]
    assert {name: outcome["score"] for name, outcome in found.items()} == {
        "rules=2024 runner=livebench": 0.0,
        "rules=2024 runner=script": 50.0,
        "rules=2025 runner=livebench": 50.0,
        "rules=2025 runner=script": 100.0,
    }


# ------------------------------------------------------------------------------------------------------ lacking tests


def test_questions_that_lack_tests_are_counted_and_named() -> None:
    problems = [question("a", packed(ADD), "add", tests_dropped=3), question("b", packed(ADD), "add", tests_dropped=0)]
    problems += [question("c", packed(ADD), "add"), question("d", packed(ADD), "add", tests_dropped=1)]
    right, wrong = fenced("def add(a, b):\n    return a + b"), fenced("def add(a, b):\n    return 0")
    texts = {"a": right, "b": right, "c": wrong, "d": wrong}
    _, result = evaluate(LiveBenchCoding(), problems, [Answer(key, text) for key, text in texts.items()])
    assert result.details["lacking_tests"] == {
        "questions": 2,
        "tests": 4,
        "passed": 1,
        "items": {"a": "2 of 5", "d": "2 of 3"},
    }
    [said] = [line for line in _footer(result.details) if "lack" in line]
    assert said == (
        "livebench_coding: 2 questions lack 4 of LiveBench's tests here, so what passes them may be wrong: at most"
        " 1 of a cell's items"
    )


def test_nothing_is_said_where_all_tests_are_there() -> None:
    _, result = evaluate(LiveBenchCoding(), [question("c", packed(ADD), "add")], [Answer("c", "")])
    assert result.details["lacking_tests"]["questions"] == 0
    assert [line for line in _footer(result.details) if "lack" in line] == []


def _footer(details: Any) -> list[str]:
    row: dict[str, Any] = {"state": "done", "method": "average", "pair": "lm_code", "benchmark": "livebench_coding"}
    row |= {"engine": "vllm 1 float32", "evaluator": "livebench_coding 2", "runs": 1, "failure": None, "weights": None}
    return footer(framed([row | {"merge": "m3 merge", "details": details}]))


@needs_data
def test_the_lite_questions_say_what_they_lack() -> None:
    problems = LiveBenchCoding().problems("official")
    found = {problem.id[:12]: questions.read(problem.row) for problem in problems}
    judged = {key: read for key, read in found.items() if isinstance(read, Question)}
    lacking = {key: read for key, read in judged.items() if read.dropped}
    assert (len(judged), len(lacking), sum(read.dropped for read in lacking.values())) == (117, 50, 221)
    assert sum(len(read.tests) + read.dropped for read in judged.values()) == 1769
    worst = {key: (len(read.tests), read.dropped) for key, read in lacking.items() if read.dropped == 12}
    assert worst == {"30cd4633ff2a": (3, 12), "3de555bbcef9": (3, 12)}  # Election Quick Report, Christmas Color Grid 1


@pytest.mark.slow
@needs_data
def test_m3_score_audits_the_lacking_tests(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    key = next(p.id for p in LiveBenchCoding().problems("official") if p.id.startswith("30cd4633ff2a"))
    path.write_text('{"id": "' + key + '", "text": "x"}\n')
    command = [sys.executable, "-m", "m3_exp.cli", "score", "livebench_coding", str(path), "--audit"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"M3_DATA": str(DATA), "PATH": "/usr/bin:/bin"}, check=False
    )
    assert '"3 of 15"' in done.stdout, done.stderr
