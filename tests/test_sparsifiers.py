"""Sparsifiers of whole tensors against their formulas in float64, and what they refuse."""

import numpy as np
import pytest
import torch
from torch import Tensor

from m3_exp.merging import sparsify
from m3_exp.merging.ranks import largest, smallest
from m3_exp.types import M3Error, Parameter

KEY = 0x0123456789ABCDEF
SHAPES = [(40, 25), (13,), (3, 4, 5), ()]


def delta_of(shape: tuple[int, ...], rounded: bool = False) -> Tensor:
    """Return a random delta; of a rounded one many elements are equal, as of bfloat16 checkpoints."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    return (made * 4).round() / 64 if rounded else made


def thinned(name: str, delta: Tensor, **params: Parameter) -> tuple[Tensor, int]:
    named = sparsify.load(f"m3_exp.merging.sparsify.{name}:{name}")
    drawn = {"key": KEY, "start": 0} if "key" in named.positional else {}
    kept = delta.clone()
    out, dropped = named.function(delta, **drawn, **params)
    assert torch.equal(delta, kept)
    assert out.shape == delta.shape
    assert out.dtype == torch.float32
    return out, dropped


def ascending(delta: Tensor) -> Tensor:
    """Return the flat indices from the smallest magnitude to the largest; of equal ones the later is the smaller."""
    flat = delta.double().abs().flatten().numpy()
    return torch.from_numpy(np.lexsort((-np.arange(flat.size), flat)))


@pytest.mark.parametrize("rounded", [False, True])
def test_the_largest_are_exactly_so_many(rounded: bool) -> None:
    delta = delta_of((40, 25), rounded)
    for count in (0, 1, 17, 500, 999, 1000, 2000):
        expected = torch.zeros(1000, dtype=torch.bool)
        expected[ascending(delta)[max(0, 1000 - count) :]] = True
        assert torch.equal(largest(delta, count).flatten(), expected)
    for rank in (1, 2, 500, 1000):
        assert smallest(delta.abs(), rank) == float(delta.abs().flatten().kthvalue(rank).values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("rescale", ["none", "l1"])
def test_magnitude(shape: tuple[int, ...], rounded: bool, rescale: str) -> None:
    delta = delta_of(shape, rounded)
    n = delta.numel()
    count = max(1, int(0.3 * n))
    expected = torch.zeros(n, dtype=torch.float64)
    chosen = ascending(delta)[n - count :]
    expected[chosen] = delta.double().flatten()[chosen]
    if rescale == "l1":
        expected *= delta.double().abs().sum() / expected.abs().sum()
    found, dropped = thinned("magnitude", delta, density=0.3, rescale=rescale)
    torch.testing.assert_close(found.double().flatten(), expected, rtol=1e-6, atol=0)
    assert dropped == n - count


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize(("density", "gamma"), [(0.5, 0.1), (0.95, 0.1), (0.5, 0.0), (0.01, 0.9)])
def test_breadcrumbs(rounded: bool, density: float, gamma: float) -> None:
    delta = delta_of((40, 25), rounded)
    kept, top = int(density * 1000), int(gamma * 1000)
    first = max(0, 1000 - kept - top)
    expected = torch.zeros(1000)
    chosen = ascending(delta)[first : first + kept]
    expected[chosen] = delta.flatten()[chosen]
    found, dropped = thinned("breadcrumbs", delta, density=density, gamma=gamma)
    assert torch.equal(found.flatten(), expected)
    assert dropped == 1000 - kept


def uniform(count: int) -> Tensor:
    """Return the numbers that decide: splitmix64 of the key and an element's index, its upper 32 bits."""
    with np.errstate(over="ignore"):
        z = np.uint64(KEY) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return torch.from_numpy(((z ^ (z >> np.uint64(31))) >> np.uint64(32)).astype(np.float64) / 2**32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("rescale", ["p", "l1", "none"])
def test_della(shape: tuple[int, ...], rounded: bool, rescale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3_exp.merging.sparsify.della._ELEMENTS", 120)  # several blocks of rows
    delta = delta_of(shape, rounded)
    rows = delta.double().reshape(-1, shape[-1] if shape else 1)
    width = rows.shape[1]
    stays = torch.full_like(rows, 0.6)
    for row, line in enumerate(rows if width > 1 else ()):
        order = np.lexsort((np.arange(width), line.abs().numpy()))
        for rank, index in enumerate(order):
            stays[row, index] = 0.6 - 0.2 + 0.4 * rank / (width - 1)
    mask = uniform(rows.numel()).view_as(rows) >= 1 - stays
    expected = rows * mask / (stays if rescale == "p" else 1)
    if rescale == "l1" and expected.any():
        expected *= rows.abs().sum() / expected.abs().sum()
    found, dropped = thinned("della", delta, density=0.6, epsilon=0.2, rescale=rescale)
    torch.testing.assert_close(found.double().view_as(rows), expected, rtol=1e-6, atol=0)
    assert dropped == int((~mask).sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_dare_to_the_former_sum_of_magnitudes(shape: tuple[int, ...]) -> None:
    delta = delta_of(shape)
    mask = uniform(delta.numel()).view(shape) >= 0.4
    expected = delta.double() * mask
    expected *= delta.double().abs().sum() / expected.abs().sum() if mask.any() else 1
    found, dropped = thinned("dare", delta, drop_rate=0.4, rescale="l1")
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    assert dropped == int((~mask).sum())


def test_della_keeps_the_expected_delta() -> None:
    """Divided by its probability, each element has its own expectation: seen as the mean over keys."""
    delta = torch.linspace(-1, 1, 16)
    named = sparsify.load("m3_exp.merging.sparsify.della:della").function
    mean = torch.stack([named(delta, key, 0, density=0.5, epsilon=0.3)[0] for key in range(4000)]).mean(0)
    assert float((mean - delta).abs().max()) < 0.09  # 4 standard errors of the widest: sqrt(0.8 / 0.2 / 4000) = 0.03


def test_della_without_a_window_drops_what_dare_drops() -> None:
    delta = delta_of((40, 25))
    dare = sparsify.load("m3_exp.merging.sparsify.dare:dare").function
    found, dropped = thinned("della", delta, density=0.75, epsilon=0.0)
    expected, gone = dare(delta.flatten(), KEY, 0, drop_rate=0.25)
    torch.testing.assert_close(found.flatten(), expected)
    assert dropped == gone


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("magnitude", {"density": 0.0}, "sparsify.density=0.0 is no share that stays"),
        ("magnitude", {"density": 1.1}, "sparsify.density=1.1 is no share that stays"),
        ("magnitude", {"density": 0.5, "rescale": "l2"}, "sparsify.rescale=l2 is not known: none or l1 is allowed"),
        ("magnitude", {}, "needs sparsify.density"),
        ("breadcrumbs", {"density": 0.5, "gamma": 1.0}, "sparsify.gamma=1.0 is no share of outliers"),
        ("della", {"density": 0.9, "epsilon": 0.1}, "sparsify.epsilon=0.1 is out of range"),
        ("della", {"density": 0.1, "epsilon": 0.1}, "sparsify.epsilon=0.1 is out of range"),
        ("della", {"density": 0.1, "epsilon": -0.1}, "sparsify.epsilon=-0.1 is out of range"),
    ],
)
def test_refused(name: str, params: dict[str, Parameter], said: str) -> None:
    with pytest.raises(M3Error, match=said):
        sparsify.canonical(sparsify.asked(f"m3_exp.merging.sparsify.{name}:{name}", params, 1))


def test_a_word_that_is_the_default_is_no_other_sparsifier() -> None:
    target = "m3_exp.merging.sparsify.magnitude:magnitude"
    usual = sparsify.asked(target, {"density": 0.5}, 1)
    assert sparsify.asked(target, {"density": 0.5, "rescale": "none"}, 1) == usual
    assert sparsify.canonical({**usual, "rescale": "none"}) == usual
    assert sparsify.canonical({**usual, "rescale": "l1"}) != usual
    assert sparsify.canonical({**usual, "density": 1.0}) is None
    assert sparsify.asked(sparsify.DARE, {"drop_rate": 0.2, "rescale": "p"}, 7) == {"drop_rate": 0.2, "seed": 7}
    assert sparsify.asked(sparsify.DARE, {"drop_rate": 0.2, "rescale": "l1"}, 7)["rescale"] == "l1"
