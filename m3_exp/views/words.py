"""The lines of text that `m3` prints of its views; with `--json` it prints data instead."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from m3_exp import busy, lacking
from m3_exp.amounts import count, counted, duration
from m3_exp.command_line import CommandLine
from m3_exp.config import Request
from m3_exp.forecast import Forecast, repeats_words
from m3_exp.planning import label_text, mixture_text
from m3_exp.reading.shown import abridged, length, padded, wrapped
from m3_exp.results import gone_words
from m3_exp.store import Store
from m3_exp.types import Plan

if TYPE_CHECKING:
    from m3_exp.heartbeat import KnownRun, RunState, WorkerState
    from m3_exp.reporting.choices.ways import Study
    from m3_exp.reporting.curves.evaluated import Response
    from m3_exp.reporting.curves.prediction import Check
    from m3_exp.reporting.table import Table
    from m3_exp.running import Outcome
    from m3_exp.views.runs import StoreState
    from m3_exp.views.status import Status

_NEWEST = 10  # runs that `m3 status` lists


def columns(header: Sequence[str], rows: Sequence[Sequence[object]], width: int | None = None) -> list[str]:
    """Return rows below their header, each column as wide as its widest text; narrower columns where lines are."""
    lines = [[str(text) for text in row] for row in (header, *rows)]
    widths = _shared([max(map(length, column)) for column in zip(*lines, strict=True)], width)
    broken = [[wrapped(text, room) if length(text) > room else [text] for text, room in zip(line, widths, strict=True)]
              for line in lines]  # fmt: skip
    return [
        "  ".join(map(padded, parts, widths)).rstrip() for line in broken for parts in zip_longest(*line, fillvalue="")
    ]


def _shared(widths: Sequence[int], width: int | None) -> list[int]:
    """Return what is left to each column of a line: what it needs, or an even share of what the narrow ones leave."""
    if width is None or sum(widths) + 2 * (len(widths) - 1) <= width:
        return list(widths)
    left, shared = width - 2 * (len(widths) - 1), dict[int, int]()
    for remaining, j in zip(
        range(len(widths), 0, -1), sorted(range(len(widths)), key=lambda j: widths[j]), strict=True
    ):
        shared[j] = max(1, min(widths[j], left // remaining))
        left -= shared[j]
    return [shared[j] for j in range(len(widths))]


def table(built: Table, form: str) -> str:
    """Return a table as Markdown, CSV, TeX or HTML, or (`json`) as data."""
    if form == "json":
        return json.dumps({"rows": built.records, "footer": built.footer}) + "\n"
    from m3_exp.reporting.tables.formats import FORMATS

    return FORMATS[form](built)


def text(built: Table, width: int, *, styled: bool, whole: str) -> str:
    """Return a table for a terminal, with short notes and the command that shows all of them."""
    from m3_exp.reporting.tables import text as terminal

    return terminal.text(built, width, styled=styled, whole=whole)


def lambdas(plan: Plan) -> list[str]:
    """Say which lambdas, or weights of more than two experts, were drawn."""
    labels = [label for cell in plan.cells for label in cell.labels if label.alpha is not None]
    drawn = sorted({(x.alpha, x.draw, x.lam) for x in labels if x.alpha is not None and x.lam is not None})
    more = dict.fromkeys((x.alpha, x.draw, mixture_text(x)) for x in labels if x.lam is None and x.point)
    return [
        *(f"alpha={alpha:g} draw {draw}: lambda={lam!r}" for alpha, draw, lam in drawn),
        *(f"alpha={alpha:g} draw {draw}: {shares}" for alpha, draw, shares in more),
    ]


def missing(request: Request, disk: int = 0) -> list[str]:
    """Say what the request lacks on this machine, and so what it will not do; `disk`: the bytes that it will write."""
    return [f"missing: {line}" for line in lacking.lines(request, disk)]


def untried(request: Request) -> list[str]:
    """Offer a trial of the engine before the first run of a store on GPUs."""
    from m3_exp.engines.sharing import visible_gpus

    is_first = not (request.store / "results").is_dir()
    if request.configs[0].engine.name != "vllm" or not is_first or not visible_gpus():
        return []
    return ["first run on this machine's GPUs: m3 doctor --engine says in 3 minutes whether vLLM works here"]


def plan(
    request: Request, forecast: Forecast, width: int | None = None, jobs: Mapping[str, str] | None = None
) -> list[str]:
    """Return a plan cell by cell, then what it would cost. `jobs`: what a batch system's command would be given."""
    rows = [(" = ".join(c.labels), c.benchmark, "?" if c.n is None else str(c.n), c.state) for c in forecast.cells]
    header = ("recipe", "benchmark", "items", "state")
    return [
        *(columns(header, rows) if width is None else _folded(header, rows, width)),
        *(f"not at hand: {reason}" for reason in sorted({c.reason for c in forecast.cells if c.reason})),
        *lambdas(request.plan),
        *request.notes,
        *forecast.notes,
        *repeats_words(request.plan, Store(request.store), request.repeat),
        *missing(request, forecast.totals.disk_bytes),
        *chain.from_iterable(
            ("", f"what {command} would be given (RUN: the run's id):", *script.splitlines())
            for command, script in (jobs or {}).items()
        ),
    ]


