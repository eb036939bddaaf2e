"""Frame -> curves -> what `m3 response` says, on hand-made scores."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from m3_exp.merging.ratio import grid, sampled
from m3_exp.reporting.choices import advice, ways
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Response, responses
from m3_exp.stats import family
from m3_exp.stats.expectation import ALPHAS
from tests.curved import below, framed, tidy_row

LAMS = grid(9)
SAMPLED = sorted(sampled(0, 16))
PARENTS = {"lm_math": ["lm", "math"]}


def line(
    benchmark: str, method: str, ratio: str, share: float, lam: float | None = None, **more: Any
) -> dict[str, object]:
    """A result on 40 items: item i is right where (i + 0.5) / 40 lies below `share`."""
    return tidy_row(below(share, 40), benchmark=benchmark, method=method, ratio=ratio, lam=lam, **more)


SCORES: dict[str, Callable[[float], float]] = {"gsm8k": lambda x: 0.8 * (1 - x), "alpaca_eval": lambda x: 0.2 + 0.6 * x}


def frame(**more: Any) -> pd.DataFrame:
    lines = []
    for benchmark, at in SCORES.items():
        lines += [line(benchmark, "average", "grid", at(lam), lam, **more) for lam in LAMS]
        lines += [line(benchmark, "average", "sampled", at(lam), lam, **more) for lam in SAMPLED]
        lines += [line(benchmark, "average", "plain", at(0.5), **more)]
        lines += [line(benchmark, "average", "mixup", at(0.3), 0.3, alpha=0.5, draw=0, **more)]
        lines += [{**line(benchmark, "single", "plain", at(1.0)), "pair": "lm"}]
        lines += [{**line(benchmark, "single", "plain", at(0.0)), "pair": "math"}]
    return framed(lines)


def test_curves_come_from_the_frame() -> None:
    found = responses(frame(), PARENTS)
    assert [r.benchmark for r in found] == ["gsm8k", "alpaca_eval"]
    assert found[0].curve.values.shape == (40, 9)
    assert found[0].better_parent()[0] == "math"  # type: ignore[index]
    assert found[1].better_parent()[0] == "lm"  # type: ignore[index]
    assert [(d.alpha, d.lam) for d in found[0].draws] == [(0.5, 0.3)]


def test_masks_are_averaged_and_kept() -> None:
    one, two = frame(sparsify="dare", mask_seed=1), frame(sparsify="dare", mask_seed=2)
    zero = two["benchmark"] == "gsm8k"
    two.loc[zero, "values"] = two.loc[zero, "values"].map(lambda v: dict.fromkeys(v, 0.0))
    merged = framed(pd.concat([one, two[two["method"] != "single"]]))
    found = responses(merged, PARENTS)[0]
    assert len(found.masks) == 2
    assert found.curve.values.mean() == pytest.approx(found.masks[0].values.mean() / 2)
    study = ways.study([found], repeats=200, resamples=50)
    assert study.spreads["gsm8k"][1.0].sd_masks == pytest.approx(100 * found.masks[0].expected(1.0).mean() / np.sqrt(2))


@pytest.mark.slow
def test_a_study_has_every_objective_and_way_of_choosing() -> None:
    found = ways.study(responses(frame(), PARENTS), repeats=500, resamples=100)
    assert [c.objective for c in found.comparisons] == ["gsm8k", "alpaca_eval", "mean", "minimum"]
    header, rows = list(advice.table(found).header), advice.table(found).texts
    assert header[1:] == ["gsm8k", "alpaca_eval", "mean (of parent)", "minimum (of parent)"]
    assert [row[0] for row in rows][:3] == ["plain", "E[alpha=0.2]", "E[alpha=0.4]"]
    assert rows[0][1].startswith("40.0 [")
    line_ = [float(row[1].split(" ")[0]) for row in rows[1:8]]
    assert line_ == pytest.approx([40.0] * 7, abs=0.7), (
        "a straight line (in steps of an item) is the same for every alpha"
    )
    data = json.loads(advice.as_json(found))
    assert (data["pair"], data["method"]) == (found.responses[0].pair, found.responses[0].method)
    least = data["objectives"][3]
    assert least["selected"]["lambda"] == pytest.approx(0.375, abs=0.13)
    assert least["unit"] == "percent of the better parent"
    assert data["objectives"][0]["alpha"][0]["unbeaten"] is True
    said = data["advice"]
    assert said[0] == (
        "advice for the mean over benchmarks: the best alpha is any of the seven alphas (with 95 %: paired by item,"
        " max-T over their 21 pairs); more items would be needed to leave one out"
    )
    assert any("chosen on the items it is scored on, claims" in sentence for sentence in said)


def test_a_benchmark_without_parents_is_left_out_of_the_mean_and_named() -> None:
    lonely = frame()
    lonely = lonely[(lonely["benchmark"] != "gsm8k") | (lonely["method"] != "single")]
    found = ways.study(responses(lonely, PARENTS), repeats=100, resamples=50)
    assert [c.objective for c in found.comparisons] == ["gsm8k", "alpaca_eval"]
    assert found.notes == ("gsm8k is not in mean and minimum: its parents are not evaluated on all its items",)


def test_the_worse_parent_never_stands_in_for_the_better_one() -> None:
    unscored = frame()
    better = unscored.index[(unscored["benchmark"] == "gsm8k") & (unscored["pair"] == "math")][0]
    unscored.at[better, "values"] = {**unscored.at[better, "values"], ("3", 0): None}
    first = responses(framed(unscored), PARENTS)[0]
    assert first.better_parent() is None
    found = ways.study([first], repeats=50, resamples=20)
    assert found.notes == ("gsm8k is not in mean and minimum: its parents are not evaluated on all its items",)


def test_a_parent_that_is_not_evaluated_is_named() -> None:
    one = frame()
    one = one[(one["pair"] != "lm") | (one["benchmark"] != "gsm8k")]
    found = ways.study(responses(one, PARENTS), repeats=50, resamples=20)
    assert "gsm8k is relative to math: lm not evaluated" in found.notes


def test_the_best_node_is_the_one_that_is_kept_most_often() -> None:
    found = ways.study(responses(frame(), PARENTS)[:1], repeats=100, resamples=50)
    selected = advice.records(found)[0]["selected"]
    assert (selected["lambda"], selected["share"]) == (0.0, 1.0)
    rows = {row[0]: row[1] for row in advice.table(found).texts}
    assert rows["best node, cross-fitted"].endswith(" at 0 (100 %)")


def test_no_curve_is_refused() -> None:
    with pytest.raises(ValueError, match="no benchmark has a curve"):
        ways.study([])


def on_dev(best: float, benchmark: str = "gsm8k", *, parents: bool = True) -> dict[str, Response]:
    """A curve on development items with its peak at one node."""
    lines = [line(benchmark, "average", "grid", 0.8 - 0.7 * abs(lam - best), lam) for lam in LAMS]
    lines += [{**line(benchmark, "single", "plain", 0.5), "pair": name} for name in ("lm", "math") if parents]
    return {r.benchmark: r for r in responses(framed(lines), PARENTS)}


@pytest.mark.slow
def test_development_items_choose_a_node_that_is_scored_on_the_test() -> None:
    found = ways.study(responses(frame(), PARENTS), dev=on_dev(0.25), repeats=300, resamples=100)
    assert found.choosers["gsm8k"].lam == 0.25
    assert found.choosers.keys() == {"gsm8k", "mean", "minimum"}
    assert found.choosers["mean"].benchmarks == ("gsm8k",)
    data = {r["objective"]: r for r in advice.records(found)}
    assert data["gsm8k"]["developed"]["score"] == pytest.approx(60)
    assert data["gsm8k"]["developed"]["minus_plain"]["score"] == pytest.approx(20)
    assert data["alpaca_eval"]["developed"] is None
    assert data["mean"]["developed"]["score"] == pytest.approx(100 * (0.75 + 0.35 / 0.8) / 2)
    rows = {row[0]: row[1:] for row in advice.table(found).texts}
    chosen = rows["chosen node, really evaluated"]
    assert chosen[0].startswith("60.0 [")
    assert " at 0.25, dev " in chosen[0]
    assert chosen[1].endswith("cross-fitted")
    assert rows["  - plain"][1] == "/"
    assert any(sentence.startswith("no development items of alpaca_eval") for sentence in advice.words(found))


def test_without_parents_on_development_items_plain_scores_choose() -> None:
    dev = on_dev(0.75, "gsm8k", parents=False) | on_dev(0.75, "alpaca_eval")
    found = ways.study(responses(frame(), PARENTS), dev=dev, repeats=100, resamples=50)
    assert found.choosers["mean"].lam == found.choosers["minimum"].lam == 0.75
    assert found.choosers["mean"].benchmarks == ("gsm8k", "alpaca_eval")


def test_without_development_items_the_command_that_runs_them_is_named() -> None:
    found = ways.study(responses(frame(), PARENTS), repeats=100, resamples=50)
    assert "best node, cross-fitted" in [row[0] for row in advice.table(found).texts]
    assert any("items=dev" in sentence for sentence in advice.words(found))


def test_gains_over_plain_are_those_of_everywhere() -> None:
    """One family over alphas and benchmarks; mean and minimum have families of their own."""
    known = responses(frame(), PARENTS)
    found = ways.study(known, repeats=100, resamples=50)
    against = expectations.against_plain(known)
    assert len(against) == 14
    for compared in found.comparisons[:2]:
        assert compared.gains == {a: against[compared.objective, a] for a in ALPHAS}
    assert [c.gains[1.0].family for c in found.comparisons] == [14, 14, 7, 7]
    data = {r["objective"]: r for r in advice.records(found)}
    for entry in data["gsm8k"]["alpha"]:
        gain = against["gsm8k", entry["alpha"]]
        assert (entry["minus_plain"]["p"], entry["minus_plain"]["p_adjusted"]) == (gain.estimate.p, gain.p_adjusted)
        assert entry["minus_plain"]["detectable"] == 100 * family.detectable(gain.estimate, 14)


def far(**more: Any) -> pd.DataFrame:
    """Plain is right on 38 of 40 items, the curve's middle on 16."""
    better = frame(**more)
    plain = (better["benchmark"] == "gsm8k") & (better["ratio"] == "plain") & (better["method"] == "average")
    better.loc[plain, "values"] = [line("gsm8k", "average", "plain", 0.95)["values"]]
    return framed(better)


