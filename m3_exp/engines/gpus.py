"""What an engine would need of a GPU, and about how fast it would be: for machines that are not at hand.

Memory: vLLM takes `gpu_memory_utilization` of a card; what weights and its own needs leave is KV cache. Speed: a step
of decoding reads all weights and the cache of every running sequence, or is bound by arithmetic, and takes its launch.
Half of the data sheets' bandwidth and arithmetic is assumed; a rate measured on the machine replaces it.
"""

import math
from dataclasses import dataclass, replace

OVERHEAD = 3e9  # bytes a card for CUDA, graphs and activations: assumed
EFFICIENCY = 0.5  # of bandwidth and arithmetic: assumed
LAUNCH = 0.005  # seconds a step: assumed
RUNNING = 256  # sequences at once, vLLM's default on most cards
CONTEXT = 512  # tokens of prompt and answer that a running sequence holds on average: assumed
SPLITS = (1, 2, 4, 8)  # tensor_parallel_size


@dataclass(frozen=True)
class Gpu:
    """A card by NVIDIA's data sheet: bytes, bytes a second, dense 16-bit operations a second."""

    name: str
    memory: float
    bandwidth: float
    operations: float


GPUS = (
    Gpu("RTX 4090 24 GB", 24e9, 1.008e12, 165e12),
    Gpu("A100 40 GB", 40e9, 1.555e12, 312e12),
    Gpu("L40S 48 GB", 48e9, 0.864e12, 362e12),
    Gpu("A100 80 GB", 80e9, 2.039e12, 312e12),
    Gpu("H100 80 GB", 80e9, 3.35e12, 989e12),
)


@dataclass(frozen=True)
class Load:
    """A model in an engine: `weights` bytes in all, `width` bytes a value, `cache` values of a token, `length` tokens
    of the longest sequence, `split` cards for one engine, of whose memory `share` is used.
    """

    weights: int
    width: int
    cache: int
    length: int
    split: int
    share: float

    @property
    def token(self) -> int:
        """Bytes of the cache of one token, over all cards."""
        return self.cache * self.width


def sequences(gpu: Gpu, load: Load, tokens: int) -> int:
    """Return how many sequences of so many tokens the cache of an engine on such cards holds; 0 where it cannot, or
    where the model says that a token takes nothing.
    """
    free = load.share * gpu.memory - load.weights / load.split - OVERHEAD
    each = load.token * tokens
    return max(0, math.floor(free * load.split / each)) if each > 0 and math.isfinite(free) else 0


def least_split(gpu: Gpu, load: Load) -> int | None:
    """Return the smallest tensor_parallel_size at which one longest sequence fits, None where 8 cards are too few."""
    return next((n for n in SPLITS if sequences(gpu, replace(load, split=n), load.length)), None)


def speed(gpu: Gpu, load: Load) -> float:
    """Return the tokens a second of one engine on such cards, 0 where the model does not fit."""
    running = min(RUNNING, sequences(gpu, load, CONTEXT))
    if not sequences(gpu, load, load.length):
        return 0.0
    operations = gpu.operations if load.width == 2 else gpu.operations / 16  # float32 without tensor cores
    reading = (load.weights + running * CONTEXT * load.token) / gpu.bandwidth
    computing = 2 * running * load.weights / load.width / operations
    return running / (LAUNCH + max(reading, computing) / load.split / EFFICIENCY)
