"""Blocks made on a torch device: the bytes of the ordinary path, and only steps that every device takes alike.

Here the device is `cpu`, torch's own arithmetic; benchmarks/gpu.py compares a GPU's bytes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from m3_exp.merging import kernels, sparsify
from m3_exp.merging.device import Device, draws, scalar
from m3_exp.merging.methods import Measured, known, load
from m3_exp.merging.ranks import largest, smallest, smallest_by_torch
from m3_exp.merging.scan import Cutoffs
from m3_exp.merging.sparsify import della
from m3_exp.merging.stream import stream, write
from m3_exp.store import Store
from m3_exp.types import HyperParameters, M3Error, Parameters, Part, Recipe, Source
from tests import test_methods_measured as statistics
from tests.models import Shape, fine_tuned, random_weights, resized, write_model

SMALL = Shape(vocab=40, hidden=16, inner=24, layers=1)
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
TIES_WORDS = [("model", s, c) for s in ("mass", "count", "weighted") for c in ("mean", "sum")]
SERVED: Mapping[str, tuple[str, HyperParameters]] = {
    "average": ("average", {}),
    "task_arithmetic": ("task_arithmetic", {"scaling": 0.7}),
    "nearswap": ("nearswap", {"reach": 0.01}),
    "consensus": ("consensus", {"scaling": 1.1, "threshold": 0.4, "agree": 2}),
    **{
        f"ties {sign} {combine}": (
            "ties", {"scaling": 0.9, "retain": 0.6, "trim": trim, "sign": sign, "combine": combine}
        )
        for trim, sign, combine in TIES_WORDS
    },
}  # fmt: skip
LEFT: Mapping[str, tuple[str, HyperParameters]] = {
    "slerp": ("slerp", {"threshold": 0.9995}),
    "nuslerp": ("nuslerp", {"by": "row"}),
    "karcher": ("karcher", {"steps": 10, "tolerance": 1e-5}),
    "model_stock": ("model_stock", {}),
    "sce": ("sce", {"density": 0.5}),
    "tsv_m": ("tsv_m", {"scaling": 1.0}),
    "iso_c": ("iso_c", {"scaling": 1.0}),
    "ties by tensor": ("ties", {"scaling": 0.9, "retain": 0.6, "trim": "tensor"}),
}
SPARSE: Mapping[str, Parameters | None] = {
    "none": None,
    "dare": {"drop_rate": 0.3, "seed": 7},
    "magnitude": {"density": 0.3},
    "breadcrumbs": {"density": 0.5, "gamma": 0.1},
    "della": {"density": 0.5, "epsilon": 0.2, "seed": 7},
    "della without rescaling": {"density": 0.5, "epsilon": 0.2, "rescale": "none", "seed": 7},
}
SPARSE_LEFT: Mapping[str, Parameters] = {
    "dare": {"drop_rate": 0.3, "rescale": "l1", "seed": 7},
    "magnitude": {"density": 0.3, "rescale": "l1"},
    "breadcrumbs": {"density": 0.5, "gamma": 0.1, "rescale": "l1"},
    "della": {"density": 0.5, "epsilon": 0.2, "rescale": "l1", "seed": 7},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each dtype a base and three fine-tunes of it, of which b has more rows."""
    root = tmp_path_factory.mktemp("device")
    for name, dtype in DTYPES.items():
        base = random_weights(SMALL, 0, dtype)
        write_model(root / name / "base", base, SMALL)
        for seed, expert in enumerate("abc", 1):
            tuned = fine_tuned(base, seed)
            write_model(root / name / expert, tuned if expert != "b" else resized(tuned, 43, 5), SMALL)
    return root


def recipe(
    folder: Path, method: str, params: HyperParameters, thinned: Parameters | None, dtype: str, experts: str = "abc"
) -> Recipe:
    named = load(f"m3_exp.merging.methods.{method}:{method}").named
    experts = experts[:2] if method in ("slerp", "nuslerp") else experts
    weights = (0.5, 0.2, 0.3)[: len(experts)] if named.declares.weighted else None
    sources = tuple(Source(str(folder / expert)) for expert in experts)
    return Recipe(Source(str(folder / "base")), sources, named.target, params, weights, thinned, dtype)


def of(name: str) -> Parameters | None:
    """Return a sparsifier of `SPARSE` as a recipe holds it."""
    asked = SPARSE[name]
    return None if asked is None else {**asked, "target": target(name)}


def target(name: str) -> str:
    word = name.split()[0]
    return f"m3_exp.merging.sparsify.{word}:{word}"


