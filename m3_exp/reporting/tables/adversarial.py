"""Tables 2, 5 and 6: accuracy without and under an attack on the instruction, and the drop between them (PDR).

A row is method x pair x with/without M3 x alpha, the mean over its draws of lambda (and DARE masks). All of its figures
are computed from item scores, whatever a result says of its own interval. Every M3 row is contrasted with the same row
without M3, item by item. The paper's figures stand beside ours where the protocol is the paper's: in plain rows with
the difference; an M3 row of the paper is another, unknown lambda, so it has none. There is no z: the paper does not
publish task arithmetic's scaling.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from m3_exp.reporting.comparisons import contrasts, drops
from m3_exp.reporting.comparisons.contrasts import Compared, Entry, Place
from m3_exp.reporting.comparisons.drops import Attacked, without_attack
from m3_exp.reporting.comparisons.points import absence
from m3_exp.reporting.comparisons.values import Value, value
from m3_exp.reporting.data import published
from m3_exp.reporting.data.published import NOTES, Beside, Number
from m3_exp.reporting.tables.footers import footer
from m3_exp.reporting.tables.formats import Mark, Table
from m3_exp.reporting.tables.paper import Marks, one_sided
from m3_exp.stats.estimate import Estimate

_HEADER = ("method", "models", "M3", "alpha", "lambda")
_LINE = ["family", "pair", "method", "params", "sparsify"]
_FIGURES = {"no_attack": "no attack", "attack": "attack", "pdr": "PDR"}
_PROTOCOLS = {
    "paper": "paper: the attack is searched and scored on the same items, so PDR is flattered by the search",
    "adaptive": "adaptive: searched on one half of the items against this model, scored on the other",
    "transferred": "transferred: one frozen set of attacked prompts for all models",
}
_DETAILS = ("parse_rate_clean", "parse_rate_attacked", "mcc_clean", "mcc_attacked")
_PDR = (
    "PDR = (no attack - attack) / no attack, paired by item: the lower the better. An item that is unscored without the"
    " attack is unscored under it and in PDR. sd: between draws of lambda (masks: between DARE masks)."
)


def build(
    name: str,
    frame: pd.DataFrame,
    folder: Path | None = None,
    *,
    every: bool = False,
    marks: Marks = "real",
    parents: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Lay out the attack cells of a tidy frame.

    Args:
        folder: of the published numbers, shown beside ours.
        every: a row for every draw of lambda and mask in place of one for their mean.
        marks: `real`: what the statistics say; `paper`: the better of each pair, whether real or not.
        parents: each pair's experts, as they are called.
    """
    benchmarks = sorted(frame["benchmark"].unique(), reverse=True)  # SST-2 first, as the paper
    published_for = {b: folder for b in benchmarks if _papers_protocol(frame[frame["benchmark"] == b])}
    rows = [_row(lines, benchmarks, name, published_for) for lines in _groups(frame, every)]
    compared = _compared(rows, benchmarks) if marks == "real" else {}
    at = {(i, b): {k: _place(i, b, k, benchmarks) for k in _FIGURES} for i in range(len(rows)) for b in benchmarks}
    return Table(
        name,
        (*_HEADER, *(f"{_short(b)} {text}" for b in benchmarks for text in _FIGURES.values())),
        tuple((*row.names, *(row.cells[b].text(key) for b in benchmarks for key in _FIGURES)) for row in rows),
        tuple(footer(frame, _notes(frame, rows, compared, marks, parents or {}))),
        tuple(
            {**row.labels, "benchmark": b, **row.cells[b].record(), **_differences(at[i, b], compared)}
            for i, row in enumerate(rows)
            for b in benchmarks
        ),
        {place: Mark(found.sign, title=str(found)) for place, found in compared.items()}
        if marks == "real"
        else _by_score(rows, benchmarks),
    )


def _groups(frame: pd.DataFrame, every: bool) -> list[pd.DataFrame]:
    """Split into rows, in the order planned; lambdas that were asked for are rows of their own."""
    if not len(frame):
        return []
    asked = frame["lam"].where(frame["ratio"] != "mixup")
    keys = [*_LINE, "ratio", "alpha", *(["draw", "lam", "mask_seed"] if every else []), "_lam"]
    return [lines for _, lines in frame.assign(_lam=asked).groupby(keys, sort=False, dropna=False)]


def _place(row: int, benchmark: str, key: str, benchmarks: Sequence[str]) -> Place:
    """Return where a figure stands in the table."""
    return row, len(_HEADER) + len(_FIGURES) * benchmarks.index(benchmark) + list(_FIGURES).index(key)


