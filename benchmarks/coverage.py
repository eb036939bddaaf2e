"""Do the printed intervals hold what is true? Measured on populations whose truth is known; makes docs/coverage.md.

    python -m benchmarks.coverage [--short] [--only E,masks] [--sets 1000] [--jobs 2] [--keep FILE] [--out FILE]

Every number is computed by the function that prints it, on sets of items drawn from `populations.DESIGN`. `coverage`
is the share of sets whose interval holds the truth, `width` the mean width over that of the interval which knows how
far the number scatters from the truth over sets (2 x 1.96 standard deviations). Seeded by the population's name: the
same tables on any machine, but for rounding. `--keep` stores rows as they are made, and leaves out those that it holds.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import sys
import textwrap
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks import populations
from benchmarks.populations import ALPHAS, MASK_SD, NODES, Array, Population, answers, paths, problems, strata
from m3_exp.merging import ratio as ratios
from m3_exp.reporting.choices.protocols import compare
from m3_exp.reporting.comparisons import contrasts, values
from m3_exp.reporting.comparisons.contrasts import Entry
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Response, Values, shared
from m3_exp.stats import ratio
from m3_exp.stats.estimate import EVEN, Estimate, Shape, even_shares, mean
from m3_exp.stats.expectation import Sampled
from m3_exp.stats.lambdas import Curve
from m3_exp.stats.objective import Objective
from m3_exp.stats.paired import paired

ROOT = Path(__file__).resolve().parent.parent
Z = 1.959963984540054
LEAST, LEVEL = 0.93, 0.05  # coverage that is asked for; false signs that are allowed
WIDE = (97.0, 1.2)
SEEDS = 250  # of sampled lambdas, used by several sets each
FEW = 8.0  # items: 1.92 pseudo-items beside them are seen
SIGNS, BEST = "signs against plain", "holds the best"  # no intervals
MANY = 0.05 / 60  # the first step of Holm over a table's 60 comparisons
TRUTH_SETS = 1500  # sets that the truth of a protocol is the mean of
SHORT = (
    "one, 0.5, n 24", "tasks, n 96", "two, n 96", "two graded, n 24", "line, n 24", "dip, n 1319", "zero, n 96",
    "nodes: S, n 1319", "3 masks, n 1319", "3 draws, n 1319", "PDR .6 .01, n 96", "three alike, n 96",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One printed interval and what is true. `label`: an alpha, or a variant; `mark`: a sign that is false."""

    what: str
    label: str
    value: float
    low: float
    high: float
    truth: float
    p: float | None = None
    null: bool = False
    mark: bool | None = None


@dataclass(frozen=True)
class Row:
    """What was found of one kind of number on one population, by label; shares in percent, None where not asked."""

    name: str
    number: str
    what: str
    sets: int
    labels: tuple[str, ...]
    coverage: tuple[float, ...]
    width: tuple[float, ...]
    bias: tuple[float, ...]  # of the value, in points
    p05: tuple[float | None, ...]
    p60: tuple[float | None, ...]
    marks: tuple[float | None, ...]
    worth: tuple[float, ...]  # the scatter in items: as much as this many that move by 1
    seconds: float = 0.0


def _of(
    what: str, label: str, found: Estimate, truth: float, *, null: bool = False, mark: bool | None = None
) -> Outcome:
    return Outcome(what, label, found.value, found.low, found.high, truth, found.p, null, mark)


# ---------------------------------------------------------------------------------------------------- single models


def _shape(p: Population) -> Shape:
    if p.variant == "strata":
        names = strata(p.n)[0]
        return Shape(even_shares(names), names)
    return Shape(clusters=problems(p.n, p.clusters)) if p.clusters > 1 else EVEN


def _scores(p: Population, scores: Array) -> Array:
    """Return the true scores of each item, (n, K): by its task, where there are tasks."""
    easier = strata(p.n)[1] if p.variant == "strata" else np.zeros(p.n)
    return scores[None] + easier[:, None]


def _lost(p: Population, rng: np.random.Generator, first: Array) -> Array:
    """Return which items have no score."""
    if p.variant == "lost":
        return rng.random(p.n) < 0.1
    return (rng.random(p.n) < 0.25) & (first < 0.5) if p.variant == "lost wrong" else np.zeros(p.n, dtype=bool)


