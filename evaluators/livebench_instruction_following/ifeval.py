"""IFEval's instructions: each is a rule that a text either follows or not, named by an id and its keyword arguments.

The 25 ids of IFEval (Zhou et al. 2023, arXiv 2311.07911), which LiveBench uses too, with the verdicts of their authors'
checkers (`instruction_following_eval` of google-research, `if_runner` of LiveBench), quirks included: keywords are
regular expressions, "less than" and "at least" are the only relations, a language that cannot be told counts as right.
Where those checkers would draw a missing argument at random, an item is refused instead.

Two ids count sentences or tokens with NLTK's punkt model, which is looked for and never downloaded.
"""

import functools
import json
import os
import re
import typing
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from m3_exp.reading import patterns
from m3_exp.types import M3Error

RELATIONS = ("less than", "at least")
CONSTRAINED_RESPONSES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_WORD = re.compile(r"\w+")
_STARRED, _DASHED = re.compile(r"^\s*\*[^\*].*$", re.MULTILINE), re.compile(r"^\s*-.*$", re.MULTILINE)
_SINGLE, _DOUBLE = re.compile(r"\*[^\n\*]*\*"), re.compile(r"\*\*[^\n\*]*\*\*")
_POSTSCRIPTS = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}


def _related(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def _count(given: str, pattern: str, text: str, flags: int = 0) -> int:
    """Return how often a pattern occurs; one whose `given` part repeats may take for ever, so it has a time limit."""
    if set("*+?{") & set(given):
        return patterns.count(pattern, text, "an instruction's keyword", flags=flags)
    return sum(1 for _ in re.finditer(pattern, text, flags))


# ---------------------------------------------------------------------------------------------------------- keywords


def _existence(text: str, *, keywords: list[str]) -> bool:
    return all(_count(keyword, keyword, text, re.IGNORECASE) for keyword in keywords)


def _frequency(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return _related(_count(keyword, keyword.strip(), text, re.IGNORECASE), relation, frequency)


def _forbidden_words(text: str, *, forbidden_words: list[str]) -> bool:
    return not any(_count(word, rf"\b{word}\b", text, re.IGNORECASE) for word in forbidden_words)


def _letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """Count a character, whatever its case; one that is no letter counts too, blank space never occurs."""
    return _related(Counter(text.lower())[letter.strip().lower()], let_relation, let_frequency)


# ------------------------------------------------------------------------------------------------- language and case


def _response_language(text: str, *, language: str) -> bool:
    return detected_language(text) in (language, None)


def _capital_word_frequency(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    return _related(sum(token.isupper() for token in tokens(text)), capital_relation, capital_frequency)


# ------------------------------------------------------------------------------------------------------------ length


def _number_sentences(text: str, *, num_sentences: int, relation: str) -> bool:
    return _related(len(sentences(text)), relation, num_sentences)


def _number_words(text: str, *, num_words: int, relation: str) -> bool:
    return _related(len(_WORD.findall(text)), relation, num_words)


def _number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Count the parts between *** dividers; only the first and the last may be blank (and do not count then)."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    return all(parts[1:-1]) and sum(bool(part) for part in parts) == num_paragraphs


def _nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Count the parts between blank lines that are not blank, but take the n-th of all, as the authors' checker."""
    parts = text.split("\n\n")
    filled = sum(bool(part.strip()) for part in parts)
    if nth_paragraph > filled or not parts[nth_paragraph - 1].strip():
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return filled == num_paragraphs and re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


# ------------------------------------------------------------------------------------------------ content and format


def _number_placeholders(text: str, *, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def _postscript(text: str, *, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    pattern = _POSTSCRIPTS.get(marker, rf"\s*{marker.lower()}.*$")
    return bool(_count(marker, pattern, text.lower(), re.MULTILINE))


def _number_bullet_lists(text: str, *, num_bullets: int) -> bool:
    return len(_STARRED.findall(text)) + len(_DASHED.findall(text)) == num_bullets


def _number_highlighted_sections(text: str, *, num_highlights: int) -> bool:
    """Count what stands between single stars, and again what stands between double stars, where it is not blank."""
    single = sum(bool(part.strip("*").strip()) for part in _SINGLE.findall(text))
    double = sum(bool(part[2:-2].strip()) for part in _DOUBLE.findall(text))
    return single + double >= num_highlights


def _multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    return _count(section_spliter, rf"\s?{section_spliter.strip()}\s?\d+\s?", text) >= num_sections


def _json_format(text: str) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    filled = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def _repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end_checker(text: str, *, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


INSTRUCTIONS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_words": _number_words,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "detectable_content:number_placeholders": _number_placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:constrained_response": lambda text: any(said in text for said in CONSTRAINED_RESPONSES),
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:json_format": _json_format,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": _end_checker,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_word_frequency,
    "change_case:english_capital": lambda text: text.isupper() and detected_language(text) in ("en", None),
    "change_case:english_lowercase": lambda text: text.islower() and detected_language(text) in ("en", None),
    "punctuation:no_comma": lambda text: "," not in text,
}


def follows(text: str, instruction: str, arguments: Mapping[str, Any]) -> bool:
    """Say whether a text follows one instruction; a blank text follows none. Arguments that are None are left out.

    Raises:
        M3Error: the instruction counts sentences, and NLTK's punkt model is not here.
    """
    return bool(text.strip()) and INSTRUCTIONS[instruction](text, **given(arguments))


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that are set; whole numbers as integers (data frames make floats of them)."""
    whole = {key: int(v) if isinstance(v, float) and v.is_integer() else v for key, v in arguments.items()}
    return {key: value for key, value in whole.items() if value is not None}


def hangs_on_language(text: str, instruction: str) -> bool:
    """Say whether langdetect decides an instruction's verdict on a text: other versions of it may find another one."""
    cased = {"change_case:english_capital": text.isupper(), "change_case:english_lowercase": text.islower()}
    return bool(text.strip()) and (instruction == "language:response_language" or cased.get(instruction, False))


def check(item: str, instructions: object, arguments: object) -> None:
    """Make sure that an item's instructions exist and have their arguments.

    Raises:
        M3Error: an id is unknown, or an argument is missing, unknown or not allowed; the item is named.
    """
    for what, value in (("instruction_id_list", instructions), ("kwargs", arguments)):
        if not isinstance(value, list):
            raise M3Error(f"item {item}: its {what} is {str(value)[:80]!r}; give a list")
    assert isinstance(instructions, list)
    assert isinstance(arguments, list)
    if not instructions or len(instructions) != len(arguments):
        raise M3Error(
            f"item {item}: {len(instructions)} instructions and {len(arguments)} kwargs; give as many kwargs as"
            " instructions, at least one"
        )
    for instruction, values in zip(instructions, arguments, strict=True):
        if not isinstance(instruction, str) or instruction not in INSTRUCTIONS:
            named = str(instruction)[:80]
            raise M3Error(f"item {item}: {named!r} is not an instruction; there are {', '.join(INSTRUCTIONS)}")
        if not isinstance(values, Mapping):
            raise M3Error(f"item {item}: the kwargs of {instruction} are {values!s:.80}; give an object")
        _check_arguments(f"item {item}: {instruction}", given(values), _needed(instruction))


def _needed(instruction: str) -> dict[str, type]:
    kinds: Mapping[str, Any] = INSTRUCTIONS[instruction].__annotations__
    return {name: typing.get_origin(kind) or kind for name, kind in kinds.items() if name not in ("text", "return")}


def _check_arguments(what: str, values: Mapping[str, Any], needed: Mapping[str, type]) -> None:
    if values.keys() != needed.keys():
        given_ones = ", ".join(map(str, values))[:200] or "none"
        raise M3Error(f"{what} has the kwargs {given_ones}; it takes {', '.join(needed) or 'none'}")
    for key, value in values.items():
        if not _fits(key, value, needed[key]):
            raise M3Error(f"{what}: {key}={value!r:.80} is not allowed; give {_allowed(key, needed[key])}")
    if values.get("nth_paragraph", 0) > values.get("num_paragraphs", 0):
        raise M3Error(f"{what}: nth_paragraph={values['nth_paragraph']} is more than num_paragraphs; give at most that")


# What langdetect tells apart.
_LANGUAGES = (
    *("af", "ar", "bg", "bn", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "gu", "he", "hi"),
    *("hr", "hu", "id", "it", "ja", "kn", "ko", "lt", "lv", "mk", "ml", "mr", "ne", "nl", "no", "pa", "pl", "pt", "ro"),
    *("ru", "sk", "sl", "so", "sq", "sv", "sw", "ta", "te", "th", "tl", "tr", "uk", "ur", "vi", "zh-cn", "zh-tw"),
)


def _fits(key: str, value: object, kind: type) -> bool:
    if type(value) is not kind or value in ("", []):
        return False
    if key.endswith("relation"):
        return value in RELATIONS
    if key == "letter":
        return len(str(value)) == 1
    if key == "language":
        return value in _LANGUAGES
    if isinstance(value, int):
        return value >= (1 if key == "nth_paragraph" else 0)
    return not isinstance(value, list) or all(isinstance(item, str) and item for item in value)


def _allowed(key: str, kind: type) -> str:
    if key.endswith("relation"):
        return " or ".join(repr(relation) for relation in RELATIONS)
    words = {int: "a whole number of at least 0 (nth_paragraph: 1)", list: "a list of words"}
    texts = {"letter": "one character", "language": f"one of {' '.join(_LANGUAGES)}"}
    return words.get(kind, texts.get(key, "a text"))


# -------------------------------------------------------------------------------------------- sentences and languages


class _Splitter(Protocol):
    def tokenize(self, text: str) -> list[str]: ...


def sentences(text: str) -> list[str]:
    """Split a text into sentences with punkt's English model. Raises M3Error where the model is not here."""
    return _punkt(_punkt_folder()).tokenize(text)


def tokens(text: str) -> list[str]:
    """Split a text into words and punctuation as NLTK's `word_tokenize` does. Raises M3Error as `sentences` does."""
    from nltk.tokenize import NLTKWordTokenizer

    splitter = NLTKWordTokenizer()
    return [token for sentence in sentences(text) for token in splitter.tokenize(sentence)]


@functools.cache
def _punkt(folder: Path) -> _Splitter:
    """Read the model's tables, as NLTK's own loader does, which refuses folders that its settings do not name."""
    from nltk.tokenize.punkt import PunktLanguageVars, PunktParameters, PunktSentenceTokenizer

    class Language(PunktLanguageVars):  # type: ignore[misc]
        """What ends a word and goes with a sentence, up to NLTK 3.9.1: later ones take curly quotes for closing ones,
        and count other sentences than the benchmark's authors did.
        """

        re_boundary_realignment = re.compile(r"[\"')\]}]+?(?:\s+|(?=--)|$)", re.MULTILINE)
        _re_non_word_chars = r"(?:[)\";}\]*:@'({\[!?])"

    parameters = PunktParameters()
    try:
        parameters.abbrev_types = {row[0] for row in _table(folder / "abbrev_types.txt")}
        parameters.sent_starters = {row[0] for row in _table(folder / "sent_starters.txt")}
        parameters.collocations = {(first, second) for first, second in _table(folder / "collocations.tab")}
        parameters.ortho_context.update({name: int(count) for name, count in _table(folder / "ortho_context.tab")})
    except (OSError, ValueError) as error:
        raise M3Error(f"NLTK's sentence model in {folder} cannot be read ({error}): download punkt_tab again") from None
    splitter: _Splitter = PunktSentenceTokenizer(parameters, lang_vars=Language())
    return splitter


def _table(file: Path) -> list[list[str]]:
    return [line.split("\t") for line in file.read_text(encoding="utf-8").split("\n") if line]


def _punkt_folder() -> Path:
    from nltk import data

    inside = Path("tokenizers") / "punkt_tab" / "english"
    named = [Path(folder) for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep) if folder]
    shared = [Path(os.environ["M3_DATA"]).expanduser() / "nltk_data"] if os.environ.get("M3_DATA") else []
    for folder in (*named, *shared, *map(Path, data.path)):
        if (folder / inside / "abbrev_types.txt").is_file():
            return folder / inside
    raise M3Error(
        "NLTK's sentence model punkt_tab is not here: run `python -m nltk.downloader punkt_tab`, or set NLTK_DATA=DIR"
        f" to a folder with {inside.as_posix()}"
    )


def detected_language(text: str) -> str | None:
    """Return the language (ISO 639-1) that langdetect finds, always the same for a text; None where it finds none."""
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0
    try:
        return str(detect(text))
    except LangDetectException:
        return None
