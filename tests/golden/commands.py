"""What the golden record asks: the runs that made its store, and every reading command in every format."""

import base64
import contextlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from m3_exp import cli

HERE = Path(__file__).parent
WORLD, SAID = HERE / "world.tar.gz", HERE / "said.tar.gz"
CONFIG = ["--config-dir", str(HERE / "conf"), "family=golden"]
RECORDED = ["engine=recorded", "engine.answers=store"]

CURVE = ["sweeps=lambda_response", "pair=lm_math"]
MASKS = ["sparsify=dare", "sparsify.draws=2", "ratio.nodes=5", "ratio.sampled=0"]
RUNS = [
    ["sweeps=table1", "limit=6"],
    [*CURVE, "method=average,ties", "limit=8"],
    [*CURVE, "method=ties", *MASKS, "limit=8"],
    ["sweeps=table2", "limit=12"],
    ["sweeps=alpha_grid", "pair=lm_math", "method=average", "limit=6"],
    ["pair=lm_math", "method=average", "ratio=mixup", "repeat=2", "limit=6"],
    [*CURVE, "method=average", "items=dev", "limit=6"],
]
BENCHMARKS = (
    *("alpaca_eval", "gsm8k", "hendrycks_math", "humaneval", "mbpp", "livebench_coding"),
    *("livebench_instruction_following", "livebench_typos", "prompt_bench_sst2", "prompt_bench_cola"),
)
FORMATS = (["--format", "md"], ["--format", "csv"], ["--format", "tex"], ["--format", "html"], ["--json"])


class Asked(NamedTuple):
    """One command of the record: its name there, its words, and the files that it writes, each made readable."""

    name: str
    words: list[str]
    files: Callable[[], dict[str, str]] = dict


def reading() -> Iterator[Asked]:  # noqa: C901
    """Give every command that reads the store. They run in the folder of the world."""
    here = [*CONFIG, "store=store", *RECORDED]
    yield Asked("plan list", ["plan", "--list"])
    yield Asked("table list", ["table", "--list"])
    yield Asked("figure list", ["figure", "--list"])
    for number, run in enumerate(RUNS):
        for command, form in itertools.product(("plan", "status"), ([], ["--json"])):
            yield Asked(f"{command} {number} {' '.join(form)}", [command, *run, *form, *here])
    for family in ("llama2_13b", "qwen2_5_1_5b"):
        yield Asked(f"plan table1 {family}", ["plan", "sweeps=table1", f"family={family}", "store=none", "--json"])
    curve, masks = [*CURVE, "method=average,ties", "limit=8"], [*CURVE, "method=ties", *MASKS, "limit=8"]
    tables = {
        "table1": ["table1", "limit=6"],
        "table2": ["table2", "limit=12"],
        "alpha_grid": ["alpha_grid", *RUNS[4][1:]],
        "lambda_response": ["lambda_response", *curve[1:]],
        "masks": ["lambda_response", *masks[1:]],
    }
    for (name, words), form in itertools.product(tables.items(), FORMATS):
        yield Asked(f"table {name} {form[-1]}", ["table", *words, *form, *here])
    ways = (["--all"], ["--draw", "1"], ["--marks", "paper"], ["--repeats"], ["--variance"])
    for name, way in itertools.product(("table1", "lambda_response"), ways):
        yield Asked(f"table {name} {' '.join(way)}", ["table", *tables[name], *way, *here])
    for way in ("crossfit", "dev", "test"):
        words = ["lambda_response", "pair=lm_math", "method=average", "limit=6", "--select", way]
        yield Asked(f"select {way}", ["table", *words, *here])
    for form in ([], ["--json"], ["--check"]):
        yield Asked(f"response {' '.join(form)}", ["response", *curve[1:], "--repeats", "50", *form, *here])
    yield Asked("response masks", ["response", *masks[1:], "--repeats", "20", "--json", *here])
    for name in ("figure1a", "figure1c", "figure3", "heatmap", "response"):
        words = ["limit=6"] if name.startswith("figure1") else []
        words = ["pair=lm_math", "method=average", "limit=8"] if name in ("heatmap", "response") else words
        yield Asked(f"figure {name}", ["figure", name, *words, "--out", "drawn.svg", *here], _drawing)
    for name, words in (("table1", ["sweeps=table1", "limit=6"]), ("curve", curve), ("table2", RUNS[3])):
        yield Asked(f"report {name}", ["report", *words, "--out", "page", *here], _page)
    for name in BENCHMARKS:
        judged = ["judge=rules"] if name == "alpaca_eval" else []
        words = [name, f"answers-{name}.jsonl", "items=lab", *judged, "--audit", "--out", "scores.jsonl"]
        yield Asked(f"score {name}", ["score", *words], _scores)
    for method, ratio, sparsify in itertools.product(
        ("average", "task_arithmetic", "ties"),
        ("ratio=plain", "ratio=fixed ratio.lam=0.3", "ratio=mixup ratio.alpha=2"),
        ("none", "dare"),
    ):
        words = ["pair=lm_math", f"method={method}", *ratio.split(), f"sparsify={sparsify}", "out=merged"]
        yield Asked(f"merge {method} {ratio} {sparsify}", ["merge", *words, *CONFIG, "store=other"], _merged)
    for number, run in enumerate(RUNS):
        yield Asked(f"run again {number}", ["run", *run, *CONFIG, *RECORDED, "store=again", "tracker=none"], _store)
    words = ["wandb", "sync", *RUNS[5][:-2], "limit=6", *here, "tracker=wandb", "tracker.mode=offline"]
    yield Asked("wandb", words, tracked)
    yield Asked("doctor", ["doctor", "pair=lm_math", "--json", *here])
    yield Asked("refused", ["run", "pair=lm_math", "method=nonsense", *here])


