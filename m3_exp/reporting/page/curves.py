"""Response curves for the page: what it draws, and every alpha's expectation on a fine grid, computed here.

The page only looks up: expectations, intervals and the node weights w_k(alpha) are given at ALPHAS, so no statistics
are written twice. All values are in percent (of the items, or of the better parent).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from m3_exp.reporting import advice, palette, stats
from m3_exp.reporting.advice import Study
from m3_exp.reporting.curves import Response, Values, aligned_to
from m3_exp.reporting.page.pack import rounded
from m3_exp.reporting.palette import Mark
from m3_exp.reporting.protocols import ALPHAS as PAPER
from m3_exp.reporting.protocols import Objective
from m3_exp.reporting.response import Array, Curve, draw_sd, weights

_RESAMPLES = 500
_FINE = 129  # lambdas at which a minimum over benchmarks is followed: it bends between nodes


def _alphas() -> Array:
    """Return 121 alphas from 0.1 to 10, evenly on the log scale, the paper's seven in place of their neighbours."""
    found = np.geomspace(0.1, 10, 121)
    for alpha in PAPER:
        found[np.argmin(np.abs(np.log(found / alpha)))] = alpha
    return found


ALPHAS = _alphas()


def data(studies: Sequence[Study]) -> dict[str, Any]:
    """Return what page.js draws: alphas, densities' constants, and a curve a benchmark, mean and minimum a study."""
    return {
        "alphas": [float(f"{alpha:.4g}") for alpha in ALPHAS],
        "marked": list(PAPER),
        "log_beta": rounded([float(special.betaln(alpha, alpha)) for alpha in ALPHAS], 5),
        "studies": [_study(found) for found in studies],
    }


def _study(found: Study) -> dict[str, Any]:
    first = found.responses[0]
    header, rows = advice.table(found)
    return {
        "name": name(found), "pair": first.pair, "experts": list(first.experts),
        "score": [_single(response, None) for response in found.responses],
        "relative": _relative(found),
        "header": [_heading(text) for text in header], "rows": rows, "words": advice.words(found),
    }  # fmt: skip


def _heading(text: str) -> str:
    key, unit, rest = text.partition(" (")
    return palette.name(key, 40) + unit + rest


def name(found: Study) -> str:
    first = found.responses[0]
    parts = [palette.name(first.pair), palette.name(first.method) + (f" ({first.params})" if first.params else "")]
    return ", ".join([*parts, *(["DARE"] if first.sparsify == "dare" else []), first.family])


def _relative(found: Study) -> list[dict[str, Any]]:
    """Return the benchmarks that are comparable relative to their better parent, with mean and minimum over them.

    `found.notes` names those that are not.
    """
    left_out = {note.split(" ")[0] for note in found.notes if advice.LEFT_OUT in note}
    known = [(r, parent[1]) for r in found.responses if (parent := r.better_parent()) and r.benchmark not in left_out]
    lines = [_single(response, parent) for response, parent in known]
    if len(known) < 2:
        return lines
    shared = sorted(set.intersection(*(set(map(float, r.curve.lams)) for r, _ in known)))
    curves = tuple(_on(r.curve, shared) for r, _ in known)
    parents = tuple(parent for _, parent in known)
    responses = [r for r, _ in known]
    mean = Objective("mean", curves, parents, "mean")
    least = Objective("minimum", curves, parents, "minimum")
    return [*lines, _line(mean, palette.MEAN, responses), _line(least, palette.MINIMUM, responses)]


def _on(curve: Curve, lams: Sequence[float]) -> Curve:
    columns = [int(np.flatnonzero(curve.lams == lam)[0]) for lam in lams]
    return Curve(curve.ids, np.array(lams), curve.values[:, columns])


def _single(response: Response, parent: Array | None) -> dict[str, Any]:
    """Return one benchmark's line; intervals of plain scores are those of the tables, of ratios resampled."""
    objective = Objective(response.benchmark, (response.curve,), () if parent is None else (parent,))
    line = _line(objective, palette.benchmark(response.benchmark), [response])
    line["metric"], better = response.metric, response.better_parent()
    line["parent"] = None if better is None else {"name": better[0], "value": _percent(float(better[1].mean()))}
    if parent is None:
        curve = response.curve
        line |= _intervals("", [curve.values[:, k] for k in range(len(curve.lams))])
        line |= _intervals("e_", [curve.expected(alpha) for alpha in ALPHAS])
        line["sd"] = rounded([100 * draw_sd(curve, alpha) for alpha in ALPHAS])
    return line


