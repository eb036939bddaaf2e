"""LiveBench coding: extraction, tests, the runner's verdicts on programs of all kinds, the sandbox, real questions."""

import base64
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from evaluators.livebench_coding import LiveBenchCoding, grading, harness, questions
from evaluators.livebench_coding.questions import Question
from m3_exp.scoring.evaluate import evaluate
from m3_exp.scoring.programs import Program
from m3_exp.scoring.sandbox.judge import Limits, judge
from m3_exp.types import Answer, M3Error, Problem
from tests.answers import one

DATA = Path(os.environ.get("M3_DATA", "/nonexistent"))
needs_data = pytest.mark.skipif(not (DATA / "livebench/coding").is_dir(), reason="M3_DATA/livebench/coding is not here")
SUM = [("3\n1 2 3\n", "6\n"), ("1\n5\n", "5\n")]
ADD = [("1\n2", "3"), ("5\n6", "11")]


def packed(tests: list[tuple[str, str]]) -> str:
    return json.dumps([{"input": given, "output": right, "testtype": "stdin"} for given, right in tests])


def question(key: str, tests: str | None, method: str | None = None, partial: str = "", **row: Any) -> Problem:
    metadata = {} if method is None else {"func_name": method}
    columns = {
        "question_id": key,
        "task": "coding_completion" if partial else "LCB_generation",
        "turns": ["Solve it."],
        "partial_solution": partial,
        "public_test_cases": "[]",
        "private_test_cases": tests,
        "original_json": {"metadata": json.dumps(metadata)},
    }
    return Problem(key, {**columns, **row})


def fenced(source: str) -> str:
    return f"Here it is:\n```python\n{source}\n```\nDone."


# ---------------------------------------------------------------------------------------------------------- extraction


@pytest.mark.parametrize(
    ("text", "rules", "found"),
    [
        ("```python\na\nb\n```", 2024, ("fence", "a\nb")),
        ("```python\na\nb\n```", 2025, ("fence", "a\nb")),
        ("x\n```\na\n```\ny\n```py\nb\n```", 2024, ("fence", "a")),
        ("x\n```\na\n```\ny\n```py\nb\n```", 2025, ("fence", "b")),
        ("```\na\n```\n```\nb", 2024, ("fence", "a")),
        ("```\na\n```\n```\nb", 2025, ("no program", "")),  # three fence lines: the last two hold nothing
        ("    ```python\n    a\n    ```", 2024, ("fence", "    a")),
        ("    ```python\n    a\n    ```", 2025, ("fence", "    a")),
        ("```python a\nb ```", 2024, ("no program", "")),
        ("```python a\nb ```", 2025, ("no program", "")),
        ("```\n```", 2024, ("no program", "")),
        ("```\n\n\n```", 2024, ("fence", "\n")),
        ("a", 2024, ("no program", "")),
        ("a\n  b \n\n", 2025, ("text", "a\n  b")),
        ("```python\na", 2024, ("no program", "")),
        ("```python\na", 2025, ("text", "```python\na")),
        ("a\nb\n```\n\n", 2024, ("no program", "")),
        ("a\nb\n```\n\n", 2025, ("closing fence", "a\nb")),
        ("a\n``` Done.", 2025, ("closing fence", "a")),
        ("a```", 2025, ("no program", "")),  # the line with the fence goes, whatever else it holds
        ("a\n```\nDone.", 2025, ("text", "a\n```\nDone.")),
        ("`a`", 2024, ("backticks", "a")),
        ("`a`", 2025, ("backticks", "a")),
        ("`a`\n", 2024, ("no program", "")),
        ("`a`\n", 2025, ("text", "`a`")),
        ("``", 2024, ("no program", "")),
        ("`", 2025, ("text", "`")),
        ("", 2024, ("no program", "")),
        (" \n", 2025, ("no program", "")),
    ],
)
def test_where_a_program_stands_by_the_rules_of_a_year(text: str, rules: Any, found: tuple[str, str]) -> None:
    assert questions.extract(text, rules) == Program(*found)


