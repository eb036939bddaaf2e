"""Lambda's draws: Beta one by one, stratified together, reproducible; and the sampled lambdas beside a grid.

Truth comes from scipy.stats and, where float64 is not enough, from mpmath (30 digits): literals were computed with it
from the sha256 of the parts, not with the code under test.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from m3_exp.merging import ratio
from m3_exp.stats.lambdas import ALPHAS, density_ratio
from m3_exp.types import M3Error

SEEDS = range(1500)


def strata(numbers: Sequence[float]) -> list[int]:
    """Return in which of as many equal intervals each number of (0, 1) lies, sorted."""
    return sorted(math.floor(number * len(numbers)) for number in numbers)


# ----------------------------------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 5.0])
def test_each_draw_by_itself_follows_its_beta_distribution(alpha: float) -> None:
    for draw in (0, 1, 6):
        lams = [ratio.mixup(alpha, seed, draw) for seed in SEEDS]
        assert stats.kstest(lams, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
        assert all(0 <= lam <= 1 for lam in lams)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 2.0])
def test_draws_of_one_alpha_have_one_in_each_stratum_counted_from_their_shift(alpha: float) -> None:
    for seed in range(5):
        u = stats.beta(alpha, alpha).cdf([ratio.mixup(alpha, seed, draw) for draw in range(32)])
        for size in (2, 4, 8, 16, 32):
            back = (u[:size] - u[0] + 1 / (2 * size)) % 1.0
            assert strata(list(back)) == list(range(size))


def test_the_mean_of_few_draws_is_nearer_to_the_expectation_than_that_of_independent_ones() -> None:
    """A monotone response, lambda itself: four independent draws have a variance of Var(lambda) / 4."""
    means = [np.mean([ratio.mixup(0.5, seed, draw) for draw in range(4)]) for seed in SEEDS]
    assert abs(np.mean(means) - 0.5) < 0.01
    assert np.var(means) < stats.beta(0.5, 0.5).var() / 4 / 5


def test_draws_are_what_mpmath_makes_of_their_hashes() -> None:
    expected = {
        0.2: (0.94753134765226935, 0.00914891073881909, 0.99999593884536285, 0.36499579650214379),
        0.5: (0.94118257845462954, 0.26471733496042542, 0.021666839088239215, 0.64559322502150835),
        2: (0.4885019440142364, 0.92213650048045826, 0.66070442163515182, 0.31313759953271554),
    }
    for alpha, lams in expected.items():
        assert [ratio.mixup(alpha, 0, draw) for draw in range(4)] == pytest.approx(lams, rel=1e-13)


def test_alphas_have_shifts_of_their_own() -> None:
    first = [stats.beta.cdf(ratio.mixup(0.5, seed, 0), 0.5, 0.5) for seed in SEEDS]
    other = [stats.beta.cdf(ratio.mixup(1.0, seed, 0), 1.0, 1.0) for seed in SEEDS]
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.1
    assert ratio.mixup(1, 0, 0) == ratio.mixup(1.0, 0, 0)


def test_the_radical_inverse_mirrors_binary_digits() -> None:
    assert [ratio.radical_inverse(k) for k in range(9)] == [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8, 1 / 16]


def test_a_shifted_number_is_never_0_or_1() -> None:
    assert ratio.shifted(0.5, 1) > 0
    assert all(0 < ratio.shifted(shift, k) < 1 for shift in (2**-54, 0.25, 1 - 2**-53) for k in range(16))


@pytest.mark.parametrize(
    ("alpha", "u", "lam"),
    [  # mpmath, 30 digits
        (0.05, 1e-6, 9.7118236027201568e-115), (0.2, 1e-12, 2.4780562448634897e-59),
        (0.5, 0.01, math.sin(math.pi * 0.01 / 2) ** 2), (1.0, 1e-12, 1e-12),
        (2.0, 0.104, 0.2), (5.0, 1e-9, 0.0060489680856409261), (500.0, 1e-12, 0.39011024302970164),
    ],
)  # fmt: skip
def test_quantiles_are_exact_to_the_nearer_end(alpha: float, u: float, lam: float) -> None:
    assert ratio.quantile(alpha, u) == pytest.approx(lam, rel=2e-14)
    assert ratio.quantile(alpha, 1 - u) == 1 - ratio.quantile(alpha, 1 - (1 - u))


# --------------------------------------------------------------------------------------------------------- sampled


def mixture(lam: float) -> float:
    return float(np.mean([stats.beta.cdf(lam, alpha, alpha) for alpha in ALPHAS]))


def test_a_scrambled_sequence_fills_every_stratum_and_begins_with_the_shorter_one() -> None:
    for seed in range(20):
        numbers = [ratio.scrambled(seed, k) for k in range(64)]
        for size in (1, 2, 4, 8, 16, 32, 64):
            assert strata(numbers[:size]) == list(range(size))
    assert len({ratio.scrambled(seed, 0) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("k", [0, 1, 6, 15])
def test_each_number_of_a_scrambled_sequence_is_uniform(k: int) -> None:
    numbers = [ratio.scrambled(seed, k) for seed in SEEDS]
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    assert stats.kstest([number * 2**20 % 1 for number in numbers], "uniform").pvalue > 1e-3


def test_two_numbers_of_a_scrambled_sequence_are_independent_within_their_strata() -> None:
    """Nested uniforms: below the first digit that differs, nothing is shared (a shift would share everything)."""
    one, two = ([ratio.scrambled(seed, k) * 2 % 1 for seed in SEEDS] for k in (0, 1))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.1


def test_sampled_lambdas_are_quantiles_of_the_mixture_of_the_papers_alphas() -> None:
    for seed in range(4):
        for k, lam in enumerate(ratio.sampled(seed, 16)):
            assert mixture(lam) == pytest.approx(ratio.scrambled(seed, k), rel=1e-12)
            assert 0 < lam < 1
    assert ratio.sampled(0, 4) == pytest.approx(
        (0.45018699916549702, 0.71500027086262921, 0.074410265976736769, 0.78012728319159059), rel=1e-13
    )


def test_the_mixtures_quantile_keeps_its_digits_next_to_both_ends() -> None:
    for v in (1e-12, 1e-6, 1e-3, 0.1, 0.3, 0.4999):
        lam = ratio.mixture_quantile(v)
        assert mixture(lam) == pytest.approx(v, rel=1e-12)
        assert ratio.mixture_quantile(1 - v) == pytest.approx(1 - lam, abs=1e-15, rel=1e-12)
    assert ratio.mixture_quantile(0.5) == 0.5
    assert 0 < ratio.mixture_quantile(2**-53) < ratio.mixture_quantile(1 - 2**-53) < 1


def test_larger_samples_contain_the_smaller_and_other_sizes_are_refused() -> None:
    sizes = [ratio.sampled(7, count) for count in (0, 4, 8, 16)]
    assert [len(lams) for lams in sizes] == [0, 4, 8, 16]
    for small, large in itertools.pairwise(sizes):
        assert large[: len(small)] == small
    for count in (-4, 1, 2, 12, 32):
        with pytest.raises(M3Error, match=rf"ratio.sampled={count} does not fill its strata: give 0, 4, 8 or 16"):
            ratio.sampled(0, count)


@pytest.mark.parametrize("alpha", [0.2, 0.7, 5.0])
def test_the_ratio_of_densities_is_to_the_mean_of_seven(alpha: float) -> None:
    lams = np.array([1e-9, 0.1, 0.5, 0.7, 0.99, 1 - 1e-9])
    mixture = np.mean([stats.beta.pdf(lams, one, one) for one in (0.2, 0.4, 0.5, 1, 2, 3, 5)], axis=0)
    assert density_ratio(lams, alpha) == pytest.approx(stats.beta.pdf(lams, alpha, alpha) / mixture, rel=1e-6)
    assert float(density_ratio(np.geomspace(1e-300, 0.5, 5000), alpha).max()) <= 7 * (1 + 1e-9)


# ----------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("lam", "says"),
    [
        (0.00011, "99.99 % math"), (0.0000995, "99.990 % math"), (0.0153, "98.5 % math"), (0.02, None), (0.5, None),
        (0.98, None), (0.9801, "98.0 % lm"), (1 - 4.1e-6, "99.9996 % lm"), (0.0, "100 % math"), (1.0, "100 % lm"),
        (3e-8, "99.999997 % math"), (1e-60, "over 99.999999 % math"), (1 - 2**-53, "over 99.999999 % lm"),
        (0.00999, "99.0 % math"), (0.0005, "99.95 % math"),
    ],
)  # fmt: skip
def test_a_one_sided_lambda_is_said_in_words(lam: float, says: str | None) -> None:
    assert ratio.one_sided((lam, 1 - lam), ("lm", "math")) == says
