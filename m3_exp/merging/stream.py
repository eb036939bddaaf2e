"""The merged model as a stream of tensors, and everything else that callers of this package need.

    to a model:     s = stream(recipe, store); model.load_weights(s); s.digest, s.report
    to disk:        write([recipe, ...], [directory, ...], store, tokenizer=source)
    before:         check(recipe, store), check_params(method, params), forecast(recipe, store)

Memory is bounded: blocks of fixed size, and a window of finished tensors (128 MiB). No byte depends on block or
threads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from blake3 import blake3

from m3_exp.merging.blend import Blender
from m3_exp.merging.check import Forecast, check, forecast
from m3_exp.merging.checkpoint import content_digest, thread_pool
from m3_exp.merging.device import Device
from m3_exp.merging.layout import Entry, tensor_bytes, torch_dtype
from m3_exp.merging.methods import check_params
from m3_exp.merging.tokens import check_tokens
from m3_exp.merging.write import Written, write
from m3_exp.store import Store
from m3_exp.types import Json, Recipe

if TYPE_CHECKING:
    import torch

__all__ = ["Forecast", "Stream", "Written", "check", "check_params", "forecast", "stream", "write"]

_WINDOW = 128 << 20  # bytes of tensors computed ahead of the reader
_Pending = tuple[str, Entry, "torch.Tensor", list["Future[None]"]]


def stream(
    recipe: Recipe, store: Store, *, threads: int | None = None, block: int | None = None, device: str | None = None
) -> Stream:
    """Merge a recipe as an iterable of (name, tensor), by name, in the recipe's dtype, without a tied head.

    With a `device`, as `cuda`, blocks are made there, the same bytes. Tensors come in the host's memory all the same,
    where their digest is taken; it is pinned then.

    Raises:
        M3Error: the recipe is refused (see `check`), here and not while iterating. Only NaN or Inf in the output
            (float16 overflow) is refused later.
    """
    return Stream(recipe, store, threads, block, device)


class Stream:
    """One pass over the inputs; iterate once. `digest` and `report` are there when it is exhausted."""

    def __init__(
        self, recipe: Recipe, store: Store, threads: int | None, block: int | None, device: str | None
    ) -> None:
        self._started = time.monotonic()
        check_tokens(recipe, store)
        self.job = check(recipe, store)
        self._store, self._threads, self._block = store, threads, block
        self._device = Device(device) if device else None
        self._digests: dict[str, tuple[str, list[int], str]] = {}
        self._report: Json | None = None

    @property
    def digest(self) -> str:
        """The weights digest: equal to that of the same weights on disk."""
        self._require_end()
        return content_digest(self._digests)

    @property
    def report(self) -> Json:
        """Vocabulary rows filled, tensors copied, DARE and TIES shares as measured, seconds."""
        self._require_end()
        return dict(self._report or {})

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        with thread_pool(self._threads) as pool:
            blender = Blender([self.job], self._store, pool, self._block, self._device)
            waiting: deque[_Pending] = deque()
            held = 0
            for name, entry in blender.layouts[0].items():
                waiting.append(self._start(blender, pool, name, entry))
                held += entry.nbytes
                while held > _WINDOW:
                    held -= waiting[0][1].nbytes
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
            self._report = {**blender.report(0), "seconds": time.monotonic() - self._started}

    def _start(self, blender: Blender, pool: ThreadPoolExecutor, name: str, entry: Entry) -> _Pending:
        import torch

        pinned = self._device is not None and self._device.is_gpu
        out = torch.empty(entry.shape, dtype=torch_dtype(entry.dtype), pin_memory=pinned)
        flat = tensor_bytes(out)

        def fill(start: int, stop: int) -> None:
            (made,) = blender.blend(name, start, stop)
            if made is not None:
                flat[start * entry.itemsize : start * entry.itemsize + made.size] = made

        return name, entry, out, [pool.submit(fill, *limits) for limits in blender.blocks(name)]

    def _finish(self, pending: _Pending) -> tuple[str, torch.Tensor]:
        name, entry, out, futures = pending
        for future in futures:
            future.result()
        threads = blake3.AUTO if self._device else 1  # without a device the cores are at work
        digest = blake3(tensor_bytes(out).data, max_threads=threads)
        self._digests[name] = (entry.dtype, list(entry.shape), digest.hexdigest())
        return name, out

    def _require_end(self) -> None:
        if self._report is None:
            raise RuntimeError("a stream has its digest and report only when it was read to its end")
