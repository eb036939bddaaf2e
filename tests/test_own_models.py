"""Own checkpoints: what their experts are called, their parents at the ends of a grid, and `m3 init`."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from m3_exp import cli, config, planning
from m3_exp.config import own_family
from m3_exp.config.experts import path_names
from m3_exp.reporting.curves import evaluated
from m3_exp.reporting.data import saved
from m3_exp.reporting.tables.formats import markdown
from m3_exp.store import Store
from m3_exp.types import M3Error, identity
from m3_exp.views import tables
from m3_exp.views.lookup import Lookup
from tests.files import write_lines
from tests.models import SMALL, fine_tuned, random_weights, write_model
from tests.test_repeat import golds

LAB = ["family=lab", "evaluator=[gsm8k]"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three fine-tunes of it, two of one name in two folders; and a model of another width."""
    root = tmp_path_factory.mktemp("models")
    base = random_weights(SMALL, 0, torch.float32)
    write_model(root / "tiny", base, SMALL)
    for number, name in enumerate(("poet", "coder", "other/poet"), 1):
        write_model(root / name, fine_tuned(base, number), SMALL)
    wide = replace(SMALL, hidden=64)
    write_model(root / "wide", random_weights(wide, 0), wide)
    return root


def local(models: Path, *experts: str) -> list[str]:
    """Return what asks for experts of a folder, `NAME: PATH` ones by name."""
    listed = ", ".join(f"{one.partition(': ')[0]}: {models / one.partition(': ')[2]}" for one in experts)
    paths = ",".join(str(models / one) for one in experts)
    held = f"family.experts={{{listed}}}" if ": " in experts[0] else f"family.experts=[{paths}]"
    return ["family=local", f"family.base={models / 'tiny'}", held, "items=lab", "evaluator=[gsm8k]"]


def pairs(asked: Sequence[str], *, multirun: bool = False) -> list[str]:
    """Return what a request's pairs are called, each once."""
    return list(dict.fromkeys(one.pair for one in config.request(asked, multirun=multirun).configs))


# ---------------------------------------------------------------------------------------------------------- names


def test_experts_are_called_as_they_are_named_or_as_their_folders(models: Path) -> None:
    assert pairs(local(models, "poet", "coder")) == ["poet_coder"]
    assert pairs(local(models, "poet", "other/poet")) == [f"{models.name}_poet_other_poet"]
    assert pairs(local(models, "poet")) == ["poet"]
    assert pairs(local(models, "math: poet", "code: coder")) == ["math_code"]
    assert pairs(local(models, "a: poet", "b: coder", "c: other/poet")) == ["a_b_c"]
    assert pairs([*local(models, "a: poet", "b: coder", "c: other/poet"), "pair.experts=[c,a]"]) == ["c_a"]
    assert pairs([*local(models, "math: poet", "code: coder"), "pair=math"]) == ["math"]
    assert path_names(["package:a/X.gguf", "hub/Poet-1.5B@main", "hub/Base+package:b/lora"]) == [
        "X",
        "Poet-1.5B",
        "lora",
    ]


@pytest.mark.parametrize(
    ("more", "pair"),
    [
        ("pair.experts=[lm,math]", "lm_math"), ("pair.experts=[lm,code]", "lm_code"),
        ("pair.experts=[code,lm]", "code_lm"), ("pair.experts=[code]", "code"),
        ("family.experts.math=package:m3_exp/lab/adapters/masters", "lm_masters"),
        ("family.experts.math=package:m3_exp/lab/adapters/code", "lm_math-code"),
        ("family.experts.math=package:my_copies/math", "lm_math"),
        ("family.experts.poet=package:a/poet pair.experts=[lm,poet]", "lm_poet"),
    ],
)  # fmt: skip
def test_a_pair_with_other_experts_is_called_by_what_it_holds(more: str, pair: str) -> None:
    (one,) = config.request([*LAB, "pair=lm_math", *more.split()]).configs
    assert one.pair == pair
    cell = planning.build([one]).cells[0]
    line = shlex.split(planning.merge_line(cell.labels[0], cell.recipe))[2:-1]
    assert config.request([*line, "evaluator=[gsm8k]"]).plan.cells[0].recipe == cell.recipe


