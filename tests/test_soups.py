"""Greedy soups: the order, what is added, and that nothing is chosen on the test's items or on half a cell."""

import json
from pathlib import Path
from typing import Any

import pytest

from m3_exp import actions, config, soups
from m3_exp.cli import main
from m3_exp.command_line import CommandLine
from m3_exp.soups import Tried, greedy
from m3_exp.types import M3Error
from tests.test_rehearsal import asked
from tests.test_repeat import models

__all__ = ["models"]


def test_a_soup_by_hand() -> None:
    """As the paper's recipe: best first, each that does not hurt is kept, the others never come back."""
    held = {("b", "a"): 69.0, ("b", "c"): 70.0, ("b", "c", "d"): 71.5}
    seen = []

    def score_of(experts: tuple[str, ...]) -> float:
        seen.append(experts)
        return held[experts]

    tried = greedy({"a": 60.0, "b": 70.0, "c": 50.0, "d": 40.0}, score_of)
    assert tried == [
        Tried(("b",), 70.0, True),
        Tried(("b", "a"), 69.0, False),
        Tried(("b", "c"), 70.0, True),  # no lower is enough
        Tried(("b", "c", "d"), 71.5, True),
    ]
    assert seen == [*held]


def test_equal_experts_come_in_their_order() -> None:
    assert [one.experts for one in greedy({"b": 1.0, "a": 1.0}, lambda _: 0.0)] == [("b",), ("b", "a")]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Each step's experts and whether it is on development items; scores are those of a table here."""
    steps: list[tuple[str, bool]] = []
    scores = {"lm": 40.0, "math": 50.0, "code": 30.0, "math,lm": 55.0, "math,lm,code": 54.0}

    def stepped(self: Any, line: CommandLine) -> list[dict[str, object]]:
        (experts,) = (text[1:-1] for text in line.values("pair.experts"))
        configs = config.compose(line).configs
        assert {tuple(c.experts) for c in configs} == {tuple(experts.split(","))}
        steps.append((experts, all(e.items == "lab-dev" for c in configs for e in c.evaluators)))
        first = {"benchmark": "gsm8k", "score": scores[experts] + 1, "low": 1.0, "high": 99.0, "n": 9, "state": "done"}
        return [first, {**first, "benchmark": "mbpp", "score": scores[experts] - 1}]

    monkeypatch.setattr(soups._Steps, "scores", stepped)
    return steps


def test_the_steps_of_a_run(told: list[tuple[str, bool]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "sweeps=greedy_soup", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    of_one = [("lm", True), ("math", True), ("code", True)]
    assert told == [*of_one, ("math,lm", True), ("math,lm,code", True), ("math,lm", False)]
    assert found["soup"] == ["math", "lm"]
    assert [one["score"] for one in found["tried"]] == [50.0, 55.0, 54.0]
    assert main(["run", "sweeps=greedy_soup"]) == 0
    said = capsys.readouterr().out
    assert "math + lm + code: below 55.0: not added" in said
    assert "gsm8k: 56.0 [1.0, 99.0], 9 items" in said


@pytest.mark.parametrize("words", [["method=ties"], ["ratio=fixed"], ["pair=lm"], ["sparsify=dare"]])
def test_what_is_no_soup_is_refused(words: list[str]) -> None:
    with pytest.raises(M3Error, match="takes one set of experts, method=average"):
        soups.cooked(config.request(["sweeps=greedy_soup", *words]))


def test_cells_are_no_budget_of_several_plans(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "sweeps=greedy_soup", "--cells", "3"]) == 2
    assert "a soup has several" in capsys.readouterr().err


@pytest.mark.slow
def test_a_soup_of_tiny_models(models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up answers: what is added then is what scores no lower; the second time nothing is run again."""
    more = ["sweeps=greedy_soup", "evaluator=[gsm8k,humaneval]", "limit=4"]
    words = ["family.items=lab" if word == "items=lab" else word for word in asked(models, tmp_path, *more)]
    found = soups.cooked(config.request(words))
    assert found.stopped == ()
    assert {one["benchmark"] for one in found.held_out} == {"gsm8k", "humaneval"}
    assert len(found.soup) >= 1
    ran = []

    def run(*given: Any, **budget: Any) -> Any:
        outcome = actions_run(*given, **budget)
        ran.append(outcome.generated)
        return outcome

    actions_run = actions.run
    monkeypatch.setattr(actions, "run", run)
    assert soups.cooked(config.request(words)) == found
    assert {*ran} == {0}
