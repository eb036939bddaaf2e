"""Which layers carry the gain: one range of decoder layers at a time has a lambda, all else is plain.

A panel a benchmark, a row a range of layers, a marker a lambda: what the score gains over plain, paired by item.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from m3_exp.benchmarks import in_order
from m3_exp.merging.part_words import weights_text
from m3_exp.reporting.comparisons import points
from m3_exp.reporting.figures import dots, palette
from m3_exp.reporting.figures.dots import Panel, Row, Series
from m3_exp.reporting.figures.frames import Data, rows_of
from m3_exp.reporting.figures.palette import Mark
from m3_exp.types import M3Error, Part

SWEEP = "layer_ablation"
_ABREAST = 3  # panels side by side
_LOOKS = (
    (palette.VERMILLION, "v"),
    (palette.ORANGE, "<"),
    (palette.BLACK, "o"),
    (palette.SKY, ">"),
    (palette.BLUE, "^"),
)


def draw(data: Data) -> Figure:
    """Draw the gains of one pair and method.

    Raises:
        M3Error: there are several pairs or methods, or nothing has a score.
    """
    (frame,) = data.scored(SWEEP, figure=SWEEP)
    ours = frame[frame["parts"].map(_is_range) & (frame["method"] != "single")]
    if not bool(ours["score"].notna().any()):
        raise M3Error(f"figure {SWEEP} draws cells of sweeps={SWEEP}, and none has a score yet; {data.line(SWEEP)}")
    of = ours.drop_duplicates(subset=["pair", "method", "params", "sparsify"])
    named = sorted(
        " ".join(word for word in line if word not in ("", "none"))
        for line in of[["pair", "method", "params", "sparsify"]].to_numpy()
    )
    if len(named) > 1:
        raise M3Error(f"{SWEEP} shows one pair and method; choose with pair=, method=, sparsify= among {named}")
    names = in_order(ours["benchmark"].unique())
    if len(names) > _ABREAST:
        raise M3Error(
            f"{SWEEP} shows {_ABREAST} benchmarks at most; choose with evaluator=[A,B] among {', '.join(names)}"
        )
    panels = [_panel(frame, ours[ours["benchmark"] == name], name) for name in names]
    experts = data.parents.get(str(ours.iloc[0]["pair"]), ())
    share = f"; λ: the share of {experts[0]}" if experts else ""
    said = f"{palette.name(str(ours.iloc[0]['pair']))}, {palette.name(str(ours.iloc[0]['method']))}"
    shown = sum(point.value is not None for panel in panels for one in panel.series for point in one.points.values())
    every = [one.label for one in panels[0].series]
    same = [f"{label} is plain" for label in every if not any(_points(panel, label) for panel in panels)]
    note = f"{said}; bars: 95 % each, paired by item, {shown} comparisons not adjusted for their number{share}"
    kept = [replace(p, series=[one for one in p.series if f"{one.label} is plain" not in same]) for p in panels]
    return dots.side_by_side(kept, below="Gain over plain (points)", more=[note, *same])


def _points(panel: Panel, label: str) -> bool:
    return any(one.label == label and one.points for one in panel.series)


def _is_range(parts: object) -> bool:
    """Tell whether a line has one part, a range of layers with weights."""
    return isinstance(parts, tuple) and len(parts) == 1 and parts[0].where.startswith("depth ")


def _panel(frame: pd.DataFrame, ours: pd.DataFrame, benchmark: str) -> Panel:
    first = ours.iloc[0]
    plain = rows_of(frame, first["pair"], first["method"], benchmark, "plain", first["sparsify"])
    parts: dict[Part, pd.DataFrame] = {one: ours[ours["parts"] == (one,)] for (one,) in ours["parts"].unique()}
    places = sorted({part.where for part in parts}, key=_index)
    mixtures = sorted({part.weights for part in parts if part.weights is not None})
    series = [
        Series(f"λ {weights_text(weights)}", mark, {
            place: gain for place in places
            if (part := Part(place, weights)) in parts
            and (gain := points.gain(plain, parts[part])).note != points.SAME
        })
        for weights, mark in zip(mixtures, _marks(len(mixtures)), strict=True)
    ]  # fmt: skip
    rows = [Row(place, place) for place in places]
    return Panel(rows, series, palette.name(benchmark), SWEEP, zero=True)


def _index(place: str) -> int:
    return int(place.removeprefix("depth ").partition("/")[0])


def _marks(count: int) -> Sequence[Mark]:
    """Return marks from warm to cold, the middle one black."""
    step = (len(_LOOKS) - 1) / max(1, count - 1)
    return [Mark(*_LOOKS[min(len(_LOOKS) - 1, math.floor(number * step + 0.5))]) for number in range(count)]
