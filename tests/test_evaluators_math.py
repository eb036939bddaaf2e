"""The maths graders: extractors and rules held to their originals, math-verify in its own process, audits."""

import json
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import get_args

import pytest

from evaluators import gsm8k, hendrycks_math
from evaluators.gsm8k import GSM8K
from evaluators.hendrycks_math import HendrycksMath
from m3_exp.scoring.audit import counts, ran_on
from m3_exp.scoring.evaluate import evaluate, load_evaluator, score_file
from m3_exp.scoring.math_equivalence import is_equiv
from m3_exp.scoring.math_process import Question, judge
from m3_exp.scoring.math_rules import RULES, WHOLE_TEXT, Rule, compare
from m3_exp.scoring.saved import read_answers
from m3_exp.types import Answer, EvaluatorSpec, M3Error, Problem, Score
from tests.answers import GSM
from tests.files import write_lines

ROOT = Path(__file__).resolve().parent.parent
MATH = [
    Problem("0", {"problem": "Half?", "solution": "$\\boxed{\\frac{1}{2}}$", "level": "Level 1", "type": "Algebra"}),
    Problem("1", {"problem": "Sum?", "solution": "$\\boxed{2x+1}$", "level": "Level 5", "type": "Algebra"}),
    Problem("2", {"problem": "Share?", "solution": "$\\boxed{28\\%}$", "level": "Level 5", "type": "Geometry"}),
]
TOWER = "so it is $9^{9^{9^{9^{9}}}}$"  # sympy works on it until it is stopped


# ----------------------------------------------------------------------------------------------------- extraction

LM_EVAL_IGNORES = (",", r"\$", r"(?s).*#### ", r"\.$")


def lm_eval(pattern: str, which: int, text: str, target: str) -> bool:
    """lm-eval's filter and metric for gsm8k, as its gsm8k.yaml (version 3) configures them."""
    found = re.compile(pattern).findall(text)
    chosen = found[which] if found else "[invalid]"
    if isinstance(chosen, tuple):
        chosen = next(group for group in chosen if group)
    sides = [chosen.strip(), target]
    for ignored in LM_EVAL_IGNORES:
        sides = [re.sub(ignored, "", side) for side in sides]
    return sides[0].lower() == sides[1].lower()


def random_answer(rng: random.Random) -> str:
    parts = ["#### ", "4", "1250", "1,250", "-3", "$", ".", ",", " ", "\n", "The answer is: ", "0", "..", "$4.00", "-"]
    return "".join(rng.choice(parts) for _ in range(rng.randint(0, 9)))


def test_strict_and_flexible_are_lm_evals_on_random_answers() -> None:
    rng = random.Random(0)
    problems = [rng.choice(GSM) for _ in range(6000)]
    answers = [Answer(problem.id, random_answer(rng)) for problem in problems]
    right = {"strict": 0, "flexible": 0}
    patterns = {"strict": (r"#### (\-?[0-9\.\,]+)", 0), "flexible": (r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)}
    for name, (pattern, which) in patterns.items():
        scores = GSM8K(extractor=name).score(problems, answers)  # type: ignore[arg-type]
        for problem, answer, score in zip(problems, answers, scores, strict=True):
            expected = lm_eval(pattern, which, answer.text, problem.row["answer"])
            assert (score.value == 1.0) is expected, (name, answer.text, problem.id)
            right[name] += expected
    assert min(right.values()) > 80