@pytest.mark.parametrize(
    ("answer", "rules", "source"),
    [
        ("    return 1", 2024, "def f():\n    return 1"),
        ("    return 1", 2025, "def f():\n    return 1"),
        ("def f():\n    return 1", 2024, "def f():\ndef f():\n    return 1"),
        ("def f():\n    return 1", 2025, "def f():\n    return 1"),  # it begins with the partial solution
        (" def f():\n    return 1", 2025, "def f():\n def f():\n    return 1"),
    ],
)
def test_a_partial_solution_is_put_before_the_answer(answer: str, rules: Any, source: str) -> None:
    asked = Question((("", "1"),), "f", "def f():")
    assert questions.whole_program(asked, fenced(answer), rules) == Program("fence", source)


def test_without_a_fence_there_is_no_program_in_2024_and_the_text_is_one_in_2025() -> None:
    asked = Question((("", "1"),), "f", "def f():")
    assert questions.whole_program(asked, "    return 1", 2024).reading == "no program"
    assert questions.whole_program(asked, "    return 1", 2025) == Program("text", "def f():\n    return 1")
    assert questions.whole_program(asked, "", 2025) == Program("no program", "def f():\n")


def test_no_program_fails_even_where_an_import_gives_the_method_its_name() -> None:
    problem = question("q", packed([("1\n2", "3")]), "add")  # `from operator import *`
    assert one(LiveBenchCoding(rules=2024), problem, "").value == 0.0
    assert one(LiveBenchCoding(rules=2025), problem, "").value == 1.0  # so does LiveBench's


# --------------------------------------------------------------------------------------------------------------- tests


def test_tests_are_json_or_the_text_in_a_pickle_that_is_never_run() -> None:
    tests = packed(SUM)
    for protocol in range(5):
        pickled = base64.b64encode(zlib.compress(pickle.dumps(tests, protocol=protocol))).decode()
        read = questions.read(question("q", pickled, public_test_cases=packed(SUM[:1])).row)
        assert read == Question((SUM[0], *SUM), None, "")


class Bomb:
    def __reduce__(self) -> Any:
        return (os.mkdir, (str(Path(os.environ["BOMB"])),))


@pytest.mark.parametrize("make", [Bomb, lambda: ["a", "b"], lambda: b"[]", lambda: 7])
def test_a_pickle_of_anything_else_leaves_the_question_out(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "went-off"))
    pickled = base64.b64encode(zlib.compress(pickle.dumps(make()))).decode()
    read = questions.read(question("q", pickled).row)
    assert isinstance(read, questions.Unreadable)
    assert read.startswith("its tests cannot be read")
    assert not (tmp_path / "went-off").exists()


@pytest.mark.parametrize("tests", ["[", "{}", "x", '[{"input": "1"}]', "[3]"])
def test_tests_that_cannot_be_read_leave_the_question_out(tests: str) -> None:
    read = questions.read(question("q", tests).row)
    assert isinstance(read, questions.Unreadable)
    assert read.startswith("its tests cannot be read")


def test_functional_tests_must_be_json() -> None:
    read = questions.read(question("q", packed([("x y", "1")]), "f").row)
    assert isinstance(read, questions.Unreadable)
    assert read.startswith("its tests cannot be read")


@pytest.mark.parametrize("tests", [None, "", "[]"])
def test_questions_without_tests_are_left_out_and_named(tests: str | None) -> None:
    problems = [question("a", packed(ADD), "add"), question("b", tests, "add")]
    right = fenced("class Solution:\n    def add(self, a, b):\n        return a + b")
    scores, result = evaluate(LiveBenchCoding(), problems, [Answer("a", right), Answer("b", right)])
    assert (scores[1].value, scores[1].reason) == (None, "left out: no tests")
    assert (result.score, result.n, result.n_scored, result.n_unscored) == (100.0, 1, 1, 0)
    assert result.details["left_out"] == {"b": "no tests"}


# --------------------------------------------------------------------------------------------------------- comparisons

