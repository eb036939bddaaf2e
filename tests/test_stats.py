"""Statistics: published examples, identities, values worked out by hand, and coverage."""

import gc
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from m3_exp.stats import estimate, family, joint, resampling
from m3_exp.stats.estimate import EVEN, Array, Mean, Shape, VarianceSource, even_shares, influences, mean, of_items
from m3_exp.stats.family import best_of, detectable, holm, max_t
from m3_exp.stats.joint import Unit
from m3_exp.stats.paired import mid_p, paired, spread, tango
from m3_exp.stats.roots import root
from tests.curved import contrast
from tests.oracles import selection_price

Z = float(scipy_stats.norm.ppf(0.975))


def verdicts(right: int, n: int) -> Array:
    return (np.arange(n) < right).astype(float)


# ----------------------------------------------------------------------------------------------------------- roots

CROSSING: list[Callable[[float, float], float]] = [
    lambda x, c: math.tanh(5 * x - c),
    lambda x, c: (x - c) ** 3,
    lambda x, c: x**3 - c * x * x + x - c / 3,
    lambda x, c: math.exp(x) - math.exp(c),
    lambda x, c: -1.0 if x < c else 1.0,
    lambda x, c: 1 / (x - c) if x != c else 0.0,
    lambda x, c: round(50 * (x - c)),
    lambda x, c: math.atan(1e6 * (x - c)),
]


@pytest.mark.parametrize("crossing", CROSSING)
@pytest.mark.parametrize("xtol", [1e-6, 2e-12, 1e-16])
def test_a_root_is_scipys_to_the_last_bit(crossing: Callable[[float, float], float], xtol: float) -> None:
    rng = np.random.default_rng(3)
    for low, high, c in rng.uniform((-3, 0, -1), (0, 3, 1), (100, 3)).tolist():
        asked: dict[Callable[..., float], list[float]] = {root: [], optimize.brentq: []}
        found = []
        for solve, points in asked.items():

            def at(x: float, c: float = c, points: list[float] = points) -> float:
                points.append(x)
                return crossing(x, c)

            try:
                found.append(solve(at, low, high, xtol=xtol))
            except (ValueError, RuntimeError):  # one sign, or no root in 100 steps
                found.append(None)
        assert found[0] == found[1]
        assert asked[root] == asked[optimize.brentq]  # every step as well


# ------------------------------------------------------------------------------------------------- two proportions


def _coverage_of_tango(n: int, first: float, lost: float) -> float:
    """Exact: the probability over all outcomes that the interval holds the true difference."""
    covered = 0.0
    for discordant in range(n + 1):
        outer = scipy_stats.binom.pmf(discordant, n, first + lost)
        if outer < 1e-9:
            continue
        for gained in range(discordant + 1):
            inner = outer * scipy_stats.binom.pmf(gained, discordant, first / (first + lost))
            if inner < 1e-10:
                continue
            low, high = tango(gained, discordant - gained, n)
            covered += inner * (low <= first - lost <= high)
    return float(covered)


@pytest.mark.parametrize(("n", "gained", "lost"), [(96, 0.10, 0.05), (164, 0.02, 0.02), (164, 0.08, 0.03)])
def test_tango_covers_between_93_and_97(n: int, gained: float, lost: float) -> None:
    assert 0.93 <= _coverage_of_tango(n, gained, lost) <= 0.97


def test_tango_is_antisymmetric_and_certain_only_where_it_must_be() -> None:
    low, high = tango(9, 3, 50)
    assert tango(3, 9, 50) == pytest.approx((-high, -low), abs=1e-9)
    assert low < 6 / 50 < high
    low, high = tango(0, 0, 40)
    assert low == pytest.approx(-high)
    assert 0.05 < high < 0.15
    assert tango(5, 0, 5)[1] == 1.0
    with pytest.raises(ValueError, match="impossible"):
        tango(4, 4, 7)


