"""`m3 table`: which function builds which table, and the ways to show one (`--select`, `--repeats`, `--variance`)."""

import contextlib
from dataclasses import replace
from functools import partial

import pandas as pd

from m3_exp import config
from m3_exp.command_line import CommandLine
from m3_exp.config import Request
from m3_exp.config.suggestions import close, did_you_mean
from m3_exp.planning import label_text
from m3_exp.reporting.curves import evaluated
from m3_exp.reporting.data.published import ATTACKS
from m3_exp.reporting.table import Table
from m3_exp.reporting.tables import adversarial, gains, noise, paper, selection, table3, variance
from m3_exp.reporting.tables.rows import Marks, Shown
from m3_exp.stats.choosing import How
from m3_exp.types import Json, M3Error
from m3_exp.views.lookup import Lookup, look_up_development, look_up_sweep

_FILES = {"table3": "table3_search"}  # of tables that are not called as their sweep is
_VIEWS = ("select", "repeats", "variance", "all", "draw")  # each shows other rows


def titles(asked: CommandLine) -> dict[str, str]:
    """Return every table's name and what it shows."""
    names = {sweep: name for name, sweep in _FILES.items()}
    return {
        names.get(sweep, sweep): paper.title(config.sweep_file(sweep, asked.config_dirs).read_text())
        for sweep in config.names("sweeps", asked.config_dirs)
    }


def with_sweep(asked: CommandLine) -> CommandLine:
    """Return a command line that begins with a table's name as one that begins with its sweep.

    Raises:
        M3Error: no name, or none that is known.
    """
    name, *others = asked.overrides or ("nothing",)
    known = config.names("sweeps", asked.config_dirs)
    if _FILES.get(name, name) not in known:
        near = did_you_mean(close(name, known))
        raise M3Error(f"m3 table takes a name first, {name!r} is none; there are {', '.join(known)}{near}")
    return asked.with_overrides(f"sweeps={_FILES.get(name, name)}", *others)


def table(
    asked: CommandLine | Request,
    *,
    select: How | None = None,
    repeats: bool = False,
    variance: bool = False,
    all: bool = False,
    draw: int | None = None,
    marks: Marks = "significant",
    against: str = "",
) -> Table:
    """Return a table of the store.

    Args:
        asked: begins with the table's sweep (`with_sweep`); or the request of a run.
        select: the way of choosing. The table has a row for each pair and method, with the candidate that is chosen
            and what it scores.
        repeats: show the noise floor: each repeat beside its first pass.
        variance: show the uncertainty from items, draws, masks and interpolation, each in a column.
        all: show a row for every (alpha, draw, lambda).
        draw: show this draw of lambda in place of the mean over draws.
        marks: `significant`: marks of tests, adjusted; `paper`: bold for the highest score, without a test.
        against: a method, or an expert by name: each row is compared with its row, in place of itself without M3.

    Raises:
        M3Error: two ways that show different things, or nothing to show.
    """
    asked_for = dict(zip(_VIEWS, (select, repeats, variance, all, draw), strict=True))
    ways = [f"--{way}" for way, value in asked_for.items() if value not in (None, False)]
    if against:
        ways = [*(way for way in ways if way not in ("--all", "--draw")), "--against"]
        ways += ["--marks paper"] * (marks == "paper")
    if len(ways) > 1:
        raise M3Error(f"{' and '.join(ways)} show different things: give one of them")
    if select and marks == "paper":
        raise M3Error("--marks paper marks by score alone, --select says what a choice is worth: give one of them")
    if isinstance(asked, Request):
        if select:
            raise M3Error(f"--select {select} chooses among the rows of a table by name: leave out --run")
    elif select or (asked.overrides[:1] == (f"sweeps={_FILES['table3']}",) and not (all or repeats)):
        return _selected(asked, select or "crossfit")
    looked = Lookup.of(asked)
    if repeats:
        return noise.build(looked.name, looked.repeats)
    if variance:
        return _components(looked)
    return looked_up(looked, draw=draw, every=all, marks=marks, against=against)


