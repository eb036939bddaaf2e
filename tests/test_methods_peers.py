"""Methods and sparsifiers against mergekit's own code (0.1.5, extra `mergekit`) where the definitions agree.

docs/methods/ says where they do not.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.test_methods_formulas import drawn, merged
from tests.test_sparsifiers import delta_of, thinned, uniform

pytest.importorskip("mergekit", reason="the extra `mergekit` is not installed")

WEIGHTS = [(0.3, 0.7), (1.0, 0.0), (0.5, 0.5)]
SHAPES = [(7, 5), (11,), (2, 3, 4)]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-5)  # both are float32


def theirs(method: str, experts: Sequence[Tensor], base: Tensor | None, **parameters: Any) -> Tensor:
    """Merge tensors with mergekit; the parameters of each input stand in a list, the base's first."""
    from mergekit.merge_methods import merge_tensors

    tensors = list(experts) if base is None else [base, *experts]
    made: Tensor = merge_tensors(
        tensors, method, parameters=parameters, base_index=None if base is None else 0, dtype=torch.float32
    )
    return made


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("spread", [1.0, 1e-3])  # of a small one the arc counts as a line
@pytest.mark.parametrize("shape", SHAPES)
def test_slerp(shape: tuple[int, ...], spread: float, weights: tuple[float, float]) -> None:
    """mergekit's base_model is our first expert, its t the share of the other."""
    base, deltas = drawn(2, shape, spread)
    one, other = (base + delta for delta in deltas)
    expected = theirs("slerp", [other], one, t=weights[1])
    close(merged("slerp", base, deltas, weights, threshold=0.9995), expected)


@pytest.mark.parametrize(
    ("by", "row_wise", "flatten"), [("tensor", False, True), ("row", False, False), ("column", True, False)]
)
@pytest.mark.parametrize("weights", [*WEIGHTS, (1.0, 1.0)])
@pytest.mark.parametrize("still", [False, True])
def test_nuslerp(by: str, row_wise: bool, flatten: bool, weights: tuple[float, float], still: bool) -> None:
    """The same where one of the two experts is the base."""
    base, (one, other) = drawn(2, (7, 5))
    deltas = [one, 0 * other if still else other]
    expected = theirs(
        "nuslerp", [base + delta for delta in deltas], base,
        weight=list(weights), nuslerp_row_wise=row_wise, nuslerp_flatten=flatten,
    )  # fmt: skip
    close(merged("nuslerp", base, deltas, weights, by=by), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("steps", [1, 10])
def test_karcher(shape: tuple[int, ...], n: int, steps: int) -> None:
    base, deltas = drawn(n, shape)
    expected = theirs("karcher", [base + delta for delta in deltas], None, max_iter=steps, tol=1e-5)
    close(merged("karcher", base, deltas, steps=steps, tolerance=1e-5), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [2, 4])
def test_model_stock(shape: tuple[int, ...], n: int) -> None:
    base, deltas = drawn(n, shape)
    expected = theirs("model_stock", [base + delta for delta in deltas], base, filter_wise=False)
    close(merged("model_stock", base, deltas), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [1.0, 0.6])
def test_sce(shape: tuple[int, ...], density: float) -> None:
    base, deltas = drawn(3, shape)
    expected = theirs("sce", [base + delta for delta in deltas], base, select_topk=density)
    close(merged("sce", base, deltas, density=density), expected)


def test_sce_of_small_deltas_differs() -> None:
    """mergekit weighs all experts alike where the mean squares of their deltas sum to less than 1e-6."""
    base, deltas = drawn(2, (7, 5), 1e-4)
    base = 0 * base
    expected = theirs("sce", deltas, base, select_topk=1.0)
    assert float((merged("sce", base, deltas, density=1.0) - expected).abs().max()) > 1e-5


@pytest.mark.parametrize("density", [0.01, 0.3, 0.7])
@pytest.mark.parametrize("rescale", [None, "l1"])
def test_magnitude(density: float, rescale: str | None) -> None:
    from mergekit.sparsify import RescaleNorm, magnitude

    delta = delta_of((40, 25))
    expected = magnitude(delta, density, RescaleNorm(rescale) if rescale else None)
    close(thinned("magnitude", delta, density=density, rescale=rescale or "none")[0], expected)


@pytest.mark.parametrize(("density", "gamma"), [(0.5, 0.1), (0.95, 0.1), (0.5, 0.0)])
@pytest.mark.parametrize("rescale", [None, "l1"])
def test_breadcrumbs(density: float, gamma: float, rescale: str | None) -> None:
    from mergekit.sparsify import RescaleNorm, magnitude_outliers

    delta = delta_of((40, 25))
    expected = magnitude_outliers(delta, density, RescaleNorm(rescale) if rescale else None, gamma)
    found, _ = thinned("breadcrumbs", delta, density=density, gamma=gamma, rescale=rescale or "none")
    close(found, expected)


def bernoulli(stays: Tensor) -> Tensor:
    """Draw what stays from our numbers."""
    return (uniform(stays.numel()).view_as(stays) >= 1 - stays.double()).to(stays.dtype)


@pytest.mark.parametrize("shape", [(40, 25), (13,), (3, 4, 5)])
def test_dare_by_l1(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from mergekit.sparsify import RescaleNorm
    from mergekit.sparsify import bernoulli as dare

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    expected = dare(delta_of(shape), 0.6, RescaleNorm("l1"))
    close(thinned("dare", delta_of(shape), drop_rate=0.4, rescale="l1")[0], expected)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_ties_by_tensor(shape: tuple[int, ...], n: int) -> None:
    base, deltas = drawn(n, shape)
    experts = [base + delta for delta in deltas]
    expected = theirs("ties", experts, base, weight=[1.0] * n, density=0.4, normalize=True, **{"lambda": 0.8})
    exact = [expert - base for expert in experts]
    close(merged("ties", base, exact, scaling=0.8, retain=0.4, trim="tensor"), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reach", [0.01, 0.7])
def test_nearswap(shape: tuple[int, ...], reach: float) -> None:
    base, (delta,) = drawn(1, shape)
    expected = theirs("nearswap", [base + delta], base, t=reach)
    close(merged("nearswap", base, [base + delta - base], (1.0,), reach=reach), expected)


@pytest.mark.parametrize("weights", [(0.7, 0.2, 0.4), (1.0, -0.5, 2.0), (0.5, 0.5, -1.0)])
@pytest.mark.parametrize("combine", ["mean", "sum"])
def test_ties_with_weights(weights: tuple[float, ...], combine: str) -> None:
    base, deltas = drawn(3, (7, 5))
    experts = [base + delta for delta in deltas]
    parameters = {"weight": list(weights), "density": 0.4, "normalize": combine == "mean", "lambda": 0.8}
    expected = theirs("ties", experts, base, **parameters)
    exact = [expert - base for expert in experts]
    words = {"trim": "tensor", "sign": "weighted", "combine": combine}
    close(merged("ties", base, exact, weights, scaling=0.8, retain=0.4, **words), expected)


@pytest.mark.parametrize("rescale", [None, "l1"])
@pytest.mark.parametrize("shape", [(40, 25), (13,)])
def test_della(shape: tuple[int, ...], rescale: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the same draws: mergekit's come from torch's global generator."""
    from mergekit.sparsify import RescaleNorm, della_magprune

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    delta = delta_of(shape)
    expected = della_magprune(delta, 0.6, 0.2, RescaleNorm(rescale) if rescale else None)
    found, _ = thinned("della", delta, density=0.6, epsilon=0.2, rescale=rescale or "none")
    close(found, expected)
