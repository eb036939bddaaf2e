"""Write the lab's test items: `python -m m3_exp.lab.make_items` re-makes `m3_exp/lab/items/*.jsonl`, byte for byte."""

import json
from pathlib import Path
from typing import Any

from m3_exp.lab import exact_answers, functions, instructions, word_problems
from m3_exp.lab.split import Draw, Example, Side, examples
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.store import write_atomic
from m3_exp.types import EvaluatorSpec

ITEMS = Path(__file__).parent / "items"
N_ITEMS = 96
SEED = 0

BENCHMARKS: dict[str, Draw] = {
    "alpaca_eval": instructions.draw,
    "gsm8k": word_problems.draw,
    "hendrycks_math": exact_answers.draw,
    "humaneval": functions.draw,
}

_PLUGINS = {
    "alpaca_eval": "evaluators.alpaca:AlpacaEval",
    "gsm8k": "evaluators.gsm8k:GSM8K",
    "hendrycks_math": "evaluators.hendrycks_math:HendrycksMath",
    "humaneval": "evaluators.humaneval:HumanEval",
}


def load_benchmark(benchmark: str) -> Evaluator:
    """Return the real evaluator of a lab benchmark with its default settings."""
    return load_evaluator(EvaluatorSpec(benchmark, _PLUGINS[benchmark], items="lab"))


def examples_of(benchmark: str, wanted: Side, count: int, seed: int) -> list[Example]:
    """Draw `count` different examples of one benchmark and side. HumanEval's rows get their task ids here."""
    found = examples(BENCHMARKS[benchmark], benchmark, wanted, count, seed)
    if benchmark != "humaneval":
        return found
    return [
        Example({"task_id": f"Lab/{i}", **example.row}, example.target, example.parts, example.text)
        for i, example in enumerate(found)
    ]


def render(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def main() -> None:
    for benchmark in sorted(BENCHMARKS):
        rows = [dict(example.row) for example in examples_of(benchmark, "test", N_ITEMS, SEED)]
        write_atomic(ITEMS / f"{benchmark}.jsonl", render(rows))
        print(f"{ITEMS.name}/{benchmark}.jsonl: {len(rows)} items")


if __name__ == "__main__":
    main()