def test_a_pair_that_the_experts_are_not_is_refused(models: Path) -> None:
    with pytest.raises(M3Error, match="'lm'; family=local has base, poet, coder: leave pair= out, or name them"):
        config.request([*local(models, "poet", "coder"), "pair=lm_math"])
    with pytest.raises(M3Error, match=r"family.experts.a.b is not known"):
        config.request([*local(models, "poet"), "family.experts.a.b=3"])


def test_a_sweep_on_own_experts_takes_the_pairs_that_they_are(models: Path) -> None:
    own = [*local(models, "math: poet", "code: coder")[:3], "items=lab"]
    assert pairs(["sweeps=table1", *own]) == ["math", "code", "math_code"]
    assert pairs(["sweeps=table1", *local(models, "poet", "coder")]) == ["poet_coder"]


# -------------------------------------------------------------------------------------------------------- parents


def recorded(folder: Path, asked: Sequence[str], *ratio: str) -> list[str]:
    """Return a request whose answers are read from a file: 16 items, the first twelve right, of whatever weights."""
    rows = [{"benchmark": "gsm8k", "id": key, "text": f"The answer is: {gold if number < 12 else 'unknown'}"}
            for number, (key, gold) in enumerate(golds(16))]  # fmt: skip
    answers = write_lines(folder / "answers.jsonl", rows)
    settings = ["limit=16", "dtype=float32", "engine=recorded", f"engine.answers={answers}", "tracker=none"]
    return [*asked, *settings, f"store={folder / 'store'}", *ratio]


