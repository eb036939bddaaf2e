"""`ratio.parts` as people write it -> parts: a mapping of parts to weights, or a list where a part needs quotes.

{attention: 0.3, layers 0-5: [0.2,0.8], mlp: {math: 0.2, lm: 0.8}, norms: plain, blocks: {first: 0.2, last: 0.8}}
[{where: "/q_proj$/", weights: 0.3}]
"""

from collections.abc import Mapping, Sequence

from m3_exp.config.values import Tree, held, number
from m3_exp.merging import parts
from m3_exp.merging.by_part import shares
from m3_exp.types import Drawn, M3Error, Part

_KEY = "ratio.parts"
_DRAWN = ("alpha", "seed", "draw", "per")
Weights = tuple[float, ...] | None


def read(cfg: Tree, experts: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts of a config, in the order in which they are written; none where it has none.

    Raises:
        M3Error: something there is no part of a model, or is not how much of each expert it takes.
    """
    given = held(cfg, _KEY)
    if not given:
        return ()
    if isinstance(given, dict):
        written = [(str(where), value) for where, value in given.items()]
    elif isinstance(given, list) and all(isinstance(one, dict) and {*one} == {"where", "weights"} for one in given):
        written = [(str(one["where"]), one["weights"]) for one in given]
    else:
        raise M3Error(f"{_KEY}={given} is not a mapping: give '{_KEY}={{attention: 0.3, layers 0-5: 0.7}}'")
    found = tuple(_part(where, value, experts) for where, value in written)
    for part in found:
        parts.check(part)
    return found


def by_name(given: Mapping[str, object], experts: Sequence[str], key: str) -> tuple[float, ...]:
    """Return one weight an expert, in their order, of weights that are given by the experts' names."""
    strange = [name for name in map(str, given) if name not in experts]
    lacking = [name for name in experts if name not in given]
    if strange or lacking:
        what = f"{strange[0]} is no expert of it" if strange else f"it lacks {lacking[0]}"
        raise M3Error(f"{key}={dict(given)}: {what}; give a weight to each of {', '.join(experts)}")
    return tuple(number({"weight": given[name]}, "weight", float) for name in experts)


def _part(where: str, given: object, experts: Sequence[str]) -> Part:
    key = f"{_KEY} of {where!r}"
    if isinstance(given, dict) and {*given} == {"first", "last"} != {*experts}:
        first, last = (_weights(given[end], experts, f"{key}, {end}") for end in ("first", "last"))
        if first is None or last is None:
            raise M3Error(f"{key}={given}: give weights as first and last, not plain")
        return Part(where, first, last=last)
    if isinstance(given, dict) and {*given} == {*_DRAWN} and given["per"] in ("block", "tensor"):
        alpha, seed, draw = (
            number(given, name, kind, low=0) for name, kind in zip(_DRAWN, (float, int, int), strict=False)
        )
        return Part(where, drawn=Drawn(alpha, int(seed), int(draw), given["per"]))
    return Part(where, _weights(given, experts, key))


def _weights(given: object, experts: Sequence[str], key: str) -> Weights:
    if given is None or given == "plain":
        return None
    if isinstance(given, dict):
        return by_name(given, experts, key)
    if isinstance(given, list):
        return shares(tuple(number({"weight": one}, "weight", float) for one in given), len(experts), key)
    if isinstance(given, int | float) and not isinstance(given, bool):
        return shares(float(given), len(experts), key)
    raise M3Error(f"{key}={given} is not known: give lambda, one weight an expert in [], weights by name, or plain")
