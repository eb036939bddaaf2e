"""A store, or what some plans need of it, as one archive: `m3 export store`.

`manifest.json` stands first: what wrote the archive, and name, size and sha256 of every member. What m3 makes again
(caches, checkpoints, logs) stays behind, and so does what belongs to a machine (locks, runs).
"""

import hashlib
import importlib.metadata
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from m3_exp import temporary as temporaries
from m3_exp.amounts import counted, size
from m3_exp.reading.records import sealed
from m3_exp.store import STORE_FORMAT, PastRun, Prepared, Spelled, dumps, sync
from m3_exp.types import Json, M3Error, Plan, ResultRecord
from m3_exp.upkeep.cells import CellCheck
from m3_exp.upkeep.reader import DERIVED, JUDGMENTS, KINDS, NESTED, SIGNS, Shelf, Wrong
from m3_exp.upkeep.tar import Writer

VERSION = 1  # of the archive
MANIFEST = "manifest.json"
FORMAT = "format.json"
SUFFIX = ".tar.gz"
TAKEN = tuple(kind for kind in KINDS if kind not in (*DERIVED, *SIGNS))
NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/){1,3}[A-Za-z0-9_][A-Za-z0-9._-]*|format\.json")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Exported:
    """What was written: the file, its members and bytes, and what stayed behind though it is no cache."""

    out: Path
    members: int
    bytes: int
    left_out: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what `m3 export store` prints."""
        left = [f"left out, since its name is not one of m3's: {name}" for name in self.left_out]
        return [f"{self.out}: {counted(self.members, 'file')}, {size(self.bytes)}; m3 import takes it back", *left]


@dataclass(frozen=True)
class _File:
    """A member to be: so many bytes of a file, or a record that gets its checksum on the way (`data`)."""

    name: str
    path: Path
    size: int
    sha256: str
    data: bytes | None = None

    def chunks(self) -> Iterator[bytes]:
        if self.data is not None:
            yield self.data
            return
        with open(self.path, "rb") as file:
            yield from _chunks(file.read, self.size)


def export(shelf: Shelf, out: Path | None, plans: Sequence[Plan] | None = None) -> Exported:
    """Write a store into an archive; `plans`: only what these need.

    Raises:
        M3Error: `out` is no name of an archive, the store is empty, or a record is damaged.
    """
    if out is None or not out.name.endswith(SUFFIX) or out.is_dir():
        raise M3Error(f"--out {out or ''} must name an archive, as in --out store{SUFFIX}")
    left_out: list[str] = []
    names = sorted(_all(shelf, left_out) if plans is None else set(_needed(shelf, plans)))
    if not any(name.startswith(NESTED) for name in names):
        raise M3Error(f"store={shelf.root} holds no result of this request: m3 run comes first")
    files = [_file(shelf, name) for name in names]
    files.append(_marker())
    files.sort(key=lambda file: file.name)
    members = [[file.name, file.size, file.sha256] for file in files]
    about: Json = {"m3_archive": VERSION, "m3": importlib.metadata.version("m3_exp"), "members": members}
    manifest = dumps(about).encode() + b"\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporaries.beside(out)
    try:
        with open(temporary, "xb") as file:
            temporaries.hold(file.fileno())
            writer = Writer(file)
            writer.add(MANIFEST, len(manifest), iter([manifest]))
            for one in files:
                writer.add(one.name, one.size, one.chunks())
            writer.close()
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, out)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(out.parent)
    return Exported(out, len(files), out.stat().st_size, tuple(left_out))


def _all(shelf: Shelf, left_out: list[str]) -> Iterator[str]:
    """Give the names of all that travels with a whole store."""
    for kind in TAKEN:
        yield from (f"{kind}/{key}.json" for key in shelf.keys(kind))
    for key in shelf.answer_keys():
        yield from map(shelf.relative, shelf.journals(key))
    for path in sorted((shelf.root / JUDGMENTS).rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            name = shelf.relative(path)
            if NAME.fullmatch(name):
                yield name
            else:
                left_out.append(name)


def _needed(shelf: Shelf, plans: Iterable[Plan]) -> Iterator[str]:
    """Give the names of what the tables, pages and responses of some plans need."""
    plans = list(plans)
    check = CellCheck(shelf, deep=False)
    cells = {key for plan in plans for state in check.states(plan, stored=True) for key in state.keys}
    own = {plan.identity for plan in plans}
    yield from (f"plans/{key}.json" for key in shelf.keys("plans") if key in own)
    for key in shelf.keys("history"):
        if (past := shelf.find("history", key, PastRun)) is not None and past.plan in own:
            yield f"history/{key}.json"
    for key in shelf.keys("spelled"):
        if (spelled := shelf.find("spelled", key, Spelled)) is not None and spelled.cell_key in cells:
            yield f"spelled/{key}.json"
    yield from (f"failures/{key}.json" for key in shelf.keys("failures") if key.partition("-")[0] in cells)
    records = [(kind, name) for kind in NESTED for cell in sorted(cells) for name in shelf.within(kind, cell)]
    yield from (f"{kind}/{name}.json" for kind, name in records)
    yield from _made_of(shelf, records)


def _made_of(shelf: Shelf, records: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Give the names of what some results were made of: weights, answers and items."""
    results = [shelf.find(kind, name, ResultRecord) for kind, name in records]
    answers = {result.answers for result in results if result is not None}
    weights = {(result.evaluator.name, result.weights) for result in results if result is not None}
    for key in sorted({result.recipe_key for result in results if result is not None}):
        if shelf.path("merges", key).is_file():
            yield f"merges/{key}.json"
    for kind in ("answer_sets", "repeat_sets"):
        yield from (f"{kind}/{key}.json" for key in shelf.keys(kind) if key in answers)
    for key in sorted(answers):
        yield from map(shelf.relative, shelf.journals(key))
    short = {key[:32] for key in answers}
    yield from (f"conditions/{key}.json" for key in shelf.keys("conditions") if key.partition("-")[0] in short)
    for key in shelf.keys("prepared"):
        made = shelf.find("prepared", key, Prepared)
        if made is not None and (made.benchmark, made.weights) in weights:
            yield f"prepared/{key}.json"


