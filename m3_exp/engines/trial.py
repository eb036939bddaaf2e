"""A trial of an engine on this machine: do exchanged weights compute what a fresh start with them computes?

Two tiny models are made on the spot, and a merge of them is exchanged into a living engine. The same merge, written as
a checkpoint, is opened by vLLM or transformers alone, in a process that has none of our code in its way (`fresh`).
Log-likelihoods of fixed tokens must agree, and those of one model and of the merge must not: else nothing was seen.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from m3_exp.amounts import count, counted
from m3_exp.engines.protocol import EngineDied, module
from m3_exp.engines.sharing import visible_gpus
from m3_exp.merging import stream
from m3_exp.store import Store
from m3_exp.types import EngineSettings, M3Error, Prompt, Recipe, Sampling, Source

LIMIT = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.05}  # nats a token, mean
_FRESH = 300.0  # seconds
_ROWS, _LENGTH, _PROMPTS, _TOKENS = 512, 48, 32, 64
_SHARES = (0.3, 0.7)
_AVERAGE = "m3_exp.merging.methods.average:average"
_INSTEAD = "take engine=transformers, and report this line"


@dataclass(frozen=True)
class Trial:
    """One setting that was tried, and what came out, in words."""

    what: str
    ok: bool
    text: str


def trials(settings: EngineSettings) -> Iterator[Trial]:
    """Try a tied and an untied head on one device, and on two where there are two, one after the other."""
    sizes = (1, 2) if settings.name == "vllm" and len(visible_gpus()) > 1 else (1,)
    for devices in sizes:
        for tied in (True, False):
            what = f"{settings.name} swap, {'tied' if tied else 'untied'} head, {counted(devices, 'device')}"
            with tempfile.TemporaryDirectory(prefix="m3-trial-") as folder:
                try:
                    yield _tried(what, replace(settings, tensor_parallel_size=devices), tied, Path(folder))
                except (EngineDied, M3Error) as error:
                    yield Trial(what, False, f"{error}; {_INSTEAD}")


def _tried(what: str, settings: EngineSettings, tied: bool, folder: Path) -> Trial:
    models = tuple(_write(folder / name, seed, tied, settings.dtype) for seed, name in enumerate("ab"))
    store = Store(folder / "store")
    first = Recipe(models[0], models[:1], _AVERAGE, weights=(1.0,), dtype=settings.dtype, check_lineage=False)
    merge = replace(first, experts=models, weights=_SHARES)
    pairs = _pairs()
    started = time.monotonic()
    engine = module(settings.name).start(settings, first, models[0], store)
    try:
        start = time.monotonic() - started
        engine.load(first)
        before = _told(engine, pairs)
        swap = engine.load(merge).seconds
        swapped = _told(engine, pairs)
        speed = _burst(engine, models[0])
    finally:
        engine.close()
    written = folder / "merge"
    stream.write([merge], [written], store, tokenizer=models[0])
    fresh = _fresh(settings, written, pairs)
    limit = LIMIT[settings.dtype]
    apart, moved = _apart(swapped, fresh), _apart(swapped, before)
    if not apart <= limit:
        wrong = "exchanged weights do not compute what a fresh start computes"
        return Trial(what, False, f"{wrong}: {apart:.3g} nats a token apart, {limit:g} allowed; {_INSTEAD}")
    if not moved > 10 * limit:
        same = f"another model's weights differ by {moved:.3g} nats a token only"
        return Trial(what, False, f"nothing was seen: {same}; {_INSTEAD}")
    return Trial(
        what,
        True,
        f"as a fresh start, {apart:.1g} nats a token apart (other weights {moved:.2g});"
        f" start {start:.0f} s, swap {swap:.1f} s, {count(speed)} tokens/s of a tiny model",
    )


def _write(folder: Path, seed: int, tied: bool, dtype: str) -> Source:
    """Save a random Llama of two layers, 256 wide, with a tokenizer of words w0, w1, ..."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers.utils import logging

    hub: Any = transformers
    silence: Any = logging.disable_progress_bar
    silence()
    config = hub.LlamaConfig(
        vocab_size=_ROWS, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=512, tie_word_embeddings=tied, bos_token_id=None,
        eos_token_id=1,
    )  # fmt: skip
    model, generator = hub.LlamaForCausalLM(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(_ROWS)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    hub.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", unk_token="w0").save_pretrained(folder)
    return Source(str(folder))


def _pairs() -> list[tuple[Prompt, tuple[int, ...]]]:
    """Return fixed tokens: half of each line is given, half is scored."""
    lines = [[(37 * i * i + 11 * i * n + 5 * n) % _ROWS for i in range(1, _LENGTH + 1)] for n in range(1, _PROMPTS + 1)]
    half = _LENGTH // 2
    return [(Prompt(str(n), tuple(ids[:half])), tuple(ids[half:])) for n, ids in enumerate(lines)]


def _told(engine: Any, pairs: Sequence[tuple[Prompt, tuple[int, ...]]]) -> list[float]:
    scored = {item.id: item.logprob for item in engine.loglikelihood(pairs)}
    return [scored[prompt.id] for prompt, _ in pairs]


def _burst(engine: Any, tokenizer: Source) -> float:
    """Return the tokens a second of a short burst."""
    prompts = [prompt for prompt, _ in _pairs()]
    started = time.monotonic()
    tokens = sum(answer.n_tokens for answer in engine.generate(prompts, Sampling(max_tokens=_TOKENS), tokenizer))
    return int(tokens) / (time.monotonic() - started)


def _fresh(settings: EngineSettings, folder: Path, pairs: Sequence[tuple[Prompt, tuple[int, ...]]]) -> list[float]:
    asked = {"model": str(folder), "dtype": settings.dtype, "devices": settings.tensor_parallel_size}
    lines = [[list(prompt.token_ids), list(ids)] for prompt, ids in pairs]
    command = [sys.executable, "-m", f"m3_exp.engines.fresh_{settings.name}"]
    try:
        done = subprocess.run(
            command, input=json.dumps({**asked, "lines": lines}), capture_output=True, text=True, timeout=_FRESH,
            errors="replace", check=False, env={**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise M3Error(f"a fresh {settings.name} took longer than {_FRESH:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise M3Error(f"a fresh {settings.name} did not read the checkpoint: {last[:300]}")
    told: list[float] = json.loads(done.stdout.splitlines()[-1])
    return told


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the mean difference, in nats a token; the sums are over half a line each."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one) / (_LENGTH // 2)
