"""The paper's numbers, read from its tables, with the notes that belong to them."""

import re

import numpy as np
import pytest
from scipy.stats import beta
from statsmodels.stats.proportion import proportion_confint

from m3_exp.benchmarks import about
from m3_exp.config import ROOT
from m3_exp.reporting.data import published
from m3_exp.reporting.data.published import Beside, Number, Row
from m3_exp.stats.expectation import ALPHAS
from m3_exp.stats.lambdas import Curve
from m3_exp.stats.published import distance, finite_population, percentile, replayed

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


def plain(published_: float, score: float, n: int, *notes: str, benchmark: str = "gsm8k") -> Beside:
    return published.beside_plain(Number(published_, notes), benchmark, score, n)


def test_what_stands_beside_depends_on_what_can_be_compared() -> None:
    assert str(plain(60.0, 66.0, 1319)) == "(paper 60, +6.0 [+2.3, +9.7], z +3.2 to +9.2)"
    assert str(plain(53.1, 51.1, 1319)) == "(paper 53.1, -2.0 [-5.8, +1.8], z -1.0 to -5.2)"
    assert str(plain(60.0, 66.0, 805, "alpaca", benchmark="alpaca_eval")) == "(paper 60)"
    assert str(plain(60.0, 66.0, 805, benchmark="unknown")) == "(paper 60)"
    assert str(published.beside_plain(Number(None), "mbpp", 66.0, 500)) == "(paper: illegible)"
    assert str(plain(60.0, 66.0, 1320)) == "(paper 60, +6.0 [+2.3, +9.7])", "more items than the paper's are not its"
    assert plain(60.0, 66.0, 1319).record() == pytest.approx(
        {"paper": 60.0, "paper_difference": 6.0, "paper_difference_low": 2.315, "paper_difference_high": 9.662,
         "z_low": 3.191, "z_high": 9.176, "percentile_low": None, "percentile_high": None}, abs=0.001,
    )  # fmt: skip
    assert set(Beside(Number(None)).record().values()) == {None}


def test_an_m3_figure_has_its_percentile_as_a_range() -> None:
    flat = Curve(("a", "b"), np.array([0.0, 1.0]), np.array([[0.4, 0.4], [0.6, 0.6]]))
    for value in (0.0, 100.0):
        found = published.beside_mixed(Number(value), "gsm8k", flat)
        assert (found.percentile_low, found.percentile_high) == (value, value)
        assert str(found) == f"(paper {value:g}, at {value:g} % of the replay)"
    assert published.beside_mixed(Number(50.0), "gsm8k", None) == Beside(Number(50.0))
    assert published.beside_mixed(Number(50.0, ("alpaca",)), "gsm8k", flat).percentile_low is None
    many = Curve(tuple(map(str, range(165))), np.array([0.0, 1.0]), np.ones((165, 2)))
    assert published.beside_mixed(Number(50.0), "humaneval", many) == Beside(Number(50.0)), "not the paper's items"


# --------------------------------------------------------------------------------------------------- z as a range


def ends(right: float, n: int) -> tuple[float, float]:
    """Agresti and Coull's interval; `right` need not be whole."""
    low, high = proportion_confint(right, n, method="agresti_coull")
    return float(low), float(high)


def test_the_range_of_all_items_by_hand() -> None:
    """492 and 474 of 872 right: 18 items more; at the most alike, these are all that differ."""
    found = distance(100 * 492 / 872, 872, 100 * 474 / 872, 872)
    assert found.z_high == pytest.approx(18 / np.sqrt(18 - 18**2 / 872))
    below = np.hypot(492 / 872 - ends(492, 872)[0], ends(474, 872)[1] - 474 / 872)
    above = np.hypot(ends(492, 872)[1] - 492 / 872, 474 / 872 - ends(474, 872)[0])
    assert found.low == pytest.approx(100 * (18 / 872 - below))
    assert found.high == pytest.approx(100 * (18 / 872 + above))
    assert found.z_low == pytest.approx(1.959964 * 18 / 872 / below)
    independent = np.sqrt((492 * 380 + 474 * 398) / 872**3)
    assert found.z_low == pytest.approx(18 / 872 / independent, rel=0.01), "as two independent proportions"


