"""Plug-ins from outside the tree: those that docs/plugins.md shows, and two more."""

import re

from m3_exp.command_line import ROOT

PAGE = (ROOT / "docs" / "plugins.md").read_text()
FILES: dict[str, str] = dict(re.findall(r"(?ms)^`mine/([\w./]+)`\n\n```\w+\n(.*?)^```$", PAGE))

LEANING = '''"""Experts in a geometric order."""

from m3_exp.merging.mixtures import Mixture


def leaning(n_experts, *, seed, tilt: float):
    """Take of each expert `tilt` times as much as of the one before it."""
    shares = [tilt**place for place in range(n_experts)]
    return [Mixture(tuple(share / sum(shares) for share in shares), facts={"tilt": tilt})]
'''

LETTERS = r'''"""Letters: how often a letter occurs in a word."""

import re
from dataclasses import dataclass

from m3_exp.scoring.evaluator import ChatSettings
from m3_exp.types import About, Answer, Problem, Score

WORDS = ("banana", "evaluation", "letter", "mississippi", "parallel", "sweep", "tensor", "vector")


@dataclass(frozen=True)
class Letters(ChatSettings):
    """How often a letter occurs in a word.

    Measured: whether the last number of the answer is right (accuracy).
    Items: eight words.
    Prompt: a question; greedy, at most 64 tokens.
    """

    name = "letters"
    version = "1"
    skill = "lm"
    about = About("Letters", colour="vermillion", marker="H", rank=20)

    letter: str = "e"
    max_tokens: int = 64

    def problems(self, items):
        return [Problem(word, {"word": word}) for word in WORDS]

    def prompt(self, problem):
        return f"How often does the letter {self.letter} occur in {problem.row['word']}? End with the number."

    def score_one(self, problem, answer):
        found, right = (re.findall(r"\d+", answer.text) or [None])[-1], self.gold(problem)
        return Score(answer.id, float(found == right), answer.sample, found, f"gold is {right}")

    def gold(self, problem):
        return str(problem.row["word"].count(self.letter))

    def wrong(self, problem):
        return str(problem.row["word"].count(self.letter) + 1)
'''

LETTERS_YAML = """defaults: [_self_, _base@letters]
letters:
  target: letters:Letters
  letter: e
  max_tokens: ${oc.select:family.max_tokens.letters,64}
"""
