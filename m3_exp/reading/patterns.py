"""Regular expressions that came with a file, matched within a time limit."""

import contextlib
import functools
from collections.abc import Iterator

import regex

from m3_exp.types import M3Error

SECONDS = 2.0  # of one match; a pattern of module names takes microseconds
_LONGEST = 10_000  # characters


@functools.lru_cache(maxsize=4096)
def compiled(pattern: str, where: str) -> "regex.Pattern[str]":
    """Return a regular expression.

    Raises:
        M3Error: it is none, or longer than any pattern of module names.
    """
    if len(pattern) > _LONGEST:
        raise M3Error(f"{where} is a regular expression of {len(pattern)} characters; at most {_LONGEST} are read")
    with _refusing(pattern, "", where):
        return regex.compile(pattern)


def fullmatch(pattern: str, text: str, where: str) -> bool:
    """Tell whether a whole text matches a pattern from a file; `where` is what the pattern is called.

    Raises:
        M3Error: it is no regular expression, or does not end within two seconds.
    """
    with _refusing(pattern, text, where):
        return compiled(pattern, where).fullmatch(text, timeout=SECONDS) is not None


def count(pattern: str, text: str, where: str, *, flags: int = 0) -> int:
    """Return how often a pattern from a file occurs in a text; `flags` are those of `re`.

    Raises:
        M3Error: it is no regular expression, or does not end within two seconds.
    """
    with _refusing(pattern, text, where):
        return sum(1 for _ in regex.compile(pattern, flags).finditer(text, timeout=SECONDS))


@contextlib.contextmanager
def _refusing(pattern: str, text: str, where: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise M3Error(f"{where}: the regular expression {pattern[:60]!r} does not end on {text[:60]!r}") from None
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        raise M3Error(f"{where}: {pattern[:60]!r} is not a regular expression ({str(error)[:80]})") from error
