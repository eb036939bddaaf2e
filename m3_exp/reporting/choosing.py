"""Choosing one of several candidates (alphas, lambdas, draws, hyper-parameters), and what the chosen one is worth.

    crossfit   choose on one random half of each benchmark's items, score on the other, both ways round, many halvings:
               needs no other items, and says how often each candidate is chosen
    dev        choose on development items (`items=dev`), score on all test items
    test       choose and score on the test items, as the paper did: flattered, and stamped with the price

A merged model is one model, so it is chosen for the mean over its benchmarks, each relative to the better of the
parents that are evaluated on it, where every benchmark has one. In every way of choosing an item ends up with one
number, `sum_c w_ic y_ic`, with w_ic how often candidate c is the chosen one where item i has no say in it
(one with dev and test). Scores are means of these numbers; intervals are those of one chosen candidate, over resampled
items, the choice held fixed. What one candidate gains on one benchmark is tested as in the tables (`stats.paired`).

Shapes: n items, C candidates, B resamples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m3_exp.reporting import stats
from m3_exp.reporting.curves import Values
from m3_exp.reporting.protocols import ENOUGH, Figure, Gain, around, by_items, gain, halves, resampled
from m3_exp.reporting.response import Array
from m3_exp.reporting.values import item_values

Picks = NDArray[np.int64]
How = Literal["crossfit", "dev", "test"]
HOW: tuple[How, ...] = ("crossfit", "dev", "test")

HALVINGS = 1_000
_RESAMPLES = 2_000
_GROUP = ["family", "pair", "method", "sparsify"]
# What a method is without a search: the defaults of conf/method/*.yaml, as a frame writes them.
DEFAULTS = {"task_arithmetic": "scaling 1", "ties": "retain 0.7, scaling 1"}


# An alpha of which there is one draw is one lambda: choosing it says nothing about alpha.
_ONE_EACH = "draw (one for each alpha)"
_FEW_EACH = "draw (of each alpha)"
_NO_ALPHA = "an alpha has one draw only: a draw is chosen, which says nothing about alpha (m3 response does)"


@dataclass(frozen=True)
class Candidates:
    """What there is to choose from. `values[b]` (n_b, C) are 0 to 1; `parents[b]` (n_b,) the better parent's items.

    `parents` holds all benchmarks, or none: then plain scores count.
    """

    names: tuple[str, ...]
    values: Mapping[str, Array]
    parents: Mapping[str, Array] = field(default_factory=dict)

    def objective(self, shares: Mapping[str, Array]) -> Array:
        """Return the mean over benchmarks of each candidate, (B, C); `shares[b]` (B, n_b) weigh the items."""
        return self.combined({b: shares[b] @ values for b, values in self.values.items()}, shares)

    def combined(self, scores: Mapping[str, Array], shares: Mapping[str, Array]) -> Array:
        """Return the mean over benchmarks of scores (B, ...), relative to the parents in each resample."""
        units = {b: np.maximum(shares[b] @ p, 0.5 / p.size) for b, p in self.parents.items()}
        found = [s / units[b].reshape(-1, *[1] * (s.ndim - 1)) if units else s for b, s in scores.items()]
        return np.asarray(np.mean(found, axis=0))

    def whole(self) -> dict[str, Array]:
        return {b: np.full((1, len(values)), 1 / len(values)) for b, values in self.values.items()}

    def sample(self, count: int, generator: np.random.Generator) -> dict[str, Array]:
        return {b: resampled(len(values), count, generator) for b, values in self.values.items()}

    def only(self, names: Sequence[str]) -> "Candidates":
        columns = [self.names.index(name) for name in names]
        return Candidates(tuple(names), {b: v[:, columns] for b, v in self.values.items()}, self.parents)


@dataclass(frozen=True)
class Price:
    """What choosing the best of C on the test items gains by chance: best_of(C) x se x sqrt(1 - rho)."""

    points: float
    best: float
    se: float
    rho: float

    def __str__(self) -> str:
        return f"{100 * self.points:.1f} = {self.best:.2f} x {100 * self.se:.1f} x sqrt(1 - {self.rho:.2f})"


@dataclass(frozen=True)
class Group:
    """One question: which of the candidates of a pair and method? `default` is what they are compared with, by item.

    `dev` are the same candidates on development items, on the benchmarks that have them; `rows` are the lines of the
    frame that each candidate stands for; `same` the candidates with the default's weights; `unscored` the items of each
    benchmark that are left out, since a candidate, the default or a parent has no score on them.
    """

    names: Mapping[str, str]  # family, pair, method, sparsify, params (empty where they are what is chosen)
    question: str
    candidates: Candidates
    default: Mapping[str, Array]
    lams: Mapping[str, float]
    dev: Candidates | None = None
    notes: tuple[str, ...] = ()
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)
    same: frozenset[str] = frozenset()
    unscored: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        parts = (self.names["pair"], self.names["method"], "dare" if self.names["sparsify"] == "dare" else "")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Chosen:
    """The outcome. `shares`: how often each candidate is chosen, the most frequent first (over halvings, or over
    resampled items); `claimed`: what choosing and scoring on all test items would have said.
    """

    shares: Mapping[str, float]
    score: Figure
    benchmarks: Mapping[str, Figure]
    gain: Gain | None
    gains: Mapping[str, Gain]
    claimed: float
    price: Price

    @property
    def name(self) -> str:
        return next(iter(self.shares))


# ------------------------------------------------------------------------------------------------ frame -> questions


def groups(frame: pd.DataFrame, dev_frame: pd.DataFrame | None, parents: Mapping[str, Sequence[str]]) -> list[Group]:
    """Return every question that a frame can answer: at least two candidates with results on the same benchmarks."""
    found = [_group(rows, frame, dev_frame, parents) for rows in _questions(frame)]
    return [group for group in found if group is not None]


def _questions(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Give the rows that compete: all hyper-parameters without M3; alphas (draws, nodes) at one set of them."""
    for _, rows in frame[frame["method"] != "single"].groupby(_GROUP, sort=False):
        for ratios, keys in (["plain"], []), (["mixup"], ["params"]), (["grid", "fixed"], ["params"]):
            wanted = rows[rows["ratio"].isin(ratios)]
            for _, members in wanted.groupby([*_GROUP, *keys], sort=False):
                if len(set(_spelled(members))) > 1:
                    yield members


