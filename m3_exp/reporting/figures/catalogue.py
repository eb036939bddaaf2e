"""The paper's figures and ours from the store: what each is named, which sweeps' cells it draws, and how.

`FIGURES[name].draw(data)` returns a matplotlib figure; `palette.save` writes it. Nothing is ever drawn for a cell
without a value: its place stays empty and a note says why. What each figure shows of the paper: docs/figures.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from m3_exp.reporting.choices import ways
from m3_exp.reporting.curves.evaluated import refused, responses
from m3_exp.reporting.data import published
from m3_exp.reporting.data.dataframe import where
from m3_exp.reporting.figures import ablation, palette, paper
from m3_exp.reporting.figures.frames import EMPTY, Data, together
from m3_exp.reporting.figures.heatmap import draw_heatmap
from m3_exp.reporting.figures.responses import draw_densities, draw_response
from m3_exp.types import M3Error


@dataclass(frozen=True)
class FigureSpec:
    """A figure by name: what it shows, the sweeps whose cells it draws (as far as they were run), and what draws it."""

    title: str
    sweeps: tuple[str, ...]
    draw: Callable[[Data], Figure]


def figure3(_: Data) -> Figure:
    """The densities of lambda for the paper's seven alphas."""
    with palette.style():
        figure = palette.blank(palette.COLUMN, 2.3)
        draw_densities(figure.subplots())
    return figure


def heatmap(data: Data) -> Figure:
    """E[score | alpha] relative to plain: alpha across, benchmarks down, a panel a pair and method."""
    curves, draws = (data.frames.get(sweep, EMPTY) for sweep in ("lambda_response", "alpha_grid"))
    if responses(curves, data.parents):
        return draw_heatmap(curves, data.parents)
    if not bool(draws.loc[draws["ratio"] == "mixup", "score"].notna().any()):
        lines = " or ".join(map(data.line, ("lambda_response", "alpha_grid")))
        raise M3Error(f"figure heatmap needs the curves of lambda_response or the draws of alpha_grid; {lines}")
    return draw_heatmap(together([draws, curves[curves["ratio"] == "plain"]]), data.parents)


def response(data: Data) -> Figure:
    """All benchmarks of a pair and method over their mixtures, and what each way of choosing one gives."""
    frame = data.frames.get("lambda_response", EMPTY)
    if not responses(frame, data.parents):
        frame = data.frames.get("mixture_response", frame)
    lines, lost = responses(frame, data.parents), refused(frame)
    names = sorted({" ".join(part for part in (r.name, r.params) if part) for r in lines})
    if not lines:
        why = "".join(f"; {text}" for text in lost)
        line = data.line("lambda_response")
        raise M3Error(f"no benchmark has a curve: all planned nodes must be evaluated{why}; {line}")
    if len(names) > 1:
        raise M3Error(f"response shows one pair and method; choose with pair=, method=, sparsify= among {names}")
    known = {one.benchmark for one in lines} | {one.benchmark for one in lost}
    own = where(frame, pair=lines[0].pair, method=lines[0].method, sparsify=lines[0].sparsify)
    absent = sorted(set(own["benchmark"]) - known)
    notes = [*map(str, lost), *(f"{palette.name(b)}: no curve, not run" for b in absent)]
    return draw_response(ways.study(lines, seed=data.seed), notes)


FIGURES: Mapping[str, FigureSpec] = {
    "figure1a": FigureSpec("gains of task arithmetic and TIES with M3 (Table 1)", ("table1",), paper.figure1a),
    "figure1b": FigureSpec("out of distribution, and drop under StressTest", ("figure4", "table2"), paper.figure1b),
    "figure1c": FigureSpec("TIES with DARE, M3 and both (Table 1)", ("table1",), paper.figure1c),
    "figure3": FigureSpec("Beta densities of the seven alphas", (), figure3),
    "figure4": FigureSpec("out-of-distribution scores with and without M3", ("figure4",), paper.figure4),
    "pdr": FigureSpec("performance drop under three attacks", tuple(published.ATTACKS), paper.pdr),
    "heatmap": FigureSpec("E[score | alpha] - plain, by alpha and benchmark", ("lambda_response", "alpha_grid"),
                          heatmap),
    "layer_ablation": FigureSpec("gain over plain, one range of layers at a time", ("layer_ablation",),
                                 ablation.draw),
    "response": FigureSpec("score along lambda, and what each way of choosing gives",
                           ("lambda_response", "mixture_response"), response),
}  # fmt: skip
