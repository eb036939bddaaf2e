"""A method, a ratio, a sparsifier and a benchmark from a folder outside the tree, in one product with the shipped ones:
found in every command. `test_plugins.py` runs what docs/plugins.md shows.
"""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m3_exp import cli, config, planning
from m3_exp.command_line import override
from m3_exp.config.overrides import parse
from m3_exp.merging import sparsify
from m3_exp.merging.canonical import TASK_ARITHMETIC
from m3_exp.types import M3Error, Plan, identity
from tests.golden.commands import CONFIG, WORLD, tracked
from tests.plugins import FILES, LEANING, LETTERS, LETTERS_YAML

MODULES = {
    "outside_method": FILES["level.py"], "outside_ratio": LEANING, "outside_sparsify": FILES["largest.py"],
    "letters": LETTERS,
}  # fmt: skip
YAML = {
    "method/level": "{name: level, target: 'outside_method:level', strength: 0.5}",
    "ratio/leaning": "{name: leaning, target: 'outside_ratio:leaning', tilt: 2.0}",
    "sparsify/largest": "{name: largest, target: 'outside_sparsify:largest', density: 0.5}",
    "evaluator/letters": LETTERS_YAML,
    # It stands before the shipped sweep of this name, so `m3 response` and `m3 figure response` ask for it.
    "sweeps/lambda_response": """plans:
  - {pair: lm_math, method: "average,level", ratio: "grid,leaning", sparsify: "dare,largest", method.strength: 0.25,
     ratio.nodes: 3, ratio.tilt: 3, sparsify.density: 0.4, sparsify.drop_rate: 0.1, evaluator: "[gsm8k,letters]",
     evaluator.letters.letter: a, limit: 4}
""",
}
OWN = "lm_math level(strength=0.25) leaning(tilt=3, lambda=0.25) largest(density=0.4)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the world of the golden record, one's own modules and yaml, and answers."""
    root = tmp_path_factory.mktemp("outside")
    with tarfile.open(WORLD) as tar:
        tar.extractall(root, [m for m in tar if not m.name.startswith("store")], filter="data")
    for module, code in MODULES.items():
        (root / f"{module}.py").write_text(code)
    for name, text in YAML.items():
        (root / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "conf" / f"{name}.yaml").write_text(text + "\n")
    words = re.findall(r'"(\w+)"', re.search(r"WORDS = (.*)", LETTERS)[1])  # type: ignore[index]
    letters = [{"benchmark": "letters", "id": word, "text": f"There are {word.count('a')}."} for word in words[1:]]
    letters += [{"benchmark": "letters", "id": words[0], "text": "None."}]
    lines = map(json.loads, (root / "answers-gsm8k.jsonl").read_text().splitlines())
    every = [*letters, *({"benchmark": "gsm8k", **line} for line in lines)]
    (root / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in every))
    (root / "letters.jsonl").write_text("".join(json.dumps(line) + "\n" for line in letters))
    return root


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    for name in [name for name in sys.modules if name.startswith("outside_") or name == "letters"]:
        sys.modules.pop(name)


FLAGS = [*CONFIG, "--config-dir", "conf", "engine=recorded", "engine.answers=answers.jsonl", "store=store"]


def said(capsys: pytest.CaptureFixture[str], *args: str, flags: list[str] = FLAGS) -> str:
    capsys.readouterr()
    code = cli.main([*args, *flags])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def build(*overrides: str, folders: tuple[Path, ...] = (Path("conf"),)) -> Plan:
    return planning.build(config.request(overrides, config_dirs=folders).configs)


