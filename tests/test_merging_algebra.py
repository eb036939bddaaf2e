"""Every method x ratio x sparsify against the protocol's formulas, in memory and in float64."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from blake3 import blake3

from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.stream import stream
from m3_exp.store import Store
from m3_exp.types import Parameters, Recipe, Source
from tests.models import Shape, Weights, fine_tuned, random_weights, resized, write_model

METHODS: dict[str, dict[str, float]] = {
    "average": {},
    "task_arithmetic": {"scaling": 0.7},
    "ties": {"scaling": 0.9, "retain": 0.6},
}
ROWS = 264
VOCABULARY = ("lm_head.weight", "model.embed_tokens.weight")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    base = random_weights(Shape(), 0)
    write_model(root / "base", base, shards=2)
    write_model(root / "a", fine_tuned(base, 1), shards=3)
    write_model(root / "b", resized(fine_tuned(base, 2), ROWS + 1, 5), layout="bin", shards=2)
    return root


def load(folder: Path) -> Weights:
    """Read a model without our own reader."""
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    parts = [load_file(f) if f.suffix == ".safetensors" else torch.load(f, weights_only=True) for f in files]
    return {name: value for part in parts for name, value in part.items()}


def named(weights: Weights) -> list[tuple[str, torch.Tensor]]:
    return sorted(weights.items())


def full_rows(name: str, value: torch.Tensor) -> int:
    return ROWS + 1 if name in VOCABULARY else value.shape[0]


def flattened(weights: Mapping[str, torch.Tensor], rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all elements as float64, vocabularies padded with the mean row, and which of them are the base's own."""
    parts, own = [], []
    for name in sorted(weights):
        value = weights[name].double()
        kept = torch.ones_like(value, dtype=torch.bool)
        if name in VOCABULARY and value.shape[0] < rows:
            new = value.mean(0, keepdim=True).float().double()
            value = torch.cat([value, new.expand(rows - value.shape[0], -1)])
        if name in VOCABULARY:
            kept = torch.arange(rows)[:, None].expand(-1, value.shape[1]) < ROWS
        parts.append(value.reshape(-1))
        own.append(kept.reshape(-1))
    return torch.cat(parts), torch.cat(own)


def mask(digest: str, seed: int, drop_rate: float, shapes: Mapping[str, torch.Size]) -> torch.Tensor:
    """Return which elements DARE keeps: splitmix64 of a key and the element's index, in plain numpy."""
    parts = []
    for name in sorted(shapes):
        key = int.from_bytes(blake3(f"dare 1\n{seed}\n{digest}\n{name}".encode()).digest()[:8], "little")
        with np.errstate(over="ignore"):
            index = np.arange(1, shapes[name].numel() + 1, dtype=np.uint64)
            z = np.uint64(key) + index * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
        parts.append(z >= round(drop_rate * 2**32))
    return torch.from_numpy(np.concatenate(parts))


def ties_formula(d1: torch.Tensor, d2: torch.Tensor, own: torch.Tensor, lam: float, s: float, r: float) -> torch.Tensor:
    n = int(own.sum())
    trimmed = []
    for delta in (d1, d2):
        k = int(n * (1 - r))
        cutoff = delta[own].abs().kthvalue(k).values if k else 0.0
        trimmed.append(torch.where(delta.abs() >= cutoff, delta, 0.0))
    sign = torch.sign(trimmed[0] + trimmed[1])
    majority = torch.sign(sign[own].sum())
    sign = torch.where(sign == 0, majority, sign)
    k1, k2 = (torch.sign(t) == sign for t in trimmed)
    both = lam * trimmed[0] + (1 - lam) * trimmed[1]
    alone = torch.where(k1, trimmed[0], torch.where(k2, trimmed[1], 0.0))
    return s * torch.where(k1 & k2, both, alone)


def formula(world: Path, method: str, lam: float | None, sparsify: Parameters | None, rows: int) -> torch.Tensor:
    store = Store(world / "store")
    theta = {name: load(world / name) for name in ("base", "a", "b")}
    (t0, own), (t1, _), (t2, _) = (flattened(theta[name], rows) for name in ("base", "a", "b"))
    d1, d2 = (t1 - t0).float().double(), (t2 - t0).float().double()  # deltas are float32 by design
    if sparsify:
        shapes = {name: value.shape for name, value in theta["b"].items()}
        for delta, name in ((d1, "a"), (d2, "b")):
            digest = open_model(Source(str(world / name)), store).digest
            delta *= mask(digest, sparsify["seed"], sparsify["drop_rate"], shapes) / (1 - sparsify["drop_rate"])
    params = METHODS[method]
    if method == "ties":
        return t0 + ties_formula(d1, d2, own, 0.5 if lam is None else lam, params["scaling"], params["retain"])
    scaling = params.get("scaling", 1.0)
    plain = 0.5 if method == "average" else 1.0
    w1, w2 = (plain, plain) if lam is None else (lam, 1 - lam)
    return t0 + scaling * (w1 * d1 + w2 * d2)


def merged(world: Path, method: str, lam: float | None, sparsify: Parameters | None, **more: object) -> Weights:
    source = {name: Source(str(world / name)) for name in ("base", "a", "b")}
    weights = None if lam is None else (lam, 1 - lam)
    target = f"m3_exp.merging.methods.{method}:{method}"
    recipe = Recipe(source["base"], (source["a"], source["b"]), target, METHODS[method], weights, sparsify, **more)  # type: ignore[arg-type]
    return dict(stream(recipe, Store(world / "store")))


