"""Where a score's uncertainty comes from: items, draws of lambda, DARE masks and interpolation, each by itself.

    items     standard error of E[score | alpha] over items: more items make it smaller
    draws     sd of the population's score between draws of lambda ~ Beta(alpha, alpha): more items do not change it
    masks     sd of the population's E[score | alpha] between DARE masks: more items do not change it
    sampled   standard error from which lambdas were sampled beside the nodes: more of them make it smaller
    bend      without sampled lambdas: by how much the score is assumed to bend between two nodes, at most

A plain sd between draws or masks counts the items' own noise as well. Here it is left out, by products of different
items, which share a draw or mask but no noise. If the store has evaluated draws of lambda, their sd is shown too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Response
from m3_exp.reporting.data.dataframe import thinned
from m3_exp.reporting.table import Cell, Column, Figure, Table, named_columns, words
from m3_exp.stats import estimate
from m3_exp.stats.estimate import Array
from m3_exp.stats.expectation import draw_sd, unsure
from m3_exp.stats.paired import between

ALPHAS = (0.2, 0.5, 1.0, 5.0)
_PARTS = ("E", "items (se)", "draws (sd)", "real draws (sd)", "masks (sd)", "sampled (se)", "bend")
_COLUMNS = (*named_columns(["models", "method", "DARE", "benchmark", "alpha"]), *map(Column, _PARTS))


@dataclass(frozen=True)
class Components:
    """The parts of one expectation's uncertainty, in percent points, over `n` items.

    `masks` and `drawn` (from evaluated draws of this alpha) are None with fewer than two. `sampled` is None without
    sampled lambdas, `bend` with them.
    """

    expected: float
    low: float
    high: float
    n: int
    items: float
    draws: float
    masks: float | None
    n_masks: int
    drawn: float | None
    n_drawn: int
    sampled: float | None
    bend: float | None


def components(response: Response, alpha: float) -> Components:
    """Split the uncertainty of one curve's expectation at `alpha` by its sources."""
    expectation = expectations.expected(response, alpha)
    items = estimate.influences(response.curve.expected(alpha), response.curve.shape)
    masks = np.column_stack([mask.expected(alpha) for mask in response.masks])
    drawn = _drawn(response, alpha)
    rest = unsure(response.curve, {alpha: 1.0})
    return Components(
        expected=100 * expectation.value,
        low=100 * expectation.low,
        high=100 * expectation.high,
        n=expectation.n,
        items=100 * float(np.sqrt(items @ items)) if expectation.n > 1 else float("nan"),
        draws=100 * draw_sd(response.curve, alpha),
        masks=_between(masks),
        n_masks=masks.shape[1],
        drawn=_between(drawn),
        n_drawn=drawn.shape[1],
        sampled=100 * float(np.sqrt(rest.sources[0].variance)) if rest.sources else None,
        bend=None if rest.sources else 100 * rest.bend,
    )


def _between(values: Array) -> float | None:
    """Return the sd in points between columns of the population's mean, without the items' noise; None of one item."""
    sd = between(values) if len(values) > 1 else None
    return None if sd is None else 100 * sd


def _drawn(response: Response, alpha: float) -> Array:
    """Return the item values of the evaluated draws of an alpha, shape (items that all have, draws)."""
    by_draw = [draw.values for draw in response.draws if draw.alpha == alpha]
    ids = sorted(set.intersection(*map(set, by_draw))) if by_draw else []
    return np.array([[values[i] for values in by_draw] for i in ids], dtype=float).reshape(len(ids), len(by_draw))


def build(responses: Sequence[Response], alphas: Sequence[float] = ALPHAS, name: str = "variance") -> Table:
    """Return the components: a row for each pair, method, benchmark and alpha."""
    parts = [(response, alpha, components(response, alpha)) for response in responses for alpha in alphas]
    return Table(name, _COLUMNS, tuple(_row(*one) for one in parts), _NOTES, _BRIEFLY)


def _row(response: Response, alpha: float, parts: Components) -> tuple[Cell, ...]:
    names = {key: getattr(response, key) for key in ("family", "pair", "method", "params", "sparsify", "benchmark")}
    record = {**names, "alpha": alpha, "lambda": [], **vars(parts)}
    return (
        words(response.pair), words(response.method, response.params), words(thinned(response.sparsify)),
        words(f"{response.benchmark}, n={parts.n}"),
        words(f"{alpha:g}"), Cell((), Figure(parts.expected, parts.low, parts.high), record=record),
        words(f"{parts.items:.1f}"), words(f"{parts.draws:.1f}"), _counted(parts.drawn, parts.n_drawn),
        _counted(parts.masks, parts.n_masks), _counted(parts.sampled), _counted(parts.bend),
    )  # fmt: skip


def _counted(value: float | None, count: int | None = None) -> Cell:
    return words("" if value is None else f"{value:.1f}" + ("" if count is None else f" of {count}"))


_BRIEFLY = (
    "Points. items, sampled: standard errors, from the items and from the mixtures that were sampled.",
    "draws, masks: standard deviations of the score itself. bend: how much it may bend between two nodes.",
)
_NOTES = (
    "Points. items: standard error over items. draws, masks: standard deviation of the score itself, without the"
    " items' noise (0.0 where it cannot be told from none); one draw or mask is off by so much, however many the"
    " items. sampled: standard error from which mixtures were sampled. bend: without sampled mixtures, by how much"
    " the score is taken to bend between two nodes at most. Each sd is an estimate from few draws or masks: three"
    " give it to a factor of 0.5 to 6 (95 %).",
)
