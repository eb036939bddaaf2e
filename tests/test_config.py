"""Requests: every choice composes, sweeps expand, and each wrong request gets one line that says what to do."""

import itertools
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from m3_exp import config, planning
from m3_exp.config import composing, kept
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
    merged = [c for c in only if len(c.experts) > 1]
    assert {(c.pair, c.method) for c in merged} == {("lm_math", "ties")}
    assert len(merged) == 4
    assert [c.pair for c in only if c not in merged] == ["lm", "math"]  # its parents stay beside it
    twos = config.request(["sweeps=table1", "ratio.alpha=2"]).configs
    assert {c.ratio.params["alpha"] for c in twos if c.ratio.name == "mixup"} == {2.0}
    assert {c.pair for c in config.request(["sweeps=table1", "pair=base"]).configs} == {"base"}


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("sweeps=lambda_response pair=lm_math", "lm math lm_math"),
        ("sweeps=lambda_response pair=math_code method=ties", "math code math_code"),
        ("sweeps=lambda_response pair=lm_code,lm_math", "lm math code lm_math lm_code"),
        ("sweeps=demo pair=lm_code", "lm code lm_code"),  # not a pair of the sweep: in place of its own
        ("sweeps=demo pair=lm", "lm"),
        ("sweeps=figure4 pair=lm_math", "lm_math"),  # a sweep without single models
    ],
)
def test_a_pair_on_a_sweep_keeps_its_parents_and_nothing_else(asked: str, shown: str) -> None:
    assert " ".join(dict.fromkeys(c.pair for c in config.request(asked.split()).configs)) == shown


def test_parents_beside_a_pair_are_asked_what_the_pair_is_asked() -> None:
    configs = config.request(["sweeps=table1", "pair=lm_math"]).configs
    assert {e.name for c in configs for e in c.evaluators} == {"alpaca_eval", "gsm8k", "hendrycks_math"}
    alone = config.request(["sweeps=table1", "pair=lm"]).configs
    assert "humaneval" in {e.name for c in alone for e in c.evaluators}, "asked for by name, it is asked everything"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["ratio.alpha=0.5"], "ratio.alpha has no effect under ratio=plain; did you mean ratio=mixup?"),
        (["ratio=fixed", "ratio.nodes=5"], "did you mean ratio=grid?"),
        (["ratio=mixup", "ratio.sampled=4"], "ratio.sampled has no effect under ratio=mixup; did you mean ratio=grid?"),
        (["ratio=grid", "ratio.sampled=4.5"], "ratio.sampled=4.5 is not a whole number"),
        (["method.retain=0.5"], "method.retain has no effect under method=average; did you mean method=ties?"),
        (["sparsify.drop_rate=0.1"], "did you mean sparsify=dare?"),
        (
            ["ratio.alhpa=1"],
            "ratio.alhpa is not known; ratio has the parameters alpha, draws, first, groups, lam, lams, last, nodes",
        ),
        (["method=slurp"], "method=slurp does not exist; allowed: average, consensus, fisher, "),
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
        (["tokenizer=7"], "tokenizer=7 is not known; allowed: base, union, none, 0, 1, lm, math"),
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


# ------------------------------------------------------------------------------------ composing, beside Hydra itself


