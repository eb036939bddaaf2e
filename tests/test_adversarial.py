"""Tables 2, 5 and 6 from hand-made results: our figures, the paper's beside them, and what is missing."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from statistics import stdev
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evaluators.prompt_bench import SST2
from m3_exp import planning
from m3_exp.config import ROOT, request
from m3_exp.reporting.comparisons import drops, points
from m3_exp.reporting.data import dataframe
from m3_exp.reporting.table import Table
from m3_exp.reporting.tables import adversarial
from m3_exp.reporting.tables.formats import FORMATS, as_csv, markdown
from m3_exp.reporting.tables.rows import Shown
from m3_exp.stats import ratio
from m3_exp.stats.estimate import mean
from m3_exp.types import Cell, identity
from tests import test_prompt_bench
from tests.curved import marks
from tests.records import looked_up
from tests.test_tables import record

FOLDER = ROOT / "results" / "published"
PARENTS = {"lm_math": ["lm", "math"], "lm_code": ["lm", "code"], "math_code": ["math", "code"]}
Verdicts = Sequence[float | None]


def result(cell: Cell, before: Verdicts, under: Verdicts) -> dict[str, Any]:
    """A result on items with these verdicts without and under the attack. Its stored PDR is wrong: nobody reads it."""
    both = [None if b is None else u for b, u in zip(before, under, strict=True)]
    found = record(both, cell)
    clean = [{"id": s["id"], "sample": 0, "value": b} for s, b in zip(found["scores"], before, strict=True)]
    after = [{"id": f"{s['id']}@seed0", "sample": 0, "value": u} for s, u in zip(found["scores"], under, strict=True)]
    found["scores"] = clean + after
    found["weights"] = identity([list(before), list(under)])
    found["result"]["details"] = {
        "accuracy_clean": 1.0, "parse_rate_clean": 90.0, "parse_rate_attacked": 80.0, "mcc_clean": 0.5,
        "mcc_attacked": 0.1, "pdr_paper": 99.0, "pdr_paper_low": 98.0, "pdr_paper_high": 99.5,
        "pdr_paper_reason": "stored",
    }  # fmt: skip
    return found


def attacked(cell: Cell, clean: int, under: int, n: int = 200) -> dict[str, Any]:
    """A result on n items of which the first `clean` are right without the attack and the first `under` with it."""
    return result(cell, *([float(i < right) for i in range(n)] for right in (clean, under)))


@cache
def cells(*args: str) -> tuple[Cell, ...]:
    return planning.build(request(["sweeps=table2", "family=llama2_13b", *args]).configs).cells


def framed(outcome: Callable[[Cell], Any], *args: str) -> pd.DataFrame:
    return dataframe.tidy([looked_up(c, *outcome(c)) for c in cells(*args)])


def built(outcome: Callable[[Cell], Any], *args: str, **more: Any) -> Table:
    return adversarial.build("table2", Shown(framed(outcome, *args), published=FOLDER, **more))


def figures(table: Table, **wanted: Any) -> dict[str, Any]:
    """Return the first record of these names."""
    return dict(next(r for r in table.records if all(r[key] == x for key, x in wanted.items())))


def test_a_plain_row_has_the_difference_and_an_m3_row_has_none() -> None:
    table = built(lambda cell: (attacked(cell, 120, 60),))
    rows = {(row[1], row[2]): row for row in table.texts}
    assert len(rows) == 6
    plain, mixed = rows["math_code", "no"], rows["math_code", "yes"]
    assert plain[5].startswith("60.0 [53.1, 66.5] (paper 57.68, +2.3 [")
    assert plain[6].startswith("30.0 [24.1, 36.7] (paper 35.21, -5.2 [")
    assert plain[7] == "50.0 [41.1, 58.9] (paper 38.97)"
    assert mixed[5].endswith("(paper 86.24)")
    first = figures(table, pair="math_code", ratio="plain")
    assert first["paper_no_attack_difference"] == pytest.approx(60 - 57.68)
    assert first["paper_no_attack_z_low"] is None, "the paper's scaling is not published"
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

    assert not any("(paper" in text for row in built(outcome).texts for text in row)


def test_what_is_missing_is_said_and_never_zero() -> None:
    def outcome(cell: Cell) -> tuple[Any, ...]:
        if cell.evaluator.name == "prompt_bench_sst2":
            return (None, "the masked LM is not here")
        return (attacked(cell, 0, 0),)

    row = built(outcome).texts[0]
    assert [text.split(" (")[0] for text in row[5:]] == ["failed"] * 3 + [
        "0.0 [0.0, 2.3]",
        "0.0 [0.0, 2.3]",
        "undefined: no item is right without the attack",
    ]
    assert built(lambda cell: (None,)).texts[0][5].startswith("not run")


def test_every_format_takes_it_and_csv_has_both_numbers() -> None:
    table = built(lambda cell: (attacked(cell, 120, 60),))
    lines = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert len(lines) == 12
    assert (lines[0]["attack"], lines[0]["paper_attack"], lines[0]["protocol"]) == ("30.0", "35.21", "paper")
    for form in FORMATS.values():
        assert "math_code" in form(table)


# --------------------------------------------------------------------------------------------- figures from item scores


def test_figures_come_from_item_scores_and_never_from_what_a_result_stores() -> None:
    """Nothing of 60 right is left; nothing of 60 is lost: both have an interval, by hand (`stats.ratio`)."""
    z2 = 1.959963984540054**2
    gone = figures(built(lambda cell: (attacked(cell, 60, 0, 96),)), ratio="plain")
    assert (gone["pdr"], gone["pdr_low"], gone["pdr_high"]) == (100, pytest.approx(100 * (1 - z2 / 60)), 100)
    kept = figures(built(lambda cell: (attacked(cell, 60, 60, 96),)), ratio="plain")
    assert kept["pdr"] == 0
    assert (kept["pdr_low"], kept["pdr_high"]) == pytest.approx((-100 * z2 / 60, 100 * z2 / (60 + z2)))
    bare = mean(np.array([1.0] * 60 + [0.0] * 36))
    for key in ("no_attack", "attack"):
        ends = (kept[key], kept[f"{key}_low"], kept[f"{key}_high"])
        assert ends == pytest.approx((62.5, 100 * bare.low, 100 * bare.high))
    assert gone["attack_low"] == 0 < gone["attack_high"]


def test_a_pdr_that_is_not_bounded_below_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of ten right, and still right: at 95 % that is a bound, at 99.9 % it is none."""
    monkeypatch.setattr(ratio, "LEVEL", 0.999)
    found = framed(lambda cell: (attacked(cell, 1, 1, 10),))
    table = adversarial.build("table2", Shown(found))
    line, point = figures(table, ratio="plain"), points.drop(found.head(1))
    assert (line["pdr"], line["pdr_low"], line["pdr_reason"]) == (0, None, "not bounded below")
    assert table.texts[0][7].startswith("0.0 [-inf, ")
    assert (point.value, math.isnan(point.low), point.note) == (0, True, "not bounded below")
    assert point.high == line["pdr_high"]


