"""LiveBench typos: prompts, the two rules, which questions count, what has no gold text; and averages over tasks."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from evaluators.livebench_typos import LiveBenchTypos, last_line, solution
from m3_exp.scoring.evaluate import evaluate, load_evaluator
from m3_exp.types import Answer, EvaluatorSpec, M3Error, Problem, Score
from tests.files import write_lines

DATA = Path(os.environ.get("M3_DATA", "/nonexistent"))
needs_data = pytest.mark.skipif(
    not (DATA / "livebench/language/typos").is_dir(), reason="M3_DATA/livebench/language/typos is not here"
)


def question(key: str, text: str, gold: str | None, **row: Any) -> Problem:
    turn = f"Fix the misspellings.\n\n{text}"
    return Problem(key, {"question_id": key, "task": "typos", "turns": [turn], "ground_truth": gold, **row})


GOLD = "The cat sat, then left."
QUESTIONS = [question("a", "Teh cat sat, then lefft.", GOLD), question("b", "Not knwon.", None)]


def one(evaluator: LiveBenchTypos, text: str) -> Score:
    [score] = evaluator.score(QUESTIONS[:1], [Answer("a", text)])
    return score


def test_the_papers_prompt_to_the_letter() -> None:
    assert LiveBenchTypos().prompt(question("q", "One.\n\nTwo.", None)) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nFix the misspellings.\n\n### Text with errors:\nOne.\n\nTwo.\n\n"
        "### Response: the corrected paragraph is:"
    )
    assert LiveBenchTypos().sampling.stops == ("The answer is:",)
    assert LiveBenchTypos().sampling.max_tokens == 2048


@pytest.mark.parametrize("evaluator", [LiveBenchTypos(template="livebench"), LiveBenchTypos(chat_template=True)])
def test_without_the_papers_template_the_prompt_is_the_question(evaluator: LiveBenchTypos) -> None:
    assert evaluator.prompt(QUESTIONS[0]) == QUESTIONS[0].row["turns"][0]
    assert evaluator.sampling.stops == ()


# (answer, right by rule=paper, right by rule=livebench)
CASES = [
    (GOLD, True, True),
    (f"Sure: {GOLD} Done.", True, True),
    (f"Here:\n\n{GOLD}\n\n", True, True),
    (f"{GOLD}\nI changed two words.", False, True),
    ("The cat sat,\nthen left.", False, True),
    ("The cat sat then left.", False, False),
    (GOLD.lower(), False, False),
    (f"<solution>{GOLD}</solution>", True, True),
    (f"<solution>{GOLD}</solution> <solution>no</solution>", True, False),
    (f"<solution>no</solution>\n<solution>{GOLD}</solution>", True, True),
    (f"<solution>\n{GOLD}\n</solution>", False, True),  # tags on lines of their own are only removed
    (f"It is --- {GOLD} --- so", True, True),
    (f"{GOLD} --- no --- so", True, False),
    (f"The answer is: {GOLD}", False, False),  # the stop string ends the answer before it
    ("", False, False),
    ("\n \n", False, False),
]


@pytest.mark.parametrize(("text", "paper", "livebench"), CASES)
def test_the_two_rules(text: str, paper: bool, livebench: bool) -> None:
    assert one(LiveBenchTypos(), text).value == float(paper)
    assert one(LiveBenchTypos(rule="livebench"), text).value == float(livebench)


def test_without_the_papers_template_the_stop_is_not_cut() -> None:
    assert one(LiveBenchTypos(template="livebench"), f"The answer is: {GOLD}").value == 1.0


@pytest.mark.parametrize("text", ["", "\x00", "\ud800", "\n" * 9, "<solution>" * 3000, " --- " * 3000, "x" * 100000])
def test_no_text_breaks_the_rules(text: str) -> None:
    assert isinstance(last_line(text), str)
    assert isinstance(solution(text), str)


def test_questions_without_gold_text_are_left_out_and_named() -> None:
    for text, expected in ((GOLD, 100.0), ("x", 0.0)):
        scores, result = evaluate(LiveBenchTypos(), QUESTIONS, [Answer("a", text), Answer("b", text)])
        assert (result.score, result.n, result.n_scored, result.n_unscored) == (expected, 1, 1, 0)
        assert result.details["left_out"] == {"b": "no gold text"}
        assert (scores[1].value, scores[1].reason) == (None, "left out: its gold text is not known")


def test_a_missing_answer_is_unscored_but_not_left_out() -> None:
    _, result = evaluate(LiveBenchTypos(), QUESTIONS, [Answer("b", "x")])
    assert (result.score, result.n, result.n_unscored) == (None, 1, 1)


@pytest.mark.parametrize(("first", "ids"), [(1, ["0"]), (3, ["0", "1", "2"]), ("whole", ["0", "1", "2", "3"]), (9, 4)])
def test_first_takes_the_files_first_questions(first: Any, ids: Any, tmp_path: Path) -> None:
    path = tmp_path / "typos.jsonl"
    write_lines(path, (question(str(k), "x", "y").row for k in range(4)))
    found = [problem.id for problem in LiveBenchTypos(first=first).problems(str(path))]
    assert found == ids or len(found) == ids


def test_other_language_tasks_of_the_same_file_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "language.jsonl"
    rows = [question(key, "x", "y", task=task).row for key, task in (("a", "connections"), ("b", "typos"))]
    write_lines(path, rows)
    assert [problem.id for problem in LiveBenchTypos(first=1).problems(str(path))] == ["b"]
    path.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(M3Error, match="holds no question of the task typos"):
        LiveBenchTypos().problems(str(path))


@pytest.mark.parametrize("first", [0, -1, True, "half", 2.5])
def test_first_is_a_number_or_the_whole(first: Any) -> None:
    with pytest.raises(M3Error, match=f"first={first} must be a whole number of at least 1, or whole"):
        LiveBenchTypos(first=first)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "strict"}, "rule=strict is not known; allowed are paper, livebench"),
        ({"template": "chat"}, "template=chat is not known; allowed are paper, livebench"),
        ({"release": "2024"}, "release=2024 is not a release; give all or a date such as 2024-11-25"),
        ({"stops": 1}, "livebench_typos has no setting 'stops'; there are max_tokens, release, template, rule, first"),
    ],
)
def test_settings_are_checked_by_name_and_value(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(M3Error, match=message):
        load_evaluator(EvaluatorSpec("livebench_typos", "evaluators.livebench_typos:LiveBenchTypos", settings))


@pytest.mark.parametrize("rule", ["paper", "livebench"])
def test_gold_and_planted_wrong(rule: Any) -> None:
    evaluator = LiveBenchTypos(rule=rule)
    tricky = question("c", "Teh --- one --- x.", "The --- one --- x.")
    for problem in (QUESTIONS[0], tricky):
        [score] = evaluator.score([problem], [Answer(problem.id, str(evaluator.gold(problem)))])
        assert score.value == 1.0
        [score] = evaluator.score([problem], [Answer(problem.id, str(evaluator.wrong(problem)))])
        assert score.value == 0.0
    assert evaluator.gold(QUESTIONS[1]) is evaluator.wrong(QUESTIONS[1]) is None
    assert evaluator.wrong(question("d", "nothing to fix", "nothing to fix")) is None


def test_the_audit_compares_the_rules() -> None:
    report = LiveBenchTypos().audit(QUESTIONS, [Answer("a", f"{GOLD}\nDone."), Answer("b", "x")])
    assert {name: found["score"] for name, found in report["extractors"].items()} == {"paper": 0.0, "livebench": 100.0}
    assert report["disagreements"] == [{"a": "paper", "b": "livebench", "n": 1, "ids": ["a"]}]


@needs_data
@pytest.mark.parametrize("rule", ["paper", "livebench"])
def test_official_gold_scores_100_and_the_uncorrected_text_0(rule: Any) -> None:
    evaluator = LiveBenchTypos(rule=rule)
    problems = evaluator.problems("official")
    assert len(problems) == 50
    for make, expected in ((evaluator.gold, 100.0), (evaluator.wrong, 0.0)):
        _, result = evaluate(evaluator, problems, [Answer(p.id, make(p) or "") for p in problems])
        assert (result.score, result.n, len(result.details["left_out"])) == (expected, 17, 33)