def test_tango_and_mid_p_give_the_literatures_example() -> None:
    """Airway hyper-responsiveness around a transplantation: 1 and 7 of 21 discordant (Fagerland et al. 2014)."""
    assert tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=0.0006)
    assert mid_p(1, 7) == pytest.approx(0.039, abs=0.0006)
    found = paired(np.repeat([1, 0, 0], [1, 7, 13]).astype(float), np.repeat([0, 1, 0], [1, 7, 13]).astype(float))
    assert (found.low, found.high) == tango(1, 7, 21)
    assert (found.p, found.n, found.moved) == (mid_p(1, 7), 21, 8)


def test_mid_p_by_hand_and_from_the_exact_test() -> None:
    assert mid_p(0, 0) == 1.0
    assert mid_p(5, 5) == pytest.approx(1.0)
    assert mid_p(0, 5) == pytest.approx(2 / 32 - 1 / 32)
    assert mid_p(1, 5) == pytest.approx((2 * 7 - 6) / 64)
    for gained, lost in ((3, 11), (0, 9), (20, 40)):
        exact = mcnemar([[10, gained], [lost, 10]], exact=True).pvalue
        assert mid_p(gained, lost) == pytest.approx(exact - scipy_stats.binom.pmf(gained, gained + lost, 0.5))


def test_the_mid_p_test_keeps_its_level() -> None:
    """Given the number of discordant pairs it may exceed 5 % a little (up to 7.7 %); over their numbers it does not."""
    errors = []
    for n in range(1, 60):
        k = np.arange(n + 1)
        rejected = [mid_p(int(x), int(n - x)) < 0.05 for x in k]
        errors.append(float(scipy_stats.binom.pmf(k, n, 0.5)[rejected].sum()))
    assert max(errors) < 0.08
    for expected in (5, 10, 20, 30):
        shares = scipy_stats.poisson.pmf(np.arange(1, 60), expected)
        assert shares @ errors < 0.052


# ---------------------------------------------------------------------------------------------------------- a mean


@pytest.mark.parametrize(("right", "n"), [(0, 20), (1, 96), (19, 20), (48, 96), (1318, 1319)])
def test_the_interval_of_verdicts_is_agresti_and_coulls(right: int, n: int) -> None:
    found = mean(verdicts(right, n))
    low, high = proportion_confint(right, n, method="agresti_coull")
    assert (found.low, found.high) == pytest.approx((max(0.0, low), min(1.0, high)), abs=1e-12)
    share = estimate.proportion(right / n, n)
    assert (share.low, share.high) == pytest.approx((found.low, found.high), abs=1e-12)


def test_the_interval_of_a_difference_of_verdicts_is_bonett_and_prices() -> None:
    """One pseudo-item in each cell at 95 % in their paper (2012, with z^2 / 4 rounded to 1): at z = 2 it is exact."""
    level = 2 * float(scipy_stats.norm.cdf(2)) - 1
    for gained, lost, n in ((1, 7, 21), (0, 0, 40), (12, 3, 96), (5, 0, 5)):
        p12, p21 = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
        middle = p12 - p21
        half = 2 * math.sqrt((p12 + p21 - middle**2) / (n + 2))
        d = np.repeat([1.0, -1.0, 0.0], [gained, lost, n - gained - lost])
        found = of_items(d, signed=True).ends(level)
        assert found == pytest.approx((max(-1.0, middle - half), min(1.0, middle + half)), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 20, 96, 1319])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95, 1.0])
def test_no_interval_has_width_0_or_leaves_the_range(n: int, share: float) -> None:
    """20 items, 95 % right: 95.0 [85.6, 104.4] was printed."""
    values = verdicts(round(share * n), n)
    for found in (mean(values), mean(values / 4 + 0.7 * values)):
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.high - found.low > 1 / (n + 4)
    for other in (np.zeros(n), np.ones(n), values):
        gain = paired(values, other)
        assert -1 <= gain.low <= gain.value <= gain.high <= 1
        assert gain.high - gain.low > 1 / (n + 4)


def test_one_item_that_is_right_says_little() -> None:
    """50 % was printed for a single item that is right everywhere."""
    found = mean(np.ones(1))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low < 0.25
    with pytest.raises(ValueError, match="no item is scored"):
        mean(np.empty(0))


