"""`m3 figure`: the frames of the sweeps that a figure draws."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from m3_exp.command_line import CommandLine
from m3_exp.config.suggestions import close, did_you_mean
from m3_exp.reporting.comparisons import expected
from m3_exp.reporting.curves import evaluated
from m3_exp.reporting.data.dataframe import rehearsed
from m3_exp.reporting.figures import catalogue, palette
from m3_exp.reporting.figures.frames import Data
from m3_exp.types import M3Error
from m3_exp.views.lookup import Lookup, look_up_sweep, of_sweep


def names(name: str) -> list[str]:
    """Return the figures that a name stands for: `figure1` for its three panels.

    Raises:
        M3Error: there is none.
    """
    named = [known for known in catalogue.FIGURES if name in (known, known.rstrip("abc"))]
    if not named:
        known, near = ", ".join(catalogue.FIGURES), did_you_mean(close(name, catalogue.FIGURES))
        raise M3Error(f"m3 figure takes a name first, {name!r} is none; there are {known}{near}")
    return named


def requests(name: str, asked: CommandLine) -> list[CommandLine]:
    """Return what a figure draws: each of its sweeps; raises as `names`."""
    sweeps = dict.fromkeys(sweep for known in names(name) for sweep in catalogue.FIGURES[known].sweeps)
    return [of_sweep(sweep, asked) for sweep in sweeps]


def figure(name: str, asked: CommandLine) -> Figure:
    """Draw one figure from the store; `pair=` and `method=` choose what it shows of its sweeps.

    Raises:
        M3Error: it is none or several figures, or nothing that it draws has a score.
    """
    if name not in catalogue.FIGURES:
        raise M3Error(f"{name} is {', '.join(names(name))}: name one of them")
    looked = {sweep: look_up_sweep(sweep, asked) for sweep in catalogue.FIGURES[name].sweeps}
    parents = {pair: names for one in looked.values() for pair, names in one.parents.items()}
    folders = [one.published for one in looked.values()]
    frames = {sweep: _frame(one, draws=name == "response") for sweep, one in looked.items()}
    data = Data(
        frames, parents,
        folders[0] if folders and all(folders) else None,
        seed=next((one.seed for one in looked.values()), 0), asked=asked,
    )  # fmt: skip
    drawn = catalogue.FIGURES[name].draw(data)
    if any(rehearsed(frame) for frame in frames.values()):
        drawn.text(0.5, 0.5, "REHEARSAL", size=40, rotation=30, ha="center", va="center", alpha=0.4)
    return drawn


def files(name: str, asked: CommandLine, out: Path | None = None) -> list[Path]:
    """Draw every figure that a name stands for; return their files: by the suffix of `out`, else .svg and .png.

    Raises:
        M3Error: no such figure, several for one `out`, or a suffix that no figure can have.
    """
    known = names(name)
    palette.check(out)
    if out and len(known) > 1:
        raise M3Error(f"--out takes one figure, {name} is {', '.join(known)}: name one of them")
    return [path for one in known for path in palette.save(figure(one, asked), one, out)]


def _frame(looked: Lookup, *, draws: bool) -> pd.DataFrame:
    """Return a sweep's frame. M3 rows are expectations if the table of the same request shows expectations."""
    frame, behind = looked.frame(draws=draws), looked.behind
    return frame if behind is None else expected.in_place_of_draws(frame, evaluated.responses(behind, looked.parents))
