"""The main job on a miniature of the paper's family: the real `sweeps=table1`, killed and continued.

The tests share four engine starts: one undisturbed run, and one killed run that is continued on two engines. All in
float32, where texts do not depend on the batch. What is not killed runs in this process, which has imported already.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from m3_exp import actions, cli, config
from m3_exp.config import ROOT
from m3_exp.merging.stream import write
from m3_exp.results import Results
from m3_exp.store import Journal, Store
from tests import llama2_mini


@dataclass(frozen=True)
class World:
    """The miniature family and the finished stores."""

    conf: Path
    whole: Path
    resumed: Path
    killed_with: int  # answers on disk when the run was killed


OVERRIDES = ["limit=3", "items=lab", "dtype=float32"]
SWEEP = [*OVERRIDES, "ratio.draws=2"]


def sweep(store: Path, *args: str) -> list[str]:
    return ["sweeps=table1", "family=llama2_mini", f"store={store}", *SWEEP, *args]


def command(conf: Path, store: Path, *args: str) -> list[str]:
    return [sys.executable, "-m", "m3_exp.cli", "run", "--config-dir", str(conf), *sweep(store, *args)]


def answers(store: Path) -> int:
    return sum(len(Journal(folder).read()) for folder in (store / "answers").glob("*"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("mini")
    conf = llama2_mini.build(folder)
    short = conf / "family" / "llama2_mini.yaml"
    with short.open("a") as yaml:
        yaml.write("judge: rules\nmax_tokens: {alpaca_eval: 6, gsm8k: 6, hendrycks_math: 6, humaneval: 6, mbpp: 6}\n")
    whole, resumed = folder / "whole", folder / "resumed"
    killed_with = _killed(command(conf, resumed), resumed)
    outcomes = [
        actions.run(config.request(sweep(*asked), config_dirs=[conf])) for asked in ((whole,), (resumed, "workers=2"))
    ]
    assert [(outcome.failures, outcome.engine_starts) for outcome in outcomes] == [((), 1), ((), 2)]
    return World(conf, whole, resumed, killed_with)


def _killed(arguments: list[str], store: Path) -> int:
    """Start a run, SIGKILL it once it has written 40 answers, and return how many are on disk."""
    child = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while answers(store) < 40:
        assert child.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.2)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return answers(store)


def table(world: World, store: Path, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.main(["table", "table1", "--config-dir", str(world.conf), *sweep(store, *args)[1:]]) == 0
    # The line that evaluates the curves names its store and its engine.
    return re.sub(r"m3 run .* evaluates it", "evaluates it", capsys.readouterr().out)


@pytest.mark.engine
@pytest.mark.timeout(1800)
class TestTable1:
    def test_the_killed_and_continued_table_equals_the_undisturbed_one(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole, resumed = table(world, world.whole, capsys), table(world, world.resumed, capsys)
        assert whole == resumed
        assert "failed" not in whole
        assert "not run" not in whole

    def test_nothing_that_was_acknowledged_was_generated_again(self, world: World) -> None:
        assert world.killed_with >= 40
        assert answers(world.resumed) == answers(world.whole)

    def test_the_table_has_the_papers_rows_and_no_published_numbers_beside_other_items(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [line for line in table(world, world.whole, capsys).splitlines() if line.startswith("| ")][1:]
        assert len(rows) == 3 + 36
        assert not any("(paper " in row for row in rows)  # the lab's items are not the paper's
        mixed = [row for row in rows if re.search(r"\| yes +\| (yes|no) ", row)]
        assert len(mixed) == 18
        assert all(" of 2" in row for row in mixed)

    def test_after_many_swaps_vllm_writes_what_transformers_writes_on_the_checkpoint(
        self, world: World, tmp_path: Path
    ) -> None:
        """An untied model: the last merge of the sweep, streamed into an engine that held all others before it."""
        import torch
        from transformers import AutoModelForCausalLM

        planned = config.request(sweep(world.whole), config_dirs=[world.conf]).plan
        cell = [c for c in planned.cells if c.evaluator.name == "gsm8k"][-1]
        desk = Results(Store(world.whole), planned.engine)
        write([cell.recipe], [tmp_path / "out"], desk.store, tokenizer=cell.home)
        model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
        task, found = desk.tasks.task(cell), desk.get(desk.tasks.task(cell))
        assert found is not None
        journal = {answer.id: answer.text for answer in desk.store.answers(found.answers).read()}
        for prompt in task.prompts:
            ids = torch.tensor([prompt.token_ids])
            written = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=2)[0, ids.shape[1] :]
            text = desk.tasks.prompts.tokenizer(cell.tokenizer).decode(written, skip_special_tokens=True)
            assert journal[prompt.id] == text

    def test_the_same_command_again_only_looks(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        started = time.monotonic()
        line = command(world.conf, world.whole)[3:]
        assert cli.main([*line, "--json"]) == 0
        outcome = json.loads(capsys.readouterr().out)
        assert outcome["cached"] == outcome["cells"]
        assert outcome["engine_starts"] == 0
        assert time.monotonic() - started < 300

    def test_a_kept_checkpoint_is_what_the_footers_line_makes(
        self, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        store = tmp_path / "store"
        axes = ["pair=lm_math", "method=ties", "ratio=mixup", "sparsify=dare", "evaluator=[gsm8k]"]
        common = ["family=llama2_mini", "--config-dir", str(world.conf), f"store={store}"]
        replay = ["engine=recorded", f"engine.answers={world.whole}"]
        assert cli.main(["run", *axes, *common, *OVERRIDES, *replay, "checkpoint=keep"]) == 0
        (line,) = re.findall(r"(m3 merge .*) out=DIR", capsys.readouterr().out)
        assert cli.main([*shlex.split(line)[1:], *common[1:], f"out={tmp_path / 'out'}"]) == 0
        (kept,) = (store / "checkpoints").iterdir()
        names = sorted(path.name for path in kept.iterdir())
        assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
        for name in names:
            assert (kept / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name

    def test_the_same_weights_by_two_routes_are_evaluated_once(
        self, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A merge on disk, given as a model of its own, finds the answers that the streamed merge gave."""
        out, conf = tmp_path / "merged", ["--config-dir", str(world.conf), f"store={world.whole}"]
        merge = ["merge", "family=llama2_mini", "pair=lm_code", "tokenizer=1", "dtype=float32", f"out={out}", *conf]
        assert cli.main(merge) == 0
        base = world.conf.parent / "base"
        again = ["run", "family=local", f"family.base={base}", f"family.experts=[{out}]", "evaluator=[humaneval]"]
        again += ["evaluator.humaneval.max_tokens=6", "engine=recorded", f"engine.answers={world.whole}", "--json"]
        capsys.readouterr()
        assert cli.main([*again, *OVERRIDES, *conf]) == 0
        outcome = json.loads(capsys.readouterr().out)
        assert (outcome["cells"], outcome["cached"], outcome["generated"]) == (1, 0, 0)


