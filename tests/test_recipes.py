"""Recipes of mergekit in and out, as texts: what is imported as which words, what is refused, and for which reason."""

import json
from pathlib import Path

import pytest
import yaml

from m3_exp.cli import main
from m3_exp.command_line import CommandLine
from m3_exp.config import compose
from m3_exp.merging.parts import table
from m3_exp.planning import variants
from m3_exp.recipes.document import read
from m3_exp.recipes.importing import Imported, command, imported
from m3_exp.types import M3Error

TWO = "models: [{model: org/a}, {model: org/b}]"
WEIGHTED = """
models:
- {model: org/a, parameters: {weight: 0.7}}
- {model: org/b, parameters: {weight: 0.4}}
"""
EQUAL = WEIGHTED.replace("0.7", "0.4")


def take(text: str, folder: Path) -> Imported:
    file = folder / "recipe.yaml"
    file.write_text(text)
    return imported(read(file))


def rest(found: Imported) -> str:
    """Return the words after the models."""
    words = [one for one in found.words if not one.startswith(("family", "tokenizer", "dtype"))]
    return " ".join(words)


# Shapes of recipes that people publish, written anew: what each is in m3, or a part of the line that refuses it.
SHAPES = {
    "uniform average": (
        f"merge_method: linear\n{EQUAL}",
        "method=average ratio=fixed ratio.weights=[0.4, 0.4]",
    ),
    "weights of the whole recipe": (
        f"merge_method: linear\n{TWO}\nparameters: {{weight: 1.0}}",
        "method=average ratio=fixed ratio.weights=[1.0, 1.0]",
    ),
    "weights that are not normalised": (
        f"merge_method: linear\n{WEIGHTED}\nparameters: {{normalize: false}}",
        "normalize=false with weights that sum to 1.1",
    ),
    "weights that need no normalising": (
        f"merge_method: linear\n{WEIGHTED.replace('0.7', '0.6')}\nparameters: {{normalize: false}}",
        "method=average ratio=fixed ratio.weights=[0.6, 0.4]",
    ),
    "a weight is missing": (f"merge_method: linear\n{TWO}", "weight of org/a is missing"),
    "task arithmetic": (
        f"merge_method: task_arithmetic\nbase_model: org/base\n{WEIGHTED}",
        "method=task_arithmetic method.scaling=1.0 ratio=fixed ratio.weights=[0.7, 0.4]",
    ),
    "task arithmetic with lambda": (
        f"merge_method: task_arithmetic\nbase_model: org/base\n{WEIGHTED}\nparameters: {{lambda: 0.5}}",
        "method=task_arithmetic method.scaling=0.5 ratio=fixed ratio.weights=[0.7, 0.4]",
    ),
    "task arithmetic that subtracts": (
        f"merge_method: task_arithmetic\nbase_model: org/base\n{WEIGHTED.replace('0.4', '-0.4')}",
        "method=task_arithmetic method.scaling=1.0 ratio=fixed ratio.weights=[0.7, -0.4]",
    ),
    "task arithmetic of one model": (
        "merge_method: task_arithmetic\nbase_model: org/base\nmodels: [{model: org/a, parameters: {weight: 0.25}}]",
        "method=average ratio=fixed ratio.weights=[0.25, 0.75]",
    ),
    "task arithmetic without a base": (f"merge_method: task_arithmetic\n{WEIGHTED}", "base_model is missing"),
    "ties with one density": (
        f"merge_method: ties\nbase_model: org/base\n{EQUAL}\nparameters: {{density: 0.5}}",
        "method=ties method.scaling=1.0 method.retain=0.5 method.trim=tensor",
    ),
    "ties with a density a model": (
        "merge_method: ties\nbase_model: org/base\nmodels:\n- {model: org/a, parameters: {weight: 1, density: 0.5}}\n"
        "- {model: org/b, parameters: {weight: 1, density: 0.7}}",
        "density is 0.5 and 0.7",
    ),
    "ties with a gradient of densities": (
        f"merge_method: ties\nbase_model: org/base\n{EQUAL}\nparameters: {{density: [0.9, 0.5]}}",
        "density differs between layers",
    ),
    "ties with weights": (
        f"merge_method: ties\nbase_model: org/base\n{WEIGHTED}\nparameters: {{density: 1.0}}",
        "method=ties method.scaling=1.0 method.retain=1.0 method.trim=tensor method.sign=weighted ratio=fixed "
        "ratio.weights=[0.7, 0.4]",
    ),
    "dare_ties of three": (
        "merge_method: dare_ties\nbase_model: org/base\nmodels: [{model: org/a}, {model: org/b}, {model: org/c}]\n"
        "parameters: {weight: 0.3, density: 0.53, normalize: true, int8_mask: true}",
        "method=ties method.scaling=1.0 method.retain=1.0 method.trim=tensor sparsify=dare "
        "sparsify.drop_rate=0.47 sparsify.rescale=l1",
    ),
    "dare_ties as it comes": (
        f"merge_method: dare_ties\nbase_model: org/base\n{EQUAL}\nparameters: {{density: 0.5}}",
        "method=ties method.scaling=1.0 method.retain=1.0 method.trim=tensor sparsify=dare sparsify.drop_rate=0.5 "
        "sparsify.rescale=l1 method.sign=weighted method.combine=sum ratio=fixed ratio.weights=[0.4, 0.4]",
    ),
    "dare_linear": (
        f"merge_method: dare_linear\nbase_model: org/base\n{WEIGHTED}\nparameters: {{density: 0.8}}",
        "method=task_arithmetic method.scaling=1.0 sparsify=dare sparsify.drop_rate=0.2 sparsify.rescale=l1 "
        "ratio=fixed ratio.weights=[0.7, 0.4]",
    ),
    "dare_linear without rescaling": (
        f"merge_method: dare_linear\nbase_model: org/base\n{WEIGHTED}\nparameters: {{density: 0.8, rescale: false}}",
        "method=task_arithmetic method.scaling=0.8 sparsify=dare sparsify.drop_rate=0.2 ratio=fixed "
        "ratio.weights=[0.7, 0.4]",
    ),
    "breadcrumbs": (
        f"merge_method: breadcrumbs\nbase_model: org/base\n{WEIGHTED}\nparameters: {{density: 0.9, gamma: 0.02}}",
        "method=task_arithmetic method.scaling=1.0 sparsify=breadcrumbs sparsify.density=0.9 sparsify.rescale=none "
        "sparsify.gamma=0.02 ratio=fixed ratio.weights=[0.7, 0.4]",
    ),
    "breadcrumbs_ties as it comes": (
        f"merge_method: breadcrumbs_ties\nbase_model: org/base\n{EQUAL}\nparameters: {{density: 0.9}}",
        "method=ties method.scaling=1.0 method.retain=1.0 method.trim=tensor sparsify=breadcrumbs "
        "sparsify.density=0.9 sparsify.rescale=none sparsify.gamma=0.01 method.sign=weighted method.combine=sum "
        "ratio=fixed ratio.weights=[0.4, 0.4]",
    ),
    "della": (
        f"merge_method: della\nbase_model: org/base\n{EQUAL}\nparameters: {{density: 0.6, epsilon: 0.1, lambda: 1.1}}",
        "method=ties method.scaling=1.1 method.retain=1.0 method.trim=tensor sparsify=della "
        "sparsify.density=0.6 sparsify.rescale=l1 "
        "sparsify.epsilon=0.1",
    ),
    "della_linear": (
        f"merge_method: della_linear\nbase_model: org/base\n{WEIGHTED}\nparameters: {{density: 0.6}}",
        "method=task_arithmetic method.scaling=1.0 sparsify=della sparsify.density=0.6 sparsify.rescale=l1 "
        "sparsify.epsilon=0.15 ratio=fixed ratio.weights=[0.7, 0.4]",
    ),
    "slerp": (
        f"merge_method: slerp\nbase_model: org/b\n{TWO}\nparameters: {{t: 0.3}}",
        "method=slerp ratio=fixed ratio.weights=[0.3, 0.7]",
    ),
    "slerp with filters and gradients": (
        "merge_method: slerp\nbase_model: org/a\nslices:\n- sources:\n  - {model: org/a, layer_range: [0, 3]}\n"
        "  - {model: org/b, layer_range: [0, 3]}\nparameters:\n  t:\n  - {filter: self_attn, value: [0, 0.5, 1]}\n"
        "  - {filter: mlp, value: [1, 0.75, 0.5]}\n  - value: 0.5",
        "method=slerp ratio=parts ratio.parts={layers 1-2 in /self_attn/: {first: [1.0, 0.0],last: [0.0, 1.0]},"
        "/self_attn/: [1.0, 0.0],layers 1-2 in /mlp/: {first: [0.0, 1.0],last: [0.5, 0.5]},/mlp/: [0.0, 1.0]} "
        "ratio.rest=[0.5, 0.5]",
    ),
    "slerp of three": (
        "merge_method: slerp\nbase_model: org/a\nmodels: [{model: org/a}, {model: org/b}, {model: org/c}]\n"
        "parameters: {t: 0.5}",
        "slerp takes base_model and one other model",
    ),
    "nuslerp": (
        f"merge_method: nuslerp\nbase_model: org/base\n{WEIGHTED.replace('0.7', '0.6')}",
        "method=nuslerp method.by=tensor ratio=fixed ratio.weights=[0.6, 0.4]",
    ),
    "karcher": (
        f"merge_method: karcher\n{TWO}\nparameters: {{max_iter: 20, tol: 1e-6}}",
        "method=karcher method.steps=20 method.tolerance=1e-06",
    ),
    "model_stock": (f"merge_method: model_stock\nbase_model: org/base\n{TWO}", "method=model_stock"),
    "model_stock by rows": (
        f"merge_method: model_stock\nbase_model: org/base\n{TWO}\nparameters: {{filter_wise: true}}",
        "filter_wise=true takes an angle for each row",
    ),
    "sce": (
        f"merge_method: sce\nbase_model: org/base\n{TWO}\nparameters: {{select_topk: 0.2}}",
        "method=sce method.density=0.2",
    ),
    "layers of two models in their places": (
        "merge_method: passthrough\nslices:\n- sources: [{model: org/a, layer_range: [0, 2]}]\n"
        "- sources: [{model: org/b, layer_range: [2, 4]}]",
        "method=average ratio=parts ratio.parts=[{where: "
        "'/^(?!.*[.](layers|h|blocks)[.][0-9]+[.])(?!.*(embed|wte|wpe))/',"
        "weights: [0.0, 1.0]},{where: 'layers 2-3',weights: [0.0, 1.0]}] ratio.rest=[1.0, 0.0]",
    ),
    "a frankenmerge": (
        "merge_method: passthrough\nslices:\n- sources: [{model: org/a, layer_range: [0, 24]}]\n"
        "- sources: [{model: org/b, layer_range: [8, 32]}]",
        "slices[1].sources[0].layer_range=[8, 32] stands where layer 24 comes next: stacking layers in another order "
        "(a frankenmerge)",
    ),
    "passthrough of a scaled model": (
        "merge_method: passthrough\n"
        "models: [{model: org/a, parameters: {scale: [{filter: o_proj, value: 0}, {value: 1}]}}]",
        "scale=0 multiplies the tensors of org/a",
    ),
    "a mixture of experts": (
        "base_model: org/a\ngate_mode: hidden\nexperts:\n- {source_model: org/a, positive_prompts: [x]}",
        "belongs to mergekit-moe",
    ),
    "several recipes": (
        f"name: one\nmerge_method: linear\n{WEIGHTED}\n---\nname: two\nmerge_method: linear\n{WEIGHTED}",
        "holds 2 YAML documents",
    ),
    "the tokens of two": (
        f"merge_method: linear\n{WEIGHTED}\ntokenizer_source: union",
        "method=average ratio=fixed ratio.weights=[0.7, 0.4]",
    ),
    "the tokens of all": (
        f"merge_method: linear\n{WEIGHTED}\n- {{model: org/c, parameters: {{weight: 1}}}}\ntokenizer_source: union",
        "tokenizer_source=union",
    ),
    "tokens of one's own": (
        f"merge_method: linear\n{WEIGHTED}\ntokenizer: {{source: base, tokens: {{<x>: {{source: org/a}}}}}}",
        "tokenizer.tokens",
    ),
    "modules": ("merge_method: linear\nmodules: {text_decoder: {models: [{model: org/a}]}}", "modules="),
    "a method that m3 lacks": (
        f"merge_method: arcee_fusion\nbase_model: org/a\n{TWO}",
        "merge_method=arcee_fusion: m3 has no arcee_fusion; imported are breadcrumbs, ",
    ),
    "a slip of the pen": (f"merge_method: lineer\n{WEIGHTED}", "merge_method=lineer is no method of mergekit 0.1.5"),
    "a gradient over unknown layers": (
        f"merge_method: linear\n{TWO}\nparameters: {{weight: [0, 0.2, 1]}}",
        "a gradient of 3 values needs the number of layers",
    ),
    "a line over unknown layers": (
        "merge_method: linear\n"
        "models: [{model: org/a, parameters: {weight: [0, 1]}}, {model: org/b, parameters: {weight: 1}}]",
        "method=average ratio=parts ratio.parts={blocks: {first: [0.0, 1.0],last: [1.0, 1.0]}} ratio.rest=[0.0, 1.0]",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shape(shape: str, tmp_path: Path) -> None:
    text, expected = SHAPES[shape]
    if expected.startswith("method="):
        assert rest(take(text, tmp_path)) == expected
        return
    with pytest.raises(M3Error) as refused:
        take(text, tmp_path)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "recipe.yaml"))


