"""repeat=K, the noise floor: nothing that was there before changes, and flips are counted as they are.

Answers come from a file (engine=recorded) in which a repeat has answers of its own.
"""

import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from scipy.stats import t as student_t
from statsmodels.stats.proportion import proportion_confint

from m3_exp import cli, config, forecast, planning, results
from m3_exp.engines.protocol import halved
from m3_exp.engines.vllm import VllmModel
from m3_exp.heartbeat import Heartbeat
from m3_exp.reporting.data.dataframe import tidy
from m3_exp.reporting.tables import noise, paper
from m3_exp.reporting.tables.formats import FORMATS, markdown
from m3_exp.reporting.tables.rows import Shown
from m3_exp.results import Results, look_up
from m3_exp.running import Outcome, Run
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.scoring.items import first as first_items
from m3_exp.store import Store
from m3_exp.tasks import Task
from m3_exp.types import Cell, EngineSettings, EvaluatorSpec, Json, Plan, Prompt, Recipe, Source, identity
from tests.files import recorded_run, write_lines
from tests.models import SMALL, write_three
from tests.records import looked_up

RIGHT, WRONG = "The answer is: {}", "The answer is: no idea"


# ---------------------------------------------------------------------------------------------------- identities


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Results, Task]:
    """A task whose every part is spelled out here, so that its keys are the same on every machine."""
    monkeypatch.setattr(results, "recipe_key", lambda recipe, store, models: "recipe")
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"benchmark": "gsm8k", "id": "0", "text": "x"}\n')
    desk = Results(Store(tmp_path / "store"), EngineSettings(name="recorded", answers=str(answers)))
    spec = EvaluatorSpec("asking", "tests.asking:Asking", {"break_after": 3}, "official", "base")
    model = Source("/m")
    average = "m3_exp.merging.methods.average:average"
    cell = Cell(Recipe(model, (model,), average, {}, (1.0,), None, "float32"), spec, model, (), model, 4)
    evaluator = desk.tasks.evaluator(spec)
    prompts = tuple(Prompt(f"asking/{i}", (1, 2, i)) for i in range(4))
    return desk, Task(cell, evaluator, tuple(evaluator.problems("")), "f" * 64, lambda: prompts)


def test_keys_are_what_they_were_before_there_were_repeats(task: tuple[Results, Task]) -> None:
    """Golden values, taken from the code without repeats: results and answers in old stores stay valid."""
    desk, first = task
    cell = first.cell
    assert desk.cell_key(cell) == "64c2ee66b90356e0292cb07479b3b8470ec21faac72c99e40fadc82bdcd4b05c"
    assert desk.answers_key("d" * 64, first) == "1f7f495f04ed6016567a574ff6ee7bc5885cda214db758b5b88751ac9b068c53"
    assert desk.prepared_key("d" * 64, first) == "8278f69b7c19edbdde1fcb03f3f32f9f3e361dcb027b152d4ece6f28b0fec0d9"
    assert desk.spelled_key(cell) == "ebcb2cbf7dd67a0e1977d534dfc72f127f4c1d26537e7b7b936f15196403c12c"
    assert results.result_name(first) == "000004-ffffffffffffffff"
    planned = Plan((cell,), EngineSettings(), 0)
    assert identity(planned) == "0b0c7aeb527661f6dd76d5253c8e15271520f1f3ddd6b0b32521b43b3605a441"


def test_a_repeat_has_keys_of_its_own_but_for_the_items_that_a_model_made(task: tuple[Results, Task]) -> None:
    desk, first = task
    again = [replace(first, repeat=number) for number in (1, 2)]
    keys = {desk.answers_key("d" * 64, one) for one in (first, *again)}
    assert len(keys) == 3
    assert {results.result_name(one) for one in again} == {"000004-ffffffffffffffff-1", "000004-ffffffffffffffff-2"}
    assert {desk.prepared_key("d" * 64, one) for one in (first, *again)} == {desk.prepared_key("d" * 64, first)}


