"""math-verify's false verdicts on numbers, put right by arithmetic (huggingface/Math-Verify #14, #34, #81)."""

import pytest

from evaluators.gsm8k import GSM8K
from evaluators.hendrycks_math import HendrycksMath
from m3_exp.scoring.math_rules import compare
from m3_exp.types import Answer, Problem

# Whole answers to GSM8K items: the gold integer, the text, and whether it says that number.
WHOLE = [
    (2, "The answer is 2 2/3", False), (2, "It is 2 2/3 hours.", False), (2, "**2 2/3**", False), (2, "2½", False),
    (3, "The answer is 1 3/2", False), (10, "4 10/3", False), (-2, "-2 2/3", False), (2, "\\boxed{2 2/3}", False),
    (2, "The answer is 2.", True), (2, "The answer is 4/2", True), (2, "2 pens", True),
    (2516, "$2516_9$", False), (2516, "\\boxed{2516_{8}}", False), (2516, "2516_9", False), (2516, "$2516_{10}$", True),
    (1000, "The answer is 1000(26).", False), (26, "The answer is 1000(26)", False), (26000, "It is $1000(26)$", True),
    (5, "The answer is 5 or 6", False), (28, "It is 28 or 28 pens", True), (6, "The answer is 5 or 6", False),
    (5, "5:6", False), (28, "it is 28x", False), (28, "it is 28i", False),
    (28, "\\boxed {28}", True), (28, "$\\boxed 28$", True),
    (28, "\\boxed{28.}", True), (28, "\\(28.\\)", True), (28, "so $28.$", True), (28, "= $\\$28.$", True),
    (28, "28 km", True), (28, "28!", True), (1234, "1,234", True), (28, "28%", True),
    (28, "the answer is 28 in x", True),
]  # fmt: skip

# Short answers in LaTeX: both equivalences with algebra say the same of them.
SHORT = [
    ("\\frac{8}{3}", "2 2/3", True), ("2\\frac{2}{3}", "2 2/3", True), ("2\\frac{2}{3}", "\\frac{8}{3}", True),
    ("2", "2 2/3", False), ("\\frac{22}{3}", "2 2/3", False), ("3\\frac{1}{2}", "3 1/2", True),
    ("31/2", "3 1/2", False),
    ("\\frac{4}{3}", "2\\frac{2}{3}", False), ("-2\\frac{1}{2}", "-2 1/2", True), ("2", "1 3/2", False),
    ("2516_8", "2516_9", False), ("2516_8", "2516_{9}", False), ("2516_8", "2516_8", True),
    ("2516_8", "2516_{8}", True),
    ("2516_8", "2516", True), ("2516", "2516_9", False), ("2516_8", "2516_{\\text{nine}}", False),
    ("2516_8", "2516_{\\text{eight}}", True),
    ("2516_8", "2516_{(9)}", False), ("A3_{16}", "A3_{12}", False), ("A3_{16}", "A3_{16}", True),
    ("\\frac{1}{2004!}", "\\frac{1}{2006!}", False), ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}", False),
    ("0.0000001", "0.0000002", False), ("0.0000001", "10^{-7}", True), ("\\frac{1}{2^{99}}", "2^{-99}", True),
    ("1234", "1\\,234", True), ("1{,}234.50", "\\$1\\,234.50", True), ("1234567", "1\\,234\\,567", True),
    ("12345", "12\\,34\\,5", False), ("x_1", "x_1", True), ("x_2", "x_1", False), ("5", "5.", True),
]  # fmt: skip


def test_whole_answers() -> None:
    problems = [Problem(str(k), {"question": "?", "answer": f"#### {gold}"}) for k, (gold, _, _) in enumerate(WHOLE)]
    answers = [Answer(str(k), text) for k, (_, text, _) in enumerate(WHOLE)]
    scores = GSM8K(extractor="math_verify").score(problems, answers)
    assert [(*case[:2], score.value == 1.0) for case, score in zip(WHOLE, scores, strict=True)] == WHOLE


@pytest.mark.slow
@pytest.mark.parametrize("equivalence", ["math_verify", "nemo_skills"])
def test_short_answers(equivalence: str) -> None:
    problems = [
        Problem(str(k), {"problem": "?", "solution": f"\\boxed{{{gold}}}"}) for k, (gold, _, _) in enumerate(SHORT)
    ]
    answers = [Answer(str(k), f"\\boxed{{{pred}}}") for k, (_, pred, _) in enumerate(SHORT)]
    scores = HendrycksMath(extractor="boxed", equivalence=equivalence).score(problems, answers)  # type: ignore[arg-type]
    assert [(*case[:2], score.value == 1.0) for case, score in zip(SHORT, scores, strict=True)] == SHORT


def test_what_is_listed_and_not_guarded() -> None:
    """The pitfalls of docs/benchmarks.md: should math-verify change one of them, the page has to."""
    pairs = [
        ("$10\\text{ cm}$", "$10\\text{ m}$"), ("$50\\%$", "$0.5$"), ("$50\\%$", "$50$"), ("$1,2$", "$(1,2)$"),
        ("$4$", "$4\\sqrt(2)$"), ("$1 - \\frac{1}{\\mathrm{e}}$", "$1 + \\frac{1}{\\mathrm{e}}$"), ("$5$", "5 and 6"),
    ]  # fmt: skip
    assert [verdict.equal for verdict in compare(pairs, "math_verify")] == [True] * 6 + [False]