@pytest.mark.parametrize(("n", "p"), [(24, 0.5), (96, 0.3), (164, 0.02), (164, 0.5), (1319, 0.02)])
@pytest.mark.parametrize("draws", [1, 3])
def test_the_interval_of_a_mean_covers(n: int, p: float, draws: int) -> None:
    """Means over items that are themselves means over draws of different correlation. Agresti and Coull's covers more
    at a score that hardly anybody reaches.
    """
    generator = np.random.default_rng(3)
    hits = 0
    for _ in range(1500):
        chance = generator.beta(4 * p, 4 * (1 - p), n)
        values = generator.binomial(draws, chance) / draws
        found = mean(values)
        hits += found.low <= p <= found.high
    assert hits / 1500 >= 0.93 - 0.012  # two standard errors of 1500 trials
    if p >= 0.3:
        assert hits / 1500 <= 0.97 + 0.009


def test_fractional_differences_of_few_items_have_wide_intervals() -> None:
    """0.3 to 1 on 2 % of 164 items: resampling covered 80 to 90 %."""
    generator = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        sizes = generator.uniform(0.3, 1, 164) * np.where(generator.random(164) < 0.8, 1, -1)
        d = np.where(generator.random(164) < 0.02, sizes, 0.0)
        found = paired(np.maximum(d, 0), np.maximum(-d, 0))
        assert found.low <= found.value <= found.high
        hits += found.low <= 0.02 * 0.65 * 0.6 <= found.high
    assert hits / 400 > 0.93


@pytest.mark.parametrize(
    "others", [(), (VarianceSource(1e-4, 2),), (VarianceSource(1e-4), VarianceSource(4e-4, 5))], ids=len
)
@pytest.mark.parametrize("bias", [0.0, 0.01])
@pytest.mark.parametrize("missing", [0.0, 0.02])
def test_a_p_value_is_the_level_at_which_the_interval_touches_0(
    others: Sequence[VarianceSource], bias: float, missing: float
) -> None:
    generator = np.random.default_rng(0)
    for gain in (0.04, 0.1, -0.15, 0.2):
        d = np.clip(generator.normal(gain, 0.4, 164), -1, 1)
        found = Mean(
            float(d.mean()), float(d.var(ddof=1)) / 164, 164, (-1.0, 1.0), tuple(others), (bias, bias), missing
        )
        p = found.p_value()
        if p == 1.0:
            assert found.ends(1e-5)[0] <= 0 <= found.ends(1e-5)[1]
            continue
        low, high = found.ends(1 - p)
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-7)
        for level in (1 - 1.01 * p, 1 - 0.99 * p):
            low, high = found.ends(level)
            assert (low <= 0 <= high) == (level > 1 - p)


@pytest.mark.parametrize("freedom", range(1, 31))
def test_any_number_of_masks_has_a_p_value(freedom: int) -> None:
    """At 4, 6 and 10 masks Student's quantile overflowed to minus infinity far out: p was 0 for any difference."""
    found = Mean(0.01, 1e-4, 96, (-1.0, 1.0), (VarianceSource(1e-4, freedom),))
    assert 0.3 < found.p_value() < 1
    low, high = found.ends(1 - found.p_value())
    assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-9)
    sure = Mean(0.5, 1e-6, 10_000, (-1.0, 1.0), (VarianceSource(1e-6, freedom),))
    assert 0 < sure.p_value() < 0.01


def test_without_pseudo_items_it_would_be_students_and_walds() -> None:
    """As n grows, the interval is the textbook's: Wald's of items, and Student's where masks are all that varies."""
    n = 10**9
    wald = Mean(0.3, 1e-4, n).ends()
    assert wald == pytest.approx((0.3 - Z * 0.01, 0.3 + Z * 0.01), abs=1e-6)
    masks = Mean(0.3, 0.0, n, others=(VarianceSource(1e-4, 2),)).ends()
    t = float(scipy_stats.t.ppf(0.975, 2))
    assert masks == pytest.approx((0.3 - t * 0.01, 0.3 + t * 0.01), abs=1e-6)
    both = Mean(0.3, 1e-4, n, others=(VarianceSource(1e-4, 2),))
    assert both.critical(Z) == pytest.approx(math.hypot(Z, t) / math.sqrt(2)), "squares added: Banerjee 1961"


