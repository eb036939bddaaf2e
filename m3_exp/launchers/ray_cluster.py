"""A Ray cluster as launcher=ray uses it: one that is there, or one on this machine for as long as the run.

What a worker is given there, whether any node has that, and whether the nodes are fit for it.
"""

import atexit
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import m3_exp
from m3_exp.amounts import counted
from m3_exp.launchers.ray_actor import Actor, difference, survey
from m3_exp.machine import cores
from m3_exp.types import EngineSettings, Json, LauncherSettings, M3Error

ANSWER = 120.0  # seconds that a node may take to say what it is
_TICK = 0.5  # seconds between two tries
_CONNECT = 10.0  # seconds
_OBJECTS = 80 * 2**20  # bytes of Ray's object store on this machine: nothing but events goes through it
# Of the environment, what workers need to read and to judge alike, wherever they are. Ray shows it to all its users.
_NEEDED = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"),
    *("NLTK_DATA", "NUMBA_CACHE_DIR", "OPENAI_BASE_URL", "XDG_CACHE_HOME"),
)
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD")


@dataclass(frozen=True)
class Share:
    """What of a node a worker is given: whole GPUs and cores, and gigabytes of memory (0: they are not counted)."""

    gpus: int
    cpus: int
    memory: int

    def within(self, resources: Mapping[str, float]) -> bool:
        """Tell whether a node has so much in all, whoever uses it now."""
        bytes_ = resources.get("memory", 0) if self.memory else 0
        return (
            resources.get("GPU", 0) >= self.gpus
            and resources.get("CPU", 0) >= self.cpus
            and bytes_ >= self.memory * 10**9
        )

    def __str__(self) -> str:
        return _amounts(self.gpus, self.cpus, self.memory)


@dataclass(frozen=True)
class Node:
    """A living node: Ray's number of it, its machine, and all that it has."""

    id: str
    host: str
    resources: Mapping[str, float]

    def __str__(self) -> str:
        return f"{self.host} (Ray node {self.id[:8]})"

    @property
    def amounts(self) -> str:
        """What it has, in words."""
        has = self.resources
        return _amounts(int(has.get("GPU", 0)), int(has.get("CPU", 0)), int(has.get("memory", 0) / 10**9))


def nodes() -> list[Node]:
    """Return the living nodes of the cluster that this process has joined."""
    alive = [node for node in _imported().nodes() if node["Alive"]]
    return [Node(node["NodeID"], node["NodeManagerHostname"], node["Resources"]) for node in alive]


