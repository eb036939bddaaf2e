"""Tables for the page: like a paper's, sortable, each value with its interval, n, lambda, alpha and digests on demand.

What a value is made of comes from the table's records and from the cells that they name; a table without records is
shown all the same, its values without details.
"""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from m3_exp.merging.ratio import one_sided
from m3_exp.reporting.figures import palette
from m3_exp.reporting.page.data import CellData
from m3_exp.reporting.tables.formats import REBUILD, SIGNS, Mark, Table
from m3_exp.types import Label

Record = Mapping[str, Any]
Index = Mapping[tuple[Any, ...], Sequence[CellData]]

_VALUE = re.compile(r"(?P<value>[-+]?\d+(?:\.\d+)?)(?P<interval> \[[^\]]*\])?(?P<rest>.*)", re.DOTALL)
_NAMED = ("pair", "method", "params", "ratio", "alpha", "sparsify")


def escape(text: Any) -> str:
    return html.escape(str(text), quote=True)


def index(cells: Sequence[CellData]) -> Index:
    """Group cells by what a table's record names: a row and a benchmark."""
    found: dict[tuple[Any, ...], list[CellData]] = {}
    for data in cells:
        for label in data.cell.labels:
            found.setdefault((*_named(label), data.cell.evaluator.name), []).append(data)
    return found


def _named(label: Label) -> tuple[Any, ...]:
    params = ", ".join(f"{key} {value:g}" for key, value in sorted(label.params.items()))
    return label.pair, label.method, params, label.ratio, label.alpha, label.sparsify