def test_bias_and_unscored_items_widen_to_both_sides() -> None:
    values = verdicts(50, 96)
    bare = mean(values)
    off = mean(values, bias=0.03)
    assert (off.low, off.high) == pytest.approx((bare.low - 0.03, bare.high + 0.03))
    lost = mean(values, unscored=32)
    assert (lost.low, lost.high) == pytest.approx((mean(verdicts(50, 128)).low, mean(verdicts(82, 128)).high))
    assert lost.unscored == 32
    assert "worst case of unscored items" in lost.how


@pytest.mark.parametrize(("right", "n", "unscored"), [(0, 20, 1), (20, 20, 3), (8, 8, 16), (400, 1319, 132)])
def test_unscored_items_are_all_wrong_and_then_all_right(right: int, n: int, unscored: int) -> None:
    found = mean(verdicts(right, n), unscored=unscored)
    low, _ = proportion_confint(right, n + unscored, method="agresti_coull")
    _, high = proportion_confint(right + unscored, n + unscored, method="agresti_coull")
    assert (found.low, found.high) == pytest.approx((max(0.0, low), min(1.0, high)), abs=1e-12)


def test_of_unscored_items_the_worst_is_taken_for_a_sign() -> None:
    """12 gained and none lost of 40 is a gain; with 20 more that have no score on one side it need not be."""
    a, b = verdicts(20, 40), verdicts(8, 40)
    assert paired(a, b).p == mid_p(12, 0)
    found = paired(a, b, unscored=20)
    assert found.p == 1.0
    assert found.low < -0.1
    assert found.high >= 32 / 60
    few = paired(a, b, unscored=2)
    assert (few.p, few.low) == (mid_p(12, 2), tango(12, 2, 42)[0])
    other = paired(b, a, unscored=2)
    assert (other.p, other.low, other.high) == pytest.approx((few.p, -few.high, -few.low))


# ----------------------------------------------------------------------------------------------- strata and clusters


def test_tasks_count_the_same_and_their_variance_is_the_sum_of_theirs() -> None:
    generator = np.random.default_rng(0)
    strata = ["a"] * 10 + ["b"] * 40
    values = generator.random(50)
    shape = Shape(even_shares(strata), strata)
    found = mean(values, shape)
    assert found.value == pytest.approx((values[:10].mean() + values[10:].mean()) / 2)
    variance = (values[:10].var(ddof=1) / 10 + values[10:].var(ddof=1) / 40) / 4
    parts = influences(values, shape)
    assert float(parts @ parts) == pytest.approx(variance)
    n = 1 / (10 * 0.05**2 + 40 * 0.0125**2)
    assert estimate.units(50, shape) == pytest.approx(n)
    assert (found.low, found.high) == pytest.approx(Mean(found.value, variance, n).ends())