@pytest.mark.slow
def test_one_word_changes_the_family(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """The plan of table1 on the miniature and on the paper's models differs in sizes and paths only."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    conf = llama2_mini.write_conf(tmp_path)
    plans = {}
    for family in ("llama2_mini", "llama2_13b"):
        line = [
            "plan",
            "sweeps=table1",
            f"family={family}",
            "--config-dir",
            str(conf),
            f"store={tmp_path / 's'}",
            "--json",
        ]
        if family == "llama2_mini":
            for name in ("base", "lm", "math", "code"):
                (tmp_path / name).mkdir()
        assert cli.main(line) == 0
        cells = json.loads(capsys.readouterr().out)["cells"]
        plans[family] = [_without_paths(cell) for cell in cells]
    assert len(plans["llama2_mini"]) > 100
    assert plans["llama2_mini"] == plans["llama2_13b"]


def _without_paths(cell: dict[str, Any]) -> dict[str, Any]:
    recipe = cell["recipe"]
    weights = recipe["weights"]  # experts are sorted by name, and with them their weights
    return {
        **{key: cell[key] for key in ("labels", "lambda", "alpha", "benchmark", "evaluator", "sampling", "limit")},
        "recipe": {**recipe, "base": None, "experts": len(recipe["experts"]), "weights": weights and sorted(weights)},
    }


def test_a_gated_base_that_answers_401_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("X-Error-Message", "Access to model meta-llama/Llama-2-13b-hf is restricted.")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    merge = ["merge", "family=llama2_13b", "pair=base", f"out={tmp_path / 'out'}", f"store={tmp_path / 's'}"]
    done = subprocess.run(
        [sys.executable, "-m", "m3_exp.cli", *merge],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    server.shutdown()
    assert done.returncode == 2, done.stderr
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("m3: ")]
    assert "meta-llama/Llama-2-13b-hf" in line
    assert re.search(r"gated|log in|token", line)
    assert not (tmp_path / "out").exists()


def test_a_plan_over_hub_models_fetches_nothing(tmp_path: Path) -> None:
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            name = self.path.removeprefix("/api/models/").split("/revision")[0]
            body = json.dumps({"id": name, "modelId": name, "sha": "a" * 40, "siblings": []}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    line = ["plan", "family=llama2_13b", "items=lab", "limit=2", f"store={tmp_path / 's'}", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "m3_exp.cli", *line],
        cwd=ROOT, env={**environment, "HF_HOME": str(tmp_path / "hf")}, capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    server.shutdown()
    cells_ = json.loads(done.stdout)["cells"]
    assert {cell["state"] for cell in cells_} == {"model missing"}
    assert all("m3 run and m3 merge fetch it" in cell["reason"] for cell in cells_)
    assert not [path for path in asked if "/resolve/" in path or "/tree/" in path]
