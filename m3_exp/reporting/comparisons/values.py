"""The score of one cell of a table: the mean over its draws, or the expectation on a response curve."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from m3_exp.reporting.comparisons.contrasts import LEAST_DRAWS, Entry, Models, levels
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Response, Values, shared
from m3_exp.stats.estimate import EVEN, Estimate, deviation, mean, weighted_mean
from m3_exp.stats.expectation import Evaluated, draw_sd, unsure
from m3_exp.stats.paired import spread
from m3_exp.stats.scored import Scored, aligned


@dataclass(frozen=True)
class Value:
    """One figure of a table: score and 95 % interval in percent over `n` items, of which some may be unscored.

    It is a mean over `draws` draws of lambda, or an expectation on a curve of `nodes` nodes. `spread` is the standard
    deviation between draws, `masks` that between DARE masks, both in points and None if not known. An expectation
    without `sampled` lambdas assumes that the score bends by at most `bend` points between two nodes.
    """

    score: float
    low: float
    high: float
    n: int
    n_unscored: int
    draws: int
    spread: float | None
    masks: float | None = None
    nodes: int = 0
    sampled: int = 0
    bend: float = 0.0

    @property
    def lines(self) -> tuple[str, ...]:
        """The words after the figure: `E` for an expectation, `E*` for one from nodes alone, and the spreads."""
        spread = "" if self.spread is None else f"sd {self.spread:.1f}" + ("" if self.nodes else f" of {self.draws}")
        masks = "" if self.masks is None else f"masks {self.masks:.1f}"
        kind = ("E" if self.sampled else "E*") if self.nodes else ""
        return tuple(filter(None, [" ".join(filter(None, [kind, spread, masks]))]))


def value(rows: pd.DataFrame) -> Value | None:
    """Reduce the draws of one row and benchmark to a figure; None where nothing is scored.

    Several draws or masks are averaged item by item, over the items that all of them have. With fewer than ten draws
    the interval is over items alone, for these very draws. From ten draws on the variance between draws counts too, and
    with several masks that between masks.
    """
    lines = distinct(rows)
    if not len(lines):
        return None
    if (known := _expectation(lines)) is not None:
        return expected(*known)
    entry = entry_of(lines)
    return value_of(entry) if entry.items else None


def value_of(entry: Entry) -> Value:
    """Return the figure of a cell that has items with a score (`value`)."""
    score = estimate(entry)
    draws = max(1, len({lam for lam, _ in entry.models}))
    return Value(
        100 * score.value, 100 * score.low, 100 * score.high, len(entry.items) + entry.unscored, entry.unscored, draws,
        spread=_between(entry, 0), masks=_between(entry, 1),
    )  # fmt: skip


def _expectation(lines: pd.DataFrame) -> tuple[Response, float] | None:
    """Return the curve and alpha of lines that stand for an expectation (`reporting.expected`)."""
    first = lines["expected"].iloc[0]
    return (first, float(lines["alpha"].iloc[0])) if isinstance(first, Response) else None


def estimate(entry: Entry) -> Estimate:
    """Return a cell's score with its interval, over the items that all of its models have."""
    ids = sorted(entry.items)
    shape = EVEN if entry.like is None else entry.like.shape(ids)
    axes = [1, *([0] if entry.drawn >= LEAST_DRAWS else [])]
    between = [spread(list(levels(entry.models, axis, ids).values()), shape) for axis in axes]
    others = [*entry.others, *(source for sources in between for source in sources)]
    return mean(aligned(entry.items, ids), shape, others=others, unscored=entry.unscored)


def entry_of(rows: pd.DataFrame) -> Entry:
    """Return the lines of one row and benchmark as an `Entry`. At least one of them must have a result."""
    lines = distinct(rows)
    if (known := _expectation(lines)) is not None:
        return expected_entry(*known)
    scored = list(lines["scored"])
    items = shared([one.values for one in scored]) or {}
    places = list(_levels(lines))
    drawn = len({lam for (lam, _), kind in zip(places, lines["kind"], strict=True) if kind == "drawn"})
    digests = frozenset(str(digest) for digest in lines["weights"] if not pd.isna(digest))
    names = {str(name) for name in lines["items_digest"] if not pd.isna(name)}
    asked = max(len(one.values) + one.unscored for one in scored)
    unscored = asked - len(items)
    here = (names.pop(), asked) if len(names) == 1 else None
    ids = list(items)
    score = 100 * float(weighted_mean(aligned(items, ids), scored[0].shape(ids))) if items else 0.0
    by_model = {place: one.values for place, one in zip(places, scored, strict=True)}
    return Entry(score, items, digests, by_model, drawn, here, unscored, scored[0])


