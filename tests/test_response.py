"""The response engine against simulation, and its algebra."""

import itertools

import numpy as np
import pytest
from scipy import integrate, special, stats

from m3_exp.merging.ratio import grid
from m3_exp.stats.lambdas import (
    Curve,
    draw_sd,
    hats,
    interpolation_error,
    second_moments,
    weights,
)
from m3_exp.reporting.stats import mean_interval, paired

ALPHAS = [0.2, 0.4, 0.5, 1, 2, 3, 5]
NODES = [np.array(grid(9)), np.array(grid(17)), np.array([0.0, 0.3, 1.0])]


def curve(
    values: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", lams: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> Curve:
    return Curve(tuple(str(i) for i in range(len(values))), lams, values)


@pytest.mark.parametrize("lams", NODES, ids=lambda lams: f"{len(lams)} nodes")
@pytest.mark.parametrize("alpha", ALPHAS)
class TestWeights:
    def test_they_are_the_expectations_of_the_hats(self, alpha: float, lams: np.ndarray) -> None:
        draws = stats.beta.ppf((np.arange(200_000) + 0.5) / 200_000, alpha, alpha)
        seen = hats(lams, draws)
        assert weights(lams, alpha) == pytest.approx(seen.mean(axis=0), abs=2e-5)
        assert second_moments(lams, alpha) == pytest.approx(seen.T @ seen / len(draws), abs=2e-5)

    def test_they_sum_to_one_and_are_symmetric(self, alpha: float, lams: np.ndarray) -> None:
        w = weights(lams, alpha)
        assert w.min() >= 0
        assert w.sum() == pytest.approx(1, abs=1e-12)
        assert second_moments(lams, alpha).sum(axis=1) == pytest.approx(w, abs=1e-12)
        assert weights(1 - lams[::-1], alpha)[::-1] == pytest.approx(w, abs=1e-12)

    def test_a_linear_score_is_met_exactly(self, alpha: float, lams: np.ndarray) -> None:
        assert weights(lams, alpha) @ (3 * lams + 1) == pytest.approx(3 * 0.5 + 1)


def test_a_piecewise_linear_curve_agrees_with_numerical_integration() -> None:
    lams = np.array(grid(9))
    heights = np.random.default_rng(0).random(9)
    for alpha in (0.5, 1, 3):
        exact = sum(
            integrate.quad(lambda x, a=alpha: np.interp(x, lams, heights) * stats.beta.pdf(x, a, a), low, high)[0]
            for low, high in itertools.pairwise(lams)
        )
        assert weights(lams, alpha) @ heights == pytest.approx(exact, abs=1e-7)


def test_at_a_node_and_between() -> None:
    found = curve(np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]), np.array([0.0, 0.5, 1.0]))
    assert list(found.items_at(0.5)) == [1.0, 1.0]
    assert list(found.items_at(0.25)) == [0.5, 1.0]
    assert found.at(1.0) == 0.0


def test_the_sd_between_draws_is_free_of_the_items_noise() -> None:
    """Items whose chance is the same at every lambda: no spread between draws, however noisy they are."""
    lams = np.array(grid(9))
    generator = np.random.default_rng(1)
    flat = [draw_sd(curve((generator.random((400, 9)) < 0.5) * 1.0, lams), 0.5) for _ in range(200)]
    naive = [
        np.sqrt(v @ (second_moments(lams, 0.5) - np.outer(weights(lams, 0.5), weights(lams, 0.5))) @ v)
        for v in ((generator.random((400, 9)) < 0.5).mean(axis=0) for _ in range(200))
    ]
    assert np.mean(np.square(flat)) < 0.6 * np.mean(np.square(naive))
    sloped = [draw_sd(curve((generator.random((400, 9)) < lams) * 1.0, lams), 1.0) for _ in range(200)]
    assert np.mean(sloped) == pytest.approx(np.sqrt(1 / 12), rel=0.02)


def test_the_interpolation_error_sees_a_kink_and_not_a_line() -> None:
    lams = np.array(grid(17))
    line = np.tile(lams, (50, 1))
    assert interpolation_error(curve(line, lams), 1) == 0.0
    comb = np.tile((np.arange(17) % 2).astype(float), (50, 1))
    assert interpolation_error(curve(comb, lams), 1) == pytest.approx(float(weights(lams, 1)[1::2].sum()))


@pytest.mark.parametrize("lams", [[0.1, 1.0], [0.0, 0.9], [0.0, 0.5, 0.5, 1.0]])
def test_nodes_that_make_no_curve_are_refused(lams: list[float]) -> None:
    with pytest.raises(ValueError, match="nodes must"):
        curve(np.zeros((2, len(lams))), np.array(lams))


# -------------------------------------------------------------------------------------- against a known population

HEIGHTS = np.array([0.75, 0.74, 0.71, 0.67, 0.42, 0.05, 0.02, 0.01, 0.0])


def sampled(seed: int, n: int = 96) -> Curve:
    """n items of a population whose score is HEIGHTS at the nodes: each is right up to a place of its own."""
    places = np.random.default_rng(seed).random((n, 1))
    return curve((places < HEIGHTS).astype(float), np.array(grid(9)))


@pytest.mark.parametrize("alpha", [0.2, 1, 5])
def test_the_interval_of_an_expectation_covers_the_populations(alpha: float) -> None:
    truth = float(weights(np.array(grid(9)), alpha) @ HEIGHTS)
    inside = []
    for seed in range(1_000):
        low, high = mean_interval(sampled(seed).expected(alpha))
        inside.append(low <= truth <= high)
    assert 0.93 < np.mean(inside) < 0.97


def test_the_interval_of_a_contrast_between_alphas_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3_exp.reporting.stats._RESAMPLES", 999)
    lams = np.array(grid(9))
    truth = float((weights(lams, 5) - weights(lams, 0.2)) @ HEIGHTS)
    inside = []
    for seed in range(400):
        one = sampled(seed)
        found = paired(one.expected(5), one.expected(0.2), seed=seed)
        inside.append(found.low <= truth <= found.high)
    assert 0.92 < np.mean(inside) < 0.98


@pytest.mark.parametrize("alpha", [0.2, 1, 5])
def test_expectation_and_sd_are_those_of_simulated_draws(alpha: float) -> None:
    lams, draws = np.array(grid(9)), np.random.default_rng(0).beta(alpha, alpha, 200_000)
    scores = np.interp(draws, lams, HEIGHTS)
    found = [sampled(seed) for seed in range(300)]
    assert np.mean([one.expected(alpha).mean() for one in found]) == pytest.approx(scores.mean(), abs=0.008)
    assert np.sqrt(np.mean([draw_sd(one, alpha) ** 2 for one in found])) == pytest.approx(scores.std(), abs=0.008)


@pytest.mark.parametrize("alpha", [0.5, 1, 3])
def test_the_interpolation_error_of_a_smooth_curve_is_not_hidden_by_bends_that_cancel(alpha: float) -> None:
    """A logistic score: from 17 nodes on what is stated bounds the real error, at 9 it is of its size."""
    quantiles = stats.beta.ppf((np.arange(100_000) + 0.5) / 100_000, alpha, alpha)
    exact = float(special.expit(12 * (quantiles - 0.3)).mean())
    for size in (9, 17, 33):
        lams = np.array(grid(size))
        known = curve(np.tile(special.expit(12 * (lams - 0.3)), (3, 1)), lams)
        off, stated = abs(float(known.expected(alpha).mean()) - exact), interpolation_error(known, alpha)
        assert stated is not None
        assert off < (2.5 if size == 9 else 1) * stated