def made(root: Path, asked: Recipe, **how: Any) -> tuple[str, dict[str, Any]]:
    """Return the digest and the report of a merge."""
    flow = stream(asked, Store(root / "store"), **how)
    for _ in flow:
        pass
    return flow.digest, dict(flow.report)


# --------------------------------------------------------------------------------------------------------- the bytes


def same_by_both_ways(root: Path, asked: Recipe, block: int | None) -> None:
    digest, report = made(root, asked)
    found, told = made(root, asked, block=block, device="cpu")
    assert found == digest
    assert (told.pop("device"), told.pop("left_to_cpu")) == ("cpu, by torch", [])
    assert {**told, "seconds": 0} == {**report, "seconds": 0}  # shares dropped and kept, rows filled


@pytest.mark.parametrize("thinned", list(SPARSE))
@pytest.mark.parametrize("name", list(SERVED))
def test_bytes_are_those_of_the_cpu(world: Path, name: str, thinned: str) -> None:
    """In blocks of an odd size, which end within rows, and of which one holds the end of a shorter vocabulary."""
    method, params = SERVED[name]
    same_by_both_ways(world, recipe(world / "bfloat16", method, params, of(thinned), "bfloat16"), 177)


@pytest.mark.parametrize(
    ("read", "written"),
    [("float16", "float16"), ("float32", "float32"), ("bfloat16", "float32"), ("float32", "bfloat16")],
)
def test_bytes_of_every_dtype(world: Path, read: str, written: str) -> None:
    pairs = [*((name, "none") for name in SERVED), *(("task_arithmetic", thinned) for thinned in SPARSE)]
    for name, thinned in pairs:
        method, params = SERVED[name]
        same_by_both_ways(world, recipe(world / read, method, params, of(thinned), written), None)


@pytest.mark.parametrize("experts", ["a", "ab"])
@pytest.mark.parametrize("name", list(SERVED))
def test_bytes_of_fewer_experts(world: Path, name: str, experts: str) -> None:
    method, params = SERVED[name]
    asked = recipe(world / "bfloat16", method, params, None, "bfloat16", experts)
    assert made(world, asked, device="cpu", block=99)[0] == made(world, asked)[0]


@pytest.mark.parametrize("name", list(LEFT))
def test_what_no_device_serves_is_made_by_the_cpu_and_told(world: Path, name: str) -> None:
    method, params = LEFT[name]
    asked = recipe(world / "bfloat16", method, params, None, "bfloat16")
    found, told = made(world, asked, device="cpu")
    assert found == made(world, asked)[0]
    assert told["left_to_cpu"] == [f"method {method}"]


@pytest.mark.parametrize("name", list(SPARSE_LEFT))
def test_sums_of_magnitudes_are_left_to_the_cpu(world: Path, name: str) -> None:
    thinned = {**SPARSE_LEFT[name], "target": target(name)}
    asked = recipe(world / "bfloat16", "task_arithmetic", {"scaling": 0.7}, thinned, "bfloat16")
    found, told = made(world, asked, device="cpu")
    assert found == made(world, asked)[0]
    assert told["left_to_cpu"] == [f"sparsify {name}"]


def test_every_method_is_here() -> None:
    """A new method says what of it a device serves."""
    here = {method for method, _ in (*SERVED.values(), *LEFT.values())} | {"fisher", "regmean"}
    assert here == {one.partition(":")[2] for one in known()}


def test_parts_of_a_model_have_their_own_weights(world: Path) -> None:
    asked = recipe(world / "bfloat16", "ties", {"scaling": 1.0, "retain": 0.5}, of("dare"), "bfloat16")
    asked = replace(asked, parts=(Part("attention", (0.1, 0.2, 0.7)), Part("mlp", (1.0, 0.0, 0.0))))
    assert made(world, asked, device="cpu", block=50)[0] == made(world, asked)[0]


measured = statistics.world


@pytest.mark.parametrize(("name", "left"), [("fisher", []), ("regmean", ["method regmean"])])
def test_methods_by_what_was_measured(measured: Path, name: str, left: list[str]) -> None:
    asked = statistics.recipe(measured, name, "abc", (0.2, 0.3, 0.5))
    found, told = made(measured, asked, device="cpu", block=77)
    assert found == made(measured, asked)[0]
    assert told["left_to_cpu"] == left


