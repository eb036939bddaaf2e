"""One row of a table: its lines of the frame, and what follows from them for each benchmark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from m3_exp.reporting.comparisons import contrasts
from m3_exp.reporting.comparisons.contrasts import Compared, Entry
from m3_exp.reporting.comparisons.values import Value, entry_of, expected, expected_entry, value
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Response
from m3_exp.reporting.data import published
from m3_exp.reporting.data.published import Beside, Number

LINE = ["family", "pair", "method", "params", "sparsify"]
KEYS = ["pair", "method", "params", "ratio", "alpha", "sparsify"]


@dataclass(frozen=True)
class Row:
    """A row. `curves`: by family, pair, method, parameters, sparsify and benchmark; `sizes`: the items that a column
    has as a rule; `folder`: of the paper's numbers; `masks`: how many DARE masks its line has, with and without M3.
    """

    lines: pd.DataFrame
    benchmarks: Sequence[str]
    curves: Mapping[tuple[str, ...], Response]
    sizes: Mapping[str, int | None]
    folder: Path | None
    masks: int = 0

    @cached_property
    def first(self) -> "pd.Series[Any]":
        return self.lines.iloc[0]

    @cached_property
    def cells(self) -> Mapping[str, pd.DataFrame]:
        return {b: self.lines[self.lines["benchmark"] == b] for b in self.benchmarks}

    @property
    def line(self) -> tuple[str, ...]:
        """What this row shares with the same row without M3."""
        return tuple(str(self.first[key]) for key in LINE)

    @property
    def mixed(self) -> bool:
        return bool(self.first["ratio"] != "plain") and bool(self.first["method"] != "single")

    @cached_property
    def values(self) -> Mapping[str, Value | None]:
        return {b: self._value(b) for b in self.benchmarks}

    def _value(self, benchmark: str) -> Value | None:
        curve = self.curve(benchmark)
        return value(self.cells[benchmark]) if curve is None else expected(curve, float(self.first["alpha"]))

    def curve(self, benchmark: str) -> Response | None:
        """Return the curve that this row shows the expectation of."""
        shown = bool((self.cells[benchmark]["state"] == "expected").any())
        return self.curves.get((*self.line, benchmark)) if shown else None

    def entry(self, benchmark: str) -> Entry | None:
        """Return what can be compared of a cell; None where it has no score."""
        if self.values[benchmark] is None:
            return None
        curve = self.curve(benchmark)
        if curve is not None:
            return expected_entry(curve, float(self.first["alpha"]))
        return entry_of(self.cells[benchmark])

    def against_plain(self, benchmark: str) -> Compared | None:
        """Return an expectation's comparison with plain, as everywhere; None where the cell is none."""
        curve = self.curve(benchmark)
        if curve is None:
            return None
        alpha = float(self.first["alpha"])
        line = [response for key, response in self.curves.items() if key[:-1] == self.line]
        found = expectations.against_plain(line, (alpha,)).get((benchmark, alpha))
        if found is None:
            return None
        return Compared(found.estimate, found.p_adjusted, found.family, "expectation", found.why)

    @cached_property
    def beside(self) -> Mapping[str, Beside]:
        """What the paper has for this row, by benchmark."""
        if self.folder is None or self.first["ratio"] not in ("plain", "mixup"):
            return {}
        return {b: found for b in self.benchmarks if (found := self._beside(self.folder, b)) is not None}

    def _beside(self, folder: Path, benchmark: str) -> Beside | None:
        first, found = self.first, self.values[benchmark]
        row = published.Row(
            str(first["method"]), str(first["pair"]), first["ratio"] == "mixup", first["sparsify"] == "dare"
        )
        number = published.table1(folder, row, benchmark)
        if number is None or not len(self.cells[benchmark]):
            return None
        number, same = published.of_our_model(number, row.method, row.models, str(first["params"]))
        if not same:
            return Beside(number)
        if row.mixup:
            curve = self.curves.get((*self.line, benchmark))
            return published.beside_mixed(number, benchmark, None if curve is None else curve.curve)
        if found is None:
            return Beside(number)
        return published.beside_plain(number, benchmark, found.score, found.n - found.n_unscored)

    @property
    def names(self) -> tuple[str, ...]:
        first = self.first
        if first["method"] == "single":
            return "single", str(first["pair"]), "", "", "", ""
        method = f"{first['method']} ({first['params']})" if first["params"] else str(first["method"])
        mixed = {"plain": "no", "mixup": "yes"}.get(str(first["ratio"]), str(first["ratio"]))
        alpha = "" if pd.isna(first["alpha"]) else f"{first['alpha']:g}"
        return method, str(first["pair"]), mixed, "yes" if first["sparsify"] == "dare" else "no", alpha, self._lambdas()

    def _lambdas(self) -> str:
        """Return the lambdas drawn or asked for, and of how many nodes the curves are that stand in for draws."""
        curves = [curve for b in self.benchmarks if (curve := self.curve(b)) is not None]
        drawn = ", ".join(f"{lam:.3g}" for lam in sorted(self.lines["lam"].dropna().unique()))
        return "; ".join(
            [*(f"curve of {text}" for text in sorted({c.merges for c in curves})), *([drawn] if drawn else [])]
        )

    def text(self, benchmark: str) -> str:
        """Write a cell: `/` where the benchmark does not belong to the row, else the figure and what is missing."""
        rows, found = self.cells[benchmark], self.values[benchmark]
        if not len(rows):
            return "/"
        paper = f" {self.beside[benchmark]}" if benchmark in self.beside else ""
        if found is None and (rows["state"] == "no curve").any():
            return "no curve" + paper
        if found is None:
            return ("failed" if rows["failure"].notna().any() else "not run") + paper
        text, curve = str(found), self.curve(benchmark)
        if curve is not None and 0 < len(curve.mask_seeds) < self.masks:
            text += f" ({len(curve.mask_seeds)} of {self.masks} masks)"
        if found.n != self.sizes[benchmark]:
            text += f" n={found.n}"
        if found.n_unscored:
            text += f" ({found.n_unscored} unscored)"
        lacking = int((rows["state"] == "missing").sum())
        return text + (f" ({lacking} of {len(rows)} draws missing)" if lacking else "") + paper

    def record(self, benchmark: str, compared: Compared | None) -> dict[str, Any]:
        """Return a cell as data: percent and points, the lambdas drawn or the curve's nodes."""
        rows, found, curve = self.cells[benchmark], self.values[benchmark], self.curve(benchmark)
        names = {key: _none(self.first[key]) for key in KEYS}
        lams = rows["lam"].dropna() if curve is None else curve.curve.lams
        figures = vars(found) if found else dict.fromkeys(Value.__dataclass_fields__)
        return {
            **names, "benchmark": benchmark, "lambda": [float(x) for x in sorted(lams)], **figures,
            **contrasts.record(compared), **_paper_record(self.beside.get(benchmark)),
        }  # fmt: skip


def _none(found: Any) -> Any:
    return None if pd.isna(found) else found


def _paper_record(beside: Beside | None) -> dict[str, Any]:
    return (beside or Beside(Number(None))).record()