def test_unscored_items_are_counted_and_widen() -> None:
    """Three items have no score under the attack, one has none without: of it there is none under the attack either."""
    before: list[float | None] = [1.0] * 120 + [0.0] * 80
    under: list[float | None] = [1.0] * 60 + [0.0] * 140
    lacking, gone = [None, *under[1:-2], None, None], [*before[:100], None, *before[101:]]
    table = built(lambda cell: (result(cell, gone, lacking),))
    assert "(1 unscored)" in table.texts[0][5]
    assert all("(4 unscored)" in text for text in table.texts[0][6:8])
    found = figures(table, ratio="plain")
    assert (found["n"], found["n_unscored"], found["no_attack_unscored"]) == (200, 4, 1)
    kept = [i for i in range(200) if gone[i] is not None and lacking[i] is not None]
    clean, attack = ([float(side[i] or 0) for i in kept] for side in (gone, lacking))
    known = np.array([x for x in gone if x is not None])
    by_hand = {
        "no_attack": (mean(known, unscored=1), mean(known)),
        "attack": (mean(np.array(attack), unscored=4), mean(np.array(attack))),
        "pdr": (ratio.drop(clean, attack, missing=4), ratio.drop(clean, attack)),
    }
    for key, (wide, narrow) in by_hand.items():
        assert (found[f"{key}_low"], found[f"{key}_high"]) == pytest.approx((100 * wide.low, 100 * wide.high))
        assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.slow
def test_unscored_items_leave_no_sign_where_it_depends_on_them() -> None:
    def outcome(cell: Cell, unscored: int) -> tuple[Any, ...]:
        if cell.labels[0].ratio == "plain":
            return (attacked(cell, 180, 60),)
        return (result(cell, [1.0] * 180 + [0.0] * 20, [1.0] * 110 + [None] * unscored + [0.0] * (90 - unscored)),)

    signs = []
    for unscored in (0, 60):
        table = built(lambda cell, k=unscored: outcome(cell, k), "ratio.draws=10", "pair=lm_math")  # type: ignore[misc]
        signs.append({table.header[j]: mark.sign for (_, j), mark in marks(table).items()}["sst2 PDR"])
    assert signs == ["better", "untold"]


