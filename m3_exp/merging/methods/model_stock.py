"""Model Stock (arXiv 2403.19522): the average of the experts, drawn toward the base by the angle between them.

cos    = the mean cosine of the angles between every two deltas
merged = t * average + (1 - t) * theta_0,  t = n cos / (1 + (n - 1) cos)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.merging.gram import Matrix, combined, cosine, gram
from m3_exp.merging.plugins import Declares
from m3_exp.types import M3Error

if TYPE_CHECKING:
    from torch import Tensor

_SINGULAR = 1e-6


def point(products: Matrix, weights: None) -> list[float]:
    """Return t / n for each delta, by their inner products."""
    n = len(products)
    if n < 2:
        raise M3Error("model_stock needs two experts at least, there is one: it lives on the angles between them")
    pairs = list(itertools.combinations(range(n), 2))
    cos = math.fsum(cosine(products, i, j) for i, j in pairs) / len(pairs)
    below = 1 + (n - 1) * cos
    t = 0.0 if abs(below) < _SINGULAR else n * cos / below  # opposed experts: no finite estimate, the base stays
    return [t / n] * n


@Declares(granularity="tensor", by_gram=point, weighted=False, affine=False)
def model_stock(deltas: Sequence[Tensor], weights: None, base: Tensor) -> Tensor:
    """Return the base plus t times the mean of the float32 deltas of one tensor."""
    return combined(deltas, point(gram(deltas), weights)) + base
