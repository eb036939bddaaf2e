"""Answers -> scores -> a result: loading a benchmark by name, catching what it raises, and `m3 score`."""

import dataclasses
import functools
import importlib
import math
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from m3_exp import benchmarks
from m3_exp.reading.paths import is_file
from m3_exp.scoring import thoughts
from m3_exp.scoring.evaluator import ChatSettings, Evaluator, judged
from m3_exp.scoring.items import checked
from m3_exp.scoring.saved import read_answers
from m3_exp.stats import unread
from m3_exp.store import dumps, write_atomic
from m3_exp.types import Answer, EvaluatorSpec, Json, M3Error, Problem, Result, Score, plain

UNCLOSED = "no answer: an unclosed thought"


def load_evaluator(spec: EvaluatorSpec) -> Evaluator:
    """Return the plugin that `spec.target` names, with its settings.

    Raises:
        M3Error: the target cannot be imported or is no evaluator, which is seen before anything of it is called; or a
            setting is unknown, missing or has a value that is not allowed.
    """
    module_name, _, class_name = spec.target.partition(":")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # the wall: a module of one's own may raise anything
        absent = isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]
        use = f"put the folder of {module_name}.py on PYTHONPATH" if absent else "write module:Class"
        raise M3Error(f"{spec.name}: target={spec.target} cannot be imported ({error!r}); {use}") from None
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and issubclass(kind, Evaluator)):
        raise M3Error(
            f"evaluator {spec.name}: target={spec.target} is not a dataclass that inherits"
            " m3_exp.scoring.evaluator.Evaluator; see docs/plugins.md"
        )
    if lacking := _lacking(kind):
        raise M3Error(f"evaluator {spec.name}: target={spec.target} has no {lacking}; see docs/plugins.md")
    _check_settings(spec, kind)
    benchmarks.remember(spec.name, kind.name, kind.skill, kind.about)
    try:
        return kind(**spec.settings)
    except M3Error:
        raise
    except (Exception, SystemExit) as error:  # the wall, once more
        raise M3Error(f"{spec.name}: {spec.target} and {spec.settings} fail ({error!r}): change one of them") from None


def check_names(specs: Iterable[EvaluatorSpec]) -> None:
    """Raise M3Error where two classes have one `name`: items, answers and saved files are known by it."""
    targets: dict[str, str] = {}
    for spec in specs:
        name = load_evaluator(spec).name
        if targets.setdefault(name, spec.target) != spec.target:
            raise M3Error(
                f"evaluator {spec.name}: {spec.target} and {targets[name]} both have the name {name!r}: give one of the"
                " classes another `name`"
            )


def _lacking(kind: type[Evaluator]) -> str:
    """Return what a class lacks of an evaluator, without making one; nothing where it is one."""
    texts = [name for name in ("name", "version", "skill") if not isinstance(getattr(kind, name, None), str)]
    items = kind.item_set or kind.problems is not Evaluator.problems or kind.wanted is not Evaluator.wanted
    scores = kind.score is not Evaluator.score or kind.score_one is not Evaluator.score_one
    return ", ".join(
        [*texts, *sorted(kind.__abstractmethods__), *["item_set"] * (not items), *["score_one"] * (not scores)]
    )


def replaced_by(target: str, setting: str) -> str | None:
    """Return what to write in place of a setting that a benchmark used to have; None if it never had it."""
    module, _, name = target.partition(":")
    try:
        kind: type[Evaluator] = getattr(importlib.import_module(module), name)
        return kind.replaced.get(setting)
    except (Exception, SystemExit):  # the wall: a module of one's own may raise anything
        return None


