"""Tables 2, 5 and 6 from hand-made results: our figures, the paper's beside them, and what is missing."""

import csv
import io
from typing import Any

import pytest

from m3_exp import plan
from m3_exp.config import ROOT, request
from m3_exp.reporting import adversarial, frame, tables
from m3_exp.reporting.tables import Table
from m3_exp.types import Cell, identity
from tests.test_tables import record

FOLDER = ROOT / "results" / "published"


def attacked(cell: Cell, clean: int, under: int, n: int = 200) -> dict[str, Any]:
    """A result on n items of which `clean` are right without the attack and `under` with it."""
    verdicts: list[float | None] = [*[1.0] * under, *[0.0] * (n - under)]
    found = record(verdicts, cell)
    before = [{"id": s["id"], "sample": 0, "value": float(i < clean)} for i, s in enumerate(found["scores"])]
    after = [{"id": f"{s['id']}@seed0", "sample": 0, "value": s["value"]} for s in found["scores"]]
    found["scores"] = before + after
    found["weights"] = identity([clean, under, n])
    pdr = 100 * (clean - under) / clean if clean else None
    found["result"]["details"] = {
        "accuracy_clean": 100 * clean / n, "parse_rate_clean": 90.0, "parse_rate_attacked": 80.0,
        "mcc_clean": 0.5, "mcc_attacked": 0.1, "pdr_paper": pdr,
        "pdr_paper_low": None if pdr is None else pdr - 5, "pdr_paper_high": None if pdr is None else pdr + 5,
        "pdr_paper_reason": None if clean else "no clean answer is right",
    }  # fmt: skip
    return found


def built(outcome: Any, *args: str, marks: tables.Marks = "real") -> Table:
    cells = plan.build(request(["sweeps=table2", "family=llama2_13b", *args]).configs).cells
    return adversarial.build("table2", frame.tidy([frame.Found(c, *outcome(c)) for c in cells]), FOLDER, marks=marks)


def test_a_plain_row_has_the_difference_and_an_m3_row_has_none() -> None:
    table = built(lambda cell: (attacked(cell, 120, 60),))
    rows = {(row[1], row[2]): row for row in table.rows}
    assert len(rows) == 6
    plain, mixed = rows["math_code", "no"], rows["math_code", "yes"]
    assert plain[5].startswith("60.0 (paper 57.68, +2.3)")
    assert plain[6].startswith("30.0 [24.1, 36.7] (paper 35.21, -5.2)")
    assert plain[7] == "50.0 [45.0, 55.0] (paper 38.97)"
    assert mixed[5] == "60.0 (paper 86.24)"
    first = next(r for r in table.records if r["pair"] == "math_code" and r["ratio"] == "plain")
    assert first["paper_no_attack_z"] is None, "the paper's scaling is not published"
    assert any("does not publish its scaling" in line for line in table.footer)
    assert "(paper 55.39)" in mixed[6]
    assert any("derived" in line for line in table.footer)
    assert any("MCC" in line for line in table.footer)
    assert any("searched and scored on the same items" in line for line in table.footer)


def test_another_protocol_has_no_number_of_the_paper() -> None:
    def outcome(cell: Cell) -> tuple[Any, ...]:
        found = attacked(cell, 120, 60)
        details = found["result"]["details"]
        found["result"]["details"] = {key.replace("pdr_paper", "pdr_adaptive"): x for key, x in details.items()}
        return (found,)

    assert not any("(paper" in text for row in built(outcome).rows for text in row)


def test_what_is_missing_is_said_and_never_zero() -> None:
    def outcome(cell: Cell) -> tuple[Any, ...]:
        if cell.evaluator.name == "prompt_bench_sst2":
            return (None, "the masked LM is not here")
        return (attacked(cell, 0, 0),)

    row = built(outcome).rows[0]
    assert [text.split(" (")[0] for text in row[5:]] == ["failed"] * 3 + [
        "0.0",
        "0.0 [0.0, 1.9]",
        "no clean answer is right",
    ]
    assert built(lambda cell: (None,)).rows[0][5].startswith("not run")


def test_every_format_takes_it_and_csv_has_both_numbers() -> None:
    table = built(lambda cell: (attacked(cell, 120, 60),))
    lines = list(csv.DictReader(io.StringIO(tables.as_csv(table))))
    assert len(lines) == 12
    assert (lines[0]["attack"], lines[0]["paper_attack"], lines[0]["protocol"]) == ("30.0", "35.21", "paper")
    for form in tables.FORMATS.values():
        assert "math_code" in form(table)


def test_each_m3_figure_is_contrasted_with_its_row_without_m3() -> None:
    """M3 turns 60 -> 30 of 100 right into 90 -> 80: all three figures improve, of PDR the lower is the better."""

    def outcome(cell: Cell) -> tuple[Any, ...]:
        return (attacked(cell, 180, 160) if cell.labels[0].ratio == "mixup" else attacked(cell, 120, 60),)

    table = built(outcome)
    signs = {table.header[j]: table.mark(i, j).sign for (i, j) in table.marks if table.rows[i][1] == "lm_code"}
    assert signs == {f"{b} {figure}": "better" for b in ("sst2", "cola") for figure in ("no attack", "attack", "PDR")}
    mixed = next(r for r in table.records if r["ratio"] == "mixup")
    assert (mixed["no_attack_difference"], mixed["attack_difference"]) == (pytest.approx(30), pytest.approx(50))
    assert mixed["pdr_difference"] == pytest.approx(100 * (20 / 180 - 60 / 120))
    assert mixed["pdr_diff_low"] < mixed["pdr_difference"] < mixed["pdr_diff_high"] < 0
    assert mixed["attack_p_holm"] == pytest.approx(min(18 * mixed["attack_p"], 1), rel=1e-6)
    assert any("after Holm over the 18 comparisons" in line for line in table.footer)
    assert not any(table.mark(i, j).weight for i, j in table.marks)


def test_the_same_weights_are_no_comparison_and_one_draw_of_chance_is_no_difference() -> None:
    same = built(lambda cell: (attacked(cell, 120, 60),))
    assert {mark.sign for mark in same.marks.values()} == {"same"}
    near = built(lambda c: (attacked(c, 120, 60 + (c.labels[0].ratio == "mixup")),))
    assert {mark.sign for mark in near.marks.values()} == {"untold"}
    assert all("≈" in line for line in tables.markdown(near).splitlines() if "| yes |" in line)


def test_the_papers_marks_are_by_score_alone_and_say_so() -> None:
    def outcome(cell: Cell) -> tuple[Any, ...]:
        return (attacked(cell, 121 if cell.labels[0].ratio == "mixup" else 120, 60),)

    table = built(outcome, marks="paper")
    bold = {(table.rows[i][2], table.header[j].split(" ", 1)[1]) for (i, j) in table.marks}
    assert bold == {("yes", "no attack"), ("yes", "attack"), ("no", "attack"), ("no", "PDR")}
    assert any("say nothing about what is real" in line for line in table.footer)
    assert not any("▲" in line for line in table.footer)
