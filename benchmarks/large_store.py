"""A store of ten thousand cells with 500 items each, and what the commands that read it take.

    python benchmarks/large_store.py make DIR          9,974 cells: 32 draws of each alpha, and curves of 25 lambdas
    python benchmarks/large_store.py make DIR --draws 1 --sampled 0 --pairs lm_math      a small one of 202 cells
    python benchmarks/large_store.py measure DIR       times the commands on it, and keeps what they took
    python benchmarks/large_store.py write DIR [--before FILE]     puts the table into docs/performance.md

`make` writes items (the lab's generators, with a seed of their own), a sweep named `large` and a store. No engine runs:
which item a merge gets right is drawn, every verdict on an answer is the evaluator's own, and the records are written
by the store. An item is hard or easy for all merges, so that merges are paired over items as real ones are. One cell in
fifty is half answered, and has no result yet.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from scipy.special import expit, ndtri

from m3_exp import config
from m3_exp.command_line import CommandLine
from m3_exp.lab.make_items import BENCHMARKS, examples_of, render
from m3_exp.results import Results
from m3_exp.scoring.evaluate import score_all
from m3_exp.store import AnswerSet, Merge, Store, StoredAnswer, dumps, write_atomic
from m3_exp.tasks import Task
from m3_exp.types import Answer, Cell, ResultRecord, Score, VersionedSpec, identity, plain

ROOT = Path(__file__).parents[1]
PAIRS = "lm_math,lm_code,math_code"
SEED = 7  # of the items: none of the lab's own
RUN = "0123456789abcdef"  # the run that is said to have written the answers
_SHARED = 0.7  # of an item's latent value: its own difficulty, the same for every merge
_OPEN = 50  # one cell in so many is half answered


def make(folder: Path, items: int, draws: int, sampled: int, pairs: str) -> None:
    """Write items, sweep and store into a new folder."""
    for benchmark in BENCHMARKS:
        rows = [dict(example.row) for example in examples_of(benchmark, "test", items, SEED)]
        write_atomic(folder / "items" / f"{benchmark}.jsonl", render(rows))
        own = _evaluator(benchmark, folder / "items" / f"{benchmark}.jsonl")
        write_atomic(folder / "conf" / "evaluator" / f"made_{benchmark}.yaml", own.encode())
    write_atomic(folder / "conf" / "sweeps" / "large.yaml", _sweep(draws, sampled, pairs.split(",")).encode())
    request = config.compose(_asked(folder))
    store, plan = Store(request.store), request.plan
    store.plans.put(plan.identity, plan)
    results = Results(store, plan.engine)
    answered: dict[str, Answered] = {}
    for number, cell in enumerate(plan.cells):
        task = results.tasks.task(cell)
        key = identity([cell.evaluator, cell.tokenizer])
        if key not in answered:
            answered[key] = Answered.of(task)
        _write(results, task, answered[key], whole=number % _OPEN != _OPEN - 1)
        if number % 500 == 0:
            print(f"{number} of {len(plan.cells)} cells", file=sys.stderr, flush=True)
    print(f"{len(plan.cells)} cells of {items} items: m3 table large --config-dir={folder}/conf store={folder}/store")


def _asked(folder: Path) -> CommandLine:
    return CommandLine(("sweeps=large", f"store={folder}/store"), config_dirs=(folder / "conf",))


def _evaluator(benchmark: str, items: Path) -> str:
    """Return the yaml of a benchmark under a name of its own, with a file of items."""
    known = (ROOT / "conf" / "evaluator" / f"{benchmark}.yaml").read_text().rstrip()
    renamed = re.sub(
        rf"(?m)(^{benchmark}:|@{benchmark}\b)", lambda m: m[0].replace(benchmark, f"made_{benchmark}"), known
    )
    return f"{renamed}\n  items: {items}\n"


def _sweep(draws: int, sampled: int, pairs: Sequence[str]) -> str:
    """Return the sweep: the experts, and of each pair the methods without M3, drawn at seven alphas, and as curves."""
    mixup = f"ratio: mixup\n    ratio.alpha: 0.2,0.4,0.5,1,2,3,5\n    ratio.draws: {draws}"
    grid = f"ratio: grid\n    ratio.nodes: 9\n    ratio.sampled: {sampled}"
    lines = ["# What benchmarks/large_store.py made.", "table: large", "plans:"]
    for name in (*sorted({name for pair in pairs for name in pair.split("_")}), *pairs):
        merged = name in pairs
        axes = ["    method: average,task_arithmetic,ties", "    sparsify: none,dare"] * merged
        for ratio in ("ratio: plain", mixup, grid) if merged else ("ratio: plain",):
            lines += [f"  - pair: {name}", f"    evaluator: '[{_benchmarks(name)}]'", *axes, f"    {ratio}"]
    return "\n".join(lines) + "\n"


def _benchmarks(pair: str) -> str:
    """Return the made benchmarks of a pair, those that its yaml names."""
    (composed,) = config.request([f"pair={pair}"]).configs
    return ",".join(f"made_{spec.name}" for spec in composed.evaluators)


@dataclass(frozen=True)
class Answered:
    """A benchmark's items with a right and a wrong answer each: their verdicts, and their lines of a journal."""

    verdicts: tuple[Sequence[Score], Sequence[Score]]
    lines: tuple[Sequence[bytes], Sequence[bytes]]
    difficulty: np.ndarray

    @classmethod
    def of(cls, task: Task) -> "Answered":
        evaluator, problems = task.evaluator, task.problems
        texts = [[evaluator.wrong(p) or "no" for p in problems], [evaluator.gold(p) or "yes" for p in problems]]
        verdicts, lines = [], []
        for side in texts:
            answers = [Answer(p.id, text, n_tokens=len(text) // 4) for p, text in zip(problems, side, strict=True)]
            verdicts.append(score_all(evaluator, list(problems), answers))
            asked = zip(answers, task.prompts, strict=True)
            kept = [StoredAnswer(**{**vars(a), "id": prompt.id}, prompt=prompt.hashed, run=RUN) for a, prompt in asked]
            lines.append([_line(answer) for answer in kept])
        own = np.random.default_rng(int(hashlib.sha256(evaluator.name.encode()).hexdigest()[:8], 16))
        return cls((verdicts[0], verdicts[1]), (lines[0], lines[1]), own.standard_normal(len(problems)))

    def right(self, cell: Cell) -> np.ndarray:
        """Draw which items a merge gets right."""
        noise = np.random.default_rng(int(cell.short_key, 16)).standard_normal(len(self.difficulty))
        latent = np.sqrt(_SHARED) * self.difficulty + np.sqrt(1 - _SHARED) * noise
        return (latent < ndtri(_level(cell))).astype(int)


def _level(cell: Cell) -> float:
    """Return the true score of a cell: an S-shaped curve in the share of the benchmark's own expert."""
    label, skill = cell.labels[0], cell.evaluator.skill
    if label.method == "single":
        return 0.7 if label.pair == skill else 0.2
    lam = 0.5 if label.lam is None else label.lam
    share = lam if label.pair.startswith(skill) else 1 - lam
    lost = 0.02 * (label.sparsify == "dare") + 0.03 * (label.method == "ties")
    return float(0.15 + 0.6 * expit(9 * (share - 0.4)) - lost)


def _line(answer: StoredAnswer) -> bytes:
    """Return an answer as a journal holds it (store/journal.py); five million synced appends would take an hour."""
    body = dumps(plain(answer)).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _write(results: Results, task: Task, answered: Answered, *, whole: bool) -> None:
    """Write all that a run leaves of one cell; of one that is not whole, half of its answers."""
    store, cell, recipe_key = results.store, task.cell, results.recipe_key(task.cell)
    digest = hashlib.sha256(recipe_key.encode()).hexdigest()
    if store.merges.get(recipe_key) is None:
        store.merges.put(recipe_key, Merge(digest, {}, cell.recipe))
    key = results.answers_key(digest, task)
    store.answer_sets.put(key, AnswerSet(digest, task.evaluator.name, task.sampling, dict(results.fingerprint)))
    store.conditions.put(f"{key[:32]}-{RUN}", {"max_num_seqs": 128})
    right = answered.right(cell)
    lines = [answered.lines[side][at] for at, side in enumerate(right)]
    journal = store.root / "answers" / key / "1-00000000.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_bytes(b"".join(lines if whole else lines[: len(lines) // 2]))
    if not whole:
        return
    scores = tuple(answered.verdicts[side][at] for at, side in enumerate(right))
    record = ResultRecord(
        replace(task.evaluator.summarize(scores), benchmark=cell.evaluator.name),
        scores,
        evaluator=VersionedSpec(
            **{field.name: getattr(cell.evaluator, field.name) for field in fields(cell.evaluator)},
            version=task.evaluator.version,
        ),
        sampling=task.sampling,
        engine=results.fingerprint,
        items=cell.evaluator.items,
        items_digest=task.items_digest,
        tokenizer=str(cell.tokenizer),
        answers=key,
        weights=digest,
        recipe_key=recipe_key,
        recipe=cell.recipe,
        runs=(RUN,),
        batched=results.batched,
    )
    results.put(task, record)


# ------------------------------------------------------------------------------------------------------- measuring

_COMMANDS = {
    "plan": ("plan", "sweeps=large"),
    "status": ("status", "sweeps=large"),
    "table": ("table", "large"),
    "table --all": ("table", "large", "--all"),
    "response": ("response", "sweeps=large"),
    "report": ("report", "sweeps=large"),
}


@dataclass(frozen=True)
class Measured:
    """What one command took: seconds by the clock and of CPU, and its largest memory."""

    seconds: float
    cpu: float
    peak_mb: float
    printed: int


def measure(folder: Path, only: Sequence[str], said: Path) -> dict[str, Measured]:
    """Run each command once, in a process of its own; what it took is also kept in the file `said`."""
    measured: dict[str, Measured] = {}
    for name in only or _COMMANDS:
        own = [f"--config-dir={folder}/conf", f"store={folder}/store"]
        own += [f"--out={folder}/report"] if name == "report" else []
        with open(folder / "said.txt", "wb") as out:
            began = time.monotonic()
            line = [sys.executable, "-m", "m3_exp.cli", *_COMMANDS[name], *own]
            child = subprocess.Popen(line, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
            _, code, used = os.wait4(child.pid, 0)
            child.returncode = code
            seconds = time.monotonic() - began
        if code:
            raise SystemExit(f"m3 {name} failed: {(folder / 'said.txt').read_text()[-500:]}")
        printed = (folder / "said.txt").stat().st_size
        measured[name] = Measured(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000, printed)
        print(f"m3 {name:12} {measured[name]}", flush=True)
        write_atomic(said, json.dumps({key: vars(one) for key, one in measured.items()}).encode())
    return measured


PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks/large_store.py: begin -->\n", "<!-- benchmarks/large_store.py: end -->\n"


def write(said: Path, before: Path | None) -> None:
    """Put what was measured, and what it was before, between two lines of docs/performance.md."""
    now, old = (json.loads(path.read_text()) if path else {} for path in (said, before))
    lines = ["| command | seconds | CPU seconds | peak MB | CPU seconds before |", "|---|---|---|---|---|"]
    for name, one in now.items():
        had = f"{old[name]['cpu']:.1f}" if name in old else ""
        lines.append(f"| `m3 {name}` | {one['seconds']:.1f} | {one['cpu']:.1f} | {one['peak_mb']:.0f} | {had} |")
    table = "".join(f"{line}\n" for line in lines)
    text = PAGE.read_text() if PAGE.exists() else "# What commands take\n"
    if BEGIN not in text:
        text += f"\n## A large store\n\n{BEGIN}{END}"
    head, _, rest = text.partition(BEGIN)
    write_atomic(PAGE, f"{head}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}".encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "measure", "write"])
    parser.add_argument("folder", type=lambda text: Path(text).absolute())
    parser.add_argument("--items", type=int, default=500, help="of each benchmark")
    parser.add_argument("--draws", type=int, default=32, help="of each alpha")
    parser.add_argument("--sampled", type=int, default=16, help="lambdas beside the nodes of each curve")
    parser.add_argument("--pairs", default=PAIRS)
    parser.add_argument("--only", nargs="*", default=[], choices=[*_COMMANDS], help="measure these commands")
    parser.add_argument("--said", type=Path, help="the file that keeps what was measured")
    parser.add_argument("--before", type=Path, help="such a file of an earlier version")
    options = parser.parse_args()
    if options.what == "make":
        make(options.folder, options.items, options.draws, options.sampled, options.pairs)
        return
    said = options.said or options.folder / "measured.json"
    if options.what == "measure":
        measure(options.folder, options.only, said)
    else:
        write(said, options.before)


if __name__ == "__main__":
    main()
