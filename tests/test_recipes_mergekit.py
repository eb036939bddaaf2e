"""The same weights through mergekit 0.1.5 and through the command that `m3 recipe import` prints, and back.

`recipes_mergekit.json` holds what mergekit made of each recipe (`mergekit_peer.py`). Where mergekit is installed beside
m3, or M3_MERGEKIT names a python that has it, it is run again, and every element is compared.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from m3_exp.actions import merge
from m3_exp.command_line import CommandLine
from m3_exp.config import compose
from m3_exp.merging.canonical import tensors
from m3_exp.planning import variants
from m3_exp.recipes.exporting import exported
from m3_exp.recipes.importing import command
from m3_exp.store import Store
from tests import mergekit_peer as peer

PEER = os.environ.get("M3_MERGEKIT") or (sys.executable if importlib.util.find_spec("mergekit") else None)
needs_mergekit = pytest.mark.skipif(PEER is None, reason="mergekit is not installed, and M3_MERGEKIT names no python")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return peer.make_models(tmp_path_factory.mktemp("models"))


def ours(name: str, text: str, folder: Path) -> Path:
    """Import a recipe, carry out the line that is printed, and return the file of the merge."""
    file = folder / f"{name}.yaml"
    file.write_text(text)
    more = CommandLine((f"out={folder / name}", f"store={folder / 'store'}", "tokenizer=none", "verify=false"))
    merge(CommandLine.of_line(command(file, more).asked.line("merge")))
    return folder / name / "model.safetensors"


@pytest.mark.parametrize("name", peer.RECIPES)
def test_imported_recipe_makes_the_recorded_weights(name: str, models: dict[str, Path], tmp_path: Path) -> None:
    merged = peer.sums(ours(name, peer.with_models(peer.RECIPES[name], models), tmp_path))
    record = json.loads(peer.RECORD.read_text())
    assert merged.keys() == {*record["tensors"]}
    for tensor, mean in zip(record["tensors"], record[name], strict=True):
        assert merged[tensor] == pytest.approx(mean, abs=5e-6), tensor


def difference(one: Path, other: Path) -> float:
    """Return the largest difference between two files' elements; both must hold the same tensors."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name].astype(float) - second[name].astype(float)).max()) for name in first)


def run_mergekit(recipes: dict[str, str], folder: Path) -> None:
    (folder / "recipes.json").write_text(json.dumps(recipes))
    line = [str(PEER), peer.__file__, str(folder), str(folder / "recipes.json")]
    subprocess.run(line, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})


@pytest.mark.slow
@needs_mergekit
def test_both_make_every_element_alike(models: dict[str, Path], tmp_path: Path) -> None:
    recipes = {name: peer.with_models(text, models) for name, text in peer.RECIPES.items()}
    run_mergekit(recipes, tmp_path)
    for name, text in recipes.items():
        own = ours(f"{name}_ours", text, tmp_path)
        assert difference(own, tmp_path / name / "model.safetensors") < 1e-6, name


def check_drawn(merged: Path, models: dict[str, Path]) -> None:
    """Check dare_linear without rescaling: an element is that of the base, or base + 0.5 delta, and 0.8 of them are."""
    base, expert, made = (
        load_file(path) for path in (*(models[name] / "model.safetensors" for name in ("base", "a")), merged)
    )
    kept = total = 0
    for name, tensor in made.items():
        moved = 0.5 * (expert[name] - base[name])
        stays = np.abs(tensor - base[name]) < np.abs(moved) / 2
        assert np.abs(np.where(stays, base[name], base[name] + moved) - tensor).max() < 1e-6, name
        kept, total = kept + int((~stays).sum()), total + stays.size
    assert kept / total == pytest.approx(0.8, abs=4 * (0.16 / total) ** 0.5)


def test_imported_dare_drops_as_mergekit_does(models: dict[str, Path], tmp_path: Path) -> None:
    check_drawn(ours("drawn", peer.with_models(peer.DRAWN, models), tmp_path), models)