@pytest.mark.parametrize(
    ("box", "number"),
    [
        ("18", "18"), ("18.0", "18"), ("-3", "-3"), ("1,250", "1250"), ("1{,}250", "1250"), ("1\\!250", "1250"),
        ("\\$18", "18"), ("$18$", "18"), ("18\\text{ dollars}", "18"), ("18 \\mathrm{cm}", "18"), ("18\\%", "18"),
        ("\\text{yes}", "\\text{yes}"), ("x=4", "4"), ("1.5", "1.5"), ("", "7"), ("9" * 400, "9" * 400),
    ],
)  # fmt: skip
def test_gsm8k_reads_numbers_in_boxes(box: str, number: str | None) -> None:
    assert gsm8k.extract_boxed(f"first \\boxed{{7}}, then \\boxed{{{box}}}.") == number


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so \\boxed{4} and $5$", "4"),
        ("so \\[ 4 \\] and $5$ of $6$", "4"),
        ("so $5$ of $6$", "5$ of $6"),
        ("a lone $ sign", "a lone $ sign"),
        ("4", "4"),
        ("", None),
    ],
)
def test_math_flexible_is_lm_evals(text: str, found: str | None) -> None:
    assert hendrycks_math.extract_flexible(text) == found


def values_of_gold_and_wrong(evaluator: GSM8K | HendrycksMath, problems: list[Problem]) -> list[float | None]:
    gold = [Answer(problem.id, evaluator.gold(problem)) for problem in problems]
    wrong = [Answer(problem.id, evaluator.wrong(problem), 1) for problem in problems]
    scores = evaluator.score([*problems, *problems], [*gold, *wrong])
    assert all(score.extracted for score in scores)
    return [score.value for score in scores]


@pytest.mark.parametrize("extractor", get_args(gsm8k.Extractor))
def test_gsm8k_gold_is_right_and_wrong_is_wrong_for_every_extractor(extractor: gsm8k.Extractor) -> None:
    evaluator = GSM8K(extractor)
    assert values_of_gold_and_wrong(evaluator, GSM) == [1.0] * 3 + [0.0] * 3


@pytest.mark.slow
@pytest.mark.parametrize("extractor", get_args(hendrycks_math.Extractor))
@pytest.mark.parametrize("equivalence", get_args(hendrycks_math.Equivalence))
def test_math_gold_is_right_and_wrong_is_wrong_for_every_extractor_and_equivalence(
    extractor: hendrycks_math.Extractor, equivalence: hendrycks_math.Equivalence
) -> None:
    if extractor == "math_verify" and equivalence in ("hendrycks", "nemo_skills"):
        with pytest.raises(M3Error, match=f"equivalence={equivalence} has no effect under extractor=math_verify"):
            HendrycksMath(extractor, equivalence)
        return
    evaluator = HendrycksMath(extractor, equivalence)
    assert values_of_gold_and_wrong(evaluator, MATH) == [1.0] * 3 + [0.0] * 3


@pytest.mark.slow
def test_equivalences_differ_where_they_should() -> None:
    """0.5 for 1/2 is known to all, 1+2x for 2x+1 takes algebra, 28 for 28 % goes in all of them."""
    answers = [Answer("0", "\\boxed{0.5}"), Answer("1", "\\boxed{1+2x}"), Answer("2", "\\boxed{28}")]
    values = {
        name: [score.value for score in HendrycksMath("boxed", name).score(MATH, answers)]
        for name in get_args(hendrycks_math.Equivalence)
    }
    assert values == {
        "paper": [1.0, 0.0, 1.0],
        "hendrycks": [1.0, 0.0, 1.0],
        "math_verify": [1.0, 1.0, 1.0],
        "nemo_skills": [1.0, 1.0, 1.0],
    }


@pytest.mark.slow
def test_answers_without_anything_to_find_are_wrong_not_unscored() -> None:
    for evaluator, problem in ((GSM8K("math_verify"), GSM[0]), (HendrycksMath("math_verify"), MATH[0])):
        [score] = evaluator.score([problem], [Answer(problem.id, "I do not know")])
        assert (score.value, score.extracted, score.reason) == (0.0, None, "no answer found")


def test_a_chat_template_gets_the_bare_question_and_no_stops() -> None:
    """The answer's form is named; a stop word in an answer does not cut it; the paper's prompt is the default."""
    for evaluator, problem in ((GSM8K(chat_template=True), GSM[1]), (HendrycksMath(chat_template=True), MATH[0])):
        prompt = evaluator.prompt(problem)
        assert prompt.startswith(problem.row["question" if evaluator.name == "gsm8k" else "problem"] + "\n\n")
        assert "The answer is: ANSWER" in prompt
        assert "###" not in prompt
        assert evaluator.sampling.stops == ()
    text = "In Response to that: The answer is: 1250"
    assert GSM8K(chat_template=True).score([GSM[1]], [Answer("1", text)])[0].value == 1.0
    assert GSM8K().score([GSM[1]], [Answer("1", text)])[0].value == 0.0