# ------------------------------------------------------------------------------------------------------------- draws


def _scattered(cell: Cell, spread: int, middle: int = 100) -> tuple[Any, ...]:
    """180 of 200 right; under the attack `middle`, with M3 as many more in every other draw as fewer in the next."""
    label = cell.labels[0]
    moved = 0 if label.draw is None else spread * (1 - 2 * (label.draw % 2))
    return (attacked(cell, 180, middle + moved),)


@pytest.mark.slow
def test_four_draws_are_averaged_item_by_item_with_their_spread() -> None:
    def outcome(cell: Cell) -> tuple[Any, ...]:
        draw = cell.labels[0].draw
        return (attacked(cell, 120, 60) if draw is None else attacked(cell, 120 + 20 * draw, 60 + 10 * draw),)

    found = framed(outcome)
    table = adversarial.build("table2", Shown(found, experts=PARENTS))
    row, line = table.texts[1], figures(table, ratio="mixup")
    lams = sorted(found.loc[found["ratio"] == "mixup", "lam"].unique())
    assert line["lambda"] == lams
    assert row[4] == ", ".join(f"{lam:.3g}" for lam in lams)
    assert (line["no_attack"], line["attack"]) == (pytest.approx(75), pytest.approx(37.5))
    clean = [float(np.mean([i < 120 + 20 * k for k in range(4)])) for i in range(200)]
    under = [float(np.mean([i < 60 + 10 * k for k in range(4)])) for i in range(200)]
    by_hand, bare = ratio.drop(clean, under), mean(np.array(under))
    assert by_hand.value == pytest.approx(0.5)
    for key, known in (("pdr", by_hand), ("attack", bare)):
        assert (line[f"{key}_low"], line[f"{key}_high"]) == pytest.approx((100 * known.low, 100 * known.high))
    assert line["no_attack_sd"] == pytest.approx(stdev([60, 70, 80, 90]))
    assert line["pdr_sd"] == pytest.approx(0, abs=1e-9)
    assert line["draws"] == 4
    assert row[6].startswith("37.5 [")
    assert "sd 6.5 of 4 draws" in row[6]
    assert any("Means over 4 draws: the interval is over items, of these very" in x for x in table.footer)
    every = adversarial.build("table2", Shown(found, every=True))
    assert [r["pdr"] for r in every.records if r["pair"] == "lm_code" and r["ratio"] == "mixup"] == [50.0] * 8
    assert [row[4] for row in every.texts if row[2] == "yes"] == [f"{x:.3g}" for x in found["lam"].dropna()[::2]]
    assert "of 4" not in markdown(every)


def test_an_item_counts_where_all_draws_have_it_and_missing_draws_are_said() -> None:
    def outcome(cell: Cell) -> tuple[Any, ...]:
        draw = cell.labels[0].draw
        if draw == 3:
            return (None,)
        gone = {draw} - {None}
        return (result(cell, [1.0] * 120 + [0.0] * 80, [None if i in gone else float(i < 60) for i in range(200)]),)

    table = built(outcome)
    line = figures(table, ratio="mixup")
    assert (line["n"], line["n_unscored"], line["draws"]) == (200, 3, 3)
    assert line["attack"] == pytest.approx(100 * 57 / 197)
    assert line["pdr"] == pytest.approx(100 * (1 - 57 / 117))
    assert "(3 unscored) (1 of 4 draws missing)" in table.texts[1][6]


def test_a_draw_that_is_all_but_one_expert_is_named() -> None:
    found = framed(lambda cell: (attacked(cell, 120, 60),))
    near = (found["draw"] == 2) & (found["pair"] == "lm_math")
    found.loc[near, "lam"] = 0.0003
    found.loc[near, "point"] = pd.Series([(0.0003, 0.9997)] * int(near.sum()), index=found.index[near])
    said = "\n".join(adversarial.build("table2", Shown(found, experts=PARENTS)).footer)
    assert "lm_math alpha 0.5 draw 2: 99.97 % math" in said
    assert "% code" not in said


# -------------------------------------------------------------------------------------------------------- comparisons


