"""Where a merge lies: lambda of two experts, the shares of more; and what a curve or surface can go through."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd

from m3_exp.stats.estimate import Array
from m3_exp.stats.expectation import place
from m3_exp.stats.simplex import fixed_points, lattice

ORDERS = (16, 8, 4, 2, 1)  # of the lattices of three experts
Place = float | tuple[float, ...]  # of a merge: lambda of two experts, the shares of more


def places(rows: pd.DataFrame) -> list[Place]:
    """Return where the merges of some rows lie; NaN for those without shares of a whole."""
    points = rows["point"] if "point" in rows else [()] * len(rows)
    shares = (point if isinstance(point, tuple) and len(point) > 2 else () for point in points)
    return [own or float("nan" if lam is None else lam) for own, lam in zip(shares, rows["lam"], strict=True)]


def free(at: Place) -> bool:
    """Tell whether other cells evaluate a node as well: the experts alone, and average's plain."""
    if isinstance(at, tuple):
        return max(at) == 1 or max(at) - min(at) < 1e-12
    return at in (0.0, 0.5, 1.0)


def is_expert(at: Place) -> bool:
    """Tell whether a merge is one of its experts."""
    return max(at) == 1 if isinstance(at, tuple) else at in (0.0, 1.0)


def said(at: Place) -> str:
    """Write where a merge lies: `0.25`, or `0.2:0.3:0.5`."""
    return ":".join(f"{share:.3g}" for share in at) if isinstance(at, tuple) else f"{at:g}"


def in_order(places: Iterable[Place]) -> list[Place]:
    """Return the places of one pair in ascending order: all are lambdas, or all are shares."""
    return sorted(places, key=lambda at: at if isinstance(at, tuple) else (at,))


def whole(nodes: Collection[Place]) -> list[Place]:
    """Return the nodes that a curve or surface can go through, ascending; none where too few are there.

    Two experts: all, if both ends are among them. Three: the largest lattice. More: all, if each expert alone and each
    two by halves are among them.
    """
    experts = len(next((at for at in nodes if isinstance(at, tuple)), (0, 0)))
    if experts == 2:
        return in_order(nodes) if {0.0, 1.0} <= set(nodes) else []
    if experts == 3:
        lattices = (list(map(place, lattice(order).points)) for order in ORDERS)
        return next((known for known in lattices if set(known) <= set(nodes)), [])
    least = set(map(place, fixed_points(experts, len(nodes) + experts**2)[1:]))
    return in_order(nodes) if least <= set(nodes) else []


def named(at: float | Array, experts: Sequence[str]) -> str:
    """Write a merge by the names of its experts, as in `0.2 lm + 0.3 math + 0.5 code`; of two, lambda: `0.25`."""
    if not isinstance(at, np.ndarray) or not at.ndim:
        return f"{float(at):.3g}"
    known = experts if len(experts) == len(at) else [f"expert {k + 1}" for k in range(len(at))]
    return " + ".join(f"{share:.3g} {name}" for share, name in zip(at, known, strict=True) if share)
