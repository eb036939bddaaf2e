"""Each method of whole tensors against its formula in float64 (`tests/formulas.py`)."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from m3_exp.merging.methods import load
from m3_exp.merging.scan import Cutoffs
from tests import formulas

Weights = Sequence[float] | None
SHAPES = [(7, 5), (5, 9), (11,), (2, 3, 4), ()]


def drawn(n: int, shape: tuple[int, ...], spread: float = 1.0) -> tuple[Tensor, list[Tensor]]:
    """Return a base and n deltas, which have something in common."""
    generator = torch.Generator().manual_seed(n + sum(shape))
    common = torch.randn(shape, generator=generator)
    deltas = [spread * (common + torch.randn(shape, generator=generator)) * (i + 1) for i in range(n)]
    return torch.randn(shape, generator=generator), deltas


def merged(
    name: str,
    base: Tensor,
    deltas: Sequence[Tensor],
    weights: Weights = None,
    cutoffs: Cutoffs | None = None,
    **params: float | str,
) -> Tensor:
    method = load(f"m3_exp.merging.methods.{name}:{name}")
    given = [base + delta for delta in deltas] if not method.takes_deltas else list(deltas)
    more: dict[str, object] = {"base": base.clone()} if method.needs_base else {}
    more |= {"cutoffs": cutoffs} if method.needs_cutoffs else {}
    kept = [tensor.clone() for tensor in given]
    out: Tensor = method.named.function(given, weights, **more, **method.keywords(params))
    assert all(torch.equal(one, other) for one, other in zip(given, kept, strict=True))  # its arguments stay
    assert out.dtype == torch.float32
    return out


def doubled(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape])
@pytest.mark.parametrize("lam", [None, 0.0, 0.3, 1.0, 1.2])
def test_slerp(shape: tuple[int, ...], lam: float | None) -> None:
    base, deltas = drawn(2, shape)
    weights = None if lam is None else (lam, 1 - lam)
    one, other = (base.double() + delta.double() for delta in deltas)
    expected = formulas.arc(one, other, 0.5 if lam is None else lam)
    close(merged("slerp", base, deltas, weights, threshold=0.9999), expected)
    if lam is not None:
        close(merged("slerp", base, deltas, (3 * lam, 3 - 3 * lam), threshold=0.9999), expected)
        line = lam * one + (1 - lam) * other
        close(merged("slerp", base, deltas, weights, threshold=1e-9), line)  # every angle counts as none


def test_slerp_keeps_the_length_of_equally_long_ones_and_goes_halfway() -> None:
    one, other = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    half = merged("slerp", torch.zeros(2), [one, other], threshold=0.9995)
    torch.testing.assert_close(half, torch.tensor([3.0, 3.0]) / math.sqrt(2))


@pytest.mark.parametrize("opposed", [1.0, -1.0])
def test_slerp_of_parallel_tensors_is_the_line(opposed: float) -> None:
    one = torch.tensor([1.0, 2.0, -2.0])
    found = merged("slerp", torch.zeros(3), [one, opposed * 2 * one], (0.25, 0.75), threshold=1.0)
    torch.testing.assert_close(found, 0.25 * one + 0.75 * opposed * 2 * one)


@pytest.mark.parametrize("by", ["tensor", "row", "column"])
@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 4), (11,)])
def test_nuslerp(shape: tuple[int, ...], by: str) -> None:
    base, deltas = drawn(2, shape)
    one, other = (delta.double() for delta in deltas)
    if by == "tensor" or len(shape) == 1:
        expected = formulas.arc(one, other, 0.3)
    else:
        dim = -1 if by == "row" else 0
        last, rest = one.transpose(dim, -1), other.transpose(dim, -1)
        vectors = zip(last.reshape(-1, last.shape[-1]), rest.reshape(-1, last.shape[-1]), strict=True)
        expected = torch.stack([formulas.arc(a, b, 0.3) for a, b in vectors]).reshape(last.shape).transpose(dim, -1)
    close(merged("nuslerp", base, deltas, (0.3, 0.7), by=by), base.double() + expected)


@pytest.mark.parametrize("by", ["tensor", "row", "column"])
def test_nuslerp_where_nothing_or_the_same_was_changed(by: str) -> None:
    """Parallel deltas are on a line; one of 0 stands at a right angle to all."""
    delta = torch.arange(1.0, 7.0).reshape(2, 3)
    torch.testing.assert_close(merged("nuslerp", torch.zeros(2, 3), [delta, 3 * delta], (0.5, 0.5), by=by), 2 * delta)
    found = merged("nuslerp", torch.ones(2, 3), [delta, 0 * delta], (0.5, 0.5), by=by)
    torch.testing.assert_close(found, 1 + math.sin(math.pi / 4) * delta)
    assert torch.equal(merged("nuslerp", torch.ones(2, 3), [0 * delta, 0 * delta], by=by), torch.ones(2, 3))


@pytest.mark.parametrize("shape", [(7, 5), (11,), (2, 3, 4)])
@pytest.mark.parametrize("weights", [None, (0.2, 0.3, 0.5), (2, 3, 5)])
def test_karcher(shape: tuple[int, ...], weights: Weights) -> None:
    base, deltas = drawn(3, shape)
    shares = [weight / sum(weights) for weight in weights] if weights else [1 / 3] * 3
    expected = formulas.karcher([base.double() + delta.double() for delta in deltas], shares)
    close(merged("karcher", base, deltas, weights, steps=200, tolerance=1e-7), expected)


def test_karcher_of_two_is_the_middle_of_the_arc_at_the_mean_length() -> None:
    base, deltas = drawn(2, (7, 5))
    one, other = (base.double() + delta.double() for delta in deltas)
    middle = formulas.arc(one / one.norm(), other / other.norm(), 0.25) * (0.25 * one.norm() + 0.75 * other.norm())
    close(merged("karcher", base, deltas, (0.25, 0.75), steps=200, tolerance=1e-7), middle)


def test_karcher_without_directions() -> None:
    zero, one = torch.zeros(3), torch.tensor([3.0, 0.0, 4.0])
    assert torch.equal(merged("karcher", zero, [zero, zero], steps=10, tolerance=1e-5), zero)
    found = merged("karcher", zero, [zero, one], steps=10, tolerance=1e-5)
    torch.testing.assert_close(found, one / 2)  # a tensor of 0 counts for the length


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_model_stock(shape: tuple[int, ...], n: int) -> None:
    base, deltas = drawn(n, shape)
    close(merged("model_stock", base, deltas), formulas.model_stock(base.double(), doubled(deltas)))


def test_model_stock_of_opposed_experts_is_the_base() -> None:
    base, delta = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, -1.0])
    assert torch.equal(merged("model_stock", base, [delta, -delta]), base)


@pytest.mark.parametrize("name", ["slerp", "karcher", "model_stock", "nuslerp"])
def test_of_equal_experts_it_is_that_expert(name: str) -> None:
    base, (delta,) = drawn(1, (7, 5))
    params: dict[str, dict[str, float]] = {"slerp": {"threshold": 0.9995}, "karcher": {"steps": 10, "tolerance": 1e-5}}
    close(merged(name, base, [delta, delta], **params.get(name, {})), (base + delta).double())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [1.0, 0.6, 0.01])
@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_sce(shape: tuple[int, ...], density: float, spread: float) -> None:
    base, deltas = drawn(3, shape, spread)
    expected = formulas.sce(base.double(), doubled(deltas), density) - base.double()
    found = merged("sce", torch.zeros(shape), deltas, density=density)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5 * spread)


def test_sce_by_hand() -> None:
    """Energies 25 and 1: of the first element both have the sign of the sum, of the second the larger one alone."""
    found = merged("sce", torch.ones(2), [torch.tensor([4.0, 3.0]), torch.tensor([0.8, -0.6])], density=1.0)
    torch.testing.assert_close(found, torch.tensor([1 + (25 * 4 + 0.8) / 26, 4.0]))


@pytest.mark.parametrize("weights", [None, (0.2, 0.3, 0.5)])
@pytest.mark.parametrize("agree", [0, 1, 2, 4])
def test_consensus(weights: Weights, agree: int) -> None:
    base, deltas = drawn(3, (7, 5))
    expected = formulas.consensus(base.double(), doubled(deltas), weights or (1, 1, 1), 0.8, 0.4, agree)
    close(merged("consensus", base, deltas, weights, scaling=0.8, threshold=0.4, agree=agree), expected)
    changed = (expected != base.double()).double().mean()
    assert changed == {0: 1.0, 4: 0.0}.get(agree, changed)


@pytest.mark.parametrize("weights", [None, (0.2, 0.3, 0.5), (1.0, 0.0, -1.0)])
@pytest.mark.parametrize("reach", [1e-3, 0.5, 100.0])
def test_nearswap(weights: Weights, reach: float) -> None:
    base, deltas = drawn(3, (7, 5))
    shares = weights or (1 / 3,) * 3
    found = merged("nearswap", base, deltas, weights, reach=reach)
    close(found, formulas.nearswap(base.double(), doubled(deltas), shares, reach))
    if reach == 100:
        close(found, base.double() + formulas.total(doubled(deltas), shares))  # nothing is that far


@pytest.mark.parametrize("shape", [(8, 6), (6, 9), (7, 7)])
@pytest.mark.parametrize("weights", [None, (0.25, 0.75), (1.5, -0.5)])
@pytest.mark.parametrize("svd", ["full", "lowrank"])
def test_tsv_m(shape: tuple[int, int], weights: Weights, svd: str) -> None:
    base, deltas = drawn(2, shape)
    expected = formulas.tsv_m(base.double(), doubled(deltas), weights or (1, 1), 0.7)
    close(merged("tsv_m", base, deltas, weights, scaling=0.7, svd=svd), expected)


def test_tsv_m_of_experts_that_do_not_interfere_is_task_arithmetic() -> None:
    """Deltas of low rank in orthogonal spaces lose nothing, and vectors that rounding made take no part."""
    space = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0))).Q
    one, other = space[:, :2] @ space[:2], 3 * space[:, 2:4] @ space[2:4]
    base = torch.ones(12, 12)
    close(merged("tsv_m", base, [one, other], (0.3, 0.7), scaling=1.0), (base + 0.3 * one + 0.7 * other).double())


def test_lowrank_of_a_large_matrix() -> None:
    """Of singular values that fall as 1/k the leading tenth is found, its values to 1e-4."""
    from m3_exp.merging.singular import leading

    generator = torch.Generator().manual_seed(1)
    u, v = (torch.linalg.qr(torch.randn(200, 120, generator=generator)).Q for _ in range(2))
    exact = 1 / torch.arange(1.0, 121)
    found = leading(u @ torch.diag(exact) @ v.T, 12)
    torch.testing.assert_close(found.s, exact[:12], rtol=1e-4, atol=0)
    made, wanted = found.u @ torch.diag(found.s) @ found.v.T, u[:, :12] @ torch.diag(exact[:12]) @ v[:, :12].T
    assert float((made - wanted).norm() / wanted.norm()) < 1e-3
    again = leading(u @ torch.diag(exact) @ v.T, 12)
    assert torch.equal(found.u, again.u)


@pytest.mark.parametrize("shape", [(8, 6), (6, 9)])
def test_iso_c(shape: tuple[int, int]) -> None:
    base, deltas = drawn(3, shape)
    expected = formulas.iso_c(base.double(), doubled(deltas), 0.7)
    found = merged("iso_c", base, deltas, scaling=0.7)
    close(found, expected)
    values = torch.linalg.svdvals((found - base) / 0.7)
    torch.testing.assert_close(values, values.mean().expand_as(values), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("name", "params"), [("tsv_m", {"scaling": 0.5}), ("iso_c", {"scaling": 0.5})])
@pytest.mark.parametrize("shape", [(11,), (2, 3, 4), ()])
def test_what_is_no_matrix_is_averaged(name: str, params: dict[str, float], shape: tuple[int, ...]) -> None:
    base, deltas = drawn(3, shape)
    mean = sum((delta.double() for delta in deltas), torch.zeros(shape, dtype=torch.float64)) / 3
    close(merged(name, base, deltas, **params), base.double() + 0.5 * mean)


@pytest.mark.parametrize(("name", "params"), [("tsv_m", {"scaling": 1.0}), ("iso_c", {"scaling": 1.0}),
                                              ("sce", {"density": 0.5})])  # fmt: skip
def test_where_nothing_changed_the_base_stays(name: str, params: dict[str, float]) -> None:
    base, deltas = drawn(2, (7, 5))
    assert torch.equal(merged(name, base, [0 * delta for delta in deltas], **params), base)


def ties_formula(
    base: Tensor, trimmed: Sequence[Tensor], weights: Sequence[float], by: str, majority: float, scaling: float,
    combine: str = "mean",
) -> Tensor:  # fmt: skip
    """Return TIES element by element, of what trimming left."""
    out = base.double().clone().flatten()
    for at in range(base.numel()):
        taus = [float(tau.flatten()[at]) for tau in trimmed]
        votes = [tau * weight for tau, weight in zip(taus, weights, strict=True)] if by == "weighted" else taus
        count = sum((vote > 0) - (vote < 0) for vote in votes)
        elected = count if by == "count" and count else (sum(votes) or majority)
        kept = [(t, w) for t, w, vote in zip(taus, weights, votes, strict=True) if vote * elected > 0]
        below = sum(weight for _, weight in kept) if combine == "mean" else 1.0
        out[at] += scaling * sum(tau * weight for tau, weight in kept) / (below or 1.0)
    return out.view(base.shape)


@pytest.mark.parametrize("trim", ["model", "tensor"])
@pytest.mark.parametrize("sign", ["mass", "count"])
@pytest.mark.parametrize("weights", [None, (0.2, 0.3, 0.5)])
@pytest.mark.parametrize("n", [2, 3])
def test_ties_by_scope_and_sign(trim: str, sign: str, weights: Weights, n: int) -> None:
    base, deltas = drawn(n, (7, 5))
    deltas = [(4 * delta * (-1) ** i).round() / 4 for i, delta in enumerate(deltas)]  # some cancel exactly
    weights = weights and weights[:n]
    cut = Cutoffs((0.5, 0.75, 1.0)[:n], (0.0,) * n, -1.0) if trim == "model" else None
    if cut:
        trimmed = [torch.where(d.abs() >= low, d, 0) for d, low in zip(deltas, cut.magnitudes, strict=True)]
    else:
        trimmed = []
        for delta in deltas:
            order = delta.abs().flatten().argsort(descending=True, stable=True)[: int(0.4 * 35)]
            trimmed.append(torch.zeros(35).index_copy(0, order, delta.flatten()[order]).view(7, 5))
    expected = ties_formula(base, trimmed, weights or (1.0,) * n, sign, -1.0 if cut else 1.0, 0.8)
    close(merged("ties", base, deltas, weights, cut, scaling=0.8, retain=0.4, trim=trim, sign=sign), expected)


def test_ties_by_count_elects_what_more_experts_say() -> None:
    deltas = [torch.tensor([5.0, 1.0]), torch.tensor([-1.0, 1.0]), torch.tensor([-2.0, -2.0])]
    found = merged("ties", torch.zeros(2), deltas, scaling=1.0, retain=1.0, trim="tensor", sign="count")
    assert found.tolist() == [-1.5, 1.0]
    by_mass = merged("ties", torch.zeros(2), deltas, scaling=1.0, retain=1.0, trim="tensor")
    assert by_mass.tolist() == [5.0, 1.0]  # of a sum of 0 the sign is plus


@pytest.mark.parametrize("trim", ["model", "tensor"])
@pytest.mark.parametrize(
    ("sign", "combine"), [("weighted", "mean"), ("weighted", "sum"), ("mass", "sum"), ("count", "sum")]
)
@pytest.mark.parametrize("weights", [None, (0.25, 0.25, 0.5), (1.0, -0.5, 2.0), (0.5, 0.5, -1.0)])
def test_ties_with_weighted_votes_and_sums(trim: str, sign: str, combine: str, weights: Weights) -> None:
    base, deltas = drawn(3, (7, 5))
    deltas = [(4 * delta * (-1) ** i).round() / 4 for i, delta in enumerate(deltas)]
    cut = Cutoffs((0.5, 0.75, 1.0), (0.0,) * 3, -1.0) if trim == "model" else None
    lows = cut.magnitudes if cut else (0.0,) * 3
    trimmed = [torch.where(delta.abs() >= low, delta, 0) for delta, low in zip(deltas, lows, strict=True)]
    expected = ties_formula(base, trimmed, weights or (1.0,) * 3, sign, -1.0 if cut else 1.0, 0.8, combine)
    found = merged("ties", base, deltas, weights, cut, scaling=0.8, retain=1.0, trim=trim, sign=sign, combine=combine)
    close(found, expected)


def test_ties_of_weighted_votes_by_hand() -> None:
    """Of 3 x 1 and 1 x -2 the first wins, where the sum of the deltas is negative."""
    deltas = [torch.tensor([1.0, 1.0]), torch.tensor([-2.0, 3.0])]
    params = {"scaling": 1.0, "retain": 1.0, "trim": "tensor", "sign": "weighted"}
    assert merged("ties", torch.zeros(2), deltas, (3.0, 1.0), **params).tolist() == [1.0, 1.5]
    assert merged("ties", torch.zeros(2), deltas, (3.0, 1.0), **params, combine="sum").tolist() == [3.0, 6.0]
    assert merged("ties", torch.zeros(2), deltas, combine="sum", **params | {"sign": "mass"}).tolist() == [-2.0, 4.0]
