"""A method, a ratio and a sparsifier from a folder outside the tree, in a product with the shipped ones: the code that
CONTRIBUTING.md shows, found in every command.
"""

import io
import json
import re
import shlex
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3_exp import cli, config, planning
from m3_exp.merging.canonical import TASK_ARITHMETIC
from m3_exp.types import M3Error
from tests.golden.commands import CONFIG, WORLD

BLOCKS = [re.sub(r"(?m)^   ", "", code) for code in re.findall(
    r"```python\n(.*?)```", (config.ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)]  # fmt: skip
YAML = {
    "method/level": "{name: level, target: 'outside_method:level', strength: 0.5}",
    "ratio/leaning": "{name: leaning, target: 'outside_ratio:leaning', tilt: 2.0}",
    "sparsify/largest": "{name: largest, target: 'outside_sparsify:largest', density: 0.5}",
}
PRODUCT = """plans:
  - {pair: lm_math, method: "average,level", ratio: "fixed,leaning", sparsify: "dare,largest", method.strength: 0.25,
     ratio.lam: 0.3, ratio.tilt: 3, sparsify.density: 0.4, sparsify.drop_rate: 0.1, evaluator: "[gsm8k]", limit: 4}
"""
CURVE = """plans:
  - {pair: lm_math, method: level, method.strength: 0.25, ratio: grid, ratio.nodes: 3, sparsify: largest,
     sparsify.density: 0.4, evaluator: "[gsm8k]", limit: 4}
"""
OWN = "lm_math level(strength=0.25) leaning(tilt=3, lambda=0.25) largest(density=0.4)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the world of the golden record, and one's own modules and yaml."""
    root = tmp_path_factory.mktemp("outside")
    with tarfile.open(fileobj=io.BytesIO(WORLD.read_bytes())) as tar:
        tar.extractall(root, [m for m in tar if not m.name.startswith("store")], filter="data")
    for name, code in zip(("method", "ratio", "sparsify"), BLOCKS, strict=False):  # a benchmark comes after them
        (root / f"outside_{name}.py").write_text(code)
    lines = map(json.loads, (root / "answers-gsm8k.jsonl").read_text().splitlines())
    (root / "answers.jsonl").write_text("".join(json.dumps({"benchmark": "gsm8k", **line}) + "\n" for line in lines))
    for name, text in YAML.items():
        (root / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "conf" / f"{name}.yaml").write_text(text + "\n")
    (root / "conf/sweeps").mkdir()
    (root / "conf/sweeps/outside.yaml").write_text(PRODUCT)
    (root / "conf/sweeps/lambda_response.yaml").write_text(CURVE)  # stands before the shipped one
    return root


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield
    for name in [name for name in sys.modules if name.startswith("outside_")]:
        sys.modules.pop(name)


FLAGS = [*CONFIG, "--config-dir", "conf", "engine=recorded", "engine.answers=answers.jsonl", "store=store"]


def said(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    code = cli.main([*args, *FLAGS])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def test_every_command_finds_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert OWN in said(capsys, "plan", "sweeps=outside")
    assert "8 of 8 cells done" in said(capsys, "run", "sweeps=outside", "tracker=none")
    assert "3 of 3 cells done" in said(capsys, "run", "sweeps=lambda_response", "tracker=none")
    assert "8 done; 0 failed" in said(capsys, "status", "sweeps=outside")
    rows = re.findall(r"\| level \(strength 0.25\) .*", table := said(capsys, "table", "outside"))
    assert len(rows) == 4
    assert sum("| leaning (tilt 3)" in row and "| largest (density 0.4)" in row for row in rows) == 1
    assert sum("| fixed " in row and "| yes " in row for row in rows) == 1
    said(capsys, "figure", "response", "--out", "curve.svg")
    assert "level" in Path("curve.svg").read_text()
    said(capsys, "report", "sweeps=outside", "--out", "page")
    assert "largest" in Path("page/index.html").read_text()
    lines = re.findall(r"(?m)^  ([0-9a-f]{12}) (m3 merge .*)$", table)
    assert len(lines) == 8
    for number, (weights, line) in enumerate(lines):
        capsys.readouterr()
        words = shlex.split(line.replace("out=DIR", f"out=merged{number} store=other"))
        assert cli.main(words[1:]) == 0
        assert f"weights {weights}" in capsys.readouterr().out
        record = json.loads(Path(f"merged{number}/recipe.json").read_text())
        assert record["recipe"]["weights"]


def test_a_failed_cell_is_asked_for_again_alone() -> None:
    """The narrowed line holds the cell, with keywords that only its own choices have."""
    folders = [Path(CONFIG[1]), Path("conf")]
    overrides = ["sweeps=outside", "family=golden"]
    cells = planning.build(config.request(overrides, config_dirs=folders).configs).cells
    for cell in cells:
        narrow, *_ = config.narrowed(overrides, cell, folders)
        (alone,) = planning.build(config.request(narrow, config_dirs=folders).configs).cells
        assert planning.same(alone, cell)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ("ratio.tilt=3", "ratio.tilt has no effect under ratio=plain; did you mean ratio=leaning?"),
        ("sparsify.density=0.1", "sparsify.density has no effect under sparsify=none; did you mean sparsify=largest?"),
        ("ratio=leaning ratio.alpha=1", "ratio.alpha has no effect under ratio=leaning; did you mean ratio=mixup?"),
        ("sparsify=largest sparsify.draws=2", "sparsify.draws has no effect under sparsify=largest"),
        ("ratio.tild=3", "ratio has the parameters alpha, draws, lam, nodes, sampled, tilt"),
        ("ratio=leaning ratio.tilt=steep", "ratio.tilt=steep is not a number"),
        ("ratio=leaning ratio.target=os:system", "not a function"),
        ("sparsify=largest sparsify.target=json:loads", "a sparsifier is NAME"),
    ],
)
def test_wrong_keywords_are_one_line(overrides: str, says: str) -> None:
    with pytest.raises(M3Error, match=re.escape(says)):
        planning.build(config.request(overrides.split(), config_dirs=[Path("conf")]).configs)


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
