"""Three experts: weights over the lattice, bends, sampled points, and the edges, which are the curves of two."""

import numpy as np
import pytest
from scipy import special, stats

from m3_exp.stats import simplex
from m3_exp.stats.estimate import Array
from m3_exp.stats.expectation import ALPHAS, Sampled, draw_sd, expectation, unsure
from m3_exp.stats.lambdas import Curve, weights
from m3_exp.stats.simplex import Surface, lattice, masses, quantiles


def ids(n: int) -> tuple[str, ...]:
    return tuple(map(str, range(n)))


def surface(values: Array, sampled: Sampled | None = None) -> Surface:
    order = {3: 1, 6: 2, 15: 4, 45: 8}[values.shape[1]]
    return Surface(ids(len(values)), lattice(order).points, values, sampled)


def random_surface(order: int, n: int = 5, seed: int = 0) -> Surface:
    return surface(np.random.default_rng(seed).random((n, len(lattice(order).points))))


def test_a_lattice_is_nested_and_its_triangles_fill_the_simplex() -> None:
    sizes = [len(lattice(order).points) for order in (1, 2, 4, 8, 16)]
    assert sizes == [3, 6, 15, 45, 153]
    for smaller, larger in ((1, 2), (2, 4), (4, 8), (8, 16)):
        inside = {tuple(p) for p in lattice(larger).points}
        assert {tuple(p) for p in lattice(smaller).points} <= inside
    for order in (1, 2, 4):
        corners = lattice(order).points[lattice(order).corners]
        areas = np.abs(np.linalg.det(corners))
        assert areas == pytest.approx(np.full(order**2, 1 / order**2))


@pytest.mark.parametrize("order", [1, 2, 4])
def test_hats_are_one_at_their_node_and_linear_between(order: int) -> None:
    one = random_surface(order)
    assert np.allclose(one.hats(one.points), np.eye(len(one.points)), atol=1e-12)
    at = np.random.default_rng(1).dirichlet([0.5] * 3, 2000)
    hats = one.hats(at)
    assert hats.min() >= 0
    assert hats.sum(axis=1) == pytest.approx(np.ones(len(at)))
    assert hats @ one.points == pytest.approx(at)  # a linear function is reproduced


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("order", [1, 2, 4, 16])
def test_weights_keep_what_symmetry_and_moments_say(order: int, alpha: float) -> None:
    """E[share] is 1/3, and E[share_a share_b] is (alpha + [a = b]) / (3 (3 alpha + 1))."""
    every, corners = masses(order, alpha), lattice(order).points[lattice(order).corners]
    assert every.sum() == pytest.approx(1.0, abs=1e-9)
    first = np.einsum("tab,tac->c", every, corners)
    second = np.einsum("tab,tac,tbd->cd", every, corners, corners)
    assert first == pytest.approx(np.full(3, 1 / 3), abs=1e-9)
    assert second == pytest.approx((alpha + np.eye(3)) / (3 * (3 * alpha + 1)), abs=1e-9)
    at = lattice(order).points
    shares = np.zeros(len(at))
    np.add.at(shares, lattice(order).corners, every.sum(axis=2))
    turned = [int(np.argmin(np.abs(at - p[[1, 2, 0]]).sum(axis=1))) for p in at]
    assert shares[turned] == pytest.approx(shares, abs=1e-9)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_weights_agree_with_a_million_draws(alpha: float) -> None:
    one = random_surface(4)
    hats = one.hats(np.random.default_rng(7).dirichlet([alpha] * 3, 1_000_000))
    errors = (hats.mean(axis=0) - one.weights(alpha)) / (hats.std(axis=0) / 1000)
    assert np.abs(errors).max() < 4.5
    assert hats.T @ hats / 1e6 == pytest.approx(one.second_moments(alpha), abs=2e-3)