# Verdicts of LiveBench's own runner on a program that writes the first text where the second is expected.
OUTPUTS = [
    ("6\n", "6", True), ("6", "6\n\n", True), (" 6 ", "6", True), ("1\n2", "1\n2\n", True), ("1 \n 2", "1\n2", True),
    ("1\n\n2", "1\n2", True), ("1\n2", "1\n\n2", True), ("1 2", "1  2", False), ("1\n2", "2\n1", False),
    ("6.0", "6", True), ("0.3333333", "0.33333333", True), ("0.3333", "0.33333333", False), ("1e3", "1000", True),
    ("12345678901", "12345678902", False), ("-12345678901", "-12345678902", True), ("nan", "nan", True),
    ("nan", "NaN", False), ("inf", "1e999", True), ("1.0\n2", "1\n2.0", True), ("1.0 2.0", "1 2", False),
    ("", "", True), ("", "x", False), ("yes", "Yes", False), ("1\n2\n3", "1\n2", False), ("1.0\n2\n3", "1\n2", False),
]  # fmt: skip


@pytest.mark.parametrize(("found", "right", "same"), OUTPUTS)
def test_outputs_are_compared_as_in_livebench(found: str, right: str, same: bool) -> None:
    assert grading.same_output(found, right, 2024) is same


@pytest.mark.parametrize("found", [None, 6, ["6"], b"6", object()])
def test_an_output_is_a_text(found: object) -> None:
    assert not any(grading.same_output(found, "6", rules) for rules in (2024, 2025))


# The same for a method that returns the first value where the second, JSON, is expected.
VALUES = [
    (3, "3", True), (3.0, "3", True), (True, "1", True), ("3", "3", False), ([1, 2], "[1, 2]", True),
    ((1, 2), "[1, 2]", True), ([(1, 2)], "[[1, 2]]", False), ([(1, 2)], "[[[1, 2]]]", True), (3, "[3]", True),
    ([1, 2], "[[1, 2], [3]]", True), (3, "[4, 3]", False), (None, "null", True), (None, "[null]", True),
    ([], "[]", True), ((), "[]", True), ({1, 2}, "[1, 2]", False), (complex(3, 0), "3", False), (b"a", '"a"', False),
    ({1: 2}, '{"1": 2}', True), ([{1: 2}], '{"1": 2}', True), ({"1": 2}, '{"1": 2}', False),
    ({"a": 1}, '{"a": 1}', True), (range(2), "[0, 1]", False),
]  # fmt: skip


@pytest.mark.parametrize(("found", "right", "same"), VALUES)
def test_values_are_compared_as_in_livebench(found: object, right: str, same: bool) -> None:
    assert grading.same_value(found, grading.wanted(right, 2024), 2024) is same


@pytest.mark.parametrize(
    ("text", "arguments"),
    [("1\n[2]", [1, [2]]), ('"a b"', ["a b"]), ('{"1": 2}', [{1: 2}]), ('{"a": 2}\n3', [{"a": 2}, 3]), ("{}\n3", [{}])],
)
def test_arguments_are_one_json_value_a_line(text: str, arguments: list[Any]) -> None:
    assert grading.arguments(text, 2024) == arguments


# ------------------------------------------------------------------------------------------------------------ programs

