"""An attack by its name and settings -> searches, one for each seed."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.prompt_bench import masked
from evaluators.prompt_bench.additions import CHECKLIST, STRESSTEST
from evaluators.prompt_bench.edits import CharacterEdits
from evaluators.prompt_bench.search import Search, Variants, greedy, worst_of
from evaluators.prompt_bench.words import append, modifiable
from m3_exp.scoring.models import folder
from m3_exp.types import M3Error

# The paper's fork of promptbench (commit 1e54244, prompt_attack/attack.py) lets DeepWordBug and BERT-Attack change only
# these entries (from 0) of the list of words that may be attacked, and BERT-Attack try 2 words instead of 48.
PAPER_ENTRIES = (2, 3, 6)
CANDIDATES = {"paper": 2, "promptbench": 48}
LEAST_COSINE = 0.8  # of both
EDITS = 4  # of a word, by DeepWordBug
_ADDITIONS = {"stresstest": STRESSTEST, "checklist": CHECKLIST}


@dataclass(frozen=True)
class Attack:
    """One attack. `settings` is `paper` or `promptbench`; `protected` words are not touched. `masked_lm` is a directory
    or hub id, `sentence_encoder` false for no limit on the meaning.
    """

    name: str
    settings: str
    protected: tuple[str, ...]
    masked_lm: str | None = None
    sentence_encoder: bool = True

    def searches(self, prompt: str, seeds: int) -> list[Search]:
        """Return the searches of seeds 0, 1, ...; only DeepWordBug draws anything, the others have one.

        Raises:
            M3Error: bertattack has no masked language model, or a package or model that is needed is not here.
        """
        if self.name == "bertattack" and self.masked_lm is None:
            raise M3Error(
                "attack=bertattack needs a masked language model: set masked_lm to the directory or hub id of one, such"
                " as google-bert/bert-base-uncased"
            )
        return [self._search(prompt, seed) for seed in range(self._searches(seeds))]

    def measured(self, prompt: str, seeds: int) -> int:
        """Return how many prompts the searches of these seeds measure, at most; no model is loaded."""
        if self.name in _ADDITIONS:
            return 1 + len(set(_ADDITIONS[self.name]))
        words = len(self.indices(prompt))
        variants = words * (EDITS if self.name == "deepwordbug" else CANDIDATES[self.settings])
        return 1 + words + self._searches(seeds) * variants  # searches of several seeds share the first round

    def _searches(self, seeds: int) -> int:
        return seeds if self.name == "deepwordbug" else 1

    def _search(self, prompt: str, seed: int) -> Search:
        if self.name in _ADDITIONS:
            return worst_of(prompt, [append(prompt, addition) for addition in _ADDITIONS[self.name]])
        return greedy(prompt, self.indices(prompt), self._variants(prompt, seed))

    def _variants(self, prompt: str, seed: int) -> Variants:
        if self.name == "deepwordbug":
            return CharacterEdits(prompt, seed)
        replacements = masked.MaskedWords(folder("masked_lm", str(self.masked_lm)), CANDIDATES[self.settings])
        if not self.sentence_encoder:
            return replacements
        same = masked.SameMeaning(prompt, LEAST_COSINE)
        return lambda text, index: same(list(dict.fromkeys(replacements(text, index))))

    def indices(self, prompt: str) -> Sequence[int]:
        """Return the words that DeepWordBug and BERT-Attack may change."""
        able = modifiable(prompt, self.protected)
        return [able[i] for i in PAPER_ENTRIES if i < len(able)] if self.settings == "paper" else able
