"""The paper's Figures 1 and 4, and the drop under each attack: our points with intervals, its values hollow."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from m3_exp.benchmarks import about
from m3_exp.reporting.comparisons import points
from m3_exp.reporting.comparisons.points import Point
from m3_exp.reporting.data import published
from m3_exp.reporting.data.published import Number
from m3_exp.reporting.figures import dots, palette
from m3_exp.reporting.figures.dots import Row, Series
from m3_exp.reporting.figures.frames import Data, about_mixed, methods, places, rows_of, together
from m3_exp.reporting.figures.palette import Mark

_LINES = {
    ("none", "plain"): ("TIES", palette.PLAIN),
    ("dare", "plain"): ("+ DARE", palette.DARE),
    ("none", "mixup"): ("+ M3", palette.MIXED),
    ("dare", "mixup"): ("+ DARE + M3", palette.BOTH),
}
_RATIOS = (("plain", "without M3", palette.PLAIN), ("mixup", "with M3", palette.MIXED))
_LABEL = 36  # characters below an axis of one column


def figure1a(data: Data) -> Figure:
    """Table 1's gains of task arithmetic and TIES with M3 over the same without it, paired by item."""
    (frame,) = data.scored("table1", figure="figure1a")
    series = [
        Series(palette.name(m), palette.method(m), _gains(frame, m), _paper_gains(data, frame, m))
        for m in ("task_arithmetic", "ties")
    ]
    label = "\n".join(["Gain by M3 (points)", *(textwrap.fill(text, _LABEL) for text in about_mixed([frame]))])
    return dots.chart(_rows(frame), series, label, zero=True)


def figure1c(data: Data) -> Figure:
    """TIES alone, with DARE, with M3, and with both: a panel a pair."""
    (frame,) = data.scored("table1", figure="figure1c")
    panels = []
    for pair in dict.fromkeys(pair for pair, _ in places(frame)):
        own = frame[frame["pair"] == pair]
        series = [
            Series(
                label, mark, _scores(own, "ties", ratio, sparsify), _paper_scores(data, own, "ties", ratio, sparsify)
            )
            for (sparsify, ratio), (label, mark) in _LINES.items()
        ]
        rows = [Row(row.key, row.label) for row in _rows(own)]
        panels.append(dots.Panel(rows, series, palette.name(pair), "table1"))
    return dots.side_by_side(panels, below="Score with TIES (%)", more=about_mixed([frame]))


def figure1b(data: Data) -> Figure:
    """Task arithmetic out of distribution, and its performance drop under StressTest: without and with M3."""
    ood, attacked = frames = data.scored("figure4", "table2", figure="figure1b")
    scores = [Series(label, mark, _scores(ood, "task_arithmetic", ratio, "none")) for ratio, label, mark in _RATIOS]
    drops = _drops(data, "table2", attacked)
    panels = [
        dots.Panel(_rows(ood), scores, "Score out of distribution (%)", "figure4"),
        dots.Panel(_attacked_rows(attacked), drops, "Drop under StressTest, PDR (%)", "table2", zero=True),
    ]
    said = ["The paper prints no scores out of distribution, only gains: see figure4."] if data.published else []
    return dots.side_by_side(panels, more=[*about_mixed(frames), *said])


def figure4(data: Data) -> Figure:
    """Out-of-distribution scores of each method on each pair, without and with M3, and the gain."""
    (frame,) = data.scored("figure4", figure="figure4")
    cells = {f"{pair}/{b}/{m}": (pair, b, m) for pair, b in places(frame) for m in methods(frame)}
    rows = [
        Row(key, palette.name(m), f"{palette.name(pair)}: {palette.name(b)}") for key, (pair, b, m) in cells.items()
    ]
    scores = [
        Series(label, mark, {key: points.score(rows_of(frame, pair, m, b, ratio, "none"))
                             for key, (pair, b, m) in cells.items()})
        for ratio, label, mark in _RATIOS
    ]  # fmt: skip
    gains = {key: _gain(frame, pair, m, b) for key, (pair, b, m) in cells.items()}
    folder = data.published
    stated = {} if folder is None else {key: published.gain(folder, *cell) for key, cell in cells.items()}
    paper = {key: value for key, value in stated.items() if value is not None}
    return dots.side_by_side([
        dots.Panel(rows, scores, "Score out of distribution (%)", "figure4"),
        dots.Panel(rows, [Series("gain", Mark(palette.BLUE, "s"), gains, paper)], "Gain by M3 (points)", "figure4",
                   zero=True),
    ], more=about_mixed([frame]))  # fmt: skip


