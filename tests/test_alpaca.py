"""AlpacaEval's figures: published judgments, the package's own aggregation, prices, settings and file formats."""

import csv
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from evaluators.alpaca import AlpacaEval
from evaluators.alpaca import judges as alpaca_judges
from evaluators.alpaca import metrics as alpaca_metrics
from m3_exp import cli
from m3_exp.scoring.evaluate import evaluate
from m3_exp.types import Answer, M3Error, Problem, Result, Score

DATA = Path(os.environ.get("M3_DATA", ""))
PUBLISHED = DATA / "published_outputs" / "alpaca_eval"
WIZARD = PUBLISHED / "wizardlm-13b.weighted_alpaca_eval_gpt4_turbo.json.gz"
official = pytest.mark.skipif(not os.environ.get("M3_DATA"), reason="M3_DATA is not set: it names the folder of data")


def problems(n: int) -> list[Problem]:
    return [Problem(str(i), {"instruction": f"i{i}", "output": f"reference {i}"}) for i in range(n)]


def precomputed(tmp_path: Path, preferences: list[Any], **more: Any) -> tuple[list[Score], Result]:
    """Score one answer an item with a file of judgments that holds these preferences."""
    rows = [
        {"instruction": f"i{i}", "output_1": f"reference {i}", "output_2": f"answer {i}", "preference": value, **more}
        for i, value in enumerate(preferences)
    ]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows))
    answers = [Answer(str(i), f"answer {i}") for i in range(len(preferences))]
    evaluator = AlpacaEval(judge="precomputed", annotations=str(path))
    return evaluate(evaluator, problems(len(preferences)), answers)


# ------------------------------------------------------------------------------------------------ published judgments


@official
def test_the_published_judgments_give_the_leaderboards_figures() -> None:
    """Win rate, standard error, counts, n, discrete win rate and mean length, to the digits that are printed."""
    with (PUBLISHED / "leaderboard_alpaca_eval_2.csv").open() as file:
        printed = next(row for row in csv.DictReader(file) if row[""] == "wizardlm-13b")
    evaluator = AlpacaEval(judge="precomputed", annotations=str(WIZARD))
    items = evaluator.problems("official")
    answers = evaluator.answers(WIZARD, items)
    assert answers is not None
    scores, result = evaluate(evaluator, items, answers)
    assert result.metric == "win rate (weighted_alpaca_eval_gpt4_turbo over gpt4_1106_preview, precomputed)"
    assert (result.n, result.n_unscored) == (int(printed["n_total"]), 0)
    assert result.score == pytest.approx(float(printed["win_rate"]), rel=1e-12)
    for key in ("standard_error", "discrete_win_rate"):
        assert result.details[key] == pytest.approx(float(printed[key]), rel=1e-12)
    for key in ("n_wins", "n_wins_base", "n_draws", "avg_length"):
        assert result.details[key] == int(printed[key])
    rows = {row["instruction"]: row["preference"] for row in json.loads(gzip.decompress(WIZARD.read_bytes()))}
    assert [score.value for score in scores] == [rows[item.row["instruction"]] - 1 for item in items]


@official
def test_other_answers_than_the_judged_ones_are_unscored() -> None:
    evaluator = AlpacaEval(judge="precomputed", annotations=str(WIZARD))
    items = evaluator.problems("official")[:2]
    scores, result = evaluate(evaluator, items, [Answer("0", "something else"), Answer("1", "")])
    assert (result.score, result.n_unscored) == (None, 2)
    assert all("judges another answer to this instruction" in str(score.reason) for score in scores)
    elsewhere = [Problem("0", {"instruction": "not judged", "output": "x"})]
    scores, _ = evaluate(evaluator, elsewhere, [Answer("0", "y")])
    assert "holds no judgment to this instruction" in str(scores[0].reason)


