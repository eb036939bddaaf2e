"""The command line: exit codes, one-line errors, and commands that need no engine."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from m3_exp import actions, cli, config, planning
from m3_exp.command_line import CommandLine
from m3_exp.config import ROOT
from m3_exp.reporting.choices import ways
from m3_exp.reporting.tables.formats import markdown
from m3_exp.reporting.tables.rows import Shown
from m3_exp.store import Store
from m3_exp.types import CellResult, M3Error
from m3_exp.views import figures, lookup, status, studies, tables
from m3_exp.views.lookup import Lookup
from tests import test_figures
from tests.curved import framed
from tests.files import write_lines
from tests.models import Shape, write_three
from tests.records import looked_up
from tests.test_repeat import FIRST, write_answers
from tests.test_tables import record


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert f"\n  {command} " in text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("rum", "m3 rum is not a command (did you mean run?); there are run, runs, plan, merge"),
        ("run method=slurp", "method=slurp does not exist; allowed: average, consensus, fisher, "),
        ("run --no-such-option", "m3 run: "),
        ("merge", "out=DIR must be given"),
        ("merge -m method=average,ties out=x", "m3 merge takes one method"),
        ("merge family=local family.base=/no/such/dir family.experts=[/no/such/a] out=x", "/no/such"),
        ("table table99", "m3 table takes a name first, 'table99' is none; there are "),
        ("table", "there are alpha_grid, demo"),
        ("score mmlu x.jsonl", "mmlu is not a benchmark; there are alpaca_eval, gsm8k"),
        ("score gsm8k /no/such/file.jsonl", "/no/such/file.jsonl"),
        ("score gsm8k x.jsonl extractor", "'extractor' is not a setting"),
        ("score gsm8k x.jsonl colour=red", "gsm8k has the settings extractor, max_tokens"),
        ("run engine=recorded engine.answers=/no/such/store", "engine.answers=/no/such/store does not exist"),
        ("run items=/no/such/items.jsonl", "items=/no/such/items.jsonl is not a file"),
        ("plan store=README.md", "store=README.md is not a directory"),
    ],
)
def test_a_wrong_request_exits_2_with_one_line(
    line: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    store = [] if "store=" in line or line.split()[0] == "score" else [f"store={tmp_path / 'store'}"]
    store = store if line.split()[0] in ("run", "merge", "plan") else []
    assert cli.main([*line.split(), *store]) == 2
    captured = capsys.readouterr()
    (error,) = [text for text in captured.err.splitlines() if text.startswith("m3: ")]
    assert says in error
    assert "Traceback" not in captured.err


def test_score_counts_samples_and_exits_by_what_is_unscored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = tmp_path / "items.jsonl"
    rows = [{"question": "1 + 1?", "answer": "#### 2"}, {"question": "1 + 2?", "answer": "#### 3"}]
    write_lines(items, rows)
    answers = tmp_path / "answers.jsonl"
    lines = [
        {"id": "0", "text": "The answer is: 2"},
        {"id": "0", "text": "The answer is: 5"},
        {"id": "1", "text": "#### 3"},
    ]
    write_lines(answers, lines)
    out = tmp_path / "scores.jsonl"
    assert cli.main(["score", "gsm8k", str(answers), f"items={items}", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"benchmark", "metric", "score", "low", "high", "n", "n_scored", "n_unscored", "settings"}
    assert (found["benchmark"], found["n"], found["n_unscored"], found["score"]) == ("gsm8k", 2, 0, 25.0)
    assert [json.loads(line)["value"] for line in out.read_text().splitlines()] == [1.0, 0.0, 0.0]
    assert cli.main(["score", "gsm8k", str(answers), f"items={items}", "extractor=strict"]) == 0
    assert json.loads(capsys.readouterr().out)["score"] == 50.0
    answers.write_text('{"id": "7", "text": "x"}\n')
    assert cli.main(["score", "gsm8k", str(answers), f"items={items}"]) == 2


@pytest.mark.parametrize(
    ("line", "documents"),
    [
        ("doctor method=ties", ["name: ties"]),
        ("figure figure1a limit=7", ["limit: 7"]),
        ("response limit=7", ["nodes: 9"]),
        ("report limit=7", ["limit: 7"]),
    ],
)
def test_every_command_that_composes_prints_what_it_composes(
    line: str, documents: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*line.split(), "--cfg", "job"]) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in ("engine:", *documents))


def test_cfg_job_prints_the_composed_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "method=ties", "ratio=mixup", "--cfg", "job"]) == 0
    text = capsys.readouterr().out
    assert "method:\n  name: ties\n" in text
    assert "alpha: 0.5" in text


@pytest.mark.slow
def test_plan_shows_what_collapsed_and_a_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    axes = ["-m", "method=average,task_arithmetic", "method.scaling=0.5", "limit=8", f"store={tmp_path}"]
    assert cli.main(["plan", *axes, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["recipes"] == 1
    assert found["totals"]["cells"] == 3
    assert found["totals"]["answers_to_generate"] == 24
    assert found["totals"]["weights_bytes"] == 538_060_032
    assert {cell["state"] for cell in found["cells"]} == {"to do"}
    assert any("the same as another" in note for note in found["notes"])


@pytest.mark.slow
def test_doctor_looks_at_everything_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", f"store={tmp_path}", "--json"]) == 0
    findings = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["sandbox"]["ok"]
    assert findings["items gsm8k (lab)"]["ok"]
    gone = ["family=local", "family.base=/no", "family.experts=[/no]", "evaluator=gsm8k", "items=lab"]
    assert cli.main(["doctor", f"store={tmp_path}", *gone]) == 1
    assert "MISS model /no: /no does not exist: give a directory" in capsys.readouterr().out


@pytest.mark.slow
def test_secrets_do_not_reach_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_123")
    monkeypatch.setenv("WANDB_API_KEY", "wb_secret_456")
    assert cli.main(["plan", f"store={tmp_path}", "limit=2"]) == 0
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for text in (written.decode(errors="replace"), *capfd.readouterr()):
        assert not any(token in text for token in ("hf_secret_123", "wb_secret_456"))


# ------------------------------------------------------------------------------------------------- what is printed


def by_hand(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `m3 response` find a frame made by hand, and no development items."""

    def of(sweep: str, asked: CommandLine) -> Any:
        if "items=dev" in asked.overrides:
            raise M3Error("none")
        whole = asked.with_overrides(f"sweeps={sweep}", *asked.overrides)
        return SimpleNamespace(
            frame=lambda **_: frame, seed=0, parents={"lm_math": ("lm", "math")},
            request=SimpleNamespace(asked=whole, sweep=sweep, configs=()),
        )  # fmt: skip

    quick = ways.study
    for module in (lookup, studies):
        monkeypatch.setattr(module, "look_up_sweep", of)
    monkeypatch.setattr(ways, "study", lambda found, **more: quick(found, **more | {"repeats": 50, "resamples": 20}))


