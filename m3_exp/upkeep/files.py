"""Every file of a store against its checksum, its key and what it refers to. One record is held at a time."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from m3_exp import keys
from m3_exp.amounts import counted, size
from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.source import check_at_hand, without_fetching
from m3_exp.reading.records import Damaged, unsealed
from m3_exp.store import AnswerSet, Inputs, Measured, Merge, PastRun, Spelled, Store
from m3_exp.types import Json, M3Error, ResultRecord, Source, identity
from m3_exp.upkeep.cells import AGAIN
from m3_exp.upkeep.reader import DERIVED, JUDGMENTS, KINDS, NESTED, SIGNS, Fault, Shelf, Wrong, typed
from m3_exp.upkeep.results import Benchmarks, ResultCheck

_REMOVE = "remove it: it is made again where it is needed"
_ASK = "the next m3 run sets such lines aside and asks for these answers again"
_LOST = "take it back from a copy of the store, or remove it"
_OLDER = ("plans", "history", *SIGNS)  # kinds of which this version may be unable to read an old record


@dataclass
class Looked:
    """What was found in a store's files: how many there are, what is wrong, and what may be worth knowing."""

    files: int = 0
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(shelf: Shelf, results: ResultCheck | None = None, *, weights: bool = True) -> Looked:
    """Check every file of a store. `weights`: read kept checkpoints, and the models at hand, once more."""
    looked = Looked()
    results = results or ResultCheck(shelf, Benchmarks())
    looked.faults += _marker(shelf)
    for kind in KINDS:
        for key in shelf.keys(kind):
            looked.files += 1
            looked.faults += _record(shelf, kind, key, results, looked)
    for key in shelf.answer_keys():
        for path in shelf.journals(key):
            looked.files += 1
            looked.faults += _journal(shelf, key, path, looked)
    looked.faults += _judgments(shelf, looked)
    if weights:
        with without_fetching():
            looked.faults += [*_checkpoints(shelf, looked), *_models(shelf)]
    looked.notes += _leftovers(shelf)
    return looked


def _marker(shelf: Shelf) -> Iterator[Fault]:
    path = shelf.root / "format.json"
    try:
        known = json.loads(path.read_bytes())
        good = all(type(known.get(key, 1)) is int and known.get(key, 1) >= 1 for key in ("format", "began"))
        good = good and "format" in known
    except FileNotFoundError:
        good = not any(any(shelf.keys(kind)) for kind in KINDS)
    except (ValueError, AttributeError, RecursionError):
        good = False
    if not good:
        yield Fault("format.json", "it does not name the format of the store", "the next m3 run writes it again")


def _record(shelf: Shelf, kind: str, key: str, results: ResultCheck, looked: Looked) -> Iterator[Fault]:
    """Give what is wrong with one record."""
    file = f"{kind}/{key}.json"
    do = _REMOVE if kind in DERIVED else AGAIN if kind in NESTED else _LOST
    try:
        record = shelf.json(kind, key)
    except FileNotFoundError:
        return  # a run that has just ended took its sign of life away
    except Wrong as wrong:
        yield Fault(file, str(wrong), do)
        return
    try:
        value = _typed(record, kind, file)
    except Wrong as wrong:
        if kind in _OLDER:
            looked.notes.append(f"{file}: {wrong}; it is passed over")
        else:
            yield Fault(file, str(wrong), do)
        return
    yield from (Fault(file, what, do) for what in _about(shelf, kind, key, record, value, results))


def _typed(record: Json, kind: str, where: str) -> object:
    """Return a record as one of the dataclasses that its kind may hold."""
    *others, last = KINDS[kind]
    for one in others:
        try:
            return typed(record, one, where)
        except Wrong:
            pass
    return typed(record, last, where)


def _about(shelf: Shelf, kind: str, key: str, record: Json, value: object, results: ResultCheck) -> list[str]:
    """Return where a record's key, or what it refers to, does not agree with what it holds."""
    match value:
        case ResultRecord():
            return results.faults(kind, key, value)
        case AnswerSet():
            made = keys.answers_key(value.weights, value.benchmark, value.sampling, value.engine, value.repeat)
            return [] if made == key else [f"its content is that of the key {made[:12]}"]
        case PastRun() if value.name != key:
            return [f"it is the run {value.name!r}"]
        case PastRun() if not shelf.path("plans", value.plan).is_file():
            return [f"its plan plans/{value.plan}.json is not there"]
        case Measured():
            absent = [name for name in value.parts if not (shelf.root / kind / key / name).is_file()]
            return [f"its file {name} is not there" for name in absent]
        case Spelled() if len(value.cell_key) != 64:
            return [f"{value.cell_key!r} is no key of a cell"]
    if kind == "plans" and identity(record) != key:
        return ["its content is that of another plan"]
    return []


