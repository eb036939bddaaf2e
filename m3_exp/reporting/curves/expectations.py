"""E[score | alpha] of a curve and its difference from the method without M3: the one place that asks.

Tables, heat map, figures, page, W&B and `m3 response` all call it, so the same question has the same number, interval
and p-value wherever it stands. An expectation estimates the score on items like these and, with several DARE masks,
under masks like these; with one mask, under this mask.

**The family.** Whether M3 differs from plain is one question for a pair and method (with its sparsifier): its p-values
are adjusted for the paper's seven alphas on all of its benchmarks together (max-T: those of one benchmark share their
items). An alpha that is none of the seven is an eighth.

**Signs.** A difference carries a sign (better, worse) only if the curve has sampled lambdas beside its nodes, and
either no DARE mask or at least three.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from m3_exp.reporting.curves.evaluated import Response, aligned_to
from m3_exp.reporting.table import Sign
from m3_exp.stats import family
from m3_exp.stats.estimate import Array, Estimate, Shape, VarianceSource, influences, mean
from m3_exp.stats.expectation import ALPHAS, expectation, unsure
from m3_exp.stats.joint import Unit
from m3_exp.stats.objective import unbeaten
from m3_exp.stats.paired import paired, spread

LEAST_MASKS = 3
NO_SAMPLED = "the curve has no sampled mixtures (ratio.sampled=16)"
OUTSIDE = f"sampled mixtures correct alphas from {ALPHAS[0]:g} to {ALPHAS[-1]:g} only"
FEW_MASKS = f"fewer than {LEAST_MASKS} DARE masks (sparsify.draws={LEAST_MASKS})"


@dataclass(frozen=True)
class Compared:
    """A difference with its adjusted p-value. `family`: the number of comparisons that it is adjusted for.

    `why`: the reason why it carries no sign; empty where it carries one.
    """

    estimate: Estimate
    p_adjusted: float
    family: int
    why: str = ""

    @property
    def mark(self) -> Sign:
        """better, worse, untold (not told apart), or empty: nothing is claimed."""
        if self.why:
            return ""
        if self.p_adjusted >= family.LIMIT:
            return "untold"
        return "better" if self.estimate.value > 0 else "worse"


def expected(response: Response, alpha: float) -> Estimate:
    """Return E[score | alpha] over the items that the curve has; the unscored ones widen it."""
    return expectation(response.curve, alpha, response.masks, response.unscored)


def plain(response: Response) -> Estimate | None:
    """Return what the method without M3 scores, as a table shows it: over its own items, with its masks."""
    if not response.plain:
        return None
    ids = sorted(response.plain)
    shape = response.curve.shape
    if not shape.even:
        kept = response.curve.having(response.plain)
        ids, shape = list(kept.ids), kept.shape
    values = aligned_to(response.plain, ids)
    masks = [aligned for one in response.plains.values() if (aligned := aligned_to(one, ids)) is not None]
    lost = max(0, response.unscored + len(response.curve.ids) - len(ids))
    assert values is not None
    return mean(values, shape, others=spread(masks, shape), unscored=lost)


def at(response: Response, lam: float | Array) -> Estimate:
    """Return the score at one lambda (or the shares of more experts), interpolated between nodes.

    Masks and unscored items widen its interval.
    """
    shape, items = response.curve.shape, np.clip(response.curve.items_at(lam), 0.0, 1.0)
    masks = spread([mask.items_at(lam) for mask in response.masks], shape)
    return mean(items, shape, others=masks, unscored=response.unscored)


def unclaimed(response: Response, alpha: float) -> str:
    """Return why an expectation carries no sign; empty if it may carry one."""
    if response.curve.sampled is None:
        return NO_SAMPLED
    if not response.curve.corrected(alpha):
        return OUTSIDE
    return FEW_MASKS if 0 < len(response.mask_seeds) < LEAST_MASKS else ""


def minus_plain(response: Response, alpha: float) -> Estimate | None:
    """Return E[score | alpha] - plain, paired by item and by mask; None where plain has none of the items or masks."""
    sides = _sides(response, alpha)
    return None if sides is None else _difference(response, alpha, sides)


def _difference(response: Response, alpha: float, sides: "_Sides") -> Estimate:
    rest = unsure(response.curve, {alpha: 1.0})
    lost = response.unscored + len(response.curve.ids) - len(sides.rows)
    others, bias = [*rest.sources, *sides.masks], (rest.bias, rest.bias)
    return paired(sides.mixed, sides.plain, sides.shape, others=others, bias=bias, unscored=lost)


def masks_of_difference(response: Response, alpha: float) -> list[VarianceSource]:
    """Return the source that DARE masks add to E[score | alpha] - plain; none unless both share several masks."""
    sides = _sides(response, alpha)
    return [] if sides is None else sides.masks


@dataclass(frozen=True)
class _Sides:
    """Both sides of a difference on the items (`rows` of the curve) that both have, and the sources from masks."""

    rows: Array
    mixed: Array
    plain: Array
    shape: Shape
    masks: list[VarianceSource]


def _sides(response: Response, alpha: float) -> _Sides | None:
    if response.plain is None:
        return None
    ids = response.curve.ids
    rows = np.array([i for i, key in enumerate(ids) if key in response.plain], dtype=int)
    kept = [ids[i] for i in rows]
    if not kept:
        return None
    plain = aligned_to(response.plain, kept)
    assert plain is not None
    seeds = [seed for seed in response.mask_seeds if seed in response.plains]
    if response.mask_seeds and not seeds:
        return None
    shape = response.curve.shape if len(rows) == len(ids) else response.curve.shape.of(rows)
    if not seeds:
        return _Sides(rows, response.curve.expected(alpha)[rows], plain, shape, [])
    mixed = [response.masks[response.mask_seeds.index(seed)].expected(alpha)[rows] for seed in seeds]
    alone = [aligned_to(response.plains[seed], kept) for seed in seeds]
    known = [(a, b) for a, b in zip(mixed, alone, strict=True) if b is not None]
    averaged = [np.mean(side, axis=0) for side in zip(*known, strict=True)]
    return _Sides(rows, averaged[0], averaged[1], shape, spread([a - b for a, b in known], shape))


# ---------------------------------------------------------------------------------------------------------- families


def against_plain(line: Sequence[Response], alphas: Sequence[float] = ALPHAS) -> dict[tuple[str, float], Compared]:
    """Return every E[score | alpha] - plain of one pair and method, by benchmark and alpha, adjusted as one family.

    An alpha beyond the seven is adjusted as an eighth, and changes nothing for the seven. Curves of fewer than five
    nodes are left out, as in tables.
    """
    gridded = tuple(response for response in line if response.gridded)
    differences = dict(_family(gridded, ALPHAS))
    for alpha in alphas:
        if alpha not in ALPHAS:
            wider = _family(gridded, (*ALPHAS, alpha))
            differences |= {key: value for key, value in wider.items() if key[1] == alpha}
    return {key: value for key, value in differences.items() if key[1] in alphas}


@lru_cache(maxsize=256)
def _family(line: tuple[Response, ...], alphas: tuple[float, ...]) -> Mapping[tuple[str, float], Compared]:
    estimates: dict[tuple[str, float], Estimate] = {}
    blocks: list[Array] = []
    whys: list[str] = []
    for response in line:
        parts = []
        for alpha in alphas:
            if (sides := _sides(response, alpha)) is not None:
                estimates[response.benchmark, alpha] = _difference(response, alpha, sides)
                whys.append(unclaimed(response, alpha))
                parts.append(influences(sides.mixed - sides.plain, sides.shape))
        if parts:
            blocks.append(np.column_stack(parts))
    adjusted = family.max_t([one.p or 0.0 for one in estimates.values()], family.diagonal(blocks))
    return {
        key: Compared(one, p, len(estimates), why)
        for (key, one), p, why in zip(estimates.items(), adjusted, whys, strict=True)
    }


def best_alphas(responses: Sequence[Response], measures: Sequence[Unit] | None = None) -> tuple[float, ...] | None:
    """Return the alphas among the seven of which one is the best with 95 %, of the mean over benchmarks in their units.

    None where a curve can carry no such claim.
    """
    if any(unclaimed(response, ALPHAS[0]) for response in responses):
        return None
    units = measures or [Unit(len(r.curve.ids), None, r.curve.shape) for r in responses]
    lost = max(r.unscored / (r.unscored + len(r.curve.ids)) for r in responses)
    return unbeaten([r.curve for r in responses], [r.masks for r in responses], units, lost)
