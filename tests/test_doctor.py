"""Trust in the graders: gold answers at 100 %, planted wrong ones at 0, before anything is scored."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from evaluators.gsm8k import GSM8K
from evaluators.hendrycks_math import HendrycksMath
from m3_exp import config, doctor
from m3_exp.planning import build
from m3_exp.results import Results
from m3_exp.scoring.evaluator import Cost, Evaluator
from m3_exp.scoring.items import first
from m3_exp.scoring.trust import Examination, check_grader, examine
from m3_exp.store import Store
from m3_exp.types import Answer, Problem, Score

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("M3_DATA") or ROOT.parent / "shared" / "data")
ITEMS = [Problem(str(k), {"question": f"{k} + 1?", "answer": f"#### {k + 1}"}) for k in range(100)]


@dataclass(frozen=True)
class Odd(GSM8K):
    """A grader with faults: these items' gold fails, these items' wrong answer passes, these are unscored."""

    no: tuple[str, ...] = ()
    yes: tuple[str, ...] = ()
    none: tuple[str, ...] = ()
    pause: float = 0.0

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        time.sleep(self.pause * len(answers))
        values = {**dict.fromkeys(self.no, 0.0), **dict.fromkeys(self.yes, 1.0)}
        scores = super().score(problems, answers)
        scores = [replace(score, value=values.get(score.id, score.value)) for score in scores]
        return [Score(s.id, None, s.sample, reason="box broken") if s.id in self.none else s for s in scores]


def examined(evaluator: Evaluator, **limits: Any) -> Examination:
    found = examine(evaluator, ITEMS, **limits)
    assert found is not None
    return found


def test_a_good_grader_passes_on_all_items() -> None:
    found = examined(GSM8K())
    assert (found.gold, found.right, found.wrong, found.zero, found.total) == (100, 100, 100, 100, 100)
    assert found.perfect
    assert found.fit
    assert str(found).startswith("gold 100 of 100, planted wrong 0 on 100 of 100, ")
    assert check_grader(GSM8K(), ITEMS) is None


def test_an_item_whose_gold_fails_is_named_and_does_not_stop_the_run() -> None:
    found = examined(Odd(no=("7",)))
    assert not found.perfect
    assert found.fit
    assert (found.right, found.failed) == (99, {"7": "scored 0"})
    assert "gold fails: 7 (scored 0)" in str(found)


def test_a_flaw_that_the_benchmark_knows_is_named_as_such() -> None:
    class Known(Odd):
        """One item is known to be flawed."""

        flawed: ClassVar[Mapping[str, str]] = {"7": "its reference is wrong", "8": "of no matter: it passes"}

    found = examined(Known(no=("7",)))
    assert found.perfect
    assert found.flawed == {"7": "its reference is wrong"}
    assert "known to be flawed: 7 (its reference is wrong)" in str(found)
    assert "gold fails" not in str(found)


def test_a_wrong_answer_that_passes_makes_a_grader_unfit() -> None:
    [at] = first(ITEMS, "gsm8k", 1)
    found = examined(Odd(yes=(at.id,)))
    assert not found.fit
    assert f"WRONG ANSWER PASSES: {at.id} (scored 1" in str(found)
    reason = check_grader(Odd(yes=(at.id,)), ITEMS)
    assert reason is not None
    assert reason.startswith(
        "the grader of gsm8k is not fit, nothing was scored: gold 8 of 8, planted wrong 0 on 7 of 8"
    )


def test_a_broken_box_makes_a_grader_unfit() -> None:
    """Everything unscored is not everything right."""
    reason = check_grader(Odd(none=tuple(p.id for p in ITEMS)), ITEMS)
    assert reason is not None
    assert "gold 0 of 8 (of 100 items)" in reason.replace(", planted wrong 0 on 0 of 8", "")
    assert "unscored: box broken" in reason
    assert reason.count("unscored: box broken") == 5
    assert "and 3 more" in reason


def test_a_grader_that_says_no_to_everything_is_unfit() -> None:
    assert check_grader(Odd(no=tuple(p.id for p in ITEMS)), ITEMS) is not None
    few = [problem.id for problem in first(ITEMS, "gsm8k", 8)]
    assert check_grader(Odd(no=tuple(few[:2])), ITEMS) is None  # a quarter may be the items' own fault
    assert check_grader(Odd(no=tuple(few[:3])), ITEMS) is not None


def test_a_plugin_that_cannot_write_an_answer_is_named() -> None:
    class Speechless(GSM8K):
        """Fails on one item, and has no wrong answer."""

        def gold(self, problem: Problem) -> str:
            return str(1 / int(problem.id) and super().gold(problem))

        def wrong(self, problem: Problem) -> str:
            return None  # type: ignore[return-value]

    found = examined(Speechless())
    assert (found.gold, found.right, found.wrong) == (100, 99, 0)
    assert found.failed == {"0": "unscored: no answer made: ZeroDivisionError: division by zero"}


def test_the_same_items_come_first_and_a_slow_grader_is_sampled() -> None:
    found = examined(Odd(pause=0.01), seconds=1.0)
    assert 8 <= found.gold < 100
    assert found.gold in (8, 24, 56)  # batches of 8, 16, 32
    assert "(of 100 items)" in str(found)
    assert examined(GSM8K(), at_most=8).gold == 8


def test_items_known_to_be_flawed_are_looked_at_first() -> None:
    last = first(ITEMS, "gsm8k", None)[-1].id

    class Known(Odd):
        """A slow grader whose flawed item comes last."""

        flawed: ClassVar[Mapping[str, str]] = {last: "its reference is wrong"}

    found = examined(Known(no=(last,), pause=0.01), seconds=0.1)
    assert (found.gold, found.flawed) == (8, {last: "its reference is wrong"})


def test_graders_that_cost_money_are_not_called() -> None:
    class Paid(Odd):
        """Its judge is paid for."""

        def cost(self, problems: Sequence[Problem]) -> Cost | None:
            return Cost(len(problems), 0, 0, 1.0, "a test's")

        def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
            raise AssertionError("called")

    assert examine(Paid(), ITEMS) is None
    assert check_grader(Paid(), ITEMS) is None
    finding = doctor._grader("paid", Paid(), ITEMS)
    assert (finding.ok, finding.needed) == (False, False)
    assert finding.text.startswith("not tried: its judge")


def test_benchmarks_without_gold_answers_get_a_note() -> None:
    class Silent(Evaluator):
        """Only what a plugin must have."""

        name = "silent"

        def prompt(self, problem: Problem) -> str:
            return ""

    silent = Silent()
    assert examine(silent, ITEMS) is None
    assert doctor._grader("silent", silent, ITEMS) == doctor.Finding(
        "grader silent", False, "not tried: this benchmark has no gold answers"
    )


def test_the_doctor_examines_the_graders_of_the_request(tmp_path: Path) -> None:
    request = config.request(["evaluator=[gsm8k,hendrycks_math]", f"store={tmp_path}"], multirun=False, config_dirs=[])
    plan = build(request.configs)
    findings = {finding.what: finding for finding in doctor._graders(plan, Results(Store(tmp_path), plan.engine))}
    assert list(findings) == ["grader gsm8k", "grader hendrycks_math"]
    assert all(finding.ok and finding.needed for finding in findings.values())
    assert findings["grader gsm8k"].text.startswith("gold 96 of 96, planted wrong 0 on 96 of 96, ")


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "math" / "test.jsonl").is_file(), reason="MATH is not here: set M3_DATA")
def test_all_official_gold_of_the_maths_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """1319 of 1319, and 5000 of 5000 but for the one whose gold answer ends in a full stop."""
    monkeypatch.setenv("M3_DATA", str(DATA))
    for evaluator, n, flawed in ((GSM8K(), 1319, []), (HendrycksMath(), 5000, ["2269"])):
        found = examine(evaluator, evaluator.problems("official"), seconds=600)
        assert found is not None
        assert found.perfect
        assert (found.gold, found.zero, list(found.failed)) == (n, n, flawed)
