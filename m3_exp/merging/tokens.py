"""Embeddings laid out by tokens, for models that give their tokens other rows (mergekit's tokenizer_source).

    check_tokens(recipe, store)        refuses models of which a token has several rows
    opener(recipe, store)(source)      a recipe's model; with `recipe.tokens` its vocabulary is laid out by tokens

The rows are those of the union of all tokenizers, or of one model's. A model that lacks a token gets the row of the
one that has it, of several that of the base, else their mean; a token that no model has is 0. Where all models have
each token in its row already, nothing is laid out, and the recipe is that without `tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from m3_exp.merging.bits import Bytes
from m3_exp.merging.canonical import needs_base
from m3_exp.merging.checkpoint import Model, open_model
from m3_exp.merging.layout import Entry, is_vocabulary, tensor_bytes
from m3_exp.merging.source import locate, parse_source
from m3_exp.merging.tokenizer import tokenizer_directory, united, vocabulary
from m3_exp.store import Store, dumps
from m3_exp.types import M3Error, Recipe, Source

if TYPE_CHECKING:
    import torch

UNION = "union"
_TOLD = 3  # tokens that a refusal names
Places = tuple[tuple[int, int], ...]  # (model, row) of which a row is the mean; none: 0


def opener(recipe: Recipe, store: Store) -> Callable[[Source], Model]:
    """Return what opens the models of a recipe.

    Raises:
        M3Error: as `open_model`, and where a tokenizer that is needed cannot be read.
    """
    if not recipe.tokens:
        return lambda source: open_model(source, store)
    return _aligned(recipe, store).__getitem__


def tokenizer_of(recipe: Recipe, store: Store) -> Path:
    """Return the directory of the tokenizer by whose tokens a recipe's vocabulary is laid out."""
    if recipe.tokens != UNION:
        return tokenizer_directory(parse_source(recipe.tokens), store)
    sources = [*dict.fromkeys((recipe.base, *recipe.experts))]
    rows = [open_model(source, store).vocabulary or 0 for source in sources]
    return united([tokenizer_directory(source, store) for source in sources], rows, store)


def check_tokens(recipe: Recipe, store: Store) -> None:
    """Refuse a recipe by row of models that give a token other rows, as far as their tokenizers are files at hand.

    Raises:
        M3Error: tokens with their rows, and what lays rows out by tokens.
    """
    if recipe.tokens:
        return
    sources = dict.fromkeys((*recipe.experts, *([recipe.base] if needs_base(recipe) else [])))
    models = [open_model(source, store) for source in sources]
    known = [(model, found) for model in models if (found := _at_hand(model)) is not None]
    for model, theirs in known[1:]:
        first, ours = known[0]
        moved = sorted((row, token) for token, row in ours.items() if theirs.get(token, row) != row)
        if moved:
            told = ", ".join(f"{token!r} is row {row} and {theirs[token]}" for row, token in moved[:_TOLD])
            more = f" and {len(moved) - _TOLD} more" if len(moved) > _TOLD else ""
            raise M3Error(
                f"{first.source} and {model.source} give tokens other rows of the embedding: {told}{more}; "
                "tokenizer=union, base or an expert's name lays the rows out by tokens"
            )


def _at_hand(model: Model) -> dict[str, int] | None:
    """Return the rows of a model's tokens, None where its tokenizer is no file at hand."""
    places = [parse_source(model.source.adapter)] if model.source.adapter else []
    for source in (*places, Source(model.source.location, model.source.revision)):
        if (folder := locate(source)).is_dir() and (found := vocabulary(folder)) is not None:
            return {token: row for token, row in found.items() if row < (model.vocabulary or 0)}
    return None


_ALIGNED: dict[tuple[object, ...], dict[Source, Model]] = {}