def test_what_is_real_is_marked() -> None:
    found = ways.study(responses(far(), PARENTS), repeats=100, resamples=50)
    assert {entry["minus_plain"]["mark"] for entry in advice.records(found)[0]["alpha"]} == {"worse"}
    rows = advice.table(found).texts
    assert all(row[1].endswith(" -") for row in rows[1:8])
    assert any("(max-T over 7)" in sentence for sentence in advice.words(found)), "of the mean over benchmarks"
    alone = ways.study(responses(far(), PARENTS)[:1], repeats=100, resamples=50)
    assert any("significant at 5 % (max-T over 7)" in sentence for sentence in advice.words(alone))


def test_without_sampled_lambdas_nothing_is_claimed_and_what_is_needed_is_said() -> None:
    nodes = far()
    found = ways.study(responses(nodes[nodes["ratio"] != "sampled"], PARENTS), repeats=100, resamples=50)
    entries = advice.records(found)[0]["alpha"]
    assert {entry["minus_plain"]["mark"] for entry in entries} == {"no claim"}
    assert {entry["unbeaten"] for entry in entries} == {None}
    assert all(entry["bend"] is not None for entry in entries)
    said = advice.words(found)
    assert said[0].endswith(f"none of an alpha: {expectations.NO_SAMPLED}")
    assert f"no claim about E[alpha] - plain: {expectations.NO_SAMPLED}" in said
    assert not any(row[1].endswith((" -", " +")) for row in advice.table(found).texts[1:8])
    assert all(row[1].endswith("*") for row in advice.table(found).texts[1:8])


