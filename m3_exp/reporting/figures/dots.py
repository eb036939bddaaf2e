"""Dot charts: a row a cell, a marker a series, our 95 % intervals as bars, published values as hollow markers.

Rows run down, values across, so that names stay horizontal and readable at column width. What has no value has no
marker: its row says why, or a note below the picture does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from m3_exp.reporting.comparisons.points import Point
from m3_exp.reporting.figures import palette
from m3_exp.reporting.figures.palette import Mark

_STEP = 0.125  # inches between the series of a row
_HEADING = 0.19  # inches of a group's heading


@dataclass(frozen=True)
class Row:
    """One line of a chart: `key` finds its points, rows of one `group` stand under its heading."""

    key: str
    label: str
    group: str = ""


@dataclass(frozen=True)
class Series:
    """One marker's points by row, and what the paper prints for them."""

    label: str
    mark: Mark
    points: Mapping[str, Point]
    paper: Mapping[str, float] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------------- drawing


def present(rows: Sequence[Row], series: Sequence[Series]) -> list[Row]:
    """Return the rows that have a value, or a note that says why they have none."""
    nothing = Point(None)
    return [
        row
        for row in rows
        if any((p := s.points.get(row.key, nothing)).value is not None or p.note or row.key in s.paper for s in series)
    ]


def height(rows: Sequence[Row], series: int) -> float:
    """Return the inches that the rows of a chart need for so many series, without axis, legend and notes."""
    headings = len({row.group for row in rows} - {""})
    return len(rows) * _pitch(series) + headings * _HEADING + 0.08


def _pitch(series: int) -> float:
    return max(0.2, _STEP * series + 0.07)


def draw(
    ax: Axes, rows: Sequence[Row], series: Sequence[Series], *, labels: bool = True, slots: int | None = None
) -> dict[str, float]:
    """Draw a chart and return each row's y; it is in inches from the top, so that text and markers keep apart.

    `slots`: the height of rows in series, where a neighbour has more of them; `labels`: whether to name the rows.
    """
    slots = slots or len(series)
    places, ticks = _places(rows, slots)
    for number, one in enumerate(series):
        shift = (number - (len(series) - 1) / 2) * _STEP
        _draw_series(ax, one, {key: y + shift for key, y in places.items()})
    for row in rows:
        reasons = [one.points.get(row.key, Point(None)) for one in series]
        if all(p.value is None for p in reasons) and not any(row.key in one.paper for one in series):
            text = next((p.note for p in reasons if p.note), "not run")
            ax.text(0.5, places[row.key], text if len(text) < 16 else "no value", color=palette.GREY, style="italic",
                    transform=ax.get_yaxis_transform(), ha="center", va="center", fontsize=palette.SMALL,
                    bbox={"fc": "white", "ec": "none", "pad": 0.8})  # fmt: skip
    ax.set_ylim(height(rows, slots), 0)
    _tick(ax, ticks, labels)
    return places


def _places(rows: Sequence[Row], series: int) -> tuple[dict[str, float], list[tuple[float, str, bool]]]:
    """Return each row's y, and the tick labels: place, text, whether it is a heading."""
    at, group = 0.04, ""
    places: dict[str, float] = {}
    ticks: list[tuple[float, str, bool]] = []
    for row in rows:
        if row.group != group:
            group = row.group
            ticks.append((at + _HEADING / 2, group, True))
            at += _HEADING
        places[row.key] = at + _pitch(series) / 2
        ticks.append((places[row.key], row.label, False))
        at += _pitch(series)
    return places, ticks


def _tick(ax: Axes, ticks: Sequence[tuple[float, str, bool]], labels: bool) -> None:
    ax.set_yticks([y for y, _, _ in ticks], [text if labels else "" for _, text, _ in ticks])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    for text, (y, _, heading) in zip(ax.get_yticklabels(), ticks, strict=True):
        text.set_fontweight("bold" if heading else "normal")
        if not heading:
            ax.axhline(y, color=palette.FAINT, lw=0.6, zorder=0)


def _draw_series(ax: Axes, one: Series, at: Mapping[str, float]) -> None:
    known = [(at[key], p) for key, p in one.points.items() if p.value is not None and key in at]
    if known:
        x = np.array([p.value for _, p in known], dtype=float)
        reach = np.array([[x[i] - p.low, p.high - x[i]] for i, (_, p) in enumerate(known)]).T
        ax.errorbar(x, [y for y, _ in known], xerr=np.maximum(reach, 0), fmt=one.mark.marker, color=one.mark.colour,
                    ms=3.6, lw=0.9, mew=0.6, label=one.label)  # fmt: skip
    printed = [(value, at[key] + 0.4 * _STEP) for key, value in one.paper.items() if key in at]
    if printed:
        ax.plot(*zip(*printed, strict=True), one.mark.marker, mfc="white", mec=one.mark.colour, ms=3.2, mew=0.7,
                ls="none", label=f"{one.label} (paper)", zorder=3)  # fmt: skip


def legend(figure: Figure, series: Sequence[Series]) -> None:
    """Name the markers above everything; one more entry says what a hollow one is."""
    drawn = [one for one in series if one.paper or any(p.value is not None for p in one.points.values())]
    handles = [Line2D([], [], color=s.mark.colour, marker=s.mark.marker, ms=3.6, lw=0.9, label=s.label) for s in drawn]
    if any(one.paper for one in drawn):
        handles.append(Line2D([], [], marker="o", mfc="white", mec=palette.GREY, ls="none", ms=3.6, mew=0.7,
                              label="hollow: paper"))  # fmt: skip
    if handles:
        wide = figure.get_figwidth() > palette.COLUMN
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles) if wide else min(3, len(handles)))


