"""`m3 doctor --engine`: a trial passes where weights are exchanged, and fails where they are not."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from m3_exp import cli
from m3_exp.command_line import CommandLine
from m3_exp.config import compose
from m3_exp.engines import resident, sharing, transformers, trial
from m3_exp.types import EngineSettings, M3Error, Recipe
from m3_exp.views import words


@pytest.mark.slow
@pytest.mark.engine
def test_an_engine_that_exchanges_weights_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--engine", "engine=transformers", "dtype=float32"]) == 0
    tied, untied = capsys.readouterr().out.splitlines()
    assert tied.startswith("ok   transformers swap, tied head, 1 device: as a fresh start, ")
    assert untied.startswith("ok   transformers swap, untied head, 1 device: as a fresh start, ")


@pytest.mark.long
@pytest.mark.engine
def test_vllm_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--engine", "engine=vllm", "dtype=float32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["ok"], one["needed"]) for one in found] == [(True, True), (True, True)]


class Stuck(resident.ResidentEngine):
    """A real engine that keeps the first weights it was given."""

    first: Recipe | None = None

    def load(self, recipe: Recipe) -> Any:
        self.first = self.first or recipe
        return super().load(self.first)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("stuck", [True, False])
def test_an_engine_that_keeps_its_weights_fails_and_so_does_a_trial_that_sees_nothing(
    stuck: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stuck:
        monkeypatch.setattr(transformers, "start", Stuck)
    else:
        monkeypatch.setattr(trial, "_SHARES", (1.0, 0.0))  # the merge is the first model
    found = next(iter(trial.trials(EngineSettings("transformers", dtype="float32"))))
    assert not found.ok
    said = "do not compute what a fresh start computes: 0." if stuck else "nothing was seen: another model's weights"
    assert said in found.text


def test_what_goes_wrong_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def start(*_: object) -> None:
        raise M3Error("engine=vllm: no kernel for this GPU")

    monkeypatch.setattr(trial, "module", lambda _: SimpleNamespace(start=start))
    monkeypatch.setattr(trial, "visible_gpus", lambda: [0, 1])
    found = list(trial.trials(EngineSettings("vllm")))
    assert [one.what for one in found] == [
        f"vllm swap, {head} head, {devices}" for devices in ("1 device", "2 devices") for head in ("tied", "untied")
    ]
    wanted = "engine=vllm: no kernel for this GPU; take engine=transformers, and report this line"
    assert {(one.ok, one.text) for one in found} == {(False, wanted)}
    with pytest.raises(M3Error, match="a fresh transformers did not read the checkpoint: "):
        trial._fresh(EngineSettings("transformers"), tmp_path / "nowhere", trial._pairs())


def test_a_recorded_engine_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--engine", "engine=recorded"]) == 2
    assert "engine=recorded holds no weights" in capsys.readouterr().err


def test_the_first_run_on_gpus_is_offered_a_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    request = compose(CommandLine((f"store={tmp_path}", "engine=vllm")))
    assert words.untried(request) == []
    monkeypatch.setattr(sharing, "visible_gpus", lambda: [0])
    assert words.untried(request)[0].startswith("first run on this machine's GPUs: m3 doctor --engine")
    (tmp_path / "results").mkdir()
    assert words.untried(request) == []
