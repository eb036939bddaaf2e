"""Plans: lambda is drawn here and nowhere else, and what means the same weights is one cell."""

import contextlib
import itertools
from typing import Any

import pytest

from m3_exp import config, planning
from m3_exp.merging import ratio
from m3_exp.merging.mixtures import Mixture
from m3_exp.types import M3Error, Plan, identity

ONE = "evaluator=[gsm8k]"


def build(*args: str, multirun: bool = False) -> Plan:
    return planning.build(config.request(list(args), multirun=multirun).configs)


def test_draws_are_shared_by_methods_pairs_and_families_and_belong_to_the_seed() -> None:
    lams = set()
    for args in (["method=ties"], ["pair=lm_code"], ["family=llama2_13b", "method=task_arithmetic"]):
        lams |= {label.lam for cell in build("ratio=mixup", *args).cells for label in cell.labels}
    assert lams == {ratio.mixup(0.5, 0, 0)}
    assert lams != {label.lam for cell in build("ratio=mixup", "seed=1").cells for label in cell.labels}


def test_sampled_lambdas_stand_beside_the_nodes_of_a_grid() -> None:
    labels = [cell.labels[0] for cell in build("ratio=grid", "ratio.nodes=3", "ratio.sampled=4", ONE).cells]
    assert [(x.ratio, x.draw, x.lam) for x in labels[:3]] == [("grid", None, lam) for lam in (0.0, 0.5, 1.0)]
    drawn = [("sampled", draw, lam, None) for draw, lam in enumerate(ratio.sampled(0, 4))]
    assert [(x.ratio, x.draw, x.lam, x.alpha) for x in labels[3:]] == drawn
    assert planning.label_text(labels[3]) == "lm_math average sampled(draw 0, lambda=0.4502)"
    more = build("ratio=grid", "ratio.nodes=3", "ratio.sampled=8", ONE).cells
    assert [cell.labels[0] for cell in more][:7] == labels
    other = build("ratio=grid", "ratio.nodes=3", "ratio.sampled=4", ONE, "pair=lm_code", "method=ties").cells
    assert [cell.labels[0].lam for cell in other] == [label.lam for label in labels]


def test_a_label_says_how_its_lambda_came() -> None:
    kinds = {
        "plain": [""],
        "fixed": ["node"],
        "mixup": ["drawn"],
        "grid": ["node"] * 3 + ["sampled"] * 4,
    }
    for name, kind in kinds.items():
        more = ["ratio.nodes=3", "ratio.sampled=4"] if name == "grid" else []
        labels = [cell.labels[0] for cell in build(f"ratio={name}", *more, ONE).cells]
        assert [label.kind for label in labels] == kind


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"weights": (0.3, 0.7), "alpha": 0.5}, "a draw without a number"),
        ({"weights": (0.3, 0.7), "sampled": True}, "a draw without a number"),
        ({"weights": (0.3, 0.3), "draw": 0, "sampled": True}, "sampled, but its weights are no shares"),
        ({"weights": None, "alpha": "x", "draw": 0}, "give a number as alpha"),
        ({"weights": None, "draw": 0.5}, "a whole number from 0 as draw"),
        ({"weights": None, "draw": "0"}, "a whole number from 0 as draw"),
        ({"weights": None, "draw": -1}, "a whole number from 0 as draw"),
    ],
)
def test_an_impossible_mixture_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(M3Error, match=says):
        Mixture(**wrong)


