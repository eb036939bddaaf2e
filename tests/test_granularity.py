"""The method of docs/plugins.md: whole tensors unless it says otherwise, the same bytes at any block size."""

import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from m3_exp.merging.methods import check_params, load
from m3_exp.merging.stream import stream, write
from m3_exp.store import Store
from m3_exp.types import M3Error, Parameters, Recipe, Source
from tests.models import write_three
from tests.plugins import FILES

_number = itertools.count()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("granularity")
    write_three(root, dtype=torch.float32, rows=270)
    return root


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a module yet to be written to tmp_path."""
    name = f"own_method_{next(_number)}"
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def recipe(world: Path, target: str, sparsify: Parameters | None = None, **params: float) -> Recipe:
    base, *experts = (Source(str(world / name)) for name in ("base", "a", "b"))
    return Recipe(base, tuple(experts), target, params, (0.3, 0.7), sparsify, dtype="float32")


def merged(of: Recipe, store: Path, block: int) -> tuple[str, dict[str, torch.Tensor]]:
    flow = stream(of, Store(store), block=block)
    tensors = {name: tensor.clone() for name, tensor in flow}
    return flow.digest, tensors


@pytest.mark.parametrize("sparsify", [None, {"drop_rate": 0.2, "seed": 5}])
def test_the_method_of_the_page(world: Path, tmp_path: Path, module: str, sparsify: Parameters | None) -> None:
    (tmp_path / f"{module}.py").write_text(FILES["level.py"])
    of = recipe(world, f"{module}:level", sparsify, strength=0.5)
    digests = {merged(of, tmp_path / f"store{block}", block)[0] for block in (100, 4096, 65_536, 1 << 22)}
    assert len(digests) == 1
    (written,) = write([of], [tmp_path / "out"], Store(tmp_path / "store"), Source(str(world / "base")), block=777)
    assert {written.digest} == digests


def test_its_weights_by_hand(world: Path, tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text(FILES["level.py"])
    _, found = merged(recipe(world, f"{module}:level", strength=0.5), tmp_path / "store", 1000)
    base, a, b = (load_file(world / name / "model.safetensors") for name in ("base", "a", "b"))
    name = "model.layers.0.mlp.down_proj.weight"
    first, second = a[name].double() - base[name].double(), b[name].double() - base[name].double()
    total = 0.3 * first + 0.7 * second
    expected = base[name].double() + 0.5 * (first.norm() + second.norm()) / 2 * total / total.norm()
    torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6)


DECLARES = "from m3_exp.merging.plugins import Declares\n"


@pytest.mark.parametrize("said", ["", "@Declares(granularity='tensor')"])
def test_whole_tensors_keep_their_shape(world: Path, tmp_path: Path, module: str, said: str) -> None:
    (tmp_path / f"{module}.py").write_text(
        f"import torch\n{DECLARES}\n{said}\ndef rank_one(models, weights):\n"
        "    mean = sum(models) / len(models)\n"
        "    if mean.ndim < 2:\n        return mean\n"
        "    u, s, v = torch.linalg.svd(mean, full_matrices=False)\n"
        "    return s[0] * torch.outer(u[:, 0], v[0])\n"
    )
    runs = [merged(recipe(world, f"{module}:rank_one"), tmp_path / f"s{block}", block) for block in (64, 1 << 20)]
    assert runs[0][0] == runs[1][0]
    assert torch.linalg.matrix_rank(runs[0][1]["model.layers.1.self_attn.q_proj.weight"], rtol=1e-4) == 1


def test_an_element_wise_method_gets_flat_blocks(world: Path, tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text(
        f"{DECLARES}seen = []\n\n@Declares(granularity='element')\ndef middle(models, weights):\n"
        "    seen.append(tuple(models[0].shape))\n    return sum(models) / len(models)\n"
    )
    merged(recipe(world, f"{module}:middle"), tmp_path / "store", 1000)
    assert max(sys.modules[module].seen) == (1000,)


def test_shipped_methods_say_what_they_are() -> None:
    for name in ("average", "task_arithmetic", "ties"):
        method = load(f"m3_exp.merging.methods.{name}:{name}").named
        assert not method.declares.whole_tensors(method.defaults)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(deltas, weights, base, cutoffs, *, scaling): ...", "names cutoffs, but has no `retain`"),
        (f"{DECLARES}@Declares(granularity='row')\ndef f(models, weights): ...", "granularity='row' is not known"),
        ("granularity = 'element'\ndef f(models, weights): ...", "granularity of a module says nothing"),
        ("def f(models, weights, *, rank: str): ...", "rank is no number"),
        ("1 / 0", "division by zero"),
        ("def f(", "was never closed"),
        ("def f(models): ...", "a merge method is NAME"),
        ("def f(models, weights, statistics): ...", "a merge method is NAME"),
        ("def f(models, weights, **more): ...", "a merge method is NAME"),
        ("f = 3", "is a int, not a function"),
        ("class f: ...", "is a type, not a function"),
    ],
)
def test_what_is_no_method(tmp_path: Path, module: str, text: str, said: str) -> None:
    (tmp_path / f"{module}.py").write_text(text + "\n")
    with pytest.raises(M3Error, match=re.escape(said)):
        load(f"{module}:f")


def test_a_target_is_not_called(tmp_path: Path) -> None:
    for target in ("os:system", "os:getcwd", "subprocess:run", "builtins:exec", "m3_exp.cli:main", "json:loads"):
        with pytest.raises(M3Error, match=r"merge method|not a function"):
            check_params(target, {})


@pytest.mark.parametrize("result", ["models[0].sum()", "models[0].flatten()[:3]", "None", "models[0][None]"])
def test_a_result_of_another_shape(world: Path, tmp_path: Path, module: str, result: str) -> None:
    (tmp_path / f"{module}.py").write_text(f"def f(models, weights):\n    return {result}\n")
    with pytest.raises(M3Error, match=f"method {module}:f returned"):
        merged(recipe(world, f"{module}:f"), tmp_path / "store", 4096)
