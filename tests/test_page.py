"""The report page: what goes into it, and what a browser makes of it (headless Chromium, from file://, offline)."""

import json
import re
import shutil
import zlib
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3_exp.merging.ratio import grid, sampled
from m3_exp.reporting import table
from m3_exp.reporting.choices import ways
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import grouped, responses
from m3_exp.reporting.data import dataframe
from m3_exp.reporting.page import CellData, Item, PageData, build, shown
from m3_exp.reporting.page import curves as page_curves
from m3_exp.reporting.page import tables as page_tables
from m3_exp.reporting.page.cells import DROPPED, ITEMS_DROPPED
from m3_exp.reporting.table import Column, Figure, Table, words
from m3_exp.reporting.tables import paper
from m3_exp.reporting.tables.rows import Shown
from m3_exp.types import Cell, CellResult, EvaluatorSpec, Json, Label, Recipe, Score, Source, identity
from tests import test_advice
from tests.records import looked_up

pytestmark = pytest.mark.slow  # the whole page takes ten seconds, then a browser

HOSTILE = '</script><img src=x onerror="window.hacked=1"><script>window.hacked=2</script>'
BENCHMARKS = ("alpaca_eval", "gsm8k", "hendrycks_math")
N = 60
_METRICS = {"alpaca_eval": "win rate"}


def share(benchmark: str, lam: float, method: str) -> float:
    """Return how much of a benchmark a merge gets right: the first expert is good at instructions only."""
    dip = 0.25 * np.sin(np.pi * lam) * (1 if method == "average" else -0.3)
    return float((0.15 + 0.6 * lam if benchmark == "alpaca_eval" else 0.75 - 0.65 * lam) - dip + 0.05)


def record(benchmark: str, wanted: float, weights: str) -> Json:
    """A stored result on N items, one of them hostile."""
    ease = np.random.default_rng(len(benchmark)).permutation(N)
    values = [float((ease[i] + 0.5) / N < wanted) for i in range(N)]
    scores = [
        {"id": str(i), "sample": 0, "value": value, "extracted": HOSTILE if i == 3 else str(7 * i), "notes": {},
         "reason": None if value else f"gold is {7 * i + 1}"}
        for i, value in enumerate(values)
    ]  # fmt: skip
    score = 100 * float(np.mean(values))
    return {
        "result": {"benchmark": benchmark, "metric": _METRICS.get(benchmark, "accuracy"), "score": score,
                   "low": -7.0, "high": 700.0, "n": N, "n_scored": N, "n_unscored": 0,
                   "settings": {}, "details": {"no_answer_found": 2}},
        "scores": scores, "items": "lab", "items_digest": "d" * 64, "answers": "a" * 64, "weights": weights,
        "recipe_key": "e" * 64, "runs": ["one"], "sampling": {"max_tokens": 40, "stops": []},
        "engine": {"engine": "vllm", "version": "0.32.0", "dtype": "float32"}, "tokenizer": "models/base",
        "evaluator": {"name": benchmark, "version": "2", "items": "lab", "settings": {"extractor": "paper"}},
    }  # fmt: skip


def found(label: Label, benchmark: str, wanted: float | None, failure: str | None = None) -> CellResult:
    weights = None if label.lam is None else (label.lam, 1 - label.lam)
    recipe = Recipe(Source("models/base"), (Source("models/lm"), Source("models/math")), label.method, weights=weights)
    spec = EvaluatorSpec(benchmark, f"evaluators.{benchmark}:It", {"extractor": "paper"}, "lab", "math")
    cell = Cell(replace(recipe, params={"pair": float(len(label.pair))}), spec, Source("models/base"), (label,),
                Source("models/lm"))  # fmt: skip
    digest = identity([label.pair, label.method, label.ratio, label.lam])
    return looked_up(cell, None if wanted is None else record(benchmark, min(1.0, wanted), digest), failure)


