"""PromptBench's labels: the paper's last word, and the label that an answer states however it is dressed."""

import time

import pytest

from evaluators.prompt_bench import SST2, CoLA
from evaluators.prompt_bench.labels import stated
from m3_exp.scoring.evaluate import evaluate
from m3_exp.types import Answer, M3Error, Problem

LABELS = ("negative", "positive")

POSITIVE = [
    "<positive>", "Answer: <positive>", "Positive rather than negative", "The sentiment is not negative but positive.",
    "positive", "Positive", "POSITIVE", "Positive.", "positive!", "'positive'", '"Positive"', "“positive”",
    "`positive`",
    "**Positive**", "*positive*", "__positive__", "_positive_", "***Positive.***", "**Positive**.", "### Positive",
    "> positive", "- positive", "* Positive", "1. positive", "(positive)", "[positive]", "positive 😀",
    "✅ Positive", "𝐏𝐨𝐬𝐢𝐭𝐢𝐯𝐞",
    "  positive  \n", "\n\npositive\n\n", "positive</s>", "positive<|im_end|>", "positive<|eot_id|>",
    "positive<|endoftext|>",
    "positive<|im_end|>\n<|im_start|>user\nnegative", "<pad>positive<pad><pad>", "positive<end_of_turn>\nnegative",
    "\\boxed{positive}", "$\\boxed{\\text{positive}}$", "The answer is \\boxed{\\textbf{Positive}}.",
    "<answer>positive</answer>", "<b>Positive</b>", "```\npositive\n```",
    "```json\n{\"sentiment\": \"positive\"}\n```",
    '{"label": "positive"}', '{"label": "Positive", "reason": "It is not negative at all."}',
    "{'sentiment': 'positive'}",
    '{"options": ["positive", "negative"], "label": "positive"}',
    "Label: positive", "Label: **Positive**", "**Label:** Positive", "Sentiment: Positive", "Answer - positive",
    "Answer: 'positive'",
    "Final answer: positive", "**Sentiment:** *positive*\n\n**Explanation:** Nothing in it is negative.",
    "Output:\npositive",
    "The sentiment is positive.", "The sentiment is **Positive**.", "The sentiment of the text is 'positive'.",
    "The text is positive.", "This is a positive review.", "It's positive.",
    "I would classify this text as positive.",
    "The review can be considered positive.", "It is overwhelmingly positive.",
    "The sentence expresses a positive sentiment.",
    "Sure.\npositive", "Sure! Here is the label:\n\n**positive**", "Sure. Positive.",
    "Positive. Because the film is warm.",
    "positive\n\nExplanation: it is warm.", "positive, because it is warm", "Positive (it is warm)",
    "Positive - it is warm.",
    "Positive: the film is warm and funny.", "Positive — it is warm", "positive because of 'warm'",
    "positive; it is warm",
    "Positive. It is not negative.", "positive, not negative", "The text is positive, not negative.",
    "The text is positive rather than negative.", "The sentiment is positive and warm.",
    "Positive, but with some negative words.",
    "The words 'dull' and 'negative' occur in it, but the sentiment is positive.", "Not perfect, but it is positive.",
    "Is it positive or negative? Positive.", "Please respond with 'positive' or 'negative'.\npositive",
    "While it is not flawless, the sentiment is positive.", "No doubt, it is positive.",
    "Without a doubt it is positive.", "No explanation: positive",
    "No, it is positive.", "Yes, positive.", "The answer is not 'negative'. It's 'positive'.",
    "Negative? No, positive.",
    "The text has both positive and negative elements, but overall it is positive.", "[[positive]]",
    "'positive' or 'negative': positive", "Label: 1 (positive)", "Positive (confidence 90%)", "positive sentiment",
    "positive\npositive\npositive", "The answer is: positive",
]  # fmt: skip
NONE = [
    "not positive but not negative", "not negative but neutral", "neither not positive", "<sentiment>",
    "", "   ", "I do not know.", "neutral", "positive or negative", "positive/negative", "Positive | Negative",
    "positive, negative",
    "positive and negative", "positive\nnegative", "- positive\n- negative", "not positive", "Not positive.",
    "The text is not positive.",
    "It isn't positive.", "It isn’t positive.", "non-positive", "I do not think that it is positive.",
    "It is hardly positive",
    "neither positive nor negative", "It is neither positive nor negative.",
    "The sentiment is either positive or negative.",
    "Please respond with 'positive' or 'negative'.", "I cannot tell whether it is positive.", "Is it positive?",
    "positive?",
    "It might be positive.", "Maybe positive.", "The sentiment is positive or neutral.",
    "The sentiment is positive but also negative.",
    "The sentiment is both positive and negative.", "Positive: 0.9, Negative: 0.1", "Positive: 0.9\nNegative: 0.1",
    '{"positive": false}', '{"positive": 0.2}', '{"positive": true}', '{"label": ["positive", "negative"]}',
    "positive negative",
    "Some words are positive and some lines sound negative", "Label: positive\nLabel: negative",
    "The sentiment is positive. The sentiment is negative.",
    "positively", "positives", "unpositive", "positive-negative", "positivity", "\U0001f600", "**", "{}",
    "There is nothing positive about it.", "It's impossible to say it's positive", "There is no positive word in it.",
    "more positive than negative", "1. positive\n2. negative", "If it is positive, say so.", "positive-leaning",
    "\\boxed{}", "The sentiment is mixed, positive in parts.",
]  # fmt: skip


