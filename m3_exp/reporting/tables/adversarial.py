"""Tables 2, 5 and 6: accuracy without and under an attack on the instruction, and the drop between them (PDR).

A row is method x pair x with/without M3 x alpha, the mean over its draws of lambda (and DARE masks). All of its figures
are computed from item scores. Every M3 row is compared with the same row without M3, item by item. If the protocol is
the paper's, its figures stand beside ours. A plain row shows the difference too; an M3 row of the paper has another,
unknown lambda, so it shows none. There is no z, as the paper does not publish task arithmetic's scaling.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from m3_exp.benchmarks import about, in_order
from m3_exp.reporting.comparisons import contrasts, drops
from m3_exp.reporting.comparisons.contrasts import Compared, Entry, Place
from m3_exp.reporting.comparisons.drops import Attacked, without_attack
from m3_exp.reporting.comparisons.points import absence
from m3_exp.reporting.comparisons.values import Value, value
from m3_exp.reporting.curves.evaluated import LINE
from m3_exp.reporting.data import published
from m3_exp.reporting.data.published import NOTES, Beside, Number
from m3_exp.reporting.table import NOTHING, Cell, Column, Figure, Mark, Table, named_columns, words
from m3_exp.reporting.tables.footers import briefly, footer, rebuild
from m3_exp.reporting.tables.paper import few_draws, one_sided
from m3_exp.reporting.tables.rows import Line, Shown, at_shares, keys_of, missing, shares_heading, without_m3
from m3_exp.stats.estimate import Estimate
from m3_exp.types import Json

_FIGURES = {"no_attack": "no attack", "attack": "attack", "pdr": "PDR"}
_PROTOCOLS = {
    "paper": "paper: the attack is searched and scored on the same items, so PDR is flattered by the search",
    "adaptive": "adaptive: searched on one half of the items against this model, scored on the other",
    "transferred": "transferred: one frozen set of attacked prompts for all models",
}
_DETAILS = ("parse_rate_clean", "parse_rate_attacked", "mcc_clean", "mcc_attacked")
_BRIEFLY = "PDR = (no attack - attack) / no attack: lower is better. sd: between draws."
_PDR = (
    "PDR = (no attack - attack) / no attack, paired by item: the lower the better. An item that is unscored without the"
    " attack is unscored under it and in PDR. sd: between draws (masks: between DARE masks)."
)


def build(name: str, given: Shown) -> Table:
    """Make a table of the attack cells of a tidy frame. With marks=paper the better of each pair is marked."""
    frame, marks = given.frame, given.marks
    benchmarks = in_order(frame["benchmark"].unique())
    protocols = {b: _Cell(frame[frame["benchmark"] == b], {}).protocol for b in benchmarks}
    published_for = {b: given.published for b, protocol in protocols.items() if protocol in (None, "paper")}
    rows = [_row(lines, benchmarks, name, published_for) for lines in _groups(frame, given.every)]
    columns = [(b, key) for b in benchmarks for key in _FIGURES]
    compared = _compared(rows, columns) if marks != "paper" else {}
    bold = _by_score(rows, columns) if marks == "paper" else frozenset()
    shown = []
    for i, row in enumerate(rows):
        own = {column: compared.get((i, j)) for j, column in enumerate(columns)}
        records = {b: row.record(b, {key: own[b, key] for key in _FIGURES}) for b in benchmarks}
        figures = (
            replace(row.cells[b].figure(key), mark=_mark(own[b, key], (i, j) in bold), record=records[b])
            for j, (b, key) in enumerate(columns)
        )
        shown.append((*row.names, *figures))
    return Table(
        name,
        (
            *named_columns(["method", "models", "M3", "alpha", shares_heading(frame)]),
            *(Column(f"{about(b).short or b} {_FIGURES[key]}", (), b, _FIGURES[key]) for b, key in columns),
        ),
        tuple(shown),
        (*footer(frame, _notes(given, rows, compared)), rebuild(frame)),
        (briefly(frame), _BRIEFLY, *([contrasts.BRIEFLY_BY_SCORE] if marks == "paper" else contrasts.brief(compared))),
    )


def _mark(compared: Compared | None, bold: bool) -> Mark:
    if compared is None:
        return Mark(weight="bold" if bold else "")
    return Mark(compared.sign, title=str(compared))


def _groups(frame: pd.DataFrame, every: bool) -> list[pd.DataFrame]:
    """Split into rows, in the order planned; lambdas that were asked for are rows of their own."""
    if not len(frame):
        return []
    asked = at_shares(frame, ("node", "sampled", ""))
    keys = [*LINE, "ratio", "alpha", *(["draw", "lam", "mask_seed"] if every else []), "_lam", "_mixture"]
    return [lines for _, lines in asked.groupby(keys, sort=False, dropna=False)]


# ----------------------------------------------------------------------------------------------------- rows and cells


@dataclass(frozen=True)
class _Cell:
    """A row on one benchmark. `paper`: its figures there, where it has any of our model."""

    lines: pd.DataFrame
    paper: Mapping[str, Number]

    @cached_property
    def attacked(self) -> Attacked | None:
        return drops.attacked(self.lines)

    @cached_property
    def values(self) -> Mapping[str, Value | None]:
        """The three figures; None where there is none."""
        under = None if self.attacked is None else value(self.lines)
        return {"no_attack": value(without_attack(self.lines)), "attack": under, "pdr": self.drop.value}

    @cached_property
    def drop(self) -> drops.Drop:
        return drops.drop(self.lines)

    @cached_property
    def details(self) -> list[Mapping[str, Any]]:
        return [details for details in self.lines["details"] if isinstance(details, dict)]

    @property
    def protocol(self) -> str | None:
        """The protocol of the attack. If the lines have several: one that is not the paper's."""
        used = [p for p in _PROTOCOLS if any(f"pdr_{p}" in details for details in self.details)]
        return used[-1] if used else None

    @cached_property
    def beside(self) -> Mapping[str, Beside]:
        """The paper's figures beside ours: with the difference for an accuracy of a plain row."""
        return {key: self._beside(key, number) for key, number in self.paper.items()}

    def _beside(self, key: str, number: Number) -> Beside:
        found, first = self.values[key], self.lines.iloc[0]
        if first["ratio"] != "plain" or key == "pdr" or found is None:
            return Beside(number)
        return published.beside_plain(number, first["benchmark"], found.score, found.n - found.n_unscored)

    def figure(self, key: str) -> Cell:
        """Return a figure, or why there is none."""
        found, keys = self.values[key], keys_of(self.lines)
        paper = (str(self.beside[key]),) if key in self.beside else ()
        if found is not None:
            lines = (*_behind(found), *missing(self.lines), *paper)
            return Cell(lines, Figure(found.score, found.low, found.high), keys=keys)
        if self.values["no_attack"] is None:
            why = absence(self.lines)
        else:
            why = self.drop.why if key == "pdr" and self.attacked is not None else ""
        return Cell((why or "/", *paper), keys=keys) if why or paper else NOTHING

    def record(self) -> Json:
        """Return the figures as data, in percent and points; of parse rates and MCC the mean over the draws."""
        found = self.values["attack"] or self.values["no_attack"]
        clean = self.values["no_attack"]
        return {
            **{name: x for key, figure in self.values.items() for name, x in _recorded(key, figure).items()},
            "pdr_reason": self._reason(), "protocol": self.protocol,
            **{key: _mean([details.get(key) for details in self.details]) for key in _DETAILS},
            "draws": found and found.draws, "n": found and found.n, "n_unscored": found and found.n_unscored,
            "no_attack_unscored": clean and clean.n_unscored,
            **{name: x for key in _FIGURES for name, x in _paper_record(key, self.beside.get(key)).items()},
        }  # fmt: skip

    def _reason(self) -> str | None:
        found = self.drop.value
        if found is not None:
            return None if math.isfinite(found.low) else drops.UNBOUNDED
        return self.drop.why if self.values["no_attack"] is not None else None