def test_a_one_sided_draw_is_said_in_words_once_with_its_pairs() -> None:
    """alpha 0.4, seed 0: u of draw 0 is 0.09, lambda 0.015; draw 1 lies in the middle."""
    args = ["ratio=mixup", "ratio.alpha=0.4", "ratio.draws=2"]
    (line,) = build(*args, "method=average,ties", ONE, multirun=True).notes
    assert line == "lm_math, alpha 0.4, draw 0: lambda 0.015, that is 98.5 % math"
    (line,) = build(*args, "pair=lm_math,lm_code,math_code", ONE, multirun=True).notes
    assert line == "alpha 0.4, draw 0: lambda 0.015, that is 98.5 % math (lm_math), 98.5 % code (lm_code, math_code)"
    local = ["family=local", "family.base=package:a/BASE", "family.experts=[package:a/A,package:b/B]"]
    (line,) = build(*local, *args, ONE).notes
    assert line == "A_B, alpha 0.4, draw 0: lambda 0.015, that is 98.5 % B"
    assert build("ratio=mixup", ONE).notes == ()
    assert build("ratio=grid", "ratio.sampled=16", ONE).notes == ()


def test_many_one_sided_draws_are_folded() -> None:
    found = build("ratio=mixup", "ratio.alpha=0.2", "ratio.draws=32", ONE)
    outside = [x.lam for cell in found.cells for x in cell.labels if x.lam is not None and not 0.02 <= x.lam <= 0.98]
    assert len(found.notes) == 6
    assert all(line.startswith("lm_math, alpha 0.2, draw ") for line in found.notes[:5])
    assert found.notes[1] == "lm_math, alpha 0.2, draw 2: lambda 1 - 4.1e-06, that is 99.9996 % lm"
    assert found.notes[5] == f"and {len(outside) - 5} more draws with lambda outside [0.02, 0.98]"


def test_grids_are_nested_symmetric_and_crowd_the_ends() -> None:
    sets = [ratio.grid(n) for n in (3, 5, 9, 17, 33, 65)]
    assert sets[2] == (0, 1 / 32, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8, 31 / 32, 1)
    for small, large in itertools.pairwise(sets):
        assert set(small) < set(large)
    for nodes in sets:
        assert [1 - x for x in reversed(nodes)] == list(nodes)
    with pytest.raises(M3Error):
        ratio.grid(10)


def test_the_same_weights_are_one_cell_with_several_labels() -> None:
    """TA(s=0.5) = average; average at lambda = 1/2 = average; TIES at 1/2 = TIES; the notes say so."""
    found = build(
        "method=average,task_arithmetic", "ratio=plain", "evaluator=[gsm8k]", "method.scaling=0.5", multirun=True
    )
    assert len(found.cells) == 1
    assert len(found.cells[0].labels) == 2
    assert "1 of 2 cells are the same as another" in found.notes[0]
    found = build("method=average,ties", "ratio=plain,fixed", "evaluator=[gsm8k]", multirun=True)
    assert len(found.cells) == 2


def test_ends_of_a_grid_are_the_experts() -> None:
    found = build("pair=lm,math,lm_math", "ratio=grid", "ratio.nodes=3", "evaluator=[gsm8k]", multirun=True)
    assert len({identity(cell.recipe) for cell in found.cells}) == 3
    labels = {cell.evaluator.name: cell.labels for cell in found.cells if len(cell.labels) > 1}
    assert [(x.method, x.lam) for x in labels["gsm8k"]] == [("single", None), ("average", 0.0)]


def test_swapping_the_experts_and_lambda_changes_nothing() -> None:
    one = build("ratio=fixed", "ratio.lam=0.3", "evaluator=[gsm8k]").cells[0]
    two = build("ratio=fixed", "ratio.lam=0.7", "pair.experts=[math,lm]", "evaluator=[gsm8k]").cells[0]
    assert one.recipe == two.recipe


def test_one_mask_serves_all_lambdas_and_draws_of_it_differ() -> None:
    found = build("ratio=grid", "ratio.nodes=5", "sparsify=dare", "sparsify.draws=2", "evaluator=[gsm8k]")
    seeds = {cell.recipe.sparsify["seed"] for cell in found.cells if cell.recipe.sparsify}
    assert len(seeds) == 2
    assert len(found.cells) == 10


def test_the_lineage_check_can_be_switched_off() -> None:
    assert build().cells[0].recipe.check_lineage
    assert not build("check_lineage=false").cells[0].recipe.check_lineage