@pytest.mark.slow
def test_every_command_finds_them(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    # plan, in a process of its own that finds the modules by PYTHONPATH
    path = f"{folder}:{config.ROOT}"
    words = ["plan", "sweeps=lambda_response", "--json", *FLAGS]
    code = "import sys; from m3_exp.cli import main; sys.exit(main(sys.argv[1:]))"
    found = subprocess.run(
        [sys.executable, "-c", code, *words], env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=True
    )
    cells = json.loads(found.stdout)["cells"]
    assert [OWN in cell["labels"] for cell in cells if cell["benchmark"] == "letters"].count(True) == 1

    assert f"{len(cells)} of {len(cells)} cells done" in said(capsys, "run", "sweeps=lambda_response", "tracker=none")
    narrow = ["sweeps=lambda_response", "method=level", "ratio=leaning", "sparsify=largest"]
    assert "1 cell: 1 done\n" in said(capsys, "status", *narrow, "evaluator=[letters]")

    flags = ["--config-dir", "conf"]
    scored = json.loads(said(capsys, "score", "letters", "letters.jsonl", "letter=a", flags=flags))
    assert (scored["score"], scored["n"], scored["settings"]["letter"]) == (87.5, 8, "a")
    assert json.loads(said(capsys, "score", "letters", "letters.jsonl", "letter=z", flags=flags))["score"] < 87.5

    table = said(capsys, "table", "lambda_response")
    heading = next(line for line in table.splitlines() if line.startswith("| method"))
    assert re.search(r"gsm8k, .*\| letters, accuracy, n=4", heading)  # behind the shipped ones
    (row,) = [line for line in table.splitlines() if "| level (strength 0.25)" in line and "leaning (tilt 3)" in line
              and "largest (density 0.4)" in line]  # fmt: skip
    assert "100.0" in row.split("|")[-2] or "75.0" in row.split("|")[-2]

    response = said(capsys, "response")  # leaning's lambda is one more point of the curve
    assert "level largest (density 0.4) strength 0.25 (golden): 4 lambdas; items: gsm8k 4, letters 4" in response
    said(capsys, "figure", "response", "method=level", "sparsify=largest", "--out", "curve.svg")
    drawn = Path("curve.svg").read_text()
    assert all(name in drawn for name in ("level", "largest (density 0.4)", "Letters"))
    said(capsys, "report", "sweeps=lambda_response", "--out", "page")
    page = Path("page/index.html").read_text()
    assert all(name in page for name in ("strength 0.25", "leaning (tilt 3)", "largest (density 0.4)", "Letters"))

    said(capsys, "wandb", "sync", *narrow, "tracker=wandb", "tracker.mode=offline")
    runs = tracked()
    assert sum(OWN in run and '"letters"' in run for run in runs.values()) == 1

    # The line that rebuilds a row, in another directory
    lines = dict(map(reversed, re.findall(r"(?m)^  ([0-9a-f]{12}) (m3 merge .*)$", table)))  # type: ignore[arg-type]
    assert len(lines) == len(cells) // 2
    os.chdir(tmp_path)
    for number, (line, weights) in enumerate(lines.items()):
        capsys.readouterr()
        words = shlex.split(line.replace("out=DIR", f"out=merged{number} store=other verify=false"))
        assert cli.main(words[1:]) == 0
        assert f"weights {weights}" in capsys.readouterr().out


MORE = """
import random

import torch

from m3_exp.merging.mixtures import Mixture
from m3_exp.merging.plugins import Declares


def scattered(n_experts, *, seed, alpha: float = 1.0, draws: int):
    rng = random.Random(seed)
    return [Mixture([alpha * rng.random() for _ in range(n_experts)], draw=draw) for draw in range(draws)]


def steps(n_experts, *, seed, top: float, word: str = "it's é"):
    return [Mixture([top / step] * n_experts, facts={"word": word}) for step in (1, 2)]


def halving(delta, key, *, rate: float = 0.5):
    kept = torch.rand(delta.shape, generator=torch.Generator().manual_seed(key % 2**62)) > rate
    return delta * kept, delta.numel() - int(kept.sum())


def shares(n, weights, *, strength):
    return tuple(strength * weight for weight in weights or (1 / n,) * n)


@Declares(granularity="element", coefficients=shares)
def first(deltas, weights, base, *, strength: float = 1.0):
    return base + sum(share * delta for share, delta in zip(shares(len(deltas), weights, strength=strength), deltas))


def second(deltas, weights, base, *, rank: int = 2):
    return base + deltas[0].flatten().topk(rank).values.mean()
"""
MORE_YAML = {
    "ratio/scattered": "{name: scattered, target: 'outside_more:scattered', draws: 3}",
    "ratio/steps": "{name: steps, target: 'outside_more:steps', top: 1.0}",
    "sparsify/halving": "{name: halving, target: 'outside_more:halving'}",
    "method/first": "{name: first, target: 'outside_more:first'}",
    "method/second": "{name: second, target: 'outside_more:second'}",
    "pair/trio": "# @package _global_\ndefaults: [/evaluator: [gsm8k], _self_]\n"
    "pair: {name: trio, experts: [lm, math, code]}",
}


@pytest.fixture
def more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of yaml for functions with more kinds of keywords than those above have."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "outside_more.py").write_text(MORE)
    for name, text in MORE_YAML.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / f"{name}.yaml").write_text(text + "\n")
    return tmp_path / "conf"


