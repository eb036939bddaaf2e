"""Ratios by part as they are asked for: `ratio=depth`, `parts`, `ablation`, `mixup` with `per`; labels and lines."""

import shlex
from pathlib import Path

import pytest

from m3_exp import actions, config, planning
from m3_exp.command_line import CommandLine
from m3_exp.merging import ratio
from m3_exp.types import Cell, Drawn, M3Error, Part
from m3_exp.views import by_part, status

ONE = ("evaluator=[gsm8k]", "limit=4")


def cells(*args: str, multirun: bool = False) -> list[Cell]:
    return list(config.request([*args, *ONE], multirun=multirun).plan.cells)


def the_one(*args: str) -> Cell:
    (cell,) = cells(*args)
    return cell


def label_of(*args: str) -> str:
    return planning.label_text(the_one(*args).labels[0])


def test_depth_is_a_line_or_steps_with_their_mean_held() -> None:
    line = the_one("ratio=depth", "ratio.first=0.3", "ratio.last=0.7").recipe
    assert line.parts == (Part("blocks", (0.3, 0.7), last=(0.7, pytest.approx(0.3))),)
    assert line.weights == (0.5, 0.5)
    steps = the_one("ratio=depth", "ratio.first=0.3", "ratio.last=0.7", "ratio.steps=3").recipe
    assert [part.where for part in steps.parts] == ["depth 1/3", "depth 2/3", "depth 3/3"]
    assert [part.weights[0] for part in steps.parts if part.weights] == pytest.approx([0.3, 0.5, 0.7])
    rest = the_one("ratio=depth", "ratio.rest=plain").recipe
    assert rest.weights is None
    three = the_one("pair.experts=[lm,math,code]", "ratio=depth", "ratio.first=[1,0,0]", "ratio.last=[0,0.5,0.5]")
    (part,) = three.recipe.parts
    assert dict(zip((str(e.adapter)[-4:] for e in three.recipe.experts), part.weights or (), strict=True)) == {
        "s/lm": 1, "math": 0, "code": 0,
    }  # fmt: skip


def test_parts_are_read_in_the_order_in_which_they_are_written() -> None:
    text = "{attention: 0.3, layers 0-5: [0.2,0.6], mlp: {math: 0.2, lm: 0.8}, norms: plain, all: {first: 0, last: 1}}"
    label = the_one("ratio=parts", f"ratio.parts={text}", "ratio.rest=0.9").labels[0]
    assert label.parts == (
        Part("attention", (0.3, 0.7)), Part("layers 0-5", (0.2, 0.6)), Part("mlp", (0.8, 0.2)), Part("norms"),
        Part("all", (0.0, 1.0), last=(1.0, 0.0)),
    )  # fmt: skip
    assert label.lam is None
    assert label.kind == ""
    assert planning.table_name(label, "ratio") == (
        "parts (attention 0.3, layers 0-5 at 0.2:0.6, mlp 0.8, norms plain, all 0 to 1, rest 0.9)"
    )


def test_labels_are_short() -> None:
    assert label_of("ratio=depth") == "lm_math average depth(0.2 to 0.8, rest 0.5)"
    assert label_of("ratio=parts", "ratio.parts={attention: 0.3}") == "lm_math average parts(attention 0.3, rest plain)"
    assert label_of("ratio=mixup", "ratio.per=block") == "lm_math average mixup(alpha=0.5, per=block, draw 0)"
    drawn = the_one("ratio=mixup", "ratio.per=tensor").labels[0]
    assert planning.table_name(drawn, "ratio") == "mixup (per tensor)"
    assert drawn.kind == "drawn"


def test_a_draw_for_the_whole_model_is_that_of_today() -> None:
    whole, same = the_one("ratio=mixup"), the_one("ratio=mixup", "ratio.per=model")
    assert whole.recipe == same.recipe
    assert whole.labels == same.labels
    assert whole.recipe.parts == ()
    lam = ratio.mixup(0.5, 0, 0)
    by_block = the_one("ratio=mixup", "ratio.per=block").recipe
    assert by_block.weights == (lam, 1 - lam)
    assert by_block.parts == (Part("blocks", drawn=Drawn(0.5, 0, 0, "block")),)


ASKED = [
    ["ratio=depth"], ["ratio=depth", "ratio.steps=3", "method=ties"], ["ratio=mixup", "ratio.per=block"],
    ["ratio=mixup", "ratio.per=tensor", "sparsify=dare", "seed=3"],
    ["ratio=parts", "ratio.parts={attention in layers 0-5: 0.3, /up_proj|down_proj/: [0.2,0.6]}", "ratio.rest=0.1"],
    ["ratio=parts", "ratio.parts=[{where: '/^model[.]norm$/', weights: 0.3}, {where: mlp, weights: plain}]"],
]  # fmt: skip


@pytest.mark.parametrize("asked", ASKED)
def test_the_line_of_a_row_rebuilds_its_weights(asked: list[str]) -> None:
    cell = the_one(*asked)
    line = shlex.split(planning.merge_line(cell.labels[0], cell.recipe))
    again = the_one(*(word for word in line[2:] if not word.startswith("out=")))
    assert again.recipe == cell.recipe


