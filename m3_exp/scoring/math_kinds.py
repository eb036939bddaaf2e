"""Corrects verdicts of math-verify 0.9.0 on numbers that it reads wrongly.

It reads the whole part of `2 2/3`, drops the base of `2516_9`, takes 1000 for `1000(26)`, one number of `5 or 6` and
the first of `5:6`, `2½` and `28x` in plain text, and compares after rounding to six decimals. Each of these is decided
here by arithmetic, where the gold answer is one number; everything else is math-verify's.
"""

import re
from typing import Any

from m3_exp.scoring.numbers import one_number

_AROUND = 24  # characters before and after what was found that may belong to it
_SMALL, _FAR = 1e-4, 0.01  # below this, rounding to six decimals makes numbers equal that differ by more than 1 %

_STOP = re.compile(r"(?<=[\d})])\.(?=\s*(?:\$|\\\)|\\\]|\}))")
_SPACED = re.compile(r"\\(boxed|fbox)\s+\{")
_THIN = re.compile(r"\\[,;]")
_THOUSANDS = re.compile(r"(?<![\d.])[1-9]\d{0,2}(?:\\[,;]\d{3})+(?!\d)")
_MIXED = re.compile(r"[-+]?\d+\s+\d+\s*/\s*\d+(?![\d/])|[-+]?\d+\(\d+\)|[-+]?\d+ ?[¼-¾⅐-⅞]")
_BEGINS = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+")
# A number with its name or a percent sign, of which math-verify makes something else.
_DRESSED = re.compile(
    r"(?:(?:\\text\{[^{}]*\}|[A-Za-z][A-Za-z ]*)\s*=\s*)?\\?\$?\s*([-+]?[\d,]*\.?\d+)(?:\s|\\[,;:! ])*(?:\\?%)?"
)
_OTHER = re.compile(r"(-?\d[\d,]*)\s+or\s+\$?\Z")
_GOES_ON = re.compile(r"[xyzni](?![A-Za-z'])|:\d|\s+or\s+\$?(-?\d[\d,]*)")

_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_BASE = re.compile(
    r"(?<![A-Za-z0-9\\])[0-9A-F]*\d[0-9A-F]*\s*(?:_|\\?\s*(?:\\text(?:bf|rm)?)?[{(\s~]*(?:in\s+)?base\b)"
    rf"[\s{{(~]*(?:\\(?:text|mathrm|textbf)\s*\{{)?\s*(?:base\s+)?(\d+|{'|'.join(_WORDS)})(?![A-Za-z0-9])"
)
_WORD_BASE = re.compile(rf"_\s*\{{?\s*\\(?:text|mathrm|textbf)\s*\{{\s*({'|'.join(_WORDS)})\s*\}}\s*\}}?")


def readable(text: str) -> str:
    """Rewrite forms that math-verify cannot read.

    They are a full stop between a number and the end of its formula or box, the thin spaces of thousands (`1\\,234`),
    the blank of `\\boxed {5}`, and a base in words (`_{\\text{eight}}`).
    """
    text = _WORD_BASE.sub(lambda match: f"_{{{_WORDS.index(match[1]) + 2}}}", _SPACED.sub(r"\\\1{", text))
    return _THOUSANDS.sub(lambda match: _THIN.sub("", match[0]), _STOP.sub("", text))


def corrected(equal: bool, gold: str, pred: str, extracted: str) -> bool:
    """Return whether two answers are equal: math-verify's verdict, or arithmetic's where it mistakes a number.

    `gold`: the gold answer; `pred`: the text of the answer, and `extracted` what math-verify took from it.
    """
    before, said = _in_place(pred, extracted)
    right = one_number(gold)
    mixed = _MIXED.match(said)
    if mixed and right:
        number = one_number(mixed[0])
        return number is not None and number.value == right.value
    if equal and not _same_bases(_bases(gold), _bases(said)):
        return False
    start = _BEGINS.match(said)
    more = _GOES_ON.match(said, start.end()) if start and right else None
    if not equal and right and (dressed := _DRESSED.fullmatch(extracted.strip(" $*"))):
        number = one_number(dressed[1])
        return number is not None and number.value == right.value
    other = _OTHER.search(before) if start and right else None
    return equal and not (start and ((more and more[1] != start[0]) or (other and other[1] != start[0])))


def far_apart(left: Any, right: Any) -> bool:
    """Say whether two expressions of sympy are numbers that only rounding to six decimals makes equal."""
    if not (getattr(left, "is_number", False) and getattr(right, "is_number", False)):
        return False
    try:
        a, b = (side.doit().evalf(15) for side in (left, right))
        size = max(abs(a), abs(b))
        return bool(a != 0 != b and size < _SMALL and abs(a - b) > _FAR * size)
    except (TypeError, ValueError, ArithmeticError):
        return False


def _in_place(pred: str, extracted: str) -> tuple[str, str]:
    """Return the text before `extracted` in the answer, and `extracted` with what follows it, up to the line's end."""
    core = extracted.strip(" $*")
    at = pred.rfind(core) if core else -1
    if at < 0:
        return "", core
    return pred[max(0, at - _AROUND) : at], pred[at : at + len(core) + _AROUND].split("\n")[0]


def _bases(text: str) -> list[int]:
    """Return the bases that numbers of a text bear, in order: `2516_8`, `2516_{\\text{eight}}`, `2516 base 8`."""
    return [_WORDS.index(base) + 2 if base in _WORDS else int(base[:4]) for base in _BASE.findall(text)]


def _same_bases(gold: list[int], pred: list[int]) -> bool:
    """Compare bases; one that the problem asks for may be left out of an answer, one that it lacks is ten."""
    return not pred or sorted(pred) == sorted(gold) or (not gold and set(pred) == {10})
