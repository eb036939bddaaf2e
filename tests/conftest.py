"""What all tests share: no run of theirs is recorded in W&B but where a test says so."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m3_exp.scoring.sandbox import judge
from m3_exp.scoring.sandbox.drivers import Driver
from m3_exp.types import M3Error

os.environ.setdefault("WANDB_MODE", "disabled")


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


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests/adapter_matrix.py keeps its bases."""
    return tmp_path_factory.mktemp("matrix")
