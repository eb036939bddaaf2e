"""Iso-C (arXiv 2502.04959): the sum of all deltas with its singular values made equal.

    sum of delta_i = U S V^T;  merged = theta_0 + s * mean(S) U V^T

Of tensors that are no matrices: theta_0 + s times the mean of the deltas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.gram import combined
from m3_exp.merging.plugins import Declares
from m3_exp.merging.singular import decomposed

if TYPE_CHECKING:
    from torch import Tensor


@Declares(granularity="tensor", weighted=False, affine=False)
def iso_c(deltas: Sequence[Tensor], weights: None, base: Tensor, *, scaling: float) -> Tensor:
    """Return the base plus the scaled, isotropic sum of the float32 deltas of one tensor."""
    n = len(deltas)
    if base.ndim != 2:
        return base + scaling * combined(deltas, [1 / n] * n)
    total = decomposed(combined(deltas, [1.0] * n))
    if not len(total.s):
        return base.clone()
    return base + scaling * float(total.s.mean()) * (total.u @ total.v.T)