def _question(rows: pd.DataFrame) -> str:
    ratio = rows.iloc[0]["ratio"]
    if ratio == "plain":
        return "hyper-parameters"
    if ratio == "mixup":
        draws = rows.groupby("alpha")["lam"].nunique()
        if len(draws) == 1:
            return "draw"
        if int(draws.min()) > 1:
            return "alpha"
        return _ONE_EACH if int(draws.max()) == 1 else _FEW_EACH
    return "lambda"


def _spelled(rows: pd.DataFrame) -> list[str]:
    """Name the candidate that each row belongs to; several draws (or masks) of one alpha are one candidate."""
    kind = _question(rows)
    if kind == "hyper-parameters":
        return [str(params) for params in rows["params"]]
    if kind == "alpha":
        return [f"alpha {alpha:g}" for alpha in rows["alpha"]]
    if kind in (_ONE_EACH, _FEW_EACH):
        return [f"alpha {alpha:g}, lambda {lam:.3g}" for alpha, lam in zip(rows["alpha"], rows["lam"], strict=True)]
    if kind == "draw":
        return [f"draw {int(n)} (lambda {lam:.3g})" for n, lam in zip(rows["draw"], rows["lam"], strict=True)]
    return [f"lambda {lam:.6g}" for lam in rows["lam"]]


