"""Expectations, marks, gains and the four formats, on hand-made scores."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from m3_exp.config import ROOT
from m3_exp.merging.ratio import grid
from m3_exp.reporting import contrasts, formats, gains, published, stats, tables
from m3_exp.reporting.contrasts import Entry
from m3_exp.reporting.curves import responses
from m3_exp.reporting.formats import FORMATS, Mark, Table

FOLDER = ROOT / "results" / "published"
PARENTS = {"lm_math": ["lm", "math"]}
LAMS = grid(5)
N = 200


def line(ratio: str, share: float, lam: float | None = None, **more: Any) -> dict[str, Any]:
    """A result on N items of which the first `share` are right."""
    values = {(str(i), 0): float((i + 0.5) / N < share) for i in range(N)}
    return {
        "family": "lab", "pair": "lm_math", "method": "average", "params": "", "ratio": ratio, "alpha": None,
        "draw": None, "lam": lam, "sparsify": "none", "mask_seed": None, "benchmark": "gsm8k", "metric": "accuracy",
        "score": 100 * share, "low": 100 * share - 3, "high": 100 * share + 3, "n": N, "n_unscored": 0, "state": "done",
        "failure": None, "values": values, "weights": f"{ratio} {share} {lam}", "engine": "vllm 0.32.0 float32",
        "evaluator": "gsm8k 2", "tokenizer": "lm", "runs": 1, "merge": f"m3 merge {ratio} {lam}", "details": {},
        "cell": "c", "repeat": 0, "changed": frozenset(), "items_digest": "0123456789abcdef",
    } | more  # fmt: skip


def curve(at: Callable[[float], float], **more: Any) -> list[dict[str, Any]]:
    return [line("grid", at(lam), lam, **more) for lam in LAMS]


def built(lines: list[dict[str, Any]], nodes: list[dict[str, Any]] | None = None, **options: Any) -> Table:
    behind = None if nodes is None else pd.DataFrame(nodes)
    found = [] if behind is None else responses(behind, PARENTS)
    return tables.build("t", pd.DataFrame(lines), responses=found, behind=behind, **options)


# ---------------------------------------------------------------------------------------------------- expectations


def test_an_m3_row_is_the_expectation_where_there_is_a_curve_and_else_the_mean_over_draws() -> None:
    drawn = [line("mixup", 0.4, 0.3, alpha=0.5, draw=0), line("mixup", 0.5, 0.8, alpha=0.5, draw=1)]
    lines = [line("plain", 0.5), *drawn, *({**x, "benchmark": "mbpp"} for x in (line("plain", 0.5), *drawn))]
    table = built(lines, curve(lambda x: 0.2 + 0.4 * x))
    row = dict(zip((h.split(",")[0] for h in table.header), table.rows[1], strict=True))
    found = responses(pd.DataFrame(curve(lambda x: 0.2 + 0.4 * x)), PARENTS)[0].curve
    low, high = stats.mean_interval(found.expected(0.5))
    assert row["gsm8k"].startswith(f"40.0 [{100 * low:.1f}, {100 * high:.1f}] E sd ")
    assert re.search(r"E sd (\S+)", row["gsm8k"]).group(1) == f"{100 * 0.4 * np.sqrt(0.125):.1f}"  # type: ignore[union-attr]
    assert re.fullmatch(r"45\.0 \[.*\] sd 7\.1 of 2", row["mbpp"])
    assert row["lambda"] == "curve of 5 nodes; 0.3, 0.8"
    record = next(r for r in table.records if r["ratio"] == "mixup" and r["benchmark"] == "gsm8k")
    assert (record["nodes"], record["draws"], record["lambda"]) == (5, 0, list(LAMS))
    assert any(text.startswith("E: the expectation") and "lambda_response --all" in text for text in table.footer)
    assert built(lines, curve(lambda x: 0.2), every=True).rows[2][-2].startswith("40.0"), "--all shows single draws"


def test_a_grid_is_shown_as_the_seven_expectations_and_all_shows_its_nodes() -> None:
    lines = [line("plain", 0.5), *curve(lambda x: 0.2 + 0.4 * x)]
    table = built(lines, lines)
    assert [row[4] for row in table.rows] == ["", "0.2", "0.4", "0.5", "1", "2", "3", "5"]
    assert all(row[-1].startswith("40.0 ") for row in table.rows[1:]), "a straight line has one expectation"
    every = built(lines, lines, every=True)
    assert [row[2] for row in every.rows] == ["no"] + ["grid"] * 5 + ["yes"] * 7
    assert [row[-1].split()[0] for row in every.rows[1:6]] == ["20.0", "30.0", "40.0", "50.0", "60.0"]


def test_the_masks_of_dare_have_a_spread_of_their_own() -> None:
    of: dict[str, Any] = {"sparsify": "dare"}
    nodes = [x for seed, top in ((1, 0.4), (2, 0.6)) for x in curve(lambda x, t=top: t, mask_seed=seed, **of)]  # type: ignore[misc]
    plain = [line("plain", 0.5, mask_seed=seed, **of) for seed in (1, 2)]
    table = built([*plain, line("mixup", 0.5, 0.3, alpha=1.0, draw=0, **of)], nodes)
    assert table.rows[1][-1].startswith("50.0 [")
    assert table.rows[1][-1].endswith("E sd 0.0 masks 14.1")
    assert table.mark(1, 6).sign == "untold"


def test_a_curve_without_both_ends_is_not_run() -> None:
    table = built([line("plain", 0.5), *curve(lambda x: 0.3)[1:]], curve(lambda x: 0.3, benchmark="mbpp"))
    assert [row[-1] for row in table.rows[1:]] == ["not run"] * 7


def test_ends_and_middle_are_no_curve() -> None:
    """At 0, 1/2 and 1 an average is a single model or plain: evaluated with no grid, and no reason to hide draws."""
    three = [line("grid", 0.3, lam) for lam in grid(3)]
    table = built([line("plain", 0.5), line("mixup", 0.45, 0.3, alpha=0.5, draw=0)], three)
    assert table.rows[1][-1].startswith("45.0")
    assert [row[2] for row in built(three, three).rows] == ["grid"] * 3


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
    assert table.rows[2][-1].endswith(" n=50")


# ------------------------------------------------------------------------------------------------------------ marks


def test_every_m3_row_is_marked_against_its_row_without_m3() -> None:
    of: dict[str, Any] = {"alpha": 0.5, "draw": 0}
    lines = [
        line("plain", 0.5), line("mixup", 0.7, 0.1, **of),
        line("plain", 0.5, method="ties"), line("mixup", 0.51, 0.1, method="ties", **of),
        line("plain", 0.5, sparsify="dare", mask_seed=1), line("mixup", 0.3, 0.1, sparsify="dare", mask_seed=1, **of),
        line("plain", 0.5, pair="lm_code"), line("fixed", 0.5, 0.5, pair="lm_code", weights="plain 0.5 None"),
        line("plain", 0.5, method="single", pair="lm"),
    ]  # fmt: skip
    table = built(lines)
    found = {(row[0], row[1], row[3], row[2]): table.mark(i, 6).sign for i, row in enumerate(table.rows)}
    assert found["average", "lm_math", "no", "yes"] == "better"
    assert found["average", "lm_math", "yes", "yes"] == "worse"
    assert found["ties", "lm_math", "no", "yes"] == "untold"
    assert found["average", "lm_code", "no", "fixed"] == "same"
    assert [sign for key, sign in found.items() if key[3] in ("no", "")] == [""] * 5
    better = next(r for r in table.records if r["mark"] == "better")
    exact = stats.contrast({str(i): float(i < 140) for i in range(N)}, {str(i): float(i < 100) for i in range(N)})
    assert (better["difference"], better["diff_low"]) == (pytest.approx(20), pytest.approx(100 * exact.low))
    assert (better["p"], better["p_holm"], better["discordant"]) == (exact.p, pytest.approx(3 * exact.p), 40)
    assert any("the 3 comparisons of this table; = the same weights (1)" in text for text in table.footer)
    assert any("Minimal detectable difference" in text for text in table.footer)


def test_chance_findings_do_not_survive_how_many_were_looked_at() -> None:
    """One comparison at p = 0.008 is real alone and is not among ten."""

    def lines(count: int) -> list[dict[str, Any]]:
        return [x for k in range(count) for x in (
            line("plain", 0.5, benchmark=f"b{k}"),
            line("mixup", 0.5 + 0.035 * (k == 0), 0.1, alpha=0.5, draw=0, benchmark=f"b{k}"),
        )]  # fmt: skip

    assert 0.005 < stats.mid_p(7, 0) < 0.01
    assert built(lines(1)).mark(1, 6).sign == "better"
    assert built(lines(10)).mark(1, 6).sign == "untold"


def test_bold_is_only_what_beats_every_other_row_of_its_pair() -> None:
    near = [line("plain", 0.5), line("plain", 0.69, method="task_arithmetic"), line("plain", 0.7, method="ties")]
    assert not built(near).marks
    far = [*near[:2], line("plain", 0.9, method="ties"), line("plain", 0.95, pair="lm_code")]
    table = built(far)
    assert {table.rows[i][:2]: mark.weight for (i, _), mark in table.marks.items()} == {("ties", "lm_math"): "bold"}
    assert any("after Holm over 2 comparisons; 1 here" in text for text in table.footer)


def test_two_rows_with_the_best_weights_are_both_best() -> None:
    top = [line("plain", 0.9), line("fixed", 0.9, 0.5, weights="plain 0.9 None")]
    table = built([*top, line("plain", 0.5, method="ties")])
    assert {i: (mark.weight, mark.sign) for (i, _), mark in table.marks.items()} == {
        0: ("bold", ""),
        1: ("bold", "same"),
    }


def test_the_papers_marks_are_bold_and_underlined_by_score() -> None:
    lines = [line("plain", 0.5), line("plain", 0.505, method="task_arithmetic"), line("plain", 0.51, method="ties")]
    single = line("plain", 0.9, method="single", pair="lm_math")
    table = built([single, *lines], marks="paper")
    assert {table.rows[i][0]: mark.weight for (i, _), mark in table.marks.items()} == {
        "ties": "bold", "task_arithmetic": "underline"
    }  # fmt: skip
    assert any("say nothing about what is real" in text for text in table.footer)
    assert not any("▲" in text for text in table.footer)
    assert {r["p"] for r in table.records} == {None}


def test_fine_p_values_survive_holm_where_sign_flips_end() -> None:
    generator = np.random.default_rng(0)
    mixed = {str(i): float(x) for i, x in enumerate(0.3 + 0.1 * generator.random(N))}
    plain = {key: value - 0.05 for key, value in mixed.items()} | {"0": 0.2}
    assert stats.contrast(mixed, plain).p == pytest.approx(1 / 5000)
    assert contrasts.contrast(mixed, plain).p < 1e-9
    entry = Entry(30.0, mixed)
    assert contrasts.against({(0, 0): (entry, Entry(20.0, plain)), (0, 1): (entry, Entry(1.0, {"x": 1.0}))}).keys() == {
        (0, 0)
    }


def test_students_t_stands_in_for_resampling_where_many_items_differ() -> None:
    generator = np.random.default_rng(1)
    plain = {str(i): float(x) for i, x in enumerate(generator.random(600) < 0.5)}
    mixed = {
        key: 0.9 * value + 0.07 * float(x) for (key, value), x in zip(plain.items(), generator.random(600), strict=True)
    }
    quick, slow = contrasts.contrast(mixed, plain), stats.contrast(mixed, plain)
    assert quick.method == "Student's t"
    assert [quick.difference, quick.detectable] == pytest.approx([slow.difference, slow.detectable])
    assert [quick.low, quick.high] == pytest.approx([slow.low, slow.high], abs=5e-4)


def test_a_mean_over_draws_counts_what_varies_between_draws() -> None:
    """Items threshold lambda, so draws are the population's: their mean is told apart in about 5 %, not in 54 %."""
    generator, found = np.random.default_rng(3), []
    for _ in range(300):
        level, other, lams = generator.random(96), generator.random(96), generator.beta(0.5, 0.5, 3)
        drawn: dict[tuple[float | None, float | None], dict[str, float]] = {
            (lam, None): {str(i): float(x < lam) for i, x in enumerate(level)} for lam in map(float, lams)
        }
        mean = {str(i): float(np.mean([values[str(i)] for values in drawn.values()])) for i in range(96)}
        plain = {str(i): float(x < 0.5) for i, x in enumerate(other)}
        contrast = contrasts.compare(Entry(50.0, mean, models=drawn), Entry(50.0, plain, models={(None, None): plain}))
        assert contrast is not None
        assert contrast.method == "Student's t over items and 3 draws or masks"
        found.append(contrast.p < 0.05)
    assert np.mean(found) < 0.12
    one = built([line("plain", 0.5), line("mixup", 0.6, 0.3, alpha=0.5, draw=0)])
    assert any("of this very draw of lambda" in text for text in one.footer)


