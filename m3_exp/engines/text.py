"""Token ids to text, and where a text ends: by the rules of vLLM 0.32, so that both engines write the same."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import decoders

from m3_exp.engines.wire import Pair
from m3_exp.merging.tokenizer import open_tokenizer, tokenizer_directory
from m3_exp.reading.files import exists, read_json
from m3_exp.reading.typed import Strict, checked
from m3_exp.store import Store
from m3_exp.types import Answer, M3Error, Prompt, Sampling, Source


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as an engine needs it: `ends` are the token ids that end an answer, `length` its number of ids."""

    tokenizer: Any
    ends: frozenset[int]
    length: int


@functools.cache
def vocabulary(tokenizer: Source, store: Store) -> Vocabulary:
    """Read a source's tokenizer, once in a process. It ends at its EOS and at those of its generation config.

    Where there is no generation config, its config's count.

    Raises:
        M3Error: it has no tokenizer, a broken one, or only a slow one (without a tokenizer.json, made or given).
    """
    directory = tokenizer_directory(tokenizer, store)
    read = open_tokenizer(directory)
    if not getattr(read, "is_fast", False):
        raise M3Error(f"{tokenizer}: its tokenizer has no fast form; save it with a tokenizer.json")
    ends = {read.eos_token_id, *_configured_ends(directory)} - {None}
    return Vocabulary(read, frozenset(ends), len(read))


class _Ends(Strict):
    eos_token_id: int | list[int] | None = None


def _configured_ends(directory: Path) -> list[int]:
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        ends = checked(_Ends, read_json(path), path).eos_token_id if exists(path) else None
        if ends is not None:
            return list(ends) if isinstance(ends, list) else [ends]
    return []


class Text:
    """One answer as it grows, token by token; without its stop string, special tokens left out."""

    def __init__(self, vocabulary: Vocabulary, prompt_ids: Sequence[int], stops: Sequence[str]) -> None:
        self.text = ""
        self._stops = stops
        self._fast = vocabulary.tokenizer.backend_tokenizer
        self._stream = decoders.DecodeStream(ids=list(prompt_ids), skip_special_tokens=True)

    def add(self, token: int) -> bool:
        """Take one token; True when a stop string is complete (the one that ends first; it is cut off)."""
        new, before = self._step(token), len(self.text)
        self.text += new
        starts = {stop: self.text.find(stop, max(0, before + 1 - len(stop))) for stop in self._stops if new}
        complete = [(start + len(stop), start) for stop, start in starts.items() if start >= 0]
        if complete:
            self.text = self.text[: min(complete, key=lambda span: span[0])[1]]
        return bool(complete)

    def _step(self, token: int) -> str:
        try:
            return self._stream.step(self._fast, token) or ""
        except Exception as error:  # invalid UTF-8 that cannot be continued: begin again, as vLLM does (its #17448)
            if not str(error).startswith("Invalid prefix encountered"):
                raise
            self._stream = decoders.DecodeStream(skip_special_tokens=True)
            return self._stream.step(self._fast, token) or ""


def seed(sampling: Sampling, prompt: Prompt, sample: int) -> int:
    """Return the seed of one sample: its own, whatever is generated beside it."""
    text = f"{sampling.seed}/{prompt.id}/{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def samples(
    prompts: Sequence[Prompt], sampling: Sampling, max_model_len: int
) -> tuple[list[tuple[Prompt, int]], list[Answer]]:
    """Return (prompt, number of the sample) for each answer to be made, and the answers to prompts without room."""
    every = [(prompt, sample, too_long(prompt, max_model_len)) for prompt in prompts for sample in range(sampling.n)]
    refused = [Answer(prompt.id, reason, sample, finish="refused") for prompt, sample, reason in every if reason]
    return [(prompt, sample) for prompt, sample, reason in every if not reason], refused


def check_pairs(pairs: Sequence[Pair], max_model_len: int) -> None:
    """Refuse continuations that do not fit after their prompts.

    Raises:
        M3Error: the first that does not.
    """
    for prompt, ids in pairs:
        reason = too_long(Prompt(prompt.id, (*prompt.token_ids, *ids)), max_model_len)
        if reason:
            raise M3Error(f"item {prompt.id} with its continuation: {reason}")


def too_long(prompt: Prompt, max_model_len: int) -> str | None:
    """Say why a prompt leaves no room for an answer, or None."""
    if not prompt.token_ids:
        return "the prompt is empty"
    if len(prompt.token_ids) < max_model_len:
        return None
    return f"the prompt has {len(prompt.token_ids)} tokens, engine.max_model_len={max_model_len} leaves no room"
