"""A table as it is read on a terminal: no line is wider than the width, and no cell is left out.

Columns of like benchmarks (their `area`) form a block; where they are too wide, several. What is the same in all rows
stands above, the names of the rows in an outline at the left:

    maths                      gsm8k                 hendrycks_math
                               accuracy              accuracy
                               n=20                  n=20
    ────────────────────────────────────────────────────────────────────
    lm_math
      average
        no M3                  50.0 [29.9, 70.1]     30.0 [14.3, 52.1]
        M3 fixed, lambda 0.25  80.0 ≈ [57.8, 92.5]   55.0 ≈ [34.2, 74.2]

A row without a figure in a block is left out of that block. An interval stands beside its figure where that leaves room
for two columns, else below.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from m3_exp.benchmarks import about
from m3_exp.reading.shown import escaped, laid, length, padded, wrapped
from m3_exp.reporting.table import SIGNS, Cell, Column, Table
from m3_exp.stats import unread

_GAP = 2  # blanks between columns
_NAMES = 26  # columns that the names of rows may take of any width
_WORDS = 18  # as wide as this a column gets for words that are so long
_ALARMS = ("WARNING", "failed:", unread.SAID)
_MOST = 3  # alarms that are shown, and notes of a table that has no short ones
_WHERE = 'Words: README, "Ten words". All notes, weights and how to rebuild them:'
_LEVELS = ("recipe", "models", "method", "benchmark")  # each a level of the outline
_BARE = (*_LEVELS, "weights")  # names that are understood without being said
_STYLES: Mapping[bool, Mapping[str, str]] = {
    True: {"": "{}", "bold": "\x1b[1m{}\x1b[0m", "underline": "\x1b[4m{}\x1b[0m"},
    False: {"": "{}", "bold": "**{}**", "underline": "_{}_"},
}
_SLASH = re.compile(r"(^|\s)/(\s|$)")
_NUMBER = re.compile(r"[-+]?\d\S{,6}")

Names = Mapping[str, str]  # what names a row, by the names of the columns


def text(table: Table, width: int, *, styled: bool = False, whole: str = "") -> str:
    """Return a table with its short notes.

    `styled`: bold and underlined by a terminal's codes, in place of `**40.0**` and `_40.0_`. `whole`: the command that
    shows all notes.
    """
    shown = lines(table, width, styled=styled)
    explained = table.no_figure if any(_SLASH.search(line) for line in shown) else ()
    return "\n".join([*shown, *notes(table, width, (*explained, *_where(whole))), ""])


def lines(table: Table, width: int, *, styled: bool = False) -> list[str]:
    """Return the blocks of a table, an empty line after each."""
    named = [column.names for column in table.columns]
    named = named if any(named) else [j == 0 for j in range(len(named))]
    if not table.rows:
        return [*wrapped(escaped(f"No rows. Columns: {'; '.join(table.header)}."), width), ""]
    names = [
        {escaped(c.name): escaped(str(cell)) for c, cell, own in zip(table.columns, row, named, strict=True) if own}
        for row in table.rows
    ]
    above = _above(names)
    paths = [_path({name: text for name, text in one.items() if name not in above}) for one in names]
    cells = [tuple(cell for cell, own in zip(row, named, strict=True) if not own) for row in table.rows]
    rows = _outlined([_Row(*pair) for pair in zip(paths, cells, strict=True)])
    columns = [column for column, own in zip(table.columns, named, strict=True) if not own]
    said = [line for text in _said(above, names) for line in wrapped(text, width)]
    blocks = [line for block in _blocks(columns, rows, width, styled) for line in (*block.lines(), "")]
    return [*said, *([""] if said else []), *blocks]


def notes(table: Table, width: int, last: Sequence[str] = ()) -> list[str]:
    """Return what a terminal says below a table: its short notes and what went wrong, then some lines of others."""
    alarms = [note for note in table.notes if isinstance(note, str) and note.startswith(_ALARMS)]
    known = table.brief or tuple(note for note in table.notes if isinstance(note, str))[:_MOST]
    more = len(alarms) - _MOST
    said = [
        *(note for note in known if note not in alarms),
        *alarms[:_MOST],
        *([f"and {more} more of these"] if more > 0 else []),
        *last,
    ]
    return [part for line in said for part in laid(escaped(line), width, hang=0)]


def _where(whole: str) -> list[str]:
    return [_WHERE, f"  {whole}"] if whole else []


# ----------------------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class _Row:
    """A row by its place in the outline, outermost name first, and its cells that are no names."""

    path: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def indent(self) -> int:
        return 2 * (len(self.path) - 1)


def _above(rows: Sequence[Names]) -> dict[str, str]:
    """Return the names that are said once, above: the same in all rows, or in all with M3. They tell no rows apart."""
    above: dict[str, str] = {}
    for name in rows[0] if len(rows) > 1 else ():
        values = {row[name] for row in rows}
        same = len(values) == 1 or values == {"no", ""} or _with_m3(name, rows)
        others = [other for other in rows[0] if other != name and other not in above]
        if name != "method" and same and others and _distinct(rows, others) == _distinct(rows, [*others, name]):
            above[name] = max(values)
    return above


def _with_m3(name: str, rows: Sequence[Names]) -> bool:
    """Tell whether the rows with M3 have one value, and the others none."""
    mixed = [row.get("M3", "") not in ("", "no") for row in rows]
    return all(bool(row[name]) == m3 for row, m3 in zip(rows, mixed, strict=True)) and len({r[name] for r in rows}) == 2


def _distinct(rows: Sequence[Names], names: Sequence[str]) -> int:
    return len({tuple(row[name] for name in names) for row in rows})


def _said(above: Names, rows: Sequence[Names]) -> Iterator[str]:
    mixed = {name for name in above if _with_m3(name, rows)}
    for who, own in (("All rows", above.keys() - mixed), ("Rows with M3", mixed)):
        if texts := [_spoken(name, value) for name, value in above.items() if name in own and value]:
            yield f"{who}: {', '.join(texts)}"


def _spoken(name: str, value: str) -> str:
    """Return what a name says of a row: `no DARE`, `M3`, `lambda 0.25`, `magnitude (density 0.7)`."""
    if value in ("no", "yes"):
        return f"no {name}" if value == "no" else name
    if name == "DARE":  # another sparsifier, by its name
        return value
    return value if name in _BARE else f"{name} {value}".removeprefix(" ")


def _path(names: Names) -> tuple[str, ...]:
    if names.get("method") == "single":
        return "single models", names.get("models", "")
    rest = ", ".join(_spoken(*pair) for pair in names.items() if pair[0] not in _LEVELS and pair[1])
    return tuple(filter(None, [*(names.get(name, "") for name in _LEVELS), rest])) or ("",)


def _outlined(rows: Sequence[_Row]) -> list[_Row]:
    """Bring rows of one heading together, in the order in which headings and rows first come."""
    first: dict[tuple[str, ...], int] = {}
    for at, row in enumerate(rows):
        for depth in range(1, len(row.path) + 1):
            first.setdefault(row.path[:depth], at)
    return sorted(rows, key=lambda row: [first[row.path[: depth + 1]] for depth in range(len(row.path))])


# -------------------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True)
class _Laid:
    """A column that is laid out.

    `width`: all of it; `number`: its figures without signs and intervals. `flat`: intervals stand beside figures, not
    below. `shown`: which rows have something here.
    """

    column: Column
    width: int
    number: int
    sign: bool
    flat: bool
    styled: bool
    shown: tuple[bool, ...]

    @classmethod
    def of(cls, column: Column, cells: Sequence[Cell], flat: bool, styled: bool) -> "_Laid":
        figured = [cell for cell in cells if cell.figure is not None]
        values = [_STYLES[styled][cell.mark.weight].format(cell.top) for cell in figured]
        values += [str(cell) for cell in cells if cell.figure is None and _NUMBER.fullmatch(str(cell))]
        shown = tuple(bool(str(cell)) and not cell.nothing for cell in cells)
        sign = any(cell.mark.sign for cell in cells)
        one = cls(column, 0, max(map(length, values), default=0), sign, flat, styled, shown)
        heads = [escaped(text) for text in (column.name, *column.details)]
        words = [*(part for text in heads for part in re.findall(r"[^_ ]+_?", text)), *map(escaped, one.words(cells))]
        widths = [
            *(length(line) for cell in figured for line in one.figure(cell)),
            *(min(length(text), _WORDS) for text in words),
            *(min((length(text) + 1) // 2, _WORDS) for text in heads),
        ]
        return replace(one, width=max(widths, default=1))

    @staticmethod
    def words(cells: Sequence[Cell]) -> list[str]:
        return [line for cell in cells for line in (cell.lines if cell.figure or not cell.detail else [str(cell)])]

    @property
    def head(self) -> list[str]:
        parts = (escaped(part) for part in (self.column.name, *self.column.details))
        return [line for part in parts for line in wrapped(part, self.width)]

    def figure(self, cell: Cell) -> list[str]:
        """Return a figure with its weight and sign, and its interval."""
        value = _STYLES[self.styled][cell.mark.weight].format(cell.top)
        start = " " * (self.number - length(value)) + value
        interval = cell.figure.interval if cell.figure else ""
        if self.sign:
            start += f" {SIGNS[cell.mark.sign] or ' '}"
        return [f"{start} {interval}".rstrip()] if self.flat else [start.rstrip(), *filter(None, [interval])]

    def lines(self, cell: Cell) -> list[str]:
        said = [line for words in self.words([cell]) for line in wrapped(escaped(words), self.width)]
        if cell.figure is not None:
            return [line for part in self.figure(cell) for line in wrapped(part, self.width)] + said
        if len(said) == 1 and _NUMBER.fullmatch(said[0]):
            said = [said[0].rjust(self.number)]
        return [*said[:-1], " ".join(filter(None, [*said[-1:], SIGNS[cell.mark.sign]]))]


def _blocks(columns: Sequence[Column], rows: Sequence[_Row], width: int, styled: bool) -> list["_Block"]:
    """Return the blocks: the columns of each area, cut where they are wider than a line."""
    beside, below = (
        [_Laid.of(column, [row.cells[j] for row in rows], flat, styled) for j, column in enumerate(columns)]
        for flat in (True, False)
    )
    areas: dict[str, list[int]] = {} if columns else {"": []}
    for j, column in enumerate(columns):
        areas.setdefault(about(column.benchmark).area if column.benchmark else "", []).append(j)
    spare = width - max(_wide({j: beside[j] for j in own}) for own in areas.values())
    labels = min(max(row.indent + length(row.path[-1]) for row in rows), max(_NAMES, 2 * width // 5, spare))
    room = width - labels
    blocks: list[_Block] = []
    for area, own in areas.items():
        parts = list(_cut({j: beside[j] for j in own}, room))
        if len(parts) == len(own) > 1 or max(map(_wide, parts)) > room:
            parts = list(_cut({j: replace(below[j], width=min(below[j].width, room - _GAP)) for j in own}, room))
        blocks += [_Block(area, labels, width, part, rows) for part in parts]
    anywhere = [any(one.shown[at] for block in blocks for one in block.columns.values()) for at in range(len(rows))]
    nowhere = frozenset(at for at, known in enumerate(anywhere) if not known)
    return [replace(blocks[0], also=nowhere), *blocks[1:]]


def _cut(columns: Mapping[int, _Laid], room: int) -> Iterator[Mapping[int, _Laid]]:
    """Cut a run of columns into parts that fit."""
    if _wide(columns) <= room:
        yield columns
        return
    part: dict[int, _Laid] = {}
    for unit in _units(columns, room, [lambda one: one.shown, lambda one: one.column.benchmark or one.column]):
        if part and _wide({**part, **unit}) > room:
            yield part
            part = {}
        part |= unit
    yield part


def _units(
    columns: Mapping[int, _Laid], room: int, alike: Sequence[Callable[[_Laid], object]]
) -> Iterator[Mapping[int, _Laid]]:
    """Give the columns that stay together where they can: those with the same rows, those of one benchmark."""
    if not alike:
        yield from ({j: one} for j, one in columns.items())
        return
    for key in dict.fromkeys(alike[0](one) for one in columns.values()):
        unit = {j: one for j, one in columns.items() if alike[0](one) == key}
        yield from [unit] if _wide(unit) <= room else _units(unit, room, alike[1:])


def _wide(columns: Mapping[int, _Laid]) -> int:
    return sum(_GAP + one.width for one in columns.values())


# --------------------------------------------------------------------------------------------------------- blocks


@dataclass(frozen=True)
class _Block:
    """Columns that stand side by side, below the name of their area.

    `labels`: the width of the names; `line`: that of all there is. `also`: rows that are shown here, although they have
    nothing in any block.
    """

    area: str
    labels: int
    line: int
    columns: Mapping[int, _Laid]
    rows: Sequence[_Row]
    also: frozenset[int] = frozenset()

    @property
    def width(self) -> int:
        return self.labels + _wide(self.columns)

    def lines(self) -> list[str]:
        """Return header, rule and the rows that have something here."""
        lines = [*self._head(), "─" * self.width]
        before: tuple[str, ...] = ()
        for at, row in enumerate(self.rows):
            if at not in self.also and not any(one.shown[at] for one in self.columns.values()):
                continue
            for depth, heading in enumerate(row.path[:-1]):
                if before[: depth + 1] != row.path[: depth + 1]:
                    lines += wrapped(" " * 2 * depth + heading, self.line, 2 * depth + 2)
            before = row.path
            lines += self._row(row)
        return lines

    def _head(self) -> list[str]:
        """Return the headings; the area beside them, or above where it is wider than the names."""
        heads = [one.head for one in self.columns.values()]
        high = max(map(len, heads), default=0)
        beside = length(self.area) <= self.labels
        lines = self._beside([self.area] if beside else [], [[*[""] * (high - len(head)), *head] for head in heads])
        return [*([] if beside else wrapped(self.area, self.line)), *lines]

    def _row(self, row: _Row) -> list[str]:
        label = wrapped(" " * row.indent + row.path[-1], max(self.labels, 1), min(row.indent + 2, self.labels // 2))
        cells = ((one, row.cells[j]) for j, one in self.columns.items())
        return self._beside(label, [one.lines(cell) for one, cell in cells])

    def _beside(self, label: Sequence[str], columns: Sequence[Sequence[str]]) -> list[str]:
        widths = [self.labels, *(one.width for one in self.columns.values())]
        texts = zip_longest(label, *columns, fillvalue="")
        return [(" " * _GAP).join(map(padded, parts, widths)).rstrip() for parts in texts]
