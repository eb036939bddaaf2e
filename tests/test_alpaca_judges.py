"""AlpacaEval's model judges against a small server that fails in every way: retried, kept, capped, never zero."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluators.alpaca import AlpacaEval
from evaluators.alpaca import judges as alpaca_judges
from evaluators.alpaca import worker as alpaca_worker
from evaluators.alpaca.transport import GIVEN_UP, Budget, Endpoint, Refused, Replies
from m3_exp.scoring.cache import kept_in
from m3_exp.scoring.evaluate import evaluate
from m3_exp.types import Answer, M3Error, Problem, Result, Score
from tests.judge_server import Fault, JudgeServer, serving

KEY = "sk-very-secret-0123456789"
REQUEST = {"model": "j", "max_tokens": 9, "temperature": 0, "messages": [{"role": "user", "content": "# Task: GOOD"}]}
N = 12
# Of 12 items the answer is better in 7, the reference in 4, and one is a draw (equal texts, no judge needed).
ITEMS = [
    Problem(str(i), {"instruction": f"Do thing {i}.", "output": f"reference {i}" + (" GOOD" if i > 7 else "")})
    for i in range(N)
]
ANSWERS = [
    Answer(str(i), "reference 7" if i == 7 else f" answer {i} {{instruction}}" + (" GOOD" if i < 7 else ""))
    for i in range(N)
]
WIN_RATE = 100 * 7.5 / 12


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "M3_JUDGE_KEY", "M3_JUDGE_ENDPOINT", "M3_DATA"):
        monkeypatch.delenv(name, raising=False)
    with kept_in(tmp_path / "store"):
        yield


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge in this process: starting one and importing the package takes seconds, so only some tests do it."""

    def judge(job: dict[str, Any], timeout: float) -> dict[str, Any]:
        return alpaca_worker.judge(json.loads(json.dumps(job)), lambda event: None)

    monkeypatch.setattr(alpaca_judges, "ask_worker", judge)


def judged(server: JudgeServer, **settings: Any) -> tuple[list[Score], Result]:
    given = {"judge": "chatgpt_fn", "backoff": 0.01, "endpoint": server.url, **settings}
    return evaluate(AlpacaEval(**given), ITEMS, ANSWERS)


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "store" / "judgments").rglob("*.json"))


# ------------------------------------------------------------------------------------------------------- one request


def endpoint(server: JudgeServer, tmp_path: Path, budget: Budget | None = None, **more: Any) -> Endpoint:
    options = {"timeout": 5.0, "retries": 3, "backoff": 0.01, **more}
    return Endpoint(
        server.url, KEY, budget=budget or Budget(None, None), replies=Replies(tmp_path), told=print, **options
    )


def failing(*faults: str) -> Fault:
    """The first requests meet these faults, one each; later ones none."""
    return lambda number, request: faults[number] if number < len(faults) else None


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["429", "500", "503", "408", "cut", "html", "empty", "hang:1"])
def test_what_can_pass_is_tried_again(fault: str, tmp_path: Path) -> None:
    with serving(JudgeServer(failing(fault, fault))) as server:
        reply = endpoint(server, tmp_path, timeout=0.3).reply(REQUEST)
    assert reply["choice"]["message"]["content"] == "Output (a)"
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", ["429", "500", "cut", "html", "hang:1"])
def test_a_judge_that_stays_away_is_given_up(fault: str, tmp_path: Path) -> None:
    with serving(JudgeServer(lambda number, request: fault)) as server:
        asked = endpoint(server, tmp_path, timeout=0.2)
        with pytest.raises(Refused, match=r"gave no judgment in 4 attempts \(.*run the same command again"):
            asked.reply(REQUEST)
    assert len(server.requests) == 4
    assert list(tmp_path.rglob("*.json")) == []


def test_nobody_there_is_given_up_too(tmp_path: Path) -> None:
    with serving(JudgeServer()) as server:
        asked = endpoint(server, tmp_path, Budget((1000.0, 1000.0), None))
    with pytest.raises(Refused, match=r"gave no judgment in 4 attempts \(no connection\)"):
        asked.reply(REQUEST)
    assert asked.budget.spent == 0.0


