"""What textattack 0.3.10 takes for a word, and how one is replaced; which words of an instruction may be attacked.

An apostrophe at the end belongs to the word (as in `positive'`), one at the beginning does not. Later textattack
versions split otherwise: they append after the last word without its quote and do not find the protected labels.
"""

import re
from collections.abc import Collection, Sequence

_EDGE = "'-_*@"  # allowed within a word and at its end
_WORD = re.compile(r"[\w'\-*@`˗×]+")

# English function words, in lower case as they are compared: `As` at the beginning of a sentence is none of them.
# Written anew from the closed classes; on the benchmark's two instructions it decides as nltk's list does.
_FUNCTION_WORDS = (
    "a an the this that these those each both few more most other some such any all no nor not only own same "
    "i me my myself mine we us our ours ourselves you your yours yourself yourselves he him his himself she her hers "
    "herself it its itself they them their theirs themselves who whom which what "
    "am is are was were be been being have has had having do does did doing can will just should now "
    "and but if or because as until while of at by for with about against between into through during before after "
    "above below to from up down in out on off over under again further then once here there when where why how "
    "so than too very"
)
STOPWORDS = frozenset(_FUNCTION_WORDS.split())


def words(text: str) -> list[str]:
    """Return the words of a text."""
    parts = [part.lstrip(_EDGE) for word in text.split() for part in _WORD.findall(word.lstrip(_EDGE))]
    return [word for word in parts if word]


def spans(text: str) -> list[tuple[int, int]]:
    """Return where each word begins and ends."""
    ends, cursor = [], 0
    for word in words(text):
        start = text.index(word, cursor)
        cursor = start + len(word)
        ends.append((start, cursor))
    return ends


def replace(text: str, index: int, new: str) -> str:
    """Put `new` into the place of a word."""
    start, end = spans(text)[index]
    return text[:start] + new + text[end:]


def append(text: str, addition: str) -> str:
    """Put a blank and `addition` after the last word; what follows that word, such as a full stop, comes after it."""
    _, end = spans(text)[-1]
    return f"{text[:end]} {addition}{text[end:]}"


def inside(text: str) -> str:
    """Return a text from its first word to its last."""
    places = spans(text)
    return text[places[0][0] : places[-1][1]]


def modifiable(text: str, protected: Collection[str]) -> Sequence[int]:
    """Return the indices of the words that may be attacked: neither function words nor protected, in order."""
    kept = {word.lower() for word in protected}
    return [i for i, word in enumerate(words(text)) if word not in STOPWORDS and word.lower() not in kept]
