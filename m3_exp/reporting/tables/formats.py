"""What a table is, and how it is written: Markdown, CSV (the data), LaTeX (booktabs) and HTML.

Cells are text that begins with its figure. What the statistics say of a cell (better, worse, not told apart, best) lies
beside the text in `marks`, so that each format spells it in its own way.
"""

import csv
import html
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from m3_exp.reading.shown import escaped
from m3_exp.reporting.comparisons.contrasts import Sign

_FORMULA = ("=", "+", "-", "@")  # how a spreadsheet's formulas begin
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?( [-+]?[\d.]+(e[-+]?\d+)?)*( \[[-+\d., ]*\])?")
REBUILD = "weights and the line that rebuilds them:"


@dataclass(frozen=True)
class Mark:
    """What is said of a cell: a sign, `weight`, and `title` for who wants to know more."""

    sign: Sign = ""
    weight: Literal["", "bold", "underline"] = ""
    title: str = ""


@dataclass(frozen=True)
class Table:
    """What is printed: a header, rows of text, and footnotes. `records` is the same as data.

    `marks` are those of single cells, by row and column.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footer: tuple[str, ...]
    records: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    marks: Mapping[tuple[int, int], Mark] = field(default_factory=dict, repr=False)

    def mark(self, row: int, column: int) -> Mark:
        return self.marks.get((row, column), Mark())


SIGNS: Mapping[Sign, str] = {"": "", "better": "▲", "worse": "▼", "untold": "≈", "same": "="}


def _spelled(text: str, mark: Mark, heavy: Callable[[str], str], under: Callable[[str], str], sign: str) -> str:
    """Give the figure that a cell begins with its weight, and put the sign behind it."""
    figure, space, rest = text.partition(" ")
    figure = {"": figure, "bold": heavy(figure), "underline": under(figure)}[mark.weight]
    return f"{figure}{' ' if sign else ''}{sign}{space}{rest}"


# ------------------------------------------------------------------------------------------------------- Markdown


def markdown(table: Table) -> str:
    def escape(text: str) -> str:
        return _line(text).replace("|", r"\|")

    def cell(i: int, j: int, text: str) -> str:
        mark = table.mark(i, j)
        return _spelled(escape(text), mark, lambda x: f"**{x}**", lambda x: f"<u>{x}</u>", SIGNS[mark.sign])

    header = [escape(text) for text in table.header]
    rows = [[cell(i, j, text) for j, text in enumerate(row)] for i, row in enumerate(table.rows)]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(header), rule, *map(line, rows), "", *(escaped(line, "\n") for line in table.footer), ""])


def _line(text: str) -> str:
    """Return a text on one line, with what is not printable spelled out."""
    return escaped(" ".join(text.split("\n")))


# ------------------------------------------------------------------------------------------------------- data


def as_csv(table: Table) -> str:
    """Return the table as data: one line a (row, benchmark), numbers unrounded, lists with a blank between.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, as spreadsheets themselves write it.
    """
    out = io.StringIO()
    if table.records:
        writer = csv.DictWriter(out, fieldnames=list(table.records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in record.items()} for record in table.records)
    return out.getvalue()


def _plain(value: Any) -> Any:
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
    if not isinstance(text, str):
        return text
    text = escaped(text, "\n")
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


# ------------------------------------------------------------------------------------------------------- LaTeX

_TEX_SIGNS: Mapping[Sign, str] = {
    "": "", "better": r"$\blacktriangle$", "worse": r"$\blacktriangledown$", "untold": r"$\approx$", "same": "$=$"
}  # fmt: skip
_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"$\sim$", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "-": "{-}",
    "[": "{[}", "]": "{]}", '"': "''", "'": "{'}", "`": "{`}",
    "▲": _TEX_SIGNS["better"], "▼": _TEX_SIGNS["worse"], "≈": _TEX_SIGNS["untold"], "≤": r"$\leq$", "≥": r"$\geq$",
    "λ": r"$\lambda$", "α": r"$\alpha$", "×": r"$\times$", "±": r"$\pm$", "−": "$-$", "–": "--", "…": r"\dots{}",
}  # fmt: skip
_NEEDS = r"% needs \usepackage{booktabs,graphicx,amssymb}"
_PAGE = 40  # rows
_FIGURE = re.compile(r"[-+]?\d+(\.\d+)?")
_MEASURED = re.compile(r"[-+]?\d+(\.\d+)? \[")


def escape_tex(text: str) -> str:
    """Escape text for LaTeX. Characters beyond ASCII that no line of ours holds are spelled as their code point."""
    return "".join(_TEX.get(char) or (char if " " <= char <= "~" else _code_point(char)) for char in _line(text))


def _code_point(char: str) -> str:
    return " " if char.isspace() else rf"\texttt{{U+{ord(char):04X}}}"


def latex(table: Table) -> str:
    """Return booktabs tabulars, scaled to the line and page where they are larger, with the notes below.

    Intervals and what else stands behind a figure are set small below it. A column whose cells are all empty is left
    out, the two names that a row begins with are said once, and a rule parts what the first column calls by different
    names; a long table is parted there into several. The lines that rebuild the weights are comments.
    """
    columns = [j for j in range(len(table.header)) if any(row[j] for row in table.rows)]
    names = [j for j in columns if _is_name(table, j)]
    at = table.footer.index(REBUILD) if REBUILD in table.footer else len(table.footer)
    return "\n".join([
        _NEEDS,
        r"\begingroup",
        *(line for rows in _parts(table) for line in _tabular(table, rows, columns, names)),
        r"\scriptsize\raggedright", *(rf"{escape_tex(line)}\par" for line in table.footer[:at]), r"\endgroup",
        *(f"% {_line(line)}" for line in table.footer[at:]), "",
    ])  # fmt: skip


def _parts(table: Table) -> list[list[int]]:
    """Part the rows where the first column changes, so that no part is longer than a page holds if it can be."""
    blocks = [list(rows) for _, rows in groupby(range(len(table.rows)), key=lambda i: table.rows[i][0])]
    parts: list[list[int]] = [[]]
    for block in blocks:
        if parts[-1] and len(parts[-1]) + len(block) > _PAGE:
            parts.append([])
        parts[-1] += block
    return parts


def _tabular(table: Table, rows: Sequence[int], columns: Sequence[int], names: Sequence[int]) -> list[str]:
    shape = "".join("l" if j in names else "r" for j in columns)
    head = " & ".join(_tex_heading(table.header[j], "l" if j in names else "r") for j in columns) + r" \\"
    return [
        r"\sbox0{%",
        rf"\begin{{tabular}}{{@{{}}{shape}@{{}}}}", r"\toprule", head, r"\midrule",
        *_tex_rows(table, rows, columns, names), r"\bottomrule", r"\end{tabular}}%",
        r"\ifdim\wd0>\linewidth\sbox0{\resizebox{\linewidth}{!}{\usebox0}}\fi",
        r"\ifdim\dimexpr\ht0+\dp0\relax>.9\textheight\sbox0{\resizebox*{!}{.9\textheight}{\usebox0}}\fi",
        r"\noindent\usebox0\par\smallskip",
    ]  # fmt: skip


def _is_name(table: Table, column: int) -> bool:
    """Tell whether a column holds names: nothing in it is marked or has an interval."""
    marked = any(j == column for _, j in table.marks)
    return not marked and not any(_MEASURED.match(row[column]) for row in table.rows)


def _tex_rows(table: Table, rows: Sequence[int], columns: Sequence[int], names: Sequence[int]) -> Iterator[str]:
    before: tuple[str, ...] = ()
    for i in rows:
        row = table.rows[i]
        if before and row[0] != before[0]:
            yield r"\midrule"
        said = 2 if row[:2] == before[:2] else 1 if row[:1] == before[:1] else 0
        texts = [
            "" if j < said else _tex_name(row[j]) if j in names else _tex_cell(row[j], table.mark(i, j))
            for j in columns
        ]
        yield " & ".join(texts) + r" \\"
        before = row


def _tex_heading(text: str, side: str) -> str:
    name, *rest = text.split(", ")
    return _stacked(side, escape_tex(name), rest)


def _tex_name(text: str) -> str:
    """Set what stands in brackets, and all but the first of a list, below the name."""
    first, *rest = re.split(r" (?=\()|(?<=[,;]) ", text)
    return _stacked("l", escape_tex(first), rest)


def _tex_cell(text: str, mark: Mark) -> str:
    """Set the figure with its weight and sign, what stands behind it below."""
    figure, _, rest = text.partition(" ")
    if not _FIGURE.fullmatch(figure):
        return _tex_name(text)
    figure = figure.replace("-", "$-$")
    figure = {"": "{}", "bold": r"\textbf{{{}}}", "underline": r"\underline{{{}}}"}[mark.weight].format(figure)
    sign = _TEX_SIGNS[mark.sign]
    below = [part for part in re.split(r"(?<=\]) | (?=\()", rest) if part]
    return _stacked("r", f"{figure}{'~' if sign else ''}{sign}", below)


def _stacked(side: str, top: str, below: Sequence[str]) -> str:
    if not below:
        return top
    small = r"\\[-2pt]".join(rf"{{\scriptsize {escape_tex(part)}}}" for part in below)
    return rf"\begin{{tabular}}[t]{{@{{}}{side}@{{}}}}{top}\\[-2pt]{small}\end{{tabular}}"


# ------------------------------------------------------------------------------------------------------- HTML


def as_html(table: Table) -> str:
    def safe(text: str) -> str:
        return html.escape(escaped(text, keep="\n"))

    def cell(i: int, j: int, text: str) -> str:
        mark = table.mark(i, j)
        names = " ".join(name for name in (mark.sign, mark.weight and f"is-{mark.weight}") if name)
        kind = f' class="{names}"' if names else ""
        title = f' title="{safe(mark.title)}"' if mark.title else ""
        shown = _spelled(safe(text), mark, lambda x: f"<b>{x}</b>", lambda x: f"<u>{x}</u>", SIGNS[mark.sign])
        return f"<td{kind}{title}>{shown}</td>"

    head = "".join(f"<th>{safe(text)}</th>" for text in table.header)
    rows = "\n".join(
        "<tr>" + "".join(cell(i, j, text) for j, text in enumerate(row)) + "</tr>" for i, row in enumerate(table.rows)
    )
    notes = "\n".join(safe(line) for line in table.footer)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n<pre>{notes}</pre>\n"


FORMATS: Mapping[str, Callable[[Table], str]] = {"md": markdown, "csv": as_csv, "tex": latex, "html": as_html}
