"""The paper's figures and ours from the store: what each is named, which sweeps' cells it draws, and how.

`FIGURES[name].draw(data)` returns a matplotlib figure; `palette.save` writes it. Nothing is ever drawn for a cell
without a value: its place stays empty and a note says why. What each figure shows of the paper: docs/figures.md.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from m3_exp.reporting.choices import ways
from m3_exp.reporting.comparisons import points
from m3_exp.reporting.comparisons.contrasts import LEAST_DRAWS
from m3_exp.reporting.comparisons.points import Point
from m3_exp.reporting.curves.evaluated import Response, refused, responses
from m3_exp.reporting.data import published
from m3_exp.reporting.data.dataframe import tidy
from m3_exp.reporting.data.published import Number
from m3_exp.reporting.figures import dots, palette
from m3_exp.reporting.figures.dots import Row, Series
from m3_exp.reporting.figures.heatmap import draw_heatmap
from m3_exp.reporting.figures.palette import Mark
from m3_exp.reporting.figures.responses import draw_densities, draw_response
from m3_exp.types import M3Error

PAIRS = ("lm_math", "lm_code", "math_code")
_LINES = {
    ("none", "plain"): ("TIES", palette.PLAIN),
    ("dare", "plain"): ("+ DARE", palette.DARE),
    ("none", "mixup"): ("+ M3", palette.MIXED),
    ("dare", "mixup"): ("+ DARE + M3", palette.BOTH),
}
_BOTH = {"plain": ("without M3", palette.PLAIN), "mixup": ("with M3", palette.MIXED)}
_EMPTY = tidy([])
_LABEL = 36  # characters below an axis of one column
_ROW = ["pair", "method", "params", "sparsify", "benchmark"]


@dataclass(frozen=True)
class Data:
    """What figures are drawn from.

    `frames`: tidy frames by sweep; `parents`: each pair's experts, as singles are called in the frames; `published`:
    the folder of the paper's numbers, only for the family that it used; `alpha`: which M3 cells where several alphas
    were run; `pair`, `method`, `sparsify`: which curve `response` shows where there are several; `seed`: of
    what it resamples.
    """

    frames: Mapping[str, pd.DataFrame]
    parents: Mapping[str, Sequence[str]] = field(default_factory=dict)
    published: Path | None = None
    alpha: float | None = None
    pair: str | None = None
    method: str | None = None
    sparsify: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class FigureSpec:
    """A figure by name: what it shows, whose cells it draws, and what draws it.

    `sweeps` are drawn together as far as they were run; with `either` the first that suffices.
    """

    title: str
    sweeps: tuple[str, ...]
    draw: Callable[[Data], Figure]
    either: bool = False


# ---------------------------------------------------------------------------------------------------------- choosing


def _frame(data: Data, name: str, sweep: str) -> pd.DataFrame:
    """Return a sweep's frame with its one alpha of M3.

    Raises:
        M3Error: nothing of the sweep has a score, or it has several alphas and none is chosen.
    """
    frame = data.frames.get(sweep)
    if frame is None or not bool(frame["score"].notna().any()):
        raise M3Error(f"figure {name} draws cells of sweeps={sweep}, and none has a score yet; m3 run sweeps={sweep}")
    return _at_alpha(frame, data.alpha)


def _at_alpha(frame: pd.DataFrame, asked: float | None) -> pd.DataFrame:
    alphas = sorted(frame.loc[frame["ratio"] == "mixup", "alpha"].dropna().astype(float).unique())
    chosen = asked if asked is not None else 0.5 if 0.5 in alphas or len(alphas) != 1 else alphas[0]
    if alphas and chosen not in alphas:
        known = ", ".join(f"{alpha:g}" for alpha in alphas)
        raise M3Error(f"no cell has ratio.alpha={chosen:g}; there are {known}: choose one with ratio.alpha=")
    return frame[(frame["ratio"] != "mixup") | (frame["alpha"] == chosen)]


def _together(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return frames below one another, whatever types their empty columns have."""
    return pd.DataFrame([line for frame in frames for line in frame.to_dict("records")], columns=frames[0].columns)


def _rows(frame: pd.DataFrame, pair: str, method: str, benchmark: str, ratio: str, sparsify: str) -> pd.DataFrame:
    """Return the lines of one row and column of a table.

    Raises:
        M3Error: they belong to several hyper-parameters.
    """
    found = frame[
        (frame["pair"] == pair)
        & (frame["method"] == method)
        & (frame["benchmark"] == benchmark)
        & (frame["ratio"] == ratio)
        & (frame["sparsify"] == sparsify)
    ]
    settings = sorted(found["params"].unique())
    if len(settings) > 1:
        raise M3Error(f"{method} has cells with {' and with '.join(settings)}; choose one with method.{settings[0]}")
    return found


