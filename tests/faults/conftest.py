"""The world of the fault tests, made once; each test is given a store of its own in it."""

import itertools
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import world as worlds
from tests.faults.world import World
from tests.golden.commands import WORLD

_NUMBERS = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    with tarfile.open(WORLD) as tar:
        tar.extractall(folder, filter="data")
    worlds.answers_file(folder)
    worlds.adopt_orphans()
    return folder


@pytest.fixture
def world(_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(_folder)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    yield World(_folder)
    left = worlds.left_behind()
    assert [one for one in left if not any(name in one for name in worlds.DAEMONS)] == []


@pytest.fixture
def store() -> str:
    return f"store-{os.getpid()}-{next(_NUMBERS)}"


@pytest.fixture(scope="session")
def whole(_folder: Path) -> bytes:
    """What a run says that nobody disturbed."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(_folder)
        world = World(_folder)
        code, said = worlds.call(world.line("whole"))
        assert code == 0, said
        return world.table("whole")
