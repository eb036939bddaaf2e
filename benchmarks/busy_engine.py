"""How busy an engine stays: Table 1's first pair, rehearsed at the pace of 13B on an H100.

    python benchmarks/busy_engine.py FOLDER [--speedup 10] [--draws 1] [--limit 667] [--tree DIR]

The real program runs `sweeps=table1`'s merges of `pair=lm_math` with made-up answers (docs/scale.md, "A rehearsal"):
three tiny models stand in, 3 benchmarks of LIMIT official items each, the judge is a local server that takes 2 s a
reply, eight at a time. `--tree` is another checkout of the project, which is measured in place of this one. FOLDER gets
the models and the store. Prints the busy share, and where the rest of the engine's time went.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACE = {"tokens_per_second": 2200, "sequences": 256, "swap": 2}
JUDGE_SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--speedup", type=float, default=10.0, help="of the rehearsed engine and the judge")
    parser.add_argument("--draws", type=int, default=1, help="of lambda")
    parser.add_argument("--limit", type=int, default=667, help="items a benchmark")
    parser.add_argument("--tree", type=Path, default=ROOT)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    import torch

    from tests.judge_server import JudgeServer, serving
    from tests.models import SMALL, write_three

    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True)
    base, *experts = write_three(folder / "models", SMALL, torch.float32)
    with serving(JudgeServer(latency=JUDGE_SECONDS / options.speedup)) as judge:
        command = [
            *(sys.executable, "-m", "m3_exp.cli", "run", "--json", "-m", "family=local", f"family.base={base}"),
            f"family.experts={{lm: {experts[0]}, math: {experts[1]}}}",
            *("method=average,task_arithmetic,ties", "sparsify=none,dare", "ratio=plain,mixup"),
            *(f"ratio.draws={options.draws}", "evaluator=[alpaca_eval,gsm8k,hendrycks_math]"),
            *(f"limit={options.limit}", "items=official", "dtype=float32", "tracker=none", f"store={folder / 'store'}"),
            *("engine=recorded", "engine.answers=generated", f"engine.pace.speedup={options.speedup:g}"),
            *(f"engine.pace.{key}={value}" for key, value in PACE.items()),
            *("evaluator.alpaca_eval.judge=local", "evaluator.alpaca_eval.judge_model=j"),
            *(f"evaluator.alpaca_eval.endpoint={judge.url}", "evaluator.alpaca_eval.judge_workers=8"),
        ]
        began, load = time.monotonic(), os.getloadavg()[0]
        environment = {**os.environ, "PYTHONPATH": str(options.tree), "M3_JUDGE_KEY": "none"}
        ended = subprocess.run(command, cwd=options.tree, env=environment, stdout=subprocess.PIPE, text=True)
    took = time.monotonic() - began
    if ended.returncode:
        sys.exit(ended.returncode)
    told = json.loads(ended.stdout)
    total = sum(told["engine"].values())
    shares = {what: f"{seconds / total:.1%}" for what, seconds in sorted(told["engine"].items())}
    print(f"{told['done']} of {told['cells']} cells, {told['generated']} answers, {told['tokens']} tokens")
    print(f"{took:.0f} s of the clock at speed {options.speedup:g}, load {load:.1f} at the start: {shares}")


if __name__ == "__main__":
    main()
