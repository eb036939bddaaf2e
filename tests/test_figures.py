"""Figures from known frames: what is plotted is read back, no text overlaps, the same data give the same bytes."""

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy.stats import beta
from statsmodels.stats.proportion import proportion_confint

from m3_exp import planning
from m3_exp.config import ROOT, request
from m3_exp.merging.ratio import grid, sampled
from m3_exp.reporting.choices import ways
from m3_exp.reporting.comparisons.expected import in_place_of_draws
from m3_exp.reporting.comparisons.values import entry_of, value
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import responses
from m3_exp.reporting.data.dataframe import tidy
from m3_exp.reporting.figures import heatmap, palette
from m3_exp.reporting.figures import responses as drawing
from m3_exp.reporting.figures.catalogue import FIGURES
from m3_exp.reporting.figures.frames import Data, at_alpha
from m3_exp.stats.ratio import drop
from m3_exp.types import M3Error
from tests.curved import below, contrast, framed, tidy_row
from tests.golden.commands import BENCHMARKS
from tests.records import looked_up
from tests.test_tables import ends, record

N = 40
PARENTS = {"lm_math": ["lm", "math"], "lm_code": ["lm", "code"], "math_code": ["math", "code"]}
TABLE1 = {
    "lm_math": ["alpaca_eval", "gsm8k", "hendrycks_math"],
    "lm_code": ["alpaca_eval", "humaneval", "mbpp"],
    "math_code": ["gsm8k", "hendrycks_math", "humaneval", "mbpp"],
}
OOD = {"lm_math": "livebench_coding", "lm_code": "livebench_typos", "math_code": "livebench_instruction_following"}
PDR = ("prompt_bench_sst2", "prompt_bench_cola")
PUBLISHED = ROOT / "results" / "published"
Line = dict[str, Any]


def line(benchmark: str, share: float, *, pair: str = "lm_math", method: str = "ties", ratio: str = "plain",
         lam: float | None = None, alpha: float | None = None, draw: int | None = None, sparsify: str = "none",
         shift: int = 0, **more: Any) -> Line:  # fmt: skip
    """A result on 40 items: item i is right where ((i + shift) % 40 + 0.5) / 40 lies below `share`.

    Its interval is wrong: nothing may read it.
    """
    weights = f"{pair} {method} {ratio} {lam} {sparsify}"
    return tidy_row(
        below(share, N, shift), benchmark=benchmark, pair=pair, method=method, ratio=ratio, lam=lam, alpha=alpha,
        draw=draw, sparsify=sparsify, weights=weights, **more,
    )  # fmt: skip


def missing(given: Line, failure: str | None = None) -> Line:
    gone = dict.fromkeys(("score", "low", "high", "n", "n_unscored", "values", "weights"), np.nan)
    return {**given, **gone, "state": "missing", "failure": failure}


def table1() -> pd.DataFrame:
    lines = []
    for pair, benchmarks in TABLE1.items():
        for i, benchmark in enumerate(benchmarks):
            for j, method in enumerate(("average", "task_arithmetic", "ties")):
                for k, sparsify in enumerate(("none", "dare")):
                    share = 0.2 + 0.15 * i + 0.05 * j + 0.02 * k
                    of = {"pair": pair, "method": method, "sparsify": sparsify}
                    lines.append(line(benchmark, share, **of))
                    for draw, lam in enumerate((0.1, 0.6, 0.9)):
                        mixed = {"ratio": "mixup", "lam": lam, "alpha": 0.5, "draw": draw, "shift": draw}
                        lines.append(line(benchmark, share + 0.1 - 0.05 * draw, **of, **mixed))
    return framed(lines)


def ood() -> pd.DataFrame:
    return framed([
        line(benchmark, 0.3 + 0.1 * (ratio == "mixup"), pair=pair, method=method, ratio=ratio,
             **({"alpha": 0.5, "draw": 0, "lam": 0.4} if ratio == "mixup" else {}))
        for pair, benchmark in OOD.items()
        for method in ("average", "task_arithmetic", "ties")
        for ratio in ("plain", "mixup")
    ])  # fmt: skip


def attacked(benchmark: str, pair: str, ratio: str, **more: Any) -> Line:
    """Half of the items are right, every other of these under the attack; the PDR stored with it is wrong."""
    details = {"pdr_adaptive": 99.0, "pdr_adaptive_low": 99.0, "pdr_adaptive_high": 99.0}
    clean = line(benchmark, 0.5, pair=pair, method="task_arithmetic", ratio=ratio, **more)
    under = {(f"{key}@seed0", 0): value * (int(key) % 2) for (key, _), value in clean["values"].items()}
    return {**clean, "details": details, "values": {**clean["values"], **under}}


def adversarial(draws: int = 1) -> pd.DataFrame:
    lines = []
    for pair in TABLE1:
        for benchmark in PDR:
            lines.append(attacked(benchmark, pair, "plain"))
            lines += [attacked(benchmark, pair, "mixup", alpha=0.5, draw=d, lam=0.1 * (d + 1)) for d in range(draws)]
    return framed(lines)


