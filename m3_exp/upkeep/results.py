"""One result against its key, its answers and its own figures."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from m3_exp import keys
from m3_exp.reading.scores import column, mentioned
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.scoring.items import checked, first
from m3_exp.store import AnswerSet, Merge, Rendered, StoredAnswer
from m3_exp.types import EvaluatorSpec, M3Error, Problem, Result, ResultRecord, Score, identity
from m3_exp.upkeep.reader import Shelf, Wrong

_ATTACKED = re.compile(r"@seed\d+$")  # at the end of an attacked item's id
_NEAR = 1e-9  # of a mean in percent: how far two orders of summation lie apart


class Benchmarks:
    """Benchmarks and their items, each read once, from their own files."""

    def __init__(self) -> None:
        self._known: dict[str, Evaluator | None] = {}
        self._items: dict[str, tuple[Problem, ...] | None] = {}
        self._first: dict[tuple[str, int | None], tuple[Problem, ...] | None] = {}
        self._keys: dict[int, tuple[EvaluatorSpec, str]] = {}

    def of(self, spec: EvaluatorSpec) -> Evaluator | None:
        """Return a benchmark, None where its module is not there or refuses its settings."""
        key = self._key(spec)
        if key not in self._known:
            try:
                self._known[key] = load_evaluator(_plain(spec))
            except M3Error:
                self._known[key] = None
        return self._known[key]

    def items(self, spec: EvaluatorSpec, limit: int | None) -> tuple[Problem, ...] | None:
        """Return the items that a cell asks for, None where they are not at hand."""
        key, evaluator = self._key(spec), self.of(spec)
        if evaluator is None:
            return None
        if key not in self._items:
            try:
                self._items[key] = tuple(checked(evaluator.problems(spec.items), spec.name))
            except Exception:  # the wall: a benchmark of one's own may raise anything
                self._items[key] = None
        if (key, limit) not in self._first:
            every = self._items[key]
            self._first[key, limit] = None if every is None else tuple(first(every, evaluator.name, limit))
        return self._first[key, limit]

    def _key(self, spec: EvaluatorSpec) -> str:
        known = self._keys.get(id(spec))
        if known is None or known[0] is not spec:
            known = self._keys[id(spec)] = spec, identity(_plain(spec))
        return known[1]


def _plain(spec: EvaluatorSpec) -> EvaluatorSpec:
    """Return a benchmark as a plan names it, without the version that scored."""
    return EvaluatorSpec(spec.name, spec.target, spec.settings, spec.items, spec.skill)


class ResultCheck:
    """Checks the results of a store. `deep` reads their answers too, and has benchmarks sum up their scores again."""

    def __init__(self, shelf: Shelf, benchmarks: Benchmarks, *, deep: bool = True) -> None:
        self._shelf, self.benchmarks, self._deep = shelf, benchmarks, deep
        self._hashed: dict[str, Mapping[int, str]] | None = None
        self.answers = lru_cache(maxsize=4)(shelf.answers)
        self._merged = lru_cache(maxsize=4096)(lambda key: shelf.find("merges", key, Merge))

    def faults(self, kind: str, key: str, record: ResultRecord) -> list[str]:
        """Return what is wrong with a result."""
        try:
            found = [*_scores(record), *self._figures(record), *self._keys(kind, key, record)]
            return found or (self._answered(record) if self._deep else [])
        except M3Error as error:  # columns that m3 does not write
            return [str(error)]

    def _figures(self, record: ResultRecord) -> list[str]:
        result, values = record.result, column(record.scores, "value")
        simple = len(set(column(record.scores, "id"))) == len(values) and not mentioned(record.scores, ["left_out"])
        evaluator = self.benchmarks.of(record.evaluator)
        if simple and "by_task" not in result.details and not _own_summary(evaluator):
            known = [value for value in values if value is not None]
            mean = 100 * math.fsum(known) / len(known) if known else None
            again = (mean, len(values), len(known), len(values) - len(known))
        elif self._deep and evaluator is not None and evaluator.version == record.evaluator.version:
            made = _summary(evaluator, record.scores)
            if made is None:
                return ["its scores cannot be summarized again"]
            again = (made.score, made.n, made.n_scored, made.n_unscored)
        else:
            return []
        names = ("score", "n", "n_scored", "n_unscored")
        wrong = [
            f"its {name} is {getattr(result, name)}, its items' scores give {value}"
            for name, value in zip(names, again, strict=True)
            if not _near(getattr(result, name), value)
        ]
        if None not in (result.low, result.score, result.high) and not (
            -_NEAR <= (result.low or 0) <= (result.score or 0) + _NEAR <= (result.high or 0) + 2 * _NEAR <= 100 + 3e-9
        ):
            wrong.append(f"its score {result.score} does not lie in its interval {result.low} to {result.high}")
        return wrong

    def _keys(self, kind: str, key: str, record: ResultRecord) -> list[str]:
        cell, _, name = key.partition("/")
        wrong = []
        n = len(items_of(record))
        own = f"{n:06d}-{record.items_digest[:16]}" + (f"-{record.repeat.number}" if record.repeat else "")
        if name != own or (record.repeat is not None) != (kind == "repeats"):
            wrong.append(f"it is the result of other items: {own}")
        merged = self._merged(record.recipe_key)
        if merged is None and self._deep:  # a run makes it again with the next cell of these weights
            wrong.append(f"merges/{record.recipe_key}.json, which its weights come from, is not there")
        elif merged is not None and merged.digest != record.weights:
            wrong.append(f"it is of the weights {record.weights[:12]}, its recipe gave {merged.digest[:12]}")
        evaluator = self.benchmarks.of(record.evaluator)
        if evaluator is None:
            return wrong
        number = record.repeat.number if record.repeat else None
        made = keys.answers_key(record.weights, evaluator.name, record.sampling, record.engine, number)
        if made != record.answers:
            wrong.append(f"it names the answers {record.answers[:12]}, its weights and settings those of {made[:12]}")
        if evaluator.version == record.evaluator.version and not evaluator.pointed_to():
            spec = _plain(record.evaluator)
            judged = keys.judged_by(spec, evaluator, record.engine, sampling=record.sampling)
            if keys.cell_key(record.recipe_key, judged) != cell:
                wrong.append("its recipe, benchmark and engine are those of another cell")
        return wrong

    def _answered(self, record: ResultRecord) -> list[str]:
        """Return what the answers of a result lack."""
        folder = f"answers/{record.answers}"
        evaluator = self.benchmarks.of(record.evaluator)
        if evaluator is None:
            return []
        kind = "repeat_sets" if record.repeat else "answer_sets"
        if self._shelf.find(kind, record.answers, AnswerSet) is None:
            return [f"{kind}/{record.answers}.json, which says what gave its answers, is not there"]
        try:
            known = self.texts(record, evaluator)
        except Wrong:
            return []  # the journal is named
        judged = zip(*(column(record.scores, name) for name in ("id", "sample", "value")), strict=True)
        lost = [item for item, sample, value in judged if value is not None and (item, sample) not in known]
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            return [f"{folder} has no answer to its item {lost[0]!r}{more}"]
        if record.texts_digest is None or None in known.values():
            return []
        counts = Counter(item for item, _ in known)
        texts = [a for a in known.values() if a is not None and counts[a.id] == record.sampling.n]
        return [] if keys.texts_digest(texts) == record.texts_digest else [f"{folder} holds other texts than it scored"]

    def texts(self, record: ResultRecord, evaluator: Evaluator) -> dict[tuple[str, int], StoredAnswer | None]:
        """Return the answers of a result's items by id and sample, under the items' own ids.

        None stands for an item that was asked with several prompts, where it is not known which one is the result's.

        Raises:
            Wrong: a journal is damaged.
        """
        ids = dict.fromkeys(column(record.scores, "id"))
        prompts, prefix = self._prompts(record, list(ids)), f"{evaluator.name}/"
        found: dict[tuple[str, int], dict[str, StoredAnswer]] = {}
        for answer in self.answers(record.answers):
            item = answer.id.removeprefix(prefix)
            own = item in ids and answer.id.startswith(prefix) and answer.sample < max(1, record.sampling.n)
            if own and prompts.get(item, answer.prompt) == answer.prompt:
                found.setdefault((item, answer.sample), {}).setdefault(answer.prompt, answer)
        return {key: _the_one(key[0], list(some.values()), record.runs) for key, some in found.items()}

    def _prompts(self, record: ResultRecord, ids: Sequence[str]) -> Mapping[str, str]:
        """Return the hash of each item's prompt, as far as the store remembers it."""
        if self._hashed is None:
            self._hashed = {}
            for key in self._shelf.keys("rendered"):
                if (one := self._shelf.find("rendered", key, Rendered)) is not None and one.hashed:
                    self._hashed[one.items_digest] = dict(enumerate(one.hashed))
        known = self._hashed.get(record.items_digest, {})
        made = any(map(_ATTACKED.search, ids))  # an attack's own items
        return {} if made or len(known) != len(ids) else {item: known[at] for at, item in enumerate(ids)}


