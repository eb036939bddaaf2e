"""Actors that tests have Ray start: slow ones, and such as die of a group."""

import os
import time
from collections.abc import Iterator

from m3_exp.engines.process import _environment
from m3_exp.engines.recorded import RecordedEngine
from m3_exp.events import Event
from m3_exp.groups import Group
from m3_exp.launchers import signs
from m3_exp.launchers.ray_actor import Actor, Begun, Start, _place
from m3_exp.types import Answer

GATE = 3  # answers that a process gives before it waits for M3_TEST_GATE

_generate = RecordedEngine.generate


def _slowly(self: RecordedEngine, *args: object, **more: object) -> Iterator[Answer]:
    gate = os.environ.get("M3_TEST_GATE")
    for number, answer in enumerate(_generate(self, *args, **more), 1):  # type: ignore[arg-type]
        yield answer
        time.sleep(float(os.environ.get("M3_TEST_PAUSE", "0")))
        while gate and number == GATE and not os.path.exists(gate):
            time.sleep(0.05)


class Slow(Actor):
    """Its answers come M3_TEST_PAUSE seconds apart, or stop until there is a file M3_TEST_GATE.

    Its signs of life come soon after one another.
    """

    def begin(self, start: Start) -> Begun:
        signs.BEAT = 0.2
        RecordedEngine.generate = _slowly  # type: ignore[method-assign]
        return super().begin(start)


class Poisoned(Actor):
    """It dies of the group M3_TEST_POISON."""

    def carry(self, group: Group, now: float, following: Group | None = None) -> Iterator[Event]:
        if group.key == os.environ["M3_TEST_POISON"]:
            os._exit(1)
        yield from super().carry(group, now, following)


def seen() -> tuple[str, str]:
    """Where a task is, and the GPUs that an engine's process would see there."""
    return _place(), _environment()["CUDA_VISIBLE_DEVICES"]
