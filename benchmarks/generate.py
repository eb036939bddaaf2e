"""Generation through m3's engine beside vLLM called directly, on the same prompts in one batch.

    python benchmarks/generate.py [--limit 200] [--dtype bfloat16] [--max-tokens 256] [--benchmarks gsm8k,humaneval]

Ours is what a run does: a child process, each answer handed over and journalled (synced) as it finishes. Theirs is
`LLM.generate` on the checkpoint that `m3 merge` writes, same settings, in a process of its own. Engine starts and
weight loading are left out of both. The table goes to docs/benchmarks/generate.md.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

DIRECT = """
import json, sys, time
job = json.load(open(sys.argv[1]))
from vllm import LLM, SamplingParams, TokensPrompt
if __name__ == "__main__":
    llm = LLM(model=job["model"], dtype=job["dtype"], max_num_seqs=job["max_num_seqs"], enforce_eager=True,
              max_model_len=job["max_model_len"], disable_log_stats=True)
    found = []
    for task in job["tasks"]:
        params = SamplingParams(temperature=0, max_tokens=task["max_tokens"], stop=task["stops"] or None)
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in task["prompts"]]
        start = time.monotonic()
        out = llm.generate(prompts, params, use_tqdm=False)
        seconds = time.monotonic() - start
        found.append({"seconds": seconds, "tokens": sum(len(o.outputs[0].token_ids) for o in out)})
    json.dump(found, open(sys.argv[2], "w"))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--benchmarks", default="gsm8k,humaneval")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks/generate.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(options, Path(scratch))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(table(rows, options))
    print(options.out.read_text())


def measure(options: argparse.Namespace, scratch: Path) -> list[dict[str, object]]:
    """Run ours, then theirs on the same prompts; one row a benchmark."""
    from m3_exp import config, planning
    from m3_exp.merging.stream import write
    from m3_exp.store import Store

    names = options.benchmarks.split(",")
    overrides = ["pair=base", "items=official", f"limit={options.limit}", f"dtype={options.dtype}"]
    overrides += [
        f"evaluator=[{options.benchmarks}]",
        *(f"evaluator.{n}.max_tokens={options.max_tokens}" for n in names),
    ]
    request = config.request(overrides)
    store = Store(scratch / "store")
    planned = planning.build(request.configs)
    ours, tasks, conditions = through_m3(planned, store)
    model = scratch / "model"
    write([planned.cells[0].recipe], [model], store, tokenizer=planned.cells[0].home)
    job = {"model": str(model), "dtype": options.dtype, "tasks": tasks, **conditions}
    theirs = directly(job, scratch)
    return [{"benchmark": n, "ours": a, "theirs": b} for n, a, b in zip(names, ours, theirs, strict=True)]


def through_m3(planned, store):  # type: ignore[no-untyped-def]
    """Generate every cell as a run does, journal included; return timings, the prompts, and the engine's conditions."""
    from m3_exp.generating import Generator
    from m3_exp.groups import Evaluation, grouped
    from m3_exp.results import Results

    results = Results(store, planned.engine)
    tasks = [results.tasks.task(cell) for cell in planned.cells]
    (group,) = grouped([Evaluation(cell) for cell in planned.cells], results)
    found = []
    with contextlib.closing(Generator(planned.engine, results, "benchmark", lambda event: None)) as generator:
        digest = generator.load(group).digest
        for task in tasks:
            start = time.monotonic()
            answers = generator.generate(task, group, digest).answers
            found.append({"seconds": time.monotonic() - start, "tokens": sum(a.n_tokens for a in answers)})
    conditions = next(store.conditions.values())
    prompts = [
        {
            "prompts": [p.token_ids for p in t.prompts],
            "max_tokens": t.sampling.max_tokens,
            "stops": list(t.sampling.stops),
        }
        for t in tasks
    ]
    return found, prompts, {key: conditions[key] for key in ("max_num_seqs", "max_model_len")}


def directly(job: dict[str, object], scratch: Path) -> list[dict[str, float]]:
    """Call vLLM as its documentation does, in a process of its own."""
    (scratch / "job.json").write_text(json.dumps(job))
    (scratch / "direct.py").write_text(DIRECT)
    environment = {
        **os.environ,
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "direct.py", "job.json", "found.json"]
    subprocess.run(
        command, cwd=scratch, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    found: list[dict[str, float]] = json.loads((scratch / "found.json").read_text())
    return found


def table(rows: list[dict[str, object]], options: argparse.Namespace) -> str:
    """Lay the measurement out as a markdown page."""
    lines = [
        "# Generating: m3's engine beside vLLM called directly",
        "",
        f"Measured by `python benchmarks/generate.py --limit {options.limit} --dtype {options.dtype} --max-tokens "
        f"{options.max_tokens}` on {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}.",
        "SmolLM2-135M-Instruct, official items, the paper's prompts. Speeds in tokens/s; the ratio is ours to theirs.",
        "",
        "| benchmark | m3 tokens | m3 s | m3 tokens/s | vLLM tokens | vLLM s | vLLM tokens/s | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, theirs = row["ours"], row["theirs"]
        a, b = ours["tokens"] / ours["seconds"], theirs["tokens"] / theirs["seconds"]  # type: ignore[index]
        lines.append(
            f"| {row['benchmark']} | {ours['tokens']} | {ours['seconds']:.1f} | {a:.0f} "  # type: ignore[index]
            f"| {theirs['tokens']} | {theirs['seconds']:.1f} | {b:.0f} | {a / b:.2f} |"  # type: ignore[index]
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
