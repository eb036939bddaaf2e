"""Choosing among candidates: what each way must give where the truth is known, and what the tables say of it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special
from statsmodels.stats.proportion import proportion_confint

from m3_exp.merging.ratio import grid, sampled
from m3_exp.reporting.choices.candidates import NO_ALPHA, Group, groups
from m3_exp.reporting.data import params as hyper
from m3_exp.reporting.tables import selection, table3
from m3_exp.stats import choosing
from m3_exp.stats.choosing import Candidates, Chosen, Scores, price
from m3_exp.stats.estimate import Array
from m3_exp.stats.family import detectable
from m3_exp.stats.paired import tango
from m3_exp.types import M3Error
from tests.curved import framed, tidy_row
from tests.oracles import selection_price

PARENTS = {"lm_math": ["lm", "math"]}
N = 60


def choose(group: Group, how: choosing.How, **options: int) -> Chosen:
    return choosing.choose(group.candidates, how, dev=group.dev, **options)


def line(benchmark: str, method: str, ratio: str, right: Array, **more: object) -> dict[str, object]:
    """A result of which the items in `right` are 1."""
    said = sorted(more.items())
    named = {"weights": f"{method} {ratio} {said}", "evaluator": f"{benchmark} 1", "merge": f"m3 merge {said}"}
    return tidy_row(right, benchmark=benchmark, method=method, ratio=ratio) | named | more


def coins(chance: float, seed: int, n: int = N) -> Array:
    """Items with thresholds of their own, so that a higher chance keeps all that a lower one has."""
    return (np.random.default_rng(seed).random(n) < chance).astype(float)


def searched(seed: int = 0, n: int = N, best: str = "retain 0.5, scaling 0.5") -> pd.DataFrame:
    """A search of TIES in which `best` is right on nine items in ten, the others on four."""
    lines = []
    for b, benchmark in enumerate(("gsm8k", "alpaca_eval")):
        for params in ("retain 0.5, scaling 0.5", "retain 0.7, scaling 1", "retain 0.9, scaling 0.5"):
            chance = 0.9 if params == best else 0.4
            lines.append(line(benchmark, "ties", "plain", coins(chance, seed + b, n), params=params))
        lines += [
            {**line(benchmark, "single", "plain", coins(0.95, seed + b, n)), "pair": name} for name in ("lm", "math")
        ]
    return framed(lines)


def mixed(alphas: Mapping[float, float]) -> pd.DataFrame:
    """Two draws of M3 for each alpha, right with a chance of its own, and the method without M3."""
    lines = [line("gsm8k", "average", "plain", coins(0.4, 1))]
    for alpha, chance in alphas.items():
        for draw in range(2):
            lam = alpha / 10 + draw / 100
            lines.append(line("gsm8k", "average", "mixup", coins(chance, 1), alpha=alpha, draw=draw, lam=lam))
    return framed(lines)


def curved(chance: Callable[[float], float], n: int, seed: int, count: int = 16) -> pd.DataFrame:
    """A grid of nine nodes and sampled lambdas, and without M3 lambda 1/2; half of each item's luck goes along."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal(n)

    def right(lam: float) -> Array:
        latent = np.sqrt(0.5) * (own + rng.standard_normal(n))
        return np.asarray(special.ndtr(latent) < chance(lam), dtype=float)

    lines = [line("gsm8k", "average", "plain", right(0.5))]
    for ratio, lams in (("grid", grid(9)), ("sampled", sampled(seed, count))):
        lines += [line("gsm8k", "average", ratio, right(lam), lam=lam) for lam in lams]
    return framed(lines)


def test_cross_fitting_finds_what_is_really_better_and_says_so() -> None:
    (group,) = groups(searched(), None, PARENTS)
    found = choose(group, "crossfit")
    assert found.name == "retain 0.5, scaling 0.5"
    assert found.shares == {found.name: 1.0}
    assert found.score.value == pytest.approx(found.claimed), "chosen every time: nothing is lost, nothing flattered"
    assert found.gain is not None
    assert found.gain.low > 0
    table = table3.build(searched(), None, "crossfit", PARENTS)
    row = dict(zip(table.header, table.texts[0], strict=True))
    assert row["paper (Table 4)"] == "retain 0.5, scaling 0.5"
    assert row["choice of"] == "hyper-parameters (3)"
    assert row["minus default"].endswith(" better")
    assert [r["benchmark"] for r in table.records] == ["mean", "gsm8k", "alpaca_eval"]
    assert table.records[0]["unit"] == "percent of the better parent"


