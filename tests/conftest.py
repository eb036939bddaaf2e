"""What all tests share: no run of theirs is recorded in W&B but where a test says so; how cores share the tests."""

import contextlib
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from m3_exp import machine
from m3_exp.scoring.sandbox import judge
from m3_exp.scoring.sandbox.drivers import Driver
from m3_exp.store import Store
from m3_exp.types import M3Error

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.pop("COLUMNS", None)  # pytest-xdist's processes have one, and a table is folded to it
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: for small matrices threads are three times the work
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray says 15, and beside other tests its workers would starve
_MOST = 8  # processes: each has torch and transformers in memory
_WAITING = {"test_ray.py", "test_schedule.py", "test_slurm.py"}  # for daemons and paces, nearly all of their minutes
_LONGEST = ["test_launchers_killed.py", "test_kills.py"]  # of the faults
_ENGINES = {file.name for file in Path(__file__).parent.glob("test_*.py") if "mark.engine" in file.read_text()}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `-n auto` starts: one more than there are cores, as tests wait for their children."""
    return min(_MOST, len(machine.cores()) + 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole files, in the order of the tests; fault tests one by one.

    All those that start engines go to one process: two engines would fight for the cores. All those that wait go to
    another one: what is left of the cores belongs to the third.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            name = Path(file).name
            if Path(file).parent.name == "faults":
                return nodeid
            return "engines" if name in _ENGINES else "waiting" if name in _WAITING else file

    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with engines, which take longest, and with what waits meanwhile; small files without a slow test end it."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def place(file: Path) -> tuple[int, int]:
        if file.name in _LONGEST:
            return -1, _LONGEST.index(file.name)
        if file.name in _ENGINES:
            return 0, 0
        return (1, 0) if file.name in _WAITING else (2 if file in slow else 3, -file.stat().st_size)

    places = {file: place(file) for file in {item.path for item in items}}
    items.sort(key=lambda item: places[item.path])


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays to the end: the libraries and the tests, millions of objects."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or libraries report at the end what they think has leaked


def _usable(name: judge.Choice) -> Driver:
    try:
        return judge.working_driver(name)
    except M3Error as error:
        pytest.skip(f"{name} does not work here: {error}")


@pytest.fixture(params=["bubblewrap", "landlock", "container"], scope="session")
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each way to contain programs that works here."""
    return _usable(request.param)


@pytest.fixture(params=["bubblewrap", "landlock"], scope="session")
def host_driver(request: pytest.FixtureRequest) -> Driver:
    """Those whose boxes are descendants of this process; a container's belong to its runtime."""
    return _usable(request.param)


@pytest.fixture(scope="session")
def _alive() -> Iterator[list[Any]]:
    engines: list[Any] = []
    yield engines
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def living_engine(_alive: list[Any]) -> Iterator[None]:
    """The runs of a module, and of the next one, share a living engine=transformers, over models of `models.SMALL`.

    The first run starts it as every run does; at a run's end it stays, and the next one exchanges its weights.
    """
    from m3_exp.engines import transformers

    start = transformers.start
    with pytest.MonkeyPatch.context() as patch:

        def started(*asked: Any) -> Any:
            if not _alive:
                _alive.append(start(*asked))
            patch.setattr(_alive[0], "close", lambda: None)
            return _alive[0]

        patch.setattr(transformers, "start", started)
        yield


@pytest.fixture(scope="session", autouse=True)
def _converted_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A tokenizer is converted or gathered once for all processes of tests; each new store gets a copy of it."""
    from m3_exp.merging import tokenizer

    own, kept = tmp_path_factory.getbasetemp(), tokenizer._kept
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tokenizers"
    folder.mkdir(exist_ok=True)

    def copied(store: Store, key: str, make: Callable[[Path], None]) -> Path:
        def fill(out: Path) -> None:
            if not (folder / key).is_dir():
                make(out)
                whole = shutil.copytree(out, tmp_path_factory.mktemp("tokenizer") / key)
                with contextlib.suppress(OSError):  # another process was here before
                    whole.rename(folder / key)
            else:
                shutil.copytree(folder / key, out, dirs_exist_ok=True)

        return kept(store, key, fill)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "_kept", copied)
        yield


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests/adapter_matrix.py keeps its bases."""
    return tmp_path_factory.mktemp("matrix")