def test_waits_grow_and_honour_retry_after(tmp_path: Path) -> None:
    with serving(JudgeServer(failing("429:0.7", "500", "500"))) as server:
        endpoint(server, tmp_path, backoff=0.1).reply(REQUEST)
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert waits[0] >= 0.7
    assert 0.14 <= waits[1] < 0.7
    assert 0.29 <= waits[2] < 0.9


@pytest.mark.parametrize("fault", ["429:3600", "503:Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_wait_of_hours_is_not_waited_for(fault: str, tmp_path: Path) -> None:
    with serving(JudgeServer(lambda number, request: fault)) as server:
        start = time.monotonic()
        with pytest.raises(Refused, match="1 attempt"):
            endpoint(server, tmp_path).reply(REQUEST)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401", "the API key is missing, wrong or not allowed"),
        ("403", "the API key is missing, wrong or not allowed"),
        ("404", r"HTTP 404: no, said to \*\*\*: give a judge_model and an endpoint that exist"),
        ("429:insufficient_quota", "the account has no credit left"),
    ],
)
def test_what_cannot_pass_ends_it_at_once(fault: str, message: str, tmp_path: Path) -> None:
    with serving(JudgeServer(lambda number, request: fault)) as server:
        asked = endpoint(server, tmp_path)
        with pytest.raises(Refused, match=message) as first:
            asked.reply(REQUEST)
        with pytest.raises(Refused, match="not asked, since .*" + message):
            asked.reply({**REQUEST, "seed": 1})
    assert len(server.requests) == 1
    assert KEY not in str(first.value)


def test_a_request_that_is_refused_is_that_items_alone(tmp_path: Path) -> None:
    with serving(JudgeServer(failing("400"))) as server:
        asked = endpoint(server, tmp_path)
        with pytest.raises(Refused, match=r"refused this request with HTTP 400: no, said to \*\*\*"):
            asked.reply(REQUEST)
        assert asked.reply(REQUEST)["model"] == "fake-judge-1"


def test_a_kept_reply_is_never_asked_for_again_and_is_the_requests_own(tmp_path: Path) -> None:
    with serving(JudgeServer()) as server:
        first = endpoint(server, tmp_path).reply(REQUEST)
        assert endpoint(server, tmp_path).reply(REQUEST) == first
        assert len(server.requests) == 1
        for other in ({"model": "k"}, {"max_tokens": 8}, {"messages": [{"role": "user", "content": "# Task: "}]}):
            endpoint(server, tmp_path).reply({**REQUEST, **other})
        assert len(server.requests) == 4
    with serving(JudgeServer()) as elsewhere:
        endpoint(elsewhere, tmp_path).reply(REQUEST)
        assert len(elsewhere.requests) == 1
    files = list(tmp_path.rglob("*.json"))
    assert len(files) == 5
    assert all(KEY not in path.read_text() for path in files)


def test_half_a_file_is_no_reply(tmp_path: Path) -> None:
    with serving(JudgeServer()) as server:
        whole = endpoint(server, tmp_path).reply(REQUEST)
        (path,) = tmp_path.rglob("*.json")
        for cut in (b"", path.read_bytes()[:40], b"[]", b'{"key": "another", "choice": {}}'):
            path.write_bytes(cut)
            again = endpoint(server, tmp_path).reply(REQUEST)
            assert again["choice"] == whole["choice"]
    assert len(server.requests) == 5


def test_the_budget_is_never_overdrawn_by_many_at_once(tmp_path: Path) -> None:
    """400 tokens read and 10 written cost 0.42 dollars here; before a call the most it can cost is set aside."""
    budget = Budget((1000.0, 2000.0), 2.5)
    with serving(JudgeServer()) as server:
        asked = endpoint(server, tmp_path, budget)
        reasons: list[str] = []

        def one(number: int) -> None:
            try:
                asked.reply({**REQUEST, "messages": [{"role": "user", "content": f"# Task: {number:400}"}]})
            except Refused as refused:
                reasons.append(str(refused))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert budget.spent == pytest.approx(0.42 * len(server.requests))
    assert 4 <= len(server.requests) <= 5  # 2.5 / 0.42 is 5.95, and the last call may cost more than it did
    assert budget.spent <= 2.5
    assert len(reasons) == 20 - len(server.requests)
    assert all("max_cost=2.5 dollars would be passed" in reason for reason in reasons)


