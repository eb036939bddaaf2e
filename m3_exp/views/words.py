"""The lines of text that `m3` prints of its views; with `--json` it prints data instead."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3_exp.amounts import count, counted, duration
from m3_exp.config import Request
from m3_exp.forecast import Forecast, repeats_words
from m3_exp.planning import label_text
from m3_exp.store import Store
from m3_exp.types import Plan

if TYPE_CHECKING:
    from m3_exp.reporting.choices.ways import Study
    from m3_exp.reporting.curves.evaluated import Response
    from m3_exp.reporting.curves.prediction import Check
    from m3_exp.reporting.table import Table
    from m3_exp.views.status import Status

if TYPE_CHECKING:
    from m3_exp.running import Outcome


def columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return rows below their header, each column as wide as its widest text."""
    lines = [[str(text) for text in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def table(built: Table, form: str) -> str:
    """Return a table as Markdown, CSV, TeX or HTML, or (`json`) as data."""
    if form == "json":
        return json.dumps({"rows": built.records, "footer": built.footer}) + "\n"
    from m3_exp.reporting.tables.formats import FORMATS

    return FORMATS[form](built)


def lambdas(plan: Plan) -> list[str]:
    """Say which lambdas were drawn."""
    labels = [label for cell in plan.cells for label in cell.labels]
    drawn = sorted({(x.alpha, x.draw, x.lam) for x in labels if x.alpha is not None and x.lam is not None})
    return [f"alpha={alpha:g} draw {draw}: lambda={lam!r}" for alpha, draw, lam in drawn]


def plan(request: Request, forecast: Forecast) -> list[str]:
    """Return a plan cell by cell, then what it would cost."""
    rows = [(" = ".join(c.labels), c.benchmark, "?" if c.n is None else c.n, c.state) for c in forecast.cells]
    return [
        *columns(("recipe", "benchmark", "items", "state"), rows),
        *(f"not at hand: {reason}" for reason in sorted({c.reason for c in forecast.cells if c.reason})),
        *lambdas(request.plan),
        *request.notes,
        *forecast.notes,
        *repeats_words(request.plan, Store(request.store), request.repeat),
    ]


def status(request: Request, found: Status) -> list[str]:
    """Return how far a plan is: its cells by state, the runs at work, what failed, and what is left."""
    states = ", ".join(f"{count(number)} {state}" for state, number in found.counts.items())
    failed = f"; {count(len(found.failures))} failed" if found.failures else ""
    return [
        f"{counted(len(found.forecast.cells), 'cell')}: {states}{failed}",
        *(str(run) if run.plan == found.identity else f"{run} (another request)" for run in found.runs),
        *(
            failure(f"{label_text(one.cell.labels[0])} on {one.cell.evaluator.name}: {one.reason}", one.retry)
            for one in found.failures
        ),
        *found.forecast.own_notes,  # what collapsed is m3 plan's to say
        *repeats_words(request.plan, Store(request.store), request.repeat),
    ]


def outcome(found: Outcome, seconds: float) -> str:
    """Return what became of a run's cells, as in `51 of 51 cells done (30 were there already) in 3 min 20 s`."""
    if found.cached == found.cells:
        cells = f"all {count(found.cells)} cells were" if found.cells > 1 else "the cell was"
        return f"nothing to do: {cells} there already"
    there = f" ({count(found.cached)} {'was' if found.cached == 1 else 'were'} there already)" if found.cached else ""
    failed = f", {count(len(found.failures))} failed" if found.failures else ""
    made = f"; {counted(found.generated, 'answer')}, {counted(found.tokens, 'token')}" if found.generated else ""
    return f"{count(found.done)} of {counted(found.cells, 'cell')} done{there}{failed} in {duration(seconds)}{made}"


def failure(what: str, retry: str) -> str:
    """Return a failure and the line that retries it, if there is one."""
    return f"failed: {what}" + (f"\n  again: {retry}" if retry else "")


def study(found: Study) -> list[str]:
    """Return what `m3 response` says of a pair and method."""
    from m3_exp.reporting.choices import advice

    curve, shown = found.responses[0].curve, advice.table(found)
    items = ", ".join(f"{response.benchmark} {len(response.curve.ids)}" for response in found.responses)
    title = f"{_title(found.responses[0])}: {len(curve.lams)} lambdas; items: {items}"
    return [title, *columns(shown.header, shown.texts), *advice.words(found)]


def check(response: Response, found: Check) -> list[str]:
    """Return how observed draws of lambda agree with a curve."""
    from m3_exp.reporting.curves import prediction

    return [_title(response), *columns(*prediction.table(found)), *prediction.words(found)]


def _title(response: Response) -> str:
    return f"{response.name} {response.params}".rstrip() + f" ({response.family})"
