"""conf/ and sweeps/: every file composes on every family, names what exists, and tells its own command and cost."""

import functools
import re
from typing import Any

import pytest
from omegaconf import OmegaConf

from m3_exp import config, planning
from m3_exp.merging.methods import check_params, load
from m3_exp.merging.ratio import grid
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.types import Cell, Plan, identity

SWEEPS = config.names("sweeps")
FAMILIES = [name for name in config.names("family") if name != "local"]
OTHERS = [name for name in FAMILIES if name != "lab"]
OF_ITS_OWN = {"table3_search": "table3"}  # the table of a sweep that is not called like it
ONE = ("family=lab", "pair=lm_math", "method=average")
COST = re.compile(r"# On the lab: ([\d,]+) merges, ([\d,]+) cells, (?:at most )?([\d,]+) answers")


@functools.cache
def planned(sweep: str, *overrides: str) -> Plan:
    request = config.request([f"sweeps={sweep}", *overrides])
    assert request.sweep == sweep
    return planning.build(request.configs)


def keys(cells: Any) -> set[str]:
    """Return the identities of recipes on benchmarks."""
    return {identity([cell.recipe, cell.evaluator]) for cell in cells}


def text(sweep: str) -> str:
    return (config.ROOT / "sweeps" / f"{sweep}.yaml").read_text()


# ------------------------------------------------------------------------------------------------------------ conf/


def test_every_choice_of_every_group_composes_by_itself() -> None:
    needed = {"family=local": ["family.base=lab", "family.experts=[lab]"], "engine=recorded": ["engine.answers=x"]}
    for group in sorted(path.name for path in (config.ROOT / "conf").iterdir() if path.is_dir()):
        for choice in (
            config.names(group) if group not in ("tuned", "family") else FAMILIES if group == "family" else []
        ):
            value = f"[{choice}]" if group == "evaluator" else choice
            (found,) = config.request([f"{group}={value}", *needed.get(f"{group}={choice}", [])]).configs
            if group in ("family", "pair", "method"):
                assert getattr(found, group) == choice


def test_every_target_exists_and_takes_what_its_file_says() -> None:
    for name in config.names("method"):
        stated = OmegaConf.load(config.ROOT / "conf/method" / f"{name}.yaml")
        method = load(str(stated.target))
        (found,) = config.request([f"method={name}"]).configs
        assert set(stated) - {"name", "target"} == set(method.named.keywords)
        assert set(found.params) == {key for key in method.named.keywords if not isinstance(stated[key], str)}
        check_params(found.target, found.params)
    for name in config.names("evaluator"):
        (spec,) = config.request([f"evaluator=[{name}]"]).configs[0].evaluators
        assert load_evaluator(spec).name == name


@pytest.mark.parametrize("name", config.names("tuned"))
def test_tuned_values_belong_to_a_family_a_method_and_a_pair(name: str) -> None:
    pairs = [(f, m) for f in FAMILIES for m in config.names("method") if name.startswith(f"{f}_{m}_")]
    ((family, method),) = pairs
    pair = name.removeprefix(f"{family}_{method}_")
    (found,) = config.request([f"family={family}", f"method={method}", f"pair={pair}"]).configs
    values = OmegaConf.to_container(OmegaConf.load(config.ROOT / "conf/tuned" / f"{name}.yaml"))
    assert isinstance(values, dict)
    assert dict(found.params) == values["method"]


def test_families_say_what_a_forecast_needs_where_no_model_is_at_hand() -> None:
    for family in FAMILIES:
        (found,) = config.request([f"family={family}"]).configs
        assert (found.parameters or 0) > 1e8
        assert (found.cache_values or 1) % 2 == 0
        assert list(found.experts) == ["lm", "math"]


def test_a_family_chooses_how_its_models_are_asked_and_the_command_line_overrules_it() -> None:
    def asked(*args: str) -> list[bool]:
        (found,) = config.request(list(args)).configs
        return [spec.settings["chat_template"] for spec in found.evaluators]

    assert asked() == asked("family=llama2_13b") == [False] * 3
    assert asked("family=qwen2_5_1_5b") == asked("chat_template=true") == [True] * 3
    assert asked("family=qwen2_5_1_5b", "chat_template=false") == [False] * 3


