"""The picture of `m3 response`: every benchmark of a pair and method along lambda, and what each way of choosing gives.

Curves are the piecewise-linear ones that every number is computed from, not smoothed. With two benchmarks or more all
are relative to their better parent (100 %), with their mean and minimum; one alone is in percent of its items.
Bands are the 95 % intervals of single models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from m3_exp.reporting.choices.protocols import model
from m3_exp.reporting.choices.ways import Study
from m3_exp.reporting.choices.winning import triangles
from m3_exp.reporting.curves.evaluated import Response
from m3_exp.reporting.figures import choosing, palette, ternary
from m3_exp.reporting.figures.palette import Mark
from m3_exp.stats.estimate import Array, weighted_mean
from m3_exp.stats.expectation import ALPHAS
from m3_exp.stats.lambdas import density
from m3_exp.stats.objective import Objective
from m3_exp.types import M3Error

_TOP = 3.0  # of the density axis: those below alpha = 1 have no maximum
_MAIN = 2.9  # inches of the large panel
_FEW = 4  # benchmarks: up to so many have a band each
_SMALL, _ACROSS = 1.7, 4  # inches of a small triangle's height, and how many stand in a row
_CHOSEN = "Best of 7: chosen on one half of the items, scored on the other; hollow: claimed on the choosing items."
_SPARSE = 10  # draws of lambda: more of them get smaller points


@dataclass(frozen=True)
class Line:
    """One curve to draw, in percent: nodes or finer, with its band."""

    label: str
    mark: Mark
    lams: Array
    middle: Array
    low: Array
    high: Array
    nodes: Array  # the lambdas that were evaluated
    draws: tuple[tuple[float, float], ...] = ()  # (lambda, value) of the draws that were evaluated


# --------------------------------------------------------------------------------------------------------- numbers


def lines(study: Study) -> list[Line]:
    """Return a line for each benchmark. If several have a parent: each relative to it, and their mean and minimum."""
    joint = study.relative
    if not joint.objectives:
        return [_line(response, None) for response in study.responses]
    fine = np.linspace(0, 1, 129)
    return [
        *(_line(response, parent) for response, parent in zip(joint.responses, joint.parents, strict=True)),
        *(
            _drawn(one.name, palette.objective(one.name), joint.responses, one, np.union1d(fine, one.points))
            for one in joint.objectives
        ),
    ]


def _line(response: Response, parent: Array | None) -> Line:
    objective = Objective(response.benchmark, (response.curve,), () if parent is None else (parent,))
    name, mark = palette.name(response.benchmark), palette.benchmark(response.benchmark)
    return _drawn(name, mark, [response], objective, objective.points, tuple(_draws(response, parent)))


def _drawn(
    label: str,
    mark: Mark,
    responses: Sequence[Response],
    objective: Objective,
    lams: Array,
    draws: tuple[tuple[float, float], ...] = (),
) -> Line:
    along = [model(responses, objective, float(lam)) for lam in lams]
    middle, low, high = (np.array([100 * getattr(one, end) for one in along]) for end in ("value", "low", "high"))
    return Line(label, mark, lams, middle, low, high, objective.points, draws)


def _draws(response: Response, parent: Array | None) -> list[tuple[float, float]]:
    """Return each evaluated draw's lambda and score in the line's unit, over the items it shares with the curve."""
    ids = response.curve.ids
    unit = np.ones(len(ids)) if parent is None else parent
    points = []
    for draw in response.draws:
        shared = np.array([i for i, key in enumerate(ids) if key in draw.values], dtype=int)
        shape = response.curve.shape if len(shared) == len(ids) else response.curve.shape.of(shared)
        below = float(weighted_mean(unit[shared], shape)) if len(shared) else 0.0
        if below > 0:
            own = np.array([draw.values[ids[i]] for i in shared])
            points.append((draw.lam, 100 * float(weighted_mean(own, shape)) / below))
    return points


# --------------------------------------------------------------------------------------------------------- drawing


def draw_response(study: Study, notes: Sequence[str] = ()) -> Figure:
    """Draw a study: curves over densities on the left, ways of choosing on the right; of three experts, triangles.

    Raises:
        M3Error: it is of four experts or more, whose mixtures have no picture.
    """
    experts = len(study.responses[0].experts)
    if experts > 3:
        raise M3Error(f"--out draws the mixtures of two or three experts, and these are {experts}: leave --out out")
    if experts == 3:
        return _triangular(study, notes)
    relative, curves = bool(study.relative.objectives), lines(study)
    rows, series = choosing.choices(study)
    lines_below = [*_explained(study, relative), *study.notes, *notes]
    tall = _MAIN + 1.35 + palette.SPACING * len(palette.lines_of(lines_below, palette.DOUBLE))
    with palette.style():
        figure = palette.blank(palette.DOUBLE, tall)
        grid = figure.add_gridspec(2, 2, height_ratios=[_MAIN, 0.8], width_ratios=[1.75, 1])
        main = figure.add_subplot(grid[0, 0])
        below = figure.add_subplot(grid[1, 0], sharex=main)
        _draw_curves(main, curves, study, relative)
        draw_densities(below, label=False)
        below.set_xlabel("λ, the share of " + _first_expert(study.responses[0]))
        choosing.draw(figure.add_subplot(grid[:, 1]), rows, series, relative=relative)
        palette.annotate(figure, lines_below)
    return figure


def _triangular(study: Study, notes: Sequence[str]) -> Figure:
    """Draw the triangle of the mean with the ways of choosing, over small ones of the benchmarks."""
    first, *others = drawn = triangles(study)
    relative = bool(study.relative.objectives)
    rows, series = choosing.choices(study)
    bars = f"Bars: 95 % over items{_besides(study)}. {_CHOSEN}"
    lines_below = [*ternary.explained(drawn), bars, *study.notes, *notes]
    below = math.ceil(len(others) / _ACROSS)
    tall = _MAIN + 1 + _SMALL * below + palette.SPACING * len(palette.lines_of(lines_below, palette.DOUBLE))
    with palette.style():
        figure = palette.blank(palette.DOUBLE, tall)
        top, *small = figure.subfigures(
            1 + bool(below), 1, height_ratios=[_MAIN + 1, *([_SMALL * below] * bool(below))], squeeze=False
        )[:, 0]
        main, panel = top.subplots(1, 2, width_ratios=[1.75, 1])
        unit = "% of the better parent" if relative else "score (%)"
        title = f"{_title(study.responses[0])}\n{palette.name(first.objective)}, {unit}"
        ternary.draw(main, first, title, 0.58 * palette.DOUBLE)
        choosing.draw(panel, rows, series, relative=relative)
        if small:
            axes = small[0].subplots(below, _ACROSS, squeeze=False).ravel()
            for ax in axes[len(others) :]:
                ax.set_axis_off()
            for ax, one in zip(axes, others, strict=False):
                ternary.draw(ax, one, palette.name(one.objective), palette.DOUBLE / _ACROSS)
        palette.annotate(figure, lines_below)
    return figure


def _first_expert(response: Response) -> str:
    return palette.name(response.pair).split(" & ")[0] if "&" in palette.name(response.pair) else "the first expert"


def _explained(study: Study, relative: bool) -> list[str]:
    drawn = any(response.draws for response in study.responses)
    many = relative and len(study.relative.responses) > _FEW
    parts = [
        f"Bands{' (of mean and minimum)' if many else ''} and bars: 95 % over items{_besides(study)}.",
        *(["Open points: real draws of λ."] if drawn else []),
        *(["Dashed levels: plain."] if any(c.plain for c in choosing.shown(study)) else []),
        _CHOSEN,
        *(["Best node: chosen on development items."] if any(c.developed for c in choosing.shown(study)) else []),
    ]
    return [" ".join(parts)]


def _besides(study: Study) -> str:
    """Say which sources of chance the intervals of E hold besides items."""
    sampled = [response.curve.sampled is not None for response in study.responses]
    what, line = ("λ", "curve") if study.points == "lambdas" else ("mixtures", "surface")
    held = [f"which {what} were sampled"] if any(sampled) else []
    held += [] if all(sampled) else [f"how far a {line} without sampled {what} may bend between its nodes (no claim)"]
    held += ["DARE masks"] if any(len(response.masks) > 1 for response in study.responses) else []
    return f"; those of E also hold {' and '.join(held)}"


def _title(response: Response) -> str:
    dare = "" if response.sparsify == "none" else f" + {response.sparsify.replace('dare', 'DARE')}"
    return f"{palette.name(response.pair)}, {palette.name(response.method)}{dare} ({palette.name(response.family)})"


def _draw_curves(ax: Axes, curves: Sequence[Line], study: Study, relative: bool) -> None:
    singles = [line for line in curves if line.mark not in (palette.MEAN, palette.MINIMUM)]
    for line in curves:
        heavy = line not in singles
        if heavy or len(singles) <= _FEW:
            ax.fill_between(line.lams, line.low, line.high, color=line.mark.colour, alpha=0.13, lw=0, zorder=1)
        ax.plot(line.lams, line.middle, color=line.mark.colour, ls=line.mark.line, lw=1.9 if heavy else 0.9,
                label=line.label, zorder=4 if heavy else 3)  # fmt: skip
        at = np.interp(line.nodes, line.lams, line.middle)
        ax.plot(line.nodes, at, line.mark.marker, color=line.mark.colour, ms=3.4 if heavy else 3, mew=0.4, ls="none",
                zorder=5 if heavy else 3)  # fmt: skip
        if line.draws:
            size = 3.6 if len(line.draws) <= _SPARSE else 2.4
            ax.plot(*zip(*line.draws, strict=True), "o", mfc="white", mec=line.mark.colour, ms=size, mew=size / 4.5,
                    ls="none", zorder=6)  # fmt: skip
    _reference(ax, study, curves, relative)
    ax.set_title(_title(study.responses[0]), pad=13)  # above the name of lambda = 1/2
    ax.set_ylabel("% of the better parent" if relative else "score (%)")
    ax.tick_params(labelbottom=False)
    ax.grid(axis="y", color=palette.FAINT, lw=0.5)


def _reference(ax: Axes, study: Study, curves: Sequence[Line], relative: bool) -> None:
    """Draw the better parent, lambda = 1/2 and plain, and name every line at the right."""
    ax.axvline(0.5, color=palette.GREY, lw=0.8, ls=(0, (1, 2)), zorder=1)
    ax.text(0.5, 1.01, "λ = 1/2", ha="center", va="bottom", fontsize=palette.SMALL, color=palette.GREY,
            transform=ax.get_xaxis_transform())  # fmt: skip
    ends = [(float(line.middle[-1]), line.label, line.mark) for line in curves]
    plain = [(100 * c.plain.value, c.objective) for c in choosing.shown(study) if c.plain is not None]
    for level, objective in plain:
        mark = Mark(palette.objective(objective).colour, "", (0, (2, 1.5)))
        ax.axhline(level, color=mark.colour, lw=0.8, ls=mark.line, zorder=2)
        ends.append((level, "plain" if len(plain) == 1 else f"plain, {palette.name(objective)}", mark))
    if relative:
        ax.axhline(100, color=palette.GREY, lw=0.8, zorder=2)
        ends.append((100.0, "better parent", Mark(palette.GREY, "")))
    else:
        ends += _parent_levels(ax, study)
    seen = max([level for level, _, _ in ends] + [float(line.middle.max()) for line in curves])
    seen = max([seen, 1.0] + [y for line in curves for _, y in line.draws])
    top = min(1.3 * seen, max([seen] + [float(line.high.max()) for line in curves]))  # a band may leave the axis
    ax.set(xlim=(-0.015, 1.015), ylim=(-0.03 * top, 1.04 * top))
    _name_ends(ax, ends, 1.07 * top / (_MAIN - 0.1))


def _parent_levels(ax: Axes, study: Study) -> list[tuple[float, str, Mark]]:
    levels = []
    for response in study.responses:
        better = response.better_parent()
        if better is not None:
            level, mark = 100 * float(weighted_mean(better[1], response.curve.shape)), Mark(palette.GREY, "")
            ax.axhline(level, color=palette.GREY, lw=0.8, zorder=2)
            levels.append((level, f"better parent ({better[0]})", mark))
    return levels


def _name_ends(ax: Axes, ends: Sequence[tuple[float, str, Mark]], inch: float) -> None:
    """Write each line's name beside its right end, moved apart where they would touch; `inch`: in the axis' unit."""
    low, high = ax.get_ylim()
    places = apart([y for y, _, _ in ends], 0.122 * inch, (low, high))
    transform = ax.get_yaxis_transform()
    for (y, label, mark), place in zip(ends, places, strict=True):
        ax.plot([1.0, 1.035], [y, place], color=mark.colour, lw=0.6, transform=transform, clip_on=False)
        ax.plot([1.035, 1.085], [place, place], color=mark.colour, lw=1.0, ls=mark.line, transform=transform,
                clip_on=False)  # fmt: skip
        ax.plot([1.06], [place], mark.marker or "None", color=mark.colour, ms=3, transform=transform, clip_on=False)
        ax.text(1.1, place, label, va="center", fontsize=palette.SMALL, transform=transform,
                fontweight="bold" if label in ("mean", "minimum") else "normal")  # fmt: skip


def apart(wanted: Sequence[float], gap: float, bounds: tuple[float, float]) -> list[float]:
    """Move places as little as needed for `gap` between neighbours within bounds, in the order they were given.

    The closest places in least squares: pool neighbours that collide and centre each pool.
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    pools: list[list[int]] = []
    starts: list[float] = []
    for index in order:
        pools.append([index])
        starts.append(wanted[index])
        while len(pools) > 1 and starts[-2] + gap * len(pools[-2]) > starts[-1]:
            last = pools.pop()
            starts.pop()
            pools[-1] += last
            middle = sum(wanted[i] - gap * rank for rank, i in enumerate(pools[-1])) / len(pools[-1])
            starts[-1] = middle
    moved = dict.fromkeys(range(len(wanted)), 0.0)
    for pool, start in zip(pools, starts, strict=True):
        moved |= {index: start + gap * rank for rank, index in enumerate(pool)}
    return _within([moved[i] for i in range(len(wanted))], order, gap, bounds)


