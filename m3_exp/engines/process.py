"""Our end of an engine's process: start it, talk to it in JSON lines, notice a crash or a hang, kill all of it.

The child has a session of its own (Ctrl-C does not reach it, and one signal to its group ends its workers too) and
writes what it prints to a log file. It ends with us: a guard that it forks kills its group at our death or its own, and
so does the child itself when its command pipe closes.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import m3_exp
from m3_exp.engines import wire
from m3_exp.engines.protocol import EngineDied
from m3_exp.types import Json

_LOG_LINES = 4
_LINGER = 5.0  # seconds for the rest of a killed group to be gone, and its memory with it


class Child:
    """One engine's process. Every method may raise EngineDied; the process and its group are gone then."""

    def __init__(self, engine: str, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.engine = engine
        self.log = logs / f"{engine}-{os.getpid()}-{secrets.token_hex(4)}.log"
        their_input, self._output = os.pipe()
        self._input, their_output = os.pipe()
        self._close_pipes = weakref.finalize(self, _close, self._input, self._output)
        self._killing = threading.Lock()
        self._received = b""
        command = [sys.executable, "-m", "m3_exp.engines.child", str(their_input), str(their_output), str(os.getpid())]
        try:
            with open(self.log, "wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=_environment(),
                    pass_fds=(their_input, their_output),
                    start_new_session=True,
                )
        finally:
            _close(their_input, their_output)
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Mapping[str, object], patience: float) -> None:
        """Write one message; a child that takes nothing for `patience` seconds has hung."""
        data = memoryview(wire.line(message))
        while data:
            if not _ready(self._output, select.POLLOUT, patience):
                raise self.died(f"took no request for {patience:g} s")
            try:
                data = data[os.write(self._output, data[: 1 << 16]) :]
            except BrokenPipeError:
                raise self.died("ended") from None

    def receive(self, patience: float) -> dict[str, Any]:
        """Return the next message; a child that says nothing for `patience` seconds has hung."""
        deadline = time.monotonic() + patience
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0 or not _ready(self._input, select.POLLIN, left):
                raise self.died(f"made no progress for {patience:g} s")
            data = os.read(self._input, 1 << 20)
            if not data:
                raise self.died("ended")
            self._received += data
        text, self._received = self._received.split(b"\n", 1)
        message: Json = json.loads(text)
        return message

    def kill(self) -> None:
        """End the process and everything that it started. Safe from any thread, and more than once."""
        with self._killing:
            if self._process.returncode is None:  # not reaped yet, so that the group is still its own
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                _wait_for_group(self._process.pid)

    def leave(self, grace: float) -> None:
        """Ask it to end by itself, and kill what is left after `grace` seconds."""
        with contextlib.suppress(EngineDied):
            self.send({"do": "close"}, grace)
            while _ready(self._input, select.POLLIN, grace) and os.read(self._input, 1 << 16):
                pass  # until it closes its end of the pipe
        self.kill()

    def died(self, what: str) -> EngineDied:
        """Kill it and make the error that says why, with the end of its log."""
        self.kill()
        code = self._process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return EngineDied(f"engine={self.engine} {what} ({how}); {self.log} ends: {self._last_words()}")

    def _last_words(self) -> str:
        with open(self.log, "rb") as log:
            log.seek(max(0, os.path.getsize(self.log) - 8192))
            lines = log.read().decode(errors="replace").splitlines()
        return " | ".join([text.strip() for text in lines if text.strip()][-_LOG_LINES:]) or "(nothing)"


def _ready(descriptor: int, event: int, seconds: float) -> bool:
    """Wait until a pipe can be read or written, or its other end is closed; False when the time is over."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(seconds * 1000))


def _wait_for_group(group: int) -> None:
    """Wait until no process of a killed group is left, at most `_LINGER` seconds (an init may never reap them)."""
    deadline = time.monotonic() + _LINGER
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.01)


def _environment() -> dict[str, str]:
    """Ours, and the folder of this package first on the path, wherever the child is started."""
    package = str(Path(m3_exp.__path__[0]).parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