def test_each_repeat_has_an_order_of_its_own_and_always_the_same(task: tuple[Results, Task]) -> None:
    first = task[1]
    prompts = [Prompt(f"asking/{i}", (i,)) for i in range(50)]
    orders = [replace(first, repeat=number).in_order(prompts) for number in (1, 2)]
    assert first.in_order(prompts) == prompts
    assert len({tuple(order) for order in (prompts, *map(tuple, orders))}) == 3  # type: ignore[arg-type]
    assert all(sorted(order, key=prompts.index) == prompts for order in orders)
    rest = replace(first, repeat=1).in_order(prompts[10:])
    assert rest == [prompt for prompt in orders[0] if prompt in prompts[10:]], "a resumed repeat keeps its order"


@pytest.mark.parametrize(
    ("batch", "requests", "half"), [(128, 500, 64), (128, 96, 48), (1, 9, 1), (7, 100, 3), (None, 10, 5), (64, 1, 1)]
)
def test_half_the_batch_is_half_of_what_would_be_in_flight(batch: int | None, requests: int, half: int) -> None:
    assert halved({} if batch is None else {"max_num_seqs": batch}, requests) == half


class Flight:
    """Stands in for vLLM's engine: every request takes some steps; remembers how many were in flight."""

    def __init__(self) -> None:
        self.left: dict[int, int] = {}
        self.most = 0
        self.output_processor: Any = type("Processor", (), {"request_states": {}})

    def has_unfinished_requests(self) -> bool:
        return bool(self.left)

    def add_request(self, number: str, *_: Any) -> None:
        self.left[int(number)] = 1 + int(number) % 3

    def step(self) -> list[Any]:
        self.most = max(self.most, len(self.left))
        self.left = {key: steps - 1 for key, steps in self.left.items()}
        done = [key for key, steps in self.left.items() if not steps]
        self.left = {key: steps for key, steps in self.left.items() if steps}
        output = type("Output", (), {"token_ids": [0]})
        return [type("Done", (), {"request_id": str(key), "outputs": [output]}) for key in done]


class Flying(VllmModel):
    def __init__(self) -> None:
        self._engine = Flight()

    def _add(self, number: int, token_ids: Sequence[int], params: Any) -> None:
        self._engine.left[number] = 1 + number % 3


@pytest.mark.slow
@pytest.mark.parametrize(("at_once", "most"), [(None, 20), (5, 5), (1, 1), (64, 20)])
def test_vllm_has_no_more_in_flight_than_allowed_and_answers_everything(at_once: int | None, most: int) -> None:
    model = Flying()
    steps: Iterator[Any] = model._steps([((1,), None)] * 20, at_once)
    assert sorted(int(output.request_id) for output in steps if not isinstance(output, int)) == list(range(20))
    assert model._engine.most == most


# ----------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_three(tmp_path_factory.mktemp("models"), SMALL, torch.float32)


def golds(limit: int) -> list[tuple[str, str]]:
    """The ids and right answers of the lab's first items, as a run with this limit takes them."""
    spec = config.evaluator("gsm8k", ["items=lab"])
    evaluator = load_evaluator(spec)
    items = first_items(evaluator.problems("lab"), "gsm8k", limit)
    return [(item.id, str(item.row["answer"]).split("####")[1].strip()) for item in items]


def write_answers(path: Path, passes: dict[int, list[bool]], reworded: frozenset[int] = frozenset()) -> None:
    """Write a file of answers: for each pass which items are right; `reworded` ones say it otherwise in repeats."""
    lines = []
    for repeat, rights in passes.items():
        for number, ((key, gold), right) in enumerate(zip(golds(len(rights)), rights, strict=True)):
            text = RIGHT.format(gold) if right else WRONG
            text += " indeed" if repeat and number in reworded else ""
            lines.append({"benchmark": "gsm8k", "id": key, "text": text} | ({"repeat": repeat} if repeat else {}))
    write_lines(path, lines)


