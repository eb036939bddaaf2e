"""The right panel of `m3 response`'s picture, the ways of choosing: plain, one draw of each alpha, best of seven."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from m3_exp.reporting.choices.protocols import Comparison
from m3_exp.reporting.choices.ways import Study
from m3_exp.reporting.comparisons.points import Point
from m3_exp.reporting.figures import dots, palette
from m3_exp.reporting.figures.dots import Row, Series
from m3_exp.stats.estimate import Estimate
from m3_exp.stats.expectation import ALPHAS


def shown(study: Study) -> list[Comparison]:
    """Return the comparisons of the panel: mean and minimum, or each benchmark where there are none."""
    joint = [c for c in study.comparisons if c.objective in ("mean", "minimum")]
    return joint or list(study.comparisons)


def choices(study: Study) -> tuple[list[Row], list[Series]]:
    """Return the panel as a dot chart, in percent."""
    alphas = [Row(f"alpha {a:g}", f"α = {a:g}", "E[score | α]") for a in ALPHAS]
    tuned = "fixed λ" if study.points == "lambdas" else "fixed shares"
    rows = [
        Row("plain", "plain"), *alphas, Row("replay", "draws", "Best of 7"), Row("tuned", tuned, "Best of 7"),
        Row("developed", "on dev items", "Best node"),
    ]  # fmt: skip
    series = [_series(compared) for compared in shown(study)]
    return [row for row in rows if row.key != "developed" or any(row.key in s.points for s in series)], series


def _series(compared: Comparison) -> Series:
    points = {f"alpha {alpha:g}": _point(number) for alpha, number in compared.expected.items()}
    points |= {"replay": _point(compared.replay.honest), "tuned": _point(compared.tuned.honest)}
    points["plain"] = Point(None, note="not run") if compared.plain is None else _point(compared.plain)
    if compared.developed is not None:
        points["developed"] = _point(compared.developed.score)
    claimed = {"replay": 100 * compared.replay.claimed.value, "tuned": 100 * compared.tuned.claimed.value}
    return Series(palette.name(compared.objective), palette.objective(compared.objective), points, claimed)


def _point(number: Estimate) -> Point:
    return Point(100 * number.value, 100 * number.low, 100 * number.high)


def draw(ax: Axes, rows: Sequence[Row], series: Sequence[Series], *, relative: bool) -> None:
    """Draw the panel; `relative`: in percent of the better parent."""
    places = dots.draw(ax, rows, series)
    ax.set_xlabel("% of the better parent" if relative else "score (%)")
    ax.grid(axis="x", color=palette.FAINT, lw=0.4)
    ax.tick_params(axis="y", pad=17)
    if ax.get_xlim()[1] > (end := _furthest(series)):
        ax.set_xlim(-0.03 * end, end)
    if relative:
        ax.axvline(100, color=palette.GREY, lw=0.8, zorder=1)
    for alpha in ALPHAS:
        mark, y = palette.ALPHAS[alpha], places[f"alpha {alpha:g}"]
        ax.plot([-0.1, -0.02], [y, y], color=mark.colour, ls=mark.line, lw=1.1, transform=ax.get_yaxis_transform(),
                clip_on=False)  # fmt: skip


def _furthest(series: Sequence[Series]) -> float:
    """Return where the axis ends at the latest: the interval of a share of a small parent's score may have no end."""
    values = [x for one in series for x in (*(p.value for p in one.points.values()), *one.paper.values())]
    return 1.5 * max(100.0, *(x for x in values if x is not None))