def test_only_masks_of_both_sides_are_compared() -> None:
    of: dict[str, Any] = {"sparsify": "dare"}
    plain = [line("plain", share, mask_seed=seed, **of) for seed, share in ((1, 0.5), (2, 0.9), (3, 0.9))]
    table = built([*plain, line("mixup", 0.5, 0.3, alpha=1.0, draw=0, mask_seed=1, **of)],
                  curve(lambda x: 0.5, mask_seed=1, **of))  # fmt: skip
    assert table.records[1]["difference"] == 0.0
    assert table.rows[1][-1].endswith("(1 of 3 masks)")
    assert table.mark(1, 6).title.endswith("1 of 3 masks")
    assert re.search(r"\] masks 23\.1$", table.rows[0][-1]), "masks are no draws"
    assert (table.records[0]["draws"], table.records[0]["spread"]) == (1, None)


def test_items_asked_are_those_of_all_draws() -> None:
    drawn = [line("mixup", 0.5, lam, alpha=0.5, draw=k) for k, lam in enumerate((0.2, 0.7))]
    drawn[1]["values"] = {key: x for key, x in drawn[1]["values"].items() if int(key[0]) < 150}
    drawn[1] |= {"n": 150, "score": 100 * 100 / 150}
    record = built(drawn).records[0]
    assert (record["n"], record["n_unscored"]) == (150, 0)


