"""What an engine expects of weights is what transformers writes, and engine=transformers takes all of it.

Some models are held in another form than they are written in: the experts of a layer in one tensor.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from m3_exp.engines.transformers_model import TransformersModel
from m3_exp.engines.weights import read_skeleton
from m3_exp.store import Store
from m3_exp.types import EngineSettings
from tests.architectures import KINDS
from tests.fixed_tokens import PAIRS, a_token, by_transformers, check, two_merges

SHORT = ("gemma3_text", "gpt2", "mixtral", "qwen3_moe")


def exchange(root: Path, kind: str) -> None:
    """Load two merges, and the first one again, into a model as the engine's process does."""
    threads = torch.get_num_threads()
    first, second = two_merges(root, kind)
    wanted = by_transformers(root, (first, second))
    store, tokenizer = Store(root / "store"), first.experts[0]
    skeleton = read_skeleton(first, tokenizer, store)
    stored = load_file(root / "a" / "model.safetensors")
    assert skeleton.tensors().shapes == {name: tuple(tensor.shape) for name, tensor in stored.items()}
    model = TransformersModel(EngineSettings("transformers", dtype="float32", threads=1), skeleton, store)
    told = []
    for recipe in (first, second, first):
        model.load(recipe)
        told.append(a_token(model.loglikelihood(PAIRS)))
    torch.set_num_threads(threads)
    check(told, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHORT)
def test_some_architectures_in_a_transformers_engine(tmp_path: Path, kind: str) -> None:
    exchange(tmp_path, kind)


@pytest.mark.long
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_architecture_in_a_transformers_engine(tmp_path: Path, kind: str) -> None:
    exchange(tmp_path, kind)
