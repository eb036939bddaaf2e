"""Measuring in a process of its own, which takes its memory (and that of a GPU) along when it ends."""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from m3_exp.merging.statistics.kept import Statistic, find
from m3_exp.merging.statistics.wanted import Wanted
from m3_exp.reading.shown import escaped
from m3_exp.store import Store
from m3_exp.types import M3Error, plain

Say = Callable[[str], None]
_BEGIN, _EVERY = "measuring", 10.0  # the first word of what is said first; seconds between lines on stderr
_LOOK = 0.5  # seconds between looks at whether it is to stop
_LAST = 3  # lines of its log that a failure shows


def on_stderr() -> Say:
    """Return what prints on stderr: what is measured, and every ten seconds how far it is."""
    last = -math.inf

    def say(line: str) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= _EVERY or line.startswith(_BEGIN):
            last = now
            print(f"m3: {escaped(line)}", file=sys.stderr, flush=True)

    return say


def ensure(wanted: Wanted, store: Store, say: Say | None = None, stopped: threading.Event | None = None) -> Statistic:
    """Return a statistic; where the store lacks it, it is measured first. Others that want the same wait meanwhile.

    `say` is told what is measured, and how far it is (without one: stderr). Setting `stopped` ends it; what is measured
    by then is kept.

    Raises:
        M3Error: text, tokenizer or model cannot be used for it, or the process failed.
    """
    key = wanted.key(store)
    if (found := find(store, key)) is not None:
        return found
    with store.scan_lock(f"statistic-{key}"):
        if (found := find(store, key)) is None:
            _measured(wanted, store, say or on_stderr(), stopped or threading.Event())
            found = find(store, key)
    if found is None:
        raise M3Error(f"{wanted}: it was measured, but {store.statistic(key)} does not hold it: is that disk sound?")
    return found


def _measured(wanted: Wanted, store: Store, say: Say, stopped: threading.Event) -> None:
    say(f"{_BEGIN} {wanted}")
    store.log.mkdir(parents=True, exist_ok=True)
    log = store.log / f"measuring-{os.getpid()}-{threading.get_ident()}.log"
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with open(log, "wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "m3_exp.merging.statistics.child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **quiet},
        )  # fmt: skip
    try:
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps({"wanted": plain(wanted), "store": str(store.root)}).encode() + b"\n")
        child.stdin.flush()  # it stays open: its end tells the child that we are gone
        is_done = _listen(child.stdout.fileno(), say, stopped)
    except OSError:
        is_done = False
    finally:
        child.kill()
        child.wait()
    if not is_done:
        said = " | ".join(log.read_text(errors="replace").split("\n")[-_LAST - 1 :]).strip(" |")
        raise M3Error(f"{wanted}: the process that measures it ended; {log} ends: {said or '(nothing)'}")
    log.unlink(missing_ok=True)


def _listen(descriptor: int, say: Say, stopped: threading.Event) -> bool:
    """Take what the child says until it is done; False where it ended before.

    Raises:
        M3Error: it refuses, or is stopped.
    """
    waiting, received = select.poll(), b""
    waiting.register(descriptor, select.POLLIN | select.POLLHUP)
    while True:
        if stopped.is_set():
            raise M3Error("interrupted while an expert was measured: the same command goes on with it")
        if not waiting.poll(1000 * _LOOK):
            continue
        data = os.read(descriptor, 1 << 16)
        if not data:
            return False
        *lines, received = (received + data).split(b"\n")
        for message in map(json.loads, lines):
            if "refused" in message:
                raise M3Error(message["refused"])
            if "done" in message:
                return True
            say(message["doing"])
