"""A merge by part in words: for tables, and as the override that asks for it again."""

import json
import re
from collections.abc import Sequence

from m3_exp.command_line import quoted
from m3_exp.types import Part

_BARE = re.compile(r"[\w/\-+.$%*@?| ]+", re.ASCII)  # what Hydra reads as the key of a mapping


def text(parts: Sequence[Part], rest: tuple[float, ...] | None, experts: Sequence[str] = ()) -> str:
    """Write parts and what the rest of the model takes, as in `attention 0.3, rest plain` or `0.2 to 0.8, rest 0.5`.

    `experts` name the weights where there are more than two.
    """
    return ", ".join(
        [*(where_text(one) + amount_text(one, experts) for one in parts), f"rest {weights_text(rest, experts)}"]
    )


def where_text(part: Part) -> str:
    """Write which tensors a part names, as what its amount follows; "" where the amount says it."""
    if (part.where == "blocks" and part.last) or (part.where in ("blocks", "all") and part.drawn):
        return ""
    return part.where + (" at " if part.where[-1].isdigit() else " ")


def amount_text(part: Part, experts: Sequence[str] = ()) -> str:
    if part.drawn is not None:
        one = part.drawn
        return f"drawn for each {one.per} (alpha {one.alpha:g}, seed {one.seed}, draw {one.draw})"
    return weights_text(part.weights, experts) + (f" to {weights_text(part.last, experts)}" if part.last else "")


def weights_text(weights: tuple[float, ...] | None, experts: Sequence[str] = ()) -> str:
    """Write lambda where two experts share the whole, else all weights; `plain` for the method's own.

    With the names of the `experts`: `0.2 lm + 0.3 math + 0.5 code`.
    """
    if weights is None:
        return "plain"
    if len(experts) == len(weights):
        named = [f"{weight:.4g} {name}" for weight, name in zip(weights, experts, strict=True) if weight]
        return " + ".join(named).replace("+ -", "- ") or "0"
    is_lam = len(weights) == 2 and abs(sum(weights) - 1) <= 1e-12
    return ":".join(f"{weight:.4g}" for weight in (weights[:1] if is_lam else weights))


def override(parts: Sequence[Part]) -> str:
    """Return `ratio.parts=...` as it is read back: a mapping, or a list where a part can only be quoted."""
    values = [(part.where, _value(part)) for part in parts]
    if all(map(_BARE.fullmatch, (where for where, _ in values))) and len({where for where, _ in values}) == len(values):
        return "ratio.parts={" + ",".join(f"{where}: {value}" for where, value in values) + "}"
    return "ratio.parts=[" + ",".join(f"{{where: {quoted(where)},weights: {value}}}" for where, value in values) + "]"


def _value(part: Part) -> str:
    if part.drawn is not None:
        one = part.drawn
        return f"{{alpha: {one.alpha!r},seed: {one.seed},draw: {one.draw},per: {one.per}}}"
    first = "plain" if part.weights is None else json.dumps(part.weights)
    return f"{{first: {first},last: {json.dumps(part.last)}}}" if part.last else first