def line(models: list[Path], folder: Path) -> list[str]:
    settings = ["items=lab", "limit=8", "dtype=float32", f"store={folder / 'store'}"]
    return [*recorded_run(folder / "answers.jsonl", *models), *settings]


def request(models: list[Path], folder: Path, *more: str) -> tuple[Plan, Store]:
    asked = config.request([*line(models, folder), "evaluator=[gsm8k]", *more])
    return planning.build(asked.configs), Store(asked.store)


def files(store: Store, *kinds: str) -> dict[str, Json]:
    """Every record of some kinds by its path; without the run's number, which no two runs share."""
    found = {}
    for kind in kinds:
        for path in sorted((store.root / kind).rglob("*.json")):
            record = json.loads(path.read_text())
            for own in ("runs", "checksum"):
                record.pop(own, None)
            found[str(path.relative_to(store.root))] = record
    return found


FIRST = [True] * 4 + [False] * 4
AGAIN = [True] * 3 + [False] * 3 + [True] * 2  # one flips down, two up


class TestRepeats:
    def carried(self, models: list[Path], folder: Path, repeat: int, *more: str) -> tuple[Outcome, Plan, Store]:
        planned, store = request(models, folder, *more)
        return Run(planned, store, repeat=repeat).carry_out(), planned, store

    def test_the_first_pass_is_the_same_with_and_without_repeats(self, models: list[Path], tmp_path: Path) -> None:
        shown = []
        for name, repeat in (("without", 0), ("with", 2)):
            folder = tmp_path / name
            folder.mkdir()
            write_answers(folder / "answers.jsonl", {0: FIRST, 1: AGAIN, 2: FIRST})
            outcome, planned, store = self.carried(models, folder, repeat, "ratio=grid", "ratio.nodes=3")
            assert (outcome.cells, outcome.failures) == (3 * (1 + repeat), ())
            assert outcome.engine_starts == 1, "one engine for all groups and their repeats"
            assert outcome.generated == 3 * (1 + repeat) * 8
            table = markdown(paper.build("t", Shown(tidy(look_up(planned, store)))))
            shown.append((files(store, "results", "answer_sets", "spelled", "prepared"), table))
        assert shown[0][0].keys() == shown[1][0].keys()
        assert shown[0] == shown[1]

    def test_flips_are_counted_and_nothing_else_sees_the_repeats(self, models: list[Path], tmp_path: Path) -> None:
        write_answers(tmp_path / "answers.jsonl", {0: FIRST, 1: AGAIN, 2: FIRST}, reworded=frozenset({0}))
        _, planned, store = self.carried(models, tmp_path, 2)
        assert [item.repeat for item in look_up(planned, store)] == [0]
        looked = look_up(planned, store, repeats=True)
        assert [item.repeat for item in looked] == [0, 1, 2]
        assert list(tidy(looked)["repeat"]) == [0]
        assert tidy(looked).drop(columns="merge").equals(tidy(look_up(planned, store)).drop(columns="merge"))
        one, two = noise.measured(tidy(looked, repeats=True))
        assert (one.n, one.up, one.down, one.texts, one.graded) == (8, 2, 1, 4, 0)
        assert (one.score, one.difference) == (50.0, 12.5)
        assert noise.deviation([one]).value == pytest.approx(100 * math.sqrt(3) / 8)
        assert (two.up, two.down, two.texts, two.difference) == (0, 0, 1, 0.0)
        none = deviations([[0]] * 8, 8).split(", ")[1]
        sd = noise.deviation([two])
        assert (sd.value, f"{sd.high:.1f}") == (0.0, none) == (0.0, "22.8"), "none of 8 is no proof of none"
        (line,) = noise.footer(tidy(looked, repeats=True))
        flipped = [*[[1, 0]] * 3, *[[0, 0]] * 5]
        low, high = ends(flipped)
        version = planned_version(planned, store)
        assert line == (
            f"noise floor (recorded {version} float32): gsm8k 3 of 16 verdicts flipped between repeats"
            f" (18.8 % [{low:.1f}, {high:.1f}]), sd of a difference {100 * math.sqrt(3 / 16 / 8):.1f}"
            f" [{deviations(flipped, 8)}] points"
        )
        assert (low, high) == pytest.approx((3.24, 46.36), abs=0.01)
        table = noise.build("t", tidy(looked, repeats=True))
        assert [row[4:10] for row in table.texts] == [
            ("float32", "1", "8", "4", "2", "1"), ("float32", "2", "8", "1", "0", "0"),
        ]  # fmt: skip
        alone = [*[[1]] * 3, *[[0]] * 5]
        assert table.texts[0][10] == "37.5 [{:.1f}, {:.1f}]".format(*ends(alone))
        assert [row[13] for row in table.texts] == [f"21.7 [{deviations(alone, 8)}]", "below 22.8"]
        assert [(x["sd"], x["sd_low"] > 0, x["sd_high"] > 21) for x in table.records][1] == (0.0, False, True)
        for form in FORMATS.values():
            assert "gsm8k" in form(table)

    def test_a_repeat_never_takes_the_first_passs_answers(self, models: list[Path], tmp_path: Path) -> None:
        """The record has none for the repeat: it is unscored and named, and the first pass stands."""
        write_answers(tmp_path / "answers.jsonl", {0: FIRST})
        outcome, planned, store = self.carried(models, tmp_path, 1)
        assert [str(f).split(": ", 1) for f in outcome.failures] == [
            ["a_b average on gsm8k (repeat 1)", "8 of 8 items are unscored: the engine gave no answer"]
        ]
        assert outcome.cells - len(outcome.failures) == 1
        (item,) = look_up(planned, store)
        assert item.record is not None
        assert (item.record.result.score, item.failure) == (50.0, None)
        assert noise.footer(tidy(look_up(planned, store, repeats=True), repeats=True)) == []
        assert forecast.repeats_words(planned, store, 1)[0].endswith("0 of 1 done; 8 more answers to generate")

    def test_a_failed_first_pass_fails_its_repeats_too(self, models: list[Path], tmp_path: Path) -> None:
        write_answers(tmp_path / "answers.jsonl", {1: AGAIN})
        outcome, _, _ = self.carried(models, tmp_path, 1)
        assert [f.evaluation.repeat for f in outcome.failures] == [0, 1]
        assert "no complete first pass" in outcome.failures[1].reason

    def test_a_plan_calls_done_what_a_run_leaves(self, models: list[Path], tmp_path: Path) -> None:
        """A result of uncontained programs does not stand, so that neither calls it done."""
        write_answers(tmp_path / "answers.jsonl", {0: FIRST})
        _, planned, store = self.carried(models, tmp_path, 0)
        results, (cell,) = Results(store, planned.engine), planned.cells
        task = results.tasks.task(cell)
        assert [
            found.state for found in forecast.forecast(planned, Results(store, planned.engine), None, keep=False).cells
        ] == ["done"]
        record = results.get(task)
        assert record is not None
        weak = tuple(replace(score, notes={"sandbox": "weak"}) for score in record.scores)
        results.put(task, replace(record, scores=weak))
        assert not results.is_done(task)
        found = forecast.forecast(planned, Results(store, planned.engine), None, keep=False)
        assert [(one.state, one.left) for one in found.cells] == [("begun", 0)]
        assert found.totals.done == 0

    def test_later_repeats_leave_what_is_done(self, models: list[Path], tmp_path: Path) -> None:
        write_answers(tmp_path / "answers.jsonl", {0: FIRST, 1: AGAIN, 2: AGAIN})
        assert self.carried(models, tmp_path, 0)[0].generated == 8
        first = files(Store(tmp_path / "store"), "results")
        outcome, planned, store = self.carried(models, tmp_path, 2)
        assert (outcome.cached, outcome.generated, outcome.failures) == (1, 16, ())
        assert files(store, "results") == first
        again = self.carried(models, tmp_path, 2)[0]
        assert (again.cached, again.generated, again.engine_starts) == (3, 0, 0)
        assert forecast.repeats_words(planned, store, 2) == [
            "repeats (noise floor): 2 of 2 done; no more answers to generate"
        ]
        assert forecast.repeats_words(planned, store, 0) == []

    def test_a_whole_store_is_replayed_with_its_repeats(self, models: list[Path], tmp_path: Path) -> None:
        write_answers(tmp_path / "answers.jsonl", {0: FIRST, 1: AGAIN})
        _, _, one = self.carried(models, tmp_path, 1)
        other = f"engine.answers={one.root}"
        planned, store = request(models, tmp_path, other, f"store={tmp_path / 'replayed'}")
        outcome = Run(planned, store, repeat=1).carry_out()
        assert outcome.failures == ()
        (told,) = noise.measured(tidy(look_up(planned, store, repeats=True), repeats=True))
        assert (told.up, told.down) == (2, 1)

    def test_an_item_that_a_plugin_cannot_read_stops_nobody_else(
        self, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_answers(tmp_path / "answers.jsonl", {0: FIRST})
        planned, store = request(models, tmp_path, "evaluator=[gsm8k,humaneval]")
        kind = type(Results(store, planned.engine).tasks.evaluator(planned.cells[1].evaluator))

        def broken(*_: object) -> str:
            raise KeyError("prompt")

        monkeypatch.setattr(kind, "prompt", broken)
        outcome = Run(planned, store).carry_out()
        assert [(f.evaluation.cell.evaluator.name, f.reason) for f in outcome.failures] == [
            ("humaneval", "KeyError: 'prompt'")
        ]
        assert outcome.generated == 8

    @pytest.mark.engine
    @pytest.mark.usefixtures("living_engine")
    def test_a_living_engine_repeats_with_half_the_batch(self, models: list[Path], tmp_path: Path) -> None:
        """In float32 the texts are the same, whatever the batch."""
        (tmp_path / "answers.jsonl").write_text("")
        more = ["engine=transformers", "engine.answers=null", "evaluator.gsm8k.max_tokens=4"]
        outcome, planned, store = self.carried(models, tmp_path, 1, *more)
        assert (outcome.failures, outcome.generated, outcome.engine_starts) == ((), 16, 1)
        (told,) = noise.measured(tidy(look_up(planned, store, repeats=True), repeats=True))
        assert (told.n, told.texts, told.flips) == (8, 0, 0)
        conditions = list(store.conditions.values())
        assert sorted(c.get("repeat", 0) for c in conditions) == [0, 1]


def ends(items: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The interval of a share of flips in percent by hand: Agresti and Coull's of as many verdicts as they are worth by
    their design effect, with Student's quantile, since the items (each one cluster of its repeats) are few.
    """
    found = [np.array(verdicts, dtype=float) for verdicts in items]
    n, clusters = sum(map(len, found)), len(found)
    p = sum(verdicts.sum() for verdicts in found) / n
    together = sum((verdicts - p).sum() ** 2 for verdicts in found) * clusters / (clusters - 1)
    alone = sum(((verdicts - p) ** 2).sum() for verdicts in found) * n / (n - 1)
    worth = n / (min(n / clusters, max(1.0, together / alone)) if alone else n / clusters)
    z, student = norm.ppf(0.975), student_t.ppf(0.975, clusters - 1)
    middle = (worth * p + z * z / 2) / (worth + z * z)
    squares = worth * ((worth - 1) * together / n**2 + p * p) + z * z / 2
    half = student * math.sqrt((squares / (worth + z * z) - middle**2) / (worth + z * z))
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def deviations(items: Sequence[Sequence[float]], verdicts: int) -> str:
    return ", ".join(f"{100 * math.sqrt(share / 100 / verdicts):.1f}" for share in ends(items))


def planned_version(planned: Plan, store: Store) -> str:
    return Results(store, planned.engine).fingerprint["version"]


def test_a_grader_that_flips_on_the_same_text_is_told_apart() -> None:
    (cell,) = planning.build(config.request(["pair=lm", "evaluator=[gsm8k]"]).configs).cells

    def record(values: list[float], changed: list[Any] | None = None) -> Json:
        return {
            "result": {"metric": "accuracy", "score": 100 * sum(values) / len(values), "low": 0.0, "high": 100.0,
                       "n": len(values), "n_unscored": 0},
            "scores": [{"id": str(i), "sample": 0, "value": value} for i, value in enumerate(values)],
            "weights": "w", "engine": {"engine": "vllm", "version": "1", "dtype": "bfloat16"},
            "evaluator": {"name": "gsm8k", "version": "1"}, "runs": [],
        } | ({} if changed is None else {"repeat": {"number": 1, "changed": changed}})  # fmt: skip

    looked = [looked_up(cell, record([1, 1, 0, 0.5])), looked_up(cell, record([0, 1, 1, 0.75], [["0", 0]]), repeat=1)]
    (told,) = noise.measured(tidy(looked, repeats=True))
    assert (told.up, told.down, told.graded, told.dtype) == (2, 1, 2, "bfloat16")
    assert noise.deviation([told]).value == pytest.approx(100 * math.sqrt(1 + 1 + 0.25**2) / 4)
    assert any("that is the grader" in line for line in noise.build("t", tidy(looked, repeats=True)).footer)
    assert Counter(tidy(looked)["repeat"]) == {0: 1}


def repeated(steps: Sequence[float], repeat: int = 1) -> noise.Noise:
    moved = {(str(item), 0): step for item, step in enumerate(steps)}
    return noise.Noise({}, "gsm8k", "", "vllm 1 float32", "float32", "w", repeat, moved, 0, 0, 50.0, 0.0)


def test_three_of_96() -> None:
    """The example of the manual."""
    one = repeated([1, -1, 1] + [0] * 93)
    found = noise.rate([one])
    low, high = ends([*[[1]] * 3, *[[0]] * 93])
    assert (found.value, found.low, found.high) == pytest.approx((3.125, low, high))
    known = [100 * x for x in proportion_confint(3, 96, method="agresti_coull")]
    assert (found.low, found.high) == pytest.approx(known, abs=0.1)
    assert found.low < known[0] < known[1] < found.high, "Student's quantile"
    sd = noise.deviation([one])
    assert (sd.value, sd.low, sd.high) == pytest.approx(
        tuple(100 * math.sqrt(share / 100 / 96) for share in (found.value, found.low, found.high))
    )
    assert sd.value == pytest.approx(100 * math.sqrt(3) / 96)


def test_no_flip_is_no_proof_of_none() -> None:
    """0 of 96: the rule of three allows 3 %, two-sided 4 to 5."""
    none = repeated([0] * 96)
    found = noise.rate([none])
    assert (found.value, found.low) == (0.0, 0.0)
    assert 3 / 96 < found.high / 100 < 5 / 96
    assert noise.deviation([none]).high == pytest.approx(100 * math.sqrt(found.high / 100 / 96))
    assert round(noise.deviation([none]).high, 1) == 2.2


def test_repeats_of_the_same_items_are_no_other_items() -> None:
    """One item that flips each time is one cluster: four repeats of it do not make its rate sure."""
    every = [repeated([1] + [0] * 23, repeat) for repeat in range(1, 5)]
    spread = [repeated([0] * k + [1] + [0] * (23 - k), k + 1) for k in range(4)]
    assert noise.rate(every).value == pytest.approx(noise.rate(spread).value)
    assert noise.rate(every).high > noise.rate(spread).high
    assert noise.deviation(every).value == pytest.approx(100 / 24)


def test_the_deviation_is_that_of_repeated_scores() -> None:
    """Each of 400 verdicts flips in 5 % of passes, up or down: the sd of the difference is as printed."""
    generator = np.random.default_rng(0)
    runs = [(generator.random(400) < 0.05) * generator.choice([-1.0, 1.0], 400) for _ in range(400)]
    differences = [100 * run.mean() for run in runs]
    assert noise.deviation([repeated(list(run)) for run in runs]).value == pytest.approx(np.std(differences), rel=0.08)
    covered = [
        x.low <= 100 * math.sqrt(0.05 / 400) <= x.high for x in (noise.deviation([repeated(list(r))]) for r in runs)
    ]
    assert np.mean(covered) > 0.92


# --------------------------------------------------------------------------------------------------- command line


class TestCommands:
    @pytest.fixture
    def line(self, models: list[Path], tmp_path: Path) -> list[str]:
        write_answers(tmp_path / "answers.jsonl", {0: FIRST, 1: AGAIN})
        return line(models, tmp_path)

    def test_run_plan_and_status_know_repeats(self, line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        asked = [*line, "evaluator=[gsm8k]", "repeat=1"]
        assert cli.main(["plan", *asked]) == 0
        assert "repeats (noise floor): 0 of 1 done; 8 more answers to generate" in capsys.readouterr().out
        assert cli.main(["run", *asked]) == 0
        out = capsys.readouterr().out
        assert "2 of 2 cells done in " in out
        flipped = [*[[1]] * 3, *[[0]] * 5]
        low, high = ends(flipped)
        assert f"gsm8k 3 of 8 verdicts flipped between repeats (37.5 % [{low:.1f}, {high:.1f}])" in out
        assert f"sd of a difference 21.7 [{deviations(flipped, 8)}] points" in out
        assert cli.main(["status", *asked]) == 0
        assert "repeats (noise floor): 1 of 1 done; no more answers" in capsys.readouterr().out
        assert cli.main(["run", *line, "evaluator=[gsm8k]", "repeat=-1"]) == 2
        assert "repeat=-1 is too small" in capsys.readouterr().err

    def test_a_failed_cell_is_listed_with_the_command_that_retries_it(
        self, line: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ["-m", *line, "evaluator=[gsm8k,hendrycks_math]", "ratio=plain,fixed", "ratio.lam=0.25"]
        assert cli.main(["run", *asked]) == 1
        out = capsys.readouterr().out.splitlines()
        failed = [number for number, text in enumerate(out) if text.startswith("failed: ") and "hendrycks" in text]
        commands = [shlex.split(out[number + 1].removeprefix("  again: ")) for number in failed[-2:]]
        assert all(command[:2] == ["m3", "run"] for command in commands)
        assert all(command[-1] == "evaluator=[hendrycks_math]" for command in commands)
        assert ["ratio=plain" in command for command in commands] == [True, False]
        for command in commands:
            assert cli.main([*command[1:], "--json"]) == 1
            outcome = json.loads(capsys.readouterr().out)
            assert (outcome["cells"], len(outcome["failures"])) == (1, 1)
        assert cli.main(["status", *asked]) == 0
        told = capsys.readouterr().out
        assert told.count("  again: m3 run ") == 2

    def test_status_sees_a_run_while_it_lives(self, line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        asked = config.request([*line, "evaluator=[gsm8k]"])
        planned, store = planning.build(asked.configs), Store(asked.store)
        going = Run(planned, store, command="m3 run this")
        with Heartbeat(store, going.id, going.state):
            assert cli.main(["status", *line, "evaluator=[gsm8k]"]) == 0
            assert f"running: m3 run this: pid {os.getpid()} on " in capsys.readouterr().out
            assert cli.main(["status", *line, "evaluator=[gsm8k]", "--json"]) == 0
            (seen,) = json.loads(capsys.readouterr().out)["running"]
            assert (seen["this_plan"], seen["cells"]) == (True, 1)
        assert cli.main(["status", *line, "evaluator=[gsm8k]", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["running"] == []