def _mixed(frames: Sequence[pd.DataFrame]) -> list[str]:
    """Say what an M3 row is: an expectation from a curve, or a mean of draws, and what its bar is of."""
    drawn: set[int] = set()
    expected = False
    for frame in frames:
        done = frame[(frame["ratio"] == "mixup") & frame["score"].notna()]
        own = (
            done["expected"].map(lambda found: isinstance(found, Response)) if "expected" in done else done["score"] < 0
        )
        expected = expected or bool(own.any())
        drawn |= {int(rows["lam"].nunique()) for _, rows in done[~own].groupby([*_ROW, "alpha"])}
    few, many = (sorted(n for n in drawn if (n < LEAST_DRAWS) == is_few) for is_few in (True, False))
    return [
        *(["M3: the expectation over λ, from response curves."] if expected else []),
        *([f"M3: mean of {_counted(few)} of λ; bars: items, of these draws."] if few else []),
        *([f"M3: mean of {_counted(many)} of λ; bars: items and draws."] if many else []),
    ]


def _counted(draws: Sequence[int]) -> str:
    return f"{' or '.join(map(str, draws))} draw{'s' if draws[-1] > 1 else ''}"


def _pairs(frame: pd.DataFrame) -> list[str]:
    """Return the merged pairs in the paper's order, others behind them."""
    merged = frame.loc[frame["method"] != "single", "pair"].unique()
    return sorted(merged, key=lambda pair: (PAIRS.index(pair) if pair in PAIRS else len(PAIRS), pair))


def _benchmarks(frame: pd.DataFrame, pair: str) -> list[str]:
    found = frame.loc[(frame["pair"] == pair) & (frame["method"] != "single"), "benchmark"].unique()
    order = list(palette.BENCHMARKS)
    return sorted(found, key=lambda b: (order.index(b) if b in order else len(order), b))


def _methods(frame: pd.DataFrame) -> list[str]:
    order = list(palette.METHODS)
    found = frame.loc[frame["method"] != "single", "method"].unique()
    return sorted(found, key=lambda m: (order.index(m) if m in order else len(order), m))