def test_the_default_that_is_chosen_is_no_gain() -> None:
    (group,) = groups(searched(best="retain 0.7, scaling 1"), None, PARENTS)
    found = choose(group, "crossfit")
    assert found.name == "retain 0.7, scaling 1"
    assert found.gain is not None
    assert (found.gain.value, found.gain.p) == (0.0, 1.0)
    table = table3.build(searched(best="retain 0.7, scaling 1"), None, "crossfit", PARENTS)
    assert dict(zip(table.header, table.texts[0], strict=True))["minus default"] == "the same"


def noise(seed: int, columns: int = 7, n: int = 100, chance: float = 0.5) -> Group:
    """Equally good candidates: nothing is to be found. The first is the default."""
    rng = np.random.default_rng(seed)
    values = {b: (rng.random((n, columns)) < chance).astype(float) for b in "xy"}
    names = tuple(str(c) for c in range(columns))
    return Group({}, "lambda", Candidates(names, {b: Scores(v[None], v[None, :, 0]) for b, v in values.items()}))


@pytest.mark.slow
def test_among_equals_cross_fitting_is_honest_and_the_test_items_flatter_by_their_price() -> None:
    groups_ = [noise(seed) for seed in range(50)]
    fitted = [choose(group, "crossfit", halvings=60, resamples=30) for group in groups_]
    tested = [choose(group, "test", halvings=100, resamples=50) for group in groups_]
    assert np.mean([f.score.value for f in fitted]) == pytest.approx(0.5, abs=0.012)
    assert np.mean([f.score.low <= 0.5 <= f.score.high for f in fitted]) > 0.9
    assert np.mean([f.gain is not None and f.gain.low <= 0 <= f.gain.high for f in fitted]) > 0.9
    flattered = np.mean([t.score.value - 0.5 for t in tested])
    assert flattered == pytest.approx(np.mean([t.price.points for t in tested]), abs=0.012)
    assert flattered > 0.035
    assert np.mean([f.gain is not None and f.gain.p is not None and f.gain.p < 0.05 for f in fitted]) <= 0.1


@pytest.mark.parametrize("how", choosing.HOW)
def test_no_interval_is_a_point_or_leaves_its_range(how: choosing.How) -> None:
    """Twenty items that all are right (the rule of three: a true score of 0.86 is not excluded)."""
    right = Scores(np.ones((1, 20, 3)), np.ones((1, 20)))
    group = Group({}, "lambda", Candidates(tuple("abc"), {"x": right}), dev=Candidates(tuple("abc"), {"x": right}))
    found = choose(group, how, halvings=50, resamples=20)
    assert (found.score.value, found.score.high) == (1, 1)
    assert 0.75 < found.score.low < 0.86
    assert found.gain is not None
    assert (found.gain.value, found.gain.p) == (0, 1)
    assert (found.gain.low, found.gain.high) == pytest.approx(tango(0, 0, 20))


def test_an_unscored_item_widens_what_it_is_left_out_of() -> None:
    values = np.tile(coins(0.5, 1)[None, :, None], (1, 1, 2))
    whole, lacking = (Candidates(("a", "b"), {"x": Scores(values, values[:, :, 0], unscored=k)}) for k in (0, 6))
    first, second = (choose(Group({}, "lambda", known), "test") for known in (whole, lacking))
    assert first.score.value == second.score.value
    right = int(values[0, :, 0].sum())
    worst, best = (proportion_confint(k, N + 6, method="agresti_coull") for k in (right, right + 6))
    assert (second.score.low, second.score.high) == pytest.approx((worst[0], best[1]))
    assert first.gain is not None
    assert second.gain is not None
    assert second.gain.low < first.gain.low - 0.05


def test_masks_that_all_items_share_are_in_the_interval() -> None:
    """Three masks by ten points apart, the same in both candidates' favour: items alone would not know."""
    rng = np.random.default_rng(0)
    masks = [0.3, 0.5, 0.7]
    under = np.stack([np.column_stack([rng.random(400) < chance, rng.random(400) < 1 - chance]) for chance in masks])
    group = Group({}, "hyper-parameters", Candidates(("a", "b"), {"x": Scores(under.astype(float))}))
    found = choose(group, "crossfit", halvings=50, resamples=50).score
    assert found.high - found.low > 0.3


def test_the_price_is_the_papers_for_seven_alphas() -> None:
    values = (np.random.default_rng(3).random((164, 7)) < 0.4).astype(float)
    found = price(Candidates(tuple("abcdefg"), {"humaneval": Scores(values[None])}))
    assert found.best == pytest.approx(1.352, abs=0.001)
    assert found.points == pytest.approx(selection_price(values))
    same = price(Candidates(("a", "b"), {"humaneval": Scores(values[None][:, :, [0, 0]])}))
    assert (same.points, same.rho) == pytest.approx((0, 1))