def score(p: Population, rng: np.random.Generator, index: int) -> Iterator[Outcome]:
    at = np.array([0.5])
    found = answers(rng, paths(rng, p.n, at, p.clusters), _scores(p, np.array([p.level])), graded=p.graded)[:, 0]
    kept = ~_lost(p, rng, found)
    yield _of("score", "", mean(found[kept], _shape(p), unscored=int((~kept).sum())), p.level)


def pair(p: Population, rng: np.random.Generator, index: int) -> Iterator[Outcome]:
    """Two models: of the same score, then the second 8 points (at low scores: half) lower."""
    below = 0.08 if p.level > 0.2 else p.level / 2
    for label, other in (("0", p.level), (f"{100 * below:g}", p.level - below)):
        latent = paths(rng, p.n, np.array([0.5, 0.45]), p.clusters)
        found = answers(rng, latent, _scores(p, np.array([p.level, other])), graded=p.graded)
        kept = ~_lost(p, rng, found[:, 0])
        a, b = found[kept].T
        result = paired(a, b, _shape(p), unscored=int((~kept).sum()))
        yield _of("difference", label, result, p.level - other, null=other == p.level)


def drop(p: Population, rng: np.random.Generator, index: int) -> Iterator[Outcome]:
    """A model under an attack, and another that loses as much."""
    clean, attacked = map(float, p.variant.split())
    latent = paths(rng, p.n, np.array([0.3, 0.4, 0.6, 0.7]))
    c, a, d, b = answers(rng, latent, np.array([clean, attacked, clean, attacked])).T
    one = ratio.drop(c, a)
    both = ratio.drop_difference(ratio.Scores(c, a), ratio.Scores(d, b))
    if one.value is not None:
        yield Outcome("PDR", "", one.value, max(one.low, -9.0), one.high, 1 - attacked / clean)
    if both.value is not None:
        yield Outcome("PDR - PDR", "", both.value, max(both.low, -9.0), min(both.high, 9.0), 0.0, both.p, True)


# ------------------------------------------------------------------------------------------------------ expectations


@lru_cache(maxsize=4096)
def lambdas(seed: int) -> tuple[float, ...]:
    return tuple(sorted(ratios.sampled(seed, 16)))


@lru_cache(maxsize=16)
def _ids(n: int) -> tuple[str, ...]:
    return tuple(f"item{i:05d}" for i in range(n))


def _values(items: Array) -> Values:
    return dict(zip(_ids(len(items)), items.tolist(), strict=True))


def _curve(p: Population, found: Array, drawn: Array | None) -> Curve:
    """Return the curve of items at the nodes and then at the sampled lambdas."""
    k = len(NODES)
    sampled = None if drawn is None else Sampled(drawn, found[:, k : k + len(drawn)])
    return Curve(_ids(p.n), np.array(NODES), found[:, :k], sampled, _shape(p))


def _response(curves: Sequence[Curve], plains: Sequence[Values], *, dare: bool = False, name: str = "b") -> Response:
    seeds = tuple(range(1, len(curves) + 1)) if dare else ()
    first = curves[0]
    averaged = np.mean([c.values for c in curves], axis=0)
    sampled = None
    if first.sampled is not None:
        sampled = Sampled(first.sampled.lams, np.mean([c.sampled.values for c in curves if c.sampled], axis=0))
    plain = shared(plains)
    return Response(
        "f", "p", "m", "", "dare" if dare else "none", name, "accuracy",
        curve=Curve(first.ids, first.lams, averaged, sampled, first.shape), masks=tuple(curves), plain=plain,
        mask_seeds=seeds, plains=dict(zip(seeds, plains, strict=True)) if dare else {},
    )  # fmt: skip