READ = "n = int(input())\n"
PRINT = "print(sum(map(int, input().split())))"
# (name, program, passes as LiveBench runs it, passes as a script). The third column was checked against LiveBench's
# runner (its text in the copy of opencompass 0.5.4, with LiveBench's stdin and comparisons), the fourth is ours.
PROGRAMS = [
    ("plain", READ + PRINT, True, True),
    ("main guard", f'def main():\n    {READ}    {PRINT}\nif __name__ == "__main__":\n    main()', True, True),
    (
        "guard in the middle",
        f"def main():\n    {READ}    {PRINT}\nif __name__ == '__main__':\n    main()\nx = 1",
        False,
        True,
    ),
    ("readline", "import sys\ninput = sys.stdin.readline\n" + READ + PRINT, True, True),
    (
        "early stdin",
        f"from sys import stdin\nn = stdin.readline()\n{PRINT.replace('input', 'stdin.readline')}",
        True,
        True,
    ),
    ("early stdin, its line break", f"from sys import stdin\nassert stdin.readline() == '3\\n'\n{PRINT}", False, False),
    ("early stdout", f"from sys import stdout\n{READ}stdout.write(str(sum(map(int, input().split()))))", False, True),
    ("buffer", "import sys\nd = sys.stdin.buffer.read().split()\nprint(sum(map(int, d[1:])))", False, True),
    ("open(0)", "d = open(0).read().split()\nprint(sum(map(int, d[1:])))", False, True),
    ("exit", READ + PRINT + "\nexit()", False, True),
    ("sys.exit", "import sys\n" + READ + PRINT + "\nsys.exit(1)", True, True),
    ("global", "c = 0\ndef f():\n    global c\n    c += 1\nf()\n" + READ + PRINT, False, True),
    ("names without import", READ + "print(int(fsum(map(int, input().split()))))", True, True),
    ("typing", "def f(a: List[int]) -> int:\n    return sum(a)\n" + READ + PRINT, True, True),
    ("until the end", f"{READ}{PRINT}\ntry:\n    input()\nexcept EOFError:\n    pass", True, True),
    ("one line too many", READ + PRINT + "\ninput()", False, False),
    (
        "thread",
        f"import threading\ndef m():\n    {READ}    {PRINT}\nt = threading.Thread(target=m)\nt.start()\nt.join()",
        True,
        True,
    ),
    ("recursion", "def f(i):\n    return i and 1 + f(i - 1)\nassert f(20000)\n" + READ + PRINT, True, True),
    ("multi-line text", f"s = '''\nx'''\n{READ}print(sum(map(int, input().split())) + len(s) - 2)", False, True),
    ("return", READ + PRINT + "\nreturn", True, False),
    ("only imports", "import sys", False, False),
    ("wrong", "print(6)", False, False),
    ("wrong on top", READ + PRINT + "\nprint(6)", False, False),
    ("not Python", "print(", False, False),
    ("empty", "", False, False),
    ("raises", "raise ValueError", False, False),
]
# Checked in the same way; only the last one passes there, which asks the program's own object whether it is equal.
METHODS = [
    ("method", "class Solution:\n    def add(self, a: int, b: int) -> Optional[int]:\n        return a + b", True),
    ("function", "def add(a, b):\n    return a + b", True),
    (
        "one object for all tests",
        "class Solution:\n    n = 0\n    def add(self, a, b):\n        self.n += 1\n        return a + b / self.n",
        False,
    ),
    ("memory", "class Solution:\n    @cache\n    def add(self, a, b):\n        print(a)\n        return a + b", True),
    ("tuple", "class Solution:\n    def add(self, a, b):\n        return (a + b,)", False),
    ("text", "class Solution:\n    def add(self, a, b):\n        return str(a + b)", False),
    ("other name", "class Solution:\n    def plus(self, a, b):\n        return a + b", False),
    (
        "arguments to the class",
        "class Solution:\n    def __init__(self, x):\n        pass\n    def add(self, a, b):\n        return a + b",
        False,
    ),
    (
        "guard",
        "class Solution:\n    def add(self, a, b):\n        return a + b\nif __name__ == '__main__':\n    input()",
        True,
    ),
    ("ends early", "class Solution:\n    def add(self, a, b):\n        return a + b\nimport sys\nsys.exit(0)", False),
    (
        "equal to all",
        "class E(int):\n    def __eq__(self, o):\n        return True\ndef add(a, b):\n    return E(0)",
        False,
    ),
]


