"""Three experts: which mixtures are better than each of the experts alone, over the whole triangle of their shares.

A mixture wins where it is better than all three, so the least of its three gains decides. Each gain is paired by item,
with an interval of 95 %. All three lower ends above 0 is a test of that at 5 %, whichever expert is the best one (the
intersection-union test of Berger 1982): nothing is picked, so nothing needs a correction. Where the upper end of one of
them is below 0, the mixture is worse than that expert. The intervals are of one mixture at a time. They hold items,
DARE masks and how far the score may bend between evaluated mixtures, where each item's score is interpolated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3_exp.reporting.choices.ways import Study
from m3_exp.reporting.curves.evaluated import Response
from m3_exp.stats import joint
from m3_exp.stats.estimate import Array
from m3_exp.stats.objective import Objective
from m3_exp.stats.paired import spread
from m3_exp.stats.simplex import Surface, lattice

FINE = 32  # the order of the lattice that a triangle is drawn on: a multiple of those of the nodes


@dataclass(frozen=True)
class Triangle:
    """One objective over the shares of three experts. Scores and gains are in percent.

    `points` (P, 3) are those of the lattice of order `FINE`, `score` (P,) theirs. `gain` (P,), `low` and `high`: the
    least over the three experts of the gain on one of them, of the lower ends and of the upper ends. `nodes` (K, 3) and
    `sampled` (D, 3) were evaluated. `corners` (3,): the experts' own scores.
    """

    objective: str
    experts: tuple[str, ...]
    points: Array
    score: Array
    gain: Array
    low: Array
    high: Array
    nodes: Array
    sampled: Array

    @property
    def corners(self) -> Array:
        return np.array([self.score[np.argmax(self.points[:, expert])] for expert in range(3)])


def triangles(study: Study) -> list[Triangle]:
    """Return the triangle of the mean, where there is one, and of each benchmark; each in the unit of its curve.

    Raises:
        ValueError: the study is not of three experts.
    """
    if not all(isinstance(one.curve, Surface) for one in study.responses):
        raise ValueError("only three experts have a triangle")
    known = study.relative
    if not known.objectives:
        return [triangle([one], Objective(one.benchmark, (one.curve,))) for one in study.responses]
    mean = known.objectives[0]
    return [
        triangle(known.responses, mean),
        *(
            triangle([one], Objective(one.benchmark, (one.curve,), (parent,)))
            for one, parent in zip(known.responses, known.parents, strict=True)
        ),
    ]


def surface(objective: Objective) -> Array:
    """Return an objective's score in its unit at the points of the lattice of order `FINE`, (P,): mean or minimum."""
    along = objective.refined()
    parts = zip(along.curves, along.measures, strict=True)
    scores = [[unit.ratio(own) for own in curve.hats(lattice(FINE).points) @ curve.values.T] for curve, unit in parts]
    return np.asarray((np.min if along.combine == "minimum" else np.mean)(scores, axis=0))


def triangle(responses: Sequence[Response], objective: Objective) -> Triangle:
    """Return the triangle of one benchmark, or of the mean over several, in the objective's unit."""
    along = objective.refined()
    points = lattice(FINE).points
    items = [curve.values @ curve.hats(points).T for curve in along.curves]
    bends = np.mean(
        [curve.bend_at(points) / unit.size for curve, unit in zip(along.curves, along.measures, strict=True)], axis=0
    )
    masks = [np.array([mask.values @ mask.hats(points).T for mask in one.masks]) for one in responses]
    lost = max(one.unscored / (one.unscored + len(one.curve.ids)) for one in responses)
    corners = [[curve.items_at(expert) for curve in along.curves] for expert in np.eye(3)]
    least = np.empty((len(points), 3))
    for row in range(len(points)):
        values = [own[:, row] for own in items]
        between = [spread(list(own[:, :, row]), one.curve.shape) for own, one in zip(masks, responses, strict=True)]
        others = joint.together(along.in_units(between))
        gains = []
        for corner in corners:
            differences = [own - expert for own, expert in zip(values, corner, strict=True)]
            gain = joint.mean_of(
                differences, along.measures, signed=True, others=others, bias=float(bends[row]), unscored=lost
            )
            gains.append((gain.value, *gain.ends()))
        least[row] = np.array(gains).min(axis=0)
    sampled = objective.curves[0].sampled
    value, low, high = (100 * least[:, column] for column in range(3))
    drawn = np.empty((0, 3)) if sampled is None else sampled.points
    return Triangle(
        objective.name,
        responses[0].experts,
        points,
        100 * surface(objective),
        value,
        low,
        high,
        objective.points,
        drawn,
    )
