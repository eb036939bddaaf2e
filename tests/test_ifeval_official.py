"""IFEval's official file: signs in the place of letters, items that cannot be read, and verdicts of langdetect."""

from pathlib import Path
from typing import Any

import pytest

from evaluators.livebench_instruction_following import LiveBenchInstructionFollowing
from evaluators.livebench_instruction_following.ifeval import follows
from m3_exp.scoring.evaluate import evaluate, score_file
from m3_exp.scoring.trust import examine
from m3_exp.types import Answer, EvaluatorSpec, M3Error, Problem
from tests.files import write_lines

IFEVAL = LiveBenchInstructionFollowing(answer="livebench")


def question(key: str, instructions: Any, kwargs: Any) -> dict[str, Any]:
    return {
        **{"question_id": key, "task": "simplify", "turns": ["Follow the instructions."]},
        **{"instruction_id_list": instructions, "kwargs": kwargs},
    }


def own(key: int, instructions: Any, kwargs: Any) -> dict[str, Any]:
    return {"key": key, "prompt": "Do it.", "instruction_id_list": instructions, "kwargs": kwargs}


def file(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "items.jsonl"
    write_lines(path, rows)
    return str(path)


COMMA = (["punctuation:no_comma"], [{}])
# What is wrong with an item, and what its reason says.
UNREADABLE = [
    ((["keywords:colour"], [{}]), "item bad: 'keywords:colour' is not an instruction; there are keywords:existence"),
    ((["punctuation:no_comma", "a:b"], [{}, {}]), "'a:b' is not an instruction"),
    ((["punctuation:no_comma"], "{}"), "its kwargs is '{}'; give a list"),
    ((["punctuation:no_comma"], None), "its kwargs is 'None'; give a list"),
    ((["punctuation:no_comma"], []), "1 instructions and 0 kwargs"),
    ((["punctuation:no_comma"], ["{}"]), "the kwargs of punctuation:no_comma are {}; give an object"),
    (("punctuation:no_comma", [{}]), "its instruction_id_list is 'punctuation:no_comma'; give a list"),
    (([["punctuation:no_comma"]], [{}]), "is not an instruction"),
    (([], []), "0 instructions and 0 kwargs"),
    ((["keywords:existence"], [{}]), "has the kwargs none; it takes keywords"),
    ((["language:response_language"], [{"language": "xx"}]), "language='xx' is not allowed; give one of af ar"),
    ((["keywords:letter_frequency"], [{"letter": "ab", "let_relation": "at least", "let_frequency": 1}]), "one char"),
]


@pytest.mark.parametrize(
    ("letter", "relation", "n", "text", "right"),
    [
        ("#", "at least", 4, "#a #b #c #d", True), ("#", "at least", 4, "#a #b #c d", False),
        ("!", "at least", 6, "Yes!!! No!!!", True), ("!", "less than", 6, "Yes!!! No!!!", False),
        ("E", "at least", 2, "e and E", True), ("e", "less than", 2, "e and E", False),
        ("é", "at least", 2, "éÉ", True),
        ("1", "at least", 1, "1", True), ("\u4e2d", "at least", 1, "a", False),
        (" ", "at least", 1, "a b", False),  # its authors strip the letter
        ("\u0130", "at least", 1, "\u0130", False),  # two characters in lower case, which none is
    ],
)  # fmt: skip
def test_a_letter_is_any_character(letter: str, relation: str, n: int, text: str, right: bool) -> None:
    """google-research, instruction_following_eval/instructions.py, LetterFrequencyChecker since pull request 2301."""
    arguments = {"letter": letter, "let_relation": relation, "let_frequency": n}
    assert follows(text, "keywords:letter_frequency", arguments) is right


@pytest.mark.parametrize(("bad", "reason"), UNREADABLE)
def test_an_item_that_cannot_be_read_is_unscored_and_the_others_are_scored(
    tmp_path: Path, bad: tuple[Any, Any], reason: str
) -> None:
    problems = IFEVAL.problems(file(tmp_path, [question("bad", *bad), question("good", *COMMA)]))
    scores, result = evaluate(IFEVAL, problems, [Answer("bad", "a"), Answer("good", "a")])
    assert [score.value for score in scores] == [None, 1.0]
    assert reason in str(scores[0].reason)
    assert (result.score, result.n_scored, result.n_unscored) == (100.0, 1, 1)
    found = examine(IFEVAL, problems)
    assert found is not None
    assert found.fit
    assert not found.failed


def test_a_file_of_nothing_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(M3Error, match="no item can be judged: item bad: 'keywords:colour' is not an instruction"):
        IFEVAL.problems(file(tmp_path, [question("bad", ["keywords:colour"], [{}])]))


def test_its_own_form_is_read(tmp_path: Path) -> None:
    sign = ["keywords:letter_frequency"], [{"let_relation": "at least", "letter": "#", "let_frequency": 2}]
    path = file(tmp_path, [own(1122, *sign), own(1001, *COMMA)])
    problems = IFEVAL.problems(path)
    assert [problem.id for problem in problems] == ["1122", "1001"]
    assert IFEVAL.prompt(problems[0]) == "Do it."
    answers = tmp_path / "answers.jsonl"
    write_lines(answers, ({"id": key, "text": "#a #b, c"} for key in ("1122", "1001")))
    target = "evaluators.livebench_instruction_following:LiveBenchInstructionFollowing"
    spec = EvaluatorSpec(IFEVAL.name, target, {"answer": "livebench"}, path)
    found, code = score_file(spec, answers, audit=True)
    assert (code, found["score"]) == (0, 50.0)
    assert found["audit"]["details"]["prompt_accuracy"] == 50.0


def test_items_whose_verdict_is_langdetects_are_named() -> None:
    asked = {
        "language": ("language:response_language", {"language": "en"}, "the weather is very nice today"),
        "lower": ("change_case:english_lowercase", {}, "the weather is very nice today"),
        "not lower": ("change_case:english_lowercase", {}, "The weather is very nice today"),
        "upper": ("change_case:english_capital", {}, "THE WEATHER IS VERY NICE TODAY"),
        "comma": ("punctuation:no_comma", {}, "the weather"),
    }
    problems = [Problem(key, question(key, [name], [kwargs])) for key, (name, kwargs, _) in asked.items()]
    scores, result = evaluate(IFEVAL, problems, [Answer(key, text) for key, (*_, text) in asked.items()])
    assert [score.value for score in scores] == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert result.details["language_detected"] == ["language", "lower", "upper"]
    assert result.details["langdetect"]
    _, without = evaluate(IFEVAL, problems[-1:], [Answer("comma", "a")])
    assert "language_detected" not in without.details
