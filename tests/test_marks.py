"""Expectations, marks, gains and the four formats, on hand-made scores."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3_exp.config import ROOT
from m3_exp.merging.ratio import grid, sampled
from m3_exp.reporting.comparisons import contrasts, points
from m3_exp.reporting.comparisons.contrasts import Entry
from m3_exp.reporting.comparisons.expected import in_place_of_draws
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import responses
from m3_exp.reporting.figures import heatmap
from m3_exp.reporting.table import REBUILD, Cell, Column, Figure, Mark, Rebuild, Table, words
from m3_exp.reporting.tables import gains, paper
from m3_exp.reporting.tables.formats import FORMATS
from m3_exp.reporting.tables.rows import Shown
from m3_exp.stats.published import distance, replayed
from m3_exp.stats.scored import Scored
from tests.curved import below, contrast, framed, marks, tidy_row
from tests.test_tables import ends

FOLDER = ROOT / "results" / "published"
PARENTS = {"lm_math": ["lm", "math"]}
LAMS = grid(5)
N = 200


def line(ratio: str, share: float, lam: float | None = None, **more: Any) -> dict[str, Any]:
    """A result on N items of which the first `share` are right. `low` and `high` are wrong: nothing may read them."""
    return tidy_row(below(share, N), ratio=ratio, lam=lam) | {
        "weights": f"{ratio} {share} {lam}", "engine": "vllm 0.32.0 float32", "evaluator": "gsm8k 2", "tokenizer": "lm",
        "merge": f"m3 merge {ratio} {lam}", "cell": "c", "repeat": 0, "changed": frozenset(),
        "items_digest": "0123456789abcdef",
    } | more  # fmt: skip


def curve(at: Callable[[float], float], **more: Any) -> list[dict[str, Any]]:
    return [line("grid", at(lam), lam, **more) for lam in LAMS]


def corrected(at: Callable[[float], float], **more: Any) -> list[dict[str, Any]]:
    """A curve with sampled lambdas beside its nodes."""
    return [*curve(at, **more), *(line("sampled", at(lam), lam, **more) for lam in sampled(0, 16))]


def said(table: Table) -> str:
    return "\n".join(table.footer)


def built(lines: list[dict[str, Any]], nodes: list[dict[str, Any]] | None = None, **options: Any) -> Table:
    behind = None if nodes is None else framed(nodes)
    found = [] if behind is None else responses(behind, PARENTS)
    return paper.build("t", Shown(framed(lines), responses=found, behind=behind, **options))


# ---------------------------------------------------------------------------------------------------- expectations


def test_an_m3_row_is_the_expectation_where_there_is_a_curve_and_else_the_mean_over_draws() -> None:
    drawn = [line("mixup", 0.4, 0.3, alpha=0.5, draw=0), line("mixup", 0.5, 0.8, alpha=0.5, draw=1)]
    lines = [line("plain", 0.5), *drawn, *({**x, "benchmark": "mbpp"} for x in (line("plain", 0.5), *drawn))]
    table = built(lines, curve(lambda x: 0.2 + 0.4 * x))
    row = dict(zip((h.split(",")[0] for h in table.header), table.texts[1], strict=True))
    found = responses(framed(curve(lambda x: 0.2 + 0.4 * x)), PARENTS)[0].curve
    low, high = ends(list(found.expected(0.5)))  # a straight line bends nowhere: nothing but items
    assert row["gsm8k"].startswith(f"40.0 [{low:.1f}, {high:.1f}] E* sd ")
    assert re.search(r"E\* sd (\S+)", row["gsm8k"]).group(1) == f"{100 * 0.4 * np.sqrt(0.125):.1f}"  # type: ignore[union-attr]
    assert re.fullmatch(r"45\.0 \[.*\] sd 7\.1 of 2", row["mbpp"])
    assert row["lambda"] == "curve of 5 nodes; 0.3, 0.8"
    record = next(r for r in table.records if r["ratio"] == "mixup" and r["benchmark"] == "gsm8k")
    assert (record["nodes"], record["draws"], record["lambda"]) == (5, 0, list(LAMS))
    assert any(text.startswith("E: the expectation") and "lambda_response --all" in text for text in table.footer)
    assert built(lines, curve(lambda x: 0.2), every=True).texts[2][-2].startswith("40.0"), "--all shows single draws"


def test_a_grid_is_shown_as_the_seven_expectations_and_all_shows_its_nodes() -> None:
    lines = [line("plain", 0.5), *curve(lambda x: 0.2 + 0.4 * x)]
    table = built(lines, lines)
    assert [row[4] for row in table.texts] == ["", "0.2", "0.4", "0.5", "1", "2", "3", "5"]
    assert all(row[-1].startswith("40.0 ") for row in table.texts[1:]), "a straight line has one expectation"
    every = built(lines, lines, every=True)
    assert [row[2] for row in every.texts] == ["no"] + ["grid"] * 5 + ["yes"] * 7
    assert [row[-1].split()[0] for row in every.texts[1:6]] == ["20.0", "30.0", "40.0", "50.0", "60.0"]


def test_the_masks_of_dare_have_a_spread_of_their_own() -> None:
    of: dict[str, Any] = {"sparsify": "dare"}
    nodes = [x for seed, top in ((1, 0.4), (2, 0.6)) for x in curve(lambda x, t=top: t, mask_seed=seed, **of)]  # type: ignore[misc]
    plain = [line("plain", 0.5, mask_seed=seed, **of) for seed in (1, 2)]
    table = built([*plain, line("mixup", 0.5, 0.3, alpha=1.0, draw=0, **of)], nodes)
    assert table.texts[1][-1].startswith("50.0 [")
    assert table.texts[1][-1].endswith("E* sd 0.0 masks 14.1")
    assert table.rows[1][6].mark.sign == ""


def test_nodes_alone_make_no_claim_and_say_what_they_assume() -> None:
    """A dip of 40 points in the middle: E*, its interval widened by the bend, no sign however far from plain."""

    def dip(x: float) -> float:
        return 0.5 - 0.4 * (x == 0.5)

    lines = [line("plain", 0.95), line("mixup", 0.5, 0.3, alpha=1.0, draw=0)]
    table = built(lines, curve(dip))
    text, record = table.texts[1][-1], table.records[1]
    found = responses(framed(curve(dip)), PARENTS)[0].curve
    low, high = ends(list(found.expected(1.0)))
    assert " E* " in text
    assert record["low"] < low - 1 < high + 1 < record["high"]
    assert table.rows[1][6].mark.sign == ""
    assert (record["sampled"], record["no_mark"]) == (0, expectations.NO_SAMPLED)
    assert f"(up to {record['bend']:.1f} points here); a peak between them is seen by none" in said(table)
    assert f"No sign (1 cell): {expectations.NO_SAMPLED}" in said(table)
    second = 0.4 / 0.25**2 * np.sqrt((1 + 4) / 2)  # of 1/4 and of 1/2, beside the inner intervals
    assert record["bend"] == pytest.approx(100 * 0.9 * second * 0.25**2 / 8), "0.9 of the nodes' parabola"


def test_sampled_lambdas_carry_a_sign_in_the_family_of_their_pair_and_method() -> None:
    of: dict[str, Any] = {"alpha": 0.5, "draw": 0}
    lines = [line("plain", 0.5), line("mixup", 0.5, 0.3, **of)]
    lines += [{**x, "benchmark": "mbpp"} for x in lines]
    nodes = [*corrected(lambda x: 0.2 + 0.1 * x), *corrected(lambda x: 0.5, benchmark="mbpp")]
    table = built(lines, [*nodes, *(x for x in lines if x["ratio"] == "plain")])
    assert " E sd " in table.texts[1][-2]
    assert [table.rows[1][column].mark.sign for column in (6, 7)] == ["worse", "untold"]
    worse = next(r for r in table.records if r["mark"] == "worse")
    assert (worse["question"], worse["family"], worse["sampled"], worse["bend"]) == ("expectation", 14, 16, 0.0)
    assert worse["p"] <= worse["p_adjusted"] <= 14 * worse["p"]
    assert (
        "Expectations (E): adjusted (max-T over items) within their pair and method over seven alphas x benchmarks, 14"
        " comparisons"
    ) in said(table)
    assert "What could not have been seen: at the level that is used, a true difference below" in said(table)
    assert "E*" not in said(table)


def test_one_question_has_one_answer_wherever_it_is_asked() -> None:
    """E - plain in a table of draws, in the table of the curve, in the heat map and a figure: to the last digit."""
    plain = line("plain", 0.55)
    nodes = [plain, *corrected(lambda x: 0.2 + 0.5 * x * x)]
    one = built([plain, line("mixup", 0.5, 0.3, alpha=0.5, draw=0)], nodes).records[1]
    other = next(r for r in built(nodes, nodes).records if r["alpha"] == 0.5)
    figures = ("score", "low", "high", "difference", "diff_low", "diff_high", "p", "p_adjusted", "family", "mark")
    assert [one[key] for key in figures] == [other[key] for key in figures]
    change = heatmap.changes(framed(nodes), PARENTS)[heatmap.Panel("lm_math", "average", "none"), "gsm8k", 0.5]
    assert (change.value, change.family) == (one["difference"], one["family"])
    assert change.half == pytest.approx((one["diff_high"] - one["diff_low"]) / 2)
    assert change.significant == (one["mark"] in ("better", "worse"))
    drawn = framed([line("mixup", 0.5, 0.3, alpha=0.5, draw=0)])
    instead = in_place_of_draws(drawn, responses(framed(nodes), PARENTS))
    point = points.gain(framed([plain]), instead)
    assert (point.value, point.low, point.high) == (one["difference"], one["diff_low"], one["diff_high"])
    score = points.score(instead)
    assert (score.value, score.low, score.high) == (one["score"], one["low"], one["high"])


def test_a_failed_node_leaves_no_expectation_and_is_named() -> None:
    nodes = corrected(lambda x: 0.2 + 0.4 * x)
    gone = {"score": None, "low": None, "high": None, "values": None, "weights": None, "state": "missing"}
    nodes[1] |= gone | {"failure": "the engine died"}
    for table in (built([line("plain", 0.5), *nodes], nodes), built([line("plain", 0.5), *nodes])):
        assert not any(" E" in row[-1] for row in table.texts)
        assert table.texts[2][-1] == "failed", "its nodes stand there one by one"
        assert "lm_math average gsm8k: no expectation, 1 of 5 nodes without a result (lambda 0.25)." in said(table)
        assert "failed: average lm_math gsm8k: the engine died" in said(table)
    other = [*nodes, *corrected(lambda x: 0.5, benchmark="mbpp")]
    assert {row[-2] for row in built(other, other).texts} == {"no curve"}, "in the rows of a benchmark that has one"
    drawn = built([line("plain", 0.5), line("mixup", 0.45, 0.3, alpha=0.5, draw=0)], nodes)
    assert drawn.texts[1][-1].startswith("45.0 ["), "its draws stand there again"
    assert "no expectation, 1 of 5 nodes" in said(drawn)


def test_sampled_lambdas_without_a_result_are_not_used() -> None:
    nodes = corrected(lambda x: 0.2 + 0.4 * x)
    nodes[-1] |= {"score": None, "values": None, "state": "missing"}
    table = built([line("plain", 0.5), *nodes], nodes)
    assert all(" E* " in row[-1] for row in table.texts[1:])
    (found,) = responses(framed(nodes), PARENTS)
    assert found.notes == ("1 of 16 sampled lambdas have no result: the others are not used",)


def test_an_item_unscored_at_a_node_is_counted_and_in_the_interval() -> None:
    nodes = corrected(lambda x: 0.5)
    whole = built([line("plain", 0.5), *nodes], nodes).records[1]
    nodes[2]["values"] = {**nodes[2]["values"], **{(str(i), 0): None for i in range(90, 110)}}
    nodes[2] |= {"n_unscored": 20, "state": "incomplete"}
    table = built([line("plain", 0.5), *nodes], nodes)
    record = table.records[1]
    assert (record["n"], record["n_unscored"]) == (200, 20)
    assert "(20 unscored)" in table.texts[1][-1]
    assert "Unscored items of a curve are in its interval at their worst and at their best." in said(table)
    known = [0.0] * 90 + [1.0] * 90
    low, high = ends(known, unscored=20)
    assert record["low"] <= low + 1e-9 < whole["low"]
    assert record["high"] >= high - 1e-9 > whole["high"]
    assert record["diff_low"] < whole["diff_low"] - 5
    assert record["diff_high"] > whole["diff_high"] + 5


def test_a_curve_without_both_ends_has_no_expectation() -> None:
    table = built([line("plain", 0.5), *curve(lambda x: 0.3)[1:]], curve(lambda x: 0.3, benchmark="mbpp"))
    assert [row[-1] for row in table.texts[1:]] == ["no curve"] * 7


def test_ends_and_middle_are_no_curve() -> None:
    """At 0, 1/2 and 1 an average is a single model or plain: evaluated with no grid, and no reason to hide draws."""
    three = [line("grid", 0.3, lam) for lam in grid(3)]
    table = built([line("plain", 0.5), line("mixup", 0.45, 0.3, alpha=0.5, draw=0)], three)
    assert table.texts[1][-1].startswith("45.0")
    assert [row[2] for row in built(three, three).texts] == ["grid"] * 3


def test_a_row_names_its_items_where_they_are_not_the_columns() -> None:
    few = [{**x, "values": dict(list(x["values"].items())[:50]), "n": 50} for x in curve(lambda x: 0.5)]
    table = built(
        [
            line("plain", 0.5),
            line("single", 0.5, method="single", pair="lm"),
            line("mixup", 0.5, 0.1, alpha=0.5, draw=0),
        ],
        few,
    )
    assert table.header[-1] == "gsm8k, accuracy, n=200"
    assert table.texts[2][-1].endswith(" n=50")


# ------------------------------------------------------------------------------------------------------------ marks


def test_every_m3_row_is_marked_against_its_row_without_m3() -> None:
    masks = [{"sparsify": "dare", "mask_seed": seed} for seed in (1, 2, 3)]
    lines = [
        line("plain", 0.5), line("fixed", 0.7, 0.1),
        line("plain", 0.5, method="ties"), line("fixed", 0.51, 0.1, method="ties"),
        *(line("plain", 0.5, **of) for of in masks), *(line("fixed", 0.3, 0.1, **of) for of in masks),
        line("plain", 0.5, pair="lm_code"), line("fixed", 0.5, 0.5, pair="lm_code", weights="plain 0.5 None"),
        line("plain", 0.5, method="single", pair="lm"),
    ]  # fmt: skip
    table = built(lines)
    found = {(row[0], row[1], row[3], row[2]): table.rows[i][6].mark.sign for i, row in enumerate(table.texts)}
    assert found["average", "lm_math", "no", "fixed"] == "better"
    assert found["average", "lm_math", "yes", "fixed"] == "worse"
    assert found["ties", "lm_math", "no", "fixed"] == "untold"
    assert found["average", "lm_code", "no", "fixed"] == "same"
    assert [sign for key, sign in found.items() if key[3] in ("no", "")] == [""] * 5
    better = next(r for r in table.records if r["mark"] == "better")
    exact = contrast({str(i): float(i < 140) for i in range(N)}, {str(i): float(i < 100) for i in range(N)})
    assert [better["difference"], better["diff_low"], better["diff_high"]] == [
        pytest.approx(100 * x) for x in (exact.value, exact.low, exact.high)
    ]
    assert better["p"] == pytest.approx(2**-40), "McNemar's mid-p of 40 gained and none lost"
    assert (better["p_adjusted"], better["discordant"]) == (pytest.approx(3 * 2**-40), 40)
    assert (better["question"], better["family"], better["no_mark"]) == ("model", 3, None)
    assert "Single merges: adjusted (Holm) over the 3 comparisons of this table." in said(table)
    assert "; = the same weights (1): no comparison." in said(table)
    untold = next(r for r in table.records if r["mark"] == "untold")
    assert untold["detectable"] > untold["difference"]
    assert (
        f"a difference below {untold['detectable']:.1f} points could not have been seen"
        in next(row for row in table.rows if (str(row[0]), str(row[2])) == ("ties", "fixed"))[6].mark.title
    )
    assert re.search(r"a true difference below \d+\.\d points in the most sensitive cell", said(table))


def test_one_or_two_masks_carry_no_sign_and_three_do() -> None:
    for count in (1, 2, 3):
        masks = [{"sparsify": "dare", "mask_seed": seed} for seed in range(count)]
        single = built([*(line("plain", 0.5, **m) for m in masks), *(line("fixed", 0.9, 0.1, **m) for m in masks)])
        nodes = [x for m in masks for x in corrected(lambda x: 0.9, **m)]
        mean = built([*(line("plain", 0.5, **m) for m in masks), *nodes], nodes)
        assert [single.rows[1][6].mark.sign, mean.rows[1][6].mark.sign] == ["better" if count == 3 else ""] * 2
        if count < 3:
            assert f"No sign (1 cell): {contrasts.FEW_MASKS}." in said(single)
            assert f"No sign (7 cells): {expectations.FEW_MASKS}." in said(mean)
            assert "no sign: fewer than 3 DARE masks" in single.rows[1][6].mark.title
            assert single.records[1]["p_adjusted"] == single.records[1]["p"], "no member of a family"
            assert not {mark.weight for mark in [*marks(single).values(), *marks(mean).values()]} - {""}


def test_masks_that_differ_widen_the_difference() -> None:
    """Three masks 30 points apart: with two degrees of freedom, +10 points of 200 items is no finding."""

    def of(spread: float) -> Table:
        masks = list(zip((1, 2, 3), (-spread, 0.0, spread), strict=True))
        plain = [line("plain", 0.5, sparsify="dare", mask_seed=seed) for seed, _ in masks]
        return built([*plain, *(line("fixed", 0.6 + x, 0.1, sparsify="dare", mask_seed=seed) for seed, x in masks)])

    alike, apart = of(0.0), of(0.3)
    assert (alike.rows[1][6].mark.sign, apart.rows[1][6].mark.sign) == ("better", "untold")
    assert alike.records[1]["difference"] == pytest.approx(apart.records[1]["difference"])
    assert apart.records[1]["diff_low"] < 0 < alike.records[1]["diff_low"]
    assert apart.records[1]["high"] > alike.records[1]["high"] + 10, "the score itself is of masks like these"


def test_chance_findings_do_not_survive_how_many_were_looked_at() -> None:
    """One comparison at p = 0.008 is real alone and is not among ten."""

    def lines(count: int) -> list[dict[str, Any]]:
        return [x for k in range(count) for x in (
            line("plain", 0.5, benchmark=f"b{k}"),
            line("fixed", 0.5 + 0.035 * (k == 0), 0.1, benchmark=f"b{k}"),
        )]  # fmt: skip

    assert built(lines(1)).records[1]["p"] == pytest.approx(2**-7)
    assert built(lines(1)).rows[1][6].mark.sign == "better"
    assert built(lines(10)).rows[1][6].mark.sign == "untold"


def test_bold_is_only_what_beats_every_other_row_of_its_pair() -> None:
    near = [line("plain", 0.5), line("plain", 0.69, method="task_arithmetic"), line("plain", 0.7, method="ties")]
    assert not marks(built(near))
    far = [*near[:2], line("plain", 0.9, method="ties"), line("plain", 0.95, pair="lm_code")]
    table = built(far)
    assert {table.texts[i][:2]: mark.weight for (i, _), mark in marks(table).items()} == {("ties", "lm_math"): "bold"}
    assert any("after Holm over 2 comparisons; 1 here" in text for text in table.footer)


def test_two_rows_with_the_best_weights_are_both_best() -> None:
    top = [line("plain", 0.9), line("fixed", 0.9, 0.5, weights="plain 0.9 None")]
    table = built([*top, line("plain", 0.5, method="ties")])
    assert {i: (mark.weight, mark.sign) for (i, _), mark in marks(table).items()} == {
        0: ("bold", ""),
        1: ("bold", "same"),
    }


def test_the_papers_marks_are_bold_and_underlined_by_score() -> None:
    lines = [line("plain", 0.5), line("plain", 0.505, method="task_arithmetic"), line("plain", 0.51, method="ties")]
    single = line("plain", 0.9, method="single", pair="lm_math")
    table = built([single, *lines], marks="paper")
    assert {table.texts[i][0]: mark.weight for (i, _), mark in marks(table).items()} == {
        "ties": "bold", "task_arithmetic": "underline"
    }  # fmt: skip
    assert any("say nothing about what is significant" in text for text in table.footer)
    assert not any("▲" in text for text in table.footer)
    assert {r["p"] for r in table.records} == {None}


def test_what_has_no_item_in_common_is_no_comparison() -> None:
    one, two = {str(i): 1.0 for i in range(50)}, {str(i): 0.0 for i in range(50)}
    pairs = {(0, 0): (Entry(100.0, one), Entry(0.0, two)), (0, 1): (Entry(100.0, one), Entry(100.0, {"x": 1.0}))}
    assert contrasts.against(pairs, {}).keys() == {(0, 0)}


def test_a_figure_has_the_tables_gain() -> None:
    lines = framed([line("plain", 0.5), line("fixed", 0.58, 0.3)])
    record = paper.build("t", Shown(lines)).records[1]
    point = points.gain(lines[lines["ratio"] == "plain"], lines[lines["ratio"] == "fixed"])
    assert (point.value, point.low, point.high) == (record["difference"], record["diff_low"], record["diff_high"])


@pytest.mark.slow
def test_a_mean_over_ten_draws_counts_what_varies_between_draws() -> None:
    """Items threshold lambda, so draws are the population's: their mean is told apart in about 5 %."""
    generator, found = np.random.default_rng(3), []
    for _ in range(300):
        level, other, lams = generator.random(96), generator.random(96), generator.beta(0.5, 0.5, 10)
        drawn: dict[tuple[float | None, float | None], dict[str, float]] = {
            (lam, None): {str(i): float(x < lam) for i, x in enumerate(level)} for lam in map(float, lams)
        }
        mean = {str(i): float(np.mean([values[str(i)] for values in drawn.values()])) for i in range(96)}
        plain = {str(i): float(x < 0.5) for i, x in enumerate(other)}
        sides = Entry(50.0, mean, models=drawn, drawn=10), Entry(50.0, plain, models={(None, None): plain})
        one = contrasts.compare(*sides)
        assert one is not None
        assert one.p is not None
        assert "10 masks or draws" in one.how
        assert contrasts.unclaimed(*sides) == ""
        found.append(one.p < 0.05)
    assert np.mean(found) < 0.1