@pytest.mark.parametrize(("alpha", "node"), [(0.5, 0), (1.0, 4), (2.0, 7)])
def test_a_weight_agrees_with_numerical_integration(alpha: float, node: int) -> None:
    one = random_surface(2 if node < 6 else 4)
    constant = np.exp(special.gammaln(3 * alpha) - 3 * special.gammaln(alpha))

    nodes, sizes = np.polynomial.legendre.leggauss(200)
    half, size = (nodes + 1) / 2 * np.pi / 2, sizes / 2 * np.pi / 2
    p, q = (grid.ravel() for grid in np.meshgrid(half, half))  # x = sin^2 p takes the singular ends away
    x, left = np.sin(p) ** 2, np.cos(p) ** 2
    at = np.column_stack([x, left * np.sin(q) ** 2, left * np.cos(q) ** 2])
    density = constant * at.prod(axis=1) ** (alpha - 1) * left  # dx dy = left dx du, u = sin^2 q
    steps = np.sin(2 * p) * np.sin(2 * q) * np.outer(size, size).ravel()
    found = float((density * steps * one.hats(at)[:, node]).sum())
    assert one.weights(alpha)[node] == pytest.approx(found, abs=1e-4)


def test_the_first_share_has_its_own_exact_weights() -> None:
    """A score that is a hat function of the first share alone has the weights of Beta(alpha, 2 alpha)."""
    order, alpha = 4, 0.7
    one = random_surface(order)
    at = np.arange(order + 1) / order
    zeroth = np.diff(special.betainc(alpha, 2 * alpha, at))
    first = np.diff(special.betainc(alpha + 1, 2 * alpha, at)) / 3
    exact = np.zeros(order + 1)
    exact[:-1] += (at[1:] * zeroth - first) * order
    exact[1:] += (first - at[:-1] * zeroth) * order
    found = [one.weights(alpha)[one.points[:, 0] == share].sum() for share in at]
    assert found == pytest.approx(exact, abs=1e-12)


def test_an_edge_is_the_curve_of_two_experts() -> None:
    one = random_surface(4, n=20)
    for first, second in ((0, 1), (1, 2), (0, 2)):
        curve = one.edge(first, second)
        assert isinstance(curve, Curve)
        assert list(curve.lams) == [0, 0.25, 0.5, 0.75, 1]
        for lam in (0.0, 0.1, 0.25, 0.61, 1.0):
            at = np.zeros(3)
            at[first], at[second] = lam, 1 - lam
            assert one.items_at(at) == pytest.approx(curve.items_at(lam))


def test_no_bend_where_the_score_is_flat_and_the_exact_one_of_a_quadratic() -> None:
    at = lattice(4).points
    assert surface((at @ [0.1, 0.5, 0.9])[None]).bends == pytest.approx(0.0, abs=1e-20)
    quadratic = surface((at[:, 0] ** 2)[None])
    for alpha in (0.2, 1.0, 5.0):
        truth = (alpha + 1) / (3 * (3 * alpha + 1))
        error = float((quadratic.expected(alpha) - truth)[0])
        heights = np.sqrt(quadratic.bends) / 0.9  # of the parabolas themselves
        assert error == pytest.approx(heights @ quadratic.bumps(alpha))
        assert unsure(quadratic, {alpha: 1.0}).bias == pytest.approx(0.9 * error)


def test_sampled_points_take_the_interpolation_error_away() -> None:
    """Over many points the control variate gives the expectation of a peak that no node sees."""
    rng = np.random.default_rng(3)
    peak = np.array([0.35, 0.4, 0.25])

    def height(at: Array) -> Array:
        return np.asarray(0.3 + 0.5 * np.exp(-((at - peak) ** 2).sum(axis=1) / 0.02))

    at = np.concatenate([rng.dirichlet([alpha] * 3, 3000) for alpha in ALPHAS])
    one = surface(height(lattice(4).points)[None], Sampled(at, height(at)[None]))
    for alpha in (0.2, 1.0, 5.0):
        truth = height(rng.dirichlet([alpha] * 3, 400_000)).mean()
        alone = surface(one.values).expected(alpha)[0]
        assert one.expected(alpha)[0] == pytest.approx(truth, abs=0.004)
        assert alpha < 1 or abs(alone - truth) > 0.005


