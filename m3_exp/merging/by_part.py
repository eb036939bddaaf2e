"""Ratios that differ from part to part of a model: over its depth, by given parts, one range of layers at a time.

What a part is: `merging.parts`. A number is lambda, the first expert's share of two; else each expert has a weight.
"""

from collections.abc import Sequence

from m3_exp.merging.mixtures import Mixture
from m3_exp.types import M3Error, Part

Share = float | tuple[float, ...]
_MOST = 1000  # ranges of layers: more is a slip of the pen


def depth(
    n_experts: int, *, seed: int, first: Share, last: Share, steps: int | None = None, rest: Share | str | None = None
) -> list[Mixture]:
    """Return weights that change over depth, from the first decoder layer to the last one.

    Without `steps` each layer lies on the line between both. With K steps each of K equal ranges of layers has one
    value, from `first` to `last` in equal steps: 0.3 to 0.7 in three steps is 0.3, 0.5, 0.7, whose mean stays 0.5.
    """
    start, end = shares(first, n_experts, "ratio.first"), shares(last, n_experts, "ratio.last")
    others = _between(start, end, 0.5) if rest is None else _or_plain(rest, n_experts, "ratio.rest")
    if steps is None:
        return [Mixture(others, parts=(Part("blocks", start, last=end),))]
    if not 2 <= steps <= _MOST:
        raise M3Error(f"ratio.steps={steps} is out of range: give 2 to {_MOST}, or null for a value for each layer")
    values = [_between(start, end, step / (steps - 1)) for step in range(steps)]
    ranges = tuple(Part(f"depth {step + 1}/{steps}", value) for step, value in enumerate(values))
    return [Mixture(others, parts=ranges)]


def parts(n_experts: int, *, seed: int, parts: tuple[Part, ...] = (), rest: Share | str | None = None) -> list[Mixture]:
    """Return the weights that each part is given; `rest` is for what no part names."""
    if not parts:
        raise M3Error("ratio=parts needs ratio.parts, as in 'ratio.parts={attention: 0.3, layers 0-5: 0.7}'")
    return [Mixture(_or_plain(rest, n_experts, "ratio.rest"), parts=parts)]


def ablation(n_experts: int, *, seed: int, groups: int, lams: tuple[float, ...]) -> list[Mixture]:
    """Return, for each of some equal ranges of decoder layers, lambdas in that range alone; the rest is plain."""
    if n_experts != 2:
        raise M3Error(f"ratio=ablation takes two experts, there are {n_experts}: use ratio=parts")
    if not 2 <= groups <= _MOST:
        raise M3Error(f"ratio.groups={groups} is out of range: give 2 to {_MOST} ranges of decoder layers")
    points = [shares(lam, n_experts, "ratio.lams") for lam in lams]
    places = [f"depth {group + 1}/{groups}" for group in range(groups)]
    return [Mixture(None, parts=(Part(place, point),)) for place in places for point in points]


def shares(given: Share, n_experts: int, key: str) -> tuple[float, ...]:
    """Return one weight an expert.

    Raises:
        M3Error: it is no lambda of two experts, or not one weight for each.
    """
    if isinstance(given, tuple):
        if len(given) != n_experts:
            raise M3Error(f"{key} has {len(given)} weights for {n_experts} experts: give one each")
        return given
    if n_experts != 2:
        raise M3Error(f"{key}={given} is a share of two experts, there are {n_experts}: give one weight each, in []")
    if not 0 <= given <= 1:
        raise M3Error(f"{key}={given} is outside [0, 1]: lambda is the first expert's share")
    return (float(given), 1.0 - given)


def _or_plain(given: Share | str | None, n_experts: int, key: str) -> tuple[float, ...] | None:
    if given is None or given == "plain":
        return None
    if isinstance(given, str):
        raise M3Error(f"{key}={given} is not known: give lambda, one weight an expert in [], or plain")
    return shares(given, n_experts, key)


def _between(start: Sequence[float], end: Sequence[float], place: float) -> tuple[float, ...]:
    return tuple((1 - place) * one + place * other for one, other in zip(start, end, strict=True))