def test_a_call_that_broke_is_booked_as_if_it_was_billed(tmp_path: Path) -> None:
    budget = Budget((1000.0, 2000.0), None)
    with serving(JudgeServer(failing("hang:1", "429", "cut"))) as server:
        endpoint(server, tmp_path, budget, timeout=0.3).reply(REQUEST)
    most = (len("# Task: GOOD") + 100 + 2 * 9) / 1000  # of one call
    assert budget.spent == pytest.approx(0.42 + 2 * most, rel=0.02)


# ---------------------------------------------------------------------------------------------------- whole judgings


@pytest.mark.slow
def test_the_papers_judge_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3_JUDGE_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-others")
    lines: list[bytes] = []

    def look(number: int, request: Any) -> str | None:
        if number == 3:
            lines.extend(command_lines())
        return failing("429", "500", "html")(number, request)

    with serving(JudgeServer(look)) as server:
        scores, result = judged(server)
    assert (result.metric, result.score, result.n_unscored) == ("win rate (chatgpt_fn)", WIN_RATE, 0)
    assert [score.value for score in scores] == [1.0] * 7 + [0.5] + [0.0] * 4
    counts = ("n_wins", "n_wins_base", "n_draws", "n_unparsable", "models")
    assert [result.details[key] for key in counts] == [7, 4, 1, 0, ["fake-judge-1"]]
    assert result.settings["judge_model"] == "gpt-3.5-turbo-16k-0613"
    assert result.settings["endpoint"] == server.url
    assert len(server.requests) == 11 + 3
    assert set(server.keys) == {f"Bearer {KEY}"}
    request = server.requests[-1]
    assert request["tool_choice"]["function"]["name"] == "print_best_model"
    assert (request["max_tokens"], request["temperature"], request["top_p"]) == (50, 0, 1.0)
    assert request["messages"][0]["content"].startswith("You are a helpful instruction-following assistant")
    # Texts are shown as they stand, but in an order of the seed's choice.
    assert any("## Output (a):\n answer 0 {instruction} GOOD" in p or "(b):\n answer 0" in p for p in server.prompts())
    assert len(kept(tmp_path)) == 11
    assert all(KEY not in path.read_text() for path in kept(tmp_path))
    assert any(b"evaluators.alpaca.worker" in line for line in lines)
    assert not any(KEY.encode() in line for line in lines)


def command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_order_is_the_seeds_and_a_win_stays_a_win(tmp_path: Path) -> None:
    from alpaca_eval.utils import random_seeded_choice

    def order(scores: list[Score]) -> list[bool]:
        return [score.notes["swapped"] for score in scores if score.notes["preference"] != 1.5]

    with serving(JudgeServer()) as server:
        found = {seed: judged(server, order_seed=seed) for seed in (0, 1, None)}
        asked = len(server.requests)
        again = judged(server, order_seed=0)
    assert {result.score for _, result in found.values()} == {WIN_RATE}
    for seed in (0, 1):
        expected = [
            random_seeded_choice(f"is_switched_outputs{p.row['instruction']}{seed}", [False, True])
            for p in ITEMS
            if p.id != "7"
        ]
        assert order(found[seed][0]) == expected
        assert len(set(expected)) == 2
    assert not any(order(found[None][0]))
    # Of each item at most two orders exist, and none is asked for twice, under whatever seed it occurs.
    orders = {(p.id, s) for scores, _ in found.values() for p, s in zip(scores, order(scores), strict=False)}
    assert asked == len(set(server.prompts())) <= 22 < 33
    assert len(orders) > 11
    assert again[0] == found[0][0]
    assert len(server.requests) == asked


@pytest.mark.usefixtures("here")
def test_the_weighted_judge_and_equal_answers_of_another_model() -> None:
    with serving(JudgeServer()) as server:
        judge = {"judge": "weighted_alpaca_eval_gpt4_turbo", "judge_model": "gpt-4o-mini"}
        scores, result = judged(server, **judge)
        request = server.requests[0]
        other = [*ANSWERS[:6], Answer("6", "something new")]
        again, _ = evaluate(AlpacaEval(**judge, endpoint=server.url), ITEMS[:7], other)
    assert result.metric == "win rate (weighted_alpaca_eval_gpt4_turbo, gpt-4o-mini)"
    assert [score.value for score in scores] == pytest.approx([0.8] * 7 + [0.5] + [0.2] * 4)
    assert result.details["discrete_win_rate"] == pytest.approx(WIN_RATE)
    assert (request["model"], request["logprobs"], request["top_logprobs"]) == ("gpt-4o-mini", True, 5)
    assert len(server.requests) == 11 + 1
    assert [score.value for score in again] == pytest.approx([0.8] * 6 + [0.2])


