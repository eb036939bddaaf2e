"""Write the lab's calibration text: `python -m m3_exp.lab.calibration` re-makes `calibration.jsonl`, byte for byte.

Methods that merge by statistics measure the experts on it. It holds prompts with their answers of all benchmarks, from
training parts only (`split`), so nothing of a test item is in it. Its seed is not that of training.
"""

import random
from pathlib import Path

from m3_exp.lab.make_items import BENCHMARKS, examples_of, load_benchmark, render
from m3_exp.store import write_atomic
from m3_exp.types import Json, Problem

FILE = Path(__file__).parent / "calibration.jsonl"
SEED = 3
EACH = 24  # documents of a benchmark


def rows() -> list[Json]:
    """Return the documents, those of the benchmarks mixed."""
    texts = []
    for benchmark in sorted(BENCHMARKS):
        evaluator = load_benchmark(benchmark)
        for number, example in enumerate(examples_of(benchmark, "train", EACH, SEED)):
            texts.append(evaluator.prompt(Problem(str(number), example.row)) + example.target)
    random.Random(SEED).shuffle(texts)
    return [{"text": text} for text in texts]


if __name__ == "__main__":
    write_atomic(FILE, render(rows()))