def test_items_of_one_problem_are_one_item() -> None:
    """Each problem asked twice with one outcome: the interval is that of half as many, known on as many less one."""
    half = np.random.default_rng(1).random(30)
    twice = np.repeat(half, 2)
    shape = Shape(clusters=[str(i // 2) for i in range(60)])
    found, alone = mean(twice, shape), mean(half)
    wider = (found.high - found.low) / (alone.high - alone.low)
    assert 1 <= wider <= 1.001 * scipy_stats.t.ppf(0.975, 29) / Z
    assert (found.n, found.how) == (60, "Agresti-Coull, problems as clusters")
    assert found.high - found.low > 1.3 * (mean(twice).high - mean(twice).low)


def test_resampled_and_halved_items_keep_strata_and_clusters_together() -> None:
    generator = np.random.default_rng(0)
    strata = ["a"] * 4 + ["b"] * 12
    clusters = [str(i // 2) for i in range(16)]
    shape = Shape(even_shares(strata), strata, clusters)
    for shares in (*resampling.halves(16, 200, generator, shape), resampling.resampled(16, 200, generator, shape)):
        assert shares.sum(axis=1) == pytest.approx(1)
        assert shares[:, :4].sum(axis=1) == pytest.approx(0.5)
    first, second = resampling.halves(16, 200, generator, Shape(clusters=clusters))
    assert np.all((first > 0) != (second > 0))
    assert np.all((first[:, ::2] > 0) == (first[:, 1::2] > 0))
    assert resampling.whole(16, shape) == pytest.approx(even_shares(strata)[None])


def test_contrasts_choose_their_method_and_their_items() -> None:
    ones = {str(i): float(i % 2) for i in range(40)}
    other = {str(i): float(i % 4 == 1) for i in range(5, 40)}
    found = contrast(ones, other)
    assert (found.n, found.unscored) == (35, 5)
    assert found.how == "Tango, mid-p McNemar, worst case of unscored items"
    assert found.value == pytest.approx(np.mean([ones[k] - other[k] for k in other]))
    assert contrast(ones, {k: 0.0 for k in ones}).how == "Tango, mid-p McNemar"
    halves = contrast(ones, {k: v / 2 for k, v in other.items()})
    assert halves.how.startswith("Bonett-Price")
    assert halves.low <= halves.value <= halves.high
    same = contrast(ones, ones)
    assert (same.value, same.p) == (0.0, 1.0)
    with pytest.raises(ValueError, match="no item"):
        contrast({"a": 1.0}, {"b": 1.0})


# -------------------------------------------------------------------------------------------------------------- masks


def test_what_masks_do_is_told_from_the_items_noise() -> None:
    """400 items, four masks of sd 2 points: the items' noise alone is 2.5 points a column."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        values = (generator.random((400, 4)) < 0.5 + generator.normal(0, 0.02, (1, 4))).astype(float)
        (source,) = spread(values.T)
        assert source.freedom == 3
        found.append((source.variance, source.shared))
    variance, shared = np.mean(found, axis=0)
    noise = 0.25 / 400 / 4
    assert variance == pytest.approx(noise + 0.02**2 / 4, rel=0.1)
    assert 0.7 * noise < shared <= noise, "which is in the variance over items too; never more than was seen"
    assert spread([np.zeros(400)]) == []


def test_three_masks_make_an_interval_as_wide_as_three_numbers_do() -> None:
    """Where masks are all that varies, it is Student's with 2 degrees of freedom: 2.2 times as wide as a normal one."""
    shift = np.array([[-0.1, 0.0, 0.1]])
    values = np.clip(0.5 + shift + np.zeros((100_000, 3)), 0, 1)
    (source,) = spread(values.T)
    assert math.sqrt(source.variance) == pytest.approx(0.1 / math.sqrt(3), rel=1e-3)
    found = mean(values.mean(axis=1), others=[source])
    assert found.high - 0.5 == pytest.approx(scipy_stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3), rel=1e-3)
    assert "3 masks or draws" in found.how


# ----------------------------------------------------------------------------------------------------------- families


def test_holm_by_hand_and_as_statsmodels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "collect", int)  # statsmodels collects garbage at every call: half a second here
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    for seed in range(200):
        drawn = np.random.default_rng(seed).random(1 + seed % 20).round(seed % 5 + 1)  # with ties
        assert holm(drawn) == list(multipletests(drawn, method="holm")[1])


def test_the_maximum_of_comparisons_that_share_their_items_is_no_larger_than_bonferroni() -> None:
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(500, 1))
    p = [0.02, 0.2, 0.9, 1.0]
    independent = max_t(p, generator.normal(size=(500, 4)))
    alike = max_t(p, shared + 0.1 * generator.normal(size=(500, 4)))
    sidak = [1 - (1 - q) ** 4 for q in p]
    assert independent == pytest.approx(sidak, abs=0.02)
    assert np.all(np.array(p) <= np.array(alike))
    assert np.all(np.array(alike) <= np.minimum(1, 4 * np.array(p)) + 1e-12)
    assert alike[0] < 0.6 * independent[0]
    assert max_t([1e-9, 0.5], shared + np.zeros((500, 2)))[0] == pytest.approx(2e-9), "far out it is Bonferroni's"
    assert max_t([], np.empty((0, 0))) == []
    assert max_t([1.0, 1.0], np.zeros((5, 2))) == [1.0, 1.0], "nothing varies"


@pytest.mark.slow
def test_the_maximum_keeps_its_level() -> None:
    """Seven comparisons of correlation 0.8 without any difference: one is called real in 5 % of sets."""
    generator = np.random.default_rng(1)
    wrong = 0
    for _ in range(300):
        parts = math.sqrt(0.8) * generator.normal(size=(200, 1)) + math.sqrt(0.2) * generator.normal(size=(200, 7))
        p = [2 * float(scipy_stats.norm.sf(abs(z))) for z in parts.sum(axis=0) / np.sqrt((parts**2).sum(axis=0))]
        wrong += min(max_t(p, parts)) < 0.05
    assert scipy_stats.binom.ppf(1e-3, 300, 0.04) <= wrong <= scipy_stats.binom.isf(1e-4, 300, 0.05)


@pytest.mark.parametrize("count", [1, 9])
def test_what_can_be_detected_is_found_with_the_power_it_names(count: int) -> None:
    """At the level that is used: of one comparison at 5 %, of nine at the first step of Holm."""
    n, psi = 400, 0.2
    generator = np.random.default_rng(1)
    seen = paired(np.repeat([1.0, 0.0, 0.0], [40, 40, 320]), np.repeat([0.0, 1.0, 0.0], [40, 40, 320]))
    d = detectable(seen, count)
    found = 0
    for _ in range(1500):
        gained, lost, _same = generator.multinomial(n, [(psi + d) / 2, (psi - d) / 2, 1 - psi])
        found += mid_p(int(gained), int(lost)) < 0.05 / count
    assert found / 1500 == pytest.approx(family.POWER, abs=0.04)


def test_the_price_of_choosing_is_what_choosing_gains() -> None:
    assert best_of(7) == pytest.approx(1.352, abs=0.001)
    generator = np.random.default_rng(2)
    gains, prices = [], []
    for _ in range(300):
        shared = generator.normal(size=(200, 1))
        scores = 0.5 + 0.1 * (np.sqrt(0.6) * shared + np.sqrt(0.4) * generator.normal(size=(200, 7)))
        gains.append(scores.mean(axis=0).max() - 0.5)
        prices.append(selection_price(scores))
    assert np.mean(prices) == pytest.approx(np.mean(gains), rel=0.1)


# -------------------------------------------------------------------------------------------------- several benchmarks


def test_the_mean_over_benchmarks_of_shares_of_a_parent() -> None:
    """Its error by the delta method is that of many repetitions, and the interval holds the truth."""
    generator = np.random.default_rng(0)
    values, ses, inside = [], [], 0
    for _ in range(600):
        parents = [generator.random(n) < 0.6 for n in (100, 200)]
        models = [np.where(generator.random(len(p)) < 0.7, p, generator.random(len(p)) < 0.3) for p in parents]
        measures = [Unit(len(p), p.astype(float)) for p in parents]
        found = joint.mean_of([m.astype(float) for m in models], measures)
        truth = (0.7 * 0.6 + 0.3 * 0.3) / 0.6
        low, high = found.ends()
        values.append(found.value)
        ses.append(math.sqrt(found.items))
        inside += low <= truth <= high
    assert np.mean(ses) == pytest.approx(np.std(values), rel=0.1)
    assert inside >= scipy_stats.binom.ppf(1e-4, 600, 0.95)


def test_the_least_of_three_equal_benchmarks_is_held() -> None:
    """Truth 50.0 for all: the least of three estimates lies below it, by 5.6 points at n = 24, and so did its interval
    (60 to 83 %).
    """
    generator = np.random.default_rng(0)
    inside, values = 0, []
    for _ in range(600):
        models = [(generator.random(24) < 0.5).astype(float) for _ in range(3)]
        found = joint.least_of(models, [Unit(24) for _ in models])
        inside += found.low <= 0.5 <= found.high
        values.append(found.value)
    assert np.mean(values) < 0.45
    assert inside >= scipy_stats.binom.ppf(1e-4, 600, 0.95)
    one = joint.least_of([verdicts(12, 24)], [Unit(24)])
    alone = mean(verdicts(12, 24))
    assert (one.low, one.high) == pytest.approx((alone.low, alone.high))


def test_a_mean_of_one_benchmark_without_a_parent_is_the_score() -> None:
    values = np.random.default_rng(0).random(50)
    found, alone = joint.mean_of([values], [Unit(50)]), of_items(values, EVEN)
    assert (found.value, *found.ends()) == pytest.approx((alone.value, *alone.ends()))