def _group(
    rows: pd.DataFrame, frame: pd.DataFrame, dev_frame: pd.DataFrame | None, parents: Mapping[str, Sequence[str]]
) -> Group | None:
    first = rows.iloc[0]
    names = {key: str(first[key]) for key in _GROUP}
    question = _question(rows)
    names["params"] = "" if question == "hyper-parameters" else str(first["params"])
    tested = _scored(rows)
    default = _default(frame, names, question)
    read = _read(tested, _parents_of(frame, names, parents), default)
    if read is None:
        return None
    candidates, aligned = read
    notes = []
    if lacking := len(set(_spelled(rows))) - len(candidates.names):
        notes.append(f"{lacking} of {lacking + len(candidates.names)} candidates lack results and are left out")
    if question in (_ONE_EACH, _FEW_EACH):
        notes.append(_NO_ALPHA)
    dev = None if dev_frame is None else _dev(dev_frame, rows, names, parents, candidates)
    lams = {}
    if question == "lambda" or question.startswith("draw"):
        lams = dict(zip(_spelled(rows), map(float, rows["lam"]), strict=True))
    members = rows.groupby(_spelled(rows), sort=False).indices
    places = {str(name): [int(label) for label in rows.index[at]] for name, at in members.items()}
    same = frozenset(name for name, at in places.items() if _is(rows.loc[at], _default_rows(frame, names, question)))
    unscored = {b: _items(rows[rows["benchmark"] == b]) - len(values) for b, values in candidates.values.items()}
    return Group(names, question, candidates, aligned, lams, dev, tuple(notes), places, same, unscored)


def _is(rows: pd.DataFrame, default: pd.DataFrame) -> bool:
    """Whether a candidate's models are those of the default: the same weights, all of them."""
    return len(default) > 0 and set(rows["weights"]) == set(default["weights"])


def _items(rows: pd.DataFrame) -> int:
    """Return how many items some results are about, scored or not; an attacked item's versions are one item."""
    return len({key.partition("@")[0] for values in rows.loc[rows["score"].notna(), "values"] for key, _ in values})


def _scored(rows: pd.DataFrame) -> dict[str, dict[str, Values]]:
    """Return candidate -> benchmark -> item values, where all of a candidate's draws or masks are scored."""
    found: dict[str, dict[str, Values]] = {}
    marked = rows.assign(_name=_spelled(rows))
    for (name, benchmark), members in marked.groupby(["_name", "benchmark"], sort=False):
        if bool(members["score"].notna().all()) and (values := item_values(members)):
            found.setdefault(str(name), {})[str(benchmark)] = values
    return found


def _default(frame: pd.DataFrame, names: Mapping[str, str], question: str) -> dict[str, Values]:
    """Return what the default scored, by benchmark and item."""
    rows = _default_rows(frame, names, question)
    return {b: values for b, members in rows.groupby("benchmark") if (values := item_values(members))}


def _default_rows(frame: pd.DataFrame, names: Mapping[str, str], question: str) -> pd.DataFrame:
    """Return what a choice is compared with: the default hyper-parameters, or the method without M3."""
    hyper = question == "hyper-parameters"
    params = DEFAULTS.get(names["method"], "") if hyper else names["params"]
    rows = frame[(frame["ratio"] == "plain") & (frame["params"] == params)]
    for key in _GROUP:
        rows = rows[rows[key] == names[key]]
    return rows


def _parents_of(
    frame: pd.DataFrame, names: Mapping[str, str], parents: Mapping[str, Sequence[str]]
) -> dict[str, list[Values]]:
    """Return the values of the parents that are evaluated, by benchmark."""
    own = set(parents.get(names["pair"], ()))
    rows = frame[(frame["method"] == "single") & (frame["family"] == names["family"]) & frame["pair"].isin(list(own))]
    return {
        str(b): [values for _, one in members.groupby("pair") if (values := item_values(one))]
        for b, members in rows.groupby("benchmark")
    }


