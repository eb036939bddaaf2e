"""`m3 status`: what of a plan is done, running, failed and left."""

from collections import Counter
from dataclasses import dataclass, replace

from m3_exp.command_line import CommandLine
from m3_exp.config import Request, compose
from m3_exp.engines.gpus import Node
from m3_exp.forecast import Forecast, forecast
from m3_exp.heartbeat import RunState, WorkerState, runs, workers
from m3_exp.results import Results, failures
from m3_exp.store import Store
from m3_exp.types import Cell, Json, M3Error, plain
from m3_exp.views import by_part
from m3_exp.views.retries import retries


@dataclass(frozen=True)
class FailedCell:
    """A cell that failed, why, and the line that retries it (empty where too many failed)."""

    cell: Cell
    reason: str
    retry: str


@dataclass(frozen=True)
class Status:
    """How far a plan is. `runs` are all that work in its store; a living run of this very plan has its `identity`."""

    forecast: Forecast
    failures: tuple[FailedCell, ...]
    runs: tuple[RunState, ...]
    workers: tuple[WorkerState, ...]
    identity: str

    @property
    def counts(self) -> dict[str, int]:
        """How many cells are in each state."""
        return Counter(cell.state for cell in self.forecast.cells)

    @property
    def json(self) -> Json:
        """What `m3 status --json` prints."""
        alive = [vars(run) | {"this_plan": run.plan == self.identity} for run in self.runs if run.alive]
        counts = {"cells": len(self.forecast.cells), **self.counts, "failed": len(self.failures)}
        return {
            **counts,
            "running": alive,
            "workers": list(map(vars, self.workers)),
            "totals": plain(self.forecast.totals),
        }


def plan(asked: CommandLine | Request) -> Forecast:
    """Return what a request would do and cost, and what of it is there already; reads headers, never weights."""
    request = compose(asked)
    results = Results(Store(request.store), request.plan.engine)
    by_parts = by_part.tables(request.plan, results.store)
    found = _plan(request, results)
    if by_parts:
        more = {**found.more, "parts": by_part.data(by_parts)}
        found = replace(found, own_notes=(*by_part.lines(by_parts), *found.own_notes), more=more)
    return found if request.node is None else _on(request.node, request, found, results)


def _on(node: Node, request: Request, found: Forecast, results: Results) -> Forecast:
    """Return a forecast with what the plan takes on described machines."""
    from m3_exp.schedule import schedule, words  # only where it is asked for

    ways = {"launcher": request.launcher.name, "workers": request.workers, "price": request.price}
    try:
        there = schedule(found, results, request.plan.engine, node, **ways)  # type: ignore[arg-type]
    except M3Error as error:
        return replace(found, own_notes=(*found.own_notes, str(error)), more={**found.more, "node": None})
    return replace(found, own_notes=(*found.own_notes, *words(there)), more={**found.more, "node": there.json})


def jobs(request: Request) -> dict[str, str]:
    """Return under `sbatch` the script that it would be given for a request, or why there is none.

    Nothing where another launcher starts the workers.
    """
    if request.launcher.name != "slurm":
        return {}
    from m3_exp.launchers.sbatch import script

    recipes = len({id(cell.recipe) for cell in request.plan.cells})
    folder = Store(request.store).launched("RUN").absolute()
    try:
        count = min(request.workers or 1, recipes)
        return {"sbatch": script(request.plan.engine, request.launcher, count, folder, "RUN")}
    except M3Error as error:
        return {"sbatch": str(error)}


def _plan(request: Request, results: Results, *, outlived: bool = False) -> Forecast:
    parameters, cache = next(((c.parameters, c.cache_values) for c in request.configs), (None, None))
    keep = request.checkpoint == "keep"
    return forecast(request.plan, results, parameters, keep=keep, cache_values=cache, outlived=outlived)


def status(asked: CommandLine | Request) -> Status:
    """Return how far a request is."""
    request = compose(asked)
    results = Results(Store(request.store), request.plan.engine)
    failed = failures(request.plan, results)
    again = retries(request.asked, [cell for cell, _ in failed])
    lines = tuple(FailedCell(cell, reason, line) for (cell, reason), line in zip(failed, again, strict=True))
    known = tuple(runs(results.store))
    at_work = tuple(workers(results.store))
    return Status(_plan(request, results, outlived=True), lines, known, at_work, request.plan.identity)
