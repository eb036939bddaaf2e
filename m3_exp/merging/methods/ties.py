"""TIES (arXiv 2306.01708) as in the M3 paper: trim over the WHOLE model, elect a sign, mix what agrees with it.

    tau_i   = delta_i where |delta_i| >= cutoff_i, else 0
    sign    = sign(sum of tau_i); where that is 0, the sign of the sum of all elected signs of the model
    merged  = theta_0 + s * (the weighted mean of the tau_i that have this sign; one that is alone is kept as it is)

Cut-offs and signs never see the weights, so the merge is affine in lambda. Plain is the disjoint mean: equal weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from m3_exp.merging.scan import Cutoffs

LIMITS = {"retain": (0.0, 1.0)}


def ties(
    models: Sequence[Tensor],
    weights: Sequence[float] | None,
    base: Tensor,
    cutoffs: Cutoffs,
    *,
    scaling: float,
    retain: float,
) -> Tensor:
    """Return the merged block (float32, one shape). `retain` is already in the cut-offs."""
    shares = proportions(len(models), weights)
    deltas = [trimmed(model - base, cutoff) for model, cutoff in zip(models, cutoffs.magnitudes, strict=True)]
    elected = elect(deltas, cutoffs.majority)
    kept = [delta * elected > 0 for delta in deltas]
    merged = _pair(deltas, kept, shares) if len(deltas) == 2 else _mean(deltas, kept, shares)
    merged *= scaling
    merged += base
    return merged


def trimmed(delta: Tensor, cutoff: float) -> Tensor:
    """Return the delta with everything below the cut-off in magnitude set to 0; `delta` itself is changed."""
    return delta.masked_fill_(delta.abs() < cutoff, 0.0)


def elect(deltas: Sequence[Tensor], majority: float) -> Tensor:
    """Return the elected sign of each element: that of the sum, or the majority's where the sum is 0."""
    total = deltas[0].clone()
    for delta in deltas[1:]:
        total += delta
    elected = total.sign_()
    return elected.masked_fill_(elected == 0, majority)


def proportions(n: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    """Return weights that sum to 1; equal ones where none are given or their sum is 0."""
    total = sum(weights) if weights else 0.0
    if not weights or abs(total) < 1e-12:
        return (1.0 / n,) * n
    return tuple(weight if abs(total - 1) < 1e-12 else weight / total for weight in weights)


def _pair(deltas: Sequence[Tensor], kept: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Mix two: w_1 tau_1 + w_2 tau_2 where both are kept, else the one that is."""
    mixed = deltas[0] * shares[0]
    mixed += deltas[1] * shares[1]
    alone = torch.where(kept[0], deltas[0], deltas[1] * kept[1])
    return torch.where(kept[0] & kept[1], mixed, alone)


def _mean(deltas: Sequence[Tensor], kept: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Mix any number: the mean over the kept by their weights (plain where these are all 0); one alone as it is."""
    total, weight = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    plain, count = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta, keep, share in zip(deltas, kept, shares, strict=True):
        own = delta * keep
        plain += own
        count += keep
        own *= share
        total += own
        weight += keep * share
    plain /= count.clamp(min=1)
    return torch.where((count > 1) & (weight != 0), total / weight, plain)
