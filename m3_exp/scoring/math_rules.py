"""Is this answer equal to that one? The rules of public answer checkers, by name.

    from m3_exp.scoring.math_rules import compare
    compare([("10", "10\\\\%")], "hendrycks")[0].equal                  # True
    compare([("$1/3$", "so it is $\\\\frac13$")], "math_verify")[0].equal  # True

| rule | whose, and what it takes |
|---|---|
| `paper` | Hendrycks' normalisation in the copy of lm-eval, WizardMath and the paper: two short LaTeX answers |
| `hendrycks` | the same in the authors' own file: two short LaTeX answers |
| `math_verify` | math-verify as its own tests call it (boxes first, LaTeX and plain expressions): two whole texts |
| `math_verify_latex`, `math_verify_expr` | the same, looking for LaTeX or for plain expressions alone |
| `nemo_skills` | `math_equal` of NVIDIA/NeMo-Skills: two short answers |
"""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from m3_exp.scoring.math_equivalence import is_equiv
from m3_exp.scoring.math_process import Question, Verdict, judge
from m3_exp.types import M3Error

Rule = Literal["paper", "hendrycks", "math_verify", "math_verify_latex", "math_verify_expr", "nemo_skills"]
RULES: tuple[Rule, ...] = get_args(Rule)

# The rule and options of `math_process.Question` for whole answers: math-verify as it comes.
WHOLE_TEXT: tuple[str, Mapping[str, object]] = ("math_verify", {"targets": ("latex", "expr"), "boxed_first": False})

_TARGETS = {"math_verify": ("latex", "expr"), "math_verify_latex": ("latex",), "math_verify_expr": ("expr",)}


def compare(pairs: Sequence[tuple[str, str | None]], rule: Rule, **options: object) -> list[Verdict]:
    """Compare (gold, answer) pairs under one rule; no answer (None) is equal to nothing.

    `options` go to math-verify's `verify`: `float_rounding`, `numeric_precision`, `strict`, `allow_set_relation_comp`.
    A pair on which the checker hangs or dies, twice, has a verdict of None with the reason.

    Raises:
        M3Error: the rule is not known.
    """
    if rule not in RULES:
        raise M3Error(f"rule={rule} is not known; allowed are {', '.join(RULES)}")
    if rule == "paper" or rule == "hendrycks":
        return [Verdict(pred is not None and is_equiv(gold, pred, rule), pred) for gold, pred in pairs]
    given = [number for number, (_, pred) in enumerate(pairs) if pred is not None]
    questions = [_question(pairs[number][0], str(pairs[number][1]), rule, options) for number in given]
    answered = dict(zip(given, judge(questions), strict=True))
    return [answered.get(number, Verdict(False)) for number in range(len(pairs))]


def _question(gold: str, pred: str, rule: Rule, options: Mapping[str, object]) -> Question:
    if rule == "nemo_skills":
        return Question(gold, pred, rule, options)
    return Question(gold, pred, "math_verify", {"targets": _TARGETS[rule], "boxed_first": True, **options})