def test_several_recipes_of_one_pass(world: Path, tmp_path: Path) -> None:
    """Some are made there and some here, from the same inputs."""
    folder = world / "bfloat16"
    recipes = [
        recipe(folder, "ties", {"scaling": 1.0, "retain": 0.5}, None, "bfloat16"),
        recipe(folder, "task_arithmetic", {"scaling": 1.0}, of("dare"), "float32"),
        recipe(folder, "nearswap", {"reach": 0.01}, None, "bfloat16", "ab"),
        recipe(folder, "ties", {"scaling": 1.0, "retain": 0.5, "trim": "tensor"}, None, "bfloat16"),
    ]
    outs = [tmp_path / str(i) for i in range(len(recipes))]
    written = write(
        recipes, outs, Store(world / "store"), Source(str(folder / "base")), verify=False, device="cpu", block=333
    )
    assert [one.digest for one in written] == [made(world, asked)[0] for asked in recipes]
    reports = [json.loads((out / "recipe.json").read_text())["report"] for out in outs]
    assert [one["left_to_cpu"] for one in reports] == [[], [], [], ["method ties"]]


def test_task_arithmetic_with_dare_is_its_formula(world: Path) -> None:
    """By its formula in float64, and splitmix64 in Python's integers."""
    asked = recipe(world / "float32", "task_arithmetic", {"scaling": 0.7}, of("dare"), "float32", "ac")
    flow = stream(asked, Store(world / "store"), device="cpu", block=100)
    name = "model.layers.0.mlp.up_proj.weight"
    found = dict(flow)[name].double().flatten()
    base, a, c = (weights_of(world / "float32" / model, name).double().flatten() for model in ("base", "a", "c"))
    inputs = {str(model.source): model.digest for model in flow.job.models}
    sparsifier = sparsify.of(asked.sparsify or {})
    expected = base.clone()
    for expert, delta, weight in (("a", a - base, 0.5), ("c", c - base, 0.2)):
        key = sparsifier.drawn_by(inputs[str(world / "float32" / expert)], name)
        kept = [splitmix(key, i) >= 0.3 for i in range(len(delta))]
        expected += 0.7 * weight * delta * torch.tensor(kept) / 0.7
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def weights_of(folder: Path, name: str) -> Tensor:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")[name]


def splitmix(key: int, index: int) -> float:
    """Return the share of 2^32 that splitmix64 (Steele, Lea and Flood 2014) draws for an index."""
    word = (1 << 64) - 1
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) & word
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
    return ((z ^ (z >> 31)) >> 32) / 2**32


# --------------------------------------------------------------------------------------------------------- its pieces


@pytest.mark.parametrize("key", [0, 1, 0x0123456789ABCDEF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("start", [0, 1, 1234567, (1 << 31) - 3, (1 << 32) - 3, 1 << 40])
def test_draws_are_those_of_the_kernel(key: int, start: int) -> None:
    expected = np.empty(1000, np.uint32)
    kernels.draw(np.uint64(key), start, expected)
    found = draws(key, start, 1000, torch.device("cpu"))
    assert found.tolist() == expected.tolist()
    assert [number / 2**32 for number in found[:5].tolist()] == [splitmix(key, start + i) for i in range(5)]


def hard_deltas(n: int) -> list[Tensor]:
    """Return deltas with zeros of both signs, equal magnitudes, opposite signs and numbers that are denormal."""
    generator = torch.Generator().manual_seed(n)
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.1, -0.1, 1e-40, -1e-40, 3e38, -3e38])
    picked = torch.randint(0, len(values), (n, 3000), generator=generator)
    drawn = torch.randn(n, 3000, generator=generator)
    return list(torch.cat([values[picked], drawn], dim=1).float())


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("majority", [1.0, 0.0, -1.0])
@pytest.mark.parametrize("weights", [None, (1, 2, 3, 4, 5), (1, 0, 0, 0, 0), (2, -0.3, -0.3, -0.3, -0.3)])
def test_ties_of_hard_numbers(n: int, majority: float, weights: tuple[float, ...] | None) -> None:
    deltas = hard_deltas(n)
    cutoffs = Cutoffs(tuple(0.1 * i for i in range(n)), (1.0,) * n, majority)
    base = torch.where(torch.arange(6000) % 3 == 0, -0.0, torch.randn(6000))
    method = load("m3_exp.merging.methods.ties:ties")
    given = (weights and weights[:n], base, cutoffs)
    params = method.keywords({"scaling": 0.9, "retain": 0.5})
    expected = method.named.function([delta.numpy() for delta in deltas], given[0], base.numpy(), cutoffs, **params)
    found = method.named.by_torch(deltas, *given, **params)
    assert found.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("rounded", [False, True])
