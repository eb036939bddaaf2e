"""PDR and its differences: closed form, published values, coverage, degenerate data, missing items."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, special, stats

from m3_exp.stats import ratio
from m3_exp.stats.ratio import Cells, Ratio, Scores, drop, drop_difference, restricted

Array = NDArray[np.float64]
Z = float(special.ndtri(0.975))


def scores(both: int, lost: int, gained: int, neither: int) -> Scores:
    """Return 0/1 scores with these numbers of items."""
    counts = [both, lost, gained, neither]
    return Scores(np.repeat([1.0, 1.0, 0.0, 0.0], counts), np.repeat([1.0, 0.0, 1.0, 0.0], counts))


def pdr(both: int, lost: int, gained: int, neither: int, *, level: float = 0.95, missing: int = 0) -> Ratio:
    found = scores(both, lost, gained, neither)
    return drop(found.clean, found.attacked, level=level, missing=missing)


@dataclass(frozen=True)
class Population:
    """Clean and attacked accuracy, and the correlation of the latent scores (as in the audit's s10_pdr.py)."""

    clean: float
    attacked: float
    correlation: float

    @property
    def pdr(self) -> float:
        return 1 - self.attacked / self.clean

    def shares(self) -> list[float]:
        cut = [special.ndtri(self.clean), special.ndtri(self.attacked)]
        normal = stats.multivariate_normal([0, 0], [[1, self.correlation], [self.correlation, 1]])
        both = float(normal.cdf(cut))
        return [both, self.clean - both, self.attacked - both, 1 - self.clean - self.attacked + both]

    def draw(self, generator: np.random.Generator, n: int, draws: int) -> Scores:
        """Return means over draws that share the item and half of the rest."""
        item = generator.standard_normal((n, 1))
        sides = []
        for p in (self.clean, self.attacked):
            own = generator.standard_normal((n, 1)) + generator.standard_normal((n, draws))
            latent = math.sqrt(self.correlation) * item + math.sqrt((1 - self.correlation) / 2) * own
            sides.append((latent < special.ndtri(p)).mean(axis=1))
        return Scores(*sides)


POPULATIONS = [
    Population(*x)
    for x in (
        (0.9, 0.89, 0.97), (0.9, 0.85, 0.8), (0.9, 0.5, 0.4), (0.9, 0.05, 0.2), (0.6, 0.02, 0.2), (0.6, 0.005, 0.2),
        (0.1, 0.05, 0.5), (0.1, 0.005, 0.3), (0.9, 0.9, 0.99),
    )
]  # fmt: skip


# ------------------------------------------------------------------------------------------------ restricted maximum


def _best_by_search(theta: float, counts: Cells) -> Cells:
    """Maximise the multinomial likelihood under the constraint over two shares, without any formula."""
    n = counts.both + counts.lost + counts.gained + counts.neither

    def shares(x: Array) -> list[float]:
        right, kept = special.expit(x)  # P(right somewhere); where between its bounds P(gained) lies
        low, high = max(0.0, (theta - 1) * right / theta), theta * right / (1 + theta)
        gained = low + kept * (high - low)
        lost = theta * gained - (theta - 1) * right
        return [right - lost - gained, lost, gained, 1 - right]

    def loss(x: Array) -> float:
        values = (counts.both, counts.lost, counts.gained, counts.neither)
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip(values, shares(x), strict=True) if k) / n

    found = [
        optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-15, "maxiter": 4000})
        for start in ([0.0, 0.0], [1.0, -6.0], [1.0, 6.0])
    ]
    return Cells(*shares(min(found, key=lambda x: float(x.fun)).x))


@pytest.mark.parametrize("theta", [0.02, 0.3, 0.95, 1.0, 1.3, 8.0])
@pytest.mark.parametrize(
    "counts", [(40, 12, 5, 30), (40, 12, 0, 30), (40, 0, 5, 30), (0, 12, 5, 3), (20, 0, 0, 4), (0, 9, 0, 2)]
)
def test_the_closed_form_is_the_restricted_maximum(theta: float, counts: tuple[int, int, int, int]) -> None:
    cells = Cells(*map(float, counts))
    found, searched = restricted(theta, cells), _best_by_search(theta, cells)
    assert found.both + found.gained == pytest.approx(theta * (found.both + found.lost))
    assert found.both + found.lost + found.gained + found.neither == pytest.approx(1)
    assert min(found.both, found.lost, found.gained, found.neither) >= -1e-15
    for name in ("both", "lost", "gained", "neither"):
        assert getattr(found, name) == pytest.approx(getattr(searched, name), abs=2e-5)


