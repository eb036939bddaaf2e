"""Which statistics a recipe needs, and the key of each: of expert and text by content, tokenizer, length, settings."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from m3_exp.merging.canonical import canonical
from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.methods import load
from m3_exp.merging.statistics.text import digest
from m3_exp.merging.tokenizer import tokenizer_digest
from m3_exp.store import Store
from m3_exp.types import Recipe, Source, identity

_ALGORITHM = 1  # goes up whenever the same text gives other numbers


@dataclass(frozen=True)
class Wanted:
    """A statistic (`fisher` or `grams`) of one expert, on `sequences` of `length` tokens of a calibration text.

    `labels`: of fisher, whose next tokens count: those of the `text`, or tokens drawn by the `model` itself.
    """

    statistic: str
    expert: Source
    text: str
    sequences: int
    length: int
    labels: str = ""

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    def key(self, store: Store) -> str:
        """Return its key in the store; the expert's digest is taken where it is not known yet.

        Raises:
            M3Error: expert, tokenizer or text cannot be read.
        """
        model, words = open_model(self.expert, store).digest, tokenizer_digest(self.expert)
        settings = [self.sequences, self.length, self.labels]
        return identity([self.statistic, _ALGORITHM, model, digest(self.text), words, *settings])

    def __str__(self) -> str:
        return f"{self.statistic} of {self.expert} on {self.sequences} sequences of {self.length} tokens"


def wanted(recipe: Recipe) -> list[Wanted]:
    """Return the statistics that a recipe's merge needs: of each of its experts one, or none."""
    form = canonical(recipe)
    method = load(form.method)
    if not method.statistic:
        return []
    settings = method.keywords(form.params)
    make = functools.partial(
        Wanted, method.statistic, text=str(settings["text"]), sequences=int(settings["sequences"]),
        length=int(settings["length"]), labels=str(settings.get("labels", "")),
    )  # fmt: skip
    return [make(expert=expert) for expert in form.experts]