def test_ranks_are_those_of_the_kernel(rounded: bool) -> None:
    values = torch.randn(50, 40, generator=torch.Generator().manual_seed(3))
    values = (values * 4).round() / 64 if rounded else values
    for rank in (1, 2, 500, 1999, 2000):
        assert smallest_by_torch(values, rank) == float(values.abs().flatten().kthvalue(rank).values)
        assert smallest_by_torch(values, rank) == smallest(values, rank)
    for count in (0, 1, 777, 1999, 2000, 3000):
        assert torch.equal(largest(values, count, smallest_by_torch), largest(values, count))


@pytest.mark.parametrize("dtype", list(DTYPES.values()))
def test_a_block_goes_there_and_comes_back(dtype: torch.dtype) -> None:
    """Every finite number of 16 bits, as float32 and back."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    stored = bits.view(dtype) if dtype != torch.float32 else bits.float()
    stored = stored[torch.isfinite(stored)]
    raw, code = stored.view(torch.uint8).numpy(), {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
    kept, device = raw.copy(), Device("cpu")
    values = device.floats(raw, code[str(dtype).removeprefix("torch.")])
    assert torch.equal(values, stored.float())
    device.floats(raw, code[str(dtype).removeprefix("torch.")]).zero_()
    assert raw.tobytes() == kept.tobytes()  # a mapped file does not change
    rounded = device.rounded(values, code[str(dtype).removeprefix("torch.")])
    assert rounded is not None
    assert device.fetched(rounded).tobytes() == kept.tobytes()


def test_doubles_are_rounded_and_what_is_not_finite_is_not_given() -> None:
    values = np.array([1 + 2**-24, 1e300, 0.1])
    device = Device("cpu")
    found = device.floats(values.view(np.uint8), "F64")
    with np.errstate(over="ignore"):
        assert found.numpy().tobytes() == values.astype(np.float32).tobytes()
    assert device.rounded(found, "F32") is None
    assert device.rounded(torch.tensor([70000.0]), "F16") is None
    assert device.rounded(torch.tensor([65504.0]), "F16") is not None


# ------------------------------------------------------------------------------------- steps that are alike everywhere

# Operations that IEEE 754 or integers define, element by element; what makes or moves elements; counts.
EXACT = {
    *("abs", "add", "add_", "sub", "rsub", "mul", "mul_", "div", "neg", "sign", "clamp", "where"),
    *("eq", "ne", "lt", "le", "gt", "ge", "isfinite", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor"),
    *("__and__", "__or__", "__rshift__", "__xor__", "all", "sum", "bincount", "nonzero", "sort", "argsort", "scatter_"),
    *("arange", "empty", "empty_like", "full", "full_like", "zeros", "zeros_like", "ones_like", "fill_", "clone"),
    *("_to_copy", "_local_scalar_dense", "alias", "copy_", "detach", "expand", "index"),
    *("index_put_", "lift_fresh", "scalar_tensor", "select", "slice", "unsqueeze", "view"),
}


class Watched(TorchDispatchMode):
    """Refuses what a GPU may do otherwise than a CPU, in the functions that are called under it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, given = func.overloadpacket.__name__, dict(kwargs or {})
        assert name in EXACT, f"{func} may round otherwise on a GPU"
        if name == "div":
            assert isinstance(args[1], Tensor), "a division by a number is a product with its reciprocal on a GPU"
        if name in ("add", "sub", "rsub", "add_"):
            assert [*args[2:], given.get("alpha", 1)] in ([1], [1, 1]), f"{func} is a fused multiply-add on a GPU"
        if name in ("sum", "all"):
            assert not args[0].is_floating_point(), "sums of floats depend on their order"
        return func(*args, **given)


def watched(function: Callable[[], object]) -> None:
    with Watched():
        function()


@pytest.mark.parametrize("name", [*SERVED, "fisher"])
def test_methods_take_steps_that_are_alike_everywhere(name: str) -> None:
    method, params = SERVED.get(name, ("fisher", {"sequences": 4, "length": 8, "scale": "norm"}))
    one = load(f"m3_exp.merging.methods.{method}:{method}")
    experts = [torch.randn(50) for _ in range(3)]
    extra: dict[str, object] = {"base": torch.randn(50)} if one.needs_base else {}
    if one.needs_cutoffs:
        extra["cutoffs"] = Cutoffs((0.1, 0.2, 0.3), (1.0, 1.0, 1.0), 1.0)
    if one.statistic:
        extra["measured"] = Measured([torch.rand(50) for _ in range(3)], (1.0, 2.0, 3.0))
    watched(lambda: one.named.by_torch(experts, (0.2, 0.3, 0.5), **extra, **one.keywords(params)))
    fewer = two(extra)
    watched(lambda: one.named.by_torch(experts[:2], None, **fewer, **one.keywords(params)))


