"""`m3 runs`, and the way back to one run: `m3 table --run NAME`.

A run shows what its plan holds, as the store remembers it. How it is shown, its command line says: that is composed
again; where it cannot be any more (a --config-dir is gone), the plan alone is shown.
"""

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from m3_exp import config
from m3_exp.command_line import CommandLine, override
from m3_exp.config import Request
from m3_exp.heartbeat import LAST, KnownRun, RunState, WorkerState, history, workers
from m3_exp.heartbeat import runs as signs
from m3_exp.results import look_up
from m3_exp.store import DEFAULT_ROOT, PastRun, Store
from m3_exp.types import CellResult, Json, Label, LauncherSettings, M3Error, Plan, plain

_NAMED = 5  # runs that a refusal names


def runs(asked: CommandLine) -> list[KnownRun]:
    """Return the runs of a store, the newest last; those of older versions of m3, of which only plans are left, too."""
    store = Store(place(asked))
    known = history(store)
    plans = {one.plan for one in known}
    old = [_old(store, key) for key in store.plans if key not in plans]
    newest = {one.plan: one for one in known}
    gone_on = [one if newest[one.plan] is one else replace(one, went_on=newest[one.plan].name) for one in known]
    return sorted([*filter(None, old), *gone_on], key=lambda one: (one.started, one.name))


def _old(store: Store, key: str) -> KnownRun | None:
    """Return the run that left nothing but its plan: it is called by that, and is as far as its cells are now."""
    plan = store.plans.get(key)
    if plan is None:
        return None
    found: list[CellResult] = []
    with contextlib.suppress(M3Error):  # which engine's answers it had cannot be told any more
        found = look_up(plan, store)
    done = sum(one.record is not None and not one.record.result.n_unscored for one in found)
    failed = sum(one.record is None and one.failure is not None for one in found)
    began = store.plans.path(key).stat().st_mtime
    return KnownRun(_plan_name(key), "", key, len(plan.cells), done, failed, started=began, ended=began)


def _plan_name(key: str) -> str:
    return f"plan-{key[:8]}"


@dataclass(frozen=True)
class StoreState:
    """The runs that work in a store now, their workers, lost ones among them, and all runs; the oldest first."""

    running: tuple[RunState, ...]
    workers: tuple[WorkerState, ...]
    runs: tuple[KnownRun, ...]

    @property
    def json(self) -> Json:
        """What `m3 status --json` prints."""
        living = {"running": list(map(vars, self.running)), "workers": list(map(vars, self.workers))}
        return {**living, "runs": as_json(self.runs)}


def state(asked: CommandLine) -> StoreState:
    """Return what is going on in a store."""
    store = Store(place(asked))
    return StoreState(tuple(s for s in signs(store) if s.alive), tuple(workers(store)), tuple(runs(asked)))


def as_json(known: Sequence[KnownRun]) -> list[Json]:
    """Return what `m3 runs --json` prints."""
    return [{**plain(one), "left": one.left, "state": one.state} for one in known]


def request(name: str, asked: CommandLine) -> Request:
    """Return what a run of a store asked for: its plan, and its command line as far as that still composes.

    `name` may be `last`; `asked` holds no more than `store=DIR`.

    Raises:
        M3Error: there is no such run, or other overrides are given.
    """
    root = place(asked)
    store = Store(root)
    past = _found(name, store)
    plan = store.plans.get(past.plan)
    again = CommandLine.of_line(past.command) if past.command else CommandLine() if plan is None else _about(plan)
    again = again.without("store").with_overrides(*again.without("store").overrides, *asked.overrides)
    again = replace(again, config_dirs=asked.config_dirs or again.config_dirs)  # they may have moved
    try:
        composed = replace(config.compose(again), store=root)
    except M3Error:
        if plan is None:
            raise
        composed = Request(again, (), root, "none", None, None, LauncherSettings(), None, experts=past.experts)
    return composed if plan is None else replace(composed, planned=_equipped(plan, composed, again))


def _equipped(plan: Plan, composed: Request, again: CommandLine) -> Plan:
    """Return a stored plan with what its labels are not stored with: the folders and paths that rebuild a row."""
    folders = tuple(str(folder.absolute()) for folder in again.config_dirs)
    paths = {c.pair: c.model_paths for c in composed.configs}

    def known(label: Label) -> Label:
        return replace(label, config_dirs=folders, model_paths=paths.get(label.pair, ()))

    return replace(plan, cells=tuple(replace(cell, labels=tuple(map(known, cell.labels))) for cell in plan.cells))


def _found(name: str, store: Store) -> PastRun:
    known: list[KnownRun] = history(store)
    if name == LAST and known:
        return known[-1]
    for one in reversed(known):
        if one.name == name:
            return one
    plans = sorted(store.plans, key=lambda key: store.plans.path(key).stat().st_mtime, reverse=True)
    for key in plans:
        if name == _plan_name(key) or name == LAST:
            return PastRun(name, "", key, 0)
    newest = ", ".join(one.name for one in known[-_NAMED:])
    there = f"the newest are {newest}" if newest else "it has none"
    raise M3Error(f"--run {name}: {store.root} has no run of that name; {there}; m3 runs lists them")


def _about(plan: Plan) -> CommandLine:
    """Return a command line that composes the families, pairs and models of a plan whose own is not known."""
    labels = [label for cell in plan.cells for label in cell.labels]
    first = labels[0]
    local = first.family == "local"
    pairs = [] if local else [f"pair={','.join(dict.fromkeys(label.pair for label in labels))}"]
    families = ",".join(dict.fromkeys(label.family for label in labels))
    words = (f"family={families}", *pairs, *first.overrides)
    folders = tuple(map(Path, dict.fromkeys(folder for label in labels for folder in label.config_dirs)))
    return CommandLine(words, multirun=True, config_dirs=folders)


def place(asked: CommandLine) -> Path:
    """Return the store that is asked for.

    Raises:
        M3Error: more than that is asked for.
    """
    if others := asked.without("store").overrides:
        raise M3Error(f"{others[0]} has no effect on what a run asked for: give no more than store=DIR beside it")
    given = asked.values("store")
    return Path(config.raw_path(given[-1], "store")) if given else DEFAULT_ROOT


def own_line(name: str, store: Path) -> str:
    """Return the command that shows a run's table."""
    where = [] if store == DEFAULT_ROOT else [override("store", str(store))]
    return shlex.join(["m3", "table", "--run", name, *where])