def expectation(p: Population, rng: np.random.Generator, index: int, *, with_sampled: bool = True) -> Iterator[Outcome]:
    """E for every alpha; E - plain with a plain that scores E truly; signs where plain scores E at alpha = 1."""
    drawn = np.array(lambdas(1000 + index % SEEDS)) if with_sampled else None
    lams = np.array(NODES) if drawn is None else np.concatenate([NODES, drawn])
    truths = np.array([p.truth(alpha) for alpha in ALPHAS])
    scores = np.concatenate([p.h(lams), truths])
    latent = paths(rng, p.n, np.concatenate([lams, np.full(len(truths), 0.5)]), p.clusters)
    found = answers(rng, latent, _scores(p, scores), graded=p.graded)
    curve = _curve(p, found, drawn)
    base = _response([curve], [_values(found[:, -4])])
    for k, (alpha, truth) in enumerate(zip(ALPHAS, truths, strict=True)):
        yield _of("E", f"{alpha:g}", expectations.expected(base, alpha), truth)
        own = replace(base, plain=_values(found[:, len(lams) + k]))
        gain = expectations.minus_plain(own, alpha)
        assert gain is not None
        yield _of("E - plain", f"{alpha:g}", gain, 0.0, null=True)
    if index % 2 == 0:
        marks = {alpha: one.mark for (_, alpha), one in expectations.against_plain([base]).items()}
        yield _signs(marks, dict(zip(ALPHAS, truths - truths[3], strict=True)))
    best = expectations.best_alphas([base]) if index % 4 == 0 else None
    if best is not None:
        kept = max(truths) - max(truths[ALPHAS.index(alpha)] for alpha in best) < 1e-9
        yield Outcome(BEST, "", len(best), 0.0, 1.0, 0.0 if kept else 2.0)


def _signs(marks: Mapping[float, str], truths: Mapping[float, float]) -> Outcome:
    """Return whether any sign of a family is false: given where nothing is, or the wrong way."""
    false = any(
        (mark == "better" and truths[alpha] < 1e-9) or (mark == "worse" and truths[alpha] > -1e-9)
        for alpha, mark in marks.items()
    )
    given = sum(mark in ("better", "worse") for mark in marks.values())
    return Outcome(SIGNS, "", given, 0.0, 1.0, 0.0, mark=false)


def nodes(p: Population, rng: np.random.Generator, index: int) -> Iterator[Outcome]:
    yield from expectation(p, rng, index, with_sampled=False)


def masks(p: Population, rng: np.random.Generator, index: int) -> Iterator[Outcome]:
    """Each mask moves the curve, and plain and a row of fixed lambda, by amounts of their own."""
    drawn = np.array(lambdas(1000 + index % SEEDS))
    lams = np.concatenate([NODES, drawn])
    plain_score = p.truth(1.0)
    latent = paths(rng, p.n, np.concatenate([lams, [0.5, 0.4]]))
    shifts = MASK_SD * rng.standard_normal((p.masks, 3))
    tables = []
    for one in shifts:
        scores = np.concatenate([p.h(lams) + one[0], [plain_score + one[1], plain_score + one[2]]])
        tables.append(answers(rng, latent, np.clip(scores, 1e-6, 1 - 1e-6), graded=p.graded))
    plains, rows = [_values(t[:, -2]) for t in tables], [_values(t[:, -1]) for t in tables]
    response = _response([_curve(p, t, drawn) for t in tables], plains, dare=True)
    own = shifts[0] if p.masks == 1 else np.zeros(3)  # one mask: the number is of this mask
    for alpha in (0.2, 1.0, 5.0):
        truth = p.truth(alpha)
        gain = expectations.minus_plain(response, alpha)
        assert gain is not None
        yield _of("E", f"{alpha:g}", expectations.expected(response, alpha), truth + own[0])
        # (one mask: what is true of it is not 0, and no p-value of it is printed)
        null = alpha == 1.0 and p.masks > 1
        yield _of("E - plain", f"{alpha:g}", gain, truth - plain_score + own[0] - own[1], null=null)
    entries = [
        Entry(0.0, shared(list(models.values())) or {}, models=models)
        for models in ({(None, float(k)): one for k, one in enumerate(side)} for side in (rows, plains))
    ]
    found = contrasts.compare(*entries)
    assert found is not None
    false = bool(contrasts.adjusted({(0, 0): (found, contrasts.unclaimed(*entries))})[0, 0].sign in ("better", "worse"))
    yield _of("row - plain", "", found, own[2] - own[1], null=p.masks > 1, mark=false)
    yield _of("row", "", values.estimate(entries[0]), plain_score + own[2])
    marks = {alpha: one.mark for (_, alpha), one in expectations.against_plain([response]).items()}
    yield _signs(marks, {alpha: p.truth(alpha) - plain_score for alpha in ALPHAS})


