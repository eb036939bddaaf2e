"""What of a store can be made again, what it takes, and its removal: `m3 gc`.

Results, plans, history and failures are never removed, nor are answers that a result was made of: what a table or a
page shows stays. Nothing that was changed a few minutes ago goes, and nothing at all while a run is at work.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from m3_exp import temporary as temporaries
from m3_exp.amounts import size
from m3_exp.heartbeat import runs, workers
from m3_exp.merging.source import check_at_hand, without_fetching
from m3_exp.store import Merge, Store
from m3_exp.types import M3Error, ResultRecord
from m3_exp.upkeep.reader import NESTED, Shelf, Wrong

RECENT = 600.0  # seconds for which a file stays after its last change: somebody may be using it
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """A file or folder of a store that can go: its bytes, and when it was last changed (seconds of the epoch)."""

    kind: str
    path: Path
    bytes: int
    changed: float


@dataclass(frozen=True)
class Kind:
    """What can go together, and how it comes back. `named`: it goes only where it is asked for by its name."""

    name: str
    back: str
    find: Callable[[Shelf], Iterator[Path]]
    named: bool = False


def _temporary(shelf: Shelf) -> Iterator[Path]:
    for folder, inner, files in os.walk(shelf.root):
        yield from (Path(folder, name) for name in (*inner, *files) if name.startswith(".") and name.endswith(".tmp"))
        inner[:] = [name for name in inner if not name.endswith(".tmp")]


def _inside(*folders: str) -> Callable[[Shelf], Iterator[Path]]:
    """Return what gives the files of some folders."""

    def find(shelf: Shelf) -> Iterator[Path]:
        for folder in folders:
            for path in sorted((shelf.root / folder).glob("*")):
                if not path.name.startswith("."):
                    yield path

    return find


def _sent(shelf: Shelf) -> Iterator[Path]:
    """Give the folders of runs that W&B has marked as sent."""
    for path in sorted((shelf.root / "wandb").glob("*run-*")):
        if any(path.glob("*.wandb.synced")):
            yield path


def _checkpoints(shelf: Shelf) -> Iterator[Path]:
    """Give the checkpoints whose recipe the store knows, with all of its models at hand."""
    recipes = {}
    for key in shelf.keys("merges"):
        if (merge := shelf.find("merges", key, Merge)) is not None and merge.recipe is not None:
            recipes[merge.digest] = merge.recipe
    for path in _inside("checkpoints")(shelf):
        recipe = recipes.get(path.name)
        with contextlib.suppress(M3Error), without_fetching():
            for source in (recipe.base, *recipe.experts) if recipe else ():
                check_at_hand(source)
            if recipe is not None:
                yield path


def _unused_answers(shelf: Shelf) -> Iterator[Path]:
    """Give the answers that no result of the store was made of.

    Raises:
        M3Error: a result cannot be read, so that it is not known which are its answers.
    """
    used = set()
    for kind in NESTED:
        for key in shelf.keys(kind):
            try:
                used.add(shelf.read(kind, key, ResultRecord).answers)
            except Wrong as wrong:
                raise M3Error(
                    f"{kind}/{key}.json is damaged ({wrong}), so its answers are not known: see m3 verify"
                ) from None
    yield from (path for path in _inside("answers")(shelf) if path.name not in used)


# In the order in which they go: first what nobody misses, last what takes longest to make again.
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("temporary", "left by writers that were killed: nothing needs them", _temporary),
        Kind("quarantine", "damaged files: what they held was made again, or is by the next m3 run",
             _inside("quarantine")),
        Kind("logs", "what engines and jobs said: of use only after a failure", _inside("log", "launched")),
        Kind("wandb", "runs that W&B has: m3 wandb sync records them again", _sent),
        Kind("caches", "digests, cut-offs and prompts: the next m3 run reads the models again",
             _inside("rendered", "loading", "scans", "inputs")),
        Kind("statistics", "of experts, for fisher and regmean: the next m3 run measures them again",
             _inside("statistics")),
        Kind("tokenizers", "made again of the models' files, in seconds", _inside("tokenizers")),
        Kind("checkpoints", "m3 run with checkpoint=keep merges them again: recipe and models are at hand",
             _checkpoints),
        Kind("answers", "only by the models: answers that no result was made of", _unused_answers, named=True),
    )
}  # fmt: skip


def found(store: Store, only: Sequence[str] = ()) -> list[Thing]:
    """Return what can go, in the order in which it goes; of one kind the oldest first. `only`: kinds by their names.

    Raises:
        M3Error: a kind is not known.
    """
    for name in only:
        if name not in KINDS:
            raise M3Error(f"--only {name} is not known: give {', '.join(KINDS)}")
    shelf, now = Shelf(store.root), time.time()
    things: list[Thing] = []
    for kind in KINDS.values():
        if kind.name in only or not (only or kind.named):
            measured = [_measured(kind.name, path) for path in kind.find(shelf)]
            own = [thing for thing in measured if thing is not None and now - thing.changed > RECENT]
            things += sorted(own, key=lambda thing: (thing.changed, str(thing.path)))
    return things


def _measured(kind: str, path: Path) -> Thing | None:
    try:
        inner = [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]
        stats = [one.lstat() for one in inner]
    except OSError:
        return None  # it went meanwhile
    return Thing(kind, path, sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats))


def within(quota: int, things: Sequence[Thing], store: Store) -> list[Thing]:
    """Return the first of some things whose removal makes a store fit into so many bytes; none where it fits."""
    over = total(store) - quota
    kept: list[Thing] = []
    for thing in things:
        if over <= 0:
            break
        kept.append(thing)
        over -= thing.bytes
    return kept


def total(store: Store) -> int:
    """Return the bytes of a store's files."""
    return sum(path.lstat().st_size for path in store.root.rglob("*") if not path.is_dir())


