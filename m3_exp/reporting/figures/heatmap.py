"""The heat map: E[score | alpha] - plain in points, alpha across and benchmarks down, a panel a pair and method.

With a curve the value is its expectation, else the mean of the draws at that alpha (fewer than ten carry no sign).
Numbers, intervals and families are those of `expectations` and `contrasts`, as in tables. What is significant at 5 % is
outlined.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from m3_exp.amounts import counted
from m3_exp.benchmarks import in_order
from m3_exp.reporting.comparisons import contrasts
from m3_exp.reporting.comparisons.contrasts import Place
from m3_exp.reporting.comparisons.values import entry_of
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import grouped, refused, responses
from m3_exp.reporting.figures import palette
from m3_exp.stats.estimate import Estimate
from m3_exp.stats.expectation import ALPHAS
from m3_exp.types import M3Error

_COLOURS = "RdBu"  # red below plain, blue above: told apart by colour-blind readers, and the signs are printed
_ROW = 0.32  # inches: a number and its interval
_ACROSS = 3  # panels side by side


@dataclass(frozen=True)
class Panel:
    """A pair and method: which of a grid of panels it is."""

    pair: str
    method: str
    sparsify: str


@dataclass(frozen=True)
class Change:
    """E[score | alpha] - plain in points, half of its interval's width, and whether it is significant at 5 %.

    `why`: the reason if there is no value. `unclaimed`: the reason if it can carry no sign. `family`: the number of
    comparisons that it was adjusted for. `drawn`: it is a mean of draws, not an expectation on a curve.
    """

    value: float | None
    half: float = 0.0
    significant: bool = False
    why: str = ""
    unclaimed: str = ""
    family: int = 0
    drawn: bool = False


Changes = Mapping[tuple[Panel, str, float], Change]


def changes(frame: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> dict[tuple[Panel, str, float], Change]:
    """Return every difference of a frame by panel, benchmark and alpha.

    Raises:
        M3Error: a pair, method and benchmark has several hyper-parameters.
    """
    alphas = _alphas(frame)
    by_place: dict[tuple[Panel, str, float], Change] = {}
    drawn: dict[Place, tuple[Estimate, str]] = {}
    keys: list[tuple[Panel, str, float]] = []
    lines = grouped(responses(frame, parents))
    curves = {
        (Panel(line[0].pair, line[0].method, line[0].sparsify), *key): compared
        for line in lines
        for key, compared in expectations.against_plain(line, alphas).items()
    }
    curved = {(Panel(r.pair, r.method, r.sparsify), r.benchmark) for line in lines for r in line}
    merged = frame[frame["method"] != "single"]
    for (pair, method, sparsify, benchmark), rows in merged.groupby(
        ["pair", "method", "sparsify", "benchmark"], sort=False
    ):
        if rows["params"].nunique() > 1:
            settings = " and with ".join(sorted(rows["params"].unique()))
            raise M3Error(f"{method} has cells with {settings}: the heat map shows one; choose one with method.KEY=")
        panel = Panel(str(pair), str(method), str(sparsify))
        for alpha in alphas:
            key = (panel, str(benchmark), alpha)
            if (one := curves.get(key)) is not None:
                by_place[key] = _change(one.estimate, one.mark, one.why, one.family)
            elif (panel, str(benchmark)) in curved:
                by_place[key] = Change(None, why="plain is not run")
            elif isinstance(mean := _of_draws(rows, alpha), str):
                by_place[key] = Change(None, why=mean)
            else:
                drawn[len(keys), 0] = mean
                keys.append(key)
    for (row, _), compared in contrasts.adjusted(drawn).items():
        if compared.contrast is not None:
            family = compared.family
            by_place[keys[row]] = _change(compared.contrast, compared.sign, compared.why, family, drawn=True)
    return by_place


def _alphas(frame: pd.DataFrame) -> list[float]:
    drawn = sorted(float(a) for a in frame.loc[frame["ratio"] == "mixup", "alpha"].dropna().unique())
    return drawn if drawn and not bool((frame["kind"] == "node").any()) else list(ALPHAS)


def _change(one: Estimate, sign: str, why: str, family: int, *, drawn: bool = False) -> Change:
    half, significant = 50 * (one.high - one.low), sign in ("better", "worse")
    return Change(100 * one.value, half, significant, unclaimed=why, family=family, drawn=drawn)


def _of_draws(rows: pd.DataFrame, alpha: float) -> tuple[Estimate, str] | str:
    """Return the mean of an alpha's draws minus plain, and why it carries no sign; or why there is no value."""
    mixed = rows[(rows["ratio"] == "mixup") & (rows["alpha"] == alpha) & rows["score"].notna()]
    plain = rows[(rows["ratio"] == "plain") & rows["score"].notna()]
    if not len(mixed) or not len(plain):
        return "plain is not run" if len(mixed) else "not run"
    sides = entry_of(mixed), entry_of(plain)
    estimate = contrasts.compare(*sides)
    return "no item is scored in both" if estimate is None else (estimate, contrasts.unclaimed(*sides))


