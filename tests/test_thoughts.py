"""Thoughts of reasoning models: what is dropped before anything is judged, and what only looks like one."""

import re
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evaluators.alpaca import AlpacaEval
from evaluators.alpaca import judges as alpaca_judges
from evaluators.alpaca.judges import Verdict
from evaluators.gsm8k import GSM8K
from evaluators.livebench_instruction_following import LiveBenchInstructionFollowing
from evaluators.livebench_typos import LiveBenchTypos
from evaluators.prompt_bench import SST2
from m3_exp.reporting.tables.footers import _thoughts
from m3_exp.scoring.evaluate import UNCLOSED, evaluate, score_file
from m3_exp.scoring.thoughts import drop, drop_as_livebench, held
from m3_exp.types import Answer, EvaluatorSpec, M3Error, Problem
from tests.files import write_lines

PROGRAM = 'def f():\n    print("<think>")\n    return "</think>"\n'
MARKS = [
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"), ("<seed:think>", "</seed:think>"), ("<THINK>", "</Think>"),
    ('<think type="deep">', "</think>"), ("<think >", "</think >"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"), ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>thought", "<channel|>"),
]  # fmt: skip


@pytest.mark.parametrize(("opening", "closing"), MARKS)
class TestEveryKind:
    def test_a_thought_goes_and_the_answer_stays(self, opening: str, closing: str) -> None:
        for before in ("", "\n\n  "):
            for inside in ("", "\n", "\nFirst 4 * 7.\n\n```python\nx = 1\n```\n", " one line "):
                assert drop(f"{before}{opening}{inside}{closing}\n\nIt is 28.\n") == "It is 28.\n"

    def test_the_template_opened_it(self, opening: str, closing: str) -> None:
        assert drop(f"First 4 * 7.\n{closing}\n\nIt is 28.") == "It is 28."
        assert drop(f"\n{closing}\nIt is 28.") == "It is 28."
        assert drop(f"Is it 28?{closing}It is 28.") == "It is 28."

    def test_it_does_not_end(self, opening: str, closing: str) -> None:
        assert drop(f"{opening}\nFirst 4 * 7 = 28. The answer is: 28") is None
        assert drop(f"{opening}") is None
        assert drop(f"{opening}a{closing}\n{opening}b") is None

    def test_several_and_nested_ones(self, opening: str, closing: str) -> None:
        assert drop(f"{opening}a{closing}\n\n{opening}b{closing}\nIt is 28.") == "It is 28."
        assert drop(f"{opening}a {opening}b{closing} c{closing}It is 28.") == "It is 28."
        assert drop(f"{opening}a{closing}\nFirst.\n{opening}\nb\n{closing}\nThen.") == "First.\n\nThen."
        assert drop(f"a\n{closing}\n\n{closing}\n\nIt is 28.") == "It is 28."

    def test_nothing_behind_it(self, opening: str, closing: str) -> None:
        assert drop(f"{opening}a{closing}") == ""

    def test_indentation_of_the_answer_stays(self, opening: str, closing: str) -> None:
        assert drop(f"{opening}a{closing}\n\n    return 1\n") == "    return 1\n"

    def test_a_mark_that_the_thought_mentions(self, opening: str, closing: str) -> None:
        assert drop(f'{opening}\nPrint "{opening}" first.\n{closing}\n{PROGRAM}') == PROGRAM
        assert drop(f"{opening}\nPrint {opening} first.\n{closing}\nyes") == "yes"
        assert drop(f"{opening}\nThe mark `{closing}` ends it.\n{closing}\nyes") == "yes"
        assert drop(f"I print `{opening}`.\n{closing}\nyes") == "yes"


@pytest.mark.parametrize("text", [
    "", "   \n", "It is 28.", PROGRAM, f"```python\n{PROGRAM}```\n", "Write `<think>` before the thought.",
    'import re\nre.sub(r"<think>.*?</think>", "", text)\n', "print('</think>')", "print(\"</think>\\n\")",
    "```python\ntext = '''\na </think> b'''\n```", "The tags <think> and </think> mark thoughts.",
    "I <think> so.", "It is 5.\n<think>Is it? Let me see", "<thinker>a</thinker>", "a < b and c > d", "[think] a",
    "Think. <b>28</b>", "<reason>no</reason> 28", "analysis of it: 28", "The channel is final.",
])  # fmt: skip
def test_what_is_no_thought_stays(text: str) -> None:
    assert drop(text) == text
    assert not held(text)


def test_a_later_thought_may_be_one_line() -> None:
    later = "First.\n<think>b</think>\nSecond."
    assert drop(f"<think>a</think>\n{later}") == "First.\n\nSecond."
    assert drop(later) == "First.\n\nSecond."
    for text in ("First.\n<think>b</think> c\nSecond.", "```\n<think>b</think>\n```", "a <think>b</think>\nc"):
        assert drop(text) == text


def test_a_byte_order_mark_may_stand_before_a_thought() -> None:
    assert drop("\ufeff<think>a</think>\nb") == "b"