@pytest.mark.usefixtures("here")
def test_a_local_judge_is_held_to_its_two_answers() -> None:
    with serving(JudgeServer()) as server:
        _, result = judged(server, judge="local", judge_model="small")
        _, free = judged(server, judge="local", judge_model="small", structured=False)
    assert (result.metric, result.score) == ("win rate (local, small)", WIN_RATE)
    assert server.requests[0]["structured_outputs"] == {"choice": ["Output (a)", "Output (b)"]}
    assert "tools" not in server.requests[0]
    assert "structured_outputs" not in server.requests[-1]
    assert free.score == WIN_RATE


@pytest.mark.usefixtures("here")
def test_what_the_judge_mumbles_is_unscored_and_counted() -> None:
    with serving(
        JudgeServer(lambda number, r: "mumble" if "thing 3." in r["messages"][-1]["content"] else None)
    ) as server:
        scores, result = judged(server)
        judged(server)
    assert (scores[3].value, scores[3].extracted) == (None, "Neither, I like turtles.")
    assert scores[3].reason == 'the judge\'s answer cannot be parsed: "Neither, I like turtles."'
    assert (result.n_scored, result.n_unscored, result.details["n_unparsable"]) == (11, 1, 1)
    assert result.score == pytest.approx(100 * 6.5 / 11)
    assert len(server.requests) == 11  # and it was not asked again


@pytest.mark.usefixtures("here")
def test_only_mumbling_is_no_score_at_all() -> None:
    with serving(JudgeServer(lambda number, request: "mumble")) as server:
        scores, result = evaluate(AlpacaEval(judge="chatgpt_fn", endpoint=server.url), ITEMS[:3], ANSWERS[:3])
    assert [score.value for score in scores] == [None] * 3
    assert (result.score, result.details["n_unparsable"]) == (None, 3)


@pytest.mark.usefixtures("here")
def test_a_judge_that_dies_midway_leaves_the_rest_unscored_and_is_continued(tmp_path: Path) -> None:
    with serving(JudgeServer(lambda number, request: "500" if number >= 5 else None)) as server:
        scores, result = judged(server, retries=1, judge_workers=1)
        done = len(kept(tmp_path))
        assert done == 5
        assert result.n_scored == 5 + 1
        assert all(score.value is not None or "500" in (score.reason or "") for score in scores)
        assert sum("not asked, since" in (score.reason or "") for score in scores) == 11 - 5 - GIVEN_UP
        before = len(server.requests)
        server.fault = lambda number, request: None
        _, whole = judged(server, retries=1, judge_workers=1)
    assert (whole.score, whole.n_unscored) == (WIN_RATE, 0)
    assert len(server.requests) - before == 11 - 5


@pytest.mark.slow
def test_a_killed_judging_process_loses_nothing_that_was_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*args: Any, **kwargs: Any) -> Any:
        started.append(real(*args, **kwargs))
        return started[-1]

    def kill(number: int, request: Any) -> str | None:
        if number == 4:
            os.kill(started[0].pid, signal.SIGKILL)
            return "hang:1"
        return None

    monkeypatch.setattr(alpaca_judges.subprocess, "Popen", popen)
    with serving(JudgeServer(kill)) as server:
        scores, result = judged(server, judge_workers=1)
        lost = [score for score in scores if score.value is None]
        assert (result.n_scored, len(lost)) == (4 + 1, 7)
        assert {s.reason for s in lost} == {"the judging process was killed (signal 9); run the same command again"}
        _, whole = judged(server, judge_workers=1)
    assert (whole.score, whole.n_unscored) == (WIN_RATE, 0)
    assert len(server.requests) == 11 + 1
    assert all(process.poll() is not None for process in started)