@functools.cache
def _hints(kind: type[Evaluator]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _check_settings(spec: EvaluatorSpec, kind: type[Evaluator]) -> None:
    hints = _hints(kind)
    fields = [field for field in dataclasses.fields(cast(Any, kind)) if field.init]
    shared = {field.name for field in dataclasses.fields(ChatSettings)}
    allowed = sorted((field.name for field in fields), key=shared.__contains__)  # a benchmark's own first
    for key, value in spec.settings.items():
        if key not in allowed:
            if instead := kind.replaced.get(key):
                raise M3Error(f"{spec.name} has no setting {key!r} any more; give {instead}")
            raise M3Error(f"{spec.name} has no setting {key!r}; there are {', '.join(allowed)}")
        _check_value(f"{spec.name}: {key}={value}", value, hints[key], key in kind.above_zero)
    for field in fields:
        if field.name not in spec.settings and field.default is field.default_factory is dataclasses.MISSING:
            raise M3Error(f"{spec.name} needs the setting {field.name}; there are {', '.join(allowed)}")


def _check_value(what: str, value: object, hint: Any, above_zero: bool) -> None:
    low = 0 if above_zero else -math.inf
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            kind = "" if type(value) in map(type, choices) else f" ({type(value).__name__})"
            raise M3Error(f"{what}{kind} is not known; allowed are {', '.join(map(str, choices))}")
    elif hint is int and (type(value) is not int or value <= low):
        raise M3Error(f"{what} must be a whole number{' of at least 1' * above_zero}")
    elif hint is float and not (type(value) in (int, float) and low < cast(float, value) < math.inf):
        raise M3Error(f"{what} must be a {'number above 0' if above_zero else 'finite number'}")
    elif hint in (str, bool) and type(value) is not hint:
        raise M3Error(f"{what} must be {'true or false' if hint is bool else 'a word'}")
    elif type(value) is int and abs(value) >= 1 << 31:
        raise M3Error(f"{what} is too large: give at most {(1 << 31) - 1}")
    elif hint == str | None and not isinstance(value, str | None):
        raise M3Error(f"{what} must be a text, or null")


def evaluate(
    evaluator: Evaluator, problems: Sequence[Problem], answers: Sequence[Answer]
) -> tuple[list[Score], Result]:
    """Score the answers of one cell: one Score an answer, and one *unscored* an item without an answer.

    Raises:
        M3Error: an answer belongs to no problem, or to the same sample as another.
    """
    by_id = {problem.id: problem for problem in problems}
    _check_answers(by_id, answers)
    order = {problem.id: number for number, problem in enumerate(problems)}
    present = sorted(answers, key=lambda answer: (order[answer.id], answer.sample))
    present = judged(evaluator, present)
    scores = score_all(evaluator, [by_id[answer.id] for answer in present], present)
    unclosed = [answer.finish == thoughts.UNCLOSED for answer in present]
    scores = [
        replace(score, value=0.0, extracted=None, reason=UNCLOSED) if lost and score.value is not None else score
        for score, lost in zip(scores, unclosed, strict=True)
    ]
    silent = unread.counts(present, scores)
    missing = order.keys() - {answer.id for answer in answers}
    scores += [Score(key, None, reason="no answer") for key in sorted(missing, key=order.__getitem__)]
    scores.sort(key=lambda score: (order[score.id], score.sample))
    result = evaluator.summarize(scores)
    kept = sum(thoughts.held(answer.text) for answer in present)
    counted = {"unclosed_thoughts": sum(unclosed), "thoughts_kept": kept}
    repeated = {name: count for name, count in counted.items() if count}
    return scores, replace(result, details={**result.details, **repeated, **silent})


def _check_answers(known: Mapping[str, Problem], answers: Sequence[Answer]) -> None:
    seen: set[tuple[str, int]] = set()
    for answer in answers:
        if answer.id not in known:
            raise M3Error(f"there is an answer for the id {answer.id!r}, which is not among the {len(known)} items")
        if (answer.id, answer.sample) in seen:
            raise M3Error(f"item {answer.id!r} has sample {answer.sample} twice")
        seen.add((answer.id, answer.sample))


def score_all(evaluator: Evaluator, problems: list[Problem], answers: list[Answer]) -> list[Score]:
    """Score all at once; where that fails, one by one, so that only the items at fault stay unscored.

    Whatever a benchmark's `score` raises is caught here: the answer is *unscored* with the reason, never 0.
    """
    try:
        return _scored(evaluator, problems, answers)
    except Exception as error:
        if len(answers) == 1:
            reason = f"{evaluator.name} failed: {type(error).__name__}: {error}"
            return [Score(answers[0].id, None, answers[0].sample, reason=reason)]
    return [score_all(evaluator, [p], [a])[0] for p, a in zip(problems, answers, strict=True)]


def _scored(evaluator: Evaluator, problems: list[Problem], answers: list[Answer]) -> list[Score]:
    scores = evaluator.score(problems, answers) if answers else []
    if [(score.id, score.sample) for score in scores] != [(answer.id, answer.sample) for answer in answers]:
        raise ValueError("it did not return one score for each answer, in order")
    for score in scores:
        if score.value is not None and not 0.0 <= score.value <= 1.0:
            raise ValueError(f"the value {score.value} does not lie between 0 and 1")
    return scores


# ---------------------------------------------------------------------------------------------------------- m3 score


def score_file(
    spec: EvaluatorSpec, path: Path, out: Path | None = None, *, audit: bool = False, cell: str = ""
) -> tuple[Json, int]:
    """Score saved answers (`scoring/saved.py`) with no model; `out` gets one JSON line for each of them.

    Only the ids in the file count. `cell`: whose answers, where `m3 export answers` wrote those of several. `audit`
    adds how the answers look, the result's details, and what other rules would make of them where the benchmark knows
    any.

    Returns:
        What `m3 score` prints, and its exit code: 1 if anything is unscored, else 0.

    Raises:
        M3Error: the file, a line of it, an id or a setting is wrong, or the items are not to be had.
    """
    evaluator = load_evaluator(spec)
    if out is not None and out.is_dir():
        raise M3Error(f"--out {out} is a directory: give a file's name")
    problems = {problem.id: problem for problem in checked(evaluator.problems(spec.items), spec.name)}
    own = evaluator.answers(path, list(problems.values())) if is_file(path) else None
    names = (spec.name, evaluator.name)
    answers = list(enumerate(own, 1)) if own is not None else read_answers(path, problems, names, cell)
    for number, answer in answers:
        if answer.id not in problems:
            raise M3Error(
                f"{path}:{number}: {answer.id!r} is not an item of {spec.name} with items={spec.items}"
                f" ({len(problems)} items, such as {next(iter(problems))!r}): items=lab and items=PATH name other items"
            )
    evaluator.check_saved(list(problems.values()))
    present = [problems[key] for key in dict.fromkeys(answer.id for _, answer in answers)]
    given = [answer for _, answer in answers]
    scores, result = evaluate(evaluator, present, given)
    by_sample = {(score.id, score.sample): score for score in scores}
    ordered = [by_sample[answer.id, answer.sample] for answer in given]
    if out is not None:
        write_atomic(out, "".join(_line(score) for score in ordered).encode())
    summary = _summary(spec, result)
    if kept := result.details.get("thoughts_kept"):
        use = "chat_template=true" if result.settings.get("thought") == "drop" else "thought=drop"
        summary["warning"] = (
            f"{kept} of {len(given)} answers hold a thought (such as <think>...</think>) that is judged as a part of"
            f" the answer: set {use} to drop it"
        )
    if "warning" not in summary and (silent := unread.unread(result, scores)):
        summary["warning"] = f"{silent}: --audit says what other rules read there"
    if audit:
        summary["audit"] = _audit(evaluator, problems, given, ordered, result)
    if result.n_unscored:
        lost = [score for score in ordered if score.value is None and "left_out" not in score.notes]
        reasons = Counter(score.reason or "no reason given" for score in lost)
        summary["reasons"] = dict(reasons.most_common(3))
    return summary, int(result.n_unscored > 0)


def _audit(
    evaluator: Evaluator,
    problems: Mapping[str, Problem],
    answers: Sequence[Answer],
    scores: Sequence[Score],
    result: Result,
) -> Json:
    from m3_exp.scoring.audit import counts

    report = {**counts(answers, scores), "details": plain(result.details)}
    try:
        texts = judged(evaluator, answers)
        report |= plain(evaluator.audit([problems[answer.id] for answer in answers], texts))
    except Exception as error:  # the wall: a broken audit takes nothing from the score
        report["failed"] = f"{evaluator.name} failed: {type(error).__name__}: {error}"
    return report


def _line(score: Score) -> str:
    return dumps({"id": score.id, "value": score.value, "extracted": score.extracted, "reason": score.reason}) + "\n"


def _summary(spec: EvaluatorSpec, result: Result) -> Json:
    keys = ("benchmark", "metric", "score", "low", "high", "n", "n_scored", "n_unscored", "settings")
    own = {"benchmark": spec.name, "settings": {**result.settings, "items": spec.items}}
    return cast(Json, plain({key: getattr(result, key) for key in keys} | own))
