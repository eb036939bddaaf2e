"""Rules that an answer either fulfils or does not: the judge of instructions that carry their own check.

An item's `rules` is a list of objects like {"rule": "max_words", "n": 20}; the keys beside "rule" are the keyword
arguments of the function of that name below. All look at the answer without blank space at both ends. `contains`,
`excludes`, `starts_with`, `ends_with` and `occurs` do not distinguish upper and lower case, the others do.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from m3_exp.types import M3Error, Problem

_MARKER = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):])\s+", re.MULTILINE)


def max_words(text: str, *, n: int) -> bool:
    """At most n words."""
    return 0 < len(text.split()) <= n


def min_words(text: str, *, n: int) -> bool:
    """At least n words."""
    return len(text.split()) >= n


def n_words(text: str, *, n: int) -> bool:
    """Exactly n words."""
    return len(text.split()) == n


def n_sentences(text: str, *, n: int) -> bool:
    """Exactly n sentences: parts that end in . ! or ? before blank space or the end."""
    return len(re.findall(r"[^.!?\s][^.!?]*(?:[.!?]+(?=\s|$)|$)", text)) == n


def n_lines(text: str, *, n: int) -> bool:
    """Exactly n lines that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines()) == n


def n_items(text: str, *, n: int) -> bool:
    """Exactly n items: numbered or bulleted lines where there are any, else the parts between commas."""
    marked = len(_MARKER.findall(text))
    parts = [part for part in text.split(",") if part.strip()]
    return (marked or len(parts)) == n


def contains(text: str, *, text_: str) -> bool:
    """A given text occurs."""
    return text_.lower() in text.lower()


def excludes(text: str, *, text_: str) -> bool:
    """A given text does not occur, in an answer that is not empty."""
    return bool(text) and text_.lower() not in text.lower()


def starts_with(text: str, *, text_: str) -> bool:
    """The answer starts with a given text."""
    return text.lower().startswith(text_.lower())


def ends_with(text: str, *, text_: str) -> bool:
    """The answer ends with a given text."""
    return text.lower().endswith(text_.lower())


def occurs(text: str, *, text_: str, n: int) -> bool:
    """A given text occurs exactly n times."""
    return text.lower().count(text_.lower()) == n


def equals(text: str, *, text_: str) -> bool:
    """The answer is a given text."""
    return text == text_


def uppercase(text: str) -> bool:
    """All letters are capitals, and there is at least one."""
    return text.isupper()


def lowercase(text: str) -> bool:
    """No letter is a capital, and there is at least one."""
    return text.islower()


def no_commas(text: str) -> bool:
    """There is no comma, in an answer that is not empty."""
    return bool(text) and "," not in text


def json_keys(text: str, *, keys: Sequence[str]) -> bool:
    """The answer is a JSON object with exactly these keys."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and sorted(value) == sorted(keys)


RULES: Mapping[str, Callable[..., bool]] = {
    rule.__name__: rule
    for rule in (
        max_words, min_words, n_words, n_sentences, n_lines, n_items, contains, excludes, starts_with, ends_with,
        occurs, equals, uppercase, lowercase, no_commas, json_keys,
    )  # fmt: skip
}


def broken(text: str, rules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the rules that an answer does not fulfil, written as in {"rule": ...}; an empty list is a success."""
    return [json.dumps(rule) for rule in rules if not _bound(rule)(text.strip())]


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
    if not isinstance(rule, dict) or rule.get("rule") not in RULES:
        raise M3Error(f"item {item}: {json.dumps(rule)} is not a rule; there are {', '.join(sorted(RULES))}")
    function = RULES[rule["rule"]]
    wanted = {p.name.rstrip("_"): p.annotation for p in inspect.signature(function).parameters.values()}
    del wanted[next(iter(inspect.signature(function).parameters))]
    given = {key: value for key, value in rule.items() if key != "rule"}
    kinds = {int: int, str: str}
    if given.keys() != wanted.keys() or any(
        not isinstance(value, kinds.get(wanted[key], list)) for key, value in given.items()
    ):
        named = ", ".join(f"{key}: {getattr(kind, '__name__', 'list')}" for key, kind in wanted.items()) or "no arguments"
        raise M3Error(f"item {item}: {json.dumps(rule)} does not fit the rule, which takes {named}")


def _bound(rule: Mapping[str, Any]) -> Callable[[str], bool]:
    given = {key: value for key, value in rule.items() if key != "rule"}
    if "text" in given:
        given["text_"] = given.pop("text")
    return lambda text: RULES[rule["rule"]](text, **given)
