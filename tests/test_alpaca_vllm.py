"""AlpacaEval judged by SmolLM2 behind a real vLLM server on the loopback, through a proxy that gets in the way."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluators.alpaca import AlpacaEval
from m3_exp import actions
from m3_exp.command_line import CommandLine
from m3_exp.scoring.cache import kept_in
from m3_exp.scoring.evaluate import evaluate
from m3_exp.types import Answer, Problem
from tests.judge_server import JudgeServer, serving

N = 8
ITEMS = [Problem(str(i), {"instruction": f"Name {i + 2} animals.", "output": "cat, dog"}) for i in range(N)]
ANSWERS = [Answer(str(i), "I will not." if i % 2 else "A cat, a dog and a cow are animals.") for i in range(N)]


class Vllm:
    """A server of SmolLM2 that can be killed with all its processes.

    In float32: most CPUs that tests run on have no bfloat16, and take seven times as long for a prompt in it.
    """

    def __init__(self, folder: Path) -> None:
        actions.merge(CommandLine(("pair=base", f"out={folder / 'model'}")))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        options = {"model": folder / "model", "served-model-name": "smollm2", "host": "127.0.0.1", "port": port}
        options |= {"max-model-len": 2048, "max-num-seqs": 16, "dtype": "float32", "tool-call-parser": "hermes"}
        self.log = folder / "vllm.log"
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
        command += ["--enable-auto-tool-choice", *(f"--{key}={value}" for key, value in options.items())]
        environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # two processes in place of three
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def wait(self) -> None:
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            try:
                with urllib.request.urlopen(self.url.removesuffix("/v1") + "/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.3)
        raise AssertionError(self.log.read_text()[-2000:])

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    server = Vllm(tmp_path_factory.mktemp("vllm"))
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.mark.engine
@pytest.mark.timeout(1500)
def test_a_real_server_judges_through_faults_and_a_killed_one_loses_nothing(vllm: Vllm, tmp_path: Path) -> None:
    faults = ["429:0.2", "500", "cut", "html"]
    proxy = JudgeServer(lambda number, request: faults[number] if number < len(faults) else None, upstream=vllm.url)
    local: dict[str, Any] = {
        "judge": "local",
        "judge_model": "smollm2",
        "backoff": 0.05,
        "retries": 3,
        "timeout": 300.0,
    }
    with kept_in(tmp_path), serving(proxy):
        scores, result = evaluate(AlpacaEval(**local, endpoint=proxy.url), ITEMS, ANSWERS)
        assert (result.metric, result.n_scored, result.details["models"]) == (
            "win rate (local, smollm2)",
            N,
            ["smollm2"],
        )
        assert len(proxy.requests) == N + len(faults)
        assert {score.extracted for score in scores} <= {"Output (a)", "Output (b)"}
        # Shown in the reference's order, (b) is the answer; swapped, (a) is.
        shown = [("Output (a)" if score.notes["swapped"] else "Output (b)") for score in scores]
        assert [score.value for score in scores] == [
            float(s.extracted == b) for s, b in zip(scores, shown, strict=True)
        ]
        assert len({score.notes["swapped"] for score in scores}) == 2
        _by_tool_call(vllm)
        _by_probability(vllm)
        vllm.kill()
        proxy.upstream, proxy.fault = None, lambda number, request: "500"
        more = [Problem("new", {"instruction": "Name a river.", "output": "Rhine"})]
        again, partial = evaluate(
            AlpacaEval(**local, endpoint=proxy.url), [*ITEMS, *more], [*ANSWERS, Answer("new", "The Nile.")]
        )
        assert again[:N] == scores
        assert (partial.n_scored, partial.n_unscored, again[N].value) == (N, 1, None)
        assert "gave no judgment in 4 attempts (HTTP 500" in str(again[N].reason)
        assert len(proxy.requests) == N + len(faults) + 4


def _by_tool_call(vllm: Vllm) -> None:
    """SmolLM2 calls the tool, as it must, but seldom names an output: that is unparsable, never a loss."""
    paper = AlpacaEval(judge="chatgpt_fn", judge_model="smollm2", endpoint=vllm.url, timeout=300.0)
    scores, result = evaluate(paper, ITEMS[:2], ANSWERS[:2])
    assert result.metric == "win rate (chatgpt_fn, smollm2)"
    assert result.n_scored + result.details["n_unparsable"] == 2
    assert all(score.extracted for score in scores)
    for score in scores:
        names_one = "output (a)" in str(score.extracted).lower() or "output (b)" in str(score.extracted).lower()
        assert (score.value is not None) == names_one


def _by_probability(vllm: Vllm) -> None:
    name = "weighted_alpaca_eval_gpt4_turbo"
    weighted = AlpacaEval(judge=name, judge_model="smollm2", endpoint=vllm.url, timeout=300.0)
    scores, result = evaluate(weighted, ITEMS[:4], ANSWERS[:4])
    assert result.n_scored + result.details["n_unparsable"] == 4
    assert all(score.value is None or 0.0 <= score.value <= 1.0 for score in scores)
    assert result.n_scored > 0
