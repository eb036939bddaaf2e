"""Faults that showed when published outputs were scored again: each with the verdict that its authors gave."""

import os

import pytest

from evaluators.gsm8k import GSM8K
from evaluators.hendrycks_math import HendrycksMath
from evaluators.livebench_instruction_following.ifeval import sentences
from m3_exp.scoring.evaluate import evaluate
from m3_exp.types import Answer, Problem

COLUMN = "\\boxed{\n\\begin{pmatrix}\n%s \\\\\n6\n\\end{pmatrix}\n}"


def value(tested: GSM8K | HendrycksMath, gold: str, text: str) -> float | None:
    row = {"question": "?", "answer": f"#### {gold}", "problem": "?", "solution": rf"\boxed{{{gold}}}"}
    [score], _ = evaluate(tested, [Problem("0", row)], [Answer("0", text)])
    return score.value


@pytest.mark.slow
@pytest.mark.parametrize("equivalence", ["math_verify", "nemo_skills"])
@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        (r"\begin{pmatrix} -6 \\ 6 \end{pmatrix}", COLUMN % "-6", 1.0),
        (r"\begin{pmatrix} -6 \\ 6 \end{pmatrix}", COLUMN % "-7", 0.0),
        ("6", f"${COLUMN % '-7'}$", 0.0),
        (r"\frac{1}{2}", "\\boxed{\n\\frac{1}\n{2}\n}", 1.0),
    ],
)
def test_a_box_may_have_line_breaks(equivalence: str, gold: str, text: str, right: float) -> None:
    assert value(HendrycksMath(extractor="boxed", equivalence=equivalence), gold, text) == right  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gold", "box", "right"),
    [
        ("20", r"20.0\%", 1.0),
        ("20", r"21.0\%", 0.0),
        ("94", r"94\,\%", 1.0),
        ("8400", "x = 8,400", 1.0),
        ("8400", r"\text{Difference} = \$8,400", 1.0),
        ("8400", r"\text{Difference} = \$8,401", 0.0),
        ("28", r"2 \text{ boxes and } 8", 0.0),
        ("15", "15 - p", 0.0),
        ("72", "72Ihopeitiscorrect", 0.0),
        ("15", "x = 15 - p", 0.0),
    ],
)
def test_a_dressed_number_is_that_number_for_math_verify(gold: str, box: str, right: float) -> None:
    assert value(GSM8K(extractor="math_verify"), gold, rf"So it is \boxed{{{box}}}.") == right


@pytest.mark.skipif("M3_DATA" not in os.environ, reason="M3_DATA is not set: NLTK's punkt_tab lies there")
@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("He said “Go.” Then he left.", 1),
        ('He said "Go." Then he left.', 2),
        ("«Va.» Puis il part.", 1),
        ("It works. (Yes.) Dr. Smith came! Why?", 4),
    ],
)
def test_sentences_are_counted_as_up_to_nltk_3_9_1(text: str, n: int) -> None:
    assert len(sentences(text)) == n
