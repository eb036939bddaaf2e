"""Write the lab's items: `python -m m3_exp.lab.make_items` re-makes `m3_exp/lab/items/**/*.jsonl`, byte for byte.

The test items lie in `items`, the development items (for choosing alpha, lambda or hyper-parameters) in `items/dev`.
Both are made of test parts only, so neither was seen in training; no development item asks what a test item asks.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from m3_exp import config
from m3_exp.lab import coding, exact_answers, formats, functions, instructions, misspellings, sentences, word_problems
from m3_exp.lab.split import Draw, Example, Side, examples
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.store import write_atomic
from m3_exp.types import Json

ITEMS = Path(__file__).parent / "items"
N_ITEMS = 96
SEED = 0
N_DEV = 48
DEV_SEED = 2  # 1 is that of training

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

_ID_COLUMNS = {
    "humaneval": "task_id",
    "livebench_coding": "question_id",
    "livebench_instruction_following": "question_id",
    "livebench_typos": "question_id",
    "mbpp": "task_id",
}


def load_benchmark(benchmark: str) -> Evaluator:
    """Return the real evaluator of a lab benchmark, as `m3 score` makes it, over all 96 items."""
    # of the typos all: the default is the paper's, the first 50
    settings = ["items=lab", *(["first=whole"] if benchmark == "livebench_typos" else [])]
    return load_evaluator(config.evaluator(benchmark, settings))


def examples_of(benchmark: str, wanted: Side, count: int, seed: int) -> list[Example]:
    """Draw `count` different examples of one benchmark and side. Rows get their ids here, where they have any."""
    return _named(benchmark, examples(BENCHMARKS[benchmark], benchmark, wanted, count, seed), "Lab")


def _named(benchmark: str, drawn: list[Example], prefix: str) -> list[Example]:
    column = _ID_COLUMNS.get(benchmark)
    if column is None:
        return drawn
    return [replace(example, row={column: f"{prefix}/{i}", **example.row}) for i, example in enumerate(drawn)]


# Benchmarks of which an item's parts say all that it asks: numbers, or operations in their order. Of the others the
# test items use nearly every noun or word of the test side, so a development item is another text, not other words.
_BY_PARTS = ("gsm8k", "hendrycks_math", "humaneval", "livebench_coding", "mbpp")


def dev_examples_of(benchmark: str, count: int = N_DEV, seed: int = DEV_SEED) -> list[Example]:
    """Draw `count` development examples of one benchmark: of the test side, but none that a test item asks."""
    texts, parts = _tested(benchmark)

    def draw(rng: random.Random, wanted: Side) -> Example | None:
        example = BENCHMARKS[benchmark](rng, wanted)
        known = example is not None and (example.text in texts or _asked(benchmark, example) in parts)
        return None if known else example

    return _named(benchmark, examples(draw, benchmark, "test", count, seed), "Lab/dev")


def _asked(benchmark: str, example: Example) -> tuple[str, ...] | None:
    return example.parts if benchmark in _BY_PARTS else None


@cache
def _tested(benchmark: str) -> tuple[frozenset[str], frozenset[tuple[str, ...]]]:
    """Return the texts of a benchmark's test items, and what all benchmarks of its kind ask for."""
    kind = _BY_PARTS if benchmark in _BY_PARTS else (benchmark,)
    tested = {name: examples_of(name, "test", N_ITEMS, SEED) for name in kind}
    asked = {_asked(name, example) for name, members in tested.items() for example in members}
    return frozenset(e.text for e in tested[benchmark]), frozenset(parts for parts in asked if parts is not None)


def render(rows: list[Json]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def main() -> None:
    for benchmark in sorted(BENCHMARKS):
        _write(ITEMS / f"{benchmark}.jsonl", examples_of(benchmark, "test", N_ITEMS, SEED))
        _write(ITEMS / "dev" / f"{benchmark}.jsonl", dev_examples_of(benchmark))


def _write(path: Path, items: Sequence[Example]) -> None:
    write_atomic(path, render([dict(example.row) for example in items]))
    print(f"{path.relative_to(ITEMS.parent)}: {len(items)} items")


if __name__ == "__main__":
    main()
