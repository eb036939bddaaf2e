"""What is missing is said before it costs anything; two runs on one store share the work."""

import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from m3_exp import actions, cli, config, doctor, lacking
from m3_exp.command_line import CommandLine
from m3_exp.engines import recorded
from m3_exp.engines.vllm import VllmModel
from m3_exp.store import Held
from m3_exp.store.leases import Leases
from m3_exp.types import EngineSettings, M3Error
from m3_exp.views import workspace
from tests.models import SMALL, write_three
from tests.test_repeat import FIRST, line, write_answers

FREE = SimpleNamespace(total=10**12, used=0, free=10**11)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No keys, and room on the disk."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "M3_JUDGE_ENDPOINT", "WANDB_API_KEY", "WANDB_MODE", "M3_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: FREE)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_three(tmp_path_factory.mktemp("models"), SMALL, torch.float32)


def asked(models: list[Path], folder: Path, *more: str) -> list[str]:
    write_answers(folder / "answers.jsonl", {0: FIRST})
    return [*line(models, folder), *more]


JUDGED = ("evaluator=[alpaca_eval]", "evaluator.alpaca_eval.judge=chatgpt_fn", "tracker=none")


def test_plan_run_and_doctor_say_what_is_missing(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = asked(models, tmp_path, *JUDGED[:2], "tracker=wandb", "tracker.mode=online")
    assert cli.main(["plan", *words]) == 0
    said = [text for text in " ".join(capsys.readouterr().out.split()).split("missing: ")][1:]
    assert [text.split(":")[0] for text in said] == [
        "W&B",
        "alpaca_eval cannot be scored here, so nothing is asked for it",
    ]
    assert "W&B: there is no key here, so nothing is sent: set WANDB_API_KEY, or run wandb login" in said[0]
    assert said[1].startswith(
        "alpaca_eval cannot be scored here, so nothing is asked for it: judge=chatgpt_fn needs an"
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    request = config.compose(CommandLine(tuple(words)))
    assert [text.split(":")[0] for text in lacking.lines(request)][-1] == "disk"
    found = {one.what: one for one in doctor._keys(request)}
    assert found["judge alpaca_eval"].needed
    assert not found["judge alpaca_eval"].ok
    assert not found["W&B key"].ok
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: FREE)
    assert lacking.lines(request) == []


def test_disk_counts_what_the_request_writes(models: list[Path], tmp_path: Path) -> None:
    request = config.compose(CommandLine(tuple(asked(models, tmp_path, "tracker=none"))))
    assert list(lacking.space(request)) == []
    (text,) = lacking.space(request, 2 * 10**11)
    assert text.startswith("disk: 100 GB free under the store")
    assert "about 200 GB are needed" in text


def test_what_could_only_stay_unscored_is_not_asked(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object, **__: object) -> Iterator[Any]:
        raise AssertionError("an engine is asked")

    monkeypatch.setattr(recorded.RecordedEngine, "generate", ask)
    monkeypatch.setattr(recorded.RecordedEngine, "load", ask)
    assert cli.main(["run", *asked(models, tmp_path, *JUDGED)]) == 1
    captured = capsys.readouterr()
    assert "missing: alpaca_eval cannot be scored here" in captured.err
    assert "nothing is asked, since no answer could be scored: judge=chatgpt_fn needs an API key" in captured.out


def test_sync_without_a_key_says_so(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = asked(models, tmp_path, "tracker=wandb")
    monkeypatch.setattr(workspace, "sync", lambda asked: SimpleNamespace(done={"written": 0}, problems=[]))
    assert cli.main(["wandb", "sync", *words]) == 0
    assert "W&B: there is no key here, so nothing is sent: set WANDB_API_KEY" in capsys.readouterr().err
    request = config.compose(CommandLine(tuple(words)))
    assert request.tracker is not None
    monkeypatch.setattr(lacking, "has_key", lambda: True)
    assert lacking.key(request.tracker) == []


def test_a_package_that_does_not_import_is_told_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("raise OSError('libcuda.so.1: cannot open')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert doctor._unimportable("broken") == "OSError: libcuda.so.1: cannot open"
    assert doctor._unimportable("json") is None


def test_an_engine_that_is_refused_is_started_once(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []

    def start(*_: object) -> None:
        started.append(1)
        raise M3Error("engine=vllm: vLLM does not import here")

    monkeypatch.setattr(recorded, "start", start)
    words = asked(models, tmp_path, "ratio=fixed", "ratio.lam=0.25,0.75", "tracker=none")
    assert cli.main(["run", "-m", *words]) == 1
    assert len(started) == 1
    assert capsys.readouterr().err.count("gsm8k: engine=vllm: vLLM does not import here") == 2


def test_a_vllm_that_does_not_import_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm.engine.arg_utils", None)
    with pytest.raises(M3Error, match=r"vLLM does not import here .*take engine=transformers"):
        VllmModel(EngineSettings(), *[SimpleNamespace()] * 2, 0)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- two runs


def test_two_equal_runs_share_the_work(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one waits for what the first one is at, and generates nothing again."""
    request = config.compose(CommandLine(tuple(asked(models, tmp_path, "tracker=none"))))
    generate, asked_first, go_on = recorded.RecordedEngine.generate, threading.Event(), threading.Event()

    def slow(*args: Any, **more: Any) -> Iterator[Any]:
        asked_first.set()
        assert go_on.wait(60)
        yield from generate(*args, **more)

    monkeypatch.setattr(recorded.RecordedEngine, "generate", slow)
    waiting = threading.Event()
    take = Leases.take

    def taken(*args: Any, **more: Any) -> Any:
        try:
            return take(*args, **more)
        except Held:
            waiting.set()
            raise

    monkeypatch.setattr(Leases, "take", taken)
    outcomes: list[Any] = []
    runs = [threading.Thread(target=lambda: outcomes.append(actions.run(request))) for _ in range(2)]
    runs[0].start()
    assert asked_first.wait(60)
    runs[1].start()
    assert waiting.wait(60)
    go_on.set()
    for run in runs:
        run.join(60)
    assert sorted((outcome.generated, outcome.cached) for outcome in outcomes) == [(0, 1), (8, 0)]
    assert [outcome.done for outcome in outcomes] == [1, 1]
    assert "another run is at work on some of these cells, whose answers are taken over:" in capsys.readouterr().err
    assert not list((tmp_path / "store" / "leases").iterdir())
