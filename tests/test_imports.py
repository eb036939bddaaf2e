"""What everyday commands import, counted in a process of their own: never seconds, which depend on the machine.

A bound is what the command imports today and a quarter more. A command that needs more has a reason; say it here.
`import scipy` alone is a dozen small modules (3 ms) of whatever imports stats/; its functions come when they are used.
"""

import ast
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.golden.commands import CONFIG, RECORDED, WORLD, call

ROOT = Path(__file__).parent.parent
# Each takes from a quarter of a second to several to import.
HEAVY = (
    *("torch", "transformers", "huggingface_hub", "vllm", "scipy.stats", "scipy.special", "scipy.optimize", "pandas"),
    *("matplotlib", "plotly", "sklearn", "sympy", "statsmodels", "numba", "gguf", "wandb", "datasets", "peft"),
)
SCIPY = ("scipy.special",)
COUNTED = """
import sys
from m3_exp.cli import main
main(sys.argv[2:])
open(sys.argv[1], "w").write(" ".join(sys.modules))
"""

HERE = [*CONFIG, "store=store", *RECORDED]
SMALL = ["pair=lm_math", "method=average", "evaluator=[gsm8k]", "limit=6"]
MERGE = ["merge", "pair=lm_math", *CONFIG, "store=store"]
# The words of a command, how many modules it may import, and which of the heavy ones it needs.
COMMANDS: dict[str, tuple[list[str], int, tuple[str, ...]]] = {
    "help": (["--help"], 140, ()),
    "list": (["plan", "--list"], 150, ()),
    "TAB": (["completion", "words", "m3 run ratio.al"], 190, ()),
    "no such method": ([*MERGE, "method=nope", "out=merged"], 500, ()),
    "no such lambda": ([*MERGE, "ratio=fixed", "ratio.lam=2", "out=merged"], 660, ()),
    "no such expert": (["merge", "family=local", "family.base=no", "family.experts=[no,no]", "out=merged"], 630, ()),
    "output that is there": ([*MERGE, "out=models"], 770, ()),
    "plan of absent models": (["plan", "pair=lm_math", "family=llama2_13b", "store=none"], 1060, ("huggingface_hub",)),
    "plan": (["plan", *SMALL, *HERE], 790, ()),
    "status": (["status", *SMALL, *HERE], 790, ()),
    "table": (["table", "table1", "pair=lm_math", "limit=6", *HERE], 1480, ("pandas", *SCIPY)),
    "table of single merges": (["table", "demo", "limit=6", *HERE], 1440, ("pandas",)),
    "response": (["response", *SMALL[:2], "limit=8", "--repeats", "20", *HERE], 1480, ("pandas", *SCIPY)),
    "figure": (["figure", "figure1a", "limit=6", "--out", "f.svg", *HERE], 1670, ("pandas", "matplotlib", *SCIPY)),
    "score": (["score", "gsm8k", "answers-gsm8k.jsonl", "items=lab"], 700, ()),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden record's models and store, which know the digests of models and of prompts."""
    folder = tmp_path_factory.mktemp("world")
    with tarfile.open(WORLD) as tar, pytest.MonkeyPatch.context() as patched:
        tar.extractall(folder, filter="data")
        patched.chdir(folder)
        codes = [call(COMMANDS[name][0])[0] for name in ("status", "table", "response", "figure")]
    assert codes == [0, 0, 0, 0]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_imports_what_it_needs(name: str, world: Path, tmp_path: Path) -> None:
    words, most, needed = COMMANDS[name]
    found = tmp_path / "modules"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", COUNTED, str(found), *words], cwd=world, env=env, capture_output=True)
    assert found.exists(), done.stderr.decode()
    modules = set(found.read_text().split())
    assert sorted(modules & {*HEAVY} - {*needed}) == []
    assert len(modules) <= most


# What runs in an engine's own process, and the compiled loops: whoever imports these has tensors in hand.
AT_WORK = ("engines/transformers_model.py", "engines/vllm_worker.py", "merging/compiled.py")
SLOWEST = ("torch", "transformers", "huggingface_hub", "gguf", "numba", "statsmodels", "wandb", "vllm")


@pytest.mark.slow
def test_no_module_imports_the_slowest_packages_at_its_top() -> None:
    """Also those that no command above reaches; lab/ trains models."""
    wrong = []
    for path in sorted((ROOT / "m3_exp").rglob("*.py")):
        name = str(path.relative_to(ROOT / "m3_exp"))
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        found = {(node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name for node in top}
        if name not in AT_WORK and not name.startswith("lab/"):
            wrong += [f"{name}: {one}" for one in sorted(found) if one.split(".")[0] in SLOWEST]
    assert wrong == []
