"""Tables 2, 5 and 6 from hand-made results: our figures, the paper's beside them, and what is missing."""

import csv
import io
from typing import Any

from m3_exp import plan
from m3_exp.config import ROOT, request
from m3_exp.reporting import adversarial, frame, tables
from m3_exp.reporting.tables import Table
from m3_exp.types import Cell
from tests.test_tables import record

FOLDER = ROOT / "results" / "published"


def attacked(cell: Cell, clean: int, under: int, n: int = 200) -> dict[str, Any]:
    """A result on n items of which `clean` are right without the attack and `under` with it."""
    found = record([1.0] * under + [0.0] * (n - under), cell)
    found["scores"] = [{"id": f"{s['id']}@seed0", "sample": 0, "value": s["value"]} for s in found["scores"]]
    pdr = 100 * (clean - under) / clean if clean else None
    found["result"]["details"] = {
        "accuracy_clean": 100 * clean / n, "parse_rate_clean": 90.0, "parse_rate_attacked": 80.0,
        "mcc_clean": 0.5, "mcc_attacked": 0.1, "pdr_paper": pdr,
        "pdr_paper_low": None if pdr is None else pdr - 5, "pdr_paper_high": None if pdr is None else pdr + 5,
        "pdr_paper_reason": None if clean else "no clean answer is right",
    }  # fmt: skip
    return found


def built(outcome: Any, *args: str) -> Table:
    cells = plan.build(request(["sweeps=table2", "family=llama2_13b", *args]).configs).cells
    return adversarial.build("table2", frame.tidy([frame.Found(c, *outcome(c)) for c in cells]), FOLDER)


def test_a_plain_row_has_difference_and_z_and_an_m3_row_has_none() -> None:
    table = built(lambda cell: (attacked(cell, 120, 60),))
    rows = {(row[1], row[2]): row for row in table.rows}
    assert len(rows) == 6
    plain, mixed = rows["math_code", "no"], rows["math_code", "yes"]
    assert plain[5].startswith("60.0 (paper 57.68, z +0.6)")
    assert plain[6].startswith("30.0 [24.1, 36.7] (paper 35.21, z -1.4)")
    assert plain[7] == "50.0 [45.0, 55.0] (paper 38.97)"
    assert mixed[5] == "60.0 (paper 86.24)"
    assert "(paper 55.39)" in mixed[6]
    assert any("derived" in line for line in table.footer)
    assert any("MCC" in line for line in table.footer)
    assert any("searched and scored on the same items" in line for line in table.footer)


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
