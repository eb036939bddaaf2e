"""Equality of short LaTeX answers under the string normalisation of Hendrycks et al. (MATH, 2021).

Re-implemented from the published behaviour, in two forms that differ in two places (see `Copy`). Neither does algebra:
they compare strings, so 0.25 and \\frac{1}{4} differ. Where the normalisation of either side meets something that it
cannot treat, both are compared as they are.
"""

from typing import Literal

# `paper`: the copy in lm-eval, WizardMath, MetaMath and the paper's code, where x/2 is a form not treated and a bare %
# is kept; `hendrycks`: the authors' own file (hendrycks/math, modeling/math_equivalence.py), where x/2 stays as it is
# while the rest is normalised, and a bare % goes.
Copy = Literal["paper", "hendrycks"]


class _Untreatable(ValueError):
    """The normalisation does not know this form; the answers are compared as they are."""


def is_equiv(left: str, right: str, copy: Copy = "paper") -> bool:
    """Say whether two answers are equal after normalisation (or as they are, where one cannot be normalised)."""
    try:
        return normalize(left, copy) == normalize(right, copy)
    except _Untreatable:
        return left == right


def normalize(text: str, copy: Copy = "paper") -> str:
    """Return an answer in the normal form.

    Raises:
        ValueError: it has a form that the published normalisation fails on.
    """
    for old, new in (
        ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
        ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""),
    ):  # fmt: skip
        text = text.replace(old, new)
    text = _without_unit(text).replace("\\%", "")
    if copy == "hendrycks":
        text = text.replace("%", "")
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    if text.startswith("."):
        text = "0" + text
    text = _brace_sqrt(_without_name(text)).replace(" ", "")
    text = _brace_fracs(text)
    return _slash_to_frac("\\frac{1}{2}" if text == "0.5" else text, copy)


def _without_unit(text: str) -> str:
    """Cut a unit on the right: `\\text{ ` with the space introduces nothing else."""
    value, *units = text.split("\\text{ ")
    if len(units) > 1:
        raise _Untreatable(text)
    return value


def _without_name(text: str) -> str:
    """Turn `x=5` into `5`, where the name has at most two characters."""
    name, *values = text.split("=")
    return values[0] if len(values) == 1 and len(name) <= 2 else text


def _brace_sqrt(text: str) -> str:
    """Turn `\\sqrt3` into `\\sqrt{3}`."""
    head, *parts = text.split("\\sqrt")
    if not all(parts):
        raise _Untreatable(text)
    return head + "".join("\\sqrt" + (part if part.startswith("{") else f"{{{part[0]}}}{part[1:]}") for part in parts)


def _brace_fracs(text: str) -> str:
    """Turn `\\frac12`, `\\frac1{2}` into `\\frac{1}{2}`; a lone character after \\frac leaves the whole as it is."""
    head, *parts = text.split("\\frac")
    for part in parts:
        if not part:
            raise _Untreatable(text)
        if len(part) < 2 and part != "{":
            return text
    return head + "".join("\\frac" + _brace_frac(part) for part in parts)


def _brace_frac(part: str) -> str:
    if part.startswith("{"):
        return part
    numerator, denominator, rest = part[0], part[1], part[2:]
    return f"{{{numerator}}}" + (f"{{{rest}" if denominator == "{" else f"{{{denominator}}}{rest}")


def _slash_to_frac(text: str, copy: Copy) -> str:
    """Turn `3/4` into `\\frac{3}{4}`; for `paper` anything but whole numbers around one slash is a form not treated."""
    numerator, *denominators = text.split("/")
    if len(denominators) != 1:
        return text
    try:
        above, below = int(numerator), int(denominators[0])
    except ValueError:
        if copy == "hendrycks":
            return text
        raise _Untreatable(text) from None
    return f"\\frac{{{above}}}{{{below}}}" if text == f"{above}/{below}" else text