# ---------------------------------------------------------------------------------------------------- equivalence


@pytest.mark.parametrize(
    ("left", "right", "paper", "hendrycks"),
    [
        ("\\dfrac{x}{2}", "\\frac{x}{2}", True, True),
        ("x / 2", "x/2", False, True),  # not treated by the copy: compared as they are
        ("50%", "50", False, True),
        ("50\\%", "50", True, True),
        ("3 / 4", "\\frac34", True, True),
        ("0.25", "\\frac14", False, False),
    ],
)
def test_the_two_copies_of_hendrycks_normalisation(left: str, right: str, paper: bool, hendrycks: bool) -> None:
    assert is_equiv(left, right) is paper
    assert is_equiv(left, right, "hendrycks") is hendrycks
    assert [compare([(left, right)], rule)[0].equal for rule in RULES[:2]] == [paper, hendrycks]


@pytest.mark.slow
def test_rules_need_the_input_that_their_tables_name() -> None:
    pairs = [
        ("$\\frac{1}{4}$", "I get $0.25$."),
        ("$x+1$", "Final: \\boxed{1+x}"),
        ("7", "it is 7 of them"),
        ("7", None),
    ]
    found = {rule: [verdict.equal for verdict in compare(pairs, rule)] for rule in RULES}
    assert found == {
        "paper": [False, False, False, False],
        "hendrycks": [False, False, False, False],
        "math_verify": [True, True, True, False],
        "math_verify_latex": [True, True, False, False],
        "math_verify_expr": [False, False, True, False],
        "nemo_skills": [True, True, False, False],
    }


@pytest.mark.slow
def test_options_reach_math_verify() -> None:
    pair = ("$f(a)$", "$f(b)$")
    assert compare([pair], "math_verify")[0].equal is False
    assert compare([pair], "math_verify", strict=False)[0].equal


@pytest.mark.slow
def test_nemo_skills() -> None:
    right = [("C", "C"), ("C", "C. It is blue"), ("odd", "\\text{odd}"), ("12%", "12"), ("12.", "12"),
             ("(x-1)(x+1)", "x^2-1"), ("\\frac{1}{3}", "\\dfrac13")]  # fmt: skip
    wrong = [("C", "D"), ("odd", "even"), ("a, b", "b, a"), ("12", "12.5"), ("x^2-1", "x^2+1"), ("12", None)]
    found = [verdict.equal for verdict in compare([*right, *wrong], "nemo_skills")]
    assert found == [True] * len(right) + [False] * len(wrong)


def test_percentages_parse_under_antlr_4_9() -> None:
    """The parser generated for it lacks an accessor that every percentage needs; see `math_worker`."""
    pairs = [("$28$", text) for text in ("$\\boxed{28\\%}$", "$28\\%$", "28 %")] + [("$29$", "$\\boxed{28\\%}$")]
    assert [verdict.equal for verdict in compare(pairs, "math_verify")] == [True, True, True, False]


def test_an_unknown_rule_is_refused() -> None:
    wrong: Rule = "sympy"  # type: ignore[assignment]
    with pytest.raises(M3Error, match="rule=sympy is not known; allowed are paper, hendrycks, math_verify"):
        compare([("1", "1")], wrong)


# --------------------------------------------------------------------------------------------- the process of its own