def test_marks_around_an_answer_behind_a_thought() -> None:
    thought = "<|begin_of_thought|>\nWell.\n<|end_of_thought|>\n\n"
    assert drop(f"{thought}<|begin_of_solution|>\nIt is 28.\n<|end_of_solution|>") == "It is 28.\n"
    assert drop(f"{thought}<|begin_of_solution|>It is") == "It is"
    assert drop("<think>a</think>\n<answer>\n28\n</answer>\n") == "28\n"
    assert drop("<think>a</think>\n<answer>28</answer> or 29") == "<answer>28</answer> or 29"
    assert drop("<answer>28</answer>") == "<answer>28</answer>"


class TestChannels:
    @pytest.mark.parametrize("before", ["", "<|start|>assistant", "\n"])
    def test_the_final_channel_is_the_answer(self, before: str) -> None:
        thought = f"{before}<|channel|>analysis<|message|>Well, <b>.<|end|>"
        final = "<|start|>assistant<|channel|>final<|message|>It is 28."
        assert drop(thought + final) == "It is 28."
        assert drop(thought + final + "<|return|>") == "It is 28."
        assert drop(f"{thought}<|start|>assistant<|channel|>commentary<|message|>So.<|end|>{final}") == "It is 28."
        assert drop("<|channel|>final <|constrain|>json<|message|>{}<|return|>") == "{}"

    def test_the_template_opened_it(self) -> None:
        assert drop("Well.<|end|><|start|>assistant<|channel|>final<|message|>28<|return|>") == "28"

    def test_without_special_tokens(self) -> None:
        assert drop("analysisWe need 4 * 7.assistantfinalIt is 28.") == "It is 28."

    def test_it_does_not_end(self) -> None:
        assert drop("<|channel|>analysis<|message|>Well, 28") is None
        assert drop("analysisWe need 4 * 7") is None


