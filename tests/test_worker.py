"""A worker by itself: what it is given and what it says are plain data, and what is cut short is no failure."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from m3_exp import generating
from m3_exp import worker as worker_module
from m3_exp.engines import recorded
from m3_exp.engines.protocol import EngineDied, Loaded
from m3_exp.engines.recorded import RecordedEngine
from m3_exp.events import Answered, Doing, Done, EngineStarted, Event, Failed, Note, Scored, Started
from m3_exp.generating import Generator
from m3_exp.groups import Evaluation, Group, grouped
from m3_exp.reporting.wandb.tracker import Untracked
from m3_exp.results import Results
from m3_exp.running import Run
from m3_exp.store import Store, decoded
from m3_exp.types import Answer, CellResult, EngineSettings, M3Error, Plan, Recipe, Source, plain
from m3_exp.worker import Graders, Worker
from tests.test_repeat import FIRST, models, request, write_answers

__all__ = ["models"]


def carried(worker: Worker, group: Group) -> list[Event]:
    """What a worker says of a group, up to its last score."""
    return [*worker.carry(group), *worker.finish()]


def planned(models: list[Path], folder: Path) -> tuple[Plan, Store, Group]:
    write_answers(folder / "answers.jsonl", {0: FIRST, 1: FIRST})
    plan, store = request(models, folder)
    (group,) = grouped([Evaluation(plan.cells[0], repeat) for repeat in (1, 0)], Results(store, plan.engine))
    return plan, store, group


def test_groups_and_events_are_plain_data(models: list[Path], tmp_path: Path) -> None:
    plan, store, group = planned(models, tmp_path)
    assert [evaluation.repeat for evaluation in group.evaluations] == [0, 1]
    events = carried(Worker(store, plan.engine, run="r"), decoded(Group, plain(group)))
    kinds = [type(event) for event in events]
    assert [kinds.count(kind) for kind in (Started, EngineStarted, Answered, Scored, Failed)] == [2, 1, 16, 2, 0]
    assert events[-1] == Done(group.key)
    for event in events:
        copy: Event = decoded(type(event), plain(event))
        assert plain(copy) == plain(event)
    again = carried(Worker(store, plan.engine, run="s"), group)
    assert [event for event in again if isinstance(event, Answered | EngineStarted)] == [], "it is in the store"


def test_what_a_closed_worker_was_at_is_no_failure(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store, group = planned(models, tmp_path)
    worker = Worker(store, plan.engine, run="r")

    def killed(*_: object, **__: object) -> None:
        worker.close()
        raise EngineDied("killed")

    monkeypatch.setattr(RecordedEngine, "generate", killed)
    events = carried(worker, group)
    assert [type(event) for event in events if isinstance(event, Started | Scored | Failed)] == [Started]
    assert list(store.failures) == []


def test_experts_are_measured_before_an_engine_starts(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs no weights, as recorded answers, needs nothing measured here."""
    plan, store, group = planned(models, tmp_path)
    monkeypatch.setattr(generating, "wanted", lambda recipe: [recipe])
    monkeypatch.setattr(generating, "ensure", lambda one, store, say, stopped: say(f"measuring {one.dtype}"))

    def unable(*_: object) -> None:
        raise M3Error("no engine here")

    monkeypatch.setattr(Generator, "_start", unable)
    for name, said in (("transformers", [Doing("measuring float32")]), ("recorded", [])):
        events: list[Event] = []
        generator = Generator(replace(plan.engine, name=name), Results(store, plan.engine), "r", events.append)
        with pytest.raises(M3Error, match="no engine here"):
            generator.load(group)
        assert events == said


