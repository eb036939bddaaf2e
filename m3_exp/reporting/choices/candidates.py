"""Tidy frame -> what there is to choose from: for each pair and method the candidates' item scores, aligned.

hyper-parameters    of a method without M3, compared with its defaults
lambda, mixture     the nodes of a grid, compared (as all below) with the method without M3
draw                draws of lambda, each by itself: the halves of the items share a lucky draw, so a mean over a
                    few would make an alpha look better that is not, and nothing is said about alpha
alpha               the paper's seven, by their expectations on curves with sampled lambdas
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from m3_exp.reporting.choices.readable import readable
from m3_exp.reporting.comparisons.contrasts import FEW_MASKS
from m3_exp.reporting.comparisons.values import expected_by_mask
from m3_exp.reporting.curves.evaluated import LINE, Response, Values, grouped, parents_of, responses, titled
from m3_exp.reporting.curves.expectations import LEAST_MASKS, NO_SAMPLED
from m3_exp.reporting.data.dataframe import where
from m3_exp.reporting.data.params import defaults
from m3_exp.stats.choosing import Candidates, Scores, alike
from m3_exp.stats.estimate import Shape
from m3_exp.stats.expectation import ALPHAS, Evaluated
from m3_exp.stats.joint import better_of, usable
from m3_exp.stats.scored import Scored

Model = Mapping[float | None, Values]  # item values by DARE mask

_GROUP = ["family", "pair", "method", "sparsify"]

_COMPETING: Sequence[tuple[str, str, list[str]]] = (  # a column, what it says of the candidates, what else they share
    ("ratio", "plain", []),
    ("kind", "drawn", ["params", "ratio"]),
    ("kind", "node", ["params"]),
)

HYPER, DRAWS = "hyper-parameters", "draw (of each alpha)"
NO_ALPHA = "a choice among these draws, which says nothing about alpha; what it takes: sweeps=lambda_response"


@dataclass(frozen=True)
class Group:
    """One question: which of the candidates of a pair and method?

    `dev` are the same candidates on development items, on the benchmarks that have them; `rows` are the lines of the
    frame that each candidate stands for; `same` the candidates with the default's weights; `why` no difference is
    called significant, else empty.
    """

    names: Mapping[str, str]  # family, pair, method, sparsify, params (empty where they are what is chosen)
    question: str
    candidates: Candidates
    lams: Mapping[str, float] = field(default_factory=dict)
    dev: Candidates | None = None
    notes: tuple[str, ...] = ()
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)
    same: frozenset[str] = frozenset()
    why: str = ""

    @property
    def title(self) -> str:
        return titled(self.names["pair"], self.names["method"], self.names["sparsify"])


# ------------------------------------------------------------------------------------------------ frame -> questions


def groups(frame: pd.DataFrame, dev_frame: pd.DataFrame | None, parents: Mapping[str, Sequence[str]]) -> list[Group]:
    """Return every question that a frame can answer: at least two candidates with results on the same benchmarks.

    Those of which most answers hold nothing to read are no candidates (`readable.py`).
    """
    known = readable(frame, parents)
    lines, frame = grouped(responses(known.frame, parents)), known.chosen
    on_dev = None if dev_frame is None else readable(dev_frame, parents)
    dev_lines = {} if on_dev is None else {x[0].line: x for x in grouped(responses(on_dev.frame, parents))}
    dev_frame = None if on_dev is None else on_dev.chosen
    nodes_alone = {line[0].line for line in lines if not all(map(_corrected, line))}
    questions = [_group(rows, frame, dev_frame, parents, nodes_alone) for rows in _questions(frame)]
    questions += [_of_alpha(line, frame, dev_lines.get(line[0].line, ())) for line in lines]
    return [group for group in questions if group is not None]


def _corrected(response: Response) -> bool:
    """Tell whether a curve has sampled lambdas, without which nothing is said of an alpha."""
    return response.curve.corrected(ALPHAS[0])


def _questions(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Give the rows that compete: all hyper-parameters without M3; draws, or nodes, at one set of them."""
    for _, rows in frame[frame["method"] != "single"].groupby(_GROUP, sort=False):
        for column, wanted, keys in _COMPETING:
            for _, members in rows[rows[column] == wanted].groupby([*_GROUP, *keys], sort=False):
                if len(set(_spelled(members))) > 1:
                    yield members


def _question(rows: pd.DataFrame) -> str:
    if (kind := rows.iloc[0]["kind"]) == "drawn":
        return "draw" if rows["alpha"].nunique() <= 1 else DRAWS
    if kind != "node":
        return HYPER
    return "mixture" if rows.iloc[0].get("mixture") else "lambda"