def _selected(asked: CommandLine, how: How) -> Table:
    """Return the table of `--select`. For table3, the search for hyper-parameters, it names the paper's Table 4 too."""
    sweep, *given = asked.overrides
    name = sweep.removeprefix("sweeps=")
    others = asked.with_overrides(*given)
    looked = look_up_sweep(name, others)
    frame = looked.frame()
    dev = look_up_development(name, others).frame() if how == "dev" else None
    choose = table3.build if looked.request.sweep_table == "table3" else partial(selection.build, name)
    return choose(frame, dev, how, looked.parents, command=asked.line("run"), seed=looked.seed)


def _components(looked: Lookup) -> Table:
    known = evaluated.responses(looked.frame(), looked.parents)
    if not known:
        raise M3Error(
            f"{looked.name} holds no curve yet; those of all pairs and methods:"
            f" {looked.request.asked.on_sweep('lambda_response').line('run')}"
        )
    return variance.build(known, name=f"{looked.name}: variance")


def whole(asked: CommandLine | Request) -> Table:
    """Return a request's table, which is what `m3 run` prints."""
    return looked_up(Lookup.of(asked))


def scores(looked: Lookup) -> list[Json]:
    """Return what `m3 run --json` says of each cell: its labels, its score in percent with the interval, its state.

    `state` is done, incomplete (items are unscored), failed or left.
    """
    rows = {row["cell"]: row for row in looked.frame().to_dict("records")}
    found: list[Json] = []
    for item in looked.found:
        row = rows[item.cell.short_key]
        figures = {key: None if pd.isna(row[key]) else float(row[key]) for key in ("score", "low", "high")}
        n = {key: None if pd.isna(row[key]) else int(row[key]) for key in ("n", "n_unscored")}
        state = row["state"] if item.record is not None else "failed" if item.failure else "left"
        labels = [label_text(label) for label in item.cell.labels]
        found.append({"cell": row["cell"], "labels": labels, "benchmark": row["benchmark"], **figures, **n,
                      "state": state, "failure": item.failure})  # fmt: skip
    return found


def line(request: Request) -> str:
    """Return the command that shows a request's table with all of its notes."""
    asked = request.asked
    if not request.sweep:
        return asked.line("run", "--wide")
    name = {sweep: name for name, sweep in _FILES.items()}.get(request.sweep, request.sweep)
    others = asked.without("sweeps")
    return others.with_overrides(name, *others.overrides).line("table", "--format", "md") + f" > {name}.md"


def looked_up(
    looked: Lookup,
    *,
    draw: int | None = None,
    every: bool = False,
    marks: Marks = "significant",
    against: str = "",
) -> Table:
    """Return a request's table with the noise floor at its foot.

    Raises:
        M3Error: it has no such draw.
    """
    frame = looked.frame()
    if draw is not None:
        have = sorted({int(known) for known in frame["draw"].dropna()})
        if draw not in have:
            there = f"draws {', '.join(map(str, have))}" if have else "no draws"
            raise M3Error(f"--draw {draw} is not in this table, which has {there}")
        frame = frame[frame["draw"].isna() | (frame["draw"] == draw)]
    built = build(looked, frame, looked.behind if draw is None else None, every=every, marks=marks, against=against)
    return replace(built, notes=(*built.notes, *noise.footer(looked.repeats)))


def build(
    looked: Lookup,
    frame: pd.DataFrame,
    behind: pd.DataFrame | None = None,
    *,
    every: bool = False,
    marks: Marks = "significant",
    against: str = "",
) -> Table:
    """Return the table of a request's cells. `behind`: the frame of the curves that its M3 rows are expectations on."""
    name = looked.request.sweep_table
    shown = Shown(
        frame, every, looked.published, behind=behind, marks=marks, experts=looked.parents, asked=looked.request.asked,
        nodes=looked.request.sweep is None, against=against,
    )  # fmt: skip
    if against and (name in ATTACKS or name == "figure4"):
        raise M3Error(f"--against {against}: {looked.name} compares with and without M3 alone; leave it out")
    if name in ATTACKS:
        return adversarial.build(name, shown)
    if name == "table3" and not every:
        with contextlib.suppress(M3Error):  # too little is evaluated to choose: its rows are shown as they are
            return table3.build(frame, None, "crossfit", looked.parents, seed=looked.seed)
    responses = evaluated.responses(frame if behind is None else behind, looked.parents)
    make = gains.build if name == "figure4" else paper.build
    return make(looked.name, replace(shown, responses=responses))
