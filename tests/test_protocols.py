"""Ways of choosing lambda: what they must give where the truth is known."""

import numpy as np
import pytest

from m3_exp.merging.ratio import grid
from m3_exp.reporting import stats
from m3_exp.reporting.protocols import ALPHAS, Objective, compare
from m3_exp.stats.lambdas import Array, Curve, weights

LAMS = np.array(grid(9))


def curve(values: Array) -> Curve:
    return Curve(tuple(str(i) for i in range(len(values))), LAMS, values)


def coins(chances: Array, n: int, seed: int) -> Array:
    """n items with one threshold each: right where the chance at a lambda exceeds it, so paired along lambda."""
    return (np.random.default_rng(seed).random((n, 1)) < chances[None, :]).astype(float)


def test_a_flat_curve_rewards_no_way_of_choosing() -> None:
    noise = (np.random.default_rng(0).random((400, 9)) < 0.5) * 1.0
    found = compare(Objective("flat", (curve(noise),)), repeats=1500, resamples=300)
    assert abs(found.replay.honest.value - noise.mean()) < 0.03
    assert found.replay.claimed > found.replay.honest.value + 0.01
    assert found.contrast.low < 0 < found.contrast.high
    assert sum(found.best_alpha.values()) == pytest.approx(1)


def test_where_the_middle_is_best_a_large_alpha_is() -> None:
    chances = 0.2 + 0.6 * (1 - np.abs(2 * LAMS - 1))
    found = compare(Objective("peak", (curve(coins(chances, 600, 1)),)), repeats=1500, resamples=300)
    assert max(found.best_alpha, key=found.best_alpha.__getitem__) == 5.0
    values = [found.expected[alpha].value for alpha in ALPHAS]
    assert values == sorted(values)
    assert found.tuned.honest.value > found.expected[5.0].value
    assert float(np.median(found.tuned.kept)) == pytest.approx(0.5)


def test_of_seven_draws_the_best_is_nearly_the_best_there_is() -> None:
    rising = np.tile(LAMS, (50, 1))
    found = compare(Objective("line", (curve(rising),)), repeats=4000, resamples=200)
    draws = np.column_stack([np.random.default_rng(5).beta(a, a, 100_000) for a in ALPHAS])
    assert found.replay.honest.value == pytest.approx(draws.max(axis=1).mean(), abs=0.005)
    assert found.replay.sd == pytest.approx(draws.max(axis=1).std(), rel=0.1)
    assert found.tuned.honest.value == pytest.approx(1)
    assert found.contrast.value == pytest.approx(found.replay.honest.value - 1)


def test_the_mean_and_minimum_of_two_benchmarks_relative_to_their_parents() -> None:
    up, down = curve(coins(0.8 * LAMS, 500, 2)), curve(coins(0.4 * (1 - LAMS), 500, 3))
    parents = up.values[:, -1], down.values[:, 0]
    mean = compare(Objective("mean", (up, down), parents), repeats=1000, resamples=200)
    least = compare(Objective("minimum", (up, down), parents, "minimum"), repeats=1000, resamples=200)
    assert mean.expected[1.0].value == pytest.approx(0.5, abs=0.03)
    assert least.expected[1.0].value == pytest.approx(0.25, abs=0.03)
    assert least.tuned.honest.value == pytest.approx(0.5, abs=0.05)
    assert float(np.median(least.tuned.kept)) == pytest.approx(0.5)


def test_an_interval_has_the_width_of_the_items() -> None:
    """E[score | alpha] of a constant chance: its standard error is that of a mean of item numbers."""
    values = coins(np.full(9, 0.3), 300, 4)
    found = compare(Objective("flat", (curve(values),)), [values[:, 4]], repeats=200, resamples=2000).expected[1.0]
    width = 2 * 1.96 * np.sqrt(values[:, 0].var() / 300)
    assert found.high - found.low == pytest.approx(width, rel=0.1)


def test_what_cannot_be_compared_is_refused() -> None:
    flat = curve(np.ones((4, 9)))
    with pytest.raises(ValueError, match="relative to their parents"):
        Objective("two", (flat, flat))
    with pytest.raises(ValueError, match="no unit"):
        Objective("zero", (flat,), (np.zeros(4),))


