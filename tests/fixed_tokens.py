"""Log-likelihoods of fixed tokens under two merges of tiny models, as transformers has them: what engines must give."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from m3_exp.merging.stream import write
from m3_exp.store import Store
from m3_exp.types import Likelihood, Prompt, Recipe, Source
from tests.architectures import NAMES, ROWS, config_of, three
from tests.engine_models import write_tokenizer

CLOSE = 1e-4  # nats a token
_LENGTH, _HALF = 24, 12
_LINES = [[(37 * i * i + 11 * i * n + 5 * n) % ROWS for i in range(1, _LENGTH + 1)] for n in range(1, 9)]
PAIRS = [(Prompt(str(n), tuple(ids[:_HALF])), tuple(ids[_HALF:])) for n, ids in enumerate(_LINES)]


def two_merges(root: Path, kind: str) -> tuple[Recipe, Recipe]:
    """Write a base and two fine-tunes of an architecture; return an average and a TIES merge of them."""
    three(root, config_of(kind, wide=True), sizes=(0.1, 0.05, 0.05))
    for name in NAMES:
        write_tokenizer(root / name, ROWS)
    return _recipe(root, "average", {}), _recipe(root, "ties", {"scaling": 0.8, "retain": 0.6})


def _recipe(root: Path, method: str, params: Mapping[str, float]) -> Recipe:
    base, a, b = (Source(str(root / name)) for name in NAMES)
    name = f"m3_exp.merging.methods.{method}:{method}"
    return Recipe(base, (a, b), name, params, weights=(0.25, 0.75), dtype="float32")


def by_transformers(root: Path, recipes: Sequence[Recipe]) -> list[list[float]]:
    """Write each merge as a checkpoint; return what transformers makes of the lines with it, in nats a token."""
    folders = [root / f"merge-{number}" for number in range(len(recipes))]
    write(recipes, folders, Store(root / "store"), tokenizer=recipes[0].experts[0])
    return [_truth(folder) for folder in folders]


def _truth(folder: Path) -> list[float]:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval()
    ids = torch.tensor(_LINES)
    with torch.inference_mode():
        scores = model(ids).logits.log_softmax(-1)[:, _HALF - 1 : -1].gather(2, ids[:, _HALF:, None])
    return [float(score) / (_LENGTH - _HALF) for score in scores.sum((1, 2))]


def a_token(scored: Iterable[Likelihood | int]) -> list[float]:
    """Return an engine's log-likelihoods of `PAIRS`, in their order, in nats a token."""
    found = {item.id: item.logprob / item.n_tokens for item in scored if isinstance(item, Likelihood)}
    return [found[prompt.id] for prompt, _ in PAIRS]


def furthest(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def check(told: Sequence[Sequence[float]], wanted: Sequence[Sequence[float]]) -> None:
    """Hold an engine's log-likelihoods of the first, the second and again the first merge against transformers'."""
    assert furthest(*wanted) > 100 * CLOSE, "the two merges are too much alike: nothing would be seen"
    gaps = [furthest(one, other) for one, other in zip(told, (*wanted, wanted[0]), strict=True)]
    assert max(gaps) < CLOSE, gaps
