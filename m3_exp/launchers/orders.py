"""What jobs of a batch system, and the process that watches them, tell one another through files of the store.

launched/RUN/order.json   what the jobs of a run are to do, written before they are submitted
launched/RUN/events/      a journal a process of a job: what its worker did, one event a line

An evaluation goes by its group's number in the order and its own in the group. A result is not sent: it is in the
store. Everyone who follows the journals knows what is settled, so a group whose job died goes on where it stopped.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from m3_exp.events import Answered, Event, Failed, Scored, Speed, There
from m3_exp.groups import Evaluation, Group
from m3_exp.results import Results
from m3_exp.store import Journal, Records, Store, Tail
from m3_exp.types import EngineSettings, Json, M3Error, plain

_FLUSH = 1.0  # seconds: answers and speeds of so long are one line
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Event)}
ENDED = "Ended"  # the last line of a worker that ended by itself

At = tuple[int, int]  # an evaluation: the number of its group in the order, and its own in the group


@dataclass(frozen=True)
class Order:
    """What the workers of a run are to do, and with what. `until`: when the time is over, by the store's clock."""

    plan: str
    engine: EngineSettings
    count: int
    keep: bool
    verify: bool
    silent: float
    groups: tuple[Group, ...]
    until: float | None = None

    def evaluations(self) -> dict[At, Evaluation]:
        """Return all evaluations by their numbers."""
        return {(g, n): one for g, group in enumerate(self.groups) for n, one in enumerate(group.evaluations)}


def folder(store: Store, run: str) -> Path:
    """Return the folder of the journals of a run's jobs."""
    return store.launched(run) / "events"


def orders(store: Store, run: str) -> Records[Order]:
    """Return where the order of a run is kept: under the key `order`."""
    return Records(store, str(store.launched(run).relative_to(store.root)), Order, quiet=True)


def order_of(store: Store, run: str) -> Order:
    """Return the order of a run.

    Raises:
        M3Error: it is not there, or was written by another version of m3.
    """
    order = orders(store, run).get("order")
    if order is None:
        raise M3Error(f"{orders(store, run).path('order')} is not there or cannot be read: give the command again")
    return order


class Diary:
    """Writes down what a worker does. `clock` tells seconds."""

    def __init__(self, journal: Journal, worker: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._journal, self._worker, self._clock = journal, worker, clock
        self._number = -1
        self._tokens: dict[At, list[int]] = {}
        self._speed: Speed | None = None
        self._flushed = -_FLUSH

    def note(self, event: Event, number: int, group: Group) -> None:
        """Take up an event of the worker, which is at the group of this number."""
        self._number = number
        if isinstance(event, Answered):
            self._tokens.setdefault((number, group.evaluations.index(event.evaluation)), []).append(event.tokens)
        elif isinstance(event, Speed):
            self._speed = event
        else:
            self.flush()
            self._write(_fields(event, group))
            return
        if self._clock() - self._flushed >= _FLUSH:
            self.flush()

    def end(self) -> None:
        """Say that the worker ends by itself."""
        self.flush()
        self._write({"event": ENDED})

    def flush(self) -> None:
        """Write down what was held back to be one line."""
        self._flushed = self._clock()
        for (number, evaluation), tokens in self._tokens.items():
            self._write({"event": "Answered", "number": number, "evaluation": evaluation, "tokens": tokens})
        if self._speed is not None:
            self._write({"event": "Speed", **vars(self._speed)})
        self._tokens, self._speed = {}, None

    def _write(self, fields: Json) -> None:
        self._journal.append({"worker": self._worker, "number": self._number, **fields})


def _fields(event: Event, group: Group) -> Json:
    """Return an event as JSON, its evaluation as the number in the group, and of a result whether it is complete."""
    found: Json = {"event": type(event).__name__}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if field.name == "evaluation":
            found["evaluation"] = group.evaluations.index(value)
        elif field.name == "record":
            found["complete"] = not value.result.n_unscored
        else:
            found[field.name] = plain(value)
    return found


@dataclass(frozen=True)
class Said:
    """One line of a worker's journal. `at` is the evaluation that it is about."""

    worker: str
    fields: Json
    at: At | None

    @property
    def settles(self) -> bool:
        """Whether the evaluation has come to its end: it is complete, or failed."""
        name = self.fields["event"]
        return name in (There.__name__, Failed.__name__) or (name == Scored.__name__ and bool(self.fields["complete"]))


class Ledger:
    """What has become of an order, as the journals of its workers say. `settled` are done, or failed."""

    def __init__(self, store: Store, run: str) -> None:
        self.settled: set[At] = set()
        self._tail = Tail(folder(store, run))

    def news(self) -> list[Said]:
        """Return what workers said since the last call."""
        found = []
        for line in self._tail.news():
            worker, number = str(line.pop("worker")), line.pop("number")
            evaluation = line.get("evaluation")
            said = Said(worker, line, None if evaluation is None else (number, evaluation))
            found.append(said)
            if said.at is not None and said.settles:
                self.settled.add(said.at)
        return found


class NotYet(Exception):
    """A result is not to be seen yet."""


def spoken(said: Said, evaluation: Evaluation | None, results: Results) -> Iterator[Event]:
    """Give the events that a line tells of; `evaluation` is the one that it is about. An unknown line tells nothing.

    Raises:
        NotYet: it tells of a result that does not stand in the store yet, as this machine sees it.
    """
    fields = {key: value for key, value in said.fields.items() if key not in ("event", "evaluation", "complete")}
    match said.fields["event"]:
        case "Answered":
            assert evaluation is not None
            yield from (Answered(evaluation, tokens) for tokens in said.fields["tokens"])  # type: ignore[attr-defined]
        case "Scored":
            assert evaluation is not None
            record = results.get(results.tasks.task(evaluation.cell, evaluation.repeat))
            if record is None:
                raise NotYet(str(evaluation))
            yield Scored(evaluation, record)
        case str(name) if name in _KINDS:
            yield _KINDS[name](**fields, **({} if evaluation is None else {"evaluation": evaluation}))
