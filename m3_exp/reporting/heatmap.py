"""The heat map: E[score | alpha] - plain in points, alpha across and benchmarks down, a panel a pair and method.

Where a grid of lambdas was run the expectation comes from the response curve, else it is the mean of the draws at that
alpha. An outlined number is a difference that excludes 0 at 5 % after Holm over the whole picture.
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
from scipy import stats as scipy_stats

from m3_exp.reporting import palette, stats
from m3_exp.reporting.curves import Response, Values, responses
from m3_exp.reporting.protocols import ALPHAS
from m3_exp.reporting.values import item_values
from m3_exp.types import M3Error

_COLOURS = "RdBu"  # red below plain, blue above: told apart by colour-blind readers, and the signs are printed
_ROW = 0.19  # inches
_ACROSS = 3  # panels side by side


@dataclass(frozen=True)
class Panel:
    """A pair and method: which of a grid of panels it is."""

    pair: str
    method: str
    sparsify: str


@dataclass(frozen=True)
class Change:
    """E[score | alpha] - plain in points and its p-value; without a value, `why`."""

    value: float | None
    p: float = 1.0
    why: str = ""


Changes = Mapping[tuple[Panel, str, float], Change]


def changes(frame: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> dict[tuple[Panel, str, float], Change]:
    """Return every difference of a frame by panel, benchmark and alpha.

    Raises:
        M3Error: a pair, method and benchmark has several hyper-parameters.
    """
    curves = {(Panel(r.pair, r.method, r.sparsify), r.benchmark): r for r in responses(frame, parents)}
    alphas = _alphas(frame)
    found: dict[tuple[Panel, str, float], Change] = {}
    merged = frame[frame["method"] != "single"]
    for (pair, method, sparsify, benchmark), rows in merged.groupby(
        ["pair", "method", "sparsify", "benchmark"], sort=False
    ):
        if rows["params"].nunique() > 1:
            settings = " and with ".join(sorted(rows["params"].unique()))
            raise M3Error(f"{method} has cells with {settings}: the heat map shows one; choose one with method.KEY=")
        panel = Panel(str(pair), str(method), str(sparsify))
        plain = item_values(rows[rows["ratio"] == "plain"])
        for alpha in alphas:
            values = _expected(rows, curves.get((panel, str(benchmark))), alpha)
            found[panel, str(benchmark), alpha] = _change(values, plain)
    return found


def _alphas(frame: pd.DataFrame) -> list[float]:
    drawn = sorted(float(a) for a in frame["alpha"].dropna().unique())
    return drawn if drawn and not bool(frame["ratio"].isin(["grid", "fixed"]).any()) else list(ALPHAS)


def _expected(rows: pd.DataFrame, curve: Response | None, alpha: float) -> Values:
    """Return each item's expectation at one alpha; nothing where neither a curve nor a draw is there."""
    if curve is not None:
        return dict(zip(curve.curve.ids, map(float, curve.curve.expected(alpha)), strict=True))
    return item_values(rows[(rows["ratio"] == "mixup") & (rows["alpha"] == alpha)])


def _change(values: Values, plain: Values) -> Change:
    shared = sorted(values.keys() & plain.keys())
    if not shared:
        return Change(None, why="plain is not run" if values else "not run")
    d = np.array([values[i] - plain[i] for i in shared])
    return Change(100 * float(d.mean()), _p(d))


