"""The two searches of PromptBench, as generators that yield the prompts to measure and are sent their accuracies.

So one engine call serves a whole round, and the rounds of several seeds together. A search ends with its result.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass

from evaluators.prompt_bench.words import replace
from m3_exp.types import Json

Search = Generator[Sequence[str], Sequence[float], str]
Measure = Callable[[Sequence[str]], Sequence[float]]
Variants = Callable[[str, int], Iterable[str]]  # of a text with another word at an index

BLANK = "[UNK]"


@dataclass(frozen=True)
class Found:
    """The result of a search: accuracies from 0 to 1 on its own items, `queries` the prompts that it measured."""

    prompt: str
    accuracy_before: float
    accuracy_after: float
    queries: int

    def facts(self) -> Json:
        """Return everything but the prompt."""
        return {key: value for key, value in asdict(self).items() if key != "prompt"}


def greedy(prompt: str, indices: Sequence[int], variants: Variants) -> Search:
    """Replace words one after the other, the most important first, each by its worst variant.

    A word is as important as the accuracy drops where [UNK] stands in its place (textattack's GreedyWordSwapWIR,
    wir_method=unk); of equals the earlier comes first, and of equal variants the first in the order of their texts.
    """
    (before,) = yield [prompt]
    importance = yield [replace(prompt, i, BLANK) for i in indices]
    # PromptBench scores the prompt itself before it knows its accuracy (as -1 - before): so the first word's worst
    # variant is taken whatever it does, and only later ones must lower the accuracy further.
    drop = -1.0 - before
    for _, index in sorted(zip(importance, indices, strict=True)):
        candidates = sorted(set(variants(prompt, index)) - {prompt})
        if not candidates:
            continue
        accuracy, worst = min(zip((yield candidates), candidates, strict=True))
        if before - accuracy > drop:
            prompt, drop = worst, before - accuracy
    return prompt


def worst_of(prompt: str, candidates: Iterable[str]) -> Search:
    """Take the worst of some prompts, even where it is no worse than the one attacked."""
    yield [prompt]
    ordered = sorted(set(candidates) - {prompt})
    _, worst = min(zip((yield ordered), ordered, strict=True))
    return worst


def carry_out(prompt: str, searches: Sequence[Search], measure: Measure) -> list[Found]:
    """Run searches in step: what all of them ask in a round is measured in one call, and nothing twice.

    `measure` gives the accuracy (0 to 1) of each prompt it gets.
    """
    known: dict[str, float] = {}
    queries = [0] * len(searches)
    ended: dict[int, str] = {}
    waiting = {number: next(search) for number, search in enumerate(searches)}
    while waiting:
        asked = dict.fromkeys(text for texts in waiting.values() for text in texts)
        new = [text for text in asked if text not in known]
        if new:
            known.update(zip(new, measure(new), strict=True))
        coming: dict[int, Sequence[str]] = {}
        for number, texts in waiting.items():
            queries[number] += len(texts)
            try:
                coming[number] = searches[number].send([known[text] for text in texts])
            except StopIteration as end:
                ended[number] = end.value
        waiting = coming
    return [Found(ended[number], known[prompt], known[ended[number]], n) for number, n in enumerate(queries)]