@pytest.mark.parametrize("theta", [1e-9, 0.02, 0.6, 1.0, 1.7, 1e9])
def test_graded_scores_have_the_same_moments_where_they_are_0_or_1(theta: float) -> None:
    for counts in ((40, 12, 5, 30), (40, 12, 0, 30), (20, 0, 0, 4), (0, 9, 0, 2), (0, 1, 0, 0), (7, 0, 3, 0)):
        (sample,) = ratio._samples([scores(*counts)], None, 0)
        assert sample.cells == Cells(*counts)
        (variance, third), searched = sample.moments(theta), sample._graded_moments(theta)
        assert searched[0] == pytest.approx(variance, rel=1e-6, abs=1e-12)
        assert searched[1] == pytest.approx(third, rel=1e-5, abs=1e-6 * variance**1.5)


# -------------------------------------------------------------------------------------------------- published, limits


def test_the_literatures_example() -> None:
    """Airway hyper-responsiveness (Fagerland et al. 2014): 1, 7, 1, 12; ratio 0.25 [0.065, 0.907], uncorrected.

    With the skewness corrected (and n / (n - 1), which we leave out) ratesci has [0.0429, 0.9282].
    """
    (sample,) = ratio._samples([scores(1, 7, 1, 12)], None, 0)
    for theta, bound in ((0.0653, Z), (0.9069, -Z)):
        statistic = (2 - 8 * theta) / math.sqrt(sample.moments(theta)[0])
        assert statistic == pytest.approx(bound, abs=0.002)
    found = pdr(1, 7, 1, 12)
    assert (found.value, 1 - found.low) == (0.75, pytest.approx(0.9069, abs=5e-5))
    assert 1 - found.high == pytest.approx(0.0433, abs=5e-5)


def test_limits_by_hand() -> None:
    """Of c right items none left: theta to z^2 / c; none changed: from c / (c + z^2) to 1 + z^2 / c."""
    assert pdr(0, 60, 0, 36).low == pytest.approx(1 - Z * Z / 60)
    found = pdr(88, 0, 0, 8)
    assert (found.low, found.high) == (pytest.approx(-Z * Z / 88), pytest.approx(Z * Z / (88 + Z * Z)))


def test_exchanging_the_sides_inverts_the_ratio() -> None:
    for counts in ((30, 9, 2, 5), (0, 9, 2, 5), (30, 0, 2, 0)):
        both, lost, gained, neither = counts
        one, other = pdr(*counts), pdr(both, gained, lost, neither)
        assert (1 - one.low) * (1 - other.high) == pytest.approx(1)
        assert (1 - one.high) * (1 - other.low) == pytest.approx(1)


