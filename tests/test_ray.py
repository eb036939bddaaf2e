"""launcher=ray on two nodes of this machine: the same bytes as launcher=local, whatever dies meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from m3_exp import config, planning
from m3_exp.groups import Budget, grouped
from m3_exp.groups import Evaluation as One
from m3_exp.heartbeat import workers as at_work
from m3_exp.launchers import ray as launcher
from m3_exp.launchers import ray_cluster
from m3_exp.launchers.ray_actor import difference, survey
from m3_exp.launchers.ray_cluster import Node, Share
from m3_exp.reporting.data.dataframe import tidy
from m3_exp.reporting.tables import paper
from m3_exp.reporting.tables.formats import markdown
from m3_exp.reporting.tables.rows import Shown
from m3_exp.results import Results, look_up
from m3_exp.running import Outcome, Run
from m3_exp.store import Store
from m3_exp.types import EngineSettings, LauncherSettings, M3Error, Plan
from tests.files import recorded_run, write_lines
from tests.models import SMALL, write_three
from tests.ray_actors import GATE, Poisoned, Slow, seen
from tests.test_repeat import files

ITEMS, CELLS = 12, 5
OBJECTS = 80 * 2**20
PATIENCE = 280.0  # seconds: on two busy cores a worker may take minutes to start


@dataclass
class World:
    """Three models, items, their answers in a store, and what the same request gives under launcher=local."""

    folder: Path

    def __post_init__(self) -> None:
        self.models = write_three(self.folder / "models", SMALL, torch.float32)
        rows = [{"question": f"{k} + 1?", "answer": f"#### {k + 1}"} for k in range(ITEMS)]
        self.items = write_lines(self.folder / "items.jsonl", rows)
        texts = [f"The answer is: {k + 1 if k % 3 else 0}" for k in range(ITEMS)]
        lines = ({"benchmark": "gsm8k", "id": str(k), "text": text} for k, text in enumerate(texts))
        first = write_lines(self.folder / "answers.jsonl", lines)
        self.answers = first
        Run(*self.request("recorded")).carry_out()
        self.answers = self.folder / "recorded"  # a store knows the weights' digests: nothing is merged again
        local, self.store = self.request("local")
        Run(local, self.store).carry_out()

    def line(self, store: Path) -> list[str]:
        models = recorded_run(self.answers, *self.models)
        return [*models, "evaluator=[gsm8k]", f"items={self.items}", "dtype=float32", f"store={store}",
                "tracker=none", "ratio=grid", f"ratio.nodes={CELLS}"]  # fmt: skip

    def request(self, store: str | Path) -> tuple[Plan, Store]:
        asked = config.request(self.line(self.folder / store))
        return planning.build(asked.configs), Store(asked.store)

    def shown(self, store: Path) -> tuple[object, str]:
        """What a store holds of the request: its results, and the bytes of the table."""
        plan, there = self.request(store)
        table = markdown(paper.build("t", Shown(tidy(look_up(plan, there)))))
        return files(there, "results", "answer_sets", "merges"), table


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes on loopback, with a core each; a test may take the second one away."""
    pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": OBJECTS, "include_dashboard": False}
    )
    made.add_node(num_cpus=1, num_gpus=2, object_store_memory=OBJECTS)
    yield made
    made.shutdown()


GOING: list[threading.Thread] = []


@pytest.fixture(autouse=True)
def _nothing_goes_on() -> Iterator[None]:
    """The run of a test that failed would hold this process's connection to the cluster against the next tests."""
    yield
    while GOING:
        GOING.pop().join(PATIENCE)


class Going:
    """A run in a thread, to be looked at and disturbed from outside."""

    def __init__(self, world: World, cluster: Any, store: Path, **more: Any) -> None:
        settings = LauncherSettings(name="ray", address=cluster.address)
        plan, self.store = world.request(store)
        self.run = Run(plan, self.store, launcher=settings, workers=2, **more)
        self.said: list[str] = []
        self.run.progress.say = self.said.append  # type: ignore[method-assign]
        self.outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._carry_out, daemon=True)
        self._thread.start()
        GOING.append(self._thread)

    def _carry_out(self) -> None:
        try:
            self.outcome = self.run.carry_out()
        except BaseException as error:
            self._error = error

    def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert self._thread.is_alive(), (self._error, self.outcome, self.said)
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def end(self) -> Outcome:
        self._thread.join(PATIENCE)
        if self._error:
            raise self._error
        assert self.outcome is not None, self.said
        return self.outcome

    def written(self) -> list[tuple[str, str]]:
        """Every line of every journal of answers: one that was generated twice stands there twice."""
        keys = list(self.store.answer_sets)
        return [(key, answer.id) for key in keys for answer in self.store.answers(key).read()]


