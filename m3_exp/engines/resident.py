"""An engine that lives in a child process: what `start` returns for engine=vllm and engine=transformers.

It keeps two guards of its own. Nothing is generated unless a `load` went through to its end; and whenever a digest is
loaded again, the log-likelihoods of a fixed probe must equal those of its first load, in a new process too.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from m3_exp.engines.process import Child
from m3_exp.engines.protocol import Batch, Ended, EngineDied, Loaded, halved, module
from m3_exp.store import Store
from m3_exp.types import Answer, EngineSettings, Json, Likelihood, M3Error, Prompt, Recipe, Sampling, Source

_GRACE = 10.0  # seconds for a child to end by itself
_PROBE_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.05}  # nats a token, mean


def batched(settings: EngineSettings) -> bool:
    """Tell whether a text may depend on what else is in flight: in 16 bits it does."""
    return settings.dtype != "float32"


def start(settings: EngineSettings, recipe: Recipe, tokenizer: Source, store: Store) -> "ResidentEngine":
    """Start an engine in a process of its own; see `protocol.EngineModule`."""
    return ResidentEngine(settings, recipe, tokenizer, store)


def _crossing(batch: Batch) -> Json:
    """Return what of a batch the child is told."""
    return {"prompts": batch.prompts, "sampling": batch.sampling, "tokenizer": batch.tokenizer}


class _Refused(Exception):
    """What the child refuses; `restart`: it cannot be used any more."""

    def __init__(self, reason: str, *, restart: bool) -> None:
        super().__init__(reason)
        self.restart = restart


class ResidentEngine:
    """See `protocol.Engine`. If set, `on_progress(done, total, tokens_per_second)` is called about once a second."""

    def __init__(self, settings: EngineSettings, recipe: Recipe, tokenizer: Source, store: Store) -> None:
        self.fingerprint = module(settings.name).fingerprint(settings)
        self.conditions: Mapping[str, object] = {}
        self.on_progress: Callable[[int, int, float], None] | None = None
        self._settings = settings
        self._start = {"do": "start", "settings": settings, "recipe": recipe, "tokenizer": tokenizer}
        self._store = store
        self._child: Child | None = None
        self._busy = False
        self._loaded = False
        self._asked: set[int] = set()  # the batches in flight
        self._asking = threading.Lock()
        self._probes: dict[str, list[float]] = {}
        self._open()

    @property
    def pid(self) -> int | None:
        """The child's process id (also of its session and group), or None after it died or was closed."""
        return self._child.pid if self._child else None

    def load(self, recipe: Recipe) -> Loaded:
        """Merge a recipe's weights into the engine, in a new process if the old one died.

        Raises:
            EngineDied: it crashed, said nothing for `start_timeout` seconds, or failed its probe.
            M3Error: the recipe is refused; the engine holds no weights then.
        """
        started = time.monotonic()
        self._loaded = False
        if self._child is None:
            self._open()
        loaded = self._first("loaded", {"do": "load", "recipe": recipe}, self._settings.start_timeout)
        self._compare_probe(loaded["digest"], loaded["probe"])
        self._loaded = True
        return Loaded(loaded["digest"], time.monotonic() - started, loaded["report"])

    def submit(self, batches: Mapping[int, Batch]) -> None:
        """Put batches in flight beside those that are.

        In each, `tokenizer` decodes, ends (its EOS and its generation config's) and bounds what can be written: rows of
        the embedding past its length are masked. A prompt that leaves no room for an answer is not cut: its Answer has
        finish="refused" and the reason as its text.

        Raises:
            EngineDied: it crashed, or takes no request.
        """
        with self._asking:
            self._asked |= batches.keys()
            asked = [[number, _crossing(batch)] for number, batch in batches.items()]
            self._ready_child().send({"do": "ask", "batches": asked}, self._settings.stall_timeout)

    def collect(self) -> Iterator[tuple[int, Answer | Ended]]:
        """Give each answer as it finishes, in any order, until nothing is in flight.

        An iterator that is not read to its end costs the engine.

        Raises:
            EngineDied: it crashed, or said nothing for `stall_timeout` seconds; `load` starts a new one.
        """
        with self._in_use() as child:
            while self._asked:
                reply = child.receive(self._settings.stall_timeout)
                if "answer" in reply:
                    yield reply["batch"], Answer(**reply["answer"])
                elif "ended" in reply:
                    self._asked.discard(reply["batch"])
                    yield reply["batch"], Ended(reply["ended"])
                else:
                    self._heed(reply)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source, *, repeat: int = 0
    ) -> Iterator[Answer]:
        """Give the answers of prompts that are in flight by themselves, in any order; half of them in a repeat.

        What they come with is said at `submit`. An iterator that is not read to its end costs the engine.

        Raises:
            EngineDied: it crashed, or said nothing for `stall_timeout` seconds; `load` starts a new one.
            M3Error: a prompt holds ids that the model has no rows for, or sampling values that cannot be.
        """
        request: Json = {"do": "generate", "prompts": prompts, "sampling": sampling, "tokenizer": tokenizer}
        if repeat:
            request["at_once"] = halved(self.conditions, len(prompts) * sampling.n)
        for reply in self._talk(request, self._settings.stall_timeout):
            yield Answer(**reply["answer"])

    def loglikelihood(self, pairs: Sequence[tuple[Prompt, tuple[int, ...]]]) -> Iterator[Likelihood]:
        """Score given continuations (token ids) of prompts, each as it is done, in any order.

        Raises:
            EngineDied: as `generate`.
            M3Error: a pair is empty, too long for max_model_len, or holds ids that the model has no rows for.
        """
        for reply in self._talk({"do": "loglikelihood", "pairs": pairs}, self._settings.stall_timeout):
            yield Likelihood(**reply["likelihood"])

    def close(self) -> None:
        """End the engine. Safe from any thread and more than once; a call under way elsewhere raises EngineDied."""
        child = self._child
        if child is None:
            return
        if self._busy:
            child.kill()
        else:
            child.leave(_GRACE)
        self._drop()

    # ------------------------------------------------------------------------------------------------------ talking

    def _open(self) -> None:
        self._asked.clear()
        self._child = Child(self._settings.name, self._store.log)
        request = {**self._start, "store": str(self._store.root)}
        self.conditions = self._first("ready", request, self._settings.start_timeout)

    def _first(self, key: str, request: Mapping[str, object], patience: float) -> Any:
        replies = [reply[key] for reply in self._talk(request, patience)]
        return replies[0]

    def _talk(self, request: Mapping[str, object], patience: float) -> Iterator[dict[str, Any]]:
        """Send a request and give the replies up to `done`. Left in any other way, the child cannot be used again."""
        with self._in_use(weights=request["do"] in ("generate", "loglikelihood")) as child:
            child.send(request, patience)
            while "done" not in (reply := child.receive(patience)):
                if not self._heed(reply):
                    yield reply

    @contextlib.contextmanager
    def _in_use(self, *, weights: bool = True) -> Iterator[Child]:
        """Have the child to oneself. Left in another way than by its end or a refusal, it cannot be used again."""
        child, finished = self._ready_child(weights=weights), False
        self._busy = True
        try:
            yield child
            finished = True
        except _Refused as refused:
            finished = not refused.restart
            raise M3Error(str(refused)) from None
        finally:
            self._busy = False
            if not finished:
                child.kill()
                self._drop()

    def _ready_child(self, *, weights: bool = True) -> Child:
        """Return the child. Raises EngineDied where it is gone or, if they are wanted, holds no weights."""
        if self._child is None:
            raise EngineDied(f"engine={self._settings.name} is not running: load starts a new one")
        if weights and not self._loaded:
            raise EngineDied(f"engine={self._settings.name} holds no complete weights: load a recipe first")
        return self._child

    def _heed(self, reply: Mapping[str, Any]) -> bool:
        """Pass progress on, and raise what is refused; False where a reply is neither."""
        if "refused" in reply:
            raise _Refused(reply["refused"], restart=reply["restart"])
        if "progress" in reply and self.on_progress is not None:
            self.on_progress(*reply["progress"])
        return "progress" in reply

    def _drop(self) -> None:
        self._child = None
        self._loaded = False
        self._asked.clear()

    def _compare_probe(self, digest: str, probe: list[float]) -> None:
        first = self._probes.setdefault(digest, probe)
        apart = sum(abs(a - b) for a, b in zip(first, probe, strict=True)) / len(first)
        if not apart <= _PROBE_TOLERANCE[self._settings.dtype]:  # NaN fails too
            child = self._child
            self._drop()
            assert child is not None
            raise child.died(f"failed its probe: {apart:.3g} nats a token from the first load of {digest[:12]}")