@pytest.mark.parametrize("runner", ["livebench", "script"])
def test_programs_that_read_stdin(runner: Any) -> None:
    asked = Question(tuple(SUM), None, "")
    tasks = [questions.task(asked, Program("fence", source), 2024, runner, 6.0) for _, source, *_ in PROGRAMS]
    found = {case[0]: verdict for case, verdict in zip(PROGRAMS, judge(tasks, Limits(60, 180)), strict=True)}
    expected = {name: float(script if runner == "script" else own) for name, _, own, script in PROGRAMS}
    assert {name: verdict.value for name, verdict in found.items()} == expected, found


def test_methods() -> None:
    asked = Question(tuple(ADD), "add", "")
    tasks = [questions.task(asked, Program("fence", source), 2024, "livebench", 6.0) for _, source, _ in METHODS]
    found = {case[0]: verdict for case, verdict in zip(METHODS, judge(tasks, Limits(60, 180)), strict=True)}
    assert {name: verdict.value for name, verdict in found.items()} == {n: float(right) for n, _, right in METHODS}, (
        found
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "while True:\n    pass",
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
        "from signal import *\nsetitimer(ITIMER_PROF, 0)\nsetitimer(ITIMER_REAL, 0)\nwhile True:\n    pass",
        "import time\ntime.sleep(999)",
    ],
)
def test_what_does_not_end_is_ended_and_wrong(source: str) -> None:
    score = one(LiveBenchCoding(timeout=0.2), question("q", packed(SUM)), fenced(source))
    assert score.value == 0.0
    assert any(word in str(score.reason) for word in ("for one test", "ended", "CPU time", "no verdict")), score.reason


def test_a_time_out_is_tried_once_more_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from evaluators import livebench_coding
    from m3_exp.scoring.sandbox.judge import Verdict

    batches: list[int] = []

    def fake(tasks: Any, *_: Any, **__: Any) -> list[Verdict]:
        batches.append(len(tasks))
        slow = Verdict(0.0, "fence", "AssertionError: test 1: TimeoutError: more than 6 s for one test")
        return [slow if len(batches) == 1 and number == 1 else Verdict(1.0, "fence") for number in range(len(tasks))]

    monkeypatch.setattr(livebench_coding, "judge", fake)
    problems = [question(key, packed(SUM)) for key in "abc"]
    scores = LiveBenchCoding().score(problems, [Answer(p.id, fenced(PRINT)) for p in problems])
    assert batches == [3, 1]
    assert [score.value for score in scores] == [1.0, 1.0, 1.0]


def test_the_right_outputs_stay_with_the_grader() -> None:
    secret = "a very secret output"
    asked = Question((("x", secret),), None, "")
    task = questions.task(asked, Program("fence", PRINT), 2024, "livebench", 6.0)
    assert secret in task.test
    assert all(secret not in program.source for program in task.programs)


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos._exit(0)",
        "import sys\nsys.exit(0)",
        "import builtins\nbuiltins.str = str\nprint(open('/proc/self/environ').read())",
        "import gc\nprint([o for o in gc.get_objects() if 'secret' in str(o)[:10000]])",
        "import sys\nf = sys._getframe()\nwhile f:\n    print([*map(str, f.f_globals.values())])\n    f = f.f_back",
    ],
)
def test_forgeries_do_not_pass(source: str) -> None:
    tests = packed([("1", "the secret output, 81 characters long, or so")])
    assert one(LiveBenchCoding(), question("q", tests), fenced(source)).value == 0.0


def test_the_boxes_files_import_the_standard_library_only() -> None:
    import ast
    import sys

    for module in (harness, grading):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        names = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
        names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_without_containment_answers_are_unscored() -> None:
    evaluator = LiveBenchCoding(sandbox="weak")
    _, result = evaluate(evaluator, [question("q", packed(SUM))], [Answer("q", fenced(READ + PRINT))])
    assert (result.score, result.n, result.n_unscored) == (None, 1, 1)


# -------------------------------------------------------------------------------------------------- results and prompts