def _folded(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a plan's rows for a terminal: each recipe once, its benchmarks below it."""
    from m3_exp.reporting.table import Column, Table, named_columns
    from m3_exp.reporting.table import words as cell
    from m3_exp.reporting.tables import text as terminal

    heads = (*named_columns(header[:2]), *map(Column, header[2:]))
    return terminal.lines(Table("plan", heads, tuple(tuple(map(cell, row)) for row in rows)), width)


def status(request: Request, found: Status) -> list[str]:
    """Return how far a plan is: its cells by state, the runs at work, what failed, and what is left."""
    states = ", ".join(f"{count(number)} {state}" for state, number in found.counts.items())
    lost = f"; {count(len(found.failures))} failed" if found.failures else ""
    failed = [
        failure(f"{label_text(one.cell.labels[0])} on {one.cell.evaluator.name}: {one.reason}", one.retry)
        for one in found.failures
    ]
    return [
        f"{counted(len(found.forecast.cells), 'cell')}: {states}{lost}",
        *chain.from_iterable(
            (str(run) if run.plan == found.identity else f"{run} (another request)", *_workers(found.workers, run))
            for run in found.runs
        ),
        *_outlived(found.workers, found.runs),
        *chain(*failed),
        *gone_words(request.plan),
        *found.forecast.own_notes,  # what collapsed is m3 plan's to say
        *repeats_words(request.plan, Store(request.store), request.repeat),
    ]


def _workers(known: Sequence[WorkerState], run: RunState) -> list[str]:
    """Return a line a worker of a run, where there is more to say than the run's own line does."""
    mine = [worker for worker in known if worker.run == run.id]
    return [f"  {worker}" for worker in mine] if len(mine) > 1 or not all(worker.alive for worker in mine) else []


def _outlived(known: Sequence[WorkerState], at_work: Sequence[RunState]) -> list[str]:
    """Return a line a worker that goes on after the command that began it: a job of a batch system."""
    runs = {run.id for run in at_work}
    return [f"at work by itself: {worker}" for worker in known if worker.run not in runs and worker.alive]


def runs(known: Sequence[KnownRun], width: int | None = None) -> list[str]:
    """Return the runs of a store, a row each, the newest last; on a terminal what asked for it stands below."""
    if not known:
        return ["no runs yet: m3 run begins one"]
    rows = [
        (one.name, time.strftime("%Y-%m-%d %H:%M", time.localtime(one.started)), one.state, count(one.done),
         count(one.failed), count(one.left))
        for one in known
    ]  # fmt: skip
    header = ("run", "began", "state", "done", "failed", "left")
    asked = [one.command.removeprefix("m3 run").strip() for one in known]
    if width is None:
        return columns((*header, "asked for"), [(*row, words) for row, words in zip(rows, asked, strict=True)])
    head, *lines = columns(header, rows)
    below = zip(lines, (f"  {words}" for words in asked), strict=True)
    return [head, *filter(str.strip, chain.from_iterable(below))]


def store(state: StoreState, width: int | None = None) -> list[str]:
    """Return what `m3 status` says of a store: the runs at work and their workers, then the newest runs of all."""
    older = [f"and {count(len(state.runs) - _NEWEST)} older ones: m3 runs"] * (len(state.runs) > _NEWEST)
    now = chain.from_iterable((str(run), *_workers(state.workers, run)) for run in state.running)
    return [*now, *_outlived(state.workers, state.running), *runs(state.runs[-_NEWEST:], width), *older]


def outcome(found: Outcome, seconds: float) -> str:
    """Return what became of a run's cells, as in `51 of 51 cells done (30 were there already) in 3 min 20 s`."""
    if found.cached == found.cells:
        cells = f"all {count(found.cells)} cells were" if found.cells > 1 else "the cell was"
        return f"nothing to do: {cells} there already"
    there = f" ({count(found.cached)} {'was' if found.cached == 1 else 'were'} there already)" if found.cached else ""
    failed = f", {count(len(found.failures))} failed" if found.failures else ""
    made = f"; {counted(found.generated, 'answer')}, {counted(found.tokens, 'token')}" if found.generated else ""
    return f"{count(found.done)} of {counted(found.cells, 'cell')} done{there}{failed} in {duration(seconds)}{made}"


def ending(found: Outcome, seconds: float, asked: CommandLine, limits: Sequence[str], table: str) -> list[str]:
    """Return what became of a run, and the lines that go on from there.

    Args:
        limits: the options of its budget.
        table: the line that shows its table.
    """
    at = f"stopped at {' '.join(limits)} with " if limits else ""
    stopped = f"{at}{counted(found.left, 'cell')} left; to go on:"
    return [
        outcome(found, seconds),
        *filter(None, [busy.words(found.engine)]),
        *[f"{stopped} {asked.line('run', *limits)}"] * bool(found.left),
        *[f"to try all failed ones again: {asked.line('run')}"] * bool(found.failures),
        *[f"its table: {table}"] * bool(found.run),
    ]


def wrong(found: Outcome, asked: CommandLine) -> list[str]:
    """Say which cells a run called done, and its store does not hold; nothing where it holds them all."""
    if not found.wrong:
        return []
    said = f"{counted(len(found.wrong), 'cell')} called done, which the store does not hold, such as"
    return [f"wrong: {said} {abridged(found.wrong[0])}", f"  see: {asked.line('verify')}"]


def failure(what: str, retry: str) -> list[str]:
    """Return a failure, and the line that retries it if there is one."""
    return [f"failed: {what}", *([f"  again: {retry}"] if retry else [])]


def study(found: Study, width: int | None = None) -> list[str]:
    """Return what `m3 response` says of a pair and method."""
    from m3_exp.reporting.choices import advice
    from m3_exp.reporting.tables import text as terminal

    curve, shown = found.responses[0].curve, advice.table(found)
    items = ", ".join(f"{response.benchmark} {len(response.curve.ids)}" for response in found.responses)
    what = "lambdas" if found.responses[0].along is not None else "mixtures"
    title = f"{_title(found.responses[0])}: {len(curve.points)} {what}; items: {items}"
    rows = columns(shown.header, shown.texts) if width is None else terminal.lines(shown, width)
    return [title, *rows, *shown.no_figure, *advice.words(found)]


def check(response: Response, found: Check, width: int | None = None) -> list[str]:
    """Return how observed draws of lambda agree with a curve."""
    from m3_exp.reporting.curves import prediction

    return [_title(response), *columns(*prediction.table(found), width), *prediction.words(found)]


def _title(response: Response) -> str:
    return f"{response.name} {response.params}".rstrip() + f" ({response.family})"
