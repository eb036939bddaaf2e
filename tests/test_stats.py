"""Statistics: coverage of every named interval, identities, and values worked out by hand."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from m3_exp.reporting import stats


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
            low, high = stats.tango(gained, discordant - gained, n)
            covered += inner * (low <= first - lost <= high)
    return float(covered)


@pytest.mark.parametrize(("n", "gained", "lost"), [(96, 0.10, 0.05), (164, 0.02, 0.02), (164, 0.08, 0.03)])
def test_tango_covers_between_93_and_97(n: int, gained: float, lost: float) -> None:
    assert 0.93 <= _coverage_of_tango(n, gained, lost) <= 0.97


def test_tango_is_antisymmetric_and_certain_only_where_it_must_be() -> None:
    low, high = stats.tango(9, 3, 50)
    assert stats.tango(3, 9, 50) == pytest.approx((-high, -low), abs=1e-9)
    assert low < 6 / 50 < high
    low, high = stats.tango(0, 0, 40)
    assert low == pytest.approx(-high)
    assert 0.05 < high < 0.15
    assert stats.tango(5, 0, 5)[1] == 1.0
    with pytest.raises(ValueError, match="impossible"):
        stats.tango(4, 4, 7)


def test_tango_and_mid_p_give_the_literatures_example() -> None:
    """Airway hyper-responsiveness around a transplantation: 1 and 7 of 21 discordant (Fagerland et al. 2014)."""
    assert stats.tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=0.0006)
    assert stats.mid_p(1, 7) == pytest.approx(0.039, abs=0.0006)


def test_mid_p_by_hand() -> None:
    assert stats.mid_p(0, 0) == 1.0
    assert stats.mid_p(5, 5) == pytest.approx(1.0)
    assert stats.mid_p(0, 5) == pytest.approx(2 / 32 - 1 / 32)
    assert stats.mid_p(1, 5) == pytest.approx((2 * 7 - 6) / 64)


def test_the_mid_p_test_keeps_its_level() -> None:
    """Given the number of discordant pairs it may exceed 5 % a little (up to 7.7 %); over their numbers it does not."""
    errors = []
    for n in range(1, 60):
        k = np.arange(n + 1)
        rejected = [stats.mid_p(int(x), int(n - x)) < 0.05 for x in k]
        errors.append(float(scipy_stats.binom.pmf(k, n, 0.5)[rejected].sum()))
    assert max(errors) < 0.08
    for expected in (5, 10, 20, 30):
        shares = scipy_stats.poisson.pmf(np.arange(1, 60), expected)
        assert shares @ errors < 0.052


def test_the_bootstrap_covers_between_93_and_97() -> None:
    """Item means over three draws and fractional scores: differences that are not binary. n = 164, small effect."""
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(400):
        d = (generator.binomial(3, 0.12, 164) - generator.binomial(3, 0.10, 164)) / 3
        low, high = stats.bootstrap(d, seed=trial)
        hits += low <= 0.02 <= high
    assert 0.93 - 0.022 <= hits / 400 <= 0.97 + 0.017  # two standard errors of 400 trials on either side


@pytest.mark.parametrize(("n", "p"), [(96, 0.3), (164, 0.02), (164, 0.5), (1319, 0.02)])
@pytest.mark.parametrize("draws", [1, 3])
def test_the_interval_of_a_mean_covers_between_93_and_97(n: int, p: float, draws: int) -> None:
    """Means over items that are themselves means over draws of different correlation; one draw is plain Wilson."""
    generator = np.random.default_rng(3)
    hits = 0
    for _ in range(1500):
        chance = generator.beta(4 * p, 4 * (1 - p), n)
        values = generator.binomial(draws, chance) / draws
        low, high = stats.mean_interval(values)
        hits += low <= p <= high
    assert 0.93 - 0.012 <= hits / 1500 <= 0.97 + 0.009  # two standard errors of 1500 trials on either side


def test_the_interval_of_a_mean_never_shrinks_to_a_point_at_the_ends() -> None:
    assert stats.mean_interval(np.zeros(96)) == pytest.approx((0.0, 0.0385), abs=1e-4)
    assert stats.mean_interval(np.ones(96))[1] == 1.0


def test_contrasts_choose_their_method_and_their_items() -> None:
    ones = {str(i): float(i % 2) for i in range(40)}
    other = {str(i): float(i % 4 == 1) for i in range(5, 40)}
    found = stats.contrast(ones, other)
    assert (found.n, found.method) == (35, "Tango, mid-p McNemar")
    assert found.difference == pytest.approx(np.mean([ones[k] - other[k] for k in other]))
    halves = stats.contrast(ones, {k: v / 2 for k, v in other.items()})
    assert halves.method.startswith("paired bootstrap")
    assert halves.low <= halves.difference <= halves.high
    same = stats.contrast(ones, ones)
    assert (same.difference, same.p, same.real) == (0.0, 1.0, False)
    with pytest.raises(ValueError, match="no item"):
        stats.contrast({"a": 1.0}, {"b": 1.0})


def test_fractional_differences_of_few_items_have_wide_intervals() -> None:
    """0.3 to 1 on 2 % of 164 items: resampling covered 80 to 90 %."""
    generator = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        sizes = generator.uniform(0.3, 1, 164) * np.where(generator.random(164) < 0.8, 1, -1)
        d = np.where(generator.random(164) < 0.02, sizes, 0.0)
        found = stats.paired(np.maximum(d, 0), np.maximum(-d, 0))
        assert found.low <= found.difference <= found.high
        hits += found.low <= 0.02 * 0.65 * 0.6 <= found.high
    assert hits / 400 > 0.93
    same = stats.paired(np.full(96, 0.5), np.full(96, 0.5))
    assert (same.low, same.high) == stats.tango(0, 0, 96)
    assert same.method.startswith("Tango on the signs")


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []


def test_what_can_be_detected_is_found_with_the_power_it_names() -> None:
    n, psi = 400, 0.2
    d = stats.detectable(psi, n)
    generator = np.random.default_rng(1)
    found = 0
    for _ in range(1500):
        gained, lost, _same = generator.multinomial(n, [(psi + d) / 2, (psi - d) / 2, 1 - psi])
        found += stats.mid_p(int(gained), int(lost)) < 0.05
    assert found / 1500 == pytest.approx(0.8, abs=0.04)


def test_the_price_of_choosing_is_what_choosing_gains() -> None:
    assert stats.best_of(7) == pytest.approx(1.352, abs=0.001)
    generator = np.random.default_rng(2)
    gains, prices = [], []
    for _ in range(300):
        shared = generator.normal(size=(200, 1))
        scores = 0.5 + 0.1 * (np.sqrt(0.6) * shared + np.sqrt(0.4) * generator.normal(size=(200, 7)))
        gains.append(scores.mean(axis=0).max() - 0.5)
        prices.append(stats.selection_price(scores))
    assert np.mean(prices) == pytest.approx(np.mean(gains), rel=0.1)