def test_other_items_under_the_same_ids_are_not_compared() -> None:
    table = built([line("plain", 0.3), line("mixup", 0.7, 0.1, alpha=0.5, draw=0, items_digest="other")])
    assert table.mark(1, 6).sign == ""
    assert table.records[1]["p"] is None
    assert any("Other items under the same ids" in text for text in table.footer)


def test_the_same_expectation_twice_is_one_model() -> None:
    assert Entry(1.0, {"a": 1.0}).same_model(Entry(1.0, {"a": 1.0}))
    assert not Entry(1.0, {"a": 1.0}).same_model(Entry(1.0, {"a": 1.0}, frozenset({"w"})))


def test_a_score_that_is_no_mean_of_items_has_no_expectation() -> None:
    table = built([line("plain", 0.5, score=60.0), *curve(lambda x: 0.5, score=60.0)], curve(lambda x: 0.5, score=60.0))
    assert not any(" E" in row[-1] for row in table.rows)
    assert any("no plain mean of items (pass@k, LiveBench)" in text for text in table.footer)


# ----------------------------------------------------------------------------------------------- the paper's numbers


def test_a_published_m3_number_has_its_percentile_in_the_replay() -> None:
    lines = [line("plain", 0.665), line("mixup", 0.6, 0.3, alpha=0.5, draw=0)]
    table = built(lines, curve(lambda x: 0.4 + 0.4 * x), published=FOLDER)
    found = responses(pd.DataFrame(curve(lambda x: 0.4 + 0.4 * x)), PARENTS)[0].curve
    generator = np.random.default_rng(7)
    means = found.values.T @ generator.multinomial(N, np.full(N, 1 / N), 4000).T / N
    lams = [generator.beta(a, a, 4000) for a in (0.2, 0.4, 0.5, 1, 2, 3, 5)]
    tops = [max(np.interp([x[k] for x in lams], LAMS, means[:, k])) for k in range(4000)]
    draws = generator.binomial(1319, tops) / 1319
    record = table.records[1]
    assert record["paper"] == 66.26
    assert record["percentile"] == pytest.approx(100 * np.mean(draws < 0.6626), abs=4)
    assert published.replayed(found, 1319).shape == (2000,)
    assert table.rows[1][-1].endswith(f"(paper 66.26, at {record['percentile']:.0f} % of the replay)")
    assert table.records[0]["z"] == published.z(66.5, 200, 66.34, 1319)
    assert (record["z"], table.records[0]["percentile"]) == (None, None)
    assert any("percentile" in text for text in table.footer)


