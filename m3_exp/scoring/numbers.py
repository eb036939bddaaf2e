"""The number in a text that may hold LaTeX, as an exact fraction: exactly one in a box, or the last of an answer.

Digits are never joined across words, braces or blanks other than a thousands space. What has no single value (3:4, 2-5,
a date, a power, 1,23, digits of another base, 4 x 7) is no number, and no piece of it is one.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

_LONGEST = 400  # characters of a number, and the size of an exponent
_BOX = 1000  # characters of a box that may hold a number

# --------------------------------------------------------------------------------------------- as a reader sees it

_MINUS = dict.fromkeys("\u2010\u2011\u2012\u2212\ufe63\uff0d", "-")
_SIGNS = str.maketrans(
    {**_MINUS, "＋": "+", "，": ",", "٬": ",", "．": ".", "٫": ".", "＝": "=", "％": "%", "＄": "$", "\u2044": "/",
     "·": "×", "⋅": "×", "≈": "=", "\u200b": "", "\u2060": "", "\ufeff": "", "\u00ad": ""}
)  # fmt: skip
_DASH = re.compile(r"[–—](?![\s\n]|$)")  # followed by a blank it is punctuation
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_SUBSCRIPT = re.compile(r"[₀₁₂₃₄₅₆₇₈₉]+")

_WRAPPERS = (
    "text|text(?:bf|it|rm|sf|tt|normal|up)|math(?:bf|rm|it|sf|tt|normal|ord)|mbox|hbox|emph|underline|boldsymbol|bm|bf"
    "|rm|it|tt|sf|displaystyle|textstyle|large|Large|huge|Huge|normalsize|operatorname|left|right|[bB]igg?[lr]?|boxed"
    "|fbox|therefore|because"
)
_TERM = r"(-?[\d,]+(?:\.\d+)?)"
_LATEX = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"\\(?:text)?color\s*\{[^{}]*\}", " "),
        (r"\\\$|\\textdollar(?![A-Za-z])", "$"),
        (r"\\pounds(?![A-Za-z])", "£"),
        (r"\\euro(?![A-Za-z])", "€"),
        (r"\\%", "%"),
        (r"(?:\{,\}|\\text\s*\{,\}|,)(?:\s*\\!)?", ","),
        (r"\\[,;:!> \n]|\\q?quad(?![A-Za-z])|\\\w*space(?![A-Za-z])\*?(?:\{[^{}]*\})?|~|&nbsp;|\\\\", " "),
        (r"\^[\s{]*+(?:\\circ|\\degree|°)(?![A-Za-z])\s*\}?|\\(?:degree|circ)(?![A-Za-z])", "°"),
        (rf"\\[dtc]?frac\s*\{{\s*{_TERM}\s*\}}\s*\{{\s*{_TERM}\s*\}}", r" \1/\2 "),
        (r"\\[dtc]?frac\s*(\d)\s*(\d)", r" \1/\2 "),
        (rf"\\[dtc]?frac\s*\{{\s*{_TERM}\s*\}}\s*(\d)|\\[dtc]?frac\s*(\d)\s*\{{\s*{_TERM}\s*\}}", r" \1\3/\2\4 "),
        (r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" √\1/√\2 "),
        (rf"\{{\s*{_TERM}\s*\\over\s*{_TERM}\s*\}}", r" \1/\2 "),
        (r"\\(?:times|cdot|ast)(?![A-Za-z])|(?<=\d)x(?=\d)|(?<=\d )x(?= \d)", "×"),
        (r"\\(?:approx|sim|simeq|cong|equiv)(?![A-Za-z])", "="),
        (r"\\pm(?![A-Za-z])", "±"),
        (r"\\div(?![A-Za-z])", "÷"),
        (r"\\(?:mu|micro)(?![A-Za-z])", "u"),
        (r"\\(?:Omega|ohm)(?![A-Za-z])", " ohm"),
        (r"\\sqrt(?![A-Za-z])", "√"),
        (r"\\pi(?![A-Za-z])", "π"),
        (rf"\\(?:{_WRAPPERS})(?![A-Za-z])\*?", ""),
        (r"\\[()\[\]{}]", " "),
        (r"\\([#&_])", r"\1"),
        (r"(?<=\d)[{}]+(?=\d)", " "),
        (r"[{}]", ""),
        (r"(?<=[A-Za-z])\$?\^-?\d+", ""),  # of a unit
        (r"(?<=[A-Za-z]) ?× ?(?=[A-Za-z])", " "),  # N·m
        (r"\^(?=\s*(?:st|nd|rd|th)\b)", ""),
        (r"\*++(?!\s?[\d.])|(?<=\s)\*\*+(?=[\d$.])|(?<![\d)])(?<![\d)]\s)\*++|__+", " "),  # bold
        (r"(?<![A-Za-z0-9])_(?=\s?[-$€£\d.])", " "),
        (r"\b(?:[Mm]inus|[Nn]egative)\s+(?=[$€£]?\s?\.?\d)", "-"),
        (r"[^\S\n]+", " "),
    )
)


def _plain(text: str) -> str:
    """Return a text without LaTeX, bold and signs outside ASCII, blanks single, fractions as a/b."""
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda match: "^" + unicodedata.normalize("NFKC", match[0]), text)
        text = _SUBSCRIPT.sub(lambda match: "_" + unicodedata.normalize("NFKC", match[0]), text)
        text = "".join(c if c.isascii() else _ascii(c) for c in _DASH.sub("-", text)).translate(_SIGNS)
    for pattern, new in _LATEX:
        text = pattern.sub(new, text)
    return text


def _ascii(character: str) -> str:
    """Return a digit of any script as 0 to 9, ½ as 1/2, all else as it is."""
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    if unicodedata.decomposition(character).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", character)
    return character


# --------------------------------------------------------------------------------------------------------- numbers

_RUN = re.compile(
    r"""
    (?<![A-Za-z0-9_])(?<!\d\.)
    (?P<sign>[-+]\ ?)?
    (?P<money>(?:(?:US|CA?|AU?)?\$|[€£¥₹₱₩]|(?:USD|EUR|GBP|INR|Rs)\.?)\ ?(?P<inner>-)?)?
    (?P<core>
        \d+(?:\.\d+)?\ ?[×*x]\ ?10\^-?\d+
      | \d+\ \d+\ ?/\ ?\d+
      | [1-9]\d{0,2}(?:\ \d{3})+(?!\d)(?:\.\d+)?
      | \.?\d+(?:\ ?/\ ?\d+|(?:\*\*|[-.,:'^_/*x×÷])\.?\d+)*(?:[eE][-+]?\d+)?(?:\(\d+\))?
    )
    (?P<scale>\ (?:hundred|thousand|million|billion|trillion)(?![A-Za-z]))?
    """,
    re.VERBOSE,
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}

_DECIMAL = r"(?:\d+|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?:\ \d{3})+|[1-9]\d?(?:,\d{2})+,\d{3})(?:\.\d+)?|\.\d+"
_WHOLE = re.compile(_DECIMAL)
_OF_TWO = re.compile(rf"({_DECIMAL})\ ?/\ ?({_DECIMAL})")
_MIXED = re.compile(r"(\d+)\ (\d+)\ ?/\ ?(\d+)")
_POWER = re.compile(r"(\d+(?:\.\d+)?)(?:[eE]|\ ?[×*x]\ ?10\^)([-+]?\d+)")
_PRODUCT = re.compile(r"(\d+)\((\d+)\)")
_GOES_ON = re.compile(r"[\^√π]|_\w|\(\d|/[(√]| and (?:a|one) (?:half|third|quarter)(?![a-z])")


@dataclass(frozen=True)
class Number:
    """An exact value, and the text that it was read from."""

    value: Fraction
    text: str

    def __str__(self) -> str:
        return str(self.value.numerator) if self.value.denominator == 1 else self.text


def _value(core: str) -> Fraction | None:
    """Return the value of digits with their separators, None where they have no single one."""
    if len(core) > _LONGEST:
        return None
    if _WHOLE.fullmatch(core):
        return _exact(core)
    if match := _MIXED.fullmatch(core):
        whole, above, below = map(int, match.groups())
        return whole + Fraction(above, below) if above < below else None
    if match := _OF_TWO.fullmatch(core):
        divisor = _exact(match[2])
        return _exact(match[1]) / divisor if divisor else None
    if match := _POWER.fullmatch(core):
        exponent = int(match[2])
        return Fraction(match[1]) * Fraction(10) ** exponent if abs(exponent) <= _LONGEST else None
    if match := _PRODUCT.fullmatch(core):
        return Fraction(int(match[1]) * int(match[2]))
    return None


def _exact(decimal: str) -> Fraction:
    return Fraction(decimal.replace(",", "").replace(" ", ""))


def _number(text: str, run: re.Match[str]) -> Number | None:
    """Return the number of one run of digits in a plain text, None where its neighbours make it part of more."""
    before = text[max(0, run.start() - 3) : run.start()].rstrip(" ")[-1:]
    sign = run["sign"] or ""
    if (before and before in "×÷*√^_±/+") or _GOES_ON.match(text, run.end()):
        return None
    if sign and (before.isdigit() or (before and before in "-)%°")):
        return None  # 8 - 3, --3
    value = _value(run["core"])
    if value is None:
        return None
    dash = sign.endswith(" ") and before not in ("", "\n", "=", "(", "[", ":", "$")
    negative = (sign.startswith("-") and not dash) != (run["inner"] is not None)
    scaled = value * 10 ** _SCALES[run["scale"].strip()] if run["scale"] else value
    return Number(-scaled if negative else scaled, run[0].strip())


# ------------------------------------------------------------------------------------------------- the two readers

_BULLET = re.compile(r"^[^\S\n]*[-+*•][^\S\n]+", re.MULTILINE)

_LEADING_DASH = re.compile(r"(^|=)\s*[–—]\s+")  # nothing but a sign there
_SIDES = re.compile(r"=|(?<=[A-Za-z]):(?= )")
_ALONE = r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])"
_UNSOLVED = re.compile(rf"(?=.*{_ALONE})(?:.*[\d+*×÷^]|.*{_ALONE}\s*[-/]\s*{_ALONE})")
_NAMED = re.compile(r"_\w+|(?<=(?<![A-Za-z])[A-Wa-hp-w])\(\d+(?:, ?\d+)*\)")  # x_1, f(3), C(8, 2)
_RELATION = re.compile(r"[<>≤≥≠∈∞±|]")
# What makes a box say something else than the one number in it: operators, unknown commands, a variable, some words.
_MORE = re.compile(
    r"[\^_√π+×÷*!\\]|(?<![A-Za-z])[xyznkie](?![A-Za-z'])|\b(?:not|half|than|or)\b|(?<![A-Za-z])[A-Za-z]{0,3}[014-9]"
)
_FACTOR = re.compile(r" ?[kKMB](?![A-Za-z])|[A-Zabefijnoqrtu-z](?<![mgshlLdcpCFVWJNA])(?![A-Za-z])")


def last_number(text: str) -> Number | None:
    """Return the last number of an answer, or None where there is none or the last digits are no single number."""
    plain = _plain(_BULLET.sub("", text))
    runs = list(_RUN.finditer(plain))
    return _number(plain, runs[-1]) if runs else None


def one_number(box: str) -> Number | None:
    """Return the one number that a box says, or None where it holds none, more than one, or more than a number.

    A unit, a name (`x = 28`) and a calculation before it (`4 \\times 7 = 28`) may stand with it.
    """
    if len(box) > _BOX:
        return None
    plain = _plain(_LEADING_DASH.sub(r"\1-", box.replace("\n", " ")))
    sides = _SIDES.split(plain)
    numbered = [side for side in sides if re.search(r"\d", side)]
    if _RELATION.search(plain) or not numbered:
        return None
    side, last = numbered[-1], sides[-1]
    others = [_NAMED.sub("", other) for other in sides if other is not side]
    if (side is not last and len(numbered) > 1) or any(_UNSOLVED.match(other) for other in others):
        return None
    runs = list(_RUN.finditer(side))
    if len(runs) != 1:
        return None
    around = f"{side[: runs[0].start()]} {side[runs[0].end() :]}"
    if _MORE.search(around) or _FACTOR.match(side, runs[0].end()):
        return None
    return _number(side, runs[0])
