"""Short texts under formal instructions that code can check, in the schema of LiveBench's instruction following.

The four tasks are LiveBench's; an item asks for one format (named as in IFEval, with its arguments) and mostly for
words to hold or to leave out. Answers end neither in punctuation nor need it there: the paper strips it before the
check. The parts of an example are its nouns, those of `instructions.py`.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from m3_exp.lab.instructions import NOUNS
from m3_exp.lab.split import Example, Side, on_side

_TASKS = {
    "paraphrase": "Say it in other words.",
    "simplify": "Say it more simply.",
    "story_generation": "Begin a story with it.",
    "summarize": "Sum it up.",
}
_TEXTS = (
    "The {a} stands close to the {b}.",
    "Nobody had seen the {a} since the {b} was sold.",
    "One {a} and one {b} were found on the road.",
    "The {a} is older than the {b}.",
)
_FIRST = ("suddenly", "later", "perhaps", "today", "meanwhile", "outside")
_POSTSCRIPTS = ("P.S.", "P.P.S")
_COUNTS = {2: "two", 3: "three"}


@dataclass(frozen=True)
class Demand:
    """One instruction: its id in IFEval, its arguments and its wording."""

    id: str
    kwargs: Mapping[str, object]
    wording: str


@dataclass(frozen=True)
class Format(Demand):
    """A demand on the form of an answer, and an answer that keeps it and holds the words it was made for."""

    response: str


def _title(rng: random.Random, words: list[str], _: str) -> Format:
    wording = "Put a title in double angular brackets before the answer."
    return Format("detectable_format:title", {}, wording, f"<<The {words[0]}>> {_told(rng, words)}")


def _quotation(rng: random.Random, words: list[str], _: str) -> Format:
    wording = "Put double quotation marks around the whole answer."
    return Format("startend:quotation", {}, wording, f'"{_told(rng, words)}"')


def _end(rng: random.Random, words: list[str], _: str) -> Format:
    phrase = rng.choice(("That is all we know", "No one asked again", "This is the end"))
    wording = f"End with this exact phrase: {phrase}"
    return Format("startend:end_checker", {"end_phrase": phrase}, wording, f"{_told(rng, words)}. {phrase}")


def _postscript(rng: random.Random, words: list[str], _: str) -> Format:
    marker = rng.choice(_POSTSCRIPTS)
    note = rng.choice(("It was long ago", "Please write soon", "It is true"))
    kwargs, wording = {"postscript_marker": marker}, f"Add a postscript that starts with {marker}"
    return Format("detectable_content:postscript", kwargs, wording, f"{_told(rng, words)}\n{marker} {note}")


def _bullets(rng: random.Random, words: list[str], _: str) -> Format:
    n = rng.choice((2, 3))
    wording = f"Answer with exactly {_COUNTS[n]} bullet points, each marked with an asterisk."
    lines = [*(f"* the {word}" for word in words), "* the road", "* the end", "* the others"]
    return Format("detectable_format:number_bullet_lists", {"num_bullets": n}, wording, "\n".join(lines[:n]))


def _json(rng: random.Random, words: list[str], _: str) -> Format:
    wording = "Answer in JSON format only."
    return Format("detectable_format:json_format", {}, wording, f'{{"answer": "{_told(rng, words)}"}}')


def _few_words(rng: random.Random, words: list[str], _: str) -> Format:
    n = rng.choice((10, 11, 12))
    kwargs = {"num_words": n, "relation": "less than"}
    return Format("length_constraints:number_words", kwargs, f"Use less than {n} words.", _told(rng, words))


def _paragraphs(rng: random.Random, words: list[str], _: str) -> Format:
    kwargs, wording = {"num_paragraphs": 2}, "Write two paragraphs with the divider *** between them."
    response = f"{_told(rng, words)}\n***\n{_aside(rng)}"
    return Format("length_constraints:number_paragraphs", kwargs, wording, response)


def _first_word(rng: random.Random, words: list[str], _: str) -> Format:
    word = rng.choice(_FIRST)
    kwargs = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": word}
    wording = f"Write two paragraphs with a blank line between them. Paragraph 2 must start with the word {word}."
    response = f"{_told(rng, words)}\n\n{word.capitalize()} {_aside(rng).lower()}"
    return Format("length_constraints:nth_paragraph_first_word", kwargs, wording, response)


def _sections(rng: random.Random, words: list[str], _: str) -> Format:
    kwargs = {"section_spliter": "Section", "num_sections": 2}
    wording = "Write two sections that begin with Section 1 and Section 2."
    response = f"Section 1\n{_told(rng, words)}\nSection 2\n{_aside(rng)}"
    return Format("detectable_format:multiple_sections", kwargs, wording, response)


def _two_responses(rng: random.Random, words: list[str], _: str) -> Format:
    wording = "Give two different answers, with six asterisks between them: ******"
    return Format("combination:two_responses", {}, wording, f"{_told(rng, words)}\n******\n{_aside(rng)}")


def _repeat(rng: random.Random, words: list[str], text: str) -> Format:
    wording = "First repeat the text, then answer."
    return Format("combination:repeat_prompt", {"prompt_to_repeat": text}, wording, f"{text} {_told(rng, words)}")


def _told(rng: random.Random, words: list[str]) -> str:
    """Return a short statement that holds the words (one or two of them), without punctuation at its end."""
    if len(words) == 1:
        return f"The {words[0]} {rng.choice(('was there', 'is old', 'was not alone'))}"
    middle = rng.choice(("was near the", "and the", "came before the"))
    tail = {"and the": rng.choice((" are old", " were there"))}.get(middle, "")
    return f"The {words[0]} {middle} {words[1]}{tail}"


def _aside(rng: random.Random) -> str:
    return rng.choice(("It was late", "We went home", "All was quiet", "It is a long story"))


_FORMATS: tuple[Callable[[random.Random, list[str], str], Format], ...] = (
    *(_title, _quotation, _end, _postscript, _bullets, _json, _few_words, _paragraphs, _first_word, _sections),
    *(_two_responses, _repeat),
)


def draw(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one item over nouns of one side, or None where two demands contradict each other."""
    a, b = rng.sample(on_side(NOUNS, wanted), 2)
    text = rng.choice(_TEXTS).format(a=a, b=b)
    task = rng.choice(tuple(_TASKS))
    content = rng.choice((_hold, _hold, _leave_out))
    wanted_words, demand = content(a, b)
    form = rng.choice(_FORMATS)(rng, wanted_words, text)
    if content is _leave_out and b in form.response.lower():
        return None
    demands = (demand, form)
    turn = " ".join([f"Text: {text}\n{_TASKS[task]}", *(each.wording for each in demands)]) + "\nAnswer:"
    row = {
        "category": "instruction_following",
        "task": task,
        "turns": [turn],
        "instruction_id_list": [each.id for each in demands],
        "kwargs": [each.kwargs for each in demands],
        "reference_answer": form.response,
        "livebench_release_date": "2024-11-25",
        "livebench_removal_date": "",
    }
    return Example(row, f" {form.response}", (a, b), turn)


def _hold(a: str, b: str) -> tuple[list[str], Demand]:
    words = sorted((a, b))
    return [a, b], Demand("keywords:existence", {"keywords": words}, f"Include the words {words[0]} and {words[1]}.")


def _leave_out(a: str, b: str) -> tuple[list[str], Demand]:
    return [a], Demand("keywords:forbidden_words", {"forbidden_words": [b]}, f"Do not use the word {b}.")