@pytest.mark.parametrize("text", [
    "<think>a</think>b", "a<think>b</think>c<think>\nd</think>e", "<think>a", "a</think>b",
    "<think><think>a</think>b</think>c",
    "</think><think>a</think>", "<THINK>a</THINK>b", "<think>a</think>\n\n b ", "", "<think></think>",
])  # fmt: skip
def test_livebench_removes_what_its_pattern_matches(text: str) -> None:
    """The pattern of gen_ground_truth_judgment.py."""
    assert drop_as_livebench(text) == re.sub("<think>.*?</think>", "", text, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("part", [
    "<think>", "</think>", "<think>\n", "</think>\n", "<think></think>", "\n<think>\na\n</think>", "```\n", "<",
    "< ", "[THINK]",
    "<|channel|>", "<|channel|>final", "<answer>", "</answer>", "<think>a</think>\n<answer>", "\n", " ",
])  # fmt: skip
def test_a_hostile_text_takes_no_time(part: str) -> None:
    text = part * (400_000 // len(part))
    start = time.monotonic()
    drop(text)
    drop("<think>" + text)
    drop_as_livebench(text)
    assert time.monotonic() - start < 3


GSM = [Problem(str(k), {"question": "How many?", "answer": "#### 28"}) for k in range(3)]
TEXTS = ("<think>The answer is: 3</think>\nThe answer is: 28", "<think>The answer is: 28", "The answer is: 28")


class TestTheDrop:
    def test_it_comes_before_the_extractor(self) -> None:
        answers = [Answer(str(k), text) for k, text in enumerate(TEXTS)]
        scores, result = evaluate(GSM8K(chat_template=True), GSM, answers)
        assert [score.value for score in scores] == [1.0, 0.0, 1.0]
        assert (scores[1].reason, scores[1].extracted) == (UNCLOSED, None)
        assert result.details["unclosed_thoughts"] == 1
        assert "thoughts_kept" not in result.details
        assert (result.n_scored, result.n_unscored) == (3, 0)

    def test_kept_ones_are_counted(self) -> None:
        answers = [Answer(str(k), text) for k, text in enumerate(TEXTS)]
        scores, result = evaluate(GSM8K(), GSM, answers)
        assert [score.value for score in scores] == [1.0, 1.0, 1.0]
        assert result.details["thoughts_kept"] == 2

    def test_without_thoughts_nothing_is_said(self) -> None:
        _, result = evaluate(GSM8K(chat_template=True), GSM[2:], [Answer("2", TEXTS[2])])
        assert result.details.keys() & {"unclosed_thoughts", "thoughts_kept"} == set()


class TestTheDefault:
    @pytest.mark.parametrize(("evaluator", "expected"), [
        (GSM8K(), "keep"), (GSM8K(chat_template=True), "drop"), (GSM8K(thought="drop"), "drop"),
        (GSM8K(chat_template=True, thought="keep"), "keep"), (AlpacaEval(), "keep"),
        (LiveBenchInstructionFollowing(), "keep"), (LiveBenchInstructionFollowing(answer="livebench"), "drop"),
        (LiveBenchInstructionFollowing(answer="livebench", thought="keep"), "keep"),
        (LiveBenchTypos(), "keep"), (LiveBenchTypos(rule="livebench"), "drop"),
    ])  # fmt: skip
    def test_it_depends_on_the_prompt_and_the_rules(self, evaluator: Any, expected: str) -> None:
        assert evaluator.thought == expected

    def test_another_value_is_refused(self) -> None:
        with pytest.raises(M3Error, match=r"gsm8k: thought=maybe is not known; allowed: drop, keep, or null"):
            GSM8K(thought="maybe")  # type: ignore[arg-type]


class TestLiveBenchRules:
    def test_its_judge_leaves_what_its_pattern_does_not_match(self) -> None:
        evaluator = LiveBenchInstructionFollowing(answer="livebench")
        assert evaluator.judged("<think>a</think>\n\nb \n") == "b"
        assert evaluator.judged("a</think>b ") == "a</think>b"
        assert evaluator.judged("<think>a") == "<think>a"
        assert LiveBenchTypos(rule="livebench").judged("<think>a</think>\n\nb \n") == "\n\nb \n"

    def test_with_a_chat_template_every_thought_goes(self) -> None:
        evaluator = LiveBenchInstructionFollowing(answer="livebench", chat_template=True)
        assert evaluator.judged("a</think>b ") == "b"
        assert evaluator.judged("<think>a") is None
        assert evaluator.judged("Well. <think>a</think>b") == "Well. b"

    def test_kept_ones_stay(self) -> None:
        evaluator = LiveBenchInstructionFollowing(answer="livebench", thought="keep")
        assert evaluator.judged("<think>a</think> b ") == "<think>a</think> b "


class TestScore:
    @pytest.mark.slow
    def test_it_warns_of_thoughts_that_are_judged(self, tmp_path: Path) -> None:
        items, answers = tmp_path / "items.jsonl", tmp_path / "answers.jsonl"
        write_lines(items, (problem.row for problem in GSM))
        write_lines(answers, ({"id": str(k), "text": text} for k, text in enumerate(TEXTS)))
        spec = EvaluatorSpec("gsm8k", "evaluators.gsm8k:GSM8K", {}, str(items))
        found, code = score_file(spec, answers, audit=True)
        assert (code, found["score"]) == (0, 100.0)
        assert found["warning"].startswith("2 of 3 answers hold a thought")
        assert "thought=drop" in found["warning"]
        dropped = EvaluatorSpec("gsm8k", "evaluators.gsm8k:GSM8K", {"thought": "drop"}, str(items))
        found, _ = score_file(dropped, answers, audit=True)
        assert found["score"] == pytest.approx(200 / 3)
        assert "warning" not in found
        assert found["audit"]["details"]["unclosed_thoughts"] == 1
        assert found["audit"]["extractors"]["paper"]["score"] == found["score"]


def test_an_audit_shows_each_rule_with_its_own_default() -> None:
    """Under answer=paper thoughts are kept, under answer=livebench its judge drops them: each column as it would be."""
    row = {
        **{"question_id": "q", "task": "simplify", "turns": ["No commas."], "livebench_release_date": "2024-11-25"},
        **{"livebench_removal_date": "", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    }
    problem, answer = Problem("q", row), Answer("q", "<think>a, b</think>\n\nc")
    found = LiveBenchInstructionFollowing().audit([problem], [answer])
    assert [found["extractors"][way]["score"] for way in ("paper", "livebench")] == [0.0, 100.0]


def test_an_unclosed_thought_is_never_sent_to_a_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def verdicts(model: object, pairs: Any, *rest: object) -> list[Verdict]:
        asked.extend(pair.answer for pair in pairs)
        return [Verdict(2.0) for _ in pairs]

    monkeypatch.setattr(alpaca_judges, "verdicts", verdicts)
    problems = [Problem(key, {"instruction": "Do.", "output": "Done."}) for key in ("0", "1", "2")]
    texts = ("<think>a</think>\nb", "<think>a", "c")
    answers = [Answer(problem.id, text) for problem, text in zip(problems, texts, strict=True)]
    scores, _ = evaluate(AlpacaEval(judge="chatgpt_fn", judge_model="m", thought="drop"), problems, answers)
    assert asked == ["b", "c"]
    assert [score.value for score in scores] == [1.0, 0.0, 1.0]
    assert scores[1].reason == UNCLOSED


def test_what_a_search_hears_is_without_thoughts() -> None:
    texts = ["<think>a</think>\npositive", "<think>positive", "positive"]
    assert [SST2(chat_template=True).judged(text) for text in texts] == ["positive", None, "positive"]
    assert [SST2().judged(text) for text in texts] == texts


def test_tables_say_which_cells_hold_thoughts() -> None:
    details = [{"thoughts_kept": 3}, {"thoughts_kept": 5}, {"unclosed_thoughts": 2}, {}]
    done = pd.DataFrame({"benchmark": ["gsm8k", "gsm8k", "mbpp", "mbpp"], "details": details})
    assert _thoughts(done) == [
        "answers that hold a thought that was judged with the answer (thought=drop drops it): gsm8k up to 5 a cell",
        "answers that are unclosed thoughts, which count as no answer: mbpp up to 2 a cell",
    ]
    assert _thoughts(done[3:]) == []
