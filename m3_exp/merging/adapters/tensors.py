"""The tensors of a base with an adapter merged in: those that it changes are read as float32.

Products are summed over the rank in a fixed order and DoRA's lengths over whole rows and columns once, so that no bit
depends on how a reader cuts its blocks; memory is a block, the factors of one layer and one length for each row.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3_exp.merging.adapters.changes import changes_of
from m3_exp.merging.adapters.config import read_config
from m3_exp.merging.adapters.draft import Base, Change, Draft, Product
from m3_exp.merging.bits import Bytes
from m3_exp.merging.layout import Entry, SafetensorsFile, TorchFile, tensor_bytes
from m3_exp.reading.files import exists
from m3_exp.types import Json, M3Error, plain

if TYPE_CHECKING:
    import torch

_CHUNK = 1 << 20  # elements read at once for DoRA's lengths
_KEPT = 8  # layers whose factors are kept as float32


def adapt(folder: Path, base: Base) -> Adapted:
    """Open the adapter of a directory on a base; only headers are read, and the whole of what a tied base may untie.

    Raises:
        M3Error: it is no LoRA adapter of peft's, or not one of this base; in one line, which field or tensor is wrong.
    """
    config = read_config(folder)
    safe, pickled = folder / "adapter_model.safetensors", folder / "adapter_model.bin"
    if not exists(safe) and not exists(pickled):
        raise M3Error(f"{folder} holds no adapter_model.safetensors: give a directory that peft has written")
    files = SafetensorsFile(safe) if exists(safe) else TorchFile(pickled)
    return Adapted(changes_of(folder, config, files, base))


class Adapted:
    """A base with an adapter merged in. `files` are the adapter's own tensors, `tied` says whether its head is its
    embedding, `notes` are lines to show, `settings` is what beside the two files determines the weights.
    """

    def __init__(self, draft: Draft) -> None:
        self.folder, self.config, self.files = draft.folder, draft.config, draft.tensors
        self.tied, self.notes = draft.tied, draft.notes
        self._base, self._changes = draft.base, draft.changes
        self._factors = lru_cache(_KEPT)(self._read_factors)
        self._lengths: dict[str, torch.Tensor] = {}
        self._locks = {name: threading.Lock() for name, change in self._changes.items() if change.magnitude}

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        made = {name: Entry(change.shape, self._dtype(change)) for name, change in self._changes.items()}
        return {**self._base.tensors.entries, **made}

    @property
    def parts(self) -> Mapping[Path, list[str]]:
        return self.files.parts

    @property
    def settings(self) -> Json:
        """The scale of each plain pair, all there is to say of most adapters, and every other change in full."""
        said: Json = {} if self.tied == self._base.tied else {"untied": True}
        for name, change in sorted(self._changes.items()):
            first = change.products[0] if change.products else None
            if first and change == Change(change.shape, products=(Product(first.a, first.b, first.scale),)):
                said[name] = first.scale
            elif change != Change(change.shape, whole=change.whole):
                said[name] = plain(change)
        return said

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        change = self._changes.get(name)
        if change is None:
            return self._base.tensors.read(name, start, stop)
        if change.is_copy:
            return self._under(name, change, start, stop)
        block = self._adapted(name, change, start, stop)
        if change.magnitude:
            block *= self._ratios(name, change, start, stop)
        if change.bias:
            block += self.files.read(change.bias, start, stop).float() * change.bias_scale
        if change.tokens:
            self._replace_rows(block, change, start)
        return block

    def stored(self, name: str, start: int, stop: int) -> Bytes:
        return tensor_bytes(self.read(name, start, stop))

    def _dtype(self, change: Change) -> str:
        if not change.is_copy:
            return "F32"
        return (self.files.entries[change.whole] if change.whole else self._base.entry(change.source)).dtype

    def _under(self, name: str, change: Change, start: int, stop: int) -> torch.Tensor:
        if change.whole:
            return self.files.read(change.whole, start, stop)
        return self._base.tensors.read(change.source or name, start, stop)

    def _adapted(self, name: str, change: Change, start: int, stop: int) -> torch.Tensor:
        """Return W + scale * B @ A as a block of its own."""
        import torch

        block = self._under(name, change, start, stop).to(torch.float32, copy=True)
        for product in change.products:
            from m3_exp.merging import kernels

            b, a = self._factors(product)
            kernels.add_product(block.numpy(), start, b.numpy(), a.numpy(), np.float32(product.scale))
        return block

    def _read_factors(self, product: Product) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (experts, rows, r) and (experts, r, columns) factors, whose products are what a tensor stores."""
        b, a = self._whole(product.b), self._whole(product.a)
        if product.experts:
            a = a.view(product.experts, -1, a.shape[1])
            b = b.view(b.shape[0], -1, product.experts).permute(2, 0, 1)
        else:
            a, b = a[None], b[None]
        if product.expert is not None:
            a, b = a[product.expert : product.expert + 1], b[product.expert : product.expert + 1]
        if product.rows:
            b = b[:, product.rows[0] : product.rows[1]]
        if product.transposed:
            a, b = b.transpose(1, 2), a.transpose(1, 2)
        return b.contiguous(), a.contiguous()

    def _whole(self, name: str) -> torch.Tensor:
        entry = self.files.entries[name]
        return self.files.read(name, 0, entry.numel).float().view(entry.shape)

    # --------------------------------------------------------------------------------------------------------- DoRA

    def _ratios(self, name: str, change: Change, start: int, stop: int) -> torch.Tensor:
        """Return magnitude / length for each element of a block."""
        import torch

        with self._locks[name]:
            if name not in self._lengths:
                self._lengths[name] = self._measured(name, change)
        index, width = torch.arange(start, stop), change.shape[1]
        along = index % width if change.products[0].transposed else index // width
        return (self._whole(change.magnitude).view(-1) / self._lengths[name])[along]

    def _measured(self, name: str, change: Change) -> torch.Tensor:
        """Return the length of each output's weights in W + scale * B @ A: columns where stored (in, out)."""
        import torch

        rows, width = change.shape
        squares, step = [], max(1, _CHUNK // width)
        total = np.zeros(width)
        for first in range(0, rows, step):
            last = min(first + step, rows)
            part = self._adapted(name, change, first * width, last * width).view(-1, width)
            square = np.square(part.numpy(), dtype=np.float64)  # numpy: the same sum with any number of threads
            if change.products[0].transposed:
                total += square.sum(0)
            else:
                squares.append(square.sum(1))
        lengths = torch.from_numpy(np.sqrt(np.concatenate(squares) if squares else total).astype(np.float32))
        if not bool((lengths > 0).all()):
            raise M3Error(f"{self.folder}: DoRA divides {name} by a length of {float(lengths.min())}: fetch it again")
        return lengths

    # ------------------------------------------------------------------------------------------------------- tokens

    def _replace_rows(self, block: torch.Tensor, change: Change, start: int) -> None:
        """Put the trained rows into a block that begins at the element `start`."""
        width, stop = change.shape[1], start + block.numel()
        order = sorted(range(len(change.indices)), key=change.indices.__getitem__)
        rows = [change.indices[i] for i in order]
        for i in range(bisect_left(rows, start // width), bisect_left(rows, -(-stop // width))):
            first, last = max(start, rows[i] * width), min(stop, (rows[i] + 1) * width)
            at = (order[i] - rows[i]) * width
            block[first - start : last - start] = self.files.read(change.tokens, first + at, last + at).float()