def world() -> list[CellResult]:
    """Two experts, two methods with a curve, plain, three draws, and one cell that failed.

    Sampled lambdas stand beside the nodes of average only; one draw is all but one expert.
    """
    lines: list[CellResult] = []
    for benchmark in BENCHMARKS:
        for pair, lam in (("lm", 1.0), ("math", 0.0)):
            lines.append(
                found(Label("lab", pair, "single", "plain", "none"), benchmark, share(benchmark, lam, "single"))
            )
        for method in ("average", "task_arithmetic"):
            failure = (
                "the engine died on this item: out of memory" if (method, benchmark) == ("average", "gsm8k") else ""
            )
            plain = Label("lab", "lm_math", method, "plain", "none")
            lines.append(found(plain, benchmark, None if failure else share(benchmark, 0.5, method), failure or None))
            for draw, lam in enumerate((0.31, 0.0001, 0.77)):
                label = Label("lab", "lm_math", method, "mixup", "none", alpha=0.5, draw=draw, lam=lam)
                lines.append(found(label, benchmark, share(benchmark, lam, method)))
            merges = [("grid", lam) for lam in grid(9)]
            merges += [("sampled", lam) for lam in sampled(0, 16)] if method == "average" else []
            for ratio, lam in merges:
                label = Label("lab", "lm_math", method, ratio, "none", lam=lam)
                lines.append(found(label, benchmark, share(benchmark, lam, method)))
    return lines


def cell_data(one: CellResult) -> CellData:
    command = "m3 run sweeps=table1"
    items = () if one.record is None else tuple(map(_item, one.record.scores))
    return CellData(one.cell, one.record, one.failure, "m3 merge family=lab out=DIR", command, items)


def _item(score: Score) -> Item:
    number = int(score.id)
    answer = HOSTILE if number == 3 else f" {number} boxes hold 7 pens each.\nThe answer is: {7 * number}"
    prompt = f"Below is an instruction.\n\n### Instruction:\nHow many pens are in {number} boxes?\n\n### Response:"
    return Item(score.id, prompt, answer, score.value, 0, score.extracted, score.reason, "stop", 18)


def studies_of(lines: Sequence[CellResult]) -> list[ways.Study]:
    known = grouped(responses(dataframe.tidy(lines), {"lm_math": ["lm", "math"]}))
    return [ways.study(group, repeats=200, resamples=100) for group in known]