def test_the_footer_is_complete() -> None:
    nodes = curve(lambda x: 0.5, engine="vllm 0.33.0 float32")
    unscored = line("plain", 0.5, n_unscored=3)
    text = built([unscored, line("mixup", 0.5, 0.3, alpha=0.5, draw=0)], nodes)
    assert "(3 unscored)" in text.rows[0][-1]
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
        line("plain", 0.3, method="ties", **of), line("mixup", 0.5, 0.2, method="ties", alpha=0.5, draw=0, **of),
        line("plain", 0.3, **of),
        line("mixup", 0.0, 0.2, alpha=0.5, draw=0, **of, state="missing") | {"score": None, "values": None},
    ]  # fmt: skip
    table = gains.build("figure4", pd.DataFrame(lines), published=FOLDER)
    missing, gained = table.rows
    assert missing[-3:] == ("not run", "/", "+4")
    assert gained[0] == "ties"
    assert gained[-4].startswith("30.0 [")
    assert re.fullmatch(r"\+20\.0 \[\+1\d\.\d, \+2\d\.\d\]", gained[-2])
    assert gained[-1] == "+14"
    assert table.marks == {(1, table.header.index("gain")): table.mark(1, table.header.index("gain"))}
    assert table.mark(1, table.header.index("gain")).sign == "better"
    assert table.records[1]["without"] == 30.0
    assert (table.records[1]["difference"], table.records[1]["paper_gain"]) == (pytest.approx(20), 14.0)
    assert gains.build("figure4", pd.DataFrame(lines)).rows[1][-1] == ""
    assert not gains.build("figure4", pd.DataFrame(lines), marks="paper").marks