def _drawing() -> dict[str, str]:
    return {"drawn.svg": re.sub(r"<dc:date>.*?</dc:date>", "", _taken(Path("drawn.svg")))}


def _page() -> dict[str, str]:
    """Return what the page says: its text without style and program, and each of its packed parts but Plotly."""
    page = _taken(Path("page/index.html"))
    packed = re.compile(r'<script type="text/plain" data-pack="([^"]*)">([A-Za-z0-9+/=]*)</script>')
    parts = {name: zlib.decompress(base64.b64decode(data)).decode() for name, data in packed.findall(page)}
    text = re.sub(r"<(script|style)[ >].*?</\1>", "", page, flags=re.DOTALL)
    return {
        "page": text.replace("><", ">\n<"),
        **{name: _indented(part) for name, part in sorted(parts.items()) if name != "plotly"},
    }


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=1)
    except ValueError:
        return text


def _scores() -> dict[str, str]:
    return {"scores.jsonl": _taken(Path("scores.jsonl"))}


def _merged() -> dict[str, str]:
    recipe = _taken(Path("merged/recipe.json"))
    shutil.rmtree("merged", ignore_errors=True)
    return {"recipe.json": recipe}


def _store() -> dict[str, str]:
    """Name every file of the new store, with the figures of those that are results."""
    lines = []
    for path in sorted(p for p in Path("again").rglob("*") if p.is_file()):
        kind = path.parts[1]
        if kind in ("results", "repeats"):
            result = json.loads(path.read_text())["result"]
            figures = [result[key] for key in ("score", "low", "high", "n", "n_scored", "n_unscored")]
            lines.append(f"{path} {figures}")
        elif kind not in ("locks", "plans", "rates", "failures"):  # of a run, not of what it found
            lines.append(str(path))
    return {"store": "\n".join(lines)}


def tracked() -> dict[str, str]:
    """Return what W&B keeps of each run, by its own reader."""
    found = {}
    for folder in sorted(Path("store/wandb").glob("offline-run-*")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
        lines = map(json.loads, subprocess.run(command, capture_output=True, text=True).stdout.splitlines())
        kept = [line[line["type"]] for line in lines if line["type"] in ("run", "summary", "history", "config")]
        found[folder.name.split("-", 3)[3]] = "\n".join(json.dumps(_bare(line), indent=1) for line in kept)
    return dict(sorted(found.items()))


def _bare(value: Any) -> Any:
    """Return what W&B keeps without what it says of the machine and the time."""
    if isinstance(value, dict):
        return {k: _bare(v) for k, v in value.items() if k not in ("host", "telemetry", "start_time") and k[:1] != "_"}
    return [_bare(inner) for inner in value] if isinstance(value, list) else value


def _taken(path: Path) -> str:
    text = path.read_text(encoding="utf-8") if path.exists() else "none"
    path.unlink(missing_ok=True)
    return text


# ---------------------------------------------------------------------------------------------------------- recording

# What belongs to a machine, a moment or a path: all that may differ between two records.
MASKED: Sequence[tuple[str, str]] = (
    (r"(again/answers/\w+)/\d+-\w+\.jsonl", r"\1/JOURNAL"),
    # keyed by what a file is on this disk, or where, and by the packages that read it
    (r"(again/(inputs|conditions|loading|rendered))/[\w-]+\.json", r"\1/KEY"),
    (r"(?m)^(\s*\d+/\d+  .* items?), [^,;]* s\)", r"\1, SECONDS)"),
    (r" done( \(.*\))?(, \d+ failed)? in \d[^;\n]*", r" done\1\2 in SECONDS"),
    (r"[\d.]+ [GT]B free", "N free"),
    (r" family\.(base|experts\.\w+)=WORLD/models/\w+", ""),  # where a line that rebuilds weights finds the models
    (re.escape(str(HERE.parent.parent)), "ROOT"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+\d\d:\d\d)?", "TIME"),
    (r'"seconds": [\d.e-]+', '"seconds": SECONDS'),
    (r"(?m)^engine \d+ % busy.*$", "engine SHARE busy"),
    (r"[\d,.]+( [KMBT])? tokens/s", "N tokens/s"),
)


def masked(text: str, folder: Path) -> str:
    """Return a text without what belongs to this machine or moment; `folder` is where the world lies."""
    return bare(text.replace(str(folder), "WORLD"))


def bare(text: str) -> str:
    """Return a text with the masks laid over it."""
    for pattern, name in MASKED:
        text = re.sub(pattern, name, text)
    lines = text.splitlines(keepends=True)  # items are made while others are scored: a note may come sooner or later
    return "".join(sorted(lines, key=lambda line: line if line.startswith("items made by ") else ""))


def call(command: Sequence[str]) -> tuple[int, str]:
    """Run one command in this process; return its exit code and what it printed, errors last."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(list(command))
    return code, out.getvalue() + (f"--- stderr\n{err.getvalue()}" if err.getvalue() else "")


def record(wanted: str = "") -> Iterator[tuple[str, str]]:
    """Give the name and the masked output of every command whose name holds `wanted`, asked in a fresh world."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name), patch.dict(os.environ, WANDB_MODE="offline"):
        os.environ.pop("M3_DATA", None)  # the official items: at hand on one machine, not on another
        with tarfile.open(WORLD) as tar:
            tar.extractall(filter="data")
        for asked in reading():
            if wanted in asked.name:
                code, text = call(asked.words)
                parts = {"printed": text, **asked.files()}
                whole = "".join(f"=== {part}\n{content}\n" for part, content in parts.items())
                yield asked.name, masked(f"exit code {code}\n{whole}", Path(name).resolve())