def test_the_hub_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("a recipe is read without a network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", asked)
    monkeypatch.setattr("socket.getaddrinfo", asked)
    assert rest(take(SHAPES["sce"][0], tmp_path)).startswith("method=sce")


def test_models_and_what_goes_along(tmp_path: Path) -> None:
    text = (
        "merge_method: task_arithmetic\nbase_model: org/base@main\nmodels:\n"
        "- {model: org/base@main+org/lora, parameters: {weight: 1}}\n"
        "- {model: {model: {path: org/b, revision: v2}}, parameters: {weight: 1}}\n"
        "dtype: float32\nout_dtype: bfloat16\ntokenizer_source: org/b@v2\n"
    )
    assert take(text, tmp_path).words == (
        "family=local", "family.base=org/base@main", "family.experts=[org/base@main+org/lora,org/b@v2]",
        "family.vocab=refuse", "method=task_arithmetic", "method.scaling=1.0", "ratio=fixed",
        "ratio.weights=[1.0, 1.0]", "tokenizer=1", "dtype=bfloat16",
    )  # fmt: skip


def test_what_has_no_effect_is_named(tmp_path: Path) -> None:
    text = f"name: x\nmerge_method: task_arithmetic\nbase_model: org/base\n{WEIGHTED}\nparameters: {{density: 0.5}}\n"
    notes = take(text + "chat_template: chatml\n", tmp_path).notes
    assert [note.partition(" ")[0] for note in notes] == ["chat_template", "name", "dtype", "density"]