def _file(shelf: Shelf, name: str) -> _File:
    """Return a file as a member: a record checked, a journal up to its last whole line.

    Raises:
        M3Error: it is damaged, or its name cannot travel.
    """
    path, (kind, _, key) = shelf.root / name, name.removesuffix(".json").partition("/")
    if not NAME.fullmatch(name):
        raise M3Error(f"{path} has a name that m3 does not write: remove or rename it")
    data = None
    try:
        if kind in KINDS:
            shelf.json(kind, key)
            data = path.read_bytes()
            if not data.startswith(b'{"checksum":"'):  # of before records had checksums
                data = sealed(data.decode().strip(), f"{kind}/{key}")
        elif kind == "answers":
            for _ in shelf.lines(path):
                pass
    except Wrong as wrong:
        raise M3Error(f"{path} is damaged ({wrong}): see m3 verify, which says what to do") from None
    if data is not None:
        return _File(name, path, len(data), hashlib.sha256(data).hexdigest(), data if shelf.bare else None)
    length = _whole_lines(path) if kind == "answers" else path.stat().st_size
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in _chunks(file.read, length):
            digest.update(chunk)
    return _File(name, path, length, digest.hexdigest())


def _marker() -> _File:
    data = dumps({"format": STORE_FORMAT}).encode()
    return _File(FORMAT, Path(FORMAT), len(data), hashlib.sha256(data).hexdigest(), data)


def _whole_lines(path: Path) -> int:
    """Return the bytes of a journal's whole lines: its writer may be at work, or was killed."""
    length = 0
    with open(path, "rb") as file:
        for line in file:
            length += len(line) if line.endswith(b"\n") else 0
    return length


def _chunks(read: Callable[[int], bytes], length: int) -> Iterator[bytes]:
    while length > 0 and (chunk := read(min(length, _CHUNK))):
        length -= len(chunk)
        yield chunk
