"""The paper's figures and ours from the store: what each is named, which sweeps' cells it draws, and how.

`FIGURES[name].draw(data)` returns a matplotlib figure; `palette.save` writes it. Nothing is ever drawn for a cell
without a value: its place stays empty and a note says why. What each figure shows of the paper: docs/figures.md.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from m3_exp.benchmarks import about, in_order
from m3_exp.reporting.choices import advice
from m3_exp.reporting.comparisons import points
from m3_exp.reporting.comparisons.contrasts import LEAST_DRAWS
from m3_exp.reporting.comparisons.points import Point
from m3_exp.reporting.curves.evaluated import Response, refused, responses
from m3_exp.reporting.data import published
from m3_exp.reporting.data.dataframe import tidy
from m3_exp.reporting.figures import dots, palette
from m3_exp.reporting.figures.dots import Row, Series
from m3_exp.reporting.figures.heatmap import draw_heatmap
from m3_exp.reporting.figures.palette import Mark
from m3_exp.reporting.figures.responses import draw_densities, draw_response
from m3_exp.types import M3Error

PAIRS = ("lm_math", "lm_code", "math_code")
_ATTACKS = {"table2": "stresstest", "table5": "deepwordbug", "table6": "bertattack"}
_LINES = {
    ("none", "plain"): ("TIES", palette.PLAIN),
    ("dare", "plain"): ("+ DARE", palette.DARE),
    ("none", "mixup"): ("+ M3", palette.MIXED),
    ("dare", "mixup"): ("+ DARE + M3", palette.BOTH),
}
_EMPTY = tidy([])
_LABEL = 36  # characters below an axis of one column
_ROW = ["pair", "method", "params", "sparsify", "benchmark"]


@dataclass(frozen=True)
class Data:
    """What figures are drawn from.

    `frames`: tidy frames by sweep; `parents`: each pair's experts, as singles are called in the frames; `published`:
    results/published/*.csv by name, only for the family that the paper used; `alpha`: which M3 cells where several
    alphas were run; `pair`, `method`, `sparsify`: which curve `response` shows where there are several; `seed`: the
    sweeps', of what it resamples.
    """

    frames: Mapping[str, pd.DataFrame]
    parents: Mapping[str, Sequence[str]] = field(default_factory=dict)
    published: Mapping[str, pd.DataFrame] = field(default_factory=dict)
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


def read_published(folder: Path) -> dict[str, pd.DataFrame]:
    """Read results/published/*.csv as text: an empty cell is one that the paper did not evaluate."""
    return {path.stem: pd.DataFrame(published.rows(path)) for path in sorted(folder.glob("*.csv"))}


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
    return in_order(found)


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
        Series(palette.name(m), palette.method(m), _gains(frame, m), _paper_gains(data, m))
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
        Series(label, mark, _scores(frame, "ties", ratio, sparsify), _paper(data, "ties", ratio, sparsify))
        for (sparsify, ratio), (label, mark) in _LINES.items()
    ]
    panels = [
        dots.Panel([Row(f"{pair}/{b}", palette.name(b)) for b in _benchmarks(frame, pair)],
               [_within(one, pair) for one in series], palette.name(pair), "table1")
        for pair in _pairs(frame)
    ]  # fmt: skip
    return dots.side_by_side(panels, below="Score with TIES (%)", said=_mixed([frame]))


def _within(one: Series, pair: str) -> Series:
    """Return a series' points of one pair."""
    own = {key: point for key, point in one.points.items() if key.startswith(f"{pair}/")}
    return Series(one.label, one.mark, own, {key: x for key, x in one.paper.items() if key.startswith(f"{pair}/")})


def _scores(frame: pd.DataFrame, method: str, ratio: str, sparsify: str) -> dict[str, Point]:
    return {f"{pair}/{b}": points.score(_rows(frame, pair, method, b, ratio, sparsify)) for pair, b in _cells(frame)}


def _paper(data: Data, method: str, ratio: str, sparsify: str) -> dict[str, float]:
    """Return the paper's Table 1 for one method, by row."""
    table = data.published.get("table1")
    if table is None:
        return {}
    rows = table[
        (table["method"] == method)
        & (table["mixup"].astype(int) == int(ratio == "mixup"))
        & (table["dare"].astype(int) == int(sparsify == "dare"))
    ]
    benchmarks = [column for column in table.columns if about(column).table]
    return {f"{row['models']}/{b}": float(row[b]) for _, row in rows.iterrows() for b in benchmarks if _legible(row[b])}


def _paper_gains(data: Data, method: str) -> dict[str, float]:
    plain, mixed = (_paper(data, method, ratio, "none") for ratio in ("plain", "mixup"))
    return {key: mixed[key] - plain[key] for key in plain if key in mixed}


def _legible(text: str) -> bool:
    """Tell whether the paper has this number: `?` is one that cannot be read, an empty one was not evaluated."""
    return bool(str(text)) and str(text) != "?"


# ----------------------------------------------------------------------------------------- figures 1b, 4 and the PDR


def figure1b(data: Data) -> Figure:
    """Task arithmetic out of distribution, and its performance drop under StressTest: without and with M3."""
    left, right = data.frames.get("figure4"), data.frames.get("table2")
    frames = {sweep: f for sweep, f in (("figure4", left), ("table2", right)) if f is not None}
    if not any(bool(f["score"].notna().any()) for f in frames.values()):
        raise M3Error("figure 1b draws cells of sweeps=figure4 and sweeps=table2, and none has a score yet; run them")
    ood = _at_alpha(frames.get("figure4", _EMPTY), data.alpha)
    rows = [Row(f"{pair}/{b}", palette.name(b), palette.name(pair)) for pair, b in _cells(ood)]
    pairs = [
        Series(label, mark, _scores(ood, "task_arithmetic", ratio, "none"))
        for ratio, label, mark in (("plain", "without M3", palette.PLAIN), ("mixup", "with M3", palette.MIXED))
    ]
    drops = _drop_series(data, "table2", frames.get("table2", _EMPTY))
    panels = [
        dots.Panel(rows, pairs, "Score out of distribution (%)", "figure4"),
        dots.Panel(
            _drop_rows(frames.get("table2", _EMPTY)), drops, "Drop under StressTest, PDR (%)", "table2", zero=True
        ),
    ]
    said = ["The paper prints no scores out of distribution, only gains: see figure4."] if data.published else []
    return dots.side_by_side(panels, said=[*_mixed(list(frames.values())), *said])


def figure4(data: Data) -> Figure:
    """Out-of-distribution scores of each method on each pair, without and with M3, and the gain."""
    frame = _frame(data, "figure4", "figure4")
    cells = [(pair, b, m) for pair, b in _cells(frame) for m in _methods(frame)]
    rows = [Row(f"{pair}/{b}/{m}", palette.name(m), f"{palette.name(pair)}: {palette.name(b)}") for pair, b, m in cells]
    scores = [
        Series(label, mark, {
            row.key: points.score(_rows(frame, pair, m, b, ratio, "none"))
            for row, (pair, b, m) in zip(rows, cells, strict=True)
        })
        for ratio, label, mark in (("plain", "without M3", palette.PLAIN), ("mixup", "with M3", palette.MIXED))
    ]  # fmt: skip
    gains = {
        row.key: points.gain(*(_rows(frame, pair, m, b, ratio, "none") for ratio in ("plain", "mixup")))
        for row, (pair, b, m) in zip(rows, cells, strict=True)
    }
    gained = [Series("gain", Mark(palette.BLUE, "s"), gains, _paper_ood(data))]
    return dots.side_by_side([
        dots.Panel(rows, scores, "Score out of distribution (%)", "figure4"),
        dots.Panel(rows, gained, "Gain by M3 (points)", "figure4", zero=True),
    ], said=_mixed([frame]))  # fmt: skip


def _paper_ood(data: Data) -> dict[str, float]:
    table = data.published.get("ood_gains")
    if table is None:
        return {}
    return {f"{row['models']}/{row['benchmark']}/{row['method']}": float(row["gain_points"])
            for _, row in table.iterrows() if _legible(row["gain_points"])}  # fmt: skip


def pdr(data: Data) -> Figure:
    """The performance drop rate of task arithmetic under the three attacks, without and with M3."""
    frames = {s: f for s in _ATTACKS if (f := data.frames.get(s)) is not None and bool(f["score"].notna().any())}
    if not frames:
        raise M3Error("figure pdr draws cells of sweeps=table2, table5, table6, and none has a score yet; run one")
    every = _together([data.frames[s] for s in _ATTACKS if s in data.frames])
    rows = _drop_rows(every)
    panels = [
        dots.Panel(
            rows, _drop_series(data, sweep, data.frames.get(sweep, every[:0])), palette.name(attack), sweep, True
        )
        for sweep, attack in _ATTACKS.items()
    ]
    return dots.side_by_side(
        panels, below="Performance drop rate (% of the accuracy without the attack)", said=_mixed(list(frames.values()))
    )


def _drop_rows(frame: pd.DataFrame) -> list[Row]:
    return _grouped([(pair, b) for pair, b in _cells(frame) if about(b).table == "attacks"])


def _drop_series(data: Data, sweep: str, frame: pd.DataFrame) -> list[Series]:
    at = _at_alpha(frame, data.alpha)
    return [
        Series(label, mark, {
            f"{pair}/{b}": points.drop(_rows(at, pair, "task_arithmetic", b, ratio, "none")) for pair, b in _cells(at)
        }, _paper_drops(data, _ATTACKS[sweep], ratio))
        for ratio, label, mark in (("plain", "without M3", palette.PLAIN), ("mixup", "with M3", palette.MIXED))
    ]  # fmt: skip


def _paper_drops(data: Data, attack: str, ratio: str) -> dict[str, float]:
    table = data.published.get("adversarial")
    if table is None:
        return {}
    rows = table[(table["attack"] == attack) & (table["mixup"].astype(int) == int(ratio == "mixup"))]
    return {f"{row['models']}/{row['dataset']}": float(row["pdr"]) for _, row in rows.iterrows()
            if _legible(row["pdr"])}  # fmt: skip


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
    named = {text.split(":")[0].split(" ")[-1] for text in lost}
    known = {r.benchmark for r in found} | named
    absent = sorted(set(frame.loc[_of(frame, found[0]), "benchmark"]) - known)
    notes = [*lost, *(f"{palette.name(b)}: no curve, not run" for b in absent)]
    return draw_response(advice.study(found, seed=data.seed), notes)


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
    "pdr": FigureSpec("performance drop under three attacks", tuple(_ATTACKS), pdr),
    "heatmap": FigureSpec("E[score | alpha] - plain, by alpha and benchmark", ("lambda_response", "alpha_grid"),
                          heatmap, either=True),
    "response": FigureSpec("score along lambda, and what each way of choosing gives", ("lambda_response",), response),
}  # fmt: skip
