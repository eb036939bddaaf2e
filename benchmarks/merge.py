"""Time merging beside mergekit 0.1.5: whole processes on generated llama-shaped bfloat16 checkpoints.

    python benchmarks/merge.py                          in full (1.1B parameters; 2, 3, 5, 8 experts; hours on 2 cores)
    python benchmarks/merge.py --experts 2              about an hour
    python benchmarks/merge.py --methods slerp,sce      some methods alone; slerp has two experts
    python benchmarks/merge.py --add --methods ties     these anew; the other rows of the table stay
    python benchmarks/merge.py --layers 2 --hidden 256  a trial

mergekit gets a virtual environment of its own that sees this one's packages (or `--mergekit PATH` names its
`mergekit-yaml`). Runs alternate, the median of `--runs` counts. Inputs lie on disk, mapped and warm in the page cache;
outputs go to `--fast` (a tmpfs), because we sync what we write and mergekit does not, and the disk is not what is
measured. Our inputs' digests are known, as in a sweep; what TIES scans is not. That transformers loads the result is
checked by neither.
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Merge:
    """One merge as both tools know it: our method, its parameters and sparsifier, and what mergekit's YAML says.

    `shared` are mergekit's parameters of the whole, `each` those of every model.
    """

    method: str
    params: dict[str, float] = field(default_factory=dict)
    sparsify: dict[str, float | str] | None = None
    shared: dict[str, float | bool] = field(default_factory=dict)
    each: dict[str, float] = field(default_factory=dict)
    has_base: bool = True
    has_weights: bool = True
    most: int = 8  # experts


SUM, SPARSIFIERS = {"scaling": 1.0}, "m3_exp.merging.sparsify"
DELLA: dict[str, float | str] = {"target": f"{SPARSIFIERS}.della:della", "seed": 1, "rescale": "l1"}
CRUMBS: dict[str, float | str] = {"target": f"{SPARSIFIERS}.breadcrumbs:breadcrumbs"}
PLAIN: dict[str, float | bool] = {"normalize": False}
METHODS = {
    "linear": Merge("average", has_base=False),
    "task_arithmetic": Merge("task_arithmetic", SUM, shared=PLAIN),
    "dare_linear": Merge("task_arithmetic", SUM, {"drop_rate": 0.2, "seed": 1}, PLAIN, {"density": 0.8}),
    "ties": Merge("ties", {"scaling": 1.0, "retain": 0.7}, shared=PLAIN, each={"density": 0.7}),
    "slerp": Merge("slerp", {"threshold": 0.9995}, has_base=False, most=2),
    "karcher": Merge(
        "karcher", {"steps": 10, "tolerance": 1e-5}, shared={"max_iter": 10, "tol": 1e-5},
        has_base=False, has_weights=False,
    ),
    "model_stock": Merge("model_stock", has_weights=False),
    "sce": Merge("sce", {"density": 0.7}, shared={"select_topk": 0.7}, has_weights=False),
    "della_linear": Merge(
        "task_arithmetic", SUM, {**DELLA, "density": 0.7, "epsilon": 0.15},
        PLAIN, {"density": 0.7, "epsilon": 0.15},
    ),
    "breadcrumbs": Merge(
        "task_arithmetic", SUM, {**CRUMBS, "density": 0.7, "gamma": 0.01}, PLAIN, {"density": 0.7, "gamma": 0.01}
    ),
}  # fmt: skip
GOAL = 3.0  # times mergekit's speed
NAMES = "abcdefgh"  # of the experts
OURS = """
import json, sys
from pathlib import Path
from m3_exp.merging.stream import write
from m3_exp.store import Store
from m3_exp.types import Recipe, Source
asked = json.loads(sys.argv[1])
base, *experts = (Source(f"{asked['models']}/{name}") for name in ("base", *asked["experts"]))
method = asked["method"]
recipes = [
    Recipe(base, tuple(experts), f"m3_exp.merging.methods.{method}:{method}", asked["params"],
           tuple(weights) if asked["has_weights"] else None, asked["sparsify"])
    for weights in asked["weights"]
]
write(recipes, [Path(out) for out in asked["outs"]], Store(Path(asked["store"])), experts[0], verify=False)
"""


@dataclass(frozen=True)
class Run:
    """One process: wall-clock and processor seconds, and the peak of its anonymous memory in MB."""

    seconds: float
    processor: float
    anonymous: float


def main() -> None:
    options = arguments()
    work = Path(tempfile.mkdtemp(prefix="m3-merge-", dir=options.work))
    fast = Path(tempfile.mkdtemp(prefix="m3-merge-", dir=options.fast))
    try:
        mergekit = Path(options.mergekit) if options.mergekit else install(work / "mergekit")
        parameters = generate(work / "models", options.layers, options.hidden, max(options.experts))
        rows, swept = earlier(options.out) if options.add else ({}, [])
        for n, name in itertools.product(options.experts, options.methods):
            if n <= METHODS[name].most:
                rows[name, n] = compare(name, n, work, fast, mergekit, options.runs)
                report(options, rows, parameters, swept)
        if "task_arithmetic" in options.methods:
            small = generate(work / "small" / "models", options.layers * 7 // 22 or 1, options.hidden)
            swept = sweep(small, *several(work / "small", fast, options.runs))
            report(options, rows, parameters, swept)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(fast, ignore_errors=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--add", action="store_true", help="keep the rows of --out that are not measured now")
    parser.add_argument("--experts", type=lambda text: [int(n) for n in text.split(",")], default=[2, 3, 5, 8])
    parser.add_argument("--methods", type=names, default=[*METHODS], help=", ".join(METHODS))
    parser.add_argument("--mergekit", help="a mergekit-yaml of version 0.1.5")
    parser.add_argument("--work", default=tempfile.gettempdir(), help="where the inputs go (20 GB with 8 experts)")
    parser.add_argument("--fast", default="/dev/shm", help="where the outputs go, one after the other (6 GB)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "merge.md")
    return parser.parse_args()


def names(text: str) -> list[str]:
    if unknown := sorted({*text.split(",")} - {*METHODS}):
        raise argparse.ArgumentTypeError(f"{unknown[0]} is not known: {', '.join(METHODS)}")
    return text.split(",")


def install(folder: Path) -> Path:
    """Make an environment with mergekit that shares this one's torch; return its `mergekit-yaml`."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    here = next(path for path in sys.path if path.endswith("site-packages"))
    there = next((folder / "lib").glob("python*")) / "site-packages"
    (there / "shared.pth").write_text(here + "\n")
    subprocess.run([folder / "bin" / "pip", "install", "-q", "mergekit==0.1.5"], check=True)
    return folder / "bin" / "mergekit-yaml"