def remove(store: Store, things: Sequence[Thing]) -> int:
    """Remove things of a store; return the bytes that became free. What is in use, or not ours, stays.

    Raises:
        M3Error: a run, or a worker that a run of another machine began, is at work in the store.
    """
    if at_work := [worker for worker in workers(store) if worker.alive and worker.run not in store.runs]:
        raise M3Error(f"a worker is at work in store={store.root} ({at_work[0]}): wait for its end")
    if living := [run for run in runs(store) if run.alive]:
        raise M3Error(
            f"a run is at work in store={store.root} ({living[0].command or 'm3 run'}, pid {living[0].pid} on"
            f" {living[0].host}): wait for its end, or interrupt it"
        )
    freed = 0
    for thing in things:
        if thing.kind == "temporary":  # their writers hold locks on them, which `sweep` looks at
            temporaries.sweep(thing.path.parent)
        elif thing.path.is_dir() and not thing.path.is_symlink():
            aside = temporaries.beside(thing.path)  # so that no half of it is ever taken for the whole
            with contextlib.suppress(OSError):
                os.rename(thing.path, aside)
                shutil.rmtree(aside, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                thing.path.unlink()
        freed += 0 if os.path.lexists(thing.path) else thing.bytes
    return freed


def quota(text: str) -> int:
    """Return a number of bytes, as in 50GB, 1.5 TB or 800MiB.

    Raises:
        M3Error: it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?B?)\s*", text, re.IGNORECASE)
    unit = match[2].upper() if match else "?"
    unit += "B" if unit in ("K", "M", "G", "T", "KI", "MI", "GI", "TI") else ""
    if match is None or unit not in _UNITS:
        raise M3Error(f"--quota {text} is no size: give a number with its unit, as --quota 50GB")
    return round(float(match[1]) * _UNITS[unit])


@dataclass(frozen=True)
class Swept:
    """What can go, or (`done`) went. `left`: the bytes that the store has then."""

    things: tuple[Thing, ...]
    freed: int
    left: int
    done: bool
    quota: int | None = None

    @property
    def kinds(self) -> dict[str, tuple[int, int]]:
        """How many things of each kind there are, and their bytes."""
        own = {name: [thing.bytes for thing in self.things if thing.kind == name] for name in KINDS}
        return {name: (len(sizes), sum(sizes)) for name, sizes in own.items() if sizes}

    def lines(self) -> list[str]:
        """Return what `m3 gc` prints."""
        rows = [f"{name}: {n}, {size(bytes_)}: {KINDS[name].back}" for name, (n, bytes_) in self.kinds.items()]
        over = self.quota is not None and self.left > self.quota
        more = "; that is more than --quota: the rest cannot be made again, or is in use" if over else ""
        if not rows:
            return [f"nothing to remove: the store has {size(self.left)}{more}"]
        if self.done:
            return [*rows, f"removed {size(self.freed)}; the store has {size(self.left)} left{more}"]
        return [*rows, f"{size(self.freed)} can go, {size(self.left)} stay{more}; nothing is removed without --yes"]


def sweep(store: Store, *, only: Sequence[str] = (), at_most: int | None = None, yes: bool = False) -> Swept:
    """Say what can go; with `yes` remove it. `at_most`: only until the store has no more bytes than that."""
    things = found(store, only)
    if at_most is not None:
        things = within(at_most, things, store)
    freed = remove(store, things) if yes else sum(thing.bytes for thing in things)
    left = total(store) - (0 if yes else freed)
    return Swept(tuple(things), freed, left, yes, at_most)