def test_the_ends_of_a_grid_are_the_parents(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = recorded(tmp_path, local(models, "poet", "coder"), "ratio=grid", "ratio.nodes=3")
    assert cli.main(["run", *line]) == 0
    assert "each merge answers as one of them does" in capsys.readouterr().out  # so they are there to compare with
    looked = Lookup.of(config.request(line))
    frame = looked.frame()
    single = frame[frame["method"] == "single"]
    assert dict(zip(single["pair"], single["score"], strict=True)) == {"poet": 75.0, "coder": 75.0}
    rows = [row.split()[3] for row in markdown(tables.whole(looked.request)).splitlines() if row[:8] == "| single"]
    assert rows == ["poet", "coder"]
    (curve,) = evaluated.responses(frame, looked.parents)
    assert curve.lacking == ()
    assert curve.better_parent() is not None
    for text, name in zip(single["merge"], single["pair"], strict=True):
        (alone,) = config.request([*shlex.split(text)[2:-1], "evaluator=[gsm8k]"]).configs
        assert list(alone.experts) == [name]


def test_experts_that_are_missing_have_a_line_that_evaluates_them(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = recorded(tmp_path, local(models, "poet", "coder"))
    assert cli.main(["run", *line]) == 0
    said = next(one for one in capsys.readouterr().out.splitlines() if "are not evaluated alone" in one)
    words = shlex.split(said.partition("): ")[2])
    assert words[:3] == ["m3", "run", "-m"]
    assert pairs(words[3:], multirun=True) == ["poet", "coder"]


def test_three_experts_are_merged_with_their_own_weights(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = recorded(tmp_path, local(models, "a: poet", "b: coder", "c: other/poet"))
    assert cli.main(["run", *line]) == 0
    printed = capsys.readouterr().out
    assert "a, b and c are not evaluated alone" in printed
    assert "lambda_response" not in printed  # a curve is of two experts
    assert "| average | a_b_c  |" in markdown(tables.whole(config.request(line)))


def test_draws_of_a_run_before_pairs_had_names_are_found(models: Path, tmp_path: Path) -> None:
    (asked,) = config.request([*local(models, "poet", "coder"), "ratio=mixup"]).configs
    plan, store = planning.build([asked]), Store(tmp_path)
    old = planning.build([replace(asked, pair="local")])
    store.plans.put(identity(old), old)
    other = planning.build([replace(asked, seed=1)])
    (found,) = saved.draws(store, other).cells
    assert found.recipe == plan.cells[0].recipe
    assert found.labels[0].pair == "poet_coder"


# ----------------------------------------------------------------------------------------------------------- init


def test_init_writes_a_family_that_is_one_word(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = own_family.write(str(models / "tiny"), [f"math={models / 'poet'}", str(models / "coder")], out=tmp_path)
    assert [str(file.relative_to(tmp_path)) for file in written.files] == [
        "family/tiny.yaml", "pair/math_coder.yaml", "pair/coder.yaml",
    ]  # fmt: skip
    asked = ["family=tiny", "pair=math_coder", "items=lab"]
    (one,) = config.request(asked, config_dirs=[tmp_path]).configs
    assert (one.pair, one.dtype, list(one.experts)) == ("math_coder", "float32", ["math", "coder"])
    assert one.parameters == sum(value.numel() for value in random_weights(SMALL, 0).values())
    assert one.cache_values == 2 * SMALL.layers * SMALL.kv_heads * SMALL.head_dim
    assert one.evaluators[0].settings["chat_template"] is True
    for line in written.commands:
        command, *words = shlex.split(line)[1:]
        assert cli.main(["plan", *words, "items=lab", f"store={tmp_path / 'store'}"]) == 0, command
    again = own_family.write(str(models / "tiny"), [f"math={models / 'poet'}", str(models / "coder")], out=tmp_path)
    assert again == written


@pytest.mark.parametrize(
    ("experts", "name", "says"),
    [
        (["wide"], None, "has 32: only fine-tunes of one base can be merged"),
        (["no"], None, "does not exist"), ([], None, "at least one expert"),
        (["poet", "poet"], None, "is given twice"), (["base={}/poet"], None, "base means something else"),
        (["poet"], "lab", "a family lab is shipped"),
    ],
)  # fmt: skip
def test_init_refuses_what_cannot_be_merged_and_writes_nothing(
    models: Path, tmp_path: Path, experts: list[str], name: str | None, says: str
) -> None:
    given = [one.format(models) if "{}" in one else str(models / one) for one in experts]
    with pytest.raises(M3Error, match=says):
        own_family.write(str(models / "tiny"), given, name=name, out=tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_init_overwrites_nothing(models: Path, tmp_path: Path) -> None:
    own_family.write(str(models / "tiny"), [str(models / "poet")], name="mine", out=tmp_path)
    with pytest.raises(M3Error, match=r"mine.yaml is there already and says something else"):
        own_family.write(str(models / "tiny"), [str(models / "coder")], name="mine", out=tmp_path)


def test_a_family_needs_a_base_and_experts(models: Path, tmp_path: Path) -> None:
    (tmp_path / "family").mkdir()
    (tmp_path / "pair").mkdir()
    yaml = f"base: {models / 'tiny'}\nexperts: {{a: {models / 'poet'}, b: {models / 'coder'}}}\n"
    (tmp_path / "family" / "mine.yaml").write_text(yaml)
    (tmp_path / "pair" / "a_b.yaml").write_text(
        "# @package _global_\ndefaults: [/evaluator: [gsm8k], _self_]\npair: {experts: [a, b]}\n"
    )
    (one,) = config.request(["family=mine", "pair=a_b"], config_dirs=[tmp_path]).configs
    assert (one.family, one.pair, one.dtype, one.vocab) == ("mine", "a_b", "bfloat16", "mean")
    with pytest.raises(M3Error, match="family=mine has base, a, b: give pair=a_b"):
        config.request(["family=mine"], config_dirs=[tmp_path])
