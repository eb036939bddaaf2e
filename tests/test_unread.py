"""Zeros that are no zeros: which results are named, and that nothing is advised from them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from m3_exp.reporting.choices import advice, summary, ways
from m3_exp.reporting.choices.candidates import groups
from m3_exp.reporting.choices.readable import readable
from m3_exp.reporting.curves.evaluated import responses
from m3_exp.stats.unread import ALL_CUT, NO_TEXT, Unread, counts, sentence, unread
from m3_exp.types import Answer, Result, Score
from tests.curved import framed
from tests.test_first_words import LM, MATH, PARENTS, alone, fixed, lines, said

NO_NUMBER = "no number found by extractor=paper"
SILENT = Unread("gsm8k", 20, 20, NO_NUMBER, (("", "chat_template=true"),))


def found(scores: Sequence[Score], answers: Sequence[Answer] = (), **settings: object) -> Unread | None:
    of = [*answers] or [Answer(score.id, "words") for score in scores]
    known = sum(score.value is not None for score in scores)
    mean = 100 * sum(score.value or 0.0 for score in scores) / known if known else None
    result = Result(
        "gsm8k", "accuracy", mean, 0, 0, len(scores), known, len(scores) - known, settings, counts(of, scores)
    )
    return unread(result, scores)


def scores(n: int, value: float | None = 0.0, extracted: str | None = None, reason: str | None = None) -> list[Score]:
    return [Score(str(i), value, 0, extracted, reason) for i in range(n)]


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        (NO_NUMBER, NO_NUMBER), ("no answer found", "no answer found"),
        ("the last word is no label", "the last word is no label"), ("no label is stated", "no label is stated"),
        ("SyntaxError: invalid syntax (<answer>, line 3)", "no code"),
        ("AssertionError: test 1: ValueError: the answer holds no program", "no program"),
        ("no answer: an unclosed thought", "no answer: an unclosed thought"),
    ],
)  # fmt: skip
def test_a_reason_that_says_that_nothing_was_found(reason: str, why: str) -> None:
    shown = found([*scores(6, reason=reason), *scores(4, 1.0, "7")])
    assert shown is not None
    assert (shown.n, shown.of, shown.why) == (6, 10, why)


@pytest.mark.parametrize(
    "given",
    [
        [*scores(5, reason=NO_NUMBER), *scores(5, 1.0, "7")],  # half is not most
        scores(10, 0.0, "7", "gold is 8"),  # wrong, but read
        scores(10, reason='not fulfilled: {"rule": "n_words", "n": 5}'),  # judged whole: nothing is extracted
        scores(10),  # a benchmark of one's own that extracts nothing and gives no reason
        scores(10, None, reason="no answer"),  # unscored: no zero
        [],
    ],
)
def test_what_scores_as_it_should_is_not_named(given: list[Score]) -> None:
    assert found(given) is None


def test_where_other_wrong_answers_are_read_no_reason_is_needed() -> None:
    shown = found([*scores(8), *scores(2, 0.0, "7", "gold is 8")])
    assert shown is not None
    assert (shown.n, shown.why) == (8, "no answer found")
    assert found([*scores(8), *scores(2, 1.0, "7")]) is None, "perhaps only right answers are extracted"


def test_empty_and_cut_answers() -> None:
    wrong = scores(4, 0.0, "x", "not equal")
    empty = found(wrong, [Answer(str(i), " \n") for i in range(4)], chat_template=False)
    assert empty is not None
    assert (empty.why, empty.tries) == (NO_TEXT, (("", "chat_template=true"),))
    cut = found(wrong, [Answer(str(i), "so", finish="length") for i in range(4)], chat_template=False, max_tokens=8)
    assert cut is not None
    assert (cut.why, cut.tries) == (ALL_CUT, (("a larger ", "max_tokens"),))
    some = [Answer(str(i), "so", finish="length" if i else "stop") for i in range(4)]
    assert found(wrong, some) is None, "one answer ended by itself, and all were read"


def test_the_sentence_names_cells_and_what_to_try() -> None:
    cells = [("lm", SILENT), ("code", replace(SILENT, n=12)), ("base", SILENT)]
    assert sentence(cells) == (
        "Most answers hold nothing to read, so these scores say little: gsm8k: lm, code and 1 more (up to 20 of 20: no"
        " number found by extractor=paper). To do: try evaluator.gsm8k.chat_template=true; m3 export answers writes"
        " them, m3 score gsm8k FILE --audit says what other rules read there."
    )


# ------------------------------------------------------------------------------------------------------------- advice


def mute(rows: Sequence[dict[str, object]], benchmark: str) -> list[dict[str, object]]:
    """The same lines, of which most answers on a benchmark hold nothing to read."""
    return [
        {**row, **({"unread": SILENT, "label": f"{row['pair']} {row['lam']}", "cell": f"{row['pair']} {row['lam']}"}
                   if row["benchmark"] == benchmark else {})}
        for row in rows
    ]  # fmt: skip


def test_no_merge_beats_single_models_that_nothing_can_be_read_of() -> None:
    broken, merged = {"alpaca_eval": 0.8, "gsm8k": 0.1}, {"alpaca_eval": 0.7, "gsm8k": 0.9}
    models = [*alone(lm=broken), *alone(math=broken)]
    assert said([*models, *fixed(merged)])[0].startswith("The merge average at lambda 0.5 beats"), "if it could be read"
    text = said([*mute(models, "gsm8k"), *fixed(merged)])
    assert text[0].startswith("No merge beats the better single model, lm, on alpaca_eval"), text[0]
    assert text[3].startswith("Nothing is advised from cells of which most answers hold nothing to read: gsm8k: lm")


def test_where_one_single_model_can_be_read_the_zeros_of_the_other_stand() -> None:
    models = [*alone(lm=LM), *alone(math=MATH)]
    rows = [*mute(models[:2], "gsm8k"), *models[2:], *fixed({"alpaca_eval": 0.7, "gsm8k": 0.7})]
    assert said(rows) == said([*models, *fixed({"alpaca_eval": 0.7, "gsm8k": 0.7})])


def test_a_merge_that_cannot_be_read_is_not_the_best_one() -> None:
    good, better = {"alpaca_eval": 0.6, "gsm8k": 0.6}, {"alpaca_eval": 0.99, "gsm8k": 0.5}
    rows = [*alone(lm=LM, math=MATH), *fixed(good, 0.25)]
    assert "average at lambda 0.75" in said([*rows, *fixed(better, 0.75)])[0]
    text = said([*rows, *mute(fixed(better, 0.75), "gsm8k")])
    assert "average at lambda 0.75" not in text[0]
    assert "lm_math 0.75" in text[3]


def test_where_nothing_can_be_read_one_sentence_says_so() -> None:
    rows = mute([*lines({"gsm8k": 0.0}, method="single", pair="lm"), *fixed({"gsm8k": 0.0})], "gsm8k")
    (text,) = summary.first_words(framed(rows), PARENTS, summary.Lines("again", "alone", "curves"))
    assert text.startswith("Nothing is advised from cells of which most answers hold nothing to read: gsm8k: lm")


def test_select_leaves_them_out() -> None:
    rows = [*fixed(LM, 0.25, kind="node"), *fixed(MATH, 0.5, kind="node"), *fixed(LM, 0.75, kind="node")]
    (group,) = groups(framed([*rows[:4], *mute(rows[4:], "gsm8k")]), None, PARENTS)
    assert group.candidates.names == ("lambda 0.25", "lambda 0.5")
    assert any("1 of 3 candidates" in note for note in group.notes)
    assert readable(framed(rows), PARENTS).left_out == ()


def test_response_gives_no_advice_on_a_curve_of_which_neither_end_can_be_read() -> None:
    grid = [row for lam in (0.0, 0.25, 0.5, 0.75, 1.0) for row in lines({"gsm8k": lam / 2}, 40, ratio="grid", lam=lam)]
    ends = [row for row in grid if row["lam"] in (0.0, 1.0)]
    (one,) = responses(framed([*mute(ends, "gsm8k"), *grid[1:-1]]), PARENTS)
    assert one.silent
    assert len(one.unread) == 2
    study = ways.study([one], repeats=20, resamples=20)
    assert advice.words(study)[0].startswith("no advice, as most answers hold nothing to read: gsm8k: lm_math 0.0")
    assert not any("best alpha is" in line for line in advice.words(study))
    (half,) = responses(framed([*mute(ends[:1], "gsm8k"), *grid[1:]]), PARENTS)
    told = advice.words(ways.study([half], repeats=20, resamples=20))
    assert not half.silent
    assert any(line.startswith("zeros by their benchmark's rule") for line in told)
