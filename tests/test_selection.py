"""Choosing among candidates: what each way must give where the truth is known, and what the tables say of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from m3_exp.config import ROOT
from m3_exp.reporting import choosing, selection, stats, table3
from m3_exp.reporting.choosing import Candidates, Group, choose, groups, price
from m3_exp.stats.lambdas import Array
from m3_exp.types import M3Error

PARENTS = {"lm_math": ["lm", "math"]}
N = 60


def line(benchmark: str, method: str, ratio: str, right: Array, **more: object) -> dict[str, object]:
    """A result of which the items in `right` are 1."""
    return {
        "family": "lab", "pair": "lm_math", "method": method, "params": "", "ratio": ratio, "alpha": None, "draw": None,
        "lam": None, "sparsify": "none", "mask_seed": None, "benchmark": benchmark, "metric": "accuracy",
        "score": 100 * float(right.mean()), "values": {(str(i), 0): float(v) for i, v in enumerate(right)},
        "weights": f"{method} {ratio} {sorted(more.items())}", "state": "done", "failure": None, "runs": 1,
        "engine": "vllm 1 float32", "evaluator": f"{benchmark} 1", "details": {},
        "merge": f"m3 merge {sorted(more.items())}", **more,
    }  # fmt: skip


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
    return pd.DataFrame(lines)


def mixed(alphas: Mapping[float, float]) -> pd.DataFrame:
    """Two draws of M3 for each alpha, right with a chance of its own, and the method without M3."""
    lines = [line("gsm8k", "average", "plain", coins(0.4, 1))]
    for alpha, chance in alphas.items():
        for draw in range(2):
            lam = alpha / 10 + draw / 100
            lines.append(line("gsm8k", "average", "mixup", coins(chance, 1), alpha=alpha, draw=draw, lam=lam))
    return pd.DataFrame(lines)


def test_cross_fitting_finds_what_is_really_better_and_says_so() -> None:
    (group,) = groups(searched(), None, PARENTS)
    found = choose(group, "crossfit")
    assert found.name == "retain 0.5, scaling 0.5"
    assert found.shares == {found.name: 1.0}
    assert found.score.value == pytest.approx(found.claimed), "chosen every time: nothing is lost, nothing flattered"
    assert found.gain is not None
    assert found.gain.low > 0
    table = table3.build(searched(), None, "crossfit", PARENTS)
    row = dict(zip(table.header, table.rows[0], strict=True))
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
    assert dict(zip(table.header, table.rows[0], strict=True))["minus default"] == "the same"


def noise(seed: int, columns: int = 7, n: int = 100) -> Group:
    """Equally good candidates: nothing is to be found. The first is the default."""
    rng = np.random.default_rng(seed)
    values = {b: (rng.random((n, columns)) < 0.5).astype(float) for b in "xy"}
    names = tuple(str(c) for c in range(columns))
    return Group({}, "alpha", Candidates(names, values), {b: v[:, 0] for b, v in values.items()}, {})


def test_among_equals_cross_fitting_is_honest_and_the_test_items_flatter_by_their_price() -> None:
    groups_ = [noise(seed) for seed in range(60)]
    fitted = [choose(group, "crossfit", halvings=100, resamples=200) for group in groups_]
    tested = [choose(group, "test", halvings=100, resamples=200) for group in groups_]
    assert np.mean([f.score.value for f in fitted]) == pytest.approx(0.5, abs=0.012)
    assert np.mean([f.score.low <= 0.5 <= f.score.high for f in fitted]) > 0.9
    flattered = np.mean([t.score.value - 0.5 for t in tested])
    assert flattered == pytest.approx(np.mean([t.price.points for t in tested]), abs=0.012)
    assert flattered > 0.035
    assert np.mean([f.gain is not None and f.gain.p < 0.05 for f in fitted]) <= 0.1


def test_the_price_is_the_papers_for_seven_alphas() -> None:
    values = (np.random.default_rng(3).random((164, 7)) < 0.4).astype(float)
    found = price(Candidates(tuple("abcdefg"), {"humaneval": values}))
    assert found.best == pytest.approx(1.352, abs=0.001)
    assert found.points == pytest.approx(stats.selection_price(values))
    same = price(Candidates(("a", "b"), {"humaneval": values[:, [0, 0]]}))
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


def test_alphas_compete_as_means_over_their_draws_beside_the_method_without_m3() -> None:
    frame = mixed({0.2: 0.3, 1.0: 0.8})
    (group,) = groups(frame, None, PARENTS)
    assert (group.question, group.candidates.names) == ("alpha", ("alpha 0.2", "alpha 1"))
    assert group.candidates.values["gsm8k"][:, 1].mean() == coins(0.8, 1).mean()
    table = selection.build("alpha_grid", frame, None, "crossfit", PARENTS)
    assert table.rows[0][4] == "alpha 1 100 %"
    assert table.rows[0][5].endswith("(plain mean)"), "no parents are evaluated"
    (draws,) = groups(mixed({0.5: 0.5}), None, PARENTS)
    assert draws.question == "draw"
    assert draws.candidates.names == ("draw 0 (lambda 0.05)", "draw 1 (lambda 0.06)")


def test_one_draw_of_each_alpha_is_a_choice_among_lambdas() -> None:
    frame = mixed({0.2: 0.3, 1.0: 0.8})
    table = selection.build("alpha_grid", frame[frame["draw"] != 1], None, "crossfit", PARENTS)
    assert table.rows[0][3:5] == ("draw (one for each alpha) (2)", "alpha 1, lambda 0.1 100 %")
    assert table.records[0]["lambda"] == [0.1]
    assert any("says nothing about alpha" in text for text in table.footer)


def test_only_the_same_weights_are_the_same() -> None:
    frame = mixed({0.2: 0.1, 1.0: 0.4})
    (group,) = groups(frame, frame, PARENTS)
    found = choose(group, "dev")
    assert found.gain is not None
    assert (found.gain.value, found.gain.p) == (0.0, 1.0)
    assert (found.gain.low, found.gain.high) == pytest.approx(stats.tango(0, 0, N))
    table = selection.build("alpha_grid", frame, frame, "dev", PARENTS)
    assert table.rows[0][6].startswith("+0.0 [-")
    assert table.rows[0][6].endswith(" not told apart")


def test_without_parents_plain_scores_count() -> None:
    frame = searched()
    (group,) = groups(frame[frame["method"] != "single"], None, PARENTS)
    assert not group.candidates.parents


def test_items_are_counted_and_the_unscored_ones_too() -> None:
    frame = mixed({0.2: 0.3, 1.0: 0.8})
    frame.at[1, "values"] = {**frame.at[1, "values"], ("3", 0): None}
    table = selection.build("alpha_grid", frame, None, "test", PARENTS)
    assert "scored items: gsm8k 59 (1 not scored by all, left out)" in table.footer
    assert [(r["p"], r["p_holm"]) for r in table.records] == [(None, None)] * 2


def test_a_table_chosen_on_the_test_items_is_stamped_everywhere() -> None:
    table = selection.build("alpha_grid", mixed({0.2: 0.3, 1.0: 0.8}), None, "test", PARENTS)
    assert "chosen on the test items" in table.title
    (row,) = table.rows
    assert all("(on test)" in row[i] for i in (4, 5, 6, 8))
    assert row[7].count("sqrt(1 - ") == 1
    assert any(text.startswith("CHOSEN ON THE TEST ITEMS") for text in table.footer)
    assert sum("m3 merge" in text for text in table.footer) == 2, "how to rebuild the two draws of the chosen alpha"
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


def test_the_defaults_are_those_of_the_methods() -> None:
    for method, text in choosing.DEFAULTS.items():
        known: Any = yaml.safe_load((ROOT / "conf" / "method" / f"{method}.yaml").read_text())
        assert text == ", ".join(f"{part.split()[0]} {known[part.split()[0]]:g}" for part in text.split(", "))
    for (method, pair), text in table3.PAPER.items():
        tuned: Any = yaml.safe_load("\n".join(_tuned(method, pair)))
        assert text == ", ".join(f"{key} {value:g}" for key, value in sorted(tuned["method"].items()))


def _tuned(method: str, pair: str) -> Sequence[str]:
    return (ROOT / "conf" / "tuned" / f"llama2_13b_{method}_{pair}.yaml").read_text().splitlines()


@pytest.mark.parametrize("how", choosing.HOW)
def test_the_same_seed_gives_the_same_table(how: choosing.How) -> None:
    once: Callable[[], Any] = lambda: table3.build(searched(), searched(seed=5), how, PARENTS, seed=7)  # noqa: E731
    assert once() == once()
