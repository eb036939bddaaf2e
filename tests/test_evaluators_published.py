"""Other people's published verdicts, reproduced item by item; and the benchmarks' own gold answers.

They need the benchmarks' files and published outputs (`M3_DATA`), which may not be in this repository.
"""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from evaluators import gsm8k, hendrycks_math
from evaluators.gsm8k import GSM8K
from evaluators.hendrycks_math import HendrycksMath
from evaluators.humaneval import HumanEval
from m3_exp.scoring.evaluate import evaluate
from m3_exp.scoring.math_equivalence import is_equiv, normalize
from m3_exp.scoring.math_rules import compare
from m3_exp.types import Answer, Problem

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("M3_DATA") or ROOT.parent / "shared" / "data")
PUBLISHED = DATA / "published_outputs"


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    if not PUBLISHED.is_dir():
        pytest.skip("the published outputs are not here: set M3_DATA to the folder that holds published_outputs")
    monkeypatch.setenv("M3_DATA", str(DATA))


def rows(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.decode().splitlines()]


SYSTEMS = {"6b_finetuning": 21.68, "6b_verification": 39.04, "175b_finetuning": 34.72, "175b_verification": 56.25}


@pytest.mark.slow
def test_gsm8k_published_verdicts_item_by_item() -> None:
    """OpenAI's four systems: 5276 of 5276 verdicts, and the four published accuracies."""
    published = rows(PUBLISHED / "gsm8k" / "openai_example_model_solutions.jsonl.gz")
    problems = GSM8K().problems("official")
    by_question = {problem.row["question"]: problem for problem in problems}
    assert len(published) == len(by_question) == 1319
    agreed: dict[gsm8k.Extractor, int] = {"flexible": 0, "last_number": 0}
    for system, accuracy in SYSTEMS.items():
        answers = [Answer(by_question[row["question"]].id, row[system]["solution"]) for row in published]
        verdicts = {by_question[row["question"]].id: row[system]["is_correct"] for row in published}
        for extractor in agreed:
            scores, result = evaluate(GSM8K(extractor=extractor), problems, answers)
            agreed[extractor] += sum((score.value == 1.0) == verdicts[score.id] for score in scores)
            assert result.score == pytest.approx(accuracy, abs=0.005)
    assert agreed == {"flexible": 5276, "last_number": 5276}


