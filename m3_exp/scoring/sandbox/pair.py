"""One program and its tests: a candidate's box and a grader's, started by a warden and watched against the clock.

What comes back is what the two reported; what it means is the judge's matter. This runs where the warden does: in the
judge's own process, or in a container (relay.py).
"""

import contextlib
import json
import os
import select
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .warden import ROLES

Job = Mapping[str, Any]
_GRACE = 0.1  # seconds for a candidate whose grader has ended to end by itself
_BYTE = {role: byte for byte, role in ROLES.items()}


@dataclass(frozen=True)
class Report:
    """What a candidate and a grader said about themselves; `error` where a box could not be started."""

    candidate: Job
    grader: Job
    in_time: bool
    error: str | None = None


def run(link: socket.socket, program: Job, tests: Job, wall_seconds: float) -> Report:
    """Run one pair of boxes to the grader's end or to the clock's; both are dead in the end."""
    deadline = time.monotonic() + wall_seconds
    ours, theirs = socket.socketpair()
    try:
        with contextlib.ExitStack() as stack:
            with ours, theirs:
                candidate = stack.enter_context(_box(link, "candidate", theirs, program))
                grader = stack.enter_context(_box(link, "grader", ours, tests))
            in_time = grader.wait(deadline, "ended", "error")
            candidate.end()
            return Report(candidate.records(), grader.records(), in_time)
    except OSError as error:
        return Report({}, {}, False, f"a box could not be started: {error}")


@dataclass
class _Box:
    """A started box, by the reading end of its report; closing that ends it."""

    report: int
    received: bytes = b""
    told: bool = False  # to end

    def wait(self, deadline: float, *wanted: str) -> bool:
        """Read the report until a wanted entry is there, or to its end; return False where the deadline came first."""
        watch = select.poll()  # not select(), which knows no descriptors above 1023
        watch.register(self.report, select.POLLIN)
        while self.records().keys().isdisjoint(wanted):
            if not watch.poll(1000 * max(0.0, deadline - time.monotonic())):
                return False
            try:
                part = os.read(self.report, 65536)
            except ConnectionResetError:  # what was said to it last has not been read
                part = b""
            if not part:
                return True
            self.received += part
        return True

    def end(self) -> None:
        """End the box, which may do so by itself first, and read what is reported of its end."""
        if not self.wait(time.monotonic() + _GRACE, "ended", "error"):
            with contextlib.suppress(OSError):
                os.write(self.report, b"x")
                self.told = True
            self.wait(time.monotonic() + 10.0, "ended", "error")

    def records(self) -> Job:
        """Return all that was reported, merged."""
        merged: dict[str, object] = {"told": True} if self.told else {}
        for line in self.received.split(b"\n")[:-1]:
            merged.update(json.loads(line))
        return merged


@contextlib.contextmanager
def _box(link: socket.socket, role: str, channel: socket.socket, job: Job) -> Iterator[_Box]:
    """Ask the warden for a box; when this context is left, however, the box is being ended."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, _file(json.dumps(job).encode()) as source:
            socket.send_fds(link, [_BYTE[role]], [source, channel.fileno(), theirs.fileno()])
        yield _Box(ours.fileno())


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[int]:
    """Give a descriptor of a file that has no name."""
    in_memory = hasattr(os, "memfd_create")
    with open(os.memfd_create("job"), "w+b") if in_memory else tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()
