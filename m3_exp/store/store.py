"""The one owner of results/store and of what W&B's folder holds of ours: every path, an accessor for each kind.

store.merges.get(key) -> Merge | None        store.merges.put(key, Merge(...))
store.results(cell_key)                      the records of one cell, by item set
store.answers(key)                           a journal of answers
"""

import contextlib
import errno
import functools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from m3_exp import temporary as temporaries
from m3_exp.command_line import ROOT
from m3_exp.reading.files import cannot_read
from m3_exp.reading.records import columns_text, is_untouched, read_record, say, sealed, set_aside, with_columns
from m3_exp.reading.scores import ScoreColumns, columns
from m3_exp.store import records as kept
from m3_exp.store.files import dumps, names, write_atomic
from m3_exp.store.journal import Journal
from m3_exp.store.leases import Leases
from m3_exp.store.locks import in_turn, locked
from m3_exp.types import Json, M3Error, Plan, ResultRecord, Score, plain

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

DEFAULT_ROOT = ROOT / "results" / "store"  # where store=DIR is not given
STORE_FORMAT = 3  # 2: the scores of a result as rows; 1: also records without checksums. Both are still read.
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class Store:
    """Opens a store; a folder that is not there yet is an empty one, and is made by the first write.

    Raises:
        M3Error: it was written by a later m3, or is no store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.quarantine = root / "quarantine"  # where damaged files are set aside
        self.log = root / "log"  # of engines
        self._began, self._marked = (
            STORE_FORMAT,
            False,
        )  # the format of its first records; whether format.json is as it must be
        self._read_format()
        self.leases = Leases(root / "leases")
        self.inputs = Records(self, "inputs", kept.Inputs, derived=True)
        self.cutoffs = Records(self, "scans", kept.Cutoff, derived=True)
        self.majorities = Records(self, "scans", kept.Majority, derived=True)
        self.statistics = Records(self, "statistics", kept.Measured, derived=True)
        self.loading = Records[Json](self, "loading", dict)  # what transformers makes of a model (merging/loading.py)
        self.rendered = Records(self, "rendered", kept.Rendered, derived=True)
        self.merges = Records(self, "merges", kept.Merge)
        self.answer_sets = Records(self, "answer_sets", kept.AnswerSet)
        self.repeat_sets = Records(self, "repeat_sets", kept.AnswerSet)
        self.conditions = Records[Json](self, "conditions", dict)  # an engine's own facts about a batch
        self.prepared = Records(self, "prepared", kept.Prepared)
        self.spelled = Records(self, "spelled", kept.Spelled)
        self.failures = Records(self, "failures", kept.FailureNote)
        self.plans = Records(self, "plans", Plan, quiet=True)
        self.rates = Records(self, "rates", kept.Rate)
        self.runs = Records(self, "runs", kept.RunRecord, quiet=True)
        self.workers = Records(self, "workers", kept.WorkerRecord, quiet=True)
        self.history = Records(self, "history", kept.PastRun, quiet=True)

    def results(self, cell_key: str, *, repeats: bool = False) -> "Records[ResultRecord]":
        """Return a cell's results. Repeats lie apart, so that nothing takes them for more data."""
        return Records(self, f"{'repeats' if repeats else 'results'}/{cell_key}", ResultRecord)

    def has_repeats(self) -> bool:
        return bool(names(self.root / "repeats"))

    def answers(self, key: str) -> "Answers":
        return Answers(Journal(self.root / "answers" / key, self.quarantine), self)

    def checkpoint(self, digest: str) -> Path:
        """Return the folder of a checkpoint that a run keeps."""
        return self.root / "checkpoints" / digest

    def tokenizer(self, key: str) -> Path:
        """Return the folder of a tokenizer that was converted or gathered, by the digest of what it was made of."""
        return self.root / "tokenizers" / key

    def statistic(self, key: str) -> Path:
        """Return the folder of a statistic's files, by its key."""
        return self.root / "statistics" / key

    def scoring_cache(self, name: str) -> Path:
        """Return the folder of what scoring paid for, such as judgments (scoring/cache.py)."""
        return self.root / name

    def scan_lock(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Let one thread of all processes in at a time, where there are locks."""
        return in_turn(self.root / "locks" / f"scans-{key}.lock")

    def run_lock(self, run: str) -> Path:
        """Return the file that a run holds a lock on as long as it lives."""
        return self.runs.path(run).with_suffix(".lock")

    def worker_lock(self, worker: str) -> Path:
        """Return the file that a worker holds a lock on as long as it lives."""
        return self.workers.path(worker).with_suffix(".lock")

    def launched(self, run: str) -> Path:
        """Return the folder of what a launcher keeps of a run: job scripts and logs."""
        return self.root / "launched" / run

    def clock(self) -> float:
        """Return the time by the clock that dates this store's files: that of the file server, where there is one.

        Ages by it are right on every machine, whatever time each believes in. Where nothing can be written: ours.
        """
        path = self.root / "locks" / "clock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            return path.stat().st_mtime
        except OSError:
            return time.time()

    def sweep(self) -> None:
        """Remove what killed writers left here: temporary files and directories, and locks of no record."""
        self.leases.sweep()
        for kind in ("runs", "workers", "leases"):
            for name in names(self.root / kind):
                path = self.root / kind / name
                if name.endswith(".lock") and not path.with_suffix(".json").exists():
                    with contextlib.suppress(OSError), locked(path, os.O_RDWR):
                        path.unlink()
        for folder, inner, _ in os.walk(self.root):
            inner[:] = [name for name in inner if not name.endswith(".tmp") and Path(folder).name != "checkpoints"]
            temporaries.sweep(Path(folder))

    def mark(self) -> None:
        """Write down the format, and with which one the store began, where it is not there yet."""
        if not self._marked:
            began = {} if self._began == STORE_FORMAT else {"began": self._began}
            write_atomic(self.root / "format.json", dumps({"format": STORE_FORMAT, **began}).encode())
            self._marked = True

    @property
    def bare(self) -> bool:
        """Whether records without a checksum are believed: the store is older than checksums."""
        return self._began == 1

    def _read_format(self) -> None:
        marker = self.root / "format.json"
        try:
            if self.root.exists() and not self.root.is_dir():
                raise M3Error(f"store={self.root} is not a directory")
            data = marker.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise cannot_read(marker, error) from error
        except ValueError as error:
            raise M3Error(f"store={str(self.root)!r} is not the name of a directory ({error})") from error
        try:
            known = json.loads(data)
            number, began = known["format"], known.get("began", known["format"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            number = began = None
        if type(number) is not int or type(began) is not int or min(number, began) < 1:
            set_aside(marker, "format", "it does not name a format", self.quarantine)
            if not is_untouched():
                with contextlib.suppress(OSError):
                    self.mark()
            return
        if number > STORE_FORMAT:
            raise M3Error(
                f"store={self.root} has format {number}, this m3 writes format {STORE_FORMAT}: give another store=DIR"
            )
        self._began, self._marked = began, number == STORE_FORMAT


class WandbFiles:
    """What m3 keeps in the folder `wandb` of a store, or of tracker.dir, beside the runs that W&B writes there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tracked = folder / "tracked"  # a record for each run that is written
        self.lock = self.tracked / "lock"  # of whoever writes runs
        self.quarantine = self.tracked / "quarantine"
        self.log = folder / "sync.log"  # what `wandb sync` said last
        self.data = folder / "data"  # where artifacts wait until they are sent
        self.views = folder / "views.json"  # the addresses of workspace and report

    def marker(self, run: str) -> Path:
        return self.tracked / f"{run}.json"


class Records(Generic[T]):
    """The records of one kind by key: each comes out as the dataclass that it went in as.

    Records of other versions are read too: a field that is missing gets its default, an unknown field is ignored.
    `derived` records are cheap to make again, but wrong ones would change weights: one without a checksum is not used,
    and where this user may not write none is kept. `quiet`: a record that this version cannot read gives no warning.
    """

    def __init__(
        self, store: Store, kind: str, record_type: type[T], *, derived: bool = False, quiet: bool = False
    ) -> None:
        self._store, self._kind, self._type = store, kind, record_type
        self._derived, self._quiet = derived, quiet

    def path(self, key: str) -> Path:
        return self._store.root.joinpath(self._kind, f"{key}.json")

    def get(self, key: str) -> T | None:
        """Return what `put` remembered, or None. A damaged record is named, set aside, and counts as absent.

        Raises:
            M3Error: this user may not read it.
        """
        path = self.path(key)
        bare = self._store.bare and not self._derived
        last = "scores" if self._type is ResultRecord else ""
        record = read_record(path, f"{self._kind}/{key}", self._store.quarantine, bare=bare, columns=last)
        if record is None:
            return None
        try:
            return decoded(self._type, record, path)
        except _pydantic().ValidationError as error:
            if not self._quiet:
                from m3_exp.reading.typed import first_fault

                say(f"{first_fault(error, path)}: it is not what this version of m3 writes, and is not used")
            return None

    def put(self, key: str, value: T) -> None:
        """Remember a value under a key, atomically. The same key always means the same value.

        Raises:
            OSError: it cannot be written.
        """
        try:
            self._store.mark()
            write_atomic(self.path(key), sealed(_encoded(value), f"{self._kind}/{key}"))
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            if not self._derived:
                said = f"{error.strerror}: give a folder that you may write by store=DIR"
                raise OSError(error.errno, said, str(self._store.root)) from error

    def drop(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        """Give the keys in their order."""
        known = names(self._store.root / self._kind)
        yield from sorted(Path(name).stem for name in known if name.endswith(".json"))

    def items(self) -> Iterator[tuple[str, T]]:
        """Give all records that can be read."""
        for key in self:
            if (value := self.get(key)) is not None:
                yield key, value

    def values(self) -> Iterator[T]:
        yield from (value for _, value in self.items())


class Answers(contextlib.AbstractContextManager["Answers"]):
    """The answers under one key, by all writers. To add answers, use it as a context manager."""

    def __init__(self, journal: Journal, store: Store) -> None:
        self._journal, self._store = journal, store

    def __exit__(self, *_: object) -> None:
        self._journal.__exit__()

    def append(self, answer: kept.StoredAnswer) -> None:
        """Add one answer; when this returns it is on disk."""
        self._store.mark()
        self._journal.append(plain(answer))

    def read(self) -> list[kept.StoredAnswer]:
        """Return every writer's answers, by file name and then in the order they were written; the first one counts."""
        return [
            kept.StoredAnswer(r["id"], r["text"], r["sample"], r["n_tokens"], r["finish"], r["prompt"], r["run"])
            for r in self._journal.read()
        ]

    def asked(self) -> set[tuple[str, str, int]]:
        """Return the id, the prompt's hash and the sample of every answer: of a large store without its texts."""
        return {(r["id"], r["prompt"], r["sample"]) for r in self._journal.read()}


def _encoded(value: object) -> str:
    """Return a record as JSON; the scores of a result stand last, a line for each of their columns."""
    record = plain(replace(value, scores=()) if isinstance(value, ResultRecord) else value)
    if isinstance(value, dict):
        return dumps(record)
    body = dumps({name: field for name, field in record.items() if field is not None and name != "scores"})
    if not isinstance(value, ResultRecord):
        return body
    return with_columns(body, "scores", _columns_text(columns(value.scores)))


def _columns_text(lists: Mapping[str, object]) -> str:
    return columns_text({name: dumps(values) for name, values in lists.items()})


def decoded(record_type: type[T], record: Any, where: object = "a record") -> T:
    """Return a JSON object as the dataclass that it was made of; `where` it is from is for errors.

    Raises:
        ValidationError: a field is missing that has no default, or is of another type.
    """
    if record_type is dict:
        return cast(T, record)
    if record_type not in _ADAPTERS:
        _ADAPTERS[record_type] = _pydantic().TypeAdapter(record_type)
    adapter = _ADAPTERS[record_type]
    if record_type is not ResultRecord or "scores" not in record:
        return cast(T, adapter.validate_python(record))
    scores = record["scores"]
    if isinstance(scores, bytes | dict):
        written = scores if isinstance(scores, bytes) else _columns_text(scores).encode()
        columns_of = ScoreColumns(written, where if isinstance(scores, bytes) else str(where))  # as its file has them
        return cast(T, _with_scores(adapter.validate_python({**record, "scores": ()}), columns_of))
    try:
        found = adapter.validate_python(record)
    except _pydantic().ValidationError:
        found = adapter.validate_python({**record, "scores": [_texts(score) for score in scores]})
    return cast(T, _with_scores(found, tuple(cast(ResultRecord, found).scores)))


def _with_scores(record: object, scores: Sequence[Score]) -> ResultRecord:
    """Put the scores into a record that was just made: a copy of it would take as long as reading it."""
    vars(record)["scores"] = scores
    return cast(ResultRecord, record)


def _texts(score: Json) -> Json:
    """Return a score with its texts as texts: in older stores a benchmark of one's own could leave numbers there."""
    texts = {key: score.get(key) for key in ("extracted", "reason")}
    return {**score, **{key: text if text is None else str(text) for key, text in texts.items()}}


_ADAPTERS: dict[type, "TypeAdapter[object]"] = {}


@functools.cache
def _pydantic() -> Any:
    """Return pydantic: slow to import, and a wrong request reads no record; each `from` of it takes 10 us again."""
    import pydantic

    return pydantic
