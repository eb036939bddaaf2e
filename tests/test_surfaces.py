"""Three experts and more, from a frame to what is said: expectations, choosing, real draws, one more expert."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from m3_exp.command_line import CommandLine
from m3_exp.reporting.choices import advice, candidates, summary, ways, winning
from m3_exp.reporting.choices.ways import Study
from m3_exp.reporting.curves import evaluated, expectations, prediction
from m3_exp.reporting.curves.evaluated import Response
from m3_exp.reporting.figures import choosing
from m3_exp.reporting.figures.responses import draw_response
from m3_exp.reporting.tables import paper
from m3_exp.reporting.tables.rows import Shown
from m3_exp.stats.estimate import Array
from m3_exp.stats.expectation import Sampled, expectation, unsure
from m3_exp.stats.fitted import Fitted, moment
from m3_exp.stats.objective import Objective
from m3_exp.stats.simplex import Surface, quantiles
from m3_exp.types import M3Error
from m3_exp.views import studies, words
from tests import surfaced

THREE = {"three": surfaced.EXPERTS[:3]}


def of(experts: int, n: int = 60, **more: int) -> list[Response]:
    nodes = 15 if experts == 3 else 1 + experts * (experts + 1) // 2
    frame = surfaced.frame(
        {"gsm8k": surfaced.hill, "alpaca_eval": surfaced.tilt}, n, experts=experts, nodes=nodes, **more
    )
    return evaluated.responses(frame, {"three": surfaced.EXPERTS[:experts]})


@pytest.fixture(scope="module")
def study() -> Study:
    return ways.study(of(3, n=160), repeats=300, resamples=50)


def test_a_frame_of_three_experts_gives_a_surface() -> None:
    found = of(3, draws=5)
    assert [one.benchmark for one in found] == ["gsm8k", "alpaca_eval"]
    for one in found:
        assert isinstance(one.curve, Surface)
        assert one.merges == "15 nodes + 16 sampled"
        assert one.gridded
        assert one.along is None
        assert len(one.draws) == 5
        assert sorted(one.parents) == sorted(surfaced.EXPERTS[:3])
        corner = one.curve.items_at(np.array([1.0, 0.0, 0.0]))
        assert corner.tolist() == [one.parents["code"][key] for key in one.curve.ids]


def test_other_mixtures_beside_a_lattice_are_no_nodes() -> None:
    frame = surfaced.frame({"gsm8k": surfaced.hill})
    extra = frame[frame["kind"] == "sampled"].head(1).assign(kind="node", ratio="fixed")
    both = evaluated.pd.concat([frame, extra], ignore_index=True)
    assert [len(one.curve.points) for one in evaluated.responses(both, THREE)] == [15]


def test_a_node_without_a_result_is_named() -> None:
    frame = surfaced.frame({"gsm8k": surfaced.hill})
    lost = frame.index[(frame["mixture"] == "0.25 code + 0.5 lm + 0.25 math")]
    frame.loc[lost, ["score", "scored"]] = None
    assert evaluated.responses(frame, THREE) == []
    assert [str(one) for one in evaluated.refused(frame)] == [
        "three average gsm8k: no expectation, 1 of 15 nodes without a result (shares 0.25:0.5:0.25)"
    ]


def test_four_experts_without_sampled_points_are_refused_plainly() -> None:
    frame = surfaced.frame({"gsm8k": surfaced.hill}, experts=4, nodes=11, sampled=0)
    experts = {"three": surfaced.EXPERTS[:4]}
    assert evaluated.responses(frame, experts) == []
    (said,) = map(str, evaluated.refused(frame))
    assert said.endswith("say nothing of what lies between them: all of ratio.sampled=16 are needed")
    known = evaluated.responses(surfaced.frame({"gsm8k": surfaced.hill}, experts=4, nodes=11), experts)
    assert isinstance(known[0].curve, Fitted)
    outside = expectation(known[0].curve, 8.0)
    assert (outside.low, outside.high) == (0.0, 1.0)


def test_the_line_that_makes_a_surface_samples_mixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = surfaced.frame({"gsm8k": surfaced.hill}, experts=4, nodes=11, sampled=0)
    asked = CommandLine(("ratio=plain,grid", "ratio.sampled=0"), multirun=True)
    looked = SimpleNamespace(
        frame=lambda draws: frame, parents={"three": surfaced.EXPERTS[:4]}, request=SimpleNamespace(asked=asked)
    )
    monkeypatch.setattr(studies, "look_up_sweep", lambda sweep, others: looked)
    with pytest.raises(M3Error, match=r"are needed; first: m3 run -m ratio=plain,grid ratio.sampled=16$"):
        studies.curves(CommandLine())


def test_moments_of_shares_are_those_of_draws() -> None:
    draws = np.random.default_rng(0).dirichlet([0.7] * 4, 1_000_000)
    for term in ((0,), (0, 1), (0, 0), (0, 1, 1, 2), (3, 3, 3, 3)):
        assert moment(term, 4, 0.7) == pytest.approx(draws[:, list(term)].prod(axis=1).mean(), rel=0.02)


@pytest.mark.parametrize("experts", [4, 5, 8])
def test_a_fitted_surface_finds_a_quadratic_exactly(experts: int) -> None:
    nodes = np.array(sorted(surfaced.shares.grid(experts, 1 + experts * (experts + 1) // 2, 0)))

    def height(at: Array) -> Array:
        return np.asarray(0.3 + 0.2 * at[:, 0] + 0.4 * at[:, 1] * at[:, 2])

    beside = np.array(surfaced.shares.sampled(experts, 0, 16))
    one = Fitted(("a",), nodes, height(nodes)[None], Sampled(beside, height(beside)[None]))
    assert np.abs(one.residuals).max() < 1e-9
    for alpha in (0.2, 1.0, 5.0):
        truth = 0.3 + 0.2 / experts + 0.4 * alpha / experts / (experts * alpha + 1)
        assert one.expected(alpha)[0] == pytest.approx(truth, abs=1e-9)
        w = one.weights(alpha)
        spread = one.means @ (one.second_moments(alpha) - np.outer(w, w)) @ one.means
        assert spread == pytest.approx(height(quantiles(experts, alpha, 60_000)).var(), rel=0.05)
    assert one.items_at(nodes[3]) == pytest.approx(one.values[:, 3])


def test_contrasts_and_signs_are_as_along_lambda() -> None:
    one = of(3)[0]
    found = expectations.against_plain([one])
    assert len(found) == 7
    gain = found["gsm8k", 0.5]
    assert gain.family == 7
    assert gain.why == ""
    assert gain.estimate.value == pytest.approx(
        expectations.expected(one, 0.5).value - expectations.plain(one).value  # type: ignore[union-attr]
    )
    alone = replace(one, curve=replace(one.curve, sampled=None))
    assert expectations.unclaimed(alone, 0.5) == expectations.NO_SAMPLED


def test_masks_of_dare_widen_a_surface() -> None:
    one = of(3)[0]
    rng = np.random.default_rng(1)
    lost = (rng.random(one.curve.values.shape) < share for share in (0.0, 0.2, 0.4))  # a mask is worse than another
    masks = tuple(replace(one.curve, values=np.where(own, 0.0, one.curve.values)) for own in lost)
    mean = evaluated.averaged(masks)
    with_masks = expectation(mean, 1.0, masks)
    assert with_masks.high - with_masks.low > expectation(mean, 1.0).high - expectation(mean, 1.0).low


def test_what_is_said_of_three_experts_names_them_and_no_lambda(study: Study) -> None:
    shown = words.study(study, 120)
    assert shown[0] == "three average (lab): 15 mixtures; items: gsm8k 160, alpaca_eval 160"
    assert not [line for line in shown if "lambda" in line]
    text = " ".join(shown)
    assert "best of 7 fixed mixtures" in text
    assert "best of 3 experts or fewer" in text
    assert "a mixture of 3 experts" in text
    record = advice.records(study)[0]
    assert record["replay"]["shares"] is None
    assert set(record["selected"]["shares"]) == set(surfaced.EXPERTS[:3])
    assert "lambda" not in record["selected"]


def test_only_two_and_three_experts_have_a_picture() -> None:
    four = SimpleNamespace(responses=[SimpleNamespace(experts=surfaced.EXPERTS[:4])])
    with pytest.raises(M3Error, match="of two or three experts, and these are 4: leave --out out"):
        draw_response(four)  # type: ignore[arg-type]


def test_the_picture_of_three_experts_has_a_triangle_a_benchmark(study: Study) -> None:
    drawn = draw_response(study, ["humaneval: no surface, not run"])
    titles = [ax.get_title(loc="left") for part in drawn.subfigs for ax in part.axes]
    assert [title for title in titles if title] == [
        "three, Average (lab)\nmean, % of the better parent", "GSM8K", "AlpacaEval",
    ]  # fmt: skip
    said = " ".join(drawn._supxlabel.get_text().split())  # type: ignore[attr-defined]
    assert "Hatched: better than each expert alone with 95 %" in said
    assert "those of E also hold which mixtures were sampled" in said
    assert "humaneval: no surface, not run" in said
    rows, _ = choosing.choices(study)
    assert "fixed shares" in [row.label for row in rows]
    assert not any("λ" in row.label for row in rows)


# ------------------------------------------------------------------------------------------- where mixtures win


def of_one(height: surfaced.Height, n: int, rng: np.random.Generator, sampled: int = 16) -> winning.Triangle:
    curve = surfaced.surface(height, n, rng, sampled=sampled)
    assert isinstance(curve, Surface)
    one = Response("lab", "three", "average", "", "none", "gsm8k", "accuracy", curve, (curve,), experts=("a", "b", "c"))
    return winning.triangle([one], Objective("gsm8k", (curve,)))


def test_a_gain_is_the_least_paired_difference_from_an_expert() -> None:
    curve = surfaced.surface(surfaced.hill, 80, np.random.default_rng(5))
    one = Response("lab", "three", "average", "", "none", "gsm8k", "accuracy", curve, (curve,), experts=("a", "b", "c"))
    found = winning.triangle([one], Objective("gsm8k", (curve,)))
    at = np.array([0.5, 0.25, 0.25])
    row = int(np.argmin(np.abs(found.points - at).sum(axis=1)))
    assert found.points[row].tolist() == at.tolist()
    node = int(np.argmin(np.abs(curve.points - at).sum(axis=1)))
    corners = [int(np.argmax(curve.points[:, expert])) for expert in range(3)]
    differences = [curve.values[:, node] - curve.values[:, corner] for corner in corners]
    assert found.score[row] == pytest.approx(100 * curve.values[:, node].mean())
    assert found.gain[row] == pytest.approx(100 * min(d.mean() for d in differences))
    half = max(1.96 * d.std(ddof=1) / np.sqrt(80) for d in differences)
    assert found.gain[row] - found.low[row] == pytest.approx(100 * half, rel=0.15)
    assert found.corners == pytest.approx([100 * curve.values[:, corner].mean() for corner in corners])
    assert max(found.gain[np.argmax(found.points[:, expert])] for expert in range(3)) <= 0


def test_between_evaluated_mixtures_the_interval_holds_what_the_score_may_bend() -> None:
    rng = np.random.default_rng(6)
    curve = surfaced.surface(surfaced.rim, 400, rng, sampled=0)
    assert isinstance(curve, Surface)
    found = of_one(surfaced.rim, 400, np.random.default_rng(6), sampled=0)
    bend = 100 * curve.bend_at(found.points)
    width = found.high - found.low
    far, near = bend > 3, bend < 0.01
    assert far.sum() > 50
    assert near.sum() >= 15
    assert (width[far] > 2 * bend[far]).all()


@pytest.mark.slow
def test_a_region_seldom_claims_a_mixture_that_is_not_better() -> None:
    """On a plane no mixture beats its best corner. A claim anywhere on the triangle is an error of one mixture at a
    time, so over the 15 nodes and 561 points it may come more often than in 2.5 %, but not often."""
    rng = np.random.default_rng(7)
    centre = [float((of_one(surfaced.tilt, 96, rng).low[280]) > 0) for _ in range(60)]
    assert np.mean(centre) <= 0.05
    won = [of_one(surfaced.hill, 300, rng) for _ in range(10)]
    best = np.argmax(surfaced.hill(won[0].points))
    assert np.mean([one.low[best] > 0 for one in won]) >= 0.8
    truth = surfaced.hill(won[0].points)
    truth = 100 * (truth - surfaced.hill(np.eye(3)).max())
    assert np.mean([[(one.low <= truth) & (truth <= one.high)] for one in won]) >= 0.93


def test_mean_and_minimum_are_of_all_benchmarks(study: Study) -> None:
    assert [one.objective for one in study.comparisons] == ["gsm8k", "alpaca_eval", "mean", "minimum"]
    for one in study.comparisons:
        for figure in one.expected.values():
            assert figure.low < figure.value < figure.high
    mean, least = study.comparisons[2:]
    assert all(least.expected[alpha].value < mean.expected[alpha].value for alpha in mean.expected)


def test_one_more_expert_helps_where_mixtures_of_it_are_better(study: Study) -> None:
    hill, tilt = study.helping("gsm8k"), study.helping("alpaca_eval")
    assert [one.experts for one in hill] == [1, 2, 3]
    assert [one.merges for one in hill] == [3, 12, 31]
    assert hill[2].gain is not None
    assert hill[2].gain.value > 0
    assert hill[2].mark == "+"
    assert (hill[2].kept > 0).all()
    assert all(one.mark != "+" for one in tilt[1:])
    assert tilt[0].kept.tolist() == [0, 0, 1]
    joint = [one.gain for one in study.helps if one.gain is not None]
    assert len(joint) == 8


def test_nodes_are_candidates_by_the_names_of_their_experts() -> None:
    frame = surfaced.frame({"gsm8k": surfaced.hill, "alpaca_eval": surfaced.tilt})
    found = {group.question: group for group in candidates.groups(frame, None, THREE)}
    assert set(found) == {"mixture", "alpha"}
    assert "0.25 code + 0.5 lm + 0.25 math" in found["mixture"].candidates.names
    assert len(found["mixture"].candidates.names) == 15
    assert found["mixture"].lams == {}


def test_the_first_words_name_mixtures() -> None:
    frame = surfaced.frame({"gsm8k": surfaced.hill})
    said = summary.first_words(frame, THREE, summary.Lines("AGAIN", "ALONE", "CURVES"))
    assert "lambda" not in " ".join(said)
    assert "for all 29 at once" in said[0]  # 12 nodes that are no expert, 16 sampled, plain
    assert " code + " in said[1]


def test_a_table_shows_expectations_of_three_experts() -> None:
    frame = surfaced.frame({"gsm8k": surfaced.hill}, draws=3)
    known = evaluated.responses(frame, THREE)
    built = paper.build("table1", Shown(frame, responses=known, experts=THREE))
    at = next(row for row in built.rows if str(row[4]) == "0.5")
    figure = at[-1].figure
    assert figure is not None
    assert figure.value == pytest.approx(100 * expectations.expected(known[0], 0.5).value)
    assert "curve of 15 nodes + 16 sampled" in str(at[5])


def test_real_draws_lie_in_their_intervals() -> None:
    """12 draws kept apart, of a score that is smooth: at least 10 lie in a 95 % interval but once in 50 times."""
    found = [prediction.check(one, repeats=200) for one in of(3, n=200, draws=12)]
    inside = sum(p.inside for one in found for p in one.predictions)
    assert len(found[0].predictions) == 12
    assert inside >= stats.binom.ppf(1e-4, 24, 0.95)
    header, rows = prediction.table(found[0])
    assert header[2] == "shares"
    assert rows[0][2].count(":") == 2
    assert "lambda" not in " ".join(prediction.words(found[0]))


def test_a_draw_far_off_the_surface_is_found_out() -> None:
    one = of(3, n=200, draws=6)[0]
    wrong = tuple(replace(draw, values={key: 1.0 for key in draw.values}) for draw in one.draws)
    found = prediction.check(replace(one, draws=wrong), repeats=100)
    assert not any(p.inside for p in found.predictions)


@pytest.mark.slow
@pytest.mark.parametrize("experts", [3, 4])
def test_intervals_of_expectations_hold_the_truth(experts: int) -> None:
    """Each number covers what 95 % would but once in 10,000 seeds; all of them together at least 93 %."""
    sets, nodes, covered = 60, 15 if experts == 3 else 11, []
    for height in (surfaced.hill, surfaced.rim, surfaced.tilt):
        each = [
            surfaced.surface(height, 200, np.random.default_rng(k), nodes=nodes, seed=k, experts=experts)
            for k in range(sets)
        ]
        for alpha in (0.2, 0.5, 1.0, 5.0):
            truth = float(height(quantiles(experts, alpha, 100_000)).mean())
            found = [expectation(one, alpha) for one in each]
            covered.append(float(np.mean([one.low <= truth <= one.high for one in found])))
            assert all(unsure(one, {alpha: 1.0}).bias == 0 for one in each)
    assert min(covered) >= stats.binom.ppf(1e-4, sets, 0.95) / sets
    assert np.mean(covered) >= 0.93
