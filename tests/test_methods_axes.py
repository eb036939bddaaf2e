"""The methods of whole tensors on the axes that all methods share: order, blocks, parts, ends, what is refused."""

import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from m3_exp import config
from m3_exp.command_line import ROOT
from m3_exp.merging import methods, sparsify
from m3_exp.merging.canonical import canonical, keyed
from m3_exp.merging.stream import stream
from m3_exp.planning import build, label_text
from m3_exp.store import Store
from m3_exp.types import HyperParameters, M3Error, Parameters, Part, Recipe, Source
from tests.models import Shape, fine_tuned, random_weights, resized, write_model
from tests.test_methods_formulas import merged

BASE, A, B, C = (Source(name) for name in ("base", "a", "b", "c"))
SMALL = Shape(vocab=40, hidden=16, inner=24, layers=2)
PARAMS: Mapping[str, HyperParameters] = {
    "slerp": {"threshold": 0.9995},
    "nuslerp": {"by": "row"},
    "karcher": {"steps": 10, "tolerance": 1e-5},
    "consensus": {"scaling": 1.0, "threshold": 0.4, "agree": 2},
    "tsv_m": {"scaling": 1.0},
    "model_stock": {},
    "sce": {"density": 0.5},
    "iso_c": {"scaling": 1.0},
    "nearswap": {"reach": 0.001},
}
OF_TWO = ("slerp", "nuslerp")
WITHOUT_WEIGHTS = ("model_stock", "sce", "iso_c")
WEIGHTED = [name for name in PARAMS if name not in WITHOUT_WEIGHTS]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("axes")
    base = random_weights(SMALL, 0)
    write_model(root / "base", base, SMALL)
    for seed, name in enumerate("abc", 1):
        write_model(root / name, fine_tuned(base, seed) if name != "b" else resized(fine_tuned(base, 2), 43, 5), SMALL)
    return root


def recipe(name: str, experts: tuple[Source, ...], weights: tuple[float, ...] | None = None) -> Recipe:
    return Recipe(
        BASE, experts, f"m3_exp.merging.methods.{name}:{name}", PARAMS.get(name, {}), weights, dtype="float32"
    )


def at(world: Path, of: Recipe) -> Recipe:
    """Return a recipe whose models lie in the world."""
    base, *experts = (Source(str(world / one.location)) for one in (of.base, *of.experts))
    return replace(of, base=base, experts=tuple(experts))


def digest(world: Path, of: Recipe, block: int = 1 << 16, threads: int = 2) -> str:
    flow = stream(at(world, of), Store(world / "store"), block=block, threads=threads)
    for _ in flow:
        pass
    return flow.digest


@pytest.mark.parametrize("name", list(PARAMS))
def test_no_order_block_or_thread_reaches_a_byte(world: Path, name: str) -> None:
    weights, order = ((0.3, 0.7), (1, 0)) if name in OF_TWO else ((0.2, 0.3, 0.5), (2, 0, 1))
    experts = (A, B, C)[: len(order)]
    given = None if name in WITHOUT_WEIGHTS else weights
    moved = None if given is None else tuple(given[i] for i in order)
    first = digest(world, recipe(name, experts, given))
    assert digest(world, recipe(name, tuple(experts[i] for i in order), moved), 999, 1) == first


