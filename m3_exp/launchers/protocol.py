"""What a launcher must provide: it starts workers, gives them groups from one queue, and hands their events back.

A launcher NAME is two files:

m3_exp/launchers/NAME.py   the functions of `LauncherModule`
conf/launcher/NAME.yaml    `defaults: [_base]`, `name: NAME` and what may be set; then launcher=NAME chooses it

Any worker may take any group: what is done is in the store. A worker that dies costs the answers in flight; its group
goes back to the front of the queue.
"""

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from m3_exp.events import Event
from m3_exp.groups import Queue
from m3_exp.results import Results
from m3_exp.types import EngineSettings, LauncherSettings

DEATHS = 3  # of workers at one group, one after the other, before its cells count as failed


@dataclass(frozen=True)
class Work:
    """What all workers of a run are started with: plain data that can cross to another machine.

    `store` is reached from every machine under the same path. `run` is the id of the run and `plan` the identity of
    its plan in that store; `until` is when the time is over, in seconds since the epoch.
    """

    store: Path
    engine: EngineSettings
    launcher: LauncherSettings
    run: str
    plan: str
    keep: bool
    verify: bool
    until: float


@dataclass(frozen=True)
class Here:
    """What workers of this very process may share with the run: what it has looked up, and its clock."""

    results: Results
    clock: Callable[[], float] = field(default=time.time)


@dataclass(frozen=True)
class Report:
    """What a worker, by its name in the run, says."""

    worker: str
    event: Event


class LauncherModule(Protocol):
    """What `m3_exp/launchers/NAME.py` must have."""

    def workers(self, engine: EngineSettings, settings: LauncherSettings) -> int:
        """Return how many engines there are room for, where `workers=N` does not say so.

        Raises:
            M3Error: what the launcher needs is not installed, or its cluster cannot be reached.
        """
        ...

    def launch(self, work: Work, queue: Queue, count: int, here: Here) -> Iterator[Report]:
        """Start so many workers and give what they say, until no group is left or the time is over.

        Closing the iterator ends the workers: what they are at is given up, and nothing of theirs is left behind.

        Raises:
            BaseException: what went wrong in a worker outside any cell.
        """
        ...


def module(name: str) -> LauncherModule:
    """Return the module of launcher=NAME."""
    return cast(LauncherModule, importlib.import_module(f"m3_exp.launchers.{name}"))
