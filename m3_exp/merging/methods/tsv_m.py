"""TSV-M (arXiv 2412.00081): each expert's leading singular vectors, made orthogonal to those of the others.

    delta_i  = U_i S_i V_i^T, of which the first 1/n of the singular values are kept
    merged   = theta_0 + s * P(U) S P(V)^T,  U = [U_1 ... U_n], V likewise, S with w_i S_i; plain is w = 1

P(U) is the nearest matrix with orthonormal columns. Of tensors that are no matrices: s times the mean of w_i delta_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.gram import combined
from m3_exp.merging.plugins import Declares
from m3_exp.merging.singular import Decomposed, decomposed, leading, orthonormal

if TYPE_CHECKING:
    from torch import Tensor


@Declares(granularity="tensor", choices={"svd": ("full", "lowrank")})
def tsv_m(
    deltas: Sequence[Tensor], weights: Sequence[float] | None, base: Tensor, *, scaling: float, svd: str = "full"
) -> Tensor:
    """Return the base plus the scaled sum of float32 deltas, without the interference of their singular vectors."""
    import torch

    n = len(deltas)
    shares = weights or (1.0,) * n
    if base.ndim != 2:
        return base + scaling * combined(deltas, [share / n for share in shares])
    kept = min(base.shape) // n
    parts: list[Decomposed] = [leading(d, kept) if svd == "lowrank" else decomposed(d).first(kept) for d in deltas]
    if not any(len(part.s) for part in parts):
        return base.clone()
    values = torch.cat([part.s * share for part, share in zip(parts, shares, strict=True)])
    u, v = (orthonormal(torch.cat([getattr(part, side) for part in parts], dim=1)) for side in ("u", "v"))
    return base + scaling * ((u * values) @ v.T)
