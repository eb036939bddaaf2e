"""A rehearsal: answers at the pace of an engine elsewhere, made up or recorded, and told apart from real ones."""

import math
import statistics
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from m3_exp import busy, cli, config
from m3_exp.engines import pace
from m3_exp.engines.pace import Lengths, finishes, flight_seconds
from m3_exp.engines.protocol import EngineDied
from m3_exp.engines.recorded import RecordedEngine
from m3_exp.heartbeat import RunState, history
from m3_exp.results import Results, look_up
from m3_exp.running import Run
from m3_exp.store import Store, decoded
from m3_exp.types import Answer, EngineSettings, M3Error, Pace, Plan, Prompt, Sampling, Source, plain
from m3_exp.views.lookup import Lookup
from m3_exp.views.opening import first_words
from m3_exp.views.tables import looked_up
from tests.judge_server import JudgeServer, serving
from tests.test_repeat import FIRST, files, models, write_answers

__all__ = ["models"]
REHEARSAL = ["engine=recorded", "engine.answers=generated"]


def asked(models: list[Path], folder: Path, *more: str) -> list[str]:
    base, *experts = models
    named = [f"family.base={base}", f"family.experts=[{','.join(map(str, experts))}]"]
    where = ["items=lab", "dtype=float32", f"store={folder / 'store'}"]
    return ["family=local", *named, *REHEARSAL, *where, *more]


def carried(models: list[Path], folder: Path, *more: str, workers: int = 1) -> tuple[Plan, Store]:
    request = config.request(asked(models, folder, *more))
    store = Store(request.store)
    outcome = Run(request.plan, store, workers=workers).carry_out()
    assert (outcome.failures, outcome.done) == ((), outcome.cells)
    return request.plan, store


def texts(plan: Plan, store: Store) -> dict[str, list[Answer]]:
    """Return the answers of each cell, by its lambda and benchmark."""
    results = Results(store, plan.engine)
    found: dict[str, list[Answer]] = {}
    for cell in plan.cells:
        task = results.tasks.task(cell)
        made = store.merges.get(results.recipe_key(cell))
        assert made is not None
        kept = store.answers(results.answers_key(made.digest, task)).read()
        answers = [Answer(one.id, one.text, one.sample, one.n_tokens, one.finish) for one in kept]
        found[f"{cell.labels[0].lam} {cell.evaluator.name}"] = sorted(answers, key=lambda answer: answer.id)
    return found


# ------------------------------------------------------------------------------------------------------------ a pace


def stepped(lengths: list[int], sequences: int, step: pace.Step) -> dict[int, float]:
    """Return when each answer is whole, token by token: a plain loop."""
    waiting, left, ends, now = list(enumerate(lengths)), dict[int, int](), dict[int, float](), 0.0
    while waiting or left:
        while waiting and len(left) < sequences:
            number, length = waiting.pop(0)
            left[number] = length
        now += step(len(left))
        left = {number: length - 1 for number, length in left.items()}
        ends |= {number: now for number, length in left.items() if not length}
        left = {number: length for number, length in left.items() if length}
    return ends


@pytest.mark.parametrize(("sequences", "latency"), [(1, None), (3, None), (3, 0.02), (64, 0.1)])
def test_answers_are_whole_when_a_loop_over_tokens_says_so(sequences: int, latency: float | None) -> None:
    lengths = Lengths(20, 0.8).drawn(40, 90, 1)
    step = pace.step(Pace(tokens_per_second=100, sequences=sequences, latency=latency))
    expected = stepped(lengths, sequences, step)
    found = [(number, seconds) for seconds, number in finishes(lengths, sequences, step)]
    assert dict(found) == pytest.approx(expected)
    assert [seconds for _, seconds in found] == sorted(seconds for _, seconds in found)


def test_the_rate_is_that_of_the_whole_engine_and_falls_where_one_answer_has_a_latency() -> None:
    steady = pace.step(Pace(tokens_per_second=100, sequences=10))
    assert [steady(running) for running in (1, 5, 10)] == pytest.approx([0.01, 0.05, 0.1])
    bound = pace.step(Pace(tokens_per_second=100, sequences=10, latency=0.1))
    assert [bound(running) for running in (1, 5, 10)] == pytest.approx([0.1, 0.1, 0.1])


