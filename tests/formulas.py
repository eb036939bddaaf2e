"""Each merge method as a plain formula in float64, tensor by tensor: the truth that tests hold the package against.

Nothing of m3 is imported here. `experts` and `base` are tensors of one shape, `deltas` the experts minus the base.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Weights = Sequence[float]
Model = Mapping[str, Tensor]


def cosine(one: Tensor, other: Tensor) -> float:
    length = float(one.norm() * other.norm())
    return max(-1.0, min(1.0, float((one * other).sum()) / length)) if length else 0.0


def angle(one: Tensor, other: Tensor) -> float:
    return math.acos(cosine(one, other))


def arc(one: Tensor, other: Tensor, lam: float, threshold: float = 1 - 1e-12) -> Tensor:
    """Return the point on the arc from `other` to `one`; on the line where |cos(angle)| is above `threshold`."""
    if abs(cosine(one, other)) > threshold:
        return lam * one + (1 - lam) * other
    theta = angle(one, other)
    return (math.sin(lam * theta) * one + math.sin((1 - lam) * theta) * other) / math.sin(theta)


def total(tensors: Sequence[Tensor], weights: Weights) -> Tensor:
    return torch.stack([weight * tensor for weight, tensor in zip(weights, tensors, strict=True)]).sum(0)


def karcher(tensors: Sequence[Tensor], shares: Weights, steps: int = 30) -> Tensor:
    """Return the Karcher mean by steps on the tensors themselves; of tensors that are all 0 it is 0."""
    if not any(bool(tensor.any()) for tensor in tensors):
        return torch.zeros_like(tensors[0])
    units = [tensor / tensor.norm() for tensor in tensors]
    mean = total(units, shares)
    mean = mean / mean.norm()
    for _ in range(steps):
        tangent = torch.zeros_like(mean)
        for share, unit in zip(shares, units, strict=True):
            theta = angle(mean, unit)
            if theta > 1e-7:
                tangent += share * theta / math.sin(theta) * (unit - math.cos(theta) * mean)
        if float(tangent.norm()) < 1e-12:
            break
        mean = math.cos(tangent.norm()) * mean + math.sin(tangent.norm()) * tangent / tangent.norm()
    return mean * sum(share * float(tensor.norm()) for share, tensor in zip(shares, tensors, strict=True))


def model_stock(base: Tensor, deltas: Sequence[Tensor]) -> Tensor:
    n, pairs = len(deltas), list(itertools.combinations(deltas, 2))
    cos = sum(cosine(one, other) for one, other in pairs) / len(pairs)
    t = n * cos / (1 + (n - 1) * cos) if abs(1 + (n - 1) * cos) > 1e-6 else 0.0
    return base + t * total(deltas, [1 / n] * n)


def sce(base: Tensor, deltas: Sequence[Tensor], density: float) -> Tensor:
    stack = torch.stack(list(deltas))
    spread = stack.var(0, correction=0)
    count = int(density * int((spread > 0).sum()))
    chosen = torch.zeros(spread.numel(), dtype=torch.bool)
    chosen[spread.flatten().argsort(descending=True, stable=True)[:count]] = True
    stack = stack * (chosen.view(spread.shape) if density < 1 else 1)
    energy = stack.square().reshape(len(deltas), -1).sum(1)
    share = (energy / energy.sum()).nan_to_num().view(-1, *[1] * base.ndim)
    agrees = stack.sign() == torch.where(stack.sum(0) >= 0, 1.0, -1.0)
    below = (share * agrees).sum(0)
    return base + (share * agrees * stack).sum(0) / torch.where(below > 0, below, 1.0)


def consensus(
    base: Tensor, deltas: Sequence[Tensor], weights: Weights, scaling: float, threshold: float, agree: int
) -> Tensor:
    stack = torch.stack(list(deltas))
    kept = (stack.abs() > threshold * (stack.sum(0) - stack).abs()).sum(0) >= agree
    return base + scaling * kept * total(deltas, weights)


def nearswap(base: Tensor, deltas: Sequence[Tensor], weights: Weights, reach: float) -> Tensor:
    near = [delta.sign() * torch.minimum(delta.abs(), torch.tensor(reach)) for delta in deltas]
    return base + total(near, weights)


def polar(matrix: Tensor) -> Tensor:
    """Return the nearest matrix with orthonormal columns, by the eigenvectors of its square."""
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)
    return matrix @ vectors @ torch.diag(values.rsqrt()) @ vectors.T


def tsv_m(base: Tensor, deltas: Sequence[Tensor], weights: Weights, scaling: float) -> Tensor:
    n = len(deltas)
    if base.ndim != 2:
        return base + scaling * total(deltas, weights) / n
    kept = min(base.shape) // n
    parts = [torch.linalg.svd(delta, full_matrices=False) for delta in deltas]
    values = torch.cat([weight * part.S[:kept] for weight, part in zip(weights, parts, strict=True)])
    u = polar(torch.cat([part.U[:, :kept] for part in parts], dim=1))
    v = polar(torch.cat([part.Vh[:kept].T for part in parts], dim=1))
    return base + scaling * u @ torch.diag(values) @ v.T


def iso_c(base: Tensor, deltas: Sequence[Tensor], scaling: float) -> Tensor:
    n = len(deltas)
    if base.ndim != 2:
        return base + scaling * total(deltas, [1 / n] * n)
    summed = total(deltas, [1.0] * n)
    tall = summed if base.shape[0] >= base.shape[1] else summed.T
    even = float(torch.linalg.svdvals(summed).mean()) * polar(tall)
    return base + scaling * (even if base.shape[0] >= base.shape[1] else even.T)


def cut_offs(deltas: Sequence[Model], retain: float) -> list[float]:
    """Return of each expert the k-th smallest magnitude of its whole model, k = int(n (1 - retain)); 0 where k is 0."""
    cuts = []
    for delta in deltas:
        sizes = torch.cat([value.flatten().abs() for value in delta.values()])
        k = int(sizes.numel() * (1 - retain))
        cuts.append(float(sizes.sort().values[k - 1]) if k else 0.0)
    return cuts


def ties(base: Model, deltas: Sequence[Model], weights: Weights, retain: float, scaling: float) -> dict[str, Tensor]:
    """Return TIES of whole models: trimmed over the model, of a sum of 0 the sign of the sum of all signs."""
    cuts = cut_offs(deltas, retain)
    trimmed = {
        name: torch.stack([d[name] * (d[name].abs() >= cut) for d, cut in zip(deltas, cuts, strict=True)])
        for name in base
    }
    majority = 1.0 if sum(float(stack.sum(0).sign().sum()) for stack in trimmed.values()) >= 0 else -1.0
    out = {}
    for name, stack in trimmed.items():
        mass = stack.sum(0)
        agrees = stack * torch.where(mass == 0, majority, mass.sign()) > 0
        share = torch.tensor(weights, dtype=stack.dtype).view(-1, *[1] * base[name].ndim) * agrees
        below = share.sum(0)
        out[name] = base[name] + scaling * (share * stack).sum(0) / torch.where(below == 0, 1.0, below)
    return out
