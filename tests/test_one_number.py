"""The same question asked by two commands has the same number, interval and p-value, to the last digit.

One frame by hand, and everything that prints of it: table, gains, heat map, `m3 response`, page, W&B, figures,
components of variance. The page rounds to two decimals, and is compared so.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from benchmarks import populations
from m3_exp.merging import ratio
from m3_exp.reporting.choices import advice, ways
from m3_exp.reporting.choices.ways import Study
from m3_exp.reporting.comparisons import expected, points
from m3_exp.reporting.curves.evaluated import Response, grouped, responses
from m3_exp.reporting.data import dataframe
from m3_exp.reporting.figures import frames, heatmap
from m3_exp.reporting.figures.heatmap import Panel
from m3_exp.reporting.page import cells as page_cells
from m3_exp.reporting.page import curves as page
from m3_exp.reporting.tables import gains, paper, variance
from m3_exp.reporting.tables.rows import Shown
from m3_exp.reporting.wandb import logged
from m3_exp.scoring.summary import mean_result
from m3_exp.stats.estimate import Array
from m3_exp.stats.expectation import ALPHAS
from m3_exp.stats.scored import Scored, scored
from m3_exp.types import Score, plain
from tests import curved
from tests.records import looked_up, typed

PARENTS = {"lm_math": ["lm", "math"]}
LAMS = ratio.grid(9)
SAMPLED = sorted(ratio.sampled(0, 16))
BENCHMARKS = {"gsm8k": ("S", False, 61), "alpaca_eval": ("dip", True, 47)}  # curve, graded, items
METHODS = {"average": ("none", (None,)), "ties": ("dare", (11, 12, 13))}
DRAWS = [(alpha, k, ratio.mixup(alpha, 0, k)) for alpha in ALPHAS for k in range(2)]


def line(benchmark: str, method: str, kind: str, values: Array, **more: Any) -> dict[str, Any]:
    """A result as `dataframe.tidy` gives it: one item is unscored."""
    known: dict[str, float | None] = {f"q{i:03d}": float(v) for i, v in enumerate(values)}
    known["lost"] = None
    items = Scored({key: value for key, value in known.items() if value is not None}, 1)
    found = items.estimate().scaled(100)
    weights = f"{method} {more.get('lam')} {more.get('mask_seed')} {kind if kind == 'plain' else ''}"
    return dict.fromkeys(dataframe._COLUMNS) | {
        "family": "lab", "pair": "lm_math", "method": method, "params": "", "ratio": kind, "sparsify": "none",
        "kind": curved.kind({"ratio": kind}),
        "benchmark": benchmark, "metric": "accuracy", "score": found.value, "low": found.low, "high": found.high,
        "n": len(known), "n_unscored": 1, "state": "incomplete", "scored": items, "weights": weights,
        "values": {(key, 0): value for key, value in known.items()}, "merge": weights, "items_digest": benchmark,
        "evaluator": f"{benchmark} 1", "tokenizer": "tokenizer", "engine": "vllm 0 float32", "runs": 1, "details": {},
        "cell": f"{benchmark} {weights}", "repeat": 0, "changed": frozenset(),
    } | more  # fmt: skip


def of_method(benchmark: str, method: str) -> list[dict[str, Any]]:
    """Nine nodes, sixteen sampled lambdas, draws and plain, under each mask; items are easier under some masks."""
    name, graded, n = BENCHMARKS[benchmark]
    sparsify, masks = METHODS[method]
    found = []
    lams = np.array([*LAMS, *SAMPLED, *(lam for _, _, lam in DRAWS), 0.5])
    rng = np.random.default_rng([len(benchmark), len(method)])
    latent = populations.paths(rng, n, lams)
    for number, mask in enumerate(masks):
        heights = np.clip(populations.CURVES[name](lams) + 0.05 * (number - 1) * (mask is not None), 0.01, 0.99)
        heights[-1] += 0.1
        values = populations.answers(rng, latent, heights, graded=graded)
        labels: list[dict[str, Any]] = [
            *({"ratio": "grid", "lam": lam} for lam in LAMS), *({"ratio": "sampled", "lam": lam} for lam in SAMPLED),
            *({"ratio": "mixup", "alpha": a, "draw": k, "lam": lam} for a, k, lam in DRAWS), {"ratio": "plain"},
        ]  # fmt: skip
        found += [
            line(benchmark, method, label.pop("ratio"), values[:, k], sparsify=sparsify, mask_seed=mask, **label)
            for k, label in enumerate(labels)
        ]
    return found


@cache
def whole() -> pd.DataFrame:
    lines = [one for method in METHODS for benchmark in BENCHMARKS for one in of_method(benchmark, method)]
    for benchmark, (_, _, n) in BENCHMARKS.items():
        for k, name in enumerate(("lm", "math")):
            values = (np.random.default_rng(k).random(n) < 0.6).astype(float)
            lines.append(line(benchmark, "single", "plain", values, pair=name))
    return pd.DataFrame(lines, columns=dataframe._COLUMNS)


@cache
def known() -> tuple[Response, ...]:
    return tuple(responses(whole(), PARENTS))


@cache
def studies() -> tuple[Study, ...]:
    return tuple(ways.study(line_, repeats=50, resamples=20) for line_ in grouped(known()))


class Key(NamedTuple):
    method: str
    benchmark: str
    alpha: float


KEYS = [Key(method, benchmark, alpha) for method in METHODS for benchmark in BENCHMARKS for alpha in ALPHAS]
E = tuple[float, float, float]
Gain = tuple[float, ...]  # value, low, high, p, adjusted p


def drawn() -> pd.DataFrame:
    """What sweeps of draws hold: plain and draws, without the curve behind them."""
    return whole()[~whole()["ratio"].isin(["grid", "sampled"])]


# ------------------------------------------------------------------------------------------- every place that says it


def of_table(records: Sequence[Any]) -> dict[Key, Any]:
    return {
        Key(r["method"], r["benchmark"], r["alpha"]): r for r in records if r["ratio"] == "mixup" and r["nodes"] == 9
    }


@cache
def told() -> dict[str, dict[Key, E]]:
    """E[score | alpha] with its interval in percent, by who says it."""
    found = {
        "table": of_table(paper.build("t", Shown(whole(), responses=known())).records),
        "table of draws": of_table(paper.build("t", Shown(drawn(), responses=known(), behind=whole())).records),
        "gains": of_table(gains.build("t", Shown(drawn(), responses=known(), behind=whole())).records),
        "variance": {
            Key(r["method"], r["benchmark"], r["alpha"]): {**r, "score": r["expected"]}
            for r in variance.build(known(), ALPHAS).records
        },
        "response": {
            Key(s.responses[0].method, r["objective"], a["alpha"]): a
            for s in studies() for r in advice.records(s) if r["unit"] == "percent" for a in r["alpha"]
        },
        "response --json": {
            Key(s.responses[0].method, r["objective"], a["alpha"]): a
            for s in studies() for r in json.loads(advice.as_json(s))["objectives"] if r["unit"] == "percent"
            for a in r["alpha"]
        },
    }  # fmt: skip
    said = {name: {key: (r["score"], r["low"], r["high"]) for key, r in rows.items()} for name, rows in found.items()}
    return said | {"points": by_point(), "W&B history": by_history(), "W&B table": by_grid()}


def by_point() -> dict[Key, E]:
    placed = expected.in_place_of_draws(drawn(), known())
    found = {}
    for key in KEYS:
        rows = frames.rows_of(frames.at_alpha(placed, key.alpha), "lm_math", key.method, key.benchmark, "mixup",
                             METHODS[key.method][0])  # fmt: skip
        one = points.score(rows)
        assert one.value is not None
        found[key] = one.value, one.low, one.high
    return found


def by_history() -> dict[Key, E]:
    return {
        Key(study.responses[0].method, b, row["alpha"]): tuple(row[f"{n}/{b}"] for n in ("expected", *_LOW_HIGH))
        for study in studies() for row in logged.response(study, "g").history if "alpha" in row for b in BENCHMARKS
    }  # type: ignore[misc]  # fmt: skip


_LOW_HIGH = ("expected_low", "expected_high")


def by_grid() -> dict[Key, E]:
    return {
        Key(study.responses[0].method, b, row[0]): row[1:4]
        for study in studies() for b in BENCHMARKS for row in logged.response(study, "g").tables[f"alpha/{b}"].rows
    }  # type: ignore[misc]  # fmt: skip


@cache
def gained() -> dict[str, dict[Key, Gain]]:
    """E[score | alpha] - plain in points, with its interval and p-values, by who says it."""
    names = ("difference", "diff_low", "diff_high", "p", "p_adjusted")
    found = {
        name: {key: tuple(r[n] for n in names) for key, r in of_table(table.records).items()}
        for name, table in {
            "table": paper.build("t", Shown(whole(), responses=known())),
            "table of draws": paper.build("t", Shown(drawn(), responses=known(), behind=whole())),
            "gains": gains.build("t", Shown(drawn(), responses=known(), behind=whole())),
        }.items()
    }
    found["response"] = {
        Key(s.responses[0].method, r["objective"], a["alpha"]): tuple(
            a["minus_plain"][n] for n in ("score", "low", "high", "p", "p_adjusted")
        )
        for s in studies() for r in advice.records(s) if r["unit"] == "percent" for a in r["alpha"]
    }  # fmt: skip
    return found


# ---------------------------------------------------------------------------------------------------- expectations


def test_the_frame_is_whole() -> None:
    assert [(r.method, r.benchmark, r.merges, len(r.mask_seeds), r.unscored) for r in known()] == [
        (m, b, "9 nodes + 16 sampled", 3 * (m == "ties"), 1) for m in METHODS for b in BENCHMARKS
    ]
    assert heatmap.changes(whole(), PARENTS).keys() == {
        (Panel("lm_math", k.method, METHODS[k.method][0]), k.benchmark, k.alpha) for k in KEYS
    }


@pytest.mark.slow
@pytest.mark.parametrize("who", ["table of draws", "gains", "variance", "response", "response --json", "points",
                                 "W&B history", "W&B table"])  # fmt: skip
def test_an_expectation_is_one_number(who: str) -> None:
    mine, others = told()["table"], told()[who]
    assert mine.keys() == set(KEYS)
    assert {key: others[key] for key in KEYS} == mine


@pytest.mark.slow
def test_an_expectation_is_that_number_on_the_page() -> None:
    for study, drawn_ in zip(studies(), page.data(list(map(page.shown, studies())))["studies"], strict=True):
        for one in drawn_["score"]:
            for at, alpha in enumerate(page.ALPHAS):
                if float(alpha) in ALPHAS:
                    exact = told()["table"][Key(study.responses[0].method, one["key"], float(alpha))]
                    shown = (one["e"][at], one["e_low"][at], one["e_high"][at])
                    assert shown == tuple(round(x, 2) for x in exact)


@pytest.mark.parametrize("who", ["table of draws", "gains", "response"])
def test_a_gain_is_one_number_with_one_p_value(who: str) -> None:
    mine = gained()["table"]
    assert mine.keys() == set(KEYS)
    assert {key: gained()[who][key] for key in KEYS} == mine
    assert any(p_adjusted < 0.05 for *_, p_adjusted in mine.values()), "some are real"
    assert any(p_adjusted > 0.05 for *_, p_adjusted in mine.values()), "some are not"


def test_a_gain_is_that_number_in_the_heat_map() -> None:
    for (panel, benchmark, alpha), change in heatmap.changes(whole(), PARENTS).items():
        value, low, high, _, p_adjusted = gained()["table"][Key(panel.method, benchmark, alpha)]
        assert change.value == value
        assert change.half == pytest.approx((high - low) / 2, rel=1e-12)
        assert (change.significant, change.family, change.unclaimed) == (p_adjusted < 0.05, 14, "")


def test_a_gain_is_that_number_in_figures() -> None:
    placed = expected.in_place_of_draws(drawn(), known())
    for key in KEYS:
        at = frames.at_alpha(placed, key.alpha)
        rows = [
            frames.rows_of(at, "lm_math", key.method, key.benchmark, kind, METHODS[key.method][0])
            for kind in ("plain", "mixup")
        ]
        one = points.gain(*rows)
        assert (one.value, one.low, one.high) == gained()["table"][key][:3]


def test_a_mark_is_one_everywhere() -> None:
    table = paper.build("t", Shown(whole(), responses=known()))
    words = {"better": "better", "worse": "worse", "untold": "not told apart"}
    said = {
        Key(s.responses[0].method, r["objective"], a["alpha"]): a["minus_plain"]["mark"]
        for s in studies() for r in advice.records(s) if r["unit"] == "percent" for a in r["alpha"]
    }  # fmt: skip
    assert {key: words[r["mark"]] for key, r in of_table(table.records).items()} == said
    assert {key: r["detectable"] for key, r in of_table(table.records).items()} == {
        Key(s.responses[0].method, r["objective"], a["alpha"]): a["minus_plain"]["detectable"]
        for s in studies() for r in advice.records(s) if r["unit"] == "percent" for a in r["alpha"]
    }  # fmt: skip


def test_plain_is_one_number() -> None:
    """Its unscored item and its masks count in `m3 response` and W&B as in the table."""
    table = {
        (r["method"], r["benchmark"]): (r["score"], r["low"], r["high"])
        for r in paper.build("t", Shown(whole(), responses=known())).records if r["ratio"] == "plain"
    }  # fmt: skip
    for study in studies():
        summary = logged.response(study, "g").summary
        for record in advice.records(study):
            if record["unit"] == "percent":
                exact = table[study.responses[0].method, record["objective"]]
                assert tuple(record["plain"][name] for name in ("score", "low", "high")) == exact
                names = ("plain", "plain_low", "plain_high")
                assert tuple(summary[f"{name}/{record['objective']}"] for name in names) == exact


@pytest.mark.parametrize("alpha", ALPHAS)
def test_asking_for_fewer_rows_changes_no_number(alpha: float) -> None:
    """One alpha, one method: the family is that of the pair and method all the same."""
    some = drawn()
    some = some[(some["method"] == "ties") & ((some["ratio"] == "plain") | (some["alpha"] == alpha))]
    table = paper.build("t", Shown(some, responses=known(), behind=whole()))
    for key, record in of_table(table.records).items():
        assert (record["score"], record["low"], record["high"]) == told()["table"][key]
        names = ("difference", "diff_low", "diff_high", "p", "p_adjusted")
        assert tuple(record[n] for n in names) == gained()["table"][key]


# --------------------------------------------------------------------------------------------------- a single model


def record_of(scores: Sequence[Score], details: Any) -> dict[str, Any]:
    result = mean_result("gsm8k", "accuracy", scores, {}, details)
    record = {
        "result": plain(result), "scores": plain(scores), "weights": "w", "runs": ["r"], "recipe_key": "k",
        "recipe": {}, "items": "official", "items_digest": "d", "sampling": {}, "tokenizer": "t",
        "engine": {"engine": "vllm", "version": "0", "dtype": "float32"},
        "evaluator": {"name": "gsm8k", "version": "1"},
    }  # fmt: skip
    stored: dict[str, Any] = json.loads(json.dumps(record))
    return stored


def scores_of(kind: str) -> tuple[list[Score], dict[str, Any]]:
    rng = np.random.default_rng(0)
    order = rng.permutation(96)
    values = {
        "verdicts": (rng.random(96) < 0.4).astype(float), "graded": rng.random(96), "tasks": rng.random(96),
        "problems": rng.random(96),
    }[kind]  # fmt: skip
    notes = {"tasks": lambda i: {"task": f"t{i % 5 // 2}"}, "problems": lambda i: {"problem": str(i // 3)}}
    found = [
        Score(f"q{i}", None if i == 7 else float(values[i]), notes=notes.get(kind, lambda _: {})(int(i)))
        for i in map(int, order)
    ]
    return found, {"by_task": {}} if kind == "tasks" else {}


@pytest.mark.parametrize("kind", ["verdicts", "graded", "tasks", "problems"])
def test_a_models_score_is_one_number(kind: str, tmp_path: Path) -> None:
    """Where it is scored (`m3 score`), stored, tabled, drawn, on the page and in W&B: score and both ends."""
    from m3_exp import planning
    from m3_exp.config import request

    scores, details = scores_of(kind)
    made = mean_result("gsm8k", "accuracy", scores, {}, details)
    record = record_of(scores, details)
    (cell,) = planning.build(request(["pair=math", "evaluator=[gsm8k]"]).configs).cells
    found = looked_up(cell, record)
    tidy = dataframe.tidy([found])
    (row,) = paper.build("t", Shown(tidy)).records
    point = points.score(tidy)
    run = logged.cell(found, "g", 0).summary
    read = scored(typed(record)).estimate().scaled(100)
    one = (made.score, made.low, made.high)
    said = {
        "read again": (read.value, read.low, read.high),
        "frame": tuple(tidy[["score", "low", "high"]].iloc[0]),
        "table": (row["score"], row["low"], row["high"]),
        "figure": (point.value, point.low, point.high),
        "W&B": (run["score"], run["low"], run["high"]),
    }
    assert said == dict.fromkeys(said, one)
    shown = page_cells._score(SimpleNamespace(record=typed(record)))  # type: ignore[arg-type]
    assert shown.startswith(f"{one[0]:.1f} % [{one[1]:.1f}, {one[2]:.1f}], accuracy, 96 items, 1 unscored")


@pytest.mark.slow
def test_a_node_of_a_curve_is_the_model_that_it_is() -> None:
    """Without masks: a row of the table of all lambdas, W&B's history over lambda, and the page's band."""
    one = [r for r in known() if r.method == "average"]
    every = paper.build("t", Shown(whole(), every=True, responses=known())).records
    table = {
        (r["benchmark"], r["lambda"][0]): (r["score"], r["low"], r["high"])
        for r in every if r["method"] == "average" and r["ratio"] == "grid"
    }  # fmt: skip
    history = logged.response(studies()[0], "g").history
    for response in one:
        for lam in LAMS:
            (row,) = [row for row in history if row.get("lambda") == lam]
            names = ("score", "score_low", "score_high")
            assert tuple(row[f"{name}/{response.benchmark}"] for name in names) == table[response.benchmark, lam]