@pytest.mark.slow
@needs_mergekit
def test_mergekit_drops_so(models: dict[str, Path], tmp_path: Path) -> None:
    run_mergekit({"drawn": peer.with_models(peer.DRAWN, models)}, tmp_path)
    check_drawn(tmp_path / "drawn" / "model.safetensors", models)


EXPORTED = {
    "average": ("method=average", "ratio=fixed", "ratio.lam=0.3"),
    "task_arithmetic": ("method=task_arithmetic", "method.scaling=0.6"),
    "ties": ("method=ties", "method.retain=0.6", "method.trim=tensor", "method.scaling=0.9"),
    "ties_weighted": (
        *("method=ties", "method.retain=0.6", "method.trim=tensor", "method.sign=weighted", "ratio=fixed"),
        *("ratio.weights=[0.9,0.4]", "method.combine=sum"),
    ),
    "ties_rescaled": (
        *("method=ties", "method.retain=1.0", "method.trim=tensor", "sparsify=magnitude", "sparsify.density=0.6"),
        "sparsify.rescale=l1",
    ),
    "breadcrumbs": ("method=task_arithmetic", "sparsify=breadcrumbs", "sparsify.density=0.6", "sparsify.gamma=0.1"),
    "slerp": ("method=slerp", "ratio=fixed", "ratio.lam=0.3"),
    "slerp_depth": ("method=slerp", "ratio=depth", "ratio.first=0.1", "ratio.last=0.9"),
    "nuslerp": ("method=nuslerp", "ratio=fixed", "ratio.lam=0.3", "method.by=row"),
    "karcher": ("method=karcher",),
    "model_stock": ("method=model_stock",),
    "sce": ("method=sce", "method.density=0.4"),
    "depth": ("method=average", "ratio=depth", "ratio.first=0.1", "ratio.last=0.9", "ratio.rest=0.4"),
    "parts": (
        "method=task_arithmetic",
        "ratio=parts",
        "ratio.parts={attention: [0.3,0.4], layers 1-2: [0.7,0.2], head: [0.9,0]}",
        "ratio.rest=[0.5,1]",
    ),
}


def words(name: str, models: dict[str, Path], folder: Path) -> CommandLine:
    family = ("family=local", f"family.base={models['base']}", f"family.experts=[{models['a']},{models['b']}]")
    ways = ("tokenizer=none", "verify=false", "dtype=float32", f"store={folder / 'store'}", f"out={folder / name}")
    return CommandLine((*family, *EXPORTED[name], *ways))


@pytest.mark.parametrize("name", ["depth", "parts", "slerp_depth"])
def test_what_was_exported_is_imported_again(name: str, models: dict[str, Path], tmp_path: Path) -> None:
    """Every tensor has the weights that it had."""
    (tmp_path / "out.yaml").write_text(exported(words(name, models, tmp_path)).text)
    more = CommandLine(("tokenizer=none", f"store={tmp_path / 'store'}", f"out={tmp_path / 'back'}"))
    tables = []
    for asked in (words(name, models, tmp_path), command(tmp_path / "out.yaml", more).asked):
        request = compose(asked)
        ((_, recipe),) = variants(request.configs[0])
        tables.append(tensors(recipe, Store(request.store)).weights)
    assert tables[0].keys() == tables[1].keys()
    for tensor, weights in tables[0].items():
        assert tables[1][tensor] == pytest.approx(weights, abs=1e-12), tensor


@pytest.mark.slow
@needs_mergekit
def test_mergekit_makes_what_was_exported(models: dict[str, Path], tmp_path: Path) -> None:
    run_mergekit({f"{name}_theirs": exported(words(name, models, tmp_path)).text for name in EXPORTED}, tmp_path)
    for name in EXPORTED:
        merge(words(name, models, tmp_path))
        theirs = tmp_path / f"{name}_theirs" / "model.safetensors"
        assert difference(tmp_path / name / "model.safetensors", theirs) < 1e-6, name