def test_filters_of_two_models_that_may_overlap_are_refused(tmp_path: Path) -> None:
    text = (
        "merge_method: linear\nmodels:\n"
        "- {model: org/a, parameters: {weight: [{filter: proj, value: 0}, {value: 1}]}}\n"
        "- {model: org/b, parameters: {weight: [{filter: attn, value: 0}, {value: 1}]}}\n"
    )
    with pytest.raises(M3Error, match="the filters of weight overlap"):
        take(text, tmp_path)


WRONG = {
    "a: [1": "is not YAML",
    "- 1": "holds no mapping",
    "merge_method: linear": "neither models nor slices",
    "merge_method: linear\nmodels: {a: 1}": "models={'a': 1} is no list",
    "merge_method: 3\nmodels: [{model: org/a}]": "merge_method=3 is no text",
    "merge_method: linear\nmodels: [{model: org/a}, {model: org/a}]": "names a model twice",
    "merge_method: linear\nmodels: [{model: org/a, parameters: {weight: {x: 1}}}]": "weight.value=None is no value",
    "merge_method: linear\nmodels: [{model: org/a, parameters: {weight: .nan}}]": "weight=nan is no finite number",
    "merge_method: linear\nslices: [{sources: [{model: org/a, layer_range: [3]}]}]": "is no range of layers",
    "merge_method: linear\nmodels: [{model: '${oc.env:HOME}'}]": "holds ${, which m3 reads as a reference",
    "merge_method: linear\nmodels: [{model: org/a}]\ndtype: int8": "dtype='int8' is not known",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(M3Error) as refused:
        take(text, tmp_path)
    assert WRONG[text] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_aliases_are_bounded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    with pytest.raises(M3Error, match="stands for more than"):
        take("\n".join(lines), tmp_path)


def test_the_command_is_printed_and_composes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "merge.yaml"
    file.write_text(f"merge_method: linear\n{WEIGHTED}\ndtype: float16\n")
    assert main(["recipe", "import", str(file), "out=merged", "seed=1"]) == 0
    assert capsys.readouterr().out == (
        "m3 merge family=local family.base=org/a 'family.experts=[org/a,org/b]' family.vocab=refuse method=average "
        "ratio=fixed 'ratio.weights=[0.7, 0.4]' tokenizer=0 dtype=float16 out=merged seed=1\n"
    )
    assert main(["recipe", "import", str(file), "sed=1"]) == 2
    assert "sed" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["mlp", "a'b", "x.y]", "^z\\", "é", "a in b", "{q}", "a,b"])