def curves(
    benchmarks: Mapping[str, float], *, method: str = "average", plain: bool = True, more: bool = True
) -> pd.DataFrame:
    """A grid over lambda of lm_math; each benchmark's score falls or rises along it by its slope around 0.5.

    `more`: with sampled lambdas beside its nodes.
    """
    lines = []
    for benchmark, slope in benchmarks.items():
        of = {"method": method}
        lines += [line(benchmark, 0.5 + slope * (x - 0.5), ratio="grid", lam=x, **of) for x in grid(9)]
        drawn = sampled(0, 16) if more else ()
        lines += [line(benchmark, 0.5 + slope * (x - 0.5), ratio="sampled", lam=x, **of) for x in drawn]
        lines += [line(benchmark, 0.55, **of)] if plain else []
        lines.append(line(benchmark, 0.5 - 0.2 * slope, ratio="mixup", lam=0.3, alpha=0.5, draw=0, **of))
        lines += [line(benchmark, 0.5 + slope * (x - 0.5), pair=who, method="single") for who, x in
                  (("lm", 1), ("math", 0))]  # fmt: skip
    return framed(lines)


def full() -> dict[str, pd.DataFrame]:
    attacks = {"table2": adversarial(), "table5": adversarial(2), "table6": adversarial()}
    return {"table1": table1(), "figure4": ood(), **attacks}


def study(frame: pd.DataFrame) -> ways.Study:
    return ways.study(responses(frame, PARENTS), repeats=200, resamples=100)


# --------------------------------------------------------------------------------------------------- reading back


def bars(ax: Axes, label: str) -> list[tuple[float, float, float]]:
    """Return the (value, low, high) of a series of error bars, from top to bottom."""
    found = next(c for c in ax.containers if c.get_label() == label)
    line_, _, (reach,) = found.lines  # type: ignore[attr-defined]
    ends = [(segment[0, 0], segment[-1, 0]) for segment in reach.get_segments()]
    rows = sorted(zip(line_.get_ydata(), line_.get_xdata(), ends, strict=True), key=lambda row: row[0])
    return [(float(x), float(low), float(high)) for _, x, (low, high) in rows]


def hollow(ax: Axes, label: str) -> list[float]:
    found = next(x for x in ax.lines if x.get_label() == f"{label} (paper)")
    assert found.get_markerfacecolor() == "white"
    pairs = sorted(zip(found.get_ydata(), found.get_xdata(), strict=True))  # type: ignore[arg-type]
    return [float(x) for _, x in pairs]


def row_names(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_yticklabels()]


