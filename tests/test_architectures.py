"""Merges of tiny models of many architectures have the logits of a merge in float64 (`tests/formulas.py`).

The formulas are put to the tensors as transformers saved them, and transformers loads both results, in float64.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from m3_exp.merging.stream import write
from m3_exp.store import Store
from m3_exp.types import Recipe, Source
from tests import formulas
from tests.architectures import KINDS, NAMES, ROWS, config_of, three
from tests.formulas import Model

WEIGHTS = (0.25, 0.75)
CLOSE = 5e-5  # of logits whose spread is about 0.1 to 1: weights are rounded to float32
SHORT = ("llama", "gpt2", "gpt_oss", "deepseek_v3", "mamba")
TOKEN_IDS = torch.arange(3, 27)[None] % ROWS
Formula = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Tensor]  # of the base, the experts, the deltas

FORMULAS: dict[str, Formula] = {
    "average": lambda base, experts, deltas: formulas.total(experts, WEIGHTS),
    "task_arithmetic": lambda base, experts, deltas: base + 0.8 * formulas.total(deltas, WEIGHTS),
    "slerp": lambda base, experts, deltas: formulas.arc(*experts, WEIGHTS[0], threshold=0.9995),
    "nuslerp": lambda base, experts, deltas: base + formulas.arc(*deltas, WEIGHTS[0]),
    "karcher": lambda base, experts, deltas: formulas.karcher(experts, WEIGHTS),
    "model_stock": lambda base, experts, deltas: formulas.model_stock(base, deltas),
    "sce": lambda base, experts, deltas: formulas.sce(base, deltas, 0.7),
    "consensus": lambda base, experts, deltas: formulas.consensus(base, deltas, WEIGHTS, 0.8, 0.4, 1),
    "nearswap": lambda base, experts, deltas: formulas.nearswap(base, deltas, WEIGHTS, 0.015),
    "tsv_m": lambda base, experts, deltas: formulas.tsv_m(base, deltas, WEIGHTS, 0.8),
    "iso_c": lambda base, experts, deltas: formulas.iso_c(base, deltas, 0.8),
}
PARAMS: dict[str, dict[str, float]] = {
    "task_arithmetic": {"scaling": 0.8}, "ties": {"scaling": 0.8, "retain": 0.6}, "slerp": {"threshold": 0.9995},
    "karcher": {"steps": 200, "tolerance": 1e-7}, "sce": {"density": 0.7}, "tsv_m": {"scaling": 0.8},
    "consensus": {"scaling": 0.8, "threshold": 0.4, "agree": 1}, "iso_c": {"scaling": 0.8},
    "nearswap": {"reach": 0.015},
}  # fmt: skip
UNWEIGHTED = ("model_stock", "sce", "iso_c")
METHODS = (*FORMULAS, "ties")


def stored(folder: Path) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in _files(folder).items()}


def _files(folder: Path) -> Mapping[str, Tensor]:
    (file,) = folder.glob("*.safetensors")
    found: Mapping[str, Tensor] = load_file(file)
    return found


def expected(method: str, base: Model, experts: Sequence[Model]) -> dict[str, Tensor]:
    """Return the merge in float64 of whatever is a float; the rest is the first expert's."""
    names = [name for name, value in base.items() if value.is_floating_point()]
    deltas = [{name: expert[name] - base[name] for name in names} for expert in experts]
    if method == "ties":
        made = formulas.ties({name: base[name] for name in names}, deltas, WEIGHTS, 0.6, 0.8)
    else:
        made = {
            name: FORMULAS[method](base[name], [expert[name] for expert in experts], [delta[name] for delta in deltas])
            for name in names
        }
    return {**experts[0], **made}


def logits(folder: Path) -> Tensor:
    """Return the logits of a folder's model in float64; it must hold each of its tensors and no other."""
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, experts_implementation="eager", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    with torch.no_grad():
        found: Tensor = model.eval()(TOKEN_IDS).logits.double()
    assert torch.isfinite(found).all()
    return found


def as_model(root: Path, name: str, weights: Mapping[str, Tensor]) -> Path:
    shutil.copytree(root / "a", root / name, ignore=shutil.ignore_patterns("*.safetensors"))
    whole = {key: value.contiguous() for key, value in weights.items()}
    save_file(whole, root / name / "model.safetensors", metadata={"format": "pt"})
    return root / name


def differences(root: Path, kind: str, methods: Sequence[str]) -> dict[str, float]:
    """Return the largest difference of a logit for each method whose merge is not that of its formula."""
    three(root, config_of(kind))
    base, a, b = (Source(str(root / name)) for name in NAMES)
    recipes = [
        Recipe(
            base, (a, b), f"m3_exp.merging.methods.{method}:{method}", PARAMS.get(method, {}),
            None if method in UNWEIGHTED else WEIGHTS, dtype="float32",
        )
        for method in methods
    ]  # fmt: skip
    outs = [root / f"ours-{method}" for method in methods]
    write(recipes, outs, Store(root / "store"), tokenizer=a, with_tokenizer=False)
    weights, ends = [stored(root / name) for name in NAMES], [logits(root / name) for name in NAMES]
    far = {}
    for method, out in zip(methods, outs, strict=True):
        truth = logits(as_model(root, f"truth-{method}", expected(method, weights[0], weights[1:])))
        assert all(float((truth - end).abs().max()) > 40 * CLOSE for end in ends), method  # or nothing is compared
        if (gap := float((logits(out) - truth).abs().max())) > CLOSE:
            far[method] = gap
    return far


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHORT)
def test_some_methods_on_some_architectures(tmp_path: Path, kind: str) -> None:
    assert differences(tmp_path, kind, ("average", "ties", "karcher")) == {}


@pytest.mark.long
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_method_on_each_architecture(tmp_path: Path, kind: str) -> None:
    assert differences(tmp_path, kind, METHODS) == {}
