"""DeepWordBug (Gao et al. 2018) as PromptBench runs it: one random edit of each of four kinds in a word."""

import random
import string
from collections.abc import Iterator

from evaluators.prompt_bench.words import replace, words


class CharacterEdits:
    """Draws edits: neighbours swapped, a letter substituted, one deleted, one inserted.

    The draws are those of numpy.random and random, both seeded with `seed`, in promptbench's order; an insertion
    never comes after the last letter. `limit` bounds the edit distance from `prompt`.
    """

    def __init__(self, prompt: str, seed: int, limit: int = 30) -> None:
        import numpy as np

        self.prompt, self.limit = prompt, limit
        self._places = np.random.RandomState(seed)
        self._letters = random.Random(seed)

    def __call__(self, text: str, index: int) -> Iterator[str]:
        """Return the texts with an edit of one word; none of a word of one letter."""
        word = words(text)[index]
        edited = list(self._edits(word)) if len(word) > 1 else []
        variants = [replace(text, index, new) for new in edited if new != word]
        return (variant for variant in variants if edit_distance(self.prompt, variant) <= self.limit)

    def _edits(self, word: str) -> Iterator[str]:
        at = self._place(len(word) - 1)
        yield word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        at = self._place(len(word))
        yield word[:at] + self._letter() + word[at + 1 :]
        at = self._place(len(word))
        yield word[:at] + word[at + 1 :]
        at = self._place(len(word))
        yield word[:at] + self._letter() + word[at:]

    def _place(self, end: int) -> int:
        return int(self._places.randint(0, end))

    def _letter(self) -> str:
        return self._letters.choice(string.ascii_letters)


def edit_distance(one: str, other: str) -> int:
    """Return Levenshtein's distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
