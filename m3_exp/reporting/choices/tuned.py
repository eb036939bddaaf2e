"""Is a random ratio (M3) better than a tuned one? For each pair and method, from what is evaluated.

With a curve: E[score | alpha] less the score of the best node, chosen on one half of the items and scored on the other
(`stats/choosing.py`). Without one: the mean over ten draws of lambda and more, less the method's own weights. Several
benchmarks count together as their mean, each relative to its better parent where all have one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from m3_exp.reporting.choices.relative import shared_nodes
from m3_exp.reporting.comparisons.contrasts import LEAST_DRAWS
from m3_exp.reporting.comparisons.values import models
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import LINE, Response, Values, titled
from m3_exp.reporting.curves.places import Place, named
from m3_exp.reporting.data.dataframe import by_part
from m3_exp.stats import family
from m3_exp.stats.choosing import Scores, alike, choose
from m3_exp.stats.estimate import Array, Estimate
from m3_exp.stats.expectation import unsure
from m3_exp.stats.joint import better_of, usable
from m3_exp.stats.paired import spread
from m3_exp.stats.scored import Scored

ALPHA = 0.5  # of the random ratio, where a curve knows them all
NONE = "no random ratio, M3, is evaluated"
_FEW = f"fewer than {LEAST_DRAWS} draws are evaluated"
_LOST = "draws, or the method's own weights, have no result"
_HALVINGS, _AGAIN = 200, 50


@dataclass(frozen=True)
class Difference:
    """Random less tuned for one pair and method, on some benchmarks; `relative`: in units of their better parents.

    `tuned` names the fixed ratio: the lambda that is chosen most often, or the method's own weights. `p`: adjusted for
    the pairs and methods of its frame (Holm).
    """

    name: str
    alpha: float
    tuned: str
    estimate: Estimate
    benchmarks: int
    relative: bool
    p: float = 1.0

    @property
    def sure(self) -> bool:
        return self.p < family.LIMIT


def differences(
    merged: pd.DataFrame,
    single: pd.DataFrame,
    parents: Mapping[str, Sequence[str]],
    lines: Sequence[Sequence[Response]],
) -> list[Difference] | str:
    """Return random less tuned for each pair and method that has both; else what is missing.

    Args:
        merged: the lines of merges. `single`: those of single models.
        parents: each pair's experts, as single models are called.
        lines: the curves, a pair and method at a time.
    """
    curves = {line[0].line: line for line in lines if all(response.gridded for response in line)}
    known: list[Difference] = []
    missing = NONE
    for key, rows in merged[~by_part(merged)].groupby(LINE, sort=False):
        why = NONE
        found = _on_curve(curves[key]) if key in curves else NONE
        if isinstance(found, str) and bool((rows["kind"] == "drawn").any()):
            why = found
            alone = single[(single["family"] == key[0]) & single["pair"].isin(list(parents[key[1]]))]
            found = _of_draws(rows, alone[alone["score"].notna()])
        if isinstance(found, Difference):
            known.append(found)
        else:
            missing = next(text for text in (missing, why, found) if text != NONE or text is found)
    p = family.holm([1.0 if one.estimate.p is None else one.estimate.p for one in known])
    return [replace(one, p=q) for one, q in zip(known, p, strict=True)] or missing


def _on_curve(line: Sequence[Response]) -> Difference | str:
    if why := next(filter(None, (expectations.unclaimed(response, ALPHA) for response in line)), ""):
        return why.partition(" (")[0]
    shared = shared_nodes(line)
    scores = {}
    for one in line:
        nodes = np.array([mask.on_nodes(np.array(shared)).values for mask in one.masks])
        random = np.array([mask.expected(ALPHA) for mask in one.masks])
        rest = tuple(unsure(one.curve, {ALPHA: 1.0}).sources)
        parent = usable(one.better_parent()) if len(line) > 1 else None
        scores[one.benchmark] = Scores(nodes, random, parent, one.curve.shape, unscored=one.unscored, beside=rest)
    return _difference(line[0].name, ALPHA, [_named(at, line[0].experts) for at in shared], scores)


def _named(at: Place, experts: Sequence[str]) -> str:
    """Name a node: `lambda 0.25`, `0.2 lm + 0.3 math + 0.5 code`; where it is one expert, that one."""
    if isinstance(at, tuple):
        whole = np.flatnonzero(np.array(at) == 1)
        return f"{experts[whole[0]]} alone" if len(whole) and experts else named(np.array(at), experts)
    alone = {0.0: experts[-1:], 1.0: experts[:1]}
    return ", ".join([f"lambda {at:.3g}", *(f"{name} alone" for name in alone.get(at, ()))])


def _difference(name: str, alpha: float, candidates: Sequence[str], scores: Mapping[str, Scores]) -> Difference:
    known = alike(candidates, scores)
    chosen = choose(known, "crossfit", halvings=_HALVINGS, resamples=_AGAIN)
    gain = chosen.gain
    assert gain is not None  # the random ratio is the default of each benchmark
    random = replace(gain, value=-gain.value, low=-gain.high, high=-gain.low)
    return Difference(name, alpha, chosen.name, random, len(scores), known.relative)


def _of_draws(rows: pd.DataFrame, alone: pd.DataFrame) -> Difference | str:
    """Compare the mean over an alpha's draws with the method's own weights; `alone`: lines of its single models."""
    drawn, plain = rows[(rows["kind"] == "drawn") & rows["alpha"].notna()], rows[rows["ratio"] == "plain"]
    if not len(drawn):
        return NONE
    alpha = float(drawn.groupby("alpha")["lam"].nunique().idxmax())
    drawn = drawn[drawn["alpha"] == alpha]
    if drawn["lam"].nunique() < LEAST_DRAWS:
        return _FEW
    benchmarks = list(dict.fromkeys(drawn["benchmark"]))
    scored = plain[plain["score"].notna()]
    if bool(drawn["score"].isna().any()) or not set(benchmarks) <= set(scored["benchmark"]):
        return _LOST
    parts = ([x[x["benchmark"] == b] for x in (drawn, scored, alone)] for b in benchmarks)
    found = {str(b): _scores(*own, relative=len(benchmarks) > 1) for b, own in zip(benchmarks, parts, strict=True)}
    scores = {b: one for b, one in found.items() if one is not None}
    if len(scores) < len(found):
        return _LOST
    first = rows.iloc[0]
    if first["sparsify"] != "none" and min(len(one.under) for one in scores.values()) < expectations.LEAST_MASKS:
        return expectations.FEW_MASKS.partition(" (")[0]
    name = titled(*(str(first[key]) for key in ("pair", "method", "sparsify")))
    return _difference(name, alpha, ["the method's own weights"], scores)


def _scores(drawn: pd.DataFrame, plain: pd.DataFrame, alone: pd.DataFrame, *, relative: bool) -> Scores | None:
    """Return one benchmark with the method's own weights as the one candidate, the mean over draws as the default.

    None where no mask has all draws and the method's own weights, or no item is scored by all.
    """
    mixed, own = models(drawn), models(plain)
    parents = dict(zip(alone["pair"], (one.values for one in alone["scored"]), strict=True)) if relative else {}
    ids = sorted(set.intersection(*map(set, (*mixed.values(), *own.values(), *parents.values()))))
    like: Scored = drawn["scored"].iloc[0]
    shape, asked = like.shape(ids), max(len(one.values) + one.unscored for one in drawn["scored"])

    def at(values: Values) -> Array:
        return np.array([values[key] for key in ids], dtype=float)

    lams = sorted({lam for lam, _ in mixed}, key=str)
    masks = sorted((mask for _, mask in own if all((lam, mask) in mixed for lam in lams)), key=str)
    if not masks or not ids:
        return None
    draws = np.array([[at(mixed[lam, mask]) for lam in lams] for mask in masks])
    better = better_of({name: at(values) for name, values in sorted(parents.items())}, ids, shape) if parents else None
    return Scores(
        np.array([at(own[None, mask])[:, None] for mask in masks]), draws.mean(axis=1), usable(better), shape,
        unscored=asked - len(ids), beside=tuple(spread(list(draws.mean(axis=0)), shape)),
    )  # fmt: skip
