"""What `m3 plan` forecasts where neither models nor items are at hand, and on which assumptions."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.gsm8k import GSM8K
from evaluators.prompt_bench import SST2, PromptBench
from m3_exp import config, planning
from m3_exp.engines.gpus import GPUS, OVERHEAD, Load, least_split, sequences, speed
from m3_exp.forecast import Forecast, forecast
from m3_exp.forecast_words import More, words
from m3_exp.merging.model_config import check_same_architecture
from m3_exp.merging.source import resolve, without_fetching
from m3_exp.results import Results
from m3_exp.store import Merge, Rate, Store
from m3_exp.types import M3Error, Problem, Source, identity
from tests.models import Shape, config_of, fine_tuned, random_weights, write_model

CARDS = {gpu.name: gpu for gpu in GPUS}
LLAMA = Load(weights=26_031_728_640, width=2, cache=409_600, length=4096, split=1, share=0.9)


@pytest.fixture(autouse=True)
def _nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("M3_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("m3_exp.scoring.items._from_hub", lambda file: None)


def forecasted(tmp_path: Path, *overrides: str) -> Forecast:
    first, *_ = configs = config.request([*overrides, f"store={tmp_path}"], multirun=True).configs
    plan = planning.build(configs)
    results = Results(Store(tmp_path), plan.engine)
    return forecast(plan, results, first.parameters, keep=False, cache_values=first.cache_values)


def test_answers_are_as_long_as_those_of_an_earlier_run(tmp_path: Path) -> None:
    asked = ("family=lab", "pair=math", "evaluator=[gsm8k]", "limit=10")
    parameters, engine = config.request([*asked]).configs[0].parameters, config.request([*asked]).plan.engine
    key = identity([engine.name, engine.dtype, parameters])
    for length, tokens in ((None, 10 * 40), (6.0, 60), (5000.0, 10 * 40)):  # the limit is 40
        Store(tmp_path).rates.put(key, Rate(3.0, length))
        found = forecasted(tmp_path, *asked)
        assert found.totals.tokens_typical == tokens
        assert found.totals.seconds_typical == pytest.approx(tokens / 3)
        said = " ".join(found.notes)
        assert f"answers of {300 if length is None else f'{length:,.0f}'} tokens or their limit" in said


# ---------------------------------------------------------------------------------------------------------- GPUs


def test_memory_of_a_gpu_is_weights_overhead_and_cache() -> None:
    free = 0.9 * 80e9 - LLAMA.weights - OVERHEAD
    assert sequences(CARDS["A100 80 GB"], LLAMA, 4096) == int(free // (2 * 409_600 * 4096)) == 12
    assert sequences(CARDS["RTX 4090 24 GB"], LLAMA, 1) == 0
    assert least_split(CARDS["RTX 4090 24 GB"], LLAMA) == 2
    assert least_split(CARDS["A100 40 GB"], LLAMA) == 1
    assert least_split(CARDS["RTX 4090 24 GB"], replace(LLAMA, weights=10**12)) is None
    assert speed(CARDS["RTX 4090 24 GB"], LLAMA) == 0.0


def test_speed_is_bound_by_bandwidth_and_by_arithmetic() -> None:
    slow, fast = speed(CARDS["A100 80 GB"], LLAMA), speed(CARDS["H100 80 GB"], LLAMA)
    assert 500 < slow < fast < 5000  # what vLLM gives of a 13B model is of this order
    assert slow < 256 * CARDS["A100 80 GB"].bandwidth / LLAMA.weights
    assert speed(CARDS["A100 80 GB"], replace(LLAMA, split=2)) > slow
    tiny = Load(weights=200, width=2, cache=2, length=4096, split=1, share=0.9)
    assert speed(CARDS["A100 80 GB"], tiny) == pytest.approx(256 / 0.005, rel=0.01)  # the launch alone


# ------------------------------------------------------------------------------------------- nothing is at hand


@pytest.mark.parametrize(("family", "card"), [("llama2_13b", "A100 40 GB"), ("qwen2_5_1_5b", "RTX 4090 24 GB")])
def test_a_plan_without_models_and_items_is_forecast_from_known_sizes(family: str, card: str, tmp_path: Path) -> None:
    every = "evaluator=[gsm8k,hendrycks_math,mbpp,livebench_instruction_following,livebench_coding,livebench_typos]"
    found = forecasted(tmp_path, f"family={family}", "method=ties", "sparsify=dare", every)
    assert [c.n for c in found.cells] == [1319, 5000, 500, 400, 128, 50]
    assert (found.totals.items_unknown, found.totals.items_assumed) == (0, 6)
    assert found.totals.answers_to_generate == 7397
    assert found.totals.tokens_at_most == 1319 * 1024 + (7397 - 1319) * 2048
    assert found.totals.tokens_typical == 7397 * 300
    assert next(gpu.name for gpu in found.totals.gpus if gpu.sequences) == card
    text = "\n".join(found.notes)
    assert "no items here for 6 cells: counted as in the official sets" in text
    assert "(assumed), KV cache" in text
    assert "time elsewhere, assumed from data sheets: 1 A100 80 GB: about" in text


def test_a_forecast_is_said_in_peoples_words(tmp_path: Path) -> None:
    asked = config.request(["family=llama2_13b", "evaluator=[gsm8k]", f"store={tmp_path}"])
    plan = planning.build(asked.configs)
    totals = forecasted(tmp_path, "family=llama2_13b", "evaluator=[gsm8k]").totals

    def said(**changes: object) -> list[str]:
        return words(plan, [], replace(totals, **changes), "measured", None, 300)  # type: ignore[arg-type]

    first, *_, last = said(seconds_at_most=330.2 * 86_400, seconds_typical=90.0, merging_seconds=0.0)
    assert first == "1 distinct recipe, 1 cell, 0 done; 1,319 answers to generate, at most 1.35 M tokens"
    assert last.startswith("time here about 2 min, at most 330 days (measured; about: answers of 300 tokens")
    several = said(recipes=2, cells=3, done=1, answers_to_generate=1, tokens_at_most=2048)
    assert several[0] == "2 distinct recipes, 3 cells, 1 done; 1 answer to generate, at most 2,048 tokens"
    assert said(done=1) == ["1 distinct recipe, 1 cell; nothing to do: it is in the store"]
    assert said(cells=51, done=51) == ["1 distinct recipe, 51 cells; nothing to do: all are in the store"]
    scored = said(answers_to_generate=0, tokens_at_most=0, seconds_at_most=0.0, disk_bytes=0, merging_seconds=0.0)
    assert scored[0] == "1 distinct recipe, 1 cell, 0 done; no answers to generate"
    assert not any("0 s" in line or "0 B" in line for line in scored)


def test_a_limit_bounds_known_sizes_and_other_sets_stay_unknown(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("{}\n")
    limited = forecasted(tmp_path, "family=llama2_13b", "evaluator=[gsm8k]", "limit=7")
    assert [c.n for c in limited.cells] == [7]
    other = forecasted(tmp_path, "family=llama2_13b", "evaluator=[gsm8k]", f"items={tmp_path / 'mine.jsonl'}")
    assert [c.n for c in other.cells] == [None]
    assert "no items at hand for 1 cell: not in these figures" in other.notes


def test_merging_time_counts_every_recipe_and_the_passes_of_ties(tmp_path: Path) -> None:
    def merging(*overrides: str) -> float:
        found = forecasted(tmp_path, "family=llama2_13b", "evaluator=[gsm8k]", *overrides)
        return float(found.totals.merging_seconds)

    one = merging("method=average")
    assert one == pytest.approx(1 + 3 * 26_031_728_640 / 5e9)
    assert merging("method=average", "ratio=grid", "ratio.nodes=3") == pytest.approx(
        2 * (1 + 2 * 26.03e9 / 5e9) + one, rel=1e-3
    )
    assert merging("method=ties") == pytest.approx(1 + 13 * 26_031_728_640 / 5e9)


def test_the_hub_is_asked_once_for_a_model_while_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def model_info(self: object, name: str, **settings: object) -> object:
        asked.append(name)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    with without_fetching():
        for _ in range(3):
            with pytest.raises(M3Error, match="cannot be reached"):
                resolve(Source("someone/nothing"))
        assert asked == ["someone/nothing"]
        with ThreadPoolExecutor(1) as other, pytest.raises(M3Error):
            other.submit(resolve, Source("someone/nothing")).result()
    assert asked == ["someone/nothing"] * 2, "another thread may ask the hub"
    with pytest.raises(M3Error, match="cannot be reached"):
        resolve(Source("someone/nothing"))
    assert len(asked) == 3


def test_without_the_hub_a_model_is_the_only_commit_of_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def model_info(self: object, name: str, **settings: object) -> object:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    commit = "a" * 40
    (tmp_path / "hub" / "models--some--model" / "snapshots" / commit).mkdir(parents=True)
    assert resolve(Source("some/model")).revision == commit
    (tmp_path / "hub" / "models--two--commits" / "snapshots" / commit).mkdir(parents=True)
    (tmp_path / "hub" / "models--two--commits" / "snapshots" / ("b" * 40)).mkdir()
    with pytest.raises(M3Error, match="cannot be reached"):
        resolve(Source("two/commits"))


# --------------------------------------------------------------------------------------------------------- attacks

ITEMS = [Problem(str(k), {"sentence": f"film {k}", "label": k % 2}) for k in range(60)]


def asked_and_scored(benchmark: PromptBench) -> tuple[int, int]:
    """Make the items with a model that always says the first label."""
    asked = 0

    def ask(texts: Sequence[str]) -> list[str]:
        nonlocal asked
        asked += len(texts)
        return ["negative"] * len(texts)

    scored = len(benchmark.prepare(ITEMS, ask))
    return asked, scored


@pytest.mark.parametrize("settings", ["paper", "promptbench"])
@pytest.mark.parametrize("attack", ["stresstest", "checklist", "deepwordbug"])
def test_a_search_asks_no_more_than_was_forecast(attack: str, settings: str) -> None:
    benchmark = SST2(attack=attack, attack_settings=settings, attack_seeds=2, protocol="paper")  # type: ignore[arg-type]
    most, scored = benchmark.searched(len(ITEMS))
    asked, made = asked_and_scored(benchmark)
    assert made == scored == len(ITEMS) * (3 if attack == "deepwordbug" else 2)
    assert asked == most if attack != "deepwordbug" else 0.8 * most < asked <= most


def test_what_a_search_asks_follows_its_settings() -> None:
    assert SST2().searched(872) == (0, 872)
    assert SST2(attack="stresstest").searched(872) == (4 * 100, 2 * 436)
    assert SST2(attack="stresstest", search_items=10).searched(872) == (4 * 10, 2 * 436)
    assert SST2(attack="stresstest", protocol="paper").searched(872) == (4 * 872, 2 * 872)
    assert SST2(attack="bertattack", protocol="paper").searched(10) == ((1 + 3 + 3 * 2) * 10, 20)
    assert SST2(attack="stresstest", protocol="transferred", prompts="x").searched(10) == (0, 10)


def test_attack_cells_of_a_plan_count_their_searches(tmp_path: Path) -> None:
    attack = ["evaluator=[prompt_bench_sst2]", "evaluator.prompt_bench_sst2.attack=stresstest"]
    found = forecasted(tmp_path, "family=llama2_13b", *attack)
    assert found.totals.searching_answers_at_most == 400
    assert found.totals.answers_to_generate == 400 + 872
    assert "searches for attacks ask for at most 400 of these answers" in found.notes


def test_draws_of_lambda_are_told_beside_the_papers_one(tmp_path: Path) -> None:
    """Two methods that differ (TIES, average) and GSM8K's 1319 official items; plain and draw 0 would run anyway."""
    mixed = ["family=llama2_13b", "evaluator=[gsm8k]", "method=average,ties", "ratio=plain,mixup"]
    found = forecasted(tmp_path, *mixed, "ratio.draws=4")
    assert found.totals.draws == More(count=4, merges=6, answers=6 * 1319, searching=False)
    line = "4 draws: 6 merges and 7,914 answers more than the paper's one draw (ratio.draws=1)"
    assert found.notes.count(line) == 1
    one = forecasted(tmp_path, *mixed)
    assert (one.totals.draws, one.totals.sampled) == (None, None)
    assert found.totals.recipes - one.totals.recipes == 6
    assert not any("draws:" in note for note in one.notes)


