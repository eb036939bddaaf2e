"""Answers that were generated before, as an engine: from another store, or from a file of saved answers.

`engine.answers=DIR` is a store: an answer is found by weights digest, sampling and prompt ids, and the cells keep the
fingerprint of the engine that wrote them. `engine.answers=FILE` holds lines of {"benchmark", "id", "text"} (and
"sample" where there are several, "repeat" in the answers of a repeat), taken for whatever weights the plan names: say
so where you show the numbers.

`engine.answers=generated` and `engine.pace` make a rehearsal: texts are made up (`rehearsal`), and weights and answers
take as long as an engine elsewhere would (`pace`), in front of the same queue, store and graders.
"""

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from m3_exp.engines import rehearsal
from m3_exp.engines.pace import Flight, finishes, law, step
from m3_exp.engines.protocol import Batch, Ended, EngineDied, Loaded, halved
from m3_exp.merging.canonical import recipe_key
from m3_exp.merging.stream import stream
from m3_exp.reading.files import exists, lines, parse_json, read_bytes, read_text
from m3_exp.reading.typed import Strict, checked
from m3_exp.store import Merge, Store
from m3_exp.types import (
    GENERATED,
    Answer,
    EngineSettings,
    Likelihood,
    M3Error,
    Pace,
    Prompt,
    Recipe,
    Sampling,
    Source,
    plain,
)

Lines = dict[tuple[str, int], Answer]  # by prompt id and sample
_LETTERS = 4  # of a token, where a file does not say how many tokens an answer has: assumed


class Line(Strict):
    """A line of a file of answers; what else it holds is not read."""

    benchmark: str
    id: str | int
    text: str
    sample: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    repeat: Annotated[int, Field(ge=0, le=1 << 20)] = 0


def _path(settings: EngineSettings) -> Path:
    path = Path(settings.answers or "")
    if not settings.answers or not exists(path):
        raise M3Error(
            f"engine.answers={settings.answers} does not exist: give a store's directory, a file of answers, or"
            f" {GENERATED} for a rehearsal with made-up texts"
        )
    return path


def fingerprint(settings: EngineSettings) -> dict[str, str]:
    """Return the engine that wrote the answers (a store), the file's digest, or the rehearsal."""
    if settings.answers == GENERATED:
        return rehearsal.fingerprint(settings)
    path = _path(settings)
    if not path.is_dir():
        digest = hashlib.sha256(read_bytes(path)).hexdigest()[:16]
        return {"engine": "recorded", "version": digest, "dtype": settings.dtype}
    other = Store(path)
    engines = {
        json.dumps(s.engine, sort_keys=True) for s in other.answer_sets.values() if s.engine["dtype"] == settings.dtype
    }
    if len(engines) != 1:
        listed = "; ".join(sorted(engines)) or f"none in {settings.dtype}"
        raise M3Error(
            f"engine.answers={path} must hold the answers of one engine in dtype={settings.dtype}, it holds: {listed}"
        )
    return {str(key): str(value) for key, value in json.loads(engines.pop()).items()}


def batched(settings: EngineSettings) -> bool:
    """Say that no text depends on what else is asked: it is written down."""
    return False


def start(settings: EngineSettings, recipe: Recipe, tokenizer: Source, store: Store) -> "RecordedEngine":
    """Open the record; nothing of `recipe` and `tokenizer` is needed."""
    return RecordedEngine(settings, store)


