"""Figure 4 as a table: what M3 gains out of distribution, beside the gains that the paper's text states.

A row is a method and pair on one benchmark: the score without M3, with it, and their paired difference.
"""

from dataclasses import replace
from pathlib import Path

from m3_exp.reporting.comparisons import contrasts
from m3_exp.reporting.comparisons.contrasts import Compared
from m3_exp.reporting.data import published as papers
from m3_exp.reporting.table import NOTHING, Cell, Column, Figure, Mark, Table, named_columns, percent, words
from m3_exp.reporting.tables import paper
from m3_exp.reporting.tables.footers import briefly, footer, rebuild
from m3_exp.reporting.tables.rows import Row, Shown, shares_heading, without_m3

_FIGURES = tuple(map(Column, ("n", "without M3", "with M3", "gain", "paper's gain")))
_PAPER = (
    "paper's gain: in points, as its text states it for Figure 4; the bars are not published as numbers. Each is one"
    " unseeded draw of lambda against one model, without an interval."
)


def build(name: str, given: Shown) -> Table:
    """Return scores with and without M3 and their differences."""
    frame, behind = given.frame, given.behind
    rows = paper.rows_of(replace(given, published=None))  # its Table 1 stands in another table
    benchmarks = rows[0].benchmarks if rows else []
    compared = paper.against_plain(rows, paper.entries_of(rows))
    twins = {i: rows[at] for i, at in without_m3(rows).items()}
    notes = [
        *paper.about(rows, "" if behind is None else given.shows_curves),
        *(contrasts.words(compared) if given.marks != "paper" else []),
        *paper.few_draws_of(rows, given.runs_curves),
        *paper.one_sided(frame, given.experts),
        *([_PAPER] if given.published is not None else []),
    ]
    return Table(
        name,
        (*named_columns(["method", "models", "benchmark", "DARE", "alpha", shares_heading(frame)]), *_FIGURES),
        tuple(
            _row(row, twins.get(i), b, compared.get((i, j)), given)
            for j, b in enumerate(benchmarks)
            for i, row in enumerate(rows)
            if row.mixed and len(row.cells[b])
        ),
        (*footer(frame, notes, paper.used(rows, behind)), rebuild(frame)),
        (briefly(frame), *paper.briefly_about(rows), *contrasts.brief(compared)),
    )


def _row(row: Row, twin: Row | None, benchmark: str, compared: Compared | None, given: Shown) -> tuple[Cell, ...]:
    method, models, _, dare, alpha, lam = row.names
    shown = row.cell(benchmark, compared)
    without = words("not planned") if twin is None or not len(twin.cells[benchmark]) else twin.cell(benchmark)
    plain_value = None if twin is None else twin.values[benchmark]
    stated = _stated(row, benchmark, given.published)
    record = {
        **(shown.record or {}),
        **{
            f"without{end}": None if plain_value is None else getattr(plain_value, key)
            for end, key in (("", "score"), ("_low", "low"), ("_high", "high"))
        },
        "paper_gain": stated,
    }
    mark = Mark() if compared is None or given.marks == "paper" else Mark(compared.sign, title=str(compared))
    return (
        method, models, words(benchmark), dare, alpha, lam, words(str(row.sizes[benchmark] or "")),
        replace(without, record=None), replace(shown, record=record), replace(_gain(compared), mark=mark),
        words("" if stated is None else f"{stated:+g}"),
    )  # fmt: skip


def _gain(compared: Compared | None) -> Cell:
    if compared is None or compared.other_items:
        return NOTHING
    if (c := compared.contrast) is None:
        return Cell(("(the same weights)",), Figure(0.0))
    return Cell((), percent(c, signed=True))


def _stated(row: Row, benchmark: str, folder: Path | None) -> float | None:
    if folder is None or row.first["sparsify"] != "none" or row.first["ratio"] != "mixup":
        return None
    return papers.gain(folder, str(row.first["pair"]), benchmark, str(row.first["method"]))