@pytest.mark.parametrize("name", list(PARAMS))
def test_each_tensor_is_what_the_function_makes_of_it(world: Path, name: str) -> None:
    """A streamed tensor is the function's result on the tensors as another reader has them."""
    from safetensors.torch import load_file

    weights = None if name in WITHOUT_WEIGHTS else (0.3, 0.7)
    output = dict(stream(at(world, recipe(name, (A, C), weights)), Store(world / "store")))
    base, *experts = (load_file(world / model / "model.safetensors") for model in ("base", "a", "c"))
    assert output.keys() == base.keys()
    for tensor in ("model.layers.1.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"):
        deltas = [expert[tensor].float() - base[tensor].float() for expert in experts]
        expected = merged(name, base[tensor].float(), deltas, weights, **PARAMS[name])
        torch.testing.assert_close(output[tensor], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", WEIGHTED)
def test_by_part(world: Path, name: str) -> None:
    """Each part is what the merge of the whole model with its weights has there."""
    whole = [
        dict(stream(at(world, recipe(name, (A, C), of)), Store(world / "store"))) for of in ((0.2, 0.8), (0.6, 0.4))
    ]
    by_part = replace(recipe(name, (A, C), (0.6, 0.4)), parts=(Part("attention", (0.2, 0.8)),))
    for tensor, made in stream(at(world, by_part), Store(world / "store")):
        assert torch.equal(made, whole["self_attn" not in tensor][tensor]), tensor


@pytest.mark.parametrize("name", ["slerp", "nuslerp", "karcher"])
def test_the_ends_of_an_arc_are_the_experts(name: str) -> None:
    alone = canonical(Recipe(BASE, (A,), "m3_exp.merging.methods.average:average", {}, (1.0,), dtype="float32"))
    assert canonical(recipe(name, (A, B), (1.0, 0.0))) == alone
    assert canonical(recipe(name, (B, A), (0.0, 2.0))) == alone
    assert canonical(recipe(name, (A, A))) == alone
    assert canonical(recipe(name, (A, B))) == canonical(recipe(name, (B, A), (3.0, 3.0)))
    for form in (recipe(name, (A, B), (0.3, 0.7)), recipe(name, (A, B))):
        assert canonical(canonical(form)) == canonical(form)


def test_an_expert_without_a_share_is_no_part_of_a_karcher_mean() -> None:
    assert canonical(recipe("karcher", (A, B, C), (0.5, 0.0, 0.5))) == canonical(recipe("karcher", (A, C)))


@pytest.mark.parametrize("name", ["consensus", "tsv_m"])
def test_an_expert_without_a_share_still_counts(world: Path, name: str) -> None:
    """Its delta decides about masks, or about the space that others have."""
    assert canonical(recipe(name, (A, B), (1.0, 0.0))) != canonical(recipe(name, (A,), (1.0,)))
    assert digest(world, recipe(name, (A, C), (1.0, 0.0))) != digest(world, recipe("karcher", (A,)))


@pytest.mark.parametrize("name", ["consensus", "nearswap", "tsv_m"])
def test_affine_in_the_weights(world: Path, name: str) -> None:
    """What a method does not deny in Declares: the middle of two merges is the merge of the middle."""
    low, middle, high = (
        dict(stream(at(world, recipe(name, (A, C), weights)), Store(world / "store")))
        for weights in ((0.0, 1.0), (0.25, 0.75), (1.0, 0.0))
    )
    for tensor, made in middle.items():
        torch.testing.assert_close(made, 0.75 * low[tensor] + 0.25 * high[tensor], rtol=0, atol=5e-6)


def test_the_base_is_no_part_of_what_does_not_read_it(world: Path) -> None:
    for name, reads in (("slerp", False), ("karcher", False), ("nuslerp", True), ("model_stock", True)):
        one = recipe(name, (A, B))
        keys = {keyed(replace(one, base=base), lambda source: source, Store(world / "store")).key for base in (BASE, C)}
        assert len(keys) == 1 + reads


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (recipe("slerp", (A, B, C)), "take two experts, there are 3: method=karcher"),
        (recipe("nuslerp", (A, B, C), (0.2, 0.3, 0.5)), "take two experts, there are 3: method=karcher"),
        (recipe("model_stock", (A, B), (0.5, 0.5)), "model_stock takes no weights of experts: give ratio=plain"),
        (recipe("sce", (A, B), (0.5, 0.5)), "sce takes no weights of experts: give ratio=plain"),
        (replace(recipe("iso_c", (A, B)), parts=(Part("all", (0.5, 0.5)),)), "iso_c takes no weights of experts"),
        (recipe("model_stock", (A,)), "model_stock needs two experts at least"),
        (recipe("slerp", (A, B), (1.0, -1.0)), "sum to 0"),
        (replace(recipe("nuslerp", (A, B)), params={"by": "layer"}), "method.by=layer is not known: tensor or row"),
        (replace(recipe("slerp", (A, B)), params={"threshold": 0.0}), "method.threshold=0.0 is out of range"),
        (replace(recipe("slerp", (A, B)), params={"threshold": "far"}), "method.threshold=far is not a number"),
        (replace(recipe("karcher", (A, B)), params={"steps": 2.5, "tolerance": 1e-5}), "is not a whole number"),
        (
            replace(recipe("slerp", (A, B)), sparsify={"drop_rate": 0.2, "seed": 1}),
            "takes the experts themselves .* give sparsify=none",
        ),
    ],
)
def test_refused(world: Path, of: Recipe, said: str) -> None:
    with pytest.raises(M3Error, match=said):
        digest(world, of)


def test_ties_by_tensor_and_by_count(world: Path) -> None:
    """No block or order reaches a byte, and cut-offs of the whole model are not asked for."""
    usual = replace(recipe("ties", (A, B, C), (0.2, 0.3, 0.5)), params={"scaling": 1.0, "retain": 0.6})
    digests = {digest(world, usual)}
    for words in ({"trim": "tensor"}, {"sign": "count"}, {"trim": "tensor", "sign": "count"}):
        one = replace(usual, params={**usual.params, **words})
        moved = replace(one, experts=(C, A, B), weights=(0.5, 0.2, 0.3))
        assert digest(world, moved, 777, 1) == digest(world, one)
        flow = stream(at(world, one), Store(world / "store"))
        for _ in flow:
            pass
        assert ("cutoffs" in flow.report) == ("trim" not in words)
        digests.add(flow.digest)
    assert len(digests) == 4