@pytest.mark.slow
def test_a_silent_judging_process_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca_judges, "QUIET", 4.0)
    with serving(JudgeServer(lambda number, request: "hang:30")) as server, pytest.raises(M3Error) as found:
        alpaca_judges.ask_worker(_job(server, timeout=20.0), 1.0)
    assert str(found.value) == "the judging process was silent for too long and was ended"


def _job(server: JudgeServer, timeout: float) -> dict[str, Any]:
    config = dict(alpaca_judges.judge_model("chatgpt_fn", "", server.url, None, structured=True).config)
    text = yaml.safe_dump({"chatgpt_fn": config})
    return {
        **{"task": "judge", "name": "chatgpt_fn", "config": text, "order_seed": 0, "pairs": [["i", "r", "a"]]},
        **{"endpoint": server.url, "key_variable": "M3_JUDGE_KEY", "cache": "/nonexistent", "retries": 1},
        **{"backoff": 0.1, "timeout": timeout, "workers": 1, "price": None, "max_cost": None, "offline": None},
    }


@pytest.mark.slow
def test_a_judging_process_that_fails_says_why_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3_JUDGE_KEY", KEY)
    with serving(JudgeServer()) as server:
        job = {**_job(server, 5.0), "name": f"no/such/{KEY}"}
        with pytest.raises(M3Error) as found:
            alpaca_judges.ask_worker(job, 5.0)
    assert "failed (exit code 1: FileNotFoundError" in str(found.value)
    assert KEY not in str(found.value)


@pytest.mark.usefixtures("here")
def test_no_key_no_address_and_then_the_same_command_finishes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, result = evaluate(AlpacaEval(judge="chatgpt_fn"), ITEMS, ANSWERS)
    assert (result.n_scored, result.score) == (1, 50.0)  # the draw, for which no judge is needed
    reasons = {score.reason for score in scores if score.value is None}
    assert len(reasons) == 1
    assert "set OPENAI_API_KEY and run the same command again" in str(reasons.pop())
    local = AlpacaEval(judge="local", judge_model="small", backoff=0.01)
    scores, _ = evaluate(local, ITEMS, ANSWERS)
    assert "set M3_JUDGE_ENDPOINT=http://HOST:PORT/v1" in str(scores[0].reason)
    with serving(JudgeServer()) as server:
        monkeypatch.setenv("M3_JUDGE_ENDPOINT", server.url)
        _, result = evaluate(local, ITEMS, ANSWERS)
    assert (result.score, result.settings["endpoint"]) == (WIN_RATE, server.url)


@pytest.mark.usefixtures("here")
def test_the_cap_stops_before_it_is_passed_and_a_higher_one_goes_on() -> None:
    prices = {"price_in": 1000.0, "price_out": 2000.0}
    with serving(JudgeServer()) as server:
        scores, result = judged(server, max_cost=3.0, **prices)
        paid = len(server.requests)
        assert 0 < paid * 0.42 <= 3.0
        assert result.n_unscored == 11 - paid
        assert all("max_cost=3 dollars would be passed" in str(s.reason) for s in scores if s.value is None)
        _, result = judged(server, max_cost=1e4, **prices)
        assert (result.score, len(server.requests)) == (WIN_RATE, 11)


@pytest.mark.usefixtures("here")
def test_a_cap_on_an_unknown_price_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    evaluator = AlpacaEval(judge="chatgpt_fn", judge_model="gpt-99", max_cost=1.0)
    scores, _ = evaluate(evaluator, ITEMS[:2], ANSWERS[:2])
    assert {s.reason for s in scores} == {
        "max_cost is set but the price of gpt-99 is not known: set price_in and price_out too"
    }


@pytest.mark.slow
def test_a_judging_process_ends_with_its_parent(tmp_path: Path) -> None:
    """Its standard input is closed when the parent dies, however it dies."""
    reached = threading.Event()

    def hang(number: int, request: Any) -> str:
        reached.set()
        return "hang:60"

    with serving(JudgeServer(hang)) as server:
        job = json.dumps({**_job(server, 60.0), "cache": str(tmp_path)}).encode() + b"\n"
        command = [sys.executable, "-m", "evaluators.alpaca.worker"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            process.stdin.write(job)
            process.stdin.flush()
            assert reached.wait(120)
            assert process.poll() is None
            process.stdin.close()
            assert process.wait(20) == 3