RATIOS = (
    "ratio=scattered ratio.alpha=0.7 seed=3 sparsify=halving sparsify.draws=2",
    "ratio=steps ratio.top=0.3 sparsify=halving sparsify.seed=7",
    "ratio=fixed ratio.weights=[0.3,1e-9,1.5]",
    "ratio=fixed ratio.weights=[0.3,0.2]",
    "ratio=plain",
)


@pytest.mark.parametrize(("ratio", "pair"), list(itertools.product(RATIOS, ("lm_math", "trio"))))
def test_the_line_rebuilds_the_row_of_any_ratio(more: Path, ratio: str, pair: str) -> None:
    folders = (Path(CONFIG[1]), more)
    request = ["family=golden", f"pair={pair}", "method=task_arithmetic", "evaluator=[gsm8k]", *ratio.split()]
    if len(re.findall(",", ratio)) == (1 if pair == "trio" else 2):
        with pytest.raises(M3Error, match=r"weights for [23] experts"):
            build(*request, folders=folders)
        return
    cells = build(*request, folders=folders).cells
    rows = 6 if "scattered" in ratio else 2 if "steps" in ratio else 1
    assert len({identity(cell.recipe) for cell in cells}) == len(cells) == rows
    lines = [planning.merge_line(cell.labels[0], cell.recipe) for cell in cells]
    os.chdir("/")
    for cell, line in zip(cells, lines, strict=True):
        words = [word for word in shlex.split(line)[2:] if word != "out=DIR"]
        where = tuple(Path(word.partition("=")[2]) for word in words if word.startswith("--config-dir="))
        (again,) = build(*(word for word in words if "--" not in word), "evaluator=[gsm8k]", folders=where).cells
        for part in ("method", "params", "weights", "sparsify", "dtype", "vocab"):
            assert getattr(again.recipe, part) == getattr(cell.recipe, part)
        assert [Path(x.location).name for x in again.recipe.experts] == [
            Path(x.location).name for x in cell.recipe.experts
        ]


def test_several_mixtures_without_lambda_are_written_side_by_side(
    more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*CONFIG, "--config-dir", str(more), f"store={tmp_path / 'store'}", "verify=false"]
    out = said(capsys, "merge", "pair=trio", "ratio=steps", f"out={tmp_path / 'out'}", flags=flags)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "weights-0.5-0.5-0.5", "weights-1.0-1.0-1.0",
    ]  # fmt: skip
    assert "steps(word=it's é, 0.5 lm + 0.5 math + 0.5 code)" in out
    said(capsys, "merge", "pair=trio", "ratio=scattered", f"out={tmp_path / 'draws'}", flags=flags)
    assert len(list((tmp_path / "draws").iterdir())) == 3


@pytest.mark.slow
def test_a_keyword_that_no_yaml_of_its_choice_names_is_set(more: Path) -> None:
    """`alpha` stands in mixup.yaml, `draws` and `seed` in dare.yaml; the folder's yaml leave them to the functions."""
    (found,) = config.request(["ratio=scattered", "ratio.alpha=2"], config_dirs=[more]).configs
    assert found.ratio.params == {"draws": 3, "alpha": 2.0}
    (found,) = config.request(["sparsify=halving", "sparsify.draws=3", "sparsify.seed=7"], config_dirs=[more]).configs
    assert (found.draws, found.mask_seed) == (3, 7)
    line = ["ratio=mixup,scattered", "ratio.alpha=2", "method=second,ties", "method.rank=3"]
    found, *others = config.request(line, multirun=True, config_dirs=[more]).configs
    assert [(one.ratio.params["alpha"], one.params.get("rank")) for one in (found, *others)] == [
        (2.0, 3.0), (2.0, None), (2.0, 3.0), (2.0, None),
    ]  # fmt: skip


def test_two_functions_of_a_module_share_nothing(more: Path) -> None:
    linear, other = (
        build(f"method={name}", "evaluator=[gsm8k]", folders=(more,)).cells[0].recipe for name in ("first", "second")
    )
    assert linear.method.endswith("average:average")
    assert other.method == "outside_more:second"


