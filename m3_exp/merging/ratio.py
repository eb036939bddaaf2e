"""The choice of ratio: lambda, the first expert's share. M3 (arXiv 2502.15434) draws it from Beta(alpha, alpha).

`mixup` draws are independent between alphas and draws, and the same in every method, pair and family, so that
comparisons are paired. `grid` nodes crowd the ends, where small alphas put their mass.
"""

import hashlib
import itertools

from scipy.stats import beta

from m3_exp.types import M3Error


def uniform(*parts: object) -> float:
    """Return the number in (0, 1) that belongs to these parts: the first 64 bits of their sha256, never 0 or 1."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return (int.from_bytes(digest[:8], "big") / 2**64) * (1 - 2**-52) + 2**-54


def mixup(alpha: float, seed: int, draw: int) -> float:
    """Draw lambda ~ Beta(alpha, alpha) as the quantile of a hashed uniform."""
    if not 0 < alpha < float("inf"):
        raise M3Error(f"ratio.alpha={alpha} is not a Beta parameter: give a number above 0 (the paper: 0.2 to 5)")
    return float(beta.ppf(uniform(seed, float(alpha), draw), alpha, alpha))


def fixed(lam: float) -> float:
    if not 0 <= lam <= 1:
        raise M3Error(f"ratio.lam={lam} is outside [0, 1]: lambda is the first expert's share")
    return float(lam)


def grid(nodes: int) -> tuple[float, ...]:
    """Return `nodes` lambdas from 0 to 1, symmetric about 1/2; each larger set contains the smaller.

    3 is 0, 1/2, 1; 5 adds 1/4 and 3/4; 9 adds 1/32, 1/8, 7/8, 31/32; from 17 on every gap is halved.
    """
    if nodes == 3:
        return (0.0, 0.5, 1.0)
    if nodes == 5:
        return (0.0, 0.25, 0.5, 0.75, 1.0)
    points = [0.0, 1 / 32, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8, 31 / 32, 1.0]
    while len(points) < nodes:
        halved = [(low + high) / 2 for low, high in itertools.pairwise(points)]
        points = sorted([*points, *halved])
    if len(points) != nodes:
        raise M3Error(f"ratio.nodes={nodes} is not a size of the nested grids: give 3, 5, 9, 17, 33 or 65")
    return tuple(points)


def mask_seed(seed: int, draw: int) -> int:
    """Return the seed of the draw-th DARE mask: 63 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}/mask/{draw}".encode()).digest()[:8], "big") >> 1