def _spelled(rows: pd.DataFrame) -> list[str]:
    """Name the candidate that each row belongs to; several masks of one are one candidate."""
    kind = _question(rows)
    if kind == HYPER:
        return [str(params) for params in rows["params"]]
    if kind == DRAWS:
        return [f"alpha {alpha:g}, {at}" for alpha, at in zip(rows["alpha"], _at(rows, 3), strict=True)]
    if kind == "draw":
        shown = (f" ({at})" if at else "" for at in _at(rows, 3))
        return [f"draw {int(n)}{at}" for n, at in zip(rows["draw"], shown, strict=True)]
    return _at(rows, 6)


def _at(rows: pd.DataFrame, digits: int) -> list[str]:
    """Write where each merge lies: lambda of two experts, the mixture of more; nothing of one without shares."""
    mixtures = rows["mixture"] if "mixture" in rows else [""] * len(rows)
    return [
        mixture or ("" if pd.isna(lam) else f"lambda {lam:.{digits}g}")
        for mixture, lam in zip(mixtures, rows["lam"], strict=True)
    ]


def _group(
    rows: pd.DataFrame,
    frame: pd.DataFrame,
    dev_frame: pd.DataFrame | None,
    parents: Mapping[str, Sequence[str]],
    nodes_alone: Set[tuple[str, ...]],
) -> Group | None:
    first, question = rows.iloc[0], _question(rows)
    names = {key: str(first[key]) for key in _GROUP}
    names["params"] = "" if question == HYPER else str(first["params"])
    params = defaults().get(names["method"], "") if question == HYPER else names["params"]
    default = where(frame, **{**names, "ratio": "plain", "params": params})
    experts = parents.get(names["pair"], ())
    candidates = _candidates(rows, parents_of(frame, names["family"], experts), default)
    if candidates is None:
        return None
    notes = list(_lacking(rows, candidates))
    if question == DRAWS:
        notes.append(NO_ALPHA)
    if question in ("lambda", "mixture") and tuple(names[key] for key in LINE) in nodes_alone:
        notes.append(f"no choice of alpha: {NO_SAMPLED}")
    spelled = _spelled(rows)
    members = rows.groupby(spelled, sort=False).indices
    places = {str(name): [int(label) for label in rows.index[at]] for name, at in members.items()}
    default_weights = set(default["weights"])
    return Group(
        names, question, candidates,
        lams={name: float(lam) for name, lam in zip(spelled, rows["lam"], strict=True) if pd.notna(lam)},
        dev=None if dev_frame is None else _dev(dev_frame, rows, names, experts, candidates.names),
        notes=tuple(notes), rows=places,
        same=frozenset(n for n, at in places.items() if default_weights == set(rows.loc[at, "weights"])),
        why=_few_masks(candidates, names),
    )  # fmt: skip


def _lacking(rows: pd.DataFrame, candidates: Candidates) -> Iterator[str]:
    every = len(set(_spelled(rows)))
    if every > len(candidates.names):
        yield f"{every - len(candidates.names)} of {every} candidates lack results and are left out"


def _of_alpha(line: Sequence[Response], frame: pd.DataFrame, dev: Sequence[Response]) -> Group | None:
    """Return the choice of alpha on the benchmarks of which the curve has sampled lambdas; None without any."""
    known = {r.benchmark: _models_of(r) for r in line if _corrected(r)}
    candidates = _read(known)
    if candidates is None:
        return None
    names = dict(zip(LINE, line[0].line, strict=True))
    mine = where(frame[frame["kind"].isin(["node", "sampled"])], **names)
    without = [b for b in dict.fromkeys(mine["benchmark"]) if b not in known]
    notes = [f"alpha: not in the choice, no curve with sampled mixtures: {', '.join(without)}"] if without else []
    return Group(
        names, "alpha", candidates,
        dev=_read({r.benchmark: _models_of(r) for r in dev if _corrected(r) and r.benchmark in known}),
        notes=tuple(notes), rows={name: [int(label) for label in mine.index] for name in candidates.names},
        why=_few_masks(candidates, names),
    )  # fmt: skip


def _few_masks(candidates: Candidates, names: Mapping[str, str]) -> str:
    few = any(len(one.under) < LEAST_MASKS for one in candidates.each)
    return FEW_MASKS if few and names["sparsify"] == "dare" else ""