def test_a_methods_keyword_is_a_whole_number_where_it_says_so(
    more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*CONFIG, "--config-dir", str(more), f"store={tmp_path / 'store'}", "verify=false"]
    said(capsys, "merge", "pair=lm_math", "method=second", "method.rank=3", f"out={tmp_path / 'out'}", flags=flags)
    assert json.loads((tmp_path / "out/recipe.json").read_text())["recipe"]["params"] == {"rank": 3.0}
    with pytest.raises(M3Error, match=r"method.rank=2.5 is not a whole number"):
        build("method=second", "method.rank=2.5", folders=(more,))


@pytest.mark.parametrize("text", ["it's é", 'a "b"', "a\\b\\", "'x'", "null", "1e-4", "a, b", "{a: b}", ""])
def test_a_text_in_a_printed_line_reads_back(text: str) -> None:
    assert parse(override("ratio.word", text)).value() == text


@pytest.mark.slow
def test_a_failed_cell_is_asked_for_again_alone(more: Path) -> None:
    """The narrowed line holds the cell, with keywords that only its own choices have."""
    folders = [Path(CONFIG[1]), Path("conf"), more]
    for overrides in (
        ["sweeps=lambda_response", "family=golden"],
        ["pair=trio", "ratio=steps", "ratio.word='it\\'s'", "family=golden"],
    ):
        cells = planning.build(config.request(overrides, config_dirs=folders).configs).cells
        for cell in cells[:: max(1, len(cells) // 6)]:
            narrow, line, _ = config.narrowed(overrides, cell, folders)
            asked = narrow if cell.evaluator.name == "letters" else line  # the sweep sets letters up by name
            again = planning.build(config.request(asked, config_dirs=folders).configs).cells
            assert [planning.same(one, cell) for one in again].count(True) == 1
            assert len(again) <= 6


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ("ratio.tilt=3", "ratio.tilt has no effect under ratio=plain; did you mean ratio=leaning?"),
        (
            "sparsify.density=0.1",
            "sparsify.density has no effect under sparsify=none; did you mean sparsify=breadcrumbs or sparsify=della or"
            " sparsify=largest or sparsify=magnitude?",
        ),
        ("ratio=leaning ratio.alpha=1", "ratio.alpha has no effect under ratio=leaning; did you mean ratio=mixup?"),
        ("sparsify=largest sparsify.draws=2", "sparsify.draws has no effect under sparsify=largest"),
        (
            "ratio.tild=3",
            "ratio has the parameters alpha, draws, first, groups, lam, lams, last, nodes, parts, per, rest, sampled,"
            " steps, tilt",
        ),
        ("ratio=leaning ratio.tilt=steep", "ratio.tilt=steep is not a number"),
        ("ratio=leaning ratio.target=os:system", "not a function"),
        ("sparsify=largest sparsify.target=json:loads", "a sparsifier is NAME"),
    ],
)
def test_wrong_keywords_are_one_line(overrides: str, says: str) -> None:
    with pytest.raises(M3Error, match=re.escape(says)):
        build(*overrides.split())


