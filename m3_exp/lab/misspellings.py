"""Sentences with misspelled words to be corrected, in the schema of LiveBench's typos.

In each sentence one noun and one other word are misspelled. The parts of an example are its nouns, those of
`instructions.py`. A test item's nouns were never seen in training, right or wrong; the other words are known to both
sides.
"""

import random
import re

from m3_exp.lab.instructions import NOUNS
from m3_exp.lab.split import Example, Side, on_side

_INSTRUCTION = "Write this text again and change nothing but the misspelled words."
_SENTENCES = (
    "The {a} stands between the {b} and the {c}.",
    "Nobody saw the {a} or the {b} behind the {c}.",
    "We sold the {a}, the {b} and the {c} last year.",
    "The {a} is not the {b}, and the {c} is neither.",
    "She drew the {a} beside the {b} on the {c}.",
    "My {a} and your {b} came with the same {c}.",
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _misspelled(rng: random.Random, word: str) -> str:
    """Swap two letters, drop one, double one or insert one; never among the first two letters."""
    edit = rng.choice(("swap", "drop", "double", "insert"))
    at = rng.randrange(2, len(word) - (edit in ("swap", "drop")))
    if edit == "swap":
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if edit == "drop":
        return word[:at] + word[at + 1 :]
    return word[:at] + (word[at] if edit == "double" else rng.choice(_LETTERS)) + word[at:]


def draw(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one sentence with two misspelled words, or None where a misspelling is a noun of ours or changes nothing."""
    pool = tuple(noun for noun in on_side(NOUNS, wanted) if len(noun) >= 5)
    words = rng.sample(pool, 3)
    sentence = rng.choice(_SENTENCES)
    frame = rng.choice(re.findall(r"\b[A-Za-z]{4,}\b", sentence))
    noun = rng.randrange(3)
    spelled = _misspelled(rng, words[noun])
    changed = sentence.replace(frame, _misspelled(rng, frame))
    if spelled in NOUNS or spelled == words[noun] or changed == sentence:
        return None
    clean = sentence.format(a=words[0], b=words[1], c=words[2])
    written = [*words[:noun], spelled, *words[noun + 1 :]]
    text = changed.format(a=written[0], b=written[1], c=written[2])
    row = {
        "category": "language",
        "task": "typos",
        "turns": [f"{_INSTRUCTION}\n\n{text}"],
        "ground_truth": clean,
        "livebench_release_date": "2024-11-25",
        "livebench_removal_date": "",
    }
    return Example(row, f" {clean}", tuple(words), text)
