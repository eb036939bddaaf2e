"""The shares of three experts and more: draws, nodes and sampled points, against scipy's distributions."""

import itertools
import math

import numpy as np
import pytest
from scipy import special, stats

from m3_exp.merging import mixtures, ratio, simplex
from m3_exp.merging.mixtures import Mixture
from m3_exp.types import M3Error

ALPHAS = (0.2, 0.4, 0.5, 1.0, 2.0, 3.0, 5.0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("seed", [0, 7])
def test_two_experts_get_the_lambdas_of_the_beta_rule_bit_by_bit(alpha: float, seed: int) -> None:
    for draw in range(20):
        lam = ratio.mixup(alpha, seed, draw)
        assert simplex.mixup(2, alpha, seed, draw) == (lam, 1.0 - lam)
    assert simplex.grid(2, None, seed) == [(lam, 1.0 - lam) for lam in ratio.grid(9)]
    assert simplex.sampled(2, seed, 8) == [(lam, 1.0 - lam) for lam in ratio.sampled(seed, 8)]


@pytest.mark.parametrize("n", [3, 5, 8])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_draws_follow_dirichlet(n: int, alpha: float) -> None:
    """Each share is Beta(alpha, (n - 1) alpha), two have the covariance of Dirichlet, over shifts of many seeds."""
    drawn = np.array([simplex.mixup(n, alpha, seed, 3) for seed in range(2000)])
    assert drawn.sum(axis=1) == pytest.approx(1, abs=1e-14)
    assert drawn.min() >= 0
    for share in drawn.T:
        assert stats.kstest(share, stats.beta(alpha, (n - 1) * alpha).cdf).pvalue > 1e-3
    expected = -1 / n**2 / (n * alpha + 1)
    for one, other in itertools.combinations(drawn.T, 2):
        parts = (one - 1 / n) * (other - 1 / n)
        assert abs(parts.mean() - expected) < 4 * parts.std() / math.sqrt(len(parts))


def test_few_draws_are_nearer_to_the_mean_than_independent_ones() -> None:
    drawn = np.array([[simplex.mixup(3, 0.5, seed, k) for k in range(16)] for seed in range(200)])
    independent = np.random.default_rng(0).dirichlet([0.5] * 3, (200, 16))
    spread, usual = drawn.mean(axis=1).std(axis=0), independent.mean(axis=1).std(axis=0)
    assert (spread < 0.6 * usual).all()


def test_a_draw_is_what_its_hashes_say() -> None:
    """Written out for three experts: the first share in base 2, the second in base 3, each with its own shift."""
    shifts = ratio.uniform(4, "mixup", 0.5), ratio.uniform(4, "mixup", 0.5, 1)
    first = special.betaincinv(0.5, 1.0, (shifts[0] + 1 / 4 + 1 / 2) % 1)  # 3 is 11 in base 2
    second = (1 - first) * special.betaincinv(0.5, 0.5, (shifts[1] + 1 / 9) % 1)  # and 10 in base 3
    assert simplex.mixup(3, 0.5, 4, 3) == pytest.approx((first, second, 1 - first - second), rel=1e-12)


@pytest.mark.parametrize(("small", "large"), [(3, 6), (6, 15), (15, 45), (45, 153)])
def test_lattices_are_nested_triangles(small: int, large: int) -> None:
    inner, outer = simplex.grid(3, small, 0), simplex.grid(3, large, 0)
    assert len(set(inner)) == small
    assert set(inner) < set(outer)
    assert all(math.fsum(point) == 1 and min(point) >= 0 for point in outer)
    assert {(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)} <= set(inner)
    assert outer[0] == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("n", [4, 5, 8])
def test_designs_hold_corners_edges_and_the_centre_and_are_nested(n: int) -> None:
    least = 1 + n + n * (n - 1) // 2
    whole = simplex.grid(n, None, 0)
    assert len(whole) == least
    assert sorted(point for point in whole if max(point) == 1) == sorted(map(tuple, np.eye(n)))
    assert sum(sorted(point)[-2:] == [0.5, 0.5] for point in whole) == n * (n - 1) // 2
    assert (1 / n,) * n in whole
    more, most = simplex.grid(n, least + 8, 0), simplex.grid(n, least + 16, 0)
    assert most[: least + 8] == more
    assert more[:least] == whole
    inside = np.array(most[least:])
    assert inside.sum(axis=1) == pytest.approx(1, abs=1e-14)
    assert inside.min() > 0
    assert simplex.grid(n, least + 8, 1)[least:] != more[least:]


def test_points_of_a_design_are_uniform_on_the_simplex() -> None:
    points = np.array([point for seed in range(60) for point in simplex.grid(4, 11 + 16, seed)[11:]])
    for share in points.T:
        assert stats.kstest(share, stats.beta(1, 3).cdf).pvalue > 1e-3


def test_sampled_points_come_from_the_mixture_of_the_papers_alphas() -> None:
    points = np.array([simplex.sampled(3, seed, 4) for seed in range(250)]).reshape(-1, 3)
    for share in points.T:
        made = stats.kstest(share, lambda x: np.mean([special.betainc(a, 2 * a, x) for a in ALPHAS], axis=0))
        assert made.pvalue > 1e-3
    assert simplex.sampled(3, 5, 16)[:8] == simplex.sampled(3, 5, 8)
    assert len(set(simplex.sampled(5, 5, 32))) == 32


@pytest.mark.parametrize("base", [2, 3, 5])
def test_a_scrambled_sequence_has_one_number_in_each_stratum(base: int) -> None:
    for power in (1, 2):
        made = {int(simplex._scrambled(3, k, base) * base**power) for k in range(base**power)}
        assert made == set(range(base**power))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (lambda: simplex.grid(3, 9, 0), r"nodes=9 is not a size .* give 3, 6, 15, 45 or 153"),
        (lambda: simplex.grid(4, 12, 0), r"nodes=12 is not a size .* give 11 .*, 15, 19, 27"),
        (lambda: simplex.grid(2, 15, 0), r"nodes=15 .* give 3, 5, 9"),
        (lambda: simplex.sampled(3, 0, 5), r"sampled=5 .* give 0, 4, 8, 16 or 32"),
        (lambda: simplex.mixup(9, 1.0, 0, 0), r"a mixture of 9 experts: from 2 to 8"),
        (lambda: simplex.mixup(3, 0.0, 0, 0), r"alpha=0.0 is not a Beta parameter"),
        (lambda: mixtures.fixed(3, seed=0, lam=0.5), r"there are 3: give ratio.weights=\[0.5,0.25,0.25\]"),
        (lambda: Mixture((0.5, 0.2, 0.2), draw=0, sampled=True), r"those of all experts must sum to 1"),
    ],
)
def test_what_no_mixture_can_be_is_refused(asked: object, says: str) -> None:
    with pytest.raises(M3Error, match=says):
        asked()  # type: ignore[operator]