@pytest.mark.slow
def test_a_hang_is_unscored_and_the_others_are_not_touched() -> None:
    texts = ["it is 18", TOWER, "it is 18", "it is 19"]
    verdicts = judge([Question("18", text, *WHOLE_TEXT) for text in texts], seconds=1)
    assert [verdict.equal for verdict in verdicts] == [True, None, True, False]
    assert verdicts[1].reason == "math-verify took more than 1 CPU seconds, twice"
    score = verdicts[1].score(Answer("7", TOWER, 2), "18")
    assert score == Score("7", None, 2, None, "math-verify took more than 1 CPU seconds, twice")


@pytest.mark.slow
def test_a_crash_of_the_child_is_unscored() -> None:
    questions = [Question("1", "1", *WHOLE_TEXT), Question("1", "1", "no such rule"), Question("1", "1", *WHOLE_TEXT)]
    assert [(verdict.equal, verdict.reason) for verdict in judge(questions)] == [
        (True, None), (None, "math-verify died (exit code 1), twice"), (True, None),
    ]  # fmt: skip


def test_without_math_verify_nothing_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    from m3_exp.scoring import math_process

    monkeypatch.setattr(math_process, "find_spec", lambda name: None)
    [verdict] = judge([Question("1", "1", *WHOLE_TEXT)])
    assert verdict.equal is None
    assert str(verdict.reason).startswith("the package math-verify is not installed: pip install")


def test_a_child_that_never_works_is_not_tried_for_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    verdicts = judge([Question("1", "1", *WHOLE_TEXT)] * 2000)
    assert {verdict.equal for verdict in verdicts} == {None}
    assert verdicts[0].reason == "math-verify died (exit code 1), twice"
    assert verdicts[1999].reason == "math-verify does not work here: math-verify died (exit code 1), twice"


def test_a_child_that_says_nothing_is_given_up() -> None:
    [verdict] = judge([Question("18", TOWER, *WHOLE_TEXT)], seconds=60, wall=0.2)
    assert (verdict.equal, verdict.reason) == (None, "math-verify did not answer within 0.2 s, twice")


def test_it_works_outside_the_main_thread() -> None:
    found: list[bool | None] = []
    thread = threading.Thread(
        target=lambda: found.extend(v.equal for v in compare([("$1/2$", "$0.5$")], "math_verify"))
    )
    thread.start()
    thread.join()
    assert found == [True]


@pytest.mark.parametrize("solution", ["$\\boxed{}$", "$\\boxed{\\, ~}$", "in a \\boxed", "$\\boxed{5$"])
def test_an_item_without_a_gold_answer_is_refused_and_never_scored(solution: str, tmp_path: Path) -> None:
    row = {"problem": "?", "solution": solution}
    items = tmp_path / "items.jsonl"
    items.write_text(json.dumps(row) + "\n")
    with pytest.raises(M3Error, match="hendrycks_math item 0: its solution must hold the gold answer in"):
        HendrycksMath().problems(str(items))
    [score], _ = evaluate(HendrycksMath("boxed"), [Problem("0", row)], [Answer("0", "\\boxed{5}")])
    assert score.value is None
    assert "must hold the gold answer" in str(score.reason)


# ---------------------------------------------------------------------------------------------- sub-scores and audits


def test_math_sub_scores_by_level_and_type() -> None:
    answers = [Answer("0", "The answer is: 1/2"), Answer("1", "The answer is: 2x+1"), Answer("2", "The answer is: 3")]
    scores, result = evaluate(HendrycksMath(), MATH, answers)
    assert scores[1].notes == {"level": "Level 5", "type": "Algebra"}
    levels, types = result.details["by_level"], result.details["by_type"]
    assert {name: (part["score"], part["n"]) for name, part in levels.items()} == {
        "Level 1": (100.0, 1),
        "Level 5": (50.0, 2),
    }
    assert {name: (part["score"], part["n"]) for name, part in types.items()} == {
        "Algebra": (100.0, 2),
        "Geometry": (0.0, 1),
    }
    assert levels["Level 5"]["low"] < 50 < levels["Level 5"]["high"]


def test_items_without_levels_have_no_sub_scores() -> None:
    problem = Problem("0", {"problem": "?", "solution": "\\boxed{1}", "level": None})
    _, result = evaluate(HendrycksMath(), [problem], [Answer("0", "The answer is: 1")])
    assert result.details == {"no_answer_found": 0}


