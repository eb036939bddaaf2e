"""Where a score's uncertainty comes from: items, draws of lambda, DARE masks and interpolation, each by itself.

items          standard error of E[score | alpha] over items: more items make it smaller
draws          sd of the population's score between draws of lambda ~ Beta(alpha, alpha): more items do not
masks          sd of the population's E[score | alpha] between DARE masks: more items do not
interpolation  how far the curve moves without every other node, beyond its standard error, added without signs
               (`response.interpolation_error`)

A plain sd between draws or masks counts the items' own noise as well. Here it is left out by products of different
items, which share a draw or mask but no noise; the same for real draws of lambda, where the store has some.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m3_exp.reporting.curves import Response
from m3_exp.reporting.response import Array, draw_sd, interpolation_error
from m3_exp.reporting.tables import Table

ALPHAS = (0.2, 0.5, 1.0, 5.0)
_HEADER = (
    "models", "method", "DARE", "benchmark", "alpha", "E", "items (se)", "draws (sd)", "real draws (sd)", "masks (sd)",
    "interpolation",
)  # fmt: skip


@dataclass(frozen=True)
class Components:
    """What one expectation is unsure of, in percent points, over `n` items.

    `masks` and `drawn` (real draws of this alpha) are None below two of them; `interpolation` with too few nodes.
    """

    expected: float
    n: int
    items: float
    draws: float
    masks: float | None
    n_masks: int
    drawn: float | None
    n_drawn: int
    interpolation: float | None


def between(values: Array) -> float | None:
    """Return the sd between columns of the population's mean, without the noise of the rows that were sampled.

    `values` (n, columns): an item's score under each mask or draw. With d_ij the deviation of an item from its mean
    over columns, sum_j sum_{i != k} d_ij d_kj / (n (n - 1) (columns - 1)) is unbiased for the variance between columns.
    0 where it comes out negative; None with fewer than two items or columns.
    """
    n, columns = values.shape
    if n < 2 or columns < 2:
        return None
    d = values - values.mean(axis=1, keepdims=True)
    products = float((d.sum(axis=0) ** 2).sum() - (d**2).sum())
    return float(np.sqrt(max(0.0, products / (n * (n - 1) * (columns - 1)))))


def components(response: Response, alpha: float) -> Components:
    """Part the uncertainty of one curve's expectation at `alpha`."""
    expected = response.curve.expected(alpha)
    n = len(expected)
    masks = np.column_stack([mask.expected(alpha) for mask in response.masks])
    drawn = _drawn(response, alpha)
    return Components(
        expected=100 * float(expected.mean()),
        n=n,
        items=100 * float(expected.std(ddof=1)) / n**0.5 if n > 1 else float("nan"),
        draws=100 * draw_sd(response.curve, alpha),
        masks=_percent(between(masks)),
        n_masks=masks.shape[1],
        drawn=_percent(between(drawn)),
        n_drawn=drawn.shape[1],
        interpolation=_percent(interpolation_error(response.curve, alpha)),
    )


def _drawn(response: Response, alpha: float) -> Array:
    """Return the item values of the real draws of an alpha, shape (items that all have, draws)."""
    found = [draw.values for draw in response.draws if draw.alpha == alpha]
    ids = sorted(set.intersection(*map(set, found))) if found else []
    return np.array([[values[i] for values in found] for i in ids], dtype=float).reshape(len(ids), len(found))


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def build(responses: Sequence[Response], alphas: Sequence[float] = ALPHAS, name: str = "variance") -> Table:
    """Lay the components out: a row for each pair, method, benchmark and alpha."""
    found = [(response, alpha, components(response, alpha)) for response in responses for alpha in alphas]
    rows = tuple(_row(*one) for one in found)
    return Table(name, _HEADER, rows, _footer(), tuple(_record(*one) for one in found))


def _row(response: Response, alpha: float, found: Components) -> tuple[str, ...]:
    method = f"{response.method} ({response.params})" if response.params else response.method
    return (
        response.pair, method, "yes" if response.sparsify == "dare" else "no", f"{response.benchmark}, n={found.n}",
        f"{alpha:g}", f"{found.expected:.1f}", f"{found.items:.1f}", f"{found.draws:.1f}",
        _counted(found.drawn, found.n_drawn), _counted(found.masks, found.n_masks),
        "" if found.interpolation is None else f"{found.interpolation:.1f}",
    )  # fmt: skip


def _counted(value: float | None, count: int) -> str:
    return "" if value is None else f"{value:.1f} of {count}"


def _record(response: Response, alpha: float, found: Components) -> dict[str, Any]:
    names = {key: getattr(response, key) for key in ("family", "pair", "method", "params", "sparsify", "benchmark")}
    return {**names, "alpha": alpha, "lambda": [], **vars(found)}


def _footer() -> tuple[str, ...]:
    return (
        "Points. items: standard error over items. draws, masks: standard deviation of the score itself, without the"
        " items' noise (0.0 where it cannot be told from none); one draw or mask is off by so much, however many the"
        " items. interpolation: how far the curve moves without every other node, beyond its standard error, added"
        " without signs.",
    )
