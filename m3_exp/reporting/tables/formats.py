"""How a table is written: Markdown, CSV (the data), LaTeX and HTML. Each spells a cell's mark in its own way."""

import csv
import html
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

from m3_exp.reading.shown import escaped
from m3_exp.reporting.table import SIGNS, Cell, Table
from m3_exp.reporting.tables.latex import latex, on_one_line

_FORMULA = ("=", "+", "-", "@")  # how a spreadsheet's formulas begin
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?( [-+]?[\d.]+(e[-+]?\d+)?)*")


def _spelled(cell: Cell, escape: Callable[[str], str], bold: str, underline: str) -> str:
    """Write a cell: its figure with its weight (`bold`, `underline`: patterns with `{}`), then its sign."""
    weight = {"": "{}", "bold": bold, "underline": underline}[cell.mark.weight]
    return " ".join(filter(None, [weight.format(escape(cell.top)), SIGNS[cell.mark.sign], *map(escape, cell.below)]))


def markdown(table: Table) -> str:
    def escape(text: str) -> str:
        return on_one_line(text).replace("|", r"\|")

    header = [escape(text) for text in table.header]
    rows = [[_spelled(cell, escape, "**{}**", "<u>{}</u>") for cell in row] for row in table.rows]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: list[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(header), rule, *map(line, rows), "", *(escaped(line, "\n") for line in table.footer), ""])


def as_csv(table: Table) -> str:
    """Return the table as data: one line a (row, benchmark), numbers unrounded, lists with a blank between.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, as spreadsheets themselves write it.
    """
    out = io.StringIO()
    if records := table.records:
        writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in record.items()} for record in records)
    return out.getvalue()


def _plain(value: Any) -> Any:
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
    if not isinstance(text, str):
        return text
    text = escaped(text, "\n")
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def as_html(table: Table) -> str:
    def safe(text: str) -> str:
        return html.escape(escaped(text, keep="\n"))

    def element(cell: Cell) -> str:
        mark = cell.mark
        names = " ".join(filter(None, [mark.sign, mark.weight and f"is-{mark.weight}"]))
        kind = f' class="{names}"' if names else ""
        title = f' title="{safe(mark.title)}"' if mark.title else ""
        return f"<td{kind}{title}>{_spelled(cell, safe, '<b>{}</b>', '<u>{}</u>')}</td>"

    head = "".join(f"<th>{safe(text)}</th>" for text in table.header)
    rows = "\n".join(f"<tr>{''.join(map(element, row))}</tr>" for row in table.rows)
    notes = "\n".join(map(safe, table.footer))
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n<pre>{notes}</pre>\n"


FORMATS: Mapping[str, Callable[[Table], str]] = {"md": markdown, "csv": as_csv, "tex": latex, "html": as_html}