# ------------------------------------------------------------------------------------------------------- drawing


def draw_heatmap(frame: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> Figure:
    """Draw every panel: methods across, at most three, pairs (and DARE) down."""
    by_place = changes(frame, parents)
    panels = _layout(by_place)
    notes = [*_notes(by_place, _source(frame)), *(f"{text}." for text in refused(frame))]
    counts = [len(_benchmarks(by_place, row[0].pair)) for row in panels]
    width = palette.COLUMN if len(panels[0]) == 1 else palette.DOUBLE
    tall = sum(_ROW * n + 0.24 for n in counts) + 0.84 + palette.SPACING * len(palette.lines_of(notes, width))
    with palette.style():
        figure = palette.blank(width, tall)
        axes = figure.subplots(len(panels), len(panels[0]), squeeze=False, sharex=True, height_ratios=counts)
        _fill(axes, panels, by_place)
        _scale(figure, list(axes.ravel()), _shade(by_place))
        palette.annotate(figure, notes)
    return figure


def _layout(changes: Changes) -> list[list[Panel]]:
    """Return the panels by row: blocks of up to three methods, in each a row for every pair and sparsify."""
    rows = list(dict.fromkeys((panel.pair, panel.sparsify) for panel, _, _ in changes))
    methods = list(dict.fromkeys(panel.method for panel, _, _ in changes))
    width = min(_ACROSS, len(methods))
    blocks = [methods[i : i + width] for i in range(0, len(methods), width)]
    return [[Panel(pair, method, sparsify) for method in block] for block in blocks for pair, sparsify in rows]


def _fill(axes: "np.ndarray[Any, Any]", panels: Sequence[Sequence[Panel]], changes: Changes) -> None:
    """Draw the panels into their axes: methods are named above their first row, pairs before their rows."""
    shade = _shade(changes)
    alone, digits = axes.size == 1, 1 if axes.shape[1] == 1 else 0
    for i, row in enumerate(panels):
        first = i == 0 or panels[i - 1][0].method != row[0].method
        for ax, panel in zip(axes[i], row, strict=False):
            _draw_panel(ax, changes, panel, shade, first=ax is axes[i, 0], digits=digits)
            if first:
                name = palette.name(panel.method)
                ax.set_title(f"{_row_name(panel)}, {name}" if alone else name, pad=4 if alone else 14)
        for ax in axes[i, len(row) :]:
            ax.set_axis_off()
        if not alone:
            axes[i, 0].text(0, 1.0, _row_name(row[0]), transform=axes[i, 0].transAxes, va="bottom", ha="right",
                            fontweight="bold")  # fmt: skip
    for ax in axes[-1]:
        ax.set_xlabel("α")


def _row_name(panel: Panel) -> str:
    return palette.name(panel.pair) + (
        "" if panel.sparsify == "none" else f", {panel.sparsify.replace('dare', 'DARE')}"
    )


def _shade(changes: Changes) -> Normalize:
    top = max([5.0, *(abs(change.value) for change in changes.values() if change.value is not None)])
    return Normalize(-top, top)


def _benchmarks(changes: Changes, pair: str) -> list[str]:
    return in_order({benchmark for panel, benchmark, _ in changes if panel.pair == pair})


def _draw_panel(ax: Axes, changes: Changes, panel: Panel, shade: Normalize, *, first: bool, digits: int) -> None:
    benchmarks = _benchmarks(changes, panel.pair)
    alphas = sorted({alpha for _, _, alpha in changes})
    for i, benchmark in enumerate(benchmarks):
        for j, alpha in enumerate(alphas):
            _draw_cell(ax, i, j, changes.get((panel, benchmark, alpha)), shade, digits)
    ax.set_xlim(-0.5, len(alphas) - 0.5)
    ax.set_ylim(len(benchmarks) - 0.5, -0.5)
    ax.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    ax.set_yticks(range(len(benchmarks)), [palette.name(b) for b in benchmarks] if first else [""] * len(benchmarks))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _draw_cell(ax: Axes, i: int, j: int, change: Change | None, shade: Normalize, digits: int) -> None:
    """Fill one cell and print its number; hatch it where there is none."""
    if change is None or change.value is None:
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fc="white", ec=palette.GREY, hatch="////", lw=0))
        return
    colour = colormaps[_COLOURS](0.5 + 0.4 * float(shade(change.value) * 2 - 1))
    ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fc=colour, ec="white", lw=0.6))
    if change.significant:
        ax.add_patch(Rectangle((j - 0.45, i - 0.43), 0.9, 0.86, fill=False, ec="black", lw=0.9, zorder=3))
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 0.5
    ink = "black" if light else "white"
    for y, text in ((i - 0.19, _signed(change.value, digits)), (i + 0.2, f"±{change.half:.{digits}f}")):
        ax.text(j, y, text, ha="center", va="center", fontsize=palette.SMALL, color=ink)


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}".replace("-", "−")
    return "0" if float(f"{value:.{digits}f}") == 0 else text