def test_development_items_choose_and_the_test_items_score() -> None:
    dev = searched(seed=5, best="retain 0.9, scaling 0.5")
    dev = dev[dev["benchmark"] == "gsm8k"]
    (group,) = groups(searched(), dev, PARENTS)
    found = choose(group, "dev")
    assert found.name == "retain 0.9, scaling 0.5"
    assert found.shares[found.name] > 0.99
    assert found.benchmarks["gsm8k"].value == coins(0.4, 0).mean()
    table = table3.build(searched(), dev, "dev", PARENTS)
    assert any("not in the choice: alpaca_eval" in text for text in table.footer)
    assert any("chosen on gsm8k 60 development items" in text for text in table.footer)


def test_without_development_results_the_line_that_runs_them_is_given() -> None:
    with pytest.raises(M3Error, match="first: m3 run sweeps=table3_search items=dev"):
        table3.build(searched(), None, "dev", PARENTS)
    missing = searched().assign(score=np.nan, values=None)
    with pytest.raises(M3Error, match="no candidate has results on development items"):
        table3.build(searched(), missing, "dev", PARENTS)


def test_draws_are_chosen_among_by_themselves_and_nothing_is_said_of_alpha() -> None:
    frame = mixed({0.2: 0.3, 1.0: 0.8})
    for shown, names in (
        (frame, ("alpha 0.2, lambda 0.02", "alpha 0.2, lambda 0.03", "alpha 1, lambda 0.1", "alpha 1, lambda 0.11")),
        (frame[frame["draw"] != 1], ("alpha 0.2, lambda 0.02", "alpha 1, lambda 0.1")),
    ):
        (group,) = groups(shown, None, PARENTS)
        assert (group.question, group.candidates.names, group.notes) == ("draw (of each alpha)", names, (NO_ALPHA,))
        table = selection.build("alpha_grid", shown, None, "crossfit", PARENTS)
        assert table.texts[0][3:5] == (f"draw (of each alpha) ({len(names)})", "alpha 1, lambda 0.1 100 %")
        assert table.texts[0][5].endswith("(plain mean)"), "no parents are evaluated"
        assert table.records[0]["lambda"] == [0.1]
        assert any("says nothing about alpha" in text and "lambda_response" in text for text in table.footer)
    (draws,) = groups(mixed({0.5: 0.5}), None, PARENTS)
    assert draws.question == "draw"
    assert draws.candidates.names == ("draw 0 (lambda 0.05)", "draw 1 (lambda 0.06)")


def test_alpha_is_chosen_by_its_expectations_where_sampled_lambdas_stand_beside_the_nodes() -> None:
    """Best in the middle: the largest alpha. Its truth by quadrature."""
    frame = curved(lambda lam: 0.8 - 0.6 * abs(2 * lam - 1), 400, 3)
    lambdas, group = groups(frame, frame, PARENTS)
    assert (lambdas.question, group.question, len(group.candidates.names)) == ("lambda", "alpha", 7)
    share = (np.arange(100_000) + 0.5) / 100_000
    truth = float(np.mean(0.8 - 0.6 * np.abs(2 * special.betaincinv(5, 5, share) - 1)))
    for how in choosing.HOW:
        found = choose(group, how, halvings=100, resamples=60)
        assert found.name == "alpha 5"
        assert found.score.low < truth < found.score.high
        assert found.gain is not None
        assert found.gain.low < truth - 0.8 < found.gain.high < 0, "without M3 the middle itself"
    table = selection.build("lambda_response", frame, None, "crossfit", PARENTS)
    assert [row[3] for row in table.texts] == ["lambda (9)", "alpha (7)"]
    assert table.texts[1][6].endswith(" worse")
    assert any("Holm" in text and "the 2 such rows" in text for text in table.footer)


def test_without_sampled_lambdas_no_alpha_is_chosen() -> None:
    frame = curved(lambda lam: 0.5, 60, 1, count=0)
    (group,) = groups(frame, None, PARENTS)
    assert group.question == "lambda"
    assert "no choice of alpha" in group.notes[0]
    part = curved(lambda lam: 0.5, 60, 1)
    part.loc[part["ratio"] == "sampled", "score"] = np.nan
    assert [found.question for found in groups(part, None, PARENTS)] == ["lambda"]


@pytest.mark.slow
def test_where_every_alpha_is_worth_the_same_none_is_better() -> None:
    """A line: each alpha's expectation is the middle's, as without M3. Means over draws called one better in 72 %."""
    found = []
    for seed in range(16):
        group = groups(curved(lambda lam: 0.15 + 0.5 * lam, 96, seed), None, PARENTS)[1]
        found.append(choose(group, "crossfit", halvings=50, resamples=25, seed=seed))
    assert sum(one.gain is not None and one.gain.p is not None and one.gain.p < 0.05 for one in found) <= 1
    assert sum(one.score.low <= 0.4 <= one.score.high for one in found) >= 14
    assert np.mean([one.score.value for one in found]) == pytest.approx(0.4, abs=0.03)


