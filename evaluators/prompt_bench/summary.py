"""Scores without and under attack -> accuracies, MCC, parse rates and PDR.

An attacked score has the id `ITEM@seedK`, the clean one the item's; the notes of each carry `label` and `prediction`
(-1: no label), those of an attacked one also `attack`, `protocol`, `seed`, `prompt` and `facts`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evaluators.prompt_bench.frozen import MARK
from m3_exp.scoring.summary import mean_result
from m3_exp.stats.estimate import deviation
from m3_exp.stats.scored import of_scores
from m3_exp.types import Json, Result, Score

if TYPE_CHECKING:
    from m3_exp.stats.ratio import Ratio


def result(benchmark: str, scores: Sequence[Score], settings: Mapping[str, Any]) -> Result:
    """Return the accuracy, or where there are attacked scores that under attack: the mean over an item's seeds.

    An item counts where it is scored without the attack and under it, so that everything is paired. What the items say
    of their attack stands in the settings, also where a stored set of them is scored.
    """
    attacked = [score for score in scores if MARK in score.id]
    clean = {score.id: score for score in scores if MARK not in score.id}
    if not attacked:
        return mean_result(benchmark, "accuracy", scores, settings, _figures(scores))
    paired = [_paired(score, clean.get(score.id.rpartition(MARK)[0])) for score in attacked]
    details = {
        **_drops(scores),
        **_figures(list(clean.values()), "_clean"),
        **_figures(attacked, "_attacked"),
        "prompts": _prompts(attacked),
    }
    made = next(({key: s.notes[key] for key in ("attack", "protocol")} for s in attacked if s.notes), {})
    return mean_result(benchmark, "accuracy under attack", paired, {**settings, **made}, details)


def _paired(score: Score, clean: Score | None) -> Score:
    """Turn an attacked score into a sample of its item: its number is the seed."""
    item, _, seed = score.id.rpartition(MARK)
    lost = clean is None or clean.value is None
    reason = "the same item without the attack is unscored" if lost else score.reason
    return replace(score, id=item, sample=int(seed), value=None if lost else score.value, reason=reason)


def _drops(scores: Sequence[Score]) -> Json:
    """Return PDR over all seeds with its interval, under its protocol's name, and by seed."""
    protocol = next((score.notes["protocol"] for score in scores if "protocol" in score.notes), "unknown")
    pdr = _drop(scores)
    seeds = sorted({int(score.id.rpartition(MARK)[2]) for score in scores if MARK in score.id})
    of_seed = {seed: [s for s in scores if MARK not in s.id or s.id.endswith(f"{MARK}{seed}")] for seed in seeds}
    by_seed = {str(seed): _percent(_drop(some).value) for seed, some in of_seed.items()}
    values = [value for value in by_seed.values() if value is not None]
    bounded = math.isfinite(pdr.low)
    return {
        f"pdr_{protocol}": _percent(pdr.value),
        f"pdr_{protocol}_low": _percent(pdr.low) if bounded and pdr.value is not None else None,
        f"pdr_{protocol}_high": _percent(pdr.high) if pdr.value is not None else None,
        f"pdr_{protocol}_reason": pdr.reason if bounded or pdr.value is None else "not bounded below",
        "pdr_by_seed": by_seed,
        "pdr_sd_between_seeds": deviation(values),
    }


def _drop(scores: Sequence[Score]) -> "Ratio":
    """Return the PDR of the items that are scored without the attack and under it; the others are missing.

    The interval holds for the attacked prompts as they are: that another seed finds other prompts is not in it.
    """
    from m3_exp.stats.ratio import drop  # scipy: plans and tables that do not score need none of it

    under, clean = of_scores(scores), of_scores([score for score in scores if MARK not in score.id]).values
    ids = sorted(under.values.keys() & clean.keys())
    missing = len(under.values) + under.unscored - len(ids)
    return drop(
        [clean[item] for item in ids], [under.values[item] for item in ids], clusters=under.shape(ids).clusters,
        missing=missing,
    )  # fmt: skip


def matthews(labels: Sequence[int], predictions: Sequence[int]) -> float | None:
    """Return Matthews correlation (-1 to 1), for more than two classes Gorodkin's R_K (2004); None where undefined.

    An answer without a label is a class of its own, so that it counts as wrong.
    """
    n = len(labels)
    right = sum(a == b for a, b in zip(labels, predictions, strict=True))
    true, told = Counter(labels), Counter(predictions)
    covariance = n * right - sum(true[k] * told[k] for k in true)
    spread = (n * n - sum(c * c for c in true.values())) * (n * n - sum(c * c for c in told.values()))
    return covariance / math.sqrt(spread) if spread else None


def _figures(scores: Sequence[Score], suffix: str = "") -> Json:
    """Return accuracy, parse rate and accuracy among the parsed in percent, MCC from -1 to 1, and the counts."""
    told = [(score.notes["label"], score.notes["prediction"]) for score in scores if score.value is not None]
    parsed = sum(prediction >= 0 for _, prediction in told)
    right = sum(label == prediction for label, prediction in told)
    figures = {
        "accuracy": 100.0 * right / len(told) if told else None,
        "mcc": matthews([label for label, _ in told], [prediction for _, prediction in told]),
        "parse_rate": 100.0 * parsed / len(told) if told else None,
        "accuracy_among_parsed": 100.0 * right / parsed if parsed else None,
        "counts": {"scored": len(told), "right": right, "parsed": parsed},
    }
    return {f"{key}{suffix}": value for key, value in figures.items()}


def _prompts(scores: Sequence[Score]) -> list[Json]:
    """Return the attacked prompts of scores, in the form that `prompts=PATH` reads."""
    by_seed = {score.notes["seed"]: score.notes for score in scores if score.notes}
    return [{key: notes[key] for key in ("attack", "seed", "prompt", "facts")} for _, notes in sorted(by_seed.items())]


def _percent(value: float | None) -> float | None:
    return None if value is None else 100.0 * value
