"""Items, draws, masks, sampled lambdas and bends apart: simulated components are found again."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks import populations
from m3_exp.merging.ratio import grid, sampled
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Draw, Response
from m3_exp.reporting.tables import variance
from m3_exp.reporting.tables.formats import FORMATS
from m3_exp.stats.expectation import Sampled
from m3_exp.stats.lambdas import Curve
from m3_exp.stats.paired import between
from tests import curved

LAMS = np.array(grid(9))
N = 400
MASKS = 4


def verdicts(chance: Any, generator: np.random.Generator) -> Any:
    return (generator.random(chance.shape) < chance) * 1.0


def simulated(generator: np.random.Generator, slope: float, mask_sd: float, draws: int = 0) -> Response:
    """Items of different difficulty; score 0.5 + slope (lambda - 1/2) + the mask's shift; each verdict is a toss."""
    difficulty = generator.uniform(-0.15, 0.15, size=(N, 1))
    shifts = generator.normal(0, mask_sd, size=MASKS)
    ids = tuple(map(str, range(N)))

    def chance(lam: Any, shift: float) -> Any:
        return np.clip(0.5 + slope * (lam - 0.5) + shift + difficulty, 0, 1)

    masks = tuple(Curve(ids, LAMS, verdicts(chance(LAMS[None], shift), generator)) for shift in shifts)
    mean = Curve(ids, LAMS, np.mean([mask.values for mask in masks], axis=0))
    lams = generator.beta(1, 1, size=draws)
    real = tuple(
        Draw(1.0, k, float(lam), dict(zip(ids, verdicts(chance(np.array([[lam]]), 0.0), generator)[:, 0], strict=True)))
        for k, lam in enumerate(lams)
    )
    return Response("lab", "lm_math", "ties", "", "dare", "gsm8k", "accuracy", mean, masks, draws=real)


def test_between_is_unbiased_where_the_plain_sd_is_not() -> None:
    """400 items, four masks of sd 2 points: the items' noise alone is 2.5 points a column."""
    generator = np.random.default_rng(0)
    found, naive = [], []
    for _ in range(3000):
        values = verdicts(0.5 + generator.normal(0, 0.02, size=(1, 4)) + np.zeros((N, 4)), generator)
        naive.append(values.mean(axis=0).var(ddof=1))
        got = between(values)
        assert got is not None
        found.append(got**2)
    assert 1 <= np.mean(found) / 0.02**2 < 1.35, "0 where an estimate comes out negative"
    assert np.mean(naive) > 2.3 * 0.02**2


def test_between_is_products_of_different_items() -> None:
    """By hand: over pairs of masks, the mean over pairs of different items of the product of their deviations."""
    values = np.random.default_rng(5).random((7, 3)) + np.array([0.0, 0.5, 0.1])
    d = values - values.mean(axis=1, keepdims=True)
    pairs = [d[i, k] * d[j, k] for k in range(3) for i in range(7) for j in range(7) if i != j]
    assert between(values) == pytest.approx(np.sqrt(sum(pairs) / (7 * 6 * 2)))


def test_nothing_between_equal_columns_and_none_with_one() -> None:
    values = np.tile(np.random.default_rng(1).random((30, 1)), (1, 5))
    assert between(values) == 0.0
    assert between(values[:, :1]) is None
    assert variance._between(values[:1]) is None, "of one item nothing can be told"


