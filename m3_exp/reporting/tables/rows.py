"""One row of a table: its lines of the frame, and what follows from them for each benchmark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from m3_exp.command_line import CommandLine
from m3_exp.reporting.comparisons import contrasts
from m3_exp.reporting.comparisons.contrasts import Compared, Entry
from m3_exp.reporting.comparisons.values import Value, entry_of, expected, expected_entry, value_of
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import LINE, Response
from m3_exp.reporting.data import published
from m3_exp.reporting.data.dataframe import thinned
from m3_exp.reporting.data.published import Beside, Number
from m3_exp.reporting.table import NOTHING, Cell, Figure, Mark, words
from m3_exp.types import Json, Kind, M3Error

Marks = Literal["significant", "paper"]
KEYS = ["pair", "method", "params", "ratio", "alpha", "sparsify"]


@dataclass(frozen=True)
class Shown:
    """What a table shows.

    every: a row for every (alpha, draw, lambda) in place of one for their mean or for the nodes of a curve.
    against: the method, or the expert by name, whose row each row is compared with, in place of itself without M3.
    nodes: a row for every node of a curve, and for every lambda sampled beside them, above its expectations.
    published: the folder of the paper's numbers (`results/published`), shown beside ours.
    responses: response curves. An M3 row whose pair, method, parameters and benchmark have one (of at least five
        nodes) shows its expectation. A grid of lambdas is shown as the expectations at the paper's alphas.
    behind: the frame that the curves come from, if it is another one.
    marks: `significant`: marks of tests, adjusted; `paper`: bold and underlined by score, without a test.
    experts: the names of each pair's experts.
    asked: the command line of the table, for the lines that show or run other sweeps.
    """

    frame: pd.DataFrame
    every: bool = False
    published: Path | None = None
    responses: Sequence[Response] = ()
    behind: pd.DataFrame | None = None
    marks: Marks = "significant"
    experts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    asked: CommandLine = field(default_factory=CommandLine)
    nodes: bool = False
    against: str = ""

    @property
    def runs_curves(self) -> str:
        """The line that evaluates response curves."""
        return self.asked.on_sweep("lambda_response").line("run")

    @property
    def shows_curves(self) -> str:
        """The line that shows everything that the curves behind this table go through."""
        asked = self.asked.on_sweep("lambda_response")
        return asked.with_overrides("lambda_response", *asked.overrides[1:]).line("table", "--all")


@dataclass(frozen=True)
class Line:
    """What names a row: lines of the frame of one family, pair, method, parameters, sparsifier and ratio."""

    lines: pd.DataFrame

    @cached_property
    def first(self) -> "pd.Series[Any]":
        return self.lines.iloc[0]

    @cached_property
    def line(self) -> tuple[str, ...]:
        """The columns that this row shares with the same row without M3."""
        return tuple(str(self.first[key]) for key in LINE)

    @property
    def mixed(self) -> bool:
        return bool(self.first["ratio"] != "plain") and bool(self.first["method"] != "single")

    @property
    def mask(self) -> int | None:
        """The seed of the one DARE mask that the row is of."""
        seeds = self.lines["mask_seed"].dropna().unique()
        return int(seeds[0]) if len(seeds) == 1 else None

    @property
    def lams(self) -> list[float]:
        return [float(lam) for lam in sorted(self.lines["lam"].dropna().unique())]

    @property
    def mixtures(self) -> list[str]:
        """The shares of three experts or more, in words."""
        return [text for text in dict.fromkeys(self.lines["mixture"]) if text]

    @property
    def drawn(self) -> str:
        mixtures = self.mixtures if len(self.mixtures) < 3 else [f"{len(self.mixtures)} mixtures"]
        return ", ".join([*(f"{lam:.3g}" for lam in self.lams), *mixtures])

    @property
    def method(self) -> Cell:
        return words(str(self.first["method"]), str(self.first["params"]))

    @property
    def with_m3(self) -> str:
        return {"plain": "no", "mixup": "yes"}.get(str(self.first["ratio"]), str(self.first["ratio"]))

    @property
    def alpha(self) -> str:
        return "" if pd.isna(self.first["alpha"]) else f"{self.first['alpha']:g}"

    def labels(self, keys: Sequence[str]) -> Json:
        """Return columns of the row as data."""
        return {key: None if pd.isna(self.first[key]) else self.first[key] for key in keys}


def shares_heading(frame: pd.DataFrame) -> str:
    """Return what stands over the experts' shares: lambda of two, the weights of more."""
    of_more = bool((frame["mixture"] != "").any())
    return "weights" if of_more and frame["lam"].isna().all() else "lambda, weights" if of_more else "lambda"


def at_shares(frame: pd.DataFrame, kinds: Sequence[Kind]) -> pd.DataFrame:
    """Return the frame with `_lam` and `_mixture`: the shares of lines of some kinds, which are rows of their own."""
    own = frame["kind"].isin(kinds)
    return frame.assign(_lam=frame["lam"].where(own), _mixture=frame["mixture"].where(own, ""))