def _p(d: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    """Return the two-sided p-value of paired differences: McNemar's mid-p for verdicts, else sign flips.

    Sign flips resolve nothing below 1/5000, which no Holm over a large picture would survive: there Student's t.
    """
    if bool(np.isin(d, (-1.0, 0.0, 1.0)).all()):
        return stats.mid_p(int((d > 0).sum()), int((d < 0).sum()))
    p = stats.sign_flip(d)
    return p if p > 1 / 4000 else min(p, float(scipy_stats.ttest_1samp(d, 0.0).pvalue))


def real(found: Changes) -> frozenset[tuple[Panel, str, float]]:
    """Return the differences that exclude 0 at 5 % after Holm over all of them."""
    keys = [key for key, change in found.items() if change.value is not None]
    adjusted = stats.holm([found[key].p for key in keys])
    return frozenset(key for key, p in zip(keys, adjusted, strict=True) if p < 1 - stats.LEVEL)


# ------------------------------------------------------------------------------------------------------- drawing


def draw_heatmap(frame: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> Figure:
    """Draw every panel: methods across, at most three, pairs (and DARE) down."""
    found = changes(frame, parents)
    panels = _layout(found)
    notes = list(_notes(found, _source(frame)))
    counts = [len(_benchmarks(found, row[0].pair)) for row in panels]
    width = palette.COLUMN if len(panels[0]) == 1 else palette.DOUBLE
    tall = sum(_ROW * n + 0.24 for n in counts) + 0.84 + palette.SPACING * len(palette.lines_of(notes, width))
    with palette.style():
        figure = palette.blank(width, tall)
        axes = figure.subplots(len(panels), len(panels[0]), squeeze=False, sharex=True, height_ratios=counts)
        _fill(axes, panels, found)
        _scale(figure, list(axes.ravel()), _shade(found))
        palette.annotate(figure, notes)
    return figure


def _layout(found: Changes) -> list[list[Panel]]:
    """Return the panels by row: blocks of up to three methods, in each a row for every pair and sparsify."""
    rows = list(dict.fromkeys((panel.pair, panel.sparsify) for panel, _, _ in found))
    methods = list(dict.fromkeys(panel.method for panel, _, _ in found))
    width = min(_ACROSS, len(methods))
    blocks = [methods[i : i + width] for i in range(0, len(methods), width)]
    return [[Panel(pair, method, sparsify) for method in block] for block in blocks for pair, sparsify in rows]


def _fill(axes: "np.ndarray[Any, Any]", panels: Sequence[Sequence[Panel]], found: Changes) -> None:
    """Draw the panels into their axes: methods are named above their first row, pairs before their rows."""
    marked, shade = real(found), _shade(found)
    alone, digits = axes.size == 1, 1 if axes.shape[1] == 1 else 0
    for i, row in enumerate(panels):
        first = i == 0 or panels[i - 1][0].method != row[0].method
        for ax, panel in zip(axes[i], row, strict=False):
            _draw_panel(ax, found, panel, marked, shade, first=ax is axes[i, 0], digits=digits)
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
    return palette.name(panel.pair) + (", DARE" if panel.sparsify == "dare" else "")


def _shade(found: Changes) -> Normalize:
    top = max([5.0, *(abs(change.value) for change in found.values() if change.value is not None)])
    return Normalize(-top, top)


def _benchmarks(found: Changes, pair: str) -> list[str]:
    order = list(palette.BENCHMARKS)
    known = {benchmark for panel, benchmark, _ in found if panel.pair == pair}
    return sorted(known, key=lambda b: (order.index(b) if b in order else len(order), b))


def _draw_panel(
    ax: Axes, found: Changes, panel: Panel, marked: frozenset[tuple[Panel, str, float]], shade: Normalize,
    *, first: bool, digits: int,
) -> None:  # fmt: skip
    benchmarks = _benchmarks(found, panel.pair)
    alphas = sorted({alpha for _, _, alpha in found})
    for i, benchmark in enumerate(benchmarks):
        for j, alpha in enumerate(alphas):
            key = (panel, benchmark, alpha)
            _draw_cell(ax, i, j, found.get(key), key in marked, shade, digits)
    ax.set_xlim(-0.5, len(alphas) - 0.5)
    ax.set_ylim(len(benchmarks) - 0.5, -0.5)
    ax.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    ax.set_yticks(range(len(benchmarks)), [palette.name(b) for b in benchmarks] if first else [""] * len(benchmarks))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _draw_cell(ax: Axes, i: int, j: int, change: Change | None, is_real: bool, shade: Normalize, digits: int) -> None:
    """Fill one cell and print its number; hatch it where there is none."""
    if change is None or change.value is None:
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fc="white", ec=palette.GREY, hatch="////", lw=0))
        return
    colour = colormaps[_COLOURS](0.5 + 0.4 * float(shade(change.value) * 2 - 1))
    ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fc=colour, ec="white", lw=0.6))
    if is_real:
        ax.add_patch(Rectangle((j - 0.45, i - 0.43), 0.9, 0.86, fill=False, ec="black", lw=0.9, zorder=3))
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 0.5
    ax.text(j, i, _signed(change.value, digits), ha="center", va="center", fontsize=palette.SMALL,
            color="black" if light else "white")  # fmt: skip


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
    if bool(frame["ratio"].isin(["grid", "fixed"]).any()):
        return "Expectations from the response curve."
    draws = frame.loc[frame["ratio"] == "mixup"].groupby("alpha")["draw"].nunique()
    most = int(draws.max()) if len(draws) else 0
    return f"Each the mean of {most} draws of λ." if most != 1 else "Each ONE draw of λ, as in the paper."


def _notes(found: Changes, source: str) -> Iterator[str]:
    tests = sum(change.value is not None for change in found.values())
    yield f"{source} Outlined: excludes 0 at 5 % after Holm over {tests} paired contrasts."
    absent: dict[str, list[str]] = {}
    for (panel, benchmark, _), change in found.items():
        if change.value is None:
            cell = f"{_row_name(panel)} {palette.name(panel.method)} {palette.name(benchmark)}"
            absent.setdefault(change.why, []).append(cell)
    for why, cells in absent.items():
        names = list(dict.fromkeys(cells))
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        yield f"Hatched, {why}: {', '.join(names[:4])}{more}."
