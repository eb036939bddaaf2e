"""What a job of a batch system runs: a worker that carries out the order of its run, beside other jobs.

A job needs nothing but the store. It begins at another group than its sisters, leaves those that others have, and ends
when every evaluation is done or failed, so it takes over what a job that died has left.

    USR2   the time of the job is nearly over: it lets go of what it is at, puts itself back into the queue, and goes on
           there later (submitit does so through `checkpoint`)
    TERM   it is cancelled or preempted: it lets go and ends
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from m3_exp.events import Done, Event, Taken
from m3_exp.groups import Group, Queue
from m3_exp.launchers.orders import Diary, Ledger, Order, folder, order_of
from m3_exp.launchers.signs import Sign
from m3_exp.store import Journal, Store
from m3_exp.worker import Worker

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

PAUSE = 2.0  # seconds before the groups are looked at again, where other jobs have all that are left
_TERMINATED = 128 + signal.SIGTERM


@dataclass
class Job:
    """One job of a run: what submitit pickles. Its fields are plain, so the pickle names this class and holds no code.

    `number` is its own among the jobs of the run, from 1.
    """

    store: str
    run: str
    number: int

    def __call__(self) -> None:
        """Carry out what is left of the order."""
        _children_heed_signals()
        signal.signal(signal.SIGTERM, _end)
        store = Store(Path(self.store))
        order, name = order_of(store, self.run), f"worker {self.number}"
        store.leases.silent = order.silent
        ahead = store.clock() - time.time()  # of this machine's clock
        worker = Worker(
            store, order.engine, run=self.run, name=name, keep=order.keep, verify=order.verify,
            until=float("inf") if order.until is None else order.until, clock=lambda: time.time() + ahead,
        )  # fmt: skip
        with contextlib.ExitStack() as going:
            diary = Diary(going.enter_context(Journal(folder(store, self.run), store.quarantine)), name)
            going.callback(diary.flush)
            sign = going.enter_context(Sign(store, self.run, name, place()))
            going.callback(worker.wait)
            going.callback(worker.close)
            self._let_go = going.close
            carry_out(order, self.number, worker, Ledger(store, self.run), diary, sign)

    def checkpoint(self) -> "DelayedSubmission":
        """Let go of everything, and return the job that goes on; called by submitit as the time of this one ends."""
        from submitit.helpers import DelayedSubmission

        getattr(self, "_let_go", lambda: None)()
        return DelayedSubmission(Job(self.store, self.run, self.number))


def carry_out(
    order: Order,
    number: int,
    worker: Worker,
    ledger: Ledger,
    diary: Diary,
    sign: Sign,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Carry out what is left of an order as its worker of this number, until all is settled or the time is over."""
    first = (number - 1) * len(order.groups) // order.count
    numbers = {id(group): at for at, group in enumerate(order.groups)}
    queue = Queue([*order.groups[first:], *order.groups[:first]])
    last: Group | None = None
    others = 0  # groups in a row that other workers have
    going: list[tuple[int, Group]] = []  # the groups that are not done, with their numbers, the newest last

    def tell(events: Iterator[Event]) -> bool:
        """Take up what the worker says, and return whether another one has the newest group."""
        taken = False
        for event in events:
            sign.note(event)
            if isinstance(event, Taken):
                queue.back(going.pop()[1])
                taken = True
                continue
            about = _about(event, going)
            if about is None:
                continue  # the end of a group that another worker has
            diary.note(event, *about)
            if isinstance(event, Done):
                going.remove(about)
                queue.done()
        return taken

    while not worker.is_over and (group := queue.take(None if others else last)) is not None:
        at = numbers[id(group)]
        ledger.news()
        left = tuple(one for n, one in enumerate(group.evaluations) if (at, n) not in ledger.settled)
        if not left:
            queue.done()
            others, last = 0, group
            continue
        going.append((at, group))
        if not tell(worker.carry(replace(group, evaluations=left), queue.following(group))):
            others, last = 0, group
            continue
        others += 1
        if others >= len(queue):
            others = 1
            pause(PAUSE)
    tell(worker.finish())
    diary.end()


def _about(event: Event, going: Sequence[tuple[int, Group]]) -> tuple[int, Group] | None:
    """Return the group that an event is about, with its number, of those that are not done; None: of no such."""
    if isinstance(event, Done):
        return next((one for one in going if one[1].key == event.group), None)
    evaluation = getattr(event, "evaluation", None)
    found = (one for one in going if evaluation is not None and evaluation in one[1].evaluations)
    return next(found, going[-1] if going else None)


def place() -> str:
    """Return the name of this job, as in `job 123_4`; empty outside a job of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
    return f"job {job}" if job else ""


def _end(*_: object) -> None:
    sys.exit(_TERMINATED)


def _children_heed_signals() -> None:
    """Let forked children end at a signal again: they inherit handlers, and would miss what is to end them."""

    def by_default() -> None:
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCONT):
            signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=by_default)