def without_m3(rows: Sequence[Line]) -> dict[int, int]:
    """Return, for the number of each M3 row, that of the same row without M3 (if rows are single masks: same mask)."""
    plain: dict[tuple[str, ...], dict[int | None, int]] = {}
    for i, row in enumerate(rows):
        if not row.mixed:
            plain.setdefault(row.line, {}).setdefault(row.mask, i)
    plain_rows: dict[int, int] = {}
    for i, row in enumerate(rows):
        known = plain.get(row.line, {}) if row.mixed else {}
        at = known.get(row.mask, next(iter(known.values())) if len(known) == 1 else None)
        if at is not None:
            plain_rows[i] = at
    return plain_rows


def reference(rows: Sequence[Line], name: str) -> dict[int, int]:
    """Return, for the number of each row, that of the row it is compared with: `name` is a method or an expert.

    A method's row is that of the same models without M3 and without a sparsifier; an expert's is its own.

    Raises:
        M3Error: there is no such row, or a method has several of the same models.
    """
    known: dict[tuple[str, str], list[int]] = {}
    single = None
    for i, row in enumerate(rows):
        family, models, method = (str(row.first[key]) for key in ("family", "pair", "method"))
        if method == "single":
            single = i if models == name else single
        elif method == name and not row.mixed and row.first["sparsify"] == "none":
            known.setdefault((family, models), []).append(i)
    for (_, models), found in known.items():
        if len(found) > 1:
            settings = " and ".join(f"({rows[i].first['params']})" for i in found)
            raise M3Error(f"--against {name}: {models} has {len(found)} such rows, {settings}: ask for one of them")
    if not known and single is None:
        merged = [str(row.first["method"]) for row in rows if not row.mixed and row.first["sparsify"] == "none"]
        alone = [str(row.first["pair"]) for row in rows if row.first["method"] == "single"]
        there = dict.fromkeys([*(method for method in merged if method != "single"), *alone])
        raise M3Error(f"--against {name}: this table has no row of it without M3; it has {', '.join(there)}")
    places = ((i, known.get((str(row.first["family"]), str(row.first["pair"])), [])) for i, row in enumerate(rows))
    at = {i: found[0] if found else single for i, found in places}
    return {i: other for i, other in at.items() if other is not None and other != i}


def keys_of(lines: pd.DataFrame) -> tuple[str, ...]:
    """Return the keys of the plan's cells that some lines are of."""
    return tuple(dict.fromkeys(map(str, lines["cell"].dropna())))


def missing(lines: pd.DataFrame) -> list[str]:
    """Say how many of a cell's draws have no result."""
    lacking = int((lines["state"] == "missing").sum())
    return [f"({lacking} of {len(lines)} draws missing)"] if lacking else []