def _short(benchmark: str) -> str:
    return benchmark.removeprefix("prompt_bench_")


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
        """The protocol of the attack; of several any but the paper's."""
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

    def text(self, key: str) -> str:
        found = self.values[key]
        paper = f" {self.beside[key]}" if key in self.beside else ""
        if found is not None:
            return _written(found) + self._lacking() + paper
        if self.values["no_attack"] is None:
            return (absence(self.lines) or "/") + paper
        return (self.drop.why if key == "pdr" and self.attacked is not None else "/") + paper

    def _lacking(self) -> str:
        lacking = int((self.lines["state"] == "missing").sum())
        return f" ({lacking} of {len(self.lines)} draws missing)" if lacking else ""

    def record(self) -> dict[str, Any]:
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


def _written(found: Value) -> str:
    text = f"{found.score:.1f} [{found.low:.1f}, {found.high:.1f}]"
    text += f" sd {found.spread:.1f} of {found.draws} draws" if found.spread is not None else ""
    text += f" masks {found.masks:.1f}" if found.masks is not None else ""
    return text + (f" ({found.n_unscored} unscored)" if found.n_unscored else "")


def _recorded(key: str, found: Value | None) -> dict[str, float | None]:
    if found is None:
        return dict.fromkeys((key, f"{key}_low", f"{key}_high", f"{key}_sd"))
    low = found.low if math.isfinite(found.low) else None
    return {key: found.score, f"{key}_low": low, f"{key}_high": found.high, f"{key}_sd": found.spread}


def _paper_record(key: str, beside: Beside | None) -> dict[str, float | None]:
    known = {} if beside is None else beside.record()
    ends = {"paper": "", "paper_difference": "_difference", "z_low": "_z_low", "z_high": "_z_high"}
    return {f"paper_{key}{end}": known.get(name) for name, end in ends.items() if key != "pdr" or not end}