@pytest.mark.slow
def test_each_m3_figure_is_contrasted_with_its_row_without_m3() -> None:
    """M3 turns 60 -> 30 of 100 right into 90 -> 80: all three figures improve, of PDR the lower is the better."""

    def outcome(cell: Cell) -> tuple[Any, ...]:
        return (attacked(cell, 180, 160) if cell.labels[0].ratio == "mixup" else attacked(cell, 120, 60),)

    table = built(outcome, "ratio.draws=10", "pair=math_code,lm_math")
    signs = {table.header[j]: mark.sign for (i, j), mark in marks(table).items() if table.texts[i][1] == "lm_math"}
    assert signs == {f"{b} {figure}": "better" for b in ("sst2", "cola") for figure in ("no attack", "attack", "PDR")}
    mixed = figures(table, ratio="mixup")
    assert (mixed["no_attack_difference"], mixed["attack_difference"]) == (pytest.approx(30), pytest.approx(50))
    assert mixed["pdr_difference"] == pytest.approx(100 * (20 / 180 - 60 / 120))
    assert mixed["pdr_diff_low"] < mixed["pdr_difference"] < mixed["pdr_diff_high"] < 0
    assert mixed["attack_p_adjusted"] == pytest.approx(min(12 * mixed["attack_p"], 1), rel=0.5)
    assert {r["pdr_family"] for r in table.records if r["ratio"] == "mixup"} == {12}
    assert any("Of its 12 comparisons 12 can carry a sign" in line for line in table.footer)
    assert not any(mark.weight for mark in marks(table).values())


@pytest.mark.slow
def test_pdr_passes_the_first_step_of_a_family_of_twelve() -> None:
    """One PDR of the twelve comparisons moves (55.6 against 44.4 of 180): its p is far below 0.05 / 12."""

    def outcome(cell: Cell) -> tuple[Any, ...]:
        label = cell.labels[0]
        moved = label.ratio == "mixup" and label.pair == "lm_math" and cell.evaluator.name.endswith("cola")
        found = attacked(cell, 360, 200 if moved else 160, 400)
        found["weights"] = f"{label.ratio} {label.pair}"
        return (found,)

    table = built(outcome, "ratio.draws=10", "pair=math_code,lm_math")
    signs = {(table.texts[i][1], table.header[j]): mark.sign for (i, j), mark in marks(table).items()}
    assert len(signs) == 12
    better = {place for place, sign in signs.items() if sign == "better"}
    assert better == {("lm_math", "cola attack"), ("lm_math", "cola PDR")}
    line = figures(table, ratio="mixup", pair="lm_math", benchmark="prompt_bench_cola")
    assert 0 < line["pdr_p"] < 0.05 / 12 / 100


@pytest.mark.slow
def test_no_sign_below_ten_draws() -> None:
    for draws, sign in ((4, ""), (9, ""), (10, "better")):
        table = built(
            lambda c: (attacked(c, 180, 160) if c.labels[0].ratio == "mixup" else attacked(c, 120, 60),),
            f"ratio.draws={draws}", "pair=lm_math",
        )  # fmt: skip
        assert {mark.sign for mark in marks(table).values()} == {sign}
        said = "\n".join(table.footer)
        assert ("fewer than 10 draws" in said) == (draws < 10)
        assert ("comparisons none can carry a sign" in said) == (draws < 10)


@pytest.mark.slow
def test_ten_draws_that_scatter_are_no_difference_of_the_expectation() -> None:
    """The mean of ten draws is 12 items better; that they differ by 60 items from one another is in the interval."""
    near, far = (
        figures(built(lambda c, k=k: _scattered(c, k, 100 if c.labels[0].ratio == "plain" else 112), "ratio.draws=10",
                      "pair=lm_math"), ratio="mixup")
        for k in (1, 60)
    )  # fmt: skip
    assert near["pdr_difference"] == pytest.approx(far["pdr_difference"])
    assert (near["pdr_mark"], far["pdr_mark"]) == ("better", "untold")
    for key in ("attack", "pdr"):
        assert far[f"{key}_high"] - far[f"{key}_low"] > 2 * (near[f"{key}_high"] - near[f"{key}_low"])
    width = math.sqrt(sum((100 * 60 / 180) ** 2 for _ in range(10)) / 9 / 10)  # standard error of the ten draws' PDR
    assert (far["pdr_diff_high"] - far["pdr_diff_low"]) / 2 == pytest.approx(2.262 * width, rel=0.1)
    assert 0.01 < far["pdr_p"] < 1