@pytest.mark.parametrize(
    ("clean", "attacked"),
    [
        ([1] * 10 + [0] * 10, [0] * 20),
        ([1.0] * 60 + [0.0] * 36, [0.0] * 96),
        ([1.0] * 88 + [0.0] * 8, [1.0] * 88 + [0.0] * 8),
        ([1.0] * 20, [1.0] * 20),
        ([1.0] * 20, [1.0] * 19 + [0.0]),
        ([0.5] * 20, [0.5] * 20),
        ([0.5] * 20, [0.25] * 20),
        ([1.0] * 19 + [0.9], [0.0] * 19 + [0.1]),
        ([1.0], [1.0]),
        ([1.0], [0.0]),
        ([0.2], [1.0]),
        ([0.0] * 19 + [1.0], [1.0] * 20),
    ],
)
def test_no_interval_has_width_0_or_leaves_the_possible(clean: list[float], attacked: list[float]) -> None:
    for clusters in (None, [k // 3 for k in range(len(clean))]):
        found = drop(clean, attacked, clusters=clusters)
        assert found.value == pytest.approx(1 - sum(attacked) / sum(clean))
        assert found.value is not None
        assert found.low <= found.value <= found.high <= 1
        assert found.high - found.low > 0.02
        assert found.se is not None
        assert found.se > 0
        same = drop_difference(Scores(clean, attacked), Scores(clean, attacked), clusters=clusters)
        assert (same.value, same.p) == (0, 1)
        assert same.low < -0.02 < 0.02 < same.high


def test_undefined_only_where_nothing_is_right_without_the_attack() -> None:
    found = drop([0.0, 0.0], [1.0, 0.0])
    assert (found.value, found.low, found.high, found.p, found.se) == (None, -math.inf, 1.0, None, None)
    assert found.reason == "undefined: no item is right without the attack"
    assert drop([], []).reason == "no item is scored"
    other = drop_difference(Scores([0, 0], [1, 0]), Scores([1, 0], [0, 0]), missing=1)
    assert (other.value, other.low, other.high, other.p) == (None, -math.inf, math.inf, None)
    assert pdr(1, 0, 0, 9).low > -math.inf  # one item is enough at 95 %
    assert pdr(1, 0, 0, 9, level=0.999).low == -math.inf


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in number"):
        drop([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="outside 0 to 1"):
        drop([1.0, math.nan], [1.0, 0.0])
    with pytest.raises(ValueError, match="missing is -1"):
        drop([1.0], [1.0], missing=-1)


# ----------------------------------------------------------------------------------------------------------- coverage


def _exact_coverage(population: Population, n: int) -> float:
    """Return the probability, over all outcomes in which PDR is defined, that the interval holds the true value."""
    covered = total = 0.0
    shares = population.shares()
    for both, lost, gained in itertools.product(range(n + 1), repeat=3):
        if both + lost + gained > n or both + lost == 0:
            continue
        counts = (both, lost, gained, n - both - lost - gained)
        chance = math.exp(math.lgamma(n + 1) + sum(_log_term(k, p) for k, p in zip(counts, shares, strict=True)))
        if chance < 1e-6:
            continue
        total += chance
        (sample,) = ratio._samples([scores(*counts)], None, 0)
        covered += chance * (ratio._excess(1 - population.pdr, sample, Z) <= 0)
    return covered / total


def _log_term(count: int, share: float) -> float:
    return count * math.log(share) - math.lgamma(count + 1)


@pytest.mark.parametrize("population", POPULATIONS, ids=str)
def test_the_interval_covers_at_least_93_percent(population: Population) -> None:
    """Exactly, n = 20; the interval is what the test does not reject (`..._are_an_interval_with_no_gap`)."""
    assert _exact_coverage(population, 20) >= 0.93


@pytest.mark.parametrize("population", POPULATIONS[1:7:2], ids=str)
def test_graded_scores_are_covered(population: Population) -> None:
    """200 sets of 48 items: two standard errors below 95 % are 91.9 %."""
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        (sample,) = ratio._samples([population.draw(generator, 48, draws=3)], None, 0)
        hits += not sample.total or ratio._excess(1 - population.pdr, sample, Z) <= 0
    assert hits / 200 >= 0.919


def test_the_accepted_values_are_an_interval_with_no_gap() -> None:
    generator = np.random.default_rng(2)
    for k in range(25):
        found = POPULATIONS[k % 9].draw(generator, 5 + k, draws=1 + k % 3)
        (sample,) = ratio._samples([found], None if k % 2 else [i // 2 for i in range(5 + k)], 0)
        if not sample.total:
            continue
        for z in (0.5, Z, 4.0):
            low, high = ratio._interval(sample, z)
            for u in np.linspace(0.01, 0.99, 60):
                theta = float(u / (1 - u))
                assert (ratio._excess(theta, sample, z) <= 0) == (low <= theta <= high)


def test_a_higher_level_is_wider() -> None:
    for counts in ((50, 20, 4, 22), (0, 60, 0, 36), (88, 0, 0, 8), (2, 1, 1, 90)):
        found = [pdr(*counts, level=level) for level in (0.5, 0.8, 0.95, 0.99, 0.9999)]
        assert all(a.low > b.low and a.high <= b.high for a, b in itertools.pairwise(found))


def test_clusters() -> None:
    """Labels of one item each change nothing; copies of items in clusters do not make the interval narrower."""
    one = scores(50, 20, 4, 22)
    alone = drop(one.clean, one.attacked)
    assert drop(one.clean, one.attacked, clusters=list(range(96))).low == alone.low
    twice = drop(np.repeat(one.clean, 2), np.repeat(one.attacked, 2), clusters=np.repeat(np.arange(96), 2).tolist())
    assert (twice.low, twice.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    assert twice.se == pytest.approx(alone.se)
    naive = drop(np.repeat(one.clean, 2), np.repeat(one.attacked, 2))
    assert naive.high - naive.low < 0.75 * (twice.high - twice.low)
    assert twice.how.endswith("over 96 clusters")


# -------------------------------------------------------------------------------------------------------- differences


def _pair(generator: np.random.Generator, n: int, attacked: tuple[float, float]) -> tuple[Scores, Scores]:
    """Return two models of clean accuracy 0.9 that find the same items hard."""
    item = generator.standard_normal(n)
    found = [
        [(0.6 * item + 0.8 * generator.standard_normal(n) < special.ndtri(p)).astype(float) for p in (0.9, a)]
        for a in attacked
    ]
    return Scores(*found[0]), Scores(*found[1])


@pytest.mark.slow
def test_equal_drops_are_seldom_told_apart_and_unequal_ones_often() -> None:
    """300 sets: at most 5 % + two standard errors; PDR .44 and .11 at n = 96 nearly always."""
    generator = np.random.default_rng(3)
    null = [drop_difference(*_pair(generator, 96, (0.5, 0.5))) for _ in range(300)]
    assert np.mean([x.p < 0.05 for x in null if x.p is not None]) <= 0.075
    assert np.mean([x.low <= 0 <= x.high for x in null]) >= 0.925
    told = [drop_difference(*_pair(generator, 96, (0.5, 0.8))).p for _ in range(20)]
    assert np.mean([p is not None and p < 0.01 for p in told]) >= 0.9
    spread = np.std([x.value for x in null if x.value is not None])
    assert np.mean([x.se for x in null if x.se is not None]) == pytest.approx(spread, rel=0.15)


def test_p_and_interval_say_the_same() -> None:
    generator = np.random.default_rng(4)
    for attacked in ((0.5, 0.5), (0.5, 0.7), (0.1, 0.85)):
        one, two = _pair(generator, 96, attacked)
        found = drop_difference(one, two)
        assert found.p is not None
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
        if 1e-12 < found.p < 1:
            touching = drop_difference(one, two, level=1 - found.p)
            assert min(abs(touching.low), abs(touching.high)) < 1e-4
        turned = drop_difference(two, one)
        assert turned.value is not None
        assert (turned.value, turned.low, turned.high) == (-(found.value or 0), -found.high, -found.low)
        assert turned.p == pytest.approx(found.p)


def test_p_resolves_far_below_a_millionth() -> None:
    found = drop_difference(scores(0, 90, 0, 6), scores(90, 0, 0, 6))
    assert found.p is not None
    assert 0 < found.p < 1e-12
    assert drop_difference(scores(0, 1, 0, 0), scores(1, 0, 0, 0)).p == pytest.approx(0.35, abs=0.01)


def test_few_unseen_changes_are_no_evidence() -> None:
    """Two items that only one model loses: not told apart; ten: so."""
    same = scores(88, 0, 0, 8)
    assert (drop_difference(scores(86, 2, 0, 8), same).p or 0) > 0.15
    assert (drop_difference(scores(78, 10, 0, 8), same).p or 1) < 0.01


# ------------------------------------------------------------------------------------------------------------ missing


def test_missing_items_widen_to_all_they_could_be() -> None:
    known = pdr(50, 20, 4, 22)
    found = [pdr(50, 20, 4, 22, missing=k) for k in (0, 1, 5, 20)]
    assert found[0] == known
    assert all(x.value == known.value and x.n == 96 for x in found)
    assert all(a.low > b.low and a.high < b.high for a, b in itertools.pairwise(found))
    for completed in itertools.product(range(6), repeat=3):  # whatever five items are
        if sum(completed) <= 5:
            both, lost, gained = completed
            whole = pdr(50 + both, 20 + lost, 4 + gained, 22 + 5 - sum(completed))
            assert found[2].low <= whole.low < whole.high <= found[2].high


def test_missing_items_weaken_a_difference() -> None:
    one, two = scores(40, 40, 0, 16), scores(70, 10, 0, 16)
    found = [drop_difference(one, two, missing=k) for k in (0, 2, 10, 60)]
    assert all(a.low > b.low and a.high < b.high for a, b in itertools.pairwise(found))
    assert all((a.p or 0) < (b.p or 0) for a, b in itertools.pairwise(found))
    assert found[-1].p == 1
    for x in found:
        assert x.p is not None
        assert (x.p < 0.05) == (x.low > 0 or x.high < 0)