@pytest.mark.parametrize(
    "preferences",
    [
        [1, 2, 2, 1.5, 0, 1],
        [1.0, 2.0, None, 1.5, float("nan"), 2.0, 0.0],
        [1.2, 1.5000001, 1.4999999, 1.99, 1.0, 1.5],
        [2, 2, -1, 3, 2.5, 1],
        [1, 1],
        [2],
    ],
)
def test_figures_are_the_packages_own(preferences: list[Any], tmp_path: Path) -> None:
    """Against alpaca_eval.metrics.get_winrate. Old files write a draw as 0; what is no preference does not count."""
    from alpaca_eval.metrics import get_winrate

    theirs = get_winrate([{"preference": value} for value in preferences if value is not None and value == value])
    scores, result = precomputed(tmp_path, preferences)
    assert result.n_scored == theirs["n_total"]
    assert result.score == pytest.approx(theirs["win_rate"], abs=1e-10)
    if theirs["n_total"] > 1:
        assert result.details["standard_error"] == pytest.approx(theirs["standard_error"], abs=1e-10)
    else:
        assert result.details["standard_error"] is None
    for key in ("n_wins", "n_wins_base", "n_draws"):
        assert result.details[key] == theirs[key]
    valid = [value for value in preferences if alpaca_metrics.preference(value) is not None]
    discrete = get_winrate([{"preference": value} for value in valid])["discrete_win_rate"]
    assert result.details["discrete_win_rate"] == pytest.approx(discrete)
    assert result.details["n_unparsable"] == len(preferences) - len(valid) == sum(s.value is None for s in scores)


def test_a_file_without_one_preference_is_no_zero(tmp_path: Path) -> None:
    scores, result = precomputed(tmp_path, [None, None], annotator="chatgpt_fn", generator_1="text_davinci_003")
    assert (result.score, result.n_unscored, result.details["n_unparsable"]) == (None, 2, 2)
    assert result.metric == "win rate (chatgpt_fn over text_davinci_003, precomputed)"
    assert "is no preference: None" in str(scores[0].reason)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"instruction": "i"}]', "row 0: a judgment needs the texts instruction and output_2"),
        ('[{"instruction": "i", "output_2": "o"}]', "row 0: a judgment needs a preference"),
        ('{"instruction": "i"}', "must hold one JSON array"),
        ("[", "is not valid JSON"),
    ],
)
def test_a_broken_file_of_judgments_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(M3Error, match=message):
        AlpacaEval(judge="precomputed", annotations=str(path)).problems("lab")


# -------------------------------------------------------------------------------------------------- length control


def test_no_length_control_on_other_items(tmp_path: Path) -> None:
    _, result = precomputed(tmp_path, [1, 2])
    assert result.details["length_controlled_winrate"] is None
    assert "805 official items only" in result.details["length_controlled_reason"]


@pytest.mark.slow
@official
def test_length_control_is_the_packages_where_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is of the right form but made up here; the package's own fit on the whole texts must agree."""
    import pandas as pd
    from alpaca_eval.metrics import glm_winrate

    judgments = json.loads(gzip.decompress(WIZARD.read_bytes()))
    folder = tmp_path / "alpaca_eval"
    folder.mkdir()
    gamed = _made_up_gamed(folder / "df_gamed.csv")
    (folder / "reference_gpt4_1106_preview.json").symlink_to(DATA / "alpaca_eval" / "reference_gpt4_1106_preview.json")
    monkeypatch.setenv("M3_DATA", str(tmp_path))
    evaluator = AlpacaEval(judge="precomputed", annotations=str(WIZARD))
    items = evaluator.problems("official")
    _, result = evaluate(evaluator, items, evaluator.answers(WIZARD, items) or [])
    monkeypatch.setattr(glm_winrate, "hf_hub_download", lambda **_: str(gamed))
    theirs = glm_winrate.get_length_controlled_winrate(
        pd.DataFrame(judgments), save_weights_dir=None, is_add_glm_preference_inplace=False
    )
    for key in ("length_controlled_winrate", "lc_standard_error"):
        assert result.details[key] == pytest.approx(theirs[key], rel=1e-9)
    assert result.details["length_controlled_winrate"] != pytest.approx(result.score or 0.0, abs=0.5)


def _made_up_gamed(path: Path) -> Path:
    """Write what df_gamed.csv holds: for two models, each item's preference, length difference and difficulty."""
    with (DATA / "alpaca_eval" / "instruction_difficulty_recovered.csv").open() as file:
        difficulty = {int(row["index"]): float(row["instruction_difficulty"]) for row in csv.DictReader(file)}
    lines = ["model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline"]
    for model, length in (("concise", 1.0), ("verbose", -1.0)):
        for index, value in difficulty.items():
            preference = min(1.0, max(0.0, 0.5 - 0.3 * length + 0.02 * value + 0.1 * ((index * 37) % 11 - 5) / 5))
            lines.append(f"{model},{index},{preference},{length * (0.5 + index % 7 / 7)},{value},False")
    path.write_text("\n".join(lines) + "\n")
    return path