def _between(entry: Entry, axis: int) -> float | None:
    """Return the standard deviation between the levels' scores, in points; None for a single level."""
    ids = sorted(entry.items)
    shape = EVEN if entry.like is None else entry.like.shape(ids)
    means = [100 * float(weighted_mean(values, shape)) for values in levels(entry.models, axis, ids).values()]
    return deviation(means)


def expected(response: Response, alpha: float) -> Value:
    """Return the expectation under Beta(alpha, alpha) on a curve (`expectations.expected`)."""
    curve, estimate = response.curve, expectations.expected(response, alpha)
    masks = [100 * float(weighted_mean(mask.expected(alpha), mask.shape)) for mask in response.masks]
    assumed = 100 * unsure(curve, {alpha: 1.0}).bend
    return Value(
        100 * estimate.value, 100 * estimate.low, 100 * estimate.high,
        n=len(curve.ids) + response.unscored, n_unscored=response.unscored, draws=0, nodes=len(curve.points),
        spread=100 * draw_sd(curve, alpha) if len(curve.ids) > 1 else None,
        masks=deviation(masks),
        sampled=0 if not curve.corrected(alpha) or curve.sampled is None else len(curve.sampled.points), bend=assumed,
    )  # fmt: skip


def expected_entry(response: Response, alpha: float) -> Entry:
    """Return an expectation as a cell that can be compared."""
    curve, uncertainty = response.curve, unsure(response.curve, {alpha: 1.0})
    items = expected_items(response, alpha)
    score = 100 * float(weighted_mean(curve.expected(alpha), curve.shape))
    by_mask = expected_by_mask(response, alpha) if response.mask_seeds else {}
    models: dict[tuple[float | None, float | None], Values] = {(None, seed): own for seed, own in by_mask.items()}
    like = Scored(items, response.unscored, *_named(curve))
    return Entry(
        score, items, models=models, unscored=response.unscored, like=like,
        others=uncertainty.sources, bias=uncertainty.bias, why=expectations.unclaimed(response, alpha),
    )  # fmt: skip


def _named(curve: Evaluated) -> tuple[dict[str, str], dict[str, str]]:
    """Return the strata and clusters of a curve's items by id."""
    strata, clusters = (
        {} if names is None else dict(zip(curve.ids, names, strict=True))
        for names in (curve.shape.strata, curve.shape.clusters)
    )
    return strata, clusters


def expected_items(response: Response, alpha: float) -> Values:
    return dict(zip(response.curve.ids, map(float, response.curve.expected(alpha)), strict=True))


def models(rows: pd.DataFrame) -> Models:
    """Return the item values of each model that some lines are of, by lambda (without one: the draw) and mask."""
    lines = distinct(rows)
    return {level: one.values for level, one in zip(_levels(lines), lines["scored"], strict=True)}


def _levels(lines: pd.DataFrame) -> Iterator[tuple[float | None, float | None]]:
    """Give the lambda (without one: the draw) and the mask of each line."""
    for lam, draw, mask in zip(*(lines[name] for name in ("lam", "draw", "mask_seed")), strict=True):
        yield _level(draw if pd.isna(lam) else lam), _level(mask)


def _level(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def expected_by_mask(response: Response, alpha: float) -> dict[float | None, Values]:
    """Return the expectation under each DARE mask of a curve, by seed; without DARE the one under None."""
    seeds: list[float | None] = [float(seed) for seed in response.mask_seeds] or [None]
    return {
        seed: dict(zip(mask.ids, map(float, mask.expected(alpha)), strict=True))
        for seed, mask in zip(seeds, response.masks, strict=True)
    }


def distinct(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a score, each model once."""
    scored = rows[rows["score"].notna()]
    names = zip(*(scored[name] for name in ("weights", "lam", "mask_seed")), strict=True)
    first = {tuple(None if name != name else name for name in own) for own in names}
    if len(first) == len(scored):
        return scored
    return scored[~scored[["weights", "lam", "mask_seed"]].duplicated()]  # of all columns pandas copies each