RENDERINGS = {
    "The answer is: {}": [100.0, 0.0, 100.0, 100.0, 0.0, 100.0],
    "The answer is {}.": [0.0, 0.0, 100.0, 100.0, 0.0, 100.0],
    "#### {}": [0.0, 100.0, 100.0, 100.0, 0.0, 100.0],
    "\\boxed{{{}}}": [0.0, 0.0, 100.0, 100.0, 100.0, 100.0],
    "The answer is: {}.00": [100.0, 0.0, 0.0, 100.0, 0.0, 100.0],
    "The answer is: {:,}": [99.8, 0.0, 100.0, 100.0, 0.0, 100.0],
    "The answer is: \\${:,}.00.": [99.8, 0.0, 0.0, 100.0, 0.0, 0.0],
    "The answer is: {} dollars per 7 days.": [100.0, 0.0, 1.5, 1.5, 0.0, 100.0],
    "The answer is: {}.4": [100.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # wrong, and right for the paper's script
}


@pytest.mark.slow
@pytest.mark.parametrize("rendering", RENDERINGS)
def test_gsm8k_gold_in_many_renderings(rendering: str) -> None:
    """What each extractor makes of the gold answers written in one way: the table of docs/benchmarks.md.

    For math_verify, which is slow, every tenth of them.
    """
    problems = GSM8K().problems("official")
    answers = [Answer(problem.id, rendering.format(gsm8k.gold(problem))) for problem in problems]
    names: list[gsm8k.Extractor] = ["paper", "strict", "flexible", "last_number", "boxed"]
    found = [evaluate(GSM8K(name), problems, answers)[1].score for name in names]
    found.append(evaluate(GSM8K("math_verify"), problems[::10], answers[::10])[1].score)
    assert found == pytest.approx(RENDERINGS[rendering], abs=0.06)


@pytest.mark.slow
def test_humaneval_published_verdicts_item_by_item() -> None:
    """WizardCoder-15B, greedy: 164 of 164 verdicts, 59.8 %, from whole programs and from the raw answers alike."""
    published = rows(PUBLISHED / "humaneval" / "wizardcoder-15b-v1.0.greedy.results.jsonl.gz")
    problems = HumanEval().problems("official")
    passed = {row["task_id"]: row["passed"] for row in published}
    assert (len(published), sum(passed.values())) == (164, 98)
    for field in ("completion", "all_code"):
        scores, result = evaluate(HumanEval(), problems, [Answer(row["task_id"], row[field]) for row in published])
        assert [score.id for score in scores if (score.value == 1.0) != passed[score.id]] == []
        assert result.n_scored == 164
        assert result.score == pytest.approx(59.756, abs=0.001)
        assert result.details["score_paper_reading"] == result.score


@pytest.mark.slow
def test_humaneval_gold_passes_in_every_form() -> None:
    """164 of 164 as a body, a body without its first indentation, and a whole function without the prompt's imports."""
    problems = HumanEval().problems("official")
    forms = {
        "body": lambda row: row["canonical_solution"],
        "first_line": lambda row: row["canonical_solution"].strip(),
        "paper": lambda row: (
            row["prompt"][row["prompt"].index(f"def {row['entry_point']}") :] + row["canonical_solution"]
        ),
    }
    for reading, form in forms.items():
        scores, result = evaluate(HumanEval(), problems, [Answer(p.id, form(p.row)) for p in problems])
        assert [score for score in scores if score.value != 1.0] == []
        assert result.details["readings"] == {reading: 164}


@pytest.mark.slow
def test_humaneval_emptied_solutions_all_fail() -> None:
    problems = HumanEval().problems("official")
    assert {HumanEval().wrong(p) for p in problems} == {"    return None\n"}
    scores, result = evaluate(HumanEval(), problems, [Answer(p.id, HumanEval().wrong(p)) for p in problems])
    assert (result.score, result.n_scored) == (0.0, 164)
    assert {score.extracted for score in scores} == {"body"}


@pytest.mark.slow
def test_math_gold_answers_are_equivalent_to_themselves_however_they_are_written() -> None:
    """All 5000 in a box and with \\dfrac for \\frac, and none is a form not treated.

    In the paper's phrase one can never be right: the gold answer of 2269 ends in a full stop, which extraction removes.
    """
    problems = HendrycksMath().problems("official")
    golds = [hendrycks_math.gold(problem) for problem in problems]
    assert all(normalize(gold) is not None for gold in golds)
    never = {"paper": ["2269"], "boxed": [], "flexible": []}
    for extractor, items in never.items():
        for equivalence in ("paper", "hendrycks"):
            evaluator = HendrycksMath(extractor, equivalence)  # type: ignore[arg-type]
            scores, _ = evaluate(evaluator, problems, [Answer(p.id, evaluator.gold(p)) for p in problems])
            assert [score.id for score in scores if score.value != 1.0] == items
            scores, _ = evaluate(evaluator, problems, [Answer(p.id, evaluator.wrong(p)) for p in problems])
            assert [score.id for score in scores if score.value != 0.0] == []
    assert sum(is_equiv(gold.replace("\\frac", "\\dfrac"), gold) for gold in golds) == 5000
    assert sum(is_equiv("777" + gold, gold) for gold in golds) == 0


def test_math_500_is_scored_from_a_path() -> None:
    problems = HendrycksMath().problems(str(DATA / "math" / "math500.jsonl"))
    assert len(problems) == 500
    assert all(is_equiv(hendrycks_math.gold(problem), problem.row["answer"]) for problem in problems)


@pytest.mark.slow
@pytest.mark.parametrize("extractor", ["math_verify", "boxed"])
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.long), 25])
def test_math_verify_says_yes_to_all_gold_answers(extractor: str, step: int) -> None:
    """All 5000 of them (every 25th in the short form), as whole answers and as extracted ones."""
    evaluator = HendrycksMath(extractor, "math_verify")  # type: ignore[arg-type]
    problems = evaluator.problems("official")[::step]
    scores, result = evaluate(evaluator, problems, [Answer(p.id, evaluator.gold(p)) for p in problems])
    assert [score for score in scores if score.value != 1.0] == []
    assert {"Level 1", "Level 5"} <= set(result.details["by_level"])


