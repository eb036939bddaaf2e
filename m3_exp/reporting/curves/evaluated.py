"""Tidy frame -> response curves: what a pair and method scored along lambda, benchmark by benchmark.

A curve's items are those scored at every node and under every mask; how many are left out is counted. With DARE there
is one curve for each mask seed. The curve that is shown is their mean; the variance between masks is a source of its
own. If a planned node has no result there is no curve (`refused`): interpolating over the gap would be a guess. So it
would be between the nodes of a method that is not affine in the weights, unless sampled lambdas correct it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import pandas as pd

from m3_exp.reporting.curves.places import Place, free, in_order, is_expert, places, said, whole
from m3_exp.stats.estimate import Array
from m3_exp.stats.expectation import Evaluated, Sampled, place
from m3_exp.stats.fitted import Fitted
from m3_exp.stats.joint import Better, better_of
from m3_exp.stats.lambdas import Curve
from m3_exp.stats.scored import ItemArray, Scored, aligned, in_common
from m3_exp.stats.simplex import Surface
from m3_exp.stats.unread import Unread

Values = Mapping[str, float]
C = TypeVar("C", bound=Evaluated)

LINE = ["family", "pair", "method", "params", "sparsify"]


@dataclass(frozen=True)
class Draw:
    """One evaluated draw with its scores by item; `mask_seeds`: the DARE masks that these are a mean over.

    `lam` is the lambda of two experts; of more it is NaN, and `shares` are theirs.
    """

    alpha: float
    number: int
    lam: float
    values: Values
    mask_seeds: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def at(self) -> float | Array:
        """Where it lies on a curve or surface."""
        return np.array(self.shares) if self.shares else self.lam


@dataclass(frozen=True, eq=False)  # hashed by what it is: `expectations` computes a family once in a process
class Response:
    """A pair and method on one benchmark. `parents` are the pair's experts alone (all of them, or none), `plain` the
    method's own default.

    `curve` goes along lambda for two experts, and over the simplex for more. It is the mean of `masks`, one for each of
    `mask_seeds`; without DARE there is one, and no seed. `plains`: the default under each mask. `unscored` items are
    left out of the curve, since some model has no score on them.
    """

    family: str
    pair: str
    method: str
    params: str
    sparsify: str
    benchmark: str
    metric: str
    curve: Evaluated
    masks: tuple[Evaluated, ...]
    plain: Values | None = None
    parents: Mapping[str, Values] = field(default_factory=dict)
    draws: tuple[Draw, ...] = ()
    mask_seeds: tuple[int, ...] = ()
    experts: tuple[str, ...] = ()  # the pair's, in its order, evaluated on this benchmark or not
    plains: Mapping[int, Values] = field(default_factory=dict)
    unscored: int = 0
    notes: tuple[str, ...] = ()  # what is missing from it
    unread: tuple[tuple[str, Unread], ...] = ()  # what it goes through of which most answers hold nothing to read
    silent: bool = False  # both ends are such cells: nothing is advised from it (choices/readable.py)

    @property
    def line(self) -> tuple[str, ...]:
        """What the benchmarks of one pair and method share."""
        return tuple(getattr(self, key) for key in LINE)

    @property
    def name(self) -> str:
        return titled(self.pair, self.method, self.sparsify)

    @property
    def gridded(self) -> bool:
        """Whether a grid was evaluated: ends and middle alone may be other cells' (the experts, average's plain)."""
        if (along := self.along) is None:
            return len(self.curve.points) > 3  # the corners of three experts are the experts
        return {0.0, 0.25, 0.5, 0.75, 1.0} <= set(map(float, along.lams))

    @property
    def along(self) -> Curve | None:
        """The curve along lambda; None of three experts and more."""
        return self.curve if isinstance(self.curve, Curve) else None

    def holds(self, rows: pd.DataFrame) -> list[bool]:
        """Tell which lines of a frame lie at nodes of the curve."""
        nodes = set(map(place, self.curve.points))
        return [at in nodes for at in places(rows)]

    @property
    def lacking(self) -> tuple[str, ...]:
        """The experts that are not evaluated on this benchmark: in Table 1 those of other skills."""
        return tuple(name for name in self.experts if name not in self.parents)

    @property
    def merges(self) -> str:
        """Say what the curve goes through, as in `9 nodes + 16 sampled`."""
        sampled = self.curve.sampled
        return f"{len(self.curve.points)} nodes" + (f" + {len(sampled.points)} sampled" if sampled is not None else "")

    def better_parent(self) -> Better | None:
        """Return the parent that scores higher, with its item values on the curve's items.

        None unless those that are evaluated have all of the items. Were one parent unscored on an item and left out,
        the better parent could silently be the worse one. An expert that is not evaluated on the benchmark at all is in
        `lacking`, to be named.
        """
        aligned = {name: aligned_to(values, self.curve.ids) for name, values in sorted(self.parents.items())}
        known = {name: values for name, values in aligned.items() if values is not None}
        if not known or len(known) < len(aligned):
            return None
        return better_of(known, self.curve.ids, self.curve.shape)


def titled(*parts: str) -> str:
    """Return pair, method, parameters and sparsifier as one name, without those that there are none of."""
    return " ".join(part for part in parts if part not in ("", "none"))


def aligned_to(values: Values, ids: Sequence[str]) -> Array | None:
    """Return values in the order of `ids`, or None where one is missing."""
    try:
        return aligned(values, ids)
    except KeyError:
        return None


def stacked(models: Sequence[Values], ids: Sequence[str]) -> Array:
    """Return the values of several models in the order of `ids`, (models, n)."""
    return np.array([aligned(values, ids) for values in models], dtype=float).reshape(len(models), len(ids))


def responses(frame: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> list[Response]:
    """Return every curve that a frame holds: a pair and method with all planned nodes, 0 and 1 among them.

    `parents` names each pair's experts, as the frame's singles are called.
    """
    done = frame[frame["score"].notna()]
    curves: list[Response] = []
    for key, rows in _lines(frame):
        if not _missing(rows) and (nodes := _nodes(rows)) and not _unfit(rows, nodes):
            curves.append(_response(key, rows, nodes, done, parents))
    return curves


@dataclass(frozen=True)
class Refused:
    """A curve that cannot be drawn: some of the `planned` nodes have no result, or `why` says what forbids it."""

    name: str  # of its pair and method
    benchmark: str
    missing: tuple[Place, ...]
    planned: int
    why: str = ""

    def __str__(self) -> str:
        if self.why:
            return f"{self.name} {self.benchmark}: no expectation, {self.why}"
        return (
            f"{self.name} {self.benchmark}: no expectation, {len(self.missing)} of {self.planned} nodes without a"
            f" result ({self.where})"
        )

    @property
    def where(self) -> str:
        """The nodes without a result, in words."""
        of_two = not isinstance(self.missing[0], tuple)
        more = f" and {len(self.missing) - 4} more" if not of_two and len(self.missing) > 4 else ""
        shown = self.missing[:4] if more else self.missing
        return f"{'lambda' if of_two else 'shares'} {', '.join(map(said, shown))}{more}"


UNCORRECTED = (
    "the nodes of four experts and more say nothing of what lies between them: all of ratio.sampled=16 are needed"
)
NOT_AFFINE = (
    "the nodes of a method that is not affine in the weights say nothing of what lies between them: all of "
    "ratio.sampled=16 are needed"
)


def unread_cells(frame: pd.DataFrame) -> list[tuple[str, Unread]]:
    """Return the cells of which most answers hold nothing to read, each once, by the first of their labels."""
    lines = frame[frame["unread"].notna()].drop_duplicates("cell")
    return list(zip(lines["label"], lines["unread"], strict=True))


def refused(frame: pd.DataFrame) -> list[Refused]:
    """Return the curves that cannot be drawn: some of their planned nodes have a result, others have none."""
    missing_curves = []
    for (_, pair, method, params, sparsify, benchmark), rows in _lines(frame):
        grid = rows[rows["ratio"] == "grid"]
        begun = any(not free(at) for at in places(grid[grid["score"].notna()]))
        missing = _missing(rows)
        why = "" if missing else _unfit(rows, _nodes(rows))
        if begun and (missing or why):
            name = titled(pair, method, params, sparsify)
            missing_curves.append(Refused(name, benchmark, tuple(missing), len(set(places(grid))), why))
    return missing_curves


def unfinished(curves: Sequence[Refused]) -> str:
    """Say in short what curves lack, as in `4 of 9 nodes of lm_math average have no result on 3 benchmarks`."""
    forbidden = [one for one in curves if one.why]
    if forbidden:
        return "; ".join(dict.fromkeys(f"{' '.join(one.name.split(' ')[:2])}: {one.why}" for one in forbidden))
    lacking: dict[str, dict[str, dict[str, None]]] = {}  # how many nodes -> pair -> methods
    for one in curves:
        few = f" ({one.where})" if 0 < len(one.missing) < 3 else ""
        pair, method = one.name.split(" ")[:2]
        lacking.setdefault(f"{len(one.missing)} of {one.planned} nodes{few}", {}).setdefault(pair, {})[method] = None
    named = (
        (count, (f"{pair} {' and '.join(own)}" for pair, own in pairs.items())) for count, pairs in lacking.items()
    )
    parts = [f"{count} of {', '.join(names)}" for count, names in named]
    benchmarks = list(dict.fromkeys(one.benchmark for one in curves))
    on = f"{len(benchmarks)} benchmarks" if len(benchmarks) > 2 else " and ".join(benchmarks)
    return f"{'; '.join(parts)} have no result on {on}"


def _lines(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    merged = frame[frame["method"] != "single"]
    for key, rows in merged.groupby([*LINE, "benchmark"], sort=False):
        yield tuple(map(str, key)), rows


def _missing(rows: pd.DataFrame) -> list[Place]:
    """Return the planned nodes of a grid that have no result under some mask."""
    return in_order(set(places(rows[(rows["ratio"] == "grid") & rows["score"].isna()])))


@dataclass(frozen=True)
class _Mask:
    """What one mask (or the merge without DARE) scored, by place: at nodes, and at sampled points where all are
    there.
    """

    nodes: Mapping[Place, Values]
    sampled: Mapping[Place, Values]


def _nodes(rows: pd.DataFrame) -> dict[int | None, _Mask]:
    """Return each mask seed (None without DARE) that has nodes for a curve or surface."""
    by_mask: dict[int | None, _Mask] = {}
    for seed, members in rows.groupby("mask_seed", dropna=False, sort=True):
        nodes = _by_place(members[(members["kind"] == "node") & members["score"].notna()])
        sampled = members[members["kind"] == "sampled"]
        every = len(sampled) >= 4 and bool(sampled["score"].notna().all())
        if kept := whole(nodes):
            own = {at: nodes[at] for at in kept}
            by_mask[None if pd.isna(seed) else int(seed)] = _Mask(own, _by_place(sampled) if every else {})
    return by_mask


def _by_place(rows: pd.DataFrame) -> dict[Place, Values]:
    return {at: one.values for at, one in zip(places(rows), rows["scored"], strict=True)}


def _unfit(rows: pd.DataFrame, masks: Mapping[int | None, _Mask]) -> str:
    """Say why nothing may be interpolated between nodes that no sampled points correct; "" where it may."""
    alone = [at for mask in masks.values() if not mask.sampled for at in mask.nodes]
    if any(isinstance(at, tuple) and len(at) > 3 for at in alone):
        return UNCORRECTED
    return NOT_AFFINE if alone and rows["affine"].eq(False).any() else ""


def _response(
    key: tuple[str, ...],
    rows: pd.DataFrame,
    masks: Mapping[int | None, _Mask],
    done: pd.DataFrame,
    parents: Mapping[str, Sequence[str]],
) -> Response:
    family, pair, method, params, sparsify, benchmark = key
    experts = tuple(parents.get(pair, ()))
    mine = rows[rows["score"].notna()]
    curves = _shared(list(masks.values()), mine["scored"].iloc[0])
    seeds = tuple(seed for seed in masks if seed is not None)
    plain = mine[mine["ratio"] == "plain"]
    if seeds:
        plain = plain[plain["mask_seed"].isin(seeds)]  # masks that the curve has
    plains = {seed: found.values for seed, found in zip(plain["mask_seed"], plain["scored"], strict=True)}
    kept = curves[0].ids
    lines = mine[mine["kind"].isin(["node", "sampled"])]
    return Response(
        family, pair, method, params, sparsify, benchmark,
        metric=str(mine["metric"].iloc[0]), curve=averaged(curves), masks=tuple(curves),
        plain=shared(list(plains.values())), parents=parents_of(done, family, experts).get(benchmark, {}),
        draws=tuple(_draws(mine)), mask_seeds=seeds, experts=experts,
        plains={int(seed): found for seed, found in plains.items() if not pd.isna(seed)},
        unscored=max(len(one.values) + one.unscored for one in lines["scored"]) - len(kept),
        notes=tuple(_noted(rows, masks)), unread=tuple(unread_cells(lines)),
        silent=bool(lines.loc[[is_expert(at) for at in places(lines)], "unread"].notna().all()),
    )  # fmt: skip


def parents_of(frame: pd.DataFrame, family: str, experts: Sequence[str]) -> dict[str, dict[str, Values]]:
    """Return the values of the experts that are evaluated alone, by benchmark and name."""
    rows = frame[(frame["method"] == "single") & (frame["family"] == family) & frame["score"].notna()]
    parents: dict[str, dict[str, Values]] = {}
    for b, name, one in zip(rows["benchmark"], rows["pair"], rows["scored"], strict=True):
        if name in experts:
            parents.setdefault(str(b), {})[str(name)] = one.values
    return parents


def _noted(rows: pd.DataFrame, masks: Mapping[int | None, _Mask]) -> Iterator[str]:
    """Say that a curve has no sampled lambdas because some of them have no result."""
    sampled = rows[rows["kind"] == "sampled"]
    lacking = int(sampled["score"].isna().sum())
    if lacking and any(not mask.sampled for mask in masks.values()):
        what = "lambdas" if sampled["lam"].notna().all() else "mixtures"
        yield f"{lacking} of {len(sampled)} sampled {what} have no result: the others are not used"


def averaged(curves: Sequence[C]) -> C:
    """Return the item-wise mean of curves (one a mask) that have the same items, nodes and sampled lambdas."""
    first = curves[0]
    sampled = [curve.sampled for curve in curves]
    known = [one for one in sampled if one is not None]
    values = np.mean([one.values for one in known], axis=0) if len(known) == len(curves) else None
    mean = None if values is None else Sampled(known[0].points, values)
    return replace(first, values=np.mean([curve.values for curve in curves], axis=0), sampled=mean)


def _shared(masks: Sequence[_Mask], like: Scored) -> list[Evaluated]:
    """Return a curve (or surface) a mask, all on the nodes, sampled points and items that every mask has."""
    nodes = whole(set.intersection(*(set(mask.nodes) for mask in masks)))
    drawn = in_order(set.intersection(*(set(mask.sampled) for mask in masks)))
    every = [
        values for mask in masks for values in (*(mask.nodes[x] for x in nodes), *(mask.sampled[x] for x in drawn))
    ]
    ids = in_common(every)

    def table(by_place: Mapping[Place, Values], at: Sequence[Place]) -> Array:
        return np.ascontiguousarray(stacked([by_place[one] for one in at], ids).T)

    experts = len(nodes[0]) if isinstance(nodes[0], tuple) else 2
    made: type[Evaluated] = Curve if experts == 2 else Surface if experts == 3 else Fitted

    return [
        made(
            tuple(ids), np.array(nodes), table(mask.nodes, nodes),
            Sampled(np.array(drawn), table(mask.sampled, drawn)) if drawn else None, like.shape(ids),
        )
        for mask in masks
    ]  # fmt: skip


def grouped(responses: Sequence[Response]) -> list[list[Response]]:
    """Return the benchmarks of each pair and method together, in the order they were found."""
    groups: dict[tuple[str, ...], list[Response]] = {}
    for response in responses:
        groups.setdefault(response.line, []).append(response)
    return list(groups.values())


def development(curves: Sequence[Response], of: Sequence[Response]) -> dict[str, Response]:
    """Return, by benchmark, the curves on development items (`curves`) of the pair and method that `of` shows."""
    wanted = {(*response.line, response.benchmark) for response in of}
    return {response.benchmark: response for response in curves if (*response.line, response.benchmark) in wanted}


def shared(models: Sequence[Values]) -> Values | None:
    """Return the item-wise mean of several models' values over the items that all have; None without a model."""
    if not models:
        return None
    ids = in_common(models)
    if len(models) == 1:
        return ItemArray(tuple(ids), aligned(models[0], ids))
    return ItemArray(tuple(ids), np.ascontiguousarray(stacked(models, ids).T).mean(axis=1))  # each item's own sum


def _draws(rows: pd.DataFrame) -> Iterator[Draw]:
    mixed = rows[rows["ratio"] == "mixup"]
    found: dict[tuple[float, int, tuple[float, ...]], list[tuple[float, Values]]] = {}
    columns = (mixed[name] for name in ("alpha", "draw", "mask_seed", "scored"))
    for alpha, number, seed, one, at in zip(*columns, places(mixed), strict=True):
        where = at if isinstance(at, tuple) else (at,)
        if not any(map(pd.isna, (alpha, number, *where))):
            found.setdefault((float(alpha), int(number), where), []).append((seed, one.values))
    for (alpha, number, where), members in sorted(found.items(), key=lambda item: item[0]):
        models = [values for _, values in members]
        values = models[0] if len(models) == 1 else shared(models)
        assert values is not None
        masks = tuple(sorted({int(seed) for seed, _ in members if not pd.isna(seed)}))
        lam, shares = (where[0], ()) if len(where) == 1 else (float("nan"), where)
        yield Draw(alpha, number, lam, values, masks, shares)
