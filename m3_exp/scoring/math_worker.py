"""The child process of `math_process`: questions as JSON lines on stdin, its verdicts as JSON lines on stdout.

Model-written LaTeX can keep sympy busy for ever, and its time limits are signals that work in a main thread only. So it
is parsed here, by the package math-verify, under limits of the kernel: a question that takes more than its CPU seconds
ends this process (SIGXCPU), and the parent starts another. No verdict is ever made of a time-out.
"""

import contextlib
import itertools
import json
import logging
import re
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from latex2sympy2_extended.antlr_parser import PSParser
from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify

from m3_exp.scoring.math_kinds import corrected, far_apart, readable
from m3_exp.types import Json

MEMORY = 4 << 30  # bytes of address space
_SHOWN = 500  # characters of an extracted answer that are reported

_LETTERS = "ABCDEFGHIJ"
_PERCENT = re.compile(r"(\d+\.?\d*)(?:\\%|%)")
_LITERAL = re.compile(r"[a-zA-Z ,]+|[0-9 ]+")
_IN_LATEX = re.compile(r"\$.*\$|\\\(.*\\\)|\\\[.*\\\]|\\boxed\{", re.DOTALL)


def main() -> None:
    """Answer questions until stdin ends."""
    replies, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no verdict
    logging.disable(logging.CRITICAL)
    _complete_grammar()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of the address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin:
        question = json.loads(line)
        _allow(question["seconds"])
        try:
            reply = _RULES[question["rule"]](question["gold"], question["pred"], question["options"])
        except MemoryError:
            reply = {"equal": None, "reason": f"math-verify needs more than {MEMORY >> 30} GiB for it"}
        print(json.dumps(reply), file=replies, flush=True)


def _allow(seconds: int) -> None:
    """End this process when it uses more CPU time from now on; the kernel does it, whatever code is running."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    until = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))


def _complete_grammar() -> None:
    """Give the antlr 4.9.3 parser of latex2sympy2_extended 1.11.0 the accessor that its visitor calls and it lacks.

    Without it every percentage (and what else comes after that branch) fails to parse, without a word. The other
    generated parsers have it; with it, the parses of all 5000 MATH golds equal those under antlr 4.13.2.
    """
    if not hasattr(PSParser.AtomContext, "FUNC_GAMMA"):
        PSParser.AtomContext.FUNC_GAMMA = lambda self: None


def _parse(text: str, targets: Sequence[object]) -> list[object]:
    """Return what math-verify finds in a text, the text itself of it last; nothing where it fails."""
    try:
        return list(parse(readable(text), list(targets), parsing_timeout=None, raise_on_error=True))
    except MemoryError:
        raise
    except Exception:  # what parse itself does without raise_on_error
        return []


def _verify(gold: Sequence[object], answers: Sequence[object], **options: object) -> bool:
    """Say whether one of `answers` equals one of `gold`; equal texts first, since they cost nothing."""
    pairs = sorted(itertools.product(gold, answers), key=lambda pair: not all(isinstance(x, str) for x in pair))
    for left, right in pairs:
        try:
            if verify([left], [right], timeout_seconds=None, raise_on_error=True, **options):
                return not far_apart(left, right)
        except MemoryError:
            raise
        except Exception:  # what verify itself does without raise_on_error: this pair is not equal
            continue
    return False


def _reply(gold: str, pred: str, targets: Sequence[object], **options: object) -> dict[str, object]:
    right, answers = _parse(gold, targets), _parse(pred, targets)
    texts = [item for item in answers if isinstance(item, str)]
    shown = texts[-1][:_SHOWN] if texts else None
    equal = bool(right) and corrected(_verify(right, answers, **options), gold, pred, shown or "")
    return {"equal": equal, "found": shown, "gold_found": bool(right)}


def _math_verify(gold: str, pred: str, options: Mapping[str, Any]) -> Json:
    """Compare by `parse` and `verify` of math-verify; `targets` and `boxed_first` say what is looked for."""
    rest = dict(options)
    latex = LatexExtractionConfig(boxed_match_priority=0 if rest.pop("boxed_first") else 50)
    known = {"latex": latex, "expr": ExprExtractionConfig()}
    targets = [known[name] for name in rest.pop("targets")]
    return _reply(gold, pred, targets, **rest)


def _nemo_skills(gold: str, pred: str, options: Mapping[str, object]) -> dict[str, object]:
    """Compare as `math_equal` of NVIDIA/NeMo-Skills does: letters of choices, literal texts, then math-verify."""
    choices = [StringExtractionConfig(strings=tuple(_LETTERS))]
    if gold.strip() in tuple(_LETTERS) and _verify(_parse(gold, choices), _parse(pred, choices)):
        return {"equal": True, "found": pred[:_SHOWN]}
    gold, pred = _bare(gold), _bare(pred)
    normal = [normalize_latex(text, NormalizationConfig()) for text in (gold, pred)]
    same = normal[0].replace(" ", "") == normal[1].replace(" ", "")
    if same or all(_LITERAL.fullmatch(text) for text in normal):
        return {"equal": corrected(same, gold, pred, pred), "found": pred[:_SHOWN]}
    return _reply(_in_latex(gold), _in_latex(pred), [LatexExtractionConfig()], **options)


def _bare(text: str) -> str:
    """Drop a percent sign after a lone number, then full stops and backslashes at the end."""
    number = _PERCENT.fullmatch(text)
    return (number[1] if number else text).rstrip(".\\")


def _in_latex(text: str) -> str:
    """Return a text in dollar signs unless it has them; on one line, since a formula with a line break is not read."""
    return text if _IN_LATEX.search(text) else f"${' '.join(text.split())}$"


_RULES = {"math_verify": _math_verify, "nemo_skills": _nemo_skills}

if __name__ == "__main__":
    main()