@pytest.mark.parametrize("late", ["_start", "load"])
def test_a_worker_closed_while_its_engine_starts_does_nothing_more(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    plan, store, group = planned(models, tmp_path)
    worker, engines = Worker(store, plan.engine, run="r"), []
    owner, begin = (Generator, Generator._start) if late == "_start" else (RecordedEngine, RecordedEngine.load)
    end = RecordedEngine.close

    def closed_meanwhile(self: Generator | RecordedEngine, asked: Group) -> object:
        worker.close()
        return begin(self, asked)  # type: ignore[arg-type]

    monkeypatch.setattr(owner, late, closed_meanwhile)
    monkeypatch.setattr(RecordedEngine, "close", lambda self: engines.append(self) or end(self))
    events = carried(worker, group)
    assert not [event for event in events if isinstance(event, Answered | Scored | Failed)]
    assert list(store.failures) == []
    assert len(engines) == 1, "it is ended"


def test_an_evaluation_that_fails_costs_no_second_merge(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store, group = planned(models, tmp_path)
    loads, refusals = [], ["the grader is not fit"]
    load = RecordedEngine.load
    monkeypatch.setattr(RecordedEngine, "load", lambda self, recipe: loads.append(recipe) or load(self, recipe))

    def check(*_: object) -> None:
        if refusals:
            raise M3Error(refusals.pop())

    monkeypatch.setattr(Graders, "check", check)
    both = replace(group, evaluations=(Evaluation(plan.cells[0]), Evaluation(plan.cells[0])))
    events = carried(Worker(store, plan.engine, run="r"), both)
    assert [event.reason for event in events if isinstance(event, Failed)] == ["the grader is not fit"]
    assert [type(event) for event in events if isinstance(event, Scored)] == [Scored]
    assert len(loads) == 1, "its weights stay in the engine"


def test_an_engine_is_started_again_only_for_a_tokenizer_that_cannot_share_it(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store, group = planned(models, tmp_path)
    began: list[str] = []
    start = recorded.start

    def started(settings: EngineSettings, recipe: Recipe, tokenizer: Source, where: Store) -> RecordedEngine:
        began.append(str(tokenizer))
        return start(settings, recipe, tokenizer, where)

    monkeypatch.setattr(recorded, "start", started)
    monkeypatch.setattr(Results, "is_done", lambda *_: False)
    worker = Worker(store, plan.engine, run="r")
    asked = [replace(group, key=str(number), tokenizer=Source(name)) for number, name in enumerate("aabba")]
    counts = [sum(isinstance(event, EngineStarted) for event in worker.carry(one)) for one in asked]
    list(worker.finish())
    assert (counts, began) == ([1, 0, 1, 0, 1], ["a", "b", "a"])


def test_a_worker_takes_one_group_at_a_time(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store, group = planned(models, tmp_path)
    worker, go_on, generate = Worker(store, plan.engine, run="r"), threading.Event(), RecordedEngine.generate

    def slow(self: RecordedEngine, *args: object, **more: object) -> Iterator[Answer]:
        assert go_on.wait(60)
        yield from generate(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(RecordedEngine, "generate", slow)
    first = replace(group, evaluations=group.evaluations[:1])
    assert isinstance(next(iter(worker.carry(first))), Started), "and nobody takes what follows"
    with pytest.raises(RuntimeError, match="at work on another group"):
        worker.carry(group)
    go_on.set()
    worker.wait()
    events = carried(worker, replace(group, evaluations=group.evaluations[1:]))
    kinds = [type(event) for event in events if isinstance(event, Started | Scored | Done)]
    assert kinds == [Scored, Done, Started, Scored, Done]


def test_the_engine_goes_on_while_others_are_scored(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers of the second weights are there before the first ones' scores; both are told in their order."""
    write_answers(tmp_path / "answers.jsonl", {0: FIRST})
    plan, store = request(models, tmp_path, "ratio=grid", "ratio.nodes=3")
    groups = grouped([Evaluation(cell) for cell in plan.cells], Results(store, plan.engine))
    go_on, evaluated = threading.Event(), worker_module.evaluate

    def slow(*given: Any) -> Any:
        assert go_on.wait(60)
        return evaluated(*given)

    monkeypatch.setattr(worker_module, "evaluate", slow)
    worker = Worker(store, plan.engine, run="r")
    events = [event for group in groups for event in worker.carry(group)]
    assert sum(isinstance(event, Answered) for event in events) == 3 * len(FIRST)
    assert not [event for event in events if isinstance(event, Scored | Done)]
    go_on.set()
    events = list(worker.finish())
    assert [type(event) for event in events if isinstance(event, Scored | Done)] == [Scored, Done] * 3
    assert list((store.root / "leases").glob("*")) == []


def test_an_engine_that_died_in_flight_is_loaded_again_and_the_rest_is_asked(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store, group = planned(models, tmp_path)
    loads, deaths = list[Recipe](), list[str]()
    generate, load = RecordedEngine.generate, RecordedEngine.load

    def loaded(self: RecordedEngine, recipe: Recipe) -> Loaded:
        loads.append(recipe)
        deaths.clear()
        return load(self, recipe)

    def dies(self: RecordedEngine, *args: Any, **more: Any) -> Iterator[Answer]:
        for number, answer in enumerate(generate(self, *args, **more)):
            if (len(loads) == 1 and number == 3) or deaths:
                deaths.append("killed" if not deaths else "it holds no weights")
                raise EngineDied(deaths[-1])
            yield answer

    monkeypatch.setattr(RecordedEngine, "load", loaded)
    monkeypatch.setattr(RecordedEngine, "generate", dies)
    events = carried(Worker(store, plan.engine, run="r"), replace(group, evaluations=group.evaluations[:1]))
    assert [event.text for event in events if isinstance(event, Note)] == ["engine restarted: killed"]
    assert [type(event) for event in events if isinstance(event, Scored | Failed)] == [Scored]
    assert sum(isinstance(event, Answered) for event in events) == len(FIRST), "what was answered is not asked again"
    assert len(loads) == 2


def test_scores_that_fall_far_behind_are_waited_for(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_answers(tmp_path / "answers.jsonl", {0: FIRST})
    plan, store = request(models, tmp_path, "ratio=grid", "ratio.nodes=3")
    groups = grouped([Evaluation(cell) for cell in plan.cells], Results(store, plan.engine))
    evaluated = worker_module.evaluate
    monkeypatch.setattr(worker_module, "BEHIND", 1)
    monkeypatch.setattr(worker_module, "evaluate", lambda *given: (time.sleep(0.3), evaluated(*given))[1])
    worker = Worker(store, plan.engine, run="r")
    events = [event for group in groups for event in worker.carry(group)]
    assert sum(isinstance(event, Done) for event in events) >= 1
    assert sum(isinstance(event, Done) for event in worker.finish()) <= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_what_goes_wrong_in_the_run_itself_ends_it(models: list[Path], tmp_path: Path, workers: int) -> None:
    class Broken(Untracked):
        def cell(self, found: CellResult) -> None:
            raise ZeroDivisionError("of the tracker")

    plan, store, _ = planned(models, tmp_path)
    with pytest.raises(ZeroDivisionError, match="of the tracker"):
        Run(plan, store, workers=workers, tracker=Broken()).carry_out()
    outcome = Run(plan, store, workers=workers).carry_out()
    assert (outcome.cells, outcome.done, outcome.cached) == (1, 1, 1)
