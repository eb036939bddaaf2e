"""A merge without torch has torch's bytes: conversions, the compiled loops of linear recipes, and the methods' arrays.

The truth is torch's own conversion and plain sums of float32 tensors, written here.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from m3_exp.merging import bits
from m3_exp.merging.check import check
from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.layout import torch_dtype
from m3_exp.merging.methods import load
from m3_exp.merging.methods.average import average
from m3_exp.merging.methods.task_arithmetic import task_arithmetic
from m3_exp.merging.methods.ties import ties
from m3_exp.merging.scan import Cutoffs
from m3_exp.merging.sparsify.dare import dare
from m3_exp.merging.stream import stream
from m3_exp.store import Store
from m3_exp.types import M3Error, Part, Recipe, Source
from tests.models import AVERAGE, TASK, TIES, write_model, write_three
from tests.test_merging_algebra import mask

ROOT = Path(__file__).parents[1]
HALVES = {"BF16": torch.bfloat16, "F16": torch.float16}
FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
MASKED = {"drop_rate": 0.2, "seed": 1}
EMBEDDING = "model.embed_tokens.weight"
SIZES = (1, 7, 2047, 2049, 65537)
MIXES = {2: (0.3, 0.7), 3: (0.2, 0.5, 0.3), 5: (0.1, 0.3, 0.2, 0.15, 0.25), 8: (0.125,) * 8}


# -------------------------------------------------------------------------------------------------------- conversions


@pytest.mark.parametrize("dtype", HALVES)
def test_every_16_bit_number_is_widened_as_by_torch(dtype: str) -> None:
    words = np.arange(1 << 16, dtype=np.uint16)
    theirs = torch.from_numpy(words.view(np.int16)).view(HALVES[dtype]).float().numpy()
    finite = np.isfinite(theirs)
    ours = bits.widened(words.view(np.uint8), dtype)
    assert np.array_equal(ours.view(np.uint32)[finite], theirs.view(np.uint32)[finite])
    assert finite.sum() > 60000


@pytest.mark.parametrize("dtype", HALVES)
def test_floats_are_rounded_as_by_torch(dtype: str) -> None:
    """Every upper half of a float32, with the lower halves about which rounding decides; NaN stays no number."""
    lower = np.array([0, 1, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    words = (np.arange(1 << 16, dtype=np.uint32)[:, None] << np.uint32(16) | lower).ravel()
    values = words.view(np.float32)
    theirs = torch.from_numpy(values).to(HALVES[dtype])
    ours = bits.rounded(values, dtype)
    number = ~np.isnan(values)
    assert np.array_equal(ours.view(np.uint16)[number], theirs.view(torch.int16).numpy().view(np.uint16)[number])
    assert not any(bits.is_finite(ours[2 * i : 2 * i + 2], dtype) for i in np.flatnonzero(~number)[::997])


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_and_inf_are_found_wherever_they_are(dtype: str) -> None:
    kind = FLOATS[dtype]
    largest = torch.finfo(kind).max
    clean = torch.tensor([0.0, -0.0, 1.0, -largest, largest, torch.finfo(kind).tiny] * 700, dtype=kind)
    assert bits.is_finite(clean.view(torch.uint8).numpy(), dtype)
    for place in (0, 1, 2047, 2048, 4198, 4199):
        for bad in (float("nan"), float("inf"), -float("inf")):
            spoilt = clean.clone()
            spoilt[place] = bad
            assert not bits.is_finite(spoilt.view(torch.uint8).numpy(), dtype)
    assert bits.is_finite(np.full(8, 255, np.uint8), "I64")


# ------------------------------------------------------------------------------------------------------------- merges


def special(size: int, dtype: torch.dtype, seed: int, by: float) -> torch.Tensor:
    """Return numbers of every size, both zeros and denormal ones among them."""
    generator = torch.Generator().manual_seed(seed)
    values = by * torch.randn(size, generator=generator) * 2.0 ** torch.randint(-16, 3, (size,), generator=generator)
    info = torch.finfo(dtype)
    few = torch.tensor([0.0, -0.0, info.smallest_normal / 2, -info.smallest_normal / 4, info.tiny, -info.tiny])
    at = torch.randperm(size, generator=generator)[: size // 10]
    values[at] = few[torch.randint(0, len(few), at.shape, generator=generator)]
    return values.to(dtype)


def write_models(folder: Path, dtypes: list[torch.dtype], odd: bool = False) -> list[Source]:
    """Write a base and experts, each of its dtype; with `odd` their data begin at an odd place of the file."""
    sources = []
    for number, dtype in enumerate(dtypes):
        weights = {
            f"model.layers.{i}.{i}.weight": special(size, dtype, 100 * number + i, 0.5) for i, size in enumerate(SIZES)
        }
        path = write_model(folder / str(number), {EMBEDDING: special(64, dtype, number, 0.5).view(8, 8), **weights})
        if odd:
            whole = (path / "model.safetensors").read_bytes()
            length = int.from_bytes(whole[:8], "little")
            header = whole[8 : 8 + length] + b" " * (1 if length % 2 == 0 else 2)
            (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + length :])
        sources.append(Source(str(path)))
    return sources


def expected(recipe: Recipe, store: Store) -> dict[str, torch.Tensor]:
    """Return what torch makes: experts in the order of the canonical recipe, in which float32 is summed.

    DARE's masks are made in plain numpy.
    """
    job = check(recipe, store)
    made = {}
    for name, entry in job.layout().items():
        base = job.base.read(name, 0, entry.numel).float()
        experts = [model.read(name, 0, entry.numel).float() for model in job.experts]
        is_sum = job.recipe.method == TASK
        deltas = [one - base if is_sum else one for one in experts]
        if recipe.sparsify:
            rate, shape = 0.2, {name: torch.Size([entry.numel])}
            keep = [mask(model.digest, 1, rate, shape) for model in job.experts]
            divisor = torch.tensor(1 - rate, dtype=torch.float32)
            deltas = [torch.where(mask, delta / divisor, 0.0) for mask, delta in zip(keep, deltas, strict=True)]
        parts = [delta * share for delta, share in zip(deltas, job.recipe.weights or (), strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        made[name] = (total + base if is_sum else total).to(torch_dtype(entry.dtype)).view(entry.shape)
    return made


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


@pytest.mark.parametrize("method", [AVERAGE, TASK])
@pytest.mark.parametrize("n", [2, 3, pytest.param(5, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_linear_recipes_have_torchs_bytes(tmp_path: Path, dtype: str, n: int, method: str) -> None:
    """Odd sizes, denormal numbers, both zeros; a tensor cut into blocks and whole."""
    base, *experts = write_models(tmp_path, [getattr(torch, dtype)] * (n + 1))
    weights, params = (MIXES[n], {}) if method == AVERAGE else (tuple(0.9 * w for w in MIXES[n]), {"scaling": 0.8})
    recipe = Recipe(base, tuple(experts), method, params, weights, dtype=dtype, check_lineage=False)
    store = Store(tmp_path / "store")
    truth = expected(recipe, store)
    for block in (999, 1 << 16):
        merged = dict(stream(recipe, store, block=block))
        assert sorted(merged) == sorted(truth)
        assert [name for name in truth if not same(merged[name], truth[name])] == []


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dare_has_torchs_bytes(tmp_path: Path, dtype: str, n: int) -> None:
    """Negative weights too, of which a dropped element makes -0."""
    base, *experts = write_models(tmp_path, [getattr(torch, dtype)] * (n + 1))
    for weights in (MIXES[n], (-0.4, *MIXES[n][1:])):
        recipe = Recipe(base, tuple(experts), TASK, {"scaling": 0.8}, weights, MASKED, dtype=dtype, check_lineage=False)
        store = Store(tmp_path / "store")
        truth = expected(recipe, store)
        for block in (999, 1 << 16):
            merged = dict(stream(recipe, store, block=block))
            assert [name for name in truth if not same(merged[name], truth[name])] == []


def elected(recipe: Recipe, store: Store) -> dict[str, torch.Tensor]:
    """Return what TIES of whole models is in plain torch, float32 steps in the order of the formula."""
    job = check(recipe, store)
    names = {name: entry.numel for name, entry in job.layout().items()}
    base = {name: job.base.read(name, 0, size).float() for name, size in names.items()}
    deltas = [{name: one.read(name, 0, names[name]).float() - base[name] for name in names} for one in job.experts]
    rank = int(sum(names.values()) * (1 - float(recipe.params["retain"])))
    lows = [torch.cat([*delta.values()]).abs().kthvalue(rank).values for delta in deltas]
    trimmed = [
        {name: torch.where(delta[name].abs() >= low, delta[name], 0.0) for name in names}
        for delta, low in zip(deltas, lows, strict=True)
    ]
    totals = {name: sum(one[name] for one in trimmed[1:]) + trimmed[0][name] for name in names}
    majority = torch.sign(sum(totals[name].sign().sum() for name in names))
    weights = torch.tensor(job.recipe.weights)
    made = {}
    for name, total in totals.items():
        sign = torch.where(total == 0, majority, total.sign())
        parts = [torch.where(one[name] * sign > 0, one[name], 0.0) for one in trimmed]
        kept = [part != 0 for part in parts]
        count = sum(one.float() for one in kept)
        share = sum(one * weight for one, weight in zip(kept, weights, strict=True))
        mixed = sum(part * weight for part, weight in zip(parts, weights, strict=True))
        mean = torch.where(count <= 1, sum(parts), mixed / torch.where(count == len(parts), 1.0, share))
        made[name] = (base[name] + float(recipe.params["scaling"]) * mean).to(torch_dtype(job.layout()[name].dtype))
    return made


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_ties_has_torchs_bytes(tmp_path: Path, dtype: str, n: int) -> None:
    base, *experts = write_models(tmp_path, [getattr(torch, dtype)] * (n + 1))
    params = {"scaling": 0.8, "retain": 0.6}
    recipe = Recipe(base, tuple(experts), TIES, params, MIXES[n], dtype=dtype, check_lineage=False)
    truth = elected(recipe, Store(tmp_path / "store"))
    for block in (999, 1 << 16):
        merged = dict(stream(recipe, Store(tmp_path / f"store-{block}"), block=block))
        assert [name for name in truth if not same(merged[name].flatten(), truth[name])] == []


@pytest.mark.parametrize(("name", "n"), [("slerp", 2), ("nuslerp", 2), ("model_stock", 3), ("karcher", 3)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_by_inner_products_have_the_bytes_of_the_methods_function(
    tmp_path: Path, dtype: str, name: str, n: int
) -> None:
    """Other tests hold the functions against float64."""
    base, *experts = write_models(tmp_path, [getattr(torch, dtype)] * (n + 1))
    params = {"slerp": {"threshold": 0.9995}, "karcher": {"steps": 10, "tolerance": 1e-5}}.get(name, {})
    weights, target = None if name == "model_stock" else MIXES[n], f"m3_exp.merging.methods.{name}:{name}"
    recipe = Recipe(base, tuple(experts), target, params, weights, dtype=dtype, check_lineage=False)
    store = Store(tmp_path / "store")
    merged, job, method = dict(stream(recipe, store)), check(recipe, store), load(target)
    for key, entry in job.layout().items():
        under = job.base.read(key, 0, entry.numel).float().view(entry.shape)
        values = [model.read(key, 0, entry.numel).float().view(entry.shape) for model in job.experts]
        given = [value - under for value in values] if method.takes_deltas else values
        more = (under,) if method.needs_base else ()
        made = method.named.function(given, job.recipe.weights, *more, **method.keywords(job.recipe.params))
        assert same(merged[key], made.to(getattr(torch, dtype))), key


@pytest.mark.parametrize("kinds", [("bfloat16", "float32", "float16"), ("float16", "bfloat16", "bfloat16")])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_models_of_several_dtypes(tmp_path: Path, kinds: tuple[str, ...], dtype: str) -> None:
    base, *experts = write_models(tmp_path, [getattr(torch, kind) for kind in kinds])
    recipe = Recipe(base, tuple(experts), TASK, {"scaling": 0.7}, (0.4, 0.5), dtype=dtype, check_lineage=False)
    truth = expected(recipe, Store(tmp_path / "store"))
    merged = dict(stream(recipe, Store(tmp_path / "store")))
    assert [name for name in truth if not same(merged[name], truth[name])] == []


def test_data_at_odd_places_of_a_file(tmp_path: Path) -> None:
    """The format does not ask for aligned data."""
    base, *experts = write_models(tmp_path / "odd", [torch.bfloat16] * 3, odd=True)
    plain = write_models(tmp_path / "even", [torch.bfloat16] * 3)
    for method, params in ((TASK, {"scaling": 0.7}), (TIES, {"scaling": 1.0, "retain": 0.6})):
        recipe = Recipe(base, tuple(experts), method, params, (0.4, 0.6), MASKED, check_lineage=False)
        other = dataclasses.replace(recipe, base=plain[0], experts=tuple(plain[1:]))
        first, second = (dict(stream(one, Store(tmp_path / "store"))) for one in (recipe, other))
        assert all(same(first[name], second[name]) for name in second)


def test_parts_of_a_model_with_weights_of_their_own(tmp_path: Path) -> None:
    base, *experts = write_models(tmp_path, [torch.bfloat16] * 3)
    store = Store(tmp_path / "store")
    whole = Recipe(base, tuple(experts), TASK, {"scaling": 1.0}, (0.2, 0.3), check_lineage=False)
    split = dataclasses.replace(whole, parts=(Part("layers 3-4", weights=(0.3, 0.7)),))
    merged, plain = dict(stream(split, store)), expected(whole, store)
    other = expected(dataclasses.replace(whole, weights=(0.3, 0.7)), store)
    for i in range(len(SIZES)):
        name = f"model.layers.{i}.{i}.weight"
        assert same(merged[name], (other if i in (3, 4) else plain)[name])


@pytest.mark.parametrize("n", [2, 3])
def test_what_does_not_fit_is_refused(tmp_path: Path, n: int) -> None:
    sources = []
    for number in range(n + 1):
        values = torch.full((500, 10), 1.0, dtype=torch.float16)
        values[432, 1] = 6e4 if number else 1.0
        sources.append(Source(str(write_model(tmp_path / str(number), {EMBEDDING: values}))))
    base, *experts = sources
    recipe = Recipe(base, tuple(experts), TASK, {"scaling": 1.0}, (0.9,) * n, dtype="float16", check_lineage=False)
    wanted = r"the merged model\.embed_tokens\.weight holds NaN or Inf in float16: its values do not fit"
    with pytest.raises(M3Error, match=wanted):
        dict(stream(recipe, Store(tmp_path / "store")))


# ------------------------------------------------------------------------------------------------- arrays for tensors


def test_functions_make_of_arrays_what_they_make_of_tensors() -> None:
    tensors = [special(5001, torch.float32, seed, 0.5) for seed in range(4)]
    arrays = [tensor.numpy() for tensor in tensors]
    shares = (0.2, 0.5, 0.3)
    cutoffs = Cutoffs((0.1, 0.2, 0.1), (0.5, 0.5, 0.5), -1.0)
    two = Cutoffs((0.1, 0.2), (0.5, 0.5), 1.0)
    pairs = [
        (average(tensors[1:], shares), average(arrays[1:], shares)),  # type: ignore[arg-type]
        *(
            (function(tensors[1:n], shares[: n - 1], tensors[0]), function(arrays[1:n], shares[: n - 1], arrays[0]))
            for n, function in (
                (4, lambda d, w, b: task_arithmetic(d, w, b, scaling=0.7)),
                (4, lambda d, w, b: ties(d, w, b, cutoffs, scaling=0.7, retain=0.5)),
                (3, lambda d, w, b: ties(d, w, b, two, scaling=0.7, retain=0.5)),
            )
        ),
    ]
    for tensor, array in pairs:
        assert isinstance(tensor, torch.Tensor)
        assert isinstance(array, np.ndarray)
        assert same(tensor, torch.from_numpy(array))
    thinned, dropped = dare(tensors[0], 77, 5, drop_rate=0.3)
    other, as_many = dare(arrays[0], 77, 5, drop_rate=0.3)  # type: ignore[arg-type]
    assert dropped == as_many
    assert same(thinned, torch.from_numpy(other))


WITHOUT = """
import sys
from pathlib import Path
from m3_exp.merging.stream import write
from m3_exp.store import Store
from m3_exp.types import Recipe, Source
root = Path(sys.argv[1])
base, a, b = (Source(str(root / name)) for name in ("base", "a", "b"))
recipes = [
    Recipe(base, (a, b), f"m3_exp.merging.methods.{name}:{name}", params, (0.3, 0.6), masked)
    for name, params, masked in (
        ("average", {}, None),
        ("task_arithmetic", {"scaling": 0.9}, {"drop_rate": 0.2, "seed": 1}),
        ("ties", {"scaling": 0.9, "retain": 0.7}, None),
    )
]
outs = [root / str(number) for number in range(3)]
print(*(done.digest for done in write(recipes, outs, Store(root / "store"), a, verify=False)))
print("torch" in sys.modules)
"""


@pytest.mark.slow
def test_a_merge_of_safetensors_imports_no_torch(tmp_path: Path) -> None:
    """Torch takes longer to import than a small model to merge."""
    write_three(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=120)
    digests, has_torch = done.stdout.splitlines()
    assert has_torch == "False"
    fresh = Store(tmp_path / "other")
    assert [open_model(Source(str(tmp_path / str(i))), fresh).digest for i in range(3)] == digests.split()
