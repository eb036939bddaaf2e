"""Requests: every choice composes, sweeps expand, and each wrong request gets one line that says what to do."""

from pathlib import Path

import pytest

from m3_exp import config, planning
from m3_exp.types import M3Error

AXES = {"method": 3, "ratio": 4, "sparsify": 2, "engine": 3, "evaluator": 10, "pair": 7}


@pytest.mark.parametrize("axis", sorted(AXES))
def test_every_choice_composes(axis: str) -> None:
    choices = config.names(axis)
    assert len(choices) >= AXES[axis]
    for choice in choices:
        value = f"[{choice}]" if axis == "evaluator" else choice
        extra = ["engine.answers=x"] if choice == "recorded" else []
        request = config.request([f"{axis}={value}", *extra])
        assert len(request.configs) == 1


def test_every_sweep_composes_and_states_its_command() -> None:
    for name in config.names("sweeps"):
        request = config.request([f"sweeps={name}"])
        assert request.sweep == name
        assert planning.build(request.configs).cells
        assert (config.ROOT / "sweeps" / f"{name}.yaml").read_text().startswith(f"# m3 run sweeps={name}\n")


def test_the_default_is_the_lab() -> None:
    (found,) = config.request([]).configs
    assert (found.family, found.pair, found.method, found.ratio.name, found.sparsify) == (
        "lab",
        "lm_math",
        "average",
        "plain",
        None,
    )
    assert (found.dtype, found.engine.dtype) == ("float32", "float32")
    assert list(found.experts) == ["lm", "math"]
    assert [e.items for e in found.evaluators] == ["lab"] * 3


def test_tuned_values_come_with_family_method_and_pair_and_can_be_overridden() -> None:
    def params(*args: str) -> dict[str, float]:
        return dict(config.request(["family=llama2_13b", "method=ties", *args]).configs[0].params)

    assert params("pair=lm_math") == {"scaling": 0.5, "retain": 0.5}
    assert params("pair=lm_code") == {"scaling": 1.0, "retain": 0.7}
    assert params("pair=math_code") == {"scaling": 1.0, "retain": 0.5}
    assert params("pair=lm_math", "method.retain=0.9") == {"scaling": 0.5, "retain": 0.9}


def test_multirun_expands_a_product_and_a_sweep_restricts_to_what_is_asked() -> None:
    assert len(config.request(["method=average,ties", "ratio.lam=0.1,0.2", "ratio=fixed"], multirun=True).configs) == 4
    assert len(config.request(["sweeps=table1"]).configs) == 3 + 36
    only = config.request(["sweeps=table1", "pair=lm_math", "method=ties"]).configs
    assert {(c.pair, c.method) for c in only} == {("lm_math", "ties")}
    assert len(only) == 4
    twos = config.request(["sweeps=table1", "ratio.alpha=2"]).configs
    assert {c.ratio.params["alpha"] for c in twos if c.ratio.name == "mixup"} == {2.0}
    assert {c.pair for c in config.request(["sweeps=table1", "pair=base"]).configs} == {"base"}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["ratio.alpha=0.5"], "ratio.alpha has no effect under ratio=plain; did you mean ratio=mixup?"),
        (["ratio=fixed", "ratio.nodes=5"], "did you mean ratio=grid?"),
        (["ratio=mixup", "ratio.sampled=4"], "ratio.sampled has no effect under ratio=mixup; did you mean ratio=grid?"),
        (["ratio=grid", "ratio.sampled=4.5"], "ratio.sampled=4.5 is not a whole number"),
        (["method.retain=0.5"], "method.retain has no effect under method=average; did you mean method=ties?"),
        (["sparsify.drop_rate=0.1"], "did you mean sparsify=dare?"),
        (["ratio.alhpa=1"], "ratio.alhpa is not known; ratio has the parameters alpha, draws, lam, nodes, sampled"),
        (["method=slurp"], "method=slurp does not exist; allowed: average, task_arithmetic, ties"),
        (["family=nope"], "family=nope does not exist; allowed: "),
        (["evaluator=[gsm9k]"], "evaluator=gsm9k does not exist; allowed: alpaca_eval, gsm8k, "),
        (["sweeps=nope"], "sweeps=nope does not exist; there are "),
        (["limt=3"], "limt is not known; "),
        (["limit=0"], "limit=0 is too small"),
        (["limit=many"], "limit=many is not a whole number"),
        (["seed=1.5"], "seed=1.5 is not a whole number"),
        (["dtype=float8"], "dtype=float8 is not known; allowed: float32, bfloat16, float16"),
        (["ratio"], "'ratio' is not an override"),
        (["method=average,ties"], "several values need -m"),
        (["evaluator.mmlu.shots=5"], "mmlu is no benchmark; allowed choices of evaluator: "),
        (["evaluator.gsm8k.shots=5"], "gsm8k has the settings extractor, max_tokens"),
        (["evaluator.humaneval.timeout=5"], "humaneval is not selected"),
        (["evaluator.gsm8k.extractor=magic"], "magic"),
        (["hydra/launcher=joblib"], "use launcher=local workers=N"),
        (["hydra/sweeper=optuna"], "use -m KEY=A,B"),
        (["family=local"], "family.base"),
        (["tokenizer=7"], "tokenizer=7 is not known; allowed: base, none, 0, 1"),
        (["checkpoint=all"], "checkpoint=all is not known; allowed: none, keep"),
        (["pair.experts=[lm,poet]"], "pair.experts names 'poet'"),
    ],
)
def test_a_wrong_request_is_one_clear_line(args: list[str], says: str) -> None:
    with pytest.raises(M3Error) as caught:
        config.request(args)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["sparsify=dare", "sparsify.drop_rate=1"], "sparsify.drop_rate=1.0 drops everything"),
        (["ratio=mixup", "ratio.alpha=0"], "ratio.alpha=0.0 is not a Beta parameter"),
        (["ratio=mixup", "ratio.alpha=-1"], "ratio.alpha=-1.0"),
        (["ratio=fixed", "ratio.lam=1.5"], "ratio.lam=1.5 is outside [0, 1]"),
        (["ratio=fixed", "ratio.lam=-0.1"], "outside [0, 1]"),
        (["ratio=grid", "ratio.nodes=8"], "ratio.nodes=8 is not a size of the nested grids"),
        (["ratio=grid", "ratio.sampled=6"], "ratio.sampled=6 does not fill its strata: give 0, 4, 8 or 16"),
        (["method=ties", "method.retain=0"], "method.retain"),
    ],
)
def test_impossible_values_are_refused_in_the_plan(args: list[str], says: str) -> None:
    with pytest.raises(M3Error) as caught:
        planning.build(config.request(args).configs)
    assert says in str(caught.value)


def test_a_parameter_on_an_axis_is_harmless_where_another_part_uses_it() -> None:
    request = config.request(["ratio=plain,mixup", "ratio.alpha=1"], multirun=True)
    assert len(request.configs) == 2


def test_more_choices_come_from_a_config_dir(tmp_path: Path) -> None:
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "mine.yaml").write_text(
        (config.ROOT / "conf/family/lab.yaml").read_text().replace("name: lab", "name: mine")
    )
    assert config.request(["family=mine"], config_dirs=[tmp_path]).configs[0].family == "mine"
    with pytest.raises(M3Error, match="mine"):
        config.request(["family=yours"], config_dirs=[tmp_path])
