"""Stored answers scored once more, item by item. Judges that cost money are not asked: what they said must be kept."""

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, cast

from m3_exp import keys
from m3_exp.scoring.cache import kept_in
from m3_exp.scoring.evaluate import evaluate
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.store import Prepared
from m3_exp.types import Answer, EvaluatorSpec, M3Error, Problem, ResultRecord
from m3_exp.upkeep.reader import Fault, Shelf, Wrong
from m3_exp.upkeep.results import ResultCheck, items_of

_DO = "run the same m3 run in another store=DIR and compare, or remove it: it is scored again"


@dataclass(frozen=True)
class Rescored:
    """One result scored again: where it differs, or why it could not be."""

    file: str
    faults: tuple[Fault, ...] = ()
    skipped: str = ""


def rescore(shelf: Shelf, results: ResultCheck, kind: str, name: str) -> Rescored:
    """Score the answers of a stored result again, in the sandbox as usual, and compare every item's score."""
    file = f"{kind}/{name}.json"
    try:
        record = shelf.read(kind, name, ResultRecord)
        evaluator = results.benchmarks.of(record.evaluator)
        if evaluator is None or evaluator.version != record.evaluator.version:
            return Rescored(file, skipped="its version of the benchmark is not here")
        problems = _problems(shelf, results, record, evaluator)
        answers = _answers(results, record, evaluator)
        judging = _free(evaluator, problems)
        with kept_in(shelf.root):
            scores, _ = evaluate(judging, problems, answers)
    except (Wrong, M3Error) as error:
        return Rescored(file, skipped=str(error))
    before = {(score.id, score.sample): score.value for score in record.scores}
    after = {(score.id, score.sample): score.value for score in scores}
    lost = [key for key, value in before.items() if value is not None and after.get(key) is None]
    if lost and judging is not evaluator:
        return Rescored(file, skipped=f"{len(lost)} of its judgments are not kept, and asking its judge costs money")
    differing = sorted(key for key, value in before.items() if after.get(key) != value)
    if not differing:
        return Rescored(file)
    item, sample = differing[0]
    said = f"{len(differing)} of {len(before)} answers score otherwise, such as {item!r}"
    return Rescored(file, (Fault(file, f"{said}: {before[item, sample]}, now {after.get((item, sample))}", _DO),))


def _problems(shelf: Shelf, results: ResultCheck, record: ResultRecord, evaluator: Evaluator) -> list[Problem]:
    """Return the items that a result is of; those that an attack made, where one did.

    Raises:
        M3Error: they are not at hand.
    """
    spec = EvaluatorSpec(
        record.evaluator.name, record.evaluator.target, record.evaluator.settings, record.items, record.evaluator.skill
    )
    judged = keys.judged_by(spec, evaluator, record.engine)
    made = shelf.find("prepared", keys.prepared_key(record.weights, judged, record.items_digest), Prepared)
    if made is not None:
        return list(made.problems)
    problems = results.benchmarks.items(spec, len(items_of(record)))
    if problems is None or {problem.id for problem in problems} != items_of(record):
        raise M3Error(f"its items ({record.items}) are not at hand")
    return list(problems)


def _answers(results: ResultCheck, record: ResultRecord, evaluator: Evaluator) -> list[Answer]:
    """Return the answers that were scored: those of items with all their samples.

    Raises:
        Wrong: the journal is damaged, or which of several prompts an item was asked with is not known.
    """
    known = results.texts(record, evaluator)
    if None in known.values():
        raise Wrong("its items were asked with several prompts, and it does not say with which")
    samples = [answer for answer in known.values() if answer is not None]
    whole = {item for item, _ in known if all((item, k) in known for k in range(record.sampling.n))}
    return [Answer(a.id, a.text, a.sample, a.n_tokens, a.finish) for a in samples if a.id in whole]


def _free(evaluator: Evaluator, problems: list[Problem]) -> Evaluator:
    """Return a benchmark whose judge may spend nothing.

    Raises:
        M3Error: it has a judge that knows no such limit.
    """
    if evaluator.cost(problems) is None:
        return evaluator
    if "max_cost" not in {field.name for field in dataclasses.fields(cast(Any, evaluator))}:
        raise M3Error("asking its judge may cost money")
    return cast(Evaluator, replace(cast(Any, evaluator), max_cost=0.0))