def _read(
    scored: Mapping[str, Mapping[str, Values]],
    parents: Mapping[str, Sequence[Values]],
    default: Mapping[str, Values],
) -> tuple[Candidates, dict[str, Array]] | None:
    """Align candidates, parents and default on the items that all of them scored; None with fewer than two."""
    benchmarks = list(dict.fromkeys(b for values in scored.values() for b in values))
    full = {name: values for name, values in scored.items() if all(b in values for b in benchmarks)}
    if len(full) < 2:
        return None
    values: dict[str, Array] = {}
    better: dict[str, Array] = {}
    against: dict[str, Array] = {}
    for b in benchmarks:
        members = [one[b] for one in full.values()]
        others = [*parents.get(b, ()), *([default[b]] if b in default else [])]
        ids = sorted(set.intersection(*(set(one) for one in (*members, *others))))
        if not ids:
            return None
        values[b] = np.array([[one[i] for one in members] for i in ids], dtype=float)
        alone = [np.array([one[i] for i in ids], dtype=float) for one in parents.get(b, ())]
        if alone and (best := max(alone, key=lambda found: float(found.sum()))).sum() >= ENOUGH:
            better[b] = best
        if b in default:
            against[b] = np.array([default[b][i] for i in ids], dtype=float)
    whole = better if len(better) == len(benchmarks) else {}
    return Candidates(tuple(full), values, whole), against if len(against) == len(benchmarks) else {}


def _dev(
    dev_frame: pd.DataFrame,
    rows: pd.DataFrame,
    names: Mapping[str, str],
    parents: Mapping[str, Sequence[str]],
    candidates: Candidates,
) -> Candidates | None:
    """Return the candidates on development items; None where fewer than two of them have results there."""
    same = dev_frame[dev_frame["ratio"].isin(set(rows["ratio"]))]
    for key in (*_GROUP, *(["params"] if names["params"] else [])):
        same = same[same[key] == names[key]]
    if not len(same):
        return None
    scored = {name: values for name, values in _scored(same).items() if name in candidates.names}
    read = _read(scored, _parents_of(dev_frame, names, parents), {})
    return None if read is None else read[0]


# ------------------------------------------------------------------------------------------------ question -> choice


def choose(group: Group, how: How, *, halvings: int = HALVINGS, resamples: int = _RESAMPLES, seed: int = 0) -> Chosen:
    """Choose one of a group's candidates and score what was chosen on the test items.

    Raises:
        ValueError: `how="dev"` where the group has no results on development items.
    """
    generator = np.random.default_rng(seed)
    candidates = group.candidates
    if how == "crossfit":
        mixes, counts = _cross_fitted(candidates, halvings, generator)
    else:
        chooser = candidates if how == "test" else group.dev
        if chooser is None:
            raise ValueError(f"{group.title} has no results on development items")
        best, counts = _best(chooser, candidates.names, resamples, generator)
        mixes = {b: np.tile(np.eye(len(candidates.names))[best], (len(v), 1)) for b, v in candidates.values.items()}
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    if how != "crossfit":
        order = [best, *(c for c in order if c != best)]
    picks = generator.choice(len(counts), size=resamples, p=counts) if how == "crossfit" else np.full(resamples, best)
    shares = {candidates.names[c]: float(counts[c]) for c in order if counts[c] > 0 or c == order[0]}
    return _outcome(group, mixes, picks, shares, generator)


def _outcome(
    group: Group, mixes: Mapping[str, Array], picks: Picks, shares: Mapping[str, float], generator: np.random.Generator
) -> Chosen:
    """Score what was chosen: each benchmark by the interval of a mean, their mean and what is paired by resampling.

    `picks` (B,) is the candidate that each resample scores, as often as it is chosen. (The item numbers themselves
    would be too sure: they average over candidates, a choice is one of them. Seen in simulation: 84 % in place of 95.)
    """
    candidates, default = group.candidates, group.default
    whole, sample = candidates.whole(), candidates.sample(len(picks), generator)
    items = {b: np.einsum("ic,ic->i", mixes[b], values) for b, values in candidates.values.items()}
    rows = np.arange(len(picks))
    now = {b: whole[b] @ one for b, one in items.items()}
    moved = {b: (sample[b] @ values)[rows, picks] for b, values in candidates.values.items()}
    value, spread = float(candidates.combined(now, whole)[0]), candidates.combined(moved, sample)
    difference, gains = None, {}
    if default:
        base, base_moved = ({b: weights[b] @ one for b, one in default.items()} for weights in (whole, sample))
        difference = gain(
            value - float(candidates.combined(base, whole)[0]), spread - candidates.combined(base_moved, sample)
        )
        gains = {b: gain(float((now[b] - base[b])[0]), moved[b] - base_moved[b]) for b in items}
        one_model = bool((picks == picks[0]).all())
        for b, one in default.items():
            if one_model or not np.abs(items[b] - one).any():
                gains[b] = by_items(items[b] - one, gains[b])
        if len(gains) == 1 and one_model:
            difference = _only(candidates, difference, next(iter(gains.values())))
    return Chosen(
        shares=shares,
        score=around(value, spread),
        benchmarks={b: _mean(one, certain=bool((picks == picks[0]).all())) for b, one in items.items()},
        gain=difference,
        gains=gains,
        claimed=float(candidates.objective(whole)[0].max()),
        price=price(candidates),
    )


