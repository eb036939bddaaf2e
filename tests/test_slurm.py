"""launcher=slurm on a Slurm of one machine, without accounting: the tables of launcher=local, whatever is killed."""

import os
import pickle
import pickletools
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from m3_exp import config
from m3_exp.command_line import ROOT, CommandLine
from m3_exp.heartbeat import workers
from m3_exp.launchers import sbatch, slurm
from m3_exp.reporting.tables.formats import FORMATS
from m3_exp.running import Outcome, Run
from m3_exp.store import Store
from m3_exp.types import LauncherSettings, M3Error, Plan
from m3_exp.views import tables
from m3_exp.views.lookup import Lookup
from tests import slurm_cluster
from tests.slurm_cluster import slurm as told
from tests.test_repeat import FIRST, files, line, models, request, write_answers

__all__ = ["models"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOBS = LauncherSettings(name="slurm", minutes=10)
# In the processes of jobs an answer comes 0.4 s after the other.
SLOW = """
import time
from m3_exp.engines import recorded
generate = recorded.RecordedEngine.generate
def slow(*args, **more):
    for answer in generate(*args, **more):
        time.sleep(0.4)
        yield answer
recorded.RecordedEngine.generate = slow
"""


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    pytest.importorskip("submitit")
    try:
        with slurm_cluster.running(), pytest.MonkeyPatch.context() as patched:
            patched.setattr(slurm, "POLL", 0.5)
            patched.setattr(slurm, "TICK", 0.1)
            patched.setenv("PYTHONPATH", str(ROOT))
            patched.setenv("OPENBLAS_NUM_THREADS", "1")
            yield
    except slurm_cluster.NotHere as reason:
        pytest.skip(f"no Slurm here: {reason}")


class Followed:
    """A run under launcher=slurm in a thread of its own, and what it said."""

    def __init__(self, plan: Plan, store: Store, workers: int = 2, settings: LauncherSettings = JOBS) -> None:
        self.store, self.said = store, []
        self._run = Run(plan, store, launcher=settings, workers=workers)
        self._run.progress.say = self.said.append  # type: ignore[method-assign]
        self.id = self._run.id
        self._outcome: list[Outcome] = []
        self._thread = threading.Thread(target=lambda: self._outcome.append(self._run.carry_out()), daemon=True)
        self._thread.start()

    def until(self, true: Callable[[], object]) -> None:
        """Wait until something holds while the run goes on."""
        end = time.monotonic() + 240
        while not true():
            assert self._thread.is_alive(), self.said
            assert time.monotonic() < end, (self.said, told("squeue", "--states=all"))
            time.sleep(0.05)

    def end(self) -> Outcome:
        """Wait for its end."""
        self._thread.join(300)
        assert self._outcome, self.said
        return self._outcome[0]

    @property
    def answers(self) -> int:
        return sum(len(self.store.answers(path.name).read()) for path in (self.store.root / "answers").glob("*"))


@pytest.fixture
def planned(models: list[Path], tmp_path: Path) -> tuple[Plan, Store]:
    write_answers(tmp_path / "answers.jsonl", {0: FIRST})
    return request(models, tmp_path, "ratio=grid", "ratio.nodes=3")


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'slow'}:{ROOT}")


def nothing_left(run: str, store: Store) -> None:
    assert not any(state.alive for state in sbatch.states(run))
    assert list(store.workers) == []
    assert not list((store.root / "leases").glob("*.json"))


def each_once(store: Store, cells: int) -> None:
    """Every answer is there, and none was generated twice."""
    held = [store.answers(path.name).read() for path in (store.root / "answers").glob("*")]
    assert sorted(len(answers) for answers in held) == [len(FIRST)] * cells
    assert all(set(Counter(one.id for one in answers).values()) == {1} for answers in held)