@official
def test_without_its_file_length_control_says_what_to_fetch() -> None:
    evaluator = AlpacaEval(judge="precomputed", annotations=str(WIZARD))
    items = evaluator.problems("official")
    details = evaluate(evaluator, items, evaluator.answers(WIZARD, items) or [])[1].details
    if (DATA / "alpaca_eval" / "df_gamed.csv").exists():
        pytest.skip("df_gamed.csv is in M3_DATA")
    assert details["length_controlled_winrate"] is None
    assert "put df_gamed.csv" in details["length_controlled_reason"]


@official
def test_length_control_refuses_another_reference(tmp_path: Path) -> None:
    path = DATA / "alpaca_eval" / "reference_text_davinci_003.json"
    evaluator = AlpacaEval(judge="precomputed", annotations=str(WIZARD))
    items = evaluator.problems(str(path))
    scores = [Score(p.id, 0.5, notes={"length": 3, "reference_length": len(p.row["output"])}) for p in items]
    assert "AlpacaEval 2 reference" in alpaca_metrics.length_controlled(scores)["length_controlled_reason"]


# ---------------------------------------------------------------------------------------------------- own schema


def test_answers_in_alpacaevals_own_schema(tmp_path: Path) -> None:
    evaluator = AlpacaEval()
    path = tmp_path / "model_outputs.json"
    path.write_text(json.dumps([{"instruction": "i1", "output": "b"}, {"instruction": "i0", "output": "a"}]))
    assert evaluator.answers(path, problems(2)) == [Answer("1", "b"), Answer("0", "a")]
    path.write_text(json.dumps([{"instruction": "i1", "output_2": "b"}, {"instruction": "i1", "output_2": "c"}]))
    assert evaluator.answers(path, problems(2)) == [Answer("1", "b"), Answer("1", "c", 1)]
    assert evaluator.answers(tmp_path / "answers.jsonl", problems(2)) is None
    for row, message in (({"instruction": "i9", "output": "b"}, "no item has"), ({"instruction": "i1"}, "no text")):
        path.write_text(json.dumps([row]))
        with pytest.raises(M3Error, match=message):
            evaluator.answers(path, problems(2))