def _journal(shelf: Shelf, key: str, path: Path, looked: Looked) -> Iterator[Fault]:
    """Give what is wrong with one journal of answers."""
    file = shelf.relative(path)
    own = shelf.find("answer_sets", key, AnswerSet) or shelf.find("repeat_sets", key, AnswerSet)
    if own is None:
        yield Fault(file, f"answer_sets/{key}.json, which says what it answers, is not there", _LOST)
    answers = 0
    try:
        for answers, answer in enumerate(shelf.lines(path), 1):
            if own is not None and not answer.id.startswith(f"{own.benchmark}/"):
                raise Wrong(f"line {answers}: {answer.id!r} is no item of {own.benchmark}")
    except Wrong as wrong:
        yield Fault(file, str(wrong), _ASK)
        return
    if not _ends_whole(path):
        looked.notes.append(f"{file}: a kill left part of a line at its end, which is passed over")
    if not answers:
        looked.notes.append(f"{file}: it holds no answer")


def _judgments(shelf: Shelf, looked: Looked) -> Iterator[Fault]:
    """Give the kept replies of judges that are damaged."""
    for path in sorted((shelf.root / JUDGMENTS).rglob("*.json")):
        looked.files += 1
        try:
            unsealed(path.read_bytes(), path.stem, bare=True)
        except Damaged as damage:
            yield Fault(shelf.relative(path), str(damage), "remove it: its judge is asked again, which may cost money")


def _ends_whole(path: Path) -> bool:
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - 1))
        return file.read(1) in (b"", b"\n")


# ------------------------------------------------------------------------------------------------------------ weights


def _checkpoints(shelf: Shelf, looked: Looked) -> Iterator[Fault]:
    """Give the kept checkpoints whose weights have another digest than their folder's name."""
    folder = shelf.root / "checkpoints"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not path.is_dir():
            continue
        looked.files += sum(1 for _ in path.iterdir())
        digest, why = _digest(Source(str(path)))
        if digest != path.name:
            what = why or f"its weights have the digest {digest[:12]}"
            yield Fault(shelf.relative(path), what, "remove it: m3 run with checkpoint=keep writes it again")


def _models(shelf: Shelf) -> Iterator[Fault]:
    """Give the models of the store's recipes that are at hand, unchanged by their files' times, with other weights."""
    recipes = (shelf.find("merges", key, Merge) for key in shelf.keys("merges"))
    sources = {source for one in recipes if one and one.recipe for source in (one.recipe.base, *one.recipe.experts)}
    with tempfile.TemporaryDirectory() as scratch:
        known = _Known(shelf, Path(scratch))
        for source in sorted(sources, key=str):
            try:
                check_at_hand(source)
                told = open_model(source, known).digest
            except (M3Error, OSError):
                continue  # not at hand, or not the files that the store knows
            found, why = _digest(source)
            if found != told:
                what = why or f"{source} holds other weights than when its digest was taken, though its times say not"
                yield Fault("inputs", what, f"fetch {source} again, and look at its disk")


class _Known(Store):
    """A store elsewhere that knows the digests of another, and takes none."""

    def __init__(self, shelf: Shelf, scratch: Path) -> None:
        super().__init__(scratch)
        self._shelf = shelf
        self.inputs.get = self._input  # type: ignore[method-assign]

    def _input(self, key: str) -> Inputs:
        found = self._shelf.find("inputs", key, Inputs)
        if found is None:
            raise M3Error("its digest is not known")
        return found


def _digest(source: Source) -> tuple[str, str]:
    """Return the digest of a model's weights as they are now, or why there is none."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return open_model(source, Store(Path(scratch))).digest, ""
        except (M3Error, OSError) as error:
            return "", f"its weights cannot be read: {error}"


# ---------------------------------------------------------------------------------------------------------- leftovers


def _leftovers(shelf: Shelf) -> list[str]:
    """Say what lies in a store beside its records: what killed writers left, what was set aside, what is not m3's."""
    left = [path for path in shelf.root.rglob(".*.tmp") if path.parent.suffix != ".tmp"]
    aside = [path for path in (shelf.root / "quarantine").rglob("*") if path.is_file()]
    notes = []
    if left:
        notes.append(f"{counted(len(left), 'temporary file')} of writers that were killed: m3 gc removes them")
    if aside:
        total = size(sum(path.stat().st_size for path in aside))
        notes.append(f"{counted(len(aside), 'damaged file')} set aside in quarantine ({total}): m3 gc removes them")
    odd = [path for kind in KINDS for path in _odd(shelf, kind)]
    return [*notes, *(f"{shelf.relative(path)} is nothing of m3's" for path in sorted(odd))]


def _odd(shelf: Shelf, kind: str) -> Iterator[Path]:
    folder = shelf.root / kind
    suffixes = (".json", ".lock") if kind in SIGNS else (".json",)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(".") or (kind == "statistics" and path.is_dir()):
            continue
        if kind in NESTED and path.is_dir():
            yield from (inner for inner in path.iterdir() if inner.suffix != ".json" and inner.name[0] != ".")
        elif path.suffix not in suffixes or not path.is_file():
            yield path
