"""The paper's numbers, read from its tables, with the notes that belong to them."""

import numpy as np
import pytest
from scipy.stats import beta

from m3_exp.config import ROOT
from m3_exp.reporting import published, table3
from m3_exp.reporting.protocols import ALPHAS
from m3_exp.reporting.published import Number, Row
from m3_exp.reporting.response import Curve

FOLDER = ROOT / "results" / "published"


def test_every_cell_of_table_1_is_found_or_absent_in_the_paper() -> None:
    lines = (FOLDER / "table1.csv").read_text().splitlines()
    header, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    for method, models, mixup, dare, *texts in rows:
        for benchmark, text in zip(header[4:], texts, strict=True):
            found = published.table1(FOLDER, Row(method, models, mixup == "1", dare == "1"), benchmark)
            if not text:
                assert found is None
            elif text == "?":
                assert found is not None
                assert (found.value, str(found), found.notes[0]) == (None, "illegible", "illegible")
            else:
                assert found is not None
                assert found.value == float(text)


def test_notes_stand_where_the_paper_contradicts_itself() -> None:
    average = published.table1(FOLDER, Row("average", "lm_math", False, False), "gsm8k")
    assert average is not None
    assert (average.value, average.notes) == (66.34, ("same weights",))
    judge = published.table1(FOLDER, Row("single", "lm", False, False), "alpaca_eval")
    assert judge is not None
    assert "alpaca" in judge.notes
    found = published.attacked(FOLDER, "table2", "math_code", "prompt_bench_sst2", True)
    assert found["attack"].value == pytest.approx(55.39, abs=0.01)
    assert found["attack"].notes[0] == "derived"
    assert found["pdr"].value == 35.77
    derived = (86.24 - 55.39) / 86.24
    assert derived == pytest.approx(0.3577, abs=1e-4)
    assert "cola" in published.attacked(FOLDER, "table6", "lm_math", "prompt_bench_cola", False)["attack"].notes
    assert published.attacked(FOLDER, "table1", "lm_math", "prompt_bench_cola", False) == {}


def test_gains_are_the_texts() -> None:
    assert published.gain(FOLDER, "lm_code", "livebench_typos", "ties") == 14.0
    assert published.gain(FOLDER, "lm_code", "gsm8k", "ties") is None


def test_what_stands_beside_depends_on_what_can_be_compared() -> None:
    assert str(published.beside_plain(Number(60.0), "gsm8k", 66.0, 1319)) == "(paper 60, +6.0, z +3.2)"
    assert str(published.beside_plain(Number(60.0, ("alpaca",)), "alpaca_eval", 66.0, 805)) == "(paper 60)"
    assert str(published.beside_plain(Number(None), "mbpp", 66.0, 500)) == "(paper: illegible)"
    few, many = (published.beside_plain(Number(60.0), "gsm8k", 66.0, n).z for n in (100, 10_000))
    assert few is not None
    assert many is not None
    assert many > 2 * few > 0, "z counts the items of both sides"
    flat = Curve(("a", "b"), np.array([0.0, 1.0]), np.array([[0.4, 0.4], [0.6, 0.6]]))
    assert published.beside_mixed(Number(0.0), "gsm8k", flat).percentile == 0.0
    assert published.beside_mixed(Number(100.0), "gsm8k", flat).percentile == 100.0
    assert published.beside_mixed(Number(50.0), "gsm8k", None) == published.Beside(Number(50.0))
    assert published.beside_mixed(Number(50.0, ("alpaca",)), "gsm8k", flat).percentile is None


def test_replays_keep_the_best_of_seven_draws() -> None:
    curve = Curve(("a",), np.array([0.0, 1.0]), np.array([[0.0, 1.0]]))
    found = published.replayed(curve, 1_000_000, repeats=20_000)
    below = np.prod([beta(a, a).cdf(0.8) for a in ALPHAS])
    assert float(np.mean(found < 0.8)) == pytest.approx(float(below), abs=0.01)
    assert np.array_equal(published.replayed(curve, 100, 50), published.replayed(curve, 100, 50))


def test_replays_count_the_items_of_both_sides() -> None:
    """A flat curve has no other noise than 100 items of ours and 1319 of the paper's."""
    values = np.array([[float(i < 40)] * 2 for i in range(100)])
    curve = Curve(tuple(map(str, range(100))), np.array([0.0, 1.0]), values)
    wanted = np.sqrt(0.24 * (1 / 100 + 1 / 1319))
    assert float(published.replayed(curve, 1319, 20_000).std()) == pytest.approx(float(wanted), rel=0.05)


def test_a_figure_of_another_model_has_no_z() -> None:
    assert {pair: params for (_, pair), params in table3.PAPER.items()} == published.TIES
    number, same = published.of_our_model(Number(60.0), "ties", "lm_math", "retain 0.7, scaling 1")
    assert (number.notes, same) == (("params",), False)
    assert published.of_our_model(Number(60.0), "ties", "lm_code", "retain 0.7, scaling 1") == (Number(60.0), True)
    number, same = published.of_our_model(Number(60.0), "task_arithmetic", "lm_math", "scaling 1")
    assert same
    assert str(published.beside_plain(number, "gsm8k", 66.0, 1319)) == "(paper 60, +6.0)"


def test_z_and_percentile() -> None:
    assert published.z(60.0, 1000, 60.0, 1319) == 0.0
    assert published.z(66.0, 1319, 60.0, 1319) == pytest.approx(0.06 / np.sqrt((0.66 * 0.34 + 0.6 * 0.4) / 1319))
    assert published.z(0.0, 10, 0.0, 10) is None
    assert published.percentile(50.0, np.array([0.4, 0.5, 0.6, 0.7])) == 37.5
    assert set(published.ITEMS) >= {"gsm8k", "mbpp"}
