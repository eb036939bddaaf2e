"""What a table is: columns, rows of cells, and notes. Formats and the page render it; nothing reads text back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from m3_exp.stats.estimate import Estimate
from m3_exp.stats.scored import scored
from m3_exp.types import ResultRecord

Sign = Literal["", "better", "worse", "untold", "same"]  # what a comparison says of a cell
SPOKEN: Mapping[Sign, str] = {"better": "better", "worse": "worse", "untold": "not told apart", "": "no claim"}
SIGNS: Mapping[Sign, str] = {"": "", "better": "▲", "worse": "▼", "untold": "≈", "same": "="}
Record = Mapping[str, Any]  # a JSON object, a line of CSV
REBUILD = "weights and the line that rebuilds them:"


@dataclass(frozen=True)
class Mark:
    """A cell's mark: a sign (better, worse), a weight, and `title`, the details that the page shows on demand."""

    sign: Sign = ""
    weight: Literal["", "bold", "underline"] = ""
    title: str = ""


@dataclass(frozen=True)
class Figure:
    """A number as it is printed, in percent or points, with its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None
    signed: bool = False

    def __str__(self) -> str:
        return self._written(self.value)

    @property
    def interval(self) -> str:
        if self.low is None or self.high is None:
            return ""
        return f"[{self._written(self.low)}, {self._written(self.high)}]"

    def _written(self, number: float) -> str:
        return f"{number:{'+' if self.signed else ''}.1f}"


def percent(estimate: Estimate, *, signed: bool = False) -> Figure:
    """Return an estimate from 0 to 1 as it is printed."""
    return Figure(100 * estimate.value, 100 * estimate.low, 100 * estimate.high, signed)


def score_of(record: ResultRecord) -> Figure:
    """Return the score of a result that has one, with the interval of its items."""
    assert record.result.score is not None
    items = scored(record).percent()
    return Figure(record.result.score, *((items.low, items.high) if items else ()))


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a figure with `lines` of words after it, or words alone.

    `detail` follows words in brackets, as hyper-parameters follow a method. `record`: the cell as data; the cells of a
    row that are one record share it. `keys`: the plan's cells that the figure is computed from.
    """

    lines: tuple[str, ...] = ()
    figure: Figure | None = None
    mark: Mark = field(default=Mark(), repr=False)
    detail: str = ""
    record: Record | None = field(default=None, repr=False)
    keys: tuple[str, ...] = field(default=(), repr=False)

    @property
    def top(self) -> str:
        return " ".join(self.lines) if self.figure is None else str(self.figure)

    @property
    def below(self) -> tuple[str, ...]:
        """What follows the figure: its interval, then the lines. What follows words: the detail, in brackets."""
        if self.figure is None:
            return (f"({self.detail})",) if self.detail else ()
        return (self.figure.interval, *self.lines) if self.figure.interval else self.lines

    @property
    def nothing(self) -> bool:
        """Whether it shows `/`, whatever else is known of it."""
        return self.figure is None and self.lines == NOTHING.lines

    def __str__(self) -> str:
        return " ".join([self.top, *self.below])


NOTHING = Cell(("/",))
NO_FIGURE = "/: nothing to show: that benchmark is not asked of these models, or there is no row to compare with."


def words(text: str, detail: str = "") -> Cell:
    """Return a cell without a figure; `detail` follows the text in brackets."""
    return Cell((text,), detail=detail)


@dataclass(frozen=True)
class Column:
    """A heading: a name, then details after commas.

    `benchmark`: whose figures the column holds. `what`: which of its figures, if it has several columns. `names`:
    whether it holds what names a row, and no figures.
    """

    name: str
    details: tuple[str, ...] = ()
    benchmark: str = ""
    what: str = ""
    names: bool = False

    def __str__(self) -> str:
        return ", ".join([self.name, *self.details])


@dataclass(frozen=True)
class Rebuild:
    """The note that lists what rebuilds the weights: their digests, each with its `m3 merge` line."""

    lines: tuple[tuple[str, str], ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(f"{digest:12} {line}" for digest, line in self.lines)


@dataclass(frozen=True)
class Table:
    """What is printed: columns, rows and notes; `records` is the same as data.

    `brief`: what a terminal says in place of the notes, in few sentences.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str | Rebuild, ...] = ()
    brief: tuple[str, ...] = ()

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(map(str, self.columns))

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The rows as they are read, without marks."""
        return tuple(tuple(map(str, row)) for row in self.rows)

    @property
    def no_figure(self) -> tuple[str, ...]:
        """What `/` means, where a cell shows it."""
        return (NO_FIGURE,) if any(cell.nothing for row in self.rows for cell in row) else ()

    @property
    def explained(self) -> tuple[str | Rebuild, ...]:
        """The notes, and what `/` means where it is shown."""
        return (*self.notes[:1], *self.no_figure, *self.notes[1:])

    @property
    def footer(self) -> tuple[str, ...]:
        """The notes line by line."""
        return tuple(
            line
            for note in self.explained
            for line in ([note] if isinstance(note, str) else [REBUILD, *(f"  {text}" for text in note.texts)])
        )

    @property
    def records(self) -> tuple[Record, ...]:
        every = (cell.record for row in self.rows for cell in row)
        return tuple({id(record): record for record in every if record is not None}.values())


def named_columns(names: Sequence[str]) -> tuple[Column, ...]:
    """Return columns that name a row."""
    return tuple(Column(name, names=True) for name in names)
