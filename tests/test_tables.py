"""Tables from hand-made records: intervals, draws, missing cells, published numbers, and every format."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from m3_exp import planning
from m3_exp.config import ROOT, request
from m3_exp.reporting.data import dataframe
from m3_exp.reporting.table import Table
from m3_exp.reporting.tables import paper
from m3_exp.reporting.tables.formats import FORMATS
from m3_exp.reporting.tables.rows import Shown
from m3_exp.types import Cell
from tests.records import looked_up

Z = 1.959963984540054  # normal, 97.5 %


def ends(values: Sequence[float], unscored: int = 0) -> tuple[float, float]:
    """A score's 95 % interval in percent by hand: Agresti and Coull's, of graded values as well.

    Wald's, of the items and z^2/2 more of 0 and as many of 1; unscored items are all 0 at the low end, all 1 at the
    high one.
    """
    found, pseudo = [], Z * Z / 2
    for lost, side in ((0.0, -1), (1.0, 1)):
        v = np.array([*values, *[lost] * unscored], dtype=float)
        n = len(v) + 2 * pseudo
        middle = (v.sum() + pseudo) / n
        half = Z * math.sqrt((((v**2).sum() + pseudo) / n - middle**2) / n)
        found.append(100 * min(1.0, max(0.0, middle + side * half)))
    return found[0], found[1]


def shown(values: Sequence[float], unscored: int = 0) -> str:
    low, high = ends(values, unscored)
    return f"{100 * float(np.mean(values)):.1f} [{low:.1f}, {high:.1f}]"


def record(values: list[float | None], cell: Cell, weights: str = "d") -> dict[str, Any]:
    """A stored result. Its interval is wrong on purpose: nothing that is printed may come from it."""
    scored = [v for v in values if v is not None]
    result = {
        "benchmark": cell.evaluator.name,
        "metric": "accuracy",
        "score": 100 * sum(scored) / len(scored) if scored else None,
        "low": 49.0 if scored else None,
        "high": 49.0 if scored else None,
        "n": len(values),
        "n_scored": len(scored),
        "n_unscored": len(values) - len(scored),
    }
    return {
        "result": result,
        "scores": [{"id": str(i), "sample": 0, "value": v} for i, v in enumerate(values)],
        "weights": weights * 16,
        "engine": {"engine": "vllm", "version": "0.32.0", "dtype": "float32"},
        "evaluator": {"name": cell.evaluator.name, "version": "1"},
        "runs": ["r"],
    }


def built(args: list[str], outcome: Any, **options: Any) -> Table:
    cells = planning.build(request(args, multirun=True).configs).cells
    found = [looked_up(cell, *outcome(number, cell)) for number, cell in enumerate(cells)]
    return paper.build("t", Shown(dataframe.tidy(found), **options))


def test_a_score_has_the_interval_of_its_items() -> None:
    table = built(["pair=math", "evaluator=[gsm8k]"], lambda _, c: (record([1, 1, 0, 1], c),))
    assert table.header[-1] == "gsm8k, accuracy, n=4"
    assert table.texts[0][-1] == "75.0 [28.9, 96.6]" == shown([1, 1, 0, 1])
    many: list[float | None] = [float(i < 1000) for i in range(1319)]
    (row,) = built(["pair=math", "evaluator=[gsm8k]"], lambda _, c: (record(many, c),)).texts
    low, high = (100 * x for x in proportion_confint(1000, 1319, method="agresti_coull"))
    assert row[-1] == f"75.8 [{low:.1f}, {high:.1f}]"


def test_an_interval_stored_with_a_result_is_never_read() -> None:
    """Edited to nonsense, it changes nothing that any format prints."""

    def outcome(low: float, high: float) -> Any:
        def of(number: int, cell: Cell) -> Any:
            found = record([1, 0, number % 2, 1], cell, str(number))
            found["result"] |= {"low": low, "high": high}
            return (found,)

        return of

    line = ["method=average,ties", "ratio=plain,mixup", "ratio.draws=2", "evaluator=[gsm8k,mbpp]"]
    one, other = built(line, outcome(-7.0, 700.0)), built(line, outcome(50.0, 50.0))
    assert one == other
    assert [form(one) for form in FORMATS.values()] == [form(other) for form in FORMATS.values()]


def test_an_m3_row_is_the_mean_over_draws_with_their_spread() -> None:
    values = [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    table = built(
        ["ratio=mixup", "ratio.draws=3", "evaluator=[gsm8k]"],
        lambda i, c: (record(values[i], c, str(i)),),  # type: ignore[arg-type]
    )
    (row,) = table.texts
    assert row[-1] == f"{shown([1, 1, 2 / 3, 1 / 3])} sd 25.0 of 3" == "75.0 [33.3, 92.2] sd 25.0 of 3"
    assert row[4] == "0.5"
    assert len(row[5].split(", ")) == 3
    every = built(
        ["ratio=mixup", "ratio.draws=3", "evaluator=[gsm8k]"],
        lambda i, c: (record(values[i], c, str(i)),),  # type: ignore[arg-type]
        every=True,
    )
    assert [r[-1].split()[0] for r in every.texts] == ["50.0", "75.0", "100.0"]


def test_draws_that_all_fail_have_an_interval_too() -> None:
    table = built(["ratio=mixup", "ratio.draws=2", "evaluator=[gsm8k]"], lambda i, c: (record([0] * 20, c, str(i)),))
    high = 100 * proportion_confint(0, 20, method="agresti_coull")[1]
    assert table.texts[0][-1] == f"0.0 [0.0, {high:.1f}] sd 0.0 of 2"


def test_rows_stand_in_the_papers_order() -> None:
    axes = ["method=average,task_arithmetic", "ratio=plain,mixup", "pair=lm_math,lm_code,lm", "evaluator=[gsm8k]"]
    table = built(axes, lambda _, c: (record([1, 0], c),))
    rows = [row[:3] for row in table.texts]
    assert rows[0] == ("single", "lm", "")
    assert rows[1:5] == [
        ("average", "lm_math", "no"), ("average", "lm_math", "yes"),
        ("average", "lm_code", "no"), ("average", "lm_code", "yes"),
    ]  # fmt: skip
    assert rows[5][0].startswith("task_arithmetic")


def test_incomplete_failed_and_missing_cells_are_marked_and_never_zero() -> None:
    outcomes = [(None,), (None, "the judge died"), "unscored"]

    def outcome(number: int, cell: Cell) -> Any:
        return outcomes[number] if number < 2 else (record([1, None, 0, 1], cell), "1 of 4 items are unscored")

    table = built(["pair=lm", "evaluator=[gsm8k,hendrycks_math,humaneval]"], outcome)
    assert table.texts[0][-3:-1] == ("not run", "failed")
    assert table.texts[0][-1] == f"{shown([1, 0, 1], unscored=1)} (1 unscored)" == "66.7 [15.0, 96.6] (1 unscored)"
    assert any("failed: single lm hendrycks_math: the judge died" in line for line in table.footer)


def test_missing_draws_are_counted() -> None:
    table = built(
        ["ratio=mixup", "ratio.draws=3", "evaluator=[gsm8k]"], lambda i, c: (record([1, 0], c) if i == 0 else None,)
    )
    assert table.texts[0][-1].endswith("(2 of 3 draws missing)")


def test_a_benchmark_that_is_not_the_rows_is_a_slash() -> None:
    table = built(["pair=math,code"], lambda _, c: (record([1, 0], c),))
    assert next(row[-1] for row in table.texts) == "/"
    assert "/" in table.texts[1]


def test_published_numbers_stand_beside_ours() -> None:
    table = built(
        ["family=llama2_13b", "pair=lm_code", "ratio=plain", "items=lab"],
        lambda _, c: (record([1, 0], c),),
        published=ROOT / "results" / "published",
    )
    cells = dict(zip([h.split(",")[0] for h in table.header], table.texts[0], strict=True))
    assert cells["alpaca_eval"].endswith("(paper 36.6)")
    assert cells["humaneval"].endswith("(paper 29.88, +20.1 [-21.1, +61.2], z +1.0)")
    ours, theirs = ends([1, 0]), [100 * x for x in proportion_confint(49, 164, method="agresti_coull")]
    below, above = math.hypot(50 - ours[0], theirs[1] - 29.88), math.hypot(ours[1] - 50, 29.88 - theirs[0])
    assert (20.12 - below, 20.12 + above) == pytest.approx((-21.1, 61.2), abs=0.05), "Newcombe's method 10"
    assert 20.12 / (below / Z) == pytest.approx(0.96, abs=0.005)
    assert cells["mbpp"].endswith("(paper: illegible)")
    told = [line for line in table.footer if "paper" in line]
    assert any("AlpacaEval" in line for line in told)
    assert any("+2.4" in line for line in told)
    assert not any("8.53" in line or "CoLA" in line for line in told), "a contradiction in a cell that is not shown"
    wide = built(
        ["family=llama2_13b", "pair=lm_code", "evaluator=[humaneval]", "ratio=fixed"],
        lambda _, c: (record([1, 0], c),),
        published=ROOT / "results" / "published",
    )
    assert "(paper" not in wide.texts[0][-1]


def test_the_footer_names_the_line_that_rebuilds_each_row() -> None:
    table = built(["method=ties", "ratio=fixed", "ratio.lam=0.25"], lambda _, c: (record([1, 0], c),))
    lines = [line for line in table.footer if "m3 merge" in line]
    assert len(lines) == 1
    assert "method=ties method.retain=0.7 method.scaling=1.0 ratio=fixed ratio.lam=0.25" in lines[0]


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_format_holds_every_figure(form: str) -> None:
    table = built(["method=average,ties", "evaluator=[gsm8k]"], lambda _, c: (record([1, 0, 1, 1], c),))
    text = FORMATS[form](table)
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [float(row["score"]) for row in rows] == [75.0, 75.0]
        assert json.loads(rows[0]["n"]) == 4
    elif form == "tex":
        assert text.count(r"75.0\\[-2pt]{\scriptsize {[}28.9, 96.6{]}}") == 2
    else:
        assert text.count("75.0 [28.9, 96.6]") == 2
    if form == "tex":
        assert r"\_" in text or "_" not in text.split(r"\end{tabular}")[0].replace(r"\_", "")
    assert Path(__file__).name not in text


@pytest.mark.parametrize(
    ("levels", "says"),
    [
        (["bubblewrap", "bubblewrap"], ["sandbox: humaneval bubblewrap"]),
        (["landlock", "container:podman"], ["sandbox: humaneval container:podman, landlock"]),
        (["bubblewrap, weak", "bubblewrap"], ["sandbox: humaneval bubblewrap, weak", "WARNING: humaneval: prog"]),
        ([None, None], []),
    ],
)
def test_the_footer_says_what_contained_the_programs(levels: list[str | None], says: list[str]) -> None:
    def outcome(number: int, cell: Cell) -> tuple[dict[str, Any]]:
        found = record([1, 0], cell)
        found["result"]["details"] = {"sandbox": levels[number]}
        return (found,)

    table = built(["pair=lm_code", "method=average,ties", "evaluator=[humaneval]"], outcome)
    footer = [line for line in table.footer if line.startswith(("sandbox", "WARNING"))]
    assert len(footer) == len(says)
    assert all(line.startswith(start) for line, start in zip(footer, says, strict=True))
    assert not any("WARNING" in line for line in footer) or "UNCONTAINED" in footer[1]


# ------------------------------------------------------------------------------------------- what is said of draws


def test_fewer_than_ten_draws_carry_no_sign_and_the_footer_says_what_their_interval_is_of() -> None:
    """Twenty items lost under every draw: a sign would be easy to give, and of the expectation it would say nothing."""

    def signs(draws: int) -> tuple[list[str], str]:
        def outcome(_: int, cell: Cell) -> Any:
            return (record([float(cell.labels[0].ratio == "plain")] * 20, cell, str(cell.labels[0].lam)),)

        table = built(["ratio=plain,mixup", f"ratio.draws={draws}", "evaluator=[gsm8k]"], outcome)
        return [table.rows[i][6].mark.sign for i in range(len(table.rows))], "\n".join(table.footer)

    for draws in (1, 3, 9):
        marks, said = signs(draws)
        assert marks == ["", ""], draws
        assert f"Means over {draws} draw{'s' if draws > 1 else ''}: the interval is over items" in said
        assert "of these very draws" in said
        assert "No sign (1 cell): fewer than 10 draws" in said
    marks, said = signs(10)
    assert marks == ["", "worse"]
    assert "of these very draws" not in said


def test_draws_that_are_all_but_one_expert_are_named_in_words() -> None:
    def said(draws: dict[int, float], experts: Any) -> list[str]:
        cells = planning.build(request(["ratio=mixup", f"ratio.draws={len(draws)}", "evaluator=[gsm8k]"]).configs).cells
        found = dataframe.tidy([looked_up(cell, record([1, 0], cell, str(i))) for i, cell in enumerate(cells)])
        found["lam"] = [draws[int(draw)] for draw in found["draw"]]
        found["point"] = [(lam, 1 - lam) for lam in found["lam"]]
        table = paper.build("t", Shown(found, experts=experts))
        return [text for text in table.footer if text.startswith("Draws of lambda that are all but one expert")]

    (line,) = said({0: 0.0001, 1: 0.5, 2: 0.99, 3: 0.02}, {"lm_math": ("lm", "math")})
    assert line == (
        "Draws of lambda that are all but one expert: lm_math alpha 0.5 draw 0: 99.99 % math;"
        " lm_math alpha 0.5 draw 2: 99.0 % lm."
    )
    assert said({0: 0.02, 1: 0.98}, {"lm_math": ("lm", "math")}) == []


def test_an_unscored_item_is_counted_and_in_the_interval_of_every_comparison() -> None:
    """12 of 20 items gained and none lost is real; with six more that nobody scored it need not be."""

    def built_with(lost: int) -> Table:
        def outcome(_: int, cell: Cell) -> Any:
            mixed = cell.labels[0].ratio == "fixed"
            some: list[float | None] = [float(mixed) if i < 12 else 1.0 for i in range(20)]
            return (record([*some, *([None] * lost if mixed else [0.0] * lost)], cell, str(mixed)),)

        return built(["ratio=plain,fixed", "ratio.lam=0.3", "evaluator=[gsm8k]"], outcome)

    assert built_with(0).rows[1][6].mark.sign == "better"
    table = built_with(13)
    assert table.rows[1][6].mark.sign == "untold"
    assert table.texts[1][-1].endswith("(13 unscored)")
    record_ = table.records[1]
    assert record_["diff_low"] < 0, "all 13 may be lost, since plain has none of them right: the worst is counted"
    assert re.search(r"100\.0 \[\d+\.\d, 100\.0\]", table.texts[1][-1])
    assert (record_["n"], record_["n_unscored"]) == (33, 13)
