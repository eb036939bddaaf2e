"""Response curves and triangles for the page: what it draws, and every alpha's expectation on a fine grid.

The page only looks up: expectations, intervals and the node weights w_k(alpha) are given at ALPHAS, so no statistics
are written twice. All values are in percent (of the items, or of the better parent).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from m3_exp.merging.ratio import one_sided
from m3_exp.reporting.choices import advice
from m3_exp.reporting.choices.protocols import Comparison, expected, model
from m3_exp.reporting.choices.ways import Study
from m3_exp.reporting.choices.winning import FINE, surface, triangle
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Response, Values, aligned_to
from m3_exp.reporting.curves.places import Place
from m3_exp.reporting.figures import palette
from m3_exp.reporting.figures.palette import Mark
from m3_exp.reporting.page.data import StudyData
from m3_exp.reporting.page.pack import rounded
from m3_exp.stats.estimate import Array, weighted_mean
from m3_exp.stats.expectation import ALPHAS as PAPER
from m3_exp.stats.expectation import draw_sd
from m3_exp.stats.lambdas import log_beta
from m3_exp.stats.objective import Objective, Resampled
from m3_exp.stats.simplex import log_density
from m3_exp.types import Json

_RESAMPLES = 200
_MIDDLE = np.full(3, 1 / 3)
_FINE = 129  # lambdas at which a minimum over benchmarks is followed: it bends between nodes


def _alphas() -> Array:
    """Return 121 alphas from 0.1 to 10, evenly on the log scale, the paper's seven in place of their neighbours."""
    alphas = np.geomspace(0.1, 10, 121)
    for alpha in PAPER:
        alphas[np.argmin(np.abs(np.log(alphas / alpha)))] = alpha
    return alphas


ALPHAS = _alphas()


def shown(study: Study) -> StudyData:
    """Return what the page shows of a study."""
    return StudyData(name(study), tuple(advice.answer(study)), _study(study))


def data(studies: Sequence[StudyData]) -> Json:
    """Return what page.js draws: alphas, densities' constants, and a curve a benchmark, mean and minimum a study."""
    return {
        "alphas": [float(f"{alpha:.4g}") for alpha in ALPHAS],
        "marked": list(PAPER),
        "log_beta": rounded([log_beta(alpha) for alpha in ALPHAS], 5),
        "log_middle": rounded([float(log_density(_MIDDLE, alpha)) for alpha in ALPHAS], 5),
        "order": FINE,
        "outside": expectations.OUTSIDE,
        "studies": [study.curves for study in studies],
    }


def _study(study: Study) -> Json:
    first = study.responses[0]
    table = advice.table(study)
    compared = {one.objective: one for one in study.comparisons}
    score = [_single(response, None) for response in study.responses]
    relative = _relative(study)
    for line in (*score, *relative):
        own = next((r for r in study.responses if r.benchmark == line["key"]), None)
        line |= _gains(compared[str(line["key"])], own)
    return {
        "name": name(study), "pair": first.pair, "experts": list(first.experts), "score": score, "relative": relative,
        "mixtures": study.points == "mixtures",
        "claims": _claims(study),
        "header": [" ".join(filter(None, [palette.name(c.benchmark, 40), c.what])) for c in table.columns],
        "rows": table.texts, "words": advice.words(study),
    }  # fmt: skip


def _gains(compared: Comparison, response: Response | None) -> Json:
    """Return E - plain at ALPHAS, (value, low, high) or None, and at the paper's seven the sign, as in tables.

    A benchmark's is in points of its score. Mean and minimum are compared at the seven only, as a family of their own.
    """
    known = {alpha: gain.estimate for alpha, gain in compared.gains.items()}
    if response is not None:
        others = {float(alpha): expectations.minus_plain(response, float(alpha)) for alpha in ALPHAS}
        known = {alpha: one for alpha, one in others.items() if one is not None} | known
    compared_at = [known.get(float(alpha)) for alpha in ALPHAS]
    return {
        "gain": [None if one is None else _percents((one.value, one.low, one.high)) for one in compared_at],
        "marks": [compared.gains[alpha].mark if alpha in compared.gains else "" for alpha in PAPER],
    }


def _claims(study: Study) -> dict[str, str]:
    """Say which comparisons the signs are adjusted for, or why there are no signs."""
    gains = [gain for one in study.comparisons for gain in one.gains.values()]
    if not gains:
        return {"signs": "", "why": "plain is not evaluated"}
    whys = list(dict.fromkeys(gain.why for gain in gains if gain.why))
    single = next((gain.family for one in study.comparisons for gain in one.gains.values()
                   if one.objective in study.spreads), 0)  # fmt: skip
    joint = "; mean and minimum: over their seven alphas" if len(study.comparisons) > len(study.responses) else ""
    signs = (
        "▲ better, ▼ worse, ≈ not told apart from plain, at 5 %: max-T over the"
        f" {single} alphas x benchmarks of this pair and method{joint}."
    )
    return {"signs": signs, "why": "; ".join(whys)}


def name(study: Study) -> str:
    first = study.responses[0]
    parts = [palette.name(first.pair), palette.name(first.method) + (f" ({first.params})" if first.params else "")]
    return ", ".join(
        [*parts, *([first.sparsify.replace("dare", "DARE")] if first.sparsify != "none" else []), first.family]
    )


def _relative(study: Study) -> list[Json]:
    """Return the benchmarks that are comparable relative to their better parent, with mean and minimum over them."""
    joint = study.relative
    singles = [_single(response, parent) for response, parent in zip(joint.responses, joint.parents, strict=True)]
    return [*singles, *(_line(objective, joint.responses) for objective in joint.objectives)]