# ------------------------------------------------------------------------------------------------ settings and cost


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge": "gpt5"}, "judge=gpt5 is not known, allowed are rules, precomputed, local, .*chatgpt_fn"),
        ({"judge": "local"}, "needs judge_model=NAME"),
        ({"judge": "precomputed"}, "needs annotations=FILE"),
        ({"judge": "chatgpt_fn", "endpoint": "localhost:8000"}, "is not an address such as"),
        ({"judge": "chatgpt_fn", "endpoint": "ftp://x/v1"}, "is not an address such as"),
        ({"judge_max_tokens": 0}, "judge_max_tokens=0 must be a whole number of at least 1, or null"),
        ({"order_seed": -1}, "order_seed=-1 must be a whole number of at least 0, or null"),
        ({"order_seed": True}, "order_seed=True must be"),
        ({"max_cost": -1.0}, "max_cost=-1.0 must be a number of dollars"),
        ({"max_cost": "5"}, "max_cost=5 must be a number of dollars"),
        ({"price_in": 1.0}, "price_in and price_out .* go together"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(M3Error, match=message) as found:
        AlpacaEval(**settings)
    assert "\n" not in str(found.value)


def test_a_key_in_an_address_is_refused_and_not_shown() -> None:
    for address in ("https://user:sk-secret@host/v1", "https://host/v1?key=sk-secret"):
        with pytest.raises(M3Error) as found:
            AlpacaEval(judge="chatgpt_fn", endpoint=address)
        assert "sk-secret" not in str(found.value)


def test_openais_key_goes_to_openai_alone() -> None:
    def judge(name: str, endpoint: str) -> alpaca_judges.JudgeModel:
        return alpaca_judges.judge_model(name, "m", endpoint, None, structured=True)

    assert judge("chatgpt_fn", "").key_variable == "OPENAI_API_KEY"
    assert judge("chatgpt_fn", "").endpoint == "https://api.openai.com/v1"
    assert judge("chatgpt_fn", "http://127.0.0.1:8000/v1/").key_variable == "M3_JUDGE_KEY"
    assert judge("local", "").endpoint == ""
    assert judge("local", "http://127.0.0.1:8000/v1/").endpoint == "http://127.0.0.1:8000/v1"


def test_the_forecast_counts_calls_tokens_and_dollars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    items = problems(10)
    paper = AlpacaEval(judge="chatgpt_fn").cost(items)
    assert paper is not None
    assert (paper.calls, paper.completion_tokens) == (10, 500)
    assert 2000 < paper.prompt_tokens < 6000
    assert paper.dollars == pytest.approx((paper.prompt_tokens * 3 + 500 * 4) / 1e6, abs=1e-4)
    assert "chatgpt_fn with gpt-3.5-turbo-16k-0613, 3/4 $ per 1M" in paper.basis
    unknown = AlpacaEval(judge="chatgpt_fn", judge_model="new-judge").cost(items)
    assert unknown is not None
    assert (unknown.dollars, unknown.prompt_tokens) == (None, paper.prompt_tokens)
    given = AlpacaEval(judge="chatgpt_fn", judge_model="new-judge", price_in=1e6, price_out=0.0).cost(items)
    assert given is not None
    assert given.dollars == paper.prompt_tokens
    own = AlpacaEval(judge="local", judge_model="m", endpoint="http://localhost:8000/v1").cost(items)
    assert own is not None
    assert own.dollars == 0.0
    assert AlpacaEval(judge="rules").cost(items) is None


@pytest.mark.slow
def test_a_plan_says_what_its_judges_take(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    judges = ["-m", "evaluator.alpaca_eval.judge=chatgpt_fn,rules"]
    assert cli.main(["plan", *judges, "pair=lm", "evaluator=[alpaca_eval]", f"store={tmp_path}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    cells = {cell["evaluator"]["settings"]["judge"]: cell for cell in found["cells"]}
    cost, n = cells["chatgpt_fn"]["cost"], cells["chatgpt_fn"]["n"]
    assert cost["calls"] == n > 0
    assert found["totals"]["judging_dollars"] == cost["dollars"] > 0
    (line,) = [note for note in found["notes"] if note.startswith("judging alpaca_eval:")]
    assert f"{n} calls" in line
    assert "dollars a cell, 1 cell " in line
    assert cells["rules"]["cost"] is None


@official
def test_the_forecast_meets_what_the_published_judgments_cost() -> None:
    """801 of the 805 prices are stated, 10 dollars per million tokens; answers are taken as they were."""
    rows = json.loads(gzip.decompress(WIZARD.read_bytes()))
    paid = [row for row in rows if row["price_per_example"] is not None]
    judge = alpaca_judges.judge_model("weighted_alpaca_eval_gpt4_turbo", "", "", None, structured=True)
    pairs = [alpaca_judges.Pair(row["instruction"], row["output_1"], row["output_2"]) for row in paid]
    forecast = alpaca_judges.forecast(judge, pairs, (10.0, 10.0))
    assert len(paid) == 801
    assert forecast.dollars == pytest.approx(sum(row["price_per_example"] for row in paid), rel=0.02)


def test_the_contracts_optional_parts() -> None:
    evaluator = AlpacaEval(judge="rules")
    item = Problem("0", {"instruction": "x", "output": "gold", "rules": [{"rule": "equals", "text": "gold"}]})
    answers = [Answer("0", evaluator.gold(item) or ""), Answer("0", str(evaluator.wrong(item)), 1)]
    assert [score.value for score in evaluator.score([item, item], answers)] == [1.0, 0.0]
    assert AlpacaEval(judge="chatgpt_fn").gold(item) is None
    assert AlpacaEval(judge="chatgpt_fn").wrong(item) is None
    assert set(evaluator.operational) < set(AlpacaEval.__dataclass_fields__)
    assert "max_cost" in evaluator.operational
    assert not set(AlpacaEval.operational) & {"judge", "judge_model", "endpoint", "order_seed", "judge_max_tokens"}


def test_a_chat_template_gets_the_bare_instruction() -> None:
    assert AlpacaEval(chat_template=True).prompt(problems(1)[0]) == "i0"
    assert AlpacaEval().prompt(problems(1)[0]).endswith("USER: i0 ASSISTANT:")