@pytest.mark.parametrize(
    ("file", "text", "overrides", "says"),
    [
        ("ratio/mixup", "{name: mixup, target: 'm3_exp.merging.mixtures:mixup', alpha: 2, draws: 1}", "",
         "is not read: ratio/mixup.yaml is shipped; give yours another name"),
        ("evaluator/_base", "letters: 3", "", "is not read: evaluator/_base.yaml is shipped"),
        ("ratio/sampled", "{name: sampled, target: 'm3_exp.merging.mixtures:plain'}", "ratio=sampled",
         "ratio.name=sampled means something else in tables: give this ratio another name"),
        ("method/single", "{name: single, target: 'm3_exp.merging.methods.average:average'}", "method=single",
         "method.name=single means something else"),
        ("ratio/broken", "{name: broken, target: 'outside_broken:broken'}", "ratio=broken",
         "ratio outside_broken:broken cannot be asked for 2 experts (IndexError: list index out of range)"),
        ("ratio/short", "{name: short, target: 'outside_broken:short'}", "ratio=short",
         "ratio outside_broken:short gives 1 weights for 2 experts: one each is needed"),
        ("ratio/beside", "{name: beside, target: 'outside_broken:beside'}", "ratio=beside",
         "sampled mixtures, which correct the curve of ratio=grid alone"),
        ("ratio/mixed", "{name: mixed, target: 'outside_broken:mixed', alpha: x}", "ratio=mixed",
         "give a number as alpha, a whole number from 0 as draw, or None"),
        ("ratio/mixed", "{name: mixed, target: 'outside_broken:mixed', draw: half}", "ratio=mixed",
         "give a number as alpha, a whole number from 0 as draw, or None"),
        ("ratio/mixed", "{name: mixed, target: 'outside_broken:mixed', draw: -1}", "ratio=mixed", "draw=-1"),
        ("ratio/mixed", "{name: mixed, target: 'outside_broken:mixed', count: 3}", "ratio=mixed",
         "ratio outside_broken:mixed gives 3 draws 1 numbers: give each its own, from 0"),
        ("ratio/mixed", "{name: mixed, target: 'outside_broken:mixed', facts: 1}", "ratio=mixed",
         "ratio outside_broken:mixed has the fact count={1}: give its keywords, as numbers or texts"),
        ("ratio/mixed", "{name: mixed, target: 'outside_broken:mixed', facts: 2}", "ratio=mixed",
         "cannot be asked for 2 experts (TypeError"),
        ("ratio/leaving", "{name: leaving, target: 'outside_broken:leaving'}", "ratio=leaving",
         "ratio outside_broken:leaving cannot be asked for 2 experts (SystemExit: 3)"),
        ("method/gone", "{name: gone, target: 'outside_gone:gone'}", "method=gone",
         "method 'outside_gone:gone' cannot be imported (SystemExit: 4)"),
        ("method/three", "{name: three, target: 'outside_broken:three'}", "method=three",
         "method outside_broken:three declares 3 shares for 2 experts: one each is needed"),
        ("method/four", "{name: four, target: 'outside_broken:four'}", "method=four",
         "method outside_broken:four declares 4 shares for 2 experts: one each is needed"),
        ("method/middle", "{name: middle, target: 'outside_broken:middle'}", "method=middle sparsify=dare",
         "method outside_broken:middle takes the experts themselves (`models`), a sparsifier thins deltas: "
         "give sparsify=none, or name `deltas` in the method"),
        ("method/middle", "{name: middle, target: 'outside_broken:middle'}", r"ratio=mixup ratio.alpha='\${x}'",
         "${x} is left in a value, written as \\${x}: give a text without ${"),
        ("ratio/mixed", r"{name: mixed, target: 'outside_broken:mixed', alpha: '\${oc.env:HOME}'}", "ratio=mixed",
         "${oc.env:HOME} is left in a value, written as \\${oc.env:HOME}: give a text without ${"),
    ],
)  # fmt: skip
def test_wrong_choices_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, overrides: str, says: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "outside_broken.py").write_text(
        "from m3_exp.merging.mixtures import Mixture\n"
        "def broken(n_experts, *, seed):\n    return [Mixture([[1.0][n_experts]])]\n"
        "def short(n_experts, *, seed):\n    return [Mixture([1.0])]\n"
        "def beside(n_experts, *, seed):\n    return [Mixture([0.5, 0.5], draw=0, sampled=True)]\n"
        "def mixed(n_experts, *, seed, alpha=1.0, draw=0, count=1, facts=0):\n"
        "    facts = [{}, {'count': {1}}, 3][facts]\n"
        "    return [Mixture([0.5 / (at + 1)] * 2, alpha=alpha, draw=draw, facts=facts) for at in range(count)]\n"
        "def leaving(n_experts, *, seed):\n    raise SystemExit(3)\n"
        "from m3_exp.merging.plugins import Declares\n"
        "@Declares(coefficients=lambda n, weights: (0.5,) * 3)\ndef three(deltas, weights, base): ...\n"
        "@Declares(proportions=lambda n, weights: (0.5,) * 4)\ndef four(deltas, weights, base): ...\n"
        "def middle(models, weights): ...\n"
    )
    (tmp_path / "outside_gone.py").write_text("raise SystemExit(4)\n")
    (tmp_path / file).parent.mkdir()
    (tmp_path / f"{file}.yaml").write_text(text + "\n")
    with pytest.raises(M3Error, match=re.escape(says)):
        build(*overrides.split(), folders=(tmp_path,))