def test_a_score_that_is_a_mean_of_tasks_has_expectation_marks_and_contrasts_of_that_score() -> None:
    """Two tasks of 180 and 20 items (LiveBench's score): +5 % of the large one and -40 % of the small one is -17.5."""
    strata = {str(i): "large" if i < 180 else "small" for i in range(N)}

    def tasks(ratio: str, large: float, small: float, lam: float | None = None, **more: Any) -> dict[str, Any]:
        right = {*range(round(180 * large)), *range(180, 180 + round(20 * small))}
        values = {str(i): float(i in right) for i in range(N)}
        score = 100 * (large + small) / 2
        known = {"values": {(key, 0): x for key, x in values.items()}, "scored": Scored(values, 0, strata)}
        return line(ratio, 0.5, lam, **known, **more) | {"score": score, "weights": f"{ratio} {large} {small} {lam}"}

    lines = [tasks("plain", 0.5, 0.9), tasks("fixed", 0.55, 0.5, 0.3)]
    table = built(lines)
    plain, mixed = table.records
    assert [plain["score"], mixed["score"]] == pytest.approx([70.0, 52.5])
    assert mixed["difference"] == pytest.approx(52.5 - 70.0), "the mean over items rose by 0.5"
    assert mixed["diff_low"] < -17.5 < mixed["diff_high"]
    assert mixed["high"] - mixed["low"] > 100 * 1.96 * 0.5 * np.sqrt(0.25 / 20), "20 items weigh half of the score"
    assert table.rows[1][6].mark.sign == "worse"

    nodes = [tasks("plain", 0.5, 0.9), *(tasks("grid", 0.55, 0.2, lam) for lam in LAMS)]
    nodes += [tasks("sampled", 0.55, 0.2, lam) for lam in sampled(0, 16)]
    curved = built(nodes, nodes)
    assert all(row[-1].startswith("37.5 ") and " E sd " in row[-1] for row in curved.texts[1:])
    assert [r["difference"] for r in curved.records[1:]] == [pytest.approx(37.5 - 70.0)] * 7
    assert {curved.rows[i][6].mark.sign for i in range(1, 8)} == {"worse"}
    assert curved.rows[0][6].mark.weight == "bold", "plain beats all seven"
    best = built([tasks("plain", 0.5, 0.95), tasks("plain", 0.6, 0.05, method="ties")])
    assert {best.texts[i][0]: mark.weight for (i, _), mark in marks(best).items()} == {"average": "bold"}


