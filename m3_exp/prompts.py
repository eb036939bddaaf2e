"""Prompts -> token ids: tokenizers, chat templates, the refusal of a second BOS token, and who can share an engine."""

import contextlib
import functools
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from m3_exp import chat
from m3_exp.merging.tokenizer import content, is_converted, open_tokenizer, refusing, tokenizer_directory
from m3_exp.store import Store
from m3_exp.types import Cell, M3Error, Source, identity

_READERS = ("transformers", "tokenizers", "sentencepiece", "tiktoken", "mistral-common", "jinja2")  # of tokenizers


class Prompts:
    """Renders prompts, and remembers the tokenizers that it opened."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tokenizers: dict[Source, Any] = {}
        self._contents: dict[Source, str] = {}
        self._quick: dict[Source, bool] = {}

    def tokenizer(self, source: Source) -> Any:
        """Return a model's tokenizer, as transformers opens it."""
        if source not in self._tokenizers:
            self._tokenizers[source] = open_tokenizer(tokenizer_directory(source, self._store))
        return self._tokenizers[source]

    def is_quick(self, cell: Cell) -> bool:
        """Tell whether a cell's tokenizer is at hand without converting it, which takes ten seconds."""
        if cell.tokenizer not in self._quick:
            self._quick[cell.tokenizer] = is_converted(cell.tokenizer, self._store)
        return self._quick[cell.tokenizer]

    def render(self, cell: Cell, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Turn prompts into token ids, as plain text or (`chat_template=true`, `chat_args`) as a user's message.

        Raises:
            M3Error: a prompt is no text or begins with two BOS tokens, or tokenizer or chat template cannot be used.
        """
        check_texts(cell, texts)
        tokenizer, settings = self.tokenizer(cell.tokenizer), cell.evaluator.settings
        if settings.get("chat_template"):
            folder = tokenizer_directory(cell.tokenizer, self._store)
            rendered = chat.render(folder, texts, settings.get("chat_args"))
        else:
            with refusing(cell.tokenizer):
                rendered = [tuple(int(i) for i in tokenizer(text)["input_ids"]) for text in texts]
        bos = tokenizer.bos_token_id
        for text, ids in zip(texts, rendered, strict=True):
            if bos is not None and ids[:2] == (bos, bos):
                raise M3Error(
                    f"the tokenizer of {tokenizer.name_or_path} puts two BOS tokens in front of {json.dumps(text[:40])}"
                )
        return rendered

    def rendered_by(self, cell: Cell) -> str:
        """Return the identity of all that turns a cell's prompts into token ids: files, settings, packages.

        Raises:
            M3Error: the tokenizer's files are not at hand.
        """
        source, settings = cell.tokenizer, cell.evaluator.settings
        if source not in self._contents:
            self._contents[source] = identity(content(tokenizer_directory(source, self._store)))
        chatted = [settings.get("chat_template"), settings.get("chat_args"), str(chat.TODAY)]
        return identity(["rendered 1", self._contents[source], chatted, _versions()])

    def widest(self, sources: Sequence[Source]) -> dict[Source, Source]:
        """Map each tokenizer to the one with the largest vocabulary that extends it, or to itself.

        Prompts whose tokenizers are mapped to the same one can share an engine.
        """
        vocabularies = {source: dict(self.tokenizer(source).get_vocab()) for source in sources}
        heads: list[Source] = []
        chosen: dict[Source, Source] = {}
        for source in sorted(sources, key=lambda source: (-len(vocabularies[source]), str(source))):
            head = next((h for h in heads if extends(vocabularies[h], vocabularies[source])), None)
            if head is None:
                heads.append(source)
            chosen[source] = head or source
        return chosen


def check_texts(cell: Cell, texts: Sequence[str]) -> None:
    """Refuse prompts that are no texts: an evaluator of one's own may return anything."""
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise M3Error(f"{cell.evaluator.name}: a prompt is {wrong[0]!r:.80} and no text: let `prompt` return one")


@functools.cache
def _versions() -> list[str]:
    """Return the version of each package that may read a tokenizer; none where it is not installed."""
    versions = []
    for name in _READERS:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    return versions


def extends(wide: Mapping[str, int], narrow: Mapping[str, int]) -> bool:
    """Tell whether every token of `narrow` has the same id in `wide`."""
    return all(wide.get(token) == index for token, index in narrow.items())
