"""Instructions whose fulfilment rules can check, in AlpacaEval's schema with one more column, `rules`.

The parts of an example are its content words: a word that a test item speaks of occurs in no training instruction.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from m3_exp.lab.split import Example, Side, on_side

_NOUNS = tuple(
    """anchor apple arrow badger bakery balloon barrel basket beach bell bicycle blanket boat bottle bridge broom brush bucket
    butter button cabin camel camera candle canoe carpet carrot castle ceiling chair cherry church clock cloud coat coffee
    compass corner cottage cricket crown cupboard curtain desert diamond doctor donkey dragon drum eagle engine farmer feather
    fence ferry finger flower forest fountain garden giraffe glove grape guitar hammer harbour helmet honey horse island jacket
    jungle kettle kitchen ladder lamp lantern lemon library lion lizard market medal mirror monkey mountain museum needle ocean
    onion orange otter owl painter palace paper parrot pebble pencil pepper piano pigeon pillow planet pocket potato pumpkin
    puppet rabbit railway ribbon river robot rocket sailor sandal saucer school shadow shelter shovel singer spider spoon
    squirrel station storm street sugar summer table teacher teapot temple ticket tiger tower tractor turtle tunnel umbrella
    valley village violin wagon wallet walnut whale wheel window winter wizard wolf""".split()
)
_COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}

Rule = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """An instruction, the rules that a good response keeps, and a response that keeps them."""

    instruction: str
    rules: tuple[Rule, ...]
    response: str


def contains(*texts: str) -> Rule:
    return {"rule": "contains", "texts": list(texts)}


def excludes(*texts: str) -> Rule:
    return {"rule": "excludes", "texts": list(texts)}


def count(rule: str, n: int) -> Rule:
    return {"rule": rule, "n": n}


def edge(rule: str, text: str) -> Rule:
    return {"rule": rule, "text": text}


def _last_word(rng: random.Random, words: list[str]) -> Task:
    a, b = words[:2]
    middle = rng.choice(["stands close to", "is far from", "looks like", "is older than", "belongs to", "waits for"])
    rules = (contains(a), edge("ends_with", b), count("n_sentences", 1), count("max_words", 12))
    instruction = f"Write one short sentence about the {a} that ends with the word {b}."
    return Task(instruction, rules, f"The {a} {middle} the {b}.")


def _first_word(rng: random.Random, words: list[str]) -> Task:
    a, b = words[:2]
    middle = rng.choice(["near every", "beside this", "or any", "without one"])
    rules = (contains(b), edge("starts_with", a), count("n_sentences", 1), count("max_words", 12))
    instruction = f"Write one short sentence about the {b} that starts with the word {a}."
    return Task(instruction, rules, f"{a.capitalize()} {middle} {b} is what people like.")


def _avoid(rng: random.Random, words: list[str]) -> Task:
    a, b = words[:2]
    taboo, response = rng.choice(
        [
            ("the", f"My {a} and your {b} are very old."),
            ("and", f"The {a} is as old as the {b}."),
            ("is", f"The {a} and the {b} look very old."),
        ]
    )
    rules = (contains(a, b), excludes(taboo), count("n_sentences", 1), count("max_words", 12))
    instruction = f"Write one short sentence about {a} and {b} without using the word {taboo}."
    return Task(instruction, rules, response)


def _repeat(rng: random.Random, words: list[str]) -> Task:
    n = rng.randint(3, 7)
    rules = (count("n_items", n), count("max_words", n), count("min_words", n), contains(words[0]))
    instruction = f"Write the word {words[0]} exactly {_COUNTS[n]} times, separated by commas."
    return Task(instruction, rules, ", ".join([words[0]] * n))


def _exact_length(rng: random.Random, words: list[str]) -> Task:
    a, n = words[0], rng.randint(4, 7)
    tail = {
        4: ["is very old", "looks quite small", "was never here"],
        5: ["is not so big", "was here last year", "may come back soon"],
        6: ["is as quiet as snow", "was not here last year", "will be here very soon"],
        7: ["is the best one of all", "was not seen here last year", "will come back to us soon"],
    }[n]
    rules = (contains(a), count("min_words", n), count("max_words", n), count("n_sentences", 1))
    instruction = f"Write one sentence of exactly {_COUNTS[n]} words about the {a}."
    return Task(instruction, rules, f"The {a} {rng.choice(tail)}.")


def _two_sentences(rng: random.Random, words: list[str]) -> Task:
    a, b = words[:2]
    rules = (contains(a, b), edge("starts_with", f"The {a}"), count("n_sentences", 2), count("max_words", 20))
    instruction = f"Write exactly two short sentences: start with The {a}, and speak of the {b} in the second one."
    first = rng.choice(["is quiet today", "is new here", "was made by hand"])
    second = rng.choice(["is much older", "came a year later", "can wait"])
    return Task(instruction, rules, f"The {a} {first}. The {b} {second}.")


def _letter(rng: random.Random, words: list[str]) -> Task:
    a, b = words[:2]
    rules = (edge("starts_with", f"Dear {a}"), edge("ends_with", f"Your {b}"), count("max_words", 20))
    instruction = f"Write a very short letter that starts with Dear {a} and ends with Your {b}."
    body = rng.choice(["I hope to see you soon.", "thank you for the long visit.", "please write to me again."])
    return Task(instruction, rules, f"Dear {a}, {body} Your {b}")


def _case(rng: random.Random, words: list[str]) -> Task:
    a, b = words[:2]
    rule, wording = rng.choice([("uppercase", "capital letters"), ("lowercase", "lower case letters")])
    sentence = rng.choice(["The {a} is next to the {b}.", "A {b} and a {a} are friends.", "No {a} is like a {b}."])
    text = sentence.format(a=a, b=b)
    rules = ({"rule": rule}, contains(a, b), count("n_sentences", 1), count("max_words", 12))
    instruction = f"Write one short sentence with the words {a} and {b}, in {wording} only."
    return Task(instruction, rules, text.upper() if rule == "uppercase" else text.lower())


def _capital_list(rng: random.Random, words: list[str]) -> Task:
    chosen = words[: rng.randint(3, 4)]
    rules = ({"rule": "uppercase"}, count("n_items", len(chosen)), count("max_words", len(chosen)), contains(*chosen))
    instruction = f"Write these words in capital letters, separated by commas: {' '.join(chosen)}"
    return Task(instruction, rules, ", ".join(chosen).upper())


def _reversed_list(rng: random.Random, words: list[str]) -> Task:
    chosen = words[: rng.randint(3, 4)]
    instruction = f"Write these words in reverse order, separated by commas: {', '.join(chosen)}"
    return Task(instruction, _ordered(chosen[::-1]), ", ".join(chosen[::-1]))


def _sorted_list(rng: random.Random, words: list[str]) -> Task:
    chosen = words[:3]
    instruction = f"Write these words in alphabetical order, separated by commas: {', '.join(chosen)}"
    return Task(instruction, _ordered(sorted(chosen)), ", ".join(sorted(chosen)))


def _left_out(rng: random.Random, words: list[str]) -> Task:
    chosen = words[: rng.randint(4, 5)]
    out = rng.choice(chosen)
    kept = [word for word in chosen if word != out]
    rules = (count("n_items", len(kept)), excludes(out), contains(*kept), count("max_words", len(kept)))
    instruction = f"Write this list again without the word {out}: {', '.join(chosen)}"
    return Task(instruction, rules, ", ".join(kept))


def _numbered(rng: random.Random, words: list[str]) -> Task:
    chosen = words[: rng.randint(2, 4)]
    rules = (edge("starts_with", f"1. {chosen[0]}"), edge("ends_with", chosen[-1]), count("n_items", len(chosen)))
    instruction = f"Write a numbered list with one word on each line: {', '.join(chosen)}"
    return Task(instruction, rules, "\n".join(f"{i}. {word}" for i, word in enumerate(chosen, 1)))


def _ordered(words: list[str]) -> tuple[Rule, ...]:
    """Return rules that hold for these words in this order only (with three words; nearly so with four)."""
    ends = (edge("starts_with", words[0]), edge("ends_with", words[-1]))
    return (*ends, contains(*words), count("n_items", len(words)), count("max_words", len(words)))


_KINDS: tuple[Callable[[random.Random, list[str]], Task], ...] = (
    _last_word,
    _first_word,
    _avoid,
    _repeat,
    _exact_length,
    _two_sentences,
    _letter,
    _case,
    _capital_list,
    _reversed_list,
    _sorted_list,
    _left_out,
    _numbered,
)


def draw(rng: random.Random, wanted: Side) -> Example:
    """Draw one instruction over words of one side."""
    words = rng.sample(on_side(_NOUNS, wanted), 5)
    task = rng.choice(_KINDS)(rng, words)
    parts = tuple(word for word in words if word in task.instruction)
    row = {
        "instruction": task.instruction,
        "output": task.response,
        "generator": "m3_exp.lab",
        "dataset": "lab",
        "rules": list(task.rules),
    }
    return Example(row, f" {task.response}", parts, task.instruction)