def _only(candidates: Candidates, resampled_: Gain, exact: Gain) -> Gain:
    """Return the mean's gain where it is over one benchmark: that benchmark's, in units of its better parent.

    What the parent's own score adds is in the resampled interval: the wider of both counts.
    """
    if not candidates.parents:
        return exact
    unit = float(next(iter(candidates.parents.values())).mean())
    low, high = min(exact.low / unit, resampled_.low), max(exact.high / unit, resampled_.high)
    return Gain(resampled_.value, low, high, exact.p)


def _mean(items: Array, *, certain: bool) -> Figure:
    """Return a mean of item numbers with its interval: of numbers that average over candidates, Wilson's for verdicts
    with that mean.
    """
    mean = float(items.mean())
    if certain:
        return Figure(mean, *stats.mean_interval(items))
    return Figure(mean, *stats.wilson(mean, len(items)))


def _cross_fitted(
    candidates: Candidates, halvings: int, generator: np.random.Generator
) -> tuple[dict[str, Array], Array]:
    """Return w (n, C) for each benchmark, and how often each candidate is chosen (C,), over halvings and directions."""
    sizes = [len(values) for values in candidates.values.values()]
    halved = [dict(zip(candidates.values, half, strict=True)) for half in halves(sizes, halvings, generator)]
    count = len(candidates.names)
    picked = [np.eye(count)[np.argmax(candidates.objective(half), axis=1)] for half in halved]
    mixes = {
        b: ((halved[0][b] > 0).T @ picked[1] + (halved[1][b] > 0).T @ picked[0]) / halvings for b in candidates.values
    }
    return mixes, np.asarray((picked[0] + picked[1]).mean(axis=0) / 2)


def _best(
    chooser: Candidates, names: Sequence[str], resamples: int, generator: np.random.Generator
) -> tuple[int, Array]:
    """Return which of `names` is the best on the chooser's items, and how often each is over resampled ones."""
    at = [names.index(name) for name in chooser.names]
    best = at[int(np.argmax(chooser.objective(chooser.whole())[0]))]
    again = np.argmax(chooser.objective(chooser.sample(resamples, generator)), axis=1)
    counts = np.zeros(len(names))
    np.add.at(counts, [at[c] for c in again], 1 / resamples)
    return best, counts


def price(candidates: Candidates) -> Price:
    """Return what picking the best candidate on the test items gains by chance alone, in the objective's unit.

    For one benchmark this is `stats.selection_price`; for several, the candidates' covariance is that of the mean over
    benchmarks, the parents' scores taken as they are.
    """
    count = len(candidates.names)
    covariance = np.zeros((count, count))
    for b, values in candidates.values.items():
        unit = float(candidates.parents[b].mean()) if candidates.parents else 1.0
        weight = len(candidates.values) * unit
        covariance += np.cov(values, rowvar=False) / (len(values) * weight**2) if len(values) > 1 else 0.0
    own = float(np.mean(np.diag(covariance)))
    shared = float((covariance.sum() - np.trace(covariance)) / (count * (count - 1)))
    best = stats.best_of(count)
    rho = shared / own if own > 0 else 1.0
    return Price(best * math.sqrt(max(0.0, own - shared)), best, math.sqrt(own), rho)
