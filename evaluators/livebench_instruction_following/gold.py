"""A text that follows all instructions of an item, put together without asking the checks: gold for the grader.

It makes no sense to a reader; it is what the rules ask for and nothing else. Instructions that LiveBench does not use
have no recipe here, and an item that asks for the impossible has no gold: then there is none (None).
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.livebench_instruction_following.ifeval import CONSTRAINED_RESPONSES, given

_FILLER = "zylo"  # no sentence mark, no comma, and no word that a question would forbid
_SENTENCE = "This is it."
_KNOWN = {
    "keywords:existence", "keywords:forbidden_words", "length_constraints:number_sentences",
    "length_constraints:number_paragraphs", "length_constraints:number_words",
    "length_constraints:nth_paragraph_first_word", "detectable_content:postscript",
    "detectable_format:number_bullet_lists", "detectable_format:constrained_response",
    "detectable_format:multiple_sections", "detectable_format:json_format", "detectable_format:title",
    "combination:two_responses", "combination:repeat_prompt", "startend:end_checker", "startend:quotation",
}  # fmt: skip
Arguments = Mapping[str, Mapping[str, Any]]


def compose(instructions: Sequence[str], arguments: Sequence[Mapping[str, Any]]) -> str | None:
    """Return a text that follows every instruction, also after the paper's stripping; None where none is known."""
    asked = {name: given(values) for name, values in zip(instructions, arguments, strict=True)}
    if len(asked) < len(instructions) or not asked.keys() <= _KNOWN or _impossible(asked):
        return None
    if "detectable_format:json_format" in asked:
        return json.dumps({_FILLER: _keywords(asked)})
    text = _ending(asked, _paragraphs(asked, _content(asked)))
    if "combination:repeat_prompt" in asked:
        text = asked["combination:repeat_prompt"]["prompt_to_repeat"].strip() + "\n" + text
    return f'"{text}"' if "startend:quotation" in asked else text


def _impossible(asked: Arguments) -> bool:
    """Say whether no text can do: no sentence at all, or a word that is both wanted and forbidden."""
    length = asked.get("length_constraints:number_sentences", {})
    forbidden = asked.get("keywords:forbidden_words", {}).get("forbidden_words", [])
    others = [values for name, values in asked.items() if name != "keywords:forbidden_words"]
    wanted = " ".join(str(value) for values in others for key, value in values.items() if key != "relation")
    clash = any(re.search(rf"\b{word}\b", wanted, re.IGNORECASE) for word in forbidden)
    return clash or (length.get("relation"), length.get("num_sentences")) == ("less than", 1)


def _keywords(asked: Arguments) -> str:
    return " ".join([_FILLER, *asked.get("keywords:existence", {}).get("keywords", [])])


def _content(asked: Arguments) -> str:
    """Return the lines that stand in one paragraph: title, keywords, filling, sections, bullets."""
    lines = ["<<title>>"] if "detectable_format:title" in asked else []
    lines += [CONSTRAINED_RESPONSES[0]] if "detectable_format:constrained_response" in asked else []
    lines += [_keywords(asked), *_filling(asked)]
    if sections := asked.get("detectable_format:multiple_sections"):
        lines += [f"{sections['section_spliter']} {number + 1} {_FILLER}" for number in range(sections["num_sections"])]
    lines += [f"* {_FILLER}"] * asked.get("detectable_format:number_bullet_lists", {}).get("num_bullets", 0)
    if "combination:two_responses" in asked:
        lines += ["******", f"{_FILLER} {_FILLER}"]
    return "\n".join(lines)


def _filling(asked: Arguments) -> list[str]:
    """Return as many sentences and words as there must be at least."""
    lines = []
    for name, key, unit in (("sentences", "num_sentences", _SENTENCE), ("words", "num_words", _FILLER)):
        length = asked.get(f"length_constraints:number_{name}", {})
        if length.get("relation") == "at least":
            lines.append(" ".join([unit] * length[key]))
    return lines


def _paragraphs(asked: Arguments, content: str) -> str:
    """Put the content into the last of as many paragraphs as there must be."""
    if starred := asked.get("length_constraints:number_paragraphs"):
        return "\n***\n".join([_FILLER] * (starred["num_paragraphs"] - 1) + [content])
    if plain := asked.get("length_constraints:nth_paragraph_first_word"):
        parts = [_FILLER] * plain["num_paragraphs"]
        parts[plain["nth_paragraph"] - 1] = f"{plain['first_word']} {_FILLER}"
        return "\n\n".join(parts) + "\n" + content
    return content


def _ending(asked: Arguments, text: str) -> str:
    """Add the postscript and the end phrase, which is quoted so that stripping punctuation leaves its own."""
    if "detectable_content:postscript" in asked:
        text += f"\n{asked['detectable_content:postscript']['postscript_marker']} {_FILLER}"
    if "startend:end_checker" in asked:
        quote = "" if "startend:quotation" in asked else '"'
        text += f" {asked['startend:end_checker']['end_phrase']}{quote}"
    return text
