"""Made-up answers: what a rehearsal generates in place of a model (engine.answers=generated).

Text and length of an answer follow from weights, prompt and sample, so that every worker writes the same ones. Where a
benchmark knows an answer that scores 1 and one that scores 0, one of them is written: so programs run in their sandbox,
judges are asked, and tables have figures that differ. None of them means anything, and the fingerprint keeps them apart
from real ones. A text is as long as the example, whatever number of tokens the law of lengths gives it.
"""

from m3_exp.engines.pace import Lengths, law
from m3_exp.types import REHEARSAL, Answer, EngineSettings, Pace, identity

_VERSION = 1  # goes up whenever the same prompt gets another answer
Examples = tuple[str | None, str | None]  # an answer that scores 1, and one that scores 0


def fingerprint(settings: EngineSettings) -> dict[str, str]:
    """Return what of a rehearsal belongs to an answer's key: the law of lengths, not how fast they come."""
    version = identity([_VERSION, vars(law(settings.pace or Pace()))])[:16]
    return {"engine": REHEARSAL, "version": version, "dtype": settings.dtype}


def made_up(weights: str, prompt: str, sample: int, limit: int, lengths: Lengths, examples: Examples) -> Answer:
    """Return the answer of weights (a digest) to a prompt (its id), of at most `limit` tokens."""
    tokens = length(weights, prompt, sample, limit, lengths)
    skill = 0.2 + 0.6 * _chance(weights, prompt.partition("/")[0])  # the share of right answers
    right, wrong = examples
    text = right if _chance(weights, prompt, sample, "right") < skill else wrong
    text = f"A rehearsed answer: {round(1000 * _chance(weights, prompt, sample))}." if text is None else text
    return Answer(prompt, text, sample, tokens, "length" if tokens == limit else "stop")


def length(weights: str, prompt: str, sample: int, limit: int, lengths: Lengths) -> int:
    """Return how many tokens the answer of weights (a digest) to a prompt (its id) has."""
    return lengths.at(_chance(weights, prompt, sample, "length"), limit)


def _chance(*parts: object) -> float:
    """Return a number above 0 and below 1 that these parts determine."""
    return (int(identity(parts)[:12], 16) + 0.5) / 16**12