def test_every_cannot_tell_says_what_could_not_have_been_seen() -> None:
    found = ways.study(responses(frame(), PARENTS)[:1], repeats=200, resamples=50)
    data = advice.records(found)[0]
    assert {entry["minus_plain"]["mark"] for entry in data["alpha"]} == {"not told apart"}
    least = min(entry["minus_plain"]["detectable"] for entry in data["alpha"])
    said = advice.words(found)
    assert any(f"a difference below {least:.1f} points could not have been seen" in sentence for sentence in said)
    (contrast,) = [sentence for sentence in said if sentence.startswith("random (best of seven draws)")]
    if "cannot be told" in contrast:
        assert "points could not have been seen" in contrast


@pytest.mark.slow
def test_no_figure_stands_without_its_interval() -> None:
    """Each score or difference of the table is followed by the ends of its interval, which lie in its range."""
    for given in (frame(), far()):
        found = ways.study(responses(given, PARENTS), dev=on_dev(0.25), repeats=100, resamples=50)
        for row in advice.table(found).texts:
            for text in row[1:3]:
                ends = re.match(r"([+-]?[0-9.]+) \[([+-]?[0-9.]+), ([+-]?[0-9.]+)\]", text)
                assert text == "/" or ends, (row[0], text)
                if ends:
                    value, low, high = map(float, ends.groups())
                    assert -100 <= low <= value <= high <= 100
                    assert low < high
                    assert low >= 0 or "+" in text or "-" in row[0]


@pytest.mark.slow
def test_unscored_items_are_told_beside_the_numbers() -> None:
    lost = frame()
    at = lost.index[(lost["ratio"] == "grid") & (lost["benchmark"] == "gsm8k")][3]
    lost.at[at, "values"] = {**lost.at[at, "values"], ("3", 0): None, ("4", 0): None}
    found = ways.study(responses(framed(lost), PARENTS), repeats=50, resamples=20)
    note = "gsm8k: 2 of 40 items unscored: in the intervals of E at their worst and best"
    assert note in found.notes
    assert note in advice.words(found)
    whole = ways.study(responses(frame(), PARENTS), repeats=50, resamples=20)
    one, other = (study.comparisons[0].expected[1.0] for study in (found, whole))
    assert one.high - one.low > other.high - other.low