def test_tables_are_those_of_local_workers(models: list[Path], tmp_path: Path, planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    local = Store(tmp_path / "local")
    Run(plan, local).carry_out()
    run = Followed(plan, store, 3)
    run.until(lambda: (store.launched(run.id) / "order.json").exists())
    outcome = run.end()
    assert (outcome.cells, outcome.done, outcome.left, outcome.failures) == (3, 3, 0, ())
    assert (outcome.generated, outcome.engine_starts >= 1) == (24, True)
    nothing_left(run.id, store)
    each_once(store, 3)
    kinds = ("results", "answer_sets")
    assert files(store, *kinds) == files(local, *kinds)
    asked = [*line(models, tmp_path), "evaluator=[gsm8k]", "ratio=grid", "ratio.nodes=3"]
    shown = [
        tables.looked_up(Lookup.of(config.compose(CommandLine((*asked, f"store={one.root}")))))
        for one in (store, local)
    ]
    for name in ("csv", "md", "html", "tex"):
        one, other = (FORMATS[name](table) for table in shown)
        assert one == other
    assert "50.0" in FORMATS["csv"](shown[0])

    folder = store.launched(run.id)
    assert folder.stat().st_mode & 0o777 == 0o700
    (pickled, *_) = folder.glob("*_submitted.pkl")
    named = {str(arg) for code, arg, _ in pickletools.genops(pickled.read_bytes()) if "UNICODE" in code.name}
    assert {"m3_exp.launchers.job", "Job", run.id} <= named
    assert pickle.loads(pickled.read_bytes()).function.store == str(store.root)
    (sent,) = folder.glob("*_submission.sh")
    assert sent.read_text() == sbatch.script(plan.engine, JOBS, 3, folder, run.id)


@pytest.mark.usefixtures("slow")
def test_what_a_killed_job_had_is_taken_over_at_the_last_answer(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    run = Followed(plan, store)
    run.until(lambda: run.answers >= 2 and any(worker.cell for worker in workers(store)))
    shown = next(worker for worker in workers(store) if worker.cell)
    assert shown.alive
    assert shown.place.startswith("job ")
    assert f"{shown.name}: {os.uname().nodename}, job " in str(shown)
    os.killpg(os.getpgid(shown.pid), signal.SIGKILL)
    lost = f"{shown.name} lost: {os.uname().nodename}, {shown.place}, 0 cells, last sign of life"
    run.until(lambda: any(str(worker).startswith(lost) for worker in workers(store)))
    run.until(lambda: any(f"{shown.name} lost: {shown.place} ended (" in said for said in run.said))
    outcome = run.end()
    assert (outcome.done, outcome.left, outcome.failures) == (3, 0, ())
    assert 18 < outcome.generated <= 24, "what it had not told of is found in the store"
    each_once(store, 3)
    nothing_left(run.id, store)


@pytest.mark.usefixtures("slow")
def test_jobs_whose_time_ends_or_that_are_preempted_go_back_and_on(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    run = Followed(plan, store)
    run.until(lambda: run.answers >= 2 and len([worker for worker in workers(store) if worker.cell]) == 2)
    first, second = sbatch.states(run.id)
    told("scancel", "--signal=USR2", first.job)
    told("scontrol", "requeue", second.job)
    run.until(lambda: sum("back in Slurm's queue" in said for said in run.said) == 2)
    held = run.answers
    assert 2 <= held < 24
    assert workers(store) == []
    assert not list((store.root / "leases").glob("*.json"))
    outcome = run.end()
    assert (outcome.done, outcome.left, outcome.failures) == (3, 0, ())
    assert 24 - held <= outcome.generated <= 24
    assert not any("lost" in said for said in run.said)
    each_once(store, 3)
    nothing_left(run.id, store)


def test_jobs_that_end_at_once_end_the_run(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    run = Followed(plan, store, 2, replace(JOBS, setup=("true # fine", "module_is_not_here load cuda")))
    outcome = run.end()
    assert (outcome.done, outcome.left) == (0, 3)
    assert "no job is left, 3 cells are: " in run.said[-1]
    assert "launcher.setup failed: module_is_not_here load cuda" in run.said[-1]
    assert run.said[-1].count("\n") == 0
    nothing_left(run.id, store)


def test_cancelled_jobs_end_the_run(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    run = Followed(plan, store, 2, replace(JOBS, partition="later"))
    run.until(lambda: any("all jobs wait in Slurm's queue: PartitionDown" in said for said in run.said))
    sbatch.cancel(run.id)
    outcome = run.end()
    assert (outcome.done, outcome.left) == (0, 3)
    assert "no job is left, 3 cells are: job " in run.said[-1]
    assert "ended (CANCELLED)" in run.said[-1]


def test_an_interrupt_cancels_the_jobs(planned: tuple[Plan, Store], capfd: pytest.CaptureFixture[str]) -> None:
    plan, store = planned
    run = Run(plan, store, launcher=replace(JOBS, partition="later"), workers=2)

    def interrupted(text: str) -> None:
        if "all jobs wait" in text:
            assert len(sbatch.states(run.id)) == 2
            raise KeyboardInterrupt

    run.progress.say = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run.carry_out()
    nothing_left(run.id, store)
    assert f"the jobs m3-{run.id} of this run are cancelled" in capfd.readouterr().err


def test_jobs_that_nobody_waits_for_are_joined(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    alone = replace(JOBS, partition="later", wait=False)
    first = Followed(plan, store, 1, alone)
    assert first.end().left == 3
    again = Followed(plan, store, 1, alone)
    assert again.end().left == 3
    assert any("none is submitted beside them" in said for said in again.said)
    assert not store.launched(again.id).exists()
    told("scontrol", "update", "PartitionName=later", "State=UP")
    try:
        joined = Followed(plan, store, 1)
        outcome = joined.end()
    finally:
        told("scontrol", "update", "PartitionName=later", "State=DOWN")
    assert (outcome.done, outcome.left, outcome.failures) == (3, 0, ())
    assert any("they are waited for" in said for said in joined.said)
    assert not store.launched(joined.id).exists()
    each_once(store, 3)


def test_what_slurm_refuses_is_one_line_of_its_own(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    with pytest.raises(M3Error, match=r"^sbatch refuses the jobs: .*invalid partition specified: nowhere[^\n]*$"):
        Run(plan, store, launcher=replace(JOBS, partition="nowhere"), workers=2).carry_out()
    assert list(store.failures) == []
