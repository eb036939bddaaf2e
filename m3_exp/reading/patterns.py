"""Regular expressions that came with a file, matched within a time limit."""

import functools
from typing import Any

import regex

from m3_exp.types import M3Error

SECONDS = 2.0  # of one match; a pattern of module names takes microseconds
_LONGEST = 10_000  # characters


@functools.lru_cache(maxsize=4096)
def compiled(pattern: str, where: str) -> Any:
    """Return a regular expression.

    Raises:
        M3Error: it is none, or longer than any pattern of module names.
    """
    if len(pattern) > _LONGEST:
        raise M3Error(f"{where} is a regular expression of {len(pattern)} characters; at most {_LONGEST} are read")
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        raise M3Error(f"{where}: {pattern[:60]!r} is not a regular expression ({str(error)[:80]})") from error


def fullmatch(pattern: str, text: str, where: str) -> bool:
    """Tell whether a whole text matches a pattern from a file; `where` is what the pattern is called.

    Raises:
        M3Error: it is no regular expression, or does not end within two seconds.
    """
    try:
        return compiled(pattern, where).fullmatch(text, timeout=SECONDS) is not None
    except TimeoutError:
        raise M3Error(f"{where}: the regular expression {pattern[:60]!r} does not end on {text[:60]!r}") from None


def count(pattern: str, text: str, where: str, *, flags: int = 0) -> int:
    """Return how often a pattern from a file occurs in a text; `flags` are those of `re`.

    Raises:
        M3Error: it is no regular expression, or does not end within two seconds.
    """
    try:
        found = regex.compile(pattern, flags).finditer(text, timeout=SECONDS)
        return sum(1 for _ in found)
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        raise M3Error(f"{where}: {pattern[:60]!r} is not a regular expression ({str(error)[:80]})") from error
    except TimeoutError:
        raise M3Error(f"{where}: the regular expression {pattern[:60]!r} does not end on {text[:60]!r}") from None
