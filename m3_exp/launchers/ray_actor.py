"""What runs in the processes that Ray starts: a worker with its sign of life, and what a node says of itself.

What crosses is plain data of our own (`Start`, groups, events), which Ray pickles.
"""

import contextlib
import hashlib
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from m3_exp.command_line import ROOT
from m3_exp.engines import protocol
from m3_exp.events import Event
from m3_exp.groups import Group
from m3_exp.launchers.protocol import Work
from m3_exp.launchers.signs import Sign
from m3_exp.types import EngineSettings, Json, M3Error
from m3_exp.worker import Worker


@dataclass(frozen=True)
class Start:
    """What a worker begins with: its name, the folder in which relative paths hold, and a file to find in the store.

    `facts` is what the run's own machine says of itself (`survey`), and every node must say, too.
    """

    work: Work
    name: str
    folder: str
    probe: str
    facts: Json


@dataclass(frozen=True)
class Begun:
    """Where a worker is; `unfit`: why nothing may be given to it."""

    place: str
    unfit: str = ""


class Actor:
    """A worker in a process of its own. Ray makes it again where it died; `begin` then comes first again.

    `close` may come while `carry` is under way.
    """

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._ahead = 0.0  # seconds by which the clock of the run is ahead of this node's

    def begin(self, start: Start) -> Begun:
        """Make the worker, where this node is as the run's own machine.

        One that is at work yet, for a run that could not reach it for a while, gives up what it is at.
        """
        self._open.close()
        work, place = start.work, _place()
        if Path(start.folder).is_dir():
            os.chdir(start.folder)
        if reason := difference(start.facts, survey(start.probe, work.engine)):
            return Begun(place, reason)
        store = work.open()
        store.leases.silent = work.launcher.silent
        self._worker = Worker(
            store, work.engine, run=work.run, name=start.name, keep=work.keep, verify=work.verify, takes_over=True,
            until=work.until, clock=lambda: time.time() + self._ahead,
        )  # fmt: skip
        self._sign = self._open.enter_context(Sign(store, work.run, start.name, place.partition(", ")[2]))
        self._open.callback(self._worker.wait)
        self._open.callback(self._worker.close)
        return Begun(place)

    def carry(self, group: Group, now: float, following: Group | None = None) -> Iterator[Event]:
        """Carry a group out, as `Worker.carry`. `now` is the time by the clock of the run, by which its budget goes."""
        self._ahead = now - time.time()
        for event in self._worker.carry(group, following):
            self._sign.note(event)
            yield event

    def finish(self, now: float) -> Iterator[Event]:
        """Score what is left of the groups, as `Worker.finish`."""
        self._ahead = now - time.time()
        for event in self._worker.finish():
            self._sign.note(event)
            yield event

    def close(self) -> None:
        """End the engine, give up what is under way, and take the sign of life away."""
        self._open.close()


def survey(probe: str, engine: EngineSettings) -> Json:
    """Say what a node must have in common with the run's own machine. `probe` is a file in the store."""
    folder = Path(probe).parent
    try:
        version = dict(protocol.module(engine.name).fingerprint(engine))
    except M3Error as error:
        version = {"refused": str(error)}
    return {
        "Python": platform.python_version(),
        "m3": code(),
        "store": os.path.exists(probe) and os.access(folder, os.W_OK),
        "engine": version,
    }


def difference(here: Json, there: Json) -> str:
    """Say what a node lacks; nothing where it is as the run's own machine."""
    if there["Python"] != here["Python"]:
        return f"it has Python {there['Python']}, here is {here['Python']}: start Ray with the same Python everywhere"
    if there["m3"] != here["m3"]:
        return "its m3_exp is another version than the one here: install the same everywhere, or share one clone"
    if not there["store"]:
        return "it cannot write in the store under the same path: give a store= on a file system that all nodes share"
    if there["engine"] != here["engine"]:
        return f"its engine is {_words(there['engine'])}, here it is {_words(here['engine'])}: install the same"
    return ""


@cache
def code() -> str:
    """Return the digest of this project's own code."""
    digest = hashlib.sha256()
    for path in sorted(path for room in ("m3_exp", "evaluators") for path in (ROOT / room).rglob("*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _words(engine: object) -> str:
    return ", ".join(map(str, engine.values())) if isinstance(engine, dict) else str(engine)


def _place() -> str:
    """Return the name of this machine, Ray's number of the node, and the GPUs that Ray gives this process."""
    import ray

    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    devices = f", GPU {' '.join(gpus)}" if gpus else ""
    return f"{os.uname().nodename}, Ray node {context.get_node_id()[:8]}{devices}"
