"""An archive checked, and taken into a store: `m3 import`.

Everything is unpacked beside the store first and held against the manifest, its checksums and its keys. Only then does
a file get its place: a new store appears in one step, and one that is there already gets what it lacks, results last.
What it has stays as it is: the first record of a key, and the first answer to a prompt, count.
"""

import hashlib
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from m3_exp import temporary as temporaries
from m3_exp.amounts import counted, size
from m3_exp.reading.files import cannot_read, parse_json
from m3_exp.store import STORE_FORMAT, Merge, PastRun, Store, StoredAnswer, dumps, write_atomic
from m3_exp.types import M3Error, ResultRecord, plain
from m3_exp.upkeep import files
from m3_exp.upkeep.archive import FORMAT, MANIFEST, NAME, TAKEN, VERSION
from m3_exp.upkeep.reader import JUDGMENTS, NESTED, Shelf, Wrong
from m3_exp.upkeep.tar import Reader

_MOST = 4_000_000  # members
_MANIFEST = 1 << 29  # bytes
_LARGEST = 1 << 30  # bytes of a record: it is read as a whole
_RATIO = 400  # what a store may unpack to, for each byte of its archive
_LAST = (*NESTED, "spelled", "failures", "plans", "history")  # what tells of the rest comes after it


@dataclass(frozen=True)
class Imported:
    """What was taken over, what was there already, and what was kept as it is though the archive has it otherwise."""

    store: Path
    new: int
    there: int
    kept: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what `m3 import` prints."""
        first = f"{self.store}: {counted(self.new, 'file')} taken over, {counted(self.there, 'file')} there already"
        return [first, *(f"kept as it is here: {line}" for line in self.kept)]


def take(archive: Path, root: Path) -> Imported:
    """Take an archive into a store, which may be new.

    Raises:
        M3Error: the archive is damaged or hostile, or contradicts the store; nothing is taken over then.
    """
    store = Store(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    temporaries.sweep(root.parent)
    staged = temporaries.beside(root)
    staged.mkdir()
    lock = os.open(staged, os.O_RDONLY)
    temporaries.hold(lock)
    try:
        try:
            with open(archive, "rb") as file:
                _unpack(file, archive, staged)
        except OSError as error:
            if error.filename == str(archive):
                raise cannot_read(archive, error) from error
            raise
        _check(Shelf(staged), archive)
        if not root.exists() or not any(root.iterdir()):
            return _appear(staged, root)
        return _Merger(Shelf(staged), store).merge()
    finally:
        os.close(lock)
        shutil.rmtree(staged, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------- unpacking


def _unpack(file: BinaryIO, archive: Path, into: Path) -> None:
    """Write the members of an archive below a folder, each as the manifest has it."""
    reader = Reader(file, archive)
    first = reader.next()
    if first is None or first.name != MANIFEST or first.size > _MANIFEST:
        raise M3Error(f"{archive} has no {MANIFEST} at its beginning: give what m3 export store wrote")
    members = _members(b"".join(reader.chunks(first)), archive)
    total, packed = sum(size for size, _ in members.values()), archive.stat().st_size
    if total > _RATIO * packed:
        raise M3Error(f"{archive} is refused: its {size(packed)} unpack to {size(total)}; no store is like that")
    if total > (free := shutil.disk_usage(into).free):
        raise M3Error(f"{archive} unpacks to {size(total)}, {into.parent} has {size(free)} free: make room there")
    for name, (length, sha256) in members.items():
        member = reader.next()
        if member is None or (member.name, member.size) != (name, length):
            there = "ends" if member is None else f"has {member.name!r} ({size(member.size)})"
            raise M3Error(f"{archive} {there} where its manifest has {name!r} ({size(length)}): fetch it again")
        digest, path = hashlib.sha256(), into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as out:
            for chunk in reader.chunks(member):
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != sha256:
            raise M3Error(f"{archive} is damaged: {name} is not what its manifest says: fetch it again")
    if (more := reader.next()) is not None:
        raise M3Error(f"{archive} is refused: its manifest does not name {more.name!r}")


def _members(data: bytes, archive: Path) -> dict[str, tuple[int, str]]:
    """Return size and sha256 of each member, by name in their order.

    Raises:
        M3Error: another version wrote it, or a name, a size or their order is none that m3 writes.
    """
    manifest = parse_json(data, f"{archive}: {MANIFEST}")
    if manifest.get("m3_archive") != VERSION:
        what = manifest.get("m3_archive")
        raise M3Error(f"{archive} is an archive of version {what!r}, this m3 reads version {VERSION}: use a later m3")
    rows = manifest.get("members")
    if not isinstance(rows, list) or len(rows) > _MOST:
        raise M3Error(f"{archive}: its manifest names no members, or more than {_MOST:,}")
    members: dict[str, tuple[int, str]] = {}
    last = ""
    for row in rows:
        if not (isinstance(row, list) and list(map(type, row)) == [str, int, str] and row[1] >= 0):
            raise M3Error(
                f"{archive}: its manifest names a member as {str(row)[:80]!r}: give what m3 export store wrote"
            )
        name, length, sha256 = row
        if not _allowed(name):
            raise M3Error(f"{archive} is refused: {name[:200]!r} is no file of a store that travels")
        if length > _LARGEST and not name.startswith("answers/"):
            raise M3Error(f"{archive} is refused: {name!r} has {size(length)}, a record at most {size(_LARGEST)}")
        if name <= last:
            raise M3Error(f"{archive} is refused: {name!r} stands twice in its manifest, or out of order")
        members[name], last = (length, sha256), name
    if FORMAT not in members:
        raise M3Error(f"{archive} is refused: it has no {FORMAT}, so it is no store")
    return members


def _allowed(name: str) -> bool:
    """Tell whether a name is one that `m3 export store` writes: no way out of the store, and nothing that m3 runs."""
    kind, _, rest = name.partition("/")
    if not NAME.fullmatch(name) or max(map(len, name.split("/"))) > 200 or ".." in name:
        return False
    depth = rest.count("/")
    if kind == "answers":
        return depth == 1 and name.endswith(".jsonl")
    if kind in TAKEN:
        return depth == (kind in NESTED) and name.endswith(".json")
    return name == FORMAT or kind == JUDGMENTS


def _check(shelf: Shelf, archive: Path) -> None:
    """Refuse what does not hold: a record whose checksum, key, items, answers or figures do not agree."""
    known = parse_json((shelf.root / FORMAT).read_bytes(), f"{archive}: {FORMAT}")
    number = known.get("format")
    if type(number) is not int or number < 1 or number > STORE_FORMAT or known.get("began", number) < 2:
        raise M3Error(
            f"{archive} holds a store of format {number!r}, this m3 reads up to {STORE_FORMAT}: use a later m3"
        )
    faults = files.check(shelf, weights=False).faults
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise M3Error(f"{archive} is refused: {faults[0].file}: {faults[0].what}{more}; export it again, see m3 verify")


# ------------------------------------------------------------------------------------------------------- taking over


def _appear(staged: Path, root: Path) -> Imported:
    """Make a new store appear in one step."""
    number = sum(1 for path in staged.rglob("*") if path.is_file())
    if root.is_dir():
        root.rmdir()
    os.rename(staged, root)
    return Imported(root, number, 0)


class _Merger:
    """Takes a checked store into another, file by file."""

    def __init__(self, source: Shelf, store: Store) -> None:
        self.source, self.store = source, store
        self.target = Shelf(store.root)
        self.new = self.there = 0
        self.kept: list[str] = []

    def merge(self) -> Imported:
        self._check_weights()
        self.store.mark()
        odd = self._answers()
        for kind in (*(kind for kind in TAKEN if kind not in _LAST), *_LAST):
            for key in self.source.keys(kind):
                if kind == "history":
                    self._history(key)
                elif self._wanted(kind, key, odd):
                    self._record(f"{kind}/{key}.json")
        for path in sorted((self.source.root / JUDGMENTS).rglob("*")):
            if path.is_file():
                self._record(self.source.relative(path))
        return Imported(self.store.root, self.new, self.there, tuple(self.kept))

    def _check_weights(self) -> None:
        """Refuse an archive in which the same recipe gave other weights: one of both machines, or models, is at fault.

        Raises:
            M3Error: it is so.
        """
        for key in self.source.keys("merges"):
            ours, theirs = (shelf.find("merges", key, Merge) for shelf in (self.target, self.source))
            if ours is not None and theirs is not None and ours.digest != theirs.digest:
                raise M3Error(
                    f"merges/{key}.json: the archive has the weights {theirs.digest[:12]}, the store {ours.digest[:12]}"
                    " of the same recipe: one of the machines is at fault; import it into another store=DIR"
                )

    def _wanted(self, kind: str, key: str, odd: Mapping[str, str]) -> bool:
        """Tell whether a record may be taken over: a result fits the answers here, a failure no result contradicts."""
        if kind == "failures":
            return not self.target.within("results", key.partition("-")[0])
        if kind in NESTED and not self.target.path(kind, key).exists():
            record = self.source.find(kind, key, ResultRecord)
            if record is not None and record.answers in odd:
                self.kept.append(f"{kind}/{key}.json: {odd[record.answers]}; m3 run scores the answers that are here")
                return False
        return True

    def _record(self, name: str) -> None:
        ours, theirs = self.store.root / name, (self.source.root / name).read_bytes()
        if not ours.exists():
            write_atomic(ours, theirs)
            self.new += 1
            return
        self.there += 1
        if name.startswith(NESTED) and ours.read_bytes() != theirs:
            self.kept.append(f"{name}: the archive has another result of these items")

    def _history(self, key: str) -> None:
        """Take a run over, under another name where that is another run's here."""
        theirs = self.source.find("history", key, PastRun)
        if theirs is None:
            return
        known = {past.run: name for name, past in self.store.history.items()}
        if theirs.run in known:
            self.there += 1
            return
        names = (key, *(f"{key}-{number}" for number in range(2, len(known) + 3)))
        name = next(name for name in names if name not in self.store.history)
        self.store.history.put(name, replace(theirs, name=name))
        self.new += 1
        if name != key:
            self.kept.append(f"the run {key}: there is another of that name, so the archive's is called {name}")

    def _answers(self) -> dict[str, str]:
        """Take over the answers that are not here; return the sets in which both have other texts, each with why."""
        odd: dict[str, str] = {}
        for key in self.source.answer_keys():
            ours = self._texts(key)
            for path in self.source.journals(key):
                name = self.source.relative(path)
                lines = [(answer, ours.get(_asked(answer))) for answer in self.source.lines(path)]
                if any(text not in (None, answer.text) for answer, text in lines):
                    odd[key] = "it was made of other texts than answer the same prompts here"
                missing = [answer for answer, text in lines if text is None]
                self.there += not missing
                if missing:
                    data = b"".join(map(_line, missing))
                    final = self.store.root / name
                    if final.exists():
                        final = final.with_name(f"import-{hashlib.sha256(data).hexdigest()[:16]}.jsonl")
                    write_atomic(final, data)
                    self.new += 1
        return odd

    def _texts(self, key: str) -> dict[tuple[str, int, str], str]:
        """Return the texts that are here; raises M3Error where a journal is damaged."""
        texts: dict[tuple[str, int, str], str] = {}
        try:
            for answer in self.target.answers(key):
                texts.setdefault(_asked(answer), answer.text)
        except Wrong as wrong:
            where = self.store.root / "answers" / key
            raise M3Error(f"{where} is damaged ({wrong}): see m3 verify, which says what to do") from None
        return texts


def _asked(answer: StoredAnswer) -> tuple[str, int, str]:
    return answer.id, answer.sample, answer.prompt


def _line(answer: StoredAnswer) -> bytes:
    body = dumps(plain(answer)).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)
