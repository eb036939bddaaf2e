"""The paper's tables from the store: rows, intervals, published numbers beside ours, and how to rebuild each row.

A row is method x pair x with/without M3 x with/without DARE. An M3 row is the expectation at its alpha where there is a
response curve, else the mean over its lambda draws (and DARE masks); its interval is over items, and the spread between
draws stands beside it. Every M3 row is contrasted with the same row without M3. Percent throughout.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from m3_exp.benchmarks import in_order
from m3_exp.merging import ratio
from m3_exp.reporting.comparisons import contrasts
from m3_exp.reporting.comparisons.contrasts import Compared, Entry, Place
from m3_exp.reporting.curves.evaluated import LINE, Response, refused
from m3_exp.reporting.data.dataframe import has_parts
from m3_exp.reporting.data.published import NOTES
from m3_exp.reporting.table import Column, Mark, Table, named_columns
from m3_exp.reporting.tables.footers import briefly, footer, rebuild
from m3_exp.reporting.tables.rows import KEYS, Row, Shown, at_shares, reference, shares_heading, without_m3
from m3_exp.stats.expectation import ALPHAS
from m3_exp.types import Json

_TITLE = 110  # characters

_METHODS = ["single", "average", "task_arithmetic", "ties"]
_BRIEFLY_PICKED = "Not picked by score."
_NOTHING_PICKED = (
    "Nothing is picked by score: each row shows what its sweep names, and alpha, lambda and parameters are those asked"
    " for."
)


def build(name: str, given: Shown) -> Table:
    """Make a table of a tidy frame."""
    frame, behind = given.frame, given.behind
    rows = rows_of(given)
    benchmarks = in_order(frame["benchmark"].unique())
    marked = _marked(rows, given)
    compared, weights = marked.compared, marked.weights
    beside = [note for row in rows for b in benchmarks if b in row.beside for note in row.beside[b].number.notes]
    shown = _without_draws(frame, rows, given.every)
    notes = [
        *about(rows, "" if behind is None else given.shows_curves),
        *marked.notes,
        _NOTHING_PICKED,
        *few_draws_of(rows, given.runs_curves),
        *one_sided(shown, given.experts),
        *(f"{text}." for text in refused(frame if behind is None else behind)),
        *([*(NOTES[note] for note in dict.fromkeys(beside)), NOTES["lambda"]] if given.published is not None else []),
    ]
    return Table(
        name,
        (*_names(frame), *(_column(frame, b, rows) for b in benchmarks)),
        tuple(
            (
                *row.names,
                *(
                    row.cell(b, compared.get((i, j)), _mark((i, j), compared, weights))
                    for j, b in enumerate(benchmarks)
                ),
            )
            for i, row in enumerate(rows)
        ),
        (*footer(shown, notes, used(rows, behind)), rebuild(shown)),
        (f"{briefly(frame)} {_BRIEFLY_PICKED}", *briefly_about(rows), *marked.brief),
    )


def _names(frame: pd.DataFrame) -> tuple[Column, ...]:
    return named_columns(["method", "models", "M3", "DARE", "alpha", shares_heading(frame)])


# ---------------------------------------------------------------------------------------------------------- rows


def rows_of(given: Shown) -> list[Row]:
    """Return the rows of a frame in the order in which they are shown."""
    frame = given.frame
    benchmarks = in_order(frame["benchmark"].unique())
    curves = {(*r.line, r.benchmark): r for r in given.responses if r.gridded}
    grids = frame if given.behind is None else given.behind
    nodes = dict(iter(grids[grids["ratio"] == "grid"].groupby([*LINE, "benchmark"], sort=False))) if curves else {}
    lines = _with_expectations(frame, curves, given)
    masks = {key: int(found["mask_seed"].nunique()) for key, found in frame.groupby(LINE, sort=False)}
    sizes = {b: _usual(lines, curves, b) for b in benchmarks}
    rows = [Row(group, benchmarks, curves, nodes, sizes, given.published) for group in _groups(lines, given.every)]
    return [replace(row, masks=masks.get(row.line, 0)) for row in rows]


def _groups(lines: pd.DataFrame, every: bool) -> list[pd.DataFrame]:
    """Split into rows, in the order planned; fixed and grid lambdas are rows of their own."""
    if not len(lines):
        return []
    keys = ["family", *KEYS, *(["draw", "lam", "mask_seed"] if every else []), "_lam", "_mixture"]
    marked = at_shares(lines, ("node", "sampled"))
    groups = [group for _, group in marked.groupby(keys, sort=False, dropna=False)]
    pairs = list(dict.fromkeys(lines["pair"]))
    return sorted(groups, key=lambda group: _rank(group.iloc[0], pairs))


def _rank(line: "pd.Series[Any]", pairs: Sequence[str]) -> tuple[Any, ...]:
    """The paper's order: single models, then method, pair, DARE, and M3 after the same row without it.

    Among M3 rows, lambdas that were asked for come first, then alphas; the expectation comes before single draws.
    """
    method = _METHODS.index(line["method"]) if line["method"] in _METHODS else len(_METHODS)
    rank = {"plain": 0, "mixup": 2}.get(str(line["ratio"]), 1)
    lam = 0.0 if pd.isna(line["_lam"]) else line["_lam"]
    alpha = 0.0 if pd.isna(line["alpha"]) else line["alpha"]
    place = (pairs.index(line["pair"]), line["params"], line["sparsify"] != "none", line["sparsify"])
    return (method, line["method"], *place, rank, lam, alpha, line["state"] != "expected")


def _usual(lines: pd.DataFrame, curves: Mapping[tuple[str, ...], Response], benchmark: str) -> int | None:
    """Return the number of items that most cells of a benchmark have. Cells with another number show theirs."""
    known = Counter(int(n) for n in lines.loc[lines["benchmark"] == benchmark, "n"].dropna())
    known.update(len(r.curve.ids) + r.unscored for key, r in curves.items() if key[-1] == benchmark)
    return max(known, key=lambda n: (known[n], n)) if known else None


def _column(frame: pd.DataFrame, benchmark: str, rows: Sequence[Row]) -> Column:
    size = rows[0].sizes[benchmark]
    metrics = sorted(set(frame.loc[frame["benchmark"] == benchmark, "metric"].dropna()) - {""})
    return Column(benchmark, (*metrics, *([f"n={size}"] if size else [])), benchmark)


# -------------------------------------------------------------------------------------------------------- curves


def _with_expectations(frame: pd.DataFrame, curves: Mapping[tuple[str, ...], Response], given: Shown) -> pd.DataFrame:
    """Add a line for each expectation on a curve; leave out the draws and nodes that it replaces, if not asked for."""
    known = {key[:-1] for key in curves}
    kept: list[Any] = []
    added: list[Any] = []
    for line, rows in frame.groupby(LINE, sort=False):
        lines = rows.to_dict("records")
        if line in known and rows["method"].iloc[0] != "single":
            added += _expectations(line, rows, curves)
            lines = [x for x in lines if given.every or not _stood_in(x, curves) or (given.nodes and _on_curve(x))]
        kept += [x for x in lines if given.every or given.nodes or x["kind"] != "sampled"]
    return pd.DataFrame([*kept, *added], columns=frame.columns)


def _stood_in(line: Mapping[Any, Any], curves: Mapping[tuple[str, ...], Response]) -> bool:
    """Tell whether a line is replaced by an expectation: a node of a curve's grid, or a draw on its benchmark."""
    return _on_curve(line) or (line["ratio"] == "mixup" and (*(line[key] for key in LINE), line["benchmark"]) in curves)