def page_data() -> PageData:
    lines = world()
    tidy, experts = dataframe.tidy(lines), {"lm_math": ["lm", "math"]}
    return PageData(
        title="Table 1 of the lab", command="m3 run sweeps=table1", rebuild="m3 report sweeps=table1",
        made="2026-11-22 03:20 UTC",
        tables=(
            paper.build("table1", Shown(tidy[~tidy["ratio"].isin(["grid", "sampled"])], experts=experts)),
            paper.build("lambda_response", Shown(tidy, experts=experts)),
        ),
        studies=tuple(map(shown, studies_of(lines))),
        cells=tuple(map(cell_data, lines)),
        models={"base": "models/base", "lm": "models/lm"}, experts=experts,
        versions={"m3_exp": "0.1.0", "vllm": "0.32.0"},
        notes=("2 of 80 cells are the same as another and run once",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data() -> PageData:
    return page_data()


@pytest.fixture(scope="module")
def studies() -> list[ways.Study]:
    return studies_of(world())


@pytest.fixture(scope="module")
def text(data: PageData) -> str:
    return build(data)


@pytest.fixture(scope="module")
def cells_alone(data: PageData) -> PageData:
    """The page without curves, which take seconds: for what is true of its cells."""
    return replace(data, studies=())


def packed(text: str, name: str) -> Any:
    """Read a pack back as the page does."""
    held = re.search(rf'<script type="text/plain" data-pack="{name}">([^<]*)</script>', text)
    assert held, name
    return json.loads(zlib.decompress(b64decode(held[1])))


# --------------------------------------------------------------------------------------------------------- the file


def test_the_page_is_self_contained_and_small(text: str) -> None:
    assert len(text) < 10_000_000
    assert "default-src 'none'" in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', text), "nothing is fetched"
    assert text.count("<script>") == 1, "one script, and data that no browser runs"


def test_the_first_words_stand_above_all_else(data: PageData) -> None:
    sentences = ("No merge beats <lm>.", "Random against tuned is not known (no draws): m3 run sweeps=a 'b=c d'")
    page = build(replace(data, first=sentences))
    start = page[page.index('<section id="overview"') :]
    assert start.index('<p class="first">No merge beats &lt;lm&gt;.</p>') < start.index(" cells: ")
    assert "is not known (no draws): <code>m3 run sweeps=a &#x27;b=c d&#x27;</code></p>" in start
    assert '<p class="first">' not in build(data)


def test_the_same_data_give_the_same_page(data: PageData, text: str) -> None:
    assert build(data) == text


def test_what_a_model_wrote_is_nowhere_in_the_markup(text: str) -> None:
    assert "onerror" not in text
    assert "boxes hold" not in text


def test_a_cell_keeps_its_items(data: PageData, text: str) -> None:
    one = data.cells[0]
    held = packed(text, f"cell-{one.key}")
    assert [item[0] for item in held["items"]] == [item.id for item in one.items]
    assert held["items"][3][8] == HOSTILE
    prompts = packed(text, "prompts-alpaca_eval")
    assert prompts[str(held["items"][5][9])] == one.items[5].prompt
    assert len(prompts) == N, "a prompt that all cells share is held once"


def test_texts_of_the_largest_cells_go_first_and_the_page_says_so(cells_alone: PageData) -> None:
    data, text = cells_alone, build(cells_alone)
    noise = np.random.default_rng(0).integers(32, 127, size=(N, 3000), dtype=np.uint8)
    long = replace(data.cells[0], items=tuple(
        replace(item, answer=bytes(noise[i]).decode()) for i, item in enumerate(data.cells[0].items)
    ))  # fmt: skip
    small = build(replace(data, cells=(long, *data.cells[1:])), limit=len(text) + 50_000)
    assert len(small) <= len(text) + 50_000
    held = packed(small, f"cell-{long.key}")
    assert held["note"] == DROPPED
    assert [item[8] for item in held["items"]] == [None] * N
    assert [item[2] for item in held["items"]] == [item.value for item in long.items], "scores stay"
    assert packed(small, f"cell-{data.cells[1].key}")["items"][5][8] == data.cells[1].items[5].answer
    assert "the prompts and answers of 1 of" in small
    assert small.count("done (no texts)") == 1
    assert "are left out" not in text


def test_a_page_of_too_many_cells_says_that_items_are_left_out(cells_alone: PageData) -> None:
    first, *others = cells_alone.cells
    bare = [replace(cell, items=(), note=ITEMS_DROPPED) for cell in others]
    text = build(replace(cells_alone, cells=(first, *bare)))
    assert f"The items of {len(bare)} of {len(cells_alone.cells)} cells are left out" in text
    held = packed(text, f"cell-{bare[0].key}")
    assert (held["items"], held["note"]) == ([], ITEMS_DROPPED)
    assert packed(text, f"cell-{first.key}")["items"]
    assert "The items of" not in build(cells_alone)


def test_a_page_without_anything_says_what_is_missing(data: PageData) -> None:
    missing = [cell_data(CellResult(cell.cell, None)) for cell in data.cells]
    empty = build(replace(data, tables=(), studies=(), cells=tuple(missing)))
    assert "There is no curve" in empty
    assert "No table was asked for" in empty
    assert f"<strong>{len(missing)}</strong> left" in empty


def test_looked_up_expectations_are_the_response_engines(studies: list[ways.Study], text: str) -> None:
    held = packed(text, "curves")
    for study, drawn in zip(studies, held["studies"], strict=True):
        for response, line in zip(study.responses, drawn["score"], strict=True):
            for alpha in (0.2, 1.0, 5.0):
                at = held["alphas"].index(alpha)
                exact = 100 * float(response.curve.expected(alpha).mean())
                assert line["e"][at] == pytest.approx(exact, abs=0.006)
                by_nodes = float(
                    np.dot(line["weights"][at], [line["at"][line["lams"].index(x)] for x in line["nodes"]])
                )
                if response.curve.sampled is None:
                    assert by_nodes == pytest.approx(exact, abs=0.05), "node weights and nodes give it too"
                known = expectations.expected(response, alpha).scaled(100)
                shown_ends = line["e_low"][at], line["e_high"][at]
                assert shown_ends == pytest.approx((known.low, known.high), abs=0.006)
                assert 0 <= shown_ends[0] < line["e"][at] < shown_ends[1] <= 100
        names = [line["key"] for line in drawn["relative"]]
        assert names[-2:] == ["mean", "minimum"]
        for compared, line in zip(study.comparisons[-2:], drawn["relative"][-2:], strict=True):
            assert line["e"][held["alphas"].index(0.5)] == pytest.approx(100 * compared.expected[0.5].value, abs=0.2)


def test_every_alpha_minus_plain_is_that_of_all_other_places(studies: list[ways.Study], text: str) -> None:
    held = packed(text, "curves")
    for study, drawn in zip(studies, held["studies"], strict=True):
        against = expectations.against_plain(study.responses)
        for response, line in zip(study.responses, drawn["score"], strict=True):
            assert line["corrected"] == (response.curve.sampled is not None)
            if response.plain is None:
                assert set(line["gain"]) == {None}
                assert set(line["marks"]) == {""}
                continue
            assert all(-100 <= low < high <= 100 and low <= value <= high for value, low, high in line["gain"])
            for number, alpha in enumerate(held["marked"]):
                known = against[response.benchmark, alpha]
                one = known.estimate.scaled(100)
                at = held["alphas"].index(alpha)
                assert line["gain"][at] == pytest.approx([one.value, one.low, one.high], abs=0.006)
                assert line["marks"][number] == known.mark
    average, arithmetic = held["studies"]
    assert "max-T over the 14 alphas x benchmarks" in average["claims"]["signs"], "plain failed on gsm8k"
    assert average["claims"]["why"] == ""
    assert {"worse", "untold"} & set(average["score"][0]["marks"])
    assert arithmetic["claims"]["why"] == expectations.NO_SAMPLED
    assert {mark for line in arithmetic["score"] for mark in line["marks"]} == {""}


def test_draws_that_are_all_but_one_expert_are_named(data: PageData, text: str) -> None:
    line = packed(text, "curves")["studies"][0]["score"][0]
    assert [draw["said"] for draw in line["draws"]] == ["", "99.99 % math", ""]
    assert "λ = 0.0001 (99.99 % math), 0.31, 0.77" in text, "in the dialog of the value"
    assert "lm_math alpha 0.5 draw 1: 99.99 % math" in text, "and below the table"


def test_an_interval_stored_with_a_result_changes_nothing(cells_alone: PageData) -> None:
    data, text = cells_alone, build(cells_alone)

    def edited(one: CellData) -> CellData:
        if one.record is None:
            return one
        return replace(one, record=replace(one.record, result=replace(one.record.result, low=1.0, high=2.0)))

    assert build(replace(data, cells=tuple(map(edited, data.cells)))) == text
    first = packed(text, f"cell-{data.cells[0].key}")["score"]
    assert re.fullmatch(r"(\d+\.\d) % \[\d+\.\d, \d+\.\d\], win rate, 60 items", first)


def test_tables_with_three_columns_a_benchmark_keep_their_records(data: PageData) -> None:
    columns = [Column(f"cola {what}", (), "prompt_bench_cola", what) for what in ("no attack", "attack", "PDR")]
    record = {"benchmark": "prompt_bench_cola", "lambda": [], "n": 96, "n_unscored": 2}
    figures = (Figure(80.0), Figure(60.0, 50.0, 70.0), Figure(25.0))
    shown = Table(
        "table2", (Column("method"), *columns),
        ((words("average"), *(table.Cell((), f, record=record) for f in figures)),), ("A note.",),
    )  # fmt: skip
    assert shown.records == (record,)
    markup = page_tables.render(shown, data.cells)
    assert markup.count("96 items, 2 unscored") == 3
    assert "CoLA PDR" in markup


def test_alphas_are_even_and_hold_the_papers() -> None:
    assert set(page_curves.PAPER) <= set(page_curves.ALPHAS.tolist())
    assert len(page_curves.ALPHAS) == 121
    assert (np.diff(page_curves.ALPHAS) > 0).all()


# -------------------------------------------------------------------------------------------------------- a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with (
        sync_api.sync_playwright() as driver,
        driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def address(text: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("page") / "index.html"
    file.write_text(text, encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """An open page; afterwards: no console error, no request but the file itself, nothing hostile ran."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    opened.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(address)
    yield opened
    assert opened.evaluate("window.hacked") is None
    assert complaints == []
    assert {url.split("#")[0] for url in requests if not url.startswith(("data:", "blob:"))} == {address}
    context.close()


def curves_drawn(page: Any) -> None:
    page.locator("#curves").scroll_into_view_if_needed()
    page.wait_for_selector("#chart .main-svg")


def test_the_slider_moves_the_number_and_the_density(page: Any) -> None:
    curves_drawn(page)
    page.check("input[name=unit][value=score]")
    number = page.locator("#expected tr[data-line=gsm8k] td").first
    assert page.locator("#alpha-value").inner_text() == "0.5"
    before, drawn = number.inner_text(), page.locator("#chart .main-svg").first.inner_html()
    page.focus("#alpha")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert float(page.locator("#alpha-value").inner_text()) > 0.9
    assert number.inner_text() != before
    page.wait_for_function("before => document.querySelector('#chart .main-svg').innerHTML !== before", arg=drawn)
    page.click("#alphas >> text='0.5'")
    assert number.inner_text() == before


def test_the_slider_says_what_is_claimed_and_what_not(page: Any) -> None:
    curves_drawn(page)
    page.check("input[name=unit][value=score]")
    cells = page.locator("#expected tr[data-line=alpaca_eval] td")
    said = page.locator("#claims")
    assert re.fullmatch(r"\d+\.\d", cells.first.inner_text())
    assert re.fullmatch(r"\[\d+\.\d, \d+\.\d\]", cells.nth(1).inner_text())
    assert re.fullmatch(r"[−+]\d+\.\d \[[−+]\d+\.\d, [−+]\d+\.\d\] [▲▼≈]", cells.nth(5).inner_text())
    assert "max-T over the 14 alphas x benchmarks" in said.inner_text()
    page.focus("#alpha")
    page.keyboard.press("ArrowRight")
    assert "No sign at this α" in said.inner_text()
    assert re.fullmatch(r"[−+]\d+\.\d \[[−+]\d+\.\d, [−+]\d+\.\d\]", cells.nth(5).inner_text())
    page.keyboard.press("End")
    assert "Nothing is claimed at this α: sampled mixtures correct alphas from 0.2 to 5 only" in said.inner_text()
    assert cells.first.inner_text().endswith(" E*")
    page.click("#alphas >> text='0.5'")
    page.select_option("#study", "1")
    assert "Nothing is claimed of E − plain: the curve has no sampled mixtures" in said.inner_text()
    assert page.locator("#expected tr[data-line=gsm8k] td").first.inner_text().endswith(" E*")
    assert "α = 0.5 draw 1: 99.99 % math" in page.locator("#explained").inner_text()


def test_another_study_and_unit(page: Any) -> None:
    curves_drawn(page)
    assert page.locator("#expected tbody tr").count() == len(BENCHMARKS) + 2, "mean and minimum too"
    first = page.locator("#expected").inner_text()
    page.select_option("#study", "1")
    assert page.locator("#expected").inner_text() != first


def test_headers_sort(page: Any) -> None:
    head = page.locator("#tables table").first.locator("thead th", has_text="GSM8K")
    column = head.evaluate("th => th.cellIndex")

    def values() -> list[float]:
        cells = page.locator("#tables table").first.locator(f"tbody tr > :nth-child({column + 1})")
        return [float(v) for v in cells.evaluate_all("all => all.map(c => c.dataset.v)") if v is not None]

    planned = values()
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(planned, reverse=True)
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(planned)
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "none"
    assert values() == planned


def test_a_value_tells_its_interval_and_leads_to_its_cells(page: Any) -> None:
    row = page.locator("#tables table").first.locator("tbody tr", has_text="yes").first
    row.locator("button.value").first.hover()
    tip = page.locator("#tip").inner_text()
    assert "60 items" in tip
    assert "λ = 0.0001 (99.99 % math), 0.31, 0.77" in tip
    assert "α = 0.5" in tip
    assert "weights " in tip
    row.locator("button.value").first.click()
    assert page.locator("#detail a").count() == 3
    page.locator("#detail a").nth(1).click()
    page.wait_for_selector("#cell h1")
    assert "AlpacaEval" in page.locator("#cell h1").inner_text()


def test_a_cell_opens_and_its_items_can_be_read(page: Any) -> None:
    page.locator("#cell-list a").first.click()
    page.wait_for_selector("#cell .item")
    assert page.locator("#report").is_hidden()
    assert page.evaluate("document.activeElement.id") == "h-cell"
    page.locator("#cell li[data-item='5'] summary").click()
    body = page.locator("#cell li[data-item='5'] .body").inner_text()
    assert "How many pens are in 5 boxes?" in body
    assert "5 boxes hold 7 pens each." in body
    page.check("input[name=verdict][value=wrong]")
    wrong = page.locator("#cell li:not([hidden]) summary .verdict").all_text_contents()
    assert set(wrong) == {"✗ wrong"}
    page.check("input[name=verdict][value=all]")
    page.fill("#cell input[type=search]", "in 17 boxes")
    assert page.locator("#cell .filters [role=status]").inner_text() == f"1 of {N} items"
    page.go_back()
    page.wait_for_selector("#report:visible")
    page.wait_for_function("document.activeElement === document.querySelector('#cell-list a')")
    assert page.locator("#cell-list a").first.evaluate("a => a.getBoundingClientRect().top < innerHeight")


def test_hostile_text_is_only_text(page: Any) -> None:
    page.locator("#cell-list a").first.click()
    item = page.locator("#cell li[data-item='3']")
    item.locator("summary").click()
    assert item.locator("pre.model").inner_text() == HOSTILE
    item.locator("button", has_text="other cells").click()
    page.wait_for_selector(".across li")
    assert page.locator("#cell img, #cell script").count() == 0


def test_the_keyboard_alone_reaches_an_answer(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    seen = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        focus = page.evaluate("[document.activeElement.id, document.activeElement.hash ?? '']")
        seen.add(focus[0])
        if focus[1].startswith("#cell/"):
            break
    assert {"study", "alpha", "cell-filter"} <= seen
    page.keyboard.press("Enter")
    page.wait_for_selector("#cell .item")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.parentElement.className") == "item":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#cell .item[open] pre.model")


def test_arrow_keys_move_between_values(page: Any) -> None:
    buttons = page.locator("#tables table").first.locator("button.value")
    assert page.locator("#tables table").first.locator("button.value[tabindex='0']").count() == 1
    buttons.first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('tr').rowIndex") == 2
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_failures_name_their_reason_and_command(page: Any) -> None:
    shown = page.locator("#failures").inner_text()
    assert "the engine died on this item: out of memory" in shown
    assert "m3 run sweeps=table1" in shown


def test_unscored_and_partly_right_items_can_be_filtered(browser: Any, data: PageData, tmp_path: Path) -> None:
    first, second, *others = data.cells[0].items
    items = (replace(first, value=None, reason="the judge crashed"), replace(second, value=0.25), *others)
    file = tmp_path / "index.html"
    one = replace(data.cells[0], items=items)
    file.write_text(build(replace(data, tables=(), studies=(), cells=(one,))), encoding="utf-8")
    page = browser.new_page()
    page.goto(f"{file.as_uri()}#cell/{one.key}")
    page.wait_for_selector("#cell .item")
    page.check("input[name=verdict][value=unscored]")
    assert page.locator("#cell li:not([hidden]) summary .verdict").all_text_contents() == ["? unscored"]
    page.locator("#cell li:visible summary").click()
    assert "the judge crashed" in page.locator("#cell li:visible .body").inner_text()
    page.check("input[name=verdict][value=partly]")
    assert page.locator("#cell li:not([hidden]) summary .verdict").all_text_contents() == ["◐ 0.25"]
    page.close()


def test_the_dark_page_is_dark_and_prints_white(page: Any) -> None:
    background = "getComputedStyle(document.documentElement).backgroundColor"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == "rgb(21, 23, 26)"
    curves_drawn(page)
    page.emulate_media(media="print", color_scheme="light")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()


def test_nothing_is_wider_than_a_narrow_screen(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.locator("#cell-list a").first.click()
    page.wait_for_selector("#cell .item")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_benchmark_relative_to_the_one_parent_evaluated_stays_on_the_page() -> None:
    whole = test_advice.frame()
    one = whole[(whole["pair"] != "lm") | (whole["benchmark"] != "gsm8k")]
    study = ways.study(responses(one, test_advice.PARENTS), repeats=50, resamples=50)
    (found,) = page_curves.data([shown(study)])["studies"]
    assert [line["key"] for line in found["relative"]] == [*(r.benchmark for r in study.responses), "mean", "minimum"]
    assert found["experts"] == test_advice.PARENTS["lm_math"]