def test_a_filter_is_read_back_from_the_printed_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "merge.yaml"
    weight = [{"filter": text, "value": 0.25}, {"value": 0.5}]
    models = [{"model": "org/a", "parameters": {"weight": weight}}, {"model": "org/b", "parameters": {"weight": 1}}]
    file.write_text(yaml.safe_dump({"merge_method": "linear", "dtype": "float32", "models": models}))
    line = command(file, CommandLine()).asked.line("merge")
    ((_, recipe),) = variants(compose(CommandLine.of_line(line)).configs[0])
    found = table(recipe.weights, recipe.parts, [f"layers.0.{text}.weight", "layers.0.other.weight"], 2).weights
    assert found == {f"layers.0.{text}.weight": (0.25, 1.0), "layers.0.other.weight": (0.5, 1.0)}


@pytest.mark.parametrize("args", [["recipe"], ["recipe", "import"], ["recipe", "import", "x=1"], ["recipe", "in"]])
def test_wrong_words(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    assert capsys.readouterr().err.startswith("m3: m3 recipe ")


def test_export_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights, scaling and type come back as they were; the experts in the order of their names."""
    words = ["family=local", "family.base=org/base", "family.experts=[org/b,org/a]", "method=task_arithmetic"]
    words += ["method.scaling=0.5", "ratio=fixed", "ratio.weights=[0.8,0.6]", "dtype=float16", "tokenizer=base"]
    assert main(["recipe", "export", *words, "--out", str(tmp_path / "out.yaml")]) == 0
    assert capsys.readouterr().err == ""
    back = imported(read(tmp_path / "out.yaml"))
    assert back.words == (
        "family=local", "family.base=org/base", "family.experts=[org/a,org/b]", "family.vocab=refuse",
        "method=task_arithmetic", "method.scaling=1.0", "ratio=fixed", "ratio.weights=[0.3, 0.4]", "tokenizer=base",
        "dtype=float16",
    )  # fmt: skip


NOT_EXPORTED = {
    ("method=ties",): "method.trim=model trims over the whole model",
    ("method=ties", "method.trim=tensor", "method.sign=count"): "method.sign=count: mergekit elects the sign",
    ("method=ties", "method.trim=tensor", "ratio=fixed", "ratio.lam=0.3"): "ratio: mergekit's ties elects signs",
    ("method=ties", "method.trim=tensor", "sparsify=dare"): "method.retain=0.7 with sparsify=dare",
    ("sparsify=della", "method=task_arithmetic"): "sparsify.rescale=p: mergekit's della keeps",
    ("sparsify=magnitude", "method=task_arithmetic"): "sparsify=magnitude: mergekit has it in ties alone",
    ("method=iso_c",): "method=iso_c: mergekit 0.1.5 has no method of this meaning",
    ("method=slerp", "method.threshold=0.9"): "method.threshold=0.9: mergekit's slerp takes a line above 0.9995",
    ("method=karcher", "ratio=fixed", "ratio.lam=0.3"): "ratio: mergekit's karcher gives all models the same weight",
    ("ratio=grid",): "ask for 9 checkpoints",
}


@pytest.mark.parametrize("words", NOT_EXPORTED)
def test_what_mergekit_cannot_express(words: tuple[str, ...]) -> None:
    from m3_exp.recipes.exporting import exported

    models = ("family=local", "family.base=org/base", "family.experts=[org/a,org/b]")
    with pytest.raises(M3Error) as refused:
        exported(CommandLine((*models, *words)))
    assert NOT_EXPORTED[words] in str(refused.value)


def test_vocabularies_of_different_length_are_not_exported(tmp_path: Path) -> None:
    from m3_exp.recipes.exporting import exported

    for name, rows in (("base", 32), ("a", 32), ("b", 33)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"vocab_size": rows}))
    base, first, second = (tmp_path / name for name in ("base", "a", "b"))
    words = ("family=local", f"family.base={base}", f"family.experts=[{first},{second}]", "method=task_arithmetic")
    with pytest.raises(M3Error, match=f"family.vocab=mean: the vocabularies differ in length .*{second} 33"):
        exported(CommandLine(words))