@pytest.mark.slow
def test_no_interval_has_width_0_or_leaves_its_range() -> None:
    """Whatever small frame: scores in 0 to 100, contrasts in -100 to 100, each inside its interval."""
    for seed in range(20):
        lines, nodes = _random_lines(np.random.default_rng(seed))
        for table in (built(lines, nodes), built(lines, nodes, every=True), gains.build("t", Shown(framed(lines)))):
            for record in table.records:
                if record["score"] is not None:
                    assert 0 <= record["low"] < record["high"] <= 100, (seed, record)
                    assert record["low"] - 1e-9 <= record["score"] <= record["high"] + 1e-9, (seed, record)
                if record["difference"] is not None:
                    assert -100 <= record["diff_low"] < record["diff_high"] <= 100, (seed, record)
                    assert record["diff_low"] <= record["difference"] <= record["diff_high"], (seed, record)
                    assert 0 <= record["p"] <= record["p_adjusted"] <= 1, (seed, record)
        for change in heatmap.changes(framed(lines + nodes), PARENTS).values():
            assert change.value is None or (change.half > 0 and -100 <= change.value <= 100), seed


def _random_lines(generator: np.random.Generator) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return plain, fixed and drawn lines and a curve on 1 to 12 items: 0/1 or graded, extreme, some unscored."""
    n, graded = int(generator.integers(1, 13)), bool(generator.integers(2))
    dare = bool(generator.integers(2))
    seeds: list[int | None] = list(range(int(generator.integers(1, 4)))) if dare else [None]
    tasks = {str(i): f"task {i % 2}" for i in range(n)} if generator.integers(3) == 0 else {}

    def one(ratio: str, lam: float | None, **more: Any) -> dict[str, Any]:
        level = float(generator.choice([0.0, 0.1, 0.5, 1.0]))
        values: dict[str, float | None] = {
            str(i): float(generator.random() * level) if graded else float(generator.random() < level) for i in range(n)
        }
        if n > 2 and generator.integers(4) == 0:
            values[str(generator.integers(n))] = None
        known = {key: x for key, x in values.items() if x is not None}
        found = Scored(known, n - len(known), tasks)
        return line(ratio, found.estimate().value, lam, sparsify="dare" if dare else "none", **more) | {
            "n": n, "n_unscored": n - len(known), "values": {(key, 0): x for key, x in values.items()}, "scored": found,
        }  # fmt: skip

    def drawn(ratio: str, lams: Sequence[float | None], **more: Any) -> list[dict[str, Any]]:
        return [one(ratio, lam, mask_seed=seed, **more) for lam in lams for seed in seeds]

    lines = [*drawn("plain", [None]), *drawn("fixed", [0.3])]
    for draw in range(int(generator.integers(1, 12))):
        lines += drawn("mixup", [float(generator.random())], alpha=0.5, draw=draw)
    nodes = [*drawn("grid", LAMS), *(drawn("sampled", sampled(0, 4)) if generator.integers(2) else [])]
    return lines, [*nodes, *drawn("plain", [None])]


def test_only_masks_of_both_sides_are_compared() -> None:
    of: dict[str, Any] = {"sparsify": "dare"}
    plain = [line("plain", share, mask_seed=seed, **of) for seed, share in ((1, 0.5), (2, 0.9), (3, 0.9))]
    table = built([*plain, line("mixup", 0.5, 0.3, alpha=1.0, draw=0, mask_seed=1, **of)],
                  [*corrected(lambda x: 0.5, mask_seed=1, **of), *plain])  # fmt: skip
    assert table.records[1]["difference"] == pytest.approx(0, abs=1e-9)
    assert table.texts[1][-1].endswith("(1 of 3 masks)")
    assert table.rows[1][6].mark.title.endswith("no sign: fewer than 3 DARE masks (sparsify.draws=3)")
    drawn = built([*plain, line("fixed", 0.5, 0.3, mask_seed=1, **of)])
    assert drawn.records[1]["difference"] == 0.0
    assert "1 of 3 masks" in drawn.rows[1][6].mark.title
    assert re.search(r"\] masks 23\.1$", table.texts[0][-1]), "masks are no draws"
    assert (table.records[0]["draws"], table.records[0]["spread"]) == (1, None)


def test_an_item_that_one_draw_lacks_counts_as_unscored() -> None:
    drawn = [line("mixup", 0.5, lam, alpha=0.5, draw=k) for k, lam in enumerate((0.2, 0.7))]
    drawn[1]["values"] = {key: x for key, x in drawn[1]["values"].items() if int(key[0]) < 150}
    drawn[1] |= {"n": 150, "score": 100 * 100 / 150}
    table = built(drawn)
    record = table.records[0]
    assert (record["n"], record["n_unscored"]) == (200, 50)
    both = [float(i < 100) for i in range(150)]
    assert (record["low"], record["high"]) == pytest.approx(ends(both, unscored=50))
    assert "(50 unscored)" in table.texts[0][-1]


def test_other_items_under_the_same_ids_are_not_compared() -> None:
    table = built([line("plain", 0.3), line("mixup", 0.7, 0.1, alpha=0.5, draw=0, items_digest="other")])
    assert table.rows[1][6].mark.sign == ""
    assert table.records[1]["p"] is None
    assert any("Other items under the same ids" in text for text in table.footer)


def test_the_same_expectation_twice_is_one_model() -> None:
    assert Entry(1.0, {"a": 1.0}).same_model(Entry(1.0, {"a": 1.0}))
    assert not Entry(1.0, {"a": 1.0}).same_model(Entry(1.0, {"a": 1.0}, frozenset({"w"})))


# ----------------------------------------------------------------------------------------------- the paper's numbers


def test_a_published_m3_number_has_its_percentile_in_the_replay() -> None:
    lines = [line("plain", 0.665), line("mixup", 0.6, 0.3, alpha=0.5, draw=0)]
    table = built(lines, curve(lambda x: 0.4 + 0.4 * x), published=FOLDER)
    found = responses(framed(curve(lambda x: 0.4 + 0.4 * x)), PARENTS)[0].curve
    generator = np.random.default_rng(7)
    means = found.values.T @ generator.multinomial(N, np.full(N, 1 / N), 4000).T / N
    lams = [generator.beta(a, a, 4000) for a in (0.2, 0.4, 0.5, 1, 2, 3, 5)]
    tops = [max(np.interp([x[k] for x in lams], LAMS, means[:, k])) for k in range(4000)]
    draws = generator.binomial(1319, tops) / 1319
    record = table.records[1]
    assert record["paper"] == 66.26
    ends_ = record["percentile_low"], record["percentile_high"]
    assert min(abs(x - 100 * np.mean(draws < 0.6626)) for x in ends_) < 4
    assert ends_[0] <= ends_[1]
    assert replayed(found, 1319).shape == (2000,)
    told = " to ".join(dict.fromkeys(f"{x:.0f}" for x in ends_))
    assert table.texts[1][-1].endswith(f"(paper 66.26, at {told} % of the replay)")
    assert table.records[0]["z_low"] == distance(66.5, 200, 66.34, 1319).z_low
    assert (record["z_low"], table.records[0]["percentile_low"]) == (None, None)
    assert any("percentile" in text for text in table.footer)


def test_the_footer_is_complete() -> None:
    nodes = curve(lambda x: 0.5, engine="vllm 0.33.0 float32")
    unscored = line("plain", 0.5, n_unscored=3)
    unscored["values"] |= dict.fromkeys((("7", 0), ("8", 0), ("9", 0)))
    text = built([unscored, line("mixup", 0.5, 0.3, alpha=0.5, draw=0)], nodes)
    assert "(3 unscored)" in text.texts[0][-1]
    assert "engine: vllm 0.32.0 float32, vllm 0.33.0 float32; evaluators: gsm8k 2" in text.footer
    assert "items: gsm8k 0123456789ab (n=200)" in text.footer
    assert any(x.startswith("Nothing is picked by score") for x in text.footer)
    assert [x.split()[-2:] for x in text.footer if "m3 merge" in x] == [["plain", "None"]], (
        "no draws that are not shown"
    )


# --------------------------------------------------------------------------------------------------------- figure 4


def test_gains_stand_beside_the_papers() -> None:
    of: dict[str, Any] = {"pair": "lm_code", "benchmark": "livebench_typos"}
    lines = [
        line("plain", 0.3, method="ties", **of),
        *(line("mixup", 0.5, 0.2 + k / 20, method="ties", alpha=0.5, draw=k, **of) for k in range(10)),
        line("plain", 0.3, **of),
        line("mixup", 0.0, 0.2, alpha=0.5, draw=0, **of, state="missing") | {"score": None, "values": None},
    ]
    table = gains.build("figure4", Shown(framed(lines), published=FOLDER))
    missing, gained = table.texts
    assert missing[-3:] == ("not run", "/", "+4")
    assert gained[0] == "ties"
    assert gained[-4].startswith("30.0 [")
    assert re.fullmatch(r"\+20\.0 \[\+1\d\.\d, \+2\d\.\d\]", gained[-2])
    assert gained[-1] == "+14"
    assert marks(table) == {(1, table.header.index("gain")): table.rows[1][-2].mark}
    assert table.rows[1][table.header.index("gain")].mark.sign == "better"
    assert table.records[1]["without"] == 30.0
    assert (table.records[1]["difference"], table.records[1]["paper_gain"]) == (pytest.approx(20), 14.0)
    assert gains.build("figure4", Shown(framed(lines))).texts[1][-1] == ""
    assert not marks(gains.build("figure4", Shown(framed(lines), marks="paper")))
    one = gains.build("figure4", Shown(framed([*lines[:2], lines[-2]])))
    assert one.rows[0][table.header.index("gain")].mark.sign == "", "one draw of lambda"
    assert "Means over 1 draw: the interval is over items" in said(one)


# ----------------------------------------------------------------------------------------------------------- formats


def marked() -> Table:
    return Table(
        "t & co", (Column("method"), Column("gsm8k", ("accuracy", "n=4")), Column("odd | <b>")),
        (
            (
                words("ties", "retain 0.7"),
                Cell(
                    ("(paper 66.34)",), Figure(75.0, 30.1, 95.4), Mark("better", "bold", 'p "0.01" <'),
                    record={"benchmark": "gsm8k", "lambda": [0.25, 0.5], "score": 75.0},
                ),
                words("[x] ~100 % of $5 & #1 {a}^2 \\ <c> \"d\" 'e'"),
            ),
            (
                words("average"), Cell((), Figure(50.0, 1.0, 99.0), Mark("untold", "underline")),
                words("α ≈ λ, ü 漢 -- two\nlines"),
            ),
            (words("average"), Cell((), Figure(-2.5, -5.0, 0.0), Mark("worse")), words("failed")),
        ),
        ("Percent. ▲ 5 % < 6 % ~ _x_", Rebuild((("abc", "m3 merge a_b%"),))),
    )  # fmt: skip


def test_markdown_and_html_spell_marks_and_escape() -> None:
    text = FORMATS["md"](marked())
    assert "| **75.0** ▲ [30.1, 95.4] (paper 66.34) |" in text
    assert "| <u>50.0</u> ≈ [1.0, 99.0] " in text
    assert r"odd \| <b>" in text
    assert len({line.replace(r"\|", "").count("|") for line in text.splitlines()[:5]}) == 1
    page = FORMATS["html"](marked())
    assert '<td class="better is-bold" title="p &quot;0.01&quot; &lt;"><b>75.0</b> ▲ [30.1, 95.4]' in page
    assert '<td class="untold is-underline"><u>50.0</u> ≈' in page
    assert "<b>" not in page.replace("<b>75.0</b>", "")
    assert html.unescape(page).count("<c>") == 1


def test_csv_is_the_data() -> None:
    assert FORMATS["csv"](marked()).splitlines() == ["benchmark,lambda,score", "gsm8k,0.25 0.5,75.0"]
    table = built([line("plain", 0.5), line("fixed", 0.6, 0.3)])
    columns = FORMATS["csv"](table).splitlines()[0].split(",")
    wanted = {"difference", "diff_low", "diff_high", "p", "p_adjusted", "mark", "discordant", "detectable"}
    wanted |= {"question", "family", "no_mark", "n_unscored", "sampled", "bend"}
    beside = {"paper", "paper_difference", "z_low", "z_high", "percentile_low", "percentile_high"}
    assert wanted | beside <= set(columns)
    assert json.loads(json.dumps(table.records))[1]["mark"] == "better"


def test_latex_escapes_everything_and_is_balanced() -> None:
    text = FORMATS["tex"](marked())
    assert r"\textbf{75.0}~$\blacktriangle$" in text
    assert r"\underline{50.0}~$\approx$" in text
    assert r"$-$2.5~$\blacktriangledown$" in text
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert body.isascii()
    assert r"\texttt{U+6F22}" in body
    bare = body.replace(r"\\", "").replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert bare.replace(r"\$", "").count("$") % 2 == 0
    assert body.count(r"\begin{tabular}") == body.count(r"\end{tabular}")
    cells = re.sub(r"\\begin\{tabular\}\[t\].*?\\end\{tabular\}", "", body).replace(r"\&", "")
    assert {line.count("&") for line in cells.splitlines() if line.endswith(r" \\")} == {2}
    assert "% " + REBUILD in text


def test_a_long_latex_table_is_parted_between_methods() -> None:
    rows = tuple(
        (words(method), Cell((), Figure(i, 1.0, 2.0))) for method in ("average", "ties", "slerp") for i in range(18)
    )
    text = FORMATS["tex"](Table("t", (Column("method"), Column("gsm8k")), rows, ("Notes.",)))
    parts = text.split(r"\bottomrule")[:-1]
    assert [part.count("1.0, 2.0") for part in parts] == [36, 18]
    assert [part.count(" & gsm8k") for part in parts] == [1, 1]
    assert text.count("Notes.") == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex: apt-get install texlive-latex-recommended")
def test_latex_compiles(tmp_path: Path) -> None:
    lines = [line("plain", 0.5), *curve(lambda x: 0.2 + 0.4 * x)]
    wide = [{**x, "benchmark": b} for b in ("gsm8k", "alpaca_eval", "mbpp", "humaneval") for x in lines]
    shown = {"small": marked(), "wide": built(wide, wide, every=True, published=FOLDER)}
    for name, table in shown.items():
        (tmp_path / f"{name}.tex").write_text(FORMATS["tex"](table))
    inputs = r"\clearpage".join(rf"\input{{{name}}}" for name in shown)
    head = r"\documentclass{article}\usepackage{booktabs,graphicx,amssymb}\begin{document}"
    (tmp_path / "all.tex").write_text(rf"{head}{inputs}\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_titles_come_from_the_sweep_files() -> None:
    assert paper.title("# m3 run sweeps=x\n#\n# What it shows. More of it.\ntable: x\n") == "What it shows"
    assert paper.title("# Table 1: all of it\n").startswith("Table 1: all")
    for path in (ROOT / "sweeps").glob("*.yaml"):
        assert 10 < len(paper.title(path.read_text())) < 130, path.name


def test_draws_of_an_outside_ratio_are_draws() -> None:
    """Three experts have no lambda: the row is the mean of its draws, with their spread, and carries no sign."""
    made = {"evaluator": "gsm8k 1", "tokenizer": "t", "merge": "m3 merge"}
    plain = tidy_row(below(0.2, N), weights="plain", **made)
    draws = [
        tidy_row(below(share, N), ratio="leaning (tilt 3)", kind="drawn", draw=number, weights=f"draw {number}", **made)
        for number, share in enumerate((0.8, 0.9, 1.0))
    ]
    table = paper.build("t", Shown(framed([plain, *draws])))
    without, record = table.records
    assert (record["draws"], record["spread"]) == (3, pytest.approx(10.0, abs=0.1))
    assert (record["score"], without["draws"]) == (pytest.approx(90, abs=0.1), 1)
    assert (record["mark"], record["no_mark"]) == ("", contrasts.FEW_DRAWS)
    assert "Means over 3 draws" in " ".join(map(str, table.footer))
