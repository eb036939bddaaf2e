"""Token ids to text, and where a text ends: by the rules of vLLM 0.32, so that both engines write the same."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import decoders

from m3_exp.merging.checkpoint import tokenizer_directory
from m3_exp.merging.tokenizer import open_tokenizer
from m3_exp.reading.files import exists, read_json
from m3_exp.reading.typed import Strict, checked
from m3_exp.store import Store
from m3_exp.types import M3Error, Prompt, Sampling, Source


@dataclass(frozen=True)
class Speech:
    """A tokenizer as an engine needs it: `ends` are the token ids that end an answer, `length` its number of ids."""

    tokenizer: Any
    ends: frozenset[int]
    length: int


@functools.cache
def speech(tokenizer: Source, store: Store) -> Speech:
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
    return Speech(read, frozenset(ends), len(read))


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

    def __init__(self, speech: Speech, prompt_ids: Sequence[int], stops: Sequence[str]) -> None:
        self.text = ""
        self._stops = stops
        self._fast = speech.tokenizer.backend_tokenizer
        self._stream = decoders.DecodeStream(ids=list(prompt_ids), skip_special_tokens=True)

    def add(self, token: int) -> bool:
        """Take one token; True when a stop string is complete (the one that ends first; it is cut off)."""
        new = self._step(token)
        before = len(self.text)
        self.text += new
        found: list[tuple[int, int]] = []
        for stop in self._stops:
            start = self.text.find(stop, max(0, before + 1 - len(stop)))
            if new and start >= 0:
                found.append((start + len(stop), start))
        if found:
            self.text = self.text[: min(found, key=lambda span: span[0])[1]]
        return bool(found)

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


def too_long(prompt: Prompt, max_model_len: int) -> str | None:
    """Say why a prompt leaves no room for an answer, or None."""
    if not prompt.token_ids:
        return "the prompt is empty"
    if len(prompt.token_ids) < max_model_len:
        return None
    return f"the prompt has {len(prompt.token_ids)} tokens, engine.max_model_len={max_model_len} leaves no room"
