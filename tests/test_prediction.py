"""The curve against reality: coverage on simulated models, what counts, and real draws found again in the store."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import populations
from m3_exp import planning
from m3_exp.config import request
from m3_exp.merging import ratio
from m3_exp.merging.ratio import grid
from m3_exp.reporting.curves import prediction
from m3_exp.reporting.curves.evaluated import Draw, Response, responses
from m3_exp.reporting.data import saved
from m3_exp.reporting.data.dataframe import tidy
from m3_exp.results import Results, look_up
from m3_exp.stats import paired
from m3_exp.stats.estimate import Array, Shape, even_shares
from m3_exp.stats.expectation import ALPHAS, Sampled, unsure
from m3_exp.stats.lambdas import Curve
from m3_exp.stats.turning import turned
from m3_exp.store import Records, Store
from m3_exp.tasks import Task
from m3_exp.types import Plan, identity
from tests import curved
from tests.records import typed
from tests.test_advice import PARENTS, frame, line

LAMS = np.array(grid(9))
IDS = tuple(str(i) for i in range(96))


class Model:
    """96 items, each with one place where it turns from right to wrong; E[score] is linear between the nodes.

    A share `noise` of answers is drawn anew at every lambda with the expectation's chance: items that flicker.
    """

    def __init__(self, seed: int, heights: Array, noise: float = 0.0) -> None:
        self.generator = np.random.default_rng(seed)
        self.heights = heights
        self.noise = noise
        self.places = self.generator.random(len(IDS))

    def values(self, lam: float) -> Array:
        chance = np.interp(lam, LAMS, self.heights)
        fresh = self.generator.random(len(IDS)) < self.noise
        return ((np.where(fresh, self.generator.random(len(IDS)), self.places)) < chance).astype(float)

    def curve(self) -> Curve:
        return Curve(IDS, LAMS, np.column_stack([self.values(lam) for lam in LAMS]))

    def draw(self, alpha: float, number: int, lam: float) -> Draw:
        return Draw(alpha, number, lam, dict(zip(IDS, self.values(lam), strict=True)))


FALLING = np.array([0.75, 0.74, 0.71, 0.67, 0.42, 0.05, 0.02, 0.01, 0.0])


def response(curve: Curve, draws: list[Draw]) -> Response:
    return Response("lab", "lm_math", "average", "", "none", "gsm8k", "accuracy", curve, (curve,), draws=tuple(draws))


@pytest.mark.parametrize("noise", [0.0, 0.1], ids=["turns", "flickers"])
@pytest.mark.parametrize("lam", [0.13, 0.2, 0.375, 0.6])
def test_the_interval_of_one_difference_covers(lam: float, noise: float) -> None:
    """95 % where some items turn, never fewer than 93 %; the true difference is 0, the curve being right."""
    inside = []
    for seed in range(600):
        model = Model(seed, FALLING, noise)
        curve = model.curve()
        inside.append(prediction.predict(curve, model.draw(1.0, 0, lam)).inside)
    assert np.mean(inside) > 0.925
    if lam in (0.375, 0.6):
        assert np.mean(inside) < 0.98


def test_a_curve_that_bends_between_its_nodes_is_found_out() -> None:
    """The score leaps at 0.6, the line between 0.5 and 0.75 does not know."""
    outside = []
    for seed in range(50):
        places = np.random.default_rng(seed).random(len(IDS))
        at = {lam: (places < (0.8 if lam < 0.6 else 0.1)).astype(float) for lam in (*LAMS, 0.59)}
        curve = Curve(IDS, LAMS, np.column_stack([at[lam] for lam in LAMS]))
        drawn = prediction.predict(curve, Draw(1.0, 0, 0.59, dict(zip(IDS, at[0.59], strict=True))))
        outside.append(not drawn.inside)
    assert np.mean(outside) > 0.95


@pytest.mark.slow
def test_the_mean_over_draws_has_the_expectation_in_its_interval() -> None:
    inside = []
    for seed in range(400):
        model = Model(seed, FALLING, 0.05)
        lams = model.generator.beta(0.5, 0.5, 15)
        drawn = [model.draw(0.5, n, float(lam)) for n, lam in enumerate(lams)]
        (found,) = prediction.check(response(model.curve(), drawn), repeats=10).expectations
        inside.append(abs(found.real - found.expected) <= found.half)
    assert np.mean(inside) > 0.92


@pytest.mark.slow
def test_with_sampled_lambdas_the_mean_over_draws_meets_the_corrected_expectation() -> None:
    """A dip between nodes, 1319 items: along the nodes E[5] is 2 points off, and the interval would know nothing of it.

    What the sampled lambdas leave open is in the interval; the draws are independent ones, as of an older store.
    """
    height = populations.CURVES["dip"]
    truth, inside, nodes_alone = populations.expectation("dip", 5.0), [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        lams = rng.beta(5.0, 5.0, 40)
        curve, real = curved.drawn(height, 1319, rng, more=lams.tolist(), seed=seed)
        drawn = [Draw(5.0, k, float(x), curved.by_item(curve.ids, real[:, k])) for k, x in enumerate(lams)]
        beside = [(draw, curve) for draw in drawn]
        found = prediction._expectation(5.0, beside)
        assert found.corrected
        assert found.expected == pytest.approx(float(curve.expected(5.0).mean()))
        assert found.half > 1.96 * np.sqrt(unsure(curve, {5.0: 1.0}).sources[0].variance)
        inside.append(abs(found.real - found.expected) <= found.half)
        nodes_alone.append(float(curve.on_nodes(LAMS).expected(5.0).mean()) - truth)
    assert np.mean(inside) > 0.88
    assert abs(np.mean(nodes_alone)) > 0.005


def test_between_nodes_a_draw_is_held_against_all_real_merges() -> None:
    """The score leaps at 0.6: two sampled lambdas stand on either side of it, and a draw beyond them meets no slope."""
    places = np.random.default_rng(0).random(len(IDS))

    def at(lams: list[float]) -> Array:
        return np.column_stack([(places < (0.8 if lam < 0.6 else 0.1)).astype(float) for lam in lams])

    sampled = [0.1, 0.59, 0.61, 0.9]
    curve = Curve(IDS, LAMS, at(list(LAMS)), Sampled(np.array(sampled), at(sampled)))
    drawn = [Draw(1.0, k, lam, dict(zip(IDS, at([lam])[:, 0], strict=True))) for k, lam in enumerate([0.55, 0.61, 0.7])]
    found = prediction.check(response(curve, drawn))
    assert [(p.lam, p.difference, p.still) for p in found.predictions] == [(0.55, 0.0, True), (0.7, 0.0, True)]
    assert found.trivial == 1, "a draw at a sampled lambda is the merge that the curve goes through"
    assert found.merges == "9 nodes + 4 sampled"
    alone = prediction.check(response(curve.on_nodes(LAMS), drawn))
    assert all(not p.inside for p in alone.predictions if p.lam != 0.61)


def test_without_sampled_lambdas_the_bend_between_nodes_is_in_the_interval_and_said() -> None:
    drawn = [Model(0, FALLING).draw(2.0, 0, 0.4)]
    found = prediction.check(response(Model(0, FALLING).curve(), drawn))
    (one,) = found.expectations
    assert not one.corrected
    assert one.half > unsure(Model(0, FALLING).curve(), {2.0: 1.0}).bias > 0
    said = "\n".join(prediction.words(found))
    assert "  E*[alpha=2] = " in said
    assert "ratio.sampled=16 corrects it" in said


def test_a_score_that_is_no_mean_of_items_is_held_against_the_same_score() -> None:
    """LiveBench: the mean over tasks of unequal size. One task of 3 items is half of the score."""
    strata = ["a"] * 3 + ["b"] * 93
    shape = Shape(even_shares(strata), strata)
    curve = Curve(IDS, LAMS, np.tile(LAMS, (96, 1)), shape=shape)
    drawn = Draw(1.0, 0, 0.4, {key: float(i < 3) for i, key in enumerate(IDS)})
    found = prediction.predict(curve, drawn)
    assert (found.real, found.predicted) == pytest.approx((0.5, 0.4))


def test_lambdas_at_a_node_or_repeated_do_not_count() -> None:
    model = Model(0, FALLING)
    lams = [0.5, 0.5 + 1e-9, 0.3, 0.3, 1e-8, 0.7]
    drawn = [model.draw(2.0, n, lam) for n, lam in enumerate(lams)]
    found = prediction.check(response(model.curve(), drawn))
    assert [p.lam for p in found.predictions] == [0.3, 0.7]
    assert found.trivial == 4
    assert found.expectations[0].draws == 6, "they are real draws all the same"


def test_where_no_item_differs_between_the_nodes_is_said() -> None:
    model = Model(0, np.where(LAMS > 0.9, 0.0, FALLING))
    drawn = [model.draw(1.0, n, lam) for n, lam in enumerate([0.4, 0.98])]
    found = prediction.check(response(model.curve(), drawn))
    assert [p.turning == 0 for p in found.predictions] == [False, True]
    assert found.predictions[0].turning == int(np.sum(model.values(0.25) != model.values(0.5)))
    said = prediction.words(found)[0]
    assert said.startswith("gsm8k: 1 of 1 real draws inside their 95 % intervals, 1 of 1 where no item differs")
    assert "which says little, on the curve through 9 nodes" in said
    assert [row[-1] for row in prediction.table(found)[1]] == ["yes", "still"]
    only = prediction.words(prediction.check(response(model.curve(), drawn[1:])))[0]
    assert only.startswith("gsm8k: 1 of 1 where no item differs between the nodes"), "nothing is inside by merit"


def test_no_prediction_is_certain() -> None:
    """Nothing differs between the nodes nor at the draw: as sure as 96 items without a difference are, and no surer."""
    curve = Curve(IDS, LAMS, np.ones((96, 9)))
    still = prediction.predict(curve, Draw(1.0, 0, 0.3, dict.fromkeys(IDS, 1.0)))
    nothing = paired.paired(np.full(96, 0.5), np.full(96, 0.5))
    assert (still.still, still.difference, still.inside) == (True, 0.0, True)
    assert still.half == pytest.approx(nothing.high)
    assert 0.02 < still.half < 0.04
    gone = [float(i >= 10) for i in range(96)]
    assert not prediction.predict(curve, Draw(1.0, 0, 0.3, dict(zip(IDS, gone, strict=True)))).inside
    (mean,) = prediction.check(response(curve, [Draw(1.0, 0, 0.3, dict.fromkeys(IDS, 1.0))])).expectations
    assert mean.half == pytest.approx(nothing.high)


def test_a_draw_is_compared_over_the_items_it_has() -> None:
    model = Model(0, FALLING)
    half = {key: value for key, value in model.draw(1.0, 0, 0.3).values.items() if int(key) < 48}
    found = prediction.check(response(model.curve(), [Draw(1.0, 0, 0.3, half), Draw(1.0, 1, 0.4, {"other": 1.0})]))
    assert [p.n for p in found.predictions] == [48]
    assert found.unpaired == 1


def test_under_dare_a_draw_meets_the_curve_of_its_own_mask() -> None:
    one, two = (np.tile(level, (4, 3)) for level in (0.2, 0.8))
    lams, ids = np.array([0.0, 0.5, 1.0]), ("a", "b", "c", "d")
    masks = tuple(Curve(ids, lams, values) for values in (one, two))
    drawn = [Draw(1.0, n, 0.3, dict.fromkeys(ids, 0.5), seeds) for n, seeds in enumerate([(8,), (7, 8), (9,)])]
    given = Response(
        "lab", "lm_math", "average", "", "dare", "gsm8k", "accuracy", Curve(ids, lams, (one + two) / 2), masks,
        draws=(drawn[0], drawn[2]), mask_seeds=(7, 8),
    )  # fmt: skip
    found = prediction.check(given)
    assert [p.predicted for p in found.predictions] == pytest.approx([0.8])
    assert found.unpaired == 1


# ---------------------------------------------------------------------------------------------------- the protocol


def test_experiments_take_one_draw_of_each_alpha_and_none_twice() -> None:
    drawn = [Draw(alpha, n, 0.1 * n + 0.01 * alpha, {}) for alpha in ALPHAS for n in range(3)]
    found = prediction.experiments([*drawn, Draw(0.5, 3, 0.9, {})])
    assert [[d.alpha for d in one] for one in found] == [list(ALPHAS)] * 3
    assert [{d.number for d in one} for one in found] == [{0}, {1}, {2}]
    assert prediction.experiments(drawn[3:]) == [], "no experiment without alpha 0.2"


def test_draws_of_several_seeds_are_not_put_together_by_size() -> None:
    generator = np.random.default_rng(0)
    drawn = [Draw(alpha, 0, float(generator.random()), {}) for alpha in ALPHAS for _ in range(40)]
    found = np.array([[d.lam for d in one] for one in prediction.experiments(drawn)])
    between = np.corrcoef(found, rowvar=False)[np.triu_indices(7, 1)]
    assert abs(between.mean()) < 0.1


@pytest.mark.slow
def test_the_replay_has_the_distribution_of_real_experiments() -> None:
    """Real draws of a model that is as the curve says: Kolmogorov and Smirnov find 5 % or fewer different."""
    p, inside = [], []
    for seed in range(60):
        model = Model(seed, FALLING)
        curve = model.curve()
        drawn = [model.draw(alpha, n, float(model.generator.beta(alpha, alpha))) for alpha in ALPHAS for n in range(10)]
        found = prediction.record(prediction.check(response(curve, drawn), repeats=400, seed=seed))["replay"]
        assert found["real"]["n"] == 10
        p.append(found["turns"]["p"])
        inside.append(found["turns"]["inside"])
    assert np.mean(np.array(p) < 0.05) <= 0.1
    assert np.mean(inside) > 9


def test_turning_items_have_the_curve_as_their_mean() -> None:
    curve = Model(3, FALLING).curve()
    lams = np.tile([0.0, 0.1, 0.4, 0.6, 1.0], (2_000, 1))
    found = turned(curve, lams, np.random.default_rng(0))
    assert found.mean(axis=0) == pytest.approx(np.interp(lams[0], curve.lams, curve.means), abs=0.004)
    assert np.ptp(found[:, 0]) < 1e-12, "at a node nothing turns"
    assert found[:, 2].std() == pytest.approx(np.sqrt(_turning(curve, 0.4)) / 96, rel=0.1)


def _turning(curve: Curve, lam: float) -> float:
    return float(np.sum(curve.items_at(lam) * (1 - curve.items_at(lam))))


def test_what_is_read() -> None:
    model = Model(1, FALLING)
    drawn = [model.draw(alpha, n, float(model.generator.beta(alpha, alpha))) for alpha in ALPHAS for n in range(2)]
    found = prediction.check(response(model.curve(), drawn), repeats=500)
    data = json.loads(prediction.as_json([found]))["checks"][0]
    differences = [p["real"] - p["predicted"] for p in data["predictions"]]
    assert data["rms"] == pytest.approx(np.sqrt(np.mean(np.square(differences))))
    assert data["inside"] == sum(p["inside"] for p in data["predictions"])
    said = "\n".join(prediction.words(found))
    moving = [p for p in data["predictions"] if not p["still"]]
    assert f"{sum(p['inside'] for p in moving)} of {len(moving)} real draws inside" in said
    assert data["still"] == data["draws"] - len(moving)
    assert data["merges"] == "9 nodes"
    assert "2 real experiments" in said
    header, rows = prediction.table(found)
    assert len(rows) == data["draws"]
    assert all(len(row) == len(header) for row in rows)
    nothing = prediction.check(response(model.curve(), []))
    assert prediction.words(nothing) == ["gsm8k: no real draw lies between the nodes"]


# ------------------------------------------------------------------------------------------ draws found in the store


@functools.cache
def planned(*overrides: str) -> Plan:
    return planning.build(request(list(overrides), multirun=True).configs)


def saved_in(store: Store, *plans: Plan) -> None:
    for one in plans:
        store.plans.put(identity(one), one)


def lams(found: Plan) -> list[float]:
    return [label.lam for cell in found.cells for label in cell.labels if label.lam is not None]


CURVE = ("pair=lm_math", "method=average", "ratio=grid", "evaluator=[gsm8k]")
DRAWN = ("pair=lm_math", "method=average,task_arithmetic", "ratio=mixup", "ratio.draws=2", "evaluator=[gsm8k]")


def test_draws_of_other_runs_are_found_again(tmp_path: Path) -> None:
    store, curve = Store(tmp_path), planned(*CURVE)
    ad_hoc = planned(
        "pair=lm_math", "method=average", "ratio=mixup", "ratio.alpha=0.5,2", "ratio.draws=3", "evaluator=[gsm8k]",
        "limit=8",
    )  # fmt: skip
    saved_in(store, curve, ad_hoc, planned(*DRAWN))
    found = saved.draws(store, curve)
    assert sorted(lams(found)) == sorted(ratio.mixup(alpha, 0, n) for alpha in (0.5, 2.0) for n in range(3))
    assert {cell.limit for cell in found.cells} == {None}, "looked up with the limit of the curve"
    assert {identity(cell.evaluator) for cell in found.cells} == {identity(curve.cells[0].evaluator)}
    assert {identity(cell.recipe) for cell in found.cells} == {identity(cell.recipe) for cell in ad_hoc.cells}
    assert found.engine == curve.engine


@pytest.mark.parametrize(
    "other",
    [("pair=lm_code",), ("method=ties",), ("sparsify=dare",), ("dtype=bfloat16",), ("evaluator=[hendrycks_math]",)],
    ids=lambda other: other[0],
)
def test_draws_of_something_else_are_not(tmp_path: Path, other: tuple[str, ...]) -> None:
    store, curve = Store(tmp_path), planned(*CURVE)
    keys = {text.split("=")[0] for text in other}
    drawn = [text for text in CURVE if text.split("=")[0] not in keys]
    saved_in(store, planned(*[t.replace("ratio=grid", "ratio=mixup") for t in drawn], *other))
    assert lams(saved.draws(store, curve)) == []


def test_draws_that_the_plan_has_itself_are_not_doubled(tmp_path: Path) -> None:
    store, drawn = Store(tmp_path), planned(*DRAWN)
    saved_in(store, drawn)
    assert {len(cell.labels) for cell in drawn.cells} == {2}, "an average is task arithmetic with scaling 1 here"
    assert saved.draws(store, drawn).cells == ()


def test_a_plan_of_another_version_is_no_hindrance(tmp_path: Path) -> None:
    store, curve = Store(tmp_path), planned(*CURVE)
    Records(store, "plans", dict).put("old", {"cells": [{"labels": [{"ratio": "mixup"}], "recipe": 3}, {}]})
    assert saved.draws(store, curve).cells == ()


def test_a_cell_survives_being_saved(tmp_path: Path) -> None:
    saved_in(Store(tmp_path), planned(*CURVE), planned(*DRAWN))
    assert [identity(cell) for cell in saved._saved(Store(tmp_path))] == list(map(identity, planned(*DRAWN).cells))


# ----------------------------------------------------------------------------------------------- larger node sets


def test_a_larger_node_set_computes_only_the_new_nodes() -> None:
    nine, seventeen = planned(*CURVE), planned(*CURVE, "ratio.nodes=17")
    known, wanted = ({identity((c.recipe, c.evaluator)) for c in one.cells} for one in (nine, seventeen))
    assert len(known) == 9
    assert len(wanted) == 17
    assert known < wanted


def test_under_dare_one_mask_serves_a_curve_and_larger_sets_use_the_same_masks() -> None:
    dare = (*CURVE, "sparsify=dare", "sparsify.draws=3")
    nine, seventeen = planned(*dare), planned(*dare, "ratio.nodes=17")
    by_mask: dict[int | None, set[float | None]] = {}
    for cell in nine.cells:
        by_mask.setdefault(cell.labels[0].mask_seed, set()).add(cell.labels[0].lam)
    assert list(by_mask.values()) == [set(grid(9))] * 3
    known, wanted = ({identity((c.recipe, c.evaluator)) for c in one.cells} for one in (nine, seventeen))
    assert len(wanted - known) == 3 * 8


# --------------------------------------------------------------------------------------------------- from the frame


def test_the_frames_draws_are_checked_against_its_curves() -> None:
    given = frame()
    found = prediction.check(next(r for r in responses(given, PARENTS) if r.benchmark == "gsm8k"))
    (drawn,) = found.predictions
    assert drawn.real == pytest.approx(0.55)
    assert drawn.predicted == pytest.approx(0.56, abs=0.01)
    assert drawn.inside


def test_masks_of_draws_are_matched_in_the_frame() -> None:
    lines = [
        line("gsm8k", "average", "grid", 0.5 * mask, lam, sparsify="dare", mask_seed=mask)
        for mask in (1, 2) for lam in grid(9)
    ] + [
        line("gsm8k", "average", "mixup", 1.0, 0.3, alpha=1.0, draw=0, sparsify="dare", mask_seed=2),
        line("gsm8k", "average", "mixup", 1.0, 0.4, alpha=1.0, draw=1, sparsify="dare", mask_seed=3),
    ]  # fmt: skip
    (found,) = responses(curved.framed(lines), PARENTS)
    assert found.mask_seeds == (1, 2)
    checked = prediction.check(found)
    assert [(p.lam, p.predicted) for p in checked.predictions] == [(0.3, 1.0)]
    assert checked.unpaired == 1


@pytest.mark.slow
def test_a_stored_draw_comes_from_its_plan_to_its_place_beside_the_curve(tmp_path: Path) -> None:
    """The whole way: results in a store, the draw's plan saved by another run, the curve's own plan asked for."""
    store, curve = Store(tmp_path), planned(*CURVE)
    drawn = planned("pair=lm_math", "method=average", "ratio=mixup", "ratio.alpha=2", "evaluator=[gsm8k]")
    desk = Results(store, curve.engine)
    for cell in (*curve.cells, *drawn.cells):
        task = desk.tasks.task(cell)
        right = {p.id: float(i / 96 >= (cell.labels[0].lam or 0.0)) for i, p in enumerate(task.problems)}
        desk.put(task, typed(stored(task, right)))
    saved_in(store, drawn)
    beside = look_up(saved.draws(store, curve), store)
    (known,) = responses(tidy([*look_up(curve, store), *beside]), PARENTS)
    (one,) = prediction.check(known).predictions
    assert (one.alpha, one.number, one.lam) == (2.0, 0, ratio.mixup(2.0, 0, 0))
    assert one.real == pytest.approx(1 - one.lam, abs=0.011)
    assert one.inside


def stored(task: Task, right: dict[str, float]) -> dict[str, Any]:
    score = 100 * float(np.mean(list(right.values())))
    counts = {"n": len(right), "n_scored": len(right), "n_unscored": 0}
    return {
        "result": {"metric": "accuracy", "score": score, "low": 0.0, "high": 100.0, **counts},
        "scores": [{"id": key, "sample": 0, "value": value} for key, value in right.items()],
        "items": task.cell.evaluator.items, "items_digest": task.items_digest, "weights": "w", "runs": ["r"],
        "engine": {"engine": "vllm", "version": "0", "dtype": "float32"},
        "evaluator": {"name": "gsm8k", "version": "1"},
    }  # fmt: skip
