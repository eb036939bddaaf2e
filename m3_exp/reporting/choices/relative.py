"""The benchmarks of a pair and method whose curves can be put together, and the objectives of their mean and minimum.

Each counts in percent of its better parent (`stats.joint`). `m3 response`, its picture and the page all ask here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from m3_exp.reporting.curves.evaluated import Response
from m3_exp.reporting.curves.places import Place, whole
from m3_exp.stats.estimate import Array
from m3_exp.stats.expectation import Evaluated, place
from m3_exp.stats.joint import ENOUGH, usable
from m3_exp.stats.objective import Objective


@dataclass(frozen=True)
class Relative:
    """Benchmarks with the item values of their better parents, and why the others are left out."""

    responses: tuple[Response, ...]
    parents: tuple[Array, ...]
    notes: tuple[str, ...]

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Return mean and minimum on the nodes that all benchmarks have; none of fewer than two benchmarks."""
        if len(self.responses) < 2:
            return ()
        curves = _on([r.curve for r in self.responses], np.array(shared_nodes(self.responses)))
        return (Objective("mean", curves, self.parents, "mean"), Objective("minimum", curves, self.parents, "minimum"))


def relative(responses: Sequence[Response]) -> Relative:
    """Return the benchmarks that have a parent to be measured by (`usable`)."""
    known: list[tuple[Response, Array]] = []
    notes: list[str] = []
    for response in responses:
        better = response.better_parent()
        parent = usable(better)
        if better is None or parent is None:
            few = f"its better parent is right on fewer than {ENOUGH} items"
            why = "its parents are not evaluated on all its items" if better is None else few
            notes.append(f"{response.benchmark} is not in mean and minimum: {why}")
            continue
        if response.lacking:
            lacking = ", ".join(response.lacking)
            notes.append(f"{response.benchmark} is relative to {better.name}: {lacking} not evaluated")
        known.append((response, parent))
    return Relative(tuple(r for r, _ in known), tuple(parent for _, parent in known), tuple(notes))


def shared_nodes(responses: Sequence[Response]) -> list[Place]:
    """Return the nodes that all benchmarks have, ascending: for three experts, the largest lattice of them."""
    return whole(set.intersection(*(set(map(place, one.curve.points)) for one in responses)))


def _on(curves: Sequence[Evaluated], points: Array) -> tuple[Evaluated, ...]:
    """Return curves on the same nodes, with their sampled points where these are the same as well."""
    drawn = {None if c.sampled is None else tuple(map(place, c.sampled.points)) for c in curves}
    same = len(drawn) == 1 and None not in drawn
    return tuple(replace(c.on_nodes(points), sampled=c.sampled if same else None) for c in curves)
