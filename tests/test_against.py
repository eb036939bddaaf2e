"""`m3 table --against NAME`: each row beside a method's row, or an expert's, on hand-made scores."""

import re
from typing import Any

import pytest

from m3_exp.reporting.comparisons.contrasts import Compared
from m3_exp.reporting.table import Table
from m3_exp.reporting.tables import paper
from m3_exp.reporting.tables.rows import Shown
from m3_exp.types import M3Error
from tests.curved import framed
from tests.test_marks import line


def single(name: str, share: float) -> dict[str, Any]:
    return line("plain", share, method="single", pair=name)


LINES = [
    single("math", 0.6),
    line("plain", 0.5, method="average"),
    line("plain", 0.3, method="ties"),
    line("plain", 0.52, method="slerp"),
    line("plain", 0.45, method="ties", sparsify="dare(drop_rate=0.2)", mask_seed=1),
    line("plain", 0.4, method="average", pair="lm_code"),
]


def against(name: str, lines: list[dict[str, Any]] = LINES) -> Table:
    return paper.build("t", Shown(framed(lines), against=name))


def records(table: Table) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(one["method"], one["pair"], one["sparsify"]): one for one in table.records}


def test_each_row_is_compared_with_the_methods_row_of_the_same_models() -> None:
    """Items are nested: 40 of 200 are lost by ties, 4 are won by slerp; mid-p of k to nothing is 2 ** -k."""
    found = records(against("average"))
    lost, won = found["ties", "lm_math", "none"], found["slerp", "lm_math", "none"]
    assert (lost["difference"], won["difference"]) == (pytest.approx(-20.0), pytest.approx(2.0))
    assert (lost["p"], won["p"]) == (pytest.approx(2.0**-40), pytest.approx(2.0**-4))
    assert (lost["p_adjusted"], won["p_adjusted"]) == (pytest.approx(2 * 2.0**-40), pytest.approx(2.0**-4))
    assert (lost["mark"], won["mark"]) == ("worse", "untold")
    assert found["average", "lm_math", "none"]["difference"] is None, "not with itself"
    assert found["average", "lm_code", "none"]["difference"] is None, "nor with other models"
    assert found["single", "math", "none"]["difference"] is None
    one_mask = found["ties", "lm_math", "dare(drop_rate=0.2)"]
    assert one_mask["mark"] == ""
    assert "masks" in one_mask["no_mark"]


def test_an_experts_name_compares_every_merge_with_it() -> None:
    table = against("math")
    found = records(table)
    merged = {key: one["difference"] for key, one in found.items() if key[0] != "single" and key[2] == "none"}
    assert {key[:2]: round(points, 6) for key, points in merged.items()} == {
        ("average", "lm_math"): -10.0,
        ("ties", "lm_math"): -30.0,
        ("slerp", "lm_math"): -8.0,
        ("average", "lm_code"): -20.0,
    }
    said = " ".join(table.footer)
    assert "▲ better, ▼ worse, ≈ not told apart from math, paired over items" in said
    assert "without M3, paired" not in said


def test_the_words_name_the_other_row() -> None:
    assert "this - average: -20.0" in _titles(against("average"))
    assert str(Compared(None, than="average")) == "the same weights as average: nothing to compare"
    assert str(Compared(None, other_items=True, than="average")) == "other items than average: nothing to compare"


def _titles(table: Table) -> str:
    return "\n".join(cell.mark.title for row in table.rows for cell in row)


def test_a_name_that_is_no_row_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        M3Error,
        match=re.escape("--against avrage: this table has no row of it without M3; it has average, ties, slerp, math"),
    ):
        against("avrage")
    twice = [*LINES, line("plain", 0.1, method="ties", params="retain=0.5")]
    with pytest.raises(M3Error, match="--against ties: lm_math has 2 such rows"):
        against("ties", twice)
