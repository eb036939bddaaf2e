"""Items, draws, masks and interpolation apart: simulated components are found again."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from m3_exp.merging.ratio import grid
from m3_exp.reporting import tables, variance
from m3_exp.reporting.curves import Draw, Response
from m3_exp.stats.lambdas import Curve

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
        d = values - values.mean(axis=1, keepdims=True)
        found.append(((d.sum(axis=0) ** 2).sum() - (d**2).sum()) / (N * (N - 1) * 3))
        naive.append(values.mean(axis=0).var(ddof=1))
        got = variance.between(values)
        assert got == pytest.approx(np.sqrt(max(0.0, found[-1])))
    assert np.mean(found) == pytest.approx(0.02**2, rel=0.15)
    assert np.mean(naive) > 2.3 * 0.02**2


def test_nothing_between_equal_columns_and_none_with_one() -> None:
    values = np.tile(np.random.default_rng(1).random((30, 1)), (1, 5))
    assert variance.between(values) == 0.0
    assert variance.between(values[:, :1]) is None
    assert variance.between(values[:1]) is None


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
    assert [row[4] for row in table.rows] == ["0.2", "0.5", "1", "5"]
    row = table.rows[2]
    assert row[:4] == ("lm_math", "ties", "yes", f"gsm8k, n={N}")
    assert row[8].endswith(" of 3")
    assert row[9].endswith(f" of {MASKS}")
    assert table.rows[0][8] == "", "no real draws of that alpha"
    assert table.records[2]["draws"] == variance.components(response, 1.0).draws
    for form in tables.FORMATS.values():
        assert "gsm8k" in form(table)