def check(world: World, going: Going, outcome: Outcome, *, lost: int) -> None:
    """Nothing is missing or counted twice, at most what was in flight was generated twice, nothing is left behind."""
    assert (outcome.cells, outcome.done, outcome.left, outcome.failures) == (CELLS, CELLS, 0, ())
    written = going.written()
    assert len(set(written)) == CELLS * ITEMS
    assert len(written) <= CELLS * ITEMS + lost
    progress = going.run.progress
    assert (progress.done, progress.total) == (CELLS * ITEMS, CELLS * ITEMS)
    assert world.shown(going.store.root) == world.shown(world.store.root)
    assert at_work(going.store) == []
    assert [*(going.store.root / "leases").iterdir(), *(going.store.root / "launched").iterdir()] == []


@pytest.mark.slow
class TestTwoNodes:
    def test_a_killed_worker_is_taken_over_at_its_last_answer(
        self, world: World, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.setattr(ray_cluster, "Actor", Slow)
        monkeypatch.setenv("M3_TEST_GATE", str(tmp_path / "gate"))
        going = Going(world, cluster, tmp_path / "store")
        going.until(lambda: [worker.answers for worker in at_work(going.store)] == [GATE, GATE])
        first, second = at_work(going.store)
        assert (first.name, second.name) == ("worker 1", "worker 2")
        assert first.alive
        assert second.alive
        assert first.place.startswith("Ray node ")
        assert first.place != second.place
        assert "on gsm8k" in second.cell
        os.kill(second.pid, signal.SIGKILL)
        (tmp_path / "gate").touch()
        check(world, going, going.end(), lost=1)
        (note,) = [text for text in going.said if "lost" in text]
        assert note.startswith(f"worker 2 on {second.host}, {second.place} lost: its process died")
        assert note.endswith("; its cells are taken over")
        assert capsys.readouterr().out == ""

    def test_a_budget_of_time_holds_whatever_time_a_node_believes_in_and_the_same_run_goes_on(
        self, world: World, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The run's clock stands at 0; a worker counts the seconds from what it was told with its group."""
        monkeypatch.setattr(ray_cluster, "Actor", Slow)
        monkeypatch.setenv("M3_TEST_PAUSE", "0.3")
        stopped = Going(world, cluster, tmp_path / "store", budget=Budget(hours=2 / 3600), clock=lambda: 0.0).end()
        assert (stopped.done, stopped.left, stopped.failures) == (0, CELLS, ())
        assert 0 < stopped.generated < CELLS * ITEMS
        rest = Run(*world.request(tmp_path / "store")).carry_out()
        assert (rest.done, rest.generated) == (CELLS, CELLS * ITEMS - stopped.generated)
        assert world.shown(tmp_path / "store") == world.shown(world.store.root)

    def test_a_group_that_kills_its_workers_fails_and_the_others_are_done(
        self, world: World, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan, store = world.request(tmp_path / "store")
        groups = grouped([One(cell) for cell in plan.cells], Results(store, plan.engine))
        monkeypatch.setattr(ray_cluster, "Actor", Poisoned)
        monkeypatch.setenv("M3_TEST_POISON", groups[2].key)
        outcome = Going(world, cluster, tmp_path / "store").end()
        (failed,) = outcome.failures
        assert failed.evaluation.cell == groups[2].evaluations[0].cell
        assert failed.reason.startswith("3 workers died at it without one answer between, the last: worker ")
        assert (outcome.done, outcome.left) == (CELLS - 1, 0)

    def test_a_node_that_is_gone_is_taken_over_by_the_others(
        self, world: World, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ray_cluster, "Actor", Slow)
        monkeypatch.setenv("M3_TEST_GATE", str(tmp_path / "gate"))
        node = next(node for node in cluster.worker_nodes)
        going = Going(world, cluster, tmp_path / "store")
        going.until(lambda: [worker.answers for worker in at_work(going.store)] == [GATE, GATE])
        (there,) = [worker for worker in at_work(going.store) if worker.place.endswith(node.node_id[:8])]
        cluster.remove_node(node, allow_graceful=False)
        going.until(lambda: any("lost" in text for text in going.said))
        (seen,) = [worker for worker in at_work(going.store) if worker.name == there.name]
        assert str(seen).startswith(f"{there.name} lost: {there.host}, {there.place}, ")
        (tmp_path / "gate").touch()
        check(world, going, going.end(), lost=1)
        (note,) = [text for text in going.said if "lost" in text]
        assert note.startswith(f"{there.name} on {there.host}, {there.place} lost: ")
        cluster.add_node(num_cpus=1, num_gpus=2, object_store_memory=OBJECTS)

    def test_a_node_that_differs_is_refused_before_anything_starts(
        self, world: World, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launcher, "survey", lambda *asked: {**survey(*asked), "Python": "3.9.1"})
        with pytest.raises(M3Error, match=r"cannot take part: it has Python 3.1.*, here is 3.9.1"):
            Going(world, cluster, tmp_path / "store").end()

    def test_a_run_ends_when_no_node_is_left_that_could_hold_a_worker(
        self, world: World, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launcher, "NOWHERE", 0.1)
        monkeypatch.setattr(ray_cluster, "refuse_unfit_nodes", lambda *_: None)
        monkeypatch.setattr(ray_cluster, "share", lambda *_: Share(0, 64, 0))
        refuse, first = ray_cluster.refuse_what_fits_nowhere, iter([True])
        monkeypatch.setattr(ray_cluster, "refuse_what_fits_nowhere", lambda *it: next(first, None) or refuse(*it))
        with pytest.raises(
            M3Error, match=r"worker .: for 0 s there was no place: .* takes 64 CPU cores .*, and no node"
        ):
            Going(world, cluster, tmp_path / "store").end()

    def test_an_engine_sees_the_gpus_that_ray_gives_its_worker(self, cluster: Any) -> None:
        ray = pytest.importorskip("ray")
        with ray_cluster.joined(LauncherSettings(name="ray", address=cluster.address)):
            deadline = time.monotonic() + PATIENCE
            while len(known := ray_cluster.nodes()) > 2:  # one that is gone is listed for a while
                assert time.monotonic() < deadline
                time.sleep(0.2)
            asked = ray_cluster.share(EngineSettings(tensor_parallel_size=2), LauncherSettings(), known)
            assert (asked, ray_cluster.room(asked, known)) == (Share(2, 1, 0), 1)
            there = ray.remote(seen).options(num_gpus=2, runtime_env=ray_cluster.environment())
            place, devices = ray.get(there.remote())
        assert place.endswith(", GPU 0 1")
        assert devices == "0,1"

    def test_a_node_that_is_gone_is_left_out_and_one_that_never_comes_is_refused(
        self, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ray lists a node before its schedulers know it, and for a while after it has died."""
        (tmp_path / "probe").touch()
        monkeypatch.setattr(ray_cluster, "ANSWER", 1.0)
        never = Node("0" * 56, "elsewhere", {"CPU": 1.0})
        asked = (Share(0, 1, 0), [never], str(tmp_path / "probe"), EngineSettings(name="recorded"), {})
        with ray_cluster.joined(LauncherSettings(name="ray", address=cluster.address)):
            ray_cluster.refuse_unfit_nodes(*asked)
            monkeypatch.setattr(ray_cluster, "nodes", lambda: [never])
            with pytest.raises(M3Error, match=r"elsewhere .* cannot take part: m3_exp does not run there: The task is"):
                ray_cluster.refuse_unfit_nodes(*asked)


# ------------------------------------------------------------------------------------------- one on this machine


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "workers"), [(signal.SIGINT, 2), pytest.param(signal.SIGKILL, 1, marks=pytest.mark.long)]
)
def test_an_interrupted_run_leaves_no_process_and_goes_on_under_another_launcher(
    world: World, tmp_path: Path, how: signal.Signals, workers: int
) -> None:
    psutil, store = pytest.importorskip("psutil"), tmp_path / "store"
    pytest.importorskip("ray")
    main = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from m3_exp.launchers import ray_cluster
from tests.ray_actors import Slow
ray_cluster.Actor = Slow
from m3_exp.cli import main
sys.exit(main(sys.argv[1:]))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", main, "run", "launcher=ray", f"workers={workers}", "--json", *world.line(store)],
        cwd=config.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "M3_TEST_PAUSE": "0.5"},
    )  # fmt: skip
    there, deadline = Store(store), time.monotonic() + PATIENCE
    while len(at_work(there)) < workers or not all(worker.answers > 1 for worker in at_work(there)):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = psutil.Process(child.pid).children(recursive=True)
    assert len(started) > 3, "Ray's own, and workers"
    os.killpg(child.pid, how)
    _, said = child.communicate(timeout=60)
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
    assert child.returncode == (130 if how == signal.SIGINT else -9), said
    if how == signal.SIGINT:
        words = "interrupted; the same command continues where this one stopped"
        assert [words in said, "Traceback" in said, "ray" in said.lower()] == [True, False, False], said
        assert [*(store / "runs").iterdir(), *(store / "workers").iterdir(), *(store / "leases").iterdir()] == []
        assert list(there.failures) == []
    plan, _ = world.request(store)
    outcome = Run(plan, there).carry_out()
    assert (outcome.done, outcome.left, outcome.failures) == (CELLS, 0, ())
    assert world.shown(store) == world.shown(world.store.root)


# ----------------------------------------------------------------------------------------------------- refusals


def test_without_ray_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(M3Error, match=r"^launcher=ray: Ray is not installed here .*: pip install 'm3_exp\[ray\]'"):
        launcher.workers(EngineSettings(), LauncherSettings(name="ray", address="auto"))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nobody", "launcher.address=nobody is not known: give auto, or HOST:PORT"),
        ("ray://there:10001", "launcher.address=ray://there:10001 is not known: give auto, or HOST:PORT"),
        ("127.0.0.1:1", "launcher.address=127.0.0.1:1: no Ray cluster answers there"),
        ("127.0.0.1:99999", "launcher.address=127.0.0.1:99999: no Ray cluster answers there"),
    ],
)
def test_where_no_cluster_is_one_line_says_so(address: str, words: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(M3Error) as refused:
        launcher.workers(EngineSettings(), LauncherSettings(name="ray", address=address))
    assert str(refused.value).startswith(words)


GPUS = Node("a" * 56, "gpu1", {"GPU": 8.0, "CPU": 64.0, "memory": 500e9})
CPUS = [Node("b" * 56, "cpu1", {"CPU": 16.0, "memory": 60e9}), Node("c" * 56, "cpu2", {"CPU": 8.0, "memory": 30e9})]
HEAD = Node("d" * 56, "head", {"memory": 8e9})


@pytest.mark.parametrize(
    ("engine", "settings", "known", "workers", "asked", "fit"),
    [
        (EngineSettings(), LauncherSettings(), [HEAD, GPUS, *CPUS], 0, Share(1, 1, 0), 8),
        (EngineSettings(tensor_parallel_size=3), LauncherSettings(), [GPUS], 0, Share(3, 1, 0), 2),
        (EngineSettings(), LauncherSettings(cpus=4, memory=40), [GPUS, *CPUS], 0, Share(1, 4, 40), 8),
        (EngineSettings(), LauncherSettings(), [HEAD, *CPUS], 0, Share(0, 8, 0), 2),
        (EngineSettings(), LauncherSettings(memory=40), CPUS, 0, Share(0, 8, 40), 1),
        (EngineSettings(), LauncherSettings(cpus=12), CPUS, 0, Share(0, 12, 0), 1),
        (EngineSettings(), LauncherSettings(), CPUS, 4, Share(0, 4, 0), 2),
        (EngineSettings(name="recorded"), LauncherSettings(), [GPUS], 0, Share(0, 64, 0), 1),
    ],
)
def test_what_a_worker_is_given(
    engine: EngineSettings, settings: LauncherSettings, known: list[Node], workers: int, asked: Share, fit: int
) -> None:
    found = ray_cluster.share(engine, settings, known, workers)
    assert (found, ray_cluster.room(found, known)) == (asked, fit)
    ray_cluster.refuse_what_fits_nowhere(found, known)


def test_what_no_node_has_is_refused_with_what_there_is() -> None:
    with pytest.raises(M3Error) as refused:
        ray_cluster.refuse_what_fits_nowhere(Share(16, 1, 0), [GPUS, GPUS, *CPUS])
    assert str(refused.value) == (
        "launcher=ray: a worker takes 16 GPUs, 1 CPU core (engine.tensor_parallel_size, launcher.cpus,"
        " launcher.memory), and no node of the cluster has that: 2 nodes with 8 GPUs, 64 CPU cores, 500 GB of memory;"
        " 1 node with 16 CPU cores, 60 GB of memory; 1 node with 8 CPU cores, 30 GB of memory; ask for less, or add"
        " such a node"
    )


def test_what_a_node_must_have_in_common(tmp_path: Path) -> None:
    (tmp_path / "probe").touch()
    answers = write_lines(tmp_path / "answers.jsonl", [{"benchmark": "gsm8k", "id": "0", "text": "x"}])
    engine = EngineSettings(name="recorded", answers=str(answers))
    here = survey(str(tmp_path / "probe"), engine)
    assert difference(here, survey(str(tmp_path / "probe"), engine)) == ""
    assert "cannot write in the store" in difference(here, survey(str(tmp_path / "other" / "probe"), engine))
    assert "m3_exp is another version" in difference(here, {**here, "m3": "0" * 64})
    gone = survey(str(tmp_path / "probe"), replace(engine, answers=str(tmp_path / "nowhere.jsonl")))
    assert "its engine is engine.answers=" in difference(here, gone)


def test_no_secret_is_shown_to_the_users_of_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("M3_API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "M3_DATA", "HF_HOME"):
        monkeypatch.setenv(name, "of mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "plugins")
    given = ray_cluster.environment()["env_vars"]
    assert {name for name, value in given.items() if value == "of mine"} == {"M3_DATA", "HF_HOME"}
    assert given["PYTHONPATH"] == f"{config.ROOT}{os.pathsep}{tmp_path / 'plugins'}"