def two(extra: Mapping[str, object]) -> dict[str, object]:
    fewer = {"cutoffs": Cutoffs((0.1, 0.2), (1.0, 1.0), 1.0), "measured": Measured([torch.rand(50)] * 2, (1.0, 0.0))}
    return {key: fewer.get(key, value) for key, value in extra.items()}


@pytest.mark.parametrize("name", list(SPARSE))
def test_sparsifiers_take_steps_that_are_alike_everywhere(name: str) -> None:
    if name != "none":
        sparsifier, delta = sparsify.of(of(name) or {}), torch.randn(20, 30)
        watched(lambda: sparsifier.by_torch(delta, "expert", "tensor", 0))


def test_a_device_takes_steps_that_are_alike_everywhere() -> None:
    device = Device("cpu")
    raw = torch.randn(100).to(torch.float16).view(torch.uint8).numpy()

    def round_trip() -> None:
        rounded = device.rounded(device.floats(raw, "F16"), "BF16")
        assert rounded is not None
        device.fetched(rounded)

    watched(round_trip)


@pytest.mark.parametrize("name", [*SERVED, "fisher"])
def test_no_tensor_of_the_cpu_meets_one_of_a_gpu(name: str) -> None:
    """By torch's fake tensors, which have a device and no values: they need no GPU."""
    method, params = SERVED.get(name, ("fisher", {"sequences": 4, "length": 8, "scale": "norm"}))
    one = load(f"m3_exp.merging.methods.{method}:{method}")
    with FakeTensorMode():
        experts = [torch.empty(50, device="cuda") for _ in range(3)]
        extra: dict[str, object] = {"base": torch.empty(50, device="cuda")} if one.needs_base else {}
        if one.needs_cutoffs:
            extra["cutoffs"] = Cutoffs((0.1, 0.2, 0.3), (1.0, 1.0, 1.0), 1.0)
        if one.statistic:
            extra["measured"] = Measured(experts, (1.0, 2.0, 3.0))
        made = one.named.by_torch(experts, (0.2, 0.3, 0.5), **extra, **one.keywords(params))
    assert str(made.device) == "cuda:0"


def test_what_a_sparsifier_draws_and_divides_by_is_on_its_device() -> None:
    with FakeTensorMode():
        delta = torch.empty(20, 30, device="cuda")
        made = [draws(5, 7, 100, delta.device), scalar(0.3, delta), della.probabilities(delta, 0.5, 0.2)]
    assert [str(one.device) for one in made] == ["cuda:0"] * 3


def test_the_watch_sees_what_a_gpu_does_otherwise() -> None:
    one, other = torch.randn(5), torch.randn(5)
    for step in (
        lambda: one / 3,
        lambda: torch.add(one, other, alpha=0.5),
        lambda: torch.addcmul(one, one, other),
        lambda: one.sum(),
        lambda: one.sin(),
        lambda: one @ other,
        lambda: one.lerp(other, 0.3),
    ):
        with pytest.raises(AssertionError):
            watched(step)
    watched(lambda: one / scalar(3, one))


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["gpu", "meta", "", "cuda:99"])
def test_a_device_that_is_not_here_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(M3Error, match=f"^device={name} is not [^\n]*$"):
        Device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused_before_anything_is_read(world: Path, tmp_path: Path) -> None:
    asked = recipe(world / "bfloat16", "average", {}, None, "bfloat16")
    with pytest.raises(M3Error, match=r"^device=cuda is not on this machine"):
        write([asked], [tmp_path / "out"], Store(tmp_path / "store"), asked.base, device="cuda")
    assert not (tmp_path / "out").exists()


def test_an_overflow_is_refused_as_on_the_cpu(tmp_path: Path) -> None:
    base = random_weights(SMALL, 0, torch.float32)
    write_model(tmp_path / "base", base, SMALL)
    write_model(tmp_path / "a", {name: value * 1e6 for name, value in base.items()}, SMALL)
    asked = Recipe(
        Source(str(tmp_path / "base")), (Source(str(tmp_path / "a")),), "m3_exp.merging.methods.average:average", {},
        dtype="float16", check_lineage=False,
    )  # fmt: skip
    errors = []
    for device in (None, "cpu"):
        with pytest.raises(M3Error, match="holds NaN or Inf in float16") as refused:
            made(tmp_path, asked, device=device, threads=1)
        errors.append(str(refused.value))
    assert errors[0] == errors[1]
