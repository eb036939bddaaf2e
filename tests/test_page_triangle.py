"""The triangle of three experts on the page: its numbers, and a real browser that moves alpha over it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from m3_exp.reporting.choices import ways, winning
from m3_exp.reporting.choices.protocols import expected
from m3_exp.reporting.curves import evaluated
from m3_exp.reporting.page import PageData, build, curves, shown
from m3_exp.stats.objective import Objective, Resampled
from m3_exp.stats.simplex import lattice
from tests import surfaced
from tests.test_page import packed

THREE = {"three": surfaced.EXPERTS[:3]}


@pytest.fixture(scope="module")
def study() -> ways.Study:
    frame = surfaced.frame({"gsm8k": surfaced.hill, "alpaca_eval": surfaced.tilt}, 60, draws=3)
    return ways.study(evaluated.responses(frame, THREE), repeats=50, resamples=20)


@pytest.fixture(scope="module")
def text(study: ways.Study) -> Iterator[str]:
    """A page with the paper's alphas alone, which takes seconds and not a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "ALPHAS", np.array(curves.PAPER))
        yield build(
            PageData("Three", "m3 run", "m3 report", "now", tables=(), studies=(shown(study),), cells=(), experts=THREE)
        )


def test_a_triangle_holds_the_numbers_of_the_picture(study: ways.Study, text: str) -> None:
    data = packed(text, "curves")
    own = data["studies"][0]
    assert own["mixtures"] is True
    assert [line["key"] for line in own["score"]] == ["gsm8k", "alpaca_eval"]
    assert [line["key"] for line in own["relative"]] == ["gsm8k", "alpaca_eval", "mean", "minimum"]
    drawn = {one.objective: one for one in winning.triangles(study)}
    for line in own["relative"][:3]:
        found = drawn[line["key"]]
        assert line["at"] == pytest.approx(found.score, abs=0.006)
        assert line["gains_low"] == pytest.approx(found.low, abs=0.006)
        assert len(line["at"]) == len(lattice(data["order"]).points)
        assert len(line["nodes"]) == len(line["weights"][0]) == 15
        assert len(line["sampled"]) == 16
        assert [sum(weights) for weights in line["weights"]] == pytest.approx([1] * 7, abs=0.002)
    least = own["relative"][3]
    assert "gains" not in least
    together = np.minimum(own["relative"][0]["at"], own["relative"][1]["at"])
    assert least["at"] == pytest.approx(together, abs=0.011)
    assert all(len(d["lam"]) == 3 for line in own["score"] for d in line["draws"])
    assert [len(line["draws"]) for line in own["score"]] == [3, 3]


def test_looked_up_expectations_are_the_response_engines(study: ways.Study, text: str) -> None:
    first = study.responses[0]
    objective = Objective(first.benchmark, (first.curve,))
    sample = Resampled.of(objective, 10, np.random.default_rng(0))
    e = packed(text, "curves")["studies"][0]["score"][0]["e"]
    assert e == pytest.approx([100 * expected([first], objective, sample, alpha).value for alpha in curves.PAPER],
                              abs=0.006)  # fmt: skip


@pytest.mark.slow
def test_alpha_moves_over_the_triangle(text: str, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    (tmp_path / "index.html").write_text(text, encoding="utf-8")
    with (
        sync_api.sync_playwright() as driver,
        driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        complaints: list[str] = []
        page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((tmp_path / "index.html").as_uri())
        page.locator("#chart").scroll_into_view_if_needed()
        page.wait_for_selector("#chart .main-svg")
        assert "Score of mean over the mixtures of three experts" in page.get_attribute("#chart", "aria-label")
        assert "Dirichlet(0.5, 0.5, 0.5)" in page.locator("#chart").inner_text()
        assert re.search(r"code {2}\d+\.\d", page.locator("#chart").inner_text())
        assert "λ" not in page.locator("#curves").inner_text()
        before = page.locator("#expected tr[data-line=gsm8k] td").first.inner_text()
        page.click("#alphas >> text='5'")
        page.wait_for_function("document.querySelector('#chart').innerText.includes('Dirichlet(5, 5, 5)')")
        assert page.locator("#expected tr[data-line=gsm8k] td").first.inner_text() != before
        page.check("input[name=line][value=alpaca_eval]")
        assert "No mixture is better than each expert alone" in page.locator("#explained").inner_text()
        page.wait_for_function("document.querySelector('#chart').getAttribute('aria-label').includes('AlpacaEval')")
        below = page.locator("#explained").bounding_box()["y"]
        chart = page.locator("#chart .main-svg").first.bounding_box()
        assert chart["y"] + chart["height"] <= below + 1, "the chart lies on the text"
        page.set_viewport_size({"width": 420, "height": 900})
        page.wait_for_function("document.documentElement.scrollWidth <= 420")
        assert complaints == []