def draws(p: Population, rng: np.random.Generator, index: int) -> Iterator[Outcome]:
    """A row that is the mean over stratified draws of lambda: of these, or from ten on of any."""
    for alpha in (0.5, 2.0):
        lams = np.array([ratios.mixup(alpha, 1000 + index, k) for k in range(p.draws)])
        whole = p.truth(alpha)
        truth = whole if p.draws >= contrasts.LEAST_DRAWS else float(p.h(lams).mean())
        latent = paths(rng, p.n, np.append(lams, 0.5))
        found = answers(rng, latent, np.append(p.h(lams), whole), graded=p.graded)
        models = {(float(lam), None): _values(found[:, k]) for k, lam in enumerate(lams)}
        entry = Entry(0.0, shared(list(models.values())) or {}, models=models, drawn=len(models))
        plain = _values(found[:, -1])
        other = Entry(0.0, plain, models={(None, None): plain})
        gain = contrasts.compare(entry, other)
        assert gain is not None
        sign = contrasts.adjusted({(0, 0): (gain, contrasts.unclaimed(entry, other))})[0, 0].sign
        yield _of("mean of draws", f"{alpha:g}", values.estimate(entry), truth)
        yield _of(
            "mean - plain", f"{alpha:g}", gain, truth - whole, null=truth == whole, mark=sign in ("better", "worse")
        )


# -------------------------------------------------------------------------------------------------- ways of choosing


@lru_cache(maxsize=64)
def protocol_truths(curve: str, n: int) -> Mapping[str, float]:
    """Return what a protocol scores on average when half of n items choose: the true score of what is kept.

    Played on the curve through all merges, as printed, on fresh items and fresh sampled lambdas each time.
    """
    rng = np.random.default_rng(zlib.crc32(f"{curve}/{n}".encode()))
    h = populations.CURVES[curve]
    kept: dict[str, list[float]] = {"replay": [], "tuned": [], "selected": []}
    for index in range(TRUTH_SETS):
        lams = np.unique(np.concatenate([NODES, lambdas(1000 + index % SEEDS)]))
        size = n // 2 if index % 2 else n - n // 2
        means = answers(rng, paths(rng, size, lams), h(lams)).mean(axis=0)
        for _ in range(10):
            candidates = {
                "replay": np.array([rng.beta(alpha, alpha) for alpha in ALPHAS]),
                "tuned": np.linspace(0, 1, len(ALPHAS)),
                "selected": np.array(NODES),
            }
            for name, at in candidates.items():
                kept[name].append(float(h(at[[int(np.argmax(np.interp(at, lams, means)))]])[0]))
    return {name: float(np.mean(found)) for name, found in kept.items()}


def ways(p: Population, rng: np.random.Generator, index: int) -> Iterator[Outcome]:
    truths = protocol_truths(p.curve, p.n)
    drawn = np.array(lambdas(1000 + index % SEEDS))
    lams = np.concatenate([NODES, drawn])
    curve = _curve(p, answers(rng, paths(rng, p.n, lams), p.h(lams)), drawn)
    response = _response([curve], [_values(curve.values[:, 4])])
    found = compare([response], Objective("b", (curve,)), repeats=200, resamples=60, seed=index)
    for name in truths:
        yield _of(name, "", getattr(found, name).honest, truths[name])
    gap = truths["replay"] - truths["tuned"]
    wrong = found.contrast.p is not None and found.contrast.p < 0.05 and found.contrast.value * gap < 0
    yield _of("replay - tuned", "", found.contrast, gap, mark=wrong)


def minimum(p: Population, rng: np.random.Generator, index: int) -> Iterator[Outcome]:
    """Three benchmarks that score 50 % everywhere: so do their minima, however lambda is chosen."""
    drawn = np.array(lambdas(1000 + index % SEEDS))
    lams = np.concatenate([NODES, drawn])
    responses = []
    for name in "abc":
        found = answers(rng, paths(rng, p.n, np.append(lams, 0.5)), np.full(len(lams) + 1, 0.5))
        responses.append(_response([_curve(p, found, drawn)], [_values(found[:, -1])], name=name))
    curves = tuple(r.curve for r in responses)
    objective = Objective("minimum", curves, tuple(np.ones(p.n) for _ in curves), "minimum")
    found = compare(responses, objective, repeats=200, resamples=60, seed=index)
    assert found.plain is not None
    yield _of("plain", "", found.plain, 0.5)
    for alpha in (0.2, 1.0, 5.0):
        yield _of("E", f"{alpha:g}", found.expected[alpha], 0.5)
        gain = found.gains[alpha]
        yield _of("E - plain", f"{alpha:g}", gain.estimate, 0.0, null=True, mark=gain.mark in ("better", "worse"))
    yield _of("replay", "", found.replay.honest, 0.5)
    yield _of("replay - tuned", "", found.contrast, 0.0, null=True)