def test_the_range_of_a_subset_by_hand() -> None:
    """54 of 96 items right where the paper has 66.3 % of 1319: hardly anything is left to how alike the answers are."""
    found = distance(56.25, 96, 66.3, 1319)
    own = ends(54, 96)[1] - 0.5625
    theirs = 0.663 - ends(0.663 * 1319, 1319)[0]
    d = 0.663 - 0.5625
    assert found.z_low == pytest.approx(-1.959964 * d / np.hypot(own, theirs))
    open_part = (own / 1.959964) ** 2 * (1319 - 96) / 1318
    assert found.z_high == pytest.approx(-d / np.sqrt(open_part + (d - d * d) / 1319))
    wald = 0.5625 * 0.4375 / 96 * (1319 - 96) / 1318 + (d - d * d) / 1319
    assert found.z_high == pytest.approx(-d / np.sqrt(wald), rel=0.05), "as two proportions on the same items"


def test_the_range_is_ordered_and_signed_everywhere() -> None:
    shares = (0.0, 0.04, 1.0, 30.0, 50.0, 50.1, 90.0, 99.9, 100.0)
    for n in (1, 2, 20, 163, 164):
        for score in shares:
            for value in shares:
                found = distance(score, n, value, 164)
                assert found.low < found.difference < found.high or abs(found.difference) == 100
                assert found.z_low is not None
                assert found.z_high is not None
                assert abs(found.z_low) <= abs(found.z_high) + 1e-9
                assert np.sign(found.z_low) == np.sign(found.z_high) == np.sign(found.difference)
                outside = found.low > 0 or found.high < 0
                assert outside == (abs(found.z_low) > 1.959965), "z_low and the interval say the same"


def test_few_items_make_no_large_z() -> None:
    """Two of two right where the paper has 29.88 %: by chance in 9 % of cases; a Wald z would be 19."""
    found = distance(100.0, 2, 29.88, 164)
    assert found.z_high is not None
    assert found.z_high < 2


def test_the_same_count_has_no_z() -> None:
    """The paper rounds to two decimals, or cuts: 8.53 is 14 of 164 = 8.54."""
    for beside in (
        plain(59.97, 100 * 791 / 1319, 1319), plain(8.53, 100 * 14 / 164, 164, benchmark="humaneval"),
    ):  # fmt: skip
        assert beside.distance is not None
        assert (beside.distance.difference, beside.distance.z_low, beside.distance.z_high) == (0.0, 0.0, 0.0)
        assert "z" not in str(beside)
        assert "correlation" not in beside.number.notes
        assert re.search(r", 0\.0 \[-\d\.\d, \+\d\.\d\]\)$", str(beside))
    one_item = plain(14.02, 14.0, 5000, benchmark="hendrycks_math")
    assert str(one_item) == "(paper 14.02, 0.0 [-1.4, +1.3], z 0.0 to -1.0)"


def test_an_identical_model_with_flips_lies_within_the_range() -> None:
    """3 % flips on the same 1319 items: z by the flips is standard normal, by independence it has sd 0.25."""
    generator = np.random.default_rng(1)
    by_flips, lows, highs = [], [], []
    for _ in range(2000):
        theirs = generator.random(1319) < 0.5
        flipped = generator.random(1319) < 0.03
        d = int((theirs ^ flipped).sum()) - int(theirs.sum())
        found = distance(100 * (theirs ^ flipped).mean(), 1319, 100 * theirs.mean(), 1319)
        assert found.z_low is not None
        assert found.z_high is not None
        by_flips.append(d / np.sqrt(flipped.sum()))
        lows.append(found.z_low)
        highs.append(found.z_high)
    assert np.std(by_flips) == pytest.approx(1.0, abs=0.05)
    assert np.std(lows) == pytest.approx(0.25, abs=0.02)
    assert bool(np.all(np.abs(lows) <= np.abs(by_flips)))
    assert bool(np.all(np.abs(by_flips) <= np.abs(highs)))
    assert np.std(highs) > 1.9, "no evidence that two models differ either: the note says so"


def test_the_finite_population_factor_is_that_of_subsampling() -> None:
    """Means over 60 of 200 fixed items, drawn without replacement."""
    generator = np.random.default_rng(2)
    items = (np.arange(200) < 120) * 1.0
    means = [generator.permutation(items)[:60].mean() for _ in range(20_000)]
    wanted = 0.6 * 0.4 / 60 * finite_population(60, 200)
    assert float(np.var(means)) == pytest.approx(wanted, rel=0.04)
    assert finite_population(200, 200) == 0
    assert finite_population(1, 200) == 1


