"""The picture of `m3 response` for three experts: the score over the triangle of their shares, and where it wins.

A corner is one expert alone; the share of an expert falls evenly from its corner to the opposite edge. A large triangle
shows the mean, a small one each benchmark; beside them is what each way of choosing gives. Surfaces go through all
evaluated mixtures and are not smoothed.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator
from matplotlib.tri import Triangulation

from m3_exp.reporting.choices.winning import FINE, Triangle
from m3_exp.reporting.figures import palette
from m3_exp.stats.estimate import Array
from m3_exp.stats.simplex import lattice

HEIGHT = float(np.sqrt(0.75))  # of a triangle with sides of 1
_COLOURS = LinearSegmentedColormap.from_list("scores", ["#FFFFFF", "#C4DFF0", palette.SKY, palette.BLUE])
_LEVELS = 9  # steps of colour, at most
_SMALL = 2.2  # inches: narrower triangles get finer marks and shorter lines of text


def flat(shares: Array) -> Array:
    """Return shares (K, 3) as places (K, 2): the first expert at the top, the second at the left, the third right."""
    return np.column_stack([shares[:, 2] + shares[:, 0] / 2, shares[:, 0] * HEIGHT])


def draw(ax: Axes, triangle: Triangle, title: str, width: float) -> None:
    """Draw one triangle on axes that are `width` inches wide: surface, winning region, marks, corners and a scale."""
    small = width < _SMALL
    x, y = flat(triangle.points).T
    over = Triangulation(x, y, lattice(FINE).corners)
    levels = MaxNLocator(_LEVELS, steps=[1, 2, 2.5, 5, 10]).tick_values(*_range(triangle))
    surface = ax.tricontourf(over, triangle.score, levels, cmap=_COLOURS)
    surface.set_edgecolor("face")  # no gaps between the steps in PDF
    _draw_region(ax, over, triangle)
    ax.plot([0, 1, 0.5, 0], [0, 0, HEIGHT, 0], color=palette.INK, lw=0.8, zorder=3)
    size = 1.6 if small else 2.6
    ax.plot(*flat(triangle.nodes).T, "o", color=palette.INK, ms=size, mew=0, zorder=4, clip_on=False, label="nodes")
    ax.plot(*flat(triangle.sampled).T, "o", mfc="white", mec=palette.INK, ms=size, mew=0.5, zorder=4, label="sampled")
    _name_corners(ax, triangle, width)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, HEIGHT + 0.14 / width), aspect="equal")
    ax.set_axis_off()
    ax.set_title(title, pad=4)
    bar = ax.figure.colorbar(surface, ax=ax, orientation="horizontal", shrink=0.8, aspect=30 if not small else 20,
                             pad=0.02)  # fmt: skip
    bar.ax.xaxis.set_major_locator(MaxNLocator(3 if small else 6))
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _range(triangle: Triangle) -> tuple[float, float]:
    low, high = float(triangle.score.min()), float(triangle.score.max())
    return (low, high) if high > low else (low - 1, high + 1)


def _draw_region(ax: Axes, over: Triangulation, triangle: Triangle) -> None:
    """Hatch where a mixture is better than each expert; outline where it is estimated to be, and where it may be."""
    if triangle.low.max() > 0:
        hatched = ax.tricontourf(over, triangle.low, [0, triangle.low.max() + 1], colors="none", hatches=["////"])
        hatched.set_edgecolor(palette.INK)
        hatched.set_linewidth(0)
    for heights, line, width in ((triangle.low, "-", 1.4), (triangle.gain, "--", 0.9), (triangle.high, ":", 0.9)):
        if heights.min() < 0 < heights.max():
            ax.tricontour(over, heights, [0.0], colors=palette.VERMILLION, linestyles=line, linewidths=width)


def _name_corners(ax: Axes, triangle: Triangle, width: float) -> None:
    """Write each expert's name and own score at its corner: the first one's beside it, as the title stands above."""
    beside = 0.5 + 0.1 / width
    places = ((beside, HEIGHT, "left", "center"), (-0.02, -0.03, "left", "top"), (1.02, -0.03, "right", "top"))
    for name, score, (x, y, side, end) in zip(triangle.experts, triangle.corners, places, strict=True):
        text = "\n".join([*_lines(name, int(7.3 * width)), f"{score:.1f}"])
        ax.text(x, y, text, ha=side, va=end, fontsize=palette.SMALL, linespacing=1.1)


def _lines(name: str, characters: int) -> list[str]:
    """Break a name into lines after -, _ or /, or anywhere where one part is too long; nothing of it is lost."""
    parts = name.replace("-", "-\0").replace("_", "_\0").replace("/", "/\0").split("\0")
    lines = [""]
    for part in (piece for long in parts for piece in textwrap.wrap(long, characters)):
        if len(lines[-1]) + len(part) > characters:
            lines.append("")
        lines[-1] += part
    return lines


def explained(triangles: Sequence[Triangle]) -> list[str]:
    """Return what the marks and lines of these triangles mean, and where nothing is won."""
    drawn = any(len(one.sampled) for one in triangles)
    won = [palette.name(one.objective) for one in triangles if one.low.max() > 0]
    return [
        f"Triangles: the score of each mixture; points: evaluated nodes{', open: sampled mixtures' if drawn else ''}."
        " Numbers at the corners: each expert alone.",
        "Hatched: better than each expert alone with 95 % (over items, one mixture at a time); "
        + (f"on {', '.join(won)}." if won else "there is no such mixture."),
        "Dashed: estimated to be better. Dotted: outside it, some expert is better with 95 %.",
    ]