@pytest.mark.parametrize("drop_rate", [0, 0.2])
def test_average_takes_the_experts_and_is_thinned_by_its_coefficients(more: Path, drop_rate: float) -> None:
    """A method without a linear form is not thinned; where DARE changes nothing, nothing needs to be."""
    thinned = ["sparsify=dare", f"sparsify.drop_rate={drop_rate}", "evaluator=[gsm8k]"]
    (cell,) = build("method=average", *thinned).cells
    assert cell.recipe.method.endswith("task_arithmetic:task_arithmetic" if drop_rate else "average:average")
    assert cell.recipe.weights == (0.5, 0.5)
    (more.parent / "outside_middle.py").write_text("def middle(models, weights): ...\n")
    (more / "method/middle.yaml").write_text("{name: middle, target: 'outside_middle:middle'}\n")
    if drop_rate:
        with pytest.raises(M3Error, match="a sparsifier thins deltas: give sparsify=none"):
            build("method=middle", *thinned, folders=(more,))
    else:
        assert build("method=middle", *thinned, folders=(more,)).cells[0].recipe.sparsify is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", ["outside_nowhere:f", "outside_more:lost", "json:loads", "null", "'${oc.env:M3_NO}'"]
)
def test_a_choice_that_does_not_load_leaves_the_others_as_they_are(more: Path, target: str) -> None:
    for group in ("method", "ratio", "sparsify"):
        (more / f"{group}/bad.yaml").write_text(f"{{name: bad, target: {target}, own: 1}}\n")
    (found,) = config.request(["ratio=steps", "sparsify=halving", "method=first"], config_dirs=[more]).configs
    assert found.ratio.name == "steps"
    for group in ("method", "ratio", "sparsify"):
        with pytest.raises(M3Error):
            build(f"{group}=bad", folders=(more,))
    with pytest.raises(M3Error, match=r"ratio.top has no effect under ratio=plain; did you mean ratio=steps\?"):
        build("ratio.top=3", folders=(more,))
    with pytest.raises(M3Error, match=r"ratio has the parameters alpha, .*top"):
        build("ratio.topp=3", folders=(more,))


@pytest.mark.parametrize(("word", "shown"), [(None, "null"), ("", "''"), ("a b", "a b"), (0.25, "0.25"), ((), "")])
def test_plan_and_table_name_a_keyword_alike(more: Path, word: object, shown: str) -> None:
    label = build("ratio=steps", "evaluator=[gsm8k]", folders=(more,)).cells[0].labels[0]
    for axis in ("ratio", "sparsify"):
        named = replace(label, sparsify="halving", axis_keywords={f"{axis}.word": word})
        assert f"word={shown}" in planning.label_text(named)
        assert f"(word {shown}" in planning.table_name(named, axis)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "made", ["()", "(delta,)", "(delta, 1, 2)", "(delta, None)", "(delta, delta)", "delta", "None", "(delta[:1], 0)"]
)
def test_a_sparsifier_that_returns_no_pair_is_refused(more: Path, made: str) -> None:
    (more.parent / "outside_more.py").write_text(f"def alone(delta):\n    return {made}\n")
    with pytest.raises(M3Error, match=r"sparsifier outside_more:alone returned \w+ for w: give a tensor of \(2, 3\)"):
        sparsify.of({"target": "outside_more:alone"})(np.zeros((2, 3), np.float32), "expert", "w", 0)


def test_choices_written_before_still_compose(tmp_path: Path) -> None:
    """Yaml that repeats what the other choices of its group are told, and names no function."""
    texts = {
        "ratio": "{name: mixup, alpha: 2.0, draws: 2, lam: 0.5, nodes: 9, sampled: 0}",
        "sparsify": "{name: dare, drop_rate: 0.3, draws: 1, seed: 5}",
        "method": f"{{name: mine, target: '{TASK_ARITHMETIC}', scaling: 0.5, retain: 1}}",
        "engine": (config.ROOT / "conf/engine/_base.yaml").read_text() + "name: vllm\n",
    }
    for group, text in texts.items():
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(text)
    line = [*(f"{group}=mine" for group in texts), "ratio.alpha=3"]
    (found,) = config.request(line, config_dirs=[tmp_path]).configs
    assert found.ratio.params == {"alpha": 3.0, "draws": 2}
    assert found.params == {"scaling": 0.5}
    (cell, *_) = planning.build([found]).cells
    assert cell.recipe.sparsify == {"drop_rate": 0.3, "seed": 5}
