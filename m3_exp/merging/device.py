"""A torch device on which blocks are made: stored bytes go there in blocks, and the bytes of the merge come back.

No bit depends on the device. Every step there is an operation of its own that IEEE 754 rounds in one way: widening,
+, -, *, / and comparisons of elements, integers, rounding to nearest even. What is added up in an order of the device's
(norms, inner products, singular values), and sines, are left to the CPU: `plugins.Declares.device` says what is not.

Some operations of torch are no such step on a GPU: `add(alpha=)` and `addcmul` are fused multiply-adds, a division by a
number is a product with its reciprocal. Divide by a tensor of the device (`scalar`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from m3_exp.merging.bits import Bytes
from m3_exp.merging.layout import torch_dtype
from m3_exp.types import M3Error

if TYPE_CHECKING:
    import torch

DEVICE_BLOCK = 1 << 22  # elements: copies of megabytes, and few launches
_WORD = 1 << 64


class Device:
    """A torch device: `cuda`, `cuda:1`; `cpu` does the same by torch on the CPU, for tests. Threads may share it.

    Raises:
        M3Error: this machine has no such device.
    """

    def __init__(self, name: str) -> None:
        import torch

        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise M3Error(f"device={name} is not on this machine: cpu is, or cuda where torch finds a GPU") from error
        if device.type not in ("cpu", "cuda"):
            raise M3Error(f"device={name} is not served: cuda or cpu is allowed")
        self.is_gpu = device.type == "cuda"
        self.device = torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else device
        self._local = threading.local()

    def __str__(self) -> str:
        if not self.is_gpu:
            return "cpu, by torch"
        import torch

        return f"{self.device} ({torch.cuda.get_device_name(self.device)})"

    @contextlib.contextmanager
    def in_line(self) -> Iterator[None]:
        """Let what this thread asks of the device run in a line of its own, beside that of other threads.

        A tensor made in one line must not be used in another.
        """
        if not self.is_gpu:
            yield
            return
        import torch

        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        try:
            with torch.cuda.stream(self._local.stream):
                yield
        except torch.cuda.OutOfMemoryError as error:
            raise M3Error(f"device={self.device} has too little free memory for a merge: merge on the CPU") from error

    def floats(self, raw: Bytes, dtype: str) -> torch.Tensor:
        """Return stored floats as float32 on the device, flat; `raw` may be changed as soon as this returns."""
        import torch

        staged = torch.empty(raw.size, dtype=torch.uint8, pin_memory=self.is_gpu)
        np.copyto(staged.numpy(), raw)
        return staged.to(self.device, non_blocking=True).view(torch_dtype(dtype)).to(torch.float32)

    def rounded(self, values: torch.Tensor, dtype: str) -> torch.Tensor | None:
        """Return float32 values in a dtype of safetensors, rounded to nearest even, flat; None if one is NaN or Inf."""
        import torch

        rounded = values.reshape(-1).to(torch_dtype(dtype))
        return rounded if bool(torch.isfinite(rounded).all()) else None

    def fetched(self, stored: torch.Tensor) -> Bytes:
        """Return the bytes of a flat tensor of the device."""
        import torch

        raw = stored.contiguous().view(torch.uint8)
        out = torch.empty(raw.numel(), dtype=torch.uint8, pin_memory=self.is_gpu)
        out.copy_(raw, non_blocking=True)
        if self.is_gpu:
            torch.cuda.current_stream(self.device).synchronize()
        data: Bytes = out.numpy()
        return data


def scalar(value: float, like: torch.Tensor) -> torch.Tensor:
    """Return a number as a tensor of the dtype and device of another, to divide by: see above."""
    import torch

    return torch.full((), value, dtype=like.dtype, device=like.device)


def draws(key: int, start: int, count: int, device: torch.device) -> torch.Tensor:
    """Return the numbers of `kernels.draw`, below 2^32, as int64: products and sums of int64 wrap, as unsigned ones do.

    An arithmetic shift to the right brings copies of the sign, which are masked away.
    """
    import torch

    z = torch.arange(start + 1, start + count + 1, dtype=torch.int64, device=device)
    z = z * _signed(0x9E3779B97F4A7C15) + _signed(key)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(z ^ _shifted(z, 31), 32)


def _shifted(words: torch.Tensor, places: int) -> torch.Tensor:
    return (words >> places) & ((1 << (64 - places)) - 1)


def _signed(word: int) -> int:
    """Return an unsigned word of 64 bits as the int64 that has its bits."""
    return word - _WORD if word >= _WORD >> 1 else word