def _aligned(recipe: Recipe, store: Store) -> dict[Source, Model]:
    sources = [*dict.fromkeys((*recipe.experts, recipe.base))]
    opened = [open_model(source, store) for source in sources]
    key = (recipe.tokens, str(recipe.base), *map(id, opened))
    if key not in _ALIGNED:
        folders = [tokenizer_directory(source, store) for source in sources]
        tokens = [_tokens(model, folder) for model, folder in zip(opened, folders, strict=True)]
        target = _known(tokenizer_of(recipe, store))
        if recipe.tokens == UNION:
            is_laid_out = all(own == target for own in tokens)
        else:
            is_laid_out = all(target.get(token, row) == row for own in tokens for token, row in own.items())
        if not is_laid_out:
            rows = places(target, tokens, sources.index(recipe.base))
            opened = [_laid_out(opened, i, one) for i, one in enumerate(rows)]
        _ALIGNED[key] = dict(zip(sources, opened, strict=True))
    return _ALIGNED[key]


def _known(folder: Path) -> dict[str, int]:
    found = vocabulary(folder)
    if found is None:
        raise M3Error(
            f"{folder} has no tokenizer.json or vocab.json, which say the row of each token: tokenizer=0 merges by row"
        )
    return found


def _tokens(model: Model, folder: Path) -> dict[str, int]:
    return {token: row for token, row in _known(folder).items() if row < (model.vocabulary or 0)}


def places(target: Mapping[str, int], tokens: Sequence[Mapping[str, int]], base: int) -> list[list[Places]]:
    """Return for each model where each row of its new vocabulary comes from.

    `target` and `tokens` (one a model) map tokens to rows.
    """
    out: list[list[Places]] = [[()] * (max(target.values()) + 1) for _ in tokens]
    for token, row in target.items():
        having = [(i, own[token]) for i, own in enumerate(tokens) if token in own]
        of_base = [place for place in having if place[0] == base]
        given = tuple(of_base or having)
        for i, own in enumerate(tokens):
            out[i][row] = ((i, own[token]),) if token in own else given
    return out


def _laid_out(models: Sequence[Model], index: int, rows: list[Places]) -> Model:
    model = models[index]
    if len(rows) == model.vocabulary and all(held == ((index, row),) for row, held in enumerate(rows)):
        return model
    content = _Rows(models, index, rows)
    tensors = {name: content.entries[name] for name in model.tensors}
    return _LaidOut(
        model.source, model.config, model.tied, tensors, model.store, content, model.base, model.adapter, rows=content
    )


class _Rows:
    """The tensors of a model, of which the vocabularies have other rows: float32, each the mean of its places."""

    def __init__(self, models: Sequence[Model], index: int, rows: list[Places]) -> None:
        self._models, self._own, self._rows = models, models[index].content, rows
        self.parts = self._own.parts
        self.entries = {
            name: Entry((len(rows), *entry.shape[1:]), "F32") if is_vocabulary(name) else entry
            for name, entry in self._own.entries.items()
        }

    def digest(self, own: str) -> str:
        """Return the identity of the tensors, where the model itself has the digest `own`."""
        giving = {i for held in self._rows for i, _ in held}
        digests = {i: self._models[i].digest for i in giving}
        rows = [sorted([digests[i], row] for i, row in held) for held in self._rows]
        return blake3(dumps(["tokens", own, rows]).encode()).hexdigest()

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        import torch

        if not is_vocabulary(name):
            return self._own.read(name, start, stop)
        width = self.entries[name].numel // len(self._rows)
        first, last = start // width, -(-stop // width)
        block = torch.zeros(last - first, width)
        for at, held in enumerate(self._rows[first:last]):
            for i, row in held:
                block[at] += self._models[i].content.read(name, row * width, (row + 1) * width).float() / len(held)
        return block.view(-1)[start - first * width : stop - first * width]

    def stored(self, name: str, start: int, stop: int) -> Bytes:
        if not is_vocabulary(name):
            return self._own.stored(name, start, stop)
        return tensor_bytes(self.read(name, start, stop))


@dataclass(frozen=True)
class _LaidOut(Model):
    """A model of which `rows` are the tensors."""

    rows: _Rows | None = field(default=None, kw_only=True)

    @cached_property
    def digest(self) -> str:
        assert self.rows is not None
        return self.rows.digest(open_model(self.source, self.store).digest)