def written(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def unwrapped(figure: Figure) -> str:
    """All that is written, notes without their line breaks."""
    return written(figure).replace("\n  ", " ")


def numbers(figure: Figure) -> list[str]:
    """The numbers of a heat map's first panel, without their intervals."""
    return [x for text in figure.axes[0].texts if not (x := text.get_text()).startswith("±")]


def shown_texts(figure: Figure) -> Iterator[Text]:
    """Give every text that is really drawn."""
    yield from figure.texts
    for legend in figure.legends:
        yield from legend.get_texts()
    for ax in figure.axes:
        yield from [*ax.texts, ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label]  # type: ignore[attr-defined]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick, at in zip(axis.get_major_ticks(), axis.get_majorticklocs(), strict=False):
                if low - 1e-9 <= at <= high + 1e-9:
                    yield tick.label1


def collisions(figure: Figure) -> list[str]:
    """Name the texts that touch another, leave the figure or are too small for print."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [
        (text.get_text(), text.get_window_extent(renderer), text.get_fontsize())
        for text in shown_texts(figure)
        if text.get_visible() and text.get_text().strip()
    ]
    whole = figure.bbox
    wrong = [f"{text!r} leaves" for text, box, _ in boxes if box.x0 < -1 or box.x1 > whole.x1 + 1 or box.y0 < -1]
    wrong += [f"{text!r} is small" for text, _, size in boxes if size < 7]
    for i, (first, a, _) in enumerate(boxes):
        for second, b, _ in boxes[i + 1 :]:
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            down = min(a.y1, b.y1) - max(a.y0, b.y0)
            if across > 0.5 and down > 1.5:  # boxes hold room for accents and descenders
                wrong.append(f"{first!r} on {second!r}")
    return wrong


# ------------------------------------------------------------------------------------------------------ every figure


def holes() -> dict[str, pd.DataFrame]:
    found = full()
    for sweep in ("table1", "figure4", "table2"):
        lines = found[sweep].to_dict("records")
        gone = [missing(x, "the judge died" if i == 3 else None) if i in (1, 2, 3, 8, 20) else x
                for i, x in enumerate(lines)]  # fmt: skip
        found[sweep] = framed(gone)
    del found["table5"]
    return found


CASES: Mapping[str, tuple[str, Any]] = {
    "1a": ("figure1a", lambda: Data(full(), PARENTS, PUBLISHED)),
    "1a, holes": ("figure1a", lambda: Data(holes(), PARENTS)),
    "1b": ("figure1b", lambda: Data(full(), PARENTS, PUBLISHED)),
    "1b, holes": ("figure1b", lambda: Data(holes(), PARENTS)),
    "1b, half": ("figure1b", lambda: Data({"figure4": ood()}, PARENTS)),
    "1c": ("figure1c", lambda: Data(full(), PARENTS, PUBLISHED)),
    "1c, holes": ("figure1c", lambda: Data(holes(), PARENTS)),
    "3": ("figure3", lambda: Data({})),
    "4": ("figure4", lambda: Data(full(), PARENTS, PUBLISHED)),
    "4, holes": ("figure4", lambda: Data(holes(), PARENTS)),
    "pdr": ("pdr", lambda: Data(full(), PARENTS, PUBLISHED)),
    "pdr, holes": ("pdr", lambda: Data(holes(), PARENTS)),
    "heat": ("heatmap", lambda: Data({"lambda_response": curves({"gsm8k": -0.8, "alpaca_eval": 0.6})}, PARENTS)),
    "heat, draws": ("heatmap", lambda: Data({"alpha_grid": holes()["table1"]}, PARENTS)),
    "response, ten": ("response", lambda: Data(
        {"lambda_response": curves({b: 0.12 * i - 0.6 for i, b in enumerate(BENCHMARKS)})}, PARENTS)),
    "response, one": ("response", lambda: Data({"lambda_response": curves({"gsm8k": -0.8}, plain=False)}, PARENTS)),
    "response, names": ("response", lambda: Data(
        {"lambda_response": curves({"gsm8k": -0.8, "a_benchmark_of_ours_with_quite_a_long_name": 0.5})}, PARENTS)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_figures_render_without_warnings_and_no_text_touches_another(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ways.study
    monkeypatch.setattr(ways, "study", lambda found, seed: quick(found, repeats=100, resamples=50, seed=seed))
    name, data = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = FIGURES[name].draw(data())
        palette.save(figure, name, tmp_path / "x.svg")
    assert figure.get_figwidth() in (palette.COLUMN, palette.DOUBLE)
    assert collisions(figure) == []


def test_every_figure_is_named_with_its_sweeps() -> None:
    assert set(FIGURES) == {"figure1a", "figure1b", "figure1c", "figure3", "figure4", "pdr", "heatmap", "response",
                            "layer_ablation"}  # fmt: skip
    assert FIGURES["figure1b"].sweeps == ("figure4", "table2")
    assert {name for name, spec in FIGURES.items() if not spec.sweeps} == {"figure3"}
    assert all(FIGURES[name].draw.__doc__ for name in FIGURES)


# -------------------------------------------------------------------------------------------------- tables' figures


def test_figure1a_draws_paired_gains_and_the_papers_beside_them() -> None:
    ax = FIGURES["figure1a"].draw(Data(full(), PARENTS, PUBLISHED)).axes[0]
    frame = table1()
    ours = bars(ax, "TIES")
    assert len(ours) == 10
    rows = frame[(frame["method"] == "ties") & (frame["sparsify"] == "none") & (frame["pair"] == "lm_math")]
    rows = rows[rows["benchmark"] == "alpaca_eval"]
    plain, mixed = (entry_of(rows[rows["ratio"] == ratio]).items for ratio in ("plain", "mixup"))
    expected = contrast(mixed, plain)
    middle, low, high = ours[0]
    assert middle == pytest.approx(100 * expected.value)
    assert (low, high) == pytest.approx((100 * expected.low, 100 * expected.high)), "of these three draws"
    assert expected.n == N
    assert hollow(ax, "TIES")[:3] == pytest.approx([38.73 - 38.63, 18.57 - 14.56, 2.48 - 2.12])
    assert row_names(ax)[:4] == ["LM & Math", "AlpacaEval", "GSM8K", "MATH"]


def test_illegible_published_values_have_no_marker(tmp_path: Path) -> None:
    figure = FIGURES["figure1b"].draw(Data(full(), PARENTS, PUBLISHED))
    assert hollow(figure.axes[1], "with M3") == pytest.approx([34.55, 4.52, 7.68, 31.67, 35.77, 6.42])
    unreadable = pd.read_csv(PUBLISHED / "adversarial.csv", dtype=str, keep_default_na=False).assign(pdr="?")
    unreadable.to_csv(tmp_path / "adversarial.csv", index=False)
    figure = FIGURES["figure1b"].draw(Data(full(), PARENTS, tmp_path))
    assert not [x for x in figure.axes[1].lines if "(paper)" in str(x.get_label())]


def test_frames_of_real_plans_are_drawn() -> None:
    """Table 1's cells as planned, some of them with a result: no column is of the type that hand-made frames have."""
    cells = planning.build(request(["sweeps=table1", "pair=lm_math"], multirun=False).configs).cells
    verdicts: list[list[float | None]] = [[1, 0, 1, 1], [0, 0, 1, 1], [1, 1, None, 0]]
    found = [looked_up(cell, record(verdicts[i % 3], cell, str(i)) if i % 4 else None) for i, cell in enumerate(cells)]
    planned = tidy(found)
    for name in ("figure1a", "figure1c"):
        figure = FIGURES[name].draw(Data({"table1": planned}, PARENTS))
        assert "not run" in written(figure)
        assert collisions(figure) == []
    rows = planned[(planned["method"] == "ties") & (planned["benchmark"] == "gsm8k") & (planned["ratio"] == "mixup")]
    shown = value(rows[rows["sparsify"] == "none"])
    assert shown is not None
    assert shown.score in [score for score, _, _ in bars(figure.axes[0], "+ M3")]


def test_a_missing_cell_has_no_marker_and_is_named() -> None:
    frames = full()
    lines = frames["table1"].to_dict("records")
    frame = framed([
        missing(x) if [x[k] for k in ("pair", "benchmark", "method", "ratio")] == ["lm_code", "mbpp", "ties", "plain"]
        else x for x in lines
    ])  # fmt: skip
    figure = FIGURES["figure1a"].draw(Data({"table1": frame}, PARENTS))
    assert len(bars(figure.axes[0], "TIES")) == 9
    assert len(bars(figure.axes[0], "Task arithmetic")) == 10
    assert "TIES, LM & Code MBPP: without M3 not run" in written(figure)
    figure = FIGURES["figure1c"].draw(Data({"table1": frame}, PARENTS))
    assert [len(bars(figure.axes[1], label)) for label in ("TIES", "+ M3")] == [2, 3]
    assert "LM & Code: TIES, MBPP: not run" in written(figure)
    assert min(value for ax in figure.axes for value, _, _ in bars(ax, "TIES")) > 0


def test_a_score_of_zero_is_drawn_at_zero_with_its_interval() -> None:
    frame = table1()
    zero = (frame["pair"] == "lm_code") & (frame["benchmark"] == "mbpp")
    frame.loc[zero, "values"] = frame.loc[zero, "values"].map(lambda values: dict.fromkeys(values, 0.0))
    frame.loc[zero, "score"] = 0.0
    ax = FIGURES["figure1c"].draw(Data({"table1": framed(frame)}, PARENTS)).axes[1]
    high = 100 * proportion_confint(0, N, method="agresti_coull")[1]
    assert bars(ax, "TIES")[-1] == pytest.approx((0.0, 0.0, high))


def test_figure1c_shows_what_the_table_shows() -> None:
    figure = FIGURES["figure1c"].draw(Data(full(), PARENTS, PUBLISHED))
    frame = table1()
    rows = frame[(frame["pair"] == "lm_code") & (frame["method"] == "ties") & (frame["benchmark"] == "humaneval")]
    for label, ratio, sparsify in (("TIES", "plain", "none"), ("+ DARE + M3", "mixup", "dare")):
        shown = value(rows[(rows["ratio"] == ratio) & (rows["sparsify"] == sparsify)])
        assert shown is not None
        assert bars(figure.axes[1], label)[1] == pytest.approx((shown.score, shown.low, shown.high))
    assert hollow(figure.axes[1], "+ M3") == pytest.approx([44.96, 25.61, 30.8])


def test_figure4_has_scores_and_gains_in_the_same_rows() -> None:
    scores, gains = FIGURES["figure4"].draw(Data(full(), PARENTS, PUBLISHED)).axes
    assert [value for value, _, _ in bars(scores, "with M3")] == pytest.approx([40.0] * 9)
    assert [value for value, _, _ in bars(gains, "gain")] == pytest.approx([10.0] * 9)
    assert hollow(gains, "gain") == pytest.approx([0.7, 1.6, 0.6, 4, 6, 14, 1.5, 1.9, 1.1])
    assert list(scores.get_yticks()) == list(gains.get_yticks())


def test_pdr_is_that_of_the_item_scores_whatever_a_result_stores() -> None:
    """20 of 40 are right, under the attack every other of them; of two draws the mean."""
    stress, bugs, _ = FIGURES["pdr"].draw(Data(full(), PARENTS)).axes
    clean = [float(k < N / 2) for k in range(N)]
    known = drop(clean, [value * (k % 2) for k, value in enumerate(clean)])
    assert known.value == 0.5
    for ax, label in ((stress, "without M3"), (bugs, "with M3")):
        assert bars(ax, label) == [pytest.approx((50, 100 * known.low, 100 * known.high))] * 6


def test_an_undefined_pdr_is_no_zero() -> None:
    lines = adversarial().to_dict("records")
    lines[0]["values"] = dict.fromkeys(lines[0]["values"], 0.0)
    figure = FIGURES["pdr"].draw(Data({"table6": framed(lines)}, PARENTS))
    assert len(bars(figure.axes[2], "without M3")) == 5
    assert "undefined: no item is right without the attack" in written(figure)
    assert "(sweeps=table2)" in written(figure)


# ------------------------------------------------------------------------------------------- densities and the heat map


def test_figure3_draws_the_densities() -> None:
    ax = FIGURES["figure3"].draw(Data({})).axes[0]
    assert [x.get_label() for x in ax.lines] == ["0.2", "0.4", "0.5", "1", "2", "3", "5"]
    for drawn in ax.lines:
        x, y = np.asarray(drawn.get_xdata(), dtype=float), np.asarray(drawn.get_ydata(), dtype=float)
        seen = ~np.isnan(y)
        alpha = float(str(drawn.get_label()))
        assert y[seen] == pytest.approx(beta.pdf(x[seen], alpha, alpha))
        assert seen.mean() > 0.9
    assert len({(x.get_color(), x.get_linestyle()) for x in ax.lines}) == 7


def test_the_heat_map_holds_expectations_less_plain_and_outlines_the_real_ones() -> None:
    plain = [line(benchmark, 0.95, method="average") for benchmark in ("gsm8k", "alpaca_eval")]
    lines = curves({"gsm8k": -0.8, "alpaca_eval": 0.6}, plain=False).to_dict("records")
    frame = framed([*lines, *plain])
    figure = FIGURES["heatmap"].draw(Data({"lambda_response": frame}, PARENTS))
    found = heatmap.changes(frame, PARENTS)
    curve = next(r for r in responses(frame, PARENTS) if r.benchmark == "gsm8k")
    assert curve.plain is not None
    panel = heatmap.Panel("lm_math", "average", "none")
    expected = 100 * (curve.curve.expected(0.2).mean() - np.mean(list(curve.plain.values())))
    assert found[panel, "gsm8k", 0.2].value == pytest.approx(expected)
    texts, halves = (
        {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in figure.axes[0].texts
         if t.get_text().startswith("±") == half}
        for half in (False, True)
    )  # fmt: skip
    for i, benchmark in enumerate(("alpaca_eval", "gsm8k")):
        for j, alpha in enumerate((0.2, 0.4, 0.5, 1.0, 2.0, 3.0, 5.0)):
            change = found[panel, benchmark, alpha]
            assert float(texts[i, j].replace("−", "-")) == pytest.approx(change.value, abs=0.051)
            assert halves[i, j] == f"±{change.half:.1f}"
    outlined = [p for p in figure.axes[0].patches if not p.get_fill()]
    assert len(outlined) == sum(change.significant for change in found.values()) > 0
    assert (
        "Outlined: significant at 5 %, adjusted over the 14 alphas x benchmarks of its pair and method"
        " (a family each; 1 here)"
    ) in unwrapped(figure)


def test_the_heat_map_claims_nothing_of_nodes_alone() -> None:
    frame = curves({"gsm8k": -0.8, "alpaca_eval": 0.6}, more=False)
    figure = FIGURES["heatmap"].draw(Data({"lambda_response": frame}, PARENTS))
    assert not [p for p in figure.axes[0].patches if not p.get_fill()]
    assert f"No outline, 14 cells: {expectations.NO_SAMPLED}" in unwrapped(figure)
    assert "Outlined" not in written(figure)


def test_the_heat_map_names_a_curve_that_lost_a_node() -> None:
    lines = curves({"gsm8k": -0.8, "alpaca_eval": 0.6}).to_dict("records")
    at = ("gsm8k", 0.25, "grid")
    lost = [missing(x, "died") if (x["benchmark"], x["lam"], x["ratio"]) == at else x for x in lines]
    figure = FIGURES["heatmap"].draw(Data({"lambda_response": framed(lost)}, PARENTS))
    assert len([p for p in figure.axes[0].patches if p.get_hatch()]) == 6, "one draw of alpha = 0.5 stands there"
    assert "lm_math average gsm8k: no expectation, 1 of 9 nodes without a result (lambda 0.25)." in unwrapped(figure)
    assert collisions(figure) == []


def test_a_curve_without_plain_is_not_called_not_run() -> None:
    figure = FIGURES["heatmap"].draw(Data({"lambda_response": curves({"gsm8k": -0.8}, plain=False)}, PARENTS))
    assert "Hatched, plain is not run: LM & Math Average GSM8K." in unwrapped(figure)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["figure1a", "figure1b", "figure1c", "figure4", "pdr"])
