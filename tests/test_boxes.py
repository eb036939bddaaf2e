"""The reader of boxes: every way that an answer is boxed, and what takes nothing from a box before it."""

import json
import os
import time
from pathlib import Path

import pytest

from evaluators.gsm8k import GSM8K
from evaluators.hendrycks_math import Equivalence, HendrycksMath
from m3_exp.scoring.boxes import last_boxed
from m3_exp.types import Answer, Problem

DATA = Path(os.environ.get("M3_DATA") or Path(__file__).resolve().parent.parent.parent / "shared" / "data")
GSM = Problem("0", {"question": "?", "answer": "#### 28"})
MATH = Problem("0", {"problem": "?", "solution": "$\\boxed{28}$"})


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        ("\\boxed{1}", "1"),
        ("\\boxed{1} \\boxed{\\frac{1}{2}} end", "\\frac{1}{2}"),
        ("\\boxed{a{b}{c}}", "a{b}{c}"),
        ("\\fbox{3}", "3"),
        ("\\boxed{4}, \\fbox{3}", "4"),
        ("none", None),
        ("\\boxedx{5}", None),
        ("\\boxed{5} \\boxed{\\_\\_}", "5"),
        ("\\boxed{5} \\boxed{?}", "5"),
        ("\\boxed{5} \\boxed{\\square}", "5"),
        ("\\boxed{5} \\boxed{\\underline{\\quad}}", "5"),
        # spacing and braces
        ("\\boxed {5}", "5"),
        ("\\boxed\n  {5}", "5"),
        ("\\boxed{ 5 }", " 5 "),
        ("\\boxed{\n5\n}", "\n5\n"),
        ("\\\\boxed{5}", "5"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\left\\{x \\right.}", "\\left\\{x \\right."),
        ("} \\boxed{5} {", "5"),
        # without braces
        ("$\\boxed 5$", "5"),
        ("$\\boxed5$", "5"),
        ("so \\boxed 5.", "5"),
        ("so \\boxed 1,250", "1,250"),
        ("so \\boxed -5\n", "-5"),
        ("so \\boxed 28 pens", "28"),
        ("$\\boxed \\frac{1}{2}$", "\\frac{1}{2}"),
        ("so \\boxed \\frac{1}{2} of it", "\\frac{1}{2}"),
        ("$\\boxed x+1$", "x+1"),
        ("\\(\\boxed \\text{Monday}\\)", "\\text{Monday}"),
        ("It is \\boxed 28, so she pays $5", "28"),
        # only mentioned, empty, cut off
        ("\\boxed{5}. I put it in \\boxed as asked.", "5"),
        ("\\boxed{5}. It is in $\\boxed$, $x$.", "5"),
        ("\\boxed{5}. I used \\boxed 2 times.", "5"),
        ("\\boxed{5} is in \\boxed{}.", "5"),
        ("\\boxed{5} is in `\\boxed{}`", "5"),
        ("\\boxed{5} is in \\boxed{ \\, ~\\quad\\text{ }}.", "5"),
        ("\\boxed{5} is in \\boxed{...}, \\boxed{\\ldots}", "5"),
        ("\\boxed{5} or \\boxed{6", "5"),
        ("\\boxed{5} or \\boxed{\\frac{6}", "5"),
        ("\\boxed{5} or \\boxed", "5"),
        ("\\boxed{", None),
        ("\\boxed{open", None),
        ("\\boxed{}", None),
        ("\\boxed", None),
        ("put it in \\boxed (see above) $5$", None),
        # a box in a box
        ("\\boxed{\\boxed{5}}", "5"),
        ("\\boxed{-\\boxed{5}}", "-5"),
        ("\\boxed{x = \\fbox{5}}", "x = 5"),
        ("\\boxed{5 \\boxed{}}", "5 "),
        ("\\boxed{x = \\boxed{5}", "5"),
        ("\\boxed{\\boxed{5}, \\boxed{6}}", "5, 6"),
    ],
)
def test_last_boxed(text: str, boxed: str | None) -> None:
    assert last_boxed(text) == boxed


FORMS = ["{}", "${}$", "\\({}\\)", "\\[\n{}\n\\]", "**{}**", "- {}", "{}\n\n", "Final:\n{}."]
EQUIVALENCES: list[Equivalence] = ["paper", "hendrycks", "math_verify", "nemo_skills"]


@pytest.mark.slow
def test_both_benchmarks_read_a_box_wherever_it_stands() -> None:
    tail = " I wrote it in \\boxed as asked, not as \\boxed{} or \\boxed{2"
    answers = [Answer("0", form.format("\\boxed{28}") + tail, sample) for sample, form in enumerate(FORMS)]

    def unread(evaluator: GSM8K | HendrycksMath, problem: Problem) -> list[str]:
        scores = evaluator.score([problem] * len(FORMS), answers)
        return [form for form, score in zip(FORMS, scores, strict=True) if score.value != 1.0]

    assert unread(GSM8K(extractor="boxed"), GSM) == []
    for equivalence in EQUIVALENCES:
        assert unread(HendrycksMath(extractor="boxed", equivalence=equivalence), MATH) == [], equivalence


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", ["\\boxed{", "\\boxed ", "\\boxed 5 $ ", "{", "}", "\\", "\\boxed{}", "\\boxed{1}", "\\fbox"]
)
def test_no_text_takes_long(part: str) -> None:
    start = time.process_time()
    for text in (part * (200_000 // len(part)), part * 5000 + "}" * 5000):
        last_boxed(text)
    assert time.process_time() - start < 4


def hendrycks_last_boxed(solution: str) -> str:
    """What Hendrycks et al.'s `last_boxed_only_string` takes: from the last \\boxed to the brace that closes it."""
    start = solution.rindex("\\boxed{") + len("\\boxed{")
    depth, end = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(solution[end], 0)
        end += 1
    return solution[start : end - 1]


def test_the_gold_answers_of_math_are_hendrycks() -> None:
    path = DATA / "math" / "test.jsonl"
    if not path.is_file():
        pytest.skip("MATH is not here: set M3_DATA to the folder that holds math/test.jsonl")
    solutions = [json.loads(line)["solution"] for line in path.read_text().splitlines()]
    assert len(solutions) == 5000
    assert [s for s in solutions if "\\boxed{" in s and last_boxed(s) != hendrycks_last_boxed(s)] == []
    assert [last_boxed(s) for s in solutions if "\\boxed{" not in s] == []