def _within(places: list[float], order: Sequence[int], gap: float, bounds: tuple[float, float]) -> list[float]:
    """Push places inside their bounds from both ends, keeping the gaps."""
    low, high = bounds
    for rank, index in enumerate(order):
        places[index] = max(places[index], low + gap * rank)
    for rank, index in enumerate(reversed(order)):
        places[index] = min(places[index], high - gap * rank)
    return places


def draw_densities(ax: Axes, *, label: bool = True) -> None:
    """Draw the seven Beta(alpha, alpha) densities of lambda, those below 1 cut where they leave the axis."""
    at = np.linspace(0.0005, 0.9995, 1000)
    for alpha in ALPHAS:
        mark = palette.ALPHAS[alpha]
        height = density(at, alpha)
        ax.plot(at, np.where(height > 1.2 * _TOP, np.nan, height), color=mark.colour, ls=mark.line, lw=1.1,
                label=f"{alpha:g}")  # fmt: skip
    ax.set(xlim=(-0.015, 1.015), ylim=(0, _TOP), ylabel="density", xticks=[0, 0.25, 0.5, 0.75, 1])
    ax.set_yticks([0, 1, 2, 3] if label else [0, 3])
    if label:
        ax.set_xlabel("λ ~ Beta(α, α)")
        _name_densities(ax)


def _name_densities(ax: Axes) -> None:
    heights = [float(density(np.array(0.5), alpha)) for alpha in ALPHAS]
    for alpha, place in zip(ALPHAS, apart(heights, 0.2, (0.0, _TOP)), strict=True):
        ax.text(0.5, place, f"α = {alpha:g}" if alpha == ALPHAS[-1] else f"{alpha:g}", ha="center", va="center",
                fontsize=palette.SMALL, bbox={"fc": "white", "ec": "none", "pad": 0.6})  # fmt: skip