def pdr(data: Data) -> Figure:
    """The performance drop rate of task arithmetic under the three attacks, without and with M3."""
    frames = dict(zip(published.ATTACKS, data.scored(*published.ATTACKS, figure="pdr"), strict=True))
    rows = _attacked_rows(together(list(frames.values())))
    panels = [
        dots.Panel(rows, _drops(data, table, frames[table]), palette.name(attack), table, zero=True)
        for table, attack in published.ATTACKS.items()
    ]
    below = "Performance drop rate (% of the accuracy without the attack)"
    return dots.side_by_side(panels, below=below, more=about_mixed(list(frames.values())))


# ------------------------------------------------------------------------------------------------------ rows, points


def _rows(frame: pd.DataFrame) -> list[Row]:
    return [Row(f"{pair}/{b}", palette.name(b), palette.name(pair)) for pair, b in places(frame)]


def _attacked_rows(frame: pd.DataFrame) -> list[Row]:
    return _rows(frame[frame["benchmark"].map(lambda name: about(name).table == "attacks").astype(bool)])


def _scores(frame: pd.DataFrame, method: str, ratio: str, sparsify: str) -> dict[str, Point]:
    cells = places(frame)
    return {f"{pair}/{b}": points.score(rows_of(frame, pair, method, b, ratio, sparsify)) for pair, b in cells}


def _gain(frame: pd.DataFrame, pair: str, method: str, benchmark: str) -> Point:
    return points.gain(*(rows_of(frame, pair, method, benchmark, ratio, "none") for ratio in ("plain", "mixup")))


def _gains(frame: pd.DataFrame, method: str) -> dict[str, Point]:
    return {f"{pair}/{b}": _gain(frame, pair, method, b) for pair, b in places(frame)}


def _drops(data: Data, table: str, frame: pd.DataFrame) -> list[Series]:
    """Return the drop under a table's attack, without and with M3."""
    cells = places(frame)
    return [
        Series(label, mark, {
            f"{pair}/{b}": points.drop(rows_of(frame, pair, "task_arithmetic", b, ratio, "none")) for pair, b in cells
        }, _paper_drops(data, frame, table, ratio))
        for ratio, label, mark in _RATIOS
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ the paper's numbers


def _paper_scores(data: Data, frame: pd.DataFrame, method: str, ratio: str, sparsify: str) -> dict[str, float]:
    """Return the paper's Table 1 for one method, by row."""

    def number(folder: Path, pair: str, benchmark: str) -> Number | None:
        row = published.Row(method, pair, ratio == "mixup", sparsify == "dare")
        return published.table1(folder, row, benchmark)

    return _paper(data, frame, number)


def _paper_drops(data: Data, frame: pd.DataFrame, table: str, ratio: str) -> dict[str, float]:
    mixed = ratio == "mixup"
    return _paper(data, frame, lambda where, pair, b: published.attacked(where, table, pair, b, mixed).get("pdr"))


def _paper(data: Data, frame: pd.DataFrame, of: Callable[[Path, str, str], Number | None]) -> dict[str, float]:
    """Return the published numbers of a frame's pairs and benchmarks, as far as they are there and legible."""
    if data.published is None:
        return {}
    numbers = {f"{pair}/{b}": of(data.published, pair, b) for pair, b in places(frame)}
    return {key: number.value for key, number in numbers.items() if number is not None and number.value is not None}


def _paper_gains(data: Data, frame: pd.DataFrame, method: str) -> dict[str, float]:
    plain, mixed = (_paper_scores(data, frame, method, ratio, "none") for ratio in ("plain", "mixup"))
    return {key: mixed[key] - plain[key] for key in plain if key in mixed}
