"""The engine's own process: `python -m m3_exp.engines.child READ_FD WRITE_FD PARENT_PID`, started by `process.py`.

It reads requests from one pipe and answers on the other, one at a time, until it is told to close or its parent is
gone. A refusal (M3Error) is answered; any other exception ends the process, and its log says why.
"""

import contextlib
import gc
import importlib
import json
import os
import queue
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from m3_exp.engines import wire
from m3_exp.engines.protocol import Loaded
from m3_exp.engines.wire import Pair
from m3_exp.machine import cores
from m3_exp.store import Store, decoded
from m3_exp.types import Answer, EngineSettings, Json, Likelihood, M3Error, Prompt, Recipe, Sampling, Source, plain

_EVERY = 1.0  # seconds between progress messages
_PROBE_TOKENS = 24


class Model(Protocol):
    """What an engine module's `build` returns: a model in this process.

    `generate` and `loglikelihood` give an item as it is done, and between them (each step, say) the number of tokens
    so far; with `at_once` at most so many requests are in flight, and none begins with what an earlier call has cached.
    `add` puts prompts in flight, by a number, and returns the answers to those that are refused; `steps` gives the
    answers to all that is in flight, each with its number, and more may be added before each item.
    `rows` counts the token ids that the loaded weights know; `dirty` says that a load failed in a way that only a new
    process can mend.
    """

    conditions: Mapping[str, object]
    rows: int
    dirty: bool

    def load(self, recipe: Recipe) -> Loaded: ...

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source, at_once: int | None = None
    ) -> Iterator[Answer | int]: ...

    def add(
        self, number: int, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source
    ) -> Sequence[Answer]: ...

    def steps(self) -> Iterator[tuple[int, Answer] | int]: ...

    def loglikelihood(self, pairs: Sequence[Pair]) -> Iterator[Likelihood | int]: ...

    def close(self) -> None: ...