def _on_curve(line: Mapping[Any, Any]) -> bool:
    return line["ratio"] in ("grid", "sampled")


def _expectations(
    line: tuple[str, ...], rows: pd.DataFrame, curves: Mapping[tuple[str, ...], Response]
) -> Iterator[Json]:
    """Give a line for each alpha and benchmark: those drawn, and the paper's where there is a grid."""
    gridded = bool((rows["ratio"] == "grid").any())
    alphas = sorted({*rows["alpha"].dropna().astype(float), *(ALPHAS if gridded else ())})
    names = ("merge", "metric", "evaluator", "tokenizer", "engine")
    for benchmark, members in rows[rows["ratio"] != "plain"].groupby("benchmark", sort=False):
        known = (*line, benchmark) in curves
        failed = None if known else next(iter(members["failure"].dropna()), None)
        if known or gridded:
            fixed = dict(zip(LINE, line, strict=True)) | {key: members[key].iloc[0] for key in names}
            state = "expected" if known else "no curve"
            for alpha in alphas:
                yield {**fixed, "ratio": "mixup", "kind": "drawn", "alpha": alpha, "benchmark": benchmark,
                       "state": state, "point": (), "mixture": "", "failure": failed}  # fmt: skip


# --------------------------------------------------------------------------------------------------------- marks