@contextlib.contextmanager
def joined(settings: LauncherSettings, room: int = 0) -> Iterator[None]:
    """Join the cluster at an address, or start one on this machine.

    `room` workers share its cores, however many they are, unless `launcher.cpus` says what each is given. At the end a
    cluster that was there is left, the other ended. A process that has joined one before stays there.

    Raises:
        M3Error: Ray is not installed, or no cluster is there.
    """
    ray = _imported()
    if ray.is_initialized():
        yield
        return
    cpus = len(cores()) if settings.cpus else max(len(cores()), room)
    own: Json = {"num_cpus": cpus, "object_store_memory": _OBJECTS, "include_dashboard": False}
    if settings.address:
        _reach(settings.address)
    terminated = _handler()
    try:
        ray.init(
            settings.address or "local", log_to_driver=False, logging_level=logging.ERROR,
            **({} if settings.address else own),
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _unreached(settings.address, error) from error
    finally:
        _handle(terminated)
    _hush()
    try:
        yield
    finally:
        ray.shutdown()


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do by itself; else it warns
    try:
        import ray
    except ImportError as error:
        raise M3Error(
            f"launcher=ray: Ray is not installed here ({error}): pip install 'm3_exp[ray]', or take launcher=local"
        ) from error
    return ray


def _reach(address: str) -> None:
    """Refuse what is no address of a cluster, or where nobody listens: Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise M3Error(f"launcher.address={address} is not known: give auto, or HOST:PORT of the cluster's head")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise _unreached(address, error) from error


def _unreached(address: str | None, error: BaseException) -> M3Error:
    reason = " ".join(str(error).split()).partition(". ")[0][:300]
    if address is None:
        return M3Error(f"launcher=ray: no Ray cluster could be started on this machine ({reason}): try launcher=local")
    return M3Error(
        f"launcher.address={address}: no Ray cluster answers there ({reason}): start one with ray start --head on one"
        " machine and ray start --address=HOST:PORT on the others, or leave the address out"
    )


def _hush() -> None:
    """Keep off standard output what Ray writes there: reports of nodes, which `log_to_driver` lets through and which
    would stand within JSON, and the code that ends a colour, at the exit.
    """
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None
    if colours := sys.modules.get("colorama.initialise"):
        atexit.unregister(colours.reset_all)


def _handler() -> Any:
    """Return who is told of SIGTERM, before Ray takes it; nobody where this is not the main thread."""
    return signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None


def _handle(handler: Any) -> None:
    if handler is not None:
        signal.signal(signal.SIGTERM, handler)


# ------------------------------------------------------------------------------------------------------ placement


def share(engine: EngineSettings, settings: LauncherSettings, known: Sequence[Node], workers: int = 0) -> Share:
    """Return what each of so many workers is given (0: one a node).

    Beside GPUs: `tensor_parallel_size` of them and one core. Else an even share of the cores of the smallest node.
    """
    memory = settings.memory or 0
    gpus = engine.name != "recorded" and any(node.resources.get("GPU", 0) for node in known)
    if gpus:
        return Share(engine.tensor_parallel_size, settings.cpus or 1, memory)
    sizes = [int(node.resources.get("CPU", 0)) for node in known]
    usable = [size for size in sizes if size]
    a_node = -(-workers // len(usable)) if usable and workers else 1
    return Share(0, settings.cpus or max(1, min(usable, default=1) // a_node), memory)


def room(asked: Share, known: Sequence[Node]) -> int:
    """Return how many workers fit at once, by GPUs; without GPUs one a node."""
    fit = [node for node in known if asked.within(node.resources)]
    return sum(int(node.resources["GPU"] // asked.gpus) for node in fit) if asked.gpus else len(fit)


def refuse_what_fits_nowhere(asked: Share, known: Sequence[Node]) -> None:
    """Raise M3Error where no node has, in all, what one worker is given."""
    if any(asked.within(node.resources) for node in known):
        return
    there = Counter(node.amounts for node in known)
    listed = "; ".join(f"{counted(number, 'node')} with {has}" for has, number in there.most_common(4))
    raise M3Error(
        f"launcher=ray: a worker takes {asked} (engine.tensor_parallel_size, launcher.cpus, launcher.memory), and no"
        f" node of the cluster has that: {listed or 'no node is alive'}; ask for less, or add such a node"
    )


def refuse_unfit_nodes(asked: Share, known: Sequence[Node], probe: str, engine: EngineSettings, facts: Json) -> None:
    """Ask every node that could hold a worker what it is. One that is gone by then is left out.

    Raises:
        M3Error: one does not answer, or differs from this machine in what must be the same.
    """
    ray = _imported()
    from ray.exceptions import RayError, TaskUnschedulableError

    deadline = time.monotonic() + ANSWER
    asked_of = {node.id: _ask(node, probe, engine) for node in known if asked.within(node.resources)}
    for node in known:
        while answer := asked_of.pop(node.id, None):
            reason = ""
            try:
                reason = difference(facts, ray.get(answer, timeout=max(0.1, deadline - time.monotonic())))
            except RayError as error:
                is_new = isinstance(error, TaskUnschedulableError) and time.monotonic() < deadline
                if node.id not in {one.id for one in nodes()}:
                    continue
                if is_new:  # the schedulers hear of a node later than those who ask for the list
                    time.sleep(_TICK)
                    asked_of[node.id] = _ask(node, probe, engine)
                else:
                    reason = f"m3_exp does not run there: {last_words(error)}"
            if reason:
                raise M3Error(f"launcher=ray: {node} cannot take part: {reason}")


def _ask(node: Node, probe: str, engine: EngineSettings) -> Any:
    """Have Ray run `survey` on a node, and return the reference to what it says."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(node.id, soft=False)
    how = {"num_cpus": 0, "max_retries": 0, "runtime_env": environment()}
    return _imported().remote(survey).options(scheduling_strategy=place, **how).remote(probe, engine)


def why(error: BaseException) -> str:
    """Say in a few words why Ray gave an actor up: what it says itself are numbers and advice."""
    from ray.exceptions import OutOfMemoryError

    if isinstance(error, OutOfMemoryError):
        return "its node had no memory left, so Ray ended it"
    return "its node is gone" if "its node" in str(error) else "its process died, or cannot be reached"


def last_words(error: BaseException) -> str:
    """Return what an error of Ray says, without its tables and tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith(("\t", " "))]
    text = lines[-1] if "Traceback" in str(error) else " ".join(lines)
    return text[:200] or type(error).__name__


def actor(asked: Share) -> Any:
    """Have Ray make an actor for a worker: it waits for a place, and is made again wherever it died."""
    import ray

    return ray.remote(Actor).options(
        num_gpus=asked.gpus, num_cpus=asked.cpus, memory=asked.memory * 10**9 or None, max_restarts=-1,
        max_concurrency=2, scheduling_strategy="DEFAULT" if asked.gpus else "SPREAD", runtime_env=environment(),
    ).remote()  # fmt: skip


def environment() -> dict[str, dict[str, str]]:
    """Return the environment that workers get beside their node's own, in Ray's form. No secret is in it."""
    ours = {name for name in os.environ if name.startswith("M3_") and not any(word in name for word in _SECRET)}
    found = {name: os.environ[name] for name in sorted(ours | {*_NEEDED} & {*os.environ})}
    paths = [str(Path(m3_exp.__path__[0]).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    absolute = dict.fromkeys(os.path.abspath(path) for path in paths if path)
    return {"env_vars": {**found, "PYTHONPATH": os.pathsep.join(absolute), "PYTHONUNBUFFERED": "1"}}


def _amounts(gpus: int, cpus: int, memory: int) -> str:
    parts = [counted(gpus, "GPU")] if gpus else []
    return ", ".join([*parts, counted(cpus, "CPU core"), *([f"{memory} GB of memory"] if memory else [])])