def without_a_node(*benchmarks: str) -> pd.DataFrame:
    lines = test_figures.curves({"gsm8k": -0.8, "alpaca_eval": 0.6}).to_dict("records")
    return framed([
        test_figures.missing(x) if x["benchmark"] in benchmarks and (x["ratio"], x["lam"]) == ("grid", 0.25) else x
        for x in lines
    ])  # fmt: skip


def test_response_says_which_curve_lacks_a_node(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "lm_math average gsm8k: no expectation, 1 of 9 nodes without a result (lambda 0.25)"
    by_hand(without_a_node("gsm8k"), monkeypatch)
    assert cli.main(["response", "pair=lm_math"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[4] == "lm_math average (lab): 9 lambdas; items: alpaca_eval 40", "after three sentences"
    assert out[-1] == said
    assert cli.main(["response", "pair=lm_math", "--json"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["pair"] for line in captured.out.splitlines()] == ["lm_math"]
    assert json.loads(captured.out)["summary"] == out[:3]
    assert said in captured.err
    by_hand(without_a_node("gsm8k", "alpaca_eval"), monkeypatch)
    assert cli.main(["response", "pair=lm_math", "method=average"]) == 2
    error = capsys.readouterr().err
    lacking = "1 of 9 nodes (lambda 0.25) of lm_math average have no result on gsm8k and alpaca_eval"
    first = "m3 run sweeps=lambda_response pair=lm_math method=average"
    assert error == f"m3: no curve for pair=lm_math method=average: {lacking}; first: {first}\n"
    assert cli.main(["response", "method=ties"]) == 2
    assert "no expectation" not in capsys.readouterr().err, "what was not asked for is not named"


def test_a_table_names_draws_by_the_requests_experts(tmp_path: Path) -> None:
    request = config.request(["sweeps=table1", "pair=lm_math", f"store={tmp_path}"])
    draw = {"ratio": "mixup", "alpha": 0.5, "draw": 1, "lam": 0.0001}
    extra = {"engine": "vllm", "evaluator": "gsm8k 2", "tokenizer": "t", "runs": 1, "merge": "m3 merge"}
    lines = framed([test_figures.line("gsm8k", 0.5, **draw, **extra)])
    built = tables.build(Lookup(request), lines)
    assert "Draws of lambda that are all but one expert: lm_math alpha 0.5 draw 1: 99.99 % math." in built.footer


def test_what_stands_behind_a_tables_draws_holds_plain_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it E - plain would be adjusted with the table's single models, and not as in m3 response."""

    def found(plan: Any, _: Store, **__: Any) -> list[CellResult]:
        return [looked_up(cell, record([1, 0, 1, float(i % 2)], cell, str(i))) for i, cell in enumerate(plan.cells)]

    monkeypatch.setattr(lookup, "look_up", found)
    request = config.request([
        "sweeps=table1", "pair=lm_math", "method=average", "sparsify=none", "evaluator=[gsm8k]", f"store={tmp_path}"
    ])  # fmt: skip
    looked = Lookup(request)
    assert looked.behind is not None
    assert looked.behind["ratio"].value_counts().to_dict() == {"sampled": 16, "grid": 9, "plain": 1}
    built = tables.build(looked, looked.frame(), looked.behind)
    mixed = next(r for r in built.records if r["ratio"] == "mixup")
    assert (mixed["question"], mixed["family"], mixed["nodes"], mixed["sampled"]) == ("expectation", 7, 9, 16)


@pytest.mark.slow
def test_every_draw_of_an_attacked_table_has_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["table", "table2", "--all", f"store={tmp_path}"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| task_arithmetic")]
    drawn = [row[5].strip() for row in rows if row[3].strip() == "yes"]
    assert len(rows) == 3 * 5
    assert len(set(drawn)) == 4, "the same four lambdas in every pair"


def test_the_line_that_asks_again_works_in_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "pair").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    looked = lookup.Lookup.of(CommandLine(("pair=lm_math", "method=ties"), config_dirs=(Path("mine"),)))
    folder = f"--config-dir={tmp_path / 'mine'}"
    assert looked.request.asked.line("run") == f"m3 run {folder} pair=lm_math method=ties"
    cell = looked.request.plan.cells[0]
    assert f" {folder} " in planning.merge_line(cell.labels[0], cell.recipe)


def test_the_list_of_choices_loads_no_library() -> None:
    code = "import sys; from m3_exp.cli import main; main(['plan', '--list']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert not any(f"'{heavy}'" in out.splitlines()[-1] for heavy in ("torch", "hydra", "numpy", "pandas"))


def test_the_line_of_another_sweep_keeps_what_was_asked() -> None:
    """Of models, store and items; its ratio and repeats are the sweep's own."""
    words = ("sweeps=table1", "family=mine", "store=/out", "ratio.alpha=1", "repeat=2", "items=dev", "method.scaling=2")
    asked = CommandLine(words, config_dirs=(Path("/more"),))
    assert asked.on_sweep("lambda_response").line("run") == (
        "m3 run --config-dir=/more sweeps=lambda_response family=mine store=/out items=dev method.scaling=2"
    )
    shown = Shown(pd.DataFrame(), asked=asked)
    assert shown.shows_curves == (
        "m3 table --config-dir=/more lambda_response family=mine store=/out items=dev method.scaling=2 --all"
    )


def test_a_name_of_several_figures_is_no_figure() -> None:
    with pytest.raises(M3Error, match="figure1 is figure1a, figure1b, figure1c: name one of them"):
        figures.figure("figure1", CommandLine())
    with pytest.raises(M3Error, match="'figure9' is none; there are figure1a"):
        figures.figure("figure9", CommandLine())


def test_from_python_a_view_after_a_run_shows_what_the_run_did(tmp_path: Path) -> None:
    """What a command line's words ask for serves every function; none keeps what the store held before."""
    base, *experts = write_three(tmp_path / "models", Shape(vocab=400, hidden=32, inner=64, layers=2, heads=2,
                                                            kv_heads=2, context=4096), torch.float32)  # fmt: skip
    write_answers(tmp_path / "answers.jsonl", {0: FIRST})
    asked = CommandLine((
        "family=local", f"family.base={base}", f"family.experts=[{','.join(map(str, experts))}]", "items=lab",
        "limit=8", "engine=recorded", f"engine.answers={tmp_path / 'answers.jsonl'}", "dtype=float32",
        "evaluator=[gsm8k]", f"store={tmp_path / 'store'}", "tracker=none",
    ))  # fmt: skip
    request = config.compose(asked)
    for same in (asked, request):
        assert status.status(same).counts == {"to do": 1}
        assert "not run" in markdown(tables.whole(same))
    outcome = actions.run(request)
    assert (outcome.done, outcome.cached) == (1, 0)
    for same in (asked, request):
        assert status.status(same).counts == {"done": 1}
        assert "50.0" in markdown(tables.whole(same))
    assert actions.run(asked).cached == 1
    out = CommandLine((*asked.overrides, f"out={tmp_path / 'merged'}", "verify=false"))
    assert [merged.out for merged in actions.merge(out)] == [tmp_path / "merged"]
