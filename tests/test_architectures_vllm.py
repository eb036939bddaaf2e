"""Weights exchanged in a living vLLM give fixed tokens the log-likelihoods that transformers gives them, in float32.

transformers opens the same merge as a checkpoint. One engine starts with weights of no meaning, takes two merges, and
the first one again.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from m3_exp.engines import vllm
from m3_exp.store import Store
from m3_exp.types import EngineSettings, Recipe, Source
from tests.fixed_tokens import PAIRS, a_token, by_transformers, check, two_merges

pytestmark = [pytest.mark.engine, pytest.mark.long]

SETTINGS = EngineSettings("vllm", dtype="float32", kv_cache_gib=0.25, threads=1)

# Those that were run here. Of the other kinds of `tests.architectures` nothing is known yet: add one, and run it alone.
SHOWN = (
    "gemma3_text",
    "mixtral",
    "qwen3",
    "qwen3_moe",
)


def exchanged(root: Path, recipes: Sequence[Recipe]) -> list[list[float]]:
    """Load each merge into one engine; return what it makes of the fixed tokens, in nats a token."""
    engine = vllm.start(SETTINGS, recipes[0], Source(str(root / "a")), Store(root / "store"))
    found = []
    try:
        for recipe in recipes:
            engine.load(recipe)
            found.append(a_token(engine.loglikelihood(PAIRS)))
    finally:
        engine.close()
    return found


@pytest.mark.parametrize("kind", SHOWN)
def test_exchanged_weights_of_an_architecture_are_those_of_the_checkpoint(tmp_path: Path, kind: str) -> None:
    first, second = two_merges(tmp_path, kind)
    wanted = by_transformers(tmp_path, (first, second))
    check(exchanged(tmp_path, (first, second, first)), wanted)