def test_a_single_expert_is_that_expert_under_any_method() -> None:
    assert build("pair=lm").cells == build("pair=lm", "method=ties", "ratio=mixup", "sparsify=dare").cells


def test_the_tokenizer_is_the_skills_expert_or_the_first() -> None:
    cells = {
        cell.evaluator.name: cell for cell in build("pair=math_code", "evaluator=[gsm8k,humaneval,alpaca_eval]").cells
    }
    assert str(cells["gsm8k"].tokenizer).endswith("math")
    assert str(cells["humaneval"].tokenizer).endswith("code")
    assert str(cells["alpaca_eval"].tokenizer).endswith("math")


def test_table1_has_the_papers_rows() -> None:
    found = build("sweeps=table1")
    labels = {(x.method, x.pair, x.ratio, x.sparsify) for cell in found.cells for x in cell.labels}
    assert len([x for x in labels if x[0] == "single"]) == 3
    assert len([x for x in labels if x[0] != "single"]) == 36


def test_the_merge_line_names_the_same_weights() -> None:
    cells = build("method=ties", "ratio=mixup", "sparsify=dare", "evaluator=[gsm8k]", "pair=math_code").cells
    line = planning.merge_line(cells[0].labels[0], cells[0].recipe)
    assert line.startswith("m3 merge family=lab pair=math_code method=ties")
    args = [part for part in line.split()[2:] if not part.startswith("out=")]
    assert build(*args, "evaluator=[gsm8k]").cells[0].recipe == cells[0].recipe


@pytest.mark.parametrize(
    ("line", "most"),
    [
        ("sweeps=table1 limit=4 ratio.draws=2", 4),
        ("sweeps=table3_search evaluator=[gsm8k]", 3),
        ("sweeps=table5 pair=lm_math evaluator.prompt_bench_sst2.protocol=adaptive", 8),
        ("-m method=ties,average ratio=plain,mixup,fixed ratio.alpha=0.2,0.5 ratio.lam=0.1 method.retain=0.5 "
         "sparsify=none,dare sparsify.draws=2 evaluator.gsm8k.extractor=strict", 2),
        ("sweeps=lambda_response ratio.nodes=3 ratio.sampled=4", 9),
        ("-m ratio=plain,grid ratio.sampled=4 evaluator=[gsm8k,mbpp]", 13),
    ],
)  # fmt: skip
def test_a_request_can_be_narrowed_to_any_of_its_cells(line: str, most: int) -> None:
    """What retries one failed cell: the narrowest line that composes holds it, and few others, as its parents."""
    args = line.split()
    multirun, overrides = "-m" in args, [arg for arg in args if arg != "-m"]
    whole = build(*overrides, multirun=multirun).cells
    for cell in (whole[0], whole[2 * len(whole) // 3]):
        *narrower, last = config.narrowed(overrides, cell)
        assert last == overrides
        for narrow in narrower:
            with contextlib.suppress(M3Error):
                found = build(*narrow, multirun=multirun).cells
                break
        assert [planning.same(cell, other) for other in found].count(True) == 1
        assert len(found) <= most


def test_the_merge_line_of_a_sampled_lambda_names_the_same_weights() -> None:
    cell = build("ratio=grid", "ratio.nodes=3", "ratio.sampled=4", ONE).cells[-1]
    args = planning.merge_line(cell.labels[0], cell.recipe).split()[2:-1]
    assert build(*args, ONE).cells[0].recipe == cell.recipe


def test_a_narrowed_request_drops_what_would_be_dead() -> None:
    overrides = ["sweeps=table1", "ratio.alpha=0.5", "method.retain=0.5", "sparsify.drop_rate=0.3", "limit=4"]
    single = build("pair=lm", "limit=4").cells[0]
    narrow, *_ = config.narrowed([*overrides, "evaluator.humaneval.max_tokens=6"], single)
    assert narrow == ["sweeps=table1", "limit=4", "pair=lm", "evaluator=[alpaca_eval]"]
    assert [planning.same(single, cell) for cell in build(*narrow).cells] == [True]
