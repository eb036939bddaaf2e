"""TSV-M, Iso-C and TALL masks against numbers that fusion_bench 0.2.33 (commit 54c9e8c) gave for the same deltas.

They were made with its `compute_and_sum_svd_mem_reduction`, `iso_c` and `generate_task_masks` in float64, from `deltas`
below, and are printed to six decimals. Its package is no dependency, not even of tests.
"""

import math

import pytest
import torch
from torch import Tensor

from tests.test_methods_formulas import merged

TSV_M = [
    [-0.266303, 0.993896, 0.886742, 0.578452], [0.769946, -1.293811, 0.619568, -0.550232],
    [0.221166, -0.714109, 0.501209, 1.633094], [1.397469, 0.363683, -0.945974, 0.306947],
    [-1.200047, -0.352478, -1.09452, 0.415472],
]  # fmt: skip
TSV_M_WEIGHTED = [
    [-0.310288, 0.312877, 0.437042, 0.555551], [0.806821, -0.646904, 0.390145, -0.288282],
    [0.109937, -0.317322, 0.677602, 0.999334], [0.63259, -0.023081, -0.297637, -0.18568],
    [-0.807138, 0.193639, -0.539081, 0.147235],
]  # fmt: skip
ISO_C = [
    [0.002151, 0.664451, 1.312426, 1.828367, 0.327914], [0.417407, -1.340767, 1.750615, -0.735161, -0.19344],
    [-0.508122, -1.362653, -0.585267, 1.157651, -1.347855], [1.989234, 0.546919, -0.13863, 0.10509, -1.152381],
]  # fmt: skip
MASKS = [[3, 3, 2, 2, 3], [3, 2, 2, 1, 3], [3, 2, 3, 2, 2], [2, 3, 3, 3, 3]]  # how many hold, at 0.4


def deltas(n: int, rows: int, columns: int) -> list[Tensor]:
    def element(i: int, r: int, c: int) -> float:
        return math.sin(1 + 5 * i + 3 * r + 7 * c + r * c * (i + 1))

    return [torch.tensor([[element(i, r, c) for c in range(columns)] for r in range(rows)]) for i in range(n)]


def close(found: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("weights", "expected"), [(None, TSV_M), ((0.25, 0.75), TSV_M_WEIGHTED)])
def test_tsv_m(weights: tuple[float, float] | None, expected: list[list[float]]) -> None:
    """A list of alphas there scales the deltas before their SVDs; here weights scale the singular values."""
    close(merged("tsv_m", torch.zeros(5, 4), deltas(2, 5, 4), weights, scaling=1.0), expected)


def test_iso_c() -> None:
    close(merged("iso_c", torch.zeros(4, 5), deltas(3, 4, 5), scaling=1.0), ISO_C)


@pytest.mark.parametrize("agree", [1, 2, 3])
def test_tall_masks(agree: int) -> None:
    three = deltas(3, 4, 5)
    total = three[0] + three[1] + three[2]
    found = merged("consensus", torch.zeros(4, 5), three, scaling=1.0, threshold=0.4, agree=agree)
    close(found, (total * (torch.tensor(MASKS) >= agree)).tolist())
