"""Populations that the printed intervals are tried on: written by hand, and nothing of m3_exp in them.

A population is a curve h(lambda), the true score of a merged model, and items whose answers scatter around it. An
item's latent value is its problem's and its own difficulty, a smooth path along lambda, and a flicker of every merge of
its own; the item is right where the latent value, standard normal at every lambda, lies below ndtri(h(lambda)). So the
true score is h exactly, and what is true of an expectation comes from quadrature.

`DESIGN` is the fixed fractional design: curves x sizes x kinds of items, masks, draws and clusters, each kind of number
where it can go wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
ALPHAS = (0.2, 0.4, 0.5, 1.0, 2.0, 3.0, 5.0)
NODES = (0.0, 1 / 32, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8, 31 / 32, 1.0)
MASK_SD = 0.032  # between DARE masks, as on the paper's models
CURVES: dict[str, Callable[[Array], Array]] = {
    "flat": lambda lam: 0.5 + 0.0 * lam,
    "line": lambda lam: 0.15 + 0.5 * lam,
    "S": lambda lam: 0.08 + 0.66 / (1 + np.exp(-13 * (0.42 - lam))),
    "steep S": lambda lam: 0.06 + 0.68 / (1 + np.exp(-26 * (0.61 - lam))),
    "dip": lambda lam: 0.64 - 0.48 * np.exp(-(((lam - 0.51) / 0.17) ** 2)),
    "peak": lambda lam: 0.32 + 0.38 * np.exp(-(((lam - 0.63) / 0.05) ** 2)),
    "fast end": lambda lam: 0.12 + 0.57 * (1 - np.exp(-lam / 0.014)),
    "low": lambda lam: 0.01 + 0.02 * lam,
    "zero": lambda lam: 0.004 + 0.59 / (1 + np.exp(-55 * (lam - 0.92))),
}
_STRATA = (0.1, 0.2, 0.3, 0.4)  # shares of the items in LiveBench-like tasks, which count the same
_HARDER = (-0.12, -0.04, 0.04, 0.12)  # what an item of each scores above the mean


@dataclass(frozen=True)
class Population:
    """A line of the design. `level` (a single model's score) where there is no curve; `clusters`: items a problem."""

    name: str
    number: str
    curve: str
    n: int
    graded: bool = False
    masks: int = 0
    draws: int = 0
    clusters: int = 1
    variant: str = ""
    level: float = 0.5
    sets: int = 1000

    @property
    def h(self) -> Callable[[Array], Array]:
        return CURVES[self.curve]

    def truth(self, alpha: float) -> float:
        return expectation(self.curve, alpha)


@cache
def expectation(curve: str, alpha: float) -> float:
    """Return E[h(lambda)], lambda ~ Beta(alpha, alpha): Gauss-Legendre in log(lambda), from both ends."""
    x, w = np.polynomial.legendre.leggauss(24)
    edges = np.linspace(0.0, 45.0 / alpha, 901)
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    u = (middle[:, None] + half[:, None] * x).ravel()
    lam = 0.5 * np.exp(-u)
    mass = np.exp(alpha * np.log(lam) + (alpha - 1) * np.log1p(-lam) - special.betaln(alpha, alpha))
    h = CURVES[curve]
    return float(np.sum((half[:, None] * w).ravel() * mass * (h(lam) + h(1 - lam))))


def paths(rng: np.random.Generator, n: int, lams: Array, clusters: int = 1) -> Array:
    """Return the items' latent values without the flicker, of variance 0.85 at each lambda: (n, K).

    The path is a sum of bumps along lambda with normal heights, scaled to one variance everywhere.
    """
    own = rng.standard_normal((n, 1))
    if clusters > 1:
        shared = rng.standard_normal((-(-n // clusters), 1)).repeat(clusters, axis=0)[:n]
        own = np.sqrt(0.75) * shared + np.sqrt(0.25) * own
    bumps = np.exp(-0.5 * ((lams[:, None] - np.linspace(-0.2, 1.2, 8)) / 0.2) ** 2)
    bumps /= np.sqrt((bumps**2).sum(axis=1, keepdims=True))
    return np.sqrt(0.5) * own + np.sqrt(0.35) * rng.standard_normal((n, 8)) @ bumps.T


def answers(rng: np.random.Generator, latent: Array, scores: Array, *, graded: bool = False) -> Array:
    """Return item scores whose true means are `scores`, (K,) or (n, K): 0/1, or a mean of four criteria."""
    limit = special.ndtri(np.broadcast_to(scores, latent.shape))
    whole = latent + np.sqrt(0.15) * rng.standard_normal(latent.shape)
    if not graded:
        return (whole < limit).astype(float)
    found = np.zeros(latent.shape)
    for _ in range(4):
        found += np.sqrt(0.6) * whole + np.sqrt(0.4) * rng.standard_normal(latent.shape) < limit
    return found / 4


def strata(n: int) -> tuple[list[str], Array]:
    """Return each item's task, and by how much it is easier than the mean of tasks: (n,)."""
    ends = np.round(n * np.cumsum(_STRATA)).astype(int)
    which = np.searchsorted(ends, np.arange(n), side="right")
    return [f"task {k}" for k in which], np.array(_HARDER)[which]


def problems(n: int, clusters: int) -> list[str]:
    return [f"problem {i // clusters}" for i in range(n)]


def _design() -> tuple[Population, ...]:
    P = Population
    found = [
        *(P(f"one, {level:g}, n {n}", "score", "", n, level=level) for n in (24, 96, 1319) for level in (0.5, 0.02)),
        P("one graded, n 24", "score", "", 24, graded=True, level=0.85),
        P("one graded, n 164", "score", "", 164, graded=True),
        P("tasks, n 96", "score", "", 96, variant="strata"),
        P("tasks graded, n 872", "score", "", 872, graded=True, variant="strata"),
        P("pairs of a problem, n 96", "score", "", 96, clusters=2),
        P("fours of a problem, n 24", "score", "", 24, clusters=4, level=0.8),
        P("8 of a problem, n 872", "score", "", 872, clusters=8),
        P("10 % lost, n 164", "score", "", 164, variant="lost"),
        P("wrong ones lost, n 164", "score", "", 164, variant="lost wrong"),
        *(P(f"two, n {n}", "paired", "", n) for n in (24, 96, 872, 1319)),
        P("two low, n 96", "paired", "", 96, level=0.03),
        P("two graded, n 24", "paired", "", 24, graded=True),
        P("two graded, n 164", "paired", "", 164, graded=True),
        P("two graded low, n 96", "paired", "", 96, graded=True, level=0.03),
        P("two, tasks, n 96", "paired", "", 96, variant="strata"),
        P("two, fours of a problem, n 24", "paired", "", 24, clusters=4),
        P("two, pairs of a problem, n 164", "paired", "", 164, clusters=2),
        P("two, wrong ones lost, n 164", "paired", "", 164, variant="lost wrong"),
        *(
            P(f"{curve}, n {n}{', graded' if graded else ''}", "E", curve, n, graded=graded)
            for n in (24, 96, 1319)
            for curve, graded in (
                ("line", False), ("S", True), ("dip", False), ("peak", True), ("fast end", False), ("low", False),
                ("zero", False),
            )
        ),
        P("steep S, n 164", "E", "steep S", 164),
        P("dip, n 872, graded", "E", "dip", 872, graded=True),
        P("S, pairs of a problem, n 164", "E", "S", 164, clusters=2),
        P("line, tasks, n 96", "E", "line", 96, variant="strata"),
        *(P(f"nodes: {c}, n {n}", "nodes", c, n) for n in (96, 1319) for c in ("S", "dip", "fast end", "peak")),
        *(P(f"{m} masks, n {n}", "masks", "line", n, masks=m) for n, m in ((1319, 1), (1319, 2), (1319, 3), (96, 4))),
        P("5 masks, graded, n 872", "masks", "dip", 872, graded=True, masks=5),
        *(P(f"{d} draws, n {n}", "draws", c, n, draws=d)
          for n, d, c in ((96, 1, "S"), (1319, 3, "S"), (96, 4, "steep S"), (96, 10, "S"), (1319, 10, "steep S"))),
        *(P(f"PDR {v}, n {n}", "PDR", "", n, variant=v) for n, v in ((24, ".9 .85"), (96, ".6 .01"), (872, ".9 .5"))),
        *(P(f"ways, {c}, n {n}", "ways", c, n, sets=400) for c, n in (("S", 20), ("line", 96), ("dip", 96))),
        P("three alike, n 96", "minimum", "flat", 96, sets=200),
        P("merge as its parents, n 24", "relative", "flat", 24, sets=400),
    ]  # fmt: skip
    names = [one.name for one in found]
    assert len(found) <= 80
    assert len(set(names)) == len(names)
    return tuple(found)


DESIGN = _design()


def named(name: str, **changes: object) -> Population:
    """Return a population of the design, with some of its fields changed."""
    return replace(next(one for one in DESIGN if one.name == name), **changes)  # type: ignore[arg-type]
