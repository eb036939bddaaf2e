"""What of one set of weights is in flight at an engine, and who is told of each answer.

The members of a flight are evaluations, each in a thread of its own: they `ask`, and are given the answers to what they
asked as these finish. The thread that has the engine calls `fly`. The first prompts depart together, in the order of
the members, when every member has asked or left; what is asked later joins them. So no thread's speed decides what is
asked together. What is asked `alone` waits until nothing else is in flight.
"""

import contextlib
import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue

from m3_exp.busy import Meter
from m3_exp.engines.protocol import Batch, Ended, Engine, EngineDied, Rehearsing
from m3_exp.types import Answer, M3Error

Ready = Callable[[], Engine]  # gives the engine with the weights in it


@dataclass(eq=False)
class _Asked:
    """What a member waits for: the answers to a batch; without one, that the weights are in the engine."""

    member: int
    batch: Batch | None
    alone: bool = False
    repeat: int = 0
    left: int = 0  # answers that are to come
    replies: SimpleQueue[Answer | Ended | Exception] = field(default_factory=SimpleQueue)


class Flight:
    """See the module's docstring. Members go by number; `followers` are those that others' departure waits for not."""

    def __init__(self, members: int, meter: Meter, followers: Collection[int] = ()) -> None:
        self._meter = meter
        self._aboard = set(range(members))
        self._unheard = self._aboard - set(followers)  # members that have asked for nothing yet
        self._changed = threading.Condition()
        self._waiting: list[_Asked] = []
        self._flying: dict[int, _Asked] = {}
        self._engine: Engine | None = None  # where batches are in flight, which others may join
        self._numbers = itertools.count()

    # ------------------------------------------------------------------------------------------------- of members

    def ask(self, member: int, batch: Batch | None, *, alone: bool = False, repeat: int = 0) -> Iterator[Answer]:
        """Give the answers to a batch as they finish; without a batch, wait until the weights are in the engine.

        Raises:
            EngineDied: the engine did; the answers that were given stand.
            M3Error: the weights or the batch are refused.
            Exception: what else `Ready` raised.
        """
        asked = _Asked(member, batch, alone, repeat, batch.requests if batch else 0)
        with self._changed:
            if batch is not None:
                self._unheard.discard(member)
            if self._engine is not None and batch is not None and not alone:
                self._submit(self._engine, [asked])
            else:
                self._waiting.append(asked)
            self._changed.notify_all()
        while True:
            match asked.replies.get():
                case Answer() as answer:
                    yield answer
                case Ended(""):
                    return
                case Ended(refused):
                    raise M3Error(refused)
                case Exception() as error:
                    raise error

    def leave(self, member: int) -> None:
        """Say that a member asks for nothing more."""
        with self._changed:
            self._aboard.discard(member)
            self._unheard.discard(member)
            self._changed.notify_all()

    # ------------------------------------------------------------------------------ of the thread with the engine

    def fly(self, ready: Ready, died: Callable[[EngineDied], None]) -> None:
        """Serve the members until all have left; `died` is told of every death of the engine."""
        while asked := self._next():
            try:
                engine = ready()
                if asked[0].batch is None:
                    self._tell(asked, Ended())
                elif asked[0].alone:
                    self._fly_alone(engine, asked[0], asked[0].batch)
                else:
                    self._fly_together(engine, asked)
            except Exception as error:  # whoever waits for answers is told, and decides
                if isinstance(error, EngineDied):
                    died(error)
                with self._changed:
                    self._engine, flying, self._flying = None, list(self._flying.values()), {}
                self._tell([one for one in asked if one not in flying] + flying, error)

    def _next(self) -> list[_Asked]:
        """Wait for what is served next: the weights, else all that goes together, else one that goes alone."""
        self._meter.turn("other")
        with self._changed:
            while self._aboard:
                served = [one for one in self._waiting if one.batch is None]
                if not served and not self._unheard:
                    served = sorted((one for one in self._waiting if not one.alone), key=lambda one: one.member)
                    served = served or sorted(self._waiting, key=lambda one: one.member)[:1]
                if served:
                    self._waiting = [one for one in self._waiting if one not in served]
                    return served
                self._changed.wait()
        return []

    def _fly_together(self, engine: Engine, asked: Sequence[_Asked]) -> None:
        with self._changed:
            self._submit(engine, asked)
            self._engine = engine
        while True:
            with contextlib.closing(engine.collect()) as replies:  # type: ignore[type-var]
                for number, reply in replies:
                    self._told(engine, number, reply)
                    if self._flying and not self._aboard:  # nobody wants the rest
                        break
            with self._changed:
                if not self._flying or not self._aboard:
                    self._engine, self._flying = None, {}
                    return

    def _submit(self, engine: Engine, asked: Sequence[_Asked]) -> None:
        numbered = {next(self._numbers): one for one in asked}
        self._flying |= numbered
        self._count(engine)
        with contextlib.suppress(EngineDied):  # `collect` will raise it
            engine.submit({number: one.batch for number, one in numbered.items() if one.batch is not None})

    def _told(self, engine: Engine, number: int, reply: Answer | Ended) -> None:
        with self._changed:
            asked = self._flying[number]
            if isinstance(reply, Ended):
                del self._flying[number]
            else:
                asked.left -= 1
            self._count(engine)
        self._tell([asked], reply)

    def _fly_alone(self, engine: Engine, asked: _Asked, batch: Batch) -> None:
        if isinstance(engine, Rehearsing):
            engine.examples = batch.examples
        answers = engine.generate(batch.prompts, batch.sampling, batch.tokenizer, repeat=asked.repeat)
        with contextlib.closing(answers):  # type: ignore[type-var]
            self._meter.flying(asked.left, at_once(engine))
            for answer in answers:
                asked.left -= 1
                self._meter.flying(asked.left, at_once(engine))
                self._tell([asked], answer)
                if not self._aboard:
                    return
        self._tell([asked], Ended())

    def _count(self, engine: Engine) -> None:
        self._meter.flying(sum(one.left for one in self._flying.values()), at_once(engine))

    def _tell(self, asked: Sequence[_Asked], reply: Answer | Ended | Exception) -> None:
        for one in asked:
            one.replies.put(reply)


def at_once(engine: Engine) -> int:
    """Return how many requests an engine takes at a time, 1 where it does not say."""
    known = engine.conditions.get("max_num_seqs")
    return known if isinstance(known, int) else 1