def test_an_unscored_item_is_not_in_its_sub_score() -> None:
    _, result = evaluate(HendrycksMath(), MATH, [Answer("1", "The answer is: 2x+1")])
    assert {name: part["n"] for name, part in result.details["by_level"].items()} == {"Level 5": 1}


@pytest.mark.parametrize(
    ("text", "goes_on"),
    [
        ("The answer is: 4", False),
        ("The answer is: 4\n\n### Instruction:\nAnother", True),
        ("#### 4\n\nQuestion: How many?", True),
        ("\\boxed{4}. Q: no new line", False),
        ("\\boxed{4}\nQ: How many?", True),
        ("### Instruction: no answer before it", False),
        ("The answer is 4. The answer is: 4", False),
        ("", False),
    ],
)
def test_answers_that_run_on(text: str, goes_on: bool) -> None:
    assert ran_on([Answer("0", text)]) == int(goes_on)


@pytest.mark.parametrize("part", ["\n", "\n ", "\r\n", "\\[", "$", "Q "])
def test_no_text_takes_an_audit_long(part: str) -> None:
    text = "#### 1" + part * (400_000 // len(part))
    started = time.monotonic()
    assert ran_on([Answer("0", text)]) == 0
    hendrycks_math.extract_flexible(text)
    assert time.monotonic() - started < 2


def test_what_every_extractor_makes_of_the_same_answers() -> None:
    answers = [Answer("0", "The answer is: 4"), Answer("1", "#### 1250\nQuestion: 5?"), Answer("2", "I say -3")]
    report = GSM8K().audit(GSM, answers)
    assert report["ran_on"] == 1
    assert {name: (round(found["score"]), found["no_answer"]) for name, found in report["extractors"].items()} == {
        "paper": (33, 2),
        "strict": (33, 2),
        "flexible": (67, 0),
        "last_number": (67, 0),
        "boxed": (0, 3),
        "math_verify": (67, 0),
    }
    pairs = {(pair["a"], pair["b"]): (pair["n"], pair["ids"]) for pair in report["disagreements"]}
    assert len(pairs) == 15
    assert report["warnings"] == []  # of three answers nothing can be said
    assert pairs["paper", "strict"] == (2, ["0", "1"])
    assert pairs["flexible", "math_verify"] == (0, [])  # of answer 1 both read the 5


@pytest.mark.slow
def test_the_audit_warns_where_extractors_differ_by_more_than_chance() -> None:
    """Of 40 answers with a decimal 12 are right: 30 points, by Tango's published formula 18.1 to 45.4."""
    problems = [Problem(str(k), GSM[0].row) for k in range(40)]
    answers = [Answer(str(k), f"The answer is: {'4.0' if k < 12 else '5'}") for k in range(40)]
    report = GSM8K("flexible").audit(problems, answers)
    warned = [sentence for sentence in report["warnings"] if sentence.startswith("last_number scores")]
    assert len(warned) == 1
    assert warned[0].startswith(
        "last_number scores 30.0 points above flexible (95 % interval 18.1 to 45.4, paired over 40"
    )
    assert "Read some of the ids under `disagreements`" in warned[0]
    silent = [sentence for sentence in report["warnings"] if "strict" in sentence or "boxed" in sentence]
    assert silent == []  # they find nothing in any answer, and were not asked for
    assert any("strict finds no answer in 40 of 40" in s for s in GSM8K("strict").audit(problems, answers)["warnings"])
    same = [Answer(str(k), "The answer is: 4\n#### 4\n\\boxed{4}") for k in range(40)]
    assert GSM8K().audit(problems, same)["warnings"] == []


@pytest.mark.slow
def test_the_math_audit_keeps_the_equivalence_that_was_asked_for() -> None:
    answers = [Answer("1", "\\boxed{1+2x}")]
    for equivalence, boxed in (("paper", 0.0), ("math_verify", 100.0)):
        report = HendrycksMath("boxed", equivalence).audit([MATH[1]], answers)  # type: ignore[arg-type]
        assert {name: found["score"] for name, found in report["extractors"].items()} == {
            "paper": 0.0, "boxed": boxed, "flexible": boxed, "math_verify": 100.0,
        }  # fmt: skip


def test_general_counts() -> None:
    answers = [Answer("0", " ", finish="length"), Answer("1", "x", finish=""), Answer("2", "y", finish="stop")]
    scores = [Score("0", None, reason="judge is away"), Score("1", 1.0), Score("2", None)]
    assert counts(answers, scores) == {
        "answers": 3, "empty": 1, "cut": 1, "unscored": 2, "reasons": {"judge is away": 1, "no reason given": 1},
    }  # fmt: skip
    assert counts([Answer("1", "x", finish="")], [Score("1", 1.0)])["cut"] is None


@pytest.mark.slow
def test_score_audit_prints_one_object(tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    write_lines(items, (problem.row for problem in GSM))
    path = tmp_path / "answers.jsonl"
    lines = [{"id": "0", "text": "The answer is: 4", "finish": "stop", "sample": "a"}, {"id": "1", "text": "1250"},
             {"id": "2", "text": "", "finish": "length", "n_tokens": None}]  # fmt: skip
    write_lines(path, lines)
    command = [sys.executable, "-m", "m3_exp.cli", "score", "gsm8k", str(path), f"items={items}", "--audit"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    audit = json.loads(done.stdout)["audit"]
    assert {key: audit[key] for key in ("answers", "empty", "cut", "unscored", "ran_on", "details")} == {
        "answers": 3, "empty": 1, "cut": 1, "unscored": 0, "ran_on": 0, "details": {"no_answer_found": 2},
    }  # fmt: skip
    assert audit["extractors"]["flexible"]["score"] == pytest.approx(200 / 3)
    assert [answer.finish for _, answer in read_answers(path)] == ["stop", "", "length"]


def test_a_broken_audit_takes_nothing_from_the_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(GSM8K, "audit", broken)
    items, answers = tmp_path / "items.jsonl", tmp_path / "answers.jsonl"
    items.write_text(json.dumps(GSM[0].row) + "\n")
    answers.write_text(json.dumps({"id": "0", "text": "The answer is: 4"}) + "\n")
    spec = EvaluatorSpec("gsm8k", "evaluators.gsm8k:GSM8K", {}, str(items))
    found, code = score_file(spec, answers, audit=True)
    assert (code, found["score"]) == (0, 100.0)
    assert found["audit"]["failed"] == "gsm8k failed: RuntimeError: boom"
    assert found["audit"]["answers"] == 1


@pytest.mark.slow
def test_a_hang_makes_m3_score_exit_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from m3_exp.scoring import math_process

    monkeypatch.setattr(math_process.judge, "__defaults__", (1, 60.0))
    items, answers, out = tmp_path / "items.jsonl", tmp_path / "answers.jsonl", tmp_path / "out.jsonl"
    write_lines(items, (problem.row for problem in GSM[:2]))
    answers.write_text(
        json.dumps({"id": "0", "text": "It is 4"}) + "\n" + json.dumps({"id": "1", "text": TOWER}) + "\n"
    )
    spec = EvaluatorSpec("gsm8k", "evaluators.gsm8k:GSM8K", {"extractor": "math_verify"}, str(items))
    found, code = score_file(spec, answers, out)
    assert (code, found["score"], found["n_scored"], found["n_unscored"]) == (1, 100.0, 1, 1)
    assert [json.loads(line)["value"] for line in out.read_text().splitlines()] == [1.0, None]


def test_math_settings_are_checked() -> None:
    target = "evaluators.hendrycks_math:HendrycksMath"
    with pytest.raises(M3Error, match="equivalence=sympy is not known; allowed are paper, hendrycks, math_verify"):
        load_evaluator(EvaluatorSpec("hendrycks_math", target, {"equivalence": "sympy"}))