def notes(rows: Sequence[Row], series: Sequence[Series], *, at_most: int = 6) -> list[str]:
    """Return notes on missing or incomplete values, a sentence for each series and row."""
    lacking = [
        f"{one.label}, {row.group + ' ' if row.group else ''}{row.label}: {point.note}"
        for one in series
        for row in rows
        if (point := one.points.get(row.key, Point(None))).note
    ]
    more = len(lacking) - at_most
    return lacking[:at_most] + ([f"and {more} more (m3 table names them all)"] if more > 0 else [])


# --------------------------------------------------------------------------------------------------- whole figures


@dataclass(frozen=True)
class Panel:
    """One of several charts side by side; `sweep` is what must run for it to have values."""

    rows: Sequence[Row]
    series: Sequence[Series]
    label: str
    sweep: str
    zero: bool = False  # whether 0 is a level of its own: no gain, no drop


def chart(rows: Sequence[Row], series: Sequence[Series], label: str, *, zero: bool = False) -> Figure:
    """Draw one chart at column width."""
    used = [one for one in series if one.paper or any(p.value is not None or p.note for p in one.points.values())]
    shown = present(rows, used)
    lines = notes(shown, used)
    keys = len(used) + any(one.paper for one in used)
    with palette.style():
        tall = _tall(shown, len(used), lines, palette.COLUMN) + 0.16 * (-(-keys // 3) - 1)
        figure = palette.blank(palette.COLUMN, tall)
        ax = figure.subplots()
        draw(ax, shown, used)
        _finish(ax, label, zero)
        legend(figure, used)
        palette.annotate(figure, lines)
    return figure


def side_by_side(panels: Sequence[Panel], *, below: str = "", more: Sequence[str] = ()) -> Figure:
    """Draw charts side by side over both columns. Where all have the same rows, the first names them.

    `below`: what all of them measure; then each panel's own label is its title. `more`: other notes.
    """
    same = all(list(panel.rows) == list(panels[0].rows) for panel in panels)
    every = [one for panel in panels for one in panel.series]
    rows = [present(panel.rows, every if same else panel.series) for panel in panels]
    slots = [max(len(p.series) for p in panels) if same else len(panel.series) for panel in panels]
    lines = [*more, *_lacking(panels, rows, below)]
    most = max(range(len(panels)), key=lambda i: height(rows[i], slots[i]))
    with palette.style():
        tall = _tall(rows[most], slots[most], lines, palette.DOUBLE) + (0.18 if below else 0)
        figure = palette.blank(palette.DOUBLE, tall)
        axes = figure.subplots(1, len(panels), squeeze=False, sharex=bool(below))[0]
        for number, ax in enumerate(axes):
            panel = panels[number]
            draw(ax, rows[number], panel.series, labels=not same or number == 0, slots=slots[number])
            _finish(ax, "" if below else panel.label, panel.zero)
            if below:
                ax.set_title(panel.label)
                ax.set_ylim(height(rows[most], slots[most]), 0)  # rows of one height in all panels
            if not _has_values(panel) and not any(one.paper for one in panel.series):
                _say_not_run(ax, panel.sweep)
                ax.tick_params(axis="x", labelbottom=bool(below), length=0)
        if below:
            axes[len(axes) // 2].set_xlabel(below)
        legend(figure, _distinct(panels))
        palette.annotate(figure, lines)
    return figure


def _tall(rows: Sequence[Row], slots: int, lines: Sequence[str], width: float) -> float:
    """Return a figure's height in inches: rows, axis, one line of legend, notes."""
    return height(rows, slots) + 0.7 + palette.SPACING * len(palette.lines_of(lines, width))


def _finish(ax: Axes, label: str, zero: bool) -> None:
    ax.set_xlabel(label)
    ax.grid(axis="x", color=palette.FAINT, lw=0.4)
    if zero:
        ax.axvline(0, color=palette.GREY, lw=0.8, zorder=1)


def _lacking(panels: Sequence[Panel], rows: Sequence[Sequence[Row]], below: str) -> list[str]:
    """Return the panels' notes on missing values, each once, and what to run where a panel has no value of ours."""
    lines = []
    for panel, shown in zip(panels, rows, strict=True):
        lines += [f"{panel.label}: {note}" if below else note for note in notes(shown, panel.series, at_most=3)]
    lines += [f"nothing of ours yet (sweeps={panel.sweep})" for panel in panels if not _has_values(panel)]
    return list(dict.fromkeys(lines))


def _has_values(panel: Panel) -> bool:
    return any(point.value is not None for one in panel.series for point in one.points.values())


def _say_not_run(ax: Axes, sweep: str) -> None:
    """Empty the axes of a panel that has no value at all, and say what would fill it."""
    for artist in [*ax.texts, *ax.lines]:
        artist.remove()
    ax.grid(visible=False)
    ax.text(0.5, 0.5, f"not run\n(sweeps={sweep})", transform=ax.transAxes, ha="center", va="center",
            color=palette.GREY, style="italic")  # fmt: skip


def _distinct(panels: Sequence[Panel]) -> list[Series]:
    """Return one series a label for the legend, with all that any panel has of it."""
    by_label: dict[str, Series] = {}
    for one in (series for panel in panels for series in panel.series):
        known = by_label.get(one.label, one)
        valued = {key: point for key, point in one.points.items() if point.value is not None}
        by_label[one.label] = Series(one.label, one.mark, {**known.points, **valued}, {**known.paper, **one.paper})
    return list(by_label.values())
