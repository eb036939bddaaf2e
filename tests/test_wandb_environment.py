"""W&B's own variables, as W&B documents them: an explicit setting first, then the variable, then our default."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from m3_exp import config
from m3_exp.reporting.wandb.track import _OF_A_RUN, Settings, chosen
from m3_exp.types import M3Error

CHOICE = {"name": "wandb", "project": None, "entity": None, "mode": "auto", "dir": None, "items": False}
KEY = "0" * 40


def made(environment: dict[str, str], **given: Any) -> Settings:
    found = chosen({**CHOICE, **given}, environment)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("key", "variable", "default"),
    [("project", "WANDB_PROJECT", "m3_exp"), ("entity", "WANDB_ENTITY", None), ("dir", "WANDB_DIR", None)],
)
def test_a_setting_comes_first_then_the_variable_then_the_default(key: str, variable: str, default: str | None) -> None:
    assert getattr(made({variable: "/theirs" if key == "dir" else "theirs"}, **{key: "ours"}), key) == "ours"
    assert getattr(made({variable: "theirs"}), key) == "theirs"
    assert getattr(made({variable: ""}), key) == default
    assert getattr(made({}), key) == default


def test_the_folder_is_that_of_wandb_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    assert made({"WANDB_DIR": str(tmp_path / "logs")}).files(store).folder == tmp_path / "logs" / "wandb"
    assert made({}).files(store).folder == store / "wandb"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert made({"WANDB_DIR": "~/logs"}).files(store).folder == tmp_path / "logs" / "wandb"


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": KEY}, "online"),
        ({"WANDB_MODE": "online"}, "online"),
        ({"WANDB_MODE": "run"}, "online"),
        ({"WANDB_MODE": "shared"}, "online"),
        ({"WANDB_MODE": "offline", "WANDB_API_KEY": KEY}, "offline"),
        ({"WANDB_MODE": "dryrun", "WANDB_API_KEY": KEY}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_DISABLED": "true"}, "disabled"),
        ({"WANDB_DISABLED": "TRUE", "WANDB_MODE": "online"}, "disabled"),
        ({"WANDB_DISABLED": "1"}, "disabled"),
        ({"WANDB_DISABLED": "false", "WANDB_MODE": "online"}, "online"),
        ({"WANDB_DISABLED": "", "WANDB_MODE": "", "WANDB_API_KEY": KEY}, "online"),
    ],
)
def test_auto_is_what_the_variables_say(environment: dict[str, str], mode: str, tmp_path: Path) -> None:
    environment = {"NETRC": str(tmp_path / "no-netrc"), **environment}
    assert made(environment).resolved(environment) == mode


@pytest.mark.parametrize("environment", [{"WANDB_DISABLED": "true"}, {"WANDB_MODE": "disabled"}, {"WANDB_MODE": "x"}])
def test_an_explicit_mode_is_stronger_than_any_variable(environment: dict[str, str]) -> None:
    assert made(environment, mode="offline").resolved(environment) == "offline"
    assert made(environment, mode="online").resolved(environment) == "online"


@pytest.mark.parametrize("mode", ["offlin", "OFFLINE ", "true", "\x1b[31m"])
def test_a_mode_that_is_none_of_wandbs_is_refused_before_anything_is_done(mode: str) -> None:
    with pytest.raises(M3Error, match=r"WANDB_MODE=.* is not known; allowed: online, run, shared, offline"):
        made({"WANDB_MODE": mode})


@pytest.mark.parametrize("project", ["a/b", "a#b", "a?b", "a%b", "a:b", "a\\b", "x" * 129, "a\nb"])
def test_a_project_that_wandb_would_refuse_is_refused(project: str) -> None:
    with pytest.raises(M3Error, match="is no name of a W&B project"):
        made({"WANDB_PROJECT": project})


def test_the_child_does_not_take_part_in_the_run_that_it_was_started_in() -> None:
    assert {"WANDB_RUN_ID", "WANDB_RUN_GROUP", "WANDB_DISABLED", "WANDB_MODE", "WANDB_DIR"} <= set(_OF_A_RUN)


def test_a_composed_request_hears_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "team-project")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    found = config.request(["tracker=wandb"]).tracker
    assert found == Settings(project="team-project", entity="team", dir=str(tmp_path))
    assert config.request(["tracker=wandb", "tracker.project=mine"]).tracker == replace(found, project="mine")
    assert config.request(["tracker=none"]).tracker is None