def _cells(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return [(pair, benchmark) for pair in _pairs(frame) for benchmark in _benchmarks(frame, pair)]


def _grouped(cells: Sequence[tuple[str, str]]) -> list[Row]:
    return [Row(f"{pair}/{b}", palette.name(b), palette.name(pair)) for pair, b in cells]


# ------------------------------------------------------------------------------------------------- figures 1a and 1c


def figure1a(data: Data) -> Figure:
    """Table 1's gains of task arithmetic and TIES with M3 over the same without it, paired by item."""
    frame = _frame(data, "figure1a", "table1")
    series = [
        Series(palette.name(m), palette.method(m), _gains(frame, m), _paper_gains(data, m, _cells(frame)))
        for m in ("task_arithmetic", "ties")
    ]
    label = "\n".join(["Gain by M3 (points)", *(textwrap.fill(text, _LABEL) for text in _mixed([frame]))])
    return dots.chart(_grouped(_cells(frame)), series, label, zero=True)


def _gains(frame: pd.DataFrame, method: str) -> dict[str, Point]:
    return {
        f"{pair}/{b}": points.gain(*(_rows(frame, pair, method, b, ratio, "none") for ratio in ("plain", "mixup")))
        for pair, b in _cells(frame)
    }


def figure1c(data: Data) -> Figure:
    """TIES alone, with DARE, with M3, and with both: a panel a pair."""
    frame = _frame(data, "figure1c", "table1")
    series = [
        Series(
            label, mark, _scores(frame, "ties", ratio, sparsify), _paper(data, "ties", ratio, sparsify, _cells(frame))
        )
        for (sparsify, ratio), (label, mark) in _LINES.items()
    ]
    panels = [
        dots.Panel([Row(f"{pair}/{b}", palette.name(b)) for b in _benchmarks(frame, pair)],
               [_within(one, pair) for one in series], palette.name(pair), "table1")
        for pair in _pairs(frame)
    ]  # fmt: skip
    return dots.side_by_side(panels, below="Score with TIES (%)", more=_mixed([frame]))


def _within(one: Series, pair: str) -> Series:
    """Return a series' points of one pair."""
    own = {key: point for key, point in one.points.items() if key.startswith(f"{pair}/")}
    return Series(one.label, one.mark, own, {key: x for key, x in one.paper.items() if key.startswith(f"{pair}/")})


def _scores(frame: pd.DataFrame, method: str, ratio: str, sparsify: str) -> dict[str, Point]:
    return {f"{pair}/{b}": points.score(_rows(frame, pair, method, b, ratio, sparsify)) for pair, b in _cells(frame)}


def _printed(data: Data, keys: Iterable[tuple[str, ...]], number: Callable[..., Number | None]) -> dict[str, float]:
    """Return the paper's figures by row; without what it did not evaluate, or nobody can read."""
    if data.published is None:
        return {}
    known = {"/".join(key): number(data.published, *key) for key in keys}
    return {key: one.value for key, one in known.items() if one is not None and one.value is not None}


def _paper(data: Data, method: str, ratio: str, sparsify: str, cells: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return the paper's Table 1 for one method, by row."""

    def number(folder: Path, pair: str, benchmark: str) -> Number | None:
        row = published.Row(method, pair, ratio == "mixup", sparsify == "dare")
        return published.table1(folder, row, benchmark)

    return _printed(data, cells, number)


def _paper_gains(data: Data, method: str, cells: Sequence[tuple[str, str]]) -> dict[str, float]:
    plain, mixed = (_paper(data, method, ratio, "none", cells) for ratio in ("plain", "mixup"))
    return {key: mixed[key] - plain[key] for key in plain if key in mixed}


# ----------------------------------------------------------------------------------------- figures 1b, 4 and the PDR


def figure1b(data: Data) -> Figure:
    """Task arithmetic out of distribution, and its performance drop under StressTest: without and with M3."""
    frames = {sweep: data.frames[sweep] for sweep in ("figure4", "table2") if sweep in data.frames}
    if not any(bool(f["score"].notna().any()) for f in frames.values()):
        raise M3Error("figure 1b draws cells of sweeps=figure4 and sweeps=table2, and none has a score yet; run them")
    ood, attacked = _at_alpha(frames.get("figure4", _EMPTY), data.alpha), frames.get("table2", _EMPTY)
    scores = [
        Series(label, mark, _scores(ood, "task_arithmetic", ratio, "none")) for ratio, (label, mark) in _BOTH.items()
    ]
    drops = _drop_series(data, "table2", attacked)
    panels = [
        dots.Panel(_grouped(_cells(ood)), scores, "Score out of distribution (%)", "figure4"),
        dots.Panel(_drop_rows(attacked), drops, "Drop under StressTest, PDR (%)", "table2", zero=True),
    ]
    printed = ["The paper prints no scores out of distribution, only gains: see figure4."] if data.published else []
    return dots.side_by_side(panels, more=[*_mixed(list(frames.values())), *printed])


def figure4(data: Data) -> Figure:
    """Out-of-distribution scores of each method on each pair, without and with M3, and the gain."""
    frame = _frame(data, "figure4", "figure4")
    cells = [(pair, b, m) for pair, b in _cells(frame) for m in _methods(frame)]
    rows = [Row(f"{pair}/{b}/{m}", palette.name(m), f"{palette.name(pair)}: {palette.name(b)}") for pair, b, m in cells]
    lines = {f"{pair}/{b}/{m}": [_rows(frame, pair, m, b, ratio, "none") for ratio in _BOTH] for pair, b, m in cells}
    scores = [
        Series(label, mark, {key: points.score(both[i]) for key, both in lines.items()})
        for i, (label, mark) in enumerate(_BOTH.values())
    ]
    gains = {key: points.gain(*both) for key, both in lines.items()}
    printed = _printed(data, cells, lambda folder, pair, b, m: Number(published.gain(folder, pair, b, m)))
    gained = [Series("gain", Mark(palette.BLUE, "s"), gains, printed)]
    return dots.side_by_side([
        dots.Panel(rows, scores, "Score out of distribution (%)", "figure4"),
        dots.Panel(rows, gained, "Gain by M3 (points)", "figure4", zero=True),
    ], more=_mixed([frame]))  # fmt: skip


def pdr(data: Data) -> Figure:
    """The performance drop rate of task arithmetic under the three attacks, without and with M3."""
    known = {s: data.frames[s] for s in published.ATTACKS if s in data.frames}
    frames = {sweep: frame for sweep, frame in known.items() if bool(frame["score"].notna().any())}
    if not frames:
        raise M3Error("figure pdr draws cells of sweeps=table2, table5, table6, and none has a score yet; run one")
    every = _together(list(known.values()))
    rows = _drop_rows(every)
    panels = [
        dots.Panel(
            rows, _drop_series(data, sweep, data.frames.get(sweep, every[:0])), palette.name(attack), sweep, True
        )
        for sweep, attack in published.ATTACKS.items()
    ]
    return dots.side_by_side(
        panels, below="Performance drop rate (% of the accuracy without the attack)", more=_mixed(list(frames.values()))
    )


def _drop_rows(frame: pd.DataFrame) -> list[Row]:
    return _grouped([(pair, b) for pair, b in _cells(frame) if b.startswith("prompt_bench")])


def _drop_series(data: Data, sweep: str, frame: pd.DataFrame) -> list[Series]:
    at = _at_alpha(frame, data.alpha)
    found = []
    for ratio, (label, mark) in _BOTH.items():
        drops = {f"{p}/{b}": points.drop(_rows(at, p, "task_arithmetic", b, ratio, "none")) for p, b in _cells(at)}

        def printed(folder: Path, pair: str, benchmark: str, mixed: bool = ratio == "mixup") -> Number | None:
            return published.attacked(folder, sweep, pair, benchmark, mixed).get("pdr")

        found.append(Series(label, mark, drops, _printed(data, _cells(at), printed)))
    return found


# --------------------------------------------------------------------------------- figure 3, the heat map, the curve


def figure3(_: Data) -> Figure:
    """The densities of lambda for the paper's seven alphas."""
    with palette.style():
        figure = palette.blank(palette.COLUMN, 2.3)
        draw_densities(figure.subplots())
    return figure


def heatmap(data: Data) -> Figure:
    """E[score | alpha] relative to plain: alpha across, benchmarks down, a panel a pair and method."""
    curves, draws = (_only(f, data) for f in (data.frames.get(s, _EMPTY) for s in ("lambda_response", "alpha_grid")))
    if responses(curves, data.parents):
        return draw_heatmap(curves, data.parents)
    if not bool(draws.loc[draws["ratio"] == "mixup", "score"].notna().any()):
        raise M3Error("figure heatmap needs the curves of sweeps=lambda_response or the draws of alpha_grid; run one")
    return draw_heatmap(_together([draws, curves[curves["ratio"] == "plain"]]), data.parents)


def _only(frame: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Return the lines of the pair, method and sparsify that were asked for; single models stay."""
    keep = pd.Series(True, index=frame.index)
    for column, asked in (("pair", data.pair), ("method", data.method), ("sparsify", data.sparsify)):
        if asked is not None:
            keep &= (frame[column] == asked) | (frame["method"] == "single")
    return frame[keep]


def response(data: Data) -> Figure:
    """All benchmarks of a pair and method along lambda, and what each way of choosing it gives."""
    frame = data.frames.get("lambda_response")
    if frame is None:
        raise M3Error("figure response draws cells of sweeps=lambda_response; m3 run sweeps=lambda_response")
    found, lost = responses(_only(frame, data), data.parents), refused(_only(frame, data))
    names = sorted({_line(r) for r in found})
    if not found:
        why = "".join(f"; {text}" for text in lost)
        raise M3Error(
            f"no benchmark has a curve: all planned nodes must be evaluated{why}; m3 run sweeps=lambda_response"
        )
    if len(names) > 1:
        raise M3Error(f"response shows one pair and method; choose with pair=, method=, sparsify= among {names}")
    known = {one.benchmark for one in found} | {one.benchmark for one in lost}
    absent = sorted(set(frame.loc[_of(frame, found[0]), "benchmark"]) - known)
    notes = [*map(str, lost), *(f"{palette.name(b)}: no curve, not run" for b in absent)]
    return draw_response(ways.study(found, seed=data.seed), notes)


def _line(found: Response) -> str:
    return " ".join(part for part in (found.name, found.params) if part)


def _of(frame: pd.DataFrame, found: Response) -> "pd.Series[bool]":
    return (frame["pair"] == found.pair) & (frame["method"] == found.method) & (frame["sparsify"] == found.sparsify)


FIGURES: Mapping[str, FigureSpec] = {
    "figure1a": FigureSpec("gains of task arithmetic and TIES with M3 (Table 1)", ("table1",), figure1a),
    "figure1b": FigureSpec("out of distribution, and drop under StressTest", ("figure4", "table2"), figure1b),
    "figure1c": FigureSpec("TIES with DARE, M3 and both (Table 1)", ("table1",), figure1c),
    "figure3": FigureSpec("Beta densities of the seven alphas", (), figure3),
    "figure4": FigureSpec("out-of-distribution scores with and without M3", ("figure4",), figure4),
    "pdr": FigureSpec("performance drop under three attacks", tuple(published.ATTACKS), pdr),
    "heatmap": FigureSpec("E[score | alpha] - plain, by alpha and benchmark", ("lambda_response", "alpha_grid"),
                          heatmap, either=True),
    "response": FigureSpec("score along lambda, and what each way of choosing gives", ("lambda_response",), response),
}  # fmt: skip
