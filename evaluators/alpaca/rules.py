"""Rules that an answer either fulfils or does not: the judge of instructions that carry their own check.

An item's `rules` is a list of objects like {"rule": "max_words", "n": 20}; the keys beside "rule" are the keyword
arguments of the function of that name below. All look at the answer without blank space at both ends. `contains`,
`excludes`, `starts_with`, `ends_with` and `occurs` do not distinguish upper and lower case, the others do.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_origin

from m3_exp.types import M3Error, Problem

_MARKER = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):])\s+", re.MULTILINE)


def max_words(answer: str, *, n: int) -> bool:
    """At most n words."""
    return 0 < len(answer.split()) <= n


def min_words(answer: str, *, n: int) -> bool:
    """At least n words."""
    return len(answer.split()) >= n


def n_words(answer: str, *, n: int) -> bool:
    """Exactly n words."""
    return len(answer.split()) == n


def n_sentences(answer: str, *, n: int) -> bool:
    """Exactly n sentences: the parts between . ! or ? with blank space after it."""
    return sum(bool(part) for part in re.split(r"(?<=[.!?])\s+", answer)) == n


def n_lines(answer: str, *, n: int) -> bool:
    """Exactly n lines that are not blank."""
    return sum(bool(line.strip()) for line in answer.splitlines()) == n


def n_items(answer: str, *, n: int) -> bool:
    """Exactly n items: numbered or bulleted lines where there are any, else the parts between commas."""
    marked = len(_MARKER.findall(answer))
    parts = [part for part in answer.split(",") if part.strip()]
    return (marked or len(parts)) == n


def contains(answer: str, *, text: str) -> bool:
    """A given text occurs."""
    return text.lower() in answer.lower()


def excludes(answer: str, *, text: str) -> bool:
    """A given text does not occur, in an answer that is not empty."""
    return bool(answer) and text.lower() not in answer.lower()


def starts_with(answer: str, *, text: str) -> bool:
    """The answer starts with a given text."""
    return answer.lower().startswith(text.lower())


def ends_with(answer: str, *, text: str) -> bool:
    """The answer ends with a given text."""
    return answer.lower().endswith(text.lower())


def occurs(answer: str, *, text: str, n: int) -> bool:
    """A given text occurs exactly n times."""
    return answer.lower().count(text.lower()) == n


def equals(answer: str, *, text: str) -> bool:
    """The answer is a given text."""
    return answer == text


def uppercase(answer: str) -> bool:
    """All letters are capitals, and there is at least one."""
    return answer.isupper()


def lowercase(answer: str) -> bool:
    """No letter is a capital, and there is at least one."""
    return answer.islower()


def no_commas(answer: str) -> bool:
    """There is no comma, in an answer that is not empty."""
    return bool(answer) and "," not in answer


def json_keys(answer: str, *, keys: list[str]) -> bool:
    """The answer is a JSON object with exactly these keys."""
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and sorted(value) == sorted(keys)


_FUNCTIONS: tuple[Callable[..., bool], ...] = (
    *(max_words, min_words, n_words, n_sentences, n_lines, n_items, contains, excludes, starts_with, ends_with),
    *(occurs, equals, uppercase, lowercase, no_commas, json_keys),
)
RULES: Mapping[str, Callable[..., bool]] = {function.__name__: function for function in _FUNCTIONS}


def broken(text: str, rules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the rules that an answer does not fulfil, each as its JSON; an empty list is a success."""
    return [json.dumps(rule, ensure_ascii=False) for rule in rules if not _fulfilled(text.strip(), rule)]


def _fulfilled(answer: str, rule: Mapping[str, Any]) -> bool:
    return RULES[rule["rule"]](answer, **{key: value for key, value in rule.items() if key != "rule"})


def check(problem: Problem) -> None:
    """Make sure that an item carries rules that exist, with their arguments.

    Raises:
        M3Error: it has none, or one is unknown or has wrong arguments.
    """
    rules = problem.row.get("rules")
    if not isinstance(rules, list) or not rules:
        raise M3Error(
            f"item {problem.id} carries no rules, so judge=rules cannot judge it (the official AlpacaEval items have"
            " none): use items=lab, or items=PATH with a `rules` column"
        )
    for rule in rules:
        _check_rule(problem.id, rule)


def _check_rule(item: str, rule: object) -> None:
    if not isinstance(rule, dict) or not isinstance(name := rule.get("rule"), str) or name not in RULES:
        raise M3Error(f"item {item}: {json.dumps(rule)} is not a rule; there are {', '.join(sorted(RULES))}")
    parameters = inspect.signature(RULES[name]).parameters.values()
    wanted = {p.name: get_origin(p.annotation) or p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    given = {key: value for key, value in rule.items() if key != "rule"}
    if given.keys() != wanted.keys() or any(type(given[key]) is not kind for key, kind in wanted.items()):
        named = ", ".join(f"{key} ({kind.__name__})" for key, kind in wanted.items()) or "no arguments"
        raise M3Error(f"item {item}: {json.dumps(rule)} does not fit the rule {rule['rule']}, which takes {named}")
