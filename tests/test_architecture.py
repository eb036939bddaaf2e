"""Imports run one way, and the command line is instant."""

import ast
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Lower rooms first; a room may import those before it. Those of one line do not import one another.
ORDER = [["machine", "types", "command_line", "amounts", "interrupts", "busy"], ["reading"], ["benchmarks"], ["stats"],
         ["temporary"],
         ["store"], ["merging"], ["planning"], ["engines", "scoring", "reporting"], ["chat", "progress"],
         ["heartbeat", "prompts", "keys", "forecast_words"], ["tasks", "upkeep"], ["results"], ["groups", "forecast"],
         ["events", "answers", "schedule", "flight"], ["generating"], ["worker"], ["launchers"], ["running"],
         ["config"], ["lacking"], ["doctor", "recipes", "views"], ["actions", "printing"],
         ["soups"], ["arguments"], ["completion", "recipe_command", "store_commands"], ["cli"]]  # fmt: skip


@cache
def _nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def _imports(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in _nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(found)


def _room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "m3_exp" and len(parts) > 1 else None


def test_imports_run_one_way() -> None:
    rank = {room: index for index, rooms in enumerate(ORDER) for room in rooms}
    wrong = []
    for path in sorted((ROOT / "m3_exp").rglob("*.py")):
        room = path.relative_to(ROOT / "m3_exp").parts[0].removesuffix(".py")
        if room not in rank:
            continue
        for target in {_room(module) for module in _imports(path)} - {None, room}:
            assert target is not None
            if target not in rank or rank[target] >= rank[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports m3_exp.{target}")
    assert wrong == []


REPORTING = [
    ["table", "glossary"],
    ["data", "curves"],
    ["comparisons"],
    ["choices"],
    ["tables", "figures", "wandb"],
    ["page"],
]


def test_rooms_of_reporting_stand_on_one_another() -> None:
    rank = {room: index for index, rooms in enumerate(REPORTING) for room in rooms}
    folder = ROOT / "m3_exp" / "reporting"
    assert {path.stem for path in folder.iterdir()} - {"__init__", "__pycache__"} == set(rank)
    wrong = []
    for path in sorted(folder.rglob("*.py")):
        room = path.relative_to(folder).parts[0].removesuffix(".py")
        targets = {m.split(".")[2] for m in _imports(path) if m.startswith("m3_exp.reporting.")}
        wrong += [f"{path} imports {t}" for t in targets & set(rank) - {room} if rank[t] >= rank.get(room, 0)]
    assert wrong == []


def test_every_room_is_ranked_or_stands_alone() -> None:
    rooms = {p.stem for p in (ROOT / "m3_exp").iterdir() if p.name not in ("__init__.py", "__pycache__", "help.txt")}
    assert rooms - {room for rooms_ in ORDER for room in rooms_} == {"install", "lab"}


def test_evaluators_import_only_what_scoring_stands_on() -> None:
    for path in (ROOT / "evaluators").rglob("*.py"):
        assert {_room(m) for m in _imports(path)} <= {None, "types", "reading", "stats", "scoring"}, path.name
        assert path.stem not in sys.stdlib_module_names


def test_statistics_are_made_in_stats() -> None:
    """What computes an interval, a test, a variance or a quantile stands in stats/; the rest asks. A mean is allowed.

    `merging/ratio.py` and `simplex.py` draw shares as quantiles of Beta: no statistic of a score.
    """
    draws = {ROOT / "m3_exp" / "merging" / name for name in ("ratio.py", "simplex.py")}
    wrong = []
    for path in sorted([*(ROOT / "m3_exp").rglob("*.py"), *(ROOT / "evaluators").rglob("*.py")]):
        if path.parent.name == "stats" or path in draws:
            continue
        used = {m.split(".")[0] for m in _imports(path)} & {"scipy", "statsmodels"}
        names = {node.attr for node in _nodes(path) if isinstance(node, ast.Attribute)}
        names |= {m.split(".")[-1] for m in _imports(path) if m.startswith(("statistics.", "numpy."))}
        used |= names & {"std", "var", "nanstd", "nanvar", "quantile", "percentile", "cov", "corrcoef", "stdev"}
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in sorted(used)]
    assert wrong == []


@pytest.mark.parametrize("library", ["hydra", "omegaconf"])
def test_hydra_stays_in_config(library: str) -> None:
    users = [p for p in (ROOT / "m3_exp").rglob("*.py") if any(m.split(".")[0] == library for m in _imports(p))]
    assert users
    assert {p.parent.name for p in users} == {"config"}


def test_help_is_instant() -> None:
    """Not a timing test: the heavy libraries must not be loaded at all."""
    code = "import sys; from m3_exp.cli import main; main(['--help']); print(sorted(sys.modules))"
    start = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    loaded = out.splitlines()[-1]
    assert time.monotonic() - start < 20
    for heavy in ("torch", "transformers", "hydra", "pandas", "numpy", "scipy"):
        assert f"'{heavy}'" not in loaded


def test_the_map_of_a_room_names_all_that_is_in_it() -> None:
    missing = []
    for path in sorted([*(ROOT / "m3_exp").rglob("__init__.py"), ROOT / "evaluators" / "__init__.py"]):
        words = set(re.findall(r"\w+", ast.get_docstring(ast.parse(path.read_text())) or ""))
        inside = {p.stem for p in path.parent.glob("*.py")} | {p.parent.name for p in path.parent.glob("*/__init__.py")}
        missing += [f"{path.parent.relative_to(ROOT)}: {name}" for name in sorted(inside - {"__init__"} - words)]
    assert missing == []


def test_few_annotations_are_any() -> None:
    """At most 8 in 1,000 lines: what is anything is checked by nobody."""
    paths = [path for room in ("m3_exp", "evaluators") for path in (ROOT / room).rglob("*.py")]
    sources = [path.read_text() for path in paths]
    lines = sum(source.count("\n") for source in sources)
    names = [node for path in paths for node in _nodes(path) if isinstance(node, ast.Name)]
    quoted = [text for source in sources for text in re.findall(r'"[^"\n]*\bAny\b[^"\n]*"', source)]
    assert 1000 * (sum(node.id == "Any" for node in names) + len(quoted)) <= 8 * lines