def relative(p: Population, rng: np.random.Generator, index: int) -> Iterator[Outcome]:
    """Two benchmarks, on which both parents and the merge score 50 %: the merge is at 100 % of the better parent."""
    drawn = np.array(lambdas(1000 + index % SEEDS))
    lams = np.concatenate([NODES, drawn])
    responses, parents = [], []
    for name in "ab":
        found = answers(rng, paths(rng, p.n, np.append(lams, [0.5, 0.2, 0.8])), np.full(len(lams) + 3, 0.5))
        one = _response([_curve(p, found, drawn)], [_values(found[:, -3])], name=name)
        one = replace(one, parents={"first": _values(found[:, -2]), "second": _values(found[:, -1])})
        better = one.better_parent()
        assert better is not None
        responses.append(one)
        parents.append(better[1])
    objective = Objective("mean", tuple(r.curve for r in responses), tuple(parents), "mean")
    found = compare(responses, objective, repeats=20, resamples=4, seed=index)
    assert found.plain is not None
    yield _of("plain of parent", "", found.plain, 1.0)
    for alpha in (0.2, 1.0, 5.0):
        yield _of("E of parent", f"{alpha:g}", found.expected[alpha], 1.0)
        gain = found.gains[alpha]
        yield _of(
            "E - plain of parent", f"{alpha:g}", gain.estimate, 0.0, null=True, mark=gain.mark in ("better", "worse")
        )


