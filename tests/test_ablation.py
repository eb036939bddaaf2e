"""`sweeps=layer_ablation`: the figure's points are paired gains over plain, and the sweep runs on the lab."""

from pathlib import Path

import pytest

from m3_exp import actions
from m3_exp.command_line import CommandLine
from m3_exp.reporting.figures import palette
from m3_exp.reporting.figures.catalogue import FIGURES
from m3_exp.reporting.figures.frames import Data
from m3_exp.types import M3Error, Part
from m3_exp.views import figures
from tests.curved import below, contrast, framed, tidy_row
from tests.test_figures import collisions

N = 40
LAMS = (0.0, 0.25, 0.5, 0.75, 1.0)
Line = dict[str, object]


def lines(method: str = "average", groups: int = 6, **more: object) -> list[Line]:
    """Return what an ablation gives: the last range gains, the first one loses, lambda 1/2 is plain."""
    found: list[Line] = []
    for benchmark in ("gsm8k", "hendrycks_math"):
        of = {"benchmark": benchmark, "method": method, **more}
        found.append(tidy_row(below(0.4, N), weights=f"plain {method}", parts=(), **of))
        for group in range(groups):
            for lam in LAMS:
                same = lam == 0.5
                share = 0.4 if same else 0.4 + (lam - 0.5) * (group - 2) / 10
                weights = f"plain {method}" if same else f"{group} {lam} {method}"
                part = Part(f"depth {group + 1}/{groups}", (lam, 1 - lam))
                of_part = {"ratio": f"ablation ({part.where} at {lam:g}, rest plain)", "parts": (part,)}
                found.append(tidy_row(below(share, N, shift=group), weights=weights, **of_part, **of))
    return found


def drawn(found: list[Line]) -> Data:
    return Data({"layer_ablation": framed(found)}, {"lm_math": ["lm", "math"]})


def test_each_point_is_the_paired_gain_over_plain(tmp_path: Path) -> None:
    figure = FIGURES["layer_ablation"].draw(drawn(lines()))
    palette.save(figure, "layer_ablation", tmp_path / "x.svg")
    assert collisions(figure) == []
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["GSM8K", "MATH"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [f"depth {k}/6" for k in range(1, 7)]
    bars = {bar.get_label(): bar for bar in figure.axes[0].containers}
    assert [*bars] == ["λ 0", "λ 0.25", "λ 0.75", "λ 1"]
    for lam in (0.0, 0.25, 0.75, 1.0):
        line = bars[f"λ {lam:g}"].lines[0]  # type: ignore[attr-defined]
        segments = bars[f"λ {lam:g}"].lines[2][0].get_segments()  # type: ignore[attr-defined]
        for group, (x, segment) in enumerate(zip(line.get_xdata(), segments, strict=True)):
            here = below(0.4 + (lam - 0.5) * (group - 2) / 10, N, shift=group)
            pair = [{str(i): value for i, value in enumerate(values)} for values in (here, below(0.4, N))]
            expected = contrast(*pair).scaled(100)
            assert x == pytest.approx(expected.value)
            assert [segment[0][0], segment[1][0]] == pytest.approx([expected.low, expected.high])
    said = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
    assert "λ 0.5 is plain" in said
    assert "paired by item, 48 comparisons not adjusted" in said


def test_it_asks_which_of_several_methods() -> None:
    with pytest.raises(
        M3Error, match=r"choose with pair=, method=, sparsify= among \['lm_math average', 'lm_math ties'"
    ):
        FIGURES["layer_ablation"].draw(drawn([*lines(), *lines("ties")]))


def test_without_a_score_it_says_what_to_run() -> None:
    with pytest.raises(M3Error, match="m3 run sweeps=layer_ablation"):
        FIGURES["layer_ablation"].draw(Data({}))
    with pytest.raises(M3Error, match="m3 run sweeps=layer_ablation"):
        FIGURES["layer_ablation"].draw(drawn(lines()[:1]))


@pytest.mark.slow
def test_the_sweep_runs_on_the_lab(tmp_path: Path) -> None:
    words = ("ratio.groups=2", "ratio.lams=[0,1]", "limit=4", "evaluator=[gsm8k]", f"store={tmp_path}")
    rehearsal = ("engine=recorded", "engine.answers=generated", "tracker=none")
    outcome = actions.run(CommandLine(("sweeps=layer_ablation", *words, *rehearsal)))
    assert not outcome.failures
    figure = figures.figure("layer_ablation", CommandLine((*words, *rehearsal)))
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["depth 1/2", "depth 2/2"]
    assert "REHEARSAL" in [text.get_text() for text in figure.texts]