def test_the_density_ratio_is_at_most_seven_and_has_mean_one() -> None:
    at = np.concatenate([quantiles(3, alpha) for alpha in ALPHAS])
    for alpha in ALPHAS:
        ratio = simplex.density_ratio(at, alpha)
        assert ratio.max() <= 7 + 1e-9
        assert ratio.mean() == pytest.approx(1.0, abs=0.02)
    assert simplex.density_ratio(np.array([[1.0, 0.0, 0.0]]), 0.5) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("n_experts", [2, 3, 5, 8])
def test_quantile_points_stand_for_the_distribution(n_experts: int) -> None:
    for alpha in (0.2, 1.0, 5.0):
        at = quantiles(n_experts, alpha)
        assert at.sum(axis=1) == pytest.approx(np.ones(len(at)))
        for j in range(n_experts):
            test = stats.kstest(at[:, j], stats.beta(alpha, (n_experts - 1) * alpha).cdf)
            assert test.statistic < 0.03


def test_the_spread_between_draws_is_that_of_the_surface() -> None:
    at = lattice(8).points
    values = np.tile(at[:, 0], (50, 1))  # the first share itself: Beta(alpha, 2 alpha)
    for alpha in (0.2, 1.0, 5.0):
        assert draw_sd(surface(values), alpha) == pytest.approx(np.sqrt(2 / 9 / (3 * alpha + 1)), abs=1e-9)


def test_the_surface_through_all_points_passes_them_and_stays_linear() -> None:
    rng = np.random.default_rng(5)
    at = rng.dirichlet([1.0] * 3, 16)
    nodes = lattice(4).points
    slope = np.array([0.2, 0.5, 0.8])
    one = surface((nodes @ slope)[None], Sampled(at, (at @ slope + 0.1)[None]))
    along = one.refined()
    for point, score in zip(at, at @ slope + 0.1, strict=True):
        assert along.items_at(point) == pytest.approx([score])
    assert along.hats(rng.dirichlet([0.3] * 3, 500)).sum(axis=1) == pytest.approx(np.ones(500))
    flat = surface((nodes @ slope)[None], Sampled(at, (at @ slope)[None])).refined()
    where = rng.dirichlet([0.3] * 3, 500)
    assert np.array([flat.items_at(point)[0] for point in where]) == pytest.approx(where @ slope, abs=1e-6)


def test_what_is_no_lattice_is_refused() -> None:
    with pytest.raises(ValueError, match="4 nodes are no whole lattice"):
        Surface(("a",), lattice(2).points[[0, 1, 2, 5]], np.zeros((1, 4)))
    with pytest.raises(ValueError, match="ascending order"):
        Surface(("a",), lattice(1).points[::-1], np.zeros((1, 3)))
    with pytest.raises(ValueError, match="must sum to 1"):
        Surface(("a",), 2 * lattice(1).points, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="alpha=0 must be above 0"):
        masses(2, 0)


def test_alphas_outside_carry_a_bound_and_inside_a_variance() -> None:
    rng = np.random.default_rng(0)
    at = rng.dirichlet([1.0] * 3, 16)
    one = surface(rng.random((96, 15)), Sampled(at, rng.random((96, 16))))
    assert unsure(one, {7.0: 1.0}).bias > 0
    rest = unsure(one, {2.0: 1.0, 0.5: -1.0})
    assert rest.bias == 0
    assert rest.sources[0].variance > 0
    found = expectation(one, 1.0)
    assert found.low < found.value < found.high


def test_two_experts_at_order_one_are_a_straight_line() -> None:
    one = random_surface(1)
    curve = one.edge(0, 2)
    assert weights(curve.lams, 0.5) == pytest.approx([0.5, 0.5])
    assert one.weights(0.5) == pytest.approx(np.full(3, 1 / 3))
