"""The tracker of a sweep: what is finished goes to a child process that talks to W&B (`track.py`), and is forgotten.

Nothing that W&B does, or does not do, can break, change or slow a sweep: runs are built and handed over by a thread of
their own, whatever goes wrong becomes one warning at the end, and the end waits a bounded time.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from m3_exp.amounts import counted, duration
from m3_exp.reporting.wandb.track import Logged, Recorder, Settings
from m3_exp.store import dumps
from m3_exp.types import plain

if TYPE_CHECKING:
    from m3_exp.types import CellResult

PATIENCE = 30.0  # seconds that a finished sweep waits for W&B
_MARGIN = 2.0  # of them, for the child to say what became of it


@dataclass(frozen=True)
class Gathered:
    """All that a sweep has in the store. `parents` names each pair's experts; `tables` maps file names to texts."""

    found: Sequence["CellResult"]
    parents: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)


class Tracker:
    """Hands finished cells to the child. No method waits for W&B but `close`, and that no longer than `patience`."""

    def __init__(
        self,
        settings: Settings,
        store: Path,
        *,
        sweep: str = "run",
        seed: int = 0,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
        patience: float = PATIENCE,
    ) -> None:
        self.settings = settings
        self.store = store
        self.group = sweep
        self.seed = seed
        self.patience = patience
        self.done: dict[str, int] = {"written": 0, "known": 0, "sent": 0, "unsent": 0}
        self.problems: list[str] = []
        self._say = say
        self._deadline = 0.0
        self._seen: set[tuple[str, str]] = set()
        self._jobs: queue.SimpleQueue[Callable[[], Logged] | None] = queue.SimpleQueue()
        self._child: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._feeder = threading.Thread(target=self._feed, name="wandb", daemon=True)
        self._feeder.start()

    def cell(self, found: "CellResult") -> None:
        """Record a cell that has a result."""
        if found.record is None:
            return

        def build() -> Logged:
            from m3_exp.reporting.wandb import logged

            items = logged.items(found, self.store) if self.settings.items else None
            return logged.cell(found, self.group, self.seed, items)

        self._jobs.put(build)

    def sweep(self, gather: Callable[[], Gathered]) -> None:
        """Record what a sweep has: its cells, its curves (a run a pair, method and sparsify), its tables and figures.
        What is recorded already is skipped, before anything is computed for it.
        """
        try:
            self._sweep(gather())
        except Exception as error:  # a wall: tracking never breaks a sweep
            self._note(f"{type(error).__name__}: {error}")

    def _sweep(self, gathered: Gathered) -> None:
        from m3_exp.reporting.choices import ways
        from m3_exp.reporting.wandb import logged

        for item in gathered.found:
            self.cell(item)
        recorder = Recorder(self.settings, self._folder)
        for members in logged.grouped(gathered.found, gathered.parents):
            if recorder.knows(logged.response_id(members), logged.response_content(members)):
                self.done["known"] += 1
            else:
                self._put(logged.response(ways.study(members, seed=self.seed), self.group))
        if gathered.tables:
            self._put(logged.sweep(self.group, gathered.found, gathered.tables))

    def _put(self, logged: Logged) -> None:
        self._jobs.put(lambda: logged)

    def close(self) -> None:
        """Let the child finish, no longer than `patience`; then end it. Says one line where anything is left."""
        deadline = self._deadline = time.monotonic() + self.patience
        self._jobs.put(None)
        self._feeder.join(self.patience)
        if self._child is not None:
            self._end(self._child, deadline)
        if self.problems:
            self._say(self._warning())
        elif self.done["written"]:
            self._say(f"W&B: {counted(self.done['written'], 'run')} written to {self._folder}" + self._sent())

    @property
    def _folder(self) -> Path:
        return self.settings.files(self.store).folder

    def _sent(self) -> str:
        if self.done["sent"]:
            return f" and sent to project {self.settings.project}"
        return f"; to send them: wandb sync {self._folder}"

    def _warning(self) -> str:
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return (
            f"warning: W&B: {self.problems[0]}{more}; results are not touched. "
            f"To send later: wandb sync {self._folder}; to record again: m3 wandb sync, with the run's arguments"
        )

    def _feed(self) -> None:
        """Build and hand over one job after another until None comes; whatever goes wrong is noted."""
        while (build := self._jobs.get()) is not None:
            try:
                self._send(build())
            except Exception as error:  # a wall: tracking never breaks a sweep
                self._note(f"{type(error).__name__}: {error}")
        if self._child is not None and self._child.stdin is not None:
            until = time.time() + self._deadline - time.monotonic() - _MARGIN
            with contextlib.suppress(OSError):
                self._child.stdin.write(json.dumps({"until": until}) + "\n")
            with contextlib.suppress(OSError):
                self._child.stdin.close()

    def _send(self, logged: Logged) -> None:
        if (logged.id, logged.content) in self._seen:
            return
        self._seen.add((logged.id, logged.content))
        child = self._child or self._start()
        assert child.stdin is not None
        child.stdin.write(dumps(logged) + "\n")
        child.stdin.flush()

    def _start(self) -> subprocess.Popen[str]:
        """Start the child in a session of its own: an interrupt of the sweep does not cut a run in half."""
        request = {"settings": plain(self.settings), "folder": str(self._folder)}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "m3_exp.reporting.wandb.track"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(request) + "\n")
        self._reader = threading.Thread(target=self._read, args=(self._child,), daemon=True)
        self._reader.start()
        return self._child

    def _read(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            event = json.loads(line)
            if "problem" in event:
                self._note(event["problem"])
            else:
                self.done[event["what"]] += event["count"]

    def _end(self, child: subprocess.Popen[str], deadline: float) -> None:
        try:
            if code := child.wait(max(0.1, deadline - time.monotonic())):
                self._note(f"its process ended with {code}")
        except subprocess.TimeoutExpired:
            self._note(f"it was not done after {duration(self.patience)}")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # the child, wandb-core and a sending that hangs
        child.wait()
        if self._reader is not None:
            self._reader.join(1.0)

    def _note(self, problem: str) -> None:
        self.problems.append(_safe(problem))


class Untracked:
    """`tracker=none`: takes everything, does nothing."""

    done: Mapping[str, int] = MappingProxyType({})
    problems: Sequence[str] = ()

    def cell(self, found: "CellResult") -> None: ...

    def sweep(self, gather: Callable[[], Gathered]) -> None: ...

    def close(self) -> None: ...


def start(
    settings: Settings | None,
    store: Path,
    *,
    sweep: str | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    patience: float = PATIENCE,
) -> Tracker | Untracked:
    """Return the tracker that `settings` ask for: None (`tracker=none`) and WANDB_MODE=disabled ask for nothing."""
    if settings is None or settings.resolved() == "disabled":
        return Untracked()
    return Tracker(settings, store, sweep=sweep or "run", seed=seed, say=say, patience=patience)


def _safe(text: str) -> str:
    """Return a message on one line, at most 300 characters, without the key."""
    line = " ".join(text.split())
    key = os.environ.get("WANDB_API_KEY")
    return (line.replace(key, "[key]") if key else line)[:300]