def test_a_word_that_is_the_default_is_no_other_recipe() -> None:
    ties = replace(recipe("ties", (A, B)), params={"scaling": 1.0, "retain": 0.7})
    assert canonical(replace(ties, params={**ties.params, "trim": "model", "sign": "mass"})) == canonical(ties)
    assert "trim" not in canonical(ties).params
    usual = replace(recipe("nuslerp", (A, B)), params={})
    assert canonical(replace(usual, params={"by": "tensor"})) == canonical(usual)
    assert canonical(replace(usual, params={"by": "row"})) != canonical(usual)


@pytest.mark.parametrize("name", ["nuslerp", "model_stock", "tsv_m"])
@pytest.mark.parametrize("thin", ["magnitude", "breadcrumbs", "della", "dare"])
def test_sparsified(world: Path, name: str, thin: str) -> None:
    """Sparsifiers of whole tensors thin what methods get, whatever the block; the report says by how much."""
    sparsifiers: Mapping[str, Parameters] = {
        "magnitude": {"density": 0.5},
        "breadcrumbs": {"density": 0.5, "gamma": 0.1},
        "della": {"density": 0.5, "epsilon": 0.2, "seed": 3},
        "dare": {"drop_rate": 0.5, "seed": 3},
    }
    target = f"m3_exp.merging.sparsify.{thin}:{thin}"
    thinned = replace(recipe(name, (A, B)), sparsify={**sparsifiers[thin], "target": target})
    flows = [stream(at(world, thinned), Store(world / "store"), block=block) for block in (333, 1 << 16)]
    for flow in flows:
        assert all(bool(made.isfinite().all()) for _, made in flow)
    assert flows[0].digest == flows[1].digest != digest(world, recipe(name, (A, B)))
    assert all(abs(rate - 0.5) < 0.02 for rate in flows[0].report["dropped"].values())


@pytest.mark.parametrize("group", ["method", "sparsify"])
def test_each_has_a_yaml_a_page_and_a_line_in_the_catalogue(group: str) -> None:
    package = {"method": methods, "sparsify": sparsify}[group]
    shipped = {item.name for item in pkgutil.iter_modules(package.__path__)}
    assert {path.stem for path in (ROOT / "conf" / group).glob("[!_]*.yaml")} - {"none"} == shipped
    catalogue = (ROOT / "docs" / "methods" / "README.md").read_text()
    for name in shipped:
        assert (ROOT / "docs" / "methods" / f"{name}.md").read_text().startswith(f"# {name}")
        assert f"| [{name}]({name}.md) |" in catalogue


@pytest.mark.parametrize("group", ["method", "sparsify"])
def test_words_of_a_yaml_are_the_defaults_of_its_function(group: str) -> None:
    """Else leaving a word out and the yaml would mean two things."""
    for path in (ROOT / "conf" / group).glob("[!_]*.yaml"):
        if path.stem != "none":
            held = yaml.safe_load(path.read_text())
            named = methods.load(held["target"]).named if group == "method" else sparsify.load(held["target"])
            assert {key: held[key] for key in named.declares.choices} == {
                key: named.defaults[key] for key in named.declares.choices
            }


def test_every_shipped_choice_is_planned() -> None:
    """On the lab pair, each method and sparsifier with the values of its yaml."""
    for name in (*PARAMS, "ties", "average"):
        thin = "none" if name in ("slerp", "karcher") else "magnitude,breadcrumbs,della,dare"
        request = ["pair=lm_math", f"method={name}", f"sparsify={thin}", "evaluator=[gsm8k]"]
        recipes = {cell.recipe.text for cell in build(config.request(request, multirun=True).configs).cells}
        assert len(recipes) == len(thin.split(","))


def test_words_on_the_command_line() -> None:
    asked = ["pair=lm_math", "method=ties", "method.trim=tensor", "sparsify=dare", "sparsify.rescale=l1"]
    (cell,) = build(config.request([*asked, "evaluator=[gsm8k]"]).configs).cells
    assert cell.recipe.params == {"retain": 0.7, "scaling": 1.0, "trim": "tensor"}
    assert cell.recipe.sparsify is not None
    assert cell.recipe.sparsify["rescale"] == "l1"
    assert label_text(cell.labels[0]).endswith("ties(scaling=1, retain=0.7, trim=tensor) dare(rescale=l1)")
    usual = build(config.request([*asked[:2], "method.trim=model", "evaluator=[gsm8k]"]).configs).cells[0].recipe
    assert usual.params == {"retain": 0.7, "scaling": 1.0}
    with pytest.raises(M3Error, match=r"method\.trim=layer"):
        build(config.request([*asked[:2], "method.trim=layer"]).configs)
    with pytest.raises(M3Error, match=r"sparsify\.rescale=l2"):
        build(config.request([*asked[:4], "sparsify.rescale=l2"]).configs)


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_ratios_of_a_method_without_weights_are_refused_when_planned(name: str) -> None:
    asked = ["pair=lm_math", f"method={name}", "evaluator=[gsm8k]"]
    assert build(config.request(asked).configs).cells
    for ratio in ("mixup", "grid", "depth", "fixed"):
        with pytest.raises(M3Error, match=f"{name} takes no weights of experts: give ratio=plain"):
            build(config.request([*asked, f"ratio={ratio}"]).configs)