def test_the_result_is_the_mean_of_the_tasks_means() -> None:
    method = "class Solution:\n    def plus(self, a, b):\n        return a + b"
    problems = [question(key, packed(ADD), "plus") for key in "abc"]
    problems.append(question("d", packed(ADD), "plus", partial="class Solution:\n    def plus(self, a, b):"))
    texts = [fenced(method), fenced(method), method, fenced("        import no_such_module")]
    answers = [Answer(p.id, text) for p, text in zip(problems, texts, strict=True)]
    scores, result = evaluate(LiveBenchCoding(), problems, answers)
    assert [score.value for score in scores] == [1.0, 1.0, 0.0, 0.0]
    assert [score.extracted for score in scores] == ["fence", "fence", "no program", "fence"]
    assert result.score == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert result.details["by_task"]["LCB_generation"] == {"score": pytest.approx(200 / 3), "n": 3}
    assert (result.details["no_program"], result.details["missing_module"]) == (1, 1)
    assert result.details["sandbox"] in ("bubblewrap", "landlock")
    assert result.settings["sandbox"] == result.details["sandbox"]


def test_the_prompt_is_the_question_and_there_are_no_stops() -> None:
    for evaluator in (LiveBenchCoding(), LiveBenchCoding(chat_template=True)):
        assert evaluator.prompt(question("q", "[]")) == "Solve it."
        assert (evaluator.sampling.max_tokens, evaluator.sampling.stops) == (2048, ())


def test_questions_without_dates_have_no_releases(tmp_path: Path) -> None:
    path = tmp_path / "coding.jsonl"
    path.write_text(json.dumps(question("q", "[]").row) + "\n")
    assert len(LiveBenchCoding().problems(str(path))) == 1
    with pytest.raises(M3Error, match="carry no livebench_release_date, so release=2024-06-24 cannot be told"):
        LiveBenchCoding(release="2024-06-24").problems(str(path))


# ----------------------------------------------------------------------------------------------------------------- gold

PARTIALS = [
    "",
    "class Solution:\n    def add(self, a, b):",
    'class Solution:\n    def add(self, a, b):\n        """\n        :type a: int',
    "class Solution:\n    def add(self, a, b):\n        c = sum(",
    "class Solution:\n    def add(self, a, b):\n        for i in range(3):\n            if i:",
]


@pytest.mark.parametrize("rules", [2024, 2025])
def test_programs_that_look_outputs_up_score_1_and_useless_ones_0(rules: Any) -> None:
    evaluator = LiveBenchCoding(rules=rules)
    problems = [question(str(k), packed(ADD), "add", partial) for k, partial in enumerate(PARTIALS)]
    problems.append(question("stdin", packed([*SUM, ("\n a \n", "x  y\n\nz")])))
    for make, expected in ((evaluator.gold, 1.0), (evaluator.wrong, 0.0)):
        scores = evaluator.score(problems, [Answer(p.id, str(make(p))) for p in problems])
        assert [score.value for score in scores] == [expected] * len(problems), scores
    assert evaluator.gold(question("q", "[]")) is evaluator.wrong(question("q", "[]")) is None
    assert evaluator.gold(question("q", packed(ADD), "add", "x = = 1")) is None
    assert evaluator.gold(question("q", packed(ADD), "add", reference_answer="mine")) == "mine"


@pytest.mark.slow
@needs_data
def test_official_gold_scores_100_and_planted_wrong_answers_0() -> None:
    evaluator = LiveBenchCoding()
    problems = evaluator.problems("official")
    assert [problem.row["task"] for problem in problems].count("LCB_generation") == 78
    assert len(problems) == 128
    _, result = evaluate(evaluator, problems, [Answer(p.id, evaluator.gold(p) or "") for p in problems])
    assert (result.score, result.n, result.n_scored) == (100.0, 117, 117)
    assert {name: found["n"] for name, found in result.details["by_task"].items()} == {
        "LCB_generation": 67,
        "coding_completion": 50,
    }
    assert len(result.details["left_out"]) == 11
    some = [problem for problem in problems if evaluator.wrong(problem) is not None][::4]
    _, result = evaluate(evaluator, some, [Answer(p.id, str(evaluator.wrong(p))) for p in some])
    assert (result.score, result.n_scored) == (0.0, 30)