def test_lengths_follow_the_law() -> None:
    law = Lengths(mean=300, spread=0.6)
    drawn = law.drawn(20_000, 100_000, 3)
    assert statistics.fmean(drawn) == pytest.approx(300, rel=0.02)
    assert statistics.stdev(map(math.log, drawn)) == pytest.approx(0.6, rel=0.02)
    assert {Lengths(300, 0.0).at(quantile, 1024) for quantile in (0.01, 0.5, 0.99)} == {300}
    assert max(law.drawn(1000, 350, 3)) == 350
    assert min(Lengths(1, 3.0).drawn(1000, 350, 3)) == 1


def test_many_answers_take_what_the_steady_rate_says() -> None:
    step = pace.step(Pace(tokens_per_second=1000, sequences=64))
    assert flight_seconds([(0, 2048)], Lengths(), 64, step) == 0.0
    for answers in (8_000, 100_000):
        asked = [(answers // 4, 10**6), (answers - answers // 4, 10**6)]
        assert flight_seconds(asked, Lengths(), 64, step) == pytest.approx(answers * 300 / 1000, rel=0.02)


def test_answers_in_flight_together_have_one_tail() -> None:
    step = pace.step(Pace(tokens_per_second=1000, sequences=64, latency=0.02))
    apart = sum(flight_seconds([(200, 2048)], Lengths(), 64, step) for _ in range(3))
    assert flight_seconds([(200, 2048)] * 3, Lengths(), 64, step) < 0.9 * apart


def engine(folder: Path, models: list[Path], **given: float) -> RecordedEngine:
    write_answers(folder / "answers.jsonl", {0: FIRST})
    settings = EngineSettings("recorded", answers=str(folder / "answers.jsonl"), pace=Pace(**given))  # type: ignore[arg-type]
    return RecordedEngine(settings, Store(folder / "store"))


def test_recorded_answers_come_at_a_pace_and_each_as_it_finishes(models: list[Path], tmp_path: Path) -> None:
    paced = engine(tmp_path, models, tokens_per_second=400, sequences=4, length=80, spread=0.0, speedup=2)
    prompts = [Prompt(key, (1,)) for key, _ in paced._lines[0]]
    begun = time.monotonic()
    times = [time.monotonic() - begun for _ in paced.generate(prompts, Sampling(99), Source("t"))]
    assert len(times) == 8
    assert times[0] >= 4 * 80 / 400 / 2, "four in flight, at twice the speed"
    assert times[3] < 8 * 80 / 400 / 2 <= times[7], "they are not held back until all are there"
    assert paced.conditions["max_num_seqs"] == 4


def test_what_a_closed_engine_waits_for_ends_at_once(models: list[Path], tmp_path: Path) -> None:
    paced = engine(tmp_path, models, tokens_per_second=0.001, sequences=4)
    prompts = [Prompt(key, (1,)) for key, _ in paced._lines[0]]
    threading.Timer(0.1, paced.close).start()
    begun = time.monotonic()
    with pytest.raises(EngineDied, match="interrupted"):
        next(paced.generate(prompts, Sampling(64), Source("t")))
    assert time.monotonic() - begun < 30


def test_weights_take_a_swap_and_the_first_ones_a_start(models: list[Path], tmp_path: Path) -> None:
    request = config.request(asked(models, tmp_path, "evaluator=[gsm8k]"))
    recipe = request.plan.cells[0].recipe
    paced = engine(tmp_path, models, swap=3.0, start=6.0, speedup=10)
    took = []
    for _ in range(2):
        begun = time.monotonic()
        digest = paced.load(recipe).digest
        took.append(time.monotonic() - begun)
    assert took[0] >= 0.9
    assert took[1] >= 0.3
    assert digest == RecordedEngine(request.plan.engine, Store(tmp_path / "other")).load(recipe).digest


# -------------------------------------------------------------------------------------------------- made-up answers


def test_made_up_answers_are_the_same_wherever_they_are_made(models: list[Path], tmp_path: Path) -> None:
    words = ("ratio=grid", "ratio.nodes=3", "evaluator=[gsm8k,prompt_bench_sst2]", "limit=6")
    one = texts(*carried(models, tmp_path / "one", *words))
    other = texts(*carried(models, tmp_path / "other", *words, "engine.pace.tokens_per_second=1e6", workers=2))
    assert one == other
    assert len(one) == 6
    assert len({tuple(answer.text for answer in answers) for answers in one.values()}) > 3, "by weights and prompt"


@pytest.mark.slow
def test_made_up_programs_run_and_scores_differ(models: list[Path], tmp_path: Path) -> None:
    plan, store = carried(models, tmp_path, "ratio=grid", "ratio.nodes=3", "evaluator=[mbpp,gsm8k]", "limit=12")
    records = [one.record for one in look_up(plan, store) if one.record is not None]
    assert len({record.result.score for record in records}) > 2
    assert all(0 < (record.result.score or 0) < 100 for record in records)
    programs = [score for record in records for score in record.scores if record.result.benchmark == "mbpp"]
    assert {score.notes.get("sandbox") for score in programs} != {None}


def test_an_attack_that_asks_the_model_is_rehearsed_too(models: list[Path], tmp_path: Path) -> None:
    attack = ("evaluator=[prompt_bench_sst2]", "evaluator.prompt_bench_sst2.attack=deepwordbug", "limit=4")
    plan, store = carried(models, tmp_path, *attack)
    assert len(list(store.prepared)) == 1
    assert [one.record.result.n_unscored for one in look_up(plan, store) if one.record] == [0]


def test_benchmarks_in_flight_together_leave_the_records_that_each_leaves_alone(
    models: list[Path], tmp_path: Path
) -> None:
    """Two benchmarks, one of which makes its items with the model; the same answers judged by two rules."""
    judged = ["evaluator=[gsm8k]", "evaluator.gsm8k.extractor=paper,strict"]
    attacked = ["evaluator=[prompt_bench_sst2]", "evaluator.prompt_bench_sst2.attack=deepwordbug"]
    pace_of = ["engine.pace.tokens_per_second=1e5", "engine.pace.sequences=5"]
    found = []
    for name, runs in {"together": [(judged, attacked)], "alone": [(judged,), (attacked,)]}.items():
        store = Store(tmp_path / name / "store")
        for lines in runs:
            common = asked(models, tmp_path / name, "limit=6", *pace_of, "ratio=grid", "ratio.nodes=3")
            requests = [config.request([*common, *words], multirun=True) for words in lines]
            cells = tuple(cell for one in requests for cell in one.plan.cells)
            outcome = Run(replace(requests[0].plan, cells=cells), store).carry_out()
            assert (outcome.failures, outcome.done) == ((), outcome.cells)
        keys = sorted(store.answer_sets)
        lines_of = {key: sorted((a.id, a.text, a.prompt) for a in store.answers(key).read()) for key in keys}
        assert all(len(set(lines)) == len(lines) for lines in lines_of.values()), "asked once"
        found.append((files(store, "results", "answer_sets", "prepared"), lines_of))
    assert len(found[0][0]) > 12
    assert found[0] == found[1]


def test_a_run_keeps_how_busy_its_engine_was_and_says_so(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pace_of = ["engine.pace.tokens_per_second=1000", "engine.pace.sequences=2", "engine.pace.length=20"]
    words = asked(models, tmp_path, "evaluator=[gsm8k]", "limit=8", "engine.pace.swap=0.3", "tracker=none", *pace_of)
    assert cli.main(["run", *words]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("engine ")]
    (past,) = history(Store(tmp_path / "store"))
    assert past.engine is not None
    assert said == [busy.words(past.engine)]
    assert {"busy", "tail", "swap"} <= past.engine.keys()
    assert past.engine["swap"] >= 0.3
    (answers,) = texts(config.request(words).plan, Store(tmp_path / "store")).values()
    assert past.engine["busy"] + past.engine["tail"] >= 0.99 * sum(answer.n_tokens for answer in answers) / 1000
    seconds = {"busy": 9.0, "swap": 1.0}
    living = RunState("m3 run", "p", 1, 0, 0, 8, 4, 9.0, (), seconds_left=1.0, alive=True, engine=seconds)
    assert ", about 1 s left, engine 90 % busy (swap 10 %) | preparing" in str(living)


def test_a_rehearsal_is_never_taken_for_real(models: list[Path], tmp_path: Path) -> None:
    plan, store = carried(models, tmp_path, "evaluator=[gsm8k]", "limit=4")
    request = config.request(asked(models, tmp_path, "evaluator=[gsm8k]", "limit=4"))
    assert any("no figure means anything" in note for note in request.notes)
    notes = [str(note) for note in looked_up(Lookup.of(request)).notes]
    assert any(note.startswith("WARNING: a REHEARSAL") for note in notes)
    looked = Lookup.of(request)
    assert first_words(looked, looked.frame())[0].startswith("WARNING: a REHEARSAL")
    write_answers(tmp_path / "answers.jsonl", {0: FIRST[:4]})
    real = config.request([*asked(models, tmp_path, "evaluator=[gsm8k]", "limit=4")[:-1], "limit=4",
                           f"engine.answers={tmp_path / 'answers.jsonl'}"])  # fmt: skip
    assert [one.record for one in look_up(real.plan, store)] == [None]
    assert [one.record is None for one in look_up(plan, store)] == [False]


def test_lengths_and_not_speed_belong_to_an_answers_key(models: list[Path], tmp_path: Path) -> None:
    def fingerprint(*more: str) -> dict[str, str]:
        engine = config.request(asked(models, tmp_path, "evaluator=[gsm8k]", *more)).plan.engine
        return dict(Results(Store(tmp_path), engine).fingerprint)

    plain_one = fingerprint()
    assert plain_one["engine"] == "rehearsal"
    assert fingerprint("engine.pace.tokens_per_second=9", "engine.pace.swap=3") == plain_one
    assert fingerprint("engine.pace.length=100") != plain_one
    assert fingerprint("engine.pace.spread=0.1") != plain_one


def test_a_plan_without_a_pace_keeps_its_identity() -> None:
    assert plain(EngineSettings()).keys() & {"pace"} == set()
    settings = EngineSettings("recorded", answers="generated", pace=Pace(tokens_per_second=3.0))
    assert decoded(EngineSettings, plain(settings)) == settings


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("engine.pace.swap=3",), "engine.pace.swap has no effect without engine.pace.tokens_per_second"),
        (("engine.pace.tokens_per_second=0",), "engine.pace.tokens_per_second=0 is too small"),
        (
            ("engine.pace.tokens_per_second=100", "engine.pace.sequences=10", "engine.pace.latency=1"),
            "engine.pace.latency=1 does not fit 100 tokens a second with 10 answers in flight: give 0.01 to 0.1",
        ),
        (("engine.pace=fast",), "engine.pace=fast is not a mapping"),
        (("engine.pace.nothing=1",), "nothing"),
    ],
)
def test_a_pace_that_no_engine_has_is_refused(models: list[Path], tmp_path: Path, words: tuple[str], said: str) -> None:
    with pytest.raises(M3Error, match=said) as refused:
        config.request(asked(models, tmp_path, "evaluator=[gsm8k]", *words))
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_judge_that_takes_two_seconds_is_waited_for(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M3_JUDGE_KEY", "k")
    judge = JudgeServer(latency=2.0)
    with serving(judge):
        settings = {"judge": "local", "judge_model": "j", "endpoint": judge.url, "judge_workers": 8}
        given = [f"evaluator.alpaca_eval.{key}={value}" for key, value in settings.items()]
        begun = time.monotonic()
        plan, store = carried(models, tmp_path, "evaluator=[alpaca_eval]", "limit=16", *given)
    assert len(judge.requests) == 16
    assert time.monotonic() - begun >= 4.0, "eight at a time"
    assert [one.record.result.n_scored for one in look_up(plan, store) if one.record] == [16]