def _mean(found: Sequence[float | None]) -> float | None:
    known = [x for x in found if x is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None


@dataclass(frozen=True)
class _Row:
    lines: pd.DataFrame
    cells: Mapping[str, _Cell]

    @property
    def first(self) -> "pd.Series[Any]":
        return self.lines.iloc[0]

    @property
    def line(self) -> list[Any]:
        return [self.first[key] for key in _LINE]

    @property
    def mask(self) -> float | None:
        seeds = self.lines["mask_seed"].dropna().unique()
        return float(seeds[0]) if len(seeds) == 1 else None

    @property
    def lams(self) -> list[float]:
        return [float(lam) for lam in sorted(self.lines["lam"].dropna().unique())]

    @property
    def names(self) -> tuple[str, ...]:
        first = self.first
        method = f"{first['method']} ({first['params']})" if first["params"] else str(first["method"])
        alpha = "" if pd.isna(first["alpha"]) else f"{first['alpha']:g}"
        mixed = {"plain": "no", "mixup": "yes"}.get(str(first["ratio"]), str(first["ratio"]))
        thinned = "" if first["sparsify"] == "none" else f" + {str(first['sparsify']).upper()}"
        return method + thinned, str(first["pair"]), mixed, alpha, ", ".join(f"{lam:.3g}" for lam in self.lams)

    @property
    def labels(self) -> dict[str, Any]:
        keys = ("pair", "method", "params", "ratio", "alpha", "draw", "sparsify")
        names = {key: None if pd.isna(self.first[key]) else self.first[key] for key in keys}
        one = self.lines["draw"].nunique() <= 1
        return {**names, "draw": names["draw"] if one else None, "lambda": self.lams}


def _row(lines: pd.DataFrame, benchmarks: Sequence[str], name: str, folders: Mapping[str, Path | None]) -> _Row:
    """Make a row. `folders`: of the paper's numbers, by benchmark."""
    cells = {b: lines[lines["benchmark"] == b] for b in benchmarks}
    return _Row(lines, {b: _Cell(own, _paper(folders.get(b), name, own)) for b, own in cells.items()})


def _papers_protocol(lines: pd.DataFrame) -> bool:
    return _Cell(lines, {}).protocol in (None, "paper")


def _paper(folder: Path | None, name: str, lines: pd.DataFrame) -> dict[str, Number]:
    if folder is None or not len(lines):
        return {}
    line = lines.iloc[0]
    if line["method"] != "task_arithmetic" or line["sparsify"] != "none" or line["ratio"] not in ("plain", "mixup"):
        return {}
    found = published.attacked(folder, name, str(line["pair"]), str(line["benchmark"]), line["ratio"] == "mixup")
    named = str(line["method"]), str(line["pair"]), str(line["params"])
    return {key: published.of_our_model(number, *named)[0] for key, number in found.items()}


# -------------------------------------------------------------------------------------------------------- contrasts


def _compared(rows: Sequence[_Row], benchmarks: Sequence[str]) -> dict[Place, Compared]:
    """Return each M3 figure's comparison with that of the same row without M3, adjusted over the table."""
    found: dict[Place, tuple[Estimate, str]] = {}
    known: dict[Place, Compared] = {}
    for i, plain in _pairs(rows):
        for b in benchmarks:
            first, second = rows[i].cells[b].attacked, plain.cells[b].attacked
            if first is None or second is None:
                continue
            places = {key: _place(i, b, key, benchmarks) for key in _FIGURES}
            if first.under.same_model(second.under):
                known |= {place: Compared(None) for place in places.values()}
            elif first.under.other_items(second.under):
                known |= {place: Compared(None, other_items=True) for place in places.values()}
            else:
                why = contrasts.unclaimed(first.under, second.under)
                found |= {places[key]: (c, why) for key, c in _contrasts(first, second)}
    drop = {_place(i, b, "pdr", benchmarks) for i in range(len(rows)) for b in benchmarks}
    marked = known | contrasts.adjusted(found)
    return {place: replace(c, less_is_better=place in drop) for place, c in marked.items()}


def _pairs(rows: Sequence[_Row]) -> Iterator[tuple[int, _Row]]:
    """Give each row with M3, by number, and the same row without: of the same DARE mask, where there is one of it."""
    for i, row in enumerate(rows):
        plain = [other for other in rows if other.first["ratio"] == "plain" and other.line == row.line]
        alike = [other for other in plain if other.mask == row.mask]
        if row.first["ratio"] != "plain" and (alike or len(plain) == 1):
            yield i, (alike or plain)[0]


def _contrasts(mixed: Attacked, plain: Attacked) -> Iterator[tuple[str, Estimate]]:
    """Give M3 - plain of the figures for which both have items in common."""
    found = {
        "no_attack": contrasts.compare(mixed.clean, plain.clean),
        "attack": contrasts.compare(mixed.under, plain.under),
        "pdr": drops.difference(mixed, plain),
    }
    yield from ((key, c) for key, c in found.items() if c is not None)


def _differences(places: Mapping[str, Place], compared: Mapping[Place, Compared]) -> dict[str, Any]:
    found = {key: contrasts.record(compared.get(place)) for key, place in places.items()}
    return {f"{key}_{name}": _finite(x) for key, record in found.items() for name, x in record.items()}


def _finite(x: Any) -> Any:
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _by_score(rows: Sequence[_Row], benchmarks: Sequence[str]) -> dict[Place, Mark]:
    """Return the paper's bold: of each pair and column the highest accuracy, the lowest PDR."""
    columns: dict[tuple[Any, ...], dict[Place, Entry]] = {}
    for i, row in enumerate(rows):
        for b, cell in row.cells.items():
            for key, found in cell.values.items():
                if found is not None:
                    column = columns.setdefault((row.first["pair"], b, key), {})
                    score = -found.score if key == "pdr" else found.score
                    column[_place(i, b, key, benchmarks)] = Entry(score, {})
    return {place: Mark(weight="bold") for place in contrasts.ranked(list(columns.values()))[0]}


# ------------------------------------------------------------------------------------------------------------ notes


def _notes(
    frame: pd.DataFrame,
    rows: Sequence[_Row],
    compared: Mapping[Place, Compared],
    marks: Marks,
    parents: Mapping[str, Sequence[str]],
) -> list[str]:
    cells = [cell for row in rows for cell in row.cells.values()]
    beside = [found for cell in cells for found in cell.beside.values()]
    used = {cell.protocol for cell in cells}
    return [
        _PDR,
        *(f"protocol {said}." for protocol, said in _PROTOCOLS.items() if protocol in used),
        *_few_draws(rows),
        *one_sided(frame, parents),
        *_family(compared),
        *(contrasts.words(compared) if marks == "real" else [contrasts.BY_SCORE]),
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
    """Say what the interval of a mean over few draws of lambda is of."""
    mixed = [cell for row in rows if row.first["ratio"] == "mixup" for cell in row.cells.values()]
    few = {v.draws for cell in mixed for v in cell.values.values() if v is not None and v.draws < contrasts.LEAST_DRAWS}
    if not few:
        return []
    counts = " or ".join(map(str, sorted(few)))
    return [
        f"Means over {counts} draw{'s' if max(few) > 1 else ''} of lambda: the interval is over items, of these very"
        " draws; another set of draws differs by more (sd). Of the expectation over lambda nothing is claimed."
    ]