class Server:
    """Answers requests about one model. `requests` is where they come from."""

    def __init__(self, output: int, requests: "queue.SimpleQueue[Json]") -> None:
        self._output, self._requests = output, requests
        self._left: dict[int, int] = {}  # by batch in flight: answers to come
        self._model: Model | None = None
        self._acts = {
            **{"start": self._start, "load": self._load, "ask": self._ask, "generate": self._generate},
            **{"loglikelihood": self._loglikelihood, "close": self._close},
        }

    @property
    def model(self) -> Model:
        assert self._model is not None
        return self._model

    def answer(self, request: Json) -> None:
        """Carry out one request, and say `done` (but of what is asked) or why it is refused."""
        try:
            self._acts[str(request["do"])](request)
        except M3Error as error:
            restart = self._model is None or self._model.dirty
            self._say({"refused": str(error), "restart": restart})
        else:
            if request["do"] != "ask":
                self._say({"done": True})

    def _start(self, request: Json) -> None:
        settings = decoded(EngineSettings, request["settings"])
        _bind(settings)
        engine = importlib.import_module(f"m3_exp.engines.{settings.name}")
        recipe, tokenizer = decoded(Recipe, request["recipe"]), decoded(Source, request["tokenizer"])
        self._model = engine.build(settings, recipe, tokenizer, Store(Path(str(request["store"]))))
        self._say({"ready": self.model.conditions})

    def _load(self, request: Json) -> None:
        loaded = self.model.load(decoded(Recipe, request["recipe"]))
        self._say({"loaded": {**plain(loaded), "probe": self._probe()}})

    def _probe(self) -> list[float]:
        """Log-likelihoods of fixed tokens, one by one: the same weights give the same numbers."""
        ids = [(37 * i * i + 11 * i + 5) % self.model.rows for i in range(_PROBE_TOKENS)]
        pairs = [(Prompt(str(i), tuple(ids[:i])), (ids[i],)) for i in range(_PROBE_TOKENS // 2, _PROBE_TOKENS)]
        scored = [item for item in self.model.loglikelihood(pairs) if isinstance(item, Likelihood)]
        return [item.logprob for item in sorted(scored, key=lambda item: int(item.id))]

    def _ask(self, request: dict[str, Any]) -> None:
        """Answer batches, and those that are asked for before they end, until nothing is in flight."""
        others: list[Json] = []
        self._take_in(request["batches"])
        started = last = time.monotonic()
        done = 0
        for item in self.model.steps():
            if not isinstance(item, int):
                done += 1
                self._answered(*item)
            elif (now := time.monotonic()) - last >= _EVERY:
                last = now
                self._say({"progress": [done, done + sum(self._left.values()), item / (now - started)]})
            while not self._requests.empty():
                more: dict[str, Any] = self._requests.get()
                if more["do"] == "ask":
                    self._take_in(more["batches"])
                else:
                    others.append(more)
        for other in others:
            self.answer(other)

    def _take_in(self, batches: Sequence[tuple[int, Json]]) -> None:
        for number, batch in batches:
            try:
                prompts, sampling, tokenizer = self._checked(batch)
                refused = self.model.add(number, prompts, sampling, tokenizer)
            except M3Error as error:
                self._say({"batch": number, "ended": str(error)})
                continue
            self._left[number] = len(prompts) * sampling.n
            for answer in refused:
                self._answered(number, answer)
            if not prompts:
                self._say({"batch": number, "ended": ""})

    def _answered(self, number: int, answer: Answer) -> None:
        self._say({"batch": number, "answer": answer})
        self._left[number] -= 1
        if not self._left[number]:
            del self._left[number]
            self._say({"batch": number, "ended": ""})

    def _checked(self, request: dict[str, Any]) -> tuple[list[Prompt], Sampling, Source]:
        prompts = [decoded(Prompt, value) for value in request["prompts"]]
        sampling, tokenizer = decoded(Sampling, request["sampling"]), decoded(Source, request["tokenizer"])
        _check_sampling(sampling)
        for prompt in prompts:
            self._check_ids(prompt.id, prompt.token_ids)
        return prompts, sampling, tokenizer

    def _generate(self, request: dict[str, Any]) -> None:
        prompts, sampling, tokenizer = self._checked(request)
        items = self.model.generate(prompts, sampling, tokenizer, request.get("at_once"))
        self._stream("answer", items, len(prompts) * sampling.n)

    def _loglikelihood(self, request: dict[str, Any]) -> None:
        pairs = [(decoded(Prompt, prompt), tuple(ids)) for prompt, ids in request["pairs"]]
        for prompt, ids in pairs:
            self._check_ids(prompt.id, (*prompt.token_ids, *ids))
            if not prompt.token_ids or not ids:
                raise M3Error(f"item {prompt.id}: prompt and continuation must have at least one token each")
        self._stream("likelihood", self.model.loglikelihood(pairs), len(pairs))

    def _close(self, _: Json) -> None:
        self.model.close()
        os._exit(0)

    def _check_ids(self, item: str, ids: Sequence[int]) -> None:
        wrong = next((token for token in ids if not 0 <= token < self.model.rows), None)
        if wrong is not None:
            rows = f"the model has rows 0 to {self.model.rows - 1}"
            raise M3Error(f"item {item} holds token {wrong}, {rows}: was it made with another family's tokenizer?")

    def _stream(self, key: str, items: Iterator[Answer | int] | Iterator[Likelihood | int], total: int) -> None:
        """Send items as they come, and how far it is about once a second."""
        started = last = time.monotonic()
        done = 0
        for item in items:
            if not isinstance(item, int):
                done += 1
                self._say({key: item})
            elif (now := time.monotonic()) - last >= _EVERY:
                last = now
                self._say({"progress": [done, total, item / (now - started)]})

    def _say(self, message: Mapping[str, object]) -> None:
        data = memoryview(wire.line(message))
        while data:
            data = data[os.write(self._output, data) :]


def _check_sampling(sampling: Sampling) -> None:
    allowed = {
        "max_tokens": (sampling.max_tokens, sampling.max_tokens >= 1, "at least 1"),
        "n": (sampling.n, sampling.n >= 1, "at least 1"),
        "temperature": (sampling.temperature, sampling.temperature >= 0, "0 (greedy) or more"),
        "top_p": (sampling.top_p, 0 < sampling.top_p <= 1, "above 0, at most 1"),
        "stops": (sampling.stops, all(sampling.stops), "non-empty strings"),
    }
    for name, (value, right, words) in allowed.items():
        if not right:
            raise M3Error(f"sampling.{name}={value}: give {words}")


def _bind(settings: EngineSettings) -> None:
    """Keep this process to its cores and GPUs; before torch is imported."""
    if settings.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, settings.cores)
    os.environ["OMP_NUM_THREADS"] = str(threads(settings))
    if settings.devices is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(device) for device in range(1 + max(settings.devices))]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[device] for device in settings.devices)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Spare an engine's imports two seconds in ten.

    The garbage collector looks through none of the objects that come, which stay anyway. And transformers imports no
    scikit-learn, which it has for a way of decoding that no engine here knows.
    """
    gc.disable()
    try:
        from transformers import utils

        utils.is_sklearn_available = lambda: False  # type: ignore[attr-defined]
        yield
    finally:
        gc.freeze()
        gc.enable()


def threads(settings: EngineSettings) -> int:
    """Return how many threads an engine computes with: as set, else one for each of its cores."""
    return settings.threads or len(cores())


def _end_with(parent: int, *pipes: int) -> None:
    """See to it that this process's whole group ends when the parent does, or this process, however they die.

    A guard is forked before anything is loaded: vLLM's own processes would outlive a SIGKILL of ours, and keep a GPU.
    """
    if hasattr(os, "pidfd_open"):  # Linux; elsewhere no engine has processes of its own
        group = os.getpid()
        ends = select.poll()
        ends.register(os.pidfd_open(group), select.POLLIN)
        ends.register(os.pidfd_open(parent), select.POLLIN)
        if os.fork() == 0:
            for pipe in pipes:  # else their ends would stay open as long as the guard
                os.close(pipe)
            _guard(group, ends)
    if os.getppid() != parent:
        os._exit(1)


def _guard(group: int, ends: "select.poll") -> NoReturn:
    """Wait for either end, then kill the group (this process is of it)."""
    ends.poll()
    os.killpg(group, signal.SIGKILL)
    os._exit(0)


def _read(descriptor: int, requests: "queue.SimpleQueue[Json]") -> None:
    """Put every request on the queue; at the end of the pipe (no parent any more) kill the whole group."""
    with contextlib.suppress(OSError), open(descriptor, "rb") as stream:
        for text in stream:
            requests.put(json.loads(text))
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main(arguments: Sequence[str]) -> None:
    read, write, parent = (int(argument) for argument in arguments)
    _end_with(parent, read, write)
    os.set_inheritable(read, False)
    os.set_inheritable(write, False)
    requests: queue.SimpleQueue[Json] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(read, requests), daemon=True).start()
    server = Server(write, requests)
    try:
        while True:
            server.answer(requests.get())
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # without waiting for anybody's threads


if __name__ == "__main__":
    main(sys.argv[1:])