def test_of_the_same_answers_a_subset_has_z_within_chance() -> None:
    """Ours is the paper's model, answer for answer, on 200 of its 500 items: both ends keep their level."""
    generator = np.random.default_rng(3)
    items = (np.arange(500) < 300) * 1.0
    found = [distance(100 * generator.permutation(items)[:200].mean(), 200, 60.0, 500) for _ in range(2000)]
    highs, lows = np.array([x.z_high for x in found], float), np.array([x.z_low for x in found], float)
    assert 0.01 < np.mean(np.abs(highs) > 1.96) <= 0.05
    assert np.std(lows) < np.std(highs) < 1.05


def test_a_small_z_is_never_called_agreement() -> None:
    said = [str(plain(60.0, score, n)) for score in (59.0, 59.9, 60.0, 60.1) for n in (20, 1319)]
    called = re.compile(r"agree|consistent|reproduc|match|same|\bok\b|within", re.IGNORECASE)
    assert not any(called.search(text) for text in said)
    note = published.NOTES["correlation"]
    assert "A small z is no evidence that the models agree" in note
    assert "none that they differ" in note
    assert "only a lower bound" in note
    assert "no evidence that the models agree" in published.NOTES["lambda"]


def test_the_note_stands_wherever_a_z_does() -> None:
    assert plain(60.0, 66.0, 1319, "8.53").number.notes == ("8.53", "correlation")
    assert plain(60.0, 66.0, 1320).number.notes == ()
    assert plain(60.0, 66.0, 1319, "scaling").number.notes == ("scaling",)


# --------------------------------------------------------------------------------------------------------- replays


def test_replays_keep_the_best_of_seven_draws() -> None:
    curve = Curve(("a",), np.array([0.0, 1.0]), np.array([[0.0, 1.0]]))
    found = replayed(curve, 1_000_000, repeats=20_000)
    below = np.prod([beta(a, a).cdf(0.8) for a in ALPHAS])
    assert float(np.mean(found < 0.8)) == pytest.approx(float(below), abs=0.01)
    assert np.array_equal(replayed(curve, 100, 50), replayed(curve, 100, 50))


def test_replays_count_the_items_of_both_sides() -> None:
    """A flat curve has no other noise than 100 items of ours and 1319 of the paper's."""
    values = np.array([[float(i < 40)] * 2 for i in range(100)])
    curve = Curve(tuple(map(str, range(100))), np.array([0.0, 1.0]), values)
    wanted = np.sqrt(0.24 * (1 / 100 + 1 / 1319))
    assert float(replayed(curve, 1319, 20_000).std()) == pytest.approx(float(wanted), rel=0.05)


def test_replays_of_the_same_answers_draw_lambda_alone() -> None:
    """All of the paper's items: a flat curve is one number. Some of them: what those leave open of all."""
    values = np.array([[float(i < 40)] * 2 for i in range(100)])
    curve = Curve(tuple(map(str, range(100))), np.array([0.0, 1.0]), values)
    whole = replayed(curve, 100, 500, alike=True)
    assert np.allclose(whole, 0.4)
    assert percentile(40.0, whole) == 50.0
    part = replayed(curve, 200, 20_000, alike=True)
    assert float(part.std()) == pytest.approx(float(np.sqrt(0.24 / 100 * 100 / 199)), rel=0.03)
    found = published.beside_mixed(Number(43.0), "humaneval", curve)
    assert found.percentile_low is not None
    assert found.percentile_high is not None
    assert found.percentile_low < found.percentile_high
    assert str(found) == f"(paper 43, at {found.percentile_low:.0f} to {found.percentile_high:.0f} % of the replay)"


def test_a_figure_of_another_model_has_no_z() -> None:
    number, same = published.of_our_model(Number(60.0), "ties", "lm_math", "retain 0.7, scaling 1")
    assert (number.notes, same) == (("params",), False)
    assert published.of_our_model(Number(60.0), "ties", "lm_code", "retain 0.7, scaling 1") == (Number(60.0), True)
    number, same = published.of_our_model(Number(60.0), "task_arithmetic", "lm_math", "scaling 1")
    assert same
    assert str(published.beside_plain(number, "gsm8k", 66.0, 1319)) == "(paper 60, +6.0 [+2.3, +9.7])"


def test_percentile() -> None:
    assert percentile(50.0, np.array([0.4, 0.5, 0.6, 0.7])) == 37.5
    assert percentile(8.53, np.array([14 / 164])) == 50.0
    assert (about("gsm8k").paper_items, about("mbpp").paper_items) == (1319, 500)