@pytest.mark.parametrize(
    "sparsify", [None, {"drop_rate": 0.2, "seed": 11}, {"drop_rate": 0.9, "seed": 3}], ids=["none", "dare", "dare0.9"]
)
@pytest.mark.parametrize("lam", [None, 0.0, 0.7310585786, 1.0])
@pytest.mark.parametrize("method", list(METHODS))
def test_within_one_rounding_of_the_formula(
    world: Path, method: str, lam: float | None, sparsify: Parameters | None
) -> None:
    output = merged(world, method, lam, sparsify)
    rows = output["lm_head.weight"].shape[0]
    assert rows == (ROWS if method != "ties" and lam == 1.0 else ROWS + 1)  # b has no share then
    expected = formula(world, method, lam, sparsify, ROWS + 1)
    chunks = expected.split([value.numel() // value.shape[0] * full_rows(name, value) for name, value in named(output)])
    expected = torch.cat([chunk[: value.numel()] for chunk, (_, value) in zip(chunks, named(output), strict=True)])
    found = torch.cat([value.reshape(-1) for _, value in named(output)])
    assert found.dtype == torch.bfloat16
    _, exponent = torch.frexp(expected)
    half_step = torch.ldexp(torch.full_like(expected, 0.5), exponent - 8)
    slack = 4 * 2.0**-24 * (expected.abs() + 1)  # float32 arithmetic on terms of size about 1
    off = (found.double() - expected).abs()
    assert bool((off <= half_step + slack).all()), f"{int((off > half_step + slack).sum())} elements are off"


@pytest.mark.parametrize("sparsify", [None, {"drop_rate": 0.2, "seed": 11}], ids=["none", "dare"])
@pytest.mark.parametrize("method", list(METHODS))
def test_affine_in_lambda(world: Path, method: str, sparsify: Parameters | None) -> None:
    """theta(lambda) = theta(0) + lambda (theta(1) - theta(0)): thresholds, signs and masks never see lambda."""
    ends = [merged(world, method, lam, sparsify, dtype="float32") for lam in (0.0, 0.25, 1.0)]
    for name, middle in ends[1].items():
        rows = min(end[name].shape[0] for end in ends)
        low, high = (end[name][:rows].double() for end in (ends[0], ends[2]))
        assert torch.allclose(middle[:rows].double(), low + 0.25 * (high - low), rtol=0, atol=2e-6)


def test_mask_drops_its_share_and_differs_between_experts_and_tensors(world: Path) -> None:
    source = [Source(str(world / name)) for name in ("base", "a", "b")]
    target = "m3_exp.merging.methods.task_arithmetic:task_arithmetic"
    recipe = Recipe(source[0], (source[1], source[2]), target, {"scaling": 1.0}, None, {"drop_rate": 0.3, "seed": 1})
    flow = stream(recipe, Store(world / "store"))
    for _ in flow:
        pass
    assert len(flow.report["dropped"]) == 2
    assert all(abs(rate - 0.3) < 0.01 for rate in flow.report["dropped"].values())
    shape = {"x": torch.Size([40, 50]), "y": torch.Size([40, 50])}
    kept = mask("some digest", 1, 0.3, shape).view(2, -1)
    assert 0.4 < float((kept[0] == kept[1]).double().mean()) < 0.7  # 0.58 where independent


def test_exact_magnitudes_where_deltas_tie(tmp_path: Path) -> None:
    """Cut-offs equal torch.kthvalue at every rank, with many equal |delta|, and ties at the cut-off all survive."""
    from m3_exp.merging.checkpoint import thread_pool
    from m3_exp.merging.scan import Scan, cutoffs

    generator = torch.Generator().manual_seed(0)
    delta = (torch.randn(5000, generator=generator) * 20).round() / 64
    delta[:40] = torch.tensor([0.0, -0.0, 1e-40, -1e-40] * 10)
    for retain in (1.0, 0.9999, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0001):
        scan = Scan("b", ("e",), {"t": 5000}, retain, None, lambda n, a, b, e: [delta[a:b].numpy()], 700)
        with thread_pool(2) as pool:
            found = cutoffs(scan, Store(tmp_path / str(retain)), pool)
        k = int(5000 * (1 - retain))
        expected = float(delta.abs().kthvalue(k).values) if k else 0.0
        assert found.magnitudes == (expected,)
        assert found.kept[0] == pytest.approx(float((delta.abs() >= expected).double().mean()), abs=1e-12)


def test_ties_of_three(tmp_path: Path) -> None:
    """More than two experts: the kept ones by their proportions, one alone as it is."""
    from m3_exp.merging.methods.ties import ties
    from m3_exp.merging.scan import Cutoffs

    deltas = [
        torch.tensor(x) for x in ([3.0, 3.0, -1.0, 0.1, 2.0], [1.0, -9.0, -3.0, 0.1, -2.0], [2.0, 1.0, 9.0, 5.0, 0.0])
    ]
    cut = Cutoffs((0.5, 0.5, 0.5), (1.0, 1.0, 1.0), -1.0)
    out = ties(deltas, (0.5, 0.25, 0.25), torch.zeros(5), cut, scaling=2.0, retain=0.9)
    assert out.tolist() == [2 * 2.25, -18.0, 18.0, 10.0, -4.0]
