"""The paper's numbers, read from its tables, with the notes that belong to them."""

import numpy as np
import pytest

from m3_exp.config import ROOT
from m3_exp.reporting import published
from m3_exp.reporting.published import Row

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


def test_z_and_percentile() -> None:
    assert published.z(60.0, 1000, 60.0, 1319) == 0.0
    assert published.z(66.0, 1319, 60.0, 1319) == pytest.approx(0.06 / np.sqrt((0.66 * 0.34 + 0.6 * 0.4) / 1319))
    assert published.z(0.0, 10, 0.0, 10) is None
    assert published.percentile(50.0, np.array([0.4, 0.5, 0.6, 0.7])) == 37.5
    assert set(published.ITEMS) >= {"gsm8k", "mbpp"}
