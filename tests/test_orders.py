"""What jobs of a batch system and the process that follows them tell one another; Slurm itself is a stand-in here."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from m3_exp import doctor
from m3_exp.command_line import CommandLine
from m3_exp.config import request as composed
from m3_exp.events import Answered, Done, Event, Failed, Known, MoreAnswers, Note, Scored, Speed, Started, There
from m3_exp.groups import Budget, Evaluation, Group, grouped
from m3_exp.heartbeat import Heartbeat, history, workers
from m3_exp.launchers import job, orders, sbatch, slurm
from m3_exp.launchers.job import Job, carry_out
from m3_exp.launchers.orders import Diary, Ledger, NotYet, Order, folder, spoken
from m3_exp.launchers.sbatch import State, Unreachable
from m3_exp.launchers.signs import Sign
from m3_exp.results import Results
from m3_exp.running import Outcome, Run
from m3_exp.store import Journal, Store, Tail
from m3_exp.types import EngineSettings, LauncherSettings, M3Error, Plan, plain
from m3_exp.views import runs as views
from m3_exp.views import status, words
from m3_exp.worker import Worker
from tests.files import write_lines
from tests.test_repeat import FIRST, golds, line, models, request, write_answers

__all__ = ["models"]
JOBS = LauncherSettings(name="slurm")


@pytest.fixture
def planned(models: list[Path], tmp_path: Path) -> tuple[Plan, Store]:
    write_answers(tmp_path / "answers.jsonl", {0: FIRST})
    return request(models, tmp_path, "ratio=grid", "ratio.nodes=3")


def ordered(plan: Plan, store: Store, count: int = 2, run: str = "r") -> Order:
    groups = tuple(grouped([Evaluation(cell) for cell in plan.cells], Results(store, plan.engine)))
    order = Order(plan.identity, plan.engine, count, False, True, 60.0, groups)
    orders.orders(store, run).put("order", order)
    return order


def work(store: Store, run: str, number: int) -> list[Event]:
    """Do what a job does, in this process; return what its worker said."""
    order, name = orders.order_of(store, run), f"worker {number}"
    said: list[Event] = []

    class Heard(Diary):
        def note(self, event: Event, number: int, group: Group) -> None:
            said.append(event)
            super().note(event, number, group)

    with Journal(folder(store, run)) as journal, Sign(store, run, name) as sign:
        worker = Worker(store, order.engine, run=run, name=name)
        carry_out(order, number, worker, Ledger(store, run), Heard(journal, name), sign)
    return said


# ------------------------------------------------------------------------------------------------------- journals


def test_a_tail_gives_each_whole_line_once(tmp_path: Path) -> None:
    tail = Tail(tmp_path)
    assert tail.news() == []
    with Journal(tmp_path) as one, Journal(tmp_path) as other:
        one.append({"a": 1})
        assert tail.news() == [{"a": 1}]
        other.append({"b": 1})
        one.append({"a": 2})
        assert sorted(map(str, tail.news())) == ["{'a': 2}", "{'b': 1}"]
        assert tail.news() == []


def test_a_tail_waits_for_a_line_that_is_being_written_and_passes_a_damaged_one(tmp_path: Path) -> None:
    with Journal(tmp_path / "whole") as journal:
        for number in range(3):
            journal.append({"n": number})
    (written,) = (tmp_path / "whole").iterdir()
    data = written.read_bytes()
    torn, tail = tmp_path / "torn" / "1.jsonl", Tail(tmp_path / "torn")
    torn.parent.mkdir()
    for end in range(len(data) // 2):
        torn.write_bytes(data[:end])
        assert tail.news() == ([{"n": 0}] if data[:end].count(b"\n") and data[end - 1 : end] == b"\n" else [])
    torn.write_bytes(data.replace(b'"n":1', b'"n":7'))
    assert tail.news() == [{"n": 2}]


def test_what_a_worker_says_comes_back_the_same(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    order = ordered(plan, store, 1)
    group, seconds = order.groups[0], iter([0.0, 0.5, 5.0, 5.0])
    one = group.evaluations[0]
    events: list[Event] = [
        Started(one), Known(one, 3), MoreAnswers(one, 2), Note("x"), Failed(one, "why"), There(one, 8),
        Done(group.key),
    ]  # fmt: skip
    with Journal(folder(store, "r")) as journal:
        diary = Diary(journal, "worker 7", lambda: next(seconds, 9.0))
        for event in [Answered(one, 1), Speed(3.0), Answered(one, 2), Speed(4.0), Answered(one, 3), *events]:
            diary.note(event, 0, group)
        diary.end()
    ledger, results = Ledger(store, "r"), Results(store, plan.engine)
    said = ledger.news()
    heard = [e for line in said for e in spoken(line, one if line.at else None, results)]
    assert [e for e in heard if isinstance(e, Answered)] == [Answered(one, tokens) for tokens in (1, 2, 3)]
    assert [e for e in heard if isinstance(e, Speed)][-1] == Speed(4.0)
    assert heard[-len(events) :] == events
    assert {line.worker for line in said} == {"worker 7"}
    assert said[-1].fields["event"] == orders.ENDED
    assert ledger.settled == {(0, 0)}


def test_an_order_comes_back_the_same(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    order = ordered(plan, store)
    assert plain(orders.order_of(store, "r")) == plain(order)
    with pytest.raises(M3Error, match=r"launched/nobody/order\.json is not there"):
        orders.order_of(store, "nobody")


# ----------------------------------------------------------------------------------------------------------- jobs


def test_jobs_share_an_order_and_begin_apart(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    order = ordered(plan, store, 3)
    assert len(order.groups) == 3
    first: dict[int, Group] = {}

    def begun(number: int) -> None:
        events = work(store, "r", number)
        done = [event for event in events if isinstance(event, Started)]
        first[number] = next((g for g in order.groups if done and done[0].evaluation in g.evaluations), order.groups[0])

    begun(2)
    assert first[2] is order.groups[1]
    assert work(store, "r", 1) == [], "its sister has done all, and nothing is looked up again"
    assert list(store.workers) == []


def test_what_failed_in_one_job_is_not_tried_by_the_next(planned: tuple[Plan, Store], tmp_path: Path) -> None:
    plan, store = planned
    known = [{"benchmark": "gsm8k", "id": key, "text": f"The answer is: {gold}"} for key, gold in golds(8)[:-1]]
    write_lines(tmp_path / "answers.jsonl", known)
    ordered(plan, store)
    events = work(store, "r", 1)
    assert [type(event) for event in events if isinstance(event, Failed | There)] == [Failed] * 3
    assert work(store, "r", 2) == []


def test_a_job_goes_on_with_a_group_of_other_inputs_where_others_have_those_of_its_own(
    planned: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = planned
    order = ordered(plan, store, 1)
    paused: list[float] = []
    held = [store.leases.take(group.key, worker="another") for group in order.groups[1:]]

    def pause(seconds: float) -> None:
        paused.append(seconds)
        if held:
            held.pop().__exit__(None, None, None)

    with Journal(folder(store, "r")) as journal, Sign(store, "r", "worker 1") as sign:
        worker = Worker(Store(store.root), order.engine, run="r")
        carry_out(order, 1, worker, Ledger(store, "r"), Diary(journal, "worker 1"), sign, pause)
    assert len(paused) == 2, "once for each of the groups that another had at last"
    ledger = Ledger(store, "r")
    ledger.news()
    assert ledger.settled == {(0, 0), (1, 0), (2, 0)}


def test_a_checkpoint_is_the_same_job_again_and_lets_go(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    one, gone = Job(str(tmp_path), "r", 3), []
    one._let_go = lambda: gone.append(True)
    again = one.checkpoint()
    assert gone == [True]
    assert again.function == Job(str(tmp_path), "r", 3)
    assert vars(again.function) == {"store": str(tmp_path), "run": "r", "number": 3}


# --------------------------------------------------------------------------------------------------------- driver


class Stand:
    """Stands in for Slurm: jobs are threads of this process, or nothing at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Store, *, at_work: bool = True) -> None:
        self.store, self.at_work = store, at_work
        self.jobs: list[Job] = []
        self.threads: list[threading.Thread] = []
        self.cancelled: list[tuple[str, ...]] = []
        self.answers: Iterator[Any] = iter(())  # what squeue says before it tells the truth
        monkeypatch.setattr(slurm, "POLL", 0.0)
        monkeypatch.setattr(slurm, "TICK", 0.01)
        monkeypatch.setattr(slurm, "_LATE", 1.0)
        monkeypatch.setattr(job, "PAUSE", 0.01)
        for name in ("submit", "states", "cancel"):
            monkeypatch.setattr(sbatch, name, getattr(self, name))
        monkeypatch.setattr(sbatch, "lacks", lambda: None)
        monkeypatch.setattr(sbatch, "living", set)

    def submit(self, engine: EngineSettings, settings: LauncherSettings, jobs: list[Job], folder: Path) -> str:
        self.jobs = jobs
        for one in jobs if self.at_work else ():
            self.threads.append(threading.Thread(target=work, args=(Store(self.store.root), one.run, one.number)))
            self.threads[-1].start()
        return "12"

    def states(self, run: str) -> list[State]:
        answer = next(self.answers, None)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, list):
            return answer
        ended = "COMPLETED" if self.threads else "FAILED"
        alive = [thread.is_alive() for thread in self.threads] or [False] * len(self.jobs)
        return [State(f"12_{n}", n + 1, "RUNNING" if one else ended, "None") for n, one in enumerate(alive)]

    def cancel(self, run: str, *options: str) -> None:
        self.cancelled.append(options)

    def carried(self, plan: Plan, said: list[str], settings: LauncherSettings = JOBS, **more: Any) -> Outcome:
        run = Run(plan, self.store, launcher=settings, workers=2, **more)
        run.progress.say = said.append  # type: ignore[method-assign]
        self.run = run
        outcome = run.carry_out()
        for thread in self.threads:
            thread.join()
        return outcome