PRINTED: Mapping[str, Callable[[Population, np.random.Generator, int], Iterator[Outcome]]] = {
    "score": score, "paired": pair, "E": expectation, "nodes": nodes, "masks": masks, "draws": draws, "PDR": drop,
    "ways": ways, "minimum": minimum, "relative": relative,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------- measurement


def measured(p: Population) -> list[Row]:
    """Return what was found on one population."""
    start = time.monotonic()
    rng = np.random.default_rng(zlib.crc32(p.name.encode()))
    found: dict[str, dict[str, list[Outcome]]] = {}
    try:
        for index in range(p.sets):
            for one in PRINTED[p.number](p, rng, index):
                found.setdefault(one.what, {}).setdefault(one.label, []).append(one)
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:  # a printed number's fault
        return [Row(p.name, p.number, f"{type(error).__name__}: {error}"[:90], 0, *((),) * 8)]
    seconds = time.monotonic() - start
    return [_row(p, what, by_label, seconds) for what, by_label in found.items()]


def _row(p: Population, what: str, found: Mapping[str, Sequence[Outcome]], seconds: float) -> Row:
    def each(of: Callable[[Sequence[Outcome]], float | None]) -> tuple[float | None, ...]:
        return tuple(None if (x := of(outcomes)) is None else round(x, 3) for outcomes in found.values())

    sets = len(next(iter(found.values())))
    return Row(
        p.name, p.number, what, sets, tuple(found), each(_covered), each(_width), each(_bias),  # type: ignore[arg-type]
        each(lambda x: _rejected(x, LEVEL)), each(lambda x: _rejected(x, MANY)), each(_marked),
        each(lambda x: _worth(x, p.n)), round(seconds, 1),  # type: ignore[arg-type]
    )  # fmt: skip


def _covered(found: Sequence[Outcome]) -> float:
    return 100 * float(np.mean([one.low - 1e-12 <= one.truth <= one.high + 1e-12 for one in found]))


def _width(found: Sequence[Outcome]) -> float:
    sd = float(np.std([one.value - one.truth for one in found], ddof=1))
    return float(np.mean([one.high - one.low for one in found])) / (2 * Z * sd) if sd > 1e-12 else math.nan


def _worth(found: Sequence[Outcome], n: int) -> float:
    return float(n * np.std([one.value - one.truth for one in found])) ** 2


def _bias(found: Sequence[Outcome]) -> float:
    return 100 * float(np.mean([one.value - one.truth for one in found]))


def _rejected(found: Sequence[Outcome], level: float) -> float | None:
    p = [one.p for one in found if one.null and one.p is not None]
    return 100 * float(np.mean(np.array(p) < level)) if p else None


def _marked(found: Sequence[Outcome]) -> float | None:
    marks = [one.mark for one in found if one.mark is not None]
    return 100 * float(np.mean(marks)) if marks else None


# ------------------------------------------------------------------------------------------------------------ a page


def flags(row: Row, sigmas: float = 1.25) -> list[str]:
    """Say what of a row falls short: below 93 %, or above its level, by more than its Monte Carlo error allows.

    `sigmas` standard errors for coverage (1.25: below 92 % in 1,000 sets), and as many and 1.75 more for rates.
    """
    if not row.sets:
        return ["fails"]
    said = []
    if row.what != SIGNS and min(row.coverage) < 100 * (LEAST - sigmas * _error(LEAST, row.sets)):
        said.append("low")
    for name, level, found in (("p", LEVEL, row.p05), ("p", MANY, row.p60), ("signs", LEVEL, row.marks)):
        limit = 100 * (level + (sigmas + 1.75) * _error(level, row.sets))
        if any(x is not None and x > limit for x in found):
            said.append(f"false {name}")
    wide = [c > WIDE[0] and w > WIDE[1] for c, w in zip(row.coverage, row.width, strict=True)]
    if row.what not in (SIGNS, BEST) and any(wide):
        said.append(f"wide{_why(row, wide)}")
    return list(dict.fromkeys(said))


def _why(row: Row, wide: Sequence[bool]) -> str:
    """Say why an interval is wide: worst cases, few masks or merges, a scatter of a few items; empty: it need not."""
    population = next(p for p in populations.DESIGN if p.name == row.name)
    if population.variant.startswith("lost"):
        return " (worst case of the lost)"
    if population.number == "nodes":
        return " (bias bound)"
    if population.masks > 1:
        return f" ({population.masks} masks)"
    if population.draws >= contrasts.LEAST_DRAWS:
        return " (draws counted as independent)"
    least = min((x for x, is_wide in zip(row.worth, wide, strict=True) if is_wide), default=math.inf)
    most = max((x for x, is_wide in zip(row.worth, wide, strict=True) if is_wide), default=math.inf)
    if most < FEW and population.number not in ("ways", "minimum", "draws"):
        return f" (scatter of {least:.2g} items)"
    return " (variance over lambdas bounded)" if population.number == "E" else ""


def _error(share: float, sets: int) -> float:
    return math.sqrt(share * (1 - share) / sets)


def _series(found: Sequence[float | None], digits: int) -> str:
    known = [f"{x:.{digits}f}" if x is not None else "" for x in found]
    return " ".join(x for x in known if x)


def page(rows: Sequence[Row], seconds: float) -> str:
    """Return the tables as Markdown."""
    made = (
        f"{time.strftime('%Y-%m-%d')} ({platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    lines = [
        "# Coverage of the printed intervals",
        "",
        f"Made by `python -m benchmarks.coverage` on {made}, numpy {np.__version__};",
        f"{seconds / 60:.0f} worker-minutes).",
        "Seeds: crc32 of the population's name; `ratio.sampled`: 1000 to 1249, `ratio.mixup`: 1000 + the set.",
        "",
        "How often the printed 95 % intervals hold what is true, on simulated populations whose truth is known.",
        "",
        "- *coverage*: percent of the sets of items whose interval holds the truth. The Monte Carlo error of 1,000",
        "  sets is 0.7; another number of sets stands in brackets behind the population.",
        "- *width*: the interval's mean width over that of an interval which knows how far the number scatters.",
        "- *p < .05*, *p < .05/60*: percent of the sets with such a p-value where the true difference is 0.",
        "- *signs*: percent of the sets with a false sign (better or worse).",
        f"- Several numbers in a cell are, from left to right, alpha = {', '.join(map(str, ALPHAS))}",
        "  (masks, minimum, relative: 0.2, 1, 5; draws: 0.5, 2). Of pairs they are a true difference of 0, then of 8",
        "  points (at low scores half of the score).",
        "- Last column: *low* coverage; *false* p-values or signs; *wide*: above 97 % at more than 1.2 times the",
        "  width, with the reason where the width is forced.",
    ]
    for number in PRINTED:
        own = [row for row in rows if row.number == number]
        if own:
            lines += ["", f"## {number}", "", *(_expected_table(own) if number in ("E", "nodes") else _table(own))]
    known = {row.name for row in rows}
    lacking = [p.name for p in populations.DESIGN if p.name not in known]
    if lacking:
        lines += ["", f"Not measured this time, {len(lacking)} populations: {'; '.join(lacking)}."]
    design = "; ".join(f"{p.name} ({p.number})" for p in populations.DESIGN)
    listed = textwrap.fill(f"Design (`benchmarks/populations.py`), {len(populations.DESIGN)}: {design}.", 110)
    return "\n".join([*lines, "", listed, ""])


def _table(rows: Sequence[Row]) -> list[str]:
    header = "| population | number | coverage | width | p < .05 | p < .05/60 | signs | |"
    return [header, "|---|---|---|---|---|---|---|---|", *map(_line, rows)]


def _expected_table(rows: Sequence[Row]) -> list[str]:
    """Return one line a population: E, E - plain, false signs, and how often the best alpha is among those printed."""
    lines = [
        "| population | E: coverage | width | E - plain: coverage | width | p < .05 | p < .05/60 | signs | best | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row.name for row in rows):
        own = {row.what: row for row in rows if row.name == name}
        if not {"E", "E - plain"} <= own.keys():
            lines += [f"| {_name(row)} | {row.what} ||||||||fails |" for row in own.values()]
            continue
        e, gain = own["E"], own["E - plain"]
        signs = _series(own[SIGNS].marks, 1) if SIGNS in own else ""
        best = _series(own[BEST].coverage, 0) if BEST in own else ""
        said = [f"{row.what}: {flag}" for row in own.values() for flag in flags(row)]
        cells = (
            _name(e), _series(e.coverage, 0), _series(e.width, 2), _series(gain.coverage, 0), _series(gain.width, 2),
            _series(gain.p05, 1), _series(gain.p60, 2), signs, best, "; ".join(said),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _name(row: Row) -> str:
    return row.name + ("" if row.sets in (0, 1000) else f" ({row.sets})")


def _line(row: Row) -> str:
    coverage = "" if row.what == SIGNS else _series(row.coverage, 1 if len(row.coverage) < 4 else 0)
    width = "" if row.what in (SIGNS, BEST) else _series(row.width, 2)
    cells = (
        _name(row), row.what, coverage, width, _series(row.p05, 1), _series(row.p60, 2), _series(row.marks, 1),
        ", ".join(flags(row)),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def load(path: Path | None) -> list[Row]:
    if path is None or not path.exists():
        return []
    read = [json.loads(line) for line in path.read_text().splitlines()]
    return [Row(**{key: tuple(v) if isinstance(v, list) else v for key, v in one.items()}) for one in read]


def chosen(options: argparse.Namespace) -> list[Population]:
    """Return the populations that are asked for, the longest first."""
    found = [p for p in populations.DESIGN if not options.short or p.name in SHORT]
    if options.only:
        wanted = options.only.split(";" if ";" in options.only else ",")
        found = [p for p in found if p.number in wanted or p.name in wanted]
    share = options.sets / 1000
    found = [replace(p, sets=max(20, round(p.sets * share))) for p in found]
    return sorted(found, key=lambda p: -p.n * p.sets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a dozen populations, 200 sets: for CI")
    parser.add_argument("--only", default="", help="numbers (score,E,...), or names of populations separated by ;")
    parser.add_argument("--sets", type=int, default=0, help="sets of a population (default 1,000; short: 200)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="rows (JSON lines) that are kept, and not made again")
    parser.add_argument("--out", type=Path, help="the page (default docs/coverage.md; short: printed alone)")
    options = parser.parse_args()
    options.sets = options.sets or (200 if options.short else 1000)
    rows = load(options.keep)
    done = {row.name for row in rows}
    wanted = [p for p in chosen(options) if p.name not in done]
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))  # of the workers
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for found in pool.imap_unordered(measured, wanted):
            rows += found
            for row in found:
                print(_line(row), f"{row.seconds:.0f} s", flush=True)
            if options.keep:
                with options.keep.open("a") as file:
                    file.writelines(json.dumps(asdict(row)) + "\n" for row in found)
    order = {p.name: k for k, p in enumerate(populations.DESIGN)}
    rows.sort(key=lambda row: order[row.name])
    text = page(rows, sum({row.name: row.seconds for row in rows}.values()))
    if options.out or not options.short:
        out = options.out or ROOT / "docs/coverage.md"
        out.write_text(text)
        print(f"{out}: {len(rows)} rows")
    failing = [row for row in rows if any(not flag.startswith("wide") for flag in flags(row, sigmas=4))]
    sys.exit(1 if options.short and failing else 0)


if __name__ == "__main__":
    main()