def test_draws_that_search_for_attacks_are_told_at_most(tmp_path: Path) -> None:
    attack = ["evaluator=[prompt_bench_sst2]", "evaluator.prompt_bench_sst2.attack=stresstest"]
    found = forecasted(tmp_path, "family=llama2_13b", *attack, "ratio=mixup", "ratio.draws=2")
    assert any("2 draws: 1 merge and at most 1,272 answers more" in note for note in found.notes)


def test_draws_on_items_of_unknown_number_are_told_in_merges(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("{}\n")
    own = f"items={tmp_path / 'mine.jsonl'}"
    found = forecasted(tmp_path, "family=llama2_13b", "evaluator=[gsm8k]", own, "ratio=mixup", "ratio.draws=4")
    assert "4 draws: 3 merges more than the paper's one draw (ratio.draws=1)" in found.notes


def test_sampled_lambdas_are_told_beside_the_nodes(tmp_path: Path) -> None:
    """Average and task arithmetic with scaling 1 are one merge at each lambda, so 8 lambdas are 8 merges."""
    grid = ["family=llama2_13b", "evaluator=[gsm8k]", "method=average,task_arithmetic", "ratio=grid", "limit=10"]
    found = forecasted(tmp_path, *grid, "ratio.sampled=8")
    assert found.totals.sampled == More(count=8, merges=8, answers=80, searching=False)
    assert "8 sampled mixtures: 8 merges and 80 answers more than the nodes alone (ratio.sampled=0)" in found.notes
    assert found.totals.recipes - forecasted(tmp_path, *grid).totals.recipes == 8


def test_official_rows_are_those_of_the_item_sets() -> None:
    assert GSM8K().official_rows() == 1319
    assert SST2().official_rows() == SST2.item_set.rows


# --------------------------------------------------------------------------------------------------------- refusals


def test_models_of_other_rope_settings_are_refused_by_name() -> None:
    ours, theirs = config_of(Shape()), config_of(Shape(), rope_theta=1e6)
    with pytest.raises(M3Error, match=r"math has rope=.*10000\.0.*base has .*1000000\.0.*: their rotary attention"):
        check_same_architecture(ours, theirs, ("math", "base"))


def test_a_sliding_window_that_is_switched_off_is_no_difference() -> None:
    def windowed(window: int, used: bool) -> dict[str, object]:
        return config_of(Shape(), sliding_window=window, use_sliding_window=used)

    check_same_architecture(windowed(4096, False), windowed(32768, False), ("one", "other"))
    with pytest.raises(M3Error, match="sliding_window"):
        check_same_architecture(windowed(4096, True), windowed(32768, True), ("one", "other"))


@pytest.mark.slow
def test_a_plan_says_what_cannot_be_merged(tmp_path: Path) -> None:
    weights = random_weights(Shape(), seed=0)
    write_model(tmp_path / "base", weights)
    write_model(tmp_path / "expert", fine_tuned(weights, seed=1), rope_theta=1e6)
    models = [f"family.base={tmp_path / 'base'}", f"family.experts=[{tmp_path / 'base'},{tmp_path / 'expert'}]"]
    found = forecasted(tmp_path / "store", "family=local", *models, "items=lab", "evaluator=[gsm8k]", "limit=2")
    assert found.notes[-1].startswith("cannot be merged: ")
    assert "rotary attention" in found.notes[-1]


def test_a_plan_of_a_new_store_converts_no_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cell that the store holds nothing of, no prompt is needed: to convert a GGUF file's tokenizer takes long."""
    asked = ("family=lab", "pair=math", "evaluator=[gsm8k]", "limit=3")

    class Asked(Exception):
        pass

    def refuse(*_: object) -> Path:
        raise Asked

    monkeypatch.setattr("m3_exp.merging.tokenizer._kept", refuse)
    found = forecasted(tmp_path, *asked)
    assert [(cell.state, cell.left) for cell in found.cells] == [("to do", 3)]
    (cell,) = config.request([*asked]).plan.cells
    results = Results(Store(tmp_path), config.request([*asked]).plan.engine)
    results.store.merges.put(results.recipe_key(cell), Merge("weights", {}))
    with pytest.raises(Asked):  # there may be answers, which are known by their prompts
        forecasted(tmp_path, *asked)
