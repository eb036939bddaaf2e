"""A table in LaTeX (booktabs), scaled to the line and page where it is larger, with its notes below."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from m3_exp.reading.shown import escaped
from m3_exp.reporting.table import REBUILD, Cell, Column, Mark, Rebuild, Sign, Table

_SIGNS: Mapping[Sign, str] = {
    "": "", "better": r"$\blacktriangle$", "worse": r"$\blacktriangledown$", "untold": r"$\approx$", "same": "$=$"
}  # fmt: skip
_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"$\sim$", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "-": "{-}",
    "[": "{[}", "]": "{]}", '"': "''", "'": "{'}", "`": "{`}",
    "▲": _SIGNS["better"], "▼": _SIGNS["worse"], "≈": _SIGNS["untold"], "≤": r"$\leq$", "≥": r"$\geq$",
    "λ": r"$\lambda$", "α": r"$\alpha$", "×": r"$\times$", "±": r"$\pm$", "−": "$-$", "–": "--", "…": r"\dots{}",
}  # fmt: skip
_NEEDS = r"% needs \usepackage{booktabs,graphicx,amssymb}"
_PAGE = 40  # rows
_BREAKS = re.compile(r" (?=\()|(?<=[,;]) ")  # where words may go on below: before brackets, after commas


def on_one_line(text: str) -> str:
    """Return a text on one line, with what is not printable spelled out."""
    return escaped(" ".join(text.split("\n")))


def escape(text: str) -> str:
    """Escape text for LaTeX. Characters beyond ASCII that no line of ours holds are spelled as their code point."""
    return "".join(
        _ESCAPES.get(char) or (char if " " <= char <= "~" else _code_point(char)) for char in on_one_line(text)
    )


def _code_point(char: str) -> str:
    return " " if char.isspace() else rf"\texttt{{U+{ord(char):04X}}}"


def latex(table: Table) -> str:
    """Return booktabs tabulars and the notes.

    What follows a figure (its interval, words) is set small below it. A column whose cells are all empty is left out.
    The first two names of a row are printed once for rows that share them. A rule separates rows whose first name
    differs; there a long table is split into several. The lines that rebuild the weights are comments.
    """
    columns = [j for j in range(len(table.columns)) if any(str(row[j]) for row in table.rows)]
    notes = [note for note in table.explained if isinstance(note, str)]
    comments = [
        line for note in table.notes if isinstance(note, Rebuild) for line in (REBUILD, *(f"  {x}" for x in note.texts))
    ]
    return "\n".join([
        _NEEDS,
        r"\begingroup",
        *(line for rows in _parts(table) for line in _tabular(table, rows, columns)),
        r"\scriptsize\raggedright", *(rf"{escape(note)}\par" for note in notes), r"\endgroup",
        *(f"% {on_one_line(line)}" for line in comments), "",
    ])  # fmt: skip


def _parts(table: Table) -> list[list[tuple[Cell, ...]]]:
    """Split the rows where the first column changes, so that each part fits on a page if it can."""
    parts: list[list[tuple[Cell, ...]]] = [[]]
    for _, rows in groupby(table.rows, key=lambda row: str(row[0])):
        block = list(rows)
        if parts[-1] and len(parts[-1]) + len(block) > _PAGE:
            parts.append([])
        parts[-1] += block
    return parts


def _tabular(table: Table, rows: Sequence[Sequence[Cell]], columns: Sequence[int]) -> list[str]:
    sides = {j: "r" if any(map(_measured, (row[j] for row in table.rows))) else "l" for j in columns}
    head = " & ".join(_stacked(sides[j], _heading(table.columns[j])) for j in columns) + r" \\"
    return [
        r"\sbox0{%",
        rf"\begin{{tabular}}{{@{{}}{''.join(sides.values())}@{{}}}}", r"\toprule", head, r"\midrule",
        *_rows(rows, sides), r"\bottomrule", r"\end{tabular}}%",
        r"\ifdim\wd0>\linewidth\sbox0{\resizebox{\linewidth}{!}{\usebox0}}\fi",
        r"\ifdim\dimexpr\ht0+\dp0\relax>.9\textheight\sbox0{\resizebox*{!}{.9\textheight}{\usebox0}}\fi",
        r"\noindent\usebox0\par\smallskip",
    ]  # fmt: skip


def _measured(cell: Cell) -> bool:
    """Tell whether a cell makes its column one of figures: it has a mark or an interval."""
    return cell.mark != Mark() or (cell.figure is not None and bool(cell.figure.interval))


def _heading(column: Column) -> list[str]:
    return [escape(text) for text in (column.name, *column.details)]


def _rows(rows: Sequence[Sequence[Cell]], sides: Mapping[int, str]) -> Iterator[str]:
    before: list[str] = []
    for row in rows:
        names = [str(cell) for cell in row[:2]]
        if before and names[0] != before[0]:
            yield r"\midrule"
        repeated = 2 if names == before else 1 if names[:1] == before[:1] else 0
        yield " & ".join("" if j < repeated else _cell(row[j], side) for j, side in sides.items()) + r" \\"
        before = names


def _cell(cell: Cell, side: str) -> str:
    """Set a figure with its weight and sign, what follows it below; of words the first part, the rest below."""
    if cell.figure is None or side == "l":
        return _stacked("l", [escape(part) for part in _BREAKS.split(str(cell))])
    figure = {"": "{}", "bold": r"\textbf{{{}}}", "underline": r"\underline{{{}}}"}[cell.mark.weight].format(
        cell.top.replace("-", "$-$")
    )
    return _stacked("r", ["~".join(filter(None, [figure, _SIGNS[cell.mark.sign]])), *map(escape, cell.below)])


def _stacked(side: str, lines: Sequence[str]) -> str:
    if len(lines) == 1:
        return lines[0]
    small = r"\\[-2pt]".join(rf"{{\scriptsize {line}}}" for line in lines[1:])
    return rf"\begin{{tabular}}[t]{{@{{}}{side}@{{}}}}{lines[0]}\\[-2pt]{small}\end{{tabular}}"