def test_a_run_follows_its_jobs_through_an_absence_of_slurm(
    planned: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = planned
    stand, said = Stand(monkeypatch, store), []
    stand.answers = iter([Unreachable("squeue: no controller")] * 3)
    outcome = stand.carried(plan, said)
    assert (outcome.cells, outcome.done, outcome.left, outcome.generated) == (3, 3, 0, 24)
    assert [text for text in said if "answer" in text and "Slurm" in text] == [
        "Slurm does not answer, its jobs go on: squeue: no controller", "Slurm answers again",
    ]  # fmt: skip
    assert (stand.run.progress.done, stand.run.progress.total) == (24, 24)
    assert [job.number for job in stand.jobs] == [1, 2]
    assert stand.cancelled == [("--state=PENDING",)], "of those that wait; the others end by themselves"


def test_no_job_left_is_an_end_with_a_reason(planned: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, store = planned
    stand, said = Stand(monkeypatch, store, at_work=False), []
    outcome = stand.carried(plan, said)
    assert (outcome.done, outcome.left) == (0, 3)
    assert said[-1].startswith("no job is left, 3 cells are: job 12_0 ended (FAILED) (and 1 other); logs in ")


def test_a_plan_whose_jobs_wait_ends_with_its_time(
    planned: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = planned
    stand, said, now = Stand(monkeypatch, store, at_work=False), [], [0.0]

    def waiting() -> Iterator[list[State]]:
        while not stand.cancelled:
            now[0] += 1000.0
            yield [State("12_0", 1, "PENDING", "Resources")]

    stand.answers = waiting()
    outcome = stand.carried(plan, said, budget=Budget(hours=1), clock=lambda: now[0])
    assert (outcome.left, now[0] >= 3600) == (3, True)
    assert stand.cancelled[0] == ("--state=PENDING",)
    assert [text for text in said if "wait in" in text] == ["all jobs wait in Slurm's queue: Resources"]
    assert not any("no job is left" in text for text in said)


def test_a_worker_that_is_lost_is_named_and_its_answers_count_once(
    planned: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = planned
    stand, said = Stand(monkeypatch, store, at_work=False), []

    def states() -> Iterator[list[State]]:
        for name in (*["RUNNING"] * 3, *["NODE_FAIL"] * 10_000):
            ended = bool(stand.threads) and not stand.threads[0].is_alive()
            yield [State("12_0", 1, name, "None"), State("12_1", 2, "COMPLETED" if ended else "RUNNING", "None")]

    stand.answers = states()

    def submit(engine: EngineSettings, settings: LauncherSettings, jobs: list[Job], where: Path) -> str:
        run, order = jobs[0].run, orders.order_of(store, jobs[0].run)
        with Journal(folder(store, run)) as journal:
            lost = Diary(journal, "worker 1")
            one = order.groups[0].evaluations[0]
            for event in (Started(one), Known(one, 0), Answered(one, 5), Answered(one, 5), Note("alive")):
                lost.note(event, 0, order.groups[0])
        stand.threads.append(threading.Thread(target=lambda: (threading.Event().wait(0.5), work(store, run, 2))))
        stand.threads[0].start()
        return "12"

    monkeypatch.setattr(sbatch, "submit", submit)
    outcome = stand.carried(plan, said)
    assert (outcome.done, outcome.left) == (3, 0)
    assert "worker 1 lost: job 12_0 ended (NODE_FAIL); its cells are taken over" in said
    assert stand.run.progress.done == 26, "24 of worker 2, and 2 that the lost one told of but that the store never had"


@pytest.mark.parametrize("at", ["submitted", "wait in Slurm's queue"])
def test_an_interrupt_at_any_time_cancels_the_jobs(
    planned: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch, at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, store = planned
    stand = Stand(monkeypatch, store, at_work=False)

    def waiting() -> Iterator[list[State]]:
        while not stand.cancelled:
            yield [State("12_0", 1, "PENDING", "Resources")]

    def interrupted(text: str) -> None:
        if at in text:
            raise KeyboardInterrupt

    stand.answers = waiting()
    run = Run(plan, store, launcher=JOBS, workers=2)
    run.progress.say = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run.carry_out()
    assert stand.cancelled == [()]
    assert f"the jobs m3-{run.id} of this run are cancelled" in capsys.readouterr().err


def test_what_joined_jobs_finish_meanwhile_is_not_submitted_again(
    planned: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = planned
    stand, said = Stand(monkeypatch, store), []
    ordered(plan, store, 1, "old")

    def living() -> set[str]:
        assert len(work(store, "old", 1)) > 0
        return {"old"}

    monkeypatch.setattr(sbatch, "living", living)
    outcome = stand.carried(plan, said)
    assert (outcome.done, outcome.cached, outcome.left, outcome.generated) == (3, 3, 0, 0)
    assert (stand.jobs, stand.cancelled) == ([], []), "they are another command's"
    assert "jobs of an earlier command are at work on this plan (m3-old in squeue): they are waited for" in said[1]


def test_what_joined_jobs_had_failed_before_is_tried_again(
    planned: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan, store = planned
    stand, said = Stand(monkeypatch, store), []
    ordered(plan, store, 1, "old")
    (tmp_path / "answers.jsonl").rename(tmp_path / "kept.jsonl")
    write_lines(tmp_path / "answers.jsonl", [{"benchmark": "gsm8k", "id": golds(8)[0][0], "text": "The answer is: 1"}])
    assert len([event for event in work(store, "old", 1) if isinstance(event, Failed)]) == 3
    write_answers(tmp_path / "answers.jsonl", {0: FIRST})
    plan, _ = request(
        [Path(str(plan.cells[0].recipe.base)), *map(Path, map(str, plan.cells[0].recipe.experts))], tmp_path
    )
    ordered(plan, store, 1, "old")
    monkeypatch.setattr(sbatch, "living", lambda: {"old"})
    outcome = stand.carried(plan, said)
    assert (outcome.done, outcome.left, outcome.failures) == (len(plan.cells), 0, ())
    assert [one.number for one in stand.jobs] != []


def test_of_what_is_found_again_only_the_new_answers_count() -> None:
    tally = slurm._Tally()
    tally.begin()
    assert [tally.answers(n) for n in (0, 1, 1)] == [0, 1, 1]
    tally.begin()
    assert [tally.answers(n) for n in (3, 1)] == [1, 1]
    assert tally.more(4) == 4
    tally.begin()
    assert (tally.more(4), tally.more(1)) == (0, 1)


def test_a_result_that_is_seen_late_is_waited_for(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    order = ordered(plan, store, 1)
    evaluation = order.groups[0].evaluations[0]
    said = orders.Said("worker 1", {"event": "Scored", "complete": True}, (0, 0))
    with pytest.raises(NotYet):
        list(spoken(said, evaluation, Results(store, plan.engine)))
    events = work(store, "r", 1)
    (scored,) = spoken(said, evaluation, Results(store, plan.engine))
    made = next(event for event in events if isinstance(event, Scored) and event.evaluation == evaluation)
    assert isinstance(scored, Scored)
    assert plain(scored.record.result) == plain(made.record.result)


def test_a_job_that_nobody_waits_for_is_seen_by_all(planned: tuple[Plan, Store]) -> None:
    plan, store = planned
    first = Run(plan, store)
    with Heartbeat(store, first.id, first.state, called="first"):
        pass
    with Sign(store, first.id, "worker 1", "job 12_0"):
        second = Run(plan, store)
        with Heartbeat(store, second.id, second.state, called="second"):
            (worker,) = workers(store)
            assert (worker.alive, worker.place) == (True, "job 12_0")
            shown = words.store(views.state(CommandLine((f"store={store.root}",))))
        assert [line for line in shown if line.startswith("at work by itself: worker 1: ")] != []
        assert {run.name: run.state for run in history(store)} == {"first": "runs", "second": "stopped"}
    assert {run.name: run.state for run in history(store)} == {"first": "stopped", "second": "stopped"}


# ------------------------------------------------------------------------------------------------ what is refused


def test_what_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbatch.shutil, "which", lambda name: None)
    monkeypatch.setattr(sbatch.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(
        M3Error, match=r"^launcher=slurm needs Slurm's sbatch, which is not here: run m3 on a login node"
    ):
        slurm.workers(EngineSettings(), JOBS)
    monkeypatch.setattr(sbatch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(M3Error, match=r"^launcher=slurm needs submitit, .*: pip install 'm3_exp\[slurm\]'$"):
        slurm.workers(EngineSettings(), JOBS)


@pytest.mark.parametrize("key", ["job-name", "job_name", "array", "signal"])
def test_options_that_m3_relies_on_are_refused(key: str) -> None:
    with pytest.raises(M3Error, match=f"^launcher.sbatch.{key} is set by m3 itself; leave it out$"):
        sbatch.check(replace(JOBS, sbatch={key: "x"}))


def test_the_plan_and_the_doctor_say_what_slurm_would_get(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr(sbatch.shutil, "which", lambda name: None)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    write_answers(tmp_path / "answers.jsonl", {0: FIRST})
    asked = composed([
        *line(models, tmp_path), "evaluator=[gsm8k]", "ratio=grid", "ratio.nodes=3", "launcher=slurm", "workers=2",
        "launcher.partition=gpus", "launcher.account=me", "launcher.qos=high", "launcher.gres=gpu:a100:2",
        "launcher.constraint=ib", "launcher.cpus=4", "launcher.memory=64", "launcher.minutes=90",
        "launcher.setup=[module load cuda]", "launcher.sbatch={mail-user: someone}",
    ])  # fmt: skip
    found = status.plan(asked)
    shown = words.plan(asked, found, None, status.jobs(asked))
    text = "\n".join(shown[shown.index("#!/bin/bash") :])
    for option in (
        "partition=gpus", "account=me", "qos=high", "gres=gpu:a100:2", "constraint=ib", "cpus-per-task=4", "mem=64GB",
        "time=90", "mail-user=someone", "signal=USR2@90", "array=0-1%2", "job-name=m3-RUN", "open-mode=append",
        "requeue",
    ):  # fmt: skip
        assert f"#SBATCH --{option}\n" in text
    setup, check, *_ = text[text.index("module load cuda") :].splitlines()
    assert (setup, check.startswith("[ $? = 0 ] || { echo 'launcher.setup failed: module load cuda'")) == (
        "module load cuda", True,
    )  # fmt: skip
    assert "hf_secret" not in text
    (one,) = doctor._slurm(asked)
    assert (one.ok, one.needed) == (False, True)
    assert status.jobs(replace(asked, launcher=LauncherSettings())) == {}


@pytest.mark.parametrize(
    ("partition", "gres"),
    [(None, "gpu:2"), ("gpus", "gpu:2"), ("cpus", None), ("cpus,gpus", "gpu:2"), ("nowhere", None)],
)
def test_gpus_are_asked_for_where_the_partition_has_some(
    monkeypatch: pytest.MonkeyPatch, partition: str | None, gres: str | None
) -> None:
    monkeypatch.setattr(sbatch.shutil, "which", lambda name: name)
    monkeypatch.setattr(sbatch, "_told", lambda command: "gpus*|gpu:a100:8\ncpus|(null)\n")
    engine = EngineSettings(tensor_parallel_size=2)
    assert sbatch.parameters(engine, replace(JOBS, partition=partition), "r")["gres"] == gres
    assert sbatch.parameters(replace(engine, name="recorded"), JOBS, "r")["gres"] is None


def test_the_last_words_of_a_job_are_not_slurms_own(tmp_path: Path) -> None:
    lines = [
        "Traceback (most recent call last):", "ModuleNotFoundError: No module named 'vllm'", "",
        "submitit WARNING (2026) - Bypassing signal SIGCONT", "srun: error: node1: task 0: Exited with exit code 1",
        "slurmstepd-node1: error: *** STEP 4.0 ON node1 CANCELLED AT 2026-11-29T02:03:18 ***", "srun: got SIGCONT",
    ]  # fmt: skip
    (tmp_path / "12_3_0_log.err").write_text("\n".join(lines))
    assert sbatch.last_words(tmp_path, "12_3") == "ModuleNotFoundError: No module named 'vllm'"
    assert sbatch.last_words(tmp_path, "12_4") == ""
