"""Answers that were generated before, as an engine: from another store, or from a file of saved answers.

`engine.answers=DIR` is a store: an answer is found by weights digest, sampling and prompt ids, and the cells keep the
fingerprint of the engine that wrote them. `engine.answers=FILE` holds lines of {"benchmark", "id", "text"} (and
"sample" where there are several, "repeat" in the answers of a repeat), taken for whatever weights the plan names: say
so where you show the numbers.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from m3_exp.engines.protocol import EngineDied, Loaded
from m3_exp.merging.canonical import recipe_key
from m3_exp.merging.stream import stream
from m3_exp.reading.files import exists, lines, parse_json, read_bytes, read_text
from m3_exp.reading.typed import Strict, checked
from m3_exp.store import Merge, Store
from m3_exp.types import Answer, EngineSettings, Likelihood, M3Error, Prompt, Recipe, Sampling, Source

Lines = dict[tuple[str, int], Answer]  # by prompt id and sample


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
            f"engine.answers={settings.answers} does not exist: give a store's directory or a file of answers"
        )
    return path


def fingerprint(settings: EngineSettings) -> dict[str, str]:
    """Return the engine that wrote the answers (a store), or the file's digest."""
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
        path = _path(settings)
        self.conditions: Mapping[str, object] = {"answers": path.name}
        self.on_progress: Callable[[int, int, float], None] | None = None
        self._store = store
        self._other = Store(path) if path.is_dir() else None
        self._lines = None if path.is_dir() else _read_lines(path)
        self._digest = ""
        self._closed = threading.Event()

    def load(self, recipe: Recipe) -> Loaded:
        """Find the weights' digest: remembered by either store, else by merging without keeping the tensors."""
        key = recipe_key(recipe, self._store)
        known = self._other.merges.get(key) if self._other else None
        if known is None:
            merge = stream(recipe, self._store)
            for _ in merge:
                self._go_on()
            known = Merge(merge.digest, merge.report)
        self._digest = known.digest
        return Loaded(known.digest, 0.0, known.report)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, tokenizer: Source, *, repeat: int = 0
    ) -> Iterator[Answer]:
        """Give the recorded answers; a repeat has those that were recorded as that repeat, and no others."""
        if self._lines is not None:
            answers = self._lines.get(repeat, {})
        else:
            answers = self._from_store(sampling, {prompt.id: prompt.hashed for prompt in prompts}, repeat)
        for prompt in prompts:
            for sample in range(sampling.n):
                self._go_on()
                if answer := answers.get((prompt.id, sample)):
                    yield answer

    def _from_store(self, sampling: Sampling, hashes: Mapping[str, str], repeat: int) -> Lines:
        assert self._other is not None
        answers: Lines = {}
        sets = self._other.repeat_sets if repeat else self._other.answer_sets
        asked = (self._digest, sampling, repeat)
        for key, kept in sets.items():
            if (kept.weights, kept.sampling, kept.repeat or 0) == asked:
                for answer in self._other.answers(key).read():
                    if hashes.get(answer.id) == answer.prompt:
                        answers.setdefault((answer.id, answer.sample), answer)
        return answers

    def loglikelihood(self, pairs: Sequence[tuple[Prompt, tuple[int, ...]]]) -> Iterator[Likelihood]:
        raise M3Error("engine=recorded holds answers, not log-likelihoods: use engine=vllm or engine=transformers")

    def close(self) -> None:
        """End what is under way, between two tensors or two answers."""
        self._closed.set()

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