def _by_hydra(overrides: list[str]) -> str:
    """Compose as Hydra does when it is given everything at once."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config.ROOT / "conf"), version_base="1.3"):
        return OmegaConf.to_yaml(compose("config", overrides), resolve=True)


def _products() -> list[list[str]]:
    groups = {
        "family": ["lab", "llama2_13b", "qwen2_5_1_5b"], "pair": config.names("pair"),
        "method": config.names("method"), "ratio": config.names("ratio"), "sparsify": config.names("sparsify"),
    }  # fmt: skip
    products = [
        [f"{group}={name}" for group, name in zip(groups, names, strict=True)]
        for names in itertools.product(*groups.values())
    ]
    tuned = [product for product in products if "family=llama2_13b" in product and "method=ties" in product]
    return [*products[::23], *tuned[::5]]


VALUES = [
    ["method=ties", "method.retain=0.3"], ["seed=3", "limit=5"], ["limit=${seed}", "seed=4"],
    ["family.base=/a", "chat_template=true"], ["items=dev", "evaluator=[gsm8k,mbpp]"],
    ["ratio=fixed", "ratio.weights=[0.2,0.8]"], ["method=task_arithmetic", "method.scaling=${seed}"],
    ["family.max_tokens.gsm8k=13"], ["family.max_tokens={gsm8k: 14}"], ["evaluator.gsm8k={extractor: strict}"],
    ["engine=recorded", "engine.answers=x", "method=ties", "method.retain=0.2"], ["sandbox={driver: weak}"],
    ["family=llama2_13b", "method=ties", "tuned=llama2_13b_ties_lm_code"], ["tuned=llama2_13b_ties_lm_math"],
    ["family=local", "family.base=/a", "family.experts=[/b,/c]", "method=ties"], ["pair.experts=[math,code]"],
    ["family.experts={lm: /q}", "tracker=none"], ["chat_args={enable_thinking: false}", "thought=keep"],
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [*_products(), *VALUES], ids=" ".join)
def test_a_request_composes_as_by_hydra_at_once(overrides: list[str]) -> None:
    (tree,) = composing.compose_all([tuple(overrides)], [])
    assert OmegaConf.to_yaml(OmegaConf.create(tree)) == _by_hydra(overrides)


OF_A_FAMILY = {
    "values": "# @package _global_\nfamily: {name: mine, base: /mine}\nmethod: {scaling: 3.0}\nseed: ${ratio.alpha}\n",
    "reads": "name: mine\nbase: /${method.name}/${ratio.name}\n",
}
IN_A_FOLDER = [
    {"family/mine.yaml": OF_A_FAMILY["values"]}, {"family/mine.yaml": OF_A_FAMILY["reads"]},
    {"family/mine.yaml": "name: mine", "tuned/mine_ties_lm_math.yaml": "# @package _global_\nmethod: {retain: 0.1}\n"},
    {"family/mine.yaml": "name: mine", "method/ties.yaml": "name: ties\ntarget: x:y\nscaling: 4.0\nretain: 0.4\n"},
    {"family/mine.yaml": "name: mine", "ratio/plain.yaml": "name: plain\ntarget: x:y\n"},
]  # fmt: skip


@pytest.mark.parametrize("written", IN_A_FOLDER, ids=range(len(IN_A_FOLDER)))
@pytest.mark.parametrize("method", ["average", "ties"])
def test_what_a_config_dir_changes_is_never_taken_from_a_plain_file(
    written: dict[str, str], method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(composing, "_check_shape", lambda *_: None)
    asked = ["family=mine", f"method={method}", "ratio=mixup", "sparsify=none"]
    (tree,) = composing.compose_all([tuple(asked)], [tmp_path])
    at_once = OmegaConf.create(_by_hydra([f"hydra.searchpath=[file://{tmp_path}]", *asked]))
    assert {key: tree[key] for key in ("method", "ratio", "sparsify", "seed")} == {
        key: at_once[key] for key in ("method", "ratio", "sparsify", "seed")
    }
    assert tree["family"]["base"] == at_once.family.base if "base" in at_once.family else True


def test_values_and_plain_choices_are_composed_by_hydra_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def counted(name: str, overrides: list[str]) -> DictConfig:
        asked.append(overrides)
        return compose(name, overrides)

    monkeypatch.setattr(composing, "compose", counted)
    monkeypatch.setattr(kept, "_MEMORY", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    line = ["seed=range(0,5)", "method=average,ties", "ratio=mixup", "ratio.alpha=0.5,1,2", "sparsify=none,dare"]
    assert len(config.request(line, multirun=True).configs) == 5 * 2 * 3 * 2
    assert asked == [[]]
    monkeypatch.setattr(kept, "_MEMORY", {})  # as another process
    assert len(config.request([*line, "limit=3"], multirun=True).configs) == 60
    assert asked == [[]]
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "mine.yaml").write_text((config.ROOT / "conf/family/lab.yaml").read_text())
    assert len(config.request([*line, "family=mine"], multirun=True, config_dirs=[tmp_path]).configs) == 60
    assert len(asked) == 2


def test_kept_compositions_follow_the_files_and_hold_no_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kept, "_MEMORY", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (mine := tmp_path / "mine" / "family").mkdir(parents=True)
    lab = (config.ROOT / "conf/family/lab.yaml").read_text().replace("name: lab", "name: mine")

    def parameters(*more: str) -> int | None:
        monkeypatch.setattr(kept, "_MEMORY", {})  # as another process
        return config.request(["family=mine", *more], config_dirs=[tmp_path / "mine"]).configs[0].parameters

    for count in (7, 8):
        (mine / "mine.yaml").write_text(lab.replace("parameters: 134515008", f"parameters: {count}"))
        assert [parameters(), parameters()] == [count, count]
    files = list((tmp_path / "cache/m3_exp/composed").iterdir())
    assert len(files) == 4
    for file in files:
        file.write_bytes(file.read_bytes().replace(b'"parameters":', b'"parameters": 1', 1))  # damaged
    assert parameters() == 8
    assert parameters("family.base=s3cret/s3cret", "+tracker.entity=s3cret") == 8
    assert b"s3cret" not in b"".join(file.read_bytes() for file in (tmp_path / "cache").rglob("*.json"))
    (mine / "mine.yaml").write_text(lab.replace("parameters: 134515008", "parameters: ${oc.decode:${oc.env:COUNT}}"))
    for count in (5, 6):  # an environment variable is read each time
        monkeypatch.setenv("COUNT", str(count))
        assert parameters() == count


def test_a_cache_folder_that_cannot_be_written_or_read_is_done_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for home in (str(tmp_path / "file"), "relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", home)
        monkeypatch.setenv("HOME", "/nonexistent")
        monkeypatch.setattr(kept, "_MEMORY", {})
        assert config.request(["method=ties"]).configs[0].method == "ties"
    assert not Path("relative").exists()


def test_old_compositions_make_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "_MEMORY", {})
    monkeypatch.setattr(kept, "_MOST", 3)
    for pair in ("lm", "math", "code"):
        config.request([f"pair={pair}"])
    assert len(list((tmp_path / "m3_exp/composed").iterdir())) == 3