def test_only_the_same_weights_are_the_same() -> None:
    frame = mixed({0.2: 0.1, 1.0: 0.4})
    (group,) = groups(frame, frame, PARENTS)
    found = choose(group, "dev")
    assert found.gain is not None
    assert (found.gain.value, found.gain.p) == (0.0, 1.0)
    assert (found.gain.low, found.gain.high) == pytest.approx(tango(0, 0, N))
    unseen = 100 * detectable(found.gain, 1)
    table = selection.build("alpha_grid", frame, frame, "dev", PARENTS)
    assert table.texts[0][6].startswith("+0.0 [-")
    assert table.texts[0][6].endswith(f" not told apart (below {unseen:.1f})")
    assert table.records[0]["detectable"] == pytest.approx(unseen)
    assert (table.records[0]["comparisons"], table.records[0]["p_adjusted"]) == (1, 1.0)
    assert {record["family"] for record in table.records} == {"lab"}


def test_without_parents_plain_scores_count() -> None:
    frame = searched()
    (group,) = groups(frame[frame["method"] != "single"], None, PARENTS)
    assert not group.candidates.relative


def test_items_are_counted_and_the_unscored_ones_too() -> None:
    frame = mixed({0.2: 0.3, 1.0: 0.8})
    frame.at[1, "values"] = {**frame.at[1, "values"], ("3", 0): None}
    table = selection.build("alpha_grid", framed(frame), None, "test", PARENTS)
    assert any("gsm8k 59 (and 1 not scored by all: in the intervals" in text for text in table.footer)
    assert "(1 unscored)" in table.texts[0][8]
    assert [(r["p"], r["p_adjusted"], r["n_unscored"]) for r in table.records] == [(None, None, 1)] * 2


def test_a_table_chosen_on_the_test_items_is_stamped_everywhere() -> None:
    table = selection.build("alpha_grid", mixed({0.2: 0.3, 1.0: 0.8}), None, "test", PARENTS)
    assert "chosen on the test items" in table.title
    (row,) = table.texts
    assert all("(on test)" in row[i] for i in (4, 5, 6, 8))
    assert row[7].count("sqrt(1 - ") == 1
    assert any(text.startswith("CHOSEN ON THE TEST ITEMS") for text in table.footer)
    assert sum("m3 merge" in text for text in table.footer) == 1, "how to rebuild the chosen draw"
    assert table.records[0]["mark"] == "(on test)"


def test_candidates_without_results_are_left_out_and_counted() -> None:
    frame = searched()
    gone = (frame["params"] == "retain 0.9, scaling 0.5") & (frame["benchmark"] == "gsm8k")
    frame.loc[gone, "score"] = np.nan
    table = table3.build(frame, None, "crossfit", PARENTS)
    assert "lm_math ties: 1 of 3 candidates lack results and are left out" in table.footer
    with pytest.raises(M3Error, match="no two candidates have results"):
        table3.build(frame[frame["params"].isin(["", "retain 0.7, scaling 1"])], None, "crossfit", PARENTS)
    with pytest.raises(M3Error, match="--select best is not known; allowed: crossfit, dev, test"):
        selection.build("x", frame, None, "best", PARENTS)  # type: ignore[arg-type]


def test_the_defaults_and_the_papers_search_are_read_from_the_configuration() -> None:
    known = hyper.defaults()
    assert {name: known[name] for name in ("task_arithmetic", "ties", "karcher")} == {
        "task_arithmetic": "scaling 1", "ties": "retain 0.7, scaling 1", "karcher": "steps 10, tolerance 1e-05"
    }  # fmt: skip
    assert not {"average", "nuslerp", "model_stock"} & known.keys()
    assert hyper.searched() == {
        ("ties", "lm_math"): "retain 0.5, scaling 0.5",
        ("ties", "lm_code"): "retain 0.7, scaling 1",
        ("ties", "math_code"): "retain 0.5, scaling 1",
    }
    assert hyper.text({"scaling": 0.1 + 0.2, "retain": 1.0}) == "retain 1, scaling 0.30000000000000004"


@pytest.mark.parametrize("how", choosing.HOW)
def test_the_same_seed_gives_the_same_table(how: choosing.How) -> None:
    once: Callable[[], Any] = lambda: table3.build(searched(), searched(seed=5), how, PARENTS, seed=7)  # noqa: E731
    assert once() == once()
