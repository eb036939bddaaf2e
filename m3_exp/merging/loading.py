"""What transformers makes of a checkpoint, asked before a weight is written: names, shapes, whether the head is tied.

    ask(config, entries) -> Loading

A child process (`loading_child.py`) builds the model on the meta device and loads the names and shapes into it. It is
started once in a process and waits for the next question. `start` lets it import while others work.
"""

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from m3_exp.reading.typed import Strict, checked
from m3_exp.types import Json, M3Error

if TYPE_CHECKING:
    from m3_exp.merging.layout import Entry

_SECONDS = 120.0  # for importing transformers on a busy machine and building the largest model there is
_SILENT = f"transformers did not answer within {_SECONDS:g} s"


class Mismatch(Strict):
    """A tensor whose shape is not the one that config.json gives it."""

    name: str
    stored: list[int]
    wanted: list[int]


class Loading(Strict):
    """What transformers said. `note`: why it said nothing (it has no class for the model, or packages are missing).

    `names` maps stored names to the model's own, or to None for what the loader leaves out. `ties` maps parameters to
    those that they are tied to. `error` is transformers' refusal.
    """

    note: str | None = None
    error: str | None = None
    model: str = ""
    tied: bool = False
    ties: dict[str, str] = Field(default_factory=dict)
    names: dict[str, str | None] = Field(default_factory=dict)
    missing: list[str] = Field(default_factory=list)
    unexpected: list[str] = Field(default_factory=list)
    mismatched: list[Mismatch] = Field(default_factory=list)


def start() -> None:
    """Start the child, if there is none: its imports take seconds."""
    with _LOCK:
        _child()


def stop() -> None:
    """End the child. Whoever waits for its answer is told that it gave none."""
    for child in _STARTED:
        child.kill()


def ask(config: Json, entries: "Mapping[str, Entry]") -> Loading:
    """Return what transformers makes of a configuration and of the names and shapes of its weights."""
    question = {
        "config": config,
        "tensors": {name: [entry.dtype, list(entry.shape)] for name, entry in entries.items()},
    }
    with _LOCK:
        child = _child()
        try:
            reply = _exchange(child, json.dumps(question).encode() + b"\n")
        except OSError:
            reply = None
        if reply is None:
            child.kill()
            return Loading(note=_SILENT)
    return checked(Loading, reply, "the loader's answer")


def refuse(loading: Loading, whose: str) -> None:
    """Refuse a checkpoint that transformers would not load as it is; `whose` is the source of its config.json.

    Raises:
        M3Error: it raises, or would make weights at random, or would leave a whole layer out.
    """
    off = "verify=false writes it all the same"
    if loading.note == _SILENT:
        raise M3Error(
            f"{_SILENT}: whether the model that config.json of {whose} describes can be loaded is not known; {off}"
        )
    if loading.error:
        raise M3Error(
            f"transformers cannot load the merged model with the config.json of {whose}: {loading.error}; {off}"
        )
    if loading.mismatched:
        first = loading.mismatched[0]
        shapes = f"{first.name} is {tuple(first.stored)}, its config.json makes it {tuple(first.wanted)}"
        raise M3Error(f"transformers cannot load the merged model as {whose} describes it: {shapes}; {off}")
    if loading.missing:
        more = f" and {len(loading.missing) - 1} more" if len(loading.missing) > 1 else ""
        lacks = f"{loading.model} needs {loading.missing[0]}{more}, which no model of this merge holds"
        raise M3Error(f"{lacks}: transformers would make random weights (config.json is that of {whose}); {off}")
    if further := [name for name in loading.unexpected if _of_a_further_layer(name, loading)]:
        more = f" and {len(further) - 1} more" if len(further) > 1 else ""
        says = f"the config.json of {whose} makes fewer layers than the weights have: {loading.model} leaves out"
        raise M3Error(f"{says} {further[0]}{more}; {off}")


def _of_a_further_layer(name: str, loading: Loading) -> bool:
    """Tell whether a tensor that is left out is one of a layer past the model's last."""
    kinds = {_without_numbers(known) for known, own in loading.names.items() if own and known not in loading.unexpected}
    return any(part.isdigit() for part in name.split(".")) and _without_numbers(name) in kinds


def _without_numbers(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


# ------------------------------------------------------------------------------------------------------- the child

_LOCK = threading.Lock()
_STARTED: "list[subprocess.Popen[bytes]]" = []


def _child() -> "subprocess.Popen[bytes]":
    if not _STARTED or _STARTED[0].poll() is not None:
        quiet = {"TRANSFORMERS_VERBOSITY": "critical", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        _STARTED[:] = [
            subprocess.Popen(
                [sys.executable, "-m", "m3_exp.merging.loading_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **quiet, "OMP_NUM_THREADS": "1"},
            )
        ]
        atexit.register(_end, _STARTED[0])
    return _STARTED[0]


def _end(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):
        child.kill()
    child.wait()


def _exchange(child: "subprocess.Popen[bytes]", question: bytes) -> object:
    """Return the JSON line that answers a question, None if none comes in time."""
    assert child.stdin
    assert child.stdout
    child.stdin.write(question)
    child.stdin.flush()
    answer, descriptor, waiting = bytearray(), child.stdout.fileno(), select.poll()
    waiting.register(descriptor, select.POLLIN | select.POLLHUP)
    while not answer.endswith(b"\n"):
        if not waiting.poll(1000 * _SECONDS):
            return None
        data = os.read(descriptor, 1 << 16)
        if not data:
            return None
        answer += data
    return json.loads(answer)