def test_the_same_seed_gives_the_same_comparison() -> None:
    objective = Objective("x", (curve(coins(LAMS, 60, 6)),))
    one, other = (compare(objective, repeats=300, resamples=100, seed=7) for _ in range(2))
    assert one.replay.kept.tobytes() == other.replay.kept.tobytes()
    assert one.contrast == other.contrast


def test_gains_over_plain_are_paired_and_no_alpha_is_called_best_by_luck() -> None:
    flat = coins(np.full(9, 0.5), 400, 8)
    found = compare(Objective("flat", (curve(flat),)), [flat[:, 4]], repeats=200, resamples=500)
    assert found.unbeaten == ALPHAS
    assert all((g.value, g.p) == (pytest.approx(0, abs=1e-9), 1.0) for g in found.gains.values())
    peak = coins(0.2 + 0.6 * (1 - np.abs(2 * LAMS - 1)), 600, 1)
    found = compare(Objective("peak", (curve(peak),)), [peak[:, 4]], repeats=200, resamples=500)
    assert found.unbeaten == (5.0,)
    assert all(g.p < 1e-6 for g in found.gains.values())
    assert all(g.sign == "worse" for g in found.gains.values())
    width = found.gains[1.0].high - found.gains[1.0].low
    paired = curve(peak).expected(1.0) - peak[:, 4]
    assert width == pytest.approx(2 * 1.96 * paired.std() / np.sqrt(600), rel=0.15)


def test_gains_cover_their_truth_where_few_items_are_ever_right() -> None:
    """About 95 of 100 intervals of E[alpha] - plain hold the true difference (n = 164, 1 to 5 % right)."""
    chances = 0.01 + 0.04 * (1 - np.abs(2 * LAMS - 1))
    truth = float(weights(LAMS, 1.0) @ chances) - chances[4]
    inside = 0
    for seed in range(40):
        values = coins(chances, 164, 1000 + seed)
        found = compare(Objective("x", (curve(values),)), [values[:, 4]], repeats=2, resamples=300, seed=seed)
        inside += found.gains[1.0].low <= truth <= found.gains[1.0].high
    assert 0.87 <= inside / 40 <= 1


def test_intervals_of_what_is_chosen_know_of_the_choice() -> None:
    """Nearly equal nodes: which is kept is chance, and another data set would keep another (70 to 90 % before)."""
    rng = np.random.default_rng(11)
    found = []
    for seed in range(30):
        common = rng.random((96, 9)) < 0.5
        values = (np.where(common, rng.random((96, 1)), rng.random((96, 9))) < 0.5).astype(float)
        found.append(compare(Objective("x", (curve(values),)), repeats=150, resamples=40, seed=seed))
    for figures in ([c.contrast for c in found], [c.selected.honest for c in found]):
        spread = np.std([one.value for one in figures], ddof=1)
        assert np.mean([one.high - one.low for one in figures]) > 2 * 1.96 * 0.8 * spread
    assert np.mean([c.selected.honest.low <= 0.5 <= c.selected.honest.high for c in found]) > 0.85


def test_what_a_single_node_gains_is_never_certain() -> None:
    values = coins(np.full(9, 0.3), 96, 4)
    found = compare(Objective("x", (curve(values),)), [values[:, 4]], chosen=0.75, repeats=20, resamples=20)
    assert found.developed is not None
    assert found.developed.minus_plain is not None
    gained = found.developed.minus_plain
    assert (gained.low, gained.high) == pytest.approx(stats.tango(0, 0, 96))
    assert gained.p == 1


def test_a_node_chosen_elsewhere_is_scored_and_contrasted_here() -> None:
    values = coins(LAMS, 400, 9)
    found = compare(Objective("x", (curve(values),)), [values[:, 4]], chosen=0.75, repeats=500, resamples=300)
    assert found.developed is not None
    assert found.developed.score.value == pytest.approx(values[:, 5].mean())
    assert found.developed.minus_plain is not None
    assert found.developed.minus_plain.value == pytest.approx(values[:, 5].mean() - values[:, 4].mean())
    assert found.developed.minus_plain.low > 0
    assert found.developed.minus_replay.value == pytest.approx(values[:, 5].mean() - found.replay.honest.value)
    assert found.replay.claims.mean() == pytest.approx(found.replay.claimed)
    without = compare(Objective("x", (curve(values),)), [values[:, 4]], repeats=500, resamples=300)
    assert without.developed is None
    assert without.replay.honest == found.replay.honest, "looking at it changes nothing else"
