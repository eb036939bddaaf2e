"""A study of a pair and method: every way of choosing lambda, on every benchmark, their mean and their minimum.

E[alpha] - plain is paired by item and adjusted (max-T) over the seven alphas x all benchmarks of the pair and method
(`expectations`); mean and minimum have families of their own. Random - tuned is one family over
benchmarks, mean and minimum (Holm).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from m3_exp.reporting.choices.helping import Help, helping
from m3_exp.reporting.choices.protocols import Comparison, compare
from m3_exp.reporting.choices.relative import Relative, relative
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Response
from m3_exp.reporting.curves.places import is_expert, named, whole
from m3_exp.stats import family
from m3_exp.stats.estimate import Array, deviation, weighted_mean
from m3_exp.stats.expectation import ALPHAS, draw_sd, place, unsure
from m3_exp.stats.objective import Objective

_RESAMPLES = 1_000  # of development items


@dataclass(frozen=True)
class Spread:
    """The uncertainty of one alpha's expectation besides that from items, in percent points.

    Standard deviations between draws of lambda and between masks; the standard error from sampled lambdas or, without
    any, how far the curve may bend between its nodes.
    """

    sd_draws: float
    sd_masks: float | None
    se_sampled: float | None
    bend: float | None


@dataclass(frozen=True)
class Chooser:
    """The node that development items chose for an objective, and the benchmarks that have such items.

    `share`: how often this node is the best over resampled development items, 0 to 1.
    """

    lam: float | Array
    benchmarks: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Study:
    """All about one pair and method: comparisons by objective, spreads by benchmark and alpha, notes on what lacks.

    `choosers` are there for objectives that development items could choose for; `contrasts` holds Holm's p-value of
    random - tuned by objective. `helps`: of three experts and more, whether each one more helps.
    """

    responses: tuple[Response, ...]
    relative: Relative
    comparisons: tuple[Comparison, ...]
    spreads: Mapping[str, Mapping[float, Spread]]
    notes: tuple[str, ...]
    choosers: Mapping[str, Chooser] = field(default_factory=dict)
    contrasts: Mapping[str, float] = field(default_factory=dict)
    helps: tuple[Help, ...] = ()

    def helping(self, objective: str) -> list[Help]:
        """What the best of ever more experts is worth on one objective; none of two experts."""
        return [one for one in self.helps if one.objective == objective]

    @property
    def points(self) -> str:
        """What is chosen: lambdas of two experts, mixtures of more."""
        return "lambdas" if self.responses[0].along is not None else "mixtures"

    def named(self, at: float | Array) -> str:
        """Write a point: lambda of two experts, the shares of more with their names."""
        return named(at, self.responses[0].experts)


def study(
    responses: Sequence[Response],
    *,
    dev: Mapping[str, Response] | None = None,
    repeats: int = 10_000,
    resamples: int = 1_000,
    seed: int = 0,
) -> Study:
    """Compare all ways of choosing lambda on the benchmarks of one pair and method.

    `dev`: what the same pair and method scored on development items, by benchmark; none of the test's items are its.

    Raises:
        ValueError: there is no curve.
    """
    if not responses:
        raise ValueError("no benchmark has a curve: all planned nodes must be evaluated, 0 and 1 among them")
    comparisons: list[Comparison] = []
    options: dict[str, Any] = {"repeats": repeats, "resamples": resamples, "seed": seed}
    choosers: dict[str, Chooser] = {}
    dev = dev or {}
    against = expectations.against_plain(responses)
    joint = relative(responses)
    alone = [([response], Objective(response.benchmark, (response.curve,))) for response in responses]
    known_objectives = [*alone, *((joint.responses, objective) for objective in joint.objectives)]
    for members, objective in known_objectives:
        known = [r.benchmark for r in members if r.benchmark in dev]
        if known and (chosen := _developed(dev, known, objective, seed=seed)):
            choosers[objective.name] = chosen
        lam = choosers[objective.name].lam if objective.name in choosers else None
        one = compare(members, objective, chosen=lam, **options)
        of_family = {a: against[objective.name, a] for a in one.expected if (objective.name, a) in against}
        comparisons.append(replace(one, gains=one.gains or of_family))
    p = family.holm([1.0 if c.contrast.p is None else c.contrast.p for c in comparisons])
    contrasts = {c.objective: q for c, q in zip(comparisons, p, strict=True)}
    spreads = {r.benchmark: _spreads(r) for r in responses}
    lost = [f"{r.benchmark}: {note}" for r in responses for note in _missing(r)]
    if joint.objectives:
        lost.append(
            "minimum: the least of several estimates falls short of the least truth by chance; its intervals hold that,"
            " its values do not"
        )
    helps = () if responses[0].along is not None else tuple(helping(known_objectives, seed=seed))
    notes = (*joint.notes, *lost)
    return Study(tuple(responses), joint, tuple(comparisons), spreads, notes, choosers, contrasts, helps)


def _missing(response: Response) -> list[str]:
    """Say what is missing from a curve, where its numbers stand."""
    lines = list(response.notes)
    if response.unscored:
        total = response.unscored + len(response.curve.ids)
        lines.append(f"{response.unscored} of {total} items unscored: in the intervals of E at their worst and best")
    return lines


def _developed(dev: Mapping[str, Response], benchmarks: Sequence[str], of: Objective, *, seed: int) -> Chooser | None:
    """Choose the best of the nodes that test and development items share; None where they share none but the ends.

    Benchmarks count relative to their better parents on development items, where all can be measured by them.
    """
    known = (map(place, dev[name].curve.points) for name in benchmarks)
    shared = whole(set(map(place, of.points)).intersection(*known))
    if all(map(is_expert, shared)):
        return None
    nodes = np.array([shared])
    curves = tuple(dev[name].curve.on_nodes(nodes[0]) for name in benchmarks)
    parents = relative([dev[name] for name in benchmarks]).parents
    if len(parents) < len(curves):  # a choice is for all benchmarks: then plain scores count for all
        parents = tuple(np.ones(len(curve.ids)) for curve in curves)
    objective = Objective(of.name, curves, parents, of.combine)
    sample = objective.resampled(_RESAMPLES, np.random.default_rng(seed))
    best = int(np.argmax(objective.score(objective.nodes(objective.whole), nodes)[0]))
    again = np.argmax(objective.score(objective.nodes(sample), np.repeat(nodes, _RESAMPLES, axis=0)), axis=1)
    chosen = shared[best]
    return Chooser(
        chosen if isinstance(chosen, float) else np.array(chosen), tuple(benchmarks), float(np.mean(again == best))
    )


def _spreads(response: Response) -> dict[float, Spread]:
    spreads = {}
    for alpha in ALPHAS:
        masks = [100 * float(weighted_mean(curve.expected(alpha), curve.shape)) for curve in response.masks]
        rest = unsure(response.curve, {alpha: 1.0})
        spreads[alpha] = Spread(
            sd_draws=100 * draw_sd(response.curve, alpha),
            sd_masks=deviation(masks),
            se_sampled=100 * math.sqrt(rest.sources[0].variance) if rest.sources else None,
            bend=None if rest.sources else 100 * rest.bend,
        )
    return spreads