def _intervals(prefix: str, columns: Sequence[Array]) -> dict[str, list[float]]:
    found = [stats.mean_interval(values) for values in columns]
    return {f"{prefix}low": [_percent(low) for low, _ in found], f"{prefix}high": [_percent(high) for _, high in found]}


def _line(objective: Objective, mark: Mark, responses: Sequence[Response]) -> dict[str, Any]:
    """Return one curve: `at` the lambdas `lams` with a band, `e` at ALPHAS with an interval, real draws and plain."""
    whole = [np.full((1, len(curve.ids)), 1 / len(curve.ids)) for curve in objective.curves]
    generator = np.random.default_rng(0)
    sample = [generator.multinomial(n, np.full(n, 1 / n), _RESAMPLES) / n for n in map(len, _ids(objective))]
    lams = objective.lams if objective.combine == "mean" else np.union1d(np.linspace(0, 1, _FINE), objective.lams)
    acting = np.stack([weights(lams, alpha) for alpha in ALPHAS])  # (121, L)
    at = objective.score(objective.nodes(whole), lams[None])[0]
    moved = objective.score(objective.nodes(sample), np.tile(lams, (_RESAMPLES, 1)))
    shown = [r.plain for r in responses]
    return {
        "key": objective.name, "name": palette.name(objective.name), **_drawn(mark),
        "n": sum(len(ids) for ids in _ids(objective)),
        "lams": rounded(lams.tolist(), 5), "at": _percents(at), **_bounds("", at, moved),
        "nodes": rounded(objective.lams.tolist(), 5),
        "weights": rounded(np.stack([weights(objective.lams, alpha) for alpha in ALPHAS]).tolist(), 4),
        "e": _percents(acting @ at), **_bounds("e_", acting @ at, moved @ acting.T),
        "plain": _value(objective, shown, whole), "draws": _draws(objective, responses, whole),
    }  # fmt: skip


def _ids(objective: Objective) -> list[tuple[str, ...]]:
    return [curve.ids for curve in objective.curves]


def _bounds(prefix: str, value: Array, moved: Array) -> dict[str, list[float]]:
    low, high = np.quantile(moved, [0.025, 0.975], axis=0)
    return {f"{prefix}low": _percents(np.minimum(low, value)), f"{prefix}high": _percents(np.maximum(high, value))}


def _value(objective: Objective, values: Sequence[Values | None], shares: Sequence[Array]) -> float | None:
    """Return the objective of a model that is no point of the curve; None where an item of it is missing."""
    aligned = [None if v is None else aligned_to(v, ids) for v, ids in zip(values, _ids(objective), strict=True)]
    known = [v for v in aligned if v is not None]
    return _percent(float(objective.relative(known, shares)[0])) if len(known) == len(values) else None


def _draws(objective: Objective, responses: Sequence[Response], shares: Sequence[Array]) -> list[dict[str, float]]:
    """Return the real draws that every benchmark of the objective has."""
    named: list[Mapping[tuple[float, int, float], Values]] = [
        {(draw.alpha, draw.number, draw.lam): draw.values for draw in response.draws} for response in responses
    ]
    shared = sorted(set.intersection(*(set(found) for found in named)))
    scored = [(key, _value(objective, [found[key] for found in named], shares)) for key in shared]
    return [{"alpha": a, "draw": d, "lam": round(lam, 5), "value": v} for (a, d, lam), v in scored if v is not None]


_SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "<": "triangle-left",
            ">": "triangle-right", "D": "diamond", "P": "cross", "X": "x", "p": "pentagon", "h": "hexagon",
            "*": "star"}  # fmt: skip


def _drawn(mark: Mark) -> dict[str, str]:
    """Return a matplotlib mark in plotly's words; dashes are in pixels."""
    dash = "solid" if isinstance(mark.line, str) else ",".join(f"{2 * length:g}px" for length in mark.line[1])
    return {"colour": mark.colour, "symbol": _SYMBOLS.get(mark.marker, "circle"), "dash": dash}


def _percent(value: float) -> float:
    return round(100 * value, 2)


def _percents(values: Array) -> list[float]:
    return [_percent(float(value)) for value in values]
