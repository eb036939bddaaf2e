"""Populations over the simplex whose truth is known, and frames of merges of three experts and more."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from m3_exp.merging import simplex as shares
from m3_exp.stats.estimate import Array
from m3_exp.stats.expectation import Evaluated, Sampled
from m3_exp.stats.fitted import Fitted
from m3_exp.stats.simplex import Surface
from tests.curved import framed, names, tidy_row

EXPERTS = ("code", "lm", "math", "medicine", "law", "chat", "vision", "speech")
Height = Callable[[Array], Array]


def hill(at: Array) -> Array:
    """A score that is best where the experts are mixed, and falls towards each of them in its own way."""
    best = np.full(at.shape[1], 1 / at.shape[1])
    best[0] += 0.1
    best /= best.sum()
    slope = np.linspace(0.0, 0.3, at.shape[1])
    return np.asarray(0.2 + at @ slope + 0.35 * np.exp(-((at - best) ** 2).sum(axis=1) / 0.12))


def rim(at: Array) -> Array:
    """A score that falls fast at the edges: the hardest for a coarse lattice."""
    return np.asarray(0.15 + 0.5 * (1 - np.exp(-at.min(axis=1) / 0.04)))


def tilt(at: Array) -> Array:
    """A plane."""
    return np.asarray(0.2 + at @ np.linspace(0.0, 0.5, at.shape[1]))


def answers(height: Height, at: Array, n: int, rng: np.random.Generator) -> Array:
    """Return 0/1 scores (n, K) of n items at points (K, N); their means are the height."""
    centres = rng.dirichlet([0.7] * at.shape[1], 12)
    bumps = np.exp(-((at[:, None] - centres) ** 2).sum(axis=2) / 0.15)
    bumps /= np.sqrt((bumps**2).sum(axis=1, keepdims=True))
    latent = np.sqrt(0.5) * rng.standard_normal((n, 1)) + np.sqrt(0.35) * rng.standard_normal((n, 12)) @ bumps.T
    latent = latent + np.sqrt(0.15) * rng.standard_normal(latent.shape)
    return (latent < special.ndtri(np.clip(height(at), 1e-6, 1 - 1e-6))).astype(float)


def surface(height: Height, n: int, rng: np.random.Generator, *, nodes: int = 15, sampled: int = 16, seed: int = 0,
            experts: int = 3) -> Evaluated:  # fmt: skip
    """Return n items' surface on planned nodes and sampled points."""
    at = np.array(sorted(shares.grid(experts, nodes, seed)))
    beside = np.array(shares.sampled(experts, seed, sampled)) if sampled else np.empty((0, experts))
    values = answers(height, np.concatenate([at, beside]), n, rng)
    own = Sampled(beside, values[:, len(at) :]) if sampled else None
    made = Surface if experts == 3 else Fitted
    return made(names(n), at, values[:, : len(at)], own)


def frame(
    heights: dict[str, Height], n: int = 60, *, experts: int = 3, nodes: int = 15, sampled: int = 16, draws: int = 0,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Return a frame of one pair of experts: singles, plain, a grid with sampled points, and draws at alpha 1."""
    lines: list[dict[str, Any]] = []
    rng = np.random.default_rng(seed)
    own = EXPERTS[:experts]
    grid = shares.grid(experts, nodes, 0)
    more = shares.sampled(experts, 0, sampled) if sampled else []
    drawn = [shares.mixup(experts, 1.0, 1, k) for k in range(draws)]
    every = np.array([*grid, *more, *drawn, (1 / experts,) * experts])
    for benchmark, height in heights.items():
        values = answers(height, every, n, rng).T
        kinds = [*["grid"] * len(grid), *["sampled"] * len(more), *["mixup"] * draws, "plain"]
        for k, (at, kind, items) in enumerate(zip(every, kinds, values, strict=True)):
            number = k - len(grid) if kind == "sampled" else k - len(grid) - len(more) if kind == "mixup" else None
            facts = {"draw": number, "alpha": 1.0 if kind == "mixup" else None}
            lines.append(_line(items, at, own, benchmark, kind, **facts))
            if kind == "grid" and at.max() == 1:
                name = own[int(np.argmax(at))]
                lines.append(_line(items, (), own, benchmark, "plain", pair=name, method="single", weights=f"w {name}"))
    return framed(lines)


def _line(items: Array, at: Sequence[float] | Array, experts: Sequence[str], benchmark: str, ratio: str, **more: Any
          ) -> dict[str, Any]:  # fmt: skip
    point = tuple(map(float, at)) if ratio != "plain" else ()
    text = " + ".join(f"{share:.4g} {name}" for share, name in zip(point, experts, strict=False) if share)
    weights = f"{ratio} {text}"
    return tidy_row(
        [float(v) for v in items],
        **{"pair": "three", "benchmark": benchmark, "ratio": ratio, "point": point, "mixture": text, "tokenizer": "lm",
           "evaluator": f"{benchmark} 1", "weights": weights, "merge": weights, "label": weights,
           "cell": f"{benchmark} {weights}", **more},
    )  # fmt: skip