@dataclass(frozen=True)
class _Marked:
    """Each M3 cell's comparison, the cells with weight, and what is said of both: in full and in brief."""

    compared: Mapping[Place, Compared]
    weights: Mapping[Place, Mark]
    notes: Sequence[str]
    brief: Sequence[str]


def _marked(rows: Sequence[Row], given: Shown) -> _Marked:
    entries = entries_of(rows)
    columns: dict[tuple[str, str, int], dict[Place, Entry]] = {}
    for (i, j), entry in entries.items():
        if rows[i].first["method"] != "single":
            columns.setdefault((rows[i].line[0], rows[i].line[1], j), {})[i, j] = entry
    if given.marks == "paper":
        first, second = contrasts.ranked(list(columns.values()))
        weights = {place: Mark(weight="bold") for place in first} | {p: Mark(weight="underline") for p in second}
        return _Marked({}, weights, [contrasts.BY_SCORE], [contrasts.BRIEFLY_BY_SCORE])
    compared = against(rows, entries, given.against) if given.against else against_plain(rows, entries)
    best = contrasts.best(list(columns.values()))
    bold = {place: Mark(weight="bold") for place in best.places}
    return _Marked(compared, bold, contrasts.words(compared, best), contrasts.brief(compared, best))


def entries_of(rows: Sequence[Row]) -> dict[Place, Entry]:
    """Return every cell that can be compared, by the numbers of its row and benchmark."""
    cells = (((i, j), row.entries[b]) for i, row in enumerate(rows) for j, b in enumerate(row.benchmarks))
    return {place: entry for place, entry in cells if entry is not None}


def against_plain(rows: Sequence[Row], entries: Mapping[Place, Entry]) -> dict[Place, Compared]:
    """Compare each M3 cell with that of the same row without M3, by the numbers of its row and benchmark."""
    at = without_m3(rows)
    pairs = {(i, j): (entry, entries[at[i], j]) for (i, j), entry in entries.items() if (at.get(i, -1), j) in entries}
    own = {(i, j): rows[i].against_plain(rows[i].benchmarks[j]) for i, j in entries}
    return contrasts.against(pairs, {place: compared for place, compared in own.items() if compared is not None})


def against(rows: Sequence[Row], entries: Mapping[Place, Entry], name: str) -> dict[Place, Compared]:
    """Compare each cell with that of a method's row, or an expert's, by the numbers of its row and benchmark."""
    at = reference(rows, name)
    pairs = {(i, j): (entry, entries[at[i], j]) for (i, j), entry in entries.items() if (at.get(i, -1), j) in entries}
    return contrasts.against(pairs, {}, than=name)


def _mark(place: Place, compared: Mapping[Place, Compared], weights: Mapping[Place, Mark]) -> Mark:
    mark, comparison = weights.get(place, Mark()), compared.get(place)
    return mark if comparison is None else replace(mark, sign=comparison.sign, title=str(comparison))


# --------------------------------------------------------------------------------------------------------- notes


def about(rows: Sequence[Row], elsewhere: str) -> list[str]:
    """Say what an expectation is, and what it assumes where no sampled lambdas correct it.

    `elsewhere`: the line that shows the curves, where they are of another frame.
    """
    values = [value for row in rows for value in row.values.values() if value is not None and value.nodes]
    if not values:
        return []
    where = f" What was evaluated there, and how to rebuild it: {elsewhere}." if elsewhere else ""
    over, points, draws = _random(rows)
    lines = [
        f"E: the expectation over {over}, over items like these; the interval holds items, which"
        f" {points} were sampled, and DARE masks where there are several. sd: between {draws}, without the items'"
        f" noise (masks: between DARE masks).{where}"
    ]
    bends = [value.bend for value in values if not value.sampled]
    if bends and points != "lambdas":
        lines.append(
            "E*: from the nodes alone. Its interval assumes that the score bends away from a plane between three nodes"
            f" by no more than they show themselves (up to {max(bends):.1f} points here). No sign is given;"
            " ratio.sampled=16 adds the merges that correct it."
        )
    elif bends:
        lines.append(
            "E*: from the nodes alone. Its interval assumes that the score bends away from a straight line between two"
            f" nodes by no more than they show themselves (up to {max(bends):.1f} points here); a peak between them is"
            " seen by none. No sign is given; ratio.sampled=16 adds the merges that correct it."
        )
    if any(value.n_unscored for value in values):
        lines.append("Unscored items of a curve are in its interval at their worst and at their best.")
    return lines