class RecordedEngine:
    """See the module's docstring. An item without a recorded answer stays unanswered, and so unscored."""

    def __init__(self, settings: EngineSettings, store: Store) -> None:
        self.fingerprint: Mapping[str, str] = fingerprint(settings)
        path = None if settings.answers == GENERATED else _path(settings)
        self._pace = pace = settings.pace or Pace()
        self.conditions: Mapping[str, object] = {"answers": GENERATED if path is None else path.name}
        if pace.tokens_per_second is not None:
            self.conditions = {**self.conditions, "pace": plain(pace), "max_num_seqs": pace.sequences}
        self.on_progress: Callable[[int, int, float], None] | None = None
        self.examples: Callable[[str], rehearsal.Examples] = lambda prompt: (None, None)
        self._store = store
        self._is_made_up = path is None
        self._other = Store(path) if path is not None and path.is_dir() else None
        self._lines = _read_lines(path) if path is not None and not path.is_dir() else {}
        self._digest = ""
        self._is_new = True
        self._closed = threading.Event()
        self._waiting: deque[tuple[int, Batch]] = deque()  # batches that `collect` has not taken up
        self._changed = threading.Condition()

    def load(self, recipe: Recipe) -> Loaded:
        """Find the weights' digest: remembered by either store, else by merging without keeping the tensors."""
        begun = time.monotonic()
        key = recipe_key(recipe, self._store)
        known = self._other.merges.get(key) if self._other else None
        known = self._store.merges.get(key) if known is None and self._is_made_up else known
        if known is None:
            merge = stream(recipe, self._store)
            for _ in merge:
                self._go_on()
            known = Merge(merge.digest, merge.report)
        self._digest = known.digest
        self._wait(begun, self._pace.swap + (self._pace.start if self._is_new else 0.0))
        self._is_new = False
        return Loaded(known.digest, 0.0, known.report)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source, *, repeat: int = 0
    ) -> Iterator[Answer]:
        """Give the recorded answers; a repeat has those that were recorded as that repeat, and no others."""
        asked = self._found(prompts, sampling, repeat)
        if self._pace.tokens_per_second is not None:
            at_once = halved(self.conditions, len(asked)) if repeat else self._pace.sequences
            yield from self._paced(asked, sampling.max_tokens, at_once)
            return
        for answer in asked:
            self._go_on()
            yield answer

    def submit(self, batches: Mapping[int, Batch]) -> None:
        """Put batches in flight."""
        with self._changed:
            self._waiting.extend(batches.items())
            self._changed.notify()

    def collect(self) -> Iterator[tuple[int, Answer | Ended]]:
        """Give the recorded answers: at a pace those of all batches together, else one batch after the other."""
        if self._pace.tokens_per_second is not None:
            yield from self._paced_together()
            return
        try:
            while self._waiting:
                number, batch = self._waiting.popleft()
                self.examples = batch.examples
                for answer in self.generate(batch.prompts, batch.sampling, batch.tokenizer):
                    yield number, answer
                yield number, Ended()
        except BaseException:  # also: nobody wants the rest
            self._waiting.clear()
            raise

    def _paced_together(self) -> Iterator[tuple[int, Answer | Ended]]:
        begun = told = time.monotonic()
        flight = Flight[tuple[int, Answer, int]](self._pace.sequences, step(self._pace))
        left: dict[int, int] = {}  # answers of a batch that are in flight
        done = tokens = 0
        while self._waiting or flight.due is not None:
            now = (time.monotonic() - begun) * self._pace.speedup
            while self._waiting:
                number, batch = self._waiting.popleft()
                self.examples = batch.examples
                answers = self._found(batch.prompts, batch.sampling, 0)
                left[number] = len(answers)
                for answer in answers:
                    length = self._length(answer, batch.sampling.max_tokens)
                    flight.add(length, (number, answer, length), now)
                if not answers:
                    yield number, Ended()
            if not self._is_due(begun, flight.due):
                continue
            number, answer, length = flight.pop()
            done, tokens, left[number] = done + 1, tokens + length, left[number] - 1
            if self.on_progress is not None and time.monotonic() - told >= 1.0:
                told = time.monotonic()
                self.on_progress(done, done + sum(left.values()), tokens / (told - begun))
            yield number, answer
            if not left[number]:
                yield number, Ended()

    def _is_due(self, begun: float, seconds: float | None) -> bool:
        """Wait until so many seconds of the rehearsed engine have passed since `begun`, or (False) more is asked."""
        with self._changed:
            while not self._waiting:
                self._go_on()
                wait = 0.0 if seconds is None else begun + seconds / self._pace.speedup - time.monotonic()
                if wait <= 0:
                    return seconds is not None
                self._changed.wait(wait)
        return False

    def _found(self, prompts: Sequence[Prompt], sampling: Sampling, repeat: int) -> list[Answer]:
        """Return the answers to prompts, as far as there are any."""
        samples = range(sampling.n)
        if self._is_made_up:
            return [self._made_up(prompt.id, sample, sampling.max_tokens) for prompt in prompts for sample in samples]
        known = self._recorded(prompts, sampling, repeat)
        found = [known.get((prompt.id, sample)) for prompt in prompts for sample in samples]
        return [answer for answer in found if answer]

    def _made_up(self, prompt: str, sample: int, limit: int) -> Answer:
        return rehearsal.made_up(self._digest, prompt, sample, limit, law(self._pace), self.examples(prompt))

    def _recorded(self, prompts: Sequence[Prompt], sampling: Sampling, repeat: int) -> Lines:
        if self._other is None:
            return self._lines.get(repeat, {})
        return self._from_store(self._other, sampling, {prompt.id: prompt.hashed for prompt in prompts}, repeat)

    def _paced(self, answers: Sequence[Answer], limit: int, at_once: int) -> Iterator[Answer]:
        """Give each answer when an engine of this pace has it whole."""
        lengths = [self._length(answer, limit) for answer in answers]
        begun = told = time.monotonic()
        tokens = 0
        for done, (seconds, number) in enumerate(finishes(lengths, at_once, step(self._pace)), 1):
            self._wait(begun, seconds)
            tokens += lengths[number]
            if self.on_progress is not None and time.monotonic() - told >= 1.0:
                told = time.monotonic()
                self.on_progress(done, len(answers), tokens / (told - begun))
            yield answers[number]

    def _length(self, answer: Answer, limit: int) -> int:
        """Return how many tokens an answer takes: by the law if there is one, else its own, or by its letters."""
        if self._pace.length is None or self._is_made_up:
            return answer.n_tokens or max(1, len(answer.text) // _LETTERS)
        return rehearsal.length(self._digest, answer.id, answer.sample, limit, law(self._pace))

    def _wait(self, begun: float, seconds: float) -> None:
        """Wait until so many seconds of the rehearsed engine have passed since `begun`."""
        if self._closed.wait(max(0.0, begun + seconds / self._pace.speedup - time.monotonic())):
            raise EngineDied("interrupted")

    def _from_store(self, other: Store, sampling: Sampling, hashes: Mapping[str, str], repeat: int) -> Lines:
        answers: Lines = {}
        sets = other.repeat_sets if repeat else other.answer_sets
        asked = (self._digest, sampling, repeat)
        for key, kept in sets.items():
            if (kept.weights, kept.sampling, kept.repeat or 0) == asked:
                for answer in other.answers(key).read():
                    if hashes.get(answer.id) == answer.prompt:
                        answers.setdefault((answer.id, answer.sample), answer)
        return answers

    def loglikelihood(self, pairs: Sequence[tuple[Prompt, tuple[int, ...]]]) -> Iterator[Likelihood]:
        raise M3Error("engine=recorded holds answers, not log-likelihoods: use engine=vllm or engine=transformers")

    def close(self) -> None:
        """End what is under way, between two tensors or two answers."""
        self._closed.set()
        with self._changed:
            self._changed.notify()

    def _go_on(self) -> None:
        if self._closed.is_set():
            raise EngineDied("interrupted")


def _read_lines(path: Path) -> dict[int, Lines]:
    """Return a file's answers by the number of the repeat, 0 for the first pass.

    Raises:
        M3Error: it cannot be read, or a line is no answer, or answers what another one did.
    """
    passes: dict[int, Lines] = {}
    places: dict[tuple[int, str, int], int] = {}
    for number, text in lines(read_text(path)):
        where = f"{path}:{number}"
        line = checked(Line, parse_json(text, where), where)
        answer = Answer(f"{line.benchmark}/{line.id}", line.text, line.sample)
        place = (line.repeat, answer.id, line.sample)
        if place in places:
            raise M3Error(
                f"{where} answers {answer.id} a second time (before: line {places[place]}): remove one of the two, or"
                ' number them by "sample", from 0'
            )
        places[place] = number
        passes.setdefault(line.repeat, {})[answer.id, line.sample] = answer
    return passes