# ---------------------------------------------------------------------------------------------------------- sweeps/


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_runs_on_every_family_by_one_word(sweep: str) -> None:
    """One pair of experts a sweep here, all pairs in the test below: the two do not meet in conf/."""

    def shown(cell: Cell) -> tuple[str, str, str]:
        return cell.labels[0].pair, cell.labels[0].sparsify, cell.evaluator.name

    here = planned(sweep, "family=lab", "pair=lm_math")
    for family in OTHERS:
        found = planned(sweep, f"family={family}", "pair=lm_math")
        assert {label.family for cell in found.cells for label in cell.labels} == {family}
        assert {shown(cell) for cell in found.cells} == {shown(cell) for cell in here.cells}
        assert {cell.evaluator.items for cell in found.cells} == {"official"}
        assert {cell.recipe.dtype for cell in found.cells} == {found.engine.dtype}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_every_pair(family: str) -> None:
    found = [config.request([f"family={family}", f"pair={pair}"]).configs[0] for pair in config.names("pair")]
    assert [one.pair for one in found] == config.names("pair")
    assert {name for one in found for name in one.experts} == {"base", "lm", "math", "code"}
    assert all(planning.build([one]).cells for one in found)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_starts_with_its_command_and_names_its_table(sweep: str) -> None:
    assert text(sweep).startswith(f"# m3 run sweeps={sweep}\n#\n")
    document = OmegaConf.load(config.ROOT / "sweeps" / f"{sweep}.yaml")
    assert document.table == OF_ITS_OWN.get(sweep, sweep)


@pytest.mark.slow
@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_says_what_it_costs_on_the_lab(sweep: str) -> None:
    said = COST.search(text(sweep))
    if said is None:
        pytest.fail(f"sweeps/{sweep}.yaml has no line: # On the lab: N merges, N cells, N answers")
    merges, cells, answers = (int(number.replace(",", "")) for number in said.groups())
    found = planned(sweep, "family=lab")
    assert (len({identity(cell.recipe) for cell in found.cells}), len(found.cells)) == (merges, cells)
    assert sum(answered(cell) for cell in found.cells) == answers


def answered(cell: Cell) -> int:
    """Return how many answers a cell takes, at most: its items and what a search for attacks asks."""
    evaluator = load_evaluator(cell.evaluator)
    n = len(evaluator.problems("lab"))
    return sum(evaluator.searched(n)) * evaluator.sampling.n


def test_more_draws_of_the_alpha_grid_contain_the_first() -> None:
    one, four = (planned("alpha_grid", *ONE, f"ratio.draws={n}") for n in (1, 4))
    assert keys(one.cells) == keys(planned("alpha_grid", *ONE).cells)
    assert keys(one.cells) < keys(four.cells)
    drawn = {(x.alpha, x.draw) for cell in four.cells for x in cell.labels if x.alpha is not None}
    assert drawn == {(alpha, draw) for alpha in (0.2, 0.4, 0.5, 1.0, 2.0, 3.0, 5.0) for draw in range(4)}


def test_larger_node_sets_of_a_response_contain_the_smaller() -> None:
    nine, more = planned("lambda_response", *ONE), planned("lambda_response", *ONE, "ratio.nodes=17")
    assert keys(nine.cells) < keys(more.cells)
    assert len(more.cells) - len(nine.cells) == 8 * 3  # benchmarks


def test_a_response_without_sampled_lambdas_is_its_nodes() -> None:
    whole, alone = planned("lambda_response", *ONE), planned("lambda_response", *ONE, "ratio.sampled=0")
    assert keys(alone.cells) < keys(whole.cells)
    assert {x.lam for cell in alone.cells for x in cell.labels if x.ratio != "plain"} == set(grid(9))
    added = [x for cell in whole.cells for x in cell.labels if x.ratio == "sampled"]
    assert sorted({x.draw for x in added if x.draw is not None}) == list(range(16))
    assert len({x.lam for x in added} | set(grid(9))) == 25


@pytest.mark.parametrize("sweep", ["table1", "table2", "table5", "table6", "figure4"])
def test_the_papers_tables_take_four_draws_and_its_single_one_when_asked(sweep: str) -> None:
    whole, one = planned(sweep, "family=lab"), planned(sweep, "family=lab", "ratio.draws=1")
    drawn = {(x.method, x.pair, x.draw) for cell in whole.cells for x in cell.labels if x.ratio == "mixup"}
    single = {(x.method, x.pair, x.draw) for cell in one.cells for x in cell.labels if x.ratio == "mixup"}
    assert drawn == {(method, pair, draw) for method, pair, _ in drawn for draw in range(4)}
    assert single == {(method, pair, 0) for method, pair, _ in drawn}
    assert keys(one.cells) < keys(whole.cells)


def test_dare_takes_the_place_of_the_plain_deltas_in_a_response_or_stands_beside_them() -> None:
    only = ["family=lab", "pair=lm,lm_math", "method=average"]
    plain = planned("lambda_response", *only)
    dare = planned("lambda_response", *only, "sparsify=dare", "sparsify.draws=3")
    merged = [cell for cell in dare.cells if cell.labels[0].method != "single"]
    assert all(cell.recipe.sparsify is not None for cell in merged)
    assert len({cell.recipe.sparsify["seed"] for cell in merged if cell.recipe.sparsify}) == 3
    singles = [cell for cell in dare.cells if cell.labels[0].method == "single"]
    assert keys(singles) == keys(cell for cell in plain.cells if cell.labels[0].method == "single")
    both = planned("lambda_response", *only, "sparsify=none,dare", "sparsify.draws=3")
    assert keys(both.cells) == keys(plain.cells) | keys(dare.cells)