def briefly_about(rows: Sequence[Row]) -> list[str]:
    """Say in a sentence what `about` says of expectations, and what sd is."""
    values = [value for row in rows for value in row.values.values() if value is not None]
    curved = [value for value in values if value.nodes]
    if not curved:
        return ["sd: between draws."] if any(value.spread is not None for value in values) else []
    over, points, draws = _random(rows)
    alone = f" (E*: no sampled {points}, so no sign)" if any(not value.sampled for value in curved) else ""
    return [f"E: mean over {over}{alone}; sd: between {draws}."]


def _random(rows: Sequence[Row]) -> tuple[str, str, str]:
    """Return what the expectations of some rows are over, what is sampled for them, and what is drawn."""
    curves = [curve for row in rows for b in row.benchmarks if (curve := row.curve(b)) is not None]
    if curves and all(curve.along is None for curve in curves):
        return "shares ~ Dirichlet(alpha, ..., alpha)", "mixtures", "draws of shares"
    both = "lambda ~ Beta(alpha, alpha), or shares ~ Dirichlet(alpha, ..., alpha)"
    over = both if any(curve.along is None for curve in curves) else "lambda ~ Beta(alpha, alpha)"
    return over, "lambdas", "draws of lambda"


def _without_draws(frame: pd.DataFrame, rows: Sequence[Row], every: bool) -> pd.DataFrame:
    """Return the lines of a frame without the draws that an expectation stands in for."""
    curves = rows[0].curves if rows else {}
    if every:
        return frame
    names = [*LINE, "benchmark", "ratio"]
    lines = (dict(zip(names, own, strict=True)) for own in zip(*(frame[name] for name in names), strict=True))
    return frame[[line["ratio"] != "mixup" or not _stood_in(line, curves) for line in lines]]


def used(rows: Sequence[Row], behind: pd.DataFrame | None) -> pd.DataFrame | None:
    """Return the lines of the curves' own frame from which a row's expectation is computed."""
    if behind is None:
        return None
    shown = {(*row.line, b) for row in rows for b in row.benchmarks if row.curve(b) is not None}
    keys = zip(*(behind[key] for key in (*LINE, "benchmark")), strict=True)
    return behind[[key in shown for key in keys]]


def one_sided(frame: pd.DataFrame, experts: Mapping[str, Sequence[str]]) -> list[str]:
    """Name the draws of lambda that are all but one of their experts, in words."""
    drawn = frame[(frame["kind"] == "drawn") & frame["point"].astype(bool)]
    lines: dict[str, None] = {}
    for pair, alpha, draw, shares in zip(*(drawn[key] for key in ("pair", "alpha", "draw", "point")), strict=True):
        names = list(experts.get(str(pair), ()))
        one = ratio.one_sided(shares, names) if len(names) == len(shares) else None
        if one is not None:
            of = "" if pd.isna(alpha) else f" alpha {alpha:g}"
            lines[f"{pair}{of} draw {int(draw)}: {one}"] = None
    of = "lambda" if not (drawn["mixture"] != "").any() else "the weights"
    return [f"Draws of {of} that are all but one expert: {'; '.join(lines)}."] if lines else []


def few_draws_of(rows: Sequence[Row], line: str) -> list[str]:
    drawn = [row for row in rows if row.first["kind"] == "drawn"]
    draws = {v.draws for row in drawn for v in row.values.values() if v is not None}
    few = few_draws(draws - {0}, "sd: between draws")
    on_curves = any(not has_parts(row.first["parts"]) for row in drawn)
    return [f"{text}{f': {line} evaluates it' if on_curves else ''}." for text in few]


def few_draws(draws: Set[int], spread: str) -> list[str]:
    """Say that the interval of a mean over few draws is that of these draws; `spread`: what shows how draws differ."""
    few = sorted(count for count in draws if count < contrasts.LEAST_DRAWS)
    if not few:
        return []
    return [
        f"Means over {' or '.join(map(str, few))} draw{'s' if few[-1] > 1 else ''}: the interval is over items,"
        f" of these very draws; another set of draws differs by more ({spread}). Of the expectation over all draws"
        " nothing is claimed"
    ]


def title(sweep: str) -> str:
    """Return a sweep's title: the first sentence of its file's comment, up to a colon if it is long."""
    comment = [line.removeprefix("#").strip() for line in sweep.splitlines() if line.startswith("#")]
    text = " ".join(line for line in comment if line and not line.startswith("m3 run"))
    sentence = text.split(". ")[0].removesuffix(".")
    return sentence if len(sentence) <= _TITLE else sentence.split(": ")[0]
