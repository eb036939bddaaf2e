"""Write the lab's test items: `python -m m3_exp.lab.make_items` re-makes `m3_exp/lab/items/*.jsonl`, byte for byte."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

import m3_exp
from m3_exp.lab import (
    coding,
    exact_answers,
    formats,
    functions,
    instructions,
    misspellings,
    sentences,
    word_problems,
)
from m3_exp.lab.split import Draw, Example, Side, examples
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.store import write_atomic
from m3_exp.types import EvaluatorSpec

ITEMS = Path(__file__).parent / "items"
N_ITEMS = 96
SEED = 0
_CONF = Path(m3_exp.__file__).parents[1] / "conf" / "evaluator"

BENCHMARKS: dict[str, Draw] = {
    "alpaca_eval": instructions.draw,
    "gsm8k": word_problems.draw,
    "hendrycks_math": exact_answers.draw,
    "humaneval": functions.draw,
    "livebench_coding": coding.draw_livebench,
    "livebench_instruction_following": formats.draw,
    "livebench_typos": misspellings.draw,
    "mbpp": coding.draw_mbpp,
    "prompt_bench_cola": sentences.draw_grammar,
    "prompt_bench_sst2": sentences.draw_review,
}

_SETTINGS: dict[str, dict[str, Any]] = {
    "alpaca_eval": {"judge": "rules"},  # as conf/family/lab.yaml sets it; the rest are the defaults
    "livebench_typos": {"first": "whole"},  # the default is the paper's: the first 50
}

_ID_COLUMNS = {
    "humaneval": "task_id",
    "livebench_coding": "question_id",
    "livebench_instruction_following": "question_id",
    "livebench_typos": "question_id",
    "mbpp": "task_id",
}


def load_benchmark(benchmark: str) -> Evaluator:
    """Return the real evaluator of a lab benchmark, the one that its yaml names, over all 96 items."""
    target = yaml.safe_load((_CONF / f"{benchmark}.yaml").read_text())[benchmark]["target"]
    return load_evaluator(EvaluatorSpec(benchmark, target, _SETTINGS.get(benchmark, {}), items="lab"))


def examples_of(benchmark: str, wanted: Side, count: int, seed: int) -> list[Example]:
    """Draw `count` different examples of one benchmark and side. Rows get their ids here, where they have any."""
    found = examples(BENCHMARKS[benchmark], benchmark, wanted, count, seed)
    column = _ID_COLUMNS.get(benchmark)
    if column is None:
        return found
    return [replace(example, row={column: f"Lab/{i}", **example.row}) for i, example in enumerate(found)]


def render(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def main() -> None:
    for benchmark in sorted(BENCHMARKS):
        rows = [dict(example.row) for example in examples_of(benchmark, "test", N_ITEMS, SEED)]
        write_atomic(ITEMS / f"{benchmark}.jsonl", render(rows))
        print(f"{ITEMS.name}/{benchmark}.jsonl: {len(rows)} items")


if __name__ == "__main__":
    main()