# ------------------------------------------------------------------------------------------------------------- inputs


def generate(folder: Path, layers: int, hidden: int, experts: int = 2) -> int:
    """Write a random base and some fine-tunes of it, a file a layer; return the number of parameters."""
    sys.path.insert(0, str(ROOT))
    from tests.models import Shape, config_of, linear_shapes, write_tokenizer

    shape = Shape(vocab=32000, hidden=hidden, inner=hidden * 11 // 4, layers=layers, heads=32, kv_heads=4)
    sizes: dict[str, tuple[int, ...]] = {**linear_shapes(shape)}
    sizes.update({name: (shape.vocab, hidden) for name in ("model.embed_tokens.weight", "lm_head.weight")})
    norms = [f"layers.{i}.{part}_layernorm" for i in range(layers) for part in ("input", "post_attention")]
    sizes.update({f"model.{name}.weight": (hidden,) for name in [*norms, "norm"]})
    groups: dict[str, list[str]] = {}
    for name in sorted(sizes):
        groups.setdefault(name.split(".")[2] if ".layers." in name else name, []).append(name)
    models = ("base", *NAMES[:experts])
    for model in models:
        (folder / model).mkdir(parents=True)
        (folder / model / "config.json").write_text(json.dumps(config_of(shape)))
        write_tokenizer(folder / model, 300)
    index = {}
    for number, names in enumerate(groups.values()):
        file = f"model-{number + 1:05d}-of-{len(groups):05d}.safetensors"
        index.update(dict.fromkeys(names, file))
        generator = torch.Generator().manual_seed(number)
        base = {name: 0.02 * torch.randn(sizes[name], generator=generator) for name in names}
        for model in models:
            moved = 0.0 if model == "base" else 0.002
            tensors = {n: (v + moved * torch.randn(v.shape, generator=generator)).bfloat16() for n, v in base.items()}
            save_file(tensors, folder / model / file, metadata={"format": "pt"})
    for model in models:
        text = json.dumps({"metadata": {}, "weight_map": index})
        (folder / model / "model.safetensors.index.json").write_text(text)
    return sum(torch.Size(size).numel() for size in sizes.values())


# --------------------------------------------------------------------------------------------------------------- runs


def measure(command: list[str], outs: list[Path]) -> Run:
    """Run a process to its end, watching its anonymous memory; remove what it wrote."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    started, peak = time.monotonic(), 0.0
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done, status, usage = os.wait4(process.pid, os.WNOHANG)
    while not done:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.01)
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
    seconds = time.monotonic() - started
    if status:
        raise SystemExit(f"failed with status {status}: {' '.join(command)[:2000]}")
    for out in outs:
        shutil.rmtree(out)
    return Run(seconds, usage.ru_utime + usage.ru_stime, peak)


def anonymous(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon")), 0.0)


def ours(name: str, work: Path, outs: list[Path], weights: list[tuple[float, ...]]) -> Run:
    shutil.rmtree(work / "store" / "scans", ignore_errors=True)
    asked = {
        "models": str(work / "models"),
        "experts": NAMES[: len(weights[0])],
        "store": str(work / "store"),
        "outs": [str(out) for out in outs],
        "weights": weights,
        **asdict(METHODS[name]),
    }
    return measure([sys.executable, "-c", OURS, json.dumps(asked)], outs)


def theirs(name: str, work: Path, out: Path, mergekit: Path, weights: tuple[float, ...]) -> Run:
    merge, folder = METHODS[name], work / "models"
    shared, base = dict(merge.shared), folder / "base" if merge.has_base else None
    models: list[dict[str, object]] = [{"model": str(folder / model)} for model in NAMES[: len(weights)]]
    if name == "slerp":  # t is the share of the other model
        base, shared = folder / NAMES[0], {"t": weights[1] / sum(weights)}
    elif merge.has_weights:
        for model, weight in zip(models, weights, strict=True):
            model["parameters"] = {"weight": weight, **merge.each}
    whole = {"merge_method": name, "dtype": "bfloat16", "models": models, "parameters": shared}
    config = work / f"{name}.yaml"
    config.write_text(json.dumps(whole | ({"base_model": str(base)} if base else {})))  # JSON is YAML
    return measure([str(mergekit), str(config), str(out)], [out])


def compare(name: str, n: int, work: Path, fast: Path, mergekit: Path, runs: int) -> str:
    """Alternate ours and theirs with n experts; return the row of the medians of time and of peak memory."""
    total = 1.0 if name != "task_arithmetic" else 0.9  # else it would be the linear merge
    weights = [tuple(total * (k + 1) / (n * (n + 1) / 2) for k in range(n))]
    ours(name, work, [fast / "warm-up"], weights)  # digests, compiled loops, page cache
    pairs = [
        (ours(name, work, [fast / "o"], weights), theirs(name, work, fast / "t", mergekit, weights[0]))
        for _ in range(runs)
    ]
    mine, peer = (median([pair[i] for pair in pairs]) for i in (0, 1))
    print(f"{name} of {n}: {mine} against {peer}, {peer.seconds / mine.seconds:.2f} times", flush=True)
    wall = f"{mine.seconds:.1f} | {peer.seconds:.1f} | {peer.seconds / mine.seconds:.1f} | {GOAL}"
    processor = f"{mine.processor:.1f} | {peer.processor:.1f} | {peer.processor / mine.processor:.1f}"
    load = f"{os.getloadavg()[0]:.1f}"
    return f"| {name} | {n} | {runs} | {wall} | {processor} | {mine.anonymous:.0f} | {peer.anonymous:.0f} | {load} |"


def several(work: Path, fast: Path, runs: int) -> tuple[Run, Run]:
    """Time one task arithmetic merge, and seven lambdas in one pass."""
    lams = [i / 10 for i in range(2, 9)]
    weights: list[tuple[float, ...]] = [(lam, 0.9 - lam) for lam in lams]
    outs = [fast / str(i) for i in range(7)]
    ours("task_arithmetic", work, outs[:1], weights[:1])
    pairs = [
        (ours("task_arithmetic", work, outs[:1], weights[:1]), ours("task_arithmetic", work, outs, weights))
        for _ in range(runs)
    ]
    one, seven = (median([pair[i] for pair in pairs]) for i in (0, 1))
    print(f"seven lambdas: {seven} against one: {one}", flush=True)
    return one, seven


def median(runs: list[Run]) -> Run:
    return Run(*(statistics.median(getattr(run, field.name) for run in runs) for field in fields(Run)))


# -------------------------------------------------------------------------------------------------------------- table


def report(options: argparse.Namespace, rows: dict[tuple[str, int], str], parameters: int, swept: list[str]) -> None:
    order = sorted(rows, key=lambda row: ([*METHODS].index(row[0]), row[1]))
    head = [
        "| method | experts | runs | m3, s | mergekit, s | times | goal | m3, CPU s | mergekit | times"
        " | m3, MB anonymous | mergekit | load |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    table = [*head, *(rows[row] for row in order)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join([*conditions(parameters), "", *table, "", *swept]).rstrip() + "\n")


def earlier(out: Path) -> tuple[dict[tuple[str, int], str], list[str]]:
    """Return the rows of a table that was written before, and the lines about several lambdas below it."""
    if not out.is_file():
        return {}, []
    lines = out.read_text().splitlines()
    cells = {line: line.split(" | ") for line in lines if line.startswith("| ") and "| method" not in line}
    rows = {(name.removeprefix("| "), int(n)): line for line, (name, n, *_) in cells.items()}
    below = [number for number, line in enumerate(lines) if line.startswith("Seven lambdas")]
    return rows, lines[below[0] :] if below else []


def conditions(parameters: int) -> list[str]:
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, torch {torch.__version__}"
    )
    return [
        "# Merging beside mergekit 0.1.5",
        "",
        f"Generated bfloat16 fine-tunes of a base, {parameters / 1e9:.2f}B parameters each, llama-shaped; whole",
        f"processes, medians of alternating runs; {machine}.",
        "`load` is the load average at a row's end: the runs alone make about 2; on a loaded machine the processor",
        "seconds (all threads) are the steadier measure. Inputs on disk in the page cache, outputs to a",
        "tmpfs: we sync what we write, mergekit does not. Our inputs' digests are known, as in a sweep; TIES scans the",
        "whole model in every run (mergekit trims each tensor by itself). mergekit computes in its usual",
        "`dtype: bfloat16`, we in float32. That transformers loads the result is checked by neither (`verify=false`).",
        "Made by `python benchmarks/merge.py`.",
    ]


def sweep(small: int, one: Run, seven: Run) -> list[str]:
    return [
        f"Seven lambdas of task arithmetic in one pass ({small / 1e9:.2f}B parameters: seven outputs fit the tmpfs):",
        f"{seven.seconds:.1f} s ({seven.processor:.1f} s CPU, {seven.anonymous:.0f} MB);",
        f"one alone {one.seconds:.1f} s, so seven alone {7 * one.seconds:.1f} s ({7 * one.processor:.1f} s CPU):",
        f"the one pass takes {seven.seconds / 7 / one.seconds:.2f} of that (goal: below 0.5).",
    ]


if __name__ == "__main__":
    main()