# ----------------------------------------------------------------------------------------------------------- formats


def marked() -> Table:
    return Table(
        "t & co", ("method", "gsm8k, accuracy, n=4", "odd | <b>"),
        (
            ("ties (retain 0.7)", "75.0 [30.1, 95.4] (paper 66.34)", "[x] ~100 % of $5 & #1 {a}^2 \\ <c> \"d\" 'e'"),
            ("average", "50.0 [1.0, 99.0]", "α ≈ λ, ü 漢 -- two\nlines"),
            ("average", "-2.5 [-5.0, 0.0]", "failed"),
        ),
        ("Percent. ▲ 5 % < 6 % ~ _x_", formats.REBUILD, "  abc m3 merge a_b%"),
        ({"benchmark": "gsm8k", "lambda": [0.25, 0.5], "score": 75.0},),
        {(0, 1): Mark("better", "bold", 'p "0.01" <'), (1, 1): Mark("untold", "underline"), (2, 1): Mark("worse")},
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
    table = built([line("plain", 0.5), line("mixup", 0.6, 0.3, alpha=0.5, draw=0)])
    columns = FORMATS["csv"](table).splitlines()[0].split(",")
    wanted = {"difference", "diff_low", "diff_high", "p", "p_holm", "mark", "discordant", "detectable"}
    assert wanted | {"paper", "z", "percentile"} <= set(columns)
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
    assert "% " + formats.REBUILD in text


def test_a_long_latex_table_is_parted_between_methods() -> None:
    rows = tuple((method, f"{i}.0 [1.0, 2.0]") for method in ("average", "ties", "slerp") for i in range(18))
    text = FORMATS["tex"](Table("t", ("method", "gsm8k"), rows, ("Notes.",)))
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
    assert tables.title("# m3 run sweeps=x\n#\n# What it shows. More of it.\ntable: x\n") == "What it shows"
    assert tables.title("# Table 1: all of it\n").startswith("Table 1: all")
    for path in (ROOT / "sweeps").glob("*.yaml"):
        assert 10 < len(tables.title(path.read_text())) < 130, path.name