def test_the_same_weights_are_no_comparison_and_one_draw_of_chance_is_no_difference() -> None:
    same = built(lambda cell: (attacked(cell, 120, 60),))
    assert {mark.sign for mark in marks(same).values()} == {"same"}
    near = built(lambda c: (attacked(c, 120, 60 + (c.labels[0].ratio == "mixup")),), "ratio.draws=10", "pair=lm_math")
    assert {mark.sign for mark in marks(near).values()} == {"untold"}
    assert all("≈" in line for line in markdown(near).splitlines() if "| yes |" in line)


def test_the_papers_marks_are_by_score_alone_and_say_so() -> None:
    def outcome(cell: Cell) -> tuple[Any, ...]:
        return (attacked(cell, 121 if cell.labels[0].ratio == "mixup" else 120, 60),)

    table = built(outcome, marks="paper")
    bold = {(table.texts[i][2], table.header[j].split(" ", 1)[1]) for (i, j) in marks(table)}
    assert bold == {("yes", "no attack"), ("yes", "attack"), ("no", "attack"), ("no", "PDR")}
    assert any("say nothing about what is significant" in line for line in table.footer)
    assert not any("▲" in line for line in table.footer)


# -------------------------------------------------------------------------------------------------------- one number


def _evaluated(cell: Cell) -> tuple[Any, ...]:
    """What the evaluator itself makes of a model's answers: SST-2 under StressTest, the paper's protocol."""
    _, scores, found, _ = test_prompt_bench.attacked(SST2(attack="stresstest", protocol="paper"))
    made = attacked(cell, 1, 1, 2)
    made["result"] = {**made["result"], **asdict(found)}
    made["scores"] = [{"id": s.id, "sample": s.sample, "value": s.value, "notes": dict(s.notes)} for s in scores]
    return (made,)


def test_table_figure_and_result_have_the_same_pdr() -> None:
    found = framed(_evaluated)
    rows = found[(found["ratio"] == "plain") & (found["pair"] == "lm_math")].head(1)
    details, point = rows.iloc[0]["details"], points.drop(rows)
    line = figures(adversarial.build("table2", Shown(found)), ratio="plain", pair="lm_math")
    shown = (line["pdr"], line["pdr_low"], line["pdr_high"])
    assert shown == (point.value, point.low, point.high)
    assert shown == tuple(details[f"pdr_paper{end}"] for end in ("", "_low", "_high"))
    assert point.low < point.value < point.high  # type: ignore[operator]
    assert not any(key.endswith("_p") for key in details)
    score = points.score(rows)
    assert (score.value, score.low, score.high) == (line["attack"], line["attack_low"], line["attack_high"])


def test_a_figure_shows_the_mean_over_draws_that_the_table_shows() -> None:
    found = framed(lambda cell: _scattered(cell, 7))
    line = figures(
        adversarial.build("table2", Shown(found)), ratio="mixup", benchmark="prompt_bench_cola", pair="lm_code"
    )
    rows = found[(found["benchmark"] == "prompt_bench_cola") & (found["pair"] == "lm_code")]
    plain, mixed = (rows[rows["ratio"] == name] for name in ("plain", "mixup"))
    for key, point in (("pdr", points.drop(mixed)), ("attack", points.score(mixed))):
        assert (point.value, point.low, point.high) == (line[key], line[f"{key}_low"], line[f"{key}_high"])
    gained = points.gain(plain, mixed)
    known = tuple(line[f"attack_{end}"] for end in ("difference", "diff_low", "diff_high"))
    assert (gained.value, gained.low, gained.high) == known
    assert points.drop(mixed.iloc[:0]).note == ""
    assert points.drop(mixed.assign(values=[{("0", 0): 1.0}] * len(mixed), scored=None)).note == drops.NOT_ATTACKED


def test_items_of_one_sentence_are_one_draw() -> None:
    """Each item twice: as clusters they say no more of PDR than once."""

    def outcome(cell: Cell, copies: int) -> tuple[Any, ...]:
        verdicts = ([float(i < right) for i in range(100) for _ in range(copies)] for right in (60, 30))
        found = result(cell, *verdicts)
        for score in found["scores"]:
            score["notes"] = {"problem": str(int(score["id"].partition("@")[0]) // copies)}
        return (found,)

    once, twice = (figures(built(lambda cell, k=k: outcome(cell, k)), ratio="plain") for k in (1, 2))  # type: ignore[misc]
    for key in ("no_attack", "attack", "pdr"):
        assert (twice[key], twice["n"]) == (once[key], 200)
        ends = [(found[f"{key}_low"], found[f"{key}_high"]) for found in (once, twice)]
        assert ends[1] == pytest.approx(ends[0], abs=0.3)