def _dev(
    dev_frame: pd.DataFrame, rows: pd.DataFrame, names: Mapping[str, str], experts: Sequence[str], able: Sequence[str]
) -> Candidates | None:
    """Return the candidates (`able`) on development items; None where fewer than two of them have results there."""
    same = where(dev_frame[dev_frame["ratio"].isin(set(rows["ratio"]))], **{k: v for k, v in names.items() if v})
    same = same[[name in able for name in _spelled(same)]] if len(same) else same
    own = parents_of(dev_frame, names["family"], experts)
    return _candidates(same, own, same.iloc[:0]) if len(same) else None


# ----------------------------------------------------------------------------------------------- results -> candidates


@dataclass(frozen=True)
class _Models:
    """What is known on one benchmark: candidates, default (empty: none) and parents, and how many items were asked."""

    candidates: Mapping[str, Model]
    default: Model
    parents: Mapping[str, Values]
    asked: int
    like: Scored | Evaluated  # how the items make a score; the curve of expectations


def _candidates(
    rows: pd.DataFrame, parents: Mapping[str, Mapping[str, Values]], default: pd.DataFrame
) -> Candidates | None:
    """Read the candidates that rows name, where all of a candidate's masks are scored; None with fewer than two."""
    models: dict[str, dict[str, Model]] = {}
    for (b, name), members in rows.assign(_name=_spelled(rows)).groupby(["benchmark", "_name"], sort=False):
        if bool(members["score"].notna().all()):
            models.setdefault(str(b), {})[str(name)] = _by_mask(members)
    done = rows[rows["score"].notna()]
    by_benchmark = {}
    for b, members in models.items():
        mine, plain = (x[(x["benchmark"] == b) & x["score"].notna()] for x in (done, default))
        asked = max(len(one.values) + one.unscored for one in mine["scored"])
        by_benchmark[b] = _Models(members, _by_mask(plain), parents.get(b, {}), asked, mine["scored"].iloc[0])
    return _read(by_benchmark)


def _by_mask(rows: pd.DataFrame) -> Model:
    seeds = [None if pd.isna(seed) else float(seed) for seed in rows["mask_seed"]]
    return {seed: one.values for seed, one in zip(seeds, rows["scored"], strict=True)}


def _models_of(response: Response) -> _Models:
    """Return the seven alphas' expectations on a curve."""
    candidates = {f"alpha {alpha:g}": expected_by_mask(response, alpha) for alpha in ALPHAS}
    default: Model = {float(seed): values for seed, values in response.plains.items()}
    if not response.mask_seeds and response.plain is not None:
        default = {None: response.plain}
    asked = len(response.curve.ids) + response.unscored
    return _Models(candidates, default, response.parents, asked, response.curve)


def _read(models: Mapping[str, _Models]) -> Candidates | None:
    """Align candidates, parents and default on the items that all of them scored; None with fewer than two."""
    names = list(dict.fromkeys(name for found in models.values() for name in found.candidates))
    full = [name for name in names if all(name in found.candidates for found in models.values())]
    if len(full) < 2:
        return None
    aligned = {b: _aligned(found, full) for b, found in models.items()}
    known = {b: one for b, one in aligned.items() if one is not None}
    if len(known) < len(aligned):
        return None
    return alike(full, known)


def _aligned(models: _Models, names: Sequence[str]) -> Scores | None:
    """Return one benchmark's scores under the masks that all have; None where no mask, or item, is everyone's."""
    masks = set.intersection(*(set(models.candidates[name]) for name in names))
    shared = masks & set(models.default)
    seeds = sorted(shared or masks, key=lambda seed: (seed is not None, seed))
    default = [models.default[seed] for seed in seeds] if shared else []
    tables = [[models.candidates[name][seed] for name in names] for seed in seeds]
    every = [*(values for table in tables for values in table), *default, *models.parents.values()]
    ids = sorted(set.intersection(*map(set, every))) if tables else []
    if not ids:
        return None
    like = models.like.shape(ids) if isinstance(models.like, Scored) else models.like.having(set(ids))
    shape, curve = (like, None) if isinstance(like, Shape) else (like.shape, like)
    parents = {name: np.array([values[i] for i in ids], dtype=float) for name, values in sorted(models.parents.items())}
    return Scores(
        np.array([[[values[i] for values in table] for i in ids] for table in tables], dtype=float),
        np.array([[values[i] for i in ids] for values in default], dtype=float) if default else None,
        usable(better_of(parents, ids, shape) if parents else None), shape, curve, models.asked - len(ids),
    )  # fmt: skip
