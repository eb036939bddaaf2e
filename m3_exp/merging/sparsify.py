"""DARE (arXiv 2311.03099): drop each delta with probability p, divide the rest by 1 - p, before any method sees it.

Masks come from a counter, not a stream: whether an element is dropped follows from (seed, expert's digest, tensor name,
element index) alone, so that no order, block, thread or extra tensor changes it. 32 bits decide an element.
"""

import numpy as np
import torch
from blake3 import blake3

from m3_exp.types import Sparsify


def mask_key(sparsify: Sparsify, expert_digest: str, tensor: str) -> int:
    """Return the 64-bit key of one expert's mask on one tensor."""
    text = f"dare 1\n{sparsify.seed}\n{expert_digest}\n{tensor}"
    return int.from_bytes(blake3(text.encode()).digest()[:8], "little")


def sparsified(delta: torch.Tensor, key: int, start: int, drop_rate: float) -> tuple[torch.Tensor, int]:
    """Return the masked, rescaled delta (float32) of a block from flat element `start` on, and how many it lost."""
    from m3_exp.merging import kernels

    out = torch.empty_like(delta)
    threshold = np.uint64(round(drop_rate * 2**32))
    kept = np.float32(1 - drop_rate)
    dropped = kernels.drop(delta.numpy(), np.uint64(key), start, threshold, kept, out.numpy())
    return out, int(dropped)