# Solutions of ours to official questions (the first 12 digits of their ids): right, and wrong in one place.
SOLUTIONS = {
    "03741bcada4e": ("b, g = map(int, input().split())\nprint('Bat' if b > g else 'Glove')", "b > g", "b < g"),
    "232d3a9537df": (
        "t = a = 0\nfor _ in range(int(input())):\n    x, y = map(int, input().split())\n    t += x\n    a += y\n"
        "print('Takahashi' if t > a else 'Aoki' if a > t else 'Draw')",
        "a > t",
        "a >= t",
    ),
    "27c31c63ff77": ("print('L' + 'o' * int(input()) + 'ng')", "'ng'", "'nG'"),
    "412707cd401e": ("s = input()\nprint('Yes' if list(s) == sorted(s) else 'No')", "sorted(s)", "sorted(s)[::-1]"),
    "5a17ebccc624": ("print(' '.join(input()))", "' '", "''"),
    "e4ee35e76ddb": ("n = input()\nprint(n * int(n))", "int(n)", "3"),
    "0664f46bd7bf": (
        "class Solution:\n    def maxFrequencyElements(self, nums: List[int]) -> int:\n"
        "        c = Counter(nums).values()\n        return sum(v for v in c if v == max(c))",
        "sum(v for",
        "sum(1 for",
    ),
    "0c1688303f94": (
        "class Solution:\n    def isPossibleToSplit(self, nums: List[int]) -> bool:\n"
        "        return max(Counter(nums).values()) <= 2",
        "<= 2",
        "< 2",
    ),
    "5a126374e388": (
        "class Solution:\n    def countKeyChanges(self, s: str) -> int:\n        s = s.lower()\n"
        "        return sum(a != b for a, b in zip(s, s[1:]))",
        "s.lower()",
        "s",
    ),
    "01c73e7f5bd7": (
        "class Solution:\n    def maximumStrongPairXor(self, nums: List[int]) -> int:\n"
        "        return max(x ^ y for x in nums for y in nums if abs(x - y) <= min(x, y))",
        "<= min",
        ">= min",
    ),
    "0119bdbf9e79": (
        '        :type k: int\n        :rtype: int\n        """\n        return sum(x < k for x in nums)',
        "x < k",
        "x <= k",
    ),
    "d5ecf69bb5d8": (
        "        return all(nums.count(x) < 3 for x in nums)",
        "< 3",
        "< 2",
    ),
    "2ac5a0878eb1": (
        '        :rtype: int\n        """\n        c = [nums.count(x) for x in nums]\n        return c.count(max(c))',
        "max(c)",
        "min(c)",
    ),
}


@needs_data
@pytest.mark.parametrize("runner", ["livebench", "script"])
def test_our_solutions_of_official_questions(runner: Any) -> None:
    evaluator = LiveBenchCoding(runner=runner)
    by_start = {problem.id[:12]: problem for problem in evaluator.problems("official")}
    problems = [by_start[start] for start in SOLUTIONS]
    right = [fenced(source) for source, *_ in SOLUTIONS.values()]
    wrong = [fenced(source.replace(old, new)) for source, old, new in SOLUTIONS.values()]
    assert all(a != b for a, b in zip(right, wrong, strict=True))
    for texts, expected in ((right, 1.0), (wrong, 0.0)):
        scores = evaluator.score(problems, [Answer(p.id, t) for p, t in zip(problems, texts, strict=True)])
        assert [score.value for score in scores] == [expected] * len(problems), scores


@needs_data
def test_a_completion_may_repeat_the_partial_solution_only_by_the_newer_rule() -> None:
    problem = next(p for p in LiveBenchCoding().problems("official") if p.id.startswith("d5ecf69bb5d8"))
    text = fenced(problem.row["partial_solution"] + "\n" + SOLUTIONS["d5ecf69bb5d8"][0])
    assert one(LiveBenchCoding(rules=2025), problem, text).value == 1.0
    assert one(LiveBenchCoding(rules=2024), problem, text).value == 0.0
