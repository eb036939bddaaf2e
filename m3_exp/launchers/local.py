"""launcher=local: workers are threads of this process, with an engine each, that take groups from one queue."""

import contextlib
import queue as queues
import threading
from collections.abc import Iterator

from m3_exp.engines.sharing import default_workers, divide
from m3_exp.events import Done, Taken
from m3_exp.groups import Group, Queue
from m3_exp.launchers.protocol import Here, Report, Work
from m3_exp.launchers.signs import Sign
from m3_exp.types import EngineSettings, LauncherSettings
from m3_exp.worker import Graders, Worker

PAUSE = 0.2  # seconds before the next group is looked at, where another run has one
_TICK = 0.5  # seconds: how soon an error of a worker is noticed
_Reports = queues.SimpleQueue[Report | BaseException | None]


def workers(engine: EngineSettings, settings: LauncherSettings) -> int:
    """Return as many engines as the GPUs hold; one on a CPU."""
    return default_workers(engine)


def launch(work: Work, queue: Queue, count: int, here: Here) -> Iterator[Report]:
    """Carry the groups out in threads, and give what happens; see `protocol`."""
    graders, stopping = Graders(), threading.Event()
    reports: _Reports = queues.SimpleQueue()
    known = {
        f"worker {number}": Worker(
            here.results.store, settings, run=work.run, name=f"worker {number}", keep=work.keep, verify=work.verify,
            results=here.results, graders=graders, until=work.until, clock=here.clock,
        )
        for number, settings in enumerate(divide(work.engine, count), 1)
    }  # fmt: skip

    def carry(name: str, worker: Worker) -> None:
        try:
            with contextlib.closing(worker), Sign(here.results.store, work.run, name) as sign:
                _carry(worker, sign, work, queue, here, stopping, reports)
        except BaseException as error:
            reports.put(error)
        else:
            reports.put(None)

    threads = [threading.Thread(target=carry, args=one, daemon=True) for one in known.items()]
    for thread in threads:
        thread.start()
    try:
        yield from until_all_end(reports, len(threads))
    finally:  # an interrupt, too, ends up here
        stopping.set()
        for worker in known.values():
            worker.close()
        for worker in known.values():
            worker.wait()


def _carry(
    worker: Worker, sign: Sign, work: Work, queue: Queue, here: Here, stopping: threading.Event, reports: _Reports
) -> None:
    last: Group | None = None
    while not stopping.is_set() and here.clock() < work.until and (group := queue.take(last)) is not None:
        last = group
        for event in worker.carry(group, queue.following(group)):
            sign.note(event)
            reports.put(Report(sign.name, event))
            if isinstance(event, Taken):
                queue.back(group)
                last = None
            elif isinstance(event, Done) and not (last is None and event.group == group.key):
                queue.done()
        if last is None:
            stopping.wait(PAUSE)
    for event in worker.finish():
        sign.note(event)
        reports.put(Report(sign.name, event))
        if isinstance(event, Done):
            queue.done()


def until_all_end(reports: _Reports, workers: int) -> Iterator[Report]:
    """Give reports until so many workers have ended. What goes wrong in one is no cell's failure, and ends the run."""
    while workers:
        try:
            report = reports.get(timeout=_TICK)
        except queues.Empty:
            continue
        if isinstance(report, BaseException):
            raise report
        if report is None:
            workers -= 1
        else:
            yield report
