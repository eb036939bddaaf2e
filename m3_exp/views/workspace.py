"""`m3 wandb`: what W&B gets of a store: all results of a request, or a workspace that compares alphas."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from m3_exp import config, lacking
from m3_exp.command_line import CommandLine
from m3_exp.config import Request
from m3_exp.reporting.choices import ways
from m3_exp.reporting.tables.formats import FORMATS
from m3_exp.reporting.wandb import logged, tracker
from m3_exp.reporting.wandb import workspace as views
from m3_exp.reporting.wandb.track import Settings
from m3_exp.reporting.wandb.tracker import PATIENCE, Gathered, Tracker, Untracked
from m3_exp.types import M3Error
from m3_exp.views import tables
from m3_exp.views.lookup import Lookup


@contextlib.contextmanager
def tracking(request: Request, patience: float = PATIENCE) -> Iterator[Tracker | Untracked]:
    """Give the request's tracker; at the end it gets what the request has in the store, and `patience` seconds."""
    found = tracker.start(
        request.tracker, request.store, sweep=request.sweep, seed=request.plan.seed, patience=patience
    )
    try:
        yield found
        found.sweep(lambda: _gather(Lookup(request)))
    finally:
        found.close()


def _gather(looked: Lookup) -> Gathered:
    """Return what a request has in the store: its cells, and its table."""
    table = tables.looked_up(looked)
    texts = {f"{looked.name}.{form}": FORMATS[form](table) for form in ("md", "csv")}
    return Gathered(looked.found, looked.experts, texts)


def sync(asked: CommandLine | Request) -> Tracker | Untracked:
    """Record everything that a request has in the store.

    Raises:
        M3Error: tracker=none.
    """
    request = config.compose(asked)
    _settings(request)
    with tracking(request, 3600.0) as found:
        pass
    return found


def keyless(asked: CommandLine | Request) -> list[str]:
    """Say that W&B has no key, if it has none: then nothing was sent."""
    tracker = config.compose(asked).tracker
    return [] if tracker is None else lacking.key(tracker)


def workspace(asked: CommandLine | Request, out: Path | None = None) -> list[str]:
    """Save a workspace and a report to W&B and return their addresses; offline, or with `out`, write them to a file.

    Raises:
        M3Error: tracker=none, or W&B refuses.
    """
    looked = Lookup.of(asked)
    settings = _settings(looked.request)
    lines = logged.grouped(looked.found, looked.experts)
    studies = [ways.study(members, seed=looked.seed) for members in lines]
    what = views.contents([cell.evaluator.name for cell in looked.request.plan.cells], studies)
    if out is None and settings.resolved() == "online":
        return views.save(what, settings.files(looked.store.root).views, settings.project, settings.entity)
    return [str(views.write(what, out or Path("m3-workspace.json"), settings.project))]


def _settings(request: Request) -> Settings:
    if request.tracker is None:
        raise M3Error("tracker=none records nothing: leave it out of m3 wandb")
    return request.tracker