def test_figures_say_what_the_bars_of_m3_are_of(name: str) -> None:
    said = unwrapped(FIGURES[name].draw(Data(full(), PARENTS))).replace("\n", " ")
    count = {"figure1a": "3 draws", "figure1c": "3 draws", "pdr": "1 or 2 draws"}.get(name, "1 draw")
    assert f"M3: mean of {count} of λ; bars: items, of these draws." in said
    assert "the expectation" not in said
    many = {sweep: frame.loc[frame.index.repeat(10)] for sweep, frame in full().items()}
    for frame in many.values():
        mixed = frame["ratio"] == "mixup"
        frame.loc[mixed, "lam"] = frame.loc[mixed, "lam"] + np.tile(np.arange(10), mixed.sum() // 10) / 1000
    more = unwrapped(FIGURES[name].draw(Data(many, PARENTS))).replace("\n", " ")
    assert "bars: items and draws." in more
    assert "of these draws" not in more


def test_figures_say_that_m3_is_an_expectation_where_a_curve_was_evaluated() -> None:
    frame = curves({"gsm8k": 0.8}, method="ties")
    placed = in_place_of_draws(frame[frame["ratio"].isin(["plain", "mixup"])], responses(frame, PARENTS))
    said = unwrapped(FIGURES["figure1a"].draw(Data({"table1": placed}, PARENTS))).replace("\n", " ")
    assert "M3: the expectation over λ, from response curves." in said
    assert "draws" not in said


def test_the_heat_maps_means_of_ten_draws_are_one_family() -> None:
    lines = [line("gsm8k", 0.5)]
    for alpha in (0.5, 1.0):
        of: dict[str, Any] = {"ratio": "mixup", "alpha": alpha}
        lines += [line("gsm8k", 0.9, draw=k, lam=alpha / 10 + k / 50, **of) for k in range(10)]
    figure = FIGURES["heatmap"].draw(Data({"alpha_grid": framed(lines)}, PARENTS))
    assert len([p for p in figure.axes[0].patches if not p.get_fill()]) == 2
    assert "after Holm over the 2 means of draws here" in unwrapped(figure)
    assert "Each the mean of 10 draws of λ." in written(figure)


def test_one_draw_is_called_one_and_missing_cells_are_hatched() -> None:
    lines = [line("gsm8k", 0.5)]
    lines += [line("gsm8k", 0.9, ratio="mixup", alpha=a, draw=0, lam=0.2 + a / 10) for a in (0.5, 1.0)]
    lines.append(missing(line("gsm8k", 0.9, ratio="mixup", alpha=2.0, draw=0, lam=0.7)))
    figure = FIGURES["heatmap"].draw(Data({"alpha_grid": framed(lines)}, PARENTS))
    assert numbers(figure) == ["+40.0", "+40.0"]
    assert len([p for p in figure.axes[0].patches if p.get_hatch()]) == 1
    assert not [p for p in figure.axes[0].patches if not p.get_fill()], "of one draw nothing is claimed"
    assert "No outline, 2 cells: fewer than 10 draws" in unwrapped(figure)
    assert "Each ONE draw of λ" in written(figure)
    assert "Hatched, not run: LM & Math TIES GSM8K" in written(figure)


def test_draws_alone_are_compared_with_the_plain_cells_of_the_other_sweep() -> None:
    draws = framed([line("gsm8k", 0.9, ratio="mixup", alpha=a, draw=0, lam=0.2 + a / 10) for a in (0.5, 1.0)])
    plain = framed([line("gsm8k", 0.5), missing(line("gsm8k", 0.5, ratio="grid", lam=0.0))])
    figure = FIGURES["heatmap"].draw(Data({"alpha_grid": draws, "lambda_response": plain}, PARENTS))
    assert numbers(figure) == ["+40.0", "+40.0"]
    assert "Each ONE draw of λ" in written(figure)


# ------------------------------------------------------------------------------------------------------ the response


@pytest.mark.slow
def test_the_response_figure_draws_the_curves_relative_to_the_better_parent() -> None:
    found = study(curves({"gsm8k": -0.8, "alpaca_eval": 0.6}))
    figure = drawing.draw_response(found)
    main, below, right = figure.axes
    drawn = {str(x.get_label()): x for x in main.lines}
    falling, rising = (np.array([0.5 + s * (x - 0.5) for x in grid(9)]) for s in (-0.8, 0.6))
    falling, rising = (
        np.array([np.mean((np.arange(N) + 0.5) / N < p) for p in shares]) for shares in (falling, rising)
    )
    relative = np.array([100 * falling / falling[0], 100 * rising / rising[-1]])
    assert drawn["GSM8K"].get_xdata() == pytest.approx(np.array(grid(9)))
    assert drawn["GSM8K"].get_ydata() == pytest.approx(relative[0])
    assert drawn["AlpacaEval"].get_ydata() == pytest.approx(relative[1])
    for label, combined in (("mean", relative.mean(axis=0)), ("minimum", relative.min(axis=0))):
        at = np.interp(grid(9), np.asarray(drawn[label].get_xdata()), np.asarray(drawn[label].get_ydata()))
        assert at == pytest.approx(combined)
        assert drawn[label].get_linewidth() > drawn["GSM8K"].get_linewidth()
    open_points = [x for x in main.lines if x.get_markerfacecolor() == "white"]
    assert [x.get_xdata()[0] for x in open_points] == [0.3, 0.3]  # type: ignore[index]
    assert open_points[0].get_ydata() == pytest.approx([100 * 0.66 / 0.9], abs=1.5)
    assert len(below.lines) == 7
    assert below.get_xlim() == main.get_xlim()
    assert {str(t.get_text()) for t in main.texts} >= {"mean", "minimum", "GSM8K", "better parent", "plain, mean"}
    mean = next(c for c in found.comparisons if c.objective == "mean")
    assert mean.plain is not None
    values = [mean.plain, *mean.expected.values(), mean.replay.honest, mean.tuned.honest]
    expected = np.array([(100 * v.value, 100 * v.low, 100 * v.high) for v in values])
    assert np.array(bars(right, "mean")) == pytest.approx(expected)
    assert hollow(right, "mean") == pytest.approx([100 * mean.replay.claimed.value, 100 * mean.tuned.claimed.value])
    assert "those of E also hold which λ were sampled." in unwrapped(figure)
    assert "λ = 1/2" in {str(t.get_text()) for t in main.texts}
    assert any(list(map(float, x.get_xdata())) == [0.5, 0.5] for x in main.lines), "a line at lambda = 1/2"


@pytest.mark.slow
def test_the_node_that_development_items_chose_has_a_row_where_there_are_some() -> None:
    known = responses(curves({"gsm8k": -0.8, "alpaca_eval": 0.6}), PARENTS)
    found = ways.study(known, dev={r.benchmark: r for r in known}, repeats=200, resamples=100)
    figure = drawing.draw_response(found)
    right = figure.axes[2]
    assert row_names(right)[-1] == "on dev items"
    mean = next(c for c in found.comparisons if c.objective == "mean")
    assert mean.developed is not None
    score = mean.developed.score
    assert bars(right, "mean")[-1] == pytest.approx([100 * x for x in (score.value, score.low, score.high)])
    assert "Best node: chosen on development items." in written(figure).replace("\n  ", " ")
    assert "on dev items" not in row_names(drawing.draw_response(study(curves({"gsm8k": -0.8}))).axes[2])


@pytest.mark.slow
def test_bands_hold_their_curve() -> None:
    for drawn in drawing.lines(study(curves({"gsm8k": -0.8, "alpaca_eval": 0.6}))):
        assert np.all(drawn.low <= drawn.middle + 1e-9)
        assert np.all(drawn.middle <= drawn.high + 1e-9)
        assert np.all(drawn.high[1:-1] > drawn.low[1:-1])


def test_one_benchmark_is_in_percent_of_its_items() -> None:
    figure = drawing.draw_response(study(curves({"gsm8k": -0.8}, plain=False)))
    main, _, right = figure.axes
    assert main.get_ylabel() == "score (%)"
    assert {str(x.get_label()): x for x in main.lines}["GSM8K"].get_ydata()[0] == pytest.approx(90.0)  # type: ignore[index]
    assert "better parent (math)" in written(figure)
    assert len(bars(right, "GSM8K")) == 9, "plain was not run: no marker"
    assert row_names(right)[0] == "plain"


@pytest.mark.slow
def test_a_benchmark_without_its_parents_is_named_and_not_drawn() -> None:
    frame = curves({"gsm8k": -0.8, "alpaca_eval": 0.6, "mbpp": 0.3})
    frame = frame[(frame["benchmark"] != "mbpp") | (frame["method"] != "single")]
    figure = drawing.draw_response(study(frame))
    assert "MBPP" not in {x.get_label() for x in figure.axes[0].lines}
    assert "mbpp is not in mean and minimum: its parents are not evaluated on all its items" in written(figure).replace(
        "\n  ", " "
    )


@pytest.mark.slow
def test_a_tiny_parent_does_not_push_everything_else_out_of_sight() -> None:
    frame = pd.concat([curves({"gsm8k": -0.8, "alpaca_eval": 0.6}), curves({"mbpp": 0.0}).assign(values=None)])
    few = {(str(i), 0): float(i == 0) for i in range(N)}
    frame["values"] = [few if values is None else values for values in frame["values"]]
    figure = drawing.draw_response(study(framed(frame)))
    assert figure.axes[0].get_ylim()[1] < 200
    assert figure.axes[2].get_xlim()[1] < 200


def test_names_move_apart_no_further_than_needed() -> None:
    assert drawing.apart([0.0, 5.0, 9.0], 1.0, (0, 10)) == [0.0, 5.0, 9.0]
    assert drawing.apart([5.0, 5.0, 5.0], 1.0, (0, 10)) == pytest.approx([4.0, 5.0, 6.0])
    assert drawing.apart([9.9, 10.0, 0.0], 1.0, (0, 10)) == pytest.approx([9.0, 10.0, 0.0])
    generator = np.random.default_rng(0)
    for _ in range(50):
        wanted = generator.uniform(0, 10, 9)
        found = drawing.apart(list(wanted), 0.7, (0, 10))
        assert np.all(np.diff(np.sort(found)) > 0.7 - 1e-9)
        assert list(np.argsort(found)) == list(np.argsort(wanted))
        assert min(found) > -1e-9
        assert max(found) < 10 + 1e-9


# ------------------------------------------------------------------------------------------------ refusals and files


@pytest.mark.parametrize("name", [name for name, spec in FIGURES.items() if spec.sweeps])
def test_nothing_to_draw_is_refused_with_what_to_run(name: str) -> None:
    with pytest.raises(M3Error, match="sweeps=") as error:
        FIGURES[name].draw(Data({}, PARENTS))
    assert "\n" not in str(error.value)


def test_an_alpha_that_was_not_run_is_refused() -> None:
    with pytest.raises(M3Error, match=r"ratio.alpha=2; there are 0.5"):
        at_alpha(full()["table1"], 2.0)


def test_several_hyperparameters_are_refused() -> None:
    frame = table1()
    frame.loc[frame["pair"] == "lm_math", "params"] = "retain 0.5"
    both = pd.concat([frame, table1()])
    with pytest.raises(M3Error, match="choose one with method"):
        FIGURES["figure1c"].draw(Data({"table1": both}, PARENTS))


def test_a_curve_that_lost_a_node_is_refused_by_name() -> None:
    lines = curves({"gsm8k": -0.8, "alpaca_eval": 0.6}).to_dict("records")
    at = ("gsm8k", 0.125, "grid")
    lost = framed([missing(x) if (x["benchmark"], x["lam"], x["ratio"]) == at else x for x in lines])
    said = "lm_math average gsm8k: no expectation, 1 of 9 nodes without a result (lambda 0.125)"
    figure = FIGURES["response"].draw(Data({"lambda_response": lost}, PARENTS))
    assert said in unwrapped(figure)
    assert "GSM8K" not in {str(t.get_text()) for t in figure.axes[0].texts}
    with pytest.raises(M3Error, match=re.escape(said)):
        FIGURES["response"].draw(Data({"lambda_response": lost[lost["benchmark"] == "gsm8k"]}, PARENTS))


def test_response_asks_which_of_several_curves() -> None:
    both = pd.concat([curves({"gsm8k": -0.8}), curves({"gsm8k": -0.5}, method="ties")])
    with pytest.raises(M3Error, match="choose with pair="):
        FIGURES["response"].draw(Data({"lambda_response": both}, PARENTS))


@pytest.mark.slow
def test_files_are_named_by_their_suffix_and_have_the_same_bytes(tmp_path: Path) -> None:
    made: dict[str, bytes] = {}
    for folder in ("one", "two"):
        figure = FIGURES["pdr"].draw(Data({"table2": adversarial()}, PARENTS, PUBLISHED))
        for out in (None, Path("x.pdf")):
            target = tmp_path / folder / ("pdr" if out is None else out)
            for path in palette.save(figure, "pdr", target):
                assert made.setdefault(path.name, path.read_bytes()) == path.read_bytes(), path
    assert sorted(made) == ["pdr.png", "pdr.svg", "x.pdf"]
    assert b"Type 3" not in made["x.pdf"]
    with pytest.raises(M3Error, match=r"allowed: .svg, .pdf, .png"):
        palette.save(figure, "pdr", tmp_path / "x.jpg")


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    frame = curves({"gsm8k": -0.8, "alpaca_eval": 0.6})
    frame.to_pickle(tmp_path / "frame")
    code = (
        "from pathlib import Path; import pandas; from m3_exp.reporting.figures.catalogue import *;"
        f"data = Data({{'lambda_response': pandas.read_pickle({str(tmp_path / 'frame')!r})}}, {PARENTS!r});"
        f"palette.save(FIGURES['heatmap'].draw(data), 'f', Path({str(tmp_path / 'f.svg')!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={"PYTHONHASHSEED": "7", "PATH": ""})
    palette.save(FIGURES["heatmap"].draw(Data({"lambda_response": frame}, PARENTS)), "g", tmp_path / "g.svg")
    assert (tmp_path / "f.svg").read_bytes() == (tmp_path / "g.svg").read_bytes()


def test_marks_differ_in_grey_too() -> None:
    marks = [palette.benchmark(name) for name in BENCHMARKS]
    assert len({mark.marker for mark in marks}) == len(marks)
    assert palette.name("a_benchmark_of_ours_with_quite_a_long_name") == "a benchm…ong name"


def test_draws_give_way_to_the_expectation_where_a_grid_was_evaluated() -> None:
    frame = curves({"gsm8k": 0.8})
    known = responses(frame, PARENTS)
    (row,) = in_place_of_draws(frame[frame["ratio"] == "mixup"], known).to_dict("records")
    assert row["score"] == pytest.approx(100 * known[0].curve.expected(0.5).mean())
    alone = responses(curves({"gsm8k": 0.8}, more=False), PARENTS)
    (straight,) = in_place_of_draws(frame[frame["ratio"] == "mixup"], alone).to_dict("records")
    assert (straight["low"], straight["high"]) == pytest.approx(ends(list(alone[0].curve.expected(0.5))))
    assert len(row["values"]) == len(known[0].curve.ids)
    plain = frame[frame["ratio"] != "mixup"]
    assert len(in_place_of_draws(frame, known)) == len(plain) + 1
    assert len(in_place_of_draws(frame, [])) == len(frame)
