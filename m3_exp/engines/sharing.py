"""How the engines of one machine share it: GPUs by tensor_parallel_size, else cores."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from m3_exp.machine import cores
from m3_exp.types import EngineSettings

# What the drivers of NVIDIA (a computer's, a Jetson's, Windows') and AMD make; torch, slow to import, is asked then.
_DEV = Path("/dev")
_DEVICES = ("nvidia*", "nvhost*", "dxg", "kfd")


def divide(settings: EngineSettings, workers: int) -> Iterator[EngineSettings]:
    """Share the machine among workers: GPUs by tensor_parallel_size, else cores."""
    gpus = visible_gpus()
    usable = cores()
    for index in range(workers):
        if workers == 1:
            yield settings
        elif gpus:
            size = settings.tensor_parallel_size
            yield replace(settings, devices=tuple(gpus[index * size : (index + 1) * size]))
        else:
            share = max(1, len(usable) // workers)
            mine = [usable[(index * share + i) % len(usable)] for i in range(share)]
            yield replace(settings, cores=tuple(mine), threads=settings.threads or share)


def visible_gpus() -> list[int]:
    """Return the numbers of the GPUs this process may use, without starting CUDA."""
    if not any(any(_DEV.glob(name)) for name in _DEVICES):
        return []
    import torch

    return list(range(torch.cuda.device_count()))


def default_workers(settings: EngineSettings) -> int:
    """As many engines as the GPUs hold; one on a CPU."""
    return max(1, len(visible_gpus()) // settings.tensor_parallel_size)