def test_each_component_is_found_again() -> None:
    generator = np.random.default_rng(2)
    parts = [variance.components(simulated(generator, 0.6, 0.05, draws=12), 1.0) for _ in range(60)]

    def rms(key: str) -> float:
        return float(np.sqrt(np.mean([getattr(part, key) ** 2 for part in parts])))

    assert rms("masks") == pytest.approx(5.0, rel=0.15)
    assert rms("draws") == pytest.approx(60 / np.sqrt(12), rel=0.05), "slope x sd of a uniform lambda"
    assert rms("drawn") == pytest.approx(60 / np.sqrt(12), rel=0.1)
    noise = np.sqrt(0.25 / MASKS * 0.15) * 100 / np.sqrt(N)  # about: nine verdicts with the weights of Beta(1, 1)
    assert noise < rms("items") < 100 * np.sqrt((0.3**2 / 12 + 0.25) / N)
    spread = float(np.std([part.expected for part in parts], ddof=1))
    assert spread == pytest.approx(np.hypot(5.0 / np.sqrt(MASKS), rms("items")), rel=0.3)
    assert {(part.n, part.n_masks, part.n_drawn) for part in parts} == {(N, MASKS, 12)}


def test_no_masks_and_no_draws_are_no_spread() -> None:
    generator = np.random.default_rng(3)
    alone = simulated(generator, 0.0, 0.0)
    alone = replace(alone, sparsify="none", curve=alone.masks[0], masks=alone.masks[:1])
    found = variance.components(alone, 1.0)
    assert (found.masks, found.n_masks, found.drawn, found.n_drawn) == (None, 1, None, 0)
    flat = [variance.components(simulated(generator, 0.0, 0.0), 0.5) for _ in range(40)]
    assert np.mean([part.masks**2 for part in flat if part.masks is not None]) < 1.0
    assert np.mean([part.draws**2 for part in flat]) < 1.0


def test_the_table_has_a_row_for_each_alpha_and_says_how_many() -> None:
    response = simulated(np.random.default_rng(4), 0.6, 0.05, draws=3)
    table = variance.build([response])
    assert [row[4] for row in table.texts] == ["0.2", "0.5", "1", "5"]
    row = table.texts[2]
    assert row[:4] == ("lm_math", "ties", "yes", f"gsm8k, n={N}")
    assert row[8].endswith(" of 3")
    assert row[9].endswith(f" of {MASKS}")
    assert table.texts[0][8] == "", "no real draws of that alpha"
    assert table.records[2]["draws"] == variance.components(response, 1.0).draws
    for form in FORMATS.values():
        assert "gsm8k" in form(table)


@pytest.mark.slow
def test_sampled_lambdas_leave_a_standard_error_and_nodes_alone_a_bend() -> None:
    """A dip of population items: the sd of E over many sets of sampled lambdas is the standard error that is told."""
    height = populations.CURVES["dip"]
    es, told = [], []
    lams, count = np.linspace(0, 1, 2001), 120
    for seed in range(count):
        at = np.array(sorted(sampled(seed, 16)))
        one = Curve(("a", "b"), LAMS, np.tile(height(LAMS), (2, 1)), Sampled(at, np.tile(height(at), (2, 1))))
        found = variance.components(curved.response(one), 5.0)
        assert found.bend is None
        assert found.sampled is not None
        es.append(found.expected)
        told.append(found.sampled)
    assert np.std(es, ddof=1) < np.sqrt(np.mean(np.square(told))) < 4 * np.std(es, ddof=1)
    alone = variance.components(curved.response(one.on_nodes(LAMS)), 5.0)
    assert alone.sampled is None
    assert alone.bend is not None
    missed = np.abs(height(lams) - np.interp(lams, LAMS, height(LAMS))).max()
    assert 0.5 * 100 * missed < alone.bend < 3 * 100 * missed
    rows = variance.build([curved.response(c) for c in (one, one.on_nodes(LAMS))], [5.0]).texts
    assert [(row[10] == "", row[11] == "") for row in rows] == [(False, True), (True, False)]


def test_the_expectation_is_that_of_everywhere() -> None:
    one, rest = curved.drawn(populations.CURVES["S"], 96, np.random.default_rng(0), more=[0.5])
    given = curved.response(one, rest[:, 0])
    for alpha in (0.2, 5.0):
        found, known = variance.components(given, alpha), expectations.expected(given, alpha).scaled(100)
        assert (found.expected, found.low, found.high) == (known.value, known.low, known.high)
