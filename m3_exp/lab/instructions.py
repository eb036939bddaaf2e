"""Instructions whose fulfilment rules can check, in AlpacaEval's schema with one more column, `rules`.

The parts of an example are its content words: a word that a test item speaks of occurs in no training instruction.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from m3_exp.lab.split import Example, Side, on_side
from m3_exp.types import Json

NOUNS = tuple(
    """
    anchor apple arrow badger bakery balloon barrel basket beach bell bicycle blanket boat bottle bridge broom
    brush bucket butter button cabin camel camera candle canoe carpet carrot castle ceiling chair cherry church
    clock cloud coat coffee compass corner cottage cricket crown cupboard curtain desert diamond doctor donkey
    dragon drum eagle engine farmer feather fence ferry finger flower forest fountain garden giraffe glove grape
    guitar hammer harbour helmet honey horse island jacket jungle kettle kitchen ladder lamp lantern lemon
    library lion lizard market medal mirror monkey mountain museum needle ocean onion orange otter owl painter
    palace paper parrot pebble pencil pepper piano pigeon pillow planet pocket potato pumpkin puppet rabbit
    railway ribbon river robot rocket sailor sandal saucer school shadow shelter shovel singer spider spoon
    squirrel station storm street sugar summer table teacher teapot temple ticket tiger tower tractor turtle
    tunnel umbrella valley village violin wagon wallet walnut whale wheel window winter wizard wolf
    """.split()  # noqa: SIM905 - a list of literals would take 153 lines
)
_COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}

Rule = Json


@dataclass(frozen=True)
class Task:
    """An instruction, the rules that a good response keeps, and a response that keeps them."""

    instruction: str
    rules: tuple[Rule, ...]
    response: str


def contains(*texts: str) -> tuple[Rule, ...]:
    return tuple({"rule": "contains", "text": text} for text in texts)


def edge(rule: str, text: str) -> Rule:
    return {"rule": rule, "text": text}


def count(rule: str, n: int) -> Rule:
    return {"rule": rule, "n": n}


_SHORT = (count("n_sentences", 1), count("max_words", 12))  # what "one short sentence" means


def _last_word(rng: random.Random, words: list[str]) -> Task:
    a, b = words[:2]
    middle = rng.choice(["stands close to", "is far from", "looks like", "is older than", "belongs to", "waits for"])
    instruction = f'Write one short sentence about the {a} that ends with "{b}."'
    return Task(instruction, (*contains(a), edge("ends_with", f"{b}."), *_SHORT), f"The {a} {middle} the {b}.")


def _question(rng: random.Random, words: list[str]) -> Task:
    a, b = words[:2]
    middle = rng.choice(["belong to", "look like", "stand close to", "need"])
    instruction = f'Write one short question about the {a} that ends with "{b}?"'
    return Task(instruction, (*contains(a), edge("ends_with", f"{b}?"), *_SHORT), f"Does the {a} {middle} the {b}?")


def _avoid(rng: random.Random, words: list[str]) -> Task | None:
    a, b = words[:2]
    taboo, response = rng.choice(
        [
            ("the", f"My {a} and your {b} are very old."),
            ("and", f"The {a} is as old as the {b}."),
            ("are", f"The {a} was close to the {b}."),
        ]
    )
    instruction = f'Write one short sentence about {a} and {b} without "{taboo}".'
    rules = (*contains(a, b), edge("excludes", taboo), *_SHORT)
    return None if taboo in a + b else Task(instruction, rules, response)


def _repeat(rng: random.Random, words: list[str]) -> Task:
    n = rng.randint(3, 7)
    instruction = f"Write the word {words[0]} exactly {_COUNTS[n]} times, separated by commas."
    rules = (count("n_items", n), count("n_words", n), {"rule": "occurs", "text": words[0], "n": n})
    return Task(instruction, rules, ", ".join([words[0]] * n))


def _twice(rng: random.Random, words: list[str]) -> Task:
    a = words[0]
    n = rng.randint(2, 3)
    response = {2: f"One {a} is bigger than the other {a}.", 3: f"This {a}, that {a} and every {a} look alike."}[n]
    instruction = f"Write one short sentence that holds the word {a} exactly {_COUNTS[n]} times."
    return Task(instruction, ({"rule": "occurs", "text": a, "n": n}, *_SHORT), response)


def _exact_length(rng: random.Random, words: list[str]) -> Task:
    a, n = words[0], rng.randint(4, 8)
    tail = {
        4: ["is old", "looks small", "came back"],
        5: ["is very old", "looks quite small", "was never here"],
        6: ["is not so big", "was here last year", "may come back soon"],
        7: ["is as quiet as snow", "was not here last year", "will be here very soon"],
        8: ["is the best one of all", "was not seen here last year", "will come back to us soon"],
    }[n]
    instruction = f"Write one sentence of exactly {_COUNTS[n]} words about the {a}."
    rules = (*contains(a), count("n_words", n), count("n_sentences", 1))
    return Task(instruction, rules, f"The {a} {rng.choice(tail)}.")


def _two_sentences(rng: random.Random, words: list[str]) -> Task:
    a, b = words[:2]
    instruction = f'Write exactly two short sentences: start with "The {a}" and speak of the {b} in the second one.'
    rules = (*contains(b), edge("starts_with", f"The {a}"), count("n_sentences", 2), count("max_words", 20))
    first = rng.choice(["is quiet today", "is new here", "was made by hand"])
    second = rng.choice(["is much older", "came a year later", "can wait"])
    return Task(instruction, rules, f"The {a} {first}. The {b} {second}.")


def _letter(rng: random.Random, words: list[str]) -> Task:
    a, b = words[:2]
    instruction = f'Write a very short letter that starts with "Dear {a}" and ends with "Your {b}".'
    rules = (edge("starts_with", f"Dear {a}"), edge("ends_with", f"Your {b}"), count("max_words", 20))
    body = rng.choice(["I hope to see you soon.", "thank you for the long visit.", "please write to me again."])
    return Task(instruction, rules, f"Dear {a}, {body} Your {b}")


def _case(rng: random.Random, words: list[str]) -> Task:
    a, b = words[:2]
    rule, wording = rng.choice([("uppercase", "capital letters"), ("lowercase", "lower case letters")])
    choices = [f"The {a} is next to the {b}.", f"One {b} and one {a} are friends.", f"No {a} is like a {b}."]
    sentence = rng.choice(choices)
    instruction = f"Write one short sentence with the words {a} and {b}, in {wording} only."
    rules: tuple[Rule, ...] = ({"rule": rule}, *contains(a, b), *_SHORT)
    return Task(instruction, rules, sentence.upper() if rule == "uppercase" else sentence.lower())


def _capital_list(rng: random.Random, words: list[str]) -> Task:
    chosen = words[: rng.randint(3, 4)]
    instruction = f"Write these words in capital letters, separated by commas: {' '.join(chosen)}"
    return Task(instruction, ({"rule": "uppercase"}, *_listed(chosen)), ", ".join(chosen).upper())


def _reversed_list(rng: random.Random, words: list[str]) -> Task:
    chosen = words[: rng.randint(3, 4)]
    instruction = f"Write these words in reverse order: {', '.join(chosen)}"
    return Task(instruction, _listed(chosen[::-1]), ", ".join(chosen[::-1]))


def _sorted_list(_: random.Random, words: list[str]) -> Task:
    chosen = words[:3]
    instruction = f"Write these words in alphabetical order: {', '.join(chosen)}"
    return Task(instruction, _listed(sorted(chosen)), ", ".join(sorted(chosen)))


def _left_out(rng: random.Random, words: list[str]) -> Task:
    chosen = words[: rng.randint(4, 5)]
    out = rng.choice(chosen)
    kept = [word for word in chosen if word != out]
    instruction = f"Write this list again without {out}: {', '.join(chosen)}"
    return Task(instruction, _listed(kept), ", ".join(kept))


def _numbered(rng: random.Random, words: list[str]) -> Task:
    chosen = words[: rng.randint(2, 4)]
    lines = [f"{i}. {word}" for i, word in enumerate(chosen, 1)]
    instruction = f"Write a numbered list with one word on each line: {', '.join(chosen)}"
    return Task(instruction, (*contains(*lines), count("n_lines", len(chosen))), "\n".join(lines))


def _json(rng: random.Random, words: list[str]) -> Task:
    chosen = words[: rng.randint(2, 3)]
    value = rng.randint(1, 9)
    instruction = f"Write a JSON object with the value {value} under each of the keys {', '.join(chosen)}"
    response = json.dumps(dict.fromkeys(chosen, value))
    rules: list[Rule] = [
        {"rule": "json_keys", "keys": chosen},
        {"rule": "occurs", "text": str(value), "n": len(chosen)},
    ]
    return Task(instruction, tuple(rules), response)


def _listed(words: list[str]) -> tuple[Rule, ...]:
    """Return the rules of a list of just these words in this order."""
    return (*contains(", ".join(words)), count("n_words", len(words)))


_KINDS: tuple[Callable[[random.Random, list[str]], Task | None], ...] = (
    *(_last_word, _question, _avoid, _repeat, _twice, _exact_length, _two_sentences, _letter, _case),
    *(_capital_list, _reversed_list, _sorted_list, _left_out, _numbered, _json),
)


def draw(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one instruction over words of one side, or None where they do not fit it."""
    words = rng.sample(on_side(NOUNS, wanted), 5)
    task = rng.choice(_KINDS)(rng, words)
    if task is None:
        return None
    parts = tuple(word for word in words if word in task.instruction)
    row = {
        "instruction": task.instruction,
        "output": task.response,
        "generator": "m3_exp.lab",
        "dataset": "lab",
        "rules": list(task.rules),
    }
    return Example(row, f" {task.response}", parts, task.instruction)