def _scale(figure: Figure, axes: list[Axes], shade: Normalize) -> None:
    shown = LinearSegmentedColormap.from_list("shown", colormaps[_COLOURS](np.linspace(0.1, 0.9, 65)))
    bar = figure.colorbar(
        ScalarMappable(shade, shown), ax=axes, orientation="horizontal", aspect=40, shrink=0.7, pad=0.02
    )
    bar.set_label("E[score | α] − plain (points)")
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0)


def _source(frame: pd.DataFrame) -> str:
    if bool((frame["kind"] == "node").any()):
        return "Expectations from the response curve."
    draws = frame.loc[frame["ratio"] == "mixup"].groupby("alpha")["draw"].nunique()
    most = int(draws.max()) if len(draws) else 0
    return f"Each the mean of {most} draws of λ." if most != 1 else "Each ONE draw of λ, as in the paper."


def _notes(changes: Changes, source: str) -> Iterator[str]:
    yield f"{source} ±: half of the 95 % interval."
    claims = {key: change for key, change in changes.items() if change.value is not None and not change.unclaimed}
    if of_curves := {panel: change.family for (panel, _, _), change in claims.items() if not change.drawn}:
        counts = " or ".join(map(str, sorted(set(of_curves.values()))))
        yield (
            f"Outlined: significant at 5 %, adjusted over the {counts} alphas x benchmarks of its pair and method (a"
            f" family each; {len(of_curves)} here)."
        )
    if drawn := [change for change in claims.values() if change.drawn]:
        yield f"Outlined: significant at 5 %, after Holm over the {drawn[0].family} means of draws here."
    for why in dict.fromkeys(change.unclaimed for change in changes.values() if change.unclaimed):
        yield f"No outline, {counted(sum(change.unclaimed == why for change in changes.values()), 'cell')}: {why}."
    absent: dict[str, list[str]] = {}
    for (panel, benchmark, _), change in changes.items():
        if change.value is None:
            cell = f"{_row_name(panel)} {palette.name(panel.method)} {palette.name(benchmark)}"
            absent.setdefault(change.why, []).append(cell)
    for why, cells in absent.items():
        names = list(dict.fromkeys(cells))
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        yield f"Hatched, {why}: {', '.join(names[:4])}{more}."
