"""Tables for the page: like a paper's, sortable. A click on a value shows interval, n, lambda, alpha and digests.

These details come from the cell's record and from the plan's cells that the record names.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from m3_exp.amounts import counted
from m3_exp.merging.ratio import one_sided
from m3_exp.reporting.figures import palette
from m3_exp.reporting.page.data import CellData
from m3_exp.reporting.table import NOTHING, REBUILD, SIGNS, Cell, Column, Mark, Rebuild, Record, Table

Index = Mapping[str, CellData]  # by key


def escape(text: Any) -> str:
    return html.escape(str(text), quote=True)


def render(table: Table, cells: Sequence[CellData], experts: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return a table with its notes; `cells` are all that the page shows, `experts` are each pair's."""
    if not table.rows:
        return f"<h3>{escape(table.title)}</h3><p>Nothing is planned.</p>"
    index = {data.key: data for data in cells}
    head = "".join(map(_heading, table.columns))
    rows = [enumerate(zip(table.columns, row, strict=True)) for row in table.rows]
    cells_of = ("".join(_cell(at, *pair, index, experts or {}) for at, pair in row) for row in rows)
    body = "\n".join(f"<tr>{shown}</tr>" for shown in cells_of)
    title = escape(table.title)
    return (
        f'<h3>{title}</h3><div class="scroll" role="region" tabindex="0" aria-label="{title}, table">'
        f'<table class="sortable values"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f"{_notes(table.explained)}"
    )


def _heading(column: Column) -> str:
    name = " ".join(filter(None, [palette.name(column.benchmark), column.what])) if column.benchmark else column.name
    small = f'<span class="sub">{escape(", ".join(column.details))}</span>' if column.details else ""
    kind = ' class="num"' if column.benchmark else ""
    return f'<th scope="col"{kind} aria-sort="none"><button type="button">{escape(name)}</button>{small}</th>'


def _cell(at: int, column: Column, cell: Cell, index: Index, experts: Mapping[str, Sequence[str]]) -> str:
    text = str(cell)
    if at == 0:
        small = f' <span class="sub">{escape(cell.detail)}</span>' if cell.detail else ""
        return f'<th scope="row" data-v="{escape(text)}">{escape(palette.name(cell.top, 40))}{small}</th>'
    if not column.benchmark:
        return f"<td>{escape(palette.name(text, 60) if at == 1 else text)}{_sign(cell.mark)}</td>"
    if cell == NOTHING:
        return '<td class="num none"><span aria-label="not part of this row">/</span></td>'
    return _value(cell, [index[key] for key in cell.keys if key in index], experts)


def _sign(mark: Mark) -> str:
    return f' <span class="sign {mark.sign}">{SIGNS[mark.sign]}</span>' if mark.sign else ""


def _value(cell: Cell, cells: Sequence[CellData], experts: Mapping[str, Sequence[str]]) -> str:
    number = f' data-v="{cell.figure}"' if cell.figure else ""
    details = [str(cell), *_details(cell.record or {}, cells, experts), *filter(None, [cell.mark.title])]
    keys = " ".join(data.key for data in cells)
    return (
        f'<td class="num"{number}><button type="button" class="value" tabindex="-1"'
        f' data-tip="{escape(chr(10).join(details))}" data-cells="{keys}">{_typeset(cell)}</button></td>'
    )


def _typeset(cell: Cell) -> str:
    if cell.figure is None:
        return escape(cell)
    value = {"bold": "<b>{}</b>", "underline": "<u>{}</u>", "": "{}"}[cell.mark.weight].format(escape(cell.figure))
    interval, more = cell.figure.interval, " ".join(cell.lines)
    return " ".join([
        f'<span class="v">{value}{_sign(cell.mark)}</span>',
        *([f'<span class="ci">{escape(interval)}</span>'] if interval else []),
        *([f'<span class="more">{escape(more)}</span>'] if more else []),
    ])  # fmt: skip


def _details(record: Record, cells: Sequence[CellData], experts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    draws, sd, unscored = record.get("draws"), record.get("spread"), record.get("n_unscored")
    if record.get("n"):
        yield counted(record["n"], "item") + (f", {unscored} unscored" if unscored else "")
    if record.get("lambda"):
        yield f"λ = {', '.join(_lambdas(record, experts))}"
    if record.get("mixtures"):
        yield f"weights: {'; '.join(record['mixtures'])}"
    if record.get("alpha") is not None:
        yield f"α = {record['alpha']:g}"
    if sd is not None and draws:
        yield f"{counted(draws, 'draw')}, standard deviation {sd:.2f}"
    if digests := dict.fromkeys(data.record.weights[:12] for data in cells if data.record is not None):
        yield f"weights {', '.join(digests)}"
    yield from (data.failure for data in cells if data.failure and data.record is None)


def _lambdas(record: Record, experts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Give a record's lambdas. A draw outside [0.02, 0.98] names the expert that it almost is."""
    names = experts.get(str(record.get("pair")), ())
    drawn = record.get("ratio") == "mixup" and not record.get("nodes") and len(names) == 2
    for lam in record["lambda"]:
        one = one_sided((float(lam), 1 - float(lam)), names) if drawn else None
        yield f"{lam:.4g}" + (f" ({one})" if one else "")


def _notes(notes: Sequence[str | Rebuild]) -> str:
    """Return the notes below a table, the long list of weights folded away."""
    texts = "".join(f"<li>{escape(note)}</li>" for note in notes if isinstance(note, str))
    lines = "\n".join(text.strip() for note in notes if isinstance(note, Rebuild) for text in note.texts)
    summary = REBUILD.rstrip(":").capitalize()
    folded = f"<details><summary>{summary}</summary><pre>{escape(lines)}</pre></details>" if lines else ""
    return f'<ul class="notes">{texts}</ul>{folded}'
