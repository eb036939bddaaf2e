"""The data of a report page: plain values, so that a page can be built from a store or by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from m3_exp.reporting.table import Table
from m3_exp.types import Cell, Json, ResultRecord


@dataclass(frozen=True)
class Item:
    """One item of a cell, one sample: what was asked, what the model wrote, and the verdict on it.

    `prompt` and `answer` are None where the store does not have them any more; `value` is None for unscored.
    """

    id: str
    prompt: str | None
    answer: str | None
    value: float | None
    sample: int = 0
    extracted: str | None = None
    reason: str | None = None
    finish: str = ""
    n_tokens: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CellData:
    """A planned cell, its stored result (None: missing), why it failed, and its items one by one.

    `merge` rebuilds its weights, `retry` runs it again; `note` says why texts are missing, if they are.
    """

    cell: Cell
    record: ResultRecord | None
    failure: str | None
    merge: str
    retry: str
    items: tuple[Item, ...] = ()
    note: str = ""

    @property
    def key(self) -> str:
        """Its address in the page, `#cell/KEY`: the same in every report of the same cell."""
        return self.cell.short_key

    @property
    def state(self) -> str:
        """`done`, `incomplete` (items unscored), `failed`, or `left`."""
        if self.record is not None:
            return "incomplete" if self.record.result.n_unscored else "done"
        return "failed" if self.failure else "left"


@dataclass(frozen=True)
class StudyData:
    """What the page shows of a study: its name, its two main sentences, and its curves as page.js draws them."""

    name: str
    answer: tuple[str, ...]
    curves: Json


@dataclass(frozen=True)
class PageData:
    """One report. `command` runs what is shown, `rebuild` makes this page again, `made` is when it was made.

    `models` names what was merged (`math` -> its source), `experts` those of each pair, `versions` what it was made
    with. `first` are the sentences that it begins with.
    """

    title: str
    command: str
    rebuild: str
    made: str
    tables: tuple[Table, ...]
    studies: tuple[StudyData, ...]
    cells: tuple[CellData, ...]
    models: Mapping[str, str] = field(default_factory=dict)
    experts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