@pytest.mark.slow
def test_math_levels_and_types_are_all_there() -> None:
    """Hendrycks et al.: five levels, seven subjects."""
    evaluator = HendrycksMath()
    problems = evaluator.problems("official")
    _, result = evaluate(evaluator, problems, [Answer(p.id, evaluator.gold(p)) for p in problems])
    assert {name: part["n"] for name, part in result.details["by_level"].items()} == {
        "Level 1": 437, "Level 2": 894, "Level 3": 1131, "Level 4": 1214, "Level 5": 1324,
    }  # fmt: skip
    assert {name: part["n"] for name, part in result.details["by_type"].items()} == {
        "Algebra": 1187, "Counting & Probability": 474, "Geometry": 479, "Intermediate Algebra": 903,
        "Number Theory": 540, "Prealgebra": 871, "Precalculus": 546,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- answer equivalence

# What Math-Verify's own tests look for, by the test's name: LaTeX and plain expressions unless it says otherwise.
ONLY = {
    "test_number_extraction": "math_verify_expr",
    "test_latex_notation": "math_verify_latex",
    "test_set_rel_assymetry": "math_verify_latex",
}
OPTIONS = {"precision": "float_rounding"}  # the name that the tests' helper has for verify's


def checker(case: dict[str, Any]) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """Return the rule of a case's source, and the options that its test sets."""
    if not case["source"].startswith("huggingface/Math-Verify"):
        return {"hendrycks/math": "hendrycks", "NVIDIA/NeMo-Skills": "nemo_skills"}[case["source"].split(":")[0]], ()
    options = {OPTIONS.get(key, key): value for key, value in (case["extra"] or {}).items()}
    return ONLY.get(case["test"], "math_verify"), tuple(sorted(options.items()))


@pytest.mark.slow
def test_equivalence_pairs_by_their_sources_own_rules() -> None:
    """150 of 150 pairs of three public checkers' tests."""
    cases = rows(PUBLISHED / "answer_equivalence" / "equivalence_cases.jsonl")
    groups: dict[Any, list[dict[str, Any]]] = {}
    for case in cases:
        groups.setdefault(checker(case), []).append(case)
    wrong = []
    for (rule, options), members in groups.items():
        pairs = [(str(case["gold"]), None if case["pred"] is None else str(case["pred"])) for case in members]
        verdicts = compare(pairs, rule, **dict(options))
        wrong += [case for case, verdict in zip(members, verdicts, strict=True) if verdict.equal != case["expected"]]
    assert len(cases) == 150
    assert wrong == []


def test_hendrycks_cases_hold_for_the_papers_copy_too() -> None:
    cases = rows(PUBLISHED / "answer_equivalence" / "equivalence_cases.jsonl")
    own = [case for case in cases if case["source"].startswith("hendrycks/math")]
    assert len(own) == 8
    assert [case for case in own if is_equiv(case["gold"], case["pred"]) != case["expected"]] == []


def test_planted_wrong_answers_score_0_on_the_real_items() -> None:
    problems = GSM8K().problems("official")
    wrong = [Answer(problem.id, f"The answer is: {gsm8k.gold(problem) + 1}") for problem in problems]
    for extractor in ("paper", "flexible"):
        assert evaluate(GSM8K(extractor), problems, wrong)[1].score == 0.0
    assert isinstance(problems[0], Problem)