def test_a_plan_says_which_tensors_get_what(tmp_path: Path) -> None:
    asked = ["ratio=parts", "ratio.parts={attention: 0.3, mlp in layers 10-29: 0.7}", f"store={tmp_path}", *ONE]
    found = status.plan(config.request(asked))
    assert found.own_notes[:3] == (
        "by part, attention 0.3: 120 tensors, model.layers.0.self_attn.k_proj.weight ..."
        " model.layers.29.self_attn.v_proj.weight",
        "by part, mlp in layers 10-29 at 0.7: 60 tensors, model.layers.10.mlp.down_proj.weight ..."
        " model.layers.29.mlp.up_proj.weight",
        "by part, rest plain: 92 tensors, model.layers.0.input_layernorm.weight ... model.norm.weight",
    )
    (told,) = found.json["parts"]  # type: ignore[misc]
    assert told["tensors"]["model.layers.29.mlp.up_proj.weight"] == [0.7, pytest.approx(0.3)]
    assert told["tensors"]["model.norm.weight"] is None
    assert len(told["tensors"]) == 272


def test_many_parts_are_cut_short(tmp_path: Path) -> None:
    request = config.request(["ratio=depth", "ratio.steps=30", f"store={tmp_path}", *ONE])
    found = by_part.lines(by_part.tables(request.plan, status.Store(tmp_path)))
    assert len(found) == 12
    assert found[-1] == "by part, 20 more: m3 plan --json has every tensor"


def test_a_plan_of_models_that_are_not_here_goes_on() -> None:
    request = config.request(["family=llama2_13b", "pair=lm_math", "ratio=depth", *ONE])
    assert by_part.tables(request.plan, status.Store(Path("/nowhere"))) == []
    assert request.plan.cells[0].recipe.parts


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["ratio=parts"], "ratio=parts needs ratio.parts"),
        (["ratio=parts", "ratio.parts={atention: 0.3}"], "'atention' names no part of a model: allowed are attention"),
        (["ratio=parts", "ratio.parts={mlp: 3}"], "ratio.parts of 'mlp'=3.0 is outside [0, 1]"),
        (["ratio=parts", "ratio.parts={mlp: [1,2,3]}"], "ratio.parts of 'mlp' has 3 weights for 2 experts"),
        (["ratio=parts", "ratio.parts={mlp: {lm: 1}}"], "it lacks math; give a weight to each of lm, math"),
        (["ratio=parts", "ratio.parts={mlp: {lm: 1, code: 2}}"], "code is no expert of it; give a weight to each of"),
        (["ratio=parts", "ratio.parts={mlp: half}"], "ratio.parts of 'mlp'=half is not known: give lambda"),
        (["ratio=parts", "ratio.parts={mlp: {first: plain, last: 1}}"], "give weights as first and last, not plain"),
        (["ratio=parts", "ratio.parts=mlp"], "ratio.parts=mlp is not a mapping"),
        (["ratio=parts", "ratio.parts={mlp: 0.3}", "ratio.rest=half"], "ratio.rest=half is not known"),
        (["ratio=depth", "ratio.first=2"], "ratio.first=2.0 is outside [0, 1]"),
        (["ratio=depth", "ratio.steps=1"], "ratio.steps=1 is out of range: give 2 to 1000"),
        (["ratio=mixup", "ratio.per=layer"], "ratio.per=layer is not known; allowed: model, block, tensor"),
        (["ratio=ablation", "ratio.lams=[0,2]"], "ratio.lams=2.0 is outside [0, 1]"),
        (["ratio=ablation", "ratio.lams=0.5"], "ratio.lams=0.5 is not a list of numbers"),
        (["ratio=ablation", "ratio.groups=1"], "ratio.groups=1 is out of range"),
        (["ratio=ablation", "pair.experts=[lm,math,code]"], "ratio=ablation takes two experts, there are 3"),
    ],
)
def test_refusals(asked: list[str], words: str) -> None:
    with pytest.raises(M3Error) as caught:
        cells(*asked)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_that_names_nothing_ends_a_plan(tmp_path: Path) -> None:
    asked = ["ratio=parts", "ratio.parts={layers 90-99: 0.3}", f"store={tmp_path}", *ONE]
    with pytest.raises(M3Error, match=r"part 'layers 90-99' names no tensor of this model: .* layers 0-29"):
        status.plan(config.request(asked))


def test_a_part_that_names_nothing_ends_a_merge_and_fails_the_cells_of_a_run(tmp_path: Path) -> None:
    """Before anything is merged: nothing is written, and the other cells of a run go on."""
    words = (*ONE, "ratio=parts", f"store={tmp_path / 'store'}")
    with pytest.raises(M3Error, match="part 'layers 90-99' names no tensor of this model"):
        actions.merge(CommandLine((*words, "ratio.parts={layers 90-99: 0.3}", f"out={tmp_path / 'out'}")))
    assert not (tmp_path / "out").exists()
    rehearsal = (
        "engine=recorded",
        "engine.answers=generated",
        "tracker=none",
        "ratio.parts={layers 90-99: 0.3},{mlp: 1}",
    )
    outcome = actions.run(CommandLine((*words, *rehearsal), multirun=True))
    (failed,) = outcome.failures
    assert failed.reason.startswith("part 'layers 90-99' names no tensor of this model: the model has attention, mlp")
    assert "layers 90-99" in str(failed.evaluation)


def test_an_ablation_has_one_range_at_a_time() -> None:
    found = [cell.labels[0] for cell in cells("ratio=ablation", "ratio.groups=2", "ratio.lams=[0,0.5,1]")]
    assert [label.parts[0].where for label in found] == [
        "depth 1/2",
        "depth 1/2",
        "depth 1/2",
        "depth 2/2",
        "depth 2/2",
    ]
    middle = cells("ratio=ablation", "ratio.groups=2", "ratio.lams=[0,0.5,1]")[1]
    assert middle.recipe.parts == ()  # half of each is what the average's plain is
    assert len(middle.labels) == 2