@dataclass(frozen=True)
class Row(Line):
    """A row of a table.

    Attributes:
        curves: response curves by family, pair, method, parameters, sparsify and benchmark.
        nodes: by the same, the lines of the grids that the curves go through.
        sizes: the usual number of items of each benchmark.
        folder: of the paper's numbers.
        masks: how many DARE masks there are, with and without M3.
    """

    benchmarks: Sequence[str]
    curves: Mapping[tuple[str, ...], Response]
    nodes: Mapping[tuple[str, ...], pd.DataFrame]
    sizes: Mapping[str, int | None]
    folder: Path | None
    masks: int = 0

    @cached_property
    def cells(self) -> Mapping[str, pd.DataFrame]:
        found = dict(iter(self.lines.groupby("benchmark", sort=False)))
        return {b: found.get(b, self.lines.iloc[:0]) for b in self.benchmarks}

    @cached_property
    def values(self) -> Mapping[str, Value | None]:
        return {b: self._value(b) for b in self.benchmarks}

    def _value(self, benchmark: str) -> Value | None:
        curve, entry = self.curve(benchmark), self.entries[benchmark]
        if curve is not None:
            return expected(curve, float(self.first["alpha"]))
        return None if entry is None else value_of(entry)

    def curve(self, benchmark: str) -> Response | None:
        """Return the curve that this row shows the expectation of."""
        return self.curves.get((*self.line, benchmark)) if benchmark in self._expected else None

    @cached_property
    def _expected(self) -> frozenset[str]:
        return frozenset(self.lines.loc[self.lines["state"] == "expected", "benchmark"])

    @cached_property
    def entries(self) -> Mapping[str, Entry | None]:
        """Every cell as an `Entry`; None where it has no score."""
        return {b: self._entry(b) for b in self.benchmarks}

    def _entry(self, benchmark: str) -> Entry | None:
        curve = self.curve(benchmark)
        if curve is not None:
            return expected_entry(curve, float(self.first["alpha"]))
        rows = self.cells[benchmark]
        entry = entry_of(rows) if rows["score"].notna().any() else None
        return entry if entry is not None and entry.items else None

    def against_plain(self, benchmark: str) -> Compared | None:
        """Return an expectation's comparison with plain, that of `expectations`; None if the cell is no expectation."""
        if self.curve(benchmark) is None:
            return None
        alpha = float(self.first["alpha"])
        line = [response for key, response in self.curves.items() if key[:-1] == self.line]
        comparison = expectations.against_plain(line, (alpha,)).get((benchmark, alpha))
        if comparison is None:
            return None
        return Compared(comparison.estimate, comparison.p_adjusted, comparison.family, "expectation", comparison.why)

    @cached_property
    def beside(self) -> Mapping[str, Beside]:
        """What the paper has for this row, by benchmark."""
        others = self.first["ratio"] not in ("plain", "mixup") or self.first["sparsify"] not in ("none", "dare")
        if self.folder is None or others:
            return {}
        known = {b: self._beside(self.folder, b) for b in self.benchmarks}
        return {b: beside for b, beside in known.items() if beside is not None}

    def _beside(self, folder: Path, benchmark: str) -> Beside | None:
        first, shown = self.first, self.values[benchmark]
        row = published.Row(
            str(first["method"]), str(first["pair"]), first["ratio"] == "mixup", first["sparsify"] == "dare"
        )
        number = published.table1(folder, row, benchmark)
        if number is None or not len(self.cells[benchmark]):
            return None
        number, same = published.of_our_model(number, row.method, row.models, str(first["params"]))
        if same and row.mixup:
            curve = self.curves.get((*self.line, benchmark))
            return published.beside_mixed(number, benchmark, None if curve is None else curve.along)
        if not same or shown is None:
            return Beside(number)
        return published.beside_plain(number, benchmark, shown.score, shown.n - shown.n_unscored)

    @property
    def names(self) -> tuple[Cell, ...]:
        if self.first["method"] == "single":
            return tuple(map(words, ("single", str(self.first["pair"]), "", "", "", "")))
        dare = thinned(str(self.first["sparsify"]))
        others = (str(self.first["pair"]), self.with_m3, dare, self.alpha, self._lambdas())
        return self.method, *map(words, others)

    def _lambdas(self) -> str:
        """Return the lambdas drawn or asked for, or the number of nodes of the curves that replace draws."""
        curves = [curve for b in self.benchmarks if (curve := self.curve(b)) is not None]
        return "; ".join(
            [*(f"curve of {text}" for text in sorted({c.merges for c in curves})), *filter(None, [self.drawn])]
        )

    def cell(self, benchmark: str, compared: Compared | None = None, mark: Mark | None = None) -> Cell:
        """Return a cell: empty if the benchmark does not belong to the row, else the figure and what is missing.

        `compared`: its comparison with the row without M3, for the record.
        """
        rows, shown, curve = self.cells[benchmark], self.values[benchmark], self.curve(benchmark)
        if not len(rows):
            return NOTHING
        lines, figure = [self._absence(rows)], None
        if shown is not None:
            lines, figure = list(shown.lines), Figure(shown.score, shown.low, shown.high)
            if curve is not None and 0 < len(curve.mask_seeds) < self.masks:
                lines.append(f"({len(curve.mask_seeds)} of {self.masks} masks)")
            if shown.n != self.sizes[benchmark]:
                lines[-1:] = [" ".join([*lines[-1:], f"n={shown.n}"])]
            lines += [f"({shown.n_unscored} unscored)"] if shown.n_unscored else []
            lines += missing(rows)
        lines += [str(self.beside[benchmark])] if benchmark in self.beside else []
        nodes = rows if curve is None else self.nodes[(*self.line, benchmark)]
        keys = keys_of(nodes if curve is None else nodes[curve.holds(nodes)])
        return Cell(
            tuple(lines), figure, mark or Mark(), record=self._record(benchmark, rows, shown, compared), keys=keys
        )

    @staticmethod
    def _absence(rows: pd.DataFrame) -> str:
        if (rows["state"] == "no curve").any():
            return "no curve"
        return "failed" if rows["failure"].notna().any() else "not run"

    def _record(self, benchmark: str, rows: pd.DataFrame, shown: Value | None, compared: Compared | None) -> Json:
        """Return a cell as data: percent and points, the lambdas drawn or the curve's nodes."""
        curve = self.curve(benchmark)
        along = None if curve is None else curve.along
        lams = along.lams if along is not None else rows["lam"].dropna()
        figures = vars(shown) if shown else dict.fromkeys(Value.__dataclass_fields__)
        mixtures = {"mixtures": self.mixtures} if self.mixtures else {}
        return {
            **self.labels(KEYS), "benchmark": benchmark, "lambda": [float(x) for x in sorted(lams)], **mixtures,
            **figures,
            **contrasts.record(compared), **(self.beside.get(benchmark) or Beside(Number(None))).record(),
        }  # fmt: skip
