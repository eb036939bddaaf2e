"""A store as its files are. Nothing is set aside, repaired or written, whatever is found.

shelf = Shelf(Path("results/store"))
shelf.keys("merges")                        the keys of a kind; of `results` as CELL/NAME
shelf.read("merges", key, Merge)            the record, or Wrong
shelf.lines(path)                           the lines of a journal, or Wrong
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from m3_exp.reading.files import cannot_read
from m3_exp.reading.records import Damaged, unsealed, untouched
from m3_exp.store import (
    AnswerSet,
    Cutoff,
    FailureNote,
    Inputs,
    Majority,
    Measured,
    Merge,
    PastRun,
    Prepared,
    Rate,
    Rendered,
    RunRecord,
    Spelled,
    Store,
    StoredAnswer,
    WorkerRecord,
    decoded,
)
from m3_exp.types import Json, M3Error, Plan, ResultRecord

T = TypeVar("T")

# Every kind of record, as its folder is called, with what it holds. Those of results lie in a folder for each cell.
KINDS: Mapping[str, tuple[type, ...]] = {
    "plans": (Plan,), "history": (PastRun,), "runs": (RunRecord,), "merges": (Merge,), "answer_sets": (AnswerSet,),
    "repeat_sets": (AnswerSet,), "conditions": (dict,), "prepared": (Prepared,), "failures": (FailureNote,),
    "results": (ResultRecord,), "repeats": (ResultRecord,), "spelled": (Spelled,), "rates": (Rate,),
    "workers": (WorkerRecord,), "rendered": (Rendered,), "inputs": (Inputs,), "scans": (Cutoff, Majority),
    "loading": (dict,), "statistics": (Measured,),
}  # fmt: skip
SIGNS = ("runs", "workers")  # of life, each beside a lock: they go with who gives them
NESTED = ("results", "repeats")
JUDGMENTS = "judgments"  # what judges said, which was paid for: records in folders of their own
DERIVED = (
    "rendered",
    "inputs",
    "scans",
    "loading",
    "statistics",
)  # remembered to save time, made again where they are missing


class Wrong(Exception):
    """A file is not what it should be; the message says how that was noticed."""


@dataclass(frozen=True)
class Fault:
    """What is wrong: the file (below the store), how that was noticed, and what to do."""

    file: str
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.do}"


class Shelf:
    """A store that is only looked at.

    Raises:
        M3Error: it was written by a later m3, or is no store, or may not be read.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise M3Error(f"store={root} does not exist: give the folder of a store, as store=results/store")
        self.root = root
        self.bare = _is_bare(root)

    def keys(self, kind: str) -> Iterator[str]:
        """Give the keys of a kind in their order; of results and repeats CELL/NAME."""
        folder = self.root / kind
        for name in _names(folder):
            if kind in NESTED:
                yield from (f"{name}/{inner[:-5]}" for inner in _names(folder / name) if inner.endswith(".json"))
            elif name.endswith(".json"):
                yield name[:-5]

    def within(self, kind: str, cell_key: str) -> list[str]:
        """Return the keys of one cell's results."""
        inside = _names(self.root / kind / cell_key)
        return [f"{cell_key}/{name[:-5]}" for name in inside if name.endswith(".json")]

    def json(self, kind: str, key: str) -> Json:
        """Return a record as it is written.

        Raises:
            Wrong: it is damaged.
            FileNotFoundError: there is none.
            M3Error: this user may not read it.
        """
        path = self.path(kind, key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise cannot_read(path, error) from error
        try:
            bare = self.bare and kind not in ("rendered", "inputs", "scans", "statistics")
            return unsealed(data, f"{kind}/{key}", bare=bare, columns="scores" if kind in NESTED else "")
        except Damaged as damage:
            raise Wrong(str(damage)) from None

    def read(self, kind: str, key: str, record_type: type[T]) -> T:
        """Return a record; raises as `json`, and Wrong where it holds something else than its kind does."""
        return typed(self.json(kind, key), record_type, self.path(kind, key))

    def find(self, kind: str, key: str, record_type: type[T]) -> T | None:
        """Return a record, None where it is missing or wrong."""
        try:
            return self.read(kind, key, record_type)
        except (Wrong, FileNotFoundError):
            return None

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / f"{key}.json"

    def journals(self, key: str) -> list[Path]:
        """Return the files of a set of answers, in the order in which they are read."""
        folder = self.root / "answers" / key
        return [folder / name for name in _names(folder) if name.endswith(".jsonl")]

    def answer_keys(self) -> list[str]:
        return _names(self.root / "answers")

    def lines(self, path: Path) -> Iterator[StoredAnswer]:
        """Give the answers of a journal. What follows the last line break is what a kill left, and is no answer.

        Raises:
            Wrong: a line is damaged, or holds something else than an answer.
        """
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield _answer(line[:-1], number)

    def answers(self, key: str) -> list[StoredAnswer]:
        """Return the answers of a set as m3 reads them; raises Wrong as `lines`."""
        return [answer for path in self.journals(key) for answer in self.lines(path)]

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def typed(record: Json, record_type: type[T], where: object) -> T:
    """Return a record as its dataclass.

    Raises:
        Wrong: a field is missing or of another type.
    """
    from pydantic import ValidationError

    try:
        return decoded(record_type, record, where)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "it"
        raise Wrong(f"{place} is not what this version of m3 writes ({fault['msg']})") from None


def _answer(line: bytes, number: int) -> StoredAnswer:
    crc, _, body = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(body):
        raise Wrong(f"line {number}: its checksum does not match")
    try:
        answer = StoredAnswer(**json.loads(body))
    except (ValueError, TypeError, RecursionError):
        raise Wrong(f"line {number}: it holds no answer") from None
    texts = (answer.id, answer.text, answer.finish, answer.prompt, answer.run)
    if not all(isinstance(text, str) for text in texts) or type(answer.sample) is not int or answer.sample < 0:
        raise Wrong(f"line {number}: it holds no answer")
    return answer


def _is_bare(root: Path) -> bool:
    """Tell whether records without a checksum are believed, as in a store that is older than checksums."""
    with untouched():
        return Store(root).bare


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise cannot_read(folder, error) from error
