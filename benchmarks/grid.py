"""A grid of merges evaluated by m3, beside what scripts do: merge to disk, start vLLM, generate, score, delete.

    python benchmarks/grid.py [--lambdas 7] [--methods average,task_arithmetic,ties] [--limit 40]
                              [--benchmarks gsm8k,prompt_bench_sst2]

Both ways make the same merges of the lab's pair lm_math and answer the same prompts. The scripts' way is given our own
merge, which is faster than the paper's, and vLLM called directly; it pays a process for each merge and one for each
engine. Ours is `m3 run`, one process with one engine. The page goes to docs/benchmarks/grid.md.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MERGE = """
import json, sys
from pathlib import Path
from m3_exp.merging.stream import write
from m3_exp.store import Store, decoded
from m3_exp.types import Recipe, Source
recipe, home = decoded(Recipe, json.loads(sys.argv[1])), decoded(Source, json.loads(sys.argv[2]))
write([recipe], [Path(sys.argv[3])], Store(Path(sys.argv[4])), tokenizer=home)
"""
EVALUATE = """
import json, sys
job = json.load(open(sys.argv[1]))
from vllm import LLM, SamplingParams, TokensPrompt
if __name__ == "__main__":
    llm = LLM(model=sys.argv[2], dtype=job["dtype"], enforce_eager=True, max_num_seqs=128, max_model_len=4096,
              kv_cache_memory_bytes=2 << 30, disable_log_stats=True)
    found = []
    for task in job["tasks"]:
        params = SamplingParams(temperature=0, max_tokens=task["max_tokens"], stop=task["stops"] or None)
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in task["prompts"]]
        outputs = [one.outputs[0] for one in llm.generate(prompts, params, use_tqdm=False)]
        found.append([[output.text, len(output.token_ids)] for output in outputs])
    json.dump(found, open(sys.argv[3], "w"))
"""


@dataclass
class Cost:
    """What a way of doing it took. `disk`: bytes that lay there at once, at most; `written`: bytes of checkpoints."""

    wall: float = 0.0
    processor: float = 0.0
    disk: int = 0
    written: int = 0
    merges: int = 0
    answers: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lambdas", type=int, default=7)
    parser.add_argument("--methods", default="average,task_arithmetic,ties")
    parser.add_argument("--benchmarks", default="gsm8k,prompt_bench_sst2")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks/grid.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        theirs = by_scripts(options, Path(scratch))
        ours = by_m3(options, Path(scratch))
    options.out.write_text(page(options, ours, theirs))
    print(options.out.read_text())


def overrides(options: argparse.Namespace, store: Path) -> list[str]:
    """Return what `m3 run -m` is given."""
    return [
        "-m", "pair=lm_math", f"method={options.methods}", "ratio=grid", f"ratio.nodes={options.lambdas}",
        f"evaluator=[{options.benchmarks}]", f"limit={options.limit}", f"dtype={options.dtype}", f"store={store}",
        "tracker=none", "engine=vllm",
    ]  # fmt: skip


def by_m3(options: argparse.Namespace, scratch: Path) -> Cost:
    """Run the grid as a user does."""
    store, cost = scratch / "ours", Cost()
    with measured(cost):
        command = [sys.executable, "-m", "m3_exp.cli", "run", "--json", *overrides(options, store)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    cost.disk = size(store)
    cost.answers = json.loads(done.stdout)["generated"]
    return cost


def by_scripts(options: argparse.Namespace, scratch: Path) -> Cost:
    """For each merge: one process that writes it, one that starts vLLM and generates; then score and delete."""
    from m3_exp import config, planning
    from m3_exp.results import Results
    from m3_exp.scoring.evaluate import evaluate
    from m3_exp.store import Store, dumps
    from m3_exp.types import Answer

    store = Store(scratch / "theirs")
    (scratch / "evaluate.py").write_text(EVALUATE)
    planned = planning.build(config.request(overrides(options, store.root)[1:], multirun=True).configs)
    results = Results(store, planned.engine)
    merges: dict[str, list[Any]] = {}
    for cell in planned.cells:
        merges.setdefault(cell.recipe.identity, []).append(cell)
    tasks = {identity: [results.tasks.task(cell) for cell in cells] for identity, cells in merges.items()}
    cost = Cost()
    with measured(cost):
        for identity, cells in merges.items():
            folder = scratch / "merge"
            given = [dumps(cells[0].recipe), dumps(cells[0].home), str(folder), str(store.root)]
            quiet([sys.executable, "-c", MERGE, *given], scratch)
            bytes_ = size(folder)
            cost.disk, cost.written = max(cost.disk, bytes_), cost.written + bytes_
            job = {"dtype": options.dtype, "tasks": [asked(task) for task in tasks[identity]]}
            (scratch / "job.json").write_text(json.dumps(job))
            quiet([sys.executable, "evaluate.py", "job.json", str(folder), "found.json"], scratch)
            written = json.loads((scratch / "found.json").read_text())
            for cell, task, texts in zip(cells, tasks[identity], written, strict=True):
                given = zip(task.problems, texts, strict=True)
                answers = [Answer(problem.id, text, 0, tokens) for problem, (text, tokens) in given]
                evaluate(results.tasks.evaluator(cell.evaluator), task.problems, answers)
                cost.answers += len(answers)
            shutil.rmtree(folder)
    cost.merges = len(merges)
    return cost


def asked(task: Any) -> dict[str, Any]:
    """Return what vLLM is asked for a benchmark."""
    prompts, sampling = [list(prompt.token_ids) for prompt in task.prompts], task.sampling
    return {"prompts": prompts, "max_tokens": sampling.max_tokens, "stops": list(sampling.stops)}


def quiet(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def measured(cost: Cost) -> Iterator[None]:
    """Take the time by the clock and of the processors, of this process and those it starts."""
    began, before = time.monotonic(), spent()
    yield
    cost.wall, cost.processor = time.monotonic() - began, spent() - before


def spent() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def page(options: argparse.Namespace, ours: Cost, theirs: Cost) -> str:
    """Lay the measurement out as a markdown page."""
    from m3_exp.amounts import size as bytes_

    lines = [
        "# A grid of merges: m3 beside merge, start, evaluate, delete",
        "",
        f"Measured by `python benchmarks/grid.py --lambdas {options.lambdas} --methods {options.methods} --benchmarks",
        f"{options.benchmarks} --limit {options.limit} --dtype {options.dtype}` on {platform.machine()},"
        f" {os.cpu_count()} cores, load {os.getloadavg()[2]:.1f}: the lab's experts (135M),",
        f"{theirs.merges} sets of weights. Scripts: our merge to disk, vLLM started on it, our scores. m3: `m3 run`.",
        "",
        "| way | answers | wall s | processor s | disk at once | checkpoints written |",
        "|---|---|---|---|---|---|",
    ]
    for name, cost in (("scripts", theirs), ("m3", ours)):
        spans = f"{cost.wall:.0f} | {cost.processor:.0f} | {bytes_(cost.disk)} | {bytes_(cost.written)}"
        lines.append(f"| {name} | {cost.answers:,} | {spans} |")
    wall, processor = theirs.wall / ours.wall, theirs.processor / ours.processor
    lines += ["", f"m3 takes {wall:.1f} times less wall and {processor:.1f} times less processor time."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