def _the_one(item: str, answers: Sequence[StoredAnswer], runs: Sequence[str]) -> StoredAnswer | None:
    """Return the one answer, under the item's own id; of several prompts that of the runs which a result names."""
    own = answers if len(answers) == 1 else [answer for answer in answers if answer.run in runs]
    if len(own) != 1:
        return None
    (one,) = own
    return StoredAnswer(item, one.text, one.sample, one.n_tokens, one.finish, one.prompt, one.run)


def items_of(record: ResultRecord) -> frozenset[str]:
    """Return the ids of the items that a result is of; an attacked version counts as its item."""
    return _items(tuple(column(record.scores, "id")))


@lru_cache(maxsize=64)
def _items(ids: tuple[str, ...]) -> frozenset[str]:
    return frozenset(_ATTACKED.sub("", item) for item in ids)


def _scores(record: ResultRecord) -> list[str]:
    ids, samples, values = (column(record.scores, name) for name in ("id", "sample", "value"))
    wrong = []
    if len(set(zip(ids, samples, strict=True))) != len(ids):
        wrong.append("an item is scored twice")
    outside = [item for item, value in zip(ids, values, strict=True) if value is not None and not 0 <= value <= 1]
    if outside:
        wrong.append(f"the score of its item {outside[0]!r} does not lie between 0 and 1")
    if None in values and any(
        value is None and not reason for value, reason in zip(values, column(record.scores, "reason"), strict=True)
    ):
        wrong.append("an item is unscored without a reason")
    return wrong


def _own_summary(evaluator: Evaluator | None) -> bool:
    return evaluator is not None and type(evaluator).summarize is not Evaluator.summarize


def _summary(evaluator: Evaluator, scores: Sequence[Score]) -> Result | None:
    try:
        return evaluator.summarize(list(scores))
    except Exception:  # the wall: a benchmark of one's own may raise anything
        return None


def _near(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else math.isclose(one, other, rel_tol=0, abs_tol=_NEAR)
