"""Figure 4 as a table: what M3 gains out of distribution, beside the gains that the paper's text states.

A row is a method and pair on one benchmark: the score without M3, with it, and their paired difference.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from m3_exp.reporting.comparisons import contrasts
from m3_exp.reporting.comparisons.contrasts import Compared
from m3_exp.reporting.curves.evaluated import Response
from m3_exp.reporting.data import published
from m3_exp.reporting.tables import paper
from m3_exp.reporting.tables.footers import footer
from m3_exp.reporting.tables.formats import Mark, Table
from m3_exp.reporting.tables.rows import Row

_HEADER = (
    "method",
    "models",
    "benchmark",
    "DARE",
    "alpha",
    "lambda",
    "n",
    "without M3",
    "with M3",
    "gain",
    "paper's gain",
)
_GAIN = _HEADER.index("gain")
_PAPER = (
    "paper's gain: in points, as its text states it for Figure 4; the bars are not published as numbers. Each is one"
    " unseeded draw of lambda against one model, without an interval."
)


def build(
    name: str,
    frame: pd.DataFrame,
    *,
    every: bool = False,
    published: Path | None = None,
    responses: Sequence[Response] = (),
    behind: pd.DataFrame | None = None,
    marks: paper.Marks = "real",
    experts: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Lay out scores with and without M3 and their differences; arguments as of `paper.build`."""
    rows = paper.laid_out(frame, every=every, responses=responses)
    benchmarks = rows[0].benchmarks if rows else []
    known = paper.pairs(rows, paper.entered(rows, benchmarks))
    compared = contrasts.against(known, paper.known(rows, benchmarks))
    plain = {i: rows[at] for i, at in paper.without(rows).items()}
    places = [(i, j) for j, b in enumerate(benchmarks) for i, row in enumerate(rows) if row.mixed and len(row.cells[b])]
    said = [
        *paper.about(rows, behind is not None),
        *(contrasts.words(compared) if marks == "real" else []),
        *paper.few_draws(rows),
        *paper.one_sided(frame, experts or {}),
        *([_PAPER] if published is not None else []),
    ]
    shown = [_texts(rows[i], plain.get(i), benchmarks[j], compared.get((i, j)), published) for i, j in places]
    return Table(
        name,
        _HEADER,
        tuple(shown),
        tuple(footer(frame, said, paper.used(rows, behind))),
        tuple(_record(rows[i], plain.get(i), benchmarks[j], compared.get((i, j)), published) for i, j in places),
        _marks(places, compared) if marks == "real" else {},
    )


def _marks(places: Sequence[tuple[int, int]], compared: Mapping[tuple[int, int], Compared]) -> dict[Any, Mark]:
    return {
        (at, _GAIN): Mark(compared[place].sign, title=str(compared[place]))
        for at, place in enumerate(places)
        if place in compared
    }


def _texts(
    row: Row, plain: Row | None, benchmark: str, compared: Compared | None, folder: Path | None
) -> tuple[str, ...]:
    method, models, _, dare, alpha, lam = row.names
    without = "not planned" if plain is None or not len(plain.cells[benchmark]) else plain.text(benchmark)
    size = row.sizes[benchmark]
    stated = _stated(row, benchmark, folder)
    return (
        method, models, benchmark, dare, alpha, lam, str(size or ""), without, row.text(benchmark), _gain(compared),
        "" if stated is None else f"{stated:+g}",
    )  # fmt: skip


def _gain(compared: Compared | None) -> str:
    if compared is None or compared.other_items:
        return "/"
    if (c := compared.contrast) is None:
        return "0.0 (the same weights)"
    return f"{100 * c.value:+.1f} [{100 * c.low:+.1f}, {100 * c.high:+.1f}]"


def _stated(row: Row, benchmark: str, folder: Path | None) -> float | None:
    if folder is None or row.first["sparsify"] != "none" or row.first["ratio"] != "mixup":
        return None
    return published.gain(folder, str(row.first["pair"]), benchmark, str(row.first["method"]))


def _record(
    row: Row, plain: Row | None, benchmark: str, compared: Compared | None, folder: Path | None
) -> dict[str, Any]:
    without = None if plain is None else plain.values[benchmark]
    ends = {"without": "score", "without_low": "low", "without_high": "high"}
    return {
        **row.record(benchmark, compared),
        **{key: None if without is None else getattr(without, end) for key, end in ends.items()},
        "paper_gain": _stated(row, benchmark, folder),
    }
