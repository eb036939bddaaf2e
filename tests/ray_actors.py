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

_generate = RecordedEngine.generate


def _slowly(self: RecordedEngine, *args: object, **more: object) -> Iterator[Answer]:
    for answer in _generate(self, *args, **more):  # type: ignore[arg-type]
        yield answer
        time.sleep(float(os.environ["M3_TEST_PAUSE"]))


class Slow(Actor):
    """Its answers come M3_TEST_PAUSE seconds apart, its signs of life soon after one another."""

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