def render(table: Table, cells: Index, experts: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return a table with its notes; `cells` is what `index` gave, `experts` are each pair's."""
    if not table.rows:
        return f"<h3>{escape(table.title)}</h3><p>Nothing is planned.</p>"
    columns = [_benchmark(heading, table.records) for heading in table.header]
    details = list(_records(table, columns))
    head = "".join(_heading(text, benchmark) for text, benchmark in zip(table.header, columns, strict=True))
    body = "\n".join(
        "<tr>"
        + "".join(
            _cell(at, text, columns[at], row[at], cells, table.mark(i, at), experts or {})
            for at, text in enumerate(texts)
        )
        + "</tr>"
        for i, (texts, row) in enumerate(zip(table.rows, details, strict=True))
    )
    title = escape(table.title)
    return (
        f'<h3>{title}</h3><div class="scroll" role="region" tabindex="0" aria-label="{title}, table">'
        f'<table class="sortable values"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f"{_notes(table.footer)}"
    )


def _benchmark(heading: str, records: Sequence[Record]) -> str:
    """Return the benchmark that a column belongs to, or nothing."""
    first = heading.split(",")[0].split(" ")[0]
    known = {str(record.get("benchmark", "")) for record in records}
    return next((name for name in sorted(known) if first and first in (name, name.removeprefix("prompt_bench_"))), "")


def _records(table: Table, columns: Sequence[str]) -> Iterator[list[Record | None]]:
    """Give each row's record for each column. Tables list them row by row, with or without those of empty cells."""
    every = len(table.records) == len(table.rows) * len(set(columns) - {""})
    left = iter(table.records)
    for texts in table.rows:
        found: list[Record | None] = [None] * len(texts)
        for at, (text, benchmark) in enumerate(zip(texts, columns, strict=True)):
            if not benchmark or (text == "/" and not every):
                continue
            repeated = at > 0 and columns[at - 1] == benchmark
            record = found[at - 1] if repeated else next(left, None)
            found[at] = record if record and record.get("benchmark") == benchmark else None
        yield found


def _heading(text: str, benchmark: str) -> str:
    name, _, rest = text.partition(", ")
    if benchmark:
        name = " ".join([palette.name(benchmark), *name.split(" ")[1:]])
    small = f'<span class="sub">{escape(rest)}</span>' if rest else ""
    kind = ' class="num"' if benchmark else ""
    return f'<th scope="col"{kind} aria-sort="none"><button type="button">{escape(name)}</button>{small}</th>'


def _cell(
    at: int, text: str, benchmark: str, record: Record | None, cells: Index, mark: Mark,
    experts: Mapping[str, Sequence[str]],
) -> str:  # fmt: skip
    if at == 0:
        name, _, rest = text.partition(" (")
        small = f' <span class="sub">{escape(rest.removesuffix(")"))}</span>' if rest else ""
        return f'<th scope="row" data-v="{escape(text)}">{escape(palette.name(name, 40))}{small}</th>'
    if not benchmark:
        return f"<td>{escape(palette.name(text, 60) if at == 1 else text)}{_sign(mark)}</td>"
    if text == "/":
        return '<td class="num none"><span aria-label="not part of this row">/</span></td>'
    lines = _details(text, record, [] if record is None else _cells_of(record, cells), experts)
    return _value(text, lines, [] if record is None else _cells_of(record, cells), mark)


def _cells_of(record: Record, cells: Index) -> list[CellData]:
    """Return the cells behind a record: all draws of its row, those at its lambdas, or the nodes of its curve."""
    named = {**record, "ratio": "grid", "alpha": None} if record.get("nodes") else record
    found = cells.get((*(named.get(key) for key in _NAMED), record["benchmark"]), [])
    lams = {round(lam, 9) for lam in record.get("lambda") or ()}
    return [c for c in found if not lams or any(round(x.lam, 9) in lams for x in c.cell.labels if x.lam is not None)]


def _sign(mark: Mark) -> str:
    return f' <span class="sign {mark.sign}">{SIGNS[mark.sign]}</span>' if mark.sign else ""


def _value(text: str, details: Sequence[str], cells: Sequence[CellData], mark: Mark) -> str:
    parts = _VALUE.fullmatch(text)
    number = f' data-v="{parts["value"]}"' if parts else ""
    shown = escape(text) if parts is None else _typeset(parts, mark)
    lines = "\n".join([*details, *([mark.title] if mark.title else [])])
    keys = " ".join(dict.fromkeys(c.key for c in cells))
    return (
        f'<td class="num"{number}><button type="button" class="value" tabindex="-1" data-tip="{escape(lines)}"'
        f' data-cells="{keys}">{shown}</button></td>'
    )


def _typeset(parts: "re.Match[str]", mark: Mark) -> str:
    value = {"bold": "<b>{}</b>", "underline": "<u>{}</u>", "": "{}"}[mark.weight].format(escape(parts["value"]))
    texts = [f'<span class="v">{value}{_sign(mark)}</span>']
    texts += [f'<span class="ci">{escape(parts["interval"].strip())}</span>'] if parts["interval"] else []
    texts += [f'<span class="more">{escape(parts["rest"].strip())}</span>'] if parts["rest"].strip() else []
    return " ".join(texts)


def _details(
    text: str, record: Record | None, cells: Sequence[CellData], experts: Mapping[str, Sequence[str]]
) -> list[str]:
    lines = [text]
    if record is not None:
        draws, sd = record.get("draws"), record.get("spread")
        unscored = record.get("n_unscored")
        lines += [f"{record['n']} items" + (f", {unscored} unscored" if unscored else "")] if record.get("n") else []
        lines += [f"λ = {', '.join(_lambdas(record, experts))}"] if record.get("lambda") else []
        lines += [f"α = {record['alpha']:g}"] if record.get("alpha") is not None else []
        lines += [f"{draws} draws, standard deviation {sd:.2f}"] if sd is not None and draws else []
    digests = dict.fromkeys(c.record.weights[:12] for c in cells if c.record is not None)
    lines += [f"weights {', '.join(digests)}"] if digests else []
    return lines + [c.failure for c in cells if c.failure and c.record is None]


def _lambdas(record: Record, experts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Give a record's lambdas; beside a draw that is all but one of its experts, which."""
    names = experts.get(str(record.get("pair")), ())
    drawn = record.get("ratio") == "mixup" and not record.get("nodes") and len(names) == 2
    for lam in record["lambda"]:
        said = one_sided(float(lam), *names) if drawn else None
        yield f"{lam:.4g}" + (f" ({said})" if said else "")


def _notes(footer: Sequence[str]) -> str:
    """Return the notes below a table, the long list of weights folded away."""
    at = footer.index(REBUILD) if REBUILD in footer else len(footer)
    notes = "".join(f"<li>{escape(line)}</li>" for line in footer[:at])
    lines = escape("\n".join(line.strip() for line in footer[at + 1 :]))
    folded = f"<details><summary>{escape(REBUILD.rstrip(':').capitalize())}</summary><pre>{lines}</pre></details>"
    return f'<ul class="notes">{notes}</ul>' + (folded if lines else "")