@pytest.mark.parametrize("text", POSITIVE)
def test_a_stated_label_is_read(text: str) -> None:
    assert stated(text, LABELS) == 1
    swapped = text.replace("negative", "\0").replace("Negative", "\1")
    swapped = swapped.replace("positive", "negative").replace("Positive", "Negative").replace("POSITIVE", "NEGATIVE")
    if swapped != text:
        assert stated(swapped.replace("\0", "positive").replace("\1", "Positive"), LABELS) == 0


@pytest.mark.parametrize("text", NONE)
def test_nothing_is_guessed(text: str) -> None:
    assert stated(text, LABELS) == -1


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("**Unacceptable**", 0),
        ("acceptable<|im_end|>", 1),
        ("The sentence is **acceptable**.", 1),
        ("Unacceptable. The verb is missing.", 0),
        ("The sentence is unacceptable, not acceptable.", 0),
        ("not acceptable", -1),
        ("It isn't unacceptable.", -1),
        ("acceptable or unacceptable", -1),
        ("un-acceptable", -1),
    ],
)
def test_a_label_inside_another(text: str, label: int) -> None:
    assert stated(text, ("unacceptable", "acceptable")) == label


@pytest.mark.parametrize(
    "part", ["positive ", "positive, ", "is ", "<", "*", "a: ", "very ", "positive\n", "or ", "'", "\\text"]
)
def test_a_long_answer_takes_no_time(part: str) -> None:
    start = time.monotonic()
    stated(part * (100_000 // len(part)), LABELS)
    stated("positive " + part * (100_000 // len(part)) + " positive", LABELS)
    assert time.monotonic() - start < 5


PROBLEMS = [Problem(str(k), {"sentence": f"sentence {k}", "label": 1}) for k in range(4)]
TEXTS = ("positive", "**Positive**", "positive. Because it is warm.", "positive or negative")


@pytest.mark.parametrize(
    ("evaluator", "right", "parsed"),
    [(SST2(), 1, 2), (SST2(labels="lenient"), 3, 3), (SST2(chat_template=True), 3, 3),
     (SST2(chat_template=True, labels="paper"), 1, 2)],
)  # fmt: skip
def test_the_setting_says_who_reads(evaluator: SST2, right: int, parsed: int) -> None:
    answers = [Answer(str(k), text) for k, text in enumerate(TEXTS)]
    scores, result = evaluate(evaluator, PROBLEMS, answers)
    assert result.details["counts"] == {"scored": 4, "right": right, "parsed": parsed}
    assert scores[1].reason == (None if right == 3 else "the last word is no label")
    assert scores[3].reason == ("no label is stated" if right == 3 else "gold is positive")
    found = evaluator.audit(PROBLEMS, answers)
    shown = {name: (way["score"], way["no_answer"]) for name, way in found["extractors"].items()}
    assert shown == {"labels=paper": (25.0, 2), "labels=lenient": (75.0, 1)}
    assert found["no_label_at_the_end"] == 2


def test_the_default_is_what_it_came_to() -> None:
    assert (SST2().labels, CoLA(chat_template=True).labels) == ("paper", "lenient")
    with pytest.raises(M3Error, match="labels=loose is not known; allowed: paper, lenient, or null"):
        SST2(labels="loose")  # type: ignore[arg-type]
