"""LiveBench instruction following: IFEval's 25 checks, LiveBench's score, releases, gold, what is missing."""

import os
from pathlib import Path
from typing import Any

import pytest

from evaluators.livebench_instruction_following import LiveBenchInstructionFollowing, ifeval, strip_paper
from evaluators.livebench_instruction_following import gold as ifeval_gold
from m3_exp.scoring.evaluate import evaluate
from m3_exp.scoring.items import digest
from m3_exp.types import Answer, M3Error, Problem
from tests.answers import one
from tests.files import write_lines

DATA = Path(os.environ.get("M3_DATA", "/nonexistent"))
PUNKT = (DATA / "nltk_data/tokenizers/punkt_tab/english").is_dir()
needs_punkt = pytest.mark.skipif(not PUNKT, reason="M3_DATA/nltk_data with NLTK's punkt_tab is not here")
needs_data = pytest.mark.skipif(
    not (DATA / "livebench/instruction_following").is_dir(),
    reason="M3_DATA/livebench/instruction_following is not here",
)
NEED_PUNKT = ("length_constraints:number_sentences", "change_case:capital_word_frequency")
LESS, LEAST = "less than", "at least"

# (instruction, arguments, texts that follow it, texts that do not): verdicts of Google's own checker, which the texts
# were run through once (lm-eval 0.4.13's copy of it).
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["sun", "moo."]}, ["SUNday moon", "moot sun"], ["sun moo", "moon"]),
    ("keywords:frequency", {"keyword": " a ", "frequency": 2, "relation": LEAST}, ["aA", "banana"], ["a", "be"]),
    ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": LESS}, ["a", "b"], ["a a"]),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "dog"]}, ["cats", "a dogma"], ["Cat!", "hot-dog"]),
    ("keywords:letter_frequency", {"letter": "E", "let_frequency": 2, "let_relation": LEAST}, ["eE"], ["e", "x"]),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 2, "let_relation": LESS}, ["e"], ["eE"]),
    (
        "language:response_language",
        {"language": "fr"},
        ["Le chat dort sur la chaise depuis ce matin.", "123 456"],  # the second: no language can be told
        ["The cat has been sleeping on the chair since this morning."],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": LEAST},
        ["It rains. We go.", "Is it? Yes, it is."],
        ["Dr. Smith left", "It costs 3.5 euros."],
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LESS}, ["It rains."], ["One. Two."]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***a *** b***", "a***b"],
        ["a\n\nb", "a\n***\n\n***\nb", "a *** b *** c"],
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": LEAST}, ["don't go", "a-b c"], ["a b", "a, b."]),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, ["a b"], ["a b c"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        ["a\n\nthen b", "a\n\n'\"THEN's b", "a\n\nThen"],
        ["a\nthen b", "a\n\nthenb", "then\n\na", "a\n\nthen\n\nb", "a\n\n\n\nthen b"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b]", "[][c]"], ["[a]", "[a\n]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["x\np. s. y", "mp.s.x"], ["P.S", "PS. x"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S", "p. p. s"], ["P.S. x", "PPS"]),
    ("detectable_content:postscript", {"postscript_marker": "N.B."}, ["n.b. x", "nxb."], ["N B"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n- b", "*a\n--"],
        ["* a", "** a\n* b\n- c\n- d"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["So: My answer is no. Bye"],
        ["My answer is no", "my answer is no."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* *b*", "**a** *b*"],
        ["**a**", "****"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section ", "num_sections": 2},
        ["Section 1 a\nSection 2 b", "Section1Section2Section3"],
        ["Section 1", "section 1 section 2", "Section one Section two"],
    ),
    ("detectable_format:json_format", {}, ["[1]", '```json\n{"a": 1}\n```', "3"], ["{a: 1}", 'Here: {"a": 1}', "```"]),
    ("detectable_format:title", {}, ["<<a>>", "x <<<b>>> y"], ["<< >>", "<a>", "<<a\nb>>"]),
    ("combination:two_responses", {}, ["a******b", "******a******b"], ["a******a", "a***b", "a******b******c"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Do it."}, [" do IT. Done"], ["I do it.", "Do it"]),
    ("startend:end_checker", {"end_phrase": " Right? "}, ["x right?", 'x RIGHT?" '], ["Right? yes", "right"]),
    ("startend:quotation", {}, ['"a"', ' "" '], ['"', '"a', "'a'"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": LEAST},
        ["NASA and ESA", "A B-C d"],
        ["NASA", "Nasa Esa"],
    ),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": LESS}, ["abc d"], ["I am"]),
    (
        "change_case:english_capital",
        {},
        ["THIS IS WHAT WE HAVE ALWAYS THOUGHT ABOUT THE WEATHER AND THE WORLD."],
        ["The cat has been sleeping on the chair.", "12"],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["the cat has been sleeping on the chair."],
        ["The cat has been sleeping on the chair.", "le chat dort sur la chaise depuis ce matin.", "12"],
    ),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
]


def question(key: str, task: str, *checks: tuple[str, dict[str, Any]], **row: Any) -> Problem:
    names, arguments = [name for name, _ in checks], [values for _, values in checks]
    columns = {"question_id": key, "task": task, "turns": ["Do."], "instruction_id_list": names, "kwargs": arguments}
    return Problem(key, {**columns, **row})


COMMA, TITLE = ("punctuation:no_comma", {}), ("detectable_format:title", {"num_words": None})


# ------------------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES)
def test_instructions(name: str, arguments: dict[str, Any], good: list[str], bad: list[str]) -> None:
    if name in NEED_PUNKT and not PUNKT:
        pytest.skip("M3_DATA/nltk_data with NLTK's punkt_tab is not here")
    ifeval.check("0", [name], [arguments])
    assert [ifeval.follows(text, name, arguments) for text in good] == [True] * len(good)
    assert [ifeval.follows(text, name, arguments) for text in bad] == [False] * len(bad)


def test_every_instruction_has_a_case_and_none_is_followed_by_silence() -> None:
    assert {name for name, *_ in CASES} == set(ifeval.INSTRUCTIONS)
    assert len(ifeval.INSTRUCTIONS) == 25
    assert not any(ifeval.follows(text, name, arguments) for name, arguments, *_ in CASES for text in ("", " \n\t"))


def test_a_language_is_always_detected_alike() -> None:
    assert len({ifeval.detected_language("was it a fine day") for _ in range(20)}) == 1


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        ([], [], "0 instructions and 0 kwargs"),
        (["punctuation:no_comma"], [], "1 instructions and 0 kwargs"),
        (["no_comma"], [{}], "'no_comma' is not an instruction; there are keywords:existence, "),
        (["punctuation:no_comma"], [None], "are None; give an object"),
        (["punctuation:no_comma"], [{"n": 1}], "has the kwargs n; it takes none"),
        (["keywords:existence"], [{"keywords": None}], "has the kwargs none; it takes keywords"),
        (["keywords:existence"], [{"keywords": []}], r"keywords=\[\] is not allowed; give a list of words"),
        (["keywords:existence"], [{"keywords": "sun"}], "keywords='sun' is not allowed"),
        (["detectable_format:number_bullet_lists"], [{"num_bullets": -1}], "num_bullets=-1 is not allowed"),
        (["length_constraints:number_words"], [{"num_words": 3, "relation": "at most"}], "'less than' or 'at least'"),
        (["startend:end_checker"], [{"end_phrase": ""}], "end_phrase='' is not allowed; give a text"),
        (
            ["keywords:letter_frequency"],
            [{"letter": "ab", "let_frequency": 1, "let_relation": LEAST}],
            "give one character",
        ),
        (
            ["length_constraints:nth_paragraph_first_word"],
            [{"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}],
            "nth_paragraph=3 is more than num_paragraphs",
        ),
    ],
)
def test_instructions_that_the_authors_would_fill_at_random_are_refused(
    names: list[Any], arguments: list[Any], message: str
) -> None:
    with pytest.raises(M3Error, match=f"item 7: .*{message}"):
        ifeval.check("7", names, arguments)


def test_numbers_may_come_as_the_floats_of_a_data_frame() -> None:
    arguments = {"num_words": 2.0, "relation": LEAST, "keywords": None}
    ifeval.check("0", ["length_constraints:number_words"], [arguments])
    assert ifeval.follows("a b", "length_constraints:number_words", arguments)


# -------------------------------------------------------------------------------------------------------------- score


@pytest.mark.parametrize(
    ("text", "value"),
    [("<<a>>", 1.0), ("<<a>>, b", 0.25), ("a", 0.25), ("a, b", 0.0), ("", 0.0), ("The answer is:", 0.0)],
)
def test_an_answers_score_is_the_mean_of_all_and_of_the_share(text: str, value: float) -> None:
    score = one(LiveBenchInstructionFollowing(), question("q", "simplify", COMMA, TITLE), text)
    assert score.value == value
    assert score.notes["task"] == "simplify"
    assert [name for name, _ in score.notes["followed"]] == [COMMA[0], TITLE[0]]


def test_the_reason_names_what_was_not_followed() -> None:
    score = one(LiveBenchInstructionFollowing(), question("q", "simplify", COMMA, TITLE), "a, b")
    assert score.reason == "not followed: punctuation:no_comma, detectable_format:title"


def test_the_result_is_the_mean_of_the_tasks_means_with_its_parts() -> None:
    problems = [question(str(k), "simplify" if k < 3 else "summarize", COMMA, TITLE) for k in range(4)]
    texts = ["<<a>>", "<<a>>", "b", "a, b"]
    answers = [Answer(p.id, text) for p, text in zip(problems, texts, strict=True)]
    _, result = evaluate(LiveBenchInstructionFollowing(), problems, answers)
    assert result.details["by_task"] == {"simplify": {"score": 75.0, "n": 3}, "summarize": {"score": 0.0, "n": 1}}
    assert (result.score, result.n, result.n_scored) == (37.5, 4, 4)
    assert 0.0 <= (result.low or 0.0) < 37.5 < (result.high or 0.0) <= 100.0
    assert result.details["prompt_accuracy"] == 50.0
    assert result.details["instruction_accuracy"] == 100 * 5 / 8
    assert result.details["by_instruction"]["detectable_format:title"] == {"score": 50.0, "n": 4}
    assert result.metric == "LiveBench score"


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("The answer is: yes. The answer is: no", "yes.  no"),
        (" .,Right?! \n", "Right?! \n".strip()),  # the line break keeps the marks before it, as in the paper's script
        ("Right?!;: ", "Right"),
        ("\n\n Right.", "Right"),
        ("\t.x\t", ".x"),
        ("", ""),
    ],
)
def test_the_papers_stripping(text: str, stripped: str) -> None:
    assert strip_paper(text) == stripped


def test_the_papers_stripping_takes_the_end_phrases_question_mark() -> None:
    problem = question("q", "simplify", ("startend:end_checker", {"end_phrase": "Any other questions?"}))
    text = "So it was. Any other questions?"
    assert one(LiveBenchInstructionFollowing(), problem, text).value == 0.0
    assert one(LiveBenchInstructionFollowing(answer="livebench"), problem, text).value == 1.0
    assert one(LiveBenchInstructionFollowing(), problem, f'"{text}"').value == 1.0


def test_without_punkt_the_items_that_need_it_are_unscored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from nltk import data

    monkeypatch.setattr(data, "path", [])
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    monkeypatch.delenv("M3_DATA", raising=False)
    sentences = ("length_constraints:number_sentences", {"num_sentences": 1, "relation": LEAST})
    problems = [question("a", "simplify", COMMA), question("b", "simplify", COMMA, sentences)]
    scores, result = evaluate(LiveBenchInstructionFollowing(), problems, [Answer("a", "x"), Answer("b", "x")])
    assert [score.value for score in scores] == [1.0, None]
    assert "python -m nltk.downloader punkt_tab" in str(scores[1].reason)
    assert (result.score, result.n, result.n_scored, result.n_unscored) == (100.0, 2, 1, 1)


@needs_punkt
def test_a_damaged_punkt_model_leaves_items_unscored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizers/punkt_tab/english"
    folder.mkdir(parents=True)
    for file in (DATA / "nltk_data/tokenizers/punkt_tab/english").iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[:1000])
    (folder / "ortho_context.tab").write_text("word\tmany\n")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    with pytest.raises(M3Error, match=f"{folder} cannot be read .*: download punkt_tab again"):
        ifeval.sentences("One. Two.")


@needs_punkt
def test_punkts_tables_are_read_as_nltk_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from nltk import data
    from nltk.tokenize import PunktTokenizer

    monkeypatch.setattr(data, "path", [str(DATA / "nltk_data")])
    text = "Mr. J. Smith, Ph.D., met the U.S. team at 3 p.m. He left. Why? (No idea.) The end... And so on"
    assert ifeval.sentences(text) == PunktTokenizer("english").tokenize(text)


@pytest.mark.parametrize("text", ["", "\x00", "\ud800", "*" * 5000, "\n" * 3000, "<<" * 3000, "{" * 20000, "9" * 5000])
def test_no_text_breaks_the_checks(text: str) -> None:
    checks = [(name, arguments) for name, arguments, *_ in CASES if name not in NEED_PUNKT]
    assert one(LiveBenchInstructionFollowing(), question("q", "simplify", *checks), text).value is not None


# --------------------------------------------------------------------------------------------------- items and prompts


def test_the_prompt_is_the_question_and_there_are_no_stops() -> None:
    for evaluator in (LiveBenchInstructionFollowing(), LiveBenchInstructionFollowing(chat_template=True)):
        assert evaluator.prompt(question("q", "simplify", COMMA, turns=["Read.\n\nWrite."])) == "Read.\n\nWrite."
        assert (evaluator.sampling.max_tokens, evaluator.sampling.stops) == (2048, ())


def write(path: Path, *problems: Problem) -> str:

    write_lines(path, (problem.row for problem in problems))
    return str(path)


def dated(key: str, added: str, removed: str = "") -> Problem:
    return question(key, "simplify", COMMA, livebench_release_date=added, livebench_removal_date=removed)


@pytest.mark.parametrize(
    ("release", "kept"),
    [
        ("2024-06-24", ["old", "kept"]),
        ("2024-08-31", ["old", "kept"]),
        ("2024-11-25", ["kept", "new"]),
        ("all", ["old", "kept", "new"]),
    ],
)
def test_a_release_holds_what_was_added_and_not_yet_removed(release: str, kept: list[str], tmp_path: Path) -> None:
    problems = [dated("old", "2024-06-24", "2024-11-25"), dated("kept", "2024-06-24"), dated("new", "2024-11-25")]
    path = write(tmp_path / "q.jsonl", *problems)
    assert [problem.id for problem in LiveBenchInstructionFollowing(release=release).problems(path)] == kept


@pytest.mark.parametrize(
    ("release", "message"),
    [
        ("june", "release=june is not a release"),
        ("2024-01-01", "no question belongs to release=2024-01-01"),
        ("2024-06-24", "1 questions, such as b, carry no livebench_release_date"),
    ],
)
def test_a_release_that_cannot_be_told_is_refused(release: str, message: str, tmp_path: Path) -> None:
    problems = [dated("a", "2024-06-24")] if release == "2024-01-01" else [dated("a", "2024-06-24"), dated("b", "")]
    path = write(tmp_path / "q.jsonl", *problems)
    with pytest.raises(M3Error, match=message):
        LiveBenchInstructionFollowing(release=release).problems(path)


def test_parquet_files_with_dates_of_their_own_type_can_be_read(tmp_path: Path) -> None:
    import datetime

    import pyarrow
    from pyarrow import parquet

    rows = [dict(dated(key, "2024-11-25").row) for key in "ab"]
    for row in rows:
        row |= {"livebench_release_date": datetime.datetime(2024, 11, 25), "kwargs": [{"num_words": None}]}
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "q.parquet")
    problems = LiveBenchInstructionFollowing(release="2024-11-25").problems(str(tmp_path / "q.parquet"))
    assert [problem.row["livebench_release_date"] for problem in problems] == ["2024-11-25T00:00:00"] * 2
    assert len(digest(problems)) == 64
    with pytest.raises(M3Error, match="no question belongs"):
        LiveBenchInstructionFollowing(release="2024-11-24").problems(str(tmp_path / "q.parquet"))


@pytest.mark.parametrize("turns", [[], ["a", "b"], [3]])
def test_questions_have_one_turn(turns: list[Any], tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", question("q", "simplify", COMMA, turns=turns))
    with pytest.raises(M3Error, match=r"question q has|column 'turns.0' is int"):
        LiveBenchInstructionFollowing().problems(path)


# ---------------------------------------------------------------------------------------------------------------- gold


def test_gold_is_the_items_own_answer_where_it_has_one() -> None:
    evaluator = LiveBenchInstructionFollowing()
    problem = question("q", "simplify", ("keywords:existence", {"keywords": ["sun"]}), reference_answer="The sun.")
    assert evaluator.gold(problem) == "The sun."
    assert "sun" in str(evaluator.gold(question("q", "simplify", ("keywords:existence", {"keywords": ["sun"]}))))


@pytest.mark.parametrize(
    "checks",
    [
        [("keywords:existence", {"keywords": ["sun"]}), ("keywords:forbidden_words", {"forbidden_words": ["sun"]})],
        [("length_constraints:number_sentences", {"num_sentences": 1, "relation": LESS})],
        [("change_case:english_capital", {})],
        [COMMA, COMMA],
    ],
)
def test_what_cannot_be_composed_has_no_gold(checks: list[tuple[str, dict[str, Any]]]) -> None:
    assert ifeval_gold.compose([name for name, _ in checks], [values for _, values in checks]) is None


@needs_data
@pytest.mark.parametrize("taken", ["paper", "livebench"])
def test_official_gold_scores_100_and_planted_wrong_answers_0(taken: Any) -> None:
    evaluator = LiveBenchInstructionFollowing(answer=taken)
    problems = evaluator.problems("official")
    assert len(problems) == 400
    gold = {problem.id: evaluator.gold(problem) for problem in problems}
    # one question forbids a word of the phrase that it wants at the end: nobody can follow it
    assert [key for key, text in gold.items() if text is None] == [
        "530c435214842c2924f3bbb0766e9abefe22f5447dc8d42dae43e4d3f9fd3e1c"
    ]
    answers = [Answer(key, text) for key, text in gold.items() if text is not None]
    known = [problem for problem in problems if gold[problem.id] is not None]
    _, result = evaluate(evaluator, known, answers)
    assert (result.score, result.n_scored, len(result.details["by_task"])) == (100.0, 399, 4)
    _, result = evaluate(evaluator, problems, [Answer(p.id, evaluator.wrong(p) or "") for p in problems])
    assert (result.score, result.n_scored) == (0.0, 400)


@needs_data
@pytest.mark.parametrize(
    ("release", "n"), [("2024-06-24", 200), ("2024-07-26", 200), ("2024-08-31", 200), ("2024-11-25", 200), ("all", 400)]
)
def test_each_release_of_2024_holds_50_questions_a_task(release: str, n: int) -> None:
    problems = LiveBenchInstructionFollowing(release=release).problems("official")
    tasks = [problem.row["task"] for problem in problems]
    assert {task: tasks.count(task) for task in tasks} == dict.fromkeys(
        ("paraphrase", "simplify", "story_generation", "summarize"), n // 4
    )
