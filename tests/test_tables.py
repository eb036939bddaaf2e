"""Tables from hand-made records: intervals, draws, missing cells, published numbers, and every format."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from m3_exp import plan
from m3_exp.config import ROOT, request
from m3_exp.reporting import frame, tables
from m3_exp.types import Cell


def record(values: list[float | None], cell: Cell, weights: str = "d") -> dict[str, Any]:
    scored = [v for v in values if v is not None]
    interval = binomtest(int(sum(scored)), len(scored)).proportion_ci(method="wilson") if scored else None
    result = {
        "benchmark": cell.evaluator.name,
        "metric": "accuracy",
        "score": 100 * sum(scored) / len(scored) if scored else None,
        "low": 100 * interval.low if interval else None,
        "high": 100 * interval.high if interval else None,
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


def built(args: list[str], outcome: Any, **options: Any) -> tables.Table:
    cells = plan.build(request(args, multirun=True).configs).cells
    found = [frame.Found(cell, *outcome(number, cell)) for number, cell in enumerate(cells)]
    return tables.build("t", frame.tidy(found), **options)


def test_one_draw_keeps_its_wilson_interval() -> None:
    table = built(["pair=math", "evaluator=[gsm8k]"], lambda _, c: (record([1, 1, 0, 1], c),))
    assert table.header[-1] == "gsm8k, accuracy, n=4"
    assert table.rows[0][-1] == "75.0 [30.1, 95.4]"


def test_an_m3_row_is_the_mean_over_draws_with_their_spread() -> None:
    values = [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    table = built(
        ["ratio=mixup", "ratio.draws=3", "evaluator=[gsm8k]"],
        lambda i, c: (record(values[i], c, str(i)),),  # type: ignore[arg-type]
    )
    (row,) = table.rows
    assert row[-1].startswith("75.0 [30.1, 95.4]")
    assert row[-1].endswith("sd 25.0 of 3")
    assert row[4] == "0.5"
    assert len(row[5].split(", ")) == 3
    every = built(
        ["ratio=mixup", "ratio.draws=3", "evaluator=[gsm8k]"],
        lambda i, c: (record(values[i], c, str(i)),),  # type: ignore[arg-type]
        every=True,
    )
    assert [r[-1].split()[0] for r in every.rows] == ["50.0", "75.0", "100.0"]


def test_draws_that_all_fail_have_an_interval_too() -> None:
    table = built(["ratio=mixup", "ratio.draws=2", "evaluator=[gsm8k]"], lambda i, c: (record([0] * 20, c, str(i)),))
    assert table.rows[0][-1].startswith("0.0 [0.0, 16.1]")


def test_rows_stand_in_the_papers_order() -> None:
    axes = ["method=average,task_arithmetic", "ratio=plain,mixup", "pair=lm_math,lm_code,lm", "evaluator=[gsm8k]"]
    table = built(axes, lambda _, c: (record([1, 0], c),))
    rows = [row[:3] for row in table.rows]
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
    assert table.rows[0][-3:-1] == ("not run", "failed")
    assert table.rows[0][-1] == "66.7 [20.8, 93.9] (1 unscored)"
    assert any("failed: single lm hendrycks_math: the judge died" in line for line in table.footer)


def test_missing_draws_are_counted() -> None:
    table = built(
        ["ratio=mixup", "ratio.draws=3", "evaluator=[gsm8k]"], lambda i, c: (record([1, 0], c) if i == 0 else None,)
    )
    assert table.rows[0][-1].endswith("(2 of 3 draws missing)")


def test_a_benchmark_that_is_not_the_rows_is_a_slash() -> None:
    table = built(["pair=math,code"], lambda _, c: (record([1, 0], c),))
    assert next(row[-1] for row in table.rows) == "/"
    assert "/" in table.rows[1]


def test_published_numbers_stand_beside_ours() -> None:
    table = built(
        ["family=llama2_13b", "pair=lm_code", "ratio=plain", "items=lab"],
        lambda _, c: (record([1, 0], c),),
        published=ROOT / "results" / "published",
    )
    cells = dict(zip([h.split(",")[0] for h in table.header], table.rows[0], strict=True))
    assert cells["alpaca_eval"].endswith("(paper 36.6)")
    assert cells["humaneval"].endswith("(paper 29.88, +20.1, z +0.6)")
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
    assert "(paper" not in wide.rows[0][-1]


def test_the_footer_names_the_line_that_rebuilds_each_row() -> None:
    table = built(["method=ties", "ratio=fixed", "ratio.lam=0.25"], lambda _, c: (record([1, 0], c),))
    lines = [line for line in table.footer if "m3 merge" in line]
    assert len(lines) == 1
    assert "method=ties method.retain=0.7 method.scaling=1.0 ratio=fixed ratio.lam=0.25" in lines[0]


@pytest.mark.parametrize("form", sorted(tables.FORMATS))
def test_every_format_holds_every_figure(form: str) -> None:
    table = built(["method=average,ties", "evaluator=[gsm8k]"], lambda _, c: (record([1, 0, 1, 1], c),))
    text = tables.FORMATS[form](table)
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [float(row["score"]) for row in rows] == [75.0, 75.0]
        assert json.loads(rows[0]["n"]) == 4
    elif form == "tex":
        assert text.count(r"75.0\\[-2pt]{\scriptsize {[}30.1, 95.4{]}}") == 2
    else:
        assert text.count("75.0 [30.1, 95.4]") == 2
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
