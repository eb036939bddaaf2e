"""Floats as files hold them, without torch: widened to float32, rounded back, looked through for NaN and Inf.

A dtype is named as safetensors writes it, as in `BF16`. What torch makes of the same bits is the same, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]
# The bits of an exponent that is all ones, which NaN and Inf have, in a word of the dtype's size.
_EXPONENTS: dict[str, np.uint16 | np.uint32 | np.uint64] = {
    "BF16": np.uint16(0x7F80),
    "F16": np.uint16(0x7C00),
    "F32": np.uint32(0x7F800000),
    "F64": np.uint64(0x7FF0000000000000),
}


def widened(raw: Bytes, dtype: str) -> Floats:
    """Return stored floats as float32, a view where they are float32 already: do not write to it."""
    if dtype == "F32":
        return raw.view(np.float32)
    if dtype == "F64":
        with np.errstate(over="ignore"):
            return raw.view(np.float64).astype(np.float32)
    from m3_exp.merging.kernels import widen_brain, widen_half

    words = raw.view(np.uint16)
    values = np.empty(words.size, np.float32)
    (widen_half if dtype == "F16" else widen_brain)(words, values)
    return values


def rounded(values: Floats, dtype: str) -> Bytes:
    """Return flat, contiguous float32 values as BF16, F16 or F32, rounded to nearest even."""
    if dtype == "F32":
        return values.view(np.uint8)
    from m3_exp.merging.kernels import round_brain, round_half

    words = np.empty(values.size, np.uint16)
    (round_half if dtype == "F16" else round_brain)(values.view(np.uint32), words)
    return words.view(np.uint8)


def is_finite(raw: Bytes, dtype: str) -> bool:
    """Tell whether stored numbers hold no NaN and no Inf (integers never do)."""
    if dtype not in _EXPONENTS:
        return True
    from m3_exp.merging.kernels import has_none

    exponent = _EXPONENTS[dtype]
    return bool(has_none(raw.view(exponent.dtype), exponent))


def passed(block: Floats, as_array: bool) -> Floats | Tensor:
    """Return a block as a function takes it: the array, or a tensor of the same memory."""
    if as_array:
        return block
    import torch

    return torch.from_numpy(block)


def like(values: Floats, given: Tensor) -> Tensor:
    """Return flat values as what is given, a tensor or an array, and in its shape; not copied."""
    shaped = values.reshape(given.shape)
    if isinstance(given, np.ndarray):
        return shaped
    import torch

    return torch.from_numpy(shaped)