def _single(response: Response, parent: Array | None) -> Json:
    """Return one benchmark's line: plain scores, or those relative to a parent."""
    objective = Objective(response.benchmark, (response.curve,), () if parent is None else (parent,))
    line = _line(objective, [response])
    line["metric"], better = response.metric, response.better_parent()
    level = None if better is None else _percent(float(weighted_mean(better[1], response.curve.shape)))
    line["parent"] = None if better is None else {"name": better[0], "value": level}
    if parent is None:
        line["sd"] = rounded([100 * draw_sd(response.curve, alpha) for alpha in ALPHAS])
    return line


def _line(objective: Objective, responses: Sequence[Response]) -> Json:
    """Return one curve or surface: its points, `e` at ALPHAS with an interval, draws and plain."""
    sample = Resampled.of(objective, _RESAMPLES, np.random.default_rng(0))
    e = [expected(responses, objective, sample, float(alpha)) for alpha in ALPHAS]
    shown = [r.plain for r in responses]
    return {
        "key": objective.name, "name": palette.name(objective.name), **_drawn(palette.objective(objective.name)),
        "n": sum(len(r.curve.ids) + r.unscored for r in responses), "unscored": sum(r.unscored for r in responses),
        "corrected": all(curve.sampled is not None for curve in objective.curves),
        "nodes": rounded(objective.points.tolist(), 5),
        "weights": rounded(np.stack([objective.curves[0].weights(alpha) for alpha in ALPHAS]).tolist(), 4),
        "e": _percents(one.value for one in e), "e_low": _percents(one.low for one in e),
        "e_high": _percents(one.high for one in e),
        "plain": _value(objective, shown, objective.whole), "draws": _draws(objective, responses, objective.whole),
        **(_along(objective, responses) if objective.points.ndim == 1 else _over(objective, responses)),
    }  # fmt: skip


def _along(objective: Objective, responses: Sequence[Response]) -> Json:
    """Return a curve of two experts: `at` the lambdas `lams` with a band."""
    lams = objective.points if objective.combine == "mean" else np.union1d(np.linspace(0, 1, _FINE), objective.points)
    along = [model(responses, objective, float(lam)) for lam in lams]
    return {
        "lams": rounded(lams.tolist(), 5), "at": _percents(one.value for one in along),
        "low": _percents(one.low for one in along), "high": _percents(one.high for one in along),
    }  # fmt: skip


def _over(objective: Objective, responses: Sequence[Response]) -> Json:
    """Return a surface of three experts: on the points of a fine lattice the score, and the least gain on an expert.

    A minimum over benchmarks has its score alone.
    """
    sampled = objective.curves[0].sampled
    drawn = [] if sampled is None else rounded(sampled.points.tolist(), 5)
    if objective.combine == "minimum":
        return {"at": _percents(surface(objective)), "sampled": drawn}
    found = triangle(responses, objective)
    return {
        "at": rounded(found.score.tolist(), 2), "gains": rounded(found.gain.tolist(), 2), "sampled": drawn,
        "gains_low": rounded(found.low.tolist(), 2), "gains_high": rounded(found.high.tolist(), 2),
    }  # fmt: skip


def _value(objective: Objective, values: Sequence[Values | None], shares: Sequence[Array]) -> float | None:
    """Return the objective of a model that is no point of the curve; None if it has no value of some item."""
    parts = zip(values, objective.curves, strict=True)
    aligned = [None if v is None else aligned_to(v, curve.ids) for v, curve in parts]
    known = [v for v in aligned if v is not None]
    return _percent(float(objective.score_of(known, shares)[0])) if len(known) == len(values) else None


def _draws(objective: Objective, responses: Sequence[Response], shares: Sequence[Array]) -> list[Json]:
    """Return the observed draws that every benchmark of the objective has; `said` names a draw that is one-sided."""
    named: list[Mapping[tuple[float, int, Place], Values]] = [
        {(draw.alpha, draw.number, draw.shares or draw.lam): draw.values for draw in response.draws}
        for response in responses
    ]
    shared = sorted(set.intersection(*(set(by_draw) for by_draw in named)))
    scored = [(key, _value(objective, [by_draw[key] for by_draw in named], shares)) for key in shared]
    names = responses[0].experts
    found: list[Json] = []
    for (alpha, number, at), value in scored:
        if value is not None:
            point = at if isinstance(at, tuple) else (at, 1 - at)
            said = (one_sided(point, names) if len(names) == len(point) else None) or ""
            where = rounded(list(at) if isinstance(at, tuple) else at, 5)
            found.append({"alpha": alpha, "draw": number, "lam": where, "value": value, "said": said})
    return found


_SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "<": "triangle-left",
            ">": "triangle-right", "D": "diamond", "P": "cross", "X": "x", "p": "pentagon", "h": "hexagon",
            "*": "star"}  # fmt: skip


def _drawn(mark: Mark) -> dict[str, str]:
    """Return a matplotlib mark in plotly's words; dashes are in pixels."""
    dash = "solid" if isinstance(mark.line, str) else ",".join(f"{2 * length:g}px" for length in mark.line[1])
    return {"colour": mark.colour, "symbol": _SYMBOLS.get(mark.marker, "circle"), "dash": dash}


def _percent(value: float) -> float:
    return round(100 * value, 2)


def _percents(values: Iterable[float]) -> list[float]:
    return [_percent(float(value)) for value in values]
