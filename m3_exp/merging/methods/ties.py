"""TIES (arXiv 2306.01708) as in the M3 paper: trim over the WHOLE model, elect a sign, mix what agrees with it.

    tau_i   = delta_i where |delta_i| >= cutoff_i, else 0
    sign    = sign(sum of tau_i); where that is 0, the sign of the sum of all elected signs of the model
    merged  = theta_0 + s * (the weighted mean of the tau_i that have this sign; one that is alone is kept as it is)

The weights of the tau_i that are kept are divided by their sum (equal weights if all are 0). Cut-offs and signs do not
depend on the weights, so with two experts the merge is affine in lambda. Plain is the disjoint mean: equal weights.

`trim=tensor` keeps the largest elements of each tensor instead, as mergekit does; where the sum is 0 the sign is then
plus. `sign=count` elects the sign of more tau_i, and by their sum where as many are for either. `sign=weighted` elects
that of the sum of w_i tau_i, and keeps the w_i tau_i that have it: mergekit's way, which no longer is affine in the
weights. `combine=sum` adds the kept w_i tau_i up, with the weights as they are (plain: 1) and without dividing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from m3_exp.merging.bits import like
from m3_exp.merging.plugins import Declares, are_shares
from m3_exp.merging.ranks import largest
from m3_exp.merging.scan import Cutoffs

if TYPE_CHECKING:
    from torch import Tensor


def proportions(
    n: int, weights: Sequence[float] | None, *, sign: str = "mass", combine: str = "mean", **_: float | str
) -> tuple[float, ...]:
    """Return weights that sum to 1, equal ones where none are given or their sum is 0; as given where sizes count."""
    total = sum(weights) if weights else 0.0
    if combine == "sum":
        return tuple(weights or (1.0,) * n)
    if sign == "weighted" and weights and (total == 0 or min(weights) < 0):
        return tuple(weights)
    if not weights or abs(total) < 1e-12:
        return (1.0 / n,) * n
    return tuple(weights) if are_shares(weights) else tuple(weight / total for weight in weights)


def granularity(*, trim: str, **_: float | str) -> str:
    return "tensor" if trim == "tensor" else "element"


def scans(*, trim: str, **_: float | str) -> bool:
    return trim == "model"


def affine(*, sign: str, **_: float | str) -> bool:
    return sign != "weighted"


def arrays(*, trim: str, sign: str, combine: str, **_: float | str) -> bool:
    return trim == "model" and sign == "mass" and combine == "mean"


def by_torch(
    deltas: Sequence[Tensor],
    weights: Sequence[float] | None,
    base: Tensor,
    cutoffs: Cutoffs,
    *,
    scaling: float,
    retain: float,
    trim: str = "model",
    sign: str = "mass",
    combine: str = "mean",
) -> Tensor:
    """Return what `ties` does with the cut-offs of the model, of blocks on any torch device."""
    if (sign, combine) != ("mass", "mean"):
        return ties(
            deltas, weights, base, cutoffs, scaling=scaling, retain=retain, trim=trim, sign=sign, combine=combine
        )
    shares = proportions(len(deltas), weights, sign=sign, combine=combine)
    trimmed = [_trimmed(delta, low) for delta, low in zip(deltas, cutoffs.magnitudes, strict=True)]
    mixed = _mixed_two if len(deltas) == 2 else _mixed_many
    return base + scaling * mixed(trimmed, shares, cutoffs.majority)


@Declares(
    affine=affine, granularity=granularity, arrays=arrays, device=scans, by_torch=by_torch, proportions=proportions,
    limits={"retain": (0.0, 1.0)}, scans=scans,
    choices={"trim": ("model", "tensor"), "sign": ("mass", "count", "weighted"), "combine": ("mean", "sum")},
)  # fmt: skip
def ties(
    deltas: Sequence[Tensor],
    weights: Sequence[float] | None,
    base: Tensor,
    cutoffs: Cutoffs | None,
    *,
    scaling: float,
    retain: float,
    trim: str = "model",
    sign: str = "mass",
    combine: str = "mean",
) -> Tensor:
    """Return the merged block (float32, one shape). With `trim=model` `retain` is already in the cut-offs.

    Arrays in place of tensors are taken where nothing is ranked and no sign counted (`arrays`).
    """
    shares = proportions(len(deltas), weights, sign=sign, combine=combine)
    lows, majority = [0.0] * len(deltas), 1.0
    if trim == "tensor":
        deltas = [delta * largest(delta, max(1, int(retain * delta.numel()))) for delta in deltas]
    elif cutoffs is not None:
        lows, majority = list(cutoffs.magnitudes), cutoffs.majority
    if (sign, combine) == ("mass", "mean"):
        return _by_mass(deltas, shares, base, lows, majority, scaling)
    trimmed = [_trimmed(delta, low) for delta, low in zip(deltas, lows, strict=True)]
    votes = [delta * share for delta, share in zip(trimmed, shares, strict=True)] if sign == "weighted" else trimmed
    elected = _elected(votes, majority, by_count=sign == "count")
    agree = [vote * elected > 0 for vote in votes]
    return base + scaling * _combined(trimmed, shares, agree, sign, combine)


def _by_mass(
    deltas: Sequence[Tensor],
    shares: Sequence[float],
    base: Tensor,
    lows: Sequence[float],
    majority: float,
    scaling: float,
) -> Tensor:
    from m3_exp.merging import kernels

    parts, cutoffs = np.array(shares, np.float32), np.array(lows, np.float32)
    signs_and_scale = np.float32(majority), np.float32(scaling)
    flat, *blocks = (np.asarray(one).reshape(-1) for one in (base, *deltas))
    merged = np.empty_like(flat)
    if len(blocks) == 2:
        kernels.ties_two(blocks[0], blocks[1], flat, cutoffs, parts, *signs_and_scale, merged)
    else:
        kernels.ties_many(tuple(blocks), flat, cutoffs, parts, *signs_and_scale, merged)
    return like(merged, base)


def _mixed_two(trimmed: Sequence[Tensor], shares: Sequence[float], majority: float) -> Tensor:
    """Return what `kernels.ties_two` adds to the base, before scaling."""
    import torch

    one, two = trimmed
    elected = _sign(one + two, majority)
    has_one, has_two = one * elected > 0, two * elected > 0
    alone = torch.where(has_one, one, torch.where(has_two, two, 0.0))
    return torch.where(has_one & has_two, one * shares[0] + two * shares[1], alone)


def _mixed_many(trimmed: Sequence[Tensor], shares: Sequence[float], majority: float) -> Tensor:
    """Return what `kernels.ties_many` adds to the base, before scaling."""
    import torch

    total, plain, mixed, share, count = (torch.zeros_like(trimmed[0]) for _ in range(5))
    for delta in trimmed:
        total += delta
    elected = _sign(total, majority)
    for delta, part in zip(trimmed, shares, strict=True):
        agrees = delta * elected > 0
        kept = torch.where(agrees, delta, 0.0)
        plain += kept
        mixed += kept * part
        share += agrees.to(delta.dtype) * part
        count += agrees
    mean = plain / count.clamp(min=1)
    whole = (count == len(trimmed)) | (share == 0)
    return torch.where((count <= 1) | (share == 0), mean, mixed / torch.where(whole, 1.0, share))


def _sign(total: Tensor, majority: float) -> Tensor:
    """Return 1 or -1 for each element, as float32; `majority` where the total is 0."""
    import torch

    return torch.where(total > 0, 1.0, torch.where(total < 0, -1.0, torch.full_like(total, majority)))


def _trimmed(delta: Tensor, low: float) -> Tensor:
    import torch

    return torch.where(delta.abs() >= low, delta, 0.0)


def _elected(votes: Sequence[Tensor], majority: float, by_count: bool) -> Tensor:
    """Return 1 or -1 for each element: the sign of the votes' sum, or of more of them; `majority` where that is 0."""
    import torch

    count, mass = (torch.zeros_like(votes[0]) for _ in range(2))
    for vote in votes:
        count += vote.sign()
        mass += vote
    by_mass = torch.where(mass != 0, mass.sign(), majority)
    return torch.where(count != 0, count.sign(), by_mass) if by_count else by_mass


def _combined(
    trimmed: Sequence[Tensor], shares: Sequence[float], agree: Sequence[Tensor], sign: str, combine: str
) -> Tensor:
    """Return the weighted sum of the trimmed deltas that agree, or their mean by the weights."""
    import torch

    mixed, share, plain, kept = (torch.zeros_like(trimmed[0]) for _ in range(4))
    for delta, part, agrees in zip(trimmed, shares, agree, strict=True):
        mixed += delta * agrees * part
        share += agrees * part
        plain += delta * agrees
        kept += agrees
    if combine == "sum":
        return mixed
    weighted = mixed / torch.where(share == 0, 1.0, share)
    if sign == "weighted":
        return weighted
    return torch.where((share == 0) | (kept <= 1), plain / kept.clamp(min=1), weighted)