def _behind(value: Value) -> list[str]:
    spread = f"sd {value.spread:.1f} of {value.draws} draws" if value.spread is not None else ""
    masks = f"masks {value.masks:.1f}" if value.masks is not None else ""
    unscored = f"({value.n_unscored} unscored)" if value.n_unscored else ""
    return list(filter(None, [" ".join(filter(None, [spread, masks])), unscored]))


def _recorded(key: str, value: Value | None) -> dict[str, float | None]:
    if value is None:
        return dict.fromkeys((key, f"{key}_low", f"{key}_high", f"{key}_sd"))
    low = value.low if math.isfinite(value.low) else None
    return {key: value.score, f"{key}_low": low, f"{key}_high": value.high, f"{key}_sd": value.spread}


def _paper_record(key: str, beside: Beside | None) -> dict[str, float | None]:
    known = {} if beside is None else beside.record()
    ends = {"paper": "", "paper_difference": "_difference", "z_low": "_z_low", "z_high": "_z_high"}
    return {f"paper_{key}{end}": known.get(name) for name, end in ends.items() if key != "pdr" or not end}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [x for x in values if x is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class _Row(Line):
    cells: Mapping[str, _Cell]

    @property
    def names(self) -> tuple[Cell, ...]:
        thinned = "" if self.first["sparsify"] == "none" else f" + {str(self.first['sparsify']).upper()}"
        method = words(f"{self.method}{thinned}") if thinned else self.method
        return method, *map(words, (str(self.first["pair"]), self.with_m3, self.alpha, self.drawn))

    def record(self, benchmark: str, compared: Mapping[str, Compared | None]) -> Json:
        """Return the figures on one benchmark as data, with their comparisons."""
        names = self.labels(("pair", "method", "params", "ratio", "alpha", "draw", "sparsify"))
        if self.lines["draw"].nunique() > 1:
            names["draw"] = None
        differences = {
            f"{key}_{name}": _finite(x) for key, one in compared.items() for name, x in contrasts.record(one).items()
        }
        cell = self.cells[benchmark].record()
        mixtures = {"mixtures": self.mixtures} if self.mixtures else {}
        return {**names, "lambda": self.lams, **mixtures, "benchmark": benchmark, **cell, **differences}


def _row(lines: pd.DataFrame, benchmarks: Sequence[str], name: str, folders: Mapping[str, Path | None]) -> _Row:
    """Make a row. `folders`: of the paper's numbers, by benchmark."""
    cells = {b: lines[lines["benchmark"] == b] for b in benchmarks}
    return _Row(lines, {b: _Cell(own, _paper(folders.get(b), name, own)) for b, own in cells.items()})


def _paper(folder: Path | None, name: str, lines: pd.DataFrame) -> dict[str, Number]:
    if folder is None or not len(lines):
        return {}
    line = lines.iloc[0]
    if line["method"] != "task_arithmetic" or line["sparsify"] != "none" or line["ratio"] not in ("plain", "mixup"):
        return {}
    numbers = published.attacked(folder, name, str(line["pair"]), str(line["benchmark"]), line["ratio"] == "mixup")
    named = str(line["method"]), str(line["pair"]), str(line["params"])
    return {key: published.of_our_model(number, *named)[0] for key, number in numbers.items()}


# -------------------------------------------------------------------------------------------------------- contrasts


def _compared(rows: Sequence[_Row], columns: Sequence[tuple[str, str]]) -> dict[Place, Compared]:
    """Return each M3 figure's comparison with that of the same row without M3, adjusted over the table."""
    pairs: dict[Place, tuple[Attacked, Attacked]] = {}
    for i, plain_row in without_m3(rows).items():
        for j, (b, _) in enumerate(columns):
            first, second = rows[i].cells[b].attacked, rows[plain_row].cells[b].attacked
            if first is not None and second is not None:
                pairs[i, j] = first, second
    under = {place: (first.under, second.under) for place, (first, second) in pairs.items()}
    marked = contrasts.against(under, {}, lambda place: _contrast(columns[place[1]][1], *pairs[place]))
    return {(i, j): replace(c, less_is_better=columns[j][1] == "pdr") for (i, j), c in marked.items()}


def _contrast(key: str, mixed: Attacked, plain: Attacked) -> Estimate | None:
    """Return M3 - plain of a figure; None where they have no items in common."""
    if key == "pdr":
        return drops.difference(mixed, plain)
    return contrasts.compare(*((mixed.clean, plain.clean) if key == "no_attack" else (mixed.under, plain.under)))


def _finite(x: Any) -> Any:
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _by_score(rows: Sequence[_Row], columns: Sequence[tuple[str, str]]) -> frozenset[Place]:
    """Return the paper's bold: of each pair and column the highest accuracy, the lowest PDR."""
    columns_of: dict[tuple[str, int], dict[Place, Entry]] = {}
    for i, row in enumerate(rows):
        for j, (b, key) in enumerate(columns):
            if (value := row.cells[b].values[key]) is not None:
                score = -value.score if key == "pdr" else value.score
                columns_of.setdefault((str(row.first["pair"]), j), {})[i, j] = Entry(score, {})
    return contrasts.ranked(list(columns_of.values()))[0]


# ------------------------------------------------------------------------------------------------------------ notes


def _notes(given: Shown, rows: Sequence[_Row], compared: Mapping[Place, Compared]) -> list[str]:
    cells = [cell for row in rows for cell in row.cells.values()]
    beside = [found for cell in cells for found in cell.beside.values()]
    used = {cell.protocol for cell in cells}
    return [
        _PDR,
        *(f"protocol {text}." for protocol, text in _PROTOCOLS.items() if protocol in used),
        *_few_draws(rows),
        *one_sided(given.frame, given.experts),
        *_family(compared),
        *([contrasts.BY_SCORE] if given.marks == "paper" else contrasts.words(compared)),
        *(NOTES[note] for note in dict.fromkeys(note for found in beside for note in found.number.notes)),
        *([NOTES["lambda"]] if beside else []),
    ]


def _family(compared: Mapping[Place, Compared]) -> list[str]:
    made = [c for c in compared.values() if c.contrast is not None]
    if not made:
        return []
    claims = sum(not c.why for c in made)
    return [
        "One question, one family: does M3 change an accuracy or a PDR of this table?"
        f" Of its {len(made)} comparisons {claims or 'none'} can carry a sign"
        + ("; these are adjusted together." if claims else ".")
    ]


def _few_draws(rows: Sequence[_Row]) -> list[str]:
    mixed = [cell for row in rows if row.first["kind"] == "drawn" for cell in row.cells.values()]
    draws = {value.draws for cell in mixed for value in cell.values.values() if value is not None}
    return [f"{text}." for text in few_draws(draws, "sd")]
