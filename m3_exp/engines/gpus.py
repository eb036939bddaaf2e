"""What an engine would need of a GPU, and about how fast it would be: for machines that are not at hand.

Memory: vLLM takes `gpu_memory_utilization` of a card; what weights and its own needs leave is KV cache. Speed: a step
of decoding reads all weights and the cache of every running sequence, or is bound by arithmetic, and takes its launch.
Half of the data sheets' bandwidth and arithmetic is assumed; a rate measured on the machine replaces it.
"""

import math
import re
from dataclasses import dataclass, replace

from m3_exp.types import M3Error

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

    @property
    def short(self) -> str:
        """Its name as `node=` takes it: `H100-80`."""
        *name, memory, _ = self.name.split()
        return f"{''.join(name)}-{memory}"


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
    if not sequences(gpu, load, load.length):
        return 0.0
    running = at_once(gpu, load)
    return running / step(gpu, load, running)


def at_once(gpu: Gpu, load: Load) -> int:
    """Return how many sequences of usual length one engine on such cards has in flight."""
    return min(RUNNING, sequences(gpu, load, CONTEXT))


def step(gpu: Gpu, load: Load, running: int) -> float:
    """Return the seconds in which each of so many sequences in flight gets a token."""
    operations = gpu.operations if load.width == 2 else gpu.operations / 16  # float32 without tensor cores
    reading = (load.weights + running * CONTEXT * load.token) / gpu.bandwidth
    computing = 2 * running * load.weights / load.width / operations
    return LAUNCH + max(reading, computing) / load.split / EFFICIENCY


@dataclass(frozen=True)
class Node:
    """Machines that are described: so many, alike, with so many GPUs of one kind each."""

    machines: int
    gpus: int
    gpu: Gpu

    def __str__(self) -> str:
        return f"{self.machines}x{self.gpus}x{self.gpu.short}" if self.machines > 1 else f"{self.gpus}x{self.gpu.short}"


def described(text: str) -> Node:
    """Read `8xH100-80`, `4x24` (GPUs x gigabytes: the slowest such card) or `12x8xA100-40` (machines first).

    Raises:
        M3Error: it is of another form, or no known card.
    """
    form = re.fullmatch(r"(?:([1-9]\d{0,3})x)?([1-9]\d{0,2})x([\w-]+)", text, re.ASCII)
    known = ", ".join(gpu.short for gpu in GPUS)
    if form is None:
        words = "GPUSxCARD or MACHINESxGPUSxCARD, as 8xH100-80, of 1 to 999 GPUs and 1 to 9,999 machines"
        raise M3Error(f"node={text} is no machine: write {words}; cards: {known}")
    machines, each, card = form.groups()
    wanted = card.upper()
    fitting = [gpu for gpu in GPUS if wanted in (gpu.short.upper(), *gpu.short.upper().rsplit("-", 1))]
    if not fitting:
        raise M3Error(f"node={text}: {card} is no known card; give one of {known}, or its gigabytes, as 4x24")
    if len(fitting) > 1 and not card.isdecimal():
        raise M3Error(f"node={text}: {card} may be {' or '.join(gpu.short for gpu in fitting)}: say which")
    return Node(int(machines or 1), int(each), fitting[0])
